//! Statements, each to who answers it: reads and writes to DataFusion over a snapshot, all others
//! to the coordinator.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::ast::Query;
use tidegate_plan::Catalog;
use tidegate_plan::explain::explain;
use tidegate_plan::statement::{self, Placed, Statement};
use tidegate_types::error::{Error, Result};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::coordinator::{History, Order, Prepared, Ran, Request, definition_key, lines};
use crate::engine::Engine;
use crate::interface::Response;
use crate::planning::{Planned, plan_query};
use crate::telling::Telling;
use crate::{dml, read, rehearsal};

impl Engine {
    /// Runs statements in order; stops at the first error. `file` names the text in errors.
    pub async fn execute(&self, sql: &str, file: &str) -> Result<Vec<Response>> {
        self.recovered().await?;
        let mut responses = Vec::new();
        for placed in statement::parse(sql, file)? {
            let (line, column) = (placed.line, placed.column);
            let response = self.run(placed, None).await.map_err(|error| error.at(file, line, column))?;
            responses.push(response);
        }
        Ok(responses)
    }

    /// Brings the engine to what a pack's files (name, text) say, in their order. On a data folder
    /// that an earlier run left, what is there as it is written stays, what reads otherwise is
    /// replaced, what is in no file any more is dropped, and rows are written only once. A pack that
    /// is refused has changed nothing, but for what its rehearsal does not see.
    pub async fn apply(&self, files: &[(String, String)]) -> Result<()> {
        self.recovered().await?;
        rehearsal::rehearse(self, files).await?;
        self.carry_out(files, "carrying out the pack").await
    }

    /// Statement by statement, up to the first that is refused. `doing`: what is told where that takes long.
    pub(crate) async fn carry_out(&self, files: &[(String, String)], doing: &str) -> Result<()> {
        let steps = steps(files)?;
        let mentioned = mentioned(&steps);
        let (mut telling, all) = (Telling::begin(), steps.len());
        for (done, step) in steps.into_iter().enumerate() {
            if telling.is_due() {
                tracing::warn!("{doing}: {done} of {all} statements");
            }
            let (file, line, column) = step.place();
            let Step { placed, ran } = step;
            self.run(placed, Some(ran)).await.map_err(|error| error.at(&file, line, column))?;
        }
        self.ask(|reply| Request::Prune { mentioned, reply }).await?
    }

    /// `ran`: by a pack.
    async fn run(&self, placed: Placed, ran: Option<Ran>) -> Result<Response> {
        match &placed.statement {
            Statement::Query(query) => read::query(self, query).await.map_err(|error| placed.pointed(error)),
            Statement::Explain { query } => {
                let (catalog, _) = self.ask(|reply| Request::Catalog { reply }).await?;
                let planned = plan_beside(query, &catalog).await.map_err(|error| placed.pointed(error))?;
                Ok(lines("plan", explain(&planned.node, &catalog).lines()))
            }
            Statement::ExplainReplace { name, query } => {
                let wanted = Wanted { name, query, is_detection: false, is_compared: true };
                let prepared = self.prepare(wanted).await.map_err(|error| placed.pointed(error))?;
                let Some(prepared) = prepared else { return Err(Error::conflict("what there is changes all the time")) };
                let _unclaimed = self.unclaimed(&prepared);
                let name = name.clone();
                let compared = self.ask(|reply| Request::Compare { name, prepared: Box::new(prepared), reply }).await?;
                compared.map_err(|error| placed.pointed(error))
            }
            // What a pack has is made before its sources are read.
            Statement::CreateKept { name, query, detection, .. } if ran.is_none() => {
                let wanted = Wanted { name, query, is_detection: *detection, is_compared: false };
                let prepared = self.prepare(wanted).await.map_err(|error| placed.pointed(error))?;
                let _unclaimed = prepared.as_ref().map(|prepared| self.unclaimed(prepared));
                let prepared = prepared.map(Box::new);
                self.ask(|reply| Request::Execute { placed: Box::new(placed), is_pack: false, prepared, reply }).await?
            }
            Statement::Checkpoint => {
                self.checkpoint().await?;
                Ok(Response::done("CHECKPOINT"))
            }
            Statement::Insert(statement) | Statement::Update(statement) | Statement::Delete(statement) => {
                if let Some(ran) = ran.clone()
                    && self.ask(|reply| Request::HasRun { ran, reply }).await?
                {
                    return Ok(Response::done("has run before"));
                }
                let (write, tag) = dml::evaluate(self, statement).await.map_err(|error| placed.pointed(error))?;
                self.ask(|reply| Request::Write { write, ran, reply }).await??;
                Ok(Response::done(tag))
            }
            _ => {
                let is_pack = ran.is_some();
                self.ask(|reply| Request::Execute { placed: Box::new(placed), is_pack, prepared: None, reply }).await?
            }
        }
    }

    /// Plans a view, and gives it its past where that is long, while all else goes on. None: what there is
    /// changes faster than it is planned, so it is planned where nothing changes.
    async fn prepare(&self, wanted: Wanted<'_>) -> Result<Option<Prepared>> {
        let Wanted { name, query, is_detection, is_compared } = wanted;
        for _ in 0..PLANNED_MAX {
            let (catalog, generation) = self.ask(|reply| Request::Catalog { reply }).await?;
            let planned = plan_beside(query, &catalog).await?;
            let order = Order { name: name.to_string(), planned, generation, is_detection, is_compared };
            let prepared = self.ask(|reply| Request::Prepare { order: Box::new(order), reply }).await??;
            let Some((prepared, history)) = prepared else { continue };
            if let (Some(history), Some(beside)) = (history, &prepared.beside) {
                let mut unclaimed = self.unclaimed(&prepared);
                self.fill(beside, history).await?;
                unclaimed.0 = None;
            }
            return Ok(Some(prepared));
        }
        Ok(None)
    }

