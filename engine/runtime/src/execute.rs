//! Statements, each to who answers it: reads and writes to DataFusion over a snapshot, all others
//! to the coordinator.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_plan::explain::explain;
use tidegate_plan::statement::{self, Placed, Statement};
use tidegate_types::error::Result;

use crate::coordinator::{Ran, Request, lines, pointed};
use crate::engine::Engine;
use crate::interface::Response;
use crate::planning::plan_query;
use crate::{dml, read};

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
    /// replaced, what is in no file any more is dropped, and rows are written only once.
    pub async fn apply(&self, files: &[(String, String)]) -> Result<()> {
        self.recovered().await?;
        let (mut mentioned, mut written) = (BTreeSet::new(), BTreeMap::new());
        for (file, sql) in files {
            for placed in statement::parse(sql, file)? {
                let (line, column) = (placed.line, placed.column);
                mentioned.extend(placed.statement.object().map(|(name, _)| name.to_string()));
                let text = placed.words();
                let nth = written.entry(text.clone()).or_insert(0);
                let ran = Ran { text, nth: *nth };
                *nth += 1;
                self.run(placed, Some(ran)).await.map_err(|error| error.at(file, line, column))?;
            }
        }
        self.ask(|reply| Request::Prune { mentioned, reply }).await?
    }

    /// `ran`: by a pack.
    async fn run(&self, placed: Placed, ran: Option<Ran>) -> Result<Response> {
        match &placed.statement {
            Statement::Query(query) => read::query(self, query).await,
            Statement::Explain { query } => {
                let catalog = self.ask(|reply| Request::Catalog { reply }).await?;
                let planned = plan_query(query, &catalog).map_err(|error| pointed(error, &placed))?;
                Ok(lines("plan", explain(&planned.node, &catalog).lines()))
            }
            Statement::Checkpoint => {
                self.checkpoint().await?;
                Ok(Response::Done { tag: "CHECKPOINT".into() })
            }
            Statement::Insert(statement) | Statement::Update(statement) | Statement::Delete(statement) => {
                if let Some(ran) = ran.clone()
                    && self.ask(|reply| Request::HasRun { ran, reply }).await?
                {
                    return Ok(Response::Done { tag: "has run before".into() });
                }
                let (write, tag) = dml::evaluate(self, statement).await?;
                self.ask(|reply| Request::Write { write, ran, reply }).await??;
                Ok(Response::Done { tag })
            }
            _ => {
                let is_pack = ran.is_some();
                self.ask(|reply| Request::Execute { placed: Box::new(placed), is_pack, reply }).await?
            }
        }
    }
}
