//! One aggregate's state for many groups: vectorised, retractable, exact.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, UInt32Array, UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    DataType, Decimal128Type, DecimalType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tidegate_types::row::RowCodec;
use xsum::{Xsum, XsumSmall};

use super::{Call, Function};
use crate::arrange::Bytes;
use crate::usage::{ENTRY_BYTES, Usage};

/// State per slot. NULL arguments never count.
pub(super) trait Accumulator: Send {
    fn grow(&mut self, slots: usize);
    /// Row i adds `diffs[i]` copies of `argument[i]` to `slots[i]`.
    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]);
    /// One result per slot; `fail(i, reason)` for those that do not fit, whose result is NULL.
    fn evaluate(&self, slots: &[u32], fail: &mut dyn FnMut(usize, String)) -> ArrayRef;
    fn clear(&mut self, slot: u32);
}

/// The accumulator for `call`.
pub(super) fn accumulator(
    call: &Call,
    argument: Option<&DataType>,
    output: &DataType,
    append_only: bool,
    usage: &Usage,
) -> Box<dyn Accumulator> {
    let plain: Box<dyn Accumulator> = match (call.function, argument) {
        (Function::Count, _) => Box::new(Count(Vec::new())),
        (Function::Sum | Function::Avg, Some(DataType::Float32 | DataType::Float64)) => {
            Box::new(FloatSum { sums: Vec::new(), average: call.function == Function::Avg, output: output.clone() })
        }
        (Function::Sum | Function::Avg, Some(argument)) => {
            let scale_argument = if let DataType::Decimal128(_, scale) = argument { *scale } else { 0 };
            Box::new(IntegerSum { sums: Vec::new(), average: call.function == Function::Avg, scale_argument, output: output.clone() })
        }
        // The smallest and largest of a set and of a bag are the same.
        (Function::Min | Function::Max, Some(argument)) => return extreme(call.function == Function::Max, argument, append_only, usage),
        (Function::BoolAnd | Function::BoolOr, _) => Box::new(Truth { counts: Vec::new(), all: call.function == Function::BoolAnd }),
        (function, None) => unreachable!("{function:?} has an argument"),
    };
    match (call.distinct, argument) {
        (true, Some(argument)) => Box::new(Distinct::new(argument, plain, usage.clone())),
        _ => plain,
    }
}

fn codec(of: &DataType) -> RowCodec {
    let schema = Arc::new(Schema::new(vec![Field::new("argument", of.clone(), true)]));
    RowCodec::new(schema).expect("the planner checked the types")
}

struct Count(Vec<i64>);

impl Accumulator for Count {
    fn grow(&mut self, slots: usize) {
        self.0.resize(slots, 0);
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]) {
        for (i, (&slot, diff)) in slots.iter().zip(diffs).enumerate() {
            if argument.is_none_or(|column| column.is_valid(i)) {
                self.0[slot as usize] += diff;
            }
        }
    }

    fn evaluate(&self, slots: &[u32], _: &mut dyn FnMut(usize, String)) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| self.0[slot as usize])))
    }

    fn clear(&mut self, slot: u32) {
        self.0[slot as usize] = 0;
    }
}

/// Exact sums of integers and decimals (as unscaled integers).
struct IntegerSum {
    /// Sum, and how many values it has; None where i128 overflowed, until the group is empty.
    sums: Vec<(Option<i128>, i64)>,
    average: bool,
    scale_argument: i8,
    output: DataType,
}

impl IntegerSum {
    fn result(&self, (sum, count): (Option<i128>, i64)) -> Result<Option<i128>, String> {
        if count == 0 {
            return Ok(None);
        }
        let out_of_range = || format!("{} is out of range for {}", if self.average { "avg" } else { "sum" }, self.output);
        let sum = sum.ok_or_else(out_of_range)?;
        let fits = |value: i128| match &self.output {
            DataType::Int64 => i64::try_from(value).is_ok(),
            DataType::UInt64 => u64::try_from(value).is_ok(),
            DataType::Decimal128(precision, scale) => Decimal128Type::validate_decimal_precision(value, *precision, *scale).is_ok(),
            _ => true,
        };
        let value = match (self.average, &self.output) {
            (true, DataType::Decimal128(_, scale)) => {
                let shift = 10_i128.pow((*scale - self.scale_argument).max(0) as u32);
                sum.checked_mul(shift).ok_or_else(out_of_range)? / i128::from(count)
            }
            _ => sum,
        };
        if fits(value) { Ok(Some(value)) } else { Err(out_of_range()) }
    }
}

