//! Actions follow their detection's settled rows: a row that comes is done, a row that goes is
//! undone, and a row that changes (same entity, same tick) is updated. Each row has one state,
//! readable in `sys.actions`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parking_lot::Mutex;
use rand::Rng;
use serde_json::Value;
use tidegate_operators::arrange::Bytes;
use tidegate_types::connector::{ActionKind, ActionRequest, Changes, Options, Responder};
use tidegate_types::error::{Error, Result};
use tidegate_types::row::{RowCodec, hash_row};
use tidegate_types::{Clock, Tick};

use crate::metrics::Metrics;

/// What the engine itself reads of an action's options; the rest is its connector's.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionOptions {
    pub armed: bool,
    pub manual: bool,
    /// At most so many requests in so long.
    pub limit: Option<(usize, Duration)>,
}

impl ActionOptions {
    /// Takes `mode`, `approval` and `limit` out of `options`.
    pub fn take(options: &mut Options) -> Result<Self> {
        let mut choice = |name: &str, first: &str, second: &str| match options.remove(name).as_deref() {
            None => Ok(false),
            Some(value) if value == first => Ok(false),
            Some(value) if value == second => Ok(true),
            Some(other) => Err(Error::user(format!("option \"{name}\" is '{other}'")).hint(format!("it is '{first}' or '{second}'"))),
        };
        let armed = !choice("mode", "armed", "dry_run")?;
        let manual = choice("approval", "auto", "manual")?;
        let limit = options.remove("limit").map(|limit| parse_limit(&limit)).transpose()?;
        Ok(Self { armed, manual, limit })
    }
}

fn parse_limit(text: &str) -> Result<(usize, Duration)> {
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let seconds = match unit.trim() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86_400,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| 0 < *count)?;
        Some((count, Duration::from_secs(seconds)))
    });
    parsed.ok_or_else(|| {
        Error::user(format!("option \"limit\" is '{text}'")).hint("write a number per second, minute, hour or day: '10/minute'")
    })
}

/// Where the request of one finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionState {
    Pending,
    /// Waits for a person.
    AwaitingApproval,
    Done,
    Undone,
    /// The other side refused, or could not be reached in all attempts.
    Failed,
    /// Withdrawn before it was sent, or has no undo.
    Skipped,
    DryRun,
    Limited,
}

impl ActionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::DryRun => "dry_run",
            Self::Limited => "limited",
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    id: String,
    action: String,
    finding: String,
    state: ActionState,
    kind: ActionKind,
    attempts: i64,
    error: String,
    tick: Tick,
}

/// The rows of `sys.actions`, oldest first; the oldest settled ones are forgotten.
#[derive(Clone, Default)]
pub struct ActionLog(Arc<Mutex<VecDeque<Entry>>>);

const ENTRIES_MAX: usize = 100_000;

impl ActionLog {
    pub fn schema() -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let number = |name: &str| Field::new(name, DataType::Int64, false);
        Arc::new(Schema::new(vec![
            text("id"),
            text("action"),
            text("finding"),
            text("state"),
            text("kind"),
            number("attempts"),
            text("error"),
            number("tick"),
        ]))
    }

    pub fn rows(&self) -> RecordBatch {
        let entries = self.0.lock();
        let text = |of: fn(&Entry) -> &str| Arc::new(StringArray::from_iter_values(entries.iter().map(of))) as _;
        let number = |of: fn(&Entry) -> i64| Arc::new(Int64Array::from_iter_values(entries.iter().map(of))) as _;
        let columns = vec![
            text(|entry| &entry.id),
            text(|entry| &entry.action),
            text(|entry| &entry.finding),
            text(|entry| entry.state.as_str()),
            text(|entry| entry.kind.as_str()),
            number(|entry| entry.attempts),
            text(|entry| &entry.error),
            number(|entry| entry.tick as i64),
        ];
        RecordBatch::try_new(Self::schema(), columns).expect("the schema above")
    }

    fn set(&self, entry: Entry) {
        let mut entries = self.0.lock();
        match entries.iter_mut().rev().find(|known| known.id == entry.id && known.action == entry.action) {
            Some(known) => *known = entry,
            None => entries.push_back(entry),
        }
        if ENTRIES_MAX < entries.len() {
            entries.pop_front();
        }
    }
}

/// Everything one action needs to follow its detection.
pub struct ActionTask {
    pub name: String,
    pub schema: SchemaRef,
    /// The detection's entity column: what makes a changed row the same finding.
    pub entity: Option<usize>,
    pub options: ActionOptions,
    pub responder: Box<dyn Responder>,
    pub log: ActionLog,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
}

/// Attempts before a request counts as failed, and the bounds of the pause between them.
const ATTEMPTS_MAX: i64 = 6;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// What to ask of the outside world for one tick's changes.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    kind: ActionKind,
    row: usize,
    replaces: Option<usize>,
}

