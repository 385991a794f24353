//! What is said to be true is what the pilots' rules make of the events: each
//! rule once more, over all that ever arrived, in the plainest way.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;
use tidegate_testdata::{Role, SPAN_MS_MIN, World};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const START_MS: i64 = 1_772_438_400_000;

/// A stream's events, by field.
type Rows = Vec<Value>;

#[test]
fn the_rules_find_the_attacks_and_nothing_else() {
    for (span_ms, per_hour) in [(SPAN_MS_MIN, 0.0), (6 * HOUR, 6_000.0)] {
        for seed in 0..8 {
            let world = World::new(seed, START_MS, span_ms, per_hour);
            let end_ms = START_MS + span_ms;
            let rows = |stream: &str| -> Rows {
                world.events_of(stream).map(|event| serde_json::from_str(&event.json).expect("valid JSON")).collect()
            };
            let found = [
                ("B4", skimmed(&rows("page_hashes"), &rows("releases"))),
                ("B5", insiders(&rows("back_office"))),
                ("B6", emptied(&rows("atm_events"), &rows("host_authorisations"))),
                ("P3", quiet(&rows("sensors"), end_ms)),
                ("P4", tampered(&rows("sensors"))),
                ("P5", falsified(&rows("packs"), &rows("authenticity"))),
                ("P6", restricted(&rows("sales"), &rows("buyer_credentials"))),
                // What is not settled at the end is not found.
                ("L3", false_deliveries(&rows("scans"), &rows("proofs"), end_ms - 30 * MINUTE)),
                ("L5", returns(&rows("refunds"))),
                ("X2", changed_logs(&rows("log_anchors"), &rows("log_audits"))),
            ];
            for (scenario, found) in found {
                let attacks = world.truths().iter().filter(|truth| truth.scenario == scenario && truth.role == Role::Attack);
                let expected: BTreeSet<String> = attacks.map(|truth| truth.entity.clone()).collect();
                assert_eq!(found, expected, "{scenario}, seed {seed}, {span_ms} ms");
            }
        }
    }
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{field} of {row}"))
}

fn ts(row: &Value) -> i64 {
    row["ts"].as_i64().expect("a time")
}

fn of_kind<'a>(rows: &'a Rows, field: &str, kind: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row[field] == kind).collect()
}

/// Rows by one of their fields.
fn by<'a>(rows: impl IntoIterator<Item = &'a Value>, field: &str) -> HashMap<String, Vec<&'a Value>> {
    let mut groups: HashMap<String, Vec<&Value>> = HashMap::new();
    for row in rows {
        groups.entry(text(row, field).to_owned()).or_default().push(row);
    }
    groups
}

fn skimmed(looks: &Rows, releases: &Rows) -> BTreeSet<String> {
    let by_hash = by(releases, "sha256");
    let is_released = |look: &Value| {
        let mut released = by_hash.get(text(look, "sha256")).into_iter().flatten();
        released.any(|release| release["script"] == look["script"] && ts(release) <= ts(look))
    };
    looks.iter().filter(|look| !is_released(look)).map(|look| text(look, "page").to_owned()).collect()
}

fn insiders(rows: &Rows) -> BTreeSet<String> {
    let edits = of_kind(rows, "action", "iban_edit");
    let edits = by(edits, "account");
    let mut found = BTreeSet::new();
    for refund in of_kind(rows, "action", "refund") {
        let before = edits.get(text(refund, "account")).into_iter().flatten();
        let mut before = before.filter(|edit| edit["clerk"] == refund["clerk"] && (1..=24 * HOUR).contains(&(ts(refund) - ts(edit))));
        found.extend(before.next().map(|_| text(refund, "clerk").to_owned()));
    }
    found
}

fn emptied(events: &Rows, authorisations: &Rows) -> BTreeSet<String> {
    let let_through = by(authorisations, "txn");
    let machines = by(events, "atm");
    let is_authorised = |paid: &Value| {
        let mut before = let_through.get(text(paid, "txn")).into_iter().flatten();
        before.any(|host| host["atm"] == paid["atm"] && (0..=2 * MINUTE).contains(&(ts(paid) - ts(host))))
    };
    let mut found = BTreeSet::new();
    for paid in of_kind(events, "kind", "dispense").into_iter().filter(|paid| !is_authorised(paid)) {
        let there = &machines[text(paid, "atm")];
        let times = |kind: &str| there.iter().filter(|event| event["kind"] == kind).map(|event| ts(event)).collect::<Vec<_>>();
        for drilled in times("vibration") {
            for opened in times("door_open") {
                let all = [drilled, opened, ts(paid)];
                if all.iter().max().unwrap() - all.iter().min().unwrap() <= MINUTE {
                    found.insert(text(paid, "atm").to_owned());
                }
            }
        }
    }
    found
}

/// Silent for more than two intervals, by the time of its readings; or still for
/// four.
fn quiet(sensors: &Rows, end_ms: i64) -> BTreeSet<String> {
    let received: HashSet<&str> = of_kind(sensors, "kind", "received").into_iter().map(|row| text(row, "shipment")).collect();
    let mut found = BTreeSet::new();
    for (device, mut rows) in by(of_kind(sensors, "kind", "temperature"), "device") {
        let interval_ms = if device.starts_with("TL60-") { HOUR } else { 15 * MINUTE };
        rows.sort_by_key(|row| ts(row));
        let mut times: Vec<i64> = rows.iter().map(|row| ts(row)).collect();
        if !received.contains(text(rows[0], "shipment")) {
            times.push(end_ms);
        }
        let is_silent = times.windows(2).any(|pair| 2 * interval_ms < pair[1] - pair[0]);
        let mut runs = rows.chunk_by(|one, next| one["value"] == next["value"]);
        let is_still = runs.any(|run| 4 * interval_ms <= ts(run[run.len() - 1]) - ts(run[0]));
        if is_silent || is_still {
            found.insert(device);
        }
    }
    found
}

