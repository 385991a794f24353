//! One suite for every connector, over what it promises in public: real files,
//! a real server on the loopback, real peers that hang, refuse and fail.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use tidegate_connectors::{Inbox, Registry};
use tidegate_types::connector::*;
use tidegate_types::delta::Delta;
use tidegate_types::disk::{Disk, LocalDisk};
use tidegate_types::error::Result;
use tidegate_types::time::WallClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::faulty::{Faulty, FaultyDisk};

#[path = "compliance/faulty.rs"]
mod faulty;
#[path = "compliance/postgres.rs"]
mod postgres;
#[path = "compliance/resume.rs"]
mod resume;
#[path = "compliance/server.rs"]
mod server;

const SOON: Duration = Duration::from_secs(20);

fn schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = [("a", DataType::Int64), ("s", DataType::Utf8), ("ts", timestamp)];
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
}

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn spec(folder: &Path, once: bool, pairs: &[(&str, &str)]) -> SourceSpec {
    let schema = schema();
    let columns_wanted = vec![true; schema.fields().len()];
    SourceSpec {
        name: "src".into(),
        schema,
        columns_wanted,
        options: options(pairs),
        folder: folder.into(),
        once,
        clock: Arc::new(WallClock),
        resume: None,
    }
}

fn sink_spec(folder: &Path, pairs: &[(&str, &str)]) -> SinkSpec {
    SinkSpec { name: "out".into(), schema: schema(), options: options(pairs), folder: folder.into(), disk: Arc::new(LocalDisk) }
}

fn registry() -> Registry {
    Registry::new(Inbox::default())
}

fn file_source(folder: &TempDir, once: bool, path: &str, more: &[(&str, &str)]) -> Box<dyn Source> {
    let pairs: Vec<_> = [("connector", "file"), ("path", path)].into_iter().chain(more.iter().copied()).collect();
    registry().source(&spec(folder.path(), once, &pairs)).unwrap()
}

const BUDGET: Budget = Budget { bytes_max: 4 << 20 };

/// What a source brought: column a, and the dead letters.
#[derive(Default)]
struct Brought {
    a: Vec<Option<i64>>,
    dead: Vec<DeadLetter>,
    bytes: usize,
    offset: String,
    repeated: u64,
    rejected: u64,
    ids: Vec<String>,
}

impl Brought {
    fn add(&mut self, batch: SourceBatch) {
        assert_eq!(batch.rows.schema(), schema());
        self.a.extend(batch.rows.column(0).as_primitive::<Int64Type>().iter());
        self.dead.extend(batch.dead);
        self.bytes += batch.bytes;
        self.offset = batch.offset.0;
        self.repeated += batch.repeated;
        self.rejected += batch.rejected;
        self.ids.extend(batch.ids);
    }

    fn reasons(&self) -> Vec<String> {
        self.dead.iter().map(|dead| format!("{} {}", dead.position, dead.reason)).collect()
    }

    fn values(&self) -> Vec<i64> {
        self.a.iter().map(|a| a.unwrap_or(-1)).collect()
    }
}

async fn to_end(source: &mut dyn Source, budget: Budget) -> Result<Brought> {
    let mut brought = Brought::default();
    loop {
        match tokio::time::timeout(SOON, source.poll(budget)).await.expect("the source hangs")? {
            Polled::Batch(batch) => brought.add(batch),
            Polled::End => return Ok(brought),
        }
    }
}

/// Polls until `n` rows and dead letters are there, cutting polls short on the way.
async fn until(source: &mut dyn Source, brought: &mut Brought, n: usize) {
    let begun = Instant::now();
    while brought.a.len() + brought.dead.len() < n {
        assert!(begun.elapsed() < SOON, "only {:?} and {:?}", brought.a, brought.reasons());
        if let Ok(polled) = tokio::time::timeout(Duration::from_millis(7), source.poll(BUDGET)).await {
            match polled.unwrap() {
                Polled::Batch(batch) => brought.add(batch),
                Polled::End => panic!("a followed file has no end"),
            }
        }
    }
}

/// Nothing comes for a while.
async fn quiet(source: &mut dyn Source) {
    if let Ok(polled) = tokio::time::timeout(Duration::from_millis(100), source.poll(BUDGET)).await {
        match polled.unwrap() {
            Polled::Batch(batch) => panic!("{} rows and {:?} came", batch.rows.num_rows(), batch.dead),
            Polled::End => panic!("a followed file has no end"),
        }
    }
}

fn line(a: i64) -> String {
    format!("{{\"a\":{a},\"s\":\"x\",\"ts\":\"2024-01-31T09:26:56Z\"}}\n")
}

fn append(path: &Path, text: impl AsRef<[u8]>) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_ref()).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

// ------------------------------------------------------------------ files

#[tokio::test]
async fn every_kind_of_broken_line_is_a_dead_letter_and_its_neighbours_live() {
    let folder = TempDir::new().unwrap();
    let deep = format!("{{\"a\":{}{}}}\n", "[".repeat(10_000), "]".repeat(10_000));
    let long = format!("{{\"s\":\"{}\"}}\n", "y".repeat(3_000));
    let text = [
        b"\xef\xbb\xbf{\"a\":1}\r\n\n",
        b"{\"a\":2,\n".as_slice(),
        b"{\"a\":\"two\"}\n",
        b"{\"a\":3,\"s\":\"\xff\xfe\"}\n",
        deep.as_bytes(),
        long.as_bytes(),
        b"[1,2]\n   \n",
        b"{\"a\":4,\"a\":5}\n",
        b"{\"a\":6}",
    ]
    .concat();
    fs::write(folder.path().join("in.jsonl"), &text).unwrap();
    for budget in [1, 100, 4 << 20] {
        let mut source = file_source(&folder, true, "in.jsonl", &[("max_line_bytes", "30000")]);
        let brought = to_end(&mut *source, Budget { bytes_max: budget }).await.unwrap();
        assert_eq!(brought.values(), [1, -1, 5, 6], "budget {budget}: {:?}", brought.reasons());
        let expected = [
            ("in.jsonl:3 ", "cut short"),
            ("in.jsonl:4 ", "failed to parse \"two\""),
            ("in.jsonl:5 ", "non-UTF-8"),
            ("in.jsonl:6 ", "nested deeper than 64"),
            ("in.jsonl:8 ", "not a JSON object"),
        ];
        let reasons = brought.reasons();
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for (got, (position, reason)) in reasons.iter().zip(expected) {
            assert!(got.starts_with(position) && got.contains(reason), "{got}");
        }
        assert!(text.len() <= brought.bytes, "{} bytes", brought.bytes);
        assert!(brought.offset.contains(&format!("\"byte\":{},\"line\":11,", text.len())), "{}", brought.offset);
    }
}

