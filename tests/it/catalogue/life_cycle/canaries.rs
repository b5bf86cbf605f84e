//! L14: words that are known to nobody but the people who say them, looked for wherever the server could have put them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sealcast::client::{Client, MemoryStorage, PendingLink, ReceiptsTo, Signal};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Authenticate, LookupUser, Request, login_bytes};
use sealcast::protocol::username::Username;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::{submit, view};
use super::super::super::support::clients::{config, register};
use super::super::super::support::device::{Device, Socket, sign};
use super::super::super::support::library::caught_up;
use super::super::super::support::{eventually, within};

/// What no part of the server may ever hold: content, and what strangers put where it does not belong.
const SECRETS: [&str; 10] = [
    "CANARYTITLE",
    "CANARYTEXT",
    "CANARYEDIT",
    "CANARYREPLY",
    "CANARYEMOJI",
    "CANARYLABEL",
    "CANARYFRAME",
    "CANARYHEADER",
    "CANARYBODY",
    "CANARYGOODBYE",
];

/// What the database holds, and nothing else may.
const NAMES: [&str; 4] = ["canaryada", "canarybob", "canarycarol", "canarydan"];

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
        let format = if self.runs % 2 == 0 { "json" } else { "text" };
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

    /// Every row of every table, as text.
    async fn dump(&self) -> String {
        let pid = std::fs::read_to_string(self.data.join("postgres/postmaster.pid")).unwrap();
        let lines: Vec<&str> = pid.lines().collect();
        let url = format!("host={} port={} user=sealcast dbname=sealcast", lines[4], lines[3]);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
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

/// How a word may stand in a text or a file: as it is, in hex, or in base64 at any of the three places in a group.
fn forms(word: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = word.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![word.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..3 {
        for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
            let shifted = [vec![0; before], word.to_vec()].concat();
            let text = engine.encode(shifted);
            // Digits that depend on what stands before or after say nothing.
            let whole = (before * 8).div_ceil(6)..(before + word.len()) * 8 / 6;
            forms.push(text.as_bytes()[whole].to_vec());
        }
    }
    forms
}

fn holds(text: &[u8], word: &[u8]) -> bool {
    forms(word).iter().any(|form| text.windows(form.len()).any(|window| window == form))
}

/// What stands around a word.
fn around(text: &[u8], word: &[u8]) -> String {
    let place = forms(word).iter().find_map(|form| text.windows(form.len()).position(|window| window == form));
    let place = place.unwrap_or_default();
    String::from_utf8_lossy(&text[place.saturating_sub(400)..text.len().min(place + 200)]).into_owned()
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
    let account =
        sealcast::client::NewAccount { server: broker.public.clone(), username: "canaryada".to_owned(), ttl: None };
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
    ada.block("canarybob").await.unwrap();
    assert!(ada.lookup("canarynobody").await.is_err());
    ada.revoke_session(phone.session_id()).await.unwrap();
    (ada, bob, code)
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
    drop((ada, bob));
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

    let mut logs: Vec<(String, Vec<u8>)> =
        (1..=watched.runs).map(|run| (format!("log {run}"), std::fs::read(watched.log(run)).unwrap())).collect();
    assert!(logs.iter().all(|(_, log)| !log.is_empty()), "there is something to search");
    assert!(holds(&logs[0].1, b"TRACE") && holds(&logs[0].1, b"draining"), "everything was logged");
    logs.push(("postgres' log".to_owned(), std::fs::read(watched.data.join("postgres.log")).unwrap()));
    logs.push(("metrics".to_owned(), std::mem::take(&mut watched.metrics).into_bytes()));
    let tokens = [
        ("nonce", nonce.as_ref()),
        ("signature", signature.as_ref()),
        ("copy of a key", copy.as_ref()),
        ("link code", code.as_bytes()),
        ("ciphertext", SEALED.as_bytes()),
    ];
    for (place, log) in &logs {
        for word in SECRETS.iter().chain(&NAMES) {
            assert!(!holds(log, word.as_bytes()), "{word} in {place}: {}", around(log, word.as_bytes()));
        }
        for (what, token) in &tokens {
            assert!(!holds(log, token), "a {what} in {place}: {}", around(log, token));
        }
    }
    for word in SECRETS.iter().chain([&code.as_str()]) {
        assert!(!holds(dump.as_bytes(), word.as_bytes()), "{word} in the dump");
    }
    for file in everything_below(&watched.data) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for word in SECRETS {
            assert!(!holds(&bytes, word.as_bytes()), "{word} in {}", file.display());
        }
    }
    // The search finds what is there.
    for word in ["canaryada", "canarybob", "canarycarol", SEALED] {
        assert!(holds(dump.as_bytes(), word.as_bytes()), "{word} is not in the dump");
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
        let all = [
            hidden.clone(),
            hex.into_bytes(),
            STANDARD.encode(&hidden).into_bytes(),
            URL_SAFE_NO_PAD.encode(&hidden).into_bytes(),
        ];
        for form in all {
            assert!(holds(&form, b"CANARYTEXT"), "{}", String::from_utf8_lossy(&form));
            assert!(!holds(&form, b"CANARYTITLE"));
        }
    }
}
