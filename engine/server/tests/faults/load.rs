//! Load on a source at the HTTP door: numbered batches, as fast as they are answered, or at a pace of their own.
//!
//! Pace     closed: each connection sends the next batch once the last is answered. Open: a batch is due at
//!          its time, answered or not; one that finds no free connection for a second is withheld, and counted
//! Clients  each batch is one client's, under a key of its own. Half of the clients come again after Retry-After
//!          when they are refused, the others at once; none more than `again_max` times
//! Doubt    a batch without an answer may be in: it comes again under its key until it is answered
//! Out      [`Told`]: which batches are in, and what became of the rest
//! Errors   a thread that cannot be started

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::door::{Answer, Connection, Request};

/// Until a request counts as not answered.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Before a batch without an answer comes again.
const PAUSE: Duration = Duration::from_millis(100);

/// For so long after the end, batches in doubt come again.
const DOUBT_TIME_MAX: Duration = Duration::from_secs(120);

/// An open pace that is behind by more is not kept.
const BEHIND_MAX: Duration = Duration::from_secs(1);

const CLIENTS: u64 = 64;

/// Answers that were not foreseen, kept to be shown.
const WRONG_MAX: usize = 5;

/// There are hundreds of threads, each with a connection.
const STACK_BYTES: usize = 256 << 10;

/// The rows of batches: numbered on up to `cycle`, whole batches, and from 0 again.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    pub per_batch: u64,
    pub cycle: u64,
}

impl Rows {
    pub fn ids(self, batch: u64) -> Range<u64> {
        let first = batch * self.per_batch % self.cycle;
        first..first + self.per_batch
    }

    /// JSON lines; all of a batch happened at once. Quickly: the clients share the machine with the engine.
    pub fn body(self, batch: u64, ts_ms: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.per_batch as usize * 80);
        for id in self.ids(batch) {
            for (before, number) in
                [("{\"id\":", id), (",\"client\":\"c", id % CLIENTS), ("\",\"amount\":", amount(id)), (",\"ts\":", ts_ms)]
            {
                body.extend_from_slice(before.as_bytes());
                push(&mut body, number);
            }
            body.extend_from_slice(b"}\n");
        }
        body
    }
}

/// A number's digits. Formatting takes several times as long.
fn push(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[from..]);
}

/// A row's amount follows from its id.
pub fn amount(id: u64) -> u64 {
    id % 9973
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    Closed,
    Open { batches_per_second: f64 },
}

#[derive(Debug, Clone)]
pub struct Load {
    pub to: SocketAddr,
    pub source: &'static str,
    pub rows: Rows,
    pub connections: usize,
    pub pace: Pace,
    pub batches: Range<u64>,
    /// New batches are due for so long, if there are enough.
    pub duration: Duration,
    pub again_max: u32,
}

#[derive(Debug, Default)]
pub struct Told {
    /// Batches answered with 200.
    pub taken: Vec<u64>,
    /// Rows answered to be repeats of what was in.
    pub repeated_rows: u64,
    pub requests: u64,
    pub refusals: u64,
    /// Batches refused for good: the last answer was a refusal.
    pub given_up: u64,
    /// Batches that an open pace did not get to.
    pub withheld: u64,
    /// Requests without an answer.
    pub unanswered: u64,
    /// Batches of which nothing is known.
    pub in_doubt: u64,
    pub wrong: Vec<String>,
    /// From when it was due to be sent until its 200.
    pub latencies_ms: Vec<f64>,
    pub seconds: f64,
    pub next_batch: u64,
}

impl Told {
    pub fn batches_per_second(&self) -> f64 {
        self.taken.len() as f64 / self.seconds
    }

    /// Batches that went out at least once.
    pub fn offered(&self) -> u64 {
        self.taken.len() as u64 + self.given_up + self.in_doubt
    }

