//! The thread that writes: encodes records, groups what belongs to a tick, and makes it last.
//!
//! Order     frames of a tick, its commit, sync of the segment; then the commit's copy, sync of the
//!           copies; only then is the tick durable
//! Roll      between two commits: the new segment's names are made last before it is written. Where no file can be
//!           made (no inodes, no rights), the old segment goes on, however long it gets, and nobody waits
//! Full      a write that finds the disk full takes back what it wrote and tries again each second;
//!           nothing is lost meanwhile, and nothing becomes visible. Not so the first ones of an engine: who
//!           starts it tries again
//! Errors    any other is final: what a failed sync leaves on the disk is unknown. So is a file that somebody
//!           removed, which is looked for before a tick is durable

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use tidegate_types::Tick;
use tidegate_types::disk::{Disk, DiskFile};
use tidegate_types::error::{Error, Result};

use super::frame;
use super::record::Record;
use super::segment::{Copy, Holdings, Mark, Segment, is_full, set_mark, unless_full};
use super::{Event, Growth, Order, Place, Shared};
use crate::seeded::{Bug, Seeded};

/// A segment this long is followed by another at its next commit.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Bytes that wait to be written while their tick is open.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Between two tries on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

pub struct LogWriter {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    place: Place,
    file: Box<dyn DiskFile>,
    copies: Box<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Of the segment, what is written; the buffer comes behind it.
    written: u64,
    copies_written: u64,
    /// Room is waited for, and it was told.
    is_full: Arc<AtomicBool>,
    /// What is left on the disk is told after each commit.
    is_watched: bool,
    /// What each segment holds, for whoever asks.
    holdings: Arc<Mutex<BTreeMap<Segment, Holdings>>>,
    /// Frames and bytes since the last snapshot.
    growth: Arc<Growth>,
    /// Room is waited for.
    is_patient: Arc<AtomicBool>,
    seeded: Seeded,
}

impl LogWriter {
    /// Goes on behind `place`. `is_new`: its segment is not there yet.
    pub fn open(disk: Arc<dyn Disk>, folder: PathBuf, place: Place, is_new: bool, is_watched: bool, shared: &Shared) -> io::Result<Self> {
        let (file, copies) = if is_new { create(&*disk, &folder, &place.segment)? } else { append(&*disk, &folder, &place.segment)? };
        if is_new {
            disk.sync_folder(&folder)?;
        }
        let copies_written = disk.len(&place.segment.copies_path(&folder))?;
        let (buffer, written) = (Vec::new(), place.position);
        let Shared { holdings, growth, is_patient, is_full, seeded, .. } = shared.clone();
        Ok(Self {
            disk,
            folder,
            place,
            file,
            copies,
            buffer,
            written,
            copies_written,
            is_full,
            is_watched,
            holdings,
            growth,
            is_patient,
            seeded,
        })
    }

    /// Carries out orders until told to stop, or until the disk fails.
    pub fn run(mut self, orders: &Receiver<Order>, tell: &dyn Fn(Event)) {
        while let Ok(order) = orders.recv() {
            let done = match order {
                Order::Append(tick, record) => self.append(tick, &record, tell),
                Order::Commit(tick, delivered) => self.commit(tick, &Record::Commit { delivered }, tell),
                Order::Flush(reply) => self.flush(tell).map(|()| reply.send(self.place.number).unwrap_or_default()),
                Order::Roll(reply) => {
                    self.roll(tell).map(|is_rolled| reply.send(is_rolled.then_some(self.place.segment)).unwrap_or_default())
                }
                Order::Stop => return,
            };
            if let Err(error) = done {
                return tell(Event::Failed(error));
            }
        }
    }

    pub fn append(&mut self, tick: Tick, record: &Record, tell: &dyn Fn(Event)) -> Result<()> {
        let body = record.encode()?;
        if frame::BODY_BYTES_MAX < body.len() {
            return Err(Error::engine(format!("a record of {} bytes does not fit into the log", body.len())));
        }
        let before = self.buffer.len();
        self.place.chain = frame::write(&mut self.buffer, tick, self.place.number, record.tag(), &self.place.chain, &body);
        self.place.number += 1;
        if let Record::Arrived(arrived) = record {
            self.holdings.lock().entry(self.place.segment).or_default().note(arrived);
        }
        self.growth.frames.fetch_add(1, Ordering::Relaxed);
        self.growth.bytes.fetch_add((self.buffer.len() - before) as u64, Ordering::Relaxed);
        self.place.position += (self.buffer.len() - before) as u64;
        if BUFFER_BYTES_MAX <= self.buffer.len() { self.flush(tell) } else { Ok(()) }
    }

    pub fn commit(&mut self, tick: Tick, record: &Record, tell: &dyn Fn(Event)) -> Result<()> {
        let number = self.place.number;
        self.append(tick, record, tell)?;
        let failed = |path: PathBuf| move |error: io::Error| fatal(&path, &error);
        let is_hasty = self.seeded.has(Bug::AnswerBeforeSync);
        if is_hasty {
            self.file.sync().and_then(|()| self.copies.sync()).map_err(failed(self.place.segment.path(&self.folder)))?;
        }
        self.flush(tell)?;
        if !is_hasty {
            self.file.sync().map_err(failed(self.place.segment.path(&self.folder)))?;
        }
        let copy = Copy { tick, number, chain: self.place.chain };
        let copies_path = self.place.segment.copies_path(&self.folder);
        while let Err(error) = self.copies.write_all(&copy.bytes()) {
            self.wait_for_room(&copies_path, self.copies_written, &error, tell)?;
            self.copies = self.disk.append(&copies_path).map_err(failed(copies_path.clone()))?;
        }
        self.copies_written += copy.bytes().len() as u64;
        self.tell_room(tell);
        if !is_hasty {
            self.copies.sync().map_err(failed(copies_path))?;
        }
        self.check_there()?;
        self.place.tick = tick;
        self.holdings.lock().entry(self.place.segment).or_default().last_tick = tick;
        tell(Event::Durable(tick));
        // A disk that does not say how much is left may still take all there is.
        if self.is_watched
            && let Ok(room) = self.disk.room(&self.folder)
        {
            tell(Event::Room(room));
        }
        if SEGMENT_BYTES_MAX <= self.place.position { self.roll(tell).map(drop) } else { Ok(()) }
    }

