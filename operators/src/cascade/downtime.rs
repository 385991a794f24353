//! `downtime`: from when to when each node is down.
//!
//! SQL     downtime(outages, groups, members, nodes, horizon => …)
//! In      [start, end) in which a node is down by itself; groups with a buffer; members with a delay;
//!         how long a node takes to restart
//! Out     (node, [start, end)), apart from each other, cut at the horizon: D(v) = own(v) and, per group,
//!         the time in which too many members are down, each `delay` later, without the first `buffer`
//!         of it; each of these longer by `restart`
//! State   the arrangements of the loop, by tick and round; freed only as rows are deleted
//! Errors  as in `cascade`. Nodes that keep each other down settle only at the horizon, in as many rounds
//!         as restarts fit before it
//! Source  union, threshold, erosion and dilation are monotone: Serra, Image Analysis and
//!         Mathematical Morphology, 1982

use serde::{Deserialize, Serialize};

use super::{Gate, Id, Relation, Settled, reduced, settle};

/// Half-open; a list of them is in order, and no two touch.
pub type Interval = (i64, i64);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part<V> {
    Gate(Gate<V>),
    /// When a member is down.
    Member(Vec<Interval>),
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Fact {
    RestartMs(i64),
    Down(Vec<Interval>),
}

/// `members`: (node, (group, delay_ms)); `restarts`: (node, restart_ms), the longest counts.
pub fn downtime<'scope, V: Id, G: Id>(
    outages: Relation<'scope, u64, (V, Interval)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, i64))>,
    restarts: Relation<'scope, u64, (V, i64)>,
    horizon: i64,
    rounds_max: u64,
) -> Settled<'scope, (V, Vec<Interval>), G> {
    let scope = outages.inner.scope();
    let facts = outages
        .map(|(node, interval)| (node, Fact::Down(vec![interval])))
        .concat(restarts.map(|(node, restart_ms)| (node, Fact::RestartMs(restart_ms))));
    let gates = gates.map(|(group, gate)| (group, Part::Gate(gate)));
    let members = members.arrange_by_key_named("Members");
    settle(scope, "Downtime", rounds_max, |inner, next| {
        let down = reduced(facts.enter(inner).concat(next), "Down", move |_, facts, out| {
            let down = down(facts, horizon);
            out.extend((!down.is_empty()).then_some((down, 1)));
        });
        let failing = down.clone().join_core(members.enter(inner), |_, down, (group, delay_ms)| {
            let later = down.iter().map(|(start, end)| (start + delay_ms, end + delay_ms)).collect();
            Some((group.clone(), Part::Member(later)))
        });
        let next =
            reduced(gates.enter(inner).concat(failing), "Groups", |_, parts, out| out.extend(lacking(parts).map(|lacking| (lacking, 1))));
        let next = next.as_collection(|_, (node, lacking)| (node.clone(), Fact::Down(lacking.clone())));
        (down.as_collection(|node, down| (node.clone(), down.clone())), next)
    })
}

/// The rule for a node: all it is down for, restarted after each, up to the horizon.
fn down(facts: &[(&Fact, i64)], horizon: i64) -> Vec<Interval> {
    let restart_ms = facts.iter().filter_map(|(fact, _)| if let Fact::RestartMs(ms) = fact { Some(*ms) } else { None }).max().unwrap_or(0);
    let intervals = facts.iter().flat_map(|(fact, _)| if let Fact::Down(down) = fact { &down[..] } else { &[] });
    let longer = intervals.filter(|(start, end)| start < end).map(|(start, end)| (*start, end + restart_ms));
    let cut = longer.map(|(start, end)| (start, horizon.min(end)));
    united(cut.filter(|(start, end)| start < end).collect())
}

/// The rule for a group: when too many members are down for longer than its buffer.
fn lacking<V: Id>(parts: &[(&Part<V>, i64)]) -> Option<(V, Vec<Interval>)> {
    let [(Part::Gate(gate), _), rest @ ..] = parts else { return None };
    let mut edges: Vec<(i64, i64)> = Vec::new();
    for (part, count) in rest {
        let Part::Member(down) = part else { continue };
        edges.extend(down.iter().flat_map(|(start, end)| [(*start, *count), (*end, -*count)]));
    }
    let lacking: Vec<Interval> = crowded(edges, gate.failures)
        .into_iter()
        .map(|(start, end)| (start + gate.buffer_ms, end))
        .filter(|(start, end)| start < end)
        .collect();
    (!lacking.is_empty()).then(|| (gate.node.clone(), lacking))
}

/// Where at least `enough` are there at once. `edges`: a time, and how many come or go.
fn crowded(mut edges: Vec<(i64, i64)>, enough: i64) -> Vec<Interval> {
    edges.sort_unstable();
    let (mut found, mut there, mut since) = (Vec::new(), 0, None);
    for at_once in edges.chunk_by(|(time, _), (other, _)| time == other) {
        let time = at_once[0].0;
        there += at_once.iter().map(|(_, change)| change).sum::<i64>();
        match since {
            None if enough <= there => since = Some(time),
            Some(start) if there < enough => {
                found.push((start, time));
                since = None;
            }
            _ => {}
        }
    }
    found
}

/// The same time, as few intervals as can be.
fn united(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_unstable();
    let mut united: Vec<Interval> = Vec::with_capacity(intervals.len());
    for (start, end) in intervals {
        match united.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => united.push((start, end)),
        }
    }
    united
}
