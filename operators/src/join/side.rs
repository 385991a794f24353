//! One side of a join at rest: rows by key, as bytes.
//!
//! A key's rows are a list through the entries, equal rows as one with a count. Where rows can be taken
//! back, a second table finds an entry by key and value, so that a retraction costs the same however many
//! rows share its key. Where none is ever, a row is compared with the last one of its key alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::TimestampMillisecondType;
use hashbrown::HashTable;
use tidegate_types::Delta;
use tidegate_types::row::{EncodedRows, hash_row};

use super::Hit;
use crate::arrange::{Bytes, Layout};
use crate::usage::{ENTRY_BYTES, Usage};

/// The state, and the rule: what changes in it, and what meets it.
pub(super) struct Side {
    layout: Arc<Layout>,
    append_only: bool,
    null_equals_null: bool,
    keys: HashTable<Key>,
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    /// Entries by key and value; only where rows can be taken back.
    values: HashTable<u32>,
    heap: Heap,
    /// Which of the key's columns bounds how long a key is met, and the keys by its value.
    ends_by: Option<usize>,
    ends: BTreeMap<i64, Vec<Bytes>>,
    usage: Usage,
}

#[derive(Clone, Copy)]
struct Key {
    hash: u64,
    at: Span,
    first: u32,
    /// The key itself where it is short, so that a search need not go to the heap.
    short: [u8; SHORT_BYTES],
}

/// An encoded number or time has 9 bytes.
const SHORT_BYTES: usize = 12;

impl Key {
    fn is(&self, hash: u64, key: &[u8], heap: &Heap) -> bool {
        self.hash == hash
            && match self.short.get(..self.at.len as usize) {
                Some(short) => short == key,
                None => heap.get(self.at) == key,
            }
    }
}

