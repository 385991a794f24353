//! `file` source: the lines of a file, followed like `tail -F`.
//!
//! Options   path (required; relative to the pack's folder)
//!           format ('json', 'csv' or 'text'; by default what the name ends in:
//!             .json .jsonl .ndjson, .csv, .log .txt, before any .gz or .zst)
//!           compression ('auto' by default, by the first bytes; 'none',
//!             'gzip', 'zstd')
//!           follow ('true' by default: wait for more, and for the file where
//!             there is none; 'false', and always with --once: read to the end
//!             the file has when it is opened, then end)
//!           max_line_bytes (1 MiB by default)
//!           and those of the format
//! Rows      one per line; blank lines are skipped, so is a byte order mark.
//!           A last line without newline counts where the file ends or is
//!           rotated away
//! Delivery  exactly once over restarts: read on behind the last committed line,
//!           also where the file was rotated meanwhile, was compressed or ended
//!           there. How the file is found again, and what cannot be: `tail.rs`
//! Memory    at most four blocks of 1 MiB, read and decoded ahead side by side. A
//!           block has no more lines than make rows of 64 MiB, but for the texts in
//!           them, which the block bounds. What a block came to is charged by its
//!           bytes, or by what it takes in memory, where that is more
//! Errors    a bad line is a dead letter; a missing file with --once, a folder,
//!           a refused permission and a failing disk end the source

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_types::connector::{Budget, Offset, Polled, Source, SourceBatch, SourceSpec};
use tidegate_types::error::{Error, Result};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::format::{Columns, Format, LINE_BYTES_MAX, memory_bytes};
use crate::options::OptionReader;
use crate::tail::{Block, Compression, Found, Position, Tail};

/// Large enough that decoding outweighs handing over, small enough that a
/// tick need not wait for it: some 5 ms of JSON.
const BLOCK_BYTES: usize = 1 << 20;

/// What a block's rows may take in memory, texts aside. Lines with nothing in them
/// make rows as wide as any other.
const ROWS_BYTES_MAX: usize = 64 << 20;

/// Blocks in decoding at once. Decoding JSON is what bounds the whole engine,
/// so two cores work at it, and a third block is ready when one of them is.
const BLOCKS_AHEAD: usize = 3;

/// Between two looks at a file that has nothing new.
const REST: Duration = Duration::from_millis(20);

/// Between two looks for a file that is not there.
const REST_MISSING: Duration = Duration::from_millis(200);

/// The options, validated.
pub struct FileOptions {
    pub path: PathBuf,
    pub format: Format,
    /// None: by the first bytes.
    compression: Option<Compression>,
    pub follow: bool,
    pub line_bytes_max: usize,
}

impl FileOptions {
    pub fn new(spec: &SourceSpec) -> Result<Self> {
        let mut options = OptionReader::new("source", &spec.name, &spec.options);
        let path = options.required("path", "scans.jsonl")?;
        let kinds =
            [("auto", None), ("none", Some(Compression::None)), ("gzip", Some(Compression::Gzip)), ("zstd", Some(Compression::Zstd))];
        let compression = options.one_of("compression", &kinds)?.flatten();
        let follow = options.flag("follow")?.unwrap_or(true) && !spec.once;
        let line_bytes_max = options.bytes("max_line_bytes")?.unwrap_or(LINE_BYTES_MAX);
        let format = Format::from_options(spec, &mut options, line_bytes_max, guess(&path))?;
        options.finish()?;
        Ok(Self { path: spec.folder.join(path), format, compression, follow, line_bytes_max })
    }
}

/// The format a file's name tells.
fn guess(path: &str) -> Option<&'static str> {
    let bare = path.strip_suffix(".gz").or_else(|| path.strip_suffix(".zst")).unwrap_or(path);
    match Path::new(bare).extension()?.to_str()? {
        "json" | "jsonl" | "ndjson" => Some("json"),
        "csv" => Some("csv"),
        "log" | "txt" => Some("text"),
        _ => None,
    }
}

pub struct FileSource {
    name: String,
    path: PathBuf,
    schema: SchemaRef,
    /// Of one block.
    lines_max: usize,
    /// Here, or with the read under way.
    tail: Option<Tail>,
    reading: Option<JoinHandle<(Tail, Result<Found>)>>,
    /// In the order of the file.
    decoding: VecDeque<JoinHandle<(SourceBatch, Vec<u8>)>>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    /// Nothing to read before then.
    rest_until: Option<Instant>,
    warned_missing: bool,
    spent: bool,
    /// Told once what was read before it is delivered.
    failure: Option<Error>,
}

