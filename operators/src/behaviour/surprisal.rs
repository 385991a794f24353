//! A learned baseline: how surprising a case's steps are to a Markov chain.
//!
//! A step from a to b, seen n_ab times among n_a steps from a, has −log2((n_ab+α)/(n_a+αV)) bits. Before
//! the first event stands the beginning, behind the last the end; both are steps, and V counts both with
//! the activities. The counts are given, not learned here: a model that is frozen for an epoch says the
//! same of a case for that long.
//!
//! Bits are whole millionths, so that sums are exact and what is taken away leaves nothing.
//!
//! Source  Shannon, A Mathematical Theory of Communication, 1948; Landauer et al., A Critical Review of
//!         Common Log Data Sets Used for Evaluation of Sequence-based Anomaly Detection, FSE 2024

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::case::{Case, Chunks, Event, Walker};
use super::{Bytes, Flaw, Judge, Name, Names, Part, Protocol, Symbol};

/// A row of the model: how often `next` came right after `activity`. None is the beginning, or the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    pub activity: Option<Bytes>,
    pub next: Option<Bytes>,
    /// From 0 to [`COUNT_MAX`].
    pub count: i64,
    /// α, the same in all rows.
    pub smoothing: i64,
}

/// So many steps stay numbers that a double holds exactly.
pub const COUNT_MAX: i64 = 1 << 40;

/// Per case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Surprise {
    pub events: i64,
    /// Bits of all steps but the end, in millionths.
    pub sum: i64,
    pub max: i64,
    /// The first of the most surprising steps: from, to, and when.
    pub activity: Option<Name>,
    pub next: Name,
    pub at: i64,
    /// Bits if the case ends here.
    pub end: i64,
    /// Steps that the model has never seen.
    pub unseen: i64,
}

#[derive(Debug, Default)]
pub struct Model {
    /// By both ends: bits, in millionths.
    seen: HashMap<(Symbol, Symbol), i64>,
    /// By the step's first end: bits of a step that was never seen from there.
    unseen: HashMap<Symbol, i64>,
    /// From an activity that the model does not know.
    unknown: i64,
}

/// The beginning, or the end.
const EDGE: Symbol = 0;

impl Protocol for Model {
    type Rule = Rule;

    fn read<'a>(rules: impl Iterator<Item = &'a Rule>, names: &mut Names) -> Result<Self, Flaw> {
        let (mut counts, mut totals, mut known) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut alpha = 1;
        for rule in rules {
            let mut symbol = |name: &Option<Bytes>| name.as_ref().map_or(EDGE, |name| names.symbol(name));
            let (from, to) = (symbol(&rule.activity), symbol(&rule.next));
            if counts.insert((from, to), rule.count).is_some() {
                return Err(twice(rule));
            }
            let total: &mut i64 = totals.entry(from).or_default();
            *total = total.saturating_add(rule.count);
            known.extend([from, to].into_iter().filter(|symbol| *symbol != EDGE));
            alpha = rule.smoothing;
        }
        let symbols = known.len() as i64 + 2;
        let bits = |count: i64, total: i64| {
            let share = (count + alpha) as f64 / total.saturating_add(alpha * symbols) as f64;
            (-share.log2() * 1e6).round() as i64
        };
        let seen = counts.iter().filter(|(_, count)| **count > 0).map(|(&(from, to), &count)| ((from, to), bits(count, totals[&from])));
        let unseen = totals.iter().map(|(&from, &total)| (from, bits(0, total)));
        Ok(Self { seen: seen.collect(), unseen: unseen.collect(), unknown: bits(0, 0) })
    }
}

fn twice(rule: &Rule) -> Flaw {
    let end = |name: &Option<Bytes>, edge| name.as_ref().map_or(Part::Text(edge), |name| Part::id("activity", name));
    let (from, to) = (end(&rule.activity, "the beginning"), end(&rule.next, "the end"));
    Flaw::of([Part::Text("the step from "), from, Part::Text(" to "), to, Part::Text(" is counted twice: sum the counts")])
}

/// A step's bits, and whether the model has seen it.
struct Bits {
    bits: i64,
    is_seen: bool,
}

impl Model {
    fn bits(&self, from: Symbol, to: Symbol) -> Bits {
        match self.seen.get(&(from, to)) {
            Some(bits) => Bits { bits: *bits, is_seen: true },
            None => Bits { bits: self.unseen.get(&from).copied().unwrap_or(self.unknown), is_seen: false },
        }
    }
}

/// Steps within a chunk. The one into its first event depends on what was before.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    first: (Symbol, i64),
    last: Symbol,
    events: i64,
    sum: i64,
    unseen: i64,
    worst: Option<Worst>,
}

#[derive(Debug, Clone, Copy)]
struct Worst {
    bits: i64,
    from: Symbol,
    to: Symbol,
    at: i64,
}

impl Steps {
    fn of(event: &Event) -> Self {
        Self { first: (event.activity, event.ts), last: event.activity, events: 1, sum: 0, unseen: 0, worst: None }
    }

