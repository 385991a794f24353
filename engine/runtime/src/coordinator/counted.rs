//! What views that need all of a source's past read of it, as counts of equal rows: in snapshots, so
//! that the segments can go and a restart need not read them.
//!
//! Gathered  beside the work: what the log got since the last snapshot, behind the view's first
//!           filters and projections
//! Merged    with what the last snapshot has, in the order of the rows; only the news are in memory
//! Damaged   where the last one is no longer whole, an older one does as well, or the log's beginning, if what came
//!           since is all there
//! Left out  a view whose past is longer than `NEWS_BYTES_MAX` when it is first gathered keeps the
//!           segments, and is not tried again before the next start

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidegate_plan::{Lookback, NodeRef, Op, intakes, lookback};
use tidegate_types::error::{Error, Result};
use tidegate_types::expr::RowProgram;
use tidegate_types::row::{EncodedRows, RowCodec};
use tidegate_types::{Delta, Tick};

use super::Coordinator;
use crate::log::Shelf;
use crate::log::record::{Counted, Intake, Record};
use crate::log::segment::Segment;
use crate::log::snapshot::{Head, Part, Parts};

/// Rows of one intake in memory, as bytes, before it is left out.
const NEWS_BYTES_MAX: usize = 512 << 20;

/// A reader, a source of it, and when the reader was made.
pub type LeftOut = BTreeSet<(String, String, Tick)>;

/// Rows per record.
const RECORD_ROWS_MAX: usize = 65_536;

/// An intake that all rows are needed of.
pub struct Reading {
    pub intake: Intake,
    /// Of the source.
    generation: u64,
    /// When the reader's dataflow was made.
    born: Tick,
    program: Option<RowProgram>,
    codec: RowCodec,
}

/// What the last snapshot has, and how many frames are before it.
pub struct Before {
    parts: Parts,
    frames: u64,
    tick: Tick,
    counted: Vec<Intake>,
}

/// A reading, and what came since the last snapshot.
pub struct Counting {
    reading: Reading,
    /// The last snapshot has what came before.
    is_known: bool,
    news: BTreeMap<Box<[u8]>, i64>,
    bytes: usize,
    is_left_out: bool,
}

impl Coordinator {
    /// Each intake of each reader that needs all of a source.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut readings = Vec::new();
        for (reader, node) in self.reader_nodes() {
            for source in node.relations().into_iter().filter(|relation| self.sources.contains_key(relation)) {
                if !matches!(lookback(node, &source, &self.catalog), Lookback::All(_)) {
                    continue;
                }
                let found = intakes(node, &source).into_iter().enumerate();
                let found: Option<Vec<Reading>> = found.map(|(nth, program)| self.reading(reader, &source, nth, program)).collect();
                readings.extend(found.into_iter().flatten());
            }
        }
        readings.retain(|reading| !self.left_out.contains(&reading.place()));
        readings.sort_unstable_by(|left, right| left.intake.cmp(&right.intake));
        readings
    }

    /// None: rows of a type that does not rest.
    fn reading(&self, reader: &str, source: &str, nth: usize, program: Option<NodeRef>) -> Option<Reading> {
        let state = &self.sources[source];
        let schema = program.as_ref().map_or(&state.spec.schema, |program| &program.schema);
        let program = program.as_ref().and_then(|node| match &node.op {
            Op::Program { program, .. } => Some(program.clone()),
            _ => None,
        });
        Some(Reading {
            intake: Intake { reader: reader.into(), source: source.into(), nth },
            generation: state.generation,
            born: *self.born.get(reader)?,
            codec: RowCodec::new(Arc::clone(schema)).ok()?,
            program,
        })
    }

    /// Views that are kept and followers, by the names of their dataflows; those that run.
    pub(super) fn reader_nodes(&self) -> impl Iterator<Item = (&String, &NodeRef)> {
        let kept = self.kept.iter().map(|(name, kept)| (name, &kept.node));
        let all = kept.chain(self.followers.iter().map(|(name, follow)| (name, &follow.node)));
        all.filter(|(name, _)| !self.stopped.contains_key(*name))
    }
}

