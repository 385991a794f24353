//! Text to statements, each with its place. So has every error.

use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{self, Query};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use tidegate_types::connector::{Decision, Options};
use tidegate_types::error::{Error, Mistake, Result};

use self::parser::One;
pub(crate) use self::types::{TYPES, arrow_type, type_instead};
use crate::load;
use crate::place::pointed;

mod instead;
mod parser;
mod types;

/// Text longer than this is refused before it is read.
pub const SQL_BYTES_MAX: usize = 1 << 20;

/// A statement and where it begins.
pub struct Placed {
    pub statement: Statement,
    pub file: String,
    pub line: u64,
    pub column: u64,
    /// Its words, to find names in when planning fails.
    pub tokens: Vec<TokenWithSpan>,
    pub text: String,
}

impl Placed {
    /// What it says, however it is laid out.
    pub fn words(&self) -> String {
        self.tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The error at what it names.
    pub fn pointed(&self, error: Error) -> Error {
        pointed(error, &self.tokens, &self.file)
    }
}

pub enum Statement {
    CreateSource {
        name: String,
        replace: bool,
        schema: SchemaRef,
        watermark: Option<(String, i64)>,
        options: Options,
    },
    CreateTable {
        name: String,
        replace: bool,
        schema: SchemaRef,
        key: Vec<String>,
    },
    CreateView {
        name: String,
        replace: bool,
        query: Box<Query>,
    },
    /// A materialized view, or with `detection` a detection.
    CreateKept {
        name: String,
        replace: bool,
        detection: bool,
        options: Options,
        query: Box<Query>,
    },
    CreateSink {
        name: String,
        replace: bool,
        from: String,
        options: Options,
    },
    CreateAction {
        name: String,
        replace: bool,
        from: String,
        options: Options,
    },
    Drop {
        kind: String,
        name: String,
        if_exists: bool,
    },
    /// A snapshot of all state, now.
    Checkpoint,
    /// A person's word about the action's request of a finding.
    Decide {
        id: String,
        decision: Decision,
    },
    Insert(Box<ast::Statement>),
    Update(Box<ast::Statement>),
    Delete(Box<ast::Statement>),
    Show {
        what: String,
    },
    Explain {
        query: Box<Query>,
    },
    ExplainNamed {
        name: String,
    },
    /// What a new definition of a kept view would add to its rows and take from them.
    ExplainReplace {
        name: String,
        query: Box<Query>,
    },
    Query(Box<Query>),
}

impl Statement {
    /// The name of what it makes, or (true) drops.
    pub fn object(&self) -> Option<(&str, bool)> {
        match self {
            Self::CreateSource { name, .. }
            | Self::CreateTable { name, .. }
            | Self::CreateView { name, .. }
            | Self::CreateKept { name, .. }
            | Self::CreateSink { name, .. }
            | Self::CreateAction { name, .. } => Some((name, false)),
            Self::Drop { name, .. } => Some((name, true)),
            _ => None,
        }
    }

    /// Whether it may come in the place of another.
    pub fn replaces(&self) -> bool {
        match self {
            Self::CreateSource { replace, .. }
            | Self::CreateTable { replace, .. }
            | Self::CreateView { replace, .. }
            | Self::CreateKept { replace, .. }
            | Self::CreateSink { replace, .. }
            | Self::CreateAction { replace, .. } => *replace,
            _ => false,
        }
    }

    /// From now on it is CREATE OR REPLACE.
    pub fn replace(&mut self) {
        match self {
            Self::CreateSource { replace, .. }
            | Self::CreateTable { replace, .. }
            | Self::CreateView { replace, .. }
            | Self::CreateKept { replace, .. }
            | Self::CreateSink { replace, .. }
            | Self::CreateAction { replace, .. } => *replace = true,
            _ => {}
        }
    }
}

/// The statements of `text`, in order.
pub fn parse(text: &str, file: &str) -> Result<Vec<Placed>> {
    check_bytes(text, "split it into several files or requests").map_err(|error| error.at(file, 0, 0))?;
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text)
        .with_unescape(true)
        .tokenize_with_location()
        .map_err(|error| syntax(error.message.to_lowercase()).at(file, error.location.line, error.location.column))?;
    let mut statements = Vec::new();
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        let words = || tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let Some(first) = words().next() else { continue };
        let start = first.span.start;
        let tokens: Vec<TokenWithSpan> = words().cloned().collect();
        load::check(&tokens).map_err(|error| error.at(file, start.line, start.column))?;
        let end = tokens.last().map(|token| token.span.end).unwrap_or(start);
        let statement = One::new(&tokens, file, &dialect).parse()?;
        let text = slice(text, start, end);
        statements.push(Placed { statement, file: file.into(), line: start.line, column: start.column, tokens, text });
    }
    Ok(statements)
}

