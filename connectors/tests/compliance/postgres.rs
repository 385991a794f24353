//! The Postgres sink against a real server ([`super::server`]). Where there is none it says that it skips.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::{BinaryArray, Decimal128Array, Float64Array, StringArray, TimestampMillisecondArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::server::Server;
use super::*;

fn view() -> SchemaRef {
    let fields = [("a", DataType::Int64), ("s", DataType::Utf8), ("x", DataType::Float64)];
    Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
}

fn pg_sink(url: &str, schema: SchemaRef, table: &str, more: &[(&str, &str)]) -> Box<dyn Sink> {
    let pairs: Vec<_> = [("connector", "postgres"), ("url", url), ("table", table)].into_iter().chain(more.iter().copied()).collect();
    registry().sink(&SinkSpec { schema, ..sink_spec(Path::new("."), &pairs) }).unwrap()
}

type Line = (Option<i64>, Option<&'static str>, Option<f64>);

fn delta(tick: u64, lines: &[(Line, i64)]) -> Changes {
    let a: ArrayRef = Arc::new(Int64Array::from_iter(lines.iter().map(|((a, ..), _)| *a)));
    let s: ArrayRef = Arc::new(StringArray::from_iter(lines.iter().map(|((_, s, _), _)| *s)));
    let x: ArrayRef = Arc::new(Float64Array::from_iter(lines.iter().map(|((.., x), _)| *x)));
    let rows = RecordBatch::try_new(view(), vec![a, s, x]).unwrap();
    Changes { tick, delta: Delta::new(rows, lines.iter().map(|(_, diff)| *diff).collect::<Vec<_>>()) }
}

fn shown((a, s, x): &Line) -> String {
    let a = a.map_or("-".into(), |a| a.to_string());
    let x = x
        .map_or("-".into(), |x| if x.is_infinite() { if x < 0.0 { "-Infinity".into() } else { "Infinity".into() } } else { x.to_string() });
    format!("{a}|{}|{x}", s.unwrap_or("-"))
}

async fn texts(client: &Client, query: &str) -> Vec<String> {
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or("NULL".into())).collect()
}

async fn table(client: &Client, table: &str) -> Vec<String> {
    let row = "coalesce(a::text, '-') || '|' || coalesce(s, '-') || '|' || coalesce(x::text, '-')";
    texts(client, &format!("SELECT {row} FROM {table} ORDER BY 1")).await
}

/// A view that changes by chance, and what it holds.
struct Model {
    random: StdRng,
    rows: Vec<Line>,
    tick: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), rows: Vec::new(), tick: 0 }
    }

    /// Few different values, so that equal rows are many.
    fn line(&mut self) -> Line {
        let a = [None, Some(1), Some(i64::MIN)][self.random.random_range(0..3)];
        let s = [None, Some(""), Some("é'\"\\"), Some("{NULL}")][self.random.random_range(0..4)];
        let x = [None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(0.1)][self.random.random_range(0..5)];
        (a, s, x)
    }

    /// A tick: deletions of rows that are there, then insertions of others.
    fn step(&mut self) -> Changes {
        self.tick += self.random.random_range(1..5);
        let mut net: BTreeMap<String, (Line, i64)> = BTreeMap::new();
        for _ in 0..self.random.random_range(0..=self.rows.len().min(6)) {
            let gone = self.rows.swap_remove(self.random.random_range(0..self.rows.len()));
            net.entry(shown(&gone)).or_insert((gone, 0)).1 -= 1;
        }
        for _ in 0..self.random.random_range(1..6) {
            let come = self.line();
            self.rows.push(come);
            net.entry(shown(&come)).or_insert((come, 0)).1 += 1;
        }
        let mut lines: Vec<(Line, i64)> = net.into_values().filter(|(_, diff)| *diff != 0).collect();
        lines.sort_by_key(|(_, diff)| *diff);
        delta(self.tick, &lines)
    }

    fn table(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.rows.iter().map(shown).collect();
        rows.sort();
        rows
    }
}

