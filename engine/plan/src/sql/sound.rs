//! What DataFusion plans and then answers otherwise than SQL does: said so that it is right, or
//! refused. Holds for views and for reads.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Case, Distinct, DistinctOn, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, ident, lit,
};
use tidegate_types::error::{Error, Mistake, Result};

use super::dates::compares;
use super::functions::{Ties, canonical, named, rounded};
use super::intervals::is_by_number;
use super::planning_error;
use super::subqueries::joined;

/// `plan`, meaning what its text says.
///
/// Errors: it cannot be made to.
pub fn sound(plan: LogicalPlan) -> Result<LogicalPlan> {
    let numbered = plan.transform_up_with_subqueries(first_of_each);
    let joined = numbered.and_then(|numbered| joined(numbered.data)).map_err(|error| planning_error(&error))?;
    let rewritten = joined.transform_up_with_subqueries(|node| {
        if let Some(error) = ambiguous_order(&node).or_else(|| distinct_orders(&node)) {
            return Err(DataFusionError::External(Box::new(error)));
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| match refusal(&expr) {
                Some(error) => Err(DataFusionError::External(Box::new(error))),
                None => known_sketch(expr, &schema)?
                    .transform_data(|expr| comparison(expr, &schema))?
                    .transform_data(|expr| rounding(expr, &schema))?
                    .transform_data(|expr| part_of_duration(expr, &schema)),
            });
            Ok(rewritten?.update_data(|expr| name.restore(expr)))
        })
    });
    rewritten.map(|rewritten| rewritten.data).map_err(|error| planning_error(&error))
}

/// DISTINCT ON as the first row by number: DataFusion would push a filter on what it keeps to what it chooses
/// from, and forget the order where a LIMIT follows.
fn first_of_each(node: LogicalPlan) -> datafusion::common::Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Distinct(Distinct::On(DistinctOn { on_expr, select_expr, sort_expr, input, .. })) = node else {
        return Ok(Transformed::no(node));
    };
    let order = sort_expr.unwrap_or_default();
    let number = row_number().partition_by(on_expr).order_by(order.clone()).build()?;
    let is_first = ident(number.schema_name().to_string()).eq(lit(1u64));
    let first = LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).window([number])?.filter(is_first)?;
    let sorted = if order.is_empty() { first } else { first.sort(order)? };
    Ok(Transformed::yes(sorted.project(select_expr)?.build()?))
}

/// A name within an expression of ORDER BY is that of a column there is; DataFusion takes a new one first.
fn ambiguous_order(node: &LogicalPlan) -> Option<Error> {
    let LogicalPlan::Sort(sort) = node else { return None };
    let LogicalPlan::Projection(selected) = sort.input.as_ref() else { return None };
    let given = selected.expr.iter().filter_map(|expr| match expr {
        Expr::Alias(alias) if !matches!(alias.expr.as_ref(), Expr::Column(column) if column.name == alias.name) => Some(&alias.name),
        _ => None,
    });
    let given: Vec<&String> = given.filter(|name| selected.input.schema().has_column_with_unqualified_name(name)).collect();
    let keys = sort.expr.iter().map(|key| &key.expr).filter(|key| !matches!(key, Expr::Column(_) | Expr::Alias(_)));
    let meant = keys.flat_map(Expr::column_refs).filter(|column| column.relation.is_none() && given.contains(&&column.name));
    let name = meant.map(|column| &column.name).min()?;
    let error = Error::user(format!("column \"{name}\" within an expression of ORDER BY is ambiguous"));
    Some(
        error
            .hint("write the relation before the column's name, or select the expression, and order by it")
            .mistake(Mistake::AmbiguousColumn),
    )
}

/// DataFusion gives all distinct aggregates the order of the first, and plans none that are distinct beside others of
/// another order.
fn distinct_orders(node: &LogicalPlan) -> Option<Error> {
    let LogicalPlan::Aggregate(aggregate) = node else { return None };
    let calls = aggregate.aggr_expr.iter().filter_map(|expr| match expr.clone().unalias() {
        Expr::AggregateFunction(call) if !call.params.order_by.is_empty() && !call.func.supports_within_group_clause() => Some(call.params),
        _ => None,
    });
    let calls: Vec<_> = calls.collect();
    let first = calls.iter().find(|params| params.distinct)?;
    calls.iter().find(|params| params.order_by != first.order_by)?;
    let what = "an aggregate of DISTINCT values in order beside one in another order";
    Some(Error::unsupported(what, "give each a query of its own, and join them, or select them as subqueries"))
}

