//! What the log says: every choice that the engine's results do not follow from.
//!
//! A record is a head of JSON and up to three Arrow batches, each an IPC stream. Batches are read
//! back only from frames whose hash was right; one that is none all the same is an error, and takes no more than there is
//! of it.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use tidegate_types::connector::{DeadLetter, Offset};
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};

use super::quarantine::Guilty;
use super::snapshot::Head;
use crate::actions::{ActionRecord, ActionSnapshot};

/// One entry of the log.
#[derive(Debug, Clone)]
pub enum Record {
    /// An engine started on the log. `lost_after`: what came after that tick was given up.
    Begin { log: String, epoch: u64, version: String, lost_after: Option<Tick> },
    /// A statement that changed what there is, as it was written; variables are not expanded in it.
    Statement { file: String, text: String, is_pack: bool },
    /// A pack's INSERT, UPDATE or DELETE ran; its rows are a `Write`.
    Ran(Ran),
    /// A source's batch after the verdict.
    Arrived(Box<Arrived>),
    /// Rows taken from a table and rows put into it.
    Write { table: String, delete: RecordBatch, insert: RecordBatch },
    /// What was asked of the outside world, and what became of it.
    Action(ActionRecord),
    /// In a snapshot: all but rows.
    Snapshot(Box<Head>),
    /// In a snapshot: rows of a relation.
    Rows { relation: String, rows: RecordBatch },
    /// In a snapshot: what a view read of a source.
    Counted(Counted),
    /// In a snapshot: where an action stands.
    ActionState(Box<ActionSnapshot>),
    /// What is passed over from now on, since a worker failed on it.
    Guilty(Guilty),
    /// The tick is durable with all before it. `delivered`: followers that got further, and how far.
    Commit { delivered: BTreeMap<String, Tick> },
}

/// A pack's statement that writes rows, and is run only once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ran {
    pub text: String,
    /// Equal ones before it in the pack.
    pub nth: u32,
}

/// All that a view ever read of a source: each row once, and how often it came.
#[derive(Debug, Clone)]
pub struct Counted {
    pub intake: Intake,
    pub rows: Delta,
}

/// Where rows of a source come into a view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Intake {
    pub reader: String,
    pub source: String,
    pub nth: usize,
}

/// What one batch of a source brought.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub source: String,
    /// Of the source's creation.
    pub generation: u64,
    pub on_time: RecordBatch,
    pub late: Option<RecordBatch>,
    pub dead: Vec<DeadLetter>,
    pub repeated: u64,
    pub rejected: u64,
    pub offset: Offset,
    pub ids: Vec<String>,
    /// The largest event time, as far as it is believed.
    pub seen: Option<i64>,
    /// The largest event time of the rows on time, believed or not; the last there is where some
    /// row has none. None: there is no such row.
    pub latest: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Snapshot(Box<Head>),
    Rows {
        relation: String,
    },
    Counted(Intake),
    ActionState(Box<ActionSnapshot>),
    Begin {
        log: String,
        epoch: u64,
        version: String,
        lost_after: Option<Tick>,
    },
    Statement {
        file: String,
        text: String,
        is_pack: bool,
    },
    Ran(Ran),
    Arrived {
        source: String,
        generation: u64,
        repeated: u64,
        rejected: u64,
        offset: String,
        ids: Vec<String>,
        seen: Option<i64>,
        latest: Option<i64>,
        is_late: bool,
        is_dead: bool,
    },
    Write {
        table: String,
    },
    Action(ActionRecord),
    Guilty(Guilty),
    Commit {
        delivered: BTreeMap<String, Tick>,
    },
}

/// Tags of frames that are about no relation.
pub const COMMIT: u32 = 0;
pub const BEGIN: u32 = 1;
const OTHER: u32 = 2;
pub const GUILTY: u32 = 3;
/// In a snapshot: the record goes on in the next frame.
pub const MORE: u32 = 4;

/// The tag of frames that are about a relation.
pub fn tag_of(relation: &str) -> u32 {
    crc32fast::hash(relation.as_bytes()).max(5)
}

