//! A disk that fills up, first to 92 %, then wholly: no input is taken in meanwhile, and who sends some is told so
//! at once; questions are answered, also while statements wait, and what waits is taken in once there is room again,
//! once.
//!
//! The disk is a small one in memory, which only root can mount: others are told that it was passed over.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::door::{Answer, Connection, Request, ask, exchange};
use super::overload::Running;

const SIZE_MIB: usize = 64;

/// So many files, folders included.
const FILES_MAX: usize = 500;

/// Until it has noticed.
const SOON: Duration = Duration::from_secs(20);

/// A stop in order may take ten seconds, and need not take them here.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

/// How long a client waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(1);

/// With a view that the clock moves: its ticks need room, however little comes in.
const PACK: &str = "
    CREATE SOURCE posts (id BIGINT, ts TIMESTAMP) WITH (connector = 'http');
    CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n, count(DISTINCT id) AS ids FROM posts;
    CREATE MATERIALIZED VIEW lately AS SELECT id FROM posts WHERE ts > now() - INTERVAL '5 minutes';";

#[test]
fn a_full_disk_takes_nothing_in_and_loses_nothing() {
    let Some((folder, disk, engine)) = started() else { return };
    let mut acknowledged = 0;
    for fill_mib in [SIZE_MIB * 94 / 100, 2 * SIZE_MIB] {
        until("it takes rows in", || post(&engine, acknowledged) == Some(200));
        acknowledged += 1;
        let filler = disk.fill(fill_mib);
        until("it is not ready", || get(&engine, "/readyz").is_some_and(|answer| answer.status == 503));
        let reason = get(&engine, "/readyz").unwrap().body;
        assert!(reason.contains("too full") || reason.contains("no room"), "{reason}");
        assert_eq!(post(&engine, acknowledged), Some(503), "at {fill_mib} MiB of {SIZE_MIB}");
        assert_eq!(seen(&engine), [acknowledged, acknowledged]);
        fs::remove_file(filler).unwrap();
        until("it is ready again", || get(&engine, "/readyz").is_some_and(|answer| answer.status == 200));
        until("what waited is taken in", || post(&engine, acknowledged) == Some(200));
        acknowledged += 1;
        assert_eq!(seen(&engine), [acknowledged, acknowledged], "its key says that it is the same");
    }
    drop(engine);
    let engine = Running::start(folder.path());
    assert_eq!(seen(&engine), [acknowledged, acknowledged]);
}

