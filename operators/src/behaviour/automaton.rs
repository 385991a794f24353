//! Protocols with time bounds: which step comes when, and by whom.
//!
//! A case starts in the initial state. An event takes a transition of the state it finds; a state is
//! entered at the event's time, and left not before `min_dwell` and not after `max_dwell`; by a timeout
//! not before `max_dwell`, and then whenever it comes. When a case came into being no event says, so its
//! bounds do not hold for the initial state it starts in: they do once the case is there again, by a
//! transition or by a reset, from that event on.
//!
//! A chunk is a function from state to state, with how many violations lie in it. Only the first
//! leaving depends on what was before: it is judged where chunks compose.
//!
//! Source  Alur and Dill, A Theory of Timed Automata, TCS 1994

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::case::{Case, Chunks, Event, Walker};
use super::{Bytes, Flaw, Judge, Name, Names, Part, Protocol, Symbol};

/// States of one process at most: each chunk of a long case has an entry per state.
pub const STATES_MAX: usize = 256;

/// A row of the specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rule {
    State(Bytes, Bounds),
    /// A state's activity is a timeout if one of its transitions is.
    Transition {
        from: Bytes,
        activity: Bytes,
        to: Bytes,
        role: Option<Bytes>,
        is_timeout: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bounds {
    pub is_initial: bool,
    pub min_dwell: Option<i64>,
    pub max_dwell: Option<i64>,
    pub on_unexpected: Policy,
}

/// What becomes of a case whose event has no transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Policy {
    /// The event is passed over.
    Stay,
    /// The case is in the initial state again, as of the event.
    Reset,
    /// The case is judged no further.
    Absorb,
}

/// Why an event, or its absence, is a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// No transition of the state is this activity's.
    Unexpected,
    /// There is one, but not for this role.
    Role,
    /// The state was left before its `min_dwell`, or by a timeout before its `max_dwell`.
    Early,
    /// The state was not left by its `max_dwell`, and no timeout came.
    Overdue,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub breach: Breach,
    pub state: Name,
    /// When the state was entered.
    pub since: Option<i64>,
    /// The event's time, or the deadline that passed.
    pub at: i64,
    pub seq: Option<i64>,
    pub activity: Option<Name>,
    pub role: Option<Name>,
}

/// By default of no states: every case is absorbed.
#[derive(Debug, Default)]
pub struct Automaton {
    states: Vec<State>,
    initial: u16,
    /// By symbol: its column in `steps`, or none.
    columns: Vec<Option<u32>>,
    width: usize,
    steps: Vec<Option<Step>>,
}

#[derive(Debug)]
struct State {
    name: Name,
    min_dwell: Option<i64>,
    max_dwell: Option<i64>,
    on_unexpected: Policy,
}

/// Where an activity leads from a state.
#[derive(Debug, Default)]
struct Step {
    anyone: Option<u16>,
    /// By role, in the order of names.
    by_role: Vec<(Symbol, u16)>,
    is_timeout: bool,
}

/// What an event does to a case in some state.
struct Taken {
    to: Option<u16>,
    breach: Option<Breach>,
    is_timeout: bool,
}

/// Where a case is.
#[derive(Debug, Clone, Copy)]
struct At {
    state: u16,
    since: Option<i64>,
}

/// What a chunk does to a case in one state.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    end: u16,
    moved: Option<Moved>,
    /// But for those of the first leaving.
    violations: u32,
}

/// How a case left the state in which a chunk found it, and when it entered the one in which the chunk leaves it.
#[derive(Debug, Clone, Copy)]
struct Moved {
    left: i64,
    by_timeout: bool,
    since: i64,
}

impl Protocol for Automaton {
    type Rule = Rule;

