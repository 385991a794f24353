//! A BPMN 2.0 process as the rows of `states` and `transitions`, to follow cases against.
//!
//! Reads     tasks, start, end and intermediate events, exclusive, event-based and parallel gateways,
//!           timers (a duration: at a task's border, as an intermediate event, or as what an event-based
//!           gateway waits for), lanes as roles of steps
//! Process   its name, or else its pool's, or else its id
//! Activity  a task's name, or an intermediate event's; gateways, starts and ends are not seen in logs
//! State     what may come next. A timer at a task's border interrupts it: the task has a `max_dwell_ms`, and
//!           what the timer starts `is_timeout`: it comes once that has passed, and the task no more. So does
//!           a timer behind an event-based gateway, instead of its other events. Any other intermediate
//!           timer has a `min_dwell_ms`. Conditions of an exclusive gateway's flows are not judged
//! Prints    CREATE TABLE for both tables, and INSERTs
//! Errors    not XML, or not BPMN; an element outside the subset, by name and line; a choice that is no
//!           gateway's; two processes of one name; a node that two tokens reach; a state that leads to no
//!           end; more states than a monitor follows; a timer whose start no event shows, such as one that
//!           may come first in a case; a timer that does not interrupt, or has a step's name
//! Source    OMG, Business Process Model and Notation 2.0.2; van der Aalst, Formalization and Verification
//!           of Event-driven Process Chains, 1999

use std::path::Path;

use tidegate_types::error::Result;

mod document;
mod protocol;

use crate::specification::{self, OnUnexpected, Process, State, Transition};
use protocol::Protocol;

/// The statements for a file, with a newline at the end. `process`: one of the file's, by name or id;
/// all of them without.
pub fn import(path: &Path, process: Option<&str>) -> Result<String> {
    statements(&specification::read(path)?, &path.display().to_string(), process)
}

fn statements(text: &str, file: &str, process: Option<&str>) -> Result<String> {
    let graphs = document::read(text, process).map_err(|error| error.at(file, 0, 0))?;
    let processes = graphs.into_iter().map(|graph| {
        let protocol = protocol::protocol(&graph).map_err(|error| error.at(file, 0, 0))?;
        Ok(specified(graph.name, &protocol))
    });
    Ok(specification::statements(&processes.collect::<Result<Vec<_>>>()?))
}

fn specified(process: String, protocol: &Protocol) -> Process {
    let name = |state: usize| protocol.states[state].name.clone();
    let transitions = protocol.transitions.iter().map(|transition| Transition {
        from_state: name(transition.from),
        activity: transition.activity.clone(),
        to_state: name(transition.to),
        role: transition.role.clone(),
        is_timeout: transition.is_timeout,
    });
    let states = protocol.states.iter().enumerate().map(|(at, state)| State {
        state: state.name.clone(),
        is_initial: at == 0,
        is_final: state.is_final,
        min_dwell_ms: state.min_dwell_ms,
        max_dwell_ms: state.max_dwell_ms,
        on_unexpected: OnUnexpected::Stay,
    });
    Process { process, states: states.collect(), transitions: transitions.collect() }
}

#[cfg(test)]
mod tests {
    use tidegate_testdata::malformed::run;

    use super::*;

    const DRAWN: [&str; 7] = [
        r#"<startEvent id="s"/><sequenceFlow id="s-a" sourceRef="s" targetRef="a"/><task id="a" name="pay"/>"#,
        r#"<exclusiveGateway id="x"/><sequenceFlow id="a-x" sourceRef="a" targetRef="x"/><sequenceFlow id="x-e" sourceRef="x" targetRef="e"/>"#,
        r#"<parallelGateway id="p"/><sequenceFlow id="x-p" sourceRef="x" targetRef="p"/><sequenceFlow id="p-b" sourceRef="p" targetRef="b"/>"#,
        r#"<userTask id="b" name="pack &amp; ship"/><parallelGateway id="j"/><sequenceFlow id="b-j" sourceRef="b" targetRef="j"/>"#,
        r#"<boundaryEvent id="t" attachedToRef="a"><timerEventDefinition><timeDuration>PT1H</timeDuration></timerEventDefinition></boundaryEvent>"#,
        r#"<endEvent id="e"/><laneSet><lane name="sales"><flowNodeRef>a</flowNodeRef></lane></laneSet>"#,
        r#"<subProcess id="u"><startEvent id="us"/><endEvent id="ue"/></subProcess>"#,
    ];

