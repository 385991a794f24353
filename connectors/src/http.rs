//! `http` source: rows that are posted to `/v1/ingest/<source>`.
//!
//! Options   queue_bytes_max (32 MiB by default: bodies being read, inflated; and
//!             those in decoding or waiting, by what they take in memory, where
//!             that is more), max_line_bytes (one record; 1 MiB by default),
//!           format ('json', which is also the default)
//! Bodies    a JSON array, one JSON object per line, or objects one after the
//!           other; Content-Type application/json, application/*+json,
//!           application/x-ndjson, application/ndjson, application/jsonl (these
//!           three always line by line) or none, in UTF-8; Content-Encoding gzip
//!           or none. At most 8 MiB on the wire, 64 MiB inflated, 200 times the
//!           wire, and 256 MiB of rows and dead letters in memory: a record with
//!           nothing in it makes a row as wide as any other. One whose rows alone
//!           are more than the queue is taken where no others are in it. These
//!           types no web page can send unasked; with an Origin, none is not
//!           taken either
//! Rows      as in `format::json`
//! Delivery  200 only once the rows are committed. A client that hears nothing
//!           sends the same again: at least once; exactly once with the header
//!           Idempotency-Key (1 to 128 visible ASCII characters, another for
//!           each body). A key whose rows were taken is known for as long as it
//!           is among the last 10,000, also after a restart; a body that comes
//!           again under it is only counted, whatever is in it. The answer to a
//!           repeat comes after the commit of what it repeats
//! Counts    a record that is no row is a dead letter where another of its body
//!           is one. Where none is, the client is told so, nothing is kept, no
//!           key is remembered, and the records count as rejected. What is
//!           refused otherwise (408, 413, 415, 429, 503, and 400 for the header
//!           or the encoding) is in no count of records.
//!           Requests are counted apart: each that is refused, by source and
//!           status ([`Inbox::tell_refusals`])
//! Answers   200 {"accepted": n, "rejected": m}, the rejected being dead letters;
//!             with "repeated": k (and twice 0) for a repeat of k records
//!           400 nothing in the body is a row, or a bad Idempotency-Key
//!           404 no such source
//!           408 the body did not come in time, which is for the server to say
//!           413 too large, too many rows, or a bomb
//!           415 another type or encoding         429 the queue is full: retry
//!           503 the source went away before the commit: retry. Where no source
//!             takes anything in yet, or now, the server says it in its place
//!           Errors are {"error": …, "hint": …}; 429 and 503 say Retry-After
//! End       never; with --once, as soon as nothing is queued

mod body;
mod queue;
mod records;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::json;
use tidegate_types::connector::{Budget, DeadLetter, Offset, Polled, Source, SourceBatch, SourceSpec};
use tidegate_types::error::Result;
use tokio::sync::oneshot;

use self::body::{Coding, read_body};
use self::queue::{Delivery, Queue, Reservation};
use crate::format::json::JsonDecoder;
use crate::format::{Columns, Decoded, LINE_BYTES_MAX, memory_bytes};
use crate::options::OptionReader;

pub use self::body::is_too_slow;
pub(crate) use self::records::records;

/// What a body may come to, rows and dead letters: with all that is made of them,
/// far from what memory or one record of the log holds.
const ROWS_BYTES_MAX: usize = 256 << 20;

/// What a record takes beside its row while it is decoded: it is told apart, and numbered.
const RECORD_BYTES: usize = 40;

const QUEUE_BYTES_MAX: usize = 32 << 20;

const IDEMPOTENCY_KEY: &str = "idempotency-key";

const KEY_CHARS_MAX: usize = 128;

