//! `Rows` and `Errors`: what all operators speak.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use differential_dataflow::lattice::Lattice;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_types::expr::Failure;
use tidegate_types::row::{RowCodec, hash_row, project_schema};
use tidegate_types::{Delta, Tick};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::order::Product;
use timely::progress::Timestamp;

/// The times operators run at: ticks, and rounds within a tick.
pub trait Time: Timestamp + Lattice + Ord {
    fn tick(&self) -> Tick;
}

impl Time for u64 {
    fn tick(&self) -> Tick {
        *self
    }
}

/// Within a recursion: the tick, and the round.
pub type Round = Product<u64, u64>;

impl Time for Round {
    fn tick(&self) -> Tick {
        self.outer
    }
}

/// A delta and the time it takes effect.
#[derive(Debug, Clone)]
pub struct Timed<T> {
    pub time: T,
    pub delta: Delta,
}

/// A stream of deltas. The time is the delta's own, at or after its message's.
pub type Rows<'scope, T> = Stream<'scope, T, Vec<Timed<T>>>;

// Between threads deltas move as they are; between processes as Arrow IPC.
impl<T: Serialize> Serialize for Timed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = Vec::new();
        let mut writer = StreamWriter::try_new(&mut rows, &self.delta.rows.schema()).map_err(S::Error::custom)?;
        writer.write(&self.delta.rows).map_err(S::Error::custom)?;
        writer.finish().map_err(S::Error::custom)?;
        drop(writer);
        (&self.time, rows, &self.delta.diffs[..]).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Timed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (time, rows, diffs) = <(T, Vec<u8>, Vec<i64>)>::deserialize(deserializer)?;
        let mut reader = StreamReader::try_new(Cursor::new(rows), None).map_err(D::Error::custom)?;
        let rows = reader.next().ok_or_else(|| D::Error::custom("no batch"))?.map_err(D::Error::custom)?;
        Ok(Self { time, delta: Delta::new(rows, diffs) })
    }
}

/// The errors of one dataflow on one worker, beside its rows: how often which
/// operator failed for which reason, per tick. A retracted row retracts its error.
#[derive(Clone, Default)]
pub struct Errors(Rc<RefCell<BTreeMap<Tick, HashMap<ErrorRow, i64>>>>);

/// Which operator, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorRow {
    pub operator: &'static str,
    pub reason: String,
}

impl Errors {
    pub fn report(&self, tick: Tick, operator: &'static str, failure: Failure) {
        let row = ErrorRow { operator, reason: shortened(failure.reason) };
        *self.0.borrow_mut().entry(tick).or_default().entry(row).or_default() += failure.diff;
    }

    /// Removes and returns what was reported for ticks up to `tick`, netted.
    pub fn take_through(&self, tick: Tick) -> Vec<(ErrorRow, i64)> {
        let mut ticks = self.0.borrow_mut();
        let later = ticks.split_off(&(tick + 1));
        let mut net = HashMap::new();
        for (row, diff) in std::mem::replace(&mut *ticks, later).into_values().flatten() {
            *net.entry(row).or_default() += diff;
        }
        net.into_iter().filter(|(_, diff)| *diff != 0).collect()
    }
}

/// A reason may quote a value, and a value may be long.
const REASON_BYTES_MAX: usize = 1_000;

fn shortened(mut reason: String) -> String {
    if REASON_BYTES_MAX < reason.len() {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.push('…');
    }
    reason
}

/// Event time's progress at each tick, known to every operator of a worker.
/// The runtime writes it before it closes a tick.
#[derive(Clone, Default)]
pub struct Watermarks {
    ticks: Rc<RefCell<BTreeMap<Tick, Arc<[Option<i64>]>>>>,
    /// The tick with which the dataflow's past has come in.
    born: Rc<Cell<Tick>>,
}

impl Watermarks {
    /// For the operators of one dataflow. Its past comes in up to `born`, in any order: until then
    /// no watermark says that a row cannot come.
    pub fn of_dataflow(&self, born: Tick) -> Self {
        Self { born: Rc::new(Cell::new(born)), ..self.clone() }
    }

    /// The dataflow's past comes in up to `born`.
    pub fn set_born(&self, born: Tick) {
        self.born.set(born);
    }

    /// All sources' watermarks (by source index, ms) as of `tick`.
    pub fn set(&self, tick: Tick, watermarks: Arc<[Option<i64>]>) {
        self.ticks.borrow_mut().insert(tick, watermarks);
    }