#[tokio::test]
async fn over_long_lines_cost_themselves_and_bounded_memory() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    append(&path, line(1));
    append(&path, "z".repeat(5 << 20));
    append(&path, format!("\n{}{{\"s\":\"{}\"}}\n{}", line(2), "y".repeat(3_000), line(3)));
    append(&path, "w".repeat(1 << 20));
    let mut source = file_source(&folder, true, "in.jsonl", &[("max_line_bytes", "2000")]);
    let brought = to_end(&mut *source, BUDGET).await.unwrap();
    assert_eq!(brought.values(), [1, 2, 3]);
    let positions: Vec<&str> = brought.dead.iter().map(|dead| dead.position.as_str()).collect();
    assert_eq!(positions, ["in.jsonl:2", "in.jsonl:4", "in.jsonl:6"]);
    assert!(brought.dead.iter().all(|dead| dead.reason.contains("longer than 2000") && dead.raw.len() <= DeadLetter::RAW_BYTES_MAX));
}

#[tokio::test]
async fn a_million_rows_arrive_in_order() {
    let folder = TempDir::new().unwrap();
    let mut text = String::with_capacity(100 << 20);
    for a in 0..1_000_000 {
        text.push_str(&line(a));
    }
    fs::write(folder.path().join("in.jsonl"), &text).unwrap();
    let mut source = file_source(&folder, true, "in.jsonl", &[]);
    let begun = Instant::now();
    let brought = to_end(&mut *source, BUDGET).await.unwrap();
    let elapsed = begun.elapsed();
    assert!(brought.a.iter().zip(0..).all(|(got, a)| *got == Some(a)));
    assert_eq!((brought.a.len(), brought.dead.len()), (1_000_000, 0));
    assert!(text.len() <= brought.bytes, "{} bytes", brought.bytes);
    eprintln!("1,000,000 rows, {} MiB, {elapsed:?}: {:.2} M rows/s", text.len() >> 20, 1.0 / elapsed.as_secs_f64());
}

