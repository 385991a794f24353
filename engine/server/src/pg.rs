//! Read-only SQL over the Postgres wire protocol.
//!
//! Protocol  simple and extended, text and binary, cancel; no TLS and no
//!           passwords yet, so it listens on loopback unless told otherwise
//! Tick      each statement reads one closed tick, also when it joins views;
//!           a prepared one is planned once and reads anew at each execution
//! Bounds    connections as in [`crate::door`], [`CONNECTIONS_MAX`] where no
//!           option says another number; [`STARTUP_TIME_MAX`]; messages as in
//!           [`session`]; and those of [`crate::read`]; a client's own
//!           `statement_timeout` may only be shorter
//! Errors    SQLSTATE, position in the query and hint, as psql shows them
//! Types     Postgres's; for lists of lists and for maps it has none, and they are sent as text: see [`nested`]
//! Refuses   what writes: SQLSTATE 25006. `SET`, `BEGIN`, `COMMIT` and the like
//!           are answered as drivers expect, and change nothing for others

mod nested;
mod session;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::{DFSchema, ParamValues};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::arrow_pg::datatypes::df;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::noop::NoopStartupHandler;
use datafusion_postgres::pgwire::api::cancel::DefaultCancelHandler;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, ConnectionManager, ErrorHandler, Type};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use datafusion_postgres::pgwire::types::format::FormatOptions;
use datafusion_postgres::{DfSessionService, Parser, QueryHook};
use futures::{Sink, StreamExt, stream};
use tidegate_runtime::Engine;
use tidegate_types::error::{Error, Place, Result};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use self::session::converse;
use crate::door::{Seat, Seats, Tally, accept, seats_affordable};
use crate::read::{Duty, ROWS_MAX, Reader, Refusal, TIME_MAX, apart, duty, threads};

/// Connections at once, where no option says another number.
pub const CONNECTIONS_MAX: usize = 200;

/// A client that has not introduced itself by then gives its seat back.
pub const STARTUP_TIME_MAX: Duration = Duration::from_secs(10);

/// How many clients there may be, and how long each may take to introduce itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// None: [`CONNECTIONS_MAX`], or what the process may open files for.
    pub connections_max: Option<usize>,
    pub startup_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: None, startup_time_max: STARTUP_TIME_MAX }
    }
}

/// Listens, serves on the readers' threads, and returns the address it is bound to.
pub async fn serve(engine: Engine, listen: SocketAddr, limits: Limits) -> Result<SocketAddr> {
    // What listens belongs to the threads that serve, and outlives the caller's.
    let bound = threads().spawn(crate::bind("--listen-pg", listen)).await;
    let (listener, bound) = bound.map_err(|error| Error::engine(format!("nobody listens for Postgres: {error}")))??;
    let metrics = engine.metrics();
    let labels = &["postgres"];
    let (seated, turned_away) =
        (metrics.door_connections.with_label_values(labels), metrics.door_refused_connections.with_label_values(labels));
    let tally = Tally::new("postgres", &["startup"], seated, turned_away, metrics.door_cut_connections.clone());
    let connections_max = seats_affordable("--pg-connections", limits.connections_max, CONNECTIONS_MAX);
    let door = Door::new(Reader::new(engine)?);
    let seat = move |socket: TcpStream, seat: Seat| attend(socket, door.for_one(), seat, limits.startup_time_max);
    threads().spawn(accept(listener, Seats::new(connections_max, tally), full(connections_max), seat));
    Ok(bound)
}

async fn attend(socket: TcpStream, door: Door, seat: Seat, startup_time_max: Duration) {
    let startup = door.startup.clone();
    let is_late = async {
        if timeout(startup_time_max, startup.done.notified()).await.is_ok() {
            std::future::pending().await
        }
    };
    tokio::select! {
        ended = converse(socket, door) => tracing::debug!("a Postgres connection ended: {ended:?}"),
        () = is_late => seat.tally.cut("startup"),
    }
    drop(seat);
}

