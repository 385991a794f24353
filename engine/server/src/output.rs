//! Rows for people and programs: a table, CSV, or one JSON object per line. An object has each name once: where
//! columns share one, the later have a number behind it (`id`, `id_2`).

use std::io::{ErrorKind, Write};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use tidegate_types::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Json,
}

/// The rows as text that ends in a newline, or is empty.
///
/// Errors: a column of a type the format cannot hold.
pub fn format(format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String> {
    let written = match format {
        Format::Table => pretty_format_batches_with_schema(schema.clone(), batches).map(|table| format!("{table}\n").into_bytes()),
        Format::Csv => csv(schema, batches),
        Format::Json => json(batches),
    };
    let bytes = written.map_err(|error| Error::user(format!("the rows cannot be printed: {error}")).hint("cast the column to TEXT"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn csv(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = CsvBuilder::new().with_header(true).build(&mut bytes);
    // The header comes with the first batch, and there may be none.
    writer.write(&RecordBatch::new_empty(schema.clone()))?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    drop(writer);
    Ok(bytes)
}

fn json(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = tidegate_types::json::writer().build::<_, LineDelimited>(Vec::new());
    batches.iter().try_for_each(|batch| writer.write(&told_apart(batch)?))?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn told_apart(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut names: Vec<String> = Vec::with_capacity(batch.num_columns());
    for field in batch.schema_ref().fields() {
        let numbered = (2..).map(|number| format!("{}_{number}", field.name()));
        let free = std::iter::once(field.name().clone()).chain(numbered).find(|name| !names.contains(name));
        names.extend(free);
    }
    let fields = batch.schema_ref().fields().iter().zip(names).map(|(field, name)| field.as_ref().clone().with_name(name));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields.collect::<Vec<_>>())), batch.columns().to_vec(), &options)
}

/// Prints to standard output. A reader that has seen enough, such as `head`,
/// is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::engine(format!("standard output cannot be written: {error}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn three_formats() {
        let schema = Arc::new(Schema::new(vec![Field::new("ip", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]));
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![Some("a,b"), None])), Arc::new(Int64Array::from(vec![1, 2]))];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let batches = std::slice::from_ref(&batch);
        assert_eq!(format(Format::Csv, &schema, batches).unwrap(), "ip,n\n\"a,b\",1\n,2\n");
        assert_eq!(format(Format::Csv, &schema, &[]).unwrap(), "ip,n\n");
        assert_eq!(format(Format::Json, &schema, batches).unwrap(), "{\"ip\":\"a,b\",\"n\":1}\n{\"ip\":null,\"n\":2}\n");
        assert!(format(Format::Table, &schema, batches).unwrap().contains("| a,b | 1 |"));
    }

    #[test]
    fn an_object_has_each_name_once() {
        let fields = ["id", "id", "id_2", "id"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let columns = (1..=4).map(|number| Arc::new(Int64Array::from(vec![number])) as ArrayRef).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let batches = std::slice::from_ref(&batch);
        assert_eq!(format(Format::Csv, &schema, batches).unwrap(), "id,id,id_2,id\n1,2,3,4\n");
        assert_eq!(format(Format::Json, &schema, batches).unwrap(), "{\"id\":1,\"id_2\":2,\"id_2_2\":3,\"id_3\":4}\n");
    }
}
