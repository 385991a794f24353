//! Readings of many series, each judged against those before it: how many per second, and how much memory a series takes.
//!
//! Rounds: in each, every sensor reads once, in an order that jumps between them: noise from 0 to 1, and for one
//! sensor of a hundred a peak in the last round but one. A peak is thousands of deviations from what came before.
//!
//! Each run is a process of its own, with the readings as a file. What it costs to read them is the run of a view
//! that only counts them. Plain Rust says which sensors must have been found.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_types::error::{Error, Result};

use crate::engine::{self, Runs, Settled};
use crate::{at, process};

/// What is aimed at, with 2 workers and 10,000 series.
const READINGS_PER_SECOND_MIN: f64 = 1_000_000.0;
/// A window with fewer readings than that may take noise for a peak.
const READINGS_MIN: u64 = 20;
/// Prime, so that each round meets every sensor once.
const JUMP: u64 = 2_654_435_761;

#[derive(Args)]
pub struct SensorOptions {
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    series: u64,
    /// Readings of each series
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(30..=1_000_000))]
    rounds: u64,
    /// Readings that a detector looks back on
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    window: u64,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "level-z,change-z")]
    detectors: Vec<Detector>,
    #[command(flatten)]
    runs: Runs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Detector {
    /// Counts the readings.
    #[value(skip)]
    Count,
    LevelZ,
    ChangeZ,
}

impl Detector {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::LevelZ => "level_z",
            Self::ChangeZ => "change_z",
        }
    }

    fn sql(self, window: u64) -> String {
        match self {
            Self::Count => "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS readings, max(ts) AS latest FROM readings".into(),
            Self::LevelZ | Self::ChangeZ => format!(
                "CREATE MATERIALIZED VIEW peaks AS SELECT sensor, z FROM (
                   SELECT sensor, ts, {}(value, {window}) OVER (PARTITION BY sensor ORDER BY ts) AS z FROM readings
                 ) s WHERE ts >= TIMESTAMP '1970-01-01 00:00:{READINGS_MIN}' AND z >= 50",
                self.name()
            ),
        }
    }
}

/// What one process runs.
#[derive(Args)]
pub struct OneSensors {
    #[arg(long)]
    detector: Option<Detector>,
    #[arg(long)]
    window: u64,
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
    settled: Settled,
    /// Peaks, and the sum of their sensors' numbers.
    found: Option<(u64, u64)>,
}

struct Run {
    detector: Detector,
    workers: usize,
    measured: Measured,
}

/// False: a result is in doubt.
pub fn run(options: &SensorOptions) -> Result<bool> {
    let folder = tempfile::tempdir().map_err(|error| Error::engine(format!("no folder for the readings: {error}")))?;
    let file = folder.path().join("readings.jsonl");
    write_readings(options, &file).map_err(|error| at(&file, &error))?;
    let mut runs = Vec::new();
    for &workers in &options.runs.workers {
        for &detector in [Detector::Count].iter().chain(&options.detectors) {
            eprintln!("sensors: {} with {workers} worker(s)", detector.name());
            let mut args = vec![
                "one-sensors".to_string(),
                format!("--window={}", options.window),
                format!("--workers={workers}"),
                format!("--tick-ms={}", options.runs.tick_ms),
                format!("--file={}", file.display()),
            ];
            args.extend(detector.to_possible_value().map(|value| format!("--detector={}", value.get_name())));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            runs.push(Run { detector, workers, measured: process::again(&args, Duration::from_secs(options.runs.limit_s))? });
        }
    }
    let doubts: Vec<String> = runs.iter().flat_map(|run| doubts(options, run)).collect();
    print!("{}", if options.runs.json { json(options, &runs, &doubts) } else { table(options, &runs, &doubts) });
    Ok(doubts.is_empty())
}

fn has_peak(sensor: u64) -> bool {
    sensor % 100 == 7
}

