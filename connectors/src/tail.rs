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
//!            line of at most `line_bytes_max`, and [`LETTERS_MAX`] dead letters

use std::cmp::Reverse;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::bufread::MultiGzDecoder;
use memchr::{memchr, memchr_iter, memrchr};
use tidegate_types::connector::{DeadLetter, Offset};
use tidegate_types::error::{Error, Result};

mod position;

pub(crate) use self::position::Position;
use self::position::{FileId, HEAD_BYTES_MAX, Head, Seen, Within};
use crate::format::{Decoder, Format, over_long};

/// A writer may go on with the old file for a moment after the new one is there.
const ROTATION_GRACE: Duration = Duration::from_millis(250);

/// How far a line without end is read at a time.
const LONG_LINE_STEP: usize = 64 << 10;

/// Dead letters that a block is handed over with, whatever else is in it: a file may have nothing but over-long lines.
const LETTERS_MAX: usize = 64;

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
        let rotated = std::fs::read_dir(self.folder()).ok()?.flatten();
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

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
        let Some(entries) = if_there(std::fs::read_dir(self.folder()))? else { return Ok(None) };
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
    id: FileId,
    /// It had the name when it was opened.
    is_current: bool,
    bounded: bool,
    /// Its first bytes, at most [`HEAD_BYTES_MAX`] of what was read.
    head: Vec<u8>,
    /// Decompressed bytes out of `reader` so far.
    read: u64,
    /// Of them, delivered.
    delivered: u64,
    /// Read, not delivered: the beginning of a line, mostly; lines that were too many for one block.
    carry: Vec<u8>,
    /// Inside a line of which no more is wanted.
    skipping: Option<Skip>,
    dead: Vec<DeadLetter>,
    /// The number of the next line to deliver.
    line: u64,
    decoder: Option<Arc<dyn Decoder>>,
    /// Since when the name has meant another file, and this one was quiet.
    left_behind: Option<Instant>,
    /// The compressed data ends here.
    is_damaged: bool,
    damage_was_said: bool,
    is_truncated: bool,
    /// What was delivered ends inside a line.
    within: Option<Within>,
}

/// A line whose rest is dropped.
struct Skip {
    kind: Within,
    /// Its beginning was delivered by an earlier run.
    is_resumed: bool,
    /// Delivered when the line ends.
    letter: Option<DeadLetter>,
    /// Bytes dropped and not delivered yet.
    dropped: u64,
}

impl Open {
    fn new(
        name: String,
        mut file: File,
        metadata: &Metadata,
        compression: Option<Compression>,
        bounded: bool,
        is_current: bool,
    ) -> io::Result<Self> {
        let head = head(&mut file)?;
        let compression = compression.unwrap_or_else(|| Compression::of(&head));
        let rest = file.try_clone()?.take(left(metadata, bounded, head.len() as u64));
        let reader = compression.reader(io::Cursor::new(head).chain(rest))?;
        Ok(Self {
            name,
            file,
            reader,
            compression,
            id: FileId::of(metadata),
            is_current,
            bounded,
            head: Vec::new(),
            read: 0,
            delivered: 0,
            carry: Vec::new(),
            skipping: None,
            dead: Vec::new(),
            line: 1,
            decoder: None,
            left_behind: None,
            is_damaged: false,
            damage_was_said: false,
            is_truncated: false,
            within: None,
        })
    }

    /// Goes to where an earlier run left the file. False: it is another one, or was cut.
    ///
    /// Errors: a header that lacks a declared column.
    fn resume(&mut self, at: &Position, format: &Format) -> Result<bool> {
        let begun = match self.go_to(at, format.has_header()) {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ok(false),
            Err(error) if self.compression == Compression::None => return Err(cannot_read(Path::new(&self.name), &error)),
            // It was damaged before, or is now another file.
            Err(_) if !at.is_damaged => return Ok(false),
            Err(_) => {
                self.is_damaged = true;
                Vec::new()
            }
        };
        let text = begun.strip_prefix(BOM).unwrap_or(&begun);
        if format.has_header()
            && let Some((start, end)) = first_line_with_text(text).filter(|(_, end)| text[..*end].ends_with(b"\n"))
        {
            self.decoder = Some(format.decoder(Some(&text[start..end]), &self.name)?);
        }
        (self.read, self.delivered, self.line) = (at.byte, at.byte, at.line);
        self.damage_was_said = at.is_damaged;
        self.head = begun;
        self.head.truncate(HEAD_BYTES_MAX);
        self.skipping = at.within.map(|kind| Skip { kind, is_resumed: true, letter: None, dropped: 0 });
        Ok(true)
    }