impl Accumulator for IntegerSum {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, (Some(0), 0));
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]) {
        let sums = &mut self.sums;
        for_each_integer(argument.expect("sum has an argument"), |i, value| {
            let (sum, count) = &mut sums[slots[i] as usize];
            *sum = sum.and_then(|sum| sum.checked_add(value.checked_mul(i128::from(diffs[i]))?));
            *count += diffs[i];
        });
    }

    fn evaluate(&self, slots: &[u32], fail: &mut dyn FnMut(usize, String)) -> ArrayRef {
        let results: Vec<Option<i128>> = slots
            .iter()
            .enumerate()
            .map(|(i, &slot)| {
                self.result(self.sums[slot as usize]).unwrap_or_else(|reason| {
                    fail(i, reason);
                    None
                })
            })
            .collect();
        match &self.output {
            DataType::Int64 => Arc::new(Int64Array::from_iter(results.into_iter().map(|x| x.map(|x| x as i64)))),
            DataType::UInt64 => Arc::new(UInt64Array::from_iter(results.into_iter().map(|x| x.map(|x| x as u64)))),
            DataType::Decimal128(precision, scale) => {
                Arc::new(Decimal128Array::from_iter(results).with_precision_and_scale(*precision, *scale).expect("DataFusion's type"))
            }
            DataType::Float64 => Arc::new(Float64Array::from_iter(results.iter().zip(slots).map(|(sum, &slot)| {
                let count = if self.average { self.sums[slot as usize].1 as f64 } else { 1.0 };
                sum.map(|sum| sum as f64 / count)
            }))),
            other => unreachable!("DataFusion sums integers to {other}"),
        }
    }

    fn clear(&mut self, slot: u32) {
        self.sums[slot as usize] = (Some(0), 0);
    }
}

fn for_each_integer(column: &ArrayRef, mut visit: impl FnMut(usize, i128)) {
    macro_rules! visit_all {
        ($type:ty) => {{
            let values = column.as_primitive::<$type>();
            for i in 0..values.len() {
                if values.is_valid(i) {
                    visit(i, i128::from(values.value(i)));
                }
            }
        }};
    }
    match column.data_type() {
        DataType::Int8 => visit_all!(Int8Type),
        DataType::Int16 => visit_all!(Int16Type),
        DataType::Int32 => visit_all!(Int32Type),
        DataType::Int64 => visit_all!(Int64Type),
        DataType::UInt8 => visit_all!(UInt8Type),
        DataType::UInt16 => visit_all!(UInt16Type),
        DataType::UInt32 => visit_all!(UInt32Type),
        DataType::UInt64 => visit_all!(UInt64Type),
        DataType::Decimal128(_, _) => visit_all!(Decimal128Type),
        other => unreachable!("the planner sums only numbers, not {other}"),
    }
}

struct FloatSum {
    sums: Vec<(ExactSum, i64)>,
    average: bool,
    output: DataType,
}

impl Accumulator for FloatSum {
    fn grow(&mut self, slots: usize) {
        self.sums.resize_with(slots, Default::default);
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]) {
        let column = argument.expect("sum has an argument");
        let mut add = |i: usize, value: f64| {
            let (sum, count) = &mut self.sums[slots[i] as usize];
            sum.add(value, diffs[i]);
            *count += diffs[i];
        };
        match column.data_type() {
            DataType::Float32 => {
                let values = column.as_primitive::<Float32Type>();
                (0..values.len()).filter(|&i| values.is_valid(i)).for_each(|i| add(i, f64::from(values.value(i))));
            }
            _ => {
                let values = column.as_primitive::<Float64Type>();
                (0..values.len()).filter(|&i| values.is_valid(i)).for_each(|i| add(i, values.value(i)));
            }
        }
    }

    fn evaluate(&self, slots: &[u32], _: &mut dyn FnMut(usize, String)) -> ArrayRef {
        let results = slots.iter().map(|&slot| {
            let (sum, count) = &self.sums[slot as usize];
            let divisor = if self.average { *count as f64 } else { 1.0 };
            (*count != 0).then(|| sum.value() / divisor)
        });
        match self.output {
            DataType::Float32 => Arc::new(Float32Array::from_iter(results.map(|x| x.map(|x| x as f32)))),
            _ => Arc::new(Float64Array::from_iter(results)),
        }
    }

    fn clear(&mut self, slot: u32) {
        self.sums[slot as usize] = Default::default();
    }
}

