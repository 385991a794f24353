//! The partner: a small system beside the demo that actions reach.
//!
//! POST /<any path>   a webhook's body, with an Idempotency-Key:
//!                    kind "do" holds the finding, "update" holds it instead of
//!                    the previous one, "undo" releases it
//! Answers            200 {"held": n}; a repeat is answered alike, and changes
//!                    nothing but a count. 400 where the body is no such request
//!
//! What is held is known by action and finding, so that any request may come
//! twice, and a finding that comes back is held again.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Bytes};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_types::error::{Error, Result};
use tokio::net::TcpListener;

/// Requests kept for the screen.
const RECENT_MAX: usize = 20;

pub struct Partner {
    pub addr: SocketAddr,
    book: Arc<Mutex<Book>>,
}

/// What the partner was asked so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub holds: u64,
    pub updates: u64,
    pub releases: u64,
    pub duplicates: u64,
    /// Held at this moment.
    pub held: u64,
}

/// One request that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// `/hold`
    pub path: String,
    pub action: String,
    pub tick: u64,
}

impl Partner {
    /// Listens on a free port of this machine, in the background.
    pub async fn start() -> Result<Self> {
        let failed = |error: std::io::Error| Error::engine(format!("the partner cannot listen on 127.0.0.1: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let book = Arc::new(Mutex::new(Book::default()));
        let router = Router::new().fallback(receive).with_state(book.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!("the partner on {addr} is gone: {error}");
            }
        });
        Ok(Self { addr, book })
    }

    pub fn counts(&self) -> Counts {
        let book = open(&self.book);
        Counts { held: book.held.len() as u64, ..book.counts.clone() }
    }

    /// The last requests, the newest first.
    pub fn recent(&self) -> Vec<Deed> {
        open(&self.book).recent.iter().cloned().collect()
    }
}

fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The body of a webhook.
#[derive(Deserialize)]
struct Request {
    action: String,
    kind: Kind,
    tick: u64,
    finding: Value,
    previous: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Do,
    Update,
    Undo,
}

async fn receive(State(book): State<Arc<Mutex<Book>>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |status: StatusCode, error: String| (status, Json(json!({ "error": error }))).into_response();
    if method != Method::POST {
        return refused(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not POST"));
    }
    if !headers.contains_key("idempotency-key") {
        return refused(StatusCode::BAD_REQUEST, "the header Idempotency-Key is missing".into());
    }
    match serde_json::from_slice::<Request>(&body) {
        Ok(request) => {
            let mut book = open(&book);
            book.enter(uri.path(), request);
            Json(json!({ "held": book.held.len() })).into_response()
        }
        Err(error) => refused(StatusCode::BAD_REQUEST, format!("the body is not an action's request: {error}")),
    }
}

#[derive(Default)]
struct Book {
    /// (action, finding)
    held: HashSet<(String, String)>,
    counts: Counts,
    recent: VecDeque<Deed>,
}

impl Book {
    fn enter(&mut self, path: &str, request: Request) {
        let Request { action, kind, tick, finding, previous } = request;
        let held = |finding: &Value| (action.clone(), finding.to_string());
        let (count, is_new) = match kind {
            Kind::Do => (&mut self.counts.holds, self.held.insert(held(&finding))),
            Kind::Update => {
                let was_held = previous.is_some_and(|previous| self.held.remove(&held(&previous)));
                (&mut self.counts.updates, self.held.insert(held(&finding)) || was_held)
            }
            Kind::Undo => (&mut self.counts.releases, self.held.remove(&held(&finding))),
        };
        if !is_new {
            self.counts.duplicates += 1;
            return;
        }
        *count += 1;
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.push_front(Deed { path: path.into(), action, tick });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: Kind, finding: &str, previous: Option<&str>) -> Request {
        let value = |ip: &str| json!({ "ip": ip });
        Request { action: "block_ip".into(), kind, tick: 5, finding: value(finding), previous: previous.map(value) }
    }

    #[test]
    fn repeats_change_nothing_and_a_finding_may_come_back() {
        let mut book = Book::default();
        book.enter("/block", request(Kind::Do, "a", None));
        book.enter("/block", request(Kind::Do, "a", None));
        book.enter("/block", request(Kind::Do, "b", None));
        book.enter("/block", request(Kind::Update, "c", Some("b")));
        book.enter("/block", request(Kind::Update, "c", Some("b")));
        book.enter("/unblock", request(Kind::Undo, "a", None));
        book.enter("/unblock", request(Kind::Undo, "a", None));
        book.enter("/block", request(Kind::Do, "a", None));
        assert_eq!(book.counts, Counts { holds: 3, updates: 1, releases: 1, duplicates: 3, held: 0 });
        assert_eq!(book.held.len(), 2);
        assert_eq!(book.recent.len(), 5);
    }
}
