//! `impact`: what failures cost, for every scenario at once, and which counter-measures are worth their price.
//!
//! SQL     `what_if`, `blast_radius`, `scenario_downtime`, `inoperability`, `sensitivity` and
//!         `choose_controls` in FROM
//! In      the dependency graph of `cascade`, scenarios, losses; linear dependencies; controls and what they cover
//! Out     one rule per file; losses per organisation, ratios and rankings of these are SQL: queries/library/impact
//! State   as each rule says; freed only as rows are deleted
//! Errors  as in `cascade`
//! Source  as each rule says

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, Data};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::cascade::{Id, Relation};
use crate::usage::{ENTRY_BYTES, Usage};

pub mod controls;
pub mod inoperability;
pub mod scenario_downtime;
pub mod scenarios;
pub mod what_if;

/// Of an amount, such as a loss, so many parts are told apart.
pub const UNITS_PER_AMOUNT: f64 = 1e6;
/// The greatest amount: a thousand billion, of which eight million add up in 64 bits.
pub const AMOUNT_MAX: f64 = 1e12;

/// As an integer, so that what is added can be taken away again exactly. `amount`: up to [`AMOUNT_MAX`] either way.
pub fn units(amount: f64) -> i64 {
    (amount * UNITS_PER_AMOUNT).round() as i64
}

/// Hands all rows there are, with their counts, to `answer` in each tick that changes any, and tells
/// what changed of its rows. For answers that are about all rows, so one worker has them.
fn anew<'scope, D: Id, R: Data + Ord + Clone>(
    changes: Relation<'scope, u64, D>,
    name: &str,
    usage: Usage,
    answer: impl Fn(&BTreeMap<D, i64>) -> BTreeSet<R> + 'static,
) -> Relation<'scope, u64, R> {
    let (mut all, mut said) = (BTreeMap::new(), BTreeSet::new());
    by_tick(changes.inner.exchange(|_| 0).as_collection(), name, move |changes| {
        let (rows, results) = (all.len(), said.len());
        for (row, diff) in changes {
            let count = all.entry(row.clone()).or_insert(0);
            *count += diff;
            if *count == 0 {
                all.remove(&row);
            }
        }
        let before = mem::replace(&mut said, answer(&all));
        let bytes = |rows, results| rows * (ENTRY_BYTES + size_of::<D>()) + results * (ENTRY_BYTES + size_of::<R>());
        usage.resize(bytes(rows, results), bytes(all.len(), said.len()));
        let gone = before.difference(&said).map(|row| (row.clone(), -1));
        gone.chain(said.difference(&before).map(|row| (row.clone(), 1))).collect()
    })
}

/// Hands what arrives at a worker to `step`: closed ticks, in order, each with its net changes.
fn by_tick<'scope, D: Id, R: Data>(
    changes: Relation<'scope, u64, D>,
    name: &str,
    mut step: impl FnMut(Vec<(D, i64)>) -> Vec<(R, i64)> + 'static,
) -> Relation<'scope, u64, R> {
    let stepped = changes.inner.unary_frontier(Pipeline, name, move |_, _| {
        let mut open = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|cap, data| {
                for (row, tick, diff) in data.drain(..) {
                    open.entry(tick).or_insert_with(|| (cap.delayed(&tick, 0), Vec::new())).1.push((row, diff));
                }
            });
            let closed_before = frontier.frontier().first().copied().unwrap_or(u64::MAX);
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let (tick, (capability, mut changes)) = entry.remove_entry();
                consolidate(&mut changes);
                let rows = step(changes);
                output.session(&capability).give_iterator(rows.into_iter().map(|(row, diff)| (row, tick, diff)));
            }
        }
    });
    stepped.as_collection()
}