impl FileSource {
    pub fn new(spec: &SourceSpec) -> Result<Self> {
        let options = FileOptions::new(spec)?;
        let resume = spec.resume.as_ref().map_or(Ok(None), |resume| Position::of(&resume.offset, &spec.name))?;
        let tail = Tail::new(options.path.clone(), options.format, options.compression, options.line_bytes_max, !options.follow, resume);
        Ok(Self {
            name: spec.name.clone(),
            path: options.path,
            schema: spec.schema.clone(),
            lines_max: lines_max(&Columns::of(spec)),
            tail: Some(tail),
            reading: None,
            decoding: VecDeque::new(),
            spare: Vec::new(),
            rest_until: None,
            warned_missing: false,
            spent: false,
            failure: None,
        })
    }

    fn begin_reading(&mut self, budget: Budget) {
        let is_busy = self.reading.is_some() || self.rest_until.is_some() || self.decoding.len() >= BLOCKS_AHEAD;
        if is_busy || self.spent || self.failure.is_some() {
            return;
        }
        if let Some(mut tail) = self.tail.take() {
            let (bytes_max, lines_max) = (budget.bytes_max.clamp(1, BLOCK_BYTES), self.lines_max);
            let buffer = self.spare.pop().unwrap_or_default();
            self.reading = Some(spawn_blocking(move || {
                let found = tail.next(bytes_max, lines_max, buffer);
                (tail, found)
            }));
        }
    }

    fn read_ended(&mut self, read: Result<(Tail, Result<Found>), JoinError>) {
        self.reading = None;
        let (tail, found) = match read {
            Ok(read) => read,
            Err(error) => return self.failure = Some(self.died("reader", &error)),
        };
        match found {
            Ok(Found::Block(block)) => self.begin_decoding(block, tail.name().to_string()),
            Ok(Found::Nothing) => self.rest_until = Some(Instant::now() + REST),
            Ok(Found::Missing) => self.wait_for_file(),
            Ok(Found::End) => self.spent = true,
            Err(error) => self.failure = Some(error),
        }
        self.tail = Some(tail);
    }

    fn begin_decoding(&mut self, block: Block, name: String) {
        let schema = self.schema.clone();
        self.decoding.push_back(spawn_blocking(move || decode(block, schema, &name)));
    }

    fn wait_for_file(&mut self) {
        self.rest_until = Some(Instant::now() + REST_MISSING);
        if !std::mem::replace(&mut self.warned_missing, true) {
            tracing::warn!(source = self.name, path = %self.path.display(), "the file does not exist yet; waiting for it");
        }
    }

    fn decode_ended(&mut self, decoded: Result<(SourceBatch, Vec<u8>), JoinError>) -> Result<Polled> {
        self.decoding.pop_front();
        let (batch, buffer) = decoded.map_err(|error| self.died("decoder", &error))?;
        // A buffer that one long line blew up is not kept.
        if buffer.capacity() <= 2 * BLOCK_BYTES && self.spare.len() <= BLOCKS_AHEAD {
            self.spare.push(buffer);
        }
        Ok(Polled::Batch(batch))
    }

    fn died(&self, what: &str, error: &JoinError) -> Error {
        Error::engine(format!("the {what} of source \"{}\" died: {error}", self.name))
    }
}

/// What one wait brought.
enum Step {
    Decoded(Result<(SourceBatch, Vec<u8>), JoinError>),
    Read(Result<(Tail, Result<Found>), JoinError>),
    Rested,
    Spent,
}

#[async_trait]
impl Source for FileSource {
    /// Cancel safe: what is under way is held by `self`, not by the poll. A
    /// block read ahead under an earlier, larger budget comes whole.
    async fn poll(&mut self, budget: Budget) -> Result<Polled> {
        loop {
            self.begin_reading(budget);
            let Self { decoding, reading, rest_until, .. } = self;
            let step = tokio::select! {
                biased;
                Some(decoded) = finished(decoding.front_mut()) => Step::Decoded(decoded),
                Some(read) = finished(reading.as_mut()) => Step::Read(read),
                Some(()) = rested(*rest_until) => Step::Rested,
                else => Step::Spent,
            };
            match step {
                Step::Decoded(decoded) => return self.decode_ended(decoded),
                Step::Read(read) => self.read_ended(read),
                Step::Rested => self.rest_until = None,
                Step::Spent => return self.failure.take().map_or(Ok(Polled::End), Err),
            }
        }
    }

