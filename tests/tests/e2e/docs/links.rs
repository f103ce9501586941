//! Links between pages have targets, and files named in pages exist.

use std::path::Path;

use super::page::{all, repository};

/// The targets of links and images.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchor of a heading.
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

/// A path in backticks is a file or a folder of the repository.
#[test]
fn files_that_pages_name_exist() {
    let mut checked = 0;
    // The comparison names files of other projects.
    for page in all().iter().filter(|page| page.path != "docs/comparison.md") {
        for name in page.prose().split('`').skip(1).step_by(2) {
            let path = name.trim_end_matches('/');
            let folder = path.split('/').next().unwrap_or_default();
            let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            // Build results do not exist yet.
            let is_path = name.contains('/') && path.chars().all(is_name) && folder != "target";
            if is_path && !folder.is_empty() && repository().join(folder).is_dir() {
                checked += 1;
                assert!(repository().join(path).exists(), "{}: there is no {name}", page.path);
            }
        }
    }
    assert!(checked > 60, "{checked} names");
}
