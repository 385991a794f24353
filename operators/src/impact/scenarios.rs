//! `scenarios`: the cascades of many scenarios over one graph, a bit each, kept up to date. No dataflow.
//!
//! In      changes of a tick: what fails in a scenario, groups, members
//! Out     the nodes and scenarios of which it changed whether the node fails
//! State   the graph; per node and block of scenarios the lanes in which it fails, where there are any
//! Source  as for `reach`, the least fixpoint per lane. What is added goes on from the last one: it
//!         only grows. The lanes that may lose something begin anew, for no cycle may hold itself down:
//!         those in which a changed group had failed, as far as what was removed had a part in it, unless it still
//!         fails by members that owe nothing to a changed group's node. On a graph that is one great cycle all
//!         members do, and an update costs up to what all costs from the beginning

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem;

use serde::{Deserialize, Serialize};

use crate::cascade::lanes::{BLOCK_LANES, Lanes, NONE, both, crowded, either, without};
use crate::cascade::{Gate, Id};
use crate::usage::ENTRY_BYTES;

/// A row that comes or goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Change<S, V, G> {
    /// A node fails by itself in a scenario.
    Fails(S, V),
    Gate(G, Gate<V>),
    Member(G, V),
}

/// A node that fails in other lanes of a block than before.
pub struct Flip {
    pub node: usize,
    pub block: usize,
    pub gained: Lanes,
    pub lost: Lanes,
}

pub struct Scenarios<S, V, G> {
    nodes: Names<V>,
    groups: Names<G>,
    graph: Graph,
    lanes: Vec<Option<Lane<S>>>,
    lane_of: HashMap<S, usize>,
    /// The lowest is taken first, so that there are few blocks.
    free: BTreeSet<usize>,
    blocks: Vec<Block>,
    /// As they were given.
    rows: i64,
}

/// A scenario, and how many rows say of which node that it fails by itself.
struct Lane<S> {
    scenario: S,
    own: BTreeMap<usize, i64>,
}

#[derive(Default)]
struct Graph {
    /// By group.
    wirings: Vec<Wiring>,
    /// By node: the groups that it is a member of.
    dependents: Vec<Vec<usize>>,
}

#[derive(Default, Clone)]
struct Wiring {
    /// The node that fails with so many members.
    gate: Option<(usize, i64)>,
    members: BTreeMap<usize, i64>,
}

/// What a tick does.
#[derive(Default)]
struct Edits {
    wirings: BTreeMap<usize, Wiring>,
    /// Lanes in which a node no longer fails by itself.
    weaker: BTreeSet<usize>,
    /// Lanes and nodes that now do.
    seeds: Vec<(usize, usize)>,
}

