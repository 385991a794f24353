//! `scenario_downtime`: from when to when each node is down, in each of many scenarios.
//!
//! SQL     scenario_downtime(outages, groups, members, nodes, horizon => …)
//! In      (scenario, node, [start, end)) in which a node is down by itself; groups with a buffer, members
//!         with a delay and how long a node takes to restart, which all scenarios share
//! Out     (scenario, node, [start, end)): per scenario what `downtime` gives
//! State   what `what_if` keeps, and the arrangements of `downtime` with the groups and members of the nodes
//!         that a scenario reaches at all; freed only as rows are deleted
//! Errors  as in `downtime`; a scenario that does not settle has no rows, and the others have theirs
//! Source  what is down at any time fails in `reach`, so the cells in which it does are all there are

use super::what_if::what_if;
use crate::cascade::downtime::{Interval, downtime_parts};
use crate::cascade::{Gate, Id, Parts, Relation};
use crate::usage::Usage;

/// As [`downtime_parts`], where a node is one of a scenario.
pub fn scenario_downtime<'scope, S: Id, V: Id, G: Id>(
    outages: Relation<'scope, u64, ((S, V), Interval)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, i64))>,
    restarts: Relation<'scope, u64, (V, i64)>,
    horizon: i64,
    rounds_max: u64,
    usage: Usage,
) -> Parts<'scope, ((S, V), Vec<Interval>), S> {
    let plain = members.clone().map(|(node, (group, _))| (node, group));
    let reached = what_if(outages.clone().map(|(cell, _)| cell), gates.clone(), plain, usage);
    let reached = reached.map(|(scenario, node)| (node, scenario)).arrange_by_key_named("Reached");
    let gates = gates.map(|(group, gate)| (gate.node.clone(), (group, gate))).arrange_by_key_named("GatesByNode");
    let gates = reached.clone().join_core(gates, |node, scenario, (group, gate)| {
        let Gate { need, failures, buffer_ms, .. } = *gate;
        Some(((scenario.clone(), group.clone()), Gate { node: (scenario.clone(), node.clone()), need, failures, buffer_ms }))
    });
    let members = members.arrange_by_key_named("MembersByNode");
    let members = reached.clone().join_core(members, |node, scenario, (group, delay_ms)| {
        Some(((scenario.clone(), node.clone()), ((scenario.clone(), group.clone()), *delay_ms)))
    });
    let restarts = restarts.arrange_by_key_named("Restarts");
    let restarts = reached.join_core(restarts, |node, scenario, restart_ms| Some(((scenario.clone(), node.clone()), *restart_ms)));
    downtime_parts(outages, gates, members, restarts, horizon, rounds_max, |(scenario, _)| scenario.clone())
}
