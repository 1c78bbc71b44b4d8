//! Calls and events of the DevTools protocol over two pipes: JSON texts, each ended by a zero byte. Called by the browser and its pages.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::PATIENCE;

/// The connection to a browser.
pub(super) struct Wire {
    to: Mutex<Sent>,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

struct Sent {
    pipe: ChildStdin,
    calls: u64,
}

#[derive(Default)]
struct Heard {
    answers: BTreeMap<u64, Value>,
    events: Vec<Value>,
    has_ended: bool,
}

impl Wire {
    pub(super) fn new(to: ChildStdin, from: ChildStdout) -> Arc<Self> {
        let heard = Arc::<(Mutex<Heard>, Condvar)>::default();
        let ears = Arc::clone(&heard);
        thread::spawn(move || listen(from, &ears));
        let sent = Sent { pipe: to, calls: 0 };
        Arc::new(Self {
            to: Mutex::new(sent),
            heard,
        })
    }

    /// The answer to a call; `session` is empty where the browser itself is meant.
    pub(super) fn call(&self, session: &str, method: &str, parameters: &Value) -> Value {
        let id = self.send(session, method, parameters);
        let answer = self.until(method, |heard| heard.answers.remove(&id));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Asks the browser to end. One that hears nothing any more has to be ended otherwise.
    pub(super) fn say_goodbye(&self) {
        let mut sent = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let text = "{\"id\":0,\"method\":\"Browser.close\"}\0";
        let _ = sent.pipe.write_all(text.as_bytes());
    }

    fn send(&self, session: &str, method: &str, parameters: &Value) -> u64 {
        let mut sent = self.to.lock().unwrap();
        sent.calls += 1;
        let id = sent.calls;
        let mut call = json!({"id": id, "method": method, "params": parameters});
        if !session.is_empty() {
            call["sessionId"] = session.into();
        }
        let mut text = call.to_string().into_bytes();
        text.push(0);
        sent.pipe.write_all(&text).expect("the browser reads");
        id
    }

    /// The parameters of all events of a session with these names, so far.
    pub(super) fn events(&self, session: &str, methods: &[&str]) -> Vec<Value> {
        let heard = self.heard.0.lock().unwrap();
        let these = heard.events.iter().filter(|event| {
            event["sessionId"] == session && methods.iter().any(|it| event["method"] == *it)
        });
        these.cloned().collect()
    }

    /// Waits for one more event than `before` of that name.
    pub(super) fn wait_for(&self, session: &str, method: &str, before: usize) {
        self.until(method, |heard| {
            let these = heard
                .events
                .iter()
                .filter(|event| event["sessionId"] == session && event["method"] == method);
            (these.count() > before).then_some(())
        });
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut(&mut Heard) -> Option<T>) -> T {
        let (heard, told) = &*self.heard;
        let mut found = None;
        let guard = heard.lock().unwrap();
        let (guard, _) = told
            .wait_timeout_while(guard, PATIENCE, |heard| {
                found = look(heard);
                found.is_none() && !heard.has_ended
            })
            .unwrap();
        let has_ended = guard.has_ended;
        drop(guard);
        let why = if has_ended {
            "the browser has ended"
        } else {
            "nothing in time"
        };
        found.unwrap_or_else(|| panic!("{what}: {why}"))
    }
}

fn listen(from: ChildStdout, ears: &(Mutex<Heard>, Condvar)) {
    let (heard, told) = ears;
    let mut from = BufReader::new(from);
    let mut text = Vec::new();
    while from.read_until(0, &mut text).is_ok_and(|read| read > 0) {
        text.pop();
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        text.clear();
        let mut heard = heard.lock().unwrap();
        match said["id"].as_u64() {
            Some(id) => {
                heard.answers.insert(id, said);
            }
            None => heard.events.push(said),
        }
        told.notify_all();
    }
    heard.lock().unwrap().has_ended = true;
    told.notify_all();
}
