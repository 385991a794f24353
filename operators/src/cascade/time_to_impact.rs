//! `time_to_impact`: when each node fails at the earliest, and through how many groups.
//!
//! SQL     time_to_impact(outages, groups, members)
//! In      (node, time) it fails by itself; groups with a buffer; members with a delay
//! Out     (node, time, hops): T(v) = min(own, min over groups of buffer + the time at which too many
//!         members have failed, each `delay` after it did); of equal times the one with fewest hops
//! State   the arrangements of the loop, by tick and round; freed only as rows are deleted
//! Errors  as in `cascade`
//! Source  Knuth, A Generalization of Dijkstra's Algorithm, IPL 1977: the k-th smallest is superior

use serde::{Deserialize, Serialize};

use super::{Gate, Id, Relation, Settled, nth, reduced, settle};

/// When a node fails, and through how many groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Impact {
    pub at: i64,
    pub hops: i64,
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
    let outages = outages.map(|(node, at)| (node, Impact { at, hops: 0 }));
    let gates = gates.map(|(group, gate)| (group, Part::Gate(gate)));
    let members = members.arrange_by_key_named("Members");
    settle(scope, "TimeToImpact", rounds_max, |inner, impacts| {
        let first = reduced(outages.enter(inner).concat(impacts), "First", |_, impacts, out| out.push((*impacts[0].0, 1)));
        let failing = first.clone().join_core(members.enter(inner), |_, impact, (group, delay_ms)| {
            Some((group.clone(), Part::Member(Impact { at: impact.at + delay_ms, ..*impact })))
        });
        let next =
            reduced(gates.enter(inner).concat(failing), "Groups", |_, parts, out| out.extend(impact(parts).map(|impact| (impact, 1))));
        (first.as_collection(|node, impact| (node.clone(), *impact)), next.as_collection(|_, impact| impact.clone()))
    })
}

/// The rule: a group's node fails with the last of as many members as are too many.
fn impact<V: Id>(parts: &[(&Part<V>, i64)]) -> Option<(V, Impact)> {
    let [(Part::Gate(gate), _), members @ ..] = parts else { return None };
    let Part::Member(last) = nth(members.iter().copied(), gate.failures)? else { return None };
    Some((gate.node.clone(), Impact { at: last.at + gate.buffer_ms, hops: last.hops + 1 }))
}
