//! The answers of `cascade` once more, in batch and as plainly as can be; and random edits, after
//! each of which both must agree, at one worker and at four.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use differential_dataflow::Hashable;
use rand::Rng;
use rand::rngs::StdRng;

use tidegate_operators::cascade::downtime::{Interval, downtime};
use tidegate_operators::cascade::impact_causes::{Cause, impact_causes};
use tidegate_operators::cascade::lanes::{BLOCK_LANES, chance, drawn, failure_counts};
use tidegate_operators::cascade::reach::{reach, restoration_order};
use tidegate_operators::cascade::risk_chains::{Chain, Edge, UNITS_PER_LIKELIHOOD, risk_chains, total_risk};
use tidegate_operators::cascade::time_to_impact::{Impact, time_to_impact};
use tidegate_operators::cascade::{Flaw, Gate, Group, Id, ROUNDS_MAX, Relation, gates};
use tidegate_trials::{random_edits, states};

type Node = u32;
type Name = u32;

/// A row of any relation of the world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Row {
    /// Down in [start, end), and whether it can be repaired.
    Outage(Node, Interval, bool),
    Group(Name, Group<Node>),
    /// With its delay, and its likelihood in tenths.
    Member(Name, Node, i64, u8),
    Restart(Node, i64),
    Edge(Node, Node, Edge),
}

use Row::*;

/// The world's relations, as they change.
struct World<'scope> {
    outages: Relation<'scope, u64, (Node, Interval, bool)>,
    gates: Relation<'scope, u64, (Name, Gate<Node>)>,
    members: Relation<'scope, u64, (Node, (Name, i64, u8))>,
    restarts: Relation<'scope, u64, (Node, i64)>,
    edges: Relation<'scope, u64, (Node, (Node, Edge))>,
    flaws: Relation<'scope, u64, Flaw<Name>>,
}

impl<'scope> World<'scope> {
    fn of(rows: Relation<'scope, u64, Row>) -> Self {
        let groups = rows.clone().flat_map(|row| if let Group(name, group) = row { Some((name, group)) } else { None });
        let members = rows.clone().flat_map(|row| match row {
            Member(group, node, delay_ms, tenths) => Some((node, (group, delay_ms, tenths))),
            _ => None,
        });
        let (gates, flaws) = gates(groups, members.clone().map(|(_, (group, ..))| group));
        Self {
            outages: rows.clone().flat_map(|row| if let Outage(node, down, mends) = row { Some((node, down, mends)) } else { None }),
            gates,
            members,
            restarts: rows.clone().flat_map(|row| if let Restart(node, ms) = row { Some((node, ms)) } else { None }),
            edges: rows.flat_map(|row| if let Edge(from, to, edge) = row { Some((from, (to, edge))) } else { None }),
            flaws,
        }
    }

    fn starts(&self) -> Relation<'scope, u64, (Node, i64)> {
        self.outages.clone().map(|(node, (start, _), _)| (node, start))
    }

    fn delays(&self) -> Relation<'scope, u64, (Node, (Name, i64))> {
        self.members.clone().map(|(node, (group, delay_ms, _))| (node, (group, delay_ms)))
    }

    fn plain(&self) -> Relation<'scope, u64, (Node, Name)> {
        self.members.clone().map(|(node, (group, ..))| (node, group))
    }
}

type Edits = tidegate_trials::Edits<Row>;

/// What `build` says after each tick's edits.
fn answers<D: Id + Debug>(workers: usize, edits: &Edits, build: for<'s> fn(World<'s>) -> Relation<'s, u64, D>) -> Vec<BTreeMap<D, i64>> {
    tidegate_trials::answers(workers, edits, move |rows| build(World::of(rows)))
}

