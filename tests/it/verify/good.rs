//! Databases that are good: in service, after a kill, restored, and with somebody writing all the while.

use std::io::Write;
use std::process::{Command, Stdio};

use super::super::support::chat::{submit, view};
use super::super::support::database::Database;
use super::program::{Called, verify, verify_url};
use super::scene::{REFUSED, Scene};

fn has_everything(called: &Called) {
    for (reason, count) in REFUSED {
        assert_eq!(called.refused(reason), count, "{}", called.table);
    }
    let counts = called.json["counts"].as_object().unwrap();
    for (name, count) in counts {
        let may_be_none = ["incomplete_keys", "due_sessions"].contains(&name.as_str());
        assert!(may_be_none || count.as_u64().unwrap() > 0, "nothing of {name} was looked at");
    }
    for promise in called.json["promises"].as_array().unwrap() {
        assert!(promise["checked"].as_u64().unwrap() > 10, "{promise}");
    }
}

#[tokio::test]
async fn p12_a_good_database_is_found_good_in_service_after_kill_9_and_restored() {
    let mut scene = Scene::play().await;
    let beside = verify_url(scene.database.url(), &[]).await.good();
    has_everything(&beside);
    scene.broker.kill();
    has_everything(&verify_url(scene.database.url(), &[]).await.good());
    scene.broker.restart().await;
    scene.ada.say(&mut scene.ada.connect_live(&scene.broker).await, scene.chat_id, "again").await.unwrap();
    verify_url(scene.database.url(), &[]).await.good();
    let has_tools = |tool: &str| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_tools("pg_dump") || !has_tools("psql") {
        let _ = writeln!(std::io::stderr(), "pg_dump and psql are not here: nothing is restored");
        return;
    }
    let restored = Database::create_empty().await;
    let mut dump = Command::new("pg_dump").arg(scene.database.url()).stdout(Stdio::piped()).spawn().unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-q", "-v", "ON_ERROR_STOP=1"]).arg(restored.url()).stdin(dump.stdout.take().unwrap());
    assert!(psql.stdout(Stdio::null()).status().unwrap().success());
    assert!(dump.wait().unwrap().success());
    has_everything(&verify_url(restored.url(), &[]).await.good());
}

#[tokio::test]
async fn p12_a_database_that_is_written_to_all_the_while_is_found_good() {
    let mut scene = Scene::play().await;
    let url = scene.database.url();
    let mut calls = tokio::spawn(async move {
        for _ in 0..3 {
            verify_url(url.clone(), &[]).await.good();
        }
    });
    let now = view(&mut scene.ada_socket, scene.chat_id).await;
    let mut key = scene.ada.sender_key(&now, scene.chat_id);
    let mut sent = 0;
    while !calls.is_finished() {
        scene.ada.renew(&now, &mut key);
        let message = scene.ada.seal(&now, &mut key, b"while it is looked at");
        submit(&mut scene.ada_socket, message).await.unwrap();
        sent += 1;
    }
    (&mut calls).await.unwrap();
    assert!(sent > 3, "only {sent} messages came between");
}

#[tokio::test]
async fn what_cannot_be_verified_is_neither_good_nor_bad() {
    let empty = Database::create_empty().await;
    let called = verify_url(empty.url(), &[]).await;
    assert_eq!(called.code, Some(2));
    assert!(called.complaint.contains("version 0"), "{}", called.complaint);
    let newer = Database::create().await;
    let insert = "INSERT INTO refinery_schema_history SELECT max(version) + 1, 'newer', now()::text, '1' FROM refinery_schema_history";
    newer.client().await.batch_execute(insert).await.unwrap();
    assert_eq!(verify_url(newer.url(), &[]).await.code, Some(2));
    let nobody = "host=127.0.0.1 port=1 user=nobody dbname=nothing connect_timeout=2".to_owned();
    let called = verify_url(nobody, &[]).await;
    assert_eq!((called.code, called.table.as_str()), (Some(2), ""));
    let folder = tempfile::tempdir().unwrap();
    let called = verify(&[("SEALCAST__DATA_DIR", folder.path().display().to_string())], &[]).await;
    assert_eq!(called.code, Some(2));
    assert!(called.complaint.contains("no database"), "{}", called.complaint);
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is made");
}
