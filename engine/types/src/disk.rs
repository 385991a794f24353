//! What durability asks of a disk, and the machine's own. A simulation brings one that forgets,
//! tears, fills up and rots.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// A disk as crash safety sees it: what was written is there for good only after [`DiskFile::sync`],
/// a name only after [`Disk::sync_folder`].
pub trait Disk: Send + Sync + 'static {
    /// An empty new file. Errors: it is there already.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A file that is there, to write behind its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A file from its start.
    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Length in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Cuts a file to its first `length` bytes, for good.
    fn truncate(&self, path: &Path, length: u64) -> io::Result<()>;

    /// Replaces what has the name `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// With its parents; it may be there already.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Makes names in `folder`, and their absence, last.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Room on the disk that holds `path`.
    fn room(&self, path: &Path) -> io::Result<Room>;

    /// Nobody else holds `path` as long as the result lives, nor after the process died.
    /// Errors: [`io::ErrorKind::WouldBlock`] where somebody does.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// Bytes on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub free: u64,
    pub total: u64,
}

/// A file that is written at its end.
pub trait DiskFile: Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// What was written so far is there for good. An error is final: what it leaves is unknown.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's disk.
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        std::fs::metadata(path).map(|metadata| metadata.len())
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Room { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }
}

/// The machine's disk for what goes with the process: nothing is made to last.
pub struct ScratchDisk;

impl Disk for ScratchDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Scratch(OpenOptions::new().write(true).create_new(true).open(path)?)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Scratch(OpenOptions::new().append(true).open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        LocalDisk.read(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.len(path)
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        LocalDisk.list(folder)
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        LocalDisk.room(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        LocalDisk.lock(path)
    }
}

struct Scratch(File);

impl DiskFile for Scratch {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut self.0, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The folder in which `path` stands: of a bare name `.`, where [`Path::parent`] gives an empty path that nothing opens.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// Puts `bytes` at `path`, whole or not at all, for good.
pub fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!("{name}.draft"));
    if disk.len(&draft).is_ok() {
        disk.remove(&draft)?;
    }
    let mut file = disk.create(&draft)?;
    file.write_all(bytes)?;
    file.sync()?;
    disk.rename(&draft, path)?;
    disk.sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_stands_in_a_folder() {
        for (path, folder) in [("a", "."), ("a/b", "a"), ("./a", "."), ("/a", "/"), ("a/b/", "a"), ("/", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
    }

    #[test]
    fn a_file_is_put_whole_and_again() {
        let folder = std::env::temp_dir().join(format!("tidegate-disk-{}", std::process::id()));
        LocalDisk.create_folder(&folder).unwrap();
        let path = folder.join("a");
        for text in ["one", "another"] {
            put(&LocalDisk, &path, text.as_bytes()).unwrap();
            let mut found = String::new();
            LocalDisk.read(&path).unwrap().read_to_string(&mut found).unwrap();
            assert_eq!(found, text);
        }
        assert_eq!(LocalDisk.list(&folder).unwrap(), ["a"]);
        assert!(LocalDisk.create(&path).is_err());
        let room = LocalDisk.room(&folder).unwrap();
        assert!(room.free <= room.total && 0 < room.total);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
