//! One series: rows in order, their scores, and states to go on from. The rule of `series`,
//! without dataflow types.
//!
//! A change is followed from the last copy of the state before it, until the state is again what
//! it was there before, or to the end.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use crate::detector::{Rule, State};

/// The calls of one OVER, and where each finds its columns among a row's numbers.
#[derive(Debug, Clone)]
pub struct Folds(pub Vec<(Rule, Range<usize>)>);

type States = Box<[State]>;

impl Folds {
    fn start(&self) -> States {
        self.0.iter().map(|(rule, _)| rule.start()).collect()
    }

    /// Scores are finite: NaN says that there is none.
    fn step(&self, states: &mut [State], x: &[f64], scores: &mut Vec<f64>) {
        for (state, (_, columns)) in states.iter_mut().zip(&self.0) {
            scores.push(state.score(&x[columns.clone()]).unwrap_or(f64::NAN));
        }
    }

    /// Without looking at the scores.
    fn pass(&self, states: &mut [State], x: &[f64]) {
        for (state, (_, columns)) in states.iter_mut().zip(&self.0) {
            state.score(&x[columns.clone()]);
        }
    }
}

#[derive(Debug)]
pub struct Series {
    /// Before the first of `rows`; behind the rows that are settled.
    base: States,
    /// Behind the last of `rows`.
    tail: States,
    rows: BTreeMap<Box<[u8]>, Row>,
    /// Rows behind the last copy of the state.
    uncopied: usize,
    is_settled: bool,
    /// Rows whose count changed since the last refresh, and the first of them.
    changed: usize,
    first_changed: Option<Box<[u8]>>,
}

#[derive(Debug)]
struct Row {
    count: i64,
    is_changed: bool,
    /// One number per column; NaN where there is none.
    x: Box<[f64]>,
    /// One number per copy and call.
    scores: Box<[f64]>,
    /// The state behind it.
    copy: Option<States>,
}

/// Between two copies of the state there are at least this many rows,
const UNCOPIED_ROWS_MIN: usize = 32;
/// and so many that they, at this size, weigh as much as a copy.
const ROW_BYTES: usize = 128;

impl Series {
    pub fn new(folds: &Folds) -> Self {
        Self {
            base: folds.start(),
            tail: folds.start(),
            rows: BTreeMap::new(),
            uncopied: 0,
            is_settled: false,
            changed: 0,
            first_changed: None,
        }
    }

    /// Nothing is known that a new series would not know.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.is_settled
    }

    pub fn is_changed(&self) -> bool {
        self.first_changed.is_some()
    }

    /// What it takes, about: copies of the state weigh as much as the rows.
    pub fn bytes(&self) -> usize {
        let states: usize = [&self.base, &self.tail].into_iter().flatten().map(State::bytes).sum();
        states + 2 * self.rows.len() * ROW_BYTES
    }

    /// `diff` copies of the row come; [`Self::refresh`] tells what follows.
    pub fn add(&mut self, row: &[u8], x: &[f64], diff: i64) {
        let known = match self.rows.get_mut(row) {
            Some(known) => known,
            None => {
                let new = Row { count: 0, is_changed: false, x: x.into(), scores: Box::default(), copy: None };
                self.rows.entry(row.into()).or_insert(new)
            }
        };
        known.count += diff;
        if !known.is_changed {
            known.is_changed = true;
            self.changed += 1;
        }
        if self.first_changed.as_deref().is_none_or(|first| row < first) {
            self.first_changed = Some(row.into());
        }
    }

    /// Scores all changed rows, and those behind them whose scores change; `emit(row, scores, diff)`
    /// gets the difference.
    pub fn refresh(&mut self, folds: &Folds, mut emit: impl FnMut(&[u8], &[f64], i64)) {
        let Some(first) = self.first_changed.take() else { return };
        let (mut states, mut uncopied) = self.states_before(&first, folds);
        let copied_every = UNCOPIED_ROWS_MIN.max(states.iter().map(State::bytes).sum::<usize>() / ROW_BYTES);
        let (mut scores, mut gone, mut agrees) = (Vec::new(), Vec::new(), false);
        for (bytes, row) in self.rows.range_mut(first..) {
            scores.clear();
            (0..row.count).for_each(|_| folds.step(&mut states, &row.x, &mut scores));
            row.tell(bytes, &scores, folds.0.len(), &mut emit);
            self.changed -= usize::from(std::mem::take(&mut row.is_changed));
            uncopied += 1;
            match &mut row.copy {
                _ if row.count == 0 => gone.push(bytes.clone()),
                Some(copy) if self.changed == 0 && *copy == states => {
                    agrees = true;
                    break;
                }
                Some(copy) => {
                    copy.clone_from(&states);
                    uncopied = 0;
                }
                None if copied_every <= uncopied => {
                    row.copy = Some(states.clone());
                    uncopied = 0;
                }
                None => {}
            }
        }
        if !agrees {
            (self.tail, self.uncopied) = (states, uncopied);
        }
        gone.iter().for_each(|row| drop(self.rows.remove(row)));
    }

    /// Rows below `bound` neither come nor go any more, so that only what they leave behind is kept.
    /// After a refresh.
    pub fn settle(&mut self, folds: &Folds, bound: &[u8]) {
        while let Some(entry) = self.rows.first_entry().filter(|entry| &entry.key()[..] < bound) {
            let row = entry.remove();
            (0..row.count).for_each(|_| folds.pass(&mut self.base, &row.x));
            self.is_settled = true;
        }
    }

    /// The state before `first`, and how many rows there are since the last copy. The tail is
    /// taken where it is that state.
    fn states_before(&mut self, first: &[u8], folds: &Folds) -> (States, usize) {
        let is_new = |row: &Row| row.scores.is_empty();
        if self.rows.range::<[u8], _>((Bound::Included(first), Bound::Unbounded)).all(|(_, row)| is_new(row)) {
            return (std::mem::take(&mut self.tail), self.uncopied);
        }
        let before = || self.rows.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(first))).rev();
        let mut states = before().find_map(|(_, row)| row.copy.clone()).unwrap_or_else(|| self.base.clone());
        let uncopied: Vec<&Row> = before().map(|(_, row)| row).take_while(|row| row.copy.is_none()).collect();
        for row in uncopied.iter().rev() {
            (0..row.count).for_each(|_| folds.pass(&mut states, &row.x));
        }
        (states, uncopied.len())
    }
}

