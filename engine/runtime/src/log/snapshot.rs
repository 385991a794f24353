//! Snapshots: what a restart needs of the time before, so that it need not read the log from its
//! beginning. What sources brought stays in the segments until nothing needs it; of what is needed for
//! ever, equal rows are in the snapshot as one, with their count.
//!
//! File      frames, as in a segment, closed by a commit; named like the segment that follows it. A record that is
//!           long goes through several frames
//! Draft     written beside it under another name; the name is what makes it count
//! Trim      what a snapshot makes needless goes only once its name is there for good, oldest first, and
//!           once the folder says which segment is the first now
//! Older     the first one of each day stays as long as the segment behind it: the past begins with one ([`super::past`]),
//!           and a start that may lose something, where newer ones are damaged

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use tidegate_types::Tick;
use tidegate_types::connector::{Resume, Writer};
use tidegate_types::disk::Disk;
use tidegate_types::error::{Error, Result};

use super::frame::{self, Frames};
use super::quarantine::Guilty;
use super::record::{Counted, Intake, MORE, Ran, Record};
use super::segment::{Holdings, Mark, Segment, named, set_mark, unwritable};
use super::{broken_at, read_frames};
use crate::actions::ActionSnapshot;
use crate::seeded::{Bug, Seeded};

const ENDING: &str = ".snapshot";
const DRAFT_ENDING: &str = ".snapshot-draft";

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Of a record in one frame, which must not be longer than a frame may be.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// Bytes that are written at once.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// All but rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    pub tick: Tick,
    pub writer: Writer,
    /// Statements that changed what there is, so far.
    pub generation: u64,
    /// In the order in which they were made.
    pub definitions: Vec<Definition>,
    pub ran: Vec<Ran>,
    pub sources: Vec<SourceHead>,
    /// When sources, sinks and actions were made.
    pub created: BTreeMap<String, Tick>,
    /// Sinks that had failed; the others had all up to the tick.
    pub lost: Vec<String>,
    pub errors: Vec<ErrorHead>,
    /// Dataflows whose state grew too large, or that read such a one, with the reason.
    #[serde(default)]
    pub stopped: BTreeMap<String, String>,
    /// What views read of sources that is in the snapshot, and need not be in segments.
    pub counted: Vec<Intake>,
    /// What is passed over, in what is left of earlier segments.
    pub quarantined: Vec<Guilty>,
    /// What earlier segments hold.
    pub segments: Vec<(Segment, Holdings)>,
}

/// A statement that made something, as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    pub file: String,
    pub text: String,
    pub is_pack: bool,
    /// Statements before it.
    pub generation: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceHead {
    pub name: String,
    pub generation: u64,
    pub resume: Option<Resume>,
    pub counts: crate::coordinator::Counts,
    pub watermark: Option<i64>,
    /// The event time from which on rows are needed; None: all are.
    pub horizon: Option<i64>,
}

/// Rows that a view could not compute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorHead {
    pub view: String,
    pub operator: String,
    pub reason: String,
    pub count: i64,
}

impl Head {
    /// Whether a segment before it holds rows that a view needs.
    pub fn needs(&self, holdings: &Holdings) -> bool {
        is_needed(holdings, &self.sources)
    }

    /// Whether all of these that it needs are there.
    pub fn is_served_by(&self, there: &[Segment]) -> bool {
        self.segments.iter().all(|(segment, holdings)| there.contains(segment) || !self.needs(holdings))
    }
}

/// Whether a segment holds rows that a view needs of these sources.
pub fn is_needed(holdings: &Holdings, sources: &[SourceHead]) -> bool {
    sources.iter().any(|source| {
        let latest = holdings.latest.get(&source.name).and_then(|latest| latest.get(&source.generation));
        source.horizon != Some(i64::MAX) && latest.is_some_and(|latest| source.horizon.is_none_or(|horizon| horizon <= *latest))
    })
}

/// What a snapshot holds, as it is read back.
#[derive(Debug, Clone)]
pub enum Part {
    Head(Box<Head>),
    /// Of a table, of late rows, or of a view.
    Rows {
        relation: String,
        rows: RecordBatch,
    },
    Counted(Counted),
    Action(Box<ActionSnapshot>),
}

