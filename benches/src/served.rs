//! An engine behind its HTTP door, in a process of its own: what it takes is its own, and it can be killed.
//!
//! The two talk in lines. The process says where its door is, "loaded" once the statements are carried out and
//! the log is read, and "started" once sources are read, which it is told to by "start". It ends with whoever
//! started it, as its input does.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Args;
use tidegate::{Config, Engine, Inbox, Registry, generator::ServerConnectors, http};
use tidegate_types::error::{Error, Result};

use crate::engine::LogWanted;

/// Until a process says what it is expected to: a recovery may take long.
const WORD_TIME_MAX: Duration = Duration::from_secs(3600);

const LOADED: &str = "loaded";
const START: &str = "start";
const STARTED: &str = "started";

// How an engine is to run. No help text: it would stand where the command's own should.
#[derive(Debug, Clone, Args)]
pub struct EngineWanted {
    /// Timely threads
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Pace of commits, in milliseconds
    #[arg(long, default_value_t = 10)]
    pub tick_ms: u64,
}

/// What one process runs.
#[derive(Args)]
pub struct OneEngine {
    /// The statements; paths in them are relative to its folder
    #[arg(long)]
    sql: PathBuf,
    /// Of the log
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, value_enum)]
    log: LogWanted,
    #[command(flatten)]
    wanted: EngineWanted,
}

/// An engine that runs. Killed, as by `kill -9`, when dropped.
pub struct Served {
    pub at: SocketAddr,
    /// From the start of the process to "loaded".
    pub load_seconds: f64,
    process: Child,
    input: ChildStdin,
    words: Receiver<String>,
}

impl Served {
    /// Returns once the statements of the file `sql` are carried out. `folder` holds the log.
    pub fn start(sql: &Path, folder: &Path, log: LogWanted, wanted: &EngineWanted) -> Result<Self> {
        let failed = |error: std::io::Error| Error::engine(format!("an engine cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let begun = Instant::now();
        let mut command = Command::new(program);
        command.arg("one-engine").arg("--sql").arg(sql).arg("--folder").arg(folder);
        command.args(["--log", log.name()]).args([format!("--workers={}", wanted.workers), format!("--tick-ms={}", wanted.tick_ms)]);
        // A temporary log lies on the same disk.
        command.env("TMPDIR", folder.parent().unwrap_or(folder));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (input, output) = (process.stdin.take().expect("it is piped"), process.stdout.take().expect("it is piped"));
        let (said, words) = channel();
        std::thread::spawn(move || BufReader::new(output).lines().map_while(std::io::Result::ok).try_for_each(|word| said.send(word)));
        let mut served = Self { at: ([0, 0, 0, 0], 0).into(), load_seconds: 0.0, process, input, words };
        let at = served.word()?;
        served.at = at.parse().map_err(|_| Error::engine(format!("the engine's process said '{at}', not where it is")))?;
        served.hear(LOADED)?;
        served.load_seconds = begun.elapsed().as_secs_f64();
        Ok(served)
    }

    /// Sources are read from now on.
    pub fn start_sources(&mut self) -> Result<()> {
        writeln!(self.input, "{START}").map_err(|error| Error::engine(format!("the engine's process does not listen: {error}")))?;
        self.hear(STARTED)
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn hear(&self, wanted: &str) -> Result<()> {
        match self.word()? {
            word if word == wanted => Ok(()),
            word => Err(Error::engine(format!("the engine's process said '{word}', not '{wanted}'"))),
        }
    }

    fn word(&self) -> Result<String> {
        self.words.recv_timeout(WORD_TIME_MAX).map_err(|_| Error::engine("the engine's process ended, or says nothing; its error is above"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process. Returns once its input has ended.
pub async fn one(options: &OneEngine) -> Result<bool> {
    let text = std::fs::read_to_string(&options.sql)
        .map_err(|error| Error::user(format!("the statements in {} cannot be read: {error}", options.sql.display())))?;
    let inbox = Inbox::default();
    let EngineWanted { workers, tick_ms } = options.wanted;
    let (tick, durability) = (Duration::from_millis(tick_ms), options.log.durability(&options.folder));
    let folder = options.sql.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let config = Config { workers, tick, durability, folder, ..Config::default() };
    let engine = Engine::start(config, Arc::new(ServerConnectors::new(Registry::new(inbox.clone()))))?;
    let at = http::serve(engine.clone(), inbox, ([127, 0, 0, 1], 0).into(), false, http::Limits::default()).await?;
    say(&at.to_string())?;
    engine.apply(&[("bench.sql".into(), text)]).await?;
    say(LOADED)?;
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    // Not one of the runtime's threads: it would hold the end.
    std::thread::spawn(move || std::io::stdin().lines().map_while(std::io::Result::ok).try_for_each(|word| told.send(word)));
    loop {
        tokio::select! {
            word = tells.recv() => match word {
                None => return Ok(true),
                Some(word) if word == START => {
                    engine.start_sources().await?;
                    say(STARTED)?;
                }
                Some(word) => return Err(Error::engine(format!("'{word}' was not expected"))),
            },
            error = engine.failed() => return Err(error),
        }
    }
}

fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{word}").and_then(|()| out.flush());
    said.map_err(|error| Error::engine(format!("nobody listens: {error}")))
}

/// The type of the file system that holds `folder`: on some nothing is ever synced.
pub fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    holder(&std::fs::read_to_string("/proc/self/mounts").ok()?, &folder)
}

/// The last of the deepest mounts above it counts.
fn holder(mounts: &str, folder: &Path) -> Option<String> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (Path::new(words.next()?), words.next()?);
        folder.starts_with(at).then(|| (at.components().count(), kind.to_string()))
    });
    mounted.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_holds_a_folder() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n/dev/c /tm btrfs rw 0 0\n";
        for (folder, kind) in [("/var", "ext4"), ("/tmp/y", "tmpfs"), ("/tmp/x/z", "xfs"), ("/tmpfile", "ext4")] {
            assert_eq!(holder(mounts, Path::new(folder)).as_deref(), Some(kind), "{folder}");
        }
        assert_eq!(holder("", Path::new("/")), None);
    }
}
