//! `postgres` sink: a view as a table of a Postgres database, or its changes as rows.
//!
//! Options   url (required: 'postgres://user:password@host/database', or 'env:NAME'; read when the
//!             sink is created, and never shown but for the host. sslmode is 'require' where it does
//!             not say, and 'disable' for this machine; with TLS the server's certificate must be valid)
//!           table (required: 'table' or 'schema.table', as it is spelled; created where there is none)
//!           mode ('mirror' by default: the table holds exactly the view's rows; 'log': rows are only
//!             appended, with columns op, 'insert' or 'delete', and tick)
//!           ca (a PEM file, relative to the pack's folder, of the authorities to trust instead of the
//!             public ones)
//!           timeout ('60s' by default; of one statement, and of an idle transaction. A server that
//!             says nothing at all for 2 s longer hangs: the connection is given up)
//! Values    see `values`. They are cast to the column's type, where the table was there before: the
//!           columns are known by their names, and there may be more of them
//! Versions  11 and later, tried with 15
//! Mirror    deletes exactly as many equal rows as go; NULL equals NULL, NaN equals NaN. From Postgres
//!           14 on an index over the hash of the row, made with the table, finds them; a table without
//!           it is read whole per write. Nobody else may change the table
//! Account   `tidegate_progress` in the table's schema, a row per table: sink, log, epoch, tick
//! Delivery  exactly once: a write is one transaction, and the row of the account moves in it. Where
//!           the outcome of a COMMIT is not known, the row says it
//! Fencing   the row is locked first in each transaction: an earlier epoch, another log and another
//!           sink are refused. In mirror mode a table with rows of others is never begun
//! Errors    name the host and the table. A lost connection, a server that hangs, stops, starts or is
//!           full, a deadlock, a serialization failure and a timeout are tried again without end, after
//!           100 ms to 10 s, with a warning each; all else that Postgres refuses is final
//! Memory    one write's values as text, 20,000 rows per statement

mod sql;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tidegate_types::connector::{Changes, Progress, Sink, SinkSpec, Writer};
use tidegate_types::error::{Error, Result, did_you_mean};
use tidegate_types::random::{MachineRandom, Random};
use tidegate_types::time::Tick;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, IsolationLevel, Row, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::sql::Column;
use self::values::Chunk;
use crate::options::OptionReader;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Until a connection stands, TLS and login included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);

/// How much longer than the server's own bound an answer is waited for: one that does not hang says
/// itself that a statement took too long, and on what.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// Per statement: parameters of some megabytes.
const ROWS_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Mirror,
    Log,
}

/// The options, validated.
struct PostgresOptions {
    config: Config,
    /// For messages.
    host: String,
    ca: Option<PathBuf>,
    table: (Option<String>, String),
    mode: Mode,
    timeout: Duration,
}

impl PostgresOptions {
    fn new(spec: &SinkSpec) -> Result<Self> {
        let mut options = OptionReader::new("sink", &spec.name, &spec.options);
        let url = options.required("url", "env:DATABASE_URL")?;
        let (config, host) = parse_url(&options.resolve(&url, "url")?, &options)?;
        let table = options.required("table", "public.findings")?;
        let table = parse_table(&table)
            .ok_or_else(|| options.wrong("table", &table, "allowed is a name such as 'findings' or 'public.findings'"))?;
        let mode = options.one_of("mode", &[("mirror", Mode::Mirror), ("log", Mode::Log)])?.unwrap_or(Mode::Mirror);
        let ca = options.text("ca").map(|ca| spec.folder.join(ca));
        let timeout = options.duration("timeout")?.unwrap_or(TIMEOUT);
        options.finish()?;
        Ok(Self { config, host, ca, table, mode, timeout })
    }

    /// How long one answer is waited for.
    fn answer_time_max(&self) -> Duration {
        self.timeout.saturating_add(ANSWER_GRACE)
    }
}

