//! The bank's people and machines: what clerks do to accounts, what cash
//! machines do, and what the host lets them pay.
//!
//! B5 insider, B6 cash machine emptied.

use std::fmt::Display;

use crate::background::{LATE_MS_MIN, Scale};
use crate::story::{MINUTE, SECOND, Scenario, Story};

const B5: Scenario = Scenario { id: "B5", pilot: "bank", detection: "insider_refund" };
const B6: Scenario = Scenario { id: "B6", pilot: "bank", detection: "atm_jackpotting" };

/// How far the watermark of `host_authorisations` stays behind, as in the pack.
const HOST_LATENESS_MS: i64 = 2 * MINUTE;

/// As late as a machine or the host is in the background.
pub const ATM_LATE_MS_MAX: i64 = LATE_MS_MIN + 30 * SECOND;

/// Cash machines and clerks of the background.
const ATMS: u64 = 400;
const CLERKS: u64 = 50;

pub fn tell(story: &mut Story) {
    insider(story);
    jackpotting(story);
    busy_machines(story);
}

/// B5: one clerk edits an account's IBAN, then refunds to that account.
fn insider(story: &mut Story) {
    for (number, begin) in story.times(3, 30 * MINUTE).into_iter().enumerate() {
        let (clerk, account) = (story.name("k-", 4), story.name("a-", 8));
        // In each second case the edit is told after the refund.
        let edit = back_office(&clerk, &account, "iban_edit", begin);
        let edit_ms = match number % 2 == 1 {
            true => story.tell_late("back_office", begin, edit, 9 * MINUTE),
            false => story.tell("back_office", begin, edit),
        };
        story.again();
        let ts = begin + story.draw(3 * MINUTE..=8 * MINUTE);
        let refund_ms = story.tell("back_office", ts, back_office(&clerk, &account, "refund", ts));
        story.again();
        story.attack(B5, &clerk, edit_ms.max(refund_ms));
    }

    // Four eyes; another account; a refund that came first.
    for begin in story.times(2, 30 * MINUTE) {
        let (account, clerks) = (story.name("a-", 8), [story.name("k-", 4), story.name("k-", 4)]);
        let edit_ms = step(story, &clerks[0], &account, "iban_edit", begin);
        let refund_ms = step(story, &clerks[1], &account, "refund", begin + 9 * MINUTE);
        story.look_alike(B5, &clerks[0], edit_ms);
        story.look_alike(B5, &clerks[1], refund_ms);
    }
    for begin in story.times(1, 30 * MINUTE) {
        let (clerk, accounts) = (story.name("k-", 4), [story.name("a-", 8), story.name("a-", 8)]);
        step(story, &clerk, &accounts[0], "iban_edit", begin);
        let last_ms = step(story, &clerk, &accounts[1], "refund", begin + 9 * MINUTE);
        story.look_alike(B5, &clerk, last_ms);
    }
    for begin in story.times(1, 30 * MINUTE) {
        let (clerk, account) = (story.name("k-", 4), story.name("a-", 8));
        step(story, &clerk, &account, "refund", begin);
        let last_ms = step(story, &clerk, &account, "iban_edit", begin + 9 * MINUTE);
        story.look_alike(B5, &clerk, last_ms);
    }
}

fn step(story: &mut Story, clerk: &str, account: &str, action: &str, ts: i64) -> i64 {
    story.tell("back_office", ts, back_office(clerk, account, action, ts))
}

/// B6: drilled, opened and made to pay within a minute.
fn jackpotting(story: &mut Story) {
    for (number, begin) in story.times(3, 10 * MINUTE).into_iter().enumerate() {
        let atm = story.name("t-", 5);
        // In each second case word of the drilling comes after the pay-out.
        let drilled = atm_event(&atm, "vibration", None, begin);
        let drilled_ms = match number % 2 == 1 {
            true => story.tell_late("atm_events", begin, drilled, 80 * SECOND),
            false => story.tell("atm_events", begin, drilled),
        };
        let opened_ms = at_machine(story, &atm, "door_open", begin + 20 * SECOND);
        let ts = begin + story.draw(35 * SECOND..=55 * SECOND);
        let paid_ms = pay(story, &atm, ts);
        story.again();
        pay(story, &atm, ts + 15 * SECOND);
        // Settled when authorisations of that time can no longer come.
        story.attack(B6, &atm, drilled_ms.max(opened_ms).max(paid_ms).max(ts + HOST_LATENESS_MS));
    }
}

