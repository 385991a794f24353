//! The behavioural monitor's functions, over the rules in `behaviour`.

use std::sync::Arc;

use super::Kind::{BigInt, Boolean, Double, Id, Text, Time};
use super::{Call, Column, Function, Parameter, ParameterKind, Row, Table, Writer, column, optional};
use crate::behaviour::alignment::{self, Alignment, Fit};
use crate::behaviour::automaton::{self, Automaton, Bounds, Breach, Policy, Violation};
use crate::behaviour::event_calculus::{self, Calculus, Interval, Trigger};
use crate::behaviour::surprisal::{self, COUNT_MAX, Model, Surprise};
use crate::behaviour::token_replay::{self, Net, TOKENS_MAX, Tokens};
use crate::behaviour::{Bytes, Finding, NO_SEQ, Name, Protocol, Seen, follow};
use crate::cascade::{DURATION_MS_MAX, Relation};
use crate::stream::Rows;

pub static FUNCTIONS: [Function; 5] = [
    Function {
        name: "violations",
        about: "where cases break a protocol: steps it does not have, by whom it does not let, too early or not in time",
        relations: &[EVENTS_WITH_ROLES, TRANSITIONS, STATES, CLOCK],
        options: &[],
        output: &[
            PROCESS_OUT,
            column("case_id", Id(CASE)),
            column("rule", Text),
            column("state", Id(STATE)),
            optional("since", Time),
            optional("activity", Id(ACTIVITY)),
            optional("role", Id(ROLE)),
            column("at", Time),
            optional("seq", BigInt),
        ],
        key: &[],
        run: violations,
    },
    Function {
        name: "conformance",
        about: "how far each case is from the nearest run of a protocol: steps to add or to pass over",
        relations: &[EVENTS, TRANSITIONS_OF_ANYONE, STATES_WITH_ENDS],
        options: &[],
        output: &[
            PROCESS_OUT,
            column("case_id", Id(CASE)),
            column("events", BigInt),
            column("prefix_cost", BigInt),
            column("cost", BigInt),
            column("shortest", BigInt),
            column("fitness", Double),
        ],
        key: &[0, 1],
        run: conformance,
    },
    Function {
        name: "token_replay",
        about: "how many tokens each case misses in a Petri net, and leaves behind",
        relations: &[EVENTS, ARCS, MARKING],
        options: &[],
        output: &[
            PROCESS_OUT,
            column("case_id", Id(CASE)),
            column("events", BigInt),
            column("produced", BigInt),
            column("consumed", BigInt),
            column("missing", BigInt),
            column("remaining", BigInt),
            column("fitness", Double),
        ],
        key: &[0, 1],
        run: token_replay,
    },
    Function {
        name: "fluents",
        about: "when something holds in each case: begun and ended by events, conditions and lifetimes",
        relations: &[EVENTS, EFFECTS, CONDITIONS, LIFETIMES, CLOCK],
        options: &[],
        output: &[
            PROCESS_OUT,
            column("case_id", Id(CASE)),
            column("fluent", Id(FLUENT)),
            column("since", Time),
            optional("until", Time),
            column("has_expired", Boolean),
        ],
        key: &[0, 1, 2, 3],
        run: fluents,
    },
    Function {
        name: "surprisal",
        about: "how surprising each case's steps are to counts of steps that were learned before",
        relations: &[EVENTS, MODEL],
        options: &[Parameter { name: "smoothing", kind: ParameterKind::Integer { min: 1, max: 1_000_000 }, default: Some(1) }],
        output: &[
            PROCESS_OUT,
            column("case_id", Id(CASE)),
            column("events", BigInt),
            column("bits", Double),
            column("max_bits", Double),
            optional("activity", Id(ACTIVITY)),
            column("next_activity", Id(ACTIVITY)),
            column("at", Time),
            column("end_bits", Double),
            column("unseen", BigInt),
        ],
        key: &[0, 1],
        run: surprising,
    },
];

const PROCESS: &str = "process";
const CASE: &str = "case";
const ACTIVITY: &str = "activity";
const ROLE: &str = "role";
const STATE: &str = "state";
const PLACE: &str = "place";
const RULE: &str = "rule";
const FLUENT: &str = "fluent";

