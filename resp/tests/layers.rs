//! The layers of the library: a module uses only modules below it, so there are no cycles.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{Attribute, File, Item, UseTree};

/// From the bottom to the top. A module may use those of earlier rows.
const LAYERS: &[&[&str]] = &[
    &["backoff", "protocol", "redact"],
    &["stream_id"],
    &["error"],
    &["command"],
    &["codec", "config", "streams"],
    &["connection"],
    &["discovery"],
    &["client", "consumer", "subscription"],
    &["cluster"],
    &["executor", "testing"],
];

#[test]
fn modules_use_only_layers_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layer = |module: &str| LAYERS.iter().position(|row| row.contains(&module));
    let root = parse(&src.join("lib.rs"));
    let exports = exports(&root);
    let mut wrong = Vec::new();
    for path in files(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} is in no layer: add it to LAYERS"));
        for name in references(parse(&path)) {
            let target = exports.get(&name).unwrap_or(&name);
            if target != module && layer(target).is_none_or(|target| target >= own) {
                wrong.push(format!("{} uses {name} of {target}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "a module uses a layer that is not below it:\n{}", wrong.join("\n"));
}

fn parse(path: &Path) -> File {
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Returns the module of each name that the root exports.
fn exports(root: &File) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for item in &root.items {
        if let Item::Use(item) = item {
            let mut names = Vec::new();
            flatten(&item.tree, &mut Vec::new(), &mut names);
            exports.extend(names.into_iter().map(|path| (path.last().unwrap().clone(), path[0].clone())));
        }
    }
    exports
}

fn flatten(tree: &UseTree, path: &mut Vec<String>, names: &mut Vec<Vec<String>>) {
    let depth = path.len();
    match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path, names);
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, path, names)),
        UseTree::Name(name) => names.push([&path[..], &[name.ident.to_string()]].concat()),
        UseTree::Rename(name) => names.push([&path[..], &[name.ident.to_string()]].concat()),
        UseTree::Glob(_) => names.push(path.clone()),
    }
    path.truncate(depth);
}

/// Returns the names after `crate::` in a file, without unit tests and documentation.
fn references(file: File) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in file.items {
        match &item {
            Item::Mod(module) if is_test(&module.attrs) => {}
            Item::Use(item) => {
                let mut names = Vec::new();
                flatten(&item.tree, &mut Vec::new(), &mut names);
                found.extend(names.into_iter().filter(|path| path[0] == "crate").map(|path| path[1].clone()));
            }
            item => {
                // Doc comments are string literals here, without spaces around `::`.
                let text = item.to_token_stream().to_string();
                let rest = text.split("crate :: ").skip(1);
                let name =
                    |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
                found.extend(rest.filter_map(name));
            }
        }
    }
    found
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.to_token_stream().to_string().contains("test"))
}

/// The table in `docs/development.md` of faults that other clients had.
#[test]
fn the_tests_for_known_faults_exist() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(package.join("../docs/development.md")).unwrap();
    let section = docs.split("\n## ").find(|section| section.starts_with("Known faults of other clients")).unwrap();
    let sources: Vec<_> = files(&package.join("src")).into_iter().chain(files(&package.join("tests"))).collect();
    let mut named = 0;
    for (file, test) in section.split('`').filter_map(|name| name.split_once("::")) {
        let is_it =
            |path: &PathBuf| path.with_extension("").ends_with(file) || path.ends_with(format!("{file}/mod.rs"));
        let has_it = |path: &PathBuf| fs::read_to_string(path).unwrap().contains(&format!("fn {test}("));
        assert!(sources.iter().any(|path| is_it(path) && has_it(path)), "{file}::{test}");
        named += 1;
    }
    assert!(named > 30, "{named}");
}
