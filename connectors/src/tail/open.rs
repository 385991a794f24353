//! One file while it is read: whole lines out of it, from where an earlier run left it to its present end.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use memchr::{memchr, memchr_iter, memrchr};
use tidegate_types::connector::DeadLetter;
use tidegate_types::error::Result;

use super::position::{FileId, HEAD_BYTES_MAX, Head, Position, Seen, Within};
use super::{Block, Compression, cannot_read};
use crate::format::{Decoder, Format, over_long};

/// A writer may go on with the old file for a moment after the new one is there.
const ROTATION_GRACE: Duration = Duration::from_millis(250);

/// How far a line without end is read at a time.
const LONG_LINE_STEP: usize = 64 << 10;

/// Dead letters that a block is handed over with, whatever else is in it: a file may have nothing but over-long lines.
pub(super) const LETTERS_MAX: usize = 64;

/// How much of what was read last a file is known by while it is followed, beside its head.
const LAST_BYTES_MAX: usize = 256;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One file while it is read.
pub(super) struct Open {
    name: String,
    file: File,
    reader: Box<dyn Read + Send>,
    pub compression: Compression,
    pub id: FileId,
    /// It had the name when it was opened.
    pub is_current: bool,
    bounded: bool,
    /// Its first bytes, at most [`HEAD_BYTES_MAX`] of what was read.
    head: Vec<u8>,
    /// The bytes before `read`, at most [`LAST_BYTES_MAX`].
    last: Vec<u8>,
    /// Its length, and when it was written to, when it was last looked at.
    looked_at: Option<(u64, SystemTime)>,
    /// Decompressed bytes out of `reader` so far.
    read: u64,
    /// Of them, delivered.
    delivered: u64,
    /// Read, not delivered: the beginning of a line, mostly; lines that were too many for one block.
    pub carry: Vec<u8>,
    /// Inside a line of which no more is wanted.
    skipping: Option<Skip>,
    pub dead: Vec<DeadLetter>,
    /// The number of the next line to deliver.
    line: u64,
    decoder: Option<Arc<dyn Decoder>>,
    /// Since when the name has meant another file, and this one was quiet.
    left_behind: Option<Instant>,
    /// The compressed data ends here.
    is_damaged: bool,
    damage_was_said: bool,
    /// It became shorter, or was written anew.
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
    pub(super) fn new(
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
            last: Vec::new(),
            looked_at: None,
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
    pub(super) fn resume(&mut self, at: &Position, format: &Format) -> Result<bool> {
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
        let last_bytes = (LAST_BYTES_MAX as u64).min(byte);
        self.last = vec![0; last_bytes as usize];
        self.file.read_exact_at(&mut self.last, byte - last_bytes)?;
        self.file.seek(SeekFrom::Start(byte))?;
        self.reader = Box::new(self.file.try_clone()?.take(left(&metadata, self.bounded, byte)));
        Ok(true)
    }

    /// Fills `buffer` with whole lines, or with none where enough were over-long; what is
    /// behind them is carried over. False at the present end, with the beginning of a line
    /// in `buffer`.
    pub(super) fn read(&mut self, bytes_max: usize, lines_max: usize, line_bytes_max: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.clear();
        buffer.append(&mut self.carry);
        self.is_truncated = self.is_truncated || self.is_written_anew()?;
        let mut at_end = self.is_truncated;
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
        self.remember(&buffer[before..]);
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

    /// By its head and its last bytes the file is known again.
    fn remember(&mut self, bytes: &[u8]) {
        let unknown = HEAD_BYTES_MAX.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..unknown]);
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_BYTES_MAX)..]);
        self.last.drain(..self.last.len().saturating_sub(LAST_BYTES_MAX));
    }

    /// Whether the file was written to since it was last looked at, and other bytes stand where it was read.
    fn is_written_anew(&mut self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        if self.bounded || self.compression != Compression::None || !metadata.is_file() {
            return Ok(false);
        }
        let now = Some((metadata.len(), metadata.modified()?));
        if std::mem::replace(&mut self.looked_at, now) == now {
            return Ok(false);
        }
        let last_begins = self.read - self.last.len() as u64;
        Ok(!self.stands_at(0, &self.head)? || !self.stands_at(last_begins, &self.last)?)
    }

    fn stands_at(&self, byte: u64, expected: &[u8]) -> io::Result<bool> {
        let mut found = vec![0; expected.len()];
        match self.file.read_exact_at(&mut found, byte) {
            Ok(()) => Ok(found == expected),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
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
    pub(super) fn is_finished(&mut self, path: &Path) -> bool {
        if self.compression != Compression::None {
            return true;
        }
        self.is_truncated |= self.file.metadata().is_ok_and(|metadata| metadata.len() < self.read);
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
    pub(super) fn rotated_away(&self) -> Option<Seen> {
        let is_one = !self.is_truncated && self.compression == Compression::None;
        self.file.metadata().ok().filter(|_| is_one).map(|metadata| Seen::of(&metadata))
    }

    /// `rest` is what stands behind the last newline: the last line, unless
    /// its end was truncated away.
    pub(super) fn close(&mut self, rest: &mut Vec<u8>) {
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
    pub(super) fn block(&mut self, mut bytes: Vec<u8>, format: &Format, before: &[Seen]) -> Result<Block> {
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

/// The first bytes, which may be fewer than four.
fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(4);
    file.take(4).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn headers_may_come_after_blank_lines() {
        assert_eq!(first_line_with_text(b"\r\n\na,b\nc"), Some((3, 7)));
        assert_eq!(first_line_with_text(b"a,b"), Some((0, 3)));
        assert_eq!(first_line_with_text(b"\n\n"), None);
    }
}