/// The protocol's refusal, by hand: there is no session to send it from.
fn full(connections_max: usize) -> Vec<u8> {
    let hint = "close what is not needed and come again, or start the engine with more --pg-connections";
    let fields = format!("SFATAL\0VFATAL\0C53300\0Mall {connections_max} connections are in use\0H{hint}\0\0");
    let mut message = vec![b'E'];
    message.extend((4 + fields.len() as u32).to_be_bytes());
    message.extend(fields.as_bytes());
    message
}

/// Who answers. All connections share it, but for `startup`.
struct Door {
    service: Arc<Service>,
    startup: Arc<Startup>,
    cancel: Arc<DefaultCancelHandler>,
}

impl Door {
    fn new(reader: Reader) -> Self {
        let connections = Arc::new(ConnectionManager::new());
        Self {
            service: Arc::new(Service::new(Arc::new(reader))),
            startup: Arc::new(Startup { connections: connections.clone(), done: Notify::new() }),
            cancel: Arc::new(DefaultCancelHandler::new(connections)),
        }
    }

    fn for_one(&self) -> Self {
        let startup = Startup { connections: self.startup.connections.clone(), done: Notify::new() };
        Self { service: self.service.clone(), startup: Arc::new(startup), cancel: self.cancel.clone() }
    }
}

/// One connection's.
struct Startup {
    connections: Arc<ConnectionManager>,
    /// The client has introduced itself.
    done: Notify,
}

#[async_trait]
impl NoopStartupHandler for Startup {
    fn connection_manager(&self) -> Option<Arc<ConnectionManager>> {
        Some(self.connections.clone())
    }

    async fn post_startup<C>(&self, _: &mut C, _: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.done.notify_one();
        Ok(())
    }
}

/// Gives DataFusion's errors their SQLSTATE, and strips what is not for users.
struct Teller;

impl ErrorHandler for Teller {
    fn on_error<C: ClientInfo>(&self, _: &C, error: &mut PgWireError) {
        let PgWireError::ApiError(cause) = error else { return };
        let refusal = match (cause.downcast_ref::<DataFusionError>(), cause.downcast_ref::<ParserError>()) {
            (Some(cause), _) => Refusal::from(cause),
            (None, Some(cause)) => Refusal::from(cause),
            (None, None) => return,
        };
        *error = told(refusal);
    }
}

fn told(refusal: Refusal) -> PgWireError {
    told_in("", refusal)
}

/// With its position in the `sql` that was sent, for clients that show it there.
fn told_in(sql: &str, refusal: Refusal) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), refusal.code.into(), refusal.error.message);
    info.hint = refusal.error.hint;
    info.position = refusal.error.place.filter(|place| 0 < place.line && !sql.is_empty()).map(|place| position(&place, sql).to_string());
    PgWireError::UserError(Box::new(info))
}

/// In characters, from 1 on.
fn position(place: &Place, sql: &str) -> u64 {
    let before: usize = sql.split_inclusive('\n').take(place.line as usize - 1).map(|line| line.chars().count()).sum();
    before as u64 + place.column
}

/// What `datafusion-postgres` keeps of a prepared statement.
type Prepared = (String, Option<(Statement, LogicalPlan)>);

/// A statement of a simple query: the `nth` of `sql`.
struct Asked<'a> {
    statement: Statement,
    sql: &'a str,
    nth: usize,
}

struct Service {
    reader: Arc<Reader>,
    hooks: Vec<Arc<dyn QueryHook>>,
    preparer: Arc<Preparer>,
    /// Binds; the plans it runs are frozen ones.
    inner: DfSessionService,
}

impl Service {
    fn new(reader: Arc<Reader>) -> Self {
        let hooks: Vec<Arc<dyn QueryHook>> = vec![Arc::new(Manners), Arc::new(SetShowHook), Arc::new(TransactionStatementHook)];
        let inner = DfSessionService::new_with_hooks(reader.session_apart(), hooks.clone());
        let preparer = Arc::new(Preparer { reader: reader.clone(), hooks: hooks.clone(), types: inner.query_parser() });
        Self { reader, hooks, preparer, inner }
    }

