//! Other data on the same server: foreign bytes, the application's keys, and stores with another
//! prefix.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use cloakroom::{
    AnyStore, MemcachedStore, MemoryStore, RecordId, RedisStore, Replaced, SessionLayer,
    SessionStore, Sessions,
};
use sqlx::{MySqlPool, PgPool};
use support::dynamodb::Wire;
use support::servers::{Server, run_redis};
use support::{Browser, app, builder, key};

const SOME_ID: RecordId = RecordId::from_bytes([7; 16]);

/// Checks that a session with spoilt bytes does not count as a session. The bytes stay.
async fn assert_spoilt(browser: &mut Browser) {
    browser.get("/user").await.assert(401, "");
    browser.get("/insert/theme/light").await.assert(200, "done");
    browser.get("/get/theme").await.assert(200, "light");
}

#[tokio::test]
async fn foreign_bytes_in_redis_are_no_session_and_stay() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::connect(&format!("redis://{at}")).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let app = app(layer);
    let spoils: [(&[&str], &[&str], &str); 8] = [
        // The hash of the token's secret.
        (
            &["SETRANGE", "30", "spoilt"],
            &["GETRANGE", "30", "35"],
            "spoilt",
        ),
        (&["SET", "spoilt"], &["GET"], "spoilt"),
        (&["SET", "12345"], &["GET"], "12345"),
        // These change the format, the version, the expiry, and the first letter of the user, which
        // comes after the realm.
        (&["SETRANGE", "0", "9"], &["GETRANGE", "0", "0"], "9"),
        (&["SETRANGE", "8", "9"], &["GETRANGE", "8", "8"], "9"),
        (&["SETRANGE", "12", "9"], &["GETRANGE", "12", "12"], "9"),
        (&["SETRANGE", "78", "e"], &["GETRANGE", "78", "80"], "eda"),
        (&["HSET", "value", "spoilt"], &["HGET", "value"], "spoilt"),
    ];
    for (spoil, read, expected) in spoils {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await.assert(200, "done");
        let name = run_redis(&at, &["KEYS", "cloakroom:session:*"]);
        let of_session = |words: &[&str]| {
            let (command, arguments) = words.split_first().unwrap();
            run_redis(&at, &[&[*command, &*name], arguments].concat())
        };
        if spoil[0] == "HSET" {
            of_session(&["DEL"]);
        }
        of_session(spoil);
        assert_spoilt(&mut browser).await;
        assert_eq!(of_session(read), expected);
        assert!(sessions.list_for("ada").await.unwrap().is_empty());
        run_redis(&at, &["FLUSHALL"]);
    }
}

/// A store that answered with a conflict would be asked again and again.
#[tokio::test]
async fn a_write_over_foreign_bytes_in_redis_finds_no_session() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::connect(&format!("redis://{at}")).await.unwrap();
    let sessions = MemoryStore::new();
    let layer = SessionLayer::new(sessions.clone(), key());
    let ids = layer.sessions();
    let mut browser = Browser::new(&app(layer));
    browser.get("/log_in/ada").await.assert(200, "done");
    let id = ids.list_for("ada").await.unwrap()[0].id();
    let record = sessions.load(id).await.unwrap().unwrap();
    let name = format!("cloakroom:session:{id}");
    for (bytes, answer) in [
        ("spoilt", Replaced::Missing),
        (
            "a text that is longer than the head of a record",
            Replaced::Missing,
        ),
        (
            "\u{2}another version, and as long as a head",
            Replaced::Conflict,
        ),
    ] {
        run_redis(&at, &["SET", &name, bytes]);
        let replaced = store.replace(id, record.version(), &record).await;
        assert_eq!(replaced.unwrap(), answer, "{bytes}");
        assert_eq!(run_redis(&at, &["GET", &name]), bytes);
    }
}

#[tokio::test]
async fn foreign_bytes_in_postgres_and_mysql_are_no_session_and_stay() {
    let (postgres, mariadb) = (Server::postgres(), Server::mariadb());
    let url = format!(
        "postgres://cloakroom:secret@{}/cloakroom",
        postgres.address()
    );
    let mut browser = Browser::new(&app(SessionLayer::new(
        AnyStore::connect(&url).await.unwrap(),
        key(),
    )));
    browser.get("/log_in/ada").await.assert(200, "done");
    let pool = PgPool::connect(&url).await.unwrap();
    let spoil = "UPDATE cloakroom_sessions SET record = 'spoilt'";
    sqlx::query(spoil).execute(&pool).await.unwrap();
    assert_spoilt(&mut browser).await;
    let count = "SELECT count(*) FROM cloakroom_sessions WHERE record = 'spoilt'";
    let (count,): (i64,) = sqlx::query_as(count).fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);

    let url = format!("mysql://cloakroom:secret@{}/cloakroom", mariadb.address());
    let mut browser = Browser::new(&app(SessionLayer::new(
        AnyStore::connect(&url).await.unwrap(),
        key(),
    )));
    browser.get("/log_in/ada").await.assert(200, "done");
    let pool = MySqlPool::connect(&url).await.unwrap();
    sqlx::query(spoil).execute(&pool).await.unwrap();
    assert_spoilt(&mut browser).await;
    let count = "SELECT count(*) FROM cloakroom_sessions WHERE record = 'spoilt'";
    let (count,): (i64,) = sqlx::query_as(count).fetch_one(&pool).await.unwrap();
    assert_eq!(count, 1);
}

