//! Passwords and recovery codes over HTTP: new ones, logins, and what they protect.
//!
//! A name that is nobody's, one without a password and a wrong password are answered alike, with the same work.

use actix_web::{HttpRequest, HttpResponse, web};

use super::accounts::{failed, read_body};
use super::{Door, address};
use crate::broker::passwords::{self, Stored};
use crate::config::Settings;
use crate::protocol::binary::{Nonce, SigningKey};
use crate::protocol::error::{CloseCode, ErrorCode, Refusal};
use crate::protocol::ids::LoginId;
use crate::protocol::password::{
    BeginLogin, BeginPassword, BeginRecovery, FinishLogin, FinishRecovery, LOGINS_FINISH_PATH, LOGINS_PATH, LoginBegun,
    PASSWORDS_PATH, PasswordBegun, RECOVERIES_FINISH_PATH, RECOVERIES_PATH, RecoveryBegun, ReplaceStrongbox,
    STRONGBOXES_PATH, recovery_login_bytes,
};
use crate::protocol::strongbox::Stretching;
use crate::protocol::username::Username;
use crate::protocol::verify::Verifier;
use crate::store::Failure;
use crate::store::passwords::{Login, LoginUser, TryLimit};

const PASSWORD: &str = "password";
const RECOVERY: &str = "recovery";

/// Whom a login by recovery code is checked against when there is none: a key with which nobody signs.
const NOBODY: SigningKey = SigningKey([
    0x3d, 0x40, 0x17, 0xc3, 0xe8, 0x43, 0x89, 0x5a, 0x92, 0xb7, 0x0a, 0xa7, 0x4d, 0x1b, 0x7e, 0xbc, 0x9c, 0x98, 0x2c,
    0xcf, 0x2e, 0xc4, 0x96, 0x8c, 0xc0, 0xcd, 0x55, 0xf1, 0x2a, 0xf4, 0x66, 0x0c,
]);

pub(super) type Body = Result<web::Bytes, actix_web::Error>;

/// Mounts the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    routes
        .route(PASSWORDS_PATH, web::post().to(begin_password))
        .route(LOGINS_PATH, web::post().to(begin_login))
        .route(LOGINS_FINISH_PATH, web::post().to(finish_login))
        .route(RECOVERIES_PATH, web::post().to(begin_recovery))
        .route(RECOVERIES_FINISH_PATH, web::post().to(finish_recovery))
        .route(STRONGBOXES_PATH, web::post().to(replace_strongbox));
}

pub(super) fn answer<T: serde::Serialize>(result: Result<T, Failure>) -> HttpResponse {
    match result {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(failure) => failed(failure),
    }
}

async fn begin_password(door: web::Data<Door>, body: Body) -> HttpResponse {
    let request: BeginPassword = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    let begun = name_of(&request.username).and_then(|username| {
        let (credential_id, message) = door.broker.passwords.begin(&username, &request.message)?;
        Ok(PasswordBegun { credential_id, message })
    });
    answer(begun)
}

async fn begin_login(door: web::Data<Door>, from: HttpRequest, body: Body) -> HttpResponse {
    let request: BeginLogin = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    answer(password_login(&door, &from, &request).await)
}

async fn password_login(door: &Door, from: &HttpRequest, request: &BeginLogin) -> Result<LoginBegun, Failure> {
    let username = name_of(&request.username)?;
    let (user, pair) = count(door, from, &username).await?;
    let stretching = user.as_ref().map_or(Stretching::DEFAULT, |user| user.stretching);
    let owner = user.as_ref().map(|user| (user.user_id, user.version));
    let stored = user.map(|user| Stored { record: user.record, credential_id: user.credential_id });
    let evaluated = door.broker.passwords.answer(&username, stored, &request.message)?;
    let login_id = login_id();
    let login = Login { login_id, kind: PASSWORD, username, user: owner, pair, state: evaluated.state };
    door.broker.store.begin_login(&login, door.settings.password.login_s).await?;
    Ok(LoginBegun { login_id, message: evaluated.message, stretching })
}

async fn finish_login(door: web::Data<Door>, body: Body) -> HttpResponse {
    let request: FinishLogin = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    let (broker, metrics) = (&door.broker, &door.broker.metrics);
    let finish = async {
        let login = broker.store.take_login(request.login_id, PASSWORD).await?.ok_or_else(passwords::failed)?;
        broker.passwords.finish(&login.username, &login.state, &request.message)?;
        broker.store.log_in(&login, request.session.as_ref(), request.for_session, &broker.options.sessions).await
    };
    let result: Result<_, Failure> = finish.await;
    metrics.password_logins.with_label_values(&[PASSWORD, outcome(&result)]).inc();
    answer(result)
}

