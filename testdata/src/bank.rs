//! The bank: orders, payments and what customers do on its site.
//!
//! B1 card testing, B2 account takeover, B3 process bypass.

use std::fmt::Display;

use crate::background::Scale;
use crate::story::{MINUTE, SECOND, Scenario, Story};

const B1: Scenario = Scenario { id: "B1", pilot: "bank", detection: "card_testing" };
const B2: Scenario = Scenario { id: "B2", pilot: "bank", detection: "account_takeover" };
const B3: Scenario = Scenario { id: "B3", pilot: "bank", detection: "process_bypass" };

/// How far the watermark of `orders` stays behind, as in the pack.
const ORDERS_LATENESS_MS: i64 = 10 * MINUTE;

pub fn tell(story: &mut Story) {
    card_testing(story);
    account_takeover(story);
    process_bypass(story);
}

/// B1: five or more distinct cards declined for one address in five minutes.
fn card_testing(story: &mut Story) {
    let attacks = story.draw(3..=5) as usize;
    for (number, begin) in story.times(attacks, 12 * MINUTE).into_iter().enumerate() {
        let ip = story.stranger();
        let cards = story.draw(5..=9);
        let mut arrivals = Vec::new();
        for card in 0..cards {
            // All within four minutes.
            let ts = begin + card * 25 * SECOND + story.draw(0..=5 * SECOND);
            let json = declined(story, &ip, ts);
            // In each second attack a card in the middle arrives late.
            let late = number % 2 == 1 && card == 2;
            arrivals.push(if late {
                let late_ms = story.draw(4 * MINUTE..=7 * MINUTE);
                story.tell_late("payments", ts, json, late_ms)
            } else {
                story.tell("payments", ts, json)
            });
            if card % 3 == 0 {
                story.again();
            }
        }
        arrivals.sort_unstable();
        story.attack(B1, &ip, arrivals[4]);
    }

    // An office behind one address: four cards declined, each told twice.
    for begin in story.times(2, 10 * MINUTE) {
        let ip = story.stranger();
        let mut last_ms = 0;
        for card in 0..4 {
            let ts = begin + card * 40 * SECOND;
            let json = declined(story, &ip, ts);
            last_ms = story.tell("payments", ts, json);
            story.again();
        }
        story.look_alike(B1, &ip, last_ms);
    }

    // One customer, one card, nine attempts.
    for begin in story.times(1, 10 * MINUTE) {
        let ip = story.stranger();
        let (usr, card) = (story.name("u", 7), story.name("4", 15));
        let mut last_ms = 0;
        for attempt in 0..9 {
            let ts = begin + attempt * 20 * SECOND;
            let row = Payment { usr: &usr, ip: &ip, card: &card, cents: 4_999, status: "declined" };
            let (id, order_id) = (story.name("p-", 10), story.name("o-", 10));
            last_ms = story.tell("payments", ts, payment(&id, &order_id, &row, ts));
        }
        story.look_alike(B1, &ip, last_ms);
    }

    // A shop's terminal: seven cards declined over more than half an hour.
    for begin in story.times(1, 50 * MINUTE) {
        let ip = story.stranger();
        let mut last_ms = 0;
        for card in 0..7 {
            let ts = begin + card * 6 * MINUTE;
            let json = declined(story, &ip, ts);
            last_ms = story.tell("payments", ts, json);
        }
        story.look_alike(B1, &ip, last_ms);
    }
}

/// A declined payment with a card and a customer of its own.
fn declined(story: &mut Story, ip: &str, ts: i64) -> String {
    let (usr, card) = (story.name("u", 7), story.name("4", 15));
    let (id, order_id) = (story.name("p-", 10), story.name("o-", 10));
    let cents = story.draw(100..=900);
    let row = Payment { usr: &usr, ip, card: &card, cents: cents as u64, status: "declined" };
    payment(&id, &order_id, &row, ts)
}

