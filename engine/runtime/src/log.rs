//! The durable log: what the engine's results do not follow from, in the order in which it happened.
//!
//! A tick is durable when its commit and the commit's copy are on the disk; nothing of it is seen
//! outside before. A restart scans the log: behind the last commit nothing was acknowledged, and it
//! is cut off; damage before it is refused by name. There is no other ledger: all state comes from
//! reading.
//!
//! In reading order: a frame ([`frame`]), what frames say ([`record`]), the files ([`segment`]), who
//! writes ([`writer`]), what a restart reads ([`scan`]), what spares it the beginning ([`snapshot`]),
//! what is passed over since a worker failed on it ([`quarantine`]), and the log as it was earlier ([`past`]).

pub mod frame;
pub mod past;
pub mod quarantine;
pub mod record;
mod scan;
pub mod segment;
pub mod snapshot;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::Mutex;
use tempfile::TempDir;
use tidegate_types::connector::Writer;
use tidegate_types::disk::{Disk, Room, folder_of};
use tidegate_types::error::{Error, Fault, Result};
use tidegate_types::time::next_tick;
use tidegate_types::{Random, Tick};
use tokio::sync::mpsc;

use self::frame::Chain;
use self::quarantine::{Guilty, Quarantine, Suspect};
use self::record::{Arrived, Record};
pub use self::scan::{Replay, Replayed};
use self::scan::{broken_at, history, read_frames};
use self::segment::{Holdings, Mark, Segment, unless_full};
use self::snapshot::{Head, Parts};
use self::writer::LogWriter;
use crate::seeded::{Bug, Seeded};

/// Where a frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub segment: Segment,
    /// In the segment.
    pub position: u64,
    /// The next frame's.
    pub number: u64,
    pub chain: Chain,
    /// The last commit's.
    pub tick: Tick,
}

impl Place {
    const START: Self = Self { segment: Segment::FIRST, position: 0, number: 0, chain: [0; 16], tick: 0 };
}

/// From the thread that writes.
#[derive(Debug)]
pub enum Event {
    Durable(Tick),
    /// The disk is full, and why; None: it no longer is.
    Full(Option<String>),
    /// No further segment can be begun, and why; None: one was.
    Crowded(Option<String>),
    /// What is left on the disk.
    Room(Room),
    /// Nothing more will be durable.
    Failed(Error),
}

enum Order {
    Append(Tick, Record),
    Commit(Tick, BTreeMap<String, Tick>),
    /// Hands out the number of the next frame, once all before it can be read.
    Flush(Sender<u64>),
    /// Begins another segment, and hands it out; None where no file can be made.
    Roll(Sender<Option<Segment>>),
    Stop,
}

/// Between two looks whether it is room that is waited for.
const FULL_LOOK: Duration = Duration::from_millis(1);

/// How much was written since the last snapshot.
#[derive(Default)]
pub struct Growth {
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
}

/// What the writing thread and the log's owner both see.
#[derive(Clone)]
struct Shared {
    holdings: Arc<Mutex<BTreeMap<Segment, Holdings>>>,
    /// The snapshot that a restart begins with.
    newest: Arc<Mutex<Option<Segment>>>,
    growth: Arc<Growth>,
    /// Room is waited for: not while the log is opened, nor when it ends.
    is_patient: Arc<AtomicBool>,
    /// It is waited for now, and an event said so.
    is_full: Arc<AtomicBool>,
    seeded: Seeded,
}

/// The log of a running engine.
pub struct Log {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    orders: Sender<Order>,
    shared: Shared,
    quarantine: Arc<Quarantine>,
    thread: Option<JoinHandle<()>>,
    /// Held while the engine runs: one engine per folder.
    _lock: Box<dyn Send + Sync>,
    /// The folder, where it goes with the process.
    temporary: Option<TempDir>,
}

/// A log that was opened, and what it held.
pub struct Opened {
    pub log: Log,
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Who writes from now on: the log's id, and how often an engine was started on it.
    pub writer: Writer,
    /// What to begin with, and how many frames are before it.
    pub snapshot: Option<(Parts, u64)>,
    /// All that was committed since, this engine's own beginning included.
    pub replay: Replay,
    /// Input that a worker failed on, and that is still being looked for.
    pub suspect: Option<Suspect>,
}

/// How a log is opened.
pub struct Opening {
    pub disk: Arc<dyn Disk>,
    pub folder: PathBuf,
    pub random: Arc<dyn Random>,
    pub now_ms: u64,
    /// Cut a damaged log off where the damage begins, and go on without what came after.
    pub accept_loss: bool,
    /// The folder, where it goes with the log.
    pub temporary: Option<TempDir>,
    /// The folder is a [`past`]: no epoch begins in it, and these were found guilty since.
    pub past: Option<Vec<Guilty>>,
    /// How far it is, for who waits.
    pub progress: Arc<Progress>,
    pub seeded: Seeded,
}

