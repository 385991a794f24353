//! The `CREATE SOURCE` for a file, from its first lines.
//!
//! Reads     at most 1000 lines and 1 MiB, decompressed
//! Formats   JSON lines, CSV with a header, combined and common web logs,
//!           syslog (RFC 5424, RFC 3164); else text with the one column `line`,
//!           and a comment that says why. Lines that disagree are counted in one
//! Types     TEXT, BIGINT, DOUBLE, BOOLEAN, TIMESTAMP, DATE; the first
//!           TIMESTAMP gets a watermark. A column whose lines disagree, or that
//!           is nested, is left to the reader in a comment
//! Path      absolute: a pack's relative paths begin at the pack's folder, which
//!           is not where `infer` was called
//! Errors    the file cannot be read, is empty, or is no text

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::csv::reader::Format as CsvReader;
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::json::reader::infer_json_schema_from_iterator;
use chrono::{NaiveDate, Utc};
use serde_json::{Map, Value};
use tidegate_types::error::{Error, Result};

use crate::format::sql_type;
use crate::format::text::Preset;
use crate::tail::Compression;

const LINES_MAX: usize = 1000;
const BYTES_MAX: usize = 1 << 20;

/// Of CSV, the likeliest first.
const DELIMITERS: [u8; 4] = *b",;\t|";

/// How far behind the newest event another may come, as a first proposal.
const LATENESS: &str = "30 seconds";

/// The statement, with a newline at the end.
pub fn infer(path: &Path) -> Result<String> {
    let head = head(path)?;
    refuse_binary(path, &head)?;
    let text = String::from_utf8_lossy(&head);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).take(LINES_MAX).collect();
    if lines.is_empty() {
        return Err(Error::user(format!("file {} is empty", path.display())).hint("infer needs a few lines to look at"));
    }
    // Links stay: a log is followed by its name.
    let path = std::path::absolute(path).map_err(|error| cannot_read(path, &error))?;
    Ok(statement(&path, &propose(&lines)))
}

/// The file's first whole lines, decompressed.
fn head(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut magic = Vec::new();
        File::open(path)?.take(4).read_to_end(&mut magic)?;
        let reader = Compression::of(&magic).reader(File::open(path)?)?;
        let mut head = Vec::new();
        reader.take(BYTES_MAX as u64).read_to_end(&mut head).map(|_| head)
    };
    let mut head = read().map_err(|error| cannot_read(path, &error))?;
    if head.len() == BYTES_MAX
        && let Some(end) = memchr::memrchr(b'\n', &head)
    {
        head.truncate(end);
    }
    Ok(head.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(head))
}

/// Errors: more than one line in ten is no text.
fn refuse_binary(path: &Path, head: &[u8]) -> Result<()> {
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    let texts = lines.iter().filter(|line| is_text(line)).count();
    if is_most(texts, lines.len()) {
        return Ok(());
    }
    let message = format!(
        "file {} is no text: {} of {} lines looked at are not UTF-8, or have a zero byte",
        path.display(),
        lines.len() - texts,
        lines.len()
    );
    Err(Error::user(message).hint("give a file of text, plain or compressed with gzip or zstd; iconv makes UTF-8 of other encodings"))
}

