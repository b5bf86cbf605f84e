//! One world: three users, two chats, and devices that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::client::{ClientError, NewAccount, Unlocked};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Authenticate, Request, login_bytes};
use sealcast::protocol::ids::{ChatId, Seq, UserId};
use sealcast::protocol::log::LogEntry;
use tokio::task::JoinHandle;

use super::super::passwords::password;
use super::super::support::broker::Broker;
use super::super::support::chat::whole_log;
use super::super::support::clients::{new_account, read_all, texts};
use super::super::support::database::Database;
use super::super::support::device::Socket;
use super::super::support::rng::Rng;
use super::super::support::{eventually, within};
use super::devices::{Device, PASSWORD, Stay};
use super::judge::{self, Tally, Witness};
use super::kept;
use super::script::Part;

/// One world of so many has a user with a password, whose history needs no device.
const WITH_PASSWORD: u64 = 5;

/// Steps of a device, at most and at least.
const STEPS: (u64, u64) = (2, 6);

/// Devices of one world, at most: the first of each user among them.
const DEVICES_MAX: usize = 9;

pub struct User {
    pub name: String,
    user_id: UserId,
}

pub struct World {
    number: usize,
    server: String,
    pub users: Vec<User>,
    /// The owner of each is the user of its number, who stays.
    pub chats: Vec<ChatId>,
    /// Whether the first user has a password.
    has_password: bool,
    lately: Mutex<Lately>,
    broker: Arc<Broker>,
    database: Arc<Database>,
}

/// What changes in a world.
#[derive(Default)]
struct Lately {
    devices: Vec<Arc<Device>>,
    acting: Vec<JoinHandle<()>>,
    /// Whatever was said, acknowledged or not, and by whom.
    said: BTreeMap<String, usize>,
}

impl World {
    /// The first devices, and the chats; who acts first is drawn.
    pub async fn begin(number: usize, mut rng: Rng, broker: &Arc<Broker>, database: &Arc<Database>) -> Arc<Self> {
        let has_password = rng.below(WITH_PASSWORD) == 0;
        let names: Vec<String> = ["ada", "bob", "carol"].iter().map(|name| format!("{name}-{number}")).collect();
        let mut first = Vec::new();
        for (user, name) in names.iter().enumerate() {
            first.push(Arc::new(
                Device::register(user, new_account(&broker.public, name), user == 0 && has_password).await,
            ));
        }
        let mut chats = Vec::new();
        for (device, other) in first.iter().zip(&names[1..]) {
            let chat_id = device.client.create_chat("world").await.unwrap();
            if rng.chance(700) {
                device.client.add_member(chat_id, other, true, true).await.unwrap();
            }
            chats.push(chat_id);
        }
        let users = names.into_iter().zip(&first);
        let users = users.map(|(name, device)| User { name, user_id: device.client.user_id() }).collect();
        let world = Arc::new(Self {
            number,
            server: broker.public.clone(),
            users,
            chats,
            has_password,
            lately: Mutex::default(),
            broker: Arc::clone(broker),
            database: Arc::clone(database),
        });
        for device in first {
            world.lately().devices.push(Arc::clone(&device));
            world.let_act(device, &mut rng);
        }
        world
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, user: usize) -> NewAccount {
        new_account(&self.server, &self.users[user].name)
    }

    /// Lets a device act beside all others.
    pub fn let_act(self: &Arc<Self>, device: Arc<Device>, rng: &mut Rng) {
        let steps = rng.between(STEPS.0, STEPS.1);
        let part = Part { world: Arc::clone(self), device, rng: Rng::new(rng.next()), said: Vec::new() };
        self.lately().acting.push(tokio::task::spawn_local(part.act(steps)));
    }

    /// A text that nobody has said before.
    pub fn text(&self, device: &Device) -> String {
        let said = &mut self.lately().said;
        let text = format!("{}-{}", self.number, said.len());
        said.insert(text.clone(), device.user);
        text
    }

    pub fn devices_of(&self, user: usize) -> Vec<Arc<Device>> {
        self.lately().devices.iter().filter(|device| device.user == user).cloned().collect()
    }

    /// What a user with a password must do before what the identity key alone may do.
    pub async fn unlock(&self, device: &Device) -> Result<Option<Unlocked>, ClientError> {
        if !self.has_password || device.user != 0 {
            return Ok(None);
        }
        device.client.unlock(&password(PASSWORD)).await.map(Some)
    }

    /// One more device of the same user, if there is room; its session lives so long.
    pub async fn come(&self, host: &Device, ttl: Option<Duration>) -> Result<Option<Arc<Device>>, ClientError> {
        if self.lately().devices.len() >= DEVICES_MAX {
            return Ok(None);
        }
        let account = self.account(host.user);
        let has_password = self.has_password && host.user == 0;
        let device = if has_password && ttl.is_none() {
            Device::log_in(host.user, account).await?
        } else {
            let _unlocked = self.unlock(host).await?;
            host.link(account, ttl).await?
        };
        let device = Arc::new(device);
        self.lately().devices.push(Arc::clone(&device));
        Ok(Some(device))
    }