/// Errors: repeat nothing of the URL, which may hold a password.
fn parse_url(url: &str, options: &OptionReader) -> Result<(Config, String)> {
    let refused = || {
        options.refused("option \"url\" is not a URL of a Postgres database").hint("for example 'postgres://user:password@host/database'")
    };
    let mut config: Config = url.parse().map_err(|_| refused())?;
    let hosts = config.get_hosts().to_vec();
    if hosts.is_empty() {
        return Err(refused());
    }
    if !url.contains("sslmode=") {
        config.ssl_mode(if hosts.iter().all(is_this_machine) { SslMode::Disable } else { SslMode::Require });
    }
    if config.get_application_name().is_none() {
        config.application_name("tidegate");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIME_MAX / 2);
    }
    // A peer that is gone without a word is noticed, whatever is being waited for.
    config.keepalives_idle(Duration::from_secs(30)).keepalives_interval(Duration::from_secs(10)).keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(60)).target_session_attrs(TargetSessionAttrs::ReadWrite);
    let named = hosts.iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    Ok((config, named.collect::<Vec<_>>().join(",")))
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
        Host::Unix(_) => true,
    }
}

/// Schema and table.
fn parse_table(text: &str) -> Option<(Option<String>, String)> {
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        _ if parts.iter().any(|part| part.is_empty() || part.contains('\0')) => None,
        [table] => Some((None, table.to_string())),
        [schema, table] => Some((Some(schema.to_string()), table.to_string())),
        _ => None,
    }
}

/// The view's columns as Postgres would have them, and those of the log before them.
fn columns(schema: &SchemaRef, mode: Mode, sink: &str) -> Result<Vec<Column>> {
    let of_view = schema.fields().iter().map(|field| {
        let data_type = values::column_type(field).ok_or_else(|| {
            Error::user(format!("sink \"{sink}\" has no Postgres type for column \"{}\" of type {}", field.name(), field.data_type()))
                .hint("cast the column to TEXT in the view")
        })?;
        Ok(Column { name: field.name().clone(), data_type })
    });
    let of_view = of_view.collect::<Result<Vec<Column>>>()?;
    let taken = of_view.iter().find(|column| mode == Mode::Log && ["op", "tick"].contains(&column.name.as_str()));
    match taken {
        Some(column) => Err(Error::user(format!("sink \"{sink}\": mode 'log' has a column \"{}\" of its own", column.name))
            .hint("name the view's column otherwise, or use mode = 'mirror'")),
        None => Ok(of_view),
    }
}

pub struct PostgresSink {
    name: String,
    options: PostgresOptions,
    /// The view's.
    columns: Vec<Column>,
    writer: Writer,
    /// None before `resume`.
    target: Option<Target>,
    /// The last tick that is surely there.
    tick: Tick,
    session: Option<Session>,
    /// Tries that failed since one did not.
    failures: u32,
}

/// The table as it was found.
struct Target {
    /// Quoted, with their schema.
    table: String,
    progress: String,
    /// As the account knows it.
    name: String,
    /// The view's, with the table's types.
    columns: Vec<Column>,
    /// Postgres can hash records.
    has_hash: bool,
}

struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl PostgresSink {
    pub fn new(spec: &SinkSpec) -> Result<Self> {
        let options = PostgresOptions::new(spec)?;
        let columns = columns(&spec.schema, options.mode, &spec.name)?;
        let writer = Writer { log: String::new(), epoch: 0 };
        Ok(Self { name: spec.name.clone(), options, columns, writer, target: None, tick: 0, session: None, failures: 0 })
    }

    async fn connected(&mut self) -> Outcome<()> {
        if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            let connected = tokio::time::timeout(CONNECT_TIME_MAX, connect(&self.options)).await;
            let hangs = |_| Trouble::Passing(format!("no connection within {} s", CONNECT_TIME_MAX.as_secs()));
            self.session = Some(connected.map_err(hangs)??);
        }
        Ok(())
    }

    async fn try_resume(&mut self, writer: &Writer) -> Outcome<()> {
        self.connected().await?;
        let Self { session: Some(session), options, columns, name, .. } = self else { return Err(not_resumed()) };
        let time_max = options.answer_time_max();
        let transaction = answered(time_max, begin(&mut session.client)).await?;
        answered(time_max, transaction.batch_execute(sql::ONE_AT_A_TIME)).await?;
        let (target, is_new) = answered(time_max, find_or_create(&transaction, options, columns)).await?;
        let found = answered(time_max, lock(&transaction, &target)).await?;
        let has_rows: bool = answered(time_max, transaction.query_one(&sql::has_rows(&target.table), &[])).await?.try_get(0)?;
        let tick = start(found.as_ref(), writer, name, options.mode, is_new, has_rows).map_err(|why| why.about(&target))?;
        answered(time_max, put(&transaction, &target, name, writer, tick)).await?;
        answered(time_max, transaction.commit()).await?;
        (self.target, self.tick, self.writer) = (Some(target), tick, writer.clone());
        Ok(())
    }

    async fn try_write(&mut self, chunks: &[Chunk], upto: Tick) -> Outcome<()> {
        self.connected().await?;
        let Self { session: Some(session), target: Some(target), options, name, writer, tick, .. } = self else {
            return Err(not_resumed());
        };
        let time_max = options.answer_time_max();
        let transaction = answered(time_max, begin(&mut session.client)).await?;
        let found = answered(time_max, lock(&transaction, target)).await?;
        if is_there(found.as_ref(), writer, name, *tick, upto).map_err(|why| why.about(target))? {
            return Ok(());
        }
        for chunk in chunks {
            answered(time_max, apply(&transaction, target, options.mode, chunk)).await?;
        }
        answered(time_max, put(&transaction, target, name, writer, upto)).await?;
        // Given up here, it may be there or come to be: the next try waits for its lock on the account.
        answered(time_max, transaction.commit()).await
    }

    /// After a trouble that passes, waits; any other is the end.
    async fn recover(&mut self, trouble: Trouble) -> Result<()> {
        let (host, table) = (&self.options.host, &self.options.table.1);
        let about = |why: &str| format!("sink \"{}\" cannot write table \"{table}\" at {host}: {why}", self.name);
        match trouble {
            Trouble::Passing(why) => {
                let delay = retry_delay(self.failures, MachineRandom.unit());
                tracing::warn!(sink = self.name, "{}; trying again in {} ms", about(&why), delay.as_millis());
                self.failures += 1;
                // To a server that hangs, a connection would stay as it is: nobody reads its good-bye.
                if let Some(session) = self.session.take() {
                    session.connection.abort();
                }
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Trouble::Final(why, hint) => Err(Error::engine(about(&why)).hint(hint)),
        }
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn resume(&mut self, writer: &Writer) -> Result<Progress> {
        while let Err(trouble) = self.try_resume(writer).await {
            self.recover(trouble).await?;
        }
        self.failures = 0;
        Ok(Progress::Upto(self.tick))
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        let Some(last) = changes.last() else { return Ok(()) };
        let (upto, changes) = (last.tick, changes.to_vec());
        let chunks = tokio::task::spawn_blocking(move || values::chunks(&changes, ROWS_MAX)).await;
        let chunks = chunks.map_err(|error| Error::engine(format!("the writer of sink \"{}\" died: {error}", self.name)))?;
        let chunks = chunks.map_err(|error| Error::engine(format!("sink \"{}\" cannot write its rows as text: {error}", self.name)))?;
        while let Err(trouble) = self.try_write(&chunks, upto).await {
            self.recover(trouble).await?;
        }
        (self.tick, self.failures) = (upto, 0);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        if let Some(Session { client, connection }) = self.session.take() {
            drop(client);
            // Said good-bye or not: all is committed.
            let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
        }
        Ok(())
    }
}

type Outcome<T> = std::result::Result<T, Trouble>;

enum Trouble {
    /// Trying again may help.
    Passing(String),
    /// What is wrong, and the way out.
    Final(String, String),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = causes(&error);
        match error.code() {
            Some(code) if passes(code) => Self::Passing(text),
            Some(code) => Self::Final(text, way_out(code).into()),
            None if error.is_closed() || has_io_cause(&error) => Self::Passing(text),
            None => Self::Final(text, "check the option \"url\"".into()),
        }
    }
}

