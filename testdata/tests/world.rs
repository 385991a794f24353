//! What every world promises, whatever its seed.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tidegate_testdata::{Event, Role, SPAN_MS_MIN, World};

const HOUR: i64 = 3_600_000;
const START_MS: i64 = 1_772_438_400_000;

/// How far each stream's watermark stays behind in the packs.
const LATENESS_MS: [(&str, i64); 22] = [
    ("orders", 10 * 60_000),
    ("payments", 10 * 60_000),
    ("web_events", 10 * 60_000),
    ("sensors", 2 * HOUR),
    ("setpoints", 10 * 60_000),
    ("auth_log", 10 * 60_000),
    ("scans", 20 * 60_000),
    ("credentials", 2 * HOUR),
    ("ioc", 24 * HOUR),
    ("page_hashes", 10 * 60_000),
    ("releases", 2 * HOUR),
    ("back_office", 10 * 60_000),
    ("atm_events", 2 * 60_000),
    ("host_authorisations", 2 * 60_000),
    ("authenticity", 2 * HOUR),
    ("packs", 10 * 60_000),
    ("sales", 10 * 60_000),
    ("buyer_credentials", 2 * HOUR),
    ("proofs", 20 * 60_000),
    ("refunds", 10 * 60_000),
    ("log_anchors", 2 * HOUR),
    ("log_audits", 10 * 60_000),
];

const SCENARIOS: [&str; 19] =
    ["B1", "B2", "B3", "B4", "B5", "B6", "P1", "P2", "P3", "P4", "P5", "P6", "L1", "L2", "L3", "L4", "L5", "X1", "X2"];

/// Streams that know second deliveries and events over a minute late, whatever
/// the seed. Cash machines may not be as late as that for long.
const TROUBLED: [&str; 12] = [
    "orders",
    "payments",
    "web_events",
    "page_hashes",
    "releases",
    "back_office",
    "sensors",
    "packs",
    "scans",
    "credentials",
    "proofs",
    "refunds",
];

#[test]
fn same_seed_same_bytes() {
    let (one, two) = (world(3), world(3));
    assert!(one.events().eq(two.events()));
    assert_eq!(one.truths(), two.truths());
    assert!(one.events().eq(one.events()));
    assert!(!one.events().eq(world(4).events()));
}

/// A connector's thread may own a reading of the world.
#[test]
fn events_outlive_their_world() {
    fn count(events: impl Iterator<Item = Event> + Send + 'static) -> usize {
        std::thread::spawn(|| events.count()).join().unwrap()
    }
    let events = world(3).events();
    assert_eq!(count(events), world(3).events().count());
}

#[test]
fn a_stream_by_itself_is_as_among_all() {
    for seed in 0..3 {
        let world = world(seed);
        for stream in World::streams() {
            let among_all = world.events().filter(|event| event.stream == *stream);
            assert!(world.events_of(stream).eq(among_all), "seed {seed}: {stream}");
        }
    }
}

#[test]
fn arrivals_are_in_order_and_within_the_span() {
    for seed in 0..20 {
        let mut last_ms = START_MS;
        for event in world(seed).events() {
            assert!(last_ms <= event.arrival_ms, "seed {seed}: {event:?}");
            assert!(event.arrival_ms < START_MS + 6 * HOUR, "seed {seed}: {event:?}");
            last_ms = event.arrival_ms;
        }
    }
}

#[test]
fn truths_stay_within_the_span() {
    for (span_ms, seed) in [SPAN_MS_MIN, 6 * HOUR].into_iter().flat_map(|s| (0..50).map(move |n| (s, n))) {
        let world = World::new(seed, START_MS, span_ms, 0.0);
        for truth in world.truths() {
            let at = (truth.complete_ms - START_MS) as f64 / span_ms as f64;
            assert!((0.08..=0.90).contains(&at), "seed {seed}, span {span_ms}: {at} {truth:?}");
            if let Some(withdrawn_ms) = truth.withdrawn_ms {
                assert!(truth.complete_ms < withdrawn_ms, "seed {seed}: {truth:?}");
                assert!(withdrawn_ms < START_MS + span_ms, "seed {seed}: {truth:?}");
            }
        }
    }
}

