//! `reach`: what fails, and what can start again.
//!
//! SQL     reach(outages, groups, members); restoration_order(outages, groups, members)
//! In      nodes that fail by themselves, each repairable or not; groups; members
//! Out     `reach`: (node), the least set with them and every node of a group with too many failed
//!         members. `restoration_order`: (node, step) of what is reached: at step n a node can start
//!         whose own outage is repaired and whose groups each have enough members up, what was not
//!         reached and what started before step n among them. None: never, as a cycle waits for itself
//! State   the arrangements of the loops, by tick and round; freed only as rows are deleted
//! Errors  as in `cascade`
//! Source  least fixpoints of dual operators: "failed" as the least one lets a cycle start up by
//!         itself, "up" as the least one does not

use serde::{Deserialize, Serialize};

use super::{Gate, Id, Relation, Settled, nth, reduced, settle};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part<V> {
    Gate(Gate<V>),
    /// A member fails.
    Member,
}

/// `members`: (node, group). The nodes that fail, each once.
pub fn reach<'scope, V: Id, G: Id>(
    outages: Relation<'scope, u64, V>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, G)>,
    rounds_max: u64,
) -> Settled<'scope, V, G> {
    let scope = outages.inner.scope();
    let outages = outages.map(|node| (node, ()));
    let gates = gates.map(|(group, gate)| (group, Part::Gate(gate)));
    let members = members.arrange_by_key_named("Members");
    settle(scope, "Reach", rounds_max, |inner, failed| {
        let failed = reduced(outages.enter(inner).concat(failed), "Failed", |_, _, out| out.push(((), 1)));
        let failing = failed.clone().join_core(members.enter(inner), |_, (), group| Some((group.clone(), Part::Member)));
        let next = reduced(gates.enter(inner).concat(failing), "Groups", |_, parts, out| out.extend(fails(parts).map(|node| (node, 1))));
        (failed.as_collection(|node, ()| node.clone()), next.as_collection(|_, node| (node.clone(), ())))
    })
}

/// The rule: a group's node fails once too many members have.
fn fails<V: Id>(parts: &[(&Part<V>, i64)]) -> Option<V> {
    let [(Part::Gate(gate), _), members @ ..] = parts else { return None };
    nth(members.iter().copied(), gate.failures).map(|_| gate.node.clone())
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Start<V> {
    Gate(Gate<V>),
    /// A member is up from this step on.
    Up(i64),
}

/// What a node that is down waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Wait {
    /// It is down.
    Down,
    /// Its own outage is not repaired.
    Repair,
    /// A group has to have enough members up.
    Group,
    /// One has, from this step on.
    Ready(i64),
}

/// `outages`: (node, whether it can be repaired). `failed`: what [`reach`] gives for them.
pub fn restoration_order<'scope, V: Id, G: Id>(
    outages: Relation<'scope, u64, (V, bool)>,
    failed: Relation<'scope, u64, V>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, G)>,
    rounds_max: u64,
) -> Settled<'scope, (V, Option<i64>), G> {
    let scope = outages.inner.scope();
    let down = failed.clone().map(|node| (node, ()));
    // Only the groups of what is down are waited for.
    let by_node = gates.map(|(group, gate)| (gate.node.clone(), (group, gate)));
    let awaited = by_node.join_map(down.clone(), |_, (group, gate), ()| (group.clone(), gate.clone()));
    let by_group = members.map(|(node, group)| (group, node));
    let members = by_group.join_map(awaited.clone(), |group, node, _| (node.clone(), group.clone()));
    let up = members.clone().antijoin(failed.clone()).map(|(_, group)| (group, Start::Up(0)));
    let groups = awaited.clone().map(|(group, gate)| (group, Start::Gate(gate))).concat(up);
    let waits = down
        .map(|(node, ())| (node, Wait::Down))
        .concat(outages.flat_map(|(node, is_repairable)| (!is_repairable).then_some((node, Wait::Repair))))
        .concat(awaited.map(|(_, gate)| (gate.node, Wait::Group)));
    let members = members.arrange_by_key_named("Members");
    let started = settle(scope, "RestorationOrder", rounds_max, |inner, ready| {
        let started = reduced(waits.enter(inner).concat(ready), "Started", |_, waits, out| out.extend(step(waits).map(|step| (step, 1))));
        let up = started.clone().join_core(members.enter(inner), |_, &step, group| Some((group.clone(), Start::Up(step))));
        let next = reduced(groups.enter(inner).concat(up), "Ready", |_, parts, out| out.extend(ready_at(parts).map(|ready| (ready, 1))));
        (
            started.as_collection(|node, step| (node.clone(), *step)),
            next.as_collection(|_, (node, step)| (node.clone(), Wait::Ready(*step))),
        )
    });
    let never = failed.map(|node| (node, None)).antijoin(started.rows.clone().map(|(node, _)| node));
    Settled { rows: started.rows.map(|(node, step)| (node, Some(step))).concat(never), flaws: started.flaws }
}

/// A node starts a step after the last of its groups has enough.
fn step(waits: &[(&Wait, i64)]) -> Option<i64> {
    let [(Wait::Down, _), rest @ ..] = waits else { return None };
    let groups: i64 = rest.iter().filter(|(wait, _)| matches!(wait, Wait::Group)).map(|(_, count)| count).sum();
    let ready = rest.iter().filter_map(|(wait, count)| if let Wait::Ready(step) = wait { Some((*step, *count)) } else { None });
    let (last, ready) = ready.fold((0, 0), |(last, sum), (step, count)| (step.max(last), sum + count));
    let is_repaired = !rest.iter().any(|(wait, _)| matches!(wait, Wait::Repair));
    (is_repaired && ready == groups).then_some(last + 1)
}

/// A group has enough with the `need`-th of its members.
fn ready_at<V: Id>(parts: &[(&Start<V>, i64)]) -> Option<(V, i64)> {
    let [(Start::Gate(gate), _), members @ ..] = parts else { return None };
    match nth(members.iter().copied(), gate.need)? {
        Start::Up(step) => Some((gate.node.clone(), *step)),
        Start::Gate(_) => None,
    }
}
