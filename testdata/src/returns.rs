//! Refunds for what came back to the carrier, with what it weighed.
//!
//! L5 returns fraud.

use std::fmt::Display;

use crate::background::Scale;
use crate::story::{MINUTE, Scenario, Story};

const L5: Scenario = Scenario { id: "L5", pilot: "logistics", detection: "returns_fraud" };

pub fn tell(story: &mut Story) {
    // A brick instead of the goods, or nothing at all.
    for (number, begin) in story.times(2, 15 * MINUTE).into_iter().enumerate() {
        let usr = story.name("u", 7);
        let sent = story.draw(800..=3_000);
        let returned = if number == 0 { sent * 13 / 10 } else { sent / 5 };
        let found_ms = refund_to(story, &usr, sent, Some(returned), begin);
        story.again();
        story.attack(L5, &usr, found_ms);
    }
    // Three refunds; of the second we hear last.
    for begin in story.times(2, 40 * MINUTE) {
        let usr = story.name("u", 7);
        let first_ms = refund_to(story, &usr, 900, Some(900), begin);
        let (id, parcel) = (story.name("f-", 8), parcel(story));
        let ts = begin + 10 * MINUTE;
        let second_ms = story.tell_late("refunds", ts, refund(&id, &usr, &parcel, 700, Some(690), ts), 8 * MINUTE);
        story.again();
        let third_ms = refund_to(story, &usr, 500, Some(505), begin + 14 * MINUTE);
        story.attack(L5, &usr, first_ms.max(second_ms).max(third_ms));
    }

    // Another wrapping: a tenth, and no more.
    for begin in story.times(1, 15 * MINUTE) {
        let usr = story.name("u", 7);
        refund_to(story, &usr, 1_000, Some(900), begin);
        let last_ms = refund_to(story, &usr, 1_000, Some(1_100), begin + 5 * MINUTE);
        story.look_alike(L5, &usr, last_ms);
    }
    // Two refunds, each told twice.
    for begin in story.times(1, 15 * MINUTE) {
        let usr = story.name("u", 7);
        refund_to(story, &usr, 600, Some(600), begin);
        story.again();
        let last_ms = refund_to(story, &usr, 600, Some(590), begin + 5 * MINUTE);
        story.again();
        story.look_alike(L5, &usr, last_ms);
    }
    // Lost on the way, so never weighed.
    for begin in story.times(1, 15 * MINUTE) {
        let usr = story.name("u", 7);
        let last_ms = refund_to(story, &usr, 2_000, None, begin);
        story.look_alike(L5, &usr, last_ms);
    }
}

/// Tells a refund of its own. Returns its arrival.
fn refund_to(story: &mut Story, usr: &str, sent: i64, returned: Option<i64>, ts: i64) -> i64 {
    let (id, parcel) = (story.name("f-", 8), parcel(story));
    story.tell("refunds", ts, refund(&id, usr, &parcel, sent, returned, ts))
}

fn parcel(story: &mut Story) -> String {
    let region = story.pick(&["AMS", "BRU", "CGN", "LIL"]);
    story.name(&format!("{region}-"), 8)
}

fn refund(id: impl Display, usr: impl Display, parcel: impl Display, sent: i64, returned: Option<i64>, ts: i64) -> String {
    let returned = returned.map_or("null".to_owned(), |grams| grams.to_string());
    format!(r#"{{"refund_id":"{id}","usr":"{usr}","parcel":"{parcel}","sent_grams":{sent},"returned_grams":{returned},"ts":{ts}}}"#)
}

/// Each customer has one case only, and a scale that errs by up to a twentieth.
pub fn clean_refund(scale: &Scale, case: u64, ts: i64) -> String {
    let bits = scale.bits(21, case);
    let sent = 200 + (bits % 4_800) as i64;
    let returned = sent * (950 + (bits >> 16) as i64 % 101) / 1_000;
    let number = case * 2;
    refund(format_args!("f-{number:08}"), format_args!("r{number:07}"), format_args!("AMS-9{number:07}"), sent, Some(returned), ts)
}
