//! DataFusion's errors as ours: the thing as the user wrote it, with a way out where one is known.

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError, TableReference};
use tidegate_types::error::{Error, Mistake, did_you_mean};

use crate::statement::TYPES;

/// The way out where a relation is not there yet.
pub const CREATE_IT: &str = "create it first: files of a pack run in the order of their names";

/// What DataFusion said. `names`: the relations there are, of which one may have been meant; `otherwise`: the hint
/// where none was.
pub fn planning_error_among<'a>(error: &DataFusionError, names: impl Iterator<Item = &'a str>, otherwise: &str) -> Error {
    let error = planning_error(error);
    if error.mistake != Some(Mistake::NoRelation) || error.hint.is_some() {
        return error;
    }
    let name = between(&error.message, "\"", "\"").unwrap_or_default().to_string();
    match did_you_mean(&name, names) {
        Some(close) => error.hint(format!("did you mean \"{close}\"?")),
        None => error.hint(otherwise),
    }
}

/// What DataFusion said, as one of our errors.
pub fn planning_error(error: &DataFusionError) -> Error {
    let root = error.find_root();
    if let DataFusionError::External(cause) = root
        && let Some(ours) = cause.downcast_ref::<Error>()
    {
        return ours.clone();
    }
    let error = match root {
        DataFusionError::SchemaError(error, _) => names(error),
        DataFusionError::ArrowError(error, _) => value_error(error),
        root => said(&root.strip_backtrace()),
    };
    match (error.mistake, root) {
        (None, DataFusionError::NotImplemented(_)) => error.mistake(Mistake::Unsupported),
        // No disk is read and nobody else is asked: what functions pass on is said of the values they were given.
        (None, DataFusionError::Execution(_) | DataFusionError::External(_)) => error.mistake(Mistake::BadValue),
        _ => error,
    }
}

/// What Arrow said of a value.
pub fn value_error(error: &ArrowError) -> Error {
    let (text, mistake) = match error {
        ArrowError::DivideByZero => ("divide by zero error", Mistake::DivisionByZero),
        ArrowError::ArithmeticOverflow(text) => (&text[..], Mistake::OutOfRange),
        ArrowError::CastError(text) => (&text[..], cast_mistake(text)),
        ArrowError::ParseError(text) if text.contains("type interval") => {
            return Error::user(plain(text)).hint("name the units: INTERVAL '90 minutes'").mistake(Mistake::BadTime);
        }
        ArrowError::ParseError(text) => (&text[..], time_mistake(between(text, "from '", "'").unwrap_or_default())),
        ArrowError::InvalidArgumentError(text) if text.contains(" to store in a Decimal") => (&text[..], Mistake::OutOfRange),
        other => return Error::user(plain(&other.to_string())).mistake(Mistake::BadValue),
    };
    Error::user(plain(text)).mistake(mistake)
}

/// `Cannot cast string 'x' to value of Int32 type`
fn cast_mistake(text: &str) -> Mistake {
    let Some((value, target)) = text.strip_prefix("Cannot cast ").and_then(|text| text.split_once("' to value of ")) else {
        return Mistake::OutOfRange;
    };
    let value = value.split_once('\'').map_or(value, |(_, value)| value);
    match target {
        target if target.starts_with("Date") || target.starts_with("Time") => time_mistake(value),
        target if !target.starts_with("Boolean") && value.parse::<f64>().is_ok_and(|number| number.fract() == 0.0) => Mistake::OutOfRange,
        _ => Mistake::BadText,
    }
}

/// Of one that is written as times are.
fn time_mistake(text: &str) -> Mistake {
    let is_written_so = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || " -:.+TZ".contains(c));
    if is_written_so { Mistake::NoSuchTime } else { Mistake::BadTime }
}

fn names(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => no_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => Error::user(format!("column \"{}\" is ambiguous", field.name))
            .hint("write it with its relation's name")
            .mistake(Mistake::AmbiguousColumn),
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            Error::user(format!("column \"{name}\" of \"{}\" is there twice", qualifier.table()))
                .hint("name each relation in FROM otherwise, with AS")
                .mistake(Mistake::DuplicateAlias)
        }
        SchemaError::DuplicateUnqualifiedField { name } => two_columns(name),
    }
}