/// Writes the draft of the snapshot before `segment`.
pub fn draft(disk: &dyn Disk, folder: &Path, segment: &Segment, tick: Tick, parts: impl Iterator<Item = Result<Record>>) -> Result<u64> {
    let path = segment.named(folder, DRAFT_ENDING);
    let failed = |error: io::Error| Error::engine(format!("the snapshot cannot be written: {}: {error}", path.display()));
    let mut file = disk.create(&path).map_err(failed)?;
    let (mut buffer, mut number, mut chain, mut written) = (Vec::new(), 0, segment.chain, 0);
    let end = Record::Commit { delivered: BTreeMap::new() };
    for record in parts.chain([Ok(end)]) {
        let record = record?;
        let body = record.encode()?;
        let mut pieces = body.chunks(PIECE_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let tag = if pieces.peek().is_some() { MORE } else { record.tag() };
            chain = frame::write(&mut buffer, tick, number, tag, &chain, piece);
            number += 1;
            if BUFFER_BYTES_MAX <= buffer.len() {
                file.write_all(&buffer).map_err(failed)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
        }
    }
    file.write_all(&buffer).and_then(|()| file.sync()).map_err(failed)?;
    Ok(written + buffer.len() as u64)
}

/// The draft becomes the snapshot, and the segments before `first` may go.
pub fn publish(disk: &dyn Disk, folder: &Path, segment: &Segment, first: &Segment, seeded: Seeded) -> Result<()> {
    let (from, to) = (segment.named(folder, DRAFT_ENDING), path(folder, segment));
    let failed = |error: io::Error| Error::engine(format!("the snapshot cannot be named: {}: {error}", to.display()));
    disk.rename(&from, &to).map_err(failed)?;
    set_mark(disk, folder, Mark::First, first)?;
    if seeded.has(Bug::TrimBeforeName) {
        return Ok(());
    }
    disk.sync_folder(folder).map_err(failed)
}

/// All snapshots, oldest first: the segments that follow them.
pub fn all(disk: &dyn Disk, folder: &Path) -> Result<Vec<Segment>> {
    let mut all = named(disk, folder, ENDING)?;
    all.sort_unstable();
    Ok(all)
}

/// The file of the snapshot before `segment`.
pub fn path(folder: &Path, segment: &Segment) -> PathBuf {
    segment.named(folder, ENDING)
}

/// All but rows of the snapshot before `segment`.
pub fn head(disk: &dyn Disk, folder: &Path, segment: &Segment) -> Result<Head> {
    match Parts::open(disk, folder, segment)?.next()? {
        Some(Part::Head(head)) => Ok(*head),
        _ => Err(headless(folder, segment)),
    }
}

/// The same, once all of it was read. Errors: the user's where it is damaged.
pub fn verified(disk: &dyn Disk, folder: &Path, segment: &Segment) -> Result<Head> {
    verified_telling(disk, folder, segment, |_| {})
}

/// The same, but tells of each part how many bytes it has.
pub fn verified_telling(disk: &dyn Disk, folder: &Path, segment: &Segment, told: impl Fn(u64)) -> Result<Head> {
    let (mut parts, mut head, mut before) = (Parts::open(disk, folder, segment)?, None, 0);
    while let Some(part) = parts.next()? {
        told(parts.frames.position - before);
        before = parts.frames.position;
        if let Part::Head(found) = part {
            head = Some(*found);
        }
    }
    head.ok_or_else(|| headless(folder, segment))
}

fn headless(folder: &Path, segment: &Segment) -> Error {
    Error::user(format!("the snapshot is damaged: {}: it has no head", path(folder, segment).display())).hint("restore the data folder")
}

/// Removes what a crash or a failure left half written.
pub fn remove_drafts(disk: &dyn Disk, folder: &Path) -> Result<()> {
    remove(disk, named(disk, folder, DRAFT_ENDING)?.iter().map(|segment| segment.named(folder, DRAFT_ENDING)))
}

/// Removes snapshots that neither a restart nor the past begins with. `known`: what each segment holds; the
/// first of them is the first there is.
pub fn thin(disk: &dyn Disk, folder: &Path, known: &BTreeMap<Segment, Holdings>) -> Result<()> {
    let (all, mut days) = (all(disk, folder)?, BTreeSet::new());
    let first = known.keys().next();
    // The one before a segment was taken at the last tick before it.
    let day = |segment: &Segment| known.range(..segment).next_back().map(|(_, holdings)| holdings.last_tick / DAY_MS);
    let is_kept = |segment: &Segment| Some(segment) >= first && days.insert(day(segment));
    let (_, older) = all.split_last().unwrap_or((&Segment::FIRST, &[]));
    let kept: Vec<Segment> = older.iter().copied().filter(is_kept).collect();
    remove(disk, older.iter().filter(|segment| !kept.contains(segment)).map(|segment| path(folder, segment)))
}

fn remove(disk: &dyn Disk, mut paths: impl Iterator<Item = PathBuf>) -> Result<()> {
    paths.try_for_each(|path| disk.remove(&path).map_err(|error| unwritable(&path, &error)))
}

/// A snapshot's parts, in order.
pub struct Parts {
    path: PathBuf,
    frames: Frames<Box<dyn Read + Send>>,
    ended: bool,
}

impl Parts {
    pub fn open(disk: &dyn Disk, folder: &Path, segment: &Segment) -> Result<Self> {
        let path = path(folder, segment);
        let frames = read_frames(disk, &path, 0, segment.chain)?;
        Ok(Self { path, frames, ended: false })
    }

    /// Errors: damage, also of a part that is no longer there.
    pub fn next(&mut self) -> Result<Option<Part>> {
        let damaged =
            |what: &str| Error::user(format!("the snapshot is damaged: {}: {what}", self.path.display())).hint("restore the data folder");
        let mut record = Vec::new();
        let frame = loop {
            let frame = self.frames.next(|_| true).map_err(|broken| match broken {
                frame::Broken::Damage(what) => damaged(&what),
                broken @ frame::Broken::Disk(_) => broken_at(&self.path, &broken),
            })?;
            let Some((header, piece)) = frame else { break None };
            record.extend(piece);
            if header.tag != MORE {
                break Some(record);
            }
        };
        match frame.map(|body| Record::decode(&body)).transpose()? {
            Some(_) if self.ended => Err(damaged("it goes on behind its end")),
            Some(Record::Snapshot(head)) => Ok(Some(Part::Head(head))),
            Some(Record::Rows { relation, rows }) => Ok(Some(Part::Rows { relation, rows })),
            Some(Record::Counted(counted)) => Ok(Some(Part::Counted(counted))),
            Some(Record::ActionState(state)) => Ok(Some(Part::Action(state))),
            Some(Record::Commit { .. }) => {
                self.ended = true;
                self.next()
            }
            Some(_) => Err(damaged("a frame does not belong there")),
            None if self.ended => Ok(None),
            None => Err(damaged("its end is missing")),
        }
    }
}

/// Removes segments.
pub fn trim(disk: &dyn Disk, folder: &Path, gone: &[Segment]) -> Result<()> {
    for segment in gone {
        for path in [segment.path(folder), segment.copies_path(folder)] {
            match disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(&path, &error)),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::BinaryArray;
    use tidegate_types::ScratchDisk;

    use super::*;

    #[test]
    fn a_long_record_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment { number: 7, chain: [1; 16] };
        // Hardly to be compressed, and two frames long.
        let noise = |i: u32| blake3::hash(&i.to_le_bytes()).as_bytes().to_vec();
        let long: Vec<u8> = (0..PIECE_BYTES_MAX as u32 / 32 + 9).flat_map(noise).collect();
        let rows = RecordBatch::try_from_iter([("bytes", Arc::new(BinaryArray::from_iter_values([long])) as _)]).unwrap();
        let records = ["a", "b"].map(|relation| Ok(Record::Rows { relation: relation.into(), rows: rows.clone() }));
        draft(&ScratchDisk, folder.path(), &segment, 5, records.into_iter()).unwrap();
        publish(&ScratchDisk, folder.path(), &segment, &segment, Seeded::default()).unwrap();
        let mut parts = Parts::open(&ScratchDisk, folder.path(), &segment).unwrap();
        for expected in ["a", "b"] {
            let Some(Part::Rows { relation, rows: found }) = parts.next().unwrap() else { panic!() };
            assert!(relation == expected && found == rows);
        }
        assert!(parts.next().unwrap().is_none());
    }
}
