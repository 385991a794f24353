//! Every parser over bytes that nobody meant: corpora, mutated by a seed.
//!
//! None panics, aborts or hangs; what comes out is bounded by what went in; and each line that is
//! not blank is a row or a dead letter. [`run`] says how many inputs, and from which seed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use http_body_util::BodyExt;
use rand::Rng;
use rand::rngs::StdRng;
use tidegate_testdata::malformed::{mutate, run};
use tidegate_types::connector::{Budget, DeadLetter, Polled, Source, SourceSpec};
use tidegate_types::time::WallClock;

use crate::format::json::JsonDecoder;
use crate::format::{Columns, Decoder, Format};
use crate::http::{HttpSource, Inbox, ingest, records};
use crate::options::OptionReader;
use crate::tail::{Found, Tail};

const LINE_BYTES_MAX: usize = 4_000;

const JSON: [&str; 8] = [
    r#"{"a":1,"s":"x","ts":"2024-01-31T09:26:56.123Z","n":2.5,"ok":true,"d":"3.14","day":"2024-02-29"}"#,
    r#"{"ts":1706693216123,"a":"7","s":"\u00e9\ud83d\ude00 \"q\" \\","zzz":{"deep":[1,{"b":null}]}}"#,
    r#"{"a":-9223372036854775808,"n":1e308,"s":null}"#,
    r#"  {"ok":false , "n" : -0.0e-5,"list":[1,2,[3,[4]]] }  "#,
    r#"{"a":2.9,"day":"0001-01-01","d":-12345678.91,"ts":"2024-01-31 09:26:56+02:00"}"#,
    r#"[{"a":1},{"a":2}]"#,
    r#"{"a":1}{"a":2}"#,
    "{}",
];

const CSV: [&str; 6] = [
    "1,x,2024-01-31T09:26:56Z,2.5,true,3.14,2024-02-29",
    "-7,\"a, \"\"quoted\"\" b\",2024-01-31 09:26:56,NaN,false,,",
    ",,,,,,",
    "9223372036854775807,é😀,1706693216123,-1e-300,TRUE,0.01,9999-12-31",
    "\"1\",\"\",\"\",\"inf\",t,\"1\",\"2024-01-31\"",
    "x,y",
];

const TEXT: [&str; 9] = [
    r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326"#,
    r#"::1 - - [29/Feb/2024:00:00:00 +0000] "POST /a\"b HTTP/2" 503 - "http://x/y" "Mozilla/5.0 (\"q\")""#,
    r#"h - - [10/Oct/2000:13:55:36 -0700] "-" 408 0 "-" "-""#,
    "<34>Oct 11 22:14:15 mymachine su[123]: 'su root' failed for lonvick on /dev/pts/8",
    "Feb 29 00:00:00 h kernel: x",
    "2024-01-31T09:26:56.123456+02:00 host app: message",
    r#"<165>1 2003-10-11T22:14:15.003Z h.example evntslog - ID47 [x@1 a="]\""][y@2] An event"#,
    "<0>1 - - - - - -",
    "<191>99 2003-10-11T22:14:15.003Z - - - - [a b=\"\\\\\"] \u{feff}BOM",
];

