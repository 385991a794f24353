//! What was measured, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::data::{self, Data};
use super::queries::{self, Query};
use super::{Measured, Run};
use crate::duckdb::Recomputed;
use crate::process;
use crate::stats::geometric_mean;

/// What issue 2 asks for: Flink's seconds over ours, at least.
const FLINK_RATIO_MIN: f64 = 5.0;
/// Our seconds over DuckDB's, at most, in the geometric mean.
const DUCKDB_RATIO_MAX: f64 = 2.0;
const PEAK_MIB_MAX: f64 = 2048.0;

pub struct Report<'a> {
    pub data: &'a Data,
    pub runs: &'a [Run],
    /// By query; empty without DuckDB.
    pub recomputed: &'a BTreeMap<&'static str, Result<Recomputed, String>>,
    pub checked: bool,
    pub tick_ms: u64,
}

/// One run beside what others needed.
struct Line<'a> {
    query: &'static Query,
    workers: usize,
    measured: &'a Measured,
    recomputed: Option<&'a Recomputed>,
    /// Seconds over DuckDB's: below 1 is faster.
    over_duckdb: Option<f64>,
    /// Flink's seconds over ours: above 1 is faster. None for other numbers of events than Flink had.
    under_flink: Option<f64>,
}

impl<'a> Report<'a> {
    fn line(&self, run: &'a Run) -> Option<Line<'a>> {
        let query = queries::ALL.iter().find(|query| query.name == run.query)?;
        let measured = run.outcome.as_ref().ok()?;
        let recomputed = self.recomputed.get(run.query).and_then(|told| told.as_ref().ok());
        Some(Line {
            query,
            workers: run.workers,
            measured,
            recomputed,
            over_duckdb: recomputed.map(|recomputed| measured.seconds / recomputed.seconds),
            under_flink: (self.data.manifest.events == data::EVENTS).then(|| query.flink_seconds / measured.seconds),
        })
    }

    pub fn table(&self) -> String {
        let mut text = self.head();
        let _ = writeln!(
            text,
            "{:<5} {:>7} {:>8} {:>11} {:>9} {:>9} {:>9} {:>7} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9}",
            "query",
            "workers",
            "seconds",
            "events/s",
            "p50 ms",
            "p99 ms",
            "peak MiB",
            "CPU s",
            "changes",
            "rows",
            "DuckDB s",
            "× DuckDB",
            "Flink s",
            "vs Flink"
        );
        for run in self.runs {
            let _ = match (self.line(run), &run.outcome) {
                (Some(line), _) => writeln!(text, "{}", line.text()),
                (None, Err(error)) => writeln!(text, "{:<5} {:>7} failed: {}", run.query, run.workers, error.replace('\n', "; ")),
                (None, Ok(_)) => Ok(()),
            };
        }
        for (query, told) in self.recomputed {
            if let Err(error) = told {
                let _ = writeln!(text, "{query}: DuckDB failed: {}", error.replace('\n', "; "));
            }
        }
        for run in self.runs {
            for doubt in run.outcome.iter().flat_map(|measured| &measured.doubts) {
                let _ = writeln!(text, "in doubt: {} at {} worker(s): {doubt}", run.query, run.workers);
            }
        }
        text.push('\n');
        for workers in self.worker_counts() {
            text += &self.summary(workers);
        }
        text
    }

    fn head(&self) -> String {
        let manifest = &self.data.manifest;
        let version = self.recomputed.values().flatten().next().map_or("none".into(), |recomputed| recomputed.version.clone());
        let mode = if self.checked { "results kept and compared with DuckDB" } else { "results discarded" };
        format!(
            "Nexmark, {} events ({} persons, {} auctions, {} bids), tick {} ms, {mode}\n\
             {}; DuckDB {version} with 2 threads in this run; Flink measured elsewhere, see benches/README.md\n\n",
            manifest.events,
            manifest.person.rows,
            manifest.auction.rows,
            manifest.bid.rows,
            self.tick_ms,
            process::machine()
        )
    }

    fn worker_counts(&self) -> Vec<usize> {
        let mut counts: Vec<usize> = self.runs.iter().map(|run| run.workers).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    fn lines(&self, workers: usize) -> Vec<Line<'a>> {
        self.runs.iter().filter(|run| run.workers == workers).filter_map(|run| self.line(run)).collect()
    }

    fn summary(&self, workers: usize) -> String {
        let lines = self.lines(workers);
        let all = self.runs.iter().filter(|run| run.workers == workers).count();
        let means = Means::of(&lines);
        let mut text = format!("{workers} worker(s): {} of {all} queries done", lines.len());
        if let Some(ratio) = means.over_duckdb {
            let _ = write!(text, "; {ratio:.2} × DuckDB's time in the geometric mean (aim: {DUCKDB_RATIO_MAX} or less)");
        }
        if let Some(ratio) = means.under_flink {
            let fast = lines.iter().filter(|line| line.under_flink.is_some_and(|ratio| FLINK_RATIO_MIN <= ratio)).count();
            let _ = write!(text, "; {ratio:.1} × Flink's rate in the geometric mean, {FLINK_RATIO_MIN} × or more in {fast} (aim: all)");
        }
        let small = lines.iter().filter(|line| line.measured.peak_mib <= PEAK_MIB_MAX).count();
        let _ = writeln!(text, "; {PEAK_MIB_MAX} MiB or less in {small} (aim: all)");
        text
    }

    pub fn json(&self) -> Value {
        let runs: Vec<Value> = self.runs.iter().map(|run| self.run_json(run)).collect();
        let means: Vec<Value> = self
            .worker_counts()
            .into_iter()
            .map(|workers| {
                let means = Means::of(&self.lines(workers));
                json!({
                    "workers": workers, "seconds": means.seconds,
                    "seconds_over_duckdb": means.over_duckdb, "flink_seconds_over_ours": means.under_flink,
                })
            })
            .collect();
        let recomputed = self.recomputed.iter().map(|(query, told)| {
            let told = match told {
                Ok(recomputed) => json!(recomputed),
                Err(error) => json!({ "error": error }),
            };
            (query.to_string(), told)
        });
        json!({
            "benchmark": "nexmark", "tidegate": env!("CARGO_PKG_VERSION"), "machine": process::machine(),
            "data": &self.data.manifest, "tick_ms": self.tick_ms, "checked": self.checked,
            "runs": runs, "duckdb": recomputed.collect::<serde_json::Map<_, _>>(), "geometric_means": means,
        })
    }

    fn run_json(&self, run: &'a Run) -> Value {
        let mut value = match &run.outcome {
            Ok(measured) => json!(measured),
            Err(error) => json!({ "error": error }),
        };
        value["query"] = json!(run.query);
        value["workers"] = json!(run.workers);
        if let Some(line) = self.line(run) {
            value["rows_per_second"] = json!(line.rate());
            value["seconds_over_duckdb"] = json!(line.over_duckdb);
            value["flink_seconds"] = json!(line.query.flink_seconds);
            value["flink_seconds_over_ours"] = json!(line.under_flink);
        }
        value
    }
}

impl Line<'_> {
    fn rate(&self) -> f64 {
        self.measured.rows_read as f64 / self.measured.seconds
    }

