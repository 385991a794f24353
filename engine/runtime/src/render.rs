//! Nodes to timely operators: one match arm per operator.

use std::collections::HashMap;
use std::sync::Arc;

use differential_dataflow::operators::arrange::Arranged;
use tidegate_operators::arrange::{Layout, Trace, arrange, rows_of};
use tidegate_operators::fixpoint::{enter, fixpoint};
use tidegate_operators::join::{JoinPlan, RoundsPlan, join, join_rounds};
use tidegate_operators::stream::{Errors, Round, Rows, Time, Timed, Watermarks, negate};
use tidegate_operators::usage::Usage;
use tidegate_operators::{aggregate, analysis, combine, distinct, expand, program, recompute, series, temporal, top};
use tidegate_plan::{Node, NodeRef, Op};
use tidegate_types::Delta;
use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::vec::ToStream;

type Arrangement<'scope, T> = (Arranged<'scope, Trace<T>>, Arc<Layout>);

/// What the operators of a dataflow share.
#[derive(Clone, Default)]
pub struct Shared {
    pub errors: Errors,
    pub watermarks: Watermarks,
    pub usage: Usage,
}

/// Renders nodes into one dataflow. What is met twice is rendered once.
pub struct Renderer<'scope> {
    pub scope: Scope<'scope, u64>,
    shared: Shared,
    /// What the scans read.
    pub relations: HashMap<String, Rows<'scope, u64>>,
    /// Output of programs that comes from elsewhere.
    added: HashMap<*const Node, Rows<'scope, u64>>,
    rows: HashMap<*const Node, Rows<'scope, u64>>,
    arranged: HashMap<(*const Node, Vec<usize>, bool), Arrangement<'scope, u64>>,
}

impl<'scope> Renderer<'scope> {
    pub fn new(scope: Scope<'scope, u64>, shared: Shared, relations: HashMap<String, Rows<'scope, u64>>) -> Self {
        Self { scope, shared, relations, added: HashMap::new(), rows: HashMap::new(), arranged: HashMap::new() }
    }

    /// `rows` are beside what the program `node` gives.
    pub fn add(&mut self, node: &NodeRef, rows: Rows<'scope, u64>) {
        self.added.insert(Arc::as_ptr(node), rows);
    }