impl<S: Id, V: Id, G: Id> Default for Scenarios<S, V, G> {
    fn default() -> Self {
        Self {
            nodes: Names::default(),
            groups: Names::default(),
            graph: Graph::default(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            free: BTreeSet::new(),
            blocks: Vec::new(),
            rows: 0,
        }
    }
}

impl<S: Id, V: Id, G: Id> Scenarios<S, V, G> {
    /// `changes`: net. The numbers in what it gives have names until [`Self::sweep`].
    pub fn step(&mut self, changes: &[(Change<S, V, G>, i64)]) -> Vec<Flip> {
        let mut edits = Edits::default();
        let (gone, come): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, diff)| *diff < 0);
        gone.into_iter().chain(come).for_each(|(change, diff)| self.take(change, *diff, &mut edits));
        self.graph.dependents.resize_with(self.nodes.len(), Vec::new);
        let anew = self.clear(&edits);
        let changed: Vec<usize> = edits.wirings.keys().copied().collect();
        edits.wirings.into_iter().for_each(|(group, wiring)| self.graph.rewire(group, wiring));
        let again = anew.iter().enumerate().flat_map(|(block, mask)| ones(mask).map(move |bit| block * WIDTH + bit));
        let again = again.flat_map(|lane| self.lanes[lane].iter().flat_map(move |known| known.own.keys().map(move |node| (lane, *node))));
        let mut queues: Vec<Queue> = self.blocks.iter().map(|_| Queue::default()).collect();
        for (lane, node) in again.chain(edits.seeds) {
            self.blocks[lane / WIDTH].raise(node, &bit(lane), &mut queues[lane / WIDTH]);
        }
        for (block, queue) in self.blocks.iter_mut().zip(queues) {
            block.spread(&self.graph, &changed, queue);
        }
        self.blocks.iter_mut().enumerate().flat_map(|(at, block)| block.flips(at)).collect()
    }

    /// Forgets what no row names any more.
    pub fn sweep(&mut self) {
        for lane in 0..self.lanes.len() {
            if let Some(ended) = self.lanes[lane].take_if(|known| known.own.is_empty()) {
                self.lane_of.remove(&ended.scenario);
                self.free.insert(lane);
            }
        }
        self.nodes.sweep();
        self.groups.sweep();
    }

    /// What it keeps takes, about: a row is an entry, and a part of its name's.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| size_of_val(&block.lanes[..]) + size_of_val(&block.places[..]));
        usize::try_from(self.rows).unwrap_or(0) * 2 * ENTRY_BYTES + blocks.sum::<usize>()
    }

    /// The number of a node, of which so many rows come or go that are not among the changes.
    pub fn count(&mut self, node: &V, diff: i64) -> usize {
        self.nodes.count(node, diff)
    }

    pub fn node(&self, number: usize) -> &V {
        self.nodes.known[number].as_ref().expect("what fails has a name until the sweep")
    }

    pub fn scenario(&self, lane: usize) -> &S {
        &self.lanes[lane].as_ref().expect("a scenario has a name until the sweep").scenario
    }

    /// Where a node fails: blocks with lanes.
    pub fn fails(&self, node: usize) -> impl Iterator<Item = (usize, &Lanes)> {
        self.blocks.iter().enumerate().map(move |(at, block)| (at, block.get(node))).filter(|(_, lanes)| **lanes != NONE)
    }

    fn take(&mut self, change: &Change<S, V, G>, diff: i64, edits: &mut Edits) {
        self.rows += diff;
        match change {
            Change::Fails(scenario, node) => {
                let node = self.nodes.count(node, diff);
                let lane = self.lane(scenario);
                let own = &mut self.lanes[lane].as_mut().expect("it is there, or new").own;
                let before = own.get(&node).copied().unwrap_or(0);
                let after = before + diff;
                match after {
                    0 => own.remove(&node),
                    _ => own.insert(node, after),
                };
                if 0 < before && after <= 0 {
                    edits.weaker.insert(lane);
                } else if before <= 0 && 0 < after {
                    edits.seeds.push((lane, node));
                }
            }
            Change::Gate(group, gate) => {
                let (node, group) = (self.nodes.count(&gate.node, diff), self.groups.count(group, diff));
                let wiring = self.graph.edited(group, edits);
                let gate = Some((node, gate.failures));
                if 0 < diff {
                    wiring.gate = gate;
                } else if wiring.gate == gate {
                    wiring.gate = None;
                }
            }
            Change::Member(group, node) => {
                let (node, group) = (self.nodes.count(node, diff), self.groups.count(group, diff));
                let wiring = self.graph.edited(group, edits);
                let count = wiring.members.entry(node).or_default();
                *count += diff;
                if *count == 0 {
                    wiring.members.remove(&node);
                }
            }
        }
    }

    fn lane(&mut self, scenario: &S) -> usize {
        if let Some(lane) = self.lane_of.get(scenario) {
            return *lane;
        }
        let lane = self.free.pop_first().unwrap_or(self.lanes.len());
        if lane == self.lanes.len() {
            self.lanes.push(None);
        }
        if self.blocks.len() * WIDTH <= lane {
            self.blocks.push(Block::default());
        }
        self.lanes[lane] = Some(Lane { scenario: scenario.clone(), own: BTreeMap::new() });
        self.lane_of.insert(scenario.clone(), lane);
        lane
    }

    /// Empties the lanes that may lose something; which, by block.
    fn clear(&mut self, edits: &Edits) -> Vec<Lanes> {
        let mut anew = vec![NONE; self.blocks.len()];
        edits.weaker.iter().for_each(|lane| anew[lane / WIDTH] = either(&anew[lane / WIDTH], &bit(*lane)));
        let known = edits.wirings.iter().filter_map(|(group, after)| Some((self.graph.wirings.get(*group)?, after)));
        let weaker: Vec<(&Wiring, &Wiring)> = known.filter(|(before, after)| before.may_lose(after)).collect();
        let owing = self.graph.owing(weaker.iter().filter_map(|(before, _)| before.gate).map(|(node, _)| node).collect());
        for (block, anew) in self.blocks.iter_mut().zip(&mut anew) {
            for (before, after) in &weaker {
                *anew = either(anew, &block.at_risk(before, after, &owing));
            }
            block.clear(anew);
        }
        anew
    }
}

