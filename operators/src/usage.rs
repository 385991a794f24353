//! `usage`: how much memory a dataflow's state takes on one worker, about.
//!
//! Counted  as entries come and go: each operator's rows, keys and copies, with what their maps
//!          take; arrangements by their updates, which the runtime hears of from differential
//! Left out what passes by within a tick, and what an operator takes however little it keeps
//! Exact    to within a factor of two on the real machine: enough to stop what grows without end

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one dataflow on one worker: all its operators share it, and no other thread writes it.
#[derive(Debug, Clone, Default)]
pub struct Usage(Arc<AtomicUsize>);

/// What an entry of a map takes beside the bytes of its row.
pub const ENTRY_BYTES: usize = 64;

/// An update of an arrangement: key and value, each with its allocation, time and count.
pub const UPDATE_BYTES: usize = 128;

impl Usage {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn grow(&self, bytes: usize) {
        self.0.store(self.bytes() + bytes, Ordering::Relaxed);
    }

    // A trace that outlives its dataflow may say of its end what nobody heard of its beginning.
    pub fn shrink(&self, bytes: usize) {
        self.0.store(self.bytes().saturating_sub(bytes), Ordering::Relaxed);
    }

    /// Something took `before` bytes and now takes `after`.
    pub fn resize(&self, before: usize, after: usize) {
        self.grow(after);
        self.shrink(before);
    }
}
