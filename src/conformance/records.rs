//! One call after the other.

use super::*;
use crate::store::Replaced;

/// `load`, of an id that was never written.
pub async fn a_missing_record_is_none(store: Arc<dyn SessionStore>) {
    assert!(store.load(new_id()).await.unwrap().is_none());
}

/// `insert`, then `load`.
pub async fn a_new_record_is_loaded_as_it_was_inserted(store: Arc<dyn SessionStore>) {
    for record in [new_record(), new_record_of("ada")] {
        let id = insert(&*store, &record).await;
        assert_same(store.load(id).await.unwrap().as_ref(), &record);
    }
}

/// `insert` is not an upsert.
pub async fn an_insert_under_a_taken_id_changes_nothing(store: Arc<dyn SessionStore>) {
    let record = new_record();
    let id = insert(&*store, &record).await;
    assert!(!store.insert(id, &new_record_of("eve")).await.unwrap());
    assert_same(store.load(id).await.unwrap().as_ref(), &record);
}

/// `replace`, expiry and user included.
pub async fn a_replace_of_the_expected_version_writes_the_whole_record(
    store: Arc<dyn SessionStore>,
) {
    let old = new_record();
    let id = insert(&*store, &old).await;
    let new = next(&new_record_of("ada"), data([("cart", "3 books")])).with(|fields| {
        fields.use_until(old.expires_at() + HOUR, 3_600_000);
        fields.set_lifetime(LifetimeClass::Browser);
        fields.set_client(None);
    });
    assert_eq!(
        store.replace(id, old.version(), &new).await.unwrap(),
        Replaced::Done
    );
    assert_same(store.load(id).await.unwrap().as_ref(), &new);
}

/// `replace` compares the version, in both directions.
pub async fn a_replace_of_another_version_changes_nothing(store: Arc<dyn SessionStore>) {
    let first = new_record();
    let id = insert(&*store, &first).await;
    let second = next(&first, data([("theme", "light")]));
    assert_eq!(
        store.replace(id, first.version(), &second).await.unwrap(),
        Replaced::Done
    );

    let late = next(&first, data([("theme", "late")]));
    assert_eq!(
        store.replace(id, first.version(), &late).await.unwrap(),
        Replaced::Conflict
    );
    let early = next(
        &next(&second, second.fields().data().clone()),
        data([("theme", "early")]),
    );
    assert_eq!(
        store
            .replace(id, second.version().next(), &early)
            .await
            .unwrap(),
        Replaced::Conflict
    );
    assert_same(store.load(id).await.unwrap().as_ref(), &second);
}

/// `replace` never creates.
pub async fn a_replace_of_a_missing_record_creates_nothing(store: Arc<dyn SessionStore>) {
    let id = new_id();
    let record = new_record();
    assert_eq!(
        store
            .replace(
                id,
                record.version(),
                &next(&record, record.fields().data().clone())
            )
            .await
            .unwrap(),
        Replaced::Missing
    );
    assert!(store.load(id).await.unwrap().is_none());
}

/// `touch`, and a `replace` of the version from before it.
pub async fn a_touch_moves_the_expiry_and_nothing_else(store: Arc<dyn SessionStore>) {
    let record = new_record_of("ada");
    let id = insert(&*store, &record).await;
    for expires_at in [record.expires_at() + HOUR, now() + HOUR / 2] {
        let touched = record.clone().with_expires_at(expires_at);
        assert!(store.touch(id, &touched).await.unwrap());
        assert_same(store.load(id).await.unwrap().as_ref(), &touched);
    }
    let new = next(&record, data([]));
    assert_eq!(
        store.replace(id, record.version(), &new).await.unwrap(),
        Replaced::Done
    );
    assert_same(store.load(id).await.unwrap().as_ref(), &new);
}

/// `replace` and `touch` to an expiry that has passed.
pub async fn a_record_whose_expiry_is_moved_into_the_past_is_over(store: Arc<dyn SessionStore>) {
    let record = new_record_of("ada");
    let past = now().before(HOUR);
    let replaced_id = insert(&*store, &record).await;
    let new = next(&record, record.fields().data().clone()).with_expires_at(past);
    assert_eq!(
        store
            .replace(replaced_id, record.version(), &new)
            .await
            .unwrap(),
        Replaced::Done
    );
    let touched_id = insert(&*store, &record).await;
    let touched = record.with_expires_at(past);
    assert!(store.touch(touched_id, &touched).await.unwrap());
    store.purge_expired(now()).await.unwrap();
    for id in [replaced_id, touched_id] {
        assert!(store.load(id).await.unwrap().is_none());
    }
}

