//! The rows of `sys.actions`: where the request of each finding stands.

use std::collections::{HashMap, VecDeque};
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
}

/// One row per finding, oldest first; the oldest ones are forgotten.
#[derive(Clone, Default)]
pub struct ActionLog(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    list: VecDeque<Entry>,
    /// How many were forgotten: the place of the first in the list.
    first: usize,
    places: HashMap<Text, usize>,
}

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
        let entries = &self.0.lock().list;
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

    /// The rows of one action.
    pub fn of_action(&self, action: &str) -> Vec<Entry> {
        self.0.lock().list.iter().filter(|entry| entry.action == action).cloned().collect()
    }

    /// The row of the finding `id`.
    pub fn find(&self, id: &str) -> Option<Entry> {
        let entries = self.0.lock();
        entries.places.get(id).map(|place| entries.list[place - entries.first].clone())
    }

    /// Shows what a person decided at once, so that whoever looks next decides nothing twice. Errors: the state, if
    /// it is none to decide about.
    pub fn decide(&self, id: &str, decision: Decision) -> Result<(), ActionState> {
        let mut guard = self.0.lock();
        let entries = &mut *guard;
        let Some(place) = entries.places.get(id) else { return Ok(()) };
        let entry = &mut entries.list[place - entries.first];
        if entry.state != ActionState::decided_by(decision) {
            return Err(entry.state);
        }
        let (state, error) = ActionState::after(decision, entry.kind);
        (entry.state, entry.error) = (state, error.to_string());
        Ok(())
    }

    /// Writes the row of `entry.id`, in its place where there is one.
    pub fn set(&self, entry: Entry) {
        let mut guard = self.0.lock();
        let entries = &mut *guard;
        if let Some(place) = entries.places.get(&entry.id) {
            entries.list[place - entries.first] = entry;
            return;
        }
        entries.places.insert(entry.id.clone(), entries.first + entries.list.len());
        entries.list.push_back(entry);
        if ENTRIES_MAX < entries.list.len()
            && let Some(oldest) = entries.list.pop_front()
        {
            entries.places.remove(&oldest.id);
            entries.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_per_finding_and_the_oldest_are_forgotten() {
        let log = ActionLog::default();
        let set = |i: usize, state| {
            let (id, finding) = (i.to_string().into(), "{}".into());
            log.set(Entry { id, action: "a".into(), finding, state, kind: ActionKind::Do, attempts: 1, error: String::new(), tick: 1 });
        };
        (0..ENTRIES_MAX + 2).for_each(|i| set(i, ActionState::Pending));
        set(ENTRIES_MAX, ActionState::Done);
        let entries = log.0.lock();
        assert_eq!((entries.list.len(), entries.places.len(), &*entries.list[0].id), (ENTRIES_MAX, ENTRIES_MAX, "2"));
        assert_eq!(entries.list[ENTRIES_MAX - 2].state, ActionState::Done);
    }

    #[test]
    fn nothing_is_decided_twice() {
        let log = ActionLog::default();
        let (id, finding, error) = ("1".into(), "{}".into(), "nobody knows".into());
        log.set(Entry { id, action: "a".into(), finding, state: ActionState::InDoubt, kind: ActionKind::Do, attempts: 1, error, tick: 1 });
        assert_eq!(log.decide("1", Decision::Approve), Err(ActionState::InDoubt));
        assert_eq!(log.decide("1", Decision::Done), Ok(()));
        assert_eq!(log.decide("1", Decision::NotDone), Err(ActionState::Done));
        let shown = log.find("1").unwrap();
        assert_eq!((shown.state, &shown.error[..]), (ActionState::Done, "as a person says"));
    }
}