    /// Until everybody has done what they would; then everybody reads, and it is judged.
    pub async fn live_and_be_judged(self: Arc<Self>) -> Tally {
        loop {
            let Some(acting) = self.lately().acting.pop() else { break };
            if let Err(error) = acting.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let mut devices = self.lately().devices.clone();
        let logs = self.logs(&devices).await;
        // The logs were asked for in the name of sessions of which each has one connection.
        for device in devices.iter_mut().filter(|device| device.stay == Stay::First) {
            *device = Arc::new(device.begin_again().await);
        }
        let mut witnesses = Vec::new();
        for device in &devices {
            let read = self.read(device, &logs).await;
            device.close().await;
            witnesses.push((device, read));
        }
        let copies = kept::copies(&self.database, &self.chats).await;
        let witnesses: Vec<Witness> = witnesses
            .into_iter()
            .map(|(device, read)| Witness {
                user_id: self.users[device.user].user_id,
                session_id: device.client.session_id(),
                opened: device.keyring.open(&copies),
                read,
            })
            .collect();
        let said = std::mem::take(&mut self.lately().said);
        let said = said.into_iter().map(|(text, user)| (text, self.users[user].user_id)).collect();
        let mut tally = Tally::default();
        for (chat_id, log) in &logs {
            tally += judge::judge(*chat_id, log, &witnesses, &said);
        }
        if self.has_password {
            tally += self.recover(&logs).await;
        }
        tally
    }

    /// Each chat as its owner is shown it, after everybody who can has said a last word.
    async fn logs(&self, devices: &[Arc<Device>]) -> BTreeMap<ChatId, Vec<LogEntry>> {
        let mut logs = BTreeMap::new();
        for (user, chat_id) in self.chats.iter().enumerate() {
            let owner = devices.iter().find(|device| device.user == user && device.stay == Stay::First).unwrap();
            let last = within("the owner's last word", owner.client.send(*chat_id, &self.text(owner))).await.unwrap();
            let (session_id, secrets) = owner.keyring.session();
            let mut socket = Socket::open(&self.broker, Encoding::MessagePack).await;
            let bytes = login_bytes(&socket.hello.nonce, &socket.hello.server_name, session_id);
            let login = Authenticate { session_id, signature: secrets.sign(&bytes) };
            socket.request(Request::Authenticate(login)).await.unwrap();
            let log = whole_log(&mut socket, *chat_id).await;
            assert_eq!(log.last().map(|entry| entry.seq), Some(last.seq), "all is quiet");
            logs.insert(*chat_id, log);
        }
        logs
    }

    /// What a device that is still there reads of its chats by the library; nothing of one whose session is over. The first
    /// of each user is there to the end.
    async fn read(&self, device: &Device, logs: &BTreeMap<ChatId, Vec<LogEntry>>) -> BTreeMap<ChatId, Vec<String>> {
        let mut read = BTreeMap::new();
        if let Err(reason) = within("a device to be live or over", device.client.live()).await {
            assert_ne!(device.stay, Stay::First, "{reason}");
            return read;
        }
        let (user_id, session_id) = (self.users[device.user].user_id, device.client.session_id());
        for (chat_id, log) in logs {
            if judge::Roster::at_the_end(log).is_in(user_id, session_id) {
                let last = log.last().map(|entry| entry.seq);
                eventually("the end of a log", async || device.client.head(*chat_id).map(|head| head.seq) >= last)
                    .await;
                let mut page = read_all(&device.client, *chat_id, 200).await;
                // What was said before this user came, and edited since.
                page.messages.append(&mut page.edits);
                read.insert(*chat_id, texts(&page));
            }
        }
        read
    }

    /// Nobody is online, no device is left, and nobody has handed anything on: the password alone reads everything that
    /// was said while its user had a user key.
    async fn recover(&self, logs: &BTreeMap<ChatId, Vec<LogEntry>>) -> Tally {
        let user_id = self.users[0].user_id;
        let lose = "DELETE FROM vault_backup_session_keys WHERE session_id IN (SELECT id FROM user_sessions WHERE user_id = $1)";
        self.database.client().await.execute(lose, &[&user_id.0]).await.unwrap();
        let ada = match Device::log_in(0, self.account(0)).await {
            Ok(ada) => ada,
            Err(ClientError::TooManySessions { .. }) => return Tally::default(),
            Err(error) => panic!("a login by the password: {error}"),
        };
        within("the recovery", ada.client.recovered()).await.expect("it came to its end");
        let mut tally = Tally::default();
        for (chat_id, log) in logs {
            if !judge::Roster::at_the_end(log).is_member(user_id) {
                continue;
            }
            eventually("the chat", async || {
                ada.client.head(*chat_id).map(|head| head.seq) >= log.last().map(|entry| entry.seq)
            })
            .await;
            let page = read_all(&ada.client, *chat_id, 200).await;
            assert!(page.alarms.is_empty(), "{:?}", page.alarms);
            let locked: BTreeSet<Seq> = page.locked_messages.iter().map(|message| message.seq).collect();
            for (seq, is_archived) in judge::readable(log, user_id) {
                // While the user key was withdrawn, senders were told that its user is out of reach.
                assert!(!is_archived || !locked.contains(&seq), "{chat_id} {seq:?}: {:?}", page.locked_messages);
                tally.recovered += usize::from(!locked.contains(&seq));
            }
        }
        ada.close().await;
        tally
    }
}