impl Record {
    pub fn tag(&self) -> u32 {
        match self {
            Self::Commit { .. } => COMMIT,
            Self::Arrived(arrived) => tag_of(&arrived.source),
            Self::Write { table, .. } => tag_of(table),
            Self::Begin { .. } => BEGIN,
            Self::Guilty(_) => GUILTY,
            _ => OTHER,
        }
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        let (head, batches) = match self {
            Self::Begin { log, epoch, version, lost_after } => {
                (Said::Begin { log: log.clone(), epoch: *epoch, version: version.clone(), lost_after: *lost_after }, Vec::new())
            }
            Self::Statement { file, text, is_pack } => {
                (Said::Statement { file: file.clone(), text: text.clone(), is_pack: *is_pack }, Vec::new())
            }
            Self::Ran(ran) => (Said::Ran(ran.clone()), Vec::new()),
            Self::Arrived(arrived) => arrived.parts(),
            Self::Write { table, delete, insert } => (Said::Write { table: table.clone() }, vec![delete.clone(), insert.clone()]),
            Self::Snapshot(head) => (Said::Snapshot(head.clone()), Vec::new()),
            Self::Rows { relation, rows } => (Said::Rows { relation: relation.clone() }, vec![rows.clone()]),
            Self::Counted(Counted { intake, rows: Delta { rows, diffs } }) => {
                let counts: ArrayRef = Arc::new(Int64Array::from(diffs.to_vec()));
                (Said::Counted(intake.clone()), vec![rows.clone(), RecordBatch::try_from_iter([("count", counts)]).expect("one column")])
            }
            Self::ActionState(state) => (Said::ActionState(state.clone()), Vec::new()),
            Self::Action(record) => (Said::Action(record.clone()), Vec::new()),
            Self::Guilty(guilty) => (Said::Guilty(guilty.clone()), Vec::new()),
            Self::Commit { delivered } => (Said::Commit { delivered: delivered.clone() }, Vec::new()),
        };
        let head = serde_json::to_vec(&head).map_err(|error| unwritable(&error))?;
        let mut body = Vec::with_capacity(head.len() + 4 + batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>());
        put(&mut body, &head)?;
        for batch in &batches {
            let at = body.len();
            body.extend_from_slice(&[0; 4]);
            let mut writer = StreamWriter::try_new(&mut body, &batch.schema()).map_err(|error| unwritable(&error))?;
            writer.write(batch).and_then(|()| writer.finish()).map_err(|error| unwritable(&error))?;
            drop(writer);
            let length = length(body.len() - at - 4)?;
            body[at..at + 4].copy_from_slice(&length);
        }
        Ok(body)
    }

    /// The batch of a source in `body`, without its rows.
    pub fn arrived_head(body: &[u8]) -> Result<Option<Arrived>> {
        let said: Said = serde_json::from_slice(take(&mut &*body)?).map_err(|error| unreadable(&error))?;
        let Said::Arrived { source, generation, repeated, rejected, offset, ids, seen, latest, .. } = said else { return Ok(None) };
        let on_time = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let offset = Offset(offset);
        Ok(Some(Arrived { source, generation, on_time, late: None, dead: Vec::new(), repeated, rejected, offset, ids, seen, latest }))
    }

    /// Errors: a body of another engine's making, since damage was noticed before.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut rest = body;
        let head: Said = serde_json::from_slice(take(&mut rest)?).map_err(|error| unreadable(&error))?;
        let mut batch = || read_batch(take(&mut rest)?);
        Ok(match head {
            Said::Begin { log, epoch, version, lost_after } => Self::Begin { log, epoch, version, lost_after },
            Said::Statement { file, text, is_pack } => Self::Statement { file, text, is_pack },
            Said::Ran(ran) => Self::Ran(ran),
            Said::Arrived { source, generation, repeated, rejected, offset, ids, seen, latest, is_late, is_dead } => {
                let on_time = batch()?;
                let late = is_late.then(&mut batch).transpose()?;
                let dead = is_dead.then(&mut batch).transpose()?.map_or_else(|| Ok(Vec::new()), |rows| letters(&rows))?;
                let offset = Offset(offset);
                Self::Arrived(Box::new(Arrived { source, generation, on_time, late, dead, repeated, rejected, offset, ids, seen, latest }))
            }
            Said::Write { table } => Self::Write { table, delete: batch()?, insert: batch()? },
            Said::Snapshot(head) => Self::Snapshot(head),
            Said::Rows { relation } => Self::Rows { relation, rows: batch()? },
            Said::Counted(intake) => {
                let (rows, counts) = (batch()?, batch()?);
                let counts = counts.columns().first().and_then(|counts| counts.as_primitive_opt::<Int64Type>());
                let counts = counts.filter(|counts| counts.len() == rows.num_rows()).ok_or_else(|| unreadable(&"rows without counts"))?;
                Self::Counted(Counted { intake, rows: Delta::new(rows, counts.values().to_vec()) })
            }
            Said::ActionState(state) => Self::ActionState(state),
            Said::Action(record) => Self::Action(record),
            Said::Guilty(guilty) => Self::Guilty(guilty),
            Said::Commit { delivered } => Self::Commit { delivered },
        })
    }
}

