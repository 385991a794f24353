//! Statements and queries that come over HTTP, and their answers as JSON.
//!
//! Web pages   may not send statements: what names an origin, or a host by a name, is refused
//! Bounds      [`ROWS_MAX`], and those of [`crate::read`]; the text of an answer counts as it is written

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::StructMode;
use arrow::json::writer::JsonArray;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidegate_connectors::http::is_too_slow;
use tidegate_runtime::{Engine, Response as Executed};
use tidegate_types::error::Error;
use tokio::time::timeout;

use super::{FORBIDDEN, SQL_BYTES_MAX, told};
use crate::read::{Answer, BYTES_MAX, Reader, Refusal};

/// Rows one query may answer here: they are JSON, and in memory at once.
pub const ROWS_MAX: usize = 100_000;

/// A start that is almost through is waited for by statements.
const STARTING_MAX: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    sql: String,
}

/// Why a request was not done.
pub(super) enum NotDone {
    /// Its body did not come as a whole.
    Unread(BytesRejection),
    Refused(Refusal),
}

impl From<Refusal> for NotDone {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for NotDone {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

impl IntoResponse for NotDone {
    fn into_response(self) -> Response {
        match self {
            Self::Unread(rejection) => unread(&rejection),
            Self::Refused(refusal) => refusal.into_response(),
        }
    }
}

fn unread(rejection: &BytesRejection) -> Response {
    if is_too_slow(rejection) {
        let error = Error::user("the body came too slowly").hint("send it without pauses");
        return told(StatusCode::REQUEST_TIMEOUT, &error, None);
    }
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let error = Error::user(format!("the body is larger than {SQL_BYTES_MAX} bytes"));
            told(StatusCode::PAYLOAD_TOO_LARGE, &error.hint("send several smaller ones"), None)
        }
        _ => told(StatusCode::BAD_REQUEST, &Error::user(format!("the body broke off: {rejection}")).hint("send it again"), None),
    }
}

pub(super) async fn query(State(reader): State<Arc<Reader>>, question: Result<Json<Question>, JsonRejection>) -> Result<Response, NotDone> {
    let Json(question) = question.map_err(|rejection| match rejection {
        JsonRejection::BytesRejection(rejection) => NotDone::Unread(rejection),
        rejection => {
            let error = Error::user(format!("the body is not a query: {}", rejection.body_text()));
            Refusal::new("22023", error.hint("send {\"sql\": \"SELECT …\"} as application/json")).into()
        }
    })?;
    Ok(as_json(reader.query(question.sql, ROWS_MAX, answered).await?))
}

pub(super) async fn no_statements() -> Refusal {
    let error = Error::user("statements are not taken here");
    Refusal::new(FORBIDDEN, error.hint("start the engine with tidegate run --allow-statements, or put them into the pack's .sql files"))
}

