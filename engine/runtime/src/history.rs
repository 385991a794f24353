//! What sources brought, for views that are created later: a view at tick t is its query over all
//! inputs up to t, also over those that came before the view.
//!
//! One Arrow IPC stream per source in a temporary folder, which goes with the engine.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use tempfile::TempDir;
use tidegate_types::error::{Error, Result};

pub struct History {
    folder: TempDir,
    writers: HashMap<String, StreamWriter<BufWriter<File>>>,
}

impl History {
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidegate-").tempdir();
        let folder = folder.map_err(|error| Error::engine(format!("no temporary folder for the inputs' history: {error}")))?;
        Ok(Self { folder, writers: HashMap::new() })
    }

    pub fn append(&mut self, source: &str, rows: &RecordBatch) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::engine(format!("the history of source \"{source}\" could not be written: {error}"))
                .hint("free space in the temporary folder, or set TMPDIR")
        };
        if !self.writers.contains_key(source) {
            let file = File::create(self.path(source)).map_err(|error| failed(&error))?;
            let writer = StreamWriter::try_new(BufWriter::new(file), &rows.schema()).map_err(|error| failed(&error))?;
            self.writers.insert(source.to_string(), writer);
        }
        let writer = self.writers.get_mut(source).expect("inserted above");
        writer.write(rows).map_err(|error| failed(&error))
    }

    /// Hands all rows of `source` so far to `visit`, oldest first.
    pub fn replay(&mut self, source: &str, mut visit: impl FnMut(RecordBatch)) -> Result<()> {
        let Some(writer) = self.writers.get_mut(source) else { return Ok(()) };
        let failed =
            |error: &dyn std::fmt::Display| Error::engine(format!("the history of source \"{source}\" could not be read: {error}"));
        writer.get_mut().flush().map_err(|error| failed(&error))?;
        let file = File::open(self.path(source)).map_err(|error| failed(&error))?;
        let reader = StreamReader::try_new(BufReader::new(file), None).map_err(|error| failed(&error))?;
        for batch in reader {
            visit(batch.map_err(|error| failed(&error))?);
        }
        Ok(())
    }

    pub fn forget(&mut self, source: &str) {
        if self.writers.remove(source).is_some() {
            let _ = std::fs::remove_file(self.path(source));
        }
    }

    // Names of relations may hold anything; file names may not.
    fn path(&self, source: &str) -> std::path::PathBuf {
        let hex: String = source.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.folder.path().join(format!("{hex}.arrows"))
    }
}