/// The server's answer. One that hangs (stopped, or behind a way that is cut) gives none, and the kernel
/// on its side goes on to say that the connection stands.
async fn answered<T, E>(time_max: Duration, answer: impl Future<Output = std::result::Result<T, E>>) -> Outcome<T>
where
    Trouble: From<E>,
{
    match tokio::time::timeout(time_max, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Passing(format!("no answer within {time_max:?}: the server hangs, or the way to it is cut"))),
    }
}

fn not_resumed() -> Trouble {
    Trouble::Final("it was written before it was resumed".into(), "this is the engine's mistake".into())
}

/// Whether a server that said so may not say so the next time.
fn passes(code: &SqlState) -> bool {
    const CLASSES: [&str; 4] = ["08", "40", "53", "58"];
    const CODES: [SqlState; 7] = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        // A server that has become a replica, or is not the first yet.
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    CLASSES.iter().any(|class| code.code().starts_with(class)) || CODES.contains(code)
}

fn way_out(code: &SqlState) -> &'static str {
    match code.code() {
        "42501" => "grant the user USAGE and CREATE on the schema, and SELECT, INSERT, UPDATE and DELETE on both tables",
        "3F000" => "create the schema first",
        code if code.starts_with("28") => "check user and password in the option \"url\"",
        code if code.starts_with("3D") => "create the database first",
        _ => "mend the table or the view, then drop the sink and create it again",
    }
}

/// Postgres's own words, and what is behind an error that is not its.
fn causes(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let detail = said.detail().map_or(String::new(), |detail| format!(" ({detail})"));
        return format!("{}{detail}", said.message());
    }
    chain(error).map(|error| error.to_string()).collect::<Vec<_>>().join(": ")
}

fn has_io_cause(error: &tokio_postgres::Error) -> bool {
    chain(error).any(|error| error.is::<std::io::Error>())
}

fn chain<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Exponential, with full jitter: `unit` is from [0, 1).
fn retry_delay(failures: u32, unit: f64) -> Duration {
    let ceiling = RETRY_DELAY_MIN.saturating_mul(1 << failures.min(16)).min(RETRY_DELAY_MAX);
    ceiling.mul_f64(unit)
}

async fn connect(options: &PostgresOptions) -> Outcome<Session> {
    let (client, connection) = options.config.connect(tls(options).await?).await?;
    let connection = tokio::spawn(async move {
        // Whoever waits for an answer hears of it.
        if let Err(error) = connection.await {
            tracing::debug!("a connection to Postgres ended: {error}");
        }
    });
    let ms = options.timeout.as_millis();
    // Compiling one of these statements takes a hundred times as long as running it.
    let settings = format!(
        "SET statement_timeout = {ms}; SET idle_in_transaction_session_timeout = {ms}; SET jit = off; \
         SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'"
    );
    client.batch_execute(&settings).await?;
    Ok(Session { client, connection })
}

