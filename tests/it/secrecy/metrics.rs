//! What the metrics count, and what they time.

use cloakroom::{MemoryStore, SessionLayer};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use support::{Browser, app, key};

async fn use_sessions() {
    let layer = SessionLayer::new(MemoryStore::new(), key());
    let sessions = layer.sessions();
    let app = app(layer);
    let mut browser = Browser::new(&app);
    for path in [
        "/insert/theme/dark",
        "/get/theme",
        "/regenerate",
        "/log_out",
    ] {
        browser.get(path).await;
    }
    for _ in 0..2 {
        Browser::new(&app).get("/log_in/ada").await;
    }
    sessions.revoke_user("ada").await.unwrap();
    sessions.purge_expired().await.unwrap();
}

/// The recorder belongs to this thread only, because other tests may run in the same process.
#[test]
fn events_are_counted_and_store_calls_are_timed() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(use_sessions());
    });
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
            "cloakroom_events_total{event=created} 3",
            "cloakroom_events_total{event=ended,cause=logged_out} 1",
            "cloakroom_events_total{event=ended,cause=revoked} 2",
            "cloakroom_events_total{event=loaded} 3",
            "cloakroom_events_total{event=logged_in} 2",
            "cloakroom_events_total{event=rotated} 1",
            "cloakroom_store_seconds{operation=insert} 3",
            "cloakroom_store_seconds{operation=load} 3",
            "cloakroom_store_seconds{operation=purge_expired} 1",
            "cloakroom_store_seconds{operation=remove_by_user} 1",
            "cloakroom_store_seconds{operation=remove} 1",
            "cloakroom_store_seconds{operation=replace} 1",
        ]
    );
}
