//! One edge of a dependency graph changes: how soon does the cascade show it?
//!
//! Tables of nodes, edges and failed nodes; a view of who is affected, by
//! WITH RECURSIVE or by one of the functions over relations. Four kinds of update, one statement of one edge each, in turn:
//!
//!   attach  a branch of ten nodes begins to depend on an affected node
//!   detach  and no longer does: ten nodes leave the view again
//!   cut     an edge to an affected node, inside, is removed; as a rule other
//!           ways remain, and the view need not change, but must find out
//!   mend    and is put back
//!
//! The clock runs from before `execute` until a sink has the change. For cut
//! and mend it is a second view's, which counts the edges: all views show a
//! tick at once. After each update plain Rust says how many rows the view must
//! hold, and at first and last what they sum up to.
//!
//! What recomputing costs is told three times: by the same view made anew over the
//! filled tables, by that plain Rust, and by DuckDB.

mod graph;
mod probe;
mod rule;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate::{Config, Engine};
use tidegate_types::error::{Error, Result};

use self::graph::{Change, Graph, Shape};
use self::probe::Probes;
use self::rule::{Answer, Rule};
use crate::duckdb::{DuckDb, Question, Recomputed, Wanted};
use crate::engine::{self, Runs, Ticks};
use crate::process;
use crate::stats::quantile;

/// The aims: one changed edge, tick included, and what the same view made anew takes of that.
const P99_MS_MAX: f64 = 10.0;
const TIMES_MIN: f64 = 1_000.0;
/// Times that the view is made anew; the median counts.
const ANEW_RUNS: usize = 3;
/// A statement may hold 100,000 words, and a row of two columns is six.
const ROWS_PER_INSERT: usize = 10_000;
const DUCKDB_RUNS: usize = 3;
const DUCKDB_LIMIT: Duration = Duration::from_secs(600);

#[derive(Args)]
pub struct CascadeOptions {
    #[command(flatten)]
    shape: Shape,
    /// Single-edge updates to measure
    #[arg(long, default_value_t = 200)]
    updates: usize,
    /// Numbers of timely threads to run with
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// What is asked of the graph, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "recursive,reach,time-to-impact,downtime")]
    rules: Vec<Rule>,
    /// Pace of commits, in milliseconds: an update may have to wait for one
    #[arg(long, default_value_t = 1)]
    tick_ms: u64,
    /// DuckDB's recursive query over the same edges
    #[arg(long, value_enum, default_value = "auto", default_missing_value = "on", num_args = 0..=1, require_equals = true)]
    duckdb: Wanted,
    /// The Python that has DuckDB
    #[arg(long, default_value = "python3")]
    python: String,
    /// For machines
    #[arg(long)]
    json: bool,
    /// A run that takes longer has failed
    #[arg(long, default_value_t = 900)]
    limit_s: u64,
}

/// All single failures at once: [`CascadeOptions`] of a graph for which that can be asked.
#[derive(Args)]
pub struct WhatIfOptions {
    #[arg(long, default_value_t = 10_000)]
    nodes: u32,
    #[arg(long, default_value_t = 50_000)]
    edges: usize,
    /// Decides the graph and the updates
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Single-edge updates to measure
    #[arg(long, default_value_t = 60)]
    updates: usize,
    #[command(flatten)]
    runs: Runs,
}

/// What one process runs.
#[derive(Args)]
pub struct OneCascade {
    #[command(flatten)]
    shape: Shape,
    #[arg(long, value_enum)]
    rule: Rule,
    #[arg(long)]
    updates: usize,
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    tick_ms: u64,
}

/// What it measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub load_seconds: f64,
    /// From `CREATE MATERIALIZED VIEW` over the loaded tables to its rows being visible.
    pub first_seconds: f64,
    pub affected: u64,
    pub latencies: Vec<Latency>,
    /// The plain search, once after each update.
    pub search_ms: Vec<f64>,
    /// The view made anew, from its statement to its rows being visible.
    pub anew_ms: Vec<f64>,
    pub ticks: Ticks,
    pub peak_mib: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latency {
    pub kind: String,
    /// Until a sink had the change.
    pub ms: f64,
    /// Until `execute` returned.
    pub acknowledged_ms: f64,
}

