//! GROUP BY: accumulators where all calls can be taken back, recomputation otherwise.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{AggregateFunction, GroupingSet};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlanBuilder, lit, when};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::PhysicalExpr;
use tidegate_operators::aggregate::{AggregatePlan, Call, FreeRule, Function};
use tidegate_types::error::{Error, Result};

use super::{Lowering, check_types, column, is_millisecond, nullable, pick, projected, with_columns};
use crate::node::{ColumnBound, Facts, Node, NodeRef, Op};
use crate::sql::planning_error;

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<NodeRef> {
        let input = self.node(&aggregate.input)?;
        match &aggregate.group_expr[..] {
            [Expr::GroupingSet(sets)] => self.grouping_sets(aggregate, &input, sets),
            group => self.group_by(aggregate, input, group.to_vec(), nullable(&aggregate.schema)),
        }
    }

    fn group_by(&self, aggregate: &Aggregate, input: NodeRef, group: Vec<Expr>, schema: Arc<Schema>) -> Result<NodeRef> {
        let exprs = aggregate.aggr_expr.iter().map(guarded).collect::<Result<Vec<Expr>>>()?;
        let calls: Vec<&AggregateFunction> = exprs.iter().map(aggregate_function).collect::<Result<_>>()?;
        let arguments = calls.iter().flat_map(|call| call.params.args.iter().chain(call.params.filter.as_deref()));
        let needed: Vec<Expr> = group.iter().chain(arguments).cloned().collect();
        let (with, positions) = with_columns(self, input.clone(), aggregate.input.schema(), &needed)?;
        let width = group.len();
        let operands = pick(&with, &positions);
        check_types(&Schema::new(operands.schema.fields()[..width].to_vec()))?;
        let mut next = width;
        let mut accumulable = Vec::with_capacity(calls.len());
        for call in &calls {
            let first = next;
            next += call.params.args.len();
            let filter = call.params.filter.as_ref().map(|_| next);
            next += usize::from(filter.is_some());
            accumulable.push(accumulated(call, first, filter, &operands));
        }
        match accumulable.into_iter().collect::<Option<Vec<Call>>>() {
            Some(accumulable) => Ok(accumulate(operands, width, accumulable, schema, describe(&calls))),
            None => self.recompute_aggregate(aggregate, input, group, schema, &exprs, &calls),
        }
    }

    fn recompute_aggregate(
        &self,
        aggregate: &Aggregate,
        input: NodeRef,
        group: Vec<Expr>,
        schema: Arc<Schema>,
        exprs: &[Expr],
        calls: &[&AggregateFunction],
    ) -> Result<NodeRef> {
        let (input, key) = with_columns(self, input, aggregate.input.schema(), &group)?;
        let always = key.is_empty();
        let output_key = (0..key.len()).collect();
        let facts = Facts { keys: vec![(0..key.len()).collect()], ..Facts::default() };
        let exprs = exprs.iter().map(total_order).collect::<Vec<_>>();
        self.kernel(input, aggregate.input.schema(), key, output_key, always, schema, facts, describe(calls), |scan, rename, key| {
            let group: Vec<Expr> = key.iter().map(|&i| super::unqualified(&super::kernel::slot_column(i))).collect();
            let exprs = exprs.into_iter().map(rename).collect::<datafusion::common::Result<Vec<_>>>()?;
            LogicalPlanBuilder::from(scan).aggregate(group, exprs)?.build()
        })
    }

    /// One aggregation per set, NULLs for the columns a set leaves out, and DataFusion's grouping id.
    fn grouping_sets(&self, aggregate: &Aggregate, input: &NodeRef, sets: &GroupingSet) -> Result<NodeRef> {
        let all = sets.distinct_expr().into_iter().cloned().collect::<Vec<Expr>>();
        let sets: Vec<Vec<Expr>> = expand(sets);
        let schema = nullable(&aggregate.schema);
        let calls = schema.fields().len() - all.len() - 1;
        let mut parts = Vec::with_capacity(sets.len());
        for set in &sets {
            let mut fields: Vec<_> = set.iter().map(|expr| schema.fields()[position(&all, expr)].clone()).collect();
            fields.extend(schema.fields()[all.len() + 1..].iter().cloned());
            let part = self.group_by(aggregate, Arc::clone(input), set.clone(), Arc::new(Schema::new(fields)))?;
            let mut id: u64 = 0;
            let mut project: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
            for (i, expr) in all.iter().enumerate() {
                id <<= 1;
                project.push(match set.iter().position(|member| member == expr) {
                    Some(at) => column(&part, at),
                    None => {
                        id |= 1;
                        let null = ScalarValue::try_from(schema.field(i).data_type()).map_err(|error| planning_error(&error))?;
                        Arc::new(Literal::new(null))
                    }
                });
            }
            let id = ScalarValue::UInt64(Some(id)).cast_to(schema.field(all.len()).data_type());
            project.push(Arc::new(Literal::new(id.map_err(|error| planning_error(&error))?)));
            project.extend((0..calls).map(|i| column(&part, set.len() + i)));
            parts.push(projected(&part, project, Arc::clone(&schema), Facts::default()));
        }
        self.union(parts, schema)
    }
}

