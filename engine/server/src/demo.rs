//! `tidegate demo`: the main job on generated streams, nothing else needed.
//!
//! Plays   the packs in `queries/pilots`, compiled in, against a seeded story of
//!         [`SPEED`] times the machine's pace; actions reach a partner system
//!         that runs beside it
//! Shows   a live view, and on exit a line per scenario: injected, found,
//!         missed, false, withdrawn, time to finding
//! Exit    0 where nothing was missed and nothing false, else 1
//! Ctrl-C  ends early, and counts what was complete by then; again, ends at once

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use chrono::DateTime;
use tidegate_connectors::{Inbox, Registry};
use tidegate_runtime::{Config, DetectionInfo, Engine};
use tidegate_testdata::{BACKGROUND_PER_HOUR_MIN, SPAN_MS_MIN};
use tidegate_types::error::{Error, Result};
use tidegate_types::time::Clock;
use tokio::time::MissedTickBehavior;

use crate::generator::{ServerConnectors, Story};
use crate::output::print;
use crate::partner::Partner;
use crate::screen::{Screen, View, table};
use crate::watch::{Line, Score};
use crate::{Stop, http, pg};

/// Milliseconds of the story in one of the machine's: six hours in 30 s.
pub const SPEED: u64 = 720;

/// 2026-03-02T06:00:00Z, when every story begins.
pub const START_MS: u64 = 1_772_431_200_000;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The story is over once nothing has moved for so long, or after the longest.
const QUIET: Duration = Duration::from_millis(1500);
const QUIET_MAX: Duration = Duration::from_secs(15);

macro_rules! pilot_files {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!("../../../queries/pilots/", $path)))),*]
    };
}

/// The packs, in the order they need one another. `tests/tidy.rs` holds the
/// list against the folder.
pub const PILOT_FILES: &[(&str, &str)] = pilot_files![
    "bank/10_sources.sql",
    "bank/20_card_testing.sql",
    "bank/21_account_takeover.sql",
    "bank/22_process_bypass.sql",
    "bank/23_web_skimmer.sql",
    "bank/24_insider_refund.sql",
    "bank/25_atm_jackpotting.sql",
    "bank/26_silent_sources.sql",
    "bank/30_cascade.sql",
    "bank/31_inoperability.sql",
    "bank/40_actions.sql",
    "pharma/10_sources.sql",
    "pharma/20_temperature_excursion.sql",
    "pharma/21_sudden_change.sql",
    "pharma/22_silent_sensor.sql",
    "pharma/23_tampered_logger.sql",
    "pharma/24_falsified_pack.sql",
    "pharma/25_restricted_sale.sql",
    "pharma/26_silent_sources.sql",
    "pharma/30_cascade.sql",
    "pharma/31_sensors.sql",
    "pharma/32_inoperability.sql",
    "pharma/40_actions.sql",
    "logistics/10_sources.sql",
    "logistics/20_rogue_scanner.sql",
    "logistics/21_diversion.sql",
    "logistics/22_skipped_custody.sql",
    "logistics/23_false_delivery.sql",
    "logistics/24_returns_fraud.sql",
    "logistics/25_silent_sources.sql",
    "logistics/30_cascade.sql",
    "logistics/31_inoperability.sql",
    "logistics/40_actions.sql",
    "../library/risk/10_model.sql",
    "../library/risk/20_cvss.sql",
    "../library/risk/30_vulnerabilities.sql",
    "../library/risk/40_threats.sql",
    "../library/risk/50_risk.sql",
    "../library/impact/10_model.sql",
    "../library/impact/20_outages.sql",
    "../library/impact/30_losses.sql",
    "../library/impact/40_assets.sql",
    "../library/impact/50_controls.sql",
    "../library/impact/60_recommendations.sql",
    "combined/10_sources.sql",
    "combined/20_reefer_sabotage.sql",
    "combined/21_log_tampering.sql",
    "combined/30_findings.sql",
    "combined/40_cascade.sql",
    "combined/41_time_to_impact.sql",
    "combined/42_impact.sql",
    "combined/43_recommendations.sql",
    "combined/44_graphs.sql",
    "combined/45_threat_model.sql",
    "combined/46_risk.sql",
    "combined/47_inoperability.sql",
    "combined/50_actions.sql",
];

