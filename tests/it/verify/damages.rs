//! What is done to a good database, and what must be found: by its own name, and nothing else but what it brings along.

use sealcast::verify::finding::Kind;

use Kind as K;

/// One damage.
pub struct Damage {
    /// What must be found.
    pub kind: Kind,
    /// What it brings along of necessity.
    pub beside: &'static [Kind],
    /// Whether the server that did it wrote hashes that fit.
    pub is_hashed: bool,
    pub sql: &'static str,
}

const fn damage(kind: Kind, beside: &'static [Kind], sql: &'static str) -> Damage {
    Damage { kind, beside, is_hashed: false, sql }
}

/// By a server that is wrong, and not by a foreign hand.
const fn hashed(kind: Kind, beside: &'static [Kind], sql: &'static str) -> Damage {
    Damage { kind, beside, is_hashed: true, sql }
}

pub const P2: &[Damage] = &[
    hashed(
        K::DuplicateRevision,
        &[],
        "ALTER TABLE chat_messages DROP CONSTRAINT chat_messages_chat_id_id_revision_key; \
         UPDATE chat_messages SET id = (SELECT id FROM chat_messages WHERE seq = {bobs}) WHERE seq = {kept}",
    ),
    hashed(K::RevisionGap, &[K::RevisionSignature], "UPDATE chat_messages SET revision = 7 WHERE seq = {edit_2}"),
    hashed(
        K::AfterDeletion,
        &[K::RevisionSignature, K::CounterGap],
        "UPDATE chat_messages SET kind = 'delete', key_id = NULL, counter = 0, data_hash = sha256('') WHERE seq = {edit_1}",
    ),
    hashed(
        K::NotTheirs,
        &[K::RevisionSignature, K::DataKept],
        "UPDATE chat_messages SET id = '{bobs_id}', kind = 'edit', revision = 1 WHERE seq = {last}",
    ),
    hashed(K::Shape, &[K::RevisionSignature], "UPDATE chat_messages SET kind = 'edit' WHERE seq = {kept}"),
];

pub const P3: &[Damage] = &[
    hashed(
        K::NotFounded,
        &[K::EventColumns],
        "UPDATE chat_events SET body = (SELECT body FROM chat_events WHERE seq = {last_change}) WHERE seq = 1",
    ),
    damage(K::SeqGap, &[K::DataMissing], "DELETE FROM chat_messages WHERE seq = {deletion}"),
    damage(
        K::SeqDouble,
        &[],
        "INSERT INTO chat_events (chat_id, seq, kind, change_no, created_at, body, log_hash, change) \
         SELECT chat_id, {kept}, kind, 999, created_at, body, log_hash, change FROM chat_events WHERE seq = 1",
    ),
    hashed(K::TimeBack, &[], "UPDATE chat_messages SET created_at = created_at - interval '1 day' WHERE seq = {kept}"),
    damage(K::LogHash, &[], "UPDATE chat_messages SET log_hash = sha256('') WHERE seq = {kept}"),
    damage(
        K::LogHash,
        &[],
        "UPDATE chat_messages SET sender_id = sender_id, seen_seq = seen_seq - 1 WHERE seq = {kept}",
    ),
    damage(K::Head, &[], "UPDATE chats SET last_seq = last_seq + 1"),
    damage(K::Head, &[], "UPDATE chats SET log_hash = sha256('')"),
    damage(K::Unreadable, &[], "UPDATE sender_keys SET announcement = '\\x00' WHERE key_id = '{key_a}'"),
    damage(K::Unreadable, &[], "UPDATE chats SET roster_version = -1"),
    damage(K::EventColumns, &[], "UPDATE chat_events SET change = 'rekey' WHERE seq = {bob_added}"),
    hashed(K::CounterGap, &[K::LastCounter], "UPDATE chat_messages SET counter = 9 WHERE seq = {last}"),
    damage(K::LastCounter, &[], "UPDATE sender_keys SET last_counter = last_counter + 1 WHERE key_id = '{key_a}'"),
    damage(K::LastCounter, &[], "UPDATE sender_keys SET last_counter = 0 WHERE key_id = '{key_g}'"),
    damage(K::FirstSeq, &[], "UPDATE sender_keys SET first_seq = first_seq + 1 WHERE key_id = '{key_g}'"),
    hashed(K::SeenAhead, &[], "UPDATE chat_messages SET seen_seq = seq WHERE seq = {kept}"),
    damage(K::Cursor, &[], "UPDATE session_cursors SET seq = seq + 1 WHERE session_id = '{bob_s}'"),
    damage(K::Cursor, &[], "INSERT INTO session_cursors VALUES ('{chat}', '{carol_s}', 1)"),
    damage(K::Cursor, &[], "INSERT INTO key_requests VALUES ('{chat}', '{key_a}', '{carol_s}')"),
];