/// B2: new device, password reset, new payee, transfer, in half an hour.
fn account_takeover(story: &mut Story) {
    const TAKEOVER: [&str; 4] = ["new_device", "password_reset", "new_payee", "transfer"];
    let attacks = story.draw(3..=4) as usize;
    for (number, begin) in story.times(attacks, 40 * MINUTE).into_iter().enumerate() {
        let usr = story.name("u", 7);
        // In each second takeover the reset is told after the transfer.
        let late = (number % 2 == 1).then_some(1);
        let last_ms = session(story, &usr, begin, &TAKEOVER, 7 * MINUTE, late);
        story.attack(B2, &usr, last_ms);
    }

    // A new phone, set up for the first time: nothing is transferred.
    // A customer who pays a known payee from a new device.
    // A transfer that came before the payee was added.
    for actions in [
        &["new_device", "password_reset", "new_payee", "browse"][..],
        &["new_device", "password_reset", "transfer", "browse"],
        &["new_device", "password_reset", "transfer", "new_payee"],
    ] {
        for begin in story.times(1, 40 * MINUTE) {
            let usr = story.name("u", 7);
            let last_ms = session(story, &usr, begin, actions, 6 * MINUTE, None);
            story.look_alike(B2, &usr, last_ms);
        }
    }
    // All four steps, unhurried.
    for begin in story.times(1, 65 * MINUTE) {
        let usr = story.name("u", 7);
        let last_ms = session(story, &usr, begin, &TAKEOVER, 19 * MINUTE, None);
        story.look_alike(B2, &usr, last_ms);
    }
}

/// Tells `actions` of one customer, at least half and at most the whole of
/// `pace_ms` apart, each second one twice. `late`: the one that arrives
/// minutes late. Returns the last arrival.
fn session(story: &mut Story, usr: &str, begin: i64, actions: &[&str], pace_ms: i64, late: Option<usize>) -> i64 {
    let ip = story.stranger();
    let device = story.name("d", 8);
    let mut ts = begin;
    let mut last_ms = 0;
    for (step, action) in actions.iter().enumerate() {
        let json = web_event(usr, &ip, &device, action, ts);
        let arrival_ms =
            if late == Some(step) { story.tell_late("web_events", ts, json, 9 * MINUTE) } else { story.tell("web_events", ts, json) };
        if step % 2 == 1 {
            story.again();
        }
        last_ms = last_ms.max(arrival_ms);
        ts += story.draw(pace_ms * 9 / 10..=pace_ms);
    }
    last_ms
}

/// B3: a payment approved without an order, or over another amount.
fn process_bypass(story: &mut Story) {
    for (number, begin) in story.times(4, 15 * MINUTE).into_iter().enumerate() {
        let cents = story.draw(20_000..=90_000) as u64;
        let (id, order_id) = (story.name("p-", 10), story.name("o-", 10));
        if number % 2 == 0 {
            let paid_ms = approve(story, &id, &order_id, cents, begin);
            story.again();
            // Settled when orders of that time can no longer come.
            story.attack(B3, &id, paid_ms.max(begin + ORDERS_LATENESS_MS));
        } else {
            let usr = story.name("u", 7);
            let ordered_ms = story.tell("orders", begin, order(&order_id, &usr, cents, begin));
            let paid_ms = approve(story, &id, &order_id, cents / 10, begin + 30 * SECOND);
            story.attack(B3, &id, ordered_ms.max(paid_ms));
        }
    }

    // The order is told minutes after its payment.
    for begin in story.times(2, 15 * MINUTE) {
        let cents = story.draw(2_000..=90_000) as u64;
        let (id, order_id) = (story.name("p-", 10), story.name("o-", 10));
        let usr = story.name("u", 7);
        approve(story, &id, &order_id, cents, begin + 20 * SECOND);
        let late_ms = story.draw(5 * MINUTE..=8 * MINUTE);
        let json = order(&order_id, &usr, cents, begin);
        let last_ms = story.tell_late("orders", begin, json, late_ms);
        story.again();
        story.look_alike(B3, &id, last_ms);
    }
    // No order, but the payment was declined.
    for begin in story.times(1, 15 * MINUTE) {
        let (id, order_id) = (story.name("p-", 10), story.name("o-", 10));
        let (usr, card, ip) = (story.name("u", 7), story.name("4", 15), story.stranger());
        let row = Payment { usr: &usr, ip: &ip, card: &card, cents: 7_500, status: "declined" };
        let last_ms = story.tell("payments", begin, payment(&id, &order_id, &row, begin));
        story.look_alike(B3, &id, last_ms);
    }
}

/// Tells an approved payment by a customer of its own. Returns its arrival.
fn approve(story: &mut Story, id: &str, order_id: &str, cents: u64, ts: i64) -> i64 {
    let (usr, card, ip) = (story.name("u", 7), story.name("4", 15), story.stranger());
    let row = Payment { usr: &usr, ip: &ip, card: &card, cents, status: "approved" };
    story.tell("payments", ts, payment(id, order_id, &row, ts))
}

