//! Words that another SQL would take, and what to write in their place. They are refused by their name, where they stand.

use datafusion::sql::sqlparser::ast::ColumnOption;

/// Words that another SQL would take.
pub(super) struct Refused {
    pub words: &'static [&'static str],
    pub what: &'static str,
    pub way_out: &'static str,
}

const fn refused(words: &'static [&'static str], what: &'static str, way_out: &'static str) -> Refused {
    Refused { words, what, way_out }
}

pub(super) const BEGINNING: [Refused; 14] = [
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

pub(super) const BEHIND: [Refused; 5] = [
    refused(&["CASCADE"], "DROP … CASCADE", "drop first what is made of it; a DROP without CASCADE names it"),
    refused(&["RESTRICT"], "DROP … RESTRICT", "leave it out: what others are made of is not dropped"),
    refused(&["WITH", "NO", "DATA"], "WITH NO DATA", "leave it out: a view is filled as it is made"),
    refused(&["WITH", "DATA"], "WITH DATA", "leave it out: a view is filled as it is made"),
    refused(&["WITH"], "WITH (…) behind the statement", "leave it out: sources, detections, sinks and actions have options"),
];

pub(super) const BEFORE_A_NAME: [Refused; 1] = [refused(
    &["IF", "NOT", "EXISTS"],
    "CREATE … IF NOT EXISTS",
    "write CREATE OR REPLACE, which leaves alone what is there already as it is written",
)];

pub(super) const BEHIND_A_NAME: [Refused; 3] = [
    refused(&["("], "a list of columns behind a view's name", "name them in the query: SELECT a AS x"),
    refused(&["WITH"], "WITH (…) of a view", "leave it out: a view has no options, but a detection has"),
    refused(&["USING"], "USING of a view", "leave it out"),
];

pub(super) const INSTEAD_OF_COLUMNS: [Refused; 1] = [refused(
    &["AS"],
    "CREATE TABLE … AS",
    "CREATE TABLE with its columns, then INSERT INTO it what the SELECT says; or keep it as a MATERIALIZED VIEW",
)];

pub(super) const INSTEAD_OF_A_COLUMN: [Refused; 6] = [
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
pub(super) fn option_instead(option: &ColumnOption) -> &'static str {
    match option {
        ColumnOption::Default(_) => "INSERT the value itself; what is left out is NULL",
        ColumnOption::Check(_) => CHECK_INSTEAD,
        ColumnOption::ForeignKey(_) => REFERENCES_INSTEAD,
        ColumnOption::Unique(_) => UNIQUE_INSTEAD,
        ColumnOption::Generated { .. } | ColumnOption::Identity(_) | ColumnOption::Materialized(_) => "compute it in a view",
        _ => "leave it out",
    }
}
