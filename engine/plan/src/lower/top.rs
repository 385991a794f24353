//! LIMIT and numbered rows, DISTINCT ON among them: `top`.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, Projection, SortExpr, Window};
use tidegate_operators::top::TopPlan;
use tidegate_types::error::{Error, Result};

use super::kernel::{partition_of, window_function};
use super::{Lowering, check_types, nullable, pick, with_columns};
use crate::node::{Facts, Node, NodeRef, Op};
use crate::sql::planning_error;

impl Lowering<'_> {
    pub(super) fn limit(&mut self, plan: &LogicalPlan) -> Result<NodeRef> {
        let (skip, fetch, mut ordered) = match plan {
            LogicalPlan::Limit(limit) => (count(limit.skip.as_deref())?.unwrap_or(0), count(limit.fetch.as_deref())?, limit.input.as_ref()),
            LogicalPlan::Sort(sort) => (0, sort.fetch, plan),
            other => unreachable!("{other} is no limit"),
        };
        // Projections keep the order: the limit goes below them.
        let mut above = Vec::new();
        while let LogicalPlan::Projection(projection) = ordered {
            above.push(projection);
            ordered = projection.input.as_ref();
        }
        let (order, input) = match ordered {
            LogicalPlan::Sort(sort) => (&sort.expr[..], sort.input.as_ref()),
            other => (&[][..], other),
        };
        let node = self.node(input)?;
        let mut node = self.top(node, input.schema(), &[], order, (skip, fetch))?;
        while let Some(projection) = above.pop() {
            node = self.project(node, projection.input.schema(), &projection.expr, &projection.schema)?;
        }
        Ok(node)
    }

    fn top(
        &self,
        input: NodeRef,
        schema: &DFSchema,
        key: &[Expr],
        order: &[SortExpr],
        (skip, limit): (usize, Option<usize>),
    ) -> Result<NodeRef> {
        let width = input.schema.fields().len();
        let needed: Vec<Expr> = key.iter().cloned().chain(order.iter().map(|sort| sort.expr.clone())).collect();
        let (input, positions) = with_columns(self, input, schema, &needed)?;
        check_types(&input.schema)?;
        let plan = TopPlan {
            key: positions[..key.len()].to_vec(),
            order: positions[key.len()..].iter().copied().zip(order.iter().map(options)).collect(),
            skip,
            limit,
            numbered: false,
            append_only: input.facts.append_only,
            input: Arc::clone(&input.schema),
            schema: Arc::clone(&input.schema),
        };
        let keys = if limit == Some(1) && skip == 0 { vec![plan.key.clone()] } else { Vec::new() };
        let facts = Facts { keys, ..Facts::default() };
        let schema = Arc::clone(&input.schema);
        let node = Node::new(Op::Top { input, plan }, schema, facts);
        Ok(match node.schema.fields().len() == width {
            true => node,
            false => pick(&node, &(0..width).collect::<Vec<_>>()),
        })
    }

    /// `row_number() OVER (…) <= n` and nothing else in the window: the first n rows of each key,
    /// with their numbers; and what of the filter is still to be applied.
    pub(super) fn top_of_window(&mut self, window: &Window, predicate: &Expr) -> Result<Option<(NodeRef, Option<Expr>)>> {
        let [expr] = &window.window_expr[..] else { return Ok(None) };
        let function = window_function(expr)?;
        if function.fun.name() != "row_number" || function.params.filter.is_some() {
            return Ok(None);
        }
        let number = window.schema.columns().pop().expect("the row number is the last column");
        let conditions = split_conjunction(predicate);
        let Some(limit) = conditions.iter().filter_map(|condition| at_most(condition, &number.name)).min() else {
            return Ok(None);
        };
        let is_met = |condition: &Expr| at_most(condition, &number.name).is_some_and(|most| most <= 1 || !is_equality(condition));
        let rest = conjunction(conditions.into_iter().filter(|condition| !is_met(condition)).cloned());
        let input = self.node(&window.input)?;
        let width = input.schema.fields().len();
        let partition = partition_of(window)?;
        let needed: Vec<Expr> = partition.iter().cloned().chain(function.params.order_by.iter().map(|sort| sort.expr.clone())).collect();
        let (input, positions) = with_columns(self, input, window.input.schema(), &needed)?;
        check_types(&input.schema)?;
        let results = nullable(&window.schema);
        let numbered = results.field(width);
        let fields =
            input.schema.fields().iter().cloned().chain([Arc::new(Field::new(numbered.name(), numbered.data_type().clone(), true))]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let plan = TopPlan {
            key: positions[..partition.len()].to_vec(),
            order: positions[partition.len()..].iter().copied().zip(function.params.order_by.iter().map(options)).collect(),
            skip: 0,
            limit: Some(limit),
            numbered: true,
            append_only: input.facts.append_only,
            input: Arc::clone(&input.schema),
            schema: Arc::clone(&schema),
        };
        let last = schema.fields().len() - 1;
        let keys = if limit == 1 { vec![plan.key.clone()] } else { Vec::new() };
        let node = Node::new(Op::Top { input, plan }, schema, Facts { keys, ..Facts::default() });
        let kept: Vec<usize> = (0..width).chain([last]).collect();
        Ok(Some((if last == width { node } else { pick(&node, &kept) }, rest)))
    }
}

