//! The door: clients that bring rows once, under an id, and come again until they are answered.
//!
//! Promise  an answered request is known for good; one that comes again is not taken twice

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidegate_types::connector::{Budget, Offset, Polled, Source, SourceBatch, SourceSpec};
use tidegate_types::error::Result;

use super::{Event, Line, State};

#[derive(Default)]
pub struct Door {
    requests: Vec<Post>,
}

struct Post {
    rows: Vec<Event>,
    /// The engine said that it has them, whether or not the client heard it.
    is_acknowledged: bool,
    is_answered: bool,
    /// The number under which it is with the engine.
    is_in: Option<u64>,
}

impl Door {
    pub fn post(&mut self, rows: Vec<Event>) {
        self.requests.push(Post { rows, is_acknowledged: false, is_answered: false, is_in: None });
    }

    pub fn requests(&self) -> Vec<Vec<Event>> {
        self.requests.iter().map(|post| post.rows.clone()).collect()
    }

    pub fn acknowledged(&self) -> Vec<i64> {
        let acknowledged = self.requests.iter().filter(|post| post.is_acknowledged);
        acknowledged.flat_map(|post| post.rows.iter().map(|row| row.id)).collect()
    }

    pub fn unanswered(&self) -> usize {
        self.requests.iter().filter(|post| !post.is_answered).count()
    }
}

pub fn source(line: Line, spec: &SourceSpec) -> Box<dyn Source> {
    let known = spec.resume.iter().flat_map(|resume| resume.ids.iter().cloned()).collect();
    Box::new(Doorman { line, schema: spec.schema.clone(), known, taken: 0, is_open: false })
}

struct Doorman {
    line: Line,
    schema: SchemaRef,
    known: BTreeSet<String>,
    taken: u64,
    is_open: bool,
}

#[async_trait]
impl Source for Doorman {
    async fn poll(&mut self, _: Budget) -> Result<Polled> {
        let mut news = self.line.world.news.subscribe();
        loop {
            if !self.is_open {
                let known = self.known.clone();
                self.line.act(|state| open(state, &known)).await;
                self.is_open = true;
            }
            let (known, number, schema) = (self.known.clone(), self.taken + 1, self.schema.clone());
            if let Some((id, batch)) = self.line.act(|state| take(state, &known, number, &schema)).await {
                self.taken = number;
                self.known.insert(id);
                return Ok(Polled::Batch(batch));
            }
            if news.changed().await.is_err() {
                return Ok(Polled::End);
            }
        }
    }

    async fn acknowledge(&mut self, offset: Offset) {
        let upto = offset.0.parse().unwrap_or(0);
        let is_any_lost = self.line.act(|state| acknowledge(state, upto)).await;
        if is_any_lost {
            self.line.world.news.send_modify(|news| *news += 1);
        }
    }
}

/// Clients whose line broke come again.
fn open(state: &mut State, known: &BTreeSet<String>) {
    state.door.requests.iter_mut().for_each(|post| post.is_in = None);
    let forgotten = state.door.requests.iter().enumerate().filter(|(i, post)| post.is_acknowledged && !known.contains(&i.to_string()));
    let forgotten: Vec<usize> = forgotten.map(|(i, _)| i).collect();
    if !forgotten.is_empty() {
        state.breaks(format!("I1: the door does not know the acknowledged requests {forgotten:?}"));
    }
}

/// The next request that waits, with its id.
fn take(state: &mut State, known: &BTreeSet<String>, number: u64, schema: &SchemaRef) -> Option<(String, SourceBatch)> {
    let mut waiting = state.door.requests.iter_mut().enumerate().filter(|(_, post)| !post.is_answered && post.is_in.is_none());
    let (i, post) = waiting.next()?;
    post.is_in = Some(number);
    let id = i.to_string();
    let is_known = known.contains(&id);
    let mut taken = SourceBatch::of(Event::batch(schema, post.rows.iter().filter(|_| !is_known)));
    taken.offset = Offset(number.to_string());
    match is_known {
        true => taken.repeated = post.rows.len() as u64,
        false => taken.ids = vec![id.clone()],
    }
    Some((id, taken))
}

/// Answers what came up to that number. Returns whether an answer was lost: its client comes again.
fn acknowledge(state: &mut State, upto: u64) -> bool {
    let done = state.door.requests.iter().enumerate().filter(|(_, post)| post.is_in.is_some_and(|number| number <= upto));
    let done: Vec<usize> = done.map(|(i, _)| i).collect();
    let mut is_any_lost = false;
    for i in done {
        let is_lost = state.chance(5);
        let post = &mut state.door.requests[i];
        (post.is_acknowledged, post.is_answered, post.is_in) = (true, !is_lost, None);
        is_any_lost |= is_lost;
    }
    is_any_lost
}
