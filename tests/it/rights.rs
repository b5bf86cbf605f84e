//! Rights, ownership, re-keying and the history policy; and that the server's rows are the fold of its own log.

use std::collections::BTreeSet;

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{ErrorCode, MissingReason};
use sealcast::protocol::fold::ChatFold;
use sealcast::protocol::frame::{self, Direction, Keys, Reply, Request};
use sealcast::protocol::ids::{ChatId, Epoch, Seq};
use sealcast::protocol::limits::{HISTORY_CHANGES_PER_DAY_MAX, REKEYS_PER_HOUR_MAX};
use sealcast::protocol::membership::{Change, HistoryPolicy, MembershipError};

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{View, change_membership, copy_for, history, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::rights::listed;

fn code<T: std::fmt::Debug>(result: Result<T, frame::Error>) -> ErrorCode {
    result.unwrap_err().code
}

#[tokio::test]
async fn rights_hold_from_the_answer_on() {
    let mut pair = Pair::start().await;
    let (ada, bob, chat_id) = (&pair.ada, &pair.bob, pair.chat_id);
    let mut packed = bob.connect_with(&pair.broker, Encoding::MessagePack).await;
    let carol = Device::register(&pair.broker, "carol").await;
    bob.say(&mut packed, chat_id, "as a writer").await.unwrap();
    assert_eq!(code(bob.set_rights(&mut packed, chat_id, ada, (false, false)).await), ErrorCode::CannotManage);
    assert_eq!(code(bob.rekey(&mut packed, chat_id).await), ErrorCode::CannotManage);
    assert_eq!(code(bob.set_history(&mut packed, chat_id, HistoryPolicy::Shared).await), ErrorCode::CannotManage);
    assert_eq!(code(bob.transfer(&mut packed, chat_id, ada).await), ErrorCode::NotOwner);

    let before = view(&mut pair.ada_socket, chat_id).await;
    ada.set_rights(&mut pair.ada_socket, chat_id, bob, (false, true)).await.unwrap();
    assert_eq!(code(bob.say(&mut packed, chat_id, "as a reader").await), ErrorCode::CannotWrite);
    let now = view(&mut packed, chat_id).await;
    assert_eq!((now.fold.epoch(), now.fold.roster_version()), (before.fold.epoch(), before.fold.roster_version()));
    // Who manages adds, may give what they lack themselves, and leaves the owner alone.
    bob.add(&mut packed, chat_id, &carol).await.unwrap();
    assert_eq!(code(bob.set_rights(&mut packed, chat_id, ada, (true, false)).await), ErrorCode::NotOwner);
    assert_eq!(code(bob.set_rights(&mut packed, chat_id, &carol, (true, false)).await), ErrorCode::Malformed);
    bob.set_rights(&mut packed, chat_id, bob, (true, true)).await.unwrap();
    bob.say(&mut packed, chat_id, "as a writer again").await.unwrap();
    let stranger = Device::register(&pair.broker, "dan").await;
    assert_eq!(code(bob.set_rights(&mut packed, chat_id, &stranger, (true, true)).await), ErrorCode::NotMember);
    assert_eq!(code(ada.transfer(&mut pair.ada_socket, chat_id, &stranger).await), ErrorCode::NotMember);
    assert_eq!(code(ada.transfer(&mut pair.ada_socket, chat_id, ada).await), ErrorCode::Malformed);
    // A manager steps down by their own will.
    bob.set_rights(&mut packed, chat_id, bob, (true, false)).await.unwrap();
    assert_eq!(code(bob.remove(&mut packed, chat_id, &carol).await), ErrorCode::CannotManage);
    agrees(&pair.database, chat_id, &view(&mut pair.ada_socket, chat_id).await.fold).await;
}

#[tokio::test]
async fn changes_in_a_minute_are_counted_but_for_those_that_take_somebody_out() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 4);
    let mut pair = Pair::start_on(database, settings).await;
    // Two were used up by the pair's chat.
    let (ada, bob, chat_id) = (&pair.ada, &pair.bob, pair.chat_id);
    ada.set_rights(&mut pair.ada_socket, chat_id, bob, (true, true)).await.unwrap();
    ada.rekey(&mut pair.ada_socket, chat_id).await.unwrap();
    let before = view(&mut pair.ada_socket, chat_id).await.seen;
    assert_eq!(code(ada.transfer(&mut pair.ada_socket, chat_id, bob).await), ErrorCode::RateLimited);
    assert_eq!(code(ada.rekey(&mut pair.ada_socket, chat_id).await), ErrorCode::RateLimited);
    let shared = ada.set_history(&mut pair.ada_socket, chat_id, HistoryPolicy::Shared).await;
    assert_eq!(code(shared), ErrorCode::RateLimited);
    assert_eq!(view(&mut pair.ada_socket, chat_id).await.seen, before);
    ada.remove(&mut pair.ada_socket, chat_id, bob).await.unwrap();
}

