//! A DATE among TIMESTAMPs is its midnight in milliseconds, as they are, and so is a text that one is compared
//! with. DataFusion would make nanoseconds of all of them, which know the years 1677 to 2262 only. A DATE and an
//! INTERVAL make a TIMESTAMP, where DataFusion would drop the hours.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Cast, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Case, Expr, ExprSchemable, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, Union, Values, cast, lit,
};

use super::millisecond;

pub(super) fn among_timestamps(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut is_changed = false;
    let met = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|expr| within(expr, &schema))?.update_data(|expr| name.restore(expr)))
        })?;
        let node = node.transform_data(between_inputs)?;
        is_changed |= node.transformed;
        // What is above a change has other types, too.
        if is_changed { node.map_data(renewed) } else { Ok(node) }
    });
    Ok(met?.data)
}

fn within(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if shifts(&left, op, &right, schema)? => {
            let (left, right) = (midnight(*left, schema)?, midnight(*right, schema)?);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) || op == Operator::Minus => {
            let sides = together(vec![*left, *right], compares(op), schema)?;
            Ok(sides.update_data(|sides| {
                let [left, right] = <[Expr; 2]>::try_from(sides).expect("two went in").map(Box::new);
                Expr::BinaryExpr(BinaryExpr { left, op, right })
            }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let sides = together(vec![*expr, *low, *high], true, schema)?;
            Ok(sides.update_data(|sides| {
                let [expr, low, high] = <[Expr; 3]>::try_from(sides).expect("three went in").map(Box::new);
                Expr::Between(Between { expr, negated, low, high })
            }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let sides = together(std::iter::once(*expr).chain(list).collect(), true, schema)?;
            Ok(sides.update_data(|mut sides| {
                let list = sides.split_off(1);
                Expr::InList(InList { expr: Box::new(sides.remove(0)), list, negated })
            }))
        }
        Expr::InSubquery(membership) => membership_of(membership, schema),
        Expr::Case(case) => case_of(case, |sides, are_compared| together(sides, are_compared, schema)),
        Expr::ScalarFunction(ScalarFunction { func, args })
            if matches!(func.name(), "coalesce" | "nvl" | "nullif" | "greatest" | "least") =>
        {
            Ok(together(args, false, schema)?.update_data(|args| Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether a date is moved by an interval.
fn shifts(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Result<bool> {
    if !matches!(op, Operator::Plus | Operator::Minus) {
        return Ok(false);
    }
    Ok(match (left.get_type(schema)?, right.get_type(schema)?) {
        (DataType::Date32, DataType::Interval(_)) => true,
        (DataType::Interval(_), DataType::Date32) => op == Operator::Plus,
        _ => false,
    })
}

/// A date as a time, and what is none as it is.
fn midnight(side: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(if side.get_type(schema)? == DataType::Date32 { cast(side, millisecond()) } else { side })
}

pub(super) fn compares(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// `case` with `change` made to what it chooses from and to what it compares, of which `change` is told the latter.
pub(super) fn case_of(case: Case, change: impl Fn(Vec<Expr>, bool) -> Result<Transformed<Vec<Expr>>>) -> Result<Transformed<Expr>> {
    let Case { expr: base, when_then_expr, else_expr } = case;
    let (whens, thens): (Vec<Expr>, Vec<Expr>) = when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let (has_base, branches) = (base.is_some(), thens.len());
    let values = change(thens.into_iter().chain(else_expr.map(|value| *value)).collect(), false)?;
    let compared = match base {
        Some(base) => change(std::iter::once(*base).chain(whens).collect(), true)?,
        None => Transformed::no(whens),
    };
    let is_changed = values.transformed || compared.transformed;
    let (mut values, mut whens) = (values.data, compared.data);
    let else_expr = values.split_off(branches).pop().map(Box::new);
    let base = has_base.then(|| Box::new(whens.remove(0)));
    let when_then_expr = whens.into_iter().zip(values).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    Ok(Transformed::new_transformed(Expr::Case(Case { expr: base, when_then_expr, else_expr }), is_changed))
}

fn membership_of(membership: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let InSubquery { expr, subquery, negated } = membership;
    let (of, among) = (expr.get_type(schema)?, subquery.subquery.schema().field(0).data_type().clone());
    let (is_changed, expr, subquery) = match meet(&[of.clone(), among]) {
        false => (false, expr, subquery),
        true if of == DataType::Date32 => (true, Box::new(cast(*expr, millisecond())), subquery),
        true => (true, expr, Subquery { subquery: with_times(&subquery.subquery, &[0])?, ..subquery }),
    };
    Ok(Transformed::new_transformed(Expr::InSubquery(InSubquery { expr, subquery, negated }), is_changed))
}

/// The node with the types that its inputs have now.
pub(super) fn renewed(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Union(Union { inputs, .. }) => Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)),
        other => other.recompute_schema(),
    }
}

/// A union's columns, and the keys of joins such as INTERSECT's.
fn between_inputs(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Union(Union { inputs, schema }) => {
            let types = |i: usize| inputs.iter().map(|input| input.schema().field(i).data_type().clone()).collect::<Vec<_>>();
            let mixed: Vec<usize> = (0..schema.fields().len()).filter(|i| meet(&types(*i))).collect();
            let inputs = inputs.iter().map(|input| with_times(input, &mixed)).collect::<Result<Vec<_>>>()?;
            Ok(Transformed::new_transformed(LogicalPlan::Union(Union { inputs, schema }), !mixed.is_empty()))
        }
        LogicalPlan::Values(values) => of_values(values),
        LogicalPlan::Join(mut join) if join.join_constraint == JoinConstraint::On => {
            let schema = merge_schema(&[join.left.as_ref(), join.right.as_ref()]);
            let mut is_changed = false;
            for (left, right) in &mut join.on {
                let sides = together(vec![left.clone(), right.clone()], true, &schema)?;
                is_changed |= sides.transformed;
                [*left, *right] = <[Expr; 2]>::try_from(sides.data).expect("two went in");
            }
            Ok(Transformed::new_transformed(LogicalPlan::Join(join), is_changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// VALUES, which have been planned in nanoseconds.
fn of_values(Values { schema, values }: Values) -> Result<Transformed<LogicalPlan>> {
    let types = |i: usize| values.iter().map(|row| written(&row[i]).get_type(&DFSchema::empty())).collect::<Result<Vec<_>>>();
    let mut mixed = Vec::new();
    for i in 0..schema.fields().len() {
        if meet(&types(i)?) {
            mixed.push(i);
        }
    }
    if mixed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Values(Values { schema, values })));
    }
    let in_milliseconds = |(i, value): (usize, Expr)| if mixed.contains(&i) { cast(written(&value), millisecond()) } else { value };
    let rows = values.into_iter().map(|row| row.into_iter().enumerate().map(in_milliseconds).collect()).collect();
    Ok(Transformed::yes(LogicalPlanBuilder::values(rows)?.build()?))
}

/// Without nanoseconds, which nobody can write: those that a value is cast to, and NULL's.
fn written(value: &Expr) -> Expr {
    match value {
        Expr::Cast(Cast { expr, field }) if is_finer(field.data_type()) => expr.as_ref().clone(),
        Expr::Literal(null, _) if null.is_null() && is_finer(&null.data_type()) => lit(ScalarValue::Null),
        other => other.clone(),
    }
}

/// The plan with midnights for the dates of these columns.
fn with_times(plan: &Arc<LogicalPlan>, columns: &[usize]) -> Result<Arc<LogicalPlan>> {
    let is_date = |i: &usize| *plan.schema().field(*i).data_type() == DataType::Date32;
    if !columns.iter().any(is_date) {
        return Ok(Arc::clone(plan));
    }
    let exprs = plan.schema().columns().into_iter().enumerate().map(|(i, column)| match columns.contains(&i) && is_date(&i) {
        true => cast(Expr::Column(column.clone()), millisecond()).alias(column.name),
        false => Expr::Column(column),
    });
    LogicalPlanBuilder::from(plan.as_ref().clone()).project(exprs)?.build().map(Arc::new)
}

fn together(sides: Vec<Expr>, with_texts: bool, schema: &DFSchema) -> Result<Transformed<Vec<Expr>>> {
    let mut types = sides.iter().map(|side| side.get_type(schema)).collect::<Result<Vec<_>>>()?;
    for (side, data_type) in sides.iter().zip(&mut types) {
        if with_texts && *data_type == DataType::Utf8 && matches!(side, Expr::Literal(..)) {
            *data_type = DataType::Date32;
        }
    }
    if !meet(&types) {
        return Ok(Transformed::no(sides));
    }
    let midnight = |(side, data_type): (Expr, DataType)| if data_type == DataType::Date32 { cast(side, millisecond()) } else { side };
    Ok(Transformed::yes(sides.into_iter().zip(types).map(midnight).collect()))
}

fn is_finer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..)) && *data_type != millisecond()
}

/// Whether dates are among timestamps of milliseconds, and nothing finer.
fn meet(types: &[DataType]) -> bool {
    types.contains(&millisecond()) && types.contains(&DataType::Date32) && !types.iter().any(is_finer)
}
