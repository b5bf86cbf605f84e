//! W4: every request with a type, a field or a value that is not its own, made from the documented examples.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ClientFrame, Reply, Request, ServerFrame};
use sealcast::protocol::ids::RequestId;
use tokio_tungstenite::tungstenite::Message;

use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::trials;
use super::tree::Tree;
use super::{unharmed, unhurried};

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

/// What the broker says of a frame that is no frame.
const UNREADABLE: &str = "the frame cannot be read";

/// Fields that may be left out, by the ends of their names.
const MAY_LACK: &[&str] = &[
    ".request.data.name",
    ".request.data.label",
    ".change_membership.info_keys",
    ".info.name",
    ".info.description",
    ".profile.name",
    ".profile.email",
    ".profile.description",
    ".request.data.own_key",
    ".request.data.seal",
    ".request.data.new_key",
    ".new_key.staged",
    ".request.data.add_copies",
    ".announcement.previous",
    ".envelope.key_id",
    ".envelope.data",
    ".envelope.purged",
    ".list_secrets.after",
    ".fetch_secret_log.before",
    ".secret.secret.previous",
    ".secret.secret.source",
    ".cancel_recovery_request.signature",
];

/// Fields among them that may not be nothing.
const NEVER_NIL: &[&str] = &[".change_membership.info_keys", ".request.data.add_copies"];

fn is_among(name: &str, request: &str, list: &[&str]) -> bool {
    let named = name.replace(".request.data", &format!(".request.data.{request}"));
    list.iter().any(|end| name.ends_with(end) || named.ends_with(end))
}

/// Some documented examples of each request.
fn examples(of_each: usize) -> Vec<ClientFrame> {
    let blocks = DOCUMENT.split("```json\n").skip(1).map(|part| part.split_once("```").unwrap().0);
    let mut frames: Vec<ClientFrame> = Vec::new();
    for frame in blocks.filter_map(|block| serde_json::from_str::<ClientFrame>(block).ok()) {
        let alike = frames.iter().filter(|other| other.request.name() == frame.request.name()).count();
        if alike < of_each {
            frames.push(frame);
        }
    }
    for name in Request::NAMES {
        assert!(frames.iter().any(|frame| frame.request.name() == *name), "no example of {name}");
    }
    frames
}

fn tree(encoding: Encoding, frame: &ClientFrame) -> Tree {
    let bytes = encoding.encode(frame).unwrap();
    match encoding {
        Encoding::Json => Tree::of_json(&serde_json::from_slice(&bytes).unwrap()),
        Encoding::MessagePack => Tree::of_packed(&bytes),
    }
}

fn message(encoding: Encoding, tree: &Tree) -> Message {
    let mut bytes = Vec::new();
    match encoding {
        Encoding::Json => {
            tree.write_json(&mut bytes);
            Message::text(String::from_utf8(bytes).unwrap())
        }
        Encoding::MessagePack => {
            tree.write_packed(&mut bytes);
            Message::binary(bytes)
        }
    }
}

/// What stands in the place of a value.
fn substitutes(encoding: Encoding) -> Vec<Tree> {
    let mut substitutes = vec![
        Tree::Nil,
        Tree::Bool(true),
        Tree::Number(7),
        Tree::text("x"),
        Tree::List(vec![Tree::Bool(true)]),
        Tree::Map(Vec::new()),
        Tree::Map(vec![("x".to_owned(), Tree::Nil)]),
    ];
    let raw: &[&[u8]] = match encoding {
        Encoding::Json => &[b"-1", b"1.5", b"9007199254740992", b"1e400", b",", b"\"\\ud800\"", b"tru"],
        Encoding::MessagePack => &[
            &[0xff],
            &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
            &[0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0],
            &[0xd4, 1, 0],
            &[0xc1],
            &[0xa1, 0xff],
        ],
    };
    substitutes.extend(raw.iter().map(|bytes| Tree::Raw(bytes.to_vec())));
    if encoding == Encoding::MessagePack {
        substitutes.push(Tree::Bytes(vec![0]));
    }
    substitutes
}

/// Whether a value may stand where another stood: it is of its kind, and the kind is not one whose values are few.
fn may_stand(old: &Tree, new: &Tree) -> bool {
    match (old, new) {
        // What would stand there is not known from nothing.
        (Tree::Nil, _) => true,
        (Tree::Text(_), Tree::Text(_)) => false,
        (Tree::Map(fields), Tree::Map(_)) => fields.is_empty(),
        (Tree::List(items), Tree::List(_)) => items.is_empty(),
        // A text that is no UTF-8 is read as the bytes that it is.
        (Tree::Bytes(_), Tree::Raw(bytes)) => bytes.first() == Some(&0xa1),
        (old, new) => old.is_like(new),
    }
}

