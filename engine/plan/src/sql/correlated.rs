//! Correlated scalar subqueries that DataFusion has no join for: they compare with the outer row by more than
//! equality, as `(SELECT max(ts) FROM logins l WHERE l.who = t.who AND l.ts < t.ts)`, or end with LIMIT 1.
//!
//! Rule     the outer columns that are named, each combination once, are joined with the subquery's rows by
//!          the condition; then an aggregate by these columns, or the first row for each of them; the outer
//!          rows are joined with that by equality, NULL with NULL
//! Nothing  an aggregate over no row is what it is: who meets none is joined with a row that no aggregate
//!          counts. A first row is NULL then
//! Leaves   other shapes as they are: those without ORDER BY before LIMIT 1, HAVING, an outer column
//!          elsewhere than in WHERE
//! Source   Neumann and Kemper, Unnesting Arbitrary Queries, 2015

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, NullEquality, Result};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, FetchType, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, SkipType, SortExpr, Subquery,
    ident, lit,
};

pub(super) fn joined(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut count = 0;
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => with_values(node, &mut count),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// The node over its input beside what its subqueries give. `count`: of subqueries so far.
fn with_values(node: LogicalPlan, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let outer = node.inputs()[0].clone();
    let (mut input, before, names) = (outer.clone(), *count, NamePreserver::new(&node));
    let mut expressions = Vec::new();
    for expression in node.expressions() {
        let name = names.save(&expression);
        let replaced = expression.transform_up(|expr| {
            let Expr::ScalarSubquery(subquery) = &expr else { return Ok(Transformed::no(expr)) };
            let Some(lookup) = Lookup::of(subquery) else { return Ok(Transformed::no(expr)) };
            input = lookup.beside(&input, &outer, *count)?;
            *count += 1;
            Ok(Transformed::yes(ident(value_name(*count - 1))))
        })?;
        expressions.push(name.restore(replaced.data));
    }
    if *count == before {
        return Ok(Transformed::no(node));
    }
    let is_filter = matches!(node, LogicalPlan::Filter(_));
    let node = LogicalPlanBuilder::from(node.with_new_exprs(expressions, vec![input])?);
    let node = if is_filter { node.project(outer.schema().columns().into_iter().map(Expr::Column))? } else { node };
    Ok(Transformed::yes(node.build()?))
}

fn value_name(number: usize) -> String {
    format!("__value_{number}")
}

/// A subquery, taken apart.
struct Lookup<'a> {
    /// The outer columns it names.
    outer: Vec<Column>,
    condition: &'a Filter,
    /// What is above the condition, from below.
    above: Vec<&'a LogicalPlan>,
    is_aggregate: bool,
}

