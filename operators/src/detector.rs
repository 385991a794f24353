//! `detector`: folds over one series' readings in order. Pure rules, without dataflow types.
//!
//! [`Rule`] is what a call in SQL says, [`State`] one series' memory of the readings so far. A
//! score follows from the readings up to its own alone, so that a batch, a replay from a copy of
//! the state, and a stream give the same bits.
//!
//! SQL     the calls of [`CALLS`], each OVER (PARTITION BY series ORDER BY time)
//! In      one number per column; a row with a missing reading, or one that is no finite number,
//!         has no score and leaves the state as it was
//! Out     a finite number or none
//! State   by rule, as each module's head says; [`Footprint`] counts it
//! Errors  a call that makes no sense is refused with the way out, before anything runs

mod chart;
mod ensemble;
mod entropy;
mod extremes;
mod hotelling;
mod knn;
mod linear;
mod moments;
mod voter;
mod z;

use chart::{Cusum, Ewma, EwmaZ};
use ensemble::Ensemble;
use entropy::RelativeEntropy;
use extremes::{Rest, Spread};
use hotelling::{Hotelling, Measure};
use knn::KnnCad;
use z::{ChangeZ, LevelZ};

pub use hotelling::t2_limit;
pub use voter::voter;

/// One series' fold. Equal states give equal scores for whatever comes.
pub trait Detector {
    /// `x`: one finite number per column.
    fn step(&mut self, x: &[f64]) -> Option<f64>;
}

/// Bytes a state holds, to be told and to decide how often it is copied.
pub trait Footprint {
    fn bytes(&self) -> usize;
}

/// A call: which detector, and its parameters, which are checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    LevelZ { window: usize },
    ChangeZ { window: usize },
    Rest { rows: usize },
    Spread { rows: usize },
    Cusum { slack: f64, restart_above: f64 },
    Ewma { weight: f64 },
    EwmaZ { weight: f64 },
    RelativeEntropy { train: usize },
    KnnCad { train: usize },
    AnomalyScore { train: usize },
    HotellingT2 { train: usize, columns: usize },
    HotellingQ { train: usize, components: usize, columns: usize },
}

/// How a detector is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    pub name: &'static str,
    /// As the manual has it.
    pub shape: &'static str,
    /// Parameters that come before the columns; the others come behind one column.
    pub leading: usize,
}

/// All there are.
pub const CALLS: [Call; 12] = [
    Call { name: "level_z", shape: "level_z(value, window)", leading: 0 },
    Call { name: "change_z", shape: "change_z(value, window)", leading: 0 },
    Call { name: "rest", shape: "rest(score, rows)", leading: 0 },
    Call { name: "spread", shape: "spread(value, rows)", leading: 0 },
    Call { name: "cusum", shape: "cusum(z, k) or cusum(z, k, h)", leading: 0 },
    Call { name: "ewma", shape: "ewma(value, lambda)", leading: 0 },
    Call { name: "ewma_z", shape: "ewma_z(z, lambda)", leading: 0 },
    Call { name: "relative_entropy", shape: "relative_entropy(value, train)", leading: 0 },
    Call { name: "knn_cad", shape: "knn_cad(value, train)", leading: 0 },
    Call { name: "anomaly_score", shape: "anomaly_score(value, train)", leading: 0 },
    Call { name: "hotelling_t2", shape: "hotelling_t2(train, a, b, …)", leading: 1 },
    Call { name: "hotelling_q", shape: "hotelling_q(train, components, a, b, …)", leading: 2 },
];

impl Call {
    pub fn of(name: &str) -> Option<Self> {
        CALLS.into_iter().find(|call| call.name == name)
    }

    /// Which of `count` arguments are parameters; the others are columns.
    pub fn is_parameter(&self, argument: usize) -> bool {
        if self.leading == 0 { 0 < argument } else { argument < self.leading }
    }
}

/// Columns of one call; an eigenvalue problem of this size takes milliseconds.
const COLUMNS_MAX: usize = 64;
/// Rows a detector may look back.
const ROWS_MAX: usize = moments::SIZE_MAX;
/// A lighter one would take more rows to move than any series has.
const WEIGHT_MIN: f64 = 1e-6;
/// Training vectors are gone through with every row.
const KNN_TRAIN_MAX: usize = 4096;

