//! A write as it comes to over other rows than it was made of: those of a past that was changed.
//!
//! Gone     a row that is not there is not taken, and no new version of it is put
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

impl Table {
    pub fn adapted(&self, write: Write) -> Result<Write, ArrowError> {
        if self.key.is_empty() || write.delete.schema() != self.schema {
            return Ok(write);
        }
        let gone = self.row_codec.encode(&write.delete)?;
        if gone.iter().all(|row| self.rows.contains_key(row)) {
            return Ok(write);
        }
        let there = self.row_codec.decode(self.rows.keys().map(Vec::as_slice))?;
        let (places, before) = (self.places(&there), self.places(&write.delete));
        let taken: UInt32Array = self.keys_of(&write.delete).iter().filter_map(|key| places.get(key).map(|at| *at as u32)).collect();
        let delete = Delta::insertions(there.clone()).take(&taken)?.rows;
        let mut put = Vec::new();
        for (new, key) in self.keys_of(&write.insert).iter().enumerate() {
            match (before.get(key), places.get(key)) {
                (None, _) => put.push((new, None)),
                (Some(old), Some(now)) => put.push((new, Some((*old, *now)))),
                (Some(_), None) => {}
            }
        }
        let columns = (0..self.schema.fields().len()).map(|column| self.merged(column, &write, &there, &put));
        let insert = RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)?;
        Ok(Write { delete, insert, ..write })
    }

    /// Where the row of each key is.
    fn places(&self, rows: &RecordBatch) -> HashMap<Vec<u8>, usize> {
        self.keys_of(rows).iter().map(<[u8]>::to_vec).zip(0..).collect()
    }

    /// A column of the rows to put: as the write has it, but for rows (old, now) in which the write did not change it.
    fn merged(
        &self,
        column: usize,
        write: &Write,
        there: &RecordBatch,
        put: &[(usize, Option<(usize, usize)>)],
    ) -> Result<ArrayRef, ArrowError> {
        let codec = RowCodec::new(project_schema(&self.schema, &[column]))?;
        let [old, new] = [&write.delete, &write.insert].map(|rows| codec.encode_columns(&[rows.column(column).clone()], rows.num_rows()));
        let (old, new) = (old?, new?);
        let of = |(at, other): &(usize, Option<(usize, usize)>)| match other {
            Some((before, now)) if old.row(*before) == new.row(*at) => (1, *now),
            _ => (0, *at),
        };
        let indices: Vec<(usize, usize)> = put.iter().map(of).collect();
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
        let made = write(&[[1, 11, 100], [2, 20, 200], [3, 30, 300]], &[[1, 11, 101], [2, 20, 201], [3, 30, 301], [4, 40, 400]]);
        let adapted = table.adapted(made).unwrap();
        assert_eq!(adapted.delete, rows(&[[1, 10, 100], [2, 20, 200]]));
        assert_eq!(adapted.insert, rows(&[[1, 10, 101], [2, 20, 201], [4, 40, 400]]));
        table.apply(&adapted).unwrap();
        let plain = table.adapted(write(&[[4, 40, 400]], &[])).unwrap();
        assert_eq!((plain.delete, plain.insert), (rows(&[[4, 40, 400]]), rows(&[])));
    }
}
