//! `top`: the first rows of each key by an order, counted from `skip`.
//!
//! SQL     ORDER BY … LIMIT n OFFSET m; row_number() OVER (PARTITION BY k ORDER BY …) <= n;
//!         DISTINCT ON (k)
//! In      any rows, outside recursion
//! Out     the rows in the window, optionally with their number; not append-only
//! State   all rows of each key, ordered; where the input is append-only, only
//!         the first `skip + limit` of them
//! Errors  none
//! Ties    by the remaining columns, so that the answer is one

pub mod order;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use tidegate_types::{Delta, Tick};

use crate::arrange::Bytes;
use crate::keyed::by_tick;
use crate::stream::{Rows, exchange};
use crate::usage::{ENTRY_BYTES, Usage};
use order::OrderedRows;

/// Plain data; all columns are indices into the input.
#[derive(Debug, Clone)]
pub struct TopPlan {
    pub key: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    pub skip: usize,
    /// None: all from `skip` on.
    pub limit: Option<usize>,
    /// Appends the row's number within its key, from 1 (UInt64).
    pub numbered: bool,
    pub append_only: bool,
    pub input: SchemaRef,
    pub schema: SchemaRef,
}

/// Wires the plan.
pub fn top<'scope>(rows: Rows<'scope, u64>, plan: TopPlan, usage: Usage) -> Rows<'scope, u64> {
    let codecs = OrderedRows::new(&plan.input, &plan.key, &plan.order);
    let mut keys: HashMap<Bytes, Ranked> = HashMap::new();
    let window = plan.skip..plan.limit.map_or(usize::MAX, |limit| plan.skip.saturating_add(limit));
    by_tick(exchange(rows, &plan.input, &plan.key), "Top", None, usage.clone(), move |tick, deltas, out, _| {
        // The keys this tick touches, and what their windows were.
        let mut touched: Vec<(Bytes, Vec<Numbered>)> = Vec::new();
        let mut row = Vec::new();
        for delta in &deltas {
            let encoded = codecs.encode(delta);
            for (i, &diff) in delta.diffs.iter().enumerate().filter(|(_, diff)| **diff != 0) {
                encoded.ordered(i, &mut row);
                let key = encoded.keys.row(i);
                let ranked = keys.entry_ref(key).or_default();
                // A row behind a full window cannot matter while nothing is ever taken away.
                if plan.append_only && ranked.is_beyond(&row, window.end) {
                    continue;
                }
                if ranked.touched.replace(tick) != Some(tick) {
                    usage.shrink(ranked.bytes);
                    touched.push((key.into(), ranked.window(&window)));
                }
                ranked.add(&row, diff);
                if plan.append_only {
                    ranked.trim(window.end);
                }
            }
        }
        let mut changes = Vec::new();
        for (key, before) in touched {
            let ranked = &keys[&key];
            difference(before, ranked.window(&window), plan.numbered, &mut changes);
            match ranked.is_empty() {
                true => drop(keys.remove(&key)),
                false => usage.grow(ranked.bytes),
            }
        }
        out.push(decode(&changes, &codecs, &plan));
    })
}

fn decode(changes: &[(Numbered, i64)], codecs: &OrderedRows, plan: &TopPlan) -> Delta {
    let mut columns = codecs.decode_columns(changes.iter().map(|((bytes, _), _)| &bytes[..]));
    if plan.numbered {
        columns.push(Arc::new(UInt64Array::from_iter_values(changes.iter().map(|((_, number), _)| *number))));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(changes.len()));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options).expect("the plan's schema");
    Delta::new(rows, changes.iter().map(|(_, diff)| *diff).collect::<Vec<_>>())
}

/// A row in its order, and its number from 1.
type Numbered = (Bytes, u64);

/// The rows of one key in order, with their counts. The rule.
#[derive(Default)]
struct Ranked {
    rows: Ordered,
    /// Sum of the positive counts.
    total: i64,
    /// The last tick that changed it.
    touched: Option<Tick>,
    /// Of the rows.
    bytes: usize,
}