fn no_column(field: &Column, valid_fields: &[Column]) -> Error {
    if let Some(relation) = table(field).filter(|relation| !valid_fields.iter().any(|known| table(known) == Some(*relation))) {
        return Error::user(format!("no relation \"{relation}\" can be named here"))
            .hint("a query names what is in its own FROM, and a subquery also what is in the FROM around it")
            .mistake(Mistake::NoRelation);
    }
    let missing = match table(field) {
        Some(relation) => format!("column \"{}\" does not exist in \"{relation}\"", field.name),
        None => format!("column \"{}\" does not exist", field.name),
    };
    let missing = Error::user(missing).mistake(Mistake::NoColumn);
    if let Some(elsewhere) = valid_fields.iter().filter(|known| known.name == field.name).find_map(table) {
        return missing.hint(format!("did you mean \"{}\" of \"{elsewhere}\"?", field.name));
    }
    let of_it = |known: &&Column| table(field).is_none() || table(known) == table(field);
    let names: Vec<&str> = valid_fields.iter().filter(of_it).map(Column::name).collect();
    match did_you_mean(&field.name, names.iter().copied()) {
        Some(close) => missing.hint(format!("did you mean \"{close}\"?")),
        None if names.is_empty() => missing,
        None => missing.hint(format!("there are {}", names.join(", "))),
    }
}

fn table(column: &Column) -> Option<&str> {
    column.relation.as_ref().map(TableReference::table)
}

fn two_columns(name: &str) -> Error {
    let error = Error::user(format!("two columns are named \"{name}\"")).hint("name one of them otherwise, with AS");
    error.mistake(Mistake::DuplicateColumn)
}

fn said(text: &str) -> Error {
    const KNOWN: [fn(&str) -> Option<Error>; 13] =
        [relation, function, arguments, operand, operands, no_common_type, condition, count, grouping, frame, constant, construct, pattern];
    KNOWN.iter().find_map(|known| known(text)).unwrap_or_else(|| Error::user(plain(text)))
}

/// Without what is for DataFusion's developers.
fn plain(text: &str) -> String {
    const PREFIXES: [&str; 7] = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
        "Internal error: ",
        "Execution error: ",
        "Arrow error: ",
        "External error: ",
    ];
    let text = PREFIXES.iter().fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    let text = text.split("\nThis issue was likely caused by a bug").next().unwrap_or_default();
    let tree = if text.contains("Span(") { text.find(['{', '(']) } else { None };
    let mut text = text[..tree.unwrap_or(text.len())].trim().to_string();
    if text.get(1..2).is_some_and(|second| second.chars().all(char::is_lowercase)) {
        let first = text[..1].to_lowercase();
        text.replace_range(..1, &first);
    }
    text
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(between, _)| between)
}

/// `table 'x' not found`, with either `t`.
fn relation(text: &str) -> Option<Error> {
    if let Some(name) = between(text, "table function '", "' not found") {
        let error = Error::user(format!("function {name}() does not exist in FROM")).mistake(Mistake::NoFunction);
        return Some(error.hint("TUMBLE, HOP, UNNEST and what SHOW FUNCTIONS lists can be there"));
    }
    let name = between(text, "able '", "' not found")?;
    let name = match name.splitn(3, '.').collect::<Vec<_>>()[..] {
        [_, "public", name] => name.to_string(),
        [_, schema, name] => format!("{schema}.{name}"),
        _ => name.to_string(),
    };
    Some(Error::user(format!("relation \"{name}\" does not exist")).mistake(Mistake::NoRelation))
}

fn function(text: &str) -> Option<Error> {
    let name = between(text, "Invalid function '", "'")?;
    if name == "watermark" {
        return Some(watermark_outside());
    }
    let close = between(text, "Did you mean '", "'").and_then(|close| did_you_mean(name, [close]));
    let hint = match (instead(name), close) {
        (Some(way_out), _) => way_out.to_string(),
        (None, Some(close)) => format!("did you mean {close}()?"),
        (None, None) => "functions are DataFusion's; over relations, what SHOW FUNCTIONS lists".into(),
    };
    Some(Error::user(format!("function {name}() does not exist")).hint(hint).mistake(Mistake::NoFunction))
}

/// Only a running view has one.
pub(super) fn watermark_outside() -> Error {
    Error::unsupported("watermark() outside of a materialized view", "write (SELECT watermark FROM sys.sources WHERE name = 's')")
}

