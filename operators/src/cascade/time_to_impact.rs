//! `time_to_impact`: when each node fails at the earliest, and through how many groups.
//!
//! SQL     time_to_impact(outages, groups, members)
//! In      (node, time) it fails by itself; groups with a buffer; members with a delay
//! Out     (node, time, hops): T(v) = min(own, min over groups of buffer + the time at which too many
//!         members have failed, each `delay` after it did); of equal times the one with fewest hops
//! Order   early impacts go round first: one waits for the round that the time since its outage began is
//!         given, so that as a rule a node's first value is its last, and a changed edge changes few
//! State   the arrangements of the loop, by tick and round; freed only as rows are deleted
//! Errors  as in `cascade`
//! Source  Knuth, A Generalization of Dijkstra's Algorithm, IPL 1977: the k-th smallest is superior

use differential_dataflow::AsCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Map;

use super::{Gate, Id, Relation, Round, Settled, nth, reduced, settle};

/// When a node fails, and through how many groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Impact {
    pub at: i64,
    pub hops: i64,
    /// When the outage began that it comes from.
    pub since: i64,
}

impl Impact {
    /// Of a node that fails by itself.
    pub fn own(at: i64) -> Self {
        Self { at, hops: 0, since: at }
    }

    /// A member's failure, as its group sees it.
    pub fn later(self, delay_ms: i64) -> Self {
        Self { at: self.at + delay_ms, ..self }
    }

    /// The failure of a group's node, of which this is the last member.
    pub fn through(self, buffer_ms: i64) -> Self {
        Self { at: self.at + buffer_ms, hops: self.hops + 1, ..self }
    }
}

/// Rounds that are given to the times since an outage: so many to each doubling.
const ROUNDS_PER_DOUBLING: u64 = 32;
const ROUNDS_OF_TIMES: u64 = 64 * ROUNDS_PER_DOUBLING;

/// The first round for what is `elapsed` behind its outage: another one every 3 %.
fn round(elapsed: i64) -> u64 {
    let elapsed = elapsed.max(0).unsigned_abs() + ROUNDS_PER_DOUBLING;
    let doublings = u64::from(elapsed.ilog2() - ROUNDS_PER_DOUBLING.ilog2());
    doublings * ROUNDS_PER_DOUBLING + (elapsed >> doublings) - ROUNDS_PER_DOUBLING
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part<V> {
    Gate(Gate<V>),
    /// A member fails.
    Member(Impact),
}

/// `members`: (node, (group, delay_ms)).
pub fn time_to_impact<'scope, V: Id, G: Id>(
    outages: Relation<'scope, u64, (V, i64)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, i64))>,
    rounds_max: u64,
) -> Settled<'scope, (V, Impact), G> {
    let scope = outages.inner.scope();
    let outages = outages.map(|(node, at)| (node, Impact::own(at)));
    let gates = gates.map(|(group, gate)| (group, Part::Gate(gate)));
    let members = members.arrange_by_key_named("Members");
    settle(scope, "TimeToImpact", ROUNDS_OF_TIMES + rounds_max, |inner, impacts| {
        let first = reduced(outages.enter(inner).concat(impacts), "First", |_, impacts, out| out.push((*impacts[0].0, 1)));
        let failing = first
            .clone()
            .join_core(members.enter(inner), |_, impact, (group, delay_ms)| Some((group.clone(), Part::Member(impact.later(*delay_ms)))));
        let next =
            reduced(gates.enter(inner).concat(failing), "Groups", |_, parts, out| out.extend(impact(parts).map(|impact| (impact, 1))));
        (first.as_collection(|node, impact| (node.clone(), *impact)), in_order(next.as_collection(|_, impact| impact.clone())))
    })
}

/// Impacts, none before its round.
fn in_order<V: Id>(impacts: Relation<'_, Round, (V, Impact)>) -> Relation<'_, Round, (V, Impact)> {
    let waiting = impacts.inner.map(|((node, impact), mut time, diff)| {
        time.inner = time.inner.max(round(impact.at - impact.since));
        ((node, impact), time, diff)
    });
    waiting.as_collection()
}

/// The rule: a group's node fails with the last of as many members as are too many.
fn impact<V: Id>(parts: &[(&Part<V>, i64)]) -> Option<(V, Impact)> {
    let [(Part::Gate(gate), _), members @ ..] = parts else { return None };
    let Part::Member(last) = nth(members.iter().copied(), gate.failures)? else { return None };
    Some((gate.node.clone(), last.through(gate.buffer_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_times_have_later_rounds_of_which_there_are_so_many() {
        let times = (0..10_000).chain((14..62).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
        let rounds: Vec<u64> = times.chain([i64::MAX]).map(round).collect();
        assert!(rounds.is_sorted());
        assert_eq!((rounds[0], rounds[31], rounds[32], rounds[96]), (0, 31, 32, 64));
        assert!(*rounds.last().unwrap() < ROUNDS_OF_TIMES);
    }
}
