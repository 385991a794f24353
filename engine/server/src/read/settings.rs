//! What drivers and Grafana ask about the server they take us for.

use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Ident, Statement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// `current_setting(name [, missing_ok])`, which Grafana and drivers ask.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CurrentSetting {
    signature: Signature,
}

impl CurrentSetting {
    pub(super) fn new() -> Self {
        let one = TypeSignature::Exact(vec![DataType::Utf8]);
        let two = TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]);
        Self { signature: Signature::one_of(vec![one, two], Volatility::Stable) }
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(ColumnarValue::Scalar(name)) = args.args.first() else {
            return exec_err!("current_setting takes a constant name");
        };
        let is_missing_ok = matches!(args.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        let value = match name.try_as_str().flatten() {
            None => None,
            Some(name) => match setting(&name.to_lowercase()) {
                Some(value) => Some(value.to_string()),
                None if is_missing_ok => None,
                None => return exec_err!("unrecognized configuration parameter \"{name}\""),
            },
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
    }
}

/// SHOW of what no client can set, as the query that answers it.
pub(super) fn fixed_setting(statement: &Statement) -> Option<Statement> {
    const SET_BY_CLIENTS: [&str; 6] =
        ["application_name", "bytea_output", "datestyle", "extra_float_digits", "intervalstyle", "search_path"];
    let Statement::ShowVariable { variable } = statement else { return None };
    let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    let name = match words.join(" ").as_str() {
        "timezone" => return Some(Statement::ShowVariable { variable: vec![Ident::new("time"), Ident::new("zone")] }),
        "transaction isolation level" => "transaction_isolation".to_string(),
        name => name.to_string(),
    };
    let is_fixed = !SET_BY_CLIENTS.contains(&&name[..]) && setting(&name).is_some();
    let query = is_fixed.then(|| format!("SELECT current_setting('{name}') AS {name}"))?;
    Parser::parse_sql(&PostgreSqlDialect {}, &query).ok()?.pop()
}

/// What we say we are, which decides what drivers dare to ask.
fn setting(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_version" => "16.6",
        "server_version_num" => "160006",
        "server_encoding" | "client_encoding" => "UTF8",
        "search_path" => "\"$user\", public",
        "timezone" => "UTC",
        "datestyle" => "ISO, MDY",
        "intervalstyle" => "postgres",
        "integer_datetimes" | "standard_conforming_strings" => "on",
        "jit" | "row_security" => "off",
        "lc_collate" | "lc_ctype" => "C",
        "bytea_output" => "hex",
        "transaction_read_only" | "default_transaction_read_only" => "on",
        "transaction_isolation" | "default_transaction_isolation" => "repeatable read",
        "is_superuser" => "off",
        "max_identifier_length" => "63",
        "application_name" => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_client_sets_is_shown_as_it_is_set() {
        let shown = |sql: &str| fixed_setting(&Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap()[0]).map(|query| query.to_string());
        assert_eq!(shown("SHOW Server_Version").unwrap(), "SELECT current_setting('server_version') AS server_version");
        assert_eq!(
            shown("SHOW transaction isolation level").unwrap(),
            "SELECT current_setting('transaction_isolation') AS transaction_isolation"
        );
        assert_eq!(shown("SHOW TimeZone").unwrap(), "SHOW time zone");
        assert_eq!(
            [shown("SHOW statement_timeout"), shown("SHOW search_path"), shown("SHOW ALL"), shown("SELECT 1")],
            [None, None, None, None]
        );
    }
}