    #[test]
    fn of_any_drawing_there_are_statements_or_a_reason() {
        run("BPMN", 4, &DRAWN, |input, _| {
            let elements = String::from_utf8_lossy(input);
            for text in [&process(&elements), elements.as_ref()] {
                if let Err(error) = statements(text, "order.bpmn", None) {
                    assert!(!error.message.is_empty());
                }
            }
        });
    }

    /// A process with these elements.
    fn process(elements: &str) -> String {
        format!(
            "<definitions xmlns=\"http://www.omg.org/spec/BPMN/20100524/MODEL\"><process id=\"p\" name=\"order\">{elements}</process></definitions>"
        )
    }

    /// `a b`: a flow from a to b.
    fn flows(flows: &[(&str, &str)]) -> String {
        let flow = |(from, to): &(&str, &str)| format!("<sequenceFlow id=\"{from}-{to}\" sourceRef=\"{from}\" targetRef=\"{to}\"/>");
        flows.iter().map(flow).collect()
    }

    fn imported(elements: &str) -> String {
        statements(&process(elements), "order.bpmn", None)
            .expect("a process")
            .split_once("is_timeout BOOLEAN);\n")
            .expect("the tables")
            .1
            .to_string()
    }

    fn refused(elements: &str) -> String {
        statements(&process(elements), "order.bpmn", None).expect_err("refused").to_string()
    }

    const ENDS: &str = "<startEvent id='s'/><endEvent id='e'/>";
    const HOUR: &str = "<timerEventDefinition><timeDuration>PT1H</timeDuration></timerEventDefinition>";

    #[test]
    fn a_choice_and_a_loop() {
        let elements = "<task id='a' name='place'/><exclusiveGateway id='x'/><userTask id='b' name='pay'/><task id='c' name=\"don't\"/>";
        let wires = flows(&[("s", "a"), ("a", "x"), ("x", "b"), ("x", "c"), ("b", "e"), ("c", "a")]);
        assert_eq!(
            imported(&format!("{ENDS}{elements}{wires}")),
            "
INSERT INTO states VALUES
  ('order', 'place', true, false, NULL, NULL, 'stay'),
  ('order', 'don''t | pay', false, false, NULL, NULL, 'stay'),
  ('order', 'end', false, true, NULL, NULL, 'stay');

INSERT INTO transitions VALUES
  ('order', 'place', 'place', 'don''t | pay', NULL, false),
  ('order', 'don''t | pay', 'don''t', 'place', NULL, false),
  ('order', 'don''t | pay', 'pay', 'end', NULL, false);
"
        );
    }

    #[test]
    fn parallel_branches_lanes_and_a_timer() {
        let lanes = "<laneSet><lane name='clerk'><flowNodeRef>a</flowNodeRef></lane><lane><flowNodeRef>b</flowNodeRef></lane>\
            <lane name='shop'><flowNodeRef>t</flowNodeRef></lane></laneSet>";
        let nodes = "<task id='a' name='pack'/><task id='b' name='bill'/><parallelGateway id='f'/><parallelGateway id='j'/>";
        let timer = "<task id='c' name='ship'/><boundaryEvent id='t' name='given up' attachedToRef='c'><timerEventDefinition>\
            <timeDuration>P1DT2H</timeDuration></timerEventDefinition></boundaryEvent>";
        let wires = flows(&[("s", "f"), ("f", "a"), ("f", "b"), ("a", "j"), ("b", "j"), ("j", "c"), ("c", "e"), ("t", "e")]);
        let both = imported(&format!("{ENDS}{lanes}{nodes}{timer}{wires}"));
        assert_eq!(
            both,
            "
INSERT INTO states VALUES
  ('order', 'bill | pack', true, false, NULL, NULL, 'stay'),
  ('order', 'pack', false, false, NULL, NULL, 'stay'),
  ('order', 'bill', false, false, NULL, NULL, 'stay'),
  ('order', 'given up | ship', false, false, NULL, 93600000, 'stay'),
  ('order', 'end', false, true, NULL, NULL, 'stay');

INSERT INTO transitions VALUES
  ('order', 'bill | pack', 'bill', 'pack', NULL, false),
  ('order', 'bill | pack', 'pack', 'bill', 'clerk', false),
  ('order', 'pack', 'pack', 'given up | ship', 'clerk', false),
  ('order', 'bill', 'bill', 'given up | ship', NULL, false),
  ('order', 'given up | ship', 'given up', 'end', NULL, true),
  ('order', 'given up | ship', 'ship', 'end', NULL, false);
"
        );
    }

