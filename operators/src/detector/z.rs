//! `level_z` and `change_z`: how far a reading, or its step from the reading before, is from what
//! the window has seen, in standard deviations.
//!
//! SQL     level_z(value, window), change_z(value, window)
//! Out     NULL until the window holds 2 numbers; it does not hold the reading that is judged
//! State   8 bytes per number in the window, and about 100; constant cost per reading
//! Source  the z of Shewhart's charts over a moving window

use super::moments::Moments;
use super::{Detector, Footprint};

/// `|x - mean| / deviation` of the readings before.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelZ {
    window: Moments,
}

impl LevelZ {
    pub fn new(window: usize) -> Self {
        Self { window: Moments::new(window) }
    }
}

impl Detector for LevelZ {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let z = (2 <= self.window.len()).then(|| {
            let (mean, deviation) = self.window.mean_and_deviation();
            // Rounding alone must not look like an alarm where the window is constant.
            ratio((x[0] - mean).abs(), deviation.max(1e-9 * mean.abs()))
        });
        self.window.push(x[0]);
        z
    }
}

impl Footprint for LevelZ {
    fn bytes(&self) -> usize {
        self.window.bytes()
    }
}

/// `(|x - x before| - mean) / deviation` of the steps before.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeZ {
    last: Option<f64>,
    window: Moments,
}

/// Of the mean step, the least deviation: steps of equal size are common in digital readings, and
/// one that differs by little is no alarm.
const DEVIATION_MIN: f64 = 0.03;

impl ChangeZ {
    pub fn new(window: usize) -> Self {
        Self { last: None, window: Moments::new(window) }
    }
}

impl Detector for ChangeZ {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        let change = self.last.replace(x[0]).map(|last| (x[0] - last).abs().min(f64::MAX))?;
        let z = (2 <= self.window.len()).then(|| {
            let (mean, deviation) = self.window.mean_and_deviation();
            ratio(change - mean, deviation.max(DEVIATION_MIN * mean))
        });
        self.window.push(change);
        z
    }
}

impl Footprint for ChangeZ {
    fn bytes(&self) -> usize {
        size_of::<Option<f64>>() + self.window.bytes()
    }
}

/// What a score is at most, so that it stays a number that sorts and adds.
const Z_MAX: f64 = 1e6;

fn ratio(distance: f64, deviation: f64) -> f64 {
    if distance == 0.0 { 0.0 } else { (distance / deviation).clamp(-Z_MAX, Z_MAX) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::scores;
    use super::*;

    #[test]
    fn the_reading_is_judged_by_those_before() {
        assert_eq!(scores(LevelZ::new(2), &[1.0, 3.0, 5.0, 4.0]), [None, None, Some(3.0), Some(0.0)]);
    }

    #[test]
    fn steps_are_judged_by_steps() {
        // Steps 1 and 3: mean 2, deviation 1; then a step of 5, and one of 4 after steps 3 and 5.
        assert_eq!(scores(ChangeZ::new(2), &[0.0, 1.0, 4.0, 9.0, 5.0]), [None, None, None, Some(3.0), Some(0.0)]);
    }

    #[test]
    fn a_constant_window_is_left_loudly_and_kept_silently() {
        assert_eq!(scores(LevelZ::new(9), &[2.0, 2.0, 2.0, 3.0])[2..], [Some(0.0), Some(Z_MAX)]);
        let steps = scores(ChangeZ::new(9), &[0.0, 1.0, 2.0, 3.0, 4.03]);
        assert!(steps[3] == Some(0.0) && (steps[4].unwrap() - 1.0).abs() < 1e-9);
    }
}
