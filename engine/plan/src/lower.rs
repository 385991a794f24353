//! DataFusion's logical plan to nodes: which operator computes what, and what is known of it.
//!
//! What has no operator is refused here, by name, with the way out.

mod aggregate;
mod clock;
mod doubt;
mod join;
mod kernel;
mod series;
mod top;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Distinct, Expr, LogicalPlan, Operator, Projection,
    execution_props::ExecutionProps,
    physical_planning_context::PhysicalPlanningContext,
    utils::{conjunction, split_conjunction_owned},
};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use datafusion::physical_plan::PhysicalExpr;
use tidegate_operators::expand::ExpandPlan;
use tidegate_types::error::{Error, Result};
use tidegate_types::expr::{RowProgram, evaluate};

use crate::catalog::{Catalog, RelationKind};
use crate::node::{ColumnBound, Facts, Node, NodeRef, Op};
use crate::sql::{AnalysisNode, date_bin, planning_error, relation_name};

/// The nodes of an optimised `plan`.
pub fn lower(plan: &LogicalPlan, catalog: &Catalog) -> Result<NodeRef> {
    let node = Lowering { catalog, known: HashMap::new(), recursive: Vec::new() }.node(plan)?;
    check_types(&node.schema)?;
    Ok(node)
}

struct Lowering<'a> {
    catalog: &'a Catalog,
    /// What was lowered already: a common table expression that is read twice is one node.
    known: HashMap<LogicalPlan, NodeRef>,
    /// Recursive relations in scope, innermost last.
    recursive: Vec<(String, SchemaRef)>,
}

