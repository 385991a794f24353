//! Token replay: how many tokens a case's steps miss in a Petri net, and leave behind.
//!
//! A step that lacks a token takes one that was missing and goes on. Per place that is a matter of
//! brackets: what a chunk needs from before, and what it leaves. Activities outside the net are passed
//! over. The final marking is taken at the end of the events there are.
//!
//! Source  Rozinat and van der Aalst, Conformance Checking of Processes Based on Monitoring Real
//!         Behavior, Information Systems 2008

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::case::{Case, Chunks, Event, Walker};
use super::{Bytes, Flaw, Judge, Names, Part, Protocol};

/// Places of one process at most: each chunk of a long case has an entry per place.
pub const PLACES_MAX: usize = 256;
/// Tokens at one arc or in one place.
pub const TOKENS_MAX: i64 = 1_000_000;

/// A row of the net. Tokens are from 0 to [`TOKENS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    /// What a step takes from a place and puts into it.
    Arc {
        activity: Bytes,
        place: Bytes,
        takes: i64,
        puts: i64,
    },
    Marking {
        place: Bytes,
        initial: i64,
        is_final: i64,
    },
}

/// Per case.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokens {
    /// Those that the net knows.
    pub events: i64,
    pub produced: i64,
    pub consumed: i64,
    pub missing: i64,
    pub remaining: i64,
}

impl Tokens {
    /// Of one case, or of sums over many.
    pub fn fitness(&self) -> f64 {
        let share = |part: i64, whole: i64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        (1.0 - share(self.missing, self.consumed)) / 2.0 + (1.0 - share(self.remaining, self.produced)) / 2.0
    }
}

/// By default of no places.
#[derive(Debug, Default)]
pub struct Net {
    /// By activity: place, tokens taken, tokens put. None: not in the net.
    steps: Vec<Option<Vec<(usize, i64, i64)>>>,
    initial: Vec<i64>,
    last: Vec<i64>,
}

/// What the chunk needs in a place, and what is there after it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    needs: i64,
    leaves: i64,
}

impl Place {
    fn then(&mut self, next: Place) {
        let missing = (next.needs - self.leaves).max(0);
        self.leaves = (self.leaves - next.needs).max(0) + next.leaves;
        self.needs += missing;
    }
}

#[derive(Debug, Clone)]
pub struct Replayed {
    places: Box<[Place]>,
    sums: Tokens,
}

impl Protocol for Net {
    type Rule = Rule;

    fn read<'a>(rules: impl Iterator<Item = &'a Rule>, names: &mut Names) -> Result<Self, Flaw> {
        let (mut arcs, mut markings) = (BTreeMap::new(), BTreeMap::new());
        for rule in rules {
            match rule {
                Rule::Arc { activity, place, takes, puts } => {
                    if arcs.insert((activity, place), (*takes, *puts)).is_some() {
                        let (activity, place) = (Part::id("activity", activity), Part::id("place", place));
                        return Err(Flaw::of([
                            Part::Text("arcs between "),
                            activity,
                            Part::Text(" and "),
                            place,
                            Part::Text(" are given twice"),
                        ]));
                    }
                }
                Rule::Marking { place, initial, is_final } => {
                    if markings.insert(place, (*initial, *is_final)).is_some() {
                        return Err(Flaw::of([Part::Text("place "), Part::id("place", place), Part::Text(" is marked twice")]));
                    }
                }
            }
        }
        let mut places: BTreeMap<&Bytes, usize> = arcs.keys().map(|(_, place)| (*place, 0)).collect();
        places.extend(markings.keys().map(|place| (*place, 0)));
        places.values_mut().zip(0..).for_each(|(at, number)| *at = number);
        if places.len() > PLACES_MAX {
            return Err(Flaw::of([Part::Text("there are more than 256 places: split the process into several")]));
        }
        let marking = |place: &&Bytes| markings.get(*place).copied().unwrap_or_default();
        let (initial, last) = places.keys().map(marking).unzip();
        let mut net = Self { steps: Vec::new(), initial, last };
        for ((activity, place), (takes, puts)) in arcs {
            let activity = names.symbol(activity) as usize;
            if net.steps.len() <= activity {
                net.steps.resize(activity + 1, None);
            }
            net.steps[activity].get_or_insert_default().push((places[place], takes, puts));
        }
        Ok(net)
    }
}

impl Net {
    fn beginning(&self) -> Replayed {
        let places = self.initial.iter().map(|&leaves| Place { needs: 0, leaves });
        Replayed { places: places.collect(), sums: Tokens { produced: self.initial.iter().sum(), ..Tokens::default() } }
    }

    fn fire(&self, replayed: &mut Replayed, event: &Event) {
        let Some(arcs) = self.steps.get(event.activity as usize).and_then(|arcs| arcs.as_ref()) else { return };
        replayed.sums.events += 1;
        for &(place, needs, leaves) in arcs {
            replayed.places[place].then(Place { needs, leaves });
            replayed.sums.consumed += needs;
            replayed.sums.produced += leaves;
        }
    }
}

