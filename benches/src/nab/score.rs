//! The Numenta Anomaly Benchmark's score, from the positions of rows alone.
//!
//! In      per file: how many rows, which windows, and a score per row
//! Out     per profile: the best threshold over all files, and the score on NAB's scale, where
//!         0 is what saying nothing earns and 100 is the perfect detector's
//! Source  Lavin and Ahmad, Evaluating Real-Time Anomaly Detection Algorithms, 2015, as
//!         `nab/sweeper.py` of numenta/NAB computes it

use std::ops::RangeInclusive;

/// What false alarms and missed windows cost; a window found at its beginning earns 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    pub name: &'static str,
    pub false_alarm: f64,
    pub miss: f64,
}

pub const PROFILES: [Profile; 3] = [
    Profile { name: "standard", false_alarm: 0.11, miss: 1.0 },
    Profile { name: "low FP", false_alarm: 0.22, miss: 1.0 },
    Profile { name: "low FN", false_alarm: 0.11, miss: 2.0 },
];

/// One file: the rows' scores, and the windows in order.
#[derive(Debug, Clone)]
pub struct Scored {
    pub scores: Vec<f64>,
    pub windows: Vec<RangeInclusive<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// A row alarms where its score is this or more. Infinite: none does.
    pub threshold: f64,
    pub score: f64,
}

/// Rows at a file's beginning that are not judged, of `rows`.
pub fn probation(rows: usize) -> usize {
    (rows * 15 / 100).min(750)
}

/// The threshold that is best for `profile` over all files together, as NAB tunes it.
pub fn best(files: &[Scored], profile: Profile) -> Best {
    let mut points: Vec<(f64, Point)> = Vec::new();
    let mut windows_before = 0;
    for file in files {
        let (skipped, judged) = (probation(file.scores.len()), points_of(file.scores.len(), &file.windows));
        points.extend(
            file.scores
                .iter()
                .copied()
                .zip(judged)
                .skip(skipped)
                .map(|(score, point)| (score, Point { window: point.window.map(|window| windows_before + window), ..point })),
        );
        windows_before += file.windows.len();
    }
    points.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let null = -profile.miss * windows_before as f64;
    let mut earned: Vec<f64> = vec![-profile.miss; windows_before];
    let (mut raw, mut best) = (null, (f64::INFINITY, null));
    for (at, (score, point)) in points.iter().enumerate() {
        match point.window {
            Some(window) => {
                let more = point.gain.max(earned[window]);
                raw += more - earned[window];
                earned[window] = more;
            }
            None => raw += profile.false_alarm * point.gain,
        }
        // Equal scores alarm together.
        let is_whole = points.get(at + 1).is_none_or(|(next, _)| next != score);
        if is_whole && best.1 < raw {
            best = (*score, raw);
        }
    }
    Best { threshold: best.0, score: 100.0 * (best.1 - null) / (windows_before as f64 - null) }
}

/// The score where each file is judged by the threshold that is best for all others: what a user
/// who has no labels may hope for.
pub fn held_out(files: &[Scored], profile: Profile) -> f64 {
    let windows: usize = files.iter().map(|file| file.windows.len()).sum();
    let raws = (0..files.len()).map(|at| {
        let others: Vec<Scored> = files.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, file)| file.clone()).collect();
        raw(&files[at], profile, best(&others, profile).threshold)
    });
    let null = -profile.miss * windows as f64;
    100.0 * (raws.sum::<f64>() - null) / (windows as f64 - null)
}

/// One file's points at one threshold.
fn raw(file: &Scored, profile: Profile, threshold: f64) -> f64 {
    let points = points_of(file.scores.len(), &file.windows);
    let mut earned = vec![-profile.miss; file.windows.len()];
    let mut lost = 0.0;
    for (point, _) in points.iter().zip(&file.scores).skip(probation(file.scores.len())).filter(|(_, score)| threshold <= **score) {
        match point.window {
            Some(window) => earned[window] = point.gain.max(earned[window]),
            None => lost += profile.false_alarm * point.gain,
        }
    }
    earned.iter().sum::<f64>() + lost
}

/// What an alarm at a row is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    window: Option<usize>,
    /// Inside: up to 1, less towards the end. Outside: 0 down to -1, to be weighted.
    gain: f64,
}

fn points_of(rows: usize, windows: &[RangeInclusive<usize>]) -> Vec<Point> {
    let width = |window: &RangeInclusive<usize>| window.end() - window.start() + 1;
    let mut next = 0;
    let point = |row: usize| {
        while windows.get(next).is_some_and(|window| *window.end() < row) {
            next += 1;
        }
        match windows.get(next) {
            Some(window) if window.contains(&row) => {
                let position = (window.end() - row + 1) as f64 / width(window) as f64;
                Point { window: Some(next), gain: sigmoid(-position) / sigmoid(-1.0) }
            }
            _ => match next.checked_sub(1).map(|last| &windows[last]) {
                Some(last) => Point { window: None, gain: sigmoid((row - last.end()) as f64 / (width(last) - 1) as f64) },
                None => Point { window: None, gain: -1.0 },
            },
        }
    };
    (0..rows).map(point).collect()
}

