//! CREATE, DROP, SHOW and EXPLAIN.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidegate_plan::catalog::{SourceInfo, WatermarkRule};
use tidegate_plan::explain::explain;
use tidegate_plan::lower::lower;
use tidegate_plan::node::Facts;
use tidegate_plan::sql::Session;
use tidegate_plan::statement::{Placed, Statement};
use tidegate_plan::{Catalog, Node, NodeRef, Op, Relation, RelationKind};
use tidegate_types::Delta;
use tidegate_types::connector::{Options, SinkSpec, SourceSpec};
use tidegate_types::error::{Error, Fault, Result, did_you_mean};
use tidegate_types::expr::RowProgram;

use super::{Coordinator, Follow, Kept, SourceState, SourceStatus, late_name, tables::Table};
use crate::actions::{ActionOptions, ActionTask};
use crate::followers;
use crate::interface::{DetectionInfo, RelationInfo, Response};
use crate::worker::{Command, DataflowSpec};

/// Planning recurses with the query; this is room for the deepest one that is let through.
const PLANNING_STACK_BYTES: usize = 64 << 20;

/// What `CREATE DETECTION … WITH` knows.
const DETECTION_OPTIONS: [&str; 4] = ["severity", "entity", "attack", "description"];
const SEVERITIES: [&str; 5] = ["info", "low", "medium", "high", "critical"];

impl Coordinator {
    pub(super) fn execute(&mut self, placed: &Placed) -> Result<Response> {
        self.statement(placed).map_err(|error| pointed(error, placed))
    }

    fn statement(&mut self, placed: &Placed) -> Result<Response> {
        let tag = match &placed.statement {
            Statement::CreateSource { name, replace, schema, watermark, options } => {
                self.make_room(name, *replace, "source")?;
                self.create_source(name, schema, watermark.as_ref(), options)?;
                "CREATE SOURCE"
            }
            Statement::CreateTable { name, replace, schema, key } => {
                self.make_room(name, *replace, "table")?;
                self.create_table(name, schema, key)?;
                "CREATE TABLE"
            }
            Statement::CreateView { name, replace, query } => {
                // A view that cannot run is refused here, not where it is used.
                let planned = self.on_deep_stack(|catalog| plan_query(query, catalog))?;
                self.make_room(name, *replace, "view")?;
                let schema = Arc::new(planned.query.schema().as_arrow().clone());
                let kind = RelationKind::View { query: Arc::new(planned.query), reads: planned.reads };
                self.catalog.insert(Relation { name: name.clone(), kind, schema });
                "CREATE VIEW"
            }
            Statement::CreateKept { name, replace, detection, options, query } => {
                let kind = if *detection { "detection" } else { "materialized view" };
                let planned = self.on_deep_stack(|catalog| plan_query(query, catalog))?;
                check_detection(options, &planned.node)?;
                self.make_room(name, *replace, kind)?;
                self.create_kept(name, *detection, options, planned, &placed.text)?;
                if *detection { "CREATE DETECTION" } else { "CREATE MATERIALIZED VIEW" }
            }
            Statement::CreateSink { name, replace, from, options } => {
                self.make_room(name, *replace, "sink")?;
                self.create_sink(name, from, options)?;
                "CREATE SINK"
            }
            Statement::CreateAction { name, replace, from, options } => {
                self.make_room(name, *replace, "action")?;
                self.create_action(name, from, options)?;
                "CREATE ACTION"
            }
            Statement::Drop { kind, name, if_exists } => {
                self.drop_named(&kind.to_lowercase(), name, *if_exists)?;
                return Ok(Response::Done { tag: format!("DROP {kind}") });
            }
            Statement::Show { what } => return self.show(what),
            Statement::Explain { query } => {
                let planned = self.on_deep_stack(|catalog| plan_query(query, catalog))?;
                return Ok(lines("plan", explain(&planned.node, &self.catalog).lines()));
            }
            Statement::ExplainNamed { name } => return Ok(lines("plan", self.explain(name)?.lines())),
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Query(_) => {
                return Err(Error::engine("a statement that is read came to be executed"));
            }
        };
        Ok(Response::Done { tag: tag.to_string() })
    }

