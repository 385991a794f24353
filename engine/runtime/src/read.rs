//! Reading: several relations at one closed tick, and DataFusion over them.
//!
//! Bounds    [`STATEMENT_BYTES_MAX`] of rows, told as soon as they are more, and [`MEMORY_BYTES_MAX`] to compute them in

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{MemTable, TableProvider, ViewTable, provider_as_source, source_as_provider};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, TableScan};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast;
use futures::{FutureExt, StreamExt};
use tidegate_plan::size::Size;
use tidegate_plan::sql::{
    CREATE_IT, Shown, planning_error, planning_error_among, refuse_parameters, relation_name, rewritten, sound, state_builder, statement,
    typed,
};
use tidegate_types::Tick;
use tidegate_types::error::{Error, Result};

use crate::engine::Engine;
use crate::interface::{RelationInfo, Response, Snapshot};

/// Of rows, not compressed: what one statement may answer or write. What is made of them on their way into the log
/// takes several times as much.
pub const STATEMENT_BYTES_MAX: usize = 256 << 20;

/// What one statement may take to compute, beyond what it reads.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// A query over readable relations, all at one tick.
pub async fn query(engine: &Engine, query: &ast::Query) -> Result<Response> {
    let known = engine.relations();
    check_size(query, &known)?;
    let query = rewritten(query)?;
    let context = context()?;
    let mentioned = mentioned(&context, &query, &known)?;
    let snapshot = engine.snapshot(&mentioned.iter().flat_map(|relation| kept_names(relation)).collect::<Vec<_>>()).await?;
    answer(engine, &context, query, &known, &mentioned, snapshot).await
}

/// A query over one table of which only the rows that begin with `prefix` matter.
pub async fn query_narrowed(engine: &Engine, query: &ast::Query, table: &str, prefix: Vec<u8>) -> Result<Response> {
    let known = engine.relations();
    check_size(query, &known)?;
    let query = rewritten(query)?;
    let context = context()?;
    let mentioned = mentioned(&context, &query, &known)?;
    let snapshot = engine.snapshot_of(table, prefix).await?;
    answer(engine, &context, query, &known, &mentioned, snapshot).await
}

/// Errors: the query is too large once its views are written out.
pub fn check_size(query: &ast::Query, known: &[RelationInfo]) -> Result<()> {
    let sizes: BTreeMap<String, Size> = known.iter().filter_map(|view| Some((view.name.to_lowercase(), view.size?))).collect();
    Size::of(query, |name| sizes.get(name).copied()).map(drop)
}

fn mentioned<'a>(context: &SessionContext, query: &ast::Query, known: &'a [RelationInfo]) -> Result<Vec<&'a RelationInfo>> {
    let references =
        context.state_ref().read().resolve_table_references(&statement(query.clone())).map_err(|error| planning_error(&error))?;
    let names: BTreeSet<String> = references.iter().map(relation_name).collect();
    Ok(known.iter().filter(|relation| names.contains(&relation.name)).collect())
}

async fn answer(
    engine: &Engine,
    context: &SessionContext,
    mut query: ast::Query,
    known: &[RelationInfo],
    mentioned: &[&RelationInfo],
    snapshot: Snapshot,
) -> Result<Response> {
    let failed = |error: DataFusionError| match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => too_much_memory(),
        _ => planning_error_among(&error, known.iter().map(|relation| relation.name.as_str()), CREATE_IT),
    };
    let provider = |name: &str| -> DataFusionResult<Arc<dyn TableProvider>> {
        let rows = snapshot.relations.get(name).ok_or_else(|| DataFusionError::Plan(format!("table '{name}' not found")))?;
        Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?))
    };
    let catalog = context.catalog("datafusion").expect("the default catalog");
    catalog.register_schema("sys", Arc::new(MemorySchemaProvider::new())).map_err(failed)?;
    for relation in mentioned {
        let table = match &relation.query {
            Some(query) => view_over(query, provider),
            None => provider(&relation.name),
        };
        context.register_table(relation.name.as_str(), table.map_err(failed)?).map_err(failed)?;
    }
    let state = context.state();
    let shown = Shown::apart(&mut query)?;
    let plan = sound(state.statement_to_plan(statement(query)).await.map_err(failed)?)?;
    refuse_parameters(&plan)?;
    let plan = shown.restored(plan)?;
    // Where two types meet, as in CASE or UNION, DataFusion's planner leaves the first, which would be declared.
    let plan = typed(plan, state.config_options()).map_err(failed)?;
    let plan = at_tick(plan, snapshot.tick).map_err(failed)?;
    let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    if engine.has_no_rows() && !mentioned.is_empty() {
        frame.create_physical_plan().await.map_err(failed)?;
        return Ok(Response::rows(Some(snapshot.tick), schema, Vec::new()));
    }
    let stream = frame.execute_stream().await.map_err(failed)?;
    let batches = AssertUnwindSafe(gathered(stream)).catch_unwind().await;
    let batches = batches.map_err(|panic| panicked(&*panic))?.map_err(failed)?;
    Ok(Response::rows(Some(snapshot.tick), schema, batches))
}