/// On a few nodes, so that there are ties and cycles.
fn random_row(random: &mut StdRng) -> Row {
    let node = random.random_range(0..8);
    match random.random_range(0..12) {
        0..2 => {
            let start = random.random_range(0..20);
            Outage(node, (start, start + random.random_range(1..15)), random.random_bool(0.7))
        }
        2..5 => {
            let need = random.random_bool(0.5).then(|| random.random_range(0..4));
            Group(random.random_range(0..6), tidegate_operators::cascade::Group { node, need, buffer_ms: random.random_range(0..5) })
        }
        5..9 => Member(random.random_range(0..6), node, random.random_range(0..3), random.random_range(0..=10)),
        9 => Restart(node, random.random_range(0..4)),
        _ => {
            let likelihood = random.random_range(0..=10) * UNITS_PER_LIKELIHOOD / 10;
            Edge(
                node,
                random.random_range(0..8),
                tidegate_operators::cascade::risk_chains::Edge { likelihood, impact: random.random_range(0..9) * 1_000_000 },
            )
        }
    }
}

/// A world at rest.
struct Still {
    outages: Vec<(Node, Interval, bool)>,
    gates: BTreeMap<Name, Gate<Node>>,
    members: Vec<(Name, Node, i64, u8)>,
    restarts: BTreeMap<Node, i64>,
    edges: Vec<(Node, Node, Edge)>,
    flaws: Vec<Flaw<Name>>,
}

impl Still {
    fn of(rows: &[Row]) -> Self {
        let mut still =
            Self { outages: vec![], gates: BTreeMap::new(), members: vec![], restarts: BTreeMap::new(), edges: vec![], flaws: vec![] };
        let mut groups: BTreeMap<Name, Vec<&tidegate_operators::cascade::Group<Node>>> = BTreeMap::new();
        for row in rows {
            match row {
                Outage(node, down, mends) => still.outages.push((*node, *down, *mends)),
                Group(name, group) => groups.entry(*name).or_default().push(group),
                Member(group, node, delay_ms, tenths) => still.members.push((*group, *node, *delay_ms, *tenths)),
                Restart(node, ms) => {
                    let known = still.restarts.entry(*node).or_insert(*ms);
                    *known = *ms.max(known);
                }
                Edge(from, to, edge) => still.edges.push((*from, *to, *edge)),
            }
        }
        for (name, definitions) in groups {
            let members = still.members.iter().filter(|member| member.0 == name).count() as i64;
            let [group] = definitions[..] else {
                still.flaws.push(Flaw::Repeated { group: name, count: definitions.len() as i64 });
                continue;
            };
            let need = group.need.unwrap_or(members);
            if group.need.is_none() && members == 0 {
                continue;
            }
            if !(1..=members).contains(&need) {
                still.flaws.push(Flaw::Need { group: name, need, members });
                continue;
            }
            still.gates.insert(name, Gate { node: group.node, need, failures: members - need + 1, buffer_ms: group.buffer_ms });
        }
        still
    }

    fn members_of(&self, group: Name) -> impl Iterator<Item = &(Name, Node, i64, u8)> {
        self.members.iter().filter(move |member| member.0 == group)
    }

    fn reach(&self) -> BTreeSet<Node> {
        self.reached(self.outages.iter().map(|outage| outage.0).collect(), |_| true)
    }

    /// From `failed` on, over the members that take their group with them.
    fn reached(&self, mut failed: BTreeSet<Node>, takes: impl Fn(&(Name, Node, i64, u8)) -> bool) -> BTreeSet<Node> {
        loop {
            let next = self.gates.iter().find(|(group, gate)| {
                let down = self.members_of(**group).filter(|member| failed.contains(&member.1) && takes(member)).count() as i64;
                !failed.contains(&gate.node) && gate.failures <= down
            });
            match next {
                Some((_, gate)) => failed.insert(gate.node),
                None => return failed,
            };
        }
    }

