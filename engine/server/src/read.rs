//! Ad-hoc queries over the engine's relations, each at one closed tick.
//!
//! SQL       DataFusion's, with `pg_catalog` and `information_schema` as
//!           Postgres clients expect them. `EXPLAIN`, and `SHOW` of the
//!           engine's own words, are answered by the engine
//! Tick      a plan names its relations by [`Unfrozen`] scans; freezing a plan
//!           takes one snapshot of all of them, so a join of two views reads
//!           one tick. Nothing is kept between queries but names and schemas
//! Bounds    [`TIME_MAX`], [`ROWS_MAX`], [`BYTES_MAX`], [`MEMORY_BYTES_MAX`] over
//!           all queries at once; the error names the one that was met
//! Refuses   everything that writes, with SQLSTATE 25006

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{exec_err, plan_err};
use datafusion::datasource::{MemTable, TableType, provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableScan,
    TypeSignature, Volatility,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName, Set, Statement, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{create_pg_get_partkeydef_udf, create_pg_table_is_visible};
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::StreamExt;
use tidegate_runtime::{
    Engine, RelationInfo, Response, Shown, at_tick, bytes_of, check_size, check_text, end_of, misspelt_in, planning_error,
    planning_error_among, pointed_in, reads_clock, refuse_parameters, rewritten, sound, state_builder, typed, unplaced, view_over,
};
use tidegate_types::error::{Error, Mistake, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, yield_now};

mod information_schema;
mod pg_catalog;

use information_schema::InformationSchema;
use pg_catalog::{Known, PgCatalog, Roles};

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

/// So many queries may be planned at once.
const THREAD_COUNT: usize = 4;

/// Planning recurses with the query: room for the deepest one that is let through.
const STACK_BYTES: usize = 64 << 20;

/// The database's name, as clients see it.
pub const CATALOG: &str = "tidegate";

/// The prefix of the engine's own relations, and their schema.
const SYSTEM: &str = "sys";

/// What errors call the text that was sent.
const TEXT: &str = "query";

/// SQLSTATE cannot_connect_now.
pub const STARTING: &str = "57P03";

/// Why a query was not answered.
#[derive(Debug)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: &'static str,
    pub error: Error,
}

impl Refusal {
    pub fn new(code: &'static str, error: Error) -> Self {
        Self { code, error }
    }

    /// At what it names in the `nth` statement of `sql`, from 0 on.
    pub fn pointed(self, sql: &str, nth: usize) -> Self {
        Self { error: pointed_in(self.error, sql, nth, TEXT), ..self }
    }

    /// Where a parser found nothing more to read, that is at the end; or at a word that is misspelt.
    fn placed(self, sql: &str) -> Self {
        let end = end_of(sql);
        Self { error: misspelt_in(self.error.at(TEXT, end.line, end.column), sql, TEXT), ..self }
    }

    pub fn starting(engine: &Engine) -> Self {
        let error = Error::engine(format!("the engine is starting: {}", engine.health().reason));
        Self::new(STARTING, error.hint("ask again; /readyz tells when it is there"))
    }

    pub fn too_slow(limit: Duration) -> Self {
        let error = Error::user(format!("the query took longer than the {limit:?} allowed"));
        Self::new("57014", error.hint("keep it as a materialized view, and select from that"))
    }

    pub fn too_many_rows(limit: usize) -> Self {
        let error = Error::too_much(format!("the query answers more than the {limit} rows allowed"));
        Self::from(error.hint("add a WHERE or a LIMIT"))
    }

    pub fn too_many_bytes() -> Self {
        let error = Error::too_much(format!("the query answers more than the {} MiB allowed at once", BYTES_MAX >> 20));
        Self::from(error.hint("add a WHERE or a LIMIT, or ask with psql, which is sent rows as they come"))
    }

    pub fn read_only(what: &str) -> Self {
        let error = Error::user(format!("{what} is refused: this door is read-only"));
        Self::new(
            "25006",
            error.hint("put it into a pack's .sql files, or send it to POST /v1/execute of a tidegate run --allow-statements"),
        )
    }
}

impl From<&DataFusionError> for Refusal {
    fn from(error: &DataFusionError) -> Self {
        let root = error.find_root();
        if let DataFusionError::External(cause) = root
            && let Some(ours) = cause.downcast_ref::<Error>()
        {
            return Self::from(ours.clone());
        }
        let planning = planning_error(root);
        if planning.mistake.is_some() {
            return Self::from(planning);
        }
        // Only the first line: the rest is for DataFusion's developers.
        let said = root.message();
        let message = said.lines().next().unwrap_or_default();
        match root {
            DataFusionError::Plan(_) | DataFusionError::SQL(..) => Self::from(planning),
            DataFusionError::ResourcesExhausted(_) => {
                Self::new("53200", Error::user(message).hint("ask for fewer rows or groups at a time"))
            }
            _ => Self::new("XX000", Error::engine(message)),
        }
    }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        Self::from(&error)
    }
}

