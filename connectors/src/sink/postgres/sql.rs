//! The statements of the `postgres` sink. Names are quoted into them; values never are.

/// A table's column: its name, and its type as Postgres says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub data_type: String,
}

/// `name` as an identifier, whatever is in it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.table`, or `table`.
pub(super) fn qualified(schema: Option<&str>, table: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(table)),
        None => quote(table),
    }
}

/// Oid, schema, name and kind of the table that `$1` names.
pub(super) const FIND_TABLE: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'r' AND NOT c.relhassubclass \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";

pub(super) const FIND_COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
     WHERE attrelid = $1 AND 0 < attnum AND NOT attisdropped ORDER BY attnum";

/// Tables are created by one at a time.
pub(super) const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtext('tidegate_progress'))";

pub(super) fn create_table(table: &str, columns: &[Column]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| format!("{} {}", quote(&column.name), column.data_type)).collect();
    format!("CREATE TABLE {table} ({})", columns.join(", "))
}

/// Rows have no key; this finds equal ones without reading the whole table.
pub(super) fn create_index(table: &str, columns: &[Column]) -> String {
    format!("CREATE INDEX ON {table} (hash_record({}))", row("", columns))
}

pub(super) fn create_progress(progress: &str) -> String {
    format!(
        "CREATE TABLE {progress} (target text PRIMARY KEY, sink text NOT NULL, log text NOT NULL, epoch bigint NOT NULL, tick bigint NOT NULL)"
    )
}

/// The row is the fence: whoever holds it writes.
pub(super) fn lock_progress(progress: &str) -> String {
    format!("SELECT sink, log, epoch, tick FROM {progress} WHERE target = $1 FOR UPDATE")
}

pub(super) fn put_progress(progress: &str) -> String {
    format!(
        "INSERT INTO {progress} (target, sink, log, epoch, tick) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (target) \
         DO UPDATE SET sink = excluded.sink, log = excluded.log, epoch = excluded.epoch, tick = excluded.tick"
    )
}

pub(super) fn has_rows(table: &str) -> String {
    format!("SELECT EXISTS (SELECT 1 FROM ONLY {table})")
}

/// Parameters: a text array per column, then ticks and copies.
pub(super) fn append(table: &str, columns: &[Column]) -> String {
    let n = columns.len();
    format!(
        "INSERT INTO {table} (op, tick, {names}) \
         SELECT CASE WHEN n < 0 THEN 'delete' ELSE 'insert' END, tick, {values} \
         FROM unnest({arrays}, ${}::bigint[], ${}::bigint[]) WITH ORDINALITY AS v({raw}, tick, n, place), generate_series(1, abs(n)) \
         ORDER BY place",
        n + 1,
        n + 2,
        names = names(columns),
        values = values(columns),
        arrays = arrays(n),
        raw = each(n, |i| format!("r{i}")),
    )
}

/// Nets the changes; deletes of equal rows as many as go, and inserts as many as come. Gives how
/// many were deleted and how many were to be. Parameters: a text array per column, then copies.
///
/// Rows are compared as records: there NULL equals NULL. `is_indexed`: by [`create_index`].
pub(super) fn mirror(table: &str, columns: &[Column], is_indexed: bool) -> String {
    let n = columns.len();
    let mine = row("t.", columns);
    let by_hash = if is_indexed { format!("hash_record({mine}) = hash_record(g.r) AND ") } else { String::new() };
    format!(
        "WITH change AS MATERIALIZED (\
           SELECT {cast}, sum(n)::bigint AS n FROM (\
             SELECT {typed}, n FROM unnest({arrays}, ${copies}::bigint[]) AS v({raw}, n)) AS v \
           GROUP BY {cast} HAVING sum(n) <> 0), \
         gone AS (\
           DELETE FROM ONLY {table} WHERE ctid = ANY (ARRAY(SELECT place FROM (\
             SELECT t.ctid AS place, row_number() OVER (PARTITION BY g.i) AS nth, g.n FROM \
             (SELECT row_number() OVER () AS i, ROW({cast}) AS r, -n AS n FROM change WHERE n < 0) AS g \
             JOIN ONLY {table} AS t ON {by_hash}{mine} = g.r) AS found WHERE nth <= n)) \
           RETURNING 1), \
         come AS (INSERT INTO {table} ({names}) SELECT {cast} FROM change, generate_series(1, n) WHERE 0 < n) \
         SELECT (SELECT count(*) FROM gone), (SELECT coalesce(-sum(n), 0)::bigint FROM change WHERE n < 0)",
        cast = each(n, |i| format!("c{i}")),
        typed = each(n, |i| format!("r{i}::{} AS c{i}", columns[i].data_type)),
        arrays = arrays(n),
        copies = n + 1,
        raw = each(n, |i| format!("r{i}")),
        names = names(columns),
    )
}

fn arrays(n: usize) -> String {
    each(n, |i| format!("${}::text[]", i + 1))
}

fn names(columns: &[Column]) -> String {
    each(columns.len(), |i| quote(&columns[i].name))
}

fn values(columns: &[Column]) -> String {
    each(columns.len(), |i| format!("r{i}::{}", columns[i].data_type))
}

fn row(prefix: &str, columns: &[Column]) -> String {
    format!("ROW({})", each(columns.len(), |i| format!("{prefix}{}", quote(&columns[i].name))))
}

fn each(n: usize, text: impl Fn(usize) -> String) -> String {
    (0..n).map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_is_in_them() {
        assert_eq!(quote("a"), "\"a\"");
        assert_eq!(quote("a\"; DROP TABLE t; --"), "\"a\"\"; DROP TABLE t; --\"");
        assert_eq!(qualified(Some("S"), "Ta.b"), "\"S\".\"Ta.b\"");
        assert_eq!(qualified(None, "t"), "\"t\"");
    }
}