/// `touch` compares the version: a late touch must not undo what a write did to the expiry.
pub async fn a_touch_of_another_version_changes_nothing(store: Arc<dyn SessionStore>) {
    let first = new_record();
    let id = insert(&*store, &first).await;
    let second = next(&first, first.fields().data().clone()).with_expires_at(now() + HOUR * 3);
    assert_eq!(
        store.replace(id, first.version(), &second).await.unwrap(),
        Replaced::Done
    );
    let late = first.with_expires_at(now() + HOUR / 2);
    assert!(!store.touch(id, &late).await.unwrap());
    assert_same(store.load(id).await.unwrap().as_ref(), &second);
}

/// `touch` never creates.
pub async fn a_touch_of_a_missing_record_creates_nothing(store: Arc<dyn SessionStore>) {
    let id = new_id();
    assert!(!store.touch(id, &new_record()).await.unwrap());
    assert!(store.load(id).await.unwrap().is_none());
}

/// `replace` with a record that [`keeps_later_expiry`](crate::Record::keeps_later_expiry).
pub async fn a_replace_that_keeps_a_later_expiry_never_moves_it_back(store: Arc<dyn SessionStore>) {
    let start = now();
    let at = |hours: u32| start + HOUR * hours;
    let mut record = new_record_of("ada").with_expires_at(at(2));
    let id = insert(&*store, &record).await;
    let touched = record.clone().with_expires_at(at(4));
    assert!(store.touch(id, &touched).await.unwrap());
    // A store that compares only a part of the number finds the wrong one later.
    let seven_weeks = Duration::from_millis(1 << 32);
    // The expiry of the record, whether it keeps a later one, and what the store has afterwards.
    for (own, keeps, stored) in [
        (at(2), true, at(4)),
        (at(4), true, at(4)),
        (at(6), true, at(6)),
        (at(3), true, at(6)),
        (at(3), false, at(3)),
        (at(1), false, at(1)),
        (at(3), true, at(3)),
        (at(1) + seven_weeks, true, at(1) + seven_weeks),
        (at(2), true, at(1) + seven_weeks),
        (at(1), false, at(1)),
    ] {
        let old = record.version();
        record = next(&record, record.fields().data().clone())
            .with_expires_at(own)
            .with(|fields| {
                if keeps {
                    fields.keep_later_expiry();
                }
            });
        assert_eq!(
            store.replace(id, old, &record).await.unwrap(),
            Replaced::Done
        );
        let expected = record.clone().with_expires_at(stored);
        assert_same(store.load(id).await.unwrap().as_ref(), &expected);
    }
    // A stored expiry that has passed and is not later is not kept.
    let old = record.version();
    let ended = next(&record, record.fields().data().clone())
        .with_expires_at(start.before(HOUR))
        .with(RecordFields::keep_later_expiry);
    assert_eq!(
        store.replace(id, old, &ended).await.unwrap(),
        Replaced::Done
    );
    let expected = ended.with_expires_at(at(1));
    assert_same(store.load(id).await.unwrap().as_ref(), &expected);
}

/// `remove`, and every call after it except an `insert`.
pub async fn a_removed_record_stays_missing(store: Arc<dyn SessionStore>) {
    let record = new_record();
    let id = insert(&*store, &record).await;
    assert!(store.remove(id).await.unwrap());
    assert!(
        !store.remove(id).await.unwrap(),
        "the second remove found something"
    );
    assert!(!store.touch(id, &record).await.unwrap());
    assert_eq!(
        store
            .replace(
                id,
                record.version(),
                &next(&record, record.fields().data().clone())
            )
            .await
            .unwrap(),
        Replaced::Missing
    );
    assert!(store.load(id).await.unwrap().is_none());
}

