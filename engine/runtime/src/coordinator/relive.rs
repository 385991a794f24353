//! What came after a past, once more, over what was changed in it: the same statements, rows and verdicts at the
//! same ticks, or at the next there is where a change took that one.
//!
//! Writes       change what they changed, also of rows that are others now (`tables/adapted.rs`); what they would have
//!              done to rows whose keys are gone is counted and said
//! Not again    what actions asked of the world, and what it answered: that was another course of things. What they
//!              would ask now is `pending` in `sys.actions`

use std::collections::BTreeMap;

use tidegate_plan::statement;
use tidegate_types::Tick;
use tidegate_types::error::{Error, Result};
use tokio::sync::oneshot;

use super::tables::Adapted;
use super::{Coordinator, Read, Write};
use crate::interface::Durability;
use crate::log::Replayed;
use crate::log::past::Remainder;
use crate::log::record::Record;
use crate::telling::Telling;

pub(super) struct Reliving {
    /// None while a tick of it is taken in.
    remainder: Option<Remainder>,
    /// By table.
    gone: BTreeMap<String, Gone>,
    telling: Telling,
    reply: oneshot::Sender<Result<Tick>>,
}

/// Rows that writes took, and that are not there.
struct Gone {
    rows: usize,
    /// The first one's.
    key: String,
    tick: Tick,
}

impl Reliving {
    fn end(self, last: Result<Tick>) {
        for (table, Gone { rows, key, tick }) in &self.gone {
            tracing::warn!(table, rows, key, tick, "what came later to rows whose keys are gone is left out; the first one's key and tick");
        }
        drop(self.reply.send(last));
    }
}

impl Coordinator {
    /// Nothing outside is touched but by sinks that are made here.
    pub(super) fn is_past(&self) -> bool {
        matches!(self.config.durability, Durability::Past { .. })
    }

    /// Begins with what came after the past, up to `upto` (None: all of it); answered with the last tick.
    pub(super) fn relive(&mut self, upto: Option<Tick>, reply: oneshot::Sender<Result<Tick>>) {
        let later = self.later.take().ok_or_else(|| Error::user("nothing came after this").hint("begin with an earlier tick"));
        match later.and_then(|later| later.replay(upto)) {
            Ok(remainder) => {
                self.reliving = Some(Reliving { remainder: Some(remainder), gone: BTreeMap::new(), telling: Telling::begin(), reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn is_reliving(&self) -> bool {
        self.reliving.is_some()
    }

    /// Whether the next tick of what came later can be taken in.
    pub(super) fn relives_next(&self) -> bool {
        self.is_reliving() && self.closing.is_none() && !self.is_pausing && !self.waits_for_followers()
    }

    pub(super) fn relive_tick(&mut self) {
        let remainder = self.reliving.as_mut().and_then(|reliving| reliving.remainder.take());
        let Some(mut remainder) = remainder else { return };
        let happened = self.happens_again(&mut remainder);
        match (happened, &mut self.reliving) {
            (Ok(true), Some(reliving)) => {
                reliving.remainder = Some(remainder);
                if reliving.telling.is_due() {
                    tracing::warn!("what came later comes once more: at tick {}", self.last_used);
                }
            }
            (ended, reliving) => {
                let last = ended.map(|_| self.last_closed);
                if let Some(reliving) = reliving.take() {
                    reliving.end(last);
                }
            }
        }
    }

    /// False: nothing more came.
    fn happens_again(&mut self, remainder: &mut Remainder) -> Result<bool> {
        while let Some(Replayed { tick, record, .. }) = remainder.next()? {
            self.open_at(tick.max(self.last_used + 1));
            if matches!(record, Record::Commit { .. }) {
                self.close();
                return Ok(true);
            }
            self.happen(tick, record).map_err(|error| {
                Error::user(format!("what came at tick {tick} does not fit what was changed: {}", error.message))
                    .hint("end before that tick, or change it otherwise")
            })?;
        }
        Ok(false)
    }

    fn happen(&mut self, tick: Tick, record: Record) -> Result<()> {
        match record {
            Record::Statement { file, text, is_pack } => {
                statement::parse(&text, &file)?.into_iter().try_for_each(|placed| self.change(placed, is_pack).map(drop))?;
                self.publish();
            }
            Record::Ran(ran) => {
                self.ran.insert(ran.clone());
                self.say(|| Record::Ran(ran));
            }
            Record::Arrived(mut arrived) => {
                // What arrived was always for the source of that name that there was.
                if let Some(source) = self.sources.get(&arrived.source) {
                    if source.spec.schema != arrived.on_time.schema() || (source.rule.is_none() && arrived.seen.is_some()) {
                        return Err(Error::user(format!("source \"{}\" has other columns, or no watermark", arrived.source)));
                    }
                    arrived.generation = source.generation;
                    self.say(|| Record::Arrived(arrived.clone()));
                    self.take_in(*arrived);
                }
            }
            Record::Write { table, delete, insert } => {
                let read = Read { tick: self.last_closed, relations: Default::default() };
                let write = self.adapted(tick, Write { table, delete, insert, read: Some(read) })?;
                self.write(&write)?;
                let Write { table, delete, insert, .. } = write;
                self.say(|| Record::Write { table, delete, insert });
            }
            Record::Begin { .. } | Record::Action(_) | Record::Guilty(_) | Record::Commit { .. } => {}
            Record::Snapshot(_) | Record::Rows { .. } | Record::Counted(_) | Record::ActionState(_) => {
                return Err(Error::engine("the log holds a part of a snapshot"));
            }
        }
        Ok(())
    }

    /// A write of the tick `tick`, over the rows there are.
    fn adapted(&mut self, tick: Tick, write: Write) -> Result<Write> {
        let Some(table) = self.tables.get(&write.table) else { return Ok(write) };
        if !table.fits(&write) {
            return Err(Error::user(format!("table \"{}\" has other columns", write.table)));
        }
        let Adapted { write, gone } = table.adapted(write).map_err(|error| Error::engine(error.to_string()))?;
        if let (Some(reliving), Some(key)) = (&mut self.reliving, gone.first()) {
            let first = || Gone { rows: 0, key: key.clone(), tick };
            reliving.gone.entry(write.table.clone()).or_insert_with(first).rows += gone.len();
        }
        Ok(write)
    }
}
