//! What SQL says in FROM and between queries that DataFusion does not plan as a stream needs it:
//! TUMBLE, HOP and the functions over relations, and INTERSECT ALL and EXCEPT ALL.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, ListBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMillisecondType};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, UnnestOptions, exec_err};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, TypeSignature, Volatility, cast,
};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, Query, SetExpr, SetOperator, SetQuantifier, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tidegate_types::error::{Error, Mistake};

use super::names::{self, Reader};
use super::refused::refused;
use super::{age, analysis, date_bin, intervals, millisecond, numbers, recursive, using};

/// `query` as DataFusion is to see it.
///
/// Errors: it says something that DataFusion would plan as something else.
pub fn rewritten(query: &Query) -> std::result::Result<Query, Error> {
    refused(query)?;
    let mut query = query.clone();
    match VisitMut::visit(&mut query, &mut Rewrite::default()) {
        ControlFlow::Continue(()) => Ok(query),
        ControlFlow::Break(error) => Err(error),
    }
}

/// DataFusion looks relations up before it plans, and finds only those it sees: TUMBLE(s, …)
/// becomes TUMBLE((SELECT * FROM s), …). `l EXCEPT ALL r`, which it plans without the counts,
/// becomes `SELECT * FROM except_all((l), (r))`, and so do recursive terms, which it casts. Columns have
/// the names that Postgres gives them.
#[derive(Default)]
struct Rewrite {
    /// Of queries around the one that is visited.
    depth: usize,
}

impl VisitorMut for Rewrite {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        counted(&mut query.body);
        let reader = if self.depth == 0 { Reader::Anybody } else { Reader::Around };
        if reader == Reader::Around
            && let Err(error) = names::put_apart(query)
        {
            return ControlFlow::Break(error);
        }
        self.depth += 1;
        named_columns(query, reader)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        // By now its columns have their names.
        numbers::keep_digits_of_sides(&mut query.body);
        recursive::mark(query);
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Error> {
        using::take_left(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        match expr {
            ast::Expr::Subquery(query) | ast::Expr::Exists { subquery: query, .. } | ast::Expr::InSubquery { subquery: query, .. } => {
                return named_columns(query, Reader::Nobody);
            }
            // DataFusion's ANY and ALL of an array know no NULL.
            ast::Expr::AnyOp { left, compare_op: ast::BinaryOperator::Eq, right, .. } => {
                if let Some(list) = elements(right) {
                    *expr = ast::Expr::InList { expr: left.clone(), list, negated: false };
                }
            }
            ast::Expr::AllOp { left, compare_op: ast::BinaryOperator::NotEq, right } => {
                if let Some(list) = elements(right) {
                    *expr = ast::Expr::InList { expr: left.clone(), list, negated: true };
                }
            }
            ast::Expr::IsDistinctFrom(..) | ast::Expr::IsNotDistinctFrom(..) => bind_tightly(expr),
            ast::Expr::UnaryOp { .. } => intervals::negate_whole(expr),
            ast::Expr::Function(function) => {
                age::up_to_today(function);
                if let Some(remainder) = remainder(function) {
                    *expr = remainder;
                }
            }
            _ => {}
        }
        numbers::keep_digits(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        if let ast::Expr::InSubquery { subquery, .. } = expr {
            numbers::keep_digits_of_columns(&mut subquery.body);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table { name, args: Some(args), .. } = relation {
            let function = name.to_string();
            let is_relation = |at, name: Option<&str>| match is_window(&function) {
                true => at == 0,
                false => analysis::takes_relation(&function, at, name),
            };
            for (at, arg) in args.args.iter_mut().enumerate() {
                let (name, expr) = named(arg);
                expr.filter(|_| is_relation(at, name.as_deref())).into_iter().for_each(as_query);
            }
        }
        ControlFlow::Continue(())
    }
}

fn named_columns(query: &mut Query, reader: Reader) -> ControlFlow<Error> {
    names::named(query, reader).map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

/// An argument's name, where it has one, and its value, where that is an expression.
pub(super) fn named(arg: &mut FunctionArg) -> (Option<String>, Option<&mut ast::Expr>) {
    let (name, value) = match arg {
        FunctionArg::Unnamed(value) => (None, value),
        FunctionArg::Named { name, arg, .. } => (Some(name.value.to_lowercase()), arg),
        FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => (Some(name.value.to_lowercase()), arg),
        FunctionArg::ExprNamed { name, arg, .. } => (Some(name.to_string()), arg),
    };
    match value {
        FunctionArgExpr::Expr(expr) => (name, Some(expr)),
        _ => (name, None),
    }
}

/// Of an array that is written out.
fn elements(array: &ast::Expr) -> Option<Vec<ast::Expr>> {
    match array {
        ast::Expr::Array(array) if !array.elem.is_empty() => Some(array.elem.clone()),
        ast::Expr::Nested(inner) => elements(inner),
        _ => None,
    }
}

/// `s` as `(SELECT * FROM s)`: what is a query by itself stands in FROM, too, where its columns keep their names.
fn as_query(relation: &mut ast::Expr) {
    if let ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) | ast::Expr::Subquery(_) = relation
        && let Some(query) = parsed(&format!("SELECT * FROM {relation}"))
    {
        *relation = ast::Expr::Subquery(query);
    }
}

/// `mod(a, b)` as `(a) % (b)`.
fn remainder(function: &ast::Function) -> Option<ast::Expr> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(of)), FunctionArg::Unnamed(FunctionArgExpr::Expr(by))] = &list.args[..] else {
        return None;
    };
    let nested = |side: &ast::Expr| Box::new(ast::Expr::Nested(Box::new(side.clone())));
    let is_mod = function.over.is_none() && function.name.to_string().eq_ignore_ascii_case("mod");
    is_mod.then(|| ast::Expr::BinaryOp { left: nested(of), op: ast::BinaryOperator::Modulo, right: nested(by) })
}

