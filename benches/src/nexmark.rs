//! The Nexmark suite: each query from file to settled result.
//!
//! Each run is a process of its own that starts an engine, creates the sources
//! a query reads, the query as a view and a sink that discards, starts the
//! sources and waits until all is settled. The clock runs from before the
//! engine's start. With `--check` the view is kept, and compared with DuckDB.

mod check;
mod data;
mod queries;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate::{Config, Engine};
use tidegate_types::error::{Error, Result};

use self::data::Data;
use self::queries::Query;
use crate::duckdb::{DuckDb, Question, Recomputed, Wanted};
use crate::engine::{self, LogWanted, Ticks};
use crate::process;

#[derive(Args)]
pub struct NexmarkOptions {
    /// Events to generate: of 50, 1 is a person, 3 are auctions and 46 are bids
    #[arg(long, default_value_t = data::EVENTS)]
    events: u64,
    /// Which queries, such as q0,q5 [default: all]
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Numbers of timely threads to run with
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// DuckDB's one-shot over the same files
    #[arg(long, value_enum, default_value = "auto", default_missing_value = "on", num_args = 0..=1, require_equals = true)]
    duckdb: Wanted,
    /// The Python that has DuckDB
    #[arg(long, default_value = "python3")]
    python: String,
    /// Where the events are kept and found again [default: in the system's temporary folder]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Pace of commits, in milliseconds
    #[arg(long, default_value_t = 50)]
    tick_ms: u64,
    /// Runs of each query; the median counts
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// What the engine writes to its log: nothing, all without a sync, or all and each commit synced
    #[arg(long, value_enum, default_value = "temporary")]
    log: LogWanted,
    /// Keep each result and compare it with DuckDB's; the times are then those of keeping
    #[arg(long)]
    check: bool,
    /// For machines
    #[arg(long)]
    json: bool,
    /// A run that takes longer has failed
    #[arg(long, default_value_t = 600)]
    limit_s: u64,
}

/// What one process runs.
#[derive(Args)]
pub struct OneQuery {
    #[arg(long)]
    query: String,
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    tick_ms: u64,
    #[arg(long, value_enum)]
    log: LogWanted,
    #[arg(long)]
    check: bool,
}

/// What it measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// From before the engine's start to settled.
    pub seconds: f64,
    /// Of it, until the statements were planned and the dataflow stood.
    pub start_seconds: f64,
    pub ticks: Ticks,
    pub peak_mib: f64,
    pub cpu_seconds: f64,
    /// Rows that entered the view.
    pub rows_read: u64,
    /// Changes the sink was given: insertions and retractions.
    pub changes: u64,
    /// What makes the result doubtful, in words.
    pub doubts: Vec<String>,
    pub check: Option<Checked>,
}

/// The kept result: its columns with their types, and what the check's query says of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checked {
    pub columns: Vec<(String, String)>,
    pub values: Map<String, Value>,
}

/// A query at one number of workers.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub query: &'static str,
    pub workers: usize,
    pub outcome: Result<Measured, String>,
}

/// False: a run failed, or a result is in doubt.
pub fn run(options: &NexmarkOptions) -> Result<bool> {
    let queries = queries::named(&options.queries)?;
    let duckdb = DuckDb::find(if options.check { Wanted::On } else { options.duckdb }, &options.python)?;
    let data = Data::get(options.data.clone(), options.events)?;
    let limit = Duration::from_secs(options.limit_s);
    data.warm_up()?;

    let mut runs = Vec::new();
    let mut recomputed = BTreeMap::new();
    for query in &queries {
        let mut columns = None;
        for workers in &options.workers {
            eprintln!("{} with {workers} worker(s)", query.name);
            let outcome = repeat(options, query, *workers, &data, limit).map_err(|error| error.to_string());
            if let Ok(Measured { check: Some(checked), .. }) = &outcome {
                columns = Some(checked.columns.clone());
            }
            runs.push(Run { query: query.name, workers: *workers, outcome });
        }
        if let Some(duckdb) = &duckdb {
            eprintln!("{} in DuckDB", query.name);
            let setup = data.duckdb_setup();
            let check = columns.as_deref().map(check::sql);
            let question = Question { setup: &setup, query: query.duckdb, runs: options.runs, check };
            recomputed.insert(query.name, duckdb.ask(&question, limit).map_err(|error| error.to_string()));
        }
    }
    for run in &mut runs {
        doubt(run, recomputed.get(run.query).and_then(|told| told.as_ref().ok()));
    }
    let report = report::Report { data: &data, runs: &runs, recomputed: &recomputed, checked: options.check, tick_ms: options.tick_ms };
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(runs.iter().all(|run| run.outcome.as_ref().is_ok_and(|measured| measured.doubts.is_empty())))
}

