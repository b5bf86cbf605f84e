//! L14: words that are known to nobody but the people who say them, looked for wherever the server could have put them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sealcast::client::{Client, MemoryStorage, NewAccount, PendingLink, Progress, ReceiptsTo, Signal};
use sealcast::crypto::friends::open_share;
use sealcast::crypto::opaque::Password;
use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Authenticate, LookupUser, Request, login_bytes};
use sealcast::protocol::friends::SignedShareSet;
use sealcast::protocol::username::Username;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::super::friends;
use super::super::super::passwords::open;
use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::{submit, view};
use super::super::super::support::clients::{config, register};
use super::super::super::support::device::{Device, Socket, sign};
use super::super::super::support::library::caught_up;
use super::super::super::support::{eventually, within};

/// What no part of the server may ever hold: content, and what strangers put where it does not belong.
const SECRETS: [&str; 15] = [
    "CANARYTITLE",
    "CANARYTEXT",
    "CANARYEDIT",
    "CANARYREPLY",
    "CANARYEMOJI",
    "CANARYLABEL",
    "CANARYNAME",
    "CANARYMAIL",
    "CANARYABOUT",
    "CANARYFRAME",
    "CANARYHEADER",
    "CANARYBODY",
    "CANARYGOODBYE",
    "CANARYSECRETNAME",
    "CANARYSECRETVALUE",
];

/// What the database holds, and nothing else may.
const NAMES: [&str; 8] =
    ["canaryada", "canarybob", "canarycarol", "canarydan", "canaryerin", "canaryfay", "canarygus", "canaryhal"];

/// Stands for ciphertext: in the database, and in no log.
const SEALED: &str = "CANARYSEALED";

/// A server with a data folder, and where its log goes.
struct Watched {
    folder: TempDir,
    data: PathBuf,
    runs: usize,
    /// What the metrics said before each end.
    metrics: String,
}

impl Watched {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sealcast-it-").tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let data = folder.path().join("data");
        Self { folder, data, runs: 0, metrics: String::new() }
    }

    /// One run, with everything logged that can be.
    async fn run(&mut self) -> Broker {
        self.runs += 1;
        let format = if self.runs.is_multiple_of(2) { "json" } else { "text" };
        let settings = Settings::default()
            .with("data_dir", self.data.display())
            .with("log.filter", "trace")
            .with("log.format", format)
            .with("drain.retry_spread_ms", 100);
        Broker::start_logging(settings, &self.log(self.runs)).await
    }

    fn log(&self, run: usize) -> PathBuf {
        self.folder.path().join(format!("broker-{run}.log"))
    }

    async fn note_metrics(&mut self, broker: &Broker) {
        self.metrics += &broker.operator_get("/metrics").await.1;
    }

    async fn client(&self) -> tokio_postgres::Client {
        let pid = std::fs::read_to_string(self.data.join("postgres/postmaster.pid")).unwrap();
        let lines: Vec<&str> = pid.lines().collect();
        let url = format!("host={} port={} user=sealcast dbname=sealcast", lines[4], lines[3]);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// What the first column of a query has.
    async fn bytes(&self, query: &str) -> Vec<Vec<u8>> {
        let rows = self.client().await.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Every row of every table, as text.
    async fn dump(&self) -> String {
        let client = self.client().await;
        let tables = "SELECT table_schema || '.' || table_name FROM information_schema.tables \
             WHERE table_type = 'BASE TABLE' AND table_schema <> 'information_schema'";
        let mut dump = String::new();
        for row in client.query(tables, &[]).await.unwrap() {
            let table: String = row.get(0);
            for row in client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.unwrap() {
                dump += row.get::<_, &str>(0);
                dump.push('\n');
            }
        }
        dump
    }
}

/// How a word may stand in a text: as it is, in hex, as a list of numbers, or in base64 at any of the three places in a
/// group.
fn forms(word: &[u8]) -> Vec<String> {
    let hex: String = word.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = word.iter().map(u8::to_string).collect();
    let mut forms = vec![hex.to_uppercase(), hex, numbers.join(", "), numbers.join(",")];
    forms.extend(String::from_utf8(word.to_vec()));
    for before in 0..3 {
        for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
            let text = engine.encode([vec![0; before], word.to_vec()].concat());
            // Digits that depend on what stands before or after say nothing.
            let whole = (before * 8).div_ceil(6)..(before + word.len()) * 8 / 6;
            forms.push(text[whole].to_owned());
        }
    }
    forms
}

