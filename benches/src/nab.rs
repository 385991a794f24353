//! The Numenta Anomaly Benchmark: every detector over every file, scored as NAB scores.
//!
//! One engine reads all files as one source; the detectors are views over it, one OVER per length
//! of training, and what they say is read back and scored. Nothing but a row and those before it
//! reaches a score: `train` is NAB's probation, which it tells each detector, and no detector is
//! told a file's range.

mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value, json};
use tidegate::{Config, Engine};
use tidegate_types::error::{Error, Result};

use self::score::{PROFILES, Scored, best, held_out, probation};
use crate::{at, engine};

#[derive(Args)]
pub struct NabOptions {
    /// A folder in NAB's layout: `<group>/<file>.csv`, and `combined_windows.json` beside or in `labels/`
    folder: PathBuf,
    /// Timely threads
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// A column of the scores, and how it is computed. `{train}` is the file's probation, `{half}` half
/// of it, `{w}` the window.
struct Contestant {
    name: &'static str,
    what: &'static str,
    sql: &'static str,
}

/// Over the readings.
const PARTS: &str = "level_z(value, 6400) OVER {w} AS level, change_z(value, 8000) OVER {w} AS change, \
    relative_entropy(value, {train}) OVER {w} AS spread, knn_cad(value, {train}) OVER {w} AS shape, \
    anomaly_score(value, {train}) OVER {w} AS ensemble";

/// Over the parts.
const CONTESTANTS: [Contestant; 8] = [
    Contestant { name: "level_z", what: "level_z(value, 6400)", sql: "level" },
    Contestant { name: "level_z_rest", what: "the same with rest", sql: "rest(coalesce(level, 0), {half}) OVER {w}" },
    Contestant { name: "change_z", what: "change_z(value, 8000)", sql: "change" },
    Contestant { name: "change_z_rest", what: "the same with rest", sql: "rest(coalesce(change, 0), {half}) OVER {w}" },
    Contestant { name: "relative_entropy", what: "relative_entropy(value, train)", sql: "spread" },
    Contestant { name: "knn_cad", what: "knn_cad(value, train)", sql: "shape" },
    Contestant {
        name: "sum_rest",
        what: "level_z/3.9 + change_z/5.5 + 0.7 relative_entropy, with rest",
        sql: "rest(coalesce(level, 0) / 3.9 + greatest(coalesce(change, 0), 0) / 5.5 + 0.7 * coalesce(spread, 0), {half}) OVER {w}",
    },
    Contestant { name: "anomaly_score", what: "anomaly_score(value, train)", sql: "ensemble" },
];

const WINDOW: &str = "(PARTITION BY file ORDER BY seq)";

/// What a row without a score is taken for.
const NO_SCORE: f64 = f64::MIN;

struct File {
    values: Vec<String>,
    windows: Vec<RangeInclusive<usize>>,
}

pub async fn run(options: &NabOptions) -> Result<bool> {
    let files = load(&options.folder)?;
    let rows: usize = files.values().map(|file| file.values.len()).sum();
    let windows: usize = files.values().map(|file| file.windows.len()).sum();
    let started = Instant::now();
    let scores = scores(&files, options.workers).await?;
    let seconds = started.elapsed().as_secs_f64();

    let mut results = Vec::new();
    for contestant in &CONTESTANTS {
        let scored: Vec<Scored> = files
            .values()
            .zip(&scores)
            .map(|(file, scores)| Scored { scores: scores[contestant.name].clone(), windows: file.windows.clone() })
            .collect();
        results.push((contestant, PROFILES.map(|profile| (best(&scored, profile), held_out(&scored, profile)))));
    }
    if options.json {
        let lines = results.iter().map(|(contestant, scores)| {
            let scores = scores.iter().zip(PROFILES);
            let scores: Map<String, Value> = scores
                .map(|((best, held_out), profile)| {
                    (profile.name.to_string(), json!({ "score": best.score, "threshold": best.threshold, "held_out": held_out }))
                })
                .collect();
            json!({ "detector": contestant.name, "scores": scores })
        });
        println!(
            "{}",
            json!({ "files": files.len(), "rows": rows, "windows": windows, "seconds": seconds, "detectors": lines.collect::<Vec<_>>() })
        );
        return Ok(true);
    }
    let mut text = format!(
        "NAB: {} files, {rows} rows, {windows} windows; all detectors in {seconds:.1} s with {} worker(s), loading included\n\
         score: one threshold, the best over all files, as NAB has it; held out: each file by the best of the others\n\n\
         {:<62} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>10}\n",
        files.len(),
        options.workers,
        "detector",
        "standard",
        "low FP",
        "low FN",
        "held out",
        "low FP",
        "low FN",
        "threshold"
    );
    for (contestant, [standard, low_fp, low_fn]) in &results {
        let _ = writeln!(
            text,
            "{:<62} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>9.1} {:>9.1} {:>10.4}",
            contestant.what, standard.0.score, low_fp.0.score, low_fn.0.score, standard.1, low_fp.1, low_fn.1, standard.0.threshold
        );
    }
    print!("{text}");
    Ok(true)
}

/// Per file, in their order, each contestant's score of each row.
async fn scores(files: &BTreeMap<String, File>, workers: usize) -> Result<Vec<BTreeMap<&'static str, Vec<f64>>>> {
    let folder = tempfile::tempdir().map_err(|error| Error::engine(format!("no folder for the readings: {error}")))?;
    let path = folder.path().join("readings.csv");
    std::fs::write(&path, readings(files)).map_err(|error| at(&path, &error))?;
    let engine = Engine::start(Config { workers, once: true, ..Config::default() }, Arc::new(engine::connectors()))?;
    let source = format!(
        "CREATE SOURCE readings (train BIGINT, file BIGINT, seq BIGINT, value DOUBLE) WITH (connector = 'file', path = '{}', format = 'csv')",
        path.display().to_string().replace('\'', "''")
    );
    engine.execute(&source, "nab.sql").await?;
    let trains: BTreeSet<usize> = files.values().map(|file| probation(file.values.len())).collect();
    for train in &trains {
        engine.execute(&views(*train), "nab.sql").await?;
    }
    engine.start_sources().await?;
    engine.settled().await?;
    let column = |file: &File| vec![NO_SCORE; file.values.len()];
    let empty = |file: &File| CONTESTANTS.iter().map(|contestant| (contestant.name, column(file))).collect();
    let mut found: Vec<BTreeMap<&'static str, Vec<f64>>> = files.values().map(empty).collect();
    let mut read = 0;
    for train in &trains {
        for row in engine::select(&engine, &format!("SELECT * FROM scores_{train}")).await?.1 {
            let place = |name: &str| row.get(name).and_then(Value::as_u64).ok_or_else(|| Error::engine(format!("a score without {name}")));
            let (file, seq) = (place("file")? as usize, place("seq")? as usize);
            for (name, column) in &mut found[file] {
                column[seq] = row.get(*name).and_then(Value::as_f64).unwrap_or(NO_SCORE);
            }
            read += 1;
        }
    }
    engine.shutdown().await?;
    let expected: usize = files.values().map(|file| file.values.len()).sum();
    if read != expected {
        return Err(Error::engine(format!("{read} of {expected} rows have a score")));
    }
    Ok(found)
}

