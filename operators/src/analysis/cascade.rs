//! The cascade's functions, over the rules in `cascade`.

use super::Kind::{BigInt, Id, Time};
use super::{Call, Function, Names, Row, Table, Writer, column, optional};
use crate::arrange::Bytes;
use crate::cascade::time_to_impact::time_to_impact;
use crate::cascade::{DURATION_MS_MAX, Flaw, Gate, Group, ROUNDS_MAX, Relation, TIME_MS_MAX, gates};
use crate::stream::Rows;

pub static FUNCTIONS: [Function; 1] = [Function {
    name: "time_to_impact",
    about: "when each node fails at the earliest, and through how many groups, counting buffers and delays",
    relations: &[OUTAGES, GROUPS, MEMBERS],
    options: &[],
    output: &[column("node", Id(NODE)), column("at", Time), column("hops", BigInt)],
    key: &[0],
    run: time_to_impact_of,
}];

const NODE: &str = "node";
const GROUP: &str = "group";

const OUTAGES: Table = Table { name: "outages", is_optional: false, columns: &[column("node", Id(NODE)), column("starts", Time)] };
const GROUPS: Table = Table {
    name: "groups",
    is_optional: false,
    columns: &[column("group_id", Id(GROUP)), column("node", Id(NODE)), optional("need", BigInt), optional("buffer_ms", BigInt)],
};
const MEMBERS: Table = Table {
    name: "members",
    is_optional: false,
    columns: &[column("group_id", Id(GROUP)), column("node", Id(NODE)), optional("delay_ms", BigInt)],
};

fn time_to_impact_of(call: Call<'_>) -> Rows<'_, u64> {
    let outages = call.relation(0, |row| Ok((row.id(0)?, time(row, 1)?)));
    let graph = Graph::of(&call, 1);
    let settled = time_to_impact(outages, graph.gates, graph.members, ROUNDS_MAX);
    let write = |(node, impact): &(Bytes, crate::cascade::time_to_impact::Impact), row: &mut Writer| {
        row.id(Some(node));
        row.integer(Some(impact.at));
        row.integer(Some(impact.hops));
    };
    call.answer(settled.rows, graph.flaws.concat(settled.flaws), write, say)
}

/// Who depends on whom.
struct Graph<'scope> {
    gates: Relation<'scope, u64, (Bytes, Gate<Bytes>)>,
    /// By node: its group, and the delay.
    members: Relation<'scope, u64, (Bytes, (Bytes, i64))>,
    flaws: Relation<'scope, u64, Flaw<Bytes>>,
}

impl<'scope> Graph<'scope> {
    /// From [`GROUPS`] at `groups`, and [`MEMBERS`] behind it.
    fn of(call: &Call<'scope>, groups: usize) -> Self {
        let definitions = call.relation(groups, |row| {
            let buffer_ms = duration(row, 3)?;
            Ok((row.id(0)?, Group { node: row.id(1)?, need: row.integer_or_null(2), buffer_ms }))
        });
        let members = call.relation(groups + 1, |row| Ok((row.id(1)?, (row.id(0)?, duration(row, 2)?))));
        let (gates, flaws) = gates(definitions, members.clone().map(|(_, (group, _))| group));
        Self { gates, members, flaws }
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
fn duration(row: &Row, column: usize) -> Result<i64, String> {
    match row.integer_or_null(column).unwrap_or(0) {
        duration @ 0..=DURATION_MS_MAX => Ok(duration),
        ..0 => Err(row.refusal(column, "is negative")),
        _ => Err(row.refusal(column, &format!("is more than {DURATION_MS_MAX} ms"))),
    }
}

fn say(flaw: &Flaw<Bytes>, names: &Names) -> String {
    match flaw {
        Flaw::Repeated { group, count } => format!("groups: {} is defined {count} times", names.show(GROUP, group)),
        Flaw::Need { group, need, members } => {
            format!("groups: {} needs {need} of its {members} members", names.show(GROUP, group))
        }
        Flaw::Unsettled => format!("the cascade did not settle in {ROUNDS_MAX} rounds"),
    }
}
