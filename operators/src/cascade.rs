//! `cascade`: what fails with what fails, through groups of which enough must be up.
//!
//! SQL     `reach`, `restoration_order`, `time_to_impact`, `impact_causes`, `downtime`,
//!         `failure_probability` and `risk_chains` in FROM
//! In      groups (a node needs so many of the members), members, and what is down by itself
//! Out     one rule per file; each is the least fixpoint over the input as it is, on cycles too,
//!         never seeded with the last answer
//! State   arrangements of groups and members, and of a loop's values by tick and round; freed only
//!         as rows are deleted. A count per row of the result, to take it back while a loop does not settle
//! Errors  a group that is defined twice, or needs less than one or more than all of its members, is a
//!         flaw and counts as not there; a loop that changes in its last round has a flaw instead of rows; where
//!         parts of it know nothing of each other, as scenarios, only the part that does
//! Source  Abo Khamis et al., Convergence of Datalog over (Pre-)Semirings, JACM 2024; Knuth,
//!         A Generalization of Dijkstra's Algorithm, IPL 1977; McSherry et al., CIDR 2013

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::operators::iterate::Variable;
use differential_dataflow::trace::implementations::{ValBuilder, ValSpine};
use differential_dataflow::{AsCollection, Data, ExchangeData, VecCollection};
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Filter};
use timely::order::Product;
use timely::progress::Timestamp;
use timely::progress::frontier::MutableAntichain;

pub mod downtime;
pub mod impact_causes;
pub mod lanes;
pub mod reach;
pub mod risk_chains;
pub mod time_to_impact;

/// A relation: rows, times, and how many copies come or go.
pub type Relation<'scope, T, D> = VecCollection<'scope, T, D, i64>;
/// A relation at rest, by key.
pub type ByKey<'scope, T, K, V> = Arranged<'scope, TraceAgent<ValSpine<K, V, T, i64>>>;
/// Within a loop: the tick, and the round.
pub type Round = Product<u64, u64>;

/// What names a node or a group.
pub trait Id: ExchangeData + Hash {}

impl<T: ExchangeData + Hash> Id for T {}

/// Rounds after which a loop counts as one that does not settle.
pub const ROUNDS_MAX: u64 = 10_000;

/// The longest delay, buffer or restart, some 34 years: as many of them as there are rounds, and a
/// time of [`TIME_MS_MAX`], stay far from the end of 64 bits.
pub const DURATION_MS_MAX: i64 = 1 << 40;
pub const TIME_MS_MAX: i64 = 1 << 61;

/// `node` needs `need` of the group's members, or all of them, and lasts `buffer_ms` without.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group<V> {
    pub node: V,
    pub need: Option<i64>,
    pub buffer_ms: i64,
}

/// A group whose members are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gate<V> {
    pub node: V,
    pub need: i64,
    /// So many failed members are too many.
    pub failures: i64,
    pub buffer_ms: i64,
}

/// What is wrong with the input as a whole, or with the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Flaw<G> {
    /// The group has so many definitions.
    Repeated { group: G, count: i64 },
    /// It needs so many of so many members.
    Need { group: G, need: i64, members: i64 },
    /// There is no fixpoint within [`ROUNDS_MAX`] rounds.
    Unsettled,
}

/// Groups with what their number of members makes of `need`, and those of which it makes no sense.
/// A member that is listed twice counts twice.
pub fn gates<'scope, T, V: Id, G: Id>(
    groups: Relation<'scope, T, (G, Group<V>)>,
    members: Relation<'scope, T, G>,
) -> (Relation<'scope, T, (G, Gate<V>)>, Relation<'scope, T, Flaw<G>>)
where
    T: Timestamp + Lattice + Ord,
{
    let parts = groups.map(|(group, definition)| (group, Some(definition))).concat(members.map(|group| (group, None)));
    let judged = reduced(parts, "Gates", |group, parts, out| out.extend(gate(group, parts).map(|gate| (gate, 1))));
    let judged = judged.as_collection(|group, gate| (group.clone(), gate.clone()));
    let gates = judged.clone().flat_map(|(group, gate)| gate.ok().map(|gate| (group, gate)));
    (gates, judged.flat_map(|(_, gate)| gate.err()))
}

