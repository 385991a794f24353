//! What the findings of one action ask of the outside world, until each request has an outcome.
//!
//! Order     requests of one entity (of one row, where there is none) go one after the other, as
//!           asked; of different ones at once, at most 16 on the way
//! Newest    a newer row or a withdrawal takes the place of what is not done yet, and waits out its pause
//! Undo      sent wherever a request may have taken effect, whatever became of later ones
//! Retry     exponential with full jitter, up to a minute apart, for a quarter of an hour; a pause
//!           that the other side asks for is kept, up to the same quarter of an hour
//! Log       a request goes out only once the log holds that it will; its outcome follows. After a
//!           restart what has no outcome is sent again under its old key, or where it may be sent
//!           only once is in doubt, until a person says what became of it
//! Loss      where the log lost what it held of such requests, each further one waits for a person
//! Bounds    each finding without an outcome counts in the follower's backlog

mod finding;
mod restart;
mod retry;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidegate_operators::arrange::Bytes;
use tidegate_types::Tick;
use tidegate_types::connector::{ActionFailure, ActionKind, ActionRequest, Decision};
use tokio::time::Instant;

use self::finding::{Asked, Finding, Job, Parked};
pub use self::restart::OutboxState;
use self::retry::retry_pause;
use super::ActionTask;
use super::journal::{ActionEvent, ActionRecord};
use super::log::{ActionState, Entry};
use super::text::Text;
use crate::backlog::Backlog;
use crate::seeded::Bug;

const IN_FLIGHT_MAX: usize = 16;

const DISARMED: &str = "it may have been asked for in what the log lost: APPROVE ACTION, or create the action again";

/// What a finding without an outcome takes beside its row's text, roughly.
const JOB_BYTES: usize = 1024;

/// A finding's id, the same for its do, its updates and its undo.
pub type Id = Text;

/// An attempt that is over.
struct Landed {
    id: Id,
    request: u32,
    asked: Asked,
    outcome: Result<(), ActionFailure>,
}

pub struct Outbox {
    task: Arc<ActionTask>,
    backlog: Backlog,
    findings: HashMap<Id, Finding>,
    /// Findings without an outcome by entity, in the order asked. Only the first may be sent.
    lanes: HashMap<Bytes, VecDeque<Id>>,
    ready: VecDeque<Id>,
    pauses: BTreeSet<(Instant, Id)>,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// When requests were sent that count in the limit, on the engine's clock.
    sent_ms: VecDeque<u64>,
    /// The log is still being read: nothing is sent.
    is_asleep: bool,
    /// The log lost what it held of some requests.
    is_disarmed: bool,
}

impl Outbox {
    pub fn new(task: Arc<ActionTask>, backlog: Backlog) -> Self {
        Self {
            task,
            backlog,
            findings: HashMap::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            pauses: BTreeSet::new(),
            flights: FuturesUnordered::new(),
            sent_ms: VecDeque::new(),
            is_asleep: true,
            is_disarmed: false,
        }
    }

    /// From now on nothing is done or updated before a person approves it.
    pub fn disarm(&mut self) {
        self.is_disarmed = true;
    }

    pub fn raise(&mut self, id: Id, lane: Bytes, row: Text, tick: Tick) {
        let finding = Finding {
            lane,
            held: None,
            job: None,
            is_flying: false,
            intended: None,
            is_counted: false,
            requests: 0,
            parked: None,
            row: None,
        };
        let other = self.findings.insert(id.clone(), finding);
        assert!(other.is_none(), "two findings have the id {id}");
        self.ask(&id, row, false, tick);
    }

    pub fn update(&mut self, id: &Id, row: Text, tick: Tick) {
        self.ask(id, row, false, tick);
    }

    /// What is true of the finding is said in another way; nothing is asked for that.
    pub fn adopt(&mut self, id: &Id, row: Text) {
        if let Some(finding) = self.findings.get_mut(id) {
            finding.row = Some(row);
        }
    }

