//! Rows with counts, in one canonical form whatever the workers and batches were: what a tick
//! changed, and what is there.

use arrow::array::{Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, interleave, take_record_batch};
use arrow::datatypes::SchemaRef;
use tidegate_types::Delta;
use tidegate_types::error::{Error, Result};
use tidegate_types::row::{EncodedRows, RowCodec, canonical_floats};

/// The net change: retractions before insertions, each in row order.
pub fn consolidate(schema: &SchemaRef, parts: &[Delta]) -> Delta {
    let codec = RowCodec::new(schema.clone()).expect("the planner checked the types");
    let batches: Vec<RecordBatch> = parts.iter().map(|part| canonical(&part.rows)).collect();
    let encoded: Vec<EncodedRows> = batches.iter().map(|rows| codec.encode(rows).expect("the view's schema")).collect();
    let mut changes: Vec<Change> =
        encoded.iter().zip(parts).enumerate().flat_map(|(part, (rows, delta))| changes(part, rows, delta)).collect();
    changes.sort_unstable_by(|left, right| left.start.cmp(&right.start).then_with(|| left.row.cmp(right.row)));
    let mut net: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        match net.last_mut() {
            Some(last) if last.row == change.row => last.diff += change.diff,
            _ => net.push(change),
        }
    }
    let retractions = net.iter().filter(|change| change.diff < 0);
    let ordered: Vec<&Change> = retractions.chain(net.iter().filter(|change| 0 < change.diff)).collect();
    if ordered.is_empty() {
        return Delta::new(RecordBatch::new_empty(schema.clone()), Vec::new());
    }
    let places: Vec<(usize, usize)> = ordered.iter().map(|change| change.place).collect();
    let column = |i: usize| {
        let parts: Vec<&dyn Array> = batches.iter().map(|rows| &**rows.column(i)).collect();
        interleave(&parts, &places).expect("the parts have the view's schema")
    };
    let columns = (0..schema.fields().len()).map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the view's schema");
    Delta::new(rows, ordered.iter().map(|change| change.diff).collect::<Vec<_>>())
}

/// A row of one part.
struct Change<'a> {
    /// How the row begins: most rows differ here, and are told apart without a look at them.
    start: u128,
    row: &'a [u8],
    diff: i64,
    /// Part, and row within it.
    place: (usize, usize),
}

fn changes<'a>(part: usize, rows: &'a EncodedRows, delta: &'a Delta) -> impl Iterator<Item = Change<'a>> {
    let change = move |(i, (row, &diff)): (usize, (&'a [u8], &i64))| Change { start: start(row), row, diff, place: (part, i) };
    rows.iter().zip(delta.diffs.iter()).enumerate().map(change)
}

/// A row that ends sooner is the smaller one, as it is where bytes are compared.
fn start(row: &[u8]) -> u128 {
    let mut start = [0; size_of::<u128>()];
    let length = row.len().min(start.len());
    start[..length].copy_from_slice(&row[..length]);
    u128::from_be_bytes(start)
}

/// Equal rows as one row, for which any of them can stand.
fn canonical(rows: &RecordBatch) -> RecordBatch {
    let columns = rows.columns().iter().map(canonical_floats).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options).expect("the same types")
}

/// Each row as often as it is there. A negative count is a wrong answer somewhere, and is said so.
pub fn copies(name: &str, schema: &SchemaRef, parts: &[Delta]) -> Result<RecordBatch> {
    let mut batches = Vec::with_capacity(parts.len());
    for part in parts {
        if let Some(row) = part.diffs.iter().position(|diff| *diff < 0) {
            return Err(Error::engine(format!("relation \"{name}\" has a row {} times", part.diffs[row])));
        }
        match part.diffs.iter().all(|diff| *diff == 1) {
            true => batches.push(part.rows.clone()),
            false => {
                let indices = part.diffs.iter().enumerate().flat_map(|(i, diff)| std::iter::repeat_n(i as u32, *diff as usize));
                let taken = take_record_batch(&part.rows, &UInt32Array::from_iter_values(indices));
                batches.push(taken.map_err(|error| Error::engine(error.to_string()))?);
            }
        }
    }
    concat_batches(schema, &batches).map_err(|error| Error::engine(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn what_nets_to_nothing_is_gone_and_retractions_come_first() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
        let delta = |values: Vec<i64>, diffs: Vec<i64>| {
            Delta::new(RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(values))]).unwrap(), diffs)
        };
        let net = consolidate(&schema, &[delta(vec![3, 1], vec![-1, 1]), delta(vec![1, 2, 4], vec![-1, 1, -2])]);
        assert_eq!(net.rows.column(0).as_primitive::<Int64Type>().values(), &[3, 4, 2]);
        assert_eq!(&net.diffs[..], &[-1, -2, 1]);
        assert_eq!(consolidate(&schema, &[delta(vec![7], vec![1]), delta(vec![7], vec![-1])]).len(), 0);
        assert_eq!(consolidate(&schema, &[]).len(), 0);
    }

    // The oracle is arrow-row: what is compared by its beginning is in the order of all its bytes.
    #[test]
    fn rows_are_in_the_order_of_their_bytes() {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8, true), Field::new("f", DataType::Float64, true)]));
        let mut rng = StdRng::seed_from_u64(7);
        let mut part = || {
            let texts: Vec<Option<String>> = (0..50).map(|_| rng.random_bool(0.9).then(|| "ab".repeat(rng.random_range(0..9)))).collect();
            let floats: Vec<f64> = (0..50).map(|_| [0.0, -0.0, f64::NAN, 1.5][rng.random_range(0..4)]).collect();
            let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts)), Arc::new(Float64Array::from(floats))];
            Delta::insertions(RecordBatch::try_new(schema.clone(), columns).unwrap())
        };
        let parts = [part(), part(), part()];
        let net = consolidate(&schema, &parts);
        let codec = RowCodec::new(schema.clone()).unwrap();
        let mut expected = BTreeMap::<Vec<u8>, i64>::new();
        for part in &parts {
            codec.encode(&part.rows).unwrap().iter().for_each(|row| *expected.entry(row.to_vec()).or_default() += 1);
        }
        assert_eq!(net.rows, codec.decode(expected.keys().map(Vec::as_slice).collect::<Vec<_>>().into_iter()).unwrap());
        assert_eq!(net.diffs.to_vec(), expected.into_values().collect::<Vec<_>>());
    }
}
