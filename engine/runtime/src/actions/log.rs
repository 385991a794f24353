//! The rows of `sys.actions`: where the request of each finding stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_types::Tick;
use tidegate_types::connector::{ActionKind, Decision};

use super::text::Text;

/// Where the request of one finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Sent at most once, and nobody knows whether it was done; waits for a person.
    InDoubt,
    /// A person refused it.
    Rejected,
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
            Self::InDoubt => "in_doubt",
            Self::Rejected => "rejected",
        }
    }

    /// Neither a person nor the other side is waited for.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::AwaitingApproval | Self::InDoubt)
    }

    /// What a person decides about.
    pub fn decided_by(decision: Decision) -> Self {
        match decision {
            Decision::Approve | Decision::Reject => Self::AwaitingApproval,
            Decision::Done | Decision::NotDone => Self::InDoubt,
        }
    }

    /// What comes of it, and why.
    pub fn after(decision: Decision, kind: ActionKind) -> (Self, &'static str) {
        match (decision, kind) {
            (Decision::Approve, _) => (Self::Pending, ""),
            (Decision::Reject, _) => (Self::Rejected, "a person refused it"),
            (Decision::Done, ActionKind::Undo) => (Self::Undone, "as a person says"),
            (Decision::Done, _) => (Self::Done, "as a person says"),
            (Decision::NotDone, _) => (Self::Failed, "not done, as a person says"),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Of the finding; the action's name is part of what it is made of.
    pub id: Text,
    pub action: String,
    pub finding: Text,
    pub state: ActionState,
    pub kind: ActionKind,
    pub attempts: i64,
    pub error: String,
    pub tick: Tick,
    /// Since when nobody is waited for, as the log has it: the same after a restart.
    #[serde(default)]
    pub settled_ms: Option<u64>,
}

impl Entry {
    /// Its place among those that may be forgotten.
    fn settling(&self) -> (Option<u64>, Text) {
        (self.settled_ms, self.id.clone())
    }
}

/// One row per finding, oldest first; of those that nobody waits for the ones that were settled first are forgotten.
#[derive(Clone, Default)]
pub struct ActionLog(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    /// By their places.
    rows: BTreeMap<u64, Entry>,
    places: HashMap<Text, u64>,
    next: u64,
    /// Those that nobody waits for: since when, and whose. In whatever order they come, the same ones stay.
    settled: BTreeSet<(Option<u64>, Text)>,
}

/// Rows that nobody waits for.
const SETTLED_MAX: usize = 100_000;

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
        let entries = &self.0.lock().rows;
        let text = |of: fn(&Entry) -> &str| Arc::new(StringArray::from_iter_values(entries.values().map(of))) as _;
        let number = |of: fn(&Entry) -> i64| Arc::new(Int64Array::from_iter_values(entries.values().map(of))) as _;
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

    /// The rows of one action.
    pub fn of_action(&self, action: &str) -> Vec<Entry> {
        self.0.lock().rows.values().filter(|entry| entry.action == action).cloned().collect()
    }

    /// The row of the finding `id`.
    pub fn find(&self, id: &str) -> Option<Entry> {
        let entries = self.0.lock();
        entries.places.get(id).map(|place| entries.rows[place].clone())
    }

    /// Shows what a person decided at once, so that whoever looks next decides nothing twice. `tick`: the log's, of
    /// the decision. Errors: the state, if it is none to decide about.
    pub fn decide(&self, id: &str, decision: Decision, tick: Tick) -> Result<(), ActionState> {
        let mut guard = self.0.lock();
        let entries = &mut *guard;
        let Some(place) = entries.places.get(id) else { return Ok(()) };
        let entry = entries.rows.get_mut(place).expect("each place has its row");
        if entry.state != ActionState::decided_by(decision) {
            return Err(entry.state);
        }
        let (state, error) = ActionState::after(decision, entry.kind);
        let settled_ms = state.is_settled().then_some(tick);
        let decided = Entry { state, error: error.to_string(), settled_ms, ..entry.clone() };
        entries.set(decided);
        Ok(())
    }

    /// Writes the row of `entry.id`, in its place where there is one.
    pub fn set(&self, entry: Entry) {
        self.0.lock().set(entry);
    }
}

impl Entries {
    fn set(&mut self, entry: Entry) {
        let place = *self.places.entry(entry.id.clone()).or_insert(self.next);
        self.next = self.next.max(place + 1);
        if let Some(before) = self.rows.get(&place) {
            self.settled.remove(&before.settling());
        }
        if entry.state.is_settled() {
            self.settled.insert(entry.settling());
        }
        self.rows.insert(place, entry);
        if SETTLED_MAX < self.settled.len()
            && let Some((_, first)) = self.settled.pop_first()
            && let Some(place) = self.places.remove(&first)
        {
            self.rows.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_per_finding_and_of_those_nobody_waits_for_the_first_settled_are_forgotten() {
        let log = ActionLog::default();
        let set = |i: usize, state: ActionState, at_ms: usize| log.set(entry(&i.to_string(), state, at_ms as u64));
        let waiting = [ActionState::Pending, ActionState::AwaitingApproval, ActionState::InDoubt];
        (0..3).for_each(|i| set(i, waiting[i], i));
        (3..SETTLED_MAX + 5).for_each(|i| set(i, ActionState::DryRun, i));
        set(SETTLED_MAX, ActionState::Done, SETTLED_MAX);
        assert_eq!(["0", "1", "2", "3", "4", "5"].map(|id| log.find(id).is_some()), [true, true, true, false, false, true]);
        assert_eq!(log.find(&SETTLED_MAX.to_string()).unwrap().state, ActionState::Done);
        assert_eq!(log.rows().num_rows(), SETTLED_MAX + 3);
        set(0, ActionState::Done, SETTLED_MAX + 5);
        assert_eq!(["0", "5"].map(|id| log.find(id).is_some()), [true, false], "it is old, and was settled last");
        set(3, ActionState::DryRun, 3);
        assert!(log.find("3").is_none(), "all others were settled later, and came before it");
        assert_eq!(log.rows().num_rows(), SETTLED_MAX + 2);
    }

    fn entry(id: &str, state: ActionState, at_ms: u64) -> Entry {
        let (settled_ms, error) = (state.is_settled().then_some(at_ms), "nobody knows".into());
        Entry {
            id: id.into(),
            action: "a".into(),
            finding: "{}".into(),
            state,
            kind: ActionKind::Do,
            attempts: 1,
            error,
            tick: 1,
            settled_ms,
        }
    }

    #[test]
    fn nothing_is_decided_twice() {
        let log = ActionLog::default();
        log.set(entry("1", ActionState::InDoubt, 1));
        assert_eq!(log.decide("1", Decision::Approve, 2), Err(ActionState::InDoubt));
        assert_eq!(log.decide("1", Decision::Done, 3), Ok(()));
        assert_eq!(log.decide("1", Decision::NotDone, 4), Err(ActionState::Done));
        let shown = log.find("1").unwrap();
        assert_eq!((shown.state, &shown.error[..], shown.settled_ms), (ActionState::Done, "as a person says", Some(3)));
    }
}
