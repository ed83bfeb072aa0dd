//! The order of the repository, as tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;
use xshell::{Shell, cmd};

use crate::{WITH_BURN, report, root};

/// Longer files hold more than one idea.
const MAX_LINES: usize = 500;

/// Files below the root that belong to the project, by ending.
fn files(ending: &str) -> Vec<PathBuf> {
    let folders =
        ["benches", "crates", "docs", "examples", "xtask"].map(|folder| root().join(folder));
    let entries = folders
        .into_iter()
        .flat_map(|folder| WalkDir::new(folder).sort_by_file_name());
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().into_path()).collect();
    for entry in fs::read_dir(root()).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.retain(|path| path.is_file() && path.to_string_lossy().ends_with(ending));
    assert!(!files.is_empty(), "no files end in {ending}");
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn source_files_are_short() {
    let lines = |path: &PathBuf| read(path).lines().count();
    let long: Vec<(PathBuf, usize)> = files(".rs")
        .into_iter()
        .map(|path| (path.clone(), lines(&path)))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    let postponed = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    for path in files(".rs") {
        for (index, line) in read(&path).lines().enumerate() {
            let found = postponed
                .iter()
                .find(|postponed| line.contains(postponed.as_str()));
            assert!(found.is_none(), "{}:{}: {line}", path.display(), index + 1);
        }
    }
}

#[test]
fn packages_share_the_settings_of_the_workspace() {
    for path in files("Cargo.toml") {
        let manifest: toml::Table = read(&path).parse().unwrap();
        let Some(package) = manifest.get("package").and_then(toml::Value::as_table) else {
            continue;
        };
        for field in ["version", "edition", "rust-version", "license"] {
            let shared = package
                .get(field)
                .and_then(|value| value.get("workspace"))
                .and_then(toml::Value::as_bool);
            assert_eq!(
                shared,
                Some(true),
                "{}: {field}.workspace = true",
                path.display()
            );
        }
        assert!(
            package.contains_key("description"),
            "{}: description",
            path.display()
        );
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        assert_eq!(
            lints,
            Some(true),
            "{}: [lints] workspace = true",
            path.display()
        );
    }
}

#[test]
fn documents_show_what_the_results_say() {
    let documents = report::documents(&root()).unwrap();
    assert!(
        documents
            .iter()
            .any(|document| document.path.ends_with("README.md")),
        "README.md holds no report"
    );
    for document in documents {
        for (path, text) in document.updated(&root(), None).unwrap() {
            assert!(
                read(&path) == text,
                "{} is not up to date: cargo xtask report",
                path.display()
            );
        }
    }
}

#[test]
fn links_between_files_lead_somewhere() {
    for path in files(".md") {
        let text = read(&path);
        // A link is `](target)`; code has none of these.
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|after| after.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let folder = path.parent().unwrap();
            assert!(
                folder.join(file).exists(),
                "{}: no file at {target}",
                path.display()
            );
        }
    }
}

#[test]
fn every_page_of_the_book_is_listed() {
    let pages = root().join("docs");
    let summary = read(&pages.join("SUMMARY.md"));
    for path in files(".md")
        .into_iter()
        .filter(|path| path.starts_with(&pages) && !path.ends_with("SUMMARY.md"))
    {
        let name = path
            .strip_prefix(&pages)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        assert!(
            summary.contains(&format!("]({name})")),
            "SUMMARY.md does not list {name}"
        );
    }
}

/// Dependencies of the packages that `selection` names, with their features, as Cargo builds them together.
fn dependencies(selection: &[&str], edges: &str) -> BTreeSet<String> {
    let shell = Shell::new().unwrap();
    shell.change_dir(root());
    let tree = cmd!(
        shell,
        "cargo tree {selection...} --edges {edges} --prefix none --format"
    )
    .arg("{p} {f}")
    .quiet()
    .read()
    .unwrap();
    let lines = tree.lines().map(|line| line.trim_end_matches("(*)").trim());
    lines
        .filter(|line| !line.is_empty() && !line.contains("(/"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn one_build_of_burn_serves_the_tests_and_the_first_example() {
    let tested = dependencies(&WITH_BURN, "normal,build,dev");
    let example = dependencies(&["--package", "text-generation"], "normal,build");
    assert!(
        example.iter().any(|line| line.starts_with("burn-flex v")),
        "{example:#?}"
    );
    let apart: Vec<&String> = example.difference(&tested).collect();
    assert!(
        apart.is_empty(),
        "`cargo run -p text-generation` and the tests build these with different features: {apart:#?}"
    );
}
