//! CREATE and DROP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidegate_plan::catalog::{SourceInfo, WatermarkRule};
use tidegate_plan::statement::{self, Placed, Statement};
use tidegate_plan::{Catalog, Node, NodeRef, Op, Relation, RelationKind};
use tidegate_types::connector::{Decision, Options, SinkSpec, SourceSpec};
use tidegate_types::error::{Error, Mistake, Result, did_you_mean};

use super::arrivals::Counts;
use super::replace::{kept_relation, view_relation};
use super::show::lines;
use super::{Coordinator, Definition, Follow, Kept, SourceState, SourceStatus, late_name, tables::Table};
use crate::actions::{ActionEvent, ActionOptions, ActionRecord, ActionState, ActionTask, Entry, Journal};
use crate::followers::Queue;
use crate::interface::Response;
use crate::log::record::Record;
use crate::planning::{Planned, plan_query, plan_view};
use crate::worker::Command;

/// What `CREATE DETECTION … WITH` knows.
const DETECTION_OPTIONS: [&str; 4] = ["severity", "entity", "attack", "description"];
const SEVERITIES: [&str; 5] = ["info", "low", "medium", "high", "critical"];

/// The tag of a pack's statement that says what is there already.
pub const UNCHANGED: &str = "unchanged";

impl Coordinator {
    /// Carries a statement out, says it to the log, and keeps account of it.
    pub(super) fn change(&mut self, mut placed: Placed, is_pack: bool) -> Result<Response> {
        self.opened();
        if is_pack && let Some((key, false)) = definition_key(&placed.statement) {
            match self.definitions.get(&key) {
                Some(definition) if definition.says(&placed) => return Ok(Response::done(UNCHANGED)),
                Some(_) => placed.statement.replace(),
                None => {}
            }
        }
        self.check_innocent(&placed)?;
        let replaces = definition_key(&placed.statement).is_some_and(|(key, _)| self.definitions.contains_key(&key));
        self.is_history_unread = false;
        let response = self.statement(&placed).map_err(|error| placed.pointed(error));
        if let Some(error) = response.as_ref().err().filter(|_| replaces && self.is_history_unread) {
            self.half_done = Some(error.clone());
        }
        let response = response?;
        if let Some((key, is_drop)) = definition_key(&placed.statement) {
            let Placed { file, text, .. } = &placed;
            self.say(|| Record::Statement { file: file.clone(), text: text.clone(), is_pack });
            self.generation += 1;
            match is_drop {
                true => drop(self.definitions.remove(&key)),
                false => {
                    let definition = Definition { file: file.clone(), text: text.clone(), is_pack, generation: self.generation };
                    let name = shown_name(&key).to_string();
                    self.definitions.insert(key, definition);
                    // What reads it was made again behind it.
                    for reader in self.dependents_in_order(&name) {
                        self.generation += 1;
                        self.definitions.entry(reader).and_modify(|definition| definition.generation = self.generation);
                    }
                }
            }
        }
        Ok(response)
    }

    /// Errors: a worker failed on this very statement.
    fn check_innocent(&self, placed: &Placed) -> Result<()> {
        let guilty = self.log.as_ref().filter(|_| !self.replaying).and_then(|log| log.guilty(&placed.text));
        guilty.map_or(Ok(()), |guilty| {
            let error = Error::user(format!("{}:{}: a worker failed on this statement: {}", placed.file, placed.line, guilty.reason));
            Err(error.hint("write it otherwise; a comment is enough to try again what its rows made fail"))
        })
    }

    /// Drops what packs made and no longer mention, the youngest first.
    pub(super) fn prune(&mut self, mentioned: &BTreeSet<String>) -> Result<()> {
        let gone = self.definitions.iter().filter(|(key, definition)| definition.is_pack && !mentioned.contains(shown_name(key)));
        let mut gone: Vec<(u64, String)> = gone.map(|(key, definition)| (definition.generation, shown_name(key).to_string())).collect();
        gone.sort_unstable();
        for (_, name) in gone.into_iter().rev() {
            let kind = self.kind_of(&name).unwrap_or("relation");
            if !self.config.dry {
                tracing::warn!("the pack no longer has {kind} \"{name}\": it is dropped");
            }
            let quoted = name.replace('"', "\"\"");
            for placed in statement::parse(&format!("DROP {} \"{quoted}\"", kind.to_uppercase()), "pack")? {
                self.change(placed, true)?;
            }
        }
        Ok(())
    }

