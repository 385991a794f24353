//! What each protocol of `behaviour` says of a case once more, in batch and as plainly as can be; and
//! random edits of events, specifications and clock, after each of which both must agree. Every protocol
//! through the monitor; one of them through the dataflow too, at one worker and at four: the dataflow is
//! the same for all, and slow to compile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use differential_dataflow::input::InputSession;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use timely::dataflow::operators::{Inspect, Probe};

use tidegate_operators::behaviour::alignment::{self, Alignment, Fit};
use tidegate_operators::behaviour::automaton::{self, Automaton, Bounds, Breach, Policy, Violation};
use tidegate_operators::behaviour::event_calculus::{self, Calculus, Interval, Trigger};
use tidegate_operators::behaviour::monitor::{Change, Monitor, Said};
use tidegate_operators::behaviour::surprisal::{self, Model, Surprise};
use tidegate_operators::behaviour::token_replay::{self, Net, Tokens};
use tidegate_operators::behaviour::{Bytes, Finding, NO_SEQ, Name, Protocol, Seen, follow};
use tidegate_operators::usage::Usage;

const TICKS: usize = 14;

/// What a trial is made of.
#[derive(Clone)]
struct Trial<R> {
    /// Specifications of one process, of which one is there at a time.
    specifications: Vec<Vec<R>>,
    activities: &'static [&'static str],
    roles: &'static [&'static str],
    cases: usize,
    events_per_tick: usize,
    times: i64,
}

/// A case's event: its time, its `seq`, what was done, and by whom.
type Event = (i64, i64, Bytes, Option<Bytes>);
type Process = Option<Bytes>;
/// None: a case that cannot be judged.
type Rows<R> = BTreeMap<Option<Finding<R>>, i64>;
/// What the rules say of a case's events, in order, at a time; None: the rules make no sense.
type Batch<P> = fn(&[<P as Protocol>::Rule], &[Event], i64) -> Option<Vec<RowOf<P>>>;
type RowOf<P> = <P as tidegate_operators::behaviour::Follow>::Row;

#[derive(Clone)]
struct Tick<R> {
    events: Vec<(Seen, i64)>,
    rules: Vec<((Process, R), i64)>,
    clock: Vec<(i64, i64)>,
}

fn holds<P: Protocol>(trial: &Trial<P::Rule>, seeds: std::ops::Range<u64>, batch: Batch<P>)
where
    P::Row: Debug,
{
    for seed in seeds {
        let ticks = ticks(trial, &mut StdRng::seed_from_u64(seed));
        let expected = from_scratch::<P>(&ticks, batch);
        assert!(expected.iter().flat_map(BTreeMap::keys).any(Option::is_some), "seed {seed} shows nothing");
        for (tick, (expected, said)) in expected.iter().zip(followed::<P>(&ticks)).enumerate() {
            assert_eq!(said, *expected, "seed {seed}, tick {tick}");
        }
    }
}

/// Events come, in any order and more than once too, and go again; so do specifications and the clock.
fn ticks<R: Clone>(trial: &Trial<R>, random: &mut StdRng) -> Vec<Tick<R>> {
    let mut there: Vec<Seen> = Vec::new();
    let mut now = None;
    let mut specified: BTreeMap<Process, usize> = BTreeMap::new();
    let tick = |at: usize| {
        let mut tick = Tick { events: Vec::new(), rules: Vec::new(), clock: Vec::new() };
        let growth = if at % 5 == 4 { 0.2 } else { 0.8 };
        for _ in 0..random.random_range(0..=trial.events_per_tick) {
            match there.len() {
                // Twice the same is two events.
                1.. if random.random_bool(0.05) => there.push(there[random.random_range(0..there.len())].clone()),
                1.. if !random.random_bool(growth) => {
                    let gone = there.swap_remove(random.random_range(0..there.len()));
                    tick.events.push((gone, -1));
                    continue;
                }
                _ => there.push(seen(trial, random)),
            }
            tick.events.push((there.last().expect("just added").clone(), 1));
        }
        // All there was from some time on.
        if random.random_bool(0.1) {
            let from = random.random_range(0..trial.times);
            let gone = there.extract_if(.., |seen| from <= seen.ts);
            tick.events.extend(gone.map(|seen| (seen, -1)));
        }
        for process in [None, Some(b"p".to_vec())] {
            if at != 1 && !random.random_bool(0.1) {
                continue;
            }
            let rows = |index: usize| trial.specifications[index].iter().map(|rule| (process.clone(), rule.clone()));
            let next = random.random_range(0..trial.specifications.len());
            if let Some(old) = specified.insert(process.clone(), next) {
                tick.rules.extend(rows(old).map(|row| (row, -1)));
            }
            tick.rules.extend(rows(next).map(|row| (row, 1)));
        }
        if random.random_bool(0.6) {
            let next = if random.random_bool(0.05) { None } else { Some(random.random_range(0..=trial.times * (at as i64 + 4) / 12)) };
            tick.clock.extend(now.map(|now| (now, -1)));
            tick.clock.extend(next.map(|next| (next, 1)));
            now = next;
        }
        tick
    };
    (0..TICKS).map(tick).collect()
}