    /// The answer to one statement of a simple query.
    async fn answer(&self, client: &mut dyn HookClient, asked: Asked<'_>) -> PgWireResult<Response> {
        let scratch = self.reader.scratch();
        for hook in &self.hooks {
            if let Some(response) = hook.handle_simple_query(&asked.statement, &scratch, client).await {
                return response;
            }
        }
        let limit = time_limit(client.metadata().get(STATEMENT_TIMEOUT));
        let deadline = Instant::now() + limit;
        let options = FormatOptions::from_client_metadata(client.metadata());
        let rows = timeout_at(deadline, self.rows(asked, options)).await;
        let rows = rows.unwrap_or_else(|_| Err(told(Refusal::too_slow(limit))))?;
        Ok(Response::Query(bounded(rows, deadline, limit)))
    }

    async fn rows(&self, asked: Asked<'_>, options: FormatOptions) -> PgWireResult<QueryResponse> {
        let Asked { statement, sql, nth } = asked;
        let reader = self.reader.clone();
        let plan = apart(TIME_MAX, async move { reader.plan_whole(statement).await }).await;
        let plan = plan.map_err(|refusal| told_in(sql, refusal.pointed(sql, nth)))?;
        let plan = nested::as_text(plan).map_err(|error| told(Refusal::from(error)))?;
        let (_, plan) = self.reader.freeze(plan).await.map_err(told)?;
        df::encode_dataframe(self.reader.frame(plan), &Format::UnifiedText, Some(Arc::new(options))).await
    }

    /// The same portal, over the rows of the present tick.
    async fn frozen(&self, portal: &Portal<Prepared>) -> PgWireResult<Portal<Prepared>> {
        let stored = &portal.statement;
        let mut statement = stored.statement.clone();
        check_formats(&portal.parameter_format, portal.parameters.len(), "parameters")?;
        if let (_, Some((_, plan))) = &mut statement {
            check_formats(&portal.result_column_format, plan.schema().fields().len(), "columns")?;
            let (_, frozen) = self.reader.freeze(plan.clone()).await.map_err(told)?;
            *plan = frozen;
        }
        let mut frozen = Portal::default();
        frozen.name = portal.name.clone();
        frozen.statement = Arc::new(StoredStatement::new(stored.id.clone(), statement, stored.parameter_types.clone()));
        frozen.parameter_format = portal.parameter_format.clone();
        frozen.parameters = portal.parameters.clone();
        frozen.result_column_format = portal.result_column_format.clone();
        Ok(frozen)
    }
}

#[async_trait]
impl SimpleQueryHandler for Service {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.reader.parse(query).map_err(|refusal| told_in(query, refusal))?;
        // Grafana's health check is the comment `-- ping`.
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::with_capacity(statements.len());
        for (nth, statement) in statements.into_iter().enumerate() {
            responses.push(self.answer(client, Asked { statement, sql: query, nth }).await?);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Service {
    type Statement = Prepared;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        self.preparer.clone()
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, rows_max: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let limit = time_limit(client.metadata().get(STATEMENT_TIMEOUT));
        let deadline = Instant::now() + limit;
        let executed = timeout_at(deadline, async {
            let frozen = self.frozen(portal).await?;
            ExtendedQueryHandler::do_query(&self.inner, client, &frozen, rows_max).await
        });
        match executed.await.unwrap_or_else(|_| Err(told(Refusal::too_slow(limit))))? {
            Response::Query(rows) => Ok(Response::Query(bounded(rows, deadline, limit))),
            other => Ok(other),
        }
    }
}

/// Parses and plans what is prepared.
struct Preparer {
    reader: Arc<Reader>,
    hooks: Vec<Arc<dyn QueryHook>>,
    /// Tells the types of parameters and columns.
    types: Arc<Parser>,
}

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = self.reader.parse(sql).map_err(|refusal| told_in(sql, refusal))?;
        let Some(statement) = statements.pop() else { return Ok(None) };
        if !statements.is_empty() {
            let error = Error::user("several statements cannot be prepared as one").hint("prepare each by itself");
            return Err(told(Refusal::new("42601", error)));
        }
        if let Ok(Duty::Query | Duty::Engine) = duty(&statement) {
            let (reader, asked) = (self.reader.clone(), statement.clone());
            let plan = apart(TIME_MAX, async move { reader.plan(asked).await }).await;
            let plan = plan.map_err(|refusal| told_in(sql, refusal.pointed(sql, 0)))?;
            let plan = nested::as_text(plan).map_err(|error| told(Refusal::from(error)))?;
            return Ok(Some((statement.to_string(), Some((statement, plan)))));
        }
        let session = self.reader.session();
        for hook in &self.hooks {
            if let Some(plan) = hook.handle_extended_parse_query(&statement, &session, client).await {
                return Ok(Some((statement.to_string(), Some((statement, plan?)))));
            }
        }
        let plan = session.state().statement_to_plan(DfStatement::Statement(Box::new(statement.clone()))).await;
        let plan = plan.map_err(|error| told(Refusal::from(error)))?;
        Ok(Some((statement.to_string(), Some((statement, plan)))))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        self.types.get_parameter_types(prepared)
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        if let (Some(format), (_, Some((_, plan)))) = (format, prepared) {
            check_formats(format, plan.schema().fields().len(), "columns")?;
        }
        self.types.get_result_schema(prepared, format)
    }
}