impl Reading {
    fn place(&self) -> (String, String, Tick) {
        (self.intake.reader.clone(), self.intake.source.clone(), self.born)
    }

    /// What was read up to then is in the snapshot.
    fn is_in(&self, tick: Tick, counted: &[Intake]) -> bool {
        self.born <= tick && counted.contains(&self.intake)
    }
}

/// Whether what the readings have read so far is in the snapshot, or in segments that are `there`.
fn is_enough(readings: &[Reading], head: &Head, there: &[Segment]) -> bool {
    let gone = || head.segments.iter().filter(|(segment, _)| !there.contains(segment));
    let is_there = |Reading { intake, generation, .. }: &Reading| {
        gone().all(|(_, holdings)| holdings.latest.get(&intake.source).is_none_or(|latest| !latest.contains_key(generation)))
    };
    readings.iter().all(|reading| reading.is_in(head.tick, &head.counted) || is_there(reading))
}

impl Before {
    /// Nothing where nothing is read. Errors: what was read is nowhere as a whole.
    pub fn open(shelf: &Shelf, readings: &[Reading]) -> Result<Option<Self>> {
        if readings.is_empty() {
            return Ok(None);
        }
        let Some((mut parts, frames)) = shelf.base(|head, there| is_enough(readings, head, there))? else { return Ok(None) };
        let Some(Part::Head(head)) = parts.next()? else { return Err(Error::engine("a snapshot without a head")) };
        Ok(Some(Self { parts, frames, tick: head.tick, counted: head.counted }))
    }
}

/// What each reading is about to get, of the first `upto` frames; without those that are left out.
pub fn gather(shelf: &Shelf, readings: Vec<Reading>, before: Option<&Before>, upto: u64) -> Result<(Vec<Counting>, LeftOut)> {
    let mut countings: Vec<Counting> = readings.into_iter().map(|reading| Counting::new(reading, before)).collect();
    let known = before.map_or(0, |before| before.frames);
    let from = if countings.iter().all(|counting| counting.is_known) { known } else { 0 };
    let sources: BTreeSet<String> = countings.iter().map(|counting| counting.reading.intake.source.clone()).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    if !sources.is_empty() {
        shelf.history(&sources, from..upto, |number, arrived| {
            let concerned = countings.iter_mut().filter(|counting| {
                let Counting { reading, is_known, .. } = counting;
                reading.intake.source == arrived.source && reading.generation == arrived.generation && (!*is_known || known <= number)
            });
            concerned.for_each(|counting| counting.take(&arrived.on_time));
            Ok(())
        })?;
    }
    let left_out: LeftOut = countings.iter().filter(|counting| counting.is_left_out).map(|counting| counting.reading.place()).collect();
    for (reader, source, _) in &left_out {
        tracing::info!(reader, source, "what it reads is too much to be counted; its segments are kept");
    }
    countings.retain(|counting| !left_out.contains(&counting.reading.place()));
    Ok((countings, left_out))
}

impl Counting {
    fn new(reading: Reading, before: Option<&Before>) -> Self {
        let is_known = before.is_some_and(|before| reading.is_in(before.tick, &before.counted));
        Self { reading, is_known, news: BTreeMap::new(), bytes: 0, is_left_out: false }
    }

    pub fn intake(&self) -> &Intake {
        &self.reading.intake
    }

    fn take(&mut self, rows: &RecordBatch) {
        if self.is_left_out || rows.num_rows() == 0 {
            return;
        }
        let rows = Delta::insertions(rows.clone());
        let rows = match &self.reading.program {
            // Rows that fail are error rows of the view, which are kept by themselves.
            Some(program) => program.run(&rows, &mut Vec::new()),
            None => rows,
        };
        let encoded = self.reading.codec.encode(&rows.rows).expect("the intake's schema");
        for row in encoded.iter() {
            match self.news.get_mut(row) {
                Some(count) => *count += 1,
                None => {
                    self.bytes += row.len();
                    self.news.insert(row.into(), 1);
                }
            }
        }
        // What the last snapshot has is no longer in segments: there is no way back.
        if NEWS_BYTES_MAX < self.bytes && !self.is_known {
            (self.is_left_out, self.news) = (true, BTreeMap::new());
        }
    }
}