/// The loggers of the story are all quarterly, but for one that says nothing of
/// note.
fn tampered(sensors: &Rows) -> BTreeSet<String> {
    type Quarters = HashMap<i64, (f64, f64)>;
    let mut heard = HashSet::new();
    let (mut loggers, mut air): (HashMap<(String, String), Quarters>, HashMap<String, Quarters>) = Default::default();
    for row in sensors.iter().filter(|row| heard.insert(row.to_string())) {
        let shipment = text(row, "shipment").to_owned();
        let quarters = match text(row, "kind") {
            "temperature" => loggers.entry((text(row, "device").to_owned(), shipment)).or_default(),
            "air" => air.entry(shipment).or_default(),
            _ => continue,
        };
        let sum = quarters.entry(ts(row).div_euclid(15 * MINUTE)).or_default();
        *sum = (sum.0 + row["value"].as_f64().expect("a number"), sum.1 + 1.0);
    }
    let mut found = BTreeSet::new();
    for ((device, shipment), quarters) in &loggers {
        let is_apart = |quarter: i64| {
            let sums = quarters.get(&quarter).zip(air.get(shipment).and_then(|air| air.get(&quarter)));
            sums.is_some_and(|(logger, air)| ((logger.0 / logger.1 - air.0 / air.1).abs() * 1e6).round() > 2e6)
        };
        if quarters.keys().any(|first| (*first..first + 4).all(is_apart)) {
            found.insert(device.clone());
        }
    }
    found
}

fn falsified(packs: &Rows, credentials: &Rows) -> BTreeSet<String> {
    let made = by(credentials, "serial");
    let is_made = |pack: &Value| made.get(text(pack, "serial")).into_iter().flatten().any(|made| ts(made) <= ts(pack));
    let mut found: BTreeSet<String> = packs.iter().filter(|pack| !is_made(pack)).map(|pack| text(pack, "serial").to_owned()).collect();
    for (serial, rows) in by(of_kind(packs, "step", "dispensed"), "serial") {
        if rows.iter().map(|row| text(row, "site")).collect::<HashSet<_>>().len() >= 2 {
            found.insert(serial);
        }
    }
    found
}

fn restricted(sales: &Rows, credentials: &Rows) -> BTreeSet<String> {
    let needs = HashMap::from([("codeine", "age"), ("insulin", "condition"), ("isotretinoin", "condition")]);
    let held = by(credentials, "buyer");
    let is_entitled = |sale: &Value, kind: &str| {
        let held: Vec<_> = held.get(text(sale, "buyer")).into_iter().flatten().filter(|held| held["kind"] == kind).collect();
        held.iter().any(|one| {
            let told = held.iter().filter(|other| other["valid_from"] == one["valid_from"]);
            let revoked_at = told.filter_map(|other| other["revoked_at"].as_i64()).min();
            one["valid_from"].as_i64().expect("a time") <= ts(sale) && revoked_at.is_none_or(|at| at > ts(sale))
        })
    };
    let is_refused = |sale: &&Value| needs.get(text(sale, "product")).is_some_and(|kind| !is_entitled(sale, kind));
    sales.iter().filter(is_refused).map(|sale| text(sale, "sale_id").to_owned()).collect()
}

fn false_deliveries(scans: &Rows, proofs: &Rows, until_ms: i64) -> BTreeSet<String> {
    let shown = by(proofs, "parcel");
    let is_proved = |scan: &Value| {
        let mut shown = shown.get(text(scan, "parcel")).into_iter().flatten();
        shown.any(|proof| (-5 * MINUTE..=15 * MINUTE).contains(&(ts(scan) - ts(proof))))
    };
    let delivered = of_kind(scans, "step", "delivered").into_iter().filter(|scan| ts(scan) < until_ms);
    delivered.filter(|scan| !is_proved(scan)).map(|scan| text(scan, "parcel").to_owned()).collect()
}

/// The story is shorter than thirty days.
fn returns(refunds: &Rows) -> BTreeSet<String> {
    let grams = |row: &Value, field: &str| row[field].as_i64();
    let mut found = BTreeSet::new();
    for (usr, rows) in by(refunds, "usr") {
        let differs = |row: &&Value| {
            let (sent, returned) = (grams(row, "sent_grams"), grams(row, "returned_grams"));
            sent.zip(returned).is_some_and(|(sent, returned)| 10 * (returned - sent).abs() > sent)
        };
        let ids: HashSet<&str> = rows.iter().map(|row| text(row, "refund_id")).collect();
        if rows.iter().any(differs) || ids.len() >= 3 {
            found.insert(usr);
        }
    }
    found
}

fn changed_logs(anchors: &Rows, audits: &Rows) -> BTreeSet<String> {
    let anchored = by(anchors, "log");
    let is_changed = |audit: &&Value| {
        let first = anchored.get(text(audit, "log")).into_iter().flatten().min_by_key(|anchor| ts(anchor));
        let is_other = |anchor: &&Value| !text(anchor, "sha256").eq_ignore_ascii_case(text(audit, "sha256"));
        first.is_some_and(|anchor| ts(anchor) < ts(audit) && is_other(anchor))
    };
    audits.iter().filter(is_changed).map(|audit| text(audit, "log").to_owned()).collect()
}
