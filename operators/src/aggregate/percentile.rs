//! `percentile_cont`: the value at a share of a group's values in order, in proportion between two of them.
//!
//! Source  SQL:2003, 10.9: of n values the one at `share * (n - 1)`, `lower + (upper - lower) * rest`, as Postgres has
//!         it. DataFusion's own keeps six digits of the rest

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, ColumnarValue};

/// All of a group's values.
#[derive(Debug)]
pub(super) struct Percentile {
    share: f64,
    is_descending: bool,
    is_distinct: bool,
    of: DataType,
    values: Vec<f64>,
}

impl Percentile {
    /// `args`: as DataFusion's own takes them, over floats.
    pub(super) fn new(args: &AccumulatorArgs) -> Result<Self> {
        let share = args.exprs[1].evaluate(&RecordBatch::new_empty(args.schema.clone().into()))?;
        let ColumnarValue::Scalar(share) = share else { return exec_err!("percentile_cont() takes one share for all rows") };
        let ScalarValue::Float64(Some(share)) = share.cast_to(&DataType::Float64)? else {
            return exec_err!("the share of percentile_cont() is NULL");
        };
        let is_descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        let of = args.expr_fields[0].data_type().clone();
        Ok(Self { share, is_descending, is_distinct: args.is_distinct, of, values: Vec::new() })
    }

    fn take(&mut self, values: &ArrayRef) -> Result<()> {
        let values = cast(values, &DataType::Float64)?;
        self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        Ok(())
    }

    fn interpolated(&mut self) -> Option<f64> {
        self.values.sort_unstable_by(f64::total_cmp);
        if self.is_distinct {
            self.values.dedup();
        }
        let last = self.values.len().checked_sub(1)?;
        let at = self.share * last as f64;
        let (lower, upper) = (at.floor() as usize, at.ceil() as usize);
        let value = |i: usize| self.values[if self.is_descending { last - i } else { i }];
        match lower == upper {
            true => Some(value(lower)),
            false => Some(value(lower) + (value(upper) - value(lower)) * (at - lower as f64)),
        }
    }
}

impl Accumulator for Percentile {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.take(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::Float64(self.interpolated()).cast_to(&self.of)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = cast(&Float64Array::from(self.values.clone()), &self.of)?;
        let values = (0..values.len()).map(|i| ScalarValue::try_from_array(&values, i)).collect::<Result<Vec<_>>>()?;
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.of))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.take(&values))
    }
}