impl Rule {
    /// Errors: what is wrong with the call, and its shape.
    pub fn new(name: &str, parameters: &[f64], columns: usize) -> Result<Self, String> {
        let call = Call::of(name).ok_or_else(|| format!("{name} is no detector"))?;
        let rows = |at: usize, what: &str, least: usize, most: usize| {
            let rows = parameters[at];
            if rows.fract() == 0.0 && (least as f64..=most as f64).contains(&rows) {
                Ok(rows as usize)
            } else {
                Err(format!("{what} of {name} is {rows}; it is a number of rows from {least} to {most}"))
            }
        };
        let positive = |at: usize, what: &str, most: f64| {
            let number = parameters[at];
            if 0.0 <= number && number <= most { Ok(number) } else { Err(format!("{what} of {name} is {number}; it is from 0 to {most}")) }
        };
        let weight = |at: usize| match parameters[at] {
            weight if (WEIGHT_MIN..=1.0).contains(&weight) => Ok(weight),
            weight => Err(format!("lambda of {name} is {weight}; it is from {WEIGHT_MIN} to 1")),
        };
        Ok(match (name, parameters.len(), columns) {
            ("level_z", 1, 1) => Self::LevelZ { window: rows(0, "window", 2, ROWS_MAX)? },
            ("change_z", 1, 1) => Self::ChangeZ { window: rows(0, "window", 2, ROWS_MAX)? },
            ("rest", 1, 1) => Self::Rest { rows: rows(0, "rows", 1, ROWS_MAX)? },
            ("spread", 1, 1) => Self::Spread { rows: rows(0, "rows", 1, ROWS_MAX)? },
            ("cusum", 1, 1) => Self::Cusum { slack: positive(0, "k", f64::MAX)?, restart_above: f64::INFINITY },
            ("cusum", 2, 1) => Self::Cusum { slack: positive(0, "k", f64::MAX)?, restart_above: positive(1, "h", f64::MAX)? },
            ("ewma", 1, 1) => Self::Ewma { weight: weight(0)? },
            ("ewma_z", 1, 1) => Self::EwmaZ { weight: weight(0)? },
            ("relative_entropy", 1, 1) => Self::RelativeEntropy { train: rows(0, "train", 2, ROWS_MAX)? },
            ("knn_cad", 1, 1) => Self::KnnCad { train: rows(0, "train", knn::TRAIN_MIN, KNN_TRAIN_MAX)? },
            ("anomaly_score", 1, 1) => Self::AnomalyScore { train: rows(0, "train", 2, ROWS_MAX)? },
            ("hotelling_t2", 1, 1..=COLUMNS_MAX) => Self::HotellingT2 { train: rows(0, "train", columns + 1, ROWS_MAX)?, columns },
            ("hotelling_q", 2, 2..=COLUMNS_MAX) => {
                let components = rows(1, "components", 1, columns - 1)?;
                Self::HotellingQ { train: rows(0, "train", columns + 1, ROWS_MAX)?, components, columns }
            }
            _ => return Err(format!("{name} is called as {}", call.shape)),
        })
    }

    /// Before the first reading.
    pub fn start(&self) -> State {
        match *self {
            Self::LevelZ { window } => State::LevelZ(LevelZ::new(window)),
            Self::ChangeZ { window } => State::ChangeZ(ChangeZ::new(window)),
            Self::Rest { rows } => State::Rest(Rest::new(rows)),
            Self::Spread { rows } => State::Spread(Spread::new(rows)),
            Self::Cusum { slack, restart_above } => State::Cusum(Cusum::new(slack, restart_above)),
            Self::Ewma { weight } => State::Ewma(Ewma::new(weight)),
            Self::EwmaZ { weight } => State::EwmaZ(EwmaZ::new(weight)),
            Self::RelativeEntropy { train } => State::RelativeEntropy(RelativeEntropy::new(train)),
            Self::KnnCad { train } => State::KnnCad(KnnCad::new(train)),
            Self::AnomalyScore { train } => State::Ensemble(Ensemble::new(train)),
            Self::HotellingT2 { train, columns } => State::Hotelling(Hotelling::new(Measure::T2, train, columns)),
            Self::HotellingQ { train, components, columns } => State::Hotelling(Hotelling::new(Measure::Q { components }, train, columns)),
        }
    }
}

/// One series' memory.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    LevelZ(LevelZ),
    ChangeZ(ChangeZ),
    Rest(Rest),
    Spread(Spread),
    Cusum(Cusum),
    Ewma(Ewma),
    EwmaZ(EwmaZ),
    RelativeEntropy(RelativeEntropy),
    KnnCad(KnnCad),
    Ensemble(Ensemble),
    Hotelling(Hotelling),
}

