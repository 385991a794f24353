//! The cases of one worker, judged again as their events, the specification or the time change. The
//! rule, without dataflow types.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use serde::{Deserialize, Serialize};

use super::case::{Case, Event};
use super::{Account, Bytes, Finding, Flaw, Look, Names, Part, Protocol, Seen};
use crate::usage::{ENTRY_BYTES, Usage};

/// What changes a monitor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Change<R> {
    Event(Seen),
    Rule(Option<Bytes>, R),
    Now(i64),
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said<R> {
    Finding(Finding<R>),
    Flaw(Flaw),
}

impl<R> Said<R> {
    pub fn finding(self) -> Option<Finding<R>> {
        if let Self::Finding(finding) = self { Some(finding) } else { None }
    }

    pub fn flaw(self) -> Option<Flaw> {
        if let Self::Flaw(flaw) = self { Some(flaw) } else { None }
    }
}

/// A case, and when an event of it came or went.
type Touched = (u32, Option<i64>);

/// The cases of one worker.
pub struct Monitor<P: Protocol> {
    names: Names,
    processes: Vec<Process<P>>,
    /// Where each process is in `processes`.
    by_id: HashMap<Option<Bytes>, u32>,
    /// By process and case: where it is in `cases`.
    homes: HashTable<u32>,
    hasher: DefaultHashBuilder,
    cases: Vec<Followed<P>>,
    /// Places of cases that are no more.
    free: Vec<u32>,
    clock: BTreeMap<i64, i64>,
    now: Option<i64>,
    /// When a case says something else, at the earliest; at most one entry per case counts.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    usage: Usage,
}

struct Process<P: Protocol> {
    id: Option<Bytes>,
    rules: BTreeMap<P::Rule, i64>,
    /// Of nothing where there is a flaw.
    protocol: P,
    flaw: Option<Flaw>,
}

struct Followed<P: Protocol> {
    process: u32,
    id: Box<[u8]>,
    events: Case<P::Chunk>,
    said: P::Account,
    is_flawed: bool,
    /// The entry in `due` that counts; MAX where there is none.
    queued: i64,
}

impl<P: Protocol> Followed<P> {
    fn new(process: u32, id: &[u8]) -> Self {
        Self { process, id: id.into(), events: Case::default(), said: P::Account::default(), is_flawed: false, queued: i64::MAX }
    }

    /// With its entries in the monitor. Rows share their names.
    fn bytes(&self) -> usize {
        ENTRY_BYTES + size_of::<Self>() + self.id.len() + self.events.bytes() + self.said.bytes()
    }
}

impl<P: Protocol> Monitor<P> {
    pub fn new(usage: Usage) -> Self {
        Self {
            names: Names::default(),
            processes: Vec::new(),
            by_id: HashMap::new(),
            homes: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            cases: Vec::new(),
            free: Vec::new(),
            clock: BTreeMap::new(),
            now: None,
            due: BinaryHeap::new(),
            usage,
        }
    }

    /// Takes in a tick's changes and says what they change.
    pub fn step(&mut self, changes: Vec<(Change<P::Rule>, i64)>, mut say: impl FnMut(Said<P::Row>, i64)) {
        let names_before = self.names.bytes();
        let mut events = Vec::new();
        let mut changed = BTreeSet::new();
        for (change, diff) in changes {
            match change {
                Change::Event(seen) => events.push((seen, diff)),
                Change::Rule(process, rule) => {
                    let process = self.process(process);
                    let rules = &mut self.processes[process as usize].rules;
                    let before = rules.len();
                    count(rules, rule, diff);
                    self.usage.resize(before * rule_bytes::<P>(), rules.len() * rule_bytes::<P>());
                    changed.insert(process);
                }
                Change::Now(now) => count(&mut self.clock, now, diff),
            }
        }
        let mut touched = Vec::new();
        self.compile(&changed, &mut touched, &mut say);
        self.tell_time(&mut touched);
        self.take_in(events, &mut touched);
        touched.sort_unstable();
        for run in touched.chunk_by(|a, b| a.0 == b.0) {
            let changed: Vec<i64> = run.iter().filter_map(|(_, time)| *time).collect();
            self.judge(run[0].0, &changed, &mut say);
        }
        self.forget_stale();
        self.usage.resize(names_before, self.names.bytes());
    }

