//! `cusum`, `ewma` and `ewma_z`: control charts.
//!
//! SQL     cusum(z, k), cusum(z, k, h), ewma(value, lambda), ewma_z(z, lambda)
//! In      cusum and ewma_z take standardised values: target 0, deviation 1
//! Out     cusum: max(0, S + z - k); with h it starts again from 0 behind a row above h.
//!         Falls are cusum(-z, k). ewma: the average, from the first value on; ewma_z: the
//!         average from 0 on, over its own deviation: 3 is the usual limit
//! State   16 to 40 bytes, constant cost
//! Source  Page, Biometrika, 1954; Roberts, Technometrics, 1959

use super::{Detector, Footprint};

#[derive(Debug, Clone, PartialEq)]
pub struct Cusum {
    slack: f64,
    /// Infinite: never starts again.
    restart_above: f64,
    sum: f64,
}

impl Cusum {
    pub fn new(slack: f64, restart_above: f64) -> Self {
        Self { slack, restart_above, sum: 0.0 }
    }
}

impl Detector for Cusum {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let from = if self.restart_above < self.sum { 0.0 } else { self.sum };
        self.sum = (from + x[0] - self.slack).clamp(0.0, f64::MAX);
        Some(self.sum)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Ewma {
    weight: f64,
    average: Option<f64>,
}

impl Ewma {
    pub fn new(weight: f64) -> Self {
        Self { weight, average: None }
    }
}

impl Detector for Ewma {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let average = self.average.map_or(x[0], |average| (1.0 - self.weight) * average + self.weight * x[0]);
        self.average = Some(average);
        self.average
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct EwmaZ {
    weight: f64,
    average: f64,
    /// (1 - weight) to the power of twice the rows so far.
    faded: f64,
}

impl EwmaZ {
    pub fn new(weight: f64) -> Self {
        Self { weight, average: 0.0, faded: 1.0 }
    }
}

impl Detector for EwmaZ {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        self.average = (1.0 - self.weight) * self.average + self.weight * x[0];
        self.faded *= (1.0 - self.weight).powi(2);
        Some(self.average / (self.weight / (2.0 - self.weight) * (1.0 - self.faded)).sqrt())
    }
}

impl Footprint for Cusum {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

impl Footprint for Ewma {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

impl Footprint for EwmaZ {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scores;
    use super::*;

    const STEP: [f64; 7] = [0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0];

    fn near(found: &[Option<f64>], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let is_near = found.iter().zip(expected).all(|(found, expected)| (found.unwrap() - expected).abs() < tolerance);
        assert!(is_near, "{found:?} for {expected:?}");
    }

    #[test]
    fn a_step_adds_up() {
        near(&scores(Cusum::new(0.5, f64::INFINITY), &STEP), &[0.0, 0.0, 0.5, 2.0, 3.5, 5.0, 6.5], 1e-12);
        // 5 is above 4: the row behind it starts from 0.
        near(&scores(Cusum::new(0.5, 4.0), &STEP), &[0.0, 0.0, 0.5, 2.0, 3.5, 5.0, 1.5], 1e-12);
    }

    #[test]
    fn the_average_leaves_its_limits_with_the_sixth_row() {
        near(&scores(Ewma::new(0.2), &STEP), &[0.0, 0.0, 0.2, 0.56, 0.848, 1.0784, 1.26272], 1e-9);
        let limits = [0.6, 0.7684, 0.859, 0.9123, 0.9448, 0.965, 0.9778];
        let averages = [0.0, 0.0, 0.2, 0.56, 0.848, 1.0784, 1.26272];
        let expected: Vec<f64> = averages.iter().zip(limits).map(|(average, limit)| 3.0 * average / limit).collect();
        let found = scores(EwmaZ::new(0.2), &STEP);
        near(&found, &expected, 1e-3);
        assert_eq!(found.iter().position(|z| 3.0 < z.unwrap()), Some(5));
    }
}
