//! `temporal`: rows that come and go as a clock passes them.
//!
//! SQL     WHERE ts < now() - INTERVAL '30 minutes', ts >= watermark('scans')
//! In      any rows, outside recursion
//! Out     a row while `from <= clock < until`; it enters and leaves by itself,
//!         also in ticks that bring no rows
//! State   the rows that are still to enter or to leave; freed when they have
//! Errors  a bound that cannot be computed becomes an error row
//! Source  temporal filters, Materialize (McSherry, 2020)

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::{
    DataType, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::physical_plan::PhysicalExpr;
use tidegate_types::Delta;
use tidegate_types::Tick;
use tidegate_types::expr::{Failure, evaluate};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::stream::{Errors, Rows, Timed, Watermarks};
use crate::usage::Usage;

/// What the bounds are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockColumn {
    /// The tick's own time.
    Now,
    /// The watermark of the source with this index.
    Watermark(usize),
}

/// A bound in clock milliseconds, computed per row. A NULL bound is never met.
#[derive(Debug, Clone)]
pub struct Bound {
    /// A TIMESTAMP.
    pub at: Arc<dyn PhysicalExpr>,
    /// The bound itself does not count: `clock > at` enters, `clock <= at` leaves, 1 ms later.
    pub after: bool,
}

/// All `from` bounds must be passed and no `until` bound.
#[derive(Debug, Clone)]
pub struct TemporalPlan {
    pub clock: ClockColumn,
    pub from: Vec<Bound>,
    pub until: Vec<Bound>,
    pub schema: SchemaRef,
}

/// Wires the plan.
pub fn temporal<'scope>(
    rows: Rows<'scope, u64>,
    plan: TemporalPlan,
    watermarks: Watermarks,
    errors: Errors,
    usage: Usage,
) -> Rows<'scope, u64> {
    rows.unary_frontier(Pipeline, "Temporal", move |capability, _| {
        let mut arrived: BTreeMap<Tick, Vec<Delta>> = BTreeMap::new();
        let mut schedule = Schedule { due: BTreeMap::new(), usage };
        let mut seen = 0;
        // Held at the frontier: the clock may move a row at any coming tick.
        let mut held = Some(capability);
        move |(input, frontier), output| {
            input.for_each(|_, data| {
                for Timed { time, delta } in data.drain(..) {
                    arrived.entry(time).or_default().push(delta);
                }
            });
            let Some(&closed_before) = frontier.frontier().first() else {
                held = None;
                return;
            };
            let Some(capability) = held.as_mut().filter(|_| seen < closed_before) else { return };
            for (tick, clock) in clock_readings(plan.clock, &watermarks, &arrived, seen, closed_before) {
                let mut out = schedule.take_due(clock);
                for delta in arrived.remove(&tick).unwrap_or_default() {
                    out.extend(schedule.admit(&delta, &plan, clock, |failure| errors.report(tick, "Temporal", failure)));
                }
                let timed = out.into_iter().filter(|delta| !delta.is_empty()).map(|delta| Timed { time: tick, delta });
                output.session(&capability.delayed(&tick)).give_iterator(timed);
            }
            seen = closed_before;
            capability.downgrade(&closed_before);
        }
    })
}

// Every committed tick has an entry in the table; ticks before the engine's first do not, but
// an imported view may bring rows at them.
fn clock_readings(
    clock: ClockColumn,
    watermarks: &Watermarks,
    arrived: &BTreeMap<Tick, Vec<Delta>>,
    from: Tick,
    to: Tick,
) -> Vec<(Tick, i64)> {
    let source = match clock {
        ClockColumn::Now => usize::MAX,
        ClockColumn::Watermark(source) => source,
    };
    let mut readings: BTreeMap<Tick, Option<i64>> = watermarks.between(from, to, source).into_iter().collect();
    for &tick in arrived.range(from..to).map(|(tick, _)| tick) {
        readings.entry(tick).or_insert_with(|| watermarks.before(tick + 1, source));
    }
    let read = |(tick, watermark): (Tick, Option<i64>)| match clock {
        ClockColumn::Now => (tick, tick as i64),
        ClockColumn::Watermark(_) => (tick, watermark.unwrap_or(i64::MIN)),
    };
    readings.into_iter().map(read).collect()
}

/// Which rows change when the clock reaches which millisecond.
struct Schedule {
    due: BTreeMap<i64, Vec<Delta>>,
    usage: Usage,
}

impl Schedule {
    fn take_due(&mut self, clock: i64) -> Vec<Delta> {
        let later = match clock.checked_add(1) {
            Some(next) => self.due.split_off(&next),
            None => BTreeMap::new(),
        };
        let due: Vec<Delta> = std::mem::replace(&mut self.due, later).into_values().flatten().collect();
        self.usage.shrink(due.iter().map(bytes).sum());
        due
    }

    /// What is visible of `delta` now; the rest is scheduled.
    fn admit(&mut self, delta: &Delta, plan: &TemporalPlan, clock: i64, mut fail: impl FnMut(Failure)) -> Option<Delta> {
        let from = bounds(&plan.from, delta, i64::MIN, i64::max, &mut fail);
        let until = bounds(&plan.until, delta, i64::MAX, i64::min, &mut fail);
        let mut visible = Vec::new();
        let mut entering: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        let mut leaving: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for i in 0..delta.len() {
            let (Some(from), Some(until)) = (from[i], until[i]) else { continue };
            if until <= from.max(clock) {
                continue;
            }
            match from <= clock {
                true => visible.push(i as u32),
                false => entering.entry(from).or_default().push(i as u32),
            }
            if until < i64::MAX {
                leaving.entry(until).or_default().push(i as u32);
            }
        }
        let part = |indices: Vec<u32>| delta.take(&UInt32Array::from(indices)).expect("indices within the batch");
        let entering = entering.into_iter().map(|(at, indices)| (at, part(indices)));
        for (at, delta) in entering.chain(leaving.into_iter().map(|(at, indices)| (at, part(indices).negate()))) {
            self.usage.grow(bytes(&delta));
            self.due.entry(at).or_default().push(delta);
        }
        (!visible.is_empty()).then(|| part(visible))
    }
}

