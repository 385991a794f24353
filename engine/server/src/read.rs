//! Ad-hoc queries over the engine's relations, each at one closed tick.
//!
//! SQL       DataFusion's, with `pg_catalog` and `information_schema` as
//!           Postgres clients expect them. `EXPLAIN`, and `SHOW` of the
//!           engine's own words, are answered by the engine
//! Tick      a plan names its relations by `Unfrozen` scans; freezing a plan
//!           takes one snapshot of all of them, so a join of two views reads
//!           one tick. Nothing is kept between queries but names and schemas
//! Threads   each query's own, for plans do not always pause: see [`mod@apart`]
//! Bounds    [`TIME_MAX`], [`ROWS_MAX`], [`BYTES_MAX`], [`MEMORY_BYTES_MAX`] over
//!           all queries at once; the error names the one that was met
//! Refuses   everything that writes, with SQLSTATE 25006

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, ScalarUDF};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, ObjectName, Statement, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{create_pg_get_partkeydef_udf, create_pg_table_is_visible};
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::StreamExt;
use tidegate_runtime::{
    Engine, Response, Shown, at_tick, bytes_of, check_size, check_text, planning_error_among, reads_clock, refuse_parameters, rewritten,
    sound, state_builder, typed,
};
use tidegate_types::error::{Error, Mistake, Result};
use tokio::task::JoinSet;

pub use self::apart::{apart, threads};
use self::apart::{computed, session_apart};
use self::duty::verb;
pub use self::duty::{Duty, duty};
use self::information_schema::InformationSchema;
use self::pg_catalog::{Known, PgCatalog, Roles};
pub use self::refusal::{Refusal, STARTING};
use self::relations::{Relations, SYSTEM, Unfrozen, fill, unfrozen};
use self::settings::{CurrentSetting, fixed_setting};

mod apart;
mod duty;
mod information_schema;
mod pg_catalog;
mod refusal;
mod relations;
mod settings;
mod watched;

/// From the first byte of a query to its last row.
pub const TIME_MAX: Duration = Duration::from_secs(10);

/// Rows one query may answer.
pub const ROWS_MAX: usize = 1_000_000;

/// Of an answer that is gathered before it is sent: its rows, and the text that is made of them.
pub const BYTES_MAX: usize = 256 << 20;

/// What all running queries may hold together, beyond the snapshots they read: what their operators keep, and
/// answers as they are gathered.
pub const MEMORY_BYTES_MAX: usize = 512 << 20;

/// Rows that are computed at once. How much they take is known only once they are there, and a query that is given
/// up ends behind them.
const BATCH_ROWS: usize = 1024;

/// The database's name, as clients see it.
pub const CATALOG: &str = "tidegate";

/// Whether a query may be about the server and not about rows.
fn names_server(sql: &str) -> bool {
    const WORDS: [&str; 12] = [
        "pg_",
        "information_schema",
        "current_user",
        "session_user",
        "current_schema",
        "current_database",
        "current_catalog",
        "version(",
        "regclass",
        "regtype",
        "regnamespace",
        "regproc",
    ];
    let sql = sql.to_lowercase();
    WORDS.iter().any(|word| sql.contains(word))
}

/// Rows, all of one tick.
pub struct Answer {
    /// Absent where neither a relation of the engine nor its clock was read.
    pub tick: Option<u64>,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// Plans and runs reads.
pub struct Reader {
    engine: Engine,
    session: Arc<SessionContext>,
    /// Where plans are run that others wait for.
    apart: Arc<SessionContext>,
    known: Known,
    server_parser: PostgresCompatibilityParser,
}

impl Reader {
    pub fn new(engine: Engine) -> Result<Self> {
        let known = Known::new(engine.clone());
        let session = session(&engine, &known).map_err(|error| Error::engine(format!("the SQL session cannot be set up: {error}")))?;
        let apart = Arc::new(SessionContext::new_with_state(session_apart(session.state())));
        Ok(Self { engine, session: Arc::new(session), apart, known, server_parser: PostgresCompatibilityParser::new() })
    }