/// The records of the next snapshot, in the order of the intakes.
pub fn merged(before: Option<Before>, countings: Vec<Counting>) -> impl Iterator<Item = Result<Record>> {
    let mut old = Old { parts: before.map(|before| before.parts), held: None };
    let mut left = countings.into_iter();
    let mut merge = None;
    std::iter::from_fn(move || {
        loop {
            let current = match &mut merge {
                Some(current) => current,
                None => merge.insert(Merge::new(left.next()?)),
            };
            match current.record(&mut old) {
                Ok(Some(counted)) => return Some(Ok(Record::Counted(counted))),
                Ok(None) => merge = None,
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// The last snapshot's counted rows.
struct Old {
    parts: Option<Parts>,
    held: Option<Counted>,
}

impl Old {
    /// The next rows of `intake`. What is before it is passed over.
    fn next_of(&mut self, intake: &Intake) -> Result<Option<Delta>> {
        loop {
            let held = match self.held.take() {
                Some(held) => held,
                None => match self.parts.as_mut().map(Parts::next).transpose()?.flatten() {
                    Some(Part::Counted(counted)) => counted,
                    Some(_) => continue,
                    None => return Ok(None),
                },
            };
            match held.intake.cmp(intake) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(held.rows)),
                std::cmp::Ordering::Greater => {
                    self.held = Some(held);
                    return Ok(None);
                }
            }
        }
    }
}

/// One intake's old rows and its news, both in order.
struct Merge {
    reading: Reading,
    is_known: bool,
    news: Peekable<std::collections::btree_map::IntoIter<Box<[u8]>, i64>>,
    /// Of the last snapshot: some rows, their counts, and how many are through.
    old: Option<(EncodedRows, Arc<[i64]>, usize)>,
}

impl Merge {
    fn new(Counting { reading, is_known, news, .. }: Counting) -> Self {
        Self { reading, is_known, news: news.into_iter().peekable(), old: None }
    }

    /// The next rows, as a record; None: there are no more.
    fn record(&mut self, old: &mut Old) -> Result<Option<Counted>> {
        let (mut rows, mut counts): (Vec<Box<[u8]>>, Vec<i64>) = (Vec::new(), Vec::new());
        while rows.len() < RECORD_ROWS_MAX {
            let Some((row, count)) = self.next(old)? else { break };
            rows.push(row);
            counts.push(count);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let decoded = self.reading.codec.decode(rows.iter().map(|row| &row[..])).map_err(|error| Error::engine(error.to_string()))?;
        Ok(Some(Counted { intake: self.reading.intake.clone(), rows: Delta::new(decoded, counts) }))
    }

    fn next(&mut self, old: &mut Old) -> Result<Option<(Box<[u8]>, i64)>> {
        if self.is_known && self.old.as_ref().is_none_or(|(_, counts, at)| *at == counts.len()) {
            self.old = match old.next_of(&self.reading.intake)? {
                Some(Delta { rows, diffs }) => {
                    let encoded = self.reading.codec.encode(&rows).map_err(|error| Error::engine(error.to_string()))?;
                    Some((encoded, diffs, 0))
                }
                None => {
                    self.is_known = false;
                    None
                }
            };
        }
        let Some((rows, counts, at)) = &mut self.old else { return Ok(self.news.next()) };
        let (row, count) = (rows.row(*at), counts[*at]);
        if let Some((new, _)) = self.news.peek()
            && **new < *row
        {
            return Ok(self.news.next());
        }
        *at += 1;
        let more = self.news.next_if(|(new, _)| **new == *row).map_or(0, |(_, more)| more);
        Ok(Some((row.into(), count + more)))
    }
}
