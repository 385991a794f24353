//! Correlated subqueries, against what each outer row gets by itself: its values are written in the outer columns'
//! places, DataFusion answers what is left, and EXISTS, IN, ANY and ALL are told here.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::changes::{self, Tables};
use super::engine::Bench;
use super::seeds;

/// What is made of the rows of a query.
enum Of {
    Value,
    Exists,
    /// `v IN`.
    Member,
    /// `v <= ALL`.
    LeastOfAll,
    /// `v > ANY`.
    MoreThanAny,
}

/// `{k}` and `{v}` are the outer row's.
const SUBQUERIES: [(Of, &str); 31] = [
    (Of::Value, "SELECT max(w) FROM b WHERE b.k = {k}"),
    (Of::Value, "SELECT count(*) FROM b WHERE b.k = {k} AND b.w < {v}"),
    (Of::Value, "SELECT coalesce(sum(w), -1) FROM b WHERE b.w > {v} OR b.k = {k}"),
    (Of::Value, "SELECT sum(w) + {v} FROM b WHERE b.k <> {k}"),
    (Of::Value, "SELECT w FROM b WHERE b.k = {k} ORDER BY w DESC NULLS LAST LIMIT 1"),
    (Of::Value, "SELECT w FROM b WHERE b.w >= {v} ORDER BY w LIMIT 1 OFFSET 1"),
    (Of::Value, "SELECT 5 FROM b WHERE b.k = {k} HAVING count(*) = 0"),
    (Of::Value, "SELECT count(*) FROM (SELECT k, sum(w) AS t FROM b WHERE b.w > {v} GROUP BY k) q WHERE t > {k}"),
    (Of::Value, "SELECT max(e.dst) FROM b LEFT JOIN e ON b.k = e.src AND e.dst > {k} WHERE b.w < {v}"),
    (Of::Value, "SELECT max(x.w) FROM b x JOIN b y ON x.k = y.k WHERE x.w = {v} AND y.w = {k}"),
    (Of::Value, "SELECT count(*) FROM (SELECT src FROM e WHERE dst = {k} UNION SELECT k FROM b WHERE w = {v}) q"),
    (Of::Value, "SELECT {v} * 2"),
    (Of::Exists, "SELECT * FROM b x JOIN b y ON x.k = y.k WHERE y.w = {v}"),
    (Of::Exists, "SELECT w FROM b WHERE b.w > {v} AND EXISTS (SELECT 1 FROM e WHERE e.src = b.k AND e.dst <> {k})"),
    (Of::Exists, "SELECT max(w) FROM b WHERE b.k = {k}"),
    (Of::Exists, "SELECT k FROM b WHERE b.w < {v} GROUP BY k HAVING count(*) > 1"),
    (Of::Exists, "SELECT 1 FROM b WHERE b.k = {k} OFFSET 2"),
    (Of::Exists, "SELECT src FROM e WHERE e.src = {k} INTERSECT SELECT k FROM b WHERE b.w <> {v}"),
    (Of::Member, "SELECT w FROM b WHERE b.k = {k}"),
    (Of::Member, "SELECT w FROM b WHERE b.w <= {v} EXCEPT SELECT dst FROM e WHERE e.src = {k}"),
    (Of::Member, "SELECT count(*) FROM b WHERE b.k = {k}"),
    (Of::Member, "SELECT row_number() OVER (PARTITION BY k ORDER BY w) FROM b WHERE b.w > {k}"),
    (Of::Member, "SELECT DISTINCT x.w FROM b x FULL JOIN e ON x.k = e.src WHERE x.k = {k} OR e.dst = {v}"),
    (Of::LeastOfAll, "SELECT w FROM b WHERE b.k = {k}"),
    (Of::LeastOfAll, "SELECT max(w) FROM b WHERE b.w < {v} GROUP BY k"),
    (Of::MoreThanAny, "SELECT w FROM b WHERE b.k <= {k}"),
    // The relation around it, under the same name.
    (Of::Member, "SELECT v FROM a WHERE a.k > 1"),
    (Of::Member, "SELECT v FROM a WHERE v IN (SELECT w FROM b)"),
    (Of::LeastOfAll, "SELECT v FROM a WHERE k < 3"),
    (Of::MoreThanAny, "SELECT a.v FROM a JOIN b ON a.k = b.k"),
    (Of::Value, "SELECT max(v) FROM a WHERE k IN (SELECT k FROM b)"),
];

