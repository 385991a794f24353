//! One case: its events in order, and what chunks of them do.
//!
//! A short case is a sorted list and nothing else. A long one is a tree of such lists in which each
//! part has its chunk: what its events do, composed. An insert or a removal anywhere computes the
//! chunks on one path from leaf to root again; many inserts at once, as of a past, all chunks once.
//!
//! Source  Bentley and Saxe, Decomposable Searching Problems, J. Algorithms 1980; Bayer and McCreight,
//!         Organization and Maintenance of Large Ordered Indices, Acta Informatica 1972

use std::cmp::Ordering;

use super::Symbol;

/// What happened in a case. Ties in `ts` are told apart by `seq`, then by names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub ts: i64,
    pub seq: i64,
    pub activity: Symbol,
    pub role: Symbol,
}

/// How events compose. `then` is associative; `of` a list is its parts' chunks, composed.
pub trait Chunks {
    type Chunk;
    fn of(&self, events: &[Event]) -> Self::Chunk;
    fn then(&self, first: &Self::Chunk, second: &Self::Chunk) -> Self::Chunk;
    /// What any chunk of this specification has allocated.
    fn allocated(&self) -> usize;
}

/// Sees a case from its first event to its last.
pub trait Walker<C> {
    /// True: the chunk said enough, and its events are not asked for.
    fn passes(&mut self, chunk: &C) -> bool;
    fn events(&mut self, events: &[Event]);
}

/// Events up to which a list is left as it is.
const LEAF_MAX: usize = 48;
const BRANCH_MAX: usize = 12;

#[derive(Debug)]
pub struct Case<C>(Node<C>);

#[derive(Debug)]
enum Node<C> {
    Leaf(Vec<Event>),
    /// Boxed once more, so that a short case is no larger than its list.
    Branch(Box<Parts<C>>),
}

/// Two at least.
#[derive(Debug)]
struct Parts<C>(Vec<Part<C>>);

#[derive(Debug)]
struct Part<C> {
    node: Node<C>,
    last: Event,
    chunk: C,
    /// Of events.
    count: usize,
    /// Allocated by the node and the chunk.
    bytes: usize,
}

impl<C> Default for Case<C> {
    fn default() -> Self {
        Self(Node::Leaf(Vec::new()))
    }
}

impl<C> Case<C> {
    /// Adds an event behind those equal to it.
    pub fn insert(&mut self, event: Event, chunks: &impl Chunks<Chunk = C>, order: &impl Fn(&Event, &Event) -> Ordering) {
        if let Some(right) = self.0.insert(event, chunks, order) {
            let left = std::mem::replace(&mut self.0, Node::Leaf(Vec::new()));
            self.0 = Node::branch(vec![left.part(chunks), right.part(chunks)]);
        }
    }

    /// Adds events, which are in order.
    pub fn extend(&mut self, more: Vec<Event>, chunks: &impl Chunks<Chunk = C>, order: &impl Fn(&Event, &Event) -> Ordering) {
        // An insert looks at all events of a leaf.
        if more.len() <= LEAF_MAX || more.len() * LEAF_MAX < self.0.count() {
            return more.into_iter().for_each(|event| self.insert(event, chunks, order));
        }
        let mut events = std::mem::take(self).into_events();
        events.extend(more);
        events.sort_by(order);
        *self = Self::from_events(events, chunks);
    }

