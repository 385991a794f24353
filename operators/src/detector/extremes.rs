//! `rest` and `spread`: what is told from the largest and the smallest of the last rows.
//!
//! SQL     rest(score, rows), spread(value, rows)
//! Out     rest: the score where it is above all of the last `rows`, else 0;
//!         spread: largest - smallest of the last `rows`, NULL until there are as many;
//!         `spread(value, 30) <= 0.1` is a stuck sensor
//! State   16 bytes per row that no later one outdoes, `rows` at most; constant cost on average
//! Source  Lemire, Nordic Journal of Computing, 2006 (monotonic queues)

use std::collections::VecDeque;

use super::{Detector, Footprint};

/// The largest of a window that moves by position.
#[derive(Debug, Clone, PartialEq, Default)]
struct Largest {
    /// (position, number): numbers fall, positions rise.
    candidates: VecDeque<(u64, f64)>,
}

impl Largest {
    fn push(&mut self, position: u64, number: f64) {
        while self.candidates.back().is_some_and(|(_, other)| *other <= number) {
            self.candidates.pop_back();
        }
        self.candidates.push_back((position, number));
    }

    /// Of the numbers at `first` or later.
    fn since(&mut self, first: u64) -> Option<f64> {
        while self.candidates.front().is_some_and(|(position, _)| *position < first) {
            self.candidates.pop_front();
        }
        self.candidates.front().map(|(_, number)| *number)
    }
}

/// After an alarm the next comes only when it is worse, or `rows` later.
#[derive(Debug, Clone)]
pub struct Rest {
    rows: u64,
    position: u64,
    largest: Largest,
}

impl Rest {
    pub fn new(rows: usize) -> Self {
        Self { rows: rows as u64, position: 0, largest: Largest::default() }
    }
}

impl Detector for Rest {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let largest = self.largest.since(self.position.saturating_sub(self.rows));
        self.largest.push(self.position, x[0]);
        self.position += 1;
        let is_above = largest.is_none_or(|largest| largest < x[0]);
        Some(if is_above { x[0] } else { 0.0 })
    }
}

impl PartialEq for Rest {
    // Where rows were inserted or deleted, positions move; what is to come only sees distances.
    fn eq(&self, other: &Self) -> bool {
        let distances = |rest: &Self| rest.largest.candidates.iter().map(|(at, x)| (rest.position - at, *x)).collect::<Vec<_>>();
        self.rows == other.rows && distances(self) == distances(other)
    }
}

impl Footprint for Rest {
    fn bytes(&self) -> usize {
        size_of::<Self>() + 16 * self.largest.candidates.len()
    }
}

#[derive(Debug, Clone)]
pub struct Spread {
    rows: u64,
    position: u64,
    largest: Largest,
    /// Of the negated numbers.
    smallest: Largest,
}

impl Spread {
    pub fn new(rows: usize) -> Self {
        Self { rows: rows as u64, position: 0, largest: Largest::default(), smallest: Largest::default() }
    }
}

impl Detector for Spread {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        self.largest.push(self.position, x[0]);
        self.smallest.push(self.position, -x[0]);
        self.position += 1;
        let first = self.position.saturating_sub(self.rows);
        let (high, low) = (self.largest.since(first)?, self.smallest.since(first)?);
        (self.rows <= self.position).then_some(high + low)
    }
}

impl PartialEq for Spread {
    fn eq(&self, other: &Self) -> bool {
        let distances = |spread: &Self| {
            let candidates = spread.largest.candidates.iter().chain(&spread.smallest.candidates);
            candidates.map(|(at, x)| (spread.position - at, *x)).collect::<Vec<_>>()
        };
        self.rows == other.rows && self.position.min(self.rows) == other.position.min(other.rows) && distances(self) == distances(other)
    }
}

impl Footprint for Spread {
    fn bytes(&self) -> usize {
        size_of::<Self>() + 16 * (self.largest.candidates.len() + self.smallest.candidates.len())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::tests::scores;
    use super::*;

    #[test]
    fn both_equal_a_look_at_all_of_the_window() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let rows = rng.random_range(1..12);
            let x: Vec<f64> = (0..60).map(|_| f64::from(rng.random_range(0..9))).collect();
            let (rest, spread) = (scores(Rest::new(rows), &x), scores(Spread::new(rows), &x));
            for at in 0..x.len() {
                let before = &x[at.saturating_sub(rows)..at];
                let expected = if before.iter().all(|y| *y < x[at]) { x[at] } else { 0.0 };
                assert_eq!(rest[at], Some(expected), "seed {seed}, row {at}");
                let window = &x[(at + 1).saturating_sub(rows)..=at];
                let (high, low) = (window.iter().copied().fold(f64::MIN, f64::max), window.iter().copied().fold(f64::MAX, f64::min));
                assert_eq!(spread[at], (window.len() == rows).then_some(high - low), "seed {seed}, row {at}");
            }
        }
    }
}
