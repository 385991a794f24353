//! How long a request waits for its next attempt.

use std::time::Duration;

use tidegate_types::connector::ActionFailure;

/// The bounds of the pause between attempts, and how long after the first one there are more.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
const RETRY_FOR: Duration = Duration::from_secs(15 * 60);

/// How long to wait before the next attempt, or `None` where there is none.
pub(super) fn retry_pause(attempts: i64, since_first: Duration, failure: &ActionFailure, chance: f64) -> Option<Duration> {
    if !failure.retryable || RETRY_FOR <= since_first {
        return None;
    }
    let asked = failure.retry_after_ms.map(|ms| Duration::from_millis(ms).min(RETRY_FOR));
    Some(asked.unwrap_or_else(|| retry_delay(attempts, chance)))
}

// Full jitter, so that many actions on one dead partner do not come back as one wave.
fn retry_delay(attempts: i64, chance: f64) -> Duration {
    let cap = RETRY_DELAY_MIN.saturating_mul(1 << attempts.min(16)).min(RETRY_DELAY_MAX);
    cap.mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_for_a_quarter_of_an_hour() {
        let failure = |retryable, retry_after_ms| ActionFailure { message: String::new(), retryable, retry_after_ms, may_be_done: true };
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for attempts in 1..100 {
            let pause = retry_pause(attempts, minutes(14), &failure(true, None), 0.9).unwrap();
            assert!(pause <= RETRY_DELAY_MAX && (3 < attempts || pause <= RETRY_DELAY_MIN * 8), "{attempts}: {pause:?}");
        }
        assert_eq!(retry_pause(1, minutes(15), &failure(true, None), 0.5), None);
        assert_eq!(retry_pause(1, minutes(0), &failure(false, None), 0.5), None);
        assert_eq!(retry_pause(9, minutes(0), &failure(true, Some(300_000)), 0.5), Some(minutes(5)));
        assert_eq!(retry_pause(9, minutes(0), &failure(true, Some(86_400_000)), 0.5), Some(RETRY_FOR));
    }
}