impl Wiring {
    /// Whether there may be lanes in which it fails its node and `after` would not.
    fn may_lose(&self, after: &Wiring) -> bool {
        self.gate.is_some() && (!self.is_as_strict_as(after) || self.lost(after).next().is_some())
    }

    /// Whether its node needs so many failures as that of `after`, which is the same, or more.
    fn is_as_strict_as(&self, after: &Wiring) -> bool {
        match (self.gate, after.gate) {
            (Some((node, failures)), Some((same, fewer))) => node == same && fewer <= failures,
            _ => false,
        }
    }

    /// Its members that `after` has not, or fewer times.
    fn lost<'a>(&'a self, after: &'a Wiring) -> impl Iterator<Item = usize> + 'a {
        self.members.iter().filter(|(node, count)| after.members.get(node).copied().unwrap_or(0) < **count).map(|(node, _)| *node)
    }
}

impl Graph {
    /// By node: whether it may fail since one of `nodes` does. These may themselves.
    fn owing(&self, mut nodes: Vec<usize>) -> Vec<bool> {
        let mut owing = vec![false; self.dependents.len()];
        while let Some(node) = nodes.pop() {
            if !mem::replace(&mut owing[node], true) {
                nodes.extend(self.dependents[node].iter().filter_map(|group| self.wirings[*group].gate).map(|(node, _)| node));
            }
        }
        owing
    }

    fn edited<'a>(&self, group: usize, edits: &'a mut Edits) -> &'a mut Wiring {
        edits.wirings.entry(group).or_insert_with(|| self.wirings.get(group).cloned().unwrap_or_default())
    }

    fn rewire(&mut self, group: usize, wiring: Wiring) {
        if self.wirings.len() <= group {
            self.wirings.resize_with(group + 1, Wiring::default);
        }
        let before = mem::replace(&mut self.wirings[group], wiring);
        let after = &self.wirings[group].members;
        let gone = before.members.keys().filter(|node| !after.contains_key(node));
        gone.for_each(|node| self.dependents[*node].retain(|other| *other != group));
        let come = after.keys().filter(|node| !before.members.contains_key(node));
        come.for_each(|node| self.dependents[*node].push(group));
    }
}

/// The lanes of a block, by node, where there are any.
#[derive(Default)]
struct Block {
    /// By node: one more than its place in `lanes`.
    places: Vec<u32>,
    lanes: Vec<Lanes>,
    free: Vec<u32>,
    /// What the nodes had that changed in this tick.
    before: HashMap<usize, Lanes>,
}

/// Nodes whose dependents are to be looked at, each once.
#[derive(Default)]
struct Queue {
    nodes: VecDeque<usize>,
    waits: Vec<bool>,
}

impl Block {
    fn get(&self, node: usize) -> &Lanes {
        match self.places.get(node) {
            None | Some(0) => &NONE,
            Some(place) => &self.lanes[*place as usize - 1],
        }
    }

    fn put(&mut self, node: usize, lanes: Lanes) {
        if self.places.len() <= node {
            self.places.resize(node + 1, 0);
        }
        let before = *self.get(node);
        self.before.entry(node).or_insert(before);
        if self.places[node] == 0 {
            self.places[node] = self.free.pop().unwrap_or_else(|| {
                self.lanes.push(NONE);
                self.lanes.len() as u32
            });
        }
        self.lanes[self.places[node] as usize - 1] = lanes;
    }

