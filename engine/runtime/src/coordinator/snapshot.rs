//! Snapshots: taken between two ticks, written beside the work, and what a restart begins with.
//!
//! Taken     when the log has grown by much or would take long to read, or at CHECKPOINT, while no tick is open; of a
//!           log that goes with the process seldom, for no start reads it: they only let its segments go
//! Rows      of tables, late rows and of views that read sources; and for views that need all of a
//!           source's past, the counts of equal rows they read ([`super::counted`]). Source rows stay in
//!           the log's segments, as long as another view needs them (its lookback) or they are retained
//! Restored  at the snapshot's tick: statements, then the rows that are needed. What a view makes of
//!           these in that tick gives way to the rows it had; later ticks are as they would have been
//! Counts    once all sinks have what they were told up to the tick

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{TimestampMillisecondType, UInt64Type};
use crossbeam_channel::Receiver;
use tidegate_operators::stream::ErrorRow;
use tidegate_operators::temporal::ClockColumn;
use tidegate_plan::catalog::WatermarkRule;
use tidegate_plan::{Lookback, Node, NodeRef, RelationKind, intakes, lookback};
use tidegate_types::connector::DeadLetter;
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::counted::{Before, LeftOut, gather, merged};
use super::dataflows::counted_name;
use super::recovery::in_order;
use super::statements::{follower_name, shown_name};
use super::{Coordinator, Level, Write};
use crate::actions::ActionSnapshot;
use crate::changes::copies;
use crate::log::record::{Counted, Intake, Record};
use crate::log::segment::{Holdings, Segment};
use crate::log::snapshot::{ErrorHead, Head, Part, Parts, SourceHead, is_needed};
use crate::telling::Telling;
use crate::worker::{RESTORED, Said};

/// A snapshot is taken once the log has grown by so much, and by as much as the last one is long.
const GROWTH_BYTES_MIN: u64 = 256 << 20;
const GROWTH_FRAMES: u64 = 100_000;
/// Or once the ticks since then will take so long at the next start, and longer than the last snapshot did.
/// Ticks in which nothing happens are short frames, and many views see each of them.
const REPLAY_MIN: Duration = Duration::from_secs(20);
const REPLAY_TIMES_SNAPSHOT: u32 = 4;

/// Between two of a log that goes with the process, or what is retained where that is shorter.
const SCRATCH_PAUSE: Duration = Duration::from_secs(3600);

/// Between two tries where no file can be made.
const CROWDED_PAUSE: Duration = Duration::from_secs(1);
/// How long who asks for a snapshot waits for that; it is taken all the same, once one can be made.
const CROWDED_PATIENCE: Duration = Duration::from_secs(5);
/// And where it is something else that fails: each try begins another segment.
const FAILED_PAUSE: Duration = Duration::from_secs(300);

/// Between two lines about what a snapshot waits for.
const WAITING_TOLD_EVERY: Duration = Duration::from_secs(30);

/// Of rows in one record, about.
const RECORD_BYTES: usize = 32 << 20;

/// A sink that keeps a snapshot waiting is given up once the log has so much behind it.
const LAG_BYTES_MAX: u64 = 4 * GROWTH_BYTES_MIN;
const LAG_FRAMES_MAX: u64 = 10 * GROWTH_FRAMES;

const DEAD_LETTERS: &str = "sys.dead_letter";

/// Who asked for a snapshot, and when.
pub type Asked = (Instant, oneshot::Sender<Result<()>>);

fn answer(asked: Vec<Asked>, outcome: &Result<()>) {
    asked.into_iter().for_each(|(_, reply)| drop(reply.send(outcome.clone())));
}

/// What a reader needs of a source: the rows from this event time on, or all.
struct Need {
    reader: String,
    source: String,
    horizon: Option<i64>,
}

/// A snapshot that is on its way.
pub struct Drafted {
    segment: Segment,
    tick: Tick,
    lost: Vec<String>,
    needs: Vec<SourceHead>,
    /// Statements before it.
    generation: u64,
    bytes: u64,
    left_out: LeftOut,
}