    /// The file's beginning, with the header in it. None: it is another file, or was cut.
    fn go_to(&mut self, at: &Position, has_header: bool) -> io::Result<Option<Vec<u8>>> {
        let mut begun = Vec::new();
        self.reader.by_ref().take(at.head.bytes).read_to_end(&mut begun)?;
        if Head::of(&begun) != at.head {
            return Ok(None);
        }
        let has_line = |begun: &[u8]| first_line_with_text(begun).is_some_and(|(_, end)| begun[..end].ends_with(b"\n"));
        while has_header && (begun.len() as u64) < at.byte && !has_line(&begun) {
            let room = (at.byte - begun.len() as u64).min(LONG_LINE_STEP as u64);
            if self.reader.by_ref().take(room).read_to_end(&mut begun)? == 0 {
                return Ok(None);
            }
        }
        let rest = at.byte - begun.len() as u64;
        let is_there = match self.compression {
            Compression::None => self.seek(at.byte)?,
            _ => io::copy(&mut self.reader.by_ref().take(rest), &mut io::sink())? == rest,
        };
        Ok(is_there.then_some(begun))
    }

    /// False where the file does not reach so far, or is none.
    fn seek(&mut self, byte: u64) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        if !metadata.is_file() || metadata.len() < byte {
            return Ok(false);
        }
        self.file.seek(SeekFrom::Start(byte))?;
        self.reader = Box::new(self.file.try_clone()?.take(left(&metadata, self.bounded, byte)));
        Ok(true)
    }

    /// Fills `buffer` with whole lines, or with none where enough were over-long; what is
    /// behind them is carried over. False at the present end, with the beginning of a line
    /// in `buffer`.
    fn read(&mut self, bytes_max: usize, lines_max: usize, line_bytes_max: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        buffer.append(&mut self.carry);
        let mut at_end = false;
        loop {
            self.skip(buffer);
            if LETTERS_MAX <= self.dead.len() {
                self.carry = std::mem::take(buffer);
                return Ok(true);
            }
            let cut = cut_at(buffer, bytes_max, lines_max);
            if let Some(cut) = cut.filter(|_| at_end || buffer.len() >= bytes_max) {
                self.carry = buffer.split_off(cut);
                return Ok(true);
            }
            if cut.is_none() && buffer.len() > line_bytes_max {
                let letter = Some(self.letter(buffer, over_long(line_bytes_max)));
                self.skipping = Some(Skip { kind: Within::Long, is_resumed: false, letter, dropped: buffer.len() as u64 });
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
        let unknown = HEAD_BYTES_MAX.saturating_sub(self.head.len()).min(count);
        self.head.extend_from_slice(&buffer[before..before + unknown]);
        if count > 0 {
            self.left_behind = None;
        }
        match outcome {
            Ok(_) => Ok(count < want),
            Err(error) if self.compression == Compression::None => Err(error),
            Err(error) => {
                self.is_damaged = true;
                if !std::mem::replace(&mut self.damage_was_said, true) {
                    let reason = format!("the compressed data is damaged behind byte {}: {error}", self.read);
                    self.dead.push(DeadLetter::new(b"", reason, self.name.clone()));
                }
                Ok(true)
            }
        }
    }

    /// Drops what belongs to a line of which no more is wanted, up to its end.
    fn skip(&mut self, buffer: &mut Vec<u8>) {
        let Some(mut skip) = self.skipping.take() else { return };
        let end = memchr(b'\n', buffer);
        let rest = &buffer[..end.unwrap_or(buffer.len())];
        if skip.kind == Within::Line && skip.letter.is_none() && !rest.trim_ascii().is_empty() {
            skip.letter = Some(self.letter(rest, "the line went on after it was taken".into()));
        }
        match end {
            None => {
                skip.dropped += buffer.len() as u64;
                buffer.clear();
                self.skipping = Some(skip);
            }
            Some(end) => {
                buffer.drain(..=end);
                self.dead.extend(skip.letter);
                self.line += 1;
            }
        }
    }

    /// Of the line that is next.
    fn letter(&self, raw: &[u8], reason: String) -> DeadLetter {
        DeadLetter::new(raw, reason, format!("{}:{}", self.name, self.line))
    }

    /// At the present end: whether nothing more will come from this file.
    fn is_finished(&mut self, path: &Path) -> bool {
        if self.compression != Compression::None {
            return true;
        }
        self.is_truncated = self.file.metadata().is_ok_and(|metadata| metadata.len() < self.read);
        match std::fs::metadata(path) {
            _ if self.is_truncated => true,
            Ok(now) if FileId::of(&now) != self.id => self.left_behind.get_or_insert_with(Instant::now).elapsed() >= ROTATION_GRACE,
            // Moved away and nothing new there: the writer may go on with it.
            _ => false,
        }
    }

    /// What is known of the file where it ended because the name went to
    /// another. One that was truncated or compressed is no part of a row of
    /// such files: what was copied of it has been read.
    fn rotated_away(&self) -> Option<Seen> {
        let is_one = !self.is_truncated && self.compression == Compression::None;
        self.file.metadata().ok().filter(|_| is_one).map(|metadata| Seen::of(&metadata))
    }

    /// `rest` is what stands behind the last newline: the last line, unless
    /// its end was truncated away.
    fn close(&mut self, rest: &mut Vec<u8>) {
        if let Some(skip) = self.skipping.take() {
            self.dead.extend(skip.letter);
            self.within = Some(skip.kind);
        }
        if self.is_truncated && !rest.is_empty() {
            let letter = self.letter(rest, "the file was truncated inside this line".into());
            self.dead.push(letter);
            rest.clear();
        }
        if !rest.is_empty() {
            self.within = Some(Within::Line);
        }
    }

    /// `before`: files of this one's age that were read before it.
    ///
    /// Errors: a header that lacks a declared column.
    fn block(&mut self, mut bytes: Vec<u8>, format: &Format, before: &[Seen]) -> Result<Block> {
        if self.delivered == 0 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        let decoder = match &self.decoder {
            Some(decoder) => Some(decoder.clone()),
            None => self.begin(&mut bytes, format)?,
        };
        let delivered_before = self.delivered;
        let dropped = self.skipping.as_ref().map_or(0, |skip| skip.dropped);
        self.delivered = self.read - self.carry.len() as u64 - dropped;
        let first_line = self.line;
        self.line += memchr_iter(b'\n', &bytes).count() as u64;
        Ok(Block {
            bytes,
            first_line,
            decoder,
            dead: std::mem::take(&mut self.dead),
            consumed: (self.delivered - delivered_before) as usize,
            offset: self.position(before)?.offset(),
        })
    }

    fn position(&self, before: &[Seen]) -> Result<Position> {
        let metadata = self.file.metadata().map_err(|error| cannot_read(Path::new(&self.name), &error))?;
        let known = self.head.len().min(self.delivered as usize);
        let inside = self.skipping.as_ref().filter(|skip| skip.is_resumed).map(|skip| skip.kind);
        Ok(Position {
            file: Seen::of(&metadata),
            byte: self.delivered,
            line: self.line,
            head: Head::of(&self.head[..known]),
            within: self.within.or(inside),
            is_damaged: self.damage_was_said,
            before: before.to_vec(),
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

/// What a bounded file has behind `taken` bytes. A device or a pipe has no length: it ends where it
/// ends.
fn left(metadata: &Metadata, bounded: bool, taken: u64) -> u64 {
    match bounded && metadata.is_file() {
        true => metadata.len().saturating_sub(taken),
        false => u64::MAX,
    }
}

/// Where whole lines end: at the last newline within `bytes_max`, or the one that
/// makes it `lines_max`, or else at the first behind.
fn cut_at(buffer: &[u8], bytes_max: usize, lines_max: usize) -> Option<usize> {
    let (within, behind) = buffer.split_at(buffer.len().min(bytes_max));
    let last = memchr_iter(b'\n', within).nth(lines_max.saturating_sub(1));
    match last.or_else(|| memrchr(b'\n', within)) {
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
    use arrow::datatypes::{DataType, Field, Schema};
    use tidegate_types::connector::SourceSpec;
    use tidegate_types::time::WallClock;

    use super::*;
    use crate::options::OptionReader;

    #[test]
    fn blocks_end_at_newlines() {
        let cases = [
            ("a\nb\nc", 4, 9, Some(4)),
            ("a\nb\nc", 3, 9, Some(2)),
            ("a\nb\nc", 9, 9, Some(4)),
            ("a\nb\nc", 9, 2, Some(4)),
            ("a\nb\nc", 9, 1, Some(2)),
            ("a\nb\nc", 9, 0, Some(2)),
            ("long\nb\n", 2, 1, Some(5)),
            ("long\nb", 2, 9, Some(5)),
            ("long", 2, 9, None),
            ("", 2, 9, None),
        ];
        for (text, bytes_max, lines_max, cut) in cases {
            assert_eq!(cut_at(text.as_bytes(), bytes_max, lines_max), cut, "{text:?} within {bytes_max} and {lines_max}");
        }
    }

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
