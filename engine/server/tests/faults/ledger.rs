//! Conservation: what clients were told against what is in the engine, row by row and count by count.
//!
//! Views     rows of the source in blocks of their numbers: how many, and two sums. A row that is lost, or there
//!           twice, shows in its block; so does one that stands for another
//! Counts    received = committed + late + dead-lettered + repeated + rejected; committed is what was acknowledged
//! Sink      has as many changes as rows were committed
//! Out       what does not agree, in words; nothing where all is well
//! Errors    an engine that does not answer

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::door::{self, Request};
use super::load::{Rows, Told};

/// What reads the source `posts`. State goes with the watermark, however many rows come.
pub const VIEWS: &str = "
    CREATE MATERIALIZED VIEW blocks AS
      SELECT window_start, id / 1000000 AS block, count(*) AS n, sum(id) AS ids, sum((id % 1000003) * (id % 999983)) AS marks
      FROM TUMBLE(posts, ts, INTERVAL '10 seconds') GROUP BY window_start, id / 1000000;
    CREATE MATERIALIZED VIEW clients AS
      SELECT window_start, client, count(*) AS n, sum(amount) AS amount, max(amount) AS most
      FROM TUMBLE(posts, ts, INTERVAL '10 seconds') GROUP BY window_start, client;
    CREATE VIEW passed AS SELECT id, client, amount FROM posts;
    CREATE SINK out FROM passed WITH (connector = 'discard');
";

/// The columns of `posts`, and when a row of it is late: clients may try for long.
pub const COLUMNS: &str = "(id BIGINT, client TEXT, amount BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '150 seconds')";

const BLOCKS: &str = "SELECT block, sum(n) AS n, sum(ids) AS ids, sum(marks) AS marks FROM blocks GROUP BY block";

const BLOCK_ROWS: u64 = 1_000_000;

/// Until nothing is on its way any more.
const QUIET_TIME_MAX: Duration = Duration::from_secs(120);

/// Blocks that differ, kept to be shown.
const BLOCKS_SHOWN_MAX: usize = 5;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Block {
    n: u64,
    ids: u64,
    marks: u64,
}

