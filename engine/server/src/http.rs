//! The HTTP door.
//!
//! GET  /metrics               Prometheus's text format
//! GET  /healthz               200 while the process lives
//! GET  /readyz                200 when the engine is ready, else 503; both say
//!                             {"ready", "reason", "tick", "lag_ms"}
//! POST /v1/query              {"sql"} -> {"tick", "columns", "rows"}, read-only,
//!                             bounds as in [`crate::read`] and [`ROWS_MAX`].
//!                             400, 403, or 500 where the engine failed:
//!                             {"error", "hint", "code"}, the code a SQLSTATE
//! POST /v1/execute            statements as text, application/sql: {"done":
//!                             [tags]}. They run in order, up to the first
//!                             error. 403 but with `run --allow-statements`,
//!                             and for whatever a web page could have sent
//! POST /v1/ingest/<source>    rows for a source with connector = 'http'

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::StructMode;
use arrow::json::writer::{JsonArray, WriterBuilder};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus::TextEncoder;
use serde::Deserialize;
use serde_json::json;
use tidegate_connectors::Inbox;
use tidegate_runtime::{Engine, Response as Executed};
use tidegate_types::error::{Error, Fault, Result};

use crate::read::{Answer, Reader, Refusal};

/// Rows one query may answer here: they are JSON, and in memory at once.
pub const ROWS_MAX: usize = 100_000;

/// A query is text; beyond this it is a mistake.
const SQL_BYTES_MAX: usize = 1 << 20;

/// SQLSTATE insufficient_privilege; 403 here.
const FORBIDDEN: &str = "42501";

/// Listens, serves in the background, and returns the address it is bound to.
/// `allow_statements`: whether `/v1/execute` takes any.
pub async fn serve(engine: Engine, inbox: Inbox, listen: SocketAddr, allow_statements: bool) -> Result<SocketAddr> {
    let (listener, bound) = crate::bind("--listen-http", listen).await?;
    let router = router(engine, inbox, allow_statements)?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the HTTP door on {bound} is closed: {error}");
        }
    });
    Ok(bound)
}

/// All routes.
pub fn router(engine: Engine, inbox: Inbox, allow_statements: bool) -> Result<Router> {
    let reader = Arc::new(Reader::new(engine.clone())?);
    let execute = if allow_statements { post(execute) } else { post(no_statements) };
    let executed = Router::new().route("/v1/execute", execute).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)).with_state(engine.clone());
    let asked = Router::new().route("/metrics", get(metrics)).route("/readyz", get(ready)).with_state(engine);
    let queried = Router::new().route("/v1/query", post(query)).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)).with_state(reader);
    Ok(Router::new().route("/healthz", get(|| async { "ok\n" })).merge(asked).merge(executed).merge(queried).merge(inbox.router()))
}

async fn metrics(State(engine): State<Engine>) -> Response {
    match TextEncoder::new().encode_to_string(&engine.registry().gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")).into_response(),
    }
}

async fn ready(State(engine): State<Engine>) -> Response {
    let health = engine.health();
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": health.ready, "reason": health.reason, "tick": health.tick, "lag_ms": health.lag_ms });
    (status, Json(body)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
}

async fn query(State(reader): State<Arc<Reader>>, question: Result<Json<Question>, JsonRejection>) -> Result<Response, Refusal> {
    let Json(question) = question.map_err(|rejection| {
        let error = Error::user(format!("the body is not a query: {}", rejection.body_text()));
        Refusal::new("22023", error.hint("send {\"sql\": \"SELECT …\"} as application/json"))
    })?;
    let answer = reader.query(&question.sql, ROWS_MAX).await?;
    told(&answer)
}

async fn no_statements() -> Refusal {
    let error = Error::user("statements are not taken here");
    Refusal::new(FORBIDDEN, error.hint("start the engine with tidegate run --allow-statements, or put them into the pack's .sql files"))
}

async fn execute(State(engine): State<Engine>, headers: HeaderMap, sql: String) -> Result<Response, Refusal> {
    refuse_web_pages(&headers)?;
    if text(&headers, header::CONTENT_TYPE).split(';').next().map(str::trim) != Some("application/sql") {
        let error = Error::user("statements are wanted as application/sql");
        return Err(Refusal::new("22023", error.hint("send the header Content-Type: application/sql")));
    }
    let done = engine.execute(&sql, "request").await?.into_iter().map(|response| match response {
        Executed::Done { tag } => tag,
        Executed::Rows { batches, .. } => format!("SELECT {}", batches.iter().map(RecordBatch::num_rows).sum::<usize>()),
    });
    Ok(Json(json!({ "done": done.collect::<Vec<_>>() })).into_response())
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
fn told(answer: &Answer) -> Result<Response, Refusal> {
    let fields = answer.schema.fields();
    let columns: Vec<_> = fields.iter().map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() })).collect();
    let body = json!({ "tick": answer.tick, "columns": columns });
    // The rows are JSON already: they follow as they are.
    let mut text = body.to_string();
    text.pop();
    text.push_str(",\"rows\":");
    text.push_str(&rows(&answer.batches)?);
    text.push('}');
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

fn rows(batches: &[RecordBatch]) -> Result<String, Refusal> {
    let builder = WriterBuilder::new().with_explicit_nulls(true).with_struct_mode(StructMode::ListOnly);
    let mut writer = builder.build::<_, JsonArray>(Vec::new());
    let written = batches.iter().try_for_each(|batch| writer.write(batch)).and_then(|()| writer.finish());
    written.map_err(|error| {
        let error = Error::user(format!("the rows cannot be written as JSON: {error}"));
        Refusal::new("0A000", error.hint("cast the column to TEXT"))
    })?;
    let bytes = writer.into_inner();
    // The writer writes nothing at all where there was no batch.
    Ok(if bytes.is_empty() { "[]".into() } else { String::from_utf8_lossy(&bytes).into_owned() })
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.error.fault {
            Fault::User if self.code == FORBIDDEN => StatusCode::FORBIDDEN,
            Fault::User => StatusCode::BAD_REQUEST,
            Fault::Conflict => StatusCode::CONFLICT,
            Fault::Engine => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.error.message, "hint": self.error.hint, "code": self.code }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

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

    async fn post(to: SocketAddr, path: &str, kind: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn statements_are_executed_and_queries_answered() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, "127.0.0.1:0".parse().unwrap(), true).await.unwrap();
        let sql = "CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2); CREATE MATERIALIZED VIEW v AS SELECT a FROM t WHERE a < 2";
        let answer = post(to, "/v1/execute", "application/sql", sql).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("INSERT 0 2"), "{answer}");
        let answer = post(to, "/v1/query", "application/json", r#"{"sql":"SELECT a FROM v"}"#).await;
        assert!(answer.contains(r#""rows":[[1]]"#), "{answer}");
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
    async fn statements_are_not_taken_unless_allowed() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, "127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let answer = post(to, "/v1/execute", "application/sql", "CREATE TABLE t (a INT)").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("--allow-statements"), "{answer}");
        assert!(engine.relations().iter().all(|relation| relation.name != "t"));
        engine.shutdown().await.unwrap();
    }
}
