//! `generator` source: one stream of a seeded story over the pilots.
//!
//! Options   stream (required, one of the story's: 'orders', 'scans', …)
//!           seed (7), span ('6h'; at least 2h), rate (10000: clean events per
//!           hour over all streams). Sources with equal seed, span and rate
//!           hear one story. In `tidegate demo` the story is set: no options
//!           but stream
//! Rows      JSON, decoded as `file` and `http` decode it
//! When      each event when its arrival comes on the engine's clock; with
//!           --once the story has happened already, and is told at once
//! End       when the story's span is over; the demo's streams fall silent
//! Delivery  at least once: from the beginning after a restart
//!
//! Each source makes its own stream of the story, so no source can ever wait for
//! another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidegate_connectors::Registry;
use tidegate_connectors::format::json::JsonDecoder;
use tidegate_connectors::format::{Columns, Decoder, LINE_BYTES_MAX};
use tidegate_testdata::{BACKGROUND_PER_HOUR_MIN, Event, Events, SPAN_MS_MIN, Truth, World};
use tidegate_types::connector::{Budget, Connectors, Offset, Options, Polled, Responder, Sink, SinkSpec, Source, SourceBatch, SourceSpec};
use tidegate_types::error::{Error, Result, did_you_mean};
use tidegate_types::time::Clock;

use crate::watch::{Score, Watch};

const SEED: u64 = 7;
const SPAN_MS: i64 = 6 * HOUR_MS;
const RATE_PER_HOUR: u64 = 10_000;
const HOUR_MS: i64 = 3_600_000;

/// Shortest and longest sleep before a stream looks at the clock again: few
/// wake-ups, and a clock that stands still is noticed when it moves.
const SLEEP_MIN: Duration = Duration::from_millis(5);
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// One world, and how much of it was told.
pub struct Story {
    world: World,
    start_ms: i64,
    end_ms: i64,
    /// The last event is followed by the end, rather than by silence.
    ends: bool,
    told: AtomicU64,
}

impl Story {
    /// `span_ms` and `per_hour` as [`World::new`] wants them.
    pub fn new(seed: u64, start_ms: i64, span_ms: i64, per_hour: f64, ends: bool) -> Arc<Self> {
        let world = World::new(seed, start_ms, span_ms, per_hour);
        Arc::new(Self { world, start_ms, end_ms: start_ms + span_ms, ends, told: AtomicU64::new(0) })
    }

    pub fn truths(&self) -> &[Truth] {
        self.world.truths()
    }

    /// Events handed to the engine so far, over all streams.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}

/// What makes two stories one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StoryKey {
    /// Of a story that an earlier run began.
    began_ms: Option<i64>,
    seed: u64,
    span_ms: i64,
    per_hour: u64,
}

/// The connectors, with those only the server has: `generator`, and in the
/// demo the sink `watch`.
pub struct ServerConnectors {
    registry: Registry,
    /// The demo's story and score.
    set: Option<(Arc<Story>, Arc<Score>)>,
    stories: Mutex<BTreeMap<StoryKey, Arc<Story>>>,
}

impl ServerConnectors {
    pub fn new(registry: Registry) -> Self {
        Self { registry, set: None, stories: Mutex::default() }
    }

    pub fn of_demo(registry: Registry, story: Arc<Story>, score: Arc<Score>) -> Self {
        Self { set: Some((story, score)), ..Self::new(registry) }
    }

    fn generator(&self, spec: &SourceSpec) -> Result<Generator> {
        let owner = format!("source \"{}\"", spec.name);
        check_names(&owner, &spec.options, if self.set.is_some() { &["stream"] } else { &["stream", "seed", "span", "rate"] })?;
        let stream = stream(&owner, &spec.options)?;
        let resume = spec.resume.as_ref().and_then(|resume| parse_offset(&resume.offset));
        let story = match &self.set {
            Some((story, _)) => story.clone(),
            None => {
                let began_ms = resume.map(|(began_ms, _)| began_ms);
                self.story(StoryKey { began_ms, ..key(&owner, &spec.options)? }, spec)
            }
        };
        Generator::new(story, stream, spec, resume.map_or(0, |(_, count)| count))
    }

    fn story(&self, key: StoryKey, spec: &SourceSpec) -> Arc<Story> {
        let mut stories = self.stories.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let told = stories.entry(key).or_insert_with(|| {
            let now_ms = spec.clock.now_ms() as i64;
            let start_ms = key.began_ms.unwrap_or(if spec.once { now_ms - key.span_ms } else { now_ms });
            Story::new(key.seed, start_ms, key.span_ms, key.per_hour as f64, true)
        });
        told.clone()
    }
}