    fn restoration_order(&self) -> BTreeSet<(Node, Option<i64>)> {
        let failed = self.reach();
        let mut steps: BTreeMap<Node, i64> = BTreeMap::new();
        for step in 1.. {
            let is_up = |node: &Node| !failed.contains(node) || steps.contains_key(node);
            let can_start = |node: &Node| {
                let is_repaired = self.outages.iter().all(|(other, _, mends)| other != node || *mends);
                let has_enough = |(group, gate): (&Name, &Gate<Node>)| {
                    gate.node != *node || gate.need <= self.members_of(*group).filter(|member| is_up(&member.1)).count() as i64
                };
                !is_up(node) && is_repaired && self.gates.iter().all(has_enough)
            };
            let started: Vec<Node> = failed.iter().copied().filter(can_start).collect();
            if started.is_empty() {
                break;
            }
            steps.extend(started.into_iter().map(|node| (node, step)));
        }
        failed.into_iter().map(|node| (node, steps.get(&node).copied())).collect()
    }

    /// Knuth's: the first of what is still open is final.
    fn time_to_impact(&self) -> BTreeMap<Node, Impact> {
        let mut done: BTreeMap<Node, Impact> = BTreeMap::new();
        loop {
            let own = self.outages.iter().map(|(node, (start, _), _)| (Impact::own(*start), *node));
            let by_groups = self.gates.iter().filter_map(|(group, gate)| Some((self.fails_at(*group, gate, &done)?, gate.node)));
            let open = own.chain(by_groups).filter(|(_, node)| !done.contains_key(node));
            match open.min() {
                Some((impact, node)) => done.insert(node, impact),
                None => return done,
            };
        }
    }

    fn fails_at(&self, group: Name, gate: &Gate<Node>, done: &BTreeMap<Node, Impact>) -> Option<Impact> {
        let (last, _) = self.failing(group, done).into_iter().nth(gate.failures as usize - 1)?;
        Some(Impact { at: last.at + gate.buffer_ms, hops: last.hops + 1, since: last.since })
    }

    /// The members that fail, in order.
    fn failing(&self, group: Name, done: &BTreeMap<Node, Impact>) -> Vec<(Impact, Node)> {
        let later = |member: &(Name, Node, i64, u8)| {
            let impact = done.get(&member.1)?;
            Some((Impact { at: impact.at + member.2, ..*impact }, member.1))
        };
        let mut failing: Vec<_> = self.members_of(group).filter_map(later).collect();
        failing.sort();
        failing
    }

    fn impact_causes(&self) -> BTreeSet<(Node, Cause<Node, Name>)> {
        let impacts = self.time_to_impact();
        let mut causes = BTreeSet::new();
        for (&node, impact @ Impact { at, hops, .. }) in &impacts {
            let (at, hops) = (*at, *hops);
            if self.outages.iter().any(|(other, (start, _), _)| *other == node && Impact::own(*start) == *impact) {
                causes.insert((node, Cause { at, hops, through: None, is_critical: true }));
                continue;
            }
            let mut groups =
                self.gates.iter().filter(|(group, gate)| gate.node == node && self.fails_at(**group, gate, &impacts) == Some(*impact));
            let (&group, gate) = groups.next().expect("one of them is why");
            let failing: Vec<Node> =
                self.failing(group, &impacts).into_iter().map(|(_, member)| member).take(gate.failures as usize).collect();
            let last = failing[failing.len() - 1];
            causes.extend(
                failing.into_iter().map(|member| (node, Cause { at, hops, through: Some((group, member)), is_critical: member == last })),
            );
        }
        causes
    }

