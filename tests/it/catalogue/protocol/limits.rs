//! W16, W18: numbers of requests, and every documented limit with the test that meets it at the limit and one above.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{AdvanceCursor, ListMembers, Nothing, Reply, Request, ServerFrame};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::limits::{NESTING_MAX, UNREAD_SCANNED_MAX};
use tokio_tungstenite::tungstenite::Message;

use super::super::super::messages::Pair;
use super::super::super::support::chat::{history, submit, view};
use super::super::super::support::device::Socket;
use super::{unharmed, unhurried};
use crate::support::database::Database;
use sealcast::protocol::frame::Direction;

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

/// Test files, by the module that they are.
const FILES: &[(&str, &str)] = &[
    ("accounts", include_str!("../../accounts.rs")),
    ("attacks", include_str!("../../attacks.rs")),
    ("backups::requests", include_str!("../../backups/requests.rs")),
    ("chains", include_str!("../../chains.rs")),
    ("copies", include_str!("../../copies.rs")),
    ("deliveries", include_str!("../../deliveries.rs")),
    ("friends::attacks", include_str!("../../friends/attacks.rs")),
    ("friends::inputs", include_str!("../../friends/inputs.rs")),
    ("generations::archives", include_str!("../../generations/archives.rs")),
    ("generations::links", include_str!("../../generations/links.rs")),
    ("generations::refused", include_str!("../../generations/refused.rs")),
    ("here", include_str!("limits.rs")),
    ("history::pages", include_str!("../../history/pages.rs")),
    ("info", include_str!("../../info.rs")),
    ("labels", include_str!("../../labels.rs")),
    ("limits", include_str!("../../limits.rs")),
    ("messages", include_str!("../../messages.rs")),
    ("profiles", include_str!("../../profiles.rs")),
    ("passwords::change", include_str!("../../passwords/change.rs")),
    ("passwords::inputs", include_str!("../../passwords/inputs.rs")),
    ("passwords::limits", include_str!("../../passwords/limits.rs")),
    ("passwords::replays", include_str!("../../passwords/replays.rs")),
    ("reading", include_str!("../../reading.rs")),
    ("resources", include_str!("../resources.rs")),
    ("rights", include_str!("../../rights.rs")),
    ("secrets::read", include_str!("../../secrets/read.rs")),
    ("secrets::requests", include_str!("../../secrets/requests.rs")),
    ("sessions", include_str!("../../sessions.rs")),
    ("signals", include_str!("../../signals.rs")),
    ("src::generations", include_str!("../../../../src/client/chat/generation_tests.rs")),
    ("src::signals", include_str!("../../../../src/client/chat/signals_tests.rs")),
    ("src::staging", include_str!("../../../../src/broker/chat/staging.rs")),
];