impl Arrived {
    /// Rows on time, and late ones.
    pub fn rows(&self) -> usize {
        self.on_time.num_rows() + self.late.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// Some of its rows, those on time before the late ones; nothing else of it.
    pub fn piece(&self, from: usize, to: usize) -> Self {
        let on_time = self.on_time.num_rows();
        let part = |rows: &RecordBatch, before: usize| {
            let (from, to) = (from.saturating_sub(before).min(rows.num_rows()), to.saturating_sub(before).min(rows.num_rows()));
            rows.slice(from, to - from)
        };
        let late = self.late.as_ref().map(|late| part(late, on_time));
        Self { on_time: part(&self.on_time, 0), late, dead: Vec::new(), repeated: 0, rejected: 0, ids: Vec::new(), ..self.clone() }
    }

    fn parts(&self) -> (Said, Vec<RecordBatch>) {
        let head = Said::Arrived {
            source: self.source.clone(),
            generation: self.generation,
            repeated: self.repeated,
            rejected: self.rejected,
            offset: self.offset.0.clone(),
            ids: self.ids.clone(),
            seen: self.seen,
            latest: self.latest,
            is_late: self.late.is_some(),
            is_dead: !self.dead.is_empty(),
        };
        let mut batches = vec![self.on_time.clone()];
        batches.extend(self.late.clone());
        if !self.dead.is_empty() {
            batches.push(letter_rows(&self.dead));
        }
        (head, batches)
    }
}

/// Dead letters as rows: raw, reason, position.
pub fn letter_rows(letters: &[DeadLetter]) -> RecordBatch {
    let text = |of: fn(&DeadLetter) -> &str| Arc::new(StringArray::from_iter_values(letters.iter().map(of))) as _;
    let raw = BinaryArray::from_iter_values(letters.iter().map(|letter| &letter.raw));
    let field = |name: &str, kind| Field::new(name, kind, false);
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![field("raw", DataType::Binary), field("reason", DataType::Utf8), field("position", DataType::Utf8)]));
    RecordBatch::try_new(schema, vec![Arc::new(raw), text(|letter| &letter.reason), text(|letter| &letter.position)])
        .expect("the schema above")
}

fn letters(rows: &RecordBatch) -> Result<Vec<DeadLetter>> {
    let [raw, reason, position] = rows.columns() else { return Err(unreadable(&"dead letters of other columns")) };
    let texts = raw.as_binary_opt::<i32>().zip(reason.as_string_opt::<i32>()).zip(position.as_string_opt::<i32>());
    let ((raw, reason), position) = texts.ok_or_else(|| unreadable(&"dead letters of other types"))?;
    Ok((0..raw.len()).map(|i| DeadLetter::new(raw.value(i), reason.value(i), position.value(i))).collect())
}

fn put(body: &mut Vec<u8>, part: &[u8]) -> Result<()> {
    body.extend_from_slice(&length(part.len())?);
    body.extend_from_slice(part);
    Ok(())
}

fn length(bytes: usize) -> Result<[u8; 4]> {
    let length = u32::try_from(bytes).map_err(|_| unwritable(&format!("a part of it has {bytes} bytes")))?;
    Ok(length.to_le_bytes())
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let short = || unreadable(&"it is too short");
    let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    *rest = behind;
    Ok(part)
}

fn read_batch(part: &[u8]) -> Result<RecordBatch> {
    // Arrow believes what a stream says of itself, and panics where that cannot be.
    let decoded = catch_unwind(|| decoded(part)).map_err(|_| unreadable(&"it is no Arrow stream"))?;
    decoded.map_err(|error| unreadable(&error))
}

/// Not by Arrow's reader, which makes room for as much as a stream says it has.
fn decoded(part: &[u8]) -> Result<RecordBatch, ArrowError> {
    let (mut decoder, mut rest) = (StreamDecoder::new(), Buffer::from(part));
    if let Some(batch) = decoder.decode(&mut rest)? {
        return Ok(batch);
    }
    decoder.finish()?;
    let schema = decoder.schema().ok_or_else(|| ArrowError::IpcError("it has no schema".into()))?;
    Ok(RecordBatch::new_empty(schema))
}

fn unwritable(error: &dyn std::fmt::Display) -> Error {
    Error::engine(format!("a record of the log cannot be encoded: {error}"))
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::engine(format!("a record of the log cannot be decoded: {error}")).hint("was the data folder written by another version?")
}

#[cfg(test)]
mod tests {
    use rand::Rng;
    use tidegate_testdata::malformed::{mutate, run};

    use super::*;

