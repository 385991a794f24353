//! The house's rules, held by reading files: what may depend on what, what is
//! nowhere to be found, and that documents and dashboards name what is there.
//!
//! A broken rule names the file, the line and the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Which crates of ours each crate may name. An arrow the other way means that
/// a type belongs further down.
const ARROWS: [(&str, &[&str]); 11] = [
    ("tidegate-types", &[]),
    ("tidegate-operators", &["tidegate-types"]),
    ("tidegate-trials", &["tidegate-operators"]),
    ("tidegate-plan", &["tidegate-operators", "tidegate-types"]),
    // Their tests take what nobody meant from testdata.
    ("tidegate-runtime", &["tidegate-plan", "tidegate-operators", "tidegate-testdata", "tidegate-types"]),
    ("tidegate-connectors", &["tidegate-testdata", "tidegate-types"]),
    ("tidegate-testdata", &[]),
    // The demo's streams are the server's `generator` source, hence testdata.
    ("tidegate", &["tidegate-runtime", "tidegate-connectors", "tidegate-testdata", "tidegate-types"]),
    // The bad day, around the engine's door.
    ("tidegate-sim", &["tidegate-runtime", "tidegate-types"]),
    // The public door, and the words it speaks.
    ("tidegate-queries", &["tidegate", "tidegate-testdata", "tidegate-types"]),
    ("tidegate-benches", &["tidegate", "tidegate-testdata", "tidegate-types"]),
];

/// Crates of others that a folder of ours does not know, in its manifest or its code.
const UNKNOWN_TO: [(&str, &[&str]); 9] = [
    ("engine/types", &["tokio", "timely", "differential-dataflow", "crossbeam-channel"]),
    ("engine/plan", &["tokio", "timely", "differential-dataflow", "crossbeam-channel"]),
    ("engine/server", &["timely", "differential-dataflow"]),
    ("engine/sim", &["timely", "differential-dataflow"]),
    ("operators", &["tokio"]),
    ("connectors", &["timely", "differential-dataflow"]),
    ("testdata", &["tokio", "timely", "differential-dataflow", "arrow", "datafusion"]),
    ("queries", &["timely", "differential-dataflow"]),
    ("benches", &["timely", "differential-dataflow"]),
];

#[test]
fn dependencies_run_one_way() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut broken = Vec::new();
    for (folder, manifest) in manifests() {
        let name = manifest["package"]["name"].as_str().expect("a package has a name").to_string();
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            broken.push(format!("{folder}/Cargo.toml: crate {name} has no arrows yet: add it to ARROWS"));
            continue;
        };
        let named = dependencies(&manifest);
        let wrong = named.iter().filter(|named| named.starts_with("tidegate") && !allowed.contains(&named.as_str()));
        broken.extend(
            wrong.map(|wrong| format!("{folder}/Cargo.toml: {name} may not depend on {wrong}: move what it needs down, or pass it in")),
        );
        broken.extend(
            allowed.iter().filter(|allowed| !ours.contains(*allowed)).map(|unknown| format!("ARROWS names {unknown}, which is no crate")),
        );
    }
    hold(&broken);
}

#[test]
fn crates_do_not_know_what_they_must_not() {
    let mut broken = Vec::new();
    for (folder, manifest) in manifests() {
        let Some((_, unknown)) = UNKNOWN_TO.iter().find(|(known, _)| *known == folder) else { continue };
        let named = dependencies(&manifest);
        broken.extend(unknown.iter().filter(|word| named.contains(**word)).map(|word| format!("{folder}/Cargo.toml: depends on {word}")));
        for file in files(&folder, &["rs"]) {
            // These rules are written here.
            if file.path.ends_with("tests/tidy.rs") {
                continue;
            }
            let found = unknown.iter().filter(|word| names_crate(&file.text, word));
            broken.extend(found.map(|word| format!("{}: names {word}", file.path)));
        }
    }
    hold(&broken);
}

