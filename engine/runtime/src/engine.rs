//! The door: start an engine, read it, wait for it. Statements go in by `execute.rs`.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use parking_lot::Mutex;
use tidegate_types::connector::Connectors;
use tidegate_types::error::{Error, Fault, Result};
use tidegate_types::{Disk, ScratchDisk, StoppedClock, Tick};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::bridge::Workers;
use crate::coordinator::{Coordinator, Inlets, Outlets, Recovery, Request, Shared};
use crate::interface::{Config, DetectionInfo, Directory, Durability, Health, RelationInfo, Snapshot};
use crate::log::past::{self, Later, Past};
use crate::log::segment::is_full;
use crate::log::{Log, Opened, Opening, Progress};
use crate::metrics::Metrics;
use crate::telling::Telling;

/// A running engine. Clones are handles on the same one.
#[derive(Clone)]
pub struct Engine {
    requests: mpsc::Sender<Request>,
    metrics: Metrics,
    health: Arc<Mutex<Health>>,
    directory: Arc<Mutex<Directory>>,
    failed: watch::Receiver<Option<Error>>,
    recovered: watch::Receiver<bool>,
    has_no_rows: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Requests that may wait for the coordinator.
const REQUESTS_MAX: usize = 1024;
/// Batches that may wait for the coordinator; their bytes are bounded apart.
const ARRIVALS_MAX: usize = 64;
/// How long one that ends takes to say why.
const ENDING_MAX: Duration = Duration::from_secs(5);
/// Why one is not ready that reads its log.
const RECOVERING: &str = "recovering";
/// An engine that is longer at one tick than this is not ready for more.
const CLOSING_MAX: Duration = Duration::from_secs(30);

impl Engine {
    /// Starts workers and coordinator, and brings them to where the log ends; what is asked
    /// meanwhile waits. Where the data folder's disk is full, that begins once there is room. Must be called inside
    /// a tokio runtime. Errors: a data folder that cannot be used.
    pub fn start(config: Config, connectors: Arc<dyn Connectors>) -> Result<Self> {
        let log = match open_log(&config, &Arc::default()) {
            Err(error) if is_waited_for(&config, &error) => Reading::Full(error),
            opened => Reading::Done(Box::new(opened?)),
        };
        Self::go(config, connectors, log)
    }

    /// The same, but returns before the log was read: health says how far that is, and [`Engine::failed`] tells that
    /// the data folder cannot be used.
    pub fn start_at_once(config: Config, connectors: Arc<dyn Connectors>) -> Result<Self> {
        Self::go(config, connectors, Reading::Due)
    }

    fn go(config: Config, connectors: Arc<dyn Connectors>, log: Reading) -> Result<Self> {
        let (workers, reports) = Workers::start(config.workers, config.witness.clone(), config.state_bytes_max)?;
        let metrics = Metrics::new();
        let health = Health {
            ready: false,
            reason: RECOVERING.into(),
            tick: 0,
            lag_ms: 0,
            behind_since: None,
            closing_since: None,
            hindrance: None,
        };
        let health = Arc::new(Mutex::new(health));
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let (arrivals, arrived) = mpsc::channel(ARRIVALS_MAX);
        let (failure, failed) = watch::channel(None);
        let (recovery_ended, recovered) = watch::channel(false);
        let directory = Arc::new(Mutex::new(Directory::default()));
        let shared_failure = failure.clone();
        let shared = Shared {
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            directory: Arc::clone(&directory),
            failure,
            recovered: recovery_ended,
            arrivals,
        };
        let (notes, noted) = mpsc::unbounded_channel();
        let (drafts, drafted) = mpsc::unbounded_channel();
        let (published, publishing) = mpsc::unbounded_channel();
        let events = mpsc::unbounded_channel().1;
        let inlets =
            Inlets { requests: requested, arrivals: arrived, reports, events, notes: noted, drafts: drafted, published: publishing };
        let outlets = Outlets { notes, drafts, published };
        let starting = Starting { config, connectors, workers, shared, inlets, outlets };
        let begun = match log {
            Reading::Done(opened) => Ok(starting.begin(*opened)),
            unread => Err((starting, unread)),
        };
        let (failing, unready) = (shared_failure, Arc::clone(&health));
        tokio::spawn(async move {
            let running = async {
                let (coordinator, inlets, recovery) = match begun {
                    Ok(begun) => begun,
                    Err((starting, log)) => {
                        let opened = log.done(starting.config.clone(), &unready).await?;
                        starting.begin(opened)
                    }
                };
                coordinator.run(inlets, recovery).await;
                Ok::<(), Error>(())
            };
            let error = match AssertUnwindSafe(running).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => Error::engine("the coordinator failed: the log says on what").hint("start it again"),
            };
            let mut health = unready.lock();
            (health.ready, health.reason) = (false, error.to_string());
            failing.send_replace(Some(error));
        });
        Ok(Self { requests, metrics, health, directory, failed, recovered, has_no_rows: false })
    }

