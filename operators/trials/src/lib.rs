//! What the trials under `tests` share: relations that change at random, and what a dataflow says of them after
//! each tick. The trials are a crate of their own, so that their many dataflows are compiled at the lowest level of
//! optimisation: they hold a handful of rows each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use differential_dataflow::Data;
use differential_dataflow::input::InputSession;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_operators::cascade::{Id, Relation};
use timely::dataflow::operators::{Inspect, Probe};

/// Per tick, the rows that come and go.
pub type Edits<R> = Vec<Vec<(R, i64)>>;

/// What `build` says after each tick's edits.
pub fn answers<R: Data + Send + Sync, D: Id>(
    workers: usize,
    edits: &Edits<R>,
    build: impl for<'s> Fn(Relation<'s, u64, R>) -> Relation<'s, u64, D> + Send + Sync + 'static,
) -> Vec<BTreeMap<D, i64>> {
    let changes: Arc<Mutex<Vec<(D, u64, i64)>>> = Arc::default();
    let (told, given) = (Arc::clone(&changes), edits.clone());
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let told = Arc::clone(&told);
        let mut input = InputSession::new();
        let probe = worker.dataflow(|scope| {
            let answer = build(input.to_collection(scope));
            answer.inner.inspect(move |change| told.lock().unwrap().push(change.clone())).probe().0
        });
        for (tick, rows) in given.iter().enumerate() {
            let mine = rows.iter().enumerate().filter(|(i, _)| i % worker.peers() == worker.index());
            for (i, (row, diff)) in mine {
                // A worker may be behind the time of what it is given.
                if i % 3 == 0 {
                    input.advance_to(tick as u64);
                }
                input.update_at(row.clone(), tick as u64, *diff);
            }
            // Some ticks are closed together.
            if tick % 3 != 1 {
                input.advance_to(tick as u64 + 1);
                input.flush();
                worker.step_or_park_while(None, || probe.less_than(&(tick as u64 + 1)));
            }
        }
    });
    guards.expect("workers start").join().into_iter().for_each(|done| done.expect("workers end"));
    let changes = changes.lock().unwrap();
    let at = |tick: u64| {
        let mut net = BTreeMap::new();
        changes.iter().filter(|change| change.1 <= tick).for_each(|(row, _, diff)| *net.entry(row.clone()).or_default() += diff);
        net.retain(|_, count| *count != 0);
        net
    };
    (0..edits.len() as u64).map(at).collect()
}

/// All rows there are after each tick, several times where they are so.
pub fn states<R: Ord + Clone>(edits: &Edits<R>) -> Vec<Vec<R>> {
    let mut rows: BTreeMap<R, i64> = BTreeMap::new();
    let state = |edits: &Vec<(R, i64)>| {
        edits.iter().for_each(|(row, diff)| *rows.entry(row.clone()).or_default() += diff);
        rows.iter().flat_map(|(row, count)| std::iter::repeat_n(row.clone(), *count as usize)).collect()
    };
    edits.iter().map(state).collect()
}

/// Rows come, more than once too, and go again.
pub fn random_edits<R: Clone>(seed: u64, ticks: usize, row: fn(&mut StdRng) -> R) -> Edits<R> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut there: Vec<R> = Vec::new();
    let edits = (0..ticks).map(|_| {
        let tick = (0..random.random_range(1..12)).map(|_| match there.len() {
            len if 0 < len && random.random_bool(0.4) => (there.swap_remove(random.random_range(0..len)), -1),
            len => {
                let again = 0 < len && random.random_bool(0.1);
                let row = if again { there[random.random_range(0..len)].clone() } else { row(&mut random) };
                there.push(row.clone());
                (row, 1)
            }
        });
        tick.collect()
    });
    edits.collect()
}
