//! The files of the log: segments of frames, and beside each a second copy of its commits.
//!
//! A segment is named by the number of its first frame and the chain before it, so that a missing
//! one is noticed. A copied commit is what tells rot from a torn end: frames that a crash tore were
//! never committed, so no copy knows of them. Two empty files name the first and the last segment that must
//! be there, which tells a trimmed segment from one that was lost, and a lost one from one that never was.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tidegate_types::Tick;
use tidegate_types::disk::{self, Disk};
use tidegate_types::error::{Error, Fault, Result};

use serde::{Deserialize, Serialize};

use super::Place;
use super::frame::Chain;
use super::record::Arrived;

const ENDING: &str = ".log";
const COPIES_ENDING: &str = ".commits";

/// What an empty file's name says of a segment.
#[derive(Debug, Clone, Copy)]
pub enum Mark {
    /// Those before it may have been trimmed.
    First,
    /// None is behind it.
    Last,
}

impl Mark {
    fn ending(self) -> &'static str {
        match self {
            Self::First => ".first",
            Self::Last => ".last",
        }
    }
}
const COPY_BYTES: usize = 48;

/// A segment's place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Segment {
    /// Of its first frame.
    pub number: u64,
    /// Before its first frame.
    pub chain: Chain,
}

impl Segment {
    pub const FIRST: Self = Self { number: 0, chain: [0; 16] };

    pub fn path(&self, folder: &Path) -> PathBuf {
        self.named(folder, ENDING)
    }

    pub fn copies_path(&self, folder: &Path) -> PathBuf {
        self.named(folder, COPIES_ENDING)
    }

    pub fn named(&self, folder: &Path, ending: &str) -> PathBuf {
        folder.join(format!("{}{ending}", self.stem()))
    }

    fn stem(&self) -> String {
        let chain: String = self.chain.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:020}-{chain}", self.number)
    }

    pub fn parse(name: &str, ending: &str) -> Option<Self> {
        let (number, chain) = name.strip_suffix(ending)?.split_once('-')?;
        let chain = u128::from_str_radix(chain, 16).ok()?.to_be_bytes();
        Some(Self { number: number.parse().ok()?, chain }).filter(|segment| segment.stem() + ending == name)
    }
}

/// What a segment holds, as far as trimming asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    pub last_tick: Tick,
    /// The latest event time of each source's rows, by its name and generation.
    pub latest: BTreeMap<String, BTreeMap<u64, i64>>,
}

impl Holdings {
    pub fn note(&mut self, arrived: &Arrived) {
        if let Some(latest) = arrived.latest {
            let known = self.latest.entry(arrived.source.clone()).or_default().entry(arrived.generation).or_insert(latest);
            *known = latest.max(*known);
        }
    }
}

/// The segments in `folder`, oldest first.
pub fn segments(disk: &dyn Disk, folder: &Path) -> Result<Vec<Segment>> {
    let mut segments = named(disk, folder, ENDING)?;
    segments.sort_unstable();
    Ok(segments)
}

/// The segments that files with this ending are named by.
pub fn named(disk: &dyn Disk, folder: &Path, ending: &str) -> Result<Vec<Segment>> {
    let names = disk.list(folder).map_err(|error| unreadable(folder, &error))?;
    Ok(names.iter().filter_map(|name| Segment::parse(name, ending)).collect())
}

/// The segment that has the mark.
pub fn marked(disk: &dyn Disk, folder: &Path, mark: Mark) -> Result<Option<Segment>> {
    Ok(named(disk, folder, mark.ending())?.into_iter().max())
}

/// A segment that is there has the mark, once the folder is synced. Even a full disk has room for that: a file
/// gets another name.
pub fn set_mark(disk: &dyn Disk, folder: &Path, mark: Mark, segment: &Segment) -> Result<()> {
    let path = segment.named(folder, mark.ending());
    let unmarked = |error: io::Error| unwritable(&path, &error);
    match marked(disk, folder, mark)? {
        Some(known) if known == *segment => Ok(()),
        Some(known) => disk.rename(&known.named(folder, mark.ending()), &path).map_err(unmarked),
        None => disk.create(&path).map(drop).map_err(unmarked),
    }
}

/// What a copy says of a commit's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    pub tick: Tick,
    pub number: u64,
    pub chain: Chain,
}

impl Copy {
    pub fn bytes(&self) -> [u8; COPY_BYTES] {
        let mut bytes = [0; COPY_BYTES];
        bytes[..8].copy_from_slice(&self.tick.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.chain);
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        bytes[36..].copy_from_slice(b"committed...");
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != COPY_BYTES {
            return None;
        }
        let copy = Self {
            tick: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            number: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            chain: bytes[16..32].try_into().ok()?,
        };
        (copy.bytes() == bytes).then_some(copy)
    }
}

/// The copied commits of one segment.
#[derive(Debug, Default)]
pub struct Copies {
    pub last: Option<Copy>,
    /// Copies that are not as they were written; the last one may have been torn.
    pub damaged: usize,
}

pub fn copies(disk: &dyn Disk, path: &Path) -> Result<Copies> {
    let mut bytes = Vec::new();
    match disk.read(path) {
        Ok(mut reader) => reader.read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copies::default()),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let parsed: Vec<Option<Copy>> = bytes.chunks(COPY_BYTES).map(Copy::parse).collect();
    let damaged = parsed.iter().filter(|copy| copy.is_none()).count();
    Ok(Copies { last: parsed.into_iter().flatten().max_by_key(|copy| copy.number), damaged })
}

/// From now on the copies end with the commit before `end`, if its segment holds one.
pub fn rewrite_copies(disk: &dyn Disk, folder: &Path, end: &Place) -> Result<()> {
    let copy = Copy { tick: end.tick, number: end.number.wrapping_sub(1), chain: end.chain };
    let bytes = if end.position == 0 { Vec::new() } else { copy.bytes().to_vec() };
    let path = end.segment.copies_path(folder);
    disk::put(disk, &path, &bytes).map_err(|error| unwritable(&path, &error))
}

pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::engine(format!("{} cannot be read: {error}", path.display())).hint("check the disk and the rights on the data folder")
}

pub fn unwritable(path: &Path, error: &io::Error) -> Error {
    let told = Error::engine(format!("{} cannot be written: {error}", path.display()));
    unless_full(told.hint("make room on the disk, or check it and the rights on the data folder"), error)
}

/// What is told of a disk's error; nobody's fault where it is that there is no room.
pub fn unless_full(told: Error, error: &io::Error) -> Error {
    if is_full(error) { Error { fault: Fault::NoRoom, ..told } } else { told }
}

pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_copies_come_back_as_they_were() {
        let segment = Segment { number: 17, chain: [0xab; 16] };
        let name = segment.path(Path::new("")).display().to_string();
        assert_eq!(Segment::parse(&name, ENDING), Some(segment));
        for other in ["17-ab.log", "x.log", &name.replace(".log", ".commits"), &name.replace('a', "A")] {
            assert_eq!(Segment::parse(other, ENDING), None, "{other}");
        }
        let copy = Copy { tick: 5, number: 6, chain: [7; 16] };
        let bytes = copy.bytes();
        assert_eq!(Copy::parse(&bytes), Some(copy));
        for bit in 0..COPY_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Copy::parse(&damaged), None, "{bit}");
        }
        (0..COPY_BYTES).for_each(|length| assert_eq!(Copy::parse(&bytes[..length]), None));
    }
}
