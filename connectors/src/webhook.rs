//! `webhook` responder: a finding and its withdrawal as requests to the
//! outside world.
//!
//! Options   url (required, http or https), undo_url (without it findings are
//!             never undone), update_url (url by default; kind says "update")
//!           method ('POST' by default, 'PUT', 'PATCH')
//!           timeout ('10s' by default; connecting and answer included)
//!           header.<Name> (any number)
//!           A URL or a header may be 'env:NAME': the value of that environment
//!           variable, read when the action is created
//! Body      {"id", "key", "action", "kind": "do" | "update" | "undo", "tick",
//!             "finding": {…}, "previous": {…} for an update}
//!           and the header Idempotency-Key: <key>
//! Delivery  one attempt per call, at least once in all: the other side tells
//!           repeats by the key, which each request has for itself, and what
//!           belongs together by the id, which is the finding's
//! Answers   2xx: done. 408, 429, 5xx, a timeout, no connection: try again,
//!           after Retry-After where it is given. Anything else is final;
//!           redirects are not followed. 64 KiB of an answer are read
//!           No connection and 4xx: surely not done. Any other failure may be done
//! Errors    name the host and never a header, a path, a query or what is no URL:
//!           those may be secrets. Control characters in what the other side says are cut out

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::json;
use tidegate_types::connector::{ActionFailure, ActionKind, ActionRequest, Responder, SinkSpec};
use tidegate_types::error::{Error, Result};
use tidegate_types::time::{Clock, WallClock};

use crate::options::OptionReader;

const ANSWER_BYTES_MAX: usize = 64 << 10;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait another side may ask for: a day.
const RETRY_AFTER_MS_MAX: u64 = 86_400_000;

/// The options, validated.
struct WebhookOptions {
    url: Url,
    undo_url: Option<Url>,
    update_url: Option<Url>,
    method: Method,
    timeout: Duration,
    headers: HeaderMap,
}

impl WebhookOptions {
    fn new(spec: &SinkSpec) -> Result<Self> {
        let mut options = OptionReader::new("action", &spec.name, &spec.options);
        let url = options.required("url", "https://example.com/hook")?;
        let url = Url::new("url", &url, &options)?;
        let mut other = |key| options.text(key).map(|url| Url::new(key, &url, &options)).transpose();
        let (undo_url, update_url) = (other("undo_url")?, other("update_url")?);
        let methods = [("POST", Method::POST), ("PUT", Method::PUT), ("PATCH", Method::PATCH)];
        let method = options.one_of("method", &methods)?.unwrap_or(Method::POST);
        let timeout = options.duration("timeout")?.unwrap_or(TIMEOUT);
        let given = options.prefixed("header.");
        let headers = given.iter().map(|(name, value)| parse_header(name, value, &options)).collect::<Result<HeaderMap>>()?;
        options.finish()?;
        Ok(Self { url, undo_url, update_url, method, timeout, headers })
    }
}

/// Where a request goes. Shown as its host: the rest may be a secret.
struct Url(Uri);

impl Url {
    /// Errors: repeat nothing of `text`.
    fn new(key: &'static str, text: &str, options: &OptionReader) -> Result<Self> {
        let resolved = options.resolve(text, key)?;
        let refused = |what: &str, hint: &str| options.refused(format!("option \"{key}\" {what}")).hint(hint);
        let uri: Uri = resolved.parse().map_err(|_| refused("is no URL", "for example 'https://example.com/hook'"))?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => Ok(Self(uri)),
            (Some("http" | "https"), Some(_)) => {
                Err(refused("has credentials in its URL", "put them into header.Authorization = 'env:NAME'"))
            }
            _ => Err(refused("is not a URL that begins with 'http://' or 'https://'", "for example 'https://example.com/hook'")),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme_str().unwrap_or_default(), self.0.authority().map_or("", |authority| authority.as_str()))
    }
}

fn parse_header(name: &str, value: &str, options: &OptionReader) -> Result<(HeaderName, HeaderValue)> {
    let key = format!("header.{name}");
    let resolved = options.resolve(value, &key)?;
    let parsed_name: HeaderName = name.parse().map_err(|_| {
        options.refused(format!("option \"{key}\" does not name a header")).hint("for example header.Authorization = 'env:TOKEN'")
    })?;
    if [HOST, CONTENT_TYPE, hyper::header::CONTENT_LENGTH, hyper::header::TRANSFER_ENCODING].contains(&parsed_name)
        || name.eq_ignore_ascii_case("idempotency-key")
    {
        return Err(options.refused(format!("option \"{key}\": this header is set by the engine")).hint("leave it out"));
    }
    // The value may be a secret: it is not repeated, here or in any message.
    let mut parsed = HeaderValue::from_str(&resolved).map_err(|_| {
        options
            .refused(format!("option \"{key}\": the value has line breaks or other control characters"))
            .hint("a header is one line of text")
    })?;
    parsed.set_sensitive(true);
    Ok((parsed_name, parsed))
}