impl Ranked {
    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn add(&mut self, row: &[u8], diff: i64) {
        let (before, after) = self.rows.add(row, diff);
        self.total += after.max(0) - before.max(0);
        match (before, after) {
            (0, _) => self.bytes += ENTRY_BYTES + row.len(),
            (_, 0) => self.bytes -= ENTRY_BYTES + row.len(),
            _ => {}
        }
    }

    fn is_beyond(&self, row: &[u8], end: usize) -> bool {
        end as u64 <= self.total as u64 && self.rows.last().is_some_and(|(last, _)| last <= row)
    }

    /// Forgets rows that `end` rows precede.
    fn trim(&mut self, end: usize) {
        while let Some((row, count)) = self.rows.last()
            && end as u64 <= (self.total - count) as u64
        {
            self.bytes -= ENTRY_BYTES + row.len();
            self.total -= count;
            self.rows.remove_last();
        }
    }

    /// The rows at positions `window`, one entry per copy.
    fn window(&self, window: &Range<usize>) -> Vec<Numbered> {
        let mut position = 0;
        let mut rows = Vec::new();
        for (row, count) in self.rows.iter().filter(|(_, count)| 0 < *count) {
            if window.end <= position {
                break;
            }
            let end = position.saturating_add(count as usize);
            for number in position.max(window.start)..end.min(window.end) {
                rows.push((row.into(), number as u64 + 1));
            }
            position = end;
        }
        rows
    }
}

/// Rows in order, each with its count, which is not 0. Most keys have a few rows, and there are
/// many keys: a few take a list.
enum Ordered {
    Few(Vec<(Box<[u8]>, i64)>),
    Many(BTreeMap<Box<[u8]>, i64>),
}

const FEW_MAX: usize = 32;

impl Default for Ordered {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Ordered {
    fn is_empty(&self) -> bool {
        match self {
            Self::Few(rows) => rows.is_empty(),
            Self::Many(rows) => rows.is_empty(),
        }
    }

    /// The row's count before and after. `diff` is not 0.
    fn add(&mut self, row: &[u8], diff: i64) -> (i64, i64) {
        if let Self::Few(rows) = self
            && rows.len() == FEW_MAX
        {
            *self = Self::Many(std::mem::take(rows).into_iter().collect());
        }
        let before = match self {
            Self::Few(rows) => match rows.binary_search_by(|(other, _)| other[..].cmp(row)) {
                Ok(at) if rows[at].1 + diff == 0 => rows.remove(at).1,
                Ok(at) => {
                    rows[at].1 += diff;
                    rows[at].1 - diff
                }
                Err(at) => {
                    // Exactly, for there may be one row in each of millions.
                    rows.reserve_exact(usize::from(rows.is_empty()));
                    rows.insert(at, (row.into(), diff));
                    0
                }
            },
            Self::Many(rows) => {
                let count = rows.get(row).copied().unwrap_or(0);
                match count + diff {
                    0 => rows.remove(row),
                    after => rows.insert(row.into(), after),
                };
                count
            }
        };
        (before, before + diff)
    }

    fn last(&self) -> Option<(&[u8], i64)> {
        match self {
            Self::Few(rows) => rows.last().map(|(row, count)| (&row[..], *count)),
            Self::Many(rows) => rows.last_key_value().map(|(row, count)| (&row[..], *count)),
        }
    }