/// `approx_distinct`, over what it has no sketch of.
fn known_sketch(expr: Expr, schema: &DFSchema) -> datafusion::common::Result<Transformed<Expr>> {
    if let Expr::AggregateFunction(call) = &expr
        && call.func.name() == "approx_distinct"
        && call.params.args.iter().any(|value| is_float(value, schema))
    {
        let error = Error::unsupported("approx_distinct() of a float", "count(DISTINCT x), or cast it: approx_distinct(x::TEXT)");
        return Err(DataFusionError::External(Box::new(error)));
    }
    Ok(Transformed::no(expr))
}

fn refusal(expr: &Expr) -> Option<Error> {
    match expr {
        Expr::AggregateFunction(call) if call.params.distinct && 1 < call.params.args.len() && call.func.name() == "count" => {
            Some(Error::unsupported("count(DISTINCT) of several columns", "SELECT DISTINCT them in a subquery, and count its rows"))
        }
        // Without a pattern to_char would answer the format itself.
        Expr::ScalarFunction(call) if matches!(call.func.name(), "to_char" | "to_date" | "to_timestamp") => match &call.args[..] {
            [_, Expr::Literal(format, _)] if format.try_as_str().flatten().is_some_and(|format| !format.contains('%')) => {
                Some(Error::unsupported(
                    format!("{}() with the format {format}", call.func.name()),
                    "use strftime's patterns: '%Y-%m-%d %H:%M:%S'",
                ))
            }
            _ => None,
        },
        Expr::WindowFunction(call) => super::detectors::refusal(call),
        _ => None,
    }
}

