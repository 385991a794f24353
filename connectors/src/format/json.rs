//! `json` format: one object per line, by arrow-json; plain ones by a shorter way, [`plain`].
//!
//! Rows      a field goes to the column of its name; unknown fields are
//!           ignored and not looked into, absent ones are NULL. What is declared is judged,
//!           whether or not a view reads it: which rows there are is the input's business alone
//! Rules     a key that is there twice: the last one counts.
//!           TEXT takes strings only: a number, boolean or object is refused.
//!           Numeric columns take numbers, and strings that spell one, floats
//!           also "NaN", "Infinity" and "-Infinity"; an
//!           integer column takes 1.0, not 1.5, and with a point or an
//!           exponent none from 2^53 on.
//!           TIMESTAMP takes RFC 3339 with or without zone (none means UTC),
//!           `2024-01-31 09:26:56.123`, a bare date, or a number of
//!           milliseconds since 1970 (the column's unit, which is that).
//!           Superfluous or missing commas are forgiven, as arrow-json does, but
//!           not where a DECIMAL is wanted, or an integer beside a fraction
//! Errors    per line: not an object, cut short, more than one value, nested
//!           deeper than 64, not UTF-8, a value that is not of its column's
//!           type. All are dead letters; the neighbours live

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder as ArrowDecoder;
use memchr::{memchr2_iter, memmem};
use tidegate_types::error::{Error, Result};

mod numbers;
mod plain;

use self::numbers::Numbers;
use self::plain::Plain;
use super::isolate::{Attempt, isolate};
use super::{Bad, Columns, Cut, Decoded, Decoder, Line, brief, dead_letters, sql_type};

/// Objects and lists inside one another.
pub const DEPTH_MAX: usize = 64;

pub struct JsonDecoder {
    columns: Columns,
    line_bytes_max: usize,
}

impl JsonDecoder {
    /// Errors: a column of a type that JSON cannot hold.
    pub fn new(columns: Columns, line_bytes_max: usize) -> Result<Self> {
        for field in columns.schema.fields() {
            let one = Arc::new(Schema::new(vec![field.clone()]));
            ReaderBuilder::new(one).build_decoder().map_err(|_| {
                let (name, kind) = (field.name(), sql_type(field.data_type()));
                Error::user(format!("format 'json' cannot fill column \"{name}\" of type {kind}"))
                    .hint("declare it as TEXT, or leave it out")
            })?;
        }
        Ok(Self { columns, line_bytes_max })
    }

    /// Records already told apart, as from the body of a request. They may
    /// hold newlines. Positions are `name:n`, counted from 1.
    pub fn decode_records(&self, records: &[&[u8]], name: &str) -> Decoded {
        let cut = records.iter().zip(1..).map(|(bytes, number)| Line { number, bytes });
        let (long, lines): (Vec<Line>, Vec<Line>) = cut.partition(|line| line.bytes.len() > self.line_bytes_max);
        let bad = long.into_iter().map(|line| Bad { line, reason: super::over_long(self.line_bytes_max) }).collect();
        self.decode_lines(&lines, bad, records.len() as u64, name)
    }

    fn decode_lines<'a>(&self, lines: &[Line<'a>], mut bad: Vec<Bad<'a>>, count: u64, name: &str) -> Decoded {
        let (rows, found) = self.rows(lines);
        bad.extend(found.into_iter().map(|bad| Bad { reason: brief(&bad.reason), ..bad }));
        let count_rows = rows.num_rows();
        Decoded { rows: self.columns.batch(rows.columns().to_vec(), count_rows), dead: dead_letters(bad, name), lines: count }
    }

    /// The wanted columns of a row per good line, in order, and the bad ones.
    fn rows<'a>(&self, lines: &[Line<'a>]) -> (RecordBatch, Vec<Bad<'a>>) {
        let Some(mut plain) = Plain::new(&self.columns, lines.len()) else { return self.by_arrow(lines) };
        let is_odd: Vec<bool> = lines.iter().map(|line| !plain.take(line.bytes)).collect();
        let odd: Vec<Line> = lines.iter().zip(&is_odd).filter(|(_, is_odd)| **is_odd).map(|(line, _)| *line).collect();
        let plain = plain.finish();
        if odd.is_empty() {
            return (plain, Vec::new());
        }
        let (other, bad) = self.by_arrow(&odd);
        let is_bad: HashSet<u64> = bad.iter().map(|bad| bad.line.number).collect();
        let (mut next_plain, mut next_other) = (0, 0);
        let mut order = Vec::with_capacity(lines.len());
        for (line, is_odd) in lines.iter().zip(is_odd) {
            let (batch, next) = if is_odd { (1, &mut next_other) } else { (0, &mut next_plain) };
            if !is_bad.contains(&line.number) {
                order.push((batch, *next));
                *next += 1;
            }
        }
        (interleaved(&plain, &other, &order), bad)
    }

    fn by_arrow<'a>(&self, lines: &[Line<'a>]) -> (RecordBatch, Vec<Bad<'a>>) {
        let Columns { schema, wanted } = &self.columns;
        let found = isolate(lines, |rows| JsonAttempt::new(schema, rows));
        let rows = match <[RecordBatch; 1]>::try_from(found.batches) {
            Ok([only]) => only,
            Err(batches) => concat_batches(schema, &batches).expect("all attempts share one schema"),
        };
        (rows.project(wanted).expect("wanted columns are declared"), found.bad)
    }
}

