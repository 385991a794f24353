//! A disk in memory that does what disks do on a bad day, at the operation the seed says.
//!
//! Forgets   after a power cut each write that was not synced is kept, lost, torn or full of zeros,
//!           and each change of a name whose folder was not synced took place or did not
//! Fails     any one operation: with an error, for want of room, or as the machine's last
//! Fills up  after so many bytes, until so many writes were refused; or there is no room for the name of another file
//! Rots      one bit at a time
//!
//! A failed sync loses what it was asked to keep, and the next one says nothing of it: so do real ones.

mod platter;

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tidegate_types::disk::{Disk, DiskFile, Room};

use self::platter::Platter;
pub use self::platter::{Crash, Fault};
use crate::machine::{Boot, Power};

/// The disk as one boot of the machine sees it.
#[derive(Clone)]
pub struct SimDisk {
    boot: Boot,
    platter: Arc<Mutex<Platter>>,
}

impl SimDisk {
    /// An empty disk.
    pub fn seeded(seed: u64, power: &Power) -> Self {
        Self { boot: power.boot(), platter: Arc::new(Mutex::new(Platter::seeded(seed))) }
    }

    /// Makes a folder that is there for good, as whoever mounts a disk does.
    pub fn mount(&self, folder: &Path) {
        self.platter.lock().mount(folder);
    }

    /// Ends the boot, if it still runs, and gives the disk as the next one finds it.
    pub fn reboot(&self, power: &Power, crash: Crash) -> Self {
        self.crash(crash);
        self.platter.lock().recover();
        Self { boot: power.boot(), platter: Arc::clone(&self.platter) }
    }

    /// The same bytes on another disk, as a clean stop leaves them.
    pub fn copy(&self, power: &Power) -> Self {
        let mut platter = self.platter.lock().clone();
        platter.recover();
        Self { boot: power.boot(), platter: Arc::new(Mutex::new(platter)) }
    }

    /// Whether the boot still runs.
    pub fn is_on(&self) -> bool {
        self.boot.is_on()
    }

    /// Ends the boot now.
    pub fn crash(&self, crash: Crash) {
        let mut platter = self.platter.lock();
        if self.boot.is_on() {
            platter.crash(crash);
            self.boot.cut();
        }
    }

    /// Lets the `n`-th operation from now (1: the next one) fail.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        self.platter.lock().fail_at(n, fault);
    }

    /// No fault is waiting to happen any more, and there is room.
    pub fn calm(&self) {
        self.platter.lock().calm();
    }

    /// After `left` more bytes there is no room, until `refusals` operations were refused for it.
    pub fn fill(&self, left: u64, refusals: u32) {
        self.platter.lock().fill(left, refusals);
    }

    /// From now on no file can be made, or it can again.
    pub fn crowd(&self, is_crowded: bool) {
        self.platter.lock().is_crowded = is_crowded;
    }

    /// Whether a fault has happened in this boot.
    pub fn is_faulted(&self) -> bool {
        self.platter.lock().is_faulted
    }

    /// Operations so far, over all boots.
    pub fn operations(&self) -> u64 {
        self.platter.lock().operations
    }

    /// A hash of all operations so far: kind, path and length.
    pub fn trace(&self) -> String {
        self.platter.lock().trace.finalize().to_hex().to_string()
    }

    /// Inverts one bit of a file.
    pub fn flip(&self, path: &Path, bit: u64) {
        self.platter.lock().flip(path, bit);
    }

    /// All files, with their lengths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.platter.lock().files()
    }

    /// One operation: counted, traced, and failed where that is due. `act` is told whether to do it
    /// well; where it is not, it leaves what a failed one leaves.
    fn operate<T>(&self, what: What, path: &Path, length: usize, act: impl FnOnce(&mut Platter, bool) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.platter.lock();
        if !self.boot.is_on() {
            return Err(is_off());
        }
        platter.count(what.name(), path, length);
        let is_refused = what == What::Create && platter.is_crowded;
        match platter.due(what.takes_room(), length).or(is_refused.then_some(Fault::Full)) {
            None => act(&mut platter, true),
            Some(Fault::Error) => {
                let _ = act(&mut platter, false);
                Err(io::Error::from_raw_os_error(5))
            }
            Some(Fault::Full) => {
                let _ = act(&mut platter, false);
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::Crash(crash)) => {
                let is_done = platter.chance(2);
                let _ = act(&mut platter, is_done);
                platter.crash(crash);
                self.boot.cut();
                Err(is_off())
            }
        }
    }

    fn file(&self, path: &Path, node: usize) -> Box<dyn DiskFile> {
        Box::new(OpenFile { disk: self.clone(), path: path.to_path_buf(), node })
    }
}