    fn read<'a>(rules: impl Iterator<Item = &'a Rule>, names: &mut Names) -> Result<Self, Flaw> {
        let mut states: BTreeMap<&Bytes, &Bounds> = BTreeMap::new();
        let mut transitions = Vec::new();
        for rule in rules {
            match rule {
                Rule::Transition { from, activity, to, role, is_timeout } => transitions.push((from, activity, to, role, *is_timeout)),
                Rule::State(state, bounds) => {
                    if states.insert(state, bounds).is_some() {
                        return Err(Flaw::of([Part::Text("state "), Part::id("state", state), Part::Text(" is defined twice")]));
                    }
                }
            }
        }
        let index = index(&states)?;
        let mut automaton = Self::without_steps(&states, names)?;
        for (from, activity, to, role, is_timeout) in transitions {
            let known = |state: &Bytes| index.get(state).copied().ok_or_else(|| unknown(state));
            let (role, to) = (role.as_ref().map(|role| names.symbol(role)), known(to)?);
            let step = automaton.step_of(known(from)?, names.symbol(activity));
            step.is_timeout |= is_timeout;
            step.add(role, to).map_err(|()| {
                let (state, activity) = (Part::id("state", from), Part::id("activity", activity));
                let end = " leads to two states for one role: give one of them another activity";
                Flaw::of([Part::Text("state "), state, Part::Text(": activity "), activity, Part::Text(end)])
            })?;
        }
        Ok(automaton)
    }
}

/// The states' numbers, in the order of their names.
pub fn index<'a, V>(states: &BTreeMap<&'a Bytes, V>) -> Result<BTreeMap<&'a Bytes, u16>, Flaw> {
    match states.len() {
        0 => Err(Flaw::of([Part::Text("there are no states")])),
        1..=STATES_MAX => Ok(states.keys().copied().zip(0..).collect()),
        _ => Err(Flaw::of([Part::Text("there are more than 256 states: split the process into several")])),
    }
}

/// The one initial state among `initial`.
pub fn only_initial<'a>(mut initial: impl Iterator<Item = &'a Bytes>) -> Result<&'a Bytes, Flaw> {
    let Some(first) = initial.next() else { return Err(Flaw::of([Part::Text("no state is initial")])) };
    match initial.next() {
        None => Ok(first),
        Some(second) => {
            let (first, second) = (Part::id("state", first), Part::id("state", second));
            Err(Flaw::of([Part::Text("states "), first, Part::Text(" and "), second, Part::Text(" are both initial")]))
        }
    }
}

pub fn unknown(state: &Bytes) -> Flaw {
    Flaw::of([Part::Text("state "), Part::id("state", state), Part::Text(" is in transitions, but not in states")])
}

impl Automaton {
    fn without_steps(states: &BTreeMap<&Bytes, &Bounds>, names: &mut Names) -> Result<Self, Flaw> {
        let initial = only_initial(states.iter().filter(|(_, bounds)| bounds.is_initial).map(|(state, _)| *state))?;
        let initial = states.keys().position(|state| *state == initial).expect("it was found there") as u16;
        let state = |(name, bounds): (&&Bytes, &&Bounds)| {
            let symbol = names.symbol(name);
            let name = names.name(symbol);
            State { name, min_dwell: bounds.min_dwell, max_dwell: bounds.max_dwell, on_unexpected: bounds.on_unexpected }
        };
        Ok(Self { states: states.iter().map(state).collect(), initial, columns: Vec::new(), width: 0, steps: Vec::new() })
    }

    fn step_of(&mut self, from: u16, activity: Symbol) -> &mut Step {
        if self.columns.len() <= activity as usize {
            self.columns.resize(activity as usize + 1, None);
        }
        let count = self.states.len();
        let column = *self.columns[activity as usize].get_or_insert_with(|| {
            self.width += 1;
            self.steps.resize_with(self.width * count, || None);
            (self.width - 1) as u32
        });
        self.steps[column as usize * count + from as usize].get_or_insert_default()
    }