    /// Takes one event that equals `event` away; false where there is none.
    pub fn remove(&mut self, event: &Event, chunks: &impl Chunks<Chunk = C>, order: &impl Fn(&Event, &Event) -> Ordering) -> bool {
        let is_removed = self.0.remove(event, chunks, order);
        while let Node::Branch(parts) = &mut self.0
            && parts.0.len() == 1
        {
            let only = parts.0.remove(0);
            self.0 = only.node;
        }
        is_removed
    }

    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Node::Leaf(events) if events.is_empty())
    }

    pub fn last(&self) -> Option<&Event> {
        match &self.0 {
            Node::Leaf(events) => events.last(),
            Node::Branch(parts) => parts.0.last().map(|part| &part.last),
        }
    }

    pub fn walk(&self, walker: &mut impl Walker<C>) {
        self.0.walk(walker);
    }

    /// Hands out the events from the time `from` on, list by list, as long as `visit` wants more.
    pub fn visit_from(&self, from: i64, visit: &mut impl FnMut(&[Event]) -> bool) {
        self.0.visit_from(from, visit);
    }

    /// What the case has allocated.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// The chunk of the whole case.
    pub fn chunk(&self, chunks: &impl Chunks<Chunk = C>) -> C {
        self.0.chunk(chunks)
    }

    /// The events by themselves: under other chunks the case is another.
    pub fn into_events(self) -> Vec<Event> {
        struct All(Vec<Event>);
        impl<C> Walker<C> for All {
            fn passes(&mut self, _: &C) -> bool {
                false
            }
            fn events(&mut self, events: &[Event]) {
                self.0.extend_from_slice(events);
            }
        }
        match self.0 {
            Node::Leaf(events) => events,
            node => {
                let mut all = All(Vec::new());
                node.walk(&mut all);
                all.0
            }
        }
    }

    /// `events` are in order.
    pub fn from_events(events: Vec<Event>, chunks: &impl Chunks<Chunk = C>) -> Self {
        if events.len() <= LEAF_MAX {
            return Self(Node::Leaf(events));
        }
        let count = events.len();
        let mut events = events.into_iter();
        let leaf = |size| Node::Leaf(events.by_ref().take(size).collect()).part(chunks);
        let mut parts: Vec<Part<C>> = sizes(count, LEAF_MAX / 2).map(leaf).collect();
        while parts.len() > 1 {
            let count = parts.len();
            let mut rest = parts.into_iter();
            let branch = |size| Node::branch(rest.by_ref().take(size).collect()).part(chunks);
            parts = sizes(count, BRANCH_MAX / 2).map(branch).collect();
        }
        Self(parts.remove(0).node)
    }
}

impl<C> Node<C> {
    fn branch(parts: Vec<Part<C>>) -> Self {
        Node::Branch(Box::new(Parts(parts)))
    }

    /// The right half, where this node has become too long.
    fn insert(&mut self, event: Event, chunks: &impl Chunks<Chunk = C>, order: &impl Fn(&Event, &Event) -> Ordering) -> Option<Self> {
        match self {
            Node::Leaf(events) => {
                let at = events.partition_point(|other| order(other, &event) != Ordering::Greater);
                // A million short cases: doubling would leave half of their memory unused.
                if events.len() == events.capacity() {
                    events.reserve_exact(1 + events.len() / 4);
                }
                events.insert(at, event);
                (events.len() > LEAF_MAX).then(|| Node::Leaf(events.split_off(events.len() / 2)))
            }
            Node::Branch(branch) => {
                let parts = &mut branch.0;
                let at = parts.partition_point(|part| order(&part.last, &event) == Ordering::Less).min(parts.len() - 1);
                let right = parts[at].node.insert(event, chunks, order);
                parts[at].again(chunks);
                if let Some(right) = right {
                    parts.insert(at + 1, right.part(chunks));
                }
                (parts.len() > BRANCH_MAX).then(|| Node::branch(parts.split_off(parts.len() / 2)))
            }
        }
    }

    fn remove(&mut self, event: &Event, chunks: &impl Chunks<Chunk = C>, order: &impl Fn(&Event, &Event) -> Ordering) -> bool {
        match self {
            Node::Leaf(events) => {
                let at = events.partition_point(|other| order(other, event) == Ordering::Less);
                let is_there = events.get(at).is_some_and(|other| order(other, event) == Ordering::Equal);
                if is_there {
                    events.remove(at);
                }
                is_there
            }
            Node::Branch(branch) => {
                let parts = &mut branch.0;
                let at = parts.partition_point(|part| order(&part.last, event) == Ordering::Less);
                let is_removed = at < parts.len() && parts[at].node.remove(event, chunks, order);
                if is_removed {
                    settle(parts, at, chunks);
                }
                is_removed
            }
        }
    }