    fn process(&mut self, id: Option<Bytes>) -> u32 {
        if let Some(at) = self.by_id.get(&id) {
            return *at;
        }
        let at = self.processes.len() as u32;
        let flaw = Some(unspecified().in_process(&id));
        self.by_id.insert(id.clone(), at);
        self.processes.push(Process { id, rules: BTreeMap::new(), protocol: P::default(), flaw });
        at
    }

    /// Reads changed specifications. Chunks are functions of them, so their cases begin anew.
    fn compile(&mut self, changed: &BTreeSet<u32>, touched: &mut Vec<Touched>, say: &mut impl FnMut(Said<P::Row>, i64)) {
        if changed.is_empty() {
            return;
        }
        for at in 0..self.cases.len() as u32 {
            if changed.contains(&self.cases[at as usize].process) && !self.cases[at as usize].events.is_empty() {
                self.take_back(at, say);
                touched.push((at, None));
            }
        }
        for &process in changed {
            let process = &mut self.processes[process as usize];
            let read = match process.rules.is_empty() {
                true => Err(unspecified()),
                false => P::read(process.rules.keys(), &mut self.names),
            };
            (process.protocol, process.flaw) = match read {
                Ok(protocol) => (protocol, None),
                Err(flaw) => (P::default(), Some(flaw.in_process(&process.id))),
            };
        }
        for &(at, _) in touched.iter() {
            let case = &mut self.cases[at as usize];
            let before = case.events.bytes();
            let events = std::mem::take(&mut case.events).into_events();
            case.events = Case::from_events(events, &self.processes[case.process as usize].protocol);
            self.usage.resize(before, case.events.bytes());
        }
    }

    /// Finds the cases that say something else because event time has moved.
    fn tell_time(&mut self, touched: &mut Vec<Touched>) {
        let now = self.clock.last_key_value().map(|(now, _)| *now);
        // What had passed is no longer queued. Clocks go back only as events are deleted.
        if now < self.now {
            let cases = (0..self.cases.len() as u32).filter(|at| !self.cases[*at as usize].events.is_empty());
            touched.extend(cases.map(|at| (at, None)));
        }
        self.now = now;
        while let Some(Reverse((due, at))) = self.due.peek().copied().filter(|Reverse((due, _))| Some(*due) < now) {
            self.due.pop();
            if self.cases[at as usize].queued == due {
                self.cases[at as usize].queued = i64::MAX;
                touched.push((at, None));
            }
        }
    }

    fn take_in(&mut self, events: Vec<(Seen, i64)>, touched: &mut Vec<Touched>) {
        let mut changes = Vec::with_capacity(events.len());
        for (seen, diff) in events {
            let activity = self.names.symbol(&seen.activity);
            let role = seen.role.as_ref().map_or(0, |role| self.names.symbol(role));
            let event = Event { ts: seen.ts, seq: seen.seq, activity, role };
            changes.push((self.place(seen.process, &seen.case), event, diff));
        }
        // A tick may bring an event and take it away, in any order.
        changes.sort_by(|(a_at, a, _), (b_at, b, _)| a_at.cmp(b_at).then_with(|| self.names.order(a, b)));
        for of_case in changes.chunk_by(|(a, ..), (b, ..)| a == b) {
            let at = of_case[0].0;
            let case = &mut self.cases[at as usize];
            let protocol = &self.processes[case.process as usize].protocol;
            let order = |a: &Event, b: &Event| self.names.order(a, b);
            let before = case.events.bytes();
            let mut come = Vec::new();
            for run in of_case.chunk_by(|(_, a, _), (_, b, _)| a == b) {
                let event = run[0].1;
                let net: i64 = run.iter().map(|(_, _, diff)| diff).sum();
                come.extend((0..net).map(|_| event));
                for _ in net..0 {
                    let is_removed = case.events.remove(&event, protocol, &order);
                    debug_assert!(is_removed, "a relation never holds fewer than no copies of a row");
                }
                touched.push((at, Some(event.ts)));
            }
            case.events.extend(come, protocol, &order);
            self.usage.resize(before, case.events.bytes());
        }
    }

