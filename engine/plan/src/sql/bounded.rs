//! Functions that make much of little, or take long for it, bounded: one call of DataFusion's `repeat` would take
//! all memory there is, one of `levenshtein` hours, and neither can be interrupted.
//!
//! Bounds    [`BYTES_MAX`] for the rows that are computed at once, [`COMPARED_BYTES_MAX`] for a text that is compared
//!           with another, letter by letter; reckoned before they are; an error names the function

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

pub const BYTES_MAX: u64 = 64 << 20;

/// Postgres has 255.
const COMPARED_BYTES_MAX: u64 = 1024;

/// What one element of a list takes, roughly.
const ELEMENT_BYTES: u64 = 8;

/// Characters take up to so many bytes.
const CHARACTER_BYTES: u64 = 4;

/// The function, bounded where it needs to be.
pub(super) fn bounded(function: &Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match Bound::of(function.name()) {
        Some(bound) => Arc::new(ScalarUDF::from(Bounded { function: Arc::clone(function), bound })),
        None => Arc::clone(function),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bound {
    /// Of what is made.
    Made(Growth),
    /// Of each text that is compared.
    Compared,
}

impl Bound {
    fn of(name: &str) -> Option<Self> {
        match name {
            "levenshtein" => Some(Self::Compared),
            name => Growth::of(name).map(Self::Made),
        }
    }

    /// Errors: the arguments of the function `name` go beyond it.
    fn check(self, name: &str, args: &[ArrayRef]) -> Result<()> {
        match self {
            Self::Made(growth) if BYTES_MAX < growth.bytes(args) => {
                exec_err!("{name} would make more than {} MiB at once", BYTES_MAX >> 20)
            }
            Self::Compared if args.iter().any(|texts| (0..texts.len()).any(|row| COMPARED_BYTES_MAX < text_bytes(texts, row))) => {
                exec_err!("{name} compares texts of at most {COMPARED_BYTES_MAX} bytes: cut them with left(…)")
            }
            _ => Ok(()),
        }
    }
}

/// What a function's result is as long as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// The first argument, as often as the second says.
    Repeated,
    /// The second argument, in characters.
    Padded,
    /// As many elements as the second argument says, each as long as the argument at this place.
    Counted(usize),
    /// From the first argument to the second by the third.
    Range,
}

impl Growth {
    fn of(name: &str) -> Option<Self> {
        match name {
            "repeat" => Some(Self::Repeated),
            "lpad" | "rpad" => Some(Self::Padded),
            "array_repeat" => Some(Self::Counted(0)),
            "array_resize" => Some(Self::Counted(2)),
            "range" | "generate_series" => Some(Self::Range),
            _ => None,
        }
    }

    /// Of each row, and of all.
    fn bytes(self, args: &[ArrayRef]) -> u64 {
        let Some(first) = args.first() else { return 0 };
        let numbers: Vec<Option<ArrayRef>> = args.iter().map(whole_numbers).collect();
        let number = |argument: usize, row: usize| {
            let numbers = numbers.get(argument)?.as_ref()?.as_primitive::<Int64Type>();
            numbers.is_valid(row).then(|| numbers.value(row))
        };
        let of_row = |row: usize| match self {
            Self::Repeated => text_bytes(first, row).saturating_mul(count(number(1, row))),
            Self::Padded => count(number(1, row)).saturating_mul(CHARACTER_BYTES),
            Self::Counted(element) => {
                let bytes = args.get(element).map_or(ELEMENT_BYTES, |element| element_bytes(element, row));
                count(number(1, row)).saturating_mul(bytes)
            }
            Self::Range => {
                let (from, to) = if args.len() == 1 { (Some(0), number(0, row)) } else { (number(0, row), number(1, row)) };
                let step = number(2, row).unwrap_or(1).unsigned_abs().max(1);
                let length = from.zip(to).map_or(0, |(from, to)| from.abs_diff(to) / step);
                length.saturating_mul(ELEMENT_BYTES)
            }
        };
        (0..first.len()).map(of_row).fold(0, u64::saturating_add)
    }
}

fn count(number: Option<i64>) -> u64 {
    number.map_or(0, |number| u64::try_from(number).unwrap_or(0))
}

fn whole_numbers(argument: &ArrayRef) -> Option<ArrayRef> {
    if argument.data_type().is_integer() { cast(argument, &DataType::Int64).ok() } else { None }
}

fn element_bytes(elements: &ArrayRef, row: usize) -> u64 {
    let held = elements.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(0) as u64;
    held.max(text_bytes(elements, row)).max(ELEMENT_BYTES)
}

fn text_bytes(text: &ArrayRef, row: usize) -> u64 {
    if text.is_null(row) {
        return 0;
    }
    let length = match text.data_type() {
        DataType::Utf8 => text.as_string::<i32>().value_length(row) as usize,
        DataType::LargeUtf8 => text.as_string::<i64>().value_length(row) as usize,
        DataType::Utf8View => text.as_string_view().value(row).len(),
        _ => 0,
    };
    length as u64
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    function: Arc<ScalarUDF>,
    bound: Bound,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        self.bound.check(self.name(), &arrays)?;
        self.function.invoke_with_args(args)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn results_are_reckoned_before_they_are_made() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, Some("é")]));
        let numbers = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
        let times = numbers(vec![10, 10, -1]);
        assert_eq!(Growth::Repeated.bytes(&[Arc::clone(&text), Arc::clone(&times)]), 30);
        let lists = Growth::Counted(0).bytes(&[Arc::new(StringArray::from(vec!["x".repeat(1000)])), numbers(vec![1_000_000])]);
        assert!(1_000_000_000 <= lists, "{lists}");
        assert_eq!(Growth::Padded.bytes(&[text, Arc::clone(&times)]), 80);
        assert_eq!(Growth::Range.bytes(&[numbers(vec![0, 5, -5]), numbers(vec![10, 5, 5]), numbers(vec![1, 1, 2])]), 8 * (10 + 5));
        assert_eq!(Growth::Range.bytes(&[numbers(vec![i64::MAX])]), u64::MAX);
        assert_eq!(Growth::Repeated.bytes(&[]), 0);
    }
}
