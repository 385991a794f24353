//! SKAB, the Skoltech Anomaly Benchmark: Hotelling's T² over eight sensors of a water pump.
//!
//! Per file the first 400 rows are the model, as SKAB has it, and silent; a row alarms where the
//! median of the last five rows is above a multiple of the limit for 99.9 %. All files' rows are
//! counted together: F1, FAR (false alarms of normal rows) and MAR (missed of anomalous rows).
//!
//! Counted twice. SKAB scores whole files, so its model's own rows, which hardly ever alarm, are
//! among the normal ones: `all`. What a detector is worth on rows it has not seen is `judged`:
//! those behind the model.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tidegate::{Config, Engine};
use tidegate_types::error::{Error, Result};

use crate::{at, engine};

#[derive(Args)]
pub struct SkabOptions {
    /// A folder with SKAB's files, also in folders below
    folder: PathBuf,
    /// Timely threads
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// For machines
    #[arg(long)]
    json: bool,
}

const TRAIN: usize = 400;
const SENSORS: usize = 8;
const SMOOTHED: usize = 5;
/// Of the limit: as SKAB's notebook has it, and as it is.
const MULTIPLES: [f64; 2] = [2.0, 1.0];
/// Which rows of a file are counted, from where on.
const COUNTED: [(&str, usize); 2] = [("all", 0), ("judged", TRAIN)];

struct File {
    /// The sensors' texts, one behind the other.
    rows: Vec<String>,
    is_anomaly: Vec<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    found: u64,
    missed: u64,
    false_alarms: u64,
    silent: u64,
}

pub async fn run(options: &SkabOptions) -> Result<bool> {
    let files = load(&options.folder)?;
    let rows: usize = files.iter().map(|file| file.rows.len()).sum();
    let started = Instant::now();
    let ratios = ratios(&files, options.workers).await?;
    let seconds = started.elapsed().as_secs_f64();
    let results = MULTIPLES.map(|multiple| COUNTED.map(|(counted, from)| (multiple, counted, count(&files, &ratios, multiple, from))));
    let results = results.as_flattened();
    if options.json {
        let line = |(multiple, counted, counts): &(f64, &str, Counts)| {
            let (f1, far, mar) = (counts.f1(), counts.far(), counts.mar());
            json!({ "detector": "hotelling_t2", "limits": multiple, "counted": counted, "f1": f1, "far": far, "mar": mar })
        };
        let lines: Vec<Value> = results.iter().map(line).collect();
        println!("{}", json!({ "files": files.len(), "rows": rows, "seconds": seconds, "detectors": lines }));
        return Ok(true);
    }
    let mut text = format!(
        "SKAB: {} files, {rows} rows; {seconds:.1} s with {} worker(s), loading included\n\n{:<36} {:<7} {:>6} {:>7} {:>7}\n",
        files.len(),
        options.workers,
        "detector",
        "counted",
        "F1",
        "FAR %",
        "MAR %"
    );
    for (multiple, counted, counts) in results {
        let name = format!("hotelling_t2({TRAIN}, …) above {multiple} limits");
        let _ = writeln!(text, "{name:<36} {counted:<7} {:>6.3} {:>7.2} {:>7.2}", counts.f1(), 100.0 * counts.far(), 100.0 * counts.mar());
    }
    print!("{text}");
    Ok(true)
}

/// Of all files, each `from` this row on.
fn count(files: &[File], ratios: &[Vec<f64>], multiple: f64, from: usize) -> Counts {
    let mut counts = Counts::default();
    for (file, ratios) in files.iter().zip(ratios) {
        let alarms = alarms(ratios, multiple);
        let from = from.min(alarms.len());
        counts.add(&alarms[from..], &file.is_anomaly[from..]);
    }
    counts
}

impl Counts {
    fn add(&mut self, alarms: &[bool], is_anomaly: &[bool]) {
        for pair in alarms.iter().zip(is_anomaly) {
            match pair {
                (true, true) => self.found += 1,
                (false, true) => self.missed += 1,
                (true, false) => self.false_alarms += 1,
                (false, false) => self.silent += 1,
            }
        }
    }

    fn f1(&self) -> f64 {
        share(2 * self.found, self.false_alarms + self.missed)
    }

    fn far(&self) -> f64 {
        share(self.false_alarms, self.silent)
    }

    fn mar(&self) -> f64 {
        share(self.missed, self.found)
    }
}

/// Of both together; 0 of nothing.
fn share(part: u64, others: u64) -> f64 {
    if part == 0 { 0.0 } else { part as f64 / (part + others) as f64 }
}

/// A row alarms where most of the last five are above; the first four never do.
fn alarms(ratios: &[f64], multiple: f64) -> Vec<bool> {
    let above = |at: usize| ratios[at] > multiple;
    (0..ratios.len()).map(|at| SMOOTHED <= at + 1 && SMOOTHED / 2 < (at + 1 - SMOOTHED..=at).filter(|at| above(*at)).count()).collect()
}

