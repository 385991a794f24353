//! Numbers with a point: DOUBLE, but DECIMAL, digit for digit, where they stand beside one, or are cast to one or to an
//! integer. What one stands beside is known only once there is a plan, in which DataFusion has no digits any more: so
//! where it could matter, a number is planned as a function of its text, which is DOUBLE until then. In one column of a
//! UNION, and in IN (subquery), it stands beside what other queries give.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, plan_datafusion_err};
use datafusion::logical_expr::expr::{Between, Cast, InList, InSubquery, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Projection, RecursiveQuery,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Subquery, Union, Volatility, cast, lit,
};
use datafusion::sql::sqlparser::ast;

use super::dates::{case_of, compares, renewed};

/// The function's name, which nobody writes by chance.
const NAME: &str = "number as written";

/// Digits of a DECIMAL.
const DIGITS_MAX: usize = 38;

/// Functions whose arguments become of one type.
const OF_ONE_TYPE: [&str; 5] = ["coalesce", "nvl", "nullif", "greatest", "least"];

/// Makes functions of their texts of the numbers right within `expr` that may stand beside a DECIMAL.
pub(super) fn keep_digits(expr: &mut ast::Expr) {
    match expr {
        ast::Expr::BinaryOp { left, right, .. } | ast::Expr::IsDistinctFrom(left, right) | ast::Expr::IsNotDistinctFrom(left, right) => {
            keep(left);
            keep(right);
        }
        ast::Expr::Between { expr, low, high, .. } => [expr, low, high].into_iter().for_each(|side| keep(side)),
        ast::Expr::InList { expr, list, .. } => {
            keep(expr);
            list.iter_mut().for_each(keep);
        }
        ast::Expr::Case { operand, conditions, else_result, .. } => {
            operand.iter_mut().chain(else_result).for_each(|value| keep(value));
            conditions.iter_mut().for_each(|when| {
                keep(&mut when.condition);
                keep(&mut when.result);
            });
        }
        ast::Expr::Cast { expr, .. } | ast::Expr::InSubquery { expr, .. } => keep(expr),
        ast::Expr::Function(ast::Function { name, args: ast::FunctionArguments::List(list), .. })
            if OF_ONE_TYPE.contains(&name.to_string().to_lowercase().as_str()) =>
        {
            for arg in &mut list.args {
                if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) = arg {
                    keep(value);
                }
            }
        }
        _ => {}
    }
}

/// The same for the columns of the sides of a UNION.
pub(super) fn keep_digits_of_sides(body: &mut ast::SetExpr) {
    match body {
        ast::SetExpr::SetOperation { op: ast::SetOperator::Union, left, right, .. } => {
            keep_digits_of_columns(left);
            keep_digits_of_columns(right);
        }
        ast::SetExpr::SetOperation { left, right, .. } => {
            keep_digits_of_sides(left);
            keep_digits_of_sides(right);
        }
        _ => {}
    }
}

/// The same for the columns of a query.
pub(super) fn keep_digits_of_columns(body: &mut ast::SetExpr) {
    match body {
        ast::SetExpr::Select(select) => select.projection.iter_mut().for_each(|item| {
            if let ast::SelectItem::UnnamedExpr(column) | ast::SelectItem::ExprWithAlias { expr: column, .. } = item {
                keep(column);
            }
        }),
        ast::SetExpr::Query(query) => keep_digits_of_columns(&mut query.body),
        ast::SetExpr::SetOperation { .. } => keep_digits_of_sides(body),
        _ => {}
    }
}

fn keep(side: &mut ast::Expr) {
    match side {
        ast::Expr::Nested(inner) => keep(inner),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match double("-", expr) {
            Some(text) => *side = as_written(text),
            None => keep(expr),
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr } => keep(expr),
        other => {
            if let Some(text) = double("", other) {
                *other = as_written(text);
            }
        }
    }
}

/// The text of a number behind its sign that DataFusion would plan as DOUBLE.
fn double(sign: &str, expr: &ast::Expr) -> Option<String> {
    let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(text, _), .. }) = expr else { return None };
    let text = format!("{sign}{}", text.replace('_', ""));
    let is_whole = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
    (!is_whole && text.parse::<f64>().is_ok()).then_some(text)
}

