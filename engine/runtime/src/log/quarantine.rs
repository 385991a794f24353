//! Input that makes a worker fail: found by trying less and less of it at each start, and then passed over.
//!
//! A worker that panics ends the engine, and would again when the log is replayed. So what was being
//! computed is made durable, and a file beside the segments says where to look:
//!
//! Whole     the first start replays all before it, then gives the workers the rest in pieces, and says in
//!           the file which piece is next
//! Piece     the next start gives them that piece row by row
//! Guilty    the next start logs which row (or statement) it was, and passes it over from then on: a row is
//!           a dead letter, a statement is refused when it comes again
//! Innocent  nothing failed in pieces: the next start replays as if nothing had happened, and if that fails
//!           again no single row is to blame

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::json::LineDelimitedWriter;
use serde::{Deserialize, Serialize};
use tidegate_types::Tick;
use tidegate_types::connector::DeadLetter;
use tidegate_types::disk::{self, Disk};
use tidegate_types::error::{Error, Result};

use super::record::{Arrived, Record};
use super::segment::{unreadable, unwritable};

const NAME: &str = "suspect.json";

/// Input that a worker failed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// What came before this tick is innocent.
    pub from: Tick,
    /// What the worker said.
    pub reason: String,
    pub step: Step,
    /// The text of the statement that is being tried.
    pub statement: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Whole,
    /// Rows `from..to` of a frame are being tried; none where the frame is no batch of rows.
    Piece {
        frame: u64,
        from: usize,
        to: usize,
    },
    Innocent,
}

impl Suspect {
    pub fn read(disk: &dyn Disk, folder: &Path) -> Result<Option<Self>> {
        let path = path(folder);
        if disk.len(&path).is_err() {
            return Ok(None);
        }
        let mut text = String::new();
        disk.read(&path).and_then(|mut file| file.read_to_string(&mut text)).map_err(|error| unreadable(&path, &error))?;
        let suspect = serde_json::from_str(&text);
        suspect.map(Some).map_err(|error| Error::user(format!("{} is damaged: {error}", path.display())).hint("remove it"))
    }

    pub fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).expect("plain data");
        disk::put(disk, &path(folder), &text).map_err(|error| unwritable(&path(folder), &error))
    }

    /// The one input that it must be.
    pub fn guilty(&self) -> Option<Guilty> {
        match self.step {
            Step::Piece { frame, from, to } if to <= from + 1 => {
                let (row, reason, statement) = ((from < to).then_some(from), self.reason.clone(), self.statement.clone());
                Some(Guilty { frame, row, reason, statement })
            }
            _ => None,
        }
    }
}

/// Nothing is under suspicion.
pub fn clear(disk: &dyn Disk, folder: &Path) -> Result<()> {
    match disk.remove(&path(folder)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&path(folder), &error)),
        _ => disk.sync_folder(folder).map_err(|error| unwritable(folder, &error)),
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// What is passed over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guilty {
    pub frame: u64,
    /// Of the rows on time, then of the late ones; None: the frame as a whole.
    pub row: Option<usize>,
    pub reason: String,
    /// The text, where it was a statement that makes something.
    pub statement: Option<String>,
}

/// All that is passed over.
#[derive(Debug, Clone, Default)]
pub struct Quarantine(BTreeMap<u64, BTreeSet<Guilty>>);

impl Quarantine {
    pub fn add(&mut self, guilty: Guilty) {
        self.0.entry(guilty.frame).or_default().insert(guilty);
    }

    pub fn extend(&mut self, guilty: impl IntoIterator<Item = Guilty>) {
        guilty.into_iter().for_each(|guilty| self.add(guilty));
    }

    pub fn all(&self) -> impl Iterator<Item = &Guilty> {
        self.0.values().flatten()
    }

