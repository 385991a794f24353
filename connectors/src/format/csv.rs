//! `csv` format: one record per line, told apart by arrow-csv.
//!
//! Options   header ('true' by default: the first line names the columns, in
//!           any order; undeclared ones are ignored. 'false': the file has the
//!           declared columns, in their order)
//!           delimiter (one ASCII character, or 'tab'; ',' by default)
//! Rows      an empty field is NULL. TIMESTAMP takes the same texts as in JSON
//! Errors    a header without a declared column ends the source, naming it.
//!           Per line: a wrong number of fields, not UTF-8, a text that is not
//!           of its column's type, and a quoted field that is not closed on its
//!           line. A record is a line: else one stray quote would swallow the
//!           rest of the file, and blocks could not be decoded side by side

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder as ArrowDecoder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use tidegate_types::error::{Error, Result, did_you_mean};

use super::cast::{can_hold, typed};
use super::isolate::{Attempt, isolate};
use super::{Columns, Cut, Decoded, Decoder, brief, cannot_hold, dead_letters};
use crate::options::OptionReader;

/// The options, before a header is seen.
pub struct CsvFormat {
    columns: Columns,
    line_bytes_max: usize,
    header: bool,
    delimiter: u8,
}

impl CsvFormat {
    pub(crate) fn new(columns: Columns, line_bytes_max: usize, options: &mut OptionReader) -> Result<Self> {
        let header = options.flag("header")?.unwrap_or(true);
        let delimiter = options.parsed("delimiter", parse_delimiter, "one ASCII character, or 'tab'")?.unwrap_or(b',');
        match columns.schema.fields().iter().find(|field| !can_hold(field.data_type())) {
            Some(field) => Err(cannot_hold(options, "csv", field.name(), field.data_type())),
            None => Ok(Self { columns, line_bytes_max, header, delimiter }),
        }
    }

    pub fn has_header(&self) -> bool {
        self.header
    }

    /// Errors: a declared column that the header lacks, or names twice.
    pub fn decoder(&self, header: Option<&[u8]>, name: &str) -> Result<CsvDecoder> {
        let declared: Vec<String> = self.columns.schema.fields().iter().map(|field| field.name().clone()).collect();
        let names = match header {
            Some(line) => split_header(line, self.delimiter, name)?,
            None => declared.clone(),
        };
        let places = declared.iter().map(|column| place(column, &names, name)).collect::<Result<Vec<usize>>>()?;
        let fields: Vec<Field> = (0..names.len()).map(|i| Field::new(i.to_string(), DataType::Utf8, true)).collect();
        Ok(CsvDecoder {
            projection: places,
            columns: self.columns.clone(),
            texts: Arc::new(Schema::new(fields)),
            line_bytes_max: self.line_bytes_max,
            delimiter: self.delimiter,
        })
    }
}

/// The format for one file.
pub struct CsvDecoder {
    columns: Columns,
    /// The file's columns, all of them TEXT: types are `cast`'s business.
    texts: SchemaRef,
    /// `projection[i]`: where in the file the i-th declared column stands.
    projection: Vec<usize>,
    line_bytes_max: usize,
    delimiter: u8,
}

impl Decoder for CsvDecoder {
    fn decode(&self, block: &[u8], first_line: u64, name: &str) -> Decoded {
        let cut = Cut::new(block, first_line, self.line_bytes_max);
        let found = isolate(&cut.lines, |rows| CsvAttempt::new(self, rows));
        let mut bad = cut.bad;
        let mut good = cut.lines;
        if !found.bad.is_empty() {
            let mut left_out = found.bad.iter().map(|bad| bad.line.number).peekable();
            good.retain(|line| left_out.next_if_eq(&line.number).is_none());
            bad.extend(found.bad);
        }
        let (rows, wrong) = typed(&self.columns, &self.text_columns(&found.batches), &good);
        bad.extend(wrong);
        Decoded { rows, dead: dead_letters(bad, name), lines: cut.count }
    }
}

impl CsvDecoder {
    /// In the order of the declared columns.
    fn text_columns(&self, batches: &[RecordBatch]) -> Vec<StringArray> {
        let schema = Arc::new(self.texts.project(&self.projection).expect("places are in the header"));
        let all = concat_batches(&schema, batches).expect("all attempts share one schema");
        all.columns().iter().map(|column| column.as_string::<i32>().clone()).collect()
    }
}

struct CsvAttempt {
    decoder: ArrowDecoder,
    schema: SchemaRef,
}

impl CsvAttempt {
    fn new(of: &CsvDecoder, rows: usize) -> Self {
        let builder = ReaderBuilder::new(of.texts.clone())
            .with_delimiter(of.delimiter)
            // Else a lone carriage return would end a record too.
            .with_terminator(b'\n')
            .with_projection(of.projection.clone())
            .with_batch_size(rows);
        let schema = Arc::new(of.texts.project(&of.projection).expect("places are in the header"));
        Self { decoder: builder.build_decoder(), schema }
    }
}

impl Attempt for CsvAttempt {
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if std::str::from_utf8(line).is_err() {
            return Err("not UTF-8".into());
        }
        let room = self.decoder.capacity();
        // A byte order mark in front of the first line an attempt takes would be dropped, and in
        // front of any other not. In two parts it is not known as one.
        let (start, rest) = line.split_at(usize::from(line.starts_with(b"\xef\xbb\xbf")));
        for part in [start, rest, b"\n"].into_iter().filter(|part| !part.is_empty()) {
            self.decoder.decode(part).map_err(|error| reason(&error))?;
        }
        match room - self.decoder.capacity() {
            1 => Ok(()),
            _ => Err("a quoted field is not closed on its line".into()),
        }
    }

    fn finish(mut self) -> Result<RecordBatch, String> {
        match self.decoder.flush() {
            Ok(batch) => Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(self.schema))),
            Err(error) => Err(reason(&error)),
        }
    }
}