impl Row {
    /// Takes `scores` on; what was and is no more goes, what is new comes.
    fn tell(&mut self, bytes: &[u8], scores: &[f64], calls: usize, emit: &mut impl FnMut(&[u8], &[f64], i64)) {
        let bits = |scores: &[f64]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
        if bits(&self.scores) == bits(scores) {
            return;
        }
        let (old, new) = (self.scores.chunks_exact(calls), scores.chunks_exact(calls));
        // Most rows have one copy, and copies are alike in which of them changes.
        let same = old.clone().zip(new.clone()).take_while(|(old, new)| bits(old) == bits(new)).count();
        old.skip(same).for_each(|scores| emit(bytes, scores, -1));
        new.skip(same).for_each(|scores| emit(bytes, scores, 1));
        self.scores = scores.into();
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    type Table = BTreeMap<(Vec<u8>, Vec<u64>), i64>;

    fn row(time: u16, x: u8) -> Vec<u8> {
        [&time.to_be_bytes()[..], &[x]].concat()
    }

    fn number(x: u8) -> f64 {
        if x == 7 { f64::NAN } else { f64::from(x) }
    }

    /// All rows in order, each as often as it is there, from the start.
    fn batch(folds: &Folds, rows: &BTreeMap<(u16, u8), i64>) -> Table {
        let (mut states, mut table) = (folds.start(), Table::new());
        for ((time, x), count) in rows {
            for _ in 0..*count {
                let mut scores = Vec::new();
                folds.step(&mut states, &[number(*x)], &mut scores);
                *table.entry((row(*time, *x), scores.iter().map(|score| score.to_bits()).collect())).or_default() += 1;
            }
        }
        table
    }

    fn folds(seed: u64) -> Folds {
        let calls: [&[(&str, f64)]; 6] = [
            &[("level_z", 12.0)],
            &[("cusum", 0.5), ("change_z", 6.0)],
            &[("spread", 5.0), ("rest", 7.0)],
            &[("ewma", 0.3), ("ewma_z", 0.3)],
            &[("relative_entropy", 30.0)],
            &[("knn_cad", 50.0), ("anomaly_score", 40.0), ("level_z", 3.0)],
        ];
        let rule = |(name, parameter): &(&str, f64)| (Rule::new(name, &[*parameter], 1).unwrap(), 0..1);
        Folds(calls[seed as usize % calls.len()].iter().map(rule).collect())
    }

    struct Run {
        folds: Folds,
        series: Series,
        rows: BTreeMap<(u16, u8), i64>,
        told: Table,
    }

    impl Run {
        fn new(seed: u64) -> Self {
            let folds = folds(seed);
            Self { series: Series::new(&folds), folds, rows: BTreeMap::new(), told: Table::new() }
        }

        fn add(&mut self, time: u16, x: u8, diff: i64) {
            *self.rows.entry((time, x)).or_default() += diff;
            self.rows.retain(|_, count| *count != 0);
            self.series.add(&row(time, x), &[number(x)], diff);
        }

        fn refresh(&mut self) {
            let told = &mut self.told;
            self.series.refresh(&self.folds, |row, scores, diff| {
                let scores = scores.iter().map(|score| score.to_bits()).collect();
                *told.entry((row.to_vec(), scores)).or_default() += diff;
            });
            self.told.retain(|_, count| *count != 0);
        }
    }

    #[test]
    fn what_was_told_adds_up_to_the_batch_answer() {
        for seed in 0..240 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut run = Run::new(seed);
            let (mut settled, settles) = (0, rng.random_bool(0.5));
            for tick in 0..60 {
                for _ in 0..rng.random_range(0..12) {
                    let newest = settled.max(tick * 4);
                    let time = if rng.random_bool(0.7) { newest + rng.random_range(0..6) } else { rng.random_range(settled..=newest) };
                    match run.rows.iter().filter(|((time, _), _)| settled <= *time).nth(rng.random_range(0..20)) {
                        // Deleted, doubled, corrected; and now and then taken away before it came.
                        Some((&(time, x), _)) if rng.random_bool(0.4) => run.add(time, x, if rng.random_bool(0.7) { -1 } else { 1 }),
                        _ if rng.random_bool(0.03) => run.add(time, rng.random_range(0..9), -1),
                        _ => run.add(time, rng.random_range(0..9), 1),
                    }
                }
                run.refresh();
                assert_eq!(run.told, batch(&run.folds, &run.rows), "seed {seed}, tick {tick}");
                // A row that was taken away before it came keeps its time from settling.
                let owed = run.rows.iter().find(|(_, count)| **count < 0).map_or(u16::MAX, |((time, _), _)| *time);
                if settles && rng.random_bool(0.3) {
                    settled = settled.max(rng.random_range(0..=tick * 4)).min(owed);
                    run.series.settle(&run.folds, &settled.to_be_bytes());
                }
            }
        }
    }