/// The parser gives `a IS DISTINCT FROM b AND c` the right side `b AND c`; only `b` belongs to it.
fn bind_tightly(expr: &mut ast::Expr) {
    let right = match expr {
        ast::Expr::IsDistinctFrom(_, right) | ast::Expr::IsNotDistinctFrom(_, right) => right,
        _ => return,
    };
    if !is_connective(right) {
        return;
    }
    let nothing = ast::Expr::Value(ast::Value::Null.into());
    let mut whole = std::mem::replace(right.as_mut(), nothing.clone());
    let mut leftmost = &mut whole;
    while let ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And | ast::BinaryOperator::Or, .. } = leftmost {
        leftmost = left;
    }
    std::mem::swap(right.as_mut(), leftmost);
    *leftmost = std::mem::replace(expr, nothing);
    *expr = whole;
}

fn is_connective(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::BinaryOp { op: ast::BinaryOperator::And | ast::BinaryOperator::Or, .. })
}

fn parsed(sql: &str) -> Option<Box<Query>> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).and_then(|mut parser| parser.parse_query()).ok()
}

fn counted(body: &mut SetExpr) {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return };
    counted(left);
    counted(right);
    let function = match (&op, &set_quantifier) {
        (SetOperator::Intersect, SetQuantifier::All) => "intersect_all",
        (SetOperator::Except | SetOperator::Minus, SetQuantifier::All) => "except_all",
        _ => return,
    };
    *body = over(function, vec![left.as_mut(), right.as_mut()]);
}

/// `SELECT * FROM function((side), …)`
pub(super) fn over(function: &str, sides: Vec<&mut SetExpr>) -> SetExpr {
    let placeholders = vec!["(SELECT 1)"; sides.len()].join(", ");
    let mut query = parsed(&format!("SELECT * FROM {function}({placeholders})")).expect("a query");
    let SetExpr::Select(select) = query.body.as_mut() else { unreachable!("a SELECT") };
    let TableFactor::Table { args: Some(args), .. } = &mut select.from[0].relation else { unreachable!("a function") };
    for (arg, side) in args.args.iter_mut().zip(sides) {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(query))) = arg {
            std::mem::swap(query.body.as_mut(), side);
        }
    }
    *query.body
}

fn is_window(function: &str) -> bool {
    ["tumble", "hop", "session"].contains(&function.to_lowercase().as_str())
}