#[tokio::test]
async fn compressed_files_are_told_by_their_first_bytes() {
    let folder = TempDir::new().unwrap();
    let text: String = (0..50_000).map(line).collect();
    // Two gzip members, as logrotate and cat make them.
    let (first, second) = text.split_at(text.len() / 2);
    fs::write(folder.path().join("in.gz"), [gzip(first.as_bytes()), gzip(second.as_bytes())].concat()).unwrap();
    fs::write(folder.path().join("in.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    for (path, more) in
        [("in.gz", vec![]), ("in.zst", vec![]), ("in.gz", vec![("compression", "gzip")]), ("in.zst", vec![("compression", "zstd")])]
    {
        let more: Vec<_> = more.into_iter().chain([("format", "json")]).collect();
        let brought = to_end(&mut *file_source(&folder, true, path, &more), BUDGET).await.unwrap();
        assert_eq!((brought.a.len(), brought.dead.len()), (50_000, 0), "{path}");
        assert!(text.len() <= brought.bytes, "{path}: {} bytes", brought.bytes);
    }
}

#[tokio::test]
async fn damaged_compression_keeps_the_lines_before_it() {
    let folder = TempDir::new().unwrap();
    let text: String = (0..50_000).map(line).collect();
    let whole = gzip(text.as_bytes());
    fs::write(folder.path().join("in.jsonl.gz"), &whole[..whole.len() / 2]).unwrap();
    let brought = to_end(&mut *file_source(&folder, true, "in.jsonl.gz", &[]), BUDGET).await.unwrap();
    assert!(brought.a.len() > 10_000);
    assert!(brought.reasons().iter().any(|reason| reason.contains("the compressed data is damaged")), "{:?}", brought.reasons());
}

#[tokio::test]
async fn a_followed_file_may_come_later_grow_be_rotated_and_be_truncated() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    let mut source = file_source(&folder, false, "in.jsonl", &[]);
    let mut brought = Brought::default();
    quiet(&mut *source).await;

    append(&path, line(1));
    until(&mut *source, &mut brought, 1).await;
    // Half a line is not a line yet.
    append(&path, "{\"a\"");
    quiet(&mut *source).await;
    append(&path, ":2}\n");
    until(&mut *source, &mut brought, 2).await;

    // Rotated; the writer goes on with the old file for a moment, and leaves
    // its last line without an end.
    let mut old = OpenOptions::new().append(true).open(&path).unwrap();
    fs::rename(&path, folder.path().join("in.jsonl.1")).unwrap();
    append(&path, line(5));
    old.write_all(line(3).as_bytes()).unwrap();
    old.write_all(b"{\"a\":4}").unwrap();
    until(&mut *source, &mut brought, 5).await;

    // Copied away and truncated, inside a line.
    append(&path, "{\"a\":");
    quiet(&mut *source).await;
    File::create(&path).unwrap();
    until(&mut *source, &mut brought, 6).await;
    append(&path, line(6));
    until(&mut *source, &mut brought, 7).await;

    // Gone and back.
    fs::remove_file(&path).unwrap();
    quiet(&mut *source).await;
    append(&path, line(7));
    until(&mut *source, &mut brought, 8).await;
    quiet(&mut *source).await;

    assert_eq!(brought.values(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(brought.reasons(), ["in.jsonl:2 the file was truncated inside this line"]);
}

#[tokio::test]
async fn files_that_had_the_name_between_two_looks_are_read_in_their_order() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    let rotated = |n: usize| folder.path().join(format!("in.jsonl.{n}"));
    // From before, and never followed.
    append(&rotated(4), line(90));
    append(&path, line(1));
    let mut source = file_source(&folder, false, "in.jsonl", &[]);
    let mut brought = Brought::default();
    until(&mut *source, &mut brought, 1).await;
    quiet(&mut *source).await;
    append(&path, line(2));
    for a in [3, 4, 5] {
        // As logrotate does it: the oldest first, then the log itself.
        for n in [2, 1].into_iter().filter(|n| rotated(*n).exists()) {
            fs::rename(rotated(n), rotated(n + 1)).unwrap();
        }
        fs::rename(&path, rotated(1)).unwrap();
        append(&path, line(a));
    }
    // Not of the log: another's notes, and a compressed copy.
    append(&folder.path().join("in.jsonl.offset"), line(91));
    append(&folder.path().join("in.jsonl.3.gz"), gzip(line(92).as_bytes()));
    until(&mut *source, &mut brought, 5).await;
    quiet(&mut *source).await;
    // One rotation more, at leisure: nothing is read twice.
    fs::rename(&path, rotated(1)).unwrap();
    append(&path, line(6));
    until(&mut *source, &mut brought, 6).await;
    quiet(&mut *source).await;
    assert_eq!(brought.values(), [1, 2, 3, 4, 5, 6]);
    assert!(brought.dead.is_empty(), "{:?}", brought.reasons());
}

#[tokio::test]
async fn a_compressed_file_is_told_once_and_its_successor_is_found() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    fs::write(&path, gzip(line(1).trim_end().as_bytes())).unwrap();
    let mut source = file_source(&folder, false, "in.jsonl", &[]);
    let mut brought = Brought::default();
    until(&mut *source, &mut brought, 1).await;
    quiet(&mut *source).await;
    fs::write(folder.path().join("new"), line(2)).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    until(&mut *source, &mut brought, 2).await;
    assert_eq!(brought.values(), [1, 2]);
}

#[tokio::test]
async fn without_follow_a_file_ends_where_it_ends() {
    let folder = TempDir::new().unwrap();
    append(&folder.path().join("in.jsonl"), line(1));
    let brought = to_end(&mut *file_source(&folder, false, "in.jsonl", &[("follow", "false")]), BUDGET).await.unwrap();
    assert_eq!(brought.values(), [1]);
    fs::write(folder.path().join("empty.jsonl"), "").unwrap();
    let brought = to_end(&mut *file_source(&folder, true, "empty.jsonl", &[]), BUDGET).await.unwrap();
    assert!(brought.a.is_empty());
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("sub.json")).unwrap();
    for (path, message) in
        [("none.json", "none.json does not exist\nhint: a relative path begins at the pack's folder"), ("sub.json", "sub.json is a folder")]
    {
        let error = to_end(&mut *file_source(&folder, true, path, &[]), BUDGET).await.err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn csv_and_text_files() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("in.csv"), "\u{feff}ts,s,other,a\r\n2024-01-31 09:26:56,x,,1\r\n\r\nlater,x,,2\r\n,\"a,b\",,3").unwrap();
    for budget in [1, 4 << 20] {
        let brought = to_end(&mut *file_source(&folder, true, "in.csv", &[]), Budget { bytes_max: budget }).await.unwrap();
        assert_eq!(brought.values(), [1, 3]);
        assert_eq!(brought.reasons(), ["in.csv:4 column \"ts\": 'later' is not a TIMESTAMP"]);
    }
    fs::write(folder.path().join("short.csv"), "a,s\n1,x\n").unwrap();
    let error = to_end(&mut *file_source(&folder, true, "short.csv", &[]), BUDGET).await.err().unwrap().to_string();
    assert!(error.starts_with("short.csv: the header has no column \"ts\""), "{error}");

    fs::write(folder.path().join("in.log"), "2024-01-31T09:26:56Z x 1\nnonsense\n1706693216123 y 2\n").unwrap();
    let pattern = [("pattern", r"^(?P<ts>\S+) (?P<s>\w+) (?P<a>\d+)$")];
    let brought = to_end(&mut *file_source(&folder, true, "in.log", &pattern), BUDGET).await.unwrap();
    assert_eq!(brought.values(), [1, 2]);
    assert_eq!(brought.reasons(), ["in.log:2 the line does not match the pattern"]);
}

#[test]
fn wrong_options_are_refused_with_the_way_out() {
    let folder = TempDir::new().unwrap();
    let file = ("connector", "file");
    let path = ("path", "in.json");
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("path", "x")], "source \"src\" has no option \"connector\"\nhint: one of 'file', 'http'"),
        (&[("connector", "files")], "there is no connector 'files' for a source\nhint: did you mean 'file'?"),
        (&[file], "source \"src\" needs the option \"path\""),
        (&[file, ("path", "in")], "source \"src\" needs the option \"format\"\nhint: for example format = 'json'"),
        (&[file, path, ("format", "jsn")], "option \"format\" cannot be 'jsn'\nhint: did you mean 'json'?"),
        (&[file, path, ("delimiter", ";")], "source \"src\" has no option \"delimiter\""),
        (&[file, path, ("follow", "maybe")], "option \"follow\" cannot be 'maybe'\nhint: allowed are 'true', 'false'"),
        (&[file, path, ("max_line_bytes", "big")], "option \"max_line_bytes\" cannot be 'big'"),
        (&[("connector", "http"), ("queue_bytes", "1MiB")], "has no option \"queue_bytes\"\nhint: did you mean \"queue_bytes_max\"?"),
    ];
    for (pairs, message) in cases {
        let error = registry().source(&spec(folder.path(), true, pairs)).err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
    let error = registry().sink(&sink_spec(folder.path(), &[("connector", "kafka")])).err().unwrap().to_string();
    assert!(error.contains("one of 'file', 'postgres', 'stdout', 'discard'"), "{error}");
    let error = registry().responder(&sink_spec(folder.path(), &[("connector", "file")])).err().unwrap().to_string();
    assert!(error.contains("one of 'webhook'"), "{error}");
}