pub const P4: &[Damage] = &[
    hashed(K::RosterHash, &[], "UPDATE chat_messages SET roster_hash = sha256('') WHERE seq = {kept}"),
    damage(K::Roster, &[], "UPDATE chats SET roster_version = roster_version - 1"),
    damage(K::Roster, &[], "UPDATE chats SET roster_hash = sha256('')"),
    damage(
        K::Recipients,
        &[K::SessionState],
        "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, certificate, state) \
         SELECT gen_random_uuid(), user_id, expired_at, public_key, signing_public_key, certificate, 'live' \
         FROM user_sessions WHERE id = '{bob_s}'",
    ),
    damage(K::Recipients, &[K::SessionState], "UPDATE user_sessions SET state = 'revoked' WHERE id = '{bob_s}'"),
    damage(
        K::Recipients,
        &[K::SessionColumns],
        "UPDATE user_sessions SET public_key = sha256('') WHERE id = '{bob_s}'",
    ),
    damage(K::Generation, &[], "UPDATE chats SET group_key_generation = 1"),
    damage(K::Generation, &[], "UPDATE chats SET generation_outdated = true"),
    damage(K::MemberKey, &[], "UPDATE user_in_chat SET user_key_id = NULL WHERE user_id = '{ada}'"),
    damage(K::GroupKey, &[], "DELETE FROM group_keys WHERE generation = 2"),
    damage(
        K::GroupKey,
        &[],
        "UPDATE group_keys SET encrypted_key = '\\x00' || substr(encrypted_key, 2) WHERE generation = 2",
    ),
    damage(K::ArchiveMissing, &[], "DELETE FROM sender_key_archives WHERE sender_key_id = '{key_h}'"),
    damage(K::ArchiveMissing, &[], "UPDATE sender_key_archives SET generation = 1"),
    damage(K::KeyMissing, &[], "DELETE FROM sender_keys WHERE key_id = '{key_b}'"),
    damage(
        K::CopyMissing,
        &[],
        "DELETE FROM vault_chat_sender_keys WHERE sender_key_id = '{key_h}' AND session_id = '{bob_s}'",
    ),
    damage(
        K::CopyMissing,
        &[],
        "DELETE FROM vault_chat_sender_keys WHERE sender_key_id = '{key_h}' AND session_id = '{bob_s}'; \
         UPDATE sender_keys SET covered_version = NULL",
    ),
    // Of an older epoch, with data that bob would like to read.
    damage(
        K::CopyMissing,
        &[],
        "DELETE FROM vault_chat_sender_keys WHERE sender_key_id = '{key_a}' AND session_id = '{bob_s}'",
    ),
    damage(
        K::CopyExtra,
        &[],
        "INSERT INTO vault_chat_sender_keys (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
         SELECT chat_id, sender_key_id, '{carol_s}', sender_session_id, key, uploaded_by_session_id \
         FROM vault_chat_sender_keys WHERE sender_key_id = '{key_h}' AND session_id = '{bob_s}'",
    ),
    // A member's session that expired: not under the key of now, though of one of its time.
    damage(
        K::CopyExtra,
        &[],
        "INSERT INTO vault_chat_sender_keys (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
         SELECT chat_id, sender_key_id, '{dora_s}', sender_session_id, key, uploaded_by_session_id \
         FROM vault_chat_sender_keys WHERE sender_key_id = '{key_g}' AND session_id = '{bob_s}'",
    ),
    damage(
        K::CopyExtra,
        &[],
        "INSERT INTO vault_chat_sender_keys (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
         SELECT chat_id, sender_key_id, '{carol_s}', sender_session_id, key, uploaded_by_session_id \
         FROM vault_chat_sender_keys WHERE sender_key_id = '{key_a}' AND session_id = '{bob_s}'",
    ),
    damage(
        K::CopyColumns,
        &[],
        "UPDATE vault_chat_sender_keys SET sender_session_id = '{bob_s}' WHERE sender_key_id = '{key_h}'",
    ),
];

