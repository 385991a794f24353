//! Who follows a view's changes: sinks and actions, each in a task of its own with a byte-counted
//! queue, so that a slow one slows the ticks and not the memory.
//!
//! While the log is read again nobody is told anything: a sink's queue keeps what may not have been
//! delivered, an action's findings and requests are brought to where they were.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use tidegate_types::connector::{Changes, Decision, Progress, Sink, Writer};
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::actions::{ActionRecord, ActionSnapshot, ActionTask, Cause, Follower};
use crate::backlog::{Backlog, Claim};
use crate::changes::consolidate;
use crate::metrics::Metrics;
use crate::seeded::{Bug, Seeded};

/// Queued bytes at which no further tick is closed until the follower catches up.
pub const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// What a sink is given at once.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// How long an action's requests may still take when no more changes will come.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// One tick's changes on their way to a follower.
struct Queued {
    tick: Tick,
    deltas: Vec<Delta>,
    cause: Cause,
    /// Nothing in it can net out.
    is_net: bool,
    claim: Claim,
}

/// What a follower is told.
enum Told {
    Changes(Queued),
    Decision {
        id: String,
        decision: Decision,
        /// The log's, of the decision.
        tick: Tick,
    },
    /// Asks for what a restart needs.
    State(oneshot::Sender<ActionSnapshot>),
}

/// The queue of one follower.
pub struct Queue {
    /// What is followed only grows: nothing can net out, so nothing is netted.
    pub append_only: bool,
    is_action: bool,
    is_muted: bool,
    /// What the other side misses up to here is no longer there.
    floor: Tick,
    /// What the log held of these is given up.
    gaps: Vec<Range<Tick>>,
    stage: Stage,
    backlog: Backlog,
    account: Account,
}

/// How far a follower is, for whoever asks.
#[derive(Clone, Default)]
struct Account {
    delivered: Arc<AtomicU64>,
    failed: Arc<OnceLock<String>>,
}

enum Stage {
    Sink(SinkTask, VecDeque<Queued>),
    Action(Box<Follower>),
    Running(mpsc::UnboundedSender<Told>, JoinHandle<()>),
    /// Nothing more is taken.
    Over,
}

impl Queue {
    pub fn sink(name: String, schema: SchemaRef, append_only: bool, sink: Box<dyn Sink>, metrics: Metrics, seeded: Seeded) -> Self {
        let (backlog, account) = (Backlog::default(), Account::default());
        let task = SinkTask { name, schema, sink, metrics, backlog: backlog.clone(), account: account.clone(), seeded };
        Self {
            append_only,
            is_action: false,
            is_muted: false,
            floor: 0,
            gaps: Vec::new(),
            stage: Stage::Sink(task, VecDeque::new()),
            backlog,
            account,
        }
    }

    pub fn action(task: ActionTask) -> Self {
        let backlog = Backlog::default();
        let follower = Follower::new(task, backlog.clone());
        Self {
            append_only: false,
            is_action: true,
            is_muted: false,
            floor: 0,
            gaps: Vec::new(),
            stage: Stage::Action(Box::new(follower)),
            backlog,
            account: Account::default(),
        }
    }

