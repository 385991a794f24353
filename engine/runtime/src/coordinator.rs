//! The one place where things happen in order: statements, arrivals, ticks, reads.
//!
//! At most one tick is open and one is closing. While a tick closes the next one fills, so ticks
//! grow under load by themselves; while a follower, the log or the workers lag, sources wait. What
//! cannot be computed again is said to the log as it happens, and a tick is visible only when the
//! workers are through with it and the log holds it.

mod arrivals;
mod beside;
mod counted;
mod recovery;
mod relive;
mod replace;
mod room;
mod settled;
mod snapshot;
mod statements;
mod stopped;
mod system;
mod tables;
mod ticks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::future::join_all;
use parking_lot::Mutex;
use tidegate_operators::stream::ErrorRow;
use tidegate_plan::catalog::{Catalog, WatermarkRule};
use tidegate_plan::statement::Placed;
use tidegate_plan::{NodeRef, RelationKind};
use tidegate_types::connector::{Connectors, DeadLetter, Options, SourceBatch, SourceSpec, Writer};
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::room::{Level, NO_ROOM, no_room};
use self::ticks::{ClosingTick, HEARTBEAT_TEMPORAL, OpenTick};
use crate::actions::{ActionLog, Note};
use crate::bridge::Workers;
pub use arrivals::Counts;
pub use beside::{History, Order, Prepared};
pub use recovery::Recovery;
pub use snapshot::Drafted;
pub use statements::{definition_key, lines, pointed};
pub use tables::{Read, Write};

use crate::followers::Queue;
use crate::interface::{Config, Directory, Health, Response, Snapshot};
use crate::log::past::Later;
use crate::log::quarantine::{Step, Suspect};
pub use crate::log::record::Ran;
use crate::log::record::Record;
use crate::log::{Event, Log};
use crate::metrics::Metrics;
use crate::sources::{Acknowledge, Arrival, IN_FLIGHT_BYTES_MAX};
use crate::worker::{Command, Said};