impl From<&ParserError> for Refusal {
    fn from(error: &ParserError) -> Self {
        let (ParserError::TokenizerError(message) | ParserError::ParserError(message)) = error else {
            return Self::new("54001", Error::user("the query is nested too deeply").hint("split it with WITH"));
        };
        let (message, place) = unplaced(message);
        let error = Error::user(message).mistake(Mistake::Syntax);
        Self::from(match place {
            Some(place) => error.at(TEXT, place.line, place.column),
            None => error,
        })
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(error.sqlstate(), error)
    }
}

/// Who answers a statement.
pub enum Duty {
    /// A query over the relations.
    Query,
    /// `EXPLAIN`, and `SHOW` of the engine's own words.
    Engine,
    /// Postgres's session talk: `SET`, `SHOW` of a setting, `BEGIN`.
    Session,
    /// Talk that needs no more than its tag.
    Courtesy(&'static str),
}

/// Errors: the statement writes, or would change the session for others.
pub fn duty(statement: &Statement) -> Result<Duty, Refusal> {
    Ok(match statement {
        Statement::Query(_) => Duty::Query,
        Statement::Explain { .. } | Statement::ExplainTable { .. } => Duty::Engine,
        Statement::ShowTables { .. } | Statement::ShowViews { .. } => Duty::Engine,
        Statement::ShowVariable { variable } if variable.is_empty() => {
            let error = Error::user("SHOW of nothing").hint("say what: SHOW TABLES, SHOW server_version");
            return Err(Refusal::new("42601", error));
        }
        Statement::ShowVariable { variable } if is_engines(variable) => Duty::Engine,
        Statement::Set(set) if names_planner(set) => {
            let error = Error::user("the planner's settings cannot be changed here");
            return Err(Refusal::new("42501", error.hint("leave the SET out")));
        }
        Statement::Set(_) | Statement::ShowVariable { .. } | Statement::ShowStatus { .. } | Statement::ShowCatalogs { .. } => Duty::Session,
        Statement::StartTransaction { .. } | Statement::Commit { .. } | Statement::Rollback { .. } => Duty::Session,
        Statement::Savepoint { .. } => Duty::Courtesy("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Duty::Courtesy("RELEASE"),
        Statement::Reset(_) => Duty::Courtesy("RESET"),
        Statement::Discard { .. } => Duty::Courtesy("DISCARD"),
        Statement::Deallocate { .. } => Duty::Courtesy("DEALLOCATE"),
        Statement::UNLISTEN { .. } => Duty::Courtesy("UNLISTEN"),
        Statement::Close { .. } => Duty::Courtesy("CLOSE CURSOR"),
        Statement::Declare { .. } | Statement::Fetch { .. } => {
            let way_out = "send the query itself: its rows are sent as they come, and a driver may take so many at a time in the protocol";
            return Err(Error::unsupported("a cursor declared by a statement", way_out).into());
        }
        Statement::Prepare { .. } | Statement::Execute { .. } => {
            let way_out = "send the query itself, or prepare it as drivers do, in the protocol";
            return Err(Error::unsupported("PREPARE or EXECUTE as a statement", way_out).into());
        }
        other => return Err(Refusal::read_only(&verb(other))),
    })
}

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

/// `SHOW DETECTIONS`, unlike `SHOW TimeZone`.
fn is_engines(variable: &[Ident]) -> bool {
    const WORDS: [&str; 8] = ["sources", "tables", "views", "materialized", "detections", "sinks", "actions", "functions"];
    variable.first().is_some_and(|word| WORDS.contains(&word.value.to_lowercase().as_str()))
}

/// DataFusion's own settings are shared by all connections.
fn names_planner(set: &Set) -> bool {
    set.to_string().to_lowercase().trim_start_matches("set ").starts_with("datafusion.")
}

/// `CREATE TABLE` of `CREATE TABLE t (…)`: the words before the first name.
fn verb(statement: &Statement) -> String {
    let text = statement.to_string();
    let words =
        text.split(|c: char| !c.is_ascii_alphabetic()).take_while(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase()));
    words.take(2).collect::<Vec<_>>().join(" ")
}

/// Rows, all of one tick.
pub struct Answer {
    /// Absent where neither a relation of the engine nor its clock was read.
    pub tick: Option<u64>,
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

/// The threads that reads are planned and run on. A plan cannot be interrupted while it is made: who waits
/// meanwhile are other readers, and neither the ticks nor what is at the doors besides.
pub fn threads() -> &'static Runtime {
    static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(THREAD_COUNT).thread_name("reader").thread_stack_size(STACK_BYTES).enable_all();
        threads.build().expect("threads can be started")
    });
    &THREADS
}

