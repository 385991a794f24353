//! What a restart reads: where the log ends, then all of it, tick by tick.
//!
//! Format    files of another one are refused as they are, whatever loss is accepted
//! Damaged   in a segment: all before it, where the loss of the rest is accepted. In a snapshot: the newest older one
//!           that has its segments, or the beginning of the log, where that is accepted. What is given up or passed
//!           over has another name from then on; of a segment that is cut, what is cut off
//! Missing   a snapshot that the log was trimmed to: nobody can begin with what is left

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_types::Tick;
use tidegate_types::connector::Writer;
use tidegate_types::disk::Disk;
use tidegate_types::error::{Error, Fault, Result};

use super::frame::{self, Broken, Chain, FORMAT, Frames, Header};
use super::quarantine::Quarantine;
use super::record::{Arrived, BEGIN, COMMIT, GUILTY, Record, tag_of};
use super::segment::{Holdings, Mark, Segment, copies, marked, rewrite_copies, segments, unless_full, unreadable, unwritable};
use super::snapshot::{self, Head};
use super::{Place, Progress};
use crate::seeded::{Bug, Seeded};

/// Of what is given up.
const LOST_ENDING: &str = ".lost";
/// And of what is not whole yet.
const LOST_DRAFT_ENDING: &str = ".lost-draft";
/// Copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Where a log ends.
pub struct Found {
    /// Behind the last commit; what was there is cut off.
    pub end: Place,
    /// In the last segment: what a copied commit says is there for good. Of what is behind it a sync
    /// may have failed, and only the operating system's memory may still have it.
    synced: u64,
    pub is_new: bool,
    /// The log's id and its last epoch; none where it is new.
    pub writer: Option<Writer>,
    pub lost_after: Option<Tick>,
    /// What to begin with: the segment that follows it, and all but its rows.
    pub snapshot: Option<(Segment, Head)>,
    /// What each segment holds, that of earlier ones included.
    pub holdings: BTreeMap<Segment, Holdings>,
    pub quarantine: Quarantine,
}

impl Found {
    /// Nothing of the log yet: where it begins, or where the snapshot leaves off.
    fn behind(snapshot: Option<(Segment, Head)>) -> Self {
        let mut found = Self {
            end: Place::START,
            synced: 0,
            is_new: true,
            writer: None,
            lost_after: None,
            snapshot: None,
            holdings: BTreeMap::new(),
            quarantine: Quarantine::default(),
        };
        if let Some((segment, head)) = &snapshot {
            found.end = Place { segment: *segment, position: 0, number: segment.number, chain: segment.chain, tick: head.tick };
            found.writer = Some(head.writer.clone());
            found.holdings = head.segments.iter().cloned().collect();
            found.quarantine.extend(head.quarantined.iter().cloned());
        }
        found.snapshot = snapshot;
        found
    }
}

/// Verifies the log, and cuts off what was not committed.
///
/// Errors: damage before the last commit, unless its loss is accepted.
pub fn scan(disk: &dyn Disk, folder: &Path, accept_loss: bool, seeded: Seeded, progress: &Progress) -> Result<Found> {
    let mut all = segments(disk, folder)?;
    check_format(disk, folder, &all)?;
    let mut found = begin(disk, folder, &all, accept_loss, progress)?;
    match missing(disk, folder, &all, &found) {
        Err(error) if accept_loss => tracing::error!(%error, "what it held is given up, as asked"),
        checked => checked?,
    }
    found.holdings.retain(|segment, _| all.contains(segment));
    // What is before the snapshot is verified when it is read.
    all.retain(|segment| found.end.segment <= *segment);
    if let (Some((segment, _)), true) = (&found.snapshot, all.is_empty()) {
        return Err(Error::user(format!("{} is missing", segment.path(folder).display())).hint("restore the data folder"));
    }
    found.is_new = all.is_empty();
    all.iter().for_each(|segment| progress.expect(disk.len(&segment.path(folder)).unwrap_or(0)));
    for (i, segment) in all.iter().enumerate() {
        let Some(what) = follow(disk, folder, segment, &mut found, progress)? else { continue };
        let path = segment.path(folder);
        if !accept_loss {
            let error = Error::user(format!("the log is damaged before its last commit: {}: {what}", path.display()));
            let kept = found.end.tick;
            return Err(error.hint(format!("restore the data folder, or give up what came after tick {kept} with --accept-loss")));
        }
        tracing::error!(path = %path.display(), after = found.end.tick, "{what}; what came later is given up, as asked");
        found.lost_after = Some(found.end.tick);
        let is_reached = found.end.segment == *segment;
        let given_up = all[i + usize::from(is_reached)..].iter();
        set_aside(disk, folder, given_up.flat_map(|segment| [segment.path(folder), segment.copies_path(folder)]))?;
        if is_reached {
            keep_cut(disk, folder, &found.end)?;
        }
        found.is_new = i == 0 && !is_reached;
        break;
    }
    if !found.is_new {
        cut(disk, folder, &found, seeded)?;
    }
    Ok(found)
}

