//! After a restart: the log once more, tick by tick, up to its last commit. Nothing outside is
//! touched meanwhile; sinks and actions go on when it is through. Where a worker failed the last time,
//! what it failed on is looked for instead.

use tidegate_plan::statement;
use tidegate_types::Tick;
use tidegate_types::error::{Error, Result};
use tidegate_types::time::next_tick;
use tokio::sync::mpsc;

use super::statements::{follower_name, shown_name};
use super::ticks::OpenTick;
use super::{Coordinator, Definition};
use crate::log::past::Later;
use crate::log::quarantine::{Step, Suspect, pieces};
use crate::log::record::Record;
use crate::log::snapshot::Parts;
use crate::log::{Replay, Replayed};
use crate::seeded::Bug;
use crate::telling::Telling;
use crate::worker::Said;

/// What a restart has to go by.
pub struct Recovery {
    /// And how many frames are before it.
    pub snapshot: Option<(Parts, u64)>,
    pub replay: Replay,
    /// What a worker failed on the last time.
    pub suspect: Option<Suspect>,
    /// Where this is a past: what came after it.
    pub later: Option<Later>,
}

impl Coordinator {
    /// Brings everything to where the log ends. Errors: a log that does not fit this engine.
    pub(super) async fn recover(&mut self, from: Recovery, reports: &mut mpsc::UnboundedReceiver<Said>) -> Result<()> {
        let Recovery { snapshot, mut replay, suspect, later } = from;
        (self.suspect, self.later) = (suspect, later);
        if let Some((parts, upto)) = snapshot {
            self.restore(parts, upto, reports).await?;
        }
        let mut telling = Telling::begin();
        while let Some(Replayed { tick, number, record }) = replay.next()? {
            if let Some(suspect) = self.suspect.clone().filter(|suspect| suspect.step != Step::Innocent && suspect.from <= tick) {
                return self.examine(suspect, Replayed { tick, number, record }, replay, reports).await;
            }
            self.replayed = number;
            self.open_at(match self.config.seeded.has(Bug::WallClockOnReplay) {
                true => next_tick(self.last_used, self.config.clock.now_ms()),
                false => tick,
            });
            self.repeat(record)?;
            self.wait_closed(reports).await?;
            if telling.is_due() {
                self.tell_recovering(&format!("at tick {tick}"));
            }
        }
        if self.suspect.take().is_some()
            && let Some(log) = &self.log
        {
            log.acquit()?;
        }
        self.replaying = false;
        match self.is_past() {
            true => self.followers.values_mut().for_each(|follow| follow.queue.mute()),
            false => self.followers.values_mut().for_each(|follow| follow.queue.start(&self.writer, follow.created, self.last_closed)),
        }
        self.publish();
        Ok(())
    }

    pub(super) fn tell_recovering(&self, how_far: &str) {
        let reason = format!("recovering: {how_far}");
        tracing::warn!("{reason}");
        self.health.lock().reason = reason;
    }

    /// Gives the workers what is left of the log in pieces, and says in the folder which one is next: a
    /// worker that fails again fails on that one. Always ends in an error, for nothing here is as it was.
    async fn examine(
        &mut self,
        suspect: Suspect,
        first: Replayed,
        mut replay: Replay,
        reports: &mut mpsc::UnboundedReceiver<Said>,
    ) -> Result<()> {
        tracing::warn!(from = suspect.from, "looking for the input that a worker failed on: {}", suspect.reason);
        let mut next = Some(first);
        while let Some(Replayed { tick, number, record }) = next {
            let parts: Vec<(usize, usize)> = match (&record, suspect.step) {
                (Record::Statement { .. } | Record::Write { .. }, _) => vec![(0, 0)],
                (Record::Arrived(_), Step::Piece { frame, from, to }) if frame == number => {
                    [(0, from)].into_iter().filter(|(_, to)| 0 < *to).chain((from..to).map(|row| (row, row + 1))).collect()
                }
                (Record::Arrived(arrived), Step::Piece { .. }) => vec![(0, arrived.rows())],
                (Record::Arrived(arrived), _) => pieces(arrived.rows()).collect(),
                _ => Vec::new(),
            };
            self.replayed = number;
            let statement = match &record {
                Record::Statement { text, .. } => Some(text.clone()),
                _ => None,
            };
            for (from, to) in parts {
                let (step, statement) = (Step::Piece { frame: number, from, to }, statement.clone());
                self.log.as_ref().map_or(Ok(()), |log| log.suspect(&Suspect { step, statement, ..suspect.clone() }))?;
                self.open_at(tick.max(self.last_used + 1));
                match &record {
                    Record::Arrived(arrived) => self.repeat(Record::Arrived(Box::new(arrived.piece(from, to))))?,
                    record => self.repeat(record.clone())?,
                }
                self.close();
                self.wait_closed(reports).await?;
            }
            next = replay.next()?;
        }
        self.log.as_ref().map_or(Ok(()), |log| log.suspect(&Suspect { step: Step::Innocent, statement: None, ..suspect.clone() }))?;
        let error = Error::engine(format!("a worker failed, but not on any single row: {}", suspect.reason));
        Err(error.hint("start it again: all is replayed as it was"))
    }