/// The statuses with which a source's requests are refused.
const REFUSED: [StatusCode; 6] = [
    StatusCode::BAD_REQUEST,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Hears the source, the status, and how many more requests were refused with it.
type Listener = Box<dyn Fn(&str, u16, u64) + Send + Sync>;

/// Where requests meet sources. Clones share one place.
#[derive(Clone, Default)]
pub struct Inbox {
    queues: Arc<Mutex<BTreeMap<String, Arc<Queue>>>>,
    listener: Arc<OnceLock<Listener>>,
}

impl Inbox {
    /// `listener(source, status, more)` hears of each refused request; and of no more than 0, by each
    /// status there is, once a source exists. The first who asks is told, and no other.
    pub fn tell_refusals(&self, listener: impl Fn(&str, u16, u64) + Send + Sync + 'static) {
        if self.listener.set(Box::new(listener)).is_ok() {
            let names: Vec<String> = self.queues.lock().keys().cloned().collect();
            names.iter().for_each(|name| self.tell_none(name));
        }
    }

    fn tell(&self, source: &str, status: StatusCode, more: u64) {
        if let Some(listener) = self.listener.get() {
            listener(source, status.as_u16(), more);
        }
    }

    fn tell_none(&self, source: &str) {
        REFUSED.into_iter().for_each(|status| self.tell(source, status, 0));
    }

    /// Counts a request that was refused before it came here. A name that no source has is its
    /// client's only, and is not counted.
    pub fn count_refusal(&self, source: &str, status: StatusCode) {
        let is_known = self.queues.lock().contains_key(source);
        if is_known {
            self.tell(source, status, 1);
        }
    }

    /// `POST /v1/ingest/{source}`, to be merged into the server's router. How long a body may take is
    /// the server's to bound: its stream then ends in an error of kind `TimedOut`.
    pub fn router(&self) -> Router {
        // Our own bounds are finer than axum's, and say what they are.
        Router::new().route("/v1/ingest/{source}", post(ingest)).layer(DefaultBodyLimit::disable()).with_state(self.clone())
    }

    /// A source that is only being checked must not take a running one's place.
    fn register_if_free(&self, name: &str, queue: &Arc<Queue>) {
        self.queues.lock().entry(name.to_string()).or_insert_with(|| queue.clone());
        self.tell_none(name);
    }

    fn register(&self, name: &str, queue: &Arc<Queue>) {
        self.queues.lock().insert(name.to_string(), queue.clone());
    }

    fn unregister(&self, name: &str, queue: &Arc<Queue>) {
        let mut queues = self.queues.lock();
        if queues.get(name).is_some_and(|registered| Arc::ptr_eq(registered, queue)) {
            queues.remove(name);
        }
    }

    fn find(&self, name: &str) -> Result<Arc<Queue>, Refusal> {
        let queues = self.queues.lock();
        queues.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = queues.keys().map(String::as_str).collect();
            let hint = match names.is_empty() {
                true => "no source has connector = 'http'".to_string(),
                false => format!("the sources with connector = 'http' are {}", names.join(", ")),
            };
            Refusal::new(StatusCode::NOT_FOUND, format!("there is no source \"{name}\" to post to"), hint)
        })
    }
}

pub struct HttpSource {
    name: String,
    schema: SchemaRef,
    inbox: Inbox,
    queue: Arc<Queue>,
    once: bool,
    polled: bool,
    /// Batches handed out so far; the offset of the last one.
    batches: u64,
    /// Handed out and not acknowledged.
    uncommitted: VecDeque<(u64, Vec<oneshot::Sender<()>>)>,
}

impl HttpSource {
    pub fn new(spec: &SourceSpec, inbox: &Inbox) -> Result<Self> {
        let mut options = OptionReader::new("source", &spec.name, &spec.options);
        options.one_of("format", &[("json", ())])?;
        let bytes_max = options.bytes("queue_bytes_max")?.unwrap_or(QUEUE_BYTES_MAX);
        let line_bytes_max = options.bytes("max_line_bytes")?.unwrap_or(LINE_BYTES_MAX);
        let columns = Columns::of(spec);
        let record_bytes = columns.row_bytes() + RECORD_BYTES;
        let decoder = JsonDecoder::new(columns, line_bytes_max)?;
        options.finish()?;
        let queue = Arc::new(Queue::new(decoder, bytes_max, record_bytes, spec.resume.as_ref()));
        inbox.register_if_free(&spec.name, &queue);
        Ok(Self {
            name: spec.name.clone(),
            schema: spec.schema.clone(),
            inbox: inbox.clone(),
            queue,
            once: spec.once,
            polled: false,
            batches: 0,
            uncommitted: VecDeque::new(),
        })
    }