/// What the engine's handle asks for.
pub enum Request {
    /// `is_pack`: what is there as it is written stays, what reads otherwise is replaced.
    Execute {
        placed: Box<Placed>,
        is_pack: bool,
        prepared: Option<Box<Prepared>>,
        reply: oneshot::Sender<Result<Response>>,
    },
    /// Makes a view beside what there is. None: what there is has changed since it was planned.
    Prepare {
        order: Box<Order>,
        reply: oneshot::Sender<Result<Option<(Prepared, Option<History>)>>>,
    },
    /// Rows of sources for what is made beside; answered when they are in.
    Fill {
        beside: String,
        rows: Vec<(String, RecordBatch)>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// What the prepared definition of the view `name` would change.
    Compare {
        name: String,
        prepared: Box<Prepared>,
        reply: oneshot::Sender<Result<Response>>,
    },
    /// Nobody waits any more for what is made beside.
    Forget {
        beside: String,
    },
    /// `ran`: a pack's statement, to be run only once.
    Write {
        write: Write,
        ran: Option<Ran>,
        reply: oneshot::Sender<Result<Tick>>,
    },
    HasRun {
        ran: Ran,
        reply: oneshot::Sender<bool>,
    },
    /// Drops what packs made and no longer mention.
    Prune {
        mentioned: BTreeSet<String>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Of kept relations only the rows whose encoding begins with `prefix`.
    Snapshot {
        names: Vec<String>,
        prefix: Vec<u8>,
        reply: oneshot::Sender<Result<Snapshot>>,
    },
    Push {
        source: String,
        rows: RecordBatch,
        reply: oneshot::Sender<Result<Tick>>,
    },
    Commit {
        reply: oneshot::Sender<Tick>,
    },
    /// Takes a snapshot; answered once it counts.
    Checkpoint {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Takes in what came after a past, up to a tick; answered with the last tick.
    Relive {
        upto: Tick,
        reply: oneshot::Sender<Result<Tick>>,
    },
    StartSources {
        reply: oneshot::Sender<Result<()>>,
    },
    Settled {
        reply: oneshot::Sender<Result<()>>,
    },
    /// What there is, for who plans without holding up the ticks.
    Catalog {
        reply: oneshot::Sender<(Catalog, Generation)>,
    },
    Explain {
        name: String,
        reply: oneshot::Sender<Result<String>>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

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

/// Requests that cannot be served yet; with more, none is.
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
    /// The bytes of a snapshot that counts.
    pub published: mpsc::UnboundedReceiver<u64>,
}

/// The coordinator's ends of some of these, for who speaks to it.
#[derive(Clone)]
pub struct Outlets {
    pub notes: mpsc::UnboundedSender<Note>,
    pub drafts: mpsc::UnboundedSender<Result<Drafted>>,
    pub published: mpsc::UnboundedSender<u64>,
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
    /// What was created, as it was written, with the file it stood in.
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
    published: mpsc::UnboundedSender<u64>,
    /// A snapshot is being read.
    is_restoring: bool,
    /// A snapshot is on its way.
    is_snapshotting: bool,
    /// No tick is opened until a snapshot is taken.
    is_pausing: bool,
    is_checkpoint_asked: bool,
    /// Who waits for the next snapshot.
    checkpoints: Vec<oneshot::Sender<Result<()>>>,
    drafted: Option<Drafted>,
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
}

/// A statement that made something.
#[derive(Clone)]
struct Definition {
    file: String,
    text: String,
    is_pack: bool,
    /// Statements before it.
    generation: u64,
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
            is_pausing: false,
            is_checkpoint_asked: false,
            checkpoints: Vec::new(),
            drafted: None,
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
                ended.unwrap_or_else(|error| self.fail(error));
                if let Some(reply) = stopped {
                    let _ = reply.send(());
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// Returns when told to stop: whom to tell of it.
    async fn serve_all(&mut self, inlets: &mut Inlets) -> Result<Option<oneshot::Sender<()>>> {
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
                Some(bytes) = published.recv() => self.snapshot_published(bytes),
                Some(note) = notes.recv(), if !self.is_pausing => self.note(note),
                request = requests.recv(), if self.waiting.len() < WAITING_MAX && !self.is_pausing && !self.is_reliving() => match request {
                    Some(Request::Shutdown { reply }) => return Ok(Some(reply)),
                    Some(request) if self.must_wait(&request) => self.waiting.push_back(request),
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
            self.answer_settled();
        }
    }

    /// Whether input is taken in now.
    fn takes_in(&self) -> bool {
        !self.is_pausing && self.level != Level::Out && !self.waits_for_followers()
    }

    fn must_wait(&self, request: &Request) -> bool {
        match request {
            // What a statement replaces is read as of the last closed tick, so none may be closing; and what it needs
            // of the log can only be read once it is written.
            Request::Execute { .. } => self.closing.is_some() || self.full.is_some(),
            Request::Write { .. } | Request::Push { .. } => self.waits_for_followers(),
            _ => false,
        }
    }

    fn logged(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::Durable(tick) => self.durable(tick),
            Event::Full(reason) => self.disk_full(reason),
            Event::Room(room) => self.disk_has(room),
        }
        Ok(())
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Execute { placed, is_pack, prepared, reply } => {
                if let Err(error) = prepared.map_or(Ok(()), |prepared| self.take_prepared(*prepared)) {
                    return drop(reply.send(Err(pointed(error, &placed))));
                }
                // A pack's view that had to be stopped is no reason not to start the others.
                let made = definition_key(&placed.statement).filter(|(_, is_drop)| !is_drop && !is_pack);
                let response = self.change(*placed, is_pack);
                self.forget_prepared();
                self.publish();
                // What was created is readable, and right, when the statement returns.
                self.when_closed(Box::new(move |now, _| {
                    let runs = made.map_or(Ok(()), |(name, _)| now.check_runs(&name));
                    let _ = reply.send(response.and_then(|response| runs.map(|()| response)));
                }));
            }
            Request::HasRun { ran, reply } => drop(reply.send(self.ran.contains(&ran))),
            Request::Prune { mentioned, reply } => {
                let pruned = self.prune(&mentioned);
                self.publish();
                self.when_closed(Box::new(move |_, _| drop(reply.send(pruned))));
            }
            Request::Write { reply, .. } if self.level == Level::Out => drop(reply.send(Err(no_room()))),
            Request::Push { reply, .. } if self.level == Level::Out => drop(reply.send(Err(no_room()))),
            Request::Write { write, ran, reply } => match self.write(&write) {
                Ok(()) => {
                    self.say(|| {
                        let Write { table, delete, insert, .. } = write;
                        Record::Write { table, delete, insert }
                    });
                    if let Some(ran) = ran {
                        self.ran.insert(ran.clone());
                        self.say(|| Record::Ran(ran));
                    }
                    self.when_closed(Box::new(move |_, tick| drop(reply.send(Ok(tick)))));
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Snapshot { names, prefix, reply } => self.snapshot(&names, prefix, reply),
            Request::Push { source, rows, reply } => match self.sources.contains_key(&source) {
                true => {
                    let batch = SourceBatch::of(rows);
                    self.accept(&source, batch, None);
                    self.when_closed(Box::new(move |_, tick| drop(reply.send(Ok(tick)))));
                }
                false => drop(reply.send(Err(Error::user(format!("source \"{source}\" does not exist"))))),
            },
            Request::Commit { reply } => self.when_closed(Box::new(move |_, tick| {
                let _ = reply.send(tick);
            })),
            Request::Checkpoint { reply } => match self.log.is_some() {
                true => {
                    self.checkpoints.push(reply);
                    self.is_checkpoint_asked = true;
                }
                false => drop(reply.send(Err(Error::user("there is no log to take a snapshot of").hint("give a --data-dir")))),
            },
            Request::Relive { upto, reply } => self.relive(upto, reply),
            Request::StartSources { reply } => drop(reply.send(self.start_sources())),
            Request::Settled { reply } => self.settling.wait(reply),
            Request::Catalog { reply } => drop(reply.send((self.catalog.clone(), self.generation))),
            Request::Prepare { order, reply } => {
                // Whoever asked may be gone: then nobody takes it.
                if let Err(Ok(Some((prepared, _)))) = reply.send(self.prepare(*order)) {
                    self.forget(&prepared);
                }
            }
            Request::Fill { beside, rows, reply } => self.fill(beside, rows, reply),
            Request::Compare { name, prepared, reply } => self.compare(name, *prepared, reply),
            Request::Forget { beside } => self.drop_beside(&beside),
            Request::Explain { name, reply } => drop(reply.send(self.explain(&name))),
            Request::Shutdown { .. } => unreachable!("handled by the loop"),
        }
    }

    /// Handles look names up without asking.
    fn publish(&self) {
        *self.directory.lock() = Directory { relations: self.relations(), detections: self.detections() };
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

    /// Makes what is being computed last, so that the next start finds what a worker failed on.
    fn worker_failed(&mut self, reason: String) -> Error {
        let error = Error::engine(format!("a worker failed: {reason}"));
        let Some(mut log) = self.log.take() else { return error };
        let from = self.closing.as_ref().map(|closing| closing.tick).or(self.open.as_ref().map(|open| open.tick));
        if let Some(open) = self.open.take().filter(|_| !self.replaying) {
            log.commit(open.tick, BTreeMap::new());
        }
        log.stop();
        let Some(from) = from.filter(|_| !self.is_restoring && !log.is_temporary()) else { return error };
        match self.accuse(&log, from, reason) {
            Ok(hint) => error.hint(hint),
            Err(unwritten) => unwritten,
        }
    }

    /// Says to the next start where to look. Returns what it will do.
    fn accuse(&self, log: &Log, from: Tick, reason: String) -> Result<&'static str> {
        match self.suspect.as_ref().map(|suspect| suspect.step) {
            // Nothing in the log made it. If something there is to blame all the same, the next start fails on it.
            None if self.beside.values().any(Option::is_none) => {
                Ok("start it again: the view that was being made may be to blame, and is not there")
            }
            None => {
                log.suspect(&Suspect { from, reason, step: Step::Whole, statement: None })?;
                Ok("start it again: the input it failed on is looked for")
            }
            Some(Step::Innocent) => Ok("no single row is to blame: start another version, or restore the data folder"),
            Some(_) => Ok("start it again: the input it failed on is being looked for"),
        }
    }

    /// Nothing works any more: whoever waits hears it by the end of their channel.
    fn fail(&mut self, error: Error) {
        tracing::error!(%error, "the engine fails");
        let mut health = self.health.lock();
        (health.ready, health.reason) = (false, error.to_string());
        self.workers.broadcast(&Command::Stop);
        self.failure.send_replace(Some(error));
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
    }

    /// Rows of several relations as of the last closed tick.
    fn snapshot(&mut self, names: &[String], prefix: Vec<u8>, reply: oneshot::Sender<Result<Snapshot>>) {
        let tick = self.last_closed;
        let mut relations = BTreeMap::new();
        let mut kept: Vec<(String, SchemaRef)> = Vec::new();
        for name in names {
            match self.catalog.get(name) {
                Some(relation) if matches!(relation.kind, RelationKind::System) => {
                    relations.insert(name.clone(), self.system_rows(&relation.name));
                }
                Some(relation) if self.stopped.contains_key(&relation.name) => {
                    let stopped = self.check_runs(&relation.name);
                    return drop(reply.send(stopped.map(|()| Snapshot { tick, relations })));
                }
                Some(relation) if self.is_kept(relation) => kept.push((relation.name.clone(), Arc::clone(&relation.schema))),
                Some(relation) => {
                    let error = Error::user(format!("{} \"{name}\" keeps no rows to read", relation.kind_name()));
                    return drop(reply.send(Err(error.hint(format!("CREATE MATERIALIZED VIEW … AS SELECT * FROM {name}")))));
                }
                None => return drop(reply.send(Err(self.no_relation(name)))),
            }
        }
        let readable: Vec<String> = kept.iter().map(|(name, _)| name.clone()).collect();
        let (sender, receiver) = crossbeam_channel::bounded(self.workers.count());
        let count = self.workers.count();
        self.workers.broadcast(&Command::Read { names: readable, prefix, tick, reply: sender });
        // Decoded shares arrive as workers get to it; gathering them must not hold up the ticks.
        tokio::task::spawn_blocking(move || {
            let mut parts: Vec<Vec<Delta>> = vec![Vec::new(); kept.len()];
            for share in receiver.iter().take(count) {
                share.into_iter().zip(&mut parts).for_each(|(delta, parts)| parts.push(delta));
            }
            let gathered = kept.iter().zip(parts).try_for_each(|((name, schema), parts)| {
                relations.insert(name.clone(), crate::changes::copies(name, schema, &parts)?);
                Ok(())
            });
            let _ = reply.send(gathered.map(|()| Snapshot { tick, relations }));
        });
    }

    /// Lets followers finish, and logs their last words. Errors: the log fails.
    async fn stop(&mut self, inlets: &mut Inlets) -> Result<()> {
        for task in self.sources.values_mut().filter_map(|state| state.task.take()) {
            task.abort();
        }
        let mut finishing = join_all(self.followers.values_mut().map(|follow| follow.queue.finish()));
        let mut is_finished = false;
        while !is_finished || self.open.is_some() || self.closing.is_some() {
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
        Ok(())
    }
}

/// Where a source's late rows are.
pub fn late_name(source: &str) -> String {
    format!("{source}_late")
}
