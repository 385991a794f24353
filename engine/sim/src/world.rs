//! The world around the engine, which goes on when the machine does not: rows that wait to be read,
//! clients that wait for an answer, partners that hold what they were told. It keeps account of what
//! was promised to it, and notes each promise that is broken.

mod clerk;
mod door;
mod event;
mod feed;
mod ledger;
mod scroll;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_types::Tick;
use tidegate_types::connector::{ActionFailure, Connectors, Responder, Sink, SinkSpec, Source, SourceSpec};
use tidegate_types::error::{Error, Result};
use tokio::sync::watch;

pub use self::clerk::{Clerk, finding_as_text};
use self::door::Door;
pub use self::event::Event;
use self::feed::Feed;
pub use self::ledger::Ledger;
pub use self::scroll::Scroll;
use crate::disk::{Crash, SimDisk};

/// A handle on the world.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    /// Something new waits to be read.
    news: Arc<watch::Sender<u64>>,
}

struct State {
    feed: Feed,
    door: Door,
    ledgers: BTreeMap<String, Ledger>,
    scrolls: BTreeMap<String, Scroll>,
    clerks: BTreeMap<String, Clerk>,
    broken: Vec<String>,
    is_calm: bool,
    random: StdRng,
}

/// What the world has been told that it need not worry about any more.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    /// Of the feed: so many rows, garbage included.
    pub fed: usize,
    /// Ids of the door's rows.
    pub posted: Vec<i64>,
}

impl World {
    pub fn seeded(seed: u64) -> Self {
        let state = State {
            feed: Feed::default(),
            door: Door::default(),
            ledgers: BTreeMap::new(),
            scrolls: BTreeMap::new(),
            clerks: BTreeMap::new(),
            broken: Vec::new(),
            is_calm: false,
            random: StdRng::seed_from_u64(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), news: Arc::new(watch::Sender::new(0)) }
    }

    /// The connectors of an engine on the machine that `disk` is in.
    pub fn connectors(&self, disk: &SimDisk) -> Arc<dyn Connectors> {
        Arc::new(Line { world: self.clone(), disk: disk.clone() })
    }

    /// Rows to be read by the feed; None is what no row can be made of.
    pub fn feed(&self, rows: impl IntoIterator<Item = Option<Event>>) {
        self.state.lock().feed.rows.extend(rows);
        self.news.send_modify(|news| *news += 1);
    }

    /// A client's request with rows, sent until it is answered.
    pub fn post(&self, rows: Vec<Event>) {
        self.state.lock().door.post(rows);
        self.news.send_modify(|news| *news += 1);
    }

    /// From now on nobody in it fails, and no machine.
    pub fn calm(&self) {
        self.state.lock().is_calm = true;
    }

    pub fn acknowledged(&self) -> Acknowledged {
        let state = self.state.lock();
        Acknowledged { fed: state.feed.acknowledged, posted: state.door.acknowledged() }
    }

    pub fn fed(&self) -> Vec<Option<Event>> {
        self.state.lock().feed.rows.clone()
    }

    pub fn requests(&self) -> Vec<Vec<Event>> {
        self.state.lock().door.requests()
    }

    /// Requests whose client still waits.
    pub fn unanswered(&self) -> usize {
        self.state.lock().door.unanswered()
    }

    pub fn ledger(&self, name: &str) -> Ledger {
        self.state.lock().ledgers.get(name).cloned().unwrap_or_default()
    }

    pub fn scroll(&self, name: &str) -> Scroll {
        self.state.lock().scrolls.get(name).cloned().unwrap_or_default()
    }

    pub fn clerk(&self, name: &str) -> Clerk {
        self.state.lock().clerks.get(name).cloned().unwrap_or_default()
    }

    /// A person knows what became of a finding's request.
    pub fn resolve(&self, clerk: &str, id: &str) {
        if let Some(clerk) = self.state.lock().clerks.get_mut(clerk) {
            clerk.unclear.remove(id);
        }
    }

    /// Promises that were broken.
    pub fn broken(&self) -> Vec<String> {
        self.state.lock().broken.clone()
    }
}

impl State {
    /// One in `count`, unless the world is calm.
    fn chance(&mut self, count: u32) -> bool {
        !self.is_calm && self.random.random_range(0..count) == 0
    }

    fn crash(&mut self) -> Crash {
        if self.random.random() { Crash::PowerCut } else { Crash::Kill }
    }

    fn breaks(&mut self, promise: impl Into<String>) {
        self.broken.push(promise.into());
    }
}

/// How long who dawdles takes: a few steps of a scenario.
const DAWDLE_MS: std::ops::Range<u64> = 1..80;

/// How an engine reaches the world, as long as its machine is on.
#[derive(Clone)]
struct Line {
    world: World,
    disk: SimDisk,
}

impl Line {
    /// Does `act` in the world, or nothing ever again.
    async fn act<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = {
            let mut state = self.world.state.lock();
            self.disk.is_on().then(|| act(&mut state))
        };
        match done.filter(|_| self.disk.is_on()) {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Some take their time; meanwhile the machine goes on, or ends.
    async fn dawdle(&self) {
        let pause = {
            let mut state = self.world.state.lock();
            state.chance(3).then(|| state.random.random_range(DAWDLE_MS))
        };
        if let Some(ms) = pause {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }
}

impl Connectors for Line {
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        match connector(&spec.options) {
            "feed" => Ok(feed::source(self.clone(), spec)),
            "door" => Ok(door::source(self.clone(), spec)),
            other => Err(Error::user(format!("no source \"{other}\""))),
        }
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        match connector(&spec.options) {
            "ledger" => Ok(ledger::sink(self.clone(), &spec.name)),
            "scroll" => Ok(scroll::sink(self.clone(), &spec.name)),
            other => Err(Error::user(format!("no sink \"{other}\""))),
        }
    }

    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>> {
        match connector(&spec.options) {
            "clerk" => Ok(clerk::responder(self.clone(), false)),
            "striker" => Ok(clerk::responder(self.clone(), true)),
            other => Err(Error::user(format!("no responder \"{other}\""))),
        }
    }
}

fn connector(options: &tidegate_types::connector::Options) -> &str {
    options.get("connector").map_or("", String::as_str)
}

/// A batch's rows as text, cells parted by bars.
pub fn rows_as_text(rows: &RecordBatch) -> Vec<String> {
    let cell = |column: &arrow::array::ArrayRef, row: usize| array_value_to_string(column, row).unwrap_or_else(|error| error.to_string());
    let row = |row: usize| rows.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|");
    (0..rows.num_rows()).map(row).collect()
}

/// A tick's changes as text: what becomes of the count of each row.
fn changes_as_text(changes: &tidegate_types::connector::Changes) -> Vec<(String, i64)> {
    rows_as_text(&changes.delta.rows).into_iter().zip(changes.delta.diffs.iter().copied()).collect()
}

/// Adds changes to counted rows; a count of nothing is no row. Returns a row of which there are fewer than none.
fn add(rows: &mut BTreeMap<String, i64>, changes: &[(String, i64)]) -> Option<String> {
    for (row, diff) in changes {
        *rows.entry(row.clone()).or_default() += diff;
    }
    rows.retain(|_, count| *count != 0);
    rows.iter().find(|(_, count)| **count < 0).map(|(row, _)| row.clone())
}

fn failure(message: &str, may_be_done: bool) -> ActionFailure {
    ActionFailure { message: message.into(), retryable: true, retry_after_ms: None, may_be_done }
}

/// A tick that does not come after `last`.
fn is_again(tick: Tick, last: Tick) -> bool {
    tick <= last
}
