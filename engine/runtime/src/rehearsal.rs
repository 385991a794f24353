//! A pack that changes what there is, carried out before it is in the engine: by another one that has the same
//! definitions, and neither rows nor a log nor anything outside. What is refused there is refused before any of it was done.
//!
//! Not seen  what only rows or the running engine tell: a key that is there already, a view that is stopped, a statement
//!           that made a worker panic

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_plan::statement::{self, Placed, Statement};
use tidegate_types::connector::Connectors;
use tidegate_types::error::Result;

use crate::coordinator::{Definition, Request, definition_key, shown_name};
use crate::dml;
use crate::engine::Engine;
use crate::execute::{Step, mentioned, steps};
use crate::interface::{Config, Durability};

/// Each statement waits for one.
const TICK: Duration = Duration::from_millis(1);

/// What an engine was made of.
pub struct Standing {
    pub config: Config,
    pub connectors: Arc<dyn Connectors>,
    pub definitions: BTreeMap<String, Definition>,
}

/// Errors: why `engine` would refuse the pack, at the statement.
pub async fn rehearse(engine: &Engine, files: &[(String, String)]) -> Result<()> {
    let Standing { config, connectors, definitions } = engine.ask(|reply| Request::Standing { reply }).await?;
    let steps = steps(files)?;
    if definitions.is_empty() || !changes(&steps, &definitions) {
        return Ok(());
    }
    let config = Config { workers: 1, tick: TICK, dry: true, durability: Durability::Off, witness: None, ..config };
    let stage = Engine::start(config, connectors)?;
    let rehearsed = rehearse_on(&stage, engine, definitions, steps).await;
    rehearsed.and(stage.shutdown().await)
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

async fn rehearse_on(stage: &Engine, engine: &Engine, definitions: BTreeMap<String, Definition>, steps: Vec<Step>) -> Result<()> {
    let mut definitions: Vec<Definition> = definitions.into_values().collect();
    definitions.sort_by_key(|definition| definition.generation);
    for Definition { file, text, is_pack, .. } in definitions {
        for placed in statement::parse(&text, &file)? {
            make(stage, placed, is_pack).await?;
        }
    }
    let mentioned: BTreeSet<String> = mentioned(&steps);
    for step in steps {
        let (file, line, column) = step.place();
        rehearse_step(stage, engine, step).await.map_err(|error| error.at(&file, line, column))?;
    }
    stage.ask(|reply| Request::Prune { mentioned, reply }).await?
}

async fn rehearse_step(stage: &Engine, engine: &Engine, step: Step) -> Result<()> {
    let Step { placed, ran } = step;
    match &placed.statement {
        Statement::Insert(write) | Statement::Update(write) | Statement::Delete(write) => {
            if engine.ask(|reply| Request::HasRun { ran, reply }).await? {
                return Ok(());
            }
            dml::evaluate(stage, write).await.map(drop).map_err(|error| placed.pointed(error))
        }
        other if definition_key(other).is_some() => make(stage, placed, true).await,
        _ => Ok(()),
    }
}

/// Or drops.
async fn make(stage: &Engine, placed: Placed, is_pack: bool) -> Result<()> {
    let placed = Box::new(placed);
    stage.ask(|reply| Request::Execute { placed, is_pack, prepared: None, reply }).await?.map(drop)
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
}