pub struct DemoOptions {
    pub seed: u64,
    pub duration: Duration,
    /// Clean events per second of the machine's time, over all streams.
    pub rate: f64,
    pub plain: bool,
    pub workers: usize,
    pub tick: Duration,
    pub state_bytes_max: usize,
    pub listen_http: Option<SocketAddr>,
    pub listen_pg: Option<SocketAddr>,
}

impl DemoOptions {
    fn span_ms(&self) -> i64 {
        (self.duration.as_millis() as u64 * SPEED) as i64
    }

    fn per_hour(&self) -> f64 {
        self.rate * 3600.0 / SPEED as f64
    }

    fn check(&self) -> Result<()> {
        let shortest_s = SPAN_MS_MIN as u64 / SPEED / 1000;
        if self.span_ms() < SPAN_MS_MIN {
            return Err(
                Error::user(format!("--for {:?} is too short for the story", self.duration)).hint(format!("give it {shortest_s}s or more"))
            );
        }
        let rate_min = BACKGROUND_PER_HOUR_MIN * SPEED as f64 / 3600.0;
        if !(rate_min..=1e7).contains(&self.rate) {
            return Err(Error::user(format!("--rate {} is not possible", self.rate))
                .hint(format!("allowed are {rate_min} to 10000000 events per second")));
        }
        Ok(())
    }
}

/// Stands at the story's start until started, and at its end when it is over.
pub struct DemoClock {
    started: OnceLock<Instant>,
    end_ms: u64,
}

impl DemoClock {
    pub fn new(span_ms: u64) -> Self {
        Self { started: OnceLock::new(), end_ms: START_MS + span_ms }
    }

    /// Only the first start counts.
    pub fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    fn elapsed(&self) -> Duration {
        self.started.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    fn is_over(&self) -> bool {
        self.end_ms <= self.now_ms()
    }

    /// When a moment of the story came, in the machine's time.
    fn arrived(&self, story_ms: i64) -> Instant {
        let since_ms = (story_ms - START_MS as i64).max(0) as f64 / SPEED as f64;
        self.started.get().copied().unwrap_or_else(Instant::now) + Duration::from_secs_f64(since_ms / 1000.0)
    }
}

impl Clock for DemoClock {
    fn now_ms(&self) -> u64 {
        let story_ms = self.elapsed().as_secs_f64() * 1000.0 * SPEED as f64;
        (START_MS + story_ms as u64).min(self.end_ms)
    }

