//! What the keyed operators outside recursion share: whole ticks in order.
//!
//! Ticks are totally ordered, so an operator may keep plain state and step it from
//! tick to tick. It sees each tick once, closed, with all of the tick's deltas; what waits
//! for that counts in the dataflow's usage.

use std::collections::BTreeMap;

use arrow::array::Array;
use tidegate_types::{Delta, Tick};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::frontier::MutableAntichain;

use crate::stream::{Rows, Timed};
use crate::usage::Usage;

/// A tick that is not through yet: its deltas by input, and what they take.
struct Open<const INPUTS: usize> {
    capability: Capability<Tick>,
    deltas: [Vec<Delta>; INPUTS],
    bytes: usize,
}

impl<const INPUTS: usize> Open<INPUTS> {
    fn new(capability: Capability<Tick>) -> Self {
        Self { capability, deltas: [const { Vec::new() }; INPUTS], bytes: 0 }
    }

    fn add(&mut self, input: usize, delta: Delta, usage: &Usage) {
        let bytes = bytes(&delta);
        usage.arrive(bytes);
        self.bytes += bytes;
        self.deltas[input].push(delta);
    }
}

/// What the rows take by themselves: those of a slice without the rest of its buffers.
fn bytes(delta: &Delta) -> usize {
    let column = |column: &arrow::array::ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default();
    delta.rows.columns().iter().map(column).sum::<usize>() + size_of::<i64>() * delta.len()
}

/// Calls `step(tick, deltas, out, frontier)` for each tick that brought rows, once it is
/// closed, in order. What `step` pushes to `out` takes effect at that tick.
/// `first` takes effect at tick 0, before anything arrives.
pub fn by_tick<'scope>(
    rows: Rows<'scope, u64>,
    name: &'static str,
    first: Option<Delta>,
    usage: Usage,
    mut step: impl FnMut(Tick, Vec<Delta>, &mut Vec<Delta>, Tick) + 'static,
) -> Rows<'scope, u64> {
    rows.unary_frontier(Pipeline, name, move |capability, _| {
        let mut first = first.map(|delta| (capability, delta));
        let mut open: BTreeMap<Tick, Open<1>> = BTreeMap::new();
        let mut out = Vec::new();
        move |(input, frontier), output| {
            if let Some((capability, delta)) = first.take() {
                output.session(&capability).give(Timed { time: 0, delta });
            }
            input.for_each(|cap, data| {
                for Timed { time, delta } in data.drain(..) {
                    open.entry(time).or_insert_with(|| Open::new(cap.delayed(&time, 0))).add(0, delta, &usage);
                }
            });
            let closed_before = frontier.frontier().first().copied().unwrap_or(Tick::MAX);
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let (tick, Open { capability, deltas: [deltas], bytes }) = entry.remove_entry();
                step(tick, deltas, &mut out, closed_before);
                usage.pass(bytes);
                out.retain(|delta| !delta.is_empty());
                if !out.is_empty() {
                    let timed = out.drain(..).map(|delta| Timed { time: tick, delta });
                    output.session(&capability).give_iterator(timed);
                }
            }
        }
    })
}

/// As [`by_tick`], of two inputs: `step(tick, [left, right], out)` for each tick that brought rows
/// on either. A step takes out of left and right what it is through with; where it leaves some, it
/// is called again once whoever is behind it had a turn.
pub fn by_tick_of_two<'scope>(
    left: Rows<'scope, u64>,
    right: Rows<'scope, u64>,
    name: &'static str,
    usage: Usage,
    mut step: impl FnMut(Tick, &mut [Vec<Delta>; 2], &mut Vec<Delta>) + 'static,
) -> Rows<'scope, u64> {
    let scope = left.scope();
    left.binary_frontier(right, Pipeline, Pipeline, name, move |_, info| {
        let activator = scope.activator_for(info.address);
        let mut open: BTreeMap<Tick, Open<2>> = BTreeMap::new();
        let mut out = Vec::new();
        move |(left, left_frontier), (right, right_frontier), output| {
            left.for_each(|cap, data| {
                for Timed { time, delta } in data.drain(..) {
                    open.entry(time).or_insert_with(|| Open::new(cap.delayed(&time, 0))).add(0, delta, &usage);
                }
            });
            right.for_each(|cap, data| {
                for Timed { time, delta } in data.drain(..) {
                    open.entry(time).or_insert_with(|| Open::new(cap.delayed(&time, 0))).add(1, delta, &usage);
                }
            });
            let first = |frontier: &MutableAntichain<Tick>| frontier.frontier().first().copied().unwrap_or(Tick::MAX);
            let closed_before = first(left_frontier).min(first(right_frontier));
            while let Some(mut entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let tick = *entry.key();
                let Open { capability, deltas, bytes } = entry.get_mut();
                step(tick, deltas, &mut out);
                out.retain(|delta| !delta.is_empty());
                if !out.is_empty() {
                    let timed = out.drain(..).map(|delta| Timed { time: tick, delta });
                    output.session(&capability).give_iterator(timed);
                }
                if deltas.iter().any(|deltas| !deltas.is_empty()) {
                    return activator.activate();
                }
                usage.pass(*bytes);
                entry.remove();
            }
        }
    })
}
