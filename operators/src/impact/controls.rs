//! `controls`: which counter-measures to take for a budget.
//!
//! SQL     choose_controls(controls, covers, findings, exclusions, budget => …)
//! In      a control and its cost; what part of a finding it averts, alone or on a way that takes all
//!         of its controls; what a finding costs; controls that exclude each other
//! Out     (control, step in which it is chosen, cost, loss that it averts beside those before it). Ways
//!         avert independently: of a finding there remains loss · Π (1 − effectiveness)
//! State   all rows, on one worker; chosen anew in each tick that changes any
//! Errors  a control that has several costs is a flaw and counts as not there
//! Source  Leskovec et al., Cost-effective Outbreak Detection in Networks, KDD 2007: of greedy by ratio and
//!         the best single one the better is at least (1 − 1/e)/2 of the best set, if nothing takes two
//!         controls together. That hardening takes two of an AND is why ways are candidates themselves

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::anew;
use crate::cascade::{Id, Relation};
use crate::usage::Usage;

/// Effectiveness is told to a millionth.
pub const UNITS_PER_EFFECT: i64 = 1_000_000;
/// Greedy begins with nothing, and with each of so many candidates that are best by ratio, and by gain.
const STARTS: usize = 16;

/// What averts a part of a finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cover<C, F, W> {
    pub control: C,
    pub finding: F,
    /// All controls of a way are needed; None: this one is enough.
    pub way: Option<W>,
    /// In units; of a way's controls the least counts.
    pub effect: i64,
}

/// That a control is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Choice {
    /// From 1.
    pub step: i64,
    pub cost: i64,
    pub averted: i128,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Row<C, F, W> {
    Control(C, i64),
    Cover(Cover<C, F, W>),
    Finding(F, i64),
    Exclusion(C, C),
}

/// A control that has several costs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Repeated<C>(pub C);

/// Amounts are in units, none is negative. `findings`: several rows of one add up.
pub fn choose_controls<'scope, C: Id, F: Id, W: Id>(
    controls: Relation<'scope, u64, (C, i64)>,
    covers: Relation<'scope, u64, Cover<C, F, W>>,
    findings: Relation<'scope, u64, (F, i64)>,
    exclusions: Relation<'scope, u64, (C, C)>,
    budget: i64,
    usage: Usage,
) -> (Relation<'scope, u64, (C, Choice)>, Relation<'scope, u64, Repeated<C>>) {
    let rows = controls
        .map(|(control, cost)| Row::Control(control, cost))
        .concat(covers.map(Row::Cover))
        .concat(findings.map(|(finding, loss)| Row::Finding(finding, loss)))
        .concat(exclusions.map(|(control, other)| Row::Exclusion(control, other)));
    let answers = anew(rows, "ChooseControls", usage, move |rows| answers(rows, budget));
    (answers.clone().flat_map(Result::ok), answers.flat_map(Result::err))
}

fn answers<C: Id, F: Id, W: Id>(rows: &BTreeMap<Row<C, F, W>, i64>, budget: i64) -> BTreeSet<Result<(C, Choice), Repeated<C>>> {
    let mut costs: BTreeMap<&C, BTreeMap<i64, i64>> = BTreeMap::new();
    for (row, count) in rows {
        if let Row::Control(control, cost) = row {
            costs.entry(control).or_default().insert(*cost, *count);
        }
    }
    let (once, several): (Vec<_>, Vec<_>) = costs.into_iter().partition(|(_, costs)| costs.values().sum::<i64>() == 1);
    let names: Vec<&C> = once.iter().map(|(control, _)| *control).collect();
    let costs = once.iter().flat_map(|(_, costs)| costs.keys().copied()).collect();
    let market = Market::new(rows, &names, costs, budget);
    let chosen = market.choose().into_iter().map(|(control, choice)| Ok((names[control].clone(), choice)));
    chosen.chain(several.into_iter().map(|(control, _)| Err(Repeated(control.clone())))).collect()
}

