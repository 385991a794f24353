//! What an engine is told when it starts, and what it answers: plain data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use tidegate_plan::size::Size;
use tidegate_types::{Clock, Disk, LocalDisk, MachineRandom, Random, Tick, WallClock};

use crate::seeded::Seeded;
pub use crate::worker::Witness;

/// How an engine runs.
#[derive(Clone)]
pub struct Config {
    /// Timely threads.
    pub workers: usize,
    /// The least time a tick stays open for more input, on the machine's clock.
    pub tick: Duration,
    /// Bounded: followed sources end at their present end, and nothing is created once they run.
    pub once: bool,
    /// Nothing outside is touched: sources are not read, sinks and actions get nothing.
    pub dry: bool,
    pub durability: Durability,
    /// How long what sources brought is kept for views that are created later, where none needs it.
    pub retain: Duration,
    /// Rows of the past that a view which is created later gets in one tick; but for some, see `beside.rs`.
    pub piece_rows: usize,
    /// How much the state of one view may take, on all workers together; about.
    pub state_bytes_max: usize,
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    pub random: Arc<dyn Random>,
    /// Relative paths in statements are relative to this.
    pub folder: PathBuf,
    /// `${NAME}` in option values; the environment comes first.
    pub variables: BTreeMap<String, String>,
    /// For simulations.
    pub witness: Option<Witness>,
    /// A bug put in on purpose.
    pub seeded: Seeded,
}

/// A week, as is customary.
pub const RETAIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Some tens of milliseconds for a worker.
const PIECE_ROWS: usize = 65_536;

/// What a machine of 8 GiB has room for beside all else.
pub const STATE_BYTES_MAX: usize = 4 << 30;

/// Where the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// There is none: a view can be created only while its sources are unread.
    Off,
    /// In a temporary folder that goes with the process, and so is never synced.
    Temporary,
    Folder {
        path: PathBuf,
        /// Begin where a damaged log is still whole, and give up the rest.
        accept_loss: bool,
    },
    /// In a temporary folder, which begins as a folder was at a tick, or (None) is now. Nothing outside is touched:
    /// sources are not read, sinks that were there get nothing, and no action asks for anything. The clock stands
    /// still at the tick. An engine may go on in the folder meanwhile.
    Past { path: PathBuf, at: Option<Tick> },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 1,
            tick: Duration::from_millis(50),
            once: false,
            dry: false,
            durability: Durability::Temporary,
            retain: RETAIN,
            piece_rows: PIECE_ROWS,
            state_bytes_max: STATE_BYTES_MAX,
            clock: Arc::new(WallClock),
            disk: Arc::new(LocalDisk),
            random: Arc::new(MachineRandom),
            folder: PathBuf::from("."),
            variables: BTreeMap::new(),
            witness: None,
            seeded: Seeded::default(),
        }
    }
}

/// A statement's answer. `notices`: what is worth knowing of it, for people.
#[derive(Debug, Clone)]
pub enum Response {
    /// As Postgres tags it: `CREATE VIEW`, `INSERT 0 3`.
    Done { tag: String, notices: Vec<String> },
    /// `tick`: the closed tick the rows are as of; None where they are not of a tick.
    Rows { tick: Option<Tick>, batches: Vec<RecordBatch>, schema: SchemaRef, notices: Vec<String> },
}

impl Response {
    pub fn done(tag: impl Into<String>) -> Self {
        Self::Done { tag: tag.into(), notices: Vec::new() }
    }

    pub fn rows(tick: Option<Tick>, schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self::Rows { tick, batches, schema, notices: Vec::new() }
    }

    pub fn with_notices(mut self, news: Vec<String>) -> Self {
        let (Self::Done { notices, .. } | Self::Rows { notices, .. }) = &mut self;
        notices.extend(news);
        self
    }
}

/// Several relations at one closed tick.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub tick: Tick,
    pub relations: BTreeMap<String, RecordBatch>,
}

#[derive(Debug, Clone)]
pub struct RelationInfo {
    pub name: String,
    /// source, late rows, table, view, materialized view, detection, system relation
    pub kind: &'static str,
    pub schema: SchemaRef,
    pub readable: bool,
    /// A plain view's query; its rows are computed when they are read.
    pub query: Option<Arc<LogicalPlan>>,
    /// How large a plain view is, written out.
    pub size: Option<Size>,
    /// The statement that made it; absent for what is there by itself.
    pub definition: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub struct DetectionInfo {
    pub name: String,
    /// The column that names whom a finding is about; empty where none is declared.
    pub entity: String,
    pub severity: String,
}

#[derive(Debug, Clone)]
pub struct Health {
    pub ready: bool,
    /// Why it is not, or what wants to be seen to although it is.
    pub reason: String,
    /// The last closed tick.
    pub tick: Tick,
    /// How long it took from open to visible; or longer, where what is not visible yet is open for longer.
    pub lag_ms: u64,
    /// Since when something is open that is not visible.
    pub behind_since: Option<Instant>,
    /// Since when a tick is being computed.
    pub closing_since: Option<Instant>,
    /// Why it is not ready all the same.
    pub hindrance: Option<Hindrance>,
}

/// What does not go on as it should, though nothing is lost by it and it mends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// Before, it may be passing.
    pub from: Instant,
    pub reason: String,
}

/// What there is, as of the last statement.
#[derive(Default)]
pub struct Directory {
    pub relations: Vec<RelationInfo>,
    pub detections: Vec<DetectionInfo>,
}