/// The functions in FROM, as plans.
#[derive(Debug)]
pub(super) struct Relations;

impl RelationPlanner for Relations {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let (args, alias) = (args.args.clone(), alias.clone());
        let plan = match name.to_string().to_lowercase().as_str() {
            "tumble" => tumble(args, context)?,
            "hop" => hop(args, context)?,
            "session" => return Err(plan_error("SESSION is not supported; group by a number that lag() over the gaps gives, or use HOP")),
            "intersect_all" => copies(args, context, LogicalPlanBuilder::intersect)?,
            "except_all" => copies(args, context, LogicalPlanBuilder::except)?,
            recursive::TERM => recursive::marked(planned_argument(args.into_iter().next(), "WITH RECURSIVE has two terms", context)?)?,
            other => match analysis::planned(other, args, context)? {
                Some(plan) => plan,
                None => return Ok(RelationPlanning::Original(Box::new(relation))),
            },
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn plan_error(message: &str) -> DataFusionError {
    DataFusionError::Plan(message.into())
}

/// A query among the arguments.
fn planned_argument(arg: Option<FunctionArg>, usage: &str, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(subquery)))) = arg else { return Err(plan_error(usage)) };
    planned_query(subquery, context)
}

pub(super) fn planned_query(subquery: Box<Query>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    context.plan(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })
}

/// The input, and the remaining arguments as expressions over it.
fn window_arguments(args: Vec<FunctionArg>, usage: &str, context: &mut dyn RelationPlannerContext) -> Result<(LogicalPlan, Vec<Expr>)> {
    let mut args = args.into_iter();
    let input = planned_argument(args.next(), usage, context)?;
    let schema = Arc::clone(input.schema());
    let rest = args.map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => context.sql_to_expr(expr, &schema),
        _ => Err(plan_error(usage)),
    });
    let rest = rest.collect::<Result<_>>()?;
    Ok((input, rest))
}

fn all_columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

