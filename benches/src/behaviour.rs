//! Cases followed against a protocol, a million of them open: how many events per second, and how much memory each.
//!
//! Rounds: in each, every case takes one step, in an order that jumps between cases, a millisecond of event time
//! after the other. The protocol is a circle of four states, each to be left in time, so no case ever ends, and
//! each has a deadline ahead. One case of a thousand loses its second step, and is late with the next.
//!
//! Each run is a process of its own, with the events as a file. What it costs to read them is the run of a view
//! that only counts them; the rest of the memory is the cases'. Plain Rust says what must have been found.

use std::fmt::{self, Write};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate::Engine;
use tidegate_types::error::{Error, Result};

use crate::engine::{self, Runs, Settled};
use crate::{at, process};

/// What is aimed at, with 2 workers.
const EVENTS_PER_SECOND_MIN: f64 = 500_000.0;
const STEPS: [&str; 4] = ["place", "approve", "pay", "ship"];
/// What the protocol does not know.
const LOST: &str = "lose";
/// Prime, so that each round meets every case once.
const JUMP: u64 = 2_654_435_761;

#[derive(Args)]
pub struct BehaviourOptions {
    /// Cases that are open at once
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    cases: u64,
    /// Events of each case
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(3..=1_000))]
    rounds: u64,
    #[command(flatten)]
    runs: Runs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum View {
    /// Counts the events.
    Count,
    /// Follows the cases.
    Follow,
}

impl View {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Follow => "follow",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Count => "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS events, max(ts) AS latest FROM steps;",
            Self::Follow => {
                "CREATE MATERIALIZED VIEW broken AS SELECT case_id, rule, at
                 FROM violations(steps, transitions, states, clock => (SELECT max(ts) AS now FROM steps));"
            }
        }
    }
}

/// What one process runs.
#[derive(Args)]
pub struct OneBehaviour {
    #[arg(long, value_enum)]
    view: View,
    #[arg(long)]
    cases: u64,
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    tick_ms: u64,
    #[arg(long)]
    file: PathBuf,
}

/// What it measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    #[serde(flatten)]
    pub settled: Settled,
    /// Violations: steps that the protocol does not have, and deadlines that passed.
    pub found: Option<Found>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub unexpected: u64,
    pub overdue: u64,
    /// Of all violations' cases.
    pub sum: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} unexpected and {} overdue of cases that sum up to {}", self.unexpected, self.overdue, self.sum)
    }
}

struct Run {
    workers: usize,
    counted: Measured,
    followed: Measured,
}

/// False: a result is in doubt.
pub fn run(options: &BehaviourOptions) -> Result<bool> {
    let folder = tempfile::tempdir().map_err(|error| Error::engine(format!("no folder for the events: {error}")))?;
    let file = folder.path().join("steps.jsonl");
    write_steps(options, &file).map_err(|error| at(&file, &error))?;
    let mut runs = Vec::new();
    for &workers in &options.runs.workers {
        let measure = |view: View| {
            eprintln!("behaviour: {} with {workers} worker(s)", view.name());
            let args = [
                "one-behaviour".to_string(),
                format!("--view={}", view.name()),
                format!("--cases={}", options.cases),
                format!("--workers={workers}"),
                format!("--tick-ms={}", options.runs.tick_ms),
                format!("--file={}", file.display()),
            ];
            process::again::<Measured>(&args.each_ref().map(String::as_str), Duration::from_secs(options.runs.limit_s))
        };
        runs.push(Run { workers, counted: measure(View::Count)?, followed: measure(View::Follow)? });
    }
    let doubts: Vec<String> = runs.iter().flat_map(|run| doubts(options, run)).collect();
    print!("{}", if options.runs.json { json(options, &runs, &doubts) } else { table(options, &runs, &doubts) });
    Ok(doubts.is_empty())
}

fn is_broken(case: u64) -> bool {
    case % 1_000 == 7
}

