//! Pharmacies: packs by serial with their credentials of authenticity, and
//! sales to buyers with theirs.
//!
//! P5 falsified pack, P6 restricted sale.

use std::fmt::Display;

use crate::background::Scale;
use crate::story::{MINUTE, SECOND, Scenario, Story};

const P5: Scenario = Scenario { id: "P5", pilot: "pharma", detection: "falsified_pack" };
const P6: Scenario = Scenario { id: "P6", pilot: "pharma", detection: "restricted_sale" };

/// From a pack's credential to its arrival at the pharmacy, and to its sale.
pub const RECEIVED_MS: i64 = 20 * MINUTE;
pub const DISPENSED_MS: i64 = 50 * MINUTE;

/// From a buyer's credential to the sale.
pub const SOLD_MS: i64 = 30 * MINUTE;

/// One sale in so many needs a credential.
pub const RESTRICTED_EVERY: u64 = 6;

/// The pack's `restricted_products`, with what they need.
const RESTRICTED: [(&str, &str); 3] = [("codeine", "age"), ("insulin", "condition"), ("isotretinoin", "condition")];

/// What everyone may buy.
const FREE: [&str; 3] = ["plaster", "ibuprofen", "saline"];

/// Pharmacies of the background.
const SITES: u64 = 200;

pub fn tell(story: &mut Story) {
    falsified_pack(story);
    genuine_pack(story);
    restricted_sale(story);
    entitled_sale(story);
}

/// P5: a serial dispensed at two sites, or one that nobody made.
fn falsified_pack(story: &mut Story) {
    for (number, begin) in story.times(2, 50 * MINUTE).into_iter().enumerate() {
        let (serial, sites) = (story.name("s-", 10), [story.name("ph-", 4), story.name("ph-", 4)]);
        made(story, &serial, begin, 2 * SECOND);
        let first_ts = begin + 10 * MINUTE;
        let json = pack(&serial, &sites[0], "dispensed", first_ts);
        // Once, the first of the two is told last.
        let first_ms = match number == 1 {
            true => story.tell_late("packs", first_ts, json, 8 * MINUTE),
            false => story.tell("packs", first_ts, json),
        };
        story.again();
        let second_ms = at_site(story, &serial, &sites[1], "dispensed", first_ts + 5 * MINUTE);
        story.attack(P5, &serial, first_ms.max(second_ms));
    }
    for begin in story.times(2, 30 * MINUTE) {
        let (serial, site) = (story.name("s-", 10), story.name("ph-", 4));
        let first_ms = at_site(story, &serial, &site, "received", begin);
        story.again();
        at_site(story, &serial, &site, "dispensed", begin + 20 * MINUTE);
        story.attack(P5, &serial, first_ms);
    }
}

/// What looks like P5 and is not.
fn genuine_pack(story: &mut Story) {
    // Brought back, and dispensed again where it was.
    for begin in story.times(1, 50 * MINUTE) {
        let (serial, site) = (story.name("s-", 10), story.name("ph-", 4));
        made(story, &serial, begin, 2 * SECOND);
        at_site(story, &serial, "wholesale-1", "received", begin + 5 * MINUTE);
        at_site(story, &serial, &site, "dispensed", begin + 10 * MINUTE);
        story.again();
        let last_ms = at_site(story, &serial, &site, "dispensed", begin + 25 * MINUTE);
        story.look_alike(P5, &serial, last_ms);
    }
    // Its credential is long on its way: found, and withdrawn.
    for (number, begin) in story.times(2, 50 * MINUTE).into_iter().enumerate() {
        let (serial, site) = (story.name("s-", 10), story.name("ph-", 4));
        let first_ms = at_site(story, &serial, &site, "received", begin);
        let late_ms = 10 * MINUTE + story.draw(20 * MINUTE..=38 * MINUTE);
        let known_ms = made(story, &serial, begin - 10 * MINUTE, late_ms);
        if number == 1 {
            story.again();
        }
        story.look_alike_withdrawn(P5, &serial, first_ms, known_ms);
    }
}

/// Tells the credential of a pack's maker. Returns its arrival.
fn made(story: &mut Story, serial: &str, ts: i64, late_ms: i64) -> i64 {
    story.tell_late("authenticity", ts, authenticity(serial, ts), late_ms)
}

fn at_site(story: &mut Story, serial: &str, site: &str, step: &str, ts: i64) -> i64 {
    story.tell("packs", ts, pack(serial, site, step, ts))
}

/// P6: a sale without a credential that was valid at its time.
fn restricted_sale(story: &mut Story) {
    // None at all.
    for begin in story.times(2, 30 * MINUTE) {
        let buyer = story.name("b-", 8);
        let (product, _) = story.pick(&RESTRICTED);
        let (id, sold_ms) = sell(story, &buyer, product, begin);
        story.again();
        story.attack(P6, &id, sold_ms);
    }
    // One of another kind.
    for begin in story.times(1, 30 * MINUTE) {
        let buyer = story.name("b-", 8);
        entitle(story, &buyer, "age", begin, None);
        let (id, sold_ms) = sell(story, &buyer, "insulin", begin + 10 * MINUTE);
        story.attack(P6, &id, sold_ms);
    }
    // Revoked before, of which one hears afterwards.
    for begin in story.times(1, 45 * MINUTE) {
        let buyer = story.name("b-", 8);
        entitle(story, &buyer, "condition", story.start_ms, None);
        let json = credential(&buyer, "condition", story.start_ms, Some(begin), begin);
        let known_ms = story.tell_late("buyer_credentials", begin, json, 25 * MINUTE);
        let (id, sold_ms) = sell(story, &buyer, "isotretinoin", begin + 5 * MINUTE);
        story.attack(P6, &id, sold_ms.max(known_ms));
    }
}