/// Per file, T² over its limit for each row; 0 while training.
async fn ratios(files: &[File], workers: usize) -> Result<Vec<Vec<f64>>> {
    let folder = tempfile::tempdir().map_err(|error| Error::engine(format!("no folder for the readings: {error}")))?;
    let path = folder.path().join("readings.csv");
    let names: Vec<String> = (0..SENSORS).map(|i| format!("s{i}")).collect();
    let mut text = format!("file,seq,{}\n", names.join(","));
    for (number, file) in files.iter().enumerate() {
        file.rows.iter().enumerate().for_each(|(seq, row)| {
            let _ = writeln!(text, "{number},{seq},{row}");
        });
    }
    std::fs::write(&path, text).map_err(|error| at(&path, &error))?;
    let engine = Engine::start(Config { workers, once: true, ..Config::default() }, Arc::new(engine::connectors()))?;
    let statements = format!(
        "CREATE SOURCE readings (file BIGINT, seq BIGINT, {} DOUBLE) WITH (connector = 'file', path = '{}', format = 'csv');
         CREATE MATERIALIZED VIEW scores AS SELECT file, seq,
           hotelling_t2({TRAIN}, {}) OVER (PARTITION BY file ORDER BY seq) / t2_limit({SENSORS}, {TRAIN}, 0.999) AS ratio FROM readings;",
        names.join(" DOUBLE, "),
        path.display().to_string().replace('\'', "''"),
        names.join(", ")
    );
    engine.execute(&statements, "skab.sql").await?;
    engine.start_sources().await?;
    engine.settled().await?;
    let mut found: Vec<Vec<f64>> = files.iter().map(|file| vec![0.0; file.rows.len()]).collect();
    let mut read = 0;
    for row in engine::select(&engine, "SELECT * FROM scores").await?.1 {
        let place = |name: &str| row.get(name).and_then(Value::as_u64).ok_or_else(|| Error::engine(format!("a score without {name}")));
        found[place("file")? as usize][place("seq")? as usize] = row.get("ratio").and_then(Value::as_f64).unwrap_or(0.0);
        read += 1;
    }
    engine.shutdown().await?;
    let expected: usize = files.iter().map(|file| file.rows.len()).sum();
    if read != expected {
        return Err(Error::engine(format!("{read} of {expected} rows have a score")));
    }
    Ok(found)
}

/// All files below `folder` that have a column `anomaly`, in the order of their paths.
fn load(folder: &Path) -> Result<Vec<File>> {
    let (mut open, mut paths) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| at(&folder, &error))? {
            let path = entry.map_err(|error| at(&folder, &error))?.path();
            match path.extension() {
                _ if path.is_dir() => open.push(path),
                Some(extension) if extension == "csv" => paths.push(path),
                _ => {}
            }
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
        files.extend(file(&text, &path)?);
    }
    if files.is_empty() {
        return Err(Error::user(format!("{}: no file has a column anomaly", folder.display())).hint("name SKAB's folder data"));
    }
    Ok(files)
}

/// `datetime;…eight sensors…;anomaly;changepoint`. None: without labels, such as the anomaly-free one.
fn file(text: &str, path: &Path) -> Result<Option<File>> {
    let header: Vec<&str> = text.lines().next().unwrap_or_default().split(';').collect();
    if header.get(SENSORS + 1) != Some(&"anomaly") {
        return Ok(None);
    }
    let mut file = File { rows: Vec::new(), is_anomaly: Vec::new() };
    for (at, line) in text.lines().enumerate().skip(1) {
        let fields: Vec<&str> = line.split(';').collect();
        let numbers = fields.get(1..=SENSORS + 1).filter(|fields| fields.iter().all(|field| field.parse::<f64>().is_ok()));
        let numbers = numbers.ok_or_else(|| Error::user(format!("{}:{}: not eight readings and a label", path.display(), at + 1)))?;
        file.rows.push(numbers[..SENSORS].join(","));
        file.is_anomaly.push(numbers[SENSORS].parse::<f64>().is_ok_and(|label| label != 0.0));
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_five_follows_two_rows_behind() {
        let ratios = [9.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0];
        let expected = [false, false, false, false, true, true, false, false, false, false];
        assert_eq!(alarms(&ratios, 1.0), expected);
        assert_eq!(alarms(&ratios, 9.0), [false; 10]);
    }

    #[test]
    fn the_counts_are_by_the_book() {
        let mut counts = Counts::default();
        counts.add(&[true, true, false, false, false, true], &[true, false, true, false, false, true]);
        assert_eq!(counts, Counts { found: 2, missed: 1, false_alarms: 1, silent: 2 });
        assert_eq!((counts.f1(), counts.far(), counts.mar()), (4.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0));
        assert_eq!(Counts::default().f1(), 0.0);
    }

    #[test]
    fn rows_of_the_model_are_normal_ones_only_where_all_are_counted() {
        let file = File { rows: Vec::new(), is_anomaly: [vec![false; TRAIN + 5], vec![true; 5]].concat() };
        let ratios = [vec![0.0; TRAIN], vec![9.0; 10]].concat();
        let counts = |from| count(std::slice::from_ref(&file), std::slice::from_ref(&ratios), 1.0, from);
        let all = Counts { found: 5, missed: 0, false_alarms: 3, silent: TRAIN as u64 + 2 };
        assert_eq!((counts(0), counts(TRAIN)), (all, Counts { silent: 2, ..all }));
        // A file that is shorter than its model.
        assert_eq!(counts(TRAIN + 99), Counts::default());
    }

    #[test]
    fn a_file_without_labels_is_none_of_the_benchmark() {
        let path = Path::new("a.csv");
        assert!(file("datetime;a;b\n2020;1;2\n", path).unwrap().is_none());
        let header = "datetime;a;b;c;d;e;f;g;h;anomaly;changepoint";
        let found = file(&format!("{header}\n2020;1;2;3;4;5;6;7;8;1.0;0.0\n"), path).unwrap().unwrap();
        assert_eq!((found.rows, found.is_anomaly), (vec!["1,2,3,4,5,6,7,8".to_string()], vec![true]));
        assert!(file(&format!("{header}\n2020;1;2;x;4;5;6;7;8;1.0;0.0\n"), path).is_err());
    }
}
