//! Equal names at the top of a read: Postgres answers them as they are, and DataFusion refuses them. So they are
//! told apart in what is planned, and shown as they were.

use std::collections::HashMap;

use datafusion::common::{Column, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, Query, SelectItem, SetExpr};
use tidegate_types::error::Result;

use super::planning_error;
use crate::statement::normal;

/// What columns are shown as, by the names they are planned under.
pub struct Shown(HashMap<String, Name>);

enum Name {
    Own(String),
    /// As the column at this place, which was written alike.
    As(usize),
}

impl Shown {
    /// Tells the columns of `query` apart.
    pub fn apart(query: &mut Query) -> Self {
        let mut shown = HashMap::new();
        apart(&mut query.body, false, &mut shown);
        Self(shown)
    }

    /// The plan of what was told apart, with the names as they were.
    pub fn restored(self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let columns = plan.schema().columns();
        if !columns.iter().any(|column| self.0.contains_key(&column.name)) {
            return Ok(plan);
        }
        let name = |column: &Column| match self.0.get(&column.name) {
            Some(Name::Own(name)) => name.clone(),
            Some(Name::As(at)) => columns[*at].name.clone(),
            None => column.name.clone(),
        };
        // A plan may have equal names of different relations.
        let shown = columns
            .iter()
            .enumerate()
            .map(|(i, column)| Expr::Column(column.clone()).alias_qualified(Some(TableReference::bare(i.to_string())), name(column)));
        let shown: Vec<Expr> = shown.collect();
        let plan = LogicalPlanBuilder::from(plan).project(shown).and_then(LogicalPlanBuilder::build);
        plan.map_err(|error| planning_error(&error))
    }
}

/// `is_side`: of a set operation, which gives one side's columns the names of the other.
fn apart(body: &mut SetExpr, is_side: bool, shown: &mut HashMap<String, Name>) {
    match body {
        SetExpr::Select(select) => columns(&mut select.projection, is_side, shown),
        SetExpr::SetOperation { left, right, .. } => {
            apart(left, true, shown);
            apart(right, true, &mut HashMap::new());
        }
        _ => {}
    }
}

fn columns(items: &mut [SelectItem], is_side: bool, shown: &mut HashMap<String, Name>) {
    let has_all = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let written: Vec<Option<Written>> = items.iter().map(Written::of).collect();
    for (at, item) in items.iter_mut().enumerate() {
        let Some(this) = &written[at] else { continue };
        let mut alike =
            written[..at].iter().enumerate().filter_map(|(at, other)| Some((at, other.as_ref().filter(|other| other.name == this.name)?)));
        let count = alike.clone().count();
        let is_there = alike.clone().any(|(_, other)| is_side || !this.is_of_another_relation(other));
        // `*` may have the same column.
        let may_be_there = has_all && this.relation.is_some();
        if !(is_there || may_be_there) {
            continue;
        }
        let first = alike.next().map(|(at, _)| at).filter(|_| this.is_computed && !has_all);
        let planned = format!("{}:{}", this.name.replace('"', ""), count + usize::from(has_all));
        shown.insert(planned.clone(), first.map_or_else(|| Name::Own(this.name.clone()), Name::As));
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: ast::Ident::with_quote('"', planned) };
        }
    }
}

/// A column of a SELECT as it is written.
struct Written {
    name: String,
    /// Of a column that has no other name; empty where it is not said.
    relation: Option<String>,
    is_computed: bool,
}

impl Written {
    fn of(item: &SelectItem) -> Option<Self> {
        let mut expr = match item {
            SelectItem::UnnamedExpr(expr) => expr,
            SelectItem::ExprWithAlias { alias, .. } => return Some(Self { name: normal(alias), relation: None, is_computed: false }),
            _ => return None,
        };
        // A cast has the name of what it casts.
        while let ast::Expr::Cast { expr: within, .. } = expr {
            expr = within;
        }
        Some(match expr {
            ast::Expr::Identifier(name) => Self { name: normal(name), relation: Some(String::new()), is_computed: false },
            ast::Expr::CompoundIdentifier(path) => {
                let (name, relation) = path.split_last()?;
                let relation = relation.iter().map(normal).collect::<Vec<_>>().join(".");
                Self { name: normal(name), relation: Some(relation), is_computed: false }
            }
            computed => Self { name: computed.to_string(), relation: None, is_computed: true },
        })
    }

    /// Then DataFusion tells the two apart.
    fn is_of_another_relation(&self, other: &Self) -> bool {
        match (&self.relation, &other.relation) {
            (Some(this), Some(other)) => !this.is_empty() && !other.is_empty() && this != other,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn only_what_datafusion_would_refuse_is_told_apart() {
        for (sql, expected) in [
            ("SELECT 1, 1", "SELECT 1, 1 AS \"1:1\""),
            ("SELECT id, id::TEXT, T.ID FROM t", "SELECT id, id::TEXT AS \"id:1\", T.ID AS \"id:2\" FROM t"),
            ("SELECT id AS x, s AS x FROM t ORDER BY x", "SELECT id AS x, s AS \"x:1\" FROM t ORDER BY x"),
            ("SELECT *, id, s AS x FROM t ORDER BY x", "SELECT *, id AS \"id:1\", s AS x FROM t ORDER BY x"),
            ("SELECT *, id, id FROM t", "SELECT *, id AS \"id:1\", id AS \"id:2\" FROM t"),
            ("SELECT a.id, b.id FROM t AS a, t AS b", "SELECT a.id, b.id FROM t AS a, t AS b"),
            ("SELECT a.id, b.id FROM a, b UNION SELECT 1, 1", "SELECT a.id, b.id AS \"id:1\" FROM a, b UNION SELECT 1, 1 AS \"1:1\""),
        ] {
            let mut query = *Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).unwrap().parse_query().unwrap();
            Shown::apart(&mut query);
            assert_eq!(query.to_string(), expected);
        }
    }
}
