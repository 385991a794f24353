//! Random rows, and what batch recomputation makes of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use rand::Rng;
use rand::rngs::StdRng;
use tidegate_plan::sql::state_builder;

use super::canonical;

pub const TABLES: &str = "
    CREATE TABLE a (k BIGINT, v BIGINT, f DOUBLE, s TEXT, ts TIMESTAMP);
    CREATE TABLE b (k BIGINT, w BIGINT, s TEXT);
    CREATE TABLE e (src BIGINT, dst BIGINT);";

/// The tables' rows as SQL literals, changed alike here and in the engine.
#[derive(Clone, Default)]
pub struct Tables {
    a: Vec<[String; 5]>,
    b: Vec<[String; 3]>,
    e: Vec<[String; 2]>,
}

/// Few values, so that keys meet and rows repeat; NULLs, NaN and ties among them.
fn integer(rng: &mut StdRng, below: i64) -> String {
    if rng.random_bool(0.1) { "NULL".into() } else { rng.random_range(0..below).to_string() }
}

fn float(rng: &mut StdRng) -> String {
    match rng.random_range(0..20) {
        0 => "NULL".into(),
        1 => "'NaN'::DOUBLE".into(),
        2 => "1e300::DOUBLE".into(),
        _ => format!("{:.2}::DOUBLE", f64::from(rng.random_range(-400..400)) / 7.0),
    }
}

fn text(rng: &mut StdRng) -> String {
    ["NULL", "''", "'x'", "'yy'", "'Zed'", "'ünï'"][rng.random_range(0..6)].into()
}

fn time(rng: &mut StdRng) -> String {
    if rng.random_bool(0.08) {
        return "NULL".into();
    }
    format!("TIMESTAMP '2024-01-01 00:{:02}:{:02}'", rng.random_range(0..20), rng.random_range(0..60))
}

impl Tables {
    /// A few statements: each is a tick. Deletions hit what is there.
    pub fn change(&mut self, rng: &mut StdRng) -> Vec<String> {
        let mut statements = Vec::new();
        for _ in 0..rng.random_range(1..4) {
            match rng.random_range(0..10) {
                0..4 => {
                    let rows: Vec<_> = (0..rng.random_range(1..12))
                        .map(|_| [integer(rng, 6), integer(rng, 20), float(rng), text(rng), time(rng)])
                        .collect();
                    statements.push(insert("a", &rows));
                    self.a.extend(rows);
                }
                4..6 => {
                    let rows: Vec<_> = (0..rng.random_range(1..8)).map(|_| [integer(rng, 6), integer(rng, 20), text(rng)]).collect();
                    statements.push(insert("b", &rows));
                    self.b.extend(rows);
                }
                6..8 => {
                    let rows: Vec<_> = (0..rng.random_range(1..6)).map(|_| [integer(rng, 7), integer(rng, 7)]).collect();
                    statements.push(insert("e", &rows));
                    self.e.extend(rows);
                }
                8 => {
                    let k = rng.random_range(0..6).to_string();
                    let table = rng.random_range(0..3);
                    let (name, column) = [("a", "k"), ("b", "k"), ("e", "src")][table];
                    statements.push(format!("DELETE FROM {name} WHERE {column} = {k}"));
                    match table {
                        0 => self.a.retain(|row| row[0] != k),
                        1 => self.b.retain(|row| row[0] != k),
                        _ => self.e.retain(|row| row[0] != k),
                    }
                }
                _ => {
                    let (k, to) = (rng.random_range(0..6).to_string(), rng.random_range(0..20).to_string());
                    statements.push(format!("UPDATE a SET v = {to} WHERE k = {k}"));
                    self.a.iter_mut().filter(|row| row[0] == k).for_each(|row| row[1].clone_from(&to));
                }
            }
        }
        statements
    }

    /// Rows that no other change hits.
    pub fn add_apart(&mut self, rng: &mut StdRng) -> String {
        let row = |rng: &mut StdRng| [rng.random_range(1000..1003).to_string(), integer(rng, 20), float(rng), text(rng), time(rng)];
        let rows: Vec<_> = (0..rng.random_range(1..6)).map(|_| row(rng)).collect();
        self.a.extend(rows.clone());
        insert("a", &rows)
    }

