//! `recompute`: whatever has no cheaper operator, by running DataFusion's batch plan
//! over the keys that changed.
//!
//! SQL     OVER (…), and the aggregates that cannot be taken back: median, array_agg,
//!         string_agg, stddev, var, first_value, last_value, …
//! In      any rows, outside recursion
//! Out     for each touched key, the difference between its old and its new result
//! State   all rows of each key and its last result; freed when the key is empty
//! Errors  a key whose plan fails has an error row instead of a result
//! Source  DataFusion's own operators: the answer is theirs by construction
//!
//! Rows reach the plan sorted by all columns, so that ties and unordered
//! aggregates have one answer whatever the order of arrival.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DataFusionResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, collect};
use hashbrown::HashMap;
use tidegate_types::Delta;
use tidegate_types::expr::{Failure, reason};
use tidegate_types::row::{RowCodec, project_schema};

use crate::arrange::Bytes;
use crate::keyed::by_tick;
use crate::stream::{Errors, Rows, exchange};
use crate::usage::{ENTRY_BYTES, Usage};

/// Plain data but for the plan, which is DataFusion's.
#[derive(Debug, Clone)]
pub struct RecomputePlan {
    /// Input columns that keep results apart; empty: all rows together.
    pub key: Vec<usize>,
    /// The same columns in the output.
    pub output_key: Vec<usize>,
    /// A key without rows still has a result: aggregates without GROUP BY.
    pub always: bool,
    /// Reads [`Slot`]; one partition.
    pub plan: Arc<dyn ExecutionPlan>,
    pub slot: Arc<Slot>,
    pub task: Arc<TaskContext>,
    pub input: SchemaRef,
    pub schema: SchemaRef,
}

/// Wires the plan.
pub fn recompute<'scope>(rows: Rows<'scope, u64>, plan: RecomputePlan, errors: Errors, usage: Usage) -> Rows<'scope, u64> {
    let scope = rows.scope();
    let rows = exchange(rows, &plan.input, &plan.key);
    let owner = tidegate_types::row::hash_row(&[]) % scope.peers() as u64 == scope.index() as u64;
    let mut keys = Keys::new(&plan, usage.clone());
    let first = (plan.always && owner).then(|| keys.start(|failure| errors.report(0, "Recompute", failure)));
    by_tick(rows, "Recompute", first, usage, move |tick, deltas, out, _| {
        out.push(keys.step(&deltas, |failure| errors.report(tick, "Recompute", failure)));
    })
}

/// The rule: rows and results by key.
struct Keys {
    plan: RecomputePlan,
    key_codec: RowCodec,
    row_codec: RowCodec,
    output_key_codec: RowCodec,
    output_codec: RowCodec,
    keys: HashMap<Bytes, Group>,
    usage: Usage,
}

struct Group {
    rows: BTreeMap<Bytes, i64>,
    result: Outcome,
}

/// A key's result rows, or why it has none.
type Outcome = Result<BTreeMap<Bytes, i64>, String>;

/// A key and its two maps, which have room for some rows from the first on.
const GROUP_BYTES: usize = 800;

fn bytes(result: &Outcome) -> usize {
    result.iter().flat_map(BTreeMap::keys).map(|row| ENTRY_BYTES + row.len()).sum()
}

impl Default for Group {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), result: Ok(BTreeMap::new()) }
    }
}

impl Keys {
    fn new(plan: &RecomputePlan, usage: Usage) -> Self {
        // Timely's workers share the planner's plan, but each needs a slot of its own.
        let slot = Arc::new(Slot::new(Arc::clone(&plan.input)));
        let plan = RecomputePlan { plan: with_slot(&plan.plan, &slot), slot, ..plan.clone() };
        let codec = |schema: SchemaRef| RowCodec::new(schema).expect("the planner checked the types");
        Self {
            key_codec: codec(project_schema(&plan.input, &plan.key)),
            row_codec: codec(Arc::clone(&plan.input)),
            output_key_codec: codec(project_schema(&plan.schema, &plan.output_key)),
            output_codec: codec(Arc::clone(&plan.schema)),
            keys: HashMap::new(),
            plan,
            usage,
        }
    }