pub(super) async fn execute(
    State(engine): State<Engine>,
    headers: HeaderMap,
    sql: Result<Bytes, BytesRejection>,
) -> Result<Response, NotDone> {
    refuse_web_pages(&headers)?;
    if text(&headers, header::CONTENT_TYPE).split(';').next().map(str::trim) != Some("application/sql") {
        let error = Error::user("statements are wanted as application/sql");
        return Err(Refusal::new("22023", error.hint("send the header Content-Type: application/sql")).into());
    }
    match timeout(STARTING_MAX, engine.recovered()).await {
        Ok(recovered) => recovered?,
        Err(_) => return Err(Refusal::starting(&engine).into()),
    }
    let sql = sql.map_err(NotDone::Unread)?;
    let sql = std::str::from_utf8(&sql).map_err(|error| {
        let error = Error::user(format!("the statements are not text: {error}"));
        Refusal::new("22021", error.hint("send UTF-8"))
    })?;
    let (mut done, mut answers, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for response in engine.execute(sql, "request").await? {
        let (tag, answer) = match response {
            Executed::Done { tag, notices } => {
                told.extend(notices);
                (tag, "null".to_string())
            }
            Executed::Rows { tick, schema, batches, notices } => {
                told.extend(notices);
                let count = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
                if ROWS_MAX < count {
                    return Err(Refusal::too_many_rows(ROWS_MAX).into());
                }
                (format!("SELECT {count}"), answered(&Answer { tick, schema, batches })?)
            }
        };
        done.push(tag);
        answers.push(answer);
    }
    let text = format!("{{\"done\":{},\"notices\":{},\"answers\":[{}]}}", json!(done), json!(told), answers.join(","));
    Ok(as_json(text))
}

fn as_json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A browser is on this machine, the page in it is not. Its requests name their
/// origin; those to a name of the page's own, which was made to mean this
/// machine (DNS rebinding), need not, but name their host.
fn refuse_web_pages(headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |message: &str, hint: &str| Err(Refusal::new(FORBIDDEN, Error::user(message).hint(hint)));
    if headers.contains_key(header::ORIGIN) {
        return refused("statements are not taken from web pages", "send them without the header Origin");
    }
    match text(headers, header::HOST).parse::<Authority>() {
        Ok(host) if is_not_a_name(host.host()) => Ok(()),
        _ => refused("statements are taken at an address or localhost only", "send them to 127.0.0.1, not to a host's name"),
    }
}

/// Whether no name server decides what it means.
fn is_not_a_name(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Empty where there is no such header, or no text in it.
fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The answer as JSON; rows as lists, for two columns may share a name.
fn answered(answer: &Answer) -> Result<String, Refusal> {
    let fields = answer.schema.fields();
    let columns: Vec<_> = fields.iter().map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() })).collect();
    let body = json!({ "tick": answer.tick, "columns": columns });
    // The rows are JSON already: they follow as they are.
    let mut text = body.to_string();
    text.pop();
    text.push_str(",\"rows\":");
    text.push_str(&rows(&answer.batches)?);
    text.push('}');
    Ok(text)
}

fn rows(batches: &[RecordBatch]) -> Result<String, Refusal> {
    let builder = tidegate_types::json::writer().with_struct_mode(StructMode::ListOnly);
    let mut writer = builder.build::<_, JsonArray>(Text::default());
    let written = batches.iter().try_for_each(|batch| writer.write(batch)).and_then(|()| writer.finish());
    written.map_err(|error| match error {
        ArrowError::IoError(..) => Refusal::too_many_bytes(),
        error => {
            let error = Error::user(format!("the rows cannot be written as JSON: {error}"));
            Refusal::new("0A000", error.hint("cast the column to TEXT"))
        }
    })?;
    let Text(bytes) = writer.into_inner();
    // The writer writes nothing at all where there was no batch.
    Ok(if bytes.is_empty() { "[]".into() } else { String::from_utf8_lossy(&bytes).into_owned() })
}

