//! `voter`: what two of three redundant sensors say.
//!
//! SQL     voter(a, b, c, tolerance), for each row alone
//! Out     the mean of the two that are closest, where they differ by `tolerance` at most; a
//!         missing reading has no vote; NULL where no two agree
//! State   none
//! Source  von Neumann, Automata Studies, 1956

pub fn voter(readings: [Option<f64>; 3], tolerance: f64) -> Option<f64> {
    let [a, b, c] = readings.map(|reading| reading.filter(|x| x.is_finite()));
    let pairs = [(a, b), (a, c), (b, c)].into_iter().filter_map(|(x, y)| x.zip(y));
    let closest = pairs.min_by(|x, y| (x.0 - x.1).abs().total_cmp(&(y.0 - y.1).abs()))?;
    ((closest.0 - closest.1).abs() <= tolerance).then_some(closest.0 / 2.0 + closest.1 / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_three_decide() {
        for (readings, expected) in [
            ([Some(4.0), Some(4.5), Some(90.0)], Some(4.25)),
            ([Some(90.0), Some(4.5), Some(4.0)], Some(4.25)),
            ([Some(4.0), None, Some(5.0)], Some(4.5)),
            ([Some(4.0), Some(f64::NAN), Some(5.0)], Some(4.5)),
            ([Some(4.0), Some(5.5), Some(7.0)], None),
            ([Some(4.0), None, None], None),
            ([None, None, None], None),
            ([Some(f64::MAX), Some(f64::MAX), Some(0.0)], Some(f64::MAX)),
        ] {
            assert_eq!(voter(readings, 1.0), expected, "{readings:?}");
        }
    }
}
