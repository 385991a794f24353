//! Alignments: the fewest steps to add or to pass over until a case is a run of the specification.
//!
//! An event that stays without its like costs 1, and so does a step of the specification without an
//! event. A chunk is a (min,+) matrix: what it costs at least to get from one state to another by it.
//! Costs are of the events up to now: of a case that may go on (`prefix_cost`), and of one that
//! ends here (`cost`).
//!
//! Source  van der Aalst, Adriansyah and van Dongen, Replaying History on Process Models for Conformance
//!         Checking and Performance Analysis, WIREs 2012; Mohri, Semiring Frameworks and Algorithms for
//!         Shortest-Distance Problems, 2002

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::automaton::{only_initial, unknown};
use super::case::{Case, Chunks, Event, Walker};
use super::{Bytes, Flaw, Judge, Names, Part, Protocol, Symbol};

/// States of one process at most: a chunk of a long case has an entry per pair of states.
pub const STATES_MAX: usize = 64;

/// More than any case costs; twice as much is still a number.
const NEVER: u32 = u32::MAX / 2;

/// A row of the specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    State { state: Bytes, is_initial: bool, is_final: bool },
    Transition { from: Bytes, activity: Bytes, to: Bytes },
}

/// Per case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    pub events: i64,
    pub prefix_cost: i64,
    pub cost: i64,
    /// Steps of the shortest run: a case of no like steps costs its events and these.
    pub shortest: i64,
}

impl Fit {
    /// 1: a run of the specification. 0: nothing fits.
    pub fn fitness(&self) -> f64 {
        match self.events + self.shortest {
            0 => 1.0,
            worst => 1.0 - self.cost as f64 / worst as f64,
        }
    }
}

/// Steps between states, and their prices. By default of no states.
#[derive(Debug, Default)]
pub struct Alignment {
    count: usize,
    initial: usize,
    is_final: Vec<bool>,
    /// By activity, its transitions.
    steps: Vec<Vec<(u16, u16)>>,
    /// Steps without events, from row to column.
    between: Vec<u32>,
}

impl Protocol for Alignment {
    type Rule = Rule;

    fn read<'a>(rules: impl Iterator<Item = &'a Rule>, names: &mut Names) -> Result<Self, Flaw> {
        let mut states: BTreeMap<&Bytes, (bool, bool)> = BTreeMap::new();
        let mut transitions = Vec::new();
        for rule in rules {
            match rule {
                Rule::Transition { from, activity, to } => transitions.push((from, names.symbol(activity), to)),
                Rule::State { state, is_initial, is_final } => {
                    let known = states.entry(state).or_default();
                    *known = (known.0 | is_initial, known.1 | is_final);
                }
            }
        }
        if states.len() > STATES_MAX {
            return Err(Flaw::of([Part::Text("there are more than 64 states: split the process into several")]));
        }
        let index: BTreeMap<&Bytes, u16> = states.keys().copied().zip(0..).collect();
        let initial = only_initial(states.iter().filter(|(_, (is_initial, _))| *is_initial).map(|(state, _)| *state))?;
        let initial = index[initial] as usize;
        let is_final: Vec<bool> = states.values().map(|(_, is_final)| *is_final).collect();
        let mut alignment = Self { count: states.len(), initial, is_final, steps: Vec::new(), between: Vec::new() };
        for (from, activity, to) in transitions {
            let known = |state: &Bytes| index.get(state).copied().ok_or_else(|| unknown(state));
            if alignment.steps.len() <= activity as usize {
                alignment.steps.resize_with(activity as usize + 1, Vec::new);
            }
            alignment.steps[activity as usize].push((known(from)?, known(to)?));
        }
        alignment.between = alignment.distances();
        match alignment.to_end(alignment.row(initial)) < NEVER {
            true => Ok(alignment),
            false => Err(Flaw::of([Part::Text("no final state can be reached from the initial one")])),
        }
    }
}

