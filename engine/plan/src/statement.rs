//! Text to statements: Tidegate's own by hand over sqlparser's tokens, the rest by sqlparser.
//! Every error has its place.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, ColumnDef, ColumnOption, Expr, ObjectName, ObjectNamePart, Query};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use std::sync::Arc;
use tidegate_types::connector::{Decision, Options};
use tidegate_types::error::{Error, Mistake, Result, did_you_mean};

use crate::load;
use crate::place::{misspelt, pointed, unplaced};

/// Text longer than this is refused before it is read.
pub const SQL_BYTES_MAX: usize = 1 << 20;

pub(crate) const TYPES: &str = "types are TEXT, BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), DATE, TIMESTAMP and T[]";

/// What to write in the place of a type that is not one of ours.
pub(crate) fn type_instead(data_type: &ast::DataType) -> &'static str {
    use ast::{DataType as Sql, ExactNumberInfo};
    match data_type {
        Sql::Decimal(ExactNumberInfo::None) | Sql::Numeric(ExactNumberInfo::None) | Sql::Dec(ExactNumberInfo::None) => {
            "say how many digits it has, and how many of them behind the point: DECIMAL(38, 9)"
        }
        Sql::Decimal(_) | Sql::Numeric(_) | Sql::Dec(_) => {
            "a DECIMAL has 1 to 38 digits, and 0 to all of them behind the point: DECIMAL(38, 9)"
        }
        Sql::Varchar(_) | Sql::CharVarying(_) | Sql::CharacterVarying(_) | Sql::Char(_) | Sql::Character(_) => {
            "write TEXT, which has no length"
        }
        Sql::Uuid => "write TEXT",
        _ => TYPES,
    }
}

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
    if SQL_BYTES_MAX < text.len() {
        return Err(Error::too_much(format!("{} bytes of SQL are more than the {SQL_BYTES_MAX} allowed", text.len()))
            .hint("split it into several files or requests")
            .at(file, 0, 0));
    }
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
        let statement =
            One { tokens: tokens.clone(), file, parser: Parser::new(&dialect).with_tokens_with_locations(tokens.clone()) }.parse()?;
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
    if SQL_BYTES_MAX < text.len() {
        let error = Error::too_much(format!("{} bytes of SQL are more than the {SQL_BYTES_MAX} allowed", text.len()));
        return Err(error.hint("put long lists into a table and join it"));
    }
    // What has no words is refused by whoever parses it.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() else { return Ok(()) };
    let words: Vec<TokenWithSpan> = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    load::check(&words)
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

/// Words that another SQL would take.
struct Refused {
    words: &'static [&'static str],
    what: &'static str,
    way_out: &'static str,
}

const fn refused(words: &'static [&'static str], what: &'static str, way_out: &'static str) -> Refused {
    Refused { words, what, way_out }
}

const BEGINNING: [Refused; 14] = [
    refused(&["ALTER"], "ALTER", "make it anew: CREATE OR REPLACE"),
    refused(&["TRUNCATE"], "TRUNCATE", "write DELETE FROM t"),
    refused(&["MERGE"], "MERGE", "UPDATE the rows that are there, then INSERT … SELECT those that are not"),
    refused(&["COPY"], "COPY", "INSERT the rows, or read a file by CREATE SOURCE … WITH (connector = 'file')"),
    refused(&["GRANT"], "GRANT", "whoever reaches a door may read: keep it to this machine"),
    refused(&["REVOKE"], "REVOKE", "whoever reaches a door may read: keep it to this machine"),
    refused(&["BEGIN"], "BEGIN", "leave it out: each statement is a transaction"),
    refused(&["START"], "START TRANSACTION", "leave it out: each statement is a transaction"),
    refused(&["COMMIT"], "COMMIT", "leave it out: each statement is a transaction"),
    refused(&["ROLLBACK"], "ROLLBACK", "leave it out: each statement is a transaction"),
    refused(&["REFRESH"], "REFRESH", "leave it out: a materialized view is kept current"),
    refused(&["SET"], "SET", "leave it out: options of tidegate run say what can be set"),
    refused(&["VACUUM"], "VACUUM", "leave it out: nothing has to be cleaned up"),
    refused(&["ANALYZE"], "ANALYZE", "leave it out: no statistics are kept"),
];

