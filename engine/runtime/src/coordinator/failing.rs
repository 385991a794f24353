//! How an engine ends that cannot go on: whoever waits hears why, and the next start knows where to look for the input
//! that a worker failed on.

use std::collections::BTreeMap;

use tidegate_types::Tick;
use tidegate_types::error::{Error, Result};

use super::Coordinator;
use crate::log::Log;
use crate::log::quarantine::{Step, Suspect};
use crate::worker::Command;

impl Coordinator {
    /// Makes what is being computed last, so that the next start finds what a worker failed on.
    pub(super) fn worker_failed(&mut self, reason: String) -> Error {
        let error = Error::engine(format!("a worker failed: {reason}"));
        let Some(mut log) = self.log.take() else { return error };
        let from = self.closing.as_ref().map(|closing| closing.tick).or(self.open.as_ref().map(|open| open.tick));
        if let Some(open) = self.open.take().filter(|_| !self.replaying) {
            log.commit(open.tick, BTreeMap::new());
        }
        log.stop();
        let Some(from) = from.filter(|_| !self.is_restoring && !log.is_temporary()) else { return error };
        match self.accuse(&log, from, reason) {
            Ok(hint) => error.hint(hint),
            Err(unwritten) => unwritten,
        }
    }

    /// Says to the next start where to look. Returns what it will do.
    fn accuse(&self, log: &Log, from: Tick, reason: String) -> Result<&'static str> {
        match self.suspect.as_ref().map(|suspect| suspect.step) {
            // Nothing in the log made it. If something there is to blame all the same, the next start fails on it.
            None if self.beside.values().any(Option::is_none) => {
                Ok("start it again: the view that was being made may be to blame, and is not there")
            }
            None => {
                log.suspect(&Suspect { from, reason, step: Step::Whole, statement: None })?;
                Ok("start it again: the input it failed on is looked for")
            }
            Some(Step::Innocent) => Ok("no single row is to blame: start another version, or restore the data folder"),
            Some(_) => Ok("start it again: the input it failed on is being looked for"),
        }
    }

    /// Nothing works any more: whoever waits hears it by the end of their channel.
    pub(super) fn fail(&mut self, error: Error) {
        tracing::error!(%error, "the engine fails");
        let mut health = self.health.lock();
        (health.ready, health.reason) = (false, error.to_string());
        self.workers.broadcast(&Command::Stop);
        self.failure.send_replace(Some(error));
    }
}
