//! The door: start an engine, read it, wait for it. Statements go in by `execute.rs`.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tidegate_types::Tick;
use tidegate_types::connector::Connectors;
use tidegate_types::error::{Error, Result};
use tokio::sync::{mpsc, oneshot};

use crate::bridge::Workers;
use crate::coordinator::{Coordinator, Request, Shared};
use crate::interface::{Config, DetectionInfo, Directory, Health, RelationInfo, Snapshot};
use crate::metrics::Metrics;

/// A running engine. Clones are handles on the same one.
#[derive(Clone)]
pub struct Engine {
    requests: mpsc::Sender<Request>,
    metrics: Metrics,
    health: Arc<Mutex<Health>>,
    directory: Arc<Mutex<Directory>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Requests that may wait for the coordinator.
const REQUESTS_MAX: usize = 1024;
/// Batches that may wait for the coordinator; their bytes are bounded apart.
const ARRIVALS_MAX: usize = 64;

impl Engine {
    /// Starts workers and coordinator. Must be called inside a tokio runtime.
    pub fn start(config: Config, connectors: Arc<dyn Connectors>) -> Result<Self> {
        let (workers, reports) = Workers::start(config.workers)?;
        let metrics = Metrics::new();
        let health = Health { ready: false, reason: "the sources are not started yet".into(), tick: 0, lag_ms: 0 };
        let health = Arc::new(Mutex::new(health));
        let (requests, requested) = mpsc::channel(REQUESTS_MAX);
        let (arrivals, arrived) = mpsc::channel(ARRIVALS_MAX);
        let directory = Arc::new(Mutex::new(Directory::default()));
        let shared = Shared { metrics: metrics.clone(), health: Arc::clone(&health), directory: Arc::clone(&directory) };
        let coordinator = Coordinator::new(config, connectors, workers, shared, arrivals)?;
        tokio::spawn(coordinator.run(requested, arrived, reports));
        Ok(Self { requests, metrics, health, directory })
    }

    /// From now on sources are read: those there are, and those created later.
    pub async fn start_sources(&self) -> Result<()> {
        self.ask(|reply| Request::StartSources { reply }).await?
    }

    /// Several relations at one closed tick.
    pub async fn snapshot(&self, names: &[String]) -> Result<Snapshot> {
        let names = names.to_vec();
        self.ask(|reply| Request::Snapshot { names, prefix: Vec::new(), reply }).await?
    }

    /// One relation's rows that begin with `prefix`: some first columns, encoded as rows are kept.
    pub(crate) async fn snapshot_of(&self, name: &str, prefix: Vec<u8>) -> Result<Snapshot> {
        let names = vec![name.to_string()];
        self.ask(|reply| Request::Snapshot { names, prefix, reply }).await?
    }

    /// Appends rows to a source by hand; returns when the tick that holds them is visible.
    pub async fn push(&self, source: &str, rows: RecordBatch) -> Result<Tick> {
        let source = source.to_string();
        self.ask(|reply| Request::Push { source, rows, reply }).await?
    }

    /// Closes a tick now, with whatever has arrived; returns when it is visible.
    pub async fn commit(&self) -> Result<Tick> {
        self.ask(|reply| Request::Commit { reply }).await
    }

    /// Returns when all bounded sources are spent, their rows are visible, and sinks and actions
    /// are through. Errors: a source that failed.
    pub async fn settled(&self) -> Result<()> {
        self.ask(|reply| Request::Settled { reply }).await?
    }

    pub fn relations(&self) -> Vec<RelationInfo> {
        self.directory.lock().relations.clone()
    }

    pub fn detections(&self) -> Vec<DetectionInfo> {
        self.directory.lock().detections.clone()
    }

    /// The plan of a view, a materialized view or a detection.
    pub async fn explain(&self, name: &str) -> Result<String> {
        let name = name.to_string();
        self.ask(|reply| Request::Explain { name, reply }).await?
    }

    pub fn registry(&self) -> prometheus::Registry {
        self.metrics.registry.clone()
    }

    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Stops sources, lets sinks and actions finish, stops the workers.
    pub async fn shutdown(&self) -> Result<()> {
        self.ask(|reply| Request::Shutdown { reply }).await
    }

    pub(crate) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T> {
        let stopped = || Error::engine("the engine has stopped");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}
