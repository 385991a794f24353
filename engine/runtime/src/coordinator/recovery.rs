//! After a restart: the log once more, tick by tick, up to its last commit. Nothing outside is
//! touched meanwhile; sinks and actions go on when it is through.

use tidegate_plan::statement;
use tidegate_types::Tick;
use tidegate_types::error::{Error, Result};
use tokio::sync::mpsc;

use super::statements::follower_name;
use super::{Coordinator, OpenTick};
use crate::log::record::Record;
use crate::log::snapshot::Parts;
use crate::log::{Replay, Replayed};
use crate::worker::Report;

/// Between two lines about how far it is.
const PROGRESS_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// What a restart has to go by.
pub struct Recovery {
    /// And how many frames are before it.
    pub snapshot: Option<(Parts, u64)>,
    pub replay: Replay,
}

impl Coordinator {
    /// Brings everything to where the log ends. Errors: a log that does not fit this engine.
    pub(super) async fn recover(&mut self, from: Recovery, reports: &mut mpsc::UnboundedReceiver<Report>) -> Result<()> {
        let Recovery { snapshot, mut replay } = from;
        if let Some((parts, upto)) = snapshot {
            self.restore(parts, upto, reports).await?;
        }
        let mut told = std::time::Instant::now();
        while let Some(Replayed { tick, number, record }) = replay.next()? {
            self.replayed = number;
            self.open_at(tick);
            self.repeat(record)?;
            self.wait_closed(reports).await?;
            if PROGRESS_EVERY <= told.elapsed() {
                told = std::time::Instant::now();
                self.health.lock().reason = format!("recovering: at tick {tick}");
                tracing::warn!(tick, "recovering");
            }
        }
        self.replaying = false;
        self.followers.values_mut().for_each(|follow| follow.queue.start(&self.writer, follow.created, self.last_closed));
        self.publish();
        Ok(())
    }

    pub(super) async fn wait_closed(&mut self, reports: &mut mpsc::UnboundedReceiver<Report>) -> Result<()> {
        while self.closing.is_some() {
            let report = reports.recv().await.ok_or_else(|| Error::engine("the workers have stopped"))?;
            self.reported(report);
        }
        Ok(())
    }

    fn repeat(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Begin { lost_after, epoch, .. } => {
                if let Some(tick) = lost_after {
                    tracing::warn!(epoch, tick, "what came after this tick was given up when an engine was started with --accept-loss");
                }
            }
            Record::Statement { file, text, is_pack } => self.repeat_statement(&file, &text, is_pack)?,
            Record::Ran(ran) => drop(self.ran.insert(ran)),
            Record::Arrived(arrived) => {
                if self.sources.get(&arrived.source).is_some_and(|state| state.generation == arrived.generation) {
                    self.take_in(*arrived);
                }
            }
            Record::Write { table, delete, insert } => self.write(&super::Write { table, delete, insert, read: None })?,
            Record::Action(record) => {
                if let Some(follow) = self.followers.get_mut(&follower_name(&record.action)) {
                    follow.queue.repeat(&record);
                }
            }
            Record::Snapshot(_) | Record::Rows { .. } | Record::ActionState(_) => {
                return Err(Error::engine("the log holds a part of a snapshot"));
            }
            Record::Commit { delivered } => {
                for (name, tick) in delivered {
                    if let Some(follow) = self.followers.get_mut(&name) {
                        follow.queue.delivered_before(tick);
                    }
                }
                self.close();
            }
        }
        Ok(())
    }

    pub(super) fn repeat_statement(&mut self, file: &str, text: &str, is_pack: bool) -> Result<()> {
        for placed in statement::parse(text, file)? {
            self.change(placed, is_pack).map_err(|error| {
                Error::engine(format!("a statement of the log can no longer be executed: {error}"))
                    .hint("start the version that wrote the data folder, or begin with another --data-dir")
            })?;
        }
        Ok(())
    }

    pub(super) fn open_at(&mut self, tick: Tick) {
        if self.open.is_none() {
            self.open = Some(OpenTick::new(tick));
            self.last_used = tick;
        }
    }
}
