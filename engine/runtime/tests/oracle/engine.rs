//! An engine without the outside world.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidegate_runtime::{Config, Engine, Response};
use tidegate_types::WallClock;
use tidegate_types::connector::*;
use tidegate_types::error::{Error, Result};

use super::canonical;

pub struct Bench(Engine);

impl Bench {
    pub fn start(workers: usize) -> Self {
        let config = Config {
            workers,
            tick: Duration::from_millis(1),
            once: false,
            clock: Arc::new(WallClock),
            folder: PathBuf::from("."),
            variables: BTreeMap::new(),
        };
        Self(Engine::start(config, Arc::new(Nowhere)).unwrap())
    }

    pub async fn try_run(&self, sql: &str) -> Result<Vec<Response>> {
        self.0.execute(sql, "oracle").await
    }

    pub async fn run(&self, sql: &str) {
        if let Err(error) = self.try_run(sql).await {
            panic!("{error}\n{sql}");
        }
    }

    pub async fn push(&self, source: &str, rows: RecordBatch) {
        self.0.push(source, rows).await.unwrap();
    }

    pub async fn rows(&self, name: &str) -> Vec<String> {
        let snapshot = self.0.snapshot(&[name.to_string()]).await.unwrap();
        canonical(&[snapshot.relations[name].clone()])
    }

    pub async fn stop(self) {
        self.0.shutdown().await.unwrap();
    }
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

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Err(Error::user(format!("no sink for {}", spec.name)))
    }

    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>> {
        Err(Error::user(format!("no responder for {}", spec.name)))
    }
}