    fn on_deep_stack<T: Send>(&self, plan: impl FnOnce(&Catalog) -> Result<T> + Send) -> Result<T> {
        let catalog = &self.catalog;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("planner".into()).stack_size(PLANNING_STACK_BYTES);
            let planned =
                thread.spawn_scoped(scope, || plan(catalog)).map_err(|error| Error::engine(format!("no thread to plan on: {error}")))?;
            planned.join().unwrap_or_else(|_| Err(Error::engine("the planner failed on this statement").hint("simplify it, and report it")))
        })
    }

    fn create_source(&mut self, name: &str, schema: &SchemaRef, watermark: Option<&(String, i64)>, options: &Options) -> Result<()> {
        let spec = SourceSpec {
            name: name.to_string(),
            schema: Arc::clone(schema),
            columns_wanted: vec![true; schema.fields().len()],
            options: self.expanded(options)?,
            folder: self.config.folder.clone(),
            once: self.config.once,
            clock: Arc::clone(&self.config.clock),
        };
        drop(self.connectors.source(&spec)?);
        let rule = watermark.map(|(column, lateness_ms)| {
            let column = schema.index_of(column).expect("checked when parsed");
            WatermarkRule { column, lateness_ms: *lateness_ms }
        });
        let index = self.watermarks.len();
        self.watermarks.push(None);
        let info = SourceInfo { index, watermark: rule };
        self.catalog.insert(Relation { name: name.to_string(), kind: RelationKind::Source(info), schema: Arc::clone(schema) });
        let state = SourceState {
            spec,
            rule,
            index,
            status: SourceStatus::Created,
            acknowledge: None,
            task: None,
            received: 0,
            committed: 0,
            late: 0,
            dead: 0,
        };
        self.sources.insert(name.to_string(), state);
        if rule.is_some() {
            let late = late_name(name);
            self.catalog.insert(Relation { name: late.clone(), kind: RelationKind::Late, schema: Arc::clone(schema) });
            self.start_kept_input(&late, schema);
        }
        if self.started { self.start_source(name) } else { Ok(()) }
    }

    fn create_table(&mut self, name: &str, schema: &SchemaRef, key: &[String]) -> Result<()> {
        let key: Vec<usize> = key.iter().map(|column| schema.index_of(column).expect("checked when parsed")).collect();
        self.tables.insert(name.to_string(), Table::new(schema, &key)?);
        self.catalog.insert(Relation { name: name.to_string(), kind: RelationKind::Table { key }, schema: Arc::clone(schema) });
        self.start_kept_input(name, schema);
        Ok(())
    }

    /// Rows pushed in by name, kept as they are: tables and late rows.
    fn start_kept_input(&mut self, name: &str, schema: &SchemaRef) {
        let node = Node::new(Op::Scan { relation: name.to_string() }, Arc::clone(schema), Facts::default());
        let spec = DataflowSpec {
            name: name.to_string(),
            node,
            inputs: vec![(name.to_string(), Arc::clone(schema))],
            imports: Vec::new(),
            export: true,
            capture: false,
            born: 0,
        };
        self.workers.broadcast(&Command::Create(Arc::new(spec)));
    }

    fn create_kept(&mut self, name: &str, detection: bool, options: &Options, planned: Planned, query: &str) -> Result<()> {
        let Planned { node, reads, .. } = planned;
        self.start_dataflow(name, &node, true, detection)?;
        let kind = RelationKind::Kept { facts: node.facts.clone(), detection };
        self.catalog.insert(Relation { name: name.to_string(), kind, schema: Arc::clone(&node.schema) });
        let kept = Kept { node, reads, options: options.clone(), query: query.to_string(), created: self.last_used };
        self.kept.insert(name.to_string(), kept);
        if detection {
            self.metrics.findings_open.with_label_values(&[name]).set(0);
        }
        Ok(())
    }

    /// Builds a dataflow on all workers, and gives it what its sources brought before it was there.
    fn start_dataflow(&mut self, name: &str, node: &NodeRef, export: bool, capture: bool) -> Result<()> {
        let relations = node.relations();
        let (sources, imports): (Vec<String>, Vec<String>) =
            relations.into_iter().partition(|relation| self.sources.contains_key(relation));
        if self.config.once
            && let Some(source) = sources.iter().find(|source| self.sources[*source].received != 0)
        {
            return Err(Error::user(format!("source \"{source}\" was already read, and a bounded run keeps no history"))
                .hint("create all views before the run, or run without --once"));
        }
        let inputs = sources.iter().map(|source| (source.clone(), Arc::clone(&self.sources[source].spec.schema))).collect();
        let born = self.opened();
        let spec = DataflowSpec { name: name.to_string(), node: Arc::clone(node), inputs, imports, export, capture, born };
        self.workers.broadcast(&Command::Create(Arc::new(spec)));
        let Some(mut history) = self.history.take() else { return Ok(()) };
        let replayed = sources
            .iter()
            .try_for_each(|source| history.replay(source, |rows| self.distribute(source, Some(name), Delta::insertions(rows))));
        self.history = Some(history);
        replayed
    }

    fn create_sink(&mut self, name: &str, from: &str, options: &Options) -> Result<()> {
        let node = self.followed(from)?;
        let spec = self.sink_spec(name, &node, self.expanded(options)?);
        let sink = self.connectors.sink(&spec)?;
        self.start_dataflow(&follower_name(name), &node, false, true)?;
        let queue = followers::sink(name.to_string(), Arc::clone(&node.schema), node.facts.append_only, sink, self.metrics.clone());
        self.followers.insert(follower_name(name), Follow { kind: "sink", from: from.to_string(), node, queue });
        Ok(())
    }

    fn create_action(&mut self, name: &str, from: &str, options: &Options) -> Result<()> {
        if !matches!(self.catalog.get(from).map(|relation| &relation.kind), Some(RelationKind::Kept { detection: true, .. })) {
            let detections = self.kept.iter().filter(|(name, _)| self.is_detection(name)).map(|(name, _)| name.as_str());
            let error = Error::user(format!("\"{from}\" is not a detection"));
            return Err(match did_you_mean(from, detections) {
                Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                None => error.hint("an action follows a detection: CREATE DETECTION first"),
            });
        }
        let node = self.followed(from)?;
        let mut options = self.expanded(options)?;
        let own = ActionOptions::take(&mut options)?;
        let responder = self.connectors.responder(&self.sink_spec(name, &node, options))?;
        let entity = self.kept[from].options.get("entity").map(|entity| node.schema.index_of(entity).expect("checked when created"));
        self.start_dataflow(&follower_name(name), &node, false, true)?;
        let task = ActionTask {
            name: name.to_string(),
            schema: Arc::clone(&node.schema),
            entity,
            since: self.last_used,
            options: own,
            responder,
            log: self.action_log.clone(),
            metrics: self.metrics.clone(),
            clock: Arc::clone(&self.config.clock),
        };
        let queue = followers::action(task);
        self.followers.insert(follower_name(name), Follow { kind: "action", from: from.to_string(), node, queue });
        Ok(())
    }

    fn sink_spec(&self, name: &str, node: &NodeRef, options: Options) -> SinkSpec {
        SinkSpec { name: name.to_string(), schema: Arc::clone(&node.schema), options, folder: self.config.folder.clone() }
    }

    /// The node a sink or an action follows: the relation itself, or a plain view's query.
    fn followed(&self, from: &str) -> Result<NodeRef> {
        let relation = self.catalog.get(from).ok_or_else(|| self.no_relation(from))?;
        match &relation.kind {
            RelationKind::View { query, .. } => {
                let query = Arc::clone(query);
                self.on_deep_stack(move |catalog| {
                    let session = Session::new(catalog)?;
                    lower(&session.optimize(&query)?, catalog)
                })
            }
            RelationKind::System => Err(Error::unsupported(format!("following {from}"), "scrape the metrics, or query it")),
            _ => {
                let facts = relation.facts();
                Ok(Node::new(Op::Scan { relation: relation.name.clone() }, Arc::clone(&relation.schema), facts))
            }
        }
    }

    fn expanded(&self, options: &Options) -> Result<Options> {
        let expand = |(key, value): (&String, &String)| Ok((key.clone(), expand_variables(value, &self.config.variables)?));
        options.iter().map(expand).collect()
    }

    /// `name` is free, or `replace` frees it.
    fn make_room(&mut self, name: &str, replace: bool, kind: &str) -> Result<()> {
        match self.kind_of(name) {
            None => Ok(()),
            Some(existing) if replace && existing == kind => self.drop_named(kind, name, false),
            Some(existing) if replace => {
                Err(Error::user(format!("\"{name}\" is a {existing}, not a {kind}"))
                    .hint(format!("DROP {} {name}", existing.to_uppercase())))
            }
            Some(existing) => {
                Err(Error::user(format!("{existing} \"{name}\" exists already")).hint("use CREATE OR REPLACE, or another name"))
            }
        }
    }

    fn kind_of(&self, name: &str) -> Option<&'static str> {
        let follower = self.followers.get(&follower_name(name)).map(|follow| follow.kind);
        follower.or_else(|| self.catalog.get(name).map(|relation| relation.kind_name()))
    }

    fn drop_named(&mut self, kind: &str, name: &str, if_exists: bool) -> Result<()> {
        match self.kind_of(name) {
            None if if_exists => return Ok(()),
            None => return Err(self.no_relation(name)),
            Some(existing) if existing != kind => {
                return Err(Error::user(format!("\"{name}\" is a {existing}, not a {kind}"))
                    .hint(format!("DROP {} {name}", existing.to_uppercase())));
            }
            Some(_) => {}
        }
        let dependents = self.dependents(name);
        if !dependents.is_empty() {
            return Err(Error::user(format!("{kind} \"{name}\" is used by {}", dependents.join(", "))).hint("drop those first"));
        }
        if let Some(follow) = self.followers.remove(&follower_name(name)) {
            tokio::spawn(follow.queue.finish());
            self.workers.broadcast(&Command::Drop { name: follower_name(name) });
            return Ok(());
        }
        if let Some(mut state) = self.sources.remove(name) {
            if let Some(task) = state.task.take() {
                task.abort();
            }
            if let Some(history) = &mut self.history {
                history.forget(name);
            }
            self.catalog.relations.remove(&late_name(name));
            self.workers.broadcast(&Command::Drop { name: late_name(name) });
        }
        self.tables.remove(name);
        self.kept.remove(name);
        self.errors.remove(name);
        self.catalog.relations.remove(name);
        self.workers.broadcast(&Command::Drop { name: name.to_string() });
        Ok(())
    }

    /// What reads the relation or its late rows, by itself or through others.
    fn dependents(&self, name: &str) -> Vec<String> {
        let mut used = vec![name.to_string(), late_name(name)];
        let mut next = 0;
        while next < used.len() {
            let readers = self.readers(&used[next]).filter(|reader| !used.contains(reader)).collect::<Vec<_>>();
            used.extend(readers);
            next += 1;
        }
        let followers = self.followers.iter().filter(|(_, follow)| used.contains(&follow.from));
        let followers = followers.map(|(other, follow)| format!("{} {}", follow.kind, shown_name(other))).collect::<Vec<_>>();
        used.drain(2..).chain(followers).collect()
    }

    /// The views, kept or not, whose query names the relation.
    fn readers(&self, name: &str) -> impl Iterator<Item = String> {
        let kept = self.kept.iter().filter(move |(_, kept)| kept.reads.contains(name)).map(|(reader, _)| reader.clone());
        let views = self.catalog.relations.values().filter_map(move |relation| match &relation.kind {
            RelationKind::View { reads, .. } if reads.contains(name) => Some(relation.name.clone()),
            _ => None,
        });
        kept.chain(views)
    }

    pub(super) fn no_relation(&self, name: &str) -> Error {
        let error = Error::user(format!("relation \"{name}\" does not exist"));
        let names = self.catalog.relations.values().map(|relation| relation.name.as_str());
        match did_you_mean(name, names) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint("SHOW RELATIONS lists what there is"),
        }
    }

    pub(super) fn explain(&self, name: &str) -> Result<String> {
        let node = match (self.kept.get(name), self.followers.get(&follower_name(name))) {
            (Some(kept), _) => Arc::clone(&kept.node),
            (None, Some(follow)) => Arc::clone(&follow.node),
            (None, None) => self.followed(name)?,
        };
        let text = explain(&node, &self.catalog);
        let growing = tidegate_plan::explain::unbounded(&node);
        Ok(match growing.is_empty() {
            true => text,
            false => format!("{text}warning: state without a bound: {}\n", growing.join(", ")),
        })
    }

    fn show(&self, what: &str) -> Result<Response> {
        let kinds: &[&str] = match what.trim() {
            "sources" => &["source"],
            "tables" => &["table"],
            "views" => &["view", "materialized view", "detection"],
            "materialized views" => &["materialized view"],
            "detections" => &["detection"],
            "sinks" => &["sink"],
            "actions" => &["action"],
            "relations" | "all" => &["source", "late rows", "table", "view", "materialized view", "detection", "system relation"],
            other => {
                let known = ["sources", "tables", "views", "materialized views", "detections", "sinks", "actions", "relations"];
                let error = Error::user(format!("SHOW {} is not known", other.to_uppercase()));
                return Err(match did_you_mean(other, known) {
                    Some(close) => error.hint(format!("did you mean SHOW {}?", close.to_uppercase())),
                    None => error.hint(format!("there are {}", known.map(|name| format!("SHOW {}", name.to_uppercase())).join(", "))),
                });
            }
        };
        let relations = self.catalog.relations.values().map(|relation| (relation.name.clone(), relation.kind_name()));
        let followers = self.followers.iter().map(|(name, follow)| (shown_name(name).to_string(), follow.kind));
        let shown: Vec<(String, &str)> = relations.chain(followers).filter(|(_, kind)| kinds.contains(kind)).collect();
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false), Field::new("kind", DataType::Utf8, false)]));
        let names = StringArray::from_iter_values(shown.iter().map(|(name, _)| name));
        let kinds = StringArray::from_iter_values(shown.iter().map(|(_, kind)| kind));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(names), Arc::new(kinds)]).expect("the schema above");
        Ok(Response::Rows { tick: None, batches: vec![rows], schema })
    }

    fn is_detection(&self, name: &str) -> bool {
        matches!(self.catalog.get(name).map(|relation| &relation.kind), Some(RelationKind::Kept { detection: true, .. }))
    }

    /// Its rows are there: kept, or the engine's own state.
    pub(super) fn is_kept(&self, relation: &Relation) -> bool {
        matches!(relation.kind, RelationKind::Kept { .. } | RelationKind::Table { .. } | RelationKind::Late | RelationKind::System)
    }

    /// Kept, or a plain view over what is.
    fn is_readable(&self, relation: &Relation) -> bool {
        match &relation.kind {
            RelationKind::View { reads, .. } => reads.iter().all(|name| self.catalog.get(name).is_some_and(|read| self.is_readable(read))),
            _ => self.is_kept(relation),
        }
    }

    pub(super) fn relations(&self) -> Vec<RelationInfo> {
        let info = |relation: &Relation| RelationInfo {
            name: relation.name.clone(),
            kind: relation.kind_name(),
            schema: Arc::clone(&relation.schema),
            readable: self.is_readable(relation),
            query: match &relation.kind {
                RelationKind::View { query, .. } => Some(Arc::clone(query)),
                _ => None,
            },
        };
        self.catalog.relations.values().map(info).collect()
    }

    pub(super) fn detections(&self) -> Vec<DetectionInfo> {
        let detections = self.kept.iter().filter(|(name, _)| self.is_detection(name));
        let option = |kept: &Kept, name: &str| kept.options.get(name).cloned().unwrap_or_default();
        detections
            .map(|(name, kept)| DetectionInfo { name: name.clone(), entity: option(kept, "entity"), severity: option(kept, "severity") })
            .collect()
    }

    /// Which columns of a source any view reads.
    pub(super) fn columns_wanted(&self, source: &str) -> Vec<bool> {
        let state = &self.sources[source];
        let mut wanted = vec![false; state.spec.schema.fields().len()];
        if let Some(rule) = state.rule {
            wanted[rule.column] = true;
        }
        let nodes = self.kept.values().map(|kept| &kept.node).chain(self.followers.values().map(|follow| &follow.node));
        nodes.for_each(|node| mark_wanted(node, source, &mut wanted));
        wanted
    }
}

