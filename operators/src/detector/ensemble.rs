//! `anomaly_score`: several detectors' doubts about one reading, added up, and told when they
//! are worse than of late.
//!
//! SQL     anomaly_score(value, train)
//! Out     NULL for the first `train` rows; then 0, or the sum of: a spread of values not met
//!         before (1), a step (a tenth of its z over 8000 steps), a level (a fifth of the z of a
//!         smoothed reading over 6400), and what lies outside all there was (5 per range)
//! State   8 bytes for each of up to 14,400 rows, 16 for each of `0.3 * train`: 120 KiB at most
//!         for 750; constant cost
//! Source  the parts are those of `z`, `entropy` and `extremes`. Weights were chosen on 14 files
//!         of the Numenta Anomaly Benchmark: benches/README.md says how well they carry over

use super::chart::Ewma;
use super::entropy::RelativeEntropy;
use super::extremes::Rest;
use super::z::{ChangeZ, LevelZ};
use super::{Detector, Footprint};

const STEP_WINDOW: usize = 8000;
const STEP_WEIGHT: f64 = 0.1;
const LEVEL_WINDOW: usize = 6400;
const LEVEL_WEIGHT: f64 = 0.2;
const LEVEL_SMOOTHING: f64 = 0.1;
const OUTSIDE_WEIGHT: f64 = 5.0;
const SPREAD_WEIGHT: f64 = 1.0;
/// Of `train`, how long a doubt silences lesser ones.
const REST: f64 = 0.3;

#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    train: usize,
    /// Rows so far, `train` at most.
    rows: usize,
    step: ChangeZ,
    smooth: Ewma,
    level: LevelZ,
    spread: RelativeEntropy,
    range: Range,
    rest: Rest,
}

impl Ensemble {
    pub fn new(train: usize) -> Self {
        Self {
            train,
            rows: 0,
            step: ChangeZ::new(STEP_WINDOW),
            smooth: Ewma::new(LEVEL_SMOOTHING),
            level: LevelZ::new(LEVEL_WINDOW),
            spread: RelativeEntropy::new(train),
            range: Range::default(),
            rest: Rest::new(((REST * train as f64) as usize).max(1)),
        }
    }
}

impl Detector for Ensemble {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let smooth = self.smooth.step(x).unwrap_or(x[0]);
        let doubts = [
            (STEP_WEIGHT, self.step.step(x)),
            (LEVEL_WEIGHT, self.level.step(&[smooth])),
            (SPREAD_WEIGHT, self.spread.step(x)),
            (OUTSIDE_WEIGHT, self.range.step(x)),
        ];
        let total = doubts.into_iter().filter_map(|(weight, doubt)| doubt.map(|doubt| weight * doubt.max(0.0))).sum();
        let told = self.rest.step(&[total]);
        if self.rows < self.train {
            self.rows += 1;
            return None;
        }
        told
    }
}

impl Footprint for Ensemble {
    fn bytes(&self) -> usize {
        let parts = [self.step.bytes(), self.smooth.bytes(), self.level.bytes(), self.spread.bytes(), self.rest.bytes()];
        size_of::<Range>() + parts.into_iter().sum::<usize>()
    }
}

/// How far outside of all readings before, in units of what these span.
#[derive(Debug, Clone, PartialEq)]
struct Range {
    rows: usize,
    low: f64,
    high: f64,
}

/// Until then a range is young, and left by chance.
const RANGE_ROWS_MIN: usize = 50;
/// A reading that is further out is no worse.
const OUTSIDE_MAX: f64 = 2.0;

impl Default for Range {
    fn default() -> Self {
        Self { rows: 0, low: f64::MAX, high: f64::MIN }
    }
}

impl Detector for Range {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let outside = (RANGE_ROWS_MIN < self.rows && self.low < self.high).then(|| {
            let beyond = (x[0] - self.high).max(self.low - x[0]).max(0.0);
            (beyond / (self.high - self.low)).min(OUTSIDE_MAX)
        });
        self.rows = (self.rows + 1).min(RANGE_ROWS_MIN + 1);
        (self.low, self.high) = (self.low.min(x[0]), self.high.max(x[0]));
        outside.filter(|outside| outside.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scores;
    use super::*;

    #[test]
    fn readings_outside_of_all_before_are_told_by_how_far() {
        let x: Vec<f64> = (0..60).map(|i| f64::from(i % 5)).chain([6.0, 6.0, -30.0]).collect();
        let found = scores(Range::default(), &x);
        assert_eq!(found[50], None);
        assert_eq!(found[59..], [Some(0.0), Some(0.5), Some(0.0), Some(OUTSIDE_MAX)]);
    }

    #[test]
    fn one_doubt_silences_lesser_ones() {
        let x: Vec<f64> = (0..400).map(|i| f64::from(i % 7) + if [300, 310].contains(&i) { 100.0 } else { 0.0 }).collect();
        let found = scores(Ensemble::new(100), &x);
        assert!(found[..100].iter().all(Option::is_none) && found[100..300].iter().all(|score| score.is_some_and(|score| score < 1.0)));
        assert!(10.0 < found[300].unwrap());
        assert!(found[301..330].iter().all(|score| *score == Some(0.0)));
    }
}