fn seen<R>(trial: &Trial<R>, random: &mut StdRng) -> Seen {
    let one_of = |random: &mut StdRng, names: &[&str]| names[random.random_range(0..names.len())].as_bytes().to_vec();
    Seen {
        process: random.random_bool(0.3).then(|| b"p".to_vec()),
        case: vec![random.random_range(0..trial.cases) as u8],
        activity: one_of(random, trial.activities),
        role: (!trial.roles.is_empty() && random.random_bool(0.8)).then(|| one_of(random, trial.roles)),
        ts: random.random_range(0..trial.times),
        seq: if random.random_bool(0.5) { NO_SEQ } else { random.random_range(0..3) },
    }
}

/// What `batch` says of each case by itself, after each tick.
fn from_scratch<P: Protocol>(ticks: &[Tick<P::Rule>], batch: Batch<P>) -> Vec<Rows<P::Row>> {
    let (mut events, mut rules, mut clock) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let after = |tick: &Tick<P::Rule>| {
        tick.events.iter().for_each(|(seen, diff)| *events.entry(seen.clone()).or_insert(0) += diff);
        tick.rules.iter().for_each(|(rule, diff)| *rules.entry(rule.clone()).or_insert(0) += diff);
        tick.clock.iter().for_each(|(now, diff)| *clock.entry(*now).or_insert(0) += diff);
        let mut cases: BTreeMap<(Process, Bytes), Vec<Event>> = BTreeMap::new();
        for (seen, count) in events.iter().filter(|(_, count)| 0 < **count) {
            let event = (seen.ts, seen.seq, seen.activity.clone(), seen.role.clone());
            let case = cases.entry((seen.process.clone(), seen.case.clone())).or_default();
            case.extend((0..*count).map(|_| event.clone()));
        }
        let now = clock.iter().filter(|(_, count)| 0 < **count).map(|(now, _)| *now).max();
        let mut rows = BTreeMap::new();
        for ((process, case), mut events) in cases {
            events.sort();
            let observed = now.unwrap_or(i64::MIN).max(events[events.len() - 1].0);
            let own = rules.iter().filter(|((of, _), count)| *of == process && 0 < **count);
            let own: Vec<P::Rule> = own.map(|((_, rule), _)| rule.clone()).collect();
            let said = if own.is_empty() { None } else { batch(&own, &events, observed) };
            let finding = |row| Some(Finding { process: process.clone(), case: case.clone(), row });
            let told = said.map_or(vec![None], |said| said.into_iter().map(finding).collect());
            told.into_iter().for_each(|row| *rows.entry(row).or_insert(0) += 1);
        }
        rows
    };
    ticks.iter().map(after).collect()
}

/// What a monitor says, after each tick.
fn followed<P: Protocol>(ticks: &[Tick<P::Rule>]) -> Vec<Rows<P::Row>> {
    let (mut monitor, mut net) = (Monitor::<P>::new(Usage::default()), BTreeMap::new());
    let after = |tick: &Tick<P::Rule>| {
        let events = tick.events.iter().cloned().map(|(seen, diff)| (Change::Event(seen), diff));
        let rules = tick.rules.iter().cloned().map(|((process, rule), diff)| (Change::Rule(process, rule), diff));
        let clock = tick.clock.iter().map(|(now, diff)| (Change::Now(*now), *diff));
        monitor.step(events.chain(rules).chain(clock).collect(), |said, diff| *net.entry(Said::finding(said)).or_insert(0) += diff);
        net.retain(|_, count| *count != 0);
        net.clone()
    };
    ticks.iter().map(after).collect()
}