struct Run {
    rule: Rule,
    workers: usize,
    outcome: Result<Measured>,
}

/// False: a run failed.
pub fn run(options: &CascadeOptions) -> Result<bool> {
    let shape = &options.shape;
    let graph = Graph::new(shape)?;
    let duckdb = DuckDb::find(options.duckdb, &options.python)?;
    let limit = Duration::from_secs(options.limit_s);
    let args = [
        "one-cascade".to_string(),
        format!("--nodes={}", shape.nodes),
        format!("--edges={}", shape.edges),
        format!("--failed={}", shape.failed),
        format!("--seed={}", shape.seed),
        format!("--updates={}", options.updates),
        format!("--tick-ms={}", options.tick_ms),
    ];
    let mut runs = Vec::new();
    for (rule, workers) in options.rules.iter().flat_map(|rule| options.workers.iter().map(move |workers| (*rule, *workers))) {
        eprintln!("cascade by {} with {workers} worker(s)", rule.name());
        let (rule_arg, workers_arg) = (format!("--rule={}", rule.name()), format!("--workers={workers}"));
        let args: Vec<&str> = args.iter().map(String::as_str).chain([rule_arg.as_str(), workers_arg.as_str()]).collect();
        runs.push(Run { rule, workers, outcome: process::again::<Measured>(&args, limit) });
    }
    let recomputed = match &duckdb {
        Some(duckdb) => {
            eprintln!("cascade in DuckDB");
            Some(recompute(duckdb, &graph)?)
        }
        None => None,
    };
    let text = if options.json { json(options, &runs, recomputed.as_ref()) } else { table(options, &runs, recomputed.as_ref()) };
    print!("{text}");
    Ok(runs.iter().all(|run| run.outcome.is_ok()))
}

/// How far the failure of each single node would go. False: a run failed.
pub fn what_if(options: WhatIfOptions) -> Result<bool> {
    let WhatIfOptions { nodes, edges, seed, updates, runs: Runs { workers, tick_ms, json, limit_s } } = options;
    run(&CascadeOptions {
        // The rule lets each node fail, and asks for no others.
        shape: Shape { nodes, edges, failed: 1, seed },
        updates,
        workers,
        rules: vec![Rule::BlastRadius],
        tick_ms,
        duckdb: Wanted::Off,
        python: String::new(),
        json,
        limit_s,
    })
}

/// The cascade in DuckDB over its own tables; loading them is not measured.
fn recompute(duckdb: &DuckDb, graph: &Graph) -> Result<Recomputed> {
    let path = std::env::temp_dir().join(format!("tidegate-cascade-{}.csv", std::process::id()));
    let asked = ask_duckdb(duckdb, graph, &path);
    let _ = std::fs::remove_file(&path);
    asked
}

fn ask_duckdb(duckdb: &DuckDb, graph: &Graph, path: &PathBuf) -> Result<Recomputed> {
    let lines: String = graph.edges.iter().map(|edge| format!("{},{}\n", edge.src, edge.dst)).collect();
    std::fs::write(path, lines).map_err(|error| Error::user(format!("{}: {error}", path.display())))?;
    let failed: Vec<String> = graph.failed.iter().map(|node| format!("({node})")).collect();
    let setup = format!(
        "CREATE TABLE edges AS SELECT * FROM read_csv('{}', header = false, columns = {{src: 'BIGINT', dst: 'BIGINT'}});
         CREATE TABLE failed (node BIGINT);
         INSERT INTO failed VALUES {};",
        path.display(),
        failed.join(", ")
    );
    let query = "WITH RECURSIVE reached AS (
                   SELECT node AS id FROM failed
                   UNION
                   SELECT e.src AS id FROM reached r JOIN edges e ON e.dst = r.id
                 )
                 SELECT id FROM reached";
    duckdb.ask(&Question { setup: &setup, query, runs: DUCKDB_RUNS, check: None }, DUCKDB_LIMIT)
}