/// The run of median time.
fn repeat(options: &NexmarkOptions, query: &Query, workers: usize, data: &Data, limit: Duration) -> Result<Measured> {
    let (threads, tick_ms, folder) = (workers.to_string(), options.tick_ms.to_string(), data.folder.display().to_string());
    let mut args = vec!["one-query", "--query", query.name, "--workers", &threads, "--tick-ms", &tick_ms, "--data", &folder];
    args.extend(["--log", options.log.name()]);
    args.extend(options.check.then_some("--check"));
    let mut all = Vec::new();
    for _ in 0..options.runs.max(1) {
        let mut measured: Measured = process::again(&args, limit)?;
        let expected = data.rows(query.sources);
        if measured.rows_read != expected {
            measured.doubts.push(format!("{} of {expected} rows entered the view", measured.rows_read));
        }
        all.push(measured);
    }
    all.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    Ok(all.swap_remove(all.len() / 2))
}

/// Says what DuckDB's answer contradicts.
fn doubt(run: &mut Run, recomputed: Option<&Recomputed>) {
    let (Ok(measured), Some(recomputed)) = (&mut run.outcome, recomputed) else { return };
    let query = queries::ALL.iter().find(|query| query.name == run.query).expect("what was run");
    match (&measured.check, &recomputed.check) {
        (Some(checked), Some(theirs)) => measured.doubts.extend(check::differences(query, checked, theirs)),
        // A row in is a row out or none, once: the sink saw the very result.
        _ if query.is_stateless && measured.changes != recomputed.rows => {
            measured.doubts.push(format!("{} rows, and {} in DuckDB", measured.changes, recomputed.rows));
        }
        _ => {}
    }
}

/// One run, in a process of its own.
pub async fn one(options: &OneQuery) -> Result<Measured> {
    let query = *queries::named(std::slice::from_ref(&options.query))?.first().ok_or_else(|| Error::user("no query is named"))?;
    let variables = BTreeMap::from([("DATA".to_string(), options.data.display().to_string())]);
    let tick = Duration::from_millis(options.tick_ms);

    let folder = tempfile::tempdir_in(&options.data).map_err(|error| Error::engine(format!("no folder for the log: {error}")))?;
    let durability = options.log.durability(&folder.path().join("log"));

    let started = Instant::now();
    let config = Config { workers: options.workers, tick, once: true, durability, variables, ..Config::default() };
    let engine = Engine::start(config, Arc::new(engine::connectors()))?;
    for source in query.sources {
        engine.execute(source.create(), &format!("benches/nexmark/{}.sql", source.name())).await?;
    }
    let kind = if options.check { "MATERIALIZED VIEW" } else { "VIEW" };
    let view = format!("CREATE {kind} answer AS\n{};\nCREATE SINK out FROM answer WITH (connector = 'discard');", query.sql);
    engine.execute(&view, &format!("benches/nexmark/{}.sql", query.name)).await?;
    let start_seconds = started.elapsed().as_secs_f64();
    engine.start_sources().await?;
    engine.settled().await?;
    let seconds = started.elapsed().as_secs_f64();

    let (peak_mib, cpu_seconds) = (process::peak_mib(), process::cpu_seconds());
    let measured = Measured {
        seconds,
        start_seconds,
        ticks: engine::ticks(&engine),
        peak_mib,
        cpu_seconds,
        rows_read: engine::metric(&engine, "tidegate_source_committed_rows_total") as u64,
        changes: engine::metric(&engine, "tidegate_sink_changes_total") as u64,
        doubts: doubts(&engine),
        check: if options.check { Some(checked(&engine).await?) } else { None },
    };
    engine.shutdown().await?;
    Ok(measured)
}

/// What the engine itself says went wrong.
fn doubts(engine: &tidegate::Engine) -> Vec<String> {
    let wrong = [
        ("tidegate_source_dead_letters_total", "dead letters"),
        ("tidegate_source_late_rows_total", "late rows"),
        ("tidegate_view_errors", "rows that could not be computed"),
        ("tidegate_sink_failures_total", "failures of the sink"),
    ];
    let counted = wrong.iter().map(|(name, words)| (engine::metric(engine, name), words));
    counted.filter(|(count, _)| *count != 0.0).map(|(count, words)| format!("{count} {words}")).collect()
}

async fn checked(engine: &tidegate::Engine) -> Result<Checked> {
    let (columns, _) = engine::select(engine, "SELECT * FROM answer LIMIT 0").await?;
    let (_, mut rows) = engine::select(engine, &check::sql(&columns)).await?;
    let values = rows.pop().ok_or_else(|| Error::engine("the check gave no row"))?;
    Ok(Checked { columns, values })
}