fn as_written(text: String) -> ast::Expr {
    let text = ast::Expr::value(ast::Value::SingleQuotedString(text));
    let args = vec![ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(text))];
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::with_quote('"', NAME)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The plan with numbers instead of their texts.
pub(super) fn as_meant(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut is_changed = false;
    let exact = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let node = with_expressions(node, |expr| {
            let type_before = expr.get_type(&schema).ok();
            let exact = expr.transform_up(|expr| exact(expr, &schema))?;
            is_changed |= exact.transformed && exact.data.get_type(&schema).ok() != type_before;
            Ok(exact)
        })?;
        let node = node.transform_data(beside_sides)?;
        is_changed |= matches!(node.data, LogicalPlan::Union(_)) && node.transformed;
        // What is above a change of type has other types, too.
        if is_changed { node.map_data(typed) } else { Ok(node) }
    })?;
    let meant = exact.data.transform_up_with_subqueries(|node| with_expressions(node, |expr| expr.transform_up(|expr| Ok(inexact(expr)))));
    Ok(meant?.data)
}

fn with_expressions(node: LogicalPlan, mut change: impl FnMut(Expr) -> Result<Transformed<Expr>>) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(change(expr)?.update_data(|expr| name.restore(expr)))
    })
}

/// A union whose constants are DECIMALs, in columns where another side has one and all DOUBLEs are such constants.
fn beside_sides(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Union(Union { mut inputs, schema }) = node else { return Ok(Transformed::no(node)) };
    let mut is_changed = false;
    for column in 0..schema.fields().len() {
        let gives = |kind: fn(&DataType) -> bool| inputs.iter().any(|input| gives(input, column, kind));
        if gives(DataType::is_decimal)
            && gives(DataType::is_floating)
            && let Some(sides) = sides_with_decimals(&inputs, column)?
        {
            inputs = sides;
            is_changed = true;
        }
    }
    Ok(Transformed::new_transformed(LogicalPlan::Union(Union { inputs, schema }), is_changed))
}

/// Whether a column has such values. A union's own type is only that of its first side.
fn gives(plan: &LogicalPlan, column: usize, kind: fn(&DataType) -> bool) -> bool {
    match plan {
        LogicalPlan::Union(Union { inputs, .. }) => inputs.iter().any(|input| gives(input, column, kind)),
        LogicalPlan::Distinct(Distinct::All(input)) => gives(input, column, kind),
        other => kind(other.schema().field(column).data_type()),
    }
}

fn sides_with_decimals(sides: &[Arc<LogicalPlan>], column: usize) -> Result<Option<Vec<Arc<LogicalPlan>>>> {
    let sides = sides.iter().map(|side| match gives(side, column, DataType::is_floating) {
        true => with_decimals(side, column),
        false => Ok(Some(Arc::clone(side))),
    });
    sides.collect()
}

/// The query with DECIMALs for the DOUBLEs of a column, where these are constants.
fn with_decimals(plan: &LogicalPlan, column: usize) -> Result<Option<Arc<LogicalPlan>>> {
    let exact = match plan {
        LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
            let Some(number) = decimal(&expr[column].clone().unalias_nested().data) else { return Ok(None) };
            let (relation, field) = schema.qualified_field(column);
            let mut exprs = expr.clone();
            exprs[column] = number.alias_qualified(relation.cloned(), field.name());
            Some(LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(input))?))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            with_decimals(input, column)?.map(|input| LogicalPlan::Distinct(Distinct::All(input)))
        }
        LogicalPlan::Union(Union { inputs, .. }) => {
            let union = sides_with_decimals(inputs, column)?.map(Union::try_new_with_loose_types).transpose()?;
            union.map(LogicalPlan::Union)
        }
        _ => None,
    };
    Ok(exact.map(Arc::new))
}

/// What reads a recursion's rows has been planned for the types they had.
fn typed(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::RecursiveQuery(RecursiveQuery { name, static_term, recursive_term, is_distinct, schema }) = node else {
        return renewed(node);
    };
    let as_before = |term: &Arc<LogicalPlan>| -> Result<Arc<LogicalPlan>> {
        let mut fields = term.schema().fields().iter().zip(schema.fields());
        if fields.all(|(now, before)| now.data_type() == before.data_type()) {
            return Ok(Arc::clone(term));
        }
        let columns = term.schema().iter().zip(schema.fields()).map(|((relation, now), before)| {
            let column = Expr::Column(Column::new(relation.cloned(), now.name()));
            match now.data_type() == before.data_type() {
                true => column,
                false => cast(column, before.data_type().clone()).alias_qualified(relation.cloned(), now.name()),
            }
        });
        LogicalPlanBuilder::from(term.as_ref().clone()).project(columns)?.build().map(Arc::new)
    };
    let (static_term, recursive_term) = (as_before(&static_term)?, as_before(&recursive_term)?);
    RecursiveQuery::try_new(name, static_term, recursive_term, is_distinct).map(LogicalPlan::RecursiveQuery)
}

