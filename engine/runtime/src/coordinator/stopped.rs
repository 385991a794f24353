//! Views whose state grew over the limit: they are stopped, with all that reads them, and the others
//! live on.
//!
//! Noticed   by a worker at once when its share alone is over the limit, in the middle of a tick too, else
//!           by the sum of the shares when a tick closes
//! Freed     its dataflow goes, rows and all: reading it is an error that says why, not an old answer.
//!           Sinks and actions keep what they did up to the last tick that was visible
//! Undone    by a start with a larger limit, which computes it again from the log, sinks and actions
//!           included; or by dropping what follows it and CREATE OR REPLACE. A snapshot knows what was
//!           stopped and keeps no input for it, so that after one only the second way is left

use std::collections::BTreeSet;

use tidegate_plan::Node;
use tidegate_types::error::{Error, Result};

use super::Coordinator;
use super::statements::shown_name;
use crate::worker::{Command, Excess, passing_max};

impl Coordinator {
    /// A dataflow takes too much on all workers, or on one.
    pub(super) fn exceeds(&mut self, name: &str, excess: Excess) {
        if !self.born.contains_key(name) || self.stopped.contains_key(name) {
            return;
        }
        let reason = match excess {
            Excess::Kept(bytes) => {
                format!("its state of {} is over the limit of {}", mebibytes(bytes), mebibytes(self.config.state_bytes_max))
            }
            Excess::Passing(bytes) => {
                let limit = mebibytes(passing_max(self.config.state_bytes_max));
                format!("one tick of it takes {} to compute, over the limit of {limit}, --state-max or 1 GiB", mebibytes(bytes))
            }
        };
        tracing::error!(view = shown_name(name), "{reason}: it is stopped, with what reads it");
        match self.beside.contains_key(name) {
            true => self.stop_beside(name, reason),
            false => self.stop_reading(name, &reason),
        }
    }

    /// Stops a view, and all that reads it.
    pub(super) fn stop_reading(&mut self, name: &str, reason: &str) {
        for reader in self.dependents_in_order(name).into_iter().rev() {
            let reason = format!("it reads \"{name}\", which is stopped: {reason}");
            self.stop_dataflow(&reader, reason);
        }
        self.stop_dataflow(name, reason.to_string());
    }

    pub(super) fn stop_dataflow(&mut self, name: &str, reason: String) {
        // What already stopped has its own reason; a plain view has nothing to stop.
        if self.stopped.contains_key(name) || !self.born.contains_key(name) {
            return;
        }
        self.workers.broadcast(&Command::Drop { name: name.to_string() });
        if self.kept.contains_key(name) {
            self.metrics.view_state_bytes.with_label_values(&[name]).set(0);
        }
        self.stopped.insert(name.to_string(), reason);
        self.metrics.views_stopped.set(self.stopped.len() as i64);
    }

    /// In the log it was made over something that ran then.
    pub(super) fn begin_stopped(&mut self, name: &str, input: &str) -> Result<()> {
        let reason = format!("it reads \"{input}\", which is stopped");
        self.born.insert(name.to_string(), self.last_used);
        self.stopped.insert(name.to_string(), reason);
        self.metrics.views_stopped.set(self.stopped.len() as i64);
        Ok(())
    }

    /// It runs, or is gone.
    pub(super) fn is_stopped_no_more(&mut self, name: &str) {
        self.stopped.remove(name);
        self.metrics.views_stopped.set(self.stopped.len() as i64);
    }

    /// The first relation that `node` reads and that is stopped, but for those that are about to be made anew.
    pub(super) fn stopped_input(&self, node: &Node, anew: &BTreeSet<&str>) -> Option<String> {
        node.relations().into_iter().find(|relation| self.stopped.contains_key(relation) && !anew.contains(relation.as_str()))
    }

    /// Errors: it is stopped.
    pub(super) fn check_runs(&self, name: &str) -> Result<()> {
        match self.stopped.get(name) {
            None => Ok(()),
            Some(reason) => Err(Error::user(format!("\"{}\" is stopped: {reason}", shown_name(name))).hint(
                "drop what follows it, and CREATE OR REPLACE it with a bound: EXPLAIN says what grows. Until a snapshot is taken, a start with a larger --state-max brings it back",
            )),
        }
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