/// Waits until nothing is on its way, and holds all that is there against what clients were told.
pub fn audit(at: SocketAddr, rows: Rows, told: &[&Told]) -> Result<Vec<String>, String> {
    let begun = Instant::now();
    let text = loop {
        let text = metrics(at)?;
        if ["tidegate_in_flight_bytes", "tidegate_sink_backlog_bytes"].iter().all(|name| metric(&text, name) == 0) {
            break text;
        }
        if QUIET_TIME_MAX < begun.elapsed() {
            return Err(format!("something is still on its way after {QUIET_TIME_MAX:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let found = door::ask(at, BLOCKS).ok_or("the view is not answered")?;
    let found = found.iter().map(block).collect::<Option<BTreeMap<_, _>>>().ok_or("the view's rows are not as expected")?;
    Ok(contradictions(&text, &found, rows, told))
}

/// The engine's metrics, as text.
pub fn metrics(at: SocketAddr) -> Result<String, String> {
    let request = Request { method: "GET", path: "/metrics", kind: "text/plain", key: None, body: b"" };
    door::exchange(at, &request).map(|answer| answer.body).ok_or_else(|| "the metrics are not answered".into())
}

/// A counter or gauge, over all its labels.
pub fn metric(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.sum::<f64>() as u64
}

fn block(row: &Value) -> Option<(u64, Block)> {
    let number = |name: &str| row[name].as_u64();
    Some((number("block")?, Block { n: number("n")?, ids: number("ids")?, marks: number("marks")? }))
}

fn contradictions(text: &str, found: &BTreeMap<u64, Block>, rows: Rows, told: &[&Told]) -> Vec<String> {
    let sum = |count: &dyn Fn(&Told) -> u64| told.iter().map(|told| count(told)).sum::<u64>();
    let count = |name: &str| metric(text, &format!("tidegate_source_{name}_total"));
    let acknowledged = sum(&|told| told.taken.len() as u64) * rows.per_batch;
    let (received, committed, repeated) = (count("received_rows"), count("committed_rows"), count("repeated_rows"));
    let elsewhere = count("late_rows") + count("dead_letters") + count("rejected_rows");
    let passed = metric(text, "tidegate_sink_changes_total");
    let mut wrong: Vec<String> = told.iter().flat_map(|told| told.wrong.iter().map(|what| format!("a client was told {what}"))).collect();
    let mut hold = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    let in_doubt = sum(&|told| told.in_doubt);
    hold(in_doubt == 0, format!("of {in_doubt} batches no client knows whether they are in"));
    hold(elsewhere == 0, format!("{elsewhere} rows are late, dead letters or rejected"));
    hold(
        received == committed + elsewhere + repeated,
        format!("{received} rows received, {committed} + {elsewhere} + {repeated} found again"),
    );
    hold(committed == acknowledged, format!("{committed} rows committed, {acknowledged} acknowledged"));
    hold(passed == committed, format!("{committed} rows committed, {passed} in the sink"));
    // Only a request without an answer can hide another repeat.
    let (heard, unheard) = (sum(&|told| told.repeated_rows), sum(&|told| told.unanswered) * rows.per_batch);
    hold((heard..=heard + unheard).contains(&repeated), format!("{repeated} rows repeated, {heard} answered to be"));
    let errors = metric(text, "tidegate_view_errors");
    hold(errors == 0, format!("{errors} rows could not be computed"));
    let expected = blocks(rows, told);
    let numbers = expected.keys().chain(found.keys().filter(|number| !expected.contains_key(number)));
    let of = |blocks: &BTreeMap<u64, Block>, number: &u64| blocks.get(number).copied().unwrap_or_default();
    let differing = numbers.filter(|number| of(&expected, number) != of(found, number));
    wrong.extend(
        differing.take(BLOCKS_SHOWN_MAX).map(|number| {
            format!("block {number} of the view is {:?}, and acknowledged were {:?}", of(found, number), of(&expected, number))
        }),
    );
    wrong
}

/// What the view must hold.
fn blocks(rows: Rows, told: &[&Told]) -> BTreeMap<u64, Block> {
    let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
    for id in told.iter().flat_map(|told| &told.taken).flat_map(|batch| rows.ids(*batch)) {
        let block = blocks.entry(id / BLOCK_ROWS).or_default();
        block.n += 1;
        block.ids += id;
        block.marks += (id % 1_000_003) * (id % 999_983);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Rows = Rows { per_batch: 400_000, cycle: u64::MAX };

    fn told(taken: &[u64]) -> Told {
        Told { taken: taken.to_vec(), ..Told::default() }
    }

    fn text(counts: [(&str, u64); 5]) -> String {
        let lines = counts.map(|(name, count)| format!("# HELP tidegate_{name} X\ntidegate_{name}{{source=\"posts\"}} {count}\n"));
        lines.concat()
    }

    fn counts(committed: u64, repeated: u64) -> String {
        text([
            ("source_received_rows_total", committed + repeated),
            ("source_committed_rows_total", committed),
            ("source_repeated_rows_total", repeated),
            ("sink_changes_total", committed),
            ("view_errors", 0),
        ])
    }

    #[test]
    fn what_agrees_is_not_mentioned() {
        let (before, after) = (told(&[0, 2]), told(&[5]));
        let told = [&before, &after];
        assert_eq!(contradictions(&counts(1_200_000, 0), &blocks(ROWS, &told), ROWS, &told), [""; 0]);
        let repeating = Told { taken: vec![1], repeated_rows: 400_000, unanswered: 2, ..Told::default() };
        for repeated in [400_000, 1_200_000] {
            assert_eq!(contradictions(&counts(400_000, repeated), &blocks(ROWS, &[&repeating]), ROWS, &[&repeating]), [""; 0]);
        }
    }

    #[test]
    fn each_kind_of_loss_and_excess_is_found() {
        let all = told(&[0, 2, 5]);
        let good = blocks(ROWS, &[&all]);
        let found = |text: &str, blocks: &BTreeMap<u64, Block>| contradictions(text, blocks, ROWS, &[&all]);
        let changed = |number: u64, change: fn(&mut Block)| {
            let mut blocks = good.clone();
            change(blocks.entry(number).or_default());
            blocks
        };
        let well = counts(1_200_000, 0);
        // A row is gone, there twice, or in place of another with the same sum.
        for (number, change) in [
            (0, (|block| (block.n, block.ids) = (block.n - 1, block.ids - 7)) as fn(&mut Block)),
            (2, |block| (block.n, block.ids) = (block.n + 1, block.ids + 2_000_001)),
            (1, |block| block.marks += 1),
            (9, |block| block.n = 1),
        ] {
            assert!(found(&well, &changed(number, change))[0].starts_with(&format!("block {number} of the view")));
        }
        assert!(found(&counts(1_199_999, 0), &good)[0].contains("1199999 rows committed, 1200000 acknowledged"));
        assert!(found(&counts(1_200_000, 1), &good)[0].contains("1 rows repeated, 0 answered"));
        let unequal = text([
            ("source_received_rows_total", 1_200_001),
            ("source_committed_rows_total", 1_200_000),
            ("source_rejected_rows_total", 0),
            ("sink_changes_total", 1_199_999),
            ("view_errors", 2),
        ]);
        let wrong = found(&unequal, &good);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        let lost = Told { in_doubt: 1, wrong: vec!["404: x".into()], ..told(&[0, 2, 5]) };
        assert_eq!(contradictions(&well, &good, ROWS, &[&lost]).len(), 2);
    }

    #[test]
    fn metrics_are_summed_over_labels() {
        let text = "# TYPE a_total counter\na_total{s=\"x\"} 3\na_total{s=\"y z\"} 4\na_total_more 9\nb 2\n";
        assert_eq!((metric(text, "a_total"), metric(text, "b"), metric(text, "c")), (7, 2, 0));
    }
}