fn bytes(delta: &Delta) -> usize {
    delta.rows.get_array_memory_size() + size_of_val(&delta.diffs[..])
}

/// The tightest of `bounds` per row, in milliseconds; None where one is NULL or failed.
fn bounds(bounds: &[Bound], delta: &Delta, open: i64, tighter: fn(i64, i64) -> i64, fail: &mut impl FnMut(Failure)) -> Vec<Option<i64>> {
    let mut tightest = vec![Some(open); delta.len()];
    for bound in bounds {
        let computed = evaluate(bound.at.as_ref(), &delta.rows).map(|column| milliseconds(&column));
        for (i, slot) in tightest.iter_mut().enumerate() {
            let at = match &computed {
                Ok(column) => column[i],
                Err(_) => match evaluate(bound.at.as_ref(), &delta.rows.slice(i, 1)) {
                    Ok(column) => milliseconds(&column)[0],
                    Err(reason) => {
                        fail(Failure { reason, diff: delta.diffs[i] });
                        None
                    }
                },
            };
            let at = at.map(|at| at.saturating_add(i64::from(bound.after)));
            *slot = slot.zip(at).map(|(slot, at)| tighter(slot, at));
        }
    }
    tightest
}

// A clock reads whole milliseconds, so `clock >= at` first holds at the next whole one:
// round up. `after` adds 1 ms, which for a fraction rounds down first.
fn milliseconds(column: &ArrayRef) -> Vec<Option<i64>> {
    let ceil = |x: i64, per_ms: i64| x.div_euclid(per_ms) + i64::from(x.rem_euclid(per_ms) != 0);
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            column.as_primitive::<TimestampSecondType>().iter().map(|x| x.map(|x| x.saturating_mul(1000))).collect()
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => column.as_primitive::<TimestampMillisecondType>().iter().collect(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().iter().map(|x| x.map(|x| ceil(x, 1_000))).collect()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().iter().map(|x| x.map(|x| ceil(x, 1_000_000))).collect()
        }
        other => unreachable!("the planner makes temporal bounds TIMESTAMP, not {other}"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{RecordBatch, TimestampMillisecondArray};
    use arrow::datatypes::{Field, Schema};
    use datafusion::physical_expr::expressions::col;

    use super::*;

    fn plan(schema: &SchemaRef) -> TemporalPlan {
        let at = |name: &str| col(name, schema).unwrap();
        TemporalPlan {
            clock: ClockColumn::Now,
            from: vec![Bound { at: at("from"), after: false }],
            until: vec![Bound { at: at("until"), after: true }],
            schema: Arc::clone(schema),
        }
    }

    fn row(from: Option<i64>, until: Option<i64>, diff: i64) -> (SchemaRef, Delta) {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        let schema = Arc::new(Schema::new(vec![Field::new("from", timestamp.clone(), true), Field::new("until", timestamp, true)]));
        let columns: Vec<ArrayRef> = [from, until].map(|at| Arc::new(TimestampMillisecondArray::from(vec![at])) as ArrayRef).into();
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        (schema, Delta::new(rows, [diff]))
    }

    fn net(deltas: &[Delta]) -> i64 {
        deltas.iter().flat_map(|delta| delta.diffs.iter()).sum()
    }

    #[test]
    fn a_row_enters_at_from_and_leaves_after_until() {
        let (schema, delta) = row(Some(10), Some(20), 1);
        let mut schedule = Schedule { due: BTreeMap::new(), usage: Usage::default() };
        assert!(schedule.admit(&delta, &plan(&schema), 5, |_| ()).is_none());
        assert_eq!(net(&schedule.take_due(9)), 0);
        assert_eq!(net(&schedule.take_due(10)), 1);
        assert_eq!(net(&schedule.take_due(20)), 0);
        assert_eq!(net(&schedule.take_due(21)), -1);
        assert!(schedule.due.is_empty());
    }

    #[test]
    fn a_row_deleted_before_it_leaves_nets_to_nothing() {
        let (schema, delta) = row(Some(10), Some(20), 1);
        let mut schedule = Schedule { due: BTreeMap::new(), usage: Usage::default() };
        assert_eq!(schedule.admit(&delta, &plan(&schema), 15, |_| ()).map(|d| net(&[d])), Some(1));
        assert_eq!(schedule.admit(&delta.negate(), &plan(&schema), 16, |_| ()).map(|d| net(&[d])), Some(-1));
        assert_eq!(net(&schedule.take_due(30)), 0);
    }

    #[test]
    fn null_bounds_and_empty_intervals_are_never_visible() {
        for (from, until) in [(None, Some(20)), (Some(10), None), (Some(20), Some(10))] {
            let (schema, delta) = row(from, until, 1);
            let mut schedule = Schedule { due: BTreeMap::new(), usage: Usage::default() };
            assert!(schedule.admit(&delta, &plan(&schema), 15, |_| ()).is_none());
            assert_eq!(net(&schedule.take_due(i64::MAX)), 0);
        }
    }
}
