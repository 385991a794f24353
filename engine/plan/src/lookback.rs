//! What a view still needs of a source's past: which rows must be there after a restart, so that all
//! that changes from then on changes rightly. What is older shows only in rows the view gave, and
//! those are kept. Who is made anew has no such rows, and needs what all of its rows are made of.
//!
//! Needs     what an operator's state is made of, until the state is freed
//! Content   what the rows that are there are made of; for an operator that frees nothing, that is
//!           what it needs
//! Intake    where a source's rows come into a view. Behind it only which rows there are counts, not
//!           when they came: who needs all of them is served as well with equal rows as one, and a count

use std::fmt;
use std::sync::Arc;

use tidegate_operators::temporal::ClockColumn;

use crate::catalog::{Catalog, RelationKind};
use crate::node::{ColumnBound, Node, NodeRef, Op};

/// Intervals are cut to milliseconds, and a bound that does not count itself is passed one later.
const ROUNDING_MS: i64 = 2;

/// The rows of one source that are needed, by their event time.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookback {
    /// None: what a row does, it does when it comes.
    Nothing,
    /// Those not before the least of these clocks, each less so many milliseconds; and those without a time.
    Since(Vec<(ClockColumn, i64)>),
    /// All, for this operator.
    All(&'static str),
}

impl Lookback {
    /// What both need.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, need) | (need, Self::Nothing) => need,
            (Self::All(operator), _) | (_, Self::All(operator)) => Self::All(operator),
            (Self::Since(mut clocks), Self::Since(more)) => {
                for (clock, ms) in more {
                    match clocks.iter_mut().find(|(known, _)| *known == clock) {
                        Some((_, known)) => *known = ms.max(*known),
                        None => clocks.push((clock, ms)),
                    }
                }
                Self::Since(clocks)
            }
        }
    }

    /// The event time from which on rows are needed, in milliseconds; None: all are. `read` reads a
    /// clock, which may not have begun.
    pub fn horizon(&self, read: impl Fn(ClockColumn) -> Option<i64>) -> Option<i64> {
        match self {
            Self::Nothing => Some(i64::MAX),
            Self::All(_) => None,
            Self::Since(clocks) => {
                let times: Option<Vec<i64>> = clocks.iter().map(|(clock, ms)| Some(read(*clock)?.saturating_sub(*ms))).collect();
                times?.into_iter().min().map(|time| time.saturating_sub(ROUNDING_MS))
            }
        }
    }

    /// For people.
    pub fn shown(&self, catalog: &Catalog) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::All(operator) => format!("everything, as counts of equal rows, for its {operator}"),
            Self::Since(clocks) => {
                let clocks: Vec<String> = clocks.iter().map(|(clock, ms)| Since(*clock, *ms, catalog).to_string()).collect();
                format!("what is not before {}", clocks.join(" and "))
            }
        }
    }
}

struct Since<'a>(ClockColumn, i64, &'a Catalog);

impl fmt::Display for Since<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(clock, ms, catalog) = self;
        match clock {
            ClockColumn::Now => write!(f, "now() - {ms} ms"),
            ClockColumn::Watermark(source) => f.write_str(&crate::explain::watermark(*source, *ms, catalog)),
        }
    }
}

/// What `node` needs of the source it reads by the name `relation`.
pub fn lookback(node: &Node, relation: &str, catalog: &Catalog) -> Lookback {
    reach(relation, catalog).map_or(Lookback::Nothing, |reach| reach.needs(node))
}

/// What `node` needs of the source it reads by the name `relation` to have all rows when it is made anew.
pub fn past(node: &Node, relation: &str, catalog: &Catalog) -> Lookback {
    reach(relation, catalog).map_or(Lookback::Nothing, |reach| reach.content(node, "view").and(reach.needs(node)))
}

fn reach<'a>(relation: &'a str, catalog: &Catalog) -> Option<Reach<'a>> {
    match catalog.get(relation).map(|relation| &relation.kind) {
        Some(RelationKind::Source(info)) => Some(Reach { relation, source: info.index }),
        _ => None,
    }
}

/// Where the rows of `relation` come into `node`: behind these filters and projections, if nothing
/// else reads it; else as they are, which is None.
pub fn intakes(node: &NodeRef, relation: &str) -> Vec<Option<NodeRef>> {
    let is_scan = |node: &NodeRef| matches!(&node.op, Op::Scan { relation: name } if name == relation);
    let mut programs = Vec::new();
    if is_scan(node) {
        return vec![None];
    }
    for parent in [node].into_iter().chain(node.below()) {
        match &parent.op {
            Op::Program { input, .. } if is_scan(input) => programs.push(Some(Arc::clone(parent))),
            _ if parent.inputs().into_iter().any(is_scan) => return vec![None],
            _ => {}
        }
    }
    programs
}

