//! From a query to what computes it. Planning recurses with the query, so it has a thread of its own, with
//! room for the deepest one that is let through.

use std::collections::BTreeSet;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;
use tidegate_plan::lower::lower;
use tidegate_plan::size::Size;
use tidegate_plan::sql::Session;
use tidegate_plan::{Catalog, NodeRef};
use tidegate_types::error::{Error, Mistake, Result};

const STACK_BYTES: usize = 64 << 20;

/// A query, what computes it, and the relations it names.
pub struct Planned {
    pub query: LogicalPlan,
    pub node: NodeRef,
    pub reads: BTreeSet<String>,
    pub size: Size,
}

pub fn plan_query(query: &Query, catalog: &Catalog) -> Result<Planned> {
    on_deep_stack(|| {
        let size = Size::of(query, |name| catalog.view_size(name))?;
        let session = Session::new(catalog)?;
        let reads = session.names(query)?;
        let query = session.plan(query)?;
        let node = lower(&session.optimize(&query)?, catalog)?;
        let mut names = BTreeSet::new();
        if let Some(twice) = node.schema.fields().iter().find(|field| !names.insert(field.name())) {
            let error = Error::user(format!("two columns are named \"{}\"", twice.name())).hint("name one of them otherwise, with AS");
            return Err(error.mistake(Mistake::DuplicateColumn));
        }
        Ok(Planned { query, node, reads, size })
    })
}

/// What computes a plain view's query, which was planned when the view was created.
pub fn plan_view(query: &LogicalPlan, catalog: &Catalog) -> Result<NodeRef> {
    on_deep_stack(|| {
        let session = Session::new(catalog)?;
        lower(&session.optimize(query)?, catalog)
    })
}

fn on_deep_stack<T: Send>(plan: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("planner".into()).stack_size(STACK_BYTES).spawn_scoped(scope, plan);
        let thread = thread.map_err(|error| Error::engine(format!("no thread to plan on: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::engine("the planner failed on this statement").hint("simplify it, and report it")))
    })
}