fn write_readings(options: &SensorOptions, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for round in 0..options.rounds {
        for place in 0..options.series {
            let sensor = place.wrapping_mul(JUMP) % options.series;
            let noise = (round * options.series + sensor).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
            let whole = if has_peak(sensor) && round + 2 == options.rounds { 1_000 } else { 0 };
            let ts = round * 1_000 + place * 1_000 / options.series;
            writeln!(file, r#"{{"sensor":{sensor},"value":{whole}.{noise:04},"ts":{ts}}}"#)?;
        }
    }
    file.flush()
}

/// One run, in a process of its own.
pub async fn one(options: &OneSensors) -> Result<Measured> {
    let file = options.file.display().to_string().replace('\'', "''");
    let source = format!(
        "CREATE SOURCE readings (sensor BIGINT, value DOUBLE, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second')
         WITH (connector = 'file', path = '{file}', format = 'json')"
    );
    let detector = options.detector.unwrap_or(Detector::Count);
    let statements = [source.as_str(), &detector.sql(options.window)];
    let engine = engine::start_once(options.workers, Duration::from_millis(options.tick_ms), &statements).await?;
    let settled = engine::settle(&engine).await?;
    let found = match detector {
        Detector::Count => None,
        Detector::LevelZ | Detector::ChangeZ => Some((
            engine::select_count(&engine, "SELECT count(*) AS n FROM peaks").await?,
            engine::select_count(&engine, "SELECT coalesce(sum(sensor), 0) AS n FROM peaks").await?,
        )),
    };
    engine.shutdown().await?;
    Ok(Measured { settled, found })
}

/// What makes a run doubtful, in words.
fn doubts(options: &SensorOptions, run: &Run) -> Vec<String> {
    let Measured { settled, found } = &run.measured;
    let readings = options.series * options.rounds;
    let lost = (settled.committed != readings).then(|| format!("{} of {readings} readings came in", settled.committed));
    let peaks = (0..options.series).filter(|sensor| has_peak(*sensor)).fold((0, 0), |(count, sum), sensor| (count + 1, sum + sensor));
    let wrong =
        found.filter(|found| *found != peaks).map(|found| format!("peaks and the sum of their sensors are {found:?}, not {peaks:?}"));
    lost.into_iter().chain(wrong).map(|doubt| format!("{}, {} worker(s): {doubt}", run.detector.name(), run.workers)).collect()
}

fn table(options: &SensorOptions, runs: &[Run], doubts: &[String]) -> String {
    let mut text = format!(
        "Sensors, {} series, {} readings each, a window of {}; {}\n{:>9} {:>7} {:>9} {:>10} {:>11} {:>7} {:>9} {:>16}\n",
        options.series,
        options.rounds,
        options.window,
        process::machine(),
        "detector",
        "workers",
        "seconds",
        "readings/s",
        "p99 tick ms",
        "CPU s",
        "peak MiB",
        "bytes per series"
    );
    for Run { detector, workers, measured: Measured { settled, .. } } in runs {
        let tick = settled.ticks.p99_ms.map_or("–".to_string(), |ms| format!("{ms:.1}"));
        let _ = writeln!(
            text,
            "{:>9} {workers:>7} {:>9.2} {:>10.0} {tick:>11} {:>7.1} {:>9.0} {:>16}",
            detector.name(),
            settled.seconds,
            settled.rows_per_second(),
            settled.cpu_seconds,
            settled.peak_mib,
            settled.state_bytes / options.series
        );
    }
    let _ = writeln!(text, "aim: {READINGS_PER_SECOND_MIN:.0} readings/s with 2 workers");
    doubts.iter().for_each(|doubt| {
        let _ = writeln!(text, "in doubt: {doubt}");
    });
    text
}

fn json(options: &SensorOptions, runs: &[Run], doubts: &[String]) -> String {
    let runs = runs.iter().map(|Run { detector, workers, measured }| {
        json!({
            "detector": detector.name(), "workers": workers, "readings_per_second": measured.settled.rows_per_second(), "run": measured,
        })
    });
    let report = json!({
        "benchmark": "sensors", "tidegate": env!("CARGO_PKG_VERSION"), "machine": process::machine(),
        "series": options.series, "rounds": options.rounds, "window": options.window, "tick_ms": options.runs.tick_ms,
        "runs": runs.collect::<Vec<_>>(), "doubts": doubts,
    });
    format!("{report}\n")
}
