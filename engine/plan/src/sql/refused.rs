//! What is refused as it is written: DataFusion would plan it as something else, or say nothing of use.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, JoinConstraint, JoinOperator, LimitClause, OrderBy, OrderByKind, Query, SetExpr, TableFactor, TableWithJoins,
    UnaryOperator, Visit, Visitor,
};
use tidegate_types::error::{Error, Result};

use super::wording::below_zero;

/// Errors: what is not supported, by its name, and a way out.
pub(super) fn refused(query: &Query) -> Result<()> {
    match query.visit(&mut Refuse) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Refuse;

impl Visitor for Refuse {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        if let Some(lock) = query.locks.first() {
            return refuse(format!("FOR {}", lock.lock_type), "leave it out: a read sees one closed tick");
        }
        let by_rank = "filter by rank() OVER (ORDER BY …) in a query around it";
        if query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties || fetch.percent) {
            return refuse("FETCH … WITH TIES or PERCENT", by_rank);
        }
        for (word, count) in limits(query) {
            negative(word, count)?;
        }
        let by_number = "join with it, and filter by row_number() OVER (ORDER BY …)";
        if limits(query).iter().any(|(_, count)| has_subquery(count)) {
            return refuse("a subquery in LIMIT or OFFSET", by_number);
        }
        if limits(query).iter().any(|(_, count)| matches!(count, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))) {
            return refuse("a column in LIMIT or OFFSET", by_number);
        }
        if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &query.order_by
            && keys.iter().any(|key| has_subquery(&key.expr))
        {
            return refuse("a subquery in ORDER BY", "make it a column of a query in FROM, and order by that");
        }
        joins(&query.body)
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Error> {
        if select.into.is_some() {
            return refuse("SELECT INTO", "CREATE TABLE, then INSERT INTO it what the SELECT says");
        }
        if let ast::GroupByExpr::Expressions(keys, _) = &select.group_by
            && matches!(&keys[..], [ast::Expr::Tuple(columns)] if columns.is_empty())
        {
            return refuse("GROUP BY ()", "leave it out: without GROUP BY, an aggregate is over all rows");
        }
        if select.projection.iter().any(|item| matches!(item, ast::SelectItem::Wildcard(_))) && select.from.iter().any(is_natural_left) {
            return refuse("SELECT * over NATURAL LEFT JOIN", "name the columns, or write LEFT JOIN … USING (k)");
        }
        select.named_window.iter().try_for_each(|ast::NamedWindowDefinition(_, window)| match window {
            ast::NamedWindowExpr::WindowSpec(spec) => window_specification(spec),
            ast::NamedWindowExpr::NamedWindow(_) => ControlFlow::Continue(()),
        })
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
        match expr {
            ast::Expr::SimilarTo { .. } => refuse("SIMILAR TO", "write s ~ '^(a|b)$'"),
            ast::Expr::Like { escape_char: Some(_), .. } | ast::Expr::ILike { escape_char: Some(_), .. } => {
                refuse("LIKE … ESCAPE", "the backslash escapes, as in s LIKE '5\\%'; or write s ~ '5%'")
            }
            ast::Expr::Interval(ast::Interval { last_field: Some(_), .. }) => {
                refuse("INTERVAL of one unit TO another", "name the units: INTERVAL '1 year 2 months'")
            }
            ast::Expr::CompoundFieldAccess { root, access_chain } => field_in_brackets(root, access_chain),
            ast::Expr::Collate { .. } => refuse("COLLATE", "leave it out: text is compared by its bytes; lower(s) compares without case"),
            ast::Expr::InSubquery { expr, .. } if matches!(expr.as_ref(), ast::Expr::Tuple(_)) => {
                refuse("several columns before IN (subquery)", "use EXISTS (SELECT 1 FROM … WHERE x = a AND y = b)")
            }
            ast::Expr::Function(ast::Function { args: ast::FunctionArguments::Subquery(_), .. }) => {
                refuse("ARRAY(subquery)", "write (SELECT array_agg(x) FROM …)")
            }
            ast::Expr::UnaryOp { op, .. } if !is_planned_before(*op) => refuse(format!("operator \"{op}\""), instead_before(*op)),
            ast::Expr::BinaryOp { op, .. } if !is_planned_between(op) => refuse(format!("operator \"{op}\""), instead_between(op)),
            ast::Expr::Function(ast::Function { over: Some(ast::WindowType::WindowSpec(spec)), .. }) => window_specification(spec),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<Error> {
        match relation {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                refuse("TABLESAMPLE", "filter by a hash or a remainder of a column")
            }
            TableFactor::Table { with_ordinality: true, .. }
            | TableFactor::Function { with_ordinality: true, .. }
            | TableFactor::UNNEST { with_ordinality: true, .. } => {
                refuse("WITH ORDINALITY", "number the elements first: FROM t, UNNEST(range(1, cardinality(l) + 1)) AS u(i), and take l[i]")
            }
            TableFactor::Pivot { .. } => {
                refuse("PIVOT", "aggregate each value by itself: SELECT k, sum(x) FILTER (WHERE s = 'a') AS a, … FROM t GROUP BY k")
            }
            TableFactor::Unpivot { .. } => {
                refuse("UNPIVOT", "write SELECT k, 'a' AS name, a AS value FROM t UNION ALL SELECT k, 'b', b FROM t …")
            }
            TableFactor::MatchRecognize { .. } => refuse("MATCH_RECOGNIZE", "compare rows with lag() OVER (PARTITION BY … ORDER BY …)"),
            TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => {
                refuse("JSON_TABLE", "declare the columns of a source: its format 'json' reads them")
            }
            TableFactor::XmlTable { .. } => refuse("XMLTABLE", "send rows as JSON, CSV or text"),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// `(t).id`
fn field_in_brackets(root: &ast::Expr, access_chain: &[ast::AccessExpr]) -> ControlFlow<Error> {
    match root {
        ast::Expr::Nested(root) if matches!(access_chain.first(), Some(ast::AccessExpr::Dot(_))) => {
            refuse(format!("a field of \"{root}\" in brackets"), "write t.id for column id of t")
        }
        _ => ControlFlow::Continue(()),
    }
}

fn refuse(what: impl std::fmt::Display, hint: &str) -> ControlFlow<Error> {
    ControlFlow::Break(Error::unsupported(what.to_string(), hint))
}

/// What LIMIT and OFFSET say, each with its name.
fn limits(query: &Query) -> Vec<(&'static str, &ast::Expr)> {
    match &query.limit_clause {
        None => Vec::new(),
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            let offset = offset.iter().map(|offset| ("OFFSET", &offset.value));
            limit.iter().map(|limit| ("LIMIT", limit)).chain(offset).collect()
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => vec![("OFFSET", offset), ("LIMIT", limit)],
    }
}

fn negative(word: &'static str, count: &ast::Expr) -> ControlFlow<Error> {
    match count {
        ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr } if matches!(expr.as_ref(), ast::Expr::Value(_)) => {
            ControlFlow::Break(below_zero(word, &count.to_string()))
        }
        _ => ControlFlow::Continue(()),
    }
}

fn is_planned_before(op: UnaryOperator) -> bool {
    matches!(op, UnaryOperator::Not | UnaryOperator::Plus | UnaryOperator::Minus)
}

fn instead_before(op: UnaryOperator) -> &'static str {
    match op {
        UnaryOperator::BitwiseNot => "write -1 - x",
        UnaryOperator::BangNot => "write NOT x",
        UnaryOperator::PGAbs => "write abs(x)",
        UnaryOperator::PGSquareRoot => "write sqrt(x)",
        UnaryOperator::PGCubeRoot => "write cbrt(x)",
        UnaryOperator::PGPrefixFactorial | UnaryOperator::PGPostfixFactorial => "write factorial(x)",
        _ => FUNCTION_INSTEAD,
    }
}

const FUNCTION_INSTEAD: &str = "write what it means with functions and the operators of numbers, texts, times and lists";

/// What DataFusion makes an operator of that can be computed.
fn is_planned_between(op: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    matches!(
        op,
        Plus | Minus
            | Multiply
            | Divide
            | Modulo
            | StringConcat
            | PGExp
            | Xor
            | BitwiseXor
            | Gt
            | Lt
            | GtEq
            | LtEq
            | Eq
            | NotEq
            | Spaceship
            | And
            | Or
            | BitwiseOr
            | BitwiseAnd
            | PGBitwiseXor
            | PGBitwiseShiftLeft
            | PGBitwiseShiftRight
            | PGRegexMatch
            | PGRegexIMatch
            | PGRegexNotMatch
            | PGRegexNotIMatch
            | PGLikeMatch
            | PGILikeMatch
            | PGNotLikeMatch
            | PGNotILikeMatch
            | ArrowAt
            | AtArrow
    )
}

fn instead_between(op: &BinaryOperator) -> &'static str {
    use BinaryOperator::*;
    match op {
        Arrow | LongArrow | HashArrow | HashLongArrow | HashMinus | AtQuestion | AtAt | Question | QuestionAnd | QuestionPipe => {
            "there is no JSON within SQL: declare the fields as columns of the source"
        }
        PGOverlap => "write array_has_any(a, b)",
        PGStartsWith => "write starts_with(a, b)",
        LtDashGt => "write abs(a - b)",
        Overlaps => "compare the ends: a.starts < b.ends AND b.starts < a.ends",
        _ => FUNCTION_INSTEAD,
    }
}