impl Alignment {
    /// Fewest steps from each state to each, breadth first.
    fn distances(&self) -> Vec<u32> {
        let mut next = vec![Vec::new(); self.count];
        for &(from, to) in self.steps.iter().flatten() {
            next[from as usize].push(to as usize);
        }
        let from = |start: usize| {
            let mut distances = vec![NEVER; self.count];
            distances[start] = 0;
            let mut open = VecDeque::from([start]);
            while let Some(at) = open.pop_front() {
                for &to in &next[at] {
                    if distances[to] == NEVER {
                        distances[to] = distances[at] + 1;
                        open.push_back(to);
                    }
                }
            }
            distances
        };
        (0..self.count).flat_map(from).collect()
    }

    fn row(&self, state: usize) -> &[u32] {
        &self.between[state * self.count..][..self.count]
    }

    /// Costs so far, by state, and one more event. Steps without events are already in `costs`.
    fn advance(&self, costs: &mut [u32], activity: Symbol) {
        let before = costs.to_vec();
        costs.iter_mut().for_each(|cost| *cost = (*cost + 1).min(NEVER));
        for &(from, to) in self.steps.get(activity as usize).into_iter().flatten() {
            let cost = before[from as usize];
            if cost < costs[to as usize] {
                self.reach(costs, to as usize, cost);
            }
        }
    }

    /// `to` is reached at this cost, and so is what follows without events.
    fn reach(&self, costs: &mut [u32], to: usize, cost: u32) {
        for (known, steps) in costs.iter_mut().zip(self.row(to)) {
            *known = (*known).min(cost + steps);
        }
    }

    fn to_end(&self, costs: &[u32]) -> u32 {
        costs.iter().zip(&self.is_final).filter(|(_, is_final)| **is_final).map(|(cost, _)| *cost).min().unwrap_or(NEVER)
    }
}

/// Costs from state to state, and how many events.
#[derive(Debug, Clone)]
pub struct Matrix {
    costs: Box<[u32]>,
    events: u32,
}

impl Chunks for Alignment {
    type Chunk = Matrix;

    fn of(&self, events: &[Event]) -> Matrix {
        let mut costs = self.between.clone();
        // An alignment of nothing has no rows.
        for row in costs.chunks_mut(self.count.max(1)) {
            events.iter().for_each(|event| self.advance(row, event.activity));
        }
        Matrix { costs: costs.into(), events: events.len() as u32 }
    }

    fn then(&self, first: &Matrix, second: &Matrix) -> Matrix {
        let costs = first.costs.chunks(self.count.max(1)).flat_map(|row| times(row, second));
        Matrix { costs: costs.collect(), events: first.events + second.events }
    }

    fn allocated(&self) -> usize {
        self.between.len() * size_of::<u32>()
    }
}

fn times(row: &[u32], matrix: &Matrix) -> Vec<u32> {
    let mut costs = vec![NEVER; row.len()];
    for (cost, next) in row.iter().zip(matrix.costs.chunks(row.len())) {
        costs.iter_mut().zip(next).for_each(|(known, next)| *known = (*known).min(cost + next));
    }
    costs
}

impl Judge for Alignment {
    type Row = Fit;

    fn judge(&self, case: &Case<Matrix>, _observed: i64, _names: &Names) -> (Vec<Fit>, Option<i64>) {
        let mut walk = Walk { alignment: self, costs: self.row(self.initial).to_vec(), events: 0 };
        case.walk(&mut walk);
        let prefix_cost = walk.costs.iter().copied().min().unwrap_or(0).into();
        let (cost, shortest) = (self.to_end(&walk.costs).into(), self.to_end(self.row(self.initial)).into());
        (vec![Fit { events: walk.events, prefix_cost, cost, shortest }], None)
    }
}

struct Walk<'a> {
    alignment: &'a Alignment,
    costs: Vec<u32>,
    events: i64,
}

