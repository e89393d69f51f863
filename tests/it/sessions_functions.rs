//! What each session function does, on every engine.

use redis::cmd;
use redoubt::dataplane::{load, session_library};
use redoubt::model::session_policy::{OnExceed, SessionPolicy};

use crate::support::engine_process::engines;
use crate::support::eventually;
use crate::support::layer::SOON;
use crate::support::session_calls::{
    HOUR, contents, counter, list, number, policy, read, refusal, server_time, server_with,
};

fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_session_is_created_once_read_saved_by_version_and_revoked() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let (key, index) = ("web:{t}s:a", "web:{t}u:bob");
        let expires = number(&connection, "session_create", &[key], &["bob", "cart", "3", "theme", "dark"]).await;
        assert_eq!(refusal(&connection, "session_create", &[key], &["eve"]).await, "EXISTS");
        let session = read(&connection, "session_get_ro", key).await.unwrap();
        assert_eq!((session.version, session.expires, session.user.as_str()), (1, expires, "bob"));
        assert_eq!(session.fields, fields(&[("cart", "3"), ("theme", "dark")]));
        assert_eq!(session.created + i64::try_from(HOUR).unwrap(), expires);

        assert_eq!(number(&connection, "session_set", &[key], &["1", "1", "cart", "4", "theme"]).await, 2);
        assert_eq!(refusal(&connection, "session_set", &[key], &["1", "1", "cart", "5"]).await, "CONFLICT");
        assert_eq!(number(&connection, "session_set", &[key], &["", "1", "new", "\"'\n{}\0"]).await, 3);
        let session = read(&connection, "session_get", key).await.unwrap();
        assert_eq!(session.fields, fields(&[("cart", "4"), ("new", "\"'\n{}\0")]));
        assert!(number(&connection, "session_touch", &[key], &[]).await >= session.expires);
        assert_eq!(list(&connection, index).await.len(), 1);

        assert_eq!(number(&connection, "session_revoke", &[key], &[]).await, 1);
        assert_eq!(number(&connection, "session_revoke", &[key], &[]).await, 0);
        assert_eq!(read(&connection, "session_get", key).await, None);
        assert_eq!(number(&connection, "session_exists", &[key], &[]).await, 0);
        assert_eq!(refusal(&connection, "session_set", &[key], &["", "1", "cart", "6"]).await, "NOSESSION");
        assert_eq!(contents(&connection).await, []);
        assert_eq!(counter(&connection, "shop/web", "created").await, 1);
        assert_eq!(counter(&connection, "shop/web", "revoked").await, 1);
    }
}

#[tokio::test]
async fn all_sessions_of_a_user_end_together_and_one_may_be_kept() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        for id in 0..999 {
            let key = format!("web:{{t}}s:{id}");
            number(&connection, "session_create", &[&key], &["bob"]).await;
        }
        number(&connection, "session_create", &["web:{t}s:other"], &["eve"]).await;
        number(&connection, "session_create", &["web:{t}s:nobody"], &[""]).await;
        assert_eq!(number(&connection, "session_revoke_all", &["web:{t}u:bob"], &["7"]).await, 998);
        let left = list(&connection, "web:{t}u:bob").await;
        assert_eq!(left.iter().map(|session| session.0.as_str()).collect::<Vec<_>>(), ["7"]);
        assert_eq!(number(&connection, "session_revoke_all", &["web:{t}u:bob"], &[]).await, 1);
        let keys: Vec<String> = contents(&connection).await.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["web:{t}s:nobody", "web:{t}s:other", "web:{t}u:eve"]);
        for key in keys {
            let left: i64 = connection.query(cmd("PTTL").arg(&key)).await.unwrap();
            assert!(left > 0, "{key} never expires");
        }
    }
}

#[tokio::test]
async fn a_rotated_id_is_another_name_within_its_grace_and_dead_after_it() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let [old, new, newest] = ["web:{t}s:old", "web:{t}s:new", "web:{t}s:newest"];
        number(&connection, "session_create", &[old], &["bob", "cart", "1"]).await;
        let before = read(&connection, "session_get_ro", old).await.unwrap();
        number(&connection, "session_rotate", &[old, new], &["300"]).await;
        assert_eq!(refusal(&connection, "session_rotate", &[old, newest], &["300"]).await, "CONFLICT");
        assert_eq!(refusal(&connection, "session_create", &[old], &["eve"]).await, "EXISTS");
        number(&connection, "session_set", &[old], &["1", "1", "cart", "2"]).await;
        let after = read(&connection, "session_get_ro", new).await.unwrap();
        assert_eq!((after.created, after.fields), (before.created, fields(&[("cart", "2")])));
        let index = list(&connection, "web:{t}u:bob").await;
        assert_eq!(index.iter().map(|session| session.0.as_str()).collect::<Vec<_>>(), ["new"]);
        eventually("the old id is dead", SOON, async || number(&connection, "session_exists", &[old], &[]).await == 0)
            .await;
        assert!(read(&connection, "session_get", new).await.is_some());

        number(&connection, "session_rotate", &[new, newest], &["0"]).await;
        assert_eq!(read(&connection, "session_get", new).await, None);
        number(&connection, "session_rotate", &[newest, old], &["60000"]).await;
        assert_eq!(number(&connection, "session_revoke", &[newest], &[]).await, 1);
        assert_eq!(contents(&connection).await, []);
        assert_eq!(refusal(&connection, "session_rotate", &[old, new], &["0"]).await, "NOSESSION");
    }
}

