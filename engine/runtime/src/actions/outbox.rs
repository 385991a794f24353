//! What the findings of one action ask of the outside world, until each request has an outcome.
//!
//! Order     requests of one entity (of one row, where there is none) go one after the other, as
//!           asked; of different ones at once, at most 16 on the way
//! Newest    a newer row or a withdrawal takes the place of what is not done yet, and waits out its pause
//! Undo      sent wherever a request may have taken effect, whatever became of later ones
//! Retry     exponential with full jitter, up to a minute apart, for a quarter of an hour; a pause
//!           that the other side asks for is kept, up to the same quarter of an hour
//! Bounds    each finding without an outcome counts in the follower's backlog

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::Rng;
use tidegate_operators::arrange::Bytes;
use tidegate_types::Tick;
use tidegate_types::connector::{ActionFailure, ActionKind, ActionRequest};
use tokio::time::Instant;

use super::ActionTask;
use super::log::{ActionState, Entry};
use crate::backlog::{Backlog, Claim};

const IN_FLIGHT_MAX: usize = 16;

/// What a finding without an outcome takes beside its row's text, roughly.
const JOB_BYTES: usize = 1024;

/// The bounds of the pause between attempts, and how long after the first one there are more.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
const RETRY_FOR: Duration = Duration::from_secs(15 * 60);

/// A finding's id, the same for its do, its updates and its undo.
pub type Id = Arc<str>;

/// A row as a JSON object.
pub type Text = Arc<str>;

/// One finding, from its first row until it is withdrawn and settled.
struct Finding {
    /// Whose requests keep their order.
    lane: Bytes,
    /// What the other side may hold: the last row whose request was done or had no clear outcome.
    held: Option<Text>,
    /// The newest request without an outcome.
    job: Option<Job>,
    /// An attempt is on the way; of the job, or of one whose place the job took.
    is_flying: bool,
    /// Counted in the limit, and not done since.
    is_counted: bool,
}

struct Job {
    kind: ActionKind,
    row: Text,
    previous: Option<Text>,
    tick: Tick,
    /// 0 until the first one: what is asked may still depend on an older request's outcome.
    attempts: i64,
    since: Instant,
    _claim: Claim,
}

impl Finding {
    fn job(&self) -> &Job {
        self.job.as_ref().expect("it has no outcome yet")
    }

    /// What brings the other side from what it may hold to what is true now.
    fn kind(&self, is_gone: bool) -> ActionKind {
        match (is_gone, &self.held) {
            (true, _) => ActionKind::Undo,
            (false, None) => ActionKind::Do,
            (false, Some(_)) => ActionKind::Update,
        }
    }

    /// Fixes what is asked, now that no older request of the finding is on the way.
    fn aim(&mut self) {
        let is_gone = self.job().kind == ActionKind::Undo;
        let (kind, held) = (self.kind(is_gone), self.held.clone());
        let job = self.job.as_mut().expect("it has no outcome yet");
        job.kind = kind;
        match (kind, held) {
            (ActionKind::Undo, Some(held)) => job.row = held,
            (ActionKind::Update, held) => job.previous = held,
            _ => job.previous = None,
        }
    }

    fn learn(&mut self, kind: ActionKind, row: Text, outcome: &Result<(), ActionFailure>) {
        match outcome {
            Ok(()) => {
                self.held = (kind != ActionKind::Undo).then_some(row);
                self.is_counted = false;
            }
            Err(failure) if failure.may_be_done && kind != ActionKind::Undo => self.held = Some(row),
            Err(_) => {}
        }
    }
}

