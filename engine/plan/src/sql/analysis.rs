//! Functions over relations in FROM, `reach(outages, groups, members)`, as nodes of a plan: each
//! relation's columns found by name, options computed. The optimiser moves nothing through them.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, Schema};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column as ColumnName, DFSchema, DFSchemaRef, DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    EmptyRelation, Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, cast as cast_expr,
    execution_props::ExecutionProps, physical_planning_context::PhysicalPlanningContext,
};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::{self, FunctionArg};
use tidegate_operators::analysis::{AnalysisPlan, Column, Function, Kind, Parameter, ParameterKind, Table, Types, function};
use tidegate_types::error::{Error, did_you_mean};
use tidegate_types::expr::evaluate;

use super::millisecond;
use super::relations::{named, planned_query};
use crate::lower::one_row;

/// A call in a logical plan. Its inputs have the function's columns, in the function's order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnalysisNode {
    pub plan: AnalysisPlan,
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

impl PartialOrd for AnalysisNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let order = self.plan.partial_cmp(&other.plan)?.then(self.inputs.partial_cmp(&other.inputs)?);
        (order != Ordering::Equal || self == other).then_some(order)
    }
}

impl UserDefinedLogicalNodeCore for AnalysisNode {
    fn name(&self) -> &str {
        self.plan.function.name
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.plan.shown())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { inputs, ..self.clone() })
    }
}

/// Physical plans for reads, which wait for no dataflow.
#[derive(Debug)]
pub(super) struct Reads;

#[async_trait]
impl QueryPlanner for Reads {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        plan.apply_with_subqueries(|node| match node {
            LogicalPlan::Extension(extension) if extension.node.as_any().is::<AnalysisNode>() => {
                let name = extension.node.name();
                let hint = format!("CREATE MATERIALIZED VIEW v AS SELECT * FROM {name}(…), and select from that");
                Err(external(Error::unsupported(format!("{name}() in a read"), hint)))
            }
            _ => Ok(TreeNodeRecursion::Continue),
        })?;
        DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await
    }
}

/// Whether an argument of `name` is a relation, by its position or its own name.
pub(super) fn takes_relation(name: &str, at: usize, argument: Option<&str>) -> bool {
    let Some(function) = function(name) else { return false };
    match argument {
        Some(argument) => function.relations.iter().any(|table| table.name == argument),
        None => at < function.relations.len(),
    }
}

/// The call `name(args)`, where there is such a function.
pub(super) fn planned(name: &str, args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<Option<LogicalPlan>> {
    let Some(function) = function(name) else { return Ok(None) };
    let mut arguments = assigned(function, args).map_err(external)?;
    let options = arguments.split_off(function.relations.len());
    let mut queries = Vec::new();
    for (table, argument) in function.relations.iter().zip(arguments) {
        let query = match argument {
            Some(ast::Expr::Subquery(query)) => Some(planned_query(query, context)?),
            None if table.is_optional => None,
            Some(other) => {
                let message = format!("{}'s {} is a relation, not {other}", function.name, table.name);
                return Err(external(Error::user(message).hint("name a relation, or write (SELECT … FROM …)")));
            }
            None => return Err(external(missing(function, table.name))),
        };
        queries.push(query);
    }
    let mut types = Types::default();
    let picked = function.relations.iter().zip(queries).map(|(table, query)| match query {
        Some(query) => picked(function, table, query, &mut types).map(Some),
        None => Ok(None),
    });
    let picked = picked.collect::<Result<Vec<_>>>()?;
    // Only now is it known of what types ids and times are.
    let options = function.options.iter().zip(options).map(|(option, given)| value(function, option, given, &types, context));
    let options = options.collect::<Result<Vec<i64>>>()?;
    let inputs = function.relations.iter().zip(picked).map(|(table, plan)| match plan {
        Some((query, exprs)) => typed(table, query, exprs, &types),
        None => empty(table, &types),
    });
    call(function, inputs.collect::<Result<Vec<_>>>()?, options, types).map(Some)
}

fn call(function: &'static Function, inputs: Vec<LogicalPlan>, options: Vec<i64>, types: Types) -> Result<LogicalPlan> {
    let schemas = inputs.iter().map(|input| Arc::clone(input.schema().inner()));
    let plan = AnalysisPlan::new(function, schemas.collect(), options, types);
    let schema = Arc::new(DFSchema::try_from_qualified_schema(function.name, &plan.schema)?);
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(AnalysisNode { plan, inputs, schema }) }))
}

