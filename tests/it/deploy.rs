//! What operators are given: metrics, alert rules, dashboard, packages and the manual, read by the tools that will read them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::messages::Pair;
use super::support::broker::executable;
use super::support::chat::{submit, view};

const SOURCE: &str = include_str!("../../src/telemetry/metrics.rs");
const RULES: &str = include_str!("../../deploy/alert-rules.yml");
const RULES_TEST: &str = include_str!("../../deploy/alert-rules.test.yml");
const PROMETHEUS: &str = include_str!("../../deploy/prometheus.yml");
const DASHBOARD: &str = include_str!("../../deploy/dashboard.json");
const COMPOSE: &str = include_str!("../../deploy/compose.yml");
const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");
const UNIT: &str = include_str!("../../deploy/sealcast.service");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const CONFIG: &str = include_str!("../../config.toml");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// Runs a tool with an input, if any, in a folder.
fn run(program: &str, args: &[&str], folder: &Path, input: &[u8]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("missing: {program} ({error}); tests/all.sh says how to get it"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn succeeds(what: &str, output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {out}{err}");
}

/// The files of Prometheus in a folder of their own: the tests also run where there is no source.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in
        [("alert-rules.yml", RULES), ("alert-rules.test.yml", RULES_TEST), ("prometheus.yml", PROMETHEUS)]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The names of metrics in a text, without what a histogram adds.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'));
    let own = words.filter_map(|word| word.strip_prefix("sealcast_"));
    own.map(|name| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        base.unwrap_or(name).to_owned()
    })
    .collect()
}

fn exists(metric: &str) -> bool {
    SOURCE.contains(&format!("= \"{metric}\" ["))
}

#[tokio::test]
async fn p12_metrics_pass_promtool_and_messages_are_all_accounted_for() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for text in [&b"one"[..], b"two"] {
        let message = pair.ada.seal(&now, &mut key, text);
        submit(&mut pair.ada_socket, message).await.unwrap();
    }
    let mut stale = pair.ada.sender_key(&now, pair.chat_id);
    stale.announcement.announcement.epoch = stale.announcement.announcement.epoch.next();
    let message = pair.ada.seal(&now, &mut stale, b"of another epoch");
    submit(&mut pair.ada_socket, message).await.unwrap_err();
    let (status, text) = pair.broker.operator_get("/metrics").await;
    assert_eq!(status, 200);
    succeeds("promtool check metrics", &run("promtool", &["check", "metrics"], Path::new("/"), text.as_bytes()));
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    };
    let [submitted, committed, refused] =
        ["submitted", "committed", "refused"].map(|what| value(&format!("sealcast_messages_{what}_total")));
    assert_eq!(submitted, committed + refused + value("sealcast_messages_in_flight"));
    assert_eq!(value("sealcast_submit_seconds_count"), committed);
    for taken_in in ["hand_over_seconds_count", "sender_keys_total", "received_bytes_total", "sent_bytes_total"] {
        assert!(value(&format!("sealcast_{taken_in}")) > 0.0, "{taken_in}");
    }
    assert_eq!((committed, refused), (2.0, 1.0));
    let epochs = value("sealcast_epoch_changes_total");
    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    assert_eq!(pair.broker.metric("sealcast_epoch_changes_total", "").await, epochs + 1.0);
    let version = concat!("sealcast_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    assert_eq!(value(version), 1.0);
    assert!(value("process_open_fds") > 2.0 && value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}

#[test]
fn alert_rules_and_the_scrape_pass_promtool() {
    let folder = folder();
    for args in [
        ["check", "rules", "alert-rules.yml"],
        ["test", "rules", "alert-rules.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        succeeds(&args.join(" "), &run("promtool", &args, folder.path(), b""));
    }
    std::fs::write(folder.path().join("alert-rules.yml"), RULES.replace("== 0", "== == 0")).unwrap();
    assert!(!run("promtool", &["check", "rules", "alert-rules.yml"], folder.path(), b"").status.success());
}

#[test]
fn each_alert_has_a_paragraph_and_each_metric_that_is_named_exists() {
    let alerts: Vec<&str> = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9);
    for alert in alerts {
        assert!(OPERATIONS.contains(&format!("\n### {alert}\n")), "{alert} has no paragraph");
        let runbook = format!("runbook: docs/operations.md#{}", alert.to_lowercase());
        assert!(RULES.contains(&runbook), "{alert} does not name its paragraph");
    }
    for (what, text) in
        [("rules", RULES), ("their test", RULES_TEST), ("dashboard", DASHBOARD), ("operations", OPERATIONS)]
    {
        let unknown: Vec<_> = metrics_in(text).into_iter().filter(|metric| !exists(metric)).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    }
    assert!(!exists("messages_lost_total"));
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert!(panels.len() >= 12 && ids.len() == panels.len());
    for panel in panels {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()));
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            // With what Grafana puts in for its variables.
            let query = query.replace("$__rate_interval", "1m").replace("$instance", ".*");
            let rules =
                serde_json::json!({"groups": [{"name": "query", "rules": [{"record": "query", "expr": query}]}]});
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("query.yml"), rules.to_string()).unwrap();
            succeeds(&query, &run("promtool", &["check", "rules", "query.yml"], folder.path(), b""));
        }
    }
}

