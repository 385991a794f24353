//! What users type.
//!
//! Exit codes: 0 good, 1 the user's input is wrong or not all stopped in time,
//! 2 the engine failed, 130 interrupted twice. Ctrl-C and SIGTERM ask `run`,
//! `query` and `demo` for an end in order within 10 s; asked again, they end.
//! `TIDEGATE_LOG` says what is logged, to standard error: `warn` by default.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use clap::{Args, Parser, Subcommand};
use tidegate_connectors::{Inbox, Registry};
use tidegate_runtime::{Config, Durability, Engine, RETAIN, Response};
use tidegate_types::Tick;
use tidegate_types::error::{Error, Fault, Result};
use tracing_subscriber::EnvFilter;

use crate::demo::{self, DemoOptions};
use crate::generator::ServerConnectors;
use crate::output::{self, print};
use crate::pack::Pack;
use crate::test::{self, TestOptions};
use crate::{Stop, bpmn, http, pg, specification};

const LISTEN_HTTP: &str = "127.0.0.1:7470";
const LISTEN_PG: &str = "127.0.0.1:7471";

/// How long threads that cannot be interrupted may hold the exit: one may be
/// reading a pipe that nobody writes to.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Writes are planned on the runtime's threads, and planning recurses with what is selected: in two megabytes, six
/// hundred UNION ALL in a row would end the process.
const STACK_BYTES: usize = 64 << 20;

/// Tidegate turns streams into settled findings, and findings into actions.
#[derive(Parser)]
#[command(name = "tidegate", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch three pilots being attacked, on generated streams; nothing else needed
    Demo(Demo),
    /// Run a pack until interrupted
    Run(Run),
    /// Run a pack until its bounded inputs are spent and settled, then answer a query
    Query(Query),
    /// Answer a query as it was at an earlier moment of a data folder, or as it would have been with something changed
    Replay(Replay),
    /// Parse, plan and type-check a pack, and say what bounds its state; no side effects
    Check(Check),
    /// Run the tests beside a pack's .sql files
    Test(Test),
    /// Print the plan of one of a pack's views
    Explain(Explain),
    /// Print the CREATE SOURCE for a file
    Infer(Infer),
    /// Print the states and transitions of a BPMN 2.0 process, for violations and conformance
    ImportBpmn(ImportBpmn),
    /// Print the states and transitions of processes written in YAML, in the same way
    ImportYaml(ImportYaml),
}

#[derive(Args)]
struct EngineArgs {
    /// Threads that compute (1 to 64)
    #[arg(long, default_value_t = workers_default(), value_parser = workers)]
    workers: usize,
    /// Pace of commits, such as 50ms
    #[arg(long, default_value = "50ms", value_parser = duration)]
    tick: Duration,
    /// Memory that one view's state may take, such as 512MiB, about; a view that needs more is stopped
    #[arg(long, default_value = "4GiB", value_parser = bytes)]
    state_max: usize,
}

#[derive(Args)]
struct DataArgs {
    /// Folder for durable state: what an earlier run left there goes on [default: a temporary folder, which goes with the process]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where the data folder is damaged, begin with what is whole, and give up what came after
    #[arg(long, requires = "data_dir")]
    accept_loss: bool,
    /// How long input that no view needs is kept, for views that are created later and for replay; less where the disk is 85 % full
    #[arg(long, default_value = "7d", value_parser = retention)]
    retain: Duration,
}

impl DataArgs {
    fn durability(&self) -> Durability {
        match self.data_dir.clone() {
            Some(path) => Durability::Folder { path, accept_loss: self.accept_loss },
            None => Durability::Temporary,
        }
    }
}

#[derive(Args)]
struct Demo {
    /// Decides the story
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// How long the story is told, 10s or more; each second tells 12 minutes. Every scenario is told in any length
    #[arg(long = "for", default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// Clean events per second, 240 or more: with fewer, what did not happen could not be told in time
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// A line per second and no screen control, for logs
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Where metrics are: an address, or off
    #[arg(long, default_value = LISTEN_HTTP)]
    listen_http: Listen,
    /// Where SQL is, over the Postgres protocol: an address, or off
    #[arg(long, default_value = LISTEN_PG)]
    listen_pg: Listen,
}