    /// Where the case is kept.
    fn place(&mut self, process: Option<Bytes>, case: &[u8]) -> u32 {
        let process = self.process(process);
        let (cases, hasher) = (&self.cases, &self.hasher);
        let hash = |process: u32, id: &[u8]| hasher.hash_one((process, id));
        let is_it = |at: &u32| cases[*at as usize].process == process && *cases[*at as usize].id == *case;
        if let Some(at) = self.homes.find(hash(process, case), is_it) {
            return *at;
        }
        let at = self.free.pop().unwrap_or(cases.len() as u32);
        self.homes.insert_unique(hash(process, case), at, |at| hash(cases[*at as usize].process, &cases[*at as usize].id));
        let followed = Followed::new(process, case);
        self.usage.grow(followed.bytes());
        match self.cases.get_mut(at as usize) {
            Some(place) => *place = followed,
            None => self.cases.push(followed),
        }
        at
    }

    /// Says what is new of a case, and takes back what is not so any more. `changed`: when events came or went.
    fn judge(&mut self, at: u32, changed: &[i64], say: &mut impl FnMut(Said<P::Row>, i64)) {
        let case = &mut self.cases[at as usize];
        let process = &self.processes[case.process as usize];
        let Some(last) = case.events.last().map(|last| last.ts) else { return self.forget(at, say) };
        if let Some(flaw) = &process.flaw {
            if !std::mem::replace(&mut case.is_flawed, true) {
                say(Said::Flaw(flaw.clone()), 1);
            }
            return;
        }
        let observed = self.now.map_or(last, |now| now.max(last));
        let finding = |row: &P::Row| Said::Finding(Finding { process: process.id.clone(), case: case.id.to_vec(), row: row.clone() });
        let before = case.said.bytes();
        let look = Look { case: &case.events, changed, observed, names: &self.names };
        let due = process.protocol.follow(look, &mut case.said, &mut |row, diff| say(finding(row), diff));
        self.usage.resize(before, case.said.bytes());
        // An entry that comes too early costs a look; only one that would come too late is replaced.
        if let Some(due) = due.filter(|due| *due < case.queued) {
            case.queued = due;
            self.due.push(Reverse((due, at)));
        }
    }

    fn take_back(&mut self, at: u32, say: &mut impl FnMut(Said<P::Row>, i64)) {
        let case = &mut self.cases[at as usize];
        let process = &self.processes[case.process as usize];
        self.usage.shrink(case.said.bytes());
        for row in std::mem::take(&mut case.said).rows() {
            say(Said::Finding(Finding { process: process.id.clone(), case: case.id.to_vec(), row }), -1);
        }
        if let (true, Some(flaw)) = (std::mem::take(&mut case.is_flawed), &process.flaw) {
            say(Said::Flaw(flaw.clone()), -1);
        }
    }

    /// A case without events.
    fn forget(&mut self, at: u32, say: &mut impl FnMut(Said<P::Row>, i64)) {
        self.take_back(at, say);
        let case = &mut self.cases[at as usize];
        let hash = self.hasher.hash_one((case.process, &*case.id));
        if let Ok(entry) = self.homes.find_entry(hash, |other| *other == at) {
            entry.remove();
            self.usage.shrink(case.bytes());
            *case = Followed::new(case.process, &[]);
            self.free.push(at);
        }
    }

    /// Entries that no longer count go once they are the most, and not only when their time comes:
    /// without a clock that is never.
    fn forget_stale(&mut self) {
        let counting = self.cases.len() - self.free.len();
        if self.due.len() > 2 * counting + STALE_MIN {
            self.due.retain(|Reverse((due, at))| self.cases[*at as usize].queued == *due);
        }
    }
}