/// The last character may be cut off where the looking ended.
fn is_text(line: &[u8]) -> bool {
    !line.contains(&0) && std::str::from_utf8(line).map_or_else(|error| error.error_len().is_none(), |_| true)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Error {
    let error = Error::user(format!("file {} cannot be read: {error}", path.display()));
    error.hint("give the path of a file with a few lines, plain or compressed with gzip or zstd")
}

/// What the statement is made of.
#[derive(Debug, PartialEq, Eq)]
struct Proposal {
    /// What the reader should know of the whole.
    note: Option<String>,
    /// Name, type, and what is unsure about it.
    columns: Vec<(String, DataType, Option<String>)>,
    /// Fields that cannot be columns, and why.
    left_out: Vec<(String, String)>,
    /// In the order of the `WITH`, after connector and path.
    options: Vec<(&'static str, String)>,
}

/// JSON where half of the lines are objects; else the first format that nine lines in ten agree with.
fn propose(lines: &[&str]) -> Proposal {
    let read: Vec<Option<Map<String, Value>>> = lines.iter().map(|line| serde_json::from_str(line).ok()).collect();
    let are_objects: Vec<bool> = read.iter().map(Option::is_some).collect();
    let objects: Vec<Map<String, Value>> = read.into_iter().flatten().collect();
    if !objects.is_empty() && 2 * objects.len() >= lines.len() {
        return Proposal { note: strays(&are_objects, "is no JSON object"), ..json(&objects) };
    }
    for (name, preset) in Preset::ALL {
        let regex = preset.regex();
        let match_it: Vec<bool> = lines.iter().map(|line| regex.is_match(line)).collect();
        if is_most(match_it.iter().filter(|matches| **matches).count(), lines.len()) {
            return Proposal { note: strays(&match_it, &format!("is not as {name} has it")), ..preset_columns(name, preset) };
        }
    }
    csv(lines).unwrap_or_else(|| Proposal {
        note: Some(format!("taken for lines of text: {}", why_text(lines))),
        columns: vec![column("line", DataType::Utf8)],
        left_out: Vec::new(),
        options: vec![("format", "text".into())],
    })
}

/// Of the lines that are not of the format: how many, and the first.
fn strays(fit: &[bool], why: &str) -> Option<String> {
    let first = fit.iter().position(|fits| !fits)? + 1;
    let (count, of) = (fit.iter().filter(|fits| !**fits).count(), fit.len());
    Some(format!("{count} of {of} lines looked at will be dead letters: the first, line {first} of those with text, {why}"))
}

/// Why no other format was found, and the way out.
fn why_text(lines: &[&str]) -> String {
    let start: String = lines.iter().take(2).copied().collect();
    let begins = |bracket: char, inside: char| {
        start.trim_start().strip_prefix(bracket).is_some_and(|rest: &str| rest.trim_start().starts_with(inside))
    };
    if begins('[', '{') {
        return "it begins as a JSON array, and a source reads one JSON object a line; jq -c '.[]' makes such lines of it".into();
    }
    if begins('{', '"') {
        return "it begins as a JSON object over several lines, and a source reads one a line; jq -c . makes such lines of it".into();
    }
    match DELIMITERS.into_iter().filter(|delimiter| is_table(lines, *delimiter)).find_map(|delimiter| header_fault(lines, delimiter)) {
        Some(fault) => format!("it looks like CSV, but {fault}; name each column once in the first line, and infer again"),
        None => "it is neither JSON objects, nor a web log or syslog, nor CSV with a header of two columns or more \
                 (for a CSV of one column write format = 'csv', and the header's name for line)"
            .into(),
    }
}

fn is_most(count: usize, of: usize) -> bool {
    count > 0 && 10 * count >= 9 * of
}

fn column(name: &str, data_type: DataType) -> (String, DataType, Option<String>) {
    (name.to_string(), data_type, None)
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

fn json(objects: &[Map<String, Value>]) -> Proposal {
    let mut proposal = Proposal { note: None, columns: Vec::new(), left_out: Vec::new(), options: vec![("format", "json".into())] };
    // Fields in the order in which they first appear, which serde_json's map
    // does not keep; arrow's inference does not either. By name, then.
    let mut names: Vec<&String> = objects.iter().flat_map(Map::keys).collect();
    names.sort();
    names.dedup();
    for name in names {
        let values: Vec<&Value> = objects.iter().filter_map(|object| object.get(name)).filter(|value| !value.is_null()).collect();
        match json_type(&values) {
            Ok((data_type, unsure)) => proposal.columns.push((name.clone(), data_type, unsure)),
            Err(why) => proposal.left_out.push((name.clone(), why.into())),
        }
    }
    proposal
}

/// The type all values agree on, and what is unsure about it; or why the
/// field is no column.
fn json_type(values: &[&Value]) -> Result<(DataType, Option<String>), &'static str> {
    let rows = values.iter().map(|value| Ok(Value::Object(Map::from_iter([("v".to_string(), (*value).clone())]))));
    let inferred = infer_json_schema_from_iterator(rows).ok().and_then(|schema| Some(schema.fields().first()?.data_type().clone()));
    match inferred {
        None if values.is_empty() => Ok((DataType::Utf8, Some("always null so far".into()))),
        None => Err("its values are of several shapes"),
        Some(nested) if nested.is_nested() => Err("nested"),
        Some(DataType::Utf8) if values.iter().all(|value| value.is_string()) => {
            let texts: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
            Ok((text_type(&texts), None))
        }
        Some(DataType::Utf8) => Ok((DataType::Utf8, Some("some values are no strings: those lines become dead letters".into()))),
        Some(scalar) => Ok((scalar, None)),
    }
}

/// TIMESTAMP or DATE where every text is one.
fn text_type(texts: &[&str]) -> DataType {
    let is_date = |text: &&str| text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    let is_time = |text: &&str| text.len() > 10 && text.as_bytes()[4] == b'-' && string_to_datetime(&Utc, text).is_ok();
    match texts {
        [] => DataType::Utf8,
        texts if texts.iter().all(is_date) => DataType::Date32,
        texts if texts.iter().all(is_time) => timestamp(),
        _ => DataType::Utf8,
    }
}

fn preset_columns(name: &str, preset: Preset) -> Proposal {
    let text = |names: &[&str]| names.iter().map(|name| column(name, DataType::Utf8)).collect::<Vec<_>>();
    let number = |name: &str| column(name, DataType::Int64);
    let mut columns = Vec::new();
    match preset {
        Preset::CommonLog | Preset::CombinedLog => {
            columns.extend(text(&["ip", "ident", "user"]));
            columns.push(column("ts", timestamp()));
            columns.extend(text(&["method", "path", "protocol"]));
            columns.extend([number("status"), number("bytes")]);
            if preset == Preset::CombinedLog {
                columns.extend(text(&["referer", "agent"]));
            }
        }
        Preset::SyslogRfc3164 | Preset::SyslogRfc5424 => {
            columns.extend([number("facility"), number("severity"), column("ts", timestamp())]);
            columns.extend(text(&["host", "app", "pid"]));
            if preset == Preset::SyslogRfc5424 {
                columns.extend(text(&["msgid", "structured"]));
            }
            columns.extend(text(&["message"]));
        }
    }
    Proposal { note: None, columns, left_out: Vec::new(), options: vec![("format", "text".into()), ("preset", name.into())] }
}

/// A header and rows of as many fields, with one of the usual delimiters.
fn csv(lines: &[&str]) -> Option<Proposal> {
    let text = lines.join("\n");
    let is_csv = |delimiter: &u8| is_table(lines, *delimiter) && header_fault(lines, *delimiter).is_none();
    let delimiter = DELIMITERS.into_iter().find(is_csv)?;
    let format = CsvReader::default().with_header(true).with_delimiter(delimiter);
    let (schema, _) = format.infer_schema(text.as_bytes(), None).ok()?;
    let columns = schema.fields().iter().map(|field| (field.name().trim().to_string(), csv_type(field), None)).collect();
    let mut options = vec![("format", "csv".to_string())];
    match delimiter {
        b',' => {}
        b'\t' => options.push(("delimiter", "tab".into())),
        other => options.push(("delimiter", char::from(other).to_string())),
    }
    Some(Proposal { note: None, columns, left_out: Vec::new(), options })
}

/// At least two columns, under what could be names: a row of numbers
/// or a line of prose with a comma in it is no header.
fn is_table(lines: &[&str], delimiter: u8) -> bool {
    let names = header(lines, delimiter);
    // A log's time, cut in two by its comma, is no name either.
    let is_value = |name: &str| name.parse::<f64>().is_ok() || string_to_datetime(&Utc, name).is_ok();
    let may_be_name = |name: &&str| name.len() <= 64 && !is_value(name) && name.split_whitespace().count() <= 4;
    let format = CsvReader::default().with_header(true).with_delimiter(delimiter);
    names.len() >= 2 && lines.len() >= 2 && names.iter().all(may_be_name) && format.infer_schema(lines.join("\n").as_bytes(), None).is_ok()
}

fn header<'a>(lines: &[&'a str], delimiter: u8) -> Vec<&'a str> {
    lines[0].split(char::from(delimiter)).map(|name| name.trim().trim_matches('"')).collect()
}