#[derive(Args)]
struct Run {
    /// Folder of .sql files, with an optional tidegate.toml
    pack: PathBuf,
    /// Stop when bounded inputs are spent and settled
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Where metrics and ingest are: an address, or off [default: 127.0.0.1:7470; off with --once]
    #[arg(long)]
    listen_http: Option<Listen>,
    /// Where SQL is, over the Postgres protocol: an address, or off [default: 127.0.0.1:7471; off with --once]
    #[arg(long)]
    listen_pg: Option<Listen>,
    /// Connections at once at the HTTP door [default: 10000, or three quarters of ulimit -n]
    #[arg(long, value_parser = connections)]
    http_connections: Option<usize>,
    /// Connections at once at the Postgres door [default: 200]
    #[arg(long, value_parser = connections)]
    pg_connections: Option<usize>,
    /// Take statements at POST /v1/execute from whoever reaches the HTTP door: it asks for no password
    #[arg(long)]
    allow_statements: bool,
}

#[derive(Args)]
struct Query {
    /// Folder of .sql files, with an optional tidegate.toml; armed actions are sent and sinks are written, as by run --once
    pack: PathBuf,
    /// The query to answer
    sql: String,
    /// How its rows are printed
    #[arg(long, value_enum, default_value = "table")]
    format: output::Format,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Args)]
struct Replay {
    /// Folder of .sql files, with an optional tidegate.toml: its variables are used, its statements are those of the data folder
    pack: PathBuf,
    /// The query to answer
    sql: String,
    /// The data folder, which is only read; an engine may be running on it
    #[arg(long)]
    data_dir: PathBuf,
    /// A moment: a time such as 2026-11-29T14:05:00Z, or a tick [default: the last one]
    #[arg(long, value_parser = moment)]
    at: Option<Tick>,
    /// A file of statements to carry out at that moment, which --at names; then what came later comes once more
    #[arg(long, requires = "at")]
    with: Option<PathBuf>,
    /// With --with: the moment up to which what came later comes once more [default: the last one]
    #[arg(long, requires = "with", value_parser = moment)]
    until: Option<Tick>,
    /// How its rows are printed
    #[arg(long, value_enum, default_value = "table")]
    format: output::Format,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Args)]
struct Check {
    /// Folder of .sql files, with an optional tidegate.toml
    pack: PathBuf,
}

#[derive(Args)]
struct Test {
    /// A pack, a folder of packs, or one .slt file
    pack: PathBuf,
    /// Write what is answered into the files; read the diff before committing
    #[arg(long)]
    rewrite: bool,
    /// Threads that compute (1 to 64)
    #[arg(long, default_value_t = 1, value_parser = workers)]
    workers: usize,
}

#[derive(Args)]
struct Explain {
    /// Folder of .sql files, with an optional tidegate.toml
    pack: PathBuf,
    /// The view's name
    name: String,
}

#[derive(Args)]
struct Infer {
    /// A file of JSON lines, CSV or text
    path: PathBuf,
}

#[derive(Args)]
struct ImportBpmn {
    /// A BPMN 2.0 XML file
    path: PathBuf,
    /// One of its processes, by name or id [default: all of them]
    #[arg(long)]
    process: Option<String>,
}

#[derive(Args)]
struct ImportYaml {
    /// A YAML file with a document per process: process, states and transitions, with their columns as keys
    path: PathBuf,
}

/// An address to listen on, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listen(Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| "wanted is an address such as 127.0.0.1:7470, or off".to_string());
        address.map(|address| Self(Some(address)))
    }
}

/// Half of the cores: the other half reads, decodes and answers.
fn workers_default() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)).min(64)
}

fn workers(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|workers| (1..=64).contains(workers)).ok_or_else(|| "wanted is a number from 1 to 64".into())
}

fn connections(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(|| "wanted is a number from 1 to 1000000".into())
}

