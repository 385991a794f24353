//! A plan as people read it: operators, why each was chosen, and what frees its state.

use std::collections::HashSet;
use std::fmt::Write;

use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use tidegate_operators::temporal::ClockColumn;
use tidegate_operators::top::TopPlan;

use crate::catalog::{Catalog, RelationKind};
use crate::lookback::lookback;
use crate::node::{Facts, Node, Op};

/// One line per node, inputs indented below. A node that is read twice is told once.
pub fn explain(node: &Node, catalog: &Catalog) -> String {
    let mut text = String::new();
    write_node(&mut text, node, 0, catalog, &mut HashSet::new());
    for relation in node.relations() {
        if matches!(catalog.get(&relation).map(|relation| &relation.kind), Some(RelationKind::Source(_))) {
            let _ = writeln!(text, "after a restart: of source {relation}, {}", lookback(node, &relation, catalog).shown(catalog));
        }
    }
    text
}

/// Whether any state of `node` grows for as long as it runs; the operators that do.
pub fn unbounded(node: &Node) -> Vec<&'static str> {
    let mut found = Vec::new();
    for node in node.all() {
        found.extend(grows(node).filter(|name| !found.contains(name)));
    }
    found
}

fn grows(node: &Node) -> Option<&'static str> {
    match &node.op {
        Op::Join { free: None, .. } => Some("Join"),
        Op::Distinct { .. } => Some("Distinct"),
        Op::Aggregate { plan, .. } if plan.free.is_none() && 0 < plan.group_columns => Some("Aggregate"),
        Op::Series { plan, .. } if plan.free.is_none() || !plan.key.is_empty() => Some("Series"),
        Op::Recompute { .. } => Some("Recompute"),
        Op::Top { plan, .. } if !plan.key.is_empty() || !plan.append_only || plan.limit.is_none() => Some("Top"),
        Op::Analysis { .. } => Some("Analysis"),
        Op::Fixpoint { .. } => Some("Fixpoint"),
        _ => None,
    }
}

fn write_node(text: &mut String, node: &Node, depth: usize, catalog: &Catalog, told: &mut HashSet<*const Node>) {
    let indent = "  ".repeat(depth);
    if !told.insert(node) && !node.inputs().is_empty() {
        let _ = writeln!(text, "{indent}{}   (the one above)", title(node, catalog));
        return;
    }
    let _ = writeln!(text, "{indent}{}{}", title(node, catalog), known(&node.facts, node, catalog));
    if let Some(state) = state(node, catalog) {
        let _ = writeln!(text, "{indent}    state: {state}");
    }
    node.inputs().into_iter().for_each(|input| write_node(text, input, depth + 1, catalog, told));
}

fn title(node: &Node, catalog: &Catalog) -> String {
    let names = |node: &Node, columns: &[usize]| {
        let names: Vec<&str> = columns.iter().map(|&i| node.schema.field(i).name().as_str()).collect();
        names.join(", ")
    };
    match &node.op {
        Op::Scan { relation } => {
            let kind = catalog.get(relation).map_or("relation", |relation| relation.kind_name());
            format!("Scan {kind} {relation}")
        }
        Op::Constant { rows } => format!("Constant {} rows", rows.num_rows()),
        Op::Program { program, .. } => {
            let filter = program.predicate.as_ref().map(|predicate| format!(" where {predicate}")).unwrap_or_default();
            let project = program.project.as_ref().map(|exprs| {
                let exprs: Vec<String> = exprs.iter().map(ToString::to_string).collect();
                format!(" [{}]", exprs.join(", "))
            });
            format!("Program{}{filter}", project.unwrap_or_default())
        }
        Op::Combine { .. } => "Combine equal rows of a batch".to_string(),
        Op::Expand { input, plan } => format!("Expand {}", input.schema.field(plan.column).name()),
        Op::Temporal { condition, .. } => format!("Temporal while {condition}"),
        Op::Join { left, right, left_key, right_key, .. } if left_key.is_empty() => {
            let _ = (left, right, right_key);
            "Join every pair".to_string()
        }
        Op::Join { left, right, left_key, right_key, .. } => {
            format!("Join on [{}] = [{}]", names(left, left_key), names(right, right_key))
        }
        Op::Distinct { .. } => "Distinct".to_string(),
        Op::Union { inputs } => format!("Union of {}", inputs.len()),
        Op::Negate { .. } => "Negate".to_string(),
        Op::Aggregate { plan, calls, .. } => {
            let group: Vec<usize> = (0..plan.group_columns).collect();
            format!("Aggregate [{calls}] by [{}]", names(node, &group))
        }
        Op::Top { input, plan } => top_title(plan, &names(input, &plan.key)),
        Op::Series { input, plan, calls } => {
            let per = if plan.key.is_empty() { String::new() } else { format!(" per [{}]", names(input, &plan.key)) };
            format!("Series [{calls}]{per} by [{}]", ordered(&plan.input, &plan.order))
        }
        Op::Recompute { plan, calls, .. } => format!("Recompute [{calls}] per [{}]", names(node, &plan.output_key)),
        Op::Analysis { plan, .. } => format!("Analysis {}", plan.shown()),
        Op::Fixpoint { name, distinct, .. } => format!("Fixpoint {name}{}", if *distinct { " of distinct rows" } else { "" }),
        Op::Recursive { name } => format!("Recursive {name}"),
    }
}