#[test]
fn inferred_statements_name_format_types_and_watermark() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("scans.jsonl.gz");
    fs::write(&path, gzip((0..2000).map(line).collect::<String>().as_bytes())).unwrap();
    let statement = tidegate_connectors::infer(&path).unwrap();
    assert!(
        statement.starts_with(
            "CREATE SOURCE scans (\n  a BIGINT,\n  s TEXT,\n  ts TIMESTAMP,\n  WATERMARK FOR ts AS ts - INTERVAL '30 seconds'\n)"
        ),
        "{statement}"
    );
    assert!(statement.contains("format = 'json'"));
    fs::write(&path, "").unwrap();
    assert!(tidegate_connectors::infer(&path).unwrap_err().to_string().contains("is empty"));
    fs::write(&path, [0x00, 0xff, b'\n', 0xfe, 0x80]).unwrap();
    assert!(tidegate_connectors::infer(&path).unwrap_err().to_string().contains("is no text"));
    assert!(tidegate_connectors::infer(&folder.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
}

// ------------------------------------------------------------------- sinks

fn changes(tick: u64, values: &[i64], diffs: &[i64]) -> Changes {
    let a: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    Changes { tick, delta: Delta::new(RecordBatch::try_from_iter([("a", a)]).unwrap(), diffs.to_vec()) }
}

fn writer(log: &str, epoch: u64) -> Writer {
    Writer { log: log.into(), epoch }
}

#[tokio::test]
async fn every_sink_takes_changes_and_finishes() {
    let folder = TempDir::new().unwrap();
    let file = vec![("connector", "file"), ("path", "out.jsonl")];
    for (pairs, progress) in
        [(vec![("connector", "stdout")], Progress::Unknown), (vec![("connector", "discard")], Progress::Unknown), (file, Progress::Upto(0))]
    {
        let mut sink = registry().sink(&sink_spec(folder.path(), &pairs)).unwrap();
        assert_eq!(sink.resume(&writer("log", 1)).await.unwrap(), progress);
        sink.write(&[changes(7, &[1, 2], &[-1, 2]), changes(8, &[3], &[1])]).await.unwrap();
        sink.write(&[]).await.unwrap();
        sink.finish().await.unwrap();
    }
    let expected = "{\"op\":\"delete\",\"tick\":7,\"row\":{\"a\":1}}\n\
                    {\"op\":\"insert\",\"tick\":7,\"row\":{\"a\":2}}\n\
                    {\"op\":\"insert\",\"tick\":7,\"row\":{\"a\":2}}\n\
                    {\"op\":\"insert\",\"tick\":8,\"row\":{\"a\":3}}\n";
    assert_eq!(fs::read_to_string(folder.path().join("out.jsonl")).unwrap(), expected);
}

fn file_sink(folder: &TempDir, name: &str, path: &str, disk: Arc<dyn Disk>) -> Box<dyn Sink> {
    let spec = sink_spec(folder.path(), &[("connector", "file"), ("path", path)]);
    registry().sink(&SinkSpec { name: name.into(), disk, ..spec }).unwrap()
}

/// What the file holds: `tick:value` per line.
fn written(folder: &TempDir) -> Vec<String> {
    let text = fs::read_to_string(folder.path().join("out")).unwrap();
    let shown = text.lines().map(|line| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => format!("{}:{}", line["tick"], line["row"]["a"]),
        Err(_) => line.to_string(),
    });
    shown.collect()
}

#[tokio::test]
async fn a_file_sink_leaves_an_empty_file_and_names_a_path_it_cannot_write() {
    let folder = TempDir::new().unwrap();
    let mut sink = file_sink(&folder, "out", "out", Arc::new(LocalDisk));
    assert!(!folder.path().join("out").exists(), "constructors do no I/O");
    sink.resume(&writer("log", 1)).await.unwrap();
    sink.finish().await.unwrap();
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), b"");
    let mut sink = file_sink(&folder, "out", "no/out", Arc::new(LocalDisk));
    let error = sink.resume(&writer("log", 1)).await.unwrap_err().to_string();
    assert!(error.contains("no/out") && error.contains("hint: create the folder"), "{error}");
    let error = sink.write(&[changes(1, &[1], &[1])]).await.unwrap_err().to_string();
    assert!(error.contains("before it was resumed"), "{error}");
}

