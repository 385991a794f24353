//! A dependency graph, its updates, and the plain search for who is affected.
//!
//! Nine nodes of ten are the core: a node depends on some that come shortly
//! before it, and one edge of a hundred goes back, so that there are cycles.
//! A cascade takes some twenty steps through it. The others are branches, trees
//! of ten that depend on nothing in the core until an update attaches them.

use std::collections::HashSet;

use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_types::error::{Error, Result};

const BRANCH: u32 = 10;
/// Edges reach over this part of the core.
const SPAN_PARTS: u32 = 20;
const BACK_ONE_IN: u32 = 100;

#[derive(Args, Debug, Clone)]
pub struct Shape {
    #[arg(long, default_value_t = 100_000)]
    pub nodes: u32,
    #[arg(long, default_value_t = 1_000_000)]
    pub edges: usize,
    /// Nodes that have failed
    #[arg(long, default_value_t = 10)]
    pub failed: usize,
    /// Decides the graph and the updates
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// `src` depends on `dst`: failure goes from `dst` to `src`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    pub src: u32,
    pub dst: u32,
}

pub struct Graph {
    pub nodes: u32,
    /// As first loaded.
    pub edges: Vec<Edge>,
    pub failed: Vec<u32>,
    core: u32,
    /// Who depends on each node, now.
    dependents: Vec<Vec<u32>>,
}

/// One edge comes or goes.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub kind: &'static str,
    pub edge: Edge,
    pub inserts: bool,
}

impl Graph {
    /// Errors: too small a graph, or more edges than fit.
    pub fn new(shape: &Shape) -> Result<Self> {
        let core = shape.nodes / 10 * 9;
        let span = (core / SPAN_PARTS).max(1);
        let branches = (shape.nodes - core) / BRANCH;
        let edges_of_branches = (branches * (BRANCH - 1)) as usize;
        // Beyond half of what fits, drawing edges that are new takes long.
        let edges_max = edges_of_branches + core as usize * span as usize / 2;
        if shape.nodes < 1_000 || shape.edges < edges_of_branches + core as usize || edges_max < shape.edges {
            return Err(Error::user(format!("a graph of {} nodes and {} edges cannot be made", shape.nodes, shape.edges))
                .hint("take 1000 nodes or more, and about ten edges per node"));
        }
        if shape.failed == 0 || (core / 10) as usize <= shape.failed {
            return Err(Error::user(format!("{} failed nodes are none or too many", shape.failed)).hint("ten will do"));
        }
        let mut rng = StdRng::seed_from_u64(shape.seed);
        let mut edges = Vec::with_capacity(shape.edges);
        for branch in 0..branches {
            let root = core + branch * BRANCH;
            edges.extend((1..BRANCH).map(|member| Edge { src: root + member, dst: root + rng.random_range(0..member) }));
        }
        let mut known = HashSet::with_capacity(shape.edges);
        while edges.len() < shape.edges {
            let node = rng.random_range(1..core);
            let goes_back = rng.random_range(0..BACK_ONE_IN) == 0;
            let before = rng.random_range(node.saturating_sub(span)..node);
            let edge = if goes_back { Edge { src: before, dst: node } } else { Edge { src: node, dst: before } };
            if known.insert(edge) {
                edges.push(edge);
            }
        }
        let mut failed = HashSet::new();
        while failed.len() < shape.failed {
            failed.insert(rng.random_range(0..core / 10));
        }
        let mut failed = Vec::from_iter(failed);
        failed.sort_unstable();
        let mut dependents = vec![Vec::new(); shape.nodes as usize];
        edges.iter().for_each(|edge| dependents[edge.dst as usize].push(edge.src));
        Ok(Self { nodes: shape.nodes, edges, failed, core, dependents })
    }

    pub fn kind(&self, node: u32) -> &'static str {
        match node {
            node if node < self.core / 10 => "asset",
            node if node < self.core => "service",
            _ => "process",
        }
    }

    /// Who depends on `node`, now.
    pub fn dependents(&self, node: u32) -> &[u32] {
        &self.dependents[node as usize]
    }

    /// By node: is it affected? A breadth-first search from nothing.
    pub fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.nodes as usize];
        let mut queue = self.failed.clone();
        queue.iter().for_each(|node| reached[*node as usize] = true);
        let mut next = 0;
        while next < queue.len() {
            for src in &self.dependents[queue[next] as usize] {
                if !std::mem::replace(&mut reached[*src as usize], true) {
                    queue.push(*src);
                }
            }
            next += 1;
        }
        reached
    }

    pub fn updates(&self, seed: u64, count: usize) -> Updates {
        Updates { rng: StdRng::seed_from_u64(seed ^ 0x5eed), count, made: 0, undo: None }
    }

    fn apply(&mut self, change: &Change) {
        let dependents = &mut self.dependents[change.edge.dst as usize];
        if change.inserts {
            dependents.push(change.edge.src);
        } else {
            dependents.retain(|src| *src != change.edge.src);
        }
    }
}

