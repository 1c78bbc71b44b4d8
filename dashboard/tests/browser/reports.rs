//! A report, opened from a file.

use std::fs;

use transload_dashboard::report;
use transload_dashboard::view::Message;

use crate::{is_content, open, scene, views};

#[tokio::test(flavor = "multi_thread")]
async fn a_report_shows_what_was_seen_and_replays_it_from_a_file() {
    let Some(scene) = scene(3, "").await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.works(0, 30);
    page.until("transload.probe().transfersSeen >= 30");
    scene.cluster.loses(2);
    page.until("transload.probe().lost === 1");
    let recorded = page.ask("fetch('api/v1/record').then((answer) => answer.text())");
    let lines = recorded.as_str().expect("lines").lines();
    let messages: Vec<Message> = lines
        .map(|line| serde_json::from_str(line).expect("a message"))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.html");
    fs::write(&path, report(&messages)).expect("written");
    let asked_before = page.requests().len();

    page.go(&format!("file://{}", path.display()));
    page.until("transload.probe().mode === 'recording' && transload.probe().workers === 2");
    assert_eq!(page.ask("transload.probe().lost"), 1);
    assert_eq!(page.ask("transload.probe().transfersSeen"), 30);
    for view in views(page) {
        open(page, &view);
    }
    let slider = "document.querySelector('#replay input[type=range]')";
    assert_eq!(page.ask("document.getElementById('replay').hidden"), false);
    page.ask(&format!("{slider}.focus()"));
    page.press("Home");
    let began = page.until(&format!(
        "Number({slider}.value) === 0 && transload.probe().nowUs"
    ));
    page.ask("document.querySelector('#replay button').click()");
    let later = format!("transload.probe().nowUs > {began} && Number({slider}.value) > 0");
    page.until(&later);
    // All but itself is in it.
    let asked = page.requests().split_off(asked_before);
    assert!(
        asked
            .iter()
            .all(|url| url.starts_with("file:") || url.starts_with("data:")),
        "{asked:?}"
    );
    is_content(page);
}