#[tokio::test]
async fn a_file_sink_goes_on_where_its_manifest_says() {
    let folder = TempDir::new().unwrap();
    let sink = |name: &str| file_sink(&folder, name, "out", Arc::new(LocalDisk));
    let mut first = sink("out");
    assert_eq!(first.resume(&writer("log", 1)).await.unwrap(), Progress::Upto(0));
    first.write(&[changes(7, &[1], &[1])]).await.unwrap();

    // A crash behind the append and before the manifest: torn lines are cut off.
    append(&folder.path().join("out"), "{\"op\":\"insert\",\"tick\":8,\"row\":{\"a\":2}}\n{\"op\":\"ins");
    let mut second = sink("out");
    assert_eq!(second.resume(&writer("log", 2)).await.unwrap(), Progress::Upto(7));
    assert_eq!(written(&folder), ["7:1"]);
    second.write(&[changes(8, &[2], &[1]), changes(9, &[3], &[1])]).await.unwrap();
    assert_eq!(written(&folder), ["7:1", "8:2", "9:3"]);

    // The first one is not dead, only slow.
    let error = first.write(&[changes(8, &[2], &[1])]).await.unwrap_err().to_string();
    assert!(error.contains("of log log writes it, in epoch 2"), "{error}");
    let error = sink("out").resume(&writer("log", 1)).await.unwrap_err().to_string();
    assert!(error.contains("in epoch 2"), "{error}");
    assert_eq!(written(&folder), ["7:1", "8:2", "9:3"]);

    // Another log, then another sink of it: what is there stays.
    for (name, log, value) in [("out", "other", 4), ("two", "other", 5)] {
        let mut next = sink(name);
        assert_eq!(next.resume(&writer(log, 1)).await.unwrap(), Progress::Upto(0));
        next.write(&[changes(1, &[value], &[1])]).await.unwrap();
        assert_eq!(sink(name).resume(&writer(log, 1)).await.unwrap(), Progress::Upto(1));
    }
    assert_eq!(written(&folder), ["7:1", "8:2", "9:3", "1:4", "1:5"]);
    let error = second.write(&[changes(10, &[6], &[1])]).await.unwrap_err().to_string();
    assert!(error.contains("sink \"two\" of log other writes it"), "{error}");

    // Shorter than was written: nothing is made up.
    let whole = fs::read(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("out"), &whole[..whole.len() - 9]).unwrap();
    let error = sink("two").resume(&writer("other", 2)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("it has {} bytes, and {} were written", whole.len() - 9, whole.len())), "{error}");
    fs::write(folder.path().join("out"), &whole).unwrap();
    // One wrong digit, and none at all: nothing is cut off by what is not known to be true.
    let manifest = fs::read_to_string(folder.path().join("out.manifest")).unwrap();
    let fewer = manifest.replace(&format!("\"bytes\":{}", whole.len()), "\"bytes\":1");
    assert_ne!(fewer, manifest);
    for damaged in [fewer.as_str(), "{}"] {
        fs::write(folder.path().join("out.manifest"), damaged).unwrap();
        let error = sink("two").resume(&writer("other", 2)).await.unwrap_err().to_string();
        assert!(
            error.contains("out.manifest is no manifest: ") && error.contains("hint: put it back as it was, or move it away"),
            "{error}"
        );
    }
    assert_eq!(fs::read(folder.path().join("out")).unwrap(), whole);

    // A file of somebody else's, with half a line at its end.
    fs::write(folder.path().join("out"), "hello\nwor").unwrap();
    fs::remove_file(folder.path().join("out.manifest")).unwrap();
    let mut anew = sink("out");
    assert_eq!(anew.resume(&writer("log", 3)).await.unwrap(), Progress::Upto(0));
    anew.write(&[changes(1, &[1], &[1])]).await.unwrap();
    assert_eq!(written(&folder), ["hello", "wor", "1:1"]);
}

/// Three ticks by a sink that is started again whenever the disk fails it for good.
async fn write_over_faults(folder: &TempDir, disk: Arc<FaultyDisk>) -> usize {
    let mut deaths = 0;
    for epoch in 1.. {
        let mut sink = file_sink(folder, "out", "out", disk.clone());
        let done = async {
            let Progress::Upto(there) = sink.resume(&writer("log", epoch)).await? else { panic!("it keeps account") };
            for tick in (1..=3).filter(|tick| there < *tick) {
                sink.write(&[changes(tick, &[tick as i64, 10 + tick as i64], &[1, 1])]).await?;
            }
            Ok::<(), tidegate_types::error::Error>(())
        };
        match done.await {
            Ok(()) => return deaths,
            Err(_) => deaths += 1,
        }
        assert!(deaths < 10);
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_a_file_sink_may_fail_and_nothing_is_lost_or_doubled() {
    let mut tasks = Vec::new();
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for nth in 1..40 {
            tasks.push(tokio::spawn(async move {
                let folder = TempDir::new().unwrap();
                let faulty = Faulty::new(nth + 3, kind);
                let deaths = write_over_faults(&folder, Arc::new(FaultyDisk(faulty.clone()))).await;
                assert_eq!(written(&folder), ["1:1", "1:11", "2:2", "2:12", "3:3", "3:13"], "{kind} at operation {nth}");
                assert_eq!(deaths != 0, kind == io::ErrorKind::Other && faulty.has_struck(), "{kind} at operation {nth}");
                faulty.is_over()
            }));
        }
    }
    let mut ends = 0;
    for task in tasks {
        ends += usize::from(!task.await.unwrap());
    }
    assert!(0 < ends, "the last operations were never reached: count further");
}

// -------------------------------------------------------------------- http

/// A server on the loopback, and the source behind it.
struct Served {
    address: SocketAddr,
    source: Box<dyn Source>,
    refused: Refused,
}

/// Requests of the source `src` that were refused, by status, as the inbox tells them.
type Refused = Arc<Mutex<BTreeMap<u16, u64>>>;

fn hear_refusals(inbox: &Inbox) -> Refused {
    let refused = Refused::default();
    let heard = refused.clone();
    inbox.tell_refusals(move |source, status, more| {
        assert_eq!(source, "src");
        *heard.lock().unwrap().entry(status).or_default() += more;
    });
    refused
}

async fn serve(pairs: &[(&str, &str)]) -> Served {
    serve_from(pairs, None).await
}

async fn serve_from(pairs: &[(&str, &str)], resume: Option<Resume>) -> Served {
    let inbox = Inbox::default();
    let pairs: Vec<_> = [("connector", "http")].into_iter().chain(pairs.iter().copied()).collect();
    let spec = SourceSpec { resume, ..spec(Path::new("."), false, &pairs) };
    let source = Registry::new(inbox.clone()).source(&spec).unwrap();
    let refused = hear_refusals(&inbox);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, inbox.router()).await });
    Served { address, source, refused }
}

/// Status and body. Headers are lines that end in CRLF.
async fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early may stop reading.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("no answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("{text:?}")).parse().unwrap();
    (status, text)
}

/// Commits all that comes, and keeps it.
fn commit_all(mut source: Box<dyn Source>) -> Arc<Mutex<Brought>> {
    let brought = Arc::new(Mutex::new(Brought::default()));
    let kept = brought.clone();
    tokio::spawn(async move {
        while let Ok(Polled::Batch(batch)) = source.poll(BUDGET).await {
            let offset = batch.offset.clone();
            kept.lock().unwrap().add(batch);
            source.acknowledge(offset).await;
        }
    });
    brought
}

