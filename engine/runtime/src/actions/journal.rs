//! What the log knows of an action's requests: each is said before it goes out, and again when it
//! has an outcome. What was said and has no outcome when the log is read again may have been done.

use serde::{Deserialize, Serialize};
use tidegate_types::Tick;
use tidegate_types::connector::{ActionKind, Decision};
use tokio::sync::{mpsc, oneshot};

use super::log::ActionState;

/// One entry of the log about one finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    pub action: String,
    pub id: String,
    pub event: ActionEvent,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionEvent {
    /// The finding's request of this number is about to be sent.
    Intent { request: u32, kind: ActionKind, row: String, previous: Option<String>, tick: Tick, at_ms: u64 },
    /// A request has its outcome; of number 0: it was never sent.
    Outcome {
        request: u32,
        kind: ActionKind,
        row: String,
        state: ActionState,
        error: String,
        may_be_done: bool,
        #[serde(default)]
        at_ms: u64,
    },
    /// A person's word.
    Decision(Decision),
}

/// A note on its way to the log.
pub struct Note {
    pub record: ActionRecord,
    /// Told when it is durable.
    pub durable: Option<oneshot::Sender<()>>,
}

/// The way to the log, where there is one.
#[derive(Clone, Default)]
pub struct Journal(Option<mpsc::UnboundedSender<Note>>);

impl Journal {
    pub fn new(notes: Option<mpsc::UnboundedSender<Note>>) -> Self {
        Self(notes)
    }

    /// Whether what is left undone is taken up by the next start.
    pub fn outlives(&self) -> bool {
        self.0.is_some()
    }

    pub fn tell(&self, record: ActionRecord) {
        if let Some(notes) = &self.0 {
            let _ = notes.send(Note { record, durable: None });
        }
    }

    /// Returns when it is durable. False: it never will be.
    pub async fn told(&self, record: ActionRecord) -> bool {
        let Some(notes) = &self.0 else { return true };
        let (durable, waiting) = oneshot::channel();
        notes.send(Note { record, durable: Some(durable) }).is_ok() && waiting.await.is_ok()
    }
}
