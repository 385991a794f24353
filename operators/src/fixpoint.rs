//! `fixpoint`: the least fixpoint of a query that reads its own result.
//!
//! SQL     WITH RECURSIVE r AS (start UNION [ALL] step over r)
//! In      whatever `build` imports into the loop
//! Out     the fixpoint, maintained under insertions and deletions, on cycles too; nothing
//!         while there is none
//! State   the arrangements inside the loop, by tick and round; a count per row of the result,
//!         to take it back when there is no fixpoint any more
//! Errors  a loop that does not settle in `ROUNDS_MAX` rounds, or has a row more than
//!         `COPIES_MAX` times, is an error row instead of a result
//! Source  McSherry et al., Differential Dataflow, CIDR 2013

use std::mem;

use arrow::array::BooleanArray;
use hashbrown::HashMap;
use tidegate_types::Delta;
use tidegate_types::expr::Failure;
use tidegate_types::row::RowCodec;
use timely::dataflow::Scope;
use timely::dataflow::operators::core::feedback::{ConnectLoop, Feedback};
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Concat, Leave};
use timely::order::Product;

use crate::arrange::Bytes;
use crate::join::canonical;
use crate::keyed::by_tick_of_two;
use crate::stream::{Errors, Round, Rows, Time, Timed, each};
use crate::usage::{ENTRY_BYTES, Usage};

/// Rounds after which a recursion counts as one that does not end.
pub const ROUNDS_MAX: u64 = 10_000;

/// Copies of one row that a UNION ALL may pile up. Far below where counts wrap around, which
/// doubling reaches within the rounds there are.
pub const COPIES_MAX: u64 = 1 << 40;

/// `build` gets the loop's scope and the recursive relation, and gives the relation's next value:
/// start and step together, made distinct where the query says UNION.
pub fn fixpoint<'scope>(
    scope: Scope<'scope, u64>,
    errors: Errors,
    usage: Usage,
    build: impl for<'inner> FnOnce(Scope<'inner, Round>, Rows<'inner, Round>) -> Rows<'inner, Round>,
) -> Rows<'scope, u64> {
    let (rows, doubtful) = scope.scoped::<Round, _, _>("Fixpoint", |inner| {
        let (handle, relation) = inner.feedback::<Vec<Timed<Round>>>(Product::new(0, 1));
        let next = build(inner, relation);
        next_round(next.clone()).connect_loop(handle);
        (leave(next.clone()).leave(scope), leave(doubts(next)).leave(scope))
    });
    settled(rows, doubtful, errors, usage)
}