/// Of functions that Postgres has.
fn instead(name: &str) -> Option<&'static str> {
    Some(match name {
        "sign" => "write signum(x)",
        "div" => "divide integers, or write trunc(a / b)",
        "every" => "write bool_and(x)",
        "variance" => "write var_samp(x)",
        "mode" => "count in a view: GROUP BY x ORDER BY count(*) DESC LIMIT 1",
        "format" => "join texts: a || '-' || b, or concat(a, '-', b)",
        "to_number" => "cast it: s::DECIMAL(10, 2)",
        "isfinite" => "leave it out: every time is finite",
        "clock_timestamp" | "statement_timestamp" | "transaction_timestamp" => "write now(), the time of the tick",
        "make_interval" => "multiply: n * INTERVAL '1 day'",
        "regexp_matches" | "regexp_split_to_table" => "write regexp_match(s, pattern), or UNNEST(string_to_array(s, ','))",
        "json_build_object" | "jsonb_build_object" | "to_json" | "to_jsonb" | "row_to_json" | "json_agg" | "jsonb_agg" => {
            "there is no JSON within SQL: select columns, which a sink or POST /v1/query writes as JSON"
        }
        "percentile_cont" | "percentile_disc" => "write approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY x), or median(x)",
        "setseed" | "nextval" | "currval" => "take the value from the input",
        _ => return None,
    })
}

/// So many of a function's signatures are shown.
const SIGNATURES_MAX: usize = 6;

fn arguments(text: &str) -> Option<Error> {
    let call = between(text, "No function matches the given name and argument types '", "'. ")?;
    let (_, candidates) = text.split_once("Candidate functions:").unwrap_or_default();
    let candidates = candidates.lines().map(|line| line.trim().replace("NullAry()", ""));
    let candidates: Vec<String> = candidates.filter(|line| !line.is_empty() && !line.contains("UserDefined")).collect();
    let more = if SIGNATURES_MAX < candidates.len() { ", …" } else { "" };
    let hint = match &candidates[..candidates.len().min(SIGNATURES_MAX)] {
        [] => "give it other arguments, or cast them".to_string(),
        [one] => format!("there is {one}"),
        several => format!("there are {}{more}", several.join(", ")),
    };
    Some(Error::user(format!("function {call} does not exist")).hint(hint).mistake(Mistake::NoFunction))
}

fn operand(text: &str) -> Option<Error> {
    let (operator, rest) = text.split_once("Unary operator '").and_then(|(_, rest)| rest.split_once("' "))?;
    let taken = match rest.split_once("got ") {
        Some((_, found)) => format!("a BOOLEAN, not {found}"),
        None => "signed numbers, intervals and timestamps".into(),
    };
    Some(Error::user(format!("operator \"{operator}\" takes {taken}")).hint("cast it").mistake(Mistake::NoFunction))
}

/// `Timestamp(ms) + Int64`
fn operands(text: &str) -> Option<Error> {
    let expression = between(text, "Cannot coerce arithmetic expression ", " to valid types").or_else(|| {
        let asked = ["Cannot infer common argument type for ", "annot infer common string type for "];
        let rest = asked.iter().find_map(|asked| text.split_once(asked)).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_once(" operation ")).map(|(_, expression)| expression)
    });
    let expression = expression.or_else(|| between(text, "annot get result type for temporal operation ", ": "))?;
    let is_operator = |word: &&str| matches!(*word, "AND" | "OR") || !word.contains(|c: char| c.is_alphanumeric() || "(),\"".contains(c));
    let operator = expression.split(' ').find(is_operator)?;
    let (left, right) = expression.split_once(&format!(" {operator} "))?;
    let error = Error::user(format!("operator \"{operator}\" does not take {left} and {right}"));
    let hint = match operator {
        "*" | "/" if expression.contains("Interval(") => "an interval is multiplied and divided by numbers; cast the other to one",
        _ => "cast one of them; to a time add an INTERVAL",
    };
    Some(error.hint(hint).mistake(Mistake::NoFunction))
}

