//! Rows for people and programs: a table, CSV, or one JSON object per line.

use std::io::{ErrorKind, Write};

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::SchemaRef;
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
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    Ok(writer.into_inner())
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
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

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
}
