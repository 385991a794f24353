//! Arrow's values as the texts that Postgres reads back as the same values.
//!
//! A text's U+0000, which Postgres cannot hold, becomes U+FFFD. A time of day finer than a
//! microsecond is cut; a timestamp Postgres has no year for becomes infinity or -infinity.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Datelike, NaiveDateTime};
use tidegate_types::connector::Changes;

/// A column's texts; None is NULL.
pub(super) type Texts = Vec<Option<String>>;

/// Changes as columns: one entry per changed row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// In the order of the view's columns.
    pub columns: Vec<Texts>,
    pub ticks: Vec<i64>,
    /// Copies that come, or, negative, go.
    pub copies: Vec<i64>,
}

/// In order, at most `rows_max` rows each.
///
/// Errors: a value that has no text.
pub(super) fn chunks(changes: &[Changes], rows_max: usize) -> Result<Vec<Chunk>, ArrowError> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for Changes { tick, delta } in changes {
        let mut start = 0;
        while start < delta.len() {
            let room = chunks.last().map_or(0, |chunk| rows_max - chunk.copies.len());
            if room == 0 {
                chunks.push(Chunk { columns: vec![Vec::new(); delta.rows.num_columns()], ..Chunk::default() });
                continue;
            }
            let count = room.min(delta.len() - start);
            let chunk = chunks.last_mut().expect("one was pushed where there was no room");
            chunk.add(&delta.rows.slice(start, count), *tick, &delta.diffs[start..start + count])?;
            start += count;
        }
    }
    Ok(chunks)
}

impl Chunk {
    fn add(&mut self, rows: &RecordBatch, tick: u64, diffs: &[i64]) -> Result<(), ArrowError> {
        for (texts, array) in self.columns.iter_mut().zip(rows.columns()) {
            texts.extend(texts_of(array)?);
        }
        self.ticks.extend(diffs.iter().map(|_| tick as i64));
        self.copies.extend(diffs);
        Ok(())
    }
}

/// The type a column of the view gets in Postgres; None where there is none for it.
pub(super) fn column_type(field: &Field) -> Option<String> {
    Some(match field.data_type() {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 => "bigint".into(),
        DataType::UInt64 => "numeric(20, 0)".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) if 0 <= *scale => {
            format!("numeric({precision}, {scale})")
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric".into(),
        _ => return None,
    })
}

fn texts_of(array: &dyn Array) -> Result<Texts, ArrowError> {
    Ok(match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().iter().map(|value| value.map(|v| float(v.into(), v))).collect(),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().map(|value| value.map(|v| float(v, v))).collect(),
        DataType::Date32 => times(array, 86_400_000_000, 1)?,
        DataType::Timestamp(TimeUnit::Second, _) => times(array, 1_000_000, 1)?,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => times(array, 1_000, 1)?,
        DataType::Timestamp(TimeUnit::Microsecond, _) => times(array, 1, 1)?,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => times(array, 1, 1_000)?,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let bytes = cast(array, &DataType::LargeBinary)?;
            bytes.as_binary::<i64>().iter().map(|value| value.map(hex)).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(array, &DataType::LargeUtf8)?;
            texts.as_string::<i64>().iter().map(|value| value.map(|text| text.replace('\0', "\u{fffd}"))).collect()
        }
        _ => formatted(array)?,
    })
}

/// Days or fractions of seconds since 1970, of which one is `factor / divisor` microseconds.
fn times(array: &dyn Array, factor: i128, divisor: i128) -> Result<Texts, ArrowError> {
    let bare = match array.data_type() {
        DataType::Date32 => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(array, &DataType::Int64)?,
    };
    let micros = |value: i64| (i128::from(value) * factor).div_euclid(divisor).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    Ok(bare.as_primitive::<Int64Type>().iter().map(|value| value.map(|value| timestamp(micros(value)))).collect())
}

/// As Arrow shows them: integers, booleans, decimals, times of day.
fn formatted(array: &dyn Array) -> Result<Texts, ArrowError> {
    let options = FormatOptions::new();
    let formatter = ArrayFormatter::try_new(array, &options)?;
    (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).try_to_string()).transpose()).collect()
}

