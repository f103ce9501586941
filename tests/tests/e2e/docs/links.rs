//! Links between pages lead somewhere.

use std::path::Path;

use super::page::{all, repository};

/// The targets of links and pictures.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut checked = 0;
    for page in all() {
        let folder = Path::new(&page.path).parent().unwrap();
        let prose = page.prose();
        for target in targets(&prose).filter(|target| !target.starts_with("http")) {
            checked += 1;
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { page.path.clone().into() } else { folder.join(path) };
            let path = repository().join(path);
            assert!(path.exists(), "{}: {target}", page.path);
            if wanted.is_empty() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let headings =
                text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']));
            assert!(headings.map(anchor).any(|heading| heading == wanted), "{}: {target}", page.path);
        }
    }
    assert!(checked > 30, "{checked} links");
}
