//! The one place where things happen in order: statements, arrivals, ticks, reads.
//!
//! At most one tick is open and one is closing. While a tick closes the next one fills, so ticks
//! grow under load by themselves; while a follower or the workers lag, sources wait.

mod statements;
mod system;
mod tables;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tidegate_operators::stream::{ErrorRow, Timed};
use tidegate_plan::catalog::{Catalog, WatermarkRule};
use tidegate_plan::statement::Placed;
use tidegate_plan::{NodeRef, RelationKind};
use tidegate_types::connector::{Connectors, DeadLetter, Offset, Options, SourceBatch, SourceSpec};
use tidegate_types::error::{Error, Result};
use tidegate_types::time::next_tick;
use tidegate_types::{Delta, Tick};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::actions::ActionLog;
use crate::bridge::Workers;
pub use tables::Write;

use crate::followers::Queue;
use crate::history::History;
use crate::interface::{Config, Directory, Health, Response, Snapshot};
use crate::metrics::Metrics;
use crate::sources::{Acknowledge, Arrival, ArrivalEvent, IN_FLIGHT_BYTES_MAX, judge};
use crate::worker::{Command, Report};

/// What the engine's handle asks for.
pub enum Request {
    Execute {
        placed: Box<Placed>,
        reply: oneshot::Sender<Result<Response>>,
    },
    Write {
        write: Write,
        reply: oneshot::Sender<Result<Tick>>,
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
    StartSources {
        reply: oneshot::Sender<Result<()>>,
    },
    Settled {
        reply: oneshot::Sender<Result<()>>,
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
}

/// Bytes after which a tick closes early.
const TICK_BYTES_MAX: usize = 48 << 20;
/// How often the clock alone moves a view that reads it, and how often it moves nothing but the tick.
const HEARTBEAT_TEMPORAL: Duration = Duration::from_millis(50);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(500);
/// Dead letters kept for reading.
const DEAD_LETTERS_MAX: usize = 10_000;

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
    history: Option<History>,
    action_log: ActionLog,
    dead_letters: VecDeque<(Tick, String, DeadLetter)>,
    errors: BTreeMap<String, BTreeMap<ErrorRow, i64>>,
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
    settled: Vec<oneshot::Sender<Result<()>>>,
}

struct SourceState {
    spec: SourceSpec,
    rule: Option<WatermarkRule>,
    index: usize,
    status: SourceStatus,
    acknowledge: Option<Acknowledge>,
    task: Option<JoinHandle<()>>,
    received: u64,
    committed: u64,
    late: u64,
    dead: u64,
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
}

struct OpenTick {
    tick: Tick,
    since: Instant,
    bytes: usize,
    /// Someone waits for it: do not let it fill.
    urgent: bool,
    held: Held,
}

struct ClosingTick {
    tick: Tick,
    since: Instant,
    waiting: usize,
    changes: HashMap<String, BTreeMap<Tick, Vec<Delta>>>,
    held: Held,
}

/// What is let go when the tick is visible.
#[derive(Default)]
struct Held {
    permits: Vec<OwnedSemaphorePermit>,
    offsets: Vec<(String, Offset)>,
    seen: HashMap<String, i64>,
    replies: Vec<Box<dyn FnOnce(Tick) + Send>>,
}

impl Coordinator {
    pub fn new(
        config: Config,
        connectors: Arc<dyn Connectors>,
        workers: Workers,
        shared: Shared,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Result<Self> {
        let Shared { metrics, health, directory } = shared;
        let history = if config.once { None } else { Some(History::new()?) };
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
            history,
            action_log: ActionLog::default(),
            dead_letters: VecDeque::new(),
            errors: BTreeMap::new(),
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
            settled: Vec::new(),
        };
        coordinator.declare_system();
        coordinator.publish();
        Ok(coordinator)
    }

