//! Many calls at once.

use tokio::task::JoinSet;

use super::*;
use crate::store::Replaced;

/// How many tasks meet on one record.
const TASKS: usize = 64;

/// Runs a task 64 times at once, and returns the result of each.
async fn at_once<F>(task: impl Fn(usize) -> F) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    (0..TASKS)
        .map(task)
        .collect::<JoinSet<_>>()
        .join_all()
        .await
}

/// Loads, changes and replaces, until no other write came first.
async fn change(
    store: &dyn SessionStore,
    id: RecordId,
    change: impl Fn(&mut BTreeMap<String, String>),
) {
    loop {
        let record = store.load(id).await.unwrap().expect("the record is gone");
        let mut values = values(&record);
        change(&mut values);
        let data = data(values.iter().map(|(key, value)| (&**key, &**value)));
        match store
            .replace(id, record.version(), &next(&record, data))
            .await
            .unwrap()
        {
            Replaced::Done => return,
            Replaced::Conflict => {}
            Replaced::Missing => panic!("the record is gone"),
        }
    }
}

/// 64 tasks each count up and add a key of their own. All changes are there in the end.
pub async fn sixty_four_tasks_lose_no_change(store: Arc<dyn SessionStore>) {
    let record = new_record().with(|fields| fields.set_data(data([("counter", "0")])));
    let id = insert(&*store, &record).await;
    at_once(|task| {
        let store = store.clone();
        async move {
            change(&*store, id, |values| {
                let counter: usize = values["counter"].parse().expect("a number");
                values.insert("counter".into(), (counter + 1).to_string());
                values.insert(format!("task {task}"), "was here".into());
            })
            .await;
        }
    })
    .await;
    let record = store.load(id).await.unwrap().expect("the record is gone");
    let values = values(&record);
    assert_eq!(values["counter"], TASKS.to_string());
    assert_eq!(values.len(), TASKS + 1);
    assert_eq!(record.version().as_u64(), TASKS as u64 + 1);
}

/// 64 inserts under one id.
pub async fn one_of_many_parallel_inserts_wins(store: Arc<dyn SessionStore>) {
    let id = new_id();
    let won = at_once(|task| {
        let store = store.clone();
        let task = task.to_string();
        let record = new_record().with(|fields| fields.set_data(data([("task", &*task)])));
        async move { store.insert(id, &record).await.unwrap().then_some(record) }
    })
    .await;
    let winners: Vec<_> = won.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_same(store.load(id).await.unwrap().as_ref(), &winners[0]);
}

/// 64 replaces of one version.
pub async fn one_of_many_parallel_replaces_wins(store: Arc<dyn SessionStore>) {
    let first = new_record();
    let id = insert(&*store, &first).await;
    let won = at_once(|task| {
        let store = store.clone();
        let first = first.clone();
        async move {
            let second = next(&first, data([("task", &*task.to_string())]));
            match store.replace(id, first.version(), &second).await.unwrap() {
                Replaced::Done => Some(second),
                Replaced::Conflict => None,
                Replaced::Missing => panic!("the record is gone"),
            }
        }
    })
    .await;
    let winners: Vec<_> = won.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_same(store.load(id).await.unwrap().as_ref(), &winners[0]);
}

/// 64 removes of one record.
pub async fn one_of_many_parallel_removes_wins(store: Arc<dyn SessionStore>) {
    let id = insert(&*store, &new_record()).await;
    let removed = at_once(|_| {
        let store = store.clone();
        async move { store.remove(id).await.unwrap() }
    })
    .await;
    assert_eq!(removed.into_iter().filter(|removed| *removed).count(), 1);
}

/// 64 tasks write and touch while one of them removes the record. Nothing brings it back.
pub async fn nothing_in_flight_revives_a_removed_record(store: Arc<dyn SessionStore>) {
    let record = new_record_of("ada");
    let id = insert(&*store, &record).await;
    at_once(|task| {
        let store = store.clone();
        async move {
            if task == TASKS / 2 {
                assert!(store.remove(id).await.unwrap());
                return;
            }
            for _ in 0..4 {
                let Some(record) = store.load(id).await.unwrap() else {
                    return;
                };
                tokio::task::yield_now().await;
                store
                    .replace(
                        id,
                        record.version(),
                        &next(&record, record.fields().data().clone()),
                    )
                    .await
                    .unwrap();
                let touched =
                    next(&record, record.fields().data().clone()).with_expires_at(now() + HOUR * 2);
                store.touch(id, &touched).await.unwrap();
            }
        }
    })
    .await;
    assert!(
        store.load(id).await.unwrap().is_none(),
        "the record came back"
    );
}

/// A touch carries no data, so that it cannot write old data.
pub async fn parallel_touches_and_replaces_lose_no_data(store: Arc<dyn SessionStore>) {
    let id = insert(&*store, &new_record()).await;
    at_once(|task| {
        let store = store.clone();
        async move {
            if task % 2 == 0 {
                let record = store.load(id).await.unwrap().expect("the record is gone");
                tokio::task::yield_now().await;
                // It fails if a write came first.
                let touched = record.with_expires_at(now() + HOUR * 2);
                store.touch(id, &touched).await.unwrap();
            } else {
                change(&*store, id, |values| {
                    drop(values.insert(format!("task {task}"), "was here".into()));
                })
                .await;
            }
        }
    })
    .await;
    let record = store.load(id).await.unwrap().expect("the record is gone");
    assert_eq!(values(&record).len(), 2 + TASKS / 2);
}