/// A sum of floats that is exact, so that it does not depend on order and what is added can be
/// taken back without a trace. Almost all sums in practice are fixed-point numbers of 2^-60.
#[derive(Default)]
struct ExactSum {
    fixed: i128,
    rest: Option<Box<Rest>>,
}

/// What fixed point cannot hold.
struct Rest {
    finite: RefCell<XsumSmall>,
    finite_count: i64,
    nan: i64,
    infinite: [i64; 2],
}

/// 2^60: values are multiples of its inverse, below 2^40 in size, so that 2^27 of them fit.
const FIXED_POINT: f64 = (1_u64 << 60) as f64;
const FIXED_POINT_SIZE_MAX: f64 = (1_u64 << 40) as f64;

impl ExactSum {
    fn add(&mut self, value: f64, diff: i64) {
        let scaled = value * FIXED_POINT;
        if value.abs() < FIXED_POINT_SIZE_MAX
            && scaled == scaled.trunc()
            && let Some(sum) = (scaled as i128).checked_mul(i128::from(diff)).and_then(|add| self.fixed.checked_add(add))
        {
            self.fixed = sum;
            return;
        }
        let rest = self
            .rest
            .get_or_insert_with(|| Box::new(Rest { finite: RefCell::new(XsumSmall::new()), finite_count: 0, nan: 0, infinite: [0; 2] }));
        match value {
            _ if value.is_nan() => rest.nan += diff,
            _ if value.is_infinite() => rest.infinite[usize::from(0.0 < value)] += diff,
            _ => {
                rest.finite_count += diff;
                add_copies(rest.finite.get_mut(), value, diff);
            }
        }
        if rest.is_nothing() {
            self.rest = None;
        }
    }

    fn value(&self) -> f64 {
        let Some(rest) = &self.rest else { return self.fixed as f64 / FIXED_POINT };
        match rest.infinite {
            _ if rest.nan != 0 => return f64::NAN,
            [0, 0] => {}
            [_, 0] => return f64::NEG_INFINITY,
            [0, _] => return f64::INFINITY,
            _ => return f64::NAN,
        }
        // Adding and taking back is exact, and cheaper than a copy.
        let mut finite = rest.finite.borrow_mut();
        let pieces = pieces(self.fixed);
        pieces.iter().for_each(|&piece| finite.add(piece));
        let sum = finite.sum();
        pieces.iter().for_each(|&piece| finite.add(-piece));
        sum
    }
}

impl Rest {
    // Within a tick one value may be taken back before it is added: then as many have gone as came, and yet they are not
    // the same. An exact sum is 0 only where nothing is left.
    fn is_nothing(&self) -> bool {
        self.finite_count == 0 && self.nan == 0 && self.infinite == [0; 2] && self.finite.borrow_mut().sum() == 0.0
    }
}

/// A fixed-point number as a sum of floats, each exact.
fn pieces(fixed: i128) -> [f64; 3] {
    let sign = if fixed < 0 { -1.0 } else { 1.0 };
    [0, 45, 90].map(|shift| {
        let bits = (fixed.unsigned_abs() >> shift) & ((1 << 45) - 1);
        sign * bits as f64 * (1_u128 << shift) as f64 / FIXED_POINT
    })
}

// `value * diff` may round; `value * 2^k` does not, short of overflow.
fn add_copies(sum: &mut XsumSmall, value: f64, diff: i64) {
    let signed = if diff < 0 { -value } else { value };
    let mut left = diff.unsigned_abs();
    let mut power = signed;
    while left != 0 {
        if left & 1 == 1 {
            sum.add(power);
        }
        power *= 2.0;
        left >>= 1;
    }
}