#[tokio::test]
async fn the_owner_leaves_after_a_transfer_alone() {
    let mut pair = Pair::start().await;
    let (ada, bob, chat_id) = (&pair.ada, &pair.bob, pair.chat_id);
    ada.set_rights(&mut pair.ada_socket, chat_id, bob, (false, false)).await.unwrap();
    assert_eq!(code(ada.leave(&mut pair.ada_socket, chat_id).await), ErrorCode::OwnerMustTransfer);
    let change = ada.change(&mut pair.ada_socket, chat_id, Change::Transfer, bob).await;
    let passed = change_membership(&mut pair.ada_socket, chat_id, change.clone()).await.unwrap();
    let again = change_membership(&mut pair.ada_socket, chat_id, change).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (passed.seq, true));
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!(now.fold.membership().owner_id, bob.user_id);
    agrees(&pair.database, chat_id, &now.fold).await;
    assert_eq!(code(ada.delete(&mut pair.ada_socket, chat_id).await), ErrorCode::NotOwner);
    // The new owner may write and manage, whatever they might before.
    bob.say(&mut pair.bob_socket, chat_id, "mine now").await.unwrap();
    ada.leave(&mut pair.ada_socket, chat_id).await.unwrap();
    agrees(&pair.database, chat_id, &view(&mut pair.bob_socket, chat_id).await.fold).await;
    bob.delete(&mut pair.bob_socket, chat_id).await.unwrap();
}

#[tokio::test]
async fn nothing_is_taken_from_who_lost_can_write_meanwhile() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    for _ in 0..5 {
        let now = view(&mut pair.bob_socket, chat_id).await;
        let mut key = pair.bob.sender_key(&now, chat_id);
        let mute =
            pair.ada.change_from(&now, chat_id, Change::SetRights { can_write: false, can_manage: false }, &pair.bob);
        let mut open = Vec::new();
        for index in 0..40 {
            let message = pair.bob.seal(&now, &mut key, format!("racing {index}").as_bytes());
            open.push(pair.bob_socket.send(Request::Send(Box::new(message))).await);
        }
        let muted = change_membership(&mut pair.ada_socket, chat_id, mute).await.unwrap().seq;
        let mut refusals = 0;
        for id in open {
            match pair.bob_socket.answer(id).await {
                Ok(Reply::Sent(sent)) => {
                    assert!(sent.seq < muted && refusals == 0, "{} was taken after {muted}", sent.seq);
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!(error.code, ErrorCode::CannotWrite);
                    refusals += 1;
                }
            }
        }
        assert_eq!(code(pair.bob.say(&mut pair.bob_socket, chat_id, "late").await), ErrorCode::CannotWrite);
        pair.ada.set_rights(&mut pair.ada_socket, chat_id, &pair.bob, (true, false)).await.unwrap();
    }
}