/// Intervals are compared field by field, so a day is neither more nor less than 24 hours; rows
/// are compared without regard to NULL; floats by their bits, so -0 is less than 0.
fn comparison(expr: Expr, schema: &DFSchema) -> datafusion::common::Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let sides = comparable(vec![*left, *right], schema)?;
            Ok(sides.update_data(|sides| {
                let [left, right] = <[Expr; 2]>::try_from(sides).expect("two went in");
                Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
            }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let sides = comparable(vec![*expr, *low, *high], schema)?;
            Ok(sides.update_data(|sides| {
                let [expr, low, high] = <[Expr; 3]>::try_from(sides).expect("three went in").map(Box::new);
                Expr::Between(Between { expr, negated, low, high })
            }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let sides = comparable(std::iter::once(*expr).chain(list).collect(), schema)?;
            Ok(sides.update_data(|mut sides| {
                let list = sides.split_off(1);
                Expr::InList(InList { expr: Box::new(sides.remove(0)), list, negated })
            }))
        }
        Expr::Case(Case { expr: Some(base), when_then_expr, else_expr }) => {
            let (whens, thens): (Vec<_>, Vec<_>) = when_then_expr.into_iter().unzip();
            let sides = comparable(std::iter::once(*base).chain(whens.into_iter().map(|when| *when)).collect(), schema)?;
            Ok(sides.update_data(|mut sides| {
                let whens = sides.split_off(1).into_iter().map(Box::new);
                let expr = Some(Box::new(sides.remove(0)));
                Expr::Case(Case { expr, when_then_expr: whens.zip(thens).collect(), else_expr })
            }))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if matches!(func.name(), "nullif" | "greatest" | "least") => {
            Ok(comparable(args, schema)?.update_data(|args| Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        Expr::WindowFunction(mut function) if function.params.order_by.iter().any(|key| is_float(&key.expr, schema)) => {
            let name = Expr::WindowFunction(function.clone()).schema_name().to_string();
            for key in function.params.order_by.iter_mut().filter(|key| is_float(&key.expr, schema)) {
                key.expr = canonical(key.expr.clone());
            }
            Ok(Transformed::yes(Expr::WindowFunction(function).alias(name)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A cast that loses digits behind the point rounds. What it is called stays: others may refer to it.
fn rounding(expr: Expr, schema: &DFSchema) -> datafusion::common::Result<Transformed<Expr>> {
    let (number, target, or_null) = match &expr {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type(), false),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type(), true),
        _ => return Ok(Transformed::no(expr)),
    };
    let from = number.get_type(schema)?;
    let loses = match (scale(&from), scale(target)) {
        (Some(from), Some(to)) => to < from,
        (from_scale, None) => target.is_integer() && (from_scale.is_some() || from.is_floating()),
        (None, Some(_)) => false,
    };
    if !loses {
        return Ok(Transformed::no(expr));
    }
    let ties = if is_numeric(number, schema)? { Ties::AwayFromZero } else { Ties::Even };
    let name = expr.schema_name().to_string();
    Ok(Transformed::yes(named(rounded(number.as_ref().clone(), target, ties, or_null), name)))
}

/// What is between two timestamps has seconds with a fraction, which DataFusion drops; hours and the
/// like it counts in all, where SQL has those beside the days.
fn part_of_duration(expr: Expr, schema: &DFSchema) -> datafusion::common::Result<Transformed<Expr>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = &expr else { return Ok(Transformed::no(expr)) };
    let ("date_part", [Expr::Literal(part, _), of]) = (func.name(), &args[..]) else { return Ok(Transformed::no(expr)) };
    let DataType::Duration(unit) = of.get_type(schema)? else { return Ok(Transformed::no(expr)) };
    match part.try_as_str().flatten().unwrap_or_default().to_lowercase().as_str() {
        "epoch" => {
            let per_second = match unit {
                TimeUnit::Second => 1.0,
                TimeUnit::Millisecond => 1e3,
                TimeUnit::Microsecond => 1e6,
                TimeUnit::Nanosecond => 1e9,
            };
            let name = expr.schema_name().to_string();
            let seconds = cast(cast(of.clone(), DataType::Int64), DataType::Float64) / lit(per_second);
            Ok(Transformed::yes(named(seconds, name)))
        }
        "day" | "days" => Ok(Transformed::no(expr)),
        part => {
            let error = Error::unsupported(
                format!("extract({part} FROM a difference of timestamps)"),
                "compute with its seconds: extract(epoch FROM b - a)",
            );
            Err(DataFusionError::External(Box::new(error)))
        }
    }
}

fn scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    }
}

/// Whether Postgres would compute with NUMERIC: decimals, and numbers with a point as they are written.
fn is_numeric(expr: &Expr, schema: &DFSchema) -> datafusion::common::Result<bool> {
    let is_double = expr.exists(|expr| match expr {
        Expr::Literal(..) | Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Alias(_) => Ok(false),
        other => Ok(other.get_type(schema)?.is_floating()),
    });
    Ok(!is_double?)
}

fn is_float(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| data_type.is_floating())
}

/// A number among floats. DataFusion compares decimals with them as decimals, which have room for few floats.
fn comparable_number(side: Expr, data_type: &DataType) -> Expr {
    let name = side.schema_name().to_string();
    match side {
        Expr::Literal(ScalarValue::Float64(Some(number)), metadata) => Expr::Literal(ScalarValue::Float64(Some(number + 0.0)), metadata),
        Expr::Literal(..) => side,
        _ if data_type.is_floating() => named(canonical(side), name),
        _ if data_type.is_decimal() => named(cast(side, DataType::Float64), name),
        _ => side,
    }
}

fn comparable(sides: Vec<Expr>, schema: &DFSchema) -> datafusion::common::Result<Transformed<Vec<Expr>>> {
    let types = sides.iter().map(|side| side.get_type(schema)).collect::<datafusion::common::Result<Vec<_>>>()?;
    let refused = |what: &str, hint: &str| Err(DataFusionError::External(Box::new(Error::unsupported(what, hint))));
    if types.iter().any(|data_type| matches!(data_type, DataType::Struct(_))) {
        return refused("a comparison of rows", "compare column by column");
    }
    if types.iter().any(DataType::is_floating) {
        let sides = sides.into_iter().zip(types).map(|(side, data_type)| comparable_number(side, &data_type));
        return Ok(Transformed::yes(sides.collect()));
    }
    if !types.iter().any(|data_type| matches!(data_type, DataType::Interval(_))) {
        return Ok(Transformed::no(sides));
    }
    let mut lengths = Vec::with_capacity(sides.len());
    for (side, data_type) in sides.into_iter().zip(types) {
        lengths.push(match (in_nanoseconds(&side)?, data_type) {
            (Some(length), _) => length,
            (None, DataType::Duration(_) | DataType::Null) => side,
            (None, _) => {
                return refused(
                    "a comparison of intervals that are columns or have months",
                    "compare the timestamps: a > b + INTERVAL '1 month'",
                );
            }
        });
    }
    Ok(Transformed::yes(lengths))
}

/// An interval as it is written, or so many of it, where it has no months: as one that has no days either.
///
/// Errors: it is too long.
fn in_nanoseconds(length: &Expr) -> datafusion::common::Result<Option<Expr>> {
    match length {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), metadata) if value.months == 0 => {
            let days = i64::from(value.days).checked_mul(86_400_000_000_000);
            let Some(nanoseconds) = days.and_then(|days| days.checked_add(value.nanoseconds)) else {
                return Err(DataFusionError::External(Box::new(Error::unsupported("so long an interval", "compare the timestamps"))));
            };
            let length = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNanoType::make_value(0, 0, nanoseconds)));
            Ok(Some(Expr::Literal(length, metadata.clone())))
        }
        Expr::Negative(length) => Ok(in_nanoseconds(length)?.map(|length| Expr::Negative(Box::new(length)))),
        Expr::ScalarFunction(call) if is_by_number(&call.func) => {
            let [length, number] = &call.args[..] else { return Ok(None) };
            Ok(in_nanoseconds(length)?.map(|length| call.func.call(vec![length, number.clone()])))
        }
        _ => Ok(None),
    }
}