/// What the dataflow says, after each tick.
fn answers(ticks: &[Tick<automaton::Rule>], workers: usize) -> Vec<Rows<Violation>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let (heard, given) = (Arc::clone(&said), ticks.to_vec());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (mut events, mut rules, mut clock) = (InputSession::new(), InputSession::new(), InputSession::new());
        let heard = Arc::clone(&heard);
        let probe = worker.dataflow::<u64, _, _>(|scope| {
            let (events, rules) = (events.to_collection(scope), rules.to_collection(scope));
            let (found, flaws) = follow::<Automaton>(events, rules, Some(clock.to_collection(scope)), Usage::default());
            found.map(Some).concat(flaws.map(|_| None)).inner.inspect(move |change| heard.lock().unwrap().push(change.clone())).probe().0
        });
        for (time, tick) in given.iter().enumerate() {
            // Each row comes in somewhere.
            let is_mine = |at: usize| at % worker.peers() == worker.index();
            let mine = tick.events.iter().enumerate().filter(|(at, _)| is_mine(*at));
            mine.for_each(|(_, (seen, diff))| events.update(seen.clone(), *diff));
            if is_mine(time) {
                tick.rules.iter().for_each(|(rule, diff)| rules.update(rule.clone(), *diff));
                tick.clock.iter().for_each(|(now, diff)| clock.update(*now, *diff));
            }
            let next = time as u64 + 1;
            events.advance_to(next);
            rules.advance_to(next);
            clock.advance_to(next);
            // Some ticks are closed together.
            if time % 3 != 0 {
                events.flush();
                rules.flush();
                clock.flush();
                worker.step_or_park_while(None, || probe.less_than(&next));
            }
        }
    });
    guards.expect("workers start").join().into_iter().for_each(|done| done.expect("workers end"));
    let said = said.lock().unwrap();
    let at = |tick: u64| {
        let mut net = BTreeMap::new();
        said.iter().filter(|change| change.1 <= tick).for_each(|(row, _, diff)| *net.entry(row.clone()).or_default() += diff);
        net.retain(|_, count| *count != 0);
        net
    };
    (0..ticks.len() as u64).map(at).collect()
}

fn bytes(name: &str) -> Bytes {
    name.into()
}

fn named(name: &Bytes) -> Name {
    name[..].into()
}

/// Orders are placed, approved by a clerk, paid within 10 and not before 2, and shipped; what is not paid by then lapses. One
/// that was reset is placed again within 15, not before 3.
fn order(on_unexpected: Policy) -> Vec<automaton::Rule> {
    let states = [("new", Some(3), Some(15)), ("placed", None, Some(20)), ("approved", Some(2), Some(10)), ("paid", None, Some(5))];
    let states = states.into_iter().chain([("shipped", None, None)]).map(|(state, min_dwell, max_dwell)| {
        let on_unexpected = if state == "shipped" { Policy::Absorb } else { on_unexpected };
        automaton::Rule::State(bytes(state), Bounds { is_initial: state == "new", min_dwell, max_dwell, on_unexpected })
    });
    let transitions = [
        ("new", "place", "placed", None),
        ("placed", "approve", "approved", Some("clerk")),
        ("placed", "approve", "paid", Some("chief")),
        ("approved", "pay", "paid", None),
        ("approved", "lapse", "placed", None),
        ("paid", "ship", "shipped", Some("clerk")),
        ("paid", "ship", "shipped", Some("chief")),
        ("placed", "change", "placed", None),
    ];
    let transitions = transitions.map(|(from, activity, to, role)| automaton::Rule::Transition {
        from: bytes(from),
        activity: bytes(activity),
        to: bytes(to),
        role: role.map(bytes),
        is_timeout: activity == "lapse",
    });
    states.chain(transitions).collect()
}

