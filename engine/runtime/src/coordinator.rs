//! The one place where things happen in order: statements, arrivals, ticks, reads.
//!
//! At most one tick is open and one is closing. While a tick closes the next one fills, so ticks
//! grow under load by themselves; while a follower, the log or the workers lag, sources wait. What
//! cannot be computed again is said to the log as it happens, and a tick is visible only when the
//! workers are through with it and the log holds it.

mod arrivals;
mod beside;
mod counted;
mod dataflows;
mod failing;
mod recovery;
mod relive;
mod replace;
mod requests;
mod room;
mod settled;
mod show;
mod snapshot;
mod statements;
mod stopped;
mod system;
mod tables;
mod ticks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use tidegate_operators::stream::ErrorRow;
use tidegate_plan::NodeRef;
use tidegate_plan::catalog::{Catalog, WatermarkRule};
use tidegate_types::Tick;
use tidegate_types::connector::{Connectors, DeadLetter, Options, SourceSpec, Writer};
use tidegate_types::error::{Error, Result};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::room::{Level, NO_ROOM};
use self::snapshot::Asked;
use self::ticks::{ClosingTick, HEARTBEAT_TEMPORAL, OpenTick};
use crate::actions::{ActionLog, Note};
use crate::bridge::Workers;
pub use arrivals::Counts;
pub use beside::{History, Order, Prepared};
pub use recovery::{Recovery, in_order};
pub use requests::Request;
pub use show::lines;
pub use snapshot::Drafted;
pub use statements::{UNCHANGED, definition_key, shown_name};
pub use tables::{Read, Write};

use crate::followers::Queue;
use crate::interface::{Config, Directory, Health, Hindrance};
use crate::log::past::Later;
use crate::log::quarantine::Suspect;
pub use crate::log::record::Ran;
pub use crate::log::snapshot::Definition;
use crate::log::{Event, Log};
use crate::metrics::Metrics;
use crate::sources::{Acknowledge, Arrival, IN_FLIGHT_BYTES_MAX};
use crate::worker::{Command, Said};

/// What the engine's handles see without asking.
pub struct Shared {
    pub metrics: Metrics,
    pub health: Arc<Mutex<Health>>,
    pub directory: Arc<Mutex<Directory>>,
    /// Why nothing works any more.
    pub failure: watch::Sender<Option<Error>>,
    /// Whether all that the log holds is there again.
    pub recovered: watch::Sender<bool>,
    pub arrivals: mpsc::Sender<Arrival>,
}

/// Requests that cannot be served yet; with more, none is until a tick has closed. Those that wait for somebody else
/// hold up nobody: more of them are refused.
const WAITING_MAX: usize = 64;

/// What comes to the coordinator.
pub struct Inlets {
    pub requests: mpsc::Receiver<Request>,
    pub arrivals: mpsc::Receiver<Arrival>,
    pub reports: mpsc::UnboundedReceiver<Said>,
    /// From the log, if there is one.
    pub events: mpsc::UnboundedReceiver<Event>,
    pub notes: mpsc::UnboundedReceiver<Note>,
    pub drafts: mpsc::UnboundedReceiver<Result<Drafted>>,
    /// The bytes of a snapshot that counts, or why one does not.
    pub published: mpsc::UnboundedReceiver<Result<u64>>,
}

/// The coordinator's ends of some of these, for who speaks to it.
#[derive(Clone)]
pub struct Outlets {
    pub notes: mpsc::UnboundedSender<Note>,
    pub drafts: mpsc::UnboundedSender<Result<Drafted>>,
    pub published: mpsc::UnboundedSender<Result<u64>>,
}

