//! `voter`: what two of three redundant sensors say.
//!
//! SQL     voter(a, b, c, tolerance), for each row alone
//! Out     the middle reading, where both others differ from it by `tolerance` at most; where only one does, the mean of
//!         the two; a missing reading has no vote; NULL where no two agree. Whose reading is which makes no difference
//! State   none
//! Source  von Neumann, Automata Studies, 1956

pub fn voter(readings: [Option<f64>; 3], tolerance: f64) -> Option<f64> {
    let mut votes: Vec<f64> = readings.into_iter().flatten().filter(|reading| reading.is_finite()).collect();
    votes.sort_unstable_by(f64::total_cmp);
    let agreed: Vec<(f64, f64)> = votes.windows(2).map(|pair| (pair[0], pair[1])).filter(|(low, high)| high - low <= tolerance).collect();
    match agreed[..] {
        [(low, high)] => Some(low / 2.0 + high / 2.0),
        [(_, middle), _] => Some(middle),
        _ => None,
    }
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
            ([Some(4.0), Some(4.25), Some(4.5)], Some(4.25)),
            ([Some(4.0), Some(5.0), Some(6.0)], Some(5.0)),
            ([Some(4.0), Some(5.0), Some(6.5)], Some(4.5)),
        ] {
            let [a, b, c] = readings;
            for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
                assert_eq!(voter(order, 1.0), expected, "{order:?}");
            }
        }
    }
}
