//! `file` sink: a view's changes, appended to a file as lines of JSON.
//!
//! Options   path (relative to the pack's folder; its folder must exist),
//!           format ('json', which is also the default)
//! Lines     see [`super`]
//! Account   `<path>.manifest`, {"log", "sink", "epoch", "tick", "bytes", "crc32"}:
//!           the file's first `bytes` bytes hold all changes up to `tick`, each
//!           once. Put whole, after the file is on the disk to that length.
//!           "crc32" is of the others, as they are written: where one of them is
//!           not what it was, nothing is cut off, and nothing is written
//! Delivery  exactly once for who reads `bytes` bytes of the file, and over
//!           restarts: what stands behind them is cut off, and written again.
//!           Who reads to the end (`tail -f`) may see that twice after a crash.
//!           What another log or another sink left there stays, and is written
//!           behind, with a warning: a sink that is dropped and made again on the
//!           same path is another one, and begins with all rows there are
//! Fencing   an earlier epoch, another log and another sink are told at their
//!           next write, by the manifest. Two that write at the very same time
//!           are kept apart by the lock on the data folder alone: nothing is
//!           promised for two copies of one data folder that run side by side
//! Errors    name the path. A full disk is waited for, with one warning: the
//!           torn part is cut off and written again. Any other is final, a
//!           manifest that is damaged among them

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_types::connector::{Changes, Progress, Sink, SinkSpec, Writer};
use tidegate_types::disk::{self, Disk, DiskFile};
use tidegate_types::error::{Error, Result};
use tidegate_types::time::Tick;

use crate::options::OptionReader;

/// Between two looks at a full disk.
const REST_FULL: Duration = Duration::from_millis(500);

pub struct FileSink {
    name: String,
    out: Arc<Mutex<Appended>>,
}

impl FileSink {
    pub fn new(spec: &SinkSpec) -> Result<Self> {
        let mut options = OptionReader::new("sink", &spec.name, &spec.options);
        let path = spec.folder.join(options.required("path", "out.jsonl")?);
        options.one_of("format", &[("json", ())])?;
        options.finish()?;
        let mut manifest_path = path.clone().into_os_string();
        manifest_path.push(".manifest");
        let manifest_path = PathBuf::from(manifest_path);
        let out = Appended { sink: spec.name.clone(), disk: spec.disk.clone(), path, manifest_path, manifest: None, file: None };
        Ok(Self { name: spec.name.clone(), out: Arc::new(Mutex::new(out)) })
    }

    /// Acts on the file beside the runtime's threads, for as long as the disk is full.
    async fn with_file<T: Send + 'static>(&self, act: impl Fn(&mut Appended) -> Attempt<T> + Send + Sync + 'static) -> Result<T> {
        let act = Arc::new(act);
        let mut warned = false;
        loop {
            let (out, act) = (self.out.clone(), act.clone());
            let tried = tokio::task::spawn_blocking(move || act(&mut out.lock())).await;
            let tried = tried.map_err(|error| Error::engine(format!("the writer of sink \"{}\" died: {error}", self.name)))?;
            match tried {
                Ok(done) => return Ok(done),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Full(error)) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(sink = self.name, "{error}; waiting until there is space");
                    }
                    tokio::time::sleep(REST_FULL).await;
                }
            }
        }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn resume(&mut self, writer: &Writer) -> Result<Progress> {
        let writer = writer.clone();
        self.with_file(move |out| out.resume(&writer)).await
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        let Some(last) = changes.last() else { return Ok(()) };
        let (tick, lines) = (last.tick, super::lines(changes, &self.name)?);
        self.with_file(move |out| out.write(&lines, tick)).await
    }

    /// Every write is on the disk already.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What the file holds, and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    log: String,
    sink: String,
    epoch: u64,
    tick: Tick,
    bytes: u64,
}

impl Manifest {
    fn crc32(&self) -> u32 {
        crc32fast::hash(&serde_json::to_vec(self).expect("numbers and texts make JSON"))
    }
}

/// A manifest as it is on the disk: one wrong digit would have lines cut off that were delivered.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    manifest: Manifest,
    crc32: u32,
}

impl Sealed {
    fn of(manifest: &Manifest) -> Self {
        Self { manifest: manifest.clone(), crc32: manifest.crc32() }
    }

    /// Errors: what is wrong with it.
    fn read(text: &[u8]) -> std::result::Result<Manifest, String> {
        let Self { manifest, crc32 } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match manifest.crc32() == crc32 {
            true => Ok(manifest),
            false => Err(format!("it is damaged: its checksum is {crc32}, and what it says makes {}", manifest.crc32())),
        }
    }
}