impl Decoder for JsonDecoder {
    fn decode(&self, block: &[u8], first_line: u64, name: &str) -> Decoded {
        let mut cut = Cut::new(block, first_line, self.line_bytes_max);
        cut.lines.retain(|line| !line.bytes.trim_ascii_start().is_empty());
        self.decode_lines(&cut.lines, cut.bad, cut.count, name)
    }
}

struct JsonAttempt {
    decoder: ArrowDecoder,
    numbers: Numbers,
    taken: usize,
    /// A number just below all that 64 bits hold was met. arrow-json reads it as a float, and that as -2^63.
    has_too_small: bool,
    /// Values that words make infinite.
    infinite: usize,
    schema: SchemaRef,
}

impl JsonAttempt {
    fn new(schema: &SchemaRef, rows: usize) -> Self {
        // Room for one row more, so that what follows the last object is looked at as after any other.
        let builder = ReaderBuilder::new(schema.clone()).with_batch_size(rows + 1);
        let decoder = builder.build_decoder().expect("the column types were tried when the source was created");
        Self { decoder, numbers: Numbers::of(schema), taken: 0, has_too_small: false, infinite: 0, schema: schema.clone() }
    }
}

impl Attempt for JsonAttempt {
    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err("not a JSON object".into());
        }
        // Before the decoder sees it: its error messages recurse.
        if is_deeper_than(DEPTH_MAX, line) {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        self.numbers.check(line)?;
        self.has_too_small |= has_too_small(line);
        self.infinite += self.numbers.infinite_words(line);
        let read = self.decoder.decode(line).map_err(|error| reason(&error))?;
        self.taken += 1;
        // arrow-json takes newlines for blanks: what is left open here would
        // swallow the next line.
        match (self.decoder.has_partial_record(), read == line.len() && self.decoder.len() == self.taken) {
            (true, _) => Err("the JSON object is cut short".into()),
            (false, false) => Err("more than one JSON value".into()),
            (false, true) => Ok(()),
        }
    }

    fn finish(mut self) -> Result<RecordBatch, String> {
        match self.decoder.flush() {
            Ok(Some(batch)) if self.has_too_small && batch.columns().iter().any(has_least) => {
                Err(format!("a number below {} does not fit its column", i64::MIN))
            }
            Ok(Some(batch)) if batch.columns().iter().any(has_end_of_time) => Err("a time is out of range".into()),
            Ok(Some(batch)) if batch.columns().iter().map(count_infinite).sum::<usize>() != self.infinite => {
                Err("a number is out of range".into())
            }
            Ok(batch) => Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(self.schema))),
            Err(error) => Err(reason(&error)),
        }
    }
}

fn reason(error: &ArrowError) -> String {
    match error {
        ArrowError::JsonError(message) | ArrowError::ParseError(message) => message.clone(),
        other => other.to_string(),
    }
}