    fn start(&mut self, fail: impl FnMut(Failure)) -> Delta {
        self.keys.insert(Bytes::new(), Group::default());
        self.refresh(vec![Bytes::new()], fail)
    }

    fn step(&mut self, deltas: &[Delta], fail: impl FnMut(Failure)) -> Delta {
        let mut touched: HashMap<Bytes, ()> = HashMap::new();
        for delta in deltas {
            let key_columns: Vec<ArrayRef> = self.plan.key.iter().map(|&i| Arc::clone(delta.rows.column(i))).collect();
            let keys = self.key_codec.encode_columns(&key_columns, delta.len()).expect("the plan's schema");
            let rows = self.row_codec.encode(&delta.rows).expect("the plan's schema");
            for (i, &diff) in delta.diffs.iter().enumerate() {
                let usage = &self.usage;
                let group = self.keys.entry_ref(keys.row(i)).or_insert_with(|| {
                    usage.grow(GROUP_BYTES + keys.row(i).len());
                    Group::default()
                });
                let count = match group.rows.get_mut(rows.row(i)) {
                    Some(count) => count,
                    None => {
                        self.usage.grow(ENTRY_BYTES + rows.row(i).len());
                        group.rows.entry(rows.row(i).to_vec()).or_default()
                    }
                };
                *count += diff;
                if *count == 0 {
                    group.rows.remove(rows.row(i));
                    self.usage.shrink(ENTRY_BYTES + rows.row(i).len());
                }
                touched.entry_ref(keys.row(i)).or_default();
            }
        }
        let mut touched: Vec<Bytes> = touched.into_keys().collect();
        touched.sort_unstable();
        self.refresh(touched, fail)
    }

    /// Recomputes `touched` in one run of the plan; where that fails, key by key.
    fn refresh(&mut self, touched: Vec<Bytes>, mut fail: impl FnMut(Failure)) -> Delta {
        let outcomes: Vec<Outcome> = match self.run(&touched) {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(_) => touched.iter().map(|key| self.run(std::slice::from_ref(key)).map(|mut results| results.remove(0))).collect(),
        };
        let mut net: BTreeMap<Bytes, i64> = BTreeMap::new();
        for (key, outcome) in touched.into_iter().zip(outcomes) {
            let group = self.keys.get_mut(&key).expect("touched keys are there");
            for (result, sign) in [(&group.result, -1), (&outcome, 1)] {
                match result {
                    Ok(rows) => rows.iter().for_each(|(row, count)| *net.entry(row.clone()).or_default() += sign * count),
                    Err(reason) => fail(Failure { reason: reason.clone(), diff: sign }),
                }
            }
            self.usage.resize(bytes(&group.result), bytes(&outcome));
            group.result = outcome;
            if group.rows.is_empty() && !self.plan.always {
                self.usage.shrink(GROUP_BYTES + key.len() + bytes(&group.result));
                self.keys.remove(&key);
            }
        }
        net.retain(|_, diff| *diff != 0);
        let rows = self.output_codec.decode(net.keys().map(|row| &row[..])).expect("what was encoded");
        Delta::new(rows, net.into_values().collect::<Vec<_>>())
    }

