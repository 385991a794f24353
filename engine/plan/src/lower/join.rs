//! Joins of every kind, from pairs, distinct and negation.
//!
//! semi(L, R) = L ⋈ distinct(keys of R); anti(L, R) = L − semi(L, R); an outer join is the pairs
//! and the padded anti join. With a condition beyond equal keys, "has a match" means: is the left
//! side of some pair that passes it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::{Expr, Join};
use datafusion::physical_expr::expressions::{IsNullExpr, Literal};
use datafusion::physical_plan::PhysicalExpr;
use tidegate_operators::join::FreeRule;
use tidegate_types::error::{Error, Result};
use tidegate_types::expr::RowProgram;

use super::doubt::or_fails;
use super::{Lowering, can_fail, check_types, column, filtered, is_millisecond, nullable, pick, projected, with_columns};
use crate::node::{ColumnBound, Facts, Node, NodeRef, Op, joined_schema};

/// One side: its rows with the key columns appended, where the keys are, and how many columns it had.
struct Side {
    node: NodeRef,
    key: Vec<usize>,
    width: usize,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<NodeRef> {
        let (left_on, right_on): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let left = self.side(&join.left, &left_on)?;
        let right = self.side(&join.right, &right_on)?;
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        let filter = join.filter.as_ref();
        let kind = join.join_type;
        if let Some(filter) = filter.filter(|filter| kind != JoinType::Inner && super::clock::reads_clock(filter)) {
            return Err(Error::unsupported(
                format!("{filter} as a condition of an outer join, EXISTS or IN"),
                "filter in a view, then join",
            ));
        }
        // The pairs, in the columns left then right: those with equal keys, and those that also pass the residual condition.
        let met = pairs(&left, &right, null_equals_null)?;
        let both_schema = || join.left.schema().join(join.right.schema()).map_err(|error| crate::sql::planning_error(&error));
        let pairs = match filter {
            Some(filter) => self.filter_by(Arc::clone(&met), &both_schema()?, filter.clone())?,
            None => Arc::clone(&met),
        };
        let schema = nullable(&join.schema);
        if kind == JoinType::Inner {
            return Ok(renamed(&pairs, &schema));
        }
        refuse_recursion_where_absence_counts(kind, &left, &right)?;
        let needs = |left_side: bool| -> Result<Matches> {
            let (this, other) = if left_side { (&left, &right) } else { (&right, &left) };
            let columns: Vec<usize> = match left_side {
                true => (0..left.width).collect(),
                false => (left.width..left.width + right.width).collect(),
            };
            let matched = filter.map(|_| passed(&pairs, &columns));
            let doubtful = match filter.filter(|filter| can_fail(filter)) {
                Some(filter) => Some(pick(&filtered(&met, or_fails(self.physical(filter, &both_schema()?)?)), &columns)),
                None => None,
            };
            self.matches(this, other, matched, doubtful, null_equals_null)
        };
        let result = match kind {
            JoinType::Inner => unreachable!("returned above"),
            JoinType::LeftSemi => needs(true)?.semi,
            JoinType::RightSemi => needs(false)?.semi,
            JoinType::LeftAnti if join.null_aware => self.null_aware_anti(&left, &right, needs(true)?, filter)?,
            JoinType::LeftAnti => needs(true)?.anti,
            JoinType::RightAnti => needs(false)?.anti,
            JoinType::Left => both(vec![Arc::clone(&pairs), padded(&needs(true)?.anti, &right, false)]),
            JoinType::Right => both(vec![Arc::clone(&pairs), padded(&needs(false)?.anti, &left, true)]),
            JoinType::Full => {
                both(vec![Arc::clone(&pairs), padded(&needs(true)?.anti, &right, false), padded(&needs(false)?.anti, &left, true)])
            }
            JoinType::LeftMark | JoinType::RightMark if join.null_aware => {
                return Err(Error::unsupported("IN (subquery) or NOT IN (subquery) under OR", "use EXISTS, or UNION the two cases"));
            }
            JoinType::LeftMark => marked(needs(true)?),
            JoinType::RightMark => marked(needs(false)?),
        };
        Ok(renamed(&result, &schema))
    }

    fn side(&mut self, plan: &datafusion::logical_expr::LogicalPlan, on: &[Expr]) -> Result<Side> {
        let node = self.node(plan)?;
        check_types(&node.schema)?;
        let width = node.schema.fields().len();
        let (node, key) = with_columns(self, node, plan.schema(), on)?;
        Ok(Side { node, key, width })
    }