    /// The watermark of `source` in the last tick that is before `frontier`.
    pub fn before(&self, frontier: Tick, source: usize) -> Option<i64> {
        let ticks = self.ticks.borrow();
        ticks.range(..frontier).next_back().and_then(|(_, all)| all.get(source).copied().flatten())
    }

    /// The time below which `source` brings no row to this dataflow after `tick`.
    pub fn passed(&self, tick: Tick, source: usize) -> Option<i64> {
        if tick < self.born.get() { None } else { self.before(tick + 1, source) }
    }

    /// The ticks in `[from, to)` and the watermark of `source` at each.
    pub fn between(&self, from: Tick, to: Tick, source: usize) -> Vec<(Tick, Option<i64>)> {
        let ticks = self.ticks.borrow();
        ticks.range(from..to).map(|(tick, all)| (*tick, all.get(source).copied().flatten())).collect()
    }

    /// Forgets ticks before `tick` that no reader can ask for any more.
    pub fn forget_before(&self, tick: Tick) {
        let mut ticks = self.ticks.borrow_mut();
        if let Some((&last, _)) = ticks.range(..=tick).next_back() {
            *ticks = ticks.split_off(&last);
        }
    }
}

/// Applies `logic` to every delta by itself; empty results are not sent.
pub fn each<'scope, T: Time>(
    rows: Rows<'scope, T>,
    name: &'static str,
    mut logic: impl FnMut(Timed<T>, &mut Vec<Timed<T>>) + 'static,
) -> Rows<'scope, T> {
    rows.unary(Pipeline, name, move |_, _| {
        let mut done = Vec::new();
        move |input, output| {
            input.for_each(|cap, data| {
                for timed in data.drain(..) {
                    logic(timed, &mut done);
                }
                done.retain(|timed| !timed.delta.is_empty());
                if !done.is_empty() {
                    output.session(&cap).give_iterator(done.drain(..));
                }
            });
        }
    })
}

/// Every row with its diff negated.
pub fn negate<T: Time>(rows: Rows<'_, T>) -> Rows<'_, T> {
    each(rows, "Negate", |timed, out| out.push(Timed { time: timed.time, delta: timed.delta.negate() }))
}

/// Every row to the worker that owns its key: the hash of the columns `key`.
/// With no key columns all rows meet on one worker.
pub fn exchange<'scope, T: Time>(rows: Rows<'scope, T>, schema: &SchemaRef, key: &[usize]) -> Rows<'scope, T> {
    let peers = rows.scope().peers() as u64;
    if peers == 1 {
        return rows;
    }
    let codec = RowCodec::new(project_schema(schema, key)).expect("the planner checked the key's types");
    let key = key.to_vec();
    let routed = rows.unary(Pipeline, "Route", move |_, _| {
        move |input, output| {
            input.for_each(|cap, data| {
                let mut session = output.session(&cap);
                for timed in data.drain(..) {
                    for (worker, delta) in split(&timed.delta, &codec, &key, peers) {
                        session.give((worker, Timed { time: timed.time.clone(), delta }));
                    }
                }
            });
        }
    });
    routed.unary(Exchange::new(|(worker, _): &(u64, Timed<T>)| *worker), "Exchange", |_, _| {
        |input, output| {
            input.for_each(|cap, data| {
                output.session(&cap).give_iterator(data.drain(..).map(|(_, timed)| timed));
            });
        }
    })
}

fn split(delta: &Delta, codec: &RowCodec, key: &[usize], peers: u64) -> Vec<(u64, Delta)> {
    let columns: Vec<_> = key.iter().map(|&i| Arc::clone(delta.rows.column(i))).collect();
    let keys = codec.encode_columns(&columns, delta.len()).expect("the planner checked the key's types");
    let mut parts = vec![Vec::new(); peers as usize];
    for (i, row) in keys.iter().enumerate() {
        parts[(hash_row(row) % peers) as usize].push(i as u32);
    }
    let nonempty = parts.into_iter().enumerate().filter(|(_, indices)| !indices.is_empty());
    nonempty
        .map(|(worker, indices)| {
            let part = match indices.len() == delta.len() {
                true => delta.clone(),
                false => delta.take(&UInt32Array::from(indices)).expect("indices within the batch"),
            };
            (worker as u64, part)
        })
        .collect()
}
