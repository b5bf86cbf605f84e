//! A new device that the phone approves, at the terminal client.

use tempfile::TempDir;

use crate::support::broker::Broker;
use crate::support::database::Database;
use crate::terminal::Profile;

#[tokio::test]
async fn p8_a_laptop_that_the_phone_approves_prints_what_was_said_before_it_with_nobody_else_online() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let [phone, laptop, bob] = ["phone", "laptop", "bob"].map(|name| Profile::new(&parent, name));
    phone.register(&broker, "ada").await;
    bob.register(&broker, "bob").await;
    let chat = phone.ok(&["chat", "create", "Tea"]).await.trim().to_owned();
    phone.ok(&["send", &chat, "before bob"]).await;
    phone.ok(&["chat", "add", &chat, "bob"]).await;
    bob.ok(&["send", &chat, "from bob"]).await;
    phone.ok(&["send", &chat, "from the phone"]).await;

    let mut linking = laptop.spawn(&["session", "link", "--server", &broker.public, "ada"]);
    let code = linking.line().await;
    phone.ok(&["session", "approve", &code]).await;
    assert_eq!(linking.exit_code().await, Some(0));
    bob.ok(&["send", &chat, "after"]).await;
    let texts = |printed: &str| -> Vec<String> {
        printed.lines().filter_map(|line| line.split('\t').next_back().map(str::to_owned)).collect()
    };
    let all = ["before bob", "from bob", "from the phone", "after"];
    assert_eq!(texts(&laptop.ok(&["read", &chat]).await), all);
    assert_eq!(texts(&phone.ok(&["read", &chat]).await), all);
    assert_eq!(texts(&bob.ok(&["read", &chat]).await), all[1..]);
    let seq = |printed: &str| printed.lines().nth(1).and_then(|line| line.split('\t').next()).unwrap().to_owned();
    let second = seq(&laptop.ok(&["read", &chat]).await);
    assert_eq!(texts(&laptop.ok(&["read", &chat, "--since", &second]).await), all[2..]);
}