fn no_common_type(text: &str) -> Option<Error> {
    let pair = |before: &str, middle: &str, after: &str| between(text, before, after).and_then(|pair| pair.split_once(middle));
    let message = if let Some((left, right)) = pair("There isn't a common type to coerce ", " and ", " in LIKE expression") {
        format!("LIKE does not take {left} and {right}")
    } else if let Some((left, right)) = pair("find compatible types to compare ", " with [", "]") {
        format!("IN does not compare {left} with {right}")
    } else if let Some((left, right)) = pair("Failed to coerce types ", " and ", " in BETWEEN expression") {
        format!("BETWEEN does not compare {left} with {right}")
    } else if let Some((left, right)) = pair("Failed to coerce then (", ") and else (", ") to common types") {
        format!("CASE cannot give both {left} and {right}")
    } else if let Some((left, right)) = pair("Previous inputs were of type ", ", but got incompatible type ", " on column") {
        format!("UNION does not take {left} and {right} as one column")
    } else if text.contains("UNION queries have different number of columns") {
        "the sides of UNION have different numbers of columns".into()
    } else {
        return None;
    };
    let hint = if message.ends_with("columns") { "select as many columns on each side" } else { "cast one of them to the other's type" };
    Some(Error::user(message).hint(hint).mistake(Mistake::WrongType))
}

fn condition(text: &str) -> Option<Error> {
    if let Some((condition, rest)) = text.split_once("non-boolean predicate '").and_then(|(_, rest)| rest.split_once("' returning ")) {
        let error = Error::user(format!("WHERE and HAVING take a BOOLEAN, and {condition} is {rest}"));
        return Some(error.hint("compare it with something").mistake(Mistake::WrongType));
    }
    let columns = text.split_once("The subquery should only return one column: ").map(|(_, columns)| columns)?;
    let error = Error::user(format!("a subquery has several columns where one is wanted: {columns}"));
    Some(error.hint("select one of them; to compare several, use EXISTS").mistake(Mistake::Syntax))
}

/// Of LIMIT or OFFSET.
fn count(text: &str) -> Option<Error> {
    if let Some((before, found)) = text.split_once(" to be an integer or null, but got ") {
        let word = if before.ends_with("OFFSET") { "OFFSET" } else { "LIMIT" };
        return Some(
            Error::user(format!("{word} takes a number of rows, not {found}")).hint("write a whole number").mistake(Mistake::WrongType),
        );
    }
    match between(text, "LIMIT must be >= 0, '", "'") {
        Some(found) => Some(below_zero("LIMIT", found)),
        None => between(text, "OFFSET must be >=0, '", "'").map(|found| below_zero("OFFSET", found)),
    }
}

/// `word`: LIMIT or OFFSET.
pub(super) fn below_zero(word: &str, found: &str) -> Error {
    let error = Error::user(format!("{word} takes a number of rows from 0 on, not {found}"));
    match word {
        "LIMIT" => error.hint("leave it out for all rows").mistake(Mistake::BadLimit),
        _ => error.hint("leave it out to begin with the first row").mistake(Mistake::BadOffset),
    }
}

fn grouping(text: &str) -> Option<Error> {
    if text.contains("Aggregate functions are not allowed in the WHERE clause") {
        return Some(Error::user("WHERE takes no aggregate").hint("write the condition as HAVING").mistake(Mistake::Grouping));
    }
    let ungrouped = |what: String| {
        let error = Error::user(format!("{what} must be in GROUP BY or in an aggregate"));
        Some(error.hint("add it to GROUP BY, or take its min, max or first_value").mistake(Mistake::Grouping))
    };
    if let Some(column) = between(text, "While expanding wildcard, column \"", "\" must appear in the GROUP BY") {
        return ungrouped(format!("column \"{}\"", column.rsplit('.').next().unwrap_or(column)));
    }
    if let Some(bounds) = text.split_once("rder by column out of bounds, specified: ").map(|(_, bounds)| bounds) {
        return Some(no_such_place("ORDER BY", bounds.split_once(',').map_or(bounds, |(place, _)| place)));
    }
    if let Some(place) = between(text, "annot find column with position ", " in SELECT clause") {
        return Some(no_such_place("GROUP BY", place));
    }
    if text.contains("ORDER BY expressions must appear in argument list") {
        let error = Error::user("an aggregate with DISTINCT takes an ORDER BY of its arguments only");
        return Some(error.hint("order by what is aggregated, or leave DISTINCT out").mistake(Mistake::BadOrder));
    }
    between(text, "HAVING clause references: ", " must appear in the GROUP BY").and_then(|expr| ungrouped(format!("{expr} in HAVING")))
}