fn violation(breach: Breach, state: &Bytes, since: Option<i64>, at: i64, event: Option<&Event>) -> Violation {
    let seq = event.and_then(|event| (event.1 != NO_SEQ).then_some(event.1));
    let (activity, role) = (event.map(|event| named(&event.2)), event.and_then(|event| event.3.as_ref().map(named)));
    Violation { breach, state: named(state), since, at, seq, activity, role }
}

/// One event after the other, by name.
fn violations(rules: &[automaton::Rule], events: &[Event], observed: i64) -> Option<Vec<Violation>> {
    let states = rules.iter().filter_map(|rule| match rule {
        automaton::Rule::State(state, bounds) => Some((state, bounds)),
        automaton::Rule::Transition { .. } => None,
    });
    let states: BTreeMap<&Bytes, &Bounds> = states.collect();
    let initial: Vec<&Bytes> = states.iter().filter(|(_, bounds)| bounds.is_initial).map(|(state, _)| *state).collect();
    let [initial] = initial[..] else { return None };
    let (mut state, mut since, mut found) = (Some(initial), None, Vec::new());
    for event in events {
        let Some(now) = state else { break };
        let ways = rules.iter().filter_map(|rule| match rule {
            automaton::Rule::Transition { from, activity, to, role, is_timeout } if (from, activity) == (now, &event.2) => {
                Some((role, to, *is_timeout))
            }
            _ => None,
        });
        let ways: Vec<(&Option<Bytes>, &Bytes, bool)> = ways.collect();
        let own = ways.iter().find(|(role, ..)| role.is_some() && **role == event.3).or(ways.iter().find(|(role, ..)| role.is_none()));
        let targets: BTreeSet<&Bytes> = ways.iter().map(|(_, to, _)| *to).collect();
        match own {
            Some(_) => {}
            None if ways.is_empty() => found.push(violation(Breach::Unexpected, now, since, event.0, Some(event))),
            None => found.push(violation(Breach::Role, now, since, event.0, Some(event))),
        }
        let next = match (own, targets.len(), states[now].on_unexpected) {
            (Some((_, to, _)), ..) => Some(*to),
            (None, 1, _) => targets.first().copied(),
            (None, _, Policy::Stay) => continue,
            (None, _, Policy::Reset) => Some(initial),
            (None, _, Policy::Absorb) => None,
        };
        if let Some(since) = since {
            let by_timeout = (own.is_some() || targets.len() == 1) && ways.iter().any(|(.., is_timeout)| *is_timeout);
            let least = if by_timeout { states[now].max_dwell } else { states[now].min_dwell };
            if least.is_some_and(|least| event.0 - since < least) {
                found.push(violation(Breach::Early, now, Some(since), event.0, Some(event)));
            }
            found.extend(overdue(now, states[now], since, event.0).filter(|_| !by_timeout));
        }
        (state, since) = (next, Some(event.0));
    }
    if let (Some(state), Some(since)) = (state, since) {
        found.extend(overdue(state, states[state], since, observed));
    }
    Some(found)
}

fn overdue(state: &Bytes, bounds: &Bounds, since: i64, until: i64) -> Option<Violation> {
    let max_dwell = bounds.max_dwell.filter(|max_dwell| *max_dwell < until - since)?;
    Some(violation(Breach::Overdue, state, Some(since), since + max_dwell, None))
}

/// Every kind of specification, and one that makes no sense.
fn orders() -> Trial<automaton::Rule> {
    let initial = |name| {
        automaton::Rule::State(bytes(name), Bounds { is_initial: true, min_dwell: None, max_dwell: None, on_unexpected: Policy::Stay })
    };
    let senseless = vec![initial("a"), initial("b")];
    let specifications = vec![order(Policy::Stay), order(Policy::Reset), order(Policy::Absorb), senseless];
    let activities = &["place", "approve", "pay", "lapse", "ship", "change", "lose"];
    Trial { specifications, activities, roles: &["clerk", "chief", "guest"], cases: 9, events_per_tick: 40, times: 60 }
}

#[test]
fn protocols_are_broken_where_a_batch_says_so() {
    let many = orders();
    holds::<Automaton>(&many, 0..16, violations);
    let specifications = vec![order(Policy::Stay), order(Policy::Reset)];
    holds::<Automaton>(&Trial { specifications, cases: 1, events_per_tick: 500, times: 900, ..many }, 16..20, violations);
}

