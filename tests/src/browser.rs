//! A real browser: headless Chromium, controlled over its debugging pipe.
//!
//! The protocol is JSON, with a zero byte after each message, on file descriptors 3 and 4. Crates
//! for the protocol would add a WebSocket and bindings for the whole API.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::binaries::leash;
use crate::wait;

/// Names of the executable.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// Disable requests of the browser's own, and the sandbox, which root cannot use.
const ARGS: [&str; 10] = [
    "--headless",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one tab. It exits when this value is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    /// `None` once it was asked to exit.
    to: Option<ChildStdin>,
    from: Receiver<Value>,
    calls: u64,
    tab: Option<String>,
    events: Vec<Value>,
}

impl Browser {
    /// Starts a browser with its files in `folder`. Prints a message and returns `None` if there is
    /// no browser on this machine.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let Some(program) = find() else {
            println!("skipped: there is no Chromium here; Debian's package `chromium` brings it");
            return None;
        };
        let mut command = match leash() {
            Some(leash) => {
                let mut command = Command::new(leash);
                command.arg(std::process::id().to_string()).arg("/bin/sh");
                command
            }
            None => Command::new("/bin/sh"),
        };
        let log = std::fs::File::create(folder.join("browser.log")).expect("a file for the browser's log");
        let mut child = command
            .args(["-c", "exec 3<&0 4>&1 </dev/null >/dev/null; exec \"$@\"", "sh"])
            .arg(program)
            .args(ARGS)
            .arg(format!("--user-data-dir={}", folder.join("browser").display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("start the browser");
        let to = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let (tell, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                let value = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message)).expect("JSON");
                if tell.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self { child, to, from, calls: 0, tab: None, events: Vec::new() };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}));
        browser.tab = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Network.enable"] {
            browser.call(domain, &json!({}));
        }
        Some(browser)
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.call("Page.navigate", &json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.hear("the page is loaded");
            self.events.push(message);
        }
    }

    /// The value of an expression in the page.
    pub fn eval(&mut self, script: &str) -> Value {
        let done = self.call("Runtime.evaluate", &json!({"expression": script, "returnByValue": true}));
        assert!(done["exceptionDetails"].is_null(), "{script}: {done}");
        done["result"]["value"].clone()
    }

    /// The visible text; empty during navigation.
    pub fn text(&mut self) -> String {
        let script = json!({"expression": "document.body?.innerText", "returnByValue": true});
        let done = self.try_call("Runtime.evaluate", &script).unwrap_or_default();
        done["result"]["value"].as_str().unwrap_or_default().to_owned()
    }

    /// Sets the size of the window in CSS pixels, and whether it is a phone.
    pub fn set_size(&mut self, width: u32, height: u32, phone: bool) {
        let size = json!({
            "width": width, "height": height, "screenWidth": width, "screenHeight": height, "deviceScaleFactor": 1, "mobile": phone
        });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets the preferred color scheme: `light` or `dark`.
    pub fn set_scheme(&mut self, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &media);
    }

    /// Sets whether pages may run scripts.
    pub fn set_scripts(&mut self, allowed: bool) {
        self.call("Emulation.setScriptExecutionDisabled", &json!({"value": !allowed}));
    }

    /// The URLs requested since the page was opened.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let asked = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.filter_map(|event| event["params"]["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    /// Script errors and failed requests since the page was opened.
    pub fn complaints(&mut self) -> Vec<String> {
        // Events sent before the reply to this command arrive before it.
        self.eval("0");
        let kinds = ["Runtime.exceptionThrown", "Network.loadingFailed"];
        let bad = |event: &&Value| kinds.iter().any(|kind| event["method"] == *kind);
        self.events.iter().filter(bad).map(ToString::to_string).collect()
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        BASE64_STANDARD.decode(shot["data"].as_str().unwrap_or_default()).expect("base64")
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    fn try_call(&mut self, method: &str, params: &Value) -> Result<Value, Value> {
        self.calls += 1;
        let id = self.calls;
        let mut call = json!({"id": id, "method": method, "params": params});
        if let Some(tab) = &self.tab {
            call["sessionId"] = tab.as_str().into();
        }
        let to = self.to.as_mut().expect("the browser runs");
        to.write_all(format!("{call}\0").as_bytes()).expect("tell the browser");
        loop {
            let message = self.hear(method);
            if message["id"] == id {
                let error = &message["error"];
                return if error.is_null() { Ok(message["result"].clone()) } else { Err(error.clone()) };
            }
            self.events.push(message);
        }
    }

    fn hear(&self, what: &str) -> Value {
        self.from.recv_timeout(wait::SOON).unwrap_or_else(|error| panic!("waited for the browser: {what}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closing the pipe ends the browser with all its processes.
        self.to = None;
        let ended = wait::try_within(wait::SOON, || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.exists())
}
