//! What the log costs: the same rows with no log, with one that is not synced, and with one that is.
//!
//! Each run is an engine in a process of its own. Over HTTP, clients that wait for their answers say how many
//! rows it takes; at half of that, due at their times, how long from a request to its 200. From a file, the clock
//! runs from the start of the sources until all is committed. What came is held against what the engine has.
//!
//! Recovery: a view with a row per key is filled over HTTP, the process killed, and started again on the same
//! folder. The clock runs from the start of the process until its statements are carried out. Once as often as there are
//! keys, once after the same rows came many times over: the state is the same, the log's past is not.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_types::error::{Error, Result};

use crate::door;
use crate::engine::LogWanted;
use crate::ledger::{self, COLUMNS, VIEWS, metric, metrics};
use crate::load::{Load, Pace, Rows, Told, amount, now_ms, offer};
use crate::memory::memory;
use crate::process;
use crate::served::{EngineWanted, Served, file_system};
use crate::stats::quantile;

/// A synced log's rows per second, over those without a log.
const RATIO_MIN: f64 = 0.7;

/// For each 10 million rows of state.
const RECOVERY_SECONDS_MAX: f64 = 60.0;

const LOGS: [LogWanted; 3] = [LogWanted::Off, LogWanted::Temporary, LogWanted::Synced];

/// How often a file's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Without any progress a file's run has failed.
const STALL_MAX: Duration = Duration::from_secs(120);

/// Enough for all that is due at half of the capacity.
const CONNECTIONS_OPEN: usize = 256;

/// As long as it takes.
const DAY: Duration = Duration::from_secs(24 * 3600);

const FILE: &str = "rows.jsonl";

const STATE: &str = "
    CREATE SOURCE posts (id BIGINT, client TEXT, amount BIGINT) WITH (connector = 'http');
    CREATE MATERIALIZED VIEW state AS SELECT id, max(amount) AS most FROM posts GROUP BY id;
";

#[derive(Args)]
pub struct DurabilityOptions {
    /// Rows of the file
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// How long rows are brought over HTTP: for the rate, and again for the latencies
    #[arg(long = "for", default_value = "10s", value_parser = tidegate::cli::duration)]
    duration: Duration,
    /// Rows of a request
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch_rows: u64,
    /// Connections that wait for their answers
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Runs of each log, in turns; the median of each number counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Rows of the state that is recovered; with 0 none is
    #[arg(long, default_value_t = 10_000_000)]
    state_rows: u64,
    /// How often the same rows come to the engine that ran for long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=1000))]
    rounds: u64,
    #[command(flatten)]
    engine: EngineWanted,
    /// Where logs are written, and removed again: on the disk to be measured [default: the system's temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// What a log let through.
#[derive(Debug, Clone, Serialize)]
struct Throughput {
    log: &'static str,
    http_rows_per_second: f64,
    file_rows_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Debug, Serialize)]
struct Recovery {
    rounds: u64,
    state_rows: u64,
    ticks: u64,
    /// Of the data folder, when it was killed.
    folder_mib: f64,
    seconds: f64,
    peak_mib: f64,
}

struct Measured {
    throughputs: Vec<Throughput>,
    recoveries: Vec<Recovery>,
    doubts: Vec<String>,
    file_system: String,
}

/// False: a result is in doubt.
pub fn run(options: &DurabilityOptions) -> Result<bool> {
    let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let place = tempfile::tempdir_in(&folder).map_err(|error| disk(&folder, &error))?;
    let mut bench = Bench { options, place: place.path(), doubts: Vec::new() };
    let throughputs = bench.throughputs()?;
    let recoveries = bench.recoveries()?;
    let file_system = file_system(place.path()).unwrap_or_else(|| "unknown".into());
    if file_system == "tmpfs" {
        bench.doubts.push("the folder is in memory, where nothing is synced: name one on a disk with --folder".into());
    }
    let measured = Measured { throughputs, recoveries, doubts: bench.doubts, file_system };
    let text = if options.json { format!("{}\n", json(options, &measured)) } else { table(options, &measured) };
    print!("{text}");
    Ok(measured.doubts.is_empty())
}

fn disk(path: &Path, error: &std::io::Error) -> Error {
    Error::user(format!("{} cannot be used: {error}", path.display()))
}

struct Bench<'a> {
    options: &'a DurabilityOptions,
    place: &'a Path,
    doubts: Vec<String>,
}