impl Lowering<'_> {
    fn node(&mut self, plan: &LogicalPlan) -> Result<NodeRef> {
        // Inside a recursion a name may mean another relation.
        if !self.recursive.is_empty() {
            return self.lowered(plan);
        }
        if let Some(node) = self.known.get(plan) {
            return Ok(Arc::clone(node));
        }
        let node = self.lowered(plan)?;
        self.known.insert(plan.clone(), Arc::clone(&node));
        Ok(node)
    }

    fn lowered(&mut self, plan: &LogicalPlan) -> Result<NodeRef> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            // A view is a bag: an order without a limit says nothing about it.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.node(&sort.input),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.limit(plan),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(projection) => {
                let input = self.node(&projection.input)?;
                self.project(input, projection.input.schema(), &projection.expr, plan.schema())
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.node(input)?;
                self.distinct(input)
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.node(input)).collect::<Result<Vec<_>>>()?;
                self.union(inputs, nullable(plan.schema()))
            }
            LogicalPlan::Values(values) => self.values(&values.values, plan.schema()),
            LogicalPlan::EmptyRelation(empty) => Ok(constant(
                RecordBatch::try_new_with_options(
                    nullable(plan.schema()),
                    empty_columns(plan.schema()),
                    &RecordBatchOptions::new().with_row_count(Some(usize::from(empty.produce_one_row))),
                )
                .map_err(|error| Error::engine(error.to_string()))?,
            )),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(recursive) => self.fixpoint(recursive),
            LogicalPlan::Extension(extension) => self.analysis(extension),
            other => Err(Error::unsupported(
                format!("{} in a view", other.display().to_string().split([':', ' ']).next().unwrap_or_default()),
                "write it as SELECT over relations",
            )),
        }
    }

    fn scan(&mut self, scan: &datafusion::logical_expr::TableScan) -> Result<NodeRef> {
        let name = relation_name(&scan.table_name);
        let recursive = self.recursive.iter().rev().find(|(recursive, _)| *recursive == name);
        let (op, schema, facts) = match (recursive, self.catalog.get(&name)) {
            (Some((name, schema)), _) => (Op::Recursive { name: name.clone() }, Arc::clone(schema), Facts::default()),
            (None, Some(relation)) => {
                if matches!(relation.kind, RelationKind::System) {
                    return Err(Error::unsupported(format!("a view over {name}"), "query it directly; Prometheus has it as metrics"));
                }
                (Op::Scan { relation: relation.name.clone() }, Arc::clone(&relation.schema), relation.facts())
            }
            // DataFusion sees no recursion where only a subquery reads the relation.
            (None, None) if is_work_table(scan) => {
                return Err(Error::unsupported(
                    format!("a subquery over the recursive relation \"{name}\""),
                    "join with it; where the absence of rows of the recursive relation counts, ask for it outside",
                ));
            }
            (None, None) => return Err(Error::user(format!("relation \"{name}\" does not exist"))),
        };
        let node = Node::new(op, schema, facts);
        let node = match &scan.projection {
            Some(columns) if !columns.iter().copied().eq(0..node.schema.fields().len()) => pick(&node, columns),
            _ => node,
        };
        match conjunction(scan.filters.clone()) {
            Some(predicate) => self.filter_by(node, &scan.projected_schema, predicate),
            None => Ok(node),
        }
    }

    fn filter(&mut self, filter: &datafusion::logical_expr::Filter) -> Result<NodeRef> {
        let input = match filter.input.as_ref() {
            LogicalPlan::Window(window) => match self.top_of_window(window, &filter.predicate)? {
                Some((top, None)) => return Ok(top),
                Some((top, Some(rest))) => return self.filter_by(top, window.schema.as_ref(), rest),
                None => self.node(&filter.input)?,
            },
            LogicalPlan::Projection(projection) if top::is_over_window(&projection.input) => {
                match top::beneath(projection, &filter.predicate)? {
                    Some(filtered) => return self.node(&filtered),
                    None => self.node(&filter.input)?,
                }
            }
            _ => self.node(&filter.input)?,
        };
        self.filter_by(input, filter.input.schema(), filter.predicate.clone())
    }

    /// Conditions on the clock become temporal filters; the others a program.
    fn filter_by(&self, input: NodeRef, schema: &DFSchema, predicate: Expr) -> Result<NodeRef> {
        let (clocked, mut plain): (Vec<_>, Vec<_>) = split_conjunction_owned(predicate).into_iter().partition(clock::reads_clock);
        // The optimiser puts an outer filter before the inner one that may guard it.
        plain.sort_by_key(can_fail);
        let mut node = input;
        if let Some(plain) = conjunction(plain) {
            let predicate = self.physical(&plain, schema)?;
            node = filtered(&node, predicate);
        }
        self.clocked(node, schema, clocked)
    }

    fn project(&self, input: NodeRef, input_schema: &DFSchema, exprs: &[Expr], schema: &DFSchema) -> Result<NodeRef> {
        let project = exprs.iter().map(|expr| self.physical(expr, input_schema)).collect::<Result<Vec<_>>>()?;
        let facts = projected_facts(&input.facts, input_schema, exprs);
        Ok(projected(&input, project, nullable(schema), facts))
    }

    fn distinct(&self, input: NodeRef) -> Result<NodeRef> {
        if !input.facts.keys.is_empty() {
            return Ok(input);
        }
        check_types(&input.schema)?;
        let all = (0..input.schema.fields().len()).collect();
        let facts = Facts { keys: vec![all], ..input.facts.clone() };
        let schema = Arc::clone(&input.schema);
        Ok(Node::new(Op::Distinct { input }, schema, facts))
    }

    fn union(&self, inputs: Vec<NodeRef>, schema: SchemaRef) -> Result<NodeRef> {
        let inputs: Vec<NodeRef> = inputs.iter().map(|input| retyped(input, &schema)).collect();
        let mut facts = inputs[0].facts.clone();
        facts.keys.clear();
        for input in &inputs[1..] {
            facts.append_only &= input.facts.append_only;
            // A bound must hold on every side, with the larger slack.
            facts.bounds = facts
                .bounds
                .iter()
                .filter_map(|bound| {
                    let other = input.facts.bounds.iter().find(|other| other.column == bound.column && other.source == bound.source)?;
                    let lead_ms = bound.lead_ms.zip(other.lead_ms).map(|(lead, other)| lead.max(other));
                    Some(ColumnBound { slack_ms: bound.slack_ms.max(other.slack_ms), lead_ms, ..bound.clone() })
                })
                .collect();
        }
        Ok(Node::new(Op::Union { inputs }, schema, facts))
    }

    fn values(&self, rows: &[Vec<Expr>], schema: &DFSchema) -> Result<NodeRef> {
        let arrow = nullable(schema);
        let unit = one_row();
        let row = |row: &Vec<Expr>| {
            let columns = row.iter().zip(arrow.fields()).map(|(expr, field)| {
                let column = evaluate(self.physical(expr, &DFSchema::empty())?.as_ref(), &unit).map_err(Error::user)?;
                arrow::compute::cast(&column, field.data_type()).map_err(|error| Error::user(error.to_string()))
            });
            let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
            RecordBatch::try_new(Arc::clone(&arrow), columns).map_err(|error| Error::user(error.to_string()))
        };
        let batches = rows.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(constant(concat_batches(&arrow, &batches).map_err(|error| Error::user(error.to_string()))?))
    }

    fn unnest(&mut self, unnest: &datafusion::logical_expr::Unnest) -> Result<NodeRef> {
        let [(column, output)] = &unnest.list_type_columns[..] else {
            return Err(Error::unsupported("UNNEST of several lists or of a struct", "unnest one list per subquery"));
        };
        let schema = nullable(&unnest.schema);
        if let LogicalPlan::Projection(projection) = unnest.input.as_ref()
            && let Some(hop) = Hop::of(projection, *column)
        {
            return self.hop(projection, &hop, schema);
        }
        let input = self.node(&unnest.input)?;
        let list = matches!(input.schema.field(*column).data_type(), DataType::List(_));
        if output.depth != 1 || !list || !unnest.struct_type_columns.is_empty() {
            return Err(Error::unsupported("UNNEST of anything but one level of a list", "unnest one level per subquery"));
        }
        Ok(expanded(input, *column, unnest.options.preserve_nulls(), schema, Vec::new()))
    }

    /// Where the size is a number of slides, rows of one slide fall into the same windows: they are
    /// combined before they multiply.
    fn hop(&mut self, projection: &Projection, hop: &Hop, schema: SchemaRef) -> Result<NodeRef> {
        let input = self.node(&projection.input)?;
        let mut exprs = projection.expr.clone();
        let is_even = hop.size_ms % hop.slide_ms == 0;
        exprs[hop.column] = if is_even { date_bin().call(vec![hop.slide.clone(), hop.time.clone()]) } else { hop.time.clone() };
        let input_schema = projection.input.schema();
        let project = exprs.iter().map(|expr| self.physical(expr, input_schema)).collect::<Result<Vec<_>>>()?;
        let facts = projected_facts(&input.facts, input_schema, &exprs);
        let placed = projected(&input, project, Arc::clone(&schema), facts);
        let placed = match is_even {
            true => Node::new(Op::Combine { input: Arc::clone(&placed) }, Arc::clone(&schema), placed.facts.clone()),
            false => placed,
        };
        let mut project: Vec<Arc<dyn PhysicalExpr>> = (0..schema.fields().len()).map(|i| column(&placed, i)).collect();
        project[hop.column] = hop.starts(&placed)?;
        let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
        let list = project[hop.column].data_type(&schema).map_err(|error| planning_error(&error))?;
        fields[hop.column] = Arc::new(Field::new(fields[hop.column].name(), list, true));
        let listed = projected(&placed, project, Arc::new(Schema::new(fields)), placed.facts.clone());
        // A window's start is later than `ts - size`, and a slide's start is not later than ts.
        let starts = placed.facts.bounds.iter().filter(|bound| bound.column == hop.column);
        let starts = starts.map(|bound| ColumnBound { slack_ms: bound.slack_ms.saturating_add(hop.size_ms), ..bound.clone() });
        Ok(expanded(listed, hop.column, false, schema, starts.collect()))
    }

    fn fixpoint(&mut self, query: &datafusion::logical_expr::RecursiveQuery) -> Result<NodeRef> {
        if !self.recursive.is_empty() {
            return Err(Error::unsupported("WITH RECURSIVE inside WITH RECURSIVE", "create the inner one as a materialized view"));
        }
        let start = self.node(&query.static_term)?;
        let schema = Arc::clone(&start.schema);
        check_types(&schema)?;
        self.recursive.push((query.name.clone(), Arc::clone(&schema)));
        let step = self.node(&query.recursive_term);
        self.recursive.pop();
        let step = retyped(&step?, &schema);
        refuse_in_recursion(&step)?;
        if count_recursive(&step) != 1 {
            return Err(Error::unsupported(
                format!("a recursive term that reads \"{}\" {} times", query.name, count_recursive(&step)),
                "read it once; a join of the relation with itself can be split into two steps",
            ));
        }
        let step = Node::new(Op::Union { inputs: vec![start, step] }, Arc::clone(&schema), Facts::default());
        let keys = if query.is_distinct { vec![(0..schema.fields().len()).collect()] } else { Vec::new() };
        let facts = Facts { keys, ..Facts::default() };
        Ok(Node::new(Op::Fixpoint { name: query.name.clone(), step, distinct: query.is_distinct }, schema, facts))
    }

    fn analysis(&mut self, extension: &datafusion::logical_expr::Extension) -> Result<NodeRef> {
        let Some(AnalysisNode { plan, .. }) = extension.node.as_any().downcast_ref::<AnalysisNode>() else {
            return Err(Error::unsupported(format!("{} in a view", extension.node.name()), "write it as SELECT over relations"));
        };
        let inputs = extension.node.inputs().into_iter().zip(&plan.inputs).map(|(input, schema)| {
            let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            Ok(retyped(&self.node(input)?, &schema))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let keys = if plan.function.key.is_empty() { Vec::new() } else { vec![plan.function.key.to_vec()] };
        let schema = Arc::clone(&plan.schema);
        Ok(Node::new(Op::Analysis { inputs, plan: plan.clone() }, schema, Facts { keys, ..Facts::default() }))
    }

    /// `expr` over rows of `schema`, refusing what a view cannot compute.
    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        refuse_in_expression(expr)?;
        let properties = ExecutionProps::new();
        create_physical_expr(expr, schema, &properties, &PhysicalPlanningContext::default())
            .and_then(checked)
            .map_err(|error| planning_error(&error))
    }
}