    fn part(self, chunks: &impl Chunks<Chunk = C>) -> Part<C> {
        let (last, chunk, count) = (self.last(), self.chunk(chunks), self.count());
        Part { last, chunk, count, bytes: self.bytes() + chunks.allocated(), node: self }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(events) => events.len(),
            Node::Branch(branch) => branch.0.iter().map(|part| part.count).sum(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Node::Leaf(events) => events.capacity() * size_of::<Event>(),
            Node::Branch(branch) => branch.0.iter().map(|part| part.bytes + size_of::<Part<C>>()).sum(),
        }
    }

    fn chunk(&self, chunks: &impl Chunks<Chunk = C>) -> C {
        match self {
            Node::Leaf(events) => chunks.of(events),
            Node::Branch(branch) => {
                let parts = &branch.0;
                let second = chunks.then(&parts[0].chunk, &parts[1].chunk);
                parts[2..].iter().fold(second, |first, part| chunks.then(&first, &part.chunk))
            }
        }
    }

    fn last(&self) -> Event {
        match self {
            Node::Leaf(events) => *events.last().expect("no part is empty"),
            Node::Branch(parts) => parts.0.last().expect("no part is empty").last,
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(events) => events.len(),
            Node::Branch(parts) => parts.0.len(),
        }
    }

    fn max(&self) -> usize {
        if matches!(self, Node::Leaf(_)) { LEAF_MAX } else { BRANCH_MAX }
    }

    fn walk(&self, walker: &mut impl Walker<C>) {
        match self {
            Node::Leaf(events) => walker.events(events),
            Node::Branch(parts) => {
                for part in &parts.0 {
                    if !walker.passes(&part.chunk) {
                        part.node.walk(walker);
                    }
                }
            }
        }
    }

    fn visit_from(&self, from: i64, visit: &mut impl FnMut(&[Event]) -> bool) -> bool {
        match self {
            Node::Leaf(events) => visit(&events[events.partition_point(|event| event.ts < from)..]),
            Node::Branch(branch) => {
                let first = branch.0.partition_point(|part| part.last.ts < from);
                branch.0[first..].iter().all(|part| part.node.visit_from(from, visit))
            }
        }
    }

    /// Takes in all of `right`, a node of the same depth.
    fn append(&mut self, right: Self) {
        match (self, right) {
            (Node::Leaf(events), Node::Leaf(more)) => events.extend(more),
            (Node::Branch(parts), Node::Branch(more)) => parts.0.extend(more.0),
            _ => unreachable!("siblings are of one depth"),
        }
    }

    /// The right half.
    fn split(&mut self) -> Self {
        match self {
            Node::Leaf(events) => Node::Leaf(events.split_off(events.len() / 2)),
            Node::Branch(parts) => Node::branch(parts.0.split_off(parts.0.len() / 2)),
        }
    }
}

/// As even as can be, and none above `max`.
fn sizes(count: usize, max: usize) -> impl Iterator<Item = usize> {
    let groups = count.div_ceil(max);
    (0..groups).map(move |group| (group + 1) * count / groups - group * count / groups)
}

impl<C> Part<C> {
    fn again(&mut self, chunks: &impl Chunks<Chunk = C>) {
        self.last = self.node.last();
        self.chunk = self.node.chunk(chunks);
        self.count = self.node.count();
        self.bytes = self.node.bytes() + chunks.allocated();
    }
}

