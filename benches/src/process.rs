//! Processes from outside: what this one used, and others that answer in JSON.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_types::error::{Error, Result};

/// How often a running process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Jiffies per second in /proc, on every Linux in use.
const CLOCK_TICKS: f64 = 100.0;

/// The most memory this process ever had resident, in MiB.
pub fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).map_or(f64::NAN, |kib| kib / 1024.0)
}

/// Processor time of this process, user and system, in seconds.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything; behind it state is field 3.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let jiffies = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    jiffies(14).zip(jiffies(15)).map_or(f64::NAN, |(user, system)| (user + system) / CLOCK_TICKS)
}

/// The processor and the memory, in words.
pub fn machine() -> String {
    let find = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_string())
    };
    let model = find("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let kib = find("/proc/meminfo", "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, {:.0} GiB", kib.unwrap_or(f64::NAN) / 1024.0 / 1024.0)
}

/// This program once more, with other arguments.
///
/// Errors: what it says went wrong; it crashed; it took longer than `limit`.
pub fn again<T: DeserializeOwned>(args: &[&str], limit: Duration) -> Result<T> {
    let program = std::env::current_exe().map_err(|error| Error::engine(format!("the benchmark does not find itself: {error}")))?;
    let mut told = ask(Command::new(program).args(args), "", limit)?;
    match told["error"].as_str() {
        Some(error) => Err(Error::engine(error)),
        None => parsed(told["done"].take()),
    }
}

/// Starts `command`, gives it `input`, and reads the last line it prints as JSON.
pub fn ask(command: &mut Command, input: &str, limit: Duration) -> Result<Value> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| Error::engine(format!("{name}: {error}"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why by its exit.
        let _ = stdin.write_all(input.as_bytes());
    }
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if limit < started.elapsed() {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(Error::engine(format!("not done after {} s", limit.as_secs())));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    // The answer is a line or two: it fits into the pipe until it is read.
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).map_err(failed)?;
    }
    if !status.success() {
        return Err(Error::engine(format!("ended with {status}")));
    }
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| Error::engine(format!("{name} answered '{last}': {error}")))
}

pub fn parsed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::engine(format!("the answer is not as expected: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        assert!(1.0 < peak_mib());
        assert!(0.0 <= cpu_seconds());
        assert!(machine().contains("cores"));
    }

    #[test]
    fn others_answer_crash_and_hang() {
        let shell = |script: &str, limit_ms| ask(Command::new("sh").args(["-c", script]), "7", Duration::from_millis(limit_ms));
        assert_eq!(shell("echo noise; cat", 10_000).unwrap(), 7);
        assert!(shell("exit 3", 10_000).unwrap_err().message.contains("exit status: 3"));
        assert!(shell("echo {", 10_000).unwrap_err().message.contains("answered '{'"));
        assert!(shell("sleep 60", 50).unwrap_err().message.contains("not done"));
    }
}
