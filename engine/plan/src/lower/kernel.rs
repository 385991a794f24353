//! What DataFusion computes in batch over the touched keys: `recompute`'s plans, and OVER (…).

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session as CatalogSession;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DataFusionResult};
use datafusion::datasource::{TableProvider, TableType, provider_as_source};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Window, WindowFrame, WindowFrameBound, WindowFrameUnits};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use tidegate_operators::detector;
use tidegate_operators::recompute::{RecomputePlan, Slot, SlotExec};
use tidegate_types::error::{Error, Result};

use super::{Lowering, check_types, nullable, pick, refuse_in_expression, unqualified, with_columns};
use crate::node::{Facts, Node, NodeRef, Op};
use crate::sql::planning_error;

/// The name of input column `i` inside a kernel, where qualifiers are gone.
pub(super) fn slot_column(i: usize) -> String {
    format!("c{i}")
}

impl Lowering<'_> {
    /// A `recompute` of what `build` makes of the slot. `build` gets the slot's scan, a function
    /// that renames columns of `input_schema` to the slot's, and the key's columns.
    pub(super) fn kernel(
        &self,
        input: NodeRef,
        input_schema: &DFSchema,
        key: Vec<usize>,
        output_key: Vec<usize>,
        always: bool,
        schema: SchemaRef,
        facts: Facts,
        calls: String,
        build: impl FnOnce(LogicalPlan, &dyn Fn(Expr) -> DataFusionResult<Expr>, &[usize]) -> DataFusionResult<LogicalPlan>,
    ) -> Result<NodeRef> {
        check_types(&input.schema)?;
        check_types(&schema)?;
        let fields = input.schema.fields().iter().enumerate();
        let fields = fields.map(|(i, field)| Field::new(slot_column(i), field.data_type().clone(), true));
        let slot_schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let slot = Arc::new(Slot::new(Arc::clone(&slot_schema)));
        let provider = Arc::new(SlotTable { slot: Arc::clone(&slot), schema: Arc::clone(&slot_schema) });
        let rename = |expr: Expr| rename(expr, input_schema);
        let planned = LogicalPlanBuilder::scan("slot", provider_as_source(provider), None)
            .and_then(LogicalPlanBuilder::build)
            .and_then(|scan| build(scan, &rename, &key));
        let state = crate::sql::state_builder().build();
        let plan = planned
            .and_then(|logical| futures::executor::block_on(state.create_physical_plan(&logical)))
            .map_err(|error| planning_error(&error))?;
        refuse_frames(&plan)?;
        let plan =
            RecomputePlan { key, output_key, always, plan, slot, task: state.task_ctx(), input: slot_schema, schema: Arc::clone(&schema) };
        Ok(Node::new(Op::Recompute { input, plan, calls }, schema, facts))
    }

    pub(super) fn window(&mut self, window: &Window) -> Result<NodeRef> {
        if let Some(series) = self.series(window)? {
            return Ok(series);
        }
        let input = self.node(&window.input)?;
        let width = input.schema.fields().len();
        let partition = partition_of(window)?;
        let (with, key) = with_columns(self, input, window.input.schema(), &partition)?;
        let extended: Vec<_> = with.schema.fields()[width..].to_vec();
        let input_schema = window.input.schema();
        let calls = window.window_expr.iter().map(|expr| expr.schema_name().to_string()).collect::<Vec<_>>().join(", ");
        window.window_expr.iter().try_for_each(refuse_in_expression)?;
        // The kernel's output: the input's columns, the computed partition columns, the results.
        let results = nullable(&window.schema);
        let mut fields: Vec<_> = results.fields()[..width].to_vec();
        fields.extend(extended);
        fields.extend(results.fields()[width..].iter().cloned());
        let schema = Arc::new(Schema::new(fields));
        let exprs: Vec<Expr> = window.window_expr.iter().map(|expr| total_order(expr, input_schema)).collect();
        let appended = with.schema.fields().len() - width;
        let node = self.kernel(with, input_schema, key.clone(), key, false, schema, Facts::default(), calls, |scan, rename, key| {
            let exprs = exprs.into_iter().map(rename).map(|expr| expr.and_then(|expr| partition_by(expr, key)));
            LogicalPlanBuilder::from(scan).window(exprs.collect::<DataFusionResult<Vec<_>>>()?)?.build()
        })?;
        let kept: Vec<usize> = (0..width).chain(width + appended..node.schema.fields().len()).collect();
        Ok(pick(&node, &kept))
    }
}