impl Coordinator {
    /// Whether it is time for another snapshot.
    pub(super) fn is_snapshot_due(&self) -> bool {
        // A full disk has no room for one, and who reads would wait for the pause to end.
        let may_be = !self.is_snapshotting && self.full.is_none() && self.snapshot_not_before <= Instant::now();
        let Some(log) = self.log.as_ref().filter(|_| may_be) else { return false };
        if self.is_checkpoint_asked || self.no_snapshot.is_some() {
            return true;
        }
        if log.is_temporary() && self.snapshot_begun.elapsed() < SCRATCH_PAUSE.min(self.config.retain) {
            return false;
        }
        let (frames, bytes) = log.growth();
        GROWTH_FRAMES <= frames
            || GROWTH_BYTES_MIN.max(self.snapshot_bytes) <= bytes
            || REPLAY_MIN.max(REPLAY_TIMES_SNAPSHOT * self.snapshot_took) <= self.to_replay
    }

    /// Takes a snapshot at the last closed tick, or later where no file can be made. No tick may be open or closing.
    pub(super) fn take_snapshot(&mut self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let tick = self.last_closed;
        let Some(segment) = log.roll()? else {
            self.snapshot_not_before = Instant::now() + CROWDED_PAUSE;
            self.answer_crowded();
            return Ok(());
        };
        let mut head = self.head(&segment);
        let (shelf, readings, needs) = (log.shelf(), self.readings(), self.needs());
        let actions: Vec<_> = self.followers.values().filter_map(|follow| follow.queue.state()).collect();
        let letters = self.dead_letters_rows();
        let relations: Vec<(String, Receiver<Vec<Delta>>)> = self
            .snapshot_relations()
            .into_iter()
            .map(|name| (name.clone(), self.read_now(self.catalog.relations[&name].name.clone())))
            .collect();
        let (workers, drafts) = (self.workers.count(), self.drafts.clone());
        (self.is_snapshotting, self.is_checkpoint_asked) = (true, false);
        (self.snapshot_begun, self.to_replay) = (Instant::now(), Duration::ZERO);
        let schemas: BTreeMap<String, _> =
            relations.iter().map(|(name, _)| (name.clone(), Arc::clone(&self.catalog.relations[name].schema))).collect();
        let draft = move || {
            let before = Before::open(&shelf, &readings)?;
            let (countings, left_out) = gather(&shelf, readings, before.as_ref(), segment.number)?;
            head.counted = countings.iter().map(|counting| counting.intake().clone()).collect();
            for source in &mut head.sources {
                source.horizon = horizon(&needs, source, &head.counted);
            }
            let (lost, needs, generation) = (head.lost.clone(), head.sources.clone(), head.generation);
            let rows = relations.into_iter().flat_map(|(relation, shares)| {
                let parts: Vec<Delta> = shares.iter().take(workers).flatten().collect();
                match copies(&relation, &schemas[&relation], &parts) {
                    Ok(rows) => pieces(&rows).map(|rows| Ok(Record::Rows { relation: relation.clone(), rows })).collect(),
                    Err(error) => vec![Err(error)],
                }
            });
            let states = actions.into_iter().filter_map(|state| Some(Ok(Record::ActionState(Box::new(state.blocking_recv().ok()?)))));
            let letters = Record::Rows { relation: DEAD_LETTERS.into(), rows: letters };
            let parts = [Ok(Record::Snapshot(Box::new(head))), Ok(letters)].into_iter().chain(rows).chain(states);
            let bytes = shelf.draft(&segment, tick, parts.chain(merged(before, countings)))?;
            Ok(Drafted { segment, tick, lost, needs, generation, bytes, left_out })
        };
        spawn_blocking(move || drop(drafts.send(draft())));
        Ok(())
    }

    /// Tells those who have waited for long what for.
    fn answer_crowded(&mut self) {
        let Some(reason) = &self.crowded else { return };
        let error = Error::no_room(reason).hint("make room for files on its disk; the snapshot is then taken by itself");
        let all = std::mem::take(&mut self.checkpoints).into_iter();
        let (long, rest): (Vec<Asked>, Vec<Asked>) = all.partition(|(asked, _)| CROWDED_PATIENCE <= asked.elapsed());
        self.checkpoints = rest;
        answer(long, &Err(error));
    }

