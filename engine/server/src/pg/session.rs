//! One client's session: its messages one after the other, each whole and checked before it is decoded.
//!
//! Why     pgwire's own loop waits for messages of a gibibyte, and its decoders believe the counts and lengths in
//!         them, and panic where these lie
//! Bounds  [`STARTUP_BYTES_MAX`] for the introduction, then [`MESSAGE_BYTES_MAX`]
//! Errors  who says what is no message is told so, and let go: where the next one would begin is not known

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use datafusion_postgres::pgwire::api::{ClientInfo, DefaultClient, ErrorHandler, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use datafusion_postgres::pgwire::tokio::server::{PgWireMessageServerCodec, process_error, process_message};
use futures::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Framed};

use super::{Door, Prepared, Teller};
use crate::door::part;

/// As Postgres has it.
const STARTUP_BYTES_MAX: usize = 10_000;
/// What a statement may have, and room for the values that are bound to it.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Read at once, at least.
const READ_BYTES: usize = 8 << 10;

/// What libpq asks before it introduces itself: may this be encrypted, by TLS or by GSS?
const ENCRYPTION_REQUESTS: [[u8; 8]; 2] = [[0, 0, 0, 8, 4, 210, 22, 47], [0, 0, 0, 8, 4, 210, 22, 48]];

type Client = Framed<TcpStream, PgWireMessageServerCodec<Prepared>>;