    fn statement(&mut self, placed: &Placed) -> Result<Response> {
        let tag = match &placed.statement {
            Statement::CreateSource { name, replace, schema, watermark, options } => {
                let spec = self.source_spec(name, schema, options)?;
                self.make_room(name, *replace, "source")?;
                self.create_source(spec, watermark.as_ref())?;
                "CREATE SOURCE"
            }
            Statement::CreateTable { name, replace, schema, key } => {
                self.make_room(name, *replace, "table")?;
                self.create_table(name, schema, key)?;
                "CREATE TABLE"
            }
            Statement::CreateView { name, replace, query } => {
                // A view that cannot run is refused here, not where it is used.
                let planned = plan_query(query, &self.catalog)?;
                self.check_acyclic(name, &planned)?;
                let relation = view_relation(name, &planned);
                if *replace && self.is_read(name, "view") {
                    self.take_over(relation, None)?;
                } else {
                    self.make_room(name, *replace, "view")?;
                    self.catalog.insert(relation);
                }
                "CREATE VIEW"
            }
            Statement::CreateKept { name, replace, detection, options, query } => {
                let kind = if *detection { "detection" } else { "materialized view" };
                let planned = match self.prepared.as_mut().and_then(|prepared| prepared.planned.take()) {
                    Some(planned) => planned,
                    None => plan_query(query, &self.catalog)?,
                };
                self.check_acyclic(name, &planned)?;
                check_detection(options, &planned.node)?;
                let relation = kept_relation(name, *detection, &planned);
                if *replace && self.is_read(name, kind) {
                    self.take_over(relation, Some(planned))?;
                    let kept = self.kept.get_mut(name).expect("it was replaced");
                    (kept.options, kept.query) = (options.clone(), placed.text.clone());
                } else {
                    self.make_room(name, *replace, kind)?;
                    self.create_kept(relation, options, planned, &placed.text)?;
                }
                if *detection { "CREATE DETECTION" } else { "CREATE MATERIALIZED VIEW" }
            }
            Statement::CreateSink { name, replace, from, options } => {
                self.create_sink(name, *replace, from, options)?;
                "CREATE SINK"
            }
            Statement::CreateAction { name, replace, from, options } => {
                self.create_action(name, *replace, from, options)?;
                "CREATE ACTION"
            }
            Statement::Drop { kind, name, if_exists } => {
                self.drop_named(&kind.to_lowercase(), name, *if_exists)?;
                return Ok(Response::done(format!("DROP {kind}")));
            }
            Statement::Show { what } => return self.show(what),
            Statement::ExplainNamed { name } => return Ok(lines("plan", self.explain(name)?.lines())),
            Statement::Decide { id, decision } => {
                self.decide(id, *decision)?;
                match decision {
                    Decision::Approve => "APPROVE ACTION",
                    Decision::Reject => "REJECT ACTION",
                    Decision::Done | Decision::NotDone => "RESOLVE ACTION",
                }
            }
            Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Query(_)
            | Statement::Explain { .. }
            | Statement::Checkpoint
            | Statement::ExplainReplace { .. } => {
                return Err(Error::engine("a statement that is read came to be executed"));
            }
        };
        Ok(Response::done(tag))
    }

    fn source_spec(&self, name: &str, schema: &SchemaRef, options: &Options) -> Result<SourceSpec> {
        let spec = SourceSpec {
            name: name.to_string(),
            schema: Arc::clone(schema),
            columns_wanted: vec![true; schema.fields().len()],
            options: self.expanded(options)?,
            folder: self.config.folder.clone(),
            once: self.config.once,
            clock: Arc::clone(&self.config.clock),
            resume: None,
        };
        drop(self.connectors.source(&spec)?);
        Ok(spec)
    }

