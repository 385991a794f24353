//! More than the engine can take, for long: what it takes meanwhile, what is lost, and how fast it is afterwards.
//!
//! An engine in a process of its own has an HTTP source, views over it, one of them costly, and a sink. Clients find out how much it
//! takes when each waits for its answer; then batches are due at a multiple of that, whatever is answered; then
//! each client waits again. In the end the engine's counts and the view's rows are held against what the clients
//! were told ([`crate::ledger`]).

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate_types::error::{Error, Result};

use crate::engine::LogWanted;
use crate::ledger::{self, COLUMNS, VIEWS};
use crate::load::{Load, Pace, Rows, Told, offer};
use crate::memory::memory;
use crate::process;
use crate::served::{EngineWanted, Served, file_system};

/// Some microseconds per row: the clients share the machine, and must be able to offer a multiple of
/// what the engine takes.
const COSTLY_VIEW: &str = "
    CREATE MATERIALIZED VIEW alike AS SELECT count(*) AS n FROM posts
      WHERE levenshtein(repeat(client, 12), repeat(reverse(client), 12)) > 0;
";

/// The rate afterwards, over the rate before.
const SPEED_MIN: f64 = 0.9;

/// Of what was to be offered, so much must have been: else it was another load than asked for.
const OFFERED_MIN: f64 = 0.9;

const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// Sends so few batches at once that none is refused.
const CONNECTIONS_CLOSED: usize = 64;

#[derive(Args)]
pub struct OverloadOptions {
    /// How long more is offered than can be taken, such as 5m
    #[arg(long = "for", default_value = "5m", value_parser = tidegate::cli::duration)]
    duration: Duration,
    /// How much more
    #[arg(long, default_value_t = 3.0, value_parser = factor)]
    factor: f64,
    /// How long the rates before and afterwards are measured, each
    #[arg(long, default_value = "20s", value_parser = tidegate::cli::duration)]
    measure: Duration,
    /// Connections of the clients, each with one request at a time
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// Rows of a request, some 60 bytes each
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch_rows: u64,
    /// What the engine may have resident, in MiB
    #[arg(long, default_value_t = 2048.0)]
    memory_mib_max: f64,
    #[command(flatten)]
    engine: EngineWanted,
    #[arg(long, value_enum, default_value = "synced")]
    log: LogWanted,
    /// Where the log is written, and removed again [default: the system's temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// For machines
    #[arg(long)]
    json: bool,
}

fn factor(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|factor| (0.1..=100.0).contains(factor)).ok_or_else(|| "wanted is a number from 0.1 to 100".into())
}

/// What clients were told, and what the engine had resident meanwhile.
struct Phase {
    name: &'static str,
    told: Told,
    resident_mib_max: f64,
}

struct Measured {
    phases: [Phase; 3],
    /// Over all phases, as the system says.
    peak_mib: f64,
    contradictions: Vec<String>,
    file_system: String,
}

/// False: memory passed the limit, a row is lost or there twice, or it is slower afterwards.
pub fn run(options: &OverloadOptions) -> Result<bool> {
    let measured = measure(options)?;
    let failures = failures(options, &measured);
    let text = if options.json { format!("{}\n", json(options, &measured, &failures)) } else { table(options, &measured, &failures) };
    print!("{text}");
    Ok(failures.is_empty())
}