const PROCESS_OUT: Column = optional("process", Id(PROCESS));

const EVENTS: Table = Table {
    name: "events",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("case_id", Id(CASE)),
        column("activity", Id(ACTIVITY)),
        column("ts", Time),
        optional("seq", BigInt),
    ],
};
const EVENTS_WITH_ROLES: Table = Table {
    name: "events",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("case_id", Id(CASE)),
        column("activity", Id(ACTIVITY)),
        column("ts", Time),
        optional("seq", BigInt),
        optional("role", Id(ROLE)),
    ],
};
const TRANSITIONS: Table = Table {
    name: "transitions",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("from_state", Id(STATE)),
        column("activity", Id(ACTIVITY)),
        column("to_state", Id(STATE)),
        optional("role", Id(ROLE)),
        optional("is_timeout", Boolean),
    ],
};
const TRANSITIONS_OF_ANYONE: Table = Table {
    name: "transitions",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("from_state", Id(STATE)),
        column("activity", Id(ACTIVITY)),
        column("to_state", Id(STATE)),
    ],
};
const STATES: Table = Table {
    name: "states",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("state", Id(STATE)),
        optional("is_initial", Boolean),
        optional("min_dwell_ms", BigInt),
        optional("max_dwell_ms", BigInt),
        optional("on_unexpected", Text),
    ],
};
const STATES_WITH_ENDS: Table = Table {
    name: "states",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("state", Id(STATE)),
        optional("is_initial", Boolean),
        optional("is_final", Boolean),
    ],
};
const CLOCK: Table = Table { name: "clock", is_optional: true, columns: &[optional("now", Time)] };
const ARCS: Table = Table {
    name: "arcs",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("activity", Id(ACTIVITY)),
        column("place", Id(PLACE)),
        optional("takes", BigInt),
        optional("puts", BigInt),
    ],
};
const MARKING: Table = Table {
    name: "marking",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("place", Id(PLACE)),
        optional("initial_tokens", BigInt),
        optional("final_tokens", BigInt),
    ],
};
const EFFECTS: Table = Table {
    name: "effects",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        column("rule_id", Id(RULE)),
        optional("activity", Id(ACTIVITY)),
        optional("expired", Id(FLUENT)),
        column("effect", Text),
        column("fluent", Id(FLUENT)),
    ],
};
const CONDITIONS: Table = Table {
    name: "conditions",
    is_optional: true,
    columns: &[optional("process", Id(PROCESS)), column("rule_id", Id(RULE)), column("fluent", Id(FLUENT)), optional("holds", Boolean)],
};
const LIFETIMES: Table = Table {
    name: "lifetimes",
    is_optional: true,
    columns: &[optional("process", Id(PROCESS)), column("fluent", Id(FLUENT)), column("lasts_ms", BigInt), optional("renews", Boolean)],
};
const MODEL: Table = Table {
    name: "model",
    is_optional: false,
    columns: &[
        optional("process", Id(PROCESS)),
        optional("activity", Id(ACTIVITY)),
        optional("next_activity", Id(ACTIVITY)),
        column("steps", BigInt),
    ],
};

