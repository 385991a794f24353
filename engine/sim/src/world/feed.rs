//! The feed: rows that stay, and are read again from where the engine left off.
//!
//! Promise  an acknowledged row is never needed again; where reading resumes never moves back

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use rand::Rng;
use tidegate_types::connector::{Budget, DeadLetter, Offset, Polled, Source, SourceBatch, SourceSpec};
use tidegate_types::error::Result;

use super::{Event, Line, State};

#[derive(Default)]
pub struct Feed {
    pub rows: Vec<Option<Event>>,
    /// So many rows.
    pub acknowledged: usize,
    /// Where the last reader began.
    resumed: usize,
}

const ROWS_MAX: usize = 4;

pub fn source(line: Line, spec: &SourceSpec) -> Box<dyn Source> {
    let resume = spec.resume.as_ref().map_or(0, |resume| index(&resume.offset));
    Box::new(Reader { line, schema: spec.schema.clone(), resume, next: None })
}

struct Reader {
    line: Line,
    schema: SchemaRef,
    resume: usize,
    /// None before the first poll.
    next: Option<usize>,
}

#[async_trait]
impl Source for Reader {
    async fn poll(&mut self, _: Budget) -> Result<Polled> {
        let mut news = self.line.world.news.subscribe();
        loop {
            let (resume, next, schema) = (self.resume, self.next, self.schema.clone());
            let (from, polled) = self.line.act(|state| take(state, resume, next, &schema)).await;
            self.next = Some(from);
            if let Some((upto, batch)) = polled {
                self.next = Some(upto);
                return Ok(Polled::Batch(batch));
            }
            if news.changed().await.is_err() {
                return Ok(Polled::End);
            }
        }
    }

    async fn acknowledge(&mut self, offset: Offset) {
        self.line.act(|state| acknowledge(state, index(&offset))).await;
    }
}

/// Where reading goes on, and the next rows from there with where they end.
fn take(state: &mut State, resume: usize, next: Option<usize>, schema: &SchemaRef) -> (usize, Option<(usize, SourceBatch)>) {
    let from = next.unwrap_or_else(|| resumed(state, resume));
    let count = state.random.random_range(1..=ROWS_MAX);
    let upto = state.feed.rows.len().min(from + count);
    let rows = &state.feed.rows[from.min(upto)..upto];
    if rows.is_empty() {
        return (from, None);
    }
    let good = rows.iter().flatten();
    let bad = rows.iter().enumerate().filter(|(_, row)| row.is_none());
    let dead = bad.map(|(i, _)| DeadLetter::new(b"garbage", "it is no row", format!("feed:{}", from + i))).collect();
    let mut batch = SourceBatch::of(Event::batch(schema, good));
    (batch.dead, batch.offset) = (dead, Offset(upto.to_string()));
    (from, Some((upto, batch)))
}

fn resumed(state: &mut State, resume: usize) -> usize {
    let (acknowledged, before) = (state.feed.acknowledged, state.feed.resumed);
    if resume < acknowledged {
        state.breaks(format!("I1: the feed resumes at {resume}, though {acknowledged} rows were acknowledged"));
    }
    if resume < before {
        state.breaks(format!("I3: the feed resumes at {resume}, and earlier at {before}"));
    }
    // Where reading resumes is as good as an acknowledgement: what is before it is durable.
    (state.feed.resumed, state.feed.acknowledged) = (resume, acknowledged.max(resume));
    resume
}

fn acknowledge(state: &mut State, upto: usize) {
    let before = state.feed.acknowledged;
    if upto < before {
        state.breaks(format!("I3: the feed's acknowledgement goes back from {before} to {upto}"));
    }
    state.feed.acknowledged = upto.max(before);
}

fn index(offset: &Offset) -> usize {
    offset.0.parse().unwrap_or(0)
}
