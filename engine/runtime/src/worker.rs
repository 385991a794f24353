//! A timely worker: takes commands in order, steps its dataflows, reports closed ticks.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, TryRecvError};
use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use differential_dataflow::trace::TraceReader;
use tidegate_operators::arrange::{Layout, Trace, arrange, imported, read_at};
use tidegate_operators::stream::{ErrorRow, Errors, Rows, Timed, Watermarks, each};
use tidegate_operators::usage::Usage;
use tidegate_plan::NodeRef;
use tidegate_types::{Delta, Tick};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::core::input::Handle as InputHandle;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Concatenate, Input, Probe, probe};
use timely::progress::Antichain;
use timely::worker::Worker;

use crate::render::{Renderer, Shared};

/// The rows of a view whose past was read from a snapshot.
pub const RESTORED: &str = "-> restored";

/// What a dataflow computes and what becomes of it. All workers build the same.
#[derive(Clone)]
pub struct DataflowSpec {
    pub name: String,
    pub node: NodeRef,
    /// Relations whose rows are pushed in, with their schemas.
    pub inputs: Vec<(String, SchemaRef)>,
    /// What it gives up to this tick is pushed in by the name [`RESTORED`].
    pub restored: Option<Tick>,
    /// Programs whose earlier output is pushed in, by these names.
    pub counted: Vec<(String, NodeRef)>,
    /// Relations whose arrangements are imported.
    pub imports: Vec<String>,
    /// Keep the rows: readable, and importable by later dataflows.
    pub export: bool,
    /// Report each tick's changes.
    pub capture: bool,
    /// The tick by which all of its past is in.
    pub born: Tick,
    /// Its past is still to come: nobody sees it before it is put in place.
    pub is_beside: bool,
}

/// In order, from the one bridge.
#[derive(Clone)]
pub enum Command {
    Create(Arc<DataflowSpec>),
    Drop {
        name: String,
    },
    /// What was made beside all others has its past, and a name of its own from the tick `born` on.
    PutInPlace {
        beside: String,
        name: String,
        born: Tick,
    },
    /// Rows of `relation` at the open tick, for all its readers or for one.
    Rows {
        relation: String,
        reader: Option<String>,
        timed: Timed<Tick>,
    },
    /// No more rows for ticks up to this one.
    Close {
        tick: Tick,
        watermarks: Arc<[Option<i64>]>,
        compact: Tick,
    },
    /// Rows of several relations at a closed tick, this worker's share: those that begin with `prefix`.
    Read {
        names: Vec<String>,
        prefix: Vec<u8>,
        tick: Tick,
        reply: crossbeam_channel::Sender<Vec<Delta>>,
    },
    Stop,
}

/// What a worker says.
pub enum Said {
    Closed(Report),
    /// A dataflow is over a limit on this worker alone.
    Grew {
        name: String,
        /// When the dataflow was made: there may be another of its name by now.
        born: Tick,
        excess: Excess,
    },
    /// It panicked. Its peers would wait for it: nothing works any more.
    Failed(String),
}

/// More bytes than a dataflow may take.
#[derive(Debug, Clone, Copy)]
pub enum Excess {
    Kept(usize),
    /// What waits at its operators for the tick to close.
    Passing(usize),
}

impl Excess {
    /// `kept_max` is what a state may take.
    fn of(usage: &Usage, kept_max: usize) -> Option<Self> {
        let (kept, passing) = (usage.bytes(), usage.passing());
        match () {
            () if kept_max < kept => Some(Self::Kept(kept)),
            () if passing_max(kept_max) < passing => Some(Self::Passing(passing)),
            () => None,
        }
    }
}

/// A view's past can come in as one tick: however small its state is, it has room for that.
const PASSING_MIN: usize = 1 << 30;

/// What may wait at a dataflow's operators, where its state may take `kept_max`.
pub fn passing_max(kept_max: usize) -> usize {
    kept_max.max(PASSING_MIN)
}

/// Sees rows of a relation before a worker does. A simulation's may panic, as an operator might.
pub type Witness = Arc<dyn Fn(&str, &Delta) + Send + Sync>;

