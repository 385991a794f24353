//! A condition that is true also where it cannot be computed: what may match is not absent.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::PhysicalExpr;
use tidegate_types::expr::evaluate;

/// `condition`, or true where that fails.
pub(super) fn or_fails(condition: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(OrFails(condition))
}

#[derive(Debug, Eq)]
struct OrFails(Arc<dyn PhysicalExpr>);

// What is derived would move out of the other.
impl PartialEq for OrFails {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for OrFails {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl OrFails {
    /// Halves a batch that fails, as `RowProgram` does, until the rows at fault are alone.
    fn column(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        match evaluate(self.0.as_ref(), batch) {
            Ok(column) => Ok(column),
            Err(_) if batch.num_rows() < 2 => Ok(Arc::new(BooleanArray::from(vec![true; batch.num_rows()]))),
            Err(_) => {
                let half = batch.num_rows() / 2;
                let [first, second] = [batch.slice(0, half), batch.slice(half, batch.num_rows() - half)];
                Ok(concat(&[&self.column(&first)?, &self.column(&second)?])?)
            }
        }
    }
}

impl fmt::Display for OrFails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} or fails", self.0)
    }
}

impl PhysicalExpr for OrFails {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.0.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Array(self.column(batch)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(or_fails(children.remove(0)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
