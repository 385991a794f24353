//! What is asked of the graph, as a view; and the same from nothing, in plain Rust.
//!
//! To the functions a node is a group of all it depends on: one that fails is enough.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use clap::ValueEnum;

use super::graph::Graph;

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Who is affected, by WITH RECURSIVE
    Recursive,
    /// The same, by `reach`
    Reach,
    /// When, by `time_to_impact`: each edge with a delay, each node with a buffer
    TimeToImpact,
    /// From when to when, by `downtime`: outages of an hour, buffers of ten minutes
    Downtime,
    /// How far the failure of each single node would go, for all at once, by `blast_radius`: quadratic
    BlastRadius,
}

/// What a view must hold: so many rows, and the sum of what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub rows: u64,
    pub sum: i64,
}

const BUFFER_MS: i64 = 600_000;
const OUTAGE_MS: i64 = 3_600_000;

impl Rule {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// The rule as the view `name`.
    pub fn view(self, name: &str) -> String {
        format!("CREATE MATERIALIZED VIEW {name} AS {};", self.query())
    }

    fn query(self) -> &'static str {
        match self {
            Self::Recursive => {
                "WITH RECURSIVE reached AS (
                   SELECT node AS id FROM failed
                   UNION
                   SELECT e.src AS id FROM reached r JOIN edges e ON e.dst = r.id
                 )
                 SELECT n.id, n.kind FROM reached r JOIN nodes n ON n.id = r.id"
            }
            Self::Reach => {
                "SELECT n.id, n.kind FROM reach(
                   failed,
                   (SELECT id AS group_id, id AS node FROM nodes),
                   (SELECT src AS group_id, dst AS node FROM edges)) r JOIN nodes n ON n.id = r.node"
            }
            Self::TimeToImpact => {
                "SELECT node AS id, starts FROM time_to_impact(
                   (SELECT node, 0 AS starts FROM failed),
                   (SELECT id AS group_id, id AS node, id % 100 AS buffer_ms FROM nodes),
                   (SELECT src AS group_id, dst AS node, (7 * src + 13 * dst) % 1000 AS delay_ms FROM edges))"
            }
            Self::Downtime => {
                "SELECT node AS id, starts, ends FROM downtime(
                   (SELECT node, 0 AS starts, 3600000 AS ends FROM failed),
                   (SELECT id AS group_id, id AS node, 600000 AS buffer_ms FROM nodes),
                   (SELECT src AS group_id, dst AS node FROM edges),
                   horizon => 86400000)"
            }
            Self::BlastRadius => {
                "SELECT scenario AS id, nodes FROM blast_radius(
                   (SELECT id AS scenario, id AS node FROM nodes),
                   (SELECT id AS group_id, id AS node FROM nodes),
                   (SELECT src AS group_id, dst AS node FROM edges))"
            }
        }
    }

    /// The sum of what the rows of the view `name` say.
    pub fn sum(self, name: &str) -> String {
        let value = match self {
            Self::Recursive | Self::Reach => "id",
            Self::TimeToImpact => "starts",
            Self::Downtime => "ends - starts",
            Self::BlastRadius => "nodes",
        };
        format!("SELECT CAST(sum({value}) AS BIGINT) AS n FROM {name}")
    }

    /// From nothing.
    pub fn recompute(self, graph: &Graph) -> Answer {
        match self {
            Self::Recursive | Self::Reach => {
                let reached = graph.reached();
                let ids = reached.iter().enumerate().filter(|(_, is_reached)| **is_reached).map(|(id, _)| id as i64);
                answer(ids)
            }
            Self::TimeToImpact => answer(times(graph).into_iter().flatten()),
            Self::Downtime => answer(starts(graph).into_iter().flatten().map(|start| OUTAGE_MS - start)),
            Self::BlastRadius => Answer { rows: u64::from(graph.nodes), sum: pairs(graph) },
        }
    }
}

fn answer(values: impl Iterator<Item = i64>) -> Answer {
    values.fold(Answer { rows: 0, sum: 0 }, |all, value| Answer { rows: all.rows + 1, sum: all.sum + value })
}

/// Dijkstra's.
fn times(graph: &Graph) -> Vec<Option<i64>> {
    let mut times = vec![None; graph.nodes as usize];
    let mut open: BinaryHeap<Reverse<(i64, u32)>> = graph.failed.iter().map(|node| Reverse((0, *node))).collect();
    while let Some(Reverse((time, node))) = open.pop() {
        if times[node as usize].is_some() {
            continue;
        }
        times[node as usize] = Some(time);
        for src in graph.dependents(node) {
            if times[*src as usize].is_none() {
                let (from, to) = (i64::from(*src), i64::from(node));
                open.push(Reverse((time + (7 * from + 13 * to) % 1000 + from % 100, *src)));
            }
        }
    }
    times
}

/// All outages are of one hour and no restart takes time, so a node is down from a buffer after the
/// first node that it depends on until that hour is over, if anything is left of it.
fn starts(graph: &Graph) -> Vec<Option<i64>> {
    let mut starts = vec![None; graph.nodes as usize];
    let mut queue = graph.failed.clone();
    queue.iter().for_each(|node| starts[*node as usize] = Some(0));
    let mut next = 0;
    while next < queue.len() {
        let start = starts[queue[next] as usize].expect("it is in the queue") + BUFFER_MS;
        if start < OUTAGE_MS {
            for src in graph.dependents(queue[next]) {
                if starts[*src as usize].is_none() {
                    starts[*src as usize] = Some(start);
                    queue.push(*src);
                }
            }
        }
        next += 1;
    }
    starts
}

/// How many nodes fail with each node, summed up: 64 searches at once.
fn pairs(graph: &Graph) -> i64 {
    let mut pairs = 0;
    for first in (0..graph.nodes).step_by(64) {
        let mut failed = vec![0_u64; graph.nodes as usize];
        let mut queue: VecDeque<u32> = (first..graph.nodes.min(first + 64)).collect();
        queue.iter().for_each(|node| failed[*node as usize] = 1 << (node - first));
        while let Some(node) = queue.pop_front() {
            for src in graph.dependents(node) {
                let more = failed[node as usize] & !failed[*src as usize];
                if more != 0 {
                    failed[*src as usize] |= more;
                    queue.push_back(*src);
                }
            }
        }
        pairs += failed.iter().map(|lanes| i64::from(lanes.count_ones())).sum::<i64>();
    }
    pairs
}