    /// The record of a frame without what is passed over.
    pub fn pass(&self, frame: u64, record: Record) -> Option<Record> {
        let Some(guilty) = self.0.get(&frame) else { return Some(record) };
        match record {
            Record::Arrived(arrived) => Some(Record::Arrived(Box::new(without(*arrived, frame, guilty)))),
            _ => None,
        }
    }
}

fn without(mut arrived: Arrived, frame: u64, guilty: &BTreeSet<Guilty>) -> Arrived {
    let on_time = arrived.on_time.num_rows();
    for Guilty { row, reason, .. } in guilty {
        let Some(row) = *row else { continue };
        let found = if row < on_time {
            Some(arrived.on_time.slice(row, 1))
        } else {
            arrived.late.as_ref().map(|late| late.slice(row - on_time, 1))
        };
        let raw = found.map(|row| text(&row)).unwrap_or_default();
        arrived.dead.push(DeadLetter::new(raw.as_bytes(), format!("a worker failed on this row: {reason}"), format!("log:{frame}:{row}")));
    }
    let is_guilty = |row: usize| guilty.iter().any(|guilty| guilty.row == Some(row));
    let kept = |rows: &RecordBatch, before: usize| {
        let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(!is_guilty(before + row))).collect();
        filter_record_batch(rows, &keep).expect("one flag per row")
    };
    arrived.late = arrived.late.map(|late| kept(&late, on_time));
    arrived.on_time = kept(&arrived.on_time, 0);
    arrived
}

fn text(row: &RecordBatch) -> String {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    match writer.write(row).and_then(|()| writer.finish()) {
        Ok(()) => String::from_utf8_lossy(&writer.into_inner()).trim_end().to_string(),
        Err(error) => format!("a row that is no JSON: {error}"),
    }
}

/// The pieces in which `rows` rows are tried: about as many as each has rows.
pub fn pieces(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let length = rows.isqrt().max(1);
    (0..rows).step_by(length).map(move |from| (from, rows.min(from + length)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use tidegate_types::connector::Offset;

    use super::*;

    #[test]
    fn pieces_hold_each_row_once() {
        for rows in [0, 1, 2, 3, 10, 1000] {
            let found: Vec<usize> = pieces(rows).flat_map(|(from, to)| from..to).collect();
            assert_eq!(found, (0..rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_guilty_row_is_a_dead_letter_and_its_neighbours_stay() {
        let rows = |values: Vec<i64>| RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values)) as _)]).unwrap();
        let arrived = Arrived {
            source: "s".into(),
            generation: 0,
            on_time: rows(vec![1, 2, 3]),
            late: Some(rows(vec![4, 5])),
            dead: Vec::new(),
            repeated: 0,
            rejected: 0,
            offset: Offset(String::new()),
            ids: Vec::new(),
            seen: None,
            latest: None,
        };
        let mut quarantine = Quarantine::default();
        for row in [1, 3] {
            quarantine.add(Guilty { frame: 7, row: Some(row), reason: "index out of bounds".into(), statement: None });
        }
        quarantine.add(Guilty { frame: 9, row: None, reason: "overflow".into(), statement: None });
        let record = Record::Arrived(Box::new(arrived.clone()));
        let Some(Record::Arrived(passed)) = quarantine.pass(7, record.clone()) else { panic!() };
        assert_eq!((passed.on_time, passed.late), (rows(vec![1, 3]), Some(rows(vec![5]))));
        let raw: Vec<_> = passed.dead.iter().map(|letter| String::from_utf8_lossy(&letter.raw).into_owned()).collect();
        assert_eq!(raw, ["{\"n\":2}", "{\"n\":4}"]);
        assert!(passed.dead[0].reason.contains("index out of bounds"));
        let Some(Record::Arrived(passed)) = quarantine.pass(8, record) else { panic!() };
        assert_eq!(passed.on_time, arrived.on_time);
        let statement = Record::Statement { file: String::new(), text: String::new(), is_pack: false };
        assert!(quarantine.pass(9, statement).is_none());
    }
}