fn violations(call: Call<'_>) -> Rows<'_, u64> {
    let transitions = call.relation(1, |row| {
        let (from, activity, to) = (row.id(1)?, row.id(2)?, row.id(3)?);
        let is_timeout = row.boolean_or_null(5).unwrap_or(false);
        Ok((row.id_or_null(0), automaton::Rule::Transition { from, activity, to, role: row.id_or_null(4), is_timeout }))
    });
    let states = call.relation(2, |row| {
        let bounds = Bounds {
            is_initial: row.boolean_or_null(2).unwrap_or(false),
            min_dwell: duration(row, 3)?,
            max_dwell: duration(row, 4)?,
            on_unexpected: policy(row, 5)?,
        };
        Ok((row.id_or_null(0), automaton::Rule::State(row.id(1)?, bounds)))
    });
    let clock = clock(&call, 3);
    answer::<Automaton>(call, transitions.concat(states), Some(clock), |violation: &Violation, row| {
        row.text(match violation.breach {
            Breach::Unexpected => "unexpected",
            Breach::Role => "role",
            Breach::Early => "early",
            Breach::Overdue => "overdue",
        });
        row.id(Some(&violation.state.to_vec()));
        row.integer(violation.since);
        name(row, violation.activity.as_ref());
        name(row, violation.role.as_ref());
        row.integer(Some(violation.at));
        row.integer(violation.seq);
    })
}

fn conformance(call: Call<'_>) -> Rows<'_, u64> {
    let transitions = call.relation(1, |row| {
        let (from, activity, to) = (row.id(1)?, row.id(2)?, row.id(3)?);
        Ok((row.id_or_null(0), alignment::Rule::Transition { from, activity, to }))
    });
    let states = call.relation(2, |row| {
        let [is_initial, is_final] = [2, 3].map(|column| row.boolean_or_null(column).unwrap_or(false));
        Ok((row.id_or_null(0), alignment::Rule::State { state: row.id(1)?, is_initial, is_final }))
    });
    answer::<Alignment>(call, transitions.concat(states), None, |fit: &Fit, row| {
        for number in [fit.events, fit.prefix_cost, fit.cost, fit.shortest] {
            row.integer(Some(number));
        }
        row.double(Some(fit.fitness()));
    })
}

fn token_replay(call: Call<'_>) -> Rows<'_, u64> {
    let arcs = call.relation(1, |row| {
        let (activity, place) = (row.id(1)?, row.id(2)?);
        Ok((row.id_or_null(0), token_replay::Rule::Arc { activity, place, takes: tokens(row, 3)?, puts: tokens(row, 4)? }))
    });
    let marking = call.relation(2, |row| {
        Ok((row.id_or_null(0), token_replay::Rule::Marking { place: row.id(1)?, initial: tokens(row, 2)?, is_final: tokens(row, 3)? }))
    });
    answer::<Net>(call, arcs.concat(marking), None, |tokens: &Tokens, row| {
        for number in [tokens.events, tokens.produced, tokens.consumed, tokens.missing, tokens.remaining] {
            row.integer(Some(number));
        }
        row.double(Some(tokens.fitness()));
    })
}

fn fluents(call: Call<'_>) -> Rows<'_, u64> {
    let effects = call.relation(1, |row| {
        let trigger = match (row.id_or_null(2), row.id_or_null(3)) {
            (Some(activity), None) => Trigger::Activity(activity),
            (None, Some(fluent)) => Trigger::Expiry(fluent),
            (None, None) => return Err(row.refusal(2, "must not be NULL where expired is NULL")),
            (Some(_), Some(_)) => return Err(row.refusal(2, "must be NULL where expired is not: write a row for each")),
        };
        let initiates = match row.text(4) {
            Some("initiates") => true,
            Some("terminates") => false,
            _ => return Err(row.refusal(4, "is neither initiates nor terminates")),
        };
        Ok((row.id_or_null(0), event_calculus::Rule::Effect { rule: row.id(1)?, trigger, initiates, fluent: row.id(5)? }))
    });
    let conditions = call.relation(2, |row| {
        let holds = row.boolean_or_null(3).unwrap_or(true);
        Ok((row.id_or_null(0), event_calculus::Rule::Condition { rule: row.id(1)?, fluent: row.id(2)?, holds }))
    });
    let lifetimes = call.relation(3, |row| {
        let lasts = match duration(row, 2)? {
            Some(lasts @ 1..) => lasts,
            _ => return Err(row.refusal(2, "is no time: a lifetime is 1 ms at least")),
        };
        let renews = row.boolean_or_null(3).unwrap_or(false);
        Ok((row.id_or_null(0), event_calculus::Rule::Lifetime { fluent: row.id(1)?, lasts, renews }))
    });
    let clock = clock(&call, 4);
    answer::<Calculus>(call, effects.concat(conditions).concat(lifetimes), Some(clock), |interval: &Interval, row| {
        row.id(Some(&interval.fluent.to_vec()));
        row.integer(Some(interval.since));
        row.integer(interval.until);
        row.boolean(Some(interval.has_expired));
    })
}

fn surprising(call: Call<'_>) -> Rows<'_, u64> {
    let smoothing = call.option(0);
    let model = call.relation(1, move |row| {
        let count = match row.integer(3)? {
            count @ 0..=COUNT_MAX => count,
            _ => return Err(row.refusal(3, &format!("is not from 0 to {COUNT_MAX}"))),
        };
        Ok((row.id_or_null(0), surprisal::Rule { activity: row.id_or_null(1), next: row.id_or_null(2), count, smoothing }))
    });
    answer::<Model>(call, model, None, |surprise: &Surprise, row| {
        let bits = |millionths: i64| Some(millionths as f64 / 1e6);
        row.integer(Some(surprise.events));
        row.double(bits(surprise.sum));
        row.double(bits(surprise.max));
        name(row, surprise.activity.as_ref());
        name(row, Some(&surprise.next));
        row.integer(Some(surprise.at));
        row.double(bits(surprise.end));
        row.integer(Some(surprise.unseen));
    })
}

/// What the cases of relation 0 say under `rules`.
fn answer<'scope, P: Protocol>(
    call: Call<'scope>,
    rules: Relation<'scope, u64, (Option<Bytes>, P::Rule)>,
    clock: Option<Relation<'scope, u64, i64>>,
    write: impl Fn(&P::Row, &mut Writer) + 'static,
) -> Rows<'scope, u64> {
    let (rows, flaws) = follow::<P>(events(&call), rules, clock, call.usage.clone());
    let write = move |finding: &Finding<P::Row>, row: &mut Writer| {
        row.id(finding.process.as_ref());
        row.id(Some(&finding.case));
        write(&finding.row, row);
    };
    call.answer(rows, flaws, write, |flaw, names| flaw.say(|word, id| names.show(word, id)))
}

fn events<'scope>(call: &Call<'scope>) -> Relation<'scope, u64, Seen> {
    call.relation(0, |row| {
        let seq = match row.integer_or_null(4) {
            Some(NO_SEQ) => return Err(row.refusal(4, "is the lowest BIGINT, which says that there is none")),
            seq => seq.unwrap_or(NO_SEQ),
        };
        let role = if row.has(5) { row.id_or_null(5) } else { None };
        Ok(Seen { process: row.id_or_null(0), case: row.id(1)?, activity: row.id(2)?, role, ts: row.integer(3)?, seq })
    })
}

/// NULL, which `max(ts)` of nothing is, says nothing.
fn clock<'scope>(call: &Call<'scope>, relation: usize) -> Relation<'scope, u64, i64> {
    call.relation(relation, |row| Ok(row.integer_or_null(0))).flat_map(|now| now)
}

