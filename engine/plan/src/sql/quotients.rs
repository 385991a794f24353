//! Quotients of decimals, rounded at their last digit as Postgres's are; DataFusion cuts off.

use std::sync::Arc;

use arrow::array::{AsArray, Decimal128Array};
use arrow::compute::try_binary;
use arrow::datatypes::{DataType, Decimal128Type};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};

use super::functions::named;

pub(super) fn rounded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rounded = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|expr| divided(expr, &schema))?.update_data(|expr| name.restore(expr)))
        })
    });
    Ok(rounded?.data)
}

/// What it is called stays: others may refer to it.
fn divided(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = &expr else { return Ok(Transformed::no(expr)) };
    let (from_left, from_right) = (type_of(left, schema)?, type_of(right, schema)?);
    let types = BinaryTypeCoercer::new(&from_left, &Operator::Divide, &from_right);
    let (Ok((to_left, to_right)), Ok(quotient)) = (types.get_input_types(), types.get_result_type()) else {
        return Ok(Transformed::no(expr));
    };
    if ![&to_left, &to_right, &quotient].iter().all(|data_type| matches!(data_type, DataType::Decimal128(..))) {
        return Ok(Transformed::no(expr));
    }
    let side = |side: &Expr, from: &DataType, to: DataType| if *from == to { side.clone() } else { cast(side.clone(), to) };
    let sides = vec![side(left.as_ref(), &from_left, to_left), side(right.as_ref(), &from_right, to_right)];
    let divide = Divide { quotient, signature: Signature::any(2, Volatility::Immutable) };
    Ok(Transformed::yes(named(ScalarUDF::from(divide).call(sides), expr.schema_name().to_string())))
}

/// At once where it is known: DataFusion spells out all that is within a function.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    match expr {
        Expr::Alias(alias) => type_of(&alias.expr, schema),
        Expr::ScalarFunction(ScalarFunction { func, .. }) => match func.inner().downcast_ref::<Divide>() {
            Some(divide) => Ok(divide.quotient.clone()),
            None => expr.get_type(schema),
        },
        other => other.get_type(schema),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide {
    /// Its type.
    quotient: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Divide {
    fn name(&self) -> &str {
        "divide"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.quotient.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else { return plan_err!("divide takes two decimals") };
        let (left, right) = (left.to_array(args.number_rows)?, right.to_array(args.number_rows)?);
        let types = (left.data_type(), right.data_type(), &self.quotient);
        let (DataType::Decimal128(_, s1), DataType::Decimal128(_, s2), DataType::Decimal128(precision, scale)) = types else {
            return plan_err!("divide takes two decimals");
        };
        let power = i32::from(*scale) - i32::from(*s1) + i32::from(*s2);
        let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        let quotients: Decimal128Array = try_binary(left, right, |left, right| quotient(left, right, power))?;
        Ok(ColumnarValue::Array(Arc::new(quotients.with_precision_and_scale(*precision, *scale)?)))
    }
}

/// `left * 10^power / right`; a half goes away from zero.
fn quotient(left: i128, right: i128, power: i32) -> Result<i128, ArrowError> {
    if right == 0 {
        return Err(ArrowError::DivideByZero);
    }
    let overflow = || ArrowError::ArithmeticOverflow(format!("Overflow happened on: {left} * 10^{power} / {right}"));
    let factor = 10i128.checked_pow(power.unsigned_abs());
    let (left_factor, right_factor) = if 0 <= power { (factor, Some(1)) } else { (Some(1), factor) };
    let of = left_factor.and_then(|factor| left.checked_mul(factor)).ok_or_else(overflow)?;
    let by = right_factor.and_then(|factor| right.checked_mul(factor)).ok_or_else(overflow)?;
    let (whole, rest) = (of.checked_div(by).ok_or_else(overflow)?, of.checked_rem(by).ok_or_else(overflow)?);
    let is_half = by.unsigned_abs() - rest.unsigned_abs() <= rest.unsigned_abs();
    let away = if (of < 0) == (by < 0) { 1 } else { -1 };
    whole.checked_add(if is_half { away } else { 0 }).ok_or_else(overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        for (left, right, expected) in
            [(20, 3, 67), (10, 3, 33), (5, 100, 1), (4, 100, 0), (-5, 100, -1), (5, -100, -1), (-20, -3, 67), (0, 7, 0)]
        {
            assert_eq!(quotient(left, right, 1).unwrap(), expected, "{left} / {right}");
        }
        assert_eq!(quotient(25, 1, -1).unwrap(), 3);
        assert!(quotient(1, 0, 1).is_err() && quotient(i128::MAX, 3, 1).is_err());
    }
}
