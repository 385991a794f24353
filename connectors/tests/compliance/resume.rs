//! The file source over restarts: whatever became of the file meanwhile, no line is lost and none
//! comes twice.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A source that goes on at `offset`; at the start where there is none.
fn resumed(folder: &TempDir, once: bool, path: &str, offset: Option<&str>, more: &[(&str, &str)]) -> Box<dyn Source> {
    let pairs: Vec<_> = [("connector", "file"), ("path", path)].into_iter().chain(more.iter().copied()).collect();
    let resume = offset.map(|offset| Resume { offset: Offset(offset.into()), ids: Vec::new() });
    registry().source(&SourceSpec { resume, ..spec(folder.path(), once, &pairs) }).unwrap()
}

/// What came, as texts: values, and dead letters by their positions and reasons.
fn seen(batch: &SourceBatch) -> Vec<String> {
    let rows = batch.rows.column(0).as_primitive::<Int64Type>().iter().map(|a| format!("{a:?}"));
    let dead = batch.dead.iter().map(|dead| format!("{} {}", dead.position, dead.reason));
    rows.chain(dead).collect()
}

/// Rows, then dead letters, each in their order: how they lie between one another is the batches'.
fn apart(seen: Vec<String>) -> Vec<String> {
    let (rows, dead): (Vec<String>, Vec<String>) = seen.into_iter().partition(|seen| seen.starts_with("Some"));
    [rows, dead].concat()
}

/// Everything up to the end, batch by batch, with the offset behind each.
async fn batches(source: &mut dyn Source, bytes_max: usize) -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(SOON, source.poll(Budget { bytes_max })).await.expect("the source hangs").unwrap() {
            Polled::Batch(batch) => all.push((seen(&batch), batch.offset.0)),
            Polled::End => return all,
        }
    }
}

async fn rest(folder: &TempDir, path: &str, offset: Option<&str>, more: &[(&str, &str)]) -> Vec<String> {
    let all = batches(&mut *resumed(folder, true, path, offset, more), 4 << 20).await;
    all.into_iter().flat_map(|(seen, _)| seen).collect()
}

/// Lines of every kind: good, blank, broken, too long.
fn mixed() -> String {
    let mut text = String::new();
    for a in 0..40 {
        text += &line(a);
        match a % 8 {
            2 => text += "\n  \r\n",
            3 => text += "{\"a\":\n",
            5 => text += &format!("{{\"s\":\"{}\"}}\n", "y".repeat(700)),
            _ => {}
        }
    }
    text
}

fn mixed_csv() -> String {
    let rows = (0..60).map(|a| if a % 7 == 3 { format!("x{a},,\n\n") } else { format!("{a},\"s,{a}\",\n") });
    format!("\u{feff}\na,s,ts\n{}", rows.collect::<String>())
}

const SMALL: (&str, &str) = ("max_line_bytes", "500");
const JSON: (&str, &str) = ("format", "json");

#[tokio::test]
async fn any_batch_may_be_the_last_before_a_restart() {
    let folder = TempDir::new().unwrap();
    let unended = mixed() + line(77).trim_end();
    let cases: [(&str, Vec<u8>, &[(&str, &str)]); 7] = [
        ("in.jsonl", mixed().into_bytes(), &[SMALL]),
        ("unended.jsonl", unended.clone().into_bytes(), &[SMALL]),
        ("long.jsonl", (mixed() + &"z".repeat(2_000)).into_bytes(), &[SMALL]),
        ("in.jsonl.gz", gzip(unended.as_bytes()), &[SMALL]),
        ("in.zst", zstd::encode_all(mixed().as_bytes(), 1).unwrap(), &[SMALL, JSON]),
        ("in.csv", mixed_csv().into_bytes(), &[]),
        ("in.csv.gz", gzip(mixed_csv().as_bytes()), &[]),
    ];
    for (path, bytes, more) in cases {
        fs::write(folder.path().join(path), bytes).unwrap();
        let all = batches(&mut *resumed(&folder, true, path, None, more), 60).await;
        let whole: Vec<String> = all.iter().flat_map(|(seen, _)| seen.clone()).collect();
        assert!(10 < all.len() && 40 < whole.len(), "{path}: {} batches", all.len());
        let mut before: Vec<String> = Vec::new();
        for (seen, offset) in all {
            before.extend(seen);
            let got = [before.clone(), rest(&folder, path, Some(&offset), more).await].concat();
            assert_eq!(apart(got), apart(whole.clone()), "{path} behind {offset}");
        }
    }
}