impl Connectors for ServerConnectors {
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        match spec.options.get("connector").map(String::as_str) {
            Some("generator") => Ok(Box::new(self.generator(spec)?)),
            _ => self.registry.source(spec),
        }
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        match (spec.options.get("connector").map(String::as_str), &self.set) {
            (Some("watch"), Some((_, score))) => Ok(Box::new(Watch::new(spec, score.clone())?)),
            _ => self.registry.sink(spec),
        }
    }

    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>> {
        self.registry.responder(spec)
    }
}

fn check_names(owner: &str, options: &Options, known: &[&str]) -> Result<()> {
    let Some(unknown) = options.keys().find(|name| *name != "connector" && !known.contains(&name.as_str())) else { return Ok(()) };
    let all = format!("the options are {}", known.join(", "));
    let hint = did_you_mean(unknown, known.iter().copied()).map_or(all, |close| format!("did you mean \"{close}\"?"));
    Err(Error::user(format!("{owner} has no option \"{unknown}\"")).hint(hint))
}

fn stream(owner: &str, options: &Options) -> Result<&'static str> {
    let all = World::streams();
    let listed = format!("the streams are {}", all.join(", "));
    let Some(wanted) = options.get("stream") else {
        return Err(Error::user(format!("{owner} needs the option \"stream\"")).hint(listed));
    };
    all.iter().copied().find(|stream| stream == wanted).ok_or_else(|| {
        let hint = did_you_mean(wanted, all.iter().copied()).map_or(listed, |close| format!("did you mean '{close}'?"));
        Error::user(format!("{owner}: option \"stream\" cannot be '{wanted}'")).hint(hint)
    })
}

fn key(owner: &str, options: &Options) -> Result<StoryKey> {
    let wrong = |name: &str, hint: String| {
        let value = options.get(name).map_or("", String::as_str);
        Error::user(format!("{owner}: option \"{name}\" cannot be '{value}'")).hint(hint)
    };
    let number = |name: &str, otherwise: u64| match options.get(name).map(|text| text.parse::<u64>()) {
        None => Ok(otherwise),
        Some(number) => number.map_err(|_| wrong(name, "allowed is a whole number".into())),
    };
    let span_ms = match options.get("span").map(|text| hours_ms(text)) {
        None => SPAN_MS,
        Some(Some(span_ms)) if SPAN_MS_MIN <= span_ms => span_ms,
        Some(_) => return Err(wrong("span", format!("allowed are hours, such as '6h', from {}h to 1000h", SPAN_MS_MIN / HOUR_MS))),
    };
    let per_hour = number("rate", RATE_PER_HOUR)?;
    if (per_hour as f64) < BACKGROUND_PER_HOUR_MIN {
        return Err(wrong("rate", format!("allowed are {BACKGROUND_PER_HOUR_MIN} events per hour or more")));
    }
    Ok(StoryKey { began_ms: None, seed: number("seed", SEED)?, span_ms, per_hour })
}

/// When the story began, and how many of the stream's events were told.
fn parse_offset(offset: &Offset) -> Option<(i64, u64)> {
    let (began_ms, count) = offset.0.split_once(':')?;
    Some((began_ms.parse().ok()?, count.parse().ok()?))
}

fn hours_ms(text: &str) -> Option<i64> {
    let hours: i64 = text.strip_suffix('h')?.trim().parse().ok()?;
    (1..=1000).contains(&hours).then_some(hours * HOUR_MS)
}

pub struct Generator {
    story: Arc<Story>,
    stream: &'static str,
    events: Events,
    /// The next event; absent once the stream is spent.
    next: Option<Event>,
    decoder: JsonDecoder,
    clock: Arc<dyn Clock>,
    count: u64,
}

impl Generator {
    /// `told`: events that an earlier run told.
    fn new(story: Arc<Story>, stream: &'static str, spec: &SourceSpec, told: u64) -> Result<Self> {
        let decoder = JsonDecoder::new(Columns::of(spec), LINE_BYTES_MAX)?;
        let events = story.world.events_of(stream);
        let mut generator = Self { story, stream, events, next: None, decoder, clock: spec.clock.clone(), count: told };
        (0..=told).for_each(|_| drop(generator.advance()));
        Ok(generator)
    }

    /// Takes the next event, and makes the one after it.
    fn advance(&mut self) -> Option<Event> {
        std::mem::replace(&mut self.next, self.events.next())
    }

    /// The JSON lines of what has arrived by `now_ms`, and how many they are.
    fn due(&mut self, now_ms: i64, bytes_max: usize) -> (String, u64) {
        let (mut block, mut count) = (String::new(), 0);
        while let Some(next) = &self.next
            && next.arrival_ms <= now_ms
            && (count == 0 || block.len() + next.json.len() < bytes_max)
        {
            block.push_str(&next.json);
            block.push('\n');
            count += 1;
            self.advance();
        }
        (block, count)
    }

