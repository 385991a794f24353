//! A file as blocks of whole lines, followed like `tail -F`. Blocking; the
//! `file` source runs it beside the runtime's threads.
//!
//! Followed   a new file under the name (rotation) is opened once the old one
//!            is read to its end and has been quiet for a quarter of a second; a
//!            file that became shorter, or whose first 1024 or last 256 bytes
//!            read are others now, is read again from its start. A file written
//!            anew with the same bytes in both places cannot be told from one
//!            that only grew; what was truncated away unread is lost
//! Rotated    files that had the name between two looks are found by what they
//!            are called now, the name with a number or a date (`x.log.1`,
//!            `x.log-20260131`), and read in their order. One that was removed,
//!            compressed or called otherwise before it was read is lost
//! Bounded    read to the end it had when it was opened
//! Resumed    at a [`Position`]: the file is found by device and inode under any
//!            name in its folder, known by its first bytes, and read on from
//!            there; then the files that had the name since, in their order.
//!            What cannot be found again is said, with file and position: a
//!            file that was removed, or compressed under another name, or cut
//!            (of what was copied before the cut, only what had been read is
//!            here). A line that was taken without its newline is not taken
//!            again; had it not ended there, its rest is a dead letter
//! Compressed read once to its end, not followed in place; damage is a dead
//!            letter after the lines before it
//! Memory     one block, of so many bytes and lines as whoever asks takes, one
//!            line of at most `line_bytes_max`, and 64 dead letters

use std::cmp::Reverse;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_types::connector::{DeadLetter, Offset};
use tidegate_types::disk::folder_of;
use tidegate_types::error::{Error, Result};

mod compression;
mod open;
mod position;

pub(crate) use self::compression::Compression;
use self::open::Open;
pub(crate) use self::position::Position;
use self::position::{FileId, Seen};
use crate::format::{Decoder, Format};

/// Whole lines, ready to decode.
pub(crate) struct Block {
    pub bytes: Vec<u8>,
    pub first_line: u64,
    /// None where there is nothing to decode.
    pub decoder: Option<Arc<dyn Decoder>>,
    /// Found while reading: over-long lines, damage.
    pub dead: Vec<DeadLetter>,
    /// Bytes of the file it stands for, header and dead letters included.
    pub consumed: usize,
    /// Behind the block: a [`Position`].
    pub offset: Offset,
}

pub(crate) enum Found {
    Block(Block),
    /// Nothing new for now.
    Nothing,
    /// No such file yet.
    Missing,
    End,
}

pub(crate) struct Tail {
    path: PathBuf,
    /// What positions begin with: the file's name.
    name: String,
    format: Format,
    /// None: by magic bytes.
    compression: Option<Compression>,
    line_bytes_max: usize,
    bounded: bool,
    /// Where an earlier run left off, until that is found.
    resume: Option<Position>,
    open: Option<Open>,
    /// The compressed file read last: it still stands there, and is done with.
    left: Option<FileId>,
    /// Had the name after the file read last, and was rotated away unread.
    skipped: Option<File>,
    /// The file read last, and those of its age: clocks of files are coarse.
    read: Vec<Seen>,
    has_opened: bool,
    spent: bool,
}