    /// Millisecond by millisecond.
    fn downtime(&self, horizon: i64) -> BTreeSet<(Node, Vec<Interval>)> {
        let nodes: BTreeSet<Node> = self.outages.iter().map(|outage| outage.0).chain(self.gates.values().map(|gate| gate.node)).collect();
        let mut down: HashMap<Node, Vec<bool>> = nodes.iter().map(|&node| (node, vec![false; horizon as usize])).collect();
        loop {
            let next: HashMap<Node, Vec<bool>> = nodes.iter().map(|&node| (node, self.down(node, &down, horizon))).collect();
            if next == down {
                break;
            }
            down = next;
        }
        let intervals = |down: &Vec<bool>| {
            let is_down = |at: i64| (0..horizon).contains(&at) && down[at as usize];
            let starts = (0..horizon).filter(|&at| is_down(at) && !is_down(at - 1));
            starts.map(|start| (start, (start..).find(|&at| !is_down(at)).expect("the horizon is up"))).collect()
        };
        down.iter().map(|(node, down)| (*node, intervals(down))).filter(|(_, down): &(_, Vec<_>)| !down.is_empty()).collect()
    }

    fn down(&self, node: Node, down: &HashMap<Node, Vec<bool>>, horizon: i64) -> Vec<bool> {
        let was = |node: Node, at: i64| (0..horizon).contains(&at) && down.get(&node).is_some_and(|down| down[at as usize]);
        let lacks = |group: Name, gate: &Gate<Node>, at: i64| {
            gate.failures <= self.members_of(group).filter(|member| was(member.1, at - member.2)).count() as i64
        };
        let raw = |at: i64| {
            let own = self.outages.iter().any(|(other, (start, end), _)| *other == node && (*start..*end).contains(&at));
            let eroded =
                |(group, gate): (&Name, &Gate<Node>)| gate.node == node && (at - gate.buffer_ms..=at).all(|at| lacks(*group, gate, at));
            own || self.gates.iter().any(eroded)
        };
        let restart_ms = self.restarts.get(&node).copied().unwrap_or(0);
        (0..horizon).map(|at| (at - restart_ms..=at).any(&raw)).collect()
    }

    fn failure_counts(&self, blocks: u32, seed: u64) -> BTreeSet<(Node, i64)> {
        let mut counts: BTreeMap<Node, i64> = BTreeMap::new();
        for lane in 0..i64::from(blocks) * BLOCK_LANES {
            let (block, bit) = ((lane / BLOCK_LANES) as u32, (lane % BLOCK_LANES) as usize);
            let is_drawn =
                |key: u64, tenths: u8| drawn(seed, key, block, chance(f64::from(tenths) / 10.0))[bit / 64] >> (bit % 64) & 1 == 1;
            // The length of its outage in tenths is how likely a node fails by itself.
            let own = self.outages.iter().filter(|(node, (start, end), _)| is_drawn((0_u8, node).hashed(), (end - start).min(10) as u8));
            let failed = self
                .reached(own.map(|outage| outage.0).collect(), |(group, node, _, tenths)| is_drawn((1_u8, node, group).hashed(), *tenths));
            failed.into_iter().for_each(|node| *counts.entry(node).or_default() += 1);
        }
        counts.into_iter().collect()
    }

    /// Each chain of at most `hops` edges from `node`.
    fn chains(&self, node: Node, hops: i64) -> Vec<Chain<Node>> {
        let from_here = self.edges.iter().filter(|edge| edge.0 == node);
        let chains = from_here.flat_map(|(_, to, edge)| {
            let rest = if 1 < hops { self.chains(*to, hops - 1) } else { Vec::new() };
            let nothing = Chain { risks: Vec::new(), path: Vec::new() };
            rest.into_iter().chain([nothing]).map(move |rest| {
                let risk = scaled(edge, i128::from(edge.impact + rest.risks.first().unwrap_or(&0)));
                let path = std::iter::once(*to).chain(rest.path).collect();
                Chain { risks: std::iter::once(risk as i64).chain(rest.risks).collect(), path }
            })
        });
        chains.collect()
    }

    /// Hop by hop, over all nodes.
    fn total_risk(&self, hops: i64) -> BTreeSet<(Node, Option<i128>)> {
        let mut total: BTreeMap<Node, i128> = BTreeMap::new();
        for _ in 0..hops {
            let mut next = BTreeMap::new();
            for (from, to, edge) in &self.edges {
                let risk = scaled(edge, i128::from(edge.impact)) + scaled(edge, *total.get(to).unwrap_or(&0));
                *next.entry(*from).or_default() += risk;
            }
            total = next;
        }
        total.into_iter().map(|(node, total)| (node, Some(total))).collect()
    }