/// An attempt that is over.
struct Landed {
    id: Id,
    kind: ActionKind,
    row: Text,
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
    /// When requests were sent that count in the limit.
    sent: VecDeque<Instant>,
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
            sent: VecDeque::new(),
        }
    }

    pub fn raise(&mut self, id: Id, lane: Bytes, row: Text, tick: Tick) {
        let finding = Finding { lane, held: None, job: None, is_flying: false, is_counted: false };
        self.findings.insert(Arc::clone(&id), finding);
        self.ask(&id, row, false, tick);
    }

    pub fn update(&mut self, id: &Id, row: Text, tick: Tick) {
        self.ask(id, row, false, tick);
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
            () = pause => self.wake(),
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
        let finding = self.findings.get_mut(id).expect("raised before");
        let is_first = finding.job.is_none();
        let claim = self.backlog.claim(JOB_BYTES + row.len());
        let kind = finding.kind(is_gone);
        finding.job = Some(Job { kind, row, previous: None, tick, attempts: 0, since: Instant::now(), _claim: claim });
        // While an older request is on the way, it is not known whether there is anything to undo.
        if !finding.is_flying {
            finding.aim();
            if let Some((state, reason)) = self.refusal(id) {
                return self.settle(id, state, reason);
            }
        }
        self.record(id, ActionState::Pending, "");
        if is_first {
            self.enqueue(id);
        }
    }

    fn enqueue(&mut self, id: &Id) {
        let lane = self.lanes.entry(self.findings[id].lane.clone()).or_default();
        lane.push_back(Arc::clone(id));
        if lane.len() == 1 {
            self.ready.push_back(Arc::clone(id));
        }
    }

    /// Why the finding's request is never sent.
    fn refusal(&self, id: &Id) -> Option<(ActionState, &'static str)> {
        let (finding, options) = (&self.findings[id], &self.task.options);
        match finding.job().kind {
            _ if !options.armed => Some((ActionState::DryRun, "")),
            ActionKind::Undo if finding.held.is_none() => Some((ActionState::Skipped, "withdrawn before it was done")),
            ActionKind::Undo if !self.task.responder.supports(ActionKind::Undo) => {
                Some((ActionState::Skipped, "withdrawn, but has no undo_url: what was done stays"))
            }
            ActionKind::Do | ActionKind::Update if options.manual => Some((ActionState::AwaitingApproval, "")),
            _ => None,
        }
    }

    /// Sends what may be sent.
    pub fn launch(&mut self) {
        while self.flights.len() < IN_FLIGHT_MAX
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
        if 0 < finding.job().attempts {
            return true;
        }
        finding.aim();
        if let Some((state, reason)) = self.refusal(id) {
            self.settle(id, state, reason);
            return false;
        }
        // A withdrawal is never held back by a limit: it takes pressure off.
        let finding = &self.findings[id];
        let is_free = finding.is_counted || finding.job().kind == ActionKind::Undo;
        if !is_free && self.is_over_limit() {
            self.settle(id, ActionState::Limited, "over its limit");
            return false;
        }
        self.findings.get_mut(id).expect("looked up").is_counted = true;
        true
    }

    fn send(&mut self, id: Id) {
        let finding = self.findings.get_mut(&id).expect("prepared");
        finding.is_flying = true;
        let job = finding.job.as_mut().expect("prepared");
        if job.attempts == 0 {
            job.since = Instant::now();
        }
        job.attempts += 1;
        let json = |row: &Text| serde_json::from_str(row).expect("written as JSON");
        let request = ActionRequest {
            id: id.to_string(),
            action: self.task.name.clone(),
            kind: job.kind,
            tick: job.tick,
            finding: json(&job.row),
            previous: job.previous.as_ref().map(json),
        };
        let (task, kind, row) = (Arc::clone(&self.task), job.kind, Arc::clone(&job.row));
        self.flights.push(Box::pin(async move {
            let outcome = task.responder.send(&request).await;
            Landed { id, kind, row, outcome }
        }));
    }

    fn land(&mut self, landed: Landed) {
        let Landed { id, kind, row, outcome } = landed;
        let finding = self.findings.get_mut(&id).expect("kept while its request is on the way");
        finding.is_flying = false;
        finding.learn(kind, row, &outcome);
        let (attempts, since) = (finding.job().attempts, finding.job().since);
        let is_superseded = attempts == 0;
        let state = if kind == ActionKind::Undo { ActionState::Undone } else { ActionState::Done };
        match outcome {
            Ok(()) if is_superseded => {
                self.count(kind, state);
                self.ready.push_front(id);
            }
            Ok(()) => self.settle(&id, state, ""),
            // The other side is not well, so what took the place waits too; a withdrawal of what
            // was surely not done has nothing to wait for.
            Err(failure) if is_superseded => match self.refusal(&id) {
                Some((state, reason)) => self.settle(&id, state, reason),
                None => self.pause(id, retry_pause(1, Duration::ZERO, &failure).unwrap_or_default(), ""),
            },
            Err(failure) => match retry_pause(attempts, since.elapsed(), &failure) {
                Some(pause) => self.pause(id, pause, &failure.message),
                None => {
                    tracing::warn!(action = self.task.name, %id, attempts, reason = failure.message, "an action failed; it is in sys.actions");
                    self.settle(&id, ActionState::Failed, &failure.message);
                }
            },
        }
    }

    fn pause(&mut self, id: Id, pause: Duration, error: &str) {
        self.record(&id, ActionState::Pending, error);
        self.pauses.insert((Instant::now() + pause, id));
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while self.pauses.first().is_some_and(|(at, _)| *at <= now) {
            self.ready.extend(self.pauses.pop_first().map(|(_, id)| id));
        }
    }

    /// The finding's request has its outcome; the next one of its entity may go.
    fn settle(&mut self, id: &Id, state: ActionState, error: &str) {
        self.record(id, state, error);
        self.count(self.findings[id].job().kind, state);
        let finding = self.findings.get_mut(id).expect("it has no outcome yet");
        let job = finding.job.take().expect("it has no outcome yet");
        finding.is_counted = false;
        if state == ActionState::DryRun {
            finding.held = Some(job.row);
        }
        let lane = finding.lane.clone();
        if job.kind == ActionKind::Undo {
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
            Some(next) => self.ready.push_back(Arc::clone(next)),
            None => drop(self.lanes.remove(lane)),
        }
    }

    fn is_over_limit(&mut self) -> bool {
        let Some((count, per)) = self.task.options.limit else { return false };
        let per = per.div_f64(self.task.clock.speed().max(f64::MIN_POSITIVE));
        while self.sent.front().is_some_and(|sent| per < sent.elapsed()) {
            self.sent.pop_front();
        }
        let over = count <= self.sent.len();
        if !over {
            self.sent.push_back(Instant::now());
        }
        over
    }

    fn count(&self, kind: ActionKind, state: ActionState) {
        self.task.metrics.actions.with_label_values(&[&self.task.name, kind.as_str(), state.as_str()]).inc();
    }

    fn record(&self, id: &Id, state: ActionState, error: &str) {
        let job = self.findings[id].job();
        self.task.log.set(Entry {
            id: Arc::clone(id),
            action: self.task.name.clone(),
            finding: Arc::clone(&job.row),
            state,
            kind: job.kind,
            attempts: job.attempts,
            error: error.to_string(),
            tick: job.tick,
        });
    }
}