const BEHIND: [Refused; 5] = [
    refused(&["CASCADE"], "DROP … CASCADE", "drop first what is made of it; a DROP without CASCADE names it"),
    refused(&["RESTRICT"], "DROP … RESTRICT", "leave it out: what others are made of is not dropped"),
    refused(&["WITH", "NO", "DATA"], "WITH NO DATA", "leave it out: a view is filled as it is made"),
    refused(&["WITH", "DATA"], "WITH DATA", "leave it out: a view is filled as it is made"),
    refused(&["WITH"], "WITH (…) behind the statement", "leave it out: sources, detections, sinks and actions have options"),
];

const BEFORE_A_NAME: [Refused; 1] = [refused(
    &["IF", "NOT", "EXISTS"],
    "CREATE … IF NOT EXISTS",
    "write CREATE OR REPLACE, which leaves alone what is there already as it is written",
)];

const BEHIND_A_NAME: [Refused; 3] = [
    refused(&["("], "a list of columns behind a view's name", "name them in the query: SELECT a AS x"),
    refused(&["WITH"], "WITH (…) of a view", "leave it out: a view has no options, but a detection has"),
    refused(&["USING"], "USING of a view", "leave it out"),
];

const INSTEAD_OF_COLUMNS: [Refused; 1] = [refused(
    &["AS"],
    "CREATE TABLE … AS",
    "CREATE TABLE with its columns, then INSERT INTO it what the SELECT says; or keep it as a MATERIALIZED VIEW",
)];

const INSTEAD_OF_A_COLUMN: [Refused; 6] = [
    refused(&["UNIQUE"], "UNIQUE", UNIQUE_INSTEAD),
    refused(&["CHECK"], "CHECK", CHECK_INSTEAD),
    refused(&["FOREIGN", "KEY"], "FOREIGN KEY", REFERENCES_INSTEAD),
    refused(&["CONSTRAINT"], "a CONSTRAINT with a name", "write PRIMARY KEY (…) without one"),
    refused(&["EXCLUDE"], "EXCLUDE", UNIQUE_INSTEAD),
    refused(&["LIKE"], "LIKE", "write the columns out"),
];

const UNIQUE_INSTEAD: &str = "a table has one key, its PRIMARY KEY; a view may find what is there twice: GROUP BY x HAVING 1 < count(*)";
const CHECK_INSTEAD: &str = "filter in a view, or find what should not be there by a detection";
const REFERENCES_INSTEAD: &str = "a view may find what has no partner: WHERE NOT EXISTS (SELECT 1 FROM …)";

/// What to write in the place of a column's option.
fn option_instead(option: &ColumnOption) -> &'static str {
    match option {
        ColumnOption::Default(_) => "INSERT the value itself; what is left out is NULL",
        ColumnOption::Check(_) => CHECK_INSTEAD,
        ColumnOption::ForeignKey(_) => REFERENCES_INSTEAD,
        ColumnOption::Unique(_) => UNIQUE_INSTEAD,
        ColumnOption::Generated { .. } | ColumnOption::Identity(_) | ColumnOption::Materialized(_) => "compute it in a view",
        _ => "leave it out",
    }
}

/// What can be created and dropped.
const KINDS: [&str; 7] = ["SOURCE", "TABLE", "VIEW", "MATERIALIZED VIEW", "DETECTION", "SINK", "ACTION"];

struct One<'a> {
    tokens: Vec<TokenWithSpan>,
    file: &'a str,
    parser: Parser<'a>,
}