/// min or max. While nothing is taken back the best value is enough; otherwise all are kept, in order.
fn extreme(largest: bool, argument: &DataType, append_only: bool, usage: &Usage) -> Box<dyn Accumulator> {
    match append_only {
        true => Box::new(Best { best: Vec::new(), largest, codec: codec(argument), usage: usage.clone() }),
        false => Box::new(Extreme { values: Vec::new(), largest, codec: codec(argument), usage: usage.clone() }),
    }
}

struct Best {
    best: Vec<Option<Bytes>>,
    largest: bool,
    codec: RowCodec,
    usage: Usage,
}

impl Accumulator for Best {
    fn grow(&mut self, slots: usize) {
        self.best.resize(slots, None);
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, _: &[i64]) {
        let column = argument.expect("min and max have an argument");
        let rows = self.codec.encode_columns(std::slice::from_ref(column), column.len()).expect("the planner's type");
        for (i, &slot) in slots.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
            let (row, best) = (rows.row(i), &mut self.best[slot as usize]);
            match best {
                Some(best) if (self.largest && row <= &best[..]) || (!self.largest && &best[..] <= row) => {}
                Some(best) => {
                    self.usage.resize(best.len(), row.len());
                    best.clear();
                    best.extend_from_slice(row);
                }
                None => {
                    self.usage.grow(row.len());
                    *best = Some(row.to_vec());
                }
            }
        }
    }

    fn evaluate(&self, slots: &[u32], _: &mut dyn FnMut(usize, String)) -> ArrayRef {
        decode(&self.codec, slots.iter().map(|&slot| self.best[slot as usize].as_ref()))
    }

    fn clear(&mut self, slot: u32) {
        if let Some(best) = self.best[slot as usize].take() {
            self.usage.shrink(best.len());
        }
    }
}

struct Extreme {
    values: Vec<BTreeMap<Bytes, i64>>,
    largest: bool,
    codec: RowCodec,
    usage: Usage,
}

impl Accumulator for Extreme {
    fn grow(&mut self, slots: usize) {
        self.values.resize_with(slots, BTreeMap::new);
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]) {
        let column = argument.expect("min and max have an argument");
        let rows = self.codec.encode_columns(std::slice::from_ref(column), column.len()).expect("the planner's type");
        for (i, &slot) in slots.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
            let values = &mut self.values[slot as usize];
            let count = match values.get_mut(rows.row(i)) {
                Some(count) => count,
                None => {
                    self.usage.grow(ENTRY_BYTES + rows.row(i).len());
                    values.entry(rows.row(i).to_vec()).or_default()
                }
            };
            *count += diffs[i];
            if *count == 0 {
                values.remove(rows.row(i));
                self.usage.shrink(ENTRY_BYTES + rows.row(i).len());
            }
        }
    }

    fn evaluate(&self, slots: &[u32], _: &mut dyn FnMut(usize, String)) -> ArrayRef {
        let best = |&slot: &u32| {
            let values = &self.values[slot as usize];
            let end = if self.largest { values.last_key_value() } else { values.first_key_value() };
            end.map(|(value, _)| value)
        };
        decode(&self.codec, slots.iter().map(best))
    }

    fn clear(&mut self, slot: u32) {
        let values = std::mem::take(&mut self.values[slot as usize]);
        self.usage.shrink(values.keys().map(|value| ENTRY_BYTES + value.len()).sum());
    }
}

fn decode<'a>(codec: &RowCodec, rows: impl Iterator<Item = Option<&'a Bytes>>) -> ArrayRef {
    let null = codec.encode_columns(&[arrow::array::new_null_array(codec.schema().field(0).data_type(), 1)], 1);
    let null = null.expect("the codec's type");
    let rows: Vec<&[u8]> = rows.map(|row| row.map_or(null.row(0), |row| &row[..])).collect();
    codec.decode_columns(rows.into_iter()).expect("what was encoded").remove(0)
}

/// bool_and and bool_or: how many are false, and how many true.
struct Truth {
    counts: Vec<[i64; 2]>,
    all: bool,
}

