//! A disk that fails where it is told to.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tidegate_types::disk::{Disk, DiskFile, LocalDisk, Room};

/// A disk of which three operations in a row fail; a write then leaves half of what it was to do.
pub struct Faulty {
    countdown: Mutex<usize>,
    kind: io::ErrorKind,
}

impl Faulty {
    pub fn new(countdown: usize, kind: io::ErrorKind) -> Arc<Self> {
        Arc::new(Self { countdown: Mutex::new(countdown), kind })
    }

    /// Whether this operation fails.
    fn strikes(&self) -> io::Result<()> {
        let mut countdown = self.countdown.lock().unwrap();
        *countdown = countdown.saturating_sub(1);
        match *countdown {
            1..=3 => Err(self.kind.into()),
            _ => Ok(()),
        }
    }

    pub fn has_struck(&self) -> bool {
        *self.countdown.lock().unwrap() <= 3
    }

    pub fn is_over(&self) -> bool {
        *self.countdown.lock().unwrap() == 0
    }
}

pub struct FaultyDisk(pub Arc<Faulty>);

struct FaultyFile(Box<dyn DiskFile>, Arc<Faulty>);

impl DiskFile for FaultyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.1.strikes() {
            Ok(()) => self.0.write_all(bytes),
            Err(error) => self.0.write_all(&bytes[..bytes.len() / 2]).and(Err(error)),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.strikes().and_then(|()| self.0.sync())
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.strikes()?;
        Ok(Box::new(FaultyFile(LocalDisk.create(path)?, self.0.clone())))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.strikes()?;
        Ok(Box::new(FaultyFile(LocalDisk.append(path)?, self.0.clone())))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        LocalDisk.read(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.len(path)
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        self.0.strikes().and_then(|()| LocalDisk.truncate(path, length))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.strikes().and_then(|()| LocalDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.strikes().and_then(|()| LocalDisk.remove(path))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        LocalDisk.list(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.strikes().and_then(|()| LocalDisk.sync_folder(folder))
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        LocalDisk.room(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        LocalDisk.lock(path)
    }
}
