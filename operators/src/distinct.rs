//! `distinct`: each row once, however often it is there.
//!
//! SQL     SELECT DISTINCT, UNION, the right side of semi and anti joins
//! In      any rows
//! Out     a row while its count is above 0; append-only where the input is
//! State   one count per distinct row, for as long as the row is there
//! Errors  none
//! Source  differential dataflow's threshold

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::trace::implementations::ValBuilder;
use hashbrown::HashMap;
use tidegate_types::Delta;
use tidegate_types::row::RowCodec;

use crate::arrange::{Bytes, Layout, Spine, Trace, arrange};
use crate::keyed::by_tick;
use crate::stream::{Round, Rows, Time, exchange};
use crate::usage::{ENTRY_BYTES, Usage};

/// Outside recursion: plain counts, stepped from tick to tick.
pub fn distinct<'scope>(rows: Rows<'scope, u64>, schema: SchemaRef, usage: Usage) -> Rows<'scope, u64> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let codec = RowCodec::new(Arc::clone(&schema)).expect("the planner checked the types");
    let mut counts = Counts { rows: HashMap::new(), usage: usage.clone() };
    by_tick(exchange(rows, &schema, &all), "Distinct", None, usage, move |_, deltas, out, _| {
        let mut before = HashMap::new();
        for delta in &deltas {
            let rows = codec.encode(&delta.rows).expect("the planner's schema");
            for (row, &diff) in rows.iter().zip(delta.diffs.iter()) {
                counts.add(row, diff, &mut before);
            }
        }
        let changes = counts.changes(before);
        let rows = codec.decode(changes.iter().map(|(row, _)| &row[..])).expect("what was encoded");
        out.push(Delta::new(rows, changes.iter().map(|(_, diff)| *diff).collect::<Vec<_>>()));
    })
}

/// Within recursion: differential's reduce, which knows about rounds. The result is by whole row.
pub fn distinct_rounds<'scope>(rows: Rows<'scope, Round>, layout: Arc<Layout>, usage: Usage) -> Arranged<'scope, Trace<Round>> {
    reduce_to_one(arrange(rows, layout, false, "ArrangeDistinct", usage))
}

fn reduce_to_one<'scope, T: Time>(arranged: Arranged<'scope, Trace<T>>) -> Arranged<'scope, Trace<T>> {
    arranged.reduce_abelian::<_, ValBuilder<Bytes, Bytes, T, i64>, Spine<T>, _, _>(
        "Distinct",
        |_, values, out| out.extend(values.iter().filter(|(_, count)| 0 < *count).map(|(value, _)| ((*value).clone(), 1))),
        |updates, key, changes| {
            updates.clear();
            updates.extend(changes.drain(..).map(|(value, time, diff)| ((key.clone(), value), time, diff)));
        },
    )
}

/// How often each row is there. The rule.
struct Counts {
    rows: HashMap<Bytes, i64>,
    usage: Usage,
}

impl Counts {
    /// Adds `diff`; `before` keeps the count a row had when the tick began.
    fn add(&mut self, row: &[u8], diff: i64, before: &mut HashMap<Bytes, i64>) {
        match self.rows.get_mut(row) {
            Some(count) => {
                if !before.contains_key(row) {
                    before.insert(row.into(), *count);
                }
                *count += diff;
            }
            None => {
                before.entry_ref(row).or_insert(0);
                self.rows.insert(row.into(), diff);
                self.usage.grow(ENTRY_BYTES + row.len());
            }
        }
    }

    /// The rows that came (+1) or went (-1) since `before`; counts of 0 are freed.
    fn changes(&mut self, before: HashMap<Bytes, i64>) -> Vec<(Bytes, i64)> {
        let mut changes = Vec::new();
        for (row, before) in before {
            let now = self.rows.get(&row).copied().unwrap_or(0);
            if now == 0 {
                self.rows.remove(&row);
                self.usage.shrink(ENTRY_BYTES + row.len());
            }
            let change = i64::from(0 < now) - i64::from(0 < before);
            if change != 0 {
                changes.push((row, change));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crossing_zero_is_a_change() {
        let mut counts = Counts { rows: HashMap::new(), usage: Usage::default() };
        for (diffs, change) in [(vec![2], 1), (vec![-1], 0), (vec![1, -2], -1), (vec![1, -1], 0), (vec![-1], 0), (vec![2], 1)] {
            let mut before = HashMap::new();
            diffs.iter().for_each(|&diff| counts.add(b"row", diff, &mut before));
            let changes = counts.changes(before);
            assert_eq!(changes.iter().map(|(_, diff)| *diff).sum::<i64>(), change, "{diffs:?}");
        }
        assert_eq!((counts.rows.len(), counts.usage.bytes()), (1, ENTRY_BYTES + 3));
    }
}
