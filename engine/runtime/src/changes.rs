//! Rows with counts, in one canonical form whatever the workers and batches were: what a tick
//! changed, and what is there.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use tidegate_types::Delta;
use tidegate_types::error::{Error, Result};
use tidegate_types::row::{EncodedRows, RowCodec};

/// The net change: retractions before insertions, each in row order.
pub fn consolidate(schema: &SchemaRef, parts: &[Delta]) -> Delta {
    let codec = RowCodec::new(schema.clone()).expect("the planner checked the types");
    let encoded: Vec<EncodedRows> = parts.iter().map(|part| codec.encode(&part.rows).expect("the view's schema")).collect();
    let mut rows: Vec<(&[u8], i64)> =
        encoded.iter().zip(parts).flat_map(|(rows, part)| rows.iter().zip(part.diffs.iter().copied())).collect();
    rows.sort_unstable_by(|left, right| left.0.cmp(right.0));
    let mut net: Vec<(&[u8], i64)> = Vec::with_capacity(rows.len());
    for (row, diff) in rows {
        match net.last_mut() {
            Some((last, count)) if *last == row => *count += diff,
            _ => net.push((row, diff)),
        }
    }
    let retractions = net.iter().filter(|(_, diff)| *diff < 0);
    let ordered: Vec<(&[u8], i64)> = retractions.chain(net.iter().filter(|(_, diff)| 0 < *diff)).copied().collect();
    let rows = codec.decode(ordered.iter().map(|(row, _)| *row)).expect("what was encoded");
    Delta::new(rows, ordered.iter().map(|(_, diff)| *diff).collect::<Vec<_>>())
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
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

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
    }
}
