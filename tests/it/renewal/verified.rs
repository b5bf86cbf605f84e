//! `sealcast verify` knows renewals: good ones leave nothing, and a wrong one is found by its name.

use sealcast::protocol::certificate::UserEvent;
use sealcast::protocol::log::EntryBody;

use super::super::messages::Pair;
use super::super::support::chat::events;
use super::super::verify::program::verify_url;
use super::super::verify::rehash::rehash;

#[tokio::test]
async fn p12_a_renewal_over_another_signing_key_and_one_from_no_later_place_are_found() {
    let mut pair = Pair::start().await;
    let before = pair.bob.certificate.clone();
    pair.bob.recertify(&mut pair.bob_socket).await.unwrap();
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
    let entries = events(&mut pair.ada_socket, pair.chat_id).await;
    let renewal = entries.iter().rfind(|entry| matches!(&entry.body, EntryBody::SessionIn(_))).unwrap();
    let seq = renewal.seq.get() as i64;
    pair.broker.kill();
    verify_url(pair.database.url(), &[]).await.good();

    // A server that has the identity key's help writes hashes that fit, in the chain too.
    let sibling = pair.bob.sibling();
    let mut other = pair.bob.clone();
    other.certificate.certificate.signing_public_key = sibling.certificate.certificate.signing_public_key;
    other.sign_certificate();
    let in_log = "UPDATE chat_events SET body = $1 WHERE seq = $2";
    let in_chain = "UPDATE user_events SET body = $1, hash = $2 WHERE user_id = $3 AND place = 2";
    let (log, chain, hash) = (
        rmp_serde::to_vec_named(&EntryBody::SessionIn(other.certificate.clone())).unwrap(),
        rmp_serde::to_vec_named(&other.certificate).unwrap(),
        UserEvent::Certificate(other.certificate.clone()).chain_hash(),
    );
    let damaged = pair.database.copy().await;
    let client = damaged.client().await;
    client.execute(in_log, &[&log, &seq]).await.unwrap();
    client.execute(in_chain, &[&chain, &hash.as_ref(), &pair.bob.user_id.0]).await.unwrap();
    rehash(&damaged, pair.chat_id).await;
    let called = verify_url(damaged.url(), &["--list", "50"]).await;
    assert_eq!(called.code, Some(1), "{}", called.table);
    assert_eq!(called.count("entry"), 1, "{}", called.table);
    assert_eq!(called.count("chain_entry"), 1, "{}", called.table);

    // The certificate of before once more: it is in the chain, and renews nothing.
    let log = rmp_serde::to_vec_named(&EntryBody::SessionIn(before)).unwrap();
    let damaged = pair.database.copy().await;
    damaged.client().await.execute(in_log, &[&log, &seq]).await.unwrap();
    rehash(&damaged, pair.chat_id).await;
    let called = verify_url(damaged.url(), &["--list", "50"]).await;
    assert_eq!((called.code, called.count("entry")), (Some(1), 1), "{}", called.table);
}
