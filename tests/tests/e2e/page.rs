//! The status page and `/status.json` tell the truth, without a script and without anything from elsewhere.

use e2e::{Rig, Service, text, wait};
use serde_json::Value;

fn status(service: &mut Service) -> Value {
    serde_json::from_str(&service.get("/status.json").1).unwrap()
}

#[test]
fn the_page_has_the_figures_without_a_script() {
    let rig = Rig::new();
    let bytes = text::numbered(0..20_000, 1);
    rig.write_input(&bytes);
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("the figures are there", || status(service)["lines"]["total"] == 20_000.0);
        let now = status(service);
        assert_eq!(now["bytes"]["total"], bytes.len() as f64);
        assert_eq!(now["ready"]["ok"], true, "{now}");
        wait::until("a plot", || status(service)["history"]["lines_per_second"].as_array().unwrap().len() >= 2);
        let page = service.get("/").1;
        for part in ["20,000 since the start", "<polyline points=\"0.0,", "prefers-color-scheme", "width=device-width"]
        {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
        for link in ["/metrics", "/healthz", "/readyz", "/status.json"] {
            assert!(page.contains(&format!("href=\"{link}\"")) && service.get(link).0 == 200, "{link}");
        }
        for elsewhere in ["http://", "https://", "//cdn", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere} in {page}");
        }
    }
    assert_eq!(status(&mut reader)["position"]["left"], 0.0);
    wait::until("the consumer is shown", || status(&mut writer)["consumers"][0]["name"] == "one");
}

#[test]
fn a_fault_is_told_in_words() {
    let mut rig = Rig::new();
    rig.write_input("one\n");
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    rig.redis.kill9();
    for service in [&mut reader, &mut writer] {
        wait::until("not ready", || service.readyz().0 == 503);
        wait::until("it is told", || !status(service)["errors"].as_array().unwrap().is_empty());
        let (_, reason) = service.readyz();
        for part in ["redis: ", "nothing is lost", "trying again within", "start Redis"] {
            assert!(reason.contains(part), "{part:?} is not in {reason}");
        }
        let page = service.get("/").1;
        assert!(page.contains("class=\"state bad\"") && page.contains("nothing is lost"), "{page}");
    }
}

/// A browser's own arguments: nothing but the page is to be asked for.
const CHROMIUM: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
    "--dump-dom",
];

#[test]
fn a_browser_shows_the_page_and_its_script_runs() {
    let rig = Rig::new();
    rig.write_input(text::numbered(0..20_000, 1));
    let (mut reader, mut writer) = (rig.reader().start(), rig.writer().start());
    rig.wait_delivered();
    for service in [&mut reader, &mut writer] {
        wait::until("the figures are there", || status(service)["lines"]["total"] == 20_000.0);
        let profile = format!("--user-data-dir={}", rig.folder.join("browser").display());
        let page = format!("http://{}/", service.http_addr());
        let browser = std::process::Command::new("chromium").args(CHROMIUM).args([profile, page]).output();
        let shown = match browser {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => {
                println!("skipped: there is no chromium here ({error}); Debian's package of this name brings it");
                return;
            }
        };
        for part in ["20,000 since the start", "<polyline points=\"0.0,", "id=\"late\" role=\"alert\" hidden"] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }
}