#[tokio::test]
async fn p5_after_a_rekey_no_older_key_is_accepted() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let mut now = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&now, chat_id);
    let message = pair.bob.seal(&now, &mut key, b"before");
    submit(&mut pair.bob_socket, message).await.unwrap();
    for _ in 0..REKEYS_PER_HOUR_MAX {
        pair.ada.rekey(&mut pair.ada_socket, chat_id).await.unwrap();
        let after = view(&mut pair.bob_socket, chat_id).await;
        assert_eq!(after.fold.epoch(), now.fold.epoch().next());
        assert_eq!(after.fold.roster_version(), now.fold.roster_version());
        agrees(&pair.database, chat_id, &after.fold).await;
        let message = pair.bob.seal(&after, &mut key.clone(), b"under the old key");
        let error = submit(&mut pair.bob_socket, message).await.unwrap_err();
        assert_eq!((error.code, error.details.unwrap().epoch), (ErrorCode::KeyStale, Some(after.fold.epoch())));
        key = pair.bob.sender_key(&after, chat_id);
        let message = pair.bob.seal(&after, &mut key, b"under the new one");
        submit(&mut pair.bob_socket, message).await.unwrap();
        now = after;
    }
    let error = pair.ada.rekey(&mut pair.ada_socket, chat_id).await.unwrap_err();
    let details = error.details.unwrap();
    assert_eq!((error.code, details.limit), (ErrorCode::LimitReached, Some(REKEYS_PER_HOUR_MAX)));
    assert!((3_500_000..=3_600_000).contains(&details.retry_after_ms.unwrap()), "{details:?}");
    assert_eq!(view(&mut pair.ada_socket, chat_id).await.fold.epoch(), now.fold.epoch());
    // Nobody is kept in by it: a removal makes the keys stale all the same.
    pair.ada.remove(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
    assert_eq!(view(&mut pair.ada_socket, chat_id).await.fold.epoch(), now.fold.epoch().next());
    // The window moves: once the first has left it, there is room for one. What is counted is what is written down.
    let age = "UPDATE chat_events SET created_at = created_at - interval '61 minutes' WHERE seq = \
         (SELECT min(seq) FROM chat_events WHERE change = 'rekey')";
    pair.database.client().await.batch_execute(age).await.unwrap();
    pair.ada.rekey(&mut pair.ada_socket, chat_id).await.unwrap();
    assert_eq!(code(pair.ada.rekey(&mut pair.ada_socket, chat_id).await), ErrorCode::LimitReached);
    let other = pair.ada.create_chat(&mut pair.ada_socket).await;
    pair.ada.rekey(&mut pair.ada_socket, other).await.unwrap();
}

