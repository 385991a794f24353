//! What was said of a case, in spans of its time: each with what held when it began, so that a change is followed from
//! the span it is in to where all is as it was.
//!
//! Cost   of a late event, one more or one less: the events from its span's beginning to where what holds is again what
//!        held there before; often one span. Where something holds since another time, a step for each span through
//!        which it does
//! State  per span, each fluent that held when it began, beside what was said of it

use std::collections::BTreeMap;

use super::super::{Account, Look};
use super::{Calculus, Holding, Interval, Replay};

/// Events of a span: twice as many make two of it.
const EVENTS: usize = 48;
/// A span of fewer goes on into the next.
const EVENTS_MIN: usize = EVENTS / 4;

/// By default of a case that was not looked at.
#[derive(Debug, Default)]
pub struct Spans {
    /// In order. The first is from the beginning of time.
    spans: Vec<Span>,
    /// What ended behind the last event, and what holds.
    tail: Box<[Interval]>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Span {
    from: i64,
    /// By fluent: what held before anything happened at `from`.
    before: Box<[Option<Holding>]>,
    /// What ended from then on, before the next span.
    rows: Box<[Interval]>,
}

impl Span {
    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.before) + size_of_val(&*self.rows)
    }
}

impl Account<Interval> for Spans {
    fn rows(&self) -> Vec<Interval> {
        self.spans.iter().flat_map(|span| &span.rows).chain(&self.tail).cloned().collect()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Spans {
    /// Brings it to what the case says now. Returns what that changes, and when the next lifetime ends.
    pub fn follow(&mut self, calculus: &Calculus, look: Look<()>) -> (BTreeMap<Interval, i64>, Option<i64>) {
        let mut said = BTreeMap::new();
        let mut changed = look.changed;
        if self.spans.is_empty() {
            let first = Span { from: i64::MIN, before: calculus.nothing(), ..Span::default() };
            self.bytes += first.bytes();
            self.spans.push(first);
            changed = &[i64::MIN];
        }
        while let Some(first) = changed.first() {
            let at = self.spans.partition_point(|span| span.from <= *first) - 1;
            changed = self.again(calculus, &look, at, changed, &mut said);
        }
        let mut replay = self.at_the_end(calculus, &look);
        // What ends at the moment that is observed ends after it: an event of that moment may yet come.
        replay.run_before(look.observed);
        let due = replay.next_expiry();
        self.bytes -= size_of_val(&*self.tail);
        let tail = std::mem::replace(&mut self.tail, replay.finish().into());
        self.bytes += size_of_val(&*self.tail);
        say(&mut said, &tail, -1);
        say(&mut said, &self.tail, 1);
        said.retain(|_, diff| *diff != 0);
        (said, due)
    }

    /// Replays the span at `at`, and those behind it as far as a change reaches. Returns the changes behind these.
    fn again<'a>(
        &mut self,
        calculus: &Calculus,
        look: &Look<()>,
        at: usize,
        mut changed: &'a [i64],
        said: &mut BTreeMap<Interval, i64>,
    ) -> &'a [i64] {
        let mut replay = Replay::new(calculus, &self.spans[at].before);
        let mut fresh = Fresh::new(self.spans[at].from, &self.spans[at].before);
        let mut upto = at + 1;
        let mut moved = None;
        look.case.visit_from(self.spans[at].from, &mut |events| {
            for event in events {
                if replay.at != Some(event.ts) {
                    replay.go_to(event.ts);
                    changed = &changed[changed.partition_point(|time| *time < event.ts)..];
                    while self.spans.get(upto).is_some_and(|span| span.from < event.ts) {
                        upto += 1;
                    }
                    let reached = self.spans.get(upto).filter(|span| EVENTS_MIN <= fresh.events && span.from == event.ts);
                    moved = reached.and_then(|span| moved_from(&span.before, &replay.holding));
                    if moved.is_some() {
                        return false;
                    }
                    fresh.reach(event.ts, &mut replay);
                }
                replay.pending.push(event.activity);
                fresh.events += 1;
            }
            true
        });
        if moved.is_none() {
            replay.take_place();
            (upto, changed) = (self.spans.len(), &[]);
        }
        let is_over = moved.is_none() && fresh.is_empty();
        let fresh = fresh.end(&mut replay);
        let behind = at + fresh.len();
        fresh.iter().for_each(|span| say(said, &span.rows, 1));
        self.bytes += fresh.iter().map(Span::bytes).sum::<usize>();
        for gone in self.spans.splice(at..upto, fresh) {
            say(said, &gone.rows, -1);
            self.bytes -= gone.bytes();
        }
        self.move_since(calculus, behind, moved.unwrap_or_default(), said);
        // What the span before says of the time up to this one was so because of events that are gone.
        if is_over && 0 < at { self.again(calculus, look, at - 1, changed, said) } else { changed }
    }

