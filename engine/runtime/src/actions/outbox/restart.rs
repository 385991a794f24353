//! An outbox over a restart: what is left of it, and what the log says became of the rest.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_operators::arrange::Bytes;
use tidegate_types::Tick;
use tidegate_types::connector::ActionKind;

use super::finding::{Asked, Finding, Parked};
use super::{Id, JOB_BYTES, Outbox};
use crate::actions::journal::ActionEvent;
use crate::actions::log::{ActionState, Entry};
use crate::actions::text::Text;

const STOPPED_UNKNOWN: &str = "its detection is stopped, and the log holds no outcome";

const STOPPED_MIDWAY: &str = "the engine stopped while it was sent: RESOLVE ACTION says what became of it";

/// What a restart needs of an outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutboxState {
    findings: Vec<(Id, Finding)>,
    lanes: Vec<(Bytes, VecDeque<Id>)>,
    sent_ms: VecDeque<u64>,
    #[serde(default)]
    is_disarmed: bool,
}

impl Outbox {
    pub fn state(&self) -> OutboxState {
        OutboxState {
            findings: self.findings.iter().map(|(id, finding)| (id.clone(), finding.as_left())).collect(),
            lanes: self.lanes.iter().map(|(lane, waiting)| (lane.clone(), waiting.clone())).collect(),
            sent_ms: self.sent_ms.clone(),
            is_disarmed: self.is_disarmed,
        }
    }

    /// Takes up what an earlier engine left.
    pub fn restore(&mut self, state: OutboxState) {
        self.lanes = state.lanes.into_iter().collect();
        (self.sent_ms, self.is_disarmed) = (state.sent_ms, state.is_disarmed);
        self.findings = state.findings.into_iter().collect();
        for job in self.findings.values_mut().filter_map(|finding| finding.job.as_mut()) {
            job._claim = Some(Arc::new(self.backlog.claim(JOB_BYTES + job.row.len())));
        }
    }

    /// What the log says of a finding's request, or a person, and in which tick.
    pub fn repeat(&mut self, id: &str, event: &ActionEvent, said: Tick) {
        let id = Id::from(id);
        let Some(finding) = self.findings.get_mut(&id) else { return self.show_as_said(&id, event, said) };
        match event {
            ActionEvent::Intent { request, kind, row, previous, tick, at_ms } => {
                (finding.requests, finding.is_flying, finding.is_counted) = (*request, true, true);
                let asked = Asked { kind: *kind, row: Text::from(&row[..]), previous: previous.as_deref().map(Text::from) };
                finding.intended = Some(asked.clone());
                // What was said about an older row says nothing of what took its place.
                if let Some(job) = finding.job.as_mut().filter(|job| job.tick <= *tick) {
                    (job.request, job.attempts, job.kind, job.row, job.previous) = (*request, 1, *kind, asked.row, asked.previous);
                }
                if self.task.options.limit.is_some() && *kind != ActionKind::Undo {
                    self.sent_ms.push_back(*at_ms);
                }
            }
            ActionEvent::Outcome { request, kind, row, state, error, may_be_done, at_ms } => {
                self.learn_again(&id, *request, *kind, Text::from(&row[..]), *state, *may_be_done, error, *at_ms);
            }
            ActionEvent::Decision(decision) => self.decide(&id, *decision, said),
        }
    }

    /// A finding that is not computed again, since its detection is stopped, is shown as the log has it.
    fn show_as_said(&self, id: &Id, event: &ActionEvent, said: Tick) {
        let known = self.task.log.find(id);
        let tick = known.as_ref().map_or(0, |entry| entry.tick);
        match event {
            ActionEvent::Intent { kind, row, tick, .. } => {
                self.show(id, *kind, &Text::from(&row[..]), ActionState::InDoubt, 1, STOPPED_UNKNOWN, *tick, None);
            }
            ActionEvent::Outcome { request, kind, row, state, error, at_ms, .. } => {
                self.show(id, *kind, &Text::from(&row[..]), *state, i64::from(*request != 0), error, tick, Some(*at_ms));
            }
            ActionEvent::Decision(decision) => {
                let Some(Entry { kind, finding, attempts, .. }) = known else { return };
                let (state, error) = ActionState::after(*decision, kind);
                self.show(id, kind, &finding, state, attempts, error, tick, Some(said));
            }
        }
    }

    fn learn_again(
        &mut self,
        id: &Id,
        request: u32,
        kind: ActionKind,
        row: Text,
        state: ActionState,
        may_be_done: bool,
        error: &str,
        at_ms: u64,
    ) {
        let finding = self.findings.get_mut(id).expect("looked up");
        finding.is_flying &= request == 0;
        let intended = if request == 0 { None } else { finding.intended.take() };
        match state {
            ActionState::Done => finding.held = Some(row.clone()),
            ActionState::Undone => finding.held = None,
            ActionState::InDoubt if request != 0 => {
                let asked = intended.unwrap_or(Asked { kind, row: row.clone(), previous: None });
                finding.parked = Some(Parked { asked, is_doubt: true });
            }
            ActionState::Failed if may_be_done && kind != ActionKind::Undo => drop(finding.held.get_or_insert(row.clone())),
            _ => {}
        }
        // An outcome of what a newer row has taken the place of says nothing of that.
        let is_its =
            finding.job.as_ref().is_some_and(|job| job.request == request && (request != 0 || job.row == row || kind == ActionKind::Undo));
        if is_its {
            self.close(id, state, error, at_ms);
        }
    }

    /// From now on requests are sent, first those that the log knows no outcome of.
    pub fn wake(&mut self) {
        self.is_asleep = false;
        let left: Vec<Id> = self.lanes.values().flatten().cloned().collect();
        left.iter().for_each(|id| self.doubt(id));
        self.ready = self.lanes.values().filter_map(|lane| lane.front().cloned()).collect();
        self.launch();
    }

    /// A request that was said to go out, and has no outcome: it may have been done.
    fn doubt(&mut self, id: &Id) {
        let finding = self.findings.get_mut(id).expect("in a lane");
        if !std::mem::take(&mut finding.is_flying) {
            return;
        }
        let Some(asked) = finding.intended.take() else { return };
        let (kind, row) = (asked.kind, asked.row.clone());
        if self.task.options.at_most_once {
            finding.parked = Some(Parked { asked, is_doubt: true });
            if finding.job().request == 0 {
                let request = finding.requests;
                self.tell(id, request, kind, &row, ActionState::InDoubt, STOPPED_MIDWAY, true);
            }
            self.settle(id, ActionState::InDoubt, STOPPED_MIDWAY);
        } else if kind != ActionKind::Undo {
            finding.held = Some(row);
        }
    }
}