    fn head(&self, segment: &Segment) -> Head {
        let sources = self.sources.iter().map(|(name, state)| SourceHead {
            name: name.clone(),
            generation: state.generation,
            resume: state.spec.resume.clone(),
            counts: state.counts,
            watermark: self.watermarks[state.index],
            horizon: None,
        });
        let errors = self.errors.iter().flat_map(|(view, rows)| {
            rows.iter().map(|(row, count)| ErrorHead {
                view: view.clone(),
                operator: row.operator.to_string(),
                reason: row.reason.clone(),
                count: *count,
            })
        });
        let lost = self.followers.iter().filter(|(_, follow)| follow.queue.is_over());
        Head {
            tick: self.last_closed,
            writer: self.writer.clone(),
            generation: self.generation,
            definitions: in_order(self.definitions.values().cloned()),
            ran: self.ran.iter().cloned().collect(),
            sources: sources.collect(),
            created: self.created(),
            lost: lost.map(|(name, _)| name.clone()).collect(),
            errors: errors.collect(),
            stopped: self.stopped.clone(),
            counted: Vec::new(),
            quarantined: self.log.as_ref().map_or_else(Vec::new, |log| log.quarantined()),
            segments: self.log.as_ref().map_or_else(Vec::new, |log| log.holdings_before(segment)),
        }
    }

    fn created(&self) -> BTreeMap<String, Tick> {
        let followers = self.followers.iter().map(|(name, follow)| (name.clone(), follow.created));
        followers.chain(self.sources.iter().map(|(name, state)| (name.clone(), state.created))).collect()
    }

    /// The event time from which on what a source brought is needed; None: all of it.
    pub(super) fn horizon(&self, lookback: &Lookback) -> Option<i64> {
        let clock = |clock| match clock {
            ClockColumn::Now => Some(self.last_closed as i64),
            ClockColumn::Watermark(index) => self.watermarks[index],
        };
        lookback.horizon(clock)
    }

    /// What each reader needs of each source it reads.
    fn needs(&self) -> Vec<Need> {
        let of_reader = |(reader, node): (&String, &NodeRef)| {
            let sources = node.relations().into_iter().filter(|relation| self.sources.contains_key(relation));
            let need = |source: String| {
                let horizon = self.horizon(&lookback(node, &source, &self.catalog));
                Need { reader: reader.clone(), source, horizon }
            };
            sources.map(need).collect::<Vec<_>>()
        };
        self.reader_nodes().flat_map(of_reader).collect()
    }

    /// Tables, late rows, and the views that need not be what their retained input makes of them.
    fn snapshot_relations(&self) -> Vec<String> {
        let kept = self.catalog.relations.iter().filter(|(name, relation)| match &relation.kind {
            RelationKind::Table { .. } | RelationKind::Late => true,
            RelationKind::Kept { .. } => self.reads_sources(name),
            _ => false,
        });
        kept.filter(|(_, relation)| !self.stopped.contains_key(&relation.name)).map(|(name, _)| name.clone()).collect()
    }

    fn reads_sources(&self, view: &str) -> bool {
        self.catalog.get(view).and_then(|view| self.kept.get(&view.name)).is_some_and(|kept| self.has_source(&kept.node))
    }

    pub(super) fn has_source(&self, node: &Node) -> bool {
        node.relations().iter().any(|relation| self.sources.contains_key(relation))
    }

    /// A draft is there.
    pub(super) fn drafted(&mut self, drafted: Result<Drafted>) {
        match drafted {
            Ok(mut drafted) => {
                self.snapshot_took = self.snapshot_begun.elapsed();
                self.left_out.append(&mut drafted.left_out);
                self.drafted = Some(drafted);
            }
            Err(error) => self.snapshot_failed(error),
        }
    }