/// `250ms`, `30s`, `2m`, `1h`
pub fn duration(text: &str) -> Result<Duration, String> {
    span(text).filter(|span| *span <= DAY).ok_or_else(|| "wanted is a time up to a day, such as 250ms, 30s, 2m or 1h".into())
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `12h`, `7d`
fn retention(text: &str) -> Result<Duration, String> {
    span(text).filter(|span| *span <= 3660 * DAY).ok_or_else(|| "wanted is a time up to ten years, such as 12h or 7d".into())
}

fn span(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor_ms = match &text[digits..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let number = text[..digits].parse::<u64>().ok().filter(|number| *number > 0);
    number.zip(factor_ms).and_then(|(number, factor_ms)| number.checked_mul(factor_ms)).map(Duration::from_millis)
}

/// `2026-11-29T14:05:00Z`, `1764425100000`: as a tick
fn moment(text: &str) -> Result<Tick, String> {
    let ms = text.parse().ok().or_else(|| string_to_timestamp_nanos(text).ok().map(|ns| ns.div_euclid(1_000_000)));
    ms.and_then(|ms| Tick::try_from(ms).ok()).ok_or_else(|| "wanted is a time such as 2026-11-29T14:05:00Z, or a tick".into())
}

/// `512MiB`, `4GiB`
fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = match &text[digits..] {
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number = text[..digits].parse::<usize>().ok().filter(|number| *number > 0);
    let bytes = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| "wanted is a size, such as 512MiB or 4GiB".into())
}

/// The program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Also help and the version come as an "error".
            let is_wrong = error.use_stderr();
            return match error.print() {
                Ok(()) if !is_wrong => ExitCode::SUCCESS,
                _ => ExitCode::from(1),
            };
        }
    };
    log_to_stderr(&cli.command);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let outcome = runtime.map_err(|error| Error::engine(format!("threads cannot be started: {error}"))).and_then(|runtime| {
        let outcome = runtime.block_on(execute(cli.command));
        runtime.shutdown_timeout(LINGER_MAX);
        outcome
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        match error.fault {
            Fault::User | Fault::Conflict | Fault::TooMuch | Fault::NoRoom => ExitCode::from(1),
            Fault::Engine => ExitCode::from(2),
        }
    })
}

fn log_to_stderr(command: &Command) {
    // Nothing is written across the demo's screen unless asked for.
    let is_on_screen = matches!(command, Command::Demo(demo) if !demo.plain && std::io::stdout().is_terminal());
    let default = if is_on_screen { "off" } else { "warn" };
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
}

async fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => demo(args).await,
        Command::Run(args) => run(args).await,
        Command::Query(args) => query(args).await,
        Command::Replay(args) => replay(args).await,
        Command::Check(args) => check(&args.pack),
        Command::Test(Test { pack, rewrite, workers }) => test::run(TestOptions { pack, workers, rewrite }).await,
        Command::Explain(args) => explain(&args),
        Command::Infer(args) => print(&tidegate_connectors::infer(&args.path)?).map(|()| ExitCode::SUCCESS),
        Command::ImportBpmn(args) => print(&bpmn::import(&args.path, args.process.as_deref())?).map(|()| ExitCode::SUCCESS),
        Command::ImportYaml(args) => print(&specification::import(&args.path)?).map(|()| ExitCode::SUCCESS),
    }
}

async fn demo(args: Demo) -> Result<ExitCode> {
    let options = DemoOptions {
        seed: args.seed,
        duration: args.duration,
        rate: args.rate,
        plain: args.plain,
        workers: args.engine.workers,
        tick: args.engine.tick,
        state_bytes_max: args.engine.state_max,
        listen_http: args.listen_http.0,
        listen_pg: args.listen_pg.0,
    };
    demo::run(options).await
}