/// Arithmetic that fails where DataFusion's would wrap around.
fn checked(expr: Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Arc<dyn PhysicalExpr>> {
    let checked = expr.transform_up(|expr| {
        let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(expr)) };
        let (left, right) = (Arc::clone(binary.left()), Arc::clone(binary.right()));
        Ok(Transformed::yes(Arc::new(BinaryExpr::new(left, *binary.op(), right).with_fail_on_overflow(true))))
    });
    checked.map(|checked| checked.data)
}

/// Whether a condition may be an error for some row.
fn can_fail(condition: &Expr) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    let computes = condition.exists(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(binary) => {
                !matches!(binary.op, And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
            }
            Expr::ScalarFunction(call) => call.func.name() != "canonical",
            Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_) | Expr::Not(_) | Expr::IsNull(_) | Expr::IsNotNull(_) => false,
            Expr::InList(_) | Expr::Between(_) => false,
            _ => true,
        })
    });
    computes.expect("the closure does not fail")
}

fn is_work_table(scan: &datafusion::logical_expr::TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<CteWorkTable>().is_some())
}

fn refuse_in_expression(expr: &Expr) -> Result<()> {
    let mut refused = None;
    let _ = expr.exists(|expr| {
        let refusal = match expr {
            Expr::ScalarVariable(_, name) => Some(Error::unsupported(
                format!("{} outside a comparison in WHERE or HAVING", name.join(" ")),
                "compare a column with it, as in ts < now() - INTERVAL '5 minutes', joined to the rest by AND",
            )),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => Some(Error::unsupported(
                "a subquery that cannot be written as a join",
                "join with the subquery, or aggregate it in a view of its own",
            )),
            Expr::OuterReferenceColumn(_, column) => Some(Error::unsupported(
                format!("this use of the outer column \"{}\" in a subquery", column.name()),
                "join with the subquery on that column",
            )),
            _ => None,
        };
        let found = refusal.is_some();
        refused = refused.take().or(refusal);
        Ok(found)
    });
    refused.map_or(Ok(()), Err)
}

