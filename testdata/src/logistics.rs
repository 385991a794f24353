//! The parcel carrier: scans of parcels, the credentials of the devices that
//! scan them, and what is shown at the door.
//!
//! L1 rogue scanner, L2 diversion, L3 false delivery, L4 skipped custody.

use std::fmt::Display;

use crate::background::Scale;
use crate::story::{HOUR, MINUTE, SECOND, Scenario, Story};

const L1: Scenario = Scenario { id: "L1", pilot: "logistics", detection: "rogue_scanner" };
const L2: Scenario = Scenario { id: "L2", pilot: "logistics", detection: "diversion" };
const L3: Scenario = Scenario { id: "L3", pilot: "logistics", detection: "false_delivery" };
const L4: Scenario = Scenario { id: "L4", pilot: "logistics", detection: "skipped_custody" };

/// How far the watermark of `scans` stays behind, as in the pack.
pub const SCANS_LATENESS_MS: i64 = 20 * MINUTE;

/// How long before and after a delivery its proof counts, as in the pack.
const PROOF_BEFORE_MS: i64 = 15 * MINUTE;
const PROOF_AFTER_MS: i64 = 5 * MINUTE;

/// A parcel's way: step, and time since pickup.
pub const STOPS: [(&str, i64); 6] = [
    ("pickup", 0),
    ("hub_in", 35 * MINUTE),
    ("hub_out", 45 * MINUTE),
    ("hub_in", 80 * MINUTE),
    ("out_for_delivery", 90 * MINUTE),
    ("delivered", 110 * MINUTE),
];

type Place = (f64, f64);

struct Region {
    /// The pack's `logistics_exposure` knows it.
    code: &'static str,
    hub: Place,
    /// Where parcels come from and where they go; within 50 km of the hub.
    depots: [Place; 2],
}

const REGIONS: [Region; 4] = [
    Region { code: "AMS", hub: (52.3105, 4.7683), depots: [(52.0907, 5.1214), (52.3874, 4.6462)] },
    Region { code: "BRU", hub: (50.9010, 4.4844), depots: [(50.8798, 4.7005), (51.0259, 4.4776)] },
    Region { code: "CGN", hub: (50.8659, 7.1427), depots: [(50.7374, 7.0982), (51.2277, 6.7735)] },
    Region { code: "LIL", hub: (50.5633, 3.0869), depots: [(50.4329, 2.8325), (50.6056, 3.3878)] },
];

/// Far from every region: Hamburg, Lyon, Berlin, Prague.
const FAR: [Place; 4] = [(53.5511, 9.9937), (45.7640, 4.8357), (52.5200, 13.4050), (50.0755, 14.4378)];

/// Scanners of each region in the background.
const SCANNERS: u64 = 60;

pub fn tell(story: &mut Story) {
    for region in &REGIONS {
        for number in 0..SCANNERS {
            let json = credential(scanner(region, number * 2), "carrier", story.start_ms - 30 * 24 * HOUR, None, story.start_ms);
            story.tell_late("credentials", story.start_ms, json, 0);
        }
    }
    rogue_scanner(story);
    renewed_scanner(story);
    diversion(story);
    skipped_custody(story);
    false_delivery(story);
}