/// Each documented limit, as the document names it, with the tests that meet it, separated by spaces.
const TESTED: &[(&str, &str)] = &[
    (
        "one message from a client on the socket",
        "limits::a_frame_of_the_limit_is_read_and_one_byte_more_ends_the_connection",
    ),
    ("data of a message, nonce and tag included", "limits::sizes_of_messages_and_copies"),
    (
        "copies in one frame; parts of a staged list; seconds that it is kept",
        "limits::sizes_of_messages_and_copies limits::parts_of_a_staged_list \
         src::staging::parts_in_any_order_make_the_list_and_only_its_hash_opens_it",
    ),
    ("copies of a staged list", "limits::parts_of_a_staged_list"),
    ("attachments of a message (none now)", "limits::sizes_of_messages_and_copies"),
    ("cursors in one `resume`", "limits::cursors_keys_and_pages"),
    ("entries of a page; bytes of data after which it ends early", "limits::cursors_keys_and_pages"),
    ("sealed name", "limits::names_info_keys_and_hand_overs"),
    ("sealed description", "info::what_must_not_be_saved_is_refused_and_changes_nothing"),
    (
        "info-key wraps in one request: for one user; for a chat, and sessions in one `info_key_requested`",
        "limits::names_info_keys_and_hand_overs info::what_must_not_be_saved_is_refused_and_changes_nothing",
    ),
    (
        "sealed name and email of a profile; its sealed description",
        "profiles::what_must_not_be_saved_is_refused_and_changes_nothing",
    ),
    (
        "wraps of a user's info key in one request, and sessions in one `profile_key_requested`",
        "profiles::what_must_not_be_saved_is_refused_and_changes_nothing",
    ),
    ("hand-over", "limits::names_info_keys_and_hand_overs"),
    (
        "key ids in one `keys` or `request_keys`",
        "limits::cursors_keys_and_pages copies::who_may_not_hand_on_is_refused_and_nothing_is_stored \
         copies::a_session_may_lack_so_many_keys_at_once_and_no_more",
    ),
    (
        "data of a signal, nonce and tag included; seconds of its age",
        "signals::a_signal_of_the_limit_passes_and_one_byte_more_does_not src::signals::a_signal_of_another_time_is_not_heard",
    ),
    ("sealed name of a session", "labels::a_name_of_the_limit_is_kept_and_one_byte_more_is_not"),
    (
        "recipients of a chat in which `delivered` is pushed",
        "deliveries::in_a_chat_above_the_limit_nobody_is_told_and_the_list_still_says",
    ),
    (
        "unread messages counted in a list; among so many",
        "reading::the_server_counts_messages_of_others_after_the_cursor_up_to_a_bound \
         here::w18_unread_messages_are_looked_for_among_so_many_entries_and_no_more",
    ),
    ("users in one `user_events`; entries in its answer", "chains::chains_are_read_by_anybody_in_pages_and_verify"),
    ("copies in one `upload_copies`", "copies::who_may_not_hand_on_is_refused_and_nothing_is_stored"),
    (
        "keys that a session may have asked for and not got",
        "copies::a_session_may_lack_so_many_keys_at_once_and_no_more",
    ),
    (
        "backups in one request, and of one session",
        "backups::requests::p10_backups_that_are_not_in_order_are_refused_and_nothing_is_stored",
    ),
    (
        "refusals of copies by one session in an hour that change something",
        "copies::p4_a_liar_voids_ten_copies_an_hour_and_stops_nobody",
    ),
    (
        "key ids in one `fetch_archives`; group keys in one answer",
        "generations::archives::p8_members_read_archives_of_what_they_may_read_and_they_go_with_the_data \
         history::pages::group_keys_come_in_pages",
    ),
    (
        "links between generations in one request or answer",
        "generations::links::p10_links_are_taken_within_one_shared_stretch_alone_once_and_from_members",
    ),
    (
        "user keys of a chat's members up to which it has a group key",
        "src::generations::a_chat_with_more_user_keys_than_fit_in_a_frame_has_no_group_key",
    ),
    (
        "refusals of generations by one user in an hour",
        "generations::refused::a_member_refuses_a_bad_generation_and_nobody_is_stopped_by_one_who_refuses_them_all",
    ),
    ("username", "limits::usernames_and_bodies_over_http"),
    ("HTTP body", "limits::usernames_and_bodies_over_http"),
    ("nesting", "here::w18_nesting_is_followed_to_the_limit_and_no_further"),
    (
        "pending sessions of a user that were linked; that logins made",
        "limits::pending_sessions_of_a_user \
         passwords::replays::pending_sessions_of_logins_are_bounded_and_their_ids_their_own",
    ),
    (
        "user keys of a user; new ones in a day",
        "passwords::inputs::p10_strongboxes_that_are_none_are_refused_and_change_nothing \
         passwords::change::a_password_or_a_set_of_keys_that_is_not_current_is_refused",
    ),
    ("users blocked by one user", "accounts::blocks_are_listed_bounded_and_about_others"),
    (
        "friends who hold shares of one code, and users in one `fetch_user_keys`; shares that recover, at least",
        "friends::inputs::shares_that_are_none_are_refused_and_change_nothing \
         friends::inputs::a_stranger_gives_and_gets_nothing",
    ),
    ("what is given to a request", "friends::inputs::a_stranger_gives_and_gets_nothing"),
    (
        "requests for recovery of one user that are open (a newer one ends the oldest of those to which nothing was given); \
         days that each is kept",
        "friends::attacks::requests_of_one_name_are_bounded_and_those_that_friends_helped_stay \
         friends::attacks::a_request_that_is_replayed_is_the_same_and_takes_no_other_key",
    ),
    ("cancellations by a session alone", "friends::inputs::a_session_alone_cancels_once"),
    (
        "`rekey` of a chat in an hour; changes of its history policy in a day",
        "rights::p5_after_a_rekey_no_older_key_is_accepted rights::a_shared_history_is_read_from_where_it_began",
    ),
    (
        "secrets of a chat; in one answer to `list_secrets`",
        "secrets::requests::p10_secrets_of_a_chat_their_writes_in_a_minute_and_the_log_of_them_are_bounded_and_paged",
    ),
    (
        "sealed name of a secret; sealed value",
        "secrets::requests::p10_what_is_no_revision_of_a_secret_is_refused_and_changes_nothing \
         secrets::read::p10_names_and_values_of_the_limits_are_kept_and_one_byte_more_is_not",
    ),
    (
        "entries of the log of secrets; in one answer to `fetch_secret_log`",
        "secrets::requests::p10_secrets_of_a_chat_their_writes_in_a_minute_and_the_log_of_them_are_bounded_and_paged",
    ),
    (
        "secrets of one chat that one user makes, changes or deletes in a minute",
        "secrets::requests::p10_secrets_of_a_chat_their_writes_in_a_minute_and_the_log_of_them_are_bounded_and_paged",
    ),
    (
        "`server.login_timeout_s`, `server.ping_interval_s`, `server.stalled_timeout_s`",
        "limits::a4_a_silent_socket_is_closed_at_the_login_limit \
         limits::w12_who_answers_no_ping_is_closed_and_who_does_is_not limits::w13_who_takes_nothing_of_what_waits_is_cut",
    ),
    ("`server.connections_max`", "limits::connections_of_the_process"),
    (
        "`chat.in_flight_max`: messages of one chat before their commit",
        "limits::messages_on_their_way_in_a_chat_and_in_a_lane",
    ),
    ("`chat.members_max`", "limits::chats_of_a_user_and_members_of_a_chat"),
    ("`session.lifetime_max_s`", "limits::the_longest_life_of_a_session"),
    ("`session.live_max`: live sessions of a user", "limits::sessions_and_certificates_of_a_user"),
    ("`session.certificates_per_hour_max`", "limits::sessions_and_certificates_of_a_user"),
    ("`session.chats_max`: chats of a user", "limits::chats_of_a_user_and_members_of_a_chat"),
    ("`session.pending_s`: wait of a pending session", "sessions::a_pending_session_that_nobody_approves_is_forgotten"),
    (
        "`password.login_s`: seconds from a login's begin to its end",
        "passwords::replays::a12_a_login_that_takes_too_long_is_refused_and_forgotten",
    ),
    (
        "`password.tries_per_hour`: logins begun for one name from one address",
        "passwords::limits::a11_guesses_at_one_user_are_held_up_and_the_user_from_elsewhere_is_not",
    ),
    (
        "`password.tries_per_hour_user`: for one name from anywhere",
        "passwords::limits::a11_guesses_at_one_user_from_everywhere_are_bounded",
    ),
    (
        "`password.tries_per_hour_address`: from one address",
        "passwords::limits::a11_one_guess_each_at_many_users_is_held_up_by_the_address",
    ),
    ("`keys.messages_max`, `keys.messages_max_large`, `keys.recipients_large`", "limits::the_life_of_a_sender_key"),
    ("`keys.age_max_s`", "limits::the_life_of_a_sender_key"),
    ("`limits.requests_per_s`, `limits.requests_burst`: of one connection", "limits::requests_of_one_connection"),
    (
        "`limits.membership_changes_per_minute`: chats made or named anew, profiles saved and membership changes by one connection, but `remove` and `leave`",
        "limits::membership_changes_in_a_minute",
    ),
    ("`limits.signals_per_s`, `limits.signals_burst`: of one connection", "signals::signals_have_a_rate_of_their_own"),
    (
        "`limits.outbox_frames_max`, `limits.outbox_bytes_max`",
        "messages::p9_a_reader_that_stops_reading_slows_nobody_and_misses_nothing",
    ),
    (
        "`limits.outboxes_bytes_max`: of all connections together",
        "resources::l12_a_thousand_clients_that_do_not_read_fit_in_256_mib",
    ),
];

