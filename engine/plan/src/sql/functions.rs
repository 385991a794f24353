//! DataFusion's functions and casts where they answer NULL, cut off or wrap around, said so that
//! they answer right or fail.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int64Type, IntervalMonthDayNanoType, TimestampMillisecondType,
};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr_common::datum::apply;
use tidegate_types::error::{Error, Mistake};
use tidegate_types::row::canonical_floats;

use super::millisecond;

/// `date_bin` over all times there are. DataFusion's goes by nanoseconds, and is NULL outside of
/// the years 1677 to 2262.
pub(crate) fn date_bin() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(DateBin(datetime::date_bin())))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin(Arc<ScalarUDF>);

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.0.output_ordering(inputs)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(bins) = Bins::of(&args.args)? {
            let times = args.args[1].to_array(args.number_rows)?;
            let starts: PrimitiveArray<TimestampMillisecondType> =
                times.as_primitive::<TimestampMillisecondType>().try_unary(|time| bins.start(time))?;
            return Ok(ColumnarValue::Array(Arc::new(starts)));
        }
        let (stride, times) = (args.args[0].clone(), args.args[1].clone());
        let starts = self.0.invoke_with_args(args)?;
        let is_lost = match (&starts, &times) {
            (ColumnarValue::Array(starts), ColumnarValue::Array(times)) => times.null_count() < starts.null_count(),
            (ColumnarValue::Scalar(start), ColumnarValue::Scalar(time)) => start.is_null() && !time.is_null(),
            _ => false,
        };
        if is_lost && !matches!(&stride, ColumnarValue::Scalar(stride) if stride.is_null()) {
            return exec_err!("the start of the bin of this time is out of range");
        }
        Ok(starts)
    }
}

/// Bins of equal length, in milliseconds.
struct Bins {
    stride: i64,
    origin: i64,
}

impl Bins {
    /// None where the times are none in milliseconds, or the stride has months.
    fn of(args: &[ColumnarValue]) -> Result<Option<Self>> {
        let ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(stride))) = &args[0] else { return Ok(None) };
        let (months, days, nanoseconds) = IntervalMonthDayNanoType::to_parts(*stride);
        if args[1].data_type() != millisecond() || months != 0 {
            return Ok(None);
        }
        let origin = match args.get(2) {
            None => 0,
            Some(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), _))) => *origin,
            Some(_) => return Ok(None),
        };
        let stride = i64::from(days) * 86_400_000 + nanoseconds / 1_000_000;
        if stride <= 0 || nanoseconds % 1_000_000 != 0 || origin % 1_000_000 != 0 {
            return exec_err!("date_bin takes a positive stride and an origin in whole milliseconds");
        }
        Ok(Some(Self { stride, origin: origin / 1_000_000 }))
    }

    fn start(&self, time: i64) -> Result<i64> {
        let (stride, origin) = (i128::from(self.stride), i128::from(self.origin));
        let start = origin + (i128::from(time) - origin).div_euclid(stride) * stride;
        i64::try_from(start).map_err(|_| exec_datafusion_err!("the start of the bin of this time is out of range"))
    }
}

/// A cast of `number` that loses digits behind the point. Postgres rounds, where DataFusion cuts off
/// or compares the number itself with a literal.
pub(super) fn rounded(number: Expr, target: &DataType, ties: Ties, or_null: bool) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::from(Rounded { target: target.clone(), ties, or_null, signature }).call(vec![number])
}

/// Where a half of a float goes. A decimal's goes away from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ties {
    /// As of Postgres's DOUBLE PRECISION.
    Even,
    /// As of its NUMERIC.
    AwayFromZero,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounded {
    target: DataType,
    ties: Ties,
    /// TRY_CAST.
    or_null: bool,
    signature: Signature,
}

