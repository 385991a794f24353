//! `file` sink: a view's changes, appended to a file as lines of JSON.
//!
//! Options   path (relative to the pack's folder; its folder must exist),
//!           format ('json', which is also the default)
//! Lines     see [`super`]
//! Delivery  at least once: a tick is with the operating system when `write`
//!           returns and on the disk when `finish` does; a run that is started
//!           again appends again
//! Errors    name the path

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidegate_types::connector::{Changes, Sink, SinkSpec};
use tidegate_types::error::{Error, Result};

use crate::options::OptionReader;

pub struct FileSink {
    name: String,
    out: Arc<Appended>,
}

struct Appended {
    path: PathBuf,
    /// Opened by the first write, since constructors do no I/O.
    file: Mutex<Option<File>>,
}

impl FileSink {
    pub fn new(spec: &SinkSpec) -> Result<Self> {
        let mut options = OptionReader::new("sink", &spec.name, &spec.options);
        let path = spec.folder.join(options.required("path", "out.jsonl")?);
        options.one_of("format", &[("json", ())])?;
        options.finish()?;
        Ok(Self { name: spec.name.clone(), out: Arc::new(Appended { path, file: Mutex::new(None) }) })
    }

    async fn with_file(&self, act: impl FnOnce(&mut File) -> std::io::Result<()> + Send + 'static) -> Result<()> {
        let out = self.out.clone();
        let done = tokio::task::spawn_blocking(move || out.with_file(act)).await;
        done.map_err(|error| Error::engine(format!("the writer of sink \"{}\" died: {error}", self.name)))?.map_err(|error| {
            Error::engine(format!("sink \"{}\" cannot write {}: {error}", self.name, self.out.path.display())).hint(way_out(&error))
        })
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&mut self, changes: Changes) -> Result<()> {
        let lines = super::lines(&changes, &self.name)?;
        self.with_file(move |file| file.write_all(&lines)).await
    }

    /// A view that never changed leaves an empty file, not none.
    async fn finish(&mut self) -> Result<()> {
        self.with_file(|file| file.sync_all()).await
    }
}

impl Appended {
    fn with_file(&self, act: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
        let mut file = self.file.lock();
        if file.is_none() {
            *file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        file.as_mut().map_or(Ok(()), act)
    }
}

fn way_out(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "create the folder it is to stand in",
        std::io::ErrorKind::PermissionDenied => "give the user the engine runs as the right to write there",
        std::io::ErrorKind::StorageFull => "free space on that disk",
        _ => "check the path and the disk",
    }
}