    fn speed(&self) -> f64 {
        SPEED as f64
    }
}

/// Plays the story to its end.
pub async fn run(options: DemoOptions) -> Result<ExitCode> {
    options.check()?;
    let stage = Stage::set(&options).await?;
    let stop = Stop::listen()?;
    print(&format!("{}\n", stage.doors.join("\n")))?;
    let work = async {
        let lines = stage.play(options.plain, &stop).await?;
        print(&format!("\n{}\n{}\n", table(&lines), stage.summary()))?;
        stage.engine.shutdown().await?;
        let is_good = lines.iter().all(|line| line.missed == 0 && line.wrong == 0);
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
    };
    stop.within(&stage.engine, work).await
}

/// All that plays a part.
struct Stage {
    engine: Engine,
    clock: Arc<DemoClock>,
    story: Arc<Story>,
    score: Arc<Score>,
    partner: Partner,
    detections: Vec<DetectionInfo>,
    doors: Vec<String>,
    seconds_all: u64,
    seed: u64,
}

impl Stage {
    async fn set(options: &DemoOptions) -> Result<Self> {
        let clock = Arc::new(DemoClock::new(options.span_ms() as u64));
        let story = Story::new(options.seed, START_MS as i64, options.span_ms(), options.per_hour(), false);
        let score = Arc::new(Score::default());
        let partner = Partner::start().await?;
        let inbox = Inbox::default();
        let connectors = ServerConnectors::of_demo(Registry::new(inbox.clone()), story.clone(), score.clone());
        let config = Config {
            workers: options.workers,
            tick: options.tick,
            state_bytes_max: options.state_bytes_max,
            clock: clock.clone(),
            variables: BTreeMap::from([("PARTNER".into(), format!("http://{}", partner.addr))]),
            ..Config::default()
        };
        let engine = Engine::start(config, Arc::new(connectors))?;
        let mut doors = Vec::new();
        if let Some(listen) = options.listen_pg {
            let bound = pg::serve(engine.clone(), listen, pg::Limits::default()).await?;
            doors.push(format!("  SQL      psql -h {} -p {} -U demo tidegate", bound.ip(), bound.port()));
        }
        if let Some(listen) = options.listen_http {
            let bound = http::serve(engine.clone(), inbox, listen, false, http::Limits::default()).await?;
            doors.push(format!("  metrics  http://{bound}/metrics"));
        }
        for (path, sql) in PILOT_FILES {
            engine.execute(sql, &format!("queries/pilots/{path}")).await?;
        }
        let detections = engine.detections();
        for DetectionInfo { name, entity, .. } in &detections {
            let sql = format!("CREATE SINK watch_{name} FROM {name} WITH (connector = 'watch', detection = '{name}', entity = '{entity}')");
            engine.execute(&sql, "demo").await?;
        }
        let seconds_all = options.duration.as_secs();
        Ok(Self { engine, clock, story, score, partner, detections, doors, seconds_all, seed: options.seed })
    }

