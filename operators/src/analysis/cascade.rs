//! The cascade's functions, over the rules in `cascade`.

use super::Kind::{BigInt, Boolean, Double, Id, Ids, Time};
use super::{Call, Column, Function, Names, Parameter, ParameterKind, Row, Table, Writer, column, optional};
use crate::arrange::Bytes;
use crate::cascade::downtime::{ROUNDS_MAX as DOWN_ROUNDS_MAX, downtime};
use crate::cascade::impact_causes::impact_causes;
use crate::cascade::lanes::{BLOCK_LANES, Chance, chance, failure_counts};
use crate::cascade::reach::{reach, restoration_order};
use crate::cascade::risk_chains::{Edge, HOPS_MAX, IMPACT_MAX, UNITS_PER_IMPACT, UNITS_PER_LIKELIHOOD, risk_chains, total_risk};
use crate::cascade::time_to_impact::{Impact, time_to_impact};
use crate::cascade::{DURATION_MS_MAX, Flaw, Gate, Group, ROUNDS_MAX, Relation, TIME_MS_MAX, gates};
use crate::stream::Rows;

pub static FUNCTIONS: [Function; 8] = [
    Function {
        name: "reach",
        about: "which nodes fail: those that are down, and those of a group that lacks too many of its members",
        relations: &[table("outages", &[NODE]), GROUPS, table("members", &[GROUP, NODE])],
        options: &[],
        output: &[NODE],
        key: &[0],
        run: run_reach,
    },
    Function {
        name: "restoration_order",
        about: "of what fails, what can start at which step; never (NULL) what waits for itself or is not repairable",
        relations: &[table("outages", &[NODE, optional("repairable", Boolean)]), GROUPS, table("members", &[GROUP, NODE])],
        options: &[],
        output: &[NODE, column("step", BigInt)],
        key: &[0],
        run: run_restoration_order,
    },
    Function {
        name: "time_to_impact",
        about: "when each node fails at the earliest, counting buffers and delays, and through how many groups",
        relations: &[table("outages", &[NODE, STARTS]), GROUPS, MEMBERS],
        options: &[],
        output: &[NODE, STARTS, column("hops", BigInt)],
        key: &[0],
        run: run_time_to_impact,
    },
    Function {
        name: "impact_causes",
        about: "why each node fails when it does: its own outage (NULL), or the failed members of a group; the critical ones are the path",
        relations: &[table("outages", &[NODE, STARTS]), GROUPS, MEMBERS],
        options: &[],
        output: &[NODE, STARTS, column("hops", BigInt), GROUP, column("cause", Id(NODE_ID)), column("critical", Boolean)],
        key: &[],
        run: run_impact_causes,
    },
    Function {
        name: "downtime",
        about: "from when to when each node is down, counting buffers, delays, repair and restart, up to a horizon",
        relations: &[
            table("outages", &[NODE, STARTS, optional("ends", Time)]),
            GROUPS,
            MEMBERS,
            Table { name: "nodes", is_optional: true, columns: &[NODE, column("restart_ms", BigInt)] },
        ],
        options: &[Parameter { name: "horizon", kind: ParameterKind::Time, default: None }],
        output: &[NODE, STARTS, column("ends", Time)],
        key: &[0, 1],
        run: run_downtime,
    },
    Function {
        name: "failure_probability",
        about: "how likely each node fails, of so many random samples of what fails by itself and what it takes with it",
        relations: &[
            table("nodes", &[NODE, column("probability", Double)]),
            GROUPS,
            table("members", &[GROUP, NODE, optional("probability", Double)]),
        ],
        options: &[
            Parameter { name: "samples", kind: ParameterKind::Integer { min: BLOCK_LANES, max: SAMPLES_MAX }, default: Some(4096) },
            Parameter { name: "seed", kind: ParameterKind::Integer { min: 0, max: i64::MAX }, default: Some(0) },
        ],
        output: &[NODE, column("failures", BigInt), column("probability", Double)],
        key: &[0],
        run: run_failure_probability,
    },
    Function {
        name: "risk_chains",
        about: "the worst chains of so many hops from each node, by likelihood and impact; to a millionth",
        relations: &[EDGES],
        options: &[HOPS, Parameter { name: "top", kind: ParameterKind::Integer { min: 1, max: TOP_MAX }, default: Some(1) }],
        output: &[NODE, column("rank", BigInt), column("risk", Double), column("path", Ids(NODE_ID))],
        key: &[0, 1],
        run: run_risk_chains,
    },
    Function {
        name: "total_risk",
        about: "the risk of all chains of so many hops from each node together; to a millionth",
        relations: &[EDGES],
        options: &[HOPS],
        output: &[NODE, column("risk", Double)],
        key: &[0],
        run: run_total_risk,
    },
];

