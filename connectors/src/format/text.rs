//! `text` format: a line is matched by a regular expression, whose named
//! captures are the columns.
//!
//! Options   pattern (a regular expression of the `regex` crate), or
//!           preset ('common_log', 'combined_log', 'syslog_rfc3164',
//!           'syslog_rfc5424'); with neither, only the special columns exist
//!           unmatched ('dead_letter' by default, or 'skip')
//!           year (syslog_rfc3164, whose timestamps have none; by default the
//!           latest year that puts a line no more than 31 days ahead of now)
//! Rows      special columns, beside the captures: line (the text of the line)
//!           and line_number (counted from 1).
//!           common_log: ip, ident, user, ts, request, method, path, protocol,
//!             status, bytes; method, path and protocol are NULL where the
//!             request is not one
//!           combined_log: those, and referer, agent
//!           syslog_rfc3164: pri, facility, severity, ts, host, app, pid,
//!             message; ts may also be RFC 3339, as rsyslog writes it; without
//!             a zone it is UTC; a line without `app:` is all message
//!           syslog_rfc5424: pri, facility, severity, version, ts, host, app,
//!             pid, msgid, structured, message
//!           A preset's `-`, and a capture that took no part, is NULL.
//!           TIMESTAMP takes a preset's own notation, and what JSON takes
//! Errors    per line: no match, not UTF-8, a capture that is not of its
//!           column's type

use std::str::Utf8Error;
use std::sync::Arc;

use arrow::array::{StringArray, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use regex::{CaptureLocations, Regex};
use tidegate_types::error::{Error, Result, did_you_mean};
use tidegate_types::time::Clock;

use super::cast::{can_hold, typed};
use super::{Bad, Columns, Cut, Decoded, Decoder, Line, cannot_hold, dead_letters};
use crate::options::OptionReader;

const COMMON_LOG: &str = concat!(
    r#"^(?P<ip>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<ts>[^\]]+)\] "#,
    r#""(?P<request>(?P<method>[A-Za-z]+) (?P<path>(?:[^"\\ ]|\\.)+)(?: (?P<protocol>[^" ]+))?|(?:[^"\\]|\\.)*)" "#,
    r#"(?P<status>\d{3}) (?P<bytes>\d+|-)"#,
);
const COMMON_LOG_END: &str = r"\s*$";
/// Some servers add fields of their own at the end.
const COMBINED_LOG_END: &str = r#" "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"(?: .*)?$"#;

const SYSLOG_RFC3164: &str = concat!(
    r"^(?:<(?P<pri>\d{1,3})>)?(?P<ts>[A-Z][a-z]{2} [ \d]?\d \d{2}:\d{2}:\d{2}|\d{4}-\d{2}-\d{2}T\S+) (?P<host>\S+) ",
    r"(?:(?P<app>[^\s:\[]{1,128})(?:\[(?P<pid>[^\]]*)\])?:(?: |$))?(?P<message>.*)$",
);
const SYSLOG_RFC5424: &str = concat!(
    r"^<(?P<pri>\d{1,3})>(?P<version>\d{1,2}) (?P<ts>\S+) (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) (?P<msgid>\S+) ",
    r#"(?P<structured>-|(?:\[(?:[^\]\\"]|\\.|"(?:[^"\\]|\\.)*")*\])+)(?: \x{feff}?(?P<message>.*))?$"#,
);

/// A log layout known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    CommonLog,
    CombinedLog,
    SyslogRfc3164,
    SyslogRfc5424,
}

impl Preset {
    /// Most particular first: a combined log line would almost pass as common.
    pub const ALL: [(&'static str, Self); 4] = [
        ("combined_log", Self::CombinedLog),
        ("common_log", Self::CommonLog),
        ("syslog_rfc5424", Self::SyslogRfc5424),
        ("syslog_rfc3164", Self::SyslogRfc3164),
    ];

    pub fn regex(self) -> Regex {
        let pattern = match self {
            Self::CommonLog => [COMMON_LOG, COMMON_LOG_END].concat(),
            Self::CombinedLog => [COMMON_LOG, COMBINED_LOG_END].concat(),
            Self::SyslogRfc3164 => SYSLOG_RFC3164.to_string(),
            Self::SyslogRfc5424 => SYSLOG_RFC5424.to_string(),
        };
        Regex::new(&pattern).expect("the presets are tested")
    }
}

/// What fills a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Line,
    LineNumber,
    Capture(usize),
    /// `10/Oct/2000:13:55:36 -0700`
    CommonLogTime(usize),
    /// `Oct  1 22:14:15`
    SyslogTime(usize),
    /// The priority's eights.
    Facility(usize),
    /// The priority's ones.
    Severity(usize),
}