    fn snapshot_failed(&mut self, error: Error) {
        tracing::error!(%error, "no snapshot was taken; the log goes on");
        self.metrics.snapshot_failures.inc();
        (self.is_snapshotting, self.snapshot_not_before) = (false, Instant::now() + FAILED_PAUSE);
        self.no_snapshot = Some(format!("no snapshot can be taken, and so the log grows: {}", error.message));
        self.tell_health();
        answer(std::mem::take(&mut self.checkpoints), &Err(error));
    }

    /// Makes a draft count once all sinks have what it leaves out.
    pub(super) fn publish_snapshot(&mut self) {
        let Some(drafted) = self.drafted.take() else { return };
        let mut sinks = self.followers.iter().filter(|(name, _)| !drafted.lost.contains(name));
        if sinks.clone().any(|(_, follow)| follow.queue.is_over()) {
            // A sink failed meanwhile: the next snapshot will say so.
            (self.is_snapshotting, self.is_checkpoint_asked) = (false, true);
            return;
        }
        let lagging = sinks.find(|(_, follow)| !follow.queue.is_past(drafted.tick)).map(|(name, _)| name.clone());
        if let Some(sink) = lagging {
            self.drafted = Some(drafted);
            return self.wait_for_sink(&sink);
        }
        let Some(shelf) = self.log.as_ref().map(|log| log.shelf()) else { return };
        // Where the disk is filling up, what no view needs is no reason to stop.
        let retain = if self.level == Level::Fine { self.config.retain } else { Duration::ZERO };
        let retained_from = self.last_closed.saturating_sub(retain.as_millis() as u64);
        let (asked, published) = (std::mem::take(&mut self.checkpoints), self.published.clone());
        // What was created meanwhile has read segments, and reads them again when its statement is replayed.
        let is_overtaken = drafted.generation != self.generation;
        spawn_blocking(move || {
            let Drafted { segment, tick, needs, bytes, .. } = drafted;
            let is_kept = |holdings: &Holdings| is_overtaken || retained_from <= holdings.last_tick || is_needed(holdings, &needs);
            let done = shelf.publish(&segment, is_kept);
            if done.is_ok() {
                tracing::info!(tick, bytes, "a snapshot was taken");
            }
            answer(asked, &done);
            let _ = published.send(done.map(|()| bytes));
        });
    }

    /// The other side of a sink lacks what the snapshot leaves out.
    fn wait_for_sink(&mut self, name: &str) {
        let (frames, bytes) = self.log.as_ref().map_or((0, 0), |log| log.growth());
        let sink = shown_name(name);
        if LAG_BYTES_MAX.max(self.snapshot_bytes) < bytes || LAG_FRAMES_MAX < frames {
            tracing::error!(sink, "no snapshot can be taken for want of it: it is detached; drop and create it again to resume");
            let follow = self.followers.get_mut(name).expect("found above");
            follow.queue.give_up("it kept a snapshot waiting until the log had grown too much");
        } else if WAITING_TOLD_EVERY <= self.waiting_told.elapsed() {
            self.waiting_told = Instant::now();
            tracing::warn!(sink, "a snapshot waits for what it does not have yet");
        }
    }

    pub(super) fn snapshot_published(&mut self, published: Result<u64>) {
        match published {
            Ok(bytes) => {
                (self.is_snapshotting, self.snapshot_bytes, self.no_snapshot) = (false, bytes, None);
                self.tell_health();
            }
            Err(error) => self.snapshot_failed(error),
        }
    }

    /// Brings everything to where a snapshot was taken. `upto`: frames before it.
    pub(super) async fn restore(&mut self, mut parts: Parts, upto: u64, reports: &mut mpsc::UnboundedReceiver<Said>) -> Result<()> {
        let Some(Part::Head(head)) = parts.next()? else { return Err(Error::engine("a snapshot without a head")) };
        let head = *head;
        self.is_restoring = true;
        self.open_at(head.tick);
        self.restore_definitions(&head)?;
        self.feed_history(&head, upto)?;
        let mut states = Vec::new();
        let mut telling = Telling::begin();
        while let Some(part) = parts.next()? {
            if telling.is_due() {
                self.tell_recovering(&format!("reading the snapshot of tick {}", head.tick));
            }
            match part {
                Part::Head(_) => return Err(Error::engine("a snapshot with two heads")),
                Part::Rows { relation, rows } => self.restore_rows(&relation, rows)?,
                Part::Counted(counted) => self.restore_counted(counted)?,
                Part::Action(state) => states.push(*state),
            }
        }
        self.close();
        self.wait_closed(reports).await?;
        self.is_restoring = false;
        self.settle_restored(head, states);
        Ok(())
    }

