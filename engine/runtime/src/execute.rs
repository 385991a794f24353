//! Statements, each to who answers it: reads and writes to DataFusion over a snapshot, all others
//! to the coordinator.

use tidegate_plan::statement::{self, Placed, Statement};
use tidegate_types::error::Result;

use crate::coordinator::Request;
use crate::engine::Engine;
use crate::interface::Response;
use crate::{dml, read};

impl Engine {
    /// Runs statements in order; stops at the first error. `file` names the text in errors.
    pub async fn execute(&self, sql: &str, file: &str) -> Result<Vec<Response>> {
        let mut responses = Vec::new();
        for placed in statement::parse(sql, file)? {
            let (line, column) = (placed.line, placed.column);
            let response = self.run(placed).await.map_err(|error| error.at(file, line, column))?;
            responses.push(response);
        }
        Ok(responses)
    }

    async fn run(&self, placed: Placed) -> Result<Response> {
        match &placed.statement {
            Statement::Query(query) => read::query(self, query).await,
            Statement::Insert(statement) | Statement::Update(statement) | Statement::Delete(statement) => {
                let (write, tag) = dml::evaluate(self, statement).await?;
                self.ask(|reply| Request::Write { write, reply }).await??;
                Ok(Response::Done { tag })
            }
            _ => self.ask(|reply| Request::Execute { placed: Box::new(placed), reply }).await?,
        }
    }
}