    /// The session all queries are planned in.
    pub fn session(&self) -> Arc<SessionContext> {
        self.session.clone()
    }

    /// The session frozen plans are run in, each on a thread of its own.
    pub fn session_apart(&self) -> Arc<SessionContext> {
        self.apart.clone()
    }

    /// A copy, for statements that change the session they are given.
    pub fn scratch(&self) -> SessionContext {
        SessionContext::new_with_state(self.session.state())
    }

    /// Errors: it would be parsed and planned by recursion that is too deep.
    pub fn check(sql: &str) -> Result<(), Refusal> {
        check_text(sql).map_err(|error| Refusal::new("54001", error))
    }

    /// What clients ask of Postgres's catalog is rewritten for DataFusion, which answers some of it with
    /// NULL, or one row; what is asked of our relations is read as it is.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>, Refusal> {
        Self::check(sql)?;
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql);
        let is_about_server = names_server(sql) && !parsed.as_ref().is_ok_and(|statements| self.reads_ours(statements));
        let parsed = if is_about_server { self.server_parser.parse(sql) } else { parsed };
        let mut statements = parsed.map_err(|error| Refusal::from(&error).placed(sql))?;
        if is_about_server {
            for statement in &mut statements {
                if pg_catalog::simplify(statement) {
                    *statement = self.server_parser.rewrite(statement.clone());
                }
            }
        }
        Ok(statements.into_iter().map(|statement| fixed_setting(&statement).unwrap_or(statement)).collect())
    }

    /// What names nothing there is, with what it may have meant.
    fn misnamed(&self, error: &DataFusionError) -> Refusal {
        let refusal = Refusal::from(error);
        if refusal.error.mistake != Some(Mistake::NoRelation) {
            return refusal;
        }
        let relations = self.engine.relations();
        let readable = relations.iter().filter(|relation| relation.readable).map(|relation| relation.name.as_str());
        Refusal::from(planning_error_among(error, readable, "information_schema.tables lists what can be read"))
    }

    fn reads_ours(&self, statements: &[Statement]) -> bool {
        let relations = self.engine.relations();
        let is_ours = |name: &ObjectName| {
            let name = name.to_string().replace('"', "").to_lowercase();
            let local = name.strip_prefix("public.").unwrap_or(&name);
            relations.iter().any(|relation| relation.name.to_lowercase() == local)
        };
        let visited =
            visit_relations(&statements.to_vec(), |name| if is_ours(name) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        visited.is_break()
    }

    /// What `told` makes of the answer to one query, of at most `rows_max` rows. Cancel safe: nobody works on for
    /// who is gone.
    pub async fn query<T: Send + 'static>(
        self: &Arc<Self>,
        sql: String,
        rows_max: usize,
        told: fn(&Answer) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let reader = Arc::clone(self);
        let answering = async move {
            let (answer, _held) = reader.answer(&sql, rows_max).await?;
            told(&answer)
        };
        apart(TIME_MAX, answering).await
    }

    async fn answer(&self, sql: &str, rows_max: usize) -> Result<(Answer, MemoryReservation), Refusal> {
        let mut statements = self.parse(sql)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(Refusal::new("42601", Error::user("one query is wanted").hint("send each statement by itself")));
        };
        let plan = self.plan_whole(statement).await.map_err(|refusal| refusal.pointed(sql, 0))?;
        let (tick, plan) = self.freeze(plan).await?;
        let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
        let (batches, held) = self.gathered(computed(&self.session.state(), &plan).await?, rows_max).await?;
        Ok((Answer { tick, schema, batches }, held))
    }

    /// All rows, and the memory they hold. Errors: they are more than an answer may have.
    async fn gathered(
        &self,
        mut stream: SendableRecordBatchStream,
        rows_max: usize,
    ) -> Result<(Vec<RecordBatch>, MemoryReservation), Refusal> {
        let held = MemoryConsumer::new("answer").register(&self.session.runtime_env().memory_pool);
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            if rows > rows_max {
                return Err(Refusal::too_many_rows(rows_max));
            }
            let bytes = bytes_of(&batch);
            if BYTES_MAX < held.size() + bytes {
                return Err(Refusal::too_many_bytes());
            }
            held.try_grow(bytes)?;
            batches.push(batch);
        }
        Ok((batches, held))
    }

    /// The plan of a statement that is run as it is: nobody gives its parameters a value.
    pub async fn plan_whole(&self, statement: Statement) -> Result<LogicalPlan, Refusal> {
        let plan = self.plan(statement).await?;
        refuse_parameters(&plan)?;
        Ok(plan)
    }

    /// The plan of a statement that answers rows. It is to be frozen before it runs.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan, Refusal> {
        if !self.engine.is_recovered() {
            return Err(Refusal::starting(&self.engine));
        }
        match duty(&statement)? {
            Duty::Query => {
                let text = verb(&statement);
                let Statement::Query(query) = statement else { unreachable!("only queries are this duty") };
                check_size(&query, &self.engine.relations())?;
                let mut query = rewritten(&query)?;
                let shown = Shown::apart(&mut query)?;
                let statement = Statement::Query(Box::new(query));
                let planned = self.session.state().statement_to_plan(DfStatement::Statement(Box::new(statement))).await;
                let plan = sound(planned.map_err(|error| self.misnamed(&error))?)?;
                let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
                reads.verify_plan(&plan).map_err(|_| Refusal::read_only(&text))?;
                self.typed(shown.restored(plan)?)
            }
            Duty::Engine => {
                let sql = statement.to_string();
                let (schema, _) = self.ask(&sql).await?;
                let scan = Unfrozen { text: sql, is_statement: true, schema, kind: TableType::Temporary };
                Ok(LogicalPlanBuilder::scan("answer", provider_as_source(Arc::new(scan)), None)?.build()?)
            }
            Duty::Session | Duty::Courtesy(_) => {
                let error = Error::user(format!("{} answers no rows", verb(&statement)));
                Err(Refusal::new("0A000", error.hint("send a SELECT, SHOW or EXPLAIN")))
            }
        }
    }

    /// The plan with the types its rows will have, which are declared before there are any: where two types
    /// meet, as in CASE or UNION, DataFusion's planner leaves the first. A plan that has to wait for its
    /// parameters' types is left as it is.
    fn typed(&self, plan: LogicalPlan) -> Result<LogicalPlan, Refusal> {
        let typed = typed(plan.clone(), self.session.state().config_options());
        match typed {
            Err(_) if !plan.get_parameter_names()?.is_empty() => Ok(plan),
            typed => Ok(typed?),
        }
    }

    /// What the engine itself answers.
    async fn ask(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), Refusal> {
        let (engine, asked, mut asking) = (self.engine.clone(), sql.to_string(), JoinSet::new());
        // What it begins may outlast who asks, and the thread it is asked on.
        asking.spawn_on(async move { engine.execute(&asked, "query").await }, threads().handle());
        let Some(Ok(answered)) = asking.join_next().await else {
            return Err(Refusal::from(Error::engine(format!("{sql} was not answered"))));
        };
        match answered?.pop() {
            Some(Response::Rows { batches, schema, .. }) => Ok((schema, batches)),
            _ => Err(Refusal::from(Error::engine(format!("{sql} answered no rows")))),
        }
    }

    /// Puts rows into a plan: those of one tick, for all relations it reads.
    pub async fn freeze(&self, plan: LogicalPlan) -> Result<(Option<u64>, LogicalPlan), Refusal> {
        if pg_catalog::asks(&plan)? {
            self.known.learn(&self.session).await?;
        }
        let (names, statements) = unfrozen(&plan)?;
        let mut rows = BTreeMap::new();
        for sql in statements {
            let (_, batches) = self.ask(&sql).await?;
            rows.insert(sql, batches);
        }
        let mut tick = None;
        if !names.is_empty() || reads_clock(&plan) {
            let snapshot = self.engine.snapshot(&Vec::from_iter(names)).await?;
            tick = Some(snapshot.tick);
            rows.extend(snapshot.relations.into_iter().map(|(name, batch)| (name.to_lowercase(), vec![batch])));
        }
        let plan = plan.transform_down_with_subqueries(|node| fill(node, &rows))?.data;
        Ok((tick, if let Some(tick) = tick { at_tick(plan, tick)? } else { plan }))
    }

    /// A frozen plan, ready to run on a thread of its own.
    pub fn frame(&self, plan: LogicalPlan) -> DataFrame {
        DataFrame::new(self.apart.state(), plan)
    }
}

