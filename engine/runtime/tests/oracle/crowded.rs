//! More findings in one tick than may wait for an action: each is acted on once, and all else goes on meanwhile.
//! And an end, once all are.

use std::time::{Duration, Instant};

use super::engine::Bench;

/// With their rows more than 64 MiB.
const FINDINGS: usize = 9_000;
const TEXT_BYTES: usize = 8_000;

const WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_findings_is_acted_on_and_holds_nothing_up() {
    let mut bench = Bench::start(2);
    bench.run("CREATE TABLE t (id BIGINT, text TEXT); CREATE TABLE u (a BIGINT)").await;
    bench.run("CREATE DETECTION found WITH (severity = 'low', entity = 'id') AS SELECT id, text FROM t").await;
    bench.run("CREATE ACTION answer FROM found WITH (connector = 'none', url = 'x')").await;
    let rows = format!("INSERT INTO t SELECT value, repeat('x', {TEXT_BYTES}) FROM generate_series(1, {FINDINGS})");
    bench.run(&rows).await;
    bench = bench.restart(1, false, false).await;
    bench.run("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM u").await;
    let begun = Instant::now();
    let counts = "SELECT state, count(*), count(DISTINCT id) FROM sys.actions GROUP BY state";
    loop {
        let states = bench.query(counts).await;
        if states == [format!("done | {FINDINGS} | {FINDINGS}")] {
            break;
        }
        assert!(begun.elapsed() < WITHIN, "{states:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bench.run("INSERT INTO u VALUES (1)").await;
    assert_eq!(bench.rows("v").await, ["1"]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_log_an_engine_ends_once_its_actions_are_through() {
    let bench = Bench::start_fleeting();
    bench.run("CREATE TABLE t (id BIGINT)").await;
    bench.run("CREATE DETECTION found WITH (severity = 'low', entity = 'id') AS SELECT id FROM t").await;
    bench.run("CREATE ACTION answer FROM found WITH (connector = 'none', url = 'x')").await;
    bench.run("INSERT INTO t VALUES (1), (2)").await;
    tokio::time::timeout(WITHIN, bench.stop()).await.expect("it ends");
}