/// L1: a scan by a device without a credential that was valid at its time.
fn rogue_scanner(story: &mut Story) {
    // Devices nobody knows.
    let attacks = story.draw(2..=3) as usize;
    for begin in story.times(attacks, 45 * MINUTE) {
        let region = region(story);
        let device = story.name(&format!("did:tide:{}-", region.code), 4);
        let first_ms = scan_by(story, region, &device, begin, 3);
        story.attack(L1, &device, first_ms);
    }
    // Devices whose role is another.
    for begin in story.times(1, 45 * MINUTE) {
        let region = region(story);
        let device = story.name(&format!("did:tide:{}-", region.code), 4);
        issue(story, &device, "warehouse", begin - 5 * MINUTE, None);
        let first_ms = scan_by(story, region, &device, begin, 2);
        story.attack(L1, &device, first_ms);
    }
    // A stolen device, revoked; of the second theft we hear after the scans.
    for (number, begin) in story.times(2, 45 * MINUTE).into_iter().enumerate() {
        let region = region(story);
        let device = story.name(&format!("did:tide:{}-", region.code), 4);
        let issued_ms = story.start_ms;
        issue(story, &device, "carrier", issued_ms, None);
        let revoked_ms = begin - MINUTE;
        let json = credential(&device, "carrier", issued_ms, Some(revoked_ms), revoked_ms);
        let known_ms = if number == 0 {
            story.tell("credentials", revoked_ms, json)
        } else {
            story.tell_late("credentials", revoked_ms, json, 25 * MINUTE)
        };
        let first_ms = scan_by(story, region, &device, begin, 2);
        story.attack(L1, &device, first_ms.max(known_ms));
    }
    // A new device at work before its credential is heard of: found, and
    // withdrawn when the credential comes.
    for (number, begin) in story.times(2, 50 * MINUTE).into_iter().enumerate() {
        let region = region(story);
        let device = story.name(&format!("did:tide:{}-", region.code), 4);
        let first_ms = scan_by(story, region, &device, begin, 2);
        let issued_ms = begin - 10 * MINUTE;
        let late_ms = 10 * MINUTE + story.draw(22 * MINUTE..=38 * MINUTE);
        let json = credential(&device, "carrier", issued_ms, None, issued_ms);
        let known_ms = story.tell_late("credentials", issued_ms, json, late_ms);
        if number == 1 {
            story.again();
        }
        story.look_alike_withdrawn(L1, &device, first_ms, known_ms);
    }
}

/// What looks like L1 and is not: a credential renewed between two scans; a
/// scan made before a revocation that arrives after it.
fn renewed_scanner(story: &mut Story) {
    for begin in story.times(1, 40 * MINUTE) {
        let region = region(story);
        let device = story.name(&format!("did:tide:{}-", region.code), 4);
        let renewed_ms = begin + 10 * MINUTE;
        issue(story, &device, "carrier", story.start_ms, None);
        issue(story, &device, "carrier", renewed_ms, None);
        let json = credential(&device, "carrier", story.start_ms, Some(renewed_ms), renewed_ms);
        story.tell("credentials", renewed_ms, json);
        scan_by(story, region, &device, begin, 1);
        let last_ms = scan_by(story, region, &device, renewed_ms + 5 * MINUTE, 1);
        story.look_alike(L1, &device, last_ms);
    }
    for begin in story.times(1, 40 * MINUTE) {
        let region = region(story);
        let device = story.name(&format!("did:tide:{}-", region.code), 4);
        let revoked_ms = begin + 3 * MINUTE;
        issue(story, &device, "carrier", story.start_ms, None);
        let json = credential(&device, "carrier", story.start_ms, Some(revoked_ms), revoked_ms);
        story.tell("credentials", revoked_ms, json);
        let parcel = story.name(&format!("{}-", region.code), 8);
        let json = scan(&parcel, &device, "pickup", region.depots[0], begin);
        let last_ms = story.tell_late("scans", begin, json, 9 * MINUTE);
        story.look_alike(L1, &device, last_ms);
    }
}

fn issue(story: &mut Story, device: &str, role: &str, from_ms: i64, until_ms: Option<i64>) {
    let json = credential(device, role, from_ms, until_ms, from_ms);
    story.tell_late("credentials", from_ms, json, SECOND);
}

/// Tells pickups of `parcels` by one device, a minute apart. Returns the first
/// arrival.
fn scan_by(story: &mut Story, region: &Region, device: &str, begin: i64, parcels: i64) -> i64 {
    let mut first_ms = i64::MAX;
    for number in 0..parcels {
        let parcel = story.name(&format!("{}-", region.code), 8);
        let ts = begin + number * MINUTE;
        let at = near(story, region.depots[0]);
        first_ms = first_ms.min(story.tell("scans", ts, scan(&parcel, device, "pickup", at, ts)));
        if number == 0 {
            story.again();
        }
    }
    first_ms
}

