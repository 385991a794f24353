//! What is on its way to one source, within its bound of bytes; and the keys under which rows came.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use tidegate_types::connector::{DeadLetter, Resume};
use tokio::sync::{Notify, oneshot};

use super::Refusal;
use crate::format::json::JsonDecoder;

/// One source's.
pub(super) struct Queue {
    pub(super) decoder: JsonDecoder,
    pub(super) bytes_max: usize,
    /// What a record takes in memory at least, its row included.
    pub(super) record_bytes: usize,
    pub(super) requests: AtomicU64,
    pub(super) waiting: Mutex<Waiting>,
    pub(super) arrived: Notify,
}

#[derive(Default)]
pub(super) struct Waiting {
    deliveries: VecDeque<Delivery>,
    /// Bytes of deliveries, and of bodies being read or decoded.
    pub(super) reserved: usize,
    /// Bodies in decoding or waiting.
    pub(super) decoded: usize,
    keys: Keys,
    /// The source is gone.
    closed: bool,
}

/// One request's rows, and who waits for their commit.
pub(super) struct Delivery {
    pub(super) rows: RecordBatch,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) repeated: u64,
    pub(super) rejected: u64,
    pub(super) key: Option<String>,
    /// Of the body, or of what it came to, where that is more.
    pub(super) bytes: usize,
    pub(super) committed: oneshot::Sender<()>,
}

impl Delivery {
    fn records(&self) -> u64 {
        (self.rows.num_rows() + self.dead.len()) as u64
    }

    /// Its records only count, as repeats of what came before under its key.
    fn into_repeat(self) -> Self {
        let repeated = self.records();
        Self { rows: self.rows.slice(0, 0), dead: Vec::new(), repeated, key: None, ..self }
    }

    /// Its records only count: none is a row.
    pub(super) fn into_rejection(self) -> Self {
        let rejected = self.records();
        Self { dead: Vec::new(), rejected, key: None, ..self }
    }
}

/// The keys under which rows were taken, in the order of their commits.
#[derive(Default)]
struct Keys {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Keys {
    fn of(resume: Option<&Resume>) -> Self {
        let mut keys = Self::default();
        for key in resume.iter().flat_map(|resume| &resume.ids) {
            keys.insert(key);
        }
        keys
    }

    /// False where it is known. The oldest are forgotten, as the log forgets them.
    fn insert(&mut self, key: &str) -> bool {
        if !self.known.insert(key.to_string()) {
            return false;
        }
        self.order.push_back(key.to_string());
        if self.order.len() > Resume::IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Queue {
    /// `resume`: where an earlier run of the source left off.
    pub(super) fn new(decoder: JsonDecoder, bytes_max: usize, record_bytes: usize, resume: Option<&Resume>) -> Self {
        let waiting = Mutex::new(Waiting { keys: Keys::of(resume), ..Waiting::default() });
        Self { decoder, bytes_max, record_bytes, requests: AtomicU64::new(0), waiting, arrived: Notify::new() }
    }

    fn reserve(&self, bytes: usize) -> bool {
        let mut waiting = self.waiting.lock();
        let fits = waiting.reserved + bytes <= self.bytes_max;
        if fits {
            waiting.reserved += bytes;
        }
        fits
    }

    /// How many of its records are repeats; None where the source is gone.
    ///
    /// A key is known from the step on that queues its rows. A repeat queues up behind them, so
    /// that its commit, and its answer, cannot be before theirs.
    pub(super) fn push(&self, mut delivery: Delivery) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return None;
        }
        if delivery.key.as_ref().is_some_and(|key| !waiting.keys.insert(key)) {
            delivery = delivery.into_repeat();
        }
        let repeated = delivery.repeated;
        waiting.deliveries.push_back(delivery);
        drop(waiting);
        self.arrived.notify_one();
        Some(repeated)
    }

    /// Deliveries within the budget, one at least, where there are any.
    pub(super) fn take(&self, bytes_max: usize) -> Vec<Delivery> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = waiting.deliveries.front() {
            if !taken.is_empty() && bytes + next.bytes > bytes_max {
                break;
            }
            bytes += next.bytes;
            taken.extend(waiting.deliveries.pop_front());
        }
        waiting.reserved -= bytes;
        waiting.decoded -= taken.len();
        taken
    }

    /// Whoever waits hears that the source is gone.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.deliveries.clear();
    }
}

/// Memory a request holds in its queue's bound, given back when dropped.
pub(super) struct Reservation {
    pub(super) queue: Arc<Queue>,
    bytes: usize,
    /// Its body counts among those that are decoded.
    is_decoded: bool,
}

impl Reservation {
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        Self { queue: queue.clone(), bytes: 0, is_decoded: false }
    }

    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.queue.reserve(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// Makes it `bytes` in all, for a body that is decoded.
    ///
    /// What alone is larger than the bound gets in where no other is decoded: else it never would.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        let mut waiting = self.queue.waiting.lock();
        let others = waiting.decoded - usize::from(self.is_decoded);
        let reserved = waiting.reserved - self.bytes + bytes;
        if self.queue.bytes_max < reserved && others != 0 {
            return Err(Refusal::full(self.queue.bytes_max));
        }
        (waiting.reserved, waiting.decoded) = (reserved, others + 1);
        (self.bytes, self.is_decoded) = (bytes, true);
        Ok(())
    }

    /// From now on it is the delivery's.
    pub(super) fn hand_over(mut self) -> usize {
        self.is_decoded = false;
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.reserved -= self.bytes;
        waiting.decoded -= usize::from(self.is_decoded);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::super::Inbox;
    use super::super::tests::{held, source};
    use super::*;

    #[test]
    fn what_is_larger_than_the_queue_gets_in_alone() {
        let queue = source(1, 1_000, &Inbox::default()).queue.clone();
        let [mut one, mut two, mut three] = [&queue, &queue, &queue].map(Reservation::new);
        assert!(one.grow(400) && two.grow(400) && !three.grow(400), "bodies being read are within the bound");
        assert!(one.hold(5_000).is_ok(), "no other is decoded");
        assert_eq!(held(&queue), (5_400, 1));
        assert_eq!(two.hold(500).unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        assert!(one.hold(600).is_ok(), "it came to less");
        assert!(two.hold(400).is_ok());
        assert_eq!(two.hold(401).unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!((one.hand_over(), held(&queue)), (600, (1_000, 2)));
        drop((two, three));
        assert_eq!(held(&queue), (600, 1));
    }
}