impl One<'_> {
    fn parse(mut self) -> Result<Statement> {
        let parsed = self.statement();
        let statement = parsed.map_err(|error| self.placed(error))?;
        match self.parser.peek_token().token {
            Token::EOF => Ok(statement),
            token => {
                self.refuse_words(&BEHIND)?;
                let error = self.error(format!("unexpected {token} after the end of the statement")).mistake(Mistake::Syntax);
                Err(misspelt(error, &self.tokens, self.file))
            }
        }
    }

    /// What may be ahead, and is refused by its name.
    fn refuse_words(&self, refused: &[Refused]) -> Result<()> {
        match refused.iter().find(|refused| self.is_ahead(refused.words)) {
            Some(refused) => Err(self.refused(refused.what, refused.way_out)),
            None => Ok(()),
        }
    }

    /// The refusal of what the parser is at.
    fn refused(&self, what: impl std::fmt::Display, way_out: &str) -> Error {
        self.error(format!("{what} is not supported")).hint(way_out).mistake(Mistake::Unsupported)
    }

    fn statement(&mut self) -> Parsed<Statement> {
        match self.word(0).as_str() {
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "SHOW" => {
                self.parser.next_token();
                let what = self.rest();
                Ok(Statement::Show { what })
            }
            "EXPLAIN" => self.explain(),
            "CHECKPOINT" => {
                self.parser.next_token();
                Ok(Statement::Checkpoint)
            }
            "APPROVE" | "REJECT" | "RESOLVE" => self.decide(),
            "INSERT" => Ok(Statement::Insert(Box::new(self.parser.parse_statement()?))),
            "UPDATE" => Ok(Statement::Update(Box::new(self.parser.parse_statement()?))),
            "DELETE" => Ok(Statement::Delete(Box::new(self.parser.parse_statement()?))),
            "SELECT" | "WITH" | "VALUES" | "(" => Ok(Statement::Query(self.parser.parse_query()?)),
            other => {
                self.refuse_words(&BEGINNING)?;
                let error = self.error(format!("{other} does not begin a statement")).mistake(Mistake::Syntax);
                Err(error.hint("statements are CREATE, DROP, INSERT, UPDATE, DELETE, SELECT, SHOW, EXPLAIN, CHECKPOINT, and APPROVE, REJECT and RESOLVE ACTION")
                .into())
            }
        }
    }

    /// `APPROVE ACTION 'id'`, `REJECT ACTION 'id'`, `RESOLVE ACTION 'id' AS [NOT] DONE`
    fn decide(&mut self) -> Parsed<Statement> {
        let verb = self.next_word();
        if !self.take(&["ACTION"]) {
            return Err(self.error(format!("expected ACTION after {verb}")).hint(format!("write {verb} ACTION 'id'")).into());
        }
        let id = self.parser.parse_literal_string()?;
        let decision = match verb.as_str() {
            "APPROVE" => Decision::Approve,
            "REJECT" => Decision::Reject,
            _ => {
                self.parser.expect_keyword_is(Keyword::AS)?;
                let decision = if self.parser.parse_keyword(Keyword::NOT) { Decision::NotDone } else { Decision::Done };
                if !self.take(&["DONE"]) {
                    let error = self.error(format!("expected DONE or NOT DONE, found {}", self.word(0)));
                    return Err(error.hint("write RESOLVE ACTION 'id' AS DONE, or AS NOT DONE").into());
                }
                decision
            }
        };
        Ok(Statement::Decide { id, decision })
    }

    fn create(&mut self) -> Parsed<Statement> {
        self.parser.next_token();
        let replace = self.parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
        let at = self.parser.index();
        let kind = self.next_word();
        match kind.as_str() {
            "SOURCE" => self.create_source(replace),
            "TABLE" => self.create_table(replace),
            "VIEW" => {
                let name = self.name_to_make(&BEHIND_A_NAME)?;
                self.parser.expect_keyword_is(Keyword::AS)?;
                Ok(Statement::CreateView { name, replace, query: self.parser.parse_query()? })
            }
            "MATERIALIZED" => {
                self.parser.expect_keyword_is(Keyword::VIEW)?;
                let name = self.name_to_make(&BEHIND_A_NAME)?;
                self.parser.expect_keyword_is(Keyword::AS)?;
                let query = self.parser.parse_query()?;
                Ok(Statement::CreateKept { name, replace, detection: false, options: Options::new(), query })
            }
            "DETECTION" => {
                let name = self.name_to_make(&[])?;
                let options = self.options()?;
                self.parser.expect_keyword_is(Keyword::AS)?;
                Ok(Statement::CreateKept { name, replace, detection: true, options, query: self.parser.parse_query()? })
            }
            "SINK" | "ACTION" => {
                let name = self.name_to_make(&[])?;
                self.parser.expect_keyword_is(Keyword::FROM)?;
                let from = self.name()?;
                let options = self.options()?;
                Ok(match kind.as_str() {
                    "SINK" => Statement::CreateSink { name, replace, from, options },
                    _ => Statement::CreateAction { name, replace, from, options },
                })
            }
            other => Err(self.unknown_kind(at, "CREATE", other).into()),
        }
    }

    /// A new name. `refused`: what may not be behind it.
    fn name_to_make(&mut self, refused: &[Refused]) -> Parsed<String> {
        self.refuse_words(&BEFORE_A_NAME)?;
        let name = self.name()?;
        self.refuse_words(refused)?;
        Ok(name)
    }

    /// `at`: where the kind stands.
    fn unknown_kind(&self, at: usize, verb: &str, kind: &str) -> Error {
        let way_out = match did_you_mean(kind, KINDS) {
            Some(kind) => format!("did you mean {verb} {kind}?"),
            None => format!("there are {}", KINDS.map(|kind| format!("{verb} {kind}")).join(", ")),
        };
        self.at_word(at, Error::unsupported(format!("{verb} {kind}"), way_out))
    }

    fn create_source(&mut self, replace: bool) -> Parsed<Statement> {
        let name = self.name_to_make(&[])?;
        let (mut fields, mut watermark) = (Vec::new(), None);
        self.listed(|one| match one.is_ahead(&["WATERMARK", "FOR"]) {
            true => one.source_watermark(&mut watermark),
            false => one.source_column(&mut fields),
        })?;
        let schema = self.schema(fields)?;
        if let Some((at, (column, _))) = &watermark {
            self.check_watermark(*at, column, &schema)?;
        }
        let options = self.options()?;
        Ok(Statement::CreateSource { name, replace, schema, watermark: watermark.map(|(_, watermark)| watermark), options })
    }

    fn source_column(&mut self, fields: &mut Vec<Field>) -> Parsed<()> {
        let at = self.parser.index();
        let column = self.parser.parse_column_def()?;
        if let Some(option) = column.options.iter().find(|option| !matches!(option.option, ColumnOption::Null)) {
            let what = format!("{} on column \"{}\" of a source", option.option, column.name.value);
            let way_out = "filter in a view; a row that does not fit its types goes to sys.dead_letter";
            return Err(self.refused_option(at, &option.option, &what, way_out).into());
        }
        let field = self.field(at, &column)?;
        self.add(at, field, fields)
    }

    /// `WATERMARK FOR ts AS ts - INTERVAL '30 seconds'`, and where its column is named.
    fn source_watermark(&mut self, watermark: &mut Option<(usize, (String, i64))>) -> Parsed<()> {
        if watermark.is_some() {
            return Err(self.error("a watermark is declared twice").hint("leave one out: a source has one").into());
        }
        self.take(&["WATERMARK", "FOR"]);
        let at = self.parser.index();
        *watermark = Some((at, self.watermark()?));
        Ok(())
    }

    /// `ts AS ts - INTERVAL '30 seconds'`, or `ts AS ts`, or just `ts`.
    fn watermark(&mut self) -> Parsed<(String, i64)> {
        let column = self.identifier()?;
        if !self.parser.parse_keyword(Keyword::AS) {
            return Ok((column, 0));
        }
        let at = self.parser.index();
        let lateness = match self.parser.parse_expr()? {
            Expr::Identifier(ident) if normal(&ident) == column => Some(0),
            Expr::BinaryOp { left, op: ast::BinaryOperator::Minus, right } => match (*left, *right) {
                (Expr::Identifier(ident), Expr::Interval(interval)) if normal(&ident) == column => interval_ms(&interval),
                _ => None,
            },
            _ => None,
        };
        let lateness = lateness.filter(|lateness| 0 <= *lateness).ok_or_else(|| {
            let error = Error::user(format!("the watermark of \"{column}\" must lag it by an interval"));
            self.at_word(at, error.hint(format!("write WATERMARK FOR {column} AS {column} - INTERVAL '30 seconds'")))
        })?;
        Ok((column, lateness))
    }

    /// `at`: where the watermark names its column.
    fn check_watermark(&self, at: usize, column: &str, schema: &Schema) -> Parsed<()> {
        let Some((_, field)) = schema.column_with_name(column) else {
            let error = Error::user(format!("the watermark's column \"{column}\" is not a column of the source"));
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let way_out = match did_you_mean(column, names) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("declare {column} TIMESTAMP"),
            };
            return Err(self.at_word(at, error.hint(way_out).mistake(Mistake::NoColumn)).into());
        };
        match field.data_type() {
            DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(()),
            other => {
                let error = Error::user(format!("a watermark needs a TIMESTAMP column, and \"{column}\" is {other}"));
                Err(self.at_word(at, error.hint(format!("declare {column} TIMESTAMP"))).into())
            }
        }
    }

    fn create_table(&mut self, replace: bool) -> Parsed<Statement> {
        let name = self.name_to_make(&INSTEAD_OF_COLUMNS)?;
        let (mut fields, mut key) = (Vec::new(), Vec::new());
        self.listed(|one| match one.is_ahead(&["PRIMARY", "KEY"]) {
            true => one.table_key(&mut key),
            false => one.table_column(&mut fields, &mut key),
        })?;
        let schema = self.schema(fields)?;
        if let Some((at, column)) = key.iter().find(|(_, column)| schema.column_with_name(column).is_none()) {
            let error = Error::user(format!("the primary key's column \"{column}\" is not a column of the table"));
            return Err(self.at_word(*at, error.hint("declare it, or leave it out").mistake(Mistake::NoColumn)).into());
        }
        Ok(Statement::CreateTable { name, replace, schema, key: key.into_iter().map(|(_, column)| column).collect() })
    }

    fn table_column(&mut self, fields: &mut Vec<Field>, key: &mut Vec<(usize, String)>) -> Parsed<()> {
        self.refuse_words(&INSTEAD_OF_A_COLUMN)?;
        let at = self.parser.index();
        let column = self.parser.parse_column_def()?;
        let mut nullable = true;
        for option in &column.options {
            match &option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => nullable = false,
                ColumnOption::PrimaryKey(_) => {
                    self.check_first_key(at, key)?;
                    key.push((at, normal(&column.name)));
                }
                other => {
                    let what = format!("{other} on column \"{}\"", column.name.value);
                    return Err(self.refused_option(at, other, &what, option_instead(other)).into());
                }
            }
        }
        let field = self.field(at, &column)?.with_nullable(nullable);
        self.add(at, field, fields)
    }

    /// `PRIMARY KEY (a, b)`; each column with its place.
    fn table_key(&mut self, key: &mut Vec<(usize, String)>) -> Parsed<()> {
        self.check_first_key(self.parser.index(), key)?;
        self.take(&["PRIMARY", "KEY"]);
        self.listed(|one| {
            let at = one.parser.index();
            let column = one.identifier()?;
            if key.iter().any(|(_, known)| *known == column) {
                let error = Error::user(format!("column \"{column}\" is in the primary key twice"));
                return Err(one.at_word(at, error.hint("leave one out").mistake(Mistake::DuplicateColumn)).into());
            }
            key.push((at, column));
            Ok(())
        })
    }

    fn check_first_key(&self, at: usize, key: &[(usize, String)]) -> Parsed<()> {
        if key.is_empty() {
            return Ok(());
        }
        let error = Error::user("the primary key is declared twice");
        Err(self.at_word(at, error.hint("a table has one, of several columns too: PRIMARY KEY (a, b)")).into())
    }

    /// `(…, …)`, of which `one` takes each.
    fn listed(&mut self, mut one: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.parser.expect_token(&Token::LParen)?;
        loop {
            one(self)?;
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.parser.expect_token(&Token::RParen)?;
        Ok(())
    }

    fn add(&self, at: usize, field: Field, fields: &mut Vec<Field>) -> Parsed<()> {
        if fields.iter().any(|other| other.name() == field.name()) {
            let error = Error::user(format!("column \"{}\" is declared twice", field.name()));
            return Err(self.at_word(at, error.hint("leave one out, or name it otherwise").mistake(Mistake::DuplicateColumn)).into());
        }
        fields.push(field);
        Ok(())
    }

    fn schema(&self, fields: Vec<Field>) -> Parsed<SchemaRef> {
        match fields.is_empty() {
            true => Err(self.error("a relation needs at least one column").hint("declare one: (a TEXT, …)").into()),
            false => Ok(Arc::new(Schema::new(fields))),
        }
    }

    /// `at`: where the column begins, among the words.
    fn field(&self, at: usize, column: &ColumnDef) -> Result<Field> {
        let data_type = arrow_type(&column.data_type).ok_or_else(|| {
            let what = format!("type {} of column \"{}\"", column.data_type, column.name.value);
            self.at_word(at + 1, Error::unsupported(what, type_instead(&column.data_type)))
        })?;
        Ok(Field::new(normal(&column.name), data_type, true))
    }

    /// The refusal of a column's option, at its first word.
    fn refused_option(&self, from: usize, option: &ColumnOption, what: &str, way_out: &str) -> Error {
        let text = option.to_string();
        let first = text.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let is_first = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(first));
        let at = self.tokens[from..].iter().position(is_first).map_or(from, |behind| from + behind);
        self.at_word(at, Error::unsupported(what, way_out))
    }

    /// The error at the `at`-th word, or behind the last.
    fn at_word(&self, at: usize, error: Error) -> Error {
        let behind = self.tokens.last().map(|token| token.span.end);
        match self.tokens.get(at).map(|token| token.span.start).or(behind) {
            Some(place) => error.at(self.file, place.line, place.column),
            None => error,
        }
    }

    /// `WITH (key = 'value', …)`, or nothing.
    fn options(&mut self) -> Parsed<Options> {
        let mut options = Options::new();
        if self.parser.parse_keyword(Keyword::WITH) {
            self.listed(|one| one.option(&mut options))?;
        }
        Ok(options)
    }

    fn option(&mut self, options: &mut Options) -> Parsed<()> {
        let at = self.parser.index();
        let mut key = self.identifier()?;
        while self.parser.consume_token(&Token::Period) {
            key = format!("{key}.{}", self.parser.parse_identifier()?.value);
        }
        self.parser.expect_token(&Token::Eq)?;
        let value_at = self.parser.index();
        let value = match self.parser.next_token().token {
            Token::SingleQuotedString(value) | Token::EscapedStringLiteral(value) | Token::Number(value, _) => value,
            Token::Word(word) if matches!(word.keyword, Keyword::TRUE | Keyword::FALSE) => word.value.to_lowercase(),
            other => {
                let error = Error::user(format!("option \"{key}\" has the value {other}, which is no literal"));
                return Err(self.at_word(value_at, error.hint(format!("write {key} = '…'"))).into());
            }
        };
        if options.contains_key(&key) {
            return Err(self.at_word(at, Error::user(format!("option \"{key}\" is given twice")).hint("leave one out")).into());
        }
        options.insert(key, value);
        Ok(())
    }

    fn drop(&mut self) -> Parsed<Statement> {
        self.parser.next_token();
        let at = self.parser.index();
        let mut kind = self.next_word();
        if kind == "MATERIALIZED" {
            self.parser.expect_keyword_is(Keyword::VIEW)?;
            kind = "MATERIALIZED VIEW".into();
        }
        if !KINDS.contains(&kind.as_str()) {
            return Err(self.unknown_kind(at, "DROP", &kind).into());
        }
        let if_exists = self.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        Ok(Statement::Drop { kind, name: self.name()?, if_exists })
    }

    fn explain(&mut self) -> Parsed<Statement> {
        self.parser.next_token();
        if self.word(0) == "ANALYZE" {
            return Err(self.refused("EXPLAIN ANALYZE", "EXPLAIN says what bounds each state, and sys.views how large it is").into());
        }
        if matches!(self.word(0).as_str(), "SELECT" | "WITH" | "VALUES" | "(") {
            return Ok(Statement::Explain { query: self.parser.parse_query()? });
        }
        if self.word(0) == "CREATE" {
            let refused = self.error("EXPLAIN of this CREATE is not supported");
            return match self.create()? {
                Statement::CreateKept { name, replace: true, query, .. } => Ok(Statement::ExplainReplace { name, query }),
                _ => Err(refused.hint("EXPLAIN CREATE OR REPLACE MATERIALIZED VIEW | DETECTION … tells what it would change").into()),
            };
        }
        for words in [&["MATERIALIZED", "VIEW"][..], &["VIEW"], &["DETECTION"]] {
            if self.take(words) {
                break;
            }
        }
        Ok(Statement::ExplainNamed { name: self.name()? })
    }

    fn name(&mut self) -> Parsed<String> {
        let at = self.parser.index();
        let ObjectName(parts) = self.parser.parse_object_name(false)?;
        let is_public = |part: &ObjectNamePart| part.as_ident().map(normal).as_deref() == Some("public");
        match &parts[..] {
            [schema, part] if is_public(schema) => self.bare_name(at, part),
            [part] => self.bare_name(at, part),
            _ => {
                let error = Error::user(format!("{} names a schema, and there is only one", ObjectName(parts)));
                Err(self.at_word(at, error.hint("leave the schema away")).into())
            }
        }
    }

    fn bare_name(&self, at: usize, part: &ObjectNamePart) -> Parsed<String> {
        let error = || Error::user("a name must be an identifier").hint("write a word, or any text in double quotes");
        part.as_ident().map(normal).ok_or_else(|| self.at_word(at, error()).into())
    }

    fn identifier(&mut self) -> Parsed<String> {
        Ok(normal(&self.parser.parse_identifier()?))
    }

    fn word(&self, ahead: usize) -> String {
        match self.parser.peek_nth_token(ahead).token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
            other => other.to_string(),
        }
    }

    fn is_ahead(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.word(i) == *word)
    }

    /// Steps over the words, where they are ahead.
    fn take(&mut self, words: &[&str]) -> bool {
        let is_ahead = self.is_ahead(words);
        if is_ahead {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        is_ahead
    }

    fn next_word(&mut self) -> String {
        let word = self.word(0);
        self.parser.next_token();
        word
    }

    fn rest(&mut self) -> String {
        let mut words = Vec::new();
        while self.parser.peek_token().token != Token::EOF {
            words.push(self.parser.next_token().token.to_string());
        }
        words.join(" ").to_lowercase()
    }

    /// An error at the word the parser is at.
    fn error(&self, message: impl Into<String>) -> Error {
        self.at_word(self.parser.index(), Error::user(message))
    }

    fn placed(&self, trouble: Trouble) -> Error {
        let message = match trouble {
            Trouble::Ours(error) => return error,
            Trouble::Parser(ParserError::RecursionLimitExceeded) => {
                return self.error("the query is nested too deeply").hint("name the inner queries with CREATE VIEW");
            }
            Trouble::Parser(ParserError::ParserError(message) | ParserError::TokenizerError(message)) => message,
        };
        let error = match unplaced(&message) {
            (text, Some(place)) => syntax(text).at(self.file, place.line, place.column),
            (text, None) => self.error(text).mistake(Mistake::Syntax),
        };
        misspelt(error, &self.tokens, self.file)
    }
}

