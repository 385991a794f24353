//! Views that are made beside what there is, while ticks go on.
//!
//! Planned   by whoever asks, on a thread of his, over a copy of the catalog
//! Prepared  a dataflow that nobody sees
//! Filled    by whoever asks, who reads the log: a piece, a tick. What arrives meanwhile it gets as all
//!           others do, and no watermark frees what its past may still need
//! In place  with the statement, in one tick, as if it had been made and had its past in that; a restart
//!           does so
//! Compared  EXPLAIN CREATE OR REPLACE tells at one closed tick what a new definition would add and take
//! Lacking   who makes it is told since when its sources' past is there, where it needs what was before
//! One piece where a tick computes all rows anew (OVER, functions over relations), however long the past
//! At once   in one tick, as a part of what there is: views of packs, which are made before sources are
//!           read, and sinks over a plain view
//! Failed    a worker that panics over a piece ends the engine; the next start knows nothing of the view

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidegate_plan::{Node, Op};
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{Coordinator, Generation, late_name};
use crate::changes::consolidate;
use crate::interface::Response;
use crate::log::record::Arrived;
use crate::log::{Flushing, Shelf};
use crate::planning::Planned;
use crate::worker::Command;

/// What is to be made.
pub struct Order {
    /// Of the view.
    pub name: String,
    pub planned: Planned,
    /// Of the catalog it was planned over.
    pub generation: Generation,
    pub is_detection: bool,
    /// It is to be compared with the view of that name.
    pub is_compared: bool,
}

/// What a statement need not do any more.
pub struct Prepared {
    view: String,
    /// When the view that has the name was made.
    made: Option<Generation>,
    pub planned: Option<Planned>,
    /// When what its query names was made.
    reads: BTreeMap<String, Option<Generation>>,
    /// Its dataflow's name, where there is one already.
    pub beside: Option<String>,
    /// What it lacks.
    notices: Vec<String>,
}

/// What a view's sources brought before it was there.
pub struct History {
    /// By name, each with the generation it was created in.
    sources: BTreeMap<String, Generation>,
    /// Up to where the log had it.
    flushing: Flushing,
    shelf: Shelf,
    piece: Piece,
}

/// When a piece is large enough.
struct Piece {
    rows: usize,
    bytes: usize,
}

/// Bytes after which a piece is large enough, however few its rows.
const PIECE_BYTES: usize = 16 << 20;

impl History {
    /// Hands it out in pieces, oldest first, until one is not wanted; the last may be empty.
    pub fn read(self, mut take: impl FnMut(Vec<(String, RecordBatch)>) -> bool) -> Result<()> {
        let Self { sources, flushing, shelf, piece: Piece { rows: piece_rows, bytes: piece_bytes } } = self;
        let upto = flushing.done()?;
        let names: Vec<&str> = sources.keys().map(String::as_str).collect();
        let unwanted = || Error::engine("nobody waits for the view any more");
        let (mut piece, mut rows, mut bytes) = (Vec::new(), 0, 0);
        shelf.history(&names, 0..upto, |_, arrived| {
            let Arrived { source, generation, on_time, .. } = arrived;
            if sources.get(&source) != Some(&generation) {
                return Ok(());
            }
            let mut from = 0;
            while from < on_time.num_rows() {
                let length = (on_time.num_rows() - from).min(piece_rows - rows);
                let part = on_time.slice(from, length);
                (from, rows, bytes) = (from + length, rows + length, bytes + part.get_array_memory_size());
                piece.push((source.clone(), part));
                if rows == piece_rows || piece_bytes <= bytes {
                    (rows, bytes) = (0, 0);
                    if !take(std::mem::take(&mut piece)) {
                        return Err(unwanted());
                    }
                }
            }
            Ok(())
        })?;
        if take(piece) { Ok(()) } else { Err(unwanted()) }
    }
}