impl Tail {
    pub fn new(
        path: PathBuf,
        format: Format,
        compression: Option<Compression>,
        line_bytes_max: usize,
        bounded: bool,
        resume: Option<Position>,
    ) -> Self {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Self {
            path,
            name,
            format,
            compression,
            line_bytes_max,
            bounded,
            resume,
            open: None,
            left: None,
            skipped: None,
            read: Vec::new(),
            has_opened: false,
            spent: false,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next block: at most `bytes_max` and `lines_max`, but one line at least.
    /// `buffer` is one to use again.
    pub fn next(&mut self, bytes_max: usize, lines_max: usize, mut buffer: Vec<u8>) -> Result<Found> {
        while !self.spent {
            let Some(open) = &mut self.open else {
                match self.open()? {
                    Opened::Yes(open) => self.open = Some(open),
                    Opened::NotYet => return Ok(Found::Nothing),
                    Opened::Missing => return Ok(Found::Missing),
                    Opened::Spent => self.spent = true,
                }
                continue;
            };
            let read = open.read(bytes_max, lines_max, self.line_bytes_max, &mut buffer);
            let has_lines = read.map_err(|error| cannot_read(&self.path, &error))?;
            let is_finished = !has_lines && (self.bounded || open.is_finished(&self.path));
            match (has_lines, is_finished) {
                (true, _) => {}
                (false, true) => open.close(&mut buffer),
                (false, false) => open.carry = std::mem::take(&mut buffer),
            }
            if !has_lines && !is_finished && open.dead.is_empty() {
                return Ok(Found::Nothing);
            }
            let block = open.block(buffer, &self.format, &self.read)?;
            if is_finished {
                self.leave();
            }
            if !block.bytes.is_empty() || !block.dead.is_empty() {
                return Ok(Found::Block(block));
            }
            buffer = block.bytes;
        }
        Ok(Found::End)
    }

    /// The file is read; what comes after it?
    fn leave(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.left = (open.compression != Compression::None).then_some(open.id);
        self.spent = self.bounded && open.is_current;
        if !self.spent
            && let Some(last) = open.rotated_away()
        {
            self.read.retain(|read| last.born <= read.born);
            self.read.push(last);
            self.skipped = self.skipped_after(&last);
        }
    }

    /// The oldest file that had the name after `last`, and has another now.
    fn skipped_after(&self, last: &Seen) -> Option<File> {
        let rotated = std::fs::read_dir(folder_of(&self.path)).ok()?.flatten();
        let rotated = rotated.filter(|entry| is_rotated(&entry.file_name().to_string_lossy(), &self.name));
        let later = rotated.filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let seen = Seen::of(&metadata);
            // A copy that was restored is born late, but was written before.
            let is_later = last.born <= seen.born && last.written <= seen.written;
            let is_read = self.read.iter().any(|read| read.may_be(&metadata));
            (is_later && !is_read && metadata.is_file() && metadata.len() > 0).then_some((seen.written, Reverse(entry.path())))
        });
        let (_, Reverse(path)) = later.min()?;
        let lost = |error: &io::Error| tracing::warn!("{} was rotated away before it was read, and cannot be: {error}", path.display());
        File::open(&path).inspect_err(lost).ok()
    }

    fn open(&mut self) -> Result<Opened> {
        if let Some(position) = self.resume.take()
            && let Some(open) = self.reopen(&position)?
        {
            self.has_opened = true;
            return Ok(Opened::Yes(open));
        }
        let skipped = self.skipped.take();
        let is_current = skipped.is_none();
        let opened = skipped.map_or_else(|| File::open(&self.path), Ok);
        let (file, metadata) = match opened.and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok(both) => both,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.bounded => return Ok(Opened::Missing),
            // Rotated away, read under its new name, and nothing has its old one.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.has_opened => return Ok(Opened::Spent),
            Err(error) => return Err(cannot_read(&self.path, &error)),
        };
        if metadata.is_dir() {
            return Err(Error::user(format!("{} is a folder, not a file", self.path.display())).hint("name one file in it"));
        }
        // Empty: too early to see whether it is compressed.
        let is_empty = metadata.len() == 0 && metadata.is_file() && !self.bounded;
        if is_empty || self.left == Some(FileId::of(&metadata)) {
            return Ok(Opened::NotYet);
        }
        self.has_opened = true;
        let opened = self.begin(file, &metadata, is_current);
        opened.map(Opened::Yes).map_err(|error| cannot_read(&self.path, &error))
    }

    fn begin(&self, file: File, metadata: &Metadata, is_current: bool) -> io::Result<Open> {
        Open::new(self.name.clone(), file, metadata, self.compression, self.bounded, is_current)
    }

    /// The file of an earlier run, where that left it. None, and a warning: it is not to be found.
    fn reopen(&mut self, at: &Position) -> Result<Option<Open>> {
        self.read = at.before.clone();
        let found = self.find(at.file.id).map_err(|error| cannot_read(&self.path, &error))?;
        let (why, is_cut) = match found {
            None => ("it is not there any more", false),
            Some((file, metadata, is_current)) => {
                let mut open = self.begin(file, &metadata, is_current).map_err(|error| cannot_read(&self.path, &error))?;
                if open.resume(at, &self.format)? {
                    return Ok(Some(open));
                }
                match is_current && at.file.may_be(&metadata) {
                    true => ("it was cut or written anew", true),
                    false => ("another file has its place", false),
                }
            }
        };
        let Position { file: Seen { id: FileId { inode, .. }, .. }, byte, line, .. } = at;
        let path = self.path.display();
        tracing::warn!("what came in {path} (inode {inode}) behind byte {byte}, line {line}, cannot be found again: {why}");
        // One that was cut has the name still: no other had it since.
        self.skipped = if is_cut { None } else { self.skipped_after(&at.file) };
        Ok(None)
    }

    /// The file of that inode, and whether it has the name still. It may be called anything now.
    fn find(&self, id: FileId) -> io::Result<Option<(File, Metadata, bool)>> {
        if let Some((file, metadata)) = open_if(&self.path, id)? {
            return Ok(Some((file, metadata, true)));
        }
        let Some(entries) = if_there(std::fs::read_dir(folder_of(&self.path)))? else { return Ok(None) };
        for entry in entries.flatten().filter(|entry| entry.ino() == id.inode) {
            if let Some((file, metadata)) = open_if(&entry.path(), id)? {
                return Ok(Some((file, metadata, false)));
            }
        }
        Ok(None)
    }
}