pub struct Coordinator {
    config: Config,
    connectors: Arc<dyn Connectors>,
    workers: Workers,
    metrics: Metrics,
    health: Arc<Mutex<Health>>,
    directory: Arc<Mutex<Directory>>,
    catalog: Catalog,
    sources: BTreeMap<String, SourceState>,
    kept: BTreeMap<String, Kept>,
    tables: BTreeMap<String, tables::Table>,
    followers: BTreeMap<String, Follow>,
    log: Option<Log>,
    /// Who sinks are written by.
    writer: Writer,
    /// What happens is read from the log, and not said to it.
    replaying: bool,
    /// The frame that is being read.
    replayed: u64,
    /// Statements that changed what there is.
    generation: Generation,
    /// What was created, by its key.
    definitions: BTreeMap<String, Definition>,
    /// INSERT, UPDATE and DELETE of packs that were run: once, ever.
    ran: BTreeSet<Ran>,
    /// How far followers are, as the log has it.
    delivered: BTreeMap<String, Tick>,
    /// A statement failed for want of what sources brought before it.
    is_history_unread: bool,
    /// Why what a statement was to replace is neither as it was nor as it was to be: only a start mends that.
    half_done: Option<Error>,
    /// Why nothing becomes durable for now.
    full: Option<String>,
    /// Why the log has no further segment, and snapshots wait.
    crowded: Option<String>,
    /// Why the last snapshot is none.
    no_snapshot: Option<String>,
    /// A follower that is behind holds up all writes.
    held_up: Option<Hindrance>,
    /// How much the disk still takes.
    level: Level,
    /// What a worker failed on, as long as it is not known or passed over.
    suspect: Option<Suspect>,
    failure: watch::Sender<Option<Error>>,
    recovered: watch::Sender<bool>,
    action_log: ActionLog,
    dead_letters: VecDeque<(Tick, String, DeadLetter)>,
    errors: BTreeMap<String, BTreeMap<ErrorRow, i64>>,
    /// Dataflows that are no longer there, and why: their state grew too large, or they read such a one.
    stopped: BTreeMap<String, String>,
    /// When each dataflow was made.
    born: BTreeMap<String, Tick>,
    watermarks: Vec<Option<i64>>,
    started: bool,
    last_closed: Tick,
    /// The last tick any row or close was sent for.
    last_used: Tick,
    open: Option<OpenTick>,
    closing: Option<ClosingTick>,
    last_tick_at: Instant,
    next_worker: usize,
    in_flight: Arc<Semaphore>,
    arrivals: mpsc::Sender<Arrival>,
    /// What actions say to the log.
    notes: mpsc::UnboundedSender<Note>,
    drafts: mpsc::UnboundedSender<Result<Drafted>>,
    published: mpsc::UnboundedSender<Result<u64>>,
    /// A snapshot is being read.
    is_restoring: bool,
    /// A snapshot is on its way.
    is_snapshotting: bool,
    /// The last try failed: another may do better then.
    snapshot_not_before: Instant,
    /// No tick is opened until a snapshot is taken.
    is_pausing: bool,
    is_checkpoint_asked: bool,
    /// Who waits for the next snapshot.
    checkpoints: Vec<Asked>,
    drafted: Option<Drafted>,
    /// What snapshots do not count.
    left_out: counted::LeftOut,
    /// Of the last snapshot.
    snapshot_bytes: u64,
    /// When it was last said which sink one waits for.
    waiting_told: Instant,
    /// When the one on its way was begun, and how long the last one took.
    snapshot_begun: Instant,
    snapshot_took: Duration,
    /// How long ticks took to close since the last snapshot, and so will at the next start.
    to_replay: Duration,
    settling: settled::Settling,
    /// Requests that cannot be served yet, in order; others are meanwhile.
    waiting: VecDeque<Request>,
    /// Dataflows that are made beside what there is, and why some are no more.
    beside: BTreeMap<String, Option<String>>,
    /// How many there ever were.
    beside_made: u64,
    /// For the statement that is being executed.
    prepared: Option<Prepared>,
    /// Of it.
    notices: Vec<String>,
    /// What came after the past that this is, and the part of it that is taken in.
    later: Option<Later>,
    reliving: Option<relive::Reliving>,
}

/// How many statements changed what there is.
pub type Generation = u64;

struct SourceState {
    spec: SourceSpec,
    rule: Option<WatermarkRule>,
    index: usize,
    status: SourceStatus,
    acknowledge: Option<Acknowledge>,
    task: Option<JoinHandle<()>>,
    counts: arrivals::Counts,
    /// Of its creation: a source of the same name may have been dropped before.
    generation: u64,
    created: Tick,
}

#[derive(Clone, PartialEq)]
enum SourceStatus {
    Created,
    Running,
    Ended,
    Failed(String),
}

/// A materialized view or a detection.
struct Kept {
    node: NodeRef,
    /// The relations its query names.
    reads: BTreeSet<String>,
    options: Options,
    query: String,
    created: Tick,
}

/// A sink or an action: what it follows, and its queue.
struct Follow {
    kind: &'static str,
    from: String,
    node: NodeRef,
    queue: Queue,
    created: Tick,
    /// Its view has a new definition since the last closed tick.
    takeover: Option<replace::Takeover>,
}

