//! `tidegate test PACK`: the tests beside a pack's `.sql` files.
//!
//! A test is a `.slt` file of sqllogictest with two more records:
//!
//! ```text
//! feed payments                      the JSON lines up to the next blank line
//! {"card":"4000","status":"declined","ts":"2026-03-02T08:00:00Z"}
//!
//! advance 2026-03-02T08:05:00Z       the engine's clock; it stands still otherwise
//! ```
//!
//! Each file has an engine of its own, with the pack of its folder loaded (or
//! the pack tested, where that folder holds no `.sql`). Sources are the feed's,
//! whatever their connector; sinks and actions reach nobody, and actions show
//! in `sys.actions`. A variable that has no value is 'unset'.
//!
//! Visible   what was fed or advanced to is in the next query's answer
//! Values    NULL is NULL, the empty text is (empty)
//! Refuses   `include` and `system`: a test touches nothing but its engine

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use chrono::DateTime;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, MakeConnection, Record, Runner, default_column_validator, default_normalizer, default_validator,
    parse_with_name, update_record_with_output,
};
use tidegate_connectors::format::json::JsonDecoder;
use tidegate_connectors::format::{Columns, Decoder, LINE_BYTES_MAX};
use tidegate_runtime::{Config, Engine, Response};
use tidegate_types::connector::{
    ActionFailure, ActionKind, ActionRequest, Budget, Changes, Connectors, Offset, Options, Polled, Progress, Responder, Sink, SinkSpec,
    Source, SourceSpec, Writer,
};
use tidegate_types::disk::folder_of;
use tidegate_types::error::{Error, Result, did_you_mean};
use tidegate_types::time::Clock;

use crate::output::print;
use crate::pack::{File, Pack, entries, read};

/// Where the clock stands before the first `advance`: 2000-01-01T00:00:00Z.
pub const START_MS: u64 = 946_684_800_000;

/// Short, for each feed waits for one.
const TICK: Duration = Duration::from_millis(5);

/// How long a tick may take to close before the test fails.
const CLOSE_MAX: Duration = Duration::from_secs(30);

pub struct TestOptions {
    pub pack: PathBuf,
    pub workers: usize,
    /// Write what was answered into the files, instead of comparing.
    pub rewrite: bool,
}

/// Runs every `.slt` at or below the pack, and says how it went.
pub async fn run(options: TestOptions) -> Result<ExitCode> {
    let files = slt_files(&options.pack)?;
    if files.is_empty() {
        return Err(Error::user(format!("pack {} holds no .slt file", options.pack.display())).hint("put tests beside the .sql files"));
    }
    let mut failed = 0;
    for slt in &files {
        let pack = Pack::load(&pack_of(slt, &options.pack)?)?;
        let setup = Setup { variables: values(&pack), files: pack.files, workers: options.workers };
        match run_file(slt, &setup, options.rewrite).await {
            Ok(()) => print(&format!("ok      {}\n", slt.display()))?,
            Err(reason) => {
                failed += 1;
                print(&format!("failed  {}\n{reason}\n", slt.display()))?;
            }
        }
    }
    print(&format!("{} files, {failed} failed\n", files.len()))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What a test begins with.
pub struct Setup {
    pub files: Vec<File>,
    pub variables: BTreeMap<String, String>,
    pub workers: usize,
}

/// Runs one file against an engine of its own; with `rewrite`, writes it anew.
///
/// Errors: what differs, with its place, for people.
pub async fn run_file(slt: &Path, setup: &Setup, rewrite: bool) -> Result<(), String> {
    let text = read(slt).map_err(|error| error.to_string())?;
    let name = slt.display().to_string();
    let steps = steps(&text).map_err(|error| format!("{name}:{error}"))?;
    let bench = Bench::start(setup, name).await.map_err(|error| error.to_string())?;
    let outcome = bench.run(&steps, rewrite).await;
    let ended = bench.engine.shutdown().await;
    let rewritten = outcome?;
    ended.map_err(|error| error.to_string())?;
    if rewrite && rewritten != text {
        std::fs::write(slt, rewritten).map_err(|error| format!("{} cannot be written: {error}", slt.display()))?;
    }
    Ok(())
}

/// The `.slt` files at or below `path`, by name.
fn slt_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        return Ok(entries(path)?.iter().map(|entry| slt_files(entry)).collect::<Result<Vec<_>>>()?.concat());
    }
    let is_slt = path.extension().is_some_and(|extension| extension == "slt");
    match (path.exists(), is_slt) {
        (false, _) => Err(Error::user(format!("{} does not exist", path.display())).hint("name a pack's folder, or a .slt file in it")),
        (true, is_slt) => Ok(if is_slt { vec![path.to_path_buf()] } else { Vec::new() }),
    }
}

