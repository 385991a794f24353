//! OVER (…) of detectors alone: `series`, which follows a change only as far as it reaches.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use datafusion::logical_expr::{Expr, SortExpr, Window};
use tidegate_operators::detector;
use tidegate_operators::series::{Call, FreeRule, SeriesPlan};
use tidegate_types::error::Result;

use super::kernel::{partition_of, window_function};
use super::{Lowering, check_types, is_millisecond, nullable, pick, refuse_in_expression, with_columns};
use crate::node::{ColumnBound, Facts, Node, NodeRef, Op};
use crate::sql::detector_call;

impl Lowering<'_> {
    /// None where a function of the window is no detector, or has an order of its own.
    pub(super) fn series(&mut self, window: &Window) -> Result<Option<NodeRef>> {
        let functions = window.window_expr.iter().map(window_function).collect::<Result<Vec<_>>>()?;
        let order_by = &functions[0].params.order_by;
        let is_detector = |name: &str| detector::Call::of(name).is_some();
        if !functions.iter().all(|function| is_detector(function.fun.name()) && function.params.order_by == *order_by) {
            return Ok(None);
        }
        window.window_expr.iter().try_for_each(refuse_in_expression)?;
        let calls = functions.iter().map(|function| detector_call(function)).collect::<Result<Vec<_>>>()?;
        let input = self.node(&window.input)?;
        let width = input.schema.fields().len();
        let partition = partition_of(window)?;
        let order = order_by.iter().map(|sort| &sort.expr);
        let columns = calls.iter().flat_map(|(_, columns)| columns);
        let needed: Vec<Expr> = partition.iter().chain(order).chain(columns).cloned().collect();
        let (input, positions) = with_columns(self, input, window.input.schema(), &needed)?;
        check_types(&input.schema)?;
        let (key, positions) = positions.split_at(partition.len());
        let (order, mut positions) = positions.split_at(order_by.len());
        let order: Vec<(usize, SortOptions)> = order.iter().copied().zip(order_by.iter().map(options)).collect();
        let mut planned = Vec::with_capacity(calls.len());
        for (rule, columns) in calls {
            let (own, others) = positions.split_at(columns.len());
            planned.push(Call { rule, columns: own.to_vec() });
            positions = others;
        }
        let results = nullable(&window.schema);
        let fields: Vec<_> = input.schema.fields().iter().chain(&results.fields()[width..]).cloned().collect();
        let schema = Arc::new(Schema::new(fields));
        let bounds = bounds_of(&input, order[0]);
        let free = bounds.first().map(|bound| FreeRule { source: bound.source, slack_ms: bound.slack_ms });
        let facts = Facts { append_only: false, bounds, keys: input.facts.keys.clone() };
        let text = window.window_expr.iter().map(|expr| expr.schema_name().to_string()).collect::<Vec<_>>().join(", ");
        let appended = input.schema.fields().len();
        let plan =
            SeriesPlan { key: key.to_vec(), order, calls: planned, free, input: Arc::clone(&input.schema), schema: Arc::clone(&schema) };
        let kept: Vec<usize> = (0..width).chain(appended..schema.fields().len()).collect();
        let node = Node::new(Op::Series { input, plan, calls: text }, schema, facts);
        Ok(Some(if appended == width { node } else { pick(&node, &kept) }))
    }
}

/// What bounds the column that leads the order. A change reaches later rows only, so it bounds these
/// too; but what a row says comes from all before it.
fn bounds_of(input: &Node, (column, options): (usize, SortOptions)) -> Vec<ColumnBound> {
    // A row without a time is never late: it must not come before those that are settled.
    if options.descending || options.nulls_first || !is_millisecond(input.schema.field(column).data_type()) {
        return Vec::new();
    }
    let bounds = input.facts.bounds.iter().filter(|bound| bound.column == column);
    bounds.map(|bound| ColumnBound { lead_ms: None, ..bound.clone() }).collect()
}

fn options(sort: &SortExpr) -> SortOptions {
    SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first }
}
