//! The pharma shipper: what loggers, air probes and doors of shipments say,
//! and who enters the portal that sets the reefers.
//!
//! P1 excursion, P2 sudden change, P3 silent sensor, P4 tampered logger.

use std::collections::HashMap;
use std::fmt::Display;

use crate::background::Scale;
use crate::story::{MINUTE, SECOND, Scenario, Story};

const P1: Scenario = Scenario { id: "P1", pilot: "pharma", detection: "temperature_excursion" };
const P2: Scenario = Scenario { id: "P2", pilot: "pharma", detection: "sudden_change" };
const P3: Scenario = Scenario { id: "P3", pilot: "pharma", detection: "silent_sensor" };
const P4: Scenario = Scenario { id: "P4", pilot: "pharma", detection: "tampered_logger" };

/// The lanes of the pack's `pharma_lanes`.
const LANES: [&str; 4] = ["BSL", "DUB", "LEJ", "VIE"];

/// Sensor events of one clean shipment: logger, air probe, door open, closed.
pub const READINGS_PER_HOUR: f64 = 4.0 + 12.0 + 1.0 + 1.0;

/// How long P2 waits for word of a door, as in the pack.
const DOOR_WORD_MS: i64 = 5 * MINUTE;

pub fn tell(story: &mut Story) {
    excursion(story);
    sudden_change(story);
    silent_sensor(story);
    tampered_logger(story);
}

/// P1: two consecutive readings of the logger outside 2 to 8 °C.
fn excursion(story: &mut Story) {
    let attacks = story.draw(3..=4) as usize;
    for (number, begin) in story.times(attacks, 60 * MINUTE).into_iter().enumerate() {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        // Each third one freezes.
        if number % 3 == 2 {
            trip.degrees.extend([(first, 1.6), (first + 1, 0.8), (first + 2, 1.2)]);
        } else {
            trip.degrees.extend([(first, 8.7), (first + 1, 9.4), (first + 2, 8.9)]);
            trip.warm = Some((begin - 20 * MINUTE, begin + 30 * MINUTE, 4.0));
        }
        trip.again = vec![first];
        if number % 2 == 1 {
            trip.late.insert(first + 1, story.draw(5 * MINUTE..=10 * MINUTE));
        }
        let readings = trip.tell(story);
        let complete_ms = readings.complete(first).max(readings.complete(first + 1));
        story.attack(P1, &trip.shipment, complete_ms);
    }

    // The door opened at the dock: one reading outside, told twice, the next
    // inside again. The air jumps, and the door explains it.
    for (number, begin) in story.times(2, 60 * MINUTE).into_iter().enumerate() {
        let mut trip = Trip::new(story, Model::Quarterly);
        let out = trip.reading_at(begin);
        let out_ms = trip.reading_ms(out);
        trip.degrees.insert(out, 9.2);
        trip.again = vec![out];
        // Once, word of the door comes only after the jump.
        let door_late_ms = if number == 1 { 3 * MINUTE } else { SECOND };
        trip.door = Some((out_ms - 4 * MINUTE, out_ms + 4 * MINUTE, door_late_ms));
        trip.jump = Some((out_ms - 3 * MINUTE, out_ms + 5 * MINUTE, 5.5));
        let readings = trip.tell(story);
        story.look_alike(P1, &trip.shipment, readings.complete(out + 1));
        story.look_alike(P2, &trip.shipment, out_ms + 15 * MINUTE);
    }

    // Outside, inside, outside: the reading between comes late.
    for begin in story.times(1, 70 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        trip.degrees.extend([(first, 8.4), (first + 1, 7.6), (first + 2, 8.3)]);
        trip.late.insert(first + 1, 10 * MINUTE);
        let readings = trip.tell(story);
        story.look_alike(P1, &trip.shipment, readings.complete(first + 2));
    }

    // At the limit, not outside it.
    for begin in story.times(1, 70 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        trip.degrees.extend([(first, 8.0), (first + 1, 8.0), (first + 2, 8.0)]);
        let readings = trip.tell(story);
        story.look_alike(P1, &trip.shipment, readings.complete(first + 2));
    }
}