/// Serves a client until it goes, or says what is no message.
pub(super) async fn converse(socket: TcpStream, door: Door) -> io::Result<()> {
    let address = socket.peer_addr()?;
    socket.set_nodelay(true)?;
    let mut client: Client = Framed::new(socket, PgWireMessageServerCodec::new(DefaultClient::new(address, false)));
    client.set_state(PgWireConnectionState::AwaitingStartup);
    let (Door { service, startup, cancel }, no_copies) = (door, Arc::new(NoopHandler));
    let mut heard = BytesMut::new();
    loop {
        let message = match next(&mut client, &mut heard).await {
            Ok(None | Some(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Ok(Some(message)) => message,
            Err(error) => return let_go(client, error).await,
        };
        let is_extended = message.is_extended_query();
        let (startup, service, no_copies, cancel) = (startup.clone(), service.clone(), no_copies.clone(), cancel.clone());
        let processed = process_message(message, &mut client, startup, service.clone(), service, no_copies, cancel).await;
        if let Err(mut error) = processed {
            Teller.on_error(&client, &mut error);
            process_error(&mut client, error, is_extended).await?;
        }
    }
}

/// The client's next message; None: it is gone.
async fn next(client: &mut Client, heard: &mut BytesMut) -> PgWireResult<Option<PgWireFrontendMessage>> {
    loop {
        let is_introduced = !matches!(client.state(), PgWireConnectionState::AwaitingStartup);
        if let Some(length) = whole(heard, is_introduced)? {
            let mut message = heard.split_to(length);
            if is_introduced || !ENCRYPTION_REQUESTS.iter().any(|request| request[..] == message[..]) {
                let decoded = client.codec_mut().decode(&mut message)?;
                return decoded.map(Some).ok_or_else(no_message);
            }
            client.get_mut().write_all(b"N").await?;
        } else {
            heard.reserve(READ_BYTES);
            if client.get_mut().read_buf(heard).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Tells the client why, where it still listens.
async fn let_go(mut client: Client, why: PgWireError) -> io::Result<()> {
    if let PgWireError::IoError(error) = why {
        return Err(error);
    }
    client.send(PgWireBackendMessage::ErrorResponse(ErrorInfo::from(why).into())).await?;
    part(client.into_inner()).await
}

/// The length of the first message, once all of it was heard. Errors: it is too long, or not what its type says.
fn whole(heard: &[u8], is_introduced: bool) -> PgWireResult<Option<usize>> {
    let (head, bytes_max) = if is_introduced { (1, MESSAGE_BYTES_MAX) } else { (0, STARTUP_BYTES_MAX) };
    let Some(length) = heard.get(head..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if bytes_max < length {
        return Err(too_long(length, bytes_max));
    }
    if length < 4 {
        return Err(no_message());
    }
    let Some(mut body) = heard.get(head + 4..head + length) else { return Ok(None) };
    let read = match is_introduced {
        true => read(heard[0], &mut body),
        false => skip(&mut body, 4).map(|()| body = &[]),
    };
    if read.is_some() && body.is_empty() { Ok(Some(head + length)) } else { Err(no_message()) }
}

/// Reads what a message of this type has. None: it has not.
fn read(kind: u8, body: &mut &[u8]) -> Option<()> {
    match kind {
        // Query, CopyFail
        b'Q' | b'f' => text(body),
        // Parse
        b'P' => {
            text(body)?;
            text(body)?;
            numbers(body, 4)
        }
        // Bind
        b'B' => {
            text(body)?;
            text(body)?;
            numbers(body, 2)?;
            (0..count(body)?).try_for_each(|_| value(body))?;
            numbers(body, 2)
        }
        // Describe, Close
        b'D' | b'C' => {
            skip(body, 1)?;
            text(body)
        }
        // Execute
        b'E' => {
            text(body)?;
            skip(body, 4)
        }
        // Flush, Sync, Terminate, CopyDone
        b'H' | b'S' | b'X' | b'c' => Some(()),
        // CopyData, a password
        b'd' | b'p' => {
            *body = &[];
            Some(())
        }
        _ => None,
    }
}

fn skip(body: &mut &[u8], bytes: usize) -> Option<()> {
    *body = body.get(bytes..)?;
    Some(())
}

/// Up to a zero.
fn text(body: &mut &[u8]) -> Option<()> {
    let end = body.iter().position(|byte| *byte == 0)?;
    skip(body, end + 1)
}

fn count(body: &mut &[u8]) -> Option<usize> {
    let count = u16::from_be_bytes(*body.first_chunk::<2>()?);
    skip(body, 2)?;
    Some(count.into())
}

/// As many as it says, of so many bytes each.
fn numbers(body: &mut &[u8], bytes: usize) -> Option<()> {
    let count = count(body)?;
    skip(body, count * bytes)
}

/// As long as it says; NULL is of length -1.
fn value(body: &mut &[u8]) -> Option<()> {
    let length = i32::from_be_bytes(*body.first_chunk::<4>()?);
    skip(body, 4)?;
    if length == -1 { Some(()) } else { skip(body, usize::try_from(length).ok()?) }
}

fn no_message() -> PgWireError {
    refused("08P01", "that is no message of the protocol".into(), "speak version 3 of Postgres's protocol")
}

fn too_long(length: usize, bytes_max: usize) -> PgWireError {
    let message = format!("a message of {length} bytes is too long: it may have {bytes_max} here");
    refused("54000", message, "say less at once")
}

fn refused(code: &str, message: String, hint: &str) -> PgWireError {
    let mut info = ErrorInfo::new("FATAL".into(), code.into(), message);
    info.hint = Some(hint.into());
    PgWireError::UserError(Box::new(info))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::Rng;
    use rand::rngs::StdRng;
    use tidegate_connectors::Inbox;
    use tidegate_testdata::malformed::{mutate, run};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::read::{Reader, threads};

    const INTRODUCTIONS: [&[u8]; 4] = [
        b"\0\0\0\x23\0\x03\0\0user\0me\0database\0tidegate\0\0",
        b"\0\0\0\x10\0\x03\0\x02user\0m\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02",
    ];

    const MESSAGES: [(u8, &[u8]); 21] = [
        (b'Q', b"SELECT 1\0"),
        (b'Q', b"SELECT * FROM sys.sources; SHOW server_version\0"),
        (b'Q', b"\0"),
        (b'P', b"s\0SELECT $1::int\0\0\x01\0\0\0\x17"),
        (b'P', b"\0SELECT 1\0\0\0"),
        (b'B', b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\x01\0\x01"),
        (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xff\0\0"),
        (b'P', b"\0SELECT $1::int, $2::int\0\0\0"),
        (b'B', b"p\0\0\0\x02\0\0\0\x01\0\x02\0\0\0\x01\x31\0\0\0\x04\0\0\0\x01\0\x02\0\0\0\x01"),
        (b'D', b"Ss\0"),
        (b'D', b"Pp\0"),
        (b'E', b"p\0\0\0\0\x02"),
        (b'E', b"\0\0\0\0\0"),
        (b'C', b"Pp\0"),
        (b'S', b""),
        (b'H', b""),
        (b'X', b""),
        (b'd', b"rows"),
        (b'c', b""),
        (b'f', b"no more\0"),
        (b'p', b"secret\0"),
    ];

    fn message((kind, body): (u8, &[u8])) -> Vec<u8> {
        [&[kind][..], &(4 + body.len() as u32).to_be_bytes()[..], body].concat()
    }

    /// Some messages: with other bytes in them and the length these have, or with other bytes anywhere.
    fn said(random: &mut StdRng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(0..6) {
            let (kind, body) = MESSAGES[random.random_range(0..MESSAGES.len())];
            let mut body = body.to_vec();
            if random.random_bool(0.4) {
                mutate(&mut body, &["\0", "\u{1}\0"], random);
            }
            bytes.extend(message((kind, &body)));
        }
        if random.random_bool(0.3) {
            mutate(&mut bytes, &["\0", "\u{1}\0"], random);
        }
        bytes
    }

    fn introduced(random: &mut StdRng) -> Vec<u8> {
        let mut bytes = INTRODUCTIONS[0].to_vec();
        if random.random_bool(0.3) {
            bytes = INTRODUCTIONS[random.random_range(0..INTRODUCTIONS.len())].to_vec();
            mutate(&mut bytes, &["\0", "user"], random);
        }
        bytes
    }

    #[test]
    fn messages_are_whole_or_not_yet_or_none() {
        for introduction in INTRODUCTIONS {
            assert_eq!(whole(introduction, false).unwrap(), Some(introduction.len()));
            assert!((0..introduction.len()).all(|cut| whole(&introduction[..cut], false).unwrap().is_none()));
        }
        for said in MESSAGES.map(message) {
            assert_eq!(whole(&[&said[..], b"Q"].concat(), true).unwrap(), Some(said.len()), "{said:?}");
            assert!((0..said.len()).all(|cut| whole(&said[..cut], true).unwrap().is_none()));
        }
        let lies: [(u8, &[u8]); 9] = [
            (b'Q', b"SELECT 1"),
            (b'Q', b"SELECT 1\0SELECT 2\0"),
            (b'P', b"s\0SELECT 1\0\0\x02\0\0\0\x17"),
            (b'B', b"p\0s\0\0\0\0\x01\0\0\0\x09four\0\0"),
            (b'B', b"p\0s\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'E', b"p\0\0"),
            (b'D', b""),
            (b'S', b"\0"),
            (b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        ];
        for lie in lies {
            assert!(whole(&message(lie), true).is_err(), "{lie:?}");
        }
        assert!(whole(b"Q\0\0\0\x03", true).is_err() && whole(b"\0\0\0\x07\0\x03\0", false).is_err());
        let told = |heard: &[u8], is_introduced| ErrorInfo::from(whole(heard, is_introduced).unwrap_err()).message;
        assert_eq!(told(b"Q\0\x40\0\x01", true), "a message of 4194305 bytes is too long: it may have 4194304 here");
        assert_eq!(told(b"\x16\x03\x01\x02", false), "a message of 369295618 bytes is too long: it may have 10000 here");
    }

    #[test]
    fn what_is_whole_is_decoded_to_its_end() {
        run("pgwire messages", 1, &["tide"], |_, random| {
            let is_introduced = random.random_bool(0.8);
            let bytes = if is_introduced { said(random) } else { introduced(random) };
            let mut codec = PgWireMessageServerCodec::<Prepared>::new(DefaultClient::new(([127, 0, 0, 1], 1).into(), false));
            let state = if is_introduced { PgWireConnectionState::ReadyForQuery } else { PgWireConnectionState::AwaitingStartup };
            codec.client_info.set_state(state);
            let mut rest = &bytes[..];
            while let Ok(Some(length)) = whole(rest, is_introduced) {
                let mut message = BytesMut::from(&rest[..length]);
                if let Ok(decoded) = codec.decode(&mut message) {
                    assert!(decoded.is_some() && (message.is_empty() || !is_introduced), "{message:?} is left");
                }
                rest = &rest[length..];
            }
        });
    }

    /// The types of the server's messages, all of which are whole.
    fn answered(mut answer: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some(rest) = answer.strip_prefix(b"N").filter(|_| kinds.is_empty()) {
            answer = rest;
        }
        while let Some((kind, rest)) = answer.split_first() {
            let length = u32::from_be_bytes(*rest.first_chunk().expect("a length")) as usize;
            kinds.push(*kind);
            answer = rest.get(length..).expect("a whole message");
        }
        kinds
    }

    /// Whatever a client says, the session ends when the client does, in whole messages, and by no panic.
    #[test]
    fn bytes_at_the_door() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (engine, door, listener) = runtime.block_on(async {
            let engine = crate::tests::engine(Inbox::default());
            engine.recovered().await.unwrap();
            let door = Door::new(Reader::new(engine.clone()).unwrap());
            (engine, door, TcpListener::bind("127.0.0.1:0").await.unwrap())
        });
        let to = listener.local_addr().unwrap();
        let answer = |bytes: Vec<u8>| {
            runtime.block_on(async {
                let mut client = TcpStream::connect(to).await.unwrap();
                let session = threads().spawn(converse(listener.accept().await.unwrap().0, door.for_one()));
                let mut answer = Vec::new();
                let talk = async {
                    // The session may be over before all is said.
                    let _ = client.write_all(&bytes).await;
                    let _ = client.shutdown().await;
                    let heard = client.read_to_end(&mut answer).await;
                    let ended = session.await;
                    assert!(ended.is_ok(), "{ended:?}");
                    heard
                };
                match timeout(Duration::from_secs(60), talk).await.expect("an end") {
                    Ok(_) => answered(&answer),
                    // It went while something was still on its way to it.
                    Err(_) => Vec::new(),
                }
            })
        };
        run("pgwire", 8, &["tide"], |_, random| {
            answer([introduced(random), said(random)].concat());
        });
        let kinds = answer([INTRODUCTIONS[0], &message(MESSAGES[0])].concat());
        assert!(kinds.starts_with(b"R") && kinds.ends_with(b"TDCZ"), "{kinds:?}");
        assert_eq!(answer(b"\0\0\0\x03".to_vec()), b"E");
        let kinds = answer([INTRODUCTIONS[0], &message((b'P', b"s\0SELECT 1\0\xff\xff"))].concat());
        assert!(kinds.ends_with(b"ZE"), "{kinds:?}");
        runtime.block_on(engine.shutdown()).unwrap();
    }
}