fn sigmoid(position: f64) -> f64 {
    if 3.0 < position { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(rows: usize, windows: &[RangeInclusive<usize>], alarms: &[usize]) -> Scored {
        let scores = (0..rows).map(|row| if alarms.contains(&row) { 1.0 } else { 0.0 }).collect();
        Scored { scores, windows: windows.to_vec() }
    }

    #[test]
    fn the_scale_runs_from_nothing_to_perfect() {
        let windows = [100..=119, 150..=169];
        for profile in PROFILES {
            assert_eq!(best(&[scored(200, &windows, &[])], profile), Best { threshold: f64::INFINITY, score: 0.0 });
            let perfect = best(&[scored(200, &windows, &[100, 150])], profile);
            assert!(perfect.threshold == 1.0 && (perfect.score - 100.0).abs() < 1e-9);
        }
    }

    // y = -10/20 and σ(-.5)/σ(-1) = .8482836 / .9866143; then 2 behind 20 rows: σ(2/19).
    #[test]
    fn alarms_are_worth_what_the_sigmoid_says() {
        let files = [scored(200, &[100..=119], &[110, 121, 30])];
        let inside = 0.848_283_639_957_512_9 / 0.986_614_298_151_430_3;
        let behind = 2.0 / (1.0 + (10.0f64 / 19.0).exp()) - 1.0;
        for (profile, null) in PROFILES.into_iter().zip([-1.0, -1.0, -2.0]) {
            let raw = inside + profile.false_alarm * (behind - 1.0);
            let expected = 100.0 * (raw - null) / (1.0 - null);
            assert!((best(&files, profile).score - expected).abs() < 1e-6, "{profile:?}");
        }
    }

    #[test]
    fn only_the_best_alarm_of_a_window_counts() {
        let once = best(&[scored(200, &[100..=119], &[105])], PROFILES[0]);
        assert_eq!(best(&[scored(200, &[100..=119], &[105, 106, 119])], PROFILES[0]), once);
    }

    #[test]
    fn the_first_rows_are_not_judged() {
        assert_eq!((probation(1000), probation(4032), probation(20_000)), (150, 604, 750));
        let quiet = best(&[scored(200, &[100..=119], &[105])], PROFILES[0]);
        assert_eq!(best(&[scored(200, &[100..=119], &[0, 29, 105])], PROFILES[0]), quiet);
    }

    // The oracle tries each threshold on its own and sums afresh.
    #[test]
    fn the_sweep_finds_what_trying_each_threshold_finds() {
        let hash = |x: u64| x.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 59;
        for seed in 0..50 {
            let files: Vec<Scored> = (0..3)
                .map(|file| {
                    let scores = (0..120).map(|row| hash(seed * 1000 + file * 300 + row) as f64).collect();
                    Scored { scores, windows: vec![40..=55, 60..=60 + file as usize + 1] }
                })
                .collect();
            for profile in PROFILES {
                let by_threshold = (0..33).map(|threshold| by_hand(&files, profile, f64::from(threshold)));
                let expected = by_threshold.fold(0.0, f64::max);
                let found = best(&files, profile);
                assert!((found.score - expected).abs() < 1e-9, "seed {seed}");
                assert!((by_hand(&files, profile, found.threshold) - expected).abs() < 1e-9, "seed {seed}");
            }
        }
    }

    // The lone alarm of the second file is found by the first one's threshold, and not by its own.
    #[test]
    fn a_file_is_judged_by_the_threshold_of_the_others() {
        let file = |found: f64, false_alarm: f64| {
            let mut file = scored(200, &[100..=119], &[]);
            (file.scores[100], file.scores[40]) = (found, false_alarm);
            file
        };
        let standard = PROFILES[0];
        // By 5 the other finds 3 no more; by 3 the first alarms falsely once.
        let files = [file(5.0, 4.0), file(3.0, 0.0)];
        assert_eq!(best(&files[..1], standard).threshold, 5.0);
        let expected = 100.0 * ((1.0 - 0.11) + -1.0 + 2.0) / 4.0;
        assert!((held_out(&files, standard) - expected).abs() < 1e-9);
    }

    fn by_hand(files: &[Scored], profile: Profile, threshold: f64) -> f64 {
        let (mut raw, mut windows) = (0.0, 0.0);
        for file in files {
            let alarms: Vec<usize> = (probation(120)..120).filter(|&row| threshold <= file.scores[row]).collect();
            for window in &file.windows {
                windows += 1.0;
                let width = (window.end() - window.start() + 1) as f64;
                let first = alarms.iter().find(|row| window.contains(row));
                raw += first.map_or(-profile.miss, |row| sigmoid(-((window.end() - row + 1) as f64) / width) / sigmoid(-1.0));
            }
            for row in alarms.iter().filter(|row| !file.windows.iter().any(|window| window.contains(row))) {
                let last = file.windows.iter().rfind(|window| window.end() < row);
                let gain = last.map_or(-1.0, |last| sigmoid((row - last.end()) as f64 / (last.end() - last.start()) as f64));
                raw += profile.false_alarm * gain;
            }
        }
        let null = -profile.miss * windows;
        100.0 * (raw - null) / (windows - null)
    }
}