/// The rule: None are the members.
fn gate<V: Id, G: Id>(group: &G, parts: &[(&Option<Group<V>>, i64)]) -> Option<Result<Gate<V>, Flaw<G>>> {
    let members: i64 = parts.iter().filter(|(part, _)| part.is_none()).map(|(_, count)| count).sum();
    let count: i64 = parts.iter().filter(|(part, _)| part.is_some()).map(|(_, count)| count).sum();
    let definition = parts.iter().find_map(|(part, _)| part.as_ref())?;
    if count != 1 {
        return Some(Err(Flaw::Repeated { group: group.clone(), count }));
    }
    let need = match definition.need {
        None if members == 0 => return None,
        need => need.unwrap_or(members),
    };
    if need < 1 || members < need {
        return Some(Err(Flaw::Need { group: group.clone(), need, members }));
    }
    let (node, buffer_ms) = (definition.node.clone(), definition.buffer_ms);
    Some(Ok(Gate { node, need, failures: members - need + 1, buffer_ms }))
}

/// A loop's values, and the flaw where there are none.
pub struct Settled<'scope, D: 'static, G: 'static> {
    pub rows: Relation<'scope, u64, D>,
    pub flaws: Relation<'scope, u64, Flaw<G>>,
}

/// The values of the parts of a loop that settle, and the parts that do not.
pub struct Parts<'scope, D: 'static, P: 'static> {
    pub rows: Relation<'scope, u64, D>,
    pub unsettled: Relation<'scope, u64, P>,
}

/// As [`settle_parts`], where all is one part.
pub fn settle<'scope, D: Id, F: Id, G: Id>(
    scope: Scope<'scope, u64>,
    name: &str,
    rounds_max: u64,
    step: impl for<'inner> FnOnce(Scope<'inner, Round>, Relation<'inner, Round, F>) -> (Relation<'inner, Round, D>, Relation<'inner, Round, F>),
) -> Settled<'scope, D, G> {
    let all = settle_parts(scope, name, rounds_max, |_| (), |_| (), step);
    Settled { rows: all.rows, flaws: all.unsettled.map(|()| Flaw::Unsettled) }
}

/// Runs `step` until what it feeds back changes no more. It gets the loop's scope and the last
/// round's feedback, and gives the values and the next feedback, which comes out of a reduce: what
/// cancels out must not go round. What belongs to one part must not depend on another.
pub fn settle_parts<'scope, D: Id, F: Id, P: Id>(
    scope: Scope<'scope, u64>,
    name: &str,
    rounds_max: u64,
    part_of: impl Fn(&D) -> P + 'static,
    part_of_feedback: impl Fn(&F) -> P + 'static,
    step: impl for<'inner> FnOnce(Scope<'inner, Round>, Relation<'inner, Round, F>) -> (Relation<'inner, Round, D>, Relation<'inner, Round, F>),
) -> Parts<'scope, D, P> {
    let (rows, doubts) = scope.scoped::<Round, _, _>(name, |inner| {
        let (variable, last) = Variable::new(inner, Product::new(0, 1));
        let (rows, next) = step(inner, last);
        let doubts = next.clone().inner.filter(move |(_, time, _)| rounds_max <= time.inner).as_collection();
        variable.set(next.inner.filter(move |(_, time, _)| time.inner < rounds_max).as_collection());
        (rows.leave(scope), doubts.leave(scope))
    });
    let rows = rows.map(move |row| (part_of(&row), row));
    let judged = without_doubt(rows, doubts.map(move |doubt| (part_of_feedback(&doubt), doubt)));
    Parts { rows: judged.clone().flat_map(Result::ok), unsettled: judged.flat_map(Result::err) }
}

/// The rows of each part at the ticks at which it has no doubts left, and the part itself, once, at the others. Every
/// worker hears of all doubts.
fn without_doubt<'scope, P: Id, D: Id, F: Id>(
    rows: Relation<'scope, u64, (P, D)>,
    doubts: Relation<'scope, u64, (P, F)>,
) -> Relation<'scope, u64, Result<D, P>> {
    let tells = rows.inner.scope().index() == 0;
    let doubts = doubts.inner.broadcast();
    let judged = rows.inner.binary_frontier(doubts, Pipeline, Pipeline, "Settled", move |_, _| {
        let mut open = BTreeMap::new();
        let mut gate = Doubted { tells, rows: HashMap::new(), doubts: HashMap::new() };
        move |(rows, rows_frontier), (doubts, doubts_frontier), output| {
            rows.for_each(|cap, data| {
                for (row, tick, diff) in data.drain(..) {
                    open.entry(tick).or_insert_with(|| (cap.delayed(&tick, 0), Vec::new(), Vec::new())).1.push((row, diff));
                }
            });
            doubts.for_each(|cap, data| {
                for (doubt, tick, diff) in data.drain(..) {
                    open.entry(tick).or_insert_with(|| (cap.delayed(&tick, 0), Vec::new(), Vec::new())).2.push((doubt, diff));
                }
            });
            let first = |frontier: &MutableAntichain<u64>| frontier.frontier().first().copied().unwrap_or(u64::MAX);
            let closed_before = first(rows_frontier).min(first(doubts_frontier));
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let (tick, (capability, rows, doubts)) = entry.remove_entry();
                let changes = gate.step(rows, doubts);
                if !changes.is_empty() {
                    output.session(&capability).give_iterator(changes.into_iter().map(|(row, diff)| (row, tick, diff)));
                }
            }
        }
    });
    judged.as_collection()
}

