//! A long log: how much memory and time its verification takes.

use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

use sealcast::protocol::log::{EntryBody, next_entry};
use sealcast::store::rows::system_time;

use super::super::messages::Pair;
use super::super::support::broker::executable;
use super::super::support::chat::{submit, view};
use super::super::support::trials;

/// Messages that are written at once.
const BATCH: usize = 1_000;

/// What a verification may take above the program itself, in MiB: less than the messages of the long log would.
const ROOM_MIB: u64 = 60;

/// Writes messages behind a chat's log as its broker would: it would take too long itself.
async fn prolong(pair: &mut Pair, messages: usize) {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let first = pair.ada.seal(&now, &mut key, b"the first");
    let sent = submit(&mut pair.ada_socket, first).await.unwrap();
    pair.broker.kill();
    let client = pair.database.client().await;
    let (mut seq, mut hash) = (sent.seq, sent.log_hash);
    let insert = "INSERT INTO chat_messages (chat_id, seq, id, revision, kind, sender_id, sender_session_id, key_id, counter, \
         created_at, roster_hash, seen_seq, seen_log_hash, data, data_hash, signature, log_hash) \
         SELECT $1, n.seq, n.id, 0, 'message', m.sender_id, m.sender_session_id, m.key_id, n.counter, $6, m.roster_hash, \
             m.seen_seq, m.seen_log_hash, m.data, m.data_hash, n.signature, n.log_hash \
         FROM unnest($2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[], $7::bigint[]) \
             AS n (seq, id, signature, log_hash, counter) CROSS JOIN (SELECT * FROM chat_messages WHERE chat_id = $1) m";
    let statement =
        client.prepare(&insert.replace("WHERE chat_id = $1)", "WHERE chat_id = $1 ORDER BY seq LIMIT 1)")).await;
    let statement = statement.unwrap();
    let mut left = messages;
    while left > 0 {
        let (mut seqs, mut ids, mut counters) = (Vec::new(), Vec::new(), Vec::new());
        let (mut signatures, mut hashes) = (Vec::new(), Vec::new());
        for _ in 0..left.min(BATCH) {
            let sealed = pair.ada.seal(&now, &mut key, b"the first").envelope;
            let (id, signature) = (sealed.message_id.0, sealed.signature.as_ref().to_vec());
            counters.push(i64::try_from(sealed.counter.get()).unwrap());
            let entry = next_entry(pair.chat_id, seq, &hash, sent.created_at, EntryBody::Message(sealed));
            (seq, hash) = (entry.seq, entry.log_hash);
            seqs.push(i64::try_from(seq.get()).unwrap());
            ids.push(id);
            signatures.push(signature);
            hashes.push(hash.as_ref().to_vec());
        }
        left -= seqs.len();
        let at = system_time(sent.created_at);
        client
            .execute(&statement, &[&pair.chat_id.0, &seqs, &ids, &signatures, &hashes, &at, &counters])
            .await
            .unwrap();
    }
    let last = i64::try_from(seq.get()).unwrap();
    let heads = "UPDATE chats SET last_seq = $2, log_hash = $3 WHERE id = $1";
    client.execute(heads, &[&pair.chat_id.0, &last, &hash.as_ref()]).await.unwrap();
    let counter = i64::try_from(key.counter).unwrap();
    let keys = "UPDATE sender_keys SET last_counter = $2, messages_with_data = $2 WHERE chat_id = $1";
    client.execute(keys, &[&pair.chat_id.0, &counter]).await.unwrap();
    client.batch_execute("ANALYZE").await.unwrap();
}

#[tokio::test]
async fn p12_however_long_a_log_is_its_verification_takes_no_more_memory() {
    let mut pair = Pair::start().await;
    let messages = trials(20_000, 1_000_000);
    prolong(&mut pair, messages).await;
    let began = Instant::now();
    let mut command = tokio::process::Command::new(executable());
    command.arg("verify").env("SEALCAST__DATABASE__URL", pair.database.url()).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id().unwrap());
    let output = tokio::spawn(child.wait_with_output());
    let (mut peak, mut least) = (0, u64::MAX);
    while !output.is_finished() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let resident =
            text.lines().find(|line| line.starts_with("VmRSS:")).and_then(|line| line.split_whitespace().nth(1));
        if let Some(resident) = resident.and_then(|kib| kib.parse::<u64>().ok()) {
            (peak, least) = (peak.max(resident / 1024), least.min(resident / 1024));
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let output = output.await.unwrap().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    let line = table.lines().find(|line| line.starts_with("  messages")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some((messages + 1).to_string().as_str()), "{table}");
    let seconds = began.elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "{messages} messages in {seconds:.1} s, from {least} to {peak} MiB");
    assert!(peak <= least + ROOM_MIB, "{peak} MiB after {least} MiB");
}
