//! What types and intervals in a declaration mean.

use std::sync::Arc;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, Expr};

pub(crate) const TYPES: &str = "types are TEXT, BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), DATE, TIMESTAMP and T[]";

/// TIMESTAMP is in milliseconds, as ticks and watermarks are.
pub(crate) fn arrow_type(data_type: &ast::DataType) -> Option<DataType> {
    use ast::DataType as Sql;
    Some(match data_type {
        // A length would have to be kept.
        Sql::Text | Sql::Varchar(None) | Sql::CharVarying(None) | Sql::CharacterVarying(None) | Sql::String(None) => DataType::Utf8,
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float(_) | Sql::Float64 => DataType::Float64,
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => match info {
            // Of any scale, which no fixed type is.
            ast::ExactNumberInfo::None => return None,
            ast::ExactNumberInfo::Precision(digits) => decimal(*digits, 0)?,
            ast::ExactNumberInfo::PrecisionAndScale(digits, behind) => decimal(*digits, *behind)?,
        },
        Sql::Date => DataType::Date32,
        Sql::Timestamp(_, _) | Sql::Datetime(_) => DataType::Timestamp(TimeUnit::Millisecond, None),
        Sql::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _) | ast::ArrayElemTypeDef::AngleBracket(inner)) => {
            DataType::List(Arc::new(Field::new("item", arrow_type(inner)?, true)))
        }
        _ => return None,
    })
}

/// Of so many digits, and so many of them behind the point.
fn decimal(digits: u64, behind: i64) -> Option<DataType> {
    let precision = u8::try_from(digits).ok().filter(|digits| (1..=38).contains(digits))?;
    let scale = i8::try_from(behind).ok().filter(|behind| (0..=precision as i8).contains(behind))?;
    Some(DataType::Decimal128(precision, scale))
}

/// What to write in the place of a type that is not one of ours.
pub(crate) fn type_instead(data_type: &ast::DataType) -> &'static str {
    use ast::{DataType as Sql, ExactNumberInfo};
    match data_type {
        Sql::Decimal(ExactNumberInfo::None) | Sql::Numeric(ExactNumberInfo::None) | Sql::Dec(ExactNumberInfo::None) => {
            "say how many digits it has, and how many of them behind the point: DECIMAL(38, 9)"
        }
        Sql::Decimal(_) | Sql::Numeric(_) | Sql::Dec(_) => {
            "a DECIMAL has 1 to 38 digits, and 0 to all of them behind the point: DECIMAL(38, 9)"
        }
        Sql::Varchar(_) | Sql::CharVarying(_) | Sql::CharacterVarying(_) | Sql::Char(_) | Sql::Character(_) => {
            "write TEXT, which has no length"
        }
        Sql::Uuid => "write TEXT",
        _ => TYPES,
    }
}

/// Milliseconds of a literal interval without months.
pub(super) fn interval_ms(interval: &ast::Interval) -> Option<i64> {
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let mut text = match &value.value {
        ast::Value::SingleQuotedString(text) => text.clone(),
        ast::Value::Number(text, _) => text.clone(),
        _ => return None,
    };
    if let Some(unit) = &interval.leading_field {
        text = format!("{text} {unit}");
    }
    let parsed = parse_interval_month_day_nano(&text).ok()?;
    (parsed.months == 0).then(|| i64::from(parsed.days) * 86_400_000 + parsed.nanoseconds / 1_000_000)
}
