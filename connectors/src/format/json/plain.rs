//! The plain line, straight into columns: an object of strings, numbers, booleans and NULLs.
//!
//! A line is taken only where arrow-json would make the same row of it; every other is left to
//! arrow-json, and so are all that are not valid. Keys come in nearly the same order on every
//! line, so each is first compared with the one that stood there before. Values of no column are
//! stepped over; those of a column that nobody wants are read as all others, and not kept.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use chrono::Utc;
use memchr::memchr2;

use super::{Columns, DEPTH_MAX};

/// Decodes the plain ones among lines of one block.
pub(super) struct Plain {
    /// Of the wanted columns.
    schema: SchemaRef,
    columns: Vec<Column>,
    is_wanted: Vec<bool>,
    positions: HashMap<String, usize>,
    /// The keys of the last line, in their order, and the column of each.
    keys: Vec<(String, Option<usize>)>,
    rows: usize,
}

enum Column {
    Boolean(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMillisecondBuilder),
}

/// A column's value on one line, already of its type.
#[derive(Debug, Clone)]
enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

impl Plain {
    /// None: a column has a type that only arrow-json fills.
    pub(super) fn new(declared: &Columns, lines: usize) -> Option<Self> {
        let Columns { schema, wanted } = declared;
        let mut is_wanted = vec![false; schema.fields().len()];
        wanted.iter().for_each(|&i| is_wanted[i] = true);
        let column = |data_type: &DataType, is_wanted: bool| {
            let lines = if is_wanted { lines } else { 0 };
            Some(match data_type {
                DataType::Boolean => Column::Boolean(BooleanBuilder::with_capacity(lines)),
                DataType::Int32 => Column::Int32(Int32Builder::with_capacity(lines)),
                DataType::Int64 => Column::Int64(Int64Builder::with_capacity(lines)),
                DataType::Float64 => Column::Float64(Float64Builder::with_capacity(lines)),
                DataType::Utf8 => Column::Text(StringBuilder::with_capacity(lines, 16 * lines)),
                DataType::Timestamp(TimeUnit::Millisecond, None) => Column::Timestamp(TimestampMillisecondBuilder::with_capacity(lines)),
                _ => return None,
            })
        };
        let columns = schema.fields().iter().zip(&is_wanted).map(|(field, &is_wanted)| column(field.data_type(), is_wanted));
        let columns = columns.collect::<Option<Vec<_>>>()?;
        let positions = schema.fields().iter().enumerate().map(|(i, field)| (field.name().clone(), i)).collect();
        Some(Self { schema: declared.wanted_schema(), columns, is_wanted, positions, keys: Vec::new(), rows: 0 })
    }

    /// Takes the line, or says that it is not plain and leaves everything as it was.
    pub(super) fn take(&mut self, line: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(line) else { return false };
        let Some(values) = self.values(text) else { return false };
        for ((column, value), _) in self.columns.iter_mut().zip(values).zip(&self.is_wanted).filter(|(_, is_wanted)| **is_wanted) {
            column.append(value);
        }
        self.rows += 1;
        true
    }

    /// One row per line taken, in order.
    pub(super) fn finish(self) -> RecordBatch {
        let wanted = self.columns.into_iter().zip(self.is_wanted).filter(|(_, is_wanted)| *is_wanted);
        let arrays = wanted.map(|(column, _)| column.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(self.schema, arrays, &options).expect("a builder per column")
    }

    fn values<'a>(&mut self, text: &'a str) -> Option<Vec<Value<'a>>> {
        let mut values = vec![Value::Null; self.columns.len()];
        let mut scan = Scan { text, at: 0 };
        scan.expect(b'{')?;
        if scan.next_is(b'}') {
            return scan.at_end().then_some(values);
        }
        for place in 0.. {
            match self.column_of(&mut scan, place)? {
                Some(i) => values[i] = self.columns[i].read(&mut scan)?,
                None => scan.step_over(1)?,
            }
            if scan.next_is(b',') {
                continue;
            }
            scan.expect(b'}')?;
            break;
        }
        scan.at_end().then_some(values)
    }

    /// Reads a key and its colon; the column it names.
    fn column_of(&mut self, scan: &mut Scan, place: usize) -> Option<Option<usize>> {
        if let Some((key, column)) = self.keys.get(place)
            && scan.next_is_key(key)
        {
            return Some(*column);
        }
        // A key with an escape is as good as any other to arrow-json, and rare.
        let Cow::Borrowed(key) = scan.string()? else { return None };
        scan.expect(b':')?;
        let column = self.positions.get(key).copied();
        self.keys.truncate(place);
        self.keys.push((key.to_string(), column));
        Some(column)
    }
}

impl Column {
    fn append(&mut self, value: Value) {
        match (self, value) {
            (Self::Boolean(builder), Value::Boolean(value)) => builder.append_value(value),
            (Self::Boolean(builder), _) => builder.append_null(),
            (Self::Int32(builder), Value::Integer(value)) => builder.append_value(value as i32),
            (Self::Int32(builder), _) => builder.append_null(),
            (Self::Int64(builder), Value::Integer(value)) => builder.append_value(value),
            (Self::Int64(builder), _) => builder.append_null(),
            (Self::Float64(builder), Value::Float(value)) => builder.append_value(value),
            (Self::Float64(builder), _) => builder.append_null(),
            (Self::Text(builder), Value::Text(value)) => builder.append_value(value),
            (Self::Text(builder), _) => builder.append_null(),
            (Self::Timestamp(builder), Value::Integer(value)) => builder.append_value(value),
            (Self::Timestamp(builder), _) => builder.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut builder) => Arc::new(builder.finish()),
            Self::Int32(mut builder) => Arc::new(builder.finish()),
            Self::Int64(mut builder) => Arc::new(builder.finish()),
            Self::Float64(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Timestamp(mut builder) => Arc::new(builder.finish()),
        }
    }

