//! What is told once: the drawn attacks and look-alikes, and their truths.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::{Event, Role, Truth};

pub const SECOND: i64 = 1_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;

pub struct Story {
    rng: StdRng,
    pub start_ms: i64,
    pub end_ms: i64,
    taken: HashSet<String>,
    told: Vec<Event>,
    truths: Vec<Truth>,
}

/// What a truth says beyond its entity and times.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub id: &'static str,
    pub pilot: &'static str,
    pub detection: &'static str,
}

impl Story {
    pub fn new(seed: u64, start_ms: i64, span_ms: i64) -> Story {
        Story {
            rng: StdRng::seed_from_u64(seed),
            start_ms,
            end_ms: start_ms + span_ms,
            taken: HashSet::new(),
            told: Vec::new(),
            truths: Vec::new(),
        }
    }

    /// The events in order of arrival, the truths in the order told.
    pub fn finish(mut self) -> (Vec<Event>, Vec<Truth>) {
        let end_ms = self.end_ms;
        self.told.retain(|event| event.arrival_ms < end_ms);
        // A stable sort: ties stay in the order told.
        self.told.sort_by_key(|event| event.arrival_ms);
        (self.told, self.truths)
    }

    /// Tells an event that happened at `ts` and arrives at once, as the
    /// network has it. Returns its arrival.
    pub fn tell(&mut self, stream: &'static str, ts: i64, json: String) -> i64 {
        let delay_ms = self.rng.random_range(200..2_500);
        self.tell_late(stream, ts, json, delay_ms)
    }

    /// Tells an event that arrives `late_ms` after it happened.
    pub fn tell_late(&mut self, stream: &'static str, ts: i64, json: String, late_ms: i64) -> i64 {
        let arrival_ms = ts + late_ms;
        self.told.push(Event { arrival_ms, stream, json });
        arrival_ms
    }

    /// Delivers the last event told a second time.
    pub fn again(&mut self) {
        let mut event = self.told.last().expect("an event was told").clone();
        event.arrival_ms += self.rng.random_range(500..20_000);
        self.told.push(event);
    }

    pub fn attack(&mut self, scenario: Scenario, entity: &str, complete_ms: i64) {
        self.truth(scenario, entity, Role::Attack, complete_ms, None);
    }

    pub fn attack_withdrawn(&mut self, scenario: Scenario, entity: &str, complete_ms: i64, withdrawn_ms: Option<i64>) {
        self.truth(scenario, entity, Role::Attack, complete_ms, withdrawn_ms);
    }

    pub fn look_alike(&mut self, scenario: Scenario, entity: &str, complete_ms: i64) {
        self.truth(scenario, entity, Role::LookAlike, complete_ms, None);
    }

    pub fn look_alike_withdrawn(&mut self, scenario: Scenario, entity: &str, complete_ms: i64, withdrawn_ms: i64) {
        self.truth(scenario, entity, Role::LookAlike, complete_ms, Some(withdrawn_ms));
    }

    fn truth(&mut self, scenario: Scenario, entity: &str, role: Role, complete_ms: i64, withdrawn_ms: Option<i64>) {
        self.truths.push(Truth {
            scenario: scenario.id,
            pilot: scenario.pilot,
            detection: scenario.detection,
            entity: entity.to_owned(),
            role,
            complete_ms,
            withdrawn_ms,
        });
    }

    /// `count` times to begin at, spread over the part of the span that is
    /// neither calm nor too late for something that takes `need_ms`.
    pub fn times(&mut self, count: usize, need_ms: i64) -> Vec<i64> {
        let span_ms = self.end_ms - self.start_ms;
        let first_ms = self.start_ms + span_ms * 8 / 100;
        let last_ms = (self.start_ms + span_ms * 88 / 100 - need_ms).max(first_ms + 1);
        let slot_ms = (last_ms - first_ms) / count as i64;
        let slots = 0..count as i64;
        slots.map(|slot| first_ms + slot * slot_ms + self.rng.random_range(0..=slot_ms)).collect()
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.rng).expect("something to choose from")
    }

    /// A number in `range` (both ends included).
    pub fn draw(&mut self, range: std::ops::RangeInclusive<i64>) -> i64 {
        self.rng.random_range(range)
    }

    /// A number of `digits` digits, odd (the background's are even), never
    /// drawn twice under one `prefix`, behind that prefix.
    pub fn name(&mut self, prefix: &str, digits: u32) -> String {
        loop {
            let number = self.rng.random_range(0..10_u64.pow(digits)) | 1;
            let name = format!("{prefix}{number:0width$}", width = digits as usize);
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// An address outside the office and customer networks, never drawn twice.
    pub fn stranger(&mut self) -> String {
        loop {
            let net: u8 = self.pick(&[77, 91, 185, 194]);
            let host: [u8; 3] = self.rng.random();
            let ip = format!("{net}.{}.{}.{}", host[0], host[1], host[2]);
            if self.taken.insert(ip.clone()) {
                return ip;
            }
        }
    }
}
