//! Edits and deletions: whose, of what, in which order.

use super::scene::{Decided, LAST_SEQ, Scene, Stamp, is_refused, revise};
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::envelope::MessageKind;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::Send;
use crate::protocol::ids::{Counter, KeyId, Revision, Seq};
use crate::store::members::Requester;
use crate::store::revisions::MessageHead;

const BOTH: [MessageKind; 2] = [MessageKind::Edit, MessageKind::Delete];

fn refused(scene: &Scene, who: Requester, send: &Send, target: Option<MessageHead>) -> ErrorCode {
    let mut state = scene.state();
    let before = format!("{state:?}");
    let code = revise(&mut state, who, send, target).refused().code;
    assert_eq!(format!("{state:?}"), before, "C3");
    code
}

#[test]
fn the_author_edits_and_deletes_with_the_next_number() {
    let scene = Scene::new();
    for kind in BOTH {
        let send = scene.revision(scene.ada, kind, 2);
        let item = revise(&mut scene.state(), scene.ada, &send, Some(scene.target(scene.ada))).appended();
        assert_eq!(item.entry.unwrap().seq.get(), LAST_SEQ + 1);
        let is_edit = kind == MessageKind::Edit;
        assert_eq!((item.key_id, item.new_key, item.copies.len()), (is_edit.then_some(scene.key_id), None, 0));
        for number in [1, 3] {
            let send = scene.revision(scene.ada, kind, number);
            let refusal = revise(&mut scene.state(), scene.ada, &send, Some(scene.target(scene.ada))).refused();
            assert_eq!(refusal.code, ErrorCode::EditConflict);
            assert_eq!(refusal.details.unwrap().revision.map(Revision::get), Some(2));
        }
    }
}

#[test]
fn nobody_else_edits_and_managers_alone_delete() {
    let mut scene = Scene::new();
    let of_bob = scene.target(scene.bob);
    for kind in BOTH {
        let send = scene.revision(scene.ada, kind, 2);
        assert_eq!(refused(&scene, scene.ada, &send, Some(of_bob)), ErrorCode::UnknownMessage);
    }
    scene.member(scene.ada).can_manage = true;
    let edit = scene.revision(scene.ada, MessageKind::Edit, 2);
    assert_eq!(refused(&scene, scene.ada, &edit, Some(of_bob)), ErrorCode::UnknownMessage);
    let delete = scene.revision(scene.ada, MessageKind::Delete, 2);
    revise(&mut scene.state(), scene.ada, &delete, Some(of_bob)).appended();
    // Who may not write may delete what is theirs.
    scene.member(scene.ada).can_write = false;
    revise(&mut scene.state(), scene.ada, &delete, Some(scene.target(scene.ada))).appended();
}

#[test]
fn what_is_not_there_deleted_or_unreadable_cannot_be_told_apart() {
    let mut scene = Scene::new();
    scene.member(scene.ada).readable_from = Seq::saturating(5);
    scene.member(scene.ada).can_manage = true;
    let own = scene.target(scene.ada);
    for kind in BOTH {
        let send = scene.revision(scene.ada, kind, 2);
        revise(&mut scene.state(), scene.ada, &send, Some(own)).appended();
        let unreadable = MessageHead { first_seq: Seq::saturating(4), ..own };
        for target in [None, Some(MessageHead { is_deleted: true, ..own }), Some(unreadable)] {
            assert_eq!(refused(&scene, scene.ada, &send, target), ErrorCode::UnknownMessage, "{target:?}");
        }
    }
}

#[test]
fn p7_the_server_checks_the_signature_of_what_purges() {
    let scene = Scene::new();
    for kind in BOTH {
        let mut send = scene.revision(scene.ada, kind, 2);
        send.envelope.signature = Stamp::sign(b"something else");
        assert_eq!(refused(&scene, scene.ada, &send, Some(scene.target(scene.ada))), ErrorCode::BadSignature);
    }
}

#[test]
fn a_deletion_is_bare_and_knows_the_roster() {
    let scene = Scene::new();
    let changes: [fn(&Scene, &mut Send); 6] = [
        |_, send| send.envelope.key_id = Some(KeyId::generate()),
        |_, send| send.envelope.data = Some(Blob::default()),
        |_, send| send.envelope.counter = Counter::saturating(1),
        |scene, send| send.new_key = Some(scene.new_key(scene.ada, KeyId::generate(), &[])),
        |scene, send| send.add_copies = super::scene::copies_for(&[scene.bob]),
        |_, send| send.envelope.revision = Revision::default(),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut send = scene.revision(scene.ada, MessageKind::Delete, 2);
        change(&scene, &mut send);
        let send = scene.sign(send);
        let code = refused(&scene, scene.ada, &send, Some(scene.target(scene.ada)));
        assert_eq!(code, ErrorCode::Malformed, "change {index}");
    }
    let mut send = scene.revision(scene.ada, MessageKind::Delete, 2);
    send.envelope.roster_hash = Hash([8; 32]);
    let code = refused(&scene, scene.ada, &scene.sign(send), Some(scene.target(scene.ada)));
    assert_eq!(code, ErrorCode::RosterChanged);
}

#[test]
fn an_edit_has_the_shape_of_a_message() {
    let scene = Scene::new();
    let mut send = scene.revision(scene.ada, MessageKind::Edit, 2);
    send.envelope.key_id = None;
    assert_eq!(is_refused(&scene, scene.ada, &scene.sign(send)).0, ErrorCode::Malformed);
}
