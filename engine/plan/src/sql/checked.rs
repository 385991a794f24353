//! Arithmetic of integers that fails where DataFusion's would wrap around, and floats that are equal
//! where SQL says so.
//!
//! A view's arithmetic is checked where it is lowered, except for what the optimiser computes
//! beforehand, and its floats are made one where they rest. A read or a recomputation runs
//! DataFusion's plan as it is, so all of its arithmetic is replaced.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::functions::{canonical, checked, keeps_type, named};

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
                    let renewed = self.renewed(expr, &schema)?;
                    Ok(renewed.update_data(|expr| name.restore(expr)))
                })
            }
        });
        Ok(checked?.data)
    }
}

impl Arithmetic {
    /// A value that rests, or that an aggregate or a window sees.
    fn renewed(self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if let Expr::Alias(_) | Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) = expr {
            return expr.map_children(|value| self.renewed(value, schema));
        }
        let name = expr.schema_name().to_string();
        let replaced = expr.transform_up(|expr| self.replaced(expr, schema))?;
        let is_float = self == Self::All && is_computed(&replaced.data) && type_of(&replaced.data, schema)?.is_floating();
        Ok(match (is_float, replaced.transformed) {
            (true, _) => Transformed::yes(named(canonical(replaced.data), name)),
            (false, true) => Transformed::yes(named(replaced.data, name)),
            (false, false) => replaced,
        })
    }

    fn replaced(self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if self.is_meant(&left, op, &right, schema)? => {
                Ok(Transformed::yes(checked(*left, op, *right)))
            }
            Expr::Negative(number) if type_of(&number, schema)?.is_signed_integer() => {
                let zero = Expr::Literal(ScalarValue::new_zero(&type_of(&number, schema)?)?, None);
                Ok(Transformed::yes(checked(zero, Operator::Minus, *number)))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn is_meant(self, left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Result<bool> {
        if !matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) {
            return Ok(false);
        }
        let (left_type, right_type) = (type_of(left, schema)?, type_of(right, schema)?);
        let of_integers = left_type.is_integer() && left_type == right_type;
        Ok(of_integers && (self == Self::All || is_constant(left) && is_constant(right)))
    }
}

/// DataFusion spells out the names of all that is within a function to tell its type: in a chain of n
/// that is n times as much at each.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match expr {
        Expr::Alias(alias) => type_of(&alias.expr, schema),
        Expr::ScalarFunction(ScalarFunction { func, args }) if keeps_type(func) => type_of(&args[0], schema),
        other => other.get_type(schema),
    }
}

/// What is only passed on has been made one before.
fn is_computed(expr: &Expr) -> bool {
    !matches!(expr, Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::Literal(..) | Expr::ScalarSubquery(_))
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