/// Plans and runs reads.
pub struct Reader {
    engine: Engine,
    session: Arc<SessionContext>,
    known: Known,
    server_parser: PostgresCompatibilityParser,
}

impl Reader {
    pub fn new(engine: Engine) -> Result<Self> {
        let known = Known::new(engine.clone());
        let session = session(&engine, &known).map_err(|error| Error::engine(format!("the SQL session cannot be set up: {error}")))?;
        Ok(Self { engine, session: Arc::new(session), known, server_parser: PostgresCompatibilityParser::new() })
    }

    /// The session all queries are planned in.
    pub fn session(&self) -> Arc<SessionContext> {
        self.session.clone()
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
        let (reader, mut work) = (Arc::clone(self), JoinSet::new());
        let answering = async move {
            let (answer, _held) = reader.answer(&sql, rows_max).await?;
            told(&answer)
        };
        work.spawn_on(answering, threads().handle());
        match tokio::time::timeout(TIME_MAX, work.join_next()).await {
            Ok(Some(Ok(told))) => told,
            Ok(_) => Err(Refusal::from(Error::engine("the planner failed on this query").hint("simplify it, and report it"))),
            Err(_) => Err(Refusal::too_slow(TIME_MAX)),
        }
    }

    async fn answer(&self, sql: &str, rows_max: usize) -> Result<(Answer, MemoryReservation), Refusal> {
        let mut statements = self.parse(sql)?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(Refusal::new("42601", Error::user("one query is wanted").hint("send each statement by itself")));
        };
        let plan = self.plan_whole(statement).await.map_err(|refusal| refusal.pointed(sql, 0))?;
        let (tick, plan) = self.freeze(plan).await?;
        let frame = self.frame(plan);
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let (batches, held) = self.gathered(frame.execute_stream().await?, rows_max).await?;
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
            // Rows may come without a pause, and only in one is a query given up.
            yield_now().await;
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
        let last = self.engine.execute(sql, "query").await?.pop();
        match last {
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

    /// A frozen plan, ready to run.
    pub fn frame(&self, plan: LogicalPlan) -> DataFrame {
        DataFrame::new(self.session.state(), plan)
    }
}

/// The relations and the engine's statements a plan reads.
fn unfrozen(plan: &LogicalPlan) -> DfResult<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut names, mut statements) = (BTreeSet::new(), BTreeSet::new());
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(unfrozen) = provider.downcast_ref::<Unfrozen>()
        {
            let set = if unfrozen.is_statement { &mut statements } else { &mut names };
            set.insert(unfrozen.text.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((names, statements))
}

fn fill(node: LogicalPlan, rows: &BTreeMap<String, Vec<RecordBatch>>) -> DfResult<Transformed<LogicalPlan>> {
    let scan = match node {
        LogicalPlan::TableScan(scan) => scan,
        other => return Ok(Transformed::no(other)),
    };
    let provider = source_as_provider(&scan.source)?;
    let Some(unfrozen) = provider.downcast_ref::<Unfrozen>() else {
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    };
    let Some(batches) = rows.get(&unfrozen.text.to_lowercase()).or_else(|| rows.get(&unfrozen.text)) else {
        return plan_err!("relation \"{}\" cannot be read any more", unfrozen.text);
    };
    let table = MemTable::try_new(unfrozen.schema.clone(), vec![unfrozen.checked(batches)?])?;
    Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source: provider_as_source(Arc::new(table)), ..scan })))
}

/// A relation, or a statement of the engine's, whose rows are not taken yet.
#[derive(Debug)]
struct Unfrozen {
    /// The relation's name, or the statement.
    text: String,
    is_statement: bool,
    schema: SchemaRef,
    kind: TableType,
}

impl Unfrozen {
    /// The rows under the schema that was planned with.
    fn checked(&self, batches: &[RecordBatch]) -> DfResult<Vec<RecordBatch>> {
        let under = |batch: &RecordBatch| RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec());
        let checked: Result<_, _> = batches.iter().map(under).collect();
        checked.or_else(|_| plan_err!("\"{}\" has changed since the query was prepared; prepare it again", self.text))
    }
}