/// An expression for each relation and then for each option, as far as they are given.
fn assigned(function: &Function, args: Vec<FunctionArg>) -> Result<Vec<Option<ast::Expr>>, Error> {
    let names = || function.relations.iter().map(|table| table.name).chain(function.options.iter().map(|option| option.name));
    let mut assigned = vec![None; names().count()];
    let mut is_named = false;
    for (position, mut arg) in args.into_iter().enumerate() {
        let (name, Some(expr)) = named(&mut arg) else {
            return Err(Error::user(format!("{arg} is no argument of {}", function.name)).hint(function.usage()));
        };
        is_named |= name.is_some();
        let at = match &name {
            Some(name) => names().position(|known| known == name).ok_or_else(|| {
                let error = Error::user(format!("{} has no argument \"{name}\"", function.name));
                match did_you_mean(name, names()) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None => error.hint(function.usage()),
                }
            })?,
            None if is_named => {
                return Err(
                    Error::user(format!("{} has an argument without a name behind one with a name", function.name)).hint("name it too")
                );
            }
            None => position,
        };
        match assigned.get_mut(at) {
            None => return Err(Error::user(format!("{} has too many arguments", function.name)).hint(function.usage())),
            Some(Some(_)) => {
                let name = name.unwrap_or_default();
                return Err(Error::user(format!("{}'s argument \"{name}\" is given twice", function.name)).hint("leave one out"));
            }
            Some(free) => *free = Some(expr.clone()),
        }
    }
    Ok(assigned)
}

fn missing(function: &Function, argument: &str) -> Error {
    Error::user(format!("{} lacks its argument \"{argument}\"", function.name)).hint(function.usage())
}

/// The value of an option: a constant.
fn value(
    function: &Function,
    option: &Parameter,
    given: Option<ast::Expr>,
    types: &Types,
    context: &mut dyn RelationPlannerContext,
) -> Result<i64> {
    let Some(given) = given else { return option.default.ok_or_else(|| external(missing(function, option.name))) };
    let what = format!("{}'s {}", function.name, option.name);
    let text = given.to_string();
    let column = constant(given, context)?.ok_or_else(|| {
        let error = Error::user(format!("{what} is {text}, where a constant is wanted"));
        external(error.hint("write a literal, such as 1440 or INTERVAL '1 day', or (SELECT … FROM a view of constants)"))
    })?;
    match (option.kind, integer(&column)) {
        (ParameterKind::Integer { min, max }, Some(value)) if column.data_type().is_integer() && (min..=max).contains(&value) => Ok(value),
        (ParameterKind::Integer { min, max }, _) => {
            Err(external(Error::user(format!("{what} is {text}")).hint(format!("write a whole number from {min} to {max}"))))
        }
        (ParameterKind::Time, Some(value)) if is_timestamp(column.data_type()) == is_timestamp(&types.of(Kind::Time)) => Ok(value),
        (ParameterKind::Time, _) => Err(external(Error::user(format!("{what} is {text}")).hint(match types.of(Kind::Time) {
            DataType::Int64 => {
                "its times are BIGINT: write an integer in their unit, or an INTERVAL without months where that is milliseconds"
            }
            _ => "its times are TIMESTAMP: write one, or make them BIGINT, such as the milliseconds since the incident",
        }))),
    }
}