fn top_title(plan: &TopPlan, key: &str) -> String {
    let limit = plan.limit.map_or("all".to_string(), |limit| limit.to_string());
    let skip = if plan.skip == 0 { String::new() } else { format!(" after {}", plan.skip) };
    let per = if key.is_empty() { String::new() } else { format!(" per [{key}]") };
    format!("Top {limit}{skip}{per} by [{}]", ordered(&plan.input, &plan.order))
}

fn ordered(input: &Schema, order: &[(usize, SortOptions)]) -> String {
    let column = |(column, options): &(usize, SortOptions)| {
        format!("{}{}", input.field(*column).name(), if options.descending { " desc" } else { "" })
    };
    order.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn known(facts: &Facts, node: &Node, catalog: &Catalog) -> String {
    let mut known = Vec::new();
    if facts.append_only {
        known.push("append-only".to_string());
    }
    for key in facts.keys.iter().filter(|key| key.len() < node.schema.fields().len()) {
        let names: Vec<&str> = key.iter().map(|&i| node.schema.field(i).name().as_str()).collect();
        known.push(format!("key [{}]", names.join(", ")));
    }
    for bound in &facts.bounds {
        known.push(format!("{} >= {}", node.schema.field(bound.column).name(), watermark(bound.source, bound.slack_ms, catalog)));
    }
    if known.is_empty() { String::new() } else { format!("   -- {}", known.join("; ")) }
}

fn state(node: &Node, catalog: &Catalog) -> Option<String> {
    Some(match &node.op {
        Op::Temporal { plan, .. } => {
            let clock = match plan.clock {
                ClockColumn::Now => "now()".to_string(),
                ClockColumn::Watermark(source) => watermark(source, 0, catalog),
            };
            format!("rows still to enter or leave; freed as {clock} passes them")
        }
        Op::Join { left, left_key, free: Some(rule), .. } => {
            let [(l, l_slack), (r, r_slack)] = rule.bounds;
            let (l, r) = (watermark(l, l_slack, catalog), watermark(r, r_slack, catalog));
            let both = if l == r { l } else { format!("{l} and {r}") };
            format!("both sides, by key; freed when {both} passes {}", left.schema.field(left_key[rule.key_column]).name())
        }
        Op::Join { .. } => "both sides, by key; unbounded: freed only as rows are deleted".to_string(),
        Op::Distinct { .. } => "a count per distinct row; unbounded: freed only as rows are deleted".to_string(),
        Op::Aggregate { plan, .. } => match &plan.free {
            Some(rule) => format!(
                "accumulators per group, in a hash table; freed when {} passes {}",
                watermark(rule.source, rule.slack_ms, catalog),
                plan.input.field(rule.key_column).name()
            ),
            None if plan.group_columns == 0 => "one accumulator per aggregate".to_string(),
            None => "accumulators per group, in a hash table; unbounded: freed only as groups empty".to_string(),
        },
        Op::Top { plan, .. } => match (plan.append_only, plan.limit) {
            (true, Some(limit)) if plan.key.is_empty() => format!("the first {} rows, as the input is append-only", plan.skip + limit),
            (true, Some(limit)) => format!("the first {} rows per key, as the input is append-only; unbounded in keys", plan.skip + limit),
            _ => "all rows, ordered per key, as rows may be taken back; unbounded: freed only as rows are deleted".to_string(),
        },
        Op::Series { plan, .. } => match plan.free {
            Some(rule) => format!(
                "two states per series and call, and rows with their scores until {} passes {}; unbounded in series",
                watermark(rule.source, rule.slack_ms, catalog),
                plan.input.field(plan.order[0].0).name()
            ),
            None => "all rows with their scores, ordered per series; unbounded: freed only as rows are deleted".to_string(),
        },
        Op::Recompute { .. } => "all rows per key and the last result; unbounded: freed only as keys empty".to_string(),
        Op::Analysis { .. } => "arrangements of its relations, and per round; unbounded: freed only as rows are deleted".to_string(),
        Op::Fixpoint { .. } => "arrangements per round; unbounded: freed only as rows are deleted".to_string(),
        _ => return None,
    })
}

pub fn watermark(source: usize, slack_ms: i64, catalog: &Catalog) -> String {
    let name = catalog.relations.values().find_map(|relation| match &relation.kind {
        RelationKind::Source(info) if info.index == source => Some(relation.name.as_str()),
        _ => None,
    });
    let name = name.unwrap_or("?");
    match slack_ms {
        0 => format!("watermark({name})"),
        slack if slack < 0 => format!("watermark({name}) + {} ms", -slack),
        slack => format!("watermark({name}) - {slack} ms"),
    }
}
