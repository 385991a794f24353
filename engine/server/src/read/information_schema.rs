//! `information_schema`, with columns counted and types named as in Postgres.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, Volatility, cast, create_udf, lit};

#[derive(Debug)]
pub(super) struct InformationSchema(InformationSchemaProvider);

impl InformationSchema {
    pub(super) fn new(catalogs: Arc<dyn CatalogProviderList>) -> Self {
        Self(InformationSchemaProvider::new(catalogs))
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        match self.0.table(name).await? {
            Some(columns) if name == "columns" => Ok(Some(Arc::new(ViewTable::new(as_in_postgres(columns)?, None)))),
            other => Ok(other),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}

fn as_in_postgres(columns: Arc<dyn TableProvider>) -> DfResult<LogicalPlan> {
    let scan = LogicalPlanBuilder::scan("columns", provider_as_source(columns), None)?;
    let type_name = type_name();
    let exprs = scan.schema().columns().into_iter().map(|column| match column.name() {
        "ordinal_position" => (cast(Expr::Column(column), DataType::Int32) + lit(1_i32)).alias("ordinal_position"),
        "data_type" => type_name.call(vec![Expr::Column(column)]).alias("data_type"),
        _ => Expr::Column(column),
    });
    let exprs: Vec<Expr> = exprs.collect();
    scan.project(exprs)?.build()
}

fn type_name() -> ScalarUDF {
    let named = |args: &[ColumnarValue]| {
        let types = ColumnarValue::values_to_arrays(args)?;
        let names = types[0].as_string::<i32>().iter().map(|arrow| arrow.map(in_postgres));
        Ok(ColumnarValue::Array(Arc::new(names.collect::<StringArray>())))
    };
    create_udf("type_name", vec![DataType::Utf8], DataType::Utf8, Volatility::Immutable, Arc::new(named))
}

/// Postgres's name of a type that Arrow names so.
fn in_postgres(arrow: &str) -> &str {
    let (kind, parameters) = arrow.split_once('(').unwrap_or((arrow, ""));
    match kind {
        "Boolean" => "boolean",
        "Int8" | "Int16" | "UInt8" => "smallint",
        "Int32" | "UInt16" => "integer",
        "Int64" | "UInt32" => "bigint",
        "UInt64" | "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "numeric",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" | "LargeBinary" | "BinaryView" | "FixedSizeBinary" => "bytea",
        "Date32" | "Date64" => "date",
        "Time32" | "Time64" => "time without time zone",
        "Timestamp" if parameters.contains('"') => "timestamp with time zone",
        "Timestamp" => "timestamp without time zone",
        "Interval" | "Duration" => "interval",
        "List" | "LargeList" | "FixedSizeList" => "ARRAY",
        "Struct" | "Map" => "json",
        _ => arrow,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn types_are_named_as_in_postgres() {
        for (data_type, name) in [
            (DataType::Int32, "integer"),
            (DataType::Decimal128(10, 2), "numeric"),
            (DataType::Timestamp(TimeUnit::Millisecond, None), "timestamp without time zone"),
            (DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), "timestamp with time zone"),
            (DataType::new_list(DataType::Utf8, true), "ARRAY"),
            (DataType::Null, "Null"),
        ] {
            assert_eq!(in_postgres(&data_type.to_string()), name, "{data_type}");
        }
    }
}
