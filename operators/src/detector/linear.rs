//! Small dense symmetric matrices: factors, eigenvectors. A few dozen rows at most.

#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    size: usize,
    /// Row by row.
    cells: Vec<f64>,
}

impl Matrix {
    pub fn zero(size: usize) -> Self {
        Self { size, cells: vec![0.0; size * size] }
    }

    pub fn identity(size: usize) -> Self {
        let mut one = Self::zero(size);
        (0..size).for_each(|i| *one.at(i, i) = 1.0);
        one
    }

    pub fn get(&self, row: usize, column: usize) -> f64 {
        self.cells[row * self.size + column]
    }

    pub fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.cells[row * self.size + column]
    }

    /// Adds the vector times itself transposed.
    pub fn add_outer(&mut self, vector: &[f64]) {
        for (row, a) in self.cells.chunks_exact_mut(self.size).zip(vector) {
            row.iter_mut().zip(vector).for_each(|(cell, b)| *cell += a * b);
        }
    }
}

/// Of the largest cell on the diagonal, what a pivot is at least: below it is rounding.
const PIVOT_MIN: f64 = 1e-14;

/// L with `L L' = symmetric`; None where it is not positive definite.
pub fn lower_factor(symmetric: &Matrix) -> Option<Matrix> {
    let size = symmetric.size;
    let mut lower = Matrix::zero(size);
    let largest = (0..size).map(|i| symmetric.get(i, i)).fold(0.0, f64::max);
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column).map(|i| lower.get(row, i) * lower.get(column, i)).sum();
            let rest = symmetric.get(row, column) - known;
            if row == column && !(PIVOT_MIN * largest < rest && rest.is_finite()) {
                return None;
            }
            *lower.at(row, column) = if row == column { rest.sqrt() } else { rest / lower.get(column, column) };
        }
    }
    Some(lower)
}

/// Replaces `vector` by the solution of `lower * x = vector`.
pub fn forward(lower: &Matrix, vector: &mut [f64]) {
    for row in 0..lower.size {
        let known: f64 = (0..row).map(|i| lower.get(row, i) * vector[i]).sum();
        vector[row] = (vector[row] - known) / lower.get(row, row);
    }
}

/// Sweeps over all pairs; a dozen make rounding all that is left.
const SWEEPS: usize = 30;

/// Eigenvalues, largest first, each with its vector of length 1. Jacobi's rotations.
pub fn eigen(symmetric: &Matrix) -> Vec<(f64, Vec<f64>)> {
    let size = symmetric.size;
    let (mut rest, mut vectors) = (symmetric.clone(), Matrix::identity(size));
    for _ in 0..SWEEPS {
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut rest, &mut vectors, p, q);
            }
        }
    }
    let mut found: Vec<(f64, Vec<f64>)> = (0..size).map(|i| (rest.get(i, i), (0..size).map(|row| vectors.get(row, i)).collect())).collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found
}

/// Turns the plane of axes `p` and `q` so that their cell becomes 0.
fn rotate(matrix: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    let off = matrix.get(p, q);
    if off == 0.0 {
        return;
    }
    let theta = (matrix.get(q, q) - matrix.get(p, p)) / (2.0 * off);
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    let turn = |a: f64, b: f64| (cosine * a - sine * b, sine * a + cosine * b);
    for i in 0..matrix.size {
        (*matrix.at(i, p), *matrix.at(i, q)) = turn(matrix.get(i, p), matrix.get(i, q));
    }
    for i in 0..matrix.size {
        (*matrix.at(p, i), *matrix.at(q, i)) = turn(matrix.get(p, i), matrix.get(q, i));
        (*vectors.at(i, p), *vectors.at(i, q)) = turn(vectors.get(i, p), vectors.get(i, q));
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn random(rng: &mut StdRng, size: usize) -> Matrix {
        let mut matrix = Matrix::zero(size);
        for _ in 0..2 * size {
            let vector: Vec<f64> = (0..size).map(|_| rng.random_range(-1.0..1.0)).collect();
            matrix.add_outer(&vector);
        }
        matrix
    }

    #[test]
    fn a_factor_times_itself_is_the_matrix() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let matrix = random(&mut rng, 1 + seed as usize % 8);
            let lower = lower_factor(&matrix).expect("more vectors than dimensions");
            let mut x: Vec<f64> = (0..matrix.size).map(|_| rng.random_range(-1.0..1.0)).collect();
            let wanted = x.clone();
            forward(&lower, &mut x);
            for (row, wanted) in wanted.iter().enumerate() {
                let product = |with: &dyn Fn(usize) -> f64| (0..matrix.size).map(|i| lower.get(row, i) * with(i)).sum::<f64>();
                for column in 0..matrix.size {
                    assert!((product(&|i| lower.get(column, i)) - matrix.get(row, column)).abs() < 1e-9, "seed {seed}");
                }
                assert!((product(&|i| x[i]) - wanted).abs() < 1e-9, "seed {seed}");
            }
        }
    }

    #[test]
    fn eigenvectors_are_only_stretched() {
        for seed in 0..50 {
            let matrix = random(&mut StdRng::seed_from_u64(seed), 1 + seed as usize % 8);
            let found = eigen(&matrix);
            assert!(found.is_sorted_by(|(a, _), (b, _)| b <= a));
            for (value, vector) in &found {
                assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-9, "seed {seed}");
                for row in 0..matrix.size {
                    let product: f64 = (0..matrix.size).map(|i| matrix.get(row, i) * vector[i]).sum();
                    assert!((product - value * vector[row]).abs() < 1e-9, "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn what_spans_less_has_no_factor() {
        let mut flat = Matrix::zero(2);
        flat.add_outer(&[1.0, 2.0]);
        assert_eq!(lower_factor(&flat), None);
        assert_eq!(lower_factor(&Matrix::zero(1)), None);
    }
}
