//! A request's body, inflated as it comes, within every bound.

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;

use super::Refusal;
use super::queue::{Queue, Reservation};

const WIRE_BYTES_MAX: usize = 8 << 20;
const INFLATED_BYTES_MAX: usize = 64 << 20;
const INFLATION_RATIO_MAX: usize = 200;

/// Below this a body may inflate as it likes: small things cannot hurt.
const INFLATED_BYTES_FREE: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
}

impl Coding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(coding) = headers.get(header::CONTENT_ENCODING) else { return Ok(Self::Plain) };
        match coding.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            other => Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("Content-Encoding '{}' is not taken", other.escape_default()),
                "send gzip, or no encoding",
            )),
        }
    }
}

/// The body, inflated, and its place in the queue's bound. Every bound holds
/// while the body streams in: no byte beyond one is kept.
pub(super) async fn read_body(
    queue: &Arc<Queue>,
    headers: &HeaderMap,
    mut body: Body,
    coding: Coding,
) -> Result<(Vec<u8>, Reservation), Refusal> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let over_wire = || Refusal::too_large(format!("the body is larger than {WIRE_BYTES_MAX} bytes"));
    if announced.is_some_and(|bytes| bytes > WIRE_BYTES_MAX) {
        return Err(over_wire());
    }
    let kept = Kept { bytes: Vec::new(), wire: 0, reservation: Reservation::new(queue), refusal: None };
    let mut inflating = Inflating::new(coding, kept);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_off(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        let kept = inflating.kept();
        kept.wire += data.len();
        if kept.wire > WIRE_BYTES_MAX {
            return Err(over_wire());
        }
        inflating.write(&data)?;
    }
    let kept = inflating.finish()?;
    Ok((kept.bytes, kept.reservation))
}

fn broken_off(error: &axum::Error) -> Refusal {
    match is_too_slow(error) {
        true => Refusal::new(StatusCode::REQUEST_TIMEOUT, error.to_string(), "send it without pauses, or as several smaller bodies"),
        false => Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"), "send it again"),
    }
}

/// Whether a body ended in an error because it did not come in time.
pub fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|cause| cause.kind() == ErrorKind::TimedOut)
}

enum Inflating {
    Plain(Kept),
    Gzip(Box<MultiGzDecoder<Kept>>),
}

impl Inflating {
    fn new(coding: Coding, kept: Kept) -> Self {
        match coding {
            Coding::Plain => Self::Plain(kept),
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(kept))),
        }
    }

    fn kept(&mut self) -> &mut Kept {
        match self {
            Self::Plain(kept) => kept,
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }

    fn write(&mut self, data: &Bytes) -> Result<(), Refusal> {
        let written = match self {
            Self::Plain(kept) => kept.write_all(data),
            Self::Gzip(decoder) => decoder.write_all(data),
        };
        written.map_err(|error| self.refusal(&error))
    }

    fn finish(mut self) -> Result<Kept, Refusal> {
        if let Self::Gzip(decoder) = &mut self {
            decoder.try_finish().map_err(|error| self.refusal(&error))?;
        }
        match self {
            Self::Plain(kept) => Ok(kept),
            Self::Gzip(decoder) => Ok(decoder.finish().expect("a stream that was finished finishes")),
        }
    }

    /// A bound's own words, or else the decoder's.
    fn refusal(&mut self, error: &std::io::Error) -> Refusal {
        self.kept().refusal.take().unwrap_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("the body is not gzip: {error}"),
                "leave Content-Encoding out if it is not compressed",
            )
        })
    }
}

/// Takes inflated bytes as long as every bound holds.
struct Kept {
    bytes: Vec<u8>,
    wire: usize,
    reservation: Reservation,
    refusal: Option<Refusal>,
}

impl Write for Kept {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let queue_bytes_max = self.reservation.queue.bytes_max;
        match bound_broken(self.bytes.len() + data.len(), self.wire, queue_bytes_max) {
            Some(error) => self.refusal = Some(Refusal::too_large(error)),
            None if !self.reservation.grow(data.len()) => self.refusal = Some(Refusal::full(queue_bytes_max)),
            None => {
                self.bytes.extend_from_slice(data);
                return Ok(data.len());
            }
        }
        Err(std::io::Error::other("a bound is broken"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Which bound `inflated` bytes from `wire` bytes break.
fn bound_broken(inflated: usize, wire: usize, queue_bytes_max: usize) -> Option<String> {
    if inflated > INFLATED_BYTES_MAX {
        Some(format!("the body inflates to more than {INFLATED_BYTES_MAX} bytes"))
    } else if inflated > INFLATED_BYTES_FREE && inflated / INFLATION_RATIO_MAX > wire {
        Some(format!("the body inflates to more than {INFLATION_RATIO_MAX} times its size"))
    } else if inflated > queue_bytes_max {
        Some(format!("the body is larger than the source's queue of {queue_bytes_max} bytes (option queue_bytes_max)"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let cases = [
            (INFLATED_BYTES_MAX, INFLATED_BYTES_MAX, usize::MAX, None),
            (INFLATED_BYTES_MAX + 1, INFLATED_BYTES_MAX, usize::MAX, Some("inflates to more than 67108864 bytes")),
            (INFLATED_BYTES_FREE, 1, usize::MAX, None),
            (2_000_199, 10_000, usize::MAX, None),
            (2_000_200, 10_000, usize::MAX, Some("more than 200 times")),
            (100, 100, 99, Some("queue_bytes_max")),
        ];
        for (inflated, wire, queue, reason) in cases {
            let broken = bound_broken(inflated, wire, queue);
            assert_eq!(broken.is_some(), reason.is_some(), "{inflated} from {wire}: {broken:?}");
            assert!(broken.unwrap_or_default().contains(reason.unwrap_or_default()));
        }
    }
}