async fn tls(options: &PostgresOptions) -> Outcome<MakeRustlsConnect> {
    let mut roots = RootCertStore::empty();
    match options.ca.clone() {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let wrong = |why: String| Trouble::Final(format!("option \"ca\": {}: {why}", path.display()), "name a PEM file".into());
            let pem = tokio::fs::read(&path).await.map_err(|error| wrong(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::Final(format!("TLS cannot be set up: {error}"), "this is the engine's mistake".into()))?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Each statement sees what was committed before it: the fence is read after it is locked.
async fn begin(client: &mut Client) -> Outcome<Transaction<'_>> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?)
}

/// The table, and whether it was made just now.
async fn find_or_create(transaction: &Transaction<'_>, options: &PostgresOptions, wanted: &[Column]) -> Outcome<(Target, bool)> {
    let (schema, table) = &options.table;
    let named = sql::qualified(schema.as_deref(), table);
    let has_hash: bool = transaction.query_one("SELECT to_regprocedure('hash_record(record)') IS NOT NULL", &[]).await?.try_get(0)?;
    let found = transaction.query_opt(sql::FIND_TABLE, &[&named]).await?;
    let is_new = found.is_none();
    let found = match found {
        Some(found) => found,
        None => {
            create(transaction, &named, options.mode, wanted, has_hash).await?;
            transaction.query_one(sql::FIND_TABLE, &[&named]).await?
        }
    };
    let (oid, schema, table, is_plain): (u32, String, String, bool) =
        (found.try_get(0)?, found.try_get(1)?, found.try_get(2)?, found.try_get(3)?);
    if !is_plain {
        return Err(Trouble::Final("it is a view, partitioned or inherited".into(), "name a table that is neither".into()));
    }
    let there = transaction.query(sql::FIND_COLUMNS, &[&oid]).await?;
    let there = there.iter().map(|row| Ok(Column { name: row.try_get(0)?, data_type: row.try_get(1)? })).collect::<Outcome<Vec<_>>>()?;
    let progress = sql::qualified(Some(&schema), "tidegate_progress");
    if transaction.query_opt(sql::FIND_TABLE, &[&progress]).await?.is_none() {
        transaction.batch_execute(&sql::create_progress(&progress)).await?;
    }
    let columns = matched(wanted, &there, options.mode)?;
    Ok((Target { table: sql::qualified(Some(&schema), &table), progress, name: table, columns, has_hash }, is_new))
}

async fn create(transaction: &Transaction<'_>, table: &str, mode: Mode, wanted: &[Column], has_hash: bool) -> Outcome<()> {
    let own = log_columns(mode);
    transaction.batch_execute(&sql::create_table(table, &[own.as_slice(), wanted].concat())).await?;
    if mode == Mode::Mirror && has_hash {
        transaction.batch_execute(&sql::create_index(table, wanted)).await?;
    }
    Ok(())
}

fn log_columns(mode: Mode) -> Vec<Column> {
    let column = |name: &str, data_type: &str| Column { name: name.into(), data_type: data_type.into() };
    match mode {
        Mode::Mirror => Vec::new(),
        Mode::Log => vec![column("op", "text"), column("tick", "bigint")],
    }
}

/// The wanted columns as the table has them.
fn matched(wanted: &[Column], there: &[Column], mode: Mode) -> Outcome<Vec<Column>> {
    let find = |name: &str| {
        there.iter().find(|column| column.name == name).cloned().ok_or_else(|| {
            let hint = match did_you_mean(name, there.iter().map(|column| column.name.as_str())) {
                Some(close) => format!("did you mean \"{close}\"? Else add the column, or drop the table: the sink makes one that fits"),
                None => "add the column, or drop the table: the sink makes one that fits".into(),
            };
            Trouble::Final(format!("it has no column \"{name}\""), hint)
        })
    };
    for column in log_columns(mode) {
        find(&column.name)?;
    }
    wanted.iter().map(|column| find(&column.name)).collect()
}

/// A row of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    sink: String,
    log: String,
    epoch: u64,
    tick: Tick,
}

impl TryFrom<Row> for Account {
    type Error = Trouble;

    fn try_from(row: Row) -> Outcome<Self> {
        let (epoch, tick): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        // Negative ones are nobody's; as large ones they are refused.
        Ok(Self { sink: row.try_get(0)?, log: row.try_get(1)?, epoch: epoch as u64, tick: tick as u64 })
    }
}

async fn lock(transaction: &Transaction<'_>, target: &Target) -> Outcome<Option<Account>> {
    let row = transaction.query_opt(&sql::lock_progress(&target.progress), &[&target.name]).await?;
    row.map(Account::try_from).transpose()
}

async fn put(transaction: &Transaction<'_>, target: &Target, sink: &str, writer: &Writer, tick: Tick) -> Outcome<()> {
    let (epoch, tick) = (writer.epoch as i64, tick as i64);
    transaction.execute(&sql::put_progress(&target.progress), &[&target.name, &sink, &writer.log, &epoch, &tick]).await?;
    Ok(())
}

async fn apply(transaction: &Transaction<'_>, target: &Target, mode: Mode, chunk: &Chunk) -> Outcome<()> {
    let mut parameters: Vec<&(dyn ToSql + Sync)> = chunk.columns.iter().map(|texts| texts as _).collect();
    if mode == Mode::Log {
        parameters.extend([&chunk.ticks as &(dyn ToSql + Sync), &chunk.copies]);
        transaction.execute(&sql::append(&target.table, &target.columns), &parameters).await?;
        return Ok(());
    }
    parameters.push(&chunk.copies);
    let row = transaction.query_one(&sql::mirror(&target.table, &target.columns, target.has_hash), &parameters).await?;
    let (deleted, expected): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    match deleted == expected {
        true => Ok(()),
        false => Err(Trouble::Final(
            format!("of {expected} rows to delete it has {deleted}: somebody else changed it"),
            "drop the table, then drop the sink and create it again".into(),
        )),
    }
}

/// Why a writer may not.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Fenced(Account),
    /// The table of a sink that has written is empty and new.
    Gone(Tick),
    OthersRows(Option<Account>),
    NoAccount,
    /// The account is neither here nor there.
    Elsewhere {
        at: Tick,
        known: Tick,
    },
}