fn syntax(message: String) -> Error {
    Error::user(message).mistake(Mistake::Syntax)
}

/// Errors: `text` is too large for the parsers of others, by its bytes or by its words.
pub fn check_text(text: &str) -> Result<()> {
    check_bytes(text, "put long lists into a table and join it")?;
    // What has no words is refused by whoever parses it.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() else { return Ok(()) };
    let words: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    load::check(&words)
}

fn check_bytes(text: &str, way_out: &str) -> Result<()> {
    match text.len() <= SQL_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::too_much(format!("{} bytes of SQL are more than the {SQL_BYTES_MAX} allowed", text.len())).hint(way_out)),
    }
}

/// From `start` up to `end`, which count lines and characters from 1.
fn slice(text: &str, start: Location, end: Location) -> String {
    let at = |place: Location| {
        let line: usize = text.split_inclusive('\n').take(place.line as usize - 1).map(str::len).sum();
        let within = text[line..].char_indices().nth(place.column as usize - 1).map_or(text.len() - line, |(at, _)| at);
        line + within
    };
    text[at(start)..at(end)].to_string()
}

/// Postgres folds unquoted names to lower case.
pub fn normal(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Statement> {
        parse(text, "t.sql").map(|mut statements| statements.remove(0).statement)
    }

    fn message(text: &str) -> String {
        match parse(text, "t.sql") {
            Ok(_) => "accepted".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_source_has_columns_a_watermark_and_options() {
        let text = "CREATE SOURCE s (a TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '30 seconds') WITH (connector = 'file', header.x = 'y')";
        let Ok(Statement::CreateSource { name, schema, watermark, options, .. }) = one(text) else { panic!("{}", message(text)) };
        assert_eq!(name, "s");
        assert_eq!(schema.fields().len(), 2);
        assert_eq!(watermark, Some(("ts".into(), 30_000)));
        assert_eq!(options.get("header.x").map(String::as_str), Some("y"));
    }

    #[test]
    fn errors_have_places_and_ways_out() {
        assert_eq!(message("CREATE SORCE s (a TEXT)"), "t.sql:1:8: CREATE SORCE is not supported\nhint: did you mean CREATE SOURCE?");
        assert!(message("\nCREATE SOURCE s (ts TEXT, WATERMARK FOR ts AS ts)").contains("needs a TIMESTAMP column"));
        assert!(message("SELECT 1 FROM t WHERE )").starts_with("t.sql:1:23: "));
    }

    #[test]
    fn what_is_wrong_in_a_declaration_is_told_where_it_stands() {
        for (text, told) in [
            ("CREATE TABLE t (a INT, A TEXT)", "t.sql:1:24: column \"a\" is declared twice\nhint: leave one out, or name it otherwise"),
            (
                "CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)",
                "t.sql:1:36: the primary key is declared twice\nhint: a table has one",
            ),
            ("CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))", "t.sql:1:36: the primary key is declared twice\nhint: a table has one"),
            ("CREATE TABLE t (a INT, PRIMARY KEY (a, a))", "t.sql:1:40: column \"a\" is in the primary key twice\nhint: leave one out"),
            ("CREATE TABLE t (a INT, PRIMARY KEY (b))", "t.sql:1:37: the primary key's column \"b\" is not a column of the table\nhint: "),
            ("CREATE TABLE t (PRIMARY KEY (a))", "t.sql:1:33: a relation needs at least one column\nhint: declare one"),
            (
                "CREATE SOURCE s (a TIMESTAMP, WATERMARK FOR a, WATERMARK FOR a AS a)",
                "t.sql:1:48: a watermark is declared twice\nhint: leave one out",
            ),
            ("CREATE SOURCE s (ats TIMESTAMP, WATERMARK FOR ts) WITH (a = 1)", "t.sql:1:47: the watermark's column \"ts\" is not"),
            ("CREATE SOURCE s (a TIMESTAMP, WATERMARK FOR a AS b)", "t.sql:1:50: the watermark of \"a\" must lag it"),
            (
                "CREATE SINK k FROM v WITH (a = 1, b = c)",
                "t.sql:1:39: option \"b\" has the value c, which is no literal\nhint: write b = '…'",
            ),
            ("CREATE SINK k FROM v WITH (a = 1, a = 2)", "t.sql:1:35: option \"a\" is given twice\nhint: leave one out"),
            ("DROP INDEX i", "t.sql:1:6: DROP INDEX is not supported\nhint: there are DROP SOURCE"),
            ("DROP TABLE x.y.z", "t.sql:1:12: x.y.z names a schema"),
            ("APPROVE 'x'", "t.sql:1:9: expected ACTION after APPROVE\nhint: write APPROVE ACTION 'id'"),
            ("RESOLVE ACTION 'x' AS NOT GONE", "t.sql:1:27: expected DONE or NOT DONE, found GONE\nhint: write RESOLVE"),
        ] {
            assert!(message(text).starts_with(told), "{text}: {}", message(text));
        }
    }

    #[test]
    fn what_another_sql_would_take_is_refused_by_name_at_its_place() {
        for (text, start) in [
            ("CREATE TABLE t (a INT NOT NULL DEFAULT 0)", "t.sql:1:32: DEFAULT 0 on column \"a\" is not supported\nhint: INSERT"),
            ("CREATE TABLE t (a INT CHECK (a > 0))", "t.sql:1:23: CHECK (a > 0) on column \"a\" is not supported\nhint: filter"),
            ("CREATE TABLE t (a INT REFERENCES u (a))", "t.sql:1:23: REFERENCES u (a) on column \"a\" is not supported\nhint: a view"),
            ("CREATE TABLE t (a INT UNIQUE)", "t.sql:1:23: UNIQUE on column \"a\" is not supported\nhint: a table has one key"),
            ("CREATE TABLE t (a INT, UNIQUE (a))", "t.sql:1:24: UNIQUE is not supported"),
            ("CREATE TABLE t (a INT, CONSTRAINT k PRIMARY KEY (a))", "t.sql:1:24: a CONSTRAINT with a name is not supported"),
            (
                "CREATE TABLE t (a DECIMAL(50, 2))",
                "t.sql:1:19: type DECIMAL(50,2) of column \"a\" is not supported\nhint: a DECIMAL has 1 to 38",
            ),
            ("CREATE TABLE t (a NUMERIC)", "t.sql:1:19: type NUMERIC of column \"a\" is not supported\nhint: say how many"),
            ("CREATE TABLE IF NOT EXISTS t (a INT)", "t.sql:1:14: CREATE … IF NOT EXISTS is not supported"),
            ("CREATE TABLE t AS SELECT 1", "t.sql:1:16: CREATE TABLE … AS is not supported"),
            ("CREATE TABLE t (a INT) WITH (b = 1)", "t.sql:1:24: WITH (…) behind the statement is not supported"),
            ("CREATE VIEW v (a) AS SELECT 1", "t.sql:1:15: a list of columns behind a view's name is not supported"),
            ("DROP TABLE t CASCADE", "t.sql:1:14: DROP … CASCADE is not supported\nhint: drop first"),
            ("MERGE INTO t", "t.sql:1:1: MERGE is not supported\nhint: UPDATE"),
            ("EXPLAIN ANALYZE SELECT 1", "t.sql:1:9: EXPLAIN ANALYZE is not supported"),
            ("SELECT * form t", "t.sql:1:10: unexpected t after the end of the statement\nhint: did you mean FROM?"),
            ("SELECT a FROM t WEHRE a = 1", "t.sql:1:17: unexpected a after the end of the statement\nhint: did you mean WHERE?"),
            ("SELECT 1 2", "t.sql:1:10: unexpected 2 after the end of the statement"),
        ] {
            assert!(message(text).starts_with(start), "{text}: {}", message(text));
        }
        assert!(message("CREATE TABLE t (\"check\" INT)").starts_with("accepted"));
    }

    #[test]
    fn depth_is_refused_before_there_is_a_tree() {
        let nested = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(message(&nested).contains("nested 10000 deep"));
        assert!(message(&format!("SELECT 1{}", "+1".repeat(10_000))).contains("10000 operators"));
        assert!(message(&format!("SELECT {}1", "- ".repeat(10_000))).contains("operators"));
    }
}