/// The file's own folder where that is a pack, else the pack tested.
fn pack_of(slt: &Path, tested: &Path) -> Result<PathBuf> {
    let folder = folder_of(slt);
    let holds_sql = entries(folder)?.iter().any(|path| path.extension().is_some_and(|extension| extension == "sql"));
    Ok(if holds_sql { folder.to_path_buf() } else { tested.to_path_buf() })
}

fn values(pack: &Pack) -> BTreeMap<String, String> {
    let unset = pack.unset().into_iter().map(|name| (name, "unset".to_string()));
    pack.variables.clone().into_iter().chain(unset).collect()
}

/// A part of a test file.
#[derive(Debug, PartialEq)]
struct Step<'a> {
    /// 1-based.
    line: usize,
    /// As it stands in the file, without the last newline.
    text: String,
    kind: StepKind<'a>,
}

#[derive(Debug, PartialEq)]
enum StepKind<'a> {
    /// sqllogictest's own records.
    Script,
    Feed {
        source: &'a str,
        rows: String,
    },
    Advance {
        to_ms: u64,
    },
}

/// Cuts a file at `feed` and `advance`, where a record may begin.
fn steps(text: &str) -> Result<Vec<Step<'_>>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut may_begin = true;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kind = match words.as_slice() {
            ["feed", source] if may_begin => {
                let mut rows = String::new();
                while let Some((_, row)) = lines.next_if(|(_, row)| !row.trim().is_empty()) {
                    rows += row;
                    rows.push('\n');
                }
                StepKind::Feed { source, rows }
            }
            ["advance", time] if may_begin => StepKind::Advance { to_ms: time_ms(time).ok_or_else(|| wrong_time(at + 1, time))? },
            ["feed" | "advance", ..] if may_begin => {
                return Err(format!("{}: \"{line}\" is not \"feed <source>\" or \"advance <time>\"", at + 1));
            }
            ["include" | "system", ..] if may_begin => {
                return Err(format!("{}: \"{}\" is refused: a test touches nothing but its engine", at + 1, words[0]));
            }
            _ => StepKind::Script,
        };
        may_begin = !matches!(kind, StepKind::Script) || words.is_empty() || line.starts_with('#');
        if kind == StepKind::Script
            && let Some(Step { kind: StepKind::Script, text, .. }) = steps.last_mut()
        {
            text.push('\n');
            *text += line;
            continue;
        }
        let rows = if let StepKind::Feed { rows, .. } = &kind { format!("\n{}", rows.trim_end()) } else { String::new() };
        steps.push(Step { line: at + 1, text: format!("{line}{rows}"), kind });
    }
    Ok(steps)
}

fn wrong_time(line: usize, time: &str) -> String {
    format!("{line}: '{time}' is not a time such as 2026-03-02T08:00:00Z")
}

fn time_ms(text: &str) -> Option<u64> {
    u64::try_from(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis()).ok()
}

/// Time as the test says it.
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn at(ms: u64) -> Self {
        Self(AtomicU64::new(ms))
    }

    pub fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// One test's engine.
struct Bench {
    engine: Engine,
    clock: Arc<ManualClock>,
    name: String,
}

impl Bench {
    async fn start(setup: &Setup, name: String) -> Result<Self> {
        let clock = Arc::new(ManualClock::at(START_MS));
        let variables = setup.variables.clone();
        let config = Config { workers: setup.workers, tick: TICK, clock: clock.clone(), variables, ..Config::default() };
        let engine = Engine::start(config, Arc::new(Isolated))?;
        for (file, sql) in &setup.files {
            engine.execute(sql, file).await?;
        }
        Ok(Self { engine, clock, name })
    }

