//! Tables: the rows users write, with their keys checked.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use tidegate_types::Delta;
use tidegate_types::error::{Error, Result};
use tidegate_types::row::{EncodedRows, RowCodec, project_schema};

use super::Coordinator;

/// Rows to take from a table and rows to put into it, in one tick.
pub struct Write {
    pub table: String,
    pub delete: RecordBatch,
    pub insert: RecordBatch,
}

/// What a table holds, so that a write is checked against what is there.
pub(super) struct Table {
    key: Vec<usize>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    rows: HashMap<Vec<u8>, i64>,
    keys: HashSet<Vec<u8>>,
}

impl Table {
    pub(super) fn new(schema: &SchemaRef, key: &[usize]) -> Result<Self> {
        let codec = |schema| RowCodec::new(schema).map_err(|error| Error::user(error.to_string()));
        Ok(Self {
            key: key.to_vec(),
            key_codec: codec(project_schema(schema, key))?,
            row_codec: codec(schema.clone())?,
            rows: HashMap::new(),
            keys: HashSet::new(),
        })
    }

    fn keys_of(&self, rows: &RecordBatch) -> EncodedRows {
        let columns: Vec<ArrayRef> = self.key.iter().map(|&i| rows.column(i).clone()).collect();
        self.key_codec.encode_columns(&columns, rows.num_rows()).expect("the table's schema")
    }

    /// All or nothing.
    fn apply(&mut self, write: &Write) -> Result<()> {
        let gone = self.row_codec.encode(&write.delete).expect("the table's schema");
        let come = self.row_codec.encode(&write.insert).expect("the table's schema");
        let mut taken: HashMap<&[u8], i64> = HashMap::new();
        for row in gone.iter() {
            let taken = taken.entry(row).or_default();
            *taken += 1;
            if self.rows.get(row).copied().unwrap_or(0) < *taken {
                return Err(Error::user(format!("table \"{}\" changed while the statement was read", write.table)).hint("run it again"));
            }
        }
        self.check_keys(write)?;
        for row in gone.iter() {
            let count = self.rows.get_mut(row).expect("checked above");
            *count -= 1;
            if *count == 0 {
                self.rows.remove(row);
            }
        }
        come.iter().for_each(|row| *self.rows.entry(row.to_vec()).or_default() += 1);
        if !self.key.is_empty() {
            for key in self.keys_of(&write.delete).iter() {
                self.keys.remove(key);
            }
            for key in self.keys_of(&write.insert).iter() {
                self.keys.insert(key.to_vec());
            }
        }
        Ok(())
    }

    fn check_keys(&self, write: &Write) -> Result<()> {
        if self.key.is_empty() {
            return Ok(());
        }
        let (freed, wanted) = (self.keys_of(&write.delete), self.keys_of(&write.insert));
        let freed: HashSet<&[u8]> = freed.iter().collect();
        let mut own: HashSet<&[u8]> = HashSet::new();
        for (i, key) in wanted.iter().enumerate() {
            let null = self.key.iter().any(|&column| write.insert.column(column).is_null(i));
            let twice = !own.insert(key) || (self.keys.contains(key) && !freed.contains(key));
            if null || twice {
                let shown = self.key.iter().map(|&column| {
                    let column = write.insert.column(column);
                    array_value_to_string(column, i).ok().filter(|_| column.is_valid(i)).unwrap_or_else(|| "NULL".into())
                });
                let shown = shown.collect::<Vec<_>>().join(", ");
                let what = if null { "NULL in" } else { "duplicate value for" };
                return Err(Error::user(format!("{what} the primary key of table \"{}\": {shown}", write.table)));
            }
        }
        Ok(())
    }
}

impl Coordinator {
    pub(super) fn write(&mut self, write: &Write) -> Result<()> {
        let table = self.tables.get_mut(&write.table).ok_or_else(|| Error::user(format!("table \"{}\" does not exist", write.table)))?;
        table.apply(write)?;
        let gone = Delta::insertions(write.delete.clone()).negate();
        for delta in [gone, Delta::insertions(write.insert.clone())] {
            if !delta.is_empty() {
                self.distribute(&write.table, None, delta);
            }
        }
        Ok(())
    }
}
