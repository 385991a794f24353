//! What CREATE SOURCE and CREATE TABLE declare: columns, a watermark, a key. Each is remembered with the number of
//! the word at which it stands, for what is wrong with it is found behind it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, ColumnDef, ColumnOption, Expr};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidegate_types::error::{Error, Mistake, Result, did_you_mean};

use super::super::instead::{INSTEAD_OF_A_COLUMN, INSTEAD_OF_COLUMNS, option_instead};
use super::super::types::{arrow_type, interval_ms, type_instead};
use super::super::{Statement, normal};
use super::{One, Parsed};

impl One<'_> {
    pub(super) fn create_source(&mut self, replace: bool) -> Parsed<Statement> {
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

    pub(super) fn create_table(&mut self, replace: bool) -> Parsed<Statement> {
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
}