/// What cannot take values out of a frame again would be known only when the first row comes.
fn refuse_frames(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let mut refused = None;
    let walked = plan.apply(|node| {
        let exprs = match node.downcast_ref::<BoundedWindowAggExec>() {
            Some(bounded) => bounded.window_expr(),
            None => node.downcast_ref::<WindowAggExec>().map_or(&[][..], |whole| whole.window_expr()),
        };
        refused = refused.take().or_else(|| exprs.iter().find(|expr| expr.create_window_fn().is_err()).map(|expr| expr.name().to_string()));
        Ok(TreeNodeRecursion::Continue)
    });
    walked.expect("the walk never fails");
    refused.map_or(Ok(()), |name| {
        Err(Error::unsupported(format!("{name} over a frame that slides"), "begin the frame with UNBOUNDED PRECEDING"))
    })
}

fn rename(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    let renamed = expr.transform(|expr| match expr {
        Expr::Column(column) => {
            let index = schema.index_of_column(&column)?;
            Ok(Transformed::yes(Expr::Column(Column::from_name(slot_column(index)))))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(renamed?.data)
}

/// The partition all of a window's functions share; DataFusion groups them so.
pub(super) fn partition_of(window: &Window) -> Result<Vec<Expr>> {
    let functions: Vec<&WindowFunction> = window.window_expr.iter().map(window_function).collect::<Result<_>>()?;
    let first = functions[0].params.partition_by.clone();
    if functions.iter().any(|function| function.params.partition_by != first) {
        return Err(Error::unsupported("OVER with different partitions in one SELECT level", "compute them in two subqueries"));
    }
    Ok(first)
}

pub(super) fn window_function(expr: &Expr) -> Result<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Ok(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        other => Err(Error::unsupported(format!("{other} as a window function"), "compute with its result in an outer SELECT")),
    }
}

fn partition_by(expr: Expr, key: &[usize]) -> DataFusionResult<Expr> {
    let partitioned = expr.transform(|expr| match expr {
        Expr::WindowFunction(mut function) => {
            function.params.partition_by = key.iter().map(|&i| unqualified(&slot_column(i))).collect();
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(partitioned?.data)
}

/// A frame that begins with its partition, and has the row itself.
fn is_from_start_on(frame: &WindowFrame) -> bool {
    let begins = matches!(frame.start_bound, WindowFrameBound::Preceding(_)) && frame.start_bound.is_unbounded();
    let is_open = matches!(frame.end_bound, WindowFrameBound::Following(_)) && frame.end_bound.is_unbounded();
    begins && (is_open || matches!(frame.end_bound, WindowFrameBound::CurrentRow))
}

// Functions that tell tied rows apart get a total order: theirs, then all columns. Others count
// ties as peers, and must not; nor may a frame that is bounded by values or peers.
fn total_order(expr: &Expr, schema: &DFSchema) -> Expr {
    let ordered = expr.clone().transform(|expr| match expr {
        Expr::WindowFunction(mut function) => {
            let (name, frame) = (function.fun.name(), &function.params.window_frame);
            let by_position = matches!(name, "row_number" | "ntile" | "lag" | "lead") || detector::Call::of(name).is_some();
            let is_first_of_all = name == "first_value" && is_from_start_on(frame);
            if by_position || is_first_of_all || frame.units == WindowFrameUnits::Rows {
                let all = schema.columns().into_iter().map(Expr::Column);
                let missing = all.filter(|column| !function.params.order_by.iter().any(|sort| sort.expr == *column));
                let ties: Vec<_> = missing.map(|column| column.sort(true, true)).collect();
                function.params.order_by.extend(ties);
            }
            Ok(Transformed::yes(Expr::WindowFunction(function)))
        }
        other => Ok(Transformed::no(other)),
    });
    ordered.expect("the closure does not fail").data
}

/// A table whose rows are a [`Slot`]'s.
#[derive(Debug)]
struct SlotTable {
    slot: Arc<Slot>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(SlotExec::new(Arc::clone(&self.slot), projection.cloned())))
    }
}