/// A closed tick, from one worker.
pub struct Report {
    pub tick: Tick,
    /// Per captured dataflow, its changes by tick, up to `tick`.
    pub changes: Vec<(String, Tick, Vec<Delta>)>,
    /// Per dataflow, its errors.
    pub errors: Vec<(String, Vec<(ErrorRow, i64)>)>,
    /// Per dataflow, what its state takes in bytes.
    pub state: Vec<(String, usize)>,
}

/// How long a worker without work sleeps before it looks again; commands wake it.
const PARK: Duration = Duration::from_millis(20);

/// Runs until `Stop`.
pub fn run(worker: &mut Worker, commands: &Receiver<Command>, witness: Option<&Witness>, state_bytes_max: usize, say: impl Fn(Said)) {
    let mut state = State {
        dataflows: BTreeMap::new(),
        watermarks: Watermarks::default(),
        closing: None,
        open: 0,
        arrangements: watch_arrangements(worker),
    };
    loop {
        loop {
            match commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return state.stop(worker),
                Ok(command) => {
                    if let (Some(witness), Command::Rows { relation, timed, .. }) = (witness, &command) {
                        witness(relation, &timed.delta);
                    }
                    state.apply(worker, command);
                }
                Err(TryRecvError::Empty) => break,
            }
        }
        worker.step_or_park(Some(PARK));
        state.say_growth(state_bytes_max, &say);
        state.report_closed(&say);
    }
}

struct State {
    dataflows: BTreeMap<String, Running>,
    watermarks: Watermarks,
    /// The tick that is closed at the inputs but not yet known to have passed all operators.
    closing: Option<Tick>,
    /// Inputs are at this time.
    open: Tick,
    arrangements: Arrangements,
}

/// Whose arrangements operators keep: by the first number of a dataflow's operators, the one behind the last.
type Arrangements = Rc<RefCell<BTreeMap<usize, (usize, Usage)>>>;

struct Running {
    index: usize,
    inputs: HashMap<String, InputHandle<Tick, CapacityContainerBuilder<Vec<Timed<Tick>>>>>,
    probe: probe::Handle<Tick>,
    errors: Errors,
    usage: Usage,
    watermarks: Watermarks,
    born: Tick,
    is_beside: bool,
    /// It was said to be over a limit.
    is_large: bool,
    /// The number from which on its operators count.
    first_operator: usize,
    export: Option<(Trace<Tick>, Arc<Layout>)>,
    captured: Option<Captured>,
}

type Captured = Rc<RefCell<BTreeMap<Tick, Vec<Delta>>>>;

impl State {
    fn apply(&mut self, worker: &mut Worker, command: Command) {
        match command {
            Command::Create(spec) => {
                let running = self.build(worker, &spec);
                self.dataflows.insert(spec.name.clone(), running);
            }
            Command::Drop { name } => {
                if let Some(running) = self.dataflows.remove(&name) {
                    let Running { index, first_operator, .. } = running;
                    worker.drop_dataflow(index);
                    self.arrangements.borrow_mut().remove(&first_operator);
                }
            }
            Command::PutInPlace { beside, name, born } => {
                if let Some(mut running) = self.dataflows.remove(&beside) {
                    running.put_in_place(born, self.open);
                    self.dataflows.insert(name, running);
                }
            }
            Command::Rows { relation, reader, timed } => {
                for (name, running) in &mut self.dataflows {
                    if reader.as_ref().is_none_or(|reader| reader == name)
                        && let Some(input) = running.inputs.get_mut(&relation)
                    {
                        input.send(timed.clone());
                        input.flush();
                    }
                }
                // Rows flow while their tick is still open; only its end waits for the close.
                worker.step();
            }
            Command::Close { tick, watermarks, compact } => self.close(tick, watermarks, compact),
            Command::Read { names, prefix, tick, reply } => {
                let read = |name: &String| {
                    let (trace, layout) = self
                        .dataflows
                        .get_mut(name)
                        .and_then(|running| running.export.as_mut())
                        .expect("the bridge names readable relations");
                    read_at(trace, layout, tick, &prefix)
                };
                // A reader that gave up is no concern of ours.
                let _ = reply.send(names.iter().map(read).collect());
            }
            Command::Stop => unreachable!("handled by the loop"),
        }
    }