    /// Runs all steps. Returns the file as it should be.
    async fn run(&self, steps: &[Step<'_>], rewrite: bool) -> Result<String, String> {
        let (engine, name) = (self.engine.clone(), self.name.clone());
        let mut runner = Runner::new(move || {
            let database = Database { engine: engine.clone(), name: name.clone() };
            async move { Ok(database) }
        });
        let mut text = String::new();
        let mut is_halted = false;
        for step in steps {
            let at = |error: Error| format!("{}:{}: {error}", self.name, step.line);
            match &step.kind {
                _ if is_halted => text += &format!("{}\n", step.text),
                StepKind::Feed { source, rows } => {
                    self.feed(source, rows, step.line).await.map_err(at)?;
                    text += &format!("{}\n", step.text);
                }
                StepKind::Advance { to_ms } => {
                    self.advance(*to_ms).await.map_err(at)?;
                    text += &format!("{}\n", step.text);
                }
                StepKind::Script => is_halted = script(&mut runner, step, &self.name, rewrite, &mut text).await?,
            }
        }
        Ok(format!("{}\n", text.trim_end()))
    }

    async fn feed(&self, source: &str, rows: &str, line: usize) -> Result<()> {
        let relations = self.engine.relations();
        let mut sources = relations.iter().filter(|relation| relation.kind == "source");
        let Some(relation) = sources.clone().find(|relation| relation.name == source) else {
            let error = Error::user(format!("there is no source \"{source}\" to feed"));
            let close = did_you_mean(source, sources.by_ref().map(|relation| relation.name.as_str()));
            return Err(error.hint(close.map_or("create it in the pack's .sql".into(), |close| format!("did you mean \"{close}\"?"))));
        };
        let wanted = (0..relation.schema.fields().len()).collect();
        let decoder = JsonDecoder::new(Columns { schema: relation.schema.clone(), wanted }, LINE_BYTES_MAX)?;
        let decoded = decoder.decode(rows.as_bytes(), line as u64 + 1, "line");
        if let Some(dead) = decoded.dead.first() {
            return Err(Error::user(format!("{}: {}", dead.position, dead.reason)));
        }
        self.engine.push(source, decoded.rows).await.map(drop)
    }

    /// Moves the clock, and waits until a tick of that time is closed.
    async fn advance(&self, to_ms: u64) -> Result<()> {
        if to_ms < self.clock.now_ms() {
            return Err(Error::user("advance goes back in time").hint("times in a test only grow"));
        }
        self.clock.set(to_ms);
        let closed = async {
            while self.engine.health().tick < to_ms {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let late = |_| Error::engine(format!("no tick was closed within {CLOSE_MAX:?}"));
        tokio::time::timeout(CLOSE_MAX, closed).await.map_err(late)
    }
}

/// Runs sqllogictest's records, and adds them to `text` as they should be.
/// Returns whether they end in `halt`.
async fn script<M>(runner: &mut Runner<Database, M>, step: &Step<'_>, name: &str, rewrite: bool, text: &mut String) -> Result<bool, String>
where
    M: MakeConnection<Conn = Database>,
{
    // Blank lines before it give each record its line in the file.
    let blank = step.line - 1;
    let padded = format!("{}{}\n", "\n".repeat(blank), step.text);
    let records = parse_with_name::<DefaultColumnType>(&padded, name).map_err(|error| error.to_string())?;
    let mut is_halted = false;
    for record in records.into_iter().skip(blank) {
        is_halted |= matches!(record, Record::Halt { .. });
        let record = match (is_halted, rewrite) {
            (true, _) => record,
            (false, true) => answered(runner, record).await,
            (false, false) => {
                runner.run_async(record.clone()).await.map_err(|error| error.display(false).to_string())?;
                record
            }
        };
        writeln!(text, "{record}").expect("a String takes everything");
    }
    Ok(is_halted)
}

/// The record with what is answered now.
async fn answered<M>(runner: &mut Runner<Database, M>, record: Record<DefaultColumnType>) -> Record<DefaultColumnType>
where
    M: MakeConnection<Conn = Database>,
{
    let output = runner.apply_record(record.clone()).await;
    update_record_with_output(&record, &output, " ", default_validator, default_normalizer, default_column_validator).unwrap_or(record)
}

/// The engine, as sqllogictest asks it.
struct Database {
    engine: Engine,
    name: String,
}

#[async_trait]
impl AsyncDB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        Ok(match self.engine.execute(sql, &self.name).await?.pop() {
            Some(Response::Rows { batches, schema, .. }) => {
                let rows = batches.iter().map(rows).collect::<Result<Vec<_>>>()?.concat();
                DBOutput::Rows { types: types(&schema), rows }
            }
            Some(Response::Done { tag, .. }) => DBOutput::StatementComplete(count(&tag)),
            None => DBOutput::StatementComplete(0),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "tidegate"
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn run_command(_: Command) -> std::io::Result<Output> {
        Err(std::io::Error::other("system commands are refused"))
    }
}

/// The rows that `INSERT 0 3` speaks of.
fn count(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn types(schema: &SchemaRef) -> Vec<DefaultColumnType> {
    let kind = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        integer if integer.is_integer() => DefaultColumnType::Integer,
        number if number.is_numeric() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Any,
    };
    schema.fields().iter().map(|field| kind(field.data_type())).collect()
}

fn rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let formatters: Vec<_> =
        formatters.collect::<Result<_, _>>().map_err(|error| Error::engine(format!("the rows cannot be shown: {error}")))?;
    let value = |formatter: &ArrayFormatter, row| {
        let text = formatter.value(row).to_string();
        if text.is_empty() { "(empty)".to_string() } else { text }
    };
    Ok((0..batch.num_rows()).map(|row| formatters.iter().map(|formatter| value(formatter, row)).collect()).collect())
}

/// Connectors that reach nobody.
struct Isolated;

impl Connectors for Isolated {
    fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(Silent))
    }

    fn sink(&self, _: &SinkSpec) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Silent))
    }

    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>> {
        Ok(Box::new(Willing { options: spec.options.clone() }))
    }
}