#[tokio::test]
async fn a_file_is_found_again_under_the_name_it_was_rotated_to() {
    for (path, text, more) in [("in.jsonl", mixed(), vec![SMALL]), ("in.csv", mixed_csv(), vec![]), ("in.txt", mixed(), vec![SMALL, JSON])]
    {
        let folder = TempDir::new().unwrap();
        let at = |suffix: &str| folder.path().join(format!("{path}{suffix}"));
        let header = if path == "in.csv" { "a,s,ts\n" } else { "" };
        let one = |a: i64| if path == "in.csv" { format!("{header}{a},,\n") } else { line(a) };
        fs::write(at(""), &text).unwrap();
        let all = batches(&mut *resumed(&folder, true, path, None, &more), 300).await;
        let whole: Vec<String> = all.iter().flat_map(|(seen, _)| seen.clone()).collect();
        let expected = [whole, vec!["Some(100)".into(), "Some(101)".into()]].concat();
        // Rotated twice; the new one is the third of its name.
        fs::rename(at(""), at(".2")).unwrap();
        fs::write(at(".1"), one(100)).unwrap();
        fs::write(at(""), one(101)).unwrap();
        let mut before: Vec<String> = Vec::new();
        for (seen, offset) in all {
            before.extend(seen);
            let got = [before.clone(), rest(&folder, path, Some(&offset), &more).await].concat();
            assert_eq!(apart(got), apart(expected.clone()), "{path} behind {offset}");
        }
    }
}

#[tokio::test]
async fn a_followed_file_goes_on_over_rotations_and_restarts() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    append(&path, line(1) + &line(2));
    let mut brought = Brought::default();
    until(&mut *resumed(&folder, false, "in.jsonl", None, &[]), &mut brought, 2).await;
    // Nobody reads; the log is written on, rotated to a name of its own kind, and written anew.
    append(&path, line(3) + line(4).trim_end());
    fs::rename(&path, folder.path().join("in.old")).unwrap();
    append(&path, line(5));
    let mut source = resumed(&folder, false, "in.jsonl", Some(&brought.offset.clone()), &[]);
    until(&mut *source, &mut brought, 5).await;
    quiet(&mut *source).await;
    append(&path, line(6));
    until(&mut *source, &mut brought, 6).await;
    drop(source);
    // Nothing new: nothing comes; and no name at all: it is waited for.
    let mut source = resumed(&folder, false, "in.jsonl", Some(&brought.offset.clone()), &[]);
    quiet(&mut *source).await;
    fs::rename(&path, folder.path().join("in.jsonl.1")).unwrap();
    quiet(&mut *source).await;
    drop(source);
    let mut source = resumed(&folder, false, "in.jsonl", Some(&brought.offset.clone()), &[]);
    append(&folder.path().join("in.jsonl.1"), line(7));
    until(&mut *source, &mut brought, 7).await;
    append(&path, line(8));
    until(&mut *source, &mut brought, 8).await;
    assert_eq!(brought.values(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(brought.dead.is_empty(), "{:?}", brought.reasons());
}

#[tokio::test]
async fn a_file_that_was_cut_or_replaced_is_a_new_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.jsonl");
    let three = line(1) + &line(2) + &line(3);
    let cases: [(&str, Box<dyn Fn()>, &[&str]); 6] = [
        ("shorter", Box::new(|| fs::write(&path, line(9)).unwrap()), &["Some(9)"]),
        ("emptied", Box::new(|| fs::write(&path, "").unwrap()), &[]),
        // The same inode, longer than before: only its beginning tells.
        (
            "written anew",
            Box::new(|| fs::write(&path, (5..9).map(line).collect::<String>()).unwrap()),
            &["Some(5)", "Some(6)", "Some(7)", "Some(8)"],
        ),
        (
            "replaced",
            Box::new(|| {
                fs::write(folder.path().join("new"), line(9)).unwrap();
                fs::rename(folder.path().join("new"), &path).unwrap();
            }),
            &["Some(9)"],
        ),
        (
            "removed after a rotation",
            Box::new(|| {
                fs::write(folder.path().join("in.jsonl.1"), line(8)).unwrap();
                fs::write(folder.path().join("new"), line(9)).unwrap();
                fs::rename(folder.path().join("new"), &path).unwrap();
            }),
            &["Some(8)", "Some(9)"],
        ),
        ("as it was", Box::new(|| {}), &[]),
    ];
    for (what, act, expected) in cases {
        let _ = fs::remove_file(&path);
        append(&path, &three);
        let all = batches(&mut *resumed(&folder, true, "in.jsonl", None, &[]), 4 << 20).await;
        let offset = &all.last().unwrap().1;
        // Files written at the same moment have no order.
        tokio::time::sleep(Duration::from_millis(20)).await;
        act();
        assert_eq!(rest(&folder, "in.jsonl", Some(offset), &[]).await, expected, "{what}");
    }
    let error = resumed_error(&folder, "17");
    assert!(error.contains("was left at '17', which is no place in a file"), "{error}");
}

