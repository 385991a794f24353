//! Who answers a statement; what writes is refused.

use datafusion::sql::sqlparser::ast::{Ident, Set, Statement};
use tidegate_types::error::Error;

use super::Refusal;

/// Who answers a statement.
pub enum Duty {
    /// A query over the relations.
    Query,
    /// `EXPLAIN`, and `SHOW` of the engine's own words.
    Engine,
    /// Postgres's session talk: `SET`, `SHOW` of a setting, `BEGIN`.
    Session,
    /// Talk that needs no more than its tag.
    Courtesy(&'static str),
}

/// Errors: the statement writes, or would change the session for others.
pub fn duty(statement: &Statement) -> Result<Duty, Refusal> {
    Ok(match statement {
        Statement::Query(_) => Duty::Query,
        Statement::Explain { .. } | Statement::ExplainTable { .. } => Duty::Engine,
        Statement::ShowTables { .. } | Statement::ShowViews { .. } => Duty::Engine,
        Statement::ShowVariable { variable } if variable.is_empty() => {
            let error = Error::user("SHOW of nothing").hint("say what: SHOW TABLES, SHOW server_version");
            return Err(Refusal::new("42601", error));
        }
        Statement::ShowVariable { variable } if is_engines(variable) => Duty::Engine,
        Statement::Set(set) if names_planner(set) => {
            let error = Error::user("the planner's settings cannot be changed here");
            return Err(Refusal::new("42501", error.hint("leave the SET out")));
        }
        Statement::Set(_) | Statement::ShowVariable { .. } | Statement::ShowStatus { .. } | Statement::ShowCatalogs { .. } => Duty::Session,
        Statement::StartTransaction { .. } | Statement::Commit { .. } | Statement::Rollback { .. } => Duty::Session,
        Statement::Savepoint { .. } => Duty::Courtesy("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Duty::Courtesy("RELEASE"),
        Statement::Reset(_) => Duty::Courtesy("RESET"),
        Statement::Discard { .. } => Duty::Courtesy("DISCARD"),
        Statement::Deallocate { .. } => Duty::Courtesy("DEALLOCATE"),
        Statement::UNLISTEN { .. } => Duty::Courtesy("UNLISTEN"),
        Statement::Close { .. } => Duty::Courtesy("CLOSE CURSOR"),
        Statement::Declare { .. } | Statement::Fetch { .. } => {
            let way_out = "send the query itself: its rows are sent as they come, and a driver may take so many at a time in the protocol";
            return Err(Error::unsupported("a cursor declared by a statement", way_out).into());
        }
        Statement::Prepare { .. } | Statement::Execute { .. } => {
            let way_out = "send the query itself, or prepare it as drivers do, in the protocol";
            return Err(Error::unsupported("PREPARE or EXECUTE as a statement", way_out).into());
        }
        other => return Err(Refusal::read_only(&verb(other))),
    })
}

/// `SHOW DETECTIONS`, unlike `SHOW TimeZone`.
fn is_engines(variable: &[Ident]) -> bool {
    const WORDS: [&str; 8] = ["sources", "tables", "views", "materialized", "detections", "sinks", "actions", "functions"];
    variable.first().is_some_and(|word| WORDS.contains(&word.value.to_lowercase().as_str()))
}

/// DataFusion's own settings are shared by all connections.
fn names_planner(set: &Set) -> bool {
    set.to_string().to_lowercase().trim_start_matches("set ").starts_with("datafusion.")
}

/// `CREATE TABLE` of `CREATE TABLE t (…)`: the words before the first name.
pub(super) fn verb(statement: &Statement) -> String {
    let text = statement.to_string();
    let words =
        text.split(|c: char| !c.is_ascii_alphabetic()).take_while(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase()));
    words.take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn judged(sql: &str) -> Result<Duty, Refusal> {
        duty(&Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap()[0])
    }

    #[test]
    fn reads_pass_and_writes_are_refused() {
        for sql in ["SELECT 1", "WITH x AS (SELECT 1) SELECT * FROM x", "VALUES (1)"] {
            assert!(matches!(judged(sql), Ok(Duty::Query)), "{sql}");
        }
        for sql in ["EXPLAIN SELECT 1", "SHOW TABLES", "SHOW detections"] {
            assert!(matches!(judged(sql), Ok(Duty::Engine)), "{sql}");
        }
        for sql in ["SET extra_float_digits = 3", "SHOW TimeZone", "BEGIN", "COMMIT", "ROLLBACK"] {
            assert!(matches!(judged(sql), Ok(Duty::Session)), "{sql}");
        }
        for (sql, verb) in [
            ("INSERT INTO t VALUES (1)", "INSERT INTO is refused"),
            ("CREATE TABLE t (a INT)", "CREATE TABLE is refused"),
            ("DROP TABLE t", "DROP TABLE is refused"),
            ("DELETE FROM t", "DELETE FROM is refused"),
            ("COPY t TO STDOUT", "COPY is refused"),
        ] {
            let Err(refusal) = judged(sql) else { panic!("{sql}") };
            assert_eq!(refusal.code, "25006");
            assert!(refusal.error.message.starts_with(verb), "{}", refusal.error.message);
        }
        for nothing in ["SHOW", "SHOW SESSION"] {
            assert!(matches!(judged(nothing), Err(Refusal { code: "42601", .. })), "{nothing}");
        }
        assert!(matches!(judged("SET datafusion.execution.batch_size = 1"), Err(Refusal { code: "42501", .. })));
    }
}