/// P2: the air changes by 3 °C within five minutes, and no door was opened.
fn sudden_change(story: &mut Story) {
    for begin in story.times(3, 40 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let degrees = story.draw(40..=70) as f64 / 10.0;
        let up = story.draw(0..=1) == 1;
        trip.jump = Some((begin, begin + 20 * MINUTE, if up { degrees } else { -degrees }));
        let readings = trip.tell(story);
        let (jump_ts, jump_ms) = readings.jump.expect("a jump within the trip");
        story.attack(P2, &trip.shipment, jump_ms.max(jump_ts + DOOR_WORD_MS));
    }

    // Defrosting: the air warms as much, but takes its time.
    for begin in story.times(1, 60 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        trip.warm = Some((begin, begin + 25 * MINUTE, 3.0));
        trip.tell(story);
        story.look_alike(P2, &trip.shipment, begin + 25 * MINUTE);
    }
}

/// P3: a logger is silent for more than twice its interval, or stands still for
/// four intervals.
fn silent_sensor(story: &mut Story) {
    for (number, begin) in story.times(2, 80 * MINUTE).into_iter().enumerate() {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        // The second never moves again.
        let last = if number == 0 { first + 5 } else { trip.reading_at(story.end_ms) };
        trip.degrees.extend((first..=last).map(|reading| (reading, 5.0)));
        // What comes before and after is another value.
        trip.degrees.extend([(first - 1, 4.4), (last + 1, 5.6)]);
        trip.again = vec![first + 2];
        let readings = trip.tell(story);
        let moved_ms = readings.first_since(trip.reading_ms(last + 1));
        story.attack_withdrawn(P3, &trip.logger, readings.complete(first + 4), moved_ms);
    }
    // Stood still for less.
    for begin in story.times(1, 80 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        trip.degrees.extend((first..first + 4).map(|reading| (reading, 5.0)));
        trip.degrees.extend([(first - 1, 4.4), (first + 4, 5.6)]);
        trip.again = vec![first + 3];
        let readings = trip.tell(story);
        story.look_alike(P3, &trip.logger, readings.complete(first + 4));
    }

    for (number, begin) in story.times(4, 50 * MINUTE).into_iter().enumerate() {
        let mut trip = Trip::new(story, Model::Quarterly);
        // Each second one comes back.
        let back_ms = if number % 2 == 0 { begin + story.draw(50 * MINUTE..=70 * MINUTE) } else { i64::MAX };
        trip.silent = Some((begin, back_ms));
        let last_ts = trip.reading_ms(trip.reading_at(begin) - 1);
        let readings = trip.tell(story);
        let back_ms = readings.first_since(back_ms);
        let complete_ms = last_ts + 2 * trip.model.interval_ms();
        story.attack_withdrawn(P3, &trip.logger, complete_ms, back_ms);
    }

    // A logger that writes once an hour.
    for begin in story.times(1, 10 * MINUTE) {
        let trip = Trip::new(story, Model::Hourly);
        trip.tell(story);
        story.look_alike(P3, &trip.logger, begin);
    }
    // Received: the logger was switched off.
    for begin in story.times(2, 50 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        trip.received_ms = Some(begin);
        trip.tell(story);
        story.look_alike(P3, &trip.logger, begin);
    }
    // A reading held up on its way.
    for begin in story.times(1, 50 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let held = trip.reading_at(begin);
        trip.late.insert(held, 11 * MINUTE);
        let readings = trip.tell(story);
        story.look_alike(P3, &trip.logger, readings.complete(held));
    }
}

