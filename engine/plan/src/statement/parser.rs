//! One statement: Tidegate's own by hand over sqlparser's tokens, the rest by sqlparser.

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidegate_types::connector::{Decision, Options};
use tidegate_types::error::{Error, Mistake, Result, did_you_mean};

use super::instead::{BEFORE_A_NAME, BEGINNING, BEHIND, BEHIND_A_NAME, Refused};
use super::{Statement, normal, syntax};
use crate::place::{misspelt, unplaced};

mod columns;

/// What can be created and dropped.
const KINDS: [&str; 7] = ["SOURCE", "TABLE", "VIEW", "MATERIALIZED VIEW", "DETECTION", "SINK", "ACTION"];

/// A statement that is read word by word.
pub(super) struct One<'a> {
    tokens: &'a [TokenWithSpan],
    file: &'a str,
    parser: Parser<'a>,
}

impl<'a> One<'a> {
    /// `tokens`: its words, without what is between them.
    pub(super) fn new(tokens: &'a [TokenWithSpan], file: &'a str, dialect: &'a PostgreSqlDialect) -> Self {
        Self { tokens, file, parser: Parser::new(dialect).with_tokens_with_locations(tokens.to_vec()) }
    }

    /// Errors: have their place.
    pub(super) fn parse(mut self) -> Result<Statement> {
        let parsed = self.statement();
        let statement = parsed.map_err(|error| self.placed(error))?;
        match self.parser.peek_token().token {
            Token::EOF => Ok(statement),
            token => {
                self.refuse_words(&BEHIND)?;
                let error = self.error(format!("unexpected {token} after the end of the statement")).mistake(Mistake::Syntax);
                Err(misspelt(error, self.tokens, self.file))
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
        misspelt(error, self.tokens, self.file)
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
