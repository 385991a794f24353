//! Arithmetic of integers that fails where DataFusion's would wrap around, and floats that are equal
//! where SQL says so.
//!
//! A view's arithmetic is checked where it is lowered, except for what the optimiser computes
//! beforehand, and its floats are made one where they rest. A read or a recomputation runs
//! DataFusion's plan as it is, so all of its arithmetic is replaced.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::functions::{canonical, checked};

/// What is replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arithmetic {
    OfConstants,
    All,
}

impl AnalyzerRule for Arithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|node| match node {
            // LIMIT takes numbers.
            LogicalPlan::Limit(_) => Ok(Transformed::no(node)),
            _ => {
                let schema = merge_schema(&node.inputs());
                let names = NamePreserver::new(&node);
                node.map_expressions(|expr| {
                    let name = names.save(&expr);
                    let replaced = expr.transform_up(|expr| self.replaced(expr, &schema))?;
                    Ok(replaced.update_data(|expr| name.restore(expr)))
                })
            }
        });
        Ok(checked?.data)
    }
}

impl Arithmetic {
    fn replaced(self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let name = expr.schema_name().to_string();
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if self.is_meant(&left, op, &right, schema)? => {
                Ok(Transformed::yes(checked(*left, op, *right).alias(name)))
            }
            Expr::Negative(number) if number.get_type(schema)?.is_signed_integer() => {
                let zero = ScalarValue::new_zero(&number.get_type(schema)?)?;
                Ok(Transformed::yes(checked(Expr::Literal(zero, None), Operator::Minus, *number).alias(name)))
            }
            Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::ScalarFunction(_)
                if self == Self::All && expr.get_type(schema)?.is_floating() =>
            {
                Ok(Transformed::yes(canonical(expr).alias(name)))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn is_meant(self, left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Result<bool> {
        if !matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) {
            return Ok(false);
        }
        let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
        let of_integers = left_type.is_integer() && left_type == right_type;
        Ok(of_integers && (self == Self::All || is_constant(left) && is_constant(right)))
    }
}

fn is_constant(expr: &Expr) -> bool {
    let varies = expr.exists(|expr| {
        Ok(!matches!(
            expr,
            Expr::Literal(..) | Expr::Cast(_) | Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Alias(_) | Expr::ScalarFunction(_)
        ))
    });
    !varies.expect("the closure does not fail")
}