#[tokio::test]
async fn posted_rows_arrive_in_every_shape() {
    let served = serve(&[]).await;
    let brought = commit_all(served.source);
    let gz = gzip(b"[{\"a\":7}]");
    let ndjson = "Content-Type: application/x-ndjson\r\n";
    let cases: [(&str, &[u8], u16, &str); 15] = [
        ("Content-Type: application/json; charset=utf-8\r\n", b"[{\"a\":1},{\"a\":2}]", 200, "{\"accepted\":2,\"rejected\":0}"),
        (ndjson, b"{\"a\":3}\n{\"a\":\n{\"a\":4}\n", 200, "{\"accepted\":2,\"rejected\":1}"),
        ("", b"{\"a\":5}{\"a\":6}", 200, "{\"accepted\":2,\"rejected\":0}"),
        ("Content-Encoding: gzip\r\n", &gz, 200, "{\"accepted\":1,\"rejected\":0}"),
        ("", b"[]", 200, "{\"accepted\":0,\"rejected\":0}"),
        ("", b"", 200, "{\"accepted\":0,\"rejected\":0}"),
        ("", b"nonsense", 400, "nothing in the body is a row; src: request 7, record:1: not a JSON object"),
        ("", b"[{\"a\":\"x\"}]", 400, "failed to parse"),
        ("Content-Encoding: gzip\r\n", b"not gzip at all", 400, "the body is not gzip"),
        ("Content-Encoding: gzip\r\n", &gz[..gz.len() - 3], 400, "the body is not gzip"),
        ("Content-Encoding: br\r\n", b"x", 415, "Content-Encoding 'br' is not taken"),
        ("Content-Type: text/csv\r\n", b"x", 415, "Content-Type 'text/csv' is not taken"),
        // What a form on a web page can send.
        ("Content-Type: text/plain\r\n", b"{\"a\":8}", 415, "Content-Type 'text/plain' is not taken"),
        ("Content-Type: application/x-www-form-urlencoded\r\n", b"{\"a\":8}", 415, "send the header Content-Type: application/json"),
        ("Origin: http://x\r\n", b"{\"a\":8}", 415, "no Content-Type is not taken"),
    ];
    // All that there may be are told from the beginning.
    let mut refused = BTreeMap::from([(400, 0), (408, 0), (413, 0), (415, 0), (429, 0), (503, 0)]);
    assert_eq!(*served.refused.lock().unwrap(), refused);
    for (headers, body, status, said) in cases {
        if status != 200 {
            *refused.get_mut(&status).unwrap() += 1;
        }
        let answer = post(served.address, "/v1/ingest/src", headers, body).await;
        assert_eq!(answer.0, status, "{}", answer.1);
        assert!(answer.1.contains(said), "{}", answer.1);
        assert!(status == 200 || answer.1.contains("\"hint\":"), "{}", answer.1);
    }
    assert_eq!(*served.refused.lock().unwrap(), refused);
    let brought = brought.lock().unwrap();
    assert_eq!(brought.values(), [1, 2, 3, 4, 5, 6, 7]);
    // Two bodies in which nothing was a row.
    assert_eq!((brought.rejected, brought.repeated, brought.ids.len()), (2, 0, 0));
    assert_eq!(brought.dead.len(), 1);
    assert_eq!(brought.dead[0].position, "src: request 2, record:2");
}

#[tokio::test]
async fn unknown_sources_are_not_found_and_bodies_are_bounded() {
    let served = serve(&[]).await;
    let address = served.address;
    let _brought = commit_all(served.source);
    let (status, text) = post(address, "/v1/ingest/scr", "", b"{}").await;
    assert_eq!(status, 404);
    assert!(text.contains("there is no source \\\"scr\\\"") && text.contains("are src"), "{text}");

    let (status, _) = post(address, "/v1/ingest/src", "", &vec![b' '; (8 << 20) + 1]).await;
    assert_eq!(status, 413);
    // Chunked, so that no length announces it.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /v1/ingest/src HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 65536], b"\r\n"].concat();
        for _ in 0..200 {
            if write.write_all(&chunk).await.is_err() {
                break;
            }
        }
        write
    });
    let mut answer = vec![0; 32];
    tokio::time::timeout(SOON, read.read_exact(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    drop((read, writer));

    let bomb = gzip(&vec![b' '; 60 << 20]);
    let (status, text) = post(address, "/v1/ingest/src", "Content-Encoding: gzip\r\n", &bomb).await;
    assert_eq!(status, 413);
    assert!(text.contains("more than 200 times"), "{text}");
}

#[tokio::test]
async fn a_full_queue_says_429_and_no_answer_comes_before_the_commit() {
    let Served { address, mut source, refused } = serve(&[("queue_bytes_max", "1000")]).await;
    let body = format!("[{{\"a\":1,\"s\":\"{}\"}}]", "x".repeat(700));
    let (status, text) = post(address, "/v1/ingest/src", "", &vec![b' '; 1001]).await;
    assert_eq!((status, text.contains("queue_bytes_max")), (413, true), "{text}");

    let sent = body.clone();
    let first = tokio::spawn(async move { post(address, "/v1/ingest/src", "", sent.as_bytes()).await });
    let mut full = (0, String::new());
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        full = tokio::time::timeout(Duration::from_millis(500), post(address, "/v1/ingest/src", "", body.as_bytes()))
            .await
            .unwrap_or_default();
        if full.0 == 429 {
            break;
        }
    }
    assert_eq!(full.0, 429, "{}", full.1);
    assert!(full.1.to_lowercase().contains("retry-after: 1\r\n") && full.1.contains("\"hint\":"), "{}", full.1);
    assert_eq!([413, 429].map(|status| refused.lock().unwrap()[&status]), [1, 1]);
    assert!(full.1.to_lowercase().contains("retry-after: 1"), "{}", full.1);

    let Polled::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("rows are queued") };
    assert_eq!(batch.rows.num_rows(), 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!first.is_finished(), "answered before the commit");
    source.acknowledge(batch.offset).await;
    assert_eq!(first.await.unwrap().0, 200);
}