// A sink or an action may have the name of a view; their dataflows must not.
fn follower_name(name: &str) -> String {
    format!("-> {name}")
}

fn shown_name(name: &str) -> &str {
    name.strip_prefix("-> ").unwrap_or(name)
}

/// A query, what computes it, and the relations it names.
struct Planned {
    query: LogicalPlan,
    node: NodeRef,
    reads: BTreeSet<String>,
}

fn plan_query(query: &Query, catalog: &Catalog) -> Result<Planned> {
    let session = Session::new(catalog)?;
    let reads = session.names(query)?;
    let query = session.plan(query)?;
    let node = lower(&session.optimize(&query)?, catalog)?;
    let mut names = BTreeSet::new();
    if let Some(twice) = node.schema.fields().iter().find(|field| !names.insert(field.name())) {
        return Err(Error::user(format!("two columns are named \"{}\"", twice.name())).hint("name one of them otherwise, with AS"));
    }
    Ok(Planned { query, node, reads })
}

fn mark_wanted(node: &Node, source: &str, wanted: &mut [bool]) {
    let is_source = |node: &Node| matches!(&node.op, Op::Scan { relation } if relation == source);
    if is_source(node) {
        wanted.fill(true);
    }
    for node in node.all() {
        match &node.op {
            Op::Program { input, program: RowProgram { project: Some(project), predicate, .. } } if is_source(input) => {
                let columns = project.iter().chain(predicate).flat_map(datafusion::physical_expr::utils::collect_columns);
                columns.for_each(|column| wanted[column.index()] = true);
            }
            _ if node.inputs().into_iter().any(|input| is_source(input)) => wanted.fill(true),
            _ => {}
        }
    }
}