/// The file at `path`, if it is that one.
fn open_if(path: &Path, id: FileId) -> io::Result<Option<(File, Metadata)>> {
    // Looked at before it is opened: opening a pipe waits for its writer.
    if if_there(std::fs::metadata(path))?.is_none_or(|metadata| FileId::of(&metadata) != id) {
        return Ok(None);
    }
    let Some(file) = if_there(File::open(path))? else { return Ok(None) };
    let metadata = file.metadata()?;
    Ok((FileId::of(&metadata) == id).then_some((file, metadata)))
}

fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

enum Opened {
    Yes(Open),
    NotYet,
    Missing,
    Spent,
}

/// Whether `file` is `name` with a number or a date behind it.
fn is_rotated(file: &str, name: &str) -> bool {
    let behind = file.strip_prefix(name).unwrap_or_default();
    let is_number_or_date = |byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'T');
    behind.starts_with(['.', '-', '_']) && behind.ends_with(|c: char| c.is_ascii_digit()) && behind.bytes().all(is_number_or_date)
}

fn cannot_read(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::user(format!("file {} does not exist", path.display()))
            .hint("a relative path begins at the pack's folder; with follow = 'true' and no --once a missing file is waited for"),
        io::ErrorKind::PermissionDenied => Error::user(format!("file {} may not be read: {error}", path.display()))
            .hint("give the user the engine runs as the right to read it"),
        _ => Error::engine(format!("file {} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use tidegate_types::connector::SourceSpec;
    use tidegate_types::time::WallClock;

    use super::open::LETTERS_MAX;
    use super::*;
    use crate::options::OptionReader;

    /// A block tells how far the file is taken, and so may not wait for a line that fits.
    #[test]
    fn a_file_of_over_long_lines_comes_in_blocks() {
        let (folder, lines) = (tempfile::TempDir::new().unwrap(), 3 * LETTERS_MAX + 1);
        let path = folder.path().join("in.log");
        std::fs::write(&path, "much too long a line\n".repeat(lines) + "short\n").unwrap();
        let mut tail = Tail::new(path, format(&folder), None, 8, true, None);
        let (mut letters, mut consumed, mut text) = (Vec::new(), 0, Vec::new());
        while let Found::Block(block) = tail.next(16, usize::MAX, Vec::new()).unwrap() {
            assert!(block.dead.len() <= LETTERS_MAX);
            letters.extend(block.dead.into_iter().map(|letter| letter.position));
            consumed += block.consumed;
            text.extend(block.bytes);
        }
        assert_eq!(letters, (1..=lines).map(|line| format!("in.log:{line}")).collect::<Vec<_>>());
        assert_eq!((consumed, &text[..]), (21 * lines + 6, &b"short\n"[..]));
    }

    #[test]
    fn a_file_written_anew_is_read_from_its_beginning() {
        let banner = "banner\n".repeat(300);
        let torn = "in.log:2 the file was truncated inside this line";
        // What was read, what stands there at the next look, what comes of that.
        let cases = [
            ("n1\n".to_string(), "m1\nm2\n".to_string(), "m1\nm2\n".to_string(), vec![]),
            ("n1\nn2\n".into(), "AAAA\nBBBB\nCCCC\n".into(), "AAAA\nBBBB\nCCCC\n".into(), vec![]),
            ("n1\npart".into(), "m1\nm2\nm3\n".into(), "m1\nm2\nm3\n".into(), vec![torn]),
            (format!("{banner}n1\n"), format!("{banner}m1\nm2\n"), format!("{banner}m1\nm2\n"), vec![]),
            // Cannot be told from one that grew.
            ("n1\n".into(), "n1\nn2\n".into(), "n2\n".into(), vec![]),
        ];
        for (before, after, expected, letters) in cases {
            let folder = tempfile::TempDir::new().unwrap();
            let path = folder.path().join("in.log");
            std::fs::write(&path, &before).unwrap();
            let mut tail = Tail::new(path.clone(), format(&folder), None, 64, false, None);
            let whole_lines = before.rfind('\n').map_or(0, |end| end + 1);
            assert_eq!(all_for_now(&mut tail), (before[..whole_lines].to_string(), vec![]));
            std::fs::write(&path, &after).unwrap();
            assert_eq!(all_for_now(&mut tail), (expected, letters.into_iter().map(String::from).collect()), "{before:?}, then {after:?}");
            assert_eq!(all_for_now(&mut tail), (String::new(), vec![]));
        }
    }

    #[test]
    fn a_file_is_known_by_its_last_bytes_after_a_restart_too() {
        let (folder, banner) = (tempfile::TempDir::new().unwrap(), "banner\n".repeat(300));
        let path = folder.path().join("in.log");
        std::fs::write(&path, format!("{banner}n1\n")).unwrap();
        let mut tail = Tail::new(path.clone(), format(&folder), None, 64, false, None);
        let Found::Block(block) = tail.next(1 << 20, usize::MAX, Vec::new()).unwrap() else { panic!("the file has lines") };
        let position = Position::of(&block.offset, "s").unwrap();
        let mut tail = Tail::new(path.clone(), format(&folder), None, 64, false, position);
        assert_eq!(all_for_now(&mut tail), (String::new(), vec![]));
        let anew = format!("{banner}m1\nm2\n");
        std::fs::write(&path, &anew).unwrap();
        assert_eq!(all_for_now(&mut tail), (anew, vec![]));
    }

    /// Lines and dead letters.
    fn all_for_now(tail: &mut Tail) -> (String, Vec<String>) {
        let (mut text, mut letters) = (String::new(), Vec::new());
        while let Found::Block(block) = tail.next(1 << 20, usize::MAX, Vec::new()).unwrap() {
            text += std::str::from_utf8(&block.bytes).unwrap();
            letters.extend(block.dead.iter().map(|letter| format!("{} {}", letter.position, letter.reason)));
        }
        (text, letters)
    }

    fn format(folder: &tempfile::TempDir) -> Format {
        let spec = SourceSpec {
            name: "s".into(),
            schema: Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8, true)])),
            columns_wanted: vec![true],
            options: Default::default(),
            folder: folder.path().into(),
            once: true,
            clock: Arc::new(WallClock),
            resume: None,
        };
        let mut options = OptionReader::new("source", &spec.name, &spec.options);
        Format::from_options(&spec, &mut options, 8, Some("text")).unwrap()
    }

    #[test]
    fn rotated_files_are_called_by_number_or_date() {
        for (file, expected) in [
            ("x.log.1", true),
            ("x.log.10", true),
            ("x.log-20260131", true),
            ("x.log.2026-01-31_12-00", true),
            ("x.log", false),
            ("x.log.1.gz", false),
            ("x.log.bz2", false),
            ("x.log.offset", false),
            ("x.log2", false),
            ("y.log.1", false),
        ] {
            assert_eq!(is_rotated(file, "x.log"), expected, "{file}");
        }
    }
}