/// Controls, findings and ways as numbers.
struct Market {
    budget: i64,
    /// By control.
    costs: Vec<i64>,
    excluded: Vec<Vec<usize>>,
    ways_of: Vec<Vec<usize>>,
    /// By way.
    ways: Vec<Way>,
    /// By finding.
    losses: Vec<i64>,
    ways_to: Vec<Vec<usize>>,
    /// Controls to be taken together: each alone, and those of each way.
    candidates: Vec<Vec<usize>>,
}

struct Way {
    finding: usize,
    controls: Vec<usize>,
    effect: i64,
}

impl Market {
    /// Ways with a control that has no price, or that lead to no finding, are none.
    fn new<C: Id, F: Id, W: Id>(rows: &BTreeMap<Row<C, F, W>, i64>, names: &[&C], costs: Vec<i64>, budget: i64) -> Self {
        let numbers: HashMap<&C, usize> = names.iter().enumerate().map(|(number, name)| (*name, number)).collect();
        let mut losses: BTreeMap<&F, i64> = BTreeMap::new();
        let mut excluded = vec![Vec::new(); names.len()];
        let mut ways: BTreeMap<(&F, Option<&W>, Option<&C>), Vec<(&C, i64)>> = BTreeMap::new();
        for (row, count) in rows {
            match row {
                Row::Finding(finding, loss) => {
                    let sum = losses.entry(finding).or_default();
                    *sum = sum.saturating_add(loss.saturating_mul(*count));
                }
                Row::Exclusion(control, other) => {
                    if let (Some(control), Some(other)) = (numbers.get(control), numbers.get(other)) {
                        excluded[*control].push(*other);
                        excluded[*other].push(*control);
                    }
                }
                Row::Cover(cover) => {
                    let alone = cover.way.is_none().then_some(&cover.control);
                    ways.entry((&cover.finding, cover.way.as_ref(), alone)).or_default().push((&cover.control, cover.effect));
                }
                Row::Control(..) => {}
            }
        }
        let findings: HashMap<&F, usize> = losses.keys().enumerate().map(|(number, finding)| (*finding, number)).collect();
        let ways = ways.into_iter().filter_map(|((finding, ..), parts)| {
            let controls: Option<BTreeSet<usize>> = parts.iter().map(|(control, _)| numbers.get(control).copied()).collect();
            let effect = parts.iter().map(|(_, effect)| *effect).min()?;
            Some(Way { finding: *findings.get(finding)?, controls: controls?.into_iter().collect(), effect })
        });
        let ways: Vec<Way> = ways.collect();
        let (mut ways_of, mut ways_to) = (vec![Vec::new(); names.len()], vec![Vec::new(); losses.len()]);
        for (number, way) in ways.iter().enumerate() {
            way.controls.iter().for_each(|control| ways_of[*control].push(number));
            ways_to[way.finding].push(number);
        }
        let bundles: BTreeSet<&Vec<usize>> = ways.iter().map(|way| &way.controls).filter(|controls| 1 < controls.len()).collect();
        let candidates = (0..names.len()).map(|control| vec![control]).chain(bundles.into_iter().cloned()).collect();
        Self { budget, costs, excluded, ways_of, ways, losses: losses.into_values().collect(), ways_to, candidates }
    }

    /// The best of several greedy choices; of equal ones the cheapest, then the first.
    fn choose(&self) -> Vec<(usize, Choice)> {
        let nothing = self.nothing();
        let mut open: Vec<(usize, Offer)> =
            (0..self.candidates.len()).filter_map(|candidate| Some((candidate, self.offer(&nothing, candidate)?))).collect();
        let mut starts = BTreeSet::new();
        for by in [Offer::ratio as fn(&Offer) -> f64, Offer::gain] {
            open.sort_by(|(_, a), (_, b)| by(b).total_cmp(&by(a)));
            starts.extend(open.iter().take(STARTS).map(|(candidate, _)| *candidate));
        }
        let chosen = starts.into_iter().map(|candidate| {
            let mut chosen = self.nothing();
            self.take(&mut chosen, candidate);
            self.fill(chosen, Offer::ratio)
        });
        let all = [self.fill(self.nothing(), Offer::ratio), self.fill(self.nothing(), Offer::gain)].into_iter().chain(chosen);
        let best = all.min_by_key(|chosen| (-chosen.averted, chosen.cost)).unwrap_or(nothing);
        best.choices
    }