/// After a removal in the part at `at`: one that is too short joins its neighbour.
fn settle<C>(parts: &mut Vec<Part<C>>, at: usize, chunks: &impl Chunks<Chunk = C>) {
    let is_short = parts[at].node.len() < parts[at].node.max() / 4;
    if !is_short || parts.len() == 1 {
        return parts[at].again(chunks);
    }
    let left = at.min(parts.len() - 2);
    let right = parts.remove(left + 1);
    let joined = &mut parts[left];
    joined.node.append(right.node);
    let rest = (joined.node.len() > joined.node.max()).then(|| joined.node.split());
    joined.again(chunks);
    if let Some(rest) = rest {
        parts.insert(left + 1, rest.part(chunks));
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The events themselves: nothing is lost, and nothing out of order.
    struct Lists;

    impl Chunks for Lists {
        type Chunk = Vec<Event>;
        fn of(&self, events: &[Event]) -> Vec<Event> {
            events.to_vec()
        }
        fn then(&self, first: &Vec<Event>, second: &Vec<Event>) -> Vec<Event> {
            [&first[..], second].concat()
        }
        fn allocated(&self) -> usize {
            7
        }
    }

    fn order(a: &Event, b: &Event) -> Ordering {
        (a.ts, a.seq, a.activity, a.role).cmp(&(b.ts, b.seq, b.activity, b.role))
    }

    fn depth<C>(node: &Node<C>) -> usize {
        match node {
            Node::Leaf(_) => 0,
            Node::Branch(branch) => {
                let parts = &branch.0;
                assert!((2..=BRANCH_MAX).contains(&parts.len()));
                let depths: Vec<usize> = parts.iter().map(|part| depth(&part.node)).collect();
                assert!(depths.windows(2).all(|pair| pair[0] == pair[1]));
                1 + depths[0]
            }
        }
    }

    /// Node by node.
    fn counted<C>(node: &Node<C>) -> usize {
        match node {
            Node::Leaf(events) => events.capacity() * size_of::<Event>(),
            Node::Branch(branch) => branch.0.iter().map(|part| size_of::<Part<C>>() + Lists.allocated() + counted(&part.node)).sum(),
        }
    }

    #[test]
    fn a_case_is_its_sorted_list() {
        for seed in 0..40 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut case, mut list) = (Case::default(), Vec::new());
            let times = if seed % 2 == 0 { 30 } else { 100_000 };
            // Grows, shrinks to nothing, and grows again.
            for (steps, share) in [(3000, 0.9), (4000, 0.1), (600, 0.7)] {
                for step in 0..steps {
                    if random.random_bool(share) || list.is_empty() {
                        let symbol = |random: &mut StdRng| random.random_range(0..3);
                        let ts = random.random_range(0..times);
                        let event = Event { ts, seq: 0, activity: symbol(&mut random), role: symbol(&mut random) };
                        case.insert(event, &Lists, &order);
                        list.push(event);
                    } else {
                        let event = list.swap_remove(random.random_range(0..list.len()));
                        assert!(case.remove(&event, &Lists, &order), "seed {seed}, step {step}");
                    }
                }
                list.sort_by(order);
                assert_eq!(case.chunk(&Lists), list, "seed {seed}");
                assert_eq!(case.last(), list.last(), "seed {seed}");
                assert!(depth(&case.0) <= 5, "seed {seed}");
                assert_eq!(case.bytes(), counted(&case.0), "seed {seed}");
                let absent = Event { ts: times, seq: 0, activity: 0, role: 0 };
                assert!(!case.remove(&absent, &Lists, &order), "seed {seed}");
            }
            let built = Case::from_events(case.into_events(), &Lists);
            assert_eq!(built.chunk(&Lists), list, "seed {seed}");
        }
    }

    #[test]
    fn many_events_at_once_are_as_one_by_one() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut case, mut list): (_, Vec<Event>) = (Case::default(), Vec::new());
            // Into nothing, into about as many, into fewer, and a few into many.
            for count in [random.random_range(1..3000), random.random_range(1..3000), 9000, random.random_range(1..80)] {
                let mut event = || Event { ts: random.random_range(0..5000), seq: 0, activity: random.random_range(0..3), role: 0 };
                let mut more: Vec<Event> = (0..count).map(|_| event()).collect();
                more.sort_by(order);
                list.extend(&more);
                list.sort_by(order);
                case.extend(more, &Lists, &order);
                assert_eq!(case.chunk(&Lists), list, "seed {seed}");
                assert_eq!((case.0.count(), case.bytes()), (list.len(), counted(&case.0)), "seed {seed}");
                assert!(depth(&case.0) <= 5, "seed {seed}");
            }
        }
    }
}
