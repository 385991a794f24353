//! Text columns to typed ones. A text that is not of the type names its row;
//! the caller makes a dead letter of it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use arrow::util::display::FormatOptions;
use chrono::Utc;

use super::{Bad, Columns, Line, brief, sql_type};

/// Whether text can become `data_type` at all.
pub(super) fn can_hold(data_type: &DataType) -> bool {
    !data_type.is_nested() && can_cast_types(&DataType::Utf8, data_type)
}

/// The declared columns' texts as rows of the schema. Row i came from `lines[i]`;
/// rows with a text that is not of its column's type are left out and named.
pub(super) fn typed<'a>(columns: &Columns, texts: &[StringArray], lines: &[Line<'a>]) -> (RecordBatch, Vec<Bad<'a>>) {
    let mut keep = vec![true; lines.len()];
    let mut bad = Vec::new();
    let arrays = columns.schema.fields().iter().zip(texts).map(|(field, text)| {
        let array = column(text, field.data_type());
        for row in failed(text, &array) {
            // The first column that fails names the row.
            if std::mem::replace(&mut keep[row], false) {
                bad.push(Bad { line: lines[row], reason: not_of_type(field, text.value(row)) });
            }
        }
        array
    });
    let arrays: Vec<ArrayRef> = arrays.collect();
    let rows = columns.batch(columns.wanted.iter().map(|&i| Arc::clone(&arrays[i])).collect(), lines.len());
    if bad.is_empty() {
        return (rows, bad);
    }
    let rows = filter_record_batch(&rows, &BooleanArray::from(keep)).expect("one flag per row");
    (rows, bad)
}

fn not_of_type(field: &FieldRef, value: &str) -> String {
    brief(&format!("column \"{}\": '{value}' is not a {}", field.name(), sql_type(field.data_type())))
}

/// NULL where the text is NULL or not of the type.
fn column(text: &StringArray, data_type: &DataType) -> ArrayRef {
    let options = CastOptions { safe: true, format_options: FormatOptions::default() };
    match data_type {
        DataType::Utf8 => Arc::new(text.clone()),
        DataType::Timestamp(..) => {
            let micros: TimestampMicrosecondArray = text.iter().map(|value| value.and_then(micros_since_1970)).collect();
            cast_with_options(&micros, data_type, &options).expect("a timestamp casts to another unit")
        }
        other => cast_with_options(text, other, &options).expect("the column types were tried when the source was created"),
    }
}

/// The same texts as in JSON: RFC 3339 and its kin, or whole milliseconds.
fn micros_since_1970(value: &str) -> Option<i64> {
    match string_to_datetime(&Utc, value) {
        Ok(time) => Some(time.timestamp_micros()),
        Err(_) => value.parse::<i64>().ok()?.checked_mul(1000),
    }
}

/// Rows that have a text but no value, or an infinite one for a number that is too large.
fn failed(text: &StringArray, array: &ArrayRef) -> Vec<usize> {
    let is_infinite = |row: usize| match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).is_infinite(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).is_infinite(),
        _ => false,
    };
    let is_word = |row: usize| text.value(row).trim_start_matches(['-', '+']).starts_with(|first: char| first.is_alphabetic());
    if array.null_count() == text.null_count() && !array.data_type().is_floating() {
        return Vec::new();
    }
    let rows = (0..text.len()).filter(|&row| text.is_valid(row));
    rows.filter(|&row| array.is_null(row) || is_infinite(row) && !is_word(row)).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    use arrow::util::display::array_value_to_string;

    use super::*;

    #[test]
    fn texts_become_values_or_name_their_row() {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        let cases = [
            (DataType::Int64, "42", Some("42")),
            (DataType::Int64, "4x", None),
            (DataType::UInt8, "256", None),
            (DataType::Float64, "2.5e3", Some("2500.0")),
            (DataType::Float64, "1e999", None),
            (DataType::Float32, "-1e39", None),
            (DataType::Float64, "-Infinity", Some("-inf")),
            (DataType::Boolean, "true", Some("true")),
            (DataType::Boolean, "maybe", None),
            (DataType::Date32, "2024-02-29", Some("2024-02-29")),
            (DataType::Date32, "2023-02-29", None),
            (DataType::Decimal128(10, 2), "3.14", Some("3.14")),
            (timestamp.clone(), "2024-01-31 09:26:56", Some("2024-01-31T09:26:56")),
            (timestamp.clone(), "1706693216123", Some("2024-01-31T09:26:56.123")),
            (timestamp.clone(), "9223372036854775807", None),
            (timestamp, "noon", None),
            (DataType::Utf8, "é", Some("é")),
        ];
        for (data_type, text, value) in cases {
            let columns = Columns { schema: Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)])), wanted: vec![0] };
            let line = Line { number: 1, bytes: text.as_bytes() };
            let (rows, bad) = typed(&columns, &[StringArray::from(vec![text])], &[line]);
            let got = (rows.num_rows() == 1).then(|| array_value_to_string(rows.column(0), 0).unwrap());
            assert_eq!(got.as_deref(), value, "{text} as {data_type}");
            assert_eq!(bad.len(), usize::from(value.is_none()));
        }
    }
}
