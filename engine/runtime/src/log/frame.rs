//! A frame: the unit of the log. A header of fixed length, then a body.
//!
//! Header   magic, format version, codec, tag of the body's relation, tick, number in the log,
//!          stored and decoded length of the body, BLAKE3 of the stored body, the chain (a hash of
//!          all headers so far), CRC-32 of all this
//! Trust    lengths count only once the CRC fits, a body only once its hash does: nothing is
//!          decompressed or decoded before
//! Chain    a frame that was taken out, put in or moved breaks it, like one that was changed

use std::io::{self, Read};

/// A hash of all headers up to a frame's.
pub type Chain = [u8; 16];

pub const HEADER_BYTES: usize = 96;

/// A body longer than this is damage, whatever its header says.
pub const BODY_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"tide";
/// Raised with the format, and where an engine computes rows otherwise than the one before: snapshots hold computed ones.
pub const FORMAT: u8 = 4;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// Bodies shorter than this stay as they are.
const COMPRESSED_BYTES_MIN: usize = 256;

/// What a header says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tick: u64,
    /// Frames before it in the log.
    pub number: u64,
    /// Of the relation or kind the body is about, so that others are passed over unread.
    pub tag: u32,
    pub chain: Chain,
    codec: u8,
    stored: u32,
    decoded: u32,
    hash: [u8; 32],
}

/// Appends the frame to `out`; returns its chain.
pub fn write(out: &mut Vec<u8>, tick: u64, number: u64, tag: u32, before: &Chain, body: &[u8]) -> Chain {
    let packed = (COMPRESSED_BYTES_MIN <= body.len()).then(|| lz4_flex::block::compress(body));
    let (codec, stored) = match packed.as_deref().filter(|packed| packed.len() < body.len()) {
        Some(packed) => (LZ4, packed),
        None => (PLAIN, body),
    };
    let mut header = Header {
        tick,
        number,
        tag,
        chain: Chain::default(),
        codec,
        stored: stored.len() as u32,
        decoded: body.len() as u32,
        hash: *blake3::hash(stored).as_bytes(),
    };
    header.chain = header.chained(before);
    out.extend_from_slice(&header.bytes());
    out.extend_from_slice(stored);
    header.chain
}

impl Header {
    /// Header and body, as stored.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.stored)
    }

    fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT;
        bytes[5] = self.codec;
        bytes[8..12].copy_from_slice(&self.tag.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.tick.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.number.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.stored.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.decoded.to_le_bytes());
        bytes[36..68].copy_from_slice(&self.hash);
        bytes[68..84].copy_from_slice(&self.chain);
        let crc = crc32fast::hash(&bytes[..84]);
        bytes[84..88].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Errors: what is wrong with it, for people.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if !is_as_written(bytes) || bytes[88..] != [0; HEADER_BYTES - 88] {
            return Err("its header is damaged".into());
        }
        if bytes[..4] != MAGIC || bytes[4] != FORMAT {
            return Err(format!("it is of format {}, and this build reads format {FORMAT}", bytes[4]));
        }
        let header = Self {
            codec: bytes[5],
            tag: u32_at(8),
            tick: u64_at(12),
            number: u64_at(20),
            stored: u32_at(28),
            decoded: u32_at(32),
            hash: bytes[36..68].try_into().expect("32 bytes"),
            chain: bytes[68..84].try_into().expect("16 bytes"),
        };
        match (header.stored.max(header.decoded) as usize) <= BODY_BYTES_MAX {
            true => Ok(header),
            false => Err("its body is too long".into()),
        }
    }

    fn chained(&self, before: &Chain) -> Chain {
        let mut hasher = blake3::Hasher::new();
        hasher.update(before).update(&Self { chain: Chain::default(), ..*self }.bytes());
        hasher.finalize().as_bytes()[..16].try_into().expect("16 bytes")
    }

    fn decode(&self, stored: Vec<u8>) -> Result<Vec<u8>, String> {
        if *blake3::hash(&stored).as_bytes() != self.hash {
            return Err("its body is damaged".into());
        }
        match self.codec {
            PLAIN => Ok(stored),
            LZ4 => {
                lz4_flex::block::decompress(&stored, self.decoded as usize).map_err(|error| format!("its body cannot be inflated: {error}"))
            }
            other => Err(format!("its codec {other} is not known")),
        }
    }
}

/// The format of a file's first frame; None where it has none that is whole.
pub fn format_of(mut reader: impl Read) -> io::Result<Option<u8>> {
    let mut bytes = [0; HEADER_BYTES];
    let is_header = fill(&mut reader, &mut bytes)? == HEADER_BYTES && bytes[..4] == MAGIC && is_as_written(&bytes);
    Ok(is_header.then_some(bytes[4]))
}

fn is_as_written(header: &[u8; HEADER_BYTES]) -> bool {
    header[84..88] == crc32fast::hash(&header[..84]).to_le_bytes()
}