/// One run, in a process of its own.
pub async fn one(options: &OneCascade) -> Result<Measured> {
    let mut graph = Graph::new(&options.shape)?;
    let (probes, mut seen) = Probes::new(engine::connectors());
    let tick = Duration::from_millis(options.tick_ms);
    let engine = Engine::start(Config { workers: options.workers, tick, ..Config::default() }, Arc::new(probes))?;

    let started = Instant::now();
    load(&engine, &graph).await?;
    let load_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    engine.execute(&options.rule.view(VIEW), "cascade.sql").await?;
    engine.execute(COUNTED, "cascade.sql").await?;
    engine.commit().await?;
    let first_seconds = started.elapsed().as_secs_f64();
    engine.execute(SINKS, "cascade.sql").await?;
    engine.start_sources().await?;
    let mut reached = graph.reached();
    let mut expected = options.rule.recompute(&graph);
    same("at first", &engine, options.rule, VIEW, expected).await?;
    let affected = expected.rows;

    let (mut latencies, mut search_ms) = (Vec::new(), Vec::new());
    // What the sinks are given to begin with is no update's.
    seen.settle().await;
    let mut updates = graph.updates(options.shape.seed, options.updates);
    while let Some(change) = updates.next(&mut graph, &reached) {
        let sql = sql(&change);
        let started = Instant::now();
        engine.execute(&sql, "cascade.sql").await?;
        let acknowledged = started.elapsed();

        let searched = Instant::now();
        let now_expected = options.rule.recompute(&graph);
        search_ms.push(searched.elapsed().as_secs_f64() * 1000.0);
        let net = now_expected.rows as i64 - expected.rows as i64;
        expected = now_expected;
        reached = graph.reached();
        let at = seen.visible(net).await.map_err(|error| Error::engine(format!("{sql}: {error}")))?;
        latencies.push(Latency {
            kind: change.kind.to_string(),
            ms: (at - started).as_secs_f64() * 1000.0,
            acknowledged_ms: acknowledged.as_secs_f64() * 1000.0,
        });
    }
    same("at last", &engine, options.rule, VIEW, expected).await?;

    let (ticks, peak_mib) = (engine::ticks(&engine), process::peak_mib());
    let anew_ms = anew(&engine, options.rule, expected).await?;
    engine.shutdown().await?;
    Ok(Measured { load_seconds, first_seconds, affected, latencies, search_ms, anew_ms, ticks, peak_mib })
}

/// The engine's own recomputation: the view once more, under another name, while nothing changes.
async fn anew(engine: &Engine, rule: Rule, expected: Answer) -> Result<Vec<f64>> {
    let mut took_ms = Vec::new();
    for _ in 0..ANEW_RUNS {
        let started = Instant::now();
        engine.execute(&rule.view("anew"), "cascade.sql").await?;
        engine.commit().await?;
        took_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        same("made anew", engine, rule, "anew", expected).await?;
        engine.execute("DROP MATERIALIZED VIEW anew", "cascade.sql").await?;
    }
    Ok(took_ms)
}

const VIEW: &str = "affected";

const TABLES: &str = "
CREATE TABLE nodes (id BIGINT PRIMARY KEY, kind TEXT);
CREATE TABLE edges (src BIGINT, dst BIGINT, PRIMARY KEY (src, dst));
CREATE TABLE failed (node BIGINT PRIMARY KEY);";

const COUNTED: &str = "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS edges FROM edges;";

const SINKS: &str = "
CREATE SINK affected_seen FROM affected WITH (connector = 'probe');
CREATE SINK counted_seen FROM counted WITH (connector = 'probe');";

async fn load(engine: &Engine, graph: &Graph) -> Result<()> {
    engine.execute(TABLES, "cascade.sql").await?;
    let nodes = (0..graph.nodes).map(|id| format!("({id}, '{}')", graph.kind(id)));
    insert(engine, "nodes", nodes.collect()).await?;
    insert(engine, "edges", graph.edges.iter().map(|edge| format!("({}, {})", edge.src, edge.dst)).collect()).await?;
    insert(engine, "failed", graph.failed.iter().map(|id| format!("({id})")).collect()).await
}

async fn insert(engine: &Engine, table: &str, rows: Vec<String>) -> Result<()> {
    for chunk in rows.chunks(ROWS_PER_INSERT) {
        engine.execute(&format!("INSERT INTO {table} VALUES {}", chunk.join(", ")), "cascade.sql").await?;
    }
    Ok(())
}

