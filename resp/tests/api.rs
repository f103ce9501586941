//! A snapshot of the public API, so that it never changes by accident.
//!
//! The snapshot is built from the source: all `pub` items (the lint `unreachable_pub` keeps that
//! honest), derives, and implementations of traits. Macros that generate implementations are shown
//! as invocations.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, Signature, TraitItem, Type, Visibility};

#[test]
fn the_public_api_matches_its_snapshot() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files(&package.join("src"));
    let mut api = Api::default();
    for file in &files {
        api.names(&file.items);
    }
    for file in &files {
        api.list(&file.items);
    }
    let text: String = api.lines.iter().map(|line| format!("{line}\n")).collect();
    let agreed = package.join("api.txt");
    if std::env::var_os("UPDATE_API").is_some() {
        fs::write(&agreed, &text).unwrap();
    }
    let known = fs::read_to_string(&agreed).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let now: BTreeSet<&str> = text.lines().collect();
    let diff: Vec<String> = known
        .difference(&now)
        .map(|line| format!("- {line}"))
        .chain(now.difference(&known).map(|line| format!("+ {line}")))
        .collect();
    assert!(
        diff.is_empty(),
        "the public API has changed. If it was meant to, say so in CHANGELOG.md and run\n\
         UPDATE_API=1 cargo test -p resp-streams --test api\n{}",
        diff.join("\n")
    );
}

fn files(folder: &Path) -> Vec<syn::File> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .flat_map(|path| match path.is_dir() {
            true => files(path),
            false => vec![syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap()],
        })
        .collect()
}

#[derive(Default)]
struct Api {
    lines: BTreeSet<String>,
    /// The types and traits that are public.
    public: BTreeSet<String>,
    /// The types and traits that are private.
    private: BTreeSet<String>,
}

impl Api {
    fn names(&mut self, items: &[Item]) {
        for item in items {
            let (visibility, name) = match item {
                Item::Struct(item) => (&item.vis, &item.ident),
                Item::Enum(item) => (&item.vis, &item.ident),
                Item::Trait(item) => (&item.vis, &item.ident),
                Item::Type(item) => (&item.vis, &item.ident),
                Item::Mod(item) if !is_test(&item.attrs) => {
                    self.names(item.content.as_ref().map_or(&[][..], |(_, items)| items));
                    continue;
                }
                _ => continue,
            };
            let names = if is_public(visibility) { &mut self.public } else { &mut self.private };
            names.insert(name.to_string());
        }
    }

    fn list(&mut self, items: &[Item]) {
        for item in items {
            self.item(item);
        }
    }

    fn line(&mut self, attributes: &[Attribute], what: &str) {
        let is_shown = |attribute: &&Attribute| {
            ["derive", "cfg", "non_exhaustive"].iter().any(|name| attribute.path().is_ident(name))
        };
        let shown: String = attributes.iter().filter(is_shown).map(|attribute| tokens(attribute) + " ").collect();
        self.lines.insert(shown + what);
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Mod(item) if !is_test(&item.attrs) => {
                if is_public(&item.vis) {
                    self.line(&item.attrs, &format!("mod {}", item.ident));
                }
                self.list(item.content.as_ref().map_or(&[][..], |(_, items)| items));
            }
            Item::Use(item) if is_public(&item.vis) => {
                self.line(&item.attrs, &format!("use {}", tokens(&item.tree)));
            }
            Item::Fn(item) if is_public(&item.vis) => self.line(&item.attrs, &signature(&item.sig)),
            Item::Const(item) if is_public(&item.vis) => {
                self.line(&item.attrs, &format!("const {}: {}", item.ident, tokens(&item.ty)));
            }
            Item::Struct(item) if is_public(&item.vis) => {
                let fields = fields(&item.fields, is_public);
                self.line(&item.attrs, &format!("struct {}{} {fields}", item.ident, tokens(&item.generics)));
            }
            Item::Enum(item) if is_public(&item.vis) => {
                self.line(&item.attrs, &format!("enum {}{}", item.ident, tokens(&item.generics)));
                for variant in &item.variants {
                    let fields = fields(&variant.fields, |_| true);
                    self.line(&variant.attrs, &format!("{}::{} {fields}", item.ident, variant.ident));
                }
            }
            Item::Trait(item) if is_public(&item.vis) => {
                let bounds = tokens(&item.supertraits);
                self.line(&item.attrs, &format!("trait {}{}: {bounds}", item.ident, tokens(&item.generics)));
                for of in &item.items {
                    match of {
                        TraitItem::Fn(of) => {
                            let provided = if of.default.is_some() { " {…}" } else { "" };
                            self.line(&of.attrs, &format!("{}::{}{provided}", item.ident, signature(&of.sig)));
                        }
                        TraitItem::Type(of) => self.line(&of.attrs, &format!("{}::{}", item.ident, tokens(of))),
                        _ => {}
                    }
                }
            }
            Item::Impl(item) => {
                let of = last_name(&item.self_ty);
                if self.private.contains(&of) && !self.public.contains(&of) {
                    return;
                }
                let head = format!("{} {}", tokens(&item.generics), tokens(&item.self_ty));
                if let Some((_, implemented, _)) = &item.trait_ {
                    let name = implemented.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
                    if !self.private.contains(&name) {
                        let bounds = item.generics.where_clause.as_ref().map(tokens).unwrap_or_default();
                        self.line(&item.attrs, &format!("impl {} for {head} {bounds}", tokens(implemented)));
                    }
                    return;
                }
                for of in &item.items {
                    match of {
                        ImplItem::Fn(of) if is_public(&of.vis) => {
                            self.line(&of.attrs, &format!("{}::{}", tokens(&item.self_ty), signature(&of.sig)));
                        }
                        ImplItem::Const(of) if is_public(&of.vis) => {
                            let of = format!("const {}: {}", of.ident, tokens(&of.ty));
                            self.line(&[], &format!("{}::{of}", tokens(&item.self_ty)));
                        }
                        _ => {}
                    }
                }
            }
            Item::Macro(item) if item.ident.is_none() => self.line(&item.attrs, &tokens(&item.mac)),
            _ => {}
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| tokens(attribute) == "#[cfg(test)]")
}

fn signature(signature: &Signature) -> String {
    tokens(signature)
}

/// The public items.
fn fields(fields: &Fields, is_shown: impl Fn(&Visibility) -> bool) -> String {
    let shown = fields.iter().filter(|field| is_shown(&field.vis)).map(|field| {
        let name = field.ident.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        name + &tokens(&field.ty)
    });
    format!("{{ {} }}", shown.collect::<Vec<_>>().join(", "))
}

/// The name of a type without its path and parameters.
fn last_name(of: &Type) -> String {
    match of {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        Type::Reference(reference) => last_name(&reference.elem),
        _ => String::new(),
    }
}

/// Code in one line, with minimal spaces.
fn tokens(of: &impl ToTokens) -> String {
    let mut text = of.to_token_stream().to_string();
    for (spaced, tight) in [
        (" :: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        ("& ", "&"),
        (" :", ":"),
        (" ;", ";"),
        ("[ ", "["),
        (" ]", "]"),
        ("# [", "#["),
        (" [", "["),
        (" !", "!"),
        ("' ", "'"),
        ("-> &'", "-> &'"),
    ] {
        text = text.replace(spaced, tight);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