    #[test]
    fn an_intermediate_timer_is_a_least_dwell() {
        let timer = "<intermediateCatchEvent id='t' name='cooled'><timerEventDefinition><timeDuration>PT30M</timeDuration>\
            </timerEventDefinition></intermediateCatchEvent>";
        let sql = imported(&format!("{ENDS}<task id='a' name='heat'/>{timer}{}", flows(&[("s", "a"), ("a", "t"), ("t", "e")])));
        assert!(sql.contains("('order', 'cooled', false, false, 1800000, NULL, 'stay')"), "{sql}");
    }

    #[test]
    fn names_are_one_line_and_the_pool_names_the_process() {
        let nodes = format!("{ENDS}<task id='a' name='place&#10; the  order'/>{}", flows(&[("s", "a"), ("a", "e")]));
        let pool = "<collaboration><participant name='shop&#10;floor' processRef='p'/></collaboration><process id=\"p\">";
        let text = process(&nodes).replace("<process id=\"p\" name=\"order\">", pool);
        let sql = statements(&text, "order.bpmn", None).expect("a process");
        assert!(sql.contains("('shop floor', 'place the order', 'place the order', 'end', NULL, false)"), "{sql}");
    }

    #[test]
    fn only_what_is_wanted_is_looked_into() {
        let other = "<process id='q' name='stock'><subProcess id='z' name='z'/></process></definitions>";
        let nodes = format!("{ENDS}<task id='a' name='sign'/>{}", flows(&[("s", "a"), ("a", "e")]));
        let text = process(&nodes).replace("</definitions>", other);
        let both = statements(&text, "x", None).expect_err("one of them has a subProcess").to_string();
        assert!(both.contains("subProcess \"z\" (line 1) is not supported"), "{both}");
        for wanted in ["order", "p"] {
            assert!(statements(&text, "x", Some(wanted)).expect("a process").contains("('order', 'sign', 'sign', 'end', NULL, false)"));
        }
        let none = statements(&text, "x", Some("shop")).expect_err("no such process").to_string();
        assert_eq!(none, "x: there is no process \"shop\"\nhint: there is \"order\", \"stock\"");
    }

    #[test]
    fn states_of_one_name_are_told_apart() {
        let wires = flows(&[("s", "a"), ("a", "b"), ("b", "e")]);
        let sql = imported(&format!("{ENDS}<task id='a' name='sign'/><task id='b' name='sign'/>{wires}"));
        assert!(
            sql.contains("('order', 'sign', 'sign', 'sign (2)', NULL, false),\n  ('order', 'sign (2)', 'sign', 'end', NULL, false)"),
            "{sql}"
        );
        // A task with the name that was made.
        let wires = flows(&[("s", "a"), ("a", "b"), ("b", "c"), ("c", "e")]);
        let sql = imported(&format!("{ENDS}<task id='a' name='sign'/><task id='b' name='sign'/><task id='c' name='sign (2)'/>{wires}"));
        let last =
            "('order', 'sign (2)', 'sign', 'sign (2) (2)', NULL, false),\n  ('order', 'sign (2) (2)', 'sign (2)', 'end', NULL, false)";
        assert!(sql.contains(last), "{sql}");
    }

    #[test]
    fn processes_of_one_name_are_refused() {
        let nodes = format!("{ENDS}<task id='a' name='sign'/>{}", flows(&[("s", "a"), ("a", "e")]));
        let text = process(&nodes).replace("</definitions>", "<process id='q' name='order'/></definitions>");
        let said = statements(&text, "x", None).expect_err("two of them").to_string();
        assert_eq!(said, "x: two processes are named \"order\"\nhint: name each as the events' process does");
        assert!(statements(&text, "x", Some("p")).is_ok());
    }

