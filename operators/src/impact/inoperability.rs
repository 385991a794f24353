//! `inoperability`: what part of each node's work fails, where a loss passes on in shares; and what each is worth.
//!
//! SQL     inoperability(shocks, dependencies, levels => 1000000); sensitivity(losses, dependencies)
//! In      the part of a node that fails by itself, 0 to 1; (node, what it needs, coefficient): of what
//!         the other lacks, the node lacks so much; what it costs that a node fails as a whole
//! Out     `inoperability`: q = min(1, shock + Σ coefficient · q of what it needs), in whole levels, each
//!         product rounded down. `sensitivity`: λ = loss + Σ coefficient · λ of what needs it, each
//!         product rounded down: what it costs that a node fails by itself. Rows of one node add up
//! State   all rows, on one worker; computed anew in each tick that changes any, so that it takes as
//!         many rounds as ever, however the rows came
//! Errors  values that change in the last round are a flaw instead of rows; so is a sensitivity that
//!         passes all bounds, as where what goes round comes back enlarged
//! Absent  the dynamic form, q(t + 1) = q(t) + K · (A q(t) + c(t) − q(t)): there are no published numbers to
//!         hold it to. How outages come and go in time is what `downtime` says
//! Source  Haimes, Jiang, Leontief-Based Model of Risk in Complex Interconnected Infrastructures, ASCE
//!         2001. On the finite lattice of levels the least fixpoint is exact and the same in any order,
//!         and is reached even where the matrix has no inverse

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::anew;
use crate::cascade::{Flaw, Id, Relation, Settled};
use crate::usage::Usage;

/// A coefficient is told to a billionth.
pub const UNITS_PER_COEFFICIENT: i64 = 1_000_000_000;
pub const COEFFICIENT_MAX: f64 = 1_000.0;
pub const LEVELS_MAX: i64 = 1_000_000_000;
/// Beyond it a sensitivity has no bound.
const SENSITIVITY_MAX: i64 = i64::MAX / 4;

/// `shocks`: (node, levels of `levels`); `dependencies`: (node, (what it needs, coefficient in units)).
pub fn inoperability<'scope, V: Id>(
    shocks: Relation<'scope, u64, (V, i64)>,
    dependencies: Relation<'scope, u64, (V, (V, i64))>,
    levels: i64,
    rounds_max: u64,
    usage: Usage,
) -> Settled<'scope, (V, i64), V> {
    spread(shocks, dependencies.map(|(node, (needs, coefficient))| (needs, (node, coefficient))), levels, rounds_max, usage)
}

/// What a node is worth, or None where that has no bound.
pub type Sensitivity = Option<i64>;

/// `losses`: (node, units of an amount); `dependencies` as above. Those without a loss are not there.
pub fn sensitivity<'scope, V: Id>(
    losses: Relation<'scope, u64, (V, i64)>,
    dependencies: Relation<'scope, u64, (V, (V, i64))>,
    rounds_max: u64,
    usage: Usage,
) -> Settled<'scope, (V, Sensitivity), V> {
    let settled = spread(losses, dependencies, SENSITIVITY_MAX, rounds_max, usage);
    let rows = settled.rows.map(|(node, value)| (node, (value < SENSITIVITY_MAX).then_some(value)));
    Settled { rows, flaws: settled.flaws }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Row<V> {
    Start(V, i64),
    /// From, to, coefficient.
    Edge(V, V, i64),
}

/// The least x with x(v) = min(most, start + Σ share of x(u)) over edges (u, (v, coefficient)), where it is not 0.
fn spread<'scope, V: Id>(
    starts: Relation<'scope, u64, (V, i64)>,
    edges: Relation<'scope, u64, (V, (V, i64))>,
    most: i64,
    rounds_max: u64,
    usage: Usage,
) -> Settled<'scope, (V, i64), V> {
    let starts = starts.map(|(node, start)| Row::Start(node, start));
    let rows = starts.concat(edges.map(|(from, (to, coefficient))| Row::Edge(from, to, coefficient)));
    let answers = anew(rows, "Spread", usage, move |rows| answers(rows, most, rounds_max));
    Settled { rows: answers.clone().flat_map(Result::ok), flaws: answers.flat_map(Result::err) }
}

fn answers<V: Id>(rows: &BTreeMap<Row<V>, i64>, most: i64, rounds_max: u64) -> BTreeSet<Result<(V, i64), Flaw<V>>> {
    let nodes = rows.keys().flat_map(|row| match row {
        Row::Start(node, _) => [node, node],
        Row::Edge(from, to, _) => [from, to],
    });
    let names: Vec<&V> = nodes.collect::<BTreeSet<_>>().into_iter().collect();
    let number = |node: &V| names.binary_search(&node).expect("all nodes have a number");
    let (mut sums, mut edges) = (vec![0; names.len()], vec![Vec::new(); names.len()]);
    for (row, count) in rows {
        match row {
            Row::Start(node, start) => sums[number(node)] += i128::from(*start) * i128::from(*count),
            Row::Edge(from, to, coefficient) => edges[number(from)].push((number(to), *coefficient, *count)),
        }
    }
    match settled(sums, &edges, most, rounds_max) {
        Some(values) => {
            names.into_iter().zip(values).filter(|(_, value)| *value != 0).map(|(node, value)| Ok((node.clone(), value))).collect()
        }
        None => BTreeSet::from([Err(Flaw::Unsettled)]),
    }
}

/// The rule, from 0 upwards. `sums`: what each node begins with; `edges`, by where they come from: (to, coefficient,
/// count). None: a value still changes in the last round.
fn settled(mut sums: Vec<i128>, edges: &[Vec<(usize, i64, i64)>], most: i64, rounds_max: u64) -> Option<Vec<i64>> {
    let mut values = vec![0; sums.len()];
    let mut touched: BTreeSet<usize> = (0..sums.len()).collect();
    for _ in 0..rounds_max {
        let capped = |node: &usize| i64::try_from(sums[*node].min(i128::from(most))).unwrap_or(0);
        let changed: Vec<(usize, i64)> =
            touched.iter().map(|node| (*node, capped(node))).filter(|(node, value)| values[*node] != *value).collect();
        if changed.is_empty() {
            return Some(values);
        }
        touched.clear();
        for (node, value) in changed {
            for &(to, coefficient, count) in &edges[node] {
                sums[to] += i128::from(share(value, coefficient) - share(values[node], coefficient)) * i128::from(count);
                touched.insert(to);
            }
            values[node] = value;
        }
    }
    None
}

/// What one coefficient makes of a value.
fn share(value: i64, coefficient: i64) -> i64 {
    match value.checked_mul(coefficient) {
        Some(product) => product / UNITS_PER_COEFFICIENT,
        None => i64::try_from(i128::from(value) * i128::from(coefficient) / i128::from(UNITS_PER_COEFFICIENT)).unwrap_or(i64::MAX),
    }
}
