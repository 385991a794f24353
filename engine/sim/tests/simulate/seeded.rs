//! What the simulation is worth: bugs are put into the engine, and it has to find each of them.
//!
//! `TIDEGATE_BUG_SEEDS=500` looks longer before it gives up.

use tidegate_runtime::{Bug, Seeded};
use tidegate_sim::scenario::{Failure, simulate, simulate_plan};
use tidegate_sim::schedule::Plan;

use super::{each, number};

/// Scenarios within which a bug is found.
const BUG_SEEDS: u64 = 60;

/// What is shown of a broken promise.
const SHOWN_CHARS: usize = 200;

#[test]
fn each_seeded_bug_is_caught() {
    let seeds = number("TIDEGATE_BUG_SEEDS").unwrap_or(BUG_SEEDS);
    let caught = each(&Bug::ALL, |bug| hunt(*bug, seeds));
    // It is the bug that was caught: without one the same scenarios keep every promise.
    let all: Vec<u64> = (0..=caught.iter().copied().max().unwrap_or(0)).collect();
    each(&all, |seed| simulate(*seed));
    println!("{} of {} seeded bugs caught; {} scenarios without one keep every promise", caught.len(), Bug::ALL.len(), all.len());
}

/// The seed that catches the bug. Errors: none of the first `seeds` does.
fn hunt(bug: Bug, seeds: u64) -> Result<u64, Failure> {
    for seed in 0..seeds {
        if let Err(failure) = simulate_plan(Plan { bug: Seeded::with(bug), ..Plan::seeded(seed) }) {
            let shown: String = failure.what.lines().next().unwrap_or_default().chars().take(SHOWN_CHARS).collect();
            println!("caught {bug:?} by seed {seed} after {} seeds: {shown}", seed + 1);
            return Ok(seed);
        }
    }
    Err(Failure { seed: seeds, what: format!("{bug:?} is not caught within {seeds} seeds"), story: Vec::new() })
}
