//! `series`: detectors over each key's rows in their order.
//!
//! SQL     level_z(value, 6400) OVER (PARTITION BY key ORDER BY ts), and the other calls of
//!         `detector`; any number of them over one PARTITION BY and ORDER BY
//! In      any rows, outside recursion
//! Out     each row with a score per call; a late, changed or deleted row also changes what
//!         comes behind it, as far as its effect reaches
//! State   per key two states per call, and the rows whose time can still change, about 128 bytes
//!         and 16 per call each, with copies of the states that weigh no more than the rows.
//!         Where a watermark bounds the first column of the order, rows below it are freed
//!         with the key's next change; the states stay
//! Errors  none: what is no number has no score
//! Ties    by the remaining columns, so that the answer is one
//! Source  a replay from a checkpoint until the state agrees with the old one again

mod fold;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampMillisecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{Float64Type, Schema, SchemaRef};
use hashbrown::HashMap;
use tidegate_types::Delta;
use tidegate_types::row::{RowCodec, project_schema};

use crate::arrange::Bytes;
use crate::detector::Rule;
use crate::keyed::by_tick;
use crate::stream::{Rows, Watermarks, exchange};
use crate::top::order::OrderedRows;
use crate::usage::Usage;
use fold::{Folds, Series};

/// Plain data; columns are indices into the input.
#[derive(Debug, Clone)]
pub struct SeriesPlan {
    pub key: Vec<usize>,
    pub order: Vec<(usize, SortOptions)>,
    pub calls: Vec<Call>,
    pub free: Option<FreeRule>,
    pub input: SchemaRef,
    /// The input's columns, and a DOUBLE per call.
    pub schema: SchemaRef,
}

/// One function of the OVER.
#[derive(Debug, Clone)]
pub struct Call {
    pub rule: Rule,
    /// DOUBLEs.
    pub columns: Vec<usize>,
}

/// Rows whose first order column, a TIMESTAMP in milliseconds that rises, is below
/// `watermark(source) - slack_ms` neither come nor go any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeRule {
    pub source: usize,
    pub slack_ms: i64,
}

/// Wires the plan.
pub fn series<'scope>(rows: Rows<'scope, u64>, plan: SeriesPlan, watermarks: Watermarks, usage: Usage) -> Rows<'scope, u64> {
    let rows = exchange(rows, &plan.input, &plan.key);
    let mut keys = Keys::new(plan, usage.clone());
    by_tick(rows, "Series", None, usage, move |tick, deltas, out, _| {
        let bound = keys.plan.free.and_then(|rule| Some(watermarks.passed(tick, rule.source)?.saturating_sub(rule.slack_ms)));
        out.push(keys.step(&deltas, bound));
    })
}

/// Series by key.
struct Keys {
    plan: SeriesPlan,
    codec: OrderedRows,
    folds: Folds,
    /// Where a row's numbers are, call by call.
    columns: Vec<usize>,
    series: HashMap<Bytes, Series>,
    usage: Usage,
}

impl Keys {
    fn new(plan: SeriesPlan, usage: Usage) -> Self {
        let mut columns = Vec::new();
        let folds = plan.calls.iter().map(|call| {
            let first = columns.len();
            columns.extend_from_slice(&call.columns);
            (call.rule.clone(), first..columns.len())
        });
        let folds = Folds(folds.collect());
        let codec = OrderedRows::new(&plan.input, &plan.key, &plan.order);
        Self { codec, folds, columns, series: HashMap::new(), plan, usage }
    }

    /// All of a tick's rows; behind it nothing below `bound` changes.
    fn step(&mut self, deltas: &[Delta], bound: Option<i64>) -> Delta {
        let touched = self.add(deltas);
        let bound = bound.map(|bound| self.encoded(bound));
        let mut changes = Changes::new(self.folds.0.len());
        for key in touched {
            let series = self.series.get_mut(&key).expect("touched series are there");
            series.refresh(&self.folds, |row, scores, diff| changes.push(row, scores, diff));
            if let Some(bound) = &bound {
                series.settle(&self.folds, bound);
            }
            self.usage.grow(series.bytes());
            if series.is_empty() {
                self.usage.shrink(series.bytes());
                self.series.remove(&key);
            }
        }
        changes.into_delta(&self.codec, &self.plan.schema)
    }

    /// The keys that are touched.
    fn add(&mut self, deltas: &[Delta]) -> Vec<Bytes> {
        let (mut touched, mut row, mut x) = (Vec::new(), Vec::new(), vec![0.0; self.columns.len()]);
        for delta in deltas {
            let encoded = self.codec.encode(delta);
            let numbers: Vec<&Float64Array> = self.columns.iter().map(|&i| delta.rows.column(i).as_primitive::<Float64Type>()).collect();
            for (i, &diff) in delta.diffs.iter().enumerate().filter(|(_, diff)| **diff != 0) {
                let key = encoded.keys.row(i);
                let (folds, usage) = (&self.folds, &self.usage);
                let series = self.series.entry_ref(key).or_insert_with(|| {
                    let series = Series::new(folds);
                    usage.grow(series.bytes());
                    series
                });
                if !series.is_changed() {
                    self.usage.shrink(series.bytes());
                    touched.push(key.into());
                }
                encoded.ordered(i, &mut row);
                x.iter_mut().zip(&numbers).for_each(|(x, column)| *x = if column.is_valid(i) { column.value(i) } else { f64::NAN });
                series.add(&row, &x, diff);
            }
        }
        touched
    }

