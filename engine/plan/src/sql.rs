//! A query to DataFusion's optimised logical plan, as a stream engine needs it:
//! TIMESTAMP in milliseconds, `now()` and `watermark()` left open, TUMBLE and HOP in FROM.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ScalarValue, TableReference};
use datafusion::datasource::{TableProvider, ViewTable, empty::EmptyTable};
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::optimizer::{Analyzer, AnalyzerRule, OptimizerRule};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, Query};
use tidegate_operators::aggregate::exact;
use tidegate_types::error::{Error, Result};

use crate::catalog::{Catalog, RelationKind};
use crate::statement::{arrow_type, type_instead};

mod age;
mod analysis;
mod bounded;
mod checked;
mod constants;
mod dates;
mod detectors;
mod functions;
mod intervals;
mod names;
mod neighbours;
mod null_keys;
mod numbers;
mod quotients;
mod recursive;
mod refused;
mod relations;
mod sound;
mod subqueries;
mod unnest;
mod using;
mod wording;

pub(crate) use analysis::AnalysisNode;
use checked::Arithmetic;
pub use constants::typed;
pub(crate) use detectors::detector_call;
pub(crate) use functions::date_bin;
pub use names::Shown;
use null_keys::{CrossJoins, Keys};
pub use relations::rewritten;
pub use wording::{CREATE_IT, planning_error, planning_error_among, value_error};
use wording::{no_value, watermark_outside};

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
    // Where an optimised plan says "never NULL" of what the physical one does not, rows are the same.
    options.execution.skip_physical_aggregate_schema_check = true;
    config
}

/// DataFusion with Tidegate's types, TUMBLE and HOP, functions that do not answer wrongly, and no tables.
pub fn state_builder() -> SessionStateBuilder {
    let mut builder = SessionStateBuilder::new()
        .with_config(config())
        .with_default_features()
        .with_type_planner(Arc::new(Types))
        .with_relation_planners(vec![Arc::new(relations::Relations)])
        .with_query_planner(Arc::new(analysis::Reads))
        .with_analyzer_rules(analyzer_rules(Arithmetic::All))
        .with_optimizer_rules(optimizer_rules());
    builder.expr_planners().get_or_insert_default().push(Arc::new(intervals::ByNumbers));
    builder.scalar_functions().get_or_insert_default().iter_mut().for_each(|function| *function = bounded::bounded(function));
    // The last of a name counts.
    builder.scalar_functions().get_or_insert_default().push(functions::date_bin());
    builder.scalar_functions().get_or_insert_default().push(age::age());
    builder.scalar_functions().get_or_insert_default().push(numbers::number_as_written());
    builder.scalar_functions().get_or_insert_default().push(Arc::new(ScalarUDF::from(OpenClock::now())));
    builder.scalar_functions().get_or_insert_default().extend(detectors::scalar_functions());
    builder.window_functions().get_or_insert_default().extend(detectors::window_functions());
    builder.aggregate_functions().get_or_insert_default().iter_mut().for_each(|function| *function = exact(function));
    builder
}

impl Session {
    pub fn new(catalog: &Catalog) -> Result<Self> {
        let rules = analyzer_rules(Arithmetic::OfConstants);
        let state = state_builder().with_analyzer_rules(rules).with_optimizer_rules(dataflow_rules()).build();
        let context = SessionContext::new_with_state(state);
        context.register_udf(ScalarUDF::from(OpenClock::watermark()));
        let public = context.catalog("datafusion").and_then(|catalog| catalog.schema("public")).expect("the default schema");
        let system: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
        let catalog_provider = context.catalog("datafusion").expect("the default catalog");
        catalog_provider.register_schema("sys", Arc::clone(&system)).map_err(|error| planning_error(&error))?;
        let mut names = Vec::new();
        for relation in catalog.relations.values() {
            let provider: Arc<dyn TableProvider> = match &relation.kind {
                RelationKind::View { query, .. } => Arc::new(ViewTable::new(query.as_ref().clone(), None)),
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

    /// Planned and type-checked, not optimised: what a view is stored as.
    pub fn plan(&self, query: &Query) -> Result<LogicalPlan> {
        let mut query = query.clone();
        names::put_apart(&mut query)?;
        let statement = statement(rewritten(&query)?);
        let plan = futures::executor::block_on(self.state.statement_to_plan(statement)).map_err(|error| self.explain(&error))?;
        let plan = sound(plan)?;
        refuse_parameters(&plan)?;
        refuse_volatile(&plan)?;
        typed(plan.clone(), self.state.config_options()).map_err(|error| self.explain(&error))?;
        Ok(plan)
    }

    /// The relations `query` names, views among them; not those it defines itself.
    pub fn names(&self, query: &Query) -> Result<BTreeSet<String>> {
        let statement = statement(rewritten(query)?);
        let references = self.state.resolve_table_references(&statement).map_err(|error| self.explain(&error))?;
        Ok(references.iter().map(relation_name).collect())
    }

    pub fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let open = open_clocks(plan.clone()).map_err(|error| self.explain(&error))?;
        self.state.optimize(&open).map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &DataFusionError) -> Error {
        planning_error_among(error, self.names.iter().map(String::as_str), CREATE_IT)
    }
}

/// `plan`, meaning what its text says.
///
/// Errors: it cannot be made to.
pub fn sound(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = neighbours::with_defaults(plan).and_then(numbers::as_meant).and_then(dates::among_timestamps).and_then(quotients::rounded);
    let plan = plan.and_then(recursive::kept).and_then(using::of_one_kind).map_err(|error| planning_error(&error))?;
    sound::sound(plan)
}

/// The catalog's name for what a plan refers to.
pub fn relation_name(reference: &TableReference) -> String {
    match reference.schema() {
        Some(schema) if schema != "public" => format!("{schema}.{}", reference.table()),
        _ => reference.table().to_string(),
    }
}

/// A query as DataFusion's planner takes it.
pub fn statement(query: Query) -> DfStatement {
    DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))))
}