/// Timely's threads and tokio's meet in one file.
#[test]
fn there_is_one_bridge() {
    let meets = |file: &File| {
        let knows_timely = names_crate(&file.text, "timely") || names_crate(&file.text, "differential-dataflow");
        knows_timely && names_crate(&file.text, "tokio")
    };
    let bridges: Vec<String> = files("engine/runtime/src", &["rs"]).into_iter().filter(meets).map(|file| file.path).collect();
    assert_eq!(bridges, ["engine/runtime/src/bridge.rs"], "files that name both timely and tokio");
}

/// What is behind the edge is a function of its input.
#[test]
fn plans_and_operators_read_no_clock_no_disk_and_no_dice() {
    const WORDS: [&str; 8] = ["SystemTime", "Instant", "WallClock", "rand::", "std::fs", "std::net", "std::env", "std::process"];
    let mut broken = Vec::new();
    for file in ["engine/plan/src", "operators/src", "engine/types/src"].iter().flat_map(|folder| files(folder, &["rs"])) {
        // The machine's clock, disk and chance, each behind its trait.
        if ["time.rs", "disk.rs", "random.rs", "lib.rs"].iter().any(|name| file.path == format!("engine/types/src/{name}")) {
            continue;
        }
        let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        broken.extend(lines_with(&File { text: code.into(), ..file.clone() }, &WORDS, is_code));
    }
    hold(&broken);
}

#[test]
fn nothing_is_left_half_done() {
    const WORDS: [&str; 4] = [concat!("todo", "!"), concat!("unimplemented", "!"), concat!("dbg", "!"), concat!("#[ig", "nore")];
    let all = files(".", &["rs"]);
    hold(&all.iter().flat_map(|file| lines_with(file, &WORDS, |_| true)).collect::<Vec<_>>());
}

#[test]
fn names_say_something() {
    const NOTHING: [&str; 6] = ["utils", "util", "helpers", "helper", "misc", "v2"];
    let says_nothing = |file: &&File| {
        let stem = Path::new(&file.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        NOTHING.contains(&stem) || stem.ends_with("_v2")
    };
    let all = files(".", &["rs", "sql", "slt"]);
    hold(&all.iter().filter(says_nothing).map(|file| format!("{}: the name says nothing of what is in it", file.path)).collect::<Vec<_>>());
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let without = |(folder, manifest): &(String, Value)| {
        (manifest["lints"]["workspace"] != true).then(|| format!("{folder}/Cargo.toml: add [lints] workspace = true"))
    };
    hold(&manifests().iter().filter_map(without).collect::<Vec<_>>());
}

/// The tree stands by itself.
#[test]
fn nothing_points_outside() {
    const PATHS: [&str; 4] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("../sha", "red")];
    let files = files(".", &["rs", "sql", "slt", "toml", "md", "json", "yaml", "yml", "run"]);
    hold(&files.iter().flat_map(|file| lines_with(file, &PATHS, |_| true)).collect::<Vec<_>>());
}

#[test]
fn each_operator_says_what_it_promises() {
    const LINES: [&str; 5] = ["SQL", "In", "Out", "State", "Errors"];
    /// What all operators share, and the list.
    const SHARED: [&str; 4] = ["lib", "stream", "usage", "keyed"];
    let mut broken = Vec::new();
    for file in files("operators/src", &["rs"]) {
        let Some(stem) = file.path.strip_prefix("operators/src/").and_then(|path| path.strip_suffix(".rs")) else { continue };
        if stem.contains('/') || SHARED.contains(&stem) {
            continue;
        }
        if !file.text.starts_with(&format!("//! `{stem}`: ")) {
            broken.push(format!("{}: its head begins with `{stem}` and what it is", file.path));
        }
        broken.extend(unpromised(&file, &LINES));
    }
    hold(&broken);
}

