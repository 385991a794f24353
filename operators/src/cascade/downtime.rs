//! `downtime`: from when to when each node is down.
//!
//! SQL     downtime(outages, groups, members, nodes, horizon => …)
//! In      [start, end) in which a node is down by itself; groups with a buffer; members with a delay;
//!         how long a node takes to restart
//! Out     (node, [start, end)), apart from each other, cut at the horizon: D(v) = own(v) and, per group,
//!         the time in which too many members are down, each `delay` later, without the first `buffer`
//!         of it; each of these longer by `restart`
//! State   the arrangements of the loop, by tick and round; freed only as rows are deleted
//! Rounds  nodes that keep each other down are down to the horizon. Where each of them is down as soon as one of
//!         its group is, that is seen when it has gone round a few times: the next turn ends as much later again.
//!         Other such cycles settle only at the horizon, in as many rounds as restarts fit before it
//! Errors  as in `cascade`; no fixpoint within [`ROUNDS_MAX`] rounds
//! Source  union, threshold, erosion and dilation are monotone: Serra, Image Analysis and Mathematical Morphology,
//!         1982; who is remembered on the way: Brent, An Improved Monte Carlo Factorization Algorithm, BIT 1980

use serde::{Deserialize, Serialize};

use super::{Flaw, Gate, Id, Parts, Relation, Settled, reduced, settle_parts};

/// Half-open; a list of them is in order, and no two touch.
pub type Interval = (i64, i64);

/// What changes in each round costs the square of the rounds, when it comes and when it goes: more would hold up all
/// ticks for seconds.
pub const ROUNDS_MAX: u64 = 500;

/// An interval in which a node is down, or a group lacks members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Stretch<V> {
    start: i64,
    end: i64,
    way: Way<V>,
}

/// How a stretch came to last until its end: from node to node that each passed its end on by itself, as one failed
/// member is enough of each group between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Way<V> {
    /// How often a restart or a delay made it later.
    steps: u64,
    /// Who was passed at the last step that is a power of two, and until when that one was down. Who goes round
    /// comes by the one again before the next is remembered, once that is further away than once round.
    landmark: Option<(V, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part<V> {
    Gate(Gate<V>),
    /// When a member is down.
    Member(Vec<Stretch<V>>),
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Fact<V> {
    RestartMs(i64),
    Down(Vec<Stretch<V>>),
}

/// As [`downtime_parts`], where all nodes are one part.
pub fn downtime<'scope, V: Id, G: Id>(
    outages: Relation<'scope, u64, (V, Interval)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, i64))>,
    restarts: Relation<'scope, u64, (V, i64)>,
    horizon: i64,
    rounds_max: u64,
) -> Settled<'scope, (V, Vec<Interval>), G> {
    let all = downtime_parts(outages, gates, members, restarts, horizon, rounds_max, |_| ());
    Settled { rows: all.rows, flaws: all.unsettled.map(|()| Flaw::Unsettled) }
}

/// `members`: (node, (group, delay_ms)); `restarts`: (node, restart_ms), the longest counts. `part_of`: nodes of
/// different parts must not depend on each other.
pub fn downtime_parts<'scope, V: Id, G: Id, P: Id>(
    outages: Relation<'scope, u64, (V, Interval)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, i64))>,
    restarts: Relation<'scope, u64, (V, i64)>,
    horizon: i64,
    rounds_max: u64,
    part_of: impl Fn(&V) -> P + Clone + 'static,
) -> Parts<'scope, (V, Vec<Interval>), P> {
    let scope = outages.inner.scope();
    let facts = outages
        .map(|(node, (start, end))| (node, Fact::Down(vec![Stretch { start, end, way: Way::NEW }])))
        .concat(restarts.map(|(node, restart_ms)| (node, Fact::RestartMs(restart_ms))));
    let gates = gates.map(|(group, gate)| (group, Part::Gate(gate)));
    let members = members.arrange_by_key_named("Members");
    let part_of_fact = part_of.clone();
    settle_parts(
        scope,
        "Downtime",
        rounds_max,
        move |(node, _)| part_of(node),
        move |(node, _)| part_of_fact(node),
        |inner, next| {
            let down = reduced(facts.enter(inner).concat(next), "Down", move |node, facts, out| {
                let down = down(node, facts, horizon);
                out.extend((!down.is_empty()).then_some((down, 1)));
            });
            let failing = down.clone().join_core(members.enter(inner), |node, down, (group, delay_ms)| {
                let later = down.iter().map(|stretch| stretch.later(node, *delay_ms)).collect();
                Some((group.clone(), Part::Member(later)))
            });
            let next = reduced(gates.enter(inner).concat(failing), "Groups", |_, parts, out| {
                out.extend(lacking(parts).map(|lacking| (lacking, 1)))
            });
            let next = next.as_collection(|_, (node, lacking)| (node.clone(), Fact::Down(lacking.clone())));
            let intervals = |down: &[Stretch<V>]| down.iter().map(|stretch| (stretch.start, stretch.end)).collect();
            (down.as_collection(move |node, down| (node.clone(), intervals(down))), next)
        },
    )
}