pub(super) const NODE_ID: &str = "node";
const GROUP_ID: &str = "group";

pub(super) const NODE: Column = column("node", Id(NODE_ID));
pub(super) const GROUP: Column = column("group_id", Id(GROUP_ID));
pub(super) const STARTS: Column = column("starts", Time);
pub(super) const GROUPS: Table = table("groups", &[GROUP, NODE, optional("need", BigInt), optional("buffer_ms", BigInt)]);
pub(super) const MEMBERS: Table = table("members", &[GROUP, NODE, optional("delay_ms", BigInt)]);
const EDGES: Table = table("edges", &[NODE, column("target", Id(NODE_ID)), column("likelihood", Double), column("impact", Double)]);
const HOPS: Parameter = Parameter { name: "hops", kind: ParameterKind::Integer { min: 1, max: HOPS_MAX }, default: Some(5) };

/// A standard error of at most .002.
const SAMPLES_MAX: i64 = 65_536;
const TOP_MAX: i64 = 100;

pub(super) const fn table(name: &'static str, columns: &'static [Column]) -> Table {
    Table { name, is_optional: false, columns }
}

fn run_reach(call: Call<'_>) -> Rows<'_, u64> {
    let outages = call.relation(0, |row| row.id(0));
    let graph = Graph::of(&call, 1, |_| Ok(()));
    let failed = reach(outages, graph.gates, without_notes(graph.members), ROUNDS_MAX);
    call.answer(failed.rows, graph.flaws.concat(failed.flaws), |node, row| row.id(Some(node)), say)
}

fn run_restoration_order(call: Call<'_>) -> Rows<'_, u64> {
    let outages = call.relation(0, |row| Ok((row.id(0)?, row.boolean_or_null(1).unwrap_or(true))));
    let graph = Graph::of(&call, 1, |_| Ok(()));
    let members = without_notes(graph.members);
    let failed = reach(outages.clone().map(|(node, _)| node), graph.gates.clone(), members.clone(), ROUNDS_MAX);
    let order = restoration_order(outages, failed.rows, graph.gates, members, ROUNDS_MAX);
    let write = |(node, step): &(Bytes, Option<i64>), row: &mut Writer| {
        row.id(Some(node));
        row.integer(*step);
    };
    call.answer(order.rows, graph.flaws.concat(failed.flaws).concat(order.flaws), write, say)
}

fn run_time_to_impact(call: Call<'_>) -> Rows<'_, u64> {
    let outages = call.relation(0, |row| Ok((row.id(0)?, time(row, 1)?)));
    let graph = Graph::of(&call, 1, |row| duration(row, 2));
    let impacts = time_to_impact(outages, graph.gates, graph.members, ROUNDS_MAX);
    let write = |(node, impact): &(Bytes, Impact), row: &mut Writer| {
        row.id(Some(node));
        row.integer(Some(impact.at));
        row.integer(Some(impact.hops));
    };
    call.answer(impacts.rows, graph.flaws.concat(impacts.flaws), write, say)
}

fn run_impact_causes(call: Call<'_>) -> Rows<'_, u64> {
    let outages = call.relation(0, |row| Ok((row.id(0)?, time(row, 1)?)));
    let graph = Graph::of(&call, 1, |row| duration(row, 2));
    let impacts = time_to_impact(outages.clone(), graph.gates.clone(), graph.members.clone(), ROUNDS_MAX);
    let causes = impact_causes(outages, graph.gates, graph.members, impacts.rows);
    call.answer(
        causes,
        graph.flaws.concat(impacts.flaws),
        |(node, cause), row| {
            row.id(Some(node));
            row.integer(Some(cause.at));
            row.integer(Some(cause.hops));
            row.id(cause.through.as_ref().map(|(group, _)| group));
            row.id(cause.through.as_ref().map(|(_, member)| member));
            row.boolean(Some(cause.is_critical));
        },
        say,
    )
}

fn run_downtime(call: Call<'_>) -> Rows<'_, u64> {
    let horizon = call.option(0);
    let outages = call.relation(0, move |row| Ok((row.id(0)?, outage(row, 1, horizon)?)));
    let graph = Graph::of(&call, 1, |row| duration(row, 2));
    let restarts = call.relation(3, |row| Ok((row.id(0)?, duration(row, 1)?)));
    let down = downtime(outages, graph.gates, graph.members, restarts, horizon, DOWN_ROUNDS_MAX);
    let each = down.rows.flat_map(|(node, down)| down.into_iter().map(move |interval| (node.clone(), interval)));
    let write = |(node, (start, end)): &(Bytes, (i64, i64)), row: &mut Writer| {
        row.id(Some(node));
        row.integer(Some(*start));
        row.integer(Some(*end));
    };
    call.answer(each, graph.flaws.concat(down.flaws), write, say_down)
}

fn run_failure_probability(call: Call<'_>) -> Rows<'_, u64> {
    // Whole blocks are drawn.
    let (blocks, seed) = (((call.option(0) + BLOCK_LANES - 1) / BLOCK_LANES) as u32, call.option(1) as u64);
    let nodes = call.relation(0, |row| Ok((row.id(0)?, probability(row, 1)?)));
    let graph = Graph::of(&call, 1, |row| match row.double_or_null(2) {
        None => Ok(None),
        Some(_) => probability(row, 2),
    });
    let counts = failure_counts(nodes, graph.gates, graph.members, blocks, seed, ROUNDS_MAX);
    let samples = f64::from(blocks) * BLOCK_LANES as f64;
    let write = move |(node, count): &(Bytes, i64), row: &mut Writer| {
        row.id(Some(node));
        row.integer(Some(*count));
        row.double(Some(*count as f64 / samples));
    };
    call.answer(counts.rows, graph.flaws.concat(counts.flaws), write, say)
}

fn run_risk_chains(call: Call<'_>) -> Rows<'_, u64> {
    let edges = call.relation(0, edge);
    let none = edges.clone().flat_map(|_| None::<Flaw<Bytes>>);
    let chains = risk_chains(edges, call.option(0), call.option(1));
    call.answer(
        chains,
        none,
        |(node, (rank, chain)), row| {
            row.id(Some(node));
            row.integer(Some(*rank));
            row.double(Some(chain.risks[0] as f64 / UNITS_PER_IMPACT));
            row.ids(&chain.path);
        },
        say,
    )
}

fn run_total_risk(call: Call<'_>) -> Rows<'_, u64> {
    let total = total_risk(call.relation(0, edge), call.option(0));
    let known = total.clone().flat_map(|(node, total)| total.map(|total| (node, total)));
    let unknown = total.flat_map(|(node, total)| total.is_none().then_some(node));
    let write = |(node, total): &(Bytes, i128), row: &mut Writer| {
        row.id(Some(node));
        row.double(Some(*total as f64 / UNITS_PER_IMPACT));
    };
    call.answer(known, unknown, write, |node, names| format!("the risk of {} is too great to be summed", names.show(NODE_ID, node)))
}

/// Who depends on whom.
pub(super) struct Graph<'scope, N: 'static> {
    pub gates: Relation<'scope, u64, (Bytes, Gate<Bytes>)>,
    /// By node: its group, and what is noted of that.
    pub members: Relation<'scope, u64, (Bytes, (Bytes, N))>,
    pub flaws: Relation<'scope, u64, Flaw<Bytes>>,
}

impl<'scope, N: Clone + 'static> Graph<'scope, N> {
    /// From [`GROUPS`] at `groups`, and the members behind it, of which `note` reads what there is
    /// beside group and node.
    pub fn of(call: &Call<'scope>, groups: usize, note: impl Fn(&Row) -> Result<N, String> + 'static) -> Self {
        let definitions = call.relation(groups, |row| {
            let buffer_ms = duration(row, 3)?;
            Ok((row.id(0)?, Group { node: row.id(1)?, need: row.integer_or_null(2), buffer_ms }))
        });
        let members = call.relation(groups + 1, move |row| Ok((row.id(1)?, (row.id(0)?, note(row)?))));
        let (gates, flaws) = gates(definitions, members.clone().map(|(_, (group, _))| group));
        Self { gates, members, flaws }
    }
}

pub(super) fn without_notes(members: Relation<'_, u64, (Bytes, (Bytes, ()))>) -> Relation<'_, u64, (Bytes, Bytes)> {
    members.map(|(node, (group, ()))| (node, group))
}

/// From the time at `starts` to the one behind it, or to the horizon.
pub(super) fn outage(row: &Row, starts: usize, horizon: i64) -> Result<(i64, i64), String> {
    let (start, end) = (time(row, starts)?, row.integer_or_null(starts + 1).map_or(Ok(horizon), |_| time(row, starts + 1))?);
    match start <= end || row.integer_or_null(starts + 1).is_none() {
        true => Ok((start, end)),
        false => Err(row.refusal(starts + 1, "is before it starts")),
    }
}

fn time(row: &Row, column: usize) -> Result<i64, String> {
    let time = row.integer(column)?;
    match time.unsigned_abs() <= TIME_MS_MAX as u64 {
        true => Ok(time),
        false => Err(row.refusal(column, "is further away than times may be")),
    }
}

/// NULL is 0.
pub(super) fn duration(row: &Row, column: usize) -> Result<i64, String> {
    match row.integer_or_null(column).unwrap_or(0) {
        duration @ 0..=DURATION_MS_MAX => Ok(duration),
        ..0 => Err(row.refusal(column, "is negative")),
        _ => Err(row.refusal(column, &format!("is more than {DURATION_MS_MAX} ms"))),
    }
}

fn probability(row: &Row, column: usize) -> Result<Chance, String> {
    let probability = row.double(column)?;
    match (0.0..=1.0).contains(&probability) {
        true => Ok(chance(probability)),
        false => Err(row.refusal(column, "is not between 0 and 1")),
    }
}

fn edge(row: &Row) -> Result<(Bytes, (Bytes, Edge)), String> {
    let (likelihood, impact) = (row.double(2)?, row.double(3)?);
    if !(0.0..=1.0).contains(&likelihood) {
        return Err(row.refusal(2, "is not between 0 and 1"));
    }
    if !(0.0..=IMPACT_MAX).contains(&impact) {
        return Err(row.refusal(3, &format!("is not between 0 and {IMPACT_MAX}")));
    }
    let likelihood = (likelihood * UNITS_PER_LIKELIHOOD as f64).round() as i64;
    let impact = (impact * UNITS_PER_IMPACT).round() as i64;
    Ok((row.id(0)?, (row.id(1)?, Edge { likelihood, impact })))
}

/// Of a cascade in time.
pub(super) fn say_down(flaw: &Flaw<Bytes>, names: &Names) -> String {
    match flaw {
        Flaw::Unsettled => format!(
            "nodes that need several of one another keep each other down over more than {DOWN_ROUNDS_MAX} restarts: \
             with longer restarts or a nearer horizon there are fewer"
        ),
        other => say(other, names),
    }
}

pub(super) fn say(flaw: &Flaw<Bytes>, names: &Names) -> String {
    match flaw {
        Flaw::Repeated { group, count } => format!("groups: {} is defined {count} times", names.show(GROUP_ID, group)),
        Flaw::Need { group, need, members } => {
            format!("groups: {} needs {need} of its {members} members", names.show(GROUP_ID, group))
        }
        Flaw::Unsettled => format!("the cascade did not settle in {ROUNDS_MAX} rounds"),
    }
}