/// How long to wait before the next attempt, or `None` where there is none.
fn retry_pause(attempts: i64, since_first: Duration, failure: &ActionFailure) -> Option<Duration> {
    if !failure.retryable || RETRY_FOR <= since_first {
        return None;
    }
    let asked = failure.retry_after_ms.map(|ms| Duration::from_millis(ms).min(RETRY_FOR));
    Some(asked.unwrap_or_else(|| retry_delay(attempts)))
}

// Full jitter, so that many actions on one dead partner do not come back as one wave.
fn retry_delay(attempts: i64) -> Duration {
    let cap = RETRY_DELAY_MIN.saturating_mul(1 << attempts.min(16)).min(RETRY_DELAY_MAX);
    cap.mul_f64(rand::rng().random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_for_a_quarter_of_an_hour() {
        let failure = |retryable, retry_after_ms| ActionFailure { message: String::new(), retryable, retry_after_ms, may_be_done: true };
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for attempts in 1..100 {
            let pause = retry_pause(attempts, minutes(14), &failure(true, None)).unwrap();
            assert!(pause <= RETRY_DELAY_MAX && (3 < attempts || pause <= RETRY_DELAY_MIN * 8), "{attempts}: {pause:?}");
        }
        assert_eq!(retry_pause(1, minutes(15), &failure(true, None)), None);
        assert_eq!(retry_pause(1, minutes(0), &failure(false, None)), None);
        assert_eq!(retry_pause(9, minutes(0), &failure(true, Some(300_000))), Some(minutes(5)));
        assert_eq!(retry_pause(9, minutes(0), &failure(true, Some(86_400_000))), Some(RETRY_FOR));
    }
}