/// Errors: some have a format, and others have not. pgwire looks up each one's.
fn check_formats(format: &Format, count: usize, of: &str) -> PgWireResult<()> {
    match format {
        Format::Individual(formats) if formats.len() != count => {
            let error = Error::user(format!("there are {} formats for {count} {of}", formats.len()));
            Err(told(Refusal::new("08P01", error.hint("give one for all, or one for each"))))
        }
        _ => Ok(()),
    }
}

/// Where `SetShowHook` keeps a client's `statement_timeout`, in milliseconds.
const STATEMENT_TIMEOUT: &str = "statement_timeout_ms";

fn time_limit(wanted_ms: Option<&String>) -> Duration {
    let wanted = wanted_ms.and_then(|text| text.parse().ok()).map(Duration::from_millis);
    wanted.map_or(TIME_MAX, |wanted| wanted.min(TIME_MAX))
}

/// The rows, until there are too many or it takes too long.
fn bounded(answer: QueryResponse, deadline: Instant, limit: Duration) -> QueryResponse {
    let QueryResponse { command_tag, row_schema, data_rows, .. } = answer;
    let rows = stream::unfold((data_rows, 0), move |(mut rows, count)| async move {
        let row = match timeout_at(deadline, rows.next()).await {
            Ok(None) => return None,
            Ok(Some(_)) if count == ROWS_MAX => Err(told(Refusal::too_many_rows(ROWS_MAX))),
            Ok(Some(row)) => row,
            Err(_) => Err(told(Refusal::too_slow(limit))),
        };
        Some((row, (rows, count + 1)))
    });
    let mut bounded = QueryResponse::new(row_schema, rows);
    bounded.set_command_tag(&command_tag);
    bounded
}

/// Refuses what writes, and answers courtesies; the rest is for the next hook.
struct Manners;

impl Manners {
    fn respond(&self, statement: &Statement) -> Option<PgWireResult<Response>> {
        match duty(statement) {
            Err(refusal) => Some(Err(told(refusal))),
            Ok(Duty::Courtesy(tag)) => Some(Ok(Response::Execution(Tag::new(tag)))),
            Ok(_) => None,
        }
    }
}