    fn batch(&mut self, deliveries: Vec<Delivery>) -> SourceBatch {
        self.batches += 1;
        let rows = match deliveries.as_slice() {
            [only] => only.rows.clone(),
            all => {
                concat_batches(&self.schema, all.iter().map(|delivery| &delivery.rows)).expect("all deliveries are in the source's schema")
            }
        };
        let mut batch = SourceBatch { bytes: 0, offset: Offset(self.batches.to_string()), ..SourceBatch::of(rows) };
        let mut waiting = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            batch.dead.extend(delivery.dead);
            batch.bytes += delivery.bytes;
            batch.repeated += delivery.repeated;
            batch.rejected += delivery.rejected;
            batch.ids.extend(delivery.key);
            waiting.push(delivery.committed);
        }
        self.uncommitted.push_back((self.batches, waiting));
        batch
    }
}

#[async_trait]
impl Source for HttpSource {
    /// Cancel safe: rows leave the queue in the step that returns them.
    async fn poll(&mut self, budget: Budget) -> Result<Polled> {
        if !std::mem::replace(&mut self.polled, true) {
            self.inbox.register(&self.name, &self.queue);
        }
        loop {
            let deliveries = self.queue.take(budget.bytes_max);
            match (deliveries.is_empty(), self.once) {
                (false, _) => return Ok(Polled::Batch(self.batch(deliveries))),
                (true, true) => return Ok(Polled::End),
                (true, false) => self.queue.arrived.notified().await,
            }
        }
    }

    async fn acknowledge(&mut self, offset: Offset) {
        let upto = offset.0.parse().unwrap_or(0);
        while let Some((_, waiting)) = self.uncommitted.pop_front_if(|(batch, _)| *batch <= upto) {
            for client in waiting {
                // A client that hung up does not hear it; its rows stay.
                let _ = client.send(());
            }
        }
    }
}

impl Drop for HttpSource {
    fn drop(&mut self) {
        self.inbox.unregister(&self.name, &self.queue);
        self.queue.close();
    }
}

/// An answer that is not 200.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: String,
    hint: String,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: hint.into() }
    }

    fn too_large(error: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error, "send the rows in several requests")
    }

    fn too_many(what: &str) -> Self {
        let error = format!("{what} would take more than {ROWS_BYTES_MAX} bytes in memory");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, error, "send fewer rows per request")
    }

    fn full(queue_bytes_max: usize) -> Self {
        let error = format!("the source's queue of {queue_bytes_max} bytes is full");
        Self::new(StatusCode::TOO_MANY_REQUESTS, error, "send the same again after a second")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(json!({ "error": self.error, "hint": self.hint }))).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

pub(crate) async fn ingest(
    State(inbox): State<Inbox>,
    source: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(source) = source.map_err(|rejection| {
        Refusal::new(rejection.status(), format!("the path names no source: {}", rejection.body_text()), "POST /v1/ingest/<source>")
    })?;
    let queue = inbox.find(&source)?;
    let answered = take_in(&queue, &source, request).await;
    answered.inspect_err(|refusal| inbox.tell(&source, refusal.status, 1))
}