    /// A handle by which what reads relations is planned, and answered by no rows: those it is about are elsewhere.
    pub(crate) fn without_rows(self) -> Self {
        Self { has_no_rows: true, ..self }
    }

    pub(crate) fn has_no_rows(&self) -> bool {
        self.has_no_rows
    }

    /// Returns only when the engine cannot go on: why.
    pub async fn failed(&self) -> Error {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(error) => error.clone().expect("waited for"),
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns when the engine is where its log ends: what it has can be named from then on.
    pub async fn recovered(&self) -> Result<()> {
        let mut recovered = self.recovered.clone();
        let is_there = recovered.wait_for(|is_recovered| *is_recovered).await.is_ok();
        if is_there { Ok(()) } else { Err(self.stopped().await) }
    }

    pub fn is_recovered(&self) -> bool {
        *self.recovered.borrow()
    }

    /// Why it answers no more, once the coordinator is gone; or not this once.
    async fn stopped(&self) -> Error {
        let mut failed = self.failed.clone();
        match tokio::time::timeout(ENDING_MAX, failed.wait_for(Option::is_some)).await {
            Ok(Ok(error)) => error.clone().expect("waited for"),
            Ok(Err(_)) => Error::engine("the engine has stopped"),
            Err(_) => Error::engine("the request failed: the engine's log says on what").hint("report it"),
        }
    }

    /// From now on sources are read: those there are, and those created later.
    pub async fn start_sources(&self) -> Result<()> {
        self.ask(|reply| Request::StartSources { reply }).await?
    }

    /// Several relations at one closed tick.
    pub async fn snapshot(&self, names: &[String]) -> Result<Snapshot> {
        let names = names.to_vec();
        self.ask(|reply| Request::Snapshot { names, prefix: Vec::new(), reply }).await?
    }

    /// One relation's rows that begin with `prefix`: some first columns, encoded as rows are kept.
    pub(crate) async fn snapshot_of(&self, name: &str, prefix: Vec<u8>) -> Result<Snapshot> {
        let names = vec![name.to_string()];
        self.ask(|reply| Request::Snapshot { names, prefix, reply }).await?
    }

    /// Appends rows to a source by hand; returns when the tick that holds them is visible.
    pub async fn push(&self, source: &str, rows: RecordBatch) -> Result<Tick> {
        let source = source.to_string();
        self.ask(|reply| Request::Push { source, rows, reply }).await?
    }

    /// Closes a tick now, with whatever has arrived; returns when it is visible.
    pub async fn commit(&self) -> Result<Tick> {
        self.ask(|reply| Request::Commit { reply }).await
    }

    /// Returns when all bounded sources are spent, their rows are visible, and sinks and actions
    /// are through. Errors: a source that failed.
    pub async fn settled(&self) -> Result<()> {
        self.ask(|reply| Request::Settled { reply }).await?
    }

    /// Takes a snapshot of all state, so that a restart need not read the log from its beginning.
    /// Returns when it counts. Errors: there is no log.
    pub async fn checkpoint(&self) -> Result<()> {
        self.ask(|reply| Request::Checkpoint { reply }).await?
    }

    /// In a past: takes in what came after it, up to the tick `upto` (None: all of it), over what was changed
    /// meanwhile. Returns the last tick. Errors: a tick before the past's moment or behind the log's end, or what
    /// came does not fit what was changed.
    pub async fn relive(&self, upto: Option<Tick>) -> Result<Tick> {
        self.recovered().await?;
        self.ask(|reply| Request::Relive { upto, reply }).await?
    }

    pub fn relations(&self) -> Vec<RelationInfo> {
        self.directory.lock().relations.clone()
    }

    pub fn detections(&self) -> Vec<DetectionInfo> {
        self.directory.lock().detections.clone()
    }

    /// The plan of a view, a materialized view or a detection.
    pub async fn explain(&self, name: &str) -> Result<String> {
        let name = name.to_string();
        self.ask(|reply| Request::Explain { name, reply }).await?
    }

    /// What the doors count there.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn registry(&self) -> prometheus::Registry {
        self.metrics.registry.clone()
    }

    pub fn health(&self) -> Health {
        judged(self.health.lock().clone(), Instant::now())
    }