    fn close(&mut self, tick: Tick, watermarks: Arc<[Option<i64>]>, compact: Tick) {
        self.watermarks.set(tick, watermarks);
        self.watermarks.forget_before(compact);
        self.open = tick + 1;
        let frontier = Antichain::from_elem(compact);
        for running in self.dataflows.values_mut() {
            running.inputs.values_mut().for_each(|input| input.advance_to(tick + 1));
            if let Some((trace, _)) = &mut running.export {
                trace.set_logical_compaction(frontier.borrow());
                trace.set_physical_compaction(frontier.borrow());
            }
        }
        self.closing = Some(tick);
    }

    /// Says once of each dataflow that it is over a limit.
    fn say_growth(&mut self, state_bytes_max: usize, say: &impl Fn(Said)) {
        for (name, running) in &mut self.dataflows {
            if let Some(excess) = Excess::of(&running.usage, state_bytes_max).filter(|_| !running.is_large) {
                running.is_large = true;
                say(Said::Grew { name: name.clone(), born: running.born, excess });
            }
        }
    }

    fn report_closed(&mut self, say: &impl Fn(Said)) {
        let Some(tick) = self.closing else { return };
        if self.dataflows.values().any(|running| running.probe.less_equal(&tick)) {
            return;
        }
        self.closing = None;
        let mut changes = Vec::new();
        let mut errors = Vec::new();
        for (name, running) in &self.dataflows {
            running.usage.closed();
            let done = running.captured_through(tick);
            if running.is_beside {
                continue;
            }
            changes.extend(done.into_iter().map(|(tick, deltas)| (name.clone(), tick, deltas)));
            let failed = running.errors.take_through(tick);
            if !failed.is_empty() {
                errors.push((name.clone(), failed));
            }
        }
        let state = self.dataflows.iter().map(|(name, running)| (name.clone(), running.usage.bytes()));
        say(Said::Closed(Report { tick, changes, errors, state: state.collect() }));
    }

    fn build(&mut self, worker: &mut Worker, spec: &DataflowSpec) -> Running {
        let index = worker.next_dataflow_index();
        let first_operator = worker.peek_identifier();
        let watermarks = self.watermarks.of_dataflow(if spec.is_beside { Tick::MAX } else { spec.born });
        let shared = Shared { watermarks: watermarks.clone(), ..Shared::default() };
        let mut inputs = HashMap::new();
        let probe = probe::Handle::new();
        let captured: Option<Captured> = spec.capture.then(Captured::default);
        let layout = Arc::new(Layout::whole(Arc::clone(&spec.node.schema)));
        let dataflows = &mut self.dataflows;
        let export = worker.dataflow_named::<Tick, _, _>(&spec.name, |scope| {
            let mut relations: HashMap<String, Rows<Tick>> = HashMap::new();
            for (name, _) in &spec.inputs {
                let (handle, rows) = scope.new_input::<Vec<Timed<Tick>>>();
                inputs.insert(name.clone(), handle);
                relations.insert(name.clone(), rows);
            }
            for name in &spec.imports {
                let (trace, layout) =
                    dataflows.get_mut(name).and_then(|running| running.export.as_mut()).expect("the catalog knows what is kept");
                relations.insert(name.clone(), imported(trace, scope, Arc::clone(layout), name));
            }
            let mut renderer = Renderer::new(scope, shared.clone(), relations);
            for (name, program) in &spec.counted {
                let (handle, rows) = scope.new_input::<Vec<Timed<Tick>>>();
                inputs.insert(name.clone(), handle);
                renderer.add(program, rows);
            }
            let rows = renderer.render(&spec.node);
            let rows = match spec.restored {
                Some(upto) => {
                    let (handle, restored) = scope.new_input::<Vec<Timed<Tick>>>();
                    inputs.insert(RESTORED.to_string(), handle);
                    let later = each(rows, "Restored", move |timed, out| out.extend((upto < timed.time).then_some(timed)));
                    scope.concatenate([later, restored])
                }
                None => rows,
            };
            let rows = match &captured {
                Some(captured) => capture(rows, Rc::clone(captured)),
                None => rows,
            };
            if !spec.export {
                rows.probe_with(&probe);
                return None;
            }
            let arranged = arrange(rows, Arc::clone(&layout), false, "View", shared.usage.clone());
            arranged.stream.probe_with(&probe);
            Some((arranged.trace, layout))
        });
        for input in inputs.values_mut() {
            input.advance_to(self.open);
        }
        let Shared { errors, usage, .. } = shared;
        self.arrangements.borrow_mut().insert(first_operator, (worker.peek_identifier(), usage.clone()));
        let (born, is_beside) = (spec.born, spec.is_beside);
        Running { index, inputs, probe, errors, usage, watermarks, born, is_beside, is_large: false, first_operator, export, captured }
    }