pub struct Webhook {
    options: WebhookOptions,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Webhook {
    pub fn new(spec: &SinkSpec) -> Result<Self> {
        let options = WebhookOptions::new(spec)?;
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| Error::engine(format!("TLS cannot be set up: {error}")))?;
        let connector = tls.https_or_http().enable_http1().build();
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Ok(Self { options, client })
    }

    fn url(&self, kind: ActionKind) -> Option<&Url> {
        let options = &self.options;
        match kind {
            ActionKind::Do => Some(&options.url),
            ActionKind::Update => Some(options.update_url.as_ref().unwrap_or(&options.url)),
            ActionKind::Undo => options.undo_url.as_ref(),
        }
    }

    fn request(&self, url: &Url, action: &ActionRequest) -> Result<Request<Full<Bytes>>, ActionFailure> {
        let key = HeaderValue::from_str(&action.key).map_err(|_| failed("the request's key cannot be a header".into()))?;
        let mut request = Request::new(Full::new(body(action)));
        *request.method_mut() = self.options.method.clone();
        *request.uri_mut() = url.0.clone();
        let headers = request.headers_mut();
        headers.extend(self.options.headers.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", key);
        Ok(request)
    }

    async fn exchange(&self, url: &Url, request: Request<Full<Bytes>>) -> Result<(), ActionFailure> {
        let answer = self.client.request(request).await.map_err(|error| ActionFailure {
            may_be_done: !error.is_connect(),
            ..retryable(format!("{url} cannot be reached: {}", causes(&error)))
        })?;
        let (status, retry_after_ms) = (answer.status(), retry_after_ms(answer.headers(), WallClock.now_ms()));
        // Read even on success, so that the connection can be used again.
        let said = read(answer).await;
        let may_be_done = !status.is_client_error();
        match verdict(status) {
            Verdict::Done => Ok(()),
            Verdict::Retry => Err(ActionFailure { retry_after_ms, may_be_done, ..retryable(format!("{url} answered {status}{said}")) }),
            Verdict::Final => Err(ActionFailure { may_be_done, ..failed(format!("{url} answered {status}{said}")) }),
        }
    }
}

/// Headers and paths may be secrets.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.options.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Webhook").field("url", &self.options.url.to_string()).field("headers", &names).finish_non_exhaustive()
    }
}

#[async_trait]
impl Responder for Webhook {
    async fn send(&self, request: &ActionRequest) -> Result<(), ActionFailure> {
        let url = self.url(request.kind).ok_or_else(|| failed(format!("no URL is set for \"{}\"", request.kind.as_str())))?;
        let message = self.request(url, request)?;
        match tokio::time::timeout(self.options.timeout, self.exchange(url, message)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(retryable(format!("{url} did not answer within {:?}", self.options.timeout))),
        }
    }

    fn supports(&self, kind: ActionKind) -> bool {
        self.url(kind).is_some()
    }
}

fn body(action: &ActionRequest) -> Bytes {
    let mut body = json!({
        "id": action.id,
        "key": action.key,
        "action": action.action,
        "kind": action.kind.as_str(),
        "tick": action.tick,
        "finding": action.finding,
    });
    if let Some(previous) = &action.previous {
        body["previous"] = previous.clone();
    }
    body.to_string().into()
}

fn failed(message: String) -> ActionFailure {
    ActionFailure { message, retryable: false, retry_after_ms: None, may_be_done: false }
}

fn retryable(message: String) -> ActionFailure {
    ActionFailure { message, retryable: true, retry_after_ms: None, may_be_done: true }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Retry,
    Final,
}

fn verdict(status: StatusCode) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Done,
        408 | 429 | 500..=599 => Verdict::Retry,
        _ => Verdict::Final,
    }
}

