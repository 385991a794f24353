//! Mean and variance of the last `size` numbers, exactly: a number that leaves takes out what
//! it brought in, so the sums depend on the window alone and not on how it came about.
//!
//! State   8 bytes per number in the window, and about 100
//! Cost    constant per number; all of the window again when the largest number in it comes to be
//!         larger or smaller by a factor of 16 or more

use std::collections::VecDeque;

use super::Footprint;

/// Numbers a window may hold: with 47 bits per number, `n * sum of squares` still fits an `i128`.
pub const SIZE_MAX: usize = 1 << 16;

/// Bits of a number that are summed, counted from the largest number in the window.
const BITS: i32 = 47;

#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    size: usize,
    window: VecDeque<f64>,
    /// How many numbers ask for units of `2^exponent`, by exponent; the largest is last.
    wanted: Vec<(i32, u32)>,
    /// Sums are in units of `2^exponent`, the largest that is wanted.
    exponent: i32,
    sum: i128,
    squares: i128,
}

impl Moments {
    /// `size`: from 2 to [`SIZE_MAX`].
    pub fn new(size: usize) -> Self {
        Self { size, window: VecDeque::new(), wanted: Vec::new(), exponent: EXPONENT_MIN, sum: 0, squares: 0 }
    }

    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Takes a finite number in; the oldest leaves a full window.
    pub fn push(&mut self, number: f64) {
        if self.window.len() == self.size
            && let Some(oldest) = self.window.pop_front()
        {
            self.count(oldest, -1);
            self.want(oldest, -1);
        }
        self.want(number, 1);
        self.fit();
        self.window.push_back(number);
        self.count(number, 1);
    }

    /// Mean and standard deviation of a window that is not empty.
    pub fn mean_and_deviation(&self) -> (f64, f64) {
        let n = self.window.len() as i128;
        let unit = power_of_two(self.exponent);
        // The largest numbers may round beyond what is finite.
        let mean = (self.sum as f64 / n as f64 * unit).clamp(f64::MIN, f64::MAX);
        let spread = (n * self.squares - self.sum * self.sum) as f64;
        (mean, (spread.sqrt() / n as f64 * unit).min(f64::MAX))
    }

    fn count(&mut self, number: f64, sign: i128) {
        let units = i128::from(in_units(number, self.exponent));
        self.sum += sign * units;
        self.squares += sign * units * units;
    }

    fn want(&mut self, number: f64, sign: i32) {
        let exponent = exponent_for(number);
        match self.wanted.binary_search_by_key(&exponent, |(exponent, _)| *exponent) {
            Ok(at) => {
                let count = &mut self.wanted[at].1;
                *count = count.saturating_add_signed(sign);
                if *count == 0 {
                    self.wanted.remove(at);
                }
            }
            Err(at) => self.wanted.insert(at, (exponent, 1)),
        }
    }

    fn fit(&mut self) {
        let wanted = self.wanted.last().map_or(EXPONENT_MIN, |(exponent, _)| *exponent);
        if self.exponent != wanted {
            (self.exponent, self.sum, self.squares) = (wanted, 0, 0);
            for at in 0..self.window.len() {
                self.count(self.window[at], 1);
            }
        }
    }
}

impl Footprint for Moments {
    fn bytes(&self) -> usize {
        size_of::<Self>() + 8 * (self.window.len() + self.wanted.len())
    }
}

/// Below it, `2^-exponent` would be infinite.
const EXPONENT_MIN: i32 = -1000;

/// The unit in which `number` has at most [`BITS`] bits. In steps of 4, so that a slow rise does
/// not sum the window again and again.
fn exponent_for(number: f64) -> i32 {
    let bits = (number.to_bits() >> 52 & 0x7ff) as i32 - 1022;
    let exponent = bits - BITS;
    (exponent + 3).div_euclid(4).saturating_mul(4).max(EXPONENT_MIN)
}

fn in_units(number: f64, exponent: i32) -> i64 {
    (number * power_of_two(-exponent)).round_ties_even() as i64
}

/// For exponents from -1000 to 1000.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    // The oracle sums the window from the start, about its mean.
    #[test]
    fn any_window_equals_its_numbers_summed_afresh() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let size = rng.random_range(2..40);
            let (offset, scale) = (rng.random_range(-1e6..1e6), 10f64.powi(rng.random_range(-12..12)));
            let mut moments = Moments::new(size);
            let mut all: Vec<f64> = Vec::new();
            for _ in 0..120 {
                let number = if rng.random_bool(0.05) { 1e3 * scale } else { scale * (offset * 1e-6 + rng.random::<f64>()) };
                moments.push(number);
                all.push(number);
                let window = &all[all.len().saturating_sub(size)..];
                let mean = window.iter().sum::<f64>() / window.len() as f64;
                let variance = window.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / window.len() as f64;
                let (found_mean, found) = moments.mean_and_deviation();
                // 43 bits of the largest number in the window.
                let largest = window.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
                assert!((found_mean - mean).abs() < 1e-12 * largest, "seed {seed}: {found_mean} for {mean}");
                assert!((found - variance.sqrt()).abs() < 1e-5 * scale, "seed {seed}: {found} for {}", variance.sqrt());
            }
        }
    }

    #[test]
    fn what_has_left_leaves_no_trace() {
        let (mut long, mut short) = (Moments::new(3), Moments::new(3));
        [9.0, 0.1, 0.3, 7.0, 0.7].iter().for_each(|x| long.push(*x));
        [9.5, 0.3, 7.0, 0.7].iter().for_each(|x| short.push(*x));
        assert_eq!(long, short);
    }

    #[test]
    fn a_glitch_is_forgotten_when_it_leaves() {
        for glitch in [1e9, 1e15, 3.4e38, 1e300, f64::MAX] {
            let (mut met, mut spared) = (Moments::new(10), Moments::new(10));
            met.push(glitch);
            for at in 0..10 {
                let number = 5.0 + f64::from(at) / 7.0;
                met.push(number);
                spared.push(number);
            }
            assert_eq!(met, spared, "{glitch}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_numbers_too() {
        for number in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 0.0, -0.0] {
            let mut moments = Moments::new(2);
            moments.push(number);
            moments.push(number);
            let (mean, deviation) = moments.mean_and_deviation();
            assert!(mean.is_finite() && deviation == 0.0, "{number}: {mean} {deviation}");
        }
    }
}
