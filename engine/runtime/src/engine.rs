//! The door: start an engine, give it statements, read it, wait for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use parking_lot::Mutex;
use tidegate_plan::statement::{self, Placed, Statement};
use tidegate_types::connector::Connectors;
use tidegate_types::error::{Error, Result};
use tidegate_types::{Clock, Tick};
use tokio::sync::{mpsc, oneshot};

use crate::bridge::Workers;
use crate::coordinator::{Coordinator, Request, Shared};
use crate::dml;
use crate::metrics::Metrics;
use crate::read;

/// How an engine runs.
#[derive(Clone)]
pub struct Config {
    /// Timely threads.
    pub workers: usize,
    /// The least time a tick stays open for more input, on the machine's clock.
    pub tick: Duration,
    /// Bounded: followed sources end at their present end, and nothing is created once they run.
    pub once: bool,
    pub clock: Arc<dyn Clock>,
    /// Relative paths in statements are relative to this.
    pub folder: PathBuf,
    /// `${NAME}` in option values; the environment comes first.
    pub variables: BTreeMap<String, String>,
}

/// A statement's answer.
#[derive(Debug, Clone)]
pub enum Response {
    /// As Postgres tags it: `CREATE VIEW`, `INSERT 0 3`.
    Done { tag: String },
    /// `tick`: the closed tick the rows are as of; None where they are not of a tick.
    Rows { tick: Option<Tick>, batches: Vec<RecordBatch>, schema: SchemaRef },
}

/// Several relations at one closed tick.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub tick: Tick,
    pub relations: BTreeMap<String, RecordBatch>,
}

#[derive(Debug, Clone)]
pub struct RelationInfo {
    pub name: String,
    /// source, late rows, table, view, materialized view, detection, system relation
    pub kind: &'static str,
    pub schema: SchemaRef,
    pub readable: bool,
    /// A plain view's query; its rows are computed when they are read.
    pub query: Option<Arc<LogicalPlan>>,
}

#[derive(Debug, Clone)]
pub struct DetectionInfo {
    pub name: String,
    /// The column that names whom a finding is about; empty where none is declared.
    pub entity: String,
    pub severity: String,
}

#[derive(Debug, Clone)]
pub struct Health {
    pub ready: bool,
    pub reason: String,
    /// The last closed tick.
    pub tick: Tick,
    /// How long it took from open to visible.
    pub lag_ms: u64,
}

/// A running engine. Clones are handles on the same one.
#[derive(Clone)]
pub struct Engine {
    requests: mpsc::Sender<Request>,
    metrics: Metrics,
    health: Arc<Mutex<Health>>,
    directory: Arc<Mutex<Directory>>,
}

/// What there is, as of the last statement.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) relations: Vec<RelationInfo>,
    pub(crate) detections: Vec<DetectionInfo>,
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

    /// Runs statements in order; stops at the first error. `file` names the text in errors.
    pub async fn execute(&self, sql: &str, file: &str) -> Result<Vec<Response>> {
        let mut responses = Vec::new();
        for placed in statement::parse(sql, file)? {
            let (line, column) = (placed.line, placed.column);
            let response = self.run(placed).await.map_err(|error| error.at(file, line, column))?;
            responses.push(response);
        }
        Ok(responses)
    }

    async fn run(&self, placed: Placed) -> Result<Response> {
        match &placed.statement {
            Statement::Query(query) => read::query(self, query).await,
            Statement::Insert(statement) | Statement::Update(statement) | Statement::Delete(statement) => {
                let (write, tag) = dml::evaluate(self, statement).await?;
                self.ask(|reply| Request::Write { write, reply }).await??;
                Ok(Response::Done { tag })
            }
            _ => self.ask(|reply| Request::Execute { placed: Box::new(placed), reply }).await?,
        }
    }

    /// From now on sources are read: those there are, and those created later.
    pub async fn start_sources(&self) -> Result<()> {
        self.ask(|reply| Request::StartSources { reply }).await?
    }

    /// Several relations at one closed tick.
    pub async fn snapshot(&self, names: &[String]) -> Result<Snapshot> {
        let names = names.to_vec();
        self.ask(|reply| Request::Snapshot { names, reply }).await?
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

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T> {
        let stopped = || Error::engine("the engine has stopped");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}