/// One kept row: its key and value, how often it is there, and its neighbours under its key.
#[derive(Clone, Copy)]
struct Entry {
    key: Span,
    value: Span,
    diff: i64,
    hash: u64,
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Side {
    pub(super) fn new(layout: Arc<Layout>, append_only: bool, null_equals_null: bool, ends_by: Option<usize>, usage: Usage) -> Self {
        Self {
            layout,
            append_only,
            null_equals_null,
            keys: HashTable::new(),
            entries: Vec::new(),
            vacant: Vec::new(),
            values: HashTable::new(),
            heap: Heap::default(),
            ends_by,
            ends: BTreeMap::new(),
            usage,
        }
    }

    /// Where rows of `delta`, whose keys are `keys`, meet rows that are kept: up to the one with which there
    /// are `room` hits, and how many rows that are. `overflown` hears of pairs whose count does not fit, by its sign.
    pub(super) fn probe(&self, keys: &EncodedRows, delta: &Delta, room: usize, mut overflown: impl FnMut(i64)) -> (usize, Vec<Hit>) {
        let mut hits = Vec::new();
        if self.keys.is_empty() {
            return (delta.len(), hits);
        }
        for (row, key) in keys.iter().enumerate() {
            if room <= hits.len() {
                return (row, hits);
            }
            let hash = hash_row(key);
            let found = self.keys.find(hash, |known| known.is(hash, key, &self.heap));
            let mut at = found.map_or(NONE, |known| known.first);
            while at != NONE {
                let (entry, diff) = (&self.entries[at as usize], delta.diffs[row]);
                match diff.checked_mul(entry.diff) {
                    Some(diff) => hits.push(Hit { row: row as u32, kept: at, diff }),
                    None => overflown(diff.signum() * entry.diff.signum()),
                }
                at = entry.next;
            }
        }
        (delta.len(), hits)
    }

    /// The columns of the rows at `kept`; those of the key as `key_column` gives them.
    pub(super) fn columns(&self, kept: impl Iterator<Item = u32>, key_column: impl Fn(usize) -> ArrayRef) -> Vec<ArrayRef> {
        let values = kept.map(|at| self.heap.get(self.entries[at as usize].value));
        self.layout.decode_beside(values, key_column)
    }

    /// Keeps what comes, forgets what goes.
    pub(super) fn change(&mut self, keys: &EncodedRows, delta: &Delta) {
        let values = self.layout.encode_values(delta);
        let nullable: Vec<&ArrayRef> = match self.null_equals_null {
            true => Vec::new(),
            false => self.layout.key().iter().map(|&i| delta.rows.column(i)).filter(|column| column.null_count() != 0).collect(),
        };
        let ends = self.ends_by.map(|at| delta.rows.column(self.layout.key()[at]).as_primitive::<TimestampMillisecondType>().clone());
        for (row, &diff) in delta.diffs.iter().enumerate() {
            if nullable.iter().all(|column| column.is_valid(row)) {
                let end = ends.as_ref().filter(|ends| ends.is_valid(row)).map(|ends| ends.value(row));
                self.add(keys.row(row), values.row(row), diff, end);
            }
        }
    }

    /// Forgets all rows of keys that end before `bound`.
    pub(super) fn free_before(&mut self, bound: i64) {
        while let Some(entry) = self.ends.first_entry().filter(|entry| *entry.key() < bound) {
            for key in entry.remove() {
                self.forget(&key);
            }
        }
    }

    fn forget(&mut self, key: &[u8]) {
        let hash = hash_row(key);
        let Ok(found) = self.keys.find_entry(hash, |known| known.is(hash, key, &self.heap)) else { return };
        let (known, _) = found.remove();
        self.heap.free(known.at);
        self.usage.shrink(self.key_bytes(known.at));
        let mut at = known.first;
        while at != NONE {
            let Entry { value, hash, next, .. } = self.entries[at as usize];
            if let Ok(found) = self.values.find_entry(hash, |&other| other == at) {
                found.remove();
            }
            self.heap.free(value);
            self.usage.shrink(entry_bytes(value));
            self.vacant.push(at);
            at = next;
        }
        if self.heap.is_half_empty() {
            self.compact();
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8], diff: i64, end: Option<i64>) {
        let key_hash = hash_row(key);
        let hash = key_hash.rotate_left(17) ^ hash_row(value);
        match self.position(key, value, hash) {
            None => {
                let is_new = self.insert(key, value, diff, key_hash, hash);
                if let Some(end) = end.filter(|_| is_new) {
                    self.ends.entry(end).or_default().push(key.into());
                }
            }
            Some(at) => {
                let entry = &mut self.entries[at as usize];
                entry.diff += diff;
                if entry.diff == 0 {
                    self.remove(at, key_hash);
                }
            }
        }
    }

    fn position(&self, key: &[u8], value: &[u8], hash: u64) -> Option<u32> {
        if self.append_only {
            return None;
        }
        let same = |&at: &u32| {
            let entry = &self.entries[at as usize];
            entry.hash == hash && self.heap.get(entry.value) == value && self.heap.get(entry.key) == key
        };
        self.values.find(hash, same).copied()
    }

    /// Whether the key is new.
    fn insert(&mut self, key: &[u8], value: &[u8], diff: i64, key_hash: u64, hash: u64) -> bool {
        let Self { keys, entries, heap, vacant, .. } = self;
        let known = keys.find_mut(key_hash, |known| known.is(key_hash, key, heap));
        if self.append_only
            && let Some(last) = known.as_ref().map(|known| &mut entries[known.first as usize])
            && last.hash == hash
            && heap.get(last.value) == value
            && let Some(sum) = last.diff.checked_add(diff)
        {
            last.diff = sum;
            return false;
        }
        let at = vacant.pop().unwrap_or(entries.len() as u32);
        let value = heap.put(value);
        self.usage.grow(entry_bytes(value));
        let (key, next) = match known {
            Some(known) => (known.at, std::mem::replace(&mut known.first, at)),
            None => {
                let mut short = [0; SHORT_BYTES];
                if let Some(short) = short.get_mut(..key.len()) {
                    short.copy_from_slice(key);
                }
                let known = Key { hash: key_hash, at: heap.put(key), first: at, short };
                keys.insert_unique(key_hash, known, |known| known.hash);
                (known.at, NONE)
            }
        };
        match next {
            NONE => self.usage.grow(self.key_bytes(key)),
            next => self.entries[next as usize].previous = at,
        }
        let entry = Entry { key, value, diff, hash, previous: NONE, next };
        match self.entries.get_mut(at as usize) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        if !self.append_only {
            let entries = &self.entries;
            self.values.insert_unique(hash, at, |&at| entries[at as usize].hash);
        }
        next == NONE
    }

    fn remove(&mut self, at: u32, key_hash: u64) {
        let Entry { key, value, hash, previous, next, .. } = self.entries[at as usize];
        if let Ok(found) = self.values.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else if let Ok(mut found) = self.keys.find_entry(key_hash, |known| known.first == at) {
            match next {
                NONE => {
                    found.remove();
                    self.heap.free(key);
                    self.usage.shrink(self.key_bytes(key));
                }
                _ => found.get_mut().first = next,
            }
        }
        self.heap.free(value);
        self.usage.shrink(entry_bytes(value));
        self.vacant.push(at);
        if self.heap.is_half_empty() {
            self.compact();
        }
    }

    fn key_bytes(&self, key: Span) -> usize {
        let ends = if self.ends_by.is_some() { key.len as usize + ENTRY_BYTES } else { 0 };
        size_of::<Key>() + key.len as usize + ends
    }

    /// Moves all that is kept to a new heap.
    fn compact(&mut self) {
        let mut heap = Heap::default();
        for known in self.keys.iter_mut() {
            known.at = heap.put(self.heap.get(known.at));
            let mut at = known.first;
            while at != NONE {
                let entry = &mut self.entries[at as usize];
                entry.key = known.at;
                entry.value = heap.put(self.heap.get(entry.value));
                at = entry.next;
            }
        }
        self.heap = heap;
    }
}

fn entry_bytes(value: Span) -> usize {
    size_of::<Entry>() + size_of::<u32>() + value.len as usize
}

/// A place in the heap.
#[derive(Clone, Copy)]
struct Span {
    block: u32,
    from: u32,
    len: u32,
}

/// Byte strings end to end, in blocks, so that growing never copies.
#[derive(Default)]
struct Heap {
    blocks: Vec<Vec<u8>>,
    kept: usize,
    freed: usize,
}

/// A block's size; a longer string has a block of its own.
const BLOCK_BYTES: usize = 1 << 20;

impl Heap {
    fn put(&mut self, bytes: &[u8]) -> Span {
        if self.blocks.last().is_none_or(|block| block.capacity() - block.len() < bytes.len()) {
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES.max(bytes.len())));
        }
        let block = self.blocks.len() - 1;
        let from = self.blocks[block].len();
        self.blocks[block].extend_from_slice(bytes);
        self.kept += bytes.len();
        Span { block: block as u32, from: from as u32, len: bytes.len() as u32 }
    }

    fn get(&self, span: Span) -> &[u8] {
        &self.blocks[span.block as usize][span.from as usize..][..span.len as usize]
    }

    fn free(&mut self, span: Span) {
        self.kept -= span.len as usize;
        self.freed += span.len as usize;
    }

    /// Worth moving: more is freed than kept, and more than a few blocks.
    fn is_half_empty(&self) -> bool {
        self.freed > self.kept + 4 * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]))
    }

    fn delta(rows: &[(Option<i64>, String, i64)]) -> Delta {
        let keys = Int64Array::from_iter(rows.iter().map(|row| row.0));
        let texts = StringArray::from_iter_values(rows.iter().map(|row| &row.1));
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(texts)]).unwrap();
        Delta::new(batch, rows.iter().map(|row| row.2).collect::<Vec<_>>())
    }

    /// What the key 0 and the NULL key meet: value and count, sorted.
    fn met(side: &Side, layout: &Layout) -> Vec<(u32, String, i64)> {
        let probe = delta(&[(Some(0), String::new(), 1), (None, String::new(), 1)]);
        let (met, hits) = side.probe(&layout.encode_keys(&probe), &probe, usize::MAX, |_| panic!("no count is that large"));
        assert_eq!(met, probe.len());
        let key: ArrayRef = Arc::new(Int64Array::from(vec![0; hits.len()]));
        let columns = side.columns(hits.iter().map(|hit| hit.kept), |_| Arc::clone(&key));
        let texts = columns[1].as_any().downcast_ref::<StringArray>().unwrap();
        let mut met: Vec<_> = hits.iter().zip(texts).map(|(hit, text)| (hit.row, text.unwrap().to_string(), hit.diff)).collect();
        met.sort();
        met
    }

    // 10,000 rows, of which ten differ.
    #[test]
    fn equal_rows_are_one_with_a_count() {
        let (layout, usage) = (Arc::new(Layout::new(schema(), &[0])), Usage::default());
        let mut side = Side::new(Arc::clone(&layout), true, false, None, usage.clone());
        for key in 0..10 {
            let rows: Vec<_> = (0..1_000).map(|_| (Some(key), "x".to_string(), 2)).collect();
            let delta = delta(&rows);
            side.change(&layout.encode_keys(&delta), &delta);
        }
        assert_eq!(met(&side, &layout), [(0, "x".to_string(), 2_000)]);
        assert!(usage.bytes() < 10_000, "{}", usage.bytes());
    }

    // The oracle is a map of counts. Long texts make the heap move several times.
    #[test]
    fn what_is_kept_is_what_was_not_taken_back() {
        for null_equals_null in [false, true] {
            let (layout, usage) = (Arc::new(Layout::new(schema(), &[0])), Usage::default());
            let mut side = Side::new(Arc::clone(&layout), false, null_equals_null, None, usage.clone());
            let mut oracle = std::collections::BTreeMap::<(Option<i64>, String), i64>::new();
            let mut rng = StdRng::seed_from_u64(7);
            for _ in 0..300 {
                let row = |rng: &mut StdRng| {
                    let key = if rng.random_bool(0.1) { None } else { Some(rng.random_range(0..3)) };
                    (key, "x".repeat(rng.random_range(0..40_000)), rng.random_range(1..3))
                };
                let mut rows: Vec<_> = (0..rng.random_range(0..6)).map(|_| row(&mut rng)).collect();
                for ((key, text), count) in oracle.iter() {
                    if rng.random_bool(0.3) {
                        rows.push((*key, text.clone(), -rng.random_range(1..=*count)));
                    }
                }
                for (key, text, diff) in &rows {
                    *oracle.entry((*key, text.clone())).or_default() += diff;
                }
                oracle.retain(|_, count| *count != 0);
                let delta = delta(&rows);
                side.change(&layout.encode_keys(&delta), &delta);
                let expected = oracle.iter().filter_map(|((key, text), count)| match key {
                    Some(0) => Some((0, text.clone(), *count)),
                    None if null_equals_null => Some((1, text.clone(), *count)),
                    _ => None,
                });
                let mut expected: Vec<_> = expected.collect();
                expected.sort();
                assert_eq!(met(&side, &layout), expected);
            }
            assert!(side.heap.blocks.len() < 40, "what was taken back still takes room");
            let kept = oracle.keys().filter(|(key, _)| null_equals_null || key.is_some()).map(|(_, text)| text.len()).sum::<usize>();
            assert!((kept..kept + 100_000).contains(&usage.bytes()), "{} for {kept}", usage.bytes());
        }
    }
}