/// Numbers as DECIMAL where they are right within `expr`, and stand beside one there.
fn exact(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.is_numerical_operators() || compares(op) => {
            Ok(beside(vec![*left, *right], schema)?.update_data(|sides| {
                let [left, right] = <[Expr; 2]>::try_from(sides).expect("two went in").map(Box::new);
                Expr::BinaryExpr(BinaryExpr { left, op, right })
            }))
        }
        Expr::Between(Between { expr, negated, low, high }) => Ok(beside(vec![*expr, *low, *high], schema)?.update_data(|sides| {
            let [expr, low, high] = <[Expr; 3]>::try_from(sides).expect("three went in").map(Box::new);
            Expr::Between(Between { expr, negated, low, high })
        })),
        Expr::InList(InList { expr, list, negated }) => {
            Ok(beside(std::iter::once(*expr).chain(list).collect(), schema)?.update_data(|mut sides| {
                let list = sides.split_off(1);
                Expr::InList(InList { expr: Box::new(sides.remove(0)), list, negated })
            }))
        }
        Expr::InSubquery(membership) => membership_of(membership, schema),
        Expr::Case(case) => case_of(case, |sides, _| beside(sides, schema)),
        Expr::ScalarFunction(ScalarFunction { func, args }) if OF_ONE_TYPE.contains(&func.name()) => {
            Ok(beside(args, schema)?.update_data(|args| Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        Expr::Cast(Cast { expr, field }) if is_exact(field.data_type()) => {
            let number = constant(*expr);
            Ok(number.update_data(|expr| Expr::Cast(Cast { expr: Box::new(expr), field })))
        }
        Expr::TryCast(TryCast { expr, field }) if is_exact(field.data_type()) => {
            let number = constant(*expr);
            Ok(number.update_data(|expr| Expr::TryCast(TryCast { expr: Box::new(expr), field })))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn membership_of(membership: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let InSubquery { expr, subquery, negated } = membership;
    let of = expr.get_type(schema)?;
    if of.is_floating() && gives(&subquery.subquery, 0, DataType::is_decimal) {
        let number = constant(*expr);
        return Ok(number.update_data(|expr| Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated })));
    }
    let exact = if of.is_decimal() { with_decimals(&subquery.subquery, 0)? } else { None };
    let is_changed = exact.is_some();
    let subquery = match exact {
        Some(exact) => Subquery { subquery: exact, ..subquery },
        None => subquery,
    };
    Ok(Transformed::new_transformed(Expr::InSubquery(InSubquery { expr, subquery, negated }), is_changed))
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_decimal() || data_type.is_integer()
}

/// The sides as DECIMALs, where one is and all DOUBLEs are constants of numbers as they are written.
fn beside(sides: Vec<Expr>, schema: &DFSchema) -> Result<Transformed<Vec<Expr>>> {
    let types = sides.iter().map(|side| side.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let floats = || sides.iter().zip(&types).filter(|(_, data_type)| data_type.is_floating());
    let is_meant = types.iter().any(DataType::is_decimal) && 0 < floats().count() && floats().all(|(side, _)| decimal(side).is_some());
    if !is_meant {
        return Ok(Transformed::no(sides));
    }
    Ok(Transformed::yes(sides.into_iter().map(|side| constant(side).data).collect()))
}

fn constant(expr: Expr) -> Transformed<Expr> {
    match decimal(&expr) {
        Some(decimal) => Transformed::yes(decimal),
        None => Transformed::no(expr),
    }
}

/// A constant of numbers as they are written, with as many digits as they have.
fn decimal(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::ScalarFunction(call) => Some(lit(digits(text_of(call)?)?)),
        Expr::Negative(number) => Some(Expr::Negative(Box::new(decimal(number)?))),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply), right }) => {
            let (exact_left, exact_right) = match (decimal(left), decimal(right)) {
                (None, None) => return None,
                (left_number, right_number) => (left_number.or_else(|| whole(left))?, right_number.or_else(|| whole(right))?),
            };
            Some(Expr::BinaryExpr(BinaryExpr { left: Box::new(exact_left), op: *op, right: Box::new(exact_right) }))
        }
        _ => None,
    }
}