async fn error_of(sink: &mut dyn Sink, epoch: u64) -> String {
    sink.resume(&writer("log", epoch)).await.err().map(|error| error.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_sink_keeps_its_promises() {
    let Some(server) = Server::find() else {
        eprintln!("skipped: no Postgres is installed, and TIDEGATE_POSTGRES names none");
        return;
    };
    let client = server.client().await;
    client.batch_execute("DROP SCHEMA IF EXISTS tidegate_test CASCADE; CREATE SCHEMA tidegate_test").await.unwrap();
    mirrors_hold_exactly_the_views_rows(&server, &client).await;
    writers_are_fenced_and_go_on(&server, &client).await;
    logs_of_others_are_never_mixed(&server, &client).await;
    logs_append(&server, &client).await;
    every_type_is_the_same_there(&server, &client).await;
    tables_that_were_there_before(&server, &client).await;
    large_ones_are_quick(&server, &client).await;
    lost_answers_and_killed_backends_change_nothing(&server, &client).await;
    a_server_that_hangs_is_noticed(&server, &client).await;
    restarts_change_nothing(&server).await;
}

async fn mirrors_hold_exactly_the_views_rows(server: &Server, client: &Client) {
    let mut sink = pg_sink(&server.url, view(), "tidegate_test.mirror", &[]);
    assert_eq!(sink.resume(&writer("log", 1)).await.unwrap(), Progress::Upto(0));
    assert!(table(client, "tidegate_test.mirror").await.is_empty());
    let mut model = Model::new(1);
    for _ in 0..60 {
        let changes: Vec<Changes> = (0..model.random.random_range(1..4)).map(|_| model.step()).collect();
        sink.write(&changes).await.unwrap();
        assert_eq!(table(client, "tidegate_test.mirror").await, model.table(), "tick {}", model.tick);
    }
    sink.finish().await.unwrap();
    let mut again = pg_sink(&server.url, view(), "tidegate_test.mirror", &[]);
    assert_eq!(again.resume(&writer("log", 2)).await.unwrap(), Progress::Upto(model.tick));
    // Somebody else took a row away.
    again.write(&[delta(model.tick + 1, &[((Some(77), None, None), 2)])]).await.unwrap();
    client
        .batch_execute("DELETE FROM tidegate_test.mirror WHERE ctid = (SELECT min(ctid) FROM tidegate_test.mirror WHERE a = 77)")
        .await
        .unwrap();
    let error = again.write(&[delta(model.tick + 2, &[((Some(77), None, None), -2)])]).await.unwrap_err().to_string();
    assert!(error.contains("of 2 rows to delete it has 1: somebody else changed it"), "{error}");
    assert!(table(client, "tidegate_test.mirror").await.contains(&"77|-|-".to_string()), "a refused write leaves nothing");
}

async fn writers_are_fenced_and_go_on(server: &Server, client: &Client) {
    let open = || pg_sink(&server.url, view(), "tidegate_test.fenced", &[]);
    let (mut first, mut second) = (open(), open());
    let error = first.write(&[delta(1, &[((None, None, None), 1)])]).await.unwrap_err().to_string();
    assert!(error.contains("before it was resumed"), "{error}");
    first.resume(&writer("log", 1)).await.unwrap();
    first.write(&[delta(5, &[((Some(1), None, None), 1)])]).await.unwrap();
    assert_eq!(second.resume(&writer("log", 2)).await.unwrap(), Progress::Upto(5));
    let error = first.write(&[delta(6, &[((Some(2), None, None), 1)])]).await.unwrap_err().to_string();
    assert!(error.contains("it is written by sink \"out\" of log log, in epoch 2 now"), "{error}");
    assert!(error_of(&mut *first, 1).await.contains("in epoch 2 now"));
    second.write(&[delta(6, &[((Some(3), None, None), 1)])]).await.unwrap();
    assert_eq!(table(client, "tidegate_test.fenced").await, ["1|-|-", "3|-|-"]);
    client.batch_execute("DROP TABLE tidegate_test.fenced").await.unwrap();
    let error = error_of(&mut *open(), 3).await;
    assert!(error.contains("it was dropped, and changes up to tick 6 were in it"), "{error}");
}

async fn logs_of_others_are_never_mixed(server: &Server, client: &Client) {
    let name = "tidegate_test.mi\"xed; --";
    let mut first = pg_sink(&server.url, view(), name, &[]);
    first.resume(&writer("other", 9)).await.unwrap();
    first.write(&[delta(5, &[((Some(1), None, None), 1)])]).await.unwrap();
    let mut second = pg_sink(&server.url, view(), name, &[]);
    let error = error_of(&mut *second, 1).await;
    assert!(error.contains("it holds rows of sink \"out\" of log other, in epoch 9"), "{error}");
    assert!(error.contains("hint: DROP TABLE \"tidegate_test\".\"mi\"\"xed; --\", or name another table"), "{error}");
    client.batch_execute("DROP TABLE tidegate_test.\"mi\"\"xed; --\"").await.unwrap();
    assert_eq!(second.resume(&writer("log", 1)).await.unwrap(), Progress::Upto(0));
    let error = first.write(&[delta(6, &[((Some(2), None, None), 1)])]).await.unwrap_err().to_string();
    assert!(error.contains("of log log, in epoch 1 now"), "{error}");
}

async fn logs_append(server: &Server, client: &Client) {
    let mode = [("mode", "log")];
    let mut sink = pg_sink(&server.url, view(), "tidegate_test.log", &mode);
    sink.resume(&writer("log", 1)).await.unwrap();
    sink.write(&[delta(5, &[((Some(1), None, None), 2)]), delta(6, &[((Some(1), None, None), -1), ((None, Some("x"), None), 1)])])
        .await
        .unwrap();
    let mut other = pg_sink(&server.url, view(), "tidegate_test.log", &mode);
    assert_eq!(other.resume(&writer("other", 1)).await.unwrap(), Progress::Upto(0));
    other.write(&[delta(1, &[((Some(2), None, None), 1)])]).await.unwrap();
    let got = texts(client, "SELECT op || ' ' || tick || ' ' || coalesce(a::text, s) FROM tidegate_test.log ORDER BY ctid").await;
    assert_eq!(got, ["insert 5 1", "insert 5 1", "delete 6 1", "insert 6 x", "insert 1 2"]);
    let error = sink.write(&[delta(7, &[((Some(1), None, None), 1)])]).await.unwrap_err().to_string();
    assert!(error.contains("of log other"), "{error}");
}

async fn every_type_is_the_same_there(server: &Server, client: &Client) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        ("d", Arc::new(Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(10, 2).unwrap())),
        ("b", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff\\".as_slice()), None]))),
        ("t", Arc::new(TimestampMillisecondArray::from(vec![Some(1_706_693_216_123), Some(i64::MAX)]))),
        ("day", Arc::new(arrow::array::Date32Array::from(vec![Some(-800_000), None]))),
        ("s", Arc::new(StringArray::from(vec![Some("a\0b"), Some("NULL")]))),
        ("f", Arc::new(Float64Array::from(vec![Some(5e-324), Some(f64::MAX)]))),
        ("ok", Arc::new(arrow::array::BooleanArray::from(vec![Some(true), None]))),
        ("clock", Arc::new(arrow::array::Time64MicrosecondArray::from(vec![Some(86_399_999_999), None]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut sink = pg_sink(&server.url, rows.schema(), "tidegate_test.types", &[]);
    sink.resume(&writer("log", 1)).await.unwrap();
    sink.write(&[Changes { tick: 1, delta: Delta::new(rows.clone(), vec![1, 1]) }]).await.unwrap();
    let got = texts(client, "SELECT whole::text FROM tidegate_test.types whole ORDER BY i").await;
    assert_eq!(
        got,
        [
            "(9223372036854775807,-0.05,\"\\\\x00ff5c\",\"2024-01-31 09:26:56.123\",\"0222-09-04 BC\",a\u{fffd}b,5e-324,t,23:59:59.999999)",
            "(,,,infinity,,NULL,1.7976931348623157e+308,,)",
        ]
    );
    sink.write(&[Changes { tick: 2, delta: Delta::new(rows, vec![-1, -1]) }]).await.unwrap();
    assert_eq!(texts(client, "SELECT count(*)::text FROM tidegate_test.types").await, ["0"]);
}

async fn tables_that_were_there_before(server: &Server, client: &Client) {
    let made = "CREATE TABLE tidegate_test.old (more int DEFAULT 7, x real, s varchar(5), a numeric(8, 1));
                CREATE TABLE tidegate_test.full (a bigint, s text, x float8); INSERT INTO tidegate_test.full VALUES (1, '', 0);
                CREATE TABLE tidegate_test.lacks (a bigint, ss text, x float8);
                CREATE VIEW tidegate_test.seen AS SELECT * FROM tidegate_test.full;
                CREATE TABLE tidegate_test.parts (a bigint, s text, x float8) PARTITION BY LIST (a)";
    client.batch_execute(made).await.unwrap();
    let mut sink = pg_sink(&server.url, view(), "tidegate_test.old", &[]);
    sink.resume(&writer("log", 1)).await.unwrap();
    sink.write(&[delta(1, &[((Some(1), Some("long text"), Some(0.1)), 2)])]).await.unwrap();
    sink.write(&[delta(2, &[((Some(1), Some("long text"), Some(0.1)), -1)])]).await.unwrap();
    assert_eq!(texts(client, "SELECT t::text FROM tidegate_test.old t").await, ["(7,0.1,\"long \",1.0)"]);
    for (table, said) in [
        ("full", "it holds rows of others"),
        ("lacks", "it has no column \"s\"\nhint: did you mean \"a\"? Else add the column, or drop the table"),
        ("seen", "it is a view, partitioned or inherited"),
        ("parts", "it is a view, partitioned or inherited"),
        ("no.t", ""),
    ] {
        if said.is_empty() {
            let error = error_of(&mut *pg_sink(&server.url, view(), table, &[]), 1).await;
            assert!(error.contains("schema \"no\" does not exist\nhint: create the schema first"), "{error}");
            continue;
        }
        let error = error_of(&mut *pg_sink(&server.url, view(), &format!("tidegate_test.{table}"), &[]), 1).await;
        assert!(error.contains(said), "{table}: {error}");
    }
    let hidden = server.url.replace("postgres@", "nobody_at_all:hush@");
    let error = error_of(&mut *pg_sink(&hidden, view(), "tidegate_test.t", &[]), 1).await;
    assert!(error.contains("nobody_at_all") && !error.contains("hush"), "{error}");
    let schema = Arc::new(Schema::new(vec![Field::new("op", DataType::Int64, true)]));
    let pairs = [("connector", "postgres"), ("url", server.url.as_str()), ("table", "t"), ("mode", "log")];
    let error = registry().sink(&SinkSpec { schema, ..sink_spec(Path::new("."), &pairs) }).err().unwrap().to_string();
    assert!(error.contains("mode 'log' has a column \"op\" of its own"), "{error}");
}

async fn large_ones_are_quick(server: &Server, client: &Client) {
    let mut sink = pg_sink(&server.url, view(), "tidegate_test.large", &[]);
    sink.resume(&writer("log", 1)).await.unwrap();
    let rows = |range: std::ops::Range<i64>, diff| range.map(|a| ((Some(a), Some("some text"), Some(a as f64)), diff)).collect::<Vec<_>>();
    let begun = Instant::now();
    sink.write(&[delta(1, &rows(0..200_000, 1))]).await.unwrap();
    let snapshot = begun.elapsed();
    let begun = Instant::now();
    for tick in 0..20 {
        let at = tick * 1_000;
        sink.write(&[delta(2 + tick as u64, &[rows(at..at + 100, -1), rows(at + 1_000_000..at + 1_000_100, 1)].concat())]).await.unwrap();
    }
    eprintln!("postgres: 200,000 rows in {snapshot:?}; then 20 writes of 100 deletions and 100 insertions in {:?}", begun.elapsed());
    assert_eq!(texts(client, "SELECT count(*)::text FROM tidegate_test.large").await, ["200000"]);
}

/// Then it is calm: the test is to end.
const CUTS_MAX: usize = 40;
const KILLS_MAX: usize = 15;

/// A way to the server that loses some of its answers, and then the connection: those to COMMIT most.
struct Lossy {
    port: u16,
    cuts: Arc<AtomicUsize>,
    is_calm: Arc<AtomicBool>,
}

impl Lossy {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, is_calm) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let lossy = Self { port, cuts: cuts.clone(), is_calm: is_calm.clone() };
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(7);
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&target).await else { continue };
                near.set_nodelay(true).and(far.set_nodelay(true)).unwrap();
                let lifetime = random.random_range(1..150);
                tokio::spawn(carry(near, far, lifetime, cuts.clone(), is_calm.clone()));
            }
        });
        lossy
    }
}

