//! A client's socket that is waited for only so long.
//!
//! In        a connection, and at what its HTTP exchange is ([`Turn`])
//! Out       the same bytes
//! Errors    `TimedOut`, and the turn says what the client was too slow with: its `header` was not
//!           whole in time, or it took nothing of its `answer`. The body is for [`super::exchange`]
//! End       where the client still sends what nobody will read, that is read for a while and dropped
//!           behind the answer; the client's system would discard the answer otherwise
//! State     two timers at most, each while it runs

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How slow a client may be.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the first byte of a header, or of the connection, to the header's end.
    pub header_time_max: Duration,
    /// Between two pieces of a body.
    pub body_pause_max: Duration,
    /// From the header's end to the body's.
    pub body_time_max: Duration,
    /// Until the client takes more of its answer.
    pub answer_pause_max: Duration,
    /// From an answer to the end of the next request's header.
    pub idle_time_max: Duration,
    /// What is sent and not read is read for so long behind an answer.
    pub linger_time_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            header_time_max: Duration::from_secs(10),
            body_pause_max: Duration::from_secs(10),
            body_time_max: Duration::from_secs(30),
            answer_pause_max: Duration::from_secs(30),
            // Scrapers and shippers of logs come back within a minute, and like to find their connection.
            idle_time_max: Duration::from_secs(75),
            linger_time_max: Duration::from_secs(2),
        }
    }
}

/// What a connection is at, between its socket and its exchange.
pub struct Turn(Mutex<State>);

struct State {
    at: At,
    is_body_whole: bool,
    slow: Option<&'static str>,
}

enum At {
    /// A header is on its way since then.
    Header(Instant),
    Exchange,
    Idle,
}

impl Turn {
    pub fn new() -> Self {
        Self(Mutex::new(State { at: At::Header(Instant::now()), is_body_whole: true, slow: None }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two of its changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's header is there.
    pub fn exchange(&self, is_body_whole: bool) {
        let mut state = self.state();
        (state.at, state.is_body_whole) = (At::Exchange, is_body_whole);
    }

    pub fn body_is_whole(&self) {
        self.state().is_body_whole = true;
    }

    pub fn is_body_whole(&self) -> bool {
        self.state().is_body_whole
    }

    /// The answer is on its way.
    pub fn idle(&self) {
        self.state().at = At::Idle;
    }

    /// The client is not waited for any longer.
    pub fn cut(&self, reason: &'static str) {
        self.state().slow.get_or_insert(reason);
    }

    /// What the client was too slow with.
    pub fn slow(&self) -> Option<&'static str> {
        self.state().slow
    }

    /// Something came.
    fn heard(&self) {
        let mut state = self.state();
        if matches!(state.at, At::Idle) {
            state.at = At::Header(Instant::now());
        }
    }

    fn header_since(&self) -> Option<Instant> {
        match self.state().at {
            At::Header(since) => Some(since),
            At::Exchange | At::Idle => None,
        }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}

/// Wakes its task at a moment.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether the moment is past; else the task is woken when it is.
    pub fn is_past(&mut self, moment: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(moment)));
        if sleep.deadline() != moment {
            sleep.as_mut().reset(moment);
        }
        // A timer may ask for its task to yield first; a busy one's moment passes all the same.
        sleep.as_mut().poll(cx).is_ready() || moment <= Instant::now()
    }

    pub fn forget(&mut self) {
        self.0 = None;
    }
}

pub struct Patient<S> {
    socket: S,
    pace: Pace,
    turn: Arc<Turn>,
    reading: Alarm,
    writing: Alarm,
    /// The client takes nothing since then.
    stalled: Option<Instant>,
    /// The answer is whole, and the client knows, since then.
    shut: Option<Instant>,
}

impl<S> Patient<S> {
    pub fn new(socket: S, pace: Pace, turn: Arc<Turn>) -> Self {
        Self { socket, pace, turn, reading: Alarm::default(), writing: Alarm::default(), stalled: None, shut: None }
    }

    fn too_slow(&self, with: &'static str) -> io::Error {
        self.turn.cut(with);
        io::Error::new(io::ErrorKind::TimedOut, format!("the client was too slow with its {with}"))
    }

    fn written(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.writing.forget();
            self.stalled = None;
            return written;
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        match self.writing.is_past(since + self.pace.answer_pause_max, cx) {
            true => Poll::Ready(Err(self.too_slow("answer"))),
            false => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if before < buffer.filled().len() {
            self.turn.heard();
        }
        match self.turn.header_since() {
            Some(since) if read.is_pending() => {
                let by = since + self.pace.header_time_max;
                if self.reading.is_past(by, cx) {
                    return Poll::Ready(Err(self.too_slow("header")));
                }
            }
            Some(_) => {}
            None => self.reading.forget(),
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.written(written, cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.shut = Some(Instant::now());
        }
        if self.turn.is_body_whole() {
            return Poll::Ready(Ok(()));
        }
        let by = self.shut.expect("set above") + self.pace.linger_time_max;
        let mut unread = [0; 4096];
        loop {
            if self.reading.is_past(by, cx) {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // It heard the answer, or is gone.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
