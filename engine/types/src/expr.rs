//! What is computed per row: DataFusion's vectorised expressions, with errors as data.
//!
//! An expression that fails on a batch (a division by zero, a bad cast, an
//! overflow, a panic in a kernel) is bisected to the rows at fault. They leave
//! the batch, with a reason each; their neighbours go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::PhysicalExpr;

use crate::delta::Delta;

/// A row that could not be computed: why, and how many copies came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub diff: i64,
}

/// Filter, then project; either may be absent. Plain data.
#[derive(Debug, Clone)]
pub struct RowProgram {
    pub predicate: Option<Arc<dyn PhysicalExpr>>,
    /// None keeps the input's columns.
    pub project: Option<Vec<Arc<dyn PhysicalExpr>>>,
    pub schema: SchemaRef,
}

impl RowProgram {
    /// Rows that pass the predicate, projected; and the rows that failed.
    pub fn run(&self, delta: &Delta, failures: &mut Vec<Failure>) -> Delta {
        match self.attempt(delta) {
            Ok(done) => done,
            Err(reason) if delta.len() == 1 => {
                failures.push(Failure { reason, diff: delta.diffs[0] });
                Delta::empty(Arc::clone(&self.schema))
            }
            Err(_) => {
                let half = delta.len() / 2;
                let halves = [(0, half), (half, delta.len() - half)].map(|(from, length)| {
                    let part = Delta::new(delta.rows.slice(from, length), &delta.diffs[from..from + length]);
                    self.run(&part, failures)
                });
                Delta::concat(&self.schema, &halves).expect("halves of one schema")
            }
        }
    }

    fn attempt(&self, delta: &Delta) -> Result<Delta, String> {
        let kept = match &self.predicate {
            Some(predicate) => {
                let keep = evaluate(predicate.as_ref(), &delta.rows)?;
                delta.filter(as_boolean(&keep)?).map_err(|error| error.to_string())?
            }
            None => delta.clone(),
        };
        let Some(project) = &self.project else {
            let rows = kept.rows.with_schema(Arc::clone(&self.schema)).map_err(|error| error.to_string())?;
            return Ok(Delta { rows, diffs: kept.diffs });
        };
        let columns = project.iter().map(|expr| evaluate(expr.as_ref(), &kept.rows)).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(|error| error.to_string())?;
        Ok(Delta { rows, diffs: kept.diffs })
    }
}

/// One column for `batch`, or why not. A panic in a kernel is a reason too.
pub fn evaluate(expr: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<ArrayRef, String> {
    let computed = catch_unwind(AssertUnwindSafe(|| expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()))));
    match computed {
        Ok(Ok(column)) => Ok(column),
        Ok(Err(error)) => Err(reason(&error)),
        Err(_) => Err(format!("{expr} failed on this row")),
    }
}

fn as_boolean(column: &ArrayRef) -> Result<&BooleanArray, String> {
    column.as_boolean_opt().ok_or_else(|| format!("a predicate must be BOOLEAN, not {}", column.data_type()))
}

/// What went wrong, without the layers that DataFusion wraps its errors in, and without a backtrace.
pub fn reason(error: &datafusion::error::DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    ["Execution error: ", "Arrow error: ", "External error: "]
        .iter()
        .find_map(|layer| text.strip_prefix(layer))
        .unwrap_or(&text)
        .to_string()
}

/// All of `parts` in one batch.
pub fn concat(schema: &SchemaRef, parts: &[RecordBatch]) -> RecordBatch {
    concat_batches(schema, parts).expect("parts of one schema")
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col};

    use super::*;

    #[test]
    fn a_division_by_zero_takes_only_its_own_row() {
        let input = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]));
        let quotient = binary(col("a", &input).unwrap(), Operator::Divide, col("b", &input).unwrap(), &input).unwrap();
        let program = RowProgram {
            predicate: None,
            project: Some(vec![quotient]),
            schema: Arc::new(Schema::new(vec![Field::new("q", DataType::Int64, true)])),
        };
        let rows = RecordBatch::try_new(input, vec![Arc::new(Int64Array::from(vec![6, 7, 8])), Arc::new(Int64Array::from(vec![2, 0, 4]))])
            .unwrap();
        let mut failures = Vec::new();
        let done = program.run(&Delta::new(rows, [1, 3, 1]), &mut failures);
        assert_eq!(done.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().values(), &[3, 2]);
        assert_eq!(failures, [Failure { reason: "Divide by zero error".into(), diff: 3 }]);
    }
}
