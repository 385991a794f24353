//! Texts that are to be dates, numbers or truth values, and are none: refused as the query is planned, as Postgres does,
//! not row by row.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::Analyzer;
use tidegate_types::error::{Error, Mistake, Result};

use super::planning_error;

/// The plan with its types told, as casts.
///
/// Errors: types that do not go together, and a constant that is not of its type.
pub fn typed(plan: LogicalPlan, options: &ConfigOptions) -> datafusion::common::Result<LogicalPlan> {
    let plan = Analyzer::new().execute_and_check(plan, options, |_, _| {})?;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| match wrong(expr) {
                Some(error) => Err(DataFusionError::External(Box::new(error))),
                None => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(plan)
}

fn wrong(expr: &Expr) -> Option<Error> {
    let Expr::Cast(Cast { expr, field }) = expr else { return None };
    let Expr::Literal(constant, _) = expr.as_ref() else { return None };
    let text = constant.try_as_str().flatten().filter(|_| !field.data_type().is_nested())?;
    told(text, constant, field.data_type()).err()
}

fn told(text: &str, constant: &ScalarValue, target: &DataType) -> Result<()> {
    let error = match constant.cast_to(target) {
        Ok(_) => return Ok(()),
        Err(error) => planning_error(&error),
    };
    let way_out = match error.mistake {
        Some(Mistake::BadTime | Mistake::NoSuchTime) => "write a time that there is, as in '2024-12-31' or '2024-12-31 23:59:59.999'",
        Some(Mistake::OutOfRange) => "cast it to a wider type",
        _ => "write what the type takes, or cast the other side",
    };
    Err(Error { message: format!("\"{text}\" cannot be cast to {target}"), hint: Some(way_out.into()), ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_what_it_is_cast_to() {
        for (text, target, mistake) in [
            ("2024-02-29", DataType::Date32, None),
            ("2024-13-01", DataType::Date32, Some(Mistake::NoSuchTime)),
            ("yesterday", DataType::Date32, Some(Mistake::BadTime)),
            (" 12", DataType::Utf8, None),
            ("x", DataType::Int32, Some(Mistake::BadText)),
            ("3000000000", DataType::Int32, Some(Mistake::OutOfRange)),
            ("maybe", DataType::Boolean, Some(Mistake::BadText)),
        ] {
            let constant = ScalarValue::from(text);
            assert_eq!(told(text, &constant, &target).err().and_then(|error| error.mistake), mistake, "{text} as {target}");
        }
    }
}
