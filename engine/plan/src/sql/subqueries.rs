//! Subqueries in expressions. DataFusion joins the plain ones; what it would refuse, or answer otherwise than SQL does, is
//! said as joins here, before it looks.
//!
//! Scalar   in general the subquery's rows for each combination of the outer columns' values (`unnest`), beside the
//!          outer row; where they may be several, their number goes with the value, and more than one is an error
//! EXISTS   `(SELECT count(*) FROM Q) > 0`
//! IN       true where a row equals k; else NULL where k or one of the rows is NULL and there are rows; else false
//! ANY, ALL true or false where a row is that makes it so; else NULL where a comparison is
//! LATERAL  a join with the subquery's rows for each combination, by the combination
//! ON       of an inner join: as in WHERE; of an outer one: a column of the side whose columns it names
//! Plain    in WHERE, EXISTS and IN are a semi, an anti or a mark join, which is true or false, never NULL: for IN only
//!          where false and NULL lead to the same rows

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count, first_value, min};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, FetchType, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, SkipType,
    Subquery, cast, ident, lit, not, when,
};

use tidegate_types::error::Error;

use super::functions::only_row;
use super::unnest::{Combinations, equated, names_outer};

/// `plan` without the subqueries that DataFusion cannot be left alone with.
pub(super) fn joined(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut count = 0;
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => Outer::new(&node, &mut count).node(node),
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => from_below(node, &mut count),
        LogicalPlan::Join(join) => beside_each_other(join, &mut count),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// Any kind of it, anywhere in `expr`.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(is_subquery(expr))).expect("the closure does not fail")
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}

/// A join whose right side names columns of its left: by the combination of their values.
fn lateral(mut join: Join, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let subquery = match join.right.as_ref() {
        LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
        other => other,
    };
    let LogicalPlan::Subquery(Subquery { subquery, .. }) = subquery else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
    let outer = outer_columns(subquery, join.left.schema());
    if outer.is_empty() {
        let rows =
            LogicalPlanBuilder::from(subquery.as_ref().clone()).project(renamed(subquery.schema().columns(), join.right.schema()))?;
        join.right = Arc::new(rows.build()?);
        return Ok(Transformed::yes(LogicalPlan::Join(join)));
    }
    let combinations = Combinations::new(outer, &join.left, *count)?;
    *count += 1;
    let rows = combinations.beside(subquery)?;
    let keys: Vec<Expr> = combinations.keys().collect();
    let columns = rows.schema().columns().into_iter().skip(keys.len()).collect();
    let rows = rows.project(keys.into_iter().chain(renamed(columns, join.right.schema())))?.build()?;
    let columns = join.schema.columns().into_iter().map(Expr::Column);
    let joined = combinations.joined(Arc::unwrap_or_clone(join.left), rows, join.join_type, join.filter)?;
    Ok(Transformed::yes(LogicalPlanBuilder::from(joined).project(columns)?.build()?))
}

fn renamed(columns: Vec<Column>, schema: &DFSchema) -> Vec<Expr> {
    let named = schema.iter().zip(columns);
    named.map(|((table, field), column)| Expr::Column(column).alias_qualified(table.cloned(), field.name())).collect()
}

/// A join, of which the right side or the condition may be subqueries.
fn beside_each_other(mut join: Join, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let Some(filter) = join.filter.take_if(|filter| has_subquery(filter)) else { return lateral(join, count) };
    if join.join_type != JoinType::Inner {
        return outer_on(join, filter, count);
    }
    let (asking, plain): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter).into_iter().partition(has_subquery);
    join.filter = conjunction(plain);
    let joined = lateral(join, count)?.data;
    let condition = conjunction(asking).expect("the condition has a subquery");
    let filtered = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(joined))?);
    Outer::new(&filtered, count).node(filtered)
}