/// P4: logger and air differ by more than 2 °C in four consecutive quarters.
fn tampered_logger(story: &mut Story) {
    // The logger says three degrees more than is; or what is pleasant, while the
    // air warms.
    for (number, begin) in story.times(3, 95 * MINUTE).into_iter().enumerate() {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        if number == 1 {
            trip.degrees.extend((first - 2..first + 6).map(|reading| (reading, 4.5 + (reading & 1) as f64 / 10.0)));
            trip.warm = Some((trip.reading_ms(first) - 30 * MINUTE, trip.reading_ms(first) + 75 * MINUTE, 4.8));
        } else {
            trip.degrees.extend((first..first + 4).map(|reading| (reading, 7.9)));
        }
        trip.again = vec![first + 1];
        if number == 2 {
            trip.late.insert(first + 2, 25 * MINUTE);
        }
        let readings = trip.tell(story);
        story.attack(P4, &trip.logger, readings.apart_ms(4).expect("four quarters apart"));
    }

    // Three quarters apart, then together.
    for begin in story.times(1, 95 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        trip.degrees.extend((first..first + 3).map(|reading| (reading, 7.9)));
        let readings = trip.tell(story);
        story.look_alike(P4, &trip.logger, readings.complete(first + 4));
    }
    // Within two degrees, for long.
    for begin in story.times(1, 95 * MINUTE) {
        let mut trip = Trip::new(story, Model::Quarterly);
        let first = trip.reading_at(begin);
        trip.degrees.extend((first..first + 5).map(|reading| (reading, 6.0 + (reading & 1) as f64 / 10.0)));
        let readings = trip.tell(story);
        story.look_alike(P4, &trip.logger, readings.complete(first + 4));
    }
}

/// Logger models, as in the pack's `logger_models`.
#[derive(Clone, Copy)]
pub enum Model {
    Quarterly,
    Hourly,
}

impl Model {
    fn name(self) -> &'static str {
        match self {
            Model::Quarterly => "TL15",
            Model::Hourly => "TL60",
        }
    }

    fn interval_ms(self) -> i64 {
        match self {
            Model::Quarterly => 15 * MINUTE,
            Model::Hourly => 60 * MINUTE,
        }
    }
}

/// A shipment of the story: under way for the whole span, but for what its
/// fields say. Readings of its logger are counted from 0.
pub struct Trip {
    pub shipment: String,
    pub logger: String,
    number: String,
    model: Model,
    first_ms: i64,
    /// Readings that differ from the usual.
    pub degrees: HashMap<i64, f64>,
    /// Readings that arrive so much later.
    pub late: HashMap<i64, i64>,
    /// Readings that arrive twice.
    again: Vec<i64>,
    /// The air is so many degrees warmer from one moment to another.
    jump: Option<(i64, i64, f64)>,
    /// The air warms by 0.8 °C in five minutes up to so many degrees, and
    /// cools likewise after the second moment.
    pub warm: Option<(i64, i64, f64)>,
    /// The door opens and closes; how late one hears of it.
    door: Option<(i64, i64, i64)>,
    /// The logger says nothing from one moment to another.
    silent: Option<(i64, i64)>,
    /// The trip ends.
    received_ms: Option<i64>,
}

/// What a trip's telling came to.
pub struct Readings {
    /// Event time and arrival, by number; those told.
    told: Vec<(i64, i64, i64)>,
    /// Event time and arrival of the first air reading within the jump.
    jump: Option<(i64, i64)>,
    /// What logger and probe said, in order of arrival.
    heard: Vec<Heard>,
    end_ms: i64,
}

/// A reading, as it is told.
struct Heard {
    arrival_ms: i64,
    is_air: bool,
    ts: i64,
    degrees: f64,
}

impl Readings {
    /// The arrival of a reading.
    pub fn complete(&self, number: i64) -> i64 {
        let told = self.told.iter().find(|told| told.0 == number);
        told.expect("a reading within the trip").2
    }

    /// The arrival with which logger and air are first known to differ by more
    /// than 2 °C, by their means, in so many consecutive quarters of an hour.
    fn apart_ms(&self, count: i64) -> Option<i64> {
        const QUARTER_MS: i64 = 15 * MINUTE;
        let mut sums: HashMap<(i64, bool), (f64, f64)> = HashMap::new();
        for heard in &self.heard {
            let quarter = heard.ts.div_euclid(QUARTER_MS);
            let sum = sums.entry((quarter, heard.is_air)).or_default();
            *sum = (sum.0 + heard.degrees, sum.1 + 1.0);
            let mean = |quarter: i64, is_air: bool| sums.get(&(quarter, is_air)).map(|(sum, readings)| sum / readings);
            let is_apart = |quarter: i64| {
                let (logger, air) = (mean(quarter, false), mean(quarter, true));
                logger.zip(air).is_some_and(|(logger, air)| ((logger - air).abs() * 1e6).round() > 2e6)
            };
            if (quarter - count + 1..=quarter).any(|first| (first..first + count).all(is_apart)) {
                return Some(heard.arrival_ms);
            }
        }
        None
    }