    /// Takes what is best `by` this, for as long as there is something that fits and averts more.
    fn fill(&self, mut chosen: Chosen, by: fn(&Offer) -> f64) -> Chosen {
        loop {
            let offers = (0..self.candidates.len()).filter_map(|candidate| Some((candidate, self.offer(&chosen, candidate)?)));
            // Of equal ones the first.
            let best = offers.reduce(|best, other| if by(&best.1) < by(&other.1) { other } else { best });
            match best {
                Some((candidate, _)) => self.take(&mut chosen, candidate),
                None => return chosen,
            }
        }
    }

    fn nothing(&self) -> Chosen {
        Chosen {
            is_chosen: vec![false; self.costs.len()],
            missing: self.ways.iter().map(|way| way.controls.len()).collect(),
            cost: 0,
            averted: 0,
            choices: Vec::new(),
        }
    }

    /// What a candidate adds, if it fits and does.
    fn offer(&self, chosen: &Chosen, candidate: usize) -> Option<Offer> {
        let added: Vec<usize> = self.candidates[candidate].iter().copied().filter(|control| !chosen.is_chosen[*control]).collect();
        let excludes = |control: &usize| self.excluded[*control].iter().any(|other| chosen.is_chosen[*other] || added.contains(other));
        let cost = added.iter().try_fold(0_i64, |sum, control| sum.checked_add(self.costs[*control]))?;
        if self.budget - chosen.cost < cost || added.iter().any(excludes) {
            return None;
        }
        let gain = self.gain(chosen, &added);
        (0 < gain).then_some(Offer { gain, cost })
    }

    fn gain(&self, chosen: &Chosen, added: &[usize]) -> i128 {
        let mut fewer: BTreeMap<usize, usize> = BTreeMap::new();
        added.iter().flat_map(|control| &self.ways_of[*control]).for_each(|way| *fewer.entry(*way).or_default() += 1);
        let findings: BTreeSet<usize> =
            fewer.iter().filter(|(way, fewer)| chosen.missing[**way] == **fewer).map(|(way, _)| self.ways[*way].finding).collect();
        let before = |way: usize| chosen.missing[way];
        let after = |way: usize| chosen.missing[way] - fewer.get(&way).copied().unwrap_or(0);
        findings.iter().map(|finding| i128::from(self.remaining(*finding, before)) - i128::from(self.remaining(*finding, after))).sum()
    }

    /// What a finding costs with ways of which so many controls are missing.
    fn remaining(&self, finding: usize, missing: impl Fn(usize) -> usize) -> i64 {
        let done = self.ways_to[finding].iter().filter(|way| missing(**way) == 0).map(|way| self.ways[*way].effect);
        let remains =
            |loss: i64, effect: i64| (i128::from(loss) * i128::from(UNITS_PER_EFFECT - effect) / i128::from(UNITS_PER_EFFECT)) as i64;
        done.fold(self.losses[finding], remains)
    }

    /// A control after the other; the last of a way gets what the way averts.
    fn take(&self, chosen: &mut Chosen, candidate: usize) {
        for &control in &self.candidates[candidate] {
            if chosen.is_chosen[control] {
                continue;
            }
            let averted = self.gain(chosen, &[control]);
            chosen.is_chosen[control] = true;
            self.ways_of[control].iter().for_each(|way| chosen.missing[*way] -= 1);
            chosen.cost += self.costs[control];
            chosen.averted += averted;
            let step = chosen.choices.len() as i64 + 1;
            chosen.choices.push((control, Choice { step, cost: self.costs[control], averted }));
        }
    }
}

/// A set of controls, in the order in which they were chosen.
struct Chosen {
    is_chosen: Vec<bool>,
    /// By way: of how many controls it lacks.
    missing: Vec<usize>,
    cost: i64,
    averted: i128,
    choices: Vec<(usize, Choice)>,
}

#[derive(Clone, Copy)]
struct Offer {
    gain: i128,
    cost: i64,
}

impl Offer {
    fn gain(&self) -> f64 {
        self.gain as f64
    }

    /// What costs nothing is best.
    fn ratio(&self) -> f64 {
        self.gain as f64 / self.cost as f64
    }
}