async fn take_in(queue: &Arc<Queue>, source: &str, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    let by_line = by_line(&parts.headers)?;
    let coding = Coding::of(&parts.headers)?;
    let (body, reservation) = read_body(queue, &parts.headers, body, coding).await?;

    let gone =
        || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("source \"{source}\" went away before the commit"), "send the same again");
    let position = format!("{source}: request {}, record", queue.requests.fetch_add(1, Ordering::Relaxed) + 1);
    let decoded = tokio::task::spawn_blocking(move || decode(&body, by_line, &position, reservation)).await;
    let (Decoded { rows, dead, .. }, reservation) = decoded.map_err(|_| gone())??;

    let (accepted, rejected) = (rows.num_rows(), dead.len());
    let refusal = dead.first().filter(|_| accepted == 0).map(nothing_is_a_row);
    if accepted + rejected == 0 {
        return Ok(answer(0, 0, None));
    }
    let (committed, is_committed) = oneshot::channel();
    let delivery = Delivery { rows, dead, repeated: 0, rejected: 0, key, bytes: reservation.hand_over(), committed };
    if let Some(refusal) = refusal {
        // Told once it is counted, or else the source is gone: refused it is either way.
        if queue.push(delivery.into_rejection()).is_some() {
            let _ = is_committed.await;
        }
        return Err(refusal);
    }
    let repeated = queue.push(delivery).ok_or_else(gone)?;
    is_committed.await.map_err(|_| gone())?;
    Ok(match repeated {
        0 => answer(accepted, rejected, None),
        _ => answer(0, 0, Some(repeated)),
    })
}

/// What a body comes to, within what it may take. `reservation` is for the body's bytes, and then for that.
fn decode(body: &[u8], by_line: bool, position: &str, mut reservation: Reservation) -> Result<(Decoded, Reservation), Refusal> {
    let queue = reservation.queue.clone();
    let count_max = ROWS_BYTES_MAX / queue.record_bytes;
    let records = records(body, by_line, count_max.saturating_add(1));
    if count_max < records.len() {
        return Err(Refusal::too_many(&format!("more than {count_max} rows")));
    }
    reservation.hold(body.len().max(records.len() * queue.record_bytes))?;
    let decoded = queue.decoder.decode_records(&records, position);
    let bytes = memory_bytes(&decoded.rows, &decoded.dead);
    if ROWS_BYTES_MAX < bytes {
        return Err(Refusal::too_many(&format!("the {} records", records.len())));
    }
    reservation.hold(body.len().max(bytes))?;
    Ok((decoded, reservation))
}

fn answer(accepted: usize, rejected: usize, repeated: Option<u64>) -> Response {
    let mut answer = json!({ "accepted": accepted, "rejected": rejected });
    if let Some(repeated) = repeated {
        answer["repeated"] = repeated.into();
    }
    axum::Json(answer).into_response()
}

fn nothing_is_a_row(first: &DeadLetter) -> Refusal {
    let error = format!("nothing in the body is a row; {}: {}", first.position, first.reason);
    Refusal::new(StatusCode::BAD_REQUEST, error, "send a JSON array of objects, or one JSON object per line")
}

/// The key a client sends with a body, to send it again under the same.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = given.next() else { return Ok(None) };
    let is_visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    match key.to_str() {
        Ok(key) if is_visible && (1..=KEY_CHARS_MAX).contains(&key.len()) && given.next().is_none() => Ok(Some(key.to_string())),
        _ => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "the header Idempotency-Key is not a key",
            format!("send one, of 1 to {KEY_CHARS_MAX} visible ASCII characters, such as a UUID"),
        )),
    }
}

/// Whether the body says it is one object per line.
fn by_line(headers: &HeaderMap) -> Result<bool, Refusal> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        // A page may send bytes of no type to wherever it likes.
        return if headers.contains_key(header::ORIGIN) { Err(not_taken("no Content-Type")) } else { Ok(false) };
    };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let (essence, parameters) = kind.split_once(';').unwrap_or((&kind, ""));
    let is_json_lines = match essence.trim() {
        "application/json" => Some(false),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(true),
        other if other.starts_with("application/") && other.ends_with("+json") => Some(false),
        _ => None,
    };
    let is_utf8 = parameters.split(';').filter_map(|parameter| parameter.trim().strip_prefix("charset=")).all(is_utf8);
    is_json_lines.filter(|_| is_utf8).ok_or_else(|| not_taken(&format!("Content-Type '{}'", kind.escape_default())))
}

fn is_utf8(charset: &str) -> bool {
    matches!(charset.trim_matches('"'), "utf-8" | "utf8")
}

