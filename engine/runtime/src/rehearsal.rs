//! A pack that changes what there is, carried out before it is in the engine: by others that touch nothing outside. What
//! is refused there is refused before any of it was done.
//!
//! Plans     first by one that has the same definitions, and neither rows nor a log. INSERT is refused there for keys that
//!           are there already, or that the pack has put there before, as long as the pack only says rows: what else it
//!           does to a table depends on rows, and so is planned, and not carried out
//! Rows      then, where something comes before what depends on rows, by one over a copy of the log: as the next start
//!           has it, with what it takes to read the log, in time and memory, once more
//! Twice     what there is and what the pack says is planned here, then what the pack says once more in the engine: a
//!           large pack that changes takes so much longer to start. One that changes nothing is not rehearsed
//! Not seen  what only the running engine tells: that its clock goes on, that its disk is full, a statement that made a
//!           worker panic, and what others do meanwhile; and rows, where there is no log

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_plan::statement::Statement;
use tidegate_types::connector::Connectors;
use tidegate_types::error::{Error, Result};

use crate::coordinator::{Definition, Ran, Request, UNCHANGED, Write, definition_key, in_order, shown_name};
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
    /// What packs wrote.
    pub ran: BTreeSet<Ran>,
    /// What of it is stopped, and why.
    pub stopped: BTreeMap<String, String>,
    /// The folder that its log is in.
    pub log: Option<PathBuf>,
}

/// Errors: why `engine` would refuse the pack, at the statement.
pub async fn rehearse(engine: &Engine, files: &[(String, String)]) -> Result<()> {
    let Standing { config, connectors, definitions, ran, stopped, log } = engine.ask(|reply| Request::Standing { reply }).await?;
    let steps = steps(files)?;
    if definitions.is_empty() || !changes(&steps, &definitions, &ran) {
        return Ok(());
    }
    let config = Config { tick: TICK, dry: true, witness: None, ..config };
    let without_rows = Config { workers: 1, durability: Durability::Off, ..config.clone() };
    let stage = Engine::start(without_rows, Arc::clone(&connectors))?.without_rows();
    let definitions = in_order(definitions.into_values());
    let mut rehearsal = Rehearsal { stage, engine, ran, tables: BTreeMap::new(), has_begun: false, needs_rows: false };
    let rehearsed = match rehearsal.stage.ask(|reply| Request::Redefine { definitions, stopped, reply }).await {
        Ok(Ok(())) => rehearsal.all(steps).await,
        Ok(Err(refused)) | Err(refused) => Err(refused),
    };
    rehearsed.and(rehearsal.stage.shutdown().await)?;
    match log.filter(|_| rehearsal.needs_rows) {
        Some(path) => {
            let over_copy = Config { durability: Durability::Past { path, at: None }, ..config };
            rehearse_with_rows(engine, files, over_copy, connectors).await
        }
        None => Ok(()),
    }
}

/// Whether it makes, replaces, drops or writes anything.
fn changes(steps: &[Step], definitions: &BTreeMap<String, Definition>, written: &BTreeSet<Ran>) -> bool {
    let stays = |Step { placed, ran }: &Step| match (&placed.statement, definition_key(&placed.statement)) {
        (Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_), _) => written.contains(ran),
        (_, Some((_, true))) => false,
        (_, Some((key, false))) => definitions.get(&key).is_some_and(|definition| definition.says(placed)),
        (_, None) => true,
    };
    let mentioned = mentioned(steps);
    let is_gone = |(key, definition): (&String, &Definition)| definition.is_pack && !mentioned.contains(shown_name(key));
    !steps.iter().all(stays) || definitions.iter().any(is_gone)
}

/// `over_copy`: how the one runs that has a copy of the rows.
async fn rehearse_with_rows(engine: &Engine, files: &[(String, String)], over_copy: Config, connectors: Arc<dyn Connectors>) -> Result<()> {
    tracing::warn!("what the pack changes depends on rows: it is rehearsed over a copy of the log");
    // The copy's clock stands still where the log ends, which may have been long ago.
    engine.commit().await?;
    let stage = Engine::start_at_once(over_copy, connectors)?;
    let rehearsed = match stage.recovered().await {
        Ok(()) => stage.carry_out(files, "rehearsing what the pack changes over a copy of the log").await,
        Err(error) => Err(Error { message: format!("no copy of the log to rehearse the pack over: {}", error.message), ..error }),
    };
    rehearsed.and(stage.shutdown().await)
}

