//! A coordinator that panics ends the engine, which says so; what was durable is there for the next one.

use super::engine::Bench;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_panics_ends_the_engine_with_the_reason() {
    let bench = Bench::start(2);
    bench.run("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1), (2)").await;
    // The connectors of these tests panic when they are asked for a sink.
    let asked = bench.try_run("CREATE SINK out FROM t WITH (connector = 'file', path = 'x')").await.unwrap_err();
    let later = bench.try_rows("t").await.unwrap_err();
    for error in [asked, later, bench.failed().await] {
        assert!(error.to_string().contains("the coordinator failed"), "{error}");
    }
    assert!(!bench.is_ready());
    let bench = bench.after_failure().await;
    assert_eq!(bench.rows("t").await, ["1", "2"]);
    bench.stop().await;
}
