//! Who follows a view's changes: sinks and actions, each in a task of its own with a byte-counted
//! queue, so that a slow one slows the ticks and not the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::SchemaRef;
use tidegate_types::connector::{Changes, Sink};
use tidegate_types::{Delta, Tick};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::actions::Follower;
use crate::changes::consolidate;
use crate::metrics::Metrics;

/// Queued bytes at which no further tick is closed until the follower catches up.
pub const BACKLOG_BYTES_MAX: i64 = 64 << 20;

/// The queue of one follower.
pub struct Queue {
    sender: mpsc::UnboundedSender<(Tick, Vec<Delta>)>,
    backlog: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Queue {
    pub fn push(&self, tick: Tick, deltas: Vec<Delta>) {
        let bytes: usize = deltas.iter().map(Delta::bytes).sum();
        self.backlog.fetch_add(bytes as i64 + 1, Ordering::Relaxed);
        // A follower that failed for good has said so; what it misses is counted there.
        let _ = self.sender.send((tick, deltas));
    }

    pub fn is_full(&self) -> bool {
        BACKLOG_BYTES_MAX <= self.backlog.load(Ordering::Relaxed) && !self.task.is_finished()
    }

    pub fn is_idle(&self) -> bool {
        self.backlog.load(Ordering::Relaxed) == 0 || self.task.is_finished()
    }

    /// No more changes will come; ends when all are through.
    pub async fn finish(self) {
        drop(self.sender);
        let _ = self.task.await;
    }
}

/// A sink's queue and task. `append_only`: nothing can net out, so nothing is netted.
pub fn sink(name: String, schema: SchemaRef, append_only: bool, mut sink: Box<dyn Sink>, metrics: Metrics) -> Queue {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Tick, Vec<Delta>)>();
    let backlog = Arc::new(AtomicI64::new(0));
    let left = Arc::clone(&backlog);
    let task = tokio::spawn(async move {
        while let Some((tick, deltas)) = receiver.recv().await {
            let bytes: usize = deltas.iter().map(Delta::bytes).sum();
            let parts = match append_only {
                true => deltas,
                false => vec![consolidate(&schema, &deltas)],
            };
            for delta in parts.into_iter().filter(|delta| !delta.is_empty()) {
                let rows = delta.len() as u64;
                if let Err(error) = sink.write(Changes { tick, delta }).await {
                    metrics.sink_failures.with_label_values(&[&name]).inc();
                    tracing::error!(sink = name, %error, "the sink failed and is detached; drop and create it again to resume");
                    return;
                }
                metrics.sink_changes.with_label_values(&[&name]).inc_by(rows);
            }
            let now = left.fetch_sub(bytes as i64 + 1, Ordering::Relaxed) - bytes as i64 - 1;
            metrics.sink_backlog_bytes.with_label_values(&[&name]).set(now);
        }
        if let Err(error) = sink.finish().await {
            metrics.sink_failures.with_label_values(&[&name]).inc();
            tracing::error!(sink = name, %error, "the sink did not finish");
        }
    });
    Queue { sender, backlog, task }
}

/// An action's queue and task.
pub fn action(schema: SchemaRef, mut follower: Follower) -> Queue {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Tick, Vec<Delta>)>();
    let backlog = Arc::new(AtomicI64::new(0));
    let left = Arc::clone(&backlog);
    let task = tokio::spawn(async move {
        while let Some((tick, deltas)) = receiver.recv().await {
            let bytes: usize = deltas.iter().map(Delta::bytes).sum();
            let delta = consolidate(&schema, &deltas);
            if !delta.is_empty() {
                follower.follow(Changes { tick, delta }).await;
            }
            left.fetch_sub(bytes as i64 + 1, Ordering::Relaxed);
        }
    });
    Queue { sender, backlog, task }
}