fn check_detection(options: &Options, node: &NodeRef) -> Result<()> {
    if let Some(unknown) = options.keys().find(|key| !DETECTION_OPTIONS.contains(&key.as_str())) {
        let error = Error::user(format!("a detection has no option \"{unknown}\""));
        return Err(match did_you_mean(unknown, DETECTION_OPTIONS) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint(format!("there are {}", DETECTION_OPTIONS.join(", "))),
        });
    }
    if let Some(severity) = options.get("severity").filter(|severity| !SEVERITIES.contains(&severity.as_str())) {
        return Err(Error::user(format!("severity '{severity}' is not known")).hint(format!("severities are {}", SEVERITIES.join(", "))));
    }
    let Some(entity) = options.get("entity") else { return Ok(()) };
    if node.schema.column_with_name(entity).is_none() {
        let error = Error::user(format!("the entity \"{entity}\" is not a column of the detection"));
        return Err(match did_you_mean(entity, node.schema.fields().iter().map(|field| field.name().as_str())) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error,
        });
    }
    Ok(())
}

/// `${NAME}` and `${NAME:-default}`; the environment comes before the pack's variables.
fn expand_variables(text: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, behind) = after.split_once('}').ok_or_else(|| Error::user(format!("'{text}' has ${{ without }}")))?;
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        let value = std::env::var(name).ok().or_else(|| variables.get(name).cloned()).or_else(|| default.map(str::to_string));
        let value = value.ok_or_else(|| {
            Error::user(format!("variable {name} is not set"))
                .hint(format!("set it in the environment or under [variables] in tidegate.toml, or write ${{{name}:-default}}"))
        })?;
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The place of the word an error quotes, or of the construct it names; else the statement's.
fn pointed(error: Error, placed: &Placed) -> Error {
    if error.fault == Fault::Engine {
        return error;
    }
    let quoted = error.message.split('"').nth(1).map(str::to_string);
    let named = constructs(&error.message);
    let place_of = |wanted: &String| {
        placed.tokens.iter().find(|token| match &token.token {
            Token::Word(word) => word.value.eq_ignore_ascii_case(wanted),
            Token::SingleQuotedString(text) => text == wanted,
            _ => false,
        })
    };
    match quoted.iter().chain(&named).filter(|word| !word.is_empty()).find_map(place_of) {
        Some(token) => error.at(&placed.file, token.span.start.line, token.span.start.column),
        None => error.at(&placed.file, placed.line, placed.column),
    }
}