/// An outer join by `filter`, whose subqueries do not depend on the pair of rows.
fn outer_on(join: Join, filter: Expr, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let Join { left, right, on, join_type, join_constraint, schema, null_equality, null_aware, .. } = join;
    let (mut of_left, mut of_right) = (Vec::new(), Vec::new());
    let filter = lifted(filter, count, |subquery| {
        let named = outer_names(&subquery);
        let is_of = |side: &LogicalPlan| named.iter().any(|column| side.schema().has_column(column));
        match (is_of(&left), is_of(&right)) {
            (true, true) => {
                let kind = join_type.to_string().to_uppercase();
                let what = format!("a subquery in ON of a {kind} JOIN that names columns of both sides");
                let hint = "join both with what the subquery asks for in a query of their own, and that by LEFT JOIN";
                return Err(DataFusionError::External(Box::new(Error::unsupported(what, hint))));
            }
            (false, true) => of_right.push(subquery),
            _ => of_left.push(subquery),
        }
        Ok(())
    })?;
    let left = Arc::new(with_columns(Arc::unwrap_or_clone(left), of_left, count)?);
    let right = Arc::new(with_columns(Arc::unwrap_or_clone(right), of_right, count)?);
    let joined = Join::try_new(left, right, on, Some(filter), join_type, join_constraint, null_equality, null_aware)?;
    let shown = schema.columns().into_iter().map(Expr::Column);
    Ok(Transformed::yes(LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(shown)?.build()?))
}