/// `clause`: what names a column by its place in the SELECT list.
fn no_such_place(clause: &str, place: &str) -> Error {
    let error = Error::user(format!("{clause} {place} names no column: there are fewer in the SELECT list"));
    error.hint("places count from 1; or write the column's name").mistake(Mistake::BadOrder)
}

/// Of OVER.
fn frame(text: &str) -> Option<Error> {
    const ORDERED: &str = "begin the frame before it ends, as in ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING";
    const KNOWN: [(&str, &str); 5] = [
        ("cannot be larger than end bound", ORDERED),
        ("bound cannot be UNBOUNDED", ORDERED),
        ("frame offsets for ROWS / GROUPS", "write a whole number, as in ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"),
        ("RANGE requires exactly one", "order by one column, or count rows: ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"),
        ("GROUPS requires an ORDER BY", "write OVER (ORDER BY … GROUPS …)"),
    ];
    let (_, hint) = KNOWN.iter().find(|(said, _)| text.contains(said))?;
    Some(Error::user(plain(text)).hint(*hint).mistake(Mistake::Syntax))
}

/// Of a function with OVER.
fn constant(text: &str) -> Option<Error> {
    let is_asked = text.contains("only support Literal types") || text.contains("integer literal for the second argument");
    is_asked.then(|| Error::unsupported("OVER a function whose count is no constant", "write the number itself, as in lag(x, 2)"))
}

fn construct(text: &str) -> Option<Error> {
    if let Some((_, name)) = text.split_once("Unsupported SQL type ") {
        return Some(Error::unsupported(format!("type \"{name}\""), TYPES));
    }
    if let Some(name) = between(text, "require unique expression names but the expression \"", "\" at position") {
        let name = name.rsplit(" AS ").next().unwrap_or(name);
        let is_column = !name.contains('(');
        return Some(two_columns(name.rsplit('.').next().filter(|_| is_column).unwrap_or(name)));
    }
    if let Some(name) = between(text, "Placeholder '", "' was not provided a value") {
        return Some(no_value(name));
    }
    let (_, expression) = text.split_once("Physical plan does not support logical expression ")?;
    Some(match expression.starts_with("WindowFunction") {
        true => Error::unsupported("a window function in WHERE or HAVING", "make it a column of a query in FROM, and filter that"),
        false => {
            let way_out = "write the subquery as a join, or as a materialized view by what it is compared with";
            Error::unsupported("a subquery here", way_out)
        }
    })
}

/// Of a parameter.
pub(super) fn no_value(name: &str) -> Error {
    let error = Error::user(format!("parameter \"{name}\" has no value"));
    error.hint("write the value, or prepare the query and bind it").mistake(Mistake::NoParameter)
}

/// The last line of several, of which the others draw it.
fn pattern(text: &str) -> Option<Error> {
    let (_, drawn) = text.split_once("regex parse error:")?;
    let reason = drawn.lines().find_map(|line| line.strip_prefix("error: "))?;
    Some(Error::user(format!("invalid regular expression: {reason}")).mistake(Mistake::BadPattern))
}

#[cfg(test)]
mod tests {
    use datafusion::common::plan_datafusion_err;

    use super::*;

