//! Every `.slt` of this crate, with one worker and with two.
//!
//! `TIDEGATE_REWRITE=1 cargo test --test slt` writes what is answered into the
//! files; read the diff before committing. The SSH pack is besides compared
//! with what others found in the same log, where `TIDEGATE_DATA` names the
//! folder that holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate::output::{Format, format};
use tidegate::pack::{Pack, entries};
use tidegate::test::{Setup, run_file};
use tidegate::{Config, Engine, Inbox, Registry, Response};

const WORKERS: [usize; 2] = [1, 2];

#[tokio::test(flavor = "multi_thread")]
async fn language() {
    run_folder("language", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors() {
    run_folder("errors", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bank() {
    run_folder("pilots/bank", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pharma() {
    run_folder("pilots/pharma", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logistics() {
    run_folder("pilots/logistics", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn combined() {
    run_folder("pilots/combined", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    run_folder("library/transactions", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impact() {
    run_folder("library/impact", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn risk() {
    run_folder("library/risk", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh() {
    run_folder("examples/ssh", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_to_payment() {
    run_folder("examples/order_to_payment", true).await;
}

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs all files of a folder; fails with all that differs.
async fn run_folder(folder: &str, is_pack: bool) {
    let folder = crate_folder().join(folder);
    let files: Vec<PathBuf> = entries(&folder).expect("the folder can be read").into_iter().filter(|path| is_slt(path)).collect();
    assert!(!files.is_empty(), "{} holds no .slt file", folder.display());
    let is_rewriting = std::env::var("TIDEGATE_REWRITE").is_ok_and(|value| value == "1");
    let mut failures = Vec::new();
    for workers in WORKERS {
        for file in &files {
            // Rewritten by the first, held against it by the second.
            let rewrite = is_rewriting && workers == WORKERS[0];
            if let Err(reason) = run_file(file, &setup(&folder, is_pack, workers), rewrite).await {
                failures.push(format!("{} with {workers} workers:\n{reason}", file.display()));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}\n{} runs failed", failures.join("\n\n"), failures.len());
}

fn is_slt(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "slt")
}

fn setup(folder: &Path, is_pack: bool, workers: usize) -> Setup {
    if !is_pack {
        return Setup { files: Vec::new(), variables: BTreeMap::new(), workers };
    }
    let pack = Pack::load(folder).expect("the pack can be read");
    let unset = pack.unset().into_iter().map(|name| (name, "unset".to_string()));
    let variables = pack.variables.clone().into_iter().chain(unset).collect();
    Setup { files: pack.files, variables, workers }
}

// The log and its reading by hand come from Loghub. Its CSV has a line's
// template beside its text; which lines count is read off the templates, and
// what is counted off the text, without any of the pack's patterns.
#[tokio::test(flavor = "multi_thread")]
async fn ssh_counts_agree_with_the_structured_log() {
    let Some(data) = std::env::var_os("TIDEGATE_DATA").map(PathBuf::from) else {
        eprintln!("skipped: TIDEGATE_DATA does not name the folder that holds loghub/");
        return;
    };
    let log = data.join("loghub/OpenSSH_2k.log");
    let structured = data.join("loghub/OpenSSH_2k.log_structured.csv");
    if !log.exists() || !structured.exists() {
        eprintln!("skipped: {} is not there", log.display());
        return;
    }
    let expected = Counts::read(&structured);
    assert_eq!((expected.failed_lines, expected.failures.len(), expected.failures.values().sum::<u64>()), (520, 23, 528));
    assert_eq!((expected.break_ins, expected.invalid), (85, 113));
    for workers in WORKERS {
        let answers = answers(&log, workers).await;
        let failures = answers[0].iter().map(|row| (row[0].clone(), (number(&row[1]), number(&row[2]))));
        let users = |ip: &String| expected.users.get(ip).map_or(0, |users| users.len() as u64);
        let hand = expected.failures.iter().map(|(ip, failures)| (ip.clone(), (*failures, users(ip))));
        assert_eq!(
            failures.collect::<BTreeMap<_, _>>(),
            hand.collect::<BTreeMap<_, _>>(),
            "failures and users per source, {workers} workers"
        );
        assert_eq!(number(&answers[1][0][0]), expected.break_ins, "break-in warnings, {workers} workers");
        assert_eq!(number(&answers[2][0][0]), expected.invalid, "invalid users, {workers} workers");
        let guessing: BTreeSet<&String> = answers[3].iter().map(|row| &row[0]).collect();
        let hand = expected.failures.iter().filter(|(_, failures)| 20 <= **failures).map(|(ip, _)| ip);
        assert_eq!(guessing, hand.collect::<BTreeSet<_>>(), "sources that guess passwords, {workers} workers");
    }
}

/// What the CSV says.
#[derive(Default)]
struct Counts {
    failed_lines: u64,
    failures: BTreeMap<String, u64>,
    users: BTreeMap<String, BTreeSet<String>>,
    break_ins: u64,
    invalid: u64,
}

impl Counts {
    fn read(csv: &Path) -> Self {
        let text = std::fs::read_to_string(csv).expect("the CSV can be read");
        let mut counts = Self::default();
        for line in text.lines().skip(1) {
            let cells = cells(line);
            let (content, template) = (&cells[6], &cells[8]);
            if template.contains("Failed password for ") {
                counts.failed(content);
            }
            counts.break_ins += u64::from(template.contains("POSSIBLE BREAK-IN ATTEMPT!"));
            counts.invalid += u64::from(template.starts_with("Invalid user "));
        }
        counts
    }

    fn failed(&mut self, content: &str) {
        let (before, after) = content.split_once("Failed password for ").expect("as its template");
        // "message repeated 5 times: [ "
        let times = before.split(' ').nth(2).map_or(1, number);
        let (who, after) = after.rsplit_once(" from ").expect("as its template");
        let (ip, _) = after.split_once(" port ").expect("as its template");
        let user = who.strip_prefix("invalid user ").unwrap_or(who);
        self.failed_lines += 1;
        *self.failures.entry(ip.to_string()).or_default() += times;
        self.users.entry(ip.to_string()).or_default().insert(user.to_string());
    }
}

/// A line's cells; in quoted ones `""` is a quote.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => cells.last_mut().expect("one at least").push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            other => cells.last_mut().expect("one at least").push(other),
        }
    }
    cells
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("'{text}' is not a number"))
}

/// The pack's views after it read the log once.
async fn answers(log: &Path, workers: usize) -> Vec<Vec<Vec<String>>> {
    let mut pack = Pack::load(&crate_folder().join("examples/ssh")).expect("the pack can be read");
    let log = log.canonicalize().expect("it exists");
    pack.variables.insert("LOG".into(), log.to_str().expect("a path in UTF-8").into());
    let config = Config {
        workers,
        tick: Duration::from_millis(20),
        once: true,
        folder: pack.folder.clone(),
        variables: pack.variables.clone(),
        ..Config::default()
    };
    let engine = Engine::start(config, Arc::new(Registry::new(Inbox::default()))).expect("the engine starts");
    for (file, sql) in &pack.files {
        engine.execute(sql, file).await.unwrap_or_else(|error| panic!("{error}"));
    }
    engine.start_sources().await.expect("the log is read");
    engine.settled().await.expect("the log ends");
    let mut answers = Vec::new();
    for sql in [
        "SELECT ip, failures, users FROM failed_by_ip",
        "SELECT sum(warnings) AS n FROM break_in_attempt",
        "SELECT sum(attempts) AS n FROM invalid_users",
        "SELECT ip FROM password_guessing",
    ] {
        let Some(Response::Rows { batches, schema, .. }) = engine.execute(sql, "test").await.expect("the query is answered").pop() else {
            panic!("{sql} answers no rows")
        };
        let csv = format(Format::Csv, &schema, &batches).expect("the rows can be printed");
        answers.push(csv.lines().skip(1).map(cells).collect());
    }
    engine.shutdown().await.expect("the engine stops");
    answers
}