    /// Runs until `Shutdown`.
    pub async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut arrivals: mpsc::Receiver<Arrival>,
        mut reports: mpsc::UnboundedReceiver<Report>,
    ) {
        let mut timer = tokio::time::interval(self.config.tick.max(Duration::from_millis(1)));
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                Some(report) = reports.recv() => self.reported(report),
                request = requests.recv() => match request {
                    Some(Request::Shutdown { reply }) => {
                        self.stop().await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(request) => self.serve(request),
                    None => return self.stop().await,
                },
                Some(arrival) = arrivals.recv() => self.arrived(arrival),
                _ = timer.tick() => {}
            }
            self.advance();
            self.answer_settled();
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Execute { placed, reply } => {
                let response = self.execute(&placed);
                self.publish();
                // What was created is readable, and right, when the statement returns.
                self.when_closed(Box::new(move |_| drop(reply.send(response))));
            }
            Request::Write { write, reply } => match self.write(&write) {
                Ok(()) => self.when_closed(Box::new(move |tick| drop(reply.send(Ok(tick))))),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Snapshot { names, prefix, reply } => self.snapshot(&names, prefix, reply),
            Request::Push { source, rows, reply } => match self.sources.contains_key(&source) {
                true => {
                    let batch = SourceBatch { bytes: rows.get_array_memory_size(), rows, dead: Vec::new(), offset: Offset::default() };
                    self.accept(&source, batch, None);
                    self.when_closed(Box::new(move |tick| drop(reply.send(Ok(tick)))));
                }
                false => drop(reply.send(Err(Error::user(format!("source \"{source}\" does not exist"))))),
            },
            Request::Commit { reply } => self.when_closed(Box::new(move |tick| {
                let _ = reply.send(tick);
            })),
            Request::StartSources { reply } => drop(reply.send(self.start_sources())),
            Request::Settled { reply } => self.settled.push(reply),
            Request::Explain { name, reply } => drop(reply.send(self.explain(&name))),
            Request::Shutdown { .. } => unreachable!("handled by the loop"),
        }
    }

    /// Handles look names up without asking.
    fn publish(&self) {
        *self.directory.lock() = Directory { relations: self.relations(), detections: self.detections() };
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Some(state) = self.sources.get_mut(&arrival.source) else { return };
        match arrival.event {
            ArrivalEvent::Batch(batch, permit) => return self.accept(&arrival.source, batch, Some(permit)),
            ArrivalEvent::End => state.status = SourceStatus::Ended,
            ArrivalEvent::Failed(error) => {
                tracing::error!(source = arrival.source, %error, "the source failed and is no longer read");
                state.status = SourceStatus::Failed(error.to_string());
            }
        }
        self.metrics.source_up.with_label_values(&[&arrival.source]).set(0);
    }

    /// Judges a batch, and sends its rows on at the open tick.
    fn accept(&mut self, name: &str, batch: SourceBatch, permit: Option<OwnedSemaphorePermit>) {
        let tick = self.opened();
        let now_ms = self.config.clock.now_ms() as i64;
        let state = self.sources.get_mut(name).expect("the caller looked");
        let (rows, dead) = (batch.rows.num_rows() as u64, batch.dead.len() as u64);
        state.received += rows + dead;
        state.dead += dead;
        self.metrics.source_received_rows.with_label_values(&[name]).inc_by(rows + dead);
        self.metrics.source_received_bytes.with_label_values(&[name]).inc_by(batch.bytes as u64);
        self.metrics.source_dead_letters.with_label_values(&[name]).inc_by(dead);
        let (on_time, late, seen) = match state.rule {
            Some(rule) => {
                let judged = judge(batch.rows, rule, self.watermarks[state.index], now_ms);
                (judged.on_time, judged.late, judged.seen)
            }
            None => (batch.rows, None, None),
        };
        let late_rows = late.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        state.late += late_rows;
        state.committed += rows - late_rows;
        self.metrics.source_late_rows.with_label_values(&[name]).inc_by(late_rows);
        self.metrics.source_committed_rows.with_label_values(&[name]).inc_by(rows - late_rows);
        for letter in batch.dead {
            self.dead_letters.push_back((tick, name.to_string(), letter));
        }
        while DEAD_LETTERS_MAX < self.dead_letters.len() {
            self.dead_letters.pop_front();
        }
        let open = self.open.as_mut().expect("opened above");
        open.bytes += batch.bytes;
        open.held.permits.extend(permit);
        open.held.offsets.push((name.to_string(), batch.offset));
        if let Some(seen) = seen {
            let latest = open.held.seen.entry(name.to_string()).or_insert(seen);
            *latest = seen.max(*latest);
        }
        if on_time.num_rows() != 0 {
            if let Some(history) = &mut self.history
                && let Err(error) = history.append(name, &on_time)
            {
                tracing::error!(%error, "views created later will miss this source's earlier rows");
            }
            self.distribute(name, None, Delta::insertions(on_time));
        }
        if let Some(late) = late {
            self.distribute(&late_name(name), None, Delta::insertions(late));
        }
    }

