//! Reads the `WITH (…)` of a statement: every option is taken once, by name,
//! and [`OptionReader::finish`] refuses what nobody took.
//!
//! Errors   name the statement, the option, the value and what is allowed

use std::time::Duration;

use tidegate_types::connector::Options;
use tidegate_types::error::{Error, Result, did_you_mean};

pub(crate) struct OptionReader {
    /// `source "scans"`, for messages.
    owner: String,
    left: Options,
    /// Every name asked for, so a mistyped one can be told what was meant.
    known: Vec<&'static str>,
}

impl OptionReader {
    pub fn new(role: &str, name: &str, options: &Options) -> Self {
        let mut left = options.clone();
        left.remove("connector");
        Self { owner: format!("{role} \"{name}\""), left, known: Vec::new() }
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.left.remove(key)
    }

    pub fn required(&mut self, key: &'static str, example: &str) -> Result<String> {
        if let Some(value) = self.text(key) {
            return Ok(value);
        }
        // A mistyped name is both unknown and missing; the first says more.
        match did_you_mean(key, self.left.keys().map(String::as_str)) {
            Some(typed) => Err(self.unknown(typed).hint(format!("did you mean \"{key}\"?"))),
            None => Err(Error::user(format!("{} needs the option \"{key}\"", self.owner)).hint(format!("for example {key} = '{example}'"))),
        }
    }

    /// The value that goes with one of `allowed`.
    pub fn one_of<T: Clone>(&mut self, key: &'static str, allowed: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.text(key) else { return Ok(None) };
        match allowed.iter().find(|(name, _)| *name == value) {
            Some((_, meaning)) => Ok(Some(meaning.clone())),
            None => {
                let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
                let all = format!("allowed are {}", quoted(&names));
                let hint = did_you_mean(&value, names).map_or(all.clone(), |close| format!("did you mean '{close}'? {all}"));
                Err(self.wrong(key, &value, hint))
            }
        }
    }

    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.one_of(key, &[("true", true), ("false", false)])
    }

    /// A whole number, or one with a unit: `65536`, `64KiB`, `8 MiB`.
    pub fn bytes(&mut self, key: &'static str) -> Result<Option<usize>> {
        self.parsed(key, parse_bytes, "a number of bytes above 0, such as '65536', '64KiB' or '8MiB'")
    }

    /// `250ms`, `10s`, `2m`.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>> {
        self.parsed(key, parse_duration, "a time above 0, such as '250ms', '10s' or '2m'")
    }

    pub fn parsed<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Option<T>, allowed: &str) -> Result<Option<T>> {
        let Some(value) = self.text(key) else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| self.wrong(key, &value, format!("allowed is {allowed}")))
    }

    /// All `<prefix><rest> = value`, as `(rest, value)`.
    pub fn prefixed(&mut self, prefix: &'static str) -> Vec<(String, String)> {
        self.known.push(prefix);
        let keys: Vec<String> = self.left.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.into_iter().filter_map(|key| self.left.remove(&key).map(|value| (key[prefix.len()..].to_string(), value))).collect()
    }

    /// The text, or the value of the environment variable that `env:NAME` names.
    pub fn resolve(&self, text: &str, key: &str) -> Result<String> {
        let Some(variable) = text.strip_prefix("env:") else { return Ok(text.to_string()) };
        std::env::var(variable).map_err(|_| {
            self.refused(format!("option \"{key}\": the environment variable {variable} is not set"))
                .hint(format!("start tidegate with {variable} in its environment"))
        })
    }

    /// The refusal of `key = value`.
    pub fn wrong(&self, key: &str, value: &str, hint: impl Into<String>) -> Error {
        Error::user(format!("{}: option \"{key}\" cannot be '{value}'", self.owner)).hint(hint)
    }

    /// A refusal that is about more than one option.
    pub fn refused(&self, message: impl std::fmt::Display) -> Error {
        Error::user(format!("{}: {message}", self.owner))
    }

    pub fn finish(self) -> Result<()> {
        let Some(typed) = self.left.keys().next() else { return Ok(()) };
        let hint = match did_you_mean(typed, self.known.iter().copied()) {
            Some(close) => format!("did you mean \"{close}\"?"),
            None if self.known.is_empty() => "it takes no options".to_string(),
            None => format!("the options are {}", self.known.join(", ")),
        };
        Err(self.unknown(typed).hint(hint))
    }

    fn unknown(&self, key: &str) -> Error {
        Error::user(format!("{} has no option \"{key}\"", self.owner))
    }
}

/// `'a', 'b', 'c'`
pub(crate) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number).ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" | "second" | "seconds" => 1_000,
        "m" | "minute" | "minutes" => 60_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).filter(|ms| *ms > 0).map(Duration::from_millis)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(options: &[(&str, &str)]) -> OptionReader {
        OptionReader::new("source", "s", &options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn sizes_and_times() {
        let sizes =
            [("1", Some(1)), ("64KiB", Some(65536)), ("2 MiB", Some(2 << 20)), ("0", None), ("", None), ("-1", None), ("1kb", None)];
        for (text, bytes) in sizes {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
        let times = [("10s", Some(10_000)), ("250ms", Some(250)), ("2 minutes", Some(120_000)), ("0s", None), ("10", None), ("s", None)];
        for (text, ms) in times {
            assert_eq!(parse_duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn refusals_name_option_value_and_way_out() {
        let mut wrong = reader(&[("follow", "yes")]);
        assert_eq!(
            wrong.flag("follow").unwrap_err().to_string(),
            "source \"s\": option \"follow\" cannot be 'yes'\nhint: allowed are 'true', 'false'"
        );
        let mut typo = reader(&[("pth", "x")]);
        assert_eq!(
            typo.required("path", "a.json").unwrap_err().to_string(),
            "source \"s\" has no option \"pth\"\nhint: did you mean \"path\"?"
        );
        let mut missing = reader(&[]);
        assert_eq!(
            missing.required("path", "a.json").unwrap_err().to_string(),
            "source \"s\" needs the option \"path\"\nhint: for example path = 'a.json'"
        );
        let mut left = reader(&[("path", "x"), ("formt", "json")]);
        left.text("path");
        left.text("format");
        assert_eq!(left.finish().unwrap_err().to_string(), "source \"s\" has no option \"formt\"\nhint: did you mean \"format\"?");
    }
}