fn measure(options: &OverloadOptions) -> Result<Measured> {
    let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let disk = |error: std::io::Error| Error::user(format!("the folder {} cannot be used: {error}", folder.display()));
    let place = tempfile::tempdir_in(&folder).map_err(disk)?;
    let sql = place.path().join("pack.sql");
    std::fs::write(&sql, format!("CREATE SOURCE posts {COLUMNS} WITH (connector = 'http');\n{VIEWS}{COSTLY_VIEW}")).map_err(disk)?;
    let mut engine = Served::start(&sql, &place.path().join("log"), options.log, &options.engine)?;
    engine.start_sources()?;

    let rows = Rows { per_batch: options.batch_rows, cycle: u64::MAX };
    let closed = |from, name| {
        let load = Load {
            to: engine.at,
            source: "posts",
            rows,
            connections: CONNECTIONS_CLOSED.min(options.connections as usize),
            pace: Pace::Closed,
            batches: from..u64::MAX,
            duration: options.measure,
            again_max: 1,
        };
        phase(&engine, name, load)
    };
    let before = closed(0, "before")?;
    let capacity = before.told.batches_per_second();
    if capacity == 0.0 {
        return Err(Error::engine(format!("the engine took nothing: {}", before.told)));
    }
    let load = Load {
        to: engine.at,
        source: "posts",
        rows,
        connections: options.connections as usize,
        pace: Pace::Open { batches_per_second: options.factor * capacity },
        batches: before.told.next_batch..u64::MAX,
        duration: options.duration,
        again_max: 1,
    };
    let during = phase(&engine, "overload", load)?;
    let after = closed(during.told.next_batch, "afterwards")?;
    let contradictions = ledger::audit(engine.at, rows, &[&before.told, &during.told, &after.told]).map_err(Error::engine)?;
    let peak_mib = memory(engine.process_id()).map_or(f64::NAN, |memory| memory.peak_mib);
    let file_system = file_system(place.path()).unwrap_or_else(|| "unknown".into());
    Ok(Measured { phases: [before, during, after], peak_mib, contradictions, file_system })
}

/// One load, with the engine's memory watched.
fn phase(engine: &Served, name: &'static str, load: Load) -> Result<Phase> {
    eprintln!("{name}: {} connections for {:?}", load.connections, load.duration);
    let (is_over, process) = (AtomicBool::new(false), engine.process_id());
    let (told, resident_mib_max) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = f64::NAN;
            while !is_over.load(Ordering::Relaxed) {
                most = memory(process).map_or(most, |memory| memory.now_mib.max(most));
                thread::sleep(SAMPLE_EVERY);
            }
            most
        });
        let told = offer(&load);
        is_over.store(true, Ordering::Relaxed);
        (told, watching.join().unwrap_or(f64::NAN))
    });
    let told = told.map_err(|error| Error::engine(format!("the clients cannot be started: {error}")))?;
    Ok(Phase { name, told, resident_mib_max })
}

fn failures(options: &OverloadOptions, measured: &Measured) -> Vec<String> {
    let [before, during, after] = &measured.phases;
    let mut failures = measured.contradictions.clone();
    // What is not known is not within its limit.
    let is_within = measured.peak_mib <= options.memory_mib_max;
    if !is_within {
        failures.push(format!("{:.0} MiB were resident, and {:.0} may be", measured.peak_mib, options.memory_mib_max));
    }
    let speed = after.told.batches_per_second() / before.told.batches_per_second();
    let is_as_fast = SPEED_MIN <= speed;
    if !is_as_fast {
        failures.push(format!(
            "the rate afterwards is {:.0} % of the rate before, and {:.0} % is wanted",
            speed * 100.0,
            SPEED_MIN * 100.0
        ));
    }
    let wanted = options.factor * before.told.batches_per_second() * options.duration.as_secs_f64();
    let offered = during.told.offered() as f64 / wanted;
    let is_overload = OFFERED_MIN <= offered;
    if !is_overload {
        failures.push(format!(
            "only {:.0} % of the overload was offered: {} batches found no free connection; more --connections, or a machine for the clients alone",
            offered * 100.0,
            during.told.withheld
        ));
    }
    failures
}