pub struct TextDecoder {
    columns: Columns,
    /// One per declared column.
    parts: Vec<Part>,
    /// None: every line matches, and has no captures.
    regex: Option<Regex>,
    /// A preset's `-` says "nothing".
    dash_is_null: bool,
    skips_unmatched: bool,
    year: Option<i32>,
    clock: Arc<dyn Clock>,
    line_bytes_max: usize,
}

impl TextDecoder {
    pub(crate) fn new(columns: Columns, line_bytes_max: usize, clock: Arc<dyn Clock>, options: &mut OptionReader) -> Result<Self> {
        let preset = options.one_of("preset", &Preset::ALL)?;
        let pattern = options.text("pattern");
        let skips_unmatched = options.one_of("unmatched", &[("dead_letter", false), ("skip", true)])?.unwrap_or(false);
        let year = match preset {
            Some(Preset::SyslogRfc3164) => options.parsed("year", parse_year, "a year such as '2024'")?,
            _ => None,
        };
        let regex = match (preset, pattern) {
            (Some(_), Some(_)) => {
                return Err(options.refused("options \"pattern\" and \"preset\" exclude each other").hint("keep one of them"));
            }
            (Some(preset), None) => Some(preset.regex()),
            (None, Some(pattern)) => Some(compile(&pattern, options)?),
            (None, None) => None,
        };
        let parts = parts(&columns.schema, regex.as_ref(), preset, options)?;
        Ok(Self { columns, parts, regex, dash_is_null: preset.is_some(), skips_unmatched, year, clock, line_bytes_max })
    }
}

impl Decoder for TextDecoder {
    fn decode(&self, block: &[u8], first_line: u64, name: &str) -> Decoded {
        let cut = Cut::new(block, first_line, self.line_bytes_max);
        let years = self.years();
        let mut bad = cut.bad;
        let mut matched = Vec::with_capacity(cut.lines.len());
        let mut texts: Vec<StringBuilder> = self.parts.iter().map(|_| StringBuilder::new()).collect();
        let mut captures = self.regex.as_ref().map(Regex::capture_locations);
        for line in cut.lines {
            match self.read(line, captures.as_mut()) {
                Ok(Some(text)) => {
                    self.append(line.number, text, captures.as_ref(), years, &mut texts);
                    matched.push(line);
                }
                Ok(None) if self.skips_unmatched => {}
                Ok(None) => bad.push(Bad { line, reason: "the line does not match the pattern".into() }),
                Err(_) => bad.push(Bad { line, reason: "not UTF-8".into() }),
            }
        }
        let texts: Vec<StringArray> = texts.iter_mut().map(StringBuilder::finish).collect();
        let (rows, wrong) = typed(&self.columns, &texts, &matched);
        bad.extend(wrong);
        Decoded { rows, dead: dead_letters(bad, name), lines: cut.count }
    }
}

impl TextDecoder {
    fn years(&self) -> Years {
        match self.year {
            Some(year) => Years::Fixed(year),
            None => Years::NotAfter(self.clock.now_ms() as i64 + 31 * 86_400_000),
        }
    }

