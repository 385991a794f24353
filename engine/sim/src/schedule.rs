//! What happens in a scenario, and what goes wrong: all of it from the seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_runtime::Seeded;

use crate::disk::{Crash, Fault};
use crate::world::Event;

/// What happens next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Rows for the feed; None is garbage.
    Feed(Vec<Option<Event>>),
    /// A client's request.
    Post(Vec<Event>),
    /// The most a key may have, or that there is no such bound any more.
    Limit(String, Option<i64>),
    /// The detection is replaced by one with another bias, its actions with it.
    Rearm(i64),
    /// A view is created when its sources were read already.
    LateView,
    DropLateView,
    /// A person says what became of actions that are in doubt.
    Resolve,
    Commit,
    /// A snapshot is taken.
    Checkpoint,
    /// All views are read at one tick, and compared.
    Look,
    /// The clock steps, also back.
    Clock(i64),
    Crash(Crash),
    /// The engine is stopped as one stops it.
    Stop,
    /// The n-th disk operation from now fails.
    Fault(u64, Fault),
    /// There is room for that many more bytes, until so many writes were refused.
    Fill(u64, u32),
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub steps: Vec<Step>,
    /// Of each boot; the last one goes for all later ones.
    pub boots: Vec<BootPlan>,
    /// Ticks close only when someone asks for it; else by themselves, each millisecond.
    pub is_driven: bool,
    /// Whether partners fail, dawdle, and take the machine with them.
    pub is_troubled: bool,
    /// What no view needs any more goes with the next snapshot, so that none can be defined anew.
    pub is_frugal: bool,
    /// A bug put into the engine on purpose.
    pub bug: Seeded,
}

#[derive(Debug, Clone, Copy)]
pub struct BootPlan {
    pub workers: usize,
    /// What goes wrong while it recovers, or soon after.
    pub fault: Option<(u64, Fault)>,
}

pub const START_MS: u64 = 1_700_000_000_000;
pub const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

const STEPS: std::ops::Range<usize> = 18..36;
const BOOTS: usize = 12;
/// Bounds of how far ahead a fault lies, in disk operations.
const AHEAD: std::ops::Range<u64> = 1..60;
const REFUSALS_MAX: u32 = 2;

impl Plan {
    pub fn seeded(seed: u64) -> Self {
        let mut author = Author::seeded(seed);
        let steps = (0..author.random.random_range(STEPS)).map(|_| author.step()).collect();
        let boots = (0..BOOTS).map(|boot| author.boot(boot)).collect();
        let (is_driven, is_troubled) = (author.random.random(), author.one_in(2));
        Self { seed, steps, boots, is_driven, is_troubled, is_frugal: author.is_frugal, bug: Seeded::default() }
    }

    /// The workload whose every disk operation fails once: each kind of step, in order.
    pub fn reference(first: Option<(u64, Fault)>) -> Self {
        let mut author = Author::seeded(7);
        let limit = |key: &str, most| Step::Limit(key.into(), most);
        let steps = vec![
            limit("a", Some(10)),
            limit("b", Some(20)),
            author.feed(4),
            Step::Commit,
            author.post(2),
            Step::Commit,
            Step::Look,
            limit("a", Some(60)),
            Step::LateView,
            Step::Checkpoint,
            author.feed(3),
            Step::Commit,
            Step::Stop,
            limit("b", None),
            Step::Look,
        ];
        let calm = BootPlan { workers: 1, fault: None };
        let boots = vec![BootPlan { fault: first, ..calm }, calm];
        Self { seed: 7, steps, boots, is_driven: true, is_troubled: false, is_frugal: false, bug: Seeded::default() }
    }
}

/// Writes a plan.
struct Author {
    random: StdRng,
    fed: i64,
    posted: i64,
    is_frugal: bool,
}

impl Author {
    fn seeded(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let is_frugal = random.random();
        Self { random, fed: 0, posted: 0, is_frugal }
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn step(&mut self) -> Step {
        let count = self.random.random_range(1..5);
        match self.random.random_range(0..100) {
            0..22 => self.feed(count * 2),
            22..36 => self.post(count),
            36..50 => self.limit(),
            50..52 => Step::Resolve,
            52..60 if self.is_frugal => Step::Checkpoint,
            52..55 => Step::Rearm(self.random.random_range(0..15)),
            55..58 => Step::LateView,
            58..60 => Step::DropLateView,
            60..66 => Step::Commit,
            66..70 => Step::Checkpoint,
            70..80 => Step::Look,
            80..85 => Step::Clock(self.random.random_range(-3_600_000..3_600_000)),
            85..90 => Step::Crash(self.crash()),
            90..92 => Step::Stop,
            92..99 => self.fault(),
            // On a full disk the past goes, of which what is made later would be made.
            _ if !self.is_frugal => self.fault(),
            _ => Step::Fill(self.random.random_range(0..2000), self.random.random_range(1..=REFUSALS_MAX)),
        }
    }

    fn boot(&mut self, boot: usize) -> BootPlan {
        let is_at_fault = if boot == 0 { self.one_in(3) } else { self.one_in(4) };
        let fault = is_at_fault.then(|| (self.random.random_range(AHEAD), self.any_fault()));
        BootPlan { workers: self.random.random_range(1..=4), fault }
    }

    fn feed(&mut self, count: usize) -> Step {
        Step::Feed((0..count).map(|_| self.fed_row()).collect())
    }

    fn fed_row(&mut self) -> Option<Event> {
        self.fed += 1;
        let garbage = self.one_in(15);
        let event = self.event(self.fed - 1);
        (!garbage).then_some(event)
    }

    fn post(&mut self, count: usize) -> Step {
        let rows = (0..count).map(|_| {
            self.posted += 1;
            self.event(1_000_000 + self.posted)
        });
        Step::Post(rows.collect())
    }

    fn event(&mut self, id: i64) -> Event {
        let key = KEYS[self.random.random_range(0..KEYS.len())].to_string();
        let back = if self.one_in(8) { 30_000 } else { 0 };
        let ts = START_MS as i64 + 100 * id % 1_000_000 - back;
        Event { id, key, amount: self.random.random_range(0..100), ts }
    }

    fn limit(&mut self) -> Step {
        let key = KEYS[self.random.random_range(0..KEYS.len())].to_string();
        let most = (!self.one_in(4)).then(|| self.random.random_range(0..100));
        Step::Limit(key, most)
    }

    fn crash(&mut self) -> Crash {
        if self.one_in(4) { Crash::Kill } else { Crash::PowerCut }
    }

    fn fault(&mut self) -> Step {
        Step::Fault(self.random.random_range(AHEAD), self.any_fault())
    }

    fn any_fault(&mut self) -> Fault {
        match self.random.random_range(0..10) {
            0..2 => Fault::Error,
            2..3 => Fault::Full,
            _ => Fault::Crash(self.crash()),
        }
    }
}