fn holds(text: &str, word: &[u8]) -> bool {
    forms(word).iter().any(|form| text.contains(form.as_str()))
}

/// What stands around a word.
fn around(text: &str, word: &[u8]) -> String {
    let place = forms(word).iter().find_map(|form| text.find(form.as_str())).unwrap_or_default();
    text.char_indices().filter(|(at, _)| at + 400 > place && *at < place + 200).map(|(_, char)| char).collect()
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}

fn everything_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(everything_below(&path)) } else { found.push(path) }
    }
    found
}

/// Two people with all that they can say to each other.
async fn people(broker: &Broker) -> (Client, Client, String) {
    let (ada, bob) = (register(broker, "canaryada").await, register(broker, "canarybob").await);
    let account = NewAccount { server: broker.public.clone(), username: "canaryada".to_owned(), ttl: None };
    let storage = Arc::new(MemoryStorage::default());
    let pending = PendingLink::begin(config(), account, storage).await.unwrap();
    let code = pending.code();
    ada.approve_session(&code.parse().unwrap(), None).await.unwrap();
    let phone = within("a linked device", pending.wait()).await.unwrap();
    within("a live device", phone.live()).await.unwrap();
    ada.set_label(phone.session_id(), "CANARYLABEL").await.unwrap();

    let chat_id = ada.create_chat("CANARYTITLE").await.unwrap();
    let seq = ada.add_member(chat_id, "canarybob", true, false).await.unwrap();
    caught_up(&bob, chat_id, seq).await;
    let first = ada.send(chat_id, "CANARYTEXT").await.unwrap();
    ada.edit(chat_id, first.message_id, "CANARYEDIT").await.unwrap();
    caught_up(&bob, chat_id, first.seq).await;
    bob.reply(chat_id, first.message_id, "CANARYREPLY").await.unwrap();
    let reaction = bob.react(chat_id, first.message_id, "CANARYEMOJI").await.unwrap();
    assert!(bob.signal(chat_id, Signal::Typing).await.unwrap());
    bob.mark_read(chat_id, first.seq, ReceiptsTo::Everybody).await.unwrap();
    let doomed = ada.send(chat_id, "CANARYTEXT").await.unwrap();
    ada.delete_message(chat_id, doomed.message_id).await.unwrap();
    caught_up(&phone, chat_id, reaction.seq).await;
    ada.set_profile(Some("CANARYNAME"), Some("CANARYMAIL"), Some("CANARYABOUT")).await.unwrap();
    let name = async |client: &Client| client.profile(ada.user_id()).await.ok().flatten().and_then(|said| said.name);
    for reader in [&bob, &phone] {
        eventually("the profile", async || name(reader).await.as_deref() == Some("CANARYNAME")).await;
    }
    ada.block("canarybob").await.unwrap();
    assert!(ada.lookup("canarynobody").await.is_err());
    ada.revoke_session(phone.session_id()).await.unwrap();
    (ada, bob, code)
}

/// A user with a password, and a group secret that is made, sealed again and read.
async fn secrets(broker: &Broker, ada: &Client) -> Client {
    let account = NewAccount { server: broker.public.clone(), username: "canaryerin".to_owned(), ttl: None };
    let password = Password::new("the canary's own password".to_owned()).unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let registering = Client::register_with_password(config(), account, &password, storage);
    let erin = within("a registration", registering).await.unwrap();
    within("a live client", erin.live()).await.unwrap();
    let chat_id = erin.create_chat("CANARYTITLE").await.unwrap();
    let mut open = within("open secrets", erin.open_secrets(chat_id, &password)).await.unwrap();
    let secret_id = open.write("CANARYSECRETNAME", b"CANARYSECRETVALUE").await.unwrap();
    let seq = erin.add_member(chat_id, "canaryada", true, false).await.unwrap();
    caught_up(ada, chat_id, seq).await;
    let open = within("open secrets", erin.open_secrets(chat_id, &password)).await.unwrap();
    assert_eq!(open.read(secret_id).await.unwrap().1.as_slice(), b"CANARYSECRETVALUE");
    erin
}