    /// Why no input is taken in: the engine is not that far yet, or has no room. None: it is, slowly though it may be.
    pub fn input_waits_for(&self) -> Option<String> {
        let health = self.health.lock();
        (!health.ready).then(|| health.reason.clone())
    }

    /// Stops sources, lets sinks and actions finish, stops the workers. Errors: the disk is full, so that what is not
    /// durable yet will not be.
    pub async fn shutdown(&self) -> Result<()> {
        self.ask(|reply| Request::Shutdown { reply }).await?
    }

    /// Asks for what has no answer.
    pub(crate) fn tell(&self, request: Request) {
        if let Err(TrySendError::Full(request)) = self.requests.try_send(request) {
            let requests = self.requests.clone();
            tokio::spawn(async move { requests.send(request).await });
        }
    }

    pub(crate) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // One that is not taken in drops its end of the answer.
        let _ = self.requests.send(request(reply)).await;
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.stopped().await),
        }
    }
}

/// As it is at that moment: what goes on for too long is told.
fn judged(health: Health, now: Instant) -> Health {
    let since = |begun: Option<Instant>| begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
    let (lag_ms, closing) = (health.lag_ms.max(since(health.behind_since).as_millis() as u64), since(health.closing_since));
    let hindrance = health.hindrance.as_ref().filter(|hindrance| hindrance.from <= now).map(|hindrance| hindrance.reason.clone());
    let too_long = || (CLOSING_MAX <= closing).then(|| format!("a tick is being computed for {} s now", closing.as_secs()));
    match hindrance.or_else(too_long).filter(|_| health.ready) {
        Some(reason) => Health { ready: false, reason, lag_ms, ..health },
        None => Health { lag_ms, ..health },
    }
}

/// A coordinator's beginnings, but for what the log holds.
struct Starting {
    config: Config,
    connectors: Arc<dyn Connectors>,
    workers: Workers,
    shared: Shared,
    inlets: Inlets,
    outlets: Outlets,
}

impl Starting {
    fn begin(self, (opened, later): Beginning) -> (Coordinator, Inlets, Option<Recovery>) {
        let Self { mut config, connectors, workers, shared, mut inlets, outlets } = self;
        if let Some(later) = &later {
            config.clock = Arc::new(StoppedClock(later.after));
        }
        let (log, recovery) = match opened {
            Some(Opened { log, writer, snapshot, replay, events, suspect }) => {
                inlets.events = events;
                (Some((log, writer)), Some(Recovery { snapshot, replay, suspect, later }))
            }
            None => (None, None),
        };
        (Coordinator::new(config, connectors, workers, shared, log, outlets), inlets, recovery)
    }
}

/// How far the log is read that a coordinator begins with.
enum Reading {
    Due,
    /// There was no room, for this reason.
    Full(Error),
    Done(Box<Beginning>),
}

/// A log where there is one, and what came after it where it is a past.
type Beginning = (Option<Opened>, Option<Later>);

impl Reading {
    /// Once it is, however long there is no room for it.
    async fn done(self, config: Config, health: &Mutex<Health>) -> Result<Beginning> {
        let full = match self {
            Self::Done(opened) => return Ok(*opened),
            Self::Full(full) => full,
            Self::Due => match open_log_telling(config.clone(), health).await {
                Err(error) if is_waited_for(&config, &error) => error,
                opened => return opened,
            },
        };
        open_log_when_there_is_room(config, full, health).await
    }
}

/// Whether it is for want of room that the log cannot be opened, and there may be some later.
fn is_waited_for(config: &Config, error: &Error) -> bool {
    error.fault == Fault::NoRoom && matches!(config.durability, Durability::Folder { .. })
}

/// Between two looks how far it is.
const READING_TOLD_EVERY: Duration = Duration::from_millis(500);

async fn open_log_telling(config: Config, health: &Mutex<Health>) -> Result<Beginning> {
    let progress = Arc::<Progress>::default();
    let reading = Arc::clone(&progress);
    let mut opening = spawn_blocking(move || open_log(&config, &reading));
    let mut telling = Telling::begin();
    loop {
        tokio::select! {
            opened = &mut opening => {
                health.lock().reason = RECOVERING.into();
                return opened.unwrap_or_else(|_| Err(unopened()));
            }
            () = tokio::time::sleep(READING_TOLD_EVERY) => {
                let reason = format!("reading the log: {progress}");
                if telling.is_due() {
                    tracing::warn!("{reason}");
                }
                health.lock().reason = reason;
            }
        }
    }
}

fn unopened() -> Error {
    Error::engine("the log could not be opened")
}

/// Between two tries on a full disk, at least.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// To try is to read the log: so much longer than a try is the pause behind it.
const FULL_PAUSE_PER_TRY: u32 = 10;