    #[test]
    fn only_an_exclusive_gateway_chooses() {
        let tasks = "<task id='b' name='accept'/><task id='c' name='reject'/>";
        let condition = "<sequenceFlow id='f' name='ok' sourceRef='a' targetRef='b'><conditionExpression/></sequenceFlow>";
        let wires = flows(&[("s", "a"), ("a", "c"), ("b", "e"), ("c", "e")]);
        let with = |a: &str| format!("{ENDS}{a}{tasks}{condition}{wires}");
        let way_out = "hint: put an exclusive gateway behind it: flows out of that may have conditions and a default";
        let flow = "order.bpmn: sequenceFlow \"ok\" (line 1) with a condition out of task \"check\" (line 1) is not supported";
        assert_eq!(refused(&with("<task id='a' name='check'/>")), format!("{flow}\n{way_out}"));
        let task = "order.bpmn: task \"check\" (line 1) with a default flow is not supported";
        assert_eq!(refused(&with("<task id='a' name='check' default='a-c'/>")), format!("{task}\n{way_out}"));
        let chosen = imported(&with("<exclusiveGateway id='a' default='a-c'/>"));
        assert!(chosen.contains("('order', 'accept | reject', 'accept', 'end', NULL, false)"), "{chosen}");
        // Without a condition, both come.
        let both = imported(&with("<task id='a' name='check'/>").replace(condition, &flows(&[("a", "b")])));
        assert!(both.contains("('order', 'accept | reject', 'accept', 'reject', NULL, false)"), "{both}");
    }

    #[test]
    fn a_timer_begins_with_an_event() {
        let border = format!("<task id='a' name='approve'/><boundaryEvent id='t' name='late' attachedToRef='a'>{HOUR}</boundaryEvent>");
        let wires = flows(&[("s", "a"), ("a", "e"), ("t", "e")]);
        assert_eq!(
            refused(&format!("{ENDS}{border}{wires}")),
            "order.bpmn: no event shows when timer \"late\" begins\nhint: put a step before what is timed: a case begins with its first event"
        );
        let timer = format!("<intermediateCatchEvent id='t' name='cooled'>{HOUR}</intermediateCatchEvent>");
        let said = refused(&format!("{ENDS}{timer}{}", flows(&[("s", "t"), ("t", "e")])));
        assert!(said.contains("no event shows when timer \"cooled\" begins"), "{said}");
    }

    #[test]
    fn an_event_based_gateway_waits_for_what_comes_first() {
        let gateway = "<task id='a' name='invoice'/><eventBasedGateway id='g'/><receiveTask id='m' name='paid'/>";
        let timer = format!("<intermediateCatchEvent id='t' name='overdue'>{HOUR}</intermediateCatchEvent>");
        let wires = flows(&[("s", "a"), ("a", "g"), ("g", "m"), ("g", "t"), ("m", "e"), ("t", "e")]);
        assert_eq!(
            imported(&format!("{ENDS}{gateway}{timer}{wires}")),
            "
INSERT INTO states VALUES
  ('order', 'invoice', true, false, NULL, NULL, 'stay'),
  ('order', 'overdue | paid', false, false, NULL, 3600000, 'stay'),
  ('order', 'end', false, true, NULL, NULL, 'stay');

INSERT INTO transitions VALUES
  ('order', 'invoice', 'invoice', 'overdue | paid', NULL, false),
  ('order', 'overdue | paid', 'overdue', 'end', NULL, true),
  ('order', 'overdue | paid', 'paid', 'end', NULL, false);
"
        );
        let second = timer.replace("id='t' name='overdue'", "id='u' name='written off'").replace("PT1H", "PT2H");
        assert_eq!(
            refused(&format!("{ENDS}{gateway}{timer}{second}{wires}{}", flows(&[("g", "u"), ("u", "e")]))),
            "order.bpmn: two timers of different lengths interrupt eventBasedGateway \"g\" (line 1)\n\
            hint: leave the longer one out: the other has interrupted before it"
        );
        assert_eq!(
            refused(&format!("{ENDS}{gateway}{timer}<task id='b' name='call'/>{wires}{}", flows(&[("a", "b"), ("b", "t")]))),
            "order.bpmn: intermediateCatchEvent \"overdue\" (line 1) is reached past eventBasedGateway \"g\" (line 1), too\n\
            hint: draw another timer for the other flow: what a gateway waits for is reached from there alone"
        );
        // Where the wait begins with the case, or may not have begun, nothing times it.
        let at_once = flows(&[("s", "g"), ("g", "m"), ("g", "t"), ("m", "e"), ("t", "e")]);
        let said = refused(&format!("{ENDS}{}{timer}{at_once}", gateway.replace("<task id='a' name='invoice'/>", "")));
        assert!(said.contains("no event shows when timer \"overdue\" begins"), "{said}");
        let choice = "<exclusiveGateway id='x'/><task id='b' name='cancel'/>";
        let chosen = flows(&[("s", "a"), ("a", "x"), ("x", "g"), ("x", "b"), ("b", "e"), ("g", "m"), ("g", "t"), ("m", "e"), ("t", "e")]);
        let said = refused(&format!("{ENDS}{gateway}{timer}{choice}{chosen}"));
        assert!(said.contains("no event shows whether timer \"overdue\" runs"), "{said}");
    }