impl Refusal {
    fn about(self, target: &Target) -> Trouble {
        let Target { table, progress, name, .. } = target;
        let by = |Account { sink, log, epoch, .. }: Account| format!("sink \"{sink}\" of log {log}, in epoch {epoch}");
        let (why, hint) = match self {
            Self::Fenced(account) => {
                (format!("it is written by {} now", by(account)), "run one engine on a data folder, and give each sink a table".into())
            }
            Self::Gone(tick) => (
                format!("it was dropped, and changes up to tick {tick} were in it"),
                format!(
                    "put it back; or, to begin anew, DELETE FROM {progress} WHERE target = '{name}', drop the sink and create it again"
                ),
            ),
            Self::OthersRows(account) => (
                format!("it holds rows of {}", account.map_or("others".into(), by)),
                format!("DROP TABLE {table}, or name another table: a mirror holds one view's rows and no others"),
            ),
            Self::NoAccount => {
                (format!("its row in {progress} is gone"), format!("DROP TABLE {table}, then drop the sink and create it again"))
            }
            Self::Elsewhere { at, known } => (
                format!("{progress} has tick {at}, where {known} was written last"),
                format!("DROP TABLE {table}, then drop the sink and create it again"),
            ),
        };
        Trouble::Final(why, hint)
    }
}

/// The tick a writer goes on behind.
fn start(
    found: Option<&Account>,
    writer: &Writer,
    sink: &str,
    mode: Mode,
    is_new: bool,
    has_rows: bool,
) -> std::result::Result<Tick, Refusal> {
    match found {
        Some(account) if account.log == writer.log && account.sink == sink => match account {
            account if writer.epoch < account.epoch => Err(Refusal::Fenced(account.clone())),
            account if is_new && account.tick != 0 => Err(Refusal::Gone(account.tick)),
            account => Ok(account.tick),
        },
        // What only grows may grow behind what others left.
        _ if mode == Mode::Log || !has_rows => Ok(0),
        other => Err(Refusal::OthersRows(other.cloned())),
    }
}

