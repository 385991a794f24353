//! A write as it comes to over other rows than it was made of: those of a past that was changed.
//!
//! Gone     a row whose key is not there is not taken, and no new version of it is put; its key is named
//! Changed  of a row that is another one now, those columns change that the write changed
//! Leaves   a table without a key: which row became which is not known there

use std::collections::HashMap;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::interleave;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use tidegate_types::Delta;
use tidegate_types::row::{RowCodec, project_schema};

use super::{Table, Write};

pub struct Adapted {
    pub write: Write,
    /// Keys of rows to take that are not there, as they are shown.
    pub gone: Vec<String>,
}

impl Table {
    /// Whether the write is of its columns.
    pub fn fits(&self, write: &Write) -> bool {
        write.insert.schema() == self.schema
    }

    pub fn adapted(&self, write: Write) -> Result<Adapted, ArrowError> {
        let taken = self.row_codec.encode(&write.delete)?;
        if self.key.is_empty() || taken.iter().all(|row| self.rows.contains_key(row)) {
            return Ok(Adapted { write, gone: Vec::new() });
        }
        let there = self.row_codec.decode(self.rows.keys().map(Vec::as_slice))?;
        let places: HashMap<Vec<u8>, usize> = self.keys_of(&there).iter().map(<[u8]>::to_vec).zip(0..).collect();
        let now: Vec<Option<usize>> = self.keys_of(&write.delete).iter().map(|key| places.get(key).copied()).collect();
        let gone = now.iter().enumerate().filter(|(_, now)| now.is_none()).map(|(row, _)| self.key_shown(&write.delete, row)).collect();
        let taken: UInt32Array = now.iter().flatten().map(|at| *at as u32).collect();
        let delete = Delta::insertions(there.clone()).take(&taken)?.rows;
        // An UPDATE has a new row for each old one, in one order; nothing else both takes and puts.
        let put = (0..write.insert.num_rows()).filter_map(|row| Some((row, now.get(row).copied()??)));
        let put: Vec<(usize, usize)> = put.collect();
        let columns = (0..self.schema.fields().len()).map(|column| self.merged(column, &write, &there, &put));
        let insert = RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)?;
        Ok(Adapted { write: Write { delete, insert, ..write }, gone })
    }

    /// A column of the rows to put: as the write has it where it changed it, else as it is now. `put`: rows of the
    /// write, and where they are now.
    fn merged(&self, column: usize, write: &Write, there: &RecordBatch, put: &[(usize, usize)]) -> Result<ArrayRef, ArrowError> {
        let codec = RowCodec::new(project_schema(&self.schema, &[column]))?;
        let [old, new] = [&write.delete, &write.insert].map(|rows| codec.encode_columns(&[rows.column(column).clone()], rows.num_rows()));
        let (old, new) = (old?, new?);
        let indices: Vec<(usize, usize)> =
            put.iter().map(|(row, now)| if old.row(*row) == new.row(*row) { (1, *now) } else { (0, *row) }).collect();
        interleave(&[write.insert.column(column).as_ref(), there.column(column).as_ref()], &indices)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn rows(of: &[[i64; 3]]) -> RecordBatch {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        let column = |at: usize| Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row[at]))) as ArrayRef;
        let schema = Arc::new(Schema::new(vec![field("id"), field("a"), field("b")]));
        RecordBatch::try_new(schema, (0..3).map(column).collect()).unwrap()
    }

    #[test]
    fn a_write_changes_what_it_changed() {
        let write =
            |delete: &[[i64; 3]], insert: &[[i64; 3]]| Write { table: "t".into(), delete: rows(delete), insert: rows(insert), read: None };
        let mut table = Table::new(&rows(&[]).schema(), &[0], 1).unwrap();
        table.apply(&write(&[], &[[1, 10, 100], [2, 20, 200]])).unwrap();
        // The first row had 11 in a, the third was there; b of the first was changed, the second as it is.
        let made = write(&[[1, 11, 100], [2, 20, 200], [3, 30, 300]], &[[1, 11, 101], [2, 20, 201], [3, 30, 301]]);
        let Adapted { write: adapted, gone } = table.adapted(made).unwrap();
        assert_eq!(gone, ["3"]);
        assert_eq!(adapted.delete, rows(&[[1, 10, 100], [2, 20, 200]]));
        assert_eq!(adapted.insert, rows(&[[1, 10, 101], [2, 20, 201]]));
        table.apply(&adapted).unwrap();
        // Under another key.
        let moved = table.adapted(write(&[[1, 12, 101], [4, 40, 400]], &[[5, 12, 101], [6, 40, 400]])).unwrap().write;
        assert_eq!((moved.delete, moved.insert), (rows(&[[1, 10, 101]]), rows(&[[5, 10, 101]])));
        let Adapted { write: deleted, gone } = table.adapted(write(&[[2, 21, 201], [7, 70, 700], [8, 1, 1]], &[])).unwrap();
        assert_eq!((deleted.delete, deleted.insert), (rows(&[[2, 20, 201]]), rows(&[])));
        assert_eq!(gone, ["7", "8"]);
        let Adapted { write: plain, gone } = table.adapted(write(&[], &[[8, 80, 800]])).unwrap();
        assert_eq!((plain.delete, plain.insert), (rows(&[]), rows(&[[8, 80, 800]])));
        assert!(gone.is_empty());
    }
}