/// `shown` in the fewest digits that are read back as it.
fn float(value: f64, shown: impl std::fmt::Debug) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => format!("{shown:?}"),
    }
}

/// In UTC, microseconds since 1970.
fn timestamp(micros: i64) -> String {
    // Postgres begins at 4713 BC, which is the year -4712; chrono's last year is before its last.
    match DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc()) {
        Some(time) if time.year() < -4711 => "-infinity".into(),
        Some(time) => dated(time),
        None if micros < 0 => "-infinity".into(),
        None => "infinity".into(),
    }
}

/// The zone is for `timestamptz`; the others do not look at it.
fn dated(time: NaiveDateTime) -> String {
    let (year, era) = if time.year() < 1 { (1 - time.year(), " BC") } else { (time.year(), "") };
    format!("{year:04}-{}+00{era}", time.format("%m-%d %H:%M:%S%.6f"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, StringArray};
    use arrow::array::{TimestampMillisecondArray, TimestampNanosecondArray};
    use tidegate_types::delta::Delta;

    use super::*;

    #[test]
    fn texts_are_what_postgres_reads_back() {
        let cases: Vec<(ArrayRef, &str)> = vec![
            (Arc::new(Float64Array::from(vec![0.1 + 0.2])), "0.30000000000000004"),
            (Arc::new(Float64Array::from(vec![5e-324])), "5e-324"),
            (Arc::new(Float64Array::from(vec![-f64::NAN])), "NaN"),
            (Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])), "-Infinity"),
            (Arc::new(Float32Array::from(vec![0.1])), "0.1"),
            (Arc::new(Int64Array::from(vec![i64::MIN])), "-9223372036854775808"),
            (Arc::new(StringArray::from(vec!["a\0'\\"])), "a\u{fffd}'\\"),
            (Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice()])), "\\x00ff"),
            (Arc::new(Decimal128Array::from(vec![-5]).with_precision_and_scale(10, 2).unwrap()), "-0.05"),
            (Arc::new(TimestampMillisecondArray::from(vec![1_706_693_216_123])), "2024-01-31 09:26:56.123000+00"),
            (Arc::new(TimestampNanosecondArray::from(vec![-1])), "1969-12-31 23:59:59.999999+00"),
            (Arc::new(TimestampMillisecondArray::from(vec![-62_167_219_200_001])), "0002-12-31 23:59:59.999000+00 BC"),
            (Arc::new(TimestampMillisecondArray::from(vec![9_007_199_254_740_991])), "infinity"),
            (Arc::new(TimestampMillisecondArray::from(vec![i64::MIN])), "-infinity"),
            (Arc::new(Date32Array::from(vec![-1])), "1969-12-31 00:00:00.000000+00"),
            (Arc::new(Date32Array::from(vec![i32::MAX])), "infinity"),
        ];
        for (array, expected) in cases {
            assert_eq!(texts_of(&array).unwrap(), [Some(expected.to_string())], "{}", array.data_type());
        }
        assert_eq!(texts_of(&Int64Array::from(vec![None])).unwrap(), [None]);
    }

    #[test]
    fn chunks_are_full_and_in_order() {
        let changes = |tick, values: &[i64], diffs: &[i64]| {
            let a: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            Changes { tick, delta: Delta::new(RecordBatch::try_from_iter([("a", a)]).unwrap(), diffs.to_vec()) }
        };
        let found = chunks(&[changes(1, &[10, 11], &[1, 2]), changes(2, &[], &[]), changes(3, &[10, 12, 13], &[-1, 1, 1])], 3).unwrap();
        let texts = |values: &[i64]| vec![values.iter().map(|value| Some(value.to_string())).collect::<Texts>()];
        assert_eq!(
            found,
            [
                Chunk { columns: texts(&[10, 11, 10]), ticks: vec![1, 1, 3], copies: vec![1, 2, -1] },
                Chunk { columns: texts(&[12, 13]), ticks: vec![3, 3], copies: vec![1, 1] },
            ]
        );
        assert!(chunks(&[], 3).unwrap().is_empty());
    }
}