impl<'a> Lookup<'a> {
    /// None: DataFusion has a join for it, or nobody has.
    fn of(subquery: &'a Subquery) -> Option<Self> {
        let (mut above, mut next) = (Vec::new(), subquery.subquery.as_ref());
        let condition = loop {
            match next {
                LogicalPlan::Filter(filter) => break filter,
                LogicalPlan::Projection(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Aggregate(_) => above.push(next),
                _ => return None,
            }
            next = *next.inputs().first()?;
        };
        let names_outer = |expr: &Expr| expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..)))).unwrap_or(true);
        let is_query =
            |expr: &Expr| matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_));
        if condition.predicate.exists(|expr| Ok(is_query(expr))).unwrap_or(true) {
            return None;
        }
        let is_elsewhere = above.iter().any(|node| node.expressions().iter().any(names_outer));
        if is_elsewhere || !condition.input.all_out_ref_exprs().is_empty() {
            return None;
        }
        let is_aggregate = match above[..] {
            [ref below @ .., LogicalPlan::Aggregate(aggregate)] if below.iter().all(|node| is_projection(node)) => {
                let conjuncts = split_conjunction(&condition.predicate);
                let is_known =
                    !aggregate.group_expr.is_empty() || conjuncts.iter().all(|conjunct| !names_outer(conjunct) || is_equality(conjunct));
                if is_known {
                    return None;
                }
                true
            }
            [top, ref below @ ..] if is_first(top) && is_sorted_once(below) => false,
            _ => return None,
        };
        let mut outer = Vec::new();
        for column in &subquery.outer_ref_columns {
            if let Expr::OuterReferenceColumn(_, column) = column
                && !outer.contains(column)
            {
                outer.push(column.clone());
            }
        }
        above.reverse();
        (!outer.is_empty()).then_some(Self { outer, condition, above, is_aggregate })
    }

    /// `input` beside the value for each of its rows. `outer`: where the outer columns' values are from.
    fn beside(&self, input: &LogicalPlan, outer: &LogicalPlan, number: usize) -> Result<LogicalPlan> {
        let keys: Vec<String> = (0..self.outer.len()).map(|nth| format!("__outer_{number}_{nth}")).collect();
        let key_columns = || keys.iter().map(ident);
        let mut rows = self.matches(outer, &keys)?;
        for &node in &self.above {
            rows = match node {
                LogicalPlan::Projection(projection) => rows.project(key_columns().chain(projection.expr.iter().cloned()))?,
                LogicalPlan::Aggregate(aggregate) => aggregated(rows, &keys, aggregate)?,
                LogicalPlan::Sort(sort) => {
                    let columns = sort.input.schema().columns().into_iter().map(Expr::Column);
                    let order = key_columns().map(|key| key.sort(true, false)).chain(sort.expr.iter().cloned());
                    rows.distinct_on(
                        key_columns().collect(),
                        key_columns().chain(columns).collect(),
                        Some(order.collect::<Vec<SortExpr>>()),
                    )?
                }
                _ => rows,
            };
        }
        let value = rows.schema().columns().pop().map(Expr::Column).unwrap_or_else(|| lit(true));
        let values = rows.project(key_columns().chain([value.alias(value_name(number))]))?.build()?;
        let on = (self.outer.clone(), keys.iter().map(Column::from_name).collect::<Vec<_>>());
        LogicalPlanBuilder::from(input.clone()).join_detailed(values, JoinType::Left, on, None, NullEquality::NullEqualsNull)?.build()
    }

    /// The keys' values, each once, beside the rows that meet the condition; where these are aggregated, also
    /// those that meet none, and whether they do as a column.
    fn matches(&self, outer: &LogicalPlan, keys: &[String]) -> Result<LogicalPlanBuilder> {
        let known = self.outer.iter().zip(keys).map(|(column, key)| Expr::Column(column.clone()).alias(key));
        let known = LogicalPlanBuilder::from(outer.clone()).project(known)?.distinct()?;
        let columns = self.condition.input.schema().columns().into_iter().map(Expr::Column);
        let inner =
            LogicalPlanBuilder::from(self.condition.input.as_ref().clone()).project(columns.chain([lit(true).alias(MET)]))?.build()?;
        let condition = self.condition.predicate.clone().transform(|expr| match &expr {
            Expr::OuterReferenceColumn(_, column) => {
                let nth = self.outer.iter().position(|known| known == column).expect("the subquery lists its outer columns");
                Ok(Transformed::yes(ident(&keys[nth])))
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        known.join_on(inner, if self.is_aggregate { JoinType::Left } else { JoinType::Inner }, [condition.data])
    }
}

/// Whether a row meets the condition, and is not there only for its keys.
const MET: &str = "__met";

fn is_projection(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Projection(_))
}

/// LIMIT 1.
fn is_first(node: &LogicalPlan) -> bool {
    let LogicalPlan::Limit(limit) = node else { return false };
    matches!((limit.get_skip_type(), limit.get_fetch_type()), (Ok(SkipType::Literal(0)), Ok(FetchType::Literal(Some(1)))))
}

fn is_sorted_once(nodes: &[&LogicalPlan]) -> bool {
    let (projections, others): (Vec<&LogicalPlan>, Vec<&LogicalPlan>) = nodes.iter().partition(|node| is_projection(node));
    !projections.is_empty() && matches!(others[..], [LogicalPlan::Sort(_)])
}

/// Whether the outer columns are alone on one side of an equality.
fn is_equality(conjunct: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return false };
    let is_outer = |side: &Expr| matches!(side, Expr::OuterReferenceColumn(..));
    let is_inner = |side: &Expr| !side.exists(|expr| Ok(is_outer(expr))).unwrap_or(true);
    (is_outer(left) && is_inner(right)) || (is_inner(left) && is_outer(right))
}

/// By the keys; the aggregates have the names that they had, and count what meets the condition.
fn aggregated(rows: LogicalPlanBuilder, keys: &[String], aggregate: &Aggregate) -> Result<LogicalPlanBuilder> {
    let calls = aggregate.aggr_expr.iter().map(|call| {
        let filtered = call.clone().transform(|expr| match expr {
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                let met = ident(MET).is_true();
                params.filter = Some(Box::new(match params.filter {
                    Some(filter) => met.and(*filter),
                    None => met,
                }));
                Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
            }
            other => Ok(Transformed::no(other)),
        });
        filtered.map(|filtered| filtered.data)
    });
    let rows = rows.aggregate(keys.iter().map(ident), calls.collect::<Result<Vec<_>>>()?)?;
    let columns = rows.schema().columns();
    let (key_columns, values) = columns.split_at(keys.len());
    let named = values.iter().zip(aggregate.schema.fields()).map(|(column, field)| Expr::Column(column.clone()).alias(field.name()));
    let named: Vec<Expr> = key_columns.iter().cloned().map(Expr::Column).chain(named).collect();
    rows.project(named)
}
