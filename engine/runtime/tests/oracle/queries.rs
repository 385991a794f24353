//! Random queries: each construct by itself, and one on top of another.

use rand::Rng;
use rand::rngs::StdRng;

/// Over [`super::changes::SOURCE`], in SQL that DataFusion runs in batch as it stands.
pub const OVER_SOURCE: [(&str, &str); 10] = [
    (
        "per_window",
        "SELECT date_bin(INTERVAL '10 seconds', ts) AS w, k, count(*) AS n, sum(v) AS t, min(v) AS lo, max(name) AS hi FROM s GROUP BY 1, 2",
    ),
    ("busy", "SELECT date_bin(INTERVAL '7 seconds', ts) AS w, count(DISTINCT k) AS ks FROM s GROUP BY 1 HAVING 3 < count(*)"),
    ("kinds", "SELECT DISTINCT name, k FROM s"),
    (
        "latest",
        "SELECT k, v, ts FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY ts DESC NULLS LAST, v, name) AS rn FROM s) q WHERE rn <= 2",
    ),
    ("moved", "SELECT k, v, lag(v) OVER (PARTITION BY k ORDER BY ts, v, name) AS was FROM s"),
    ("twins", "SELECT x.k, x.v, y.v AS w FROM s x JOIN s y ON x.k = y.k AND x.ts < y.ts AND y.ts < x.ts + INTERVAL '2 seconds'"),
    // Joins by a window, whose state is freed as the watermark passes.
    (
        "hot",
        "WITH c AS (SELECT date_bin(INTERVAL '5 seconds', ts) AS w, k, count(*) AS n FROM s GROUP BY 1, 2) \
         SELECT c.w, c.k, c.n FROM c JOIN (SELECT w, max(n) AS m FROM c GROUP BY w) t ON c.w = t.w AND c.n = t.m",
    ),
    ("same_time", "SELECT x.k, y.v, x.ts FROM s x JOIN s y ON x.ts = y.ts AND x.v < y.v"),
    (
        "alone",
        "SELECT k, v, ts FROM s x WHERE NOT EXISTS (SELECT 1 FROM s y WHERE date_bin(INTERVAL '3 seconds', y.ts) = date_bin(INTERVAL '3 seconds', x.ts) AND y.k <> x.k)",
    ),
    (
        "beside",
        "SELECT x.w, x.n, y.ks FROM (SELECT date_bin(INTERVAL '4 seconds', ts) AS w, count(*) AS n FROM s GROUP BY 1) x \
         LEFT JOIN (SELECT date_bin(INTERVAL '4 seconds', ts) AS w, count(DISTINCT k) AS ks FROM s WHERE v < 9 GROUP BY 1) y ON x.w = y.w",
    ),
];

fn pick<'a>(rng: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices[rng.random_range(0..choices.len())]
}

fn predicate(rng: &mut StdRng) -> String {
    let base = pick(
        rng,
        &[
            "v < 10",
            "v % 3 = 1",
            "s LIKE '%y%'",
            "s IS NULL",
            "k IN (1, 2, 5)",
            "v BETWEEN 3 AND 12",
            "f > 0",
            "NOT (k = 3)",
            "coalesce(v, 5) <> 5",
            "length(s) = 1 OR v = 7",
            "ts >= TIMESTAMP '2024-01-01 00:10:00'",
        ],
    );
    base.to_string()
}

fn aggregates(rng: &mut StdRng) -> String {
    const ALL: [&str; 24] = [
        "count(*)",
        "count(v)",
        "sum(v)",
        "avg(v)",
        "min(v)",
        "max(s)",
        "min(ts)",
        "count(DISTINCT v)",
        "sum(DISTINCT v)",
        "bool_and(v < 15)",
        "bool_or(s = 'x')",
        "sum(v) FILTER (WHERE s = 'x')",
        "count(*) FILTER (WHERE f > 0)",
        "count(f)",
        "array_agg(v ORDER BY v)",
        "string_agg(s, ',' ORDER BY s)",
        "stddev(v)",
        "var_pop(v)",
        "median(v)",
        "first_value(v ORDER BY v DESC)",
        "last_value(s ORDER BY s)",
        "avg(v * 1.5)",
        "sum(v + 0.25)",
        "max(v) - min(v)",
    ];
    // Half of the time only what can be accumulated, so that both operators are tried.
    let known = if rng.random_bool(0.5) { 14 } else { ALL.len() };
    let count = rng.random_range(1..4);
    let calls: Vec<String> = (0..count).map(|i| format!("{} AS g{i}", ALL[rng.random_range(0..known)])).collect();
    calls.join(", ")
}

