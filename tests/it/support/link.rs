//! A user's further devices by the bare protocol: asked for, approved, revoked.

use sealcast::protocol::account::{LINKS_PATH, Link};
use sealcast::protocol::binary::{Blob, Mac};
use sealcast::protocol::certificate::{Revocation, Revoker, SignedRevocation};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{self, ApproveSession, Nothing, Reply, Request, RevokeSession, SessionState, Sessions};
use sealcast::protocol::ids::{Place, SessionId};

use super::broker::Broker;
use super::device::{Device, Socket, now, sign};

const DAY_MICROS: u64 = 86_400 * 1_000_000;

/// One's own sessions, without when each was seen, which is noted now and then; and the head of one's chain.
pub async fn sessions(socket: &mut Socket) -> Sessions {
    match socket.request(Request::ListSessions(Nothing {})).await.unwrap() {
        Reply::Sessions(mut sessions) => {
            sessions.sessions.iter_mut().for_each(|session| session.last_seen_at = None);
            sessions
        }
        other => panic!("{other:?}"),
    }
}

impl Device {
    /// Keys for one more session of the same user; its certificate is signed once it is approved.
    pub fn sibling(&self) -> Self {
        let certificate = &self.certificate;
        let place = certificate.certificate.place.next();
        Self::certified(
            self.user_id,
            &self.username,
            self.identity.clone(),
            place,
            certificate.chain_hash(),
            30 * DAY_MICROS,
        )
    }

    /// What this session asks for when it wants to be linked.
    pub fn link_request(&self) -> Link {
        Link {
            user_id: self.user_id,
            session_id: self.session_id,
            public_key: self.certificate.certificate.public_key,
            signing_public_key: self.certificate.certificate.signing_public_key,
            proof: Mac([7; 32]),
        }
    }

    /// Asks to be linked; gives status and body.
    pub async fn ask_to_link(&self, broker: &Broker) -> (u16, String) {
        broker.request("POST", LINKS_PATH, &serde_json::to_string(&self.link_request()).unwrap()).await
    }

    /// A session of the same user that waits for approval.
    pub async fn pending(&self, broker: &Broker) -> Self {
        let sibling = self.sibling();
        let (status, body) = sibling.ask_to_link(broker).await;
        assert_eq!(status, 200, "{body}");
        sibling
    }

    /// Signs this session's certificate anew, for a place of the chain.
    pub fn certify_at(&mut self, place: Place, previous: sealcast::protocol::binary::Hash) {
        self.certificate.certificate.place = place;
        self.certificate.certificate.previous = previous;
        self.sign_certificate();
    }

    /// Signs this session's certificate as it stands.
    pub fn sign_certificate(&mut self) {
        self.certificate.signature = sign(&self.identity, &self.certificate.certificate.signed_bytes());
    }

    /// The approval of a session whose certificate is signed.
    pub fn approval(&self) -> ApproveSession {
        ApproveSession {
            certificate: self.certificate.clone(),
            handover: Blob::from(b"sealed".to_vec()),
            renewal: None,
            backups: Vec::new(),
        }
    }

    /// Approves a pending session, next in the chain as it stands.
    pub async fn approve(&self, socket: &mut Socket, pending: &mut Self) -> Result<Reply, frame::Error> {
        let chain = sessions(socket).await;
        pending.certify_at(chain.place.next(), chain.hash);
        socket.request(Request::ApproveSession(pending.approval())).await
    }

    /// Signs this session's next certificate over the same keys, for so long from now on.
    pub fn certify_again(&mut self, place: Place, previous: sealcast::protocol::binary::Hash, lifetime_micros: u64) {
        self.certificate.certificate.created_at = now();
        self.certificate.certificate.expired_at = now().plus_micros(lifetime_micros);
        self.certify_at(place, previous);
    }

    /// What a session asks for that renews itself.
    pub fn renewal(&self) -> Request {
        Request::ApproveSession(ApproveSession { handover: Blob::default(), ..self.approval() })
    }

    /// Renews this session, which is live, for thirty days from now on.
    pub async fn recertify(&mut self, socket: &mut Socket) -> Result<Reply, frame::Error> {
        let chain = sessions(socket).await;
        self.certify_again(chain.place.next(), chain.hash, 30 * DAY_MICROS);
        socket.request(self.renewal()).await
    }

    /// Logs in with a session that has expired.
    pub async fn connect_expired(&self, broker: &Broker) -> Socket {
        let mut socket = Socket::open(broker, Encoding::Json).await;
        let Reply::Authenticated(who) = socket.request(self.login(&socket.hello)).await.unwrap() else { panic!() };
        assert_eq!((who.user_id, who.state), (self.user_id, SessionState::Expired));
        socket
    }

    /// Renews this session, which has expired and whose certificate is the newest entry of its chain.
    pub async fn come_back(&mut self, broker: &Broker) -> Result<Reply, frame::Error> {
        let mut socket = self.connect_expired(broker).await;
        let (place, hash) = (self.certificate.certificate.place, self.certificate.chain_hash());
        self.certify_again(place.next(), hash, 30 * DAY_MICROS);
        socket.request(self.renewal()).await
    }

    /// Links one more session and approves it.
    pub async fn linked(&self, broker: &Broker, socket: &mut Socket) -> Self {
        let mut sibling = self.pending(broker).await;
        self.approve(socket, &mut sibling).await.unwrap();
        sibling
    }

    /// A revocation by this session, next in the chain as it stands.
    pub fn revocation(&self, chain: &Sessions, session_id: SessionId) -> SignedRevocation {
        self.sign_revocation(Revocation {
            user_id: self.user_id,
            place: chain.place.next(),
            previous: chain.hash,
            session_id,
            revoker: Revoker::Session(self.session_id),
            created_at: now(),
        })
    }

    /// Signs a revocation with this session's key.
    pub fn sign_revocation(&self, revocation: Revocation) -> SignedRevocation {
        let signature = sign(&self.signing, &revocation.signed_bytes());
        SignedRevocation { revocation, signature }
    }

    /// Revokes a session of the same user.
    pub async fn revoke(&self, socket: &mut Socket, session_id: SessionId) -> Result<Reply, frame::Error> {
        let revocation = self.revocation(&sessions(socket).await, session_id);
        socket.request(Request::RevokeSession(RevokeSession { revocation, withdrawal: None })).await
    }
}