#[tokio::test]
async fn a_shared_history_is_read_from_where_it_began() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let (carol, dan) = (Device::register(&pair.broker, "carol").await, Device::register(&pair.broker, "dan").await);
    let (mut carol_socket, mut dan_socket) =
        (carol.connect_live(&pair.broker).await, dan.connect_live(&pair.broker).await);
    let hidden = pair.ada.say(&mut pair.ada_socket, chat_id, "between us").await.unwrap();
    let shared = pair.ada.set_history(&mut pair.ada_socket, chat_id, HistoryPolicy::Shared).await.unwrap().seq;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let message = pair.ada.seal(&now, &mut key, b"for whoever comes");
    let open = submit(&mut pair.ada_socket, message).await.unwrap();

    let added = pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let after = view(&mut pair.ada_socket, chat_id).await;
    assert_eq!(after.fold.epoch(), now.fold.epoch(), "nobody lost anything");
    agrees(&pair.database, chat_id, &after.fold).await;
    let info = listed(&mut carol_socket, chat_id).await.unwrap();
    assert_eq!((info.readable_from, info.joined_seq), (shared, added.seq));
    for (direction, from) in [(Direction::After, Seq::default()), (Direction::Before, added.seq)] {
        let page = history(&mut carol_socket, chat_id, direction, from, 100).await.unwrap();
        assert_eq!((page.entries[0].seq, page.more), (shared, false), "{direction:?}");
        assert!(page.entries.iter().any(|entry| entry.seq == open.seq));
        assert!(page.entries.iter().all(|entry| entry.seq > hidden.seq));
        assert_eq!(page.keys.len(), 1);
        assert_eq!(page.keys[0].announcement, key.announcement);
        assert_eq!(page.keys[0].key, None, "she has no copy until somebody makes her one");
    }
    // The key goes on once she has her copy.
    let message = pair.ada.seal(&after, &mut key, b"with her");
    let error = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
    let details = error.details.unwrap();
    assert_eq!((error.code, details.reason), (ErrorCode::CopiesMissing, Some(MissingReason::NewMember)));
    assert_eq!((details.missing, details.seq), (vec![carol.session_id], Some(after.fold.roster_version())));
    let copy = copy_for(carol.session_id);
    let mut completed = message;
    completed.add_copies = vec![copy.clone()];
    submit(&mut pair.ada_socket, completed).await.unwrap();
    let key_ids = vec![key.announcement.announcement.key_id];
    let Reply::Keys(keys) = carol_socket.request(Request::Keys(Keys { chat_id, key_ids })).await.unwrap() else {
        panic!()
    };
    assert_eq!(keys.keys[0].key, Some(copy.key));
    // Another device of hers is a new session, and not a new member.
    let second = carol.linked(&pair.broker, &mut carol_socket).await;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let message = pair.ada.seal(&now, &mut key, b"without her phone");
    let details = submit(&mut pair.ada_socket, message).await.unwrap_err().details.unwrap();
    assert_eq!((details.missing, details.reason), (vec![second.session_id], Some(MissingReason::NewSession)));
    // A key that was sealed without having seen her joining lacks a new member.
    let mut fresh = pair.ada.sender_key(&now, chat_id);
    fresh.copies.retain(|copy| ![carol.session_id, second.session_id].contains(&copy.session_id));
    let blind = View { seen: after.seen, fold: now.fold.clone() };
    let message = pair.ada.seal(&blind, &mut fresh, b"as if she were not there");
    let details = submit(&mut pair.ada_socket, message).await.unwrap_err().details.unwrap();
    assert_eq!(details.reason, Some(MissingReason::NewSession), "it has seen her");
    let before_her = history(&mut pair.ada_socket, chat_id, Direction::Before, added.seq, 1).await.unwrap();
    let seen = &before_her.entries[0];
    let mut fresh = pair.ada.sender_key(&now, chat_id);
    fresh.copies.retain(|copy| ![carol.session_id, second.session_id].contains(&copy.session_id));
    let blind =
        View { seen: sealcast::protocol::envelope::Seen { seq: seen.seq, log_hash: seen.log_hash }, fold: now.fold };
    let message = pair.ada.seal(&blind, &mut fresh, b"as if she were not there");
    let details = submit(&mut pair.ada_socket, message).await.unwrap_err().details.unwrap();
    assert_eq!(details.reason, Some(MissingReason::NewMember));

    // From here on newcomers read nothing from before; who could still can.
    pair.ada.set_history(&mut pair.ada_socket, chat_id, HistoryPolicy::FromJoin).await.unwrap();
    let before = view(&mut pair.ada_socket, chat_id).await;
    let added = pair.ada.add(&mut pair.ada_socket, chat_id, &dan).await.unwrap();
    let after = view(&mut pair.ada_socket, chat_id).await;
    assert_eq!(after.fold.epoch(), before.fold.epoch().next());
    let info = listed(&mut dan_socket, chat_id).await.unwrap();
    assert_eq!((info.readable_from, info.joined_seq), (added.seq, added.seq));
    let page = history(&mut dan_socket, chat_id, Direction::After, Seq::default(), 1).await.unwrap();
    assert_eq!(page.entries[0].seq, added.seq);
    let page = history(&mut carol_socket, chat_id, Direction::After, Seq::default(), 1).await.unwrap();
    assert_eq!(page.entries[0].seq, shared);
    agrees(&pair.database, chat_id, &after.fold).await;

    let again = pair.ada.set_history(&mut pair.ada_socket, chat_id, HistoryPolicy::FromJoin).await;
    assert_eq!(code(again), ErrorCode::Malformed, "it is so already");
    let error = pair.ada.set_history(&mut pair.ada_socket, chat_id, HistoryPolicy::Shared).await.unwrap_err();
    let details = error.details.unwrap();
    assert_eq!((error.code, details.limit), (ErrorCode::LimitReached, Some(HISTORY_CHANGES_PER_DAY_MAX)));
    assert!((86_000_000..=86_400_000).contains(&details.retry_after_ms.unwrap()), "{details:?}");
    let age = "UPDATE chat_events SET created_at = created_at - interval '25 hours' WHERE change = 'set_history'";
    pair.database.client().await.batch_execute(age).await.unwrap();
    pair.ada.set_history(&mut pair.ada_socket, chat_id, HistoryPolicy::Shared).await.unwrap();
}

/// Compares what the server's rows say of a chat with the fold of its log.
pub async fn agrees(database: &Database, chat_id: ChatId, fold: &ChatFold) {
    let client = database.client().await;
    let statement = "SELECT epoch, roster_version, roster_hash, owner_id, change_no, change_hash, shared_since, \
         history_policy FROM chats WHERE id = $1";
    let row = client.query_one(statement, &[&chat_id.0]).await.unwrap();
    let membership = fold.membership();
    assert_eq!(row.get::<_, i64>(0) as u64, fold.epoch().get(), "epoch");
    assert_eq!(row.get::<_, i64>(1) as u64, fold.roster_version().get(), "roster version");
    assert_eq!(row.get::<_, &[u8]>(2), fold.roster_hash().as_ref(), "roster hash");
    assert_eq!(row.get::<_, uuid::Uuid>(3), membership.owner_id.0, "owner");
    assert_eq!(row.get::<_, i64>(4) as u64, membership.head.get(), "changes");
    assert_eq!(row.get::<_, &[u8]>(5), membership.hash.as_ref(), "hash of the changes");
    let shared_since = row.get::<_, Option<i64>>(6).map(|seq| seq as u64);
    assert_eq!(shared_since, membership.shared_since.map(Seq::get), "shared since");
    assert_eq!(row.get::<_, &str>(7), membership.history().as_str(), "history policy");
    let statement = "SELECT user_id, can_write, can_manage, joined_seq, readable_from FROM user_in_chat \
         WHERE chat_id = $1 ORDER BY user_id";
    let rows = client.query(statement, &[&chat_id.0]).await.unwrap();
    let stored: Vec<_> = rows
        .iter()
        .map(|row| (row.get::<_, uuid::Uuid>(0), row.get(1), row.get(2), row.get::<_, i64>(3), row.get::<_, i64>(4)))
        .collect();
    let folded: Vec<_> = membership
        .members
        .iter()
        .map(|(user_id, member)| {
            let (joined, readable) = (member.joined_seq.get() as i64, member.readable_from.get() as i64);
            (user_id.0, member.can_write, member.can_manage, joined, readable)
        })
        .collect();
    assert_eq!(stored, folded, "members");
}

