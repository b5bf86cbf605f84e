//! L4: all who were connected come back at the same time.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use sealcast::protocol::frame::{Nothing, Request};

use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{eventually, patiently, trials, within};
use super::crowd;
use super::crowd::Person;

/// People in one chat.
const MEMBERS: usize = 10;

/// Comes back as soon as somebody listens, without any pause: the worst way to.
async fn come_back(broker: &Broker, device: &Device) -> Socket {
    within("somebody to listen", async {
        while tokio::net::TcpStream::connect(broker.address()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    device.connect_live(broker).await
}

/// A broker is killed, and so many come back at once, each of whom must be let in within `patience_s`.
async fn all_come_back(count: usize, patience_s: usize) {
    let database = Database::create().await;
    let settings =
        crowd::settings(&database).with("server.login_timeout_s", patience_s).with("database.deadline_s", patience_s);
    let mut broker = Broker::start_with(settings).await;
    let mut people = crowd::gather(&broker, "person", count, MEMBERS).await;
    let bystander = Device::register(&broker, "bystander").await;
    for person in people.iter_mut().step_by(MEMBERS) {
        person.say().await;
    }
    let rss_before_mib = broker.rss_mib();
    broker.kill();
    let devices: Vec<Device> = people.iter().map(|person| person.writer.device.clone()).collect();
    let owners: Vec<Person> = people.into_iter().step_by(MEMBERS).collect();
    broker.restart().await;

    let is_over = AtomicBool::new(false);
    let storm = async {
        let sockets = join_all(devices.iter().map(|device| come_back(&broker, device))).await;
        is_over.store(true, Ordering::Relaxed);
        sockets
    };
    // Somebody who has nothing to do with it logs in again and again meanwhile.
    let beside = async {
        let mut logins = 0;
        while !is_over.load(Ordering::Relaxed) {
            let mut socket = bystander.connect(&broker).await;
            socket.request(Request::Ping(Nothing {})).await.unwrap();
            logins += 1;
        }
        logins
    };
    let (sockets, logins) = tokio::join!(storm, beside);
    assert!(logins >= 2, "{logins} logins beside the storm");
    assert_eq!(broker.metric("sealcast_logins_total", "accepted").await, (devices.len() + logins) as f64);
    assert_eq!(broker.metric("sealcast_connections_closed_total", "login_timeout").await, 0.0);
    eventually("the figure of all who are back", async || {
        broker.metric("sealcast_connections", "authenticated").await == devices.len() as f64
    })
    .await;
    let rss_after_mib = broker.rss_mib();
    assert!(
        rss_after_mib <= 2 * rss_before_mib + 32,
        "{rss_after_mib} MiB after the storm, {rss_before_mib} MiB with the same people before"
    );

    // They are not only back: whoever owns a chat writes, and all others of it are handed that.
    let mut sockets = sockets.into_iter();
    for mut owner in owners {
        owner.socket = sockets.next().unwrap();
        let (message, _) = owner.say().await;
        for mut member in sockets.by_ref().take(MEMBERS - 1) {
            let is_it = crowd::is_message(owner.writer.chat_id, message.envelope.message_id);
            member.push_that(|push| is_it(push).then_some(())).await;
        }
    }
}

/// People for whom the usual times are meant: their own work in this process is a part of it.
const USUAL: usize = 200;

#[tokio::test]
async fn l4_all_come_back_at_once_nobody_starves_and_memory_stays_bounded() {
    let count = trials(USUAL, 5_000);
    let times = count / USUAL;
    patiently(times, all_come_back(count, times * 10)).await;
}