/// How much of a log was read to open it, in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    /// As far as that is known.
    all: AtomicU64,
}

impl Progress {
    fn expect(&self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, all } = self;
        write!(f, "{} of {} bytes", read.load(Ordering::Relaxed), all.load(Ordering::Relaxed))
    }
}

impl Log {
    /// Scans the folder, which is made where there is none, and begins another epoch in it. Errors: `NoRoom` where that
    /// may do later, by itself.
    pub fn open(opening: Opening) -> Result<Opened> {
        let Opening { disk, folder, random, now_ms, accept_loss, temporary, past, progress, seeded } = opening;
        make_folder(&*disk, &folder).map_err(|error| unusable(&folder, &error))?;
        let lock = disk.lock(&folder.join("lock")).map_err(|error| locked(&folder, &error))?;
        let mut found = scan::scan(&*disk, &folder, accept_loss, seeded, &progress)?;
        let mut suspect = Suspect::read(&*disk, &folder)?;
        let (orders, taken) = unbounded();
        let (sender, events) = mpsc::unbounded_channel();
        let first = *found.holdings.keys().next().unwrap_or(&found.end.segment).min(&found.end.segment);
        let shared = Shared {
            holdings: Arc::new(Mutex::new(found.holdings)),
            newest: Arc::new(Mutex::new(found.snapshot.as_ref().map(|(segment, _)| *segment))),
            growth: Arc::default(),
            is_patient: Arc::default(),
            is_full: Arc::default(),
            seeded,
        };
        let is_watched = temporary.is_none();
        let writing = LogWriter::open(Arc::clone(&disk), folder.clone(), found.end, found.is_new, is_watched, &shared);
        let mut writing = writing.map_err(|error| unusable(&folder, &error))?;
        if accept_loss || segment::marked(&*disk, &folder, Mark::First)?.is_none() {
            segment::set_mark(&*disk, &folder, Mark::First, &first)?;
        }
        segment::set_mark(&*disk, &folder, Mark::Last, &found.end.segment)?;
        let before = found
            .writer
            .filter(|_| past.is_none())
            .unwrap_or_else(|| Writer { log: format!("{:016x}{:016x}", random.next_u64(), random.next_u64()), epoch: 0 });
        let writer = Writer { epoch: if seeded.has(Bug::EpochKept) { before.epoch.max(1) } else { before.epoch + 1 }, ..before };
        let guilty = suspect.as_ref().and_then(Suspect::guilty);
        found.quarantine.extend(guilty.iter().cloned().chain(past.iter().flatten().cloned()));
        if past.is_none() {
            begin(&mut writing, next_tick(found.end.tick, now_ms), &writer, found.lost_after, guilty.as_ref())?;
        }
        shared.is_patient.store(true, Ordering::Relaxed);
        if guilty.is_some() {
            quarantine::clear(&*disk, &folder)?;
            suspect = None;
        }
        let quarantine = Arc::new(found.quarantine);
        let from = found.snapshot.as_ref().map_or(Segment::FIRST, |(segment, _)| *segment);
        let replay = Replay::new(Arc::clone(&disk), folder.clone(), &from, Arc::clone(&quarantine))?;
        let snapshot = found.snapshot.map(|(segment, _)| Parts::open(&*disk, &folder, &segment).map(|parts| (parts, segment.number)));
        let snapshot = snapshot.transpose()?;
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || writing.run(&taken, &|event| drop(sender.send(event))));
        let thread = Some(thread.map_err(|error| Error::engine(format!("the log's thread cannot be started: {error}")))?);
        let log = Self { disk, folder, orders, shared, quarantine, thread, _lock: lock, temporary };
        Ok(Opened { log, events, writer, snapshot, replay, suspect })
    }

    /// Says it at `tick`, which is not durable before its commit is.
    pub fn append(&self, tick: Tick, record: Record) {
        // A thread that is gone has said why.
        let _ = self.orders.send(Order::Append(tick, record));
    }

    /// All of `tick` was said. An [`Event::Durable`] follows.
    pub fn commit(&self, tick: Tick, delivered: BTreeMap<String, Tick>) {
        let _ = self.orders.send(Order::Commit(tick, delivered));
    }

    /// How many frames there are, once they can be read.
    pub fn flushed(&self) -> Result<u64> {
        self.flushing().done()
    }

    /// Whether all that was said can be read. False: that waits for room, as an event says.
    pub fn is_written(&self) -> bool {
        let Flushing(place) = self.flushing();
        loop {
            match place.recv_timeout(FULL_LOOK) {
                Err(RecvTimeoutError::Timeout) if self.shared.is_full.load(Ordering::Relaxed) => return false,
                Err(RecvTimeoutError::Timeout) => {}
                // A thread that is gone has said why.
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
    }

    /// The same as [`Log::flushed`] for who cannot wait here: on a full disk it takes until there is room.
    pub fn flushing(&self) -> Flushing {
        let (reply, place) = bounded(1);
        let _ = self.orders.send(Order::Flush(reply));
        Flushing(place)
    }

    /// Frames and bytes since the last snapshot.
    pub fn growth(&self) -> (u64, u64) {
        let Growth { frames, bytes } = &*self.shared.growth;
        (frames.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    /// Begins another segment behind the last commit, for a snapshot to be followed by. None: no file can be made, as an
    /// event says.
    pub fn roll(&self) -> Result<Option<Segment>> {
        let (reply, segment) = bounded(1);
        let _ = self.orders.send(Order::Roll(reply));
        let segment = segment.recv().map_err(|_| Error::engine("the log has failed"))?;
        if segment.is_some() {
            let Growth { frames, bytes } = &*self.shared.growth;
            frames.store(0, Ordering::Relaxed);
            bytes.store(0, Ordering::Relaxed);
        }
        Ok(segment)
    }

    /// What the segments before `segment` hold.
    pub fn holdings_before(&self, segment: &Segment) -> Vec<(Segment, Holdings)> {
        self.shared.holdings.lock().range(..segment).map(|(segment, holdings)| (*segment, holdings.clone())).collect()
    }

    /// Where snapshots are written, and what sources brought is read again.
    pub fn shelf(&self) -> Shelf {
        let (disk, quarantine) = (Arc::clone(&self.disk), Arc::clone(&self.quarantine));
        let Shared { holdings, newest, seeded, .. } = self.shared.clone();
        Shelf { disk, folder: self.folder.clone(), holdings, newest, quarantine, seeded }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Nothing of it is there for the next engine.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// What is passed over.
    pub fn quarantined(&self) -> Vec<Guilty> {
        self.quarantine.all().cloned().collect()
    }

    /// What is passed over and was a statement of this text.
    pub fn guilty(&self, text: &str) -> Option<&Guilty> {
        self.quarantine.all().find(|guilty| guilty.statement.as_deref() == Some(text))
    }

    /// Keeps in mind where a worker failed, for the next start.
    pub fn suspect(&self, suspect: &Suspect) -> Result<()> {
        suspect.write(&*self.disk, &self.folder)
    }

    /// Nothing is under suspicion any more.
    pub fn acquit(&self) -> Result<()> {
        quarantine::clear(&*self.disk, &self.folder)
    }

    /// Writes what was said, and ends.
    pub fn stop(&mut self) {
        self.shared.is_patient.store(false, Ordering::Relaxed);
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Nobody writes any more when the folder is free for another engine.
impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What was said so far, on its way to where it can be read.
pub struct Flushing(Receiver<u64>);

impl Flushing {
    /// How many frames that is, once they can be read.
    pub fn done(self) -> Result<u64> {
        self.0.recv().map_err(|_| Error::engine("the log has failed"))
    }
}

/// The log's folder, for snapshots.
#[derive(Clone)]
pub struct Shelf {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    holdings: Arc<Mutex<BTreeMap<Segment, Holdings>>>,
    newest: Arc<Mutex<Option<Segment>>>,
    quarantine: Arc<Quarantine>,
    seeded: Seeded,
}

impl Shelf {
    /// The snapshot that counts now, if it is whole, and how many frames are before it; else an older one that is
    /// `is_enough` with the segments there are. None: the log has all from its beginning. Errors: nothing will do.
    pub fn base(&self, is_enough: impl Fn(&Head, &[Segment]) -> bool) -> Result<Option<(Parts, u64)>> {
        let there: Vec<Segment> = self.holdings.lock().keys().copied().collect();
        let (all, newest) = (snapshot::all(&*self.disk, &self.folder)?, *self.newest.lock());
        let missing = newest.filter(|newest| !all.contains(newest)).map(|newest| snapshot::path(&self.folder, &newest));
        let mut damaged: Vec<String> = missing.map(|path| format!("{} is missing", path.display())).into_iter().collect();
        let tell =
            |damaged: &[String]| damaged.iter().for_each(|damage| tracing::error!("{damage}; the next one is made of what is older"));
        for segment in all.into_iter().rev() {
            match snapshot::verified(&*self.disk, &self.folder, &segment) {
                Ok(head) if Some(segment) == newest || (there.contains(&segment) && is_enough(&head, &there)) => {
                    tell(&damaged);
                    return Ok(Some((Parts::open(&*self.disk, &self.folder, &segment)?, segment.number)));
                }
                Ok(_) => {}
                Err(damage) if damage.fault == Fault::User => damaged.push(damage.message),
                Err(error) => return Err(error),
            }
        }
        if damaged.is_empty() || there.first() == Some(&Segment::FIRST) {
            tell(&damaged);
            return Ok(None);
        }
        let error = Error::engine(format!("{}; and what is older does not have all that it had", damaged.join("; ")));
        Err(error.hint("restore that file from a copy: the engine goes on meanwhile, and a start needs it, too"))
    }

    /// The tick that what is left of the log begins with, `next` where nothing is left; None: all of it is there.
    pub fn begins(&self, next: Tick) -> Result<Option<Tick>> {
        let first = self.holdings.lock().keys().next().copied();
        let Some(first) = first.filter(|first| *first != Segment::FIRST) else { return Ok(None) };
        let frame = scan::frames(&*self.disk, &self.folder, &first)?.next(|_| false);
        let frame = frame.map_err(|broken| broken_at(&first.path(&self.folder), &broken))?;
        Ok(Some(frame.map_or(next, |(header, _)| header.tick)))
    }

    /// Hands what these sources brought in the frames `among` to `visit`, oldest first, each with its frame's number.
    pub fn history(&self, sources: &[&str], among: Range<u64>, visit: impl FnMut(u64, Arrived) -> Result<()>) -> Result<()> {
        let known: Vec<Segment> = self.holdings.lock().keys().copied().collect();
        history(&*self.disk, &self.folder, &self.quarantine, &known, sources, among, visit)
    }

    /// Writes the snapshot before `segment`; it does not count yet. Returns its bytes.
    pub fn draft(&self, segment: &Segment, tick: Tick, parts: impl Iterator<Item = Result<Record>>) -> Result<u64> {
        snapshot::remove_drafts(&*self.disk, &self.folder)?;
        let drafted = snapshot::draft(&*self.disk, &self.folder, segment, tick, parts);
        // What did not fit must not keep the log from its room.
        drafted.inspect_err(|_| drop(snapshot::remove_drafts(&*self.disk, &self.folder)))
    }

    /// From now on a restart begins with it; what nobody needs any more is removed.
    pub fn publish(&self, segment: &Segment, is_needed: impl Fn(&Holdings) -> bool) -> Result<()> {
        let known = self.holdings.lock().clone();
        let gone: Vec<Segment> =
            known.range(..segment).take_while(|(_, holdings)| !is_needed(holdings)).map(|(segment, _)| *segment).collect();
        let first = known.keys().nth(gone.len()).unwrap_or(segment).min(segment);
        snapshot::publish(&*self.disk, &self.folder, segment, first, self.seeded)?;
        *self.newest.lock() = Some(*segment);
        let kept = known.into_iter().filter(|(segment, _)| !gone.contains(segment)).collect();
        snapshot::thin(&*self.disk, &self.folder, &kept)?;
        snapshot::trim(&*self.disk, &self.folder, &gone)?;
        self.holdings.lock().retain(|segment, _| !gone.contains(segment));
        Ok(())
    }
}

/// Another epoch begins, in a tick of its own.
fn begin(writing: &mut LogWriter, tick: Tick, writer: &Writer, lost_after: Option<Tick>, guilty: Option<&Guilty>) -> Result<()> {
    let nobody = |_: Event| {};
    let Writer { log, epoch } = writer.clone();
    writing.append(tick, &Record::Begin { log, epoch, version: env!("CARGO_PKG_VERSION").into(), lost_after }, &nobody)?;
    if let Some(guilty) = guilty {
        tracing::error!(frame = guilty.frame, row = guilty.row, "passed over from now on: a worker failed on it: {}", guilty.reason);
        writing.append(tick, &Record::Guilty(guilty.clone()), &nobody)?;
    }
    writing.commit(tick, &Record::Commit { delivered: BTreeMap::new() }, &nobody)
}

/// Makes the folder, with its parents, and their names last.
fn make_folder(disk: &dyn Disk, folder: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && disk.list(folder).is_err()).collect();
    disk.create_folder(folder)?;
    missing.into_iter().try_for_each(|missing| disk.sync_folder(folder_of(missing)))
}

fn locked(folder: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            Error::user(format!("{} is in use by another engine", folder.display())).hint("stop that one, or give another --data-dir")
        }
        _ => unusable(folder, error),
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Error {
    let told = Error::user(format!("the data folder cannot be used: {}: {error}", path.display()));
    unless_full(told.hint("check its disk and its rights, or give another --data-dir"), error)
}
