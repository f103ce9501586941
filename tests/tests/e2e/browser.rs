//! The status page in a real browser: light and dark, on a phone, with and without JavaScript.

use std::path::PathBuf;

use e2e::{Browser, Rig, Service, text, wait};
use serde_json::Value;

use super::page::status;

/// A phone's width in CSS pixels.
const PHONE: u32 = 360;

/// Both services of a rig, with 20,000 lines delivered.
fn delivered(rig: &Rig) -> [Service; 2] {
    rig.write_input(text::numbered(0..20_000, 1));
    let mut services = [rig.reader().start(), rig.writer().start()];
    rig.wait_delivered();
    for service in &mut services {
        wait::until("all is shown", || {
            let now = status(service);
            now["lines"]["total"] == 20_000.0 && !now["redis"].is_null() && now["consumers"][0]["name"] == "one"
        });
    }
    services
}

fn address(service: &mut Service) -> String {
    format!("http://{}/", service.http_addr())
}

/// All texts whose contrast with their background is below 4.5 to 1, and the total number of texts.
const CONTRAST: &str = r"(() => {
  const rgb = colour => { const n = colour.match(/[\d.]+/g).map(Number); return {c: n.slice(0, 3), a: n[3] ?? 1}; };
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                       return .2126 * r + .7152 * g + .0722 * b; };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) { const b = rgb(getComputedStyle(e).backgroundColor); if (b.a === 1) return b.c; }
    return [255, 255, 255];
  };
  const low = []; let texts = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility() || element.closest('script,style')) continue;
    texts++;
    const [x, y] = [light(rgb(getComputedStyle(element).color).c), light(behind(element))].sort((a, b) => b - a);
    const ratio = (x + .05) / (y + .05);
    if (ratio < 4.5) low.push(walk.currentNode.data.trim() + ': ' + ratio.toFixed(2));
  }
  return {low, texts, page: light(behind(document.body))};
})()";

/// Elements wider than the screen, which force horizontal scrolling.
const TOO_WIDE: &str = r"[document.documentElement, ...document.querySelectorAll('body *')]
  .filter(e => e.scrollWidth > screen.width || e.getBoundingClientRect().right > screen.width + .5)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 80))";

#[test]
fn it_is_readable_in_light_and_dark_on_a_desk_and_on_a_phone() {
    let mut rig = Rig::new();
    let Some(mut browser) = Browser::start(rig.folder.path()) else { return };
    let mut services = delivered(&rig);
    for is_down in [false, true] {
        if is_down {
            rig.redis.kill9();
        }
        for service in &mut services {
            wait::until("its state is shown", || (service.readyz().0 == 503) == is_down);
            for (scheme, width) in [("light", 1100), ("dark", 1100), ("light", PHONE), ("dark", PHONE)] {
                browser.set_size(width, 800, width == PHONE);
                browser.set_scheme(scheme);
                browser.open(&address(service));
                let found = browser.eval(CONTRAST);
                assert_eq!(found["low"], Value::Array(Vec::new()), "{scheme}");
                assert!(found["texts"].as_u64().unwrap() > 40, "{found}");
                assert_eq!(found["page"].as_f64().unwrap() < 0.1, scheme == "dark", "{found}");
                assert_eq!(browser.eval(TOO_WIDE), Value::Array(Vec::new()), "{scheme}, {width} pixels");
                // Too small text counts as unreadable.
                let smallest = "Math.min(...[...document.querySelectorAll('main *')].map(e => parseFloat(getComputedStyle(e).fontSize)))";
                assert!(browser.eval(smallest).as_f64().unwrap() >= 12.0);
            }
        }
    }
}

