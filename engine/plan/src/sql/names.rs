//! What the columns of a SELECT are called, as in Postgres.
//!
//! Name     the one after AS; else that of the column or the function that the expression ends in, or of the type it is
//!          cast to; else `?column?`
//! ORDER BY a bare name is that of such a column, or else one of FROM; within an expression it is one of FROM
//! Equal    names are no mistake at the top of a read, nor in a subquery that no one names: DataFusion, which refuses them
//!          and knows no difference between the two kinds of name in ORDER BY, gets others, and what is shown are these
//! Hidden   is a column of FROM that ORDER BY means, where one of SELECT has its name: in a query that others read, what
//!          has other names is put into a FROM of its own

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, AccessExpr, Distinct, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tidegate_types::error::{Error, Mistake, Result};

use super::planning_error;
use crate::statement::normal;

/// What columns are shown as, by the names they are planned under.
#[derive(Default)]
pub struct Shown(HashMap<String, String>);

impl Shown {
    /// Tells the columns of `query` apart, of which nobody reads the names but by what this gives back.
    ///
    /// Errors: ORDER BY has a name that two of them have.
    pub fn apart(query: &mut Query) -> Result<Self> {
        let mut shown = HashMap::new();
        name(query, Reader::Nobody, &mut shown)?;
        Ok(Self(shown))
    }

    /// The plan of what was told apart, with the names as they were.
    pub fn restored(self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let columns = plan.schema().columns();
        if !columns.iter().any(|column| self.0.contains_key(&column.name)) {
            return Ok(plan);
        }
        // A plan may have equal names of different relations.
        let shown = columns.iter().enumerate().map(|(i, column)| {
            let name = self.0.get(&column.name).unwrap_or(&column.name);
            Expr::Column(column.clone()).alias_qualified(Some(TableReference::bare(i.to_string())), name)
        });
        let shown: Vec<Expr> = shown.collect();
        let plan = LogicalPlanBuilder::from(plan).project(shown).and_then(LogicalPlanBuilder::build);
        plan.map_err(|error| planning_error(&error))
    }
}

/// Who refers to the columns of a SELECT by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// They may be called anything.
    Nobody,
    /// The query around it: equal names are no mistake as long as it does not.
    Around,
    /// Whoever reads a view.
    Anybody,
}

/// Names the columns of `query` that have no names.
pub(super) fn named(query: &mut Query, reader: Reader) -> Result<()> {
    name(query, reader, &mut HashMap::new())
}

/// Puts `query`, where ORDER BY means a column of FROM that one of its own columns hides, into the FROM of a query that
/// gives them their names.
pub(super) fn put_apart(query: &mut Query) -> Result<()> {
    if !hides_key(query) {
        return Ok(());
    }
    let mut inner = query.clone();
    let shown = Shown::apart(&mut inner)?.0;
    let SetExpr::Select(select) = inner.body.as_ref() else { return Ok(()) };
    let columns = select.projection.iter().filter_map(Written::of).map(|column| {
        let alias = shown.get(&column.name).unwrap_or(&column.name).clone();
        SelectItem::ExprWithAlias { expr: ast::Expr::Identifier(quoted(column.name)), alias: quoted(alias) }
    });
    let columns: Vec<SelectItem> = columns.collect();
    let outer = Parser::new(&PostgreSqlDialect {}).try_with_sql(r#"SELECT 1 FROM (SELECT 1) AS "apart""#).and_then(|mut p| p.parse_query());
    let mut outer = outer.expect("a query");
    if let SetExpr::Select(around) = outer.body.as_mut()
        && let [from] = &mut around.from[..]
        && let TableFactor::Derived { subquery, .. } = &mut from.relation
    {
        around.projection = columns;
        **subquery = inner;
        *query = *outer;
    }
    Ok(())
}

fn hides_key(query: &Query) -> bool {
    let (SetExpr::Select(select), Some(OrderBy { kind: OrderByKind::Expressions(keys), .. })) = (query.body.as_ref(), &query.order_by)
    else {
        return false;
    };
    let columns: Option<Vec<Written>> = select.projection.iter().map(Written::of).collect();
    // With `*`, and with DISTINCT, the column is among those that are selected.
    let columns = columns.filter(|_| select.distinct.is_none()).unwrap_or_default();
    let is_selected = |key: &ast::Expr| columns.iter().any(|column| column.expr == *key);
    keys.iter().any(|key| !is_selected(&key.expr) && columns.iter().any(|column| column.hides(&key.expr)))
}

fn name(query: &mut Query, reader: Reader, shown: &mut HashMap<String, String>) -> Result<()> {
    let mut keys = match &mut query.order_by {
        Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) => keys.iter_mut().map(|key| &mut key.expr).collect(),
        _ => Vec::new(),
    };
    name_sides(&mut query.body, &mut keys, reader, shown)
}

