//! Whatever is opened: any bytes are an error, or what was sealed in this very place.

use std::sync::OnceLock;

use sealcast::crypto::link_code::LinkCode;
use sealcast::crypto::{OpenError, Secret, handover, hpke, name, wrap};
use sealcast::protocol::binary::{Blob, Signature, WrappedKey};
use sealcast::protocol::ids::{ChatId, InfoKeyId, KeyId, SessionId, UserId};
use sealcast::protocol::keys::{InfoKeyWrap, SealedName, commitment};
use uuid::Uuid;

use crate::bytes_of::Input;
use crate::certificate::session;

/// What [`known`] wraps.
const SECRET: [u8; 32] = [0x55; 32];

/// The link code of all inputs.
const CODE: &str = "0123-4567-89AB-CDEF-GHJK-MNPQ";

/// Checks any bytes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 => wrapped_key(&mut input),
        1 => sealed_handover(input.rest()),
        2 => sealed_name(&mut input),
        _ => link_code(input.rest()),
    }
}

/// The input says which bits of a good copy and of its place to flip: with none flipped it opens, with any it does not.
fn wrapped_key(input: &mut Input<'_>) {
    let mut copy = *known();
    for byte in &mut copy.0 {
        *byte ^= input.byte();
    }
    let [chat, key, sender, recipient]: [Uuid; 4] =
        std::array::from_fn(|index| Uuid::from_u128(place(index).as_u128() ^ input.id().as_u128()));
    let is_whole = copy == *known() && [chat, key, sender, recipient] == std::array::from_fn(place);
    let opened =
        wrap::open_sender_key(&copy, ChatId(chat), KeyId(key), SessionId(sender), (SessionId(recipient), session()));
    match opened {
        Ok(secret) => {
            assert!(is_whole, "opened, though it was not sealed so");
            assert_eq!(commitment(secret.expose()), commitment(&SECRET));
        }
        Err(OpenError) => assert!(!is_whole, "a good copy does not open"),
    }
    // A copy of a sender key is no info key, whatever its place is called.
    let info = InfoKeyWrap {
        session_id: SessionId(recipient),
        key_id: InfoKeyId(key),
        key: copy,
        wrapped_by_session_id: SessionId(sender),
        signature: Signature([0; 64]),
    };
    assert_eq!(wrap::open_info_key(&info, ChatId(chat), (SessionId(recipient), session())), Err(OpenError));
}

fn sealed_handover(bytes: &[u8]) {
    let code: LinkCode = CODE.parse().expect("a link code");
    let (user_id, session_id) = (UserId(place(0)), SessionId(place(3)));
    let blob = Blob::from(bytes.to_vec());
    assert_eq!(handover::open(&code, user_id, (session_id, session()), &blob), Err(OpenError), "nobody sealed this");
    assert_eq!(hpke::open(session(), b"info", b"aad", bytes), Err(OpenError), "nobody sealed this");
    let approved_by = SessionId(place(2));
    let blob = handover::seal(&code, user_id, approved_by, (session_id, &session().public_key()), bytes)
        .expect("a hand-over can be sealed");
    let opened = handover::open(&code, user_id, (session_id, session()), &blob);
    assert_eq!(opened, Ok((approved_by, bytes.to_vec())));
    let mut cut = blob.as_ref().to_vec();
    cut.pop();
    assert_eq!(handover::open(&code, user_id, (session_id, session()), &Blob::from(cut)), Err(OpenError));
}

fn sealed_name(input: &mut Input<'_>) {
    let (chat_id, key_id) = (ChatId(input.id()), InfoKeyId(input.id()));
    let secret = Secret::new(SECRET);
    let any = SealedName { key_id, data: Blob::from(input.rest().to_vec()) };
    assert_eq!(name::open(&secret, chat_id, &any), Err(OpenError), "nobody sealed this");
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    let sealed = name::seal(&secret, chat_id, key_id, text).expect("a name can be sealed");
    assert_eq!(name::open(&secret, chat_id, &sealed).as_deref(), Ok(text));
    let other = ChatId(Uuid::from_u128(chat_id.0.as_u128() ^ 1));
    assert_eq!(name::open(&secret, other, &sealed), Err(OpenError));
}

/// A code that is read is written in one form, which is read as the same.
fn link_code(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(code) = text.parse::<LinkCode>() else { return };
    let written = code.to_text();
    assert_eq!(written.len(), CODE.len());
    assert_eq!(written.parse(), Ok(code.clone()));
    let typed: String = text.chars().filter(|letter| letter.is_ascii_alphanumeric()).collect();
    let plain = typed.to_ascii_uppercase().replace('O', "0").replace(['I', 'L'], "1");
    assert_eq!(written.replace('-', ""), plain, "what was typed is what is meant");
}

fn place(index: usize) -> Uuid {
    Uuid::from_u128(0x0100 + index as u128)
}

/// A good copy. It was sealed once and is kept, for sealing draws at random, and an input must mean the same every time.
fn known() -> &'static WrappedKey {
    static KNOWN: OnceLock<WrappedKey> = OnceLock::new();
    KNOWN.get_or_init(|| WrappedKey::try_from(&include_bytes!("known_copy.bin")[..]).expect("80 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_copy_opens() {
        let opened = wrap::open_sender_key(
            known(),
            ChatId(place(0)),
            KeyId(place(1)),
            SessionId(place(2)),
            (SessionId(place(3)), session()),
        );
        assert_eq!(opened, Ok(Secret::new(SECRET)));
    }
}
