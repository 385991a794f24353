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

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use tidegate_types::Delta;
use tidegate_types::row::{RowCodec, project_schema};

use crate::arrange::Bytes;
use crate::keyed::by_tick;
use crate::stream::{Rows, exchange};

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
pub fn top<'scope>(rows: Rows<'scope, u64>, plan: TopPlan) -> Rows<'scope, u64> {
    let codecs = Codecs::new(&plan);
    let mut keys: HashMap<Bytes, Ranked> = HashMap::new();
    let window = plan.skip..plan.limit.map_or(usize::MAX, |limit| plan.skip.saturating_add(limit));
    by_tick(exchange(rows, &plan.input, &plan.key), "Top", None, move |_, deltas, out, _| {
        let mut before: HashMap<Bytes, Vec<Numbered>> = HashMap::new();
        for delta in &deltas {
            let (key_rows, ordered_rows) = codecs.encode(delta, &plan);
            for ((key, row), &diff) in key_rows.iter().zip(&ordered_rows).zip(delta.diffs.iter()) {
                let ranked = keys.entry_ref(key).or_default();
                // A row behind a full window cannot matter while nothing is ever taken away.
                if plan.append_only && ranked.is_beyond(row, window.end) {
                    continue;
                }
                if !before.contains_key(key) {
                    before.insert(key.into(), ranked.window(&window));
                }
                ranked.add(row, diff);
                if plan.append_only {
                    ranked.trim(window.end);
                }
            }
        }
        let mut changes = Vec::new();
        for (key, before) in before {
            let now = keys.get(&key).map(|ranked| ranked.window(&window)).unwrap_or_default();
            difference(before, now, plan.numbered, &mut changes);
            if keys.get(&key).is_some_and(Ranked::is_empty) {
                keys.remove(&key);
            }
        }
        out.push(codecs.decode(&changes, &plan));
    })
}

/// A row in its order, and its number from 1.
type Numbered = (Bytes, u64);

/// The rows of one key in order, with their counts. The rule.
#[derive(Default)]
struct Ranked {
    rows: BTreeMap<Bytes, i64>,
    /// Sum of the positive counts.
    total: i64,
}

impl Ranked {
    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn add(&mut self, row: &[u8], diff: i64) {
        let count = match self.rows.get_mut(row) {
            Some(count) => count,
            None => self.rows.entry(row.into()).or_insert(0),
        };
        self.total += (*count + diff).max(0) - (*count).max(0);
        *count += diff;
        if *count == 0 {
            self.rows.remove(row);
        }
    }

    fn is_beyond(&self, row: &[u8], end: usize) -> bool {
        end as u64 <= self.total as u64 && self.rows.last_key_value().is_some_and(|(last, _)| &last[..] <= row)
    }

    /// Forgets rows that `end` rows precede.
    fn trim(&mut self, end: usize) {
        while let Some(last) = self.rows.last_entry() {
            if ((self.total - *last.get()) as u64) < end as u64 {
                return;
            }
            self.total -= last.remove();
        }
    }

    /// The rows at positions `window`, one entry per copy.
    fn window(&self, window: &Range<usize>) -> Vec<Numbered> {
        let mut position = 0;
        let mut rows = Vec::new();
        for (row, &count) in self.rows.iter().filter(|(_, count)| 0 < **count) {
            if window.end <= position {
                break;
            }
            let end = position.saturating_add(count as usize);
            for number in position.max(window.start)..end.min(window.end) {
                rows.push((row.clone(), number as u64 + 1));
            }
            position = end;
        }
        rows
    }
}

/// What turns `before` into `now`. Without numbers only the rows count.
fn difference(before: Vec<Numbered>, now: Vec<Numbered>, numbered: bool, changes: &mut Vec<(Numbered, i64)>) {
    let mut net: BTreeMap<Numbered, i64> = BTreeMap::new();
    for (rows, sign) in [(before, -1), (now, 1)] {
        for (row, number) in rows {
            *net.entry((row, if numbered { number } else { 0 })).or_default() += sign;
        }
    }
    changes.extend(net.into_iter().filter(|(_, diff)| *diff != 0));
}

/// Order columns first, then the whole row: sorts as asked, ties by the row, and decodes.
struct Codecs {
    key: RowCodec,
    order: RowCodec,
    row: RowCodec,
}

/// Bytes before each ordered row that say how long the order part is.
const PREFIX_BYTES: usize = 4;

impl Codecs {
    fn new(plan: &TopPlan) -> Self {
        let columns: Vec<usize> = plan.order.iter().map(|(column, _)| *column).collect();
        let options: Vec<SortOptions> = plan.order.iter().map(|(_, options)| *options).collect();
        let order = RowCodec::with_order(project_schema(&plan.input, &columns), &options);
        Self {
            key: RowCodec::new(project_schema(&plan.input, &plan.key)).expect("the planner checked the types"),
            order: order.expect("the planner checked the types"),
            row: RowCodec::new(Arc::clone(&plan.input)).expect("the planner checked the types"),
        }
    }

    fn encode(&self, delta: &Delta, plan: &TopPlan) -> (tidegate_types::row::EncodedRows, Vec<Vec<u8>>) {
        let columns = |of: &mut dyn Iterator<Item = usize>| of.map(|i| Arc::clone(delta.rows.column(i))).collect::<Vec<ArrayRef>>();
        let keys = self.key.encode_columns(&columns(&mut plan.key.iter().copied()), delta.len());
        let order = self.order.encode_columns(&columns(&mut plan.order.iter().map(|(i, _)| *i)), delta.len());
        let rows = self.row.encode(&delta.rows);
        let (keys, order, rows) = (keys.expect("the plan's schema"), order.expect("the plan's schema"), rows.expect("the plan's schema"));
        // arrow-row encodings are prefix free, so order ++ row compares as (order, row); the
        // length of the order part goes to the end, where it never decides.
        let join = |i: usize| {
            let (order, row) = (order.row(i), rows.row(i));
            let mut bytes = Vec::with_capacity(order.len() + row.len() + PREFIX_BYTES);
            bytes.extend_from_slice(order);
            bytes.extend_from_slice(row);
            bytes.extend_from_slice(&(order.len() as u32).to_be_bytes());
            bytes
        };
        (keys, (0..delta.len()).map(join).collect())
    }

    fn decode(&self, changes: &[(Numbered, i64)], plan: &TopPlan) -> Delta {
        let row = |bytes: &'_ [u8]| -> Range<usize> {
            let end = bytes.len() - PREFIX_BYTES;
            let order = u32::from_be_bytes(bytes[end..].try_into().expect("four bytes")) as usize;
            order..end
        };
        let rows = changes.iter().map(|((bytes, _), _)| &bytes[row(bytes)]);
        let mut columns = self.row.decode_columns(rows).expect("what was encoded");
        if plan.numbered {
            columns.push(Arc::new(UInt64Array::from_iter_values(changes.iter().map(|((_, number), _)| *number))));
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(changes.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options).expect("the plan's schema");
        Delta::new(rows, changes.iter().map(|(_, diff)| *diff).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(rows.rows.len(), 2);
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
}