/// What `given` is, whatever the relations hold: one row.
fn constant(given: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<Option<ArrayRef>> {
    let none = DFSchema::empty();
    let expr = match given {
        ast::Expr::Subquery(query) => {
            let columns = constants(&planned_query(query, context)?)?;
            columns.and_then(|columns| <[Expr; 1]>::try_from(columns).ok()).map(|[only]| only)
        }
        other => Some(context.sql_to_expr(other, &none)?),
    };
    let Some(expr) = expr else { return Ok(None) };
    let physical = create_physical_expr(&expr, &none, &ExecutionProps::new(), &PhysicalPlanningContext::default());
    Ok(physical.ok().and_then(|physical| evaluate(physical.as_ref(), &one_row()).ok()))
}

/// The columns of a query that reads no rows: over plain views that are constants.
fn constants(plan: &LogicalPlan) -> Result<Option<Vec<Expr>>> {
    match plan {
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Ok(Some(Vec::new())),
        LogicalPlan::SubqueryAlias(alias) => constants(&alias.input),
        LogicalPlan::Projection(projection) => {
            let Some(inputs) = constants(&projection.input)? else { return Ok(None) };
            let input = |expr: Expr| match &expr {
                Expr::Column(column) => Ok(Transformed::yes(inputs[projection.input.schema().index_of_column(column)?].clone())),
                _ => Ok(Transformed::no(expr)),
            };
            let columns = projection.expr.iter().map(|expr| Ok(expr.clone().transform_up(input)?.data));
            columns.collect::<Result<_>>().map(Some)
        }
        _ => Ok(None),
    }
}

fn is_timestamp(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

/// An integer; the milliseconds of an interval or a time.
fn integer(column: &ArrayRef) -> Option<i64> {
    if column.is_null(0) {
        return None;
    }
    match column.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let interval = column.as_primitive::<IntervalMonthDayNanoType>().value(0);
            let is_whole = interval.months == 0 && interval.nanoseconds % 1_000_000 == 0;
            is_whole.then_some(i64::from(interval.days) * 86_400_000 + interval.nanoseconds / 1_000_000)
        }
        DataType::Timestamp(_, None) => as_integer(&cast(column, &millisecond()).ok()?),
        data_type if data_type.is_integer() => as_integer(column),
        _ => None,
    }
}

fn as_integer(column: &ArrayRef) -> Option<i64> {
    let column = cast(column, &DataType::Int64).ok()?;
    column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0))
}

/// The columns of `query` that `table` names, and of what types its ids and times are.
fn picked(function: &Function, table: &Table, query: LogicalPlan, types: &mut Types) -> Result<(LogicalPlan, Vec<Option<Expr>>)> {
    let exprs = table.columns.iter().map(|column| {
        let Some(found) = found(function, table, column, &query)? else { return Ok(None) };
        let field = query.schema().field_from_column(&found)?;
        types.bind(function, table, column, field.data_type()).map_err(external)?;
        refuse_without_order(function, table, column, field.data_type())?;
        Ok(Some(Expr::Column(found)))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok((query, exprs))
}

fn found(function: &Function, table: &Table, column: &Column, query: &LogicalPlan) -> Result<Option<ColumnName>> {
    let names: Vec<ColumnName> = query.schema().columns().into_iter().filter(|found| found.name == column.name).collect();
    match &names[..] {
        [found] => Ok(Some(found.clone())),
        [] if column.is_optional => Ok(None),
        [] => {
            let fields = query.schema().fields();
            let error = Error::user(format!("{}'s {} has no column \"{}\"", function.name, table.name, column.name));
            Err(external(match did_you_mean(column.name, fields.iter().map(|field| field.name().as_str())) {
                Some(close) => error.hint(format!("did you mean \"{close}\"? (SELECT {close} AS {}, … FROM …)", column.name)),
                None => error.hint(format!("give it one: (SELECT … AS {}, … FROM …)", column.name)),
            }))
        }
        _ => {
            let error = Error::user(format!("{}'s {} has several columns \"{}\"", function.name, table.name, column.name));
            Err(external(error.hint("select one of them in a subquery")))
        }
    }
}

fn refuse_without_order(function: &Function, table: &Table, column: &Column, data_type: &DataType) -> Result<()> {
    if RowConverter::supports_fields(&[SortField::new(data_type.clone())]) {
        return Ok(());
    }
    let construct = format!("column \"{}\" of {}'s {} with its type {data_type}", column.name, function.name, table.name);
    Err(external(Error::unsupported(construct, "take an id that has an order")))
}

fn typed(table: &Table, query: LogicalPlan, exprs: Vec<Option<Expr>>, types: &Types) -> Result<LogicalPlan> {
    let columns = table.columns.iter().zip(exprs).map(|(column, expr)| {
        let wanted = types.of(column.kind);
        let expr = match expr {
            None => Expr::Literal(ScalarValue::try_new_null(&wanted)?, None),
            Some(Expr::Column(found)) if query.schema().field_from_column(&found)?.data_type() == &wanted => Expr::Column(found),
            Some(expr) => cast_expr(expr, wanted),
        };
        Ok(expr.alias(column.name))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(query).project(columns)?.build()
}

fn empty(table: &Table, types: &Types) -> Result<LogicalPlan> {
    let fields = table.columns.iter().map(|column| arrow::datatypes::Field::new(column.name, types.of(column.kind), true));
    let schema = Arc::new(DFSchema::try_from(Schema::new(fields.collect::<Vec<_>>()))?);
    Ok(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema }))
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