/// A row's place in a frame, where rows that tie have the same value or are alike.
fn framed(rng: &mut StdRng) -> String {
    let function = pick(rng, &["first_value(v)", "last_value(v)", "nth_value(v, 2)", "first_value(v + 1)", "sum(v)", "count(*)"]);
    let partition = pick(rng, &["", "PARTITION BY k ", "PARTITION BY s "]);
    let (units, order) = match rng.random_range(0..3) {
        0 => ("ROWS", pick(rng, &["v, k, s, f, ts", "v DESC NULLS LAST, k, s, f, ts"])),
        1 => ("RANGE", pick(rng, &["v", "v DESC", "v NULLS FIRST"])),
        _ => ("GROUPS", pick(rng, &["v", "v DESC", "v NULLS FIRST"])),
    };
    let bounds = pick(
        rng,
        &[
            "1 PRECEDING AND CURRENT ROW",
            "2 PRECEDING AND 1 PRECEDING",
            "1 FOLLOWING AND 3 FOLLOWING",
            "CURRENT ROW AND 2 FOLLOWING",
            "1 PRECEDING AND UNBOUNDED FOLLOWING",
            "UNBOUNDED PRECEDING AND CURRENT ROW",
            "UNBOUNDED PRECEDING AND 1 FOLLOWING",
            "UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        ],
    );
    format!("{function} OVER ({partition}ORDER BY {order} {units} BETWEEN {bounds})")
}

pub fn random(rng: &mut StdRng) -> String {
    match rng.random_range(0..18) {
        0 => {
            let exprs = pick(
                rng,
                &[
                    "k, v + 1, upper(s)",
                    "k, CASE WHEN v > 9 THEN 'big' WHEN v IS NULL THEN 'none' ELSE s END",
                    "v * k AS p, s || '!' AS q, f * 2 AS r",
                    "*",
                    "k, nullif(v, 3), greatest(k, v)",
                ],
            );
            format!("SELECT {exprs} FROM a WHERE {}", predicate(rng))
        }
        1 | 2 => {
            let kind = pick(rng, &["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let on = pick(
                rng,
                &[
                    "a.k = b.k",
                    "a.k = b.k AND a.v < b.w",
                    "a.k = b.k AND a.s = b.s",
                    "(a.s IS NOT DISTINCT FROM b.s) AND a.k = b.k",
                    "a.k + 1 = b.k",
                    "a.k = b.k AND b.w > 5",
                    "a.v = b.w AND a.k < 4",
                ],
            );
            format!("SELECT a.k, a.v, a.s, b.k AS bk, b.w FROM a {kind} b ON {on}")
        }
        3 => {
            let kind = pick(rng, &["JOIN", "LEFT JOIN"]);
            let condition = pick(rng, &["a.v < 10", "b.w > 4 OR b.w IS NULL", "a.s LIKE '%y%'", "true"]);
            format!("SELECT a.k, b.w, e.dst FROM a {kind} b ON a.k = b.k {kind} e ON b.k = e.src WHERE {condition}")
        }
        4 | 5 => {
            let condition = pick(
                rng,
                &[
                    "EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
                    "NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
                    "NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > a.v)",
                    "EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.w > a.v)",
                    "a.k IN (SELECT k FROM b)",
                    "a.k NOT IN (SELECT k FROM b)",
                    "a.k NOT IN (SELECT k FROM b WHERE k IS NOT NULL)",
                    "a.v > (SELECT avg(w) FROM b)",
                    "a.v = (SELECT max(w) FROM b WHERE b.k = a.k)",
                    "a.v < 5 OR EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
                    "(SELECT count(*) FROM b WHERE b.k = a.k) > 1",
                ],
            );
            format!("SELECT k, v, s FROM a WHERE {condition}")
        }
        6 | 7 => {
            let group = pick(rng, &["k", "s", "k, s", "k % 2, s", "date_bin(INTERVAL '5 minutes', ts)", "f", "coalesce(s, '-')"]);
            let having = pick(rng, &["", "", " HAVING count(*) > 1", " HAVING max(v) > 8"]);
            format!("SELECT {group}, {} FROM a GROUP BY {group}{having}", aggregates(rng))
        }
        8 => format!("SELECT {} FROM a WHERE {}", aggregates(rng), predicate(rng)),
        9 => {
            let sets = pick(rng, &["GROUPING SETS ((k), (s), ())", "ROLLUP (k, s)", "CUBE (k, s)"]);
            format!("SELECT k, s, count(*), sum(v) FROM a GROUP BY {sets}")
        }
        10 => {
            let op = pick(rng, &["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]);
            format!("SELECT k, s FROM a WHERE {} {op} SELECT k, s FROM b", predicate(rng))
        }
        11 => pick(
            rng,
            &[
                "SELECT DISTINCT k, s FROM a",
                "SELECT DISTINCT s FROM a",
                "SELECT DISTINCT ON (k) k, v, s, f, ts FROM a ORDER BY k, v DESC NULLS LAST, s, f, ts",
            ],
        )
        .to_string(),
        12 => {
            let (limit, offset) = (rng.random_range(1..8), rng.random_range(0..4));
            let order = pick(rng, &["v DESC NULLS LAST, k, s, f, ts", "s NULLS FIRST, v, k, f, ts", "ts, k DESC, v, s, f"]);
            format!("SELECT k, v, s, ts FROM a ORDER BY {order} LIMIT {limit} OFFSET {offset}")
        }
        13 => {
            let n = rng.random_range(1..4);
            let keep = pick(rng, &["rn <= ", "rn = ", "rn < 1 + "]);
            format!(
                "SELECT k, v, s, rn FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC, s, f, ts) AS rn FROM a) q WHERE {keep}{n}"
            )
        }
        14 => {
            let function = pick(
                rng,
                &[
                    "lag(v) OVER (PARTITION BY k ORDER BY v, s, f, ts)",
                    "lead(v, 2) OVER (PARTITION BY k ORDER BY v, s, f, ts)",
                    "rank() OVER (PARTITION BY s ORDER BY v)",
                    "dense_rank() OVER (ORDER BY v)",
                    "sum(v) OVER (PARTITION BY k ORDER BY v)",
                    "sum(v) OVER (PARTITION BY k)",
                    "count(*) OVER (PARTITION BY k ORDER BY v, s, f, ts ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)",
                    "max(v) OVER (PARTITION BY k % 2, s)",
                    "row_number() OVER (ORDER BY k, v, s, f, ts)",
                    "percent_rank() OVER (PARTITION BY k ORDER BY v)",
                ],
            );
            format!("SELECT k, v, s, {function} AS x FROM a")
        }
        15 => format!("SELECT k, v, s, {} AS x FROM a", framed(rng)),
        16 => {
            let query = pick(
                rng,
                &[
                    "WITH RECURSIVE r AS (SELECT src, dst FROM e UNION SELECT r.src, e.dst FROM r JOIN e ON r.dst = e.src) SELECT src, dst FROM r",
                    "WITH RECURSIVE r AS (SELECT k AS n FROM a WHERE v > 10 UNION SELECT e.dst FROM r JOIN e ON r.n = e.src) SELECT n FROM r",
                    "WITH RECURSIVE r AS (SELECT src AS n, 0 AS d FROM e WHERE src < 2 UNION SELECT e.dst, r.d + 1 FROM r JOIN e ON r.n = e.src WHERE r.d < 4) SELECT n, min(d) FROM r GROUP BY n",
                    "WITH RECURSIVE r AS (SELECT 1 AS n UNION SELECT n + 1 FROM r WHERE n < 5) SELECT r.n, count(a.k) FROM r LEFT JOIN a ON a.k = r.n GROUP BY r.n",
                ],
            );
            query.to_string()
        }
        _ => {
            let inner = match rng.random_range(0..4) {
                0 => "SELECT a.k AS x, b.w AS y FROM a LEFT JOIN b ON a.k = b.k",
                1 => "SELECT k AS x, count(*) AS y FROM a GROUP BY k",
                2 => "SELECT DISTINCT k AS x, v AS y FROM a",
                _ => "SELECT k AS x, v AS y FROM a UNION ALL SELECT k, w FROM b",
            };
            let outer = pick(
                rng,
                &[
                    "SELECT x, max(y), min(y), count(DISTINCT y) FROM q GROUP BY x",
                    "SELECT y, count(*) FROM q GROUP BY y",
                    "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY x ORDER BY y DESC) AS rn FROM q) p WHERE rn <= 2",
                    "SELECT q.x, e.dst FROM q JOIN e ON q.x = e.src",
                    "SELECT sum(y), avg(y), bool_or(y > 10) FROM q",
                    "SELECT * FROM q EXCEPT SELECT src, dst FROM e",
                    "SELECT x, y FROM q WHERE y > (SELECT avg(y) FROM q)",
                ],
            );
            format!("WITH q AS ({inner}) {outer}")
        }
    }
}
