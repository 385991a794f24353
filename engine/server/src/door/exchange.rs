//! HTTP/1.1 over one connection, for clients that may be slow, silent or hostile.
//!
//! In        a connection and the routes that answer its requests
//! Bounds    [`Pace`]; [`BUFFER_BYTES_MAX`] of memory each way, and so of a header: 431 beyond
//! Answers   the routes'. Where the client has not sent, or will not be read, to the end, the answer
//!           says `Connection: close`, and is the connection's last
//! Errors    a body that does not come in time ends in an error of kind `TimedOut`, which is the
//!           routes' to tell. A header that does not is cut without a word: there is no request yet
//! End       what the client was too slow with, if it was

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::patience::{Alarm, Pace, Patient, Turn};

/// With it, an idle connection holds less than 64 KiB.
pub const BUFFER_BYTES_MAX: usize = 32 << 10;

/// What a client can be too slow with.
pub const SLOW: [&str; 3] = ["header", "body", "answer"];

/// Answers requests until the connection ends: what the client was too slow with, if it was.
pub async fn attend(socket: TcpStream, routes: Router, pace: Pace) -> Option<&'static str> {
    let turn = Arc::new(Turn::new());
    let socket = TokioIo::new(Patient::new(socket, pace, turn.clone()));
    let routes = TowerToHyperService::new(routes);
    let answering = turn.clone();
    let service = service_fn(move |request| answer(request, routes.clone(), answering.clone(), pace));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(pace.idle_time_max).max_buf_size(BUFFER_BYTES_MAX);
    if let Err(error) = http.serve_connection(socket, service).await {
        tracing::debug!("an HTTP connection ended: {error}");
    }
    turn.slow()
}

async fn answer(
    request: Request<Incoming>,
    routes: TowerToHyperService<Router>,
    turn: Arc<Turn>,
    pace: Pace,
) -> Result<Response<Answer>, Infallible> {
    turn.exchange(request.body().is_end_stream());
    let request = request.map(|body| Body::new(Paced::new(body, pace, turn.clone())));
    let mut response = routes.call(request).await?;
    if !turn.is_body_whole() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer { body, turn }))
}

/// A request's body, as long as it keeps coming.
struct Paced {
    body: Incoming,
    pace: Pace,
    turn: Arc<Turn>,
    since: Instant,
    /// It is waited for since then.
    paused: Option<Instant>,
    alarm: Alarm,
}

impl Paced {
    fn new(body: Incoming, pace: Pace, turn: Arc<Turn>) -> Self {
        Self { body, pace, turn, since: Instant::now(), paused: None, alarm: Alarm::default() }
    }

    /// Whether it has not come in time; else the task is woken when it has not.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let paused = *self.paused.get_or_insert_with(Instant::now);
        self.alarm.is_past((paused + self.pace.body_pause_max).min(self.since + self.pace.body_time_max), cx)
    }

    fn late(&self) -> io::Error {
        self.turn.cut("body");
        let Pace { body_pause_max, body_time_max, .. } = self.pace;
        let bounds = format!("the body came too slowly: it may pause for {body_pause_max:?} and take {body_time_max:?}");
        io::Error::new(io::ErrorKind::TimedOut, bounds)
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            return if self.is_late(cx) { Poll::Ready(Some(Err(self.late().into()))) } else { Poll::Pending };
        }
        self.paused = None;
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.turn.body_is_whole();
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. When it is dropped, all of it is on its way.
struct Answer {
    body: Body,
    turn: Arc<Turn>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.turn.idle();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::super::tests::{SOON, cuts, tally};
    use super::super::{Seat, Seats, Tally, accept};
    use super::*;

    /// Longer than any test.
    const NEVER: Duration = Duration::from_secs(3600);

    /// A bound that is to be met.
    const BRIEF: Duration = Duration::from_millis(300);

