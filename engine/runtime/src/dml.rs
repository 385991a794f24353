//! INSERT, UPDATE and DELETE on tables: read what they say as queries, then write rows. What else
//! was read goes with them, for others may write in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::util::display::FormatOptions;
use datafusion::sql::sqlparser::ast::{
    self, FromTable, ObjectName, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, TableFactor, TableObject, TableWithJoins,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use tidegate_plan::sql::value_error;
use tidegate_plan::statement::normal;
use tidegate_types::Tick;
use tidegate_types::error::{Error, Mistake, Result, did_you_mean};
use tidegate_types::row::{RowCodec, project_schema};

use crate::coordinator::{Read, Write};
use crate::engine::Engine;
use crate::interface::Response;
use crate::read::{self, STATEMENT_BYTES_MAX, bytes_of, too_much};

/// What to write, and Postgres' tag for it. Errors: also that it is too much for one statement, and so for a record of the
/// log, which one tick's frame must hold as a whole.
pub async fn evaluate(engine: &Engine, statement: &ast::Statement) -> Result<(Write, String)> {
    let (write, tag) = match statement {
        ast::Statement::Insert(insert) => self::insert(engine, insert).await?,
        ast::Statement::Update(update) => self::update(engine, update).await?,
        ast::Statement::Delete(delete) => self::delete(engine, delete).await?,
        other => return Err(Error::unsupported(other, "use INSERT, UPDATE or DELETE")),
    };
    check_bytes(bytes_of(&write.delete) + bytes_of(&write.insert)).map(|()| (write, tag))
}

fn check_bytes(bytes: usize) -> Result<()> {
    if bytes <= STATEMENT_BYTES_MAX { Ok(()) } else { Err(too_much()) }
}

async fn insert(engine: &Engine, insert: &ast::Insert) -> Result<(Write, String)> {
    if insert.on.is_some() || insert.returning.is_some() {
        return Err(Error::unsupported("INSERT with ON CONFLICT or RETURNING", "UPDATE the rows that are there, then INSERT the others"));
    }
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into a function", "insert into a table"));
    };
    let (table, schema) = table(engine, &name.to_string()).await?;
    let Some(source) = &insert.source else {
        return Err(Error::unsupported("INSERT without VALUES or SELECT", "say the rows"));
    };
    let columns = named_columns(&insert.columns, &table, &schema)?;
    let targets: Vec<&DataType> = columns.iter().map(|&i| schema.field(i).data_type()).collect();
    let (rows, tick) = rows_of(engine, &with_digits(source, &targets)?).await?;
    let read = Read { tick, relations: named(source).into_iter().collect() };
    if columns.len() < rows.num_columns() || (rows.num_columns() < columns.len() && !insert.columns.is_empty()) {
        let error = Error::user(format!("INSERT has {} expressions and {} columns", rows.num_columns(), columns.len()));
        return Err(error.hint("give one value for each column").mistake(Mistake::Syntax));
    }
    // Before columns that are not named take theirs, which may be NULL for very many rows.
    check_bytes(bytes_of(&rows) + 8 * rows.num_rows() * schema.fields().len().saturating_sub(rows.num_columns()))?;
    let fitted = schema.fields().iter().enumerate().map(|(column, field)| {
        let position = columns.iter().position(|named| *named == column).filter(|i| *i < rows.num_columns());
        match position {
            Some(i) => fit(rows.column(i), field.data_type(), field.name()),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    });
    let insert = batch(&schema, fitted.collect::<Result<_>>()?)?;
    let tag = format!("INSERT 0 {}", insert.num_rows());
    Ok((Write { table, delete: RecordBatch::new_empty(schema), insert, read: Some(read) }, tag))
}

/// The places of an INSERT's columns in the table: those it names, or all.
fn named_columns(names: &[ObjectName], table: &str, schema: &Schema) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let (column, _) = column(name, table, schema)?;
        if columns.contains(&column) {
            let error = Error::user(format!("column \"{}\" is named twice", schema.field(column).name())).hint("name each column once");
            return Err(error.mistake(Mistake::DuplicateColumn));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// The column of this name, and its place.
fn column<'a>(name: &ObjectName, table: &str, schema: &'a Schema) -> Result<(usize, &'a Field)> {
    let name = name.0.last().and_then(|part| part.as_ident()).map(normal).unwrap_or_default();
    schema.column_with_name(&name).ok_or_else(|| {
        let error = Error::user(format!("column \"{name}\" does not exist in table \"{table}\"")).mistake(Mistake::NoColumn);
        match did_you_mean(&name, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint(format!("SHOW TABLES tells what \"{table}\" has")),
        }
    })
}

/// The rows to insert, with their numbers as they are written. `targets`: the types of the columns they are for.
fn with_digits(source: &Query, targets: &[&DataType]) -> Result<Query> {
    let mut source = source.clone();
    keep_digits(&mut source.body, targets)?;
    Ok(source)
}

fn keep_digits(rows: &mut SetExpr, targets: &[&DataType]) -> Result<()> {
    match rows {
        SetExpr::Values(values) => {
            let cells = values.rows.iter_mut().flat_map(|row| row.content.iter_mut().zip(targets));
            cells.into_iter().try_for_each(|(value, target)| assign(value, target))
        }
        SetExpr::Select(select) => {
            let items = select.projection.iter_mut().map_while(|item| match item {
                SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => Some(value),
                _ => None,
            });
            items.zip(targets).try_for_each(|(value, target)| assign(value, target))
        }
        SetExpr::Query(query) => keep_digits(&mut query.body, targets),
        SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, right } => {
            keep_digits(left, targets)?;
            keep_digits(right, targets)
        }
        _ => Ok(()),
    }
}

