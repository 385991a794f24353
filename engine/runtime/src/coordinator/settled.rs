//! Who waits until all is settled: bounded sources are spent, what they brought is visible, and sinks and
//! actions are through with it.

use std::time::{Duration, Instant};

use tidegate_types::error::{Error, Result};
use tokio::sync::oneshot;

use super::statements::shown_name;
use super::{Coordinator, SourceStatus};

/// Between two lines about what is waited for.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Those who wait.
pub struct Settling {
    replies: Vec<oneshot::Sender<Result<()>>>,
    /// When they were last told what for.
    told: Instant,
}

impl Default for Settling {
    fn default() -> Self {
        Self { replies: Vec::new(), told: Instant::now() }
    }
}

impl Settling {
    pub fn wait(&mut self, reply: oneshot::Sender<Result<()>>) {
        self.told = Instant::now();
        self.replies.push(reply);
    }

    fn end(&mut self, outcome: &Result<()>) {
        self.replies.drain(..).for_each(|reply| drop(reply.send(outcome.clone())));
    }
}

impl Coordinator {
    pub(super) fn answer_settled(&mut self) {
        if self.settling.replies.is_empty() {
            return;
        }
        match (self.has_failed(), self.unsettled()) {
            (Some(error), _) => self.settling.end(&Err(error)),
            (None, None) => self.settling.end(&Ok(())),
            (None, Some(what)) if PROGRESS_EVERY <= self.settling.told.elapsed() => {
                self.settling.told = Instant::now();
                tracing::warn!("not settled: {what}");
            }
            (None, Some(_)) => {}
        }
    }

    fn has_failed(&self) -> Option<Error> {
        let failed = self.sources.iter().find_map(|(name, state)| match &state.status {
            SourceStatus::Failed(reason) => Some(Error::user(format!("source \"{name}\" failed: {reason}"))),
            _ => None,
        });
        // What ends when all is settled must not end well without an answer.
        failed.or_else(|| self.stopped.keys().next().filter(|_| self.config.once).and_then(|name| self.check_runs(name).err()))
    }

    /// What there is to wait for.
    fn unsettled(&self) -> Option<String> {
        let is_read = |status: &SourceStatus| matches!(status, SourceStatus::Running | SourceStatus::Created);
        if let Some((name, _)) = self.sources.iter().find(|(_, state)| is_read(&state.status)) {
            return Some(format!("source \"{name}\" is being read"));
        }
        if let Some((name, follow)) = self.followers.iter().find(|(_, follow)| !follow.queue.is_idle()) {
            let place = if follow.kind == "action" { "; sys.actions says with what" } else { "" };
            return Some(format!("{} \"{}\" is not through{place}", follow.kind, shown_name(name)));
        }
        (self.open.is_some() || self.closing.is_some() || self.last_closed == 0).then(|| "a tick is on its way".into())
    }
}