impl Walker<Matrix> for Walk<'_> {
    fn passes(&mut self, chunk: &Matrix) -> bool {
        self.costs = times(&self.costs, chunk);
        self.events += i64::from(chunk.events);
        true
    }

    fn events(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.alignment.advance(&mut self.costs, event.activity));
        self.events += events.len() as i64;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::running_example::{LOG, NETS};
    use super::*;

    /// The net's reachable markings as states.
    fn rules(net: &[(&str, &str, &str)]) -> Vec<Rule> {
        let name = |marking: &BTreeSet<char>| marking.iter().collect::<String>().into_bytes();
        let (mut rules, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![BTreeSet::from(['<'])];
        while let Some(marking) = open.pop() {
            if !seen.insert(marking.clone()) {
                continue;
            }
            let (is_initial, is_final) = (marking.contains(&'<'), marking.contains(&'>'));
            rules.insert(Rule::State { state: name(&marking), is_initial, is_final });
            for (activity, takes, puts) in net {
                if takes.chars().all(|place| marking.contains(&place)) {
                    let mut next = marking.clone();
                    next.retain(|place| !takes.contains(*place));
                    next.extend(puts.chars());
                    rules.insert(Rule::Transition { from: name(&marking), activity: (*activity).into(), to: name(&next) });
                    open.push(next);
                }
            }
        }
        rules.into_iter().collect()
    }

    fn fit(rules: &[Rule], case: &str) -> Fit {
        let mut names = Names::default();
        let alignment = Alignment::read(rules.iter(), &mut names).expect("a specification");
        let event = |(ts, letter): (i64, char)| {
            let activity = names.symbol(letter.to_string().as_bytes());
            Event { ts, seq: super::super::NO_SEQ, activity, role: 0 }
        };
        let events = (0..).zip(case.chars()).map(event).collect();
        alignment.judge(&Case::from_events(events, &alignment), 0, &names).0.remove(0)
    }

    #[test]
    fn the_running_example() {
        let expected = [(0, 1.0, 1.0), (914, 0.938882, 0.936939), (2366, 0.844605, 0.836760), (0, 1.0, 1.0)];
        for (net, (cost, average, whole)) in NETS.iter().zip(expected) {
            let rules = rules(net);
            // N4 has a run of two steps. Its fitness is 1 all the same.
            let (mut costs, mut worst, mut fitness, mut cases) = (0, 0, 0.0, 0);
            for (case, times) in LOG {
                let fit = fit(&rules, case);
                costs += times * fit.cost;
                worst += times * (fit.events + fit.shortest);
                fitness += times as f64 * fit.fitness();
                cases += times;
            }
            let millionths = |share: f64| (share * 1e6).round();
            assert_eq!((costs, cases), (cost, 1391));
            assert_eq!(millionths(fitness / cases as f64), millionths(average));
            assert_eq!(millionths(1.0 - costs as f64 / worst as f64), millionths(whole));
        }
    }

    #[test]
    fn a_case_that_is_not_over_costs_what_it_lacks() {
        let rules = rules(NETS[1]);
        assert_eq!(fit(&rules, "ab"), Fit { events: 2, prefix_cost: 0, cost: 3, shortest: 5 });
        assert_eq!(fit(&rules, "bd"), Fit { events: 2, prefix_cost: 1, cost: 3, shortest: 5 });
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let flaw = |rules: &[Rule]| {
            let flaw = Alignment::read(rules.iter(), &mut Names::default()).expect_err("no specification");
            flaw.say(|_, id| String::from_utf8_lossy(id).into_owned())
        };
        let state = |name: &str, is_final| Rule::State { state: name.into(), is_initial: name == "a", is_final };
        assert_eq!(flaw(&[state("a", false), state("b", true)]), "no final state can be reached from the initial one");
        let step = Rule::Transition { from: "a".into(), activity: "x".into(), to: "b".into() };
        assert_eq!(flaw(&[state("a", true), step]), "state b is in transitions, but not in states");
        let many: Vec<Rule> = (0..=STATES_MAX).map(|at| state(if at == 0 { "a".into() } else { format!("{at}") }.as_str(), true)).collect();
        assert_eq!(flaw(&many), "there are more than 64 states: split the process into several");
    }
}
