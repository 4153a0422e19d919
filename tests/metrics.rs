//! What is counted, and what is timed.

#![allow(clippy::unwrap_used)]

mod support;

use cloakroom::{MemoryStore, SessionLayer};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use support::{Browser, app, key};

#[tokio::test]
async fn events_are_counted_and_store_calls_are_timed() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(MemoryStore::new(), key())));
    for path in [
        "/insert/theme/dark",
        "/get/theme",
        "/regenerate",
        "/log_out",
    ] {
        browser.get(path).await;
    }
    let mut seen = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key
            .key()
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let count = match value {
            DebugValue::Counter(count) => usize::try_from(count).unwrap(),
            DebugValue::Histogram(values) => values.len(),
            DebugValue::Gauge(_) => panic!("nothing is a gauge"),
        };
        seen.push(format!(
            "{}{{{}}} {count}",
            key.key().name(),
            labels.join(",")
        ));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "cloakroom_events_total{event=created} 1",
            "cloakroom_events_total{event=destroyed} 1",
            "cloakroom_events_total{event=loaded} 3",
            "cloakroom_events_total{event=regenerated} 1",
            "cloakroom_store_seconds{operation=insert} 1",
            "cloakroom_store_seconds{operation=load} 3",
            "cloakroom_store_seconds{operation=remove} 1",
            "cloakroom_store_seconds{operation=replace} 1",
        ]
    );
}
