//! What there is, for people and for who looks it up: SHOW, EXPLAIN, the directory.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidegate_operators::analysis::{Function, functions};
use tidegate_plan::explain::explain;
use tidegate_plan::{Relation, RelationKind};
use tidegate_types::error::{Error, Result, did_you_mean};

use super::statements::{follower_name, shown_name};
use super::{Coordinator, Kept};
use crate::interface::{DetectionInfo, RelationInfo, Response};

impl Coordinator {
    pub(super) fn explain(&self, name: &str) -> Result<String> {
        let node = match (self.kept.get(name), self.followers.get(&follower_name(name))) {
            (Some(kept), _) => Arc::clone(&kept.node),
            (None, Some(follow)) => Arc::clone(&follow.node),
            (None, None) => self.followed(name, &self.catalog)?,
        };
        let text = explain(&node, &self.catalog);
        let growing = tidegate_plan::explain::unbounded(&node);
        Ok(match growing.is_empty() {
            true => text,
            false => format!("{text}warning: state without a bound: {}\n", growing.join(", ")),
        })
    }

    pub(super) fn show(&self, what: &str) -> Result<Response> {
        let kinds: &[&str] = match what.trim() {
            "functions" => return Ok(shown_functions()),
            "sources" => &["source"],
            "tables" => &["table"],
            "views" => &["view", "materialized view", "detection"],
            "materialized views" => &["materialized view"],
            "detections" => &["detection"],
            "sinks" => &["sink"],
            "actions" => &["action"],
            "relations" | "all" => &["source", "late rows", "table", "view", "materialized view", "detection", "system relation"],
            other => {
                let known =
                    ["sources", "tables", "views", "materialized views", "detections", "sinks", "actions", "relations", "functions"];
                let error = Error::user(format!("SHOW {} is not known", other.to_uppercase()));
                return Err(match did_you_mean(other, known) {
                    Some(close) => error.hint(format!("did you mean SHOW {}?", close.to_uppercase())),
                    None => error.hint(format!("there are {}", known.map(|name| format!("SHOW {}", name.to_uppercase())).join(", "))),
                });
            }
        };
        let relations = self.catalog.relations.values().map(|relation| (relation.name.clone(), relation.kind_name()));
        let followers = self.followers.iter().map(|(name, follow)| (shown_name(name).to_string(), follow.kind));
        let shown: Vec<(String, &str)> = relations.chain(followers).filter(|(_, kind)| kinds.contains(kind)).collect();
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false), Field::new("kind", DataType::Utf8, false)]));
        let names = StringArray::from_iter_values(shown.iter().map(|(name, _)| name));
        let kinds = StringArray::from_iter_values(shown.iter().map(|(_, kind)| kind));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(names), Arc::new(kinds)]).expect("the schema above");
        Ok(Response::rows(None, schema, vec![rows]))
    }

    pub(super) fn is_detection(&self, name: &str) -> bool {
        matches!(self.catalog.get(name).map(|relation| &relation.kind), Some(RelationKind::Kept { detection: true, .. }))
    }

    /// Its rows are there: kept, or the engine's own state.
    pub(super) fn is_kept(&self, relation: &Relation) -> bool {
        matches!(relation.kind, RelationKind::Kept { .. } | RelationKind::Table { .. } | RelationKind::Late | RelationKind::System)
    }

    /// Kept, or a plain view over what is.
    fn is_readable(&self, relation: &Relation) -> bool {
        match &relation.kind {
            RelationKind::View { reads, .. } => reads.iter().all(|name| self.catalog.get(name).is_some_and(|read| self.is_readable(read))),
            _ => self.is_kept(relation),
        }
    }

    pub(super) fn relations(&self) -> Vec<RelationInfo> {
        let info = |relation: &Relation| RelationInfo {
            name: relation.name.clone(),
            kind: relation.kind_name(),
            schema: Arc::clone(&relation.schema),
            readable: self.is_readable(relation),
            query: match &relation.kind {
                RelationKind::View { query, .. } => Some(Arc::clone(query)),
                _ => None,
            },
            size: self.catalog.view_size(&relation.name),
            definition: self.definitions.get(&relation.name).map(|definition| Arc::from(&definition.text[..])),
        };
        self.catalog.relations.values().map(info).collect()
    }

    pub(super) fn detections(&self) -> Vec<DetectionInfo> {
        let detections = self.kept.iter().filter(|(name, _)| self.is_detection(name));
        let option = |kept: &Kept, name: &str| kept.options.get(name).cloned().unwrap_or_default();
        detections
            .map(|(name, kept)| DetectionInfo { name: name.clone(), entity: option(kept, "entity"), severity: option(kept, "severity") })
            .collect()
    }
}

/// The functions over relations, and how they are called.
fn shown_functions() -> Response {
    let column = |of: fn(&Function) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(functions().map(of))) };
    let columns = [
        ("name", column(|function| function.name.to_string())),
        ("usage", column(Function::usage)),
        ("about", column(|function| function.about.to_string())),
    ];
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    Response::rows(None, rows.schema(), vec![rows])
}

pub fn lines<'a>(column: &str, lines: impl Iterator<Item = &'a str>) -> Response {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8, false)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(lines.collect::<Vec<_>>()))]);
    Response::rows(None, schema, vec![rows.expect("the schema above")])
}
