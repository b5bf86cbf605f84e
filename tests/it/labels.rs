//! Names of one's own sessions: ciphertext for their user's sessions alone.

use sealcast::protocol::binary::Blob;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Reply, Request, SetLabel};
use sealcast::protocol::ids::SessionId;
use sealcast::protocol::limits::LABEL_BYTES_MAX;

use super::support::broker::Broker;
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::link::sessions;

async fn set(socket: &mut Socket, session_id: SessionId, label: Option<&[u8]>) -> Result<(), ErrorCode> {
    let label = label.map(|label| Blob::from(label.to_vec()));
    match socket.request(Request::SetLabel(SetLabel { session_id, label })).await {
        Ok(Reply::Done(_)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    }
}

async fn label_of(socket: &mut Socket, session_id: SessionId) -> Option<Vec<u8>> {
    let listed = sessions(socket).await.sessions;
    let session = listed.into_iter().find(|session| session.certificate.certificate.session_id == session_id).unwrap();
    session.label.map(|label| label.as_ref().to_vec())
}

#[tokio::test]
async fn a_name_is_kept_for_any_session_of_ones_own_and_for_no_other() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, eve) = (Device::register(&broker, "ada").await, Device::register(&broker, "eve").await);
    let mut socket = ada.connect_live(&broker).await;
    let tablet = ada.linked(&broker, &mut socket).await;
    assert_eq!(label_of(&mut socket, ada.session_id).await, None);
    set(&mut socket, ada.session_id, Some(b"phone")).await.unwrap();
    set(&mut socket, tablet.session_id, Some(b"tablet")).await.unwrap();
    let mut tablet_socket = tablet.connect_live(&broker).await;
    assert_eq!(label_of(&mut tablet_socket, ada.session_id).await.unwrap(), b"phone");
    assert_eq!(label_of(&mut tablet_socket, tablet.session_id).await.unwrap(), b"tablet");
    set(&mut tablet_socket, ada.session_id, Some(b"old phone")).await.unwrap();
    assert_eq!(label_of(&mut socket, ada.session_id).await.unwrap(), b"old phone");

    let mut eve_socket = eve.connect_live(&broker).await;
    assert_eq!(set(&mut eve_socket, ada.session_id, Some(b"mine")).await, Err(ErrorCode::UnknownSession));
    assert_eq!(set(&mut eve_socket, SessionId::generate(), Some(b"mine")).await, Err(ErrorCode::UnknownSession));
    let pending = ada.pending(&broker).await;
    assert_eq!(set(&mut socket, pending.session_id, Some(b"early")).await, Err(ErrorCode::UnknownSession));
    let mut pending_socket = pending.connect(&broker).await;
    assert_eq!(set(&mut pending_socket, ada.session_id, Some(b"early")).await, Err(ErrorCode::SessionPending));
    assert_eq!(label_of(&mut socket, ada.session_id).await.unwrap(), b"old phone");

    // The name of a session that has ended stays, and can go.
    ada.revoke(&mut socket, tablet.session_id).await.unwrap();
    assert_eq!(label_of(&mut socket, tablet.session_id).await.unwrap(), b"tablet");
    set(&mut socket, tablet.session_id, None).await.unwrap();
    assert_eq!(label_of(&mut socket, tablet.session_id).await, None);
}

#[tokio::test]
async fn a_name_of_the_limit_is_kept_and_one_byte_more_is_not() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    set(&mut socket, ada.session_id, Some(&[1; LABEL_BYTES_MAX])).await.unwrap();
    let label = Some(Blob::from(vec![2; LABEL_BYTES_MAX + 1]));
    let request = Request::SetLabel(SetLabel { session_id: ada.session_id, label });
    let refused = socket.request(request).await.unwrap_err();
    let limit = refused.details.and_then(|details| details.limit);
    assert_eq!((refused.code, limit), (ErrorCode::TooLarge, Some(LABEL_BYTES_MAX as u64)));
    assert_eq!(label_of(&mut socket, ada.session_id).await.unwrap(), [1; LABEL_BYTES_MAX]);
    set(&mut socket, ada.session_id, Some(b"good")).await.unwrap();
}

#[cfg(feature = "client")]
mod with_the_library {
    use sealcast::client::{Client, ClientError};

    use super::super::support::library::{link, register};
    use super::*;

    async fn names(client: &Client) -> Vec<(SessionId, Option<String>)> {
        let listed = client.sessions().await.unwrap().sessions;
        let mut names: Vec<_> =
            listed.into_iter().map(|session| (session.certificate.certificate.session_id, session.label)).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn p6_names_are_read_by_the_users_own_devices_linked_later_too_and_not_by_the_server() {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let phone = register(&broker.public, "ada").await;
        phone.set_label(phone.session_id(), "The phone in the kitchen").await.unwrap();
        let tablet = link(&phone, &broker.public).await;
        tablet.set_label(tablet.session_id(), "Ein Brett für unterwegs").await.unwrap();
        let mut expected = vec![
            (phone.session_id(), Some("The phone in the kitchen".to_owned())),
            (tablet.session_id(), Some("Ein Brett für unterwegs".to_owned())),
        ];
        expected.sort();
        assert_eq!(names(&phone).await, expected);
        assert_eq!(names(&tablet).await, expected);
        let stored = "SELECT count(*) FROM user_sessions WHERE label IS NOT NULL";
        assert_eq!(database.count(stored).await, 2);
        let clear = "SELECT count(*) FROM user_sessions WHERE position('kitchen'::bytea in label) > 0";
        assert_eq!(database.count(clear).await, 0);
        assert!(!format!("{:?}", phone.sessions().await.unwrap()).contains("kitchen"), "P12");

        // A name that the server has moved to another session does not open there.
        let swap = "UPDATE user_sessions a SET label = b.label FROM user_sessions b WHERE a.id <> b.id";
        database.client().await.batch_execute(swap).await.unwrap();
        assert!(names(&phone).await.iter().all(|(_, name)| name.is_none()));

        tablet.set_label(phone.session_id(), "").await.unwrap();
        assert_eq!(database.count(stored).await, 1);
        let longest = "x".repeat(LABEL_BYTES_MAX - 28);
        phone.set_label(phone.session_id(), &longest).await.unwrap();
        let above = phone.set_label(phone.session_id(), &format!("{longest}x")).await;
        assert!(matches!(above, Err(ClientError::TooLarge { limit }) if limit == longest.len()), "{above:?}");
        let other = register(&broker.public, "eve").await;
        let refused = other.set_label(phone.session_id(), "mine").await;
        assert!(matches!(refused, Err(ClientError::Refused { code: ErrorCode::UnknownSession, .. })), "{refused:?}");
    }
}
