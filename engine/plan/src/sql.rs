//! A query to DataFusion's optimised logical plan, as a stream engine needs it:
//! TIMESTAMP in milliseconds, `now()` and `watermark()` left open, TUMBLE and HOP in FROM.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, ListBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNanoType, TimeUnit, TimestampMillisecondType};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, ScalarValue, UnnestOptions};
use datafusion::datasource::{TableProvider, ViewTable, empty::EmptyTable};
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning, TypePlanner};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Query, TableFactor, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tidegate_types::error::{Error, Result, did_you_mean};

use crate::catalog::{Catalog, RelationKind};
use crate::statement::arrow_type;

/// DataFusion, told what the catalog knows.
pub struct Session {
    state: SessionState,
    names: Vec<String>,
}

/// The name `now()` has in a plan that is still open.
pub const NOW: &str = "now()";

/// DataFusion's configuration wherever Tidegate runs it, planning and reading alike.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_information_schema(true)
        .with_default_catalog_and_schema("datafusion", "public");
    let options = config.options_mut();
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    // One string type at rest.
    options.sql_parser.map_string_types_to_utf8view = false;
    // A dataflow joins with a subquery's value; it cannot wait for it.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.filter_null_join_keys = false;
    config
}

/// DataFusion with Tidegate's types and functions, and no tables.
pub fn state_builder() -> SessionStateBuilder {
    SessionStateBuilder::new().with_config(config()).with_default_features().with_type_planner(Arc::new(Types))
}

impl Session {
    pub fn new(catalog: &Catalog) -> Result<Self> {
        let state = state_builder().with_optimizer_rules(rules()).with_relation_planners(vec![Arc::new(Windows)]).build();
        let context = SessionContext::new_with_state(state);
        context.register_udf(ScalarUDF::from(OpenClock::now()));
        context.register_udf(ScalarUDF::from(OpenClock::watermark()));
        context.register_udf(ScalarUDF::from(HopStarts::default()));
        let public = context.catalog("datafusion").and_then(|catalog| catalog.schema("public")).expect("the default schema");
        let system: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
        let catalog_provider = context.catalog("datafusion").expect("the default catalog");
        catalog_provider.register_schema("sys", Arc::clone(&system)).map_err(|error| planning_error(&error))?;
        let mut names = Vec::new();
        for relation in catalog.relations.values() {
            let provider: Arc<dyn TableProvider> = match &relation.kind {
                RelationKind::View { query } => Arc::new(ViewTable::new(query.as_ref().clone(), None)),
                _ => Arc::new(EmptyTable::new(Arc::clone(&relation.schema))),
            };
            let (schema, name) = match relation.name.split_once('.') {
                Some((_, name)) => (&system, name),
                None => (&public, &relation.name[..]),
            };
            schema.register_table(name.to_string(), provider).map_err(|error| planning_error(&error))?;
            names.push(relation.name.clone());
        }
        Ok(Self { state: context.state(), names })
    }

    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Planned and type-checked, not optimised: what a view is stored as.
    pub fn plan(&self, query: &Query) -> Result<LogicalPlan> {
        let mut query = query.clone();
        let _ = query.visit(&mut WindowInputs);
        let statement = DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        let plan = futures::executor::block_on(self.state.statement_to_plan(statement)).map_err(|error| self.explain(&error))?;
        refuse_ambiguous_subqueries(&plan)?;
        Ok(plan)
    }

    pub fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let open = open_clocks(plan.clone()).map_err(|error| self.explain(&error))?;
        self.state.optimize(&open).map_err(|error| self.explain(&error))
    }

    /// DataFusion's words, with a way out where one is known.
    fn explain(&self, error: &DataFusionError) -> Error {
        let error = planning_error(error);
        let quoted = error.message.split(['\'', '"']).nth(1).unwrap_or_default().to_string();
        if error.message.contains("not found") && error.message.contains("table") {
            let name = quoted.rsplit('.').next().unwrap_or_default().to_string();
            let missing = Error::user(format!("relation \"{name}\" does not exist"));
            return match did_you_mean(&name, self.names.iter().map(String::as_str)) {
                Some(close) => missing.hint(format!("did you mean \"{close}\"?")),
                None => missing.hint("create it first: files of a pack run in the order of their names"),
            };
        }
        error
    }
}