    /// From now on the outside world is told. `upto`: the last tick there is. A sink of the same name
    /// that was dropped before is another one: the tick of its creation is part of who writes.
    pub fn start(&mut self, writer: &Writer, created: Tick, upto: Tick) {
        let writer = Writer { log: format!("{}-{created}", writer.log), epoch: writer.epoch };
        let (sender, receiver) = mpsc::unbounded_channel();
        let task = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Sink(task, queued) => {
                queued.into_iter().for_each(|queued| drop(sender.send(Told::Changes(queued))));
                let known = Known { floor: self.floor, gaps: std::mem::take(&mut self.gaps), upto };
                tokio::spawn(to_the_end(task.run(receiver, writer, known)))
            }
            Stage::Action(follower) => tokio::spawn(to_the_end(act(*follower, receiver))),
            other @ (Stage::Running(..) | Stage::Over) => return self.stage = other,
        };
        self.stage = Stage::Running(sender, task);
    }

    /// It follows no more, and why.
    pub fn give_up(&mut self, reason: &str) {
        if let Stage::Running(_, task) = &self.stage {
            let _ = self.account.failed.set(reason.to_string());
            task.abort();
        }
    }

    /// Nobody outside will be told anything. An action still says what it would ask.
    pub fn mute(&mut self) {
        self.is_muted = true;
        if matches!(self.stage, Stage::Sink(..)) {
            self.stage = Stage::Over;
        }
    }

    pub fn push(&mut self, tick: Tick, deltas: Vec<Delta>, cause: Cause) {
        let bytes: usize = deltas.iter().map(Delta::bytes).sum();
        // One more, so that a tick without bytes is not idle either.
        let claim = self.backlog.claim(bytes + 1);
        let queued = Queued { tick, deltas, cause, is_net: self.append_only && cause == Cause::Input, claim };
        match &mut self.stage {
            Stage::Sink(_, waiting) => waiting.push_back(queued),
            Stage::Action(follower) => follower.follow(queued.tick, &queued.deltas, cause),
            // A follower that failed for good has said so; what it misses is counted there.
            Stage::Running(sender, _) => drop(sender.send(Told::Changes(queued))),
            Stage::Over => {}
        }
    }

    /// The log says that the follower had all up to `tick`.
    pub fn delivered_before(&mut self, tick: Tick) {
        self.account.delivered.fetch_max(tick, Ordering::Relaxed);
        self.forget_before(tick);
    }

    fn forget_before(&mut self, tick: Tick) {
        if let Stage::Sink(_, waiting) = &mut self.stage {
            waiting.retain(|queued| tick < queued.tick);
        }
    }

    /// The log says, in that tick, what became of an action's request.
    pub fn repeat(&mut self, record: &ActionRecord, tick: Tick) {
        if let Stage::Action(follower) = &mut self.stage {
            follower.repeat(record, tick);
        }
    }

    /// Nobody outside was told anything yet, and somebody will be.
    pub fn is_new(&self) -> bool {
        !self.is_muted && matches!(self.stage, Stage::Sink(..) | Stage::Action(_))
    }

    /// Passes on a person's word of that tick, once it is called.
    pub fn decide(&self, id: String, decision: Decision, tick: Tick) -> impl FnOnce() + Send + use<> {
        let sender = match &self.stage {
            Stage::Running(sender, _) => Some(sender.clone()),
            Stage::Sink(..) | Stage::Action(_) | Stage::Over => None,
        };
        move || drop(sender.map(|sender| sender.send(Told::Decision { id, decision, tick })))
    }

    /// What a restart needs of an action once it has followed what was pushed so far.
    pub fn state(&self) -> Option<oneshot::Receiver<ActionSnapshot>> {
        let Stage::Running(sender, _) = &self.stage else { return None };
        let (reply, state) = oneshot::channel();
        (self.is_action && sender.send(Told::State(reply)).is_ok()).then_some(state)
    }

    /// Takes up what an earlier engine left of an action.
    pub fn restore(&mut self, state: ActionSnapshot) {
        if let Stage::Action(follower) = &mut self.stage {
            follower.restore(state);
        }
    }

    /// Whether all up to `tick`, which was pushed, is with the other side. An action takes ticks at once.
    pub fn is_past(&self, tick: Tick) -> bool {
        self.is_action || tick <= self.delivered() || (self.backlog.bytes() == 0 && !self.is_over())
    }

    /// The log no longer holds what the other side misses up to `tick`.
    pub fn begin_at(&mut self, tick: Tick) {
        self.floor = tick;
        self.forget_before(tick);
    }

    /// What the log held of these ticks is given up. What that is for an action or a sink, for people; None: nothing.
    pub fn gives_up(&mut self, gap: Range<Tick>) -> Option<&'static str> {
        match &mut self.stage {
            Stage::Action(follower) => Some(match follower.disarm() {
                true => "it may have asked for what it would ask now, so a person approves each",
                false => "what it asked for may be asked for again",
            }),
            Stage::Sink(..) => {
                self.gaps.push(gap);
                Some("it is detached if it was told of what is lost")
            }
            Stage::Running(..) | Stage::Over => None,
        }
    }

    /// The last tick whose changes are with the other side.
    pub fn delivered(&self) -> Tick {
        self.account.delivered.load(Ordering::Relaxed)
    }

    /// Why it follows no more.
    pub fn failed(&self) -> Option<&str> {
        self.account.failed.get().map(String::as_str)
    }

    /// What waits for the other side.
    pub fn waiting_bytes(&self) -> usize {
        self.backlog.bytes()
    }

    pub fn is_full(&self) -> bool {
        BACKLOG_BYTES_MAX <= self.backlog.bytes() && !self.is_muted && !self.is_over()
    }

    pub fn is_idle(&self) -> bool {
        self.backlog.bytes() == 0 || self.is_muted || self.is_over()
    }

    /// It follows no more.
    pub fn is_over(&self) -> bool {
        matches!(&self.stage, Stage::Running(_, task) if task.is_finished())
    }

    /// No more changes will come; ends when all are through, or an action had its time.
    pub fn finish(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        async move {
            if let Stage::Running(sender, task) = stage {
                drop(sender);
                let _ = task.await;
            }
        }
    }
}

/// Of which ticks a sink can be told.
struct Known {
    /// Not up to here.
    floor: Tick,
    /// Nor of these.
    gaps: Vec<Range<Tick>>,
    /// The last one.
    upto: Tick,
}