/// Without arrow-csv's line number, which counts from where it began.
fn reason(error: &ArrowError) -> String {
    let text = match error {
        ArrowError::CsvError(message) | ArrowError::ParseError(message) => message.clone(),
        other => other.to_string(),
    };
    match text.split_once(" for line ").and_then(|(what, rest)| Some((what, rest.split_once(", ")?.1))) {
        Some((what, counts)) => format!("{what}: {counts}"),
        None => brief(&text),
    }
}

fn parse_delimiter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Some(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
        _ => None,
    }
}

/// The header's names; the file's own mistake where it is not a CSV line.
fn split_header(line: &[u8], delimiter: u8, name: &str) -> Result<Vec<String>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let format = arrow::csv::reader::Format::default().with_header(true).with_delimiter(delimiter);
    let (schema, _) = format
        .infer_schema(line, Some(0))
        .map_err(|error| Error::user(format!("{name}: the header is not a CSV line: {}", reason(&error))))?;
    Ok(schema.fields().iter().map(|field| field.name().trim().to_string()).collect())
}

fn place(column: &str, names: &[String], file: &str) -> Result<usize> {
    let mut places = names.iter().enumerate().filter(|(_, name)| *name == column).map(|(i, _)| i);
    match (places.next(), places.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(Error::user(format!("{file}: the header names column \"{column}\" twice"))),
        (None, _) => {
            let hint = match did_you_mean(column, names.iter().map(String::as_str)) {
                Some(close) => format!("did you mean \"{close}\"?"),
                None => format!("the header is {}; use header = 'false' if this is a row", brief(&names.join(","))),
            };
            Err(Error::user(format!("{file}: the header has no column \"{column}\"")).hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    fn format(options: &[(&str, &str)]) -> CsvFormat {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
        let map = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let columns = Columns { schema: Arc::new(schema), wanted: vec![0, 1] };
        CsvFormat::new(columns, 100, &mut OptionReader::new("source", "s", &map)).unwrap()
    }

    fn decode(decoder: &CsvDecoder, text: &[u8]) -> (Vec<String>, Vec<String>) {
        let decoded = decoder.decode(text, 2, "f");
        let table = pretty_format_batches(&[decoded.rows]).unwrap().to_string();
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
        let rows = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|")).collect();
        (rows, decoded.dead.iter().map(|dead| format!("{} {}", dead.position, dead.reason)).collect())
    }

    #[test]
    fn columns_go_by_name_in_any_order() {
        let decoder = format(&[]).decoder(Some(b"\"s\",other,a\r\n"), "f").unwrap();
        assert_eq!(decode(&decoder, b"x,1,2\r\n\"y, \"\"z\"\"\",,\n"), (vec!["2|x".into(), "|y, \"z\"".into()], vec![]));
        let by_place = format(&[("header", "false"), ("delimiter", "tab")]).decoder(None, "f").unwrap();
        assert_eq!(decode(&by_place, b"1\tx"), (vec!["1|x".into()], vec![]));
    }

    #[test]
    fn a_column_nobody_wants_is_judged_and_null() {
        let all = format(&[]);
        let columns = Columns { wanted: vec![1], ..all.columns.clone() };
        let decoder = CsvFormat { columns, ..all }.decoder(Some(b"a,s"), "f").unwrap();
        let dead = vec!["f:3 column \"a\": 'x' is not a BIGINT".to_string()];
        assert_eq!(decode(&decoder, b"1,y\nx,z\n"), (vec!["|y".into()], dead));
    }

    #[test]
    fn a_byte_order_mark_in_front_of_a_line_is_text_on_any_line() {
        let decoder = format(&[]).decoder(Some(b"s,a"), "f").unwrap();
        let marked = (vec!["1|\u{feff}x".to_string(), "2|\u{feff}y".to_string()], Vec::new());
        assert_eq!(decode(&decoder, "\u{feff}x,1\n\u{feff}y,2\n".as_bytes()), marked);
    }

    #[test]
    fn headers_that_lack_a_column_are_refused() {
        let cases = [
            ("a,S", "f: the header has no column \"s\"\nhint: did you mean \"S\"?"),
            ("17,23", "f: the header has no column \"a\"\nhint: the header is 17,23; use header = 'false' if this is a row"),
            ("a,s,a", "f: the header names column \"a\" twice"),
        ];
        for (header, message) in cases {
            assert_eq!(format(&[]).decoder(Some(header.as_bytes()), "f").err().unwrap().to_string(), message);
        }
    }

    #[test]
    fn bad_lines_are_dead_and_their_neighbours_live() {
        let decoder = format(&[]).decoder(Some(b"a,s"), "f").unwrap();
        let cases: [(&[u8], &str); 8] = [
            (b"x,y", "f:3 column \"a\": 'x' is not a BIGINT"),
            (b"1", "f:3 incorrect number of fields: expected 2 got 1"),
            (b"1,2,3", "f:3 incorrect number of fields: expected 2 got 3"),
            (b"1,\"open", "f:3 a quoted field is not closed on its line"),
            (b"\"", "f:3 a quoted field is not closed on its line"),
            (b"1,\xff", "f:3 not UTF-8"),
            (&[b'x'; 101], "f:3 the line is longer than 100 bytes (option max_line_bytes)"),
            (b"1,a\rb,c", "f:3 incorrect number of fields: expected 2 got 3"),
        ];
        for (line, reason) in cases {
            let text = [b"1,x\n", line, b"\n2,y\n"].concat();
            assert_eq!(decode(&decoder, &text), (vec!["1|x".into(), "2|y".into()], vec![reason.to_string()]));
        }
    }
}