/// The pack on its stage without rows, before the engine.
struct Rehearsal<'a> {
    stage: Engine,
    engine: &'a Engine,
    /// What packs wrote before.
    ran: BTreeSet<Ran>,
    /// Those that the pack makes, or changes by what it reads. Of the others the engine knows the keys.
    tables: BTreeMap<String, Keys>,
    /// Something would have been done by now.
    has_begun: bool,
    /// And what came after it depends on rows.
    needs_rows: bool,
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
                if self.ran.contains(&ran) {
                    return Ok(());
                }
                let (write, _) = dml::evaluate(&self.stage, write).await.map_err(|error| placed.pointed(error))?;
                let says_rows = matches!(placed.statement, Statement::Insert(_)) && write.reads_nothing();
                self.write(write, says_rows).await?;
                self.has_begun = true;
            }
            Statement::Query(_) | Statement::Decide { .. } => self.depends_on_rows(),
            other => {
                let Some((key, _)) = definition_key(other) else { return Ok(()) };
                let placed = Box::new(placed);
                let made = self.stage.ask(|reply| Request::Execute { placed, is_pack: true, prepared: None, reply }).await??;
                if !matches!(made, Response::Done { tag, .. } if tag == UNCHANGED) {
                    self.tables.insert(key, Keys::OfPack);
                    self.has_begun = true;
                }
            }
        }
        Ok(())
    }

    /// Errors: a key that is there already, as far as that is known.
    async fn write(&mut self, mut write: Write, says_rows: bool) -> Result<()> {
        if !says_rows {
            self.tables.insert(write.table.clone(), Keys::Unknown);
        }
        match self.tables.get(&write.table) {
            Some(Keys::Unknown) => {
                self.depends_on_rows();
                return Ok(());
            }
            Some(Keys::OfPack) => {}
            None => write = self.engine.ask(|reply| Request::CheckKeys { write, reply }).await??,
        }
        self.stage.ask(|reply| Request::Write { write, ran: None, reply }).await?.map(drop)
    }

    /// Where nothing comes before it, nothing was done when it is refused.
    fn depends_on_rows(&mut self) {
        self.needs_rows |= self.has_begun;
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

    /// `because`: of each, where and why.
    async fn assert_refused(engine: &Engine, before: &[&str], refused: &[(&str, &str)]) {
        for (statement, because) in refused {
            let pack = [before, &[*statement]].concat();
            let refusal = apply(engine, &pack).await.unwrap_err().to_string();
            assert!(refusal.contains(because), "{pack:?}: {refusal}");
            assert_eq!(rows(engine).await.unwrap(), [1, 2], "{pack:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_pack_that_its_rows_refuse_has_changed_nothing() {
        let engine = Engine::start(Config::default(), Arc::new(Nowhere)).unwrap();
        apply(&engine, &[TABLE, SMALL, ALL]).await.unwrap();
        let refused = [
            ("INSERT INTO t SELECT a FROM t WHERE a = 1", "10_all.sql:4:1: duplicate value"),
            ("UPDATE t SET a = 9 WHERE a = 1", "10_all.sql:4:1: duplicate value"),
            ("INSERT INTO t SELECT 10 / (a - 1) FROM t", "10_all.sql:4:"),
            ("SELECT 1 / (a - 1) FROM t", "10_all.sql:4:"),
            ("DELETE FROM t WHERE a = 9; INSERT INTO t VALUES (1)", "10_all.sql:4:28: duplicate value"),
            ("INSERT INTO t SELECT 9 FROM (SELECT count(*) AS n FROM small) AS c WHERE n = 0", "10_all.sql:4:1: duplicate value"),
        ];
        assert_refused(&engine, &[TABLE, SMALLER, ALL], &refused).await;
        assert_refused(&engine, &[TABLE, SMALL, ALL], &refused[4..5]).await;
        assert_refused(&engine, &[TABLE, SMALL, ALL, "INSERT INTO t VALUES (3);"], &[("INSERT INTO t SELECT 3", "10_all.sql:5:1: ")]).await;
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_cannot_be_copied_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let durability = Durability::Folder { path: folder.path().to_path_buf(), accept_loss: false };
        let config = Config { durability, ..Config::default() };
        let engine = Engine::start(config.clone(), Arc::new(Nowhere)).unwrap();
        apply(&engine, &[TABLE, SMALL, ALL]).await.unwrap();
        engine.shutdown().await.unwrap();
        let engine = Engine::start(config, Arc::new(Nowhere)).unwrap();
        let over_copy =
            Config { dry: true, durability: Durability::Past { path: folder.path().join("none"), at: None }, ..Config::default() };
        let refusal = rehearse_with_rows(&engine, &[], over_copy, Arc::new(Nowhere)).await.unwrap_err().to_string();
        assert!(refusal.starts_with("no copy of the log to rehearse the pack over: there is no log in "), "{refusal}");
        assert_refused(&engine, &[TABLE, SMALLER, ALL], &[("UPDATE t SET a = 9 WHERE a = 1", "10_all.sql:4:1: duplicate value")]).await;
        engine.shutdown().await.unwrap();
    }

    /// None of the rows are there where it is planned.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_depends_on_rows_is_judged_by_those_there_are() {
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