    /// Nothing more will be said of the finding; what is asked for it or waits for a person goes on.
    pub fn let_go(&mut self, id: &Id) {
        let is_through = |finding: &Finding| finding.job.is_none() && finding.parked.is_none() && !finding.is_flying;
        if self.findings.get(id).is_some_and(is_through) {
            self.findings.remove(id);
        }
    }

    pub fn withdraw(&mut self, id: &Id, row: Text, tick: Tick) {
        self.ask(id, row, true, tick);
    }

    /// Waits for one outcome or the end of one pause, and sends what may then be sent. Cancel safe.
    pub async fn progress(&mut self) {
        let due = self.pauses.first().map(|(at, _)| *at);
        let pause = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(landed) = self.flights.next() => self.land(landed),
            () = pause => self.end_pauses(),
        }
        self.launch();
    }

    /// Whether any finding's request has no outcome yet.
    pub fn is_busy(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Gives what has no outcome `within` to get one; the rest has failed.
    pub async fn stop(&mut self, within: Duration) {
        let all = async {
            while self.is_busy() {
                self.progress().await;
            }
        };
        if tokio::time::timeout(within, all).await.is_ok() {
            return;
        }
        if self.task.journal.outlives() {
            return;
        }
        let left: Vec<Id> = self.lanes.values().flatten().cloned().collect();
        tracing::warn!(
            action = self.task.name,
            requests = left.len(),
            "stopped before all requests had an outcome; they are in sys.actions"
        );
        for id in left {
            self.settle(&id, ActionState::Failed, "the engine stopped, or the action was dropped");
        }
    }

    fn ask(&mut self, id: &Id, row: Text, is_gone: bool, tick: Tick) {
        self.ask_for(id, row, is_gone, tick, false);
    }

    fn ask_for(&mut self, id: &Id, row: Text, is_gone: bool, tick: Tick, is_approved: bool) {
        let finding = self.findings.get_mut(id).expect("raised before");
        let is_first = finding.job.is_none();
        finding.row = (!is_gone).then(|| row.clone());
        let claim = Some(Arc::new(self.backlog.claim(JOB_BYTES + row.len())));
        let kind = finding.kind(is_gone);
        let job = Job { request: 0, is_approved, kind, row, previous: None, tick, attempts: 0, since: Instant::now(), _claim: claim };
        finding.job = Some(job);
        // While an older request is on the way, it is not known whether there is anything to undo.
        if !finding.is_flying && !self.is_asleep {
            finding.aim();
            if let Some((state, reason)) = self.refusal(id) {
                return self.settle(id, state, reason);
            }
        }
        self.record(id, ActionState::Pending, "", None);
        if is_first {
            self.enqueue(id);
        }
    }

    fn enqueue(&mut self, id: &Id) {
        let lane = self.lanes.entry(self.findings[id].lane.clone()).or_default();
        lane.push_back(id.clone());
        if lane.len() == 1 {
            self.ready.push_back(id.clone());
        }
    }

    /// Why the finding's request is never sent.
    fn refusal(&self, id: &Id) -> Option<(ActionState, &'static str)> {
        let (finding, options) = (&self.findings[id], &self.task.options);
        match finding.job().kind {
            _ if finding.parked.as_ref().is_some_and(|parked| parked.is_doubt) => {
                Some((ActionState::InDoubt, "an earlier request may have been done: RESOLVE ACTION says what became of it"))
            }
            ActionKind::Undo if finding.held.is_none() => Some((ActionState::Skipped, "withdrawn before it was done")),
            ActionKind::Undo if !self.task.responder.supports(ActionKind::Undo) => {
                Some((ActionState::Skipped, "withdrawn, but has no undo_url: what was done stays"))
            }
            // In a dry run nobody is asked.
            ActionKind::Do | ActionKind::Update if finding.job().is_approved || !options.armed => None,
            ActionKind::Do | ActionKind::Update if self.is_disarmed => Some((ActionState::AwaitingApproval, DISARMED)),
            ActionKind::Do | ActionKind::Update if options.manual => Some((ActionState::AwaitingApproval, "")),
            _ => None,
        }
    }

    /// Sends what may be sent.
    pub fn launch(&mut self) {
        while !self.is_asleep
            && self.flights.len() < IN_FLIGHT_MAX
            && let Some(id) = self.ready.pop_front()
        {
            // Those that were withdrawn while they waited are settled, and gone.
            if self.findings.contains_key(&id) && self.prepare(&id) {
                self.send(id);
            }
        }
    }

    /// Whether the finding's request may go; if not, it is settled.
    fn prepare(&mut self, id: &Id) -> bool {
        let finding = self.findings.get_mut(id).expect("looked up");
        if 0 < finding.job().attempts || finding.job().request != 0 {
            return true;
        }
        finding.aim();
        if let Some((state, reason)) = self.refusal(id) {
            self.settle(id, state, reason);
            return false;
        }
        // A withdrawal is never held back by a limit: it takes pressure off.
        let finding = &self.findings[id];
        let is_relief = finding.job().kind == ActionKind::Undo && !self.task.seeded.has(Bug::UndoLimited);
        let is_free = finding.is_counted || is_relief;
        if !is_free && self.is_over_limit() {
            self.settle(id, ActionState::Limited, "over its limit");
            return false;
        }
        if !self.task.options.armed {
            self.settle(id, ActionState::DryRun, "");
            return false;
        }
        self.findings.get_mut(id).expect("looked up").is_counted = true;
        true
    }

    fn send(&mut self, id: Id) {
        let finding = self.findings.get_mut(&id).expect("prepared");
        finding.is_flying = true;
        let is_new = finding.job().request == 0;
        finding.requests += u32::from(is_new);
        let number = finding.requests;
        let job = finding.job.as_mut().expect("prepared");
        if job.attempts == 0 {
            job.since = Instant::now();
        }
        job.attempts += 1;
        job.request = number;
        let json = |row: &Text| serde_json::from_str(row).expect("written as JSON");
        let request = ActionRequest {
            id: id.to_string(),
            key: match self.task.seeded.has(Bug::KeyOfAttempt) {
                true => format!("{id}-{number}-{}", job.attempts),
                false => format!("{id}-{number}"),
            },
            action: self.task.name.clone(),
            kind: job.kind,
            tick: job.tick,
            finding: json(&job.row),
            previous: job.previous.as_ref().map(json),
        };
        let (kind, row, previous) = (job.kind, job.row.clone(), job.previous.as_ref().map(Text::to_string));
        let asked = Asked { kind, row: row.clone(), previous: job.previous.clone() };
        finding.intended = Some(asked.clone());
        let (tick, at_ms) = (request.tick, self.task.clock.now_ms());
        let intent = ActionEvent::Intent { request: number, kind, row: row.to_string(), previous, tick, at_ms };
        let (task, record) = (Arc::clone(&self.task), self.note(&id, intent));
        self.flights.push(Box::pin(async move {
            if is_new && task.seeded.has(Bug::SendBeforeIntent) {
                task.journal.tell(record);
            } else if is_new && !task.journal.told(record).await {
                // The engine ends; the next start knows nothing of this request, and asks anew.
                std::future::pending::<()>().await;
            }
            let outcome = task.responder.send(&request).await;
            Landed { id, request: number, asked, outcome }
        }));
    }

    fn land(&mut self, landed: Landed) {
        let Landed { id, request, asked, outcome } = landed;
        let (kind, row) = (asked.kind, asked.row.clone());
        let finding = self.findings.get_mut(&id).expect("kept while its request is on the way");
        (finding.is_flying, finding.intended) = (false, None);
        finding.learn(kind, row.clone(), &outcome);
        let (attempts, since) = (finding.job().attempts, finding.job().since);
        let is_superseded = finding.job().request != request;
        let state = if kind == ActionKind::Undo { ActionState::Undone } else { ActionState::Done };
        match outcome {
            Ok(()) if is_superseded => {
                self.count(kind, state);
                self.tell(&id, request, kind, &row, state, "", false);
                self.ready.push_front(id);
            }
            Ok(()) => self.settle(&id, state, ""),
            Err(failure) if failure.may_be_done && self.task.options.at_most_once => {
                finding.parked = Some(Parked { asked, is_doubt: true });
                if is_superseded {
                    self.tell(&id, request, kind, &row, ActionState::InDoubt, &failure.message, true);
                }
                self.settle(&id, ActionState::InDoubt, &failure.message);
            }
            // The other side is not well, so what took the place waits too; a withdrawal of what
            // was surely not done has nothing to wait for.
            Err(failure) if is_superseded => {
                // An attempt before this one may have been done.
                let may_be_done = finding.held.is_some();
                self.tell(&id, request, kind, &row, ActionState::Failed, &failure.message, may_be_done);
                match self.refusal(&id) {
                    Some((state, reason)) => self.settle(&id, state, reason),
                    None => self.pause(id, self.retry_pause(1, Duration::ZERO, &failure).unwrap_or_default(), ""),
                }
            }
            Err(failure) => match self.retry_pause(attempts, since.elapsed(), &failure) {
                Some(pause) => self.pause(id, pause, &failure.message),
                None => {
                    tracing::warn!(action = self.task.name, %id, attempts, reason = failure.message, "an action failed; it is in sys.actions");
                    self.settle(&id, ActionState::Failed, &failure.message);
                }
            },
        }
    }

    fn pause(&mut self, id: Id, pause: Duration, error: &str) {
        self.record(&id, ActionState::Pending, error, None);
        self.pauses.insert((Instant::now() + pause, id));
    }

    fn end_pauses(&mut self) {
        let now = Instant::now();
        while self.pauses.first().is_some_and(|(at, _)| *at <= now) {
            self.ready.extend(self.pauses.pop_first().map(|(_, id)| id));
        }
    }

    /// The finding's request has its outcome; the next one of its entity may go.
    fn settle(&mut self, id: &Id, state: ActionState, error: &str) {
        let shown = self.task.log.find(id).filter(|shown| state == ActionState::Skipped && shown.state == ActionState::Failed);
        let error = &shown.map_or(error.to_string(), |shown| format!("{error}; it had failed: {}", shown.error));
        let job = self.findings[id].job();
        let (request, kind, row) = (job.request, job.kind, job.row.clone());
        let at_ms = self.tell(id, request, kind, &row, state, error, self.findings[id].held.is_some());
        self.close(id, state, error, at_ms);
    }

    fn close(&mut self, id: &Id, state: ActionState, error: &str, at_ms: u64) {
        self.record(id, state, error, Some(at_ms));
        self.count(self.findings[id].job().kind, state);
        let finding = self.findings.get_mut(id).expect("it has no outcome yet");
        let job = finding.job.take().expect("it has no outcome yet");
        finding.is_counted = false;
        match state {
            ActionState::DryRun => finding.held = Some(job.row),
            ActionState::AwaitingApproval => {
                let asked = Asked { kind: job.kind, row: job.row, previous: job.previous };
                finding.parked = Some(Parked { asked, is_doubt: false });
            }
            _ => {}
        }
        let lane = finding.lane.clone();
        if job.kind == ActionKind::Undo && state != ActionState::InDoubt {
            self.findings.remove(id);
        }
        self.leave(&lane, id);
    }

    fn leave(&mut self, lane: &Bytes, id: &Id) {
        let Some(waiting) = self.lanes.get_mut(lane) else { return };
        if waiting.front() != Some(id) {
            return waiting.retain(|other| other != id);
        }
        waiting.pop_front();
        match waiting.front() {
            Some(next) => self.ready.push_back(next.clone()),
            None => drop(self.lanes.remove(lane)),
        }
    }

    fn is_over_limit(&mut self) -> bool {
        let Some((count, per)) = self.task.options.limit else { return false };
        let now_ms = self.task.clock.now_ms();
        let per_ms = per.as_millis() as u64;
        while self.sent_ms.front().is_some_and(|sent_ms| sent_ms + per_ms < now_ms) {
            self.sent_ms.pop_front();
        }
        let over = count <= self.sent_ms.len();
        if !over {
            self.sent_ms.push_back(now_ms);
        }
        over
    }

    fn decide(&mut self, id: &Id, decision: Decision, said: Tick) {
        let finding = self.findings.get_mut(id).expect("looked up");
        let Some(Parked { asked, is_doubt }) = finding.parked.clone() else { return };
        let (kind, row) = (asked.kind, asked.row.clone());
        let newest = finding.row.clone();
        let (state, why) = ActionState::after(decision, kind);
        match (decision, is_doubt) {
            (Decision::Approve, false) => {
                finding.parked = None;
                self.ask_for(id, row, false, 0, true);
            }
            (Decision::Reject, false) => {
                finding.parked = None;
                self.show(id, kind, &row, state, 0, why, 0, Some(said));
            }
            (Decision::Done, true) => {
                finding.parked = None;
                finding.held = asked.after();
                self.show(id, kind, &row, state, 1, why, 0, Some(said));
                self.catch_up(id, newest, &row);
            }
            (Decision::NotDone, true) => {
                finding.parked = None;
                finding.held = asked.before();
                self.show(id, kind, &row, state, 1, why, 0, Some(said));
                self.catch_up(id, newest, &row);
            }
            _ => {}
        }
    }

    /// Asks for what is true now, where the other side holds something else.
    fn catch_up(&mut self, id: &Id, newest: Option<Text>, row: &Text) {
        match (newest, &self.findings[id].held) {
            (None, Some(_)) => self.ask(id, row.clone(), true, 0),
            (None, None) => drop(self.findings.remove(id)),
            (Some(newest), Some(held)) if newest != *held => self.ask(id, newest, false, 0),
            _ => {}
        }
    }

    fn count(&self, kind: ActionKind, state: ActionState) {
        self.task.metrics.actions.with_label_values(&[&self.task.name, kind.as_str(), state.as_str()]).inc();
    }

    fn record(&self, id: &Id, state: ActionState, error: &str, at_ms: Option<u64>) {
        let finding = &self.findings[id];
        let (job, parked) = (finding.job(), finding.parked.as_ref().filter(|_| state == ActionState::InDoubt));
        // A person is asked about what is in doubt, not about what waits behind it.
        let (kind, row) = parked.map_or((job.kind, &job.row), |parked| (parked.asked.kind, &parked.asked.row));
        self.show(id, kind, row, state, job.attempts, error, job.tick, at_ms);
    }

    /// `at_ms`: since when, where that is known.
    fn show(&self, id: &Id, kind: ActionKind, row: &Text, state: ActionState, attempts: i64, error: &str, tick: Tick, at_ms: Option<u64>) {
        let (id, finding) = (id.clone(), row.clone());
        let (action, error) = (self.task.name.clone(), error.to_string());
        let settled_ms = at_ms.filter(|_| state.is_settled());
        self.task.log.set(Entry { id, action, finding, state, kind, attempts, error, tick, settled_ms });
    }

    fn note(&self, id: &Id, event: ActionEvent) -> ActionRecord {
        ActionRecord { action: self.task.name.clone(), id: id.to_string(), event }
    }

    /// Returns when that was.
    fn tell(&self, id: &Id, request: u32, kind: ActionKind, row: &Text, state: ActionState, error: &str, may_be_done: bool) -> u64 {
        let at_ms = self.task.clock.now_ms();
        if !self.is_asleep {
            let (row, error) = (row.to_string(), error.to_string());
            self.task.journal.tell(self.note(id, ActionEvent::Outcome { request, kind, row, state, error, may_be_done, at_ms }));
        }
        at_ms
    }

    fn retry_pause(&self, attempts: i64, since_first: Duration, failure: &ActionFailure) -> Option<Duration> {
        retry_pause(attempts, since_first, failure, self.task.random.unit())
    }
}