    /// Sends rows of `relation` to the workers in turn, in pieces that keep all of them busy.
    fn distribute(&mut self, relation: &str, reader: Option<&str>, delta: Delta) {
        let tick = self.opened();
        let workers = self.workers.count();
        let piece = delta.len().div_ceil(workers).max(1024);
        let mut from = 0;
        while from < delta.len() {
            let length = piece.min(delta.len() - from);
            let part = Delta::new(delta.rows.slice(from, length), &delta.diffs[from..from + length]);
            let timed = Timed { time: tick, delta: part };
            let command = Command::Rows { relation: relation.to_string(), reader: reader.map(str::to_string), timed };
            self.workers.send(self.next_worker, command);
            self.next_worker = (self.next_worker + 1) % workers;
            from += length;
        }
    }

    /// The open tick, opened now if there is none.
    fn opened(&mut self) -> Tick {
        if let Some(open) = &self.open {
            return open.tick;
        }
        let tick = next_tick(self.last_used, self.config.clock.now_ms());
        self.last_used = tick;
        self.open = Some(OpenTick { tick, since: Instant::now(), bytes: 0, urgent: false, held: Held::default() });
        tick
    }

    /// `reply` is called when the tick that is open now is visible.
    fn when_closed(&mut self, reply: Box<dyn FnOnce(Tick) + Send>) {
        self.opened();
        let open = self.open.as_mut().expect("opened above");
        open.urgent = true;
        open.held.replies.push(reply);
    }

    /// Closes the open tick when it is due, or an empty one when the clock alone must move.
    fn advance(&mut self) {
        if self.closing.is_some() || self.followers.values().any(|follow| follow.queue.is_full()) {
            return;
        }
        let due = match &self.open {
            Some(open) => open.urgent || self.config.tick <= open.since.elapsed() || TICK_BYTES_MAX <= open.bytes,
            None => {
                let temporal = self.kept.values().any(|kept| kept.node.is_temporal())
                    || self.followers.values().any(|follow| follow.node.is_temporal());
                let heartbeat = if temporal { HEARTBEAT_TEMPORAL } else { HEARTBEAT_IDLE };
                heartbeat.max(self.config.tick) <= self.last_tick_at.elapsed()
            }
        };
        if due {
            self.close();
        }
    }

    fn close(&mut self) {
        self.opened();
        let open = self.open.take().expect("opened above");
        for (name, seen) in &open.held.seen {
            let state = &self.sources[name];
            let watermark = seen - state.rule.expect("only ruled sources are seen").lateness_ms;
            let known = &mut self.watermarks[state.index];
            *known = Some(known.map_or(watermark, |known| known.max(watermark)));
            self.metrics.source_watermark.with_label_values(&[name]).set(known.unwrap_or(0) as f64 / 1000.0);
        }
        let watermarks: Arc<[Option<i64>]> = self.watermarks.clone().into();
        self.workers.broadcast(&Command::Close { tick: open.tick, watermarks, compact: self.last_closed });
        self.closing = Some(ClosingTick {
            tick: open.tick,
            since: open.since,
            waiting: self.workers.count(),
            changes: HashMap::new(),
            held: open.held,
        });
        self.last_tick_at = Instant::now();
    }

    fn reported(&mut self, report: Report) {
        let Some(closing) = self.closing.as_mut().filter(|closing| closing.tick == report.tick) else { return };
        closing.waiting -= 1;
        for (name, tick, deltas) in report.changes {
            closing.changes.entry(name).or_default().entry(tick).or_default().extend(deltas);
        }
        for (view, rows) in report.errors {
            let known = self.errors.entry(view.clone()).or_default();
            for (row, diff) in rows {
                let count = known.entry(row.clone()).or_default();
                *count += diff;
                if *count == 0 {
                    known.remove(&row);
                }
            }
            self.metrics.view_errors.with_label_values(&[&view]).set(known.values().sum());
        }
        if closing.waiting == 0 {
            let closed = self.closing.take().expect("it is there");
            self.visible(closed);
        }
    }