/// The rule: a part's rows pass while there is no doubt of it.
struct Doubted<P, D, F> {
    /// Whether it is this one that says of which parts there is a doubt.
    tells: bool,
    rows: Counts<P, D>,
    doubts: Counts<P, F>,
}

/// By part, how often each row is there; parts without one are not.
type Counts<P, D> = HashMap<P, HashMap<D, i64>>;

impl<P: Id, D: Id, F: Id> Doubted<P, D, F> {
    fn step(&mut self, mut rows: Vec<((P, D), i64)>, doubts: Vec<((P, F), i64)>) -> Vec<(Result<D, P>, i64)> {
        consolidate(&mut rows);
        let named: BTreeSet<P> = doubts.iter().map(|((part, _), _)| part.clone()).collect();
        let doubted: BTreeSet<P> = named.iter().filter(|part| self.doubts.contains_key(*part)).cloned().collect();
        count(&mut self.doubts, doubts);
        let turned: BTreeSet<P> = named.into_iter().filter(|part| self.doubts.contains_key(part) != doubted.contains(part)).collect();
        let mut changes = Vec::new();
        for part in turned.difference(&doubted) {
            changes.extend(self.all(part, -1));
        }
        let passing = rows.iter().filter(|((part, _), _)| !turned.contains(part) && !self.doubts.contains_key(part));
        changes.extend(passing.map(|((_, row), diff)| (Ok(row.clone()), *diff)));
        count(&mut self.rows, rows);
        for part in turned.intersection(&doubted) {
            changes.extend(self.all(part, 1));
        }
        changes
    }

    /// All rows of a part that come or go as the doubt of it goes or comes.
    fn all(&self, part: &P, sign: i64) -> Vec<(Result<D, P>, i64)> {
        let rows = self.rows.get(part).into_iter().flatten().map(|(row, count)| (Ok(row.clone()), sign * count));
        rows.chain(self.tells.then(|| (Err(part.clone()), -sign))).collect()
    }
}

fn count<P: Id, D: Id>(counts: &mut Counts<P, D>, changes: Vec<((P, D), i64)>) {
    for ((part, row), diff) in changes {
        let rows = counts.entry(part.clone()).or_default();
        let count = rows.entry(row.clone()).or_default();
        *count += diff;
        if *count == 0 {
            rows.remove(&row);
        }
        if rows.is_empty() {
            counts.remove(&part);
        }
    }
}

/// As differential's reduce, kept at rest by key for who joins with it.
pub fn reduced<'scope, T, K: Id, V: ExchangeData, W: Data>(
    rows: Relation<'scope, T, (K, V)>,
    name: &str,
    logic: impl FnMut(&K, &[(&V, i64)], &mut Vec<(W, i64)>) + 'static,
) -> ByKey<'scope, T, K, W>
where
    T: Timestamp + Lattice + Ord,
{
    rows.arrange_by_key_named(name).reduce_abelian::<_, ValBuilder<_, _, _, _>, ValSpine<_, _, _, _>, _, _>(
        name,
        logic,
        |updates, key, changes| {
            updates.clear();
            updates.extend(changes.drain(..).map(|(value, time, diff)| ((key.clone(), value), time, diff)));
        },
    )
}

/// Runs a sum over values with counts, in their order, to the `nth` one.
pub fn nth<'a, V: 'a>(values: impl Iterator<Item = (&'a V, i64)>, nth: i64) -> Option<&'a V> {
    let mut passed = 0;
    values
        .into_iter()
        .find(|(_, count)| {
            passed += count;
            nth <= passed
        })
        .map(|(value, _)| value)
}