    /// What all rows from `bound` on do not sort below.
    fn encoded(&self, bound: i64) -> Bytes {
        let (column, options) = self.plan.order[0];
        let schema = project_schema(&self.plan.input, &[column]);
        let codec = RowCodec::with_order(Arc::clone(&schema), &[options]).expect("the planner checked the types");
        let timezone = match schema.field(0).data_type() {
            arrow::datatypes::DataType::Timestamp(_, timezone) => timezone.clone(),
            _ => None,
        };
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![bound]).with_timezone_opt(timezone));
        codec.encode_columns(&[times], 1).expect("the planner checked the type").row(0).to_vec()
    }
}

/// Rows on their way out.
struct Changes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    diffs: Vec<i64>,
    /// One list per call.
    scores: Vec<Vec<f64>>,
}

impl Changes {
    fn new(calls: usize) -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), diffs: Vec::new(), scores: vec![Vec::new(); calls] }
    }

    fn push(&mut self, row: &[u8], scores: &[f64], diff: i64) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
        self.diffs.push(diff);
        self.scores.iter_mut().zip(scores).for_each(|(column, score)| column.push(*score));
    }

    fn into_delta(self, codec: &OrderedRows, schema: &Arc<Schema>) -> Delta {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let rows = starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end]);
        let mut columns = codec.decode_columns(rows);
        let score = |score: f64| Some(score).filter(|score| !score.is_nan());
        columns.extend(self.scores.into_iter().map(|scores| Arc::new(scores.into_iter().map(score).collect::<Float64Array>()) as ArrayRef));
        let rows = RecordBatch::try_new(Arc::clone(schema), columns).expect("the plan's schema");
        Delta::new(rows, self.diffs)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::{Inspect, Probe};

    use super::*;
    use crate::stream::Timed;

    /// (series, time, value, serial)
    type Reading = (u8, i64, Option<u8>, i64);
    type Table = BTreeMap<(u8, i64, Option<u8>, i64, Vec<Option<u64>>), i64>;

    fn input() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let fields = [("series", DataType::Utf8), ("ts", time), ("value", DataType::Float64), ("serial", DataType::Int64)];
        Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
    }

    fn plan(free: bool) -> SeriesPlan {
        let call = |name: &str, parameter: f64| Call { rule: Rule::new(name, &[parameter], 1).unwrap(), columns: vec![2] };
        let calls = vec![call("level_z", 9.0), call("spread", 4.0), call("cusum", 2.0)];
        let scores = (0..calls.len()).map(|i| Field::new(format!("score{i}"), DataType::Float64, true));
        let fields: Vec<Field> = input().fields().iter().map(|field| field.as_ref().clone()).chain(scores).collect();
        SeriesPlan {
            key: vec![0],
            order: vec![(1, SortOptions { descending: false, nulls_first: false })],
            calls,
            free: free.then_some(FreeRule { source: 0, slack_ms: 0 }),
            input: input(),
            schema: Arc::new(Schema::new(fields)),
        }
    }

    fn delta(rows: &[(Reading, i64)]) -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|((series, ..), _)| series.to_string()))),
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|((_, time, ..), _)| *time))),
            Arc::new(rows.iter().map(|((_, _, value, _), _)| value.map(f64::from)).collect::<Float64Array>()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|((.., serial), _)| *serial))),
        ];
        let batch = RecordBatch::try_new(input(), columns).unwrap();
        Delta::new(batch, rows.iter().map(|(_, diff)| *diff).collect::<Vec<_>>())
    }

    fn read(delta: &Delta, table: &mut Table) {
        let text = delta.rows.column(0).as_string::<i32>();
        let time = delta.rows.column(1).as_primitive::<arrow::datatypes::TimestampMillisecondType>();
        let floats = |i: usize| delta.rows.column(i).as_primitive::<Float64Type>();
        let serial = delta.rows.column(3).as_primitive::<arrow::datatypes::Int64Type>();
        for i in 0..delta.len() {
            let float = |column: usize| floats(column).is_valid(i).then(|| floats(column).value(i));
            let scores = (4..7).map(|column| float(column).map(f64::to_bits)).collect();
            let row = (text.value(i).parse().unwrap(), time.value(i), float(2).map(|x| x as u8), serial.value(i), scores);
            *table.entry(row).or_default() += delta.diffs[i];
        }
        table.retain(|_, count| *count != 0);
    }

    /// Each series from its start, rows by time, then value with NULL first, then serial.
    fn batch(readings: &[Reading]) -> Table {
        let mut table = Table::new();
        for series in 0..4 {
            let mut rows: Vec<&Reading> = readings.iter().filter(|row| row.0 == series).collect();
            rows.sort_by_key(|row| (row.1, row.2, row.3));
            let mut states: Vec<_> = plan(false).calls.iter().map(|call| call.rule.start()).collect();
            for row in rows {
                let x = row.2.map_or(f64::NAN, f64::from);
                let scores = states.iter_mut().map(|state| state.score(&[x]).map(f64::to_bits)).collect();
                *table.entry((row.0, row.1, row.2, row.3, scores)).or_default() += 1;
            }
        }
        table
    }

    /// Ticks of changes, and the watermark behind each.
    fn story(seed: u64) -> (Vec<(Vec<(Reading, i64)>, i64)>, Vec<Reading>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut all, mut ticks, mut watermark): (Vec<Reading>, Vec<_>, i64) = (Vec::new(), Vec::new(), 0);
        for tick in 0..40 {
            let mut changes = Vec::new();
            for serial in 0..rng.random_range(0..15) {
                let changeable: Vec<usize> = (0..all.len()).filter(|&i| watermark <= all[i].1).collect();
                if rng.random_bool(0.25) && !changeable.is_empty() {
                    let gone = all.swap_remove(changeable[rng.random_range(0..changeable.len())]);
                    changes.push((gone, -1));
                } else {
                    let value = rng.random_bool(0.9).then(|| rng.random_range(0..6));
                    let row = (rng.random_range(0..4), watermark + rng.random_range(0..30), value, serial % 2);
                    all.push(row);
                    changes.push((row, 1));
                }
            }
            changes.shuffle(&mut rng);
            if rng.random_bool(0.5) {
                watermark = watermark.max(tick * 5 - rng.random_range(0..20));
            }
            ticks.push((changes, watermark));
        }
        (ticks, all)
    }

    fn run(seed: u64, workers: usize, free: bool) -> Table {
        let tables = timely::execute(timely::Config::process(workers), move |worker| {
            let (index, peers) = (worker.index(), worker.peers());
            let (ticks, _) = story(seed);
            let watermarks = Watermarks::default();
            let told = Rc::new(RefCell::new(Table::new()));
            let (sink, known) = (Rc::clone(&told), watermarks.clone());
            let mut handle = InputHandle::<u64, _>::new();
            let probe = worker.dataflow(|scope| {
                let rows: Rows<'_, u64> = handle.to_stream(scope);
                let scored = series(rows, plan(free), known, Usage::default());
                scored.inspect(move |timed: &Timed<u64>| read(&timed.delta, &mut sink.borrow_mut())).probe().0
            });
            for (tick, (changes, watermark)) in ticks.iter().enumerate() {
                let mine: Vec<_> = changes.iter().skip(index).step_by(peers).copied().collect();
                for part in mine.chunks(3) {
                    handle.send(Timed { time: tick as u64, delta: delta(part) });
                }
                watermarks.set(tick as u64, [Some(*watermark)].into());
                handle.advance_to(tick as u64 + 1);
                worker.step_while(|| probe.less_than(handle.time()));
            }
            told.take()
        });
        let mut all = Table::new();
        for table in tables.unwrap().join() {
            table.unwrap().into_iter().for_each(|(row, count)| *all.entry(row).or_default() += count);
        }
        all
    }

    #[test]
    fn what_was_told_adds_up_to_the_batch_answer_at_one_and_four_workers() {
        for seed in 0..30 {
            let expected = batch(&story(seed).1);
            for (workers, free) in [(1, false), (1, true), (4, false), (4, true)] {
                assert_eq!(run(seed, workers, free), expected, "seed {seed}, {workers} workers, rows freed: {free}");
            }
        }
    }

    #[test]
    fn rows_below_the_watermark_are_freed_and_empty_series_too() {
        let mut keys = Keys::new(plan(true), Usage::default());
        keys.step(&[delta(&[((0, 10, Some(1), 0), 1), ((0, 30, Some(2), 0), 1), ((1, 30, Some(2), 0), 1)])], Some(20));
        assert_eq!(keys.series.len(), 2);
        // The one row of series 1 goes, and nothing is known of it any more; of series 0 a state is.
        keys.step(&[delta(&[((0, 30, Some(2), 0), -1), ((1, 30, Some(2), 0), -1)])], Some(20));
        assert_eq!(keys.series.len(), 1);
        let next = keys.step(&[delta(&[((0, 40, Some(3), 0), 1)])], Some(50));
        // Of 1, then 3: CUSUM over 2 is max(0, 0 + 3 - 2).
        assert_eq!(next.rows.column(6).as_primitive::<Float64Type>().value(0), 1.0);
    }
}