#[test]
fn without_a_script_it_has_the_figures_of_status_json() {
    let rig = Rig::new();
    let Some(mut browser) = Browser::start(rig.folder.path()) else { return };
    let mut services = delivered(&rig);
    browser.set_scripts(false);
    for service in &mut services {
        // The service samples its memory periodically.
        wait::until("page and numbers say the same", || {
            browser.open(&address(service));
            let (now, shown) = (status(service), browser.text());
            let missing: Vec<String> = figures(&now).into_iter().filter(|part| !shown.contains(part)).collect();
            if !missing.is_empty() {
                println!("{missing:?} not in {shown}");
            }
            missing.is_empty() && browser.eval("document.querySelectorAll('polyline').length") == 3
        });
    }
    // The page refreshes itself.
    let [reader, _] = &mut services;
    browser.open(&address(reader));
    rig.append_input(text::numbered(20_000..20_345, 1));
    wait::until("the new figure", || browser.text().contains("20,345 since the start"));
}

/// The figures of `/status.json`, formatted as the page shows them.
fn figures(now: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_f64().unwrap();
    let mut parts = vec![
        now["service"].as_str().unwrap().to_owned(),
        now["flow"].as_str().unwrap().to_owned(),
        now["redis_url"].as_str().unwrap().to_owned(),
        now["version"].as_str().unwrap().to_owned(),
        now["backlog"]["in_words"].as_str().unwrap().to_owned(),
        now["redis"]["version"].as_str().unwrap().to_owned(),
        now["consumers"][0]["name"].as_str().unwrap().to_owned(),
        now["consumers"][0]["group"].as_str().unwrap().to_owned(),
        format!("{} since the start", thousands(number(&now["lines"]["total"]))),
        format!("{}/s", thousands(number(&now["lines"]["per_second"]))),
        format!("{} since the start", size(number(&now["bytes"]["total"]))),
        format!("{}/s", size(number(&now["bytes"]["per_second"]))),
        format!("{:.1} ms", number(&now["last_batch"]["seconds"]) * 1000.0),
        format!(
            "{} lines, {}",
            thousands(number(&now["last_batch"]["lines"])),
            size(number(&now["last_batch"]["bytes"]))
        ),
        size(number(&now["redis"]["used_memory_bytes"])),
        format!("without a limit, {}", now["redis"]["eviction_policy"].as_str().unwrap()),
    ];
    if let Some(position) = now["position"].as_object() {
        let [at, all, left] = ["bytes", "size", "left"].map(|name| size(number(&position[name])));
        parts.push(format!("{at} of {all}, {left} left"));
    }
    if let Some(output) = now["output"].as_object() {
        parts.push(size(number(&output["size"])));
    }
    parts
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let (head, tail) = digits.split_at(digits.len().saturating_sub(3));
    if head.is_empty() { tail.to_owned() } else { format!("{head},{tail}") }
}

fn size(bytes: f64) -> String {
    match bytes {
        _ if bytes < 1024.0 => format!("{bytes:.0} B"),
        _ if bytes < 1_048_576.0 => format!("{:.2} KiB", bytes / 1024.0),
        _ => format!("{:.2} MiB", bytes / 1_048_576.0),
    }
}

#[test]
fn with_its_script_the_figures_change_without_a_reload() {
    let rig = Rig::new();
    let Some(mut browser) = Browser::start(rig.folder.path()) else { return };
    let mut lines = 20_000;
    for (nth, service) in delivered(&rig).iter_mut().enumerate() {
        browser.open(&address(service));
        browser.eval("window.mark = 'the same page'");
        for _ in 0..2 {
            rig.append_input(text::numbered(lines..lines + 100, 1));
            lines += 100;
            let figure = format!("{} since the start", thousands(lines as f64));
            wait::until("the new figure", || browser.text().contains(&figure));
        }
        assert_eq!(browser.eval("window.mark"), "the same page");
        assert_eq!(browser.eval("document.getElementById('late').hidden"), true);
        assert_eq!(browser.complaints(), Vec::<String>::new());
        let (asked, own) = (browser.requests(), address(service));
        let strange = asked.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:"));
        assert_eq!(strange.count(), 0, "{asked:?}");
        assert!(asked.iter().filter(|url| **url == own).count() >= 2, "{asked:?}");
        // The page of a stopped service says so, and keeps its last figures.
        service.kill9();
        wait::until("the page shows it", || browser.text().contains("The service does not answer"));
        assert!(browser.text().contains("since the start"));
        *service = if nth == 0 { rig.reader().start() } else { rig.writer().start() };
    }
}