fn resumed_error(folder: &TempDir, offset: &str) -> String {
    let resume = Some(Resume { offset: Offset(offset.into()), ids: Vec::new() });
    let pairs = [("connector", "file"), ("path", "in.jsonl")];
    registry().source(&SourceSpec { resume, ..spec(folder.path(), true, &pairs) }).err().unwrap().to_string()
}

#[tokio::test]
async fn a_line_taken_without_its_end_is_not_taken_again() {
    // What the file ended with; what is appended then; what comes of it.
    let cases: [(&str, &str, &[&str]); 6] = [
        ("{\"a\":2}", "", &[]),
        ("{\"a\":2}", "\n{\"a\":3}\n", &["Some(3)"]),
        ("{\"a\":2}", "\r\n{\"a\":3}", &["Some(3)"]),
        (
            "{\"a\":2",
            "2}\n{\"a\":3}\n{",
            &["Some(3)", "in.jsonl:2 the line went on after it was taken", "in.jsonl:4 the JSON object is cut short"],
        ),
        ("{\"a\":2", "2}", &["in.jsonl:2 the line went on after it was taken"]),
        (&"z".repeat(600), &("z".repeat(600) + "\n{\"a\":3}\n{\"a\":\n"), &["Some(3)", "in.jsonl:4 the JSON object is cut short"]),
    ];
    for (end, more, expected) in cases {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("in.jsonl");
        append(&path, line(1) + end);
        let all = batches(&mut *resumed(&folder, true, "in.jsonl", None, &[SMALL]), 4 << 20).await;
        assert_eq!(all.iter().map(|(seen, _)| seen.len()).sum::<usize>(), 2);
        append(&path, more);
        let again = batches(&mut *resumed(&folder, true, "in.jsonl", Some(&all.last().unwrap().1), &[SMALL]), 4 << 20).await;
        let got: Vec<String> = again.iter().flat_map(|(seen, _)| seen.clone()).collect();
        assert_eq!(got, expected, "{end:?} then {more:?}");
        let last = again.last().map_or(&all.last().unwrap().1, |(_, offset)| offset);
        assert!(rest(&folder, "in.jsonl", Some(last), &[SMALL]).await.is_empty(), "{end:?} then {more:?}");
    }
}

