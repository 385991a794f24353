//! `hotelling_t2` and `hotelling_q`: how far several readings together are from how they were.
//!
//! SQL     hotelling_t2(train, a, b, …), hotelling_q(train, components, a, b, …);
//!         t2_limit(columns, train, quantile) is the limit of the first
//! Out     NULL for the first `train` rows, which are the model; then T², or the squared
//!         distance from the plane of the first `components` (Q, also SPE), in units of the
//!         columns' deviations
//! State   8 bytes per cell while training; then 8 * columns * (columns + 3)
//! Cost    columns² multiplications per row; one eigenvalue problem with the last row of training
//! Source  Hotelling, 1947; Jackson and Mudholkar, Technometrics, 1979

use super::linear::{Matrix, eigen};
use super::{Detector, Footprint};

/// What is computed of the model's axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// Along all axes, each in its own deviations.
    T2,
    /// Along the axes behind the first so many.
    Q { components: usize },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hotelling {
    measure: Measure,
    columns: usize,
    train: usize,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Rows, one behind the other.
    Training(Vec<f64>),
    /// None: the training's variance is no finite number, and nothing is told.
    Trained(Option<Model>),
}

#[derive(Debug, Clone, PartialEq)]
struct Model {
    means: Vec<f64>,
    deviations: Vec<f64>,
    /// (variance, direction), largest first.
    axes: Vec<(f64, Vec<f64>)>,
}

/// Of the largest variance along an axis, what each is at least: columns that were constant or
/// tied while training must be seen when they are so no more.
const VARIANCE_MIN: f64 = 1e-9;

impl Hotelling {
    /// `train`: more than `columns`.
    pub fn new(measure: Measure, train: usize, columns: usize) -> Self {
        Self { measure, columns, train, phase: Phase::Training(Vec::new()) }
    }
}

impl Detector for Hotelling {
    fn step(&mut self, x: &[f64]) -> Option<f64> {
        match &mut self.phase {
            Phase::Training(rows) => {
                rows.extend_from_slice(x);
                if rows.len() == self.train * self.columns {
                    self.phase = Phase::Trained(Model::of(rows, self.columns));
                }
                None
            }
            Phase::Trained(model) => model.as_ref().map(|model| model.measure(x, self.measure)),
        }
    }
}

impl Model {
    fn of(rows: &[f64], columns: usize) -> Option<Self> {
        let count = rows.len() / columns;
        let column = |i: usize| rows.iter().skip(i).step_by(columns);
        // Shares are summed, so that the largest numbers have a mean.
        let means: Vec<f64> = (0..columns).map(|i| column(i).map(|x| x / count as f64).sum()).collect();
        let variance = |i: usize| column(i).map(|x| (x - means[i]).powi(2) / (count - 1) as f64).sum::<f64>();
        let deviations: Vec<f64> = (0..columns).map(|i| Some(variance(i).sqrt()).filter(|d| 0.0 < *d).unwrap_or(1.0)).collect();
        let mut covariance = Matrix::zero(columns);
        for row in rows.chunks_exact(columns) {
            let scaled: Vec<f64> = (0..columns).map(|i| (row[i] - means[i]) / deviations[i] / ((count - 1) as f64).sqrt()).collect();
            covariance.add_outer(&scaled);
        }
        let model = Self { means, deviations, axes: eigen(&covariance) };
        let mut numbers = model.means.iter().chain(&model.deviations).chain(model.axes.iter().map(|(variance, _)| variance));
        numbers.all(|number| number.is_finite()).then_some(model)
    }

    fn measure(&self, x: &[f64], measure: Measure) -> f64 {
        let scaled: Vec<f64> =
            x.iter().zip(&self.means).zip(&self.deviations).map(|((x, mean), deviation)| (x - mean) / deviation).collect();
        let least = VARIANCE_MIN * self.axes.first().map_or(1.0, |(variance, _)| variance.max(1.0));
        let along = |direction: &[f64]| direction.iter().zip(&scaled).map(|(a, b)| a * b).sum::<f64>().powi(2);
        let total: f64 = match measure {
            Measure::T2 => self.axes.iter().map(|(variance, direction)| along(direction) / variance.max(least)).sum(),
            Measure::Q { components } => self.axes.iter().skip(components).map(|(_, direction)| along(direction)).sum(),
        };
        if total.is_nan() { f64::MAX } else { total.min(f64::MAX) }
    }
}

impl Footprint for Hotelling {
    fn bytes(&self) -> usize {
        let cells = match &self.phase {
            Phase::Training(rows) => rows.len(),
            Phase::Trained(_) => self.columns * (self.columns + 3),
        };
        size_of::<Self>() + 8 * cells
    }
}