/// One action's open findings by identity, and when it last sent.
pub struct Follower {
    task: ActionTask,
    codec: RowCodec,
    /// The id under which a row's finding was done.
    open: BTreeMap<Bytes, (String, ActionState)>,
    /// How often a finding's row is there: only the first copy raises it, only the last withdraws it.
    copies: HashMap<Bytes, i64>,
    sent: VecDeque<std::time::Instant>,
}

impl Follower {
    pub fn new(task: ActionTask) -> Self {
        let codec = RowCodec::new(task.schema.clone()).expect("the planner checked the types");
        Self { task, codec, open: BTreeMap::new(), copies: HashMap::new(), sent: VecDeque::new() }
    }

    /// Acts on one tick's changes; returns when all requests have an outcome.
    pub async fn follow(&mut self, changes: Changes) {
        let json = match rows_as_json(&changes.delta.rows) {
            Ok(json) => json,
            Err(error) => return tracing::error!(action = self.task.name, %error, "findings could not be written as JSON"),
        };
        let rows = self.codec.encode(&changes.delta.rows).expect("the detection's schema");
        let turns: Vec<i64> = rows.iter().zip(changes.delta.diffs.iter()).map(|(row, diff)| self.turn(row, *diff)).collect();
        for step in steps(&turns, &self.entities(&changes)) {
            let row = rows.row(step.row).to_vec();
            match step.kind {
                ActionKind::Do => self.raise(row, &json[step.row], changes.tick).await,
                ActionKind::Undo => self.withdraw(row, &json[step.row], changes.tick).await,
                ActionKind::Update => {
                    let old = step.replaces.expect("an update replaces a row");
                    self.update(rows.row(old).to_vec(), &json[old], row, &json[step.row], changes.tick).await;
                }
            }
        }
    }

    /// 1 where `diff` brings the row's first copy, -1 where it takes the last, else 0.
    fn turn(&mut self, row: &[u8], diff: i64) -> i64 {
        let copies = self.copies.entry(row.to_vec()).or_default();
        let before = *copies;
        *copies += diff;
        let after = *copies;
        if after == 0 {
            self.copies.remove(row);
        }
        i64::from(0 < after) - i64::from(0 < before)
    }

    fn entities(&self, changes: &Changes) -> Vec<Bytes> {
        let Some(column) = self.task.entity else {
            return (0..changes.delta.len()).map(|i| i.to_le_bytes().to_vec()).collect();
        };
        let field = Field::new("entity", self.task.schema.field(column).data_type().clone(), true);
        let codec = RowCodec::new(Arc::new(Schema::new(vec![field]))).expect("the planner checked the types");
        let rows = codec.encode_columns(&[changes.delta.rows.column(column).clone()], changes.delta.len()).expect("the column's type");
        rows.iter().map(<[u8]>::to_vec).collect()
    }

    async fn raise(&mut self, row: Bytes, finding: &Value, tick: Tick) {
        let id = format!("{:016x}{:016x}", hash_row(self.task.name.as_bytes()), hash_row(&[&row[..], &tick.to_le_bytes()].concat()));
        let state = self.perform(&id, ActionKind::Do, finding, None, tick).await;
        self.open.insert(row, (id, state));
    }

    async fn withdraw(&mut self, row: Bytes, finding: &Value, tick: Tick) {
        let Some((id, state)) = self.open.remove(&row) else { return };
        // What was never done has nothing to undo.
        if !matches!(state, ActionState::Done | ActionState::DryRun) {
            return self.record(&id, ActionKind::Undo, finding, tick, ActionState::Skipped, 0, "withdrawn before it was done");
        }
        if !self.task.responder.supports(ActionKind::Undo) {
            return self.record(&id, ActionKind::Undo, finding, tick, ActionState::Skipped, 0, "has no undo_url");
        }
        self.perform(&id, ActionKind::Undo, finding, None, tick).await;
    }

    async fn update(&mut self, old: Bytes, previous: &Value, row: Bytes, finding: &Value, tick: Tick) {
        let Some((id, state)) = self.open.remove(&old) else { return self.raise(row, finding, tick).await };
        let state = match state {
            ActionState::Done | ActionState::DryRun => self.perform(&id, ActionKind::Update, finding, Some(previous), tick).await,
            _ => self.perform(&id, ActionKind::Do, finding, None, tick).await,
        };
        self.open.insert(row, (id, state));
    }