/// Compares the owner that the server's rows name.
#[cfg(feature = "client")]
pub async fn agrees_on_owner(database: &Database, chat_id: ChatId, owner_id: sealcast::protocol::ids::UserId) {
    let owned = format!("SELECT count(*) FROM chats WHERE id = '{chat_id}' AND owner_id = '{owner_id}'");
    assert_eq!(database.count(&owned).await, 1);
}

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // Marsaglia's xorshift, and a multiplication to spread it: good enough to mix cases.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }
}

/// A user of the random sequences.
struct Player {
    device: Device,
    socket: Socket,
    /// Further sessions that are live.
    siblings: Vec<Device>,
}

fn expected(error: MembershipError) -> ErrorCode {
    match error {
        MembershipError::NotMember => ErrorCode::UnknownChat,
        MembershipError::CannotManage => ErrorCode::CannotManage,
        MembershipError::NotOwner => ErrorCode::NotOwner,
        MembershipError::OwnerMustTransfer => ErrorCode::OwnerMustTransfer,
        MembershipError::AlreadyMember => ErrorCode::AlreadyMember,
        MembershipError::TargetNotMember => ErrorCode::NotMember,
        MembershipError::Malformed | MembershipError::Unchanged => ErrorCode::Malformed,
        other => panic!("{other}"),
    }
}

fn any_change(dice: &mut Dice, now: &View) -> Change {
    match dice.roll(14) {
        0..=3 => Change::Add {
            can_write: dice.coin(),
            can_manage: dice.coin(),
            roster_hash: now.fold.roster_hash(),
            epoch: now.fold.epoch(),
        },
        4 | 5 => Change::Remove,
        6 => Change::Leave,
        7..=9 => Change::SetRights { can_write: dice.coin(), can_manage: dice.coin() },
        10 | 11 => Change::Transfer,
        12 => Change::Rekey,
        _ => Change::SetHistory { policy: if dice.coin() { HistoryPolicy::Shared } else { HistoryPolicy::FromJoin } },
    }
}

/// Whose log it is that everybody else's view is compared with: a member's.
async fn view_of_owner(players: &mut [Player], chat_id: ChatId, owner: usize) -> View {
    view(&mut players[owner].socket, chat_id).await
}

