//! The events: generated once, kept as JSON lines, found again.
//!
//! The generator seeds itself with each event's number, and the stream's first
//! moment is fixed here: equal counts give equal bytes.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;
use serde::{Deserialize, Serialize};
use tidegate_types::error::{Error, Result};

use super::queries::Source;

/// As many as the peers were measured with.
pub const EVENTS: u64 = 5_000_000;
/// 15 July 2015, midnight: 10,000 events per second of event time from there.
const BASE_TIME_MS: u64 = 1_436_918_400_000;
const MANIFEST: &str = "manifest.json";
const BUFFER_BYTES: usize = 1 << 20;

pub struct Data {
    pub folder: PathBuf,
    pub manifest: Manifest,
}

/// What a folder holds; written last, so that half-written files do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub events: u64,
    base_time_ms: u64,
    pub person: Lines,
    pub auction: Lines,
    pub bid: Lines,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    pub rows: u64,
    pub bytes: u64,
}

impl Data {
    /// What `folder` holds, generated there if it is not what is asked for.
    pub fn get(folder: Option<PathBuf>, events: u64) -> Result<Self> {
        let folder = folder.unwrap_or_else(|| std::env::temp_dir().join(format!("tidegate-nexmark-{events}")));
        std::fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
        // A relative path would be taken from somewhere else by those who read it later.
        let folder = folder.canonicalize().map_err(|error| at(&folder, &error))?;
        let manifest = match found(&folder, events) {
            Some(manifest) => manifest,
            None => generate(&folder, events)?,
        };
        Ok(Self { folder, manifest })
    }

    /// Rows over `sources`.
    pub fn rows(&self, sources: &[Source]) -> u64 {
        let rows = |source: &Source| match source {
            Source::Person => self.manifest.person.rows,
            Source::Auction => self.manifest.auction.rows,
            Source::Bid => self.manifest.bid.rows,
        };
        sources.iter().map(rows).sum()
    }

    pub fn duckdb_setup(&self) -> String {
        include_str!("../../nexmark/sources.duckdb.sql").replace("${DATA}", &self.folder.display().to_string())
    }

    /// Reads all files once: whoever runs first shall not wait for the disk alone.
    pub fn warm_up(&self) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        for name in files() {
            let path = self.folder.join(name);
            let mut file = File::open(&path).map_err(|error| at(&path, &error))?;
            while 0 < file.read(&mut buffer).map_err(|error| at(&path, &error))? {}
        }
        Ok(())
    }
}

fn files() -> [String; 3] {
    [Source::Person, Source::Auction, Source::Bid].map(|source| format!("{}.jsonl", source.name()))
}

fn at(path: &Path, error: &std::io::Error) -> Error {
    Error::user(format!("{}: {error}", path.display())).hint("name a folder that can be written with --data")
}

/// The manifest of `folder`, if it is of `events` events and true.
fn found(folder: &Path, events: u64) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_reader(BufReader::new(File::open(folder.join(MANIFEST)).ok()?)).ok()?;
    let bytes = |name: &String| std::fs::metadata(folder.join(name)).ok().map(|metadata| metadata.len());
    let sizes = [&manifest.person, &manifest.auction, &manifest.bid].map(|lines| Some(lines.bytes));
    let is_true = manifest.events == events && manifest.base_time_ms == BASE_TIME_MS && files().each_ref().map(bytes) == sizes;
    is_true.then_some(manifest)
}

fn generate(folder: &Path, events: u64) -> Result<Manifest> {
    eprintln!("generating {events} events in {}", folder.display());
    let started = Instant::now();
    let manifest_path = folder.join(MANIFEST);
    // An old manifest must not vouch for new files.
    let _ = std::fs::remove_file(&manifest_path);
    let mut writers = Vec::new();
    for name in files() {
        let path = folder.join(name);
        let file = File::create(&path).map_err(|error| at(&path, &error))?;
        writers.push((BufWriter::with_capacity(BUFFER_BYTES, file), Lines::default()));
    }
    let config = NexmarkConfig { base_time: BASE_TIME_MS, ..NexmarkConfig::default() };
    let mut line = Vec::new();
    for event in EventGenerator::new(config).take(events as usize) {
        line.clear();
        let (index, written) = match &event {
            Event::Person(person) => (0, serde_json::to_writer(&mut line, person)),
            Event::Auction(auction) => (1, serde_json::to_writer(&mut line, auction)),
            Event::Bid(bid) => (2, serde_json::to_writer(&mut line, bid)),
        };
        written.map_err(|error| Error::engine(format!("an event is not JSON: {error}")))?;
        line.push(b'\n');
        let (writer, lines) = &mut writers[index];
        writer.write_all(&line).map_err(|error| at(folder, &error))?;
        lines.rows += 1;
        lines.bytes += line.len() as u64;
    }
    for (writer, _) in &mut writers {
        writer.flush().map_err(|error| at(folder, &error))?;
    }
    let [person, auction, bid] = [0, 1, 2].map(|index: usize| writers[index].1.clone());
    let manifest = Manifest { events, base_time_ms: BASE_TIME_MS, person, auction, bid };
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| Error::engine(error.to_string()))?;
    std::fs::write(&manifest_path, text).map_err(|error| at(&manifest_path, &error))?;
    eprintln!("generated in {:.1} s", started.elapsed().as_secs_f64());
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_generated_once_and_equal() {
        let root = std::env::temp_dir().join(format!("tidegate-benches-test-{}", std::process::id()));
        let folder = |name: &str| Some(root.join(name));
        let data = Data::get(folder("a"), 1000).unwrap();
        assert_eq!([&data.manifest.person, &data.manifest.auction, &data.manifest.bid].map(|lines| lines.rows), [20, 60, 920]);
        assert_eq!(data.rows(&[Source::Auction, Source::Bid]), 980);
        data.warm_up().unwrap();

        let text = |folder: &str| std::fs::read_to_string(root.join(folder).join("bid.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(text("a").lines().next().unwrap()).unwrap();
        assert_eq!(first["date_time"], BASE_TIME_MS);
        Data::get(folder("b"), 1000).unwrap();
        assert_eq!(text("a"), text("b"));

        assert_eq!(found(&data.folder, 1000), Some(data.manifest.clone()));
        assert_eq!(found(&data.folder, 1001), None);
        std::fs::write(data.folder.join("bid.jsonl"), "cut").unwrap();
        assert_eq!(found(&data.folder, 1000), None);
        std::fs::remove_dir_all(root).unwrap();
    }
}
