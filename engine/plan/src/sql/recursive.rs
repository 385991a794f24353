//! A recursion's columns have the types of its non-recursive term. DataFusion casts what the recursive term gives to
//! them, whatever is lost, and then nobody can tell its casts from those that are written: so the term is marked
//! before it is planned, and what it gives is compared with what the columns keep.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DataFusionError, Result, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery};
use datafusion::sql::sqlparser::ast::{self, Query, SetExpr, SetOperator, With};
use tidegate_types::error::{Error, Mistake};

use super::relations::over;
use crate::statement::normal;

/// The function in FROM that a recursive term becomes the argument of, and the relation its columns are of.
pub(super) const TERM: &str = "recursive_term";

/// Marks the recursive terms that `query` defines.
pub(super) fn mark(query: &mut Query) {
    let Some(With { recursive: true, cte_tables, .. }) = &mut query.with else { return };
    for defined in cte_tables {
        if let SetExpr::SetOperation { op: SetOperator::Union, right, .. } = defined.query.body.as_mut()
            && reads(right, &defined.alias.name)
        {
            **right = over(TERM, vec![right.as_mut()]);
        }
    }
}

fn reads(term: &SetExpr, name: &ast::Ident) -> bool {
    let found = ast::visit_relations(term, |relation| match relation.0.as_slice() {
        [part] if part.as_ident().is_some_and(|part| normal(part) == normal(name)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The plan of a term, marked. Its columns may have equal names, and nobody reads them: they are called by number.
pub(super) fn marked(term: LogicalPlan) -> Result<LogicalPlan> {
    let columns = term.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(i, column)| Expr::Column(column).alias_qualified(Some(TableReference::bare(TERM)), i.to_string()));
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(term).project(columns)?.build()
}

/// `plan`, in which recursions keep what their recursive terms give.
///
/// Errors: one does not.
pub(super) fn kept(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.apply_with_subqueries(|node| match node {
        LogicalPlan::RecursiveQuery(query) => match refusal(query) {
            Some(error) => Err(DataFusionError::External(Box::new(error))),
            None => Ok(TreeNodeRecursion::Continue),
        },
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(plan)
}

fn refusal(query: &RecursiveQuery) -> Option<Error> {
    let given = before_casts(&query.recursive_term)?;
    let types = query.schema.fields().iter().zip(given.fields()).map(|(kept, given)| (kept.data_type(), given.data_type()));
    let (at, (kept, given)) = types.enumerate().find(|(_, (kept, given))| !keeps(kept, given))?;
    let error = Error::user(format!(
        "recursive query \"{}\" column {} has type {kept} in its non-recursive term but type {given} in its recursive term",
        query.name,
        at + 1
    ));
    Some(error.hint("cast it in the non-recursive term to a type that keeps both, or in the recursive one").mistake(Mistake::WrongType))
}

/// What a marked term gives: casts stand above the mark.
fn before_casts(term: &LogicalPlan) -> Option<&DFSchema> {
    let LogicalPlan::Projection(projection) = term else { return None };
    let is_marked = || projection.schema.iter().any(|(relation, _)| relation.is_some_and(|relation| relation.table() == TERM));
    before_casts(&projection.input).or_else(|| is_marked().then_some(projection.schema.as_ref()))
}

/// Whether a column of type `kept` loses nothing of what is given, but for what fails, having no room.
fn keeps(kept: &DataType, given: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Duration, Float32, Float64, Interval, LargeUtf8, List, Null, Timestamp, Utf8, Utf8View};
    match (kept, given) {
        (_, Null) | (Timestamp(_, None), Date32) | (Utf8, LargeUtf8 | Utf8View) | (Interval(_), Duration(_)) => true,
        (Decimal128(_, kept), Decimal128(_, given)) => given <= kept,
        (Timestamp(_, kept), Timestamp(_, given)) => kept == given,
        (List(kept), List(given)) => keeps(kept.data_type(), given.data_type()),
        (Float32, Float64) => false,
        _ if kept.is_floating() => given.is_numeric(),
        _ if kept.is_integer() || kept.is_decimal() => given.is_integer() || kept == given,
        _ => kept == given,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;

    #[test]
    fn what_fails_or_fits_is_kept_and_what_would_be_cut_off_is_not() {
        use DataType::{Date32, Decimal128, Float32, Float64, Int32, Int64, Null, Timestamp, Utf8};
        let time = Timestamp(TimeUnit::Millisecond, None);
        for (kept, given, expected) in [
            (Int32, Int64, true),
            (Int32, Null, true),
            (Int64, Float64, false),
            (Int64, Decimal128(10, 0), false),
            (Decimal128(10, 2), Int64, true),
            (Decimal128(10, 2), Decimal128(38, 2), true),
            (Decimal128(10, 2), Decimal128(13, 3), false),
            (Decimal128(10, 2), Float64, false),
            (Float64, Decimal128(10, 2), true),
            (Float32, Float64, false),
            (time.clone(), Date32, true),
            (Date32, time, false),
            (Utf8, Int64, false),
            (Null, Int64, false),
        ] {
            assert_eq!(keeps(&kept, &given), expected, "{given} as {kept}");
        }
    }
}
