//! What names mean while planning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;

use crate::node::{ColumnBound, Facts};
use crate::size::Size;

/// All relations, by lower-case name.
#[derive(Clone, Default)]
pub struct Catalog {
    pub relations: BTreeMap<String, Relation>,
}

#[derive(Clone)]
pub struct Relation {
    pub name: String,
    pub kind: RelationKind,
    pub schema: SchemaRef,
}

#[derive(Clone)]
pub enum RelationKind {
    Source(SourceInfo),
    /// Rows that came after their source's watermark.
    Late,
    Table {
        key: Vec<usize>,
    },
    /// A name for a query, and the relations it names.
    View {
        query: Arc<LogicalPlan>,
        reads: BTreeSet<String>,
        size: Size,
    },
    /// Kept: a materialized view or a detection.
    Kept {
        facts: Facts,
        detection: bool,
    },
    /// The engine's own state; readable, not to be built upon.
    System,
}

#[derive(Clone)]
pub struct SourceInfo {
    /// Its index among watermarks.
    pub index: usize,
    pub watermark: Option<WatermarkRule>,
}

/// The watermark is the largest `column` seen, less `lateness_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkRule {
    pub column: usize,
    pub lateness_ms: i64,
}

impl Relation {
    pub fn facts(&self) -> Facts {
        match &self.kind {
            RelationKind::Source(info) => Facts {
                append_only: true,
                bounds: info
                    .watermark
                    .map(|rule| ColumnBound { column: rule.column, source: info.index, slack_ms: 0, lead_ms: Some(0) })
                    .into_iter()
                    .collect(),
                keys: Vec::new(),
            },
            RelationKind::Late => Facts { append_only: true, ..Facts::default() },
            RelationKind::Table { key } if !key.is_empty() => Facts { keys: vec![key.clone()], ..Facts::default() },
            RelationKind::Kept { facts, .. } => facts.clone(),
            _ => Facts::default(),
        }
    }

    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            RelationKind::Source(_) => "source",
            RelationKind::Late => "late rows",
            RelationKind::Table { .. } => "table",
            RelationKind::View { .. } => "view",
            RelationKind::Kept { detection: true, .. } => "detection",
            RelationKind::Kept { .. } => "materialized view",
            RelationKind::System => "system relation",
        }
    }
}

impl Catalog {
    pub fn get(&self, name: &str) -> Option<&Relation> {
        self.relations.get(&name.to_lowercase())
    }

    /// How large the plain view of this name is.
    pub fn view_size(&self, name: &str) -> Option<Size> {
        match self.get(name)?.kind {
            RelationKind::View { size, .. } => Some(size),
            _ => None,
        }
    }

    pub fn insert(&mut self, relation: Relation) {
        self.relations.insert(relation.name.to_lowercase(), relation);
    }
}
