//! The ledger: a sink that keeps account. A tick's changes and how far it is move in one step.
//!
//! Promise  ticks come once, in order; each epoch is newer than those before; changes fit the rows

use std::collections::BTreeMap;

use async_trait::async_trait;
use rand::Rng;
use tidegate_types::Tick;
use tidegate_types::connector::{Changes, Progress, Sink, Writer};
use tidegate_types::error::{Error, Result};

use super::{Line, State, add, changes_as_text, is_again};

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    writer: Option<Writer>,
    upto: Tick,
    /// How often each row is there.
    pub rows: BTreeMap<String, i64>,
    /// What each tick changed.
    pub ticks: BTreeMap<Tick, Vec<(String, i64)>>,
}

pub fn sink(line: Line, name: &str) -> Box<dyn Sink> {
    Box::new(Bookkeeper { line, name: name.to_string(), epoch: 0 })
}

struct Bookkeeper {
    line: Line,
    name: String,
    epoch: u64,
}

#[async_trait]
impl Sink for Bookkeeper {
    async fn resume(&mut self, writer: &Writer) -> Result<Progress> {
        self.epoch = writer.epoch;
        let name = &self.name;
        Ok(self.line.act(|state| resume(state, name, writer)).await)
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        let Self { line, name, epoch } = &*self;
        line.dawdle().await;
        line.act(|state| write(state, line, name, *epoch, changes)).await
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

fn resume(state: &mut State, name: &str, writer: &Writer) -> Progress {
    let ledger = state.ledgers.entry(name.to_string()).or_default();
    let before = ledger.writer.replace(writer.clone());
    let upto = ledger.upto;
    if let Some(before) = before.filter(|before| before.log != writer.log || writer.epoch <= before.epoch) {
        state.breaks(format!("I6: {name} was written by {before:?}, and then by {writer:?}"));
    }
    Progress::Upto(upto)
}

fn write(state: &mut State, line: &Line, name: &str, epoch: u64, changes: &[Changes]) -> Result<()> {
    let is_last = state.chance(25);
    let count = if is_last { state.random.random_range(0..=changes.len()) } else { changes.len() };
    for changes in &changes[..count] {
        enter(state, name, epoch, changes)?;
    }
    if is_last {
        let crash = state.crash();
        line.disk.crash(crash);
    }
    Ok(())
}

fn enter(state: &mut State, name: &str, epoch: u64, changes: &Changes) -> Result<()> {
    let ledger = state.ledgers.get_mut(name).expect("it was resumed");
    if ledger.writer.as_ref().is_some_and(|writer| epoch < writer.epoch) {
        return Err(Error::engine(format!("epoch {epoch} is over")));
    }
    let (texts, last) = (changes_as_text(changes), ledger.upto);
    let negative = add(&mut ledger.rows, &texts);
    ledger.upto = changes.tick;
    ledger.ticks.insert(changes.tick, texts);
    if is_again(changes.tick, last) {
        state.breaks(format!("I6: {name} gets tick {} after tick {last}", changes.tick));
    }
    if let Some(row) = negative {
        state.breaks(format!("I6: {name} is to take {row} away, which is not there, at tick {}", changes.tick));
    }
    Ok(())
}
