//! DataFusion's errors as ours: the thing as the user wrote it, with a way out where one is known.

use datafusion::common::{Column, DataFusionError, SchemaError};
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
    match root {
        DataFusionError::SchemaError(error, _) => names(error),
        root => said(&root.strip_backtrace()),
    }
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
    let names: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
    let mut relations = valid_fields.iter().filter_map(|field| field.relation.as_ref());
    if let Some(relation) = field.relation.as_ref().filter(|relation| !relations.any(|known| known.table() == relation.table())) {
        return Error::user(format!("no relation \"{}\" can be named here", relation.table()))
            .hint("a query names what is in its own FROM, and a subquery also what is in the FROM around it")
            .mistake(Mistake::NoRelation);
    }
    let missing = match &field.relation {
        Some(relation) => format!("column \"{}\" does not exist in \"{}\"", field.name, relation.table()),
        None => format!("column \"{}\" does not exist", field.name),
    };
    let missing = Error::user(missing).mistake(Mistake::NoColumn);
    match did_you_mean(&field.name, names.iter().copied()) {
        Some(close) => missing.hint(format!("did you mean \"{close}\"?")),
        None if names.is_empty() => missing,
        None => missing.hint(format!("there are {}", names.join(", "))),
    }
}

fn two_columns(name: &str) -> Error {
    let error = Error::user(format!("two columns are named \"{name}\"")).hint("name one of them otherwise, with AS");
    error.mistake(Mistake::DuplicateColumn)
}

fn said(text: &str) -> Error {
    const KNOWN: [fn(&str) -> Option<Error>; 9] =
        [relation, function, arguments, operand, operands, no_common_type, condition, grouping, construct];
    KNOWN.iter().find_map(|known| known(text)).unwrap_or_else(|| Error::user(plain(text)))
}

/// Without what is for DataFusion's developers.
fn plain(text: &str) -> String {
    const PREFIXES: [&str; 6] = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
        "Internal error: ",
        "Execution error: ",
        "Arrow error: ",
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
    let name = name.rsplit('.').next().unwrap_or(name);
    Some(Error::user(format!("relation \"{name}\" does not exist")).mistake(Mistake::NoRelation))
}

fn function(text: &str) -> Option<Error> {
    let name = between(text, "Invalid function '", "'")?;
    let close = between(text, "Did you mean '", "'").and_then(|close| did_you_mean(name, [close]));
    let hint = match close {
        Some(close) => format!("did you mean {close}()?"),
        None => "functions are DataFusion's; over relations, what SHOW FUNCTIONS lists".into(),
    };
    Some(Error::user(format!("function {name}() does not exist")).hint(hint).mistake(Mistake::NoFunction))
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
        let (_, rest) = text.split_once("Cannot infer common argument type for ")?;
        rest.split_once(" operation ").map(|(_, expression)| expression)
    })?;
    let is_operator = |word: &&str| matches!(*word, "AND" | "OR") || !word.contains(|c: char| c.is_alphanumeric() || "(),\"".contains(c));
    let operator = expression.split(' ').find(is_operator)?;
    let (left, right) = expression.split_once(&format!(" {operator} "))?;
    let error = Error::user(format!("operator \"{operator}\" does not take {left} and {right}"));
    Some(error.hint("cast one of them; to a time add an INTERVAL").mistake(Mistake::NoFunction))
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
    if let Some(found) = text.split_once("Expected LIMIT to be an integer or null, but got ").map(|(_, found)| found) {
        return Some(
            Error::user(format!("LIMIT takes a number of rows, not {found}")).hint("write a whole number").mistake(Mistake::WrongType),
        );
    }
    if let Some(found) = between(text, "LIMIT must be >= 0, '", "'") {
        return Some(Error::user(format!("LIMIT takes a number of rows from 0 on, not {found}")).hint("leave it out for all rows"));
    }
    let columns = text.split_once("The subquery should only return one column: ").map(|(_, columns)| columns)?;
    let error = Error::user(format!("a subquery has several columns where one is wanted: {columns}"));
    Some(error.hint("select one of them; to compare several, use EXISTS").mistake(Mistake::Syntax))
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
    between(text, "HAVING clause references: ", " must appear in the GROUP BY").and_then(|expr| ungrouped(format!("{expr} in HAVING")))
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
        return Some(Error::user(format!("parameter \"{name}\" has no value")).hint("write the value, or prepare the query and bind it"));
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
            ("Invalid function 'upperr'.\nDid you mean 'upper'?", "function upperr() does not exist\nhint: did you mean upper()?"),
            (
                "Cannot coerce arithmetic expression Decimal128(10, 2) + Timestamp(ms, \"UTC\") to valid types",
                "operator \"+\" does not take Decimal128(10, 2) and Timestamp(ms, \"UTC\")\n\
                 hint: cast one of them; to a time add an INTERVAL",
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
    fn a_relation_that_is_not_there_may_be_another() {
        let missing = plan_datafusion_err!("table 'datafusion.public.scan' not found");
        let error = planning_error_among(&missing, ["scans", "plain"].into_iter(), CREATE_IT);
        assert_eq!(error.to_string(), "relation \"scan\" does not exist\nhint: did you mean \"scans\"?");
        assert_eq!(error.mistake, Some(Mistake::NoRelation));
    }
}