#[test]
fn the_unit_passes_systemds_own_check() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        writeln!(std::io::stderr(), "systemd-analyze is not on this machine: the unit is not checked").unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("sealcast.service");
    // Where it is not installed, the program that was built stands for it.
    let built = std::fs::canonicalize(PathBuf::from(executable())).unwrap();
    std::fs::write(&unit, UNIT.replace("/usr/local/bin/sealcast", built.to_str().unwrap())).unwrap();
    let check = || run("systemd-analyze", &["verify", "--man=no", unit.to_str().unwrap()], folder.path(), b"");
    let output = check();
    succeeds("systemd-analyze verify", &output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "it warns of nothing");
    std::fs::write(&unit, UNIT.replace("/usr/local/bin/sealcast", "/nowhere/sealcast")).unwrap();
    assert!(!check().status.success());
}

#[test]
fn compose_builds_this_broker_beside_a_postgres_and_a_prometheus() {
    let compose: serde_yaml_ng::Value = serde_yaml_ng::from_str(COMPOSE).unwrap();
    let services = &compose["services"];
    assert_eq!(services["sealcast"]["build"]["dockerfile"].as_str(), Some("deploy/Dockerfile"));
    let url = services["sealcast"]["environment"]["SEALCAST__DATABASE__URL"].as_str().unwrap();
    assert!(url.contains("@postgres/") && services["postgres"]["image"].as_str().unwrap().starts_with("postgres:"));
    let mounted = services["prometheus"]["volumes"].as_sequence().unwrap();
    for file in ["./prometheus.yml:", "./alert-rules.yml:"] {
        assert!(mounted.iter().any(|volume| volume.as_str().is_some_and(|volume| volume.starts_with(file))), "{file}");
    }
    let public: Vec<_> =
        services["sealcast"]["ports"].as_sequence().unwrap().iter().filter_map(|port| port.as_str()).collect();
    assert_eq!(public, ["8080:8080"], "the operator's port is not published");
    let scraped: serde_yaml_ng::Value = serde_yaml_ng::from_str(PROMETHEUS).unwrap();
    assert_eq!(scraped["scrape_configs"][0]["static_configs"][0]["targets"][0].as_str(), Some("sealcast:9090"));
}

#[test]
fn the_image_is_built_of_what_is_there_and_runs_as_nobody_special() {
    let lines: Vec<&str> = DOCKERFILE.lines().map(str::trim).collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("FROM ")).count(), 2);
    let user = lines.iter().rfind(|line| line.starts_with("USER ")).unwrap();
    assert!(user["USER ".len()..].parse::<u32>().unwrap() > 0);
    assert!(lines.iter().any(|line| line.starts_with("HEALTHCHECK ") && line.contains("/readyz")));
    let features = DOCKERFILE.split("--features ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(MANIFEST.contains(&format!("\n{features} = [")), "{features}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Where the tests run without their source there is nothing to copy.
    if root.join("Cargo.toml").exists() {
        for line in lines.iter().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (_, sources) = words[1..].split_last().unwrap();
            assert!(sources.iter().all(|source| root.join(source).exists()), "{line}");
        }
    }
}

#[test]
fn settings_that_are_named_exist() {
    let defaults: toml::Table = toml::from_str(CONFIG).unwrap();
    for name in OPERATIONS.split('`').skip(1).step_by(2) {
        let Some((section, key)) = name.rsplit_once('.') else { continue };
        let Some(section) = section.split('.').try_fold(&defaults, |table, part| table.get(part)?.as_table()) else {
            continue;
        };
        assert!(key == "*" || section.contains_key(key), "{name}");
    }
}

#[cfg(feature = "client")]
#[test]
fn the_manual_names_every_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let program = executable();
    let program = program.to_str().unwrap();
    let page = run(program, &["man"], folder.path(), b"");
    succeeds("sealcast man", &page);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.starts_with(".ie") && page.contains(".TH sealcast 1"), "{page}");
    let help = String::from_utf8(run(program, &["--help"], folder.path(), b"").stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(commands.len() >= 6, "{commands:?}");
    succeeds("sealcast man --folder", &run(program, &["man", "--folder", "."], folder.path(), b""));
    for command in commands {
        assert!(page.contains(&format!("sealcast\\-{command}(1)")), "{command} is not in the page");
        assert!(folder.path().join(format!("sealcast-{command}.1")).exists(), "{command} has no page");
    }
    assert!(!run(program, &["man", "--folder", "nowhere"], folder.path(), b"").status.success());
}
