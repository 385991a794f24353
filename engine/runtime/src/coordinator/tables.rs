//! Tables: the rows users write, with their keys checked.
//!
//! A statement is evaluated over the last closed tick, beside what goes on, and written into the
//! open one. In between others may have written. The rows it takes must still be there, and no
//! table whose rows it read for other reasons (by INSERT … SELECT, in a subquery, below a view) may
//! have changed; else it is refused as a conflict. What sources bring to a view is no conflict: it
//! was read as of its tick.

mod adapted;

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use tidegate_plan::RelationKind;
use tidegate_types::error::{Error, Mistake, Result};
use tidegate_types::row::{EncodedRows, RowCodec, project_schema};
use tidegate_types::{Delta, Tick};

use super::Coordinator;
pub(super) use adapted::Adapted;

/// Rows to take from a table and rows to put into it, in one tick.
pub struct Write {
    pub table: String,
    pub delete: RecordBatch,
    pub insert: RecordBatch,
    /// None: it was taken in before, and the log says so.
    pub read: Option<Read>,
}

/// What a statement read that its rows to take do not show.
pub struct Read {
    pub tick: Tick,
    pub relations: BTreeSet<String>,
}

/// What a table holds, so that a write is checked against what is there.
pub(super) struct Table {
    schema: SchemaRef,
    /// The tick of its creation or of its last change.
    changed: Tick,
    key: Vec<usize>,
    key_codec: RowCodec,
    row_codec: RowCodec,
    rows: HashMap<Vec<u8>, i64>,
    keys: HashSet<Vec<u8>>,
}

impl Table {
    pub(super) fn new(schema: &SchemaRef, key: &[usize], created: Tick) -> Result<Self> {
        let codec = |schema| RowCodec::new(schema).map_err(|error| Error::user(error.to_string()));
        Ok(Self {
            schema: schema.clone(),
            changed: created,
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
                return Err(changed_meanwhile(&write.table));
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
                let (what, way_out, mistake) = match null {
                    true => ("NULL in", "give the key a value in every row", Mistake::Null),
                    false => {
                        ("duplicate value for", "UPDATE the row that is there, or give the new one another key", Mistake::DuplicateKey)
                    }
                };
                let shown = self.key_shown(&write.insert, i);
                let error = Error::user(format!("{what} the primary key of table \"{}\": {shown}", write.table));
                return Err(error.hint(way_out).mistake(mistake));
            }
        }
        Ok(())
    }

    fn key_shown(&self, rows: &RecordBatch, row: usize) -> String {
        let shown = self.key.iter().map(|&column| {
            let column = rows.column(column);
            array_value_to_string(column, row).ok().filter(|_| column.is_valid(row)).unwrap_or_else(|| "NULL".into())
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Write {
    /// It is made of what it says alone.
    pub fn reads_nothing(&self) -> bool {
        self.read.as_ref().is_none_or(|read| read.relations.is_empty())
    }
}

impl Coordinator {
    /// Errors: the table has one of its keys already. One with other columns is another table.
    pub(super) fn check_keys(&self, write: &Write) -> Result<()> {
        let table = self.tables.get(&write.table).filter(|table| table.fits(write));
        table.map_or(Ok(()), |table| table.check_keys(write))
    }

    pub(super) fn write(&mut self, write: &Write) -> Result<()> {
        if let Some(read) = &write.read {
            self.check_read(read)?;
        }
        let table = self
            .tables
            .get_mut(&write.table)
            .ok_or_else(|| Error::user(format!("table \"{}\" does not exist", write.table)).mistake(Mistake::NoRelation))?;
        // It may have been made anew, with other columns.
        if write.read.is_some() && table.schema != write.insert.schema() {
            return Err(changed_meanwhile(&write.table));
        }
        table.apply(write)?;
        let tick = self.opened();
        self.tables.get_mut(&write.table).expect("found above").changed = tick;
        let gone = Delta::insertions(write.delete.clone()).negate();
        for delta in [gone, Delta::insertions(write.insert.clone())] {
            if !delta.is_empty() {
                self.distribute(&write.table, None, delta);
            }
        }
        Ok(())
    }

    fn check_read(&self, read: &Read) -> Result<()> {
        let changed = self.tables_below(&read.relations).into_iter().find(|name| read.tick < self.tables[name].changed);
        changed.map_or(Ok(()), |name| Err(changed_meanwhile(&name)))
    }

    /// The tables that these relations are, or are made from.
    fn tables_below(&self, relations: &BTreeSet<String>) -> BTreeSet<String> {
        let (mut tables, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut left: Vec<&String> = relations.iter().collect();
        while let Some(name) = left.pop() {
            if !seen.insert(name) {
                continue;
            }
            match self.catalog.get(name).map(|relation| &relation.kind) {
                Some(RelationKind::Table { .. }) => drop(tables.insert(name.clone())),
                Some(RelationKind::View { reads, .. }) => left.extend(reads),
                Some(RelationKind::Kept { .. }) => left.extend(&self.kept[name].reads),
                _ => {}
            }
        }
        tables
    }
}

fn changed_meanwhile(table: &str) -> Error {
    Error::conflict(format!("table \"{table}\" changed while the statement was read"))
}