#[test]
fn each_scenario_has_attacks_and_look_alikes() {
    for seed in 0..20 {
        let world = world(seed);
        for scenario in SCENARIOS {
            let count = |role| {
                let truths = world.truths().iter();
                truths.filter(|truth| truth.scenario == scenario && truth.role == role).count()
            };
            assert!(2 <= count(Role::Attack), "seed {seed}: {scenario}");
            assert!(1 <= count(Role::LookAlike), "seed {seed}: {scenario}");
        }
        let transient =
            |truth: &&tidegate_testdata::Truth| truth.scenario == "L1" && truth.role == Role::LookAlike && truth.withdrawn_ms.is_some();
        assert_eq!(world.truths().iter().filter(transient).count(), 2, "seed {seed}");
        let mut seen = HashSet::new();
        for truth in world.truths() {
            assert!(seen.insert((truth.detection, &truth.entity)), "seed {seed}: twice {truth:?}");
        }
    }
}

#[test]
fn every_event_is_one_object_of_its_stream() {
    let mut fields: HashMap<&str, Vec<String>> = HashMap::new();
    for event in world(5).events() {
        assert!(!event.json.contains('\n'));
        let row = parse(&event);
        let names: Vec<String> = row.as_object().unwrap().keys().cloned().collect();
        let expected = fields.entry(event.stream).or_insert_with(|| names.clone());
        assert_eq!(*expected, names, "{event:?}");
    }
    let streams: HashSet<&str> = fields.keys().copied().collect();
    assert_eq!(streams, World::streams().iter().copied().collect());
}

/// Late events are late, but never later than the packs allow.
#[test]
fn late_events_stay_within_the_lateness() {
    let lateness: HashMap<&str, i64> = LATENESS_MS.into_iter().collect();
    for seed in 0..20 {
        let mut newest: HashMap<&str, i64> = HashMap::new();
        let mut late = HashSet::new();
        for event in world(seed).events() {
            let ts = parse(&event)["ts"].as_i64().unwrap();
            assert!(ts <= event.arrival_ms, "seed {seed}: {event:?}");
            let newest = newest.entry(event.stream).or_insert(ts);
            let behind_ms = *newest - ts;
            assert!(behind_ms < lateness[event.stream], "seed {seed}: {event:?}");
            if 60_000 < behind_ms {
                late.insert(event.stream);
            }
            *newest = ts.max(*newest);
        }
        for stream in TROUBLED {
            assert!(late.contains(stream), "seed {seed}: nothing late in {stream}");
        }
    }
}

#[test]
fn some_events_arrive_twice() {
    for seed in 0..20 {
        let mut seen = HashSet::new();
        let mut twice = HashSet::new();
        for event in world(seed).events() {
            if !seen.insert(event.json) {
                twice.insert(event.stream);
            }
        }
        for stream in TROUBLED {
            assert!(twice.contains(stream), "seed {seed}: nothing twice in {stream}");
        }
    }
}

#[test]
fn background_has_the_rate_asked_for() {
    for rate in [5_000.0, 100_000.0] {
        let world = World::new(1, START_MS, 6 * HOUR, rate);
        // The last hour: by then all parcels are under way.
        let from_ms = START_MS + 5 * HOUR;
        let count = world.events().filter(|event| from_ms <= event.arrival_ms).count() as f64;
        let told = World::new(1, START_MS, 6 * HOUR, 0.0);
        let told = told.events().filter(|event| from_ms <= event.arrival_ms).count() as f64;
        let background = count - (told - 1_200.0);
        assert!((background / rate - 1.0).abs() < 0.05, "{background} of {rate}");
    }
}

fn world(seed: u64) -> World {
    World::new(seed, START_MS, 6 * HOUR, 6_000.0)
}

fn parse(event: &Event) -> Value {
    serde_json::from_str(&event.json).expect("valid JSON")
}
