//! Work on a thread of its own, for plans do not pause while they are made, and not always while they run.
//!
//! Threads   [`AT_ONCE_MAX`] for that; who comes later waits. What talks to clients has threads besides
//! Ends      with its time, or when nobody waits for it any more: at its next pause, or where it asks [`check`]
//! Rows      as they come, [`BATCHES_AHEAD`] of them before they are asked for

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::exec_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, execute_stream};
use futures::{StreamExt, stream};
use tidegate_types::error::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::watched::{watched, watched_joins};
use super::{Refusal, TIME_MAX};

/// Pieces of work at once.
const AT_ONCE_MAX: usize = 8;

/// Threads that talk to clients.
const TALKING_COUNT: usize = 4;

/// Batches that are computed before they are asked for.
const BATCHES_AHEAD: usize = 2;

/// Planning recurses with the query: room for the deepest one that is let through.
const STACK_BYTES: usize = 64 << 20;

/// The threads that reads are served by. Neither the ticks nor what is at the doors besides waits for them.
pub fn threads() -> &'static Runtime {
    static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(TALKING_COUNT).max_blocking_threads(AT_ONCE_MAX).thread_stack_size(STACK_BYTES);
        threads.thread_name("reader").enable_all().build().expect("threads can be started")
    });
    &THREADS
}

/// What becomes of `work`, within `limit`. It ends soon after who waits for it.
pub async fn apart<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let (watch, _waiting) = Watch::begin(limit);
    let until = watch.until;
    let done = threads().spawn_blocking(move || alone(watch, work));
    match timeout_at(until, done).await {
        Ok(Ok(Some(done))) => done,
        Ok(Err(_)) => Err(Refusal::from(Error::engine("the planner failed on this query").hint("simplify it, and report it"))),
        Ok(Ok(None)) | Err(_) => Err(Refusal::too_slow(limit)),
    }
}

/// What a piece of work is judged by, on its own thread.
#[derive(Debug, Clone)]
struct Watch {
    gone: CancellationToken,
    limit: Duration,
    until: Instant,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

impl Watch {
    /// And what is held by who waits.
    fn begin(limit: Duration) -> (Self, DropGuard) {
        let gone = CancellationToken::new();
        (Self { gone: gone.clone(), limit, until: Instant::now() + limit }, gone.drop_guard())
    }

    fn is_over(&self) -> bool {
        self.gone.is_cancelled() || self.until <= Instant::now()
    }

    async fn over(&self) {
        tokio::select! {
            () = self.gone.cancelled() => (),
            () = sleep_until(self.until) => (),
        }
    }
}

/// Why work ended that was not done.
#[derive(Debug)]
pub(super) struct Stopped {
    pub limit: Duration,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped after {:?}, or for want of anybody who waits", self.limit)
    }
}

impl std::error::Error for Stopped {}

/// Errors: this thread's work is over.
pub(super) fn check() -> DfResult<()> {
    WATCH.with_borrow(|watch| match watch {
        Some(watch) if watch.is_over() => Err(DataFusionError::External(Box::new(Stopped { limit: watch.limit }))),
        _ => Ok(()),
    })
}

/// Runs on this thread, with all that it spawns. None: it was stopped.
fn alone<T>(watch: Watch, work: impl Future<Output = T>) -> Option<T> {
    WATCH.set(Some(watch.clone()));
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without I/O can be made");
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => Some(done),
            () = watch.over() => None,
        }
    });
    runtime.shutdown_background();
    done
}

/// The session in which plans are kept as they are, and run apart by `state`.
pub(super) fn session_apart(state: SessionState) -> SessionState {
    let planner = Apart { state: Arc::new(state.clone()) };
    SessionStateBuilder::new_from_existing(state)
        .with_analyzer_rules(Vec::new())
        .with_optimizer_rules(Vec::new())
        .with_query_planner(Arc::new(planner))
        .build()
}

/// The rows of a plan, wherever this is asked.
pub(super) async fn computed(state: &SessionState, plan: &LogicalPlan) -> DfResult<SendableRecordBatchStream> {
    let plan = watched_joins(state.optimize(plan)?)?;
    let plan = state.query_planner().create_physical_plan(&plan, state).await?;
    execute_stream(watched(plan)?, state.task_ctx())
}

