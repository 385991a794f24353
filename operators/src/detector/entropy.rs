//! `relative_entropy`: whether the values of late are spread over bins as they ever were.
//!
//! SQL     relative_entropy(value, train)
//! Out     NULL for the first `train` rows and until 52 have come; then 1 where the last 52 values
//!         agree with no distribution met before, which becomes one more, else 0
//! State   0.5 KiB and at most 64 distributions of 10 bytes; cost 5 subtractions per distribution
//! Source  Wang, Viswanathan et al., Statistical Techniques for Online Anomaly Detection in Data
//!         Centers, 2011. The bins span what the first `train` rows did, and half as much on
//!         either side: nothing that comes later is looked at.

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::{Detector, Footprint};

const BINS: usize = 5;
const WINDOW: usize = 52;

/// Of chi squared with `BINS - 1` degrees of freedom, what one in a hundred exceeds.
const AGREEMENT_MAX: f64 = 13.276704135987622;

/// Distributions kept; the one that was met longest ago makes room.
const DISTRIBUTIONS_MAX: usize = 64;

type Counts = [u8; BINS];

/// Of all counts there are; of none it is infinite.
static LOGARITHMS: LazyLock<[f64; WINDOW + 1]> = LazyLock::new(|| std::array::from_fn(|count| (count as f64).ln()));

#[derive(Debug, Clone, PartialEq)]
pub struct RelativeEntropy {
    train: usize,
    /// Rows so far, `train` at most.
    rows: usize,
    low: f64,
    high: f64,
    window: VecDeque<f64>,
    /// Of the window, by bin; once the bins are known.
    counts: Counts,
    /// The one met last comes last.
    distributions: Vec<Counts>,
}

impl RelativeEntropy {
    pub fn new(train: usize) -> Self {
        Self { train, rows: 0, low: f64::MAX, high: f64::MIN, window: VecDeque::new(), counts: [0; BINS], distributions: Vec::new() }
    }

    fn bin(&self, value: f64) -> usize {
        // Halves, as the span of two numbers may be none.
        let (low, high) = (self.low / 2.0, self.high / 2.0);
        let share = if low < high { (value / 2.0 - (low - (high - low) / 2.0)) / (2.0 * (high - low)) } else { 0.5 };
        // `as` ends at the smallest and the largest bin.
        ((share * BINS as f64) as usize).min(BINS - 1)
    }

    fn is_new(&mut self) -> bool {
        let counts = self.counts;
        let distances = self.distributions.iter().map(|known| 2.0 * WINDOW as f64 * divergence(&counts, known));
        let closest = distances.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        match closest {
            Some((at, distance)) if distance < AGREEMENT_MAX => {
                let known = self.distributions.remove(at);
                self.distributions.push(known);
                false
            }
            _ => {
                if self.distributions.len() == DISTRIBUTIONS_MAX {
                    self.distributions.remove(0);
                }
                let is_first = self.distributions.is_empty();
                self.distributions.push(counts);
                !is_first
            }
        }
    }
}

impl Detector for RelativeEntropy {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let oldest = if self.window.len() == WINDOW { self.window.pop_front() } else { None };
        self.window.push_back(x[0]);
        if self.rows < self.train {
            self.rows += 1;
            (self.low, self.high) = (self.low.min(x[0]), self.high.max(x[0]));
            if self.rows == self.train {
                let mut counts = [0; BINS];
                self.window.iter().for_each(|value| counts[self.bin(*value)] += 1);
                self.counts = counts;
            }
            return None;
        }
        if let Some(oldest) = oldest.map(|oldest| self.bin(oldest)) {
            self.counts[oldest] -= 1;
        }
        let newest = self.bin(x[0]);
        self.counts[newest] += 1;
        (self.window.len() == WINDOW).then(|| if self.is_new() { 1.0 } else { 0.0 })
    }
}

impl Footprint for RelativeEntropy {
    fn bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.window.len() + BINS * self.distributions.len()
    }
}

/// Kullback and Leibler's, of two windows' counts: infinite where `known` lacks what `found` has.
fn divergence(found: &Counts, known: &Counts) -> f64 {
    let terms = found.iter().zip(known).filter(|(found, _)| 0 < **found);
    terms.map(|(&found, &known)| f64::from(found) / WINDOW as f64 * (LOGARITHMS[usize::from(found)] - LOGARITHMS[usize::from(known)])).sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests::scores;
    use super::*;

    #[test]
    fn a_spread_not_met_before_is_told_once() {
        let phase = |level: f64| (0..60).map(move |i| level + f64::from(i % 4));
        let x: Vec<f64> = phase(10.0).chain(phase(10.0)).chain(phase(13.5)).chain(phase(10.0)).chain(phase(13.5)).collect();
        let alarms: Vec<usize> = (0..x.len()).filter(|&at| scores(RelativeEntropy::new(60), &x)[at] == Some(1.0)).collect();
        assert!(!alarms.is_empty() && alarms.iter().all(|at| (120..240).contains(at)), "{alarms:?}");
    }

    #[test]
    fn divergence_is_by_hand() {
        assert_eq!(divergence(&[26, 26, 0, 0, 0], &[26, 26, 0, 0, 0]), 0.0);
        assert!((divergence(&[52, 0, 0, 0, 0], &[26, 26, 0, 0, 0]) - 2f64.ln()).abs() < 1e-12);
        assert_eq!(divergence(&[26, 26, 0, 0, 0], &[52, 0, 0, 0, 0]), f64::INFINITY);
    }
}
