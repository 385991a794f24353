//! The second opinion: random queries over random changes, every view at every tick, against
//! DataFusion in batch over the same rows.
//!
//! `TIDEGATE_ORACLE_SEEDS=5000` runs more; `TIDEGATE_ORACLE_SEED=17` replays one.

mod beside;
mod changes;
mod correlated;
mod crowded;
mod engine;
mod failed;
mod past;
mod previews;
mod queries;
mod stopped;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::Bench;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEEDS: u64 = 45;
const TICKS: usize = 7;
const VIEWS: usize = 16;

fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("TIDEGATE_ORACLE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TIDEGATE_ORACLE_SEEDS").unwrap_or(default)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_over_changing_tables_equal_recomputation() {
    let mut compared = 0;
    for seed in seeds(SEEDS) {
        let workers = [1, 2, 4][seed as usize % 3];
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bench = Bench::start(workers);
        bench.run(changes::TABLES).await;
        let mut tables = changes::Tables::default();
        // Half of the views see their tables grow, the other half are born late.
        let views: Vec<(String, String)> = (0..VIEWS).map(|i| (format!("q{i}"), queries::random(&mut rng))).collect();
        let (early, late) = views.split_at(VIEWS / 2);
        create(&bench, early, seed).await;
        let mut done = Vec::new();
        for tick in 0..TICKS {
            if rng.random_bool(0.15) {
                bench = bench.restart([1, 2, 4][rng.random_range(0..3)], rng.random_bool(0.6), true).await;
                done.push("-- the engine is started again".to_string());
            }
            if tick == TICKS / 2 {
                create(&bench, late, seed).await;
                done.push("-- the late views are created".to_string());
            }
            for statement in tables.change(&mut rng) {
                bench.run(&statement).await;
                done.push(statement);
            }
            let living = if tick < TICKS / 2 { early } else { &views[..] };
            for (name, query) in living {
                let expected = tables.batch(query).await;
                let actual = bench.rows(name).await;
                assert_eq!(actual, expected, "seed {seed}, {workers} workers, tick {tick}, view {name}: {query}\n{}", done.join(";\n"));
                compared += 1;
            }
        }
        bench.stop().await;
    }
    println!("{compared} views compared");
}

async fn create(bench: &Bench, views: &[(String, String)], seed: u64) {
    for (name, query) in views {
        let created = bench.try_run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await;
        if let Err(error) = created {
            panic!("seed {seed}: {error}\n{query}");
        }
    }
}

async fn create_over_source(bench: &Bench, views: &[(usize, (&str, &str))]) {
    for (_, (name, query)) in views {
        bench.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await;
    }
}

/// Rows of a source with late ones among them: the verdict, and windows whose state is freed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_over_a_source_with_late_rows_equal_recomputation() {
    for seed in seeds(30) {
        let mut outcomes = Vec::new();
        for (workers, splits) in [(1, 1), (2, 3), (4, 2)] {
            let mut rng = StdRng::seed_from_u64(seed);
            // Where it is started again is another chance, so that all splits see the same rows.
            let mut fate = StdRng::seed_from_u64(seed ^ workers as u64);
            let mut bench = Bench::start(workers);
            bench.run(changes::SOURCE).await;
            // Every other view is born late, when windows are past already.
            let (early, late): (Vec<_>, Vec<_>) =
                queries::OVER_SOURCE.into_iter().enumerate().partition(|(i, _)| (*i as u64 + seed).is_multiple_of(2));
            create_over_source(&bench, &early).await;
            let mut source = changes::Source::default();
            for tick in 0..TICKS {
                if tick == TICKS / 2 {
                    create_over_source(&bench, &late).await;
                }
                if fate.random_bool(0.2) {
                    bench = bench.restart(workers, fate.random_bool(0.7), TICKS / 2 <= tick).await;
                }
                let living = early.iter().chain(late.iter().filter(|_| TICKS / 2 <= tick));
                let rows = source.next(&mut rng);
                // One batch or several: the verdict is per tick, so a split must keep to one watermark.
                let parts = if source.same_watermark(&rows) { splits } else { 1 };
                for part in rows.chunks(rows.len().div_ceil(parts).max(1)) {
                    bench.push("s", source.batch(part)).await;
                    source.commit(part);
                }
                for (_, (name, query)) in living {
                    let expected = source.recompute(query).await;
                    assert_eq!(bench.rows(name).await, expected, "seed {seed}, {workers} workers, tick {tick}, view {name}");
                }
                assert_eq!(bench.rows("s_late").await, source.late(), "seed {seed}, {workers} workers, late rows");
            }
            let mut last = BTreeMap::new();
            for (name, _) in queries::OVER_SOURCE {
                last.insert(name, bench.rows(name).await);
            }
            outcomes.push(last);
            bench.stop().await;
        }
        assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: workers and splits differ");
    }
}

/// What was inserted and taken back leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_everything_back_leaves_what_nothing_gives() {
    for seed in seeds(9) {
        let mut rng = StdRng::seed_from_u64(seed);
        let bench = Bench::start(1 + seed as usize % 2);
        bench.run(changes::TABLES).await;
        let views: Vec<(String, String)> = (0..VIEWS).map(|i| (format!("q{i}"), queries::random(&mut rng))).collect();
        create(&bench, &views, seed).await;
        let mut tables = changes::Tables::default();
        for _ in 0..rng.random_range(1..4) {
            for statement in tables.change(&mut rng) {
                bench.run(&statement).await;
            }
        }
        for table in ["a", "b", "e"] {
            bench.run(&format!("DELETE FROM {table}")).await;
        }
        let empty = changes::Tables::default();
        for (name, query) in &views {
            assert_eq!(bench.rows(name).await, empty.batch(query).await, "seed {seed}, view {name}: {query}");
        }
        bench.stop().await;
    }
}

/// Rows as sorted text. Floats to ten digits: both sides may add them in their own order.
fn canonical(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns()).map(|(column, array)| {
                let text = column.value(row).to_string();
                match array.data_type() {
                    DataType::Float64 | DataType::Float32 => text.parse::<f64>().map_or(text, |x| format!("{:.9e}", x + 0.0)),
                    _ => text,
                }
            });
            rows.push(cells.collect::<Vec<_>>().join(" | "));
        }
    }
    rows.sort();
    rows
}
