//! Passwords at the terminal client.

use tempfile::TempDir;

use super::super::support::broker::Broker;
use super::super::support::database::Database;
use super::super::support::typed::{fails, ok};
use super::super::terminal::Profile;

#[tokio::test]
async fn a_device_that_is_lost_is_no_account_that_is_lost() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let server = broker.public.as_str();
    let [laptop, phone, tablet, paper] = ["laptop", "phone", "tablet", "paper"].map(|name| Profile::new(&parent, name));
    let register = ["register", "--server", server, "ada", "--password-stdin"];
    assert!(fails(&laptop, &register, "short\n").await.contains("8 characters"));
    let done = ok(&laptop, &register, "correct horse\n").await;
    assert!(!done.stderr.contains("without a password"), "{}", done.stderr);

    let login = ["login", "--server", server, "ada", "--password-stdin"];
    let wrong = fails(&phone, &login, "wrong horse\n").await;
    assert!(wrong.contains("the name, the password or the recovery code is wrong"), "{wrong}");
    ok(&phone, &login, "correct horse\r\n").await;
    let listed = phone.ok(&["session", "list"]).await;
    assert_eq!(listed.matches("\tlive\t").count(), 2, "{listed}");

    let code = ok(&phone, &["recovery-code", "--password-stdin"], "correct horse\n").await.stdout;
    assert_eq!(code.trim().split('-').count(), 14, "{code}");
    ok(&laptop, &["password", "change", "--password-stdin"], "correct horse\nbrand new horse\n").await;
    assert!(fails(&tablet, &login, "correct horse\n").await.contains("wrong"));
    ok(&tablet, &login, "brand new horse\n").await;
    let slip = code.replacen(code.chars().next().unwrap(), "@", 1);
    let by_code = ["login", "--server", server, "ada", "--password-stdin", "--recovery-code"];
    assert!(fails(&paper, &by_code, &slip).await.contains("fourteen groups"));
    ok(&paper, &by_code, &code).await;
    let reset = ["password", "change", "--password-stdin", "--recovery-code"];
    ok(&paper, &reset, &format!("{code}third horse\n")).await;
    ok(&paper, &["account", "delete", "--yes", "--password-stdin"], "third horse\n").await;
    assert_eq!(database.count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn an_account_without_a_password_is_told_what_it_gives_up() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, other) = (Profile::new(&parent, "ada"), Profile::new(&parent, "other"));
    let done = ada.run(&["register", "--server", &broker.public, "ada"]).await;
    assert_eq!(done.code, Some(0));
    assert!(
        done.stderr.contains("lost with its last device") && done.stderr.contains("`password change`"),
        "{}",
        done.stderr
    );
    assert!(ada.fails(&["recovery-code"]).await.contains("no password"));
    let nobody = other.fails(&["login", "--server", &broker.public, "ada"]).await;
    assert!(nobody.contains("no terminal") && nobody.contains("--password-stdin"), "{nobody}");
    ok(&ada, &["password", "change", "--password-stdin"], "correct horse\n").await;
    ok(&other, &["login", "--server", &broker.public, "ada", "--password-stdin"], "correct horse\n").await;
    let approve = ["session", "approve", "0000-0000-0000-0000-0000-0000", "--password-stdin"];
    assert!(fails(&ada, &approve, "wrong horse\n").await.contains("wrong"));
    assert!(fails(&ada, &approve, "correct horse\n").await.contains("no session that waits"));
}
