//! A file as blocks of whole lines, followed like `tail -F`. Blocking; the
//! `file` source runs it beside the runtime's threads.
//!
//! Followed   a new file under the name (rotation) is opened once the old one
//!            is read to its end and has been quiet for [`ROTATION_GRACE`]; a
//!            file that became shorter is read again from its start. A file
//!            that was truncated and has grown past the old position between
//!            two looks cannot be told from one that only grew
//! Rotated    files that had the name between two looks are found by what they
//!            are called now, the name with a number or a date (`x.log.1`,
//!            `x.log-20260131`), and read in their order. One that was removed,
//!            compressed or called otherwise before it was read is lost
//! Bounded    read to the end it had when it was opened
//! Compressed read once to its end, not followed in place; damage is a dead
//!            letter after the lines before it
//! Memory     one block and one line of at most `line_bytes_max`

use std::cmp::Reverse;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use flate2::bufread::MultiGzDecoder;
use memchr::{memchr, memchr_iter, memrchr};
use tidegate_types::connector::{DeadLetter, Offset};
use tidegate_types::error::{Error, Result};

use crate::format::{Decoder, Format, over_long};

/// A writer may go on with the old file for a moment after the new one is there.
const ROTATION_GRACE: Duration = Duration::from_millis(250);

/// How far a line without end is read at a time.
const LONG_LINE_STEP: usize = 64 << 10;

const BOM: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the magic bytes a file begins with.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub fn reader(self, file: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let buffered = BufReader::with_capacity(64 << 10, file);
        Ok(match self {
            Self::None => Box::new(buffered.into_inner()),
            Self::Gzip => Box::new(MultiGzDecoder::new(buffered)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(buffered)?),
        })
    }
}

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
    /// Behind the block: `inode:byte_position`, in decompressed bytes.
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
    open: Option<Open>,
    /// The compressed file read last: it still stands there, and is done with.
    left: Option<Identity>,
    /// Had the name after the file read last, and was rotated away unread.
    skipped: Option<File>,
    /// The file read last, and those of its age: clocks of files are coarse.
    read: Vec<(SystemTime, Identity)>,
    spent: bool,
}

impl Tail {
    pub fn new(path: PathBuf, format: Format, compression: Option<Compression>, line_bytes_max: usize, bounded: bool) -> Self {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Self {
            path,
            name,
            format,
            compression,
            line_bytes_max,
            bounded,
            open: None,
            left: None,
            skipped: None,
            read: Vec::new(),
            spent: false,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next block: at most `bytes_max`, but one line at least. `buffer` is
    /// one to use again.
    pub fn next(&mut self, bytes_max: usize, mut buffer: Vec<u8>) -> Result<Found> {
        while !self.spent {
            let Some(open) = &mut self.open else {
                match self.open()? {
                    Opened::Yes(open) => self.open = Some(open),
                    Opened::NotYet => return Ok(Found::Nothing),
                    Opened::Missing => return Ok(Found::Missing),
                }
                continue;
            };
            let has_lines = open.read(bytes_max, self.line_bytes_max, &mut buffer).map_err(|error| cannot_read(&self.path, &error))?;
            if !has_lines {
                match self.bounded || open.is_finished(&self.path) {
                    false => {
                        open.carry = buffer;
                        return Ok(Found::Nothing);
                    }
                    true => open.close(&mut buffer),
                }
            }
            let block = open.block(buffer, &self.format)?;
            if !has_lines {
                self.left = (open.compression != Compression::None).then_some(open.identity);
                let last = open.rotated_away();
                self.open = None;
                self.spent = self.bounded;
                self.skipped = last.filter(|_| !self.bounded).and_then(|last| self.skipped_after(&last));
            }
            if !block.bytes.is_empty() || !block.dead.is_empty() {
                return Ok(Found::Block(block));
            }
            buffer = block.bytes;
        }
        Ok(Found::End)
    }

    /// The oldest file that had the name after `last`, and has another now.
    fn skipped_after(&mut self, last: &Metadata) -> Option<File> {
        let born_last = born(last);
        self.read.retain(|(born, _)| born_last <= *born);
        self.read.push((born_last, identity(last)));
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let rotated =
            std::fs::read_dir(folder).ok()?.flatten().filter(|entry| is_rotated(&entry.file_name().to_string_lossy(), &self.name));
        let later = rotated.filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            // A copy that was restored is born late, but was written before.
            let is_later = born_last <= born(&metadata) && last.modified().ok()? <= metadata.modified().ok()?;
            let is_read = self.read.iter().any(|(_, read)| *read == identity(&metadata));
            (is_later && !is_read && metadata.is_file() && metadata.len() > 0).then_some((metadata.modified().ok()?, Reverse(entry.path())))
        });
        let (_, Reverse(path)) = later.min()?;
        let lost = |error: &io::Error| tracing::warn!("{} was rotated away before it was read, and cannot be: {error}", path.display());
        File::open(&path).inspect_err(lost).ok()
    }

