//! Sessions by user.

use tokio::task::JoinSet;

use super::*;
use crate::store::{Replaced, UserIndex};

async fn ids_of(store: &dyn UserIndex, user: &str) -> Vec<RecordId> {
    let sessions = store.find_by_user(&user_id(user)).await.unwrap();
    let mut ids: Vec<_> = sessions.into_iter().map(|(id, _)| id).collect();
    ids.sort();
    ids
}

fn sorted<const N: usize>(mut ids: [RecordId; N]) -> [RecordId; N] {
    ids.sort();
    ids
}

/// `find_by_user` and `remove_by_user`, of a user without any session.
pub async fn a_user_without_sessions_has_none(store: Arc<dyn UserIndex>) {
    insert(&*store, &new_record()).await;
    assert!(ids_of(&*store, "nobody").await.is_empty());
    assert_eq!(
        store
            .remove_by_user(&user_id("nobody"), None)
            .await
            .unwrap(),
        0
    );
}

/// `find_by_user`, with the records.
pub async fn sessions_are_listed_by_user(store: Arc<dyn UserIndex>) {
    let record = new_record_of("ada");
    let first = insert(&*store, &record).await;
    let second = insert(&*store, &new_record_of("ada")).await;
    let other = insert(&*store, &new_record_of("grace")).await;
    insert(&*store, &new_record()).await;
    assert_eq!(ids_of(&*store, "ada").await, sorted([first, second]));
    assert_eq!(ids_of(&*store, "grace").await, [other]);
    let sessions = store.find_by_user(&user_id("ada")).await.unwrap();
    let listed = sessions
        .iter()
        .find(|(id, _)| *id == first)
        .map(|(_, record)| record);
    assert_same(listed, &record);
}

/// A `replace` with a record that has a user.
pub async fn a_login_files_the_session_under_its_user(store: Arc<dyn UserIndex>) {
    let visitor = new_record();
    let id = insert(&*store, &visitor).await;
    let logged_in = next(&new_record_of("ada"), visitor.fields().data().clone());
    assert_eq!(
        store
            .replace(id, visitor.version(), &logged_in)
            .await
            .unwrap(),
        Replaced::Done
    );
    assert_eq!(ids_of(&*store, "ada").await, [id]);
}

/// `remove`, then `find_by_user`.
pub async fn a_removed_session_is_not_listed(store: Arc<dyn UserIndex>) {
    let removed = insert(&*store, &new_record_of("ada")).await;
    let kept = insert(&*store, &new_record_of("ada")).await;
    assert!(store.remove(removed).await.unwrap());
    assert_eq!(ids_of(&*store, "ada").await, [kept]);
}

/// `touch` and `replace`, then `find_by_user`.
pub async fn a_touched_session_is_still_listed(store: Arc<dyn UserIndex>) {
    let record = new_record_of("ada");
    let id = insert(&*store, &record).await;
    assert!(
        store
            .touch(id, &record.clone().with_expires_at(now() + HOUR * 2))
            .await
            .unwrap()
    );
    assert_eq!(
        store
            .replace(id, record.version(), &next(&record, data([])))
            .await
            .unwrap(),
        Replaced::Done
    );
    assert_eq!(ids_of(&*store, "ada").await, [id]);
}

/// `remove_by_user`.
pub async fn all_sessions_of_a_user_are_removed_and_no_others(store: Arc<dyn UserIndex>) {
    let first = insert(&*store, &new_record_of("ada")).await;
    let second = insert(&*store, &new_record_of("ada")).await;
    let other = insert(&*store, &new_record_of("grace")).await;
    let visitor = insert(&*store, &new_record()).await;
    assert_eq!(
        store.remove_by_user(&user_id("ada"), None).await.unwrap(),
        2
    );
    assert!(ids_of(&*store, "ada").await.is_empty());
    for (id, is_there) in [
        (first, false),
        (second, false),
        (other, true),
        (visitor, true),
    ] {
        assert_eq!(store.load(id).await.unwrap().is_some(), is_there);
    }
}

/// `remove_by_user` with an exception. It need not be a session of the user.
pub async fn all_sessions_but_one_are_removed(store: Arc<dyn UserIndex>) {
    let kept = insert(&*store, &new_record_of("ada")).await;
    insert(&*store, &new_record_of("ada")).await;
    insert(&*store, &new_record_of("ada")).await;
    assert_eq!(
        store
            .remove_by_user(&user_id("ada"), Some(kept))
            .await
            .unwrap(),
        2
    );
    assert_eq!(ids_of(&*store, "ada").await, [kept]);
    let other = insert(&*store, &new_record_of("grace")).await;
    assert_eq!(
        store
            .remove_by_user(&user_id("ada"), Some(other))
            .await
            .unwrap(),
        1
    );
    assert_eq!(ids_of(&*store, "grace").await, [other]);
}

/// User ids that a collation would take for the same user.
pub async fn user_ids_are_compared_byte_for_byte(store: Arc<dyn UserIndex>) {
    let users = [
        "ada",
        "Ada",
        "ada ",
        " ada",
        "a",
        "ad%",
        "ad_",
        "*",
        "åda",
        "a\u{30a}da",
    ];
    for user in users {
        insert(&*store, &new_record_of(user)).await;
    }
    for user in users {
        assert_eq!(ids_of(&*store, user).await.len(), 1, "sessions of {user:?}");
        assert_eq!(
            store.remove_by_user(&user_id(user), None).await.unwrap(),
            1,
            "sessions of {user:?}"
        );
    }
}

/// 64 logins of one user at once.
pub async fn parallel_logins_of_a_user_are_all_listed(store: Arc<dyn UserIndex>) {
    let login = |_| {
        let store = store.clone();
        async move { insert(&*store, &new_record_of("ada")).await }
    };
    let mut ids = (0..64).map(login).collect::<JoinSet<_>>().join_all().await;
    ids.sort();
    assert_eq!(ids_of(&*store, "ada").await, ids);
}

/// A session that was logged in before `remove_by_user` is gone after it, whoever logs in at the
/// same time.
pub async fn a_removal_ends_every_login_before_it(store: Arc<dyn UserIndex>) {
    let mut before = Vec::new();
    for _ in 0..8 {
        before.push(insert(&*store, &new_record_of("ada")).await);
    }
    let login = |_| {
        let store = store.clone();
        async move { insert(&*store, &new_record_of("ada")).await }
    };
    let logins = (0..32).map(login).collect::<JoinSet<_>>();
    assert!(store.remove_by_user(&user_id("ada"), None).await.unwrap() >= 8);
    let during = logins.join_all().await;
    for id in before {
        assert!(
            store.load(id).await.unwrap().is_none(),
            "a session outlived its removal"
        );
    }
    // Each of the other sessions is removed, or it is there and in the index.
    let mut live = Vec::new();
    for id in during {
        if store.load(id).await.unwrap().is_some() {
            live.push(id);
        }
    }
    live.sort();
    assert_eq!(ids_of(&*store, "ada").await, live);
}