/// `lifetime`: answers until one is lost; a COMMIT's counts twenty times.
async fn carry(near: TcpStream, far: TcpStream, mut lifetime: i32, cuts: Arc<AtomicUsize>, is_calm: Arc<AtomicBool>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
        let is_commit = buffer[..count].windows(7).any(|window| window == b"COMMIT\0");
        lifetime -= if is_commit { 20 } else { 1 };
        if lifetime <= 0 && !is_calm.load(Ordering::Relaxed) && cuts.load(Ordering::Relaxed) < CUTS_MAX {
            cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if near_write.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    up.abort();
}

async fn lost_answers_and_killed_backends_change_nothing(server: &Server, client: &Client) {
    let at = address(server);
    let lossy = Lossy::to(at.clone()).await;
    let url = server.url.replace(&at, &format!("127.0.0.1:{}", lossy.port));
    let killer = server.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let killing = tokio::spawn(async move {
        let mut killed = 0;
        while !stopped.load(Ordering::Relaxed) && killed < KILLS_MAX {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidegate' AND state <> 'idle'";
            killed += killer.query(kill, &[]).await.unwrap().len();
        }
        killed
    });
    let mut model = Model::new(2);
    let mut sink = pg_sink(&url, view(), "tidegate_test.lossy", &[]);
    sink.resume(&writer("log", 1)).await.unwrap();
    for epoch in 2..6 {
        for _ in 0..15 {
            let changes = [model.step(), model.step()];
            sink.write(&changes).await.unwrap();
            assert_eq!(table(client, "tidegate_test.lossy").await, model.table(), "tick {}", model.tick);
        }
        // Dropped in the midst of a write: there as a whole, or not at all.
        let before = (model.tick, model.table());
        let next = model.step();
        let _ =
            tokio::time::timeout(Duration::from_millis(model.random.random_range(0..20)), sink.write(std::slice::from_ref(&next))).await;
        sink = pg_sink(&url, view(), "tidegate_test.lossy", &[]);
        let Progress::Upto(there) = sink.resume(&writer("log", epoch)).await.unwrap() else { panic!("it keeps account") };
        let expected = if there == before.0 { before.1 } else { model.table() };
        assert_eq!(table(client, "tidegate_test.lossy").await, expected, "epoch {epoch}");
        if there == before.0 {
            sink.write(&[next]).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let killed = killing.await.unwrap();
    eprintln!("postgres: {} answers were lost and {killed} backends killed", lossy.cuts.load(Ordering::Relaxed));
    assert!(10 < lossy.cuts.load(Ordering::Relaxed));
    lossy.is_calm.store(true, Ordering::Relaxed);
}

/// Host and port, as the URL has them.
fn address(server: &Server) -> String {
    let config: tokio_postgres::Config = server.url.parse().unwrap();
    let (tokio_postgres::config::Host::Tcp(host), port) = (&config.get_hosts()[0], config.get_ports()[0]) else { panic!("a TCP host") };
    format!("{host}:{port}")
}

/// A way to the server whose first connection goes silent, and stands: from the second answer with `tag`
/// in it on. What is sent still arrives. The port it begins at.
async fn silenced(target: String, tag: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut answers = 1;
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(pass_on(near, far, tag, std::mem::replace(&mut answers, usize::MAX)));
        }
    });
    port
}

