//! What a cluster calls things is shown as text, whatever it is.

use std::fs;

use transload_dashboard::report;
use transload_dashboard::view::Message;

use crate::chromium::Page;
use crate::{open, scene, views};

/// Runs where it becomes a part of the page.
const BAD: &str = "<img src=x onerror=window.pwned=1></script><script>window.pwned=1</script>";

/// Opens everything there is, and checks that nothing came of it.
fn look_everywhere(page: &Page) {
    for view in views(page) {
        open(page, &view);
        page.ask("document.querySelectorAll('details').forEach((each) => { each.open = true; })");
        nothing_came_of_it(page, &view);
    }
    for part in [
        "worker('w1')",
        "worker('w3')",
        "graph('1.0')",
        "layer('1.0', 0)",
        "task('1.0.1', transload.store.history.rows.get('w2').tasks[0].items[0])",
        "transfer(transload.store.history.rows.get('w2').transfers.items[0])",
    ] {
        page.ask(&format!("transload.details.{part}"));
        let is_shown = "document.getElementById('details').innerText.includes('<img src=x onerror=window.pwned=1>')";
        page.until(is_shown);
        nothing_came_of_it(page, part);
    }
    page.press("Escape");
}

fn nothing_came_of_it(page: &Page, place: &str) {
    assert_eq!(page.ask("document.images.length"), 0, "{place}");
    assert_eq!(page.ask("typeof window.pwned"), "undefined", "{place}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_texts_and_reasons_are_never_markup() {
    let Some(scene) = scene(3, BAD).await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.works(0, 12);
    page.until("transload.probe().spansSeen >= 12");
    scene.cluster.loses(3);
    page.until("transload.probe().lost === 1");
    look_everywhere(page);
    open(page, "notes");
    let is_shown =
        "document.getElementById('panel-notes').innerText.includes('it was hit by <img src=x')";
    page.until(is_shown);

    // Nor in a report, which no server guards.
    let recorded = page.ask("fetch('api/v1/record').then((answer) => answer.text())");
    let lines = recorded.as_str().expect("lines").lines();
    let messages: Vec<Message> = lines
        .map(|line| serde_json::from_str(line).expect("a message"))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.html");
    fs::write(&path, report(&messages)).expect("written");
    page.go(&format!("file://{}", path.display()));
    page.until("transload.probe().lost === 1 && transload.probe().mode === 'recording'");
    look_everywhere(page);
}
