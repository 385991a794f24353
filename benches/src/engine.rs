//! The engine that is measured, started as `tidegate run --once` starts it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate::generator::ServerConnectors;
use tidegate::output::{self, Format};
use tidegate::{Config, Durability, Engine, Inbox, Registry, Response};
use tidegate_types::error::{Error, Result};

use crate::process;
use crate::stats::histogram_quantile;

/// Where the engine's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogWanted {
    Off,
    /// As `tidegate run` has it without `--data-dir`.
    Temporary,
    /// As with `--data-dir`.
    Synced,
}

impl LogWanted {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Temporary => "temporary",
            Self::Synced => "synced",
        }
    }

    /// `folder`: of a log that is synced.
    pub fn durability(self, folder: &Path) -> Durability {
        match self {
            Self::Off => Durability::Off,
            Self::Temporary => Durability::Temporary,
            Self::Synced => Durability::Folder { path: folder.to_path_buf(), accept_loss: false },
        }
    }
}

/// How long ticks took, from open to visible.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ticks {
    pub count: u64,
    /// None: no tick, or longer than the histogram's last bound.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// How an engine is run, and for how long.
#[derive(Args)]
pub struct Runs {
    /// Numbers of timely threads to run with
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub workers: Vec<usize>,
    /// Pace of commits, in milliseconds
    #[arg(long, default_value_t = 50)]
    pub tick_ms: u64,
    /// For machines
    #[arg(long)]
    pub json: bool,
    /// A run that takes longer has failed
    #[arg(long, default_value_t = 900)]
    pub limit_s: u64,
}

/// What a run from its sources' start to their end took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    pub seconds: f64,
    /// Of the whole process, as the peak is.
    pub cpu_seconds: f64,
    pub peak_mib: f64,
    pub ticks: Ticks,
    pub committed: u64,
    /// What the views' state takes, as the engine reckons it.
    pub state_bytes: u64,
}

impl Settled {
    /// Reading and decoding are in it.
    pub fn rows_per_second(&self) -> f64 {
        self.committed as f64 / self.seconds
    }
}

/// An engine that reads its sources once, without a folder, with what `statements` make.
pub async fn start_once(workers: usize, tick: Duration, statements: &[&str]) -> Result<Engine> {
    let config = Config { workers, tick, once: true, durability: Durability::Temporary, ..Config::default() };
    let engine = Engine::start(config, Arc::new(connectors()))?;
    for sql in statements {
        engine.execute(sql, "bench.sql").await?;
    }
    Ok(engine)
}

/// Reads its sources to their end.
pub async fn settle(engine: &Engine) -> Result<Settled> {
    let started = Instant::now();
    engine.start_sources().await?;
    engine.settled().await?;
    Ok(Settled {
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: process::cpu_seconds(),
        peak_mib: process::peak_mib(),
        ticks: ticks(engine),
        committed: metric(engine, "tidegate_source_committed_rows_total") as u64,
        state_bytes: select_count(engine, "SELECT sum(state_bytes) AS n FROM sys.views").await?,
    })
}

pub fn connectors() -> ServerConnectors {
    ServerConnectors::new(Registry::new(Inbox::default()))
}

/// A query's column names and types, and its rows.
pub async fn select(engine: &Engine, sql: &str) -> Result<(Vec<(String, String)>, Vec<Map<String, Value>>)> {
    let Some(Response::Rows { batches, schema, .. }) = engine.execute(sql, "bench").await?.pop() else {
        return Err(Error::engine(format!("'{sql}' gave no rows")));
    };
    let columns = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect();
    let text = output::format(Format::Json, &schema, &batches)?;
    let rows = text.lines().map(|line| serde_json::from_str(line).map_err(|error| Error::engine(format!("'{line}': {error}"))));
    Ok((columns, rows.collect::<Result<_>>()?))
}

/// A query's single number.
pub async fn select_count(engine: &Engine, sql: &str) -> Result<u64> {
    let (_, rows) = select(engine, sql).await?;
    let value = rows.first().and_then(|row| row.values().next()).and_then(Value::as_u64);
    value.ok_or_else(|| Error::engine(format!("'{sql}' gave no count")))
}

/// A counter or gauge, summed over its labels.
pub fn metric(engine: &Engine, name: &str) -> f64 {
    let families = engine.registry().gather();
    let Some(family) = families.iter().find(|family| family.name() == name) else { return 0.0 };
    // One of the two is always zero.
    family.get_metric().iter().map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
}

pub fn ticks(engine: &Engine) -> Ticks {
    let families = engine.registry().gather();
    let family = families.iter().find(|family| family.name() == "tidegate_tick_duration_seconds");
    let Some(metric) = family.and_then(|family| family.get_metric().first()) else {
        return Ticks { count: 0, p50_ms: None, p99_ms: None };
    };
    let histogram = metric.get_histogram();
    let buckets: Vec<(f64, u64)> = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
    let count = histogram.get_sample_count();
    let ms = |q| histogram_quantile(&buckets, count, q).filter(|seconds| seconds.is_finite()).map(|seconds| seconds * 1000.0);
    Ticks { count, p50_ms: ms(0.5), p99_ms: ms(0.99) }
}