fn readings(files: &BTreeMap<String, File>) -> String {
    let mut text = "train,file,seq,value\n".to_string();
    for (number, file) in files.values().enumerate() {
        let train = probation(file.values.len());
        file.values.iter().enumerate().for_each(|(seq, value)| {
            let _ = writeln!(text, "{train},{number},{seq},{value}");
        });
    }
    text
}

/// The parts, and the contestants over them, for files of one probation.
fn views(train: usize) -> String {
    let filled =
        |sql: &str| sql.replace("{w}", WINDOW).replace("{train}", &train.to_string()).replace("{half}", &(train / 2).max(1).to_string());
    let contestants: Vec<String> =
        CONTESTANTS.iter().map(|contestant| format!("{} AS {}", filled(contestant.sql), contestant.name)).collect();
    format!(
        "CREATE MATERIALIZED VIEW parts_{train} AS SELECT file, seq, {} FROM readings WHERE train = {train};
         CREATE MATERIALIZED VIEW scores_{train} AS SELECT file, seq, {} FROM parts_{train};",
        filled(PARTS),
        contestants.join(", ")
    )
}

/// The files that the windows name.
fn load(folder: &Path) -> Result<BTreeMap<String, File>> {
    let beside = folder.join("combined_windows.json");
    let path = if beside.is_file() { beside } else { folder.join("labels/combined_windows.json") };
    let text = std::fs::read_to_string(&path).map_err(|error| at(&path, &error).hint("name a folder in NAB's layout"))?;
    let windows: BTreeMap<String, Vec<[String; 2]>> =
        serde_json::from_str(&text).map_err(|error| Error::user(format!("{}: {error}", path.display())))?;
    let data = if folder.join("data").is_dir() { folder.join("data") } else { folder.to_path_buf() };
    windows.into_iter().map(|(name, windows)| Ok((name.clone(), file(&data.join(&name), &windows)?))).collect()
}

fn file(path: &Path, windows: &[[String; 2]]) -> Result<File> {
    let text = std::fs::read_to_string(path).map_err(|error| at(path, &error))?;
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate().skip(1) {
        let fields = line.split_once(',').filter(|(time, value)| SECOND <= time.len() && value.trim().parse::<f64>().is_ok());
        let (time, value) = fields.ok_or_else(|| Error::user(format!("{}:{}: not a time and a number", path.display(), at + 1)))?;
        times.push(second(time));
        values.push(value.trim().to_string());
    }
    let windows = windows.iter().map(|[start, end]| {
        let (first, last) = (times.iter().position(|time| second(start) <= *time), times.iter().rposition(|time| *time <= second(end)));
        match (first, last) {
            (Some(first), Some(last)) if first < last => Ok(first..=last),
            _ => Err(Error::user(format!("{}: the window from {start} to {end} has no two rows", path.display()))),
        }
    });
    Ok(File { windows: windows.collect::<Result<_>>()?, values })
}

/// `2014-04-10 16:15:00`, and what comes behind it.
const SECOND: usize = 19;

fn second(time: &str) -> &str {
    time.get(..SECOND).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_rows_and_values_stay_as_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/real")).unwrap();
        std::fs::create_dir_all(folder.path().join("labels")).unwrap();
        let rows: String = (0..30).map(|minute| format!("2014-04-01 00:{minute:02}:00,{minute}.50\n")).collect();
        std::fs::write(folder.path().join("data/real/a.csv"), format!("timestamp,value\n{rows}")).unwrap();
        let windows = r#"{"real/a.csv": [["2014-04-01 00:10:00.000000", "2014-04-01 00:14:30.000000"]]}"#;
        std::fs::write(folder.path().join("labels/combined_windows.json"), windows).unwrap();
        let files = load(folder.path()).unwrap();
        assert_eq!(files["real/a.csv"].windows, [10..=14]);
        assert!(readings(&files).starts_with("train,file,seq,value\n4,0,0,0.50\n4,0,1,1.50\n"));
    }

    #[test]
    fn what_is_no_reading_is_named_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,one\n").unwrap();
        let Err(error) = file(&path, &[]) else { panic!("'one' is no number") };
        assert!(error.to_string().contains("a.csv:3: not a time and a number"), "{error}");
    }
}