#[tokio::test]
async fn the_rows_are_the_fold_after_any_sequence_of_changes() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 10_000);
    let broker = Broker::start_with(settings.with("session.certificates_per_hour_max", 1_000)).await;
    let mut accepted = BTreeSet::new();
    for seed in [0x9e37_79b9_7f4a_7c15_u64, 0x2545_f491_4f6c_dd1d, 0xd1b5_4a32_d192_ed03] {
        let mut dice = Dice(seed);
        let mut players = Vec::new();
        for index in 0..5 {
            let device = Device::register(&broker, &format!("p{index}-{}", seed % 1_000)).await;
            let socket = device.connect_live(&broker).await;
            players.push(Player { device, socket, siblings: Vec::new() });
        }
        // Not the one who registered first: no rule may lean on the order of ids.
        let mut owner = players.len() - 1;
        let founder = &mut players[owner];
        let chat_id = founder.device.create_chat(&mut founder.socket).await;
        for _ in 0..60 {
            let now = view_of_owner(&mut players, chat_id, owner).await;
            let (actor, target) = (dice.roll(players.len()), dice.roll(players.len()));
            match dice.roll(16) {
                0 => {
                    let Player { device, socket, siblings } = &mut players[actor];
                    if siblings.len() < 3 {
                        siblings.push(device.linked(&broker, socket).await);
                    }
                }
                1 => {
                    let Player { device, socket, siblings } = &mut players[actor];
                    if let Some(sibling) = siblings.pop() {
                        device.revoke(socket, sibling.session_id).await.unwrap();
                    }
                }
                2 if players.len() > 2 && dice.coin() => {
                    let mut gone = players.remove(actor);
                    if now.fold.membership().members.len() == 1 && actor == owner {
                        players.insert(actor, gone);
                        continue;
                    }
                    let mut rule = now.fold.membership().clone();
                    let was_member = rule.delete_account(gone.device.user_id).is_ok();
                    gone.device.delete_account(&mut gone.socket).await.unwrap();
                    accepted.insert("delete_account");
                    let owner_id = rule.owner_id;
                    owner = players.iter().position(|player| player.device.user_id == owner_id).unwrap();
                    let after = view_of_owner(&mut players, chat_id, owner).await;
                    assert_eq!(after.fold.membership(), &rule);
                    let epoch = if was_member { now.fold.epoch().next() } else { now.fold.epoch() };
                    assert_eq!(after.fold.epoch(), epoch);
                }
                _ => {
                    let change = any_change(&mut dice, &now);
                    // Mostly what has a chance, now and then not.
                    let membership = now.fold.membership();
                    let is_member = |index: &usize| membership.members.contains_key(&players[*index].device.user_id);
                    let is_own = matches!(change, Change::Leave | Change::Rekey | Change::SetHistory { .. });
                    let actor = match change {
                        Change::Transfer if dice.roll(4) > 0 => owner,
                        Change::Leave => actor,
                        _ if dice.roll(4) > 0 => {
                            let manages = |index: &usize| {
                                let member = membership.members.get(&players[*index].device.user_id);
                                member.is_some_and(|member| member.can_manage)
                            };
                            let managers: Vec<usize> = (0..players.len()).filter(manages).collect();
                            managers[dice.roll(managers.len())]
                        }
                        _ => actor,
                    };
                    let target = match change {
                        _ if is_own && dice.roll(8) > 0 => actor,
                        Change::Remove | Change::SetRights { .. } | Change::Transfer if dice.roll(4) > 0 => {
                            let members: Vec<usize> = (0..players.len()).filter(is_member).collect();
                            members[dice.roll(members.len())]
                        }
                        _ => target,
                    };
                    let other = players[target].device.clone();
                    let Player { device, socket, .. } = &mut players[actor];
                    let signed = device.change_from(&now, chat_id, change, &other);
                    let verdict = now.fold.membership().check(&signed.change);
                    let name = signed.change.change.as_str();
                    match (verdict, change_membership(socket, chat_id, signed).await) {
                        (Ok(()), Ok(_)) => {
                            accepted.insert(name);
                        }
                        (Err(error), Err(refused)) => assert_eq!(refused.code, expected(error), "{name}: {error}"),
                        (Ok(()), Err(refused)) if matches!(name, "rekey" | "set_history") => {
                            assert_eq!(refused.code, ErrorCode::LimitReached, "{name}");
                        }
                        (verdict, answer) => panic!("{name}: {verdict:?} here, there {answer:?}"),
                    }
                    if name == "transfer" {
                        let owner_row = "SELECT owner_id FROM chats WHERE id = $1";
                        let row = database.client().await.query_one(owner_row, &[&chat_id.0]).await.unwrap();
                        let owner_id: uuid::Uuid = row.get(0);
                        owner = players.iter().position(|player| player.device.user_id.0 == owner_id).unwrap();
                    }
                }
            }
            let after = view_of_owner(&mut players, chat_id, owner).await;
            agrees(&database, chat_id, &after.fold).await;
            assert!(after.fold.epoch() >= now.fold.epoch() && after.fold.epoch() > Epoch::default());
            let gained = |session_id| !now.fold.recipients().contains_key(session_id);
            let lost = now.fold.recipients().keys().any(|id| !after.fold.recipients().contains_key(id));
            assert!(!lost || after.fold.epoch() > now.fold.epoch(), "P5: who lost something holds no current key");
            if after.fold.recipients().keys().any(gained) {
                assert!(after.fold.roster_version() > now.fold.roster_version());
            }
        }
    }
    let all =
        ["add", "delete_account", "leave", "rekey", "remove", "set_history", "set_rights", "transfer"].into_iter();
    assert_eq!(accepted, all.collect::<BTreeSet<_>>(), "a kind of change never came about");
}
