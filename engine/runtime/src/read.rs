//! Reading: several relations at one closed tick, and DataFusion over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{MemTable, TableProvider, ViewTable, provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, TableScan};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast;
use tidegate_plan::size::Size;
use tidegate_plan::sql::{
    CREATE_IT, Shown, planning_error, planning_error_among, refuse_parameters, relation_name, rewritten, sound, state_builder, statement,
    typed,
};
use tidegate_types::Tick;
use tidegate_types::error::Result;

use crate::engine::Engine;
use crate::interface::{RelationInfo, Response, Snapshot};

/// A query over readable relations, all at one tick.
pub async fn query(engine: &Engine, query: &ast::Query) -> Result<Response> {
    let known = engine.relations();
    check_size(query, &known)?;
    let query = rewritten(query)?;
    let context = SessionContext::new_with_state(state_builder().build());
    let mentioned = mentioned(&context, &query, &known)?;
    let snapshot = engine.snapshot(&mentioned.iter().flat_map(|relation| kept_names(relation)).collect::<Vec<_>>()).await?;
    answer(&context, query, &known, &mentioned, snapshot).await
}

/// A query over one table of which only the rows that begin with `prefix` matter.
pub async fn query_narrowed(engine: &Engine, query: &ast::Query, table: &str, prefix: Vec<u8>) -> Result<Response> {
    let known = engine.relations();
    check_size(query, &known)?;
    let query = rewritten(query)?;
    let context = SessionContext::new_with_state(state_builder().build());
    let mentioned = mentioned(&context, &query, &known)?;
    let snapshot = engine.snapshot_of(table, prefix).await?;
    answer(&context, query, &known, &mentioned, snapshot).await
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
    context: &SessionContext,
    mut query: ast::Query,
    known: &[RelationInfo],
    mentioned: &[&RelationInfo],
    snapshot: Snapshot,
) -> Result<Response> {
    let failed = |error: DataFusionError| planning_error_among(&error, known.iter().map(|relation| relation.name.as_str()), CREATE_IT);
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
    let batches = frame.collect().await.map_err(failed)?;
    Ok(Response::Rows { tick: Some(snapshot.tick), batches, schema })
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