fn next_round(rows: Rows<'_, Round>) -> Rows<'_, Round> {
    each(rows, "NextRound", |Timed { time, delta }, out| {
        if time.inner < ROUNDS_MAX {
            out.push(Timed { time: Product::new(time.outer, time.inner + 1), delta });
        }
    })
}

/// What speaks against a fixpoint: what the last round still changes, and rows in too many copies.
/// At a tick where that nets to nothing there is one.
fn doubts(rows: Rows<'_, Round>) -> Rows<'_, Round> {
    each(rows, "Doubts", |Timed { time, delta }, out| {
        if time.inner == ROUNDS_MAX {
            out.push(Timed { time, delta });
        } else if delta.diffs.iter().any(|&diff| is_piled_up(diff)) {
            let piled: BooleanArray = delta.diffs.iter().map(|&diff| Some(is_piled_up(diff))).collect();
            out.push(Timed { time, delta: delta.filter(&piled).expect("one flag per row") });
        }
    })
}

fn is_piled_up(diff: i64) -> bool {
    COPIES_MAX <= diff.unsigned_abs()
}

/// `rows` at the ticks at which they are a fixpoint. Every worker hears of all doubts.
fn settled<'scope>(rows: Rows<'scope, u64>, doubts: Rows<'scope, u64>, errors: Errors, usage: Usage) -> Rows<'scope, u64> {
    let tells = rows.scope().index() == 0;
    let mut gate = Gate { usage: usage.clone(), ..Gate::default() };
    by_tick_of_two(rows, doubts.broadcast(), "Settled", usage, move |tick, [rows, doubts], out| {
        let was_open = gate.is_open();
        gate.step(mem::take(rows), &mem::take(doubts), out);
        if tells && was_open != gate.is_open() {
            let reason = format!("the recursion did not settle in {ROUNDS_MAX} rounds, or piles up a row {COPIES_MAX} times");
            errors.report(tick, "Fixpoint", Failure { reason, diff: if was_open { 1 } else { -1 } });
        }
    })
}

/// The rule: rows pass while there is no doubt.
#[derive(Default)]
struct Gate {
    codec: Option<RowCodec>,
    rows: HashMap<Bytes, i64>,
    doubts: HashMap<Bytes, i64>,
    usage: Usage,
}

impl Gate {
    fn is_open(&self) -> bool {
        self.doubts.is_empty()
    }

    /// Takes a tick's changes; `out` gets what they do to the rows that have passed.
    fn step(&mut self, rows: Vec<Delta>, doubts: &[Delta], out: &mut Vec<Delta>) {
        let was_open = self.is_open();
        count(&mut self.doubts, doubts, &mut self.codec, &self.usage);
        if was_open && !self.is_open() {
            out.extend(self.all().map(|all| all.negate()));
        }
        let rows: Vec<Delta> = rows.into_iter().map(canonical).collect();
        count(&mut self.rows, &rows, &mut self.codec, &self.usage);
        match (was_open, self.is_open()) {
            (true, true) => out.extend(rows),
            (false, true) => out.extend(self.all()),
            (_, false) => {}
        }
    }

    fn all(&self) -> Option<Delta> {
        let rows = self.codec.as_ref()?.decode(self.rows.keys().map(|row| &row[..])).expect("what was encoded");
        Some(Delta::new(rows, self.rows.values().copied().collect::<Vec<_>>()))
    }
}

// Counts of a recursion that doubles may pass all that 64 bits hold; taken back they are 0 again.
fn count(counts: &mut HashMap<Bytes, i64>, deltas: &[Delta], codec: &mut Option<RowCodec>, usage: &Usage) {
    for delta in deltas {
        let codec = codec.get_or_insert_with(|| RowCodec::new(delta.rows.schema()).expect("the planner checked the types"));
        let rows = codec.encode(&delta.rows).expect("rows of one schema");
        for (row, &diff) in rows.iter().zip(delta.diffs.iter()) {
            let bytes = ENTRY_BYTES + row.len();
            let count = counts.entry_ref(row).or_insert_with(|| {
                usage.grow(bytes);
                0
            });
            *count = count.wrapping_add(diff);
            if *count == 0 {
                counts.remove(row);
                usage.shrink(bytes);
            }
        }
    }
}

// Timely moves the message out of the loop; the times inside it must follow. Rounds fold into
// their tick: what a later round takes back is netted at rest.
fn leave<'inner>(rows: Rows<'inner, Round>) -> timely::dataflow::Stream<'inner, Round, Vec<Timed<u64>>> {
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::generic::operator::Operator;
    rows.unary(Pipeline, "LeaveRounds", |_, _| {
        |input, output| {
            input.for_each(|cap, data| {
                let ticks = data.drain(..).map(|Timed { time, delta }| Timed { time: time.outer, delta });
                output.session(&cap).give_iterator(ticks);
            });
        }
    })
}

/// Rows from outside, in round 0.
pub fn enter<'outer, 'inner>(rows: Rows<'outer, u64>, inner: Scope<'inner, Round>) -> Rows<'inner, Round> {
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::Enter;
    use timely::dataflow::operators::generic::operator::Operator;
    rows.enter(inner).unary(Pipeline, "EnterRounds", |_, _| {
        |input, output| {
            input.for_each(|cap, data: &mut Vec<Timed<u64>>| {
                let rounds = data.drain(..).map(|Timed { time, delta }| Timed { time: Product::new(time, 0), delta });
                output.session(&cap).give_iterator(rounds);
            });
        }
    })
}