    /// The lanes in which a group fails its node.
    fn fires(&self, wiring: &Wiring) -> Lanes {
        self.fires_by(wiring, |_| true)
    }

    /// The lanes in which it does by those of its members alone that `counts` takes.
    fn fires_by(&self, wiring: &Wiring, counts: impl Fn(usize) -> bool) -> Lanes {
        let Some((_, failures)) = wiring.gate else { return NONE };
        let members = wiring.members.iter().filter(|(node, _)| counts(**node));
        let failed = members.map(|(node, count)| (self.get(*node), *count)).filter(|(lanes, count)| **lanes != NONE && 0 < *count);
        match failures {
            1 => failed.fold(NONE, |sum, (lanes, _)| either(&sum, lanes)),
            _ => crowded(failed, failures),
        }
    }

    /// The lanes in which less may fail than before. Where no fewer failures are enough, all in which the group failed,
    /// otherwise those in which a failed member was lost; but not where enough members are left that owe nothing
    /// to a changed node. Where another node is meant, all.
    fn at_risk(&self, before: &Wiring, after: &Wiring, owing: &[bool]) -> Lanes {
        let fired = self.fires(before);
        if fired == NONE || before.gate.map(|(node, _)| node) != after.gate.map(|(node, _)| node) {
            return fired;
        }
        let fewer = match before.is_as_strict_as(after) {
            true => both(&fired, &before.lost(after).fold(NONE, |sum, node| either(&sum, self.get(node)))),
            false => fired,
        };
        without(&fewer, &self.fires_by(after, |node| !owing[node]))
    }

    fn clear(&mut self, mask: &Lanes) {
        if *mask == NONE {
            return;
        }
        for node in 0..self.places.len() {
            let lanes = *self.get(node);
            if both(&lanes, mask) != NONE {
                self.put(node, without(&lanes, mask));
            }
        }
    }

    fn raise(&mut self, node: usize, lanes: &Lanes, queue: &mut Queue) {
        let before = *self.get(node);
        let after = either(&before, lanes);
        if after != before {
            self.put(node, after);
            queue.push(node);
        }
    }

    /// Until nothing more fails.
    fn spread(&mut self, graph: &Graph, changed: &[usize], mut queue: Queue) {
        for group in changed {
            self.fire(&graph.wirings[*group], None, &mut queue);
        }
        while let Some(node) = queue.pop() {
            let lanes = *self.get(node);
            graph.dependents[node].iter().for_each(|group| self.fire(&graph.wirings[*group], Some(&lanes), &mut queue));
        }
    }

    /// `failed`: the lanes of the member that made it fail, where one is enough.
    fn fire(&mut self, wiring: &Wiring, failed: Option<&Lanes>, queue: &mut Queue) {
        let Some((node, failures)) = wiring.gate else { return };
        match failed {
            Some(lanes) if failures == 1 => self.raise(node, lanes, queue),
            _ => {
                let lanes = self.fires(wiring);
                self.raise(node, &lanes, queue);
            }
        }
    }

    fn flips(&mut self, block: usize) -> Vec<Flip> {
        let mut flips = Vec::new();
        for (node, before) in mem::take(&mut self.before) {
            let after = *self.get(node);
            if after == NONE {
                self.free.push(mem::take(&mut self.places[node]));
            }
            if after != before {
                flips.push(Flip { node, block, gained: without(&after, &before), lost: without(&before, &after) });
            }
        }
        flips
    }
}

impl Queue {
    fn push(&mut self, node: usize) {
        if self.waits.len() <= node {
            self.waits.resize(node + 1, false);
        }
        if !mem::replace(&mut self.waits[node], true) {
            self.nodes.push_back(node);
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let node = self.nodes.pop_front()?;
        self.waits[node] = false;
        Some(node)
    }
}

/// Names as numbers, as long as rows name them.
struct Names<D> {
    numbers: HashMap<D, usize>,
    known: Vec<Option<D>>,
    uses: Vec<i64>,
    free: Vec<usize>,
    /// No longer used, at some time since the last sweep.
    idle: Vec<usize>,
}

impl<D> Default for Names<D> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), known: Vec::new(), uses: Vec::new(), free: Vec::new(), idle: Vec::new() }
    }
}