/// L2: between two scans a parcel would have gone faster than 130 km/h.
fn diversion(story: &mut Story) {
    let attacks = story.draw(3..=4) as usize;
    for begin in story.times(attacks, 90 * MINUTE) {
        let mut way = Way::new(story);
        way.step(story, "pickup", way.region.depots[0], begin);
        way.step(story, "hub_in", way.region.hub, begin + 30 * MINUTE);
        let far = story.pick(&FAR);
        let ts = begin + 30 * MINUTE + story.draw(30 * MINUTE..=50 * MINUTE);
        let found_ms = way.step(story, "hub_in", far, ts);
        story.again();
        story.attack(L2, &way.parcel, found_ms);
    }

    // A fast van: 60 km of motorway at up to 126 km/h.
    for begin in story.times(2, 90 * MINUTE) {
        let mut way = Way::new(story);
        way.step(story, "pickup", way.region.hub, begin);
        way.step(story, "hub_in", way.region.hub, begin + 10 * MINUTE);
        let seconds = story.draw(1_715..=1_830);
        // A degree of latitude has 111.195 km on a sphere of 6371 km.
        let depot = (way.region.hub.0 + 60.0 / 111.195, way.region.hub.1);
        let last_ms = way.step(story, "hub_in", depot, begin + 10 * MINUTE + seconds * SECOND);
        story.look_alike(L2, &way.parcel, last_ms);
    }
    // Two devices at one gate, seconds and some hundred metres apart.
    for begin in story.times(1, 90 * MINUTE) {
        let mut way = Way::new(story);
        way.step(story, "pickup", way.region.depots[0], begin);
        let hub = way.region.hub;
        way.step(story, "hub_in", hub, begin + 35 * MINUTE);
        let at = (hub.0 + 0.0035, hub.1);
        let last_ms = way.step(story, "hub_in", at, begin + 35 * MINUTE + 5 * SECOND);
        story.look_alike(L2, &way.parcel, last_ms);
    }
    // The scan between two others comes after both.
    for begin in story.times(1, 100 * MINUTE) {
        let mut way = Way::new(story);
        way.step(story, "pickup", way.region.depots[0], begin);
        way.late_ms = Some(15 * MINUTE);
        way.step(story, "hub_in", way.region.hub, begin + 35 * MINUTE);
        way.late_ms = None;
        way.step(story, "hub_out", way.region.hub, begin + 40 * MINUTE);
        story.look_alike(L2, &way.parcel, begin + 50 * MINUTE);
    }
}

/// L4: out for delivery without having come through a hub.
fn skipped_custody(story: &mut Story) {
    for begin in story.times(3, 70 * MINUTE) {
        let mut way = Way::new(story);
        let depot = way.region.depots[1];
        way.step(story, "pickup", depot, begin);
        let out_ts = begin + story.draw(20 * MINUTE..=35 * MINUTE);
        let out_ms = way.step(story, "out_for_delivery", depot, out_ts);
        story.again();
        way.step(story, "delivered", depot, out_ts + 18 * MINUTE);
        way.show_proof(story, out_ts + 18 * MINUTE - 20 * SECOND);
        // Settled when scans of that time can no longer come.
        story.attack(L4, &way.parcel, out_ms.max(out_ts + SCANS_LATENESS_MS));
    }

    // The hub's scan is uploaded when the parcel is long on its way.
    for begin in story.times(2, 70 * MINUTE) {
        let mut way = Way::new(story);
        way.step(story, "pickup", way.region.depots[0], begin);
        way.late_ms = Some(story.draw(13 * MINUTE..=17 * MINUTE));
        let last_ms = way.step(story, "hub_in", way.region.hub, begin + 35 * MINUTE);
        way.late_ms = None;
        way.step(story, "out_for_delivery", way.region.hub, begin + 40 * MINUTE);
        story.look_alike(L4, &way.parcel, last_ms);
    }
    // Nobody at home: back to the hub, and out once more.
    for begin in story.times(1, 90 * MINUTE) {
        let mut way = Way::new(story);
        let hub = way.region.hub;
        way.step(story, "pickup", way.region.depots[0], begin);
        way.step(story, "hub_in", hub, begin + 35 * MINUTE);
        way.step(story, "out_for_delivery", hub, begin + 40 * MINUTE);
        way.step(story, "hub_in", hub, begin + 60 * MINUTE);
        let last_ms = way.step(story, "out_for_delivery", hub, begin + 65 * MINUTE);
        story.look_alike(L4, &way.parcel, last_ms);
    }
}

