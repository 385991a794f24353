//! Checkout pages: the scripts that they serve, and those that were released.
//!
//! B4 web skimmer.

use std::fmt::Display;

use crate::background::{Scale, digest};
use crate::story::{MINUTE, Scenario, Story};

const B4: Scenario = Scenario { id: "B4", pilot: "bank", detection: "web_skimmer" };

const SCRIPTS: [&str; 3] = ["checkout.js", "consent.js", "fields.js"];

/// Merchants' pages in the background.
const PAGES: u64 = 60;

/// The first version of each script is out before any page is looked at.
pub const FIRST_LOOK_MS: i64 = 2 * MINUTE;

pub fn tell(story: &mut Story) {
    for (script, name) in SCRIPTS.into_iter().enumerate() {
        let json = release(name, &version(script, 0), story.start_ms);
        story.tell_late("releases", story.start_ms, json, 0);
    }
    skimmer(story);
    released(story);
}

/// B4: a page serves bytes that nobody released under that script's name.
fn skimmer(story: &mut Story) {
    for (number, begin) in story.times(3, 30 * MINUTE).into_iter().enumerate() {
        let page = story.name("m-", 4);
        // Once, the bytes of another script.
        let (script, sha256) = if number == 2 { (SCRIPTS[0], version(2, 0)) } else { (story.pick(&SCRIPTS), unreleased(story)) };
        let mut first_ms = i64::MAX;
        for look in 0..3 {
            let ts = begin + look * 5 * MINUTE;
            let json = page_hash(&page, script, &sha256, ts);
            // In each second attack the first look is told after the second.
            let arrival_ms = match number % 2 == 1 && look == 0 {
                true => story.tell_late("page_hashes", ts, json, 7 * MINUTE),
                false => story.tell("page_hashes", ts, json),
            };
            first_ms = first_ms.min(arrival_ms);
            if look == 1 {
                story.again();
            }
        }
        story.attack(B4, &page, first_ms);
    }
}

/// What looks like B4 and is not.
fn released(story: &mut Story) {
    // A new release is served before its build reports: found, and withdrawn
    // when it does.
    for (number, begin) in story.times(2, 50 * MINUTE).into_iter().enumerate() {
        let page = story.name("m-", 4);
        let (script, sha256) = (story.pick(&SCRIPTS), unreleased(story));
        let ts = begin + 2 * MINUTE;
        let first_ms = story.tell("page_hashes", ts, page_hash(&page, script, &sha256, ts));
        story.again();
        let late_ms = story.draw(20 * MINUTE..=40 * MINUTE);
        let known_ms = story.tell_late("releases", begin, release(script, &sha256, begin), late_ms);
        if number == 1 {
            story.again();
        }
        story.look_alike_withdrawn(B4, &page, first_ms, known_ms);
    }
    // The release before the last, out of a cache.
    for begin in story.times(2, 30 * MINUTE) {
        let page = story.name("m-", 4);
        let script = story.draw(0..=2) as usize;
        let sha256 = unreleased(story);
        story.tell("releases", begin, release(SCRIPTS[script], &sha256, begin));
        let ts = begin + 10 * MINUTE;
        let last_ms = story.tell("page_hashes", ts, page_hash(&page, SCRIPTS[script], &version(script, 0), ts));
        story.again();
        story.look_alike(B4, &page, last_ms);
    }
}

/// The bytes of a version, numbered from 0; the background knows no more than a
/// million of each.
fn version(script: usize, number: u64) -> String {
    digest(script as u64 * 1_000_000 + number)
}

/// Bytes that no version has.
fn unreleased(story: &mut Story) -> String {
    digest(story.draw(1 << 40..=1 << 60) as u64)
}

fn page_hash(page: impl Display, script: &str, sha256: &str, ts: i64) -> String {
    format!(r#"{{"page":"{page}","script":"{script}","sha256":"{sha256}","ts":{ts}}}"#)
}

fn release(script: &str, sha256: &str, ts: i64) -> String {
    format!(r#"{{"script":"{script}","sha256":"{sha256}","ts":{ts}}}"#)
}

/// A look at a page that serves the first version, as caches do.
pub fn clean_page_hash(_: &Scale, case: u64, ts: i64) -> String {
    let script = (case / PAGES % 3) as usize;
    page_hash(format_args!("m-{:04}", case % PAGES * 2), SCRIPTS[script], &version(script, 0), ts)
}

/// A new version.
pub fn clean_release(_: &Scale, case: u64, ts: i64) -> String {
    let script = (case % 3) as usize;
    release(SCRIPTS[script], &version(script, 1 + case / 3), ts)
}