/// Why its names cannot be those of a source's columns.
fn header_fault(lines: &[&str], delimiter: u8) -> Option<String> {
    let names = header(lines, delimiter);
    if let Some(i) = names.iter().position(|name| name.is_empty()) {
        return Some(format!("column {} of the header has no name", i + 1));
    }
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    twice.map(|(_, name)| format!("the header names column \"{}\" twice", name.escape_debug()))
}

fn csv_type(field: &Field) -> DataType {
    match field.data_type() {
        DataType::Timestamp(..) => timestamp(),
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

fn statement(path: &Path, proposal: &Proposal) -> String {
    let mut clauses: Vec<(String, String)> = proposal
        .columns
        .iter()
        .map(|(name, data_type, unsure)| {
            let comment = unsure.as_ref().map_or(String::new(), |unsure| format!(" -- {unsure}"));
            (format!("{} {}", identifier(name), sql_type(data_type)), comment)
        })
        .collect();
    if let Some((name, ..)) = proposal.columns.iter().find(|(_, data_type, _)| *data_type == timestamp()) {
        let name = identifier(name);
        clauses.push((format!("WATERMARK FOR {name} AS {name} - INTERVAL '{LATENESS}'"), String::new()));
    }
    let mut options = vec![("connector", "file".to_string()), ("path", path.display().to_string())];
    options.extend(proposal.options.iter().cloned());
    let options: Vec<String> = options.iter().map(|(key, value)| format!("{key} = '{}'", value.replace('\'', "''"))).collect();

    let mut text = proposal.note.as_ref().map_or(String::new(), |note| format!("-- {note}\n"));
    for (name, why) in &proposal.left_out {
        // A name is the file's: it may not end the comment.
        let _ = writeln!(text, "-- left out: {} ({why})", name.escape_debug());
    }
    let _ = writeln!(text, "CREATE SOURCE {} (", identifier(&source_name(path)));
    for (i, (clause, comment)) in clauses.iter().enumerate() {
        let comma = if i + 1 < clauses.len() { "," } else { "" };
        let _ = writeln!(text, "  {clause}{comma}{comment}");
    }
    let _ = writeln!(text, ") WITH ({});", options.join(", "));
    text
}

/// The file's name up to its first dot, made a word.
fn source_name(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase());
    let stem = name.split('.').find(|part| !part.is_empty()).unwrap_or("source");
    let word: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if word.starts_with(|c: char| c.is_ascii_digit()) { format!("s_{word}") } else { word }
}

/// Words that SQL reads as its own.
const RESERVED: &str = "all and any array as asc between by case cast check column create cross current current_date current_time \
    current_timestamp default delete desc distinct drop else end except exists false fetch for from full group \
    having in inner insert intersect interval into is join left like limit natural not null offset on or order \
    outer partition primary right select set table then to trim true union user watermark when where";

/// Quoted where SQL would not read it back as it is.
fn identifier(name: &str) -> String {
    let is_word = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match is_word && !RESERVED.split(' ').any(|reserved| reserved == name) {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(text: &str) -> String {
        statement(Path::new("data/My scans.jsonl.gz"), &propose(&text.lines().collect::<Vec<_>>()))
    }

    #[test]
    fn relative_paths_become_absolute() {
        // Tests run in the crate's folder.
        let expected = format!("path = '{}/src/infer.rs'", std::env::current_dir().unwrap().display());
        let statement = infer(Path::new("src/infer.rs")).unwrap();
        assert!(statement.contains(&expected), "{statement}");
    }

    #[test]
    fn json_lines() {
        let text = r#"{"parcel":"p1","ts":"2024-01-31T09:26:56Z","lat":1.5,"n":1,"Ok":true,"day":"2024-01-31","meta":{"a":1},"mixed":1,"none":null}
{"parcel":"p2","ts":"2024-01-31 09:26:57","lat":2,"n":2,"Ok":false,"day":"2024-02-01","mixed":"x","odd":[1]}"#;
        let expected = "-- left out: meta (nested)
-- left out: odd (nested)
CREATE SOURCE my_scans (
  \"Ok\" BOOLEAN,
  day DATE,
  lat DOUBLE,
  mixed TEXT, -- some values are no strings: those lines become dead letters
  n BIGINT,
  none TEXT, -- always null so far
  parcel TEXT,
  ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '30 seconds'
) WITH (connector = 'file', path = 'data/My scans.jsonl.gz', format = 'json');
";
        assert_eq!(proposal(text), expected);
    }

    #[test]
    fn csv_with_any_usual_delimiter() {
        let text = "id;when;temp;order\n1;2024-01-31 09:26:56;2.5;a\n2;2024-01-31 09:26:57.5;3;b";
        let expected = "CREATE SOURCE my_scans (
  id BIGINT,
  when TIMESTAMP,
  temp DOUBLE,
  \"order\" TEXT,
  WATERMARK FOR when AS when - INTERVAL '30 seconds'
) WITH (connector = 'file', path = 'data/My scans.jsonl.gz', format = 'csv', delimiter = ';');
";
        assert_eq!(proposal(text), expected.replace("when", "\"when\""));
    }

    #[test]
    fn logs_and_plain_text() {
        let cases = [
            ("h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5", "preset = 'common_log'"),
            ("h - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5 \"-\" \"curl\"", "preset = 'combined_log'"),
            ("<34>1 2003-10-11T22:14:15.003Z h su - ID47 - m", "preset = 'syslog_rfc5424'"),
            ("Jun 14 15:16:01 combo sshd[19939]: no", "preset = 'syslog_rfc3164'"),
            (
                "dear reader, this is prose\nand it goes on, for a while, like that",
                "(\n  line TEXT\n) WITH (connector = 'file', path = 'data/My scans.jsonl.gz', format = 'text')",
            ),
            ("2026-01-01 10:00:00,123 INFO started\n2026-01-01 10:00:01,007 WARN slow", "line TEXT"),
        ];
        for (text, expected) in cases {
            let statement = proposal(text);
            assert!(statement.contains(expected), "{statement}");
        }
    }

    #[test]
    fn what_is_taken_for_what_is_said() {
        let cases = [
            (
                "{\"a\":1}\nbroken\n{\"a\":2}",
                "-- 1 of 3 lines looked at will be dead letters: the first, line 2 of those with text, is no JSON object\nCREATE",
            ),
            ("{\"a\":1}\nbroken\n{\"a\":2}", "format = 'json'"),
            ("[{\"a\":1},\n{\"a\":2}]", "-- taken for lines of text: it begins as a JSON array"),
            ("[\n  {\"a\":1}\n]", "jq -c '.[]'"),
            ("{\n  \"a\": 1\n}", "-- taken for lines of text: it begins as a JSON object over several lines"),
            ("a,b,a\n1,2,3", "it looks like CSV, but the header names column \"a\" twice; name each column once"),
            ("a,,b\n1,2,3", "it looks like CSV, but column 2 of the header has no name"),
            ("name\nbob\nalice", "-- taken for lines of text: it is neither JSON objects,"),
        ];
        for (text, expected) in cases {
            let statement = proposal(text);
            assert!(statement.contains(expected), "{statement}");
        }
        assert!(proposal("{\"a\":1}").starts_with("CREATE SOURCE"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let refused = |head: &[u8]| refuse_binary(Path::new("x"), head).err().map(|error| error.message);
        assert_eq!(refused(b"\xff\xfe\n\x00a\nb").unwrap(), "file x is no text: 2 of 3 lines looked at are not UTF-8, or have a zero byte");
        // Cut inside its last character; one line in eleven of another encoding.
        assert_eq!(refused(b"caf\xc3"), None);
        assert_eq!(refused(&[&b"line\n".repeat(10)[..], b"caf\xe9 au lait"].concat()), None);
    }

    #[test]
    fn names_are_quoted_when_sql_would_not_read_them_back() {
        for (name, expected) in [
            ("a_1", "a_1"),
            ("A", "\"A\""),
            ("1a", "\"1a\""),
            ("from", "\"from\""),
            ("trim", "\"trim\""),
            ("a\"b", "\"a\"\"b\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(identifier(name), expected);
        }
        for (path, expected) in [("/x/2024-01.log", "s_2024_01"), ("messages", "messages"), (".hidden.csv", "hidden")] {
            assert_eq!(source_name(Path::new(path)), expected);
        }
    }
}