/// L3: delivered, but nobody showed that it was theirs.
fn false_delivery(story: &mut Story) {
    for (number, begin) in story.times(3, 90 * MINUTE).into_iter().enumerate() {
        let mut way = Way::new(story);
        let ts = way.bring(story, begin);
        // Once, the code had been shown at an earlier attempt.
        if number == 1 {
            way.show_proof(story, ts - PROOF_BEFORE_MS - 5 * MINUTE);
        }
        let delivered_ms = way.step(story, "delivered", way.region.depots[1], ts);
        story.again();
        // Settled when proofs of that time can no longer come.
        story.attack(L3, &way.parcel, delivered_ms.max(ts + PROOF_AFTER_MS + SCANS_LATENESS_MS));
    }

    // The proof is uploaded long after the scan; the scan long after the proof.
    for number in 0..2 {
        for begin in story.times(1, 90 * MINUTE) {
            let mut way = Way::new(story);
            let ts = way.bring(story, begin);
            let late_ms = story.draw(14 * MINUTE..=17 * MINUTE);
            way.late_ms = (number == 0).then_some(late_ms);
            let proof_ms = way.show_proof(story, ts - 10 * SECOND);
            story.again();
            way.late_ms = (number == 1).then_some(late_ms);
            let delivered_ms = way.step(story, "delivered", way.region.depots[1], ts);
            story.look_alike(L3, &way.parcel, proof_ms.max(delivered_ms));
        }
    }
}

/// A parcel of the story on its way.
struct Way {
    parcel: String,
    region: &'static Region,
    late_ms: Option<i64>,
}

impl Way {
    fn new(story: &mut Story) -> Way {
        let region = region(story);
        Way { parcel: story.name(&format!("{}-", region.code), 8), region, late_ms: None }
    }

    /// Tells all scans before the delivery. Returns when that is.
    fn bring(&mut self, story: &mut Story, begin: i64) -> i64 {
        let (hub, depots) = (self.region.hub, self.region.depots);
        self.step(story, "pickup", depots[0], begin);
        self.step(story, "hub_in", hub, begin + 30 * MINUTE);
        self.step(story, "out_for_delivery", hub, begin + 32 * MINUTE);
        begin + 60 * MINUTE
    }

    /// Tells that the recipient's code was read. Returns its arrival.
    fn show_proof(&mut self, story: &mut Story, ts: i64) -> i64 {
        let device = scanner(self.region, story.draw(0..=SCANNERS as i64 - 1) as u64 * 2);
        let json = proof(&self.parcel, device, ts);
        match self.late_ms {
            Some(late_ms) => story.tell_late("proofs", ts, json, late_ms),
            None => story.tell("proofs", ts, json),
        }
    }

    /// Tells a scan by one of the region's scanners. Returns its arrival.
    fn step(&mut self, story: &mut Story, step: &str, at: Place, ts: i64) -> i64 {
        let device = scanner(self.region, story.draw(0..=SCANNERS as i64 - 1) as u64 * 2);
        let json = scan(&self.parcel, device, step, at, ts);
        match self.late_ms {
            Some(late_ms) => story.tell_late("scans", ts, json, late_ms),
            None => story.tell("scans", ts, json),
        }
    }
}