    pub fn render(&mut self, node: &NodeRef) -> Rows<'scope, u64> {
        if let Some(rows) = self.rows.get(&Arc::as_ptr(node)) {
            return rows.clone();
        }
        let Shared { errors, watermarks, usage } = self.shared.clone();
        let rows = match &node.op {
            Op::Scan { relation } => self.relations[relation].clone(),
            Op::Constant { rows } => {
                // Constants belong to no key: the first worker says them, at the first tick.
                let mine = self.scope.index() == 0 && rows.num_rows() != 0;
                let delta = mine.then(|| Timed { time: 0, delta: Delta::insertions(rows.clone()) });
                delta.into_iter().to_stream(self.scope)
            }
            Op::Program { input, program } => {
                let rows = program::program(self.render(input), program.clone(), errors);
                match self.added.remove(&Arc::as_ptr(node)) {
                    Some(added) => self.scope.concatenate([rows, added]),
                    None => rows,
                }
            }
            Op::Combine { input } => combine::combine(self.render(input), Arc::clone(&input.schema)),
            Op::Expand { input, plan } => expand::expand(self.render(input), plan.clone()),
            Op::Temporal { input, plan, .. } => temporal::temporal(self.render(input), plan.clone(), watermarks, errors, usage),
            Op::Join { left, right, left_key, right_key, null_equals_null, free } => {
                let plan = JoinPlan {
                    left: Arc::new(Layout::new(Arc::clone(&left.schema), left_key)),
                    right: Arc::new(Layout::new(Arc::clone(&right.schema), right_key)),
                    schema: Arc::clone(&node.schema),
                    null_equals_null: *null_equals_null,
                    left_append_only: left.facts.append_only,
                    right_append_only: right.facts.append_only,
                    free: free.clone(),
                };
                join(self.render(left), self.render(right), plan, watermarks, errors, usage)
            }
            Op::Distinct { input } => distinct::distinct(self.render(input), Arc::clone(&input.schema), usage),
            Op::Union { inputs } => {
                let inputs: Vec<_> = inputs.iter().map(|input| self.render(input)).collect();
                self.scope.concatenate(inputs)
            }
            Op::Negate { input } => negate(self.render(input)),
            Op::Aggregate { input, plan, .. } => aggregate::aggregate(self.render(input), plan.clone(), watermarks, errors, usage),
            Op::Top { input, plan } => top::top(self.render(input), plan.clone(), usage),
            Op::Series { input, plan, .. } => series::series(self.render(input), plan.clone(), watermarks, usage),
            Op::Recompute { input, plan, .. } => recompute::recompute(self.render(input), plan.clone(), errors, usage),
            Op::Analysis { inputs, plan } => {
                let inputs = inputs.iter().map(|input| self.render(input)).collect();
                analysis::analysis(self.scope, inputs, plan.clone(), errors, usage)
            }
            Op::Fixpoint { step, distinct, .. } => {
                self.render_outside(step);
                let layout = Arc::new(Layout::whole(Arc::clone(&node.schema)));
                let scope = self.scope;
                fixpoint(scope, errors, usage.clone(), |inner, relation| {
                    let next = self.render_round(step, inner, &relation);
                    match distinct {
                        true => rows_of(distinct::distinct_rounds(next, Arc::clone(&layout), usage), layout),
                        false => next,
                    }
                })
            }
            Op::Recursive { name } => unreachable!("{name} is read outside its recursion"),
        };
        self.rows.insert(Arc::as_ptr(node), rows.clone());
        rows
    }

    pub fn arrangement(&mut self, node: &NodeRef, key: &[usize], drop_null_keys: bool) -> Arrangement<'scope, u64> {
        let id = (Arc::as_ptr(node), key.to_vec(), drop_null_keys);
        if let Some(arranged) = self.arranged.get(&id) {
            return arranged.clone();
        }
        let rows = self.render(node);
        let arranged = arranged(rows, node, key, drop_null_keys, self.shared.usage.clone());
        self.arranged.insert(id, arranged.clone());
        arranged
    }

    /// What a recursion reads from outside is rendered outside, before the loop is opened.
    fn render_outside(&mut self, node: &NodeRef) {
        if !node.is_recursive() {
            self.render(node);
            return;
        }
        if let Op::Join { left, right, left_key, right_key, null_equals_null, .. } = &node.op {
            for (side, key) in [(left, left_key), (right, right_key)] {
                match side.is_recursive() {
                    true => self.render_outside(side),
                    false => drop(self.arrangement(side, key, !null_equals_null)),
                }
            }
            return;
        }
        node.inputs().into_iter().for_each(|input| self.render_outside(input));
    }

    fn render_round<'inner>(&mut self, node: &NodeRef, inner: Scope<'inner, Round>, relation: &Rows<'inner, Round>) -> Rows<'inner, Round> {
        if !node.is_recursive() {
            return enter(self.render(node), inner);
        }
        match &node.op {
            Op::Recursive { .. } => relation.clone(),
            Op::Program { input, program } => {
                program::program(self.render_round(input, inner, relation), program.clone(), self.shared.errors.clone())
            }
            Op::Combine { input } => combine::combine(self.render_round(input, inner, relation), Arc::clone(&input.schema)),
            Op::Expand { input, plan } => expand::expand(self.render_round(input, inner, relation), plan.clone()),
            Op::Negate { input } => negate(self.render_round(input, inner, relation)),
            Op::Union { inputs } => {
                let inputs: Vec<_> = inputs.iter().map(|input| self.render_round(input, inner, relation)).collect();
                inner.concatenate(inputs)
            }
            Op::Distinct { input } => {
                let layout = Arc::new(Layout::whole(Arc::clone(&input.schema)));
                let rows = self.render_round(input, inner, relation);
                rows_of(distinct::distinct_rounds(rows, Arc::clone(&layout), self.shared.usage.clone()), layout)
            }
            Op::Join { left, right, left_key, right_key, null_equals_null, .. } => {
                let drop_null_keys = !null_equals_null;
                let round = |this: &mut Self, side: &NodeRef, key: &[usize]| {
                    let usage = this.shared.usage.clone();
                    arranged(this.render_round(side, inner, relation), side, key, drop_null_keys, usage)
                };
                let plan = |left: Arc<Layout>, right: Arc<Layout>| RoundsPlan { left, right, schema: Arc::clone(&node.schema) };
                match (left.is_recursive(), right.is_recursive()) {
                    (true, true) => {
                        let (l, left_layout) = round(self, left, left_key);
                        let (r, right_layout) = round(self, right, right_key);
                        join_rounds(l, r, plan(left_layout, right_layout))
                    }
                    (true, false) => {
                        let (l, left_layout) = round(self, left, left_key);
                        let (r, right_layout) = self.arrangement(right, right_key, drop_null_keys);
                        join_rounds(l, r.enter(inner), plan(left_layout, right_layout))
                    }
                    (false, _) => {
                        let (l, left_layout) = self.arrangement(left, left_key, drop_null_keys);
                        let (r, right_layout) = round(self, right, right_key);
                        join_rounds(l.enter(inner), r, plan(left_layout, right_layout))
                    }
                }
            }
            other => unreachable!("the planner refuses {other:?} inside a recursion"),
        }
    }
}

fn arranged<'scope, T: Time>(
    rows: Rows<'scope, T>,
    node: &Node,
    key: &[usize],
    drop_null_keys: bool,
    usage: Usage,
) -> Arrangement<'scope, T> {
    let layout = Arc::new(Layout::new(Arc::clone(&node.schema), key));
    (arrange(rows, Arc::clone(&layout), drop_null_keys, "Arrange", usage), layout)
}
