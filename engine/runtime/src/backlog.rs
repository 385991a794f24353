//! Bytes that wait, counted where they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that wait for one follower.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// Counts `bytes` until the claim is dropped.
    pub fn claim(&self, bytes: usize) -> Claim {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Claim { backlog: self.clone(), bytes }
    }

    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub struct Claim {
    backlog: Backlog,
    bytes: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