    fn read<'a>(&self, scan: &mut Scan<'a>) -> Option<Value<'a>> {
        if scan.next_is_word("null") {
            return Some(Value::Null);
        }
        match self {
            Self::Boolean(_) if scan.next_is_word("true") => Some(Value::Boolean(true)),
            Self::Boolean(_) if scan.next_is_word("false") => Some(Value::Boolean(false)),
            Self::Boolean(_) => None,
            Self::Int32(_) => scan.integer().filter(|value| i32::try_from(*value).is_ok()).map(Value::Integer),
            Self::Int64(_) => scan.integer().map(Value::Integer),
            Self::Float64(_) => scan.number()?.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Float),
            Self::Text(_) => scan.string().map(Value::Text),
            Self::Timestamp(_) if scan.peek()? == b'"' => {
                let time = string_to_datetime(&Utc, &scan.string()?).ok()?;
                Some(Value::Integer(time.timestamp_millis()))
            }
            Self::Timestamp(_) => scan.integer().map(Value::Integer),
        }
    }
}

/// A place in a line. Each step gives None where the line is not plain.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.rest().first().copied()
    }

    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.next_is(byte).then_some(())
    }

    fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// `"key":`, without blanks inside: how machines write it.
    fn next_is_key(&mut self, key: &str) -> bool {
        self.skip_blanks();
        let rest = self.rest();
        let end = key.len() + 1;
        let is = rest.first() == Some(&b'"') && rest.get(1..end) == Some(key.as_bytes()) && rest.get(end..end + 2) == Some(b"\":");
        self.at += if is { end + 2 } else { 0 };
        is
    }

    fn next_is_word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let is = self.rest().starts_with(word.as_bytes());
        self.at += if is { word.len() } else { 0 };
        is
    }

    /// A string without its quotes; escapes are undone by serde_json.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.expect(b'"')?;
        let start = self.at;
        let mut is_plain = true;
        loop {
            let found = memchr2(b'"', b'\\', self.rest())?;
            self.at += found + 1;
            if self.text.as_bytes()[self.at - 1] == b'"' {
                break;
            }
            is_plain = false;
            self.at += 1;
            if self.at > self.text.len() {
                return None;
            }
        }
        match is_plain {
            true => self.text.get(start..self.at - 1).map(Cow::Borrowed),
            false => serde_json::from_str(self.text.get(start - 1..self.at)?).ok().map(Cow::Owned),
        }
    }

    /// The characters of a number, as JSON spells one.
    fn number(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let rest = self.rest();
        let mut len = usize::from(rest.first() == Some(&b'-'));
        let whole = digits(&rest[len..]);
        if whole == 0 || (1 < whole && rest[len] == b'0') {
            return None;
        }
        len += whole;
        if rest.get(len) == Some(&b'.') {
            let fraction = digits(&rest[len + 1..]);
            len += 1 + Some(fraction).filter(|fraction| *fraction != 0)?;
        }
        if matches!(rest.get(len), Some(b'e' | b'E')) {
            len += 1 + usize::from(matches!(rest.get(len + 1), Some(b'+' | b'-')));
            len += Some(digits(&rest[len..])).filter(|exponent| *exponent != 0)?;
        }
        self.at += len;
        self.text.get(self.at - len..self.at)
    }

    /// A whole number that surely fits.
    fn integer(&mut self) -> Option<i64> {
        const DIGITS_MAX: usize = 18;
        self.skip_blanks();
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_whole = !matches!(rest.get(sign + digits), Some(b'.' | b'e' | b'E'));
        if !(1..=DIGITS_MAX).contains(&digits) || (1 < digits && rest[sign] == b'0') || !is_whole {
            return None;
        }
        let value = rest[sign..sign + digits].iter().fold(0, |value, digit| 10 * value + i64::from(digit - b'0'));
        self.at += sign + digits;
        Some(if sign == 1 { -value } else { value })
    }

    /// A value of any kind, `depth` objects and lists inside one another.
    fn step_over(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' if depth < DEPTH_MAX => self.step_over_all(b'}', depth, true),
            b'[' if depth < DEPTH_MAX => self.step_over_all(b']', depth, false),
            b't' | b'f' | b'n' => ["true", "false", "null"].iter().any(|word| self.next_is_word(word)).then_some(()),
            _ => self.number().map(drop),
        }
    }

    fn step_over_all(&mut self, end: u8, depth: usize, has_keys: bool) -> Option<()> {
        self.at += 1;
        if self.next_is(end) {
            return Some(());
        }
        loop {
            if has_keys {
                self.string()?;
                self.expect(b':')?;
            }
            self.step_over(depth + 1)?;
            if self.next_is(end) {
                return Some(());
            }
            self.expect(b',')?;
        }
    }
}
