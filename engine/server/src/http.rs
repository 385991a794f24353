//! The HTTP door.
//!
//! GET  /metrics               Prometheus's text format
//! GET  /healthz               200 while the process lives
//! GET  /readyz                200 when the engine is ready, else 503; both say {"ready", "reason", "tick", "lag_ms"},
//!                             the reason also of what wants to be seen to although it is ready
//! POST /v1/query              {"sql"} -> {"tick", "columns", "rows"}, read-only,
//!                             bounds as in [`crate::read`] and [`ROWS_MAX`].
//!                             "code" of an error is a SQLSTATE
//! POST /v1/execute            statements as text, application/sql: {"done":
//!                             [tags], "notices": [what is worth knowing],
//!                             "answers": [as of a query, or null]}.
//!                             They run in order, up to the first error. 403
//!                             but with `run --allow-statements`, and for
//!                             whatever a web page could have sent
//! POST /v1/ingest/<source>    rows for a source with connector = 'http'
//!
//! Errors are {"error", "hint"}, a statement's also "line" and "column", and
//! what else is said above: 400, 403, 404,
//! 405, 408 the body came too slowly, 409 what a statement read changed before
//! it could write (run it again), 413, 500 the engine failed, 503 it is starting,
//! has no room for more rows, or all connections are in use. 503 and an ingest's
//! 429 say Retry-After.
//! Only what is no HTTP at all gets a bare 400 or 431.
//!
//! Bounds: [`Limits`], and as in [`crate::door`].

mod statements;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use prometheus::TextEncoder;
use serde_json::json;
use tidegate_connectors::Inbox;
use tidegate_runtime::Engine;
use tidegate_types::error::{Error, Fault, Result};
use tokio::net::TcpStream;

use self::statements::{execute, no_statements, query};
use crate::door::exchange::{SLOW, attend};
use crate::door::patience::Pace;
use crate::door::{Seat, Seats, Tally, accept, seats_affordable};
use crate::read::{Reader, Refusal, STARTING};

pub use self::statements::ROWS_MAX;

/// A query is text; beyond this it is a mistake.
const SQL_BYTES_MAX: usize = 1 << 20;

/// SQLSTATE insufficient_privilege; 403 here.
const FORBIDDEN: &str = "42501";

/// Seconds after which what could not be answered may be asked again.
const RETRY_AFTER: &str = "1";

const FULL_HINT: &str = "close what is not needed and come again, or start the engine with more --http-connections";

/// Connections at once, where no option says another number.
pub const CONNECTIONS_MAX: usize = 10_000;

/// How many clients there may be, and how slow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// None: [`CONNECTIONS_MAX`], or what the process may open files for.
    pub connections_max: Option<usize>,
    pub pace: Pace,
}

/// Listens, serves in the background, and returns the address it is bound to.
/// `allow_statements`: whether `/v1/execute` takes any.
pub async fn serve(engine: Engine, inbox: Inbox, listen: SocketAddr, allow_statements: bool, limits: Limits) -> Result<SocketAddr> {
    let (listener, bound) = crate::bind("--listen-http", listen).await?;
    let tally = tally(&engine, &inbox);
    let routes = router(engine, inbox, allow_statements)?;
    let connections_max = seats_affordable("--http-connections", limits.connections_max, CONNECTIONS_MAX);
    let seat = move |socket: TcpStream, seat: Seat| {
        let routes = routes.clone();
        async move {
            if let Some(slow) = attend(socket, routes, limits.pace).await {
                seat.tally.cut(slow);
            }
        }
    };
    tokio::spawn(accept(listener, Seats::new(connections_max, tally), full(connections_max), seat));
    Ok(bound)
}

/// What this door counts, of connections and of the sources' requests.
fn tally(engine: &Engine, inbox: &Inbox) -> Tally {
    let metrics = engine.metrics();
    let refused = metrics.source_refused_requests.clone();
    inbox.tell_refusals(move |source, status, more| refused.with_label_values(&[source, &status.to_string()]).inc_by(more));
    let (seated, turned_away) = (&metrics.door_connections, &metrics.door_refused_connections);
    let labels = &["http"];
    let (seated, turned_away) = (seated.with_label_values(labels), turned_away.with_label_values(labels));
    Tally::new("http", &SLOW, seated, turned_away, metrics.door_cut_connections.clone())
}