pub const P5: &[Damage] = &[
    damage(K::KeyEpoch, &[K::Announcement], "UPDATE sender_keys SET epoch = epoch + 1 WHERE key_id = '{key_a}'"),
    // The last message is under a key from before the removal: what nobody may ever do.
    hashed(K::KeyEpoch, &[K::FirstSeq], "UPDATE chat_messages SET key_id = '{key_a}' WHERE seq = {last}"),
    damage(K::Epoch, &[], "UPDATE chats SET epoch = epoch + 1"),
    hashed(
        K::GhostSender,
        &[K::KeyOfAnother],
        "UPDATE chat_messages SET sender_id = '{carol}', sender_session_id = '{carol_s}' WHERE seq = {last}",
    ),
    hashed(
        K::CannotWrite,
        &[K::KeyOfAnother],
        "UPDATE chat_messages SET sender_id = '{dora}', sender_session_id = '{dora_s}' WHERE seq = {to_dora}",
    ),
    damage(
        K::Members,
        &[K::Recipients],
        "INSERT INTO user_in_chat (chat_id, user_id, can_write, can_manage, joined_seq, readable_from) \
         VALUES ('{chat}', '{carol}', true, true, 1, 1)",
    ),
    damage(
        K::Members,
        &[K::Recipients],
        "DELETE FROM user_in_chat WHERE user_id = '{erin}'; DELETE FROM session_cursors WHERE session_id = '{erin_s}'",
    ),
    damage(K::Rights, &[], "UPDATE user_in_chat SET can_write = true WHERE user_id = '{dora}'"),
    damage(K::Rights, &[], "UPDATE user_in_chat SET can_manage = false WHERE user_id = '{bob}'"),
    damage(K::Joined, &[], "UPDATE user_in_chat SET readable_from = 1 WHERE user_id = '{erin}'"),
    damage(K::Joined, &[], "UPDATE user_in_chat SET joined_seq = joined_seq + 1 WHERE user_id = '{bob}'"),
    damage(K::Owner, &[], "UPDATE chats SET owner_id = '{bob}'"),
    damage(K::History, &[], "UPDATE chats SET history_policy = 'from_join', shared_since = NULL"),
    damage(K::History, &[], "UPDATE chats SET shared_since = shared_since - 1"),
    damage(K::ChangeHead, &[], "UPDATE chats SET change_no = change_no - 1"),
    damage(K::ChangeHead, &[], "UPDATE chats SET change_hash = sha256('')"),
    damage(K::NextExpiry, &[], "UPDATE chats SET next_expiry = next_expiry + interval '1 day'"),
    damage(K::NextExpiry, &[], "UPDATE chats SET next_expiry = NULL"),
];