/// What DataFusion said, as one of our errors.
pub fn planning_error(error: &DataFusionError) -> Error {
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
        && let datafusion::common::SchemaError::FieldNotFound { field, valid_fields } = schema_error.as_ref()
    {
        let names: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
        let missing = match &field.relation {
            Some(relation) => format!("column \"{}\" does not exist in \"{}\"", field.name, relation.table()),
            None => format!("column \"{}\" does not exist", field.name),
        };
        return match did_you_mean(&field.name, names.iter().copied()) {
            Some(close) => Error::user(missing).hint(format!("did you mean \"{close}\"?")),
            None if names.is_empty() => Error::user(missing),
            None => Error::user(missing).hint(format!("there are {}", names.join(", "))),
        };
    }
    let text = error.find_root().strip_backtrace();
    let text =
        ["Error during planning: ", "This feature is not implemented: ", "Optimizer rule 'simplify_expressions' failed\ncaused by\n"]
            .iter()
            .fold(text, |text, prefix| text.strip_prefix(prefix).map(str::to_string).unwrap_or(text));
    let mut text = text.trim().to_string();
    if text.get(1..2).is_some_and(|second| second.chars().all(char::is_lowercase)) {
        let first = text[..1].to_lowercase();
        text.replace_range(..1, &first);
    }
    Error::user(text)
}

// A scalar subquery of many rows is an error in SQL; as a join it would be many rows.
fn refuse_ambiguous_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    let mut check = |expr: &Expr| {
        let found = expr.exists(|expr| match expr {
            Expr::ScalarSubquery(query) => Ok(query.outer_ref_columns.is_empty() && query.subquery.max_rows() != Some(1)),
            _ => Ok(false),
        });
        if found.unwrap_or(false) {
            refused = Some(Error::unsupported("a scalar subquery that may return several rows", "aggregate it, or end it with LIMIT 1"));
        }
    };
    let _ = plan.apply_with_subqueries(|node| {
        node.expressions().iter().for_each(&mut check);
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    refused.map_or(Ok(()), Err)
}

/// `now()` and `watermark('s')` become variables, which no rule computes or moves across a meaning.
fn open_clocks(plan: LogicalPlan) -> datafusion::common::Result<LogicalPlan> {
    let opened = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| {
            expr.transform_up(|expr| match &expr {
                Expr::ScalarFunction(call) if call.func.inner().as_any_ref().is::<OpenClock>() => {
                    let name = match &call.args[..] {
                        [] => vec![NOW.to_string()],
                        [Expr::Literal(ScalarValue::Utf8(Some(source)), _)] => vec!["watermark".to_string(), source.clone()],
                        _ => return Err(DataFusionError::Plan("watermark() takes the name of a source as a literal".into())),
                    };
                    Ok(Transformed::yes(Expr::ScalarVariable(Arc::new(Field::new(name.join(" "), millisecond(), true)), name)))
                }
                _ => Ok(Transformed::no(expr)),
            })
        })
    })?;
    opened.data.recompute_schema()
}

fn millisecond() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// DataFusion's own rules but for those made for batches: limits pushed into scans, distinct
/// counts as two aggregates, and DISTINCT ON as first_value.
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let left_out = [
        "push_down_limit",
        "single_distinct_aggregation_to_group_by",
        "replace_distinct_aggregate",
        "filter_null_join_keys",
        "extract_leaf_expressions",
        "push_down_leaf_projections",
    ];
    let rules = Optimizer::new().rules;
    rules.into_iter().filter(|rule| !left_out.contains(&rule.name())).collect()
}

#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> datafusion::common::Result<Option<FieldRef>> {
        let timestamp = matches!(sql_type, ast::DataType::Timestamp(None, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone));
        Ok(arrow_type(sql_type).filter(|_| timestamp).map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}

/// `now()` and `watermark(source)`: known to the planner by type only.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OpenClock {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl OpenClock {
    fn now() -> Self {
        let aliases = vec!["current_timestamp".to_string()];
        Self { name: "now", aliases, signature: Signature::nullary(Volatility::Stable) }
    }

    fn watermark() -> Self {
        Self { name: "watermark", aliases: Vec::new(), signature: Signature::exact(vec![DataType::Utf8], Volatility::Stable) }
    }
}

impl ScalarUDFImpl for OpenClock {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(millisecond())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        Err(DataFusionError::Plan(format!("{}() is known only to a running view", self.name)))
    }
}

/// DataFusion looks relations up before it plans, and finds only those it sees: TUMBLE(s, …)
/// becomes TUMBLE((SELECT * FROM s), …).
struct WindowInputs;

impl VisitorMut for WindowInputs {
    type Break = ();

    fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(args), .. } = relation
            && is_window(&name.to_string())
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = args.args.first_mut()
            && let ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) = first
        {
            let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&format!("SELECT * FROM {first}"));
            if let Ok(query) = parsed.and_then(|mut parser| parser.parse_query()) {
                *first = ast::Expr::Subquery(query);
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_window(function: &str) -> bool {
    ["tumble", "hop", "session"].contains(&function.to_lowercase().as_str())
}

/// TUMBLE and HOP in FROM, as projections.
#[derive(Debug)]
struct Windows;

impl RelationPlanner for Windows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion::common::Result<RelationPlanning> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let function = name.to_string().to_lowercase();
        if !is_window(&function) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let (args, alias) = (args.args.clone(), alias.clone());
        let plan = match function.as_str() {
            "tumble" => tumble(args, context)?,
            "hop" => hop(args, context)?,
            _ => return Err(plan_error("SESSION is not supported; group by a number that lag() over the gaps gives, or use HOP")),
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn plan_error(message: &str) -> DataFusionError {
    DataFusionError::Plan(message.into())
}

/// The input, and the remaining arguments as expressions over it.
fn window_arguments(
    args: Vec<FunctionArg>,
    usage: &str,
    context: &mut dyn RelationPlannerContext,
) -> datafusion::common::Result<(LogicalPlan, Vec<Expr>)> {
    let exprs = args.into_iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(plan_error(usage)),
    });
    let mut exprs = exprs.collect::<datafusion::common::Result<Vec<_>>>()?.into_iter();
    let input = match exprs.next() {
        Some(ast::Expr::Subquery(subquery)) => TableFactor::Derived { lateral: false, subquery, alias: None, sample: None },
        _ => return Err(plan_error(usage)),
    };
    let input = context.plan(input)?;
    let schema = Arc::clone(input.schema());
    let rest = exprs.map(|expr| context.sql_to_expr(expr, &schema)).collect::<datafusion::common::Result<_>>()?;
    Ok((input, rest))
}

fn all_columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

const TUMBLE_USAGE: &str = "TUMBLE takes a relation, its time column and a size: TUMBLE(scans, ts, INTERVAL '5 minutes')";
const HOP_USAGE: &str =
    "HOP takes a relation, its time column, a slide and a size: HOP(scans, ts, INTERVAL '1 minute', INTERVAL '5 minutes')";

fn tumble(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> datafusion::common::Result<LogicalPlan> {
    let (input, rest) = window_arguments(args, TUMBLE_USAGE, context)?;
    let [ts, size] = <[Expr; 2]>::try_from(rest).map_err(|_| plan_error(TUMBLE_USAGE))?;
    let start = date_bin().call(vec![size.clone(), ts]);
    let mut columns = all_columns(&input);
    columns.push(start.clone().alias("window_start"));
    columns.push((start + size).alias("window_end"));
    LogicalPlanBuilder::from(input).project(columns)?.build()
}

fn hop(args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> datafusion::common::Result<LogicalPlan> {
    let (input, rest) = window_arguments(args, HOP_USAGE, context)?;
    let [ts, slide, size] = <[Expr; 3]>::try_from(rest).map_err(|_| plan_error(HOP_USAGE))?;
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

/// The starts of the hopping windows that hold a time, latest first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct HopStarts {
    signature: Signature,
}

impl Default for HopStarts {
    fn default() -> Self {
        let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
        let signature = TypeSignature::Exact(vec![millisecond(), interval.clone(), interval]);
        Self { signature: Signature::new(signature, Volatility::Immutable) }
    }
}

/// More windows than this per row is a mistake in the query.
const WINDOWS_PER_ROW_MAX: i64 = 10_000;

impl ScalarUDFImpl for HopStarts {
    fn name(&self) -> &str {
        "hop_starts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", millisecond(), true))))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> datafusion::common::Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let times = columns[0].as_primitive::<TimestampMillisecondType>();
        let interval = |column: usize, i: usize| {
            let value = columns[column].as_primitive::<IntervalMonthDayNanoType>().value(i);
            let ms = i64::from(value.days) * 86_400_000 + value.nanoseconds / 1_000_000;
            if value.months == 0 && 0 < ms { Ok(ms) } else { Err(plan_error("HOP needs a positive slide and size without months")) }
        };
        let mut lists = ListBuilder::new(TimestampMillisecondBuilder::new());
        for i in 0..times.len() {
            let (slide, size) = (interval(1, i)?, interval(2, i)?);
            if WINDOWS_PER_ROW_MAX < size / slide {
                return Err(plan_error("HOP would put each row into more than 10000 windows"));
            }
            if times.is_valid(i) {
                let time = times.value(i);
                let latest = time - time.rem_euclid(slide);
                let starts = (0..).map(|k| latest - k * slide).take_while(|start| time < start + size);
                starts.for_each(|start| lists.values().append_value(start));
            }
            lists.append(times.is_valid(i));
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}

trait AsAnyRef {
    fn as_any_ref(&self) -> &dyn Any;
}

impl AsAnyRef for Arc<dyn ScalarUDFImpl> {
    fn as_any_ref(&self) -> &dyn Any {
        self.as_ref() as &dyn Any
    }
}