    /// `matched`: the rows of `this` that have a pair, where equal keys are not enough; `doubtful`:
    /// with those of pairs that cannot be computed, where there may be such. They are no match, and
    /// not absent.
    fn matches(
        &self,
        this: &Side,
        other: &Side,
        matched: Option<NodeRef>,
        doubtful: Option<NodeRef>,
        null_equals_null: bool,
    ) -> Result<Matches> {
        let own: Vec<usize> = (0..this.width).collect();
        let rows = pick(&this.node, &own);
        let among = |some: NodeRef| -> Result<NodeRef> { Ok(pick(&joined(&rows, &own, &self.distinct(some)?, &own, true), &own)) };
        let semi = match &matched {
            Some(matched) => among(Arc::clone(matched))?,
            None => {
                let keys = self.distinct(pick(&other.node, &other.key))?;
                let all: Vec<usize> = (0..other.key.len()).collect();
                pick(&joined(&this.node, &this.key, &keys, &all, null_equals_null), &own)
            }
        };
        let anti = match (doubtful, matched) {
            // The rows that are none are there for the errors of their condition.
            (Some(doubtful), Some(matched)) => both(vec![Arc::clone(&rows), negated(&among(doubtful)?), none_of(&matched)]),
            _ => both(vec![Arc::clone(&rows), negated(&semi)]),
        };
        Ok(Matches { semi, anti })
    }

    /// NOT IN: a NULL on the right matches everything; a NULL on the left everything that is there.
    fn null_aware_anti(&self, left: &Side, right: &Side, matches: Matches, filter: Option<&Expr>) -> Result<NodeRef> {
        if filter.is_some() || left.key.len() != 1 {
            return Err(Error::unsupported("NOT IN with a correlated subquery", "use NOT EXISTS"));
        }
        let one = |node: &NodeRef, schema: SchemaRef| -> Result<NodeRef> {
            let constant: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Boolean(Some(true))));
            self.distinct(projected(node, vec![constant], schema, Facts { append_only: node.facts.append_only, ..Facts::default() }))
        };
        let flag: SchemaRef = Arc::new(Schema::new(vec![Field::new("present", DataType::Boolean, true)]));
        let null_key = |side: &Side| filtered(&side.node, Arc::new(IsNullExpr::new(column(&side.node, side.key[0]))));
        let own: Vec<usize> = (0..left.width).collect();
        let rows = &matches.anti;
        let any_null_right = one(&null_key(right), Arc::clone(&flag))?;
        let any_right = one(&right.node, flag)?;
        // Rows with a NULL key went unmatched; they fall when the right side has any row at all.
        let null_rows = pick(&null_key(left), &own);
        let fallen_null = pick(&joined(&null_rows, &[], &any_right, &[], true), &own);
        let left_over = both(vec![Arc::clone(rows), negated(&fallen_null)]);
        let fallen = pick(&joined(&left_over, &[], &any_null_right, &[], true), &own);
        Ok(both(vec![left_over, negated(&fallen)]))
    }
}

/// The rows of one side that have a match, and those that have none.
struct Matches {
    semi: NodeRef,
    anti: NodeRef,
}

fn refuse_recursion_where_absence_counts(kind: JoinType, left: &Side, right: &Side) -> Result<()> {
    use JoinType::*;
    let right_absent = matches!(kind, Left | Full | LeftAnti | LeftMark) && right.node.is_recursive();
    let left_absent = matches!(kind, Right | Full | RightAnti | RightMark) && left.node.is_recursive();
    if right_absent || left_absent {
        return Err(Error::unsupported(
            "the absence of rows of the recursive relation (NOT EXISTS, NOT IN, EXCEPT or an outer join) inside WITH RECURSIVE",
            "ask for absence over the recursion's result, outside",
        ));
    }
    Ok(())
}

fn pairs(left: &Side, right: &Side, null_equals_null: bool) -> Result<NodeRef> {
    let pairs = joined(&left.node, &left.key, &right.node, &right.key, null_equals_null);
    let appended = left.node.schema.fields().len();
    let columns: Vec<usize> = (0..left.width).chain(appended..appended + right.width).collect();
    Ok(match columns.len() == pairs.schema.fields().len() {
        true => pairs,
        false => pick(&pairs, &columns),
    })
}