#[test]
fn the_number_of_workers_makes_no_difference() {
    for seed in 100..106 {
        let ticks = ticks(&orders(), &mut StdRng::seed_from_u64(seed));
        let expected = from_scratch::<Automaton>(&ticks, violations);
        for workers in [1, 4] {
            for (tick, (expected, said)) in expected.iter().zip(answers(&ticks, workers)).enumerate() {
                assert_eq!(said, *expected, "seed {seed}, {workers} workers, tick {tick}");
            }
        }
    }
}

/// a, b or c, d, e; f goes back, g and h end it.
const LOOP: [(&str, &str, &str); 8] = [
    ("0", "a", "1"),
    ("1", "b", "2"),
    ("1", "c", "2"),
    ("2", "d", "3"),
    ("3", "e", "4"),
    ("4", "f", "1"),
    ("4", "g", "5"),
    ("4", "h", "5"),
];

/// From "0" to "5".
fn graph(transitions: &[(&str, &str, &str)]) -> Vec<alignment::Rule> {
    let states: BTreeSet<&str> = transitions.iter().flat_map(|(from, _, to)| [*from, *to]).collect();
    let states =
        states.into_iter().map(|state| alignment::Rule::State { state: bytes(state), is_initial: state == "0", is_final: state == "5" });
    let transitions = transitions.iter().map(|(from, activity, to)| alignment::Rule::Transition {
        from: bytes(from),
        activity: bytes(activity),
        to: bytes(to),
    });
    states.chain(transitions).collect()
}

type Costs<'a> = BTreeMap<&'a Bytes, i64>;

/// Steps of the specification without events, until none makes a state cheaper.
fn relax<'a>(rules: &'a [alignment::Rule], costs: &mut Costs<'a>) {
    loop {
        let before = costs.clone();
        for rule in rules {
            if let alignment::Rule::Transition { from, to, .. } = rule
                && let Some(cost) = costs.get(from).map(|cost| cost + 1)
            {
                let to = costs.entry(to).or_insert(cost);
                *to = cost.min(*to);
            }
        }
        if before == *costs {
            break;
        }
    }
}

/// Event by event, what it costs at least to be in each state.
fn fit(rules: &[alignment::Rule], events: &[Event], _observed: i64) -> Option<Vec<Fit>> {
    let states = rules.iter().filter_map(|rule| match rule {
        alignment::Rule::State { state, is_initial, is_final } => Some((state, (*is_initial, *is_final))),
        alignment::Rule::Transition { .. } => None,
    });
    let states: BTreeMap<&Bytes, (bool, bool)> = states.collect();
    let initial = *states.iter().find(|(_, (is_initial, _))| *is_initial)?.0;
    let mut costs = Costs::from([(initial, 0)]);
    relax(rules, &mut costs);
    let end = |costs: &Costs| costs.iter().filter(|(state, _)| states[**state].1).map(|(_, cost)| *cost).min();
    let shortest = end(&costs)?;
    for (_, _, done, _) in events {
        let mut next: Costs = costs.iter().map(|(state, cost)| (*state, cost + 1)).collect();
        for rule in rules {
            if let alignment::Rule::Transition { from, activity, to } = rule
                && activity == done
                && let Some(&cost) = costs.get(from)
            {
                let to = next.entry(to).or_insert(cost);
                *to = cost.min(*to);
            }
        }
        relax(rules, &mut next);
        costs = next;
    }
    let prefix_cost = costs.values().copied().min()?;
    Some(vec![Fit { events: events.len() as i64, prefix_cost, cost: end(&costs)?, shortest }])
}

const LETTERS: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "x"];

#[test]
fn cases_cost_what_a_batch_says() {
    // Two ways for one activity, and a state without a way out; and no way to the end.
    let choice = graph(&[&LOOP[..], &[("1", "b", "4"), ("2", "d", "9")]].concat());
    let endless = graph(&LOOP[..6]);
    let specifications = vec![graph(&LOOP), choice, endless];
    let many = Trial { specifications: specifications.clone(), activities: LETTERS, roles: &[], cases: 9, events_per_tick: 40, times: 60 };
    holds::<Alignment>(&many, 20..36, fit);
    holds::<Alignment>(&Trial { specifications: specifications[..2].to_vec(), cases: 1, events_per_tick: 400, ..many }, 36..40, fit);
}

