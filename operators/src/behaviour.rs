//! `behaviour`: cases, followed against a specification that is data.
//!
//! SQL     `violations`, `conformance`, `token_replay`, `fluents` and `surprisal` in FROM
//! In      events of cases; the specification's rows, for each process or for all; a clock, which says
//!         how far event time has come: without one, only a case's own events show that time passes
//! Out     one rule per file; each case says what its events say under the specification as it is, in
//!         whatever order they came. A late event, a removed one, a changed specification or a clock
//!         that moves takes back what is no longer so
//! State   each case's events, and what was said of it; freed only as events are deleted. Names of
//!         activities, roles, states and processes, once each; freed never. An entry per deadline,
//!         until it passes
//! Errors  a process without a specification, or with one that makes no sense, is a flaw of each of
//!         its cases, which say nothing until it is mended
//! Source  Pnueli and Zaks, PSL Model Checking and Run-time Verification via Testers, FM 2006

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Concat, Exchange};

pub mod alignment;
pub mod automaton;
pub mod case;
pub mod event_calculus;
pub mod monitor;
pub mod surprisal;
pub mod token_replay;
#[cfg(test)]
mod running_example;

use crate::usage::{ENTRY_BYTES, Usage};
use case::{Case, Chunks, Event};
use monitor::{Change, Monitor, Said};

/// A value of the user's, encoded so that equal values are equal bytes.
pub type Bytes = Vec<u8>;
/// A name that many rows hold.
pub type Name = Arc<[u8]>;
/// A name's number on one worker; 0 is no name.
pub type Symbol = u32;

/// Rows, times, and how many copies come or go.
type Relation<'scope, D> = VecCollection<'scope, u64, D, i64>;

/// Stands for no `seq`, and so sorts first. No event has it as its own.
pub const NO_SEQ: i64 = i64::MIN;

/// An event as it comes in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seen {
    pub process: Option<Bytes>,
    pub case: Bytes,
    pub activity: Bytes,
    pub role: Option<Bytes>,
    pub ts: i64,
    /// [`NO_SEQ`]: none.
    pub seq: i64,
}

/// A row about a case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding<R> {
    pub process: Option<Bytes>,
    pub case: Bytes,
    pub row: R,
}

/// Why the cases of a process cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw(Vec<Part>);

/// A piece of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Text(&'static str),
    /// A value, and what kind of thing it names.
    Id(&'static str, Bytes),
}

impl Part {
    pub fn id(word: &'static str, id: &[u8]) -> Self {
        Self::Id(word, id.to_vec())
    }
}

impl Flaw {
    pub fn of<const N: usize>(parts: [Part; N]) -> Self {
        Self(parts.into())
    }

    /// `show`: how a value of some kind is written.
    pub fn say(&self, show: impl Fn(&str, &[u8]) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => (*text).to_string(),
            Part::Id(word, id) => show(word, id),
        });
        parts.collect()
    }

    fn in_process(self, process: &Option<Bytes>) -> Self {
        let Some(process) = process else { return self };
        Self([vec![Part::Text("process "), Part::id("process", process), Part::Text(": ")], self.0].concat())
    }
}

/// A specification of one process, from its rows. The default is that of nothing.
pub trait Protocol: Follow + Default {
    type Rule: ExchangeData;
    fn read<'a>(rules: impl Iterator<Item = &'a Self::Rule>, names: &mut Names) -> Result<Self, Flaw>
    where
        Self::Rule: 'a;
}

/// What it says of a case, and how that changes.
pub trait Follow: Chunks + 'static {
    type Row: Clone + Ord + 'static;
    type Account: Account<Self::Row>;
    /// Calls `say` with what is new of a case and with what is not so any more. Returns the time after which it says
    /// something else.
    fn follow(&self, look: Look<Self::Chunk>, account: &mut Self::Account, say: &mut dyn FnMut(&Self::Row, i64)) -> Option<i64>;
}

/// A case, as it is to be looked at.
pub struct Look<'a, C> {
    pub case: &'a Case<C>,
    /// When events came or went since the last look, in order.
    pub changed: &'a [i64],
    /// Event time has come so far.
    pub observed: i64,
    pub names: &'a Names,
}

/// What was said of a case, and what spares a look at all of it.
pub trait Account<R>: Default {
    fn rows(&self) -> Vec<R>;
    fn bytes(&self) -> usize;
}

impl<R: Clone> Account<R> for Box<[R]> {
    fn rows(&self) -> Vec<R> {
        self.to_vec()
    }

    fn bytes(&self) -> usize {
        size_of_val(&**self)
    }
}

