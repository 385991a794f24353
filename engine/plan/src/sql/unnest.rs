//! A correlated subquery as a relation: its rows for each combination of the outer columns' values, and these values
//! beside them as columns.
//!
//! Rule     what names no outer column stands beside each combination; above it, each node does for every combination
//!          what it would do for one: groups, distinct rows, windows and LIMIT go by the combination, too, a join of two
//!          such relations is by it, and an aggregate of no row gives its row for each combination
//! Cheaper  where a condition says that each outer column equals something of a row, the row says which combination
//!          it is for; others may then be there that no outer row has
//! NULL     combinations are compared as values, NULL with NULL
//! Refused  LIMIT without ORDER BY, GROUPING SETS, and what else has no rule
//! Source   Neumann and Kemper, Unnesting Arbitrary Queries, 2015

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprFunctionExt, ExprSchemable, FetchType, Filter, Join, JoinConstraint, JoinType, Limit,
    LogicalPlan, LogicalPlanBuilder, Operator, SkipType, Union, Window, ident, lit, when,
};
use tidegate_types::error::Error;

use super::subqueries::has_subquery;

/// The outer columns that a subquery names.
pub(super) struct Combinations {
    outer: Vec<Column>,
    /// What they are called beside the subquery's rows.
    keys: Vec<String>,
    /// Each combination of their values, once.
    values: LogicalPlan,
}

/// Whether a row is there, and not only its combination.
const MET: &str = "__met";