impl Bench<'_> {
    fn throughputs(&mut self) -> Result<Vec<Throughput>> {
        let rows = self.rows(u64::MAX);
        let batches = self.options.rows.div_ceil(rows.per_batch);
        self.write_file(rows, batches)?;
        let mut runs = Vec::new();
        for run in 1..=self.options.runs {
            for log in LOGS {
                eprintln!("run {run}, log {}", log.name());
                let (http_rows_per_second, half_load) = self.http(log, rows)?;
                let file_rows_per_second = self.file(log, rows, batches)?;
                let (p50_ms, p99_ms) = (half_load.latency_ms(0.5), half_load.latency_ms(0.99));
                runs.push(Throughput { log: log.name(), http_rows_per_second, file_rows_per_second, p50_ms, p99_ms });
            }
        }
        Ok(LOGS.map(|log| median(log.name(), &runs)).to_vec())
    }

    /// Rows per second, and what clients were told at half of that.
    fn http(&mut self, log: LogWanted, rows: Rows) -> Result<(f64, Told)> {
        let (_folder, mut engine) = self.engine("connector = 'http'", log)?;
        engine.start_sources()?;
        let connections = self.options.connections as usize;
        let full = self.load(engine.at, rows, connections, Pace::Closed, 0..u64::MAX, self.options.duration)?;
        let batches_per_second = full.batches_per_second();
        if batches_per_second == 0.0 {
            return Err(Error::engine(format!("the engine took nothing: {full}")));
        }
        let pace = Pace::Open { batches_per_second: batches_per_second / 2.0 };
        let half = self.load(engine.at, rows, CONNECTIONS_OPEN, pace, full.next_batch..u64::MAX, self.options.duration)?;
        if 0 < half.refusals + half.withheld {
            self.doubts.push(format!("log {}: at half of the capacity: {half}", log.name()));
        }
        self.audit(&engine, log, rows, &[&full, &half])?;
        Ok((batches_per_second * rows.per_batch as f64, half))
    }

    /// Rows per second.
    fn file(&mut self, log: LogWanted, rows: Rows, batches: u64) -> Result<f64> {
        let file = self.place.join(FILE).display().to_string().replace('\'', "''");
        let (_folder, mut engine) = self.engine(&format!("connector = 'file', path = '{file}', format = 'json'"), log)?;
        let wanted = batches * rows.per_batch;
        let begun = Instant::now();
        engine.start_sources()?;
        let (mut committed, mut moved) = (0, Instant::now());
        while committed < wanted {
            thread::sleep(LOOK_EVERY);
            let text = metrics(engine.at).map_err(Error::engine)?;
            let now = metric(&text, "tidegate_source_committed_rows_total");
            if committed < now {
                (committed, moved) = (now, Instant::now());
            }
            if STALL_MAX < moved.elapsed() {
                return Err(Error::engine(format!("{committed} of {wanted} rows of the file are committed, and no more come")));
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let all = Told { taken: (0..batches).collect(), ..Told::default() };
        self.audit(&engine, log, rows, &[&all])?;
        Ok(wanted as f64 / seconds)
    }

    fn audit(&mut self, engine: &Served, log: LogWanted, rows: Rows, told: &[&Told]) -> Result<()> {
        let contradictions = ledger::audit(engine.at, rows, told).map_err(Error::engine)?;
        self.doubts.extend(contradictions.into_iter().map(|what| format!("log {}: {what}", log.name())));
        Ok(())
    }

    /// An engine whose source `posts` has `connector`, and is not read yet.
    fn engine(&self, connector: &str, log: LogWanted) -> Result<(tempfile::TempDir, Served)> {
        let folder = self.folder()?;
        let sql = self.write_sql(folder.path(), &format!("CREATE SOURCE posts {COLUMNS} WITH ({connector});\n{VIEWS}"))?;
        let engine = Served::start(&sql, &folder.path().join("log"), log, &self.options.engine)?;
        Ok((folder, engine))
    }

    fn recoveries(&mut self) -> Result<Vec<Recovery>> {
        match self.options.state_rows {
            0 => Ok(Vec::new()),
            _ => [1, self.options.rounds].into_iter().map(|rounds| self.recovery(rounds)).collect(),
        }
    }

    fn recovery(&mut self, rounds: u64) -> Result<Recovery> {
        let per_batch = self.options.batch_rows;
        let batches = self.options.state_rows.div_ceil(per_batch);
        let (state_rows, rows) = (batches * per_batch, self.rows(batches * per_batch));
        eprintln!("recovery of {state_rows} rows, each read {rounds} time(s)");
        let folder = self.folder()?;
        let sql = self.write_sql(folder.path(), STATE)?;
        let log = folder.path().join("log");
        let start = || Served::start(&sql, &log, LogWanted::Synced, &self.options.engine);
        let mut filled = start()?;
        filled.start_sources()?;
        let told = self.load(filled.at, rows, self.options.connections as usize, Pace::Closed, 0..rounds * batches, DAY)?;
        let expected = (state_rows, (0..state_rows).map(amount).sum::<u64>());
        let ticks = metric(&metrics(filled.at).map_err(Error::engine)?, "tidegate_ticks_total");
        let before = state(filled.at);
        let folder_mib = folder_bytes(&log).map_err(|error| disk(&log, &error))? as f64 / f64::from(1 << 20);
        drop(filled);
        let recovered = start()?;
        // Before the state is asked for: an answer takes memory, too.
        let peak_mib = memory(recovered.process_id()).map_or(f64::NAN, |memory| memory.peak_mib);
        let after = state(recovered.at);
        if told.taken.len() as u64 != rounds * batches {
            self.doubts.push(format!("the state was not filled: {told} {:?}", told.wrong));
        }
        for (when, found) in [("killed", before), ("started again", after)] {
            match found {
                Some(found) if found == expected => {}
                Some(found) => self.doubts.push(format!("after {rounds} round(s) the state when {when} is {found:?}, not {expected:?}")),
                None => {
                    self.doubts.push(format!("after {rounds} round(s) the state when {when} was not answered in time: fewer --state-rows"))
                }
            }
        }
        Ok(Recovery { rounds, state_rows, ticks, folder_mib, seconds: recovered.load_seconds, peak_mib })
    }

    fn load(
        &self,
        to: SocketAddr,
        rows: Rows,
        connections: usize,
        pace: Pace,
        batches: std::ops::Range<u64>,
        duration: Duration,
    ) -> Result<Told> {
        let load = Load { to, source: "posts", rows, connections, pace, batches, duration, again_max: 1 };
        offer(&load).map_err(|error| Error::engine(format!("the clients cannot be started: {error}")))
    }

    fn rows(&self, cycle: u64) -> Rows {
        Rows { per_batch: self.options.batch_rows, cycle }
    }

    fn folder(&self) -> Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.place).map_err(|error| disk(self.place, &error))
    }

    fn write_sql(&self, folder: &Path, text: &str) -> Result<PathBuf> {
        let path = folder.join("pack.sql");
        fs::write(&path, text).map_err(|error| disk(&path, &error))?;
        Ok(path)
    }

    /// The rows of all batches, each a millisecond after the last.
    fn write_file(&self, rows: Rows, batches: u64) -> Result<()> {
        let path = self.place.join(FILE);
        let begun_ms = now_ms();
        let written = File::create(&path).and_then(|file| {
            let mut file = BufWriter::new(file);
            (0..batches).try_for_each(|batch| file.write_all(&rows.body(batch, begun_ms + batch)))?;
            file.flush()
        });
        written.map_err(|error| disk(&path, &error))
    }
}

