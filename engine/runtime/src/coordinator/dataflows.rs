//! Dataflows: made on all workers, each with what its sources brought before it was there.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::temporal_conversions::timestamp_ms_to_datetime;
use tidegate_plan::node::Facts;
use tidegate_plan::{Node, NodeRef, Op, intakes, past};
use tidegate_types::Delta;
use tidegate_types::error::{Error, Result};
use tidegate_types::expr::RowProgram;

use super::Coordinator;
use super::statements::shown_name;
use crate::interface::Durability;
use crate::worker::{Command, DataflowSpec};

impl Coordinator {
    /// Builds a dataflow on all workers, and gives it what its sources brought before it was there.
    pub(super) fn start_dataflow(&mut self, name: &str, node: &NodeRef, export: bool, capture: bool) -> Result<()> {
        if let Some(stopped) = self.stopped_input(node, &BTreeSet::new()) {
            let runs = self.check_runs(&stopped);
            return if self.replaying { self.begin_stopped(name, &stopped) } else { runs };
        }
        self.is_stopped_no_more(name);
        if !self.replaying && !self.is_reliving() {
            let lacking = self.lacking(shown_name(name), node);
            let lacking = lacking.inspect_err(|_| self.is_history_unread = true)?;
            self.notice(lacking);
        }
        if self.put_in_place(name) {
            return Ok(());
        }
        let sources = self.create_dataflow(name, node, export, capture, false)?;
        if self.is_restoring {
            return Ok(());
        }
        let filled = sources.iter().try_for_each(|source| self.backfill(source, name));
        if filled.is_err() {
            self.is_history_unread = true;
            self.workers.broadcast(&Command::Drop { name: name.to_string() });
            self.born.remove(name);
        }
        filled
    }

    /// What is no longer there of the past that a view which is made now reads, for people.
    pub(super) fn lacking(&self, view: &str, node: &Node) -> Result<Vec<String>> {
        let next = self.last_closed + 1;
        let Some(begins) = self.log.as_ref().map_or(Ok(None), |log| log.shelf().begins(next))? else { return Ok(Vec::new()) };
        let since = timestamp_ms_to_datetime(begins as i64).map_or_else(|| begins.to_string(), |time| format!("{time} UTC"));
        let lacks = |source: &String| {
            let is_older = self.sources.get(source).is_some_and(|state| state.created < begins && state.counts.received() != 0);
            is_older && self.horizon(&past(node, source, &self.catalog)).is_none_or(|horizon| horizon < begins as i64)
        };
        let sources = node.relations().into_iter().filter(lacks);
        Ok(sources
            .map(|source| {
                format!("\"{view}\" is made of what source \"{source}\" brought since {since}: what came before is no longer there")
            })
            .collect())
    }

    /// Builds a dataflow on all workers. Returns the sources that it reads.
    pub(super) fn create_dataflow(
        &mut self,
        name: &str,
        node: &NodeRef,
        export: bool,
        capture: bool,
        is_beside: bool,
    ) -> Result<Vec<String>> {
        let relations = node.relations();
        let (sources, imports): (Vec<String>, Vec<String>) =
            relations.into_iter().partition(|relation| self.sources.contains_key(relation));
        let read = sources.iter().find(|source| self.sources[*source].counts.received() != 0);
        if let Some(source) = read.filter(|_| !self.replaying && !self.keeps_history()) {
            return Err(Error::user(format!("source \"{source}\" was already read, and this run keeps no history"))
                .hint("create all views before the run, or run without --once and with --data-dir"));
        }
        let inputs = sources.iter().map(|source| (source.clone(), Arc::clone(&self.sources[source].spec.schema))).collect();
        let born = self.opened();
        self.born.insert(name.to_string(), born);
        let restored = (self.is_restoring && export && self.has_source(node)).then_some(born);
        let counted = if self.is_restoring { counted_inputs(node, &sources) } else { Vec::new() };
        let (name, node) = (name.to_string(), Arc::clone(node));
        let spec = DataflowSpec { name, node, inputs, imports, export, capture, restored, counted, born, is_beside };
        self.workers.broadcast(&Command::Create(Arc::new(spec)));
        Ok(sources)
    }