/// What recovery by friends brings to the server, and what it must not.
struct Shared {
    /// The recovery code and its shares in the clear, and the code of the request, which people tell one another.
    secrets: Vec<(&'static str, Vec<u8>)>,
    /// Shares as they are wrapped to friends, and as friends gave them.
    sealed: Vec<(&'static str, Vec<u8>)>,
    people: [Client; 3],
}

/// A recovery code that is shared with two friends, both of whom give their shares to a request.
async fn shared(broker: &Broker, watched: &Watched) -> Shared {
    let fay = friends::register(broker, "canaryfay").await;
    let (gus, hal) = (friends::register(broker, "canarygus").await, friends::register(broker, "canaryhal").await);
    friends::chat_with(&fay, &[&gus, &hal]).await;
    let code = friends::share(&fay, 2, &["canarygus", "canaryhal"]).await.to_text().to_string();
    let recovery = friends::ask(broker, "canaryfay").await;
    for friend in [&gus, &hal] {
        friends::approve(friend, &recovery).await.unwrap();
    }
    let Progress::Complete(_) = recovery.look().await.unwrap() else { panic!("two of two") };
    let told = recovery.code().to_string();
    let mut secrets = vec![
        ("recovery code", code.as_bytes().to_vec()),
        ("recovery code's bytes", friends::bytes_of_code(&code)[..32].to_vec()),
        ("code of a request", told.as_bytes().to_vec()),
        ("code of a request without hyphens", told.replace('-', "").into_bytes()),
        ("code of a request's bytes", friends::bytes_of_code(&told)),
    ];
    let mut sealed = Vec::new();
    for given in watched.bytes("SELECT sealed FROM recovery_releases").await {
        sealed.push(("share that was given", given));
    }
    let set: SignedShareSet = rmp_serde::from_slice(&watched.bytes("SELECT body FROM share_sets").await[0]).unwrap();
    for friend in [&gus, &hal] {
        let user_id = friend.user_id();
        let wrap =
            format!("SELECT key FROM vault_backup_session_keys WHERE kind = 'share' AND holder_user_id = '{user_id}'");
        let wrap = watched.bytes(&wrap).await.remove(0);
        let (_, opened) =
            open(broker, friend.username().as_str(), &friends::password_of(friend.username().as_str())).await;
        let key = WrappedKey::try_from(wrap.as_slice()).unwrap();
        let share = open_share(&set.set, user_id, &key, &opened.user_keys[&opened.active]).unwrap();
        secrets.push(("share", share.expose().to_vec()));
        sealed.push(("wrapped share", wrap));
    }
    assert_eq!((secrets.len(), sealed.len()), (7, 4));
    Shared { secrets, sealed, people: [fay, gus, hal] }
}

/// Frames that are wrong in every way there is, with words in them that nobody is to repeat.
async fn bad_frames(broker: &Broker, device: &Device) {
    for encoding in Encoding::ALL {
        let mut socket = device.connect_with(broker, encoding).await;
        let texts = [
            r#"{"id":901,"type":"CANARYFRAME","data":{}}"#.to_owned(),
            r#"{"id":902,"type":"lookup_user","data":{"username":"CANARYFRAME CANARYFRAME"}}"#.to_owned(),
            r#"{"id":903,"type":"lookup_user","data":{"username":"canarydan","CANARYFRAME":"CANARYFRAME"}}"#.to_owned(),
            r#"{"id":904,"type":"send","data":"CANARYFRAME"}"#.to_owned(),
            r#"{"id":905,"type":"send","data":{"chat_id":"CANARYFRAME","envelope":["CANARYFRAME"]}}"#.to_owned(),
            r#"{"id":"CANARYFRAME"}"#.to_owned(),
            "CANARYFRAME {".to_owned(),
        ];
        for text in texts {
            let frame = match encoding {
                Encoding::Json => Message::text(text),
                Encoding::MessagePack => {
                    let value = serde_json::from_str::<serde_json::Value>(&text);
                    Message::binary(value.map_or(text.into_bytes(), |value| rmp_serde::to_vec_named(&value).unwrap()))
                }
            };
            socket.send_raw(frame).await;
        }
        let username = Username::parse("canarydan").unwrap();
        assert!(socket.request(Request::LookupUser(LookupUser { username })).await.is_err(), "it goes on");
        let of_the_other = match encoding {
            Encoding::Json => Message::binary(b"CANARYFRAME".to_vec()),
            Encoding::MessagePack => Message::text("CANARYFRAME"),
        };
        socket.send_raw(of_the_other).await;
        socket.close_code().await;
        let mut socket = device.connect_with(broker, encoding).await;
        socket.send_raw(Message::Ping(b"CANARYFRAME".to_vec().into())).await;
        let goodbye = CloseFrame { code: 4_321.into(), reason: "CANARYGOODBYE".into() };
        socket.send_raw(Message::Close(Some(goodbye))).await;
        socket.close_code().await;
    }
}

/// Requests over HTTP, good and bad, with words in every part of them.
async fn bad_requests(broker: &Broker) {
    for (method, path, body) in [
        ("POST", "/v1/accounts", "CANARYBODY"),
        ("POST", "/v1/accounts", r#"{"username":"CANARYBODY CANARYBODY"}"#),
        ("POST", "/v1/accounts?token=CANARYHEADER", "{}"),
        ("POST", "/v1/links", r#"{"user_id":"CANARYBODY"}"#),
        ("GET", "/CANARYHEADER/CANARYHEADER?CANARYHEADER", ""),
        ("CANARYHEADER", "/v1/accounts", ""),
        ("GET", "/v1/socket?token=CANARYHEADER", ""),
    ] {
        assert!(broker.request(method, path, body).await.0 >= 400, "{method} {path}");
    }
    for head in [
        "GET /v1/socket HTTP/1.1\r\nhost: CANARYHEADER\r\nauthorization: Bearer CANARYHEADER\r\ncookie: a=CANARYHEADER\r\n\
         origin: https://CANARYHEADER\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: CANARYHEADER\r\n\r\n",
        "GET /v1/socket HTTP/1.1\r\nhost: here\r\nupgrade: CANARYHEADER\r\nconnection: upgrade\r\n\
         sec-websocket-version: CANARYHEADER\r\nsec-websocket-key: CANARYHEADER\r\nconnection: close\r\n\r\n",
        "CANARYHEADER\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: here\r\nCANARYHEADER CANARYHEADER\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = within("the end of a bad request", stream.read_to_end(&mut answer)).await;
    }
}

#[tokio::test]
async fn l14_canaries_are_in_no_log_no_metric_and_no_dump() {
    let mut watched = Watched::new();
    let mut broker = watched.run().await;
    let (ada, bob, code) = people(&broker).await;
    let erin = secrets(&broker, &ada).await;
    let shared = shared(&broker, &watched).await;

    // The same by the bare protocol, where what is sealed and signed is known.
    let (carol, dan) = (Device::register(&broker, "canarycarol").await, Device::unregistered("canarydan", 86_400));
    let taken = Device::unregistered("canarycarol", 86_400);
    let body = serde_json::to_string(&taken.registration()).unwrap();
    assert_eq!(broker.request("POST", "/v1/accounts", &body).await.0, 409);
    let mut socket = Socket::open(&broker, Encoding::Json).await;
    let nonce = socket.hello.nonce;
    let signature = sign(&carol.signing, &login_bytes(&nonce, &socket.hello.server_name, carol.session_id));
    let login = Authenticate { session_id: carol.session_id, signature };
    socket.request(Request::Authenticate(login)).await.unwrap();
    let chat_id = carol.create_chat(&mut socket).await;
    assert!(carol.add(&mut socket, chat_id, &dan).await.is_err());
    let now = view(&mut socket, chat_id).await;
    let mut key = carol.sender_key(&now, chat_id);
    let message = carol.seal(&now, &mut key, SEALED.as_bytes());
    let copy = key.copies[0].key;
    let mut forged = message.clone();
    forged.envelope.sender_session_id = dan.session_id;
    assert!(submit(&mut socket, forged).await.is_err());
    submit(&mut socket, message).await.unwrap();
    bad_frames(&broker, &carol).await;
    bad_requests(&broker).await;
    watched.note_metrics(&broker).await;

    // An end in order, one without any, and one of the database alone.
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
    let Shared { secrets: shared_secrets, sealed: shared_sealed, people: friends } = shared;
    drop((ada, bob, erin, friends));
    let mut broker = watched.run().await;
    carol.connect_live(&broker).await;
    watched.note_metrics(&broker).await;
    broker.kill();
    let mut broker = watched.run().await;
    let mut socket = carol.connect_live(&broker).await;
    let pid = std::fs::read_to_string(watched.data.join("postgres/postmaster.pid")).unwrap();
    let killed = std::process::Command::new("kill").args(["-9", pid.lines().next().unwrap()]).status().unwrap();
    assert!(killed.success());
    let now = eventually_view(&mut socket, chat_id).await;
    let mut key = carol.sender_key(&now, chat_id);
    let message = carol.seal(&now, &mut key, SEALED.as_bytes());
    eventually("a message to be taken", async || submit(&mut socket, message.clone()).await.is_ok()).await;
    watched.note_metrics(&broker).await;
    let dump = watched.dump().await;
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));

    let mut logs: Vec<(String, String)> =
        (1..=watched.runs).map(|run| (format!("log {run}"), read(&watched.log(run)))).collect();
    assert!(logs.iter().all(|(_, log)| !log.is_empty()), "there is something to search");
    assert!(logs[0].1.contains("TRACE") && logs[0].1.contains("draining"), "everything was logged");
    logs.push(("postgres' log".to_owned(), read(&watched.data.join("postgres.log"))));
    logs.push(("metrics".to_owned(), std::mem::take(&mut watched.metrics)));
    let mut tokens = vec![
        ("nonce", nonce.as_ref()),
        ("signature", signature.as_ref()),
        ("copy of a key", copy.as_ref()),
        ("link code", code.as_bytes()),
        ("ciphertext", SEALED.as_bytes()),
    ];
    tokens.extend(shared_secrets.iter().chain(&shared_sealed).map(|(what, token)| (*what, token.as_slice())));
    for (place, log) in &logs {
        for word in SECRETS.iter().chain(&NAMES) {
            assert!(!holds(log, word.as_bytes()), "{word} in {place}: {}", around(log, word.as_bytes()));
        }
        for (what, token) in &tokens {
            assert!(!holds(log, token), "a {what} in {place}: {}", around(log, token));
        }
    }
    for word in SECRETS.iter().chain([&code.as_str()]) {
        assert!(!holds(&dump, word.as_bytes()), "{word} in the dump");
    }
    for (what, secret) in &shared_secrets {
        assert!(!holds(&dump, secret), "a {what} in the dump");
    }
    for file in everything_below(&watched.data) {
        let text = read(&file);
        // Nearly every file has none of them.
        if holds(&text, b"CANARY") {
            for word in SECRETS {
                assert!(!holds(&text, word.as_bytes()), "{word} in {}", file.display());
            }
        }
    }
    // The search finds what is there.
    for word in ["canaryada", "canarybob", "canarycarol", SEALED] {
        assert!(holds(&dump, word.as_bytes()), "{word} is not in the dump");
    }
    for (what, sealed) in &shared_sealed {
        assert!(holds(&dump, sealed), "a {what} is not in the dump");
    }
}

/// The chat as it is once the database answers again.
async fn eventually_view(
    socket: &mut Socket,
    chat_id: sealcast::protocol::ids::ChatId,
) -> super::super::super::support::chat::View {
    let newest = sealcast::protocol::ids::Seq::saturating(u64::MAX);
    eventually("the database to answer", async || {
        super::super::super::support::chat::history(
            socket,
            chat_id,
            sealcast::protocol::frame::Direction::Before,
            newest,
            1,
        )
        .await
        .is_ok()
    })
    .await;
    view(socket, chat_id).await
}

#[test]
fn the_search_finds_a_word_in_every_form() {
    for before in 0..4 {
        let hidden = [vec![b'x'; before], b"CANARYTEXT".to_vec(), b"yz".to_vec()].concat();
        let hex: String = hidden.iter().map(|byte| format!("{byte:02x}")).collect();
        let (standard, url_safe) = (STANDARD.encode(&hidden), URL_SAFE_NO_PAD.encode(&hidden));
        let numbers = format!("{hidden:?}");
        for form in [String::from_utf8(hidden).unwrap(), hex, numbers, standard, url_safe] {
            assert!(holds(&form, b"CANARYTEXT"), "{form}");
            assert!(!holds(&form, b"CANARYTITLE"));
        }
    }
}