fn table(options: &OverloadOptions, measured: &Measured, failures: &[String]) -> String {
    let mut text = format!(
        "Overload, {} times the capacity for {:?}, {} rows per request, {} worker(s), tick {} ms, log {} on {}\n{}\n\n",
        options.factor,
        options.duration,
        options.batch_rows,
        options.engine.workers,
        options.engine.tick_ms,
        options.log.name(),
        measured.file_system,
        process::machine()
    );
    // To a string nothing fails.
    let _ = writeln!(
        text,
        "{:<11} {:>9} {:>11} {:>11} {:>9} {:>9} {:>10} {:>9} {:>9} {:>9} {:>12}",
        "phase", "seconds", "offered/s", "taken/s", "requests", "refusals", "unanswered", "withheld", "p50 ms", "p99 ms", "resident MiB"
    );
    for Phase { name, told, resident_mib_max } in &measured.phases {
        let per_second = |batches: u64| (batches * options.batch_rows) as f64 / told.seconds;
        let _ = writeln!(
            text,
            "{:<11} {:>9.1} {:>11.0} {:>11.0} {:>9} {:>9} {:>10} {:>9} {:>9.1} {:>9.1} {:>12.0}",
            name,
            told.seconds,
            per_second(told.offered()),
            per_second(told.taken.len() as u64),
            told.requests,
            told.refusals,
            told.unanswered,
            told.withheld,
            told.latency_ms(0.5),
            told.latency_ms(0.99),
            resident_mib_max
        );
    }
    let taken: usize = measured.phases.iter().map(|phase| phase.told.taken.len()).sum();
    let rows = taken as u64 * options.batch_rows;
    let [before, _, after] = &measured.phases;
    let speed = after.told.batches_per_second() / before.told.batches_per_second();
    let _ = writeln!(
        text,
        "\npeak {:.0} MiB (limit: {:.0}); afterwards {:.0} % of the rate before (aim: {:.0} % or more); {rows} rows acknowledged",
        measured.peak_mib,
        options.memory_mib_max,
        speed * 100.0,
        SPEED_MIN * 100.0
    );
    if measured.contradictions.is_empty() {
        let _ = writeln!(text, "each acknowledged row is in the view once, and nothing else; all counts agree");
    }
    for failure in failures {
        let _ = writeln!(text, "failed: {failure}");
    }
    text
}

fn json(options: &OverloadOptions, measured: &Measured, failures: &[String]) -> Value {
    let phases = measured.phases.iter().map(|Phase { name, told, resident_mib_max }| {
        json!({
            "phase": name, "seconds": told.seconds, "batches_offered": told.offered(), "batches_taken": told.taken.len(),
            "requests": told.requests, "refusals": told.refusals, "unanswered": told.unanswered, "withheld": told.withheld,
            "p50_ms": told.latency_ms(0.5), "p99_ms": told.latency_ms(0.99), "resident_mib_max": resident_mib_max,
        })
    });
    json!({
        "benchmark": "overload", "tidegate": env!("CARGO_PKG_VERSION"), "machine": process::machine(), "factor": options.factor,
        "seconds": options.duration.as_secs_f64(), "batch_rows": options.batch_rows, "workers": options.engine.workers,
        "tick_ms": options.engine.tick_ms, "log": options.log.name(), "file_system": measured.file_system,
        "phases": phases.collect::<Vec<_>>(), "peak_mib": measured.peak_mib, "failures": failures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> OverloadOptions {
        OverloadOptions {
            duration: Duration::from_secs(100),
            factor: 3.0,
            measure: Duration::from_secs(10),
            connections: 8,
            batch_rows: 10,
            memory_mib_max: 100.0,
            engine: EngineWanted { workers: 1, tick_ms: 10 },
            log: LogWanted::Synced,
            folder: None,
            json: false,
        }
    }

    fn phase(name: &'static str, taken: u64, given_up: u64, seconds: f64) -> Phase {
        let told = Told { taken: (0..taken).collect(), given_up, seconds, ..Told::default() };
        Phase { name, told, resident_mib_max: 50.0 }
    }

    fn measured(during: u64, after: u64, peak_mib: f64, contradictions: &[&str]) -> Measured {
        let phases = [phase("before", 100, 0, 10.0), phase("overload", 900, during, 101.0), phase("afterwards", after, 0, 10.0)];
        let contradictions = contradictions.iter().map(ToString::to_string).collect();
        Measured { phases, peak_mib, contradictions, file_system: "ext4".into() }
    }

    #[test]
    fn what_fails_is_named() {
        let cases: [(Measured, &[&str]); 6] = [
            (measured(2100, 95, 99.0, &[]), &[]),
            (measured(2100, 89, 99.0, &[]), &["89 % of the rate before"]),
            (measured(2100, 95, 101.0, &[]), &["101 MiB were resident"]),
            (measured(2100, 95, f64::NAN, &[]), &["NaN MiB were resident"]),
            (measured(100, 95, 99.0, &[]), &["only 33 % of the overload"]),
            (measured(2100, 50, 120.0, &["a row is lost"]), &["a row is lost", "120 MiB", "50 %"]),
        ];
        for (measured, expected) in cases {
            let found = failures(&options(), &measured);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{found:?}");
            let text = table(&options(), &measured, &found);
            assert_eq!(text.matches("failed: ").count(), expected.len(), "{text}");
            assert_eq!(json(&options(), &measured, &found)["failures"].as_array().unwrap().len(), expected.len());
        }
    }
}