    /// A tick is visible everywhere: followers get its changes, waiters their answer.
    fn visible(&mut self, closed: ClosingTick) {
        self.last_closed = closed.tick;
        for (name, ticks) in closed.changes {
            for (tick, deltas) in ticks {
                match self.followers.get(&name) {
                    Some(follow) => follow.queue.push(tick, deltas),
                    None => self.count_findings(&name, &deltas),
                }
            }
        }
        for (source, offset) in closed.held.offsets {
            if let Some(acknowledge) = self.sources.get(&source).and_then(|state| state.acknowledge.as_ref()) {
                let _ = acknowledge.send(offset);
            }
        }
        closed.held.replies.into_iter().for_each(|reply| reply(closed.tick));
        self.metrics.ticks.inc();
        self.metrics.tick_seconds.observe(closed.since.elapsed().as_secs_f64());
        self.metrics.tick_time.set(closed.tick as f64 / 1000.0);
        self.metrics.in_flight_bytes.set((IN_FLIGHT_BYTES_MAX - self.in_flight.available_permits()) as i64);
        let mut health = self.health.lock();
        health.tick = closed.tick;
        health.lag_ms = closed.since.elapsed().as_millis() as u64;
        health.ready = self.started;
        health.reason = if self.started { String::new() } else { "the sources are not started yet".into() };
    }

    fn count_findings(&self, detection: &str, deltas: &[Delta]) {
        let Some(kept) = self.kept.get(detection) else { return };
        let net = crate::changes::consolidate(&kept.node.schema, deltas);
        let raised: i64 = net.diffs.iter().filter(|diff| 0 < **diff).sum();
        let withdrawn: i64 = net.diffs.iter().filter(|diff| **diff < 0).sum();
        self.metrics.findings_raised.with_label_values(&[detection]).inc_by(raised as u64);
        self.metrics.findings_withdrawn.with_label_values(&[detection]).inc_by(-withdrawn as u64);
        self.metrics.findings_open.with_label_values(&[detection]).add(raised + withdrawn);
    }

    fn start_sources(&mut self) -> Result<()> {
        self.started = true;
        let waiting = self.sources.iter().filter(|(_, state)| state.status == SourceStatus::Created);
        let names: Vec<String> = waiting.map(|(name, _)| name.clone()).collect();
        names.iter().try_for_each(|name| self.start_source(name))
    }

    fn start_source(&mut self, name: &str) -> Result<()> {
        // Only where nothing can be created later is it known which columns nobody reads.
        let wanted = self.config.once.then(|| self.columns_wanted(name));
        let state = self.sources.get_mut(name).expect("the caller looked");
        if let Some(wanted) = wanted {
            state.spec.columns_wanted = wanted;
        }
        let source = self.connectors.source(&state.spec)?;
        let (acknowledge, task) = crate::sources::read(name.to_string(), source, Arc::clone(&self.in_flight), self.arrivals.clone());
        state.acknowledge = Some(acknowledge);
        state.task = Some(task);
        state.status = SourceStatus::Running;
        self.metrics.source_up.with_label_values(&[name]).set(1);
        Ok(())
    }

    fn answer_settled(&mut self) {
        if self.settled.is_empty() {
            return;
        }
        let failed = self.sources.iter().find_map(|(name, state)| match &state.status {
            SourceStatus::Failed(reason) => Some(Error::user(format!("source \"{name}\" failed: {reason}"))),
            _ => None,
        });
        let busy = self.sources.values().any(|state| matches!(state.status, SourceStatus::Running | SourceStatus::Created))
            || self.open.is_some()
            || self.closing.is_some()
            || self.last_closed == 0
            || self.followers.values().any(|follow| !follow.queue.is_idle());
        match failed {
            Some(error) => self.settled.drain(..).for_each(|reply| drop(reply.send(Err(error.clone())))),
            None if busy => {}
            None => self.settled.drain(..).for_each(|reply| drop(reply.send(Ok(())))),
        }
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

    async fn stop(&mut self) {
        for state in self.sources.values_mut() {
            if let Some(task) = state.task.take() {
                task.abort();
            }
        }
        let followers = std::mem::take(&mut self.followers);
        futures::future::join_all(followers.into_values().map(|follow| follow.queue.finish())).await;
        self.workers.broadcast(&Command::Stop);
    }
}

/// Where a source's late rows are.
pub fn late_name(source: &str) -> String {
    format!("{source}_late")
}
