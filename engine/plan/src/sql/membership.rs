//! `k IN (subquery)` where its third truth value can be seen.
//!
//! DataFusion joins a subquery under OR, NOT or CASE as a mark that is true or false, never NULL.
//! Where false and NULL lead to the same rows, that is enough. Elsewhere `k IN (Q)` becomes
//! `k IN (Q) OR CASE WHEN (k IS NULL AND EXISTS (Q)) OR EXISTS (Q's NULLs) THEN NULL ELSE false END`.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not, when};
use tidegate_types::error::Error;

pub(super) fn three_valued(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
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