    #[test]
    fn how_rows_are_split_into_ticks_does_not_matter() {
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut one, mut many) = (Run::new(seed), Run::new(seed));
            for _ in 0..300 {
                let (time, x) = (rng.random_range(0..400), rng.random_range(0..9));
                one.add(time, x, 1);
                many.add(time, x, 1);
                if rng.random_bool(0.3) {
                    many.refresh();
                }
            }
            one.refresh();
            many.refresh();
            assert_eq!(one.told, many.told, "seed {seed}");
        }
    }

    // The window forgets: far behind the change nothing is told, and nothing is scored again.
    #[test]
    fn a_change_is_followed_until_the_state_agrees() {
        let mut run = Run::new(0);
        (0..2000).for_each(|time| run.add(2 * time, (time % 5) as u8, 1));
        run.refresh();
        let copies = |run: &Run| run.series.rows.values().filter_map(|row| row.copy.as_ref().map(|copy| copy.as_ptr())).collect::<Vec<_>>();
        let (before, told) = (copies(&run), run.told.clone());
        assert!(before.len() > 40);
        run.add(1001, 6, 1);
        run.refresh();
        let changed: Vec<u16> =
            run.told.keys().filter(|row| !told.contains_key(*row)).map(|(row, _)| u16::from_be_bytes([row[0], row[1]])).collect();
        assert!(changed.iter().all(|time| (1001..=1001 + 2 * 13).contains(time)), "{changed:?}");
        assert_eq!(run.told, batch(&run.folds, &run.rows));
        assert!(copies(&run).ends_with(&before[before.len() / 2..]));
    }

    #[test]
    fn settled_rows_leave_nothing_but_the_state() {
        let mut run = Run::new(0);
        (0..100).for_each(|time| run.add(time, (time % 5) as u8, 1));
        run.refresh();
        run.series.settle(&run.folds, &100u16.to_be_bytes());
        assert!(run.series.rows.is_empty() && !run.series.is_empty());
        assert_eq!(run.series.base, run.series.tail);
    }
}
