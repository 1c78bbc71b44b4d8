//! The task stream: zoom, pan, and filters.

use crate::chromium::Page;
use crate::{is_content, open, scene};

/// How many tasks the stream says are in sight.
const TASKS_IN_SIGHT: &str = "[...document.querySelectorAll('#panel-tasks tbody tr')].reduce((sum, row) => sum + Number(row.children[2].textContent), 0)";
const ROWS: &str = "[...document.querySelectorAll('#panel-tasks tbody tr')].map((row) => row.firstChild.textContent).join()";

fn middle(page: &Page) -> (f64, f64) {
    let at = page.ask("(() => { const box = document.querySelector('#panel-tasks canvas').getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()");
    (at[0].as_f64().unwrap(), at[1].as_f64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_stream_zooms_pans_and_shows_only_what_is_asked_for() {
    let Some(scene) = scene(3, "").await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.works(0, 30);
    page.until("transload.probe().spansSeen >= 30");
    open(page, "tasks");
    page.ask("document.querySelector('#panel-tasks details').open = true");
    page.until(&format!("{TASKS_IN_SIGHT} >= 30"));
    assert_eq!(page.ask(ROWS), "w1,w2,w3");

    let filter = "document.querySelector('#panel-tasks input[type=search]')";
    page.ask(&format!("{filter}.focus()"));
    page.write("worker-2");
    page.until(&format!("{ROWS} === 'w2'"));
    page.ask(&format!("{filter}.select()"));
    page.write("host-1");
    page.until(&format!("{ROWS} === 'w1,w2,w3'"));

    // Far into a place where nothing ran, and back to all.
    let (x, y) = middle(page);
    let all = "document.querySelector('#panel-tasks button[aria-label^=\"Show all\"]').click()";
    page.ask(all);
    page.until(&format!("{TASKS_IN_SIGHT} >= 30"));
    for _ in 0..12 {
        page.wheel(x, y, -200.0);
    }
    page.until(&format!("{TASKS_IN_SIGHT} < 30"));
    page.ask(all);
    page.until(&format!("{TASKS_IN_SIGHT} >= 30"));
    page.drag((x, y), (x + 5_000.0, y));
    page.until(&format!("{TASKS_IN_SIGHT} === 0"));
    page.ask("document.querySelector('#panel-tasks canvas').focus()");
    page.press("0");
    page.until(&format!("{TASKS_IN_SIGHT} >= 30"));
    page.press("f");
    page.until(
        "document.querySelector('#panel-tasks button[aria-pressed=true]').textContent === 'Follow'",
    );
    is_content(page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_of_work_that_is_dimmed_is_drawn_otherwise_and_comes_back() {
    let Some(scene) = scene(3, "").await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.works(0, 30);
    page.until("transload.probe().spansSeen >= 30");
    open(page, "tasks");
    page.ask("document.getElementById('pause').click()");
    page.ask("document.querySelector('#panel-tasks canvas').focus()");
    page.press("0");
    let chip = "[...document.querySelectorAll('#panel-tasks button.chip')].find((each) => each.textContent === 'scan')";
    page.until(&format!("Boolean({chip})"));
    // Two frames later it is drawn.
    let drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(() =>
       done(document.querySelector('#panel-tasks canvas').toDataURL())))))";
    let all = page.ask(drawn);
    page.ask(&format!("{chip}.click()"));
    assert_eq!(page.ask(&format!("{chip}.ariaPressed")), "false");
    assert!(page.ask(drawn) != all, "the tasks are drawn as before");
    page.ask(&format!("{chip}.click()"));
    assert!(page.ask(drawn) == all, "they do not come back");
    is_content(page);
}
