//! Who follows a view's changes: sinks and actions, each in a task of its own with a byte-counted
//! queue, so that a slow one slows the ticks and not the memory.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidegate_types::connector::{Changes, Sink};
use tidegate_types::{Delta, Tick};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::actions::{ActionTask, Follower};
use crate::backlog::{Backlog, Claim};
use crate::changes::consolidate;
use crate::metrics::Metrics;

/// Queued bytes at which no further tick is closed until the follower catches up.
pub const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// How long an action's requests may still take when no more changes will come.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// One tick's changes on their way to a follower.
struct Queued {
    tick: Tick,
    deltas: Vec<Delta>,
    claim: Claim,
}

/// The queue of one follower.
pub struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    backlog: Backlog,
    task: JoinHandle<()>,
}

impl Queue {
    pub fn push(&self, tick: Tick, deltas: Vec<Delta>) {
        let bytes: usize = deltas.iter().map(Delta::bytes).sum();
        // One more, so that a tick without bytes is not idle either.
        let claim = self.backlog.claim(bytes + 1);
        // A follower that failed for good has said so; what it misses is counted there.
        let _ = self.sender.send(Queued { tick, deltas, claim });
    }

    pub fn is_full(&self) -> bool {
        BACKLOG_BYTES_MAX <= self.backlog.bytes() && !self.task.is_finished()
    }

    pub fn is_idle(&self) -> bool {
        self.backlog.bytes() == 0 || self.task.is_finished()
    }

    /// No more changes will come; ends when all are through, or an action had its time.
    pub async fn finish(self) {
        drop(self.sender);
        let _ = self.task.await;
    }
}

/// A sink's queue and task. `append_only`: nothing can net out, so nothing is netted.
pub fn sink(name: String, schema: SchemaRef, append_only: bool, mut sink: Box<dyn Sink>, metrics: Metrics) -> Queue {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Queued>();
    let backlog = Backlog::default();
    let left = backlog.clone();
    let task = tokio::spawn(async move {
        while let Some(Queued { tick, deltas, claim }) = receiver.recv().await {
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
            drop(claim);
            metrics.sink_backlog_bytes.with_label_values(&[&name]).set(left.bytes() as i64);
        }
        if let Err(error) = sink.finish().await {
            metrics.sink_failures.with_label_values(&[&name]).inc();
            tracing::error!(sink = name, %error, "the sink did not finish");
        }
    });
    Queue { sender, backlog, task }
}

/// An action's queue and task. A tick leaves the queue at once; its findings count in the backlog
/// until they have their outcome.
pub fn action(task: ActionTask) -> Queue {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Queued>();
    let backlog = Backlog::default();
    let schema = Arc::clone(&task.schema);
    let mut follower = Follower::new(task, backlog.clone());
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                queued = receiver.recv() => match queued {
                    // Let go after its findings are counted, so that the queue is never idle between.
                    Some(Queued { tick, deltas, claim: _claim }) => {
                        follower.follow(&Changes { tick, delta: consolidate(&schema, &deltas) });
                    }
                    None => break,
                },
                () = follower.progress() => {}
            }
        }
        follower.stop(STOP_WITHIN).await;
    });
    Queue { sender, backlog, task }
}
