//! `what_if`: what each of many scenarios takes with it, all at once.
//!
//! SQL     what_if(scenarios, groups, members); blast_radius(scenarios, groups, members, losses)
//! In      (scenario, node that fails in it): an asset each, or several; groups; members; what it costs
//!         that a node fails
//! Out     `what_if`: (scenario, node that fails). `blast_radius`: (scenario, how many nodes fail, and
//!         the sum of their losses). Per scenario what `reach` gives
//! State   per worker the graph, and for its share of the scenarios 128 bytes per node and 1,024 of them,
//!         where the node fails in any; freed only as rows are deleted
//! Errors  as in `cascade`
//! Source  bit-parallel least fixpoints. Scenarios do not meet, so each worker has some of them and
//!         nothing is exchanged within the loop

use std::collections::BTreeMap;
use std::mem;

use differential_dataflow::{AsCollection, Hashable};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::vec::Broadcast;

use super::by_tick;
use super::scenarios::{Change, Flip, Scenarios, WIDTH, ones};
use crate::cascade::lanes::{Lanes, NONE, either};
use crate::cascade::{Gate, Id, Relation};
use crate::usage::Usage;

/// What a scenario takes with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Radius {
    pub nodes: i64,
    /// In units of an amount.
    pub loss: i128,
}

/// `members`: (node, group).
pub fn what_if<'scope, S: Id, V: Id, G: Id>(
    scenarios: Relation<'scope, u64, (S, V)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, G)>,
    usage: Usage,
) -> Relation<'scope, u64, (S, V)> {
    let mut all = Scenarios::default();
    by_tick(shared(scenarios, gates, members), "WhatIf", move |changes| {
        let before = all.bytes();
        let flips = all.step(&changes);
        usage.resize(before, all.bytes());
        let rows = flips.iter().flat_map(|flip| pairs(&all, flip)).collect();
        all.sweep();
        rows
    })
}

/// `losses`: (node, units of an amount); several rows of one node add up.
pub fn blast_radius<'scope, S: Id, V: Id, G: Id>(
    scenarios: Relation<'scope, u64, (S, V)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, G)>,
    losses: Relation<'scope, u64, (V, i64)>,
    usage: Usage,
) -> Relation<'scope, u64, (S, Radius)> {
    let losses = losses.inner.broadcast().as_collection().map(|(node, loss)| Row::Loss(node, loss));
    let rows = shared(scenarios, gates, members).map(Row::Graph).concat(losses);
    let mut radii = Radii::default();
    by_tick(rows, "BlastRadius", move |changes| {
        let before = radii.bytes();
        let rows = radii.step(changes);
        usage.resize(before, radii.bytes());
        rows
    })
}

/// The graph to all workers, a scenario to one.
fn shared<'scope, S: Id, V: Id, G: Id>(
    scenarios: Relation<'scope, u64, (S, V)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, G)>,
) -> Relation<'scope, u64, Change<S, V, G>> {
    let gates = gates.map(|(group, gate)| Change::Gate(group, gate));
    let members = members.map(|(node, group)| Change::Member(group, node));
    let graph = gates.concat(members).inner.broadcast().as_collection();
    let scenarios = scenarios.inner.exchange(|((scenario, _), _, _)| scenario.hashed()).as_collection();
    scenarios.map(|(scenario, node)| Change::Fails(scenario, node)).concat(graph)
}

fn pairs<S: Id, V: Id, G: Id>(all: &Scenarios<S, V, G>, flip: &Flip) -> Vec<((S, V), i64)> {
    let pair = |bit| (all.scenario(flip.block * WIDTH + bit).clone(), all.node(flip.node).clone());
    let gained = ones(&flip.gained).map(|bit| (pair(bit), 1));
    gained.chain(ones(&flip.lost).map(|bit| (pair(bit), -1))).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Row<S, V, G> {
    Graph(Change<S, V, G>),
    Loss(V, i64),
}

/// Sums over the nodes of each lane, kept up to date.
struct Radii<S, V, G> {
    scenarios: Scenarios<S, V, G>,
    /// By node.
    losses: Vec<i128>,
    /// By lane: as it is, and as it was said.
    radii: Vec<(Radius, Radius)>,
}

/// Lanes whose sums are to be looked at, by block.
type Touched = BTreeMap<usize, Lanes>;

impl<S: Id, V: Id, G: Id> Default for Radii<S, V, G> {
    fn default() -> Self {
        Self { scenarios: Scenarios::default(), losses: Vec::new(), radii: Vec::new() }
    }
}

impl<S: Id, V: Id, G: Id> Radii<S, V, G> {
    fn step(&mut self, changes: Vec<(Row<S, V, G>, i64)>) -> Vec<((S, Radius), i64)> {
        let (mut touched, mut graph) = (Touched::new(), Vec::new());
        for (row, diff) in changes {
            match row {
                Row::Graph(change) => graph.push((change, diff)),
                Row::Loss(node, loss) => self.add_loss(&node, loss, diff, &mut touched),
            }
        }
        for Flip { node, block, gained, lost } in self.scenarios.step(&graph) {
            let loss = self.losses.get(node).copied().unwrap_or(0);
            self.add(block, &gained, 1, loss, &mut touched);
            self.add(block, &lost, -1, -loss, &mut touched);
        }
        let lanes = touched.iter().flat_map(|(block, lanes)| ones(lanes).map(move |bit| block * WIDTH + bit));
        let rows = lanes.flat_map(|lane| self.told(lane)).collect();
        self.scenarios.sweep();
        rows
    }

    fn bytes(&self) -> usize {
        self.scenarios.bytes() + size_of_val(&self.losses[..]) + size_of_val(&self.radii[..])
    }

    /// What fails now costs so much more; what fails later is counted as it changes.
    fn add_loss(&mut self, node: &V, loss: i64, diff: i64, touched: &mut Touched) {
        let node = self.scenarios.count(node, diff);
        if self.losses.len() <= node {
            self.losses.resize(node + 1, 0);
        }
        let loss = i128::from(loss) * i128::from(diff);
        self.losses[node] += loss;
        let failing: Vec<(usize, Lanes)> = self.scenarios.fails(node).map(|(block, lanes)| (block, *lanes)).collect();
        failing.iter().for_each(|(block, lanes)| self.add(*block, lanes, 0, loss, touched));
    }

    fn add(&mut self, block: usize, lanes: &Lanes, nodes: i64, loss: i128, touched: &mut Touched) {
        if self.radii.len() < (block + 1) * WIDTH {
            self.radii.resize((block + 1) * WIDTH, Default::default());
        }
        for bit in ones(lanes) {
            let (radius, _) = &mut self.radii[block * WIDTH + bit];
            radius.nodes += nodes;
            radius.loss += loss;
        }
        let sum = touched.entry(block).or_insert(NONE);
        *sum = either(sum, lanes);
    }

    /// The change of a lane's row. A scenario without a node has none.
    fn told(&mut self, lane: usize) -> Vec<((S, Radius), i64)> {
        let (now, said) = &mut self.radii[lane];
        let (now, before) = (*now, mem::replace(said, *now));
        if now == before {
            return Vec::new();
        }
        let rows = [(before, -1), (now, 1)].into_iter().filter(|(radius, _)| radius.nodes != 0);
        rows.map(|(radius, diff)| ((self.scenarios.scenario(lane).clone(), radius), diff)).collect()
    }
}
