//! `combine`: equal rows of a batch as one row that counts for all.
//!
//! SQL     before HOP, where many rows of a batch fall into the same windows
//! In      any rows
//! Out     the same rows; append-only where the input is
//! State   none; how well it paid lately
//! Errors  none

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;
use tidegate_types::Delta;
use tidegate_types::row::{RowCodec, hash_row};

use crate::stream::{Rows, Time, Timed, each};

/// Wires the operator for rows of `schema`.
pub fn combine<'scope, T: Time>(rows: Rows<'scope, T>, schema: SchemaRef) -> Rows<'scope, T> {
    let codec = RowCodec::new(schema).expect("the planner checked the types");
    let mut rest = 0;
    each(rows, "Combine", move |Timed { time, delta }, out| {
        if 0 < rest {
            rest -= 1;
            return out.push(Timed { time, delta });
        }
        let combined = combined(&delta, &codec);
        if !is_worth_it(delta.len(), combined.len()) {
            rest = BATCHES_TO_REST;
        }
        out.push(Timed { time, delta: combined });
    })
}

/// Batches let through after one that did not shrink enough.
const BATCHES_TO_REST: usize = 15;

fn is_worth_it(before: usize, after: usize) -> bool {
    2 * after <= before
}

/// The rule.
fn combined(delta: &Delta, codec: &RowCodec) -> Delta {
    let rows = codec.encode(&delta.rows).expect("the planner's schema");
    // Where each different row first stands, and its count.
    let mut firsts: Vec<u32> = Vec::new();
    let mut diffs: Vec<i64> = Vec::new();
    let mut places: HashTable<u32> = HashTable::new();
    for (i, (row, &diff)) in rows.iter().zip(delta.diffs.iter()).enumerate() {
        let same = |place: &u32| rows.row(firsts[*place as usize] as usize) == row;
        match places.find(hash_row(row), same) {
            Some(&place) => diffs[place as usize] += diff,
            None => {
                let place = firsts.len() as u32;
                firsts.push(i as u32);
                diffs.push(diff);
                places.insert_unique(hash_row(row), place, |place| hash_row(rows.row(firsts[*place as usize] as usize)));
            }
        }
    }
    let (firsts, diffs): (Vec<u32>, Vec<i64>) = firsts.into_iter().zip(diffs).filter(|(_, diff)| *diff != 0).unzip();
    let taken = delta.take(&UInt32Array::from(firsts)).expect("indices within the batch");
    Delta::new(taken.rows, diffs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn equal_rows_add_up_and_nothing_else_changes() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let keys = Int64Array::from(vec![Some(1), None, Some(1), Some(2), None, Some(2)]);
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(keys)]).unwrap();
        let delta = Delta::new(rows, [1, 1, 2, 1, 1, -1]);
        let done = combined(&delta, &RowCodec::new(schema).unwrap());
        let keys = done.rows.column(0).as_primitive::<Int64Type>();
        assert_eq!((keys.len(), keys.value(0), keys.is_null(1)), (2, 1, true));
        assert_eq!(done.diffs.to_vec(), [3, 2]);
    }
}