/// A token for each flow; d beside b or c; after e, f begins anew.
fn net() -> Vec<token_replay::Rule> {
    let arcs = [("a", "<", "12"), ("b", "1", "3"), ("c", "1", "3"), ("d", "2", "4"), ("e", "34", "5"), ("f", "5", "12"), ("g", "5", ">")];
    let arc = |activity, place: char, takes, puts| token_replay::Rule::Arc {
        activity: bytes(activity),
        place: bytes(&place.to_string()),
        takes,
        puts,
    };
    let arcs = arcs.into_iter().flat_map(|(activity, takes, puts)| {
        let takes = takes.chars().map(move |place| arc(activity, place, 1, 0));
        takes.chain(puts.chars().map(move |place| arc(activity, place, 0, 1)))
    });
    let marking = |place, initial, is_final| token_replay::Rule::Marking { place: bytes(place), initial, is_final };
    arcs.chain([marking("<", 1, 0), marking(">", 0, 1)]).collect()
}

fn take(tokens: &mut i64, sums: &mut Tokens) {
    sums.consumed += 1;
    if *tokens == 0 { sums.missing += 1 } else { *tokens -= 1 }
}

/// Token by token.
fn tokens(rules: &[token_replay::Rule], events: &[Event], _observed: i64) -> Option<Vec<Tokens>> {
    let mut places: BTreeMap<&Bytes, i64> = BTreeMap::new();
    let mut sums = Tokens::default();
    for rule in rules {
        if let token_replay::Rule::Marking { place, initial, .. } = rule {
            *places.entry(place).or_default() += initial;
            sums.produced += initial;
        }
    }
    for (_, _, done, _) in events {
        let mut is_known = false;
        for rule in rules {
            if let token_replay::Rule::Arc { activity, place, takes, puts } = rule
                && activity == done
            {
                is_known = true;
                let tokens = places.entry(place).or_default();
                (0..*takes).for_each(|_| take(tokens, &mut sums));
                *tokens += puts;
                sums.produced += puts;
            }
        }
        sums.events += i64::from(is_known);
    }
    for rule in rules {
        if let token_replay::Rule::Marking { place, is_final, .. } = rule {
            let tokens = places.entry(place).or_default();
            (0..*is_final).for_each(|_| take(tokens, &mut sums));
        }
    }
    sums.remaining = places.values().sum();
    Some(vec![sums])
}

#[test]
fn tokens_move_as_one_by_one() {
    let arc = |activity, takes, puts| token_replay::Rule::Arc { activity: bytes(activity), place: bytes("9"), takes, puts };
    let weighted = [net(), vec![arc("c", 0, 3), arc("g", 2, 1)]].concat();
    let twice = [net(), vec![arc("c", 0, 3), arc("c", 2, 1)]].concat();
    let specifications = vec![net(), weighted];
    let long = Trial { specifications, activities: LETTERS, roles: &[], cases: 1, events_per_tick: 400, times: 60 };
    holds::<Net>(&long, 40..44, tokens);
    let specifications = [&long.specifications[..], &[twice]].concat();
    let sensible = |rules: &[token_replay::Rule], events: &[Event], observed| {
        let arc = |rule: &_| {
            if let token_replay::Rule::Arc { activity, place, .. } = rule { Some((activity.clone(), place.clone())) } else { None }
        };
        let arcs: Vec<(Bytes, Bytes)> = rules.iter().filter_map(arc).collect();
        if arcs.iter().collect::<BTreeSet<_>>().len() < arcs.len() { None } else { tokens(rules, events, observed) }
    };
    holds::<Net>(&Trial { specifications, cases: 9, events_per_tick: 40, ..long }, 44..60, sensible);
}