    /// DataFusion's answer over the rows as they are now.
    pub async fn batch(&self, query: &str) -> Vec<String> {
        let context = SessionContext::new_with_state(state_builder().build());
        table(&context, "a (k BIGINT, v BIGINT, f DOUBLE, s VARCHAR, ts TIMESTAMP)", &self.a).await;
        table(&context, "b (k BIGINT, w BIGINT, s VARCHAR)", &self.b).await;
        table(&context, "e (src BIGINT, dst BIGINT)", &self.e).await;
        let frame = context.sql(query).await.unwrap_or_else(|error| panic!("{error}\n{query}"));
        canonical(&frame.collect().await.unwrap_or_else(|error| panic!("{error}\n{query}")))
    }
}

fn insert<const N: usize>(table: &str, rows: &[[String; N]]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| format!("({})", row.join(", "))).collect();
    format!("INSERT INTO {table} VALUES {}", rows.join(", "))
}

async fn table<const N: usize>(context: &SessionContext, declaration: &str, rows: &[[String; N]]) {
    context.sql(&format!("CREATE TABLE {declaration}")).await.unwrap().collect().await.unwrap();
    if !rows.is_empty() {
        let name = declaration.split_whitespace().next().unwrap();
        context.sql(&insert(name, rows)).await.unwrap().collect().await.unwrap();
    }
}

pub const SOURCE: &str = "CREATE SOURCE s (k BIGINT, v BIGINT, name TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'none')";

/// Lateness in [`SOURCE`].
const LATENESS_MS: i64 = 5_000;

pub type Event = (Option<i64>, i64, &'static str, Option<i64>);

/// A source's rows, with the verdict taken a second time, by hand.
#[derive(Clone, Default)]
pub struct Source {
    clock_ms: i64,
    seen_ms: Option<i64>,
    on_time: Vec<Event>,
    late: Vec<Event>,
}

impl Source {
    /// Mostly in order; some far behind, some twice, some without a time.
    pub fn next(&mut self, rng: &mut StdRng) -> Vec<Event> {
        let mut rows: Vec<Event> = Vec::new();
        for _ in 0..rng.random_range(1..40) {
            self.clock_ms += rng.random_range(0..1500);
            let behind = if rng.random_bool(0.2) { rng.random_range(0..30_000) } else { 0 };
            let ts = if rng.random_bool(0.03) { None } else { Some((self.clock_ms - behind).max(0)) };
            let k = if rng.random_bool(0.05) { None } else { Some(rng.random_range(0..4)) };
            rows.push((k, rng.random_range(0..50), ["x", "y", "zz"][rng.random_range(0..3)], ts));
            if rng.random_bool(0.1) {
                rows.push(*rows.last().unwrap());
            }
        }
        rows
    }

    /// Whether splitting `rows` over ticks leaves every verdict as it is.
    pub fn same_watermark(&self, rows: &[Event]) -> bool {
        let seen = rows.iter().filter_map(|row| row.3).max();
        let then = self.seen_ms.max(seen).map(|seen| seen - LATENESS_MS);
        rows.iter().filter_map(|row| row.3).all(|ts| then.is_none_or(|then| then <= ts))
    }

    pub fn commit(&mut self, rows: &[Event]) {
        let watermark = self.seen_ms.map(|seen| seen - LATENESS_MS);
        for row in rows {
            match (row.3, watermark) {
                (Some(ts), Some(watermark)) if ts < watermark => self.late.push(*row),
                _ => self.on_time.push(*row),
            }
        }
        self.seen_ms = self.seen_ms.max(rows.iter().filter_map(|row| row.3).max());
    }

    pub fn batch(&self, rows: &[Event]) -> RecordBatch {
        batch(rows)
    }

    pub fn late(&self) -> Vec<String> {
        canonical(&[batch(&self.late)])
    }

    pub async fn recompute(&self, query: &str) -> Vec<String> {
        let context = SessionContext::new_with_state(state_builder().build());
        let rows = batch(&self.on_time);
        context.register_table("s", Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap())).unwrap();
        canonical(&context.sql(query).await.unwrap().collect().await.unwrap())
    }
}

fn batch(rows: &[Event]) -> RecordBatch {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}
