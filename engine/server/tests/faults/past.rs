//! After an incident: what was known at an earlier moment, and what would have come with a rule or a row changed
//! then, asked beside the engine that goes on.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;

use super::door::{Request, ask, exchange};
use super::full::until;
use super::load::now_ms;
use super::overload::Running;

const PACK: &str = "
    CREATE SOURCE posts (sensor TEXT, value DOUBLE) WITH (connector = 'http');
    CREATE TABLE bounds (sensor TEXT PRIMARY KEY, most DOUBLE);
    INSERT INTO bounds VALUES ('a', 8), ('b', 8);
    CREATE DETECTION hot WITH (severity = 'high', entity = 'sensor') AS
    SELECT p.sensor, max(p.value) AS value FROM posts p JOIN bounds b ON p.sensor = b.sensor AND p.value > b.most GROUP BY p.sensor;
    CREATE ACTION cool FROM hot WITH (connector = 'webhook', url = 'http://127.0.0.1:9/cool', mode = 'dry_run');";

const HOT: &str = "SELECT sensor, value FROM hot ORDER BY sensor";

#[test]
fn the_past_is_asked_and_changed_beside_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pack")).unwrap();
    fs::write(folder.path().join("pack/10_all.sql"), PACK).unwrap();
    let engine = Running::start(folder.path());
    let before = moment();
    post(&engine, "a", 9.0);
    let one = moment();
    post(&engine, "a", 10.0);
    post(&engine, "b", 8.5);
    let both = moment();
    post(&engine, "b", 7.0);
    let replay = |sql: &str, args: &[&str]| replay(folder.path(), sql, args);
    assert_eq!(replay(HOT, &["--at", &before]), Ok(String::new()));
    assert_eq!(replay(HOT, &["--at", &one]), Ok(r#"{"sensor":"a","value":9.0}"#.into()));
    let now = "{\"sensor\":\"a\",\"value\":10.0}\n{\"sensor\":\"b\",\"value\":8.5}";
    assert_eq!([replay(HOT, &["--at", &both]), replay(HOT, &[])], [Ok(now.into()), Ok(now.into())]);
    assert_eq!(replay("SELECT count(*) AS n FROM sys.actions", &["--at", &one]), Ok(r#"{"n":1}"#.into()));
    let clock = format!("SELECT now() <= to_timestamp_millis({one}) AND now() > to_timestamp_millis({before}) AS is_then");
    assert_eq!(replay(&clock, &["--at", &one]), Ok(r#"{"is_then":true}"#.into()));

    // With another bound, and an account of what it would have found, as it would have.
    let (changed, history) = (folder.path().join("changed.sql"), folder.path().join("history.jsonl"));
    let statements = format!(
        "UPDATE bounds SET most = 9.5 WHERE sensor = 'a';
         CREATE SINK history FROM hot WITH (connector = 'file', path = '{}')",
        history.display()
    );
    fs::write(&changed, statements).unwrap();
    let with = ["--with", changed.to_str().unwrap(), "--at", &before];
    let later = "{\"sensor\":\"a\",\"value\":10.0}\n{\"sensor\":\"b\",\"value\":8.5}";
    assert_eq!(replay(HOT, &with), Ok(later.into()));
    let lines = fs::read_to_string(&history).unwrap();
    let found: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<f64> = found.iter().filter_map(|line| line["row"]["value"].as_f64()).collect();
    assert_eq!(values, [10.0, 8.5], "{lines}");
    fs::remove_file(&history).unwrap();
    fs::remove_file(folder.path().join("history.jsonl.manifest")).unwrap();
    assert_eq!(replay(HOT, &[&with[..], &["--until", &one]].concat()), Ok(String::new()));

    let refused = |args: &[&str]| replay(HOT, args).unwrap_err();
    fs::write(&changed, "UPDATE bounds SET most = 9.5 WHERE sensor = 'a'").unwrap();
    let refused_until = |moment: &str| refused(&[&with[..], &["--until", moment]].concat());
    let early = format!("what came later is asked for up to tick 5, but begins after {before}");
    assert!(refused_until("5").contains(&early));
    assert!(refused_until("2200-01-01T00:00:00Z").contains("the log ends at tick"));
    assert!(refused(&["--at", "5"]).contains("the log begins after tick 5"));
    assert!(refused(&["--at", "2200-01-01T00:00:00Z"]).contains("the log ends at tick"));
    assert!(replay("INSERT INTO bounds VALUES ('c', 1)", &[]).unwrap_err().contains("only reads"));
    fs::write(&changed, "UPDATE limits SET most = 9").unwrap();
    assert!(refused(&with).contains("changed.sql:1:"));
    assert_eq!(ask(engine.at, HOT).unwrap().len(), 2, "the engine knows nothing of it");

    // A sink that came later is told nothing by what happens once more, and goes on.
    drop(engine);
    let told = folder.path().join("told.jsonl");
    let sink = format!("CREATE SINK told FROM hot WITH (connector = 'file', path = '{}')", told.display());
    fs::write(folder.path().join("pack/20_sink.sql"), sink).unwrap();
    fs::write(folder.path().join("pack/30_lower.sql"), "UPDATE bounds SET most = 7.5 WHERE sensor = 'b'").unwrap();
    let engine = Running::start(folder.path());
    let lines = || fs::read_to_string(&told).unwrap_or_default().lines().count();
    until("the sink has both findings", || lines() == 2);
    fs::write(&changed, "UPDATE bounds SET most = 9.5 WHERE sensor = 'a'").unwrap();
    assert_eq!(replay(HOT, &with), Ok(later.into()));
    assert_eq!(lines(), 2);
    // What came later to a row that is gone.
    fs::write(&changed, "DELETE FROM bounds WHERE sensor = 'b'").unwrap();
    let done = replayed(folder.path(), HOT, &with);
    assert_eq!(printed(&done), Ok(r#"{"sensor":"a","value":10.0}"#.into()));
    let said = String::from_utf8_lossy(&done.stderr);
    let of_row = |line: &&str| line.contains("WARN") && line.contains(r#"table="bounds" rows=1 key="b" tick="#);
    assert_eq!(said.lines().filter(of_row).count(), 1, "{said}");
    post(&engine, "b", 9.0);
    until("the sink has what came since", || lines() == 4);
}

#[test]
fn the_past_begins_with_what_is_older_where_a_snapshot_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("pack")).unwrap();
    fs::write(folder.path().join("pack/10_all.sql"), PACK).unwrap();
    let engine = Running::start(folder.path());
    post(&engine, "a", 9.0);
    let checkpoint = Request { method: "POST", path: "/v1/execute", kind: "application/sql", key: None, body: b"CHECKPOINT" };
    assert_eq!(exchange(engine.at, &checkpoint).unwrap().status, 200);
    post(&engine, "b", 8.5);
    let files = fs::read_dir(folder.path().join("data")).unwrap().map(|file| file.unwrap().path());
    let snapshot = files.filter(|path| path.extension().is_some_and(|ending| ending == "snapshot")).max().expect("a snapshot");
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    let now = "{\"sensor\":\"a\",\"value\":9.0}\n{\"sensor\":\"b\",\"value\":8.5}";
    assert_eq!(replay(folder.path(), HOT, &[]), Ok(now.into()));
}

/// What was answered before it is in it.
fn moment() -> String {
    std::thread::sleep(Duration::from_millis(30));
    let now = now_ms().to_string();
    std::thread::sleep(Duration::from_millis(30));
    now
}

fn post(engine: &Running, sensor: &str, value: f64) {
    let body = json!({ "sensor": sensor, "value": value }).to_string();
    let request = Request { method: "POST", path: "/v1/ingest/posts", kind: "application/json", key: None, body: body.as_bytes() };
    assert_eq!(exchange(engine.at, &request).unwrap().status, 200);
}

fn replay(folder: &Path, sql: &str, args: &[&str]) -> Result<String, String> {
    printed(&replayed(folder, sql, args))
}

fn replayed(folder: &Path, sql: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("replay").arg(folder.join("pack")).arg(sql).arg("--data-dir").arg(folder.join("data"));
    command.args(["--format", "json"]).args(args).output().unwrap()
}

/// Or why nothing is.
fn printed(done: &Output) -> Result<String, String> {
    match done.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&done.stdout).trim_end().into()),
        _ => Err(String::from_utf8_lossy(&done.stderr).into()),
    }
}
