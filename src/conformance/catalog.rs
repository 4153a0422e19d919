//! All sessions, and sessions by their external id.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::*;
use crate::store::Replaced;
use crate::store::catalog::{Cursor, Scan, SessionCatalog};

/// A walk that does not end is a fault. No store needs so many calls here.
const MOST_CALLS: usize = 10_000;

/// One call of a walk.
async fn scan(
    store: &dyn SessionCatalog,
    after: Option<&Cursor>,
    limit: usize,
    accept: &(dyn Fn(RecordId, &Record) -> bool + Send + Sync),
) -> Scan {
    let scan = store.scan(after, limit, accept).await.unwrap();
    let scan = scan.expect("the store refuses its own cursor");
    assert!(scan.records.len() <= limit, "more records than the limit");
    scan
}

/// All ids that a walk answers with, in its order. Each cursor goes through its text.
async fn walk(
    store: &dyn SessionCatalog,
    limit: usize,
    accept: &(dyn Fn(RecordId, &Record) -> bool + Send + Sync),
) -> Vec<RecordId> {
    let mut ids = Vec::new();
    let mut after = None;
    for _ in 0..MOST_CALLS {
        let scan = scan(store, after.as_ref(), limit, accept).await;
        ids.extend(scan.records.iter().map(|(id, _)| *id));
        let Some(next) = scan.next else {
            return ids;
        };
        after = Some(next.to_string().parse().expect("the text of a cursor"));
    }
    panic!("the walk does not end");
}

async fn called(store: &dyn SessionCatalog, external_id: &str) -> Vec<RecordId> {
    let found = store.find_by_external_id(external_id).await.unwrap();
    let mut ids: Vec<_> = found.into_iter().map(|(id, _)| id).collect();
    ids.sort();
    ids
}

/// `scan` of an empty store.
pub async fn a_walk_through_an_empty_store_is_over(store: Arc<dyn SessionCatalog>) {
    assert!(walk(&*store, 10, &|_, _| true).await.is_empty());
}

/// `scan` of 40 sessions of users and visitors, in pages of several sizes.
pub async fn a_walk_meets_each_session(store: Arc<dyn SessionCatalog>) {
    let mut all = BTreeSet::new();
    for number in 0..20 {
        all.insert(insert(&*store, &new_record()).await);
        all.insert(insert(&*store, &new_record_of(&format!("user {number}"))).await);
    }
    for limit in [1, 3, 40, 1000] {
        let ids = walk(&*store, limit, &|_, _| true).await;
        assert_eq!(ids.len(), 40, "a session came up twice, or not at all");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all);
    }
    let expected = new_record();
    let id = insert(&*store, &expected).await;
    let scan = scan(&*store, None, 1000, &|found, _| found == id).await;
    assert_same(scan.records.first().map(|(_, record)| record), &expected);
}

/// `scan` with a condition that few sessions fulfil.
pub async fn a_walk_answers_with_what_is_accepted_and_with_no_more_than_the_limit(
    store: Arc<dyn SessionCatalog>,
) {
    let mut all = BTreeSet::new();
    for number in 0..60 {
        match number % 12 {
            0 => all.insert(insert(&*store, &new_record_of("ada")).await),
            _ => insert(&*store, &new_record()).await == new_id(),
        };
    }
    for limit in [1, 2, 100] {
        let ids = walk(&*store, limit, &|_, record| record.user().is_some()).await;
        assert_eq!(ids.len(), all.len());
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all);
    }
    assert!(walk(&*store, 5, &|_, _| false).await.is_empty());
}

/// `scan`, with `insert` and `remove` between its calls.
pub async fn sessions_that_come_and_go_disturb_no_walk(store: Arc<dyn SessionCatalog>) {
    let mut stay = BTreeSet::new();
    let mut go = Vec::new();
    for _ in 0..30 {
        stay.insert(insert(&*store, &new_record()).await);
        go.push(insert(&*store, &new_record_of("grace")).await);
    }
    let mut met = BTreeSet::new();
    let mut after = None;
    for _ in 0..MOST_CALLS {
        let scan = scan(&*store, after.as_ref(), 4, &|_, _| true).await;
        for (id, _) in &scan.records {
            assert!(met.insert(*id), "a session came up twice");
        }
        after = scan.next;
        if after.is_none() {
            break;
        }
        if let Some(id) = go.pop() {
            store.remove(id).await.unwrap();
        }
        // The last one that came up, if it may go, takes its place in the list with it.
        if let Some((id, _)) = scan.records.last()
            && !stay.contains(id)
        {
            store.remove(*id).await.unwrap();
        }
        insert(&*store, &new_record()).await;
    }
    assert!(after.is_none(), "the walk does not end");
    assert!(met.is_superset(&stay), "a session was left out");
}