/// What only who prepares a query could give.
pub fn refuse_parameters(plan: &LogicalPlan) -> Result<()> {
    let names = plan.get_parameter_names().map_err(|error| planning_error(&error))?;
    names.into_iter().min().map_or(Ok(()), |name| Err(no_value(&name)))
}

/// What the optimiser would compute once for all time.
fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    let mut refused = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                refused = refused.take().or_else(|| volatile(expr));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.expect("the walk never fails");
    refused.map_or(Ok(()), Err)
}

fn volatile(expr: &Expr) -> Option<Error> {
    match expr {
        Expr::ScalarFunction(call) if call.func.inner().as_any_ref().is::<OpenClock>() => None,
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => Some(match call.func.name() {
            name @ ("current_date" | "current_time") => {
                Error::unsupported(format!("{name}()"), "compare with now(), which moves by itself")
            }
            name => Error::unsupported(format!("{name}(), which gives another value each time,"), "take the value from the input"),
        }),
        _ => None,
    }
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

/// DataFusion's own rules, and then ours.
fn analyzer_rules(arithmetic: Arithmetic) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules = Analyzer::new().rules;
    rules.push(Arc::new(arithmetic));
    rules
}

/// DataFusion's own rules, two of them kept in bounds.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let guarded: [Arc<dyn OptimizerRule + Send + Sync>; 2] = [Arc::new(CrossJoins::default()), Arc::new(Keys::default())];
    for guard in guarded {
        rules.iter_mut().filter(|rule| rule.name() == guard.name()).for_each(|rule| *rule = Arc::clone(&guard));
    }
    rules
}

/// But for those made for batches: limits pushed into scans, DISTINCT as an aggregate, and distinct counts as two.
fn dataflow_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let left_out = [
        "push_down_limit",
        "single_distinct_aggregation_to_group_by",
        "replace_distinct_aggregate",
        "filter_null_join_keys",
        "extract_leaf_expressions",
        "push_down_leaf_projections",
    ];
    optimizer_rules().into_iter().filter(|rule| !left_out.contains(&rule.name())).collect()
}

#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> datafusion::common::Result<Option<FieldRef>> {
        use ast::{DataType as Sql, ExactNumberInfo, TimezoneInfo};
        let ours = |data_type| Ok(Some(Arc::new(Field::new("", data_type, true))));
        match (sql_type, arrow_type(sql_type)) {
            (Sql::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone), Some(data_type)) => ours(data_type),
            (Sql::Decimal(ExactNumberInfo::None) | Sql::Numeric(ExactNumberInfo::None) | Sql::Dec(ExactNumberInfo::None), _) => Ok(None),
            (Sql::Decimal(_) | Sql::Numeric(_) | Sql::Dec(_), Some(data_type)) => ours(data_type),
            (Sql::Decimal(_) | Sql::Numeric(_) | Sql::Dec(_), None) => {
                let error = Error::unsupported(format!("type {sql_type}"), type_instead(sql_type));
                Err(DataFusionError::External(Box::new(error)))
            }
            _ => Ok(None),
        }
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
        Err(match self.name {
            "watermark" => DataFusionError::External(Box::new(watermark_outside())),
            name => DataFusionError::Plan(format!("{name}() is known only to a running view, or at a tick")),
        })
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