/// Text in the making. Errors: it is more than an answer may have, as few rows may be once they are escaped.
#[derive(Default)]
struct Text(Vec<u8>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.len() + bytes.len() <= BYTES_MAX {
            true => self.0.write(bytes),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use arrow::array::{Float64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use tidegate_connectors::Inbox;

    use super::super::tests::{local, parts, post};
    use super::super::{Limits, serve};
    use super::*;

    #[test]
    fn rows_are_lists_and_nulls_are_told() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("a", DataType::Float64, true)]));
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(StringArray::from(vec![Some("x"), None])), Arc::new(Float64Array::from(vec![1.5, 2.0]))];
        let batch = RecordBatch::try_new(schema, columns).unwrap();
        assert_eq!(rows(&[batch]).unwrap(), r#"[["x",1.5],[null,2.0]]"#);
        assert_eq!(rows(&[]).unwrap(), "[]");
    }

    #[test]
    fn what_a_web_page_could_have_sent_is_refused() {
        let cases: [(&[(HeaderName, &str)], bool); 12] = [
            (&[(header::HOST, "127.0.0.1:7470")], true),
            (&[(header::HOST, "10.0.0.7")], true),
            (&[(header::HOST, "[::1]:7470")], true),
            (&[(header::HOST, "localhost:7470")], true),
            (&[(header::HOST, "LocalHost")], true),
            (&[(header::HOST, "tidegate.example:7470")], false),
            (&[(header::HOST, "localhost.example")], false),
            (&[(header::HOST, "127.0.0.1.example")], false),
            (&[(header::HOST, "not a host")], false),
            (&[], false),
            (&[(header::HOST, "127.0.0.1"), (header::ORIGIN, "http://127.0.0.1")], false),
            (&[(header::HOST, "127.0.0.1"), (header::ORIGIN, "null")], false),
        ];
        for (sent, is_taken) in cases {
            let headers: HeaderMap = sent.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            assert_eq!(refuse_web_pages(&headers).is_ok(), is_taken, "{sent:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn statements_are_executed_and_queries_answered() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        let sql = "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2); CREATE MATERIALIZED VIEW v AS SELECT a FROM t WHERE a < 2";
        let answer = post(to, "/v1/execute", "application/sql", sql).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("INSERT 0 2"), "{answer}");
        let answer = post(to, "/v1/query", "application/json", r#"{"sql":"SELECT a FROM v"}"#).await;
        assert!(answer.contains(r#""rows":[[1]]"#), "{answer}");
        let (_, _, answer) = parts(&post(to, "/v1/execute", "application/sql", "SHOW TABLES; INSERT INTO t VALUES (2)").await);
        assert_eq!(answer["done"], json!(["SELECT 1", "INSERT 0 1"]));
        assert_eq!((&answer["answers"][0]["rows"], &answer["answers"][1]), (&json!([["t", "table"]]), &json!(null)));
        let answer = post(to, "/v1/execute", "application/sql", "DELETE FROM t WHERE a = 2; INSERT INTO t VALUES (2)").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // As a view would: no subquery becomes NULL or one row, and now() is the tick's time.
        let correlated = r#"{"sql":"SELECT a, (SELECT count(*) FROM t u WHERE u.a = t.a AND u.a > 1) AS n FROM t ORDER BY a"}"#;
        let answer = post(to, "/v1/query", "application/json", correlated).await;
        assert!(answer.contains(r#""rows":[[1,0],[2,1]]"#), "{answer}");
        let answer = post(to, "/v1/query", "application/json", r#"{"sql":"SELECT a, (SELECT a FROM t) AS n FROM t"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        for sql in ["SELECT to_unixtime(now()) AS n, now() FROM v", "SELECT to_unixtime(now()) AS n, now()"] {
            for (_, answer) in read(to, sql).await {
                assert_eq!(answer["tick"].as_i64().map(|tick| tick / 1000), answer["rows"][0][0].as_i64(), "{sql}: {answer}");
                assert_eq!(answer["columns"][1]["type"], "Timestamp(ms)", "{sql}: {answer}");
            }
        }
        // What is asked of the server is answered as Postgres's clients expect it.
        let answer =
            post(to, "/v1/query", "application/json", r#"{"sql":"SELECT relname FROM pg_catalog.pg_class WHERE relname = 'v'"}"#).await;
        assert!(answer.contains(r#""rows":[["v"]]"#), "{answer}");
        // A form on a web page can send text/plain, and must not reach the engine.
        let answer = post(to, "/v1/execute", "text/plain", "DROP MATERIALIZED VIEW v").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("application/sql"), "{answer}");
        let answer = post(to, "/v1/execute", "application/sql", "DROP TABLE t").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("is used by v"), "{answer}");
        let answer = post(to, "/v1/query", "application/json", r#"{"sql":"DROP TABLE t"}"#).await;
        assert!(answer.contains("25006"), "{answer}");
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_too_much_for_one_statement_is_refused_before_it_is_there() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        engine.execute("CREATE TABLE t (s TEXT)", "test").await.unwrap();
        for sql in
            ["INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 300000)", "SELECT value FROM generate_series(1, 100000000)"]
        {
            let (status, _, answer) = parts(&post(to, "/v1/execute", "application/sql", sql).await);
            assert_eq!((status, &answer["code"]), (400, &json!("54000")), "{sql}: {answer}");
            let (error, hint) = (answer["error"].as_str().unwrap(), answer["hint"].as_str().unwrap());
            assert!(error.contains("256 MiB") && hint.contains("several statements"), "{answer}");
        }
        let (_, _, answer) = parts(&post(to, "/v1/execute", "application/sql", "SELECT count(*) FROM t").await);
        assert_eq!((&answer["answers"][0]["rows"], &answer["notices"]), (&json!([[0]]), &json!([])));
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_read_ends_where_it_answers_too_much_and_gives_its_memory_back() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        engine.recovered().await.unwrap();
        let to = serve(engine.clone(), inbox, local(), false, Limits::default()).await.unwrap();
        let ask = |sql: &str| json!({ "sql": sql }).to_string();
        let rows = "SELECT repeat('a', 100000) AS z FROM generate_series(1, 50000)";
        // As text six times as long as they are.
        let escaped = "SELECT repeat(chr(1), 100000) AS z FROM generate_series(1, 1000)";
        for sql in [rows, escaped, rows, rows] {
            let (status, _, answer) = parts(&post(to, "/v1/query", "application/json", &ask(sql)).await);
            assert_eq!((status, &answer["code"]), (400, &json!("54000")), "{sql}: {answer}");
            let (error, hint) = (answer["error"].as_str().unwrap(), answer["hint"].as_str().unwrap());
            assert!(error.contains("256 MiB") && hint.contains("LIMIT") && hint.contains("psql"), "{answer}");
        }
        let (status, _, answer) = parts(&post(to, "/v1/query", "application/json", &ask(&format!("{rows} LIMIT 10"))).await);
        assert_eq!((status, answer["rows"].as_array().map(Vec::len)), (200, Some(10)));
        engine.shutdown().await.unwrap();
    }

    /// Through both doors that answer rows.
    async fn read(to: SocketAddr, sql: &str) -> [(u16, serde_json::Value); 2] {
        let (asked, _, answer) = parts(&post(to, "/v1/query", "application/json", &json!({ "sql": sql }).to_string()).await);
        let (executed, _, mut done) = parts(&post(to, "/v1/execute", "application/sql", sql).await);
        let done = if executed == 200 { done["answers"][0].take() } else { done };
        [(asked, answer), (executed, done)]
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn values_have_the_type_that_is_declared() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        let made = "CREATE TABLE t (k INT, d DOUBLE PRECISION, b BOOLEAN, ts TIMESTAMP); \
                    INSERT INTO t VALUES (1, 2.5, true, TIMESTAMP '9999-12-31 00:00:00')";
        engine.execute(made, "test").await.unwrap();
        let numbers = [
            ("SELECT k FROM t UNION ALL SELECT 1.5 ORDER BY 1", json!([[1.0], [1.5]])),
            ("SELECT k FROM t UNION SELECT d FROM t ORDER BY 1", json!([[1.0], [2.5]])),
            ("SELECT CASE WHEN b THEN k ELSE d END FROM t", json!([[1.0]])),
            ("SELECT CASE WHEN b THEN k ELSE d END FROM t WHERE k > 1", json!([])),
        ];
        for (sql, rows) in numbers {
            for (status, answer) in read(to, sql).await {
                assert_eq!((status, &answer["columns"][0]["type"], &answer["rows"]), (200, &json!("Float64"), &rows), "{sql}: {answer}");
            }
        }
        // Of milliseconds, as in a view: in nanoseconds there is no such year.
        let times = [
            "SELECT coalesce(ts, TIMESTAMP '2025-01-01') FROM t",
            "SELECT greatest(ts, TIMESTAMP '2025-01-01') FROM t",
            "SELECT CASE WHEN b THEN ts ELSE TIMESTAMP '2025-01-01' END FROM t",
            "SELECT ts FROM t UNION SELECT TIMESTAMP '9999-12-31'",
            "SELECT ts FROM t WHERE ts <= TIMESTAMP '9999-12-31'",
            "SELECT CAST('9999-12-31' AS TIMESTAMP) FROM t",
            "SELECT coalesce(ts, DATE '2025-01-01') FROM t",
            "SELECT CASE WHEN b THEN DATE '9999-12-31' ELSE ts END FROM t",
            "SELECT DATE '9999-12-31' FROM t UNION SELECT ts FROM t",
            "SELECT ts FROM t INTERSECT SELECT DATE '9999-12-31'",
            "SELECT ts FROM t WHERE ts = DATE '9999-12-31' AND ts - DATE '9999-12-31' = INTERVAL '0 days'",
            "SELECT ts FROM t WHERE ts IN (SELECT DATE '9999-12-31') AND ts BETWEEN '9999-12-30' AND '9999-12-31'",
        ];
        for sql in times {
            for (status, answer) in read(to, sql).await {
                assert_eq!((status, &answer["columns"][0]["type"]), (200, &json!("Timestamp(ms)")), "{sql}: {answer}");
                let rows = answer["rows"].as_array().unwrap();
                assert!(rows.len() == 1 && rows[0][0].to_string().contains("9999-12-31"), "{sql}: {answer}");
            }
        }
        for (status, answer) in read(to, "SELECT ts - TIMESTAMP '2025-01-01' FROM t").await {
            assert_eq!(status, 200, "{answer}");
        }
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn equal_names_are_answered_as_they_are() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        engine.execute("CREATE TABLE t (id INT, s TEXT); INSERT INTO t VALUES (1, 'a')", "test").await.unwrap();
        for (sql, names, row) in [
            ("SELECT 1, 1", json!(["?column?", "?column?"]), json!([1, 1])),
            ("SELECT count(*), count(*) FROM t", json!(["count", "count"]), json!([1, 1])),
            ("SELECT id, s AS id, t.id FROM t ORDER BY t.id", json!(["id", "id", "id"]), json!([1, "a", 1])),
            ("SELECT *, id FROM t", json!(["id", "s", "id"]), json!([1, "a", 1])),
            ("SELECT a.id, b.id FROM t a JOIN t b ON a.s = b.s UNION SELECT 1, 1", json!(["id", "id"]), json!([1, 1])),
        ] {
            for (status, answer) in read(to, sql).await {
                let told: Vec<_> = answer["columns"].as_array().into_iter().flatten().map(|column| column["name"].clone()).collect();
                assert_eq!((status, json!(told), &answer["rows"]), (200, names.clone(), &json!([row])), "{sql}: {answer}");
            }
        }
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_wrong_with_the_input_is_told_as_such() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        engine.execute("CREATE TABLE t (k BIGINT, s TEXT); INSERT INTO t VALUES (9223372036854775807, 'x')", "test").await.unwrap();
        for (sql, code) in [
            ("SELECT s ~ '(' FROM t", "2201B"),
            ("SELECT k FROM t WHERE s ~ '('", "2201B"),
            ("SELECT k FROM t WHERE regexp_like(s, '(')", "2201B"),
            ("SELECT regexp_replace(s, '(', 'y') FROM t", "2201B"),
            ("SELECT CAST(s AS INT) FROM t", "22P02"),
            ("SELECT CAST(s AS BOOLEAN) FROM t", "22P02"),
            ("SELECT CAST(s AS DATE) FROM t", "22007"),
            ("SELECT CAST(s || '2024-13-01' AS DATE) FROM (SELECT '' AS s FROM t) u", "22008"),
            ("SELECT k + k FROM t", "22003"),
            ("SELECT CAST(k AS INT) FROM t", "22003"),
            ("SELECT CAST(k AS DECIMAL(4, 2)) FROM t", "22003"),
            ("SELECT k / 0 FROM t", "22012"),
            ("SELECT 1.0::DECIMAL(2, 1) / (k - k) FROM t", "22012"),
            ("SELECT (SELECT k FROM t UNION ALL SELECT 1)", "21000"),
            ("SELECT k FROM t WHERE k = $1", "42P02"),
            ("SELECT k FROM t LIMIT -1", "2201W"),
            ("SELECT k FROM t OFFSET -1", "2201X"),
            ("SELECT string_agg(DISTINCT s, ',' ORDER BY k) FROM t", "42P10"),
        ] {
            for (status, answer) in read(to, sql).await {
                assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{sql}: {answer}");
            }
        }
        let [(_, answer), _] = read(to, "SELECT s ~ '(' FROM t").await;
        assert_eq!(
            (answer["code"].as_str(), answer["error"].as_str()),
            (Some("2201B"), Some("invalid regular expression: unclosed group"))
        );
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_refused_has_a_place() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        engine.execute("CREATE TABLE t (id INT, s TEXT)", "test").await.unwrap();
        for (sql, code, line, column, said) in [
            ("SELECT id,\n nope FROM t", "42703", 2, 2, "column \"nope\" does not exist"),
            ("SELECT id FROM tt", "42P01", 1, 16, "relation \"tt\" does not exist"),
            ("SELECT id FROM t WHERE )", "42601", 1, 24, "expected: an expression"),
            ("SELECT id FROM t WHERE", "42601", 1, 23, "expected: an expression"),
            ("SELECT upperr(s) FROM t", "42883", 1, 8, "function upperr() does not exist"),
            ("SELECT sum(1, 2) FROM t", "42883", 1, 8, "function sum(Int64, Int64) does not exist"),
            ("SELECT ~id FROM t", "0A000", 1, 8, "operator \"~\" is not supported"),
            ("SELECT * form t", "42601", 1, 10, ""),
            ("SELECT id FROM t LIMIT -1", "2201W", 1, 18, "LIMIT takes a number of rows from 0 on, not -1"),
            ("SELECT id FROM t WHERE id = $1", "42P02", 1, 29, "parameter \"$1\" has no value"),
            ("SELECT (t).id FROM t", "0A000", 1, 9, "a field of \"t\" in brackets is not supported"),
            ("SELECT count(*) FROM t GROUP BY ()", "0A000", 1, 24, "GROUP BY () is not supported"),
            ("SELECT id::DECIMAL(50, 2) FROM t", "0A000", 1, 12, "type DECIMAL(50,2) is not supported"),
            ("SELECT id::DECIMAL(10, 11) FROM t", "0A000", 1, 12, "type DECIMAL(10,11) is not supported"),
            ("SELECT DATE '2024-13-01' FROM t", "22008", 1, 13, "\"2024-13-01\" cannot be cast to Date32"),
            ("SELECT id FROM t WHERE id = 'abc'", "22P02", 1, 29, "\"abc\" cannot be cast to Int32"),
            ("SELECT INTERVAL 'x' FROM t", "22007", 1, 17, "invalid input syntax for type interval"),
            ("SELECT INTERVAL '1-2' YEAR TO MONTH FROM t", "0A000", 1, 8, "INTERVAL of one unit TO another is not supported"),
            ("SELECT * INTO u FROM t", "0A000", 1, 1, "SELECT INTO is not supported"),
        ] {
            for (status, answer) in read(to, sql).await {
                let told = (status, answer["code"].as_str(), answer["line"].as_u64(), answer["column"].as_u64());
                assert_eq!(told, (400, Some(code), Some(line), Some(column)), "{sql}: {answer}");
                assert!(answer["error"].as_str().is_some_and(|error| error.starts_with(said)), "{sql}: {answer}");
            }
        }
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_statement_does_wrong_has_its_code() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        let made = "CREATE TABLE t (k INT PRIMARY KEY, s TEXT NOT NULL); CREATE VIEW v AS SELECT k FROM t; INSERT INTO t VALUES (1, 'x')";
        engine.execute(made, "test").await.unwrap();
        for (sql, code, column) in [
            ("INSERT INTO t VALUES (1, 'y')", "23505", 1),
            ("INSERT INTO t VALUES (NULL, 'y')", "23502", 1),
            ("INSERT INTO t (k) VALUES (2)", "23502", 1),
            ("INSERT INTO t (k, q) VALUES (2, 'y')", "42703", 19),
            ("INSERT INTO t (k, k) VALUES (2, 3)", "42701", 16),
            ("INSERT INTO t VALUES (2)", "23502", 1),
            ("INSERT INTO t VALUES (2, 'y', 3)", "42601", 1),
            ("INSERT INTO t VALUES (2, DEFAULT)", "0A000", 26),
            ("INSERT INTO t (k, s) VALUES ('z', 'y')", "22P02", 16),
            ("INSERT INTO t VALUES (1 / 0, 'y')", "22012", 1),
            ("INSERT INTO u VALUES (1)", "42P01", 13),
            ("INSERT INTO v VALUES (1)", "42809", 13),
            ("UPDATE t SET q = 1", "42703", 14),
            ("UPDATE t SET s = DEFAULT", "0A000", 18),
            ("CREATE TABLE t (a INT)", "42P07", 14),
            ("DROP TABLE t", "2BP01", 12),
            ("DROP TABLE u", "42P01", 12),
            ("DROP SOURCE t", "42809", 13),
            ("DROP TABLE t CASCADE", "0A000", 14),
            ("CREATE SINK k FROM t WITH (connector = 'stdout', formt = 'json')", "42000", 50),
        ] {
            let answer = post(to, "/v1/execute", "application/sql", sql).await;
            let (status, _, body) = parts(&answer);
            let told = (status, body["code"].as_str(), body["column"].as_u64());
            assert_eq!(told, (400, Some(code), Some(column)), "{sql}: {answer}");
        }
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn statements_are_not_taken_unless_allowed() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), false, Limits::default()).await.unwrap();
        let answer = post(to, "/v1/execute", "application/sql", "CREATE TABLE t (a INT)").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("--allow-statements"), "{answer}");
        assert!(engine.relations().iter().all(|relation| relation.name != "t"));
        engine.shutdown().await.unwrap();
    }

    /// Each of many adds a row with the number of rows there are. Where one of them wrote on what
    /// another had changed, a number would be there twice.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_insert_of_what_changed_meanwhile_is_a_conflict() {
        const CLIENTS: usize = 4;
        const EACH: usize = 10;
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), true, Limits::default()).await.unwrap();
        let made = "CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t; CREATE VIEW m AS SELECT n FROM n";
        engine.execute(made, "test").await.unwrap();
        // Read as it is, by a view, and by a name for one.
        let reads = ["SELECT count(*) FROM t", "SELECT n FROM n", "SELECT n FROM m"];
        let clients = (0..CLIENTS).map(|client| {
            tokio::spawn(async move {
                for i in 0..EACH {
                    let sql = format!("INSERT INTO t {}", reads[(client + i) % reads.len()]);
                    loop {
                        let answer = post(to, "/v1/execute", "application/sql", &sql).await;
                        if answer.starts_with("HTTP/1.1 200") {
                            break;
                        }
                        let (status, _, body) = parts(&answer);
                        assert_eq!(
                            (status, body["code"].as_str(), body["hint"].as_str()),
                            (409, Some("40001"), Some("run it again")),
                            "{answer}"
                        );
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        let answer = post(to, "/v1/query", "application/json", r#"{"sql":"SELECT a FROM t ORDER BY a"}"#).await;
        let (_, _, body) = parts(&answer);
        let expected: Vec<_> = (0..CLIENTS * EACH).map(|a| json!([a])).collect();
        assert_eq!(body["rows"], json!(expected));
        engine.shutdown().await.unwrap();
    }
}
