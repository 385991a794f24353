//! A view whose state grows over the limit is stopped; the others are right at every tick.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};

use super::engine::Bench;

const LIMIT: usize = 1 << 20;
const ROOM: usize = 1 << 30;
const BATCHES: i64 = 10;
const ROWS: i64 = 5_000;

const VIEWS: &str = "
    CREATE SOURCE hits (k BIGINT, v BIGINT) WITH (connector = 'http');
    CREATE MATERIALIZED VIEW keys AS SELECT k, count(*) AS n FROM hits GROUP BY k;
    CREATE MATERIALIZED VIEW most AS SELECT max(n) AS n FROM keys;
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(v) AS v FROM hits;
";

fn batch(number: i64) -> RecordBatch {
    let keys = Int64Array::from_iter_values(number * ROWS..(number + 1) * ROWS);
    let values = Int64Array::from_iter_values((0..ROWS).map(|_| number));
    RecordBatch::try_from_iter([("k", Arc::new(keys) as _), ("v", Arc::new(values) as _)]).unwrap()
}

async fn flooded(workers: usize) -> Bench {
    let bench = Bench::start_limited(workers, LIMIT);
    bench.run(VIEWS).await;
    for number in 0..BATCHES {
        bench.push("hits", batch(number)).await;
        assert_eq!(bench.rows("total").await, [total(number + 1)], "{workers} workers");
    }
    bench
}

fn total(batches: i64) -> String {
    format!("{} | {}", batches * ROWS, ROWS * batches * (batches - 1) / 2)
}