#[test]
fn each_connector_says_what_it_promises() {
    const KINDS: [(&str, &[&str]); 4] = [
        ("impl Source for ", &["Options", "Rows", "Delivery", "Errors|Answers"]),
        ("impl Sink for ", &["Options", "Delivery", "Errors"]),
        ("impl Responder for ", &["Options", "Body", "Delivery", "Errors"]),
        ("impl Decoder for ", &["Rows", "Errors"]),
    ];
    let all = files("connectors/src", &["rs"]);
    let broken = all.iter().flat_map(|file| {
        let kinds = KINDS.iter().filter(|(kind, _)| file.text.contains(kind));
        kinds.flat_map(|(_, lines)| unpromised(file, lines)).collect::<Vec<_>>()
    });
    hold(&broken.collect::<Vec<_>>());
}

#[test]
fn the_demo_embeds_every_pilot_file() {
    let demo = read("engine/server/src/demo.rs");
    let missing = files("queries/pilots", &["sql"]).into_iter().filter(|file| {
        let path = file.path.strip_prefix("queries/pilots/").expect("it was found there");
        !demo.contains(&format!("\"{path}\","))
    });
    hold(&missing.map(|file| format!("{}: add it to PILOT_FILES in engine/server/src/demo.rs", file.path)).collect::<Vec<_>>());
}

#[test]
fn each_detection_has_a_test_beside_it() {
    let untested = files("queries", &["sql"]).into_iter().filter(|file| {
        let is_detection = file.text.lines().any(|line| line.starts_with("CREATE DETECTION "));
        is_detection && !root().join(&file.path).with_extension("slt").is_file()
    });
    hold(&untested.map(|file| format!("{}: has no .slt of its name", file.path)).collect::<Vec<_>>());
}

/// `ARCHITECTURE.md` has a section per crate that names each of its files.
#[test]
fn the_code_map_is_complete() {
    let map = read("engine/ARCHITECTURE.md");
    let mut sections: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut folder = "";
    for line in map.lines() {
        if line.starts_with('#') {
            folder = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')).unwrap_or_default();
        }
        let entry = line.strip_prefix("- `").and_then(|rest| rest.split('`').next());
        sections.entry(folder).or_default().extend(entry.filter(|word| word.ends_with(".rs")));
    }
    let mut broken = Vec::new();
    for folder in ["engine/types", "engine/plan", "engine/runtime", "engine/server", "engine/sim", "operators", "connectors", "testdata"] {
        let source = format!("{folder}/src");
        let there: BTreeSet<String> = files(&source, &["rs"]).iter().map(|file| file.path[source.len() + 1..].to_string()).collect();
        let named = sections.remove(folder).unwrap_or_default();
        let unnamed = there.iter().filter(|path| !named.contains(path.as_str()));
        broken.extend(unnamed.map(|path| format!("{source}/{path}: add it to engine/ARCHITECTURE.md, under {folder}")));
        let gone = named.iter().filter(|path| !there.contains(**path));
        broken.extend(gone.map(|path| format!("engine/ARCHITECTURE.md: {folder} has no src/{path}")));
    }
    hold(&broken);
}

/// What people are told to run is what is run for every change.
#[test]
fn the_readme_and_the_checks_run_one_command() {
    const COMMAND: &str = "cargo test --release --workspace";
    for path in ["README.md", ".ci/run"] {
        assert!(read(path).contains(COMMAND), "{path} does not run `{COMMAND}`");
    }
}