/// Fewer are not worth a look at all entries.
const STALE_MIN: usize = 64;

const fn rule_bytes<P: Protocol>() -> usize {
    ENTRY_BYTES + size_of::<P::Rule>()
}

fn unspecified() -> Flaw {
    Flaw::of([Part::Text("there is no specification")])
}

fn count<K: Ord>(counts: &mut BTreeMap<K, i64>, key: K, diff: i64) {
    match counts.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(diff);
        }
        Entry::Occupied(mut entry) => {
            *entry.get_mut() += diff;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::NO_SEQ;
    use super::super::automaton::{Automaton, Bounds, Policy, Rule, Violation};
    use super::*;

    /// Work that ends within 10.
    fn rules() -> Vec<Rule> {
        let state = |name: &str, is_initial, max_dwell| {
            Rule::State(name.into(), Bounds { is_initial, min_dwell: None, max_dwell, on_unexpected: Policy::Stay })
        };
        let transition = |from: &str, activity: &str, to: &str| Rule::Transition {
            from: from.into(),
            activity: activity.into(),
            to: to.into(),
            role: None,
            is_timeout: false,
        };
        vec![
            state("idle", true, None),
            state("busy", false, Some(10)),
            transition("idle", "begin", "busy"),
            transition("busy", "end", "idle"),
        ]
    }

    fn event(case: usize, activity: &str, ts: i64) -> Change<Rule> {
        Change::Event(Seen { process: None, case: case.to_le_bytes().into(), activity: activity.into(), role: None, ts, seq: NO_SEQ })
    }

    fn specification(diff: i64) -> Vec<(Change<Rule>, i64)> {
        rules().into_iter().map(|rule| (Change::Rule(None, rule), diff)).collect()
    }

    #[test]
    fn what_is_deleted_is_freed() {
        let usage = Usage::default();
        let mut monitor = Monitor::<Automaton>::new(usage.clone());
        let mut said: BTreeMap<_, i64> = BTreeMap::new();
        let mut step = |changes| monitor.step(changes, |row, diff| *said.entry(row).or_insert(0) += diff);
        // A long case, of which every step is out of order but the first, and short ones.
        let events: Vec<_> = (0..500).map(|ts| event(0, "begin", ts)).chain((1..9).map(|case| event(case, "begin", 0))).collect();
        step(events.iter().cloned().map(|event| (event, 1)).collect());
        step(specification(1));
        step(vec![(Change::Now(700), 1)]);
        // Each event but one is a violation, and each case is overdue.
        let least = events.len() * (size_of::<Event>() + size_of::<Violation>());
        assert!(least < usage.bytes() && usage.bytes() < 2 * least, "{} bytes, and {least} at least", usage.bytes());
        step(specification(-1));
        step(events.iter().cloned().map(|event| (event, -1)).collect());
        said.retain(|_, count| *count != 0);
        assert_eq!(said, BTreeMap::new());
        assert_eq!(usage.bytes(), monitor.names.bytes());
    }

    #[test]
    fn deadlines_of_cases_that_are_no_more_are_freed() {
        let mut monitor = Monitor::<Automaton>::new(Usage::default());
        monitor.step(specification(1), |_, _| {});
        for case in 0..1000 {
            monitor.step(vec![(event(case, "begin", 5), 1)], |_, _| {});
            monitor.step(vec![(event(case, "begin", 5), -1)], |_, _| {});
        }
        assert!(monitor.due.len() <= STALE_MIN && monitor.cases.len() == 1, "{} deadlines", monitor.due.len());
        // The one that is there is not forgotten.
        let mut said = Vec::new();
        monitor.step(vec![(event(7, "begin", 5), 1)], |_, _| {});
        monitor.step(vec![(Change::Now(16), 1)], |row, diff| said.push((row, diff)));
        assert!(matches!(&said[..], [(Said::Finding(finding), 1)] if finding.row.at == 15), "{said:?}");
    }
}