fn schema() -> SchemaRef {
    let fields = [
        ("a", DataType::Int64),
        ("s", DataType::Utf8),
        ("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("n", DataType::Float64),
        ("ok", DataType::Boolean),
        ("d", DataType::Decimal128(10, 2)),
        ("day", DataType::Date32),
    ];
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
}

/// Plain columns only: these lines have a way of their own.
fn plain_schema() -> SchemaRef {
    Arc::new(schema().project(&[0, 1, 2, 3, 4]).unwrap())
}

fn spec(schema: SchemaRef, options: &[(&str, &str)]) -> SourceSpec {
    SourceSpec {
        name: "src".into(),
        columns_wanted: vec![true; schema.fields().len()],
        schema,
        options: options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        folder: PathBuf::new(),
        once: true,
        clock: Arc::new(WallClock),
        resume: None,
    }
}

fn format(schema: SchemaRef, options: &[(&str, &str)]) -> Format {
    let spec = spec(schema, options);
    let mut reader = OptionReader::new("source", "src", &spec.options);
    Format::from_options(&spec, &mut reader, LINE_BYTES_MAX, None).unwrap()
}

fn decoder(schema: SchemaRef, options: &[(&str, &str)]) -> Arc<dyn Decoder> {
    format(schema, options).decoder(None, "f").unwrap()
}

// ----------------------------------------------------------------- lines

/// Rows and dead letters of a block, which is whole lines; checked against what went in.
fn conserved(decoder: &dyn Decoder, block: &[u8], is_blank: fn(&[u8]) -> bool) -> (usize, usize) {
    let decoded = decoder.decode(block, 1, "f");
    let lines: Vec<&[u8]> = block.strip_suffix(b"\n").unwrap_or(block).split(|byte| *byte == b'\n').collect();
    let count = if block.is_empty() { 0 } else { lines.len() };
    let solid = lines.iter().filter(|line| !is_blank(line.strip_suffix(b"\r").unwrap_or(line))).count();
    assert_eq!(decoded.lines, count as u64, "lines");
    assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), solid, "{:?}", decoded.dead);
    let numbers: Vec<u64> = decoded.dead.iter().map(|dead| dead.position.strip_prefix("f:").unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(decoded.dead.iter().all(|dead| dead.raw.len() <= DeadLetter::RAW_BYTES_MAX && dead.reason.len() < 2_000));
    (decoded.rows.num_rows(), decoded.dead.len())
}

/// A format's lines: together, and cut in two between any of them.
fn lines(parser: &str, corpus: &[&str], decoder: &dyn Decoder, is_blank: fn(&[u8]) -> bool) {
    run(parser, 1, corpus, |input, random| {
        let whole = conserved(decoder, input, is_blank);
        let ends: Vec<usize> = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        if !ends.is_empty() && random.random_bool(0.2) {
            let (head, tail) = input.split_at(ends[random.random_range(0..ends.len())]);
            let (head, tail) = (conserved(decoder, head, is_blank), conserved(decoder, tail, is_blank));
            assert_eq!((head.0 + tail.0, head.1 + tail.1), whole, "cut in two");
        }
    });
}

fn is_white(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

#[test]
fn json_lines() {
    lines("json", &JSON, &*decoder(schema(), &[("format", "json")]), is_white);
}

#[test]
fn plain_json_lines() {
    lines("plain json", &JSON, &*decoder(plain_schema(), &[("format", "json")]), is_white);
}

#[test]
fn json_records_of_a_body() {
    let decoder = JsonDecoder::new(Columns { schema: schema(), wanted: (0..7).collect() }, LINE_BYTES_MAX).unwrap();
    run("records", 1, &JSON, |input, random| {
        let by_line = random.random();
        let found = records(input, by_line, usize::MAX);
        assert!(found.iter().map(|record| record.len()).sum::<usize>() <= input.len());
        assert!(found.iter().all(|record| !is_white(record)));
        let body = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input).trim_ascii();
        if by_line {
            assert_eq!(found.len(), body.split(|byte| *byte == b'\n').filter(|line| !is_white(line)).count());
        }
        let decoded = decoder.decode_records(&found, "f");
        assert_eq!(decoded.rows.num_rows() + decoded.dead.len(), found.len());
    });
}

#[test]
fn csv_lines() {
    for delimiter in [",", "tab"] {
        let options = [("format", "csv"), ("header", "false"), ("delimiter", delimiter)];
        lines("csv", &CSV, &*decoder(schema(), &options), <[u8]>::is_empty);
    }
}

#[test]
fn csv_headers() {
    let format = format(schema(), &[("format", "csv")]);
    run("csv header", 1, &["a,s,ts,n,ok,d,day", "\"day\",x, d ,ok,n,ts,s,a"], |input, _| {
        if let Ok(decoder) = format.decoder(Some(input), "f") {
            conserved(&*decoder, b"1,2,3,4,5,6,7\n\n8\n", <[u8]>::is_empty);
        }
    });
}

