//! `arrange`: rows at rest. The one module that owns how keyed state is kept:
//! differential arrangements of byte rows, key beside value.
//!
//! SQL     every keyed operator that others may share, every readable view
//! In      rows
//! Out     an arrangement by key, shared and compacted
//! State   the consolidated rows, for as long as the view lives; logical
//!         compaction follows the closed ticks
//! Errors  none
//! Source  McSherry et al., Shared Arrangements, VLDB 2020

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::arrange::arrangement::arrange_core;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::implementations::{ValBatcher, ValSpine};
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use tidegate_types::row::{EncodedRows, RowCodec, project_schema};
use tidegate_types::{Delta, Tick};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;
use timely::progress::Antichain;
use timely::progress::frontier::AntichainRef;

use crate::stream::{Rows, Time, Timed, exchange};
use crate::usage::Usage;

/// A key or a value at rest.
pub type Bytes = Vec<u8>;
/// What is in a trace.
pub type Spine<T> = ValSpine<Bytes, Bytes, T, i64>;
/// A handle on a trace.
pub type Trace<T> = TraceAgent<Spine<T>>;

/// How the rows of one schema are laid down by one key.
#[derive(Debug)]
pub struct Layout {
    schema: SchemaRef,
    key: Vec<usize>,
    value: Vec<usize>,
    key_codec: RowCodec,
    value_codec: RowCodec,
}

impl Layout {
    /// Rows of `schema`, by the columns `key`; a column may be named more than once.
    /// The planner has checked that every type can rest.
    pub fn new(schema: SchemaRef, key: &[usize]) -> Self {
        let value: Vec<usize> = (0..schema.fields().len()).filter(|i| !key.contains(i)).collect();
        let codec = |columns: &[usize]| RowCodec::new(project_schema(&schema, columns)).expect("types that can rest");
        let (key_codec, value_codec) = (codec(key), codec(&value));
        Self { schema, key: key.to_vec(), value, key_codec, value_codec }
    }

    /// Whole rows as keys: how views are kept.
    pub fn whole(schema: SchemaRef) -> Self {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        Self::new(schema, &all)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of the key.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    pub(crate) fn encode_keys(&self, delta: &Delta) -> EncodedRows {
        encoded(&self.key_codec, &self.key, delta)
    }

    pub(crate) fn encode_values(&self, delta: &Delta) -> EncodedRows {
        encoded(&self.value_codec, &self.value, delta)
    }

    /// The columns of rows whose values are `values`, beside those of the key.
    pub(crate) fn decode_beside<'a>(&self, values: impl Iterator<Item = &'a [u8]>, key: impl Fn(usize) -> ArrayRef) -> Vec<ArrayRef> {
        let mut values = self.value_codec.decode_columns(values).expect("what was encoded").into_iter();
        let column = |i| if self.key.contains(&i) { key(i) } else { values.next().expect("a column per value") };
        (0..self.schema.fields().len()).map(column).collect()
    }

    /// The rows of `(key, value)` pairs.
    pub fn decode<'a>(&self, rows: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = self.decode_columns(rows);
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).expect("what was encoded")
    }

    pub(crate) fn decode_columns<'a>(&self, rows: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<ArrayRef> {
        let keys = self.key_codec.decode_columns(rows.clone().map(|(key, _)| key)).expect("what was encoded");
        let values = self.value_codec.decode_columns(rows.map(|(_, value)| value)).expect("what was encoded");
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (&i, column) in self.key.iter().zip(keys).chain(self.value.iter().zip(values)) {
            columns[i] = Some(column);
        }
        columns.into_iter().map(|column| column.expect("each column is in key or value")).collect()
    }

    fn encode<T: Clone>(&self, timed: &Timed<T>, out: &mut Vec<((Bytes, Bytes), T, i64)>) {
        let (keys, values) = (self.encode_keys(&timed.delta), self.encode_values(&timed.delta));
        for (i, &diff) in timed.delta.diffs.iter().enumerate() {
            out.push(((keys.row(i).to_vec(), values.row(i).to_vec()), timed.time.clone(), diff));
        }
    }
}

fn encoded(codec: &RowCodec, columns: &[usize], delta: &Delta) -> EncodedRows {
    let columns: Vec<ArrayRef> = columns.iter().map(|&i| Arc::clone(delta.rows.column(i))).collect();
    codec.encode_columns(&columns, delta.len()).expect("the layout's schema")
}

/// Arranges `rows` by `layout`, each key on its worker. With `drop_null_keys`, rows with a NULL
/// in the key are left out: they can equal nothing.
pub fn arrange<'scope, T: Time>(
    rows: Rows<'scope, T>,
    layout: Arc<Layout>,
    drop_null_keys: bool,
    name: &str,
    usage: Usage,
) -> Arranged<'scope, Trace<T>> {
    let rows = exchange(rows, &layout.schema, &layout.key);
    let pairs = rows.unary(Pipeline, "Encode", move |_, _| {
        let mut encoded = Vec::new();
        move |input, output| {
            input.for_each(|cap, data| {
                for timed in data.drain(..) {
                    match drop_null_keys.then(|| all_valid(&timed.delta, &layout.key)).flatten() {
                        Some(keep) => {
                            let delta = timed.delta.filter(&keep).expect("one flag per row");
                            layout.encode(&Timed { time: timed.time, delta }, &mut encoded);
                        }
                        None => layout.encode(&timed, &mut encoded),
                    }
                }
                usage.encoded(encoded.len(), encoded.iter().map(|((key, value), _, _)| key.len() + value.len()).sum());
                output.session(&cap).give_container(&mut encoded);
                encoded.clear();
            });
        }
    });
    arrange_core::<_, _, ValBatcher<Bytes, Bytes, T, i64>, Spine<T>>(pairs, Pipeline, name, ValBatcher::new)
}