    /// Shows the story until it is over or interrupted, and judges it.
    async fn play(&self, is_plain: bool, stop: &Stop) -> Result<Vec<Line>> {
        let mut screen = Screen::open(is_plain)?;
        let mut beat = tokio::time::interval(LOOK_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::default();
        let mut quiet = Quiet::default();
        let mut asked = std::pin::pin!(stop.asked(1));
        self.clock.start();
        self.engine.start_sources().await?;
        let until_ms = loop {
            tokio::select! {
                _ = beat.tick() => {}
                // What came in the last second may still be on its way.
                () = &mut asked => break self.clock.now_ms() as i64 - 1000 * SPEED as i64,
            }
            screen.show(&self.look(&mut pace).await?)?;
            if self.clock.is_over() && quiet.is_reached(self.marks()) {
                break self.clock.end_ms as i64;
            }
        };
        drop(screen);
        Ok(self.score.judge(self.story.truths(), until_ms, |story_ms| self.clock.arrived(story_ms)))
    }

    async fn look(&self, pace: &mut Pace) -> Result<View> {
        let wanted = ["affected_services", "euros_at_risk_total", "sys.actions"].map(String::from);
        let snapshot = self.engine.snapshot(&wanted).await?;
        let [services, euros, actions] = wanted.each_ref().map(|name| snapshot.relations.get(name));
        let events = self.story.told();
        let open = |detection: &DetectionInfo| {
            let severity = detection.severity.to_string();
            (detection.name.clone(), severity, self.score.open_findings(&detection.name))
        };
        Ok(View {
            doors: self.doors.clone(),
            seconds: self.clock.elapsed().as_secs().min(self.seconds_all),
            seconds_all: self.seconds_all,
            story_time: time_of_day(self.clock.now_ms()),
            events,
            events_per_s: pace.per_second(events),
            lag_ms: self.engine.health().lag_ms,
            detections: self.detections.iter().map(open).collect(),
            services: services.map_or(0, RecordBatch::num_rows),
            euros_per_hour: euros.map_or(0.0, first_number),
            actions: actions.map(states).unwrap_or_default(),
            partner: self.partner.counts(),
            deeds: self.partner.recent(),
            news: self.score.recent(),
        })
    }

    /// What moves as long as anything is on its way.
    fn marks(&self) -> Marks {
        let partner = self.partner.counts();
        (self.story.told(), self.score.count(), partner.holds + partner.updates + partner.releases)
    }

    fn summary(&self) -> String {
        let partner = self.partner.counts();
        format!(
            "seed {}: {} events; the partner held {} and released {}, {} are held, {} requests came twice",
            self.seed,
            self.story.told(),
            partner.holds,
            partner.releases,
            partner.held,
            partner.duplicates,
        )
    }
}

type Marks = (u64, u64, u64);

/// Since when nothing has moved.
#[derive(Default)]
struct Quiet {
    begun: Option<Instant>,
    last: Option<(Marks, Instant)>,
}

impl Quiet {
    fn is_reached(&mut self, marks: Marks) -> bool {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        match &self.last {
            Some((last, since)) if *last == marks => QUIET <= since.elapsed() || QUIET_MAX <= begun.elapsed(),
            _ => {
                self.last = Some((marks, Instant::now()));
                QUIET_MAX <= begun.elapsed()
            }
        }
    }
}

/// Events per second, over the last second or so.
#[derive(Default)]
struct Pace {
    since: Option<(Instant, u64)>,
    shown: u64,
}

impl Pace {
    fn per_second(&mut self, events: u64) -> u64 {
        let (since, before) = *self.since.get_or_insert_with(|| (Instant::now(), events));
        let seconds = since.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            self.shown = ((events - before) as f64 / seconds) as u64;
            self.since = Some((Instant::now(), events));
        }
        self.shown
    }
}

fn time_of_day(ms: u64) -> String {
    let time = DateTime::from_timestamp_millis(ms as i64);
    time.map_or_else(String::new, |time| time.format("%Y-%m-%d %H:%M").to_string())
}

/// The first row's first column, where it is a number.
fn first_number(rows: &RecordBatch) -> f64 {
    if rows.num_rows() == 0 {
        return 0.0;
    }
    let column = cast(rows.column(0), &DataType::Float64);
    column.ok().filter(|column| column.is_valid(0)).map_or(0.0, |column| column.as_primitive::<Float64Type>().value(0))
}

/// How many actions are in which state.
fn states(actions: &RecordBatch) -> Vec<(String, usize)> {
    let column = actions.column_by_name("state").and_then(|column| cast(column, &DataType::Utf8).ok());
    let mut counts = BTreeMap::new();
    for state in column.iter().flat_map(|column| column.as_string::<i32>().iter()).flatten() {
        *counts.entry(state.to_string()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_until_started_and_at_the_end() {
        let clock = DemoClock::new(1);
        assert_eq!(clock.now_ms(), START_MS);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now_ms(), START_MS);
        clock.start();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now_ms(), START_MS + 1);
        assert!(clock.is_over());
    }

    /// The bounds that `demo --help` tells.
    #[test]
    fn a_story_has_room_for_its_scenarios() {
        for (seconds, rate, is_enough) in [(10, 240.0, true), (9, 240.0, false), (10, 239.9, false), (10, f64::NAN, false)] {
            let duration = Duration::from_secs(seconds);
            let Config { tick, state_bytes_max, .. } = Config::default();
            let options =
                DemoOptions { seed: 7, duration, rate, plain: true, workers: 1, tick, state_bytes_max, listen_http: None, listen_pg: None };
            assert_eq!(options.check().is_ok(), is_enough, "{seconds} s at {rate}");
        }
    }

    #[test]
    fn quiet_is_when_nothing_moves() {
        let mut quiet = Quiet::default();
        assert!(!quiet.is_reached((1, 1, 1)));
        assert!(!quiet.is_reached((1, 2, 1)));
        std::thread::sleep(QUIET);
        assert!(quiet.is_reached((1, 2, 1)));
    }

    #[test]
    fn states_are_counted() {
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("state", DataType::Utf8, true)]));
        let column = Arc::new(arrow::array::StringArray::from(vec![Some("done"), Some("done"), None, Some("undone")]));
        let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
        assert_eq!(states(&batch), [("done".to_string(), 2), ("undone".to_string(), 1)]);
    }
}
