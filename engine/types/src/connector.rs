//! What a source, a sink and a responder promise. Implemented in `connectors`,
//! driven by the runtime; neither knows the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::delta::Delta;
use crate::disk::Disk;
use crate::error::Result;
use crate::time::{Clock, Tick};

/// The `WITH (key = 'value', …)` of a statement.
pub type Options = BTreeMap<String, String>;

/// Everything a connector needs to read a source.
#[derive(Clone)]
pub struct SourceSpec {
    pub name: String,
    /// The declared columns, in order. All are nullable.
    pub schema: SchemaRef,
    /// `columns_wanted[i]`: some view reads column i. The others are judged, and may be all NULL.
    pub columns_wanted: Vec<bool>,
    pub options: Options,
    /// Relative paths are relative to this folder: the pack's.
    pub folder: PathBuf,
    /// `--once`: a followed source ends at its present end.
    pub once: bool,
    pub clock: Arc<dyn Clock>,
    /// Where an earlier run left off; None where there was none.
    pub resume: Option<Resume>,
}

/// What is durable of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resume {
    /// The last committed batch's.
    pub offset: Offset,
    /// The ids under which the last batches came, oldest first: at most [`Resume::IDS_MAX`].
    pub ids: Vec<String>,
}

impl Resume {
    pub const IDS_MAX: usize = 10_000;
}

/// Everything a connector needs to write a sink or take an action.
#[derive(Clone)]
pub struct SinkSpec {
    pub name: String,
    pub schema: SchemaRef,
    pub options: Options,
    pub folder: PathBuf,
    pub disk: Arc<dyn Disk>,
}

/// How much one poll may bring.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// As [`SourceBatch::bytes`] counts them; one line or one delivery comes whole all the same.
    pub bytes_max: usize,
}

/// A position in a source; opaque to all but its connector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offset(pub String);

/// Input that could not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The bytes as they came, capped at [`DeadLetter::RAW_BYTES_MAX`].
    pub raw: Vec<u8>,
    pub reason: String,
    /// Where it stood, for people: `access.log:17`.
    pub position: String,
}

impl DeadLetter {
    pub const RAW_BYTES_MAX: usize = 4096;

    pub fn new(raw: &[u8], reason: impl Into<String>, position: impl Into<String>) -> Self {
        let kept = raw.len().min(Self::RAW_BYTES_MAX);
        Self { raw: raw[..kept].to_vec(), reason: reason.into(), position: position.into() }
    }
}

/// What one poll brought.
pub struct SourceBatch {
    /// In the source's schema.
    pub rows: RecordBatch,
    pub dead: Vec<DeadLetter>,
    /// What it counts for where input is bounded: the encoded bytes it stands for, or what its rows and
    /// dead letters take in memory, where that is more.
    pub bytes: usize,
    /// Where the source resumes once this batch is durable.
    pub offset: Offset,
    /// Rows that came again under an id that is known; they are not in `rows`.
    pub repeated: u64,
    /// Rows that were refused with an answer, and are nowhere else.
    pub rejected: u64,
    /// The ids under which clients sent these rows; the source drops what comes again under one.
    pub ids: Vec<String>,
}

impl SourceBatch {
    /// Rows that came from nowhere a source could go back to.
    pub fn of(rows: RecordBatch) -> Self {
        let bytes = rows.get_array_memory_size();
        Self { rows, dead: Vec::new(), bytes, offset: Offset::default(), repeated: 0, rejected: 0, ids: Vec::new() }
    }
}

pub enum Polled {
    Batch(SourceBatch),
    /// Nothing more will ever come: a bounded source is spent.
    End,
}

/// A stream of rows. `poll` waits until there is something.
#[async_trait]
pub trait Source: Send {
    /// Cancel safe: a dropped poll loses nothing.
    /// Errors are final; a source that can retry does so inside, and counts.
    async fn poll(&mut self, budget: Budget) -> Result<Polled>;

    /// Called only when everything up to `offset` is committed.
    async fn acknowledge(&mut self, offset: Offset);
}

/// One closed tick's net changes to a view.
#[derive(Clone)]
pub struct Changes {
    pub tick: Tick,
    /// Consolidated, retractions before insertions, otherwise in row order.
    pub delta: Delta,
}

/// Who writes to a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Of the engine's log, drawn when it was begun: ticks of different logs do not compare.
    pub log: String,
    /// Grows with each start of the engine on the log.
    pub epoch: u64,
}

/// How far the other side of a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It keeps no account: what may not have arrived is written again.
    Unknown,
    /// All changes up to this tick are there, each once; 0 where there is nothing yet.
    Upto(Tick),
}

/// The outside world's copy of a view.
#[async_trait]
pub trait Sink: Send {
    /// The first call. A sink that keeps account lets no earlier epoch of the same log write from
    /// now on; what another log wrote is not this one's, and stays.
    async fn resume(&mut self, writer: &Writer) -> Result<Progress>;

    /// Several ticks' changes, in order, each tick after all that were written before. Returns when
    /// they are with the other side, for good; one that keeps account moves it in the same step.
    /// Errors are final; a sink that can retry does so inside.
    async fn write(&mut self, changes: &[Changes]) -> Result<()>;

    /// The last call: no more changes will come.
    async fn finish(&mut self) -> Result<()>;
}

/// What an action does at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// A finding appeared.
    Do,
    /// A finding changed: its old row left and its new row came in one tick.
    Update,
    /// A finding was withdrawn.
    Undo,
}

impl ActionKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Update => "update",
            Self::Undo => "undo",
        }
    }
}

/// What a person says of an action's request that waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Send what awaits approval.
    Approve,
    /// Never send it.
    Reject,
    /// What is in doubt was done.
    Done,
    /// It was not.
    NotDone,
}

/// One request to the outside world.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionRequest {
    /// The finding's: the same for its do, its updates and its undo, and after a restart.
    pub id: String,
    /// The request's: the same for each attempt, also after a restart; no other request has it.
    pub key: String,
    pub action: String,
    pub kind: ActionKind,
    pub tick: Tick,
    /// The finding's row as a JSON object.
    pub finding: serde_json::Value,
    /// For an update, the row it replaces.
    pub previous: Option<serde_json::Value>,
}

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionFailure {
    pub message: String,
    /// Trying again may help: a timeout, a 429 or a 5xx, a refused connection.
    pub retryable: bool,
    /// The other side's `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The other side may have acted all the same: a timeout, a 5xx, a connection lost midway.
    pub may_be_done: bool,
}

/// Carries out actions. One attempt each; the runtime retries.
#[async_trait]
pub trait Responder: Send + Sync {
    async fn send(&self, request: &ActionRequest) -> Result<(), ActionFailure>;

    /// Whether `kind` is configured (`undo_url` is optional).
    fn supports(&self, kind: ActionKind) -> bool;
}

/// The connectors there are. Constructors parse and validate; they do no I/O,
/// so `check` can call them.
pub trait Connectors: Send + Sync {
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>>;
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>>;
    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>>;
}
