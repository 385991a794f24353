//! Rows as bytes that sort by an ORDER BY, ties by the remaining columns, and decode again:
//! the order's columns first, then the whole row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use tidegate_types::Delta;
use tidegate_types::row::{EncodedRows, RowCodec, project_schema};

pub struct OrderedRows {
    key_columns: Vec<usize>,
    order_columns: Vec<usize>,
    key: RowCodec,
    order: RowCodec,
    row: RowCodec,
}

/// Bytes before each ordered row that say how long the order part is.
const PREFIX_BYTES: usize = 4;

impl OrderedRows {
    /// Columns are indices into `input`.
    pub fn new(input: &SchemaRef, key: &[usize], order: &[(usize, SortOptions)]) -> Self {
        let columns: Vec<usize> = order.iter().map(|(column, _)| *column).collect();
        let options: Vec<SortOptions> = order.iter().map(|(_, options)| *options).collect();
        let ordered = RowCodec::with_order(project_schema(input, &columns), &options);
        Self {
            key_columns: key.to_vec(),
            order_columns: columns,
            key: RowCodec::new(project_schema(input, key)).expect("the planner checked the types"),
            order: ordered.expect("the planner checked the types"),
            row: RowCodec::new(Arc::clone(input)).expect("the planner checked the types"),
        }
    }

    pub fn encode(&self, delta: &Delta) -> Encoded {
        let encode = |codec: &RowCodec, columns: &mut dyn Iterator<Item = usize>| {
            let columns: Vec<ArrayRef> = columns.map(|i| Arc::clone(delta.rows.column(i))).collect();
            codec.encode_columns(&columns, delta.len()).expect("the plan's schema")
        };
        Encoded {
            keys: encode(&self.key, &mut self.key_columns.iter().copied()),
            order: encode(&self.order, &mut self.order_columns.iter().copied()),
            rows: encode(&self.row, &mut (0..delta.rows.num_columns())),
        }
    }

    /// The input's columns of rows as [`Encoded::ordered`] gave them.
    pub fn decode_columns<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Vec<ArrayRef> {
        let row = |bytes: &'_ [u8]| -> Range<usize> {
            let end = bytes.len() - PREFIX_BYTES;
            let order = u32::from_be_bytes(bytes[end..].try_into().expect("four bytes")) as usize;
            order..end
        };
        self.row.decode_columns(rows.map(|bytes| &bytes[row(bytes)])).expect("what was encoded")
    }
}

pub struct Encoded {
    pub keys: EncodedRows,
    order: EncodedRows,
    rows: EncodedRows,
}

impl Encoded {
    /// Row `i` as it is kept. arrow-row encodings are prefix free, so order ++ row compares as
    /// (order, row); the length of the order part goes to the end, where it never decides.
    pub fn ordered(&self, i: usize, bytes: &mut Vec<u8>) {
        let (order, row) = (self.order.row(i), self.rows.row(i));
        bytes.clear();
        bytes.extend_from_slice(order);
        bytes.extend_from_slice(row);
        bytes.extend_from_slice(&(order.len() as u32).to_be_bytes());
    }
}