struct Payment<U, I, C> {
    usr: U,
    ip: I,
    card: C,
    cents: u64,
    status: &'static str,
}

fn order(order_id: impl Display, usr: impl Display, cents: u64, ts: i64) -> String {
    format!(r#"{{"order_id":"{order_id}","usr":"{usr}","amount":{}.{:02},"ts":{ts}}}"#, cents / 100, cents % 100)
}

fn payment<U: Display, I: Display, C: Display>(
    payment_id: impl Display,
    order_id: impl Display,
    row: &Payment<U, I, C>,
    ts: i64,
) -> String {
    let Payment { usr, ip, card, cents, status } = row;
    format!(
        concat!(r#"{{"payment_id":"{}","order_id":"{}","usr":"{}","ip":"{}","card":"{}","#, r#""amount":{}.{:02},"status":"{}","ts":{}}}"#),
        payment_id,
        order_id,
        usr,
        ip,
        card,
        cents / 100,
        cents % 100,
        status,
        ts
    )
}

fn web_event(usr: impl Display, ip: impl Display, device: impl Display, action: &str, ts: i64) -> String {
    format!(r#"{{"usr":"{usr}","ip":"{ip}","device":"{device}","action":"{action}","ts":{ts}}}"#)
}

/// A customer of the background. Everything of theirs follows from a number,
/// so no two share an address or a card.
struct Customer(u64);

impl Customer {
    fn of_case(scale: &Scale, case: u64) -> Customer {
        Customer(case % scale.users)
    }

    fn usr(&self) -> impl Display + use<> {
        Padded("u", self.0 * 2, 7)
    }

    fn ip(&self) -> impl Display + use<> {
        Ip(self.0 as u32 & 0xFF_FFFF)
    }

    fn card(&self) -> impl Display + use<> {
        Padded("4", self.0 * 7_368_786 * 2, 15)
    }

    fn device(&self) -> impl Display + use<> {
        Padded("d", self.0 * 6, 8)
    }
}

/// A prefix and a number of at least so many digits.
struct Padded(&'static str, u64, usize);

impl Display for Padded {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}{:0width$}", self.0, self.1, width = self.2)
    }
}

/// An address of the customers' network.
struct Ip(u32);

impl Display for Ip {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "10.{}.{}.{}", self.0 >> 16, (self.0 >> 8) & 0xFF, self.0 & 0xFF)
    }
}

fn clean_cents(scale: &Scale, case: u64) -> u64 {
    500 + scale.bits(2, case) % 29_500
}

pub fn clean_order(scale: &Scale, case: u64, ts: i64) -> String {
    let customer = Customer::of_case(scale, case);
    order(Padded("o-", case * 2, 10), customer.usr(), clean_cents(scale, case), ts)
}

pub fn clean_payment(scale: &Scale, case: u64, ts: i64) -> String {
    clean_attempt(scale, case, "approved", ts)
}

/// The first attempt of a few: the wrong code, then the right one.
pub fn clean_decline(scale: &Scale, case: u64, ts: i64) -> String {
    clean_attempt(scale, case, "declined", ts)
}

fn clean_attempt(scale: &Scale, case: u64, status: &'static str, ts: i64) -> String {
    let customer = Customer::of_case(scale, case);
    let row = Payment { usr: customer.usr(), ip: customer.ip(), card: customer.card(), cents: clean_cents(scale, case), status };
    // Two attempts, two ids.
    let id = case * 4 + if status == "approved" { 0 } else { 2 };
    payment(Padded("p-", id, 10), Padded("o-", case * 2, 10), &row, ts)
}

pub fn clean_login(scale: &Scale, case: u64, ts: i64) -> String {
    clean_action(scale, case, "login", ts)
}

pub fn clean_browse(scale: &Scale, case: u64, ts: i64) -> String {
    clean_action(scale, case, "browse", ts)
}

/// One step of a takeover, by itself: each is harmless.
pub fn clean_errand(scale: &Scale, case: u64, ts: i64) -> String {
    let errands = ["transfer", "password_reset", "new_payee", "new_device"];
    clean_action(scale, case, errands[(case / 8 % 4) as usize], ts)
}

fn clean_action(scale: &Scale, case: u64, action: &str, ts: i64) -> String {
    let customer = Customer::of_case(scale, case);
    web_event(customer.usr(), customer.ip(), customer.device(), action, ts)
}
