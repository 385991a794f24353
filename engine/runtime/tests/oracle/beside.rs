//! Views that are created late, while rows come: ticks go on, and the views are right as if they had been there before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, TimestampMillisecondArray};
use tidegate_types::error::Result;

use super::engine::Bench;

const ROWS: i64 = 12;
const BATCHES: i64 = 12;

/// Each is made before there are rows, and once more when there are.
const QUERIES: [(&str, &str); 7] = [
    ("VIEW", "SELECT k, count(*) AS n, sum(v) AS v, max(v) AS m FROM hits GROUP BY k"),
    ("VIEW", "SELECT h.k, h.v, l.most FROM hits h JOIN limits l ON h.k = l.k WHERE l.most < h.v"),
    ("VIEW", "SELECT x.k, x.v, y.v AS w FROM hits x JOIN hits y ON x.k = y.k AND x.v = y.v + 1"),
    ("VIEW", "SELECT window_start, k, count(*) AS n FROM TUMBLE(hits, ts, INTERVAL '1 second') GROUP BY window_start, k"),
    ("VIEW", "SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS r FROM hits) WHERE r <= 3"),
    ("VIEW", "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v) AS upto FROM hits"),
    ("DETECTION", "SELECT k, count(*) AS n FROM hits GROUP BY k HAVING 20 < count(*)"),
];

fn batch(number: i64) -> RecordBatch {
    let of = |value: fn(i64) -> i64| (number * ROWS..(number + 1) * ROWS).map(value);
    let keys = Int64Array::from_iter_values(of(|i| i * i % 7));
    let values = Int64Array::from_iter_values(of(|i| i * 31 % 97));
    // Some are late, and so in no view.
    let times = TimestampMillisecondArray::from_iter_values(of(|i| 100 * i - i % 5 * 400));
    RecordBatch::try_from_iter([("k", Arc::new(keys) as _), ("v", Arc::new(values) as _), ("ts", Arc::new(times) as _)]).unwrap()
}

fn create(kind: &str, name: &str, query: &str) -> String {
    match kind {
        "DETECTION" => format!("CREATE DETECTION {name} WITH (entity = 'k') AS {query}"),
        _ => format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
    }
}

async fn assert_same(bench: &Bench) {
    for (i, (kind, query)) in QUERIES.iter().enumerate() {
        let late = bench.rows(&format!("late{i}")).await;
        assert_eq!(late, bench.rows(&format!("early{i}")).await, "{query}");
        if *kind == "DETECTION" {
            assert_eq!(bench.findings_open(&format!("late{i}")), late.len() as i64);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read_in_one_order_however_many_workers_there_are() {
    let mut expected = None;
    for workers in [1, 2, 4] {
        let bench = Bench::start(workers);
        bench
            .run(
                "CREATE TABLE t (n BIGINT, id BIGINT PRIMARY KEY, s TEXT);
                 CREATE MATERIALIZED VIEW v AS SELECT n, count(*) AS rows FROM t GROUP BY n",
            )
            .await;
        for id in 0..60 {
            bench.run(&format!("INSERT INTO t VALUES ({}, {id}, 'x{}')", id * 7 % 13, id * 11 % 60)).await;
        }
        for _ in 0..3 {
            let read = (bench.read("t").await, bench.read("v").await);
            assert_eq!(expected.get_or_insert_with(|| read.clone()), &read, "{workers} workers");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_made_late_is_right_and_nobody_waits_for_it() {
    for workers in [1, 2, 4] {
        let bench = Bench::start(workers);
        bench
            .run(
                "CREATE SOURCE hits (k BIGINT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second') WITH (connector = 'http');
                 CREATE TABLE limits (k BIGINT PRIMARY KEY, most BIGINT); INSERT INTO limits VALUES (1, 50), (2, 10)",
            )
            .await;
        for (i, (kind, query)) in QUERIES.iter().enumerate() {
            bench.run(&create(kind, &format!("early{i}"), query)).await;
        }
        for number in 0..BATCHES {
            bench.push("hits", batch(number)).await;
        }
        let is_made = AtomicBool::new(false);
        let making = async {
            for (i, (kind, query)) in QUERIES.iter().enumerate() {
                bench.run(&create(kind, &format!("late{i}"), query)).await;
            }
            is_made.store(true, Ordering::SeqCst);
        };
        let pushing = async {
            let mut meanwhile = 0;
            while !is_made.load(Ordering::SeqCst) {
                bench.push("hits", batch(BATCHES + meanwhile)).await;
                bench.run(&format!("UPDATE limits SET most = {} WHERE k = 2", meanwhile % 90)).await;
                meanwhile += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            meanwhile
        };
        let ((), meanwhile) = tokio::join!(making, pushing);
        assert!(QUERIES.len() as i64 * 2 < meanwhile, "{meanwhile} batches came in while the views were made");
        assert_same(&bench).await;
        let bench = bench.restart(3 - workers.min(2), false, false).await;
        assert_same(&bench).await;
        let bench = bench.restart(workers, true, false).await;
        bench.push("hits", batch(1)).await;
        assert_same(&bench).await;
        bench.stop().await;
    }
}

/// What it reads is replaced, or goes, while a view is made: it is made of what is there then, or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_view_reads_may_change_while_it_is_made() {
    for round in 0..12 {
        let bench = Bench::start(1 + round % 2);
        bench.run("CREATE SOURCE hits (k BIGINT, v BIGINT, ts TIMESTAMP) WITH (connector = 'http')").await;
        bench.run("CREATE MATERIALIZED VIEW big AS SELECT k, v FROM hits WHERE 50 < v").await;
        for number in 0..BATCHES {
            bench.push("hits", batch(number)).await;
        }
        let made =
            bench.try_run("CREATE MATERIALIZED VIEW both AS SELECT b.k, count(*) AS n FROM big b JOIN hits h ON b.k = h.k GROUP BY b.k");
        let change = match round % 3 {
            0 => "CREATE OR REPLACE MATERIALIZED VIEW big AS SELECT k, v FROM hits WHERE 80 < v",
            1 => "DROP MATERIALIZED VIEW big",
            _ => "CREATE MATERIALIZED VIEW other AS SELECT k FROM hits",
        };
        let changing = async {
            tokio::time::sleep(Duration::from_millis(round as u64 * 2)).await;
            bench.try_run(change).await
        };
        let (made, changed): (Result<_>, Result<_>) = tokio::join!(made, changing);
        if made.is_ok() {
            let again = "CREATE MATERIALIZED VIEW again AS SELECT b.k, count(*) AS n FROM big b JOIN hits h ON b.k = h.k GROUP BY b.k";
            bench.run(again).await;
            bench.push("hits", batch(0)).await;
            assert_eq!(bench.rows("both").await, bench.rows("again").await, "round {round}");
        } else {
            assert!(changed.is_ok() && round % 3 == 1, "round {round}: {made:?}, {changed:?}");
            bench.push("hits", batch(0)).await;
        }
        bench.stop().await;
    }
}