/// How many rows the state has, and the sum of one column. None where the door's bounds were met.
fn state(at: SocketAddr) -> Option<(u64, u64)> {
    let rows = door::ask(at, "SELECT count(*) AS n, sum(most) AS total FROM state")?;
    let row = rows.first()?;
    Some((row["n"].as_u64()?, row["total"].as_u64()?))
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path())?,
            Ok(metadata) => metadata.len(),
            // A snapshot was just published, and what it replaces removed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// Of each number by itself.
fn median(log: &'static str, runs: &[Throughput]) -> Throughput {
    let of = |number: fn(&Throughput) -> f64| {
        let numbers: Vec<f64> = runs.iter().filter(|run| run.log == log).map(number).collect();
        quantile(&numbers, 0.5).unwrap_or(f64::NAN)
    };
    Throughput {
        log,
        http_rows_per_second: of(|run| run.http_rows_per_second),
        file_rows_per_second: of(|run| run.file_rows_per_second),
        p50_ms: of(|run| run.p50_ms),
        p99_ms: of(|run| run.p99_ms),
    }
}

fn table(options: &DurabilityOptions, measured: &Measured) -> String {
    let mut text = format!(
        "Durability, {} worker(s), tick {} ms, {} rows per request, {} rows in the file, medians of {} run(s), on {}\n{}\n\n",
        options.engine.workers,
        options.engine.tick_ms,
        options.batch_rows,
        options.rows,
        options.runs,
        measured.file_system,
        process::machine()
    );
    // To a string nothing fails.
    let _ = writeln!(
        text,
        "{:<10} {:>12} {:>9} {:>12} {:>9} {:>9} {:>9}",
        "log", "http rows/s", "of off", "file rows/s", "of off", "p50 ms", "p99 ms"
    );
    let off = measured.throughputs.iter().find(|throughput| throughput.log == LogWanted::Off.name());
    for throughput in &measured.throughputs {
        let percent = |rate: fn(&Throughput) -> f64| off.map_or(f64::NAN, |off| rate(throughput) / rate(off) * 100.0);
        let _ = writeln!(
            text,
            "{:<10} {:>12.0} {:>7.0} % {:>12.0} {:>7.0} % {:>9.1} {:>9.1}",
            throughput.log,
            throughput.http_rows_per_second,
            percent(|throughput| throughput.http_rows_per_second),
            throughput.file_rows_per_second,
            percent(|throughput| throughput.file_rows_per_second),
            throughput.p50_ms,
            throughput.p99_ms
        );
    }
    let _ =
        writeln!(text, "aim: synced {:.0} % of off or more; p50 and p99 from request to 200 at half of the HTTP rate\n", RATIO_MIN * 100.0);
    if !measured.recoveries.is_empty() {
        let _ = writeln!(
            text,
            "{:<8} {:>12} {:>12} {:>9} {:>12} {:>9} {:>16} {:>9}",
            "rounds", "state rows", "rows read", "ticks", "folder MiB", "seconds", "s per 10 M rows", "peak MiB"
        );
        for recovery in &measured.recoveries {
            let per_10_million = recovery.seconds / recovery.state_rows as f64 * 1e7;
            let _ = writeln!(
                text,
                "{:<8} {:>12} {:>12} {:>9} {:>12.0} {:>9.2} {:>16.1} {:>9.0}",
                recovery.rounds,
                recovery.state_rows,
                recovery.state_rows * recovery.rounds,
                recovery.ticks,
                recovery.folder_mib,
                recovery.seconds,
                per_10_million,
                recovery.peak_mib
            );
        }
        let _ = writeln!(text, "aim: {RECOVERY_SECONDS_MAX} s per 10 M rows or less, and as much after many rounds as after one");
    }
    for doubt in &measured.doubts {
        let _ = writeln!(text, "in doubt: {doubt}");
    }
    text
}

