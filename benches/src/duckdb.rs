//! DuckDB over the same data, one-shot: what "just recompute it" costs.
//!
//! Needs     python3 with the package duckdb; left out where there is none
//! Measures  a query from its text to its last row, in a process of its own,
//!           all columns computed and discarded; not the start of Python

use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_types::error::{Error, Result};

use crate::process;

const SCRIPT: &str = include_str!("recompute.py");
/// As many as the machine had that the peers were measured on.
const THREADS: usize = 2;
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Where it is installed
    Auto,
    /// It must be installed
    On,
    Off,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recomputed {
    pub version: String,
    pub seconds: f64,
    pub rows: u64,
    pub peak_mib: f64,
    /// Of the whole process per run, start and set-up included.
    pub cpu_seconds: f64,
    /// What the check asked for, by column.
    pub check: Option<Map<String, Value>>,
}

pub struct DuckDb {
    python: String,
}

/// One question to it.
pub struct Question<'a> {
    /// Statements that make the relations; not measured.
    pub setup: &'a str,
    pub query: &'a str,
    pub runs: usize,
    /// A query over the result, named `answer`.
    pub check: Option<String>,
}

impl DuckDb {
    /// None where it is not wanted, or not there and not insisted on.
    pub fn find(wanted: Wanted, python: &str) -> Result<Option<Self>> {
        if wanted == Wanted::Off {
            return Ok(None);
        }
        let found = process::ask(Command::new(python).args(["-c", "import duckdb; print(1)"]), "", START_LIMIT);
        match (found, wanted) {
            (Ok(_), _) => Ok(Some(Self { python: python.into() })),
            (Err(_), Wanted::Auto) => {
                eprintln!("DuckDB is left out: {python} has no package duckdb (pip install duckdb)");
                Ok(None)
            }
            (Err(error), _) => Err(Error::user(format!("{python} cannot import duckdb: {error}")).hint("pip install duckdb")),
        }
    }

    pub fn ask(&self, question: &Question, limit: Duration) -> Result<Recomputed> {
        let request = json!({
            "setup": question.setup, "query": question.query, "threads": THREADS,
            "runs": question.runs.max(1), "check": question.check,
        });
        let told = process::ask(Command::new(&self.python).args(["-c", SCRIPT]), &request.to_string(), limit)?;
        process::parsed(told)
    }
}
