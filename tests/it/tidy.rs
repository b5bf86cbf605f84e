//! The house keeps to its plan: floors import downwards, and one folder alone names the WebSocket crate.

mod names;

use std::path::{Path, PathBuf};

/// Floors, lowest first; a module imports its own floor and lower ones.
const FLOORS: [&[&str]; 6] =
    [&["protocol"], &["config", "telemetry"], &["store"], &["broker", "verify"], &["gateway"], &["server"]];

/// The other wing: a module, and what of this crate it may import beside itself.
const WING: [(&str, &[&str]); 3] =
    [("crypto", &["protocol"]), ("client", &["protocol", "crypto"]), ("cli", &["protocol", "crypto", "client"])];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Lines of code, without comments.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(src()).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn may_import(module: &str, other: &str) -> bool {
    if module == other {
        return true;
    }
    if let Some((_, allowed)) = WING.iter().find(|(name, _)| *name == module) {
        return allowed.contains(&other);
    }
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    matches!((floor(module), floor(other)), (Some(own), Some(lower)) if lower <= own)
}

#[test]
fn imports_go_down() {
    let mut seen = 0;
    for path in sources(&src()) {
        let module = module_of(&path);
        if module == "main" || module == "lib" {
            continue;
        }
        for line in code(&path) {
            for (at, _) in line.match_indices("crate::") {
                let other: String = line[at + 7..]
                    .chars()
                    .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    .collect();
                if other.is_empty() {
                    continue;
                }
                seen += 1;
                assert!(may_import(&module, &other), "{}: {module} may not import {other}: {line}", path.display());
            }
        }
    }
    assert!(seen > 100, "the test must find the imports");
}

#[test]
fn the_transport_alone_names_the_websocket_crate() {
    for path in sources(&src()) {
        let is_transport = path.starts_with(src().join("gateway/transport"));
        let names_it = code(&path).iter().any(|line| line.contains("actix_web_actors"));
        assert!(is_transport || !names_it, "{}", path.display());
    }
}

#[test]
fn there_is_no_unfinished_work() {
    // Written apart, so that this file does not find itself.
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "un".to_owned() + "implemented!"];
    for folder in ["src", "tests", "examples", "loadtest/src"] {
        for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            for mark in &marks {
                assert!(!text.contains(mark), "{}: {mark}", path.display());
            }
        }
    }
}
