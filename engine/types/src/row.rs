//! What rests: rows as bytes, in `arrow-row` form. Equal rows have equal bytes, and
//! bytes sort as rows do (NULLs first), so byte strings are keys and values both.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_row::{RowConverter, RowParser, Rows, SortField};

/// Rows of one schema to bytes and back.
pub struct RowCodec {
    schema: SchemaRef,
    converter: RowConverter,
    parser: RowParser,
}

impl RowCodec {
    /// Errors: a column type that has no order (a map, a union) cannot be at rest.
    pub fn new(schema: SchemaRef) -> Result<Self, ArrowError> {
        let order = vec![SortOptions { descending: false, nulls_first: true }; schema.fields().len()];
        Self::with_order(schema, &order)
    }

    /// Bytes that sort as `ORDER BY` does: one option per column.
    pub fn with_order(schema: SchemaRef, order: &[SortOptions]) -> Result<Self, ArrowError> {
        let fields = schema
            .fields()
            .iter()
            .zip(order)
            .map(|(field, options)| SortField::new_with_options(field.data_type().clone(), *options))
            .collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        Ok(Self { schema, converter, parser })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All rows of `batch`, whose columns must have this codec's types.
    pub fn encode(&self, batch: &RecordBatch) -> Result<EncodedRows, ArrowError> {
        self.encode_columns(batch.columns(), batch.num_rows())
    }

    pub fn encode_columns(&self, columns: &[ArrayRef], row_count: usize) -> Result<EncodedRows, ArrowError> {
        if columns.is_empty() {
            return Ok(EncodedRows { rows: None, row_count });
        }
        let columns: Vec<ArrayRef> = columns.iter().map(canonical_floats).collect();
        Ok(EncodedRows { rows: Some(self.converter.convert_columns(&columns)?), row_count })
    }

    /// The batch whose rows are `rows`, which this codec encoded.
    pub fn decode<'a>(&self, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<RecordBatch, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = self.decode_columns(rows)?;
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }

    pub fn decode_columns<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.schema.fields().is_empty() {
            return Ok(Vec::new());
        }
        self.converter.convert_rows(rows.map(|row| self.parser.parse(row)))
    }
}

impl std::fmt::Debug for RowCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RowCodec({:?})", self.schema.fields())
    }
}

/// Rows that were encoded together.
pub struct EncodedRows {
    /// None where the schema has no columns: every row is the empty string.
    rows: Option<Rows>,
    row_count: usize,
}

impl EncodedRows {
    pub fn len(&self) -> usize {
        self.row_count
    }

    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    pub fn row(&self, i: usize) -> &[u8] {
        match &self.rows {
            Some(rows) => rows.row(i).data(),
            None => &[],
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.row_count).map(|i| self.row(i))
    }
}

/// SQL says -0 = 0, and that one NaN is as good as another; bytes must agree.
pub fn canonical_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            match floats.values().iter().any(|x| x.is_nan() || (*x == 0.0 && x.is_sign_negative())) {
                true => Arc::new(floats.unary::<_, Float64Type>(|x| if x.is_nan() { f64::NAN } else { x + 0.0 })),
                false => Arc::clone(column),
            }
        }
        DataType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            match floats.values().iter().any(|x| x.is_nan() || (*x == 0.0 && x.is_sign_negative())) {
                true => Arc::new(floats.unary::<_, Float32Type>(|x| if x.is_nan() { f32::NAN } else { x + 0.0 })),
                false => Arc::clone(column),
            }
        }
        _ => Arc::clone(column),
    }
}

/// A key's home: stable across workers, processes and restarts.
///
/// Source: FxHash's multiply-and-rotate over eight bytes at a time, finished with
/// murmur3's mixer so that low bits are good enough for `% workers`.
pub fn hash_row(row: &[u8]) -> u64 {
    const K: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = row.len() as u64;
    let mut chunks = row.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(K);
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    hash = (hash.rotate_left(5) ^ u64::from_le_bytes(last)).wrapping_mul(K);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// `schema` reduced to the columns at `indices`.
pub fn project_schema(schema: &Schema, indices: &[usize]) -> SchemaRef {
    Arc::new(Schema::new(indices.iter().map(|&i| schema.field(i).clone()).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::Field;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]))
    }

    #[test]
    fn rows_come_back_and_sort_as_values_do() {
        let batch = RecordBatch::try_new(
            schema(),
            vec![Arc::new(Int64Array::from(vec![Some(-5), None, Some(7)])), Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]))],
        )
        .unwrap();
        let codec = RowCodec::new(schema()).unwrap();
        let rows = codec.encode(&batch).unwrap();
        assert!(rows.row(1) < rows.row(0) && rows.row(0) < rows.row(2), "NULLs first, then by value");
        assert_eq!(codec.decode(rows.iter()).unwrap(), batch);
    }

    #[test]
    fn a_row_without_columns_is_the_empty_string() {
        let codec = RowCodec::new(Arc::new(Schema::empty())).unwrap();
        let rows = codec.encode_columns(&[], 2).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.row(1), b"");
        assert_eq!(codec.decode(rows.iter()).unwrap().num_rows(), 2);
    }

    #[test]
    fn minus_zero_equals_zero_and_nan_equals_nan() {
        let floats = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
        let codec = RowCodec::new(floats).unwrap();
        let negative_nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63);
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, negative_nan]));
        let rows = codec.encode_columns(&[column], 4).unwrap();
        assert_eq!(rows.row(0), rows.row(1));
        assert_eq!(rows.row(2), rows.row(3));
    }
}