    fn step(&self, state: u16, event: &Event) -> Taken {
        // Absorbed: the state behind all states.
        let Some(found) = self.states.get(state as usize) else { return Taken::untaken(None, None) };
        let column = self.columns.get(event.activity as usize).copied().flatten();
        let step = column.and_then(|column| self.steps[column as usize * self.states.len() + state as usize].as_ref());
        let Some(step) = step else { return Taken::untaken(self.after(found), Some(Breach::Unexpected)) };
        let own = step.by_role.iter().find(|(role, _)| *role == event.role).map(|(_, to)| *to);
        match own.or(step.anyone) {
            Some(to) => Taken { to: Some(to), breach: None, is_timeout: step.is_timeout },
            // It happened all the same: where it can only lead to one state, the case is there.
            None => {
                let to = step.by_role[0].1;
                let is_sure = step.by_role.iter().all(|(_, other)| *other == to);
                match is_sure {
                    true => Taken { to: Some(to), breach: Some(Breach::Role), is_timeout: step.is_timeout },
                    false => Taken::untaken(self.after(found), Some(Breach::Role)),
                }
            }
        }
    }

    fn after(&self, state: &State) -> Option<u16> {
        match state.on_unexpected {
            Policy::Stay => None,
            Policy::Reset => Some(self.initial),
            Policy::Absorb => Some(self.states.len() as u16),
        }
    }

    fn is_early(&self, state: u16, since: i64, left: i64, by_timeout: bool) -> bool {
        let Some(State { min_dwell, max_dwell, .. }) = self.states.get(state as usize) else { return false };
        let least = if by_timeout { max_dwell } else { min_dwell };
        least.is_some_and(|least| left < since.saturating_add(least))
    }

    /// The last moment at which the state may be left.
    fn due(&self, state: u16, since: Option<i64>) -> Option<i64> {
        let max_dwell = self.states.get(state as usize)?.max_dwell?;
        Some(since?.saturating_add(max_dwell))
    }

    /// The deadline that had passed when the state was left.
    fn missed(&self, state: u16, since: i64, left: i64, by_timeout: bool) -> Option<i64> {
        self.due(state, Some(since)).filter(|due| !by_timeout && left > *due)
    }

    /// How many violations lie in leaving `state` at `left`.
    fn breaches(&self, state: u16, since: Option<i64>, left: i64, by_timeout: bool) -> u32 {
        let Some(since) = since else { return 0 };
        let is_overdue = self.missed(state, since, left, by_timeout).is_some();
        u32::from(self.is_early(state, since, left, by_timeout)) + u32::from(is_overdue)
    }
}

impl Step {
    /// Err where the role already leads elsewhere.
    fn add(&mut self, role: Option<Symbol>, to: u16) -> Result<(), ()> {
        let known = match role {
            None => self.anyone.replace(to),
            Some(role) => {
                let known = self.by_role.iter().find(|(other, _)| *other == role).map(|(_, to)| *to);
                self.by_role.push((role, to));
                known
            }
        };
        if known.is_some_and(|known| known != to) { Err(()) } else { Ok(()) }
    }
}

impl Taken {
    /// No transition was found.
    fn untaken(to: Option<u16>, breach: Option<Breach>) -> Self {
        Self { to, breach, is_timeout: false }
    }
}

impl Chunks for Automaton {
    type Chunk = Box<[Path]>;

    fn of(&self, events: &[Event]) -> Box<[Path]> {
        let path = |start: u16| {
            let mut path = Path { end: start, moved: None, violations: 0 };
            for event in events {
                let taken = self.step(path.end, event);
                path.violations += u32::from(taken.breach.is_some());
                if let Some(to) = taken.to {
                    let since = path.moved.map(|moved| moved.since);
                    path.violations += self.breaches(path.end, since, event.ts, taken.is_timeout);
                    let first = Moved { left: event.ts, by_timeout: taken.is_timeout, since: event.ts };
                    path.moved = Some(Moved { since: event.ts, ..path.moved.unwrap_or(first) });
                    path.end = to;
                }
            }
            path
        };
        (0..=self.states.len() as u16).map(path).collect()
    }

    fn then(&self, first: &Box<[Path]>, second: &Box<[Path]>) -> Box<[Path]> {
        let path = |first: &Path| {
            let second = &second[first.end as usize];
            let between = match (first.moved, second.moved) {
                (Some(Moved { since, .. }), Some(next)) => self.breaches(first.end, Some(since), next.left, next.by_timeout),
                _ => 0,
            };
            let moved = match (first.moved, second.moved) {
                (Some(first), Some(Moved { since, .. })) => Some(Moved { since, ..first }),
                (first, second) => first.or(second),
            };
            Path { end: second.end, moved, violations: first.violations + between + second.violations }
        };
        first.iter().map(path).collect()
    }