/// A frame that must be refused, and how.
struct Bad {
    id: u64,
    what: String,
    message: Message,
    code: ErrorCode,
}

/// Every way in which one value of a request is wrong, is not there, or is there twice.
fn bad_frames(encoding: Encoding, frame: &ClientFrame) -> Vec<Bad> {
    let whole = tree(encoding, frame);
    let request = frame.request.name();
    let mut bad: Vec<Bad> = Vec::new();
    for way in whole.ways() {
        let (name, mut whole) = (whole.name(&way), whole.clone());
        if !name.starts_with(".request") {
            continue;
        }
        let (last, above) = way.split_last().unwrap();
        let mut add = |what: String, code: ErrorCode, whole: &Tree| {
            let (id, mut whole) = (bad.len() as u64 + 100, whole.clone());
            *whole.field("id").unwrap() = Tree::Number(id);
            bad.push(Bad { id, what: format!("{request}{name} {what}"), message: message(encoding, &whole), code });
        };
        let old = whole.at(&way).clone();
        for new in substitutes(encoding) {
            let is_nothing = new == Tree::Nil && is_among(&name, request, MAY_LACK);
            if may_stand(&old, &new) || is_nothing && !is_among(&name, request, NEVER_NIL) {
                continue;
            }
            // In MessagePack the place of a name among the lawful ones is read as the name.
            if encoding == Encoding::MessagePack && name.ends_with(".type") && matches!(new, Tree::Number(_)) {
                continue;
            }
            // In MessagePack bytes that are a text are read as one.
            let is_type = name == ".request.type" && matches!(new, Tree::Text(_) | Tree::Bytes(_));
            let code = if is_type { ErrorCode::UnknownFrame } else { ErrorCode::Malformed };
            let what = format!("is {new:?}");
            *whole.at(&way) = new;
            add(what, code, &whole);
        }
        *whole.at(&way) = old;
        let Some(fields) = whole.at(above).fields() else { continue };
        let field = fields[*last].clone();
        fields.push(field);
        add("twice".to_owned(), ErrorCode::Malformed, &whole);
        let fields = whole.at(above).fields().unwrap();
        fields.pop();
        fields.remove(*last);
        if !is_among(&name, request, MAY_LACK) {
            add("lacks".to_owned(), ErrorCode::Malformed, &whole);
        }
    }
    for other in [format!("{request}s"), request.to_uppercase(), format!(" {request}"), format!("{request}\0")] {
        let mut whole = whole.clone();
        *whole.field("request").unwrap().field("type").unwrap() = Tree::Text(other.clone());
        let id = bad.len() as u64 + 100;
        *whole.field("id").unwrap() = Tree::Number(id);
        let message = message(encoding, &whole);
        bad.push(Bad { id, what: format!("{other:?}"), message, code: ErrorCode::UnknownFrame });
    }
    bad
}

/// Sends frames that cannot be read, some at a time; each gets its answer in its turn.
async fn refused(socket: &mut Socket, bad: &[Bad]) {
    for bad in bad.chunks(32) {
        for Bad { message, .. } in bad {
            socket.send_raw(message.clone()).await;
        }
        for Bad { id, what, code, .. } in bad {
            let error = socket
                .push_that(|push| match push {
                    ServerFrame::Error(error) => Some(error.clone()),
                    ServerFrame::Ok(ok) => panic!("{what}: taken: {ok:?}"),
                    _ => None,
                })
                .await;
            let told = error.id.map_or(*id, RequestId::get);
            assert_eq!((told, error.code, error.message.as_str()), (*id, *code, UNREADABLE), "{what}");
            assert_eq!(error.details, None, "{what}");
        }
    }
}

/// The answer to a frame that can be read: the kind of the reply, or the code.
async fn answer(socket: &mut Socket, encoding: Encoding, id: u64, tree: &Tree) -> String {
    socket.send_raw(message(encoding, tree)).await;
    match socket.answer(RequestId::saturating(id)).await {
        Ok(reply) => format!("{reply:?}").split(['(', ' ']).next().unwrap().to_owned(),
        Err(error) => {
            assert_ne!(error.message, UNREADABLE, "{tree:?}");
            error.code.to_string()
        }
    }
}

/// A field that nobody knows, with more in it.
fn unknown() -> (String, Tree) {
    let deep = Tree::List(vec![Tree::Nil, Tree::Map(vec![("type".to_owned(), Tree::Number(1))])]);
    ("unknown".to_owned(), Tree::Map(vec![("id".to_owned(), Tree::text("x")), ("data".to_owned(), deep)]))
}