async fn assert_stopped(bench: &Bench) {
    for (view, reason) in [("keys", "MiB is over the limit of 1 MiB"), ("most", "it reads \"keys\", which is stopped")] {
        let refused = bench.try_rows(view).await.unwrap_err().to_string();
        assert!(refused.contains(reason), "{view}: {refused}");
    }
    let refused = bench.try_run("CREATE MATERIALIZED VIEW more AS SELECT * FROM keys").await.unwrap_err().to_string();
    assert!(refused.contains("\"keys\" is stopped"), "{refused}");
    assert_eq!(bench.rows("total").await, [total(BATCHES)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_grows_too_large_is_stopped_alone() {
    for workers in [1, 2, 4] {
        let bench = flooded(workers).await;
        assert_stopped(&bench).await;
        let larger = "EXPLAIN CREATE OR REPLACE MATERIALIZED VIEW total AS SELECT k AS n, sum(v) AS v FROM hits GROUP BY k";
        let refused = bench.try_run(larger).await.unwrap_err().to_string();
        assert!(refused.contains("is over the limit"), "{refused}");
        let bench = bench.restart(3 - workers.min(2), false, false).await;
        assert_stopped(&bench).await;
        let bench = bench.restart_limited(workers, ROOM).await;
        assert_eq!(bench.rows("keys").await.len() as i64, BATCHES * ROWS, "{workers} workers");
        assert_eq!(bench.rows("most").await, ["1"]);
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_over_what_is_stopped_has_changed_nothing() {
    let bench = flooded(1).await;
    let [fine, refused] =
        ["CREATE MATERIALIZED VIEW twice AS SELECT 2 * n AS n FROM total;", "CREATE MATERIALIZED VIEW more AS SELECT * FROM keys;"];
    let refusal = bench.try_apply(&format!("{VIEWS}{fine}{refused}")).await.unwrap_err().to_string();
    assert!(refusal.contains("\"keys\" is stopped"), "{refusal}");
    let refusal = bench.try_rows("twice").await.unwrap_err().to_string();
    assert!(refusal.contains("\"twice\" does not exist"), "{refusal}");
    bench.try_apply(&format!("{VIEWS}{fine}")).await.unwrap();
    assert_eq!(bench.rows("twice").await, [(2 * BATCHES * ROWS).to_string()]);
    bench.stop().await;
}

// All pairs would be 400 million: nobody waits for them, and nobody has room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tick_that_is_too_large_ends_before_it_is_computed() {
    for (workers, pairs) in [(1, "x.k % 1 = y.k % 1"), (2, "x.k % 1 = y.k % 1"), (1, "true"), (2, "true")] {
        let bench = Bench::start_limited(workers, 16 * LIMIT);
        let view = format!("CREATE MATERIALIZED VIEW pairs AS SELECT x.k, y.k AS j FROM hits x JOIN hits y ON {pairs}");
        bench.run(&format!("{VIEWS}; {view}; CREATE MATERIALIZED VIEW count AS SELECT count(*) AS n FROM pairs")).await;
        for number in 0..4 {
            bench.push("hits", batch(number)).await;
        }
        assert_eq!(bench.rows("total").await, [total(4)]);
        for (view, reason) in [("pairs", "MiB is over the limit of 16 MiB"), ("count", "it reads \"pairs\", which is stopped")] {
            let refused = bench.try_rows(view).await.unwrap_err().to_string();
            assert!(refused.contains(reason), "{view}: {refused}");
        }
        bench.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_knows_what_is_stopped() {
    let bench = flooded(2).await.restart(1, true, true).await;
    assert_stopped(&bench).await;
    bench.run("CREATE OR REPLACE MATERIALIZED VIEW keys AS SELECT k, count(*) AS n FROM hits WHERE k < 10 GROUP BY k").await;
    bench.push("hits", batch(0)).await;
    assert_eq!(bench.rows("keys").await.len(), 10);
    assert_eq!(bench.rows("most").await.len(), 1);
    let bench = bench.restart(2, true, true).await;
    assert_eq!(bench.rows("keys").await.len(), 10);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_when_it_is_made_is_said_to_be() {
    let bench = Bench::start_limited(2, LIMIT);
    bench.run("CREATE SOURCE hits (k BIGINT, v BIGINT) WITH (connector = 'http')").await;
    for number in 0..BATCHES {
        bench.push("hits", batch(number)).await;
    }
    let refused = bench.try_run("CREATE MATERIALIZED VIEW keys AS SELECT k, count(*) AS n FROM hits GROUP BY k").await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the view cannot be computed: its state of"), "{refused}");
    let unknown = bench.try_rows("keys").await.unwrap_err().to_string();
    assert!(unknown.contains("\"keys\" does not exist"), "{unknown}");
    bench.run("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(v) AS v FROM hits").await;
    assert_eq!(bench.rows("total").await, [total(BATCHES)]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_stays_in_sight_though_its_detection_is_stopped() {
    let bench = Bench::start_limited(2, ROOM);
    bench
        .run(
            "CREATE SOURCE hits (k BIGINT, v BIGINT) WITH (connector = 'http');
             CREATE DETECTION twice WITH (severity = 'low', entity = 'k') AS
                 SELECT k, count(*) AS n FROM hits GROUP BY k HAVING 1 < count(*);
             CREATE ACTION hold FROM twice WITH (connector = 'webhook')",
        )
        .await;
    for number in 0..BATCHES {
        bench.push("hits", batch(number)).await;
    }
    bench.push("hits", batch(0).slice(0, 5)).await;
    let done = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let rows = bench.rows("sys.actions").await;
            if rows.len() == 5 && rows.iter().all(|row| row.contains("| done |")) {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let done = done.await.expect("all are done");
    let bench = bench.restart_limited(1, LIMIT).await;
    assert!(bench.try_rows("twice").await.is_err());
    assert_eq!(bench.rows("sys.actions").await, done);
    let id = done[0].split(' ').next().unwrap();
    let refused = bench.try_run(&format!("APPROVE ACTION '{id}'")).await.unwrap_err().to_string();
    assert!(refused.contains("\"hold\" is stopped"), "{refused}");
    // Without the log behind it.
    let bench = bench.restart(2, true, true).await;
    assert_eq!(bench.rows("sys.actions").await, done);
    bench.stop().await;
}