/// Whether there is a whole number that as a float is -2^63, and is not.
fn has_too_small(line: &[u8]) -> bool {
    const LEAST: &[u8] = b"9223372036854775808";
    memmem::find_iter(line, &LEAST[..15]).any(|from| {
        let digits = line[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        digits == LEAST.len() && LEAST < &line[from..from + digits]
    })
}

/// Whether -2^63 is in a column of 64-bit integers.
fn has_least(column: &ArrayRef) -> bool {
    *column.data_type() == DataType::Int64 && column.as_primitive::<Int64Type>().values().contains(&i64::MIN)
}

/// Whether a time is the first or the last that there is, as arrow-json reads all numbers beyond.
fn has_end_of_time(column: &ArrayRef) -> bool {
    let is_end = |time: &i64| matches!(*time, i64::MIN | i64::MAX);
    matches!(column.data_type(), DataType::Timestamp(TimeUnit::Millisecond, _))
        && column.as_primitive::<TimestampMillisecondType>().values().iter().any(is_end)
}

/// How many numbers are infinite: by a word, or as arrow-json reads those that are too large.
fn count_infinite(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().filter(|value| value.is_infinite()).count(),
        DataType::Float32 => column.as_primitive::<Float32Type>().values().iter().filter(|value| value.is_infinite()).count(),
        DataType::List(_) => count_infinite(column.as_list::<i32>().values()),
        _ => 0,
    }
}

/// Rows of both, by batch and place; they may have no columns.
fn interleaved(plain: &RecordBatch, other: &RecordBatch, order: &[(usize, usize)]) -> RecordBatch {
    let both = |i: usize| interleave(&[plain.column(i).as_ref(), other.column(i).as_ref()], order).expect("both have the schema");
    let columns = (0..plain.num_columns()).map(both).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(order.len()));
    RecordBatch::try_new_with_options(plain.schema(), columns, &options).expect("both have the schema")
}

