//! The runbook has a section for each alert, and each alert names it. What the docs say of objects of the cluster is there.

use crate::manifests::{components, config, documents, find, list, objects, own_objects, text, word};

#[test]
fn every_alert_has_a_section_that_it_names() {
    let rules = documents("rules", &config("prometheus", "rules.yml")).remove(0);
    let rules: Vec<_> = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"])).collect();
    let alerts: Vec<&str> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    assert!(alerts.len() >= 9, "{alerts:?}");

    let runbook = text("docs/operations.md");
    let part = runbook.split("\n## ").find(|part| part.starts_with("Alerts\n")).expect("a part for the alerts");
    let sections: Vec<(&str, &str)> = part.split("\n### ").skip(1).filter_map(|part| part.split_once('\n')).collect();
    assert_eq!(sections.iter().map(|(alert, _)| *alert).collect::<Vec<_>>(), alerts, "in the order of the rules");
    for (alert, text) in sections {
        for question in ["**Meaning.**", "**Cause.**", "**Do.**", "**Lost.**"] {
            assert!(text.contains(question), "{alert}: {question}");
        }
    }
    for rule in rules.iter().filter(|rule| rule["alert"].is_string()) {
        let alert = word(&rule["alert"]);
        let named = format!("docs/operations.md#{}", alert.to_lowercase());
        assert_eq!(word(&rule["annotations"]["runbook"]), named);
    }
}

#[test]
fn objects_that_the_docs_name_exist() {
    let mut found = 0;
    let mut known = objects();
    known.extend(components().iter().flat_map(|component| own_objects(component)));
    for page in ["docs/kubernetes.md", "docs/operations.md"] {
        let text = text(page);
        for name in text.split(|c: char| c.is_whitespace() || c == '`') {
            let Some((short, name)) = name.split_once('/') else { continue };
            let kind = match short {
                "sts" => "StatefulSet",
                "deploy" => "Deployment",
                "svc" => "Service",
                "hpa" => "HorizontalPodAutoscaler",
                _ => continue,
            };
            found += 1;
            find(&known, kind, name);
        }
    }
    assert!(found > 4, "{found}");
}
