//! What joins the pilots: threat intelligence, and the attack that crosses
//! from a phishing address over the shipper's portal into a reefer.
//!
//! X1 reefer sabotage.

use std::ops::RangeFrom;

use crate::background::Scale;
use crate::pharma::{Model, Trip, administrator, portal_login, setpoint};
use crate::story::{MINUTE, Scenario, Story};

const X1: Scenario = Scenario { id: "X1", pilot: "combined", detection: "reefer_sabotage" };
const P1: Scenario = Scenario { id: "P1", pilot: "pharma", detection: "temperature_excursion" };

/// How the chain of one telling differs from the attack.
#[derive(Clone, Copy, PartialEq)]
enum Chain {
    /// Indicator, login, set point, excursion.
    Whole,
    /// The same, but the indicator is published when all is over.
    IndicatorLast,
    /// A listed address knocked and was refused; then the administrator, at
    /// their own desk, mistyped the set point.
    Refused,
    /// A listed address entered (an exit node others use, too), and the set
    /// point was corrected within what the product bears.
    Harmless,
    /// No listed address at all; the set point was mistyped.
    Mistyped,
}

pub fn tell(story: &mut Story) {
    // Each telling has an administrator of its own: one who is attacked here and
    // mistypes there, within the hour, would rightly be found.
    let mut administrators = story.draw(0..=19) as u64..;
    let attacks = story.draw(2..=3) as usize;
    for (number, begin) in story.times(attacks, 85 * MINUTE).into_iter().enumerate() {
        let chain = if number == 1 { Chain::IndicatorLast } else { Chain::Whole };
        tell_chain(story, chain, &mut administrators, begin);
    }
    for chain in [Chain::Refused, Chain::Harmless, Chain::Mistyped] {
        for begin in story.times(1, 75 * MINUTE) {
            tell_chain(story, chain, &mut administrators, begin);
        }
    }
}

fn tell_chain(story: &mut Story, chain: Chain, administrators: &mut RangeFrom<u64>, begin: i64) {
    let mut trip = Trip::new(story, Model::Quarterly);
    let (usr, desk) = administrator(administrators.next().expect("numbers do not end"));
    let stranger = story.stranger();
    let edit_ts = begin + story.draw(8 * MINUTE..=14 * MINUTE);
    let first = trip.reading_at(edit_ts + 15 * MINUTE);

    let mut known_ms = begin;
    if chain != Chain::Mistyped {
        let listed_ts = match chain {
            Chain::IndicatorLast => trip.reading_ms(first + 1) + story.draw(5 * MINUTE..=15 * MINUTE),
            _ => begin - 5 * MINUTE,
        };
        known_ms = story.tell("ioc", listed_ts, indicator(&stranger, "ip", listed_ts));
        story.again();
        let outcome = if chain == Chain::Refused { "failure" } else { "success" };
        let login = portal_login(&usr, &stranger, outcome, begin);
        known_ms = known_ms.max(story.tell("auth_log", begin, login));
    }
    if matches!(chain, Chain::Refused | Chain::Mistyped) {
        let ts = begin + 2 * MINUTE;
        story.tell("auth_log", ts, portal_login(&usr, &desk, "success", ts));
    }

    let celsius = if chain == Chain::Harmless { 4.5 } else { 12.0 };
    let edit = setpoint(&trip.shipment, &usr, celsius, edit_ts);
    known_ms = known_ms.max(story.tell("setpoints", edit_ts, edit));
    story.again();

    if chain != Chain::Harmless {
        trip.degrees.extend([(first, 8.8), (first + 1, 10.1), (first + 2, 11.0), (first + 3, 9.0)]);
        // The air cools before what lies in it.
        trip.warm = Some((edit_ts, edit_ts + 45 * MINUTE, 7.0));
    }
    let readings = trip.tell(story);
    let out_ms = readings.complete(first).max(readings.complete(first + 1));
    match chain {
        Chain::Whole | Chain::IndicatorLast => {
            story.attack(X1, &trip.shipment, known_ms.max(out_ms));
        }
        _ => story.look_alike(X1, &trip.shipment, known_ms.max(out_ms)),
    }
    if chain != Chain::Harmless {
        story.attack(P1, &trip.shipment, out_ms);
    }
}

fn indicator(indicator: &str, kind: &str, ts: i64) -> String {
    format!(r#"{{"indicator":"{indicator}","kind":"{kind}","ts":{ts}}}"#)
}

/// An indicator nobody here has met.
pub fn clean_indicator(scale: &Scale, case: u64, ts: i64) -> String {
    let bits = scale.bits(20, case);
    if bits.is_multiple_of(3) {
        indicator(&format!("parcel-{:08x}.example", bits as u32), "domain", ts)
    } else {
        let [_, b, c, d, ..] = bits.to_le_bytes();
        indicator(&format!("45.{b}.{c}.{d}"), "ip", ts)
    }
}