    fn remove_last(&mut self) {
        match self {
            Self::Few(rows) => drop(rows.pop()),
            Self::Many(rows) => drop(rows.pop_last()),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], i64)> {
        let (few, many) = match self {
            Self::Few(rows) => (Some(rows.iter().map(|(row, count)| (&row[..], *count))), None),
            Self::Many(rows) => (None, Some(rows.iter().map(|(row, count)| (&row[..], *count)))),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

/// What turns `before` into `now`; both are in order. Without numbers only the rows count.
fn difference(before: Vec<Numbered>, now: Vec<Numbered>, numbered: bool, changes: &mut Vec<(Numbered, i64)>) {
    let plain = |(row, number): Numbered| (row, if numbered { number } else { 0 });
    let mut gone = before.into_iter().map(plain).peekable();
    for come in now.into_iter().map(plain) {
        while let Some(old) = gone.next_if(|old| *old < come) {
            changes.push((old, -1));
        }
        if gone.next_if_eq(&come).is_none() {
            changes.push((come, 1));
        }
    }
    changes.extend(gone.map(|old| (old, -1)));
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn ranked(rows: &[(&str, i64)]) -> Ranked {
        let mut ranked = Ranked::default();
        rows.iter().for_each(|(row, diff)| ranked.add(row.as_bytes(), *diff));
        ranked
    }

    fn names(rows: Vec<Numbered>) -> Vec<(String, u64)> {
        rows.into_iter().map(|(row, number)| (String::from_utf8(row).unwrap(), number)).collect()
    }

    #[test]
    fn the_window_counts_copies() {
        let rows = ranked(&[("b", 2), ("a", 1), ("c", 1)]);
        assert_eq!(names(rows.window(&(1..3))), [("b".into(), 2), ("b".into(), 3)]);
        assert_eq!(names(rows.window(&(3..usize::MAX))), [("c".into(), 4)]);
    }

    #[test]
    fn negative_counts_do_not_show_until_they_are_made_good() {
        let mut rows = ranked(&[("a", -1), ("b", 1)]);
        assert_eq!(names(rows.window(&(0..2))), [("b".into(), 1)]);
        rows.add(b"a", 2);
        assert_eq!(names(rows.window(&(0..2))), [("a".into(), 1), ("b".into(), 2)]);
        assert_eq!(rows.total, 2);
    }

    #[test]
    fn trimming_keeps_what_the_window_needs() {
        let mut rows = ranked(&[("a", 1), ("b", 3), ("c", 1)]);
        rows.trim(2);
        assert_eq!(names(rows.window(&(0..2))), [("a".into(), 1), ("b".into(), 2)]);
        assert_eq!(rows.rows.iter().count(), 2);
        assert!(rows.is_beyond(b"c", 2) && !rows.is_beyond(b"aa", 2));
    }

    #[test]
    fn only_numbered_windows_report_moved_rows() {
        let row = |name: &str, number| (name.as_bytes().into(), number);
        for (numbered, changes) in [(false, 1), (true, 3)] {
            let mut out = Vec::new();
            difference(vec![row("b", 1)], vec![row("a", 1), row("b", 2)], numbered, &mut out);
            assert_eq!(out.len(), changes);
        }
    }

    // The oracle is a plain map; the list becomes one on the way.
    #[test]
    fn few_and_many_rows_are_kept_alike() {
        let mut rng = StdRng::seed_from_u64(5);
        for most in [8, 3 * FEW_MAX] {
            let (mut ordered, mut oracle) = (Ordered::default(), BTreeMap::<Vec<u8>, i64>::new());
            for _ in 0..2_000 {
                let row = rng.random_range(0..most).to_string().into_bytes();
                let diff = if rng.random_bool(0.5) { 1 } else { -1 };
                let before = oracle.get(&row).copied().unwrap_or(0);
                assert_eq!(ordered.add(&row, diff), (before, before + diff));
                oracle.insert(row, before + diff);
                oracle.retain(|_, count| *count != 0);
                assert_eq!(ordered.last().map(|(row, count)| (row.to_vec(), count)), oracle.clone().pop_last());
                assert!(ordered.iter().eq(oracle.iter().map(|(row, count)| (&row[..], *count))));
            }
            assert_eq!(matches!(ordered, Ordered::Many(_)), FEW_MAX < most);
        }
    }
}