/// Errors: a snapshot or a segment is of another format than this engine's.
pub fn check_format(disk: &dyn Disk, folder: &Path, all: &[Segment]) -> Result<()> {
    let snapshots = snapshot::all(disk, folder)?;
    let paths = snapshots.iter().map(|segment| snapshot::path(folder, segment)).chain(all.iter().map(|segment| segment.path(folder)));
    for path in paths {
        let found = disk.read(&path).and_then(frame::format_of).map_err(|error| unreadable(&path, &error))?;
        if let Some(found) = found.filter(|found| *found != FORMAT) {
            let error = Error::user(format!("{} is of format {found}, and this build reads format {FORMAT}", path.display()));
            return Err(error.hint("start the build that wrote the data folder, or begin with another --data-dir"));
        }
    }
    Ok(())
}

/// Where the newest snapshot leaves off, or the beginning. Errors: it is damaged or gone, and nothing older will do.
fn begin(disk: &dyn Disk, folder: &Path, all: &[Segment], accept_loss: bool, progress: &Progress) -> Result<Found> {
    snapshot::remove_drafts(disk, folder)?;
    let first = marked(disk, folder, Mark::First)?;
    let mut passed_over: Vec<(PathBuf, String)> = Vec::new();
    for segment in snapshot::all(disk, folder)?.into_iter().rev() {
        let path = snapshot::path(folder, &segment);
        progress.expect(disk.len(&path).unwrap_or(0));
        let why = match snapshot::verified_telling(disk, folder, &segment, |bytes| progress.read(bytes)) {
            Ok(head) if is_served(&head, &segment, all, first, passed_over.is_empty()) => {
                pass_over(disk, folder, passed_over)?;
                return Ok(Found::behind(Some((segment, head))));
            }
            Ok(_) if passed_over.is_empty() => {
                format!("a snapshot is missing: it let go of what the newest one there is needs, {}", path.display())
            }
            Ok(_) => format!("what it needs of the log is gone: {}", path.display()),
            Err(damage) if damage.fault != Fault::User => return Err(damage),
            Err(damage) if !accept_loss => {
                return Err(damage.hint("restore the data folder, or begin with what is older, if it is still there, with --accept-loss"));
            }
            Err(damage) => damage.message,
        };
        passed_over.push((path, why));
    }
    if !passed_over.is_empty() && all.first() != Some(&Segment::FIRST) {
        let whys: Vec<&str> = passed_over.iter().map(|(_, why)| why.as_str()).collect();
        let first = Segment::FIRST.path(folder);
        let error = Error::user(format!("{}; and there is no {} to begin with", whys.join("; "), first.display()));
        return Err(error.hint("restore the data folder"));
    }
    if let Some(first) = first.filter(|first| *first != Segment::FIRST && passed_over.is_empty()) {
        let (gone, log) = (snapshot::path(folder, &first), first.path(folder));
        let error = Error::user(format!("{}, or a later one, is missing: the log begins with {}", gone.display(), log.display()));
        return Err(error.hint("restore the data folder"));
    }
    pass_over(disk, folder, passed_over)?;
    Ok(Found::behind(None))
}