/// A number with a point that is for a DECIMAL or an integer keeps its digits until it is rounded.
///
/// Errors: the value is DEFAULT.
fn assign(value: &mut ast::Expr, target: &DataType) -> Result<()> {
    if matches!(value, ast::Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default")) {
        return Err(Error::unsupported("DEFAULT", "no column has one: leave the column out, or write NULL"));
    }
    let scale = match target {
        DataType::Decimal128(_, scale) => i64::from(*scale),
        integer if integer.is_integer() => 0,
        _ => return Ok(()),
    };
    if is_number(value) && has_point(value) {
        *value = ast::Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(value.clone()),
            data_type: ast::DataType::Decimal(ast::ExactNumberInfo::PrecisionAndScale(38, scale)),
            array: false,
            format: None,
        };
    }
    Ok(())
}

/// A constant of numbers as they are written.
fn is_number(value: &ast::Expr) -> bool {
    use ast::BinaryOperator::{Minus, Multiply, Plus};
    match value {
        ast::Expr::Value(value) => matches!(value.value, ast::Value::Number(..)),
        ast::Expr::Nested(inner) => is_number(inner),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus | ast::UnaryOperator::Plus, expr } => is_number(expr),
        ast::Expr::BinaryOp { left, op: Plus | Minus | Multiply, right } => is_number(left) && is_number(right),
        _ => false,
    }
}

/// Whether one of its numbers is no integer, or too large for one.
fn has_point(number: &ast::Expr) -> bool {
    let pointed = |expr: &ast::Expr| match expr {
        ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(text, _), .. }) if text.parse::<i64>().is_err() => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    ast::visit_expressions(number, pointed).is_break()
}

async fn update(engine: &Engine, update: &ast::Update) -> Result<(Write, String)> {
    if update.from.is_some() || update.returning.is_some() {
        return Err(Error::unsupported("UPDATE with FROM or RETURNING", "use a subquery in SET or WHERE"));
    }
    refuse_order(&update.order_by, update.limit.as_ref())?;
    let name = plain_table(&update.table)?;
    let (table, schema) = table(engine, &name).await?;
    let mut news: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    for assignment in &update.assignments {
        let ast::AssignmentTarget::ColumnName(target) = &assignment.target else {
            return Err(Error::unsupported("UPDATE of several columns at once", "assign them one by one"));
        };
        let (i, field) = column(target, &table, &schema)?;
        let mut value = assignment.value.clone();
        assign(&mut value, field.data_type())?;
        news[i] = format!("({value})");
    }
    let width = schema.fields().len();
    let olds: Vec<String> = schema.fields().iter().enumerate().map(|(i, field)| format!("{} AS old_{i}", quoted(field.name()))).collect();
    let news: Vec<String> = news.iter().enumerate().map(|(i, expr)| format!("{expr} AS new_{i}")).collect();
    let condition = update.selection.as_ref().map(|selection| format!(" WHERE {selection}")).unwrap_or_default();
    let sql = format!("SELECT {}, {} FROM {}{condition}", olds.join(", "), news.join(", "), update.table);
    let (rows, read) = rows_where(engine, &*reparsed(&sql)?, &table, &schema, update.selection.as_ref()).await?;
    let delete = batch(&schema, rows.columns()[..width].to_vec())?;
    let fitted = schema.fields().iter().enumerate().map(|(i, field)| fit(rows.column(width + i), field.data_type(), field.name()));
    let insert = batch(&schema, fitted.collect::<Result<_>>()?)?;
    let tag = format!("UPDATE {}", insert.num_rows());
    Ok((Write { table, delete, insert, read: Some(read) }, tag))
}

