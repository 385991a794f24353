//! The impact's functions, over the rules in `impact`.

use super::Kind::{BigInt, Double, Id, Time};
use super::cascade::{GROUP, GROUPS, Graph, MEMBERS, NODE, NODE_ID, STARTS, duration, outage, say, say_down, table, without_notes};
use super::{Call, Column, Function, Names, Parameter, ParameterKind, Row, Table, Writer, column, optional};
use crate::arrange::Bytes;
use crate::cascade::downtime::ROUNDS_MAX as DOWN_ROUNDS_MAX;
use crate::cascade::{Flaw, ROUNDS_MAX, Relation};
use crate::impact::controls::{Choice, Cover, Repeated, UNITS_PER_EFFECT, choose_controls};
use crate::impact::inoperability::{COEFFICIENT_MAX, LEVELS_MAX, UNITS_PER_COEFFICIENT, inoperability, sensitivity};
use crate::impact::scenario_downtime::scenario_downtime;
use crate::impact::what_if::{Radius, blast_radius, what_if};
use crate::impact::{AMOUNT_MAX, UNITS_PER_AMOUNT, units};
use crate::stream::Rows;

pub static FUNCTIONS: [Function; 6] = [
    Function {
        name: "what_if",
        about: "which nodes fail in each scenario, of which all are followed at once",
        relations: &[SCENARIOS, GROUPS, table("members", &[GROUP, NODE])],
        options: &[],
        output: &[SCENARIO, NODE],
        key: &[0, 1],
        run: run_what_if,
    },
    Function {
        name: "blast_radius",
        about: "how many nodes each scenario takes with it, and what they cost; to a millionth",
        relations: &[
            SCENARIOS,
            GROUPS,
            table("members", &[GROUP, NODE]),
            Table { name: "losses", is_optional: true, columns: &[NODE, LOSS] },
        ],
        options: &[],
        output: &[SCENARIO, column("nodes", BigInt), LOSS],
        key: &[0],
        run: run_blast_radius,
    },
    Function {
        name: "scenario_downtime",
        about: "from when to when each node is down, as downtime() says it, in each scenario",
        relations: &[
            table("outages", &[SCENARIO, NODE, STARTS, optional("ends", Time)]),
            GROUPS,
            MEMBERS,
            Table { name: "nodes", is_optional: true, columns: &[NODE, column("restart_ms", BigInt)] },
        ],
        options: &[Parameter { name: "horizon", kind: ParameterKind::Time, default: None }],
        output: &[SCENARIO, NODE, STARTS, column("ends", Time)],
        key: &[0, 1, 2],
        run: run_scenario_downtime,
    },
    Function {
        name: "inoperability",
        about: "what part of each node's work fails, where what a node lacks passes on in shares; in whole levels",
        relations: &[table("shocks", &[NODE, PART]), DEPENDENCIES],
        options: &[Parameter { name: "levels", kind: ParameterKind::Integer { min: 1, max: LEVELS_MAX }, default: Some(1_000_000) }],
        output: &[NODE, PART],
        key: &[0],
        run: run_inoperability,
    },
    Function {
        name: "sensitivity",
        about: "what it costs in all that a node fails by itself, where what it lacks passes on in shares; to a millionth",
        relations: &[table("losses", &[NODE, LOSS]), DEPENDENCIES],
        options: &[],
        output: &[NODE, column("sensitivity", Double)],
        key: &[0],
        run: run_sensitivity,
    },
    Function {
        name: "choose_controls",
        about: "which controls to take for a budget, step by step, and how much of the findings' loss each averts",
        relations: &[
            table("controls", &[CONTROL, COST]),
            table("covers", &[CONTROL, FINDING, optional("way", Id(WAY_ID)), optional("effectiveness", Double)]),
            table("findings", &[FINDING, LOSS]),
            Table { name: "exclusions", is_optional: true, columns: &[CONTROL, column("other", Id(CONTROL_ID))] },
        ],
        options: &[Parameter { name: "budget", kind: ParameterKind::Integer { min: 0, max: AMOUNT_MAX as i64 }, default: None }],
        output: &[CONTROL, column("step", BigInt), COST, column("averted", Double)],
        key: &[0],
        run: run_choose_controls,
    },
];