/// Whether a write up to `upto` is there already: its COMMIT was not heard of.
fn is_there(found: Option<&Account>, writer: &Writer, sink: &str, known: Tick, upto: Tick) -> std::result::Result<bool, Refusal> {
    match found {
        None => Err(Refusal::NoAccount),
        Some(account) if account.log != writer.log || account.sink != sink || account.epoch != writer.epoch => {
            Err(Refusal::Fenced(account.clone()))
        }
        Some(account) if account.tick == upto => Ok(true),
        Some(account) if account.tick == known => Ok(false),
        Some(account) => Err(Refusal::Elsewhere { at: account.tick, known }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(sink: &str, log: &str, epoch: u64, tick: u64) -> Account {
        Account { sink: sink.into(), log: log.into(), epoch, tick }
    }

    #[test]
    fn a_writer_starts_at_its_own_and_never_mixes() {
        use Mode::{Log, Mirror};
        let writer = Writer { log: "a".into(), epoch: 2 };
        let ours = account("s", "a", 1, 7);
        let newer = account("s", "a", 3, 7);
        let other = account("s", "b", 9, 7);
        let cases = [
            (None, Mirror, true, false, Ok(0)),
            (None, Mirror, false, false, Ok(0)),
            (None, Mirror, false, true, Err(Refusal::OthersRows(None))),
            (None, Log, false, true, Ok(0)),
            (Some(&ours), Mirror, false, true, Ok(7)),
            (Some(&ours), Mirror, false, false, Ok(7)),
            (Some(&ours), Mirror, true, false, Err(Refusal::Gone(7))),
            (Some(&newer), Log, false, true, Err(Refusal::Fenced(newer.clone()))),
            (Some(&other), Mirror, false, true, Err(Refusal::OthersRows(Some(other.clone())))),
            (Some(&other), Mirror, true, false, Ok(0)),
            (Some(&other), Log, false, true, Ok(0)),
        ];
        for (found, mode, is_new, has_rows, expected) in cases {
            assert_eq!(start(found, &writer, "s", mode, is_new, has_rows), expected, "{found:?} {mode:?} {is_new} {has_rows}");
        }
    }

    #[test]
    fn the_account_says_whether_a_commit_was() {
        let writer = Writer { log: "a".into(), epoch: 2 };
        let cases = [
            (Some(account("s", "a", 2, 5)), Ok(false)),
            (Some(account("s", "a", 2, 9)), Ok(true)),
            (Some(account("s", "a", 2, 6)), Err(Refusal::Elsewhere { at: 6, known: 5 })),
            (Some(account("s", "a", 3, 5)), Err(Refusal::Fenced(account("s", "a", 3, 5)))),
            (Some(account("s", "b", 2, 9)), Err(Refusal::Fenced(account("s", "b", 2, 9)))),
            (None, Err(Refusal::NoAccount)),
        ];
        for (found, expected) in cases {
            assert_eq!(is_there(found.as_ref(), &writer, "s", 5, 9), expected, "{found:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_a_trouble_that_passes() {
        let brief = Duration::from_millis(20);
        let hangs = answered(brief, std::future::pending::<Outcome<()>>()).await;
        assert!(matches!(hangs, Err(Trouble::Passing(why)) if why.starts_with("no answer within 20ms: the server hangs")));
        assert!(matches!(answered(brief, std::future::ready::<Outcome<u8>>(Ok(7))).await, Ok(7)));
        assert!(matches!(answered(brief, std::future::ready::<Outcome<u8>>(Err(not_resumed()))).await, Err(Trouble::Final(..))));
    }

    #[test]
    fn delays_grow_with_full_jitter_up_to_a_bound() {
        let cases = [(0, 1.0, 100), (0, 0.0, 0), (1, 0.5, 100), (6, 1.0, 6_400), (7, 1.0, 10_000), (u32::MAX, 1.0, 10_000)];
        for (failures, unit, ms) in cases {
            assert_eq!(retry_delay(failures, unit).as_millis(), ms, "{failures} {unit}");
        }
    }

    #[test]
    fn urls_show_their_host_only_and_ask_for_tls_by_default() {
        let reader = || OptionReader::new("sink", "s", &Default::default());
        let cases = [
            ("postgres://u:hush@db.example/x", Some(("db.example", SslMode::Require))),
            ("postgres://u:hush@localhost/x", Some(("localhost", SslMode::Disable))),
            ("postgres://u:hush@db.example/x?sslmode=prefer", Some(("db.example", SslMode::Prefer))),
            ("host=/run/postgresql user=u", Some(("/run/postgresql", SslMode::Disable))),
            ("postgres://u:hush@a,b/x", Some(("a,b", SslMode::Require))),
            ("mysql://u:hush@x/y", None),
            ("user=hush", None),
        ];
        for (url, expected) in cases {
            match (parse_url(url, &reader()), expected) {
                (Ok((config, host)), Some((shown, mode))) => assert_eq!((host.as_str(), config.get_ssl_mode()), (shown, mode)),
                (Err(error), None) => assert!(!error.to_string().contains("hush"), "{error}"),
                (got, _) => panic!("{url}: {:?}", got.map(|(_, host)| host)),
            }
        }
    }

    #[test]
    fn tables_are_named_with_or_without_schema() {
        assert_eq!(parse_table("t"), Some((None, "t".into())));
        assert_eq!(parse_table("s.t"), Some((Some("s".into()), "t".into())));
        for text in ["", ".", "s.", ".t", "a.b.c"] {
            assert_eq!(parse_table(text), None, "{text}");
        }
    }
}
