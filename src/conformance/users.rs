//! Sessions by user.

use tokio::task::JoinSet;

use super::*;
use crate::store::{Replaced, UserIndex};

async fn ids_of(store: &dyn UserIndex, user: &str) -> Vec<RecordId> {
    let sessions = store.sessions_of(&UserId::from(user)).await.unwrap();
    let mut ids: Vec<_> = sessions.into_iter().map(|(id, _)| id).collect();
    ids.sort();
    ids
}

fn sorted<const N: usize>(mut ids: [RecordId; N]) -> [RecordId; N] {
    ids.sort();
    ids
}

/// `sessions_of` and `remove_all_of`, of a user that was never seen.
pub async fn a_user_without_sessions_has_none(store: Arc<dyn UserIndex>) {
    insert(&*store, &new_record()).await;
    assert!(ids_of(&*store, "nobody").await.is_empty());
    assert_eq!(
        store
            .remove_all_of(&UserId::from("nobody"), None)
            .await
            .unwrap(),
        0
    );
}

/// `sessions_of`, with the records.
pub async fn sessions_are_listed_by_user(store: Arc<dyn UserIndex>) {
    let record = new_record_of("ada");
    let first = insert(&*store, &record).await;
    let second = insert(&*store, &new_record_of("ada")).await;
    let other = insert(&*store, &new_record_of("grace")).await;
    insert(&*store, &new_record()).await;
    assert_eq!(ids_of(&*store, "ada").await, sorted([first, second]));
    assert_eq!(ids_of(&*store, "grace").await, [other]);
    let sessions = store.sessions_of(&UserId::from("ada")).await.unwrap();
    let listed = sessions
        .iter()
        .find(|(id, _)| *id == first)
        .map(|(_, record)| record);
    assert_same(listed, &record);
}

/// A `replace` that brings the user.
pub async fn a_login_files_the_session_under_its_user(store: Arc<dyn UserIndex>) {
    let anonymous = new_record();
    let id = insert(&*store, &anonymous).await;
    let logged_in =
        new_record_of("ada").with(|content| content.version = anonymous.version().next());
    assert_eq!(
        store
            .replace(id, anonymous.version(), &logged_in)
            .await
            .unwrap(),
        Replaced::Done
    );
    assert_eq!(ids_of(&*store, "ada").await, [id]);
}

/// `remove`, then `sessions_of`.
pub async fn a_removed_session_is_not_listed(store: Arc<dyn UserIndex>) {
    let removed = insert(&*store, &new_record_of("ada")).await;
    let kept = insert(&*store, &new_record_of("ada")).await;
    assert!(store.remove(removed).await.unwrap());
    assert_eq!(ids_of(&*store, "ada").await, [kept]);
}

/// `touch` and `replace`, then `sessions_of`.
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

/// `remove_all_of`.
pub async fn all_sessions_of_a_user_are_removed_and_no_others(store: Arc<dyn UserIndex>) {
    let first = insert(&*store, &new_record_of("ada")).await;
    let second = insert(&*store, &new_record_of("ada")).await;
    let other = insert(&*store, &new_record_of("grace")).await;
    let anonymous = insert(&*store, &new_record()).await;
    assert_eq!(
        store
            .remove_all_of(&UserId::from("ada"), None)
            .await
            .unwrap(),
        2
    );
    assert!(ids_of(&*store, "ada").await.is_empty());
    for (id, is_there) in [
        (first, false),
        (second, false),
        (other, true),
        (anonymous, true),
    ] {
        assert_eq!(store.load(id).await.unwrap().is_some(), is_there);
    }
}

/// `remove_all_of` with an exception, which need not be the user's.
pub async fn all_sessions_but_one_are_removed(store: Arc<dyn UserIndex>) {
    let kept = insert(&*store, &new_record_of("ada")).await;
    insert(&*store, &new_record_of("ada")).await;
    insert(&*store, &new_record_of("ada")).await;
    assert_eq!(
        store
            .remove_all_of(&UserId::from("ada"), Some(kept))
            .await
            .unwrap(),
        2
    );
    assert_eq!(ids_of(&*store, "ada").await, [kept]);
    let other = insert(&*store, &new_record_of("grace")).await;
    assert_eq!(
        store
            .remove_all_of(&UserId::from("ada"), Some(other))
            .await
            .unwrap(),
        1
    );
    assert_eq!(ids_of(&*store, "grace").await, [other]);
}

/// User ids that a collation would take for one another.
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
            store
                .remove_all_of(&UserId::from(user), None)
                .await
                .unwrap(),
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

/// What was logged in before `remove_all_of` is gone after it, whatever logs in meanwhile.
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
    assert!(
        store
            .remove_all_of(&UserId::from("ada"), None)
            .await
            .unwrap()
            >= 8
    );
    let during = logins.join_all().await;
    for id in before {
        assert!(
            store.load(id).await.unwrap().is_none(),
            "a session outlived its removal"
        );
    }
    // Each of the others is either removed or there, and the index knows which.
    let mut live = Vec::new();
    for id in during {
        if store.load(id).await.unwrap().is_some() {
            live.push(id);
        }
    }
    live.sort();
    assert_eq!(ids_of(&*store, "ada").await, live);
}