#[test]
fn nothing_but_its_own_script_runs_and_nothing_is_asked_for_elsewhere() {
    let rig = Rig::new();
    let Some(mut browser) = Browser::start(rig.folder.path()) else { return };
    for service in &mut delivered(&rig) {
        browser.open(&address(service));
        // Markup that reached the page in spite of the escaping.
        browser.eval(
            "window.refused = [];
             document.addEventListener('securitypolicyviolation', e => window.refused.push(e.effectiveDirective));
             document.body.insertAdjacentHTML('beforeend', `<img src=\"http://127.0.0.1:1/x\" onclick=\"window.hacked = 1\">`);
             document.querySelector('img').click();
             const script = document.createElement('script');
             script.textContent = 'window.hacked = 2';
             document.body.append(script);
             document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">red</p>');
             fetch('http://127.0.0.1:1/y').catch(() => 0)",
        );
        for what in ["img-src", "script-src-attr", "script-src-elem", "style-src-attr", "connect-src"] {
            wait::until(what, || browser.eval(&format!("window.refused.includes('{what}')")) == true);
        }
        assert!(browser.eval("window.hacked").is_null());
    }
}

#[test]
fn hostile_names_are_text() {
    const TAIL: &str = "'\"&amp;</table></main><img src=x onerror=hacked()>";
    let mut rig = Rig::new();
    let Some(mut browser) = Browser::start(rig.folder.path()) else { return };
    // A file name cannot contain a slash, but its path can.
    let folder = rig.folder.join("<script>window.hacked=1<");
    std::fs::create_dir_all(folder.join("script>'\"&amp;<")).unwrap();
    let in_folder = |name: &str| -> PathBuf { folder.join("script>'\"&amp;<").join(name) };
    rig.input = in_folder(&format!("b><img src=x onerror=hacked()>{}.txt", "x".repeat(150)));
    rig.output = in_folder("output.txt");
    rig.write_input("a line\n");
    let consumer = format!("<script>window.hacked=2</script>{TAIL}{}", "y".repeat(300));
    let mut services = [rig.reader().start(), rig.writer().set("--consumer", &consumer).start()];
    rig.wait_delivered();
    for service in &mut services {
        wait::until("the consumer is shown", || status(service)["consumers"][0]["name"] == consumer);
    }
    // An error message that contains the name.
    std::fs::remove_file(&rig.input).unwrap();
    let [reader, _] = &mut services;
    wait::until("the page shows it", || !status(reader)["errors"].as_array().unwrap().is_empty());
    browser.set_size(PHONE, 800, true);
    for service in &mut services {
        browser.open(&address(service));
        let now = status(service);
        let text = browser.eval("document.body.textContent");
        let text = text.as_str().unwrap();
        let errors = now["errors"].as_array().unwrap().iter().map(|error| error["text"].as_str().unwrap().to_owned());
        let names = [now["flow"].as_str().unwrap().to_owned(), consumer.clone()];
        for name in names.into_iter().chain(errors) {
            assert!(text.contains(&name), "{name} is not in {text}");
        }
        assert!(now["flow"].as_str().unwrap().contains("<script>window.hacked=1</script>"), "{now}");
        assert_eq!(browser.eval("document.querySelectorAll('main script, main img').length"), 0);
        assert_eq!(browser.eval("document.querySelectorAll('main').length"), 1);
        assert!(browser.eval("window.hacked").is_null());
        assert_eq!(browser.eval(TOO_WIDE), Value::Array(Vec::new()));
    }
}
