//! `usage`: how much memory a dataflow's state takes on one worker, about.
//!
//! Counted  as entries come and go: each operator's rows, keys and copies, with what their maps
//!          take; arrangements by their updates, of which the runtime hears from differential, and the
//!          mean length of their rows, those included that will be there when their tick closes
//! Apart    what waits at operators for its tick to close, and is gone then
//! Left out what is on the way between two operators, and what an operator takes however little it keeps
//! Reckoned by what an entry usually takes, not measured: meant to stop what grows without end

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one dataflow on one worker: all its operators share it, and no other thread writes it.
#[derive(Debug, Clone, Default)]
pub struct Usage(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// What operators keep by themselves.
    bytes: AtomicUsize,
    /// What waits at them for its tick to close.
    passing: AtomicUsize,
    /// Updates at rest in arrangements.
    updates: AtomicUsize,
    /// Rows before arrangements, since the last tick that closed.
    waiting: AtomicUsize,
    /// Rows that went into arrangements of rows, and their bytes.
    rows: AtomicUsize,
    row_bytes: AtomicUsize,
}

/// What an entry of a map takes beside the bytes of its row.
pub const ENTRY_BYTES: usize = 64;

/// An update of an arrangement beside its row: key and value, each with its allocation, time and count.
const UPDATE_BYTES: usize = 128;

impl Usage {
    /// Of what is kept.
    pub fn bytes(&self) -> usize {
        let Counts { bytes, updates, waiting, rows, row_bytes, .. } = &*self.0;
        let mean = get(row_bytes) / get(rows).max(1);
        get(bytes) + (get(updates) + get(waiting)) * (UPDATE_BYTES + mean)
    }

    /// Of what waits for its tick to close.
    pub fn passing(&self) -> usize {
        get(&self.0.passing)
    }

    pub fn arrive(&self, bytes: usize) {
        add(&self.0.passing, bytes);
    }

    pub fn pass(&self, bytes: usize) {
        take(&self.0.passing, bytes);
    }

    pub fn grow(&self, bytes: usize) {
        add(&self.0.bytes, bytes);
    }

    pub fn shrink(&self, bytes: usize) {
        take(&self.0.bytes, bytes);
    }

    /// Something took `before` bytes and now takes `after`.
    pub fn resize(&self, before: usize, after: usize) {
        self.grow(after);
        self.shrink(before);
    }

    /// So many rows of so many bytes are on their way into an arrangement. What an update takes there
    /// is reckoned by their mean.
    pub fn encoded(&self, rows: usize, bytes: usize) {
        add(&self.0.waiting, rows);
        add(&self.0.rows, rows);
        add(&self.0.row_bytes, bytes);
    }

    /// Updates came to an arrangement, of those that waited.
    pub fn sealed(&self, come: usize) {
        take(&self.0.waiting, come);
        self.arranged(0, come);
    }

    /// A tick closed: of the rows before arrangements, those that are at rest nowhere have cancelled out.
    pub fn closed(&self) {
        self.0.waiting.store(0, Ordering::Relaxed);
    }

    /// Updates left arrangements, and came to them by a merge.
    pub fn arranged(&self, gone: usize, come: usize) {
        add(&self.0.updates, come);
        take(&self.0.updates, gone);
    }
}

fn get(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

fn add(count: &AtomicUsize, more: usize) {
    count.store(get(count) + more, Ordering::Relaxed);
}

// A trace that outlives its dataflow may say of its end what nobody heard of its beginning.
fn take(count: &AtomicUsize, less: usize) {
    count.store(get(count).saturating_sub(less), Ordering::Relaxed);
}
