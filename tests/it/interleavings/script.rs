//! What a device does: one step after the other, each drawn, while all others do the same.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{ClientError, SendError};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, MessageId};

use super::super::support::rng::Rng;
use super::super::support::within;
use super::devices::{Device, Stay};
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Say,
    Edit,
    Delete,
    Add,
    Remove,
    Leave,
    Rekey,
    /// One more device of the user comes, and acts on its own.
    Link,
    /// The same, with a session that runs out in a moment.
    Guest,
    /// Another device of the user is revoked.
    Revoke,
    Renew,
    Reconnect,
}

/// Each step as often as it comes in so many.
const STEPS: [(Step, u64); 12] = [
    (Step::Say, 14),
    (Step::Edit, 2),
    (Step::Delete, 1),
    (Step::Add, 5),
    (Step::Remove, 4),
    (Step::Leave, 1),
    (Step::Rekey, 1),
    (Step::Link, 2),
    (Step::Guest, 1),
    (Step::Revoke, 2),
    (Step::Renew, 1),
    (Step::Reconnect, 1),
];

/// How long a guest's session lives.
const GUEST_LIFE: Duration = Duration::from_millis(900);

/// Pauses between steps, at most: they make orders differ that would otherwise be the same.
const PAUSE_MICROS: u64 = 6_000;

fn draw(rng: &mut Rng) -> Step {
    let mut at = rng.below(STEPS.iter().map(|(_, weight)| weight).sum());
    for (step, weight) in STEPS {
        match at.checked_sub(weight) {
            None => return step,
            Some(rest) => at = rest,
        }
    }
    Step::Say
}

/// Whether it may come to this where everybody acts at the same time and nobody lies.
fn may_be(error: &ClientError, step: Step, stay: Stay) -> bool {
    match error {
        ClientError::UnknownChat
        | ClientError::AlreadyMember
        | ClientError::NotMember
        | ClientError::Closed(_)
        | ClientError::Conflict
        | ClientError::TooManySessions { .. }
        // Who approves may be revoked before the device that waits has asked for what it left.
        | ClientError::NoSuchPending
        // What the password opens was sealed anew by another device between the beginning and the end of the login.
        | ClientError::LoginFailed => true,
        // What it signs when its time has just run out, and a guest whose time ran out on the way.
        ClientError::Refused { code: ErrorCode::BadCertificate, .. } => stay == Stay::Guest || step == Step::Guest,
        ClientError::Refused { code, .. } => matches!(
            code,
            ErrorCode::UnknownChat
                | ErrorCode::CannotManage
                | ErrorCode::AlreadyMember
                | ErrorCode::NotMember
                | ErrorCode::OwnerMustTransfer
                | ErrorCode::NotOwner
                | ErrorCode::LimitReached
                | ErrorCode::SessionRevoked
                // Another device was faster.
                | ErrorCode::UnknownSession
                | ErrorCode::SessionExpired
                | ErrorCode::Unauthenticated
        ),
        _ => false,
    }
}

fn may_be_sent(error: &SendError, stay: Stay) -> bool {
    match error {
        SendError::NotMember
        | SendError::NotRecipient
        | SendError::OutcomeUnknown
        | SendError::UnknownMessage
        | SendError::EditConflict { .. }
        | SendError::Closed(_) => true,
        // Its time ran out while the message was under way.
        SendError::Refused { code: ErrorCode::SessionExpired } => stay == Stay::Guest,
        SendError::Refused { code } => matches!(code, ErrorCode::UnknownChat | ErrorCode::UnknownMessage),
        _ => false,
    }
}

/// One device's part of a world.
pub struct Part {
    pub world: Arc<World>,
    pub device: Arc<Device>,
    pub rng: Rng,
    /// What it has said so far.
    pub said: Vec<(ChatId, MessageId)>,
}

impl Part {
    /// Does so many steps.
    pub async fn act(mut self, steps: u64) {
        for _ in 0..steps {
            tokio::time::sleep(Duration::from_micros(self.rng.below(PAUSE_MICROS))).await;
            let step = draw(&mut self.rng);
            let chat_id = self.rng.pick(&self.world.chats).unwrap();
            match step {
                Step::Say | Step::Edit | Step::Delete => {
                    if let Err(error) = within("a send", self.send(step, chat_id)).await {
                        assert!(
                            may_be_sent(&error, self.device.stay),
                            "{step:?} by {:?} in {chat_id}: {error}",
                            self.device.stay
                        );
                    }
                }
                _ => {
                    if let Err(error) = within("a step", self.change(step, chat_id)).await {
                        assert!(
                            may_be(&error, step, self.device.stay),
                            "{step:?} by {:?} in {chat_id}: {error}",
                            self.device.stay
                        );
                    }
                }
            }
        }
    }

    async fn send(&mut self, step: Step, chat_id: ChatId) -> Result<(), SendError> {
        let client = &self.device.client;
        let own = self.rng.pick(&self.said);
        match (step, own) {
            (Step::Edit, Some((chat_id, message_id))) => {
                client.edit(chat_id, message_id, &self.world.text(&self.device)).await?;
            }
            (Step::Delete, Some((chat_id, message_id))) => {
                client.delete_message(chat_id, message_id).await?;
            }
            _ => {
                let sent = client.send(chat_id, &self.world.text(&self.device)).await?;
                self.said.push((chat_id, sent.message_id));
            }
        }
        Ok(())
    }

    async fn change(&mut self, step: Step, chat_id: ChatId) -> Result<(), ClientError> {
        let (world, device) = (Arc::clone(&self.world), Arc::clone(&self.device));
        let client = &device.client;
        let other = world.users[self.rng.below(world.users.len() as u64) as usize].name.clone();
        match step {
            Step::Add => {
                client.add_member(chat_id, &other, true, true).await?;
            }
            // The other way in which somebody goes is another step.
            Step::Remove if other == world.users[device.user].name => {}
            Step::Remove => {
                client.remove_member(chat_id, &other).await?;
            }
            Step::Leave => client.leave_chat(chat_id).await?,
            Step::Rekey => {
                client.rekey(chat_id).await?;
            }
            Step::Link => {
                if let Some(newcomer) = world.come(&device, None).await? {
                    world.let_act(newcomer, &mut self.rng);
                }
            }
            Step::Guest => {
                let Some(guest) = world.come(&device, Some(GUEST_LIFE)).await? else { return Ok(()) };
                world.let_act(Arc::clone(&guest), &mut self.rng);
                guest.is_over().await;
                // What is said next is not for the guest.
                for chat_id in world.chats.clone() {
                    if let Err(error) = client.send(chat_id, &world.text(&device)).await {
                        assert!(may_be_sent(&error, device.stay), "after a guest, in {chat_id}: {error}");
                    }
                }
            }
            Step::Revoke => {
                let siblings = world.devices_of(device.user);
                let others: Vec<_> = siblings.iter().filter(|other| other.stay != Stay::First).collect();
                let target = self.rng.pick(&others).filter(|other| !Arc::ptr_eq(other, &device));
                if let Some(target) = target {
                    let _unlocked = world.unlock(&device).await?;
                    client.revoke_session(target.client.session_id()).await?;
                }
            }
            Step::Renew => {
                let _unlocked = world.unlock(&device).await?;
                client.renew(None).await?;
            }
            Step::Reconnect => client.reconnect(),
            Step::Say | Step::Edit | Step::Delete => {}
        }
        Ok(())
    }
}