#[async_trait]
impl QueryHook for Manners {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.respond(statement)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        match duty(statement) {
            Err(refusal) => Some(Err(told(refusal))),
            Ok(Duty::Courtesy(_)) => {
                let nothing = EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) };
                Some(Ok(LogicalPlan::EmptyRelation(nothing)))
            }
            Ok(Duty::Query | Duty::Engine | Duty::Session) => None,
        }
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.respond(statement)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_connectors::Inbox;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_postgres::error::ErrorPosition;
    use tokio_postgres::{NoTls, SimpleQueryMessage, SimpleQueryRow};

    use super::*;

    /// A `StartupMessage` of protocol 3.0.
    fn introduction() -> Vec<u8> {
        let fields = b"user\0me\0database\0tidegate\0\0";
        [&(8 + fields.len() as u32).to_be_bytes(), &196_608u32.to_be_bytes(), fields.as_slice()].concat()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_does_not_introduce_himself_is_let_go() {
        let engine = crate::tests::engine(Inbox::default());
        let limits = Limits { startup_time_max: Duration::from_millis(300), ..Limits::default() };
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
        let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];
        // Nothing, half an introduction, a question, and the question's half.
        for said in [b"".as_slice(), &introduction()[..9], &ssl_request, &ssl_request[..5]] {
            let mut socket = TcpStream::connect(to).await.unwrap();
            socket.write_all(said).await.unwrap();
            let ended = timeout(Duration::from_secs(5), socket.read_to_end(&mut Vec::new())).await;
            assert!(ended.is_ok(), "still open after {said:?}");
        }
        // Who did may be silent for longer.
        let mut socket = TcpStream::connect(to).await.unwrap();
        socket.write_all(&introduction()).await.unwrap();
        let ended = timeout(Duration::from_millis(900), socket.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_err(), "closed after its introduction");
        assert_eq!(engine.metrics().door_cut_connections.with_label_values(&["postgres", "startup"]).get(), 4);
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_more_than_there_are_seats_is_told_so() {
        let engine = crate::tests::engine(Inbox::default());
        let limits = Limits { connections_max: Some(1), ..Limits::default() };
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
        let mut seated = TcpStream::connect(to).await.unwrap();
        seated.write_all(&introduction()).await.unwrap();
        assert_eq!(seated.read_u8().await.unwrap(), b'R');
        let mut other = TcpStream::connect(to).await.unwrap();
        other.write_all(&introduction()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(20), other.read_to_end(&mut answer)).await.expect("an end").unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with('E') && answer.contains("C53300") && answer.contains("--pg-connections"), "{answer:?}");
        let metrics = engine.metrics();
        assert_eq!(metrics.door_connections.with_label_values(&["postgres"]).get(), 1);
        assert_eq!(metrics.door_refused_connections.with_label_values(&["postgres"]).get(), 1);
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_that_never_pause_end_and_hold_up_nobody() {
        const MANY: &str = "generate_series(1, 3000000)";
        let engine = crate::tests::engine(Inbox::default());
        engine.recovered().await.unwrap();
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), Limits::default()).await.unwrap();
        let address = format!("host={} port={} user=me dbname=tidegate", to.ip(), to.port());
        // No join finds a match, and no aggregate ends.
        let endless = [
            format!("SELECT count(*) FROM {MANY} a(x), {MANY} b(y) WHERE sin(a.x * 1.0) + b.y = -1"),
            format!("SELECT count(*) FROM {MANY} a(x) JOIN {MANY} b(y) ON a.x % 2 = b.y % 2 AND sin(a.x * 1.0) + b.y = -1"),
            format!("SELECT sum(a.x + b.y) FROM {MANY} a(x), {MANY} b(y)"),
            format!("SELECT max(m) FROM (SELECT median(x) OVER (ORDER BY x) AS m FROM {MANY} a(x))"),
        ];
        let asking = (0..20).map(|nth| {
            let (address, sql) = (address.clone(), endless[nth % endless.len()].clone());
            tokio::spawn(async move {
                let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
                tokio::spawn(connection);
                client.simple_query("SET statement_timeout = 500").await.unwrap();
                let error = if nth % 2 == 0 {
                    client.simple_query(&sql).await.map(drop).unwrap_err()
                } else {
                    client.query(&sql, &[]).await.map(drop).unwrap_err()
                };
                assert_eq!(error.code().map(|state| state.code()), Some("57014"), "{sql}: {error:?}");
            })
        });
        for asked in asking.collect::<Vec<_>>() {
            asked.await.unwrap();
        }
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        tokio::spawn(connection);
        let one = client.query_one("SELECT count(*) FROM generate_series(1, 1000) a(x)", &[]).await.unwrap();
        assert_eq!(one.get::<_, i64>(0), 1000);
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_described_is_what_is_sent() {
        let engine = crate::tests::engine(Inbox::default());
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), Limits::default()).await.unwrap();
        let made = "CREATE TABLE t (k INT, d DOUBLE PRECISION, b BOOLEAN, s TEXT); INSERT INTO t VALUES (1, 2.5, true, 'x')";
        engine.execute(made, "test").await.unwrap();
        let address = format!("host={} port={} user=me dbname=tidegate", to.ip(), to.port());
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        tokio::spawn(connection);
        for (sql, expected) in [
            ("SELECT k FROM t UNION ALL SELECT 1.5 ORDER BY 1", vec![1.0, 1.5]),
            ("SELECT CASE WHEN b THEN k ELSE d END FROM t", vec![1.0]),
        ] {
            let statement = client.prepare(sql).await.unwrap();
            assert_eq!(statement.columns()[0].type_(), &Type::FLOAT8, "{sql}");
            // In binary, which is read as it was described.
            let rows = client.query(&statement, &[]).await.unwrap();
            assert_eq!(rows.iter().map(|row| row.get::<_, f64>(0)).collect::<Vec<_>>(), expected, "{sql}");
        }
        // Also where a parameter has a say in it.
        let statement = client.prepare("SELECT CASE WHEN b THEN k ELSE d END FROM t WHERE k = $1").await.unwrap();
        assert_eq!((statement.params(), statement.columns()[0].type_()), (&[Type::INT4][..], &Type::FLOAT8));
        assert_eq!(client.query_one(&statement, &[&1i32]).await.unwrap().get::<_, f64>(0), 1.0);
        for (sql, code) in [("SELECT s ~ '(' FROM t", "2201B"), ("SELECT CAST(s AS INT) FROM t", "22P02"), ("SELECT k / 0 FROM t", "22012")]
        {
            let simple = client.simple_query(sql).await.unwrap_err();
            let extended = client.query(sql, &[]).await.unwrap_err();
            for error in [simple, extended] {
                assert_eq!(error.code().map(|state| state.code()), Some(code), "{sql}: {error:?}");
            }
        }
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_refused_has_a_position_and_a_way_out() {
        let engine = crate::tests::engine(Inbox::default());
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), Limits::default()).await.unwrap();
        engine.execute("CREATE TABLE t (id INT, s TEXT)", "test").await.unwrap();
        let address = format!("host={} port={} user=me dbname=tidegate", to.ip(), to.port());
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        tokio::spawn(connection);
        let check = |sql: &str, error: tokio_postgres::Error, code: &str, position: u32, hint: Option<&str>| {
            let told = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
            assert_eq!((told.code().code(), told.position()), (code, Some(&ErrorPosition::Original(position))), "{sql}: {told:?}");
            assert_eq!(told.hint(), hint, "{sql}");
        };
        for (sql, code, position, hint) in [
            ("SELECT 'ä', ids FROM t", "42703", 13, Some("did you mean \"id\"?")),
            ("SELECT id\nFROM tt", "42P01", 16, Some("did you mean \"t\"?")),
            ("SELECT id FROM t WHERE", "42601", 23, None),
            ("SELECT upperr(s) FROM t", "42883", 8, Some("did you mean upper()?")),
            ("SELECT ~id FROM t", "0A000", 8, Some("write -1 - x")),
            ("SELECT * form t", "42601", 10, Some("did you mean FROM?")),
            ("SELECT id FROM t FOR UPDATE", "0A000", 18, Some("leave it out: a read sees one closed tick")),
            ("SELECT id FROM t LIMIT -1", "2201W", 18, Some("leave it out for all rows")),
            ("SELECT (t).id FROM t", "0A000", 9, Some("write t.id for column id of t")),
            (
                "SELECT id::DECIMAL(50, 2) FROM t",
                "0A000",
                12,
                Some("a DECIMAL has 1 to 38 digits, and 0 to all of them behind the point: DECIMAL(38, 9)"),
            ),
            (
                "SELECT id FROM t WHERE DATE '2024-13-01' < now()",
                "22008",
                29,
                Some("write a time that there is, as in '2024-12-31' or '2024-12-31 23:59:59.999'"),
            ),
        ] {
            check(sql, client.simple_query(sql).await.unwrap_err(), code, position, hint);
            check(sql, client.prepare(sql).await.unwrap_err(), code, position, hint);
        }
        let unbound = "SELECT id FROM t WHERE id = $1";
        let way_out = Some("write the value, or prepare the query and bind it");
        check(unbound, client.simple_query(unbound).await.unwrap_err(), "42P02", 29, way_out);
        let second = "SELECT 1; SELECT id, ids FROM t";
        check(second, client.simple_query(second).await.unwrap_err(), "42703", 22, Some("did you mean \"id\"?"));
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_psql_asks_is_answered_or_refused_by_name() {
        let engine = crate::tests::engine(Inbox::default());
        engine.recovered().await.unwrap();
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), Limits::default()).await.unwrap();
        let address = format!("host={} port={} user=me dbname=tidegate", to.ip(), to.port());
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        tokio::spawn(connection);
        let functions = r#"SELECT n.nspname as "Schema", p.proname as "Name",
              pg_catalog.pg_get_function_result(p.oid) as "Result data type",
              pg_catalog.pg_get_function_arguments(p.oid) as "Argument data types",
              CASE p.prokind WHEN 'a' THEN 'agg' WHEN 'w' THEN 'window' WHEN 'p' THEN 'proc' ELSE 'func' END as "Type"
            FROM pg_catalog.pg_proc p LEFT JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE pg_catalog.pg_function_is_visible(p.oid) AND n.nspname <> 'pg_catalog' AND n.nspname <> 'information_schema'
            ORDER BY 1, 2, 4"#;
        let roles = "SELECT r.rolname, r.rolsuper, ARRAY(SELECT b.rolname FROM pg_catalog.pg_auth_members m
              JOIN pg_catalog.pg_roles b ON (m.roleid = b.oid) WHERE m.member = r.oid) as memberof, r.rolbypassrls
            FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1";
        for asked in [functions, roles] {
            client.simple_query(asked).await.unwrap_or_else(|error| panic!("{asked}: {error:?}"));
        }
        for refused in ["PREPARE p AS SELECT 1", "EXECUTE p", "DECLARE c CURSOR FOR SELECT 1"] {
            let error = client.simple_query(refused).await.unwrap_err();
            assert_eq!(error.code().map(|state| state.code()), Some("0A000"), "{refused}: {error:?}");
        }
        engine.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_there_is_is_told_as_postgres_tells_it() {
        let engine = crate::tests::engine(Inbox::default());
        engine.recovered().await.unwrap();
        let to = serve(engine.clone(), "127.0.0.1:0".parse().unwrap(), Limits::default()).await.unwrap();
        let made = "CREATE TABLE t (id INT, ts TIMESTAMP); CREATE VIEW p AS SELECT id FROM t WHERE id > 0; \
                    CREATE MATERIALIZED VIEW v AS SELECT id, count(*) AS n FROM t GROUP BY id";
        engine.execute(made, "test").await.unwrap();
        let address = format!("host={} port={} user=me dbname=tidegate", to.ip(), to.port());
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        tokio::spawn(connection);
        for (sql, expected) in [
            // psql's \dtvm+, \sv and \d+, and what they end in.
            (
                "SELECT c.relname, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' END,
                   pg_catalog.pg_get_userbyid(c.relowner), pg_catalog.pg_table_size(c.oid) >= 0,
                   pg_catalog.obj_description(c.oid, 'pg_class') as \"Description\"
                 FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
                 WHERE c.relkind IN ('r','v','m','') AND n.nspname = 'public' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1",
                "p view postgres t -, t table postgres t -, v materialized view postgres t -",
            ),
            (
                "SELECT nspname, relname, relkind, pg_catalog.pg_get_viewdef(c.oid, true),
                   pg_catalog.array_remove(c.reloptions, 'check_option=local') AS reloptions
                 FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON c.relnamespace = n.oid
                 WHERE nspname = 'public' AND relkind <> 'r' ORDER BY relname",
                "public p v  SELECT id FROM t WHERE id > 0; -, public v m  SELECT id, count(*) AS n FROM t GROUP BY id; -",
            ),
            (
                "SELECT c.relkind, pg_catalog.array_to_string(c.reloptions || array(select 'toast.' || x from pg_catalog.unnest(tc.reloptions) x), ', ')
                 FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_class tc ON (c.reltoastrelid = tc.oid)
                 WHERE c.oid = 'v'::pg_catalog.regclass",
                "m ",
            ),
            (
                "SELECT n.nspname AS \"Name\", pg_catalog.pg_get_userbyid(n.nspowner) AS \"Owner\",
                   pg_catalog.array_to_string(n.nspacl, E'\\n') AS \"Access privileges\",
                   pg_catalog.obj_description(n.oid, 'pg_namespace') AS \"Description\"
                 FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1",
                "public postgres - -, sys postgres - -",
            ),
            ("SELECT ARRAY[ARRAY[1, 2], ARRAY[3, NULL]], ARRAY[ARRAY['a b', 'c']], ARRAY[1, 2]", r#"{{1,2},{3,NULL}} {{"a b",c}} {1,2}"#),
            ("SELECT map(['a'], [1]) AS m, named_struct('m', map(['a'], [1])) AS s", r#"{"a":1} {"m":{"a":1}}"#),
            ("SELECT rolname, rolsuper FROM pg_catalog.pg_roles", "postgres f"),
            ("SELECT matviewname, definition FROM pg_matviews", "v  SELECT id, count(*) AS n FROM t GROUP BY id;"),
            ("SELECT viewname FROM pg_views WHERE schemaname = 'public'", "p"),
            ("SELECT pg_size_pretty(pg_total_relation_size('t')), pg_size_pretty(pg_database_size('tidegate')) <> ''", "0 bytes t"),
            // What drivers ask as they connect.
            ("SELECT split_part(pg_catalog.version(), ' ', 1)", "PostgreSQL"),
            ("SELECT t.oid FROM pg_type t WHERE t.oid = to_regtype('int4')", "23"),
            ("SELECT t.oid FROM pg_type t WHERE t.oid = to_regtype('hstore')", ""),
            ("SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new", "off off"),
            ("SHOW standard_conforming_strings", "on"),
            ("SHOW TimeZone", "UTC"),
            ("SHOW transaction isolation level", "repeatable read"),
            (
                "SELECT column_name, ordinal_position, data_type FROM information_schema.columns
                 WHERE table_schema = 'public' AND table_name = 't' ORDER BY 2",
                "id 1 integer, ts 2 timestamp without time zone",
            ),
        ] {
            let rows = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(shown(&rows), expected, "{sql}");
        }
        engine.shutdown().await.unwrap();
    }

    /// Rows behind one another, and NULL as a dash.
    fn shown(messages: &[SimpleQueryMessage]) -> String {
        let cells = |row: &SimpleQueryRow| (0..row.len()).map(|i| row.get(i).unwrap_or("-").to_string()).collect::<Vec<_>>().join(" ");
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(cells(row)),
            _ => None,
        });
        rows.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn formats_are_for_all_or_for_each() {
        let both = || Format::Individual(vec![0, 1]);
        for (format, count, is_fine) in
            [(Format::UnifiedText, 3, true), (Format::UnifiedBinary, 0, true), (both(), 2, true), (both(), 3, false), (both(), 1, false)]
        {
            assert_eq!(check_formats(&format, count, "columns").is_ok(), is_fine, "{format:?} for {count}");
        }
    }

    #[test]
    fn a_client_may_only_shorten_its_time() {
        let cases = [(None, TIME_MAX), (Some("250"), Duration::from_millis(250)), (Some("3600000"), TIME_MAX), (Some("x"), TIME_MAX)];
        for (wanted, expected) in cases {
            assert_eq!(time_limit(wanted.map(String::from).as_ref()), expected, "{wanted:?}");
        }
    }
}