impl Coordinator {
    /// None: what there is has changed since it was planned. Errors: it cannot be compared, or not be made.
    pub(super) fn prepare(&mut self, order: Order) -> Result<Option<(Prepared, Option<History>)>> {
        let Order { name, planned, generation, is_detection, is_compared } = order;
        if generation != self.generation {
            return Ok(None);
        }
        self.check_acyclic(&name, &planned)?;
        if is_compared {
            self.check_comparable(&name, &planned)?;
        }
        if let Some(stopped) = self.stopped_input(&planned.node, &BTreeSet::new()) {
            self.check_runs(&stopped)?;
        }
        let notices = self.lacking(&name, &planned.node)?;
        let (made, reads, node) = (self.made(&name), self.made_when(&planned.reads), Arc::clone(&planned.node));
        let mut prepared = Prepared { view: name.clone(), made, planned: Some(planned), reads, beside: None, notices };
        let sources = node.relations().into_iter().filter_map(|relation| {
            let made = self.sources.get(&relation)?.generation;
            Some((relation, made))
        });
        let sources: BTreeMap<String, Generation> = sources.collect();
        let log = self.log.as_ref().filter(|_| self.keeps_history());
        // On a full disk the log takes its time: whoever reads it waits, and not all others.
        let shelf = log.map(|log| (log.flushing(), log.shelf()));
        self.beside_made += 1;
        let beside = format!("beside {} \"{name}\"", self.beside_made);
        let at_once = self.create_dataflow(&beside, &node, true, is_detection, true)?;
        self.beside.insert(beside.clone(), None);
        prepared.beside = Some(beside.clone());
        let piece = match computes_anew(&node) {
            true => Piece { rows: usize::MAX, bytes: usize::MAX },
            false => Piece { rows: self.config.piece_rows.max(1), bytes: PIECE_BYTES },
        };
        if let Some((flushing, shelf)) = shelf {
            return Ok(Some((prepared, Some(History { sources, flushing, shelf, piece }))));
        }
        let filled = at_once.iter().try_for_each(|source| self.backfill(source, &beside));
        filled.inspect_err(|_| self.drop_beside(&beside))?;
        Ok(Some((prepared, None)))
    }

    /// Errors: there is nothing to compare with.
    fn check_comparable(&self, name: &str, planned: &Planned) -> Result<()> {
        let kept = self.kept.get(name).ok_or_else(|| match self.kind_of(name) {
            None => self.no_relation(name),
            Some(kind) => Error::user(format!("the rows of {kind} \"{name}\" are not kept: there is nothing to compare with")),
        })?;
        self.check_runs(name)?;
        match planned.node.schema == kept.node.schema {
            true => Ok(()),
            false => Err(Error::user(format!("the columns of \"{name}\" change")).hint("compare by a view of another name")),
        }
    }

    /// When the relation was made; None where no statement made it.
    fn made(&self, name: &str) -> Option<Generation> {
        let source = self.sources.keys().find(|source| late_name(source) == name).map_or(name, String::as_str);
        self.definitions.get(source).map(|definition| definition.generation)
    }

    fn made_when(&self, relations: &BTreeSet<String>) -> BTreeMap<String, Option<Generation>> {
        relations.iter().map(|name| (name.clone(), self.made(name))).collect()
    }

    pub(super) fn fill(&mut self, beside: String, rows: Vec<(String, RecordBatch)>, reply: oneshot::Sender<Result<()>>) {
        for (source, rows) in rows {
            self.distribute(&source, Some(&beside), Delta::insertions(rows));
        }
        self.when_closed(Box::new(move |now, _| drop(reply.send(now.check_beside(&beside)))));
    }

    /// Errors: it is no more.
    fn check_beside(&self, beside: &str) -> Result<()> {
        match self.beside.get(beside) {
            Some(None) => Ok(()),
            Some(Some(reason)) => Err(Error::user(format!("the view cannot be computed: {reason}"))
                .hint("give it a bound: EXPLAIN says what grows; or start with a larger --state-max")),
            None => Err(Error::conflict("what the view reads was changed while it was computed")),
        }
    }

    /// For the statement that comes next, if what it reads is as it was. Errors: the dataflow is no more.
    pub(super) fn take_prepared(&mut self, prepared: Prepared) -> Result<()> {
        if let Some(beside) = &prepared.beside {
            self.check_beside(beside).inspect_err(|_| self.drop_beside(beside))?;
        }
        let names = prepared.reads.keys().cloned().collect();
        match self.made_when(&names) == prepared.reads {
            true => self.prepared = Some(prepared),
            false => self.forget(&prepared),
        }
        Ok(())
    }