/// The beginning of what the other side says, for the message.
async fn read(answer: Response<hyper::body::Incoming>) -> String {
    const CHARS_MAX: usize = 200;
    let Ok(collected) = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await else { return String::new() };
    let text = String::from_utf8_lossy(&collected.to_bytes()).chars().filter(|c| !is_unprintable(*c)).take(CHARS_MAX).collect::<String>();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// Control characters, and those that turn the direction of writing around:
/// a log shows what the other side says.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Seconds, or a date, as milliseconds from now.
fn retry_after_ms(headers: &HeaderMap, now_ms: u64) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        Err(_) => {
            let at = DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis();
            u64::try_from(at).unwrap_or(0).saturating_sub(now_ms)
        }
    };
    Some(ms.min(RETRY_AFTER_MS_MAX))
}

/// hyper's outermost error says little; its causes say what happened.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use tidegate_types::disk::LocalDisk;

    use super::*;

    fn webhook(options: &[(&str, &str)]) -> Result<Webhook> {
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let (schema, disk) = (Arc::new(Schema::empty()), Arc::new(LocalDisk));
        Webhook::new(&SinkSpec { name: "hold".into(), schema, options, folder: PathBuf::new(), disk })
    }

    #[test]
    fn verdicts() {
        let cases = [(200, Verdict::Done), (204, Verdict::Done), (301, Verdict::Final), (400, Verdict::Final), (404, Verdict::Final)];
        let again = [408, 429, 500, 503, 599].map(|status| (status, Verdict::Retry));
        for (status, expected) in cases.into_iter().chain(again) {
            assert_eq!(verdict(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now_ms = 1_445_412_420_000; // Wed, 21 Oct 2015 07:27:00 GMT
        let cases = [
            ("120", Some(120_000)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(60_000)),
            ("Wed, 21 Oct 2015 07:26:00 GMT", Some(0)),
            ("soon", None),
            ("99999999999999999999", None),
            ("999999999", Some(RETRY_AFTER_MS_MAX)),
        ];
        for (text, expected) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after_ms(&headers, now_ms), expected, "{text}");
        }
    }

    #[test]
    fn refusals_repeat_no_secret() {
        let url = ("url", "https://example.com/secret");
        let cases: [(&[(&str, &str)], &str); 10] = [
            (&[], "action \"hold\" needs the option \"url\""),
            (&[("url", "ftp://x/hush")], "option \"url\" is not a URL that begins with 'http://' or 'https://'"),
            (&[("url", "example.com/hush")], "option \"url\" is no URL\nhint: for example"),
            (&[("url", "https://user:hush@x/")], "option \"url\" has credentials in its URL\nhint: put them into header.Authorization"),
            (&[url, ("undo_url", "https://x/ hush")], "option \"undo_url\" is no URL"),
            (&[url, ("header.X", "hush\r\nY: b")], "option \"header.X\": the value has line breaks"),
            (&[url, ("header.a b", "x")], "option \"header.a b\" does not name a header"),
            (&[url, ("header.Host", "x")], "this header is set by the engine"),
            (&[url, ("header.X", "env:TIDEGATE_NOT_SET")], "the environment variable TIDEGATE_NOT_SET is not set"),
            (&[url, ("undo_ul", "x")], "has no option \"undo_ul\"\nhint: did you mean \"undo_url\"?"),
        ];
        for (options, message) in cases {
            let error = webhook(options).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
        let shown = format!("{:?}", webhook(&[url, ("header.Authorization", "Bearer hush")]).unwrap());
        assert!(!shown.contains("hush") && !shown.contains("secret"), "{shown}");
    }

    #[tokio::test]
    async fn failures_say_what_may_be_done() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let cases = [("500 Oops", true), ("302 Found", true), ("408 Slow", false), ("429 Later", false), ("404 No", false), ("", true)];
        let action = ActionRequest {
            id: "1".into(),
            key: "1-do".into(),
            action: "hold".into(),
            kind: ActionKind::Do,
            tick: 1,
            finding: json!({}),
            previous: None,
        };
        for (status, may_be_done) in cases {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let peer = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                // Without a status the connection is closed and nothing was said.
                let answer = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n") };
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
            let responder = || webhook(&[("url", &url), ("timeout", "5s")]).unwrap();
            assert_eq!(responder().send(&action).await.unwrap_err().may_be_done, may_be_done, "{status}");
            peer.await.unwrap();
            assert!(!responder().send(&action).await.unwrap_err().may_be_done, "nobody listens any more");
        }
    }

    #[test]
    fn undo_needs_its_url() {
        let plain = webhook(&[("url", "http://x/a")]).unwrap();
        assert!(plain.supports(ActionKind::Do) && plain.supports(ActionKind::Update) && !plain.supports(ActionKind::Undo));
        assert!(webhook(&[("url", "http://x/a"), ("undo_url", "http://x/b")]).unwrap().supports(ActionKind::Undo));
    }
}