fn written(of: &Of, query: &str) -> String {
    let query = query.replace("{k}", "a.k").replace("{v}", "a.v");
    match of {
        Of::Value => format!("({query})"),
        Of::Exists => format!("EXISTS ({query})"),
        Of::Member => format!("a.v IN ({query})"),
        Of::LeastOfAll => format!("a.v <= ALL ({query})"),
        Of::MoreThanAny => format!("a.v > ANY ({query})"),
    }
}

/// True where one is, else NULL where one is, else false.
fn any(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let truths: Vec<_> = truths.collect();
    match (truths.contains(&Some(true)), truths.contains(&None)) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

/// What a row with this `v` gets, where these are the query's rows.
fn told(of: &Of, v: Option<i64>, rows: &[String]) -> String {
    let number = |text: &String| (text != "NULL").then(|| text.parse::<i64>().unwrap());
    let compared = |holds: fn(i64, i64) -> bool| any(rows.iter().map(|row| Some(holds(v?, number(row)?))));
    let truth = match of {
        Of::Value => return rows.first().cloned().unwrap_or_else(|| "NULL".into()),
        Of::Exists => Some(!rows.is_empty()),
        Of::Member => compared(|v, row| v == row),
        Of::LeastOfAll => compared(|v, row| v > row).map(|is_more| !is_more),
        Of::MoreThanAny => compared(|v, row| v > row),
    };
    truth.map_or_else(|| "NULL".into(), |truth| truth.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correlated_subquery_gives_each_row_what_it_gives_it_alone() {
    for seed in seeds(3) {
        let workers = [1, 2, 4][seed as usize % 3];
        let mut rng = StdRng::seed_from_u64(seed);
        let bench = Bench::start(workers);
        bench.run(changes::TABLES).await;
        for (nth, (of, query)) in SUBQUERIES.iter().enumerate() {
            let value = written(of, query);
            bench.run(&format!("CREATE MATERIALIZED VIEW shown_{nth} AS SELECT a.k, a.v, {value} AS x FROM a")).await;
            if !matches!(of, Of::Value) {
                bench.run(&format!("CREATE MATERIALIZED VIEW kept_{nth} AS SELECT a.k, a.v FROM a WHERE {value}")).await;
                bench.run(&format!("CREATE MATERIALIZED VIEW left_{nth} AS SELECT a.k, a.v FROM a WHERE NOT {value}")).await;
            }
        }
        let mut tables = Tables::default();
        for round in 0..2 {
            for _ in 0..4 {
                for statement in tables.change(&mut rng) {
                    bench.run(&statement).await;
                }
            }
            for (nth, (of, query)) in SUBQUERIES.iter().enumerate() {
                let (shown, kept, left) = alone(&tables, of, query).await;
                let what = format!("seed {seed}, {workers} workers, round {round}, {}", written(of, query));
                assert_eq!(bench.rows(&format!("shown_{nth}")).await, shown, "{what}");
                let read = format!("SELECT a.k, a.v, {} AS x FROM a", written(of, query));
                assert_eq!(bench.query(&read).await, shown, "read, {what}");
                if !matches!(of, Of::Value) {
                    assert_eq!(bench.rows(&format!("kept_{nth}")).await, kept, "WHERE {what}");
                    assert_eq!(bench.rows(&format!("left_{nth}")).await, left, "WHERE NOT {what}");
                }
            }
        }
        bench.stop().await;
    }
}

/// Each outer row with what it gets; those that get true; those that get false.
async fn alone(tables: &Tables, of: &Of, query: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let mut known = BTreeMap::new();
    let (mut shown, mut kept, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for row in tables.batch("SELECT k, v FROM a").await {
        let (k, v) = row.split_once(" | ").unwrap();
        if !known.contains_key(&row) {
            let of_row = query.replace("{k}", &format!("{k}::BIGINT")).replace("{v}", &format!("{v}::BIGINT"));
            known.insert(row.clone(), told(of, v.parse().ok(), &tables.batch(&of_row).await));
        }
        let value = &known[&row];
        match value.as_str() {
            "true" => kept.push(row.clone()),
            "false" => left.push(row.clone()),
            _ => {}
        }
        shown.push(format!("{row} | {value}"));
    }
    shown.sort();
    (shown, kept, left)
}
