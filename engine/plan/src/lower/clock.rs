//! Comparisons with `now()` or a watermark: temporal filters.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, cast};
use tidegate_operators::temporal::{Bound, ClockColumn, TemporalPlan};
use tidegate_types::error::{Error, Result, did_you_mean};

use super::{Lowering, bound_of};
use crate::catalog::RelationKind;
use crate::node::{Facts, Node, NodeRef, Op};
use crate::sql::{NOW, planning_error};

pub(super) fn reads_clock(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::ScalarVariable(..)))).unwrap_or(false)
}

/// `clock op at`: the clock alone on the left.
struct Condition {
    clock: Vec<String>,
    op: Operator,
    at: Expr,
}

impl Lowering<'_> {
    /// `input` while all `conditions` hold; one operator per clock.
    pub(super) fn clocked(&self, input: NodeRef, schema: &DFSchema, conditions: Vec<Expr>) -> Result<NodeRef> {
        let mut node = input;
        let mut solved: Vec<Condition> = conditions.into_iter().map(solve).collect::<Result<_>>()?;
        while let Some(first) = solved.first() {
            let name = first.clock.clone();
            let (these, others): (Vec<_>, Vec<_>) = solved.into_iter().partition(|condition| condition.clock == name);
            solved = others;
            node = self.temporal(node, schema, &name, these)?;
        }
        Ok(node)
    }

    fn temporal(&self, input: NodeRef, schema: &DFSchema, clock: &[String], conditions: Vec<Condition>) -> Result<NodeRef> {
        let described: Vec<String> =
            conditions.iter().map(|condition| format!("{} {} {}", clock.join(" "), condition.op, condition.at)).collect();
        let mut plan = TemporalPlan { clock: self.clock(clock)?, from: Vec::new(), until: Vec::new(), schema: Arc::clone(&input.schema) };
        let (mut enters, mut leaves) = (Vec::new(), Vec::new());
        for Condition { op, at, .. } in conditions {
            let known = bound_of(&at, schema, &input.facts);
            if !matches!(op, Operator::Lt | Operator::LtEq) {
                enters.push(known.clone());
            }
            if !matches!(op, Operator::Gt | Operator::GtEq) {
                leaves.push(known);
            }
            let at = self.bound(at, schema)?;
            let bound = |after| Bound { at: Arc::clone(&at), after };
            match op {
                Operator::GtEq => plan.from.push(bound(false)),
                Operator::Gt => plan.from.push(bound(true)),
                Operator::Lt => plan.until.push(bound(false)),
                Operator::LtEq => plan.until.push(bound(true)),
                _ => {
                    plan.from.push(bound(false));
                    plan.until.push(bound(true));
                }
            }
        }
        let schema = Arc::clone(&input.schema);
        // The clock takes rows back whose own time is long past.
        let facts = Facts { append_only: false, bounds: Vec::new(), ..input.facts.clone() };
        Ok(Node::new(Op::Temporal { input, plan, enters, leaves, condition: described.join(" AND ") }, schema, facts))
    }

    fn bound(&self, at: Expr, schema: &DFSchema) -> Result<Arc<dyn datafusion::physical_plan::PhysicalExpr>> {
        use datafusion::logical_expr::ExprSchemable;
        let data_type = at.get_type(schema).map_err(|error| planning_error(&error))?;
        let at = match data_type {
            DataType::Timestamp(_, _) => at,
            DataType::Date32 | DataType::Date64 => cast(at, DataType::Timestamp(TimeUnit::Millisecond, None)),
            other => {
                return Err(Error::user(format!("{at} is {other}, and a clock compares with a TIMESTAMP")).hint("cast it to TIMESTAMP"));
            }
        };
        self.physical(&at, schema)
    }

    fn clock(&self, name: &[String]) -> Result<ClockColumn> {
        let [_, source] = name else {
            return Ok(ClockColumn::Now);
        };
        match self.catalog.get(source).map(|relation| &relation.kind) {
            Some(RelationKind::Source(info)) if info.watermark.is_some() => Ok(ClockColumn::Watermark(info.index)),
            Some(RelationKind::Source(_)) => Err(Error::user(format!("source \"{source}\" has no watermark"))
                .hint("declare one: WATERMARK FOR ts AS ts - INTERVAL '30 seconds'")),
            _ => {
                let sources = self.catalog.relations.values().filter(|relation| matches!(relation.kind, RelationKind::Source(_)));
                let error = Error::user(format!("there is no source \"{source}\" to have a watermark"));
                Err(match did_you_mean(source, sources.map(|source| source.name.as_str())) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None => error,
                })
            }
        }
    }
}

/// Moves everything but the clock to the right.
fn solve(condition: Expr) -> Result<Condition> {
    let refused = || {
        Error::unsupported(
            format!("the condition {condition}"),
            format!("compare one side with {NOW}, plus or minus an interval of days or less, and join it to the rest by AND"),
        )
    };
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition.clone() else { return Err(refused()) };
    if !matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq | Operator::Eq) {
        return Err(refused());
    }
    let (mut clock, mut at, mut op) = match (reads_clock(&left), reads_clock(&right)) {
        (true, false) => (*left, *right, op),
        (false, true) => (*right, *left, op.swap().ok_or_else(refused)?),
        _ => return Err(refused()),
    };
    loop {
        clock = match clock {
            Expr::ScalarVariable(_, name) => return Ok(Condition { clock: name, op, at }),
            Expr::Alias(alias) => *alias.expr,
            Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(_, _)) => *cast.expr,
            // `now() - ts > INTERVAL …`: a difference of times, to be compared as an interval.
            Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Interval(_)) => *cast.expr,
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if reads_clock(&left) && !reads_clock(&right) => {
                at = binary(at, Operator::Plus, *right).ok_or_else(refused)?;
                *left
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) if reads_clock(&left) && !reads_clock(&right) => {
                at = binary(at, Operator::Minus, *right).ok_or_else(refused)?;
                *left
            }
            // `at` op (x - clock)  ⇔  clock op' x - at
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) if reads_clock(&right) && !reads_clock(&left) => {
                at = binary(*left, Operator::Minus, at).ok_or_else(refused)?;
                op = op.swap().ok_or_else(refused)?;
                *right
            }
            _ => return Err(refused()),
        };
    }
}

// Months have no fixed length, so `a - 1 month < b` does not say `a < b + 1 month`.
fn binary(left: Expr, op: Operator, right: Expr) -> Option<Expr> {
    let months = |expr: &Expr| {
        expr.exists(|expr| {
            Ok(matches!(expr, Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) if value.months != 0)
                || matches!(expr, Expr::Literal(ScalarValue::IntervalYearMonth(_), _)))
        })
        .unwrap_or(true)
    };
    (!months(&left) && !months(&right)).then(|| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
}
