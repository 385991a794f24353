//! What a tick changed, in one canonical form whatever the workers and batches were.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use tidegate_types::Delta;
use tidegate_types::row::RowCodec;

/// The net change: retractions before insertions, each in row order.
pub fn consolidate(schema: &SchemaRef, parts: &[Delta]) -> Delta {
    let codec = RowCodec::new(schema.clone()).expect("the planner checked the types");
    let mut net: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for part in parts {
        let rows = codec.encode(&part.rows).expect("the view's schema");
        for (row, diff) in rows.iter().zip(part.diffs.iter()) {
            match net.get_mut(row) {
                Some(count) => *count += diff,
                None => drop(net.insert(row.to_vec(), *diff)),
            }
        }
    }
    let ordered = net.iter().filter(|(_, diff)| **diff < 0).chain(net.iter().filter(|(_, diff)| 0 < **diff));
    let ordered: Vec<(&Vec<u8>, &i64)> = ordered.collect();
    let rows = codec.decode(ordered.iter().map(|(row, _)| &row[..])).expect("what was encoded");
    Delta::new(rows, ordered.iter().map(|(_, diff)| **diff).collect::<Vec<_>>())
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