fn refuse_in_recursion(step: &Node) -> Result<()> {
    for node in step.all().into_iter().filter(|node| node.is_recursive()) {
        let name = match &node.op {
            Op::Aggregate { .. } => "an aggregate",
            Op::Top { .. } => "LIMIT or DISTINCT ON",
            Op::Recompute { .. } | Op::Series { .. } => "a window function or aggregate",
            Op::Temporal { .. } => "a comparison with the clock",
            Op::Analysis { plan, .. } => plan.function.name,
            _ => continue,
        };
        return Err(Error::unsupported(
            format!("{name} over the recursive relation inside WITH RECURSIVE"),
            "compute it over the recursion's result, outside",
        ));
    }
    Ok(())
}

fn count_recursive(node: &Node) -> usize {
    match &node.op {
        Op::Recursive { .. } => 1,
        // A union of a side with itself negated is one reading of it, as in an outer join.
        Op::Union { inputs } => inputs.iter().map(|input| count_recursive(input)).max().unwrap_or(0),
        _ => node.inputs().into_iter().map(|input| count_recursive(input)).sum(),
    }
}

/// Keyed state needs types that have an order, and come back from bytes as they were: what is a dictionary does not.
fn check_types(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        let converter = RowConverter::new(vec![SortField::new(field.data_type().clone())]);
        let back = converter.and_then(|converter| converter.convert_rows(std::iter::empty()));
        if !back.is_ok_and(|columns| columns[0].data_type() == field.data_type()) {
            return Err(Error::unsupported(
                format!("column \"{}\" of type {}", field.name(), field.data_type()),
                "take the parts you need as columns of their own",
            ));
        }
    }
    Ok(())
}