#[test]
fn w18_every_documented_limit_has_a_test_that_is_there() {
    let (_, section) = DOCUMENT.split_once("\n## 17. Limits\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")).map(|row| row.split_once(" | ").unwrap().0);
    let documented: Vec<&str> = rows.filter(|name| !["limit", "setting"].contains(name)).collect();
    let tested: Vec<&str> = TESTED.iter().map(|(name, _)| *name).collect();
    assert_eq!(tested, documented, "each documented limit, in the order of the document");
    for (name, tests) in TESTED {
        for test in tests.split_whitespace() {
            let (module, function) = test.rsplit_once("::").unwrap();
            let (_, source) = FILES.iter().find(|(file, _)| *file == module).unwrap();
            assert!(source.contains(&format!("fn {function}()")), "{name}: {test}");
        }
    }
}

/// Answered, or unreadable.
async fn is_read(socket: &mut Socket, message: Message) -> bool {
    socket.send_raw(message).await;
    socket
        .push_that(|push| match push {
            ServerFrame::Ok(_) => Some(true),
            ServerFrame::Error(error) => {
                assert_eq!(error.code, ErrorCode::Malformed);
                Some(false)
            }
            _ => None,
        })
        .await
}

#[tokio::test]
async fn w18_nesting_is_followed_to_the_limit_and_no_further() {
    const JSON_NESTING_MAX: usize = 127;
    let pair = Pair::start().await;
    let nested = |levels: usize| [b"\x91".repeat(levels), vec![0xc0]].concat();
    let ping = b"\xa7request\x82\xa4type\xa4ping\xa4data\x80".as_slice();
    let mut socket = pair.ada.connect_with(&pair.broker, Encoding::MessagePack).await;
    for (levels, expected) in [(1, true), (NESTING_MAX - 1, true), (NESTING_MAX, false), (NESTING_MAX + 1, false)] {
        // The frame's own map is the first level.
        let frame = [b"\x83\xa2id\x07\xa1x", nested(levels).as_slice(), ping].concat();
        assert_eq!(is_read(&mut socket, Message::binary(frame)).await, expected, "{levels}");
    }
    let mut socket = pair.ada.connect(&pair.broker).await;
    for (levels, expected) in [(1, true), (JSON_NESTING_MAX - 3, true), (JSON_NESTING_MAX - 2, false)] {
        // Three maps are around it. What stands before `type` is followed; elsewhere an unknown field is passed over.
        let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let text = format!("{{\"id\":7,\"request\":{{\"data\":{{\"x\":{nested}}},\"type\":\"ping\"}}}}");
        assert_eq!(is_read(&mut socket, Message::text(text)).await, expected, "{levels}");
    }
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    unharmed(&pair.broker).await;
}