fn write_steps(options: &BehaviourOptions, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for round in 0..options.rounds {
        for place in 0..options.cases {
            let case = place.wrapping_mul(JUMP) % options.cases;
            let step = match (is_broken(case), round) {
                (true, 1) => LOST,
                (true, 2..) => STEPS[(round - 1) as usize % STEPS.len()],
                _ => STEPS[round as usize % STEPS.len()],
            };
            writeln!(file, r#"{{"case_id":{case},"activity":"{step}","ts":{}}}"#, round * options.cases + place)?;
        }
    }
    file.flush()
}

/// A case waits a round for its next step, and a broken one two, once.
fn expected(cases: u64) -> Found {
    let broken = (0..cases).filter(|case| is_broken(*case));
    let (count, sum) = broken.fold((0, 0), |(count, sum), case| (count + 1, sum + case));
    Found { unexpected: count, overdue: count, sum: 2 * sum }
}

/// The specification. A round and a half is in time.
fn tables(cases: u64) -> String {
    let mut sql = "CREATE TABLE states (state BIGINT PRIMARY KEY, is_initial BOOLEAN, max_dwell_ms BIGINT);
        CREATE TABLE transitions (from_state BIGINT, activity TEXT, to_state BIGINT);"
        .to_string();
    for (state, activity) in STEPS.iter().enumerate() {
        let next = (state + 1) % STEPS.len();
        let _ = write!(
            sql,
            "INSERT INTO states VALUES ({state}, {}, {}); INSERT INTO transitions VALUES ({state}, '{activity}', {next});",
            state == 0,
            cases * 3 / 2
        );
    }
    sql
}

/// One run, in a process of its own.
pub async fn one(options: &OneBehaviour) -> Result<Measured> {
    let file = options.file.display().to_string().replace('\'', "''");
    let source = format!(
        "CREATE SOURCE steps (case_id BIGINT, activity TEXT, ts BIGINT) WITH (connector = 'file', path = '{file}', format = 'json');"
    );
    let specification = tables(options.cases);
    let statements = [specification.as_str(), &source, options.view.sql()];
    let engine = engine::start_once(options.workers, Duration::from_millis(options.tick_ms), &statements).await?;
    let measured = Measured {
        settled: engine::settle(&engine).await?,
        found: if options.view == View::Follow { Some(found(&engine).await?) } else { None },
    };
    engine.shutdown().await?;
    Ok(measured)
}

async fn found(engine: &Engine) -> Result<Found> {
    let count = async |rule: &str| engine::select_count(engine, &format!("SELECT count(*) AS n FROM broken WHERE rule = '{rule}'")).await;
    let sum = engine::select_count(engine, "SELECT coalesce(sum(case_id), 0) AS n FROM broken").await?;
    Ok(Found { unexpected: count("unexpected").await?, overdue: count("overdue").await?, sum })
}

/// What makes a run doubtful, in words.
fn doubts(options: &BehaviourOptions, run: &Run) -> Vec<String> {
    let events = options.cases * options.rounds;
    let committed = [&run.counted, &run.followed].map(|measured| measured.settled.committed);
    let lost =
        committed.iter().filter(|committed| **committed != events).map(|committed| format!("{committed} of {events} events came in"));
    let expected = expected(options.cases);
    let found = run.followed.found.filter(|found| *found != expected).map(|found| format!("found are {found}, and there are {expected}"));
    lost.chain(found).map(|doubt| format!("{} worker(s): {doubt}", run.workers)).collect()
}

impl Run {
    /// With the rows of a tick that are on their way: many, where the source is faster than the workers.
    fn bytes_per_case(&self, cases: u64) -> f64 {
        (self.followed.settled.peak_mib - self.counted.settled.peak_mib) * 1024.0 * 1024.0 / cases as f64
    }
}

fn table(options: &BehaviourOptions, runs: &[Run], doubts: &[String]) -> String {
    let mut text = format!(
        "Behaviour, {} open cases, {} events each; {}\n{:>7} {:>9} {:>10} {:>11} {:>7} {:>10} {:>10} {:>14} {:>14} {:>14}\n",
        options.cases,
        options.rounds,
        process::machine(),
        "workers",
        "seconds",
        "events/s",
        "p99 tick ms",
        "CPU s",
        "peak MiB",
        "count s",
        "its peak MiB",
        "bytes per case",
        "of them state"
    );
    for run in runs {
        let (followed, counted) = (&run.followed.settled, &run.counted.settled);
        let tick = followed.ticks.p99_ms.map_or("–".to_string(), |ms| format!("{ms:.1}"));
        let _ = writeln!(
            text,
            "{:>7} {:>9.2} {:>10.0} {:>11} {:>7.1} {:>10.0} {:>10.2} {:>14.0} {:>14.0} {:>14}",
            run.workers,
            followed.seconds,
            followed.rows_per_second(),
            tick,
            followed.cpu_seconds,
            followed.peak_mib,
            counted.seconds,
            counted.peak_mib,
            run.bytes_per_case(options.cases),
            followed.state_bytes / options.cases
        );
    }
    let _ = writeln!(text, "aim: {EVENTS_PER_SECOND_MIN:.0} events/s with 2 workers");
    doubts.iter().for_each(|doubt| {
        let _ = writeln!(text, "in doubt: {doubt}");
    });
    text
}

fn json(options: &BehaviourOptions, runs: &[Run], doubts: &[String]) -> String {
    let runs = runs.iter().map(|run| {
        json!({
            "workers": run.workers, "events_per_second": run.followed.settled.rows_per_second(), "bytes_per_case": run.bytes_per_case(options.cases),
            "follow": run.followed, "count": run.counted,
        })
    });
    let report = json!({
        "benchmark": "behaviour", "tidegate": env!("CARGO_PKG_VERSION"), "machine": process::machine(),
        "cases": options.cases, "rounds": options.rounds, "tick_ms": options.runs.tick_ms,
        "runs": runs.collect::<Vec<_>>(), "doubts": doubts,
    });
    format!("{report}\n")
}
