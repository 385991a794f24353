//! `knn_cad`: how rare the last 19 values are as a shape, against a training set that follows.
//!
//! SQL     knn_cad(value, train)
//! Out     NULL for the first `train` rows; then the share of recent scores below this one's,
//!         where a score is the sum of the 27 smallest distances to training vectors; from
//!         0.9965 on it is an alarm, and `train / 5` rows of 0.5 follow
//! State   about 24 values and 160 bytes per row of `train`: 130 KiB at 750
//! Cost    19 multiplications per training vector and row
//! Source  Burnaev and Ishimtsev, Conformalized density- and distance-based anomaly detection in
//!         time-series data, 2016; the parameters are those of its entry in NAB

use std::collections::VecDeque;

use super::linear::{Matrix, forward, lower_factor};
use super::{Detector, Footprint};

/// Values in a vector.
const SHAPE: usize = 19;
/// Neighbours that count.
const NEIGHBOURS: usize = 27;
const ALARM_MIN: f64 = 0.9965;
const QUIET: f64 = 0.5;

/// What `train` is at least: neighbours for a vector that is itself among the training set.
pub const TRAIN_MIN: usize = SHAPE + NEIGHBOURS + 2;

type Shape = [f64; SHAPE];

#[derive(Debug, Clone, PartialEq)]
pub struct KnnCad {
    train: usize,
    rows: u64,
    /// The last `2 * train`.
    values: VecDeque<f64>,
    /// Of the training set's moment matrix; before it is first known, distances are plain.
    factor: Option<Matrix>,
    /// The training set, each shape multiplied by the factor's inverse: distances are plain there.
    known: VecDeque<Shape>,
    scores: VecDeque<f64>,
    quiet_rows: usize,
}

impl KnnCad {
    /// `train`: [`TRAIN_MIN`] or more.
    pub fn new(train: usize) -> Self {
        let (values, known, scores) = Default::default();
        Self { train, rows: 0, values, factor: None, known, scores, quiet_rows: 0 }
    }

    /// The shape that ended `age` rows ago.
    fn shape(&self, age: usize) -> Shape {
        let first = self.values.len() - SHAPE - age;
        std::array::from_fn(|i| self.values[first + i])
    }

    fn whitened(&self, shape: Shape) -> Shape {
        let mut shape = shape;
        if let Some(factor) = &self.factor {
            forward(factor, &mut shape);
        }
        shape
    }

    /// How many rows ago the newest training shape ended.
    fn newest_known(&self) -> usize {
        // The set stands still while the first shapes behind it are taken for calibration.
        (self.rows as usize - (self.train - 1)).min(self.train + 1)
    }

    fn refresh(&mut self) {
        let (newest, count) = (self.newest_known(), self.train - SHAPE);
        let shapes: Vec<Shape> = (0..count).rev().map(|i| self.shape(newest + i)).collect();
        let mut moments = Matrix::zero(SHAPE);
        for shape in &shapes {
            moments.add_outer(shape);
        }
        // Shapes that span fewer dimensions have no inverse: the last one that there was stays.
        if let Some(factor) = lower_factor(&moments) {
            self.factor = Some(factor);
        }
        self.known = shapes.into_iter().map(|shape| self.whitened(shape)).collect();
    }

    /// The sum of the `neighbours` smallest distances.
    fn score(&self, shape: &Shape, neighbours: usize) -> f64 {
        let distance = |known: &Shape| shape.iter().zip(known).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        let mut distances: Vec<f64> = self.known.iter().map(distance).collect();
        distances.select_nth_unstable_by(neighbours - 1, f64::total_cmp);
        distances[..neighbours].iter().sum()
    }

    fn is_refreshed_now(&self) -> bool {
        let phase = self.rows as usize % self.train;
        phase == 0 || phase == self.train / 2
    }
}

impl Detector for KnnCad {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        if self.values.len() == 2 * self.train {
            self.values.pop_front();
        }
        self.values.push_back(x[0]);
        // Beyond twice the training only the phase matters.
        self.rows += 1;
        if self.rows == 4 * self.train as u64 {
            self.rows -= 2 * self.train as u64;
        }
        if self.rows < self.train as u64 {
            return None;
        }
        if self.is_refreshed_now() {
            self.refresh();
        }
        if self.scores.is_empty() {
            self.scores = self.known.iter().map(|shape| self.score(shape, NEIGHBOURS + 1)).collect();
        }
        let shape = self.whitened(self.shape(0));
        let score = self.score(&shape, NEIGHBOURS);
        let below = self.scores.iter().filter(|other| **other < score).count() as f64 / self.scores.len() as f64;
        if 2 * self.train as u64 <= self.rows {
            self.known.pop_front();
            self.known.push_back(self.whitened(self.shape(self.train)));
        }
        self.scores.pop_front();
        self.scores.push_back(score);
        if 0 < self.quiet_rows {
            self.quiet_rows -= 1;
            return Some(QUIET);
        }
        if ALARM_MIN <= below {
            self.quiet_rows = self.train / 5;
        }
        Some(below)
    }
}