    /// Errors: somebody removed what was written to; what a sync says of it is worth nothing.
    fn check_there(&self) -> Result<()> {
        let gone = [self.place.segment.path(&self.folder), self.place.segment.copies_path(&self.folder)]
            .into_iter()
            .find(|path| self.disk.len(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        gone.map_or(Ok(()), |path| {
            Err(Error::engine(format!("the log is being removed: {} is gone", path.display()))
                .hint("restore the data folder; nothing of this tick was acknowledged"))
        })
    }

    /// What was appended is with the operating system.
    fn flush(&mut self, tell: &dyn Fn(Event)) -> Result<()> {
        while !self.buffer.is_empty() {
            match self.file.write_all(&self.buffer) {
                Ok(()) => {
                    self.written += self.buffer.len() as u64;
                    self.buffer.clear();
                }
                Err(error) => {
                    let path = self.place.segment.path(&self.folder);
                    self.wait_for_room(&path, self.written, &error, tell)?;
                    self.file = self.disk.append(&path).map_err(|error| fatal(&path, &error))?;
                }
            }
        }
        self.tell_room(tell);
        Ok(())
    }

    /// What waited for room is written.
    fn tell_room(&mut self, tell: &dyn Fn(Event)) {
        if self.is_full.swap(false, Ordering::Relaxed) {
            tell(Event::Full(None));
        }
    }

    /// Begins another segment, behind a commit; one that nothing was written to yet is as good. It has the name
    /// the other would have, and is marked: making it again would be to remove it first. False: no file can be made.
    fn roll(&mut self, tell: &dyn Fn(Event)) -> Result<bool> {
        if self.place.position == 0 {
            return Ok(true);
        }
        let segment = Segment { number: self.place.number, chain: self.place.chain };
        let path = segment.path(&self.folder);
        let files = create(&*self.disk, &self.folder, &segment);
        // Half a segment that came back after a power cut would be one whose frames are missing: what there is of it is
        // known for good before the old one goes on.
        if files.is_ok() || remove(&*self.disk, &self.folder, &segment).map_err(|error| fatal(&path, &error))? {
            self.disk.sync_folder(&self.folder).map_err(|error| fatal(&path, &error))?;
        }
        match files {
            Ok((file, copies)) => {
                set_mark(&*self.disk, &self.folder, Mark::Last, &segment)?;
                (self.file, self.copies) = (file, copies);
                self.place = Place { segment, position: 0, ..self.place };
                (self.written, self.copies_written) = (0, 0);
                tell(Event::Crowded(None));
                Ok(true)
            }
            Err(error) => {
                tell(Event::Crowded(Some(format!("no file can be made in the data folder: {}: {error}", path.display()))));
                Ok(false)
            }
        }
    }

    /// Takes back what a failed write left behind `length`, and waits. Errors: anything but a full
    /// disk, and that too where room is not waited for.
    fn wait_for_room(&mut self, path: &Path, length: u64, error: &io::Error, tell: &dyn Fn(Event)) -> Result<()> {
        if !is_full(error) || !self.is_patient.load(Ordering::Relaxed) {
            return Err(fatal(path, error));
        }
        match self.disk.truncate(path, length) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fatal(path, &error)),
            _ => {}
        }
        if !self.is_full.load(Ordering::Relaxed) {
            tell(Event::Full(Some(format!("no room to write {}", path.display()))));
            self.is_full.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(FULL_PAUSE);
        Ok(())
    }
}

/// A segment that nothing was written to yet, which is there for good once the folder is synced. What an attempt that
/// failed left of it goes first.
fn create(disk: &dyn Disk, folder: &Path, segment: &Segment) -> io::Result<(Box<dyn DiskFile>, Box<dyn DiskFile>)> {
    remove(disk, folder, segment)?;
    let copies = disk.create(&segment.copies_path(folder))?;
    let file = disk.create(&segment.path(folder))?;
    Ok((file, copies))
}

/// Removes what is there of a segment. Returns whether there was anything.
fn remove(disk: &dyn Disk, folder: &Path, segment: &Segment) -> io::Result<bool> {
    let mut is_any = false;
    for half in [segment.path(folder), segment.copies_path(folder)] {
        match disk.remove(&half) {
            Ok(()) => is_any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(is_any)
}

fn append(disk: &dyn Disk, folder: &Path, segment: &Segment) -> io::Result<(Box<dyn DiskFile>, Box<dyn DiskFile>)> {
    Ok((disk.append(&segment.path(folder))?, disk.append(&segment.copies_path(folder))?))
}

fn fatal(path: &Path, error: &io::Error) -> Error {
    let told = Error::engine(format!("the log cannot be written: {}: {error}", path.display()));
    unless_full(told.hint("nothing after the last commit was acknowledged; mend the disk and start again"), error)
}
