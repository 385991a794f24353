//! The one column that JOIN USING and NATURAL JOIN make of two.
//!
//! Side   it is the left one of a LEFT JOIN: of the two, `*` of DataFusion takes that of the relation whose name is first
//! Type   it has that of one side: so both have to be of one kind

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ExprSchemable, Join, JoinConstraint, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    self, Ident, JoinOperator, ReplaceSelectElement, ReplaceSelectItem, Select, SelectItem, TableFactor, TableWithJoins,
};
use tidegate_types::error::Error;

use crate::statement::normal;

/// Makes `*` take the left columns of LEFT JOIN USING.
pub(super) fn take_left(select: &mut Select) {
    let left: Vec<Box<ReplaceSelectElement>> = select.from.iter().flat_map(left_columns).map(Box::new).collect();
    if left.is_empty() {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::Wildcard(options) = item {
            options.opt_replace.get_or_insert(ReplaceSelectItem { items: left.clone() });
        }
    }
}

fn left_columns(from: &TableWithJoins) -> Vec<ReplaceSelectElement> {
    let mut columns = Vec::new();
    for (at, join) in from.joins.iter().enumerate() {
        let (JoinOperator::Left(ast::JoinConstraint::Using(keys)) | JoinOperator::LeftOuter(ast::JoinConstraint::Using(keys))) =
            &join.join_operator
        else {
            continue;
        };
        // Left of a later join there are several relations, and one of them has the column.
        let relation = if at == 0 { path(&from.relation) } else { Vec::new() };
        columns.extend(keys.iter().filter_map(|key| key.0.last()?.as_ident()).map(|key| column(&relation, key)));
    }
    columns
}

/// What a relation's columns are written behind.
fn path(relation: &TableFactor) -> Vec<Ident> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => vec![alias.name.clone()],
        TableFactor::Table { name, .. } => name.0.iter().filter_map(|part| part.as_ident().cloned()).collect(),
        _ => Vec::new(),
    }
}

fn column(relation: &[Ident], key: &Ident) -> ReplaceSelectElement {
    let expr = match relation {
        [] => ast::Expr::Identifier(key.clone()),
        relation => ast::Expr::CompoundIdentifier(relation.iter().chain([key]).cloned().collect()),
    };
    ReplaceSelectElement { expr, column_name: Ident::new(normal(key)), as_keyword: true }
}

/// `plan`, whose joins make one column of two of one kind.
///
/// Errors: one does of others.
pub(super) fn of_one_kind(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && join.join_constraint == JoinConstraint::Using
            && let Some(error) = refusal(join)?
        {
            return Err(DataFusionError::External(Box::new(error)));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(plan)
}

fn refusal(join: &Join) -> Result<Option<Error>> {
    for (left, right) in &join.on {
        let (left_type, right_type) = (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
        if !are_of_one_kind(&left_type, &right_type) {
            let name = left.column_refs().into_iter().map(|column| column.name.clone()).next().unwrap_or_default();
            let what =
                format!("column \"{name}\" of a JOIN USING or NATURAL JOIN as {left_type} on the left and {right_type} on the right");
            let hint = format!("write ON l.{name} = r.{name}, and CAST(l.{name} AS …) AS {name}");
            return Ok(Some(Error::unsupported(what, hint)));
        }
    }
    Ok(None)
}

/// Whether a value is the same, and computed with in the same way, in the type of either.
fn are_of_one_kind(left: &DataType, right: &DataType) -> bool {
    let both = |is_it: fn(&DataType) -> bool| is_it(left) && is_it(right);
    left == right
        || left.is_null()
        || right.is_null()
        || both(DataType::is_integer)
        || both(DataType::is_decimal)
        || both(DataType::is_floating)
        || both(|data_type| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
        || both(|data_type| matches!(data_type, DataType::Timestamp(..)))
}