/// The engine's functions, our relations, Postgres's catalog; no disk.
fn session(engine: &Engine, known: &Known) -> DfResult<SessionContext> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, "public")
        .with_create_default_catalog_and_schema(false)
        .with_target_partitions(1)
        .with_batch_size(BATCH_ROWS);
    // Where an optimised plan says "never NULL" of what the physical one does not, rows are the same.
    config.options_mut().execution.skip_physical_aggregate_schema_check = true;
    let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_BYTES_MAX, 1.0).with_disk_manager_builder(no_disk).build_arc()?;
    let mut engines = state_builder();
    let mut types = Vec::from_iter(engines.type_planner().clone());
    let state = SessionStateBuilder::new_from_existing(engines.build())
        .with_config(config)
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .build();
    let session = SessionContext::new_with_state(state);
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("public", Arc::new(Relations { engine: engine.clone(), is_system: false }))?;
    catalog.register_schema(SYSTEM, Arc::new(Relations { engine: engine.clone(), is_system: true }))?;
    let catalog: Arc<dyn CatalogProvider> = Arc::new(catalog);
    session.register_catalog(CATALOG, Arc::clone(&catalog));
    setup_pg_catalog(&session, CATALOG, Roles).map_err(|error| *error)?;
    if let Some(theirs) = catalog.schema("pg_catalog") {
        catalog.register_schema("pg_catalog", Arc::new(PgCatalog { theirs, known: known.clone() }))?;
    }
    let information = InformationSchema::new(Arc::clone(session.state().catalog_list()));
    catalog.register_schema(INFORMATION_SCHEMA, Arc::new(information))?;
    // That has put its own types into the place of the engine's.
    let mut both = SessionStateBuilder::new_from_existing(session.state());
    types.extend(both.type_planner().take());
    *session.state_ref().write() = both.with_type_planner(Arc::new(Types(types))).build();
    session.register_udf(ScalarUDF::from(CurrentSetting::new()));
    pg_catalog::functions(known).into_iter().for_each(|function| session.register_udf(function));
    // psql's \df and \dT ask these of functions and types, of which all that are listed are the catalog's.
    session.register_udf(create_pg_table_is_visible().with_aliases(["pg_function_is_visible", "pg_type_is_visible"]));
    session.register_udf(create_pg_get_partkeydef_udf().with_aliases(["pg_get_function_result", "pg_get_function_arguments"]));
    Ok(session)
}

/// What types' names mean: the first that knows one says it.
#[derive(Debug)]
struct Types(Vec<Arc<dyn TypePlanner>>);

impl TypePlanner for Types {
    fn plan_type_field(&self, name: &ast::DataType) -> DfResult<Option<FieldRef>> {
        self.0.iter().find_map(|types| types.plan_type_field(name).transpose()).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_are_refused_before_they_are_parsed() {
        for (link, between) in [("1", " + "), ("1", " AND "), ("1", " UNION ALL SELECT ")] {
            let chain = |links: usize| format!("SELECT {}", vec![link; links].join(between));
            assert!(Reader::check(&chain(400)).is_ok());
            assert_eq!(Reader::check(&chain(600)).unwrap_err().code, "54001", "{between}");
        }
        assert_eq!(Reader::check(&format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300))).unwrap_err().code, "54001");
    }
}