/// What T² of a row exceeds with probability `1 - quantile`, by a model of `train` rows.
pub fn t2_limit(columns: usize, train: usize, quantile: f64) -> f64 {
    let (m, n) = (columns as f64, train as f64);
    m * (n - 1.0) * (n + 1.0) / (n * (n - m)) * f_quantile(quantile, m, n - m)
}

/// The quantile of Fisher's distribution, by bisection of the share of its beta.
fn f_quantile(quantile: f64, above: f64, below: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let is_short = beta_share(middle, above / 2.0, below / 2.0) < quantile;
        (low, high) = if is_short { (middle, high) } else { (low, middle) };
    }
    below * low / (above * (1.0 - low))
}

/// The regularised incomplete beta function, by Lentz's continued fraction.
fn beta_share(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || 1.0 <= x {
        return x.clamp(0.0, 1.0);
    }
    // The fraction is quick on this side.
    if (a + 1.0) / (a + b + 2.0) < x {
        return 1.0 - beta_share(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let guarded = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / guarded(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / guarded(1.0 + term * d);
            c = guarded(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Lanczos's approximation (g = 7, n = 9), for positive numbers.
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.5203681218851,
        -1259.1392167224028,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507343278686905,
        -0.13857109526572012,
        9.984_369_578_019_572e-6,
        1.5056327351493116e-7,
    ];
    if x < 0.5 {
        // Gamma(x) = Gamma(x + 1) / x
        return ln_gamma(x + 1.0) - x.ln();
    }
    let x = x - 1.0;
    let sum = TERMS.iter().zip(1..).fold(0.999_999_999_999_809_9, |sum, (term, i)| sum + term / (x + f64::from(i)));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // F(.95; 5, 10) = 3.326, F(.99; 2, 20) = 5.849, F(.999; 4, 30) = 6.125
        for (quantile, above, below, table) in [(0.95, 5.0, 10.0, 3.326), (0.99, 2.0, 20.0, 5.849), (0.999, 4.0, 30.0, 6.125)] {
            assert!((f_quantile(quantile, above, below) - table).abs() < 1e-3, "{}", f_quantile(quantile, above, below));
        }
    }

    // Two columns by hand: T² = d' S⁻¹ d.
    #[test]
    fn t2_is_the_distance_by_the_inverse_covariance() {
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            let rows: Vec<[f64; 2]> = (0..20)
                .map(|_| {
                    let a = rng.random_range(-1.0..1.0);
                    [1e3 * a, a + 0.3 * rng.random_range(-1.0..1.0)]
                })
                .collect();
            let mut detector = Hotelling::new(Measure::T2, 20, 2);
            rows.iter().for_each(|row| assert_eq!(detector.step(row), None));
            let mean = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>() / 20.0;
            let s = |i: usize, j: usize| rows.iter().map(|row| (row[i] - mean(i)) * (row[j] - mean(j))).sum::<f64>() / 19.0;
            let x = [500.0, -0.5];
            let d = [x[0] - mean(0), x[1] - mean(1)];
            let determinant = s(0, 0) * s(1, 1) - s(0, 1) * s(0, 1);
            let expected = (d[0] * d[0] * s(1, 1) - 2.0 * d[0] * d[1] * s(0, 1) + d[1] * d[1] * s(0, 0)) / determinant;
            let found = detector.step(&x).unwrap();
            assert!((found - expected).abs() < 1e-9 * expected, "seed {seed}: {found} for {expected}");
        }
    }

    #[test]
    fn q_is_the_distance_from_the_plane() {
        let mut detector = Hotelling::new(Measure::Q { components: 1 }, 4, 2);
        [-1.0, 1.0, -2.0, 2.0].iter().for_each(|&a| assert_eq!(detector.step(&[a, a]), None));
        assert!(detector.step(&[5.0, 5.0]).unwrap() < 1e-12);
        // Off the diagonal by 1 in each column, in deviations of sqrt(10 / 3).
        assert!((detector.step(&[1.0, -1.0]).unwrap() - 2.0 * 3.0 / 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_column_that_was_constant_is_seen_to_move() {
        let mut detector = Hotelling::new(Measure::T2, 4, 2);
        [1.0, 2.0, 3.0, 4.0].iter().for_each(|&a| assert_eq!(detector.step(&[a, 7.0]), None));
        assert!(detector.step(&[2.0, 7.0]).unwrap() < 1.0);
        assert!(1e6 < detector.step(&[2.0, 7.5]).unwrap());
    }
}