/// A plan's columns; any may be NULL, as outer joins make it so.
fn nullable(schema: &DFSchema) -> SchemaRef {
    nullable_arrow(schema.as_arrow())
}

fn nullable_arrow(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn constant(rows: RecordBatch) -> NodeRef {
    let schema = rows.schema();
    Node::new(Op::Constant { rows }, schema, Facts { append_only: true, ..Facts::default() })
}

fn empty_columns(schema: &DFSchema) -> Vec<ArrayRef> {
    schema.fields().iter().map(|field| arrow::array::new_empty_array(field.data_type())).collect()
}

pub(crate) fn one_row() -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).expect("no columns, one row")
}

/// A column of `node` by its index.
fn column(node: &Node, index: usize) -> Arc<dyn PhysicalExpr> {
    let name = node.schema.field(index).name();
    Arc::new(datafusion::physical_expr::expressions::Column::new(name, index))
}

/// The rows for which `predicate` is true.
fn filtered(input: &NodeRef, predicate: Arc<dyn PhysicalExpr>) -> NodeRef {
    let program = RowProgram { predicate: Some(predicate), project: None, schema: Arc::clone(&input.schema) };
    Node::new(Op::Program { input: Arc::clone(input), program }, Arc::clone(&input.schema), input.facts.clone())
}

/// `project` over `input`; over a plain filter, in one program with it.
fn projected(input: &NodeRef, project: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef, facts: Facts) -> NodeRef {
    let (source, predicate) = match &input.op {
        Op::Program { input, program } if program.project.is_none() => (input, program.predicate.clone()),
        _ => (input, None),
    };
    let program = RowProgram { predicate, project: Some(project), schema: Arc::clone(&schema) };
    Node::new(Op::Program { input: Arc::clone(source), program }, schema, facts)
}

/// The columns at `columns`, in that order.
fn pick(input: &NodeRef, columns: &[usize]) -> NodeRef {
    let schema = Arc::new(Schema::new(columns.iter().map(|&i| input.schema.field(i).clone()).collect::<Vec<_>>()));
    let facts = picked_facts(&input.facts, columns);
    projected(input, columns.iter().map(|&i| column(input, i)).collect(), schema, facts)
}