    fn restore_definitions(&mut self, head: &Head) -> Result<()> {
        let lost = |(name, reason)| (name, format!("{reason}; a snapshot was taken since, without what it needs"));
        self.redefine(&head.definitions, head.stopped.iter().map(lost))?;
        self.generation = head.generation;
        self.ran = head.ran.iter().cloned().collect();
        for SourceHead { name, resume, counts, watermark, .. } in &head.sources {
            let state = self.sources.get_mut(name).ok_or_else(|| Error::engine(format!("the snapshot has no source \"{name}\"")))?;
            (state.spec.resume, state.counts) = (resume.clone(), *counts);
            // Where an older build took the snapshot, it is not known: as if always.
            state.created = head.created.get(name).copied().unwrap_or(0);
            self.watermarks[state.index] = *watermark;
            self.count(name, counts);
        }
        Ok(())
    }

    /// What the sources brought, as far as it is needed, to all who read them.
    fn feed_history(&mut self, head: &Head, upto: u64) -> Result<()> {
        let needs: BTreeMap<&str, &SourceHead> = head.sources.iter().map(|source| (source.name.as_str(), source)).collect();
        let wanted: Vec<&str> =
            head.sources.iter().filter(|source| source.horizon != Some(i64::MAX)).map(|source| source.name.as_str()).collect();
        let Some(shelf) = self.log.as_ref().map(|log| log.shelf()) else { return Ok(()) };
        let readers = self.uncounted_readers(&head.counted);
        shelf.history(&wanted, 0..upto, |_, arrived| {
            let need = needs[arrived.source.as_str()];
            if arrived.generation == need.generation
                && arrived.latest.is_some_and(|latest| need.horizon.is_none_or(|horizon| horizon <= latest))
            {
                let rows = since(arrived.on_time, self.sources[&arrived.source].rule, need.horizon);
                for reader in readers.get(&arrived.source).into_iter().flatten() {
                    self.distribute(&arrived.source, Some(reader), Delta::insertions(rows.clone()));
                }
                self.workers.wait_for_room();
            }
            Ok(())
        })
    }

    /// Who reads each source, but for those whose rows were counted.
    fn uncounted_readers(&self, counted: &[Intake]) -> BTreeMap<String, Vec<String>> {
        let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (reader, node) in self.reader_nodes() {
            for relation in node.relations() {
                if !counted.iter().any(|intake| intake.reader == *reader && intake.source == relation) {
                    readers.entry(relation).or_default().push(reader.clone());
                }
            }
        }
        readers
    }

    fn restore_counted(&mut self, Counted { intake, rows }: Counted) -> Result<()> {
        let Intake { reader, source, nth } = &intake;
        if self.stopped.contains_key(reader) {
            return Ok(());
        }
        let node = self.reader_nodes().find(|(name, _)| *name == reader).map(|(_, node)| Arc::clone(node));
        let program = node.and_then(|node| intakes(&node, source).into_iter().nth(*nth));
        let program = program.ok_or_else(|| Error::engine(format!("the snapshot has rows that \"{reader}\" read, which is not there")))?;
        let input = if program.is_some() { counted_name(source, *nth) } else { source.clone() };
        self.distribute(&input, Some(reader), rows);
        self.workers.wait_for_room();
        Ok(())
    }

    fn restore_rows(&mut self, relation: &str, rows: RecordBatch) -> Result<()> {
        if relation == DEAD_LETTERS {
            self.dead_letters.extend(letters(&rows));
            return Ok(());
        }
        match self.catalog.get(relation).map(|found| (&found.kind, found.name.clone())) {
            Some((RelationKind::Table { .. }, table)) => {
                let delete = RecordBatch::new_empty(rows.schema());
                self.write(&Write { table, delete, insert: rows, read: None })
            }
            Some((RelationKind::Late, late)) => {
                self.distribute(&late, None, Delta::insertions(rows));
                Ok(())
            }
            Some((_, view)) => {
                self.distribute(RESTORED, Some(&view), Delta::insertions(rows));
                Ok(())
            }
            None => Err(Error::engine(format!("the snapshot has rows of \"{relation}\", which is not there"))),
        }
    }