fn sql(change: &Change) -> String {
    let (src, dst) = (change.edge.src, change.edge.dst);
    if change.inserts {
        format!("INSERT INTO edges VALUES ({src}, {dst})")
    } else {
        format!("DELETE FROM edges WHERE src = {src} AND dst = {dst}")
    }
}

async fn same(when: &str, engine: &Engine, rule: Rule, view: &str, expected: Answer) -> Result<()> {
    let rows = engine::select_count(engine, &format!("SELECT count(*) AS n FROM {view}")).await?;
    let sum = engine::select_count(engine, &rule.sum(view)).await? as i64;
    if (Answer { rows, sum }) == expected {
        return Ok(());
    }
    let Answer { rows: expected_rows, sum: expected_sum } = expected;
    Err(Error::engine(format!("{when} the view holds {rows} rows and {sum}, and from scratch it is {expected_rows} and {expected_sum}")))
}

/// p50 and p99 in milliseconds, of one kind or of all.
struct Quantiles {
    kind: &'static str,
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    acknowledged_p50_ms: f64,
}

impl Measured {
    fn quantiles(&self) -> Vec<Quantiles> {
        let kinds = ["attach", "detach", "cut", "mend", "all"];
        let lines = kinds.into_iter().filter_map(|kind| {
            let these: Vec<&Latency> = self.latencies.iter().filter(|latency| kind == "all" || latency.kind == kind).collect();
            let ms: Vec<f64> = these.iter().map(|latency| latency.ms).collect();
            let acknowledged: Vec<f64> = these.iter().map(|latency| latency.acknowledged_ms).collect();
            Some(Quantiles {
                kind,
                count: ms.len(),
                p50_ms: quantile(&ms, 0.5)?,
                p99_ms: quantile(&ms, 0.99)?,
                max_ms: quantile(&ms, 1.0)?,
                acknowledged_p50_ms: quantile(&acknowledged, 0.5)?,
            })
        });
        lines.collect()
    }

    fn search_p50_ms(&self) -> f64 {
        quantile(&self.search_ms, 0.5).unwrap_or(f64::NAN)
    }

    fn anew_p50_ms(&self) -> f64 {
        quantile(&self.anew_ms, 0.5).unwrap_or(f64::NAN)
    }
}

/// One changed edge against recomputing.
struct Compared {
    p50_ms: f64,
    p99_ms: f64,
    anew_ms: f64,
    search_ms: f64,
    duckdb_ms: Option<f64>,
}

impl Compared {
    /// None where nothing was updated.
    fn of(rule: Rule, measured: &Measured, recomputed: Option<&Recomputed>) -> Option<Self> {
        let all = measured.quantiles().pop()?;
        Some(Self {
            p50_ms: all.p50_ms,
            p99_ms: all.p99_ms,
            anew_ms: measured.anew_p50_ms(),
            search_ms: measured.search_p50_ms(),
            // Its query is this rule's alone.
            duckdb_ms: recomputed.filter(|_| rule == Rule::Recursive).map(|recomputed| recomputed.seconds * 1000.0),
        })
    }

    /// How many changed edges are through at the median while `ms` pass.
    fn times(&self, ms: f64) -> f64 {
        ms / self.p50_ms
    }
}