/// A tree with a field more in the map at the end of a way, first or last; nothing where there is no map.
fn with_unknown(tree: &Tree, way: &[usize], is_first: bool) -> Option<Tree> {
    let mut tree = tree.clone();
    let fields = tree.at(way).fields()?;
    fields.insert(if is_first { 0 } else { fields.len() }, unknown());
    Some(tree)
}

const ROWS: &str = "SELECT (SELECT count(*) FROM chats) + (SELECT count(*) FROM chat_messages) \
     + (SELECT count(*) FROM sender_keys) + (SELECT count(*) FROM user_sessions) + (SELECT count(*) FROM users)";

#[tokio::test]
async fn w4_whatever_is_wrong_in_a_request_is_told_and_the_next_one_is_answered() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let rows = database.count(ROWS).await;
    for encoding in Encoding::ALL {
        let mut socket = eve.connect_with(&broker, encoding).await;
        let mut count = 0;
        for frame in examples(trials(1, usize::MAX)) {
            let bad = bad_frames(encoding, &frame);
            count += bad.len();
            refused(&mut socket, &bad).await;
            assert!(socket.request(Request::Ping(sealcast::protocol::frame::Nothing {})).await.is_ok());
        }
        assert!(count > 1_500, "{count}");
    }
    assert_eq!(database.count(ROWS).await, rows);
    unharmed(&broker).await;
}

#[tokio::test]
async fn w4_fields_that_nobody_knows_are_ignored_wherever_they_are_and_optional_ones_may_lack() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let rows = database.count(ROWS).await;
    for encoding in Encoding::ALL {
        let mut socket = eve.connect_with(&broker, encoding).await;
        let mut id = 1_000;
        for mut frame in examples(trials(1, usize::MAX)) {
            // A second login ends the connection.
            if matches!(frame.request, Request::Authenticate(_)) {
                continue;
            }
            let request = frame.request.name();
            let mut next = || {
                id += 1;
                frame.id = RequestId::saturating(id);
                (id, tree(encoding, &frame))
            };
            let (id, whole) = next();
            let plain = answer(&mut socket, encoding, id, &whole).await;
            let ways = [vec![Vec::new()], whole.ways()].concat();
            for (index, way) in ways.iter().enumerate() {
                let (id, mut whole) = next();
                let name = whole.name(way);
                if let Some(more) = with_unknown(&whole, way, index % 2 == 0) {
                    assert_eq!(answer(&mut socket, encoding, id, &more).await, plain, "{request}{name}");
                }
                if is_among(&name, request, MAY_LACK) {
                    let (id, _) = next();
                    *whole.field("id").unwrap() = Tree::Number(id);
                    let (last, above) = way.split_last().unwrap();
                    whole.at(above).fields().unwrap().remove(*last);
                    answer(&mut socket, encoding, id, &whole).await;
                }
            }
        }
        // A login with more in every map of it is one.
        let mut socket = Socket::open(&broker, encoding).await;
        let login = ClientFrame { id: RequestId::saturating(1), request: eve.login(&socket.hello) };
        let mut whole = tree(encoding, &login);
        for way in [vec![Vec::new()], whole.ways()].concat().iter().rev() {
            whole = with_unknown(&whole, way, false).unwrap_or(whole);
        }
        socket.send_raw(message(encoding, &whole)).await;
        assert!(matches!(socket.answer(RequestId::saturating(1)).await, Ok(Reply::Authenticated(_))));
    }
    assert_eq!(database.count(ROWS).await, rows);
    unharmed(&broker).await;
}

#[tokio::test]
async fn w3_a_length_that_lies_is_malformed_wherever_it_stands_and_costs_nothing() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let mut socket = eve.connect_with(&broker, Encoding::MessagePack).await;
    let before_mib = broker.rss_mib();
    let most = [0xff; 4];
    for frame in examples(1) {
        let whole = tree(Encoding::MessagePack, &frame);
        let mut bad = Vec::new();
        for way in whole.ways() {
            // Maps, lists, bytes, texts and extensions that say how much comes, and nothing of it does.
            for kind in [0xdf, 0xdd, 0xc6, 0xdb, 0xc9] {
                let mut lie = whole.clone();
                *lie.at(&way) = Tree::Raw([&[kind], &most[..]].concat());
                let what = format!("{}{} declares {kind:#x}", frame.request.name(), whole.name(&way));
                let id = frame.id.get();
                bad.push(Bad { id, what, message: message(Encoding::MessagePack, &lie), code: ErrorCode::Malformed });
            }
        }
        refused(&mut socket, &bad).await;
    }
    assert!(socket.request(Request::Ping(sealcast::protocol::frame::Nothing {})).await.is_ok());
    let grown_mib = broker.rss_mib().saturating_sub(before_mib);
    assert!(grown_mib < 24, "{grown_mib} MiB for lies");
    unharmed(&broker).await;
}