fn not_taken(what: &str) -> Refusal {
    let hint = "send the header Content-Type: application/json, or application/x-ndjson for one object per line";
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{what} is not taken"), hint)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use axum::body::Body;
    use tidegate_types::time::WallClock;

    use super::*;

    /// Of so many BIGINT columns.
    pub(super) fn source(columns: usize, queue_bytes_max: usize, inbox: &Inbox) -> HttpSource {
        let fields: Vec<Field> = (0..columns).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
        let spec = SourceSpec {
            name: "s".into(),
            schema: Arc::new(Schema::new(fields)),
            columns_wanted: vec![true; columns],
            options: [("queue_bytes_max".to_string(), queue_bytes_max.to_string())].into(),
            folder: ".".into(),
            once: false,
            clock: Arc::new(WallClock),
            resume: None,
        };
        HttpSource::new(&spec, inbox).unwrap()
    }

    async fn post(inbox: Inbox, body: String) -> Result<Response, Refusal> {
        ingest(State(inbox), Ok(Path("s".into())), Request::new(Body::from(body))).await
    }

    /// Bytes and bodies.
    pub(super) fn held(queue: &Queue) -> (usize, usize) {
        let waiting = queue.waiting.lock();
        (waiting.reserved, waiting.decoded)
    }

    #[tokio::test]
    async fn a_body_of_too_many_rows_is_refused_before_they_are_made() {
        let inbox = Inbox::default();
        let source = source(13, QUEUE_BYTES_MAX, &inbox);
        let count_max = ROWS_BYTES_MAX / (13 * 8 + RECORD_BYTES);
        let many = "{}".repeat(count_max + 1);
        for body in [many.replace('}', "}\n"), format!("[{}]", many.replace('}', "},")), many] {
            let refusal = post(inbox.clone(), body).await.unwrap_err();
            assert_eq!(refusal.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(refusal.error, format!("more than {count_max} rows would take more than 268435456 bytes in memory"));
            assert_eq!(refusal.hint, "send fewer rows per request");
            assert_eq!(held(&source.queue), (0, 0));
        }
    }

    #[tokio::test]
    async fn rows_are_charged_by_what_they_take_in_memory() {
        let inbox = Inbox::default();
        let mut source = source(13, 1_000, &inbox);
        // More than the queue holds, but alone in it.
        let client = tokio::spawn(post(inbox.clone(), "{}\n".repeat(100)));
        let Polled::Batch(batch) = source.poll(Budget { bytes_max: 1_000 }).await.unwrap() else { panic!("no end") };
        assert_eq!((batch.rows.num_rows(), batch.bytes), (100, batch.rows.get_array_memory_size()));
        assert!(100 * 13 * 8 <= batch.bytes, "{} bytes", batch.bytes);
        assert_eq!(held(&source.queue), (0, 0));
        source.acknowledge(batch.offset).await;
        assert_eq!(client.await.unwrap().unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn only_json_is_taken() {
        let cases = [
            ("application/json", Some(false)),
            ("Application/JSON; charset=UTF-8", Some(false)),
            ("application/json;charset=\"utf-8\"; v=1", Some(false)),
            ("application/cloudevents-batch+json", Some(false)),
            ("application/x-ndjson", Some(true)),
            ("application/ndjson", Some(true)),
            ("application/jsonl", Some(true)),
            ("application/json; charset=latin1", None),
            ("application/json; v=1; charset=utf-16", None),
            ("application/jsonx", None),
            ("text/plain", None),
            ("text/plain; application/json", None),
            ("text/x+json", None),
            ("application/x-www-form-urlencoded", None),
            ("multipart/form-data; boundary=x", None),
            ("application/octet-stream", None),
            ("", None),
        ];
        for (kind, expected) in cases {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(by_line(&headers).ok(), expected, "{kind}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(by_line(&headers).ok(), Some(false));
        headers.insert(header::ORIGIN, "null".parse().unwrap());
        assert_eq!(by_line(&headers).unwrap_err().status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