    /// A file keeps its lines; there is nobody to tell.
    async fn acknowledge(&mut self, _offset: Offset) {}
}

async fn finished<T>(task: Option<&mut JoinHandle<T>>) -> Option<Result<T, JoinError>> {
    match task {
        Some(task) => Some(task.await),
        None => None,
    }
}

async fn rested(until: Option<Instant>) -> Option<()> {
    match until {
        Some(until) => {
            tokio::time::sleep_until(until.into()).await;
            Some(())
        }
        None => None,
    }
}

/// How many lines a block may have; one at least, however wide.
fn lines_max(columns: &Columns) -> usize {
    (ROWS_BYTES_MAX / columns.row_bytes().max(1)).max(1)
}

/// The block's rows, and its buffer to use again.
fn decode(block: Block, schema: Arc<arrow::datatypes::Schema>, name: &str) -> (SourceBatch, Vec<u8>) {
    let mut dead = block.dead;
    let rows = match block.decoder {
        None => RecordBatch::new_empty(schema),
        Some(decoder) => {
            let decoded = decoder.decode(&block.bytes, block.first_line, name);
            dead.extend(decoded.dead);
            decoded.rows
        }
    };
    let bytes = block.consumed.max(memory_bytes(&rows, &dead));
    let batch = SourceBatch { dead, bytes, offset: block.offset, ..SourceBatch::of(rows) };
    (batch, block.bytes)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use tempfile::TempDir;
    use tidegate_types::time::WallClock;

    use super::*;

    /// Of so many BIGINT columns, read to the end of the file.
    fn spec(folder: &TempDir, columns: usize) -> SourceSpec {
        let fields: Vec<Field> = (0..columns).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
        SourceSpec {
            name: "s".into(),
            schema: Arc::new(Schema::new(fields)),
            columns_wanted: vec![true; columns],
            options: [("path".to_string(), "in.jsonl".to_string())].into(),
            folder: folder.path().into(),
            once: true,
            clock: Arc::new(WallClock),
            resume: None,
        }
    }

    /// Three bytes of a line make a row of 16 KB.
    #[tokio::test]
    async fn lines_with_nothing_in_them_are_bounded_and_charged_by_their_rows() {
        let (folder, lines) = (TempDir::new().unwrap(), 10_000);
        std::fs::write(folder.path().join("in.jsonl"), "{}\n".repeat(lines)).unwrap();
        let mut source = FileSource::new(&spec(&folder, 2_000)).unwrap();
        let (mut rows, mut last) = (0, Offset::default());
        while let Polled::Batch(batch) = source.poll(Budget { bytes_max: 4 << 20 }).await.unwrap() {
            let taken = batch.rows.get_array_memory_size();
            assert!(batch.rows.num_rows() <= source.lines_max && taken <= 2 * ROWS_BYTES_MAX, "{taken} bytes");
            assert_eq!(batch.bytes, taken);
            assert!(batch.dead.is_empty());
            rows += batch.rows.num_rows();
            last = batch.offset;
        }
        assert_eq!((source.lines_max, rows), (4_194, lines));
        assert!(last.0.contains(&format!("\"byte\":{},\"line\":{},", 3 * lines, lines + 1)), "{}", last.0);
    }

    #[test]
    fn the_wider_the_rows_the_fewer_are_a_blocks_lines() {
        let folder = TempDir::new().unwrap();
        let of = |columns| lines_max(&Columns::of(&spec(&folder, columns)));
        assert_eq!([of(0), of(1), of(13)], [64 << 20, 8 << 20, 645_277]);
    }

    #[test]
    fn names_tell_formats() {
        let cases = [
            ("a.json", Some("json")),
            ("a/b.jsonl.gz", Some("json")),
            ("a.ndjson.zst", Some("json")),
            ("a.csv", Some("csv")),
            ("access.log", Some("text")),
            ("a.txt.gz", Some("text")),
            ("a", None),
            ("a.gz", None),
            ("messages.1", None),
        ];
        for (name, format) in cases {
            assert_eq!(guess(name), format, "{name}");
        }
    }
}