    fn stop(self, worker: &mut Worker) {
        let indices: Vec<usize> = self.dataflows.values().map(|running| running.index).collect();
        drop(self);
        indices.into_iter().for_each(|index| worker.drop_dataflow(index));
    }
}

impl Running {
    /// What is captured up to `tick`.
    fn captured_through(&self, tick: Tick) -> BTreeMap<Tick, Vec<Delta>> {
        let Some(captured) = &self.captured else { return BTreeMap::new() };
        let mut captured = captured.borrow_mut();
        let later = captured.split_off(&(tick + 1));
        std::mem::replace(&mut *captured, later)
    }

    /// From `born` on, which is not closed, it is seen as if all of its past had come in then. `open`: the
    /// first tick that is not closed.
    fn put_in_place(&mut self, born: Tick, open: Tick) {
        (self.born, self.is_beside) = (born, false);
        self.watermarks.set_born(born);
        if let (Some(captured), Some((trace, layout))) = (&self.captured, &mut self.export) {
            captured.borrow_mut().entry(born).or_default().push(read_at(trace, layout, open - 1, &Vec::new()));
        }
    }
}

/// Counts what arrangements take towards their dataflows.
fn watch_arrangements(worker: &Worker) -> Arrangements {
    let watched = Arrangements::default();
    let usages = Rc::clone(&watched);
    let count = move |_: &Duration, events: &mut Option<Vec<(Duration, DifferentialEvent)>>| {
        for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
            let operator = match &event {
                DifferentialEvent::Batch(batch) => batch.operator,
                DifferentialEvent::Merge(merge) => merge.operator,
                DifferentialEvent::Drop(dropped) => dropped.operator,
                _ => continue,
            };
            let usages = usages.borrow();
            let Some((_, (_, usage))) = usages.range(..=operator).next_back().filter(|(_, (end, _))| operator < *end) else { continue };
            match event {
                DifferentialEvent::Batch(batch) => usage.sealed(batch.length),
                DifferentialEvent::Merge(merge) => {
                    merge.complete.inspect(|merged| usage.arranged(merge.length1 + merge.length2, *merged));
                }
                DifferentialEvent::Drop(dropped) => usage.arranged(dropped.length, 0),
                _ => {}
            }
        }
    };
    let mut register = worker.log_register().expect("timely's workers have a log");
    register.insert::<DifferentialEventBuilder, _>("differential/arrange", count);
    drop(register);
    watched
}

fn capture<'scope>(rows: Rows<'scope, Tick>, captured: Captured) -> Rows<'scope, Tick> {
    rows.unary(Pipeline, "Capture", move |_, _| {
        move |input, output| {
            input.for_each(|cap, data| {
                for timed in data.iter() {
                    captured.borrow_mut().entry(timed.time).or_default().push(timed.delta.clone());
                }
                output.session(&cap).give_container(data);
            });
        }
    })
}
