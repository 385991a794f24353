//! Bytes to rows, one block of whole lines at a time. No I/O, no clock but
//! the one it is given; every decoder can run on several blocks at once.
//!
//! Rows      always the source's schema; a column no view wants is all NULL
//! Errors    a line that cannot be a row is a dead letter with its reason and
//!           `name:line`; its neighbours live. Nothing here ends a source but
//!           a CSV header that lacks a declared column
//!
//! [`json`]   one object per line
//! [`csv`]    one record per line
//! [`text`]   a regular expression, or a well-known log layout
//! `isolate`  finds the bad lines of a block without going quadratic
//! `cast`     text columns to typed ones, naming the rows that fail

pub mod csv;
pub mod json;
pub mod text;

mod cast;
mod isolate;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use memchr::memchr;
use tidegate_types::connector::{DeadLetter, SourceSpec};
use tidegate_types::error::{Error, Result};

use crate::options::OptionReader;

/// Longest line taken as one; beyond it the line is a dead letter.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What a text takes before its first byte: an offset, and the room that decoders keep for it.
const TEXT_BYTES: usize = 20;

/// What a block came to.
pub struct Decoded {
    /// In the source's schema.
    pub rows: RecordBatch,
    /// In line order.
    pub dead: Vec<DeadLetter>,
    /// Lines in the block, blank ones too.
    pub lines: u64,
}

/// One format, set up for one source.
pub trait Decoder: Send + Sync {
    /// `block`: whole lines; the last may lack its newline.
    /// `first_line`: the 1-based number of the block's first line.
    /// `name`: what positions begin with, usually the file's name.
    fn decode(&self, block: &[u8], first_line: u64, name: &str) -> Decoded;
}

/// A format as the options say it, before any byte is seen.
#[derive(Clone)]
pub enum Format {
    Json(Arc<json::JsonDecoder>),
    Csv(Arc<csv::CsvFormat>),
    Text(Arc<text::TextDecoder>),
}

impl Format {
    /// `guess`: the format where the option is absent.
    pub(crate) fn from_options(spec: &SourceSpec, options: &mut OptionReader, line_bytes_max: usize, guess: Option<&str>) -> Result<Self> {
        let named = options.one_of("format", &[("json", "json"), ("csv", "csv"), ("text", "text")])?;
        let columns = Columns::of(spec);
        match named.or(guess) {
            Some("json") => Ok(Self::Json(Arc::new(json::JsonDecoder::new(columns, line_bytes_max)?))),
            Some("csv") => Ok(Self::Csv(Arc::new(csv::CsvFormat::new(columns, line_bytes_max, options)?))),
            Some(_) => Ok(Self::Text(Arc::new(text::TextDecoder::new(columns, line_bytes_max, spec.clock.clone(), options)?))),
            None => {
                options.required("format", "json")?;
                Err(options.refused("the format is not known"))
            }
        }
    }

    /// Whether a stream's first line names its columns.
    pub fn has_header(&self) -> bool {
        matches!(self, Self::Csv(csv) if csv.has_header())
    }

    /// The decoder for one stream, given its first line where it is a header.
    ///
    /// Errors: a declared column the header lacks, or names twice.
    pub fn decoder(&self, header: Option<&[u8]>, name: &str) -> Result<Arc<dyn Decoder>> {
        match self {
            Self::Json(json) => Ok(json.clone()),
            Self::Text(text) => Ok(text.clone()),
            Self::Csv(csv) => Ok(Arc::new(csv.decoder(header, name)?)),
        }
    }
}

/// The declared columns, and which of them are worth keeping. All are judged.
#[derive(Clone)]
pub struct Columns {
    pub schema: SchemaRef,
    /// Indices into `schema`, ascending.
    pub wanted: Vec<usize>,
}

impl Columns {
    pub fn of(spec: &SourceSpec) -> Self {
        // A short `columns_wanted` says nothing about the rest: decode those.
        let is_wanted = |i: &usize| spec.columns_wanted.get(*i).copied().unwrap_or(true);
        Self { schema: spec.schema.clone(), wanted: (0..spec.schema.fields().len()).filter(is_wanted).collect() }
    }

    /// Of the wanted columns.
    fn wanted_schema(&self) -> SchemaRef {
        Arc::new(self.schema.project(&self.wanted).expect("wanted columns are declared"))
    }

    /// What a row takes in memory, whatever is in it: an empty object is as wide as any other.
    pub(crate) fn row_bytes(&self) -> usize {
        let bytes = self.schema.fields().iter().map(|field| match field.data_type() {
            DataType::Boolean => 1,
            other => other.primitive_width().unwrap_or(TEXT_BYTES),
        });
        bytes.sum()
    }

