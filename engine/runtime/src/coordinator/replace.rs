//! CREATE OR REPLACE of a view that others read: they are made again over the new definition, in the
//! same tick, and everything else runs on.
//!
//! Refused   before anything changes: all that reads the view is planned anew first, and a sink or
//!           an action cannot follow other columns than it did
//! Told      sinks and actions keep their queues, and get the difference as one tick's changes; an
//!           action does nothing about what the new definition finds in the past, and undoes what it
//!           no longer finds, but nothing where the past is no longer all there

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use tidegate_plan::statement::{self, Statement};
use tidegate_plan::{Catalog, NodeRef, Relation, RelationKind};
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};

use super::statements::{check_detection, shown_name};
use super::{Coordinator, Follow, Kept};
use crate::actions::Cause;
use crate::planning::{Planned, plan_query};
use crate::seeded::Bug;
use crate::worker::Command;

/// What a follower had before its view's new definition.
pub struct Takeover {
    old: Vec<Delta>,
    cause: Cause,
}

/// Something that reads the view, planned anew.
enum Reader {
    View(Relation),
    Kept(Relation, Planned),
    Follower(NodeRef),
}

impl Coordinator {
    /// Puts `relation` in the place of the view of its name; `planned` where its rows are kept.
    pub(super) fn take_over(&mut self, relation: Relation, planned: Option<Planned>) -> Result<()> {
        let name = relation.name.clone();
        let mut catalog = self.catalog.clone();
        catalog.insert(relation);
        let readers = self.readers_anew(&name, &mut catalog)?;
        self.check_inputs(&name, planned.as_ref(), &readers)?;
        let is_past_whole = self.is_past_whole(&name, planned.as_ref(), &readers)?;
        let mut old = self.followed_rows(&readers, Cause::Definition { is_past_whole })?;
        let not_undone = if is_past_whole || self.replaying || self.is_reliving() { Vec::new() } else { self.not_undone(&readers) };
        for (reader, _) in readers.iter().rev() {
            self.workers.broadcast(&Command::Drop { name: reader.clone() });
        }
        self.workers.broadcast(&Command::Drop { name: name.clone() });
        self.errors.remove(&name);
        self.catalog = catalog;
        if let Some(planned) = planned {
            self.keep_anew(&name, planned)?;
        }
        for (reader, anew) in readers {
            self.errors.remove(&reader);
            match anew {
                Reader::View(_) => {}
                Reader::Kept(_, planned) => self.keep_anew(&reader, planned)?,
                // Nobody knows any more what it was told.
                Reader::Follower(_) if self.stopped.contains_key(&reader) => {}
                Reader::Follower(node) => {
                    self.start_dataflow(&reader, &node, false, true)?;
                    let follow = self.followers.get_mut(&reader).expect("it was planned");
                    follow.node = node;
                    follow.takeover = old.remove(&reader);
                }
            }
        }
        self.notice(not_undone);
        Ok(())
    }

    /// Errors: something that is made anew would read what is stopped. What the log says was done is done.
    fn check_inputs(&self, name: &str, planned: Option<&Planned>, readers: &[(String, Reader)]) -> Result<()> {
        let anew: BTreeSet<&str> = readers.iter().map(|(reader, _)| reader.as_str()).chain([name]).collect();
        let nodes = readers.iter().filter_map(|(_, anew)| match anew {
            Reader::Kept(_, planned) => Some(&planned.node),
            Reader::View(_) | Reader::Follower(_) => None,
        });
        let mut inputs = nodes.chain(planned.map(|planned| &planned.node)).filter_map(|node| self.stopped_input(node, &anew));
        inputs.next().filter(|_| !self.replaying).map_or(Ok(()), |stopped| self.check_runs(&stopped))
    }

    /// Whether all is still there that what is made anew is made of.
    fn is_past_whole(&self, name: &str, planned: Option<&Planned>, readers: &[(String, Reader)]) -> Result<bool> {
        let nodes = readers.iter().filter_map(|(reader, anew)| match anew {
            Reader::View(_) => None,
            Reader::Kept(_, planned) => Some((shown_name(reader), &planned.node)),
            Reader::Follower(node) => Some((shown_name(reader), node)),
        });
        let mut nodes = nodes.chain(planned.map(|planned| (name, &planned.node)));
        nodes.try_fold(true, |is_whole, (reader, node)| Ok(is_whole && self.lacking(reader, node)?.is_empty()))
    }

    /// Which actions undo nothing, for people: what is no longer found may only lack its past.
    fn not_undone(&self, readers: &[(String, Reader)]) -> Vec<String> {
        let followers = readers.iter().filter_map(|(reader, _)| Some((shown_name(reader), self.followers.get(reader)?)));
        let actions = followers.filter(|(_, follow)| follow.kind == "action");
        let notice = |(action, follow): (&str, &Follow)| {
            format!("action \"{action}\" undoes nothing of what \"{}\" no longer finds: what it had done stays done", follow.from)
        };
        actions.map(notice).collect()
    }

    /// Asks all workers for the rows of a dataflow as of the last closed tick.
    pub(super) fn read_now(&self, name: String) -> Receiver<Vec<Delta>> {
        let (reply, shares) = crossbeam_channel::bounded(self.workers.count());
        self.workers.broadcast(&Command::Read { names: vec![name], prefix: Vec::new(), tick: self.last_closed, reply });
        shares
    }

