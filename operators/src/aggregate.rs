//! `aggregate`: one row per group, from accumulators that can also take rows back.
//!
//! SQL     GROUP BY with count, sum, avg, min, max, bool_and, bool_or, each also
//!         DISTINCT and with FILTER
//! In      group columns first, then arguments and filters; outside recursion
//! Out     group columns, then results; a changed group is a retraction and an
//!         insertion; without GROUP BY there is always one row
//! State   one accumulator per group and call; freed when the group is empty, or
//!         when the watermark passes the group's bounded column
//! Errors  a result that does not fit its type becomes an error row
//! Source  sums are exact: integers in i128; floats in fixed point, or where
//!         that cannot hold them in Neal's superaccumulator (arXiv 1505.05571),
//!         so that order and retraction leave no trace

mod accumulators;
mod exact;
mod percentile;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};
use hashbrown::HashMap;
use tidegate_types::Delta;
use tidegate_types::expr::Failure;
use tidegate_types::row::{RowCodec, project_schema};

use crate::arrange::Bytes;
use crate::keyed::by_tick;
use crate::stream::{Errors, Rows, Watermarks, exchange};
use crate::usage::{ENTRY_BYTES, Usage};
use accumulators::{Accumulator, accumulator};
pub use exact::exact;

/// What can be accumulated and taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
}

impl Function {
    /// Whether `argument` can be accumulated exactly; the planner asks before it chooses this operator.
    pub fn accepts(self, argument: &DataType) -> bool {
        match self {
            Self::Count | Self::Min | Self::Max => !argument.is_nested(),
            Self::Sum | Self::Avg => {
                argument.is_integer() || matches!(argument, DataType::Float32 | DataType::Float64 | DataType::Decimal128(_, _))
            }
            Self::BoolAnd | Self::BoolOr => *argument == DataType::Boolean,
        }
    }
}

/// One aggregate of the SELECT list. Columns are indices into the input.
#[derive(Debug, Clone)]
pub struct Call {
    pub function: Function,
    /// None: `count(*)`.
    pub argument: Option<usize>,
    pub filter: Option<usize>,
    pub distinct: bool,
}

/// A group dies when `watermark(source) - slack_ms` passes its column `key_column`
/// (a TIMESTAMP in milliseconds): no row for it can come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeRule {
    pub key_column: usize,
    pub source: usize,
    pub slack_ms: i64,
}

/// Plain data.
#[derive(Debug, Clone)]
pub struct AggregatePlan {
    /// How many leading input columns are the group.
    pub group_columns: usize,
    pub calls: Vec<Call>,
    pub append_only: bool,
    pub free: Option<FreeRule>,
    pub input: SchemaRef,
    pub schema: SchemaRef,
}

/// Wires the plan.
pub fn aggregate<'scope>(
    rows: Rows<'scope, u64>,
    plan: AggregatePlan,
    watermarks: Watermarks,
    errors: Errors,
    usage: Usage,
) -> Rows<'scope, u64> {
    let scope = rows.scope();
    let group: Vec<usize> = (0..plan.group_columns).collect();
    let rows = exchange(rows, &plan.input, &group);
    let mut groups = Groups::new(&plan, usage.clone());
    // Without GROUP BY there is a row even for no input; one worker owns it.
    let first = groups.always.then(|| groups.first_row(scope.index() as u64, scope.peers() as u64)).flatten();
    by_tick(rows, "Aggregate", first, usage, move |tick, deltas, out, _| {
        out.push(groups.step(&deltas, |failure| errors.report(tick, "Aggregate", failure)));
        if let Some(rule) = plan.free
            && let Some(watermark) = watermarks.passed(tick, rule.source)
        {
            groups.free_before(watermark.saturating_sub(rule.slack_ms));
        }
    })
}

/// The rule: accumulators by group.
struct Groups {
    plan: AggregatePlan,
    codec: RowCodec,
    results: RowCodec,
    always: bool,
    slots: HashMap<Bytes, u32>,
    /// Rows per slot; a group is there while it has some.
    rows: Vec<i64>,
    vacant: Vec<u32>,
    calls: Vec<Box<dyn Accumulator>>,
    /// Keys by the value of the bounded column, where there is a free rule.
    expiry: BTreeMap<i64, Vec<Bytes>>,
    usage: Usage,
}

/// The groups a tick touches, and what they were before.
struct Touched {
    slots: Vec<u32>,
    keys: Vec<Bytes>,
    existed: Vec<bool>,
}