/// The columns that `subquery` names of the query around it.
fn outer_names(subquery: &Expr) -> Vec<Column> {
    let mut named: Vec<Column> = subquery.column_refs().into_iter().cloned().collect();
    let walked = subquery.apply(|expr| {
        let plan = match expr {
            Expr::ScalarSubquery(subquery) => subquery,
            Expr::Exists(exists) => &exists.subquery,
            Expr::InSubquery(member) => &member.subquery,
            Expr::SetComparison(comparison) => &comparison.subquery,
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        // What a query within it names is known only now that it is written as a join.
        named.extend(plan.subquery.all_out_ref_exprs().into_iter().filter_map(|expr| match expr {
            Expr::OuterReferenceColumn(_, column) => Some(column),
            _ => None,
        }));
        Ok(TreeNodeRecursion::Continue)
    });
    walked.expect("the closure does not fail");
    named
}

/// `expr` with columns in the places of its subqueries, which `below` gets under these columns' names.
fn lifted(expr: Expr, count: &mut usize, mut below: impl FnMut(Expr) -> Result<()>) -> Result<Expr> {
    let lifted = expr.transform_down(|expr| match is_subquery(&expr) {
        true => {
            let column = format!("__below_{count}");
            *count += 1;
            below(expr.alias(&column))?;
            Ok(Transformed::new(ident(column), true, TreeNodeRecursion::Jump))
        }
        false => Ok(Transformed::no(expr)),
    });
    lifted.map(|lifted| lifted.data)
}

/// `input` with `more` columns, of which subqueries are values.
fn with_columns(input: LogicalPlan, more: Vec<Expr>, count: &mut usize) -> Result<LogicalPlan> {
    let columns = input.schema().columns().into_iter().map(Expr::Column).chain(more);
    let projection = LogicalPlanBuilder::from(input).project(columns)?.build()?;
    Ok(Outer::new(&projection, count).node(projection)?.data)
}

/// A node whose expressions are neither a condition nor a projection takes what they need of subqueries from a
/// projection below it.
fn from_below(node: LogicalPlan, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    if !node.expressions().iter().any(has_subquery) {
        return Ok(Transformed::no(node));
    }
    let schema = Arc::clone(node.schema());
    let (input, mut below) = (node.inputs()[0].clone(), Vec::new());
    let exprs = node.expressions().into_iter().map(|expr| {
        lifted(expr, count, |subquery| {
            below.push(subquery);
            Ok(())
        })
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    // An aggregate shows no column of its input by itself.
    let is_aggregate = matches!(node, LogicalPlan::Aggregate(_));
    let (width, lifted_width) = (input.schema().fields().len(), below.len());
    let projection = with_columns(input, below, count)?;
    let node = LogicalPlanBuilder::from(node.with_new_exprs(exprs, vec![projection])?);
    let mut columns = node.schema().columns();
    if !is_aggregate {
        columns.drain(width..width + lifted_width);
    }
    // What reads it knows its columns by the names they had.
    let named =
        schema.iter().zip(columns).map(|((table, field), column)| Expr::Column(column).alias_qualified(table.cloned(), field.name()));
    let named = named.collect::<Vec<_>>();
    Ok(Transformed::yes(node.project(named)?.build()?))
}

/// Where in a node a subquery stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A condition by itself: what is not true is as good as false.
    Conjunct,
    /// The same under OR.
    Condition,
    /// Within a condition: NULL is something else than false.
    Within,
    /// A value to be shown: there are no mark joins for it.
    Value,
}

impl Place {
    fn is_condition(self) -> bool {
        matches!(self, Self::Conjunct | Self::Condition)
    }
}

/// What subqueries of a node are beside.
struct Outer<'a> {
    /// The input's columns.
    schema: DFSchemaRef,
    /// The input, where the outer columns' values are from.
    rows: LogicalPlan,
    /// The input beside what the subqueries so far give.
    input: LogicalPlan,
    count: &'a mut usize,
}

impl<'a> Outer<'a> {
    fn new(node: &LogicalPlan, count: &'a mut usize) -> Self {
        let rows = node.inputs()[0].clone();
        Self { schema: Arc::clone(rows.schema()), input: rows.clone(), rows, count }
    }

    /// `node` over its input beside what its subqueries give.
    fn node(mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !node.expressions().iter().any(has_subquery) {
            return Ok(Transformed::no(node));
        }
        let LogicalPlan::Filter(filter) = node else {
            let names = NamePreserver::new(&node);
            let named = node.expressions().into_iter().map(|expr| {
                let name = names.save(&expr);
                Ok(name.restore(self.value(expr, Place::Value)?))
            });
            let expressions = named.collect::<Result<Vec<_>>>()?;
            return Ok(Transformed::yes(node.with_new_exprs(expressions, vec![self.input])?));
        };
        let conditions = split_conjunction_owned(filter.predicate).into_iter().map(|condition| self.condition(condition, Place::Conjunct));
        let condition = conjunction(conditions.collect::<Result<Vec<_>>>()?).expect("one condition at least");
        let columns = self.schema.columns().into_iter().map(Expr::Column);
        let is_wider = self.input.schema() != &self.schema;
        let filtered = LogicalPlanBuilder::from(self.input).filter(condition)?;
        let filtered = if is_wider { filtered.project(columns)? } else { filtered };
        Ok(Transformed::yes(filtered.build()?))
    }

    /// True where `expr` is, and nowhere else.
    fn condition(&mut self, expr: Expr, place: Place) -> Result<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let place = if op == Operator::Or { Place::Condition } else { place };
                let (left, right) = (self.condition(*left, place)?, self.condition(*right, place)?);
                Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::Not(inner) => match *inner {
                Expr::InSubquery(member) => self.condition(Expr::InSubquery(InSubquery { negated: !member.negated, ..member }), place),
                Expr::Exists(exists) => self.condition(Expr::Exists(Exists { negated: !exists.negated, ..exists }), place),
                other => Ok(not(self.value(other, Place::Within)?)),
            },
            other => self.value(other, place),
        }
    }

    /// What `expr` is, with columns or plain subqueries in the places of its subqueries.
    fn value(&mut self, expr: Expr, place: Place) -> Result<Expr> {
        match expr {
            Expr::ScalarSubquery(subquery) => self.scalar(subquery.subquery),
            Expr::Exists(exists) => self.exists(exists, place),
            Expr::InSubquery(member) => self.member(member, place),
            Expr::SetComparison(comparison) => self.compared(comparison, place),
            other if !has_subquery(&other) => Ok(other),
            other => {
                let within = if place.is_condition() { Place::Within } else { place };
                other.map_children(|child| Ok(Transformed::yes(self.value(child, within)?))).map(|mapped| mapped.data)
            }
        }
    }

    fn exists(&mut self, exists: Exists, place: Place) -> Result<Expr> {
        let Exists { subquery, negated } = exists;
        let (rows, skipped) = uncounted(&subquery.subquery, 0);
        if place != Place::Value && skipped == 0 && self.is_plain(rows) {
            return Ok(Expr::Exists(Exists { subquery: self.plain(rows.clone())?, negated }));
        }
        let any = self.any(&subquery.subquery)?;
        Ok(if negated { not(any) } else { any })
    }

    fn member(&mut self, member: InSubquery, place: Place) -> Result<Expr> {
        let InSubquery { expr, subquery, negated } = member;
        let plan = subquery.subquery;
        let is_uncorrelated = plan.all_out_ref_exprs().is_empty();
        let is_join = match (place, negated) {
            (Place::Conjunct | Place::Condition, false) => self.is_plain(&plan),
            // By its one key, which a constant is not.
            (Place::Conjunct, true) => is_uncorrelated && !expr.column_refs().is_empty(),
            _ => false,
        };
        if is_join && !has_subquery(&expr) {
            let (expr, plan) = self.of_one_type(*expr, plan)?;
            return Ok(Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery: self.plain(plan)?, negated }));
        }
        let key = self.lifted(*expr)?;
        let (plan, column) = self.renamed_column(&plan)?;
        let equal = self.any(&filtered(&plan, column.clone().eq(self.as_outer(&key)?))?)?;
        if place.is_condition() && !negated {
            return Ok(equal);
        }
        let nulls = self.any(&filtered(&plan, column.is_null())?)?;
        let unknown = key.is_null().and(self.any(&plan)?).or(nulls);
        let is_in = when(equal, lit(true)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?;
        Ok(if negated { not(is_in) } else { is_in })
    }

    fn compared(&mut self, comparison: SetComparison, place: Place) -> Result<Expr> {
        let SetComparison { expr, subquery, op, quantifier } = comparison;
        match (op, quantifier) {
            (Operator::Eq, SetQuantifier::Any) => return self.member(InSubquery { expr, subquery, negated: false }, place),
            (Operator::NotEq, SetQuantifier::All) => return self.member(InSubquery { expr, subquery, negated: true }, place),
            _ => {}
        }
        let key = self.lifted(*expr)?;
        let (plan, column) = self.renamed_column(&subquery.subquery)?;
        let compared = Expr::BinaryExpr(BinaryExpr::new(Box::new(self.as_outer(&key)?), op, Box::new(column)));
        if place.is_condition() {
            let (decisive, negated) = match quantifier {
                SetQuantifier::Any => (compared, false),
                SetQuantifier::All => (compared.is_not_true(), true),
            };
            return self.exists(Exists { subquery: with_outer(filtered(&plan, decisive)?), negated }, place);
        }
        let mut rows = |condition: Expr| self.exists(Exists { subquery: with_outer(filtered(&plan, condition)?), negated: false }, place);
        let unknown = rows(compared.clone().is_null())?;
        let (decided, value) = match quantifier {
            SetQuantifier::Any => (rows(compared.is_true())?, true),
            SetQuantifier::All => (rows(compared.is_false())?, false),
        };
        when(decided, lit(value)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!value))
    }

    /// The column of `plan`, under a name that it cannot share with an outer one: a relation may be in both queries.
    fn renamed_column(&mut self, plan: &LogicalPlan) -> Result<(LogicalPlan, Expr)> {
        let name = format!("__member_{}", self.count);
        *self.count += 1;
        let plan = LogicalPlanBuilder::from(plan.clone()).project([first_column(plan)?.alias(&name)])?.build()?;
        Ok((plan, ident(name)))
    }

    /// Whether `plan` has rows.
    fn any(&mut self, plan: &LogicalPlan) -> Result<Expr> {
        let (rows, skipped) = uncounted(plan, 0);
        // Under a name that no column beside it has.
        let calls = vec![count(lit(1i64)).alias("__rows")];
        let count = LogicalPlanBuilder::from(rows.clone()).aggregate(Vec::<Expr>::new(), calls)?.build()?;
        Ok(self.scalar(Arc::new(count))?.gt(lit(skipped as i64)))
    }

    /// The one value of `plan`.
    fn scalar(&mut self, plan: Arc<LogicalPlan>) -> Result<Expr> {
        if plan.max_rows().is_some_and(|most| most <= 1) {
            let plan = Arc::unwrap_or_clone(plan);
            let is_left = if plan.all_out_ref_exprs().is_empty() { is_one_row(&plan) } else { self.is_grouped(&plan) };
            return if is_left { Ok(Expr::ScalarSubquery(self.plain(plan)?)) } else { self.beside(plan, false) };
        }
        let column = first_column(&plan)?;
        let is_nested = plan.schema().field(0).data_type().is_nested();
        let one = if is_nested { first_value(column, Vec::new()) } else { min(column) };
        let calls = vec![count(lit(1i64)).alias("__rows"), one.alias("__one")];
        self.beside(LogicalPlanBuilder::from(plan.as_ref().clone()).aggregate(Vec::<Expr>::new(), calls)?.build()?, true)
    }

    /// The value of `plan`'s last column, once it stands beside the input. `is_counted`: how many rows it is of is in
    /// the column before it.
    fn beside(&mut self, plan: LogicalPlan, is_counted: bool) -> Result<Expr> {
        let number = *self.count;
        *self.count += 1;
        let (value, rows) = (format!("__value_{number}"), format!("__rows_{number}"));
        let outer = outer_columns(&plan, self.rows.schema());
        let combinations = match outer.is_empty() {
            true => None,
            false => Some(Combinations::new(outer, &self.rows, number)?),
        };
        let values = match (&combinations, &plan) {
            (None, _) => LogicalPlanBuilder::from(plan),
            // Where there is no row, NULL is as good as a count of none.
            (Some(combinations), LogicalPlan::Aggregate(aggregate)) if is_counted => {
                let rows = combinations.beside(&aggregate.input)?;
                rows.aggregate(combinations.keys(), aggregate.aggr_expr.clone())?
            }
            (Some(combinations), _) => combinations.beside(&plan)?,
        };
        let mut columns = values.schema().columns().into_iter().map(Expr::Column).rev();
        let mut named = vec![columns.next().unwrap_or_else(|| lit(true)).alias(&value)];
        if is_counted {
            named.extend(columns.next().map(|column| column.alias(&rows)));
        }
        let keys = combinations.iter().flat_map(Combinations::keys).collect::<Vec<_>>();
        let values = values.clone().project(keys.into_iter().chain(named))?.build()?;
        let input = self.input.clone();
        self.input = match &combinations {
            Some(combinations) => combinations.joined(input, values, JoinType::Left, None)?,
            None => LogicalPlanBuilder::from(input).join_on(values, JoinType::Left, [lit(true)])?.build()?,
        };
        Ok(if is_counted { only_row(ident(rows), ident(value)) } else { ident(value) })
    }

    /// `expr` as columns only, so that it can stand in another query.
    fn lifted(&mut self, expr: Expr) -> Result<Expr> {
        if !has_subquery(&expr) {
            return Ok(expr);
        }
        let column = format!("__key_{}", self.count);
        *self.count += 1;
        let value = self.value(expr, Place::Value)?;
        let columns = self.input.schema().columns().into_iter().map(Expr::Column).chain([value.alias(&column)]);
        self.input = LogicalPlanBuilder::from(self.input.clone()).project(columns)?.build()?;
        self.rows = self.input.clone();
        Ok(ident(column))
    }

    /// `expr` of an outer row, for a subquery's condition.
    fn as_outer(&self, expr: &Expr) -> Result<Expr> {
        let outer = expr.clone().transform(|expr| match expr {
            Expr::Column(column) => {
                let field = Arc::clone(self.rows.schema().field_from_column(&column)?);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        });
        outer.map(|outer| outer.data)
    }

    /// Whether DataFusion's semi, anti or mark join is right: outer columns are named in conditions only, and these
    /// can be lifted out as they are.
    fn is_plain(&self, plan: &LogicalPlan) -> bool {
        let outer = plan.all_out_ref_exprs();
        let is_here = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(_, column) if self.schema.has_column(column));
        outer.is_empty() || (outer.iter().all(is_here) && !sees_rows_of_others(plan) && conditions(plan).is_some())
    }

    /// `expr`, and `plan` whose column it is compared with. DataFusion's own cast of the column has no name to tell it by.
    fn of_one_type(&self, expr: Expr, plan: Arc<LogicalPlan>) -> Result<(Expr, LogicalPlan)> {
        let plan = Arc::unwrap_or_clone(plan);
        let (own, other) = (expr.get_type(self.schema.as_ref())?, plan.schema().field(0).data_type().clone());
        match comparison_coercion(&own, &other) {
            Some(both) if own != other => {
                let column = cast(first_column(&plan)?, both.clone()).alias("__member");
                Ok((if own == both { expr } else { cast(expr, both) }, LogicalPlanBuilder::from(plan).project([column])?.build()?))
            }
            _ => Ok((expr, plan)),
        }
    }

    /// `plan`, to be joined by DataFusion, which knows a column that it lifts out by its bare name, and from an outer
    /// one by its relation's: where another has the same, it gets one of its own.
    fn plain(&mut self, plan: LogicalPlan) -> Result<Subquery> {
        let shown = Arc::clone(plan.schema());
        let outer = Arc::clone(&self.schema);
        let renamed = plan.transform_down(|node| match node {
            LogicalPlan::Filter(filter) if is_ambiguous(&filter, &shown, &outer) => {
                self.renamed(filter).map(|plan| Transformed::new(plan, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(with_outer(renamed?.data))
    }

    fn renamed(&mut self, filter: Filter) -> Result<LogicalPlan> {
        let number = *self.count;
        *self.count += 1;
        let columns = filter.input.schema().columns();
        let names: Vec<String> = (0..columns.len()).map(|nth| format!("__inner_{number}_{nth}")).collect();
        let condition = filter.predicate.transform(|expr| match &expr {
            Expr::Column(column) => {
                let nth = columns.iter().position(|known| known == column).expect("a condition is over its input");
                Ok(Transformed::yes(ident(&names[nth])))
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        let renamed = columns.iter().zip(&names).map(|(column, name)| Expr::Column(column.clone()).alias(name));
        let back = columns.iter().zip(&names).map(|(column, name)| ident(name).alias_qualified(column.relation.clone(), &column.name));
        LogicalPlanBuilder::from(Arc::unwrap_or_clone(filter.input)).project(renamed)?.filter(condition.data)?.project(back)?.build()
    }

    /// Whether DataFusion's join with groups is right: of an aggregate over conditions that the outer columns are
    /// equal to something of their type.
    fn is_grouped(&self, plan: &LogicalPlan) -> bool {
        let is_of_type = |outer: &Column, inner: &Expr, schema: &DFSchema| {
            let outer = self.schema.field_from_column(outer).map(|field| field.data_type().clone()).ok();
            outer.is_some() && outer == inner.get_type(schema).ok()
        };
        match plan {
            LogicalPlan::Projection(projection) if !projection.expr.iter().any(|expr| names_outer(expr) || has_subquery(expr)) => {
                self.is_grouped(&projection.input)
            }
            LogicalPlan::Aggregate(aggregate) => {
                let is_own = !aggregate.aggr_expr.iter().any(names_outer);
                let is_equality = |(condition, schema): &(&Expr, &DFSchema)| {
                    !names_outer(condition) || equated(condition).is_some_and(|(outer, inner)| is_of_type(outer, inner, schema))
                };
                let are_equalities = |conditions: Vec<_>| conditions.iter().all(is_equality);
                let below = &aggregate.input;
                aggregate.group_expr.is_empty() && is_own && !sees_rows_of_others(below) && conditions(below).is_some_and(are_equalities)
            }
            _ => false,
        }
    }
}

/// The columns of `schema` that `plan` names, and not those of queries further out.
fn outer_columns(plan: &LogicalPlan, schema: &DFSchema) -> Vec<Column> {
    let mut outer = Vec::new();
    for expr in plan.all_out_ref_exprs() {
        if let Expr::OuterReferenceColumn(_, column) = expr
            && schema.has_column(&column)
            && !outer.contains(&column)
        {
            outer.push(column);
        }
    }
    outer
}

/// `plan` as a subquery, and the outer columns that it names.
fn with_outer(plan: impl Into<Arc<LogicalPlan>>) -> Subquery {
    let subquery = plan.into();
    Subquery { outer_ref_columns: subquery.all_out_ref_exprs(), subquery, spans: Default::default() }
}

fn first_column(plan: &LogicalPlan) -> Result<Expr> {
    let column = plan.schema().columns().into_iter().next();
    column.map(Expr::Column).ok_or_else(|| DataFusionError::Plan("a subquery needs a column here".into()))
}

fn filtered(plan: &LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan.clone()).filter(condition)?.build()
}

/// `plan` without what does not matter to whether it has a row, and how many rows come before that. `skipped`: by what
/// is above it.
fn uncounted(plan: &LogicalPlan, skipped: usize) -> (&LogicalPlan, usize) {
    match plan {
        LogicalPlan::Projection(projection) => uncounted(&projection.input, skipped),
        LogicalPlan::Sort(sort) => uncounted(&sort.input, skipped),
        LogicalPlan::Limit(limit) => match (limit.get_skip_type(), limit.get_fetch_type()) {
            (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) if fetch.is_none_or(|fetch| skipped < fetch) => {
                uncounted(&limit.input, skipped.saturating_add(skip))
            }
            _ => (plan, skipped),
        },
        other => (other, skipped),
    }
}

/// Whether there is a row whatever there is below: DataFusion takes the value for NULL only where it may be NULL in a row.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => is_one_row(&projection.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

/// Whether a column that `filter` compares with an outer one shares its name, beside it or in `shown`, or its
/// relation's, too, with one of `outer`.
fn is_ambiguous(filter: &Filter, shown: &DFSchema, outer: &DFSchema) -> bool {
    let lifted = split_conjunction(&filter.predicate).into_iter().filter(|condition| names_outer(condition));
    let columns = lifted.flat_map(Expr::column_refs);
    let mut of_name = columns.map(|column| (column, filter.input.schema().columns_with_unqualified_name(&column.name)));
    of_name.any(|(column, beside)| {
        let others = shown.columns_with_unqualified_name(&column.name);
        1 < beside.len() || others.iter().any(|other| other != column) || outer.has_column(column)
    })
}

/// All conditions of `plan` down to the last that names an outer column, and what they are over. None: such a column is
/// named elsewhere.
fn conditions(plan: &LogicalPlan) -> Option<Vec<(&Expr, &DFSchema)>> {
    if plan.all_out_ref_exprs().is_empty() {
        return Some(Vec::new());
    }
    let mut found = match plan {
        LogicalPlan::Filter(filter) if !has_subquery(&filter.predicate) => {
            split_conjunction(&filter.predicate).into_iter().map(|condition| (condition, filter.input.schema().as_ref())).collect()
        }
        LogicalPlan::Projection(_) | LogicalPlan::Sort(_) if !plan.expressions().iter().any(names_outer) => Vec::new(),
        LogicalPlan::SubqueryAlias(_) => Vec::new(),
        _ => return None,
    };
    found.extend(conditions(plan.inputs().first()?)?);
    Some(found)
}

/// Whether something in `plan` would see the rows of all outer rows, once the conditions are lifted out.
fn sees_rows_of_others(plan: &LogicalPlan) -> bool {
    let sees = plan.exists(|node| {
        let is_on = |node: &LogicalPlan| matches!(node, LogicalPlan::Distinct(Distinct::On(_)));
        Ok(matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Limit(_)) || is_on(node))
    });
    sees.expect("the closure does not fail")
}