/// A set operation that counts: equal rows are told apart by a number, and then are a set.
fn copies(
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
    operation: fn(LogicalPlan, LogicalPlan, bool) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let usage = "INTERSECT ALL and EXCEPT ALL stand between two queries";
    let mut args = args.into_iter();
    let left = numbered(planned_argument(args.next(), usage, context)?)?;
    let right = numbered(planned_argument(args.next(), usage, context)?)?;
    let plan = operation(left, right, true)?;
    let mut columns = all_columns(&plan);
    columns.pop();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Appends the number of each row among its equals.
fn numbered(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut columns = all_columns(&plan);
    let number = row_number().partition_by(columns.clone()).build()?;
    let name = number.schema_name().to_string();
    let windowed = LogicalPlanBuilder::from(plan).window(vec![number])?.build()?;
    columns.push(Expr::Column(datafusion::common::Column::from_name(name)).alias("copy"));
    LogicalPlanBuilder::from(windowed).project(columns)?.build()
}

/// More windows than this per row is a mistake in the query.
const WINDOWS_PER_ROW_MAX: i64 = 10_000;
const TUMBLE_USAGE: &str = "TUMBLE takes a relation, its time column and a size: TUMBLE(scans, ts, INTERVAL '5 minutes')";
const HOP_USAGE: &str =
    "HOP takes a relation, its time column, a slide and a size: HOP(scans, ts, INTERVAL '1 minute', INTERVAL '5 minutes')";

fn tumble(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let (input, rest) = window_arguments(args, TUMBLE_USAGE, context)?;
    let [ts, size] = <[Expr; 2]>::try_from(rest).map_err(|_| plan_error(TUMBLE_USAGE))?;
    let ts = time("TUMBLE", ts, input.schema())?;
    length(&size, TUMBLE_USAGE)?;
    let start = date_bin().call(vec![size.clone(), ts.clone()]);
    // What has no time is in no window, as with HOP.
    let input = LogicalPlanBuilder::from(input).filter(ts.is_not_null())?.build()?;
    let mut columns = all_columns(&input);
    columns.push(start.clone().alias("window_start"));
    columns.push((start + size).alias("window_end"));
    LogicalPlanBuilder::from(input).project(columns)?.build()
}

fn hop(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let (input, rest) = window_arguments(args, HOP_USAGE, context)?;
    let [ts, slide, size] = <[Expr; 3]>::try_from(rest).map_err(|_| plan_error(HOP_USAGE))?;
    let ts = time("HOP", ts, input.schema())?;
    let (slide_ms, size_ms) = (length(&slide, HOP_USAGE)?, length(&size, HOP_USAGE)?);
    if WINDOWS_PER_ROW_MAX < size_ms / slide_ms {
        return Err(plan_error(&format!("HOP would put each row into more than {WINDOWS_PER_ROW_MAX} windows; slide further")));
    }
    let mut columns = all_columns(&input);
    let starts = ScalarUDF::from(HopStarts::default()).call(vec![ts, slide, size.clone()]);
    columns.push(starts.alias("window_start"));
    let listed = LogicalPlanBuilder::from(input).project(columns)?;
    let unnested = listed.unnest_column_with_options("window_start", UnnestOptions::new().with_preserve_nulls(false))?.build()?;
    let mut columns = all_columns(&unnested);
    let start = columns.last().cloned().expect("window_start is the last column");
    columns.push((start + size).alias("window_end"));
    LogicalPlanBuilder::from(unnested).project(columns)?.build()
}

/// What a window function goes by, in milliseconds.
fn time(function: &str, ts: Expr, schema: &DFSchema) -> Result<Expr> {
    let data_type = ts.get_type(schema)?;
    let made = match &data_type {
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Timestamp(_, Some(_)) => return Ok(ts),
        DataType::Timestamp(..) | DataType::Date32 => return Ok(cast(ts, millisecond())),
        data_type if data_type.is_integer() => "to_timestamp_millis(…)",
        _ => "CAST(… AS TIMESTAMP)",
    };
    let error = Error::user(format!("the time of {function}, {ts}, is {data_type}, where TIMESTAMP is wanted"));
    let error = error.hint(format!("make it one: {function}((SELECT *, {made} AS at FROM …), at, …)")).mistake(Mistake::WrongType);
    Err(DataFusionError::External(Box::new(error)))
}

/// A window's size or slide in milliseconds.
fn length(interval: &Expr, usage: &str) -> Result<i64> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) = interval else { return Err(plan_error(usage)) };
    let ms = i64::from(value.days) * 86_400_000 + value.nanoseconds / 1_000_000;
    let function = usage.split(' ').next().unwrap_or_default();
    if value.months != 0 || ms <= 0 {
        return Err(plan_error(&format!(
            "{function} needs a positive slide and size without months; for months group by date_trunc('month', ts)"
        )));
    }
    if value.nanoseconds % 1_000_000 != 0 {
        return Err(plan_error(&format!("{function} needs a slide and size of whole milliseconds, as TIMESTAMP counts them")));
    }
    Ok(ms)
}

/// The starts of the hopping windows that hold a time, latest first.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HopStarts {
    signature: Signature,
}

impl Default for HopStarts {
    fn default() -> Self {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let signature = TypeSignature::Exact(vec![millisecond(), interval.clone(), interval]);
        Self { signature: Signature::new(signature, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HopStarts {
    fn name(&self) -> &str {
        "hop_starts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", millisecond(), true))))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let times = columns[0].as_primitive::<TimestampMillisecondType>();
        let ms = |column: usize, i: usize| {
            let value = columns[column].as_primitive::<IntervalMonthDayNanoType>().value(i);
            i64::from(value.days) * 86_400_000 + value.nanoseconds / 1_000_000
        };
        let mut lists = ListBuilder::new(TimestampMillisecondBuilder::new());
        for i in 0..times.len() {
            let (slide, size) = (ms(1, i), ms(2, i));
            if times.is_valid(i) {
                let time = times.value(i);
                if time.checked_sub(size.saturating_add(slide)).is_none() {
                    return exec_err!("a window of this time starts out of range");
                }
                let latest = time - time.rem_euclid(slide);
                let starts = (0..).map(|n| latest - n * slide).take_while(|start| time - start < size);
                starts.for_each(|start| lists.values().append_value(start));
            }
            lists.append(times.is_valid(i));
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}