fn region(story: &mut Story) -> &'static Region {
    &REGIONS[story.draw(0..=3) as usize]
}

/// A place within two kilometres.
fn near(story: &mut Story, place: Place) -> Place {
    let mut off = || story.draw(-100..=100) as f64 / 10_000.0;
    (place.0 + off(), place.1 + off())
}

fn scanner(region: &Region, number: u64) -> String {
    format!("did:tide:{}-{number:04}", region.code)
}

fn scan(parcel: impl Display, device: impl Display, step: &str, (lat, lon): Place, ts: i64) -> String {
    format!(
        concat!(r#"{{"parcel":"{}","device":"{}","step":"{}","#, r#""lat":{:.4},"lon":{:.4},"ts":{}}}"#),
        parcel, device, step, lat, lon, ts
    )
}

fn proof(parcel: impl Display, device: impl Display, ts: i64) -> String {
    format!(r#"{{"parcel":"{parcel}","device":"{device}","ts":{ts}}}"#)
}

fn credential(did: impl Display, role: &str, valid_from: i64, revoked_at: Option<i64>, ts: i64) -> String {
    let revoked_at = revoked_at.map_or("null".to_owned(), |at| at.to_string());
    format!(concat!(r#"{{"did":"{}","role":"{}","valid_from":{},"#, r#""revoked_at":{},"ts":{}}}"#), did, role, valid_from, revoked_at, ts)
}

/// One writer per stop, since a lane's writer knows only its case.
pub const CLEAN_STOPS: [fn(&Scale, u64, i64) -> String; 6] = [
    |scale, case, ts| clean_scan(scale, case, 0, ts),
    |scale, case, ts| clean_scan(scale, case, 1, ts),
    |scale, case, ts| clean_scan(scale, case, 2, ts),
    |scale, case, ts| clean_scan(scale, case, 3, ts),
    |scale, case, ts| clean_scan(scale, case, 4, ts),
    |scale, case, ts| clean_scan(scale, case, 5, ts),
];

fn clean_scan(scale: &Scale, case: u64, stop: usize, ts: i64) -> String {
    let region = &REGIONS[(case % 4) as usize];
    let bits = scale.bits(6, case);
    let (from, to) = if bits & 1 == 0 { (0, 1) } else { (1, 0) };
    let base = match stop {
        0 => region.depots[from],
        1 | 2 => region.hub,
        _ => region.depots[to],
    };
    // The first and last scans are at a door, up to two kilometres away.
    let off = |bits: u64| (bits % 200) as f64 / 10_000.0 - 0.01;
    let at = match stop {
        0 => (base.0 + off(bits >> 8), base.1 + off(bits >> 16)),
        5 => (base.0 + off(bits >> 24), base.1 + off(bits >> 32)),
        _ => base,
    };
    let number = scale.bits(7 + stop as u64, case) % SCANNERS * 2;
    let code = region.code;
    scan(format_args!("{code}-{:08}", case * 2), format_args!("did:tide:{code}-{number:04}"), STOPS[stop].0, at, ts)
}

/// Read by the scanner of the last stop.
pub fn clean_proof(scale: &Scale, case: u64, ts: i64) -> String {
    let code = REGIONS[(case % 4) as usize].code;
    let number = scale.bits(7 + 5, case) % SCANNERS * 2;
    proof(format_args!("{code}-{:08}", case * 2), format_args!("did:tide:{code}-{number:04}"), ts)
}

/// The registry repeats a credential as it was.
pub fn clean_credential(scale: &Scale, case: u64, ts: i64) -> String {
    let region = &REGIONS[(case % 4) as usize];
    let number = case / 4 % SCANNERS * 2;
    let from_ms = scale.start_ms() - 30 * 24 * HOUR;
    credential(scanner(region, number), "carrier", from_ms, None, ts)
}
