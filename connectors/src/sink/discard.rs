//! `discard` sink: counts changes and keeps none; for benchmarks.
//!
//! Options   none
//! Delivery  the counts are logged when the view ends
//! Errors    none

use async_trait::async_trait;
use tidegate_types::connector::{Changes, Progress, Sink, SinkSpec, Writer};
use tidegate_types::error::Result;

use crate::options::OptionReader;

pub struct DiscardSink {
    name: String,
    ticks: u64,
    insertions: u64,
    deletions: u64,
}

impl DiscardSink {
    pub fn new(spec: &SinkSpec) -> Result<Self> {
        OptionReader::new("sink", &spec.name, &spec.options).finish()?;
        Ok(Self { name: spec.name.clone(), ticks: 0, insertions: 0, deletions: 0 })
    }
}

#[async_trait]
impl Sink for DiscardSink {
    async fn resume(&mut self, _writer: &Writer) -> Result<Progress> {
        Ok(Progress::Unknown)
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        self.ticks += changes.len() as u64;
        for diff in changes.iter().flat_map(|changes| changes.delta.diffs.iter()) {
            let count = if *diff < 0 { &mut self.deletions } else { &mut self.insertions };
            *count += diff.unsigned_abs();
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        tracing::info!(sink = self.name, ticks = self.ticks, insertions = self.insertions, deletions = self.deletions, "discarded");
        Ok(())
    }
}