    /// From the span at `at` on some fluents hold since another time, until they end.
    fn move_since(&mut self, calculus: &Calculus, at: usize, mut moved: Vec<Moved>, said: &mut BTreeMap<Interval, i64>) {
        for span in &mut self.spans[at..] {
            if moved.is_empty() {
                return;
            }
            moved.retain(|Moved { fluent, since, to }| {
                if let Some(holding) = &mut span.before[*fluent] {
                    holding.since = *to;
                }
                let name = &calculus.fluents[*fluent].name;
                let ended = span.rows.iter_mut().find(|row| row.fluent == *name && row.since == *since);
                if let Some(row) = &ended {
                    say(said, std::slice::from_ref(row), -1);
                }
                ended.is_none_or(|row| {
                    row.since = *to;
                    say(said, std::slice::from_ref(row), 1);
                    false
                })
            });
        }
    }

    /// Behind the last event.
    fn at_the_end<'a>(&self, calculus: &'a Calculus, look: &Look<()>) -> Replay<'a> {
        let last = self.spans.last().expect("the first is always there");
        let mut replay = Replay::new(calculus, &last.before);
        look.case.visit_from(last.from, &mut |events| {
            replay.events(events);
            true
        });
        replay.take_place();
        replay.done.clear();
        replay
    }
}

/// A fluent that holds since `to`, and did since `since`.
struct Moved {
    fluent: usize,
    since: i64,
    to: i64,
}

/// What holds since another time, where the same holds and ends at the same times; else None.
fn moved_from(before: &[Option<Holding>], now: &[Option<Holding>]) -> Option<Vec<Moved>> {
    let mut moved = Vec::new();
    for (fluent, pair) in before.iter().zip(now).enumerate() {
        match pair {
            (None, None) => {}
            (Some(before), Some(now)) if before.expires == now.expires => {
                if before.since != now.since {
                    moved.push(Moved { fluent, since: before.since, to: now.since });
                }
            }
            _ => return None,
        }
    }
    Some(moved)
}

fn say(said: &mut BTreeMap<Interval, i64>, rows: &[Interval], diff: i64) {
    rows.iter().for_each(|row| *said.entry(row.clone()).or_default() += diff);
}

/// Spans as they come.
struct Fresh {
    spans: Vec<Span>,
    from: i64,
    before: Box<[Option<Holding>]>,
    events: usize,
    /// Where the span would be parted.
    half: Option<Half>,
}

struct Half {
    at: i64,
    before: Box<[Option<Holding>]>,
    events: usize,
    rows: usize,
}

impl Fresh {
    fn new(from: i64, before: &[Option<Holding>]) -> Self {
        Self { spans: Vec::new(), from, before: before.into(), events: 0, half: None }
    }

    fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.events == 0
    }

    /// The next event is at `ts`, and nothing happened then yet.
    fn reach(&mut self, ts: i64, replay: &mut Replay) {
        if let Some(half) = self.half.take_if(|_| 2 * EVENTS <= self.events) {
            let rows = replay.done.drain(..half.rows).collect();
            let before = std::mem::replace(&mut self.before, half.before);
            self.spans.push(Span { from: self.from, before, rows });
            self.from = half.at;
            self.events -= half.events;
        }
        if self.half.is_none() && EVENTS <= self.events {
            self.half = Some(Half { at: ts, before: replay.holding[..].into(), events: self.events, rows: replay.done.len() });
        }
    }

    fn end(mut self, replay: &mut Replay) -> Vec<Span> {
        let rows = std::mem::take(&mut replay.done).into();
        self.spans.push(Span { from: self.from, before: self.before, rows });
        self.spans
    }
}
