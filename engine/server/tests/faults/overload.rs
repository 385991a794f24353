//! Three times as much as the engine can take, on the real disk: its memory stays within bounds, and afterwards
//! each acknowledged row is there, once, and nothing else.
//!
//! `TIDEGATE_OVERLOAD_SECONDS=300` does it for longer. How fast it is afterwards is for `tidegate-benches overload`.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::door::{self, Request};
use super::ledger::{self, COLUMNS, VIEWS};
use super::load::{Load, Pace, Rows, offer};
use super::memory::memory;

const SECONDS: u64 = 6;

const FACTOR: f64 = 3.0;

/// As `tidegate-benches overload` has it: within a minute of overload it rose to 1.6 GiB, and stayed there.
const PEAK_MIB_MAX: f64 = 2048.0;

const CONNECTIONS: usize = 64;

/// Enough to hold more than may wait: 120 MiB.
const CONNECTIONS_OPEN: usize = 512;

const ROWS: Rows = Rows { per_batch: 4000, cycle: u64::MAX };

const START_MAX: Duration = Duration::from_secs(60);

#[test]
fn overload_loses_nothing_doubles_nothing_and_stays_within_memory() {
    let seconds = std::env::var("TIDEGATE_OVERLOAD_SECONDS").ok().map_or(SECONDS, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pack")).unwrap();
    let pack = format!("CREATE SOURCE posts {COLUMNS} WITH (connector = 'http');\n{VIEWS}");
    fs::write(folder.path().join("pack/10_all.sql"), pack).unwrap();
    let engine = Running::start(folder.path());
    let (load, open) = (closed(&engine, 0), Duration::from_secs(seconds));
    let before = offer(&load).unwrap();
    let pace = Pace::Open { batches_per_second: FACTOR * before.batches_per_second() };
    let batches = before.next_batch..u64::MAX;
    let during = offer(&Load { pace, batches, connections: CONNECTIONS_OPEN, duration: open, ..load }).unwrap();
    let after = offer(&closed(&engine, during.next_batch)).unwrap();
    let contradictions = ledger::audit(engine.at, ROWS, &[&before, &during, &after]).unwrap();
    let peak_mib = memory(engine.process.id()).expect("it runs").peak_mib;
    println!("before: {before}\nduring: {during}\nafter: {after}\npeak {peak_mib:.0} MiB");
    assert_eq!(contradictions, [""; 0]);
    assert!(!before.taken.is_empty() && !during.taken.is_empty() && !after.taken.is_empty(), "a phase brought nothing");
    assert!(0 < during.refusals, "{} batches, {FACTOR} times as many as can be taken, and none was refused", during.offered());
    assert!(peak_mib <= PEAK_MIB_MAX, "{peak_mib} MiB were resident, and {PEAK_MIB_MAX} may be");
}

fn closed(engine: &Running, from: u64) -> Load {
    Load {
        to: engine.at,
        source: "posts",
        rows: ROWS,
        connections: CONNECTIONS,
        pace: Pace::Closed,
        batches: from..u64::MAX,
        duration: Duration::from_secs(2),
        again_max: 1,
    }
}

/// Ends when dropped, also where an assertion fails.
pub struct Running {
    pub at: SocketAddr,
    process: Child,
}

impl Running {
    /// On the pack in the folder's `pack`, with its source `posts`; the log is in its `data`.
    pub fn start(folder: &Path) -> Self {
        let running = Self::spawn(folder);
        // Counts nothing, and is answered with 200 once the source is read.
        let nothing = Request { method: "POST", path: "/v1/ingest/posts", kind: "application/x-ndjson", key: None, body: b"" };
        let begun = Instant::now();
        while door::exchange(running.at, &nothing).is_none_or(|answer| answer.status != 200) {
            assert!(begun.elapsed() < START_MAX, "the source is not there");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// One that need not get as far as that.
    pub fn spawn(folder: &Path) -> Self {
        Self::spawn_telling(folder, Stdio::inherit())
    }

    /// What it says goes to `stderr`.
    pub fn spawn_telling(folder: &Path, stderr: Stdio) -> Self {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("run")
            .arg(folder.join("pack"))
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--tick", "10ms", "--workers", "2", "--allow-statements", "--listen-pg", "off", "--listen-http"])
            .arg(at.to_string())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { at, process }
    }

    /// Asks it to end in order. None: it takes longer.
    pub fn terminated(&mut self, within: Duration) -> Option<ExitStatus> {
        let asked = Command::new("kill").arg("-TERM").arg(self.process.id().to_string()).status().unwrap();
        assert!(asked.success(), "no signal was sent");
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some(status) = self.process.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself: then the test has failed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
