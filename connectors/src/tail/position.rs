//! Where a file was left, as the offset of a `file` source says it: enough to find the file again
//! under any name, to know it by its beginning, and to go on exactly behind the last line taken.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidegate_types::connector::Offset;
use tidegate_types::error::{Error, Result};

/// Longest beginning a file is known by.
pub(super) const HEAD_BYTES_MAX: usize = 1 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub file: Seen,
    /// Bytes taken, decompressed.
    pub byte: u64,
    /// The number of the line that begins there, or that `byte` is inside of.
    pub line: u64,
    pub head: Head,
    /// `byte` is inside a line that was taken where the file ended.
    pub within: Option<Within>,
    /// That the compressed data is damaged was said.
    pub is_damaged: bool,
    /// Files of this one's age that were read before it.
    pub before: Vec<Seen>,
}

impl Position {
    /// None: nothing was committed yet.
    ///
    /// Errors: the offset is not of this connector.
    pub fn of(offset: &Offset, source: &str) -> Result<Option<Self>> {
        if offset.0.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&offset.0).map(Some).map_err(|error| {
            Error::engine(format!("source \"{source}\" was left at '{}', which is no place in a file: {error}", offset.0))
                .hint("create the source under another name to read the file from its start")
        })
    }

    pub fn offset(&self) -> Offset {
        Offset(serde_json::to_string(self).expect("numbers and texts make JSON"))
    }
}

/// What became of the part of a line that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Within {
    /// It was taken for the whole line.
    Line,
    /// The line was too long already.
    Long,
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub device: u64,
    pub inode: u64,
}

impl FileId {
    pub fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A file and its age; times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    #[serde(flatten)]
    pub id: FileId,
    /// When it was made. Not every file system knows; all know when a file was last written, which
    /// is not before.
    pub born: u64,
    pub written: u64,
}

impl Seen {
    pub fn of(metadata: &Metadata) -> Self {
        let written = nanos(metadata.modified().unwrap_or(UNIX_EPOCH));
        Self { id: FileId::of(metadata), born: metadata.created().map_or(written, nanos), written }
    }

    /// Whether `metadata` can be the same file's as far as its birth says.
    pub fn may_be(&self, metadata: &Metadata) -> bool {
        self.id == FileId::of(metadata) && metadata.created().map_or(true, |born| nanos(born) == self.born)
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// A file's first bytes, decompressed, as a fingerprint: inodes are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub bytes: u64,
    hash: String,
}

impl Head {
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, hash: blake3::hash(bytes).to_hex()[..16].to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_back_and_those_of_others_refused() {
        let file = Seen { id: FileId { device: 1, inode: 2 }, born: 3, written: 4 };
        let position =
            Position { file, byte: 5, line: 6, head: Head::of(b"{}\n"), within: Some(Within::Long), is_damaged: false, before: vec![file] };
        assert_eq!(Position::of(&position.offset(), "s").unwrap(), Some(position));
        assert_eq!(Position::of(&Offset::default(), "s").unwrap(), None);
        let error = Position::of(&Offset("17".into()), "s").unwrap_err().to_string();
        assert!(error.starts_with("source \"s\" was left at '17', which is no place in a file"), "{error}");
    }
}
