//! The HTTP door from outside: one request after the other on a connection that is kept.
//!
//! In      a status line, headers, and a body by its length, in chunks or up to the end
//! Out     [`Answer`], also from a peer that answers before it has read all
//! Errors  of the network, and `InvalidData` for what is no answer; the next request opens a new connection

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// Until a connection is there.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Of a line of the head.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// One that is longer is none of ours.
const BODY_BYTES_MAX: u64 = 256 << 20;

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The body's Content-Type.
    pub kind: &'a str,
    /// The header Idempotency-Key.
    pub key: Option<&'a str>,
    pub body: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The header Retry-After, in seconds.
    pub retry_after: Option<Duration>,
    pub body: String,
    /// The peer closes the connection behind it.
    is_last: bool,
}

pub struct Connection {
    to: SocketAddr,
    answer_time_max: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// Opened by the first request.
    pub fn new(to: SocketAddr, answer_time_max: Duration) -> Self {
        Self { to, answer_time_max, stream: None }
    }

    pub fn ask(&mut self, request: &Request) -> Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\r\n",
            request.method,
            request.path,
            self.to,
            request.kind,
            request.body.len(),
            request.key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default()
        );
        let written = stream.get_mut().write_all(head.as_bytes()).and_then(|()| stream.get_mut().write_all(request.body));
        // One that refuses a body need not read it.
        let answer = answer(&mut stream)?;
        if written.is_ok() && !answer.is_last {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn open(&self) -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.to, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.answer_time_max))?;
        stream.set_write_timeout(Some(self.answer_time_max))?;
        Ok(BufReader::new(stream))
    }
}

/// One request on a connection of its own; None where there is no answer.
pub fn exchange(to: SocketAddr, request: &Request) -> Option<Answer> {
    Connection::new(to, Duration::from_secs(30)).ask(request).ok()
}

/// A query's rows as objects; None where there is no answer.
pub fn ask(to: SocketAddr, sql: &str) -> Option<Vec<Value>> {
    let question = json!({ "sql": sql }).to_string();
    let request = Request { method: "POST", path: "/v1/query", kind: "application/json", key: None, body: question.as_bytes() };
    let answer = exchange(to, &request).filter(|answer| answer.status == 200)?;
    let answer: Value = serde_json::from_str(&answer.body).ok()?;
    let columns: Option<Vec<&str>> = answer["columns"].as_array()?.iter().map(|column| column["name"].as_str()).collect();
    let columns = columns?;
    let object = |row: &Value| {
        let cells = columns.iter().map(ToString::to_string).zip(row.as_array()?.iter().cloned());
        Some(Value::Object(cells.collect()))
    };
    answer["rows"].as_array()?.iter().map(object).collect()
}

pub fn answer(from: &mut impl BufRead) -> Result<Answer> {
    let status_line = line(from)?;
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("'{status_line}' is no status line")))?;
    let (mut length, mut is_chunked, mut is_last, mut retry_after) = (None, false, false, None);
    loop {
        let header = line(from)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| invalid(format!("'{header}' is no header")))?;
        match (name, value.trim()) {
            ("content-length", value) => length = Some(number(value, 10)?),
            ("transfer-encoding", value) => is_chunked = value == "chunked",
            ("connection", value) => is_last = value == "close",
            ("retry-after", value) => retry_after = Some(Duration::from_secs(number(value, 10)?)),
            _ => {}
        }
    }
    let mut body = Vec::new();
    match (length, is_chunked) {
        (_, true) => chunks(from, &mut body)?,
        (Some(length), false) => take(from, length, &mut body)?,
        (None, false) => {
            from.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
            is_last = true;
        }
    }
    let body = String::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
    Ok(Answer { status, retry_after, body, is_last })
}

fn chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> Result<()> {
    loop {
        let head = line(from)?;
        let length = number(head.split(';').next().unwrap_or_default(), 16)?;
        take(from, length, body)?;
        // Behind the last one are no trailers of ours.
        line(from)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn take(from: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> Result<()> {
    if BODY_BYTES_MAX < body.len() as u64 + length {
        return Err(invalid(format!("the body is longer than {BODY_BYTES_MAX} bytes")));
    }
    match from.take(length).read_to_end(body)? as u64 == length {
        true => Ok(()),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Without its end.
fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.take(LINE_BYTES_MAX).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_string()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn number(text: &str, radix: u32) -> Result<u64> {
    u64::from_str_radix(text.trim(), radix).map_err(|_| invalid(format!("'{text}' is no number")))
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let read = |mut bytes: &[u8]| answer(&mut bytes).map(|answer| (answer, bytes.len())).map_err(|error| error.kind());
        let expected = |status, seconds: Option<u64>, body: &str, is_last| {
            let retry_after = seconds.map(Duration::from_secs);
            Answer { status, retry_after, body: body.into(), is_last }
        };
        let cases: [(&[u8], std::result::Result<(Answer, usize), ErrorKind>); 10] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest", Ok((expected(200, None, "{}", false), 4))),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n",
                Ok((expected(200, None, "abcde", false), 0)),
            ),
            (
                b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                Ok((expected(429, Some(1), "", true), 0)),
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nto the end", Ok((expected(200, None, "to the end", true), 0))),
            (b"", Err(ErrorKind::UnexpectedEof)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", Err(ErrorKind::UnexpectedEof)),
            (b"HTTP/1.1 200 OK\r\nContent-Le", Err(ErrorKind::UnexpectedEof)),
            (b"SSH-2.0-x\r\n", Err(ErrorKind::InvalidData)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", Err(ErrorKind::InvalidData)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", Err(ErrorKind::InvalidData)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