    fn patient() -> Pace {
        Pace {
            header_time_max: NEVER,
            body_pause_max: NEVER,
            body_time_max: NEVER,
            answer_pause_max: NEVER,
            idle_time_max: NEVER,
            linger_time_max: NEVER,
        }
    }

    async fn taken(body: Body) -> (StatusCode, String) {
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(bytes) => (StatusCode::OK, format!("{} bytes", bytes.len())),
            Err(error) => (StatusCode::REQUEST_TIMEOUT, error.to_string()),
        }
    }

    /// A door with three routes: one that answers, one that reads a body, one that does not care to.
    async fn door(pace: Pace) -> (SocketAddr, Tally) {
        let routes = Router::new()
            .route("/", get(|| async { "well" }))
            .route("/read", post(taken))
            .route("/refuse", post(|| async { (StatusCode::TOO_MANY_REQUESTS, "no") }))
            .route("/much", get(|| async { vec![b'x'; 64 << 20] }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let tally = tally(&SLOW);
        let seat = move |socket: TcpStream, seat: Seat| {
            let routes = routes.clone();
            async move {
                if let Some(slow) = attend(socket, routes, pace).await {
                    seat.tally.cut(slow);
                }
            }
        };
        tokio::spawn(accept(listener, Seats::new(1000, tally.clone()), Vec::new(), seat));
        (to, tally)
    }

    async fn connect(to: SocketAddr, said: &str) -> TcpStream {
        let mut socket = TcpStream::connect(to).await.unwrap();
        socket.write_all(said.as_bytes()).await.unwrap();
        socket
    }

    /// All that comes until the connection ends.
    async fn rest(socket: &mut TcpStream) -> String {
        let mut all = Vec::new();
        let ended = timeout(SOON, socket.read_to_end(&mut all)).await.expect("the connection is still open");
        ended.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&all)));
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The answer whose body ends so.
    async fn until(socket: &mut TcpStream, end: &str) -> String {
        let mut all = String::new();
        while !all.ends_with(end) {
            let mut piece = [0; 1024];
            let count = timeout(SOON, socket.read(&mut piece)).await.expect("an answer").unwrap();
            assert_ne!(count, 0, "the connection ended after {all:?}");
            all.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        all
    }

    async fn all_are_gone(tally: &Tally) {
        let gone = async {
            while tally.seated.get() != 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, gone).await.expect("connections are left");
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[tokio::test]
    async fn slow_headers_are_cut_while_others_are_answered() {
        let (to, tally) = door(Pace { header_time_max: BRIEF, ..patient() }).await;
        let mut slow = Vec::new();
        for i in 0..300 {
            // Nothing, half a line, half a header.
            let said = ["", "GE", "GET / HTTP/1.1\r\nHost: x\r\nX-A: "][i % 3];
            slow.push(connect(to, said).await);
        }
        // One that never pauses for long, and never ends.
        let trickle = tokio::spawn(async move {
            let mut socket = connect(to, "GET / HTTP/1.1\r\n").await;
            while socket.write_all(b"X: y\r\n").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        for _ in 0..50 {
            let answer = until(&mut connect(to, GET).await, "well").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        for mut socket in slow {
            assert_eq!(rest(&mut socket).await, "");
        }
        timeout(SOON, trickle).await.expect("the trickle is cut").unwrap();
        all_are_gone(&tally).await;
        assert_eq!(cuts(&tally, "header"), 301);
    }

    #[tokio::test]
    async fn a_connection_may_be_idle_for_longer_than_a_header_may_take() {
        let (to, tally) = door(Pace { header_time_max: BRIEF, ..patient() }).await;
        let mut socket = connect(to, GET).await;
        until(&mut socket, "well").await;
        sleep(2 * BRIEF).await;
        // The next header has its own time, from its first byte on.
        socket.write_all(&GET.as_bytes()[..9]).await.unwrap();
        socket.write_all(&GET.as_bytes()[9..]).await.unwrap();
        until(&mut socket, "well").await;
        socket.write_all(&GET.as_bytes()[..9]).await.unwrap();
        assert_eq!(rest(&mut socket).await, "");
        all_are_gone(&tally).await;
        assert_eq!(cuts(&tally, "header"), 1);
    }

    #[tokio::test]
    async fn an_idle_connection_ends_without_being_a_slow_one() {
        let (to, tally) = door(Pace { idle_time_max: BRIEF, ..patient() }).await;
        let mut socket = connect(to, GET).await;
        until(&mut socket, "well").await;
        assert_eq!(rest(&mut socket).await, "");
        all_are_gone(&tally).await;
        assert_eq!(SLOW.map(|reason| cuts(&tally, reason)), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_body_may_neither_pause_nor_trickle_for_long() {
        let head = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegun";
        let paces = [Pace { body_pause_max: BRIEF, ..patient() }, Pace { body_time_max: BRIEF, linger_time_max: BRIEF, ..patient() }];
        for (pace, is_trickle) in paces.into_iter().zip([false, true]) {
            let (to, tally) = door(pace).await;
            let (mut read, mut write) = connect(to, head).await.into_split();
            let trickle = tokio::spawn(async move {
                while is_trickle && write.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_millis(20)).await;
                }
                write
            });
            let mut answer = vec![0; 4096];
            let count = timeout(SOON, read.read(&mut answer)).await.expect("an answer").unwrap();
            let answer = String::from_utf8_lossy(&answer[..count]).to_lowercase();
            assert!(answer.starts_with("http/1.1 408") && answer.contains("connection: close"), "{answer}");
            assert!(answer.contains("the body came too slowly"), "{answer}");
            drop((timeout(SOON, trickle).await, read));
            all_are_gone(&tally).await;
            assert_eq!(SLOW.map(|reason| cuts(&tally, reason)), [0, 1, 0], "trickle: {is_trickle}");
        }
    }

    #[tokio::test]
    async fn who_sends_more_than_is_read_hears_the_answer_all_the_same() {
        let (to, tally) = door(patient()).await;
        for length in [100, 10 << 20] {
            let mut socket = connect(to, &format!("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")).await;
            socket.write_all(&vec![b'x'; length]).await.unwrap();
            let answer = rest(&mut socket).await.to_lowercase();
            assert!(answer.starts_with("http/1.1 429") && answer.contains("connection: close"), "{answer}");
        }
        all_are_gone(&tally).await;
        assert_eq!(SLOW.map(|reason| cuts(&tally, reason)), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_connection_lasts_where_all_was_read() {
        let (to, _) = door(patient()).await;
        let mut socket = connect(to, "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfour").await;
        let answer = until(&mut socket, "4 bytes").await;
        assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
        socket.write_all(b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await.unwrap();
        let answer = until(&mut socket, "3 bytes").await;
        assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");
        // Also where nothing was sent that could be left.
        socket.write_all(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        until(&mut socket, "no").await;
        socket.write_all(GET.as_bytes()).await.unwrap();
        until(&mut socket, "well").await;
    }

    #[tokio::test]
    async fn who_does_not_take_its_answer_is_cut() {
        let (to, tally) = door(Pace { answer_pause_max: BRIEF, ..patient() }).await;
        let mut socket = connect(to, &GET.replace("/ ", "/much ")).await;
        timeout(SOON, socket.read_exact(&mut [0; 12])).await.expect("an answer").unwrap();
        all_are_gone(&tally).await;
        assert_eq!(SLOW.map(|reason| cuts(&tally, reason)), [0, 0, 1]);
        drop(socket);
    }

    #[tokio::test]
    async fn a_header_is_bounded() {
        let (to, _) = door(patient()).await;
        let mut socket = connect(to, &format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(2 * BUFFER_BYTES_MAX))).await;
        let mut answer = [0; 12];
        timeout(SOON, socket.read_exact(&mut answer)).await.expect("an answer").unwrap();
        assert_eq!(answer, *b"HTTP/1.1 431");
    }
}
