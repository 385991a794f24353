//! `check` and `explain` without running anything: parse, plan and type-check, no side effects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_types::connector::Connectors;
use tidegate_types::error::Result;
use tokio::runtime::Builder;

use crate::engine::Engine;
use crate::interface::{Config, Durability};

/// One line per object of the pack: its kind, its name, and what its state is bounded by.
/// `files`: name and text, in order. Sources are created and never read, sinks never written.
pub fn check(files: &[(String, String)], variables: BTreeMap<String, String>, connectors: Arc<dyn Connectors>) -> Result<Vec<String>> {
    with_engine(files, variables, connectors, |engine| async move {
        let mut lines = Vec::new();
        for relation in engine.relations() {
            if relation.kind == "system relation" {
                continue;
            }
            let bound = match relation.kind {
                "materialized view" | "detection" => {
                    let plan = engine.explain(&relation.name).await?;
                    let warning = plan.lines().find_map(|line| line.strip_prefix("warning: "));
                    warning.map_or("state bounded".to_string(), str::to_string)
                }
                _ => format!("{} columns", relation.schema.fields().len()),
            };
            lines.push(format!("{} {}: {bound}", relation.kind, relation.name));
        }
        Ok(lines)
    })
}

/// The plan of one object of the pack.
pub fn explain(
    files: &[(String, String)],
    variables: BTreeMap<String, String>,
    connectors: Arc<dyn Connectors>,
    name: &str,
) -> Result<String> {
    let name = name.to_string();
    with_engine(files, variables, connectors, |engine| async move { engine.explain(&name).await })
}

fn with_engine<T: Send, F: Future<Output = Result<T>> + Send>(
    files: &[(String, String)],
    variables: BTreeMap<String, String>,
    connectors: Arc<dyn Connectors>,
    use_it: impl FnOnce(Engine) -> F + Send,
) -> Result<T> {
    let run = || {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| tidegate_types::Error::engine(error.to_string()))?;
        runtime.block_on(async {
            let tick = Duration::from_millis(10);
            let config = Config { tick, once: true, dry: true, durability: Durability::Off, variables, ..Config::default() };
            let engine = Engine::start(config, connectors)?;
            for (name, text) in files {
                engine.execute(text, name).await?;
            }
            let answer = use_it(engine.clone()).await;
            engine.shutdown().await?;
            answer
        })
    };
    // The caller may itself be inside a runtime, which must not be blocked on from within.
    std::thread::scope(|scope| scope.spawn(run).join().expect("a failed check panics on, as it would here"))
}
