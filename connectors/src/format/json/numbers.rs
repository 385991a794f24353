//! Whether arrow-json reads numbers as they are written.
//!
//! Of a DECIMAL it counts digits in 8 bits and exponents in 16, and multiplies without looking: a long number
//! is read as another one, or divides by zero. Of an integer it cuts off the fraction. What is checked here
//! first stays far from that. A float that is too large it takes for an infinite one: these are told from
//! those that a word names.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::datatypes::{DataType, SchemaRef};
use memchr::{memchr2_iter, memchr3_iter};
use serde_json::value::RawValue;

/// Whole numbers below it are floats, each its own.
const EXACT_MAX: f64 = (1u64 << 53) as f64;

/// Digits that 128 bits hold.
const DIGITS_MAX: usize = 38;

/// The columns to look at, by name.
pub(super) struct Numbers {
    decimals: Vec<String>,
    integers: Vec<String>,
    floats: Vec<String>,
}

impl Numbers {
    pub(super) fn of(schema: &SchemaRef) -> Self {
        let named = |is: fn(&DataType) -> bool| {
            schema.fields().iter().filter(|field| is(field.data_type())).map(|field| field.name().clone()).collect()
        };
        Self {
            decimals: named(|kind| matches!(kind, DataType::Decimal128(..) | DataType::Decimal256(..))),
            integers: named(DataType::is_integer),
            floats: named(DataType::is_floating),
        }
    }

    /// How many columns a word makes infinite, such as "Infinity" or "-inf".
    pub(super) fn infinite_words(&self, line: &[u8]) -> usize {
        let names_one = memchr2_iter(b'f', b'F', line).any(|at| 2 <= at && line[at - 2..at].eq_ignore_ascii_case(b"in"));
        if self.floats.is_empty() || !names_one {
            return 0;
        }
        let values: HashMap<Cow<str>, &RawValue> = serde_json::from_slice(line).unwrap_or_default();
        let is_word = |number: &str| !number.bytes().any(|byte| byte.is_ascii_digit());
        spelled(&self.floats, &values).filter(|(_, number)| is_word(number) && number.parse().is_ok_and(f64::is_infinite)).count()
    }