impl Groups {
    fn new(plan: &AggregatePlan, usage: Usage) -> Self {
        let group: Vec<usize> = (0..plan.group_columns).collect();
        let results: Vec<usize> = (plan.group_columns..plan.schema.fields().len()).collect();
        let calls = plan.calls.iter().zip(&results).map(|(call, &result)| {
            let argument = call.argument.map(|i| plan.input.field(i).data_type());
            accumulator(call, argument, plan.schema.field(result).data_type(), plan.append_only, &usage)
        });
        Self {
            codec: RowCodec::new(project_schema(&plan.input, &group)).expect("the planner checked the types"),
            results: RowCodec::new(project_schema(&plan.schema, &results)).expect("the planner checked the types"),
            always: plan.group_columns == 0,
            slots: HashMap::new(),
            rows: Vec::new(),
            vacant: Vec::new(),
            calls: calls.collect(),
            expiry: BTreeMap::new(),
            usage: usage.clone(),
            plan: plan.clone(),
        }
    }

    fn first_row(&mut self, worker: u64, workers: u64) -> Option<Delta> {
        if tidegate_types::row::hash_row(&[]) % workers != worker {
            return None;
        }
        let slot = self.slot_of(&[], None);
        let columns = self.evaluate(&[slot], |_, _| ());
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.plan.schema), columns, &options);
        Some(Delta::insertions(rows.expect("the plan's schema")))
    }

    /// All of a tick's rows; the net change of the groups they touch.
    fn step(&mut self, deltas: &[Delta], mut fail: impl FnMut(Failure)) -> Delta {
        let mut touched = Touched { slots: Vec::new(), keys: Vec::new(), existed: Vec::new() };
        let slots = self.assign(deltas, &mut touched);
        let mut before = self.snapshot(&touched, -1, &mut fail);
        before.present.iter_mut().zip(&touched.existed).for_each(|(present, existed)| *present &= existed);
        for (delta, slots) in deltas.iter().zip(&slots) {
            self.update(delta, slots);
        }
        let after = self.snapshot(&touched, 1, &mut fail);
        let change = self.change(&touched, &before, &after);
        self.drop_empty(&touched);
        change
    }

    fn assign(&mut self, deltas: &[Delta], touched: &mut Touched) -> Vec<Vec<u32>> {
        let mut seen: HashMap<u32, ()> = HashMap::new();
        let mut assigned = Vec::with_capacity(deltas.len());
        for delta in deltas {
            let keys = &delta.rows.columns()[..self.plan.group_columns];
            let bounds = self.plan.free.map(|rule| keys[rule.key_column].as_primitive::<TimestampMillisecondType>().clone());
            let encoded = self.codec.encode_columns(keys, delta.len()).expect("the plan's schema");
            let mut slots = Vec::with_capacity(delta.len());
            for (i, key) in encoded.iter().enumerate() {
                // A row without a time is never late, so its group never ends.
                let bound = bounds.as_ref().filter(|bounds| bounds.is_valid(i)).map(|bounds| bounds.value(i));
                let slot = self.slot_of(key, bound);
                if seen.insert(slot, ()).is_none() {
                    touched.slots.push(slot);
                    touched.keys.push(key.to_vec());
                    touched.existed.push(self.always || 0 < self.rows[slot as usize]);
                }
                slots.push(slot);
            }
            assigned.push(slots);
        }
        assigned
    }

    fn slot_of(&mut self, key: &[u8], bound: Option<i64>) -> u32 {
        if let Some(&slot) = self.slots.get(key) {
            return slot;
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.rows.push(0);
            let slots = self.rows.len();
            self.calls.iter_mut().for_each(|call| call.grow(slots));
            slots as u32 - 1
        });
        self.slots.insert(key.to_vec(), slot);
        self.usage.grow(self.group_bytes(key));
        if let Some(bound) = bound {
            self.expiry.entry(bound).or_default().push(key.to_vec());
        }
        slot
    }

    fn group_bytes(&self, key: &[u8]) -> usize {
        let copies = 1 + usize::from(self.plan.free.is_some());
        copies * (ENTRY_BYTES + key.len()) + self.calls.len() * SLOT_BYTES
    }

    fn update(&mut self, delta: &Delta, slots: &[u32]) {
        for (&slot, diff) in slots.iter().zip(delta.diffs.iter()) {
            self.rows[slot as usize] += diff;
        }
        for (accumulator, call) in self.calls.iter_mut().zip(&self.plan.calls) {
            let argument = call.argument.map(|i| delta.rows.column(i));
            match call.filter {
                None => accumulator.update(slots, argument, &delta.diffs),
                Some(i) => {
                    let (slots, argument, diffs) = filtered(slots, argument, &delta.diffs, delta.rows.column(i).as_boolean());
                    accumulator.update(&slots, argument.as_ref(), &diffs);
                }
            }
        }
    }

    fn evaluate(&self, slots: &[u32], mut fail: impl FnMut(usize, String)) -> Vec<ArrayRef> {
        self.calls.iter().map(|call| call.evaluate(slots, &mut fail)).collect()
    }

    /// The touched groups' results now. A group whose result fails is not present, and its
    /// error comes or goes by `sign`.
    fn snapshot(&self, touched: &Touched, sign: i64, fail: &mut impl FnMut(Failure)) -> Snapshot {
        let mut present: Vec<bool> = touched.slots.iter().map(|&slot| self.always || 0 < self.rows[slot as usize]).collect();
        let mut failed = Vec::new();
        let columns = self.evaluate(&touched.slots, |i, reason| failed.push((i, reason)));
        for (i, reason) in failed {
            if present[i] {
                fail(Failure { reason, diff: sign });
                present[i] = false;
            }
        }
        Snapshot { columns, present }
    }

    fn change(&self, touched: &Touched, before: &Snapshot, after: &Snapshot) -> Delta {
        let rows = touched.slots.len();
        let encode = |snapshot: &Snapshot| self.results.encode_columns(&snapshot.columns, rows).expect("the plan's schema");
        let (old, new) = (encode(before), encode(after));
        let same = |i: usize| before.present[i] && after.present[i] && old.row(i) == new.row(i);
        let pick = |present: &[bool]| (0..rows).filter(|&i| present[i] && !same(i)).map(|i| i as u32).collect::<Vec<_>>();
        let (gone, come) = (pick(&before.present), pick(&after.present));
        let part = |indices: &[u32], snapshot: &Snapshot, sign: i64| {
            let keys = self.codec.decode_columns(indices.iter().map(|&i| &touched.keys[i as usize][..])).expect("what was encoded");
            let taken = UInt32Array::from(indices.to_vec());
            let results = snapshot.columns.iter().map(|column| take(column, &taken, None).expect("indices within the batch"));
            let columns = keys.into_iter().chain(results).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
            let rows = RecordBatch::try_new_with_options(Arc::clone(&self.plan.schema), columns, &options);
            Delta::new(rows.expect("the plan's schema"), vec![sign; indices.len()])
        };
        let parts = [part(&gone, before, -1), part(&come, after, 1)];
        Delta::concat(&self.plan.schema, &parts).expect("parts of one schema")
    }

    fn drop_empty(&mut self, touched: &Touched) {
        for (&slot, key) in touched.slots.iter().zip(&touched.keys) {
            if !self.always && self.rows[slot as usize] == 0 {
                self.vacate(key);
            }
        }
    }

    fn vacate(&mut self, key: &[u8]) {
        if let Some(slot) = self.slots.remove(key) {
            self.usage.shrink(self.group_bytes(key));
            self.rows[slot as usize] = 0;
            self.calls.iter_mut().for_each(|call| call.clear(slot));
            self.vacant.push(slot);
        }
    }

    fn free_before(&mut self, bound: i64) {
        while let Some(entry) = self.expiry.first_entry().filter(|entry| *entry.key() < bound) {
            for key in entry.remove() {
                self.vacate(&key);
            }
        }
    }
}

/// An accumulator's own part of a group; those that keep values count these themselves.
const SLOT_BYTES: usize = 32;

struct Snapshot {
    columns: Vec<ArrayRef>,
    present: Vec<bool>,
}

fn filtered(slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64], keep: &BooleanArray) -> (Vec<u32>, Option<ArrayRef>, Vec<i64>) {
    let kept: Vec<usize> = (0..keep.len()).filter(|&i| keep.is_valid(i) && keep.value(i)).collect();
    let argument = argument.map(|column| filter(column, keep).expect("one flag per row"));
    (kept.iter().map(|&i| slots[i]).collect(), argument, kept.iter().map(|&i| diffs[i]).collect())
}