/// Tries again until it is not for want of room that it fails. `full`: why it did.
async fn open_log_when_there_is_room(config: Config, full: Error, health: &Mutex<Health>) -> Result<Beginning> {
    let reason = lacking(&config, &full);
    tracing::error!("{reason}; the engine starts once there is room");
    health.lock().reason = reason;
    let mut pause = FULL_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let (begun, again) = (Instant::now(), config.clone());
        let opened = spawn_blocking(move || open_log(&again, &Arc::default())).await;
        match opened.unwrap_or_else(|_| Err(unopened())) {
            Err(error) if error.fault == Fault::NoRoom => {
                pause = FULL_PAUSE.max(FULL_PAUSE_PER_TRY * begun.elapsed());
                health.lock().reason = lacking(&config, &error);
            }
            opened => {
                tracing::warn!("there is room on the disk again");
                health.lock().reason = RECOVERING.into();
                return opened;
            }
        }
    }
}

/// What there is no room for: bytes and files run out apart.
fn lacking(config: &Config, full: &Error) -> String {
    let is_crowded = matches!(&config.durability, Durability::Folder { path, .. } if !takes_files(&*config.disk, path));
    let what = if is_crowded { "no file can be made in the data folder" } else { "disk full" };
    format!("{what}: {}", full.message)
}

/// Whether an empty file can be made there.
fn takes_files(disk: &dyn Disk, folder: &Path) -> bool {
    let trial = folder.join("trial");
    let made = disk.create(&trial).map(drop);
    let _ = disk.remove(&trial);
    !made.is_err_and(|error| is_full(&error))
}

fn open_log(config: &Config, progress: &Arc<Progress>) -> Result<Beginning> {
    let (random, seeded, now_ms) = (Arc::clone(&config.random), config.seeded, config.clock.now_ms());
    let opening = |disk, folder| {
        let progress = Arc::clone(progress);
        Opening { disk, folder, random, now_ms, accept_loss: false, temporary: None, past: None, progress, seeded }
    };
    let (opening, later) = match &config.durability {
        Durability::Off => return Ok((None, None)),
        Durability::Folder { path, accept_loss } => {
            (Opening { accept_loss: *accept_loss, ..opening(Arc::clone(&config.disk), path.clone()) }, None)
        }
        Durability::Temporary => {
            let folder = tempfile::Builder::new().prefix("tidegate-").tempdir();
            let folder = folder.map_err(|error| Error::engine(format!("no temporary folder for the log: {error}")).hint("set TMPDIR"))?;
            let path = folder.path().to_path_buf();
            (Opening { temporary: Some(folder), ..opening(Arc::new(ScratchDisk), path) }, None)
        }
        Durability::Past { path, at } => {
            let Past { folder, guilty, later } = past::open(&config.disk, path, *at, progress)?;
            let path = folder.path().to_path_buf();
            (Opening { temporary: Some(folder), past: Some(guilty), ..opening(Arc::new(ScratchDisk), path) }, Some(later))
        }
    };
    Ok((Some(Log::open(opening)?), later))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::Hindrance;

    #[test]
    fn what_goes_on_for_too_long_is_not_ready() {
        let now = Instant::now();
        let ready =
            Health { ready: true, reason: String::new(), tick: 1, lag_ms: 5, behind_since: None, closing_since: None, hindrance: None };
        let told = |health: Health, after: Duration| {
            let Health { ready, reason, .. } = judged(health, now + after);
            (ready, reason)
        };
        assert_eq!(told(ready.clone(), CLOSING_MAX), (true, String::new()));
        let closing = Health { closing_since: Some(now), ..ready.clone() };
        assert_eq!(told(closing.clone(), CLOSING_MAX - Duration::from_millis(1)), (true, String::new()));
        assert_eq!(told(closing.clone(), CLOSING_MAX), (false, "a tick is being computed for 30 s now".into()));
        let hindrance = Some(Hindrance { from: now + Duration::from_secs(30), reason: "input waits for sink \"s\"".into() });
        let held_up = Health { hindrance, ..closing };
        assert!(told(held_up.clone(), Duration::from_secs(29)).0);
        assert_eq!(told(held_up.clone(), Duration::from_secs(30)), (false, "input waits for sink \"s\"".into()));
        let full = Health { ready: false, reason: "full".into(), ..held_up };
        assert_eq!(told(full, Duration::from_secs(60)), (false, "full".into()));
        let behind = Health { behind_since: Some(now), ..ready };
        assert_eq!(judged(behind, now + Duration::from_secs(2)).lag_ms, 2000);
    }
}