// None where no key is NULL.
fn all_valid(delta: &Delta, key: &[usize]) -> Option<BooleanArray> {
    let nullable: Vec<&ArrayRef> = key.iter().map(|&i| delta.rows.column(i)).filter(|column| column.null_count() > 0).collect();
    if nullable.is_empty() {
        return None;
    }
    Some((0..delta.len()).map(|row| Some(nullable.iter().all(|column| column.is_valid(row)))).collect())
}

/// The rows of an arrangement.
pub fn rows_of<'scope, T: Time>(arranged: Arranged<'scope, Trace<T>>, layout: Arc<Layout>) -> Rows<'scope, T> {
    decoded_from(arranged, layout, Antichain::from_elem(T::minimum()))
}

/// The rows of another dataflow's arrangement, from its history on.
///
/// Compaction moves the times of merged batches only, so a retraction in a batch of its own can
/// stand before the insertion it takes back. All of the past counts as one time here.
pub fn imported<'scope>(trace: &mut Trace<Tick>, scope: Scope<'scope, Tick>, layout: Arc<Layout>, name: &str) -> Rows<'scope, Tick> {
    let since = trace.get_logical_compaction().to_owned();
    decoded_from(trace.import_named(scope, name), layout, since)
}

fn decoded_from<'scope, T: Time>(arranged: Arranged<'scope, Trace<T>>, layout: Arc<Layout>, since: Antichain<T>) -> Rows<'scope, T> {
    arranged.stream.unary(Pipeline, "Decode", move |_, _| {
        move |input, output| {
            input.for_each(|cap, spans| {
                let mut session = output.session(&cap);
                for span in spans.drain(..) {
                    let Some(batch) = span.inner.as_ref() else { continue };
                    for timed in decode_batch(batch, &layout, since.borrow()) {
                        session.give(timed);
                    }
                }
            });
        }
    })
}

/// Rows per decoded batch: enough to amortise a kernel call, small enough to stay in cache.
const DECODE_ROWS_MAX: usize = 8192;

fn decode_batch<B, T: Time>(batch: &B, layout: &Layout, since: AntichainRef<T>) -> Vec<Timed<T>>
where
    B: Navigable,
    B::Cursor: for<'a> Cursor<Storage = B, Key<'a> = &'a Bytes, Val<'a> = &'a Bytes, Time = T, TimeGat<'a> = &'a T, DiffGat<'a> = &'a i64>,
{
    let mut by_time: BTreeMap<T, (Vec<(&[u8], &[u8])>, Vec<i64>)> = BTreeMap::new();
    let mut done = Vec::new();
    let mut cursor = batch.cursor();
    while let Some(key) = cursor.get_key(batch) {
        while let Some(value) = cursor.get_val(batch) {
            cursor.map_times(batch, |time, &diff| {
                let mut time = time.clone();
                time.advance_by(since);
                let (rows, diffs) = by_time.entry(time.clone()).or_default();
                rows.push((key, value));
                diffs.push(diff);
                if rows.len() == DECODE_ROWS_MAX {
                    done.push(decoded(layout, time, rows, diffs));
                }
            });
            cursor.step_val(batch);
        }
        cursor.step_key(batch);
    }
    for (time, (mut rows, mut diffs)) in by_time {
        if !rows.is_empty() {
            done.push(decoded(layout, time, &mut rows, &mut diffs));
        }
    }
    done
}

fn decoded<T>(layout: &Layout, time: T, rows: &mut Vec<(&[u8], &[u8])>, diffs: &mut Vec<i64>) -> Timed<T> {
    let batch = layout.decode(rows.iter().copied());
    rows.clear();
    Timed { time, delta: Delta::new(batch, std::mem::take(diffs)) }
}

/// The arrangement's rows as of `tick`, which must be closed and not compacted away: those whose
/// key begins with `prefix`, the encoded values of some first columns.
/// Negative counts are our own mistake and are reported as such by the caller: the diffs say so.
pub fn read_at(trace: &mut Trace<u64>, layout: &Layout, tick: Tick, prefix: &Bytes) -> Delta {
    let batches = trace.batches_through(Antichain::new().borrow()).expect("the empty frontier cuts nothing");
    let (mut cursor, storage) = cursor_list(batches);
    let mut rows: Vec<(&[u8], &[u8])> = Vec::new();
    let mut diffs = Vec::new();
    cursor.seek_key(&storage, prefix);
    while let Some(key) = cursor.get_key(&storage).filter(|key| key.starts_with(prefix)) {
        while let Some(value) = cursor.get_val(&storage) {
            let mut count = 0;
            cursor.map_times(&storage, |&time, &diff| {
                if time <= tick {
                    count += diff;
                }
            });
            if count != 0 {
                rows.push((key, value));
                diffs.push(count);
            }
            cursor.step_val(&storage);
        }
        cursor.step_key(&storage);
    }
    Delta::new(layout.decode(rows.iter().copied()), diffs)
}