/// `answers`: with `tag` in them, before the one from which on nothing is passed on.
async fn pass_on(near: TcpStream, far: TcpStream, tag: &'static [u8], mut answers: usize) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
        let is_tagged = buffer[..count].windows(tag.len()).any(|window| window == tag);
        if (is_tagged && answers == 0) || near_write.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        answers -= usize::from(is_tagged);
    }
    // Neither side hears of an end until the near one makes it.
    let _ = up.await;
}

/// Before anything of a write is done, and where its COMMIT is done and not heard of.
async fn a_server_that_hangs_is_noticed(server: &Server, client: &Client) {
    let at = address(server);
    for (table, tag) in
        [("tidegate_test.silent_begin", b"TRANSACTION\0".as_slice()), ("tidegate_test.silent_commit", b"COMMIT\0".as_slice())]
    {
        let url = server.url.replace(&at, &format!("127.0.0.1:{}", silenced(at.clone(), tag).await));
        let mut sink = pg_sink(&url, view(), table, &[("mode", "log"), ("timeout", "1s")]);
        sink.resume(&writer("log", 1)).await.unwrap();
        let begun = Instant::now();
        let changes = [delta(7, &[((Some(1), None, None), 1)])];
        tokio::time::timeout(SOON, sink.write(&changes)).await.expect("a server that hangs is waited for").unwrap();
        assert!(Duration::from_secs(1) < begun.elapsed(), "{table}: it did not hang");
        assert_eq!(texts(client, &format!("SELECT concat_ws(' ', op, tick, a) FROM {table}")).await, ["insert 7 1"], "{table}");
    }
}

async fn restarts_change_nothing(server: &Server) {
    let Some(own) = &server.own else {
        eprintln!("skipped: a server that is not the test's own is not restarted");
        return;
    };
    let mut model = Model::new(3);
    let mut sink = pg_sink(&server.url, view(), "tidegate_test.restarted", &[]);
    sink.resume(&writer("log", 1)).await.unwrap();
    let is_over = AtomicBool::new(false);
    let restarts = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| own.down());
            tokio::time::sleep(Duration::from_millis(200)).await;
            tokio::task::block_in_place(|| own.up());
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let writes = async {
        while !is_over.load(Ordering::Relaxed) {
            sink.write(&[model.step()]).await.unwrap();
        }
    };
    tokio::join!(restarts, writes);
    assert_eq!(table(&server.client().await, "tidegate_test.restarted").await, model.table());
    eprintln!("postgres: 3 restarts during {} ticks", model.tick);
}