/// What looks like B6 and is not.
fn busy_machines(story: &mut Story) {
    // A technician's test; word of the host comes after it.
    for begin in story.times(2, 10 * MINUTE) {
        let atm = story.name("t-", 5);
        at_machine(story, &atm, "door_open", begin);
        at_machine(story, &atm, "vibration", begin + 12 * SECOND);
        let (txn, ts) = (story.name("x", 10), begin + 40 * SECOND);
        story.tell("atm_events", ts, atm_event(&atm, "dispense", Some(&txn), ts));
        story.again();
        let json = authorisation(&atm, &txn, ts - 4 * SECOND);
        let last_ms = story.tell_late("host_authorisations", ts - 4 * SECOND, json, 80 * SECOND);
        story.again();
        story.look_alike(B6, &atm, last_ms);
    }
    // A guard at the door, and a lorry; nothing is paid.
    for begin in story.times(1, 10 * MINUTE) {
        let atm = story.name("t-", 5);
        at_machine(story, &atm, "door_open", begin);
        at_machine(story, &atm, "vibration", begin + 5 * SECOND);
        let last_ms = at_machine(story, &atm, "door_closed", begin + 50 * SECOND);
        story.look_alike(B6, &atm, last_ms + HOST_LATENESS_MS);
    }
    // The line to the host is cut, and the machine pays by itself.
    for begin in story.times(1, 10 * MINUTE) {
        let atm = story.name("t-", 5);
        let last_ms = pay(story, &atm, begin);
        story.look_alike(B6, &atm, last_ms + HOST_LATENESS_MS);
    }
    // The same, after a door that was opened two minutes before.
    for begin in story.times(1, 15 * MINUTE) {
        let atm = story.name("t-", 5);
        at_machine(story, &atm, "vibration", begin);
        at_machine(story, &atm, "door_open", begin + 30 * SECOND);
        let last_ms = pay(story, &atm, begin + 150 * SECOND);
        story.look_alike(B6, &atm, last_ms + HOST_LATENESS_MS);
    }
}

fn at_machine(story: &mut Story, atm: &str, kind: &str, ts: i64) -> i64 {
    story.tell("atm_events", ts, atm_event(atm, kind, None, ts))
}

/// Tells a dispense that nobody authorised.
fn pay(story: &mut Story, atm: &str, ts: i64) -> i64 {
    let txn = story.name("x", 10);
    story.tell("atm_events", ts, atm_event(atm, "dispense", Some(&txn), ts))
}

fn back_office(clerk: impl Display, account: impl Display, action: &str, ts: i64) -> String {
    format!(r#"{{"clerk":"{clerk}","account":"{account}","action":"{action}","ts":{ts}}}"#)
}

fn atm_event(atm: impl Display, kind: &str, txn: Option<&str>, ts: i64) -> String {
    let txn = txn.map_or("null".to_owned(), |txn| format!("\"{txn}\""));
    format!(r#"{{"atm":"{atm}","kind":"{kind}","txn":{txn},"ts":{ts}}}"#)
}

fn authorisation(atm: impl Display, txn: &str, ts: i64) -> String {
    format!(r#"{{"atm":"{atm}","txn":"{txn}","ts":{ts}}}"#)
}

/// Each account has one case only.
pub fn clean_back_office(_: &Scale, case: u64, ts: i64) -> String {
    let action = match case % 8 {
        3 => "iban_edit",
        5 => "refund",
        _ => "view",
    };
    back_office(format_args!("k-{:04}", case % CLERKS * 2), format_args!("a-{:08}", case * 2), action, ts)
}

fn clean_atm(case: u64) -> String {
    format!("t-{:05}", case % ATMS * 2)
}

pub fn clean_authorisation(_: &Scale, case: u64, ts: i64) -> String {
    authorisation(clean_atm(case), &format!("x{:010}", case * 2), ts)
}

pub fn clean_dispense(_: &Scale, case: u64, ts: i64) -> String {
    atm_event(clean_atm(case), "dispense", Some(&format!("x{:010}", case * 2)), ts)
}

/// A tram, a lorry, an impatient customer.
pub fn clean_vibration(_: &Scale, case: u64, ts: i64) -> String {
    atm_event(clean_atm(case), "vibration", None, ts)
}

/// Filled up, after a customer.
pub fn clean_door_open(_: &Scale, case: u64, ts: i64) -> String {
    atm_event(clean_atm(case), "door_open", None, ts)
}

pub fn clean_door_closed(_: &Scale, case: u64, ts: i64) -> String {
    atm_event(clean_atm(case), "door_closed", None, ts)
}