struct Reach<'a> {
    relation: &'a str,
    /// Its index among watermarks.
    source: usize,
}

impl Reach<'_> {
    fn reads(&self, node: &Node) -> bool {
        node.all().iter().any(|node| matches!(&node.op, Op::Scan { relation } if relation == self.relation))
    }

    fn needs(&self, node: &Node) -> Lookback {
        let below = node.inputs().into_iter().map(|input| self.needs(input)).fold(Lookback::Nothing, Lookback::and);
        below.and(self.own(node))
    }

    /// What the operator itself keeps.
    fn own(&self, node: &Node) -> Lookback {
        match &node.op {
            Op::Scan { .. }
            | Op::Constant { .. }
            | Op::Program { .. }
            | Op::Combine { .. }
            | Op::Expand { .. }
            | Op::Union { .. }
            | Op::Negate { .. }
            | Op::Recursive { .. } => Lookback::Nothing,
            Op::Temporal { input, plan, enters, leaves, .. } if self.reads(input) => {
                let last = |ends: &[Option<i64>]| ends.iter().try_fold(i64::MIN, |last, end| end.map(|end| last.max(end)));
                match (last(&self.leads(enters)), last(&self.leads(leaves))) {
                    (Some(enter), Some(leave)) => Lookback::Since(vec![(plan.clock, enter.max(leave))]),
                    _ => self.content(input, "Temporal"),
                }
            }
            Op::Temporal { .. } => Lookback::Nothing,
            Op::Join { left, right, left_key, right_key, free, .. } => match free {
                None => self.content(left, "Join").and(self.content(right, "Join")),
                Some(rule) => {
                    let clocks = rule.bounds.map(|(source, slack_ms)| (ClockColumn::Watermark(source), slack_ms));
                    let side = |input: &NodeRef, key: &[usize]| self.freed(input, key[rule.key_column], &clocks, "Join");
                    side(left, left_key).and(side(right, right_key))
                }
            },
            Op::Aggregate { input, plan, .. } => match &plan.free {
                Some(rule) => {
                    let clocks = [(ClockColumn::Watermark(rule.source), rule.slack_ms)];
                    self.freed(input, rule.key_column, &clocks, "Aggregate")
                }
                None => self.content(input, "Aggregate"),
            },
            Op::Distinct { input } => self.content(input, "Distinct"),
            Op::Top { input, .. } => self.content(input, "Top"),
            // A score comes from all readings before it.
            Op::Series { input, .. } => self.content(input, "Series"),
            Op::Recompute { input, .. } => self.content(input, "Recompute"),
            Op::Analysis { inputs, .. } => {
                inputs.iter().map(|input| self.content(input, "Analysis")).fold(Lookback::Nothing, Lookback::and)
            }
            Op::Fixpoint { step, .. } => self.content(step, "Fixpoint"),
        }
    }

    /// State whose rows are freed once each of `clocks`, less its slack, has passed `column`.
    fn freed(&self, input: &NodeRef, column: usize, clocks: &[(ClockColumn, i64)], operator: &'static str) -> Lookback {
        if !self.reads(input) {
            return Lookback::Nothing;
        }
        let of_source = |bound: &&ColumnBound| bound.column == column && bound.source == self.source;
        match input.facts.bounds.iter().find(of_source).and_then(|bound| bound.lead_ms) {
            Some(lead_ms) => Lookback::Since(clocks.iter().map(|(clock, slack_ms)| (*clock, slack_ms.saturating_add(lead_ms))).collect()),
            None => self.content(input, operator),
        }
    }

    fn content(&self, node: &Node, operator: &'static str) -> Lookback {
        match &node.op {
            Op::Scan { relation } if relation == self.relation => Lookback::All(operator),
            Op::Temporal { input, plan, leaves, .. } if self.reads(input) => {
                // Of a row that must leave by several bounds, the first one counts.
                let first = self.leads(leaves).into_iter().flatten().min();
                first.map_or_else(|| self.content(input, operator), |lead_ms| Lookback::Since(vec![(plan.clock, lead_ms)]))
            }
            _ => node.inputs().into_iter().map(|input| self.content(input, operator)).fold(Lookback::Nothing, Lookback::and),
        }
    }

    /// How far behind a row's event time each bound may be, where that is known.
    fn leads(&self, bounds: &[Vec<ColumnBound>]) -> Vec<Option<i64>> {
        let lead = |bound: &Vec<ColumnBound>| bound.iter().find(|bound| bound.source == self.source).and_then(|bound| bound.lead_ms);
        bounds.iter().map(lead).collect()
    }
}
