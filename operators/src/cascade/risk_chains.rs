//! `risk_chains`: the worst ways in which harm spreads from each node, and all of them together.
//!
//! SQL     risk_chains(edges, hops => 5, top => 1); total_risk(edges, hops => 5)
//! In      (from, to, likelihood, impact)
//! Out     DR(v, w, …) = L(I + DR(w, …)) of each chain of at most `hops` edges, which may come back to
//!         a node. `risk_chains`: the `top` greatest per node; of equal ones that with the worse rest, and
//!         then the first by its nodes. `total_risk`: their sum
//! State   the edges by where they lead, and per hop what each node has; freed only as rows are deleted
//! Errors  a sum that is too great for what is kept of it is None
//! Source  Kotzanikolaou, Theoharidou, Gritzalis, Assessing n-order dependencies between critical
//!         infrastructures, IJCIS 2013

use serde::{Deserialize, Serialize};

use super::{ByKey, Id, Relation, reduced};

/// A risk's unit is a millionth of an impact's; a likelihood's a billionth.
pub const UNITS_PER_IMPACT: f64 = 1e6;
pub const UNITS_PER_LIKELIHOOD: i64 = 1_000_000_000;
/// Impacts up to here cannot leave 64 bits within [`HOPS_MAX`] hops of one chain.
pub const IMPACT_MAX: f64 = 1e11;
pub const HOPS_MAX: i64 = 32;
/// A sum up to here can be scaled.
pub const TOTAL_MAX: i128 = 1 << 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// In billionths.
    pub likelihood: i64,
    /// In millionths.
    pub impact: i64,
}

/// A chain from a node: the nodes it leads through, and its risk from each on, that of all of it
/// first. Rounding may make two chains' risks equal; their rests then still say which is worse, and
/// so the `top` of a node are made of the `top` of the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Chain<V> {
    pub risks: Vec<i64>,
    pub path: Vec<V>,
}

/// `edges`: (from, (to, edge)). Gives (node, (rank, chain)).
pub fn risk_chains<'scope, V: Id>(
    edges: Relation<'scope, u64, (V, (V, Edge))>,
    hops: i64,
    top: i64,
) -> Relation<'scope, u64, (V, (i64, Chain<V>))> {
    let single = edges.clone().map(|(from, (to, edge))| (from, Chain { risks: vec![risk(edge, 0)], path: vec![to] }));
    let into = into(edges);
    let mut best = first(single.clone(), top);
    for _ in 1..hops {
        let longer = into.clone().join_core(best, |via, (from, edge), (_, chain)| {
            let path = std::iter::once(via).chain(&chain.path).cloned().collect();
            let risks = std::iter::once(risk(*edge, chain.risks[0])).chain(chain.risks.iter().copied()).collect();
            Some((from.clone(), Chain { risks, path }))
        });
        best = first(single.clone().concat(longer), top);
    }
    best.as_collection(|node, ranked| (node.clone(), ranked.clone()))
}

/// Gives (node, sum), in a risk's units; None where it is more than [`TOTAL_MAX`].
pub fn total_risk<'scope, V: Id>(edges: Relation<'scope, u64, (V, (V, Edge))>, hops: i64) -> Relation<'scope, u64, (V, Option<i128>)> {
    let single = edges.clone().map(|(from, (_, edge))| (from, Some(i128::from(risk(edge, 0)))));
    let into = into(edges);
    let mut total = summed(single.clone());
    for _ in 1..hops {
        let longer =
            into.clone().join_core(total, |_, (from, edge), rest| Some((from.clone(), rest.map(|rest| scaled(edge.likelihood, rest)))));
        total = summed(single.clone().concat(longer));
    }
    total.as_collection(|node, sum| (node.clone(), *sum))
}

/// Edges by where they lead.
fn into<'scope, V: Id>(edges: Relation<'scope, u64, (V, (V, Edge))>) -> ByKey<'scope, u64, V, (V, Edge)> {
    edges.map(|(from, (to, edge))| (to, (from, edge))).arrange_by_key_named("Into")
}

/// The rule: what is likely happens, and then the rest may.
fn risk(edge: Edge, rest: i64) -> i64 {
    scaled(edge.likelihood, i128::from(edge.impact) + i128::from(rest)) as i64
}

/// To the nearest unit.
fn scaled(likelihood: i64, units: i128) -> i128 {
    let half = i128::from(UNITS_PER_LIKELIHOOD) / 2;
    (units * i128::from(likelihood) + half) / i128::from(UNITS_PER_LIKELIHOOD)
}

fn first<'scope, V: Id>(chains: Relation<'scope, u64, (V, Chain<V>)>, top: i64) -> ByKey<'scope, u64, V, (i64, Chain<V>)> {
    reduced(chains, "Worst", move |_, chains, out| {
        let mut chains: Vec<&Chain<V>> = chains.iter().map(|(chain, _)| *chain).collect();
        chains.sort_by(|a, b| b.risks.cmp(&a.risks).then_with(|| a.path.cmp(&b.path)));
        out.extend((1..=top).zip(chains).map(|(rank, chain)| ((rank, chain.clone()), 1)));
    })
}

fn summed<'scope, V: Id>(risks: Relation<'scope, u64, (V, Option<i128>)>) -> ByKey<'scope, u64, V, Option<i128>> {
    reduced(risks, "Total", |_, risks, out| out.push((sum(risks), 1)))
}

fn sum(risks: &[(&Option<i128>, i64)]) -> Option<i128> {
    let sum = risks.iter().try_fold(0_i128, |sum, (risk, count)| sum.checked_add((**risk)?.checked_mul(i128::from(*count))?));
    sum.filter(|sum| *sum <= TOTAL_MAX)
}