/// A set operation has the names of its first side.
fn name_sides(body: &mut SetExpr, keys: &mut [&mut ast::Expr], reader: Reader, shown: &mut HashMap<String, String>) -> Result<()> {
    match body {
        SetExpr::Select(select) => name_columns(select, keys, reader, shown),
        SetExpr::SetOperation { left, right, .. } => {
            name_sides(left, keys, reader, shown)?;
            name_sides(right, &mut [], Reader::Nobody, &mut HashMap::new())
        }
        SetExpr::Query(query) => name(query, reader, shown),
        _ => Ok(()),
    }
}

fn name_columns(select: &mut Select, keys: &mut [&mut ast::Expr], reader: Reader, shown: &mut HashMap<String, String>) -> Result<()> {
    let has_all = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    let columns: Vec<Option<Written>> = select.projection.iter().map(Written::of).collect();
    // DISTINCT ON wants its expressions to be those of ORDER BY, as they are written.
    let is_on = matches!(select.distinct, Some(Distinct::On(_)));
    let mut planned: Vec<Option<String>> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let Some(column) = column else {
            planned.push(None);
            continue;
        };
        let mut alike = columns[..at].iter().flatten().filter(|other| other.name == column.name);
        let is_hidden = !is_on && keys.iter().any(|key| column.hides(key));
        let needs_own = match reader {
            Reader::Nobody => alike.next().is_some() || has_all || is_hidden,
            Reader::Around => !column.has_alias && alike.any(|other| !column.is_of_another_relation(other)),
            Reader::Anybody => false,
        };
        let name = if needs_own { format!("{}:{at}", column.name.replace('"', "")) } else { column.name.clone() };
        if needs_own {
            shown.insert(name.clone(), column.name.clone());
        }
        planned.push(Some(name));
    }
    if !is_on {
        keys.iter_mut().try_for_each(|key| order_by(key, &columns, &planned))?;
    }
    for ((item, column), name) in select.projection.iter_mut().zip(&columns).zip(planned) {
        if let (Some(column), Some(name)) = (column, name)
            && !(column.is_called(&name))
            && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: quoted(name) };
        }
    }
    Ok(())
}

fn quoted(name: String) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

/// A column of a SELECT as it is written.
struct Written {
    name: String,
    expr: ast::Expr,
    has_alias: bool,
    /// Of what is a column, and nothing else, without an alias; empty where it is not said.
    relation: Option<String>,
}

impl Written {
    fn of(item: &SelectItem) -> Option<Self> {
        let (expr, alias) = match item {
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
            _ => return None,
        };
        let relation = match (alias, expr) {
            (None, ast::Expr::Identifier(_)) => Some(String::new()),
            (None, ast::Expr::CompoundIdentifier(path)) => {
                Some(path[..path.len().saturating_sub(1)].iter().map(normal).collect::<Vec<_>>().join("."))
            }
            _ => None,
        };
        let name = alias.map(normal).or_else(|| Some(called(expr)?.0)).unwrap_or_else(|| UNNAMED.to_string());
        Some(Self { name, expr: expr.clone(), has_alias: alias.is_some(), relation })
    }

    /// Whether DataFusion calls it so by itself.
    fn is_called(&self, name: &str) -> bool {
        (self.has_alias || self.relation.is_some()) && self.name == name
    }

