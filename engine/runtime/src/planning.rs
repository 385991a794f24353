//! From a query to what computes it. Planning recurses with the query, so it has a thread of its own, with
//! room for the deepest one that is let through.

use std::collections::BTreeSet;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;
use tidegate_plan::lower::lower;
use tidegate_plan::size::Size;
use tidegate_plan::sql::Session;
use tidegate_plan::{Catalog, NodeRef};
use tidegate_types::error::{Error, Mistake, Result};

const STACK_BYTES: usize = 64 << 20;

/// A query, what computes it, and the relations it names.
pub struct Planned {
    pub query: LogicalPlan,
    pub node: NodeRef,
    pub reads: BTreeSet<String>,
    pub size: Size,
}

pub fn plan_query(query: &Query, catalog: &Catalog) -> Result<Planned> {
    on_deep_stack(|| {
        let size = Size::of(query, |name| catalog.view_size(name))?;
        let session = Session::new(catalog)?;
        let reads = session.names(query)?;
        let query = session.plan(query)?;
        let node = lower(&session.optimize(&query)?, catalog)?;
        let mut names = BTreeSet::new();
        if let Some(twice) = node.schema.fields().iter().find(|field| !names.insert(field.name())) {
            let error = Error::user(format!("two columns are named \"{}\"", twice.name())).hint("name one of them otherwise, with AS");
            return Err(error.mistake(Mistake::DuplicateColumn));
        }
        Ok(Planned { query, node, reads, size })
    })
}

/// What computes a plain view's query, which was planned when the view was created.
pub fn plan_view(query: &LogicalPlan, catalog: &Catalog) -> Result<NodeRef> {
    on_deep_stack(|| {
        let session = Session::new(catalog)?;
        lower(&session.optimize(query)?, catalog)
    })
}

fn on_deep_stack<T: Send>(plan: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("planner".into()).stack_size(STACK_BYTES).spawn_scoped(scope, plan);
        let thread = thread.map_err(|error| Error::engine(format!("no thread to plan on: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::engine("the planner failed on this statement").hint("simplify it, and report it")))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::Builder;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use tidegate_plan::catalog::{Relation, RelationKind, SourceInfo, WatermarkRule};
    use tidegate_plan::statement::{Statement, parse};
    use tidegate_testdata::malformed::run;

    use super::*;

    const SQL: [&str; 16] = [
        "SELECT id, s FROM t WHERE n > 1.5 AND s LIKE 'a%' OR d IS NULL;",
        "SELECT s, count(*) AS c, sum(d) AS total, avg(n) FROM posts GROUP BY s HAVING count(*) > 3;",
        "SELECT window_start, s, count(DISTINCT id) AS c FROM TUMBLE(posts, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, s;",
        "SELECT a.id, b.s FROM posts a JOIN t b ON a.id = b.id AND a.ts BETWEEN b.ts - INTERVAL '5 minutes' AND b.ts;",
        "SELECT p.id FROM posts p WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.id = p.id) AND p.ts > now() - INTERVAL '1 hour';",
        "WITH RECURSIVE r AS (SELECT id, id AS up FROM t UNION SELECT t.id, r.up FROM t JOIN r ON t.id = r.id + 1) \
         SELECT up, max(id) FROM r GROUP BY up;",
        "SELECT id, row_number() OVER (PARTITION BY s ORDER BY ts DESC) AS nth, lag(n) OVER (ORDER BY id) FROM t;",
        "SELECT CASE WHEN n > 0 THEN 'x' ELSE s END AS c, CAST(d AS BIGINT), ts::date, extract(hour FROM ts) FROM posts;",
        "SELECT id FROM t UNION ALL SELECT id FROM posts EXCEPT SELECT 7;",
        "SELECT * FROM t LEFT JOIN (VALUES (1, 'a'), (2, NULL)) AS v(k, w) ON t.id = v.k ORDER BY 1 LIMIT 10;",
        "SELECT s, (SELECT max(n) FROM posts WHERE posts.s = t.s) AS m FROM t WHERE id IN (SELECT id FROM posts);",
        "SELECT upper(s) || '-' || id AS k, regexp_replace(s, '[0-9]+', '#'), coalesce(n, 0.5), date_trunc('hour', ts) FROM t;",
        "CREATE SOURCE more (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'http');",
        "CREATE TABLE u (a INT, b TEXT NOT NULL, PRIMARY KEY (a)); INSERT INTO u VALUES (1, 'x'); DROP TABLE IF EXISTS u;",
        "CREATE OR REPLACE DETECTION found WITH (severity = 'high') AS SELECT id, max(ts) AS at FROM posts GROUP BY id;",
        "CREATE ACTION act FROM found WITH (connector = 'webhook', url = 'http://x/{id}'); EXPLAIN SELECT 1; SHOW TABLES; CHECKPOINT;",
    ];

    fn catalog() -> Catalog {
        let fields = [
            ("id", DataType::Int64),
            ("s", DataType::Utf8),
            ("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("n", DataType::Float64),
            ("d", DataType::Decimal128(10, 2)),
        ];
        let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
        let watermark = Some(WatermarkRule { column: 2, lateness_ms: 5000 });
        let relation = |name: &str, kind: RelationKind| {
            let name = name.to_string();
            (name.clone(), Relation { name, kind, schema: Arc::clone(&schema) })
        };
        let posts = relation("posts", RelationKind::Source(SourceInfo { index: 0, watermark }));
        Catalog { relations: [posts, relation("t", RelationKind::Table { key: vec![0] })].into() }
    }

    /// Errors are as good as plans, but for those of a planner that panicked.
    fn check(text: &str, catalog: &Catalog) {
        for placed in parse(text, "malformed.sql").into_iter().flatten() {
            let (Statement::Query(query)
            | Statement::Explain { query }
            | Statement::ExplainReplace { query, .. }
            | Statement::CreateView { query, .. }
            | Statement::CreateKept { query, .. }) = &placed.statement
            else {
                continue;
            };
            if let Err(error) = plan_query(query, catalog) {
                let error = placed.pointed(error);
                assert!(!error.message.contains("the planner failed"), "{error}");
            }
        }
    }

    #[test]
    fn of_any_statement_there_is_a_plan_or_a_reason() {
        SQL.iter().for_each(|text| assert!(parse(text, "valid.sql").is_ok(), "{text}"));
        let all = || {
            let catalog = catalog();
            run("SQL", 8, &SQL, |input, _| check(&String::from_utf8_lossy(input), &catalog));
        };
        // As the threads that statements are parsed on.
        Builder::new().stack_size(STACK_BYTES).spawn(all).unwrap().join().unwrap();
    }
}