    fn create_source(&mut self, spec: SourceSpec, watermark: Option<&(String, i64)>) -> Result<()> {
        let (name, schema) = (&spec.name.clone(), &Arc::clone(&spec.schema));
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
            counts: Counts::default(),
            generation: self.generation,
            created: self.opened(),
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
        let created = self.opened();
        self.tables.insert(name.to_string(), Table::new(schema, &key, created)?);
        self.catalog.insert(Relation { name: name.to_string(), kind: RelationKind::Table { key }, schema: Arc::clone(schema) });
        self.start_kept_input(name, schema);
        Ok(())
    }

    fn create_kept(&mut self, relation: Relation, options: &Options, planned: Planned, query: &str) -> Result<()> {
        let Planned { node, reads, .. } = planned;
        let name = &relation.name.clone();
        let detection = matches!(relation.kind, RelationKind::Kept { detection: true, .. });
        self.start_dataflow(name, &node, true, detection)?;
        self.catalog.insert(relation);
        let kept = Kept { node, reads, options: options.clone(), query: query.to_string(), created: self.last_used };
        self.kept.insert(name.to_string(), kept);
        if detection {
            self.metrics.findings_open.with_label_values(&[name]).set(0);
        }
        Ok(())
    }

    fn create_sink(&mut self, name: &str, replace: bool, from: &str, options: &Options) -> Result<()> {
        let node = self.followed(from, &self.catalog)?;
        let sink = self.connectors.sink(&self.sink_spec(name, &node, self.expanded(options)?))?;
        self.make_room(name, replace, "sink")?;
        self.start_dataflow(&follower_name(name), &node, false, true)?;
        let (schema, seeded) = (Arc::clone(&node.schema), self.config.seeded);
        let queue = Queue::sink(name.to_string(), schema, node.facts.append_only, sink, self.metrics.clone(), seeded);
        self.follow(name, Follow { kind: "sink", from: from.to_string(), node, queue, created: self.last_used, takeover: None });
        Ok(())
    }