fn duration(row: &Row, column: usize) -> Result<Option<i64>, String> {
    match row.integer_or_null(column) {
        None => Ok(None),
        Some(duration @ 0..=DURATION_MS_MAX) => Ok(Some(duration)),
        Some(..0) => Err(row.refusal(column, "is negative")),
        Some(_) => Err(row.refusal(column, &format!("is more than {DURATION_MS_MAX} ms"))),
    }
}

/// NULL is 0.
fn tokens(row: &Row, column: usize) -> Result<i64, String> {
    match row.integer_or_null(column).unwrap_or(0) {
        tokens @ 0..=TOKENS_MAX => Ok(tokens),
        _ => Err(row.refusal(column, &format!("is not from 0 to {TOKENS_MAX}"))),
    }
}

/// NULL is to stay.
fn policy(row: &Row, column: usize) -> Result<Policy, String> {
    match row.text(column) {
        None | Some("stay") => Ok(Policy::Stay),
        Some("reset") => Ok(Policy::Reset),
        Some("absorb") => Ok(Policy::Absorb),
        Some(_) => Err(row.refusal(column, "is neither stay, reset nor absorb")),
    }
}

fn name(row: &mut Writer, name: Option<&Name>) {
    row.id(name.map(|name: &Arc<[u8]>| name.to_vec()).as_ref());
}