fn short() -> SessionPolicy {
    SessionPolicy {
        idle_timeout_milliseconds: 400,
        absolute_lifetime_milliseconds: 1_000,
        touch_interval_milliseconds: 100,
        ..policy("web")
    }
}

#[tokio::test]
async fn reads_renew_at_most_once_an_interval_and_never_beyond_the_absolute_lifetime() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[short()], &[]).await;
        let key = "web:{t}s:a";
        number(&connection, "session_create", &[key], &["bob"]).await;
        let created = read(&connection, "session_get_ro", key).await.unwrap().created;
        let (mut reads, mut last) = (0, created);
        while let Some(session) = read(&connection, "session_get", key).await {
            for of in [key, "web:{t}u:bob"] {
                let ends: i64 = connection.query(cmd("PEXPIRETIME").arg(of)).await.unwrap();
                assert!(ends <= created + 1_000, "{of} outlives its session");
            }
            assert!(session.expires <= created + 1_000);
            reads += 1;
            last = server_time(&connection).await;
        }
        let renewed = counter(&connection, "shop/web", "renewed").await;
        assert!(renewed <= (last - created) / 100 + 1, "{renewed} renewals in {} ms", last - created);
        assert!(renewed >= 3 && reads > 20, "{renewed} renewals, {reads} reads");
        assert!(last - created >= 600, "it slid only to {} ms", last - created);
        assert_eq!(list(&connection, "web:{t}u:bob").await, []);
        eventually("every key expires", SOON, async || contents(&connection).await.is_empty()).await;
    }
}

#[tokio::test]
async fn a_policy_that_became_shorter_holds_for_sessions_that_are_there() {
    for engine in engines() {
        let (_process, connection) = server_with(&engine, &[policy("web")], &[]).await;
        let key = "web:{t}s:a";
        number(&connection, "session_create", &[key], &["bob"]).await;
        let shorter = SessionPolicy { idle_timeout_milliseconds: 60_000, generation: 2, ..policy("web") };
        load(&connection, &session_library(&[shorter])).await.unwrap();
        let session = read(&connection, "session_get", key).await.unwrap();
        assert!(session.expires <= server_time(&connection).await + 60_000);
        let over = SessionPolicy { idle_timeout_milliseconds: 1, absolute_lifetime_milliseconds: 1, ..policy("web") };
        load(&connection, &session_library(&[over])).await.unwrap();
        eventually("it is over", SOON, async || read(&connection, "session_get", key).await.is_none()).await;
        assert_eq!(refusal(&connection, "session_set", &[key], &["", "1", "a", "b"]).await, "NOSESSION");
        assert_eq!(list(&connection, "web:{t}u:bob").await, []);
    }
}

#[tokio::test]
async fn the_oldest_session_gives_way_or_the_login_is_refused() {
    for engine in engines() {
        let capped = |name: &str, on_exceed| SessionPolicy { max_per_user: Some(2), on_exceed, ..policy(name) };
        let stores = [capped("web", OnExceed::EvictOldest), capped("api", OnExceed::Reject)];
        let (_process, connection) = server_with(&engine, &stores, &[]).await;
        for store in ["web", "api"] {
            for id in ["a", "b"] {
                let created = server_time(&connection).await;
                number(&connection, "session_create", &[&format!("{store}:{{t}}s:{id}")], &["bob"]).await;
                eventually("a later time", SOON, async || server_time(&connection).await > created + 1).await;
            }
        }
        number(&connection, "session_create", &["web:{t}s:c"], &["bob"]).await;
        let ids: Vec<String> = list(&connection, "web:{t}u:bob").await.into_iter().map(|row| row.0).collect();
        assert_eq!(ids, ["b", "c"]);
        assert_eq!(counter(&connection, "shop/web", "evicted").await, 1);

        assert_eq!(refusal(&connection, "session_create", &["api:{t}s:c"], &["bob"]).await, "LIMIT");
        assert_eq!(counter(&connection, "shop/api", "rejected").await, 1);
        // One that plain commands deleted makes room, and nobody has no cap.
        connection.query::<()>(cmd("DEL").arg("api:{t}s:a")).await.unwrap();
        number(&connection, "session_create", &["api:{t}s:c"], &["bob"]).await;
        for id in 0..4 {
            number(&connection, "session_create", &[&format!("api:{{t}}s:nobody{id}")], &[""]).await;
        }
    }
}

#[tokio::test]
async fn an_id_that_another_user_has_got_is_not_of_its_first_user_any_more() {
    for engine in engines() {
        let capped = SessionPolicy { max_per_user: Some(1), ..policy("web") };
        for keeps_index in [true, false] {
            let (_process, connection) = server_with(&engine, std::slice::from_ref(&capped), &[]).await;
            let key = "web:{t}s:a";
            number(&connection, "session_create", &[key], &["bob"]).await;
            connection.query::<()>(cmd("DEL").arg(key)).await.unwrap();
            number(&connection, "session_create", &[key], &["ann"]).await;
            assert_eq!(list(&connection, "web:{t}u:bob").await, []);
            if keeps_index {
                number(&connection, "session_create", &["web:{t}s:b"], &["bob"]).await;
                assert_eq!(list(&connection, "web:{t}u:bob").await.len(), 1);
            } else {
                assert_eq!(number(&connection, "session_revoke_all", &["web:{t}u:bob"], &[]).await, 0);
            }
            assert_eq!(read(&connection, "session_get", key).await.unwrap().user, "ann");
        }
    }
}
