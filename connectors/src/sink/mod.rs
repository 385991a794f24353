//! The sinks there are, and the one shape in which all of them write.
//!
//! A change is a line of JSON, flat at the outside and easy to read back:
//!
//! ```json
//! {"op":"insert","tick":1706693216123,"row":{"minute":"2024-01-31T09:26:00","n":4}}
//! ```
//!
//! A change of n copies is n such lines; NULL is written as `null`; a tick's
//! deletions stand before its insertions.

pub mod discard;
pub mod file;
pub mod postgres;
pub mod stdout;

use arrow::json::writer::LineDelimited;
use memchr::memchr_iter;
use tidegate_types::connector::Changes;
use tidegate_types::error::{Error, Result};

/// The lines of several ticks, each with its newline.
///
/// Errors: a column of a type that JSON cannot hold.
fn lines(changes: &[Changes], sink: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for changes in changes {
        add_lines(changes, sink, &mut out)?;
    }
    Ok(out)
}

fn add_lines(changes: &Changes, sink: &str, out: &mut Vec<u8>) -> Result<()> {
    let rows = &changes.delta.rows;
    let mut encoded = Vec::new();
    let mut writer = tidegate_types::json::writer().build::<_, LineDelimited>(&mut encoded);
    writer.write(rows).and_then(|()| writer.finish()).map_err(|error| {
        Error::user(format!("sink \"{sink}\" cannot write its rows as JSON: {error}")).hint("cast the column to TEXT in the view")
    })?;
    out.reserve(encoded.len() + 48 * rows.num_rows());
    let mut start = 0;
    for (end, diff) in memchr_iter(b'\n', &encoded).zip(changes.delta.diffs.iter()) {
        let op = if *diff < 0 { "delete" } else { "insert" };
        for _ in 0..diff.unsigned_abs() {
            out.extend_from_slice(format!("{{\"op\":\"{op}\",\"tick\":{},\"row\":", changes.tick).as_bytes());
            out.extend_from_slice(&encoded[start..end]);
            out.extend_from_slice(b"}\n");
        }
        start = end + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
    use tidegate_types::delta::Delta;

    use super::*;

    #[test]
    fn a_line_per_copy_deletions_as_they_come() {
        let who: ArrayRef = Arc::new(StringArray::from(vec![Some("a\n\"b\""), None, Some("c")]));
        let n: ArrayRef = Arc::new(Float64Array::from(vec![1.5, f64::NAN, 2.0]));
        let rows = RecordBatch::try_from_iter([("who", who), ("n", n)]).unwrap();
        let changes = Changes { tick: 7, delta: Delta::new(rows, vec![-1, 2, 0]) };
        let text = String::from_utf8(lines(&[changes], "s").unwrap()).unwrap();
        let expected = [
            r#"{"op":"delete","tick":7,"row":{"who":"a\n\"b\"","n":1.5}}"#,
            r#"{"op":"insert","tick":7,"row":{"who":null,"n":"NaN"}}"#,
            r#"{"op":"insert","tick":7,"row":{"who":null,"n":"NaN"}}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