impl Replayed {
    fn append(&mut self, next: &Self) {
        self.places.iter_mut().zip(&next.places).for_each(|(place, next)| place.then(*next));
        self.sums.events += next.sums.events;
        self.sums.produced += next.sums.produced;
        self.sums.consumed += next.sums.consumed;
    }
}

impl Chunks for Net {
    type Chunk = Replayed;

    fn of(&self, events: &[Event]) -> Replayed {
        let mut replayed = Replayed { places: vec![Place::default(); self.initial.len()].into(), sums: Tokens::default() };
        events.iter().for_each(|event| self.fire(&mut replayed, event));
        replayed
    }

    fn then(&self, first: &Replayed, second: &Replayed) -> Replayed {
        let mut both = first.clone();
        both.append(second);
        both
    }

    fn allocated(&self) -> usize {
        self.initial.len() * size_of::<Place>()
    }
}

impl Judge for Net {
    type Row = Tokens;

    fn judge(&self, case: &Case<Replayed>, _observed: i64, _names: &Names) -> (Vec<Tokens>, Option<i64>) {
        let mut walk = Walk { net: self, replayed: self.beginning() };
        case.walk(&mut walk);
        let Replayed { mut places, mut sums } = walk.replayed;
        places.iter_mut().zip(&self.last).for_each(|(place, &needs)| place.then(Place { needs, leaves: 0 }));
        sums.consumed += self.last.iter().sum::<i64>();
        sums.missing = places.iter().map(|place| place.needs).sum();
        sums.remaining = places.iter().map(|place| place.leaves).sum();
        (vec![sums], None)
    }
}

struct Walk<'a> {
    net: &'a Net,
    replayed: Replayed,
}

impl Walker<Replayed> for Walk<'_> {
    fn passes(&mut self, chunk: &Replayed) -> bool {
        self.replayed.append(chunk);
        true
    }

    fn events(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.net.fire(&mut self.replayed, event));
    }
}

#[cfg(test)]
mod tests {
    use super::super::running_example::{LOG, NETS};
    use super::*;

    fn rules(net: &[(&str, &str, &str)]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (activity, takes, puts) in net {
            let places: std::collections::BTreeSet<char> = takes.chars().chain(puts.chars()).collect();
            for place in places {
                let (takes, puts) = (i64::from(takes.contains(place)), i64::from(puts.contains(place)));
                rules.push(Rule::Arc { activity: (*activity).into(), place: place.to_string().into(), takes, puts });
            }
        }
        rules.push(Rule::Marking { place: "<".into(), initial: 1, is_final: 0 });
        rules.push(Rule::Marking { place: ">".into(), initial: 0, is_final: 1 });
        rules.sort();
        rules
    }

    fn replayed(net: &[(&str, &str, &str)], case: &str) -> Tokens {
        let mut names = Names::default();
        let net = Net::read(rules(net).iter(), &mut names).expect("a net");
        let event = |(ts, letter): (i64, char)| {
            let activity = names.symbol(letter.to_string().as_bytes());
            Event { ts, seq: super::super::NO_SEQ, activity, role: 0 }
        };
        let events = (0..).zip(case.chars()).map(event).collect();
        net.judge(&Case::from_events(events, &net), 0, &names).0.remove(0)
    }

    #[test]
    fn the_running_example() {
        let expected =
            [(10467, 10467, 0, 0, 1.0), (8930, 8930, 443, 443, 0.9504), (9148, 9294, 1183, 1037, 0.8797), (8930, 8930, 0, 0, 1.0)];
        for (net, (produced, consumed, missing, remaining, fitness)) in NETS.iter().zip(expected) {
            let mut sums = Tokens::default();
            for (case, times) in LOG {
                let one = replayed(net, case);
                sums.produced += times * one.produced;
                sums.consumed += times * one.consumed;
                sums.missing += times * one.missing;
                sums.remaining += times * one.remaining;
            }
            assert_eq!((sums.produced, sums.consumed, sums.missing, sums.remaining), (produced, consumed, missing, remaining));
            assert_eq!((sums.fitness() * 1e4).round(), (fitness * 1e4_f64).round());
        }
        let one = replayed(NETS[1], "adceh");
        assert_eq!(one, Tokens { events: 5, produced: 6, consumed: 6, missing: 1, remaining: 1 });
        assert_eq!((one.fitness() * 1e4).round(), 8333.0);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let flaw = |rules: &[Rule]| {
            let flaw = Net::read(rules.iter(), &mut Names::default()).expect_err("no net");
            flaw.say(|_, id| String::from_utf8_lossy(id).into_owned())
        };
        let arc = |takes| Rule::Arc { activity: "a".into(), place: "p".into(), takes, puts: 0 };
        assert_eq!(flaw(&[arc(1), arc(2)]), "arcs between a and p are given twice");
        let marking = |initial| Rule::Marking { place: "p".into(), initial, is_final: 0 };
        assert_eq!(flaw(&[marking(1), marking(2)]), "place p is marked twice");
    }
}
