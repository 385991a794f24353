//! Is it DuckDB's result? Counts and sums over each column, in words that both
//! engines understand. A multiset of rows that agrees in all of them and is
//! not the same would have to be wrong with care.

use serde_json::{Map, Value};

use super::Checked;
use super::queries::Query;

/// Sums of floating point depend on the order of addition.
const RELATIVE_ERROR_MAX: f64 = 1e-9;

/// `n` counts rows; `n0`, `n1`, … count values of each column, `s0`, `s1`, … sum them up.
pub fn sql(columns: &[(String, String)]) -> String {
    let terms = columns.iter().enumerate().map(|(i, (name, data_type))| {
        let sum = match data_type {
            text if text.contains("Utf8") => format!("sum(length(\"{name}\"))"),
            time if time.starts_with("Timestamp") || time.starts_with("Date") => format!("sum(extract(epoch FROM \"{name}\"))"),
            truth if truth == "Boolean" => format!("sum(CASE WHEN \"{name}\" THEN 1 ELSE 0 END)"),
            _ => format!("sum(CAST(\"{name}\" AS DOUBLE PRECISION))"),
        };
        format!(", count(\"{name}\") AS n{i}, {sum} AS s{i}")
    });
    format!("SELECT count(*) AS n{} FROM answer", terms.collect::<String>())
}

/// Where `ours` is not `theirs`, in words.
pub fn differences(query: &Query, ours: &Checked, theirs: &Map<String, Value>) -> Vec<String> {
    let rows = std::iter::once(("n".to_string(), "rows".to_string()));
    let columns = ours.columns.iter().enumerate().flat_map(|(i, (name, _))| {
        let sum = (!query.decided_by_ties.contains(&name.as_str())).then(|| (format!("s{i}"), format!("sum of {name}")));
        std::iter::once((format!("n{i}"), format!("values of {name}"))).chain(sum)
    });
    let differing = rows.chain(columns).filter_map(|(key, words)| {
        let (ours, theirs) = (number(&ours.values, &key), number(theirs, &key));
        (!is_equal(ours, theirs)).then(|| format!("{words}: {ours}, and {theirs} in DuckDB"))
    });
    differing.collect()
}

/// A sum over nothing is NULL: 0, as the count beside it says.
fn number(values: &Map<String, Value>, key: &str) -> f64 {
    values.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

fn is_equal(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() <= RELATIVE_ERROR_MAX * ours.abs().max(theirs.abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::nexmark::queries;

    #[test]
    fn columns_are_compared_unless_ties_decide_them() {
        let columns = vec![("auction".to_string(), "Int64".to_string()), ("url".to_string(), "Utf8".to_string())];
        assert_eq!(
            sql(&columns),
            "SELECT count(*) AS n, count(\"auction\") AS n0, sum(CAST(\"auction\" AS DOUBLE PRECISION)) AS s0, \
             count(\"url\") AS n1, sum(length(\"url\")) AS s1 FROM answer"
        );
        let map = |value: Value| value.as_object().cloned().unwrap();
        let ours = Checked { columns, values: map(json!({"n": 2, "n0": 2, "s0": 3.0, "n1": 1, "s1": 9})) };
        let find = |name: &str| queries::named(&[name.to_string()]).unwrap()[0];
        let theirs = map(json!({"n": 2, "n0": 2, "s0": 3.0000000001, "n1": 1, "s1": 8}));
        assert_eq!(differences(find("q0"), &ours, &theirs), ["sum of url: 9, and 8 in DuckDB"]);
        assert!(differences(find("q18"), &ours, &theirs).is_empty());
        assert_eq!(differences(find("q18"), &ours, &map(json!({"n": 3, "n0": 2, "s0": 3, "n1": 1}))).len(), 1);
    }
}
