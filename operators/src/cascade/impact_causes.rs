//! `impact_causes`: why each node fails when it does.
//!
//! SQL     impact_causes(outages, groups, members)
//! In      what `time_to_impact` gives, and what it is given
//! Out     per node one row for its own outage, or one per failed member of the group through which it
//!         fails first, as many as are too many; the last of them is critical. The critical rows lead
//!         from each node to an outage: each cause has fewer hops or is earlier, on cycles too
//! State   members and groups by key, and what each group says; freed only as rows are deleted
//! Errors  as in `cascade`
//! Source  a minimal proof tree of the least fixpoint

use serde::{Deserialize, Serialize};

use super::time_to_impact::Impact;
use super::{Gate, Id, Relation, reduced};

/// One reason why a node fails at `at`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cause<V, G> {
    pub at: i64,
    pub hops: i64,
    /// The group, and its member; None: its own outage.
    pub through: Option<(G, V)>,
    pub is_critical: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part<V> {
    Gate(Gate<V>),
    Member(Impact, V),
}

/// Why a node fails, in the order of preference: early, near, and then by the group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Reason<V, G> {
    impact: Impact,
    group: Option<G>,
    members: Vec<V>,
}

/// `impacts`: what [`super::time_to_impact::time_to_impact`] gives. `members`: (node, (group, delay_ms)).
pub fn impact_causes<'scope, V: Id, G: Id>(
    outages: Relation<'scope, u64, (V, i64)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, i64))>,
    impacts: Relation<'scope, u64, (V, Impact)>,
) -> Relation<'scope, u64, (V, Cause<V, G>)> {
    let failing = impacts
        .clone()
        .join_map(members, |node, impact, (group, delay_ms)| (group.clone(), Part::Member(impact.later(*delay_ms), node.clone())));
    let parts = gates.map(|(group, gate)| (group, Part::Gate(gate))).concat(failing);
    let reasons = reduced(parts, "Reasons", |group, parts, out| out.extend(reason(group, parts).map(|reason| (reason, 1))));
    let own = outages.map(|(node, at)| (node, Reason { impact: Impact::own(at), group: None, members: Vec::new() }));
    // An outage of a node that the loop does not settle for is no reason yet.
    let own = own.semijoin(impacts.map(|(node, _)| node));
    let all = reasons.as_collection(|_, (node, reason)| (node.clone(), reason.clone())).concat(own);
    let first = reduced(all, "Causes", |_, reasons, out| out.extend(causes(reasons[0].0).into_iter().map(|cause| (cause, 1))));
    first.as_collection(|node, cause| (node.clone(), cause.clone()))
}

/// The rule: as many members as are too many, the first ones.
fn reason<V: Id, G: Id>(group: &G, parts: &[(&Part<V>, i64)]) -> Option<(V, Reason<V, G>)> {
    let [(Part::Gate(gate), _), rest @ ..] = parts else { return None };
    let (mut members, mut passed) = (Vec::new(), 0);
    for (part, count) in rest {
        let Part::Member(impact, member) = part else { continue };
        members.push(member.clone());
        passed += count;
        if gate.failures <= passed {
            let impact = impact.through(gate.buffer_ms);
            return Some((gate.node.clone(), Reason { impact, group: Some(group.clone()), members }));
        }
    }
    None
}

fn causes<V: Id, G: Id>(reason: &Reason<V, G>) -> Vec<Cause<V, G>> {
    let Impact { at, hops, .. } = reason.impact;
    let Some(group) = &reason.group else { return vec![Cause { at, hops, through: None, is_critical: true }] };
    let (last, others) = reason.members.split_last().expect("a group fails by a member");
    let through = |member: &V| Some((group.clone(), member.clone()));
    // A member that is listed twice is one cause.
    let mut others: Vec<&V> = others.iter().filter(|other| *other != last).collect();
    others.sort();
    others.dedup();
    let others = others.into_iter().map(|member| Cause { at, hops, through: through(member), is_critical: false });
    others.chain([Cause { at, hops, through: through(last), is_critical: true }]).collect()
}
