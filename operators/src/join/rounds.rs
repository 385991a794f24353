//! The join inside a recursion, where rounds make it differential dataflow's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::join::join_traces;
use differential_dataflow::trace::{BatchCursor, Cursor, Navigable, TraceReader};
use tidegate_types::Delta;
use timely::Accountable;
use timely::container::ContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::arrange::{Bytes, Layout};
use crate::stream::{Rows, Time, Timed};

/// How both arrangements are laid down, and the schema of the pairs.
pub struct RoundsPlan {
    pub left: Arc<Layout>,
    pub right: Arc<Layout>,
    pub schema: SchemaRef,
}

/// Wires the plan.
pub fn join_rounds<'scope, T, Tr1, Tr2>(left: Arranged<'scope, Tr1>, right: Arranged<'scope, Tr2>, plan: RoundsPlan) -> Rows<'scope, T>
where
    T: Time,
    Tr1: TraceReader<Time = T, Batch: Navigable> + 'static,
    Tr2: TraceReader<Time = T, Batch: Navigable> + 'static,
    BatchCursor<Tr1>: for<'a> Cursor<Time = T, Diff = i64, KeyContainer = Vec<Bytes>, Key<'a> = &'a Bytes, Val<'a> = &'a Bytes>,
    BatchCursor<Tr2>: for<'a> Cursor<Time = T, Diff = i64, Key<'a> = &'a Bytes, Val<'a> = &'a Bytes>,
{
    let pairs = join_traces::<_, _, Vec<Bytes>, _, PairsBuilder<T>>(
        left,
        right,
        "Join",
        |key, left, right, time, left_diff, right_diff, out: &mut PairsBuilder<T>| {
            out.push([key, left, right], time, left_diff * right_diff);
        },
    );
    pairs.unary(Pipeline, "DecodePairs", move |_, _| {
        move |input, output| {
            input.for_each(|cap, pairs| {
                let mut session = output.session(&cap);
                for timed in decode(pairs, &plan) {
                    session.give(timed);
                }
            });
        }
    })
}

/// Matched pairs as they leave the join: key, left value and right value of each, end to end.
#[derive(Clone)]
struct Pairs<T> {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    times: Vec<T>,
    diffs: Vec<i64>,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), times: Vec::new(), diffs: Vec::new() }
    }
}

impl<T: 'static> Accountable for Pairs<T> {
    fn record_count(&self) -> i64 {
        self.diffs.len() as i64
    }
}

impl<T> Pairs<T> {
    /// Part 0 (key), 1 (left) or 2 (right) of pair `i`.
    fn part(&self, i: usize, part: usize) -> &[u8] {
        let end = 3 * i + part;
        let from = if end == 0 { 0 } else { self.ends[end - 1] };
        &self.bytes[from..self.ends[end]]
    }
}

/// Pairs per container: enough to amortise decoding.
const PAIRS_MAX: usize = 8192;

struct PairsBuilder<T> {
    filling: Pairs<T>,
    full: VecDeque<Pairs<T>>,
    shipped: Pairs<T>,
}

impl<T> Default for PairsBuilder<T> {
    fn default() -> Self {
        Self { filling: Pairs::default(), full: VecDeque::new(), shipped: Pairs::default() }
    }
}

impl<T> PairsBuilder<T> {
    fn push(&mut self, parts: [&Bytes; 3], time: T, diff: i64) {
        for part in parts {
            self.filling.bytes.extend_from_slice(part);
            self.filling.ends.push(self.filling.bytes.len());
        }
        self.filling.times.push(time);
        self.filling.diffs.push(diff);
        if self.filling.diffs.len() == PAIRS_MAX {
            self.full.push_back(std::mem::take(&mut self.filling));
        }
    }
}

impl<T: Time> ContainerBuilder for PairsBuilder<T> {
    type Container = Pairs<T>;

    fn extract(&mut self) -> Option<&mut Pairs<T>> {
        self.shipped = self.full.pop_front()?;
        Some(&mut self.shipped)
    }

    fn finish(&mut self) -> Option<&mut Pairs<T>> {
        if !self.filling.diffs.is_empty() {
            self.full.push_back(std::mem::take(&mut self.filling));
        }
        self.extract()
    }
}

fn decode<T: Time>(pairs: &Pairs<T>, plan: &RoundsPlan) -> Vec<Timed<T>> {
    let mut by_time: BTreeMap<&T, Vec<usize>> = BTreeMap::new();
    for (i, time) in pairs.times.iter().enumerate() {
        by_time.entry(time).or_default().push(i);
    }
    let timed = |(time, indices): (&T, Vec<usize>)| {
        let side = |layout: &Layout, part| layout.decode_columns(indices.iter().map(|&i| (pairs.part(i, 0), pairs.part(i, part))));
        let mut columns = side(&plan.left, 1);
        columns.extend(side(&plan.right, 2));
        let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options).expect("the planner's schema");
        let diffs: Vec<i64> = indices.iter().map(|&i| pairs.diffs[i]).collect();
        Timed { time: time.clone(), delta: Delta::new(rows, diffs) }
    };
    by_time.into_iter().map(timed).collect()
}
