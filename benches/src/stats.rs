//! Quantiles and means.

/// The `q`-quantile of what a Prometheus histogram counted, linear within a
/// bucket. `buckets`: upper bound and cumulative count, ascending; `total`: all
/// counted. Infinite when it lies above the last bound; None without counts.
pub fn histogram_quantile(buckets: &[(f64, u64)], total: u64, q: f64) -> Option<f64> {
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let mut below = (0.0, 0);
    for (bound, count) in buckets {
        if rank <= *count as f64 && below.1 < *count {
            let share = (rank - below.1 as f64) / (*count - below.1) as f64;
            return Some(below.0 + (bound - below.0) * share);
        }
        below = (*bound, *count);
    }
    Some(f64::INFINITY)
}

/// The smallest value that at least `q` of all are not above. None without values.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let buckets = [(0.01, 10), (0.1, 10), (1.0, 20)];
        assert_eq!(histogram_quantile(&buckets, 20, 0.25), Some(0.005));
        assert_eq!(histogram_quantile(&buckets, 20, 0.5), Some(0.01));
        assert_eq!(histogram_quantile(&buckets, 20, 1.0), Some(1.0));
        assert_eq!(histogram_quantile(&buckets, 40, 0.9), Some(f64::INFINITY));
        assert_eq!(histogram_quantile(&buckets, 0, 0.5), None);

        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.99), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
        assert!((geometric_mean(&[1.0, 4.0]).unwrap() - 2.0).abs() < 1e-12);
    }
}