    /// Whether the dataflow was there, beside; from now on it has the view's name.
    pub(super) fn put_in_place(&mut self, name: &str) -> bool {
        let prepared = self.prepared.as_mut().filter(|prepared| prepared.view == name);
        let Some(beside) = prepared.and_then(|prepared| prepared.beside.take()) else { return false };
        let born = self.opened();
        self.beside.remove(&beside);
        self.born.remove(&beside);
        self.born.insert(name.to_string(), born);
        self.workers.broadcast(&Command::PutInPlace { beside, name: name.to_string(), born });
        true
    }

    /// What the statement that is through did not take.
    pub(super) fn forget_prepared(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            self.forget(&prepared);
        }
    }

    pub(super) fn forget(&mut self, prepared: &Prepared) {
        prepared.beside.iter().for_each(|beside| self.drop_beside(beside));
    }

    pub(super) fn drop_beside(&mut self, beside: &str) {
        self.workers.broadcast(&Command::Drop { name: beside.to_string() });
        self.beside.remove(beside);
        self.born.remove(beside);
    }

    /// Whoever fills it hears why it is no more.
    pub(super) fn stop_beside(&mut self, beside: &str, reason: String) {
        self.drop_beside(beside);
        self.beside.insert(beside.to_string(), Some(reason));
    }

    /// Tells what the definition that is prepared would change, once both are at one closed tick.
    pub(super) fn compare(&mut self, name: String, prepared: Prepared, reply: oneshot::Sender<Result<Response>>) {
        self.when_closed(Box::new(move |now, tick| {
            let beside = prepared.beside.expect("it was made to be compared");
            let runs = now.check_beside(&beside).and_then(|()| now.check_runs(&name));
            let is_same = prepared.made.is_some() && prepared.made == now.made(&name);
            let replaced =
                || Error::conflict(format!("\"{name}\" is replaced, or was dropped meanwhile: there is nothing to compare with"));
            match runs.and_then(|()| if is_same { Ok(()) } else { Err(replaced()) }) {
                Ok(()) => now.tell_difference(Difference { name, beside, notices: prepared.notices }, tick, reply),
                Err(error) => drop(reply.send(Err(error))),
            }
        }));
    }

    fn tell_difference(&self, of: Difference, tick: Tick, reply: oneshot::Sender<Result<Response>>) {
        let Difference { name, beside, notices } = of;
        let (schema, count) = (Arc::clone(&self.kept[&name].node.schema), self.workers.count());
        let [old, new] = [name, beside].map(|name| self.read_now(name));
        spawn_blocking(move || {
            let old = old.iter().take(count).flatten().map(|delta| delta.negate());
            let parts: Vec<Delta> = old.chain(new.iter().take(count).flatten()).collect();
            let told = difference(&consolidate(&schema, &parts), tick);
            let _ = reply.send(told.map(|told| told.with_notices(notices)));
        });
    }
}

/// Between a view and what is prepared for its place.
struct Difference {
    name: String,
    beside: String,
    notices: Vec<String>,
}

/// Whether a tick costs it as much as all its rows do.
fn computes_anew(node: &Node) -> bool {
    node.all().iter().any(|node| matches!(node.op, Op::Recompute { .. } | Op::Analysis { .. }))
}

/// Each row that would come or go, with its sign and how often.
fn difference(net: &Delta, tick: Tick) -> Result<Response> {
    let signs = StringArray::from_iter_values(net.diffs.iter().map(|diff| if *diff < 0 { "-" } else { "+" }));
    let counts = Int64Array::from_iter_values(net.diffs.iter().map(|diff| diff.abs()));
    let own = [Field::new("change", DataType::Utf8, false), Field::new("copies", DataType::Int64, false)];
    let theirs = net.rows.schema();
    let fields = own.into_iter().map(Arc::new).chain(theirs.fields().iter().cloned());
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns: Vec<ArrayRef> =
        [Arc::new(signs) as ArrayRef, Arc::new(counts)].into_iter().chain(net.rows.columns().iter().cloned()).collect();
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| Error::engine(error.to_string()))?;
    Ok(Response::rows(Some(tick), schema, vec![rows]))
}
