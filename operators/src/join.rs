//! `join`: pairs of rows with equal keys.
//!
//! SQL     INNER JOIN; with `distinct` and `negate` also the semi, anti and outer joins
//! In      any rows on both sides
//! Out     left columns, then right columns; append-only where both inputs are
//! State   both sides' rows by key, as bytes; inside a recursion two arrangements. Kept as
//!         long as the rows are there, or until watermarks have passed the key's time
//! Turns   a tick's pairs leave a bounded number at a time, so that those behind it, and whoever
//!         watches what they keep, have their turn
//! Errors  a pair that is there more often than 64 bits count; a residual condition is a `program`
//!         behind it
//! Source  the bilinear rule: Δ(L ⋈ R) = ΔL ⋈ R + (L + ΔL) ⋈ ΔR; in a recursion differential
//!         dataflow's join

mod rounds;
mod side;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use tidegate_types::expr::Failure;
use tidegate_types::row::canonical_floats;
use tidegate_types::{Delta, Tick};

pub use rounds::{RoundsPlan, join_rounds};
use side::Side;

use crate::arrange::Layout;
use crate::keyed::by_tick_of_two;
use crate::stream::{Errors, Rows, Watermarks, exchange};
use crate::usage::Usage;

/// How both sides are laid down, and the schema of the pairs.
pub struct JoinPlan {
    pub left: Arc<Layout>,
    pub right: Arc<Layout>,
    pub schema: SchemaRef,
    /// NULL keys meet NULL keys; else they meet nothing, and are not kept.
    pub null_equals_null: bool,
    /// Nothing of the side is ever taken back.
    pub left_append_only: bool,
    pub right_append_only: bool,
    pub free: Option<FreeRule>,
}

/// A key dies on both sides when both sides' watermarks, less their slack, have passed its column
/// `key_column` (a TIMESTAMP in milliseconds): no row for it can come or go any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeRule {
    /// Position within the key.
    pub key_column: usize,
    /// Source and slack in milliseconds, of the left and of the right side.
    pub bounds: [(usize, i64); 2],
}

/// Wires the plan, outside recursion.
pub fn join<'scope>(
    left: Rows<'scope, u64>,
    right: Rows<'scope, u64>,
    plan: JoinPlan,
    watermarks: Watermarks,
    errors: Errors,
    usage: Usage,
) -> Rows<'scope, u64> {
    let left = exchange(left, plan.left.schema(), plan.left.key());
    let right = exchange(right, plan.right.schema(), plan.right.key());
    let ends_by = plan.free.as_ref().map(|rule| rule.key_column);
    let sides = [
        Side::new(Arc::clone(&plan.left), plan.left_append_only, plan.null_equals_null, ends_by, usage.clone()),
        Side::new(Arc::clone(&plan.right), plan.right_append_only, plan.null_equals_null, ends_by, usage.clone()),
    ];
    let mut state = State { plan, sides };
    by_tick_of_two(left, right, "Join", usage, move |tick, deltas, out| {
        if !state.turn(deltas, out, |failure| errors.report(tick, "Join", failure)) {
            return;
        }
        if let Some(bound) = state.plan.free.as_ref().and_then(|rule| passed(rule, tick, &watermarks)) {
            state.sides.iter_mut().for_each(|side| side.free_before(bound));
        }
    })
}

/// The rule: both sides as kept so far.
struct State {
    plan: JoinPlan,
    sides: [Side; 2],
}

impl State {
    /// Takes rows in, one side after the other, until they gave the pairs of one turn. Whether all are in.
    fn turn(&mut self, deltas: &mut [Vec<Delta>; 2], out: &mut Vec<Delta>, mut fail: impl FnMut(Failure)) -> bool {
        let mut room = PAIRS_PER_TURN;
        for (own, deltas) in deltas.iter_mut().enumerate() {
            while let Some(delta) = deltas.pop() {
                let rows = delta.len().min(ROWS_MAX);
                let (met, pairs) = self.meet(own, canonical(delta.slice(0, rows)), room, out, &mut fail);
                room = room.saturating_sub(pairs);
                if met < delta.len() {
                    deltas.push(delta.slice(met, delta.len() - met));
                }
                if room == 0 {
                    break;
                }
            }
        }
        deltas.iter().all(Vec::is_empty)
    }

    /// Rows of one side meet those kept of the other and are kept, up to the one with which there are `room`
    /// pairs. How many did, and how many pairs they gave.
    fn meet(&mut self, own: usize, delta: Delta, room: usize, out: &mut Vec<Delta>, fail: &mut impl FnMut(Failure)) -> (usize, usize) {
        let keys = plan_side(&self.plan, own).encode_keys(&delta);
        let (met, hits) = self.sides[1 - own].probe(&keys, &delta, room, |diff| {
            fail(Failure { reason: "a row would be there more often than 64 bits count".into(), diff });
        });
        for hits in hits.chunks(PAIRS_MAX) {
            out.push(pairs(&self.plan, own, &delta, &self.sides[1 - own], hits));
        }
        self.sides[own].change(&keys, &delta.slice(0, met));
        (met, hits.len())
    }
}

fn passed(rule: &FreeRule, tick: Tick, watermarks: &Watermarks) -> Option<i64> {
    let passed = rule.bounds.map(|(source, slack_ms)| watermarks.passed(tick, source).map(|time| time.saturating_sub(slack_ms)));
    let [left, right] = passed;
    Some(left?.min(right?))
}

/// Pairs per batch: enough to amortise decoding.
const PAIRS_MAX: usize = 8192;

/// Pairs after which others have their turn, but for those of one row.
const PAIRS_PER_TURN: usize = 32 * PAIRS_MAX;

/// Rows that are looked up at once.
const ROWS_MAX: usize = 65_536;

/// Row `row` of a delta meets the kept row `kept`, `diff` times.
struct Hit {
    row: u32,
    kept: u32,
    diff: i64,
}

fn plan_side(plan: &JoinPlan, own: usize) -> &Layout {
    if own == 0 { &plan.left } else { &plan.right }
}

// What is kept comes back canonical; what passes by must be the same, or a retraction would miss.
pub(crate) fn canonical(delta: Delta) -> Delta {
    let columns: Vec<ArrayRef> = delta.rows.columns().iter().map(canonical_floats).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(delta.len()));
    let rows = RecordBatch::try_new_with_options(delta.rows.schema(), columns, &options).expect("the same types");
    Delta { rows, ..delta }
}

fn pairs(plan: &JoinPlan, own: usize, delta: &Delta, other: &Side, hits: &[Hit]) -> Delta {
    let rows = UInt32Array::from_iter_values(hits.iter().map(|hit| hit.row));
    let this: Vec<ArrayRef> =
        delta.rows.columns().iter().map(|column| take(column, &rows, None).expect("indices within the batch")).collect();
    let (this_key, other_key) = (plan_side(plan, own).key(), plan_side(plan, 1 - own).key());
    let met = other.columns(hits.iter().map(|hit| hit.kept), |at| {
        let position = other_key.iter().position(|&column| column == at).expect("a column of the key");
        Arc::clone(&this[this_key[position]])
    });
    let columns = if own == 0 { [this, met].concat() } else { [met, this].concat() };
    let options = RecordBatchOptions::new().with_row_count(Some(hits.len()));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&plan.schema), columns, &options).expect("the planner's schema");
    Delta::new(rows, hits.iter().map(|hit| hit.diff).collect::<Vec<_>>())
}
