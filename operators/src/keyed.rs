//! What the keyed operators outside recursion share: whole ticks in order.
//!
//! Ticks are totally ordered, so an operator may keep plain state and step it from
//! tick to tick. It sees each tick once, closed, with all of the tick's deltas.

use std::collections::BTreeMap;

use tidegate_types::{Delta, Tick};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::frontier::MutableAntichain;

use crate::stream::{Rows, Timed};

/// Calls `step(tick, deltas, out, frontier)` for each tick that brought rows, once it is
/// closed, in order. What `step` pushes to `out` takes effect at that tick.
/// `first` takes effect at tick 0, before anything arrives.
pub fn by_tick<'scope>(
    rows: Rows<'scope, u64>,
    name: &'static str,
    first: Option<Delta>,
    mut step: impl FnMut(Tick, Vec<Delta>, &mut Vec<Delta>, Tick) + 'static,
) -> Rows<'scope, u64> {
    rows.unary_frontier(Pipeline, name, move |capability, _| {
        let mut first = first.map(|delta| (capability, delta));
        let mut open = BTreeMap::new();
        let mut out = Vec::new();
        move |(input, frontier), output| {
            if let Some((capability, delta)) = first.take() {
                output.session(&capability).give(Timed { time: 0, delta });
            }
            input.for_each(|cap, data| {
                for Timed { time, delta } in data.drain(..) {
                    let entry = open.entry(time).or_insert_with(|| (cap.delayed(&time, 0), Vec::new()));
                    entry.1.push(delta);
                }
            });
            let closed_before = frontier.frontier().first().copied().unwrap_or(Tick::MAX);
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let (tick, (capability, deltas)) = entry.remove_entry();
                step(tick, deltas, &mut out, closed_before);
                out.retain(|delta| !delta.is_empty());
                if !out.is_empty() {
                    let timed = out.drain(..).map(|delta| Timed { time: tick, delta });
                    output.session(&capability).give_iterator(timed);
                }
            }
        }
    })
}

/// As [`by_tick`], of two inputs: `step(tick, left, right, out)` for each tick that brought rows
/// on either.
pub fn by_tick_of_two<'scope>(
    left: Rows<'scope, u64>,
    right: Rows<'scope, u64>,
    name: &'static str,
    mut step: impl FnMut(Tick, Vec<Delta>, Vec<Delta>, &mut Vec<Delta>) + 'static,
) -> Rows<'scope, u64> {
    left.binary_frontier(right, Pipeline, Pipeline, name, move |_, _| {
        let mut open = BTreeMap::new();
        let mut out = Vec::new();
        move |(left, left_frontier), (right, right_frontier), output| {
            left.for_each(|cap, data| {
                for Timed { time, delta } in data.drain(..) {
                    open.entry(time).or_insert_with(|| (cap.delayed(&time, 0), [Vec::new(), Vec::new()])).1[0].push(delta);
                }
            });
            right.for_each(|cap, data| {
                for Timed { time, delta } in data.drain(..) {
                    open.entry(time).or_insert_with(|| (cap.delayed(&time, 0), [Vec::new(), Vec::new()])).1[1].push(delta);
                }
            });
            let first = |frontier: &MutableAntichain<Tick>| frontier.frontier().first().copied().unwrap_or(Tick::MAX);
            let closed_before = first(left_frontier).min(first(right_frontier));
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let (tick, (capability, [left, right])) = entry.remove_entry();
                step(tick, left, right, &mut out);
                out.retain(|delta| !delta.is_empty());
                if !out.is_empty() {
                    let timed = out.drain(..).map(|delta| Timed { time: tick, delta });
                    output.session(&capability).give_iterator(timed);
                }
            }
        }
    })
}