/// Whether the log has what a snapshot needs of it. Of the newest one that is there only what was trimmed since is asked,
/// as a newer one let go: what else is missing is told by its name.
fn is_served(head: &Head, segment: &Segment, all: &[Segment], first: Option<Segment>, is_newest: bool) -> bool {
    match is_newest {
        true => !head.segments.iter().any(|(segment, holdings)| Some(*segment) < first && !all.contains(segment) && head.needs(holdings)),
        false => all.contains(segment) && head.is_served_by(all),
    }
}

/// They are not found any more by who looks for the newest.
fn pass_over(disk: &dyn Disk, folder: &Path, snapshots: Vec<(PathBuf, String)>) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    snapshots.iter().for_each(|(_, why)| tracing::error!("{why}; it is passed over for what is older, as asked"));
    set_aside(disk, folder, snapshots.into_iter().map(|(path, _)| path))
}

/// Errors: a segment that is not there, and was not trimmed. Between the snapshot and the last one the chain
/// would miss it, too.
fn missing(disk: &dyn Disk, folder: &Path, all: &[Segment], found: &Found) -> Result<()> {
    let (first, last) = (marked(disk, folder, Mark::First)?, marked(disk, folder, Mark::Last)?);
    let kept = found.holdings.keys().filter(|segment| first.is_some_and(|first| first <= **segment));
    match kept.chain(&first).chain(&last).find(|segment| !all.contains(segment)) {
        Some(segment) => Err(Error::user(format!("{} is missing: views may need its rows", segment.path(folder).display()))
            .hint("restore the data folder, or go on without these rows with --accept-loss")),
        None => Ok(()),
    }
}

/// Moves `found` behind the segment's last commit. Returns what is missing or damaged before that.
fn follow(disk: &dyn Disk, folder: &Path, segment: &Segment, found: &mut Found, progress: &Progress) -> Result<Option<String>> {
    if (segment.number, segment.chain) != (found.end.number, found.end.chain) {
        return Ok(Some(format!("the frames from {} to {} are missing", found.end.number, segment.number)));
    }
    found.end = Place { segment: *segment, position: 0, ..found.end };
    found.synced = 0;
    let copies = copies(disk, &segment.copies_path(folder))?;
    let damage = verify(disk, folder, segment, copies.last.map(|copy| copy.number), found, progress)?;
    if 1 < copies.damaged {
        tracing::warn!(path = %segment.copies_path(folder).display(), copies = copies.damaged, "copies of commits are damaged");
    }
    match copies.last.filter(|copy| found.end.number <= copy.number) {
        Some(copy) => Ok(Some(damage.unwrap_or_else(|| format!("it ends before tick {}, which was committed", copy.tick)))),
        // What a crash tore was never committed.
        None => Ok(None),
    }
}

/// Reads a segment as far as it is whole. `copied`: the last commit that has a copy. Returns what ends it early.
fn verify(
    disk: &dyn Disk,
    folder: &Path,
    segment: &Segment,
    copied: Option<u64>,
    found: &mut Found,
    progress: &Progress,
) -> Result<Option<String>> {
    let path = segment.path(folder);
    let mut frames = frames(disk, folder, segment)?;
    loop {
        let before = frames.position;
        let next = frames.next(|_| true);
        progress.read(frames.position - before);
        match next {
            Ok(None) => return Ok(None),
            Ok(Some((header, body))) => match header.tag {
                COMMIT => {
                    found.holdings.entry(*segment).or_default().last_tick = header.tick;
                    let Frames { position, number, chain, .. } = frames;
                    found.end = Place { segment: *segment, position, number, chain, tick: header.tick };
                    if Some(header.number) <= copied {
                        found.synced = position;
                    }
                }
                BEGIN => {
                    if let Record::Begin { log, epoch, .. } = Record::decode(&body)? {
                        found.writer = Some(Writer { log, epoch });
                    }
                }
                GUILTY => {
                    if let Record::Guilty(guilty) = Record::decode(&body)? {
                        found.quarantine.add(guilty);
                    }
                }
                _ => {
                    if let Some(arrived) = Record::arrived_head(&body)? {
                        found.holdings.entry(*segment).or_default().note(&arrived);
                    }
                }
            },
            Err(Broken::Damage(what)) => return Ok(Some(format!("at byte {}: {what}", frames.position))),
            Err(Broken::Disk(error)) => return Err(unreadable(&path, &error)),
        }
    }
}