    fn text(&self) -> String {
        let measured = self.measured;
        let optional = |value: Option<f64>, digits: usize| value.map_or("–".to_string(), |value| format!("{value:.digits$}"));
        let rows = self.recomputed.map_or("–".to_string(), |recomputed| recomputed.rows.to_string());
        format!(
            "{:<5} {:>7} {:>8.2} {:>11.0} {:>9} {:>9} {:>9.0} {:>7.1} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9}",
            self.query.name,
            self.workers,
            measured.seconds,
            self.rate(),
            optional(measured.ticks.p50_ms, 1),
            optional(measured.ticks.p99_ms, 1),
            measured.peak_mib,
            measured.cpu_seconds,
            measured.changes,
            rows,
            optional(self.recomputed.map(|recomputed| recomputed.seconds), 2),
            optional(self.over_duckdb, 2),
            optional(self.under_flink.map(|_| self.query.flink_seconds), 2),
            optional(self.under_flink, 1)
        )
    }
}

/// Geometric means over the queries that have the ratio.
struct Means {
    seconds: Option<f64>,
    over_duckdb: Option<f64>,
    under_flink: Option<f64>,
}

impl Means {
    fn of(lines: &[Line]) -> Self {
        let mean = |value: &dyn Fn(&Line) -> Option<f64>| geometric_mean(&lines.iter().filter_map(value).collect::<Vec<_>>());
        Self {
            seconds: mean(&|line| Some(line.measured.seconds)),
            over_duckdb: mean(&|line| line.over_duckdb),
            under_flink: mean(&|line| line.under_flink),
        }
    }
}
