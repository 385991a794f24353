//! The engine's relations as DataFusion's: known by name and schema while a query is planned, with the rows of one
//! tick once it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{exec_err, plan_err};
use datafusion::datasource::{MemTable, TableType, provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use tidegate_runtime::{Engine, RelationInfo, view_over};
use tidegate_types::error::{Error, Result};

/// The prefix of the engine's own relations, and their schema.
pub(super) const SYSTEM: &str = "sys";

/// The relations and the engine's statements a plan reads.
pub(super) fn unfrozen(plan: &LogicalPlan) -> DfResult<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut names, mut statements) = (BTreeSet::new(), BTreeSet::new());
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(unfrozen) = provider.downcast_ref::<Unfrozen>()
        {
            let set = if unfrozen.is_statement { &mut statements } else { &mut names };
            set.insert(unfrozen.text.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((names, statements))
}

/// The node with its rows, where it is a scan without.
pub(super) fn fill(node: LogicalPlan, rows: &BTreeMap<String, Vec<RecordBatch>>) -> DfResult<Transformed<LogicalPlan>> {
    let scan = match node {
        LogicalPlan::TableScan(scan) => scan,
        other => return Ok(Transformed::no(other)),
    };
    let provider = source_as_provider(&scan.source)?;
    let Some(unfrozen) = provider.downcast_ref::<Unfrozen>() else {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    };
    let Some(batches) = rows.get(&unfrozen.text.to_lowercase()).or_else(|| rows.get(&unfrozen.text)) else {
        return plan_err!("relation \"{}\" cannot be read any more", unfrozen.text);
    };
    let table = MemTable::try_new(unfrozen.schema.clone(), vec![unfrozen.checked(batches)?])?;
    Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source: provider_as_source(Arc::new(table)), ..scan })))
}

/// A relation, or a statement of the engine's, whose rows are not taken yet.
#[derive(Debug)]
pub(super) struct Unfrozen {
    /// The relation's name, or the statement.
    pub text: String,
    pub is_statement: bool,
    pub schema: SchemaRef,
    pub kind: TableType,
}

impl Unfrozen {
    /// The rows under the schema that was planned with.
    fn checked(&self, batches: &[RecordBatch]) -> DfResult<Vec<RecordBatch>> {
        let under = |batch: &RecordBatch| RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec());
        let checked: Result<_, _> = batches.iter().map(under).collect();
        checked.or_else(|_| plan_err!("\"{}\" has changed since the query was prepared; prepare it again", self.text))
    }
}

#[async_trait::async_trait]
impl TableProvider for Unfrozen {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.kind
    }

    async fn scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> DfResult<Arc<dyn ExecutionPlan>> {
        exec_err!("\"{}\" was not frozen", self.text)
    }
}

/// The engine's relations as they are now, under `public` or under `sys`.
pub(super) struct Relations {
    pub engine: Engine,
    pub is_system: bool,
}

impl Relations {
    /// The name within this schema, where the relation belongs to it.
    fn local<'a>(&self, name: &'a str) -> Option<&'a str> {
        match (name.split_once('.'), self.is_system) {
            (Some((schema, local)), true) if schema == SYSTEM => Some(local),
            (None, false) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Debug for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relations").field("is_system", &self.is_system).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl SchemaProvider for Relations {
    fn table_names(&self) -> Vec<String> {
        let all = self.engine.relations();
        all.iter().filter(|relation| relation.readable).filter_map(|relation| self.local(&relation.name)).map(String::from).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let all = self.engine.relations();
        let Some(relation) = all.iter().find(|relation| self.local(&relation.name) == Some(name)) else { return Ok(None) };
        if !relation.readable {
            let error = Error::user(format!("{} \"{name}\" cannot be read: its rows are not kept", relation.kind));
            let error = error.hint("create a materialized view over it, and select from that");
            return Err(DataFusionError::External(Box::new(error)));
        }
        match &relation.query {
            Some(query) => view_over(query, |name| unfrozen_relation(&all, name)).map(Some),
            None => unfrozen_relation(&all, &relation.name).map(Some),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.engine.relations().iter().any(|relation| relation.readable && self.local(&relation.name) == Some(name))
    }
}

fn unfrozen_relation(all: &[RelationInfo], name: &str) -> DfResult<Arc<dyn TableProvider>> {
    let Some(relation) = all.iter().find(|relation| relation.name == name) else {
        return plan_err!("table '{name}' not found");
    };
    let kind = if relation.kind == "table" { TableType::Base } else { TableType::View };
    let (text, schema) = (relation.name.clone(), relation.schema.clone());
    Ok(Arc::new(Unfrozen { text, is_statement: false, schema, kind }))
}