/// Attach, detach, cut and mend in turn. Each undoes what the one before did.
pub struct Updates {
    rng: StdRng,
    count: usize,
    made: usize,
    undo: Option<Change>,
}

impl Updates {
    /// The next change, already made to `graph`. `reached`: as it is before.
    pub fn next(&mut self, graph: &mut Graph, reached: &[bool]) -> Option<Change> {
        if self.count <= self.made {
            return None;
        }
        let change = match self.undo.take() {
            Some(undo) => undo,
            None => {
                let attaches = self.made.is_multiple_of(4);
                let change = if attaches { self.attach(graph, reached) } else { self.cut(graph, reached) };
                let kind = if attaches { "detach" } else { "mend" };
                self.undo = Some(Change { kind, inserts: !change.inserts, ..change });
                change
            }
        };
        self.made += 1;
        graph.apply(&change);
        Some(change)
    }

    fn attach(&mut self, graph: &Graph, reached: &[bool]) -> Change {
        let branch = self.rng.random_range(0..(graph.nodes - graph.core) / BRANCH);
        let dst = self.draw(graph.core, |node| reached[node as usize]);
        Change { kind: "attach", edge: Edge { src: graph.core + branch * BRANCH, dst }, inserts: true }
    }

    fn cut(&mut self, graph: &Graph, reached: &[bool]) -> Change {
        // What came before was undone: the edges are those that were loaded.
        let index = self.draw(graph.edges.len() as u32, |index| reached[graph.edges[index as usize].dst as usize]);
        Change { kind: "cut", edge: graph.edges[index as usize], inserts: false }
    }

    /// A number below `end` that is `good`; the failed nodes alone make some good.
    fn draw(&mut self, end: u32, good: impl Fn(u32) -> bool) -> u32 {
        loop {
            let drawn = self.rng.random_range(0..end);
            if good(drawn) {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { nodes: 2_000, edges: 20_000, failed: 5, seed: 7 }
    }

    #[test]
    fn graphs_are_as_asked_and_the_same_again() {
        let graph = Graph::new(&shape()).unwrap();
        assert_eq!((graph.edges.len(), graph.failed.len()), (20_000, 5));
        assert_eq!(graph.edges.iter().collect::<HashSet<_>>().len(), 20_000);
        assert_eq!(Graph::new(&shape()).unwrap().edges, graph.edges);
        assert!(graph.edges.iter().any(|edge| edge.src < edge.dst), "there are cycles");
        for wrong in [Shape { nodes: 10, ..shape() }, Shape { edges: 10_000_000, ..shape() }, Shape { failed: 0, ..shape() }] {
            assert!(Graph::new(&wrong).is_err());
        }
    }

    #[test]
    fn branches_come_and_go_and_all_ends_as_it_began() {
        let mut graph = Graph::new(&shape()).unwrap();
        let count = |reached: &[bool]| reached.iter().filter(|is_reached| **is_reached).count() as i64;
        let first = graph.reached();
        assert!(100 < count(&first) && count(&first) <= 1_800, "the core is reached, no branch is");
        let mut reached = first.clone();
        let mut updates = graph.updates(7, 40);
        let mut kinds = Vec::new();
        while let Some(change) = updates.next(&mut graph, &reached) {
            let now = graph.reached();
            match change.kind {
                "attach" => assert_eq!(count(&now) - count(&reached), 10),
                "detach" => assert_eq!(count(&now) - count(&reached), -10),
                "cut" => assert!(count(&now) <= count(&reached)),
                _ => assert!(count(&reached) <= count(&now)),
            }
            reached = now;
            kinds.push(change.kind);
        }
        assert_eq!(kinds[..5], ["attach", "detach", "cut", "mend", "attach"]);
        assert_eq!(kinds.len(), 40);
        assert_eq!(reached, first);
    }
}