    #[test]
    fn a_timer_at_a_border_interrupts() {
        let with = |timers: &str, from: &[&str]| {
            let ends: Vec<(&str, &str)> = from.iter().map(|timer| (*timer, "e")).collect();
            let tasks = "<task id='o' name='order'/><task id='a' name='pay'/>";
            format!("{ENDS}{tasks}{timers}{}{}", flows(&[("s", "o"), ("o", "a"), ("a", "e")]), flows(&ends))
        };
        let timer = |id: &str, name: &str, more: &str| {
            format!("<boundaryEvent id='{id}' name='{name}' attachedToRef='a'{more}>{HOUR}</boundaryEvent>")
        };
        let sql = imported(&with(&timer("t", "timeout", ""), &["t"]));
        assert!(sql.contains("('order', 'pay | timeout', false, false, NULL, 3600000, 'stay')"), "{sql}");
        assert!(sql.contains("('order', 'pay | timeout', 'timeout', 'end', NULL, true)"), "{sql}");
        assert!(sql.contains("('order', 'pay | timeout', 'pay', 'end', NULL, false)"), "{sql}");
        assert_eq!(
            refused(&with(&timer("t", "remind", " cancelActivity='false'"), &["t"])),
            "order.bpmn: boundaryEvent \"remind\" (line 1) that does not interrupt is not supported\nhint: draw what it starts as a parallel branch"
        );
        assert_eq!(
            refused(&with(&timer("t", "pay", ""), &["t"])),
            "order.bpmn: no event shows whether timer \"pay\" or a step of that name came\nhint: give the timer another name"
        );
        let two = timer("t", "timeout", "") + &timer("u", "given up", "").replace("PT1H", "PT2H");
        assert_eq!(
            refused(&with(&two, &["t", "u"])),
            "order.bpmn: two timers of different lengths interrupt task \"pay\" (line 1)\n\
            hint: leave the longer one out: the other has interrupted before it"
        );
    }

    #[test]
    fn what_never_ends_is_refused() {
        // One branch is chosen, and both are waited for.
        let nodes = "<exclusiveGateway id='x'/><task id='a' name='pick'/><task id='b' name='bill'/><parallelGateway id='j'/>";
        let wires = flows(&[("s", "x"), ("x", "a"), ("x", "b"), ("a", "j"), ("b", "j"), ("j", "c"), ("c", "e")]);
        assert_eq!(
            refused(&format!("{ENDS}{nodes}<task id='c' name='ship'/>{wires}")),
            "order.bpmn: the flows into parallelGateway \"j\" (line 1) never all come, so no case goes on from there\n\
            hint: a parallel gateway waits for all of them: join the branches of a choice with an exclusive gateway"
        );
        let endless = refused(&format!("{ENDS}<task id='a' name='try'/>{}", flows(&[("s", "a"), ("a", "a")])));
        assert_eq!(endless, "order.bpmn: no case ends that is before task \"try\" (line 1)\nhint: draw a way from there to an end event");
        let gateways = "<exclusiveGateway id='x'/><exclusiveGateway id='y'/>";
        let said = refused(&format!("{ENDS}{gateways}{}", flows(&[("s", "x"), ("x", "y"), ("y", "x")])));
        assert!(said.contains("process \"order\" has gateways that lead only to each other"), "{said}");
    }