/// What it says of a case, each time from all of it: chunks make that cheap, or it is one row.
pub trait Judge: Chunks + 'static {
    type Row: Clone + Ord + 'static;
    /// `observed`: event time has come so far. Returns the rows, and the time after which they are others.
    fn judge(&self, case: &Case<Self::Chunk>, observed: i64, names: &Names) -> (Vec<Self::Row>, Option<i64>);
}

impl<J: Judge> Follow for J {
    type Row = J::Row;
    type Account = Box<[J::Row]>;

    fn follow(&self, look: Look<J::Chunk>, account: &mut Box<[J::Row]>, say: &mut dyn FnMut(&J::Row, i64)) -> Option<i64> {
        let (mut rows, due) = self.judge(look.case, look.observed, look.names);
        rows.sort();
        changes(account, &rows, say);
        *account = rows.into();
        due
    }
}

/// Calls `say` with the rows that `new` has and `old` has not, and the other way round. Both are in order.
fn changes<R: Ord>(old: &[R], new: &[R], mut say: impl FnMut(&R, i64)) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        if order != Ordering::Greater
            && let Some(gone) = old.next()
            && order == Ordering::Less
        {
            say(gone, -1);
        }
        if order != Ordering::Less
            && let Some(come) = new.next()
            && order == Ordering::Greater
        {
            say(come, 1);
        }
    }
}

/// Names as numbers, and back.
pub struct Names {
    symbols: HashMap<Name, Symbol>,
    names: Vec<Name>,
    bytes: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self { symbols: HashMap::new(), names: vec![Arc::from([])], bytes: 0 }
    }
}

impl Names {
    pub fn symbol(&mut self, name: &[u8]) -> Symbol {
        if let Some(symbol) = self.symbols.get(name) {
            return *symbol;
        }
        let (name, symbol): (Name, _) = (Arc::from(name), self.names.len() as Symbol);
        self.names.push(Arc::clone(&name));
        self.bytes += ENTRY_BYTES + name.len();
        self.symbols.insert(name, symbol);
        symbol
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn name(&self, symbol: Symbol) -> Name {
        Arc::clone(&self.names[symbol as usize])
    }

    /// None for no name.
    pub fn some(&self, symbol: Symbol) -> Option<Name> {
        (symbol != 0).then(|| self.name(symbol))
    }

    // Numbers differ between workers; names do not.
    fn order(&self, a: &Event, b: &Event) -> Ordering {
        let by_name = |a: Symbol, b: Symbol| if a == b { Ordering::Equal } else { self.names[a as usize].cmp(&self.names[b as usize]) };
        let ties = || by_name(a.activity, b.activity).then_with(|| by_name(a.role, b.role));
        (a.ts, a.seq).cmp(&(b.ts, b.seq)).then_with(ties)
    }
}

impl Event {
    /// None where it has none.
    pub fn seq(&self) -> Option<i64> {
        (self.seq != NO_SEQ).then_some(self.seq)
    }
}

/// Follows each case on one worker, all of them with the whole specification.
pub fn follow<'scope, P: Protocol>(
    events: Relation<'scope, Seen>,
    rules: Relation<'scope, (Option<Bytes>, P::Rule)>,
    clock: Option<Relation<'scope, i64>>,
    usage: Usage,
) -> (Relation<'scope, Finding<P::Row>>, Relation<'scope, Flaw>) {
    let events = events.map(Change::Event).inner.exchange(move |(change, _, _)| match change {
        Change::Event(seen) => home(&seen.process, &seen.case),
        _ => 0,
    });
    let rules = rules.map(|(process, rule)| Change::Rule(process, rule));
    let everywhere = match clock {
        Some(clock) => rules.concat(clock.map(Change::Now)),
        None => rules,
    };
    let all = events.concat(everywhere.inner.broadcast());
    let said = all.unary_frontier(Pipeline, "Behaviour", move |_, _| {
        let mut monitor = Monitor::<P>::new(usage);
        let mut open = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|cap, data| {
                for (change, time, diff) in data.drain(..) {
                    open.entry(time).or_insert_with(|| (cap.delayed(&time, 0), Vec::new())).1.push((change, diff));
                }
            });
            let closed_before = frontier.frontier().first().copied().unwrap_or(u64::MAX);
            while let Some(entry) = open.first_entry().filter(|entry| *entry.key() < closed_before) {
                let (tick, (capability, changes)) = entry.remove_entry();
                let mut session = output.session(&capability);
                monitor.step(changes, |said, diff| session.give((said, tick, diff)));
            }
        }
    });
    let said = said.as_collection();
    (said.clone().flat_map(Said::finding), said.flat_map(Said::flaw))
}

/// A hash that is the same on every worker (FNV-1a).
fn home(process: &Option<Bytes>, case: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let process = process.iter().flatten().fold(0xcbf2_9ce4_8422_2325, step);
    case.iter().fold(process.rotate_left(7), step)
}