/// The rule for a node: all it is down for, restarted after each, up to the horizon.
fn down<V: Id>(node: &V, facts: &[(&Fact<V>, i64)], horizon: i64) -> Vec<Stretch<V>> {
    let restart_ms = facts.iter().filter_map(|(fact, _)| if let Fact::RestartMs(ms) = fact { Some(*ms) } else { None }).max().unwrap_or(0);
    let stretches = facts.iter().flat_map(|(fact, _)| if let Fact::Down(down) = fact { &down[..] } else { &[] });
    let longer = stretches.filter(|stretch| stretch.start < stretch.end).map(|stretch| {
        let end = stretch.end + restart_ms;
        // Its own end came back to it without a gap, and later: it will again.
        let before = stretch.way.landmark.as_ref().filter(|(passed, _)| passed == node);
        let goes_round = before.is_some_and(|(_, ended)| stretch.start <= *ended && *ended < end);
        match goes_round || horizon <= end {
            true => Stretch { start: stretch.start, end: horizon, way: Way::NEW },
            false => Stretch { start: stretch.start, end, way: stretch.way.clone() },
        }
    });
    let mut down = united(longer.filter(|stretch| stretch.start < stretch.end).collect());
    if 0 < restart_ms {
        down.iter_mut().filter(|stretch| stretch.end < horizon).for_each(|stretch| stretch.pass(node));
    }
    down
}

impl<V: Id> Stretch<V> {
    /// Made later at `node`, which is down until its end.
    fn pass(&mut self, node: &V) {
        self.way.steps += 1;
        if self.way.steps.is_power_of_two() {
            self.way.landmark = Some((node.clone(), self.end));
        }
    }

    /// As a member of a group, for which `node` is down `delay_ms` later.
    fn later(&self, node: &V, delay_ms: i64) -> Self {
        let mut later = self.clone();
        if 0 < delay_ms {
            later.pass(node);
        }
        (later.start, later.end) = (self.start + delay_ms, self.end + delay_ms);
        later
    }

    /// Of equal ends the one that took fewer steps counts, then the first.
    fn outlasts(&self, other: &Self) -> bool {
        (other.end, &self.way) < (self.end, &other.way)
    }
}

impl<V> Way<V> {
    const NEW: Self = Self { steps: 0, landmark: None };
}

/// The rule for a group: when too many members are down for longer than its buffer.
fn lacking<V: Id>(parts: &[(&Part<V>, i64)]) -> Option<(V, Vec<Stretch<V>>)> {
    let [(Part::Gate(gate), _), rest @ ..] = parts else { return None };
    let members = rest.iter().filter_map(|(part, count)| if let Part::Member(down) = part { Some((down, *count)) } else { None });
    let too_few = match gate.failures {
        1 => united(members.flat_map(|(down, _)| down.iter().cloned()).collect()),
        enough => {
            let edges =
                members.flat_map(|(down, count)| down.iter().flat_map(move |stretch| [(stretch.start, count), (stretch.end, -count)]));
            crowded(edges.collect(), enough).into_iter().map(|(start, end)| Stretch { start, end, way: Way::NEW }).collect()
        }
    };
    let later = too_few.into_iter().map(|stretch| Stretch { start: stretch.start + gate.buffer_ms, ..stretch });
    let lacking: Vec<Stretch<V>> = later.filter(|stretch| stretch.start < stretch.end).collect();
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

/// The same time, as few stretches as can be.
fn united<V: Id>(mut stretches: Vec<Stretch<V>>) -> Vec<Stretch<V>> {
    stretches.sort_unstable_by_key(|stretch| stretch.start);
    let mut united: Vec<Stretch<V>> = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        match united.last_mut() {
            Some(last) if stretch.start <= last.end => {
                if stretch.outlasts(last) {
                    (last.end, last.way) = (stretch.end, stretch.way);
                }
            }
            _ => united.push(stretch),
        }
    }
    united
}