impl Coordinator {
    pub fn new(
        config: Config,
        connectors: Arc<dyn Connectors>,
        workers: Workers,
        shared: Shared,
        log: Option<(Log, Writer)>,
        outlets: Outlets,
    ) -> Self {
        let Shared { metrics, health, directory, failure, recovered, arrivals } = shared;
        let unlogged = Writer { log: String::new(), epoch: 1 };
        let (log, writer) = log.map_or((None, unlogged), |(log, writer)| (Some(log), writer));
        let mut coordinator = Self {
            config,
            connectors,
            workers,
            metrics,
            health,
            directory,
            catalog: Catalog::default(),
            sources: BTreeMap::new(),
            kept: BTreeMap::new(),
            tables: BTreeMap::new(),
            followers: BTreeMap::new(),
            replaying: log.is_some(),
            replayed: 0,
            log,
            writer,
            generation: 0,
            definitions: BTreeMap::new(),
            ran: BTreeSet::new(),
            delivered: BTreeMap::new(),
            full: None,
            crowded: None,
            no_snapshot: None,
            held_up: None,
            level: Level::Fine,
            suspect: None,
            failure,
            recovered,
            action_log: ActionLog::default(),
            dead_letters: VecDeque::new(),
            errors: BTreeMap::new(),
            stopped: BTreeMap::new(),
            born: BTreeMap::new(),
            watermarks: Vec::new(),
            started: false,
            last_closed: 0,
            last_used: 0,
            open: None,
            closing: None,
            last_tick_at: Instant::now(),
            next_worker: 0,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX)),
            arrivals,
            notes: outlets.notes,
            drafts: outlets.drafts,
            published: outlets.published,
            is_restoring: false,
            is_history_unread: false,
            half_done: None,
            is_snapshotting: false,
            snapshot_not_before: Instant::now(),
            is_pausing: false,
            is_checkpoint_asked: false,
            checkpoints: Vec::new(),
            drafted: None,
            left_out: counted::LeftOut::new(),
            snapshot_bytes: 0,
            waiting_told: Instant::now(),
            snapshot_begun: Instant::now(),
            snapshot_took: Duration::ZERO,
            to_replay: Duration::ZERO,
            settling: settled::Settling::default(),
            waiting: VecDeque::new(),
            beside: BTreeMap::new(),
            beside_made: 0,
            prepared: None,
            notices: Vec::new(),
            later: None,
            reliving: None,
        };
        coordinator.declare_system();
        coordinator.publish();
        coordinator
    }

    /// Runs until `Shutdown`, or until the log fails.
    pub async fn run(mut self, mut inlets: Inlets, recovery: Option<Recovery>) {
        if let Some(recovery) = recovery
            && let Err(error) = self.recover(recovery, &mut inlets.reports).await
        {
            return self.fail(error);
        }
        self.recovered.send_replace(true);
        match self.serve_all(&mut inlets).await {
            Ok(stopped) => {
                let ended = self.stop(&mut inlets).await;
                if let Some(reply) = stopped {
                    let _ = reply.send(ended.clone());
                }
                ended.unwrap_or_else(|error| self.fail(error));
            }
            Err(error) => self.fail(error),
        }
    }

    /// Returns when told to stop: whom to tell of it.
    async fn serve_all(&mut self, inlets: &mut Inlets) -> Result<Option<oneshot::Sender<Result<()>>>> {
        // Often enough to see that sinks have what a snapshot waits for, however long ticks are.
        let mut timer = tokio::time::interval(self.config.tick.clamp(Duration::from_millis(1), HEARTBEAT_TEMPORAL));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let Inlets { requests, arrivals, reports, events, notes, drafts, published } = inlets;
            tokio::select! {
                biased;
                Some(said) = reports.recv() => self.said(said)?,
                Some(event) = events.recv() => self.logged(event)?,
                Some(drafted) = drafts.recv() => self.drafted(drafted),
                Some(published) = published.recv() => self.snapshot_published(published),
                Some(note) = notes.recv(), if !self.is_pausing => self.note(note),
                request = requests.recv(), if self.takes_requests() => match request {
                    Some(Request::Shutdown { reply }) => return Ok(Some(reply)),
                    Some(request) if self.must_wait(&request) => self.put_off(request),
                    Some(request) => self.serve(request),
                    None => return Ok(None),
                },
                Some(arrival) = arrivals.recv(), if self.takes_in() => self.arrived(arrival),
                () = std::future::ready(()), if self.relives_next() => self.relive_tick(),
                _ = timer.tick() => {}
            }
            if self.is_snapshot_due() {
                self.is_pausing = true;
            }
            if self.is_pausing && self.open.is_none() && self.closing.is_none() {
                self.take_snapshot()?;
                self.is_pausing = false;
            }
            self.publish_snapshot();
            if !self.is_pausing
                && let Some(at) = self.waiting.iter().position(|request| !self.must_wait(request))
                && let Some(request) = self.waiting.remove(at)
            {
                self.serve(request);
            }
            if let Some(error) = self.half_done.take() {
                return Err(error);
            }
            self.advance();
            self.note_held_up();
            self.answer_settled();
        }
    }

    fn takes_requests(&self) -> bool {
        !self.is_pausing && !self.is_reliving() && (self.waiting.len() < WAITING_MAX || self.is_stuck())
    }

    /// Whether it is others that writes or statements wait for: the disk, or a sink.
    fn is_stuck(&self) -> bool {
        self.full.is_some() || self.waits_for_followers()
    }

    /// Whether input is taken in now.
    fn takes_in(&self) -> bool {
        !self.is_pausing && self.level != Level::Out && !self.waits_for_followers()
    }

    fn logged(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::Durable(tick) => self.durable(tick),
            Event::Full(reason) => self.disk_full(reason),
            Event::Crowded(reason) => self.disk_crowded(reason),
            Event::Room(room) => self.disk_has(room),
        }
        Ok(())
    }

    /// Handles look names up without asking.
    fn publish(&self) {
        *self.directory.lock() = Directory { relations: self.relations(), detections: self.detections() };
    }

    /// What is worth knowing of the statement that is being executed, for who sent it and who runs the engine.
    fn notice(&mut self, news: Vec<String>) {
        if !self.config.dry {
            news.iter().for_each(|notice| tracing::warn!("{notice}"));
        }
        self.notices.extend(news);
    }

    fn said(&mut self, said: Said) -> Result<()> {
        match said {
            Said::Closed(report) => self.reported(report),
            Said::Grew { name, born, excess } if self.born.get(&name) == Some(&born) => self.exceeds(&name, excess),
            Said::Grew { .. } => {}
            Said::Failed(reason) => return Err(self.worker_failed(reason)),
        }
        Ok(())
    }

    fn tell_health(&self) {
        let mut health = self.health.lock();
        health.reason = match (&self.full, self.started) {
            (Some(reason), _) => reason.clone(),
            (None, _) if self.level == Level::Out => NO_ROOM.into(),
            (None, false) => "the sources are not started yet".into(),
            (None, true) => String::new(),
        };
        health.ready = health.reason.is_empty();
        if let Some(trouble) = self.crowded.as_ref().or(self.no_snapshot.as_ref()).filter(|_| health.ready) {
            health.reason = trouble.clone();
        }
        health.hindrance = self.held_up.clone();
    }

    /// Lets followers finish, and logs their last words. Errors: the log fails, or has no room for what is not durable
    /// yet, which nobody waits for here.
    async fn stop(&mut self, inlets: &mut Inlets) -> Result<()> {
        for task in self.sources.values_mut().filter_map(|state| state.task.take()) {
            task.abort();
        }
        let mut finishing = join_all(self.followers.values_mut().map(|follow| follow.queue.finish()));
        let mut is_finished = false;
        while self.full.is_none() && (!is_finished || self.open.is_some() || self.closing.is_some()) {
            let Inlets { reports, events, notes, .. } = inlets;
            tokio::select! {
                biased;
                Some(said) = reports.recv() => self.said(said)?,
                Some(event) = events.recv() => self.logged(event)?,
                Some(note) = notes.recv() => self.note(note),
                _ = &mut finishing, if !is_finished => is_finished = true,
            }
            if self.closing.is_none() && (self.open.is_some() || is_finished && self.has_news()) {
                self.close();
            }
        }
        self.workers.broadcast(&Command::Stop);
        if let Some(mut log) = self.log.take() {
            let _ = tokio::task::spawn_blocking(move || log.stop()).await;
        }
        match self.full.take() {
            Some(reason) => Err(Error::no_room(format!("stopped on a full disk: {reason}"))
                .hint("what was acknowledged stays; what was not must be sent again once there is room")),
            None => Ok(()),
        }
    }
}

/// Where a source's late rows are.
pub fn late_name(source: &str) -> String {
    format!("{source}_late")
}
