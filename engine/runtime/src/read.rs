//! Reading: several relations at one closed tick, and DataFusion over them.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result as DataFusionResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{MemTable, TableProvider, TableType};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use tidegate_plan::sql::{planning_error, state_builder};
use tidegate_types::Delta;
use tidegate_types::error::{Error, Result};

use crate::engine::{Engine, Response};

/// Each row as often as it is there. A negative count is a wrong answer somewhere, and is said so.
pub fn copies(name: &str, schema: &SchemaRef, parts: &[Delta]) -> Result<RecordBatch> {
    let mut batches = Vec::with_capacity(parts.len());
    for part in parts {
        if let Some(row) = part.diffs.iter().position(|diff| *diff < 0) {
            return Err(Error::engine(format!("relation \"{name}\" has a row {} times", part.diffs[row])));
        }
        match part.diffs.iter().all(|diff| *diff == 1) {
            true => batches.push(part.rows.clone()),
            false => {
                let indices = part.diffs.iter().enumerate().flat_map(|(i, diff)| std::iter::repeat_n(i as u32, *diff as usize));
                let taken = take_record_batch(&part.rows, &UInt32Array::from_iter_values(indices));
                batches.push(taken.map_err(|error| Error::engine(error.to_string()))?);
            }
        }
    }
    concat_batches(schema, &batches).map_err(|error| Error::engine(error.to_string()))
}

/// A query over readable relations, all at one tick.
pub async fn query(engine: &Engine, query: &ast::Query) -> Result<Response> {
    let context = SessionContext::new_with_state(state_builder().build());
    let statement = DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query.clone()))));
    let references = context.state().resolve_table_references(&statement).map_err(|error| planning_error(&error))?;
    let known = engine.relations();
    let mut names = Vec::new();
    for reference in references {
        let name = match reference.schema() {
            Some("public") | None => reference.table().to_string(),
            Some(schema) => format!("{schema}.{}", reference.table()),
        };
        if known.iter().any(|relation| relation.name == name) {
            names.push(name);
        }
    }
    let snapshot = engine.snapshot(&names).await?;
    let catalog = context.catalog("datafusion").expect("the default catalog");
    let system = Arc::new(datafusion::catalog::MemorySchemaProvider::new());
    catalog.register_schema("sys", system).map_err(|error| planning_error(&error))?;
    for (name, rows) in snapshot.relations {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(|error| planning_error(&error))?;
        context.register_table(name.as_str(), Arc::new(table)).map_err(|error| planning_error(&error))?;
    }
    let missing = |error: DataFusionError| planning_error(&error);
    let plan = context.state().statement_to_plan(statement).await.map_err(missing)?;
    let frame = context.execute_logical_plan(plan).await.map_err(missing)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(missing)?;
    Ok(Response::Rows { tick: Some(snapshot.tick), batches, schema })
}

/// A relation for any DataFusion context: each scan reads the engine at the latest closed tick.
#[derive(Debug)]
pub struct EngineTable {
    pub engine: Engine,
    pub name: String,
    pub schema: SchemaRef,
}

#[async_trait]
impl TableProvider for EngineTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let snapshot = self.engine.snapshot(std::slice::from_ref(&self.name)).await;
        let mut snapshot = snapshot.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let rows = snapshot.relations.remove(&self.name).expect("what was asked for");
        let source = MemorySourceConfig::try_new_exec(&[vec![rows]], Arc::clone(&self.schema), projection.cloned())?;
        Ok(source)
    }
}