    /// The line as text, with `captures` set; None where it does not match.
    fn read<'a>(&self, line: Line<'a>, captures: Option<&mut CaptureLocations>) -> Result<Option<&'a str>, Utf8Error> {
        let text = std::str::from_utf8(line.bytes)?;
        let is_match = match (&self.regex, captures) {
            (Some(regex), Some(captures)) => regex.captures_read(captures, text).is_some(),
            _ => true,
        };
        Ok(is_match.then_some(text))
    }

    fn append(&self, number: u64, text: &str, captures: Option<&CaptureLocations>, years: Years, to: &mut [StringBuilder]) {
        let capture = |group: usize| {
            let (start, end) = captures?.get(group)?;
            Some(&text[start..end]).filter(|value| !(self.dash_is_null && *value == "-"))
        };
        // What a preset's rule cannot read goes on as it is, so that the
        // dead letter quotes it.
        let written = |value: &str, ms: Option<i64>| ms.map_or(value.to_string(), |ms| ms.to_string());
        for (part, to) in self.parts.iter().zip(to) {
            match *part {
                Part::Line => to.append_value(text),
                Part::LineNumber => to.append_value(number.to_string()),
                Part::Capture(group) => to.append_option(capture(group)),
                Part::CommonLogTime(group) => to.append_option(capture(group).map(|value| written(value, common_log_time(value)))),
                Part::SyslogTime(group) => to.append_option(capture(group).map(|value| written(value, syslog_time(value, years)))),
                Part::Facility(group) => to.append_option(priority(capture(group)).map(|pri| (pri / 8).to_string())),
                Part::Severity(group) => to.append_option(priority(capture(group)).map(|pri| (pri % 8).to_string())),
            }
        }
    }
}

fn priority(text: Option<&str>) -> Option<u16> {
    text?.parse().ok()
}

/// One part per declared column: what is declared must exist.
fn parts(schema: &SchemaRef, regex: Option<&Regex>, preset: Option<Preset>, options: &OptionReader) -> Result<Vec<Part>> {
    let names: Vec<Option<&str>> = regex.map_or_else(Vec::new, |regex| regex.capture_names().collect());
    let group = |name: &str| names.iter().position(|candidate| *candidate == Some(name));
    let is_syslog = matches!(preset, Some(Preset::SyslogRfc3164 | Preset::SyslogRfc5424));
    let mut offered: Vec<&str> = names.iter().copied().flatten().collect();
    offered.extend(["line", "line_number"]);
    if is_syslog {
        offered.extend(["facility", "severity"]);
    }
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if let (None, Some(capture)) = (preset, names.iter().flatten().find(|name| !columns.contains(name))) {
        let hint = did_you_mean(capture, columns)
            .map_or("declare it, or make it a group without a name: (?:…)".into(), |close| format!("did you mean \"{close}\"?"));
        return Err(options.refused(format!("the pattern captures \"{capture}\", which is not a column")).hint(hint));
    }
    let part = |field: &arrow::datatypes::FieldRef| {
        let (name, kind) = (field.name().as_str(), field.data_type());
        if !can_hold(kind) {
            return Err(cannot_hold(options, "text", name, kind));
        }
        let is_time = name == "ts" && matches!(kind, DataType::Timestamp(..));
        match (group(name), preset) {
            (Some(group), Some(Preset::CommonLog | Preset::CombinedLog)) if is_time => Ok(Part::CommonLogTime(group)),
            (Some(group), Some(Preset::SyslogRfc3164)) if is_time => Ok(Part::SyslogTime(group)),
            (Some(group), _) => Ok(Part::Capture(group)),
            (None, _) if name == "line" => Ok(Part::Line),
            (None, _) if name == "line_number" => Ok(Part::LineNumber),
            (None, _) if is_syslog && name == "facility" => Ok(Part::Facility(group("pri").expect("syslog has a priority"))),
            (None, _) if is_syslog && name == "severity" => Ok(Part::Severity(group("pri").expect("syslog has a priority"))),
            (None, _) => {
                let hint = did_you_mean(name, offered.iter().copied())
                    .map_or_else(|| format!("there are {}", offered.join(", ")), |close| format!("did you mean \"{close}\"?"));
                Err(options.refused(format!("nothing captures column \"{name}\"")).hint(hint))
            }
        }
    };
    schema.fields().iter().map(part).collect()
}

fn compile(pattern: &str, options: &OptionReader) -> Result<Regex, Error> {
    Regex::new(pattern).map_err(|error| {
        let text = error.to_string();
        // The crate draws the place over several lines; the last says what.
        let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        options.wrong("pattern", pattern, format!("{what}; the syntax is docs.rs/regex#syntax"))
    })
}

fn parse_year(text: &str) -> Option<i32> {
    text.parse().ok().filter(|year| (1970..=9999).contains(year))
}

/// Which year a timestamp without one means.
#[derive(Debug, Clone, Copy)]
enum Years {
    Fixed(i32),
    /// The latest that is not after this, in milliseconds since 1970.
    NotAfter(i64),
}

