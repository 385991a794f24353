//! BPMN's XML, as far as it is understood: nodes, and flows between them.

use std::collections::{BTreeSet, HashMap};

use roxmltree::{Document, Node as Element};
use tidegate_types::error::{Error, Result};

/// A process.
pub struct Graph {
    pub name: String,
    pub nodes: Vec<Node>,
    /// From node to node.
    pub flows: Vec<(usize, usize)>,
}

pub struct Node {
    /// As errors call it.
    pub title: String,
    pub name: String,
    pub kind: Kind,
    pub role: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Start,
    End,
    /// An end that ends everything.
    Terminate,
    /// A task, or an event that is seen.
    Step,
    /// An event that comes so many milliseconds after it could.
    Timer(i64),
    /// What comes instead of the task, so many milliseconds after that could.
    Boundary {
        task: usize,
        after_ms: i64,
    },
    /// What comes instead of the event-based gateway's other events, so many milliseconds after those could.
    Timeout {
        gateway: usize,
        after_ms: i64,
    },
    Exclusive,
    /// Which of its events comes first is seen as which is chosen.
    EventBased,
    Parallel,
}

const NAMESPACE: &str = "http://www.omg.org/spec/BPMN/20100524/MODEL";
/// The way out where something else than an exclusive gateway chooses.
const CHOOSE: &str = "put an exclusive gateway behind it: flows out of that may have conditions and a default";

/// A file's processes; `wanted`: of this name or id, and no other is looked into.
pub fn read(text: &str, wanted: Option<&str>) -> Result<Vec<Graph>> {
    let document =
        Document::parse(text).map_err(|error| Error::user(format!("not XML: {error}")).hint("export the model as BPMN 2.0 XML"))?;
    let processes: Vec<Element> = document.descendants().filter(|element| is(element, "process")).collect();
    if processes.is_empty() {
        return Err(Error::user("there is no process").hint(format!("its elements are in the namespace {NAMESPACE}")));
    }
    let is_wanted = |process: &&Element| wanted.is_none_or(|wanted| process_name(process) == wanted || attribute(process, "id") == wanted);
    let graphs: Vec<Graph> = processes.iter().filter(is_wanted).map(|process| graph(*process)).collect::<Result<_>>()?;
    refuse_twins(&graphs)?;
    match wanted {
        Some(wanted) if graphs.is_empty() => {
            let known: Vec<String> = processes.iter().map(|process| format!("\"{}\"", process_name(process))).collect();
            Err(Error::user(format!("there is no process \"{wanted}\"")).hint(format!("there is {}", known.join(", "))))
        }
        _ => Ok(graphs),
    }
}

/// Their states would be told apart by nothing.
fn refuse_twins(graphs: &[Graph]) -> Result<()> {
    let mut names = BTreeSet::new();
    match graphs.iter().find(|graph| !names.insert(&graph.name)) {
        Some(twin) => Err(Error::user(format!("two processes are named \"{}\"", twin.name)).hint("name each as the events' process does")),
        None => Ok(()),
    }
}

fn is(element: &Element, name: &str) -> bool {
    element.has_tag_name((NAMESPACE, name))
}

fn attribute<'a>(element: &Element<'a, '_>, name: &str) -> &'a str {
    element.attribute(name).unwrap_or_default()
}

