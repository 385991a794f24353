//! A changed pack that only its rows refuse: nobody outside hears of it, whenever its starts are killed, and the old
//! one goes on as if there had been none.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::door::{Request, ask, exchange};
use super::full::until;
use super::overload::Running;

const PACK: &str = "
    CREATE SOURCE posts (n BIGINT) WITH (connector = 'http');
    CREATE TABLE limits (id BIGINT PRIMARY KEY, most BIGINT);
    INSERT INTO limits VALUES (1, 10), (2, 20);
    CREATE MATERIALIZED VIEW low AS SELECT id, most FROM limits WHERE most < 15;
    CREATE DETECTION tight WITH (severity = 'low', entity = 'id') AS SELECT id, most FROM limits WHERE most < 15;
    CREATE SINK told FROM low WITH (connector = 'file', path = 'told.jsonl');
    CREATE ACTION hold FROM tight WITH (connector = 'webhook', url = 'http://127.0.0.1:9/hold', mode = 'dry_run');";

const REFUSED: [(&str, &str); 4] = [
    ("INSERT INTO limits SELECT id, most FROM limits WHERE id = 1", "duplicate value for the primary key of table \"limits\": 1"),
    ("UPDATE limits SET id = 2 WHERE id = 1", "duplicate value for the primary key of table \"limits\": 2"),
    ("INSERT INTO limits SELECT id + 10, 1 / (id - 1) FROM limits", "divide by zero"),
    ("INSERT INTO limits SELECT 1, 1 FROM (SELECT count(*) AS n FROM low) AS c WHERE n = 0", "duplicate value"),
];

const ASKED: &str = "SELECT id, state, kind, finding FROM sys.actions ORDER BY tick";

const STOPPED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn what_only_rows_refuse_is_not_heard_of_outside() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    fs::create_dir(&pack).unwrap();
    let write = |name: &str, text: &str| fs::write(pack.join(name), text).unwrap();
    let told = || fs::read_to_string(pack.join("told.jsonl")).unwrap_or_default();
    write("10_all.sql", PACK);
    let engine = Running::start(folder.path());
    execute(&engine, "INSERT INTO limits VALUES (3, 5)");
    until("both are told", || told().lines().count() == 2);
    until("one is acted upon", || asked(&engine).iter().any(|row| row["state"] == "dry_run"));
    let (told_before, asked_before) = (told(), asked(&engine));
    stop(engine);

    // No row is low any more.
    let changed = PACK.replace("most < 15", "most < 1");
    for (statement, because) in REFUSED {
        write("10_all.sql", &format!("{changed}\n{statement};"));
        let left = copies(folder.path());
        let refused = start(folder.path()).output().unwrap();
        let refusal = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{statement}: {refusal}");
        assert!(refusal.contains("10_all.sql:9:1: ") && refusal.contains(because), "{statement}: {refusal}");
        assert_eq!(told(), told_before, "{statement}");
        assert_eq!(copies(folder.path()), left, "{statement}");
        for lived_ms in [20, 80, 160, 320] {
            let mut killed = start(folder.path()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(lived_ms));
            // It may have ended by itself.
            let _ = killed.kill();
            killed.wait().unwrap();
            assert_eq!(told(), told_before, "{statement}, killed after {lived_ms} ms");
        }
    }

    write("10_all.sql", PACK);
    let engine = Running::start(folder.path());
    execute(&engine, "INSERT INTO limits VALUES (4, 6)");
    until("what came since is told", || told_before.len() < told().len());
    until("what came since is acted upon", || asked(&engine).len() == 2);
    let (told_since, asked_since) = (told(), asked(&engine));
    let news = told_since.strip_prefix(&told_before).expect("what was told before stays");
    assert_eq!(changes(news), [("insert".into(), 4, 6)]);
    assert_eq!(asked_since[..1], asked_before);
    stop(engine);

    // What its rows do not refuse is carried out, once.
    write("20_more.sql", "CREATE VIEW more AS SELECT id FROM limits; UPDATE limits SET most = most + 1 WHERE id = 3;");
    stop(Running::start(folder.path()));
    stop(Running::start(folder.path()));
    let told_last = told();
    let news = told_last.strip_prefix(&told_since).expect("what was told before stays");
    assert_eq!(changes(news), [("delete".into(), 3, 5), ("insert".into(), 3, 6)]);
}

fn execute(engine: &Running, sql: &str) {
    let request = Request { method: "POST", path: "/v1/execute", kind: "application/sql", key: None, body: sql.as_bytes() };
    assert_eq!(exchange(engine.at, &request).unwrap().status, 200, "{sql}");
}

fn asked(engine: &Running) -> Vec<Value> {
    ask(engine.at, ASKED).unwrap()
}

fn stop(mut engine: Running) {
    assert!(engine.terminated(STOPPED_WITHIN).is_some_and(|status| status.success()), "it does not stop in order");
}

/// One that is to be refused. It has its copies in the folder.
fn start(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("run").arg(folder.join("pack")).arg("--data-dir").arg(folder.join("data"));
    command.args(["--tick", "10ms", "--listen-pg", "off", "--listen-http", "off"]).env("TMPDIR", folder);
    command
}

/// Of the log: how many there are.
fn copies(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("tidegate-past-")).count()
}

/// What the lines say became of which rows.
fn changes(lines: &str) -> Vec<(String, i64, i64)> {
    let change = |line: &str| {
        let said: Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| said["row"][name].as_i64().unwrap();
        (said["op"].as_str().unwrap().to_string(), number("id"), number("most"))
    };
    let mut changes: Vec<_> = lines.lines().map(change).collect();
    changes.sort();
    changes
}