    async fn perform(&mut self, id: &str, kind: ActionKind, finding: &Value, previous: Option<&Value>, tick: Tick) -> ActionState {
        let refused = match () {
            _ if !self.task.options.armed => Some((ActionState::DryRun, "")),
            _ if self.task.options.manual && kind != ActionKind::Undo => Some((ActionState::AwaitingApproval, "")),
            // A withdrawal is never held back by a cap: it takes pressure off.
            _ if kind != ActionKind::Undo && self.is_over_limit() => Some((ActionState::Limited, "over its limit")),
            _ => None,
        };
        if let Some((state, reason)) = refused {
            self.record(id, kind, finding, tick, state, 0, reason);
            return state;
        }
        let request = ActionRequest {
            id: id.to_string(),
            action: self.task.name.clone(),
            kind,
            tick,
            finding: finding.clone(),
            previous: previous.cloned(),
        };
        self.record(id, kind, finding, tick, ActionState::Pending, 0, "");
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failure = match self.task.responder.send(&request).await {
                Ok(()) => {
                    let state = if kind == ActionKind::Undo { ActionState::Undone } else { ActionState::Done };
                    self.record(id, kind, finding, tick, state, attempts, "");
                    return state;
                }
                Err(failure) => failure,
            };
            if !failure.retryable || ATTEMPTS_MAX <= attempts {
                self.record(id, kind, finding, tick, ActionState::Failed, attempts, &failure.message);
                tracing::warn!(action = self.task.name, id, attempts, reason = failure.message, "an action failed; it is in sys.actions");
                return ActionState::Failed;
            }
            self.record(id, kind, finding, tick, ActionState::Pending, attempts, &failure.message);
            let asked = failure.retry_after_ms.map(Duration::from_millis);
            tokio::time::sleep(asked.unwrap_or_else(|| retry_delay(attempts)).min(RETRY_DELAY_MAX)).await;
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
            self.sent.push_back(std::time::Instant::now());
        }
        over
    }

    fn record(&self, id: &str, kind: ActionKind, finding: &Value, tick: Tick, state: ActionState, attempts: i64, error: &str) {
        if state != ActionState::Pending {
            self.task.metrics.actions.with_label_values(&[&self.task.name, kind.as_str(), state.as_str()]).inc();
        }
        self.task.log.set(Entry {
            id: id.to_string(),
            action: self.task.name.clone(),
            finding: finding.to_string(),
            state,
            kind,
            attempts,
            error: error.to_string(),
            tick,
        });
    }
}

// Full jitter, so that many actions on one dead partner do not come back as one wave.
fn retry_delay(attempts: i64) -> Duration {
    let cap = RETRY_DELAY_MIN.saturating_mul(1 << attempts.min(16)).min(RETRY_DELAY_MAX);
    cap.mul_f64(rand::rng().random_range(0.0..=1.0))
}

/// Which rows to undo, update and do. A retraction and an insertion of one entity are one update.
fn steps(diffs: &[i64], entities: &[Bytes]) -> Vec<Step> {
    let mut gone: BTreeMap<&Bytes, VecDeque<usize>> = BTreeMap::new();
    for (i, _) in diffs.iter().enumerate().filter(|(_, diff)| **diff < 0) {
        gone.entry(&entities[i]).or_default().push_back(i);
    }
    let mut steps = Vec::new();
    for (i, _) in diffs.iter().enumerate().filter(|(_, diff)| 0 < **diff) {
        let replaces = gone.get_mut(&entities[i]).and_then(VecDeque::pop_front);
        let kind = if replaces.is_some() { ActionKind::Update } else { ActionKind::Do };
        steps.push(Step { kind, row: i, replaces });
    }
    let undone = gone.into_values().flatten().map(|row| Step { kind: ActionKind::Undo, row, replaces: None });
    let mut all: Vec<Step> = undone.collect();
    all.sort_by_key(|step| step.row);
    all.extend(steps);
    all
}

fn rows_as_json(rows: &RecordBatch) -> Result<Vec<Value>> {
    let failed = |error: &dyn std::fmt::Display| Error::engine(error.to_string());
    let mut writer =
        arrow::json::writer::WriterBuilder::new().with_explicit_nulls(true).build::<_, arrow::json::writer::JsonArray>(Vec::new());
    writer.write(rows).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))?;
    let bytes = writer.into_inner();
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&bytes).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_row_is_one_update() {
        let entities = [b"a".to_vec(), b"b".to_vec(), b"a".to_vec(), b"c".to_vec()];
        let steps = steps(&[-1, -1, 1, 1], &entities);
        let kinds: Vec<(ActionKind, usize, Option<usize>)> = steps.iter().map(|step| (step.kind, step.row, step.replaces)).collect();
        assert_eq!(kinds, [(ActionKind::Undo, 1, None), (ActionKind::Update, 2, Some(0)), (ActionKind::Do, 3, None)]);
    }

    #[test]
    fn options_are_checked() {
        let options = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Options>();
        let taken = ActionOptions::take(&mut options(&[("mode", "dry_run"), ("limit", "10/minute")])).unwrap();
        assert_eq!(taken, ActionOptions { armed: false, manual: false, limit: Some((10, Duration::from_secs(60))) });
        assert!(ActionOptions::take(&mut options(&[("limit", "many")])).is_err());
        assert!(ActionOptions::take(&mut options(&[("approval", "maybe")])).unwrap_err().to_string().contains("'auto' or 'manual'"));
    }
}