    fn allocated(&self) -> usize {
        (self.states.len() + 1) * size_of::<Path>()
    }
}

impl Judge for Automaton {
    type Row = Violation;

    fn judge(&self, case: &Case<Self::Chunk>, observed: i64, names: &Names) -> (Vec<Violation>, Option<i64>) {
        let mut finder = Finder { automaton: self, names, at: At { state: self.initial, since: None }, found: Vec::new() };
        case.walk(&mut finder);
        let at = finder.at;
        let due = self.due(at.state, at.since);
        if let Some(due) = due.filter(|due| observed > *due) {
            finder.overdue(due);
            return (finder.found, None);
        }
        (finder.found, due)
    }
}

/// Goes where violations are.
struct Finder<'a> {
    automaton: &'a Automaton,
    names: &'a Names,
    at: At,
    found: Vec<Violation>,
}

impl Walker<Box<[Path]>> for Finder<'_> {
    fn passes(&mut self, chunk: &Box<[Path]>) -> bool {
        let path = &chunk[self.at.state as usize];
        let breaches = |moved: Moved| self.automaton.breaches(self.at.state, self.at.since, moved.left, moved.by_timeout);
        let first = path.moved.map_or(0, breaches);
        let is_clean = path.violations + first == 0;
        if is_clean {
            self.at = At { state: path.end, since: path.moved.map(|moved| moved.since).or(self.at.since) };
        }
        is_clean
    }

    fn events(&mut self, events: &[Event]) {
        for event in events {
            let taken = self.automaton.step(self.at.state, event);
            if let Some(breach) = taken.breach {
                self.add(breach, event);
            }
            let Some(to) = taken.to else { continue };
            if let Some(since) = self.at.since {
                if self.automaton.is_early(self.at.state, since, event.ts, taken.is_timeout) {
                    self.add(Breach::Early, event);
                }
                if let Some(due) = self.automaton.missed(self.at.state, since, event.ts, taken.is_timeout) {
                    self.overdue(due);
                }
            }
            self.at = At { state: to, since: Some(event.ts) };
        }
    }
}

