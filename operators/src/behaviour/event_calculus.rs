//! Event calculus: when something holds in a case, because of what happened in it.
//!
//! At each time of a case, all its events of that time and all fluents whose lifetime ends then are
//! looked at together. An effect takes place if its conditions hold at that time, which is before what
//! happens then. A fluent holds after the time that initiates it, up to and including the time that
//! ends it: (since, until]. What is ended and initiated at one time goes on, with a lifetime of its own.
//!
//! A change is followed as far as it reaches ([`spans`]): until what holds is what held there before.
//!
//! Source  Kowalski and Sergot, A Logic-based Calculus of Events, 1986; Artikis, Sergot and Paliouras,
//!         An Event Calculus for Event Recognition, TKDE 2015

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::case::{Chunks, Event};
use super::{Bytes, Flaw, Follow, Look, Name, Names, Part, Protocol, Symbol};

mod spans;

use self::spans::Spans;

/// A row of the specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    Effect {
        rule: Bytes,
        trigger: Trigger,
        initiates: bool,
        fluent: Bytes,
    },
    Condition {
        rule: Bytes,
        fluent: Bytes,
        holds: bool,
    },
    /// `renews`: what initiates the fluent while it holds begins its lifetime again.
    Lifetime {
        fluent: Bytes,
        lasts: i64,
        renews: bool,
    },
}

/// What makes a rule look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Trigger {
    Activity(Bytes),
    /// The end of this fluent's lifetime.
    Expiry(Bytes),
}

/// A maximal interval.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    pub fluent: Name,
    pub since: i64,
    /// None: it holds.
    pub until: Option<i64>,
    /// Its lifetime ended it, and not an event.
    pub has_expired: bool,
}

/// By default without effects.
#[derive(Debug, Default)]
pub struct Calculus {
    fluents: Vec<Fluent>,
    by_activity: BTreeMap<Symbol, Vec<Effect>>,
    /// By fluent.
    by_expiry: Vec<Vec<Effect>>,
}

#[derive(Debug)]
struct Fluent {
    name: Name,
    lasts: Option<i64>,
    renews: bool,
}

#[derive(Debug, Clone)]
struct Effect {
    initiates: bool,
    fluent: usize,
    conditions: Vec<(usize, bool)>,
}

impl Protocol for Calculus {
    type Rule = Rule;

    fn read<'a>(rules: impl Iterator<Item = &'a Rule>, names: &mut Names) -> Result<Self, Flaw> {
        let mut read = Read::default();
        rules.for_each(|rule| read.add(rule));
        let index: BTreeMap<&Bytes, usize> = read.fluents.iter().copied().zip(0..).collect();
        let mut lifetimes = BTreeMap::new();
        for (fluent, lasts, renews) in read.lifetimes {
            if lifetimes.insert(fluent, (lasts, renews)).is_some() {
                return Err(Flaw::of([Part::Text("fluent "), Part::id("fluent", fluent), Part::Text(" has two lifetimes")]));
            }
        }
        let known: BTreeSet<&Bytes> = read.effects.iter().map(|(rule, ..)| *rule).collect();
        if let Some(rule) = read.conditions.keys().find(|rule| !known.contains(*rule)) {
            return Err(Flaw::of([Part::Text("rule "), Part::id("rule", rule), Part::Text(" has conditions and no effect")]));
        }
        let fluent = |name: &&Bytes| {
            let (lasts, renews) = lifetimes.get(*name).map_or((None, false), |(lasts, renews)| (Some(*lasts), *renews));
            let symbol = names.symbol(name);
            Fluent { name: names.name(symbol), lasts, renews }
        };
        let fluents: Vec<Fluent> = read.fluents.iter().map(fluent).collect();
        let mut calculus = Self { by_expiry: vec![Vec::new(); fluents.len()], fluents, by_activity: BTreeMap::new() };
        for (rule, trigger, initiates, fluent) in read.effects {
            let conditions = read.conditions.get(rule).into_iter().flatten().map(|(fluent, holds)| (index[fluent], *holds));
            let effect = Effect { initiates, fluent: index[fluent], conditions: conditions.collect() };
            match trigger {
                Trigger::Activity(activity) => calculus.by_activity.entry(names.symbol(activity)).or_default().push(effect),
                Trigger::Expiry(expired) => calculus.by_expiry[index[expired]].push(effect),
            }
        }
        match calculus.endless() {
            None => Ok(calculus),
            Some(fluent) => {
                let end = " begins again by expiring, by itself or through others, for ever: let an activity begin it";
                Err(Flaw::of([Part::Text("fluent "), Part::id("fluent", &fluent.name), Part::Text(end)]))
            }
        }
    }
}

