//! `lanes`: many cascades at once, a bit each.
//!
//! SQL     failure_probability(nodes, groups, members, samples => 4096, seed => 0)
//! In      the lanes in which a node fails by itself, and those in which a member takes its group with
//!         it; groups
//! Out     (node, block, lanes in which it fails): per lane what `reach` gives
//! State   the arrangements of the loop, by tick and round, with 128 bytes per node and block; freed
//!         only as rows are deleted
//! Errors  as in `cascade`
//! Source  Monte Carlo with common random numbers as a least fixpoint over bit sets: a lane's bit is
//!         a hash of seed, lane and edge, so equal input gives equal bits, and a greater probability only
//!         more of them. The k-of-n count is a carry-save adder: Warren, Hacker's Delight, 2012

use differential_dataflow::Hashable;
use serde::{Deserialize, Serialize};

use super::{Gate, Id, Relation, Settled, reduced, settle};

/// Lanes of one block.
pub const BLOCK_LANES: i64 = 1024;
const WORDS: usize = BLOCK_LANES as usize / 64;

/// One bit per lane of a block.
pub type Lanes = [u64; WORDS];

/// No lane.
pub const NONE: Lanes = [0; WORDS];
const ALL: Lanes = [u64::MAX; WORDS];

/// How likely something is: of 2^64 draws, so many; None: always.
pub type Chance = Option<u64>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Part<V> {
    Gate(Gate<V>),
    Member(Lanes),
}

/// `probability`: 0 to 1.
pub fn chance(probability: f64) -> Chance {
    // Casts of floats saturate; only 1 itself is beyond all draws.
    (probability < 1.0).then_some((probability * 18_446_744_073_709_551_616.0) as u64)
}

/// The lanes of `block` in which something happens that has `chance`, for who draws as `key`.
pub fn drawn(seed: u64, key: u64, block: u32, chance: Chance) -> Lanes {
    let Some(chance) = chance else { return ALL };
    if chance == 0 {
        return NONE;
    }
    let stream = mixed(seed ^ mixed(key));
    let first = u64::from(block) * BLOCK_LANES as u64;
    let bit = |word: usize, bit: usize| u64::from(mixed(stream.wrapping_add(first + (64 * word + bit) as u64)) < chance) << bit;
    std::array::from_fn(|word| (0..64).fold(0, |bits, at| bits | bit(word, at)))
}

/// Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
fn mixed(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Failures by chance: (node, how many of the samples it fails in), where any. `members`: (node,
/// (group, chance that it takes the group with it)). Equal rows draw alike.
pub fn failure_counts<'scope, V: Id, G: Id>(
    nodes: Relation<'scope, u64, (V, Chance)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, Chance))>,
    blocks: u32,
    seed: u64,
    rounds_max: u64,
) -> Settled<'scope, (V, i64), G> {
    let own = nodes.flat_map(move |(node, chance)| {
        let key = (0_u8, &node).hashed();
        (0..blocks).map(move |block| (block, drawn(seed, key, block, chance))).map(move |(block, lanes)| ((node.clone(), block), lanes))
    });
    let takes = move |node: &V, group: &G, chance: &Chance, block| drawn(seed, (1_u8, node, group).hashed(), block, *chance);
    let settled = lanes(own, gates, members, blocks, takes, rounds_max);
    let counted = settled.rows.explode(|((node, _), lanes)| Some((node, ones(&lanes))));
    Settled {
        rows: reduced(counted.map(|node| (node, ())), "Count", |_, all, out| out.push((all[0].1, 1)))
            .as_collection(|node, count| (node.clone(), *count)),
        flaws: settled.flaws,
    }
}

fn ones(lanes: &Lanes) -> i64 {
    lanes.iter().map(|word| i64::from(word.count_ones())).sum()
}