async fn run(args: Run) -> Result<ExitCode> {
    let pack = Pack::load(&args.pack)?;
    let inbox = Inbox::default();
    let stop = Stop::listen()?;
    let config = config(&pack, &args.engine, args.data.durability(), args.data.retain, args.once);
    let engine = Engine::start_at_once(config, connectors(inbox.clone()))?;
    let otherwise = |address: &str| if args.once { Ok(Listen(None)) } else { address.parse().map_err(Error::engine) };
    if let Some(listen) = args.listen_http.map_or_else(|| otherwise(LISTEN_HTTP), Ok)?.0 {
        let limits = http::Limits { connections_max: args.http_connections, ..http::Limits::default() };
        let bound = http::serve(engine.clone(), inbox, listen, args.allow_statements, limits).await?;
        print(&format!("http://{bound}/metrics\n"))?;
    }
    if let Some(listen) = args.listen_pg.map_or_else(|| otherwise(LISTEN_PG), Ok)?.0 {
        let limits = pg::Limits { connections_max: args.pg_connections, ..pg::Limits::default() };
        let bound = pg::serve(engine.clone(), listen, limits).await?;
        print(&format!("postgres://{bound}/tidegate\n"))?;
    }
    let work = async {
        let is_good = match load(&engine, &pack, &stop).await? {
            true if args.once => settle(&engine, &stop).await?,
            true => {
                stop.asked(1).await;
                true
            }
            false => false,
        };
        engine.shutdown().await?;
        Ok(code(is_good))
    };
    stop.within(&engine, work).await
}

async fn query(args: Query) -> Result<ExitCode> {
    let pack = Pack::load(&args.pack)?;
    let config = config(&pack, &args.engine, args.data.durability(), args.data.retain, true);
    let stop = Stop::listen()?;
    let engine = Engine::start_at_once(config, connectors(Inbox::default()))?;
    let work = async {
        let is_settled = load(&engine, &pack, &stop).await? && settle(&engine, &stop).await?;
        if is_settled {
            answer(&engine, &args.sql, args.format).await?;
        }
        engine.shutdown().await?;
        Ok(code(is_settled))
    };
    stop.within(&engine, work).await
}

async fn replay(args: Replay) -> Result<ExitCode> {
    let pack = Pack::load(&args.pack)?;
    tidegate_runtime::only_reads(&args.sql, "query")?;
    let changed = args.with.as_deref().map(read_statements).transpose()?;
    let durability = Durability::Past { path: args.data_dir.clone(), at: args.at };
    let stop = Stop::listen()?;
    let engine = Engine::start_at_once(config(&pack, &args.engine, durability, RETAIN, false), connectors(Inbox::default()))?;
    let work = async {
        tokio::select! {
            recovered = engine.recovered() => recovered?,
            () = stop.asked(1) => return Err(unstarted(&engine)),
        }
        if let Some((file, text)) = changed {
            engine.execute(&text, &file).await?;
            let last = engine.relive(args.until).await?;
            tracing::info!(last, "what came later came once more");
        }
        answer(&engine, &args.sql, args.format).await?;
        engine.shutdown().await?;
        Ok(ExitCode::SUCCESS)
    };
    stop.within(&engine, work).await
}

/// A file's name and text.
fn read_statements(path: &Path) -> Result<(String, String)> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::user(format!("{} cannot be read: {error}", path.display())))?;
    Ok((path.display().to_string(), text))
}

async fn answer(engine: &Engine, sql: &str, format: output::Format) -> Result<()> {
    match engine.execute(sql, "query").await?.pop() {
        Some(Response::Rows { batches, schema, .. }) => print(&output::format(format, &schema, &batches)?),
        Some(Response::Done { tag, .. }) => print(&format!("{tag}\n")),
        None => Err(Error::user("the query is empty").hint("give a SELECT")),
    }
}