    /// The arrival of the first reading at or after a moment.
    fn first_since(&self, ts: i64) -> Option<i64> {
        let told = self.told.iter().find(|told| told.1 >= ts);
        told.map(|told| told.2).filter(|arrival_ms| *arrival_ms < self.end_ms)
    }
}

impl Trip {
    pub fn new(story: &mut Story, model: Model) -> Trip {
        let lane = story.pick(&LANES);
        let shipment = story.name(&format!("{lane}-"), 5);
        let number = shipment[lane.len() + 1..].to_owned();
        // Well within the calm, so that each logger is known before it errs.
        let first_ms = story.start_ms + story.draw(0..=9 * MINUTE);
        Trip {
            logger: format!("{}-{lane}{number}", model.name()),
            number: format!("{lane}{number}"),
            shipment,
            model,
            first_ms,
            degrees: HashMap::new(),
            late: HashMap::new(),
            again: Vec::new(),
            jump: None,
            warm: None,
            door: None,
            silent: None,
            received_ms: None,
        }
    }

    /// The number of the first reading at or after `ts`.
    pub fn reading_at(&self, ts: i64) -> i64 {
        let interval_ms = self.model.interval_ms();
        (ts - self.first_ms + interval_ms - 1).div_euclid(interval_ms)
    }

    pub fn reading_ms(&self, number: i64) -> i64 {
        self.first_ms + number * self.model.interval_ms()
    }

    pub fn tell(&self, story: &mut Story) -> Readings {
        let end_ms = self.received_ms.unwrap_or(story.end_ms);
        let mut heard = Vec::new();
        let told = self.tell_logger(story, end_ms, &mut heard);
        let jump = self.tell_air(story, end_ms, &mut heard);
        heard.sort_by_key(|heard| heard.arrival_ms);
        self.tell_door(story);
        if let Some(received_ms) = self.received_ms {
            story.tell("sensors", received_ms, self.row(&self.logger, "received", 1.0, received_ms));
        }
        Readings { told, jump, heard, end_ms: story.end_ms }
    }

    fn tell_logger(&self, story: &mut Story, end_ms: i64, heard: &mut Vec<Heard>) -> Vec<(i64, i64, i64)> {
        let mut told = Vec::new();
        for number in 0.. {
            let ts = self.reading_ms(number);
            if ts >= end_ms {
                break;
            }
            if self.silent.is_some_and(|(from, until)| from <= ts && ts < until) {
                continue;
            }
            // Never twice the same: a logger that stands still is P3.
            let usual = 5.0 + (story.draw(-4..=4) * 2 + (number & 1)) as f64 / 10.0;
            let degrees = self.degrees.get(&number).copied().unwrap_or(usual);
            let json = self.row(&self.logger, "temperature", degrees, ts);
            let arrival_ms = match self.late.get(&number) {
                Some(late_ms) => story.tell_late("sensors", ts, json, *late_ms),
                None => story.tell("sensors", ts, json),
            };
            if self.again.contains(&number) {
                story.again();
            }
            heard.push(Heard { arrival_ms, is_air: false, ts, degrees });
            told.push((number, ts, arrival_ms));
        }
        told
    }

    fn tell_air(&self, story: &mut Story, end_ms: i64, heard: &mut Vec<Heard>) -> Option<(i64, i64)> {
        let probe = format!("RF05-{}", self.number);
        let mut jump = None;
        let mut ts = story.start_ms + (self.first_ms - story.start_ms) % (5 * MINUTE);
        while ts < end_ms {
            let jumped = self.jump.filter(|(from, until, _)| *from <= ts && ts < *until);
            let degrees = 4.6
                + story.draw(-4..=4) as f64 / 10.0
                + jumped.map_or(0.0, |(_, _, degrees)| degrees)
                + self.warm.map_or(0.0, |warm| warmth(warm, ts));
            let arrival_ms = story.tell("sensors", ts, self.row(&probe, "air", degrees, ts));
            heard.push(Heard { arrival_ms, is_air: true, ts, degrees });
            if jumped.is_some() && jump.is_none() {
                jump = Some((ts, arrival_ms));
            }
            ts += 5 * MINUTE;
        }
        jump
    }

