//! A pack that changes what there is, carried out before it is in the engine: by another one that has the same
//! definitions, and neither rows nor a log nor anything outside. What is refused there is refused before any of it was done.
//!
//! Rows      INSERT is refused for keys that are there already, or that the pack has put there before, as long as the pack
//!           only says rows: what else it does to a table depends on rows, and so is planned, and not carried out
//! Twice     what there is and what the pack says is planned here, then what the pack says once more in the engine: a
//!           large pack that changes takes so much longer to start. One that changes nothing is not rehearsed
//! Not seen  what only the running engine tells: keys, where a table's rows are changed by what was read, a statement
//!           that made a worker panic, and what others do meanwhile

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_plan::statement::Statement;
use tidegate_types::connector::Connectors;
use tidegate_types::error::Result;

use crate::coordinator::{Definition, Request, UNCHANGED, Write, definition_key, in_order, shown_name};
use crate::dml;
use crate::engine::Engine;
use crate::execute::{Step, mentioned, steps};
use crate::interface::{Config, Durability, Response};
use crate::telling::Telling;

/// Each statement waits for one.
const TICK: Duration = Duration::from_millis(1);

/// What an engine was made of.
pub struct Standing {
    pub config: Config,
    pub connectors: Arc<dyn Connectors>,
    pub definitions: BTreeMap<String, Definition>,
    /// What of it is stopped, and why.
    pub stopped: BTreeMap<String, String>,
}

/// Errors: why `engine` would refuse the pack, at the statement.
pub async fn rehearse(engine: &Engine, files: &[(String, String)]) -> Result<()> {
    let Standing { config, connectors, definitions, stopped } = engine.ask(|reply| Request::Standing { reply }).await?;
    let steps = steps(files)?;
    if definitions.is_empty() || !changes(&steps, &definitions) {
        return Ok(());
    }
    let config = Config { workers: 1, tick: TICK, dry: true, durability: Durability::Off, witness: None, ..config };
    let stage = Engine::start(config, connectors)?.without_rows();
    let definitions = in_order(definitions.into_values());
    let mut rehearsal = Rehearsal { stage, engine, tables: BTreeMap::new() };
    let rehearsed = match rehearsal.stage.ask(|reply| Request::Redefine { definitions, stopped, reply }).await {
        Ok(Ok(())) => rehearsal.all(steps).await,
        Ok(Err(refused)) | Err(refused) => Err(refused),
    };
    rehearsed.and(rehearsal.stage.shutdown().await)
}

/// Whether it makes, replaces or drops anything.
fn changes(steps: &[Step], definitions: &BTreeMap<String, Definition>) -> bool {
    let stays = |Step { placed, .. }: &Step| match definition_key(&placed.statement) {
        Some((_, true)) => false,
        Some((key, false)) => definitions.get(&key).is_some_and(|definition| definition.says(placed)),
        None => true,
    };
    let mentioned = mentioned(steps);
    let is_gone = |(key, definition): (&String, &Definition)| definition.is_pack && !mentioned.contains(shown_name(key));
    !steps.iter().all(stays) || definitions.iter().any(is_gone)
}

/// The pack on its stage, before the engine.
struct Rehearsal<'a> {
    stage: Engine,
    engine: &'a Engine,
    /// Those that the pack makes, or changes by what it reads. Of the others the engine knows the keys.
    tables: BTreeMap<String, Keys>,
}

enum Keys {
    /// All that there are were put there by the pack.
    OfPack,
    Unknown,
}