/// Why no further frame could be read.
#[derive(Debug)]
pub enum Broken {
    /// Not a whole, true frame: torn while it was written, or damaged since.
    Damage(String),
    /// The disk did not answer.
    Disk(io::Error),
}

/// Frames one after the other, each verified before it is handed out.
pub struct Frames<R> {
    reader: R,
    /// Bytes of the frames handed out.
    pub position: u64,
    /// The next frame's.
    pub number: u64,
    pub chain: Chain,
}

impl<R: Read> Frames<R> {
    pub fn new(reader: R, number: u64, chain: Chain) -> Self {
        Self { reader, position: 0, number, chain }
    }

    /// The next frame, or None at the end. A body that is not `wanted` is empty, and not verified.
    pub fn next(&mut self, wanted: impl Fn(&Header) -> bool) -> Result<Option<(Header, Vec<u8>)>, Broken> {
        let mut bytes = [0; HEADER_BYTES];
        match fill(&mut self.reader, &mut bytes).map_err(Broken::Disk)? {
            0 => return Ok(None),
            HEADER_BYTES => {}
            _ => return Err(Broken::Damage("it ends within its header".into())),
        }
        let header = Header::parse(&bytes).map_err(Broken::Damage)?;
        if header.number != self.number || header.chained(&self.chain) != header.chain {
            return Err(Broken::Damage(format!("frame {} is not where it belongs", header.number)));
        }
        let length = u64::from(header.stored);
        let body = if wanted(&header) {
            let mut stored = Vec::new();
            let read = self.reader.by_ref().take(length).read_to_end(&mut stored).map_err(Broken::Disk)? as u64;
            if read != length {
                return Err(Broken::Damage("it ends within its body".into()));
            }
            header.decode(stored).map_err(Broken::Damage)?
        } else {
            let read = io::copy(&mut self.reader.by_ref().take(length), &mut io::sink()).map_err(Broken::Disk)?;
            if read != length {
                return Err(Broken::Damage("it ends within its body".into()));
            }
            Vec::new()
        };
        self.position += header.frame_bytes();
        self.number += 1;
        self.chain = header.chain;
        Ok(Some((header, body)))
    }
}

/// As many bytes as there are, up to the buffer's length.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use tidegate_testdata::malformed::{mutate, run};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut chain = Chain::default();
        for (number, body) in [b"a short body".to_vec(), vec![7; 5000], Vec::new()].iter().enumerate() {
            chain = write(&mut out, 10 + number as u64, number as u64, 3, &chain, body);
        }
        out
    }

    fn count(bytes: &[u8]) -> Result<usize, Broken> {
        let mut frames = Frames::new(bytes, 0, Chain::default());
        let mut count = 0;
        while frames.next(|_| true)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let bytes = sample();
        let mut frames = Frames::new(&bytes[..], 0, Chain::default());
        assert_eq!(frames.next(|_| true).unwrap().unwrap().1, b"a short body");
        let (header, body) = frames.next(|_| true).unwrap().unwrap();
        assert_eq!((header.tick, header.number, header.tag, body), (11, 1, 3, vec![7; 5000]));
        assert!(header.stored < 500, "compressed");
        assert!(frames.next(|_| false).unwrap().unwrap().1.is_empty());
        assert!(frames.next(|_| true).unwrap().is_none());
        assert_eq!(frames.position, bytes.len() as u64);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(count(&damaged), Err(Broken::Damage(_))), "bit {bit}");
        }
        let whole: Vec<usize> = (0..=bytes.len()).filter(|&cut| count(&bytes[..cut]).is_ok()).collect();
        assert_eq!(whole.len(), 4, "only between frames: {whole:?}");
    }

    #[test]
    fn frames_cannot_change_places() {
        let mut out = Vec::new();
        let chain = write(&mut out, 1, 0, 0, &Chain::default(), b"one");
        let first = out.len();
        write(&mut out, 1, 1, 0, &chain, b"two");
        let swapped = [&out[first..], &out[..first]].concat();
        assert!(count(&swapped).is_err());
        assert!(count(&out[first..]).is_err());
    }

    #[test]
    fn what_only_checksums_vouch_for_is_read_or_refused() {
        const DECODED_MAX: u32 = 1 << 20;
        run("frame", 1, &["tide"], |input, random| {
            let mut header = Header {
                tick: random.random(),
                number: 0,
                tag: random.random(),
                chain: Chain::default(),
                codec: random.random_range(0..3),
                stored: input.len() as u32,
                decoded: random.random_range(0..DECODED_MAX),
                hash: *blake3::hash(input).as_bytes(),
            };
            header.chain = header.chained(&Chain::default());
            let mut bytes = [&header.bytes()[..], input].concat();
            if random.random_bool(0.3) {
                mutate(&mut bytes, &["tide"], random);
            }
            let mut frames = Frames::new(&bytes[..], 0, Chain::default());
            while let Ok(Some((_, body))) = frames.next(|_| true) {
                assert!(body.len() <= input.len().max(DECODED_MAX as usize));
            }
        });
    }
}