    fn rows(values: Vec<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values)) as _)]).unwrap()
    }

    fn arrived() -> Arrived {
        Arrived {
            source: "s".into(),
            generation: 1,
            on_time: rows(vec![1, 2]).slice(1, 1),
            late: Some(rows(vec![3])),
            dead: vec![DeadLetter::new(b"\xff\x00", "not UTF-8", "a.log:1")],
            repeated: 4,
            rejected: 5,
            offset: Offset("a:7".into()),
            ids: vec!["x".into()],
            seen: Some(-1),
            latest: Some(2),
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let arrived = arrived();
        let body = Record::Arrived(Box::new(arrived.clone())).encode().unwrap();
        let Record::Arrived(back) = Record::decode(&body).unwrap() else { panic!() };
        assert_eq!(format!("{back:?}"), format!("{arrived:?}"));
        let body = Record::Write { table: "t".into(), delete: rows(vec![]), insert: rows(vec![5]) }.encode().unwrap();
        let Record::Write { delete, insert, .. } = Record::decode(&body).unwrap() else { panic!() };
        assert_eq!((delete, insert), (rows(vec![]), rows(vec![5])));
        for cut in 0..body.len() {
            assert!(Record::decode(&body[..cut]).is_err(), "{cut}");
        }
        let intake = Intake { reader: "v".into(), source: "s".into(), nth: 1 };
        let counted = Counted { intake: intake.clone(), rows: Delta::new(rows(vec![1, 2]), [3, 4]) };
        let Record::Counted(back) = Record::decode(&Record::Counted(counted).encode().unwrap()).unwrap() else { panic!() };
        assert_eq!((back.intake, back.rows.rows, &back.rows.diffs[..]), (intake, rows(vec![1, 2]), &[3, 4][..]));
    }

    /// A record's head and batches, apart.
    fn parts(record: &Record) -> Vec<Vec<u8>> {
        let (body, mut parts) = (record.encode().unwrap(), Vec::new());
        let mut rest = &body[..];
        while !rest.is_empty() {
            parts.push(take(&mut rest).unwrap().to_vec());
        }
        parts
    }

    /// Of each array its share counts, and all of what it is a share of.
    const BYTES_PER_BYTE_MAX: usize = 16;

    /// Its hash would be right: somebody wrote it so, or another build did.
    #[test]
    fn any_body_is_a_record_or_has_a_reason() {
        let texts = StringArray::from_iter([Some("long enough not to be inlined"), None, Some("")]);
        let texts = RecordBatch::try_from_iter([("s", Arc::new(texts) as ArrayRef)]).unwrap();
        let intake = Intake { reader: "v".into(), source: "s".into(), nth: 1 };
        let (file, text) = ("a.sql".to_string(), "CREATE TABLE t (a INT)".to_string());
        let whole: Vec<Vec<Vec<u8>>> = [
            Record::Begin { log: "l".into(), epoch: 1, version: "0".into(), lost_after: Some(7) },
            Record::Statement { file, text: text.clone(), is_pack: true },
            Record::Ran(Ran { text, nth: 0 }),
            Record::Arrived(Box::new(arrived())),
            Record::Write { table: "t".into(), delete: texts.clone(), insert: texts.slice(0, 0) },
            Record::Rows { relation: "r".into(), rows: texts },
            Record::Counted(Counted { intake, rows: Delta::new(rows(vec![1, 2]), [3, 4]) }),
            Record::Commit { delivered: BTreeMap::from([("-> s".to_string(), 3)]) },
        ]
        .iter()
        .map(parts)
        .collect();
        run("record", 2, &["tide"], |_, random| {
            let mut parts = whole[random.random_range(0..whole.len())].clone();
            for _ in 0..random.random_range(1..4) {
                let nth = random.random_range(0..parts.len());
                mutate(&mut parts[nth], &["{\"commit\":{\"delivered\":{}}}", "{\"write\":{\"table\":\"t\"}}"], random);
            }
            let mut body = Vec::new();
            parts.iter().for_each(|part| put(&mut body, part).unwrap());
            if random.random_bool(0.2) {
                mutate(&mut body, &["tide"], random);
            }
            for error in [Record::decode(&body).err(), Record::arrived_head(&body).err()].into_iter().flatten() {
                assert!(error.message.starts_with("a record of the log cannot be decoded: "), "{error}");
            }
            if let Ok(Record::Rows { rows, .. }) = Record::decode(&body) {
                let bytes = rows.get_array_memory_size();
                assert!(bytes <= BYTES_PER_BYTE_MAX * (body.len() + 1024), "{bytes} bytes of {}", body.len());
            }
        });
    }
}