/// Strings are looked into only where the brackets could be too many.
fn is_deeper_than(max: usize, line: &[u8]) -> bool {
    if line.len() <= max || memchr2_iter(b'{', b'[', line).nth(max).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > max {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use arrow::util::pretty::pretty_format_batches;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn decoder(fields: &[(&str, DataType)], wanted: &[usize]) -> JsonDecoder {
        let fields: Vec<Field> = fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        JsonDecoder::new(Columns { schema: Arc::new(Schema::new(fields)), wanted: wanted.to_vec() }, 1 << 20).unwrap()
    }

    fn sample() -> JsonDecoder {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        decoder(&[("a", DataType::Int64), ("s", DataType::Utf8), ("ts", timestamp)], &[0, 1, 2])
    }

    /// Rows as `a|s|ts`, and dead letters as `position reason`.
    fn decode(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let decoded = sample().decode(text, 1, "f");
        let table = pretty_format_batches(&[decoded.rows]).unwrap().to_string();
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
        let rows = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|")).collect();
        (rows, decoded.dead.iter().map(|dead| format!("{} {}", dead.position, dead.reason)).collect())
    }

    #[test]
    fn good_lines() {
        let cases: [(&str, &str); 13] = [
            (r#"{"a":1,"s":"x","ts":"2024-01-31T09:26:56.123Z"}"#, "1|x|2024-01-31T09:26:56.123"),
            (r#"{"ts":"2024-01-31T09:26:56+02:00"}"#, "||2024-01-31T07:26:56"),
            (r#"{"ts":"2024-01-31 09:26:56.5"}"#, "||2024-01-31T09:26:56.500"),
            (r#"{"ts":"2024-01-31T09:26:56"}"#, "||2024-01-31T09:26:56"),
            (r#"{"ts":1706693216123}"#, "||2024-01-31T09:26:56.123"),
            (r#"{"a":1,"a":2}"#, "2||"),
            (r#"{"zzz":{"deep":[1,2]},"a":"7"}"#, "7||"),
            (r#"{"a":2.0}"#, "2||"),
            (r#"{"a":-9223372036854775808}"#, "-9223372036854775808||"),
            (r#"{"a":1,"s":"-9223372036854775809"}"#, "1|-9223372036854775809|"),
            (r#"{"s":"\u00e9\ud83d\ude00"}"#, "|é😀|"),
            (r#"  {"a":null}  "#, "||"),
            ("{}", "||"),
        ];
        for (line, row) in cases {
            assert_eq!(decode(line.as_bytes()), (vec![row.to_string()], vec![]), "{line}");
        }
    }

    #[test]
    fn a_number_that_is_too_large_for_a_float_is_dead() {
        let fields = [("d", DataType::Float64), ("r", DataType::Float32), ("s", DataType::Utf8)];
        for (line, is_good) in [
            (r#"{"d":1e308,"r":3e38,"s":"inf"}"#, true),
            (r#"{"d":null,"r":null,"s":"1e999"}"#, true),
            (r#"{"d":1e999}"#, false),
            (r#"{"d":"-1e999"}"#, false),
            (r#"{"r":1e39}"#, false),
            (r#"{"d":"Infinity","r":"-inf"}"#, true),
            (r#"{"d":1e999,"r":"-Infinity"}"#, false),
            (r#"{"d":1e999,"s":"Infinity"}"#, false),
            (r#"{"d":"Infinity","d":1e999}"#, false),
        ] {
            let decoded = decoder(&fields, &[0, 1, 2]).decode(line.as_bytes(), 1, "f");
            assert_eq!((decoded.rows.num_rows(), decoded.dead.len()), (usize::from(is_good), usize::from(!is_good)), "{line}");
        }
    }

    #[test]
    fn bad_lines_are_dead_and_their_neighbours_live() {
        let deep = format!(r#"{{"z":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let cases: [(&[u8], &str); 20] = [
            (br#"{"a":1"#, "cut short"),
            (br#"{"a":"#, "cut short"),
            (br#"{"s":"x"#, "cut short"),
            (br#"{"a":1} {"a":2}"#, "more than one"),
            (br#"{"a":1} x"#, "unexpected 'x'"),
            (b"[1]", "not a JSON object"),
            (b"1", "not a JSON object"),
            (b"null", "not a JSON object"),
            (b"}", "not a JSON object"),
            (br#"{"a":"one"}"#, "failed to parse \"one\" as Int64"),
            (br#"{"a":9223372036854775808}"#, "failed to parse"),
            (br#"{"ts":1e300}"#, "a time is out of range"),
            (br#"{"ts":-9223372036854775809}"#, "a time is out of range"),
            (br#"{"a":-9223372036854775809}"#, "a number below -9223372036854775808"),
            (br#"{"a":"-9223372036854775809"}"#, "failed to parse"),
            (br#"{"s":1}"#, "expected string got 1"),
            (br#"{"ts":"yesterday"}"#, "failed to parse \"yesterday\""),
            (b"{\"s\":\"\xff\"}", "non-UTF-8"),
            (br#"{"s":"\ud800"}"#, "surrogate"),
            (deep.as_bytes(), "nested deeper than 64"),
        ];
        for (line, reason) in cases {
            let text = [b"{\"a\":1}\n", line, b"\n{\"a\":2}\n"].concat();
            let (rows, dead) = decode(&text);
            assert_eq!(rows, ["1||", "2||"], "{}", String::from_utf8_lossy(line));
            assert_eq!(dead.len(), 1, "{dead:?}");
            assert!(dead[0].starts_with("f:2 ") && dead[0].contains(reason), "{} is not about {reason}", dead[0]);
        }
    }

    /// A line that is JSON, or nearly.
    fn nearly_json(rng: &mut StdRng) -> Vec<u8> {
        let pairs = rng.random_range(0..6);
        let mut pick = |from: &[&'static str]| from[rng.random_range(0..from.len())];
        let mut line = pick(&["{", "{", "{", " { ", "", "[", "{{"]).to_string();
        for i in 0..pairs {
            line += if i == 0 { "" } else { pick(&[",", ",", ",", " , ", "", ",,"]) };
            line += pick(&["\"a\"", "\"s\"", "\"ts\"", "\"f\"", "\"b\"", "\"i\"", "\"zz\"", "\"\\u0061\"", "a", "\"a"]);
            line += pick(&[":", ":", ":", " : ", "", "::"]);
            line += pick(&[
                "1",
                "-7",
                "0",
                "01",
                "-",
                "1.5",
                "2.0",
                "1e3",
                "9223372036854775807",
                "9223372036854775808",
                "-9223372036854775808",
                "123456789012345678901",
                "2147483648",
                "\"x\"",
                "\"\"",
                "\"é😀\"",
                "\"a\\nb\"",
                "\"\\ud83d\\ude00\"",
                "\"\\ud800\"",
                "\"\\q\"",
                "\"\t\"",
                "\"7\"",
                "\"2024-01-31T09:26:56.123Z\"",
                "\"2024-01-31 09:26:56\"",
                "\"2024-01-31\"",
                "\"yesterday\"",
                "null",
                "true",
                "false",
                "nul",
                "truex",
                "[1,{\"a\":2}]",
                "{\"a\":[]}",
                "{}",
                "[1 2]",
                "[1,,2]",
                "\"open",
                "NaN",
                "1e400",
            ]);
        }
        line += pick(&["}", "}", "}", " } ", "", "}}", "} x", ",}"]);
        let mut bytes = line.into_bytes();
        if rng.random_bool(0.05) && !bytes.is_empty() {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.retain(|byte| *byte != b'\n');
        bytes
    }

    // arrow-json is the oracle: the shorter way takes only what it would take, and as it would.
    #[test]
    fn the_shorter_way_agrees_with_arrow_json() {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        let fields = [
            ("a", DataType::Int64),
            ("s", DataType::Utf8),
            ("ts", timestamp),
            ("f", DataType::Float64),
            ("b", DataType::Boolean),
            ("i", DataType::Int32),
        ];
        let mut taken = 0;
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let wanted: Vec<usize> = (0..fields.len()).filter(|_| rng.random_bool(0.7)).collect();
            let decoder = decoder(&fields, &wanted);
            let text: Vec<Vec<u8>> = (0..200).map(|_| nearly_json(&mut rng)).collect();
            let lines: Vec<Line> = text.iter().zip(1..).map(|(bytes, number)| Line { number, bytes }).collect();
            let (rows, bad) = decoder.rows(&lines);
            let (expected, expected_bad) = decoder.by_arrow(&lines);
            for (ours, theirs) in bad.iter().zip(&expected_bad) {
                assert_eq!(ours, theirs, "seed {seed}: {}", String::from_utf8_lossy(ours.line.bytes));
            }
            assert_eq!(bad.len(), expected_bad.len(), "seed {seed}");
            assert!(rows == expected, "seed {seed}: other rows");
            let mut plain = Plain::new(&decoder.columns, lines.len()).unwrap();
            taken += lines.iter().filter(|line| plain.take(line.bytes)).count();
        }
        assert!(2_000 < taken, "only {taken} of 40000 lines were plain: the test tries nothing");
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let brackets_in_text = format!(r#"{{"s":"{}"}}"#, "[".repeat(1000));
        let just = format!("{}{}", "[".repeat(64), "]".repeat(64));
        let over = format!("{}{}", "[".repeat(65), "]".repeat(65));
        let wide = format!("[{}]", "[],".repeat(1000));
        for (text, deeper) in [(brackets_in_text, false), (just, false), (over, true), (wide, false)] {
            assert_eq!(is_deeper_than(DEPTH_MAX, text.as_bytes()), deeper);
        }
    }

    #[test]
    fn columns_nobody_wants_are_null_and_their_values_are_judged() {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        let fields = [("a", DataType::Int64), ("s", DataType::Utf8), ("d", DataType::Decimal128(9, 2)), ("ts", timestamp)];
        let lines = [r#"{"a":1,"s":"x","d":1.5,"ts":5}"#, r#"{"a":"one","s":"x"}"#, r#"{"s":7}"#, r#"{"ts":"noon"}"#, "{}"];
        for columns in [&fields[..], &[&fields[..2], &fields[3..]].concat()] {
            for wanted in [vec![], vec![1]] {
                let decoded = decoder(columns, &wanted).decode(lines.join("\n").as_bytes(), 1, "f");
                assert_eq!((decoded.rows.num_rows(), decoded.lines), (2, 5));
                assert_eq!(decoded.dead.iter().map(|dead| &dead.position[..]).collect::<Vec<_>>(), ["f:2", "f:3", "f:4"]);
                assert_eq!(decoded.rows.column(0).null_count(), 2);
                assert_eq!(decoded.rows.column(1).null_count(), 2 - wanted.len());
            }
        }
    }

    #[test]
    fn a_large_block_with_one_bad_line_in_a_hundred() {
        let mut text = Vec::new();
        for i in 0..100_000 {
            match i % 200 {
                7 => text.extend_from_slice(b"{\"a\":\n"),
                107 => text.extend_from_slice(b"{\"a\":\"one\"}\n"),
                _ => text.extend_from_slice(format!("{{\"a\":{i},\"s\":\"x\"}}\n").as_bytes()),
            }
        }
        let decoded = sample().decode(&text, 1, "f");
        assert_eq!((decoded.rows.num_rows(), decoded.dead.len(), decoded.lines), (99_000, 1_000, 100_000));
        assert_eq!(decoded.dead[1].position, "f:108");
    }
}
