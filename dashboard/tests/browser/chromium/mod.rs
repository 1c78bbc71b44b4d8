//! A headless Chromium for tests, over its DevTools protocol. Called by the browser tests here and in `runtime`; knows no dashboard.
//!
//! Blocking: a test that has something to serve meanwhile needs a tokio runtime of several threads.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and not every test program uses every helper"
)]

mod page;
mod wire;

use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

pub(crate) use page::Page;
use wire::Wire;

/// Longest time for anything to happen in a browser. On a busy machine that is long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Under which names it is installed.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
/// Tests see no network, no GPU and nobody's profile.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A browser, which ends when this is dropped, or when this process does.
pub(crate) struct Browser {
    process: Child,
    wire: Arc<Wire>,
    _profile: TempDir,
}

impl Browser {
    /// `None`, and a reason printed, where there is none: then a test has nothing to do. In CI there has to be one.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = program() else {
            let reason = "there is no Chromium: install it (`apt-get install chromium`), or name it in TRANSLOAD_CHROMIUM";
            assert!(env::var_os("CI").is_none_or(|it| it != "true"), "{reason}");
            println!("skipped: {reason}");
            return None;
        };
        let profile = tempfile::tempdir().expect("a folder");
        // It reads from descriptor 3 and writes to descriptor 4, which only a shell lays there in safe code. It ends with these pipes.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 1>&2"#, "sh"])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("TMPDIR", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let (to, from) = (process.stdin.take(), process.stdout.take());
        let wire = Wire::new(to.expect("a pipe"), from.expect("a pipe"));
        Some(Self {
            process,
            wire,
            _profile: profile,
        })
    }

    /// A new page, of a laptop's size.
    pub(crate) fn page(&self) -> Page {
        let made = self
            .wire
            .call("", "Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": made["targetId"], "flatten": true});
        let attached = self.wire.call("", "Target.attachToTarget", &attach);
        let session = attached["sessionId"].as_str().expect("a session");
        Page::new(Arc::clone(&self.wire), session.to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Either way it must not write to its profile any more when that is removed.
        self.wire.say_goodbye();
        for _ in 0..100 {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = env::var_os("TRANSLOAD_CHROMIUM") {
        return Some(named.into());
    }
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
    places.find(|it| it.is_file())
}