    #[test]
    fn what_is_outside_the_subset_is_refused_by_name() {
        let wires = flows(&[("s", "a"), ("a", "e")]);
        let with = |element: &str| refused(&format!("{ENDS}{element}{wires}"));
        assert_eq!(
            with("<inclusiveGateway id='a' name='some'/>"),
            "order.bpmn: inclusiveGateway \"some\" (line 1) is not supported\nhint: write it with exclusive and parallel gateways"
        );
        assert_eq!(
            with("<subProcess id='a' name='all'/>"),
            "order.bpmn: subProcess \"all\" (line 1) is not supported\nhint: draw its steps in the process itself"
        );
        assert_eq!(with("<task id='a'/>"), "order.bpmn: task \"a\" (line 1) has no name\nhint: name it as the events' activity does");
        let looped = "<task id='a' name='try'><standardLoopCharacteristics/></task>";
        assert!(with(looped).starts_with("order.bpmn: standardLoopCharacteristics of task \"try\" (line 1) is not supported"));
        let missing = "<task id='a' name='x'/><sequenceFlow id='f' sourceRef='a' targetRef='zz'/>";
        assert!(with(missing).starts_with("order.bpmn: sequenceFlow \"f\" (line 1) leads to \"zz\", which is not in the process"));
        let month = "<intermediateCatchEvent id='a' name='t'><timerEventDefinition><timeDuration>P1M</timeDuration></timerEventDefinition></intermediateCatchEvent>";
        assert!(with(month).contains("timeDuration \"P1M\" of intermediateCatchEvent \"t\" (line 1) is no time of fixed length"));
    }

    #[test]
    fn no_file_makes_it_panic() {
        let nodes = "<task id='a' name='a'/><task id='b' name='b'/><parallelGateway id='f'/><parallelGateway id='j'/>\
            <boundaryEvent id='t' name='late' attachedToRef='b'><timerEventDefinition><timeDuration>P1DT2.5H</timeDuration>\
            </timerEventDefinition></boundaryEvent>";
        let wires = flows(&[("s", "f"), ("f", "a"), ("f", "b"), ("a", "j"), ("b", "j"), ("j", "e"), ("t", "j")]);
        let whole = process(&format!("{ENDS}{nodes}{wires}")).into_bytes();
        // Every byte in turn missing, or another's.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes.remove(at);
            let mut other = whole.clone();
            other[at] = whole[at * 7 % whole.len()];
            for text in [bytes, other].iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
                if let Err(error) = statements(text, "x", None) {
                    assert!(error.to_string().starts_with("x: "), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        // Two tokens: an exclusive join behind a parallel fork.
        let nodes =
            "<parallelGateway id='f'/><task id='a' name='a'/><task id='b' name='b'/><exclusiveGateway id='x'/><task id='c' name='c'/>";
        let wires = flows(&[("s", "f"), ("f", "a"), ("f", "b"), ("a", "x"), ("b", "x"), ("x", "c"), ("c", "e")]);
        assert!(
            refused(&format!("{ENDS}{nodes}{wires}")).contains("task \"c\" (line 1) may be reached by two tokens at once"),
            "{}",
            refused(&format!("{ENDS}{nodes}{wires}"))
        );
        // A timer beside another branch.
        let timer = "<boundaryEvent id='t' name='late' attachedToRef='a'><timerEventDefinition><timeDuration>PT1H</timeDuration>\
            </timerEventDefinition></boundaryEvent><parallelGateway id='j'/>";
        let wires = flows(&[("s", "f"), ("f", "a"), ("f", "b"), ("a", "j"), ("b", "j"), ("j", "c"), ("c", "e"), ("t", "j")]);
        let said = refused(&format!("{ENDS}{}{timer}{wires}", nodes.replace("<exclusiveGateway id='x'/>", "")));
        assert!(said.contains("timer \"late\" runs beside other steps"), "{said}");
        assert!(refused("<startEvent id='s'/>").contains("has no sequenceFlow out of a start event"));
        assert!(statements("<a", "x", None).expect_err("no XML").to_string().starts_with("x: not XML: "));
        assert!(statements("<a/>", "x", None).expect_err("no BPMN").to_string().starts_with("x: there is no process"));
    }
}
