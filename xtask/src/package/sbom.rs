//! What the programs are built from, as a CycloneDX document.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{PROGRAMS, VERSION, said};
use crate::Result;
use crate::cargo;

/// The document of both programs.
pub(super) fn of_programs() -> Result<String> {
    let options = ["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}\t{l}", "--locked"];
    let mut command = cargo::command(&options)?;
    command.args(PROGRAMS.iter().flat_map(|name| ["--package", name])).env("CARGO_TERM_COLOR", "never");
    Ok(document(&said(&mut command)?).to_string())
}

/// From lines of name, version and licence.
fn document(tree: &str) -> Value {
    let component = |line: &str| {
        let (package, licence) = line.split_once('\t')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let url = format!("pkg:cargo/{name}@{version}");
        let licence = licence.trim_end_matches(" (*)");
        let value = json!({
            "type": "library", "name": name, "version": version, "purl": url,
            "licenses": [{"expression": licence}],
        });
        Some((url, value))
    };
    let components: BTreeMap<String, Value> = tree.lines().filter_map(component).collect();
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "application", "name": "line-stream", "version": VERSION}},
        "components": components.into_values().collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn each_package_is_listed_once() {
        let tree = "reader v0.1.0 (/x)\tMIT\nlog v0.4.29\tMIT OR Apache-2.0\nlog v0.4.29\tMIT OR Apache-2.0 (*)\n\n";
        let document = document(tree);
        let names: Vec<_> = document["components"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["log", "reader"]);
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
