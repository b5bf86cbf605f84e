//! The operator's status page, in a real browser.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use sealcast::protocol::frame::Request;

use super::messages::Pair;
use super::support::chat::view;
use super::support::{eventually, within};

/// What a browser is called, by distribution.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Where the screenshot of the README goes, when one is to be made.
const SCREENSHOT: &str = "SEALCAST_SCREENSHOT";

/// Runs a browser without a window on a page, until its own clock has gone on by so many milliseconds; gives what it prints.
async fn browse(folder: &Path, url: &str, milliseconds: u32, arguments: &[String]) -> String {
    for browser in BROWSERS {
        let mut command = Command::new(browser);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"])
            .arg(format!("--virtual-time-budget={milliseconds}"))
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .args(arguments)
            .arg(url)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        match command.output().await {
            Ok(output) => {
                assert!(output.status.success(), "{browser}: {}", output.status);
                return String::from_utf8(output.stdout).unwrap();
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{browser}: {error}"),
        }
    }
    panic!("missing: chromium; apt-get install chromium, see tests/all.sh");
}

async fn dump(folder: &Path, url: &str, milliseconds: u32) -> String {
    within("a browser", browse(folder, url, milliseconds, &["--dump-dom".to_owned()])).await
}

/// The text of the element with this id, tags left out.
fn text_of(page: &str, id: &str) -> String {
    let inner = page.split_once(&format!("id=\"{id}\"")).and_then(|(_, rest)| rest.split_once('>')).unwrap().1;
    let inner = inner.split("</ul>").next().unwrap().split("</h2>").next().unwrap();
    inner.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect::<Vec<_>>().join(" ")
}

/// The most that a chart shows; its newest figure may be of a second without a message.
fn most(page: &str, title: &str) -> String {
    let card = page.split_once(&format!("<h3>{title}</h3>")).unwrap_or_else(|| panic!("no chart {title}")).1;
    let most = card.split_once("<p class=\"scale\"><span>").and_then(|(_, rest)| rest.split_once("</span>")).unwrap().0;
    most.strip_prefix("at most ").unwrap_or_else(|| panic!("{title}: {most}")).to_owned()
}

#[tokio::test]
async fn the_status_page_shows_live_figures_and_says_when_it_is_not_well() {
    let mut pair = Pair::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{}/", pair.broker.operator);
    for path in ["/", "/style.css", "/script.js", "/icon.svg"] {
        assert_eq!(pair.broker.request("GET", path, "").await.0, 404, "{path} is not for the public");
    }
    let picture = folder.path().join("page.png");
    let shot = [format!("--screenshot={}", picture.display()), "--window-size=1280,1180".to_owned()];
    let look = async {
        let page = dump(folder.path(), &url, 12_000).await;
        within("a screenshot", browse(folder.path(), &url, 45_000, &shot)).await;
        page
    };
    tokio::pin!(look);
    let mut said = 0;
    let page = loop {
        tokio::select! {
            biased;
            page = &mut look => break page,
            // Some pause, or the browser gets no processor time.
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
        }
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "seen as a number alone").await.unwrap();
        said += 1;
    };
    assert!(said > 0);
    assert_eq!(text_of(&page, "sentence"), "All is well", "{page}");
    assert!(text_of(&page, "reasons").contains("Postgres answers"), "{page}");
    for title in ["Messages committed", "Entries delivered", "From submit to commit", "Connections", "Memory"] {
        let shown = most(&page, title);
        assert!(shown.starts_with(|first: char| first.is_ascii_digit()), "{title}: {shown}");
        assert_ne!(shown, "0", "{title}");
    }
    assert!(page.contains(concat!("version ", env!("CARGO_PKG_VERSION"))));
    let (who, chat) = (pair.ada.user_id.to_string(), pair.chat_id.to_string());
    assert!(!page.contains(&who) && !page.contains(&chat), "the page names nobody");
    let png = std::fs::read(&picture).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    // A page of one colour is a few kilobytes.
    assert!(png.len() > 30_000, "{} bytes of picture", png.len());
    if let Some(place) = std::env::var_os(SCREENSHOT) {
        std::fs::copy(&picture, place).unwrap();
    }
    // A commit that waits keeps a broker that is told to go.
    let held = pair.database.hold_commits().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"held");
    pair.ada_socket.send(Request::Send(Box::new(message))).await;
    pair.database.until_held().await;
    pair.broker.signal("TERM");
    eventually("the drain", async || pair.broker.operator_get("/readyz").await.0 == 503).await;
    let page = dump(folder.path(), &url, 4_000).await;
    assert_eq!(text_of(&page, "sentence"), "Not ready");
    assert!(text_of(&page, "reasons").contains("It is going down"), "{page}");
    drop(held);
}