    fn risk_chains(&self, hops: i64, top: usize) -> BTreeSet<(Node, (i64, Chain<Node>))> {
        let nodes: BTreeSet<Node> = self.edges.iter().map(|edge| edge.0).collect();
        let best = nodes.into_iter().flat_map(|node| {
            let mut chains = self.chains(node, hops);
            chains.sort_by(|a, b| b.risks.cmp(&a.risks).then_with(|| a.path.cmp(&b.path)));
            // Two ways of the same risks through the same nodes are one.
            chains.dedup();
            (1..).zip(chains.into_iter().take(top)).map(move |ranked| (node, ranked)).collect::<Vec<_>>()
        });
        best.collect()
    }
}

fn scaled(edge: &Edge, units: i128) -> i128 {
    let exact = units * i128::from(edge.likelihood);
    (exact + i128::from(UNITS_PER_LIKELIHOOD) / 2) / i128::from(UNITS_PER_LIKELIHOOD)
}

const HORIZON: i64 = 60;
const BLOCKS: u32 = 2;

/// Whether `build` and `oracle` agree after each of many random edits.
fn agree<D: Id + Debug>(build: for<'s> fn(World<'s>) -> Relation<'s, u64, D>, oracle: impl Fn(&Still) -> BTreeSet<D>) {
    for seed in 0..24 {
        let edits = random_edits(seed, 12, random_row);
        let expected: Vec<BTreeMap<D, i64>> =
            states(&edits).iter().map(|rows| oracle(&Still::of(rows)).into_iter().map(|row| (row, 1)).collect()).collect();
        for workers in [1, 4] {
            for (tick, (found, expected)) in answers(workers, &edits, build).iter().zip(&expected).enumerate() {
                assert_eq!(found, expected, "seed {seed}, {workers} workers, tick {tick}");
            }
        }
    }
}

#[test]
fn groups_that_make_no_sense_are_flaws() {
    agree(|world| world.flaws, |still| still.flaws.iter().cloned().collect());
}

#[test]
fn reach_is_recomputed() {
    agree(|world| reach(world.outages.clone().map(|(node, ..)| node), world.gates.clone(), world.plain(), ROUNDS_MAX).rows, Still::reach);
}

#[test]
fn restoration_is_recomputed() {
    agree(
        |world| {
            let failed = reach(world.outages.clone().map(|(node, ..)| node), world.gates.clone(), world.plain(), ROUNDS_MAX).rows;
            let outages = world.outages.clone().map(|(node, _, mends)| (node, mends));
            restoration_order(outages, failed, world.gates.clone(), world.plain(), ROUNDS_MAX).rows
        },
        Still::restoration_order,
    );
}

#[test]
fn time_to_impact_is_recomputed() {
    agree(
        |world| time_to_impact(world.starts(), world.gates.clone(), world.delays(), ROUNDS_MAX).rows,
        |still| still.time_to_impact().into_iter().collect(),
    );
}

#[test]
fn causes_are_recomputed() {
    agree(
        |world| {
            let impacts = time_to_impact(world.starts(), world.gates.clone(), world.delays(), ROUNDS_MAX).rows;
            impact_causes(world.starts(), world.gates.clone(), world.delays(), impacts)
        },
        Still::impact_causes,
    );
}

#[test]
fn downtime_is_recomputed() {
    agree(
        |world| {
            let outages = world.outages.clone().map(|(node, down, _)| (node, down));
            downtime(outages, world.gates.clone(), world.delays(), world.restarts.clone(), HORIZON, ROUNDS_MAX).rows
        },
        |still| still.downtime(HORIZON),
    );
}

