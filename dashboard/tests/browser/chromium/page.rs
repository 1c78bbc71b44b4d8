//! A page of a browser: goes somewhere, is asked, pressed and photographed, and remembers what it complained about.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::wire::Wire;

/// Milliseconds that a page is given for what it is to be waited for: less than the wire waits, so that it can say how it is.
const PATIENCE_MS: u32 = 50_000;

/// A page.
pub(crate) struct Page {
    wire: Arc<Wire>,
    session: String,
}

impl Page {
    pub(super) fn new(wire: Arc<Wire>, session: String) -> Self {
        let page = Self { wire, session };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), &json!({}));
        }
        page.resize(1280, 800);
        page
    }

    fn call(&self, method: &str, parameters: &Value) -> Value {
        self.wire.call(&self.session, method, parameters)
    }

    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the system's settings say of colours: `light` or `dark`.
    pub(crate) fn prefer(&self, theme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Goes there, and returns when all is loaded.
    pub(crate) fn go(&self, url: &str) {
        const LOADED: &str = "Page.loadEventFired";
        let before = self.wire.events(&self.session, &[LOADED]).len();
        let gone = self.call("Page.navigate", &json!({"url": url}));
        assert!(gone.get("errorText").is_none(), "{url}: {gone}");
        self.wire.wait_for(&self.session, LOADED, before);
    }

    /// The value of an expression, once it is there if it is a promise.
    pub(crate) fn ask(&self, expression: &str) -> Value {
        let question =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", &question);
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression:.300}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression holds; then it is its value.
    pub(crate) fn until(&self, expression: &str) -> Value {
        let answer = self.ask(&format!(
            "new Promise((done) => {{
               const began = performance.now();
               const look = () => {{
                 let value;
                 try {{ value = {expression}; }} catch (error) {{ value = false; }}
                 if (value || performance.now() - began > {PATIENCE_MS}) done(value || null);
                 else setTimeout(look, 25);
               }};
               look();
             }})"
        ));
        assert!(
            !answer.is_null(),
            "not in time: {expression}\n{}",
            self.ask("JSON.stringify(window.transload && transload.probe()) + document.body.innerText.slice(0, 3000)")
        );
        answer
    }

    /// Presses and releases a key, named as `KeyboardEvent.key` does. One that writes a letter writes it.
    pub(crate) fn press(&self, key: &str) {
        let text = match key {
            "Enter" => Some("\r"),
            key if key.chars().count() == 1 => Some(key),
            _ => None,
        };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            _ => 0,
        };
        let mut down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            down["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", &down);
        self.call(
            "Input.dispatchKeyEvent",
            &json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}),
        );
    }

    /// Presses a key, again and again, until an expression holds.
    pub(crate) fn press_until(&self, key: &str, expression: &str) {
        for _ in 0..PATIENCE_MS / 100 {
            self.press(key);
            if self.ask(expression) == true {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("{key} does not help: {expression}");
    }

    /// Writes into what has focus.
    pub(crate) fn write(&self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Moves the mouse there.
    pub(crate) fn point(&self, x: f64, y: f64) {
        self.mouse("mouseMoved", x, y, &json!({}));
    }

    /// Clicks there.
    pub(crate) fn click(&self, x: f64, y: f64) {
        self.point(x, y);
        let left = json!({"button": "left", "buttons": 1, "clickCount": 1});
        self.mouse("mousePressed", x, y, &left);
        self.mouse("mouseReleased", x, y, &left);
    }

    /// Presses there, moves and releases.
    pub(crate) fn drag(&self, from: (f64, f64), to: (f64, f64)) {
        let left = json!({"button": "left", "buttons": 1, "clickCount": 1});
        self.point(from.0, from.1);
        self.mouse("mousePressed", from.0, from.1, &left);
        self.mouse("mouseMoved", to.0, to.1, &left);
        self.mouse("mouseReleased", to.0, to.1, &left);
    }

    /// Turns the wheel there; up is negative.
    pub(crate) fn wheel(&self, x: f64, y: f64, pixels: f64) {
        self.mouse("mouseWheel", x, y, &json!({"deltaX": 0, "deltaY": pixels}));
    }

    fn mouse(&self, kind: &str, x: f64, y: f64, more: &Value) {
        let mut event = json!({"type": kind, "x": x, "y": y});
        for (name, value) in more.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        self.call("Input.dispatchMouseEvent", &event);
    }

    /// What it looks like, as a PNG file.
    pub(crate) fn photograph(&self, path: &Path) {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        let data = decoded(answer["data"].as_str().expect("data"));
        fs::write(path, data).expect("written");
    }

    /// What its console has of warnings and errors, and what failed unnoticed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let kinds = [
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ];
        let events = self.wire.events(&self.session, &kinds);
        let serious = events.iter().filter(|event| {
            let about = &event["params"];
            let level = about["entry"]["level"].as_str().or(about["type"].as_str());
            level.is_none_or(|it| matches!(it, "warning" | "error" | "assert"))
        });
        serious.map(ToString::to_string).collect()
    }

    /// Everything it has asked a server, or a file system, for.
    pub(crate) fn requests(&self) -> Vec<String> {
        let kinds = ["Network.requestWillBeSent", "Network.webSocketCreated"];
        let events = self.wire.events(&self.session, &kinds);
        let urls = events.iter().map(|event| {
            let about = &event["params"];
            about["request"]["url"].as_str().or(about["url"].as_str())
        });
        urls.map(|url| url.expect("an address").to_owned())
            .collect()
    }
}

/// What a text in base 64 stands for.
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.bytes().take_while(|it| *it != b'=') {
        let digit = DIGITS.iter().position(|it| *it == letter);
        let digit = u32::try_from(digit.expect("base 64")).expect("below 64");
        held = held << 6 | digit;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(((held >> bits) & 0xff) as u8);
            held &= (1 << bits) - 1;
        }
    }
    bytes
}