    fn open(&mut self) -> Result<Opened> {
        let opened = self.skipped.take().map_or_else(|| File::open(&self.path), Ok);
        let (mut file, metadata) = match opened.and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok(both) => both,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.bounded => return Ok(Opened::Missing),
            Err(error) => return Err(cannot_read(&self.path, &error)),
        };
        if metadata.is_dir() {
            return Err(Error::user(format!("{} is a folder, not a file", self.path.display())).hint("name one file in it"));
        }
        // Empty: too early to see whether it is compressed.
        let is_empty = metadata.len() == 0 && metadata.is_file() && !self.bounded;
        if is_empty || self.left == Some(identity(&metadata)) {
            return Ok(Opened::NotYet);
        }
        let opened = head(&mut file).and_then(|head| {
            let compression = self.compression.unwrap_or_else(|| Compression::of(&head));
            Open::new(self.name.clone(), file, head, &metadata, compression, self.bounded)
        });
        opened.map(Opened::Yes).map_err(|error| cannot_read(&self.path, &error))
    }
}

enum Opened {
    Yes(Open),
    NotYet,
    Missing,
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// When the file was made. Not every file system knows; all know when it was
/// last written, which is not before.
fn born(metadata: &Metadata) -> SystemTime {
    metadata.created().or_else(|_| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Whether `file` is `name` with a number or a date behind it.
fn is_rotated(file: &str, name: &str) -> bool {
    let behind = file.strip_prefix(name).unwrap_or_default();
    let is_number_or_date = |byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'T');
    behind.starts_with(['.', '-', '_']) && behind.ends_with(|c: char| c.is_ascii_digit()) && behind.bytes().all(is_number_or_date)
}

/// The first bytes, which may be fewer than four.
fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(4);
    file.take(4).read_to_end(&mut head)?;
    Ok(head)
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

/// One file while it is read.
struct Open {
    name: String,
    file: File,
    reader: Box<dyn Read + Send>,
    compression: Compression,
    identity: Identity,
    /// Decompressed bytes out of `reader` so far.
    read: u64,
    /// Of them, delivered.
    delivered: u64,
    /// Read, not delivered: the beginning of a line, mostly.
    carry: Vec<u8>,
    /// Inside a line too long to keep.
    skipping: Option<DeadLetter>,
    dead: Vec<DeadLetter>,
    /// The number of the next line to deliver.
    line: u64,
    decoder: Option<Arc<dyn Decoder>>,
    /// Since when the name has meant another file, and this one was quiet.
    left_behind: Option<Instant>,
    is_damaged: bool,
    is_truncated: bool,
}

impl Open {
    fn new(name: String, file: File, head: Vec<u8>, metadata: &Metadata, compression: Compression, bounded: bool) -> io::Result<Self> {
        let rest = file.try_clone()?;
        // A device or a pipe has no length: it ends where it ends.
        let left = match bounded && metadata.is_file() {
            true => metadata.len().saturating_sub(head.len() as u64),
            false => u64::MAX,
        };
        let reader = compression.reader(io::Cursor::new(head).chain(rest.take(left)))?;
        Ok(Self {
            name,
            file,
            reader,
            compression,
            identity: identity(metadata),
            read: 0,
            delivered: 0,
            carry: Vec::new(),
            skipping: None,
            dead: Vec::new(),
            line: 1,
            decoder: None,
            left_behind: None,
            is_damaged: false,
            is_truncated: false,
        })
    }

    /// Fills `buffer` with whole lines; what is behind them is carried over.
    /// False at the present end, with the beginning of a line in `buffer`.
    fn read(&mut self, bytes_max: usize, line_bytes_max: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        buffer.append(&mut self.carry);
        let mut at_end = false;
        loop {
            self.skip(buffer);
            let cut = cut_at(buffer, bytes_max);
            if let Some(cut) = cut.filter(|_| at_end || buffer.len() >= bytes_max) {
                self.carry = buffer.split_off(cut);
                return Ok(true);
            }
            if cut.is_none() && buffer.len() > line_bytes_max {
                self.skipping = Some(DeadLetter::new(buffer, over_long(line_bytes_max), format!("{}:{}", self.name, self.line)));
                buffer.clear();
            }
            if at_end {
                return Ok(false);
            }
            at_end = self.read_more(bytes_max, buffer)?;
        }
    }

    /// True at the present end.
    fn read_more(&mut self, bytes_max: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        if self.is_damaged {
            return Ok(true);
        }
        let want = match bytes_max.saturating_sub(buffer.len()) {
            0 => LONG_LINE_STEP,
            room => room,
        };
        let before = buffer.len();
        let outcome = self.reader.by_ref().take(want as u64).read_to_end(buffer);
        let count = buffer.len() - before;
        self.read += count as u64;
        if count > 0 {
            self.left_behind = None;
        }
        match outcome {
            Ok(_) => Ok(count < want),
            Err(error) if self.compression == Compression::None => Err(error),
            Err(error) => {
                self.is_damaged = true;
                let reason = format!("the compressed data is damaged behind byte {}: {error}", self.read);
                self.dead.push(DeadLetter::new(b"", reason, self.name.clone()));
                Ok(true)
            }
        }
    }

    /// Drops what belongs to an over-long line, up to its end.
    fn skip(&mut self, buffer: &mut Vec<u8>) {
        let Some(letter) = self.skipping.take() else { return };
        match memchr(b'\n', buffer) {
            None => {
                buffer.clear();
                self.skipping = Some(letter);
            }
            Some(end) => {
                buffer.drain(..=end);
                self.dead.push(letter);
                self.line += 1;
            }
        }
    }

    /// At the present end: whether nothing more will come from this file.
    fn is_finished(&mut self, path: &Path) -> bool {
        if self.compression != Compression::None {
            return true;
        }
        self.is_truncated = self.file.metadata().is_ok_and(|metadata| metadata.len() < self.read);
        match std::fs::metadata(path) {
            _ if self.is_truncated => true,
            Ok(now) if identity(&now) != self.identity => self.left_behind.get_or_insert_with(Instant::now).elapsed() >= ROTATION_GRACE,
            // Moved away and nothing new there: the writer may go on with it.
            _ => false,
        }
    }

    /// What is known of the file where it ended because the name went to
    /// another. One that was truncated or compressed is no part of a row of
    /// such files: what was copied of it has been read.
    fn rotated_away(&self) -> Option<Metadata> {
        let is_one = !self.is_truncated && self.compression == Compression::None;
        self.file.metadata().ok().filter(|_| is_one)
    }

    /// `rest` is what stands behind the last newline: the last line, unless
    /// its end was truncated away.
    fn close(&mut self, rest: &mut Vec<u8>) {
        self.dead.extend(self.skipping.take());
        if self.is_truncated && !rest.is_empty() {
            self.dead.push(DeadLetter::new(rest, "the file was truncated inside this line", format!("{}:{}", self.name, self.line)));
            rest.clear();
        }
    }

    /// Errors: a header that lacks a declared column.
    fn block(&mut self, mut bytes: Vec<u8>, format: &Format) -> Result<Block> {
        if self.delivered == 0 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        let decoder = match &self.decoder {
            Some(decoder) => Some(decoder.clone()),
            None => self.begin(&mut bytes, format)?,
        };
        let before = self.delivered;
        self.delivered = self.read - self.carry.len() as u64;
        let first_line = self.line;
        let unended = bytes.last().is_some_and(|last| *last != b'\n');
        self.line += memchr_iter(b'\n', &bytes).count() as u64 + u64::from(unended);
        Ok(Block {
            bytes,
            first_line,
            decoder,
            dead: std::mem::take(&mut self.dead),
            consumed: (self.delivered - before) as usize,
            offset: Offset(format!("{}:{}", self.identity.1, self.delivered)),
        })
    }

    /// Sets the decoder up, by the header where the format has one.
    fn begin(&mut self, bytes: &mut Vec<u8>, format: &Format) -> Result<Option<Arc<dyn Decoder>>> {
        let header = format.has_header().then(|| first_line_with_text(bytes));
        let decoder = match header {
            None => format.decoder(None, &self.name)?,
            // Nothing but blank lines so far: the header is still to come.
            Some(None) => {
                self.line += memchr_iter(b'\n', bytes).count() as u64;
                bytes.clear();
                return Ok(None);
            }
            Some(Some((start, end))) => {
                let decoder = format.decoder(Some(&bytes[start..end]), &self.name)?;
                self.line += memchr_iter(b'\n', &bytes[..end]).count() as u64;
                bytes.drain(..end);
                decoder
            }
        };
        self.decoder = Some(decoder.clone());
        Ok(Some(decoder))
    }
}

/// Where whole lines end: at the last newline within `bytes_max`, or else at
/// the first behind it.
fn cut_at(buffer: &[u8], bytes_max: usize) -> Option<usize> {
    let (within, behind) = buffer.split_at(buffer.len().min(bytes_max));
    match memrchr(b'\n', within) {
        Some(end) => Some(end + 1),
        None => memchr(b'\n', behind).map(|end| within.len() + end + 1),
    }
}

/// From and to, its newline included.
fn first_line_with_text(bytes: &[u8]) -> Option<(usize, usize)> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\n' | b'\r'))?;
    let end = memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |end| start + end + 1);
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_at_newlines() {
        let cases = [
            ("a\nb\nc", 4, Some(4)),
            ("a\nb\nc", 3, Some(2)),
            ("a\nb\nc", 9, Some(4)),
            ("long\nb", 2, Some(5)),
            ("long", 2, None),
            ("", 2, None),
        ];
        for (text, max, cut) in cases {
            assert_eq!(cut_at(text.as_bytes(), max), cut, "{text:?} within {max}");
        }
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

    #[test]
    fn headers_may_come_after_blank_lines() {
        assert_eq!(first_line_with_text(b"\r\n\na,b\nc"), Some((3, 7)));
        assert_eq!(first_line_with_text(b"a,b"), Some((0, 3)));
        assert_eq!(first_line_with_text(b"\n\n"), None);
    }

    #[test]
    fn compression_shows_in_the_first_bytes() {
        assert_eq!(Compression::of(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::of(&[0x28, 0xb5, 0x2f, 0xfd]), Compression::Zstd);
        assert_eq!(Compression::of(b"{\"a\""), Compression::None);
        assert_eq!(Compression::of(b""), Compression::None);
    }
}