impl<D: Id> Names<D> {
    fn len(&self) -> usize {
        self.known.len()
    }

    fn count(&mut self, name: &D, diff: i64) -> usize {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.named(name),
        };
        self.uses[number] += diff;
        if self.uses[number] == 0 {
            self.idle.push(number);
        }
        number
    }

    fn named(&mut self, name: &D) -> usize {
        let number = self.free.pop().unwrap_or(self.known.len());
        if number == self.known.len() {
            self.known.push(None);
            self.uses.push(0);
        }
        self.known[number] = Some(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    fn sweep(&mut self) {
        for number in mem::take(&mut self.idle) {
            if self.uses[number] == 0
                && let Some(name) = self.known[number].take()
            {
                self.numbers.remove(&name);
                self.free.push(number);
            }
        }
    }
}

/// Lanes of one block.
pub const WIDTH: usize = BLOCK_LANES as usize;

fn bit(lane: usize) -> Lanes {
    let mut lanes = NONE;
    lanes[lane % WIDTH / 64] = 1 << (lane % 64);
    lanes
}

/// The places of the bits that are set.
pub fn ones(lanes: &Lanes) -> impl Iterator<Item = usize> {
    lanes.iter().enumerate().flat_map(|(word, bits)| {
        let mut rest = *bits;
        std::iter::from_fn(move || {
            let at = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (at < 64).then_some(64 * word + at)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node i + 1 needs node i.
    fn chain(length: u32) -> Vec<(Change<u32, u32, u32>, i64)> {
        let gate = |node| Change::Gate(node, Gate { node, need: 1, failures: 1, buffer_ms: 0 });
        (1..=length).flat_map(|node| [(gate(node), 1), (Change::Member(node, node - 1), 1)]).collect()
    }

    #[test]
    fn what_is_kept_is_counted_and_what_goes_no_longer() {
        let mut all = Scenarios::default();
        assert_eq!(all.bytes(), 0);
        all.step(&chain(100));
        let graph = all.bytes();
        assert_eq!(graph, 200 * 2 * ENTRY_BYTES);
        all.step(&[(Change::Fails(1, 0), 1)]);
        assert!(graph + 100 * size_of::<Lanes>() < all.bytes(), "{graph}, then {}", all.bytes());
        let full = all.bytes();
        all.sweep();
        let gone: Vec<_> = chain(100).into_iter().map(|(change, diff)| (change, -diff)).collect();
        all.step(&gone);
        assert_eq!(all.bytes(), full - graph);
    }

    // In scenario 7, 3 fails by 1 and by 2. Where 2 fails by 3, as in scenario 8, it is no reason for 3 to stay down.
    #[test]
    fn only_what_has_no_other_reason_begins_anew() {
        let gate = |node| (Change::Gate(node, Gate { node, need: 1, failures: 1, buffer_ms: 0 }), 1);
        let member = |group, node| (Change::Member(group, node), 1);
        let lanes = |seeds: &[(u32, u32)], back: bool| {
            let mut all = Scenarios::<u32, u32, u32>::default();
            let mut rows = vec![gate(3), member(3, 1), member(3, 2)];
            rows.extend(back.then(|| [gate(2), member(2, 3)]).into_iter().flatten());
            rows.extend(seeds.iter().map(|(scenario, node)| (Change::Fails(*scenario, *node), 1)));
            all.step(&rows);
            all.sweep();
            let mut edits = Edits::default();
            all.take(&Change::Member(3, 1), -1, &mut edits);
            all.clear(&edits)
        };
        assert_eq!(lanes(&[(7, 1), (7, 2)], false), [NONE]);
        assert_eq!(lanes(&[(7, 1), (7, 2), (8, 1)], false), [bit(1)]);
        assert_eq!(lanes(&[(8, 1)], true), [bit(0)]);
        assert_eq!(lanes(&[(9, 2)], true), [NONE]);
    }
}
