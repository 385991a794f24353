//! Rows as JSON, wherever they leave: answers, sinks, findings.
//!
//! NULL is written as null. JSON has no number for what is no number, or is infinite: it is the text "NaN",
//! "Infinity" or "-Infinity", as PostgreSQL's `to_json` writes it.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions, WriterBuilder};

/// How a writer of rows begins.
pub fn writer() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Factory))
}

#[derive(Debug)]
struct Factory;

/// Those of a writer without the factory: it would ask itself.
static PLAIN: LazyLock<EncoderOptions> = LazyLock::new(EncoderOptions::default);

impl EncoderFactory for Factory {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let floats: Vec<f64> = match array.data_type() {
            DataType::Float16 => array.as_primitive::<Float16Type>().values().iter().map(|value| value.to_f64()).collect(),
            DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().map(|value| f64::from(*value)).collect(),
            DataType::Float64 => array.as_primitive::<Float64Type>().values().to_vec(),
            _ => return Ok(None),
        };
        if floats.iter().all(|value| value.is_finite()) {
            return Ok(None);
        }
        let finite = make_encoder(field, array, &PLAIN)?;
        Ok(Some(NullableEncoder::new(Box::new(Floats { floats, finite }), array.nulls().cloned())))
    }
}

struct Floats<'a> {
    floats: Vec<f64>,
    finite: NullableEncoder<'a>,
}

impl Encoder for Floats<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        match self.floats[row] {
            value if value.is_finite() => self.finite.encode(row, out),
            value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
            value if 0.0 < value => out.extend_from_slice(b"\"Infinity\""),
            _ => out.extend_from_slice(b"\"-Infinity\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float32Array, Float64Array, ListArray, RecordBatch};
    use arrow::json::writer::LineDelimited;

    use super::*;

    #[test]
    fn what_no_number_says_is_said_in_words() {
        let large: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN), Some(f64::NEG_INFINITY)]));
        let small: ArrayRef = Arc::new(Float32Array::from(vec![0.1, f32::INFINITY, 1e30, -0.0]));
        let lists = [Some(vec![Some(f64::NAN), None]), None, Some(vec![]), Some(vec![Some(2.0)])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists));
        let rows = RecordBatch::try_from_iter_with_nullable([("l", large, true), ("s", small, true), ("x", lists, true)]).unwrap();
        let mut bytes = Vec::new();
        let mut json = writer().build::<_, LineDelimited>(&mut bytes);
        json.write(&rows).unwrap();
        json.finish().unwrap();
        drop(json);
        let lines: Vec<&str> = std::str::from_utf8(&bytes).unwrap().lines().collect();
        let expected = [
            r#"{"l":1.5,"s":0.1,"x":["NaN",null]}"#,
            r#"{"l":null,"s":"Infinity","x":null}"#,
            r#"{"l":"NaN","s":1.0e30,"x":[]}"#,
            r#"{"l":"-Infinity","s":-0.0,"x":[2.0]}"#,
        ];
        assert_eq!(lines, expected);
    }
}
