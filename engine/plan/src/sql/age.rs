//! `age(later, earlier)`: years, months, days and time from one to the other, as Postgres counts them. A day that is
//! lent comes from the month of the earlier time. `age(t)` is up to the midnight before `now()`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::{DatePart, date_part};
use arrow::datatypes::{DataType, Int32Type, IntervalMonthDayNano, IntervalUnit, TimestampMillisecondType};
use datafusion::common::{Result, exec_datafusion_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::millisecond;

const DAY_MS: i64 = 86_400_000;

pub(super) fn age() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Age { signature: Signature::user_defined(Volatility::Immutable) }))
}

/// Gives `age(t)` the time that it is counted up to.
pub(super) fn up_to_today(function: &mut ast::Function) {
    let is_age = function.name.to_string().eq_ignore_ascii_case("age");
    if let ast::FunctionArguments::List(list) = &mut function.args
        && is_age
        && list.args.len() == 1
    {
        let today = Parser::new(&PostgreSqlDialect {}).try_with_sql("date_trunc('day', now())").and_then(|mut parser| parser.parse_expr());
        list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(today.expect("an expression"))));
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Age {
    signature: Signature,
}

impl ScalarUDFImpl for Age {
    fn name(&self) -> &str {
        "age"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let is_time = |given: &DataType| matches!(given, DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8 | DataType::Null);
        match given {
            [later, earlier] if is_time(later) && is_time(earlier) => Ok(vec![millisecond(), millisecond()]),
            _ => plan_err!("age() takes a later and an earlier time"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times = ColumnarValue::values_to_arrays(&args.args)?;
        let (later, earlier) = (civil(&times[0])?, civil(&times[1])?);
        let ages =
            later.into_iter().zip(earlier).map(|(later, earlier)| later.zip(earlier).map(|(to, from)| between(to, from)).transpose());
        let ages: IntervalMonthDayNanoArray = ages.collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(ages)))
    }
}

/// A time in the calendar; their order is that of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Civil {
    year: i32,
    month: i32,
    day: i32,
    /// In milliseconds.
    time: i64,
}

fn civil(times: &ArrayRef) -> Result<Vec<Option<Civil>>> {
    let (years, months, days) = (date_part(times, DatePart::Year)?, date_part(times, DatePart::Month)?, date_part(times, DatePart::Day)?);
    let (years, months, days) = (years.as_primitive::<Int32Type>(), months.as_primitive::<Int32Type>(), days.as_primitive::<Int32Type>());
    let times = times.as_primitive::<TimestampMillisecondType>();
    let at = |(i, time): (usize, Option<i64>)| {
        let time = time?.rem_euclid(DAY_MS);
        let is_there = years.is_valid(i) && months.is_valid(i) && days.is_valid(i);
        is_there.then(|| Civil { year: years.value(i), month: months.value(i), day: days.value(i), time })
    };
    Ok(times.iter().enumerate().map(at).collect())
}

fn between(to: Civil, from: Civil) -> Result<IntervalMonthDayNano> {
    let (sign, later, earlier) = if from <= to { (1, to, from) } else { (-1, from, to) };
    let mut months = (later.year - earlier.year) * 12 + later.month - earlier.month;
    let mut days = later.day - earlier.day;
    let mut time = later.time - earlier.time;
    if time < 0 {
        time += DAY_MS;
        days -= 1;
    }
    if days < 0 {
        days += days_in(earlier.year, earlier.month);
        months -= 1;
    }
    let nanoseconds = time.checked_mul(1_000_000).ok_or_else(|| exec_datafusion_err!("the age is out of range"))?;
    Ok(IntervalMonthDayNano::new(sign * months, sign * days, i64::from(sign) * nanoseconds))
}

fn days_in(year: i32, month: i32) -> i32 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_as_in_postgres() {
        let at = |year, month, day, hour: i64| Civil { year, month, day, time: hour * 3_600_000 };
        for (to, from, expected) in [
            (at(2001, 4, 10, 0), at(1957, 6, 13, 0), (525, 27, 0)),
            (at(2024, 3, 1, 0), at(2024, 2, 29, 0), (0, 1, 0)),
            (at(2024, 3, 1, 0), at(2024, 1, 31, 0), (1, 1, 0)),
            (at(2023, 3, 1, 0), at(2023, 1, 31, 12), (1, 0, 12)),
            (at(2024, 1, 1, 0), at(2024, 1, 1, 6), (0, 0, -6)),
            (at(1957, 6, 13, 0), at(2001, 4, 10, 0), (-525, -27, 0)),
        ] {
            let (months, days, hours) = expected;
            assert_eq!(between(to, from).unwrap(), IntervalMonthDayNano::new(months, days, hours * 3_600_000_000_000), "{to:?} {from:?}");
        }
    }
}