    /// The smallest latency that at least `q` of all are not above.
    pub fn latency_ms(&self, q: f64) -> f64 {
        let mut sorted = self.latencies_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn add(&mut self, other: Self) {
        self.taken.extend(other.taken);
        self.repeated_rows += other.repeated_rows;
        self.requests += other.requests;
        self.refusals += other.refusals;
        self.given_up += other.given_up;
        self.unanswered += other.unanswered;
        self.in_doubt += other.in_doubt;
        self.wrong.extend(other.wrong);
        self.wrong.truncate(WRONG_MAX);
        self.latencies_ms.extend(other.latencies_ms);
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} batches in, {} refused for good, {} withheld; {} requests, {} refusals, {} without an answer; p50 {:.1} ms, p99 {:.1} ms",
            self.taken.len(),
            self.given_up,
            self.withheld,
            self.requests,
            self.refusals,
            self.unanswered,
            self.latency_ms(0.5),
            self.latency_ms(0.99)
        )
    }
}

/// Returns when each batch that was sent is in, refused for good, or given up in doubt.
pub fn offer(load: &Load) -> std::io::Result<Told> {
    let schedule = Schedule::new(load);
    let begun = Instant::now();
    let mut told = thread::scope(|scope| {
        let started = (0..load.connections)
            .map(|_| Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || work(load, &schedule, begun)))
            .collect::<std::io::Result<Vec<_>>>()?;
        let mut told = Told::default();
        for thread in started {
            told.add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        Ok::<_, std::io::Error>(told)
    })?;
    told.seconds = begun.elapsed().as_secs_f64();
    let queue = schedule.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    (told.withheld, told.next_batch) = (queue.withheld, load.batches.start + queue.next);
    Ok(told)
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// One connection.
fn work(load: &Load, schedule: &Schedule, begun: Instant) -> Told {
    let mut connection = Connection::new(load.to, ANSWER_TIME_MAX);
    let path = format!("/v1/ingest/{}", load.source);
    let mut told = Told::default();
    while let Some(mut job) = schedule.take(begun.elapsed()) {
        thread::sleep(job.due.saturating_sub(begun.elapsed()));
        let (body, key) = (load.rows.body(job.batch, now_ms()), format!("batch-{}", job.batch));
        let request = Request { method: "POST", path: &path, kind: "application/x-ndjson", key: Some(&key), body: &body };
        told.requests += 1;
        let verdict = Verdict::of(connection.ask(&request), load.rows.per_batch, job.is_in_doubt);
        let now = begun.elapsed();
        let comes_again = match verdict {
            Verdict::Taken { repeated } => {
                told.taken.push(job.batch);
                told.repeated_rows += repeated;
                told.latencies_ms.push(now.saturating_sub(job.due).as_secs_f64() * 1000.0);
                continue;
            }
            Verdict::Wrong(what) => {
                told.in_doubt += 1;
                told.wrong.push(what);
                told.wrong.truncate(WRONG_MAX);
                continue;
            }
            Verdict::Refused(wait) => {
                told.refusals += 1;
                job.again(now + if job.is_patient() { wait } else { Duration::ZERO }, load)
            }
            Verdict::Unknown => {
                told.unanswered += 1;
                job.is_in_doubt = true;
                job.again(now + PAUSE, load)
            }
        };
        match (comes_again, job.is_in_doubt) {
            (true, _) => schedule.again(job),
            (false, true) => told.in_doubt += 1,
            (false, false) => told.given_up += 1,
        }
    }
    told
}

/// What an answer says of a batch.
#[derive(Debug, PartialEq)]
enum Verdict {
    Taken {
        repeated: u64,
    },
    Refused(Duration),
    /// It may be in.
    Unknown,
    Wrong(String),
}

impl Verdict {
    fn of(answer: std::io::Result<Answer>, rows: u64, is_in_doubt: bool) -> Self {
        let Ok(answer) = answer else { return Self::Unknown };
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let (accepted, repeated) = (body["accepted"].as_u64().unwrap_or(0), body["repeated"].as_u64().unwrap_or(0));
        match answer.status {
            200 if (accepted, repeated) == (rows, 0) => Self::Taken { repeated: 0 },
            // Only what was not answered can be there already.
            200 if (accepted, repeated) == (0, rows) && is_in_doubt => Self::Taken { repeated },
            408 | 429 => Self::Refused(answer.retry_after.unwrap_or(PAUSE)),
            // The source went away between taking it and its commit.
            503 => Self::Unknown,
            status => Self::Wrong(format!("{status}: {}", answer.body.trim())),
        }
    }
}

/// A batch, and when it is to be sent, from the beginning on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    due: Duration,
    batch: u64,
    sent: u32,
    is_in_doubt: bool,
}

