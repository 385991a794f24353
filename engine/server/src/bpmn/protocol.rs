//! A process as an automaton of what may come next.
//!
//! Tokens wait before nodes; before a parallel gateway, on each flow by itself. What is not seen in logs
//! (gateways, ends) happens by itself, at once: a state is the set of markings in which a case may be
//! waiting after what was seen.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_types::error::{Error, Result};

use super::document::{Graph, Kind, Node};

/// As many as `violations` follows.
const STATES_MAX: usize = 256;
/// In one state.
const MARKINGS_MAX: usize = 4096;

pub struct Protocol {
    /// The initial one first.
    pub states: Vec<State>,
    pub transitions: Vec<Transition>,
}

pub struct State {
    pub name: String,
    pub is_final: bool,
    pub min_dwell_ms: Option<i64>,
    pub max_dwell_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    pub from: usize,
    pub activity: String,
    pub role: Option<String>,
    pub to: usize,
    /// It comes once the most time in the state it leaves has passed.
    pub is_timeout: bool,
}

/// What a log shows of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen<'a> {
    activity: &'a str,
    role: Option<&'a str>,
    is_timeout: bool,
}

/// The places that hold a token.
type Marking = BTreeSet<usize>;
type Markings = BTreeSet<Marking>;

/// The automaton of a process.
pub fn protocol(graph: &Graph) -> Result<Protocol> {
    let process = Process::new(graph);
    let mut states: Vec<Markings> = vec![process.initial()?];
    let mut known: BTreeMap<Markings, usize> = BTreeMap::from([(states[0].clone(), 0)]);
    let mut transitions = BTreeSet::new();
    let mut at = 0;
    while at < states.len() {
        for (Seen { activity, role, is_timeout }, next) in process.steps(&states[at])? {
            let next = process.settled(next)?;
            let to = *known.entry(next.clone()).or_insert(states.len());
            if to == states.len() {
                states.push(next);
            }
            let (activity, role) = (activity.to_string(), role.map(String::from));
            transitions.insert(Transition { from: at, activity, role, to, is_timeout });
        }
        if states.len() > STATES_MAX {
            let error = Error::user(format!("process \"{}\" has more than {STATES_MAX} states", graph.name));
            return Err(error.hint("split it: branches that run beside each other multiply their states"));
        }
        at += 1;
    }
    process.refuse_endless(&states, &transitions)?;
    process.refuse_untimed(&states[0])?;
    let bounds = states.iter().map(|markings| process.bounds(markings)).collect::<Result<Vec<_>>>()?;
    let named = names(&states, &process).into_iter().zip(&states).zip(bounds);
    let states = named.map(|((name, markings), (min_dwell_ms, max_dwell_ms))| {
        let is_final = is_final(markings);
        State { name, is_final, min_dwell_ms, max_dwell_ms }
    });
    Ok(Protocol { states: states.collect(), transitions: transitions.into_iter().collect() })
}

fn is_final(markings: &Markings) -> bool {
    markings.iter().any(BTreeSet::is_empty)
}

/// The states from which a final one is reached.
fn ending(states: &[Markings], transitions: &BTreeSet<Transition>) -> BTreeSet<usize> {
    let mut ending: BTreeSet<usize> = (0..states.len()).filter(|state| is_final(&states[*state])).collect();
    loop {
        let leads_there = |step: &&Transition| ending.contains(&step.to) && !ending.contains(&step.from);
        let more: Vec<usize> = transitions.iter().filter(leads_there).map(|step| step.from).collect();
        if more.is_empty() {
            return ending;
        }
        ending.extend(more);
    }
}

/// What may come next, and a number where that is said twice.
fn names(states: &[Markings], process: &Process) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let name = |markings: &Markings| {
        let next: BTreeSet<&str> = process.seen(markings).map(|(node, _)| process.node(node).name.as_str()).collect();
        let name = match next.is_empty() {
            true => "end".to_string(),
            false => next.into_iter().collect::<Vec<_>>().join(" | "),
        };
        untaken(&name, &mut taken)
    };
    states.iter().map(name).collect()
}

fn untaken(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut numbered = name.to_string();
    let mut count = 1;
    while !taken.insert(numbered.clone()) {
        count += 1;
        numbered = format!("{name} ({count})");
    }
    numbered
}

struct Process<'a> {
    graph: &'a Graph,
    /// By place: the node before which it is.
    before: Vec<usize>,
    /// By node: places before it, and before those that follow it.
    into: Vec<Vec<usize>>,
    out: Vec<Vec<usize>>,
}

impl<'a> Process<'a> {
    fn new(graph: &'a Graph) -> Self {
        let (mut into, mut out) = (vec![Vec::new(); graph.nodes.len()], vec![Vec::new(); graph.nodes.len()]);
        let mut before = Vec::new();
        for &(from, to) in &graph.flows {
            if into[to].is_empty() || graph.nodes[to].kind == Kind::Parallel {
                into[to].push(before.len());
                before.push(to);
            }
            out[from].push(into[to][into[to].len() - 1]);
        }
        Self { graph, before, into, out }
    }

