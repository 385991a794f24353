//! Which lines of a block are bad, when the decoder only says that one is.
//!
//! Two kinds of mistake, two ways to find them, both linear for any share of
//! bad lines:
//! - in *shape* (broken JSON): the decoder stops at the line. The lines before
//!   it are decoded once more without it; so each line is seen at most twice.
//! - in *value* (text in an integer column): the decoder says so only at the
//!   end. The run is cut into pieces of 64 lines, and those that still fail
//!   are halved; so each line is seen at most 2 + log2(64) times.

use arrow::array::RecordBatch;

use super::{Bad, Line};

/// Lines decoded together. A tape of this many stays in the cache.
const CHUNK_LINES: usize = 4096;

const PIECE_LINES: usize = 64;

/// One try at decoding some lines together.
pub(super) trait Attempt {
    /// Errors: the line is bad in shape, and this attempt is spoilt.
    fn take(&mut self, line: &[u8]) -> Result<(), String>;

    /// One row per line taken.
    /// Errors: some line is bad in value.
    fn finish(self) -> Result<RecordBatch, String>;
}

pub(super) struct Isolated<'a> {
    /// The good lines' rows, in order.
    pub batches: Vec<RecordBatch>,
    /// In order.
    pub bad: Vec<Bad<'a>>,
}

/// Decodes the good lines and names the bad. `begin(n)` starts an attempt at
/// n lines or fewer.
pub(super) fn isolate<'a, A: Attempt>(lines: &[Line<'a>], begin: impl Fn(usize) -> A) -> Isolated<'a> {
    let mut isolation = Isolation { begin, found: Isolated { batches: Vec::new(), bad: Vec::new() } };
    for chunk in lines.chunks(CHUNK_LINES) {
        isolation.by_shape(chunk);
    }
    isolation.found
}

struct Isolation<'a, F> {
    begin: F,
    found: Isolated<'a>,
}

impl<'a, A: Attempt, F: Fn(usize) -> A> Isolation<'a, F> {
    fn by_shape(&mut self, mut lines: &[Line<'a>]) {
        while !lines.is_empty() {
            let mut attempt = (self.begin)(lines.len());
            let spoilt = lines.iter().enumerate().find_map(|(i, line)| attempt.take(line.bytes).err().map(|reason| (i, reason)));
            match spoilt {
                None => return self.settle(lines, attempt),
                Some((i, reason)) => {
                    self.by_value(&lines[..i]);
                    self.found.bad.push(Bad { line: lines[i], reason });
                    lines = &lines[i + 1..];
                }
            }
        }
    }

    /// All of `lines` are good in shape.
    fn by_value(&mut self, lines: &[Line<'a>]) {
        if lines.is_empty() {
            return;
        }
        let mut attempt = (self.begin)(lines.len());
        for line in lines {
            attempt.take(line.bytes).expect("a line good in shape stays good in other company");
        }
        self.settle(lines, attempt);
    }

    fn settle(&mut self, lines: &[Line<'a>], attempt: A) {
        match attempt.finish() {
            Ok(batch) => self.found.batches.push(batch),
            Err(reason) if lines.len() == 1 => self.found.bad.push(Bad { line: lines[0], reason }),
            Err(_) => {
                let piece = if lines.len() > PIECE_LINES { PIECE_LINES } else { lines.len().div_ceil(2) };
                for piece in lines.chunks(piece) {
                    self.by_value(piece);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, UInt8Array};

    use super::*;

    /// `s` is bad in shape, `v` in value.
    struct Bytes<'c>(Vec<u8>, &'c Cell<usize>);

    impl Attempt for Bytes<'_> {
        fn take(&mut self, line: &[u8]) -> Result<(), String> {
            self.1.set(self.1.get() + 1);
            self.0.push(line[0]);
            if line == b"s" { Err("shape".into()) } else { Ok(()) }
        }

        fn finish(self) -> Result<RecordBatch, String> {
            if self.0.contains(&b'v') {
                return Err("value".into());
            }
            Ok(RecordBatch::try_from_iter([("b", Arc::new(UInt8Array::from(self.0)) as ArrayRef)]).unwrap())
        }
    }

    fn check(pattern: impl Fn(usize) -> u8, count: usize) {
        let text: Vec<u8> = (0..count).map(pattern).collect();
        let lines: Vec<Line> = text.chunks(1).enumerate().map(|(i, bytes)| Line { number: i as u64, bytes }).collect();
        let taken = Cell::new(0);
        let found = isolate(&lines, |_| Bytes(Vec::new(), &taken));
        let rows: usize = found.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, text.iter().filter(|b| **b == b'.').count());
        let bad: Vec<u64> = found.bad.iter().map(|bad| bad.line.number).collect();
        assert_eq!(bad, (0..count as u64).filter(|i| text[*i as usize] != b'.').collect::<Vec<_>>());
        assert!(taken.get() <= 10 * count, "{count} lines were seen {} times", taken.get());
    }

    #[test]
    fn finds_every_bad_line_in_linear_work() {
        check(|_| b'.', 10_000);
        check(|_| b's', 10_000);
        check(|_| b'v', 10_000);
        check(|i| if i % 100 == 7 { b's' } else { b'.' }, 10_000);
        check(|i| if i % 100 == 7 { b'v' } else { b'.' }, 10_000);
        check(|i| [b'.', b's', b'v', b'.', b'.'][i % 5], 10_000);
        check(|i| if i == 9_999 { b'v' } else { b'.' }, 10_000);
        check(|_| b'.', 0);
    }
}