/// One line of Memcached's answer to a command.
fn ask_memcached(address: &str, command: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[tokio::test]
async fn foreign_bytes_in_memcached_are_no_session_and_stay() {
    let server = Server::memcached(&[]);
    let at = server.address();
    let store = MemcachedStore::connect(&format!("memcache://{at}"))
        .await
        .unwrap();
    let mut browser = Browser::new(&app(SessionLayer::new(store, key())));
    browser.get("/log_in/ada").await.assert(200, "done");
    let id = browser.get("/id").await.body;
    let id = id
        .trim_start_matches("Some(RecordId(")
        .trim_end_matches("))");
    let set = format!("set cloakroom:{id} 0 0 6\r\nspoilt\r\n");
    assert_eq!(ask_memcached(&at, &set), "STORED\r\n");
    assert_spoilt(&mut browser).await;
    let get = format!("get cloakroom:{id}\r\n");
    assert_eq!(
        ask_memcached(&at, &get),
        format!("VALUE cloakroom:{id} 0 6\r\n")
    );
}

/// Two stores, each with a session of the same user. The layers have the same key. Both sessions
/// have the same token, and the id [`SOME_ID`].
async fn strangers<S: SessionStore>(stores: [S; 2]) -> [(Sessions<S>, Browser); 2] {
    let [first, second] = stores.map(|store| {
        let random = |bytes: &mut [u8]| {
            bytes.fill(7);
            Ok::<_, std::io::Error>(())
        };
        let layer = builder(store).random(random).build().unwrap();
        (layer.sessions(), Browser::new(&app(layer)))
    });
    let ((sessions, mut browser), (other_sessions, mut other)) = (first, second);
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/insert/theme/dark").await.assert(200, "done");

    // The other store does not know this token yet.
    let cookie = browser.cookies().remove(0);
    let reply = other.get_with("/user", &[("cookie", &cookie)]).await;
    reply.assert(401, "");
    reply.assert_no_cookie();
    let reply = other.get_with("/log_out", &[("cookie", &cookie)]).await;
    reply.assert(200, "done");
    browser.get("/user").await.assert(200, "ada");

    other.get("/log_in/ada").await.assert(200, "done");
    other.get("/insert/theme/light").await.assert(200, "done");
    assert_eq!(browser.token(), other.token());
    browser.get("/get/theme").await.assert(200, "dark");
    other.get("/get/theme").await.assert(200, "light");
    [(sessions, browser), (other_sessions, other)]
}

#[tokio::test]
async fn stores_of_two_prefixes_on_one_redis_are_strangers() {
    let server = Server::redis(&[]);
    let url = format!("redis://{}", server.address());
    let store = RedisStore::connect(&url).await.unwrap();
    let stores = ["shop:", "shop:admin:"].map(|prefix| store.clone().with_prefix(prefix));
    let [(sessions, mut browser), (other_sessions, mut other)] = strangers(stores).await;
    for sessions in [&sessions, &other_sessions] {
        assert_eq!(sessions.list_for("ada").await.unwrap().len(), 1);
    }
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
    other.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.list_for("ada").await.unwrap().len(), 0);
    assert_eq!(other_sessions.list_for("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn stores_of_two_prefixes_on_one_memcached_are_strangers() {
    let server = Server::memcached(&[]);
    let url = format!("memcache://{}", server.address());
    let store = MemcachedStore::connect(&url).await.unwrap();
    let stores = ["shop:", "shop:admin:"].map(|prefix| store.clone().with_prefix(prefix).unwrap());
    let [(sessions, mut browser), (_, mut other)] = strangers(stores).await;
    assert!(sessions.revoke(SOME_ID).await.unwrap());
    browser.get("/user").await.assert(401, "");
    other.get("/user").await.assert(200, "ada");
    other.get("/get/theme").await.assert(200, "light");
}

#[tokio::test]
async fn stores_of_two_prefixes_in_one_table_of_dynamodb_are_strangers() {
    let server = Server::dynalite();
    let store = Wire::to(&server).store("sessions").await;
    let stores = ["shop#", "shop#admin#"].map(|prefix| store.clone().with_prefix(prefix).unwrap());
    let [(sessions, mut browser), (other_sessions, mut other)] = strangers(stores).await;
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    browser.get("/user").await.assert(401, "");
    other.get("/user").await.assert(200, "ada");
    assert_eq!(other_sessions.list_for("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_of_the_application_that_is_named_like_a_session_is_none() {
    let server = Server::redis(&[]);
    let at = server.address();
    let store = RedisStore::connect(&format!("redis://{at}")).await.unwrap();
    let layer = SessionLayer::new(store, key());
    let sessions = layer.sessions();
    let app = app(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    let id = sessions.list_for("ada").await.unwrap()[0].id();

    // This user's name looks like the name of that session. So the index of the user's sessions
    // could be taken for the session.
    let user = format!("session:{id}");
    let mut named = Browser::new(&app);
    named
        .get(&format!("/log_in/{user}"))
        .await
        .assert(200, "done");
    named.get("/user").await.assert(200, &user);
    browser.get("/user").await.assert(200, "ada");
    assert_eq!(sessions.revoke_user(&user).await.unwrap(), 1);
    named.get("/user").await.assert(401, "");
    browser.get("/user").await.assert(200, "ada");

    // The bytes of the session under another name do not make a session.
    let session = format!("cloakroom:session:{id}");
    let others = ["", "session:", "user:", "cloakroom:", "cloakroom:user:"];
    let others = others.map(|prefix| format!("{prefix}{id}"));
    for other in &others {
        assert_eq!(run_redis(&at, &["COPY", &session, other]), "1");
    }
    assert_eq!(run_redis(&at, &["DEL", &session]), "1");
    browser.get("/user").await.assert(401, "");
    browser.get("/log_out").await.assert(200, "done");
    for other in &others {
        assert_eq!(run_redis(&at, &["EXISTS", other]), "1", "{other}");
    }
}
