//! `k IN (subquery)` where its third truth value can be seen, and both it and EXISTS as values.
//!
//! In WHERE, DataFusion joins a subquery under OR, NOT or CASE as a mark that is true or false, never NULL.
//! Where false and NULL lead to the same rows, that is enough. Elsewhere `k IN (Q)` becomes
//! `k IN (Q) OR CASE WHEN (k IS NULL AND EXISTS (Q)) OR EXISTS (Q's NULLs) THEN NULL ELSE false END`.
//!
//! In the SELECT list it joins numbers only: `EXISTS (Q)` becomes `(SELECT count(*) FROM Q) > 0`, and IN the
//! same of Q's rows that equal k. An aggregate gets what it needs of a subquery from a projection below it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, ident, lit, not, when};
use tidegate_types::error::Error;

pub(super) fn three_valued(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(_) => counted(node),
        LogicalPlan::Aggregate(aggregate) => from_below(aggregate),
        LogicalPlan::Filter(mut filter) => {
            let conditions = split_conjunction_owned(filter.predicate).into_iter().map(conjunct);
            filter.predicate = conjunction(conditions.collect::<Result<Vec<_>>>()?).expect("one condition at least");
            Ok(Transformed::yes(LogicalPlan::Filter(filter)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// A condition of its own becomes a semi or an anti join, which know NULL.
fn conjunct(condition: Expr) -> Result<Expr> {
    match &condition {
        Expr::InSubquery(member) if member.negated => excluded(member, &condition),
        Expr::InSubquery(_) => Ok(condition),
        Expr::Not(inner) => match inner.as_ref() {
            Expr::InSubquery(member) if !member.negated => excluded(member, &condition),
            Expr::InSubquery(_) => Ok(condition),
            _ => truth(condition),
        },
        _ => truth(condition),
    }
}

/// NOT IN is an anti join by its one key; with a constant on the left it has none, and only asks
/// whether there is a row that equals it or is NULL.
fn excluded(member: &InSubquery, condition: &Expr) -> Result<Expr> {
    if !member.subquery.outer_ref_columns.is_empty() {
        return Err(unsupported("NOT IN with a correlated subquery", "use NOT EXISTS"));
    }
    if !member.expr.column_refs().is_empty() {
        return Ok(condition.clone());
    }
    let column = column_of(member)?;
    let constant = member.expr.as_ref().clone();
    let against = column.clone().eq(constant.clone()).or(column.is_null()).or(constant.is_null());
    Ok(Expr::Exists(Exists { subquery: filtered(member, against)?, negated: true }))
}

fn column_of(member: &InSubquery) -> Result<Expr> {
    let column = member.subquery.subquery.schema().columns().into_iter().next();
    column.map(Expr::Column).ok_or_else(|| DataFusionError::Plan("a subquery after IN needs one column".into()))
}

fn filtered(member: &InSubquery, condition: Expr) -> Result<Subquery> {
    let rows = LogicalPlanBuilder::from(member.subquery.subquery.as_ref().clone()).filter(condition)?.build()?;
    Ok(Subquery { subquery: Arc::new(rows), ..member.subquery.clone() })
}

fn unsupported(what: &str, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::unsupported(what, hint)))
}

/// Where only true counts: under AND and OR, a mark that is false for NULL does no harm.
fn truth(condition: Expr) -> Result<Expr> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(truth(*left)?), op, Box::new(truth(*right)?))))
        }
        Expr::InSubquery(InSubquery { negated: false, .. }) => Ok(condition),
        other => {
            let valued = other.transform_up(|expr| match expr {
                Expr::InSubquery(member) => Ok(Transformed::yes(value(member)?)),
                other => Ok(Transformed::no(other)),
            });
            valued.map(|valued| valued.data)
        }
    }
}