/// `end of x`: the end of x's lifetime. Conditions by rule: what must hold, or not.
fn calculus(
    effects: &[(&str, &str, bool, &str)],
    conditions: &[(&str, &str, bool)],
    lifetimes: &[(&str, i64, bool)],
) -> Vec<event_calculus::Rule> {
    let effects = effects.iter().map(|&(rule, trigger, initiates, fluent)| {
        let trigger = match trigger.strip_prefix("end of ") {
            Some(fluent) => Trigger::Expiry(bytes(fluent)),
            None => Trigger::Activity(bytes(trigger)),
        };
        event_calculus::Rule::Effect { rule: bytes(rule), trigger, initiates, fluent: bytes(fluent) }
    });
    let conditions =
        conditions.iter().map(|&(rule, fluent, holds)| event_calculus::Rule::Condition { rule: bytes(rule), fluent: bytes(fluent), holds });
    let lifetimes =
        lifetimes.iter().map(|&(fluent, lasts, renews)| event_calculus::Rule::Lifetime { fluent: bytes(fluent), lasts, renews });
    effects.chain(conditions).chain(lifetimes).collect()
}

/// Quotes, contracts, and who may not go on.
fn trade() -> Vec<event_calculus::Rule> {
    calculus(
        &[
            ("presents", "present", true, "quote"),
            ("presents", "present", true, "prohibited"),
            ("too soon", "present", true, "suspended"),
            ("takes", "accept", false, "quote"),
            ("is asked", "request", false, "prohibited"),
            ("accepts", "accept", true, "contract"),
            ("accepts", "accept", true, "owes goods"),
            ("sends", "send", false, "owes goods"),
            ("is broken", "end of contract", true, "suspended"),
            ("is over", "end of contract", false, "owes goods"),
        ],
        &[("too soon", "prohibited", true), ("accepts", "quote", true), ("accepts", "suspended", false), ("is broken", "owes goods", true)],
        &[("quote", 5, false), ("contract", 5, false), ("suspended", 3, false), ("prohibited", 10, true)],
    )
}

/// What has no lifetime, and what is ended and begun by one event.
fn evening() -> Vec<event_calculus::Rule> {
    calculus(
        &[
            ("wins", "accept", true, "rich"),
            ("wins", "accept", true, "happy"),
            ("loses", "send", false, "rich"),
            ("at the pub", "present", true, "pub"),
            ("at the pub", "present", false, "pub"),
            ("at the pub", "present", true, "happy"),
            ("sad without a pub", "send", false, "happy"),
            ("sad without money", "request", false, "happy"),
        ],
        &[("sad without a pub", "pub", false), ("sad without money", "rich", false)],
        &[("pub", 7, false)],
    )
}

/// Moment by moment.
fn intervals(rules: &[event_calculus::Rule], events: &[Event], observed: i64) -> Option<Vec<Interval>> {
    let mut holding: BTreeMap<&Bytes, (i64, Option<i64>)> = BTreeMap::new();
    let mut found = Vec::new();
    for now in 0..=observed {
        // What ends at the present does so once an event of the present makes it known.
        let is_over = now < observed || events.iter().any(|event| event.0 == now);
        let expired = holding.iter().filter(|(_, (_, end))| is_over && *end == Some(now)).map(|(fluent, _)| *fluent);
        let expired: BTreeSet<&Bytes> = expired.collect();
        let (mut initiated, mut terminated) = (BTreeSet::new(), BTreeSet::new());
        for rule in rules {
            let event_calculus::Rule::Effect { rule: name, trigger, initiates, fluent } = rule else { continue };
            let is_triggered = match trigger {
                Trigger::Activity(activity) => events.iter().any(|event| (event.0, &event.2) == (now, activity)),
                Trigger::Expiry(fluent) => expired.contains(fluent),
            };
            let is_met = rules.iter().all(|rule| match rule {
                event_calculus::Rule::Condition { rule, fluent, holds } if rule == name => holding.contains_key(fluent) == *holds,
                _ => true,
            });
            if is_triggered && is_met {
                if *initiates { &mut initiated } else { &mut terminated }.insert(fluent);
            }
        }
        let ended: BTreeSet<&Bytes> = terminated.union(&expired).copied().collect();
        for fluent in ended.difference(&initiated) {
            if let Some((since, _)) = holding.remove(*fluent) {
                let has_expired = !terminated.contains(*fluent);
                found.push(Interval { fluent: named(fluent), since, until: Some(now), has_expired });
            }
        }
        for fluent in initiated {
            let lifetime = rules.iter().find_map(|rule| match rule {
                event_calculus::Rule::Lifetime { fluent: of, lasts, renews } if of == fluent => Some((now + lasts, *renews)),
                _ => None,
            });
            let begins = (now, lifetime.map(|(end, _)| end));
            let known = holding.entry(fluent).or_insert(begins);
            if ended.contains(fluent) || lifetime.is_some_and(|(_, renews)| renews) {
                known.1 = begins.1;
            }
        }
    }
    let open = holding.into_iter().map(|(fluent, (since, _))| Interval { fluent: named(fluent), since, until: None, has_expired: false });
    found.extend(open);
    Some(found)
}

