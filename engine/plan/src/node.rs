//! A view's plan: what the runtime renders, one operator per node.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use tidegate_operators::aggregate::AggregatePlan;
use tidegate_operators::analysis::AnalysisPlan;
use tidegate_operators::expand::ExpandPlan;
use tidegate_operators::join::FreeRule as JoinFreeRule;
use tidegate_operators::recompute::RecomputePlan;
use tidegate_operators::series::SeriesPlan;
use tidegate_operators::temporal::TemporalPlan;
use tidegate_operators::top::TopPlan;
use tidegate_types::expr::RowProgram;

pub type NodeRef = Arc<Node>;

/// One operator, what it gives, and what is known about that.
/// Nodes are shared: the same `Arc` met twice is rendered once.
#[derive(Debug)]
pub struct Node {
    pub op: Op,
    pub schema: SchemaRef,
    pub facts: Facts,
    /// Whether the recursive relation is read in here.
    is_recursive: bool,
    /// Whether rows come or go as time passes, without input.
    is_temporal: bool,
}

#[derive(Debug)]
pub enum Op {
    /// A source, a table or a materialized view.
    Scan {
        relation: String,
    },
    /// The same rows always.
    Constant {
        rows: RecordBatch,
    },
    Program {
        input: NodeRef,
        program: RowProgram,
    },
    /// Equal rows of a batch as one.
    Combine {
        input: NodeRef,
    },
    Expand {
        input: NodeRef,
        plan: ExpandPlan,
    },
    Temporal {
        input: NodeRef,
        plan: TemporalPlan,
        /// What is known of the bounds at which rows enter and leave.
        enters: Vec<Vec<ColumnBound>>,
        leaves: Vec<Vec<ColumnBound>>,
        condition: String,
    },
    /// Pairs of rows with equal keys; left columns, then right columns.
    Join {
        left: NodeRef,
        right: NodeRef,
        left_key: Vec<usize>,
        right_key: Vec<usize>,
        null_equals_null: bool,
        free: Option<JoinFreeRule>,
    },
    Distinct {
        input: NodeRef,
    },
    Union {
        inputs: Vec<NodeRef>,
    },
    Negate {
        input: NodeRef,
    },
    Aggregate {
        input: NodeRef,
        plan: AggregatePlan,
        calls: String,
    },
    Top {
        input: NodeRef,
        plan: TopPlan,
    },
    Series {
        input: NodeRef,
        plan: SeriesPlan,
        calls: String,
    },
    Recompute {
        input: NodeRef,
        plan: RecomputePlan,
        calls: String,
    },
    /// A function over relations, which have its columns in its order.
    Analysis {
        inputs: Vec<NodeRef>,
        plan: AnalysisPlan,
    },
    /// The least relation that `step` maps to itself; `step` reads it as [`Op::Recursive`].
    Fixpoint {
        name: String,
        step: NodeRef,
        distinct: bool,
    },
    Recursive {
        name: String,
    },
}

/// What the planner knows about a node's rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Rows only ever come.
    pub append_only: bool,
    /// Columns below which no row can come any more, as watermarks pass.
    pub bounds: Vec<ColumnBound>,
    /// Each set of columns names a row.
    pub keys: Vec<Vec<usize>>,
}

/// A row that comes or goes from now on has `column >= watermark(source) - slack_ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnBound {
    pub column: usize,
    pub source: usize,
    pub slack_ms: i64,
    /// Where it is known: the rows of the source that a row comes from have an event time of
    /// `column - lead_ms` or later.
    pub lead_ms: Option<i64>,
}

impl Node {
    pub fn new(op: Op, schema: SchemaRef, facts: Facts) -> NodeRef {
        let mut node = Self { op, schema, facts, is_recursive: false, is_temporal: false };
        let inputs = node.inputs();
        let (below, temporal) = (inputs.iter().any(|input| input.is_recursive), inputs.iter().any(|input| input.is_temporal));
        node.is_recursive = match node.op {
            Op::Recursive { .. } => true,
            Op::Fixpoint { .. } => false,
            _ => below,
        };
        node.is_temporal = temporal || matches!(node.op, Op::Temporal { .. });
        Arc::new(node)
    }

    pub fn inputs(&self) -> Vec<&NodeRef> {
        match &self.op {
            Op::Scan { .. } | Op::Constant { .. } | Op::Recursive { .. } => Vec::new(),
            Op::Program { input, .. }
            | Op::Combine { input }
            | Op::Expand { input, .. }
            | Op::Temporal { input, .. }
            | Op::Distinct { input }
            | Op::Negate { input }
            | Op::Aggregate { input, .. }
            | Op::Top { input, .. }
            | Op::Series { input, .. }
            | Op::Recompute { input, .. }
            | Op::Fixpoint { step: input, .. } => vec![input],
            Op::Join { left, right, .. } => vec![left, right],
            Op::Union { inputs } | Op::Analysis { inputs, .. } => inputs.iter().collect(),
        }
    }

    pub fn is_recursive(&self) -> bool {
        self.is_recursive
    }

    pub fn is_temporal(&self) -> bool {
        self.is_temporal
    }

    /// This node and all below it, each once, before its inputs.
    pub fn all(&self) -> Vec<&Self> {
        let mut all = vec![self];
        all.extend(self.below().into_iter().map(Arc::as_ref));
        all
    }

    /// All below this node, each once, before its inputs.
    pub fn below(&self) -> Vec<&NodeRef> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        let mut next = self.inputs();
        next.reverse();
        while let Some(node) = next.pop() {
            if seen.insert(Arc::as_ptr(node)) {
                all.push(node);
                next.extend(node.inputs().into_iter().rev());
            }
        }
        all
    }

    /// The relations read, each once, in order of appearance.
    pub fn relations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in self.all() {
            if let Op::Scan { relation } = &node.op
                && !found.contains(relation)
            {
                found.push(relation.clone());
            }
        }
        found
    }
}

/// The columns of both, one after the other; names may repeat.
pub fn joined_schema(left: &Schema, right: &Schema) -> SchemaRef {
    Arc::new(Schema::new(left.fields().iter().chain(right.fields()).cloned().collect::<Vec<_>>()))
}