/// Everything a sink's task needs.
struct SinkTask {
    name: String,
    schema: SchemaRef,
    sink: Box<dyn Sink>,
    metrics: Metrics,
    backlog: Backlog,
    account: Account,
    seeded: Seeded,
}

impl SinkTask {
    async fn run(mut self, receiver: mpsc::UnboundedReceiver<Told>, writer: Writer, known: Known) {
        if let Err(error) = self.write_all(receiver, &writer, known).await {
            self.metrics.sink_failures.with_label_values(&[&self.name]).inc();
            let _ = self.account.failed.set(error.to_string());
            tracing::error!(sink = self.name, %error, "the sink failed and is detached; drop and create it again to resume");
        }
    }

    async fn write_all(&mut self, mut receiver: mpsc::UnboundedReceiver<Told>, writer: &Writer, known: Known) -> Result<()> {
        let Known { floor, gaps, upto } = known;
        let there = match self.sink.resume(writer).await? {
            Progress::Unknown => self.account.delivered.load(Ordering::Relaxed),
            Progress::Upto(there) if upto < there => {
                return Err(Error::engine(format!("the other side has tick {there}, and the log ends at {upto}"))
                    .hint("the data folder is older than what was written; write to another place, or restore the newer folder"));
            }
            Progress::Upto(there) => there,
        };
        if let Some(gap) = gaps.iter().find(|gap| gap.contains(&there)) {
            return Err(Error::user(format!("the other side has tick {there}, and the log lost what came from {} on", gap.start))
                .hint("drop the sink, and create it again on another place: what it has there may not be so"));
        }
        if there < floor {
            return Err(Error::user(format!("the other side has tick {there}, and the log begins at {floor}"))
                .hint("drop the sink and create it again: it begins with what is there now"));
        }
        while let Some(Told::Changes(first)) = receiver.recv().await {
            let mut bytes: usize = first.deltas.iter().map(Delta::bytes).sum();
            let mut queued = vec![first];
            while bytes < WRITE_BYTES_MAX
                && let Ok(Told::Changes(more)) = receiver.try_recv()
            {
                bytes += more.deltas.iter().map(Delta::bytes).sum::<usize>();
                queued.push(more);
            }
            self.write(&queued, there).await?;
            drop(queued);
            self.metrics.sink_backlog_bytes.with_label_values(&[&self.name]).set(self.backlog.bytes() as i64);
        }
        self.sink.finish().await
    }

    async fn write(&mut self, queued: &[Queued], there: Tick) -> Result<()> {
        if self.seeded.has(Bug::ProgressBeforeSend) {
            self.reached(queued);
        }
        let new = queued.iter().filter(|queued| there < queued.tick);
        let changes = new.map(|queued| {
            let delta = match queued.is_net {
                true => Delta::concat(&self.schema, &queued.deltas).map_err(|error| Error::engine(error.to_string()))?,
                false => consolidate(&self.schema, &queued.deltas),
            };
            Ok(Changes { tick: queued.tick, delta })
        });
        let mut changes = changes.collect::<Result<Vec<Changes>>>()?;
        changes.retain(|changes| !changes.delta.is_empty());
        if !changes.is_empty() {
            self.sink.write(&changes).await?;
            let rows: usize = changes.iter().map(|changes| changes.delta.len()).sum();
            self.metrics.sink_changes.with_label_values(&[&self.name]).inc_by(rows as u64);
        }
        self.reached(queued);
        Ok(())
    }

    fn reached(&self, queued: &[Queued]) {
        if let Some(last) = queued.last() {
            self.account.delivered.fetch_max(last.tick, Ordering::Relaxed);
        }
    }
}

/// A follower that panics has lost what it knows: only a restart, from the log, has it again.
async fn to_the_end(task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!("a sink or an action failed; the process ends so that a supervisor can restart it");
        std::process::exit(2);
    }
}

/// An action's task. A tick leaves the queue at once; its findings count in the backlog until they
/// have their outcome.
async fn act(mut follower: Follower, mut receiver: mpsc::UnboundedReceiver<Told>) {
    follower.wake();
    loop {
        tokio::select! {
            told = receiver.recv() => match told {
                // Let go after its findings are counted, so that the queue is never idle between.
                Some(Told::Changes(Queued { tick, deltas, cause, claim: _claim, .. })) => follower.follow(tick, &deltas, cause),
                Some(Told::Decision { id, decision, tick }) => follower.decide(&id, decision, tick),
                Some(Told::State(reply)) => drop(reply.send(follower.state())),
                None => break,
            },
            () = follower.progress() => {}
        }
    }
    follower.stop(STOP_WITHIN).await;
}