const SCENARIO_ID: &str = "scenario";
const CONTROL_ID: &str = "control";
const WAY_ID: &str = "way";

const SCENARIO: Column = column("scenario", Id(SCENARIO_ID));
const LOSS: Column = column("loss", Double);
const COST: Column = column("cost", Double);
const PART: Column = column("inoperability", Double);
const CONTROL: Column = column("control", Id(CONTROL_ID));
const FINDING: Column = column("finding", Id("finding"));
const SCENARIOS: Table = table("scenarios", &[SCENARIO, NODE]);
const DEPENDENCIES: Table = table("dependencies", &[NODE, column("needs", Id(NODE_ID)), column("coefficient", Double)]);

fn run_what_if(call: Call<'_>) -> Rows<'_, u64> {
    let scenarios = call.relation(0, |row| Ok((row.id(0)?, row.id(1)?)));
    let graph = Graph::of(&call, 1, |_| Ok(()));
    let pairs = what_if(scenarios, graph.gates, without_notes(graph.members), call.usage.clone());
    let write = |(scenario, node): &(Bytes, Bytes), row: &mut Writer| {
        row.id(Some(scenario));
        row.id(Some(node));
    };
    call.answer(pairs, graph.flaws, write, say)
}

fn run_blast_radius(call: Call<'_>) -> Rows<'_, u64> {
    let scenarios = call.relation(0, |row| Ok((row.id(0)?, row.id(1)?)));
    let graph = Graph::of(&call, 1, |_| Ok(()));
    let members = without_notes(graph.members);
    let radii = blast_radius(scenarios, graph.gates, members, losses(&call, 3), call.usage.clone());
    let write = |(scenario, radius): &(Bytes, Radius), row: &mut Writer| {
        row.id(Some(scenario));
        row.integer(Some(radius.nodes));
        row.double(Some(radius.loss as f64 / UNITS_PER_AMOUNT));
    };
    call.answer(radii, graph.flaws, write, say)
}

fn run_scenario_downtime(call: Call<'_>) -> Rows<'_, u64> {
    let horizon = call.option(0);
    let outages = call.relation(0, move |row| Ok(((row.id(0)?, row.id(1)?), outage(row, 2, horizon)?)));
    let graph = Graph::of(&call, 1, |row| duration(row, 2));
    let restarts = call.relation(3, |row| Ok((row.id(0)?, duration(row, 1)?)));
    let down = scenario_downtime(outages, graph.gates, graph.members, restarts, horizon, DOWN_ROUNDS_MAX, call.usage.clone());
    let each = down.rows.flat_map(|(cell, down)| down.into_iter().map(move |interval| (cell.clone(), interval)));
    let write = |((scenario, node), (start, end)): &((Bytes, Bytes), (i64, i64)), row: &mut Writer| {
        row.id(Some(scenario));
        row.id(Some(node));
        row.integer(Some(*start));
        row.integer(Some(*end));
    };
    let unsettled = down.unsettled.map(|scenario| (Some(scenario), Flaw::Unsettled));
    call.answer(each, graph.flaws.map(|flaw| (None, flaw)).concat(unsettled), write, |(scenario, flaw), names| match scenario {
        Some(scenario) => format!("scenario {}: {}", names.show(SCENARIO_ID, scenario), say_down(flaw, names)),
        None => say_down(flaw, names),
    })
}

fn run_inoperability(call: Call<'_>) -> Rows<'_, u64> {
    let levels = call.option(0);
    let shocks = call.relation(0, move |row| Ok((row.id(0)?, (part(row, 1)? * levels as f64).round() as i64)));
    let parts = inoperability(shocks, dependencies(&call), levels, ROUNDS_MAX, call.usage.clone());
    let write = move |(node, part): &(Bytes, i64), row: &mut Writer| {
        row.id(Some(node));
        row.double(Some(*part as f64 / levels as f64));
    };
    call.answer(parts.rows, parts.flaws, write, say_unsettled)
}

fn run_sensitivity(call: Call<'_>) -> Rows<'_, u64> {
    let worth = sensitivity(losses(&call, 0), dependencies(&call), ROUNDS_MAX, call.usage.clone());
    let known = worth.rows.clone().flat_map(|(node, worth)| worth.map(|worth| (node, worth)));
    let unknown = worth.rows.flat_map(|(node, worth)| worth.is_none().then_some(Some(node)));
    let write = |(node, worth): &(Bytes, i64), row: &mut Writer| {
        row.id(Some(node));
        row.double(Some(*worth as f64 / UNITS_PER_AMOUNT));
    };
    call.answer(known, unknown.concat(worth.flaws.map(|_| None)), write, |node, names| match node {
        Some(node) => {
            format!("the sensitivity of {} has no bound: around a cycle its loss comes back undiminished", names.show(NODE_ID, node))
        }
        None => format!("what goes round did not settle in {ROUNDS_MAX} rounds: it does where it comes back smaller"),
    })
}

fn run_choose_controls(call: Call<'_>) -> Rows<'_, u64> {
    let controls = call.relation(0, |row| Ok((row.id(0)?, amount(row, 1)?)));
    let covers = call.relation(1, |row| {
        let effect = row.double_or_null(3).map_or(Ok(1.0), |_| part(row, 3))?;
        let effect = (effect * UNITS_PER_EFFECT as f64).round() as i64;
        Ok(Cover { control: row.id(0)?, finding: row.id(1)?, way: row.id_or_null(2), effect })
    });
    let findings = call.relation(2, |row| Ok((row.id(0)?, amount(row, 1)?)));
    let exclusions = call.relation(3, |row| Ok((row.id(0)?, row.id(1)?)));
    let (chosen, repeated) = choose_controls(controls, covers, findings, exclusions, units(call.option(0) as f64), call.usage.clone());
    let write = |(control, choice): &(Bytes, Choice), row: &mut Writer| {
        row.id(Some(control));
        row.integer(Some(choice.step));
        row.double(Some(choice.cost as f64 / UNITS_PER_AMOUNT));
        row.double(Some(choice.averted as f64 / UNITS_PER_AMOUNT));
    };
    call.answer(chosen, repeated, write, |Repeated(control), names| {
        format!("controls: {} has several costs", names.show(CONTROL_ID, control))
    })
}

/// (node, loss) of the relation at `index`.
fn losses<'scope>(call: &Call<'scope>, index: usize) -> Relation<'scope, u64, (Bytes, i64)> {
    call.relation(index, |row| Ok((row.id(0)?, amount(row, 1)?)))
}

/// (node, (what it needs, coefficient)) of [`DEPENDENCIES`].
fn dependencies<'scope>(call: &Call<'scope>) -> Relation<'scope, u64, (Bytes, (Bytes, i64))> {
    call.relation(1, |row| {
        let coefficient = row.double(2)?;
        match (0.0..=COEFFICIENT_MAX).contains(&coefficient) {
            true => Ok((row.id(0)?, (row.id(1)?, (coefficient * UNITS_PER_COEFFICIENT as f64).round() as i64))),
            false => Err(row.refusal(2, &format!("is not between 0 and {COEFFICIENT_MAX}"))),
        }
    })
}

fn amount(row: &Row, column: usize) -> Result<i64, String> {
    let amount = row.double(column)?;
    match (0.0..=AMOUNT_MAX).contains(&amount) {
        true => Ok(units(amount)),
        false => Err(row.refusal(column, &format!("is not between 0 and {AMOUNT_MAX}"))),
    }
}

fn part(row: &Row, column: usize) -> Result<f64, String> {
    let part = row.double(column)?;
    match (0.0..=1.0).contains(&part) {
        true => Ok(part),
        false => Err(row.refusal(column, "is not between 0 and 1")),
    }
}

fn say_unsettled(_: &Flaw<Bytes>, _: &Names) -> String {
    format!("what goes round did not settle in {ROUNDS_MAX} rounds: with fewer levels it does sooner, or where it comes back smaller")
}