impl Job {
    fn is_patient(&self) -> bool {
        (self.batch % CLIENTS).is_multiple_of(2)
    }

    /// Whether it is to be sent again. The end spares none of whom nothing is known.
    fn again(&mut self, due: Duration, load: &Load) -> bool {
        (self.due, self.sent) = (due, self.sent + 1);
        match self.is_in_doubt {
            true => due < load.duration + DOUBT_TIME_MAX,
            false => self.sent <= load.again_max && due < load.duration,
        }
    }
}

/// Which batch is next.
struct Schedule {
    /// Between two batches; zero for a closed pace.
    interval: Duration,
    first: u64,
    count: u64,
    duration: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// New batches that were handed out or withheld.
    next: u64,
    withheld: u64,
    again: BinaryHeap<Reverse<Job>>,
}

impl Schedule {
    fn new(load: &Load) -> Self {
        let interval = match load.pace {
            Pace::Closed => Duration::ZERO,
            Pace::Open { batches_per_second } => Duration::from_secs_f64(1.0 / batches_per_second),
        };
        let Range { start, end } = load.batches;
        Self { interval, first: start, count: end - start, duration: load.duration, queue: Mutex::default() }
    }

    fn take(&self, now: Duration) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let fresh = self.fresh(queue.next, now);
            let is_again_first = match (queue.again.peek(), &fresh) {
                (Some(Reverse(again)), Some(fresh)) => again.due <= fresh.due,
                (again, _) => again.is_some(),
            };
            if is_again_first {
                return queue.again.pop().map(|Reverse(job)| job);
            }
            let fresh = fresh?;
            queue.next += 1;
            if now <= fresh.due + BEHIND_MAX {
                return Some(fresh);
            }
            queue.withheld += 1;
        }
    }

    /// The `nth` new batch, if it is still to come.
    fn fresh(&self, nth: u64, now: Duration) -> Option<Job> {
        let due = match self.interval {
            Duration::ZERO => now,
            interval => interval.mul_f64(nth as f64),
        };
        let is_there = nth < self.count && due < self.duration;
        is_there.then_some(Job { due, batch: self.first + nth, sent: 0, is_in_doubt: false })
    }

    fn again(&self, job: Job) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).again.push(Reverse(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pace: Pace, batches: Range<u64>, duration_ms: u64) -> Load {
        let rows = Rows { per_batch: 2, cycle: u64::MAX };
        let duration = Duration::from_millis(duration_ms);
        Load { to: ([127, 0, 0, 1], 1).into(), source: "s", rows, connections: 1, pace, batches, duration, again_max: 1 }
    }

    fn taken(schedule: &Schedule, now_ms: u64) -> Option<(u64, u128)> {
        schedule.take(Duration::from_millis(now_ms)).map(|job| (job.batch, job.due.as_millis()))
    }

    #[test]
    fn a_closed_pace_gives_what_is_next_until_the_end() {
        let schedule = Schedule::new(&load(Pace::Closed, 5..8, 100));
        assert_eq!(taken(&schedule, 0), Some((5, 0)));
        assert_eq!(taken(&schedule, 99), Some((6, 99)));
        assert_eq!(taken(&schedule, 100), None);
        let schedule = Schedule::new(&load(Pace::Closed, 5..6, 100));
        assert_eq!((taken(&schedule, 1), taken(&schedule, 1)), (Some((5, 1)), None));
    }

    #[test]
    fn an_open_pace_waits_for_nobody() {
        let schedule = Schedule::new(&load(Pace::Open { batches_per_second: 10.0 }, 0..u64::MAX, 2000));
        assert_eq!(taken(&schedule, 0), Some((0, 0)));
        assert_eq!(taken(&schedule, 0), Some((1, 100)));
        // Of 2 to 19, those due more than a second ago are withheld.
        assert_eq!(taken(&schedule, 1500), Some((5, 500)));
        assert_eq!(schedule.queue.lock().unwrap().withheld, 3);
        assert_eq!(taken(&schedule, 4000), None);
        assert_eq!(schedule.queue.lock().unwrap().withheld, 17);
    }

    #[test]
    fn refused_batches_come_again_so_often_and_doubtful_ones_until_they_are_known() {
        let load = load(Pace::Open { batches_per_second: 10.0 }, 0..u64::MAX, 1000);
        let schedule = Schedule::new(&load);
        let at = Duration::from_millis;
        let mut job = schedule.take(at(0)).unwrap();
        assert!(job.again(at(40), &load));
        schedule.again(job);
        let mut job = schedule.take(at(10)).unwrap();
        assert_eq!((job.batch, job.due, job.sent), (0, at(40), 1));
        assert!(!job.again(at(80), &load), "it came again as often as it may");
        job.is_in_doubt = true;
        assert!(job.again(at(5000), &load));
        schedule.again(job);
        assert_eq!(taken(&schedule, 900), Some((1, 100)));
        let last = std::iter::from_fn(|| taken(&schedule, 1000)).last();
        assert_eq!(last, Some((0, 5000)));
    }

    #[test]
    fn answers_say_what_became_of_a_batch() {
        let said = |status, body: &str, is_in_doubt| {
            let text = format!("HTTP/1.1 {status} X\r\nRetry-After: 2\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            Verdict::of(super::super::door::answer(&mut text.as_bytes()), 7, is_in_doubt)
        };
        assert_eq!(said(200, r#"{"accepted":7,"rejected":0}"#, false), Verdict::Taken { repeated: 0 });
        assert_eq!(said(200, r#"{"accepted":0,"rejected":0,"repeated":7}"#, true), Verdict::Taken { repeated: 7 });
        assert!(matches!(said(200, r#"{"accepted":0,"rejected":0,"repeated":7}"#, false), Verdict::Wrong(_)));
        assert!(matches!(said(200, r#"{"accepted":6,"rejected":1}"#, false), Verdict::Wrong(_)));
        assert_eq!(said(429, "{}", false), Verdict::Refused(Duration::from_secs(2)));
        assert!(matches!(said(408, "{}", false), Verdict::Refused(_)));
        assert_eq!(said(503, "{}", false), Verdict::Unknown);
        assert!(matches!(said(404, "{}", false), Verdict::Wrong(_)));
        assert_eq!(Verdict::of(Err(std::io::ErrorKind::ConnectionReset.into()), 7, false), Verdict::Unknown);
    }

    #[test]
    fn rows_are_numbered_on_or_around() {
        assert_eq!(Rows { per_batch: 10, cycle: u64::MAX }.ids(7), 70..80);
        assert_eq!(Rows { per_batch: 10, cycle: 40 }.ids(7), 30..40);
        let body = Rows { per_batch: 2, cycle: u64::MAX }.body(4, 1_790_000_000_005);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "{\"id\":8,\"client\":\"c8\",\"amount\":8,\"ts\":1790000000005}\n{\"id\":9,\"client\":\"c9\",\"amount\":9,\"ts\":1790000000005}\n"
        );
        for number in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut text = Vec::new();
            push(&mut text, number);
            assert_eq!(text, number.to_string().as_bytes());
        }
    }
}