/// Milliseconds since 1970 of `10/Oct/2000:13:55:36 -0700`.
fn common_log_time(text: &str) -> Option<i64> {
    let (local, zone) = text.split_once(' ')?;
    let mut parts = local.split(['/', ':']);
    let mut next = || parts.next();
    let (day, month, year) = (next()?.parse().ok()?, month(next()?)?, next()?.parse().ok()?);
    let (hour, minute, second) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
    let time = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second)?;
    Some(time.and_utc().timestamp_millis() - offset_ms(zone)?)
}

/// `-0700` as milliseconds east of UTC.
fn offset_ms(zone: &str) -> Option<i64> {
    let (sign, digits) = match zone.as_bytes() {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some(sign * (number / 100 * 60 + number % 100) * 60_000)
}

/// Milliseconds since 1970 of `Oct  1 22:14:15`, taken as UTC.
fn syslog_time(text: &str, years: Years) -> Option<i64> {
    let mut words = text.split_ascii_whitespace();
    let (month, day) = (month(words.next()?)?, words.next()?.parse().ok()?);
    let mut clock = words.next()?.split(':').map(str::parse::<u32>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let in_year = |year| Some(NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second)?.and_utc().timestamp_millis());
    match years {
        Years::Fixed(year) => in_year(year),
        Years::NotAfter(ms) => {
            let latest: NaiveDateTime = DateTime::from_timestamp_millis(ms)?.naive_utc();
            // Leap days come every eighth year at the worst.
            (latest.year() - 8..=latest.year()).rev().filter_map(in_year).find(|time| *time <= ms)
        }
    }
}

fn month(name: &str) -> Option<u32> {
    const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    NAMES.iter().position(|candidate| *candidate == name).map(|i| i as u32 + 1)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    use arrow::util::display::array_value_to_string;

    use super::*;

    struct At(&'static str);

    impl Clock for At {
        fn now_ms(&self) -> u64 {
            DateTime::parse_from_rfc3339(self.0).unwrap().timestamp_millis() as u64
        }
    }

    fn decoder(columns: &[&str], options: &[(&str, &str)]) -> Result<TextDecoder> {
        let kind = |name: &str| match name {
            "ts" => DataType::Timestamp(TimeUnit::Millisecond, None),
            "status" | "bytes" | "n" | "line_number" | "facility" | "severity" => DataType::Int64,
            _ => DataType::Utf8,
        };
        let fields: Vec<Field> = columns.iter().map(|name| Field::new(*name, kind(name), true)).collect();
        let map = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let columns = Columns { schema: Arc::new(Schema::new(fields)), wanted: (0..columns.len()).collect() };
        TextDecoder::new(columns, 1000, Arc::new(At("2024-01-15T00:00:00Z")), &mut OptionReader::new("source", "s", &map))
    }

    fn row(columns: &[&str], options: &[(&str, &str)], line: &str) -> String {
        let decoded = decoder(columns, options).unwrap().decode(line.as_bytes(), 1, "f");
        match decoded.dead.first() {
            Some(dead) => format!("{} {}", dead.position, dead.reason),
            None => decoded.rows.columns().iter().map(|column| array_value_to_string(column, 0).unwrap()).collect::<Vec<_>>().join("|"),
        }
    }

    #[test]
    fn web_logs() {
        let columns = ["ip", "user", "ts", "method", "path", "protocol", "status", "bytes", "request"];
        let common = [
            (
                r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326"#,
                "127.0.0.1|frank|2000-10-10T20:55:36|GET|/a.gif|HTTP/1.0|200|2326|GET /a.gif HTTP/1.0",
            ),
            (r#"::1 - - [29/Feb/2024:00:00:00 +0530] "GET /\"q" 304 -"#, r#"::1||2024-02-28T18:30:00|GET|/\"q||304||GET /\"q"#),
            (r#"h - - [10/Oct/2000:13:55:36 +0000] "\x16\x03" 400 0"#, r"h||2000-10-10T13:55:36||||400|0|\x16\x03"),
            (r#"h - - [10/Oct/2000:13:55:36 +0000] "" 400 0"#, "h||2000-10-10T13:55:36||||400|0|"),
            (r#"h - - [32/Oct/2000:13:55:36 +0000] "" 400 0"#, "f:1 column \"ts\": '32/Oct/2000:13:55:36 +0000' is not a TIMESTAMP"),
            ("nonsense", "f:1 the line does not match the pattern"),
        ];
        for (line, expected) in common {
            assert_eq!(row(&columns, &[("preset", "common_log")], line), expected);
        }
        let line = r#"1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] "POST / HTTP/1.1" 200 5 "-" "curl/8 \"x\"" "more""#;
        assert_eq!(row(&["method", "referer", "agent"], &[("preset", "combined_log")], line), r#"POST||curl/8 \"x\""#);
    }

    #[test]
    fn syslog() {
        let columns = ["facility", "severity", "ts", "host", "app", "pid", "message"];
        let old = [
            ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", "4|2|2023-10-11T22:14:15|mymachine|su||'su root' failed"),
            ("Feb  1 00:00:09 h sshd(pam_unix)[19939]: no: luck", "||2024-02-01T00:00:09|h|sshd(pam_unix)|19939|no: luck"),
            ("Feb 29 00:00:00 h a: b", "||2020-02-29T00:00:00|h|a||b"),
            ("2024-01-09T12:00:00.5+01:00 h a[1]: b", "||2024-01-09T11:00:00.500|h|a|1|b"),
            ("Jan  1 00:00:00 h last message repeated 2 times", "||2024-01-01T00:00:00|h|||last message repeated 2 times"),
            ("Foo  1 00:00:00 h a: b", "f:1 column \"ts\": 'Foo  1 00:00:00' is not a TIMESTAMP"),
        ];
        for (line, expected) in old {
            assert_eq!(row(&columns, &[("preset", "syslog_rfc3164")], line), expected);
        }
        let fixed = [("preset", "syslog_rfc3164"), ("year", "2005")];
        assert_eq!(row(&["ts"], &fixed, "Jun 14 15:16:01 combo a: b"), "2005-06-14T15:16:01");
        let columns = ["facility", "severity", "ts", "host", "app", "pid", "msgid", "structured", "message"];
        let new = [
            (
                "<165>1 2003-10-11T22:14:15.003Z h.example evntslog - ID47 [x@1 a=\"]\\\"\"][y@2] \u{feff}An event",
                "20|5|2003-10-11T22:14:15.003|h.example|evntslog||ID47|[x@1 a=\"]\\\"\"][y@2]|An event",
            ),
            ("<0>1 - - - - - -", "0|0|||||||"),
        ];
        for (line, expected) in new {
            assert_eq!(row(&columns, &[("preset", "syslog_rfc5424")], line), expected);
        }
    }

    #[test]
    fn patterns_and_special_columns() {
        let pattern = ("pattern", r"^(?P<who>\w+)(?: (?P<n>\d+))?$");
        assert_eq!(row(&["n", "who", "line", "line_number"], &[pattern], "ana 7"), "7|ana|ana 7|1");
        assert_eq!(row(&["n", "who"], &[pattern], "ana"), "|ana");
        assert_eq!(row(&["line"], &[], "anything at all"), "anything at all");
        let skips = decoder(&["n", "who"], &[pattern, ("unmatched", "skip")]).unwrap().decode(b"a b c\nana\n\xff\n", 1, "f");
        assert_eq!((skips.rows.num_rows(), skips.dead.len(), skips.lines), (1, 1, 3));
    }

    #[test]
    fn refusals() {
        let cases: [(&[&str], &[(&str, &str)], &str); 5] = [
            (&["usr"], &[("pattern", "(?P<user>.*)")], "the pattern captures \"user\", which is not a column\nhint: did you mean \"usr\"?"),
            (&["who", "zzzz"], &[("pattern", "(?P<who>.*)")], "nothing captures column \"zzzz\"\nhint: there are who, line, line_number"),
            (&["hst"], &[("preset", "syslog_rfc3164")], "nothing captures column \"hst\"\nhint: did you mean \"host\"?"),
            (&["line"], &[("preset", "common_log"), ("pattern", ".")], "exclude each other"),
            (&["line"], &[("pattern", "(")], "option \"pattern\" cannot be '('\nhint: unclosed group"),
        ];
        for (columns, options, message) in cases {
            let error = decoder(columns, options).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