impl Finder<'_> {
    fn add(&mut self, breach: Breach, event: &Event) {
        let state = &self.automaton.states[self.at.state as usize];
        self.found.push(Violation {
            breach,
            state: state.name.clone(),
            since: self.at.since,
            at: event.ts,
            seq: event.seq(),
            activity: Some(self.names.name(event.activity)),
            role: self.names.some(event.role),
        });
    }

    // No event's: the row is the same whether the clock or a later event shows that time has passed.
    fn overdue(&mut self, due: i64) {
        let state = &self.automaton.states[self.at.state as usize];
        let (state, since) = (state.name.clone(), self.at.since);
        self.found.push(Violation { breach: Breach::Overdue, state, since, at: due, seq: None, activity: None, role: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, is_initial: bool, dwell: (Option<i64>, Option<i64>), on_unexpected: Policy) -> Rule {
        Rule::State(name.into(), Bounds { is_initial, min_dwell: dwell.0, max_dwell: dwell.1, on_unexpected })
    }

    fn transition(from: &str, activity: &str, to: &str, role: &str) -> Rule {
        let role = (!role.is_empty()).then(|| role.into());
        Rule::Transition { from: from.into(), activity: activity.into(), to: to.into(), role, is_timeout: false }
    }

    /// Orders are placed, approved by a clerk, paid within 10 and not before 2, and shipped.
    fn order(policy: Policy) -> Vec<Rule> {
        vec![
            state("new", true, (None, None), policy),
            state("placed", false, (None, Some(20)), policy),
            state("approved", false, (Some(2), Some(10)), policy),
            state("paid", false, (None, Some(5)), policy),
            state("shipped", false, (None, None), Policy::Absorb),
            transition("new", "place", "placed", ""),
            transition("placed", "approve", "approved", "clerk"),
            transition("placed", "approve", "paid", "chief"),
            transition("approved", "pay", "paid", ""),
            transition("paid", "ship", "shipped", "clerk"),
            transition("paid", "ship", "shipped", "chief"),
            transition("placed", "change", "placed", ""),
        ]
    }

    fn judged(rules: &[Rule], events: &[(i64, &str, &str)], observed: i64) -> Vec<(Breach, String, i64)> {
        let mut names = Names::default();
        let automaton = Automaton::read(rules.iter(), &mut names).expect("a specification");
        let symbol = |names: &mut Names, name: &str| if name.is_empty() { 0 } else { names.symbol(name.as_bytes()) };
        let event = |&(ts, activity, role): &(i64, &str, &str)| {
            let (activity, role) = (symbol(&mut names, activity), symbol(&mut names, role));
            Event { ts, seq: super::super::NO_SEQ, activity, role }
        };
        let events = events.iter().map(event).collect();
        let (rows, _) = automaton.judge(&Case::from_events(events, &automaton), observed, &names);
        rows.iter().map(|row| (row.breach, String::from_utf8_lossy(&row.state).into_owned(), row.at)).collect()
    }

    #[test]
    fn a_deadline_holds_to_its_last_moment() {
        let rules = order(Policy::Stay);
        let placed = [(0, "place", ""), (3, "approve", "clerk")];
        assert_eq!(judged(&rules, &placed, 13), []);
        assert_eq!(judged(&rules, &placed, 14), [(Breach::Overdue, "approved".into(), 13)]);
        // The payment that came late was made in time.
        assert_eq!(judged(&rules, &[placed[0], placed[1], (13, "pay", "")], 14), []);
        assert_eq!(judged(&rules, &[placed[0], placed[1], (14, "pay", "")], 14), [(Breach::Overdue, "approved".into(), 13)]);
        assert_eq!(judged(&rules, &[placed[0], placed[1], (4, "pay", "")], 4), [(Breach::Early, "approved".into(), 4)]);
    }

    #[test]
    fn a_timeout_comes_once_the_time_has_passed_and_nothing_else_does() {
        let mut rules = vec![
            state("new", true, (None, None), Policy::Stay),
            state("open", false, (Some(1), Some(60)), Policy::Stay),
            state("late", false, (None, None), Policy::Stay),
            state("done", false, (None, None), Policy::Stay),
            transition("new", "order", "open", ""),
            transition("open", "pay", "done", ""),
            transition("late", "cancel", "done", ""),
        ];
        let (from, activity, to) = ("open".into(), "timeout".into(), "late".into());
        rules.push(Rule::Transition { from, activity, to, role: None, is_timeout: true });
        let judged = |events: &[(i64, &str, &str)], observed| judged(&rules, events, observed);
        let order = (0, "order", "");
        assert_eq!(judged(&[order, (60, "timeout", ""), (61, "cancel", "")], 99), []);
        assert_eq!(judged(&[order, (75, "timeout", ""), (76, "cancel", "")], 99), []);
        assert_eq!(judged(&[order, (59, "timeout", ""), (61, "cancel", "")], 99), [(Breach::Early, "open".into(), 59)]);
        assert_eq!(judged(&[order, (60, "pay", "")], 99), []);
        assert_eq!(judged(&[order, (61, "pay", "")], 99), [(Breach::Overdue, "open".into(), 60)]);
        assert_eq!(judged(&[order, (0, "pay", "")], 99), [(Breach::Early, "open".into(), 0)]);
        // Until it comes, it is missing.
        assert_eq!(judged(&[order], 61), [(Breach::Overdue, "open".into(), 60)]);
    }

    #[test]
    fn a_timeout_is_judged_where_chunks_compose() {
        let mut names = Names::default();
        let mut rules = vec![state("a", true, (None, None), Policy::Stay), state("b", false, (None, Some(60)), Policy::Stay)];
        rules.push(transition("a", "go", "b", ""));
        rules.push(Rule::Transition { from: "b".into(), activity: "timeout".into(), to: "a".into(), role: None, is_timeout: true });
        let automaton = Automaton::read(rules.iter(), &mut names).expect("a specification");
        let mut chunk = |ts, activity: &str| {
            let activity = names.symbol(activity.as_bytes());
            automaton.of(&[Event { ts, seq: super::super::NO_SEQ, activity, role: 0 }])
        };
        let (go, timely, early) = (chunk(0, "go"), chunk(70, "timeout"), chunk(50, "timeout"));
        assert_eq!([&timely, &early].map(|timeout| automaton.then(&go, timeout)[0].violations), [0, 1]);
    }

    #[test]
    fn the_initial_state_has_bounds_once_it_is_entered() {
        let rules = [
            state("new", true, (Some(2), Some(10)), Policy::Reset),
            state("open", false, (None, None), Policy::Reset),
            transition("new", "open", "open", ""),
            transition("open", "close", "new", ""),
        ];
        let new = |breach, at| (breach, "new".to_string(), at);
        assert_eq!(judged(&rules, &[], 99), []);
        assert_eq!(judged(&rules, &[(0, "open", "")], 99), []);
        assert_eq!(judged(&rules, &[(0, "open", ""), (20, "close", "")], 30), []);
        assert_eq!(judged(&rules, &[(0, "open", ""), (20, "close", "")], 31), [new(Breach::Overdue, 30)]);
        assert_eq!(judged(&rules, &[(0, "open", ""), (20, "close", ""), (21, "open", "")], 99), [new(Breach::Early, 21)]);
        // Nothing says when the case began, but when it was reset.
        let reset = [new(Breach::Unexpected, 50), new(Breach::Early, 51)];
        assert_eq!(judged(&rules, &[(50, "lose", ""), (51, "open", "")], 99), reset);
        assert_eq!(judged(&rules, &[(50, "lose", "")], 61), [new(Breach::Unexpected, 50), new(Breach::Overdue, 60)]);
        // Where it is passed over, the case has not been anywhere else.
        let stay = [state("new", true, (Some(2), Some(10)), Policy::Stay), rules[1].clone(), rules[2].clone(), rules[3].clone()];
        assert_eq!(judged(&stay, &[(50, "lose", ""), (51, "open", "")], 99), [new(Breach::Unexpected, 50)]);
    }

    #[test]
    fn who_does_it_matters() {
        let rules = order(Policy::Stay);
        // A guest's approval leads nowhere for sure, so the case stays; a guest ships all the same.
        let events = [(0, "place", ""), (1, "approve", "guest"), (2, "approve", "chief"), (3, "ship", "guest"), (9, "ship", "clerk")];
        let found = judged(&rules, &events, 9);
        let expected = [(Breach::Role, "placed".into(), 1), (Breach::Role, "paid".into(), 3), (Breach::Unexpected, "shipped".into(), 9)];
        assert_eq!(found, expected);
    }

    fn flaw(rules: &[Rule]) -> String {
        let flaw = Automaton::read(rules.iter(), &mut Names::default()).expect_err("no specification");
        flaw.say(|_, id| String::from_utf8_lossy(id).into_owned())
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let stay = |name: &str, is_initial| state(name, is_initial, (None, None), Policy::Stay);
        assert_eq!(flaw(&[]), "there are no states");
        assert_eq!(flaw(&[stay("a", false)]), "no state is initial");
        assert_eq!(flaw(&[stay("a", true), stay("b", true)]), "states a and b are both initial");
        assert_eq!(flaw(&[stay("a", true), stay("a", false)]), "state a is defined twice");
        assert_eq!(flaw(&[stay("a", true), transition("a", "x", "c", "")]), "state c is in transitions, but not in states");
        let two = [stay("a", true), stay("b", false), transition("a", "x", "a", ""), transition("a", "x", "b", "")];
        assert_eq!(flaw(&two), "state a: activity x leads to two states for one role: give one of them another activity");
        let many: Vec<Rule> = (0..=STATES_MAX).map(|state| stay(&format!("{state}"), state == 0)).collect();
        assert_eq!(flaw(&many), "there are more than 256 states: split the process into several");
    }
}