impl Footprint for KnnCad {
    fn bytes(&self) -> usize {
        let factor = self.factor.as_ref().map_or(0, |_| 8 * SHAPE * SHAPE);
        size_of::<Self>() + factor + 8 * (self.values.len() + self.scores.len()) + size_of::<Shape>() * self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::tests::scores;
    use super::*;

    // The oracle keeps all shapes, inverts the moment matrix, and sorts all distances.
    #[test]
    fn it_equals_the_published_procedure() {
        for seed in 0..4 {
            let mut rng = StdRng::seed_from_u64(seed);
            let train = rng.random_range(TRAIN_MIN..90);
            let x: Vec<f64> = (0..5 * train)
                .map(|i| (i as f64 / 7.0).sin() + 0.3 * rng.random::<f64>() + if i % 131 == 130 { 2.0 } else { 0.0 })
                .collect();
            assert_eq!(scores(KnnCad::new(train), &x), published(&x, train), "seed {seed}");
        }
    }

    fn published(x: &[f64], train: usize) -> Vec<Option<f64>> {
        let shape = |end: usize| &x[end - SHAPE..end];
        let mut training: Vec<&[f64]> = (SHAPE..train).map(shape).collect();
        let (mut calibration, mut past, mut quiet, mut metric) = (Vec::new(), Vec::new(), 0, Vec::new());
        let mut out = vec![None; train - 1];
        for row in train..=x.len() {
            if row % train == 0 || row % train == train / 2 {
                metric = inverse(&training);
            }
            if past.is_empty() {
                past = training.iter().map(|known| nearest(&training, known, &metric, NEIGHBOURS + 1)).collect();
            }
            let score = nearest(&training, shape(row), &metric, NEIGHBOURS);
            let share = past.iter().filter(|other| **other < score).count() as f64 / past.len() as f64;
            if 2 * train <= row {
                training.remove(0);
                training.push(calibration.remove(0));
            }
            past.remove(0);
            past.push(score);
            calibration.push(shape(row));
            out.push(Some(if 0 < quiet { QUIET } else { share }));
            quiet = if 0 < quiet {
                quiet - 1
            } else if ALARM_MIN <= share {
                train / 5
            } else {
                0
            };
        }
        out
    }

    fn nearest(training: &[&[f64]], shape: &[f64], metric: &[Vec<f64>], count: usize) -> f64 {
        let distance = |known: &&[f64]| {
            let d: Vec<f64> = known.iter().zip(shape).map(|(a, b)| a - b).collect();
            d.iter().zip(metric).map(|(a, row)| a * row.iter().zip(&d).map(|(m, b)| m * b).sum::<f64>()).sum::<f64>()
        };
        let mut distances: Vec<f64> = training.iter().map(distance).collect();
        distances.sort_by(f64::total_cmp);
        distances[..count].iter().sum()
    }

    /// Gauss and Jordan's.
    fn inverse(training: &[&[f64]]) -> Vec<Vec<f64>> {
        let moment = |i: usize, j: usize| training.iter().map(|shape| shape[i] * shape[j]).sum::<f64>();
        let unit = |i: usize, j: usize| if i == j { 1.0 } else { 0.0 };
        let mut rows: Vec<Vec<f64>> =
            (0..SHAPE).map(|i| (0..SHAPE).map(|j| moment(i, j)).chain((0..SHAPE).map(|j| unit(i, j))).collect()).collect();
        for column in 0..SHAPE {
            let pivot = (column..SHAPE).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs())).unwrap();
            rows.swap(column, pivot);
            let scale = rows[column][column];
            rows[column].iter_mut().for_each(|cell| *cell /= scale);
            let pivot_row = rows[column].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
                let factor = row[column];
                row.iter_mut().zip(&pivot_row).for_each(|(cell, pivot)| *cell -= factor * pivot);
            }
        }
        rows.into_iter().map(|row| row[SHAPE..].to_vec()).collect()
    }
}