fn joined(left: &NodeRef, left_key: &[usize], right: &NodeRef, right_key: &[usize], null_equals_null: bool) -> NodeRef {
    // A row of an old tick can still meet a new partner, so a side's bounds say nothing of pairs;
    // only those on columns of the key do, where both sides have them.
    let append_only = left.facts.append_only && right.facts.append_only;
    let free = free_rule(left, left_key, right, right_key);
    let width = left.schema.fields().len();
    let bounds = free.iter().filter(|rule| rule.bounds[0].0 == rule.bounds[1].0).flat_map(|rule| {
        let [(source, left_slack), (_, right_slack)] = rule.bounds;
        let columns = [left_key[rule.key_column], width + right_key[rule.key_column]];
        let lead =
            |node: &Node, column: usize| node.facts.bounds.iter().find(|bound| bound.column == column && bound.source == source)?.lead_ms;
        let leads = lead(left, left_key[rule.key_column]).zip(lead(right, right_key[rule.key_column]));
        let lead_ms = leads.map(|(left, right)| left.max(right));
        columns.map(|column| ColumnBound { column, source, slack_ms: left_slack.max(right_slack), lead_ms })
    });
    let facts = Facts { append_only, bounds: bounds.collect(), ..Facts::default() };
    let op = Op::Join {
        left: Arc::clone(left),
        right: Arc::clone(right),
        left_key: left_key.to_vec(),
        right_key: right_key.to_vec(),
        null_equals_null,
        free,
    };
    Node::new(op, joined_schema(&left.schema, &right.schema), facts)
}

/// The first of the key's columns that has a bound on both sides.
fn free_rule(left: &Node, left_key: &[usize], right: &Node, right_key: &[usize]) -> Option<FreeRule> {
    let bound = |node: &Node, column: usize| {
        let found = node.facts.bounds.iter().find(|bound| bound.column == column);
        found.filter(|_| is_millisecond(node.schema.field(column).data_type())).map(|bound| (bound.source, bound.slack_ms))
    };
    let mut columns = left_key.iter().zip(right_key).enumerate();
    columns.find_map(|(key_column, (&l, &r))| Some(FreeRule { key_column, bounds: [bound(left, l)?, bound(right, r)?] }))
}

/// The columns of pairs that others read too: in a program of its own, so that a pair that fails
/// does so once.
fn passed(pairs: &NodeRef, columns: &[usize]) -> NodeRef {
    let schema = Arc::new(Schema::new(columns.iter().map(|&i| pairs.schema.field(i).clone()).collect::<Vec<_>>()));
    let project = Some(columns.iter().map(|&i| column(pairs, i)).collect());
    let program = RowProgram { predicate: None, project, schema: Arc::clone(&schema) };
    Node::new(Op::Program { input: Arc::clone(pairs), program }, schema, Facts { append_only: pairs.facts.append_only, ..Facts::default() })
}

fn none_of(rows: &NodeRef) -> NodeRef {
    filtered(rows, Arc::new(Literal::new(ScalarValue::Boolean(Some(false)))))
}

fn negated(input: &NodeRef) -> NodeRef {
    Node::new(Op::Negate { input: Arc::clone(input) }, Arc::clone(&input.schema), Facts::default())
}

fn both(inputs: Vec<NodeRef>) -> NodeRef {
    let schema = Arc::clone(&inputs[0].schema);
    let inputs = inputs.iter().map(|input| renamed(input, &schema)).collect();
    Node::new(Op::Union { inputs }, schema, Facts::default())
}

fn renamed(input: &NodeRef, schema: &SchemaRef) -> NodeRef {
    super::retyped(input, schema)
}

/// `rows` with NULLs for the columns of `other`, which stand before or behind.
fn padded(rows: &NodeRef, other: &Side, before: bool) -> NodeRef {
    let own = (0..rows.schema.fields().len()).map(|i| (column(rows, i), rows.schema.field(i).clone()));
    let nulls = (0..other.width).map(|i| {
        let field = other.node.schema.field(i).clone();
        let null = ScalarValue::try_from(field.data_type()).expect("a type that can rest has a NULL");
        (Arc::new(Literal::new(null)) as Arc<dyn PhysicalExpr>, field.with_nullable(true))
    });
    let (project, fields): (Vec<_>, Vec<_>) = match before {
        true => nulls.chain(own).unzip(),
        false => own.chain(nulls).unzip(),
    };
    projected(rows, project, Arc::new(Schema::new(fields)), Facts::default())
}

fn marked(matches: Matches) -> NodeRef {
    let mark = |rows: &NodeRef, value: bool| {
        let own = (0..rows.schema.fields().len()).map(|i| column(rows, i));
        let literal: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Boolean(Some(value))));
        let fields = rows.schema.fields().iter().cloned().chain([Arc::new(Field::new("mark", DataType::Boolean, true))]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        projected(rows, own.chain([literal]).collect(), schema, Facts::default())
    };
    both(vec![mark(&matches.semi, true), mark(&matches.anti, false)])
}
