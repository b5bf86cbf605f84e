//! Makes group keys that are due, and refuses bad ones.

use super::call::expect_reply;
use super::state::Shared;
use crate::client::chat::generations;
use crate::client::error::ClientError;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{RefuseGeneration, Reply, Request};
use crate::protocol::group_key::{GenerationRefusal, SignedGenerationRefusal};
use crate::protocol::ids::{ChatId, GenerationNo};

/// How often a generation is made again because others were faster, or the members changed.
const TRIES_MAX: u32 = 8;

/// Makes the generation of a chat that is due, if one is; whoever was faster has done the same.
pub(crate) async fn make_if_due(shared: &Shared, chat_id: ChatId) -> Result<(), ClientError> {
    for _ in 0..TRIES_MAX {
        let generation = {
            let state = shared.lock();
            let Some(chat) = state.chats.get(&chat_id) else { return Ok(()) };
            generations::make(chat.log.fold(), &state.account.me)
        };
        let Some(generation) = generation else { return Ok(()) };
        let seq = match shared.call(Request::MakeGeneration(generation)).await? {
            Ok(reply) => expect_reply!(reply, Changed)?.seq,
            Err(refused) => match refused.code {
                ErrorCode::GroupKeyExists | ErrorCode::RosterChanged | ErrorCode::EventConflict => {
                    refused.details.seq.unwrap_or_default()
                }
                _ => return Err(refused.into()),
            },
        };
        if !shared.folded(chat_id, seq).await? {
            return Ok(());
        }
    }
    Err(ClientError::Conflict)
}

/// Says that the newest generation is bad: another one is due from then on.
pub(crate) async fn refuse(shared: &Shared, chat_id: ChatId, number: GenerationNo) -> Result<(), ClientError> {
    let refusal = {
        let state = shared.lock();
        let me = &state.account.me;
        let refusal = GenerationRefusal { number, session_id: me.session_id };
        let signature = me.secrets.sign(&refusal.signed_bytes(chat_id));
        SignedGenerationRefusal { refusal, signature }
    };
    let answer = shared.call(Request::RefuseGeneration(RefuseGeneration { chat_id, refusal })).await?;
    let seq = expect_reply!(answer?, Changed)?.seq;
    shared.folded(chat_id, seq).await?;
    Ok(())
}
