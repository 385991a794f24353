//! Intervals by numbers, as Postgres counts: what is a part of a month goes on as days, 30 to the month, and what is a
//! part of a day as time. DataFusion knows no such operator, and of `-INTERVAL '1 month 3 days'` it negates the month only.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, IntervalMonthDayNanoArray};
use arrow::compute::{cast, try_binary};
use arrow::datatypes::{DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast as cast_expr,
};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, UnaryOperator};

/// `-INTERVAL '…'` as `-(INTERVAL '…')`, which is negated once it is planned, and not as text.
pub(super) fn negate_whole(expr: &mut ast::Expr) {
    if let ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr: negated } = expr
        && let ast::Expr::Interval(_) = negated.as_ref()
    {
        **negated = ast::Expr::Nested(negated.clone());
    }
}

/// Plans products and quotients of an interval, or a difference of times, and a number.
#[derive(Debug)]
pub(super) struct ByNumbers;

impl ExprPlanner for ByNumbers {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let (length, number) = match op {
            _ if is_length(&left) && is_number(&right) => (expr.left, expr.right),
            Operator::Multiply if is_number(&left) && is_length(&right) => (expr.right, expr.left),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let by_number = ByNumber { op, signature: Signature::any(2, Volatility::Immutable) };
        Ok(PlannerResult::Planned(ScalarUDF::from(by_number).call(vec![length, cast_expr(number, DataType::Float64)])))
    }
}

fn is_length(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(IntervalUnit::MonthDayNano) | DataType::Duration(_))
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || data_type.is_null()
}

/// Whether the function's value is its first argument by its second, a number.
pub(super) fn is_by_number(function: &ScalarUDF) -> bool {
    function.inner().is::<ByNumber>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByNumber {
    op: Operator,
    signature: Signature,
}

impl ByNumber {
    fn of(&self, value: f64, number: f64) -> Result<f64, ArrowError> {
        match self.op {
            Operator::Divide if number == 0.0 => Err(ArrowError::DivideByZero),
            Operator::Divide => Ok(value / number),
            _ => Ok(value * number),
        }
    }

    /// Source: PostgreSQL 15, `interval_mul` and `interval_div`.
    fn length(&self, length: IntervalMonthDayNano, number: f64) -> Result<IntervalMonthDayNano, ArrowError> {
        let months = self.of(length.months.into(), number)?;
        let days = self.of(length.days.into(), number)?;
        let micros = self.of((length.nanoseconds / 1_000) as f64, number)?;
        let days_of_month = to_millionths(months.fract() * 30.0);
        let seconds = to_millionths((days.fract() + days_of_month.fract()) * 86_400.0);
        let days_of_seconds = (seconds / 86_400.0).trunc();
        let days = days.trunc() + days_of_month.trunc() + days_of_seconds;
        let micros = (micros + (seconds - days_of_seconds * 86_400.0) * 1e6).round_ties_even();
        Ok(IntervalMonthDayNano {
            months: within(months, 1u64 << 31)? as i32,
            days: within(days, 1u64 << 31)? as i32,
            nanoseconds: within(micros, i64::MAX as u64 / 1_000)? as i64 * 1_000,
        })
    }
}

fn to_millionths(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}

/// Errors: it is `most` or more, or no number.
fn within(value: f64, most: u64) -> Result<f64, ArrowError> {
    match value.abs() < most as f64 {
        true => Ok(value),
        false => Err(ArrowError::ArithmeticOverflow("interval out of range".into())),
    }
}

impl ScalarUDFImpl for ByNumber {
    fn name(&self) -> &str {
        match self.op {
            Operator::Divide => "divide_interval",
            _ => "multiply_interval",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [lengths, numbers] = &args.args[..] else { return plan_err!("{} takes an interval and a number", self.name()) };
        let (lengths, numbers) = (lengths.to_array(args.number_rows)?, numbers.to_array(args.number_rows)?);
        let numbers = numbers.as_primitive::<Float64Type>();
        let by_number: ArrayRef = match lengths.data_type() {
            DataType::Duration(_) => {
                let units = cast(&lengths, &DataType::Int64)?;
                let whole = |units: i64, number| within(self.of(units as f64, number)?.round_ties_even(), i64::MAX as u64);
                let units: Int64Array =
                    try_binary(units.as_primitive::<Int64Type>(), numbers, |units, number| Ok(whole(units, number)? as i64))?;
                cast(&units, lengths.data_type())?
            }
            _ => {
                let lengths = lengths.as_primitive::<IntervalMonthDayNanoType>();
                let by_number: IntervalMonthDayNanoArray = try_binary(lengths, numbers, |length, number| self.length(length, number))?;
                Arc::new(by_number)
            }
        };
        Ok(ColumnarValue::Array(by_number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_months_are_days_and_parts_of_days_are_time() {
        const HOUR: i64 = 3_600_000_000_000;
        let length = |(months, days, nanoseconds)| IntervalMonthDayNano { months, days, nanoseconds };
        for (op, of, number, expected) in [
            (Operator::Multiply, (0, 1, 0), 3.0, (0, 3, 0)),
            (Operator::Multiply, (0, 1, 0), 1.5, (0, 1, 12 * HOUR)),
            (Operator::Multiply, (0, 0, HOUR), -0.5, (0, 0, -HOUR / 2)),
            (Operator::Multiply, (1, 0, 0), 0.5, (0, 15, 0)),
            (Operator::Multiply, (1, 3, 4 * HOUR), 2.5, (2, 22, 22 * HOUR)),
            (Operator::Divide, (1, 0, 0), 3.0, (0, 10, 0)),
            (Operator::Divide, (14, 0, 0), -4.0, (-3, -15, 0)),
            (Operator::Divide, (0, 0, HOUR), 7.0, (0, 0, 514_285_714_000)),
        ] {
            let by_number = ByNumber { op, signature: Signature::any(2, Volatility::Immutable) };
            assert_eq!(by_number.length(length(of), number).unwrap(), length(expected), "{of:?} {op} {number}");
        }
    }

    #[test]
    fn what_is_no_interval_is_an_error() {
        let day = IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 };
        let by = |op, number| ByNumber { op, signature: Signature::any(2, Volatility::Immutable) }.length(day, number);
        for (op, number) in [
            (Operator::Divide, 0.0),
            (Operator::Multiply, f64::NAN),
            (Operator::Multiply, f64::INFINITY),
            (Operator::Multiply, 2_147_483_648.0),
        ] {
            assert!(by(op, number).is_err(), "{op} {number}");
        }
    }
}