    /// Gives what is made beside its past, a piece at a time.
    async fn fill(&self, beside: &str, history: History) -> Result<()> {
        let (pieces, mut arriving) = mpsc::channel(1);
        let reading = spawn_blocking(move || history.read(|piece| pieces.blocking_send(piece).is_ok()));
        while let Some(rows) = arriving.recv().await {
            let beside = beside.to_string();
            self.ask(|reply| Request::Fill { beside, rows, reply }).await??;
        }
        reading.await.unwrap_or_else(|_| Err(Error::engine("the log could not be read")))
    }

    fn unclaimed(&self, prepared: &Prepared) -> Unclaimed<'_> {
        Unclaimed(prepared.beside.clone().map(|beside| (self, beside)))
    }
}

/// A statement of a pack.
pub struct Step {
    pub placed: Placed,
    /// Where it writes rows: that, which is done once.
    pub ran: Ran,
}

impl Step {
    /// Its file, line and column.
    pub fn place(&self) -> (String, u64, u64) {
        (self.placed.file.clone(), self.placed.line, self.placed.column)
    }
}

/// The statements of a pack's files (name, text), in their order.
pub fn steps(files: &[(String, String)]) -> Result<Vec<Step>> {
    let (mut steps, mut written, mut made) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (file, sql) in files {
        for placed in statement::parse(sql, file)? {
            check_made_once(&placed, &mut made)?;
            let text = placed.words();
            let nth = written.entry(text.clone()).or_insert(0);
            let ran = Ran { text, nth: *nth };
            *nth += 1;
            steps.push(Step { placed, ran });
        }
    }
    Ok(steps)
}

/// The names of what a pack makes or drops.
pub fn mentioned(steps: &[Step]) -> BTreeSet<String> {
    steps.iter().filter_map(|step| step.placed.statement.object()).map(|(name, _)| name.to_string()).collect()
}

/// Errors: a statement that does more than answer.
pub fn only_reads(sql: &str, file: &str) -> Result<()> {
    let reads = |statement: &Statement| {
        use Statement::{Explain, ExplainNamed, ExplainReplace, Query, Show};
        matches!(statement, Query(_) | Show { .. } | Explain { .. } | ExplainNamed { .. } | ExplainReplace { .. })
    };
    match statement::parse(sql, file)?.into_iter().find(|placed| !reads(&placed.statement)) {
        Some(placed) => Err(Error::user("only reads are answered here").hint("give a SELECT").at(file, placed.line, placed.column)),
        None => Ok(()),
    }
}

/// Errors: a pack makes it twice. `made`: where it made what it made so far.
fn check_made_once(placed: &Placed, made: &mut BTreeMap<String, String>) -> Result<()> {
    let Placed { statement, file, line, column, .. } = placed;
    match definition_key(statement) {
        Some((key, true)) => drop(made.remove(&key)),
        Some((key, false)) => {
            let before = made.insert(key, format!("{file}:{line}")).filter(|_| !statement.replaces());
            let name = statement.object().map_or("", |(name, _)| name);
            if let Some(before) = before {
                let error = Error::user(format!("\"{name}\" is made twice, before at {before}"));
                return Err(error.hint("keep one of them, or write CREATE OR REPLACE").at(file, *line, *column));
            }
        }
        None => {}
    }
    Ok(())
}

/// Attempts to plan over what there is.
const PLANNED_MAX: usize = 3;

/// A view that is to be made, or compared with the one of its name.
struct Wanted<'a> {
    name: &'a str,
    query: &'a Query,
    is_detection: bool,
    is_compared: bool,
}

/// What is made beside and has no other name when this goes, also because whoever asked does, is forgotten.
struct Unclaimed<'a>(Option<(&'a Engine, String)>);

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some((engine, beside)) = self.0.take() {
            engine.tell(Request::Forget { beside });
        }
    }
}

/// Planning takes its time; who else is served by this thread does not wait.
async fn plan_beside(query: &Query, catalog: &Catalog) -> Result<Planned> {
    let (query, catalog) = (query.clone(), catalog.clone());
    let planned = spawn_blocking(move || plan_query(&query, &catalog)).await;
    planned.unwrap_or_else(|_| Err(Error::engine("the planner failed on this statement").hint("simplify it, and report it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_once(sql: &str) -> Result<()> {
        let mut made = BTreeMap::new();
        statement::parse(sql, "a.sql").unwrap().iter().try_for_each(|placed| check_made_once(placed, &mut made))
    }

    #[test]
    fn a_pack_makes_nothing_twice() {
        let error = made_once("CREATE TABLE t (a INT);\nCREATE VIEW v AS SELECT 1;\nCREATE VIEW t AS SELECT 2").unwrap_err().to_string();
        assert!(error.contains("a.sql:3:1: \"t\" is made twice, before at a.sql:1"), "{error}");
        for fine in [
            "CREATE VIEW v AS SELECT 1; CREATE OR REPLACE VIEW v AS SELECT 2",
            "CREATE VIEW v AS SELECT 1; DROP VIEW v; CREATE VIEW v AS SELECT 2",
            "CREATE VIEW v AS SELECT 1; CREATE SINK v FROM v WITH (connector = 'stdout')",
        ] {
            made_once(fine).unwrap();
        }
    }
}