impl Combinations {
    /// Of `outer`, columns of `input`. `number`: no other subquery of the plan has it.
    pub(super) fn new(outer: Vec<Column>, input: &LogicalPlan, number: usize) -> Result<Self> {
        let keys: Vec<String> = (0..outer.len()).map(|nth| format!("__outer_{number}_{nth}")).collect();
        let named = outer.iter().zip(&keys).map(|(column, key)| Expr::Column(column.clone()).alias(key));
        let values = LogicalPlanBuilder::from(input.clone()).project(named)?.distinct()?.build()?;
        Ok(Self { outer, keys, values })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Expr> {
        self.keys.iter().map(ident)
    }

    /// Each row of `input` with those of `rows` for its combination.
    pub(super) fn joined(&self, input: LogicalPlan, rows: LogicalPlan, kind: JoinType, filter: Option<Expr>) -> Result<LogicalPlan> {
        let on = (self.outer.clone(), columns(&self.keys));
        LogicalPlanBuilder::from(input).join_detailed(rows, kind, on, filter, NullEquality::NullEqualsNull)?.build()
    }

    /// The keys, and then the columns of `plan` under their names.
    pub(super) fn beside(&self, plan: &LogicalPlan) -> Result<LogicalPlanBuilder> {
        if !plan.all_out_ref_exprs().iter().any(|expr| self.is_in(expr)) {
            return LogicalPlanBuilder::from(self.values.clone()).cross_join(plan.clone());
        }
        match plan {
            LogicalPlan::Projection(projection) => self.projected(self.beside(&projection.input)?, &projection.expr, &projection.schema),
            LogicalPlan::Filter(filter) => match self.told(filter)? {
                Some(rows) => Ok(rows),
                None => self.beside(&filter.input)?.filter(self.keyed(filter.predicate.clone())?),
            },
            LogicalPlan::SubqueryAlias(alias) => self.renamed(self.beside(&alias.input)?, &alias.schema),
            LogicalPlan::Distinct(Distinct::All(input)) => self.beside(input)?.distinct(),
            LogicalPlan::Sort(sort) => self.beside(&sort.input),
            LogicalPlan::Limit(limit) => self.limited(limit),
            LogicalPlan::Aggregate(aggregate) => self.aggregated(aggregate),
            LogicalPlan::Window(window) => self.windowed(window),
            LogicalPlan::Join(join) => self.both(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Unnest(unnest) => {
                let rows = self.beside(&unnest.input)?;
                self.renamed(rows.unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?, &unnest.schema)
            }
            LogicalPlan::RecursiveQuery(_) => Err(refused("WITH RECURSIVE")),
            LogicalPlan::Extension(extension) => Err(refused(&format!("{}()", extension.node.name()))),
            other => Err(refused(&other.display().to_string())),
        }
    }

    fn is_in(&self, expr: &Expr) -> bool {
        let is_ours = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(_, column) if self.outer.contains(column));
        expr.exists(|expr| Ok(is_ours(expr))).expect("the closure does not fail")
    }

    /// `expr` with the keys in the outer columns' places.
    fn keyed(&self, expr: Expr) -> Result<Expr> {
        let keyed = expr.transform(|expr| match &expr {
            Expr::OuterReferenceColumn(_, column) => Ok(match self.outer.iter().position(|known| known == column) {
                Some(nth) => Transformed::yes(ident(&self.keys[nth])),
                None => Transformed::no(expr),
            }),
            _ => Ok(Transformed::no(expr)),
        });
        keyed.map(|keyed| keyed.data)
    }

    /// `exprs` of `rows`, under the names that `schema` has for them.
    fn projected(&self, rows: LogicalPlanBuilder, exprs: &[Expr], schema: &DFSchema) -> Result<LogicalPlanBuilder> {
        let named = exprs.iter().zip(schema.iter()).map(|(expr, (table, field))| {
            Ok(match self.keyed(expr.clone())? {
                Expr::Column(column) if column.relation.as_ref() == table && column.name == *field.name() => Expr::Column(column),
                keyed => keyed.alias_qualified(table.cloned(), field.name()),
            })
        });
        rows.project(self.keys().chain(named.collect::<Result<Vec<_>>>()?))
    }

    /// `rows`, which have the keys first, under the names of `schema`.
    fn renamed(&self, rows: LogicalPlanBuilder, schema: &DFSchema) -> Result<LogicalPlanBuilder> {
        let columns: Vec<Expr> = rows.schema().columns().into_iter().skip(self.keys.len()).map(Expr::Column).collect();
        self.projected(rows, &columns, schema)
    }

    /// The rows that pass `filter`, which says of each which combination it is for. None: it does not.
    fn told(&self, filter: &Filter) -> Result<Option<LogicalPlanBuilder>> {
        let schema = filter.input.schema();
        if filter.input.all_out_ref_exprs().iter().any(|expr| self.is_in(expr)) {
            return Ok(None);
        }
        let mut told: Vec<Option<Expr>> = vec![None; self.outer.len()];
        let mut rest = Vec::new();
        for conjunct in split_conjunction(&filter.predicate) {
            let equal = equated(conjunct).and_then(|(outer, inner)| Some((self.outer.iter().position(|known| known == outer)?, inner)));
            match equal {
                Some((nth, inner)) if told[nth].is_none() && inner.get_type(schema)? == self.type_of(nth) => {
                    told[nth] = Some(inner.clone())
                }
                _ => rest.push(self.keyed(conjunct.clone())?),
            }
        }
        let Some(told) = told.into_iter().collect::<Option<Vec<Expr>>>() else { return Ok(None) };
        let columns = schema.columns().into_iter().map(Expr::Column);
        let named = told.into_iter().zip(&self.keys).map(|(expr, key)| expr.alias(key)).chain(columns);
        let rows = LogicalPlanBuilder::from(filter.input.as_ref().clone()).project(named)?;
        let known = self.keys().map(Expr::is_not_null);
        Ok(Some(rows.filter(conjunction(known.chain(rest)).expect("a subquery names one outer column at least"))?))
    }

    fn type_of(&self, nth: usize) -> arrow::datatypes::DataType {
        self.values.schema().field(nth).data_type().clone()
    }

    fn aggregated(&self, aggregate: &Aggregate) -> Result<LogicalPlanBuilder> {
        if matches!(aggregate.group_expr[..], [Expr::GroupingSet(_)]) {
            return Err(refused("GROUPING SETS"));
        }
        let is_single = aggregate.group_expr.is_empty();
        let rows = if is_single { self.met(&aggregate.input)? } else { self.beside(&aggregate.input)? };
        let group = aggregate.group_expr.iter().cloned().map(|expr| self.keyed(expr)).collect::<Result<Vec<_>>>()?;
        let calls = aggregate.aggr_expr.iter().cloned().map(|call| {
            let call = self.keyed(call)?;
            if is_single { only_met(call) } else { Ok(call) }
        });
        let calls = calls.collect::<Result<Vec<_>>>()?;
        self.renamed(rows.aggregate(self.keys().chain(group), calls)?, &aggregate.schema)
    }

    /// The rows of `plan`, and one for each combination that has none, told apart by `MET`.
    fn met(&self, plan: &LogicalPlan) -> Result<LogicalPlanBuilder> {
        let values = LogicalPlanBuilder::from(self.values.clone());
        let marked = |rows: LogicalPlanBuilder, keys: &[String]| {
            let columns = rows.schema().columns().into_iter().map(Expr::Column);
            let named = columns.enumerate().map(|(at, column)| match keys.get(at) {
                Some(key) => column.alias(key),
                None => column,
            });
            let named = named.chain([lit(true).alias(MET)]).collect::<Vec<_>>();
            rows.project(named)?.build()
        };
        match plan {
            // One join, where the condition alone knows of the outer row.
            LogicalPlan::Filter(filter)
                if !filter.input.all_out_ref_exprs().iter().any(|expr| self.is_in(expr)) && !has_subquery(&filter.predicate) =>
            {
                let rows = marked(LogicalPlanBuilder::from(filter.input.as_ref().clone()), &[])?;
                values.join_on(rows, JoinType::Left, [self.keyed(filter.predicate.clone())?])
            }
            _ => {
                let others: Vec<String> = self.keys.iter().map(|key| format!("{key}_met")).collect();
                let rows = marked(self.beside(plan)?, &others)?;
                let on = (columns(&self.keys), columns(&others));
                let rows = values.join_detailed(rows, JoinType::Left, on, None, NullEquality::NullEqualsNull)?;
                let kept = rows.schema().columns().into_iter().filter(|column| !others.contains(&column.name)).map(Expr::Column);
                let kept = kept.collect::<Vec<_>>();
                rows.project(kept)
            }
        }
    }

    fn windowed(&self, window: &Window) -> Result<LogicalPlanBuilder> {
        let calls = window.window_expr.iter().cloned().map(|call| {
            let by_keys = self.keyed(call)?.transform(|expr| match expr {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(self.keys());
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            });
            by_keys.map(|call| call.data)
        });
        let calls = calls.collect::<Result<Vec<_>>>()?;
        self.renamed(self.beside(&window.input)?.window(calls)?, &window.schema)
    }

    fn limited(&self, limit: &Limit) -> Result<LogicalPlanBuilder> {
        match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(skip), FetchType::Literal(fetch)) => self.first(&limit.input, skip, fetch),
            _ => Err(refused("LIMIT or OFFSET that is no constant")),
        }
    }

    /// The first `fetch` rows of each combination after `skip`.
    fn first(&self, sorted: &LogicalPlan, skip: usize, fetch: Option<usize>) -> Result<LogicalPlanBuilder> {
        let sort = match sorted {
            LogicalPlan::Projection(projection) => {
                return self.projected(self.first(&projection.input, skip, fetch)?, &projection.expr, &projection.schema);
            }
            LogicalPlan::SubqueryAlias(alias) => return self.renamed(self.first(&alias.input, skip, fetch)?, &alias.schema),
            LogicalPlan::Sort(sort) => sort,
            _ => return Err(refused("LIMIT or OFFSET without ORDER BY")),
        };
        let rows = self.beside(&sort.input)?;
        let columns = rows.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
        let order = sort.expr.iter().map(|key| Ok(self.keyed(key.expr.clone())?.sort(key.asc, key.nulls_first)));
        let number = row_number().partition_by(self.keys().collect()).order_by(order.collect::<Result<Vec<_>>>()?).build()?;
        let place = ident(number.schema_name().to_string());
        let is_last = fetch.map(|fetch| place.clone().lt_eq(lit(skip.saturating_add(fetch) as u64)));
        let is_first = (0 < skip).then(|| place.gt(lit(skip as u64)));
        match conjunction(is_last.into_iter().chain(is_first)) {
            Some(condition) => rows.window([number])?.filter(condition)?.project(columns),
            None => Ok(rows),
        }
    }

    fn both(&self, join: &Join) -> Result<LogicalPlanBuilder> {
        let names = |plan: &LogicalPlan| plan.all_out_ref_exprs().iter().any(|expr| self.is_in(expr));
        let (in_left, in_right) = (names(&join.left), names(&join.right));
        let (by_left, by_right) = match join.join_type {
            JoinType::Inner => (in_left || !in_right, in_right),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (true, in_right),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => (in_left, true),
            JoinType::Full => (true, true),
            JoinType::LeftMark | JoinType::RightMark => return Err(refused("a mark join")),
        };
        let side = |plan: &Arc<LogicalPlan>, is_keyed: bool| match is_keyed {
            true => self.beside(plan)?.build().map(Arc::new),
            false => Ok(Arc::clone(plan)),
        };
        let (left, mut right) = (side(&join.left, by_left)?, side(&join.right, by_right)?);
        let others: Vec<String> = self.keys.iter().map(|key| format!("{key}_right")).collect();
        let pair = |(left, right): &(Expr, Expr)| Ok((self.keyed(left.clone())?, self.keyed(right.clone())?));
        let mut on = join.on.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let mut filter = join.filter.clone().map(|filter| self.keyed(filter)).transpose()?;
        let mut null_equality = join.null_equality;
        if by_left && by_right {
            let named = right.schema().columns().into_iter().enumerate().map(|(at, column)| match others.get(at) {
                Some(key) => Expr::Column(column).alias(key),
                None => Expr::Column(column),
            });
            let named = named.collect::<Vec<_>>();
            right = Arc::new(LogicalPlanBuilder::from(Arc::unwrap_or_clone(right)).project(named)?.build()?);
            if null_equality == NullEquality::NullEqualsNothing {
                // What is no key by itself: NULL is not NULL there.
                filter = conjunction(filter.into_iter().chain(on.iter().map(|(left, right)| left.clone().eq(right.clone()))));
            }
            on.extend(self.keys().zip(others.iter().map(ident)));
            null_equality = NullEquality::NullEqualsNull;
        }
        let kind = join.join_type;
        let joined = Join::try_new(left, right, on, filter, kind, JoinConstraint::On, null_equality, join.null_aware)?;
        let keys = self.keys.iter().zip(&others).map(|(key, other)| match kind {
            JoinType::Full => Ok(when(ident(key).is_null(), ident(other)).otherwise(ident(key))?.alias(key)),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti if by_left => Ok(ident(other).alias(key)),
            _ => Ok(ident(key)),
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let columns = join.schema.columns().into_iter().map(Expr::Column);
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(keys.into_iter().chain(columns))
    }

    fn union(&self, union: &Union) -> Result<LogicalPlanBuilder> {
        let inputs = union.inputs.iter().map(|input| self.beside(input)?.build().map(Arc::new));
        let rows = Union::try_new_with_loose_types(inputs.collect::<Result<Vec<_>>>()?)?;
        self.renamed(LogicalPlanBuilder::from(LogicalPlan::Union(rows)), &union.schema)
    }
}

/// The outer column and what it equals, where that is all that the conjunct says.
pub(super) fn equated(conjunct: &Expr) -> Option<(&Column, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return None };
    let is_inner = |expr: &Expr| !names_outer(expr) && !has_subquery(expr);
    match (left.as_ref(), right.as_ref()) {
        (Expr::OuterReferenceColumn(_, outer), inner) | (inner, Expr::OuterReferenceColumn(_, outer)) if is_inner(inner) => {
            Some((outer, inner))
        }
        _ => None,
    }
}

pub(super) fn names_outer(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..)))).expect("the closure does not fail")
}

/// An aggregate that leaves out what is there for its combination only.
fn only_met(call: Expr) -> Result<Expr> {
    let met = call.transform(|expr| match expr {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let met = ident(MET).is_true();
            params.filter =
                Some(Box::new(conjunction([met].into_iter().chain(params.filter.map(|filter| *filter))).expect("one at least")));
            Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
        }
        other => Ok(Transformed::no(other)),
    });
    met.map(|met| met.data)
}

fn columns(names: &[String]) -> Vec<Column> {
    names.iter().map(Column::from_name).collect()
}

fn refused(what: &str) -> DataFusionError {
    let hint = "compute it in a view by the correlated columns, and join with that";
    DataFusionError::External(Box::new(Error::unsupported(format!("{what} inside a correlated subquery"), hint)))
}