#[test]
fn failure_counts_are_recomputed_lane_by_lane() {
    agree(
        |world| {
            let nodes = world.outages.clone().map(|(node, (start, end), _)| (node, chance((end - start).min(10) as f64 / 10.0)));
            let members = world.members.clone().map(|(node, (group, _, tenths))| (node, (group, chance(f64::from(tenths) / 10.0))));
            failure_counts(nodes, world.gates.clone(), members, BLOCKS, 7, ROUNDS_MAX).rows
        },
        |still| still.failure_counts(BLOCKS, 7),
    );
}

#[test]
fn risk_chains_are_recomputed() {
    agree(|world| risk_chains(world.edges, 4, 3), |still| still.risk_chains(4, 3));
}

#[test]
fn total_risk_is_recomputed() {
    agree(|world| total_risk(world.edges, 5), |still| still.total_risk(5));
}

fn group(name: Name, node: Node, need: Option<i64>, buffer_ms: i64) -> (Row, i64) {
    (Group(name, tidegate_operators::cascade::Group { node, need, buffer_ms }), 1)
}

fn member(group: Name, node: Node) -> (Row, i64) {
    (Member(group, node, 0, 10), 1)
}

fn down(node: Node, start: i64, end: i64) -> (Row, i64) {
    (Outage(node, (start, end), true), 1)
}

fn gone((row, _): (Row, i64)) -> (Row, i64) {
    (row, -1)
}

const A: Node = 1;
const B: Node = 2;
const C: Node = 3;
const D: Node = 4;
const E: Node = 5;
const F: Node = 6;
const G: Node = 7;
const X: Node = 8;
const Y: Node = 9;

/// G = 2 of {A, B, C}, buffer 5; D needs G, buffer 30; E = 1 of {D, F}; X and Y need each other, buffer 1.
fn grid() -> Vec<(Row, i64)> {
    let groups = [group(1, G, Some(2), 5), group(2, D, None, 30), group(3, E, Some(1), 0), group(4, X, None, 1), group(5, Y, None, 1)];
    let members = [member(1, A), member(1, B), member(1, C), member(2, G), member(3, D), member(3, F), member(4, Y), member(5, X)];
    groups.into_iter().chain(members).collect()
}

#[test]
fn a_buffer_delays_and_a_cycle_does_not_hold_itself_down() {
    let mut first = grid();
    first.extend([down(A, 0, 1), down(B, 10, 11), down(F, 100, 101)]);
    let edits = vec![
        first,
        vec![gone(down(B, 10, 11))],
        vec![down(B, 10, 11), gone(down(F, 100, 101)), down(F, 20, 21)],
        vec![down(X, 7, 8)],
        vec![gone(down(X, 7, 8))],
    ];
    let tables = [
        vec![(A, 0), (B, 10), (D, 45), (E, 100), (F, 100), (G, 15)],
        vec![(A, 0), (F, 100)],
        vec![(A, 0), (B, 10), (D, 45), (E, 45), (F, 20), (G, 15)],
        vec![(A, 0), (B, 10), (D, 45), (E, 45), (F, 20), (G, 15), (X, 7), (Y, 8)],
        vec![(A, 0), (B, 10), (D, 45), (E, 45), (F, 20), (G, 15)],
    ];
    for workers in [1, 4] {
        let found = answers(workers, &edits, |world| time_to_impact(world.starts(), world.gates.clone(), world.delays(), ROUNDS_MAX).rows);
        for (tick, (found, table)) in found.iter().zip(&tables).enumerate() {
            let found: Vec<(Node, i64)> = found.keys().map(|(node, impact)| (*node, impact.at)).collect();
            assert_eq!(&found, table, "{workers} workers, tick {tick}");
        }
    }
}

