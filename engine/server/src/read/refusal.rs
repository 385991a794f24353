//! Why a query was not answered, as Postgres's clients know it.

use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use tidegate_runtime::{Engine, end_of, misspelt_in, planning_error, pointed_in, unplaced};
use tidegate_types::error::{Error, Mistake};

use super::BYTES_MAX;
use super::apart::Stopped;

/// What errors call the text that was sent.
const TEXT: &str = "query";

/// SQLSTATE cannot_connect_now.
pub const STARTING: &str = "57P03";

/// Why a query was not answered.
#[derive(Debug)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: &'static str,
    pub error: Error,
}

impl Refusal {
    pub fn new(code: &'static str, error: Error) -> Self {
        Self { code, error }
    }

    /// At what it names in the `nth` statement of `sql`, from 0 on.
    pub fn pointed(self, sql: &str, nth: usize) -> Self {
        Self { error: pointed_in(self.error, sql, nth, TEXT), ..self }
    }

    /// Where a parser found nothing more to read, that is at the end; or at a word that is misspelt.
    pub(super) fn placed(self, sql: &str) -> Self {
        let end = end_of(sql);
        Self { error: misspelt_in(self.error.at(TEXT, end.line, end.column), sql, TEXT), ..self }
    }

    pub fn starting(engine: &Engine) -> Self {
        let error = Error::engine(format!("the engine is starting: {}", engine.health().reason));
        Self::new(STARTING, error.hint("ask again; /readyz tells when it is there"))
    }

    pub fn too_slow(limit: Duration) -> Self {
        let error = Error::user(format!("the query took longer than the {limit:?} allowed"));
        Self::new("57014", error.hint("keep it as a materialized view, and select from that"))
    }

    pub fn too_many_rows(limit: usize) -> Self {
        let error = Error::too_much(format!("the query answers more than the {limit} rows allowed"));
        Self::from(error.hint("add a WHERE or a LIMIT"))
    }

    pub fn too_many_bytes() -> Self {
        let error = Error::too_much(format!("the query answers more than the {} MiB allowed at once", BYTES_MAX >> 20));
        Self::from(error.hint("add a WHERE or a LIMIT, or ask with psql, which is sent rows as they come"))
    }

    pub fn read_only(what: &str) -> Self {
        let error = Error::user(format!("{what} is refused: this door is read-only"));
        Self::new(
            "25006",
            error.hint("put it into a pack's .sql files, or send it to POST /v1/execute of a tidegate run --allow-statements"),
        )
    }
}

impl From<&DataFusionError> for Refusal {
    fn from(error: &DataFusionError) -> Self {
        let root = error.find_root();
        if let DataFusionError::External(cause) = root {
            if let Some(ours) = cause.downcast_ref::<Error>() {
                return Self::from(ours.clone());
            }
            if let Some(stopped) = cause.downcast_ref::<Stopped>() {
                return Self::too_slow(stopped.limit);
            }
        }
        let planning = planning_error(root);
        if planning.mistake.is_some() {
            return Self::from(planning);
        }
        // Only the first line: the rest is for DataFusion's developers.
        let said = root.message();
        let message = said.lines().next().unwrap_or_default();
        match root {
            DataFusionError::Plan(_) | DataFusionError::SQL(..) => Self::from(planning),
            DataFusionError::ResourcesExhausted(_) => {
                Self::new("53200", Error::user(message).hint("ask for fewer rows or groups at a time"))
            }
            _ => Self::new("XX000", Error::engine(message)),
        }
    }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        Self::from(&error)
    }
}

impl From<&ParserError> for Refusal {
    fn from(error: &ParserError) -> Self {
        let (ParserError::TokenizerError(message) | ParserError::ParserError(message)) = error else {
            return Self::new("54001", Error::user("the query is nested too deeply").hint("split it with WITH"));
        };
        let (message, place) = unplaced(message);
        let error = Error::user(message).mistake(Mistake::Syntax);
        Self::from(match place {
            Some(place) => error.at(TEXT, place.line, place.column),
            None => error,
        })
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(error.sqlstate(), error)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_types::error::Fault;

    use super::*;

    #[test]
    fn what_is_wrong_with_the_input_is_not_the_engines_fault() {
        let drawn = "regex parse error:\n    (\n    ^\nerror: unclosed group";
        let cases = [
            (DataFusionError::External(drawn.into()).context("Invalid regex"), "2201B", "invalid regular expression: unclosed group"),
            (
                DataFusionError::Execution(format!("it did not compile: Syntax(\n~~~~\n{drawn}\n~~~~\n)")),
                "2201B",
                "invalid regular expression: unclosed group",
            ),
            (DataFusionError::External("too big".into()), "22000", "too big"),
            (DataFusionError::Execution("no number".into()), "22000", "no number"),
        ];
        for (error, code, message) in cases {
            let refusal = Refusal::from(error);
            assert_eq!((refusal.code, refusal.error.fault, &refusal.error.message[..]), (code, Fault::User, message));
        }
        let refusal = Refusal::from(DataFusionError::Internal("x".into()));
        assert_eq!((refusal.code, refusal.error.fault), ("XX000", Fault::Engine));
    }
}