    /// Errors: a number that is not read as it is written, or a line that only arrow-json takes for JSON.
    pub(super) fn check(&self, line: &[u8]) -> Result<(), String> {
        if self.decimals.is_empty() && (self.integers.is_empty() || !may_have_fraction(line)) {
            return Ok(());
        }
        let values: HashMap<Cow<str>, &RawValue> = serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
        for (column, number) in spelled(&self.decimals, &values) {
            if !is_readable(&number) {
                return Err(format!("column \"{column}\": \"{number}\" is no number of up to {DIGITS_MAX} digits"));
            }
        }
        for (column, number) in spelled(&self.integers, &values) {
            match float(&number) {
                Some(_) if has_remainder(&number) => return Err(format!("column \"{column}\": {number} is no whole number")),
                Some(float) if EXACT_MAX <= float.abs() => {
                    return Err(format!(
                        "column \"{column}\": {number} is more than a float holds exactly: write it without point and exponent"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The columns that hold a number, or a text, and how it is spelled. What is NULL, and what is neither, arrow-json knows.
fn spelled<'a>(columns: &'a [String], values: &'a HashMap<Cow<str>, &RawValue>) -> impl Iterator<Item = (&'a str, String)> {
    columns.iter().filter_map(|column| {
        let value = values.get(column.as_str())?.get();
        let number = match value.as_bytes() {
            [b'"', ..] => serde_json::from_str(value).unwrap_or_default(),
            [b'-' | b'0'..=b'9', ..] => value.to_string(),
            _ => return None,
        };
        Some((column.as_str(), number))
    })
}

/// Whether a point or an exponent stands beside a digit.
fn may_have_fraction(line: &[u8]) -> bool {
    let is_digit = |at: Option<usize>| at.and_then(|at| line.get(at)).is_some_and(u8::is_ascii_digit);
    memchr3_iter(b'.', b'e', b'E', line).any(|at| is_digit(at.checked_sub(1)) || is_digit(Some(at + 1)))
}

/// What arrow-json makes of an integer that is written with a point or an exponent, first.
fn float(number: &str) -> Option<f64> {
    if number.contains(['.', 'e', 'E']) { number.parse().ok() } else { None }
}

/// Whether it is a number with something behind its point. What is no number is for arrow-json to refuse.
fn has_remainder(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches(['-', '+']);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(places) = exponent.parse::<i64>() else { return false };
    let digits = whole.bytes().chain(fraction.bytes());
    let behind = (whole.len() as i64).saturating_add(places).max(0);
    digits.clone().all(|digit| digit.is_ascii_digit()) && digits.skip(behind as usize).any(|digit| digit != b'0')
}

/// Whether it is a number, and all its digits and places fit.
fn is_readable(number: &str) -> bool {
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return false;
    }
    let whole = whole.trim_start_matches('0').len();
    let Some(exponent) = exponent else { return whole <= DIGITS_MAX };
    let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let places = Some(digits).filter(|digits| !digits.is_empty() && is_digits(digits)).and_then(|digits| digits.parse::<usize>().ok());
    whole + fraction.len() <= DIGITS_MAX && places.is_some_and(|places| places.saturating_add(fraction.len()) <= DIGITS_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::compute::kernels::cast_utils::parse_decimal;
    use arrow::datatypes::{Decimal128Type, Field, Schema};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn only_numbers_and_what_is_none_pass() {
        let field = Field::new("d", DataType::Decimal128(10, 2), true);
        let numbers = Numbers::of(&Arc::new(Schema::new(vec![field])));
        for line in [r#"{"d":1.5}"#, r#"{"d":"1.5"}"#, r#"{"d":null}"#, r#"{"d":true}"#, r#"{"x":"e5"}"#, "{}"] {
            assert_eq!(numbers.check(line.as_bytes()), Ok(()), "{line}");
        }
        // The last of a key that is there twice counts.
        for line in [r#"{"d":"e5"}"#, r#"{"d":1e65537}"#, r#"{"d":""}"#, r#"{"d":1,"d":"x"}"#, r#"{"d":1,}"#] {
            assert!(numbers.check(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn an_integer_has_no_fraction() {
        let field = |name, kind| Field::new(name, kind, true);
        let numbers = Numbers::of(&Arc::new(Schema::new(vec![field("i", DataType::Int64), field("f", DataType::Float64)])));
        for value in ["1", "1.0", "-1.50e1", "1e3", "10e-1", "0e-5", "0.0", "\"2.00\"", "null", "\"e\"", "\"1.x\"", "true", "[1.5]"] {
            assert_eq!(numbers.check(format!(r#"{{"i":{value},"f":1.5}}"#).as_bytes()), Ok(()), "{value}");
        }
        for value in ["1.5", "-0.1", "1e-1", "12.345e2", "\"1.5\"", "1e-9999999999"] {
            let error = numbers.check(format!(r#"{{"i":{value}}}"#).as_bytes()).unwrap_err();
            assert!(error.contains("column \"i\"") && error.contains("no whole number"), "{value}: {error}");
        }
        for value in ["9007199254740993.0", "-9007199254740995e0", "\"9223372036854775807.0\""] {
            let error = numbers.check(format!(r#"{{"i":{value}}}"#).as_bytes()).unwrap_err();
            assert!(error.contains("without point"), "{value}: {error}");
        }
        assert_eq!(numbers.check(br#"{"i":9007199254740993,"f":0.5}"#), Ok(()));
    }

    #[test]
    fn long_numbers_are_refused() {
        for number in ["0", "-1.5", "+1.5", ".5", "5.", "1e3", "1.25E-2", "007", &"9".repeat(38), &format!("0.{}", "1".repeat(300))] {
            assert!(is_readable(number), "{number}");
        }
        for number in
            ["", "-", ".", "e5", "1e", "1e5e5", "1e+-5", "1x", "1e65537", "1e-40", &"9".repeat(39), &format!("0.{}e1", "1".repeat(300))]
        {
            assert!(!is_readable(number), "{number}");
        }
    }

    // The oracle moves the point in the text: what is left before it and `SCALE` places behind it counts.
    #[test]
    fn what_is_readable_is_read_as_written() {
        const SCALE: usize = 2;
        let mut read = 0;
        for seed in 0..50_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let digits =
                |rng: &mut StdRng, most| (0..rng.random_range(0..=most)).map(|_| char::from(b'0' + rng.random_range(0..10))).collect();
            let (whole, fraction): (String, String) = (digits(&mut rng, 12), digits(&mut rng, 12));
            let exponent: i32 = rng.random_range(-20..20);
            let number = format!("{whole}.{fraction}e{exponent}");
            let Some(value) =
                Some(&number).filter(|number| is_readable(number)).and_then(|number| parse_decimal::<Decimal128Type>(number, 38, 2).ok())
            else {
                continue;
            };
            let padded = format!("{}{whole}{fraction}{}", "0".repeat(40), "0".repeat(40));
            let point = (40 + whole.len() as i32 + exponent) as usize;
            let expected: i128 = padded[point.saturating_sub(36)..point + SCALE].parse().unwrap();
            assert_eq!(value, expected, "seed {seed}: {number}");
            read += 1;
        }
        assert!(20_000 < read, "{read}");
    }
}