#[test]
fn a_buffer_outlives_a_short_outage_and_a_deadlock_none() {
    let (p, own) = (10, [down(10, 0, 60), down(10, 0, 20)]);
    let mut first = vec![group(1, D, None, 30), member(1, p), (Restart(D, 10), 1)];
    first.extend([group(2, E, Some(1), 0), member(2, D), member(2, F), (Restart(E, 5), 1), down(F, 50, 100), own[0].clone()]);
    let mut third = vec![group(3, X, None, 2), member(3, Y), group(4, Y, None, 2), member(4, X), (Restart(X, 3), 1), (Restart(Y, 3), 1)];
    third.push(down(X, 0, 10));
    let edits = vec![first, vec![gone(own[0].clone()), own[1].clone()], third];
    let found = answers(2, &edits, |world| {
        let outages = world.outages.clone().map(|(node, down, _)| (node, down));
        downtime(outages, world.gates.clone(), world.delays(), world.restarts.clone(), 100, ROUNDS_MAX).rows
    });
    let of = |tick: usize, node: Node| found[tick].keys().find(|(other, _)| *other == node).map(|(_, down)| down.clone());
    assert_eq!((of(0, D), of(0, E)), (Some(vec![(30, 70)]), Some(vec![(50, 75)])));
    assert_eq!((of(1, D), of(1, E)), (None, None));
    assert_eq!((of(2, X), of(2, Y)), (Some(vec![(0, 100)]), Some(vec![(2, 100)])));
}

// A week of restarts of a millisecond each would be as many rounds.
#[test]
fn nodes_that_keep_each_other_down_settle_when_it_has_gone_round() {
    const WEEK: i64 = 7 * 24 * 3_600_000;
    let pair = [group(1, A, None, 0), member(1, B), group(2, B, None, 0), member(2, A)];
    let circle = [group(3, C, None, 2), member(3, E), group(4, D, None, 2), member(4, C), group(5, E, None, 2), member(5, D)];
    let ring: Vec<_> =
        (20..27).flat_map(|node| [group(node, node, None, 0), member(node, if node == 20 { 26 } else { node - 1 })]).collect();
    let restarts: Vec<_> = [A, B, C, D, E].into_iter().chain(20..27).map(|node| (Restart(node, 1), 1)).collect();
    let outages = [down(A, 0, 10), down(C, 100, 200), down(20, 300, 400)];
    let edits = vec![[&pair[..], &circle, &ring, &restarts, &outages].concat(), outages.map(gone).to_vec()];
    let found = answers(2, &edits, |world| {
        let outages = world.outages.clone().map(|(node, down, _)| (node, down));
        downtime(outages, world.gates.clone(), world.delays(), world.restarts.clone(), WEEK, 40).rows
    });
    let starts = [(A, 0), (B, 0), (C, 100), (D, 102), (E, 104)].into_iter().chain((20..27).map(|node| (node, 300)));
    let all: BTreeMap<_, _> = starts.map(|(node, start)| ((node, vec![(start, WEEK)]), 1)).collect();
    assert_eq!(found, [all, BTreeMap::new()]);
}

#[test]
fn a_loop_that_does_not_settle_has_a_flaw_instead_of_rows() {
    // 1 → 2 → … → 9, of which a loop of five rounds sees the first.
    let chain = (2..10).flat_map(|node| [group(node, node, None, 0), member(node, node - 1)]);
    let edits: Edits = vec![vec![down(1, 0, 1)], chain.collect(), vec![gone(member(4, 3))], vec![member(4, 3)]];
    let rows = answers(4, &edits, |world| reach(world.outages.clone().map(|(node, ..)| node), world.gates.clone(), world.plain(), 5).rows);
    let rows: Vec<Vec<Node>> = rows.iter().map(|rows| rows.keys().copied().collect()).collect();
    assert_eq!(rows, [vec![1], vec![], vec![1, 2, 3], vec![]]);
    let flaws =
        answers(4, &edits, |world| reach(world.outages.clone().map(|(node, ..)| node), world.gates.clone(), world.plain(), 5).flaws);
    let flaws: Vec<Vec<(Flaw<Name>, i64)>> = flaws.into_iter().map(|flaws| flaws.into_iter().collect()).collect();
    assert_eq!(flaws, [vec![], vec![(Flaw::Unsettled, 1)], vec![], vec![(Flaw::Unsettled, 1)]]);
}