/// Both streams' rows.
pub fn union<'scope, T: Time>(left: Rows<'scope, T>, right: Rows<'scope, T>) -> Rows<'scope, T> {
    left.concat(right)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use timely::dataflow::operators::vec::ToStream;
    use timely::dataflow::operators::{Input, Inspect, Probe};

    use super::*;
    use crate::arrange::{Layout, arrange, rows_of};
    use crate::distinct::distinct_rounds;
    use crate::join::{RoundsPlan, join_rounds};
    use crate::usage::Usage;

    fn delta(rows: &[(i64, i64)]) -> Delta {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let rows_batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        Delta::new(rows_batch, rows.iter().map(|row| row.1).collect::<Vec<_>>())
    }

    fn step(gate: &mut Gate, rows: &[(i64, i64)], doubts: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut out = Vec::new();
        gate.step(vec![delta(rows)], &[delta(doubts)], &mut out);
        let pairs = out.iter().flat_map(|delta| delta.rows.column(0).as_primitive::<Int64Type>().values().iter().zip(delta.diffs.iter()));
        let mut pairs: Vec<(i64, i64)> = pairs.map(|(&row, &diff)| (row, diff)).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Edges with the tick at which they come (or, negative, go): what is reached from 0, and the errors, at each tick.
    fn reached(edges: Vec<(u64, i64, i64, i64)>, ticks: u64) -> Vec<(Vec<i64>, Vec<i64>)> {
        timely::execute_directly(move |worker| {
            let errors = Errors::default();
            let seen: Rc<RefCell<Vec<(i64, i64)>>> = Rc::default();
            let (told, failed) = (Rc::clone(&seen), errors.clone());
            let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, edges) = scope.new_input::<Vec<Timed<u64>>>();
                let layout = |columns: &[&str]| {
                    let fields: Vec<Field> = columns.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
                    Arc::new(Layout::new(Arc::new(Schema::new(fields)), &[0]))
                };
                let (from, nodes) = (layout(&["a", "b"]), layout(&["n"]));
                let edges = arrange(edges, Arc::clone(&from), true, "Edges", Usage::default());
                let rows = fixpoint(scope, failed, Usage::default(), |inner, relation| {
                    let start = Timed { time: Product::new(0, 0), delta: delta(&[(0, 1)]) };
                    let start = [start].to_stream(inner);
                    let here = arrange(relation, Arc::clone(&nodes), true, "Here", Usage::default());
                    let pair = Arc::new(Schema::new(["n", "a", "b"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
                    let plan = RoundsPlan { left: Arc::clone(&nodes), right: from, schema: pair };
                    let pairs = join_rounds(here, edges.enter(inner), plan);
                    let next = each(pairs, "To", |Timed { time, delta }, out| {
                        let rows = RecordBatch::try_from_iter([("n", Arc::clone(delta.rows.column(2)))]).unwrap();
                        out.push(Timed { time, delta: Delta::new(rows, &delta.diffs[..]) });
                    });
                    rows_of(distinct_rounds(start.concat(next), Arc::clone(&nodes), Usage::default()), nodes)
                });
                let rows = rows.inspect(move |Timed { delta, .. }| {
                    let column = delta.rows.column(0).as_primitive::<Int64Type>();
                    told.borrow_mut().extend(column.values().iter().copied().zip(delta.diffs.iter().copied()));
                });
                (input, rows.probe().0)
            });
            let mut net: BTreeMap<i64, i64> = BTreeMap::new();
            let at = |tick: u64| edges.iter().filter(move |edge| edge.0 == tick);
            let closed = (1..=ticks).map(|tick| {
                for &(_, a, b, diff) in at(tick) {
                    let columns: [(&str, ArrayRef); 2] =
                        [("a", Arc::new(Int64Array::from(vec![a]))), ("b", Arc::new(Int64Array::from(vec![b])))];
                    input.send(Timed { time: tick, delta: Delta::new(RecordBatch::try_from_iter(columns).unwrap(), [diff]) });
                }
                input.advance_to(tick + 1);
                while probe.less_than(&(tick + 1)) {
                    worker.step();
                }
                for (row, diff) in seen.take() {
                    *net.entry(row).or_default() += diff;
                }
                net.retain(|_, count| *count != 0);
                let failures = errors.take_through(tick).into_iter().map(|(_, diff)| diff).collect();
                (net.keys().copied().collect(), failures)
            });
            closed.collect()
        })
    }

    #[test]
    fn what_does_not_settle_has_no_rows() {
        let last = ROUNDS_MAX as i64 + 5;
        let chain = (0..last).map(|n| (2, n, n + 1, 1));
        let edges =
            [(1, 0, -1, 1), (1, -1, 0, 1)].into_iter().chain(chain).chain([(3, 7, 7, 1), (4, 3, 4, -1), (5, 3, 4, 1), (5, 0, last, 1)]);
        let answers = reached(edges.collect(), 5);
        assert_eq!(answers[0], (vec![-1, 0], vec![]));
        assert_eq!(answers[1], (vec![], vec![1]));
        assert_eq!(answers[2], (vec![], vec![]));
        assert_eq!(answers[3], ((-1..=3).collect(), vec![-1]));
        assert_eq!(answers[4], (vec![], vec![1]));
    }

    #[test]
    fn rows_go_with_the_first_doubt_and_come_back_with_the_last() {
        let mut gate = Gate::default();
        assert_eq!(step(&mut gate, &[(1, 1), (2, 3)], &[]), [(1, 1), (2, 3)]);
        assert_eq!(step(&mut gate, &[(3, 1)], &[(9, 1), (8, -1)]), [(1, -1), (2, -3)]);
        assert_eq!(step(&mut gate, &[(2, -3), (4, 1)], &[(9, -1)]), []);
        assert_eq!(step(&mut gate, &[(5, 1)], &[(8, 1)]), [(1, 1), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(step(&mut gate, &[(5, -1)], &[(8, 1), (8, -1)]), [(5, -1)]);
    }
}