    pub(super) async fn wait_closed(&mut self, reports: &mut mpsc::UnboundedReceiver<Said>) -> Result<()> {
        while self.closing.is_some() {
            let said = reports.recv().await.ok_or_else(|| Error::engine("the workers have stopped"))?;
            self.said(said)?;
        }
        Ok(())
    }

    fn repeat(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Begin { lost_after, epoch, .. } => {
                if let Some(tick) = lost_after {
                    tracing::warn!(epoch, tick, "what came after this tick was given up when an engine was started with --accept-loss");
                    self.give_up(tick);
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
                let tick = self.opened();
                if let Some(follow) = self.followers.get_mut(&follower_name(&record.action)) {
                    follow.queue.repeat(&record, tick);
                }
            }
            Record::Guilty(_) => {}
            Record::Snapshot(_) | Record::Rows { .. } | Record::Counted(_) | Record::ActionState(_) => {
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

    /// What the log held after the tick `after` is lost, but not what was made of it outside.
    fn give_up(&mut self, after: Tick) {
        let gap = after + 1..self.opened();
        for (name, follow) in &mut self.followers {
            if let Some(means) = follow.queue.gives_up(gap.clone()) {
                tracing::warn!("{} \"{}\": {means}", follow.kind, shown_name(name));
            }
        }
    }

    /// Makes what there was, in its order, and stops of it what was stopped.
    pub(super) fn redefine<'a>(
        &mut self,
        definitions: &[Definition],
        stopped: impl IntoIterator<Item = (&'a String, String)>,
    ) -> Result<()> {
        for Definition { file, text, is_pack, generation } in definitions {
            self.generation = generation - 1;
            self.repeat_statement(file, text, *is_pack)?;
        }
        stopped.into_iter().for_each(|(name, reason)| self.stop_dataflow(name, reason));
        Ok(())
    }

    fn repeat_statement(&mut self, file: &str, text: &str, is_pack: bool) -> Result<()> {
        let placed = statement::parse(text, file).map_err(|error| unrepeatable("a statement", &error))?;
        for placed in placed {
            let what = placed.statement.object().map_or_else(|| "a statement".into(), |(name, _)| format!("\"{name}\""));
            self.change(placed, is_pack).map_err(|error| unrepeatable(&what, &error))?;
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

/// As they were made, each after what it reads.
pub fn in_order(definitions: impl Iterator<Item = Definition>) -> Vec<Definition> {
    let mut definitions: Vec<Definition> = definitions.collect();
    definitions.sort_by_key(|definition| definition.generation);
    definitions
}

/// What an earlier build took, and this one does not.
fn unrepeatable(what: &str, error: &Error) -> Error {
    let place = error.place.as_ref().map_or_else(String::new, |place| format!(" ({}:{})", place.file, place.line));
    Error::engine(format!("{what}{place} can no longer be made as the data folder has it: {}", error.message))
        .hint("start the build that wrote the data folder and replace or drop it there, or begin with another --data-dir")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tidegate_types::{MachineRandom, ScratchDisk};

    use super::*;
    use crate::engine::Engine;
    use crate::interface::{Config, Durability};
    use crate::log::{Event, Log, Opened, Opening};
    use crate::rehearsal::tests::Nowhere;
    use crate::seeded::Seeded;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_folder_that_cannot_be_used_is_told_where_nobody_waited_for_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, "no folder").unwrap();
        let config = Config { durability: Durability::Folder { path, accept_loss: false }, ..Config::default() };
        let engine = Engine::start_at_once(config, Arc::new(Nowhere)).unwrap();
        for error in [engine.failed().await, engine.recovered().await.unwrap_err()] {
            assert!(error.message.starts_with("the data folder cannot be used"), "{error}");
        }
        assert!(!engine.health().ready);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_can_no_longer_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let opening = Opening {
            disk: Arc::new(ScratchDisk),
            folder: path.clone(),
            random: Arc::new(MachineRandom),
            now_ms: 1000,
            accept_loss: false,
            temporary: None,
            past: None,
            progress: Arc::default(),
            seeded: Seeded::default(),
        };
        let Opened { log, mut events, .. } = Log::open(opening).unwrap();
        let text = "CREATE MATERIALIZED VIEW v AS SELECT a FROM nothing".into();
        log.append(2000, Record::Statement { file: "10_all.sql".into(), text, is_pack: true });
        log.commit(2000, BTreeMap::new());
        while !matches!(events.recv().await.expect("the log goes on"), Event::Durable(2000)) {}
        drop(log);
        let config = Config { durability: Durability::Folder { path, accept_loss: false }, ..Config::default() };
        let engine = Engine::start(config, Arc::new(Nowhere)).unwrap();
        let refusal = engine.recovered().await.unwrap_err().to_string();
        assert!(refusal.starts_with("\"v\" (10_all.sql:1) can no longer be made as the data folder has it: "), "{refusal}");
        assert!(refusal.contains("\"nothing\"") && refusal.contains("replace or drop it there"), "{refusal}");
    }
}