fn value(member: InSubquery) -> Result<Expr> {
    if !member.subquery.outer_ref_columns.is_empty() {
        return Err(unsupported("a correlated IN (subquery) inside NOT, CASE or a comparison", "use EXISTS"));
    }
    let nulls = filtered(&member, column_of(&member)?.is_null())?;
    let InSubquery { expr, subquery, negated } = member;
    let exists = |subquery| Expr::Exists(Exists { subquery, negated: false });
    let unknown = expr.clone().is_null().and(exists(subquery.clone())).or(exists(nulls));
    let unknown = when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?;
    let value = Expr::InSubquery(InSubquery { expr, subquery, negated: false }).or(unknown);
    Ok(if negated { not(value) } else { value })
}

/// A projection whose subqueries are numbers.
fn counted(projection: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (schema, names) = (merge_schema(&projection.inputs()), NamePreserver::new(&projection));
    projection.map_expressions(|expr| {
        let name = names.save(&expr);
        let counted = expr.transform_up(|expr| match expr {
            Expr::Exists(Exists { subquery, negated }) => {
                let exists = any(subquery)?;
                Ok(Transformed::yes(if negated { not(exists) } else { exists }))
            }
            Expr::InSubquery(member) => Ok(Transformed::yes(is_member(member, &schema)?)),
            other => Ok(Transformed::no(other)),
        });
        Ok(counted?.update_data(|expr| name.restore(expr)))
    })
}

/// Whether the subquery has rows.
fn any(subquery: Subquery) -> Result<Expr> {
    // What is shown of them makes them neither more nor less.
    let rows = match subquery.subquery.as_ref() {
        LogicalPlan::Projection(projection) => projection.input.as_ref().clone(),
        other => other.clone(),
    };
    // Under a name that no column beside it has.
    let count = LogicalPlanBuilder::from(rows).aggregate(Vec::<Expr>::new(), vec![count(lit(1i64)).alias("__rows")])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(count), ..subquery }).gt(lit(0i64)))
}

/// True, false or NULL, for the row of `schema` that the subquery stands beside.
fn is_member(member: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let column = column_of(&member)?;
    let outer = member.expr.as_ref().clone().transform(|expr| match expr {
        Expr::Column(column) => {
            let field = Arc::clone(schema.field_from_column(&column)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let mut equal = filtered(&member, column.clone().eq(outer.data))?;
    equal.outer_ref_columns.extend(equal.subquery.all_out_ref_exprs());
    equal.outer_ref_columns.dedup();
    let nulls = filtered(&member, column.is_null())?;
    let InSubquery { expr, subquery, negated } = member;
    let unknown = expr.is_null().and(any(subquery)?).or(any(nulls)?);
    let value = when(any(equal)?, lit(true)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?;
    Ok(if negated { not(value) } else { value })
}

/// An aggregate whose arguments hold no subquery: these are columns of a projection below it.
fn from_below(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut below = Vec::new();
    let mut lift = |expr: &Expr| -> Result<Expr> {
        let lifted = expr.clone().transform_down(|expr| match expr {
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) => {
                let column = format!("__subquery_{}", below.len());
                below.push(expr.alias(&column));
                Ok(Transformed::new(ident(column), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        });
        lifted.map(|lifted| lifted.data)
    };
    let group = aggregate.group_expr.iter().map(&mut lift).collect::<Result<Vec<_>>>()?;
    let calls = aggregate.aggr_expr.iter().map(&mut lift).collect::<Result<Vec<_>>>()?;
    if below.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let columns = aggregate.input.schema().columns().into_iter().map(Expr::Column).chain(below);
    let input = LogicalPlanBuilder::from(aggregate.input.as_ref().clone()).project(columns)?.build()?;
    let lifted = LogicalPlanBuilder::from(counted(input)?.data).aggregate(group, calls)?.build()?;
    // What reads it knows its columns by the names they had.
    let names = aggregate.schema.iter().zip(lifted.schema().columns());
    let named = names.map(|((table, field), column)| Expr::Column(column).alias_qualified(table.cloned(), field.name()));
    let named = named.collect::<Vec<_>>();
    Ok(Transformed::yes(LogicalPlanBuilder::from(lifted).project(named)?.build()?))
}