fn expand(sets: &GroupingSet) -> Vec<Vec<Expr>> {
    match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|n| exprs[..n].to_vec()).collect(),
        GroupingSet::Cube(exprs) => (0..1_usize << exprs.len())
            .map(|mask| exprs.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 0).map(|(_, expr)| expr.clone()).collect())
            .collect(),
    }
}

fn position(all: &[Expr], expr: &Expr) -> usize {
    all.iter().position(|member| member == expr).expect("a set's member is among all members")
}

fn aggregate_function(expr: &Expr) -> Result<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(call) => Ok(call),
        Expr::Alias(alias) => aggregate_function(&alias.expr),
        other => Err(Error::unsupported(format!("{other} as an aggregate"), "aggregate a column, then compute with the result")),
    }
}

/// FILTER guards what the call computes: arguments of rows it leaves out are not looked at.
fn guarded(expr: &Expr) -> Result<Expr> {
    match expr {
        Expr::Alias(alias) => Ok(guarded(&alias.expr)?.alias(alias.name.clone())),
        Expr::AggregateFunction(call) => {
            let mut call = call.clone();
            if let Some(filter) = &call.params.filter {
                for arg in call.params.args.iter_mut().filter(|arg| !matches!(arg, Expr::Column(_) | Expr::Literal(..))) {
                    *arg = when(filter.as_ref().clone(), arg.clone()).end().map_err(|error| planning_error(&error))?;
                }
            }
            Ok(Expr::AggregateFunction(call))
        }
        other => Ok(other.clone()),
    }
}

fn describe(calls: &[&AggregateFunction]) -> String {
    let names: Vec<String> = calls.iter().map(|call| Expr::AggregateFunction((*call).clone()).schema_name().to_string()).collect();
    names.join(", ")
}

fn accumulated(call: &AggregateFunction, first: usize, filter: Option<usize>, operands: &Node) -> Option<Call> {
    let function = match call.func.name() {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "avg" => Function::Avg,
        "min" => Function::Min,
        "max" => Function::Max,
        "bool_and" => Function::BoolAnd,
        "bool_or" => Function::BoolOr,
        _ => return None,
    };
    let [argument] = &call.params.args[..] else { return None };
    let distinct = call.params.distinct;
    let counts_rows = matches!(argument, Expr::Literal(value, _) if !value.is_null()) && function == Function::Count && !distinct;
    let data_type = operands.schema.field(first).data_type();
    (counts_rows || function.accepts(data_type)).then_some(Call { function, argument: (!counts_rows).then_some(first), filter, distinct })
}

fn accumulate(operands: NodeRef, width: usize, calls: Vec<Call>, schema: Arc<Schema>, described: String) -> NodeRef {
    let bound = |column: usize| {
        let millisecond = is_millisecond(operands.schema.field(column).data_type());
        operands.facts.bounds.iter().find(|bound| bound.column == column && millisecond && operands.facts.append_only)
    };
    let free =
        (0..width).find_map(bound).map(|bound| FreeRule { key_column: bound.column, source: bound.source, slack_ms: bound.slack_ms });
    let plan = AggregatePlan {
        group_columns: width,
        append_only: operands.facts.append_only,
        free,
        input: Arc::clone(&operands.schema),
        schema: Arc::clone(&schema),
        calls,
    };
    let bounds =
        operands.facts.bounds.iter().filter(|bound| bound.column < width && plan.append_only).cloned().collect::<Vec<ColumnBound>>();
    // Groups without results never change: they come once.
    let append_only = plan.calls.is_empty() && operands.facts.append_only && 0 < width;
    let facts = Facts { append_only, bounds, keys: vec![(0..width).collect()] };
    Node::new(Op::Aggregate { input: operands, plan, calls: described }, schema, facts)
}

// An aggregate that depends on the order of rows gets a total one: its own, then its arguments.
fn total_order(expr: &Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => total_order(&alias.expr).alias(alias.name.clone()),
        Expr::AggregateFunction(call)
            if matches!(call.func.name(), "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value")
                && !call.params.distinct =>
        {
            let mut call = call.clone();
            let arguments = call.params.args.iter().filter(|arg| **arg != lit(0) && !matches!(arg, Expr::Literal(..)));
            let missing: Vec<_> = arguments.filter(|arg| !call.params.order_by.iter().any(|sort| sort.expr == **arg)).cloned().collect();
            call.params.order_by.extend(missing.into_iter().map(|arg| arg.sort(true, false)));
            Expr::AggregateFunction(call)
        }
        other => other.clone(),
    }
}