#[tokio::test]
async fn many_requests_make_one_batch_and_a_lost_source_says_503() {
    let Served { address, mut source, .. } = serve(&[]).await;
    let clients: Vec<_> = (0..50)
        .map(|a| tokio::spawn(async move { post(address, "/v1/ingest/src", "", format!("{{\"a\":{a}}}").as_bytes()).await.0 }))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut brought = Brought::default();
    let mut polls = 0;
    while brought.a.len() < 50 {
        let Polled::Batch(batch) = tokio::time::timeout(SOON, source.poll(BUDGET)).await.unwrap().unwrap() else { panic!("no end") };
        brought.add(batch);
        polls += 1;
    }
    assert!(polls < 25, "{polls} polls for 50 requests");
    let mut values = brought.values();
    values.sort_unstable();
    assert_eq!(values, (0..50).collect::<Vec<_>>());
    // Nothing was acknowledged: all hear that it may be lost.
    drop(source);
    for client in clients {
        assert_eq!(client.await.unwrap(), 503);
    }
    assert_eq!(post(address, "/v1/ingest/src", "", b"{}").await.0, 404);
}

#[tokio::test]
async fn a_body_that_comes_again_under_its_key_is_counted_and_not_taken() {
    let resume = Resume { offset: Offset("3".into()), ids: vec!["from-before".into()] };
    let served = serve_from(&[], Some(resume)).await;
    let address = served.address;
    let brought = commit_all(served.source);
    let key = |key: &str| format!("Idempotency-Key: {key}\r\n");
    let long = "k".repeat(129);
    let cases: [(String, &[u8], u16, &str); 12] = [
        (key("from-before"), b"[{\"a\":9},{\"a\":9}]", 200, "{\"accepted\":0,\"rejected\":0,\"repeated\":2}"),
        (key("k1"), b"[{\"a\":1},{\"a\":\"x\"}]", 200, "{\"accepted\":1,\"rejected\":1}"),
        // Dead ones of a repeat are repeats too.
        (key("k1"), b"[{\"a\":1},{\"a\":\"x\"}]", 200, "{\"accepted\":0,\"rejected\":0,\"repeated\":2}"),
        // Refused, so its key is free.
        (key("k2"), b"nonsense", 400, "nothing in the body is a row"),
        (key("k2"), b"{\"a\":2}", 200, "{\"accepted\":1,\"rejected\":0}"),
        (key("k3"), b"[]", 200, "{\"accepted\":0,\"rejected\":0}"),
        (key("k3"), b"{\"a\":3}", 200, "{\"accepted\":1,\"rejected\":0}"),
        (key(&long), b"{\"a\":8}", 400, "the header Idempotency-Key is not a key"),
        (key(&long[1..]), b"{\"a\":4}", 200, "{\"accepted\":1,\"rejected\":0}"),
        (key("two words"), b"{\"a\":8}", 400, "of 1 to 128 visible ASCII characters"),
        (key(""), b"{\"a\":8}", 400, "Idempotency-Key is not a key"),
        (key("k4") + &key("k5"), b"{\"a\":8}", 400, "Idempotency-Key is not a key"),
    ];
    for (headers, body, status, said) in cases {
        let answer = post(address, "/v1/ingest/src", &headers, body).await;
        assert_eq!(answer.0, status, "{headers}: {}", answer.1);
        assert!(answer.1.contains(said), "{headers}: {}", answer.1);
    }
    let brought = brought.lock().unwrap();
    assert_eq!(brought.values(), [1, 2, 3, 4]);
    assert_eq!((brought.repeated, brought.rejected, brought.dead.len()), (4, 1, 1));
    assert_eq!(brought.ids, ["k1", "k2", "k3", &long[1..]]);
}

#[tokio::test]
async fn a_repeat_waits_for_the_commit_of_what_it_repeats() {
    let Served { address, mut source, .. } = serve(&[]).await;
    let send = move || tokio::spawn(async move { post(address, "/v1/ingest/src", "Idempotency-Key: k\r\n", b"{\"a\":1}").await });
    let clients: Vec<_> = (0..5).map(|_| send()).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let late = send();
    let mut brought = Brought::default();
    while brought.a.len() + (brought.repeated as usize) < 6 {
        let Polled::Batch(batch) = tokio::time::timeout(SOON, source.poll(BUDGET)).await.unwrap().unwrap() else { panic!("no end") };
        brought.add(batch);
    }
    assert_eq!((brought.values(), brought.repeated, brought.ids.clone()), (vec![1], 5, vec!["k".to_string()]));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(clients.iter().chain([&late]).all(|client| !client.is_finished()), "answered before the commit");
    source.acknowledge(Offset(brought.offset)).await;
    let mut accepted = 0;
    for client in clients.into_iter().chain([late]) {
        let (status, text) = client.await.unwrap();
        assert_eq!(status, 200);
        accepted += usize::from(text.contains("\"accepted\":1"));
    }
    assert_eq!(accepted, 1);

    // Taken, and the source went away before the commit: whoever comes after may send it again.
    let lost = tokio::spawn(async move { post(address, "/v1/ingest/src", "Idempotency-Key: k2\r\n", b"{\"a\":2}").await.0 });
    let Polled::Batch(_) = tokio::time::timeout(SOON, source.poll(BUDGET)).await.unwrap().unwrap() else { panic!("no end") };
    drop(source);
    assert_eq!(lost.await.unwrap(), 503);
}

#[tokio::test]
async fn the_last_ten_thousand_keys_are_known() {
    let ids = (0..Resume::IDS_MAX).map(|i| format!("k{i}")).collect();
    let served = serve_from(&[], Some(Resume { offset: Offset::default(), ids })).await;
    let address = served.address;
    let brought = commit_all(served.source);
    for (key, accepted) in [("k0", 0), ("new", 1), ("k0", 1), ("k1", 1), ("k9999", 0), ("new", 0)] {
        let answer = post(address, "/v1/ingest/src", &format!("Idempotency-Key: {key}\r\n"), b"{\"a\":1}").await;
        assert!(answer.1.contains(&format!("\"accepted\":{accepted}")), "{key}: {}", answer.1);
    }
    assert_eq!(brought.lock().unwrap().ids, ["new", "k0", "k1"]);
}