type Attempt<T> = std::result::Result<T, Trouble>;

enum Trouble {
    /// To be tried again.
    Full(Error),
    Final(Error),
}

struct Appended {
    sink: String,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    manifest_path: PathBuf,
    /// As last put; None before `resume`.
    manifest: Option<Manifest>,
    /// None: to be cut to `manifest.bytes` and opened.
    file: Option<Box<dyn DiskFile>>,
}

impl Appended {
    fn resume(&mut self, writer: &Writer) -> Attempt<Progress> {
        let found = self.found()?;
        let there = match self.disk.len(&self.path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(self.trouble(&self.path, &error)),
        };
        let (tick, bytes) = match place(found, writer, &self.sink, there.unwrap_or(0)) {
            Ok(Place::Known { tick, bytes }) => (tick, bytes),
            Ok(Place::Behind) => (0, self.begin_behind(there.unwrap_or(0))?),
            Err(why) => return Err(Trouble::Final(self.refused(&why))),
        };
        match there {
            None => self.create()?,
            Some(there) if bytes < there => self.disk.truncate(&self.path, bytes).map_err(|error| self.trouble(&self.path, &error))?,
            Some(_) => {}
        }
        self.file = None;
        let manifest = Manifest { log: writer.log.clone(), sink: self.sink.clone(), epoch: writer.epoch, tick, bytes };
        self.put(manifest)?;
        Ok(Progress::Upto(tick))
    }

    /// Behind what another writer left there, which is told. Returns how much that is.
    fn begin_behind(&self, there: u64) -> Attempt<u64> {
        if there != 0 {
            let path = self.path.display();
            tracing::warn!(sink = self.sink, %path, "the file holds another writer's lines: all rows there are now are written behind them");
        }
        self.end_of_lines(there)
    }

    fn write(&mut self, lines: &[u8], tick: Tick) -> Attempt<()> {
        let Some(manifest) = self.manifest.clone() else {
            return Err(Trouble::Final(Error::engine(format!("sink \"{}\" was written before it was resumed", self.sink))));
        };
        let next = Manifest { tick, bytes: manifest.bytes + lines.len() as u64, ..manifest.clone() };
        let found = self.found()?;
        // The next one is there where an earlier try failed at the last step of putting it.
        if found.as_ref().is_none_or(|found| *found != manifest && *found != next) {
            return Err(Trouble::Final(self.refused(&taken_over(found.as_ref()))));
        }
        self.append(lines, manifest.bytes).map_err(|error| {
            self.file = None;
            self.trouble(&self.path, &error)
        })?;
        self.put(next)
    }

    /// Puts the lines behind byte `bytes`, for good.
    fn append(&mut self, lines: &[u8], bytes: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                self.disk.truncate(&self.path, bytes)?;
                self.file.insert(self.disk.append(&self.path)?)
            }
        };
        file.write_all(lines)?;
        file.sync()
    }

    fn put(&mut self, manifest: Manifest) -> Attempt<()> {
        let mut text = serde_json::to_vec(&Sealed::of(&manifest)).expect("numbers and texts make JSON");
        text.push(b'\n');
        disk::put(&*self.disk, &self.manifest_path, &text).map_err(|error| {
            self.file = None;
            self.trouble(&self.manifest_path, &error)
        })?;
        self.manifest = Some(manifest);
        Ok(())
    }

    fn found(&self) -> Attempt<Option<Manifest>> {
        let mut text = Vec::new();
        match self.disk.read(&self.manifest_path).and_then(|mut file| file.read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.trouble(&self.manifest_path, &error)),
        }
        Sealed::read(&text).map(Some).map_err(|why| {
            let message = format!("sink \"{}\": {} is no manifest: {why}", self.sink, self.manifest_path.display());
            Trouble::Final(Error::engine(message).hint("put it back as it was, or move it away to write behind what the file holds"))
        })
    }

    fn create(&self) -> Attempt<()> {
        let created = self.disk.create(&self.path).and_then(|mut file| file.sync());
        let created = created.and_then(|()| self.disk.sync_folder(disk::folder_of(&self.path)));
        created.map_err(|error| self.trouble(&self.path, &error))
    }

    /// The length of what stands there, with a newline behind it: nobody's half line becomes ours.
    fn end_of_lines(&self, bytes: u64) -> Attempt<u64> {
        let is_whole = bytes == 0 || self.last_byte().map_err(|error| self.trouble(&self.path, &error))? == Some(b'\n');
        if is_whole {
            return Ok(bytes);
        }
        let appended = self.disk.append(&self.path).and_then(|mut file| file.write_all(b"\n").and_then(|()| file.sync()));
        appended.map(|()| bytes + 1).map_err(|error| self.trouble(&self.path, &error))
    }

    fn last_byte(&self) -> io::Result<Option<u8>> {
        let mut file = self.disk.read(&self.path)?;
        let mut block = vec![0; 64 << 10];
        let mut last = None;
        loop {
            match file.read(&mut block)? {
                0 => return Ok(last),
                count => last = Some(block[count - 1]),
            }
        }
    }

    fn trouble(&self, path: &Path, error: &io::Error) -> Trouble {
        let told = Error::engine(format!("sink \"{}\" cannot write {}: {error}", self.sink, path.display())).hint(way_out(error.kind()));
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Trouble::Full(told),
            _ => Trouble::Final(told),
        }
    }

    fn refused(&self, why: &Refusal) -> Error {
        Error::engine(format!("sink \"{}\" does not write {}: {}", self.sink, self.path.display(), why.reason)).hint(&why.way_out)
    }
}