/// Its name. Where a label is broken into lines is the drawing's matter.
fn name(element: &Element) -> String {
    attribute(element, "name").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is said of an element: its kind, its name or else its id, and where it is.
fn title(element: &Element) -> String {
    let name = [name(element), attribute(element, "id").to_string()].into_iter().find(|name| !name.is_empty());
    let line = element.document().text_pos_at(element.range().start).row;
    format!("{} \"{}\" (line {line})", element.tag_name().name(), name.unwrap_or_default())
}

fn graph(process: Element) -> Result<Graph> {
    let mut read = Reader { roles: roles(process), places: HashMap::new(), nodes: Vec::new(), boundaries: Vec::new() };
    let elements = || process.children().filter(Element::is_element);
    elements().try_for_each(|element| read.add(element))?;
    read.attach()?;
    let flows: Vec<(usize, usize)> =
        elements().filter(|element| is(element, "sequenceFlow")).map(|element| read.flow(&element)).collect::<Result<_>>()?;
    flows.iter().try_for_each(|flow| read.await_timer(*flow, &flows))?;
    Ok(Graph { name: process_name(&process), flows, nodes: read.nodes })
}

fn process_name(process: &Element) -> String {
    let names = [name(process), pool(process).unwrap_or_default(), attribute(process, "id").to_string()];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}

/// The name of the pool that the process is drawn in: editors name the pool, and not the process.
fn pool(process: &Element) -> Option<String> {
    let of = |element: &Element| is(element, "participant") && element.attribute("processRef") == process.attribute("id");
    process.document().descendants().find(of).map(|participant| name(&participant))
}

/// By node: the name of the innermost lane that it lies in, where that has one.
fn roles<'a>(process: Element<'a, '_>) -> HashMap<&'a str, String> {
    let references = process.descendants().filter(|element| is(element, "flowNodeRef"));
    let role = |reference: Element<'a, '_>| {
        let lane = name(&reference.parent()?);
        (!lane.is_empty()).then_some((reference.text()?.trim(), lane))
    };
    references.filter_map(role).collect()
}

struct Reader<'a, 'input> {
    roles: HashMap<&'a str, String>,
    /// By id.
    places: HashMap<&'a str, usize>,
    nodes: Vec<Node>,
    /// Boundary events, until all tasks are known.
    boundaries: Vec<(usize, Element<'a, 'input>)>,
}

impl<'a, 'input> Reader<'a, 'input> {
    fn add(&mut self, element: Element<'a, 'input>) -> Result<()> {
        let Some(kind) = kind(&element)? else { return Ok(()) };
        let name = name(&element);
        let is_seen = matches!(kind, Kind::Step | Kind::Timer(_) | Kind::Boundary { .. });
        if is_seen && name.is_empty() {
            return Err(Error::user(format!("{} has no name", title(&element))).hint("name it as the events' activity does"));
        }
        let id = attribute(&element, "id");
        if self.places.insert(id, self.nodes.len()).is_some() {
            return Err(Error::user(format!("{} has the id of another", title(&element))).hint("ids are unique"));
        }
        if let Kind::Boundary { .. } = kind {
            self.boundaries.push((self.nodes.len(), element));
        }
        // A timer lies in the lane of its task. Nobody in it makes time pass.
        let role = self.roles.get(id).filter(|_| kind == Kind::Step).cloned();
        self.nodes.push(Node { title: title(&element), name, kind, role });
        Ok(())
    }

    fn attach(&mut self) -> Result<()> {
        for (at, element) in std::mem::take(&mut self.boundaries) {
            let on = self.end(&element, "attachedToRef", "is attached to")?;
            if let Kind::Boundary { task, .. } = &mut self.nodes[at].kind {
                *task = on;
            }
            if self.nodes[on].kind != Kind::Step {
                let error = Error::user(format!("{} is attached to {}", title(&element), self.nodes[on].title));
                return Err(error.hint("attach it to a task"));
            }
        }
        Ok(())
    }

    fn flow(&self, element: &Element) -> Result<(usize, usize)> {
        let (from, to) = (self.end(element, "sourceRef", "comes from")?, self.end(element, "targetRef", "leads to")?);
        let source = &self.nodes[from];
        match source.kind {
            Kind::Exclusive => Ok((from, to)),
            _ if has(element, "conditionExpression") => {
                Err(Error::unsupported(format!("{} with a condition out of {}", title(element), source.title), CHOOSE))
            }
            _ => Ok((from, to)),
        }
    }

    /// A timer behind an event-based gateway is what that waits for.
    fn await_timer(&mut self, (gateway, timer): (usize, usize), flows: &[(usize, usize)]) -> Result<()> {
        let (Kind::EventBased, Kind::Timer(after_ms)) = (self.nodes[gateway].kind, self.nodes[timer].kind) else { return Ok(()) };
        if flows.iter().any(|(from, to)| *to == timer && *from != gateway) {
            let error = Error::user(format!("{} is reached past {}, too", self.nodes[timer].title, self.nodes[gateway].title));
            return Err(error.hint("draw another timer for the other flow: what a gateway waits for is reached from there alone"));
        }
        self.nodes[timer].kind = Kind::Timeout { gateway, after_ms };
        Ok(())
    }

    fn end(&self, element: &Element, name: &str, does: &str) -> Result<usize> {
        let id = attribute(element, name);
        self.places.get(id).copied().ok_or_else(|| {
            let error = Error::user(format!("{} {does} \"{id}\", which is not in the process", title(element)));
            error.hint(format!("{name} is the id of a task, an event or a gateway"))
        })
    }
}

/// None for what says nothing of the order of steps.
fn kind(element: &Element) -> Result<Option<Kind>> {
    let name = element.tag_name().name();
    if element.tag_name().namespace() != Some(NAMESPACE) {
        return Ok(None);
    }
    let unsupported = |way_out: &str| Err(Error::unsupported(title(element), way_out));
    match name {
        "startEvent" => untimed(element, Kind::Start).map(Some),
        "endEvent" if has(element, "terminateEventDefinition") => Ok(Some(Kind::Terminate)),
        "endEvent" => Ok(Some(Kind::End)),
        "task" | "userTask" | "manualTask" | "serviceTask" | "scriptTask" | "sendTask" | "receiveTask" | "businessRuleTask" => {
            once(element)?;
            undecided(element)?;
            Ok(Some(Kind::Step))
        }
        "intermediateThrowEvent" => Ok(Some(Kind::Step)),
        "intermediateCatchEvent" => Ok(Some(duration(element)?.map_or(Kind::Step, Kind::Timer))),
        "boundaryEvent" => boundary(element).map(Some),
        "exclusiveGateway" => Ok(Some(Kind::Exclusive)),
        "eventBasedGateway" => Ok(Some(Kind::EventBased)),
        "parallelGateway" => Ok(Some(Kind::Parallel)),
        "inclusiveGateway" | "complexGateway" => unsupported("write it with exclusive and parallel gateways"),
        "subProcess" | "adHocSubProcess" | "transaction" | "callActivity" => unsupported("draw its steps in the process itself"),
        _ => Ok(None),
    }
}

fn has(element: &Element, name: &str) -> bool {
    element.children().any(|child| is(&child, name))
}

fn untimed(element: &Element, kind: Kind) -> Result<Kind> {
    match has(element, "timerEventDefinition") {
        true => {
            Err(Error::unsupported(format!("the timer of {}", title(element)), "start without one: a case begins with its first event"))
        }
        false => Ok(kind),
    }
}

/// Whether the task is done once each time it is reached.
fn once(task: &Element) -> Result<()> {
    let repeats = task.children().find(|child| is(child, "standardLoopCharacteristics") || is(child, "multiInstanceLoopCharacteristics"));
    match repeats {
        Some(repeats) => {
            let construct = format!("{} of {}", repeats.tag_name().name(), title(task));
            Err(Error::unsupported(construct, "draw the loop with an exclusive gateway"))
        }
        None => Ok(()),
    }
}

/// Whether the task leaves no choice of what follows it.
fn undecided(task: &Element) -> Result<()> {
    match task.attribute("default") {
        Some(_) => Err(Error::unsupported(format!("{} with a default flow", title(task)), CHOOSE)),
        None => Ok(()),
    }
}

fn boundary(element: &Element) -> Result<Kind> {
    if element.attribute("cancelActivity") == Some("false") {
        return Err(Error::unsupported(format!("{} that does not interrupt", title(element)), "draw what it starts as a parallel branch"));
    }
    match duration(element)? {
        Some(after_ms) => Ok(Kind::Boundary { task: 0, after_ms }),
        None => Err(Error::unsupported(format!("{} without a timer", title(element)), "draw an exclusive gateway behind the task")),
    }
}

/// The milliseconds of the element's timer; None where it has none.
fn duration(element: &Element) -> Result<Option<i64>> {
    let Some(timer) = element.children().find(|child| is(child, "timerEventDefinition")) else { return Ok(None) };
    let Some(text) = timer.children().find(|child| is(child, "timeDuration")).and_then(|duration| duration.text()) else {
        return Err(Error::unsupported(
            format!("the timer of {} without a timeDuration", title(element)),
            "say how long it waits, as in PT2H",
        ));
    };
    let error = || {
        let error = Error::user(format!("timeDuration \"{}\" of {} is no time of fixed length", text.trim(), title(element)));
        error.hint("write days, hours, minutes and seconds, as in P1DT12H")
    };
    milliseconds(text.trim()).map(Some).ok_or_else(error)
}

/// ISO 8601's PnW or PnDTnHnMnS; months and years are of no fixed length.
fn milliseconds(text: &str) -> Option<i64> {
    let (date, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((date, time)) if !time.is_empty() => (date, time),
        Some(_) => return None,
        None => (text.strip_prefix('P')?, ""),
    };
    let date = parts(date, &[('W', 604_800_000), ('D', 86_400_000)])?;
    let time = parts(time, &[('H', 3_600_000), ('M', 60_000), ('S', 1000)])?;
    let total = date.checked_add(time)?;
    (0 < total && text.len() > 2).then_some(total)
}

/// Numbers with units, biggest unit first.
fn parts(mut text: &str, units: &[(char, i64)]) -> Option<i64> {
    let mut total: i64 = 0;
    let mut units = units.iter();
    while let Some(end) = text.find(|c: char| c.is_ascii_uppercase()) {
        let unit = text[end..].chars().next()?;
        let (_, unit_ms) = units.find(|(name, _)| *name == unit)?;
        let (whole, fraction) = text[..end].split_once('.').unwrap_or((&text[..end], "0"));
        let is_number = |text: &str| !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let fraction_ms = fraction.parse::<i64>().ok()? * unit_ms / 10_i64.pow(fraction.len() as u32);
        total = total.checked_add(whole.parse::<i64>().ok()?.checked_mul(*unit_ms)?)?.checked_add(fraction_ms)?;
        text = &text[end + 1..];
    }
    text.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_fixed_length() {
        let good = [("PT30M", 1_800_000), ("P1D", 86_400_000), ("P1DT2H3M4.5S", 93_784_500), ("P2W", 1_209_600_000), ("PT0.25H", 900_000)];
        for (text, expected) in good {
            assert_eq!(milliseconds(text), Some(expected), "{text}");
        }
        for text in ["", "P", "PT", "P1M", "P1Y", "1H", "PT1", "PT1X", "PT1M1H", "P1DT", "PT-1H", "PT0S", "PT99999999999H", "PT1.H"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
