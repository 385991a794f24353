//! What moves: an Arrow batch and, per row, how many copies come or go.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

/// n rows and n diffs: `diffs[i]` copies of row i come (or, negative, go).
#[derive(Debug, Clone)]
pub struct Delta {
    pub rows: RecordBatch,
    pub diffs: Arc<[i64]>,
}

impl Delta {
    /// Panics where the lengths differ: our own mistake.
    pub fn new(rows: RecordBatch, diffs: impl Into<Arc<[i64]>>) -> Self {
        let diffs = diffs.into();
        assert_eq!(rows.num_rows(), diffs.len(), "one diff per row");
        Self { rows, diffs }
    }

    /// One copy of each row.
    pub fn insertions(rows: RecordBatch) -> Self {
        let diffs = vec![1; rows.num_rows()];
        Self::new(rows, diffs)
    }

    pub fn empty(schema: SchemaRef) -> Self {
        Self::new(RecordBatch::new_empty(schema), [])
    }

    pub fn len(&self) -> usize {
        self.diffs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.diffs.is_empty()
    }

    /// Bytes held, for budgets.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + 8 * self.diffs.len()
    }

    pub fn negate(&self) -> Self {
        Self { rows: self.rows.clone(), diffs: self.diffs.iter().map(|diff| -diff).collect() }
    }

    /// The rows for which `keep` is true; NULL counts as false.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self, ArrowError> {
        if keep.null_count() == 0 && keep.true_count() == keep.len() {
            return Ok(self.clone());
        }
        let rows = filter_record_batch(&self.rows, keep)?;
        let diffs: Vec<i64> = (0..keep.len()).filter(|&i| keep.is_valid(i) && keep.value(i)).map(|i| self.diffs[i]).collect();
        Ok(Self::new(rows, diffs))
    }

    /// `length` rows from row `from` on; their columns share their buffers with all rows.
    pub fn slice(&self, from: usize, length: usize) -> Self {
        Self::new(self.rows.slice(from, length), &self.diffs[from..from + length])
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<Self, ArrowError> {
        // `take_record_batch` knows how many rows it took by the columns it took them of.
        let columns = self.rows.columns().iter().map(|column| take(column, indices, None)).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
        let rows = RecordBatch::try_new_with_options(self.rows.schema(), columns, &options)?;
        let diffs: Vec<i64> = indices.values().iter().map(|&i| self.diffs[i as usize]).collect();
        Ok(Self::new(rows, diffs))
    }

    /// All rows of `parts` one after the other.
    pub fn concat(schema: &SchemaRef, parts: &[Self]) -> Result<Self, ArrowError> {
        let rows = concat_batches(schema, parts.iter().map(|part| &part.rows))?;
        let diffs: Vec<i64> = parts.iter().flat_map(|part| part.diffs.iter().copied()).collect();
        Ok(Self::new(rows, diffs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;

    #[test]
    fn rows_without_columns_are_counted() {
        let options = RecordBatchOptions::new().with_row_count(Some(4));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
        let delta = Delta::new(rows, [1, 2, 3, 4]);
        let taken = delta.take(&UInt32Array::from(vec![3, 1])).unwrap();
        assert_eq!((taken.rows.num_rows(), &taken.diffs[..]), (2, &[4, 2][..]));
        assert_eq!(delta.filter(&BooleanArray::from(vec![true, false, true, true])).unwrap().diffs[..], [1, 3, 4]);
        assert_eq!(Delta::concat(&taken.rows.schema(), &[taken, delta.slice(1, 2)]).unwrap().diffs[..], [4, 2, 2, 3]);
    }
}
