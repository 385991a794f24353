//! The connectors there are, in reading order.
//!
//! Sources    [`file`], [`http`]
//! Sinks      [`sink::file`], [`sink::postgres`], [`sink::stdout`], [`sink::discard`]
//! Responder  [`webhook`]
//! Formats    [`format::json`], [`format::csv`], [`format::text`]
//! For people [`infer`]: the `CREATE SOURCE` for a file
//!
//! One more connector is a file, a line here and an arm in [`Registry`].
//! Constructors parse and validate; they touch neither disk nor network, so
//! `tidegate check` can call them.

pub mod file;
pub mod format;
pub mod http;
pub mod infer;
mod options;
pub mod sink;
mod tail;
pub mod webhook;

#[cfg(test)]
mod malformed;

use tidegate_types::connector::{Connectors, Options, Responder, Sink, SinkSpec, Source, SourceSpec};
use tidegate_types::error::{Error, Result, did_you_mean};

pub use crate::http::Inbox;
pub use crate::infer::infer;

const SOURCES: [&str; 2] = ["file", "http"];
const SINKS: [&str; 4] = ["file", "postgres", "stdout", "discard"];
const RESPONDERS: [&str; 1] = ["webhook"];

/// Every connector by name. `inbox` is where HTTP requests meet the sources.
pub struct Registry {
    inbox: Inbox,
}

impl Registry {
    pub fn new(inbox: Inbox) -> Self {
        Self { inbox }
    }
}

impl Connectors for Registry {
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        match connector("source", &spec.name, &spec.options, &SOURCES)? {
            "file" => Ok(Box::new(file::FileSource::new(spec)?)),
            _ => Ok(Box::new(http::HttpSource::new(spec, &self.inbox)?)),
        }
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        match connector("sink", &spec.name, &spec.options, &SINKS)? {
            "file" => Ok(Box::new(sink::file::FileSink::new(spec)?)),
            "postgres" => Ok(Box::new(sink::postgres::PostgresSink::new(spec)?)),
            "stdout" => Ok(Box::new(sink::stdout::StdoutSink::new(spec)?)),
            _ => Ok(Box::new(sink::discard::DiscardSink::new(spec)?)),
        }
    }

    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>> {
        connector("action", &spec.name, &spec.options, &RESPONDERS)?;
        Ok(Box::new(webhook::Webhook::new(spec)?))
    }
}

/// The connector's name as `known` spells it, or a refusal with the way out.
fn connector(role: &str, name: &str, options: &Options, known: &[&'static str]) -> Result<&'static str> {
    let all = format!("one of {}", options::quoted(known));
    let Some(wanted) = options.get("connector") else {
        return Err(Error::user(format!("{role} \"{name}\" has no option \"connector\"")).hint(all));
    };
    known.iter().copied().find(|candidate| candidate == wanted).ok_or_else(|| {
        let hint = match did_you_mean(wanted, known.iter().copied()) {
            Some(close) => format!("did you mean '{close}'?"),
            None if role == "sink" && RESPONDERS.contains(&wanted.as_str()) => {
                "CREATE ACTION … FROM … sends rows there as they come, and takes them back as they go".into()
            }
            None => all,
        };
        Error::user(format!("{role} \"{name}\": there is no connector '{wanted}' for a {role}")).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_connectors_are_refused_with_a_way_out() {
        let cases = [
            (vec![], "source \"s\" has no option \"connector\"\nhint: one of 'file', 'http'"),
            (vec![("connector", "fil")], "source \"s\": there is no connector 'fil' for a source\nhint: did you mean 'file'?"),
            (vec![("connector", "oracle")], "source \"s\": there is no connector 'oracle' for a source\nhint: one of 'file', 'http'"),
        ];
        for (options, message) in cases {
            let options = options.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!(connector("source", "s", &options, &SOURCES).unwrap_err().to_string(), message);
        }
        let webhook = [("connector".to_string(), "webhook".to_string())].into();
        let error = connector("sink", "s", &webhook, &SINKS).unwrap_err();
        assert!(error.hint.is_some_and(|hint| hint.starts_with("CREATE ACTION")));
    }
}