async fn delete(engine: &Engine, delete: &ast::Delete) -> Result<(Write, String)> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [from] = &from[..] else {
        return Err(Error::unsupported("DELETE from several tables", "delete from one at a time"));
    };
    refuse_order(&delete.order_by, delete.limit.as_ref())?;
    if delete.using.is_some() || delete.returning.is_some() {
        return Err(Error::unsupported("DELETE with USING or RETURNING", "use a subquery in WHERE"));
    }
    let (table, schema) = table(engine, &plain_table(from)?).await?;
    let columns: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let condition = delete.selection.as_ref().map(|selection| format!(" WHERE {selection}")).unwrap_or_default();
    let query = reparsed(&format!("SELECT {} FROM {from}{condition}", columns.join(", ")))?;
    let (rows, read) = rows_where(engine, &query, &table, &schema, delete.selection.as_ref()).await?;
    let gone = batch(&schema, rows.columns().to_vec())?;
    let tag = format!("DELETE {}", gone.num_rows());
    Ok((Write { table, delete: gone, insert: RecordBatch::new_empty(schema), read: Some(read) }, tag))
}

fn refuse_order(order: &[ast::OrderByExpr], limit: Option<&ast::Expr>) -> Result<()> {
    if order.is_empty() && limit.is_none() {
        return Ok(());
    }
    Err(Error::unsupported("a change with ORDER BY or LIMIT", "say in WHERE which rows are meant"))
}

fn plain_table(table: &TableWithJoins) -> Result<String> {
    match &table.relation {
        TableFactor::Table { name, .. } if table.joins.is_empty() => Ok(name.to_string()),
        other => Err(Error::unsupported(format!("a change to {other}"), "change one table at a time")),
    }
}

async fn table(engine: &Engine, name: &str) -> Result<(String, SchemaRef)> {
    let wanted = name.trim_matches('"').to_string();
    let wanted = if name.starts_with('"') { wanted } else { wanted.to_lowercase() };
    let relations = engine.relations();
    match relations.iter().find(|relation| relation.name == wanted) {
        Some(relation) if relation.kind == "table" => Ok((wanted, Arc::clone(&relation.schema))),
        Some(relation) => {
            let error = Error::user(format!("{} \"{wanted}\" cannot be written", relation.kind));
            Err(error.hint("only tables can: CREATE TABLE").mistake(Mistake::WrongRelation))
        }
        None => {
            let error = Error::user(format!("table \"{wanted}\" does not exist")).mistake(Mistake::NoRelation);
            Err(match did_you_mean(&wanted, relations.iter().map(|relation| relation.name.as_str())) {
                Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                None => error.hint("create it first: CREATE TABLE"),
            })
        }
    }
}

/// A query over a table with this WHERE. Where its first columns are to equal literals, only those
/// rows are fetched; the whole condition is evaluated over them all the same.
async fn rows_where(
    engine: &Engine,
    query: &Query,
    table: &str,
    schema: &SchemaRef,
    condition: Option<&ast::Expr>,
) -> Result<(RecordBatch, Read)> {
    if let Some(prefix) = condition.filter(|_| !has_subquery(query)).and_then(|condition| prefix(schema, condition)) {
        let (rows, tick) = rows(read::query_narrowed(engine, query, table, prefix).await?)?;
        return Ok((rows, Read { tick, relations: BTreeSet::new() }));
    }
    let (rows, tick) = rows_of(engine, query).await?;
    Ok((rows, Read { tick, relations: read_besides(query, table) }))
}

/// What a query over a table reads in its subqueries. Its rows of the table itself are taken, and
/// so whether they are still there is seen by that.
fn read_besides(query: &Query, table: &str) -> BTreeSet<String> {
    let mut names = named(query);
    if let Some(itself) = names.iter().position(|name| name == table) {
        names.swap_remove(itself);
    }
    names.into_iter().collect()
}

/// Each relation that a query names, as often as it does; its own CTEs among them, which does no harm.
fn named(query: &Query) -> Vec<String> {
    let mut names = Vec::new();
    let _: ControlFlow<()> = ast::visit_relations(query, |name| {
        names.extend(name.0.last().and_then(|part| part.as_ident()).map(normal));
        ControlFlow::Continue(())
    });
    names
}