#[test]
fn what_holds_holds_moment_by_moment() {
    let activities = &["request", "present", "accept", "send", "sleep"];
    let specifications = vec![trade(), evening()];
    let many = Trial { specifications, activities, roles: &[], cases: 9, events_per_tick: 40, times: 60 };
    holds::<Calculus>(&many, 60..76, intervals);
    let one = || Trial { specifications: vec![trade(), evening()], activities, roles: &[], cases: 1, events_per_tick: 150, times: 300 };
    holds::<Calculus>(&one(), 76..80, intervals);
    // Long enough to be in spans, and with a change now and then.
    holds::<Calculus>(&Trial { events_per_tick: 500, times: 4000, ..one() }, 80..84, intervals);
    let specifications = vec![trade()];
    holds::<Calculus>(&Trial { specifications, events_per_tick: 300, times: 2000, ..one() }, 84..88, intervals);
}

/// `^` is the beginning, `$` the end.
fn learned(counts: &[(&str, &str, i64)], smoothing: i64) -> Vec<surprisal::Rule> {
    let name = |name: &str| if "^$".contains(name) { None } else { Some(bytes(name)) };
    counts.iter().map(|(from, to, count)| surprisal::Rule { activity: name(from), next: name(to), count: *count, smoothing }).collect()
}

/// Step by step, from the model's rows.
fn surprise(rules: &[surprisal::Rule], events: &[Event], _observed: i64) -> Option<Vec<Surprise>> {
    let bits = |from: Option<&Bytes>, to: Option<&Bytes>| {
        let total: i64 = rules.iter().filter(|rule| rule.activity.as_ref() == from).map(|rule| rule.count).sum();
        let step = |rule: &&surprisal::Rule| (rule.activity.as_ref(), rule.next.as_ref()) == (from, to);
        let count: i64 = rules.iter().filter(step).map(|rule| rule.count).sum();
        let known: BTreeSet<&Bytes> = rules.iter().flat_map(|rule| [&rule.activity, &rule.next]).flatten().collect();
        let alpha = rules[0].smoothing as f64;
        let share = (count as f64 + alpha) / (total as f64 + alpha * (known.len() as f64 + 2.0));
        ((-share.log2() * 1e6).round() as i64, count == 0)
    };
    let mut before = None;
    let mut row =
        Surprise { events: events.len() as i64, sum: 0, max: i64::MIN, activity: None, next: [][..].into(), at: 0, end: 0, unseen: 0 };
    for (ts, _, activity, _) in events {
        let (step, is_unseen) = bits(before, Some(activity));
        if row.max < step {
            (row.max, row.at, row.activity, row.next) = (step, *ts, before.map(named), named(activity));
        }
        row.sum += step;
        row.unseen += i64::from(is_unseen);
        before = Some(activity);
    }
    row.end = bits(before, None).0;
    Some(vec![row])
}

#[test]
fn steps_surprise_as_the_formula_says() {
    let straight = [("^", "a", 100), ("a", "b", 99), ("a", "c", 1), ("b", "c", 90), ("b", "d", 9), ("c", "d", 91), ("d", "$", 100)];
    let back = [("^", "a", 5), ("^", "b", 6), ("a", "b", 6), ("b", "a", 6), ("a", "$", 5), ("b", "$", 6), ("b", "b", 0)];
    let specifications = vec![learned(&straight, 1), learned(&back, 3)];
    let many = Trial { specifications, activities: &["a", "b", "c", "d", "e"], roles: &[], cases: 9, events_per_tick: 40, times: 60 };
    holds::<Model>(&many, 80..96, surprise);
    holds::<Model>(&Trial { cases: 1, events_per_tick: 400, ..many }, 96..100, surprise);
}