fn check(path: &Path) -> Result<ExitCode> {
    let pack = Pack::load(path)?;
    for line in tidegate_runtime::check(&pack.files, pack.variables, connectors(Inbox::default()))? {
        print(&format!("{line}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(args: &Explain) -> Result<ExitCode> {
    let pack = Pack::load(&args.pack)?;
    let plan = tidegate_runtime::explain(&pack.files, pack.variables, connectors(Inbox::default()), &args.name)?;
    print(&format!("{}\n", plan.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}

fn connectors(inbox: Inbox) -> Arc<ServerConnectors> {
    Arc::new(ServerConnectors::new(Registry::new(inbox)))
}

fn config(pack: &Pack, args: &EngineArgs, durability: Durability, retain: Duration, once: bool) -> Config {
    Config {
        workers: args.workers,
        tick: args.tick,
        state_bytes_max: args.state_max,
        once,
        durability,
        retain,
        folder: pack.folder.clone(),
        variables: pack.variables.clone(),
        ..Config::default()
    }
}

/// False: someone asked to stop before all of the pack was there. Errors: also that there is nothing yet to stop in order.
async fn load(engine: &Engine, pack: &Pack, stop: &Stop) -> Result<bool> {
    let loading = async {
        engine.apply(&pack.files).await?;
        engine.start_sources().await
    };
    tokio::select! {
        loaded = loading => loaded.map(|()| true),
        () = stop.asked(1) => match engine.is_recovered() {
            true => Ok(interrupted("all of the pack was there")),
            false => Err(unstarted(engine)),
        },
    }
}

fn unstarted(engine: &Engine) -> Error {
    let error = Error::user(format!("stopped before the engine had started: {}", engine.health().reason));
    error.hint("start it again; what was acknowledged stays")
}

/// Says so; what was to be done is not.
fn interrupted(before: &str) -> bool {
    eprintln!("error: interrupted before {before}");
    false
}

/// Waits until all is settled. False: someone interrupted it.
async fn settle(engine: &Engine, stop: &Stop) -> Result<bool> {
    tokio::select! {
        settled = engine.settled() => settled.map(|()| true),
        () = stop.asked(1) => Ok(interrupted("all was settled")),
    }
}

fn code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_and_addresses() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "30", "0s", "s", "25h", "99999999999999999999s", "2d", "1w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert_eq!([retention("7d"), retention("12h")], [Ok(7 * DAY), Ok(DAY / 2)]);
        assert!(["7", "0d", "9999d", "18446744073709551615d"].into_iter().all(|text| retention(text).is_err()));
        assert_eq!(moment("1970-01-02T00:00:00.5Z"), Ok(86_400_500));
        assert_eq!([moment("1970-01-02 00:00:00"), moment("86400000")], [Ok(86_400_000), Ok(86_400_000)]);
        assert!(["", "now", "-1", "1969-12-31T00:00:00Z"].into_iter().all(|text| moment(text).is_err()));
        assert!("localhost".parse::<Listen>().is_err());
        assert_eq!(connections("10000"), Ok(10_000));
        for wrong in ["", "0", "-1", "1000001", "many"] {
            assert!(connections(wrong).is_err(), "{wrong}");
        }
        assert_eq!([bytes("512MiB"), bytes("4GiB")], [Ok(512 << 20), Ok(4 << 30)]);
        for wrong in ["", "0GiB", "4", "4GB", "-1GiB", "99999999999999999999GiB", "18446744073709551615KiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn statements_are_taken_only_when_asked_for() {
        for (args, expected) in [(vec!["tidegate", "run", "p"], false), (vec!["tidegate", "run", "p", "--allow-statements"], true)] {
            let Ok(Cli { command: Command::Run(run) }) = Cli::try_parse_from(args) else { panic!() };
            assert_eq!(run.allow_statements, expected);
        }
    }

    #[test]
    fn state_lasts_where_a_folder_is_named() {
        for (args, expected) in [
            (&["tidegate", "run", "p"][..], Durability::Temporary),
            (&["tidegate", "run", "p", "--data-dir", "/d"], Durability::Folder { path: "/d".into(), accept_loss: false }),
            (&["tidegate", "run", "p", "--data-dir", "/d", "--accept-loss"], Durability::Folder { path: "/d".into(), accept_loss: true }),
        ] {
            let Ok(Cli { command: Command::Run(run) }) = Cli::try_parse_from(args) else { panic!() };
            assert_eq!(run.data.durability(), expected);
        }
        assert!(Cli::try_parse_from(["tidegate", "run", "p", "--accept-loss"]).is_err());
    }
}
