//! Logs that were anchored by their hash when closed, and audited later.
//!
//! X2 log tampering.

use std::fmt::Display;

use crate::background::{Scale, digest};
use crate::story::{MINUTE, Scenario, Story};

const X2: Scenario = Scenario { id: "X2", pilot: "combined", detection: "log_tampering" };

/// From a log's anchor to its audit.
pub const AUDITED_MS: i64 = 25 * MINUTE;

/// Whose logs; the pack's `log_owners` knows them.
const OWNERS: [&str; 3] = ["bank/gateway", "pharma/portal", "logistics/scans"];

pub fn tell(story: &mut Story) {
    // Changed after it was anchored. In each second case it was anchored anew to
    // cover that, and the first anchor is told last.
    for (number, begin) in story.times(3, 50 * MINUTE).into_iter().enumerate() {
        let (log, hashes) = (log(story), [hash(story), hash(story)]);
        let anchored = hashed(&log, &hashes[0], begin);
        let known_ms = match number % 2 == 1 {
            true => {
                let ts = begin + 10 * MINUTE;
                story.tell("log_anchors", ts, hashed(&log, &hashes[1], ts));
                story.tell_late("log_anchors", begin, anchored, 40 * MINUTE)
            }
            false => story.tell("log_anchors", begin, anchored),
        };
        story.again();
        let audited_ms = audit(story, &log, &hashes[1], begin + AUDITED_MS);
        story.again();
        story.attack(X2, &log, known_ms.max(audited_ms));
    }

    // An auditor who writes in capitals.
    for begin in story.times(1, 30 * MINUTE) {
        let (log, sha256) = (log(story), hash(story));
        story.tell("log_anchors", begin, hashed(&log, &sha256, begin));
        let last_ms = audit(story, &log, &sha256.to_uppercase(), begin + AUDITED_MS);
        story.look_alike(X2, &log, last_ms);
    }
    // Audited while it was still being written.
    for begin in story.times(1, 30 * MINUTE) {
        let (log, hashes) = (log(story), [hash(story), hash(story)]);
        audit(story, &log, &hashes[0], begin);
        let ts = begin + 10 * MINUTE;
        let last_ms = story.tell("log_anchors", ts, hashed(&log, &hashes[1], ts));
        audit(story, &log, &hashes[1], ts + AUDITED_MS / 2);
        story.look_alike(X2, &log, last_ms);
    }
}

fn log(story: &mut Story) -> String {
    let owner = story.pick(&OWNERS);
    story.name(&format!("{owner}-"), 8)
}

fn hash(story: &mut Story) -> String {
    digest(story.draw(1 << 40..=1 << 60) as u64)
}

fn audit(story: &mut Story, log: &str, sha256: &str, ts: i64) -> i64 {
    story.tell("log_audits", ts, hashed(log, sha256, ts))
}

/// An anchor and an audit say the same things.
fn hashed(log: impl Display, sha256: &str, ts: i64) -> String {
    format!(r#"{{"log":"{log}","sha256":"{sha256}","ts":{ts}}}"#)
}

/// A log's anchor, and its audit.
pub fn clean_hashed(scale: &Scale, case: u64, ts: i64) -> String {
    let owner = OWNERS[(case % 3) as usize];
    hashed(format_args!("{owner}-{:08}", case * 2), &digest(scale.bits(22, case)), ts)
}