fn has_subquery(expr: &ast::Expr) -> bool {
    let is_query = |expr: &ast::Expr| match expr {
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    ast::visit_expressions(expr, is_query).is_break()
}

/// DataFusion forgets the PARTITION BY of the window that another one extends.
fn window_specification(spec: &ast::WindowSpec) -> ControlFlow<Error> {
    match &spec.window_name {
        None => ControlFlow::Continue(()),
        Some(name) => refuse(format!("a window that extends window {name}"), "write it out: OVER (PARTITION BY … ORDER BY …)"),
    }
}

fn joins(body: &SetExpr) -> ControlFlow<Error> {
    match body {
        SetExpr::Select(select) => select.from.iter().try_for_each(joins_in),
        SetExpr::SetOperation { left, right, .. } => {
            joins(left)?;
            joins(right)
        }
        _ => ControlFlow::Continue(()),
    }
}

fn joins_in(from: &TableWithJoins) -> ControlFlow<Error> {
    for relation in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
        if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
            joins_in(table_with_joins)?;
        }
    }
    from.joins.iter().try_for_each(|join| match &join.join_operator {
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => one_column("RIGHT", constraint),
        JoinOperator::FullOuter(constraint) => one_column("FULL", constraint),
        _ => ControlFlow::Continue(()),
    })
}

/// DataFusion's `*` takes either side's column there, by the relations' names.
fn is_natural_left(from: &TableWithJoins) -> bool {
    let left = |join: &ast::Join| {
        matches!(join.join_operator, JoinOperator::Left(JoinConstraint::Natural) | JoinOperator::LeftOuter(JoinConstraint::Natural))
    };
    from.joins.iter().any(left)
}

/// In RIGHT and FULL JOIN USING the column is that of either side; DataFusion takes the left one.
fn one_column(kind: &str, constraint: &JoinConstraint) -> ControlFlow<Error> {
    let how = match constraint {
        JoinConstraint::Using(_) => format!("{kind} JOIN USING"),
        JoinConstraint::Natural => format!("NATURAL {kind} JOIN"),
        JoinConstraint::On(_) | JoinConstraint::None => return ControlFlow::Continue(()),
    };
    refuse(how, "write ON l.k = r.k, and coalesce(l.k, r.k) AS k")
}