fn whole(expr: &Expr) -> Option<Expr> {
    matches!(expr, Expr::Literal(ScalarValue::Int64(_), _)).then(|| expr.clone())
}

/// What stayed is DOUBLE.
fn inexact(expr: Expr) -> Transformed<Expr> {
    let number = match &expr {
        Expr::ScalarFunction(call) => text_of(call).and_then(|text| text.parse::<f64>().ok()),
        _ => None,
    };
    number.map_or(Transformed::no(expr), |number| Transformed::yes(lit(number)))
}

fn text_of(call: &ScalarFunction) -> Option<&str> {
    match &call.args[..] {
        [Expr::Literal(text, _)] if call.func.inner().is::<AsWritten>() => text.try_as_str().flatten(),
        _ => None,
    }
}

/// `1.255` with three digits behind the point. Those for which a DECIMAL has no room are cut off; none: there is none
/// for those before the point.
fn digits(text: &str) -> Option<ScalarValue> {
    let text = text.to_lowercase();
    let (sign, text) = text.strip_prefix('-').map_or((1, &text[..]), |text| (-1, text));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let behind = i64::try_from(fraction.len()).ok()?.checked_sub(exponent.parse().ok()?)?;
    let (zeros, behind) = (usize::try_from(-behind.min(0)).ok()?, usize::try_from(behind.max(0)).ok()?);
    let excess = digits.len().max(behind).saturating_sub(DIGITS_MAX);
    let kept = &digits[..digits.len().saturating_sub(excess)];
    if behind < excess || DIGITS_MAX < kept.len().checked_add(zeros)? {
        return None;
    }
    let (value, scale) = (format!("0{kept}{}", "0".repeat(zeros)).parse::<i128>().ok()?, behind - excess);
    let precision = (kept.len() + zeros).max(scale).max(1);
    Some(ScalarValue::Decimal128(Some(sign * value), u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

/// A number by its text, as DOUBLE.
pub(super) fn number_as_written() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(AsWritten { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsWritten {
    signature: Signature,
}

impl ScalarUDFImpl for AsWritten {
    fn name(&self) -> &str {
        NAME
    }

    /// As DataFusion names the number itself.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let text = args.first().and_then(Expr::as_literal).and_then(ScalarValue::try_as_str).flatten();
        let number = text.and_then(|text| text.parse().ok()).ok_or_else(not_a_number)?;
        Ok(lit(ScalarValue::Float64(Some(number))).schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(text)] = &args.args[..] else { return Err(not_a_number()) };
        let number = text.try_as_str().flatten().and_then(|text| text.parse().ok()).ok_or_else(not_a_number)?;
        Ok(ColumnarValue::Scalar(ScalarValue::Float64(Some(number))))
    }
}

fn not_a_number() -> datafusion::common::DataFusionError {
    plan_datafusion_err!("\"{NAME}\" is planned of numbers only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stay_as_they_are_written() {
        for (text, expected) in [
            ("1.255", Some((1255, 4, 3))),
            ("-12345678901234567.89", Some((-1_234_567_890_123_456_789, 19, 2))),
            (".5", Some((5, 1, 1))),
            ("5.", Some((5, 1, 0))),
            ("0.0", Some((0, 1, 1))),
            ("0.001", Some((1, 3, 3))),
            ("1.5e3", Some((1500, 4, 0))),
            ("1.5E-3", Some((15, 4, 4))),
            ("1e300", None),
            ("1e-50", Some((0, 38, 38))),
            ("18446744073709551616", Some((18_446_744_073_709_551_616, 20, 0))),
            ("0.1000000000000000000000000000000000000009", Some((10i128.pow(37), 38, 38))),
            ("1e99999999999999999999", None),
            ("1.5e-9223372036854775808", None),
        ] {
            let value = expected.map(|(value, precision, scale)| ScalarValue::Decimal128(Some(value), precision, scale));
            assert_eq!(digits(text), value, "{text}");
        }
    }

    #[test]
    fn only_what_is_a_double_is_kept_as_text() {
        let text = |sign, number: &str| double(sign, &ast::Expr::value(ast::Value::Number(number.into(), false)));
        assert_eq!([text("", "1"), text("", "18446744073709551615"), text("-", "9223372036854775808")], [None, None, None]);
        assert_eq!(text("", "1_0.5").as_deref(), Some("10.5"));
        assert_eq!(text("", "18446744073709551616").as_deref(), Some("18446744073709551616"));
        assert_eq!(text("-", "9223372036854775809").as_deref(), Some("-9223372036854775809"));
    }
}