#[tokio::test]
async fn damage_is_said_once_and_a_mended_file_is_read_on() {
    let folder = TempDir::new().unwrap();
    let whole = gzip((0..50_000).map(line).collect::<String>().as_bytes());
    fs::write(folder.path().join("in.jsonl.gz"), &whole[..whole.len() / 2]).unwrap();
    let all = batches(&mut *resumed(&folder, true, "in.jsonl.gz", None, &[]), 4 << 20).await;
    let before: Vec<String> = all.iter().flat_map(|(seen, _)| seen.clone()).collect();
    assert_eq!(before.iter().filter(|seen| seen.contains("damaged")).count(), 1);
    let offset = &all.last().unwrap().1;
    assert!(rest(&folder, "in.jsonl.gz", Some(offset), &[]).await.is_empty());
    // The copy was not ready: now it is. A line that was cut short stays so.
    append(&folder.path().join("in.jsonl.gz"), &whole[whole.len() / 2..]);
    let after = rest(&folder, "in.jsonl.gz", Some(offset), &[]).await;
    let values = |seen: &[String]| seen.iter().filter(|seen| seen.starts_with("Some")).count();
    let cut = before.iter().filter(|seen| seen.contains("cut short")).count();
    assert_eq!(values(&before) + values(&after) + cut, 50_000);
    assert!(after.contains(&"Some(49999)".to_string()));
}

/// A log that is written, rotated and emptied, and an engine that reads a part of it, commits a
/// part of that, and dies.
struct Story {
    folder: TempDir,
    random: StdRng,
    next: i64,
    /// The last line has no newline yet.
    is_unended: bool,
    offset: Option<String>,
    taken: Vec<String>,
}

impl Story {
    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("in.jsonl{suffix}"))
    }

    fn write(&mut self) {
        for _ in 0..self.random.random_range(1..20) {
            let newline = if std::mem::take(&mut self.is_unended) { "\n" } else { "" };
            append(&self.path(""), format!("{newline}{}", line(self.next)));
            self.next += 1;
        }
        if self.random.random_bool(0.3) {
            append(&self.path(""), line(self.next).trim_end());
            (self.next, self.is_unended) = (self.next + 1, true);
        }
    }

    fn rotate(&mut self) {
        for n in (1..40).rev().filter(|n| self.path(&format!(".{n}")).exists()) {
            fs::rename(self.path(&format!(".{n}")), self.path(&format!(".{}", n + 1))).unwrap();
        }
        if self.path("").exists() {
            fs::rename(self.path(""), self.path(".1")).unwrap();
        }
        File::create(self.path("")).unwrap();
        self.is_unended = false;
        // File clocks are coarse: files of one moment have no order.
        std::thread::sleep(Duration::from_millis(10));
    }

    /// Reads to the end or dies somewhere; what is committed is behind some batch.
    async fn read(&mut self, to_end: bool) {
        let bytes_max = self.random.random_range(50..2_000);
        let mut source = resumed(&self.folder, true, "in.jsonl", self.offset.as_deref(), &[]);
        for (seen, offset) in batches(&mut *source, bytes_max).await {
            if !to_end && self.random.random_bool(0.2) {
                return;
            }
            self.taken.extend(seen);
            self.offset = Some(offset);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_restarts_and_rotations_lose_nothing_and_double_nothing() {
    let stories = (0..40).map(|seed| {
        tokio::spawn(async move {
            let folder = TempDir::new().unwrap();
            let random = StdRng::seed_from_u64(seed);
            let mut story = Story { folder, random, next: 0, is_unended: false, offset: None, taken: Vec::new() };
            story.write();
            // What was rotated away before the first commit is nobody's.
            story.read(true).await;
            for _ in 0..15 {
                story.write();
                for _ in 0..story.random.random_range(0..3) {
                    story.rotate();
                    story.write();
                }
                match story.random.random_range(0..6) {
                    0 => {
                        // Emptied in place: all that was written must have been read.
                        story.read(true).await;
                        fs::write(story.path(""), "").unwrap();
                        story.is_unended = false;
                    }
                    1 => {}
                    _ => story.read(false).await,
                }
            }
            story.read(true).await;
            let expected: Vec<String> = (0..story.next).map(|a| format!("Some({a})")).collect();
            assert_eq!(story.taken, expected, "seed {seed}");
        })
    });
    for story in stories.collect::<Vec<_>>() {
        story.await.unwrap();
    }
}