    fn tell_door(&self, story: &mut Story) {
        let Some((open_ms, closed_ms, late_ms)) = self.door else {
            return;
        };
        let contact = format!("DC-{}", self.number);
        let opened = self.row(&contact, "door", 1.0, open_ms);
        story.tell_late("sensors", open_ms, opened, late_ms);
        let closed = self.row(&contact, "door", 0.0, closed_ms);
        story.tell_late("sensors", closed_ms, closed, late_ms);
    }

    fn row(&self, device: &str, kind: &str, value: f64, ts: i64) -> String {
        sensor(&self.shipment, device, kind, value, ts)
    }
}

/// How much warmer the air is than usual.
fn warmth((from, until, degrees): (i64, i64, f64), ts: i64) -> f64 {
    let pace = |ms: i64| 0.8 * ms as f64 / (5 * MINUTE) as f64;
    let reached = pace(until - from).min(degrees);
    let now = if ts < until { pace(ts - from).min(degrees) } else { reached - pace(ts - until) };
    now.max(0.0)
}

fn sensor(shipment: impl Display, device: impl Display, kind: &str, value: f64, ts: i64) -> String {
    format!(concat!(r#"{{"shipment":"{}","device":"{}","kind":"{}","#, r#""value":{:.1},"ts":{}}}"#), shipment, device, kind, value, ts)
}

pub fn portal_login(usr: &str, ip: &str, outcome: &str, ts: i64) -> String {
    format!(r#"{{"usr":"{usr}","ip":"{ip}","outcome":"{outcome}","ts":{ts}}}"#)
}

pub fn setpoint(shipment: impl Display, usr: &str, celsius: f64, ts: i64) -> String {
    format!(r#"{{"shipment":"{shipment}","usr":"{usr}","celsius":{celsius:.1},"ts":{ts}}}"#)
}

/// An administrator of the portal and the address of their desk.
pub fn administrator(number: u64) -> (String, String) {
    (format!("adm-{:02}", number % 20), format!("192.168.40.{}", 10 + number % 20))
}

/// A shipment of the background.
fn clean_shipment(scale: &Scale, case: u64) -> (&'static str, u64) {
    let number = case % scale.shipments;
    (LANES[(number % 4) as usize], number * 2)
}

fn clean_reading(scale: &Scale, case: u64, model: &str, kind: &str, value: f64, ts: i64) -> String {
    let (lane, number) = clean_shipment(scale, case);
    sensor(format_args!("{lane}-{number:05}"), format_args!("{model}-{lane}{number:05}"), kind, value, ts)
}

pub fn clean_temperature(scale: &Scale, case: u64, ts: i64) -> String {
    // Never twice the same: a logger that stands still is P3.
    let tenths = scale.bits(3, case) % 9 * 2 + case / scale.shipments % 2;
    let degrees = 5.0 + tenths as f64 / 10.0 - 0.9;
    clean_reading(scale, case, "TL15", "temperature", degrees, ts)
}

pub fn clean_air(scale: &Scale, case: u64, ts: i64) -> String {
    // Never more than 1.7 °C from the logger's.
    let degrees = 4.6 + (scale.bits(4, case) % 9) as f64 / 10.0 - 0.4;
    clean_reading(scale, case, "RF05", "air", degrees, ts)
}

pub fn clean_door_open(scale: &Scale, case: u64, ts: i64) -> String {
    clean_reading(scale, case, "DC", "door", 1.0, ts)
}

pub fn clean_door_closed(scale: &Scale, case: u64, ts: i64) -> String {
    clean_reading(scale, case, "DC", "door", 0.0, ts)
}

pub fn clean_portal_login(_: &Scale, case: u64, ts: i64) -> String {
    let (usr, ip) = administrator(case);
    let outcome = if case % 23 == 7 { "failure" } else { "success" };
    portal_login(&usr, &ip, outcome, ts)
}

/// A small correction, within what the product bears.
pub fn clean_setpoint(scale: &Scale, case: u64, ts: i64) -> String {
    let (lane, number) = clean_shipment(scale, case);
    let (usr, _) = administrator(case);
    let celsius = 4.0 + (scale.bits(5, case) % 21) as f64 / 10.0;
    setpoint(format_args!("{lane}-{number:05}"), &usr, celsius, ts)
}