#[async_trait::async_trait]
impl TableProvider for Unfrozen {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.kind
    }

    async fn scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> DfResult<Arc<dyn ExecutionPlan>> {
        exec_err!("\"{}\" was not frozen", self.text)
    }
}

/// The engine's relations as they are now, under `public` or under `sys`.
struct Relations {
    engine: Engine,
    is_system: bool,
}

impl Relations {
    /// The name within this schema, where the relation belongs to it.
    fn local<'a>(&self, name: &'a str) -> Option<&'a str> {
        match (name.split_once('.'), self.is_system) {
            (Some((schema, local)), true) if schema == SYSTEM => Some(local),
            (None, false) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Debug for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relations").field("is_system", &self.is_system).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl SchemaProvider for Relations {
    fn table_names(&self) -> Vec<String> {
        let all = self.engine.relations();
        all.iter().filter(|relation| relation.readable).filter_map(|relation| self.local(&relation.name)).map(String::from).collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let all = self.engine.relations();
        let Some(relation) = all.iter().find(|relation| self.local(&relation.name) == Some(name)) else { return Ok(None) };
        if !relation.readable {
            let error = Error::user(format!("{} \"{name}\" cannot be read: its rows are not kept", relation.kind));
            let error = error.hint("create a materialized view over it, and select from that");
            return Err(DataFusionError::External(Box::new(error)));
        }
        match &relation.query {
            Some(query) => view_over(query, |name| unfrozen_relation(&all, name)).map(Some),
            None => unfrozen_relation(&all, &relation.name).map(Some),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.engine.relations().iter().any(|relation| relation.readable && self.local(&relation.name) == Some(name))
    }
}

fn unfrozen_relation(all: &[RelationInfo], name: &str) -> DfResult<Arc<dyn TableProvider>> {
    let Some(relation) = all.iter().find(|relation| relation.name == name) else {
        return plan_err!("table '{name}' not found");
    };
    let kind = if relation.kind == "table" { TableType::Base } else { TableType::View };
    let (text, schema) = (relation.name.clone(), relation.schema.clone());
    Ok(Arc::new(Unfrozen { text, is_statement: false, schema, kind }))
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

/// `current_setting(name [, missing_ok])`, which Grafana and drivers ask.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    signature: Signature,
}

impl CurrentSetting {
    fn new() -> Self {
        let one = TypeSignature::Exact(vec![DataType::Utf8]);
        let two = TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]);
        Self { signature: Signature::one_of(vec![one, two], Volatility::Stable) }
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(ColumnarValue::Scalar(name)) = args.args.first() else {
            return exec_err!("current_setting takes a constant name");
        };
        let is_missing_ok = matches!(args.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        let value = match name.try_as_str().flatten() {
            None => None,
            Some(name) => match setting(&name.to_lowercase()) {
                Some(value) => Some(value.to_string()),
                None if is_missing_ok => None,
                None => return exec_err!("unrecognized configuration parameter \"{name}\""),
            },
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
    }
}

/// SHOW of what no client can set, as the query that answers it.
fn fixed_setting(statement: &Statement) -> Option<Statement> {
    const SET_BY_CLIENTS: [&str; 6] =
        ["application_name", "bytea_output", "datestyle", "extra_float_digits", "intervalstyle", "search_path"];
    let Statement::ShowVariable { variable } = statement else { return None };
    let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    let name = match words.join(" ").as_str() {
        "timezone" => return Some(Statement::ShowVariable { variable: vec![Ident::new("time"), Ident::new("zone")] }),
        "transaction isolation level" => "transaction_isolation".to_string(),
        name => name.to_string(),
    };
    let is_fixed = !SET_BY_CLIENTS.contains(&&name[..]) && setting(&name).is_some();
    let query = is_fixed.then(|| format!("SELECT current_setting('{name}') AS {name}"))?;
    Parser::parse_sql(&PostgreSqlDialect {}, &query).ok()?.pop()
}

/// What we say we are, which decides what drivers dare to ask.
fn setting(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_version" => "16.6",
        "server_version_num" => "160006",
        "server_encoding" | "client_encoding" => "UTF8",
        "search_path" => "\"$user\", public",
        "timezone" => "UTC",
        "datestyle" => "ISO, MDY",
        "intervalstyle" => "postgres",
        "integer_datetimes" | "standard_conforming_strings" => "on",
        "jit" | "row_security" => "off",
        "lc_collate" | "lc_ctype" => "C",
        "bytea_output" => "hex",
        "transaction_read_only" | "default_transaction_read_only" => "on",
        "transaction_isolation" | "default_transaction_isolation" => "repeatable read",
        "is_superuser" => "off",
        "max_identifier_length" => "63",
        "application_name" => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_types::error::Fault;

    use super::*;

    fn judged(sql: &str) -> Result<Duty, Refusal> {
        duty(&Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap()[0])
    }

    #[test]
    fn what_no_client_sets_is_shown_as_it_is_set() {
        let shown = |sql: &str| fixed_setting(&Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap()[0]).map(|query| query.to_string());
        assert_eq!(shown("SHOW Server_Version").unwrap(), "SELECT current_setting('server_version') AS server_version");
        assert_eq!(
            shown("SHOW transaction isolation level").unwrap(),
            "SELECT current_setting('transaction_isolation') AS transaction_isolation"
        );
        assert_eq!(shown("SHOW TimeZone").unwrap(), "SHOW time zone");
        assert_eq!(
            [shown("SHOW statement_timeout"), shown("SHOW search_path"), shown("SHOW ALL"), shown("SELECT 1")],
            [None, None, None, None]
        );
    }

    #[test]
    fn long_chains_are_refused_before_they_are_parsed() {
        for (link, between) in [("1", " + "), ("1", " AND "), ("1", " UNION ALL SELECT ")] {
            let chain = |links: usize| format!("SELECT {}", vec![link; links].join(between));
            assert!(Reader::check(&chain(400)).is_ok());
            assert_eq!(Reader::check(&chain(600)).unwrap_err().code, "54001", "{between}");
        }
        assert_eq!(Reader::check(&format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300))).unwrap_err().code, "54001");
    }

    #[test]
    fn what_is_wrong_with_the_input_is_not_the_engines_fault() {
        let drawn = "regex parse error:\n    (\n    ^\nerror: unclosed group";
        let cases = [
            (DataFusionError::External(drawn.into()).context("Invalid regex"), "2201B", "invalid regular expression: unclosed group"),
            (
                DataFusionError::Execution(format!("it did not compile: Syntax(\n~~~~\n{drawn}\n~~~~\n)")),
                "2201B",
                "invalid regular expression: unclosed group",
            ),
            (DataFusionError::External("too big".into()), "22000", "too big"),
            (DataFusionError::Execution("no number".into()), "22000", "no number"),
        ];
        for (error, code, message) in cases {
            let refusal = Refusal::from(error);
            assert_eq!((refusal.code, refusal.error.fault, &refusal.error.message[..]), (code, Fault::User, message));
        }
        let refusal = Refusal::from(DataFusionError::Internal("x".into()));
        assert_eq!((refusal.code, refusal.error.fault), ("XX000", Fault::Engine));
    }

    #[test]
    fn reads_pass_and_writes_are_refused() {
        for sql in ["SELECT 1", "WITH x AS (SELECT 1) SELECT * FROM x", "VALUES (1)"] {
            assert!(matches!(judged(sql), Ok(Duty::Query)), "{sql}");
        }
        for sql in ["EXPLAIN SELECT 1", "SHOW TABLES", "SHOW detections"] {
            assert!(matches!(judged(sql), Ok(Duty::Engine)), "{sql}");
        }
        for sql in ["SET extra_float_digits = 3", "SHOW TimeZone", "BEGIN", "COMMIT", "ROLLBACK"] {
            assert!(matches!(judged(sql), Ok(Duty::Session)), "{sql}");
        }
        for (sql, verb) in [
            ("INSERT INTO t VALUES (1)", "INSERT INTO is refused"),
            ("CREATE TABLE t (a INT)", "CREATE TABLE is refused"),
            ("DROP TABLE t", "DROP TABLE is refused"),
            ("DELETE FROM t", "DELETE FROM is refused"),
            ("COPY t TO STDOUT", "COPY is refused"),
        ] {
            let Err(refusal) = judged(sql) else { panic!("{sql}") };
            assert_eq!(refusal.code, "25006");
            assert!(refusal.error.message.starts_with(verb), "{}", refusal.error.message);
        }
        for nothing in ["SHOW", "SHOW SESSION"] {
            assert!(matches!(judged(nothing), Err(Refusal { code: "42601", .. })), "{nothing}");
        }
        assert!(matches!(judged("SET datafusion.execution.batch_size = 1"), Err(Refusal { code: "42501", .. })));
    }
}