    fn run(&self, touched: &[Bytes]) -> Result<Vec<BTreeMap<Bytes, i64>>, String> {
        let copies = touched
            .iter()
            .flat_map(|key| &self.keys[key].rows)
            .flat_map(|(row, &count)| std::iter::repeat_n(&row[..], count.max(0) as usize));
        let copies: Vec<&[u8]> = copies.collect();
        let positions: HashMap<&Bytes, usize> = touched.iter().zip(0..).collect();
        let mut results = vec![BTreeMap::new(); touched.len()];
        if copies.is_empty() && !self.plan.always {
            return Ok(results);
        }
        let input = self.row_codec.decode(copies.into_iter()).expect("what was encoded");
        let output = self.execute(input)?;
        let key_columns: Vec<ArrayRef> = self.plan.output_key.iter().map(|&i| Arc::clone(output.column(i))).collect();
        let keys = self.output_key_codec.encode_columns(&key_columns, output.num_rows()).map_err(|error| error.to_string())?;
        let rows = self.output_codec.encode(&output).map_err(|error| error.to_string())?;
        for (key, row) in keys.iter().zip(rows.iter()) {
            let position = positions.get(&key.to_vec()).ok_or("a result for a key that was not asked for")?;
            *results[*position].entry(row.to_vec()).or_default() += 1;
        }
        Ok(results)
    }

    fn execute(&self, input: RecordBatch) -> Result<RecordBatch, String> {
        self.plan.slot.fill(input);
        let plan = reset_plan_states(Arc::clone(&self.plan.plan)).map_err(|error| error.to_string())?;
        let batches = futures::executor::block_on(collect(plan, Arc::clone(&self.plan.task))).map_err(|error| reason(&error))?;
        let renamed: Result<Vec<_>, _> = batches.iter().map(|batch| batch.clone().with_schema(Arc::clone(&self.plan.schema))).collect();
        let renamed = match renamed {
            Ok(renamed) => renamed,
            Err(_) => batches
                .iter()
                .map(|batch| {
                    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    RecordBatch::try_new_with_options(Arc::clone(&self.plan.schema), batch.columns().to_vec(), &options)
                })
                .collect::<Result<_, _>>()
                .map_err(|error| error.to_string())?,
        };
        concat_batches(&self.plan.schema, &renamed).map_err(|error| error.to_string())
    }
}

fn with_slot(plan: &Arc<dyn ExecutionPlan>, slot: &Arc<Slot>) -> Arc<dyn ExecutionPlan> {
    let replaced = Arc::clone(plan).transform(|node| match (node.as_ref() as &dyn Any).downcast_ref::<SlotExec>() {
        Some(exec) => Ok(Transformed::yes(Arc::new(exec.reading(Arc::clone(slot))) as Arc<dyn ExecutionPlan>)),
        None => Ok(Transformed::no(node)),
    });
    replaced.expect("replacing a leaf cannot fail").data
}

/// The batch a plan reads at its next run.
#[derive(Debug)]
pub struct Slot {
    schema: SchemaRef,
    batch: Mutex<Option<RecordBatch>>,
}

impl Slot {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, batch: Mutex::new(None) }
    }

    fn fill(&self, batch: RecordBatch) {
        *self.batch.lock().expect("no panic while held") = Some(batch);
    }
}

/// The leaf that reads a [`Slot`].
#[derive(Debug)]
pub struct SlotExec {
    slot: Arc<Slot>,
    /// Columns the plan wants; None: all.
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl SlotExec {
    pub fn new(slot: Arc<Slot>, projection: Option<Vec<usize>>) -> Self {
        let schema = match &projection {
            Some(columns) => project_schema(&slot.schema, columns),
            None => Arc::clone(&slot.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { slot, projection, properties: Arc::new(properties) }
    }

    fn reading(&self, slot: Arc<Slot>) -> Self {
        Self { slot, projection: self.projection.clone(), properties: Arc::clone(&self.properties) }
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotExec")
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let batch = self.slot.batch.lock().expect("no panic while held").clone();
        let batch = batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.slot.schema)));
        let batch = match &self.projection {
            Some(columns) => batch.project(columns)?,
            None => batch,
        };
        let schema = batch.schema();
        Ok(Box::pin(MemoryStream::try_new(vec![batch], schema, None)?))
    }
}