/// The answer where all connections are in use, by hand: no request is read for it.
fn full(connections_max: usize) -> Vec<u8> {
    let body = json!({ "error": format!("all {connections_max} connections are in use"), "hint": FULL_HINT }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Retry-After: {RETRY_AFTER}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// All routes.
pub fn router(engine: Engine, inbox: Inbox, allow_statements: bool) -> Result<Router> {
    let reader = Arc::new(Reader::new(engine.clone())?);
    let execute = if allow_statements { post(execute) } else { post(no_statements) };
    let executed = Router::new().route("/v1/execute", execute).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)).with_state(engine.clone());
    let ingested = inbox.router().layer(from_fn_with_state((engine.clone(), inbox), while_taken_in));
    let asked = Router::new().route("/metrics", get(metrics)).route("/readyz", get(ready)).with_state(engine);
    let queried = Router::new().route("/v1/query", post(query)).layer(DefaultBodyLimit::max(SQL_BYTES_MAX)).with_state(reader);
    let all = Router::new().route("/healthz", get(|| async { "ok\n" })).merge(asked).merge(executed).merge(queried).merge(ingested);
    Ok(all.fallback(no_such_path).method_not_allowed_fallback(no_such_method))
}

/// Which sources there are is known once the log is read, and they are there once they are started: before,
/// a 404 would be final where it must not be. While there is no room on the disk, what they take would wait
/// for longer than its client.
async fn while_taken_in(
    State((engine, inbox)): State<(Engine, Inbox)>,
    source: Result<Path<String>, PathRejection>,
    request: Request,
    next: Next,
) -> Response {
    let reason = match engine.is_recovered() {
        false => Some(format!("the engine is starting: {}", engine.health().reason)),
        true => engine.input_waits_for(),
    };
    let Some(reason) = reason else { return next.run(request).await };
    if let Ok(Path(source)) = source {
        inbox.count_refusal(&source, StatusCode::SERVICE_UNAVAILABLE);
    }
    let error = Error::engine(reason).hint("send the same again; /readyz tells when rows are taken in");
    told(StatusCode::SERVICE_UNAVAILABLE, &error, None)
}

async fn no_such_path(uri: Uri) -> Response {
    let hint = "there are /metrics, /healthz, /readyz, /v1/query, /v1/execute and /v1/ingest/<source>";
    told(StatusCode::NOT_FOUND, &Error::user(format!("there is nothing at {}", uri.path())).hint(hint), None)
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let error = Error::user(format!("{method} is not for {}", uri.path())).hint("the header Allow says what is");
    told(StatusCode::METHOD_NOT_ALLOWED, &error, None)
}

/// An error as all are told here. `code`: a SQLSTATE.
fn told(status: StatusCode, error: &Error, code: Option<&str>) -> Response {
    let mut body = json!({ "error": error.message, "hint": error.hint });
    if let Some(code) = code {
        body["code"] = code.into();
    }
    if let Some(place) = &error.place {
        (body["line"], body["column"]) = (place.line.into(), place.column.into());
    }
    again_later((status, Json(body)).into_response())
}