    /// Then DataFusion tells the two apart.
    fn is_of_another_relation(&self, other: &Self) -> bool {
        match (&self.relation, &other.relation) {
            (Some(this), Some(other)) => !this.is_empty() && !other.is_empty() && this != other,
            _ => false,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let are_columns = self.relation.is_some() && other.relation.is_some();
        self.expr == other.expr || (are_columns && !self.is_of_another_relation(other))
    }

    /// Whether `key` of ORDER BY means a column of FROM, for which DataFusion would take this one.
    fn hides(&self, key: &ast::Expr) -> bool {
        self.relation.is_none() && !matches!(key, ast::Expr::Identifier(_)) && {
            let is_qualified = mentions(key, |path| matches!(path, [_, .., last] if normal(last) == self.name));
            let is_bare = |path: &[ast::Ident]| matches!(path, [bare] if normal(bare) == self.name);
            is_qualified || (mentions(key, is_bare) && mentions(&self.expr, is_bare))
        }
    }
}

/// Whether `is_it` is said of a column that `expr` names.
fn mentions(expr: &ast::Expr, is_it: impl Fn(&[ast::Ident]) -> bool) -> bool {
    let found = ast::visit_expressions(expr, |expr| match expr {
        ast::Expr::Identifier(name) if is_it(std::slice::from_ref(name)) => ControlFlow::Break(()),
        ast::Expr::CompoundIdentifier(path) if is_it(path) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// `key` under the name that the column it means is planned under.
fn order_by(key: &mut ast::Expr, columns: &[Option<Written>], planned: &[Option<String>]) -> Result<()> {
    let named = columns.iter().zip(planned).filter_map(|(column, name)| Some((column.as_ref()?, name.as_ref()?)));
    let meant: Vec<_> = match &*key {
        ast::Expr::Identifier(name) => named.filter(|(column, _)| column.name == normal(name)).collect(),
        computed => named.filter(|(column, _)| column.relation.is_none() && column.expr == *computed).take(1).collect(),
    };
    let Some((first, name)) = meant.first() else { return Ok(()) };
    if !meant.iter().all(|(other, _)| first.is_same(other)) {
        let error = Error::user(format!("ORDER BY \"{}\" is ambiguous: two columns have this name", first.name));
        return Err(error.hint("order by the column's number, or name one of them otherwise, with AS").mistake(Mistake::AmbiguousColumn));
    }
    if !first.is_called(name) || !matches!(key, ast::Expr::Identifier(_)) {
        *key = ast::Expr::Identifier(quoted(name.to_string()));
    }
    Ok(())
}

/// What a column is called that nothing gives a name.
const UNNAMED: &str = "?column?";

/// How sure a name is: one of a type gives way to the name of a cast around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Type,
    Own,
}

fn called(expr: &ast::Expr) -> Option<(String, Rank)> {
    use ast::Expr;
    let own = |name: &str| Some((name.to_string(), Rank::Own));
    match expr {
        Expr::Identifier(name) => Some((normal(name), Rank::Own)),
        Expr::CompoundIdentifier(path) => Some((normal(path.last()?), Rank::Own)),
        Expr::CompoundFieldAccess { root, access_chain } => access_chain.iter().rev().find_map(field).or_else(|| called(root)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => called(inner),
        Expr::Cast { expr: inner, data_type, .. } => called(inner).filter(|(_, rank)| *rank == Rank::Own).or_else(|| of_type(data_type)),
        Expr::TypedString(constant) => of_type(&constant.data_type),
        Expr::Interval(_) => Some(("interval".into(), Rank::Type)),
        Expr::Value(value) if matches!(value.value, ast::Value::Boolean(_)) => Some(("bool".into(), Rank::Type)),
        Expr::Function(call) => Some((normal(call.name.0.last()?.as_ident()?), Rank::Own)),
        Expr::Case { else_result, .. } => {
            let otherwise = else_result.as_deref().and_then(called).filter(|(_, rank)| *rank == Rank::Own);
            otherwise.or_else(|| Some(("case".into(), Rank::Type)))
        }
        Expr::Subquery(query) => first_column(&query.body),
        Expr::Exists { .. } => own("exists"),
        Expr::Array(_) => own("array"),
        Expr::Tuple(_) => own("row"),
        Expr::Extract { .. } => own("extract"),
        Expr::Ceil { .. } => own("ceil"),
        Expr::Floor { .. } => own("floor"),
        Expr::Position { .. } => own("position"),
        Expr::Substring { .. } => own("substring"),
        Expr::Overlay { .. } => own("overlay"),
        Expr::AtTimeZone { .. } => own("timezone"),
        Expr::Trim { trim_where, .. } => own(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            Some(ast::TrimWhereField::Both) | None => "btrim",
        }),
        _ => None,
    }
}

fn field(access: &AccessExpr) -> Option<(String, Rank)> {
    match access {
        AccessExpr::Dot(ast::Expr::Identifier(name)) => Some((normal(name), Rank::Own)),
        _ => None,
    }
}

fn first_column(body: &SetExpr) -> Option<(String, Rank)> {
    match body {
        SetExpr::Select(select) => Some((Written::of(select.projection.first()?)?.name, Rank::Own)).filter(|(name, _)| name != UNNAMED),
        SetExpr::SetOperation { left, .. } => first_column(left),
        SetExpr::Query(query) => first_column(&query.body),
        _ => None,
    }
}

/// As Postgres has it in its catalogue.
fn of_type(data_type: &ast::DataType) -> Option<(String, Rank)> {
    use ast::DataType as Sql;
    let name = match data_type {
        Sql::SmallInt(_) | Sql::Int2(_) => "int2",
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => "int4",
        Sql::BigInt(_) | Sql::Int8(_) => "int8",
        Sql::Real | Sql::Float4 => "float4",
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float(_) | Sql::Float64 => "float8",
        Sql::Decimal(_) | Sql::Numeric(_) | Sql::Dec(_) => "numeric",
        Sql::Bool | Sql::Boolean => "bool",
        Sql::Varchar(_) | Sql::CharVarying(_) | Sql::CharacterVarying(_) => "varchar",
        other => return Some((other.to_string().split([' ', '(', '[']).next()?.to_lowercase(), Rank::Type)),
    };
    Some((name.to_string(), Rank::Type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Query {
        *Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).unwrap().parse_query().unwrap()
    }

    #[test]
    fn a_column_without_a_name_has_that_of_postgres() {
        for (expr, expected) in [
            ("T.Id", "id"),
            ("id::TEXT", "id"),
            ("CAST(-id AS DOUBLE)", "float8"),
            ("timestamp '2024-01-01'", "timestamp"),
            ("count(*)::int", "count"),
            ("COALESCE(a, 1)", "coalesce"),
            ("-a", "?column?"),
            ("a || 'x'", "?column?"),
            ("CASE WHEN a THEN 1 ELSE b END", "b"),
            ("CASE WHEN a THEN 1 END", "case"),
            ("(SELECT max(n) FROM t)", "max"),
            ("(SELECT 1)", "?column?"),
            ("EXISTS (SELECT 1)", "exists"),
            ("extract(hour FROM ts)", "extract"),
            ("true", "bool"),
            ("interval '1 day'", "interval"),
            ("(a[1])", "a"),
        ] {
            let query = parsed(&format!("SELECT {expr} FROM t"));
            assert_eq!(first_column(&query.body).map_or(UNNAMED.into(), |(name, _)| name), expected, "{expr}");
        }
    }

    #[test]
    fn what_hides_a_key_is_put_apart() {
        for (sql, expected) in [
            (
                "SELECT t.id + 1 AS id, D FROM t ORDER BY t.id LIMIT 1",
                r#"SELECT "id:0" AS "id", "d" AS "d" FROM (SELECT t.id + 1 AS "id:0", D FROM t ORDER BY t.id LIMIT 1) AS "apart""#,
            ),
            ("SELECT t.id AS id FROM t ORDER BY t.id", "SELECT t.id AS id FROM t ORDER BY t.id"),
            ("SELECT -id AS id FROM t ORDER BY id", "SELECT -id AS id FROM t ORDER BY id"),
            ("SELECT *, -id AS id FROM t ORDER BY t.id", "SELECT *, -id AS id FROM t ORDER BY t.id"),
        ] {
            let mut query = parsed(sql);
            put_apart(&mut query).unwrap();
            assert_eq!(query.to_string(), expected);
        }
    }

    #[test]
    fn only_what_datafusion_would_refuse_or_confuse_is_told_apart() {
        for (sql, expected) in [
            ("SELECT 1, 1", r#"SELECT 1 AS "?column?", 1 AS "?column?:1""#),
            ("SELECT id, id::TEXT, T.ID FROM t", r#"SELECT id, id::TEXT AS "id:1", T.ID AS "id:2" FROM t"#),
            ("SELECT id AS x, s AS y FROM t ORDER BY x", "SELECT id AS x, s AS y FROM t ORDER BY x"),
            ("SELECT *, id, s AS x FROM t ORDER BY x", r#"SELECT *, id AS "id:1", s AS "x:2" FROM t ORDER BY "x:2""#),
            ("SELECT a.id, b.id FROM t AS a, t AS b", r#"SELECT a.id, b.id AS "id:1" FROM t AS a, t AS b"#),
            ("SELECT id::TEXT FROM t ORDER BY id", r#"SELECT id::TEXT AS "id" FROM t ORDER BY "id""#),
            ("SELECT id::TEXT FROM t ORDER BY t.id", r#"SELECT id::TEXT AS "id:0" FROM t ORDER BY t.id"#),
            ("SELECT -id AS id FROM t ORDER BY id + 0", r#"SELECT -id AS "id:0" FROM t ORDER BY id + 0"#),
            ("SELECT DISTINCT n + 1 FROM t ORDER BY n + 1", r#"SELECT DISTINCT n + 1 AS "?column?" FROM t ORDER BY "?column?""#),
        ] {
            let mut query = parsed(sql);
            Shown::apart(&mut query).unwrap();
            assert_eq!(query.to_string(), expected);
        }
        let mut twice = parsed("SELECT id, -id AS id FROM t ORDER BY id");
        let error = Shown::apart(&mut twice).err().unwrap();
        assert_eq!(error.message, "ORDER BY \"id\" is ambiguous: two columns have this name");
    }
}