#[tokio::test]
async fn checking_a_source_does_not_take_a_running_ones_place() {
    let inbox = Inbox::default();
    let registry = Registry::new(inbox.clone());
    let pairs = [("connector", "http")];
    let mut running = registry.source(&spec(Path::new("."), false, &pairs)).unwrap();
    drop(registry.source(&spec(Path::new("."), false, &pairs)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, inbox.router()).await });
    let client = tokio::spawn(async move { post(address, "/v1/ingest/src", "", b"{\"a\":1}").await.0 });
    let Polled::Batch(batch) = tokio::time::timeout(SOON, running.poll(BUDGET)).await.unwrap().unwrap() else { panic!("no end") };
    running.acknowledge(batch.offset).await;
    assert_eq!(client.await.unwrap(), 200);

    let mut once = registry.source(&spec(Path::new("."), true, &pairs)).unwrap();
    assert!(matches!(once.poll(BUDGET).await.unwrap(), Polled::End));
}

// ----------------------------------------------------------------- webhook

/// What a peer does with each connection.
#[derive(Clone)]
enum Peer {
    Answers(String),
    Hangs,
    Closes,
}

/// A peer on the loopback, and the requests it got.
async fn peer(behaviour: Peer) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, behaviour.clone(), kept.clone()));
        }
    });
    (address, seen)
}

async fn answer(mut stream: TcpStream, behaviour: Peer, seen: Arc<Mutex<Vec<String>>>) {
    if matches!(behaviour, Peer::Closes) {
        return;
    }
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        request.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(|n| n.trim().parse::<usize>().unwrap()));
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
    }
    seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    match behaviour {
        Peer::Answers(text) => stream.write_all(text.as_bytes()).await.unwrap_or_default(),
        _ => tokio::time::sleep(SOON).await,
    }
}

fn says(status: &str, headers: &str, body: &str) -> Peer {
    Peer::Answers(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len()))
}

fn action(kind: ActionKind) -> ActionRequest {
    let previous = (kind == ActionKind::Update).then(|| serde_json::json!({ "device": "d0" }));
    let key = format!("id-1-{}", kind.as_str());
    let finding = serde_json::json!({ "device": "d1" });
    ActionRequest { id: "id-1".into(), key, action: "hold".into(), kind, tick: 9, finding, previous }
}

fn webhook(pairs: &[(&str, &str)]) -> Box<dyn Responder> {
    let pairs: Vec<_> = [("connector", "webhook")].into_iter().chain(pairs.iter().copied()).collect();
    registry().responder(&sink_spec(&PathBuf::new(), &pairs)).unwrap()
}

#[tokio::test]
async fn actions_are_posted_with_their_id_and_their_key() {
    let (address, seen) = peer(says("200 OK", "", "thanks")).await;
    let base = format!("http://{address}");
    let responder =
        webhook(&[("url", &format!("{base}/do?k=v")), ("undo_url", &format!("{base}/undo")), ("header.Authorization", "Bearer t")]);
    for kind in [ActionKind::Do, ActionKind::Update, ActionKind::Undo] {
        assert!(responder.supports(kind));
        responder.send(&action(kind)).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    let expected = [("/do?k=v", "do"), ("/do?k=v", "update"), ("/undo", "undo")];
    for (request, (path, kind)) in seen.iter().zip(expected) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with(&format!("post {path} http/1.1\r\n")), "{head}");
        for header in [
            &format!("idempotency-key: id-1-{kind}"),
            "content-type: application/json",
            "authorization: bearer t",
            &format!("host: {address}"),
        ] {
            assert!(head.contains(header), "{header} is not in {head}");
        }
        let body: BTreeMap<String, serde_json::Value> = serde_json::from_str(body).unwrap();
        assert_eq!((&body["id"], &body["action"], &body["kind"], &body["tick"]), (&"id-1".into(), &"hold".into(), &kind.into(), &9.into()));
        assert_eq!(body["key"], format!("id-1-{kind}"));
        assert_eq!(body["finding"]["device"], "d1");
        assert_eq!(body.contains_key("previous"), kind == "update");
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn failures_say_whether_to_try_again() {
    let long = "y".repeat(200_000);
    let cases = [
        (says("500 Oops", "", "it\r\nbroke\u{1b}[31m"), true, None, "answered 500 Internal Server Error: itbroke[31m"),
        (says("429 Slow", "Retry-After: 7\r\n", ""), true, Some(7000), "answered 429"),
        (says("503 Later", "Retry-After: nonsense\r\n", &long), true, None, "answered 503"),
        (says("404 No", "", "no such hook"), false, None, "answered 404 Not Found: no such hook"),
        (says("302 Found", "Location: http://127.0.0.1:1/\r\n", ""), false, None, "answered 302"),
        (Peer::Closes, true, None, "cannot be reached"),
        (Peer::Hangs, true, None, "did not answer within 300ms"),
        (Peer::Answers("not http at all\r\n\r\n".into()), true, None, "cannot be reached"),
    ];
    for (behaviour, retryable, retry_after_ms, message) in cases {
        let (address, _) = peer(behaviour).await;
        let responder = webhook(&[("url", &format!("http://{address}/secret")), ("timeout", "300ms"), ("header.X-Token", "hush")]);
        let failure = responder.send(&action(ActionKind::Do)).await.unwrap_err();
        assert_eq!((failure.retryable, failure.retry_after_ms), (retryable, retry_after_ms), "{}", failure.message);
        assert!(failure.message.contains(message), "{}", failure.message);
        assert!(!failure.message.contains("secret") && !failure.message.contains("hush"), "{}", failure.message);
        assert!(failure.message.len() < 400);
    }
}

#[tokio::test]
async fn a_refused_connection_may_be_tried_again() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let failure = webhook(&[("url", &format!("{scheme}://{address}/"))]).send(&action(ActionKind::Do)).await.unwrap_err();
        assert!(failure.retryable && failure.message.contains("cannot be reached"), "{}", failure.message);
    }
    let responder = webhook(&[("url", "http://127.0.0.1:1/")]);
    assert!(!responder.supports(ActionKind::Undo));
    assert!(!responder.send(&action(ActionKind::Undo)).await.unwrap_err().retryable);
}