/// Keeps what is given up under another name, for who wants to look.
fn set_aside(disk: &dyn Disk, folder: &Path, given_up: impl Iterator<Item = PathBuf>) -> Result<()> {
    for path in given_up {
        let mut aside = path.clone().into_os_string();
        aside.push(LOST_ENDING);
        match disk.rename(&path, Path::new(&aside)) {
            Ok(()) => tracing::error!(path = %Path::new(&aside).display(), "kept under this name is all of what is given up"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unwritable(&path, &error)),
        }
    }
    disk.sync_folder(folder).map_err(|error| unwritable(folder, &error))
}

/// Keeps what is about to be cut off beside its segment, under a name of its own. Errors: it cannot be kept whole; then
/// nothing of it is there, and nothing may be cut off.
fn keep_cut(disk: &dyn Disk, folder: &Path, end: &Place) -> Result<()> {
    let (path, draft) = (end.segment.path(folder), end.segment.named(folder, LOST_DRAFT_ENDING));
    let bytes = disk.len(&path).map_err(|error| unreadable(&path, &error))?.saturating_sub(end.position);
    if bytes == 0 {
        return Ok(());
    }
    let kept = copy_behind(disk, &path, end.position, &draft).and_then(|hash| {
        let kept = end.segment.named(folder, &format!(".{hash}{LOST_ENDING}"));
        disk.rename(&draft, &kept).and_then(|()| disk.sync_folder(folder)).map(|()| kept)
    });
    match kept {
        Ok(kept) => {
            tracing::error!(path = %kept.display(), bytes, "kept there is what is cut off");
            Ok(())
        }
        Err(error) => {
            // A part of it must not keep others from their room.
            let _ = disk.remove(&draft);
            let told = Error::engine(format!("{bytes} bytes that {} loses cannot be kept beside it first: {error}", path.display()));
            Err(unless_full(told.hint("make room on the disk for them, or check it and the rights on the data folder"), &error))
        }
    }
}

/// Copies what a file has behind `position` to `draft`, for good. Returns its hash.
fn copy_behind(disk: &dyn Disk, path: &Path, position: u64, draft: &Path) -> std::io::Result<String> {
    if disk.len(draft).is_ok() {
        disk.remove(draft)?;
    }
    let mut reader = disk.read(path)?;
    std::io::copy(&mut reader.by_ref().take(position), &mut std::io::sink())?;
    let (mut file, mut hasher, mut piece) = (disk.create(draft)?, blake3::Hasher::new(), Vec::new());
    while reader.by_ref().take(PIECE_BYTES).read_to_end(&mut piece)? != 0 {
        hasher.update(&piece);
        file.write_all(&piece)?;
        piece.clear();
    }
    file.sync()?;
    Ok(hasher.finalize().to_hex()[..16].to_string())
}

/// The segment ends at the found end, all of it for good, and its copies at a whole copy.
fn cut(disk: &dyn Disk, folder: &Path, found: &Found, seeded: Seeded) -> Result<()> {
    let (end, path) = (&found.end, found.end.segment.path(folder));
    let unsynced = |error: std::io::Error| unwritable(&path, &error);
    let is_whole = disk.len(&path).map_err(unsynced)? == end.position && found.synced == end.position;
    if is_whole || seeded.has(Bug::TornTailKept) {
        return rewrite_copies(disk, folder, end);
    }
    let mut tail = Vec::new();
    let mut reader = disk.read(&path).map_err(unsynced)?;
    std::io::copy(&mut reader.by_ref().take(found.synced), &mut std::io::sink()).map_err(unsynced)?;
    reader.take(end.position - found.synced).read_to_end(&mut tail).map_err(unsynced)?;
    disk.truncate(&path, found.synced).map_err(unsynced)?;
    let mut file = disk.append(&path).map_err(unsynced)?;
    file.write_all(&tail).and_then(|()| file.sync()).map_err(unsynced)?;
    rewrite_copies(disk, folder, end)
}

/// A record, read again.
pub struct Replayed {
    pub tick: Tick,
    /// Its frame's.
    pub number: u64,
    pub record: Record,
}

