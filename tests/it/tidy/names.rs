//! Every test that the documents name is there.
//!
//! A name stands in backticks: `module::name`, as much of the path as makes it plain; `…name` or `::name`, in the module of
//! the name before it on the line; `name_…` or `name_*`, all that begin so, `(two)` behind it how many these are. A
//! bare name counts as one if it is long as only tests' names are.

use std::collections::BTreeMap;
use std::path::Path;

use super::sources;

const DOCUMENTS: [&str; 2] = ["docs/reliability.md", "docs/security.md"];

/// Where tests are, and what their paths begin with there.
const FOLDERS: [&str; 6] =
    ["src", "tests/it", "tests/fuzz/src", "tests/fuzz/tests", "tests/faults/src", "loadtest/src"];

const COUNTS: [(&str, usize); 6] = [("two", 2), ("three", 3), ("four", 4), ("five", 5), ("six", 6), ("seven", 7)];

/// Underscores in a name that stands alone, at least.
const WORDS_MIN: usize = 3;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tests of each module, by its path without `tests` at its end.
struct Tests(BTreeMap<String, Vec<String>>);

impl Tests {
    fn read() -> Self {
        let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for folder in FOLDERS.map(|folder| root().join(folder)).into_iter().filter(|folder| folder.exists()) {
            for path in sources(&folder) {
                let inside = path.strip_prefix(&folder).unwrap().with_extension("");
                let parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
                let module = module(&parts.join("::")).to_owned();
                tests.entry(module).or_default().extend(tests_of(&std::fs::read_to_string(&path).unwrap()));
            }
        }
        Self(tests)
    }

    /// How many there are of this name; all that begin so if it ends in a wildcard.
    fn count(&self, module_end: &str, name: &str) -> usize {
        let begins = name.strip_suffix(['…', '*']);
        let is_meant = |test: &&String| begins.map_or(*test == name, |begins| test.starts_with(begins));
        let modules = self.0.iter().filter(|(module, _)| is_end_of(module_end, module));
        modules.map(|(_, tests)| tests.iter().filter(is_meant).count()).sum()
    }

    fn is_module(&self, path: &str) -> bool {
        self.0.keys().any(|module| module == path)
    }
}

/// A path as it is compared: the file of a folder and the unit tests of a module are the module.
fn module(path: &str) -> &str {
    match path {
        "main" | "lib" | "mod" => "",
        path => ["::mod", "::tests"].iter().fold(path, |path, end| path.strip_suffix(end).unwrap_or(path)),
    }
}

fn is_end_of(end: &str, path: &str) -> bool {
    end.is_empty() || path == end || path.strip_suffix(end).is_some_and(|before| before.ends_with("::"))
}

fn tests_of(source: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[") && (line.ends_with("test]") || line.contains("::test("));
        if let Some((before, function)) = line.split_once("fn ")
            && matches!(before, "" | "async ")
            && std::mem::take(&mut is_test)
        {
            tests.push(function.split('(').next().unwrap().to_owned());
        }
    }
    tests
}

/// What stands in backticks and behind it, outside of listings; the number is that of the line.
fn quoted(document: &str) -> Vec<(usize, Vec<(&str, &str)>)> {
    let mut lines = Vec::new();
    let mut is_listing = false;
    for (number, line) in (1..).zip(document.lines()) {
        is_listing ^= line.trim_start().starts_with("```");
        let parts: Vec<&str> = line.split('`').collect();
        if !is_listing && parts.len() > 1 {
            let pairs = parts[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            lines.push((number, pairs));
        }
    }
    lines
}

/// Whether this is the name of a test, and not of a setting, a file, a metric.
fn is_name(quoted: &str) -> bool {
    let is_path = quoted.contains("::") || quoted.contains('…') || quoted.ends_with("_*");
    let is_long = quoted.matches('_').count() >= WORDS_MIN && !quoted.starts_with("sealcast_");
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_:…*".contains(letter);
    (is_path || is_long) && quoted.chars().all(fits)
}

/// The number in parentheses behind a name, if there is one.
fn told(behind: &str) -> Option<usize> {
    let (told, _) = behind.strip_prefix(" (")?.split_once([')', ';'])?;
    told.parse().ok().or_else(|| COUNTS.iter().find(|(word, _)| *word == told).map(|(_, count)| *count))
}

#[test]
fn every_test_that_the_documents_name_is_there() {
    let tests = Tests::read();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for (number, pairs) in quoted(&text) {
            let mut before = "";
            for (name, behind) in pairs.into_iter().filter(|(name, _)| is_name(name)) {
                let short =
                    name.strip_prefix("…::").or_else(|| name.strip_prefix("::")).or_else(|| name.strip_prefix('…'));
                let (path, function) = match short {
                    Some(function) => (before, function),
                    None => name.rsplit_once("::").unwrap_or_default(),
                };
                let function = if path.is_empty() && short.is_none() { name } else { function };
                before = module(path);
                let found = tests.count(before, function);
                let is_right = told(behind).map_or(found > 0, |told| told == found);
                if !is_right && !tests.is_module(name) {
                    wrong.push(format!("{document}:{number}: {name}: found {found}"));
                }
                checked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "tests that are named and not there, or not so many:\n{}", wrong.join("\n"));
    assert!(checked > 200, "the names must be found: {checked}");
}