    fn settle_restored(&mut self, head: Head, states: Vec<ActionSnapshot>) {
        self.errors.clear();
        for ErrorHead { view, operator, reason, count } in head.errors {
            // There are as many names as operators.
            let operator: &'static str = operator.leak();
            *self.errors.entry(view).or_default().entry(ErrorRow { operator, reason }).or_default() += count;
        }
        for (name, follow) in &mut self.followers {
            follow.created = head.created.get(name).copied().unwrap_or(follow.created);
            match head.lost.contains(name) {
                true => follow.queue.begin_at(head.tick),
                false => follow.queue.delivered_before(head.tick),
            }
        }
        for state in states {
            if let Some(follow) = self.followers.get_mut(&follower_name(&state.action)) {
                follow.queue.restore(state);
            }
        }
    }

    fn dead_letters_rows(&self) -> RecordBatch {
        let text = |of: fn(&(Tick, String, DeadLetter)) -> &str| {
            Arc::new(StringArray::from_iter_values(self.dead_letters.iter().map(of))) as ArrayRef
        };
        let ticks = UInt64Array::from_iter_values(self.dead_letters.iter().map(|(tick, _, _)| *tick));
        let raw = BinaryArray::from_iter_values(self.dead_letters.iter().map(|(_, _, letter)| &letter.raw));
        let columns: [(&str, ArrayRef); 5] = [
            ("tick", Arc::new(ticks)),
            ("source", text(|(_, source, _)| source)),
            ("raw", Arc::new(raw)),
            ("reason", text(|(_, _, letter)| &letter.reason)),
            ("position", text(|(_, _, letter)| &letter.position)),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }
}

/// The rows in order, so that none of the records is long.
fn pieces(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let count = rows.get_array_memory_size().div_ceil(RECORD_BYTES).max(1);
    let length = rows.num_rows().div_ceil(count).max(1);
    (0..rows.num_rows().max(1)).step_by(length).map(move |from| rows.slice(from, length.min(rows.num_rows() - from)))
}

fn letters(rows: &RecordBatch) -> impl Iterator<Item = (Tick, String, DeadLetter)> {
    let ticks = rows.column(0).as_primitive::<UInt64Type>();
    let [source, reason, position] = [1, 3, 4].map(|column| rows.column(column).as_string::<i32>());
    let raw = rows.column(2).as_binary::<i32>();
    let letter =
        |i: usize| (ticks.value(i), source.value(i).to_string(), DeadLetter::new(raw.value(i), reason.value(i), position.value(i)));
    (0..rows.num_rows()).map(letter).collect::<Vec<_>>().into_iter()
}

/// Rows not before `horizon`, and those without a time.
fn since(rows: RecordBatch, rule: Option<WatermarkRule>, horizon: Option<i64>) -> RecordBatch {
    let Some((rule, horizon)) = rule.zip(horizon) else { return rows };
    let times = rows.column(rule.column).as_primitive::<TimestampMillisecondType>();
    let keep: BooleanArray = (0..times.len()).map(|i| Some(times.is_null(i) || horizon <= times.value(i))).collect();
    filter_record_batch(&rows, &keep).expect("one flag per row")
}

/// The event time from which on the readers need what a source brought, but for those that have it counted.
fn horizon(needs: &[Need], source: &SourceHead, counted: &[Intake]) -> Option<i64> {
    let is_counted = |need: &Need| counted.iter().any(|intake| intake.reader == need.reader && intake.source == need.source);
    let needs = needs.iter().filter(|need| need.source == source.name && !is_counted(need));
    needs.map(|need| need.horizon).try_fold(i64::MAX, |least, horizon| Some(least.min(horizon?)))
}