impl State {
    /// The row's score; a row that is not whole has none, and changes nothing.
    pub fn score(&mut self, x: &[f64]) -> Option<f64> {
        if !x.iter().all(|x| x.is_finite()) {
            return None;
        }
        let score = match self {
            Self::LevelZ(state) => state.step(x),
            Self::ChangeZ(state) => state.step(x),
            Self::Rest(state) => state.step(x),
            Self::Spread(state) => state.step(x),
            Self::Cusum(state) => state.step(x),
            Self::Ewma(state) => state.step(x),
            Self::EwmaZ(state) => state.step(x),
            Self::RelativeEntropy(state) => state.step(x),
            Self::KnnCad(state) => state.step(x),
            Self::Ensemble(state) => state.step(x),
            Self::Hotelling(state) => state.step(x),
        };
        // Differences of the largest numbers are infinite; a score sorts and adds.
        score.map(|score| score.clamp(f64::MIN, f64::MAX))
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::LevelZ(state) => state.bytes(),
            Self::ChangeZ(state) => state.bytes(),
            Self::Rest(state) => state.bytes(),
            Self::Spread(state) => state.bytes(),
            Self::Cusum(state) => state.bytes(),
            Self::Ewma(state) => state.bytes(),
            Self::EwmaZ(state) => state.bytes(),
            Self::RelativeEntropy(state) => state.bytes(),
            Self::KnnCad(state) => state.bytes(),
            Self::Ensemble(state) => state.bytes(),
            Self::Hotelling(state) => state.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    pub(super) fn scores(mut detector: impl Detector, x: &[f64]) -> Vec<Option<f64>> {
        x.iter().map(|x| detector.step(&[*x])).collect()
    }

    fn all_rules() -> Vec<(Rule, usize)> {
        let calls: [(&str, &[f64], usize); 13] = [
            ("level_z", &[40.0], 1),
            ("change_z", &[40.0], 1),
            ("rest", &[20.0], 1),
            ("spread", &[20.0], 1),
            ("cusum", &[0.5], 1),
            ("cusum", &[0.5, 4.0], 1),
            ("ewma", &[0.2], 1),
            ("ewma_z", &[0.2], 1),
            ("relative_entropy", &[30.0], 1),
            ("knn_cad", &[60.0], 1),
            ("anomaly_score", &[60.0], 1),
            ("hotelling_t2", &[20.0], 3),
            ("hotelling_q", &[20.0, 1.0], 3),
        ];
        calls.map(|(name, parameters, columns)| (Rule::new(name, parameters, columns).unwrap(), columns)).to_vec()
    }

    #[test]
    fn a_copy_of_the_state_goes_on_as_the_state_does() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            for (rule, columns) in all_rules() {
                let rows: Vec<Vec<f64>> = (0..300).map(|_| (0..columns).map(|_| rng.random_range(-2..9).into()).collect()).collect();
                let (mut state, cut) = (rule.start(), rng.random_range(0..300));
                let mut scores: Vec<Option<f64>> = rows[..cut].iter().map(|row| state.score(row)).collect();
                let mut copy = state.clone();
                scores.extend(rows[cut..].iter().map(|row| state.score(row)));
                let again: Vec<Option<f64>> = rows[cut..].iter().map(|row| copy.score(row)).collect();
                assert_eq!(scores[cut..], again, "{rule:?}, seed {seed}");
                assert_eq!(state, copy, "{rule:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn whatever_number_comes_the_score_is_one_or_none() {
        let numbers = [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN, 5e-324, 0.0, -0.0, 1.0, -1e300, 1e300];
        for seed in 0..40 {
            let mut rng = StdRng::seed_from_u64(seed);
            for (rule, columns) in all_rules() {
                let mut state = rule.start();
                for _ in 0..400 {
                    let row: Vec<f64> = (0..columns).map(|_| numbers[rng.random_range(0..numbers.len())]).collect();
                    let before = state.clone();
                    let score = state.score(&row);
                    assert!(score.is_none_or(f64::is_finite), "{rule:?}, seed {seed}: {score:?} of {row:?}");
                    if row.iter().any(|x| !x.is_finite()) {
                        assert!(score.is_none() && state == before, "{rule:?}, seed {seed}: {row:?} is no reading");
                    }
                }
            }
        }
    }

    #[test]
    fn calls_that_make_no_sense_say_how_it_is_meant() {
        let refused = |name: &str, parameters: &[f64], columns| Rule::new(name, parameters, columns).unwrap_err();
        assert_eq!(refused("level_z", &[], 1), "level_z is called as level_z(value, window)");
        assert_eq!(refused("level_z", &[1.0], 1), "window of level_z is 1; it is a number of rows from 2 to 65536");
        assert_eq!(refused("spread", &[2.5], 1), "rows of spread is 2.5; it is a number of rows from 1 to 65536");
        assert_eq!(refused("ewma", &[0.0], 1), "lambda of ewma is 0; it is from 0.000001 to 1");
        assert!(refused("cusum", &[-1.0], 1).starts_with("k of cusum is -1;"));
        assert_eq!(refused("hotelling_q", &[20.0, 2.0], 2), "components of hotelling_q is 2; it is a number of rows from 1 to 1");
        assert!(refused("knn_cad", &[f64::NAN], 1).starts_with("train of knn_cad is NaN;"));
    }
}