    /// The wanted columns' arrays, with NULLs where a column is not wanted.
    fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> RecordBatch {
        let mut wanted = self.wanted.iter().copied().zip(arrays).peekable();
        let columns = (0..self.schema.fields().len())
            .map(|i| match wanted.next_if(|(at, _)| *at == i) {
                Some((_, array)) => array,
                None => new_null_array(self.schema.field(i).data_type(), rows),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .expect("decoders build what the schema says, and sources declare nullable columns")
    }
}

/// A line without its end, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line<'a> {
    number: u64,
    bytes: &'a [u8],
}

/// A line that is no row, and why.
#[derive(Debug, PartialEq, Eq)]
struct Bad<'a> {
    line: Line<'a>,
    reason: String,
}

/// Cuts a block into lines: CRLF or LF, empty ones dropped.
struct Cut<'a> {
    lines: Vec<Line<'a>>,
    /// The over-long ones.
    bad: Vec<Bad<'a>>,
    count: u64,
}

impl<'a> Cut<'a> {
    fn new(block: &'a [u8], first_line: u64, line_bytes_max: usize) -> Self {
        let mut cut = Self { lines: Vec::with_capacity(block.len() / 64), bad: Vec::new(), count: 0 };
        let mut rest = block;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let bytes = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let line = Line { number: first_line + cut.count, bytes };
            match bytes.len() {
                0 => {}
                len if len > line_bytes_max => cut.bad.push(Bad { line, reason: over_long(line_bytes_max) }),
                _ => cut.lines.push(line),
            }
            rest = &rest[(end + 1).min(rest.len())..];
            cut.count += 1;
        }
        cut
    }
}

/// Why an over-long line is a dead letter; the file source says it too.
pub(crate) fn over_long(line_bytes_max: usize) -> String {
    format!("the line is longer than {line_bytes_max} bytes (option max_line_bytes)")
}

/// Dead letters in line order.
fn dead_letters(mut bad: Vec<Bad<'_>>, name: &str) -> Vec<DeadLetter> {
    bad.sort_by_key(|bad| bad.line.number);
    bad.into_iter().map(|bad| DeadLetter::new(bad.line.bytes, bad.reason, format!("{name}:{}", bad.line.number))).collect()
}

/// A reason for people: one line, and not the whole record again.
fn brief(reason: &str) -> String {
    const CHARS_MAX: usize = 300;
    let cut = reason.char_indices().nth(CHARS_MAX);
    let (kept, more) = cut.map_or((reason, ""), |(at, _)| (&reason[..at], "…"));
    kept.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(more.chars()).collect()
}

/// What rows and dead letters take in memory.
pub(crate) fn memory_bytes(rows: &RecordBatch, dead: &[DeadLetter]) -> usize {
    let letters = dead.iter().map(|dead| size_of::<DeadLetter>() + dead.raw.len() + dead.reason.len() + dead.position.len());
    rows.get_array_memory_size() + letters.sum::<usize>()
}

/// The type as SQL says it, for messages and proposals.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 => "TEXT".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, None) => {
            "TIMESTAMP".into()
        }
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        other => other.to_string(),
    }
}

/// A column a format cannot fill, refused when the source is created.
fn cannot_hold(options: &OptionReader, format: &str, column: &str, data_type: &DataType) -> Error {
    options
        .refused(format!("format '{format}' cannot fill column \"{column}\" of type {}", sql_type(data_type)))
        .hint("declare it as TEXT, or leave it out")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn lines_end_in_lf_or_crlf_and_blank_ones_only_count() {
        let cut = Cut::new(b"a\r\n\n\r\nlonger than that\nb", 10, 8);
        assert_eq!(cut.lines, [Line { number: 10, bytes: b"a" }, Line { number: 14, bytes: b"b" }]);
        assert_eq!(cut.bad.len(), 1);
        assert_eq!(cut.bad[0].line.number, 13);
        assert_eq!(cut.count, 5);
        assert_eq!(Cut::new(b"", 1, 8).count, 0);
    }

    #[test]
    fn rows_take_no_less_than_is_reckoned_with() {
        let fields =
            [DataType::Int64, DataType::Utf8, DataType::Int32, DataType::Boolean].map(|kind| Field::new(kind.to_string(), kind, true));
        let columns = Columns { schema: Arc::new(Schema::new(fields.to_vec())), wanted: vec![0, 1, 2, 3] };
        assert_eq!(columns.row_bytes(), 8 + 20 + 4 + 1);
        let decoder = json::JsonDecoder::new(columns, LINE_BYTES_MAX).unwrap();
        let Decoded { rows, dead, .. } = decoder.decode(&b"{}\n".repeat(10_000), 1, "f");
        // A bit is less than the byte it is taken for.
        assert!(10_000 * 32 <= memory_bytes(&rows, &dead));
        let Decoded { rows, dead, .. } = decoder.decode(&b"x\n".repeat(10_000), 1, "f");
        assert!(10_000 * size_of::<DeadLetter>() <= memory_bytes(&rows, &dead));
    }

    #[test]
    fn reasons_stay_short_and_on_one_line() {
        assert_eq!(brief("a\nb"), "a b");
        assert_eq!(brief(&"é".repeat(1000)).chars().count(), 301);
    }
}