#[test]
fn text_lines() {
    let columns = |names: &[&str]| {
        let kind = |name: &str| match name {
            "ts" => DataType::Timestamp(TimeUnit::Millisecond, None),
            "status" | "bytes" | "severity" | "facility" | "pri" | "line_number" => DataType::Int64,
            _ => DataType::Utf8,
        };
        Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, kind(name), true)).collect::<Vec<_>>()))
    };
    let web = ["ip", "user", "ts", "method", "path", "status", "bytes", "line"];
    let cases: [(&str, &str, &[&str]); 5] = [
        ("preset", "common_log", &web),
        ("preset", "combined_log", &["ip", "ts", "request", "referer", "agent"]),
        ("preset", "syslog_rfc3164", &["pri", "facility", "severity", "ts", "host", "app", "pid", "message"]),
        ("preset", "syslog_rfc5424", &["pri", "severity", "ts", "host", "msgid", "structured", "message", "line_number"]),
        ("pattern", r"^(?P<ts>\S+)\s+(?:(?P<bytes>-?\d+)|(?P<host>.*?))\s*$", &["ts", "bytes", "host"]),
    ];
    for (key, value, names) in cases {
        lines(value, &TEXT, &*decoder(columns(names), &[("format", "text"), (key, value)]), <[u8]>::is_empty);
    }
}

// ---------------------------------------------------------------- framing

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed, and then damaged.
fn framed(input: &[u8], is_gzip: bool, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = if is_gzip { gzip(input) } else { zstd::encode_all(input, 1).unwrap() };
    for _ in 0..random.random_range(0..4) {
        mutate(&mut bytes, &["\u{1f}\u{8b}", "(\u{b5}/\u{fd}"], random);
    }
    bytes
}

#[test]
fn compressed_files() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("in");
    let format = format(schema(), &[("format", "json")]);
    run("compressed file", 4, &JSON, |input, random| {
        let is_gzip = random.random();
        std::fs::write(&path, framed(input, is_gzip, random)).unwrap();
        let mut tail = Tail::new(path.clone(), format.clone(), None, LINE_BYTES_MAX, true, None);
        let (mut bytes, mut blocks) = (0, 0);
        while let Found::Block(block) = tail.next(1 << 20, usize::MAX, Vec::new()).unwrap() {
            bytes += block.consumed;
            blocks += 1;
            if let Some(decoder) = block.decoder {
                conserved(&*decoder, &block.bytes, is_white);
            }
        }
        assert!(bytes < 64 << 20 && blocks < 100, "{bytes} bytes in {blocks} blocks");
        // Whoever asks what it is gets an answer, too.
        let _ = crate::infer::infer(&path);
    });
}

/// Every body has its answer, and the answers add up to what the source brought.
#[test]
fn bodies_at_the_door() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let inbox = Inbox::default();
    let mut source = HttpSource::new(&SourceSpec { once: false, ..spec(schema(), &[]) }, &inbox).unwrap();
    let brought = Arc::new(AtomicUsize::new(0));
    let counted = brought.clone();
    runtime.spawn(async move {
        while let Ok(Polled::Batch(batch)) = source.poll(Budget { bytes_max: 1 << 20 }).await {
            let records = batch.rows.num_rows() + batch.dead.len() + (batch.repeated + batch.rejected) as usize;
            counted.fetch_add(records, Ordering::SeqCst);
            source.acknowledge(batch.offset).await;
        }
    });
    run("http", 4, &JSON, |input, random| {
        let before = brought.load(Ordering::SeqCst);
        let is_gzip = random.random_bool(0.5);
        let body = if is_gzip { framed(input, true, random) } else { input.to_vec() };
        let mut request = Request::builder();
        let by_line = random.random();
        if by_line {
            request = request.header("content-type", "application/x-ndjson");
        }
        if is_gzip {
            request = request.header("content-encoding", "gzip");
        }
        if random.random_bool(0.3) {
            request = request.header("idempotency-key", random.random_range(0..50).to_string());
        }
        let request = request.body(Body::from(body)).unwrap();
        let told = runtime.block_on(async {
            match ingest(State(inbox.clone()), Ok(Path("src".into())), request).await {
                Ok(response) => {
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    let told: BTreeMap<String, usize> = serde_json::from_slice(&body).unwrap();
                    Some(told.values().sum::<usize>())
                }
                Err(_) => None,
            }
        });
        let count = brought.load(Ordering::SeqCst) - before;
        let expected = if is_gzip { None } else { Some(records(input, by_line, usize::MAX).len()) };
        assert_eq!(count, told.or(expected).unwrap_or(count), "the answer and the count");
        assert!(expected.is_none_or(|expected| expected == count), "{expected:?} records, {count} counted");
    });
}