impl Accumulator for Truth {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots, [0; 2]);
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]) {
        let column = argument.expect("bool_and has an argument").as_boolean();
        for (i, &slot) in slots.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
            self.counts[slot as usize][usize::from(column.value(i))] += diffs[i];
        }
    }

    fn evaluate(&self, slots: &[u32], _: &mut dyn FnMut(usize, String)) -> ArrayRef {
        let result = |&slot: &u32| match self.counts[slot as usize] {
            [0, 0] => None,
            [no, _] if self.all => Some(no == 0),
            [_, yes] => Some(yes != 0),
        };
        Arc::new(BooleanArray::from_iter(slots.iter().map(result)))
    }

    fn clear(&mut self, slot: u32) {
        self.counts[slot as usize] = [0; 2];
    }
}

/// DISTINCT: passes on a value when its first copy comes and when its last one goes.
struct Distinct {
    seen: Seen,
    inner: Box<dyn Accumulator>,
    usage: Usage,
}

/// How often each value is there, per slot.
enum Seen {
    Integers(Vec<HashMap<i64, i64>>),
    Rows(RowCodec, Vec<HashMap<Bytes, i64>>),
}

impl Distinct {
    fn new(argument: &DataType, inner: Box<dyn Accumulator>, usage: Usage) -> Self {
        use DataType::*;
        let seen = match argument {
            Int8 | Int16 | Int32 | Int64 | Date32 | Timestamp(_, _) => Seen::Integers(Vec::new()),
            _ => Seen::Rows(codec(argument), Vec::new()),
        };
        Self { seen, inner, usage }
    }
}

impl Accumulator for Distinct {
    fn grow(&mut self, slots: usize) {
        match &mut self.seen {
            Seen::Integers(seen) => seen.resize_with(slots, HashMap::new),
            Seen::Rows(_, seen) => seen.resize_with(slots, HashMap::new),
        }
        self.inner.grow(slots);
    }

    fn update(&mut self, slots: &[u32], argument: Option<&ArrayRef>, diffs: &[i64]) {
        let column = argument.expect("DISTINCT has an argument");
        let valid = || (0..slots.len()).filter(|&i| column.is_valid(i));
        let mut crossed = Crossed::default();
        match &mut self.seen {
            Seen::Integers(seen) => {
                let values = cast(column, &DataType::Int64).expect("an integer at heart");
                let values = values.as_primitive::<Int64Type>();
                for i in valid() {
                    let seen = &mut seen[slots[i] as usize];
                    let before = seen.len();
                    crossed.add(i, slots[i], counted(seen.entry(values.value(i)), diffs[i]));
                    self.usage.resize(before * INTEGER_BYTES, seen.len() * INTEGER_BYTES);
                }
            }
            Seen::Rows(codec, seen) => {
                let rows = codec.encode_columns(std::slice::from_ref(column), column.len()).expect("the planner's type");
                for i in valid() {
                    let (seen, bytes) = (&mut seen[slots[i] as usize], ENTRY_BYTES + rows.row(i).len());
                    let before = seen.len();
                    crossed.add(i, slots[i], counted(seen.entry(rows.row(i).to_vec()), diffs[i]));
                    self.usage.resize(before * bytes, seen.len() * bytes);
                }
            }
        }
        let values = take(column, &UInt32Array::from(crossed.rows), None).expect("indices within the batch");
        self.inner.update(&crossed.slots, Some(&values), &crossed.signs);
    }

    fn evaluate(&self, slots: &[u32], fail: &mut dyn FnMut(usize, String)) -> ArrayRef {
        self.inner.evaluate(slots, fail)
    }

    fn clear(&mut self, slot: u32) {
        match &mut self.seen {
            Seen::Integers(seen) => {
                let seen = std::mem::take(&mut seen[slot as usize]);
                self.usage.shrink(seen.len() * INTEGER_BYTES);
            }
            Seen::Rows(_, seen) => {
                let seen = std::mem::take(&mut seen[slot as usize]);
                self.usage.shrink(seen.keys().map(|value| ENTRY_BYTES + value.len()).sum());
            }
        }
        self.inner.clear(slot);
    }
}

/// An integer and its count in a map.
const INTEGER_BYTES: usize = 24;

/// Values that came to be there, or ceased to.
#[derive(Default)]
struct Crossed {
    rows: Vec<u32>,
    slots: Vec<u32>,
    signs: Vec<i64>,
}

impl Crossed {
    fn add(&mut self, row: usize, slot: u32, sign: i64) {
        if sign != 0 {
            self.rows.push(row as u32);
            self.slots.push(slot);
            self.signs.push(sign);
        }
    }
}