async fn begin_recovery(door: web::Data<Door>, from: HttpRequest, body: Body) -> HttpResponse {
    let request: BeginRecovery = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    answer(recovery_login(&door, &from, &request).await)
}

async fn recovery_login(door: &Door, from: &HttpRequest, request: &BeginRecovery) -> Result<RecoveryBegun, Failure> {
    let username = name_of(&request.username)?;
    let (user, pair) = count(door, from, &username).await?;
    let nonce = Nonce(passwords::random());
    let key = user.as_ref().and_then(|user| user.recovery_key);
    let owner = user.filter(|_| key.is_some()).map(|user| (user.user_id, user.version));
    let mut state = nonce.as_ref().to_vec();
    state.extend_from_slice(key.unwrap_or(NOBODY).as_ref());
    let login_id = login_id();
    let login = Login { login_id, kind: RECOVERY, username, user: owner, pair, state };
    door.broker.store.begin_login(&login, door.settings.password.login_s).await?;
    Ok(RecoveryBegun { login_id, nonce })
}

async fn finish_recovery(door: web::Data<Door>, body: Body) -> HttpResponse {
    let request: FinishRecovery = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    let (broker, metrics) = (&door.broker, &door.broker.metrics);
    let finish = async {
        let login = broker.store.take_login(request.login_id, RECOVERY).await?.ok_or_else(passwords::failed)?;
        let (nonce, key) = login.state.split_at_checked(Nonce::LENGTH).ok_or_else(passwords::failed)?;
        let (Ok(nonce), Ok(key)) = (Nonce::try_from(nonce), SigningKey::try_from(key)) else {
            return Err(passwords::failed().into());
        };
        let bytes = recovery_login_bytes(&nonce, &door.settings.server.name, request.session.as_ref());
        if !key.verifies(&bytes, &request.signature) {
            return Err(passwords::failed().into());
        }
        broker.store.log_in(&login, request.session.as_ref(), request.for_session, &broker.options.sessions).await
    };
    let result: Result<_, Failure> = finish.await;
    metrics.password_logins.with_label_values(&[RECOVERY, outcome(&result)]).inc();
    answer(result)
}

async fn replace_strongbox(door: web::Data<Door>, body: Body) -> HttpResponse {
    let request: ReplaceStrongbox = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    if let Err(refusal) = door.broker.passwords.check_record(&request.upload.record) {
        return failed(refusal.into());
    }
    let replaced = door.broker.store.replace_strongbox(&request).await.map(|(replaced, changed)| {
        door.broker.sessions_changed(&changed, CloseCode::SessionRevoked);
        replaced
    });
    answer(replaced)
}

/// Counts a try by address, by address and name, and by name, in this order: whoever guesses from one place is held up
/// long before the user who comes from another.
async fn count(door: &Door, from: &HttpRequest, username: &Username) -> Result<(Option<LoginUser>, Vec<u8>), Failure> {
    let current = door.current();
    let settings = &current.password;
    let address = address_of(from, &current);
    let bucket = |purpose: &str, parts: &[&str]| door.broker.passwords.bucket(purpose, parts);
    let pair = bucket("pair", &[&address, username.as_str()]);
    let limits = [
        TryLimit { bucket: bucket("address", &[&address]), per_hour: settings.tries_per_hour_address },
        TryLimit { bucket: pair.clone(), per_hour: settings.tries_per_hour },
        TryLimit { bucket: bucket("user", &[username.as_str()]), per_hour: settings.tries_per_hour_user },
    ];
    Ok((door.broker.store.count_try(&limits, username).await?, pair))
}

/// Where a request comes from, as tries are counted: a whole /64 of IPv6 is one place.
pub(super) fn address_of(from: &HttpRequest, settings: &Settings) -> String {
    match address::of(from, &settings.server).map(address::place_of) {
        Some(std::net::IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Some(address) => address.to_string(),
        None => String::new(),
    }
}

pub(super) fn name_of(text: &str) -> Result<Username, Failure> {
    Username::parse(text).map_err(|_| {
        Refusal::new(ErrorCode::UsernameInvalid, "a username is 3 to 32 of a-z, 0-9, '.', '_', '-'").into()
    })
}

fn login_id() -> LoginId {
    let bytes = passwords::random();
    let (first, _) = bytes.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    LoginId(uuid::Builder::from_random_bytes(*first).into_uuid())
}

const fn outcome<T>(result: &Result<T, Failure>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(Failure::Refused(_)) => "refused",
        Err(_) => "failed",
    }
}
