//! What happens in the world, as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;

/// One row of the feed or of the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    pub key: String,
    pub amount: i64,
    pub ts: i64,
}

impl Event {
    /// Id, key and amount, as the views show them.
    pub fn text(&self) -> String {
        format!("{}|{}|{}", self.id, self.key, self.amount)
    }

    /// As a batch of id, key, amount and, where the schema has it, ts.
    pub fn batch<'a>(schema: &SchemaRef, events: impl IntoIterator<Item = &'a Self>) -> RecordBatch {
        let events: Vec<&Self> = events.into_iter().collect();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.id))),
            Arc::new(StringArray::from_iter_values(events.iter().map(|event| &event.key))),
            Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.amount))),
        ];
        if schema.fields().len() == 4 {
            columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(events.iter().map(|event| event.ts))));
        }
        RecordBatch::try_new(Arc::clone(schema), columns).expect("the columns the scenario declares")
    }
}