impl Calculus {
    /// What holds at first, by fluent.
    fn nothing(&self) -> Box<[Option<Holding>]> {
        vec![None; self.fluents.len()].into()
    }

    /// A fluent whose expiry leads to its own again, with nothing happening: a clock far ahead would
    /// have its cases replayed for as long.
    fn endless(&self) -> Option<&Fluent> {
        let begins = |fluent: usize| {
            let initiates = self.by_expiry[fluent].iter().filter(|effect| effect.initiates);
            initiates.map(|effect| effect.fluent).filter(|fluent| self.fluents[*fluent].lasts.is_some())
        };
        let leads_back = |start: usize| {
            let mut seen: BTreeSet<usize> = BTreeSet::new();
            let mut open: Vec<usize> = begins(start).collect();
            while let Some(at) = open.pop() {
                if seen.insert(at) {
                    open.extend(begins(at));
                }
            }
            seen.contains(&start)
        };
        (0..self.fluents.len()).find(|fluent| leads_back(*fluent)).map(|fluent| &self.fluents[fluent])
    }
}

#[derive(Default)]
struct Read<'a> {
    fluents: BTreeSet<&'a Bytes>,
    effects: Vec<(&'a Bytes, &'a Trigger, bool, &'a Bytes)>,
    conditions: BTreeMap<&'a Bytes, Vec<(&'a Bytes, bool)>>,
    lifetimes: Vec<(&'a Bytes, i64, bool)>,
}

impl<'a> Read<'a> {
    fn add(&mut self, rule: &'a Rule) {
        match rule {
            Rule::Effect { rule, trigger, initiates, fluent } => {
                if let Trigger::Expiry(expired) = trigger {
                    self.fluents.insert(expired);
                }
                self.fluents.insert(fluent);
                self.effects.push((rule, trigger, *initiates, fluent));
            }
            Rule::Condition { rule, fluent, holds } => {
                self.fluents.insert(fluent);
                self.conditions.entry(rule).or_default().push((fluent, *holds));
            }
            Rule::Lifetime { fluent, lasts, renews } => {
                self.fluents.insert(fluent);
                self.lifetimes.push((fluent, *lasts, *renews));
            }
        }
    }
}

impl Chunks for Calculus {
    type Chunk = ();

    fn of(&self, _events: &[Event]) {}

    fn then(&self, _first: &(), _second: &()) {}

    fn allocated(&self) -> usize {
        0
    }
}

impl Follow for Calculus {
    type Row = Interval;
    type Account = Spans;

    fn follow(&self, look: Look<()>, account: &mut Spans, say: &mut dyn FnMut(&Interval, i64)) -> Option<i64> {
        let (changes, due) = account.follow(self, look);
        changes.iter().for_each(|(interval, diff)| say(interval, *diff));
        due
    }
}

/// A fluent that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holding {
    since: i64,
    expires: Option<i64>,
}

struct Replay<'a> {
    calculus: &'a Calculus,
    /// By fluent.
    holding: Vec<Option<Holding>>,
    /// The time whose events are in `pending`.
    at: Option<i64>,
    pending: Vec<Symbol>,
    done: Vec<Interval>,
}

impl<'a> Replay<'a> {
    fn new(calculus: &'a Calculus, holding: &[Option<Holding>]) -> Self {
        Self { calculus, holding: holding.to_vec(), at: None, pending: Vec::new(), done: Vec::new() }
    }

    fn events(&mut self, events: &[Event]) {
        for event in events {
            if self.at != Some(event.ts) {
                self.go_to(event.ts);
            }
            self.pending.push(event.activity);
        }
    }

    /// All that happens before `time`.
    fn go_to(&mut self, time: i64) {
        self.take_place();
        self.run_before(time);
        self.at = Some(time);
    }

    /// What the pending events do.
    fn take_place(&mut self) {
        if let Some(at) = self.at.take() {
            let pending = std::mem::take(&mut self.pending);
            self.happen(at, &pending);
        }
    }

    /// Lifetimes that end before `time` end.
    fn run_before(&mut self, time: i64) {
        while let Some(expiry) = self.next_expiry().filter(|expiry| *expiry < time) {
            self.happen(expiry, &[]);
        }
    }

