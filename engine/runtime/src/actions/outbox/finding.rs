//! One finding: what is asked for it, and what the other side may hold of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_operators::arrange::Bytes;
use tidegate_types::Tick;
use tidegate_types::connector::{ActionFailure, ActionKind};
use tokio::time::Instant;

use crate::actions::text::Text;
use crate::backlog::Claim;

/// One finding, from its first row until it is withdrawn and settled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Finding {
    /// Whose requests keep their order.
    pub(super) lane: Bytes,
    /// What the other side may hold: the last row whose request was done or had no clear outcome.
    pub(super) held: Option<Text>,
    /// The newest request without an outcome.
    pub(super) job: Option<Job>,
    /// An attempt is on the way; of the job, or of one whose place the job took.
    pub(super) is_flying: bool,
    /// What is on the way, or would be, as the log says.
    pub(super) intended: Option<Asked>,
    /// Counted in the limit, and not done since.
    pub(super) is_counted: bool,
    /// Requests so far.
    pub(super) requests: u32,
    /// What waits for a person, to approve it or to say what became of it.
    pub(super) parked: Option<Parked>,
    /// What is true now: the newest row; None once it is withdrawn.
    pub(super) row: Option<Text>,
}

/// What one request asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) kind: ActionKind,
    pub(super) row: Text,
    pub(super) previous: Option<Text>,
}

impl Asked {
    /// What the other side holds if it was not done.
    pub(super) fn before(&self) -> Option<Text> {
        match self.kind {
            ActionKind::Do => None,
            ActionKind::Update => self.previous.clone(),
            ActionKind::Undo => Some(self.row.clone()),
        }
    }

    /// What it holds if it was.
    pub(super) fn after(&self) -> Option<Text> {
        (self.kind != ActionKind::Undo).then(|| self.row.clone())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Parked {
    pub(super) asked: Asked,
    pub(super) is_doubt: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Of its request; 0 until that is said to the log.
    pub(super) request: u32,
    pub(super) is_approved: bool,
    pub(super) kind: ActionKind,
    pub(super) row: Text,
    pub(super) previous: Option<Text>,
    pub(super) tick: Tick,
    /// 0 until the first one: what is asked may still depend on an older request's outcome.
    pub(super) attempts: i64,
    #[serde(skip, default = "Instant::now")]
    pub(super) since: Instant,
    #[serde(skip)]
    pub(super) _claim: Option<Arc<Claim>>,
}

impl Finding {
    pub(super) fn job(&self) -> &Job {
        self.job.as_ref().expect("it has no outcome yet")
    }

    /// What brings the other side from what it may hold to what is true now.
    pub(super) fn kind(&self, is_gone: bool) -> ActionKind {
        match (is_gone, &self.held) {
            (true, _) => ActionKind::Undo,
            (false, None) => ActionKind::Do,
            (false, Some(_)) => ActionKind::Update,
        }
    }

    /// Fixes what is asked, now that no older request of the finding is on the way.
    pub(super) fn aim(&mut self) {
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

    /// As a restart finds it: what was sent before and has no outcome may have been done.
    pub(super) fn as_left(&self) -> Self {
        let mut left = self.clone();
        if let Some(job) = self.job.as_ref().filter(|job| job.request != 0) {
            left.is_flying = true;
            left.intended = Some(Asked { kind: job.kind, row: job.row.clone(), previous: job.previous.clone() });
        }
        left
    }

    pub(super) fn learn(&mut self, kind: ActionKind, row: Text, outcome: &Result<(), ActionFailure>) {
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