fn is_equality(condition: &Expr) -> bool {
    matches!(condition, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }))
}

/// Whether there are but projections above a window: the optimiser leaves them there where a column is
/// ordered by and not kept.
pub(super) fn is_over_window(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Window(_) => true,
        LogicalPlan::Projection(projection) => is_over_window(&projection.input),
        _ => false,
    }
}

/// The projection over the filter that was above it, where that asks for columns the projection only passes on.
pub(super) fn beneath(projection: &Projection, predicate: &Expr) -> Result<Option<LogicalPlan>> {
    let passed = |column: &Column| {
        let at = projection.schema.maybe_index_of_column(column)?;
        match projection.expr[at].clone().unalias() {
            Expr::Column(below) => Some(below),
            _ => None,
        }
    };
    if !predicate.column_refs().into_iter().all(|column| passed(column).is_some()) {
        return Ok(None);
    }
    let below = predicate.clone().transform_up(|expr| match &expr {
        Expr::Column(column) => {
            Ok(passed(column).map_or_else(|| Transformed::no(expr.clone()), |below| Transformed::yes(Expr::Column(below))))
        }
        _ => Ok(Transformed::no(expr)),
    });
    let filtered = below.and_then(|below| Filter::try_new(below.data, Arc::clone(&projection.input)));
    let projected = filtered.and_then(|filter| {
        let input = Arc::new(LogicalPlan::Filter(filter));
        Projection::try_new_with_schema(projection.expr.clone(), input, Arc::clone(&projection.schema))
    });
    Ok(Some(LogicalPlan::Projection(projected.map_err(|error| planning_error(&error))?)))
}

fn options(sort: &SortExpr) -> SortOptions {
    SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first }
}

fn count(expr: Option<&Expr>) -> Result<Option<usize>> {
    match expr {
        None => Ok(None),
        Some(Expr::Literal(value, _)) if value.is_null() => Ok(None),
        Some(Expr::Literal(ScalarValue::Int64(Some(n)), _)) if 0 <= *n => Ok(Some(*n as usize)),
        Some(Expr::Literal(ScalarValue::UInt64(Some(n)), _)) => Ok(Some(*n as usize)),
        Some(other) => Err(Error::user(format!("LIMIT and OFFSET take a number of rows, not {other}"))),
    }
}

/// The largest row number `condition` lets through, if it says so.
fn at_most(condition: &Expr, number: &str) -> Option<usize> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (column, op, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, op.swap()?, value),
        _ => return None,
    };
    if column.name != number {
        return None;
    }
    let value = match value {
        ScalarValue::UInt64(Some(n)) => usize::try_from(*n).ok()?,
        ScalarValue::Int64(Some(n)) => usize::try_from((*n).max(0)).ok()?,
        _ => return None,
    };
    match op {
        Operator::LtEq | Operator::Eq => Some(value),
        Operator::Lt => Some(value.saturating_sub(1)),
        _ => None,
    }
}