    fn next_expiry(&self) -> Option<i64> {
        self.holding.iter().flatten().filter_map(|holding| holding.expires).min()
    }

    fn happen(&mut self, at: i64, activities: &[Symbol]) {
        let expired: Vec<usize> =
            (0..self.holding.len()).filter(|fluent| self.holding[*fluent].is_some_and(|holding| holding.expires == Some(at))).collect();
        let by_activity = activities.iter().filter_map(|activity| self.calculus.by_activity.get(activity)).flatten();
        let effects = by_activity.chain(expired.iter().flat_map(|fluent| &self.calculus.by_expiry[*fluent]));
        let holds = |(fluent, holds): &(usize, bool)| self.holding[*fluent].is_some() == *holds;
        let due = effects.filter(|effect| effect.conditions.iter().all(holds));
        let (initiated, terminated): (Vec<&Effect>, Vec<&Effect>) = due.partition(|effect| effect.initiates);
        let initiated: BTreeSet<usize> = initiated.into_iter().map(|effect| effect.fluent).collect();
        let terminated: BTreeSet<usize> = terminated.into_iter().map(|effect| effect.fluent).collect();
        for &fluent in terminated.iter().chain(&expired).filter(|fluent| !initiated.contains(fluent)) {
            let Some(holding) = self.holding[fluent].take() else { continue };
            // An event that ends it in its last moment is in time.
            let (name, has_expired) = (self.calculus.fluents[fluent].name.clone(), !terminated.contains(&fluent));
            self.done.push(Interval { fluent: name, since: holding.since, until: Some(at), has_expired });
        }
        for fluent in initiated {
            let Fluent { lasts, renews, .. } = self.calculus.fluents[fluent];
            let is_new = terminated.contains(&fluent) || expired.contains(&fluent);
            let expires = lasts.map(|lasts| at.saturating_add(lasts));
            match &mut self.holding[fluent] {
                Some(holding) if renews || is_new => holding.expires = expires,
                Some(_) => {}
                none => *none = Some(Holding { since: at, expires }),
            }
        }
    }