#[derive(Debug)]
struct Apart {
    state: Arc<SessionState>,
}

#[async_trait]
impl QueryPlanner for Apart {
    async fn create_physical_plan(&self, plan: &LogicalPlan, _: &dyn Session) -> DfResult<Arc<dyn ExecutionPlan>> {
        let equivalence = EquivalenceProperties::new(Arc::new(plan.schema().as_arrow().clone()));
        let properties =
            PlanProperties::new(equivalence, Partitioning::UnknownPartitioning(1), EmissionType::Incremental, Boundedness::Bounded);
        Ok(Arc::new(ApartExec { state: self.state.clone(), plan: plan.clone(), properties: Arc::new(properties) }))
    }
}

/// A plan that is planned to the end, and run, on a thread of its own.
#[derive(Debug)]
struct ApartExec {
    state: Arc<SessionState>,
    plan: LogicalPlan,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for ApartExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for ApartExec {
    fn name(&self) -> &str {
        "ApartExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let (watch, waiting) = Watch::begin(TIME_MAX);
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (state, plan) = (self.state.clone(), self.plan.clone());
        let computing = threads().spawn_blocking(move || {
            alone(watch, async move {
                let mut computed = computed(&state, &plan).await?;
                while let Some(batch) = computed.next().await {
                    if sender.send(batch?).await.is_err() {
                        break;
                    }
                }
                Ok(())
            })
        });
        let coming = Coming { batches, computing: Some(computing), _waiting: waiting };
        let rows = stream::unfold(coming, |mut coming| async { Some((coming.next().await?, coming)) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// Batches on their way from another thread.
struct Coming {
    batches: mpsc::Receiver<RecordBatch>,
    /// None: its end was told.
    computing: Option<JoinHandle<Option<DfResult<()>>>>,
    _waiting: DropGuard,
}

impl Coming {
    async fn next(&mut self) -> Option<DfResult<RecordBatch>> {
        if let Some(batch) = self.batches.recv().await {
            return Some(Ok(batch));
        }
        match self.computing.take()?.await {
            Ok(Some(Ok(()))) => None,
            Ok(Some(Err(error))) => Some(Err(error)),
            Ok(None) => Some(Err(DataFusionError::External(Box::new(Stopped { limit: TIME_MAX })))),
            Err(_) => Some(exec_err!("the query failed while it was computed; simplify it, and report it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Never pauses, and looks whether it is over.
    fn busy() -> Result<(), Refusal> {
        loop {
            check()?;
        }
    }

    #[tokio::test]
    async fn work_that_does_not_pause_ends_with_its_time() {
        let limit = Duration::from_millis(50);
        let refusal = apart(limit, async { busy() }).await.unwrap_err();
        assert_eq!(refusal.code, "57014");
        // Who never looks is not waited for.
        let (is_done, until) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (done, end) = (is_done.clone(), until.clone());
        let stubborn = async move {
            while !end.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            done.store(true, Ordering::Relaxed);
            Ok(())
        };
        let refusal = apart(limit, stubborn).await.unwrap_err();
        assert_eq!((refusal.code, is_done.load(Ordering::Relaxed)), ("57014", false));
        until.store(true, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn work_ends_with_who_waits_for_it() {
        let (ended, end) = std::sync::mpsc::channel();
        let work = tokio::spawn(apart(TIME_MAX, async move {
            let outcome = busy();
            ended.send(Instant::now()).expect("the test listens");
            outcome
        }));
        tokio::time::sleep(Duration::from_millis(50)).await;
        work.abort();
        let begun = Instant::now();
        let ended = tokio::task::spawn_blocking(move || end.recv()).await.unwrap().unwrap();
        assert!(ended - begun < TIME_MAX / 2, "it went on for {:?}", ended - begun);
    }

    #[tokio::test]
    async fn a_panic_is_the_works_own() {
        let refusal = apart::<()>(TIME_MAX, async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(refusal.code, "XX000");
        assert_eq!(apart(TIME_MAX, async { Ok(1) }).await.unwrap(), 1);
    }
}
