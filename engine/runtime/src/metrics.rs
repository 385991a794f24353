//! What Prometheus sees. One prefix, base units, `_total` for counters, few labels.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All metrics of one engine. `rows` counts are of rows, not of batches.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    pub source_received_rows: IntCounterVec,
    pub source_received_bytes: IntCounterVec,
    pub source_committed_rows: IntCounterVec,
    pub source_late_rows: IntCounterVec,
    pub source_dead_letters: IntCounterVec,
    pub source_repeated_rows: IntCounterVec,
    pub source_rejected_rows: IntCounterVec,
    pub source_refused_requests: IntCounterVec,
    pub source_watermark: GaugeVec,
    pub source_up: IntGaugeVec,
    pub ticks: IntCounter,
    pub tick_seconds: Histogram,
    pub tick_time: Gauge,
    pub in_flight_bytes: IntGauge,
    pub disk_free_bytes: IntGauge,
    pub disk_size_bytes: IntGauge,
    pub view_errors: IntGaugeVec,
    pub view_state_bytes: IntGaugeVec,
    pub views_stopped: IntGauge,
    pub snapshot_failures: IntCounter,
    pub findings_open: IntGaugeVec,
    pub findings_raised: IntCounterVec,
    pub findings_withdrawn: IntCounterVec,
    pub sink_changes: IntCounterVec,
    pub sink_backlog_bytes: IntGaugeVec,
    pub sink_failures: IntCounterVec,
    pub actions: IntCounterVec,
    pub door_connections: IntGaugeVec,
    pub door_refused_connections: IntCounterVec,
    pub door_cut_connections: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(vec.clone())).expect("a name of its own");
            vec
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(vec.clone())).expect("a name of its own");
            vec
        };
        let source_watermark = GaugeVec::new(
            Opts::new("tidegate_source_watermark_timestamp_seconds", "Event time below which a row of the source is late."),
            &["source"],
        )
        .expect("a valid name");
        let ticks = IntCounter::new("tidegate_ticks_total", "Ticks closed: commits made visible.").expect("a valid name");
        let tick_seconds = Histogram::with_opts(
            HistogramOpts::new("tidegate_tick_duration_seconds", "From the opening of a tick to its results being visible.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        )
        .expect("a valid name");
        let tick_time = Gauge::new("tidegate_tick_timestamp_seconds", "The last closed tick, as a time.").expect("a valid name");
        let in_flight_bytes = IntGauge::new("tidegate_in_flight_bytes", "Input taken in but not yet visible.").expect("a valid name");
        let disk_free_bytes = IntGauge::new("tidegate_disk_free_bytes", "What is left on the data folder's disk.").expect("a valid name");
        let disk_size_bytes = IntGauge::new("tidegate_disk_size_bytes", "The size of the data folder's disk.").expect("a valid name");
        let views_stopped =
            IntGauge::new("tidegate_views_stopped", "Views whose state grew over the limit, and what reads them.").expect("a valid name");
        let snapshot_failures =
            IntCounter::new("tidegate_snapshot_failures_total", "Snapshots that could not be taken: the log grows.").expect("a valid name");
        let build = gauges("tidegate_build_info", "1; the version is the label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            source_received_rows: counters("tidegate_source_received_rows_total", "Rows received, good and bad.", &["source"]),
            source_received_bytes: counters(
                "tidegate_source_received_bytes_total",
                "Bytes received: as they came, or in memory.",
                &["source"],
            ),
            source_committed_rows: counters("tidegate_source_committed_rows_total", "Rows that entered views.", &["source"]),
            source_late_rows: counters("tidegate_source_late_rows_total", "Rows behind the watermark, kept in <source>_late.", &["source"]),
            source_dead_letters: counters("tidegate_source_dead_letters_total", "Inputs that could not become a row.", &["source"]),
            source_repeated_rows: counters("tidegate_source_repeated_rows_total", "Rows that came again under a known id.", &["source"]),
            source_rejected_rows: counters(
                "tidegate_source_rejected_rows_total",
                "Rows refused with an answer to who sent them.",
                &["source"],
            ),
            source_refused_requests: counters(
                "tidegate_source_refused_requests_total",
                "Requests to a source that were refused, by HTTP status; their rows are in no count unless they were rejected.",
                &["source", "code"],
            ),
            source_up: gauges("tidegate_source_up", "1 while the source is read, 0 when it has ended or failed.", &["source"]),
            view_errors: gauges("tidegate_view_errors", "Rows a view could not compute at present.", &["view"]),
            view_state_bytes: gauges("tidegate_view_state_bytes", "What a view keeps in memory, about.", &["view"]),
            views_stopped,
            snapshot_failures,
            findings_open: gauges("tidegate_findings_open", "Open findings.", &["detection"]),
            findings_raised: counters("tidegate_findings_raised_total", "Findings that appeared.", &["detection"]),
            findings_withdrawn: counters("tidegate_findings_withdrawn_total", "Findings that were withdrawn.", &["detection"]),
            sink_changes: counters("tidegate_sink_changes_total", "Changes written.", &["sink"]),
            sink_backlog_bytes: gauges("tidegate_sink_backlog_bytes", "Changes waiting to be written.", &["sink"]),
            sink_failures: counters("tidegate_sink_failures_total", "Writes that failed for good.", &["sink"]),
            actions: counters("tidegate_actions_total", "Requests to the outside world by outcome.", &["action", "kind", "outcome"]),
            door_connections: gauges("tidegate_door_connections", "Connections of clients.", &["door"]),
            door_refused_connections: counters(
                "tidegate_door_refused_connections_total",
                "Connections that were turned away because the door was full.",
                &["door"],
            ),
            door_cut_connections: counters(
                "tidegate_door_cut_connections_total",
                "Connections that were ended because the client was too slow, by what it was too slow with.",
                &["door", "reason"],
            ),
            source_watermark,
            ticks,
            tick_seconds,
            tick_time,
            in_flight_bytes,
            disk_free_bytes,
            disk_size_bytes,
            registry: registry.clone(),
        };
        for collector in [
            Box::new(metrics.source_watermark.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(metrics.ticks.clone()),
            Box::new(metrics.tick_seconds.clone()),
            Box::new(metrics.tick_time.clone()),
            Box::new(metrics.in_flight_bytes.clone()),
            Box::new(metrics.disk_free_bytes.clone()),
            Box::new(metrics.disk_size_bytes.clone()),
            Box::new(metrics.views_stopped.clone()),
            Box::new(metrics.snapshot_failures.clone()),
        ] {
            registry.register(collector).expect("a name of its own");
        }
        metrics
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