/// `purge_expired`. A store that removes expired records by itself may have done so before.
pub async fn a_purge_removes_what_has_expired_and_nothing_else(store: Arc<dyn SessionStore>) {
    let now = now();
    let live = new_record_of("ada");
    let live_id = insert(&*store, &live).await;
    let expired_id = insert(
        &*store,
        &new_record_of("ada").with_expires_at(now.before(HOUR)),
    )
    .await;
    let expiring_id = insert(&*store, &new_record().with_expires_at(now)).await;
    assert!(store.purge_expired(now).await.unwrap() <= 2);
    assert!(store.load(expired_id).await.unwrap().is_none());
    assert!(
        store.load(expiring_id).await.unwrap().is_none(),
        "a record is over at its expiry, not after it"
    );
    assert_same(store.load(live_id).await.unwrap().as_ref(), &live);
}

/// `purge_expired` looks at the newest expiry.
pub async fn a_purge_keeps_what_was_touched_in_time(store: Arc<dyn SessionStore>) {
    let soon = now() + HOUR;
    let touched = new_record().with_expires_at(soon);
    let touched_id = insert(&*store, &touched).await;
    let touched = touched.with_expires_at(soon + HOUR);
    assert!(store.touch(touched_id, &touched).await.unwrap());
    let old = new_record().with_expires_at(soon);
    let replaced_id = insert(&*store, &old).await;
    let new = next(&old, old.fields().data().clone()).with_expires_at(soon + HOUR);
    assert_eq!(
        store
            .replace(replaced_id, old.version(), &new)
            .await
            .unwrap(),
        Replaced::Done
    );
    store.purge_expired(soon).await.unwrap();
    assert!(store.load(touched_id).await.unwrap().is_some());
    assert!(store.load(replaced_id).await.unwrap().is_some());
}

/// Ids that a text column would fold, trim or end early.
pub async fn ids_are_compared_byte_for_byte(store: Arc<dyn SessionStore>) {
    let patterns = [
        *b"aaaaaaaaaaaaaaaa",
        *b"AAAAAAAAAAAAAAAA",
        *b"aaaaaaaaaaaaaaa ",
        *b"aaaaaaaaaaaaaaa\0",
        [0; 16],
        [255; 16],
    ];
    let mut written = Vec::new();
    for pattern in patterns {
        let record = new_record();
        assert!(
            store
                .insert(RecordId::from_bytes(pattern), &record)
                .await
                .unwrap(),
            "{pattern:?} is taken"
        );
        written.push((RecordId::from_bytes(pattern), record));
    }
    for (id, record) in written {
        assert_same(store.load(id).await.unwrap().as_ref(), &record);
        assert!(store.remove(id).await.unwrap());
    }
}

/// Text that an encoding could spoil.
pub async fn data_of_any_text_is_kept(store: Arc<dyn SessionStore>) {
    let values = [
        ("", ""),
        ("quotes", "\"'`\\"),
        ("null", "a\0b"),
        ("lines", "a\r\nb\u{2028}"),
        ("letters", "åß€𝄞"),
    ];
    let record = new_record_of("åß€𝄞 '\"").with(|fields| fields.set_data(data(values)));
    let id = insert(&*store, &record).await;
    assert_same(store.load(id).await.unwrap().as_ref(), &record);
}

/// The layer allows so much by default.
pub async fn data_of_64_kib_is_kept(store: Arc<dyn SessionStore>) {
    let large = "x".repeat(64 * 1024);
    let record = new_record().with(|fields| fields.set_data(data([("large", &*large)])));
    let id = insert(&*store, &record).await;
    assert_same(store.load(id).await.unwrap().as_ref(), &record);
}

/// A browser keeps a cookie for 400 days at most. Some servers read a large relative expiry as an
/// absolute one.
pub async fn an_expiry_in_400_days_is_kept(store: Arc<dyn SessionStore>) {
    let record = new_record().with_expires_at(now() + HOUR * 24 * 400);
    let id = insert(&*store, &record).await;
    assert_same(store.load(id).await.unwrap().as_ref(), &record);
    for expires_at in [now() + HOUR, record.expires_at()] {
        let touched = record.clone().with_expires_at(expires_at);
        assert!(store.touch(id, &touched).await.unwrap());
    }
    assert_same(store.load(id).await.unwrap().as_ref(), &record);
}