/// All rows. Errors: they are more than a statement may answer.
async fn gathered(mut stream: SendableRecordBatchStream) -> DataFusionResult<Vec<RecordBatch>> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        bytes += bytes_of(&batch);
        if STATEMENT_BYTES_MAX < bytes {
            return Err(DataFusionError::External(Box::new(too_much())));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// Of these rows alone, also where they share buffers with others.
pub fn bytes_of(rows: &RecordBatch) -> usize {
    let of_column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    8 * rows.num_rows() + rows.columns().iter().map(of_column).sum::<usize>()
}

pub fn too_much() -> Error {
    let most = STATEMENT_BYTES_MAX >> 20;
    Error::too_much(format!("one statement may answer or write {most} MiB of rows, and this one has more")).hint(IN_PARTS)
}

fn too_much_memory() -> Error {
    let most = MEMORY_BYTES_MAX >> 20;
    Error::too_much(format!("one statement may take {most} MiB of memory to compute, and this one takes more")).hint(IN_PARTS)
}

const IN_PARTS: &str = "say it by several statements, each for some of the rows";

/// Arrow's texts end at 2 GiB, and its kernels panic there.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    match said.is_some_and(|said| said.contains("overflow")) {
        true => too_much(),
        false => Error::engine("the query failed on its rows: the log says on what").hint("take fewer rows, and report it"),
    }
}

fn context() -> Result<SessionContext> {
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES_MAX, 1.0).with_disk_manager_builder(no_disk).build_arc();
    let runtime = runtime.map_err(|error| planning_error(&error))?;
    Ok(SessionContext::new_with_state(state_builder().with_runtime_env(runtime).build()))
}

/// The plan with the tick's time for `now()`, `current_date` and `current_time`, as views have it.
pub fn at_tick(plan: LogicalPlan, tick: Tick) -> DataFusionResult<LogicalPlan> {
    let now = ScalarValue::TimestampMillisecond(i64::try_from(tick).ok(), None);
    let fixed = |expr: Expr| match is_clock(&expr) {
        true => {
            let time = now.cast_to(&expr.get_type(&DFSchema::empty())?)?;
            Ok(Transformed::yes(Expr::Literal(time, None)))
        }
        false => Ok(Transformed::no(expr)),
    };
    let plan = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(fixed)?.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(plan.data)
}

/// Whether the plan's rows depend on when it is read.
pub fn reads_clock(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(is_clock(expr)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    });
    walked.expect("the walk never fails");
    found
}

fn is_clock(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(ScalarFunction { func, args })
        if args.is_empty() && matches!(func.name(), "now" | "current_date" | "current_time"))
}

/// The relations whose kept rows answer a read of `relation`: itself, or those under a plain view.
fn kept_names(relation: &RelationInfo) -> Vec<String> {
    let Some(query) = &relation.query else { return vec![relation.name.clone()] };
    let mut names = BTreeSet::new();
    let walked = query.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && is_relation(scan)
        {
            names.insert(relation_name(&scan.table_name));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.expect("the walk never fails");
    names.into_iter().collect()
}

/// A plain view's query as a table, over the relations that `provider` gives by name.
pub fn view_over(
    query: &LogicalPlan,
    provider: impl Fn(&str) -> DataFusionResult<Arc<dyn TableProvider>>,
) -> DataFusionResult<Arc<dyn TableProvider>> {
    let filled = query.clone().transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) if is_relation(&scan) => {
            let source = provider_as_source(provider(&relation_name(&scan.table_name))?);
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(Arc::new(ViewTable::new(filled.data, None)))
}

/// A scan of one of our relations, which are empty tables to the planner; not of a recursion's.
fn is_relation(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<EmptyTable>().is_some())
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use tidegate_types::error::Fault;

    use super::*;

    #[test]
    fn rows_are_measured_without_what_they_share() {
        let rows = |count: usize| {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|_| "x".repeat(1000))));
            RecordBatch::try_from_iter([("text", texts)]).unwrap()
        };
        assert_eq!(bytes_of(&rows(1000).slice(17, 10)), bytes_of(&rows(10)));
        assert!((10_000..11_000).contains(&bytes_of(&rows(10))));
    }

    #[test]
    fn what_is_too_much_for_arrow_is_too_much() {
        assert_eq!(panicked(&"offset overflow".to_string()).fault, Fault::TooMuch);
        assert_eq!(panicked(&"offset overflow").fault, Fault::TooMuch);
        assert_eq!(panicked(&"index out of bounds").fault, Fault::Engine);
    }
}
