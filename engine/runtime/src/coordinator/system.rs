//! `sys.*`: the engine's own state, readable like a view.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidegate_plan::explain::unbounded;
use tidegate_plan::{Relation, RelationKind};

use super::statements::shown_name;
use super::{Coordinator, Follow, SourceStatus};
use crate::actions::ActionLog;

const SOURCES: &str = "sys.sources";
const VIEWS: &str = "sys.views";
const SINKS: &str = "sys.sinks";
const ERRORS: &str = "sys.errors";
const DEAD_LETTER: &str = "sys.dead_letter";
const ACTIONS: &str = "sys.actions";

fn schema(name: &str) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true);
    Arc::new(Schema::new(match name {
        SOURCES => vec![
            text("name"),
            text("connector"),
            text("status"),
            number("received"),
            number("committed"),
            number("late"),
            number("dead_lettered"),
            number("repeated"),
            number("rejected"),
            time("watermark"),
        ],
        VIEWS => vec![
            text("name"),
            text("kind"),
            text("status"),
            text("definition"),
            text("unbounded_state"),
            number("state_bytes"),
            number("errors"),
            number("created_tick"),
        ],
        SINKS => vec![text("name"), text("follows"), text("status"), number("waiting_bytes"), number("delivered_tick")],
        ERRORS => vec![text("view"), text("operator"), text("reason"), number("count")],
        DEAD_LETTER => vec![number("tick"), text("source"), text("position"), text("reason"), text("raw")],
        _ => return ActionLog::schema(),
    }))
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from(values.collect::<Vec<_>>()))
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values.collect::<Vec<_>>()))
}

impl Coordinator {
    pub(super) fn declare_system(&mut self) {
        for name in [SOURCES, VIEWS, SINKS, ERRORS, DEAD_LETTER, ACTIONS] {
            self.catalog.insert(Relation { name: name.into(), kind: RelationKind::System, schema: schema(name) });
        }
    }

    pub(super) fn system_rows(&self, name: &str) -> RecordBatch {
        let columns = match name {
            SOURCES => self.source_rows(),
            VIEWS => self.view_rows(),
            SINKS => self.sink_rows(),
            ERRORS => self.error_rows(),
            DEAD_LETTER => self.dead_letter_rows(),
            _ => return self.action_log.rows(),
        };
        RecordBatch::try_new(schema(name), columns).expect("the schema above")
    }

    fn source_rows(&self) -> Vec<ArrayRef> {
        let status = |status: &SourceStatus| match status {
            SourceStatus::Created => "created".to_string(),
            SourceStatus::Running => "running".to_string(),
            SourceStatus::Ended => "ended".to_string(),
            SourceStatus::Failed(reason) => format!("failed: {reason}"),
        };
        let statuses: Vec<String> = self.sources.values().map(|state| status(&state.status)).collect();
        let watermarks = self.sources.values().map(|state| self.watermarks[state.index].filter(|_| state.rule.is_some()));
        vec![
            text(self.sources.keys().map(String::as_str)),
            text(self.sources.values().map(|state| state.spec.options.get("connector").map_or("", String::as_str))),
            text(statuses.iter().map(String::as_str)),
            numbers(self.sources.values().map(|state| state.counts.received() as i64)),
            numbers(self.sources.values().map(|state| state.counts.committed as i64)),
            numbers(self.sources.values().map(|state| state.counts.late as i64)),
            numbers(self.sources.values().map(|state| state.counts.dead as i64)),
            numbers(self.sources.values().map(|state| state.counts.repeated as i64)),
            numbers(self.sources.values().map(|state| state.counts.rejected as i64)),
            Arc::new(TimestampMillisecondArray::from_iter(watermarks)),
        ]
    }

    fn view_rows(&self) -> Vec<ArrayRef> {
        let kinds = self.kept.keys().map(|name| self.catalog.get(name).map_or("", |relation| relation.kind_name()));
        let growing: Vec<String> = self.kept.values().map(|kept| unbounded(&kept.node).join(", ")).collect();
        let status = |name: &String| self.stopped.get(name).map_or("running".to_string(), |reason| format!("stopped: {reason}"));
        let statuses: Vec<String> = self.kept.keys().map(status).collect();
        let bytes = self.kept.keys().map(|name| self.metrics.view_state_bytes.with_label_values(&[name]).get());
        let errors = |name: &String| self.errors.get(name).map_or(0, |rows| rows.values().sum());
        vec![
            text(self.kept.keys().map(String::as_str)),
            text(kinds),
            text(statuses.iter().map(String::as_str)),
            text(self.kept.values().map(|kept| kept.query.as_str())),
            text(growing.iter().map(String::as_str)),
            numbers(bytes),
            numbers(self.kept.keys().map(errors)),
            numbers(self.kept.values().map(|kept| kept.created as i64)),
        ]
    }

    fn sink_rows(&self) -> Vec<ArrayRef> {
        let sinks = || self.followers.iter().filter(|(_, follow)| follow.kind == "sink");
        let status = |name: &String, follow: &Follow| match (self.stopped.get(name), follow.queue.failed()) {
            (Some(reason), _) => format!("stopped: {reason}"),
            (None, Some(reason)) => format!("failed: {reason}"),
            (None, None) => "running".to_string(),
        };
        let statuses: Vec<String> = sinks().map(|(name, follow)| status(name, follow)).collect();
        vec![
            text(sinks().map(|(name, _)| shown_name(name))),
            text(sinks().map(|(_, follow)| follow.from.as_str())),
            text(statuses.iter().map(String::as_str)),
            numbers(sinks().map(|(_, follow)| follow.queue.waiting_bytes() as i64)),
            numbers(sinks().map(|(_, follow)| follow.queue.delivered() as i64)),
        ]
    }

    fn error_rows(&self) -> Vec<ArrayRef> {
        let rows = || self.errors.iter().flat_map(|(view, rows)| rows.iter().map(move |(row, count)| (view, row, *count)));
        vec![
            text(rows().map(|(view, _, _)| view.as_str())),
            text(rows().map(|(_, row, _)| row.operator)),
            text(rows().map(|(_, row, _)| row.reason.as_str())),
            numbers(rows().map(|(_, _, count)| count)),
        ]
    }

    fn dead_letter_rows(&self) -> Vec<ArrayRef> {
        let raw: Vec<String> = self.dead_letters.iter().map(|(_, _, letter)| String::from_utf8_lossy(&letter.raw).into_owned()).collect();
        vec![
            numbers(self.dead_letters.iter().map(|(tick, _, _)| *tick as i64)),
            text(self.dead_letters.iter().map(|(_, source, _)| source.as_str())),
            text(self.dead_letters.iter().map(|(_, _, letter)| letter.position.as_str())),
            text(self.dead_letters.iter().map(|(_, _, letter)| letter.reason.as_str())),
            text(raw.iter().map(String::as_str)),
        ]
    }
}
