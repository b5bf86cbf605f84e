//! Recovery by friends, over HTTP: what a device asks and fetches that has nothing yet.

use actix_web::{HttpRequest, HttpResponse, web};

use super::Door;
use super::accounts::{failed, read_body};
use super::passwords::{Body, address_of, answer, name_of};
use crate::protocol::friends::{
    AskFriends, FetchReleases, FriendsAsked, RECOVERY_RELEASES_PATH, RECOVERY_REQUESTS_PATH,
};
use crate::store::Failure;
use crate::store::passwords::TryLimit;

/// Mounts the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    routes.route(RECOVERY_REQUESTS_PATH, web::post().to(ask)).route(RECOVERY_RELEASES_PATH, web::post().to(releases));
}

async fn ask(door: web::Data<Door>, from: HttpRequest, body: Body) -> HttpResponse {
    let request: AskFriends = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    answer(counted(&door, &from, &request).await)
}

/// As many as tries of passwords may be made, in buckets of their own: neither uses the other's up.
async fn counted(door: &Door, from: &HttpRequest, request: &AskFriends) -> Result<FriendsAsked, Failure> {
    let username = name_of(&request.username)?;
    let current = door.current();
    let settings = &current.password;
    let address = address_of(from, &current);
    let bucket = |purpose: &str, parts: &[&str]| door.broker.passwords.bucket(purpose, parts);
    let limits = [
        TryLimit { bucket: bucket("friends_address", &[&address]), per_hour: settings.tries_per_hour_address },
        TryLimit { bucket: bucket("friends_pair", &[&address, username.as_str()]), per_hour: settings.tries_per_hour },
        TryLimit { bucket: bucket("friends_user", &[username.as_str()]), per_hour: settings.tries_per_hour_user },
    ];
    door.broker.ask_friends(&limits, &username, request).await
}

async fn releases(door: web::Data<Door>, body: Body) -> HttpResponse {
    let request: FetchReleases = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    answer(door.broker.store.releases(request.request_id).await)
}
