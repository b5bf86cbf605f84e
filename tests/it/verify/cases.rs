//! Each damage is found by its name, with nothing else than what it brings along.

use std::collections::BTreeSet;
use std::time::Duration;

use sealcast::store::pool::connection_config;
use sealcast::verify::Report;
use sealcast::verify::finding::Kind;

use super::super::support::database::Database;
use super::damages::{Damage, P2, P3, P4, P5, P7, P13};
use super::program::verify_url;
use super::rehash::rehash;
use super::scene::Scene;

async fn report(database: &Database) -> Report {
    let config = connection_config(&database.url(), Duration::from_secs(30)).unwrap();
    sealcast::verify::verify(&config, 100).await.unwrap()
}

/// Does each damage to a copy of one good database.
async fn find(damages: &[Damage]) {
    let mut scene = Scene::play().await;
    scene.broker.kill();
    let good = report(&scene.database).await;
    assert!(good.is_good(), "{:?}", good.listed());
    let mut wrong = Vec::new();
    for damage in damages {
        let damaged = scene.database.copy().await;
        let sql = scene.fill(damage.sql);
        damaged.client().await.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        if damage.is_hashed {
            rehash(&damaged, scene.chat_id).await;
        }
        let report = report(&damaged).await;
        let found: BTreeSet<Kind> = report.violations().keys().copied().collect();
        let expected: BTreeSet<Kind> = damage.beside.iter().copied().chain([damage.kind]).collect();
        if found != expected {
            wrong.push(format!("{sql}\n  found {found:?}\n  expected {expected:?}\n  {:#?}", report.listed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And as an operator sees it.
    let damage = damages.last().unwrap();
    let damaged = scene.database.copy().await;
    damaged.client().await.batch_execute(&scene.fill(damage.sql)).await.unwrap();
    let called = verify_url(damaged.url(), &["--list", "50"]).await;
    assert_eq!(called.code, Some(1), "{}", called.table);
    assert!(called.count(damage.kind.as_str()) > 0, "{}", called.table);
    let line = format!("  {} {} ", damage.kind.promise().number(), damage.kind);
    assert!(called.table.contains(&line), "{}", called.table);
}

#[tokio::test]
async fn p12_what_breaks_p2_is_found_by_its_name() {
    find(P2).await;
}

#[tokio::test]
async fn p12_what_breaks_p3_is_found_by_its_name() {
    find(P3).await;
}

#[tokio::test]
async fn p12_what_breaks_p4_is_found_by_its_name() {
    find(P4).await;
}

#[tokio::test]
async fn p12_what_breaks_p5_is_found_by_its_name() {
    find(P5).await;
}

#[tokio::test]
async fn p12_what_breaks_p7_is_found_by_its_name() {
    find(P7).await;
}

#[tokio::test]
async fn p12_what_breaks_p13_is_found_by_its_name() {
    find(P13).await;
}

#[test]
fn everything_that_can_be_wrong_is_done_to_a_database() {
    let done: BTreeSet<Kind> =
        [P2, P3, P4, P5, P7, P13].iter().flat_map(|damages| damages.iter()).map(|damage| damage.kind).collect();
    let all: BTreeSet<Kind> = Kind::ALL.iter().copied().collect();
    assert_eq!(done, all);
}

#[tokio::test]
async fn more_than_is_listed_is_counted() {
    let mut scene = Scene::play().await;
    scene.broker.kill();
    let damaged = scene.database.copy().await;
    damaged.client().await.batch_execute("UPDATE chat_messages SET log_hash = sha256('')").await.unwrap();
    let called = verify_url(damaged.url(), &["--list", "2"]).await;
    let count = called.count("log_hash");
    assert!(count > 10, "{}", called.table);
    assert_eq!(called.json["violations"].as_array().unwrap().len(), 2);
    let all = called.json["violation_count"].as_u64().unwrap();
    assert!(called.table.ends_with(&format!("  and {} more\n", all - 2)), "{}", called.table);
    for name in ["ada", "bob", "carol", "erin"] {
        assert!(!called.table.contains(name), "a username is shown");
    }
}