#[test]
fn dashboards_name_metrics_and_relations_that_exist() {
    let metrics = read("engine/runtime/src/metrics.rs");
    let system = files("engine/runtime/src", &["rs"]);
    let relations = readable();
    let sources = read("dashboards/provisioning/datasources/tidegate.yaml");
    let (mut broken, mut uids) = (Vec::new(), BTreeSet::new());
    let all = files("dashboards", &["json"]);
    assert!(!all.is_empty(), "there are no dashboards");
    for file in all {
        let dashboard: Value = serde_json::from_str(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        let uid = dashboard["uid"].as_str().unwrap_or_default();
        if uid.is_empty() || !uids.insert(uid.to_string()) {
            broken.push(format!("{}: its uid \"{uid}\" is empty or another's", file.path));
        }
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().expect("panels") {
            if !ids.insert(panel["id"].as_u64()) {
                broken.push(format!("{}: panel {}: its id is another's", file.path, panel["title"]));
            }
        }
        for (title, targets) in asked(&dashboard) {
            let mut say = |what: String| broken.push(format!("{}: panel {title}: {what}", file.path));
            for target in targets {
                let source = target["datasource"]["uid"].as_str().unwrap_or_default();
                if !sources.lines().any(|line| line.trim() == format!("uid: {source}")) {
                    say(format!("datasource \"{source}\" is not provisioned"));
                }
                let (expr, sql) = (target["expr"].as_str().unwrap_or_default(), target["rawSql"].as_str().unwrap_or_default());
                if metric_names(expr).is_empty() && relation_names(sql).is_empty() {
                    say("asks for nothing of ours".into());
                }
                let missing = metric_names(expr).into_iter().filter(|name| !is_metric(&metrics, name));
                missing.for_each(|name| say(format!("there is no metric {name}")));
                let missing = relation_names(sql).into_iter().filter(|name| match name.starts_with("sys.") {
                    true => !system.iter().any(|file| file.text.contains(&format!("\"{name}\""))),
                    false => !relations.contains(*name),
                });
                missing.for_each(|name| say(format!("there is no relation {name} whose rows are kept")));
            }
        }
    }
    hold(&broken);
}

#[test]
fn panels_lie_beside_one_another() {
    let mut broken = Vec::new();
    for file in files("dashboards", &["json"]) {
        let dashboard: Value = serde_json::from_str(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        let panels = dashboard["panels"].as_array().expect("panels");
        for (number, panel) in panels.iter().enumerate() {
            let [x, _, width, _] = place(panel);
            if GRID_WIDTH < x + width {
                broken.push(format!("{}: panel {} is wider than the grid", file.path, panel["title"]));
            }
            let covered = panels[..number].iter().filter(|other| overlap(place(panel), place(other)));
            broken.extend(covered.map(|other| format!("{}: panel {} lies on panel {}", file.path, panel["title"], other["title"])));
        }
    }
    hold(&broken);
}

#[test]
fn names_are_found_in_queries() {
    assert_eq!(
        metric_names("a - on (i) sum by (s) (rate(tidegate_a_total{k=\"tidegate\"}[1m])) / tidegate_b"),
        ["tidegate_a_total", "tidegate_b"]
    );
    let sql = "SELECT a FROM (SELECT b FROM x UNION ALL SELECT b FROM sys.y) n LEFT JOIN z ON z.a = n.a";
    assert_eq!(relation_names(sql), ["x", "sys.y", "z"]);
}

/// What a dashboard asks, by the title of a panel or the name of an annotation.
fn asked(dashboard: &Value) -> Vec<(&Value, Vec<&Value>)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let panels = panels.map(|panel| (&panel["title"], panel["targets"].as_array().expect("targets").iter().collect::<Vec<_>>()));
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    panels.chain(annotations.map(|annotation| (&annotation["name"], vec![&annotation["target"]]))).collect()
}

/// Columns of Grafana's grid.
const GRID_WIDTH: u64 = 24;

/// x, y, width and height.
fn place(panel: &Value) -> [u64; 4] {
    ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place on the grid"))
}

fn overlap([x, y, width, height]: [u64; 4], [x_other, y_other, width_other, height_other]: [u64; 4]) -> bool {
    x < x_other + width_other && x_other < x + width && y < y_other + height_other && y_other < y + height
}

/// Tables, materialized views and detections of the demo's packs.
fn readable() -> BTreeSet<String> {
    let all = [files("queries/pilots", &["sql"]), files("queries/library", &["sql"])].concat();
    let lines = all.iter().flat_map(|file| file.text.lines());
    let names = lines.filter_map(|line| {
        let rest = line.strip_prefix("CREATE ").map(|rest| rest.strip_prefix("OR REPLACE ").unwrap_or(rest))?;
        let kinds = ["TABLE ", "MATERIALIZED VIEW ", "DETECTION "];
        let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
        rest.split(|c: char| !is_name(c)).next().map(String::from)
    });
    names.collect()
}

/// Ours, in a PromQL expression.
fn metric_names(expr: &str) -> Vec<&str> {
    expr.split(|c: char| !is_name(c)).filter(|word| word.starts_with("tidegate_")).collect()
}

/// A histogram's series have suffixes that its name has not.
fn is_metric(metrics: &str, name: &str) -> bool {
    let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    [Some(name), bare].into_iter().flatten().any(|name| metrics.contains(&format!("\"{name}\"")))
}

/// What stands behind FROM and JOIN, but for subqueries.
fn relation_names(sql: &str) -> Vec<&str> {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let read = words.windows(2).filter(|pair| pair[0].ends_with("FROM") || pair[0] == "JOIN");
    read.filter(|pair| !pair[1].starts_with('(')).map(|pair| pair[1].trim_end_matches([',', ')'])).collect()
}

/// Lines that the head lacks. `a|b`: one of them is enough.
fn unpromised(file: &File, lines: &[&str]) -> Vec<String> {
    let head: Vec<&str> = file.text.lines().map_while(|line| line.strip_prefix("//! ").or(line.strip_prefix("//!"))).collect();
    let is_promised = |wanted: &str| head.iter().any(|line| line.split_whitespace().next() == Some(wanted) && !line.starts_with(' '));
    let missing = lines.iter().filter(|line| !line.split('|').any(is_promised));
    missing.map(|line| format!("{}: its head has no line {line}", file.path)).collect()
}

/// Whether code uses a crate; comments may speak of it.
fn names_crate(text: &str, name: &str) -> bool {
    let path = format!("{}::", name.replace('-', "_"));
    text.lines().filter(|line| is_code(line)).any(|line| {
        let mut found = line.match_indices(&path);
        found.any(|(at, _)| !line[..at].ends_with(|c: char| is_name(c) || c == ':'))
    })
}

fn lines_with(file: &File, words: &[&str], is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = file.text.lines().enumerate().filter(|(_, line)| is_meant(line));
    let found = lines.flat_map(|(number, line)| words.iter().filter(move |word| line.contains(**word)).map(move |word| (number, word)));
    found.map(|(number, word)| format!("{}:{}: has {word}", file.path, number + 1)).collect()
}

fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every member of the workspace: its folder and its manifest.
fn manifests() -> Vec<(String, Value)> {
    let workspace = manifest("Cargo.toml");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    let folders = members.iter().filter_map(Value::as_str);
    folders.map(|folder| (folder.to_string(), manifest(&format!("{folder}/Cargo.toml")))).collect()
}

fn manifest(path: &str) -> Value {
    toml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All crates a manifest names, for whatever use and target.
fn dependencies(manifest: &Value) -> BTreeSet<String> {
    let targets = manifest["target"].as_object().into_iter().flat_map(|targets| targets.values());
    let tables = std::iter::once(manifest)
        .chain(targets)
        .flat_map(|table| ["dependencies", "dev-dependencies", "build-dependencies"].map(|kind| &table[kind]));
    tables.filter_map(Value::as_object).flat_map(|table| table.keys().cloned()).collect()
}

#[derive(Clone)]
struct File {
    /// From the top of the checkout.
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below `folder` whose names end in one of these, by name.
fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let folder = folder.trim_start_matches("./").trim_matches('.');
    let mut found = Vec::new();
    visit(folder, &mut |path| {
        let is_wanted = path.rsplit(['.', '/']).next().is_some_and(|ending| endings.contains(&ending));
        if is_wanted {
            found.push(File { path: path.to_string(), text: read(path) });
        }
    });
    found
}

fn visit(folder: &str, see: &mut impl FnMut(&str)) {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("a readable folder")).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().expect("a readable entry");
        // What is built, and what tools keep for themselves.
        let is_ours = !name.starts_with("target") && (!name.starts_with('.') || name == ".ci");
        match (kind.is_dir(), is_ours) {
            (true, true) => visit(&path, see),
            (false, true) => see(&path),
            _ => {}
        }
    }
}

fn hold(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}