    #[test]
    fn what_is_said_is_short_and_has_a_way_out() {
        let cases = [
            (
                "Internal error: Function 'sum' failed to match any signature. No function matches the given name and argument types \
                 'sum(Int64, Int64)'. You might need to add explicit type casts.\n\tCandidate functions:\n\tsum(Decimal)\n\tsum(Int64)",
                "function sum(Int64, Int64) does not exist\nhint: there are sum(Decimal), sum(Int64)",
            ),
            (
                "No function matches the given name and argument types 'row_number(Int64)'. You might need to add explicit type casts.\n\
                 \tCandidate functions:\n\trow_number(NullAry())",
                "function row_number(Int64) does not exist\nhint: there is row_number()",
            ),
            (
                "Order by column out of bounds, specified: 2, max: 1",
                "ORDER BY 2 names no column: there are fewer in the SELECT list\nhint: places count from 1; or write the column's name",
            ),
            ("Invalid function 'sign'.\nDid you mean 'sin'?", "function sign() does not exist\nhint: write signum(x)"),
            ("table 'datafusion.nope.t' not found", "relation \"nope.t\" does not exist"),
            ("Invalid function 'upperr'.\nDid you mean 'upper'?", "function upperr() does not exist\nhint: did you mean upper()?"),
            (
                "Cannot coerce arithmetic expression Decimal128(10, 2) + Timestamp(ms, \"UTC\") to valid types",
                "operator \"+\" does not take Decimal128(10, 2) and Timestamp(ms, \"UTC\")\n\
                 hint: cast one of them; to a time add an INTERVAL",
            ),
            (
                "Cannot get result type for temporal operation Interval(MonthDayNano) * Float64: Invalid argument error: no",
                "operator \"*\" does not take Interval(MonthDayNano) and Float64\n\
                 hint: an interval is multiplied and divided by numbers; cast the other to one",
            ),
            (
                "Cannot infer common argument type for logical boolean operation Utf8 AND Boolean",
                "operator \"AND\" does not take Utf8 and Boolean\nhint: cast one of them; to a time add an INTERVAL",
            ),
            (
                "Unsupported ast node Pivot { name: Ident { span: Span(Location(1,45)..Location(1,46)) } } in create_relation",
                "unsupported ast node Pivot",
            ),
            (
                "Projections require unique expression names but the expression \"t.id\" at position 0 and \"t.id\" at position 1 have",
                "two columns are named \"id\"\nhint: name one of them otherwise, with AS",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(planning_error(&plan_datafusion_err!("{text}")).to_string(), expected);
        }
    }

    #[test]
    fn a_value_is_wrong_in_its_own_way() {
        let cast = |text: &str| ArrowError::CastError(text.into());
        for (error, mistake) in [
            (ArrowError::DivideByZero, Mistake::DivisionByZero),
            (ArrowError::ArithmeticOverflow("Overflow happened on: 5 + 9".into()), Mistake::OutOfRange),
            (cast("Cannot cast string 'x' to value of Int32 type"), Mistake::BadText),
            (cast("Cannot cast string '1.5' to value of Int32 type"), Mistake::BadText),
            (cast("Cannot cast string '99999' to value of Int16 type"), Mistake::OutOfRange),
            (cast("Cannot cast value 'maybe' to value of Boolean type"), Mistake::BadText),
            (cast("Can't cast value 99999 to type Int16"), Mistake::OutOfRange),
            (cast("Cannot cast string 'x' to value of Date32 type"), Mistake::BadTime),
            (cast("Cannot cast string '2024-13-01' to value of Date32 type"), Mistake::NoSuchTime),
            (ArrowError::ParseError("Error parsing timestamp from '2024-13-01': error parsing date".into()), Mistake::NoSuchTime),
            (ArrowError::ParseError("Error parsing timestamp from 'x': timestamp must contain …".into()), Mistake::BadTime),
            (
                ArrowError::InvalidArgumentError("123.4 is too large to store in a Decimal128 of precision 2. Max is 9.9".into()),
                Mistake::OutOfRange,
            ),
            (ArrowError::InvalidArgumentError("no".into()), Mistake::BadValue),
        ] {
            assert_eq!(value_error(&error).mistake, Some(mistake), "{error}");
            assert_eq!(planning_error(&DataFusionError::ArrowError(Box::new(error), None)).mistake, Some(mistake));
        }
    }

    #[test]
    fn the_missing_column_itself_is_never_proposed() {
        let columns = [Column::new(Some("rv"), "kk"), Column::new(Some("o"), "k"), Column::new(Some("o"), "other")];
        for (relation, name, expected) in [
            ("rv", "k", "column \"k\" does not exist in \"rv\"\nhint: did you mean \"k\" of \"o\"?"),
            ("rv", "kkk", "column \"kkk\" does not exist in \"rv\"\nhint: did you mean \"kk\"?"),
            ("rv", "othr", "column \"othr\" does not exist in \"rv\"\nhint: there are kk"),
        ] {
            assert_eq!(no_column(&Column::new(Some(relation), name), &columns).to_string(), expected);
        }
    }

    #[test]
    fn a_relation_that_is_not_there_may_be_another() {
        let missing = plan_datafusion_err!("table 'datafusion.public.scan' not found");
        let error = planning_error_among(&missing, ["scans", "plain"].into_iter(), CREATE_IT);
        assert_eq!(error.to_string(), "relation \"scan\" does not exist\nhint: did you mean \"scans\"?");
        assert_eq!(error.mistake, Some(Mistake::NoRelation));
    }
}