#[test]
fn reads_are_answered_while_statements_wait_for_room() {
    let Some((_folder, disk, engine)) = started() else { return };
    until("it takes rows in", || post(&engine, 0) == Some(200));
    let filler = disk.fill(2 * SIZE_MIB);
    until("nothing can be written", || get(&engine, "/readyz").is_some_and(|answer| answer.body.contains("no room to write")));
    let at = engine.at;
    let send = |sql: String| {
        thread::spawn(move || {
            exchange(at, &Request { method: "POST", path: "/v1/execute", kind: "application/sql", key: None, body: sql.as_bytes() })
        })
    };
    let made = send("CREATE MATERIALIZED VIEW another AS SELECT count(*) AS n FROM posts".into());
    let snapshot = send("CHECKPOINT".into());
    thread::sleep(PATIENCE);
    // More than may wait.
    let crowd: Vec<_> = (0..100).map(|i| send(format!("CREATE VIEW of_crowd_{i} AS SELECT n FROM seen"))).collect();
    let begun = Instant::now();
    while begun.elapsed() < 3 * PATIENCE {
        assert_eq!(seen(&engine), [1, 1]);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(!made.is_finished(), "it waits for room");
    fs::remove_file(filler).unwrap();
    let made = made.join().unwrap().expect("an answer");
    assert_eq!(made.status, 200, "{}", made.body);
    assert!(snapshot.join().unwrap().is_some(), "an answer");
    let crowd: Vec<u16> = crowd.into_iter().map(|sent| sent.join().unwrap().expect("an answer").status).collect();
    let [done, refused] = [200, 503].map(|status| crowd.iter().filter(|&&answered| answered == status).count());
    assert!(30 < done && 30 < refused && done + refused == 100, "{crowd:?}");
    assert_eq!(ask(at, "SELECT n FROM another").expect("it answers")[0]["n"], json!(1));
}

#[test]
fn a_start_on_a_full_disk_opens_its_door_and_goes_on_once_there_is_room() {
    let Some((folder, disk, engine)) = started() else { return };
    until("it takes rows in", || post(&engine, 0) == Some(200));
    drop(engine);
    let filler = disk.fill(2 * SIZE_MIB);
    let engine = Running::spawn(folder.path());
    until("its door is open", || get(&engine, "/healthz").is_some_and(|answer| answer.status == 200));
    until("it says why it waits", || says(&engine, "disk full"));
    assert_eq!(post(&engine, 1), Some(503));
    let statement = Request { method: "POST", path: "/v1/execute", kind: "application/sql", key: None, body: b"SHOW TABLES" };
    let refused = exchange(engine.at, &statement).expect("an answer");
    assert!(refused.status == 503 && refused.retry_after.is_some() && refused.body.contains("disk full"), "{refused:?}");
    fs::remove_file(filler).unwrap();
    until("it takes rows in", || post(&engine, 1) == Some(200));
    assert_eq!(seen(&engine), [2, 2]);
}

#[test]
fn a_start_where_no_file_can_be_made_says_so_and_goes_on_once_one_can() {
    let Some((folder, disk, engine)) = started() else { return };
    until("it takes rows in", || post(&engine, 0) == Some(200));
    drop(engine);
    let crowd = disk.crowd();
    let engine = Running::spawn(folder.path());
    until("its door is open", || get(&engine, "/healthz").is_some_and(|answer| answer.status == 200));
    until("it says why it waits", || says(&engine, "no file can be made"));
    fs::remove_dir_all(crowd).unwrap();
    until("it takes rows in", || post(&engine, 1) == Some(200));
    assert_eq!(seen(&engine), [2, 2]);
}

#[test]
fn who_is_asked_to_stop_on_a_full_disk_does_so_at_once_and_says_why() {
    let Some((folder, disk, engine)) = started() else { return };
    let said = folder.path().join("said");
    let restarted = || Running::spawn_telling(folder.path(), Stdio::from(File::create(&said).unwrap()));
    until("it takes rows in", || post(&engine, 0) == Some(200));
    drop(engine);
    let mut engine = restarted();
    until("it takes rows in", || post(&engine, 1) == Some(200));
    let filler = disk.fill(2 * SIZE_MIB);
    until("nothing can be written", || get(&engine, "/readyz").is_some_and(|answer| answer.body.contains("no room to write")));
    for told in ["stopped on a full disk: no room to write", "stopped before the engine had started: disk full"] {
        let status = engine.terminated(STOPPED_WITHIN).expect("it stops soon");
        let words = fs::read_to_string(&said).unwrap();
        assert!(status.code() == Some(1) && words.contains(told) && words.contains("what was acknowledged stays"), "{status}: {words}");
        engine = restarted();
        until("it says why it waits", || says(&engine, "disk full"));
    }
    fs::remove_file(filler).unwrap();
    until("it takes rows in", || post(&engine, 2) == Some(200));
    assert_eq!(seen(&engine), [3, 3]);
}

/// None: no disk could be mounted.
fn started() -> Option<(TempDir, Disk, Running)> {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path().join("data")) else {
        println!("no disk could be mounted, for which one must be root: passed over");
        return None;
    };
    write_pack(folder.path());
    let engine = Running::start(folder.path());
    Some((folder, disk, engine))
}

fn write_pack(folder: &Path) {
    fs::create_dir(folder.join("pack")).unwrap();
    fs::write(folder.join("pack/10_all.sql"), PACK).unwrap();
}

/// The status, where there is an answer.
fn post(engine: &Running, id: i64) -> Option<u16> {
    let (key, body) = (format!("post-{id}"), json!({ "id": id }).to_string());
    let request = Request { method: "POST", path: "/v1/ingest/posts", kind: "application/json", key: Some(&key), body: body.as_bytes() };
    Connection::new(engine.at, PATIENCE).ask(&request).ok().map(|answer| answer.status)
}

/// Whether it takes nothing in, for this reason.
fn says(engine: &Running, reason: &str) -> bool {
    get(engine, "/readyz").is_some_and(|answer| answer.status == 503 && answer.body.contains(reason))
}

fn get(engine: &Running, path: &str) -> Option<Answer> {
    Connection::new(engine.at, PATIENCE).ask(&Request { method: "GET", path, kind: "text/plain", key: None, body: b"" }).ok()
}

fn seen(engine: &Running) -> [i64; 2] {
    let rows = ask(engine.at, "SELECT n, ids FROM seen").expect("it answers");
    ["n", "ids"].map(|column| rows[0][column].as_i64().unwrap())
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "waited until {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let size = format!("size={SIZE_MIB}m,nr_inodes={FILES_MAX}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(at))
    }

    /// Writes so much, or as much as there is room for.
    fn fill(&self, mib: usize) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        let _ = (0..mib).try_for_each(|_| file.write_all(&[0; 1 << 20]));
        path
    }

    /// Makes files until none can be made. Returns the folder they are in.
    fn crowd(&self) -> PathBuf {
        let path = self.0.join("crowd");
        fs::create_dir(&path).unwrap();
        let made = (0..FILES_MAX).map_while(|i| File::create(path.join(i.to_string())).ok()).count();
        assert!(made < FILES_MAX);
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still runs on it ends with the test.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
