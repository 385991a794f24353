//! The past: as it was at any tick, beside the engine that goes on; and what would have come of something changed in it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::engine::Bench;
use super::{TICKS, changes, create, create_over_source, queries, seeds};

const SEEDS: u64 = 24;
const VIEWS: usize = 8;

/// What there was at a tick.
struct Moment {
    tick: u64,
    tables: changes::Tables,
    source: changes::Source,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_as_it_was_and_takes_another_course() {
    for seed in seeds(SEEDS) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut workers = || [1, 2, 4][rng.random_range(0..3)];
        let (now, then) = (workers(), workers());
        let views: Vec<(String, String)> = (0..VIEWS).map(|i| (format!("q{i}"), queries::random(&mut rng))).collect();
        let (early, late) = views.split_at(VIEWS / 2);
        let over_source: Vec<_> = queries::OVER_SOURCE.into_iter().enumerate().collect();
        let mut bench = Bench::start(now);
        bench.run(changes::TABLES).await;
        bench.run(changes::SOURCE).await;
        create(&bench, early, seed).await;
        let (mut tables, mut source) = (changes::Tables::default(), changes::Source::default());
        let mut moments = Vec::new();
        for tick in 0..TICKS {
            if tick == TICKS / 2 {
                create(&bench, late, seed).await;
                create_over_source(&bench, &over_source).await;
            }
            if rng.random_bool(0.3) {
                bench = bench.restart(now, rng.random_bool(0.6), false).await;
            }
            for statement in tables.change(&mut rng) {
                bench.run(&statement).await;
            }
            let rows = source.next(&mut rng);
            bench.push("s", source.batch(&rows)).await;
            source.commit(&rows);
            moments.push(Moment { tick: bench.tick().await, tables: tables.clone(), source: source.clone() });
        }
        let at = rng.random_range(0..TICKS);
        let Moment { tick, tables: tables_then, source: source_then } = &moments[at];
        let said = format!("seed {seed}, workers {now} and {then}, moment {at}");
        let past = bench.past(*tick, then).await;
        let known = if at < TICKS / 2 { early } else { &views[..] };
        compare(&past, known, tables_then, &said).await;
        assert_eq!(past.rows("s_late").await, source_then.late(), "{said}");
        for (_, (name, query)) in over_source.iter().filter(|_| TICKS / 2 <= at) {
            assert_eq!(past.rows(name).await, source_then.recompute(query).await, "{said}, view {name}");
        }
        // Rows that nothing which came later touches, and a view that what came later reaches.
        let (_, (_, query)) = over_source[seed as usize % over_source.len()];
        past.run(&format!("CREATE MATERIALIZED VIEW added AS {query}")).await;
        let mut changed = tables.clone();
        past.run(&changed.add_apart(&mut rng)).await;
        past.relive().await;
        compare(&past, &views, &changed, &format!("{said}, changed")).await;
        assert_eq!(past.rows("added").await, source.recompute(query).await, "{said}, changed, added");
        for (_, (name, query)) in &over_source {
            assert_eq!(past.rows(name).await, source.recompute(query).await, "{said}, changed, view {name}");
        }
        past.stop().await;
        let bench = bench.restart(then, false, false).await;
        compare(&bench, &views, &tables, &format!("{said}, now")).await;
        bench.stop().await;
    }
}

async fn compare(bench: &Bench, views: &[(String, String)], tables: &changes::Tables, said: &str) {
    for (name, query) in views {
        assert_eq!(bench.rows(name).await, tables.batch(query).await, "{said}, view {name}: {query}");
    }
}