/// Committed records behind the snapshot, in order.
pub struct Replay {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    left: std::vec::IntoIter<Segment>,
    frames: Option<Frames<Box<dyn Read + Send>>>,
    path: PathBuf,
    quarantine: Arc<Quarantine>,
}

impl Replay {
    /// From the segment `from` on, but for what is passed over.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf, from: &Segment, quarantine: Arc<Quarantine>) -> Result<Self> {
        let mut left = segments(&*disk, &folder)?;
        left.retain(|segment| from <= segment);
        let left = left.into_iter();
        Ok(Self { disk, folder, left, frames: None, path: PathBuf::new(), quarantine })
    }

    /// Errors: damage that came after the scan.
    pub fn next(&mut self) -> Result<Option<Replayed>> {
        loop {
            if let Some(frames) = &mut self.frames {
                match frames.next(|_| true) {
                    Ok(Some((Header { tick, number, .. }, body))) => {
                        if let Some(record) = self.quarantine.pass(number, Record::decode(&body)?) {
                            return Ok(Some(Replayed { tick, number, record }));
                        }
                    }
                    Ok(None) => self.frames = None,
                    Err(broken) => return Err(broken_at(&self.path, &broken)),
                }
            }
            let Some(segment) = self.left.next() else { return Ok(None) };
            self.path = segment.path(&self.folder);
            self.frames = Some(frames(&*self.disk, &self.folder, &segment)?);
        }
    }
}

/// Hands what these sources brought in the frames `among` of the segments `known` to `visit`, oldest first,
/// each with its frame's number; but for what is passed over. Errors: damage, a segment that is not there, or
/// what `visit` says.
pub fn history(
    disk: &dyn Disk,
    folder: &Path,
    quarantine: &Quarantine,
    known: &[Segment],
    sources: &[&str],
    among: Range<u64>,
    mut visit: impl FnMut(u64, Arrived) -> Result<()>,
) -> Result<()> {
    let tags: Vec<u32> = sources.iter().map(|source| tag_of(source)).collect();
    for (i, segment) in known.iter().enumerate() {
        if known.get(i + 1).is_some_and(|next| next.number <= among.start) || among.end <= segment.number {
            continue;
        }
        let mut frames = match frames(disk, folder, segment) {
            Ok(frames) => frames,
            // It was trimmed meanwhile.
            Err(_) if marked(disk, folder, Mark::First)?.is_some_and(|first| *segment < first) => continue,
            Err(error) => return Err(error),
        };
        while frames.number < among.end {
            let next = frames.next(|header: &Header| tags.contains(&header.tag));
            let Some((header, body)) = next.map_err(|broken| broken_at(&segment.path(folder), &broken))? else { break };
            if tags.contains(&header.tag)
                && among.contains(&header.number)
                && let Some(Record::Arrived(arrived)) = quarantine.pass(header.number, Record::decode(&body)?)
            {
                visit(header.number, *arrived)?;
            }
        }
    }
    Ok(())
}

pub fn frames(disk: &dyn Disk, folder: &Path, segment: &Segment) -> Result<Frames<Box<dyn Read + Send>>> {
    read_frames(disk, &segment.path(folder), segment.number, segment.chain)
}

/// The frames of a file: the first one's number, and the chain before it.
pub fn read_frames(disk: &dyn Disk, path: &Path, number: u64, chain: Chain) -> Result<Frames<Box<dyn Read + Send>>> {
    let reader = disk.read(path).map_err(|error| unreadable(path, &error))?;
    let reader: Box<dyn Read + Send> = Box::new(std::io::BufReader::with_capacity(1 << 20, reader));
    Ok(Frames::new(reader, number, chain))
}