pub const P7: &[Damage] = &[
    hashed(
        K::Entry,
        &[K::ChangeHead, K::Rights],
        "UPDATE chat_events SET body = set_byte(body, length(body) - 1, get_byte(body, length(body) - 1) # 1) \
         WHERE seq = {last_change}",
    ),
    hashed(
        K::RevisionSignature,
        &[],
        "UPDATE chat_messages SET signature = set_byte(signature, 3, get_byte(signature, 3) # 1) WHERE seq = {edit_1}",
    ),
    hashed(
        K::RevisionSignature,
        &[],
        "UPDATE chat_messages SET signature = set_byte(signature, 3, get_byte(signature, 3) # 1) WHERE seq = {bobs_deletion}",
    ),
    damage(
        K::Announcement,
        &[],
        "UPDATE sender_keys SET announcement = set_byte(announcement, length(announcement) - 1, \
         get_byte(announcement, length(announcement) - 1) # 1) WHERE key_id = '{key_a}'",
    ),
    damage(K::Announcement, &[], "UPDATE sender_keys SET commitment = sha256('') WHERE key_id = '{key_h}'"),
    damage(
        K::KeyOfAnother,
        &[K::Announcement, K::CopyColumns, K::ArchiveMissing],
        "UPDATE sender_keys SET sender_session_id = '{bob_s}' WHERE key_id = '{key_h}'",
    ),
    damage(
        K::InfoKey,
        &[],
        "UPDATE vault_chat_info_keys SET signature = set_byte(signature, 3, get_byte(signature, 3) # 1)",
    ),
    damage(K::InfoKey, &[], "UPDATE vault_chat_info_keys SET key = set_byte(key, 3, get_byte(key, 3) # 1)"),
    damage(K::CopyRefusal, &[], "UPDATE refused_copies SET reason = 'commitment'"),
    damage(
        K::MemberIdentity,
        &[K::ChainEntry],
        "UPDATE users SET identity_public_key = (SELECT identity_public_key FROM users WHERE id = '{ada}') WHERE id = '{bob}'",
    ),
    damage(
        K::NotInChain,
        &[K::ChainHash],
        "UPDATE user_events SET hash = sha256('') WHERE user_id = '{bob}' AND place = 2",
    ),
    damage(
        K::ChainEntry,
        &[K::ChainHash],
        "UPDATE user_events SET body = set_byte(body, length(body) - 1, get_byte(body, length(body) - 1) # 1) \
         WHERE user_id = '{bob}' AND kind = 'revocation'",
    ),
    damage(K::ChainEntry, &[K::NotInChain], "DELETE FROM user_events WHERE user_id = '{bob}' AND place = 2"),
    damage(K::ChainHash, &[K::NotInChain], "UPDATE user_events SET hash = sha256('') WHERE user_id = '{carol}'"),
    damage(K::ChainColumns, &[], "UPDATE user_events SET session_id = '{ada_s}' WHERE user_id = '{bob}' AND place = 1"),
    damage(K::ChainHead, &[], "UPDATE users SET chain_place = chain_place + 1 WHERE id = '{bob}'"),
    damage(K::ChainHead, &[], "UPDATE users SET chain_hash = sha256('') WHERE id = '{bob}'"),
    damage(K::AccountEnd, &[], "INSERT INTO retired_usernames (username) VALUES ('ada')"),
    damage(K::AccountEnd, &[K::NotInChain], "DELETE FROM user_events WHERE user_id = '{dan}' AND kind = 'deletion'"),
    damage(
        K::SessionColumns,
        &[],
        "UPDATE user_sessions SET certificate = (SELECT certificate FROM user_sessions WHERE id = '{ada_s}') \
         WHERE id = '{carol_s}'",
    ),
    damage(K::SessionColumns, &[], "UPDATE user_sessions SET signing_public_key = sha256('') WHERE id = '{carol_s}'"),
    damage(K::SessionState, &[], "UPDATE user_sessions SET state = 'expired' WHERE id = '{tablet_s}'"),
    damage(K::SessionState, &[], "UPDATE user_sessions SET state = 'expired' WHERE id = '{carol_s}'"),
    damage(K::SessionMissing, &[], "DELETE FROM user_sessions WHERE id = '{tablet_s}'"),
];

pub const P13: &[Damage] = &[
    damage(
        K::DataKept,
        &[K::DataHash, K::DataCount],
        "UPDATE chat_messages SET data = 'still here' WHERE seq = {edited}",
    ),
    damage(K::DataKept, &[K::DataHash], "UPDATE chat_messages SET data = 'still here' WHERE seq = {deletion}"),
    damage(K::DataMissing, &[K::DataCount], "UPDATE chat_messages SET data = NULL WHERE seq = {kept}"),
    damage(K::DataHash, &[], "UPDATE chat_messages SET data = 'another' WHERE seq = {kept}"),
    hashed(K::DataHash, &[], "UPDATE chat_messages SET data_hash = sha256('') WHERE seq = {kept}"),
    damage(
        K::DataCount,
        &[],
        "UPDATE sender_keys SET messages_with_data = messages_with_data + 1 WHERE key_id = '{key_a}'",
    ),
    damage(
        K::DataCount,
        &[],
        "UPDATE sender_keys SET messages_with_data = messages_with_data + 1 WHERE key_id = '{key_h}'",
    ),
];