    fn finish(mut self) -> Vec<Interval> {
        for (fluent, holding) in self.calculus.fluents.iter().zip(&self.holding) {
            let holds =
                holding.map(|holding| Interval { fluent: fluent.name.clone(), since: holding.since, until: None, has_expired: false });
            self.done.extend(holds);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::super::Account;
    use super::super::case::Case;
    use super::*;

    fn effect(rule: &str, trigger: &str, initiates: bool, fluent: &str) -> Rule {
        let trigger = match trigger.strip_prefix("end of ") {
            Some(fluent) => Trigger::Expiry(fluent.into()),
            None => Trigger::Activity(trigger.into()),
        };
        Rule::Effect { rule: rule.into(), trigger, initiates, fluent: fluent.into() }
    }

    fn condition(rule: &str, fluent: &str, holds: bool) -> Rule {
        Rule::Condition { rule: rule.into(), fluent: fluent.into(), holds }
    }

    fn lifetime(fluent: &str, lasts: i64, renews: bool) -> Rule {
        Rule::Lifetime { fluent: fluent.into(), lasts, renews }
    }

    /// RTEC's toy.
    fn toy() -> Vec<Rule> {
        vec![
            effect("wins", "win", true, "rich"),
            effect("wins", "win", true, "happy"),
            effect("loses", "lose", false, "rich"),
            effect("at the pub", "pub", true, "pub"),
            effect("at the pub", "pub", true, "happy"),
            effect("leaves", "home", false, "pub"),
            effect("sad without a pub", "lose", false, "happy"),
            condition("sad without a pub", "pub", false),
            effect("sad without money", "home", false, "happy"),
            condition("sad without money", "rich", false),
        ]
    }

    /// RTEC's NetBill, of one merchant, one customer and one good.
    fn net_bill() -> Vec<Rule> {
        vec![
            effect("presents", "present", true, "quote"),
            effect("presents", "present", true, "prohibited"),
            effect("presents too soon", "present", true, "suspended"),
            condition("presents too soon", "prohibited", true),
            effect("takes the quote", "accept", false, "quote"),
            effect("is asked", "request", false, "prohibited"),
            effect("accepts", "accept", true, "contract"),
            effect("accepts", "accept", true, "owes money"),
            effect("accepts", "accept", true, "owes goods"),
            condition("accepts", "quote", true),
            condition("accepts", "suspended", false),
            effect("pays", "pay", false, "owes money"),
            effect("sends", "send", false, "owes goods"),
            effect("is broken", "end of contract", true, "suspended"),
            condition("is broken", "owes goods", true),
            effect("is over", "end of contract", false, "owes money"),
            effect("is over", "end of contract", false, "owes goods"),
            lifetime("quote", 5, false),
            lifetime("contract", 5, false),
            lifetime("suspended", 3, false),
            lifetime("prohibited", 10, true),
        ]
    }

    fn intervals(rules: &[Rule], events: &[(i64, &str)], observed: i64) -> BTreeMap<String, Vec<(i64, Option<i64>)>> {
        let mut names = Names::default();
        let calculus = Calculus::read(rules.iter(), &mut names).expect("a specification");
        let event =
            |&(ts, activity): &(i64, &str)| Event { ts, seq: super::super::NO_SEQ, activity: names.symbol(activity.as_bytes()), role: 0 };
        let case = Case::from_events(events.iter().map(event).collect(), &calculus);
        let mut found: BTreeMap<String, Vec<(i64, Option<i64>)>> = BTreeMap::new();
        let (mut account, look) = (Spans::default(), Look { case: &case, changed: &[], observed, names: &names });
        calculus.follow(look, &mut account, &mut |_, _| {});
        let mut rows = account.rows();
        rows.sort();
        for row in rows {
            found.entry(String::from_utf8_lossy(&row.fluent).into_owned()).or_default().push((row.since, row.until));
        }
        found
    }

    #[test]
    fn the_toy_of_rtec() {
        let found = intervals(&toy(), &[(9, "work"), (13, "win"), (17, "pub"), (19, "lose"), (21, "home")], 30);
        let expected = [("happy", (13, Some(21))), ("pub", (17, Some(21))), ("rich", (13, Some(19)))];
        assert_eq!(found, expected.map(|(fluent, interval)| (fluent.to_string(), vec![interval])).into());
    }

    #[test]
    fn net_bill_of_rtec() {
        let events = [(1, "request"), (2, "present"), (4, "accept"), (6, "pay")];
        let expected = [
            ("contract", (4, Some(9))),
            ("owes goods", (4, Some(9))),
            ("owes money", (4, Some(6))),
            ("prohibited", (2, Some(12))),
            ("quote", (2, Some(4))),
            ("suspended", (9, Some(12))),
        ];
        assert_eq!(intervals(&net_bill(), &events, 30), expected.map(|(fluent, interval)| (fluent.to_string(), vec![interval])).into());
        // Presented again, unasked.
        let again = intervals(&net_bill(), &[(1, "request"), (2, "present"), (3, "present"), (4, "accept"), (6, "pay")], 30);
        let expected = [("prohibited", (2, Some(13))), ("quote", (2, Some(4))), ("suspended", (3, Some(6)))];
        assert_eq!(again, expected.map(|(fluent, interval)| (fluent.to_string(), vec![interval])).into());
    }

    #[test]
    fn a_lifetime_is_renewed_or_not() {
        let rules = |renews| vec![effect("r", "e", true, "f"), lifetime("f", 10, renews)];
        let events = [(0, "e"), (6, "e"), (8, "e")];
        let one = |until| [("f".to_string(), vec![(0, until)])].into();
        assert_eq!(intervals(&rules(false), &events, 30), one(Some(10)));
        assert_eq!(intervals(&rules(true), &events, 30), one(Some(18)));
        // Its last moment is not over while it is the present.
        assert_eq!(intervals(&rules(true), &events, 18), one(None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let flaw = |rules: &[Rule]| {
            let flaw = Calculus::read(rules.iter(), &mut Names::default()).expect_err("no specification");
            flaw.say(|_, id| String::from_utf8_lossy(id).into_owned())
        };
        assert_eq!(flaw(&[lifetime("f", 1, true), lifetime("f", 2, true)]), "fluent f has two lifetimes");
        let rounds =
            [effect("a", "end of f", true, "g"), effect("b", "end of g", true, "f"), lifetime("f", 1, true), lifetime("g", 1, true)];
        assert_eq!(flaw(&rounds), "fluent f begins again by expiring, by itself or through others, for ever: let an activity begin it");
        assert_eq!(flaw(&[effect("a", "e", true, "f"), condition("b", "f", true)]), "rule b has conditions and no effect");
    }
}
