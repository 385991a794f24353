//! Values for which the protocol has no type, as text: lists of lists as Postgres writes its arrays, and maps, with what
//! they are in, as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The plan with text for the columns that could not be sent.
pub(super) fn as_text(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let sent: Vec<bool> = plan.schema().fields().iter().map(|field| is_sent(field.data_type())).collect();
    if sent.iter().all(|is_sent| *is_sent) {
        return Ok(plan);
    }
    let text = ScalarUDF::from(AsText { signature: Signature::any(1, Volatility::Immutable) });
    let columns = plan.schema().columns().into_iter().zip(sent).map(|(column, is_sent)| match is_sent {
        true => Expr::Column(column),
        false => text.call(vec![Expr::Column(column.clone())]).alias_qualified(column.relation, column.name),
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn is_sent(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) => false,
        DataType::Struct(fields) => fields.iter().all(|field| is_sent(field.data_type())),
        list => match element(list) {
            Some(inner) => element(inner).is_none() && is_sent(inner),
            None => true,
        },
    }
}

fn element(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => Some(field.data_type()),
        _ => None,
    }
}

/// Whether Postgres could have an array of it.
fn is_array(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field) => !field.data_type().is_nested() || is_array(field.data_type()),
        _ => false,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsText {
    signature: Signature,
}

impl ScalarUDFImpl for AsText {
    fn name(&self) -> &str {
        "nested_as_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&args.args)?.remove(0);
        let texts = if is_array(values.data_type()) { arrays(&values)? } else { documents(&values)? };
        Ok(ColumnarValue::Array(Arc::new(texts)))
    }
}

fn arrays(lists: &ArrayRef) -> Result<StringArray, ArrowError> {
    let lists = lists.as_list::<i32>().iter().map(|list| list.map(|list| array(&list)).transpose());
    lists.collect()
}

/// `{{1,2},{3,NULL}}`
fn array(elements: &ArrayRef) -> Result<String, ArrowError> {
    let texts: Vec<String> = match elements.data_type() {
        DataType::List(_) => {
            let lists = elements.as_list::<i32>().iter();
            lists.map(|list| list.map_or(Ok("NULL".into()), |list| array(&list))).collect::<Result<_, _>>()?
        }
        data_type => {
            let options = FormatOptions::new().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
            let shown = ArrayFormatter::try_new(elements.as_ref(), &options)?;
            let text = |i: usize| match shown.value(i).to_string() {
                text if *data_type == DataType::Boolean => text[..1].to_string(),
                text => quoted(text),
            };
            (0..elements.len()).map(|i| if elements.is_null(i) { "NULL".into() } else { text(i) }).collect()
        }
    };
    Ok(format!("{{{}}}", texts.join(",")))
}

/// As array_out quotes: what could be taken for something else.
fn quoted(text: String) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '{' | '}' | ',' | '"' | '\\');
    match !text.is_empty() && !text.eq_ignore_ascii_case("null") && text.chars().all(is_plain) {
        true => text,
        false => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn documents(values: &ArrayRef) -> Result<StringArray, ArrowError> {
    let (before, behind) = ("{\"v\":", "}");
    let mut writer = tidegate_types::json::writer().build::<_, LineDelimited>(Vec::new());
    writer.write(&RecordBatch::try_from_iter([("v", Arc::clone(values))])?)?;
    writer.finish()?;
    let lines = String::from_utf8(writer.into_inner()).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    let document = |line: &str| Some(line.strip_prefix(before)?.strip_suffix(behind)?.to_string());
    Ok(lines.lines().enumerate().map(|(i, line)| if values.is_null(i) { None } else { document(line) }).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Builder, ListBuilder};

    use super::*;

    #[test]
    fn lists_of_lists_are_written_as_arrays() {
        let mut lists = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        lists.values().append_value([Some(1), None]);
        lists.values().append_null();
        lists.values().append_value([]);
        lists.append(true);
        lists.append(false);
        let texts = arrays(&(Arc::new(lists.finish()) as ArrayRef)).unwrap();
        assert_eq!(texts, StringArray::from(vec![Some("{{1,NULL},NULL,{}}"), None]));
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        for (text, expected) in [("a", "a"), ("", r#""""#), ("Null", r#""Null""#), ("a b", r#""a b""#), ("\"\\", r#""\"\\""#)] {
            assert_eq!(quoted(text.into()), expected);
        }
    }
}
