//! Every panel of every dashboard, against a running demo.
//!
//! SQL goes through the Postgres door as Grafana sends it, its macros expanded,
//! by the simple protocol, and once more prepared, which tells the columns'
//! types. Metrics are looked for in what `/metrics` answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::demo::{self, DemoOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How a panel's description says that it may have no rows.
const EMPTY: &str = "Empty while all is well";

/// Metrics that are not told before the first failure; and of refused requests, where no source takes any.
const UNTOLD: [&str; 3] = ["tidegate_sink_failures_total", "tidegate_view_errors", "tidegate_source_refused_requests_total"];

/// 18 hours of the story; the demo is left as soon as all panels were read.
const STORY: Duration = Duration::from_secs(90);

/// How long panels may take to fill up as the story is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time range that is looked at: the story's.
const FROM: &str = "2026-03-02T06:00:00Z";
const TO: &str = "2026-03-03T06:00:00Z";

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_what_the_demo_has() {
    let (http, pg) = (free_address(), free_address());
    let options = DemoOptions {
        seed: 7,
        duration: STORY,
        rate: 500.0,
        plain: true,
        workers: 2,
        tick: Duration::from_millis(50),
        state_bytes_max: 4 << 30,
        listen_http: Some(http),
        listen_pg: Some(pg),
    };
    tokio::select! {
        ended = demo::run(options) => panic!("the demo ended before the dashboards were read: {ended:?}"),
        broken = read_all(http, pg) => assert!(broken.is_empty(), "\n{}\n", broken.join("\n")),
    }
}

/// What is still wrong with the dashboards once they were waited for, each with its panel.
async fn read_all(http: SocketAddr, pg: SocketAddr) -> Vec<String> {
    let client = connect(pg).await;
    until_it_has_rows(&client, "findings").await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let broken = read_panels(&client, http).await;
        if broken.is_empty() || deadline < Instant::now() {
            return broken;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn read_panels(client: &Client, http: SocketAddr) -> Vec<String> {
    let told = metrics(http).await;
    let mut broken = Vec::new();
    for panel in panels() {
        let mut answers = BTreeMap::new();
        for target in panel.json["targets"].as_array().expect("targets") {
            if let Some(expr) = target["expr"].as_str() {
                let untold = metric_names(expr).into_iter().filter(|name| !told.contains(*name) && !UNTOLD.contains(name));
                broken.extend(untold.map(|name| panel.says(&format!("/metrics does not tell {name}"))));
            }
            if let Some(sql) = target["rawSql"].as_str() {
                match ask(client, &expanded(sql)).await {
                    Ok(answer) => {
                        let is_well_empty = panel.json["description"].as_str().is_some_and(|text| text.contains(EMPTY));
                        if answer.rows.is_empty() && !is_well_empty {
                            broken.push(panel.says("its query answers no rows"));
                        }
                        answers.insert(target["refId"].as_str().unwrap_or_default().to_string(), answer);
                    }
                    Err(error) => broken.push(panel.says(&format!("{error}: {sql}"))),
                }
            }
        }
        broken.extend(wrong_shape(&panel.json, &answers).into_iter().map(|what| panel.says(&what)));
    }
    broken
}

struct Panel {
    file: String,
    json: Value,
}

impl Panel {
    fn says(&self, what: &str) -> String {
        format!("{}: panel {}: {what}", self.file, self.json["title"])
    }
}

/// Annotations are read as panels are.
fn panels() -> Vec<Panel> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards"));
    let mut panels = Vec::new();
    for entry in std::fs::read_dir(folder).expect("dashboards/") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let dashboard: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let all = dashboard["panels"].as_array().expect("panels").iter();
        panels.extend(all.map(|panel| Panel { file: file.clone(), json: panel.clone() }));
        let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
        panels.extend(annotations.map(|annotation| Panel {
            file: file.clone(),
            json: json!({ "title": annotation["name"], "type": "annotation", "targets": [annotation["target"]] }),
        }));
    }
    assert!(!panels.is_empty(), "there are no panels");
    panels
}

/// Grafana's macros, as it expands them before it sends a query.
fn expanded(sql: &str) -> String {
    let mut sql = sql.to_string();
    while let Some(start) = sql.find("$__") {
        let open = start + sql[start..].find('(').expect("a macro has arguments");
        let close = open + sql[open..].find(')').expect("a macro is closed");
        let arguments: Vec<&str> = sql[open + 1..close].split(',').map(|argument| argument.trim().trim_matches('\'')).collect();
        let text = match (&sql[start..open], arguments.as_slice()) {
            ("$__timeFilter", [column]) => format!("{column} BETWEEN '{FROM}' AND '{TO}'"),
            ("$__timeGroup", [column, bin]) => format!("floor(extract(epoch from {column})/{0})*{0}", seconds(bin)),
            ("$__timeFrom", _) => format!("'{FROM}'"),
            ("$__timeTo", _) => format!("'{TO}'"),
            (unknown, _) => panic!("{unknown} is no macro that this test knows: {sql}"),
        };
        sql.replace_range(start..=close, &text);
    }
    sql
}

fn seconds(bin: &str) -> u64 {
    let (number, unit) = bin.split_at(bin.len() - 1);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("a bin is in s, m or h, not {bin}"),
    };
    number.parse::<u64>().expect("a bin begins with a number") * unit
}

/// What Postgres's wire brought.
struct Answer {
    columns: Vec<(String, Type)>,
    /// Text, as the simple protocol has it.
    rows: Vec<BTreeMap<String, Option<String>>>,
}