fn has_subquery(query: &Query) -> bool {
    let found = ast::visit_expressions(query, |expr| match expr {
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The encoded values of the first columns, as far as the condition's conjuncts fix them.
fn prefix(schema: &SchemaRef, condition: &ast::Expr) -> Option<Vec<u8>> {
    let mut fixed = BTreeMap::new();
    fixed_columns(condition, &mut fixed);
    let value = |field: &Arc<Field>| {
        let (text, is_number) = fixed.get(field.name())?;
        let fits = if *is_number { field.data_type().is_integer() } else { *field.data_type() == DataType::Utf8 };
        cast(&StringArray::from(vec![text.as_str()]), field.data_type()).ok().filter(|value| fits && value.is_valid(0))
    };
    let values: Vec<ArrayRef> = schema.fields().iter().map_while(value).collect();
    if values.is_empty() {
        return None;
    }
    let columns: Vec<usize> = (0..values.len()).collect();
    let codec = RowCodec::new(project_schema(schema, &columns)).ok()?;
    Some(codec.encode_columns(&values, 1).ok()?.row(0).to_vec())
}

/// Columns that are to equal a literal, with its text and whether it is a number.
fn fixed_columns(condition: &ast::Expr, fixed: &mut BTreeMap<String, (String, bool)>) {
    match condition {
        ast::Expr::Nested(inner) => fixed_columns(inner, fixed),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            fixed_columns(left, fixed);
            fixed_columns(right, fixed);
        }
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } => {
            if let (ast::Expr::Identifier(column), ast::Expr::Value(value)) = (left.as_ref(), right.as_ref()) {
                let literal = match &value.value {
                    ast::Value::Number(text, _) => Some((text.clone(), true)),
                    ast::Value::SingleQuotedString(text) => Some((text.clone(), false)),
                    _ => None,
                };
                fixed.extend(literal.map(|literal| (normal(column), literal)));
            }
        }
        _ => {}
    }
}

async fn rows_of(engine: &Engine, query: &Query) -> Result<(RecordBatch, Tick)> {
    rows(read::query(engine, query).await?)
}

/// The rows, and the tick they are of.
fn rows(response: Response) -> Result<(RecordBatch, Tick)> {
    match response {
        Response::Rows { tick: Some(tick), batches, schema, .. } => {
            concat_batches(&schema, &batches).map(|rows| (rows, tick)).map_err(|error| Error::engine(error.to_string()))
        }
        Response::Rows { tick: None, .. } => Err(Error::engine("a query over relations answered rows of no tick")),
        Response::Done { tag, .. } => Err(Error::engine(format!("a query answered {tag}"))),
    }
}

fn reparsed(sql: &str) -> Result<Box<Query>> {
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).and_then(|mut parser| parser.parse_query());
    parsed.map_err(|error| Error::engine(format!("{sql} does not parse: {error}")))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As Postgres assigns: a number with a point is rounded to an integer, not cut off.
fn fit(column: &ArrayRef, data_type: &DataType, name: &str) -> Result<ArrayRef> {
    let column = &match column.data_type() {
        DataType::Float64 if data_type.is_integer() => {
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)) as ArrayRef
        }
        _ => Arc::clone(column),
    };
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(column, data_type, &options).map_err(|error| {
        let error = value_error(&error);
        Error { message: format!("column \"{name}\" is {data_type}: {}", error.message), ..error }
    })
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let mut filled = columns.iter().zip(schema.fields());
    if let Some((_, field)) = filled.find(|(column, field)| !field.is_nullable() && 0 < column.null_count()) {
        let error = Error::user(format!("NULL in a NOT NULL column: {}", field.name()));
        return Err(error.hint("give it a value in every row").mistake(Mistake::Null));
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| Error::engine(error.to_string()))
}

#[cfg(test)]
mod tests {
    use tidegate_types::error::Fault;

    use super::*;

    #[test]
    fn a_write_that_is_too_large_is_refused() {
        check_bytes(STATEMENT_BYTES_MAX).unwrap();
        let error = check_bytes(STATEMENT_BYTES_MAX + 1).unwrap_err();
        assert_eq!(error.fault, Fault::TooMuch);
        assert!(error.message.contains("256 MiB") && error.hint.is_some_and(|hint| hint.contains("several statements")));
    }

    #[test]
    fn what_a_statement_reads_besides_the_rows_it_takes() {
        let cases: [(&str, &[&str]); 8] = [
            ("SELECT a FROM t", &[]),
            ("SELECT a FROM T WHERE a = 1", &[]),
            ("SELECT a, (SELECT max(b) FROM u) FROM t", &["u"]),
            ("SELECT a FROM t WHERE a IN (SELECT b FROM u JOIN w ON true)", &["u", "w"]),
            // The rows it takes are one thing, what a subquery makes of all rows another.
            ("SELECT a FROM t WHERE a = (SELECT max(a) FROM t)", &["t"]),
            ("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM \"U\", public.v)", &["U", "v"]),
            ("SELECT a FROM t WHERE a IN (WITH c AS (SELECT b FROM u) SELECT b FROM c)", &["c", "u"]),
            ("SELECT a FROM t WHERE a IN (SELECT b FROM u UNION SELECT b FROM w)", &["u", "w"]),
        ];
        for (sql, expected) in cases {
            let query = reparsed(sql).unwrap();
            assert_eq!(read_besides(&query, "t"), expected.iter().map(|name| name.to_string()).collect(), "{sql}");
        }
        assert_eq!(named(&reparsed("SELECT a FROM t UNION ALL SELECT b FROM t").unwrap()), ["t", "t"]);
        assert!(named(&reparsed("VALUES (1), (2)").unwrap()).is_empty());
    }
}
