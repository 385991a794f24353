//! How a file is compressed, by its first bytes, and how it is read.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the magic bytes a file begins with.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub fn reader(self, file: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let buffered = BufReader::with_capacity(64 << 10, file);
        Ok(match self {
            Self::None => Box::new(buffered.into_inner()),
            Self::Gzip => Box::new(MultiGzDecoder::new(buffered)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(buffered)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_shows_in_the_first_bytes() {
        assert_eq!(Compression::of(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::of(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::of(b"{\"a\""), Compression::None);
        assert_eq!(Compression::of(b""), Compression::None);
    }
}