/// What looks like P6 and is not.
fn entitled_sale(story: &mut Story) {
    // The credential is on its way: found, and withdrawn.
    for (number, begin) in story.times(2, 50 * MINUTE).into_iter().enumerate() {
        let buyer = story.name("b-", 8);
        let (product, needs) = story.pick(&RESTRICTED);
        let (id, sold_ms) = sell(story, &buyer, product, begin);
        let issued_ms = begin - 5 * MINUTE;
        let late_ms = 5 * MINUTE + story.draw(15 * MINUTE..=40 * MINUTE);
        let json = credential(&buyer, needs, issued_ms, None, issued_ms);
        let known_ms = story.tell_late("buyer_credentials", issued_ms, json, late_ms);
        if number == 1 {
            story.again();
        }
        story.look_alike_withdrawn(P6, &id, sold_ms, known_ms);
    }
    // Renewed between two sales.
    for begin in story.times(1, 40 * MINUTE) {
        let buyer = story.name("b-", 8);
        let renewed_ms = begin + 10 * MINUTE;
        entitle(story, &buyer, "condition", story.start_ms, None);
        entitle(story, &buyer, "condition", renewed_ms, None);
        entitle(story, &buyer, "condition", story.start_ms, Some(renewed_ms));
        for ts in [begin, renewed_ms + 5 * MINUTE] {
            let (id, sold_ms) = sell(story, &buyer, "insulin", ts);
            story.look_alike(P6, &id, sold_ms);
        }
    }
    // Sold before the revocation, and told after it.
    for begin in story.times(1, 40 * MINUTE) {
        let (buyer, id) = (story.name("b-", 8), story.name("v-", 10));
        entitle(story, &buyer, "age", story.start_ms, None);
        entitle(story, &buyer, "age", story.start_ms, Some(begin + 3 * MINUTE));
        let last_ms = story.tell_late("sales", begin, sale(&id, &buyer, "codeine", begin), 9 * MINUTE);
        story.look_alike(P6, &id, last_ms);
    }
}

/// Tells a buyer's credential, or its revocation.
fn entitle(story: &mut Story, buyer: &str, kind: &str, valid_from: i64, revoked_at: Option<i64>) {
    let ts = revoked_at.unwrap_or(valid_from);
    story.tell_late("buyer_credentials", ts, credential(buyer, kind, valid_from, revoked_at, ts), SECOND);
}

/// Tells a sale. Returns its id and arrival.
fn sell(story: &mut Story, buyer: &str, product: &str, ts: i64) -> (String, i64) {
    let id = story.name("v-", 10);
    let sold_ms = story.tell("sales", ts, sale(&id, buyer, product, ts));
    (id, sold_ms)
}

fn authenticity(serial: impl Display, ts: i64) -> String {
    format!(r#"{{"serial":"{serial}","maker":"tide-pharma","ts":{ts}}}"#)
}

fn pack(serial: impl Display, site: impl Display, step: &str, ts: i64) -> String {
    format!(r#"{{"serial":"{serial}","site":"{site}","step":"{step}","ts":{ts}}}"#)
}

fn sale(id: impl Display, buyer: impl Display, product: &str, ts: i64) -> String {
    format!(r#"{{"sale_id":"{id}","buyer":"{buyer}","product":"{product}","ts":{ts}}}"#)
}

fn credential(buyer: impl Display, kind: &str, valid_from: i64, revoked_at: Option<i64>, ts: i64) -> String {
    let revoked_at = revoked_at.map_or("null".to_owned(), |at| at.to_string());
    format!(r#"{{"buyer":"{buyer}","kind":"{kind}","valid_from":{valid_from},"revoked_at":{revoked_at},"ts":{ts}}}"#)
}

pub fn clean_authenticity(_: &Scale, case: u64, ts: i64) -> String {
    authenticity(format_args!("s-{:010}", case * 2), ts)
}

pub fn clean_received(_: &Scale, case: u64, ts: i64) -> String {
    clean_pack(case, "received", ts)
}

pub fn clean_dispensed(_: &Scale, case: u64, ts: i64) -> String {
    clean_pack(case, "dispensed", ts)
}

fn clean_pack(case: u64, step: &str, ts: i64) -> String {
    pack(format_args!("s-{:010}", case * 2), format_args!("ph-{:04}", case % SITES * 2), step, ts)
}

/// What a case of the background buys, where that needs a credential.
fn clean_restricted(case: u64) -> Option<(&'static str, &'static str)> {
    case.is_multiple_of(RESTRICTED_EVERY).then(|| RESTRICTED[(case / RESTRICTED_EVERY % 3) as usize])
}

/// For each [`RESTRICTED_EVERY`]-th case.
pub fn clean_buyer_credential(_: &Scale, case: u64, ts: i64) -> String {
    let needs = clean_restricted(case).map_or("age", |(_, needs)| needs);
    credential(format_args!("b-{:08}", case * 2), needs, ts, None, ts)
}

pub fn clean_sale(_: &Scale, case: u64, ts: i64) -> String {
    let product = clean_restricted(case).map_or(FREE[(case % 3) as usize], |(product, _)| product);
    sale(format_args!("v-{:010}", case * 2), format_args!("b-{:08}", case * 2), product, ts)
}