    /// Whether a view that is created later gets what its sources brought before.
    pub(super) fn keeps_history(&self) -> bool {
        match &self.config.durability {
            Durability::Off => false,
            Durability::Temporary => !self.config.once,
            Durability::Folder { .. } | Durability::Past { .. } => true,
        }
    }

    /// Gives a dataflow what `source` brought before it was there.
    pub(super) fn backfill(&mut self, source: &str, reader: &str) -> Result<()> {
        let state = &self.sources[source];
        if state.counts.received() == 0 {
            return Ok(());
        }
        let Some(log) = &self.log else { return Ok(()) };
        let upto = if self.replaying { self.replayed } else { log.flushed()? };
        let (generation, shelf) = (state.generation, log.shelf());
        shelf.history(&[source], 0..upto, |_, arrived| {
            if arrived.source == source && arrived.generation == generation && arrived.on_time.num_rows() != 0 {
                self.distribute(source, Some(reader), Delta::insertions(arrived.on_time));
                self.workers.wait_for_room();
            }
            Ok(())
        })
    }

    /// Rows pushed in by name, kept as they are: tables and late rows.
    pub(super) fn start_kept_input(&mut self, name: &str, schema: &SchemaRef) {
        let node = Node::new(Op::Scan { relation: name.to_string() }, Arc::clone(schema), Facts::default());
        let spec = DataflowSpec {
            name: name.to_string(),
            node,
            inputs: vec![(name.to_string(), Arc::clone(schema))],
            imports: Vec::new(),
            export: true,
            capture: false,
            restored: None,
            counted: Vec::new(),
            born: 0,
            is_beside: false,
        };
        self.workers.broadcast(&Command::Create(Arc::new(spec)));
    }

    /// Which columns of a source any view reads.
    pub(super) fn columns_wanted(&self, source: &str) -> Vec<bool> {
        let state = &self.sources[source];
        let mut wanted = vec![false; state.spec.schema.fields().len()];
        if let Some(rule) = state.rule {
            wanted[rule.column] = true;
        }
        let nodes = self.kept.values().map(|kept| &kept.node).chain(self.followers.values().map(|follow| &follow.node));
        nodes.for_each(|node| mark_wanted(node, source, &mut wanted));
        wanted
    }
}

/// The programs that a restart may give what they gave before, and the inputs it comes by.
fn counted_inputs(node: &NodeRef, sources: &[String]) -> Vec<(String, NodeRef)> {
    let of_source = |source: &String| {
        let programs = intakes(node, source).into_iter().enumerate();
        programs.filter_map(|(nth, program)| Some((counted_name(source, nth), program?))).collect::<Vec<_>>()
    };
    sources.iter().flat_map(of_source).collect()
}

/// The input for what a program over a source gave before.
pub(super) fn counted_name(source: &str, nth: usize) -> String {
    format!("-> counted {nth} {source}")
}

fn mark_wanted(node: &Node, source: &str, wanted: &mut [bool]) {
    let is_source = |node: &Node| matches!(&node.op, Op::Scan { relation } if relation == source);
    if is_source(node) {
        wanted.fill(true);
    }
    for node in node.all() {
        match &node.op {
            Op::Program { input, program: RowProgram { project: Some(project), predicate, .. } } if is_source(input) => {
                let columns = project.iter().chain(predicate).flat_map(datafusion::physical_expr::utils::collect_columns);
                columns.for_each(|column| wanted[column.index()] = true);
            }
            _ if node.inputs().into_iter().any(|input| is_source(input)) => wanted.fill(true),
            _ => {}
        }
    }
}