    fn then(&self, next: &Self, model: &Model) -> Self {
        let into = model.step(self.last, next.first);
        let worst = [Some(into.worst), next.worst].into_iter().flatten().fold(self.worst, |worst, other| match worst {
            Some(worst) if worst.bits >= other.bits => Some(worst),
            _ => Some(other),
        });
        Self {
            first: self.first,
            last: next.last,
            events: self.events + next.events,
            sum: self.sum + into.worst.bits + next.sum,
            unseen: self.unseen + into.unseen + next.unseen,
            worst,
        }
    }
}

struct Into {
    worst: Worst,
    unseen: i64,
}

impl Model {
    fn step(&self, from: Symbol, (to, at): (Symbol, i64)) -> Into {
        let Bits { bits, is_seen } = self.bits(from, to);
        Into { worst: Worst { bits, from, to, at }, unseen: i64::from(!is_seen) }
    }
}

impl Chunks for Model {
    /// None: no events.
    type Chunk = Option<Steps>;

    fn of(&self, events: &[Event]) -> Option<Steps> {
        events.iter().map(Steps::of).reduce(|first, second| first.then(&second, self))
    }

    fn then(&self, first: &Option<Steps>, second: &Option<Steps>) -> Option<Steps> {
        match (first, second) {
            (Some(first), Some(second)) => Some(first.then(second, self)),
            (first, second) => first.or(*second),
        }
    }

    fn allocated(&self) -> usize {
        0
    }
}

impl Judge for Model {
    type Row = Surprise;

    fn judge(&self, case: &Case<Option<Steps>>, _observed: i64, names: &Names) -> (Vec<Surprise>, Option<i64>) {
        let mut walk = Walk { model: self, steps: None };
        case.walk(&mut walk);
        let Some(steps) = walk.steps else { return (Vec::new(), None) };
        let into = self.step(EDGE, steps.first);
        // The step into the case is its first: as surprising as a later one, it is the one that is named.
        let worst = steps.worst.filter(|worst| worst.bits > into.worst.bits).unwrap_or(into.worst);
        let row = Surprise {
            events: steps.events,
            sum: steps.sum + into.worst.bits,
            max: worst.bits,
            activity: names.some(worst.from),
            next: names.name(worst.to),
            at: worst.at,
            end: self.bits(steps.last, EDGE).bits,
            unseen: steps.unseen + into.unseen,
        };
        (vec![row], None)
    }
}

struct Walk<'a> {
    model: &'a Model,
    steps: Option<Steps>,
}

impl Walker<Option<Steps>> for Walk<'_> {
    fn passes(&mut self, chunk: &Option<Steps>) -> bool {
        self.steps = self.model.then(&self.steps, chunk);
        true
    }

    fn events(&mut self, events: &[Event]) {
        self.steps = self.model.then(&self.steps, &self.model.of(events));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of cases, each a text of one-letter activities that was seen so often.
    fn learned(cases: &[(&str, i64)], smoothing: i64) -> Vec<Rule> {
        let mut counts = BTreeMap::new();
        for (case, times) in cases {
            let events: Vec<Option<char>> = std::iter::once(None).chain(case.chars().map(Some)).chain([None]).collect();
            for step in events.windows(2) {
                *counts.entry((step[0], step[1])).or_insert(0) += times;
            }
        }
        let name = |letter: Option<char>| letter.map(|letter| letter.to_string().into_bytes());
        counts.into_iter().map(|((from, to), count)| Rule { activity: name(from), next: name(to), count, smoothing }).collect()
    }

    #[test]
    fn bits_are_those_of_the_formula() {
        let rules = learned(&[("LVCP", 90), ("LVP", 9), ("LCP", 1)], 1);
        let mut names = Names::default();
        let model = Model::read(rules.iter(), &mut names).expect("a model");
        let mut score = |case: &str| {
            let event = |(ts, letter): (i64, char)| {
                let activity = names.symbol(letter.to_string().as_bytes());
                Event { ts, seq: super::super::NO_SEQ, activity, role: 0 }
            };
            let events = (0..).zip(case.chars()).map(event).collect();
            let (rows, _) = model.judge(&Case::from_events(events, &model), 0, &names);
            rows[0].max.max(rows[0].end)
        };
        assert_eq!([score("LVCP"), score("LCP"), score("PLVC")].map(|bits| (bits as f64 / 1e3).round()), [206.0, 5728.0, 6728.0]);
    }

    #[test]
    fn a_step_is_counted_once() {
        let rule = |count| Rule { activity: None, next: Some(b"a".to_vec()), count, smoothing: 1 };
        let flaw = Model::read([rule(1), rule(2)].iter(), &mut Names::default()).expect_err("no model");
        let said = flaw.say(|_, id| String::from_utf8_lossy(id).into_owned());
        assert_eq!(said, "the step from the beginning to a is counted twice: sum the counts");
    }
}
