//! What is asked of the coordinator, and how each is answered: at once, when a tick that holds it is visible, or by
//! who reads beside the ticks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use tidegate_plan::RelationKind;
use tidegate_plan::catalog::Catalog;
use tidegate_plan::statement::Placed;
use tidegate_types::connector::SourceBatch;
use tidegate_types::error::{Error, Result};
use tidegate_types::{Delta, Tick};
use tokio::sync::oneshot;

use super::beside::{History, Order, Prepared};
use super::room::{Level, no_room};
use super::statements::definition_key;
use super::tables::Write;
use super::{Coordinator, Definition, Generation, WAITING_MAX};
use crate::changes::{consolidate, copies};
use crate::interface::{Response, Snapshot};
use crate::log::Log;
use crate::log::record::{Ran, Record};
use crate::rehearsal::Standing;
use crate::worker::Command;

/// What the engine's handle asks for.
pub enum Request {
    /// `is_pack`: what is there as it is written stays, what reads otherwise is replaced.
    Execute {
        placed: Box<Placed>,
        is_pack: bool,
        prepared: Option<Box<Prepared>>,
        reply: oneshot::Sender<Result<Response>>,
    },
    /// Makes a view beside what there is. None: what there is has changed since it was planned.
    Prepare {
        order: Box<Order>,
        reply: oneshot::Sender<Result<Option<(Prepared, Option<History>)>>>,
    },
    /// Rows of sources for what is made beside; answered when they are in.
    Fill {
        beside: String,
        rows: Vec<(String, RecordBatch)>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// What the prepared definition of the view `name` would change.
    Compare {
        name: String,
        prepared: Box<Prepared>,
        reply: oneshot::Sender<Result<Response>>,
    },
    /// Nobody waits any more for what is made beside.
    Forget {
        beside: String,
    },
    /// `ran`: a pack's statement, to be run only once.
    Write {
        write: Write,
        ran: Option<Ran>,
        reply: oneshot::Sender<Result<Tick>>,
    },
    /// Whether the keys it puts are free; nothing is written, and the write comes back.
    CheckKeys {
        write: Write,
        reply: oneshot::Sender<Result<Write>>,
    },
    HasRun {
        ran: Ran,
        reply: oneshot::Sender<bool>,
    },
    /// Drops what packs made and no longer mention.
    Prune {
        mentioned: BTreeSet<String>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Of kept relations only the rows whose encoding begins with `prefix`.
    Snapshot {
        names: Vec<String>,
        prefix: Vec<u8>,
        reply: oneshot::Sender<Result<Snapshot>>,
    },
    Push {
        source: String,
        rows: RecordBatch,
        reply: oneshot::Sender<Result<Tick>>,
    },
    Commit {
        reply: oneshot::Sender<Tick>,
    },
    /// Takes a snapshot; answered once it counts.
    Checkpoint {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Takes in what came after a past, up to a tick (None: all of it); answered with the last tick.
    Relive {
        upto: Option<Tick>,
        reply: oneshot::Sender<Result<Tick>>,
    },
    StartSources {
        reply: oneshot::Sender<Result<()>>,
    },
    Settled {
        reply: oneshot::Sender<Result<()>>,
    },
    /// What there is, for who plans without holding up the ticks.
    Catalog {
        reply: oneshot::Sender<(Catalog, Generation)>,
    },
    Explain {
        name: String,
        reply: oneshot::Sender<Result<String>>,
    },
    /// What there is was made of, for who makes it elsewhere.
    Standing {
        reply: oneshot::Sender<Standing>,
    },
    /// Makes that where there is nothing yet, and stops of it what is stopped.
    Redefine {
        definitions: Vec<Definition>,
        stopped: BTreeMap<String, String>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Answered once all is delivered and logged. Errors: there is no room for that.
    Shutdown {
        reply: oneshot::Sender<Result<()>>,
    },
}

impl Request {
    /// Whether who asked is gone, of those that may have to wait.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Execute { reply, .. } => reply.is_closed(),
            Self::Write { reply, .. } | Self::Push { reply, .. } => reply.is_closed(),
            _ => false,
        }
    }
}

impl Coordinator {
    pub(super) fn must_wait(&self, request: &Request) -> bool {
        match request {
            // What a statement replaces is read as of the last closed tick, so none may be closing; and what it needs
            // of the log can only be read once it is written.
            Request::Execute { .. } => self.closing.is_some() || self.full.is_some() || !self.log.as_ref().is_none_or(Log::is_written),
            Request::Write { .. } | Request::Push { .. } => self.waits_for_followers(),
            _ => false,
        }
    }

    /// It is served once it can be. Whom nobody waits for any more makes way where too many wait.
    pub(super) fn put_off(&mut self, request: Request) {
        if WAITING_MAX <= self.waiting.len() {
            self.waiting.retain(|waiting| !waiting.is_given_up());
        }
        if self.waiting.len() < WAITING_MAX {
            return self.waiting.push_back(request);
        }
        let error = match self.full {
            Some(_) => no_room(),
            None => Error::conflict(format!("{WAITING_MAX} statements wait already for sinks that are behind: sys.sinks tells which")),
        };
        match request {
            Request::Execute { reply, .. } => drop(reply.send(Err(error))),
            Request::Write { reply, .. } | Request::Push { reply, .. } => drop(reply.send(Err(error))),
            other => self.serve(other),
        }
    }

    pub(super) fn serve(&mut self, request: Request) {
        match request {
            Request::Execute { placed, is_pack, prepared, reply } => {
                if let Err(error) = prepared.map_or(Ok(()), |prepared| self.take_prepared(*prepared)) {
                    return drop(reply.send(Err(placed.pointed(error))));
                }
                // A pack's view that had to be stopped is no reason not to start the others.
                let made = definition_key(&placed.statement).filter(|(_, is_drop)| !is_drop && !is_pack);
                let response = self.change(*placed, is_pack);
                let notices = std::mem::take(&mut self.notices);
                let response = response.map(|response| response.with_notices(notices));
                self.forget_prepared();
                self.publish();
                // What was created is readable, and right, when the statement returns.
                self.when_closed(Box::new(move |now, _| {
                    let runs = made.map_or(Ok(()), |(name, _)| now.check_runs(&name));
                    let _ = reply.send(response.and_then(|response| runs.map(|()| response)));
                }));
            }
            Request::CheckKeys { write, reply } => drop(reply.send(self.check_keys(&write).map(|()| write))),
            Request::HasRun { ran, reply } => drop(reply.send(self.ran.contains(&ran))),
            Request::Prune { mentioned, reply } => {
                let pruned = self.prune(&mentioned);
                self.publish();
                self.when_closed(Box::new(move |_, _| drop(reply.send(pruned))));
            }
            Request::Write { reply, .. } if self.level == Level::Out => drop(reply.send(Err(no_room()))),
            Request::Push { reply, .. } if self.level == Level::Out => drop(reply.send(Err(no_room()))),
            Request::Write { write, ran, reply } => match self.write(&write) {
                Ok(()) => {
                    self.say(|| {
                        let Write { table, delete, insert, .. } = write;
                        Record::Write { table, delete, insert }
                    });
                    if let Some(ran) = ran {
                        self.ran.insert(ran.clone());
                        self.say(|| Record::Ran(ran));
                    }
                    self.when_closed(Box::new(move |_, tick| drop(reply.send(Ok(tick)))));
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Snapshot { names, prefix, reply } => self.snapshot(&names, prefix, reply),
            Request::Push { source, rows, reply } => match self.sources.contains_key(&source) {
                true => {
                    let batch = SourceBatch::of(rows);
                    self.accept(&source, batch, None);
                    self.when_closed(Box::new(move |_, tick| drop(reply.send(Ok(tick)))));
                }
                false => drop(reply.send(Err(Error::user(format!("source \"{source}\" does not exist"))))),
            },
            Request::Commit { reply } => self.when_closed(Box::new(move |_, tick| {
                let _ = reply.send(tick);
            })),
            Request::Checkpoint { reply } => match self.log.is_some() {
                true => {
                    let now = Instant::now();
                    self.checkpoints.push((now, reply));
                    (self.is_checkpoint_asked, self.snapshot_not_before) = (true, now);
                }
                false => drop(reply.send(Err(Error::user("there is no log to take a snapshot of").hint("give a --data-dir")))),
            },
            Request::Relive { upto, reply } => self.relive(upto, reply),
            Request::StartSources { reply } => drop(reply.send(self.start_sources())),
            Request::Settled { reply } => self.settling.wait(reply),
            Request::Catalog { reply } => drop(reply.send((self.catalog.clone(), self.generation))),
            Request::Prepare { order, reply } => {
                // Whoever asked may be gone: then nobody takes it.
                if let Err(Ok(Some((prepared, _)))) = reply.send(self.prepare(*order)) {
                    self.forget(&prepared);
                }
            }
            Request::Fill { beside, rows, reply } => self.fill(beside, rows, reply),
            Request::Compare { name, prepared, reply } => self.compare(name, *prepared, reply),
            Request::Forget { beside } => self.drop_beside(&beside),
            Request::Explain { name, reply } => drop(reply.send(self.explain(&name))),
            Request::Standing { reply } => {
                let (config, connectors) = (self.config.clone(), Arc::clone(&self.connectors));
                let (definitions, ran, stopped) = (self.definitions.clone(), self.ran.clone(), self.stopped.clone());
                let log = self.log.as_ref().map(|log| log.folder().to_path_buf());
                drop(reply.send(Standing { config, connectors, definitions, ran, stopped, log }));
            }
            Request::Redefine { definitions, stopped, reply } => {
                let made = self.redefine(&definitions, stopped.iter().map(|(name, reason)| (name, reason.clone())));
                self.publish();
                self.when_closed(Box::new(move |_, _| drop(reply.send(made))));
            }
            Request::Shutdown { .. } => unreachable!("handled by the loop"),
        }
    }

    /// Rows of several relations as of the last closed tick.
    fn snapshot(&mut self, names: &[String], prefix: Vec<u8>, reply: oneshot::Sender<Result<Snapshot>>) {
        let tick = self.last_closed;
        let mut relations = BTreeMap::new();
        let mut kept: Vec<(String, SchemaRef)> = Vec::new();
        for name in names {
            match self.catalog.get(name) {
                Some(relation) if matches!(relation.kind, RelationKind::System) => {
                    relations.insert(name.clone(), self.system_rows(&relation.name));
                }
                Some(relation) if self.stopped.contains_key(&relation.name) => {
                    let stopped = self.check_runs(&relation.name);
                    return drop(reply.send(stopped.map(|()| Snapshot { tick, relations })));
                }
                Some(relation) if self.is_kept(relation) => kept.push((relation.name.clone(), Arc::clone(&relation.schema))),
                Some(relation) => {
                    let error = Error::user(format!("{} \"{name}\" keeps no rows to read", relation.kind_name()));
                    return drop(reply.send(Err(error.hint(format!("CREATE MATERIALIZED VIEW … AS SELECT * FROM {name}")))));
                }
                None => return drop(reply.send(Err(self.no_relation(name)))),
            }
        }
        let readable: Vec<String> = kept.iter().map(|(name, _)| name.clone()).collect();
        let (sender, receiver) = crossbeam_channel::bounded(self.workers.count());
        let count = self.workers.count();
        self.workers.broadcast(&Command::Read { names: readable, prefix, tick, reply: sender });
        // Decoded shares arrive as workers get to it; gathering them must not hold up the ticks.
        tokio::task::spawn_blocking(move || {
            let mut parts: Vec<Vec<Delta>> = vec![Vec::new(); kept.len()];
            for share in receiver.iter().take(count) {
                share.into_iter().zip(&mut parts).for_each(|(delta, parts)| parts.push(delta));
            }
            let gathered = kept.iter().zip(parts).try_for_each(|((name, schema), parts)| {
                // In row order, however many workers there are: what a query leaves open, as among ties, is the same then.
                relations.insert(name.clone(), copies(name, schema, &[consolidate(schema, &parts)])?);
                Ok(())
            });
            let _ = reply.send(gathered.map(|()| Snapshot { tick, relations }));
        });
    }
}