impl Rehearsal<'_> {
    async fn all(&mut self, steps: Vec<Step>) -> Result<()> {
        let mentioned: BTreeSet<String> = mentioned(&steps);
        let (mut telling, all) = (Telling::begin(), steps.len());
        for (done, step) in steps.into_iter().enumerate() {
            if telling.is_due() {
                tracing::warn!("rehearsing what the pack changes: {done} of {all} statements");
            }
            let (file, line, column) = step.place();
            self.step(step).await.map_err(|error| error.at(&file, line, column))?;
        }
        self.stage.ask(|reply| Request::Prune { mentioned, reply }).await?
    }

    async fn step(&mut self, Step { placed, ran }: Step) -> Result<()> {
        match &placed.statement {
            Statement::Insert(write) | Statement::Update(write) | Statement::Delete(write) => {
                if self.engine.ask(|reply| Request::HasRun { ran, reply }).await? {
                    return Ok(());
                }
                let (write, _) = dml::evaluate(&self.stage, write).await.map_err(|error| placed.pointed(error))?;
                let says_rows = matches!(placed.statement, Statement::Insert(_)) && write.reads_nothing();
                self.write(write, says_rows).await
            }
            other => {
                let Some((key, _)) = definition_key(other) else { return Ok(()) };
                let placed = Box::new(placed);
                let made = self.stage.ask(|reply| Request::Execute { placed, is_pack: true, prepared: None, reply }).await??;
                if !matches!(made, Response::Done { tag, .. } if tag == UNCHANGED) {
                    self.tables.insert(key, Keys::OfPack);
                }
                Ok(())
            }
        }
    }

    /// Errors: a key that is there already, as far as that is known.
    async fn write(&mut self, mut write: Write, says_rows: bool) -> Result<()> {
        if !says_rows {
            self.tables.insert(write.table, Keys::Unknown);
            return Ok(());
        }
        match self.tables.get(&write.table) {
            Some(Keys::Unknown) => return Ok(()),
            Some(Keys::OfPack) => {}
            None => write = self.engine.ask(|reply| Request::CheckKeys { write, reply }).await??,
        }
        self.stage.ask(|reply| Request::Write { write, ran: None, reply }).await?.map(drop)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tidegate_types::connector::{Responder, Sink, SinkSpec, Source, SourceSpec};
    use tidegate_types::error::Error;

    use super::*;

    pub(crate) struct Nowhere;

    impl Connectors for Nowhere {
        fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
            Err(Error::user("there is none"))
        }

        fn sink(&self, _: &SinkSpec) -> Result<Box<dyn Sink>> {
            Err(Error::user("there is none"))
        }

        fn responder(&self, _: &SinkSpec) -> Result<Box<dyn Responder>> {
            Err(Error::user("there is none"))
        }
    }

    const TABLE: &str = "CREATE TABLE t (a BIGINT PRIMARY KEY); INSERT INTO t VALUES (1), (9);";
    const SMALL: &str = "CREATE MATERIALIZED VIEW small AS SELECT a FROM t WHERE a < 5;";
    const SMALLER: &str = "CREATE MATERIALIZED VIEW small AS SELECT a FROM t WHERE a < 1;";
    const ALL: &str = "CREATE MATERIALIZED VIEW everything AS SELECT a FROM t;";

    async fn apply(engine: &Engine, statements: &[&str]) -> Result<()> {
        engine.apply(&[("10_all.sql".to_string(), statements.join("\n"))]).await
    }

    async fn rows(engine: &Engine) -> Result<Vec<usize>> {
        let snapshot = engine.snapshot(&["small".to_string(), "everything".to_string()]).await?;
        Ok(["small", "everything"].iter().map(|name| snapshot.relations[*name].num_rows()).collect())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_pack_that_is_refused_has_changed_nothing() {
        let engine = Engine::start(Config::default(), Arc::new(Nowhere)).unwrap();
        apply(&engine, &[TABLE, SMALL, ALL]).await.unwrap();
        for (refused, because) in [
            (vec![TABLE, SMALLER, "CREATE VIEW late AS SELECT * FROM nothing"], "10_all.sql:3:"),
            (vec![TABLE, SMALLER, "INSERT INTO t VALUES ('x', 2)"], "10_all.sql:3:"),
            (vec![TABLE, SMALLER, "INSERT INTO t VALUES (9)"], "10_all.sql:3:1: duplicate value"),
            (vec![TABLE, SMALLER, "INSERT INTO t VALUES (7); INSERT INTO t VALUES (6), (7);"], "10_all.sql:3:27: duplicate value"),
            (vec![TABLE, SMALLER, "INSERT INTO t SELECT b FROM t"], "10_all.sql:3:"),
            (vec![TABLE, SMALLER, "CREATE SINK out FROM small WITH (connector = 'file')"], "there is none"),
            (vec![TABLE, SMALLER, "CREATE MATERIALIZED VIEW small AS SELECT a FROM t"], "made twice"),
            (vec![TABLE, SMALLER, "CREATE VIEW late SELECT 1"], "10_all.sql:3:"),
            (vec!["CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT);", SMALLER], "table \"t\" is used by"),
            (vec![SMALL], "table \"t\" is used by"),
        ] {
            let refusal = apply(&engine, &refused).await.unwrap_err().to_string();
            assert!(refusal.contains(because), "{refused:?}: {refusal}");
            assert_eq!(rows(&engine).await.unwrap(), [1, 2], "{refused:?}");
        }
        apply(&engine, &[TABLE, SMALLER, ALL]).await.unwrap();
        assert_eq!(rows(&engine).await.unwrap(), [0, 2]);
        apply(&engine, &[TABLE, SMALLER]).await.unwrap();
        assert!(rows(&engine).await.is_err());
        engine.shutdown().await.unwrap();
    }

    /// None of the rows are there where it is rehearsed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_depends_on_rows_is_refused_by_the_engine_alone() {
        let engine = Engine::start(Config::default(), Arc::new(Nowhere)).unwrap();
        apply(&engine, &[TABLE, SMALL, ALL]).await.unwrap();
        let most = "CREATE TABLE most (a BIGINT NOT NULL);
            INSERT INTO most SELECT max(a) FROM t; INSERT INTO most SELECT 8 / count(*) FROM t;
            UPDATE most SET a = a / (SELECT count(*) FROM t);";
        let again = "DELETE FROM t WHERE a = (SELECT max(a) FROM t); INSERT INTO t VALUES (9);";
        let anew = "CREATE TABLE other (a BIGINT PRIMARY KEY); INSERT INTO other VALUES (1), (9);";
        apply(&engine, &[TABLE, SMALLER, ALL, most, again, anew]).await.unwrap();
        assert_eq!(rows(&engine).await.unwrap(), [0, 2]);
        engine.shutdown().await.unwrap();
    }
}