fn picked_facts(facts: &Facts, columns: &[usize]) -> Facts {
    let position = |column: usize| columns.iter().position(|&picked| picked == column);
    let keys = facts.keys.iter().filter_map(|key| key.iter().map(|&column| position(column)).collect::<Option<Vec<_>>>());
    let bounds = columns.iter().enumerate().flat_map(|(new, &old)| {
        facts.bounds.iter().filter(move |bound| bound.column == old).map(move |bound| ColumnBound { column: new, ..bound.clone() })
    });
    Facts { append_only: facts.append_only, keys: keys.collect(), bounds: bounds.collect() }
}

/// The same rows under another schema of the same types.
fn retyped(input: &NodeRef, schema: &SchemaRef) -> NodeRef {
    if input.schema == *schema {
        return Arc::clone(input);
    }
    let project = (0..schema.fields().len()).map(|i| {
        let (from, to) = (input.schema.field(i).data_type(), schema.field(i).data_type());
        let plain = column(input, i);
        match from == to {
            true => plain,
            false => Arc::new(datafusion::physical_expr::expressions::CastExpr::new(plain, to.clone(), None)),
        }
    });
    projected(input, project.collect(), Arc::clone(schema), input.facts.clone())
}

/// What a projection keeps of what is known.
fn projected_facts(facts: &Facts, schema: &DFSchema, exprs: &[Expr]) -> Facts {
    let plain: Vec<Option<usize>> = exprs.iter().map(|expr| column_index(expr, schema)).collect();
    let position = |column: usize| plain.iter().position(|&picked| picked == Some(column));
    let keys = facts.keys.iter().filter_map(|key| key.iter().map(|&column| position(column)).collect::<Option<Vec<_>>>());
    let bounds = exprs.iter().enumerate().flat_map(|(new, expr)| {
        let bounds = bound_of(expr, schema, facts);
        bounds.into_iter().map(move |bound| ColumnBound { column: new, ..bound })
    });
    Facts { append_only: facts.append_only, keys: keys.collect(), bounds: bounds.collect() }
}

fn column_index(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        _ => None,
    }
}

