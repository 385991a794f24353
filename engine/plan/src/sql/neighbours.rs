//! `lag(x, n, d)` and `lead(x, n, d)` where `d` is no constant, or has digits behind the point that `x` has no room for:
//! `d` where there is no such row, and x of that row where there is one. DataFusion takes constants of x's type only.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ident, lit, when};

use super::dates::renewed;

pub(super) fn with_defaults(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut is_changed = false;
    let defaulted = plan.transform_up_with_subqueries(|node| {
        let node = chosen(node)?;
        is_changed |= node.transformed;
        // What is above a change may have another type, too.
        if is_changed { node.map_data(renewed) } else { Ok(node) }
    });
    Ok(defaulted?.data)
}

fn chosen(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Window(window) = &node else { return Ok(Transformed::no(node)) };
    let schema = window.input.schema();
    let defaulted = window.window_expr.iter().map(|expr| Defaulted::of(expr, schema)).collect::<Result<Vec<_>>>()?;
    if defaulted.iter().all(Option::is_none) {
        return Ok(Transformed::no(node));
    }
    let mut calls: Vec<Expr> = Vec::new();
    let mut called = |call: &Expr| {
        if !calls.contains(call) {
            calls.push(call.clone());
        }
        ident(call.schema_name().to_string())
    };
    let mut columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    for (expr, defaulted) in window.window_expr.iter().zip(defaulted) {
        columns.push(match defaulted {
            None => called(expr),
            Some(Defaulted { value, is_there, default }) => {
                let mut value_there = when(called(&is_there).is_not_null(), called(&value));
                value_there.otherwise(default)?.alias(expr.schema_name().to_string())
            }
        });
    }
    let input = Arc::unwrap_or_clone(Arc::clone(&window.input));
    Ok(Transformed::yes(LogicalPlanBuilder::from(input).window(calls)?.project(columns)?.build()?))
}

/// A call by its default.
struct Defaulted {
    value: Expr,
    /// NULL where there is no such row.
    is_there: Expr,
    default: Expr,
}

impl Defaulted {
    fn of(expr: &Expr, schema: &DFSchema) -> Result<Option<Self>> {
        let Expr::WindowFunction(function) = expr else { return Ok(None) };
        let ("lag" | "lead", [of, offset, default]) = (function.fun.name(), &function.params.args[..]) else { return Ok(None) };
        let has_no_room = || -> Result<bool> {
            let of = of.get_type(schema)?;
            Ok(default.get_type(schema)?.is_floating() && (of.is_integer() || of.is_decimal()))
        };
        if default.column_refs().is_empty() && !has_no_room()? {
            return Ok(None);
        }
        let call = |args| {
            let mut call = WindowFunction::clone(function);
            call.params.args = args;
            Expr::from(call)
        };
        let value = call(vec![of.clone(), offset.clone()]);
        let is_there = match function.params.null_treatment {
            Some(NullTreatment::IgnoreNulls) => value.clone(),
            _ => call(vec![lit(true), offset.clone()]),
        };
        Ok(Some(Self { value, is_there, default: default.clone() }))
    }
}