fn again_later(mut response: Response) -> Response {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

async fn metrics(State(engine): State<Engine>) -> Response {
    match TextEncoder::new().encode_to_string(&engine.registry().gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => {
            let error = Error::engine(format!("the metrics cannot be written: {error}"));
            told(StatusCode::INTERNAL_SERVER_ERROR, &error, None)
        }
    }
}

async fn ready(State(engine): State<Engine>) -> Response {
    let health = engine.health();
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ready": health.ready, "reason": health.reason, "tick": health.tick, "lag_ms": health.lag_ms });
    again_later((status, Json(body)).into_response())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match (self.code, self.error.fault) {
            (FORBIDDEN, _) => StatusCode::FORBIDDEN,
            (_, Fault::Conflict) => StatusCode::CONFLICT,
            (STARTING, _) | (_, Fault::NoRoom) => StatusCode::SERVICE_UNAVAILABLE,
            (_, Fault::Engine) => StatusCode::INTERNAL_SERVER_ERROR,
            (_, Fault::User | Fault::TooMuch) => StatusCode::BAD_REQUEST,
        };
        told(status, &self.error, Some(self.code))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    pub(super) fn local() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    pub(super) async fn post(to: SocketAddr, path: &str, kind: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
        say(to, &head, body).await
    }

    /// `head` without its last line and its host.
    pub(super) async fn say(to: SocketAddr, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(format!("{head}Host: {to}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Its status, its headers in lower case, and its body.
    pub(super) fn parts(answer: &str) -> (u16, String, serde_json::Value) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
        (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer:?}")))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_refusal_is_told_as_json() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let brief = std::time::Duration::from_millis(300);
        let pace = Pace { body_pause_max: brief, ..Pace::default() };
        let to = serve(engine.clone(), inbox, local(), true, Limits { pace, ..Limits::default() }).await.unwrap();
        engine.execute("CREATE SOURCE s (a INT) WITH (connector = 'http', queue_bytes_max = '64')", "test").await.unwrap();
        engine.start_sources().await.unwrap();
        let json = "Content-Type: application/json\r\n";
        let (query, execute, ingest) = ("POST /v1/query HTTP/1.1\r\n", "POST /v1/execute HTTP/1.1\r\n", "POST /v1/ingest/s HTTP/1.1\r\n");
        let closing = "Connection: close\r\n";
        let (large, larger, cut) = ("Content-Length: 2000000\r\n", "Content-Length: 9000000\r\n", "Content-Length: 100\r\n");
        let cases = [
            (format!("GET /nowhere HTTP/1.1\r\n{closing}"), 404, "there is nothing at /nowhere"),
            (format!("GET /v1/query HTTP/1.1\r\n{closing}"), 405, "GET is not for /v1/query"),
            (format!("POST /v1/ingest/%ff HTTP/1.1\r\n{closing}Content-Length: 0\r\n"), 400, "the path names no source"),
            (format!("POST /v1/ingest/t HTTP/1.1\r\n{closing}Content-Length: 0\r\n"), 404, "there is no source \"t\""),
            // A body that is left unread, or does not come, ends the connection by itself.
            (format!("{query}{json}{large}"), 413, "the body is larger than 1048576 bytes"),
            (format!("{execute}Content-Type: application/sql\r\n{large}"), 413, "the body is larger than 1048576 bytes"),
            (format!("{ingest}{larger}"), 413, "the body is larger than 8388608 bytes"),
            (format!("{query}{json}{cut}"), 408, "the body came too slowly"),
            (format!("{execute}Content-Type: application/sql\r\n{cut}"), 408, "the body came too slowly"),
            (format!("{ingest}{cut}"), 408, "the body came too slowly"),
            (format!("{ingest}Content-Type: text/csv\r\n{cut}"), 415, "Content-Type 'text/csv' is not taken"),
        ];
        for (head, status, said) in cases {
            let sent = if head.contains(large) { " ".repeat(2_000_000) } else { String::new() };
            let answer = say(to, &head, &sent).await;
            let (told, headers, body) = parts(&answer);
            assert_eq!(told, status, "{head}{answer}");
            assert!(body["error"].as_str().is_some_and(|error| error.contains(said)), "{head}{answer}");
            assert!(body["hint"].is_string() && headers.contains("connection: close"), "{head}{answer}");
        }
        assert!(say(to, &format!("GET /v1/query HTTP/1.1\r\n{closing}"), "").await.to_lowercase().contains("allow: post"));
        // What was cut is counted when the connection is gone.
        while engine.metrics().door_connections.with_label_values(&["http"]).get() != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let refused = |code: &str| engine.metrics().source_refused_requests.with_label_values(&["s", code]).get();
        assert_eq!(["400", "408", "413", "415", "429", "503"].map(refused), [0, 1, 1, 1, 0, 0]);
        let cut = |reason: &str| engine.metrics().door_cut_connections.with_label_values(&["http", reason]).get();
        assert_eq!(SLOW.map(cut), [0, 3, 0]);
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_that_come_before_the_sources_are_started_may_come_again() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), false, Limits::default()).await.unwrap();
        engine.execute("CREATE SOURCE s (a INT) WITH (connector = 'http')", "test").await.unwrap();
        for path in ["/v1/ingest/s", "/v1/ingest/t"] {
            let answer = post(to, path, "application/json", r#"{"a":1}"#).await;
            let (status, headers, body) = parts(&answer);
            assert!(status == 503 && body["error"].is_string(), "{answer}");
            assert!(headers.contains("retry-after: 1") && body["hint"].as_str().unwrap().contains("/readyz"), "{answer}");
        }
        engine.start_sources().await.unwrap();
        // At once: nobody waits for a tick that only rows would bring.
        assert!(post(to, "/v1/ingest/s", "application/json", r#"{"a":1}"#).await.starts_with("HTTP/1.1 200"));
        assert!(post(to, "/v1/ingest/t", "application/json", r#"{"a":1}"#).await.starts_with("HTTP/1.1 404"));
        let refused = engine.metrics().source_refused_requests.with_label_values(&["s", "503"]).get();
        assert_eq!(refused, 0, "no source was there that they could count for");
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refused_requests_are_counted_by_source_and_status_from_0_on() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let to = serve(engine.clone(), inbox, local(), false, Limits::default()).await.unwrap();
        engine.execute("CREATE SOURCE s (a INT) WITH (connector = 'http', queue_bytes_max = '64')", "test").await.unwrap();
        let scraped = || async { say(to, "GET /metrics HTTP/1.1\r\nConnection: close\r\n", "").await };
        let line = |code: u16, count: u64| format!("tidegate_source_refused_requests_total{{code=\"{code}\",source=\"s\"}} {count}\n");
        let metrics = scraped().await;
        for code in [400, 408, 413, 415, 429, 503] {
            assert!(metrics.contains(&line(code, 0)), "{metrics}");
        }
        engine.start_sources().await.unwrap();
        let json = "application/json";
        assert!(post(to, "/v1/ingest/s", json, &" ".repeat(100)).await.starts_with("HTTP/1.1 413"));
        for _ in 0..3 {
            assert!(post(to, "/v1/ingest/s", "text/plain", "x").await.starts_with("HTTP/1.1 415"));
        }
        assert!(post(to, "/v1/ingest/s", json, "x").await.starts_with("HTTP/1.1 400"));
        let metrics = scraped().await;
        for (code, count) in [(400, 1), (408, 0), (413, 1), (415, 3), (429, 0), (503, 0)] {
            assert!(metrics.contains(&line(code, count)), "{code}: {metrics}");
        }
        assert!(metrics.contains("tidegate_door_refused_connections_total{door=\"http\"} 0\n"), "{metrics}");
        assert!(metrics.contains("tidegate_door_connections{door=\"http\"} "), "{metrics}");
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_more_than_there_are_seats_is_told_to_come_again() {
        let inbox = Inbox::default();
        let engine = crate::tests::engine(inbox.clone());
        let limits = Limits { connections_max: Some(1), ..Limits::default() };
        let to = serve(engine.clone(), inbox, local(), false, limits).await.unwrap();
        let mut seated = TcpStream::connect(to).await.unwrap();
        seated.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(seated.read_u8().await.unwrap(), b'H');
        let answer = say(to, "GET /healthz HTTP/1.1\r\n", "").await;
        let (status, headers, body) = parts(&answer);
        assert_eq!((status, body["error"].as_str()), (503, Some("all 1 connections are in use")), "{answer}");
        assert!(headers.contains("retry-after: 1") && headers.contains("connection: close"), "{answer}");
        assert_eq!(engine.metrics().door_refused_connections.with_label_values(&["http"]).get(), 1);
        engine.shutdown().await.unwrap();
    }

    #[test]
    fn refusals_have_their_status() {
        let cases = [
            (Error::user("x").into(), 400),
            (Error::engine("x").into(), 500),
            (Error::conflict("x").into(), 409),
            (Error::too_much("x").into(), 400),
            (Refusal::new(FORBIDDEN, Error::user("x")), 403),
            (Refusal::new(STARTING, Error::engine("x")), 503),
        ];
        for (refusal, status) in cases {
            let code = refusal.code;
            let response = Refusal::into_response(refusal);
            assert_eq!(response.status().as_u16(), status, "{code}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503, "{code}");
        }
    }
}
