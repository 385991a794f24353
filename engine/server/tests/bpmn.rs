//! `tidegate import-bpmn` over the example pack's drawing, as an editor saved it: pool and lanes, labels in
//! several lines, a timer at a task's border; and `tidegate import-yaml` over the same, written by hand.

use std::path::{Path, PathBuf};
use std::process::Command;

fn pack() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../queries/examples/order_to_payment")
}

/// Exit code, standard output, standard error.
fn import(file: &str, more: &[&str]) -> (Option<i32>, String, String) {
    tidegate("import-bpmn", file, more)
}

fn tidegate(command: &str, file: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg(command).arg(pack().join(file)).args(more).output();
    let run = run.expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (run.status.code(), text(run.stdout), text(run.stderr))
}

#[test]
fn the_example_pack_is_its_drawing() {
    let kept = std::fs::read_to_string(pack().join("20_protocol.sql")).expect("the pack can be read");
    let (comment, statements) = kept.split_once("\n\n").expect("a comment, and the statements");
    assert_eq!(comment, "-- What `tidegate import-bpmn order.bpmn` prints.");
    let (code, imported, said) = import("order.bpmn", &[]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(imported, statements, "run import-bpmn again");
    // The pool's name, or the process's id.
    for name in ["order", "Process_order"] {
        assert_eq!(import("order.bpmn", &["--process", name]).1, statements, "{name}");
    }
}

#[test]
fn written_by_hand_it_is_the_same() {
    let drawn = import("order.bpmn", &[]);
    assert_eq!(tidegate("import-yaml", "order.protocol.yaml", &[]), drawn);
    let (code, imported, said) = tidegate("import-yaml", "20_protocol.sql", &[]);
    assert_eq!((code, imported.as_str()), (Some(1), ""));
    assert!(said.contains("20_protocol.sql") && said.contains("a document has process, states and transitions"), "{said}");
}

#[test]
fn what_is_not_there_is_said_by_name() {
    let (code, imported, said) = import("order.bpmn", &["--process", "ordr"]);
    assert_eq!((code, imported.as_str()), (Some(1), ""));
    assert!(said.ends_with("there is no process \"ordr\"\nhint: there is \"order\"\n"), "{said}");
    let (code, _, said) = import("nowhere.bpmn", &[]);
    assert!(code == Some(1) && said.contains("cannot read") && said.contains("nowhere.bpmn"), "{said}");
    let (code, _, said) = import("30_detections.sql", &[]);
    assert!(code == Some(1) && said.contains("not XML"), "{said}");
}