/// Where a writer goes on.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Its own work up to there.
    Known { tick: Tick, bytes: u64 },
    /// Behind what others left.
    Behind,
}

#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    reason: String,
    way_out: String,
}

/// `there`: bytes the file has.
fn place(found: Option<Manifest>, writer: &Writer, sink: &str, there: u64) -> std::result::Result<Place, Refusal> {
    let Some(found) = found.filter(|found| found.log == writer.log && found.sink == sink) else { return Ok(Place::Behind) };
    if writer.epoch < found.epoch {
        return Err(taken_over(Some(&found)));
    }
    if there < found.bytes {
        return Err(Refusal {
            reason: format!("it has {there} bytes, and {} were written", found.bytes),
            way_out: "put the whole file back, or move it and its manifest away to begin anew".into(),
        });
    }
    Ok(Place::Known { tick: found.tick, bytes: found.bytes })
}

/// Somebody else writes the file now.
fn taken_over(by: Option<&Manifest>) -> Refusal {
    let reason = match by {
        Some(Manifest { log, sink, epoch, .. }) => format!("sink \"{sink}\" of log {log} writes it, in epoch {epoch}"),
        None => "its manifest is gone".into(),
    };
    Refusal { reason, way_out: "give each sink a path of its own, and run one engine on a data folder".into() }
}

fn way_out(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "create the folder it is to stand in",
        ErrorKind::PermissionDenied => "give the user the engine runs as the right to write there",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space on that disk",
        _ => "check the path and the disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_in_which_anything_is_changed_is_none() {
        let manifest = Manifest { log: "a\"é".into(), sink: "s".into(), epoch: 2, tick: 1_700_000_000_000, bytes: 1_234 };
        let text = serde_json::to_vec(&Sealed::of(&manifest)).unwrap();
        assert_eq!(Sealed::read(&text), Ok(manifest.clone()));
        for i in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[i] ^= 1 << bit;
                assert!(Sealed::read(&changed).is_err(), "{}", String::from_utf8_lossy(&changed));
            }
        }
        let unsealed = serde_json::to_vec(&manifest).unwrap();
        assert!(Sealed::read(&unsealed).unwrap_err().contains("missing field `crc32`"));
    }

    #[test]
    fn a_writer_goes_on_behind_its_own_and_never_into_others() {
        let manifest = |log: &str, sink: &str, epoch| Some(Manifest { log: log.into(), sink: sink.into(), epoch, tick: 7, bytes: 100 });
        let known = Ok(Place::Known { tick: 7, bytes: 100 });
        let cases = [
            (None, 0, Ok(Place::Behind)),
            (None, 50, Ok(Place::Behind)),
            (manifest("a", "s", 1), 100, known),
            (manifest("a", "s", 2), 130, Ok(Place::Known { tick: 7, bytes: 100 })),
            (manifest("a", "s", 3), 100, Err("sink \"s\" of log a writes it, in epoch 3")),
            (manifest("a", "s", 1), 99, Err("it has 99 bytes, and 100 were written")),
            (manifest("b", "s", 9), 10, Ok(Place::Behind)),
            (manifest("a", "t", 9), 10, Ok(Place::Behind)),
        ];
        let writer = Writer { log: "a".into(), epoch: 2 };
        for (found, there, expected) in cases {
            let got = place(found.clone(), &writer, "s", there).map_err(|refusal| refusal.reason);
            assert_eq!(got, expected.map_err(str::to_string), "{found:?} and {there} bytes");
        }
    }
}