impl Rounded {
    /// `numbers` without digits behind the point, where the target is an integer.
    fn whole(&self, numbers: &ArrayRef) -> Result<ArrayRef> {
        Ok(match (numbers.data_type(), self.ties) {
            _ if !self.target.is_integer() => Arc::clone(numbers),
            (DataType::Float64, Ties::Even) => floats::<Float64Type>(numbers, f64::round_ties_even),
            (DataType::Float64, Ties::AwayFromZero) => floats::<Float64Type>(numbers, f64::round),
            (DataType::Float32, Ties::Even) => floats::<Float32Type>(numbers, f32::round_ties_even),
            (DataType::Float32, Ties::AwayFromZero) => floats::<Float32Type>(numbers, f32::round),
            (DataType::Decimal128(precision, 1..), _) => cast_strictly(numbers, &DataType::Decimal128(*precision, 0))?,
            (DataType::Decimal256(precision, 1..), _) => cast_strictly(numbers, &DataType::Decimal256(*precision, 0))?,
            _ => Arc::clone(numbers),
        })
    }
}

fn floats<T: ArrowPrimitiveType>(numbers: &ArrayRef, round: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let rounded: PrimitiveArray<T> = numbers.as_primitive::<T>().unary(round);
    Arc::new(rounded)
}

fn cast_strictly(numbers: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(numbers, target, &CastOptions { safe: false, ..CastOptions::default() })?)
}

impl ScalarUDFImpl for Rounded {
    fn name(&self) -> &str {
        "rounded"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let whole = self.whole(&args.args[0].to_array(args.number_rows)?)?;
        Ok(ColumnarValue::Array(match self.or_null {
            true => cast(&whole, &self.target)?,
            false => cast_strictly(&whole, &self.target)?,
        }))
    }
}

/// `float` with one zero and one NaN, as SQL compares them; Arrow tells -0 from 0, and NaN from NaN.
pub(super) fn canonical(float: Expr) -> Expr {
    ScalarUDF::from(Canonical { signature: Signature::any(1, Volatility::Immutable) }).call(vec![float])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Array(canonical_floats(&args.args[0].to_array(args.number_rows)?)))
    }
}

/// `value`, which is that of `rows` rows: more than one are an error.
pub(super) fn only_row(rows: Expr, value: Expr) -> Expr {
    ScalarUDF::from(OnlyRow { signature: Signature::any(2, Volatility::Immutable) }).call(vec![rows, value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyRow {
    signature: Signature,
}

impl ScalarUDFImpl for OnlyRow {
    fn name(&self) -> &str {
        "only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.args[0].to_array(args.number_rows)?;
        if rows.as_primitive::<Int64Type>().iter().flatten().any(|rows| 1 < rows) {
            let error = Error::user("more than one row returned by a subquery used as an expression").mistake(Mistake::SeveralRows);
            return Err(DataFusionError::External(Box::new(error)));
        }
        Ok(args.args[1].clone())
    }
}

/// Whether the function's value has its first argument's type, whatever that is.
pub(super) fn keeps_type(function: &ScalarUDF) -> bool {
    let inner = function.inner();
    inner.is::<Checked>() || inner.is::<Canonical>()
}

/// `expr` under the name that others refer to it by. What is within it loses its own: DataFusion looks at
/// what a name stands for twice, and so at what is n names deep 2^n times.
pub(super) fn named(expr: Expr, name: String) -> Expr {
    let plain = expr.transform_up(|expr| match expr {
        Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
        other => Ok(Transformed::no(other)),
    });
    plain.expect("the closure does not fail").data.alias(name)
}

/// `left op right` of integers, failing where DataFusion's wraps around.
pub(super) fn checked(left: Expr, op: Operator, right: Expr) -> Expr {
    let signature = Signature::any(2, Volatility::Immutable);
    ScalarUDF::from(Checked { op, signature }).call(vec![left, right])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else { return plan_err!("{} takes two integers", self.name()) };
        match self.op {
            Operator::Plus => apply(left, right, add),
            Operator::Minus => apply(left, right, sub),
            _ => apply(left, right, mul),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_reach_from_end_to_end() {
        let hours = Bins { stride: 3_600_000, origin: 0 };
        for (time, start) in [(0, 0), (-1, -3_600_000), (3_600_001, 3_600_000), (253_402_300_799_999, 253_402_297_200_000)] {
            assert_eq!(hours.start(time).unwrap(), start);
        }
        assert!(hours.start(i64::MIN).is_err());
        assert_eq!(Bins { stride: i64::MAX, origin: i64::MAX }.start(i64::MAX).unwrap(), i64::MAX);
    }
}