type Parsed<T> = std::result::Result<T, Trouble>;

enum Trouble {
    Ours(Error),
    Parser(ParserError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<ParserError> for Trouble {
    fn from(error: ParserError) -> Self {
        Self::Parser(error)
    }
}

/// Postgres folds unquoted names to lower case.
pub fn normal(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Milliseconds of a literal interval without months.
pub fn interval_ms(interval: &ast::Interval) -> Option<i64> {
    use datafusion::common::ScalarValue;
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let mut text = match &value.value {
        ast::Value::SingleQuotedString(text) => text.clone(),
        ast::Value::Number(text, _) => text.clone(),
        _ => return None,
    };
    if let Some(unit) = &interval.leading_field {
        text = format!("{text} {unit}");
    }
    let parsed = arrow::compute::kernels::cast_utils::parse_interval_month_day_nano(&text).ok()?;
    let ScalarValue::IntervalMonthDayNano(Some(value)) = ScalarValue::IntervalMonthDayNano(Some(parsed)) else { return None };
    (value.months == 0).then(|| i64::from(value.days) * 86_400_000 + value.nanoseconds / 1_000_000)
}

/// TIMESTAMP is in milliseconds, as ticks and watermarks are.
pub fn arrow_type(data_type: &ast::DataType) -> Option<DataType> {
    use ast::DataType as Sql;
    Some(match data_type {
        // A length would have to be kept.
        Sql::Text | Sql::Varchar(None) | Sql::CharVarying(None) | Sql::CharacterVarying(None) | Sql::String(None) => DataType::Utf8,
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float(_) | Sql::Float64 => DataType::Float64,
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => match info {
            // Of any scale, which no fixed type is.
            ast::ExactNumberInfo::None => return None,
            ast::ExactNumberInfo::Precision(p) => DataType::Decimal128(u8::try_from(*p).ok().filter(|p| (1..=38).contains(p))?, 0),
            ast::ExactNumberInfo::PrecisionAndScale(p, s) => {
                let precision = u8::try_from(*p).ok().filter(|p| (1..=38).contains(p))?;
                let scale = i8::try_from(*s).ok().filter(|s| 0 <= *s && *s as u8 <= precision)?;
                DataType::Decimal128(precision, scale)
            }
        },
        Sql::Date => DataType::Date32,
        Sql::Timestamp(_, _) | Sql::Datetime(_) => DataType::Timestamp(TimeUnit::Millisecond, None),
        Sql::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _) | ast::ArrayElemTypeDef::AngleBracket(inner)) => {
            DataType::List(Arc::new(Field::new("item", arrow_type(inner)?, true)))
        }
        _ => return None,
    })
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
