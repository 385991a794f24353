//! A log as it was at a tick, in a folder of its own that another engine begins with. Nothing is written where the
//! log is, and an engine may go on writing it meanwhile.
//!
//! Begins    with the newest snapshot that is whole and not behind the tick, and whose segments are all there, or with
//!           the log's own beginning
//! Linked    what never changes again: the snapshot, and all segments but the last; the links are hard ones where the
//!           temporary folder is on the same disk
//! Copied    of the last segment, what is not behind the tick
//! Later     what came after the tick, for who wants to see it happen once more

use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tidegate_types::Tick;
use tidegate_types::disk::Disk;
use tidegate_types::error::{Error, Fault, Result};

use super::frame::Broken;
use super::quarantine::{Guilty, Quarantine};
use super::record::{COMMIT, GUILTY, Record};
use super::scan::{Replay, Replayed, check_format, frames};
use super::segment::{Mark, Segment, rewrite_copies, segments, set_mark, unreadable};
use super::snapshot::{self, Head};
use super::{Place, Progress};

/// Another folder, with the log up to a tick.
pub struct Past {
    pub folder: TempDir,
    pub guilty: Vec<Guilty>,
    pub later: Later,
}

/// The rest of the log, up to its last commit.
pub struct Later {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    from: Segment,
    /// The moment that was asked for.
    at: Tick,
    /// The past ends with this tick.
    pub after: Tick,
    pub last: Tick,
    quarantine: Quarantine,
}

/// The log in `folder` as it was once `at` was over; None: at its end.
///
/// Errors: a tick that the log does not have, or no longer.
pub fn open(disk: &Arc<dyn Disk>, folder: &Path, at: Option<Tick>, progress: &Progress) -> Result<Past> {
    for _ in 1..TRIES {
        // An engine that takes a snapshot meanwhile removes what that makes needless.
        match lay_out(disk, folder, at, progress) {
            Err(error) if error.fault == Fault::Engine => tracing::debug!(%error, "the past is laid out again"),
            done => return done,
        }
    }
    lay_out(disk, folder, at, progress)
}

const TRIES: usize = 5;

fn lay_out(disk: &Arc<dyn Disk>, folder: &Path, at: Option<Tick>, progress: &Progress) -> Result<Past> {
    let at = at.unwrap_or(Tick::MAX);
    if disk.list(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(none_in(folder));
    }
    let all = segments(&**disk, folder)?;
    check_format(&**disk, folder, &all)?;
    let beginning = beginning(&**disk, folder, &all, at)?;
    let start = beginning.as_ref().map_or(Place::START, |(segment, head)| Place {
        segment: *segment,
        position: 0,
        number: segment.number,
        chain: segment.chain,
        tick: head.tick,
    });
    let mut guilty: Vec<Guilty> = beginning.as_ref().map_or_else(Vec::new, |(_, head)| head.quarantined.clone());
    let walked = all.iter().filter(|segment| start.segment <= **segment);
    walked.for_each(|segment| progress.expect(disk.len(&segment.path(folder)).unwrap_or(0)));
    let (end, last) = walk(&**disk, folder, &all, (start, at), &mut guilty, progress)?;
    if end.tick == 0 {
        return Err(Error::user(format!("the log begins after tick {at}")).hint("ask for a later one"));
    }
    if at != Tick::MAX && last < at {
        return Err(Error::user(format!("the log ends at tick {last}, before {at}")).hint("ask for that tick, or an earlier one"));
    }
    let past = tempfile::Builder::new().prefix("tidegate-past-").tempdir();
    let past = past.map_err(|error| Error::engine(format!("no temporary folder for the past: {error}")).hint("set TMPDIR"))?;
    let linked = beginning.iter().map(|(segment, _)| snapshot::path(folder, segment));
    let linked = linked.chain(all.iter().filter(|segment| **segment < end.segment).map(|segment| segment.path(folder)));
    linked.into_iter().try_for_each(|path| link(&path, past.path()))?;
    copy(&**disk, folder, past.path(), &end)?;
    set_mark(&**disk, past.path(), Mark::First, all.first().unwrap_or(&end.segment))?;
    let mut quarantine = Quarantine::default();
    quarantine.extend(guilty.iter().cloned());
    // Frames of the past's own have the numbers of those that came later.
    guilty.retain(|guilty| guilty.frame < end.number);
    let (disk, folder) = (Arc::clone(disk), folder.to_path_buf());
    let later = Later { disk, folder, from: end.segment, at: at.min(last), after: end.tick, last, quarantine };
    Ok(Past { folder: past, guilty, later })
}

/// What the past can begin with: a snapshot, or (None) the beginning of the log.
fn beginning(disk: &dyn Disk, folder: &Path, all: &[Segment], at: Tick) -> Result<Option<(Segment, Head)>> {
    let (mut earliest, mut damaged) = (None, Vec::new());
    let tell = |damaged: &[String]| damaged.iter().for_each(|damage| tracing::warn!("{damage}; the past begins with what is older"));
    for segment in snapshot::all(disk, folder)?.into_iter().rev() {
        let head = match head_before(disk, folder, &segment, at) {
            Err(error) if error.fault == Fault::User => {
                damaged.push(error.message);
                continue;
            }
            head => head?,
        };
        if !head.is_served_by(all) {
            continue;
        }
        if head.tick <= at {
            tell(&damaged);
            return Ok(Some((segment, head)));
        }
        earliest = Some(head.tick);
    }
    match (all.first(), earliest) {
        (Some(first), _) if *first == Segment::FIRST => {
            tell(&damaged);
            Ok(None)
        }
        (Some(first), None) if !damaged.is_empty() => {
            let error = Error::user(format!("{}; and the log begins with {}", damaged.join("; "), first.path(folder).display()));
            Err(error.hint("restore the data folder"))
        }
        (_, Some(tick)) => {
            let damaged: String = damaged.iter().map(|damage| format!("{damage}; ")).collect();
            let error = Error::user(format!("{damaged}the log no longer has what was before tick {tick}"));
            Err(error.hint("ask for that tick, or a later one"))
        }
        (_, None) => Err(none_in(folder)),
    }
}