#[test]
fn chains_of_the_papers_example() {
    let edge = |from: Node, to: Node, likelihood: f64, impact: i64| {
        let likelihood = (likelihood * UNITS_PER_LIKELIHOOD as f64).round() as i64;
        (Row::Edge(from, to, Edge { likelihood, impact: impact * 1_000_000 }), 1)
    };
    let first = vec![edge(A, B, 0.7, 8), edge(B, C, 0.5, 6)];
    let more = vec![edge(A, C, 0.4, 9), edge(C, A, 0.2, 5), edge(C, D, 0.9, 4)];
    let worst = answers(1, &vec![first.clone(), more.clone()], |world| risk_chains(world.edges, 3, 1));
    let of_a = |tick: usize| worst[tick].keys().find(|(node, _)| *node == A).map(|(_, (_, chain))| chain.risks[0]);
    assert_eq!((of_a(0), of_a(1)), (Some(7_700_000), Some(8_960_000)));
    let total = |hops: for<'s> fn(World<'s>) -> Relation<'s, u64, (Node, Option<i128>)>| {
        let total = answers(1, &vec![[first.clone(), more.clone()].concat()], hops);
        total[0].keys().find(|(node, _)| *node == A).and_then(|(_, total)| *total)
    };
    assert_eq!(total(|world| total_risk(world.edges, 1)), Some(9_200_000));
    assert_eq!(total(|world| total_risk(world.edges, 2)), Some(13_140_000));
    assert_eq!(total(|world| total_risk(world.edges, 5)), Some(16_908_680));
}

/// Series and parallel parts as fault trees, within three standard errors of what they are exactly.
#[test]
fn lanes_estimate_what_is_known_exactly() {
    fn estimate(world: World<'_>) -> Relation<'_, u64, (Node, i64)> {
        let nodes = world.members.clone().map(|(node, (_, _, tenths))| (node, tenths)).filter(|(node, _)| *node < 10);
        let nodes = nodes.distinct_core::<i64>().map(|(node, tenths)| (node, chance(f64::from(tenths) / 10.0)));
        let members = world.members.clone().map(|(node, (group, ..))| (node, (group, None)));
        failure_counts(nodes, world.gates.clone(), members, 64, 3, ROUNDS_MAX).rows
    }
    let part = |group: Name, node: Node, tenths: u8| (Member(group, node, 0, tenths), 1);
    let lanes = 64.0 * BLOCK_LANES as f64;
    // A or B or C; AB or BC; two of three: with .1, .2, .3.
    let any = vec![group(1, 20, None, 0), part(1, 1, 1), part(1, 2, 2), part(1, 3, 3)];
    let cuts = vec![
        group(1, 20, Some(1), 0),
        part(1, 1, 1),
        part(1, 2, 2),
        group(2, 21, Some(1), 0),
        part(2, 2, 2),
        part(2, 3, 3),
        group(3, 22, None, 0),
        (Member(3, 20, 0, 0), 1),
        (Member(3, 21, 0, 0), 1),
    ];
    let two = vec![group(1, 20, Some(2), 0), part(1, 1, 1), part(1, 2, 2), part(1, 3, 3)];
    for (tree, top, exact) in [(any, 20, 0.496), (cuts, 22, 0.074), (two, 20, 0.098)] {
        let counts = answers(1, &vec![tree], estimate);
        let count = counts[0].keys().find(|(node, _)| *node == top).map_or(0, |(_, count)| *count) as f64;
        let error = (exact * (1.0 - exact) / lanes).sqrt();
        assert!((count / lanes - exact).abs() < 3.0 * error, "{top}: {} for {exact}", count / lanes);
    }
}