fn is_off() -> io::Error {
    io::Error::other("the power is off")
}

/// What is asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Create,
    Append,
    Open,
    Read,
    Write,
    Sync,
    Length,
    Truncate,
    Rename,
    Remove,
    CreateFolder,
    List,
    SyncFolder,
    Room,
    Lock,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Append => "append",
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Length => "length",
            Self::Truncate => "truncate",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateFolder => "create folder",
            Self::List => "list",
            Self::SyncFolder => "sync folder",
            Self::Room => "room",
            Self::Lock => "lock",
        }
    }

    fn takes_room(self) -> bool {
        matches!(self, Self::Create | Self::Write | Self::CreateFolder)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.operate(What::Create, path, 0, |platter, is_well| match is_well {
            true => platter.create(path),
            false => Ok(0),
        })?;
        Ok(self.file(path, node))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.operate(What::Append, path, 0, |platter, _| platter.node(path))?;
        Ok(self.file(path, node))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.operate(What::Open, path, 0, |platter, _| platter.bytes(path))?;
        Ok(Box::new(OpenReader { disk: self.clone(), path: path.to_path_buf(), bytes: Cursor::new(bytes) }))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.operate(What::Length, path, 0, |platter, _| Ok(platter.bytes(path)?.len() as u64))
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        self.operate(What::Truncate, path, length as usize, |platter, is_well| match is_well {
            true => platter.truncate(path, length as usize),
            false => Ok(()),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(What::Rename, to, 0, |platter, is_well| match is_well {
            true => platter.rename(from, to),
            false => Ok(()),
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(What::Remove, path, 0, |platter, is_well| match is_well {
            true => platter.remove(path),
            false => Ok(()),
        })
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.operate(What::CreateFolder, path, 0, |platter, is_well| match is_well {
            true => platter.create_folder(path),
            false => Ok(()),
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.operate(What::List, folder, 0, |platter, _| platter.list(folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.operate(What::SyncFolder, folder, 0, |platter, is_well| match is_well {
            true => platter.sync_folder(folder),
            false => Ok(()),
        })
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        self.operate(What::Room, path, 0, |platter, _| Ok(platter.room()))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.operate(What::Lock, path, 0, |platter, is_well| match is_well {
            true => platter.lock(path),
            false => Ok(()),
        })?;
        Ok(Box::new(Held { disk: self.clone(), path: path.to_path_buf() }))
    }
}

struct OpenFile {
    disk: SimDisk,
    path: PathBuf,
    node: usize,
}

impl DiskFile for OpenFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let node = self.node;
        self.disk.operate(What::Write, &self.path, bytes.len(), |platter, is_well| {
            platter.write(node, bytes, is_well);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let node = self.node;
        self.disk.operate(What::Sync, &self.path, 0, |platter, is_well| {
            platter.sync(node, is_well);
            Ok(())
        })
    }
}

struct OpenReader {
    disk: SimDisk,
    path: PathBuf,
    bytes: Cursor<Vec<u8>>,
}

impl Read for OpenReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = &mut self.bytes;
        self.disk.operate(What::Read, &self.path, 0, |_, is_well| if is_well { bytes.read(buffer) } else { Ok(0) })
    }
}

/// A lock; the end of the boot frees it too.
struct Held {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.disk.boot.is_on() {
            self.disk.platter.lock().unlock(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_types::disk::put;

    use super::*;

    const FOLDER: &str = "/data";

    fn disk(seed: u64) -> (Power, SimDisk) {
        let power = Power::default();
        let disk = SimDisk::seeded(seed, &power);
        disk.create_folder(Path::new(FOLDER)).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        (power, disk)
    }

    fn path(name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    fn text(disk: &SimDisk, name: &str) -> Option<String> {
        let mut bytes = Vec::new();
        disk.read(&path(name)).ok()?.read_to_end(&mut bytes).unwrap();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a power cut can leave of `act`, over many seeds.
    fn left(act: impl Fn(&SimDisk)) -> Vec<Option<String>> {
        let mut seen: Vec<Option<String>> = (0..400)
            .map(|seed| {
                let (power, disk) = disk(seed);
                act(&disk);
                text(&disk.reboot(&power, Crash::PowerCut), "a")
            })
            .collect();
        seen.sort();
        seen.dedup();
        seen
    }

    #[test]
    fn what_is_synced_outlives_a_power_cut_and_the_rest_may_not() {
        let whole = left(|disk| {
            let mut file = disk.create(&path("a")).unwrap();
            file.write_all(b"ab").unwrap();
            file.sync().unwrap();
            disk.sync_folder(Path::new(FOLDER)).unwrap();
        });
        assert_eq!(whole, [Some("ab".into())]);
        let unsynced = left(|disk| {
            let mut file = disk.create(&path("a")).unwrap();
            file.write_all(b"ab").unwrap();
            file.write_all(b"cd").unwrap();
            disk.sync_folder(Path::new(FOLDER)).unwrap();
        });
        for expected in ["", "a", "ab", "abc", "abcd", "\0\0", "\0\0cd"] {
            assert!(unsynced.contains(&Some(expected.into())), "{expected:?} in {unsynced:?}");
        }
        let unnamed = left(|disk| {
            let mut file = disk.create(&path("a")).unwrap();
            file.write_all(b"ab").unwrap();
            file.sync().unwrap();
        });
        assert_eq!(unnamed, [None, Some("ab".into())]);
    }

    #[test]
    fn a_folder_whose_name_is_not_synced_may_go_with_all_that_is_in_it() {
        let outlives = |seed| {
            let (power, disk) = disk(seed);
            disk.create_folder(&path("new")).unwrap();
            put(&disk, &path("new/a"), b"x").unwrap();
            text(&disk.reboot(&power, Crash::PowerCut), "new/a").is_some()
        };
        assert!((0..50).any(outlives) && !(0..50).all(outlives));
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all() {
        let renamed = left(|disk| {
            put(disk, &path("a"), b"old").unwrap();
            let mut file = disk.create(&path("b")).unwrap();
            file.write_all(b"new").unwrap();
            file.sync().unwrap();
            disk.rename(&path("b"), &path("a")).unwrap();
        });
        assert_eq!(renamed, [Some("new".into()), Some("old".into())]);
    }

    #[test]
    fn a_killed_process_loses_nothing_that_was_written() {
        let (power, disk) = disk(1);
        disk.create(&path("a")).unwrap().write_all(b"ab").unwrap();
        let next = disk.reboot(&power, Crash::Kill);
        assert_eq!(text(&next, "a"), Some("ab".into()));
        assert!(disk.list(Path::new(FOLDER)).is_err(), "an earlier boot reaches nothing");
    }

    #[test]
    fn a_failed_sync_is_not_mended_by_the_next_one() {
        let lost = (0..100).any(|seed| {
            let (power, disk) = disk(seed);
            let mut file = disk.create(&path("a")).unwrap();
            disk.sync_folder(Path::new(FOLDER)).unwrap();
            file.write_all(b"ab").unwrap();
            disk.fail_at(1, Fault::Error);
            file.sync().unwrap_err();
            file.sync().unwrap();
            assert_eq!(text(&disk, "a"), Some("ab".into()), "the cache shows it still");
            text(&disk.reboot(&power, Crash::PowerCut), "a") != Some("ab".into())
        });
        assert!(lost);
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_has_room_again_after_so_many_refusals() {
        let (_, disk) = disk(1);
        let mut file = disk.create(&path("a")).unwrap();
        disk.fill(3, 2);
        for _ in 0..2 {
            assert_eq!(file.write_all(b"abcd").unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(text(&disk, "a"), Some("abc".into()));
            disk.truncate(&path("a"), 0).unwrap();
        }
        file.write_all(b"abcd").unwrap();
        assert_eq!(text(&disk, "a"), Some("abcd".into()));
        assert!(disk.is_faulted());
    }

    #[test]
    fn a_lock_is_held_once_and_freed_by_its_end_or_the_machines() {
        let (power, disk) = disk(1);
        let held = disk.lock(&path("lock")).unwrap();
        assert_eq!(disk.lock(&path("lock")).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(held);
        let held = disk.lock(&path("lock")).unwrap();
        let next = disk.reboot(&power, Crash::PowerCut);
        let _again = next.lock(&path("lock")).unwrap();
        drop(held);
        assert!(next.lock(&path("lock")).is_err(), "what an earlier boot held frees nothing");
    }

    #[test]
    fn the_same_operations_have_the_same_trace_and_others_another() {
        let trace = |name: &str| {
            let (_, disk) = disk(3);
            put(&disk, &path(name), b"x").unwrap();
            (disk.operations(), disk.trace())
        };
        assert_eq!(trace("a"), trace("a"));
        assert_ne!(trace("a"), trace("b"));
    }

    #[test]
    fn a_flipped_bit_stays_flipped() {
        let (power, disk) = disk(1);
        put(&disk, &path("a"), b"a").unwrap();
        disk.flip(&path("a"), 1);
        assert_eq!(text(&disk.reboot(&power, Crash::PowerCut), "a"), Some("c".into()));
    }
}