    fn create_action(&mut self, name: &str, replace: bool, from: &str, options: &Options) -> Result<()> {
        if !matches!(self.catalog.get(from).map(|relation| &relation.kind), Some(RelationKind::Kept { detection: true, .. })) {
            let detections = self.kept.iter().filter(|(name, _)| self.is_detection(name)).map(|(name, _)| name.as_str());
            let error = Error::user(format!("\"{from}\" is not a detection"));
            return Err(match did_you_mean(from, detections) {
                Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                None => error.hint("an action follows a detection: CREATE DETECTION first"),
            });
        }
        let node = self.followed(from, &self.catalog)?;
        let mut options = self.expanded(options)?;
        let own = ActionOptions::take(&mut options)?;
        let responder = self.connectors.responder(&self.sink_spec(name, &node, options))?;
        self.make_room(name, replace, "action")?;
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
            journal: Journal::new(self.log.is_some().then(|| self.notes.clone())),
            metrics: self.metrics.clone(),
            clock: Arc::clone(&self.config.clock),
            random: Arc::clone(&self.config.random),
            seeded: self.config.seeded,
        };
        self.follow(
            name,
            Follow { kind: "action", from: from.to_string(), node, queue: Queue::action(task), created: self.last_used, takeover: None },
        );
        Ok(())
    }

    /// Logs a person's word, and passes it on once it is durable.
    fn decide(&mut self, id: &str, decision: Decision) -> Result<()> {
        let tick = self.opened();
        let Some(Entry { action, .. }) = self.action_log.find(id) else {
            return Err(Error::user(format!("no action has the id '{id}'")).hint("SELECT id, state FROM sys.actions"));
        };
        // Whether the finding still holds is not known there.
        self.check_runs(&follower_name(&action))?;
        let follow = self.followers.get(&follower_name(&action));
        let follow = follow.ok_or_else(|| Error::user(format!("action \"{action}\" was dropped")).hint("create it again"))?;
        self.action_log.decide(id, decision, tick).map_err(|state| {
            let wanted = ActionState::decided_by(decision);
            Error::user(format!("action '{id}' is {}, not {}", state.as_str(), wanted.as_str()))
                .hint("APPROVE and REJECT answer what is awaiting_approval, RESOLVE what is in_doubt")
        })?;
        let tell = follow.queue.decide(id.to_string(), decision, tick);
        self.say(|| Record::Action(ActionRecord { action, id: id.to_string(), event: ActionEvent::Decision(decision) }));
        self.when_closed(Box::new(move |_, _| tell()));
        Ok(())
    }

    /// It is told nothing before its creation is durable.
    fn follow(&mut self, name: &str, mut follow: Follow) {
        // What came later was told to the outside when it came.
        if self.config.dry || (self.is_past() && (follow.kind == "action" || self.is_reliving())) {
            follow.queue.mute();
        }
        self.followers.insert(follower_name(name), follow);
    }

    fn sink_spec(&self, name: &str, node: &NodeRef, options: Options) -> SinkSpec {
        SinkSpec {
            name: name.to_string(),
            schema: Arc::clone(&node.schema),
            options,
            folder: self.config.folder.clone(),
            disk: Arc::clone(&self.config.disk),
        }
    }

    /// The node a sink or an action follows: the relation itself, or a plain view's query.
    pub(super) fn followed(&self, from: &str, catalog: &Catalog) -> Result<NodeRef> {
        let relation = catalog.get(from).ok_or_else(|| self.no_relation(from))?;
        match &relation.kind {
            RelationKind::View { query, .. } => plan_view(query, catalog),
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
            Some(existing) if replace => Err(Error::user(format!("\"{name}\" is a {existing}, not a {kind}"))
                .hint(format!("DROP {} {name}", existing.to_uppercase()))
                .mistake(Mistake::WrongRelation)),
            Some(existing) => {
                let error = Error::user(format!("{existing} \"{name}\" exists already")).hint("use CREATE OR REPLACE, or another name");
                Err(error.mistake(Mistake::DuplicateRelation))
            }
        }
    }

    pub(super) fn kind_of(&self, name: &str) -> Option<&'static str> {
        let follower = self.followers.get(&follower_name(name)).map(|follow| follow.kind);
        follower.or_else(|| self.catalog.get(name).map(|relation| relation.kind_name()))
    }

    fn drop_named(&mut self, kind: &str, name: &str, if_exists: bool) -> Result<()> {
        match self.kind_of(name) {
            None if if_exists => return Ok(()),
            None => return Err(self.no_relation(name)),
            Some(existing) if existing != kind => {
                return Err(Error::user(format!("\"{name}\" is a {existing}, not a {kind}"))
                    .hint(format!("DROP {} {name}", existing.to_uppercase()))
                    .mistake(Mistake::WrongRelation));
            }
            Some(_) => {}
        }
        let dependents = self.dependents(name);
        if !dependents.is_empty() {
            let dependents: Vec<String> = dependents.iter().map(|dependent| self.described(dependent)).collect();
            let error = Error::user(format!("{kind} \"{name}\" is used by {}", dependents.join(", "))).hint("drop those first");
            return Err(error.mistake(Mistake::Dependents));
        }
        if let Some(mut follow) = self.followers.remove(&follower_name(name)) {
            tokio::spawn(follow.queue.finish());
            self.workers.broadcast(&Command::Drop { name: follower_name(name) });
            self.born.remove(&follower_name(name));
            self.is_stopped_no_more(&follower_name(name));
            return Ok(());
        }
        if let Some(mut state) = self.sources.remove(name) {
            if let Some(task) = state.task.take() {
                task.abort();
            }
            self.catalog.relations.remove(&late_name(name));
            self.workers.broadcast(&Command::Drop { name: late_name(name) });
        }
        self.tables.remove(name);
        self.kept.remove(name);
        self.errors.remove(name);
        self.born.remove(name);
        self.is_stopped_no_more(name);
        let _ = self.metrics.view_state_bytes.remove_label_values(&[name]);
        self.catalog.relations.remove(name);
        self.workers.broadcast(&Command::Drop { name: name.to_string() });
        Ok(())
    }

    /// It is there, of that kind, and something reads it.
    fn is_read(&self, name: &str, kind: &str) -> bool {
        self.kind_of(name) == Some(kind) && !self.dependents(name).is_empty()
    }

    fn described(&self, dependent: &str) -> String {
        match self.followers.get(dependent) {
            Some(follow) => format!("{} {}", follow.kind, shown_name(dependent)),
            None => dependent.to_string(),
        }
    }

    /// Errors: the view would read itself, by itself or through others.
    pub(super) fn check_acyclic(&self, name: &str, planned: &Planned) -> Result<()> {
        let through = if planned.reads.contains(name) {
            String::new()
        } else {
            match self.dependents(name).into_iter().find(|reader| planned.reads.contains(reader)) {
                Some(reader) => format!(" through \"{reader}\""),
                None => return Ok(()),
            }
        };
        let error = Error::user(format!("\"{name}\" would read itself{through}")).mistake(Mistake::ReadsItself);
        Err(error.hint("give the new view another name; WITH RECURSIVE is for rows that follow from each other"))
    }

    /// What reads the relation or its late rows, by itself or through others.
    pub(super) fn dependents(&self, name: &str) -> Vec<String> {
        let mut used = vec![name.to_string(), late_name(name)];
        let mut next = 0;
        while next < used.len() {
            let readers = self.readers(&used[next]).filter(|reader| !used.contains(reader)).collect::<Vec<_>>();
            used.extend(readers);
            next += 1;
        }
        let followers = self.followers.iter().filter(|(_, follow)| used.contains(&follow.from));
        let followers = followers.map(|(other, _)| other.clone()).collect::<Vec<_>>();
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
        let error = Error::user(format!("relation \"{name}\" does not exist")).mistake(Mistake::NoRelation);
        let names = self.catalog.relations.values().map(|relation| relation.name.as_str());
        match did_you_mean(name, names) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint("SHOW RELATIONS lists what there is"),
        }
    }
}