fn json(options: &DurabilityOptions, measured: &Measured) -> Value {
    json!({
        "benchmark": "durability", "tidegate": env!("CARGO_PKG_VERSION"), "machine": process::machine(),
        "file_system": measured.file_system, "workers": options.engine.workers, "tick_ms": options.engine.tick_ms,
        "batch_rows": options.batch_rows, "file_rows": options.rows, "runs": options.runs,
        "throughput": measured.throughputs, "recovery": measured.recoveries, "doubts": measured.doubts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_has_the_median_of_its_own_runs() {
        let run = |log, rate: f64, p99_ms| Throughput {
            log,
            http_rows_per_second: rate,
            file_rows_per_second: rate * 2.0,
            p50_ms: p99_ms / 2.0,
            p99_ms,
        };
        let runs =
            [run("off", 100.0, 8.0), run("synced", 10.0, 90.0), run("off", 300.0, 2.0), run("synced", 70.0, 10.0), run("off", 200.0, 4.0)];
        let off = median("off", &runs);
        assert_eq!((off.http_rows_per_second, off.file_rows_per_second, off.p50_ms, off.p99_ms), (200.0, 400.0, 2.0, 4.0));
        assert_eq!(median("synced", &runs).http_rows_per_second, 10.0);
        assert!(median("temporary", &runs).p99_ms.is_nan());
    }

    #[test]
    fn a_folder_is_as_long_as_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("a"), "123").unwrap();
        fs::write(folder.path().join("below/b"), "4567").unwrap();
        assert_eq!(folder_bytes(folder.path()).unwrap(), 7);
        assert!(folder_bytes(&folder.path().join("c")).is_err());
    }
}