pub fn broken_at(path: &Path, broken: &Broken) -> Error {
    match broken {
        Broken::Damage(what) => Error::engine(format!("the log is damaged: {}: {what}", path.display())),
        Broken::Disk(error) => unreadable(path, error),
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use tidegate_testdata::malformed::{mutate, run};
    use tidegate_types::ScratchDisk;

    use super::super::segment::Copy;
    use super::*;

    /// The same frame as another build would have written it.
    fn of_format(format: u8, frame: &[u8]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        bytes[4] = format;
        let crc = crc32fast::hash(&bytes[..84]);
        bytes[84..88].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn another_format_is_refused_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut frame = Vec::new();
        frame::write(&mut frame, 1, 0, COMMIT, &Chain::default(), b"{}");
        let older = of_format(FORMAT - 1, &frame);
        for path in [Segment::FIRST.path(folder.path()), snapshot::path(folder.path(), &Segment { number: 7, chain: [1; 16] })] {
            std::fs::write(&path, &older).unwrap();
            for accept_loss in [false, true] {
                let error = scan(&ScratchDisk, folder.path(), accept_loss, Seeded::default(), &Progress::default()).map(drop).unwrap_err();
                let told = format!("{} is of format {}, and this build reads format {FORMAT}", path.display(), FORMAT - 1);
                assert_eq!((error.fault, &error.message), (Fault::User, &told));
                assert!(!error.to_string().contains("accept-loss"), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), older);
            }
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_cut_off_is_kept_beside_its_segment_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, draft) = (Segment::FIRST.path(folder.path()), Segment::FIRST.named(folder.path(), LOST_DRAFT_ENDING));
        let keep = |torn: &str| {
            std::fs::write(&path, torn).unwrap();
            keep_cut(&ScratchDisk, folder.path(), &Place { position: 3, ..Place::START })
        };
        let kept = || {
            let paths = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let lost = paths.filter(|path| path.to_string_lossy().ends_with(LOST_ENDING));
            let mut texts: Vec<String> = lost.map(|path| std::fs::read_to_string(path).unwrap()).collect();
            texts.sort();
            texts
        };
        std::fs::create_dir(&draft).unwrap();
        let error = keep("abcde").unwrap_err();
        assert!(error.message.starts_with("2 bytes that ") && kept().is_empty(), "{error}");
        std::fs::remove_dir(&draft).unwrap();
        std::fs::write(&draft, "what a crash left").unwrap();
        let cases: [(&str, &[&str]); 4] = [("abcde", &["de"]), ("abcde", &["de"]), ("abcfg", &["de", "fg"]), ("abc", &["de", "fg"])];
        for (torn, expected) in cases {
            keep(torn).unwrap();
            assert_eq!(kept(), expected, "{torn}");
            assert!(!draft.exists());
        }
    }

    /// A segment of four ticks, and its copies.
    fn written() -> [Vec<u8>; 2] {
        let (mut segment, mut copies, mut number, mut chain) = (Vec::new(), Vec::new(), 0, Segment::FIRST.chain);
        for tick in 1..5 {
            let records = [
                Record::Begin { log: "a".into(), epoch: tick, version: "0.1.0".into(), lost_after: None },
                Record::Statement { file: "a.sql".into(), text: "CREATE TABLE t (a INT);".repeat(20), is_pack: true },
                Record::Commit { delivered: BTreeMap::new() },
            ];
            for record in records {
                chain = frame::write(&mut segment, tick, number, record.tag(), &chain, &record.encode().unwrap());
                number += 1;
            }
            copies.extend(Copy { tick, number: number - 1, chain }.bytes());
        }
        [segment, copies]
    }

    #[test]
    fn of_any_segment_there_is_an_end_or_a_reason() {
        let whole = written();
        run("log", 8, &["tide"], |_, random| {
            let folder = tempfile::tempdir().unwrap();
            let mut damaged = whole.clone();
            for _ in 0..random.random_range(0..4) {
                mutate(&mut damaged[usize::from(random.random_bool(0.2))], &["tide"], random);
            }
            let [segment, copies] = &damaged;
            std::fs::write(Segment::FIRST.path(folder.path()), segment).unwrap();
            std::fs::write(Segment::FIRST.copies_path(folder.path()), copies).unwrap();
            let end = |accept_loss| {
                let found = scan(&ScratchDisk, folder.path(), accept_loss, Seeded::default(), &Progress::default());
                found.map(|found| found.end)
            };
            let found = end(false).or_else(|refused| {
                assert_eq!(refused.fault, Fault::User, "{refused}");
                end(true)
            });
            // What it ended at, it ends at again.
            assert_eq!(end(false).unwrap(), found.unwrap());
        });
    }
}
