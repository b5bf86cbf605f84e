//! Replays every input that is kept, on any toolchain and without libFuzzer.
//!
//! `corpus/` holds an input or a seed in each file, in a folder for each target; `public/` holds published corpora. An
//! input that was ever found to break a property stays in `corpus/` under a name that says what it broke.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that meets what it does not expect fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealcast_fuzz::{TARGETS, config, equality, json, msgpack, username};
use serde_json::Value;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Replays one target's folder, and names the file that breaks a property.
fn replay(name: &str) {
    let (_, check) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let files = files(&here().join("corpus").join(name));
    assert!(files.len() >= 5, "{name} has hardly any inputs");
    for file in files {
        let data = std::fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| check(&data));
        assert!(outcome.is_ok(), "{}", file.display());
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name).strip_prefix("replay_").unwrap());
        })*

        const REPLAYED: &[&str] = &[$(stringify!($name)),*];
    };
}

replays! {
    replay_certificate replay_config replay_envelope replay_equality replay_guard replay_json replay_msgpack
    replay_resume replay_unwrap replay_username
}

#[test]
fn every_target_is_replayed_and_fuzzed() {
    let manifest = std::fs::read_to_string(here().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(REPLAYED.contains(&format!("replay_{name}").as_str()), "{name}");
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        assert!(here().join(format!("targets/{name}.rs")).exists(), "{name}");
        assert!(here().join(format!("dict/{name}.dict")).exists(), "{name}");
    }
    assert_eq!(REPLAYED.len(), TARGETS.len());
    assert_eq!(files(&here().join("corpus")).len(), TARGETS.len(), "a folder for each target and no other");
}

fn public(name: &str) -> Value {
    let text = std::fs::read_to_string(here().join("public").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_published_json_texts_are_judged_as_published() {
    let mut judged = 0;
    for case in public("json-test-suite.json").as_array().unwrap() {
        let input = case["input"].as_str().unwrap();
        let is_lawful = case.get("error").map(|error| !error.as_bool().unwrap());
        judged += usize::from(is_lawful.is_some());
        json::check_published(input.as_bytes(), is_lawful);
        config::check(input.as_bytes());
    }
    assert!(judged > 250, "{judged}");
}

#[test]
fn every_published_msgpack_value_may_stand_in_an_unknown_field() {
    let mut values = 0;
    let bytes = |text: &str| -> Vec<u8> {
        let digits = text.split('-').filter(|digits| !digits.is_empty());
        digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
    };
    let groups: BTreeMap<String, Vec<Value>> = serde_json::from_value(public("msgpack-test-suite.json")).unwrap();
    for case in groups.values().flatten() {
        for form in case["msgpack"].as_array().unwrap() {
            msgpack::check_published(&bytes(form.as_str().unwrap()));
            values += 1;
        }
    }
    assert!(values > 200, "{values}");
}

#[test]
fn naughty_strings_are_names_or_not_and_come_back_as_text() {
    let strings: Vec<String> = serde_json::from_value(public("blns.json")).unwrap();
    assert!(strings.len() > 480);
    for text in &strings {
        username::check(text.as_bytes());
        let frame = serde_json::json!({"type": "error", "data": {
            "id": null, "code": "internal", "message": text, "retryable": true,
        }});
        json::check(frame.to_string().as_bytes());
        equality::check(&[&[0x35; 24][..], frame.to_string().as_bytes()].concat());
        let name = serde_json::json!(text).to_string().replace('\u{7f}', "\\u007f");
        config::check(format!("[server]\nname = {name}\n").as_bytes());
    }
}

/// The documented examples are seeds too; here they are the ones of today.
#[test]
fn the_documented_frames_mean_the_same_in_both_encodings() {
    let text = std::fs::read_to_string(here().join("../../docs/protocol.md")).unwrap();
    let mut frames = 0;
    for part in text.split("```json\n").skip(1) {
        let (example, _) = part.split_once("```").unwrap();
        let value: Value = serde_json::from_str(example).unwrap();
        let is_frame = value.get("request").is_some() || value.get("type").is_some();
        frames += usize::from(is_frame);
        for seed in 0_u8..16 {
            equality::check(&[&[seed.wrapping_mul(17).wrapping_add(3); 24][..], example.as_bytes()].concat());
        }
    }
    assert!(frames > 30, "{frames}");
}

#[test]
fn the_rule_for_usernames_is_the_schemas() {
    let schema = std::fs::read_to_string(here().join("../../sql/migrations/V0001__data_model.sql")).unwrap();
    assert!(schema.contains(username::SQL_RULE));
}

/// The text that [`planted.sh`](../planted.sh) exchanges for a bug is there, once, for each target.
#[test]
fn every_target_has_a_bug_to_plant() {
    let table = std::fs::read_to_string(here().join("planted.tsv")).unwrap();
    let mut planted: Vec<&str> = Vec::new();
    for line in table.lines() {
        let [target, file, good, bad] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let source = std::fs::read_to_string(here().join("../..").join(file)).unwrap();
        assert_eq!(source.matches(&good.replace("\\n", "\n")).count(), 1, "{file}: {good}");
        assert_ne!(good, bad);
        planted.push(target);
    }
    planted.sort_unstable();
    assert_eq!(planted, TARGETS.map(|(target, _)| target));
}
