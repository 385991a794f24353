//! Sources on their way in: who reads them, which rows are late, and what may be in flight.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, TimestampMillisecondArray};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use tidegate_plan::catalog::WatermarkRule;
use tidegate_types::connector::{Budget, Offset, Polled, Source, SourceBatch};
use tidegate_types::error::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Input taken in but not yet visible, over all sources. Beyond it sources wait.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// What one poll may bring.
pub const POLL_BYTES_MAX: usize = 4 << 20;
/// A timestamp further ahead of the clock than this moves the watermark as if it were the clock's: one bad clock, or
/// one that lies, must not make everyone else late.
pub const FUTURE_MS_MAX: i64 = 5 * 60_000;

/// From a source's task to the coordinator.
pub struct Arrival {
    pub source: String,
    pub event: ArrivalEvent,
}

pub enum ArrivalEvent {
    /// The permit goes with the batch until its tick is visible.
    Batch(SourceBatch, OwnedSemaphorePermit),
    End,
    Failed(Error),
}

/// Told that everything up to an offset is committed.
pub type Acknowledge = mpsc::UnboundedSender<Offset>;

/// Reads `source` until it ends, as fast as what is in flight allows.
pub fn read(
    name: String,
    mut source: Box<dyn Source>,
    in_flight: Arc<Semaphore>,
    arrivals: mpsc::Sender<Arrival>,
) -> (Acknowledge, JoinHandle<()>) {
    let (acknowledge, mut acknowledged) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let budget = Budget { bytes_max: POLL_BYTES_MAX };
        loop {
            let polled = tokio::select! {
                biased;
                offset = acknowledged.recv() => match offset {
                    Some(offset) => {
                        source.acknowledge(offset).await;
                        continue;
                    }
                    None => return,
                },
                polled = source.poll(budget) => polled,
            };
            let event = match polled {
                Ok(Polled::Batch(batch)) => {
                    let permits = batch.bytes.clamp(1, IN_FLIGHT_BYTES_MAX) as u32;
                    let permit = loop {
                        // Acknowledgements must get through while input waits: they may be what it waits for.
                        tokio::select! {
                            permit = Arc::clone(&in_flight).acquire_many_owned(permits) => match permit {
                                Ok(permit) => break permit,
                                Err(_) => return,
                            },
                            offset = acknowledged.recv() => match offset {
                                Some(offset) => source.acknowledge(offset).await,
                                None => return,
                            },
                        }
                    };
                    ArrivalEvent::Batch(batch, permit)
                }
                Ok(Polled::End) => ArrivalEvent::End,
                Err(error) => ArrivalEvent::Failed(error),
            };
            let last = !matches!(event, ArrivalEvent::Batch(..));
            if arrivals.send(Arrival { source: name.clone(), event }).await.is_err() {
                return;
            }
            if last {
                while let Some(offset) = acknowledged.recv().await {
                    source.acknowledge(offset).await;
                }
                return;
            }
        }
    });
    (acknowledge, task)
}

/// A batch after the verdict.
pub struct Judged {
    pub on_time: RecordBatch,
    pub late: Option<RecordBatch>,
    /// The largest event time, as far as it is believed.
    pub seen: Option<i64>,
}

/// Rows before `watermark` are late. A NULL time is never late, and says nothing.
pub fn judge(rows: RecordBatch, rule: WatermarkRule, watermark: Option<i64>, now_ms: i64) -> Judged {
    let times = rows.column(rule.column).as_primitive::<TimestampMillisecondType>();
    let seen = believed(times, now_ms);
    let Some(watermark) = watermark else {
        return Judged { on_time: rows, late: None, seen };
    };
    let on_time: BooleanArray = (0..times.len()).map(|i| Some(times.is_null(i) || watermark <= times.value(i))).collect();
    if on_time.true_count() == on_time.len() {
        return Judged { on_time: rows, late: None, seen };
    }
    let late = not(&on_time).and_then(|late| filter_record_batch(&rows, &late)).expect("one flag per row");
    Judged { on_time: filter_record_batch(&rows, &on_time).expect("one flag per row"), late: Some(late), seen }
}

fn believed(times: &TimestampMillisecondArray, now_ms: i64) -> Option<i64> {
    let last = now_ms.saturating_add(FUTURE_MS_MAX);
    match arrow::compute::max(times) {
        Some(latest) if last < latest => times.iter().flatten().map(|time| if last < time { now_ms } else { time }).max(),
        latest => latest,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;

    #[test]
    fn rows_behind_the_watermark_are_late_and_far_futures_are_not_believed() {
        let schema = Arc::new(Schema::new(vec![Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true)]));
        let times = TimestampMillisecondArray::from(vec![Some(99), Some(100), None, Some(i64::MAX)]);
        let rows = RecordBatch::try_new(schema, vec![Arc::new(times)]).unwrap();
        let judged = judge(rows, WatermarkRule { column: 0, lateness_ms: 0 }, Some(100), 1_000);
        assert_eq!(judged.on_time.num_rows(), 3);
        assert_eq!(judged.late.unwrap().num_rows(), 1);
        assert_eq!(judged.seen, Some(1_000));
    }

    #[test]
    fn a_lie_moves_the_watermark_no_further_than_the_clock() {
        let seen = |times: Vec<i64>| believed(&TimestampMillisecondArray::from(times), 1_000);
        assert_eq!([seen(vec![]), seen(vec![-5, 3])], [None, Some(3)]);
        assert_eq!(seen(vec![1_000 + FUTURE_MS_MAX, 7]), Some(1_000 + FUTURE_MS_MAX));
        assert_eq!(seen(vec![1_001 + FUTURE_MS_MAX, 7]), Some(1_000));
        assert_eq!(seen(vec![i64::MAX, 2_000]), Some(2_000));
    }
}