fn table(options: &CascadeOptions, runs: &[Run], recomputed: Option<&Recomputed>) -> String {
    let shape = &options.shape;
    let mut text = format!(
        "Cascade, {} nodes, {} edges, {} failed, seed {}; {}\ntick {} ms: an update waits for a commit at most that long, and the times below include it\n",
        shape.nodes,
        shape.edges,
        shape.failed,
        shape.seed,
        process::machine(),
        options.tick_ms
    );
    for Run { rule, workers, outcome } in runs {
        let rule_name = rule.name();
        let measured = match outcome {
            Ok(measured) => measured,
            Err(error) => {
                let _ = writeln!(text, "\n{rule_name}, {workers} worker(s) failed: {error}");
                continue;
            }
        };
        let _ = writeln!(
            text,
            "\n{rule_name}, {workers} worker(s): loaded in {:.1} s, first computed in {:.2} s, {} nodes affected, peak {:.0} MiB",
            measured.load_seconds, measured.first_seconds, measured.affected, measured.peak_mib
        );
        let _ = writeln!(text, "{:<7} {:>7} {:>9} {:>9} {:>9} {:>17}", "update", "count", "p50 ms", "p99 ms", "max ms", "execute() p50 ms");
        for line in measured.quantiles() {
            let _ = writeln!(
                text,
                "{:<7} {:>7} {:>9.2} {:>9.2} {:>9.2} {:>17.2}",
                line.kind, line.count, line.p50_ms, line.p99_ms, line.max_ms, line.acknowledged_p50_ms
            );
        }
        let tick = |ms: Option<f64>| ms.map_or("–".to_string(), |ms| format!("{ms:.1}"));
        let _ = writeln!(
            text,
            "the engine's ticks, loading included: p50 {} ms, p99 {} ms",
            tick(measured.ticks.p50_ms),
            tick(measured.ticks.p99_ms)
        );
    }
    text.push_str(&comparison(runs, recomputed));
    text
}

/// A line per rule and number of workers.
fn comparison(runs: &[Run], recomputed: Option<&Recomputed>) -> String {
    let mut text = format!(
        "\none changed edge against recomputing; aims: p99 {P99_MS_MAX} ms, × anew {TIMES_MIN}\n\
         {:<15} {:>7} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>10} {:>8}\n",
        "rule", "workers", "p50 ms", "p99 ms", "anew ms", "× anew", "Rust ms", "× Rust", "DuckDB ms", "× DuckDB"
    );
    for Run { rule, workers, outcome } in runs {
        let Some(compared) = outcome.as_ref().ok().and_then(|measured| Compared::of(*rule, measured, recomputed)) else { continue };
        let [anew, search] = [compared.anew_ms, compared.search_ms].map(|ms| compared.times(ms));
        let duckdb = compared.duckdb_ms.map(|ms| (format!("{ms:.0}"), format!("{:.1}", compared.times(ms))));
        let (duckdb_ms, duckdb) = duckdb.unwrap_or_else(|| ("–".to_string(), "–".to_string()));
        let Compared { p50_ms, p99_ms, anew_ms, search_ms, .. } = compared;
        let _ = writeln!(
            text,
            "{:<15} {workers:>7} {p50_ms:>8.2} {p99_ms:>8.2} {anew_ms:>9.1} {anew:>8.1} {search_ms:>8.2} {search:>8.1} \
             {duckdb_ms:>10} {duckdb:>8}",
            rule.name()
        );
    }
    match recomputed {
        Some(Recomputed { version, .. }) => text + &format!("DuckDB {version}\n"),
        None => text,
    }
}

fn json(options: &CascadeOptions, runs: &[Run], recomputed: Option<&Recomputed>) -> String {
    let runs = runs.iter().map(|Run { rule, workers, outcome }| match outcome {
        Err(error) => json!({ "rule": rule.name(), "workers": workers, "error": error.to_string() }),
        Ok(measured) => {
            let updates = measured.quantiles().into_iter().map(|line| {
                json!({
                    "kind": line.kind, "count": line.count, "p50_ms": line.p50_ms, "p99_ms": line.p99_ms,
                    "max_ms": line.max_ms, "execute_p50_ms": line.acknowledged_p50_ms,
                })
            });
            json!({
                "rule": rule.name(), "workers": workers, "load_seconds": measured.load_seconds, "first_seconds": measured.first_seconds,
                "affected": measured.affected, "updates": updates.collect::<Vec<_>>(),
                "search_p50_ms": measured.search_p50_ms(), "anew_p50_ms": measured.anew_p50_ms(),
                "ticks": measured.ticks, "peak_mib": measured.peak_mib,
            })
        }
    });
    let report = json!({
        "benchmark": "cascade", "tidegate": env!("CARGO_PKG_VERSION"), "machine": process::machine(),
        "nodes": options.shape.nodes, "edges": options.shape.edges, "failed": options.shape.failed, "seed": options.shape.seed,
        "tick_ms": options.tick_ms, "runs": runs.collect::<Vec<_>>(), "duckdb": recomputed,
    });
    format!("{report}\n")
}