/// Bounds of an expression that grows with a bounded column: the column, its bin, it plus a constant.
fn bound_of(expr: &Expr, schema: &DFSchema, facts: &Facts) -> Vec<ColumnBound> {
    // Between `by` and `to` milliseconds are taken from it.
    let less = |bounds: Vec<ColumnBound>, to: i64, by: i64| {
        let less = |bound: ColumnBound| ColumnBound {
            slack_ms: bound.slack_ms.saturating_add(to),
            lead_ms: bound.lead_ms.map(|lead_ms| lead_ms.saturating_sub(by)),
            ..bound
        };
        bounds.into_iter().map(less).collect()
    };
    match expr {
        Expr::Column(_) => {
            let index = column_index(expr, schema);
            facts.bounds.iter().filter(|bound| Some(bound.column) == index).cloned().collect()
        }
        Expr::Alias(alias) => bound_of(&alias.expr, schema, facts),
        Expr::ScalarFunction(call) if call.func.name() == "date_bin" => match &call.args[..] {
            [size, time, ..] => literal_ms(size).map_or(Vec::new(), |size| less(bound_of(time, schema, facts), size, 0)),
            _ => Vec::new(),
        },
        Expr::ScalarFunction(call) if call.func.name() == "date_trunc" => match &call.args[..] {
            [Expr::Literal(unit, _), time] => {
                let size = match unit.try_as_str().flatten().unwrap_or_default().to_lowercase().as_str() {
                    "second" => 1_000,
                    "minute" => 60_000,
                    "hour" => 3_600_000,
                    "day" => 86_400_000,
                    "week" => 7 * 86_400_000,
                    "month" => 31 * 86_400_000,
                    _ => 366 * 86_400_000,
                };
                less(bound_of(time, schema, facts), size, 0)
            }
            _ => Vec::new(),
        },
        Expr::BinaryExpr(binary) => match (binary.op, literal_ms(&binary.right)) {
            (Operator::Plus, Some(ms)) => less(bound_of(&binary.left, schema, facts), -ms, -ms),
            (Operator::Minus, Some(ms)) => less(bound_of(&binary.left, schema, facts), ms, ms),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// A literal interval without months, in milliseconds.
fn literal_ms(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) if value.months == 0 => {
            Some(i64::from(value.days) * 86_400_000 + value.nanoseconds / 1_000_000)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) => {
            Some(i64::from(value.days) * 86_400_000 + i64::from(value.milliseconds))
        }
        _ => None,
    }
}

/// `hop_starts(time, slide, size)` as a projection's column.
struct Hop {
    column: usize,
    time: Expr,
    slide: Expr,
    slide_ms: i64,
    size_ms: i64,
    call: ScalarFunction,
}

impl Hop {
    fn of(projection: &Projection, column: usize) -> Option<Self> {
        let Expr::ScalarFunction(call) = projection.expr[column].clone().unalias_nested().data else { return None };
        let [time, slide, size] = &call.args[..] else { return None };
        if call.func.name() != "hop_starts" {
            return None;
        }
        let (slide_ms, size_ms) = (literal_ms(slide)?, literal_ms(size)?);
        Some(Self { column, time: time.clone(), slide: slide.clone(), slide_ms, size_ms, call })
    }

    /// The list of starts, of the time that is now in the column.
    fn starts(&self, placed: &NodeRef) -> Result<Arc<dyn PhysicalExpr>> {
        let literal = |arg: &Expr| -> Arc<dyn PhysicalExpr> {
            let Expr::Literal(value, _) = arg else { unreachable!("literal_ms found a literal") };
            Arc::new(Literal::new(value.clone()))
        };
        let args = vec![column(placed, self.column), literal(&self.call.args[1]), literal(&self.call.args[2])];
        let options = Arc::new(ConfigOptions::default());
        ScalarFunctionExpr::try_new(Arc::clone(&self.call.func), args, &placed.schema, options)
            .map(|expr| Arc::new(expr) as Arc<dyn PhysicalExpr>)
            .map_err(|error| planning_error(&error))
    }
}

/// One row per element of the list in `column`; `elements`: what bounds these.
fn expanded(input: NodeRef, column: usize, keep_empty: bool, schema: SchemaRef, elements: Vec<ColumnBound>) -> NodeRef {
    let others = input.facts.bounds.iter().filter(|bound| bound.column != column).cloned();
    let bounds = others.chain(elements).collect();
    let facts = Facts { append_only: input.facts.append_only, bounds, keys: Vec::new() };
    let plan = ExpandPlan { column, keep_empty, schema: Arc::clone(&schema) };
    Node::new(Op::Expand { input, plan }, schema, facts)
}

/// Appends computed columns where `exprs` are not columns already; where each is now.
fn with_columns(lowering: &Lowering, input: NodeRef, schema: &DFSchema, exprs: &[Expr]) -> Result<(NodeRef, Vec<usize>)> {
    let mut project: Vec<Arc<dyn PhysicalExpr>> = (0..input.schema.fields().len()).map(|i| column(&input, i)).collect();
    let mut fields: Vec<Arc<Field>> = input.schema.fields().iter().cloned().collect();
    let mut facts = input.facts.clone();
    let width = project.len();
    let mut positions = Vec::with_capacity(exprs.len());
    for expr in exprs {
        if let Some(index) = column_index(expr, schema) {
            positions.push(index);
            continue;
        }
        let physical = lowering.physical(expr, schema)?;
        let data_type = physical.data_type(schema.as_arrow()).map_err(|error| planning_error(&error))?;
        let bounds = bound_of(expr, schema, &input.facts);
        facts.bounds.extend(bounds.into_iter().map(|bound| ColumnBound { column: project.len(), ..bound }));
        positions.push(project.len());
        fields.push(Arc::new(Field::new(expr.schema_name().to_string(), data_type, true)));
        project.push(physical);
    }
    if project.len() == width {
        return Ok((input, positions));
    }
    Ok((projected(&input, project, Arc::new(Schema::new(fields)), facts), positions))
}

fn is_millisecond(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Millisecond, _))
}

fn unqualified(column: &str) -> Expr {
    Expr::Column(Column::from_name(column))
}