/// 1 where `diff` brings the value's count above 0, -1 where it takes it there, else 0.
fn counted<K: Eq + std::hash::Hash, S: std::hash::BuildHasher>(entry: Entry<'_, K, i64, S>, diff: i64) -> i64 {
    let (before, after) = match entry {
        Entry::Vacant(vacant) if diff != 0 => {
            vacant.insert(diff);
            (0, diff)
        }
        Entry::Vacant(_) => (0, 0),
        Entry::Occupied(mut occupied) => {
            let before = *occupied.get();
            *occupied.get_mut() += diff;
            if before + diff == 0 {
                occupied.remove();
            }
            (before, before + diff)
        }
    };
    i64::from(0 < after) - i64::from(0 < before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: Function, distinct: bool) -> Call {
        Call { function, argument: Some(0), filter: None, distinct }
    }

    #[test]
    fn float_sums_forget_what_is_taken_back() {
        let values = [1e300, -1e300, 1e-300, 0.1, 3.0, f64::INFINITY, f64::NAN, f64::NEG_INFINITY, 1e16, 1.0];
        let mut sum = ExactSum::default();
        values.iter().for_each(|&value| sum.add(value, 3));
        assert!(sum.value().is_nan());
        values[..9].iter().rev().for_each(|&value| sum.add(value, -3));
        assert_eq!(sum.value(), 3.0);
        assert!(sum.rest.is_none());
    }

    #[test]
    fn float_sums_may_lose_a_value_before_they_have_it() {
        let mut sum = ExactSum::default();
        for (value, diff) in [(1e13, 1), (2e13, -1), (2e13, 1)] {
            sum.add(value, diff);
        }
        assert_eq!(sum.value(), 1e13);
        sum.add(1e13, -1);
        assert!(sum.rest.is_none());
    }

    #[test]
    fn float_sums_do_not_depend_on_order() {
        let mut values: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 0.7).sin() * 10_f64.powi(i % 40 - 20)).collect();
        let total = |values: &[f64]| {
            let mut sum = ExactSum::default();
            values.iter().for_each(|&value| sum.add(value, 1));
            sum.value()
        };
        let forwards = total(&values);
        values.reverse();
        assert_eq!(forwards.to_bits(), total(&values).to_bits());
    }

    #[test]
    fn an_integer_sum_out_of_range_fails_and_heals() {
        let mut sum = accumulator(&call(Function::Sum, false), Some(&DataType::Int64), &DataType::Int64, false, &Usage::default());
        sum.grow(1);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
        sum.update(&[0, 0], Some(&column), &[1, 1]);
        let mut failed = 0;
        sum.evaluate(&[0], &mut |_, _| failed += 1);
        assert_eq!(failed, 1);
        sum.update(&[0, 0], Some(&column), &[0, -1]);
        assert_eq!(sum.evaluate(&[0], &mut |_, _| unreachable!()).as_primitive::<Int64Type>().value(0), i64::MAX);
    }

    #[test]
    fn distinct_counts_survive_retraction() {
        let mut count = accumulator(&call(Function::Count, true), Some(&DataType::Int64), &DataType::Int64, false, &Usage::default());
        count.grow(1);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1), Some(2), None]));
        count.update(&[0; 4], Some(&column), &[1, 1, 1, 1]);
        count.update(&[0; 4], Some(&column), &[-1, 0, -1, 0]);
        assert_eq!(count.evaluate(&[0], &mut |_, _| ()).as_primitive::<Int64Type>().value(0), 1);
    }

    #[test]
    fn the_next_best_takes_over() {
        let mut max = accumulator(&call(Function::Max, false), Some(&DataType::Int64), &DataType::Int64, false, &Usage::default());
        max.grow(1);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![5, 7]));
        max.update(&[0, 0], Some(&column), &[1, 1]);
        max.update(&[0, 0], Some(&column), &[0, -1]);
        assert_eq!(max.evaluate(&[0], &mut |_, _| ()).as_primitive::<Int64Type>().value(0), 5);
        max.update(&[0, 0], Some(&column), &[-1, 0]);
        assert!(max.evaluate(&[0], &mut |_, _| ()).is_null(0));
    }
}
