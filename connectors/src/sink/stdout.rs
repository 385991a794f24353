//! `stdout` sink: a view's changes on standard output, as lines of JSON.
//!
//! Options   none
//! Lines     see [`super`]; a tick's lines stand together
//! Delivery  at least once: flushed when `write` returns; after a restart, what
//!           may not have been is written again
//! Errors    standard output is closed

use std::io::Write;

use async_trait::async_trait;
use tidegate_types::connector::{Changes, Progress, Sink, SinkSpec, Writer};
use tidegate_types::error::{Error, Result};

use crate::options::OptionReader;

pub struct StdoutSink {
    name: String,
}

impl StdoutSink {
    pub fn new(spec: &SinkSpec) -> Result<Self> {
        OptionReader::new("sink", &spec.name, &spec.options).finish()?;
        Ok(Self { name: spec.name.clone() })
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn resume(&mut self, _writer: &Writer) -> Result<Progress> {
        Ok(Progress::Unknown)
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        let lines = super::lines(changes, &self.name)?;
        // A reader that pauses blocks the write; not a thread of the runtime.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush())
        });
        let written = written.await.map_err(|error| Error::engine(format!("the writer of sink \"{}\" died: {error}", self.name)))?;
        written.map_err(|error| Error::engine(format!("sink \"{}\" cannot write to standard output: {error}", self.name)))
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