/// `own`: the lanes in which a node fails by itself; several rows of one node add up. `members`:
/// (node, (group, edge)), of which `takes` gives the lanes in which a failed node fails the group.
pub fn lanes<'scope, V: Id, G: Id, E: Id>(
    own: Relation<'scope, u64, ((V, u32), Lanes)>,
    gates: Relation<'scope, u64, (G, Gate<V>)>,
    members: Relation<'scope, u64, (V, (G, E))>,
    blocks: u32,
    takes: impl Fn(&V, &G, &E, u32) -> Lanes + 'static,
    rounds_max: u64,
) -> Settled<'scope, ((V, u32), Lanes), G> {
    let scope = own.inner.scope();
    let own = own.filter(|(_, lanes)| lanes != &NONE);
    let gates = gates.flat_map(move |(group, gate)| (0..blocks).map(move |block| ((group.clone(), block), Part::Gate(gate.clone()))));
    let members = members.arrange_by_key_named("Members");
    settle(scope, "Lanes", rounds_max, |inner, failing| {
        let failed = reduced(own.enter(inner).concat(failing), "Failed", |_, all, out| {
            out.push((all.iter().fold(NONE, |sum, (lanes, _)| either(&sum, lanes)), 1));
        });
        let failed = failed.as_collection(|(node, block), lanes| ((node.clone(), *block), *lanes));
        let by_node = failed.clone().map(|((node, block), lanes)| (node, (block, lanes))).arrange_by_key_named("FailedByNode");
        let failing = by_node.join_core(members.enter(inner), move |node, (block, lanes), (group, edge)| {
            let taken = both(lanes, &takes(node, group, edge, *block));
            (taken != NONE).then(|| ((group.clone(), *block), Part::Member(taken)))
        });
        let next = reduced(gates.enter(inner).concat(failing), "Groups", |_, parts, out| out.extend(fails(parts).map(|fails| (fails, 1))));
        (failed, next.as_collection(|(_, block), (node, lanes)| ((node.clone(), *block), *lanes)))
    })
}

/// The rule: the lanes in which a group's node fails, as too many members do.
fn fails<V: Id>(parts: &[(&Part<V>, i64)]) -> Option<(V, Lanes)> {
    let [(Part::Gate(gate), _), rest @ ..] = parts else { return None };
    let members = rest.iter().filter_map(|(part, count)| if let Part::Member(lanes) = part { Some((lanes, *count)) } else { None });
    let lanes = crowded(members, gate.failures);
    (lanes != NONE).then(|| (gate.node.clone(), lanes))
}

/// The lanes with at least `enough` bits, each counted so many times.
pub fn crowded<'a>(all: impl Iterator<Item = (&'a Lanes, i64)>, enough: i64) -> Lanes {
    // Digit i of a lane's sum is its bit in planes[i].
    let mut planes: Vec<Lanes> = Vec::new();
    for (lanes, count) in all {
        (0..63).filter(|digit| count >> digit & 1 == 1).for_each(|digit| add(&mut planes, lanes, digit));
    }
    let digits = planes.len().max(64 - enough.leading_zeros() as usize);
    // From the highest digit down: what is greater already, and what is equal so far.
    let (greater, equal) = (0..digits).rev().fold((NONE, ALL), |(greater, equal), digit| {
        let plane = planes.get(digit).unwrap_or(&NONE);
        match enough >> digit & 1 {
            1 => (greater, both(&equal, plane)),
            _ => (either(&greater, &both(&equal, plane)), without(&equal, plane)),
        }
    });
    either(&greater, &equal)
}

fn add(planes: &mut Vec<Lanes>, lanes: &Lanes, digit: usize) {
    let (mut carry, mut digit) = (*lanes, digit);
    while carry != NONE {
        if planes.len() <= digit {
            planes.resize(digit + 1, NONE);
        }
        let plane = &mut planes[digit];
        let next = both(plane, &carry);
        *plane = std::array::from_fn(|word| plane[word] ^ carry[word]);
        (carry, digit) = (next, digit + 1);
    }
}

/// The lanes of one or the other.
pub fn either(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|word| a[word] | b[word])
}

/// The lanes of one and the other.
pub fn both(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|word| a[word] & b[word])
}

/// The lanes of one that are not of the other.
pub fn without(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|word| a[word] & !b[word])
}