/// `scan` with a cursor that no store makes.
pub async fn a_cursor_of_another_store_is_refused(store: Arc<dyn SessionCatalog>) {
    insert(&*store, &new_record()).await;
    for text in ["x", "...", "0", "no-such-cursor", "AAAAAAAAAAAAAAAAAAAAA_"] {
        let cursor: Cursor = text.parse().unwrap();
        let answer = store.scan(Some(&cursor), 10, &|_, _| true).await.unwrap();
        assert!(answer.is_none(), "the store takes the cursor {text:?}");
    }
}

/// `find_by_external_id`, with the record.
pub async fn a_session_is_found_by_its_external_id(store: Arc<dyn SessionCatalog>) {
    let record = new_record_called("sid 1");
    let first = insert(&*store, &record).await;
    let second = insert(&*store, &new_record_called("sid 1")).await;
    let other = insert(&*store, &new_record_called("sid 2")).await;
    insert(&*store, &new_record_of("ada")).await;
    let mut both = [first, second];
    both.sort();
    assert_eq!(called(&*store, "sid 1").await, both);
    assert_eq!(called(&*store, "sid 2").await, [other]);
    assert!(called(&*store, "sid").await.is_empty());
    let found = store.find_by_external_id("sid 1").await.unwrap();
    let found = found.iter().find(|(id, _)| *id == first);
    assert_same(found.map(|(_, record)| record), &record);
}

/// A `replace` with a record that has an external id.
pub async fn a_login_files_the_session_under_its_external_id(store: Arc<dyn SessionCatalog>) {
    let visitor = new_record();
    let id = insert(&*store, &visitor).await;
    let logged_in = next(&new_record_called("sid"), visitor.fields().data().clone());
    let replaced = store.replace(id, visitor.version(), &logged_in).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert_eq!(called(&*store, "sid").await, [id]);
}

/// A `replace` with a record that has another external id, or none.
pub async fn a_session_is_found_by_its_last_external_id_alone(store: Arc<dyn SessionCatalog>) {
    let first = new_record_called("sid 1");
    let id = insert(&*store, &first).await;
    let second = next(&first, data([])).with(|fields| fields.set_external_id("sid 2".into()));
    let replaced = store.replace(id, first.version(), &second).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert!(called(&*store, "sid 1").await.is_empty());
    assert_eq!(called(&*store, "sid 2").await, [id]);
    let third = next(&second, data([])).with(|fields| {
        fields.log_in(Login::plain(user_id("ada"), now()));
    });
    let replaced = store.replace(id, second.version(), &third).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert!(called(&*store, "sid 2").await.is_empty());
    assert!(store.load(id).await.unwrap().is_some());
}

/// `remove` and `remove_by_user`, then `find_by_external_id`.
pub async fn a_removed_session_is_not_found_by_its_external_id(store: Arc<dyn SessionCatalog>) {
    let removed = insert(&*store, &new_record_called("sid")).await;
    let kept = insert(&*store, &new_record_called("sid")).await;
    assert!(store.remove(removed).await.unwrap());
    assert_eq!(called(&*store, "sid").await, [kept]);
    assert_eq!(
        store.remove_by_user(&user_id("ada"), None).await.unwrap(),
        1
    );
    assert!(called(&*store, "sid").await.is_empty());
}

/// `touch` and `replace`, then `find_by_external_id`.
pub async fn a_touched_session_is_still_found_by_its_external_id(store: Arc<dyn SessionCatalog>) {
    let record = new_record_called("sid");
    let id = insert(&*store, &record).await;
    let later = record.clone().with_expires_at(now() + HOUR * 2);
    assert!(store.touch(id, &later).await.unwrap());
    let second = next(&record, data([]));
    let replaced = store.replace(id, record.version(), &second).await;
    assert_eq!(replaced.unwrap(), Replaced::Done);
    assert_eq!(called(&*store, "sid").await, [id]);
}

/// External ids that a collation or a pattern would take for the same.
pub async fn external_ids_are_compared_byte_for_byte(store: Arc<dyn SessionCatalog>) {
    let longest = "x".repeat(Record::EXTERNAL_ID_LEN);
    let ids = [
        "sid", "Sid", "sid ", " sid", "s", "si%", "si_", "*", "{sid}", "å", "a\u{30a}", &longest,
    ];
    for id in ids {
        insert(&*store, &new_record_called(id)).await;
    }
    for id in ids {
        assert_eq!(called(&*store, id).await.len(), 1, "sessions of {id:?}");
    }
}

/// 32 logins of one external id at once.
pub async fn parallel_logins_of_an_external_id_are_all_found(store: Arc<dyn SessionCatalog>) {
    let login = |_| {
        let store = store.clone();
        async move { insert(&*store, &new_record_called("sid")).await }
    };
    let mut ids = (0..32).map(login).collect::<JoinSet<_>>().join_all().await;
    ids.sort();
    assert_eq!(called(&*store, "sid").await, ids);
}
