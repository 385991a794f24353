//! Tidegate's benchmarks, through the public door only.
//!
//! In reading order: [`nexmark`] runs the suite's queries from file to settled
//! result; [`cascade`] changes one edge of a dependency graph at a time, also while all single failures are followed;
//! [`behaviour`] follows a million open cases; [`sensors`] judges readings; [`nab`] and [`skab`] score the
//! detectors of anomalies on labelled series; [`overload`] brings more than can be
//! taken, and [`durability`] says what the log costs.
//! [`engine`] starts what is measured, [`process`] measures it from outside,
//! [`served`] keeps it behind its HTTP door, where [`load`] brings it rows and
//! [`ledger`] keeps account: these two, [`door`] and [`memory`] are the tests' own.
//! [`duckdb`] recomputes it, [`stats`] sums it up. README.md has the method.

mod behaviour;
mod cascade;
#[path = "../../engine/server/tests/faults/door.rs"]
mod door;
mod duckdb;
mod durability;
mod engine;
#[path = "../../engine/server/tests/faults/ledger.rs"]
mod ledger;
#[path = "../../engine/server/tests/faults/load.rs"]
mod load;
#[path = "../../engine/server/tests/faults/memory.rs"]
mod memory;
mod nab;
mod nexmark;
mod overload;
mod process;
mod sensors;
mod served;
mod skab;
mod stats;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use tidegate_types::error::{Error, Result};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "tidegate-benches", about = "Tidegate's benchmarks")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The Nexmark queries, each from file to settled result
    Nexmark(nexmark::NexmarkOptions),
    /// One edge of a dependency graph changes: how soon the cascade view shows it
    Cascade(cascade::CascadeOptions),
    /// The same while it is known of each node what its failure would take with it
    WhatIf(cascade::WhatIfOptions),
    /// Cases followed against a protocol: events per second, and memory per open case
    Behaviour(behaviour::BehaviourOptions),
    /// Readings of many series judged as they come: readings per second, and memory per series
    Sensors(sensors::SensorOptions),
    /// The Numenta Anomaly Benchmark's scores of each detector
    Nab(nab::NabOptions),
    /// F1, FAR and MAR on the Skoltech Anomaly Benchmark
    Skab(skab::SkabOptions),
    /// More than the engine can take: memory, conservation, and the speed afterwards
    Overload(overload::OverloadOptions),
    /// What the log costs: throughput, latency, and the time of a recovery
    Durability(durability::DurabilityOptions),
    /// One run of one query, in a process of its own so that its memory is its own
    #[command(hide = true)]
    OneQuery(nexmark::OneQuery),
    #[command(hide = true)]
    OneCascade(cascade::OneCascade),
    #[command(hide = true)]
    OneBehaviour(behaviour::OneBehaviour),
    #[command(hide = true)]
    OneSensors(sensors::OneSensors),
    #[command(hide = true)]
    OneEngine(served::OneEngine),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Nexmark(options) => nexmark::run(&options),
        Command::Cascade(options) => cascade::run(&options),
        Command::WhatIf(options) => cascade::what_if(options),
        Command::Behaviour(options) => behaviour::run(&options),
        Command::Sensors(options) => sensors::run(&options),
        Command::Nab(options) => wait(nab::run(&options)),
        Command::Skab(options) => wait(skab::run(&options)),
        Command::Overload(options) => overload::run(&options),
        Command::Durability(options) => durability::run(&options),
        Command::OneEngine(one) => wait(served::one(&one)),
        Command::OneQuery(one) => answer(nexmark::one(&one)),
        Command::OneCascade(one) => answer(cascade::one(&one)),
        Command::OneBehaviour(one) => answer(behaviour::one(&one)),
        Command::OneSensors(one) => answer(sensors::one(&one)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs `measured` to its end, and tells the process that asked.
fn answer<T: Serialize>(measured: impl Future<Output = Result<T>>) -> Result<bool> {
    let told = match wait(measured) {
        Ok(value) => serde_json::json!({ "done": value }),
        Err(error) => serde_json::json!({ "error": error.to_string() }),
    };
    println!("{told}");
    Ok(true)
}

fn wait<T>(measured: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::engine(format!("threads cannot be started: {error}")))?;
    runtime.block_on(measured)
}

/// An error of the file system, by the path it is about.
fn at(path: &Path, error: &std::io::Error) -> Error {
    Error::user(format!("{}: {error}", path.display()))
}