    /// All that reads the view, the oldest first, as it is over `catalog`, which learns of it.
    fn readers_anew(&self, name: &str, catalog: &mut Catalog) -> Result<Vec<(String, Reader)>> {
        let mut readers = Vec::new();
        for reader in self.dependents_in_order(name) {
            let anew = self.reader_anew(&reader, catalog).map_err(|error| {
                let reader = shown_name(&reader);
                let message = format!("\"{name}\" cannot be replaced while \"{reader}\" reads it: {}", error.message);
                Error { message, place: None, ..error }.hint(format!("drop \"{reader}\" first, and create it again after"))
            })?;
            if let Reader::View(relation) | Reader::Kept(relation, _) = &anew {
                catalog.insert(relation.clone());
            }
            readers.push((reader, anew));
        }
        Ok(readers)
    }

    /// All that reads the relation, the oldest first.
    pub(super) fn dependents_in_order(&self, name: &str) -> Vec<String> {
        let mut names = self.dependents(name);
        names.sort_by_key(|reader| self.definitions.get(reader).map(|definition| definition.generation));
        names
    }

    fn reader_anew(&self, reader: &str, catalog: &Catalog) -> Result<Reader> {
        if let Some(follow) = self.followers.get(reader) {
            let node = self.followed(&follow.from, catalog)?;
            return match node.schema == follow.node.schema {
                true => Ok(Reader::Follower(node)),
                false => Err(Error::user("its columns change")),
            };
        }
        let definition = self.definitions.get(reader).ok_or_else(|| Error::engine(format!("\"{reader}\" has no definition")))?;
        let placed = statement::parse(&definition.text, &definition.file)?.pop();
        match placed.map(|placed| placed.statement) {
            Some(Statement::CreateView { query, .. }) => {
                let planned = plan_query(&query, catalog)?;
                Ok(Reader::View(view_relation(reader, &planned)))
            }
            Some(Statement::CreateKept { query, detection, options, .. }) => {
                let planned = plan_query(&query, catalog)?;
                check_detection(&options, &planned.node)?;
                Ok(Reader::Kept(kept_relation(reader, detection, &planned), planned))
            }
            _ => Err(Error::engine(format!("\"{reader}\" is no view"))),
        }
    }

    /// What each follower among the readers has been told of, in all, as of the last closed tick.
    fn followed_rows(&self, readers: &[(String, Reader)], cause: Cause) -> Result<BTreeMap<String, Takeover>> {
        let followers = readers.iter().filter(|(_, anew)| matches!(anew, Reader::Follower(_)));
        let running = followers.filter(|(reader, _)| !self.replaying || !self.stopped.contains_key(reader));
        let rows = |reader: &String| {
            self.check_runs(reader)?;
            Ok((reader.clone(), Takeover { old: self.rows_now(&self.followers[reader].from)?, cause }))
        };
        running.map(|(reader, _)| rows(reader)).collect()
    }

    /// A kept relation's rows as of the last closed tick. No tick may be closing.
    fn rows_now(&self, name: &str) -> Result<Vec<Delta>> {
        let relation = self.catalog.get(name).filter(|relation| self.is_kept(relation));
        let relation = relation.ok_or_else(|| {
            Error::user(format!("the rows of \"{name}\", which a sink follows, are not kept")).hint("drop the sink first")
        })?;
        let shares = self.read_now(relation.name.clone());
        Ok(shares.iter().take(self.workers.count()).flatten().collect())
    }

    fn keep_anew(&mut self, name: &str, planned: Planned) -> Result<()> {
        let is_detection = self.is_detection(name);
        self.start_dataflow(name, &planned.node, true, is_detection)?;
        if is_detection {
            self.metrics.findings_open.with_label_values(&[name]).set(0);
        }
        let known = self.kept.get_mut(name).expect("it was kept before");
        *known = Kept {
            node: planned.node,
            reads: planned.reads,
            options: known.options.clone(),
            query: known.query.clone(),
            created: self.last_used,
        };
        Ok(())
    }

    /// Tells followers whose view has a new definition, and does not need `changes` any more.
    pub(super) fn tell_takeovers(&mut self, tick: Tick, changes: &mut HashMap<String, BTreeMap<Tick, Vec<Delta>>>) {
        for (name, follow) in &mut self.followers {
            if let Some(Takeover { old, cause }) = follow.takeover.take().filter(|_| !self.stopped.contains_key(name)) {
                let new = changes.remove(name).into_iter().flat_map(BTreeMap::into_values).flatten();
                let gone = old.iter().filter(|_| !self.config.seeded.has(Bug::SkippedRetraction));
                let difference = gone.map(Delta::negate).chain(new).collect();
                follow.queue.append_only = follow.node.facts.append_only;
                follow.queue.push(tick, difference, cause);
            }
        }
    }
}

/// A plain view, as the catalog knows it.
pub(super) fn view_relation(name: &str, planned: &Planned) -> Relation {
    let schema = Arc::new(planned.query.schema().as_arrow().clone());
    let kind = RelationKind::View { query: Arc::new(planned.query.clone()), reads: planned.reads.clone(), size: planned.size };
    Relation { name: name.to_string(), kind, schema }
}

/// A view whose rows are kept, as the catalog knows it.
pub(super) fn kept_relation(name: &str, detection: bool, planned: &Planned) -> Relation {
    let kind = RelationKind::Kept { facts: planned.node.facts.clone(), detection };
    Relation { name: name.to_string(), kind, schema: Arc::clone(&planned.node.schema) }
}
