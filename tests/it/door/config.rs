//! `sealcast config check`, as an operator runs it.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::broker::executable;

fn check(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(executable());
    command.args(["config", "check"]).args(arguments).current_dir(folder).envs(environment.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_defaults_pass_and_are_printed_as_settings() {
    let folder = TempDir::new().unwrap();
    let output = check(folder.path(), &[], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("listen = \"127.0.0.1:8080\"") && printed.contains("[database.embedded]"), "{printed}");
    // What was printed is a file that says the same again.
    std::fs::write(folder.path().join("again.toml"), printed).unwrap();
    assert_eq!(text(&check(folder.path(), &["--config", "again.toml"], &[]).stdout), printed);
}

#[test]
fn the_file_beside_is_found_and_no_password_is_printed() {
    let folder = TempDir::new().unwrap();
    let settings = "[server]\nname = \"beside\"\n[database]\nurl = \"postgres://ada:canary@db.example/chat\"\n";
    std::fs::write(folder.path().join("config.toml"), settings).unwrap();
    let output = check(folder.path(), &[], &[]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(printed.contains("name = \"beside\"") && printed.contains("ada:(redacted)@db.example"), "{printed}");
    assert!(!printed.contains("canary"), "{printed}");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let folder = TempDir::new().unwrap();
    let settings = "[server]\nlisten_on = 1\nworkers = true\n\n[keys]\nmessages_max = 0\n";
    std::fs::write(folder.path().join("bad.toml"), settings).unwrap();
    let environment = [("SEALCAST__LOG__FORMAT", "xml"), ("SEALCAST__SERVER__NONSENSE", "1")];
    let output = check(folder.path(), &["--config", "bad.toml"], &environment);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let told = text(&output.stderr);
    for mistake in [
        "bad.toml, line 2, column 1: `server.listen_on` is no setting; there are ",
        "bad.toml, line 3, column 1: `server.workers` must be a whole number",
        "bad.toml, line 6, column 1: `keys.messages_max` is 0, but must be from 1 to 10000",
        "SEALCAST__LOG__FORMAT: `log.format` must be text or json",
        "SEALCAST__SERVER__NONSENSE: `server.nonsense` is no setting; there are ",
    ] {
        assert!(told.contains(mistake), "not told: {mistake}\n{told}");
    }
}

#[test]
fn what_a_broker_could_not_use_is_refused() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    let cases: [(&str, &str); 6] = [
        ("[drain\n", "line 1, column 7"),
        ("[server]\nname = 'a'\nname = 'b'\n", "line 3"),
        ("[server.tls]\nkey = 'key.pem'\n", "`server.tls.certificate` must be set beside server.tls.key"),
        ("[server.tls]\nkey = 'cert.pem'\ncertificate = 'cert.pem'\n", "cert.pem has no certificate"),
        ("[server.tls]\nkey = 'cert.pem'\ncertificate = 'gone.pem'\n", "gone.pem cannot be read as PEM"),
        ("[server]\ntrusted_proxies = ['10.0.0.0/8']\n", "`server.address_header` and server.trusted_proxies"),
    ];
    for (settings, expected) in cases {
        std::fs::write(folder.path().join("bad.toml"), settings).unwrap();
        let output = check(folder.path(), &["--config", "bad.toml"], &[]);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains(expected), "{settings}: {told}");
    }
    let output = check(folder.path(), &["--config", "nowhere.toml"], &[]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("nowhere.toml"));
}
