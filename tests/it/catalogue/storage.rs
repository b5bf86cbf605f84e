//! Durability where the disk fails: D8 and D9, each on a file system of the test's own.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Request, Send};
use sealcast::protocol::ids::MessageId;
use sealcast_faults::Health;

use super::super::support::chat::{SenderKey, View, submit, view};
use super::super::support::device::Socket;
use super::super::support::mount::{DiskMount, SmallMount, cannot_break_disks, cannot_mount, is_skipped};
use super::super::support::{eventually, trials};
use super::private::{Private, messages};

/// Data that no database makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    getrandom::fill(&mut noise).unwrap();
    noise
}

/// Ada's connection with what she needs to send.
struct Sender {
    socket: Socket,
    now: View,
    key: SenderKey,
}

impl Sender {
    async fn of(private: &Private) -> Self {
        let mut socket = private.ada.connect_live(&private.broker).await;
        let now = view(&mut socket, private.chat_id).await;
        let key = private.ada.sender_key(&now, private.chat_id);
        Self { socket, now, key }
    }

    fn seal(&mut self, private: &Private, bytes: usize) -> Send {
        private.ada.seal(&self.now, &mut self.key, &noise(bytes))
    }
}

async fn refused(socket: &mut Socket, message: Send) {
    let refused = submit(socket, message).await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
}

async fn assert_in_log(private: &Private, acknowledged: &[MessageId]) {
    let log = private.log().await;
    let found: Vec<MessageId> = messages(&log).collect();
    assert_eq!(found, acknowledged, "what was acknowledged, in its order, and nothing else");
}

#[tokio::test]
async fn d8_a_full_disk_is_told_and_everything_goes_on_when_there_is_room() {
    if is_skipped(cannot_mount()) {
        return;
    }
    let mount = SmallMount::new(160);
    let private = Private::start(Private::settings(mount.path())).await;
    let mut acknowledged = Vec::new();
    for _ in 0..trials(1, 20) {
        let mut sender = Sender::of(&private).await;
        let message = sender.seal(&private, 100);
        acknowledged
            .push(submit(&mut sender.socket, message.clone()).await.map(|_| message.envelope.message_id).unwrap());
        let filler = mount.fill();
        // What there is room for in the files that are there is stored, and acknowledged; then no more is.
        let unsaid = loop {
            let message = sender.seal(&private, 60_000);
            match submit(&mut sender.socket, message.clone()).await {
                Ok(_) => acknowledged.push(message.envelope.message_id),
                Err(error) => {
                    assert_eq!((error.code, error.retryable), (ErrorCode::StorageUnavailable, true));
                    break message;
                }
            }
        };
        for _ in 0..3 {
            refused(&mut sender.socket, unsaid.clone()).await;
        }
        std::fs::remove_file(filler).unwrap();
        eventually("the same message to be taken on the same socket", async || {
            submit(&mut sender.socket, unsaid.clone()).await.is_ok()
        })
        .await;
        acknowledged.push(unsaid.envelope.message_id);
        let next = sender.seal(&private, 60_000);
        submit(&mut sender.socket, next.clone()).await.unwrap();
        acknowledged.push(next.envelope.message_id);
    }
    assert_in_log(&private, &acknowledged).await;
}

#[tokio::test]
async fn d9_a_disk_that_hangs_is_told_in_time_and_the_id_is_looked_up_again() {
    if is_skipped(cannot_break_disks()) {
        return;
    }
    let mount = DiskMount::new(400, false).await;
    let private = Private::start(Private::settings(&mount.path()).with("database.deadline_s", 1)).await;
    let mut sender = Sender::of(&private).await;
    let mut acknowledged = Vec::new();
    for _ in 0..trials(2, 50) {
        let first = sender.seal(&private, 100);
        submit(&mut sender.socket, first.clone()).await.unwrap();
        mount.disk.set(Health::Hanging);
        let held = sender.seal(&private, 100);
        let id = sender.socket.send(Request::Send(Box::new(held.clone()))).await;
        eventually("a commit that hangs", async || mount.disk.waiting() > 0).await;
        let answer = sender.socket.answer(id).await.unwrap_err();
        assert_eq!((answer.code, answer.retryable), (ErrorCode::StorageUnavailable, true));
        assert!(mount.disk.waiting() > 0, "it was told while the disk hung");
        assert_eq!(private.broker.operator_get("/healthz").await.0, 200);
        refused(&mut sender.socket, held.clone()).await;
        mount.disk.set(Health::Good);
        private.submit_until_taken(&held).await;
        acknowledged.extend([first.envelope.message_id, held.envelope.message_id]);
        // Reads on one's own socket go on too.
        sender = Sender::of(&private).await;
    }
    assert_in_log(&private, &acknowledged).await;
}

#[tokio::test]
async fn d9_a_disk_with_errors_is_told_and_everything_goes_on_when_it_is_well() {
    if is_skipped(cannot_break_disks()) {
        return;
    }
    let mount = DiskMount::new(400, false).await;
    let private = Private::start(Private::settings(&mount.path())).await;
    let mut acknowledged = Vec::new();
    for _ in 0..trials(1, 20) {
        let mut sender = Sender::of(&private).await;
        let first = sender.seal(&private, 100);
        submit(&mut sender.socket, first.clone()).await.unwrap();
        mount.disk.set(Health::Failing);
        let failed = sender.seal(&private, 100);
        // Postgres gives up and starts again and again, since it cannot tell what is on the disk.
        for _ in 0..3 {
            refused(&mut sender.socket, failed.clone()).await;
        }
        mount.disk.set(Health::Good);
        private.submit_until_taken(&failed).await;
        acknowledged.extend([first.envelope.message_id, failed.envelope.message_id]);
    }
    assert_in_log(&private, &acknowledged).await;
}
