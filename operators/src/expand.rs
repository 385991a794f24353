//! `expand`: one row per element of a list column.
//!
//! SQL     UNNEST(list), HOP(source, ts, slide, size)
//! In      rows with a list column
//! Out     the other columns repeated, the list replaced by its element;
//!         append-only where the input is
//! State   none
//! Errors  none

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use tidegate_types::Delta;

use crate::stream::{Rows, Time, Timed, each};

/// Which column is a list, and what the rows are afterwards.
#[derive(Debug, Clone)]
pub struct ExpandPlan {
    pub column: usize,
    /// A NULL or empty list gives one row with a NULL, instead of none.
    pub keep_empty: bool,
    pub schema: SchemaRef,
}

/// Wires the plan.
pub fn expand<'scope, T: Time>(rows: Rows<'scope, T>, plan: ExpandPlan) -> Rows<'scope, T> {
    each(rows, "Expand", move |Timed { time, delta }, out| {
        out.push(Timed { time, delta: expanded(&delta, &plan) });
    })
}

/// The rule.
fn expanded(delta: &Delta, plan: &ExpandPlan) -> Delta {
    let list = delta.rows.column(plan.column).as_list::<i32>();
    let mut rows = Vec::new();
    let mut elements = Vec::new();
    for i in 0..list.len() {
        let range = list.value_offsets()[i]..list.value_offsets()[i + 1];
        if list.is_null(i) || range.is_empty() {
            if plan.keep_empty {
                rows.push(i as u32);
                elements.push(None);
            }
            continue;
        }
        for element in range {
            rows.push(i as u32);
            elements.push(Some(element as u32));
        }
    }
    let rows = UInt32Array::from(rows);
    let elements = UInt32Array::from(elements);
    let columns: Vec<ArrayRef> = (0..delta.rows.num_columns())
        .map(|column| match column == plan.column {
            true => take(list.values(), &elements, None),
            false => take(delta.rows.column(column), &rows, None),
        })
        .collect::<Result<_, _>>()
        .expect("indices within the batch");
    let diffs: Vec<i64> = rows.values().iter().map(|&i| delta.diffs[i as usize]).collect();
    Delta::new(RecordBatch::try_new(Arc::clone(&plan.schema), columns).expect("the planner's schema"), diffs)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn case(keep_empty: bool) -> (Vec<Option<i64>>, Vec<i64>) {
        let lists =
            ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), Some(2)]), None, Some(vec![]), Some(vec![None])]);
        let input = Arc::new(Schema::new(vec![Field::new("l", lists.data_type().clone(), true)]));
        let rows = RecordBatch::try_new(input, vec![Arc::new(lists)]).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("l", DataType::Int64, true)]));
        let done = expanded(&Delta::new(rows, [1, 1, -1, 2]), &ExpandPlan { column: 0, keep_empty, schema });
        let values = done.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().iter().collect();
        (values, done.diffs.to_vec())
    }

    #[test]
    fn elements_carry_their_rows_diff() {
        assert_eq!(case(false), (vec![Some(1), Some(2), None], vec![1, 1, 2]));
        assert_eq!(case(true), (vec![Some(1), Some(2), None, None, None], vec![1, 1, 1, -1, 2]));
    }
}
