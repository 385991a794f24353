//! Clean behaviour, made as it is read, and the merge of all streams.
//!
//! A lane is one kind of event of one kind of case: the payment of the i-th
//! order, the second scan of the i-th parcel. What case i looks like is a
//! function of the seed and i, and a lane lags its case by a fixed time, so
//! lanes of one case agree, each is in order of arrival by itself, and nothing
//! is kept for cases under way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::story::{HOUR, MINUTE, SECOND};
use crate::{BACKGROUND_PER_HOUR_MIN, Event, audit, bank, branch, checkout, combined, logistics, pharma, pharmacy, returns};

/// The world's size, which the lanes' rows depend on.
#[derive(Clone)]
pub struct Scale {
    seed: u64,
    start_ms: i64,
    end_ms: i64,
    per_hour: f64,
    /// Customers of the bank; each has at most one case per hour.
    pub users: u64,
    /// Shipments under way.
    pub shipments: u64,
}

impl Scale {
    pub fn new(seed: u64, start_ms: i64, span_ms: i64, per_hour: f64) -> Scale {
        let per_hour = per_hour.max(BACKGROUND_PER_HOUR_MIN);
        Scale {
            seed,
            start_ms,
            end_ms: start_ms + span_ms,
            per_hour,
            users: (per_hour * 0.15) as u64 + 2_000,
            shipments: ((per_hour * SENSORS_SHARE / pharma::READINGS_PER_HOUR) as u64).max(8),
        }
    }

    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// Bits that depend on the seed, `salt` and `case` only.
    pub fn bits(&self, salt: u64, case: u64) -> u64 {
        let seed = self.seed ^ salt.wrapping_mul(0xA24B_AED4_963E_E407);
        finalise(seed.wrapping_add(case.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

/// The finaliser of splitmix64.
fn finalise(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// 64 hexadecimal digits that look like the SHA-256 of something: one text per
/// number, in every world.
pub fn digest(number: u64) -> String {
    let word = |at: u64| finalise(finalise(number).wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    format!("{:016x}{:016x}{:016x}{:016x}", word(1), word(2), word(3), word(4))
}

/// The part of the background that sensors send; the other shares stand with
/// their lanes below.
const SENSORS_SHARE: f64 = 0.10;

/// One background event in this many arrives late, by this or more.
const LATE_EVERY: u64 = 200;
pub const LATE_MS_MIN: i64 = MINUTE;

/// One background event in this many arrives twice.
const TWICE_EVERY: u64 = 500;

/// Writes the row of a case at an event time.
type Write = fn(&Scale, u64, i64) -> String;

struct Lane {
    stream: &'static str,
    salt: u64,
    cases_per_hour: f64,
    /// The lane speaks for each `every`-th case.
    every: u64,
    offset_ms: i64,
    late_ms_max: i64,
    write: Write,
    case: u64,
}

impl Lane {
    /// When the current case's event arrives unless it is late.
    fn arrival_ms(&self, scale: &Scale) -> i64 {
        let spacing_ms = HOUR as f64 / self.cases_per_hour;
        // Less than one spacing, and the same for all lanes of a case: order
        // holds within each lane and within each case.
        let jitter = scale.bits(1, self.case) as f64 / u64::MAX as f64;
        let case_ms = (self.case as f64 + jitter * 0.999) * spacing_ms;
        scale.start_ms + self.offset_ms + case_ms as i64
    }
}

/// All events of a world in order of arrival.
pub struct Events {
    scale: Scale,
    told: Arc<[Event]>,
    told_next: usize,
    lanes: Vec<Lane>,
    /// The arrival of each lane's next event; `i64::MAX` where it is spent.
    lanes_next: Vec<i64>,
    /// Late events and second deliveries, by arrival and then number.
    held: BinaryHeap<Reverse<Held>>,
    held_count: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    arrival_ms: i64,
    number: u64,
    stream: &'static str,
    json: String,
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let (lane, lane_ms) = self.first_lane();
            let told_ms = self.told.get(self.told_next).map_or(i64::MAX, |told| told.arrival_ms);
            let held_ms = self.held.peek().map_or(i64::MAX, |held| held.0.arrival_ms);
            let first_ms = told_ms.min(held_ms).min(lane_ms);
            if first_ms >= self.scale.end_ms {
                return None;
            }
            // On a tie the story comes first: a credential told at the start
            // precedes every scan.
            if told_ms == first_ms {
                self.told_next += 1;
                return Some(self.told[self.told_next - 1].clone());
            }
            if held_ms == first_ms {
                let held = self.held.pop()?.0;
                return Some(Event { arrival_ms: held.arrival_ms, stream: held.stream, json: held.json });
            }
            if let Some(event) = self.advance(lane, lane_ms) {
                return Some(event);
            }
        }
    }
}

impl Events {
    /// All streams.
    pub(crate) fn new(scale: Scale, told: Arc<[Event]>) -> Events {
        let lanes = lanes(&scale);
        Events::of_lanes(scale, told, lanes)
    }

    /// One stream. A lane knows nothing of the others, so the rest need not be
    /// made.
    pub(crate) fn of(stream: &str, scale: Scale, told: &[Event]) -> Events {
        let told = told.iter().filter(|event| event.stream == stream).cloned().collect();
        let lanes = lanes(&scale).into_iter().filter(|lane| lane.stream == stream).collect();
        Events::of_lanes(scale, told, lanes)
    }

    fn of_lanes(scale: Scale, told: Arc<[Event]>, lanes: Vec<Lane>) -> Events {
        let lanes_next = lanes.iter().map(|lane| lane.arrival_ms(&scale)).collect();
        Events { scale, told, told_next: 0, lanes, lanes_next, held: BinaryHeap::new(), held_count: 0 }
    }

    /// The lane that speaks next, and when.
    fn first_lane(&self) -> (usize, i64) {
        let mut first = (0, i64::MAX);
        for (lane, arrival_ms) in self.lanes_next.iter().enumerate() {
            if *arrival_ms < first.1 {
                first = (lane, *arrival_ms);
            }
        }
        first
    }

    /// Takes a lane's next event. None where it is late and so held back.
    fn advance(&mut self, number: usize, arrival_ms: i64) -> Option<Event> {
        let lane = &mut self.lanes[number];
        let bits = self.scale.bits(lane.salt, lane.case);
        let ts = arrival_ms - 50 - (bits >> 32) as i64 % 1_950;
        let json = (lane.write)(&self.scale, lane.case, ts);
        let stream = lane.stream;
        let late_ms_max = lane.late_ms_max;
        lane.case += lane.every;
        self.lanes_next[number] = lane.arrival_ms(&self.scale);

        if bits % TWICE_EVERY == 1 {
            let second_ms = arrival_ms + SECOND + (bits >> 20) as i64 % (20 * SECOND);
            self.hold(second_ms, stream, json.clone());
        }
        if late_ms_max > LATE_MS_MIN && bits.is_multiple_of(LATE_EVERY) {
            let late_ms = LATE_MS_MIN + (bits >> 20) as i64 % (late_ms_max - LATE_MS_MIN);
            self.hold(arrival_ms + late_ms, stream, json);
            return None;
        }
        Some(Event { arrival_ms, stream, json })
    }

    fn hold(&mut self, arrival_ms: i64, stream: &'static str, json: String) {
        self.held_count += 1;
        self.held.push(Reverse(Held { arrival_ms, number: self.held_count, stream, json }));
    }
}

/// The lanes, whose order settles ties.
fn lanes(scale: &Scale) -> Vec<Lane> {
    let hourly = scale.per_hour;
    let fleet = scale.shipments as f64;
    let mut lanes: Vec<Lane> = Vec::new();
    let mut add = |stream, cases_per_hour, every, offset_ms, late_ms_max, write: Write| {
        let salt = 100 + lanes.len() as u64;
        let lane = Lane { stream, salt, cases_per_hour, every, offset_ms, late_ms_max, write, case: 0 };
        lanes.push(lane);
    };
    let late_ms = 8 * MINUTE;

    // Orders: 2.03 events a case, 25 % of all.
    let orders = hourly * 0.25 / (2.0 + 1.0 / 32.0);
    add("orders", orders, 1, 0, late_ms, bank::clean_order);
    add("payments", orders, 32, 5 * SECOND, late_ms, bank::clean_decline);
    add("payments", orders, 1, 12 * SECOND, late_ms, bank::clean_payment);

    // Sessions: 3.125 events a case, 22 % of all.
    let sessions = hourly * 0.22 / (3.0 + 1.0 / 8.0);
    add("web_events", sessions, 1, 0, late_ms, bank::clean_login);
    add("web_events", sessions, 1, 20 * SECOND, late_ms, bank::clean_browse);
    add("web_events", sessions, 1, 50 * SECOND, late_ms, bank::clean_browse);
    add("web_events", sessions, 8, 90 * SECOND, late_ms, bank::clean_errand);

    // Shipments: a logger, an air probe and a door each. A reading is never so
    // late that its logger would seem silent.
    add("sensors", fleet * 4.0, 1, 0, 3 * MINUTE, pharma::clean_temperature);
    add("sensors", fleet * 12.0, 1, 0, 3 * MINUTE, pharma::clean_air);
    add("sensors", fleet, 1, 4 * MINUTE, 0, pharma::clean_door_open);
    add("sensors", fleet, 1, 10 * MINUTE, 0, pharma::clean_door_closed);

    // The shipper's portal: 2 % of all.
    add("auth_log", hourly * 0.015, 1, 0, late_ms, pharma::clean_portal_login);
    add("setpoints", hourly * 0.005, 1, MINUTE, late_ms, pharma::clean_setpoint);

    // Parcels: six scans and a proof a case, 30 % of all. They begin when the
    // credentials of all scanners have long been read.
    let parcels = hourly * 0.30 / 7.0;
    for (stop, write) in logistics::CLEAN_STOPS.iter().enumerate() {
        let offset_ms = 2 * MINUTE + logistics::STOPS[stop].1;
        add("scans", parcels, 1, offset_ms, logistics::SCANS_LATENESS_MS - 5 * MINUTE, *write);
    }
    add("credentials", hourly * 0.002, 1, MINUTE, 0, logistics::clean_credential);

    // Threat intelligence: 1 % of all.
    add("ioc", hourly * 0.01, 1, 0, 0, combined::clean_indicator);

    // The code is shown at the door while the parcel is scanned.
    let shown_ms = 2 * MINUTE + logistics::STOPS[5].1 - 20 * SECOND;
    add("proofs", parcels, 1, shown_ms, logistics::SCANS_LATENESS_MS - 5 * MINUTE, logistics::clean_proof);
    add("refunds", hourly * 0.003, 1, 0, late_ms, returns::clean_refund);

    // Cash machines: 2.125 events a case, 3 % of all.
    let payouts = hourly * 0.03 / (2.0 + 1.0 / 16.0 + 2.0 / 32.0);
    let late_atm_ms = branch::ATM_LATE_MS_MAX;
    add("host_authorisations", payouts, 1, 0, late_atm_ms, branch::clean_authorisation);
    add("atm_events", payouts, 1, 5 * SECOND, late_atm_ms, branch::clean_dispense);
    add("atm_events", payouts, 16, 30 * SECOND, late_atm_ms, branch::clean_vibration);
    add("atm_events", payouts, 32, 40 * SECOND, late_atm_ms, branch::clean_door_open);
    add("atm_events", payouts, 32, 4 * MINUTE, late_atm_ms, branch::clean_door_closed);
    add("back_office", hourly * 0.008, 1, 0, late_ms, branch::clean_back_office);

    // Checkout pages: 1 % of all.
    add("page_hashes", hourly * 0.0095, 1, checkout::FIRST_LOOK_MS, late_ms, checkout::clean_page_hash);
    add("releases", hourly * 0.0005, 1, checkout::FIRST_LOOK_MS, 0, checkout::clean_release);

    // Packs: three events a case, 3 % of all; sales: 1.17 a case, 1.5 %. What a
    // credential is late by is less than what it is early by.
    let packs = hourly * 0.03 / 3.0;
    add("authenticity", packs, 1, 0, late_ms, pharmacy::clean_authenticity);
    add("packs", packs, 1, pharmacy::RECEIVED_MS, late_ms, pharmacy::clean_received);
    add("packs", packs, 1, pharmacy::DISPENSED_MS, late_ms, pharmacy::clean_dispensed);
    let sales = hourly * 0.015 / (1.0 + 1.0 / pharmacy::RESTRICTED_EVERY as f64);
    add("buyer_credentials", sales, pharmacy::RESTRICTED_EVERY, 0, late_ms, pharmacy::clean_buyer_credential);
    add("sales", sales, 1, pharmacy::SOLD_MS, late_ms, pharmacy::clean_sale);

    // Logs: anchored and audited, 0.5 % of all.
    add("log_anchors", hourly * 0.0025, 1, 0, late_ms, audit::clean_hashed);
    add("log_audits", hourly * 0.0025, 1, audit::AUDITED_MS, late_ms, audit::clean_hashed);
    lanes
}
