//! `k IN (subquery)` where its third truth value can be seen.
//!
//! DataFusion joins a subquery under OR, NOT or CASE as a mark that is true or false, never NULL.
//! Where false and NULL lead to the same rows, that is enough. Elsewhere `k IN (Q)` becomes
//! `k IN (Q) OR CASE WHEN (k IS NULL AND EXISTS (Q)) OR EXISTS (Q's NULLs) THEN NULL ELSE false END`.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not, when};

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
    match condition {
        Expr::InSubquery(_) => Ok(condition),
        Expr::Not(inner) if matches!(*inner, Expr::InSubquery(_)) => Ok(Expr::Not(inner)),
        other => truth(other),
    }
}

/// Where only true counts: under AND and OR, a mark that is false for NULL does no harm.
fn truth(condition: Expr) -> Result<Expr> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(truth(*left)?), op, Box::new(truth(*right)?))))
        }
        Expr::InSubquery(InSubquery { negated: false, .. }) => Ok(condition),
        other => other
            .transform_up(|expr| match expr {
                Expr::InSubquery(member) => Ok(Transformed::yes(value(member)?)),
                other => Ok(Transformed::no(other)),
            })
            .map(|transformed| transformed.data),
    }
}

fn value(member: InSubquery) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = member;
    let Some(column) = subquery.subquery.schema().columns().into_iter().next() else {
        return plan_err!("a subquery after IN needs one column");
    };
    let nulls = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).filter(Expr::Column(column).is_null())?.build()?;
    let nulls = Subquery { subquery: Arc::new(nulls), ..subquery.clone() };
    let exists = |subquery| Expr::Exists(Exists { subquery, negated: false });
    let unknown = expr.clone().is_null().and(exists(subquery.clone())).or(exists(nulls));
    let unknown = when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?;
    let value = Expr::InSubquery(InSubquery { expr, subquery, negated: false }).or(unknown);
    Ok(if negated { not(value) } else { value })
}