#[tokio::test]
async fn w18_unread_messages_are_looked_for_among_so_many_entries_and_no_more() {
    let database = Database::create().await;
    let settings = unhurried(&database).with("keys.messages_max", 10_000);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut bobs_key = pair.bob.sender_key(&now, pair.chat_id);
    // Ada's message, as many of Bob's own as are looked through, and another one of Ada's.
    let first = pair.ada.seal(&now, &mut key, b"first");
    let first = submit(&mut pair.ada_socket, first).await.unwrap();
    assert!(history(&mut pair.bob_socket, pair.chat_id, Direction::After, first.seq, 1).await.is_ok());
    let mut open = Vec::new();
    for _ in 0..UNREAD_SCANNED_MAX {
        let message = pair.bob.seal(&now, &mut bobs_key, b"own");
        open.push(pair.bob_socket.send(Request::Send(Box::new(message))).await);
        if open.len() == 32 {
            for id in open.drain(..) {
                pair.bob_socket.answer(id).await.unwrap();
            }
        }
    }
    for id in open {
        pair.bob_socket.answer(id).await.unwrap();
    }
    let last = pair.ada.seal(&now, &mut key, b"last");
    submit(&mut pair.ada_socket, last).await.unwrap();
    for (seq, unread) in [(first.seq.get() - 1, 1), (first.seq.get(), 0), (first.seq.get() + 1, 1)] {
        let seq = sealcast::protocol::ids::Seq::saturating(seq);
        let advance = AdvanceCursor { chat_id: pair.chat_id, seq };
        pair.bob_socket.request(Request::AdvanceCursor(advance)).await.unwrap();
        let Reply::Chats(chats) = pair.bob_socket.request(Request::ListChats(Nothing {})).await.unwrap() else {
            panic!()
        };
        assert_eq!(chats.chats[0].unread, unread, "after {seq}");
    }
}

#[tokio::test]
async fn w16_a_number_of_a_megabyte_ends_the_connection_and_a_missing_one_does_not() {
    let pair = Pair::start().await;
    for encoding in Encoding::ALL {
        let mut socket = pair.ada.connect_with(&pair.broker, encoding).await;
        let (missing, huge) = match encoding {
            Encoding::Json => {
                let ping = "\"request\":{\"type\":\"ping\",\"data\":{}}";
                let huge = format!("{{\"id\":{},{ping}}}", "9".repeat(1 << 20));
                (Message::text(format!("{{{ping}}}")), Message::text(huge))
            }
            Encoding::MessagePack => {
                let ping = b"\xa7request\x82\xa4type\xa4ping\xa4data\x80".as_slice();
                let head = [b"\x82\xa2id\xc6".as_slice(), &(1_u32 << 20).to_be_bytes()].concat();
                let huge = [head, vec![9; 1 << 20], ping.to_vec()].concat();
                (Message::binary([b"\x81", ping].concat()), Message::binary(huge))
            }
        };
        // Without a number there is an answer without one, and the next request has its own.
        assert!(!is_read(&mut socket, missing).await);
        let unknown = Request::ListMembers(ListMembers { chat_id: ChatId::generate() });
        assert_eq!(socket.request(unknown).await.unwrap_err().code, ErrorCode::UnknownChat);
        socket.send_raw(huge).await;
        assert_eq!(socket.close_code().await, Some(CloseCode::TooLarge.number()), "{encoding:?}");
    }
    let mut socket = pair.ada.connect(&pair.broker).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    unharmed(&pair.broker).await;
}