/// All but rows of a snapshot; of one that is not behind `at` also the rows are whole.
fn head_before(disk: &dyn Disk, folder: &Path, segment: &Segment, at: Tick) -> Result<Head> {
    let head = snapshot::head(disk, folder, segment)?;
    if at < head.tick { Ok(head) } else { snapshot::verified(disk, folder, segment) }
}

fn none_in(folder: &Path) -> Error {
    Error::user(format!("there is no log in {}", folder.display())).hint("give the --data-dir of an engine")
}

/// From `start` the last commit that is not behind `at`, and the tick of the last one there is. Notes who is guilty.
fn walk(
    disk: &dyn Disk,
    folder: &Path,
    all: &[Segment],
    (start, at): (Place, Tick),
    guilty: &mut Vec<Guilty>,
    progress: &Progress,
) -> Result<(Place, Tick)> {
    let (mut end, mut last) = (start, start);
    for segment in all.iter().filter(|segment| start.segment <= **segment) {
        // What a crash tore, or somebody is about to write, ends the log.
        if (segment.number, segment.chain) != (last.number, last.chain) {
            break;
        }
        let mut frames = frames(disk, folder, segment)?;
        loop {
            let before = frames.position;
            let next = frames.next(|header| header.tag == GUILTY);
            progress.read(frames.position - before);
            let (header, body) = match next {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(Broken::Damage(_)) => break,
                Err(Broken::Disk(error)) => return Err(unreadable(&segment.path(folder), &error)),
            };
            match header.tag {
                COMMIT => {
                    last = Place {
                        segment: *segment,
                        position: frames.position,
                        number: frames.number,
                        chain: frames.chain,
                        tick: header.tick,
                    };
                    if last.tick <= at {
                        end = last;
                    }
                }
                GUILTY => {
                    if let Record::Guilty(found) = Record::decode(&body)? {
                        guilty.push(found);
                    }
                }
                _ => {}
            }
        }
    }
    Ok((end, last.tick))
}

fn link(path: &Path, past: &Path) -> Result<()> {
    let to = past.join(path.file_name().unwrap_or_default());
    // On the same disk it stays, whatever becomes of its name.
    if std::fs::hard_link(path, &to).is_ok() {
        return Ok(());
    }
    let linked = std::fs::metadata(path).and_then(|_| std::path::absolute(path)).and_then(|from| symlink(from, to));
    linked.map_err(|error| not_made(past, &error))
}

/// The last segment of the past, up to `end`.
fn copy(disk: &dyn Disk, folder: &Path, past: &Path, end: &Place) -> Result<()> {
    let path = end.segment.path(folder);
    let mut reader = disk.read(&path).map_err(|error| unreadable(&path, &error))?.take(end.position);
    let mut writer = std::fs::File::create_new(end.segment.path(past)).map_err(|error| not_made(past, &error))?;
    io::copy(&mut reader, &mut writer).and_then(|_| writer.flush()).map_err(|error| not_made(past, &error))?;
    rewrite_copies(disk, past, end)
}

fn not_made(past: &Path, error: &io::Error) -> Error {
    Error::engine(format!("the past cannot be laid out in {}: {error}", past.display())).hint("make room there, or set TMPDIR")
}

impl Later {
    /// What was committed after the past, up to the tick `upto`; None: all of it.
    ///
    /// Errors: a tick before the past's moment, or one that the log does not have.
    pub fn replay(self, upto: Option<Tick>) -> Result<Remainder> {
        let Self { disk, folder, from, at, after, last, quarantine } = self;
        let upto = upto.unwrap_or(last);
        if upto < at {
            let error = Error::user(format!("what came later is asked for up to tick {upto}, but begins after {at}"));
            return Err(error.hint("end with a later tick, or begin with an earlier one"));
        }
        if last < upto {
            return Err(Error::user(format!("the log ends at tick {last}, before {upto}")).hint("end with that tick, or an earlier one"));
        }
        let replay = Replay::new(disk, folder, &from, Arc::new(quarantine))?;
        Ok(Remainder { replay, after, upto, is_over: upto <= after })
    }
}

/// Records in order.
pub struct Remainder {
    replay: Replay,
    after: Tick,
    upto: Tick,
    is_over: bool,
}

impl Remainder {
    /// None once the last tick's commit was handed out: what is behind it may be half written.
    pub fn next(&mut self) -> Result<Option<Replayed>> {
        while !self.is_over {
            let Some(replayed) = self.replay.next()?.filter(|replayed| replayed.tick <= self.upto) else { break };
            self.is_over = matches!(replayed.record, Record::Commit { .. }) && replayed.tick == self.upto;
            if self.after < replayed.tick {
                return Ok(Some(replayed));
            }
        }
        self.is_over = true;
        Ok(None)
    }
}
