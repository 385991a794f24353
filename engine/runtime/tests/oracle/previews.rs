//! EXPLAIN CREATE OR REPLACE beside what makes it pointless: it is answered or refused, and all else goes on.

use super::engine::Bench;

const EXPLAIN: &str = "EXPLAIN CREATE OR REPLACE MATERIALIZED VIEW x AS SELECT k, count(*) + 0 AS n FROM t GROUP BY k";
const ANEW: &str = "DROP MATERIALIZED VIEW x; CREATE MATERIALIZED VIEW x AS SELECT k, count(*) AS n FROM t GROUP BY k";
const OTHER_COLUMNS: &str = "CREATE OR REPLACE MATERIALIZED VIEW x AS SELECT k FROM t";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_answered_or_refused() {
    for workers in [1, 2] {
        let bench = Bench::start(workers);
        bench.run("CREATE TABLE t (id INT PRIMARY KEY, k INT); INSERT INTO t VALUES (1, 1), (2, 1)").await;
        bench.run("CREATE MATERIALIZED VIEW x AS SELECT k, count(*) AS n FROM t GROUP BY k").await;
        for round in 0..20 {
            let other = if round % 2 == 0 { ANEW } else { OTHER_COLUMNS };
            let (first, second, replaced, third) =
                tokio::join!(bench.try_run(EXPLAIN), bench.try_run(EXPLAIN), bench.try_run(other), bench.try_run(EXPLAIN));
            replaced.unwrap();
            for refused in [first, second, third].into_iter().filter_map(Result::err) {
                let said = refused.to_string();
                let known = [
                    "is being computed",
                    "dropped meanwhile",
                    "is replaced",
                    "columns of \"x\" change",
                    "does not exist",
                    "changes all the time",
                ];
                assert!(known.iter().any(|known| said.contains(known)), "{said}");
            }
            bench.run(ANEW).await;
            assert_eq!(bench.rows("x").await, ["1 | 2"], "round {round}");
        }
        bench.stop().await;
    }
}