/// Brings nothing and keeps nothing.
struct Silent;

#[async_trait]
impl Source for Silent {
    async fn poll(&mut self, _: Budget) -> Result<Polled> {
        std::future::pending().await
    }

    async fn acknowledge(&mut self, _: Offset) {}
}

#[async_trait]
impl Sink for Silent {
    async fn resume(&mut self, _: &Writer) -> Result<Progress> {
        Ok(Progress::Unknown)
    }

    async fn write(&mut self, _: &[Changes]) -> Result<()> {
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Says yes to everything that is configured.
struct Willing {
    options: Options,
}

#[async_trait]
impl Responder for Willing {
    async fn send(&self, _: &ActionRequest) -> Result<(), ActionFailure> {
        Ok(())
    }

    fn supports(&self, kind: ActionKind) -> bool {
        kind != ActionKind::Undo || self.options.contains_key("undo_url")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_where_a_record_may_begin() {
        let text = "# a\nfeed s\n{\"a\":1}\n{\"a\":2}\n\nadvance 2026-03-02T08:00:00Z\nquery T\nSELECT 1\n----\nfeed x\n\n# b\n";
        let steps = steps(text).unwrap();
        let found: Vec<(usize, &str)> = steps.iter().map(|step| (step.line, step.text.as_str())).collect();
        let expected = [
            (1, "# a"),
            (2, "feed s\n{\"a\":1}\n{\"a\":2}"),
            (5, ""),
            (6, "advance 2026-03-02T08:00:00Z"),
            (7, "query T\nSELECT 1\n----\nfeed x\n\n# b"),
        ];
        assert_eq!(found, expected);
        assert_eq!(steps[1].kind, StepKind::Feed { source: "s", rows: "{\"a\":1}\n{\"a\":2}\n".into() });
        assert_eq!(steps[3].kind, StepKind::Advance { to_ms: 1_772_438_400_000 });
    }

    #[test]
    fn what_is_not_a_record_is_refused_with_its_line() {
        let cases = [
            ("\nadvance tomorrow", "2: 'tomorrow' is not a time"),
            ("feed", "1: \"feed\" is not"),
            ("include ../x.slt", "1: \"include\" is refused"),
            ("system ok\nrm x", "1: \"system\" is refused"),
        ];
        for (text, expected) in cases {
            let error = steps(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn tags_count_their_rows() {
        assert_eq!((count("INSERT 0 3"), count("DELETE 2"), count("CREATE TABLE")), (3, 2, 0));
    }
}