    fn batch(&mut self, block: &str, count: u64) -> SourceBatch {
        let decoded = self.decoder.decode(block.as_bytes(), self.count + 1, self.stream);
        self.count += count;
        self.story.told.fetch_add(count, Ordering::Relaxed);
        let offset = Offset(format!("{}:{}", self.story.start_ms, self.count));
        SourceBatch { dead: decoded.dead, bytes: block.len(), offset, ..SourceBatch::of(decoded.rows) }
    }

    /// When something may happen next, in the machine's time.
    fn wait(&self, now_ms: i64) -> Duration {
        let next_ms = self.next.as_ref().map_or(self.story.end_ms, |next| next.arrival_ms);
        let ms = (next_ms - now_ms).max(0) as f64 / self.clock.speed();
        Duration::from_secs_f64(ms / 1000.0).clamp(SLEEP_MIN, SLEEP_MAX)
    }
}

#[async_trait]
impl Source for Generator {
    /// Cancel safe: events are taken in the step that returns them.
    async fn poll(&mut self, budget: Budget) -> Result<Polled> {
        loop {
            let now_ms = self.clock.now_ms() as i64;
            let (block, count) = self.due(now_ms, budget.bytes_max);
            if count > 0 {
                return Ok(Polled::Batch(self.batch(&block, count)));
            }
            if self.next.is_none() && self.story.ends && self.story.end_ms <= now_ms {
                return Ok(Polled::End);
            }
            tokio::time::sleep(self.wait(now_ms)).await;
        }
    }

    async fn acknowledge(&mut self, _: Offset) {}
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use tidegate_connectors::Inbox;
    use tidegate_types::connector::Resume;

    use super::*;

    struct Stopped(u64);

    impl Clock for Stopped {
        fn now_ms(&self) -> u64 {
            self.0
        }
    }

    fn spec(options: &[(&str, &str)]) -> SourceSpec {
        let ts = DataType::Timestamp(TimeUnit::Millisecond, None);
        SourceSpec {
            name: "s".into(),
            schema: Arc::new(Schema::new(vec![Field::new("ts", ts, true)])),
            columns_wanted: vec![true],
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            folder: PathBuf::new(),
            once: true,
            clock: Arc::new(Stopped(1_772_438_400_000)),
            resume: None,
        }
    }

    fn connectors() -> ServerConnectors {
        ServerConnectors::new(Registry::new(Inbox::default()))
    }

    #[test]
    fn refusals_have_a_way_out() {
        let generator = ("connector", "generator");
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[generator], "source \"s\" needs the option \"stream\""),
            (&[generator, ("stream", "scan")], "did you mean 'scans'?"),
            (&[generator, ("stream", "scans"), ("sed", "1")], "has no option \"sed\"\nhint: did you mean \"seed\"?"),
            (&[generator, ("stream", "scans"), ("span", "1h")], "option \"span\" cannot be '1h'"),
            (&[generator, ("stream", "scans"), ("rate", "1")], "option \"rate\" cannot be '1'"),
        ];
        for (options, message) in cases {
            let error = connectors().source(&spec(options)).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[tokio::test]
    async fn a_story_goes_on_where_an_earlier_run_left_it() {
        let spec = spec(&[("connector", "generator"), ("stream", "payments"), ("span", "2h")]);
        let mut source = connectors().source(&spec).unwrap();
        let budget = Budget { bytes_max: 10_000 };
        let mut batches = Vec::new();
        while let Polled::Batch(batch) = source.poll(budget).await.unwrap() {
            batches.push((batch.rows, batch.offset));
        }
        let resume = Some(Resume { offset: batches[2].1.clone(), ids: Vec::new() });
        let mut resumed = connectors().source(&SourceSpec { resume, clock: Arc::new(Stopped(1_772_538_400_000)), ..spec }).unwrap();
        for (rows, _) in &batches[3..] {
            let Polled::Batch(batch) = resumed.poll(budget).await.unwrap() else { panic!() };
            assert_eq!(batch.rows, *rows);
        }
        assert!(matches!(resumed.poll(budget).await.unwrap(), Polled::End));
    }

    #[tokio::test]
    async fn a_story_that_has_happened_is_told_at_once_and_ends() {
        let options = [("connector", "generator"), ("stream", "payments"), ("span", "2h")];
        let mut source = connectors().source(&spec(&options)).unwrap();
        let mut rows = 0;
        while let Polled::Batch(batch) = source.poll(Budget { bytes_max: 10_000 }).await.unwrap() {
            assert!(batch.dead.is_empty() && batch.bytes < 11_000);
            rows += batch.rows.num_rows();
        }
        let world = World::new(SEED, 1_772_438_400_000 - 2 * HOUR_MS, 2 * HOUR_MS, RATE_PER_HOUR as f64);
        assert_eq!(rows, world.events().filter(|event| event.stream == "payments").count());
    }
}