/// SQL's words in a message, which are in capitals, and functions: `LATERAL`, `random` of `random()`.
fn constructs(message: &str) -> Vec<String> {
    let ends = message.char_indices().filter(|(_, c)| !c.is_alphanumeric() && *c != '_').map(|(at, _)| at);
    let mut from = 0;
    let mut found = Vec::new();
    for end in ends.chain([message.len()]) {
        let word = &message[from..end];
        let is_keyword = 1 < word.len() && word.chars().all(|c| c.is_ascii_uppercase());
        if is_keyword || (!word.is_empty() && message[end..].starts_with('(')) {
            found.push(word.to_string());
        }
        from = end + message[end..].chars().next().map_or(0, char::len_utf8);
    }
    found
}

fn lines<'a>(column: &str, lines: impl Iterator<Item = &'a str>) -> Response {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8, false)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(lines.collect::<Vec<_>>()))]);
    Response::Rows { tick: None, batches: vec![rows.expect("the schema above")], schema }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_constructs() {
        assert_eq!(constructs("LATERAL is not supported"), ["LATERAL"]);
        assert_eq!(constructs("random(), which gives another value each time, is not supported"), ["random"]);
        assert_eq!(constructs("an aggregate inside a correlated EXISTS is not supported"), ["EXISTS"]);
        assert_eq!(constructs("größe: das ist kein TYP"), ["TYP"]);
    }

    #[test]
    fn variables_expand_or_say_what_is_missing() {
        let variables = BTreeMap::from([("A_TEST_NAME".to_string(), "x".to_string())]);
        assert_eq!(expand_variables("${A_TEST_NAME}/${B_TEST_NAME:-y}", &variables).unwrap(), "x/y");
        assert!(expand_variables("${B_TEST_NAME}", &variables).unwrap_err().to_string().contains("B_TEST_NAME is not set"));
        assert!(expand_variables("${A_TEST_NAME", &variables).is_err());
    }
}