impl Definition {
    /// Whether it is that statement, however both are laid out.
    pub fn says(&self, placed: &Placed) -> bool {
        self.text == placed.text
            || statement::parse(&self.text, &self.file).is_ok_and(|said| said.iter().any(|said| said.words() == placed.words()))
    }
}

/// Under which name a definition is kept, and whether it is dropped.
pub fn definition_key(statement: &Statement) -> Option<(String, bool)> {
    let (name, is_drop) = statement.object()?;
    let is_follower = match statement {
        Statement::CreateSink { .. } | Statement::CreateAction { .. } => true,
        Statement::Drop { kind, .. } => matches!(kind.as_str(), "SINK" | "ACTION"),
        _ => false,
    };
    Some((if is_follower { follower_name(name) } else { name.to_string() }, is_drop))
}

// A sink or an action may have the name of a view; their dataflows must not.
pub(super) fn follower_name(name: &str) -> String {
    format!("-> {name}")
}

/// Without what tells a sink or an action from a view.
pub fn shown_name(name: &str) -> &str {
    name.strip_prefix("-> ").unwrap_or(name)
}

pub(super) fn check_detection(options: &Options, node: &NodeRef) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_or_say_what_is_missing() {
        let variables = BTreeMap::from([("A_TEST_NAME".to_string(), "x".to_string())]);
        assert_eq!(expand_variables("${A_TEST_NAME}/${B_TEST_NAME:-y}", &variables).unwrap(), "x/y");
        assert!(expand_variables("${B_TEST_NAME}", &variables).unwrap_err().to_string().contains("B_TEST_NAME is not set"));
        assert!(expand_variables("${A_TEST_NAME", &variables).is_err());
    }
}
