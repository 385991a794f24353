//! An engine without the outside world.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tempfile::TempDir;
use tidegate_runtime::{Config, Durability, Engine, RETAIN, Response};
use tidegate_types::ScratchDisk;
use tidegate_types::connector::*;
use tidegate_types::error::{Error, Result};

use super::canonical;

pub struct Bench {
    engine: Engine,
    folder: TempDir,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    state_bytes_max: usize,
    piece_rows: usize,
}

/// Of the past, so that little of it is more than one piece.
const PIECE_ROWS: usize = 5;

impl Bench {
    pub fn start(workers: usize) -> Self {
        Self::start_within(workers, Limits { state_bytes_max: Config::default().state_bytes_max, piece_rows: PIECE_ROWS })
    }

    pub fn start_limited(workers: usize, state_bytes_max: usize) -> Self {
        Self::start_within(workers, Limits { state_bytes_max, piece_rows: Config::default().piece_rows })
    }

    fn start_within(workers: usize, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { engine: start(workers, &folder, RETAIN, limits), folder, limits }
    }

    /// Without a log.
    pub fn start_fleeting() -> Self {
        let config = Config { tick: Duration::from_millis(1), durability: Durability::Off, ..Config::default() };
        let engine = Engine::start(config, Arc::new(Nowhere)).unwrap();
        let limits = Limits { state_bytes_max: Config::default().state_bytes_max, piece_rows: PIECE_ROWS };
        Self { engine, folder: tempfile::tempdir().unwrap(), limits }
    }

    /// Another engine on the same folder, with another limit of a view's state.
    pub async fn restart_limited(mut self, workers: usize, state_bytes_max: usize) -> Self {
        self.limits.state_bytes_max = state_bytes_max;
        self.restart(workers, false, false).await
    }

    /// Another engine on the same folder. `is_forgetful`: what no view needs is trimmed.
    pub async fn restart(self, workers: usize, from_snapshot: bool, is_forgetful: bool) -> Self {
        if from_snapshot {
            self.engine.checkpoint().await.unwrap();
        }
        self.engine.shutdown().await.unwrap();
        let retain = if is_forgetful { Duration::ZERO } else { RETAIN };
        let engine = start(workers, &self.folder, retain, self.limits);
        Self { engine, ..self }
    }

    /// An engine of what this one's folder was at a tick. This one goes on.
    pub async fn past(&self, at: u64, workers: usize) -> Self {
        let durability = Durability::Past { path: self.folder.path().to_path_buf(), at: Some(at) };
        let config = Config { workers, tick: Duration::from_millis(1), durability, piece_rows: PIECE_ROWS, ..Config::default() };
        let engine = Engine::start(config, Arc::new(Nowhere)).unwrap();
        engine.recovered().await.unwrap();
        Self { engine, folder: tempfile::tempdir().unwrap(), limits: self.limits }
    }

    /// Brings it to what a pack of one file says.
    pub async fn try_apply(&self, pack: &str) -> Result<()> {
        self.engine.apply(&[("10_all.sql".to_string(), pack.to_string())]).await
    }

    /// What came after this past, once more.
    pub async fn relive(&self) {
        self.engine.relive(None).await.unwrap();
    }

    /// A tick that holds all that was done.
    pub async fn tick(&self) -> u64 {
        self.engine.commit().await.unwrap()
    }

    pub async fn try_run(&self, sql: &str) -> Result<Vec<Response>> {
        self.engine.execute(sql, "oracle").await
    }

    pub async fn run(&self, sql: &str) {
        if let Err(error) = self.try_run(sql).await {
            panic!("{error}\n{sql}");
        }
    }

    /// The rows of a SELECT.
    pub async fn query(&self, sql: &str) -> Vec<String> {
        match self.try_run(sql).await.unwrap().pop() {
            Some(Response::Rows { batches, .. }) => canonical(&batches),
            other => panic!("{other:?}"),
        }
    }

    pub async fn push(&self, source: &str, rows: RecordBatch) {
        self.engine.push(source, rows).await.unwrap();
    }

    pub async fn rows(&self, name: &str) -> Vec<String> {
        self.try_rows(name).await.unwrap()
    }

    pub async fn try_rows(&self, name: &str) -> Result<Vec<String>> {
        let snapshot = self.engine.snapshot(&[name.to_string()]).await?;
        Ok(canonical(&[snapshot.relations[name].clone()]))
    }

    /// The rows in the order they are read in.
    pub async fn read(&self, name: &str) -> RecordBatch {
        self.engine.snapshot(&[name.to_string()]).await.unwrap().relations.remove(name).unwrap()
    }

    /// Why it cannot go on.
    pub async fn failed(&self) -> Error {
        self.engine.failed().await
    }

    /// Of a detection, as the metrics have it.
    pub fn findings_open(&self, detection: &str) -> i64 {
        self.engine.metrics().findings_open.with_label_values(&[detection]).get()
    }

    pub fn is_ready(&self) -> bool {
        self.engine.health().ready
    }

    /// Another engine on the folder of one that failed.
    pub async fn after_failure(self) -> Self {
        let Self { engine, folder, limits } = self;
        drop(engine);
        Self { engine: start(1, &folder, RETAIN, limits), folder, limits }
    }

    pub async fn stop(self) {
        self.engine.shutdown().await.unwrap();
    }
}

fn start(workers: usize, folder: &TempDir, retain: Duration, limits: Limits) -> Engine {
    let durability = Durability::Folder { path: folder.path().to_path_buf(), accept_loss: false };
    // What a test asks is durability's order, not its time.
    let disk = Arc::new(ScratchDisk);
    let Limits { state_bytes_max, piece_rows } = limits;
    let tick = Duration::from_millis(1);
    let config = Config { workers, tick, durability, retain, disk, state_bytes_max, piece_rows, ..Config::default() };
    Engine::start(config, Arc::new(Nowhere)).unwrap()
}

/// Sources that bring nothing; the tests push.
struct Nowhere;

#[async_trait]
impl Source for Nowhere {
    async fn poll(&mut self, _: Budget) -> Result<Polled> {
        std::future::pending().await
    }

    async fn acknowledge(&mut self, _: Offset) {}
}

impl Connectors for Nowhere {
    fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(Nowhere))
    }

    fn sink(&self, _: &SinkSpec) -> Result<Box<dyn Sink>> {
        panic!("as the test wants it")
    }

    fn responder(&self, _: &SinkSpec) -> Result<Box<dyn Responder>> {
        Ok(Box::new(Nowhere))
    }
}

/// Does as asked.
#[async_trait]
impl Responder for Nowhere {
    async fn send(&self, _: &ActionRequest) -> Result<(), ActionFailure> {
        Ok(())
    }

    fn supports(&self, _: ActionKind) -> bool {
        true
    }
}
