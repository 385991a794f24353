//! The scroll: a sink that keeps no account, and gets again what may not have arrived.
//!
//! Promise  a tick that comes again says the same; none is left out

use std::collections::BTreeMap;

use async_trait::async_trait;
use rand::Rng;
use tidegate_types::Tick;
use tidegate_types::connector::{Changes, Progress, Sink, Writer};
use tidegate_types::error::Result;

use super::{Line, State, add, changes_as_text};

#[derive(Debug, Clone, Default)]
pub struct Scroll {
    ticks: BTreeMap<Tick, Vec<(String, i64)>>,
}

impl Scroll {
    /// What is there once each tick is counted once.
    pub fn rows(&self) -> BTreeMap<String, i64> {
        let mut rows = BTreeMap::new();
        for changes in self.ticks.values() {
            add(&mut rows, changes);
        }
        rows
    }
}

pub fn sink(line: Line, name: &str) -> Box<dyn Sink> {
    Box::new(Scribe { line, name: name.to_string() })
}

struct Scribe {
    line: Line,
    name: String,
}

#[async_trait]
impl Sink for Scribe {
    async fn resume(&mut self, _: &Writer) -> Result<Progress> {
        Ok(Progress::Unknown)
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        let Self { line, name } = &*self;
        line.dawdle().await;
        line.act(|state| write(state, line, name, changes)).await;
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

fn write(state: &mut State, line: &Line, name: &str, changes: &[Changes]) {
    let is_last = state.chance(25);
    let count = if is_last { state.random.random_range(0..=changes.len()) } else { changes.len() };
    changes[..count].iter().for_each(|changes| enter(state, name, changes));
    if is_last {
        let crash = state.crash();
        line.disk.crash(crash);
    }
}

fn enter(state: &mut State, name: &str, changes: &Changes) {
    let (tick, texts) = (changes.tick, changes_as_text(changes));
    let scroll = state.scrolls.entry(name.to_string()).or_default();
    let before = scroll.ticks.insert(tick, texts.clone());
    if let Some(before) = before.filter(|before| *before != texts) {
        state.breaks(format!("I5: {name} gets tick {tick} again, as {texts:?}; it was {before:?}"));
    }
}