impl Answer {
    fn is_number(&self, name: &str) -> bool {
        let numbers = [Type::INT2, Type::INT4, Type::INT8, Type::FLOAT4, Type::FLOAT8, Type::NUMERIC];
        self.columns.iter().any(|(column, kind)| column == name && numbers.contains(kind))
    }

    fn values(&self, name: &str) -> BTreeSet<&str> {
        self.rows.iter().filter_map(|row| row.get(name)?.as_deref()).collect()
    }
}

async fn ask(client: &Client, sql: &str) -> Result<Answer, String> {
    let said = |error: tokio_postgres::Error| error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_string());
    let statement = client.prepare(sql).await.map_err(said)?;
    let columns = statement.columns().iter().map(|column| (column.name().to_string(), column.type_().clone())).collect();
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await.map_err(said)? {
        if let SimpleQueryMessage::Row(row) = message {
            let values = row.columns().iter().enumerate().map(|(i, column)| (column.name().to_string(), row.get(i).map(String::from)));
            rows.push(values.collect());
        }
    }
    Ok(Answer { columns, rows })
}

/// Columns that the panel's kind or its options need, and its queries lack.
fn wrong_shape(panel: &Value, answers: &BTreeMap<String, Answer>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, answer) in answers {
        let names: Vec<&str> = answer.columns.iter().map(|(name, _)| name.as_str()).collect();
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            wrong.push(format!("query {id} has two columns of one name: {names:?}"));
        }
        let wanted: &[&str] = match (panel["type"].as_str(), id.as_str()) {
            (Some("nodeGraph"), "nodes") => &["id", "title", "subtitle", "mainstat"],
            (Some("nodeGraph"), "edges") => &["id", "source", "target"],
            (Some("annotation"), _) => &["time", "text"],
            _ => &[],
        };
        wrong.extend(wanted.iter().filter(|name| !names.contains(name)).map(|name| format!("query {id} has no column {name}")));
        let needs_number = matches!(panel["type"].as_str(), Some("stat" | "bargauge" | "barchart"));
        if needs_number && !names.iter().any(|name| answer.is_number(name)) {
            wrong.push(format!("query {id} has no number among its columns {names:?}"));
        }
        let mut targets = panel["targets"].as_array().into_iter().flatten();
        let is_series = targets.any(|target| target["refId"].as_str() == Some(id.as_str()) && target["format"] == "time_series");
        let has_values = names.iter().any(|name| *name != "time" && answer.is_number(name));
        if is_series && !(names.contains(&"time") && has_values) {
            wrong.push(format!("query {id} is no series: it has no column time, or no number, among {names:?}"));
        }
    }
    let overrides = panel["fieldConfig"]["overrides"].as_array().into_iter().flatten();
    let named = overrides.filter(|field| field["matcher"]["id"] == "byName").filter_map(|field| field["matcher"]["options"].as_str());
    let is_there = |name: &str| answers.values().any(|answer| answer.columns.iter().any(|(column, _)| column == name));
    wrong.extend(named.filter(|name| !is_there(name)).map(|name| format!("an option is about column {name}, which no query has")));
    if let (Some(nodes), Some(edges)) = (answers.get("nodes"), answers.get("edges")) {
        wrong.extend(wrong_graph(nodes, edges));
    }
    wrong
}

/// A graph whose edges lead nowhere, or whose nodes are not whole, is not drawn.
fn wrong_graph(nodes: &Answer, edges: &Answer) -> Vec<String> {
    let ids = nodes.values("id");
    let ends = edges.values("source").into_iter().chain(edges.values("target"));
    let mut wrong: Vec<String> =
        ends.filter(|end| !ids.contains(end)).map(|end| format!("an edge has the end {end}, which is no node")).collect();
    for (answer, what) in [(nodes, "nodes"), (edges, "edges")] {
        if answer.values("id").len() != answer.rows.len() {
            wrong.push(format!("two {what} have one id"));
        }
    }
    for row in &nodes.rows {
        let arcs = row.iter().filter(|(name, _)| name.starts_with("arc__")).filter_map(|(_, value)| value.as_ref()?.parse::<f64>().ok());
        if (arcs.sum::<f64>() - 1.0).abs() > 1e-9 {
            wrong.push(format!("the arcs of node {:?} do not add up to 1", row.get("id")));
        }
    }
    wrong
}

/// Ours, in a PromQL expression.
fn metric_names(expr: &str) -> Vec<&str> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tidegate_")).collect()
}

/// The names of all series that `/metrics` tells.
async fn metrics(http: SocketAddr) -> BTreeSet<String> {
    let mut stream = TcpStream::connect(http).await.expect("the HTTP door");
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let series = answer.lines().filter(|line| line.starts_with("tidegate_"));
    series.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_string()).collect()
}

/// Waits for the door: the demo opens it while it starts.
async fn connect(pg: SocketAddr) -> Client {
    let how = format!("host={} port={} user=grafana dbname=tidegate", pg.ip(), pg.port());
    loop {
        match tokio_postgres::connect(&how, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Also waits for the relation itself: the packs are loaded behind the open door.
async fn until_it_has_rows(client: &Client, relation: &str) {
    let sql = format!("SELECT count(*) AS n FROM {relation}");
    loop {
        if let Ok(answer) = ask(client, &sql).await
            && !answer.values("n").contains("0")
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Free a moment ago, which must do: the demo says its doors to people only.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