    fn node(&self, node: usize) -> &'a Node {
        &self.graph.nodes[node]
    }

    fn initial(&self) -> Result<Markings> {
        let starts = (0..self.graph.nodes.len()).filter(|node| self.node(*node).kind == Kind::Start);
        // Any of several starts.
        let markings: Markings =
            starts.filter(|start| !self.out[*start].is_empty()).map(|start| self.out[start].iter().copied().collect()).collect();
        if markings.is_empty() {
            let error = Error::user(format!("process \"{}\" has no sequenceFlow out of a start event", self.graph.name));
            return Err(error.hint("draw a start event"));
        }
        self.settled(markings)
    }

    /// A token moves: off `takes`, onto `puts`.
    fn moved(&self, marking: &Marking, takes: &[usize], puts: &[usize]) -> Result<Marking> {
        let mut next = marking.clone();
        takes.iter().for_each(|place| {
            next.remove(place);
        });
        for place in puts {
            if !next.insert(*place) {
                let error = Error::user(format!("{} may be reached by two tokens at once", self.node(self.before[*place]).title));
                return Err(error.hint("join parallel branches with a parallel gateway"));
            }
        }
        Ok(next)
    }

    /// Where the case waits after all that happens by itself.
    fn settled(&self, markings: Markings) -> Result<Markings> {
        let mut open: Vec<Marking> = markings.into_iter().collect();
        let mut seen: Markings = open.iter().cloned().collect();
        let mut waiting = Markings::new();
        while let Some(marking) = open.pop() {
            let next = self.unseen(&marking)?;
            if next.is_empty() {
                waiting.insert(marking);
            }
            open.extend(next.into_iter().filter(|next| seen.insert(next.clone())));
            if seen.len() > MARKINGS_MAX {
                let error = Error::user(format!("process \"{}\" may be in more than {MARKINGS_MAX} places at once", self.graph.name));
                return Err(error.hint("split it: branches that run beside each other multiply"));
            }
        }
        if waiting.is_empty() {
            let error = Error::user(format!("process \"{}\" has gateways that lead only to each other", self.graph.name));
            return Err(error.hint("draw a sequenceFlow from one of them to a task or an end event"));
        }
        Ok(waiting)
    }

    /// Each marking that one unseen node leads to.
    fn unseen(&self, marking: &Marking) -> Result<Vec<Marking>> {
        let mut next = Vec::new();
        for &place in marking {
            let to = self.before[place];
            match self.node(to).kind {
                Kind::Exclusive | Kind::EventBased => {
                    for out in &self.out[to] {
                        next.push(self.moved(marking, &[place], &[*out])?);
                    }
                }
                Kind::Parallel if self.into[to].iter().all(|place| marking.contains(place)) => {
                    next.push(self.moved(marking, &self.into[to], &self.out[to])?);
                }
                Kind::End => next.push(self.moved(marking, &[place], &[])?),
                Kind::Terminate => next.push(Marking::new()),
                _ => {}
            }
        }
        Ok(next)
    }

    /// What may be seen in one marking: the node, and the place whose token it takes.
    fn enabled(&self, marking: &Marking) -> impl Iterator<Item = (usize, usize)> {
        marking.iter().flat_map(move |&place| {
            let to = self.before[place];
            let is_its = move |node: &usize| matches!(self.node(*node).kind, Kind::Boundary { task, .. } if task == to);
            let is_seen = matches!(self.node(to).kind, Kind::Step | Kind::Timer(_) | Kind::Timeout { .. });
            let boundaries = (0..self.graph.nodes.len()).filter(is_its);
            is_seen.then_some(to).into_iter().chain(boundaries).map(move |node| (node, place))
        })
    }

    fn seen(&self, markings: &Markings) -> impl Iterator<Item = (usize, usize)> {
        markings.iter().flat_map(|marking| self.enabled(marking))
    }

    fn timers(&self, markings: &Markings) -> impl Iterator<Item = (usize, usize)> {
        let is_timer = |kind| matches!(kind, Kind::Timer(_) | Kind::Boundary { .. } | Kind::Timeout { .. });
        self.seen(markings).filter(move |(node, _)| is_timer(self.node(*node).kind))
    }

    /// The markings it leads to.
    fn steps(&self, markings: &Markings) -> Result<BTreeMap<Seen<'a>, Markings>> {
        let mut steps: BTreeMap<Seen<'a>, Markings> = BTreeMap::new();
        for marking in markings {
            for (node, place) in self.enabled(marking) {
                let next = self.moved(marking, &[place], &self.out[node])?;
                self.refuse_restart(markings, node, place)?;
                let Node { name, role, kind, .. } = self.node(node);
                let is_timeout = matches!(kind, Kind::Boundary { .. } | Kind::Timeout { .. });
                let seen = Seen { activity: name, role: role.as_deref(), is_timeout };
                steps.entry(seen).or_default().insert(next);
            }
        }
        let timeouts: BTreeSet<&str> = steps.keys().filter(|seen| seen.is_timeout).map(|seen| seen.activity).collect();
        match steps.keys().find(|seen| !seen.is_timeout && timeouts.contains(seen.activity)) {
            Some(Seen { activity, .. }) => {
                let error = Error::user(format!("no event shows whether timer \"{activity}\" or a step of that name came"));
                Err(error.hint("give the timer another name"))
            }
            None => Ok(steps),
        }
    }

    /// A state's time begins with it. A timer's time must not go on from the state before.
    fn refuse_restart(&self, markings: &Markings, step: usize, place: usize) -> Result<()> {
        let beside = self.timers(markings).filter(|(timer, own)| {
            let is_same_token = *own == place;
            let is_choice = !markings.iter().any(|marking| marking.contains(own) && marking.contains(&place));
            *timer != step && !is_same_token && !is_choice
        });
        match beside.map(|(timer, _)| timer).next() {
            Some(timer) => {
                let error = Error::user(format!("timer \"{}\" runs beside other steps", self.node(timer).name));
                Err(error.hint("a state's time begins when it is entered: leave the timer out, and write its bound as a fluent's lifetime"))
            }
            None => Ok(()),
        }
    }

    /// A case never ends once it is in a state that leads to no final one.
    fn refuse_endless(&self, states: &[Markings], transitions: &BTreeSet<Transition>) -> Result<()> {
        let ending = ending(states, transitions);
        let endless: Vec<usize> = (0..states.len()).filter(|state| !ending.contains(state)).collect();
        // Where it comes to a halt, rather than the way there.
        let halt = endless.iter().find(|state| self.seen(&states[**state]).next().is_none());
        let Some(&state) = halt.or(endless.first()) else { return Ok(()) };
        let at: Vec<&Node> = states[state].iter().flatten().map(|place| self.node(self.before[*place])).collect();
        let titles: BTreeSet<&str> = at.iter().map(|node| node.title.as_str()).collect();
        let titles = titles.into_iter().collect::<Vec<_>>().join(", ");
        match at.iter().all(|node| node.kind == Kind::Parallel) {
            true => {
                let error = Error::user(format!("the flows into {titles} never all come, so no case goes on from there"));
                Err(error.hint("a parallel gateway waits for all of them: join the branches of a choice with an exclusive gateway"))
            }
            false => {
                let error = Error::user(format!("no case ends that is before {titles}"));
                Err(error.hint("draw a way from there to an end event"))
            }
        }
    }

    /// No event enters the first state, so that no time begins with it.
    fn refuse_untimed(&self, initial: &Markings) -> Result<()> {
        match self.timers(initial).next() {
            Some((timer, _)) => {
                let error = Error::user(format!("no event shows when timer \"{}\" begins", self.node(timer).name));
                Err(error.hint("put a step before what is timed: a case begins with its first event"))
            }
            None => Ok(()),
        }
    }

    /// The least and the most time in a state.
    fn bounds(&self, markings: &Markings) -> Result<(Option<i64>, Option<i64>)> {
        let (mut min, mut max) = (None, None::<i64>);
        for (node, _) in self.seen(markings) {
            match self.node(node).kind {
                Kind::Timer(after_ms) => {
                    self.refuse_choice(markings, node, node)?;
                    min = Some(after_ms);
                }
                Kind::Boundary { task: waits, after_ms } | Kind::Timeout { gateway: waits, after_ms } => {
                    self.refuse_choice(markings, waits, node)?;
                    if max.is_some_and(|max| max != after_ms) {
                        let error = Error::user(format!("two timers of different lengths interrupt {}", self.node(waits).title));
                        return Err(error.hint("leave the longer one out: the other has interrupted before it"));
                    }
                    max = Some(after_ms);
                }
                _ => {}
            }
        }
        Ok((min, max))
    }

    /// Whether the timer runs does not show where something else may come instead of what it `waits` at.
    fn refuse_choice(&self, markings: &Markings, waits: usize, timer: usize) -> Result<()> {
        let is_at_gateway = self.node(waits).kind == Kind::EventBased;
        let is_its = |node: usize| match self.node(node).kind {
            Kind::Boundary { task, .. } => task == waits,
            _ => node == waits || is_at_gateway && self.graph.flows.contains(&(waits, node)),
        };
        match is_final(markings) || self.seen(markings).any(|(node, _)| !is_its(node)) {
            true => {
                let error = Error::user(format!("no event shows whether timer \"{}\" runs", self.node(timer).name));
                Err(error.hint("put a step between the choice and what is timed, or write its bound as a fluent's lifetime"))
            }
            false => Ok(()),
        }
    }
}
