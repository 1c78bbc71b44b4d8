//! What the page makes of queries in SQL: numbered stages, comments, one after another; and of what happens meanwhile.

use crate::chromium::Page;
use crate::{is_content, open, scene};

/// Has the page hear of a query of two stages, as of now.
fn submit(page: &Page, graph: &str, first: &str) {
    page.ask(&format!(
        "(() => {{
           const now = transload.store.nowUs + {graph} * 1000;
           const layer = (name, first_task, reads) => ({{ name, operator: 'sql', first_task, reads, total: 2, done: 0, running: 1, run_us: 5000, rows: 0, bytes: 0 }});
           transload.store.applyPresent({{ now_us: transload.store.nowUs, graphs: [{{
             id: '{graph}', name: '-- What it is for.\\nselect {graph}', client: 'a test', state: 'running', reason: null, start_us: now, end_us: null,
             layers: [layer('1. {first}', 0, []), layer('2. sort', 2, [0])],
           }}] }});
         }})()"
    ));
}

const PLAN: &str = "[...document.querySelectorAll('#panel-queries .plan tbody tr')].map((row) => `${row.children[0].innerText.trim()} < ${row.children[1].innerText}`).join()";
const SHOWN: &str = "document.querySelector('#panel-queries h2').textContent.split(',')[0]";

#[tokio::test(flavor = "multi_thread")]
async fn stages_that_are_numbered_are_not_numbered_again_and_others_are() {
    let Some(scene) = scene(2, "").await else {
        return;
    };
    let page = &scene.page;
    open(page, "queries");
    page.until(&format!("{PLAN} === '0 scan < –,1 sum < 0'"));
    submit(page, "7.0", "scan orders");
    page.until(&format!("{PLAN} === '1. scan orders < –,2. sort < 1'"));
    let flame = "[...document.querySelectorAll('#panel-queries .flame-box tbody th, #panel-queries .flame-box tbody td:first-child')].map((cell) => cell.textContent).join()";
    page.ask("document.querySelector('#panel-queries .flame-box details').open = true");
    page.until(&format!("{flame} === '1. scan orders,2. sort'"));
    open(page, "graph");
    let names = "[...document.querySelectorAll('#panel-graph .name')].map((each) => each.textContent).join()";
    page.until(&format!("{names} === '1. scan orders,2. sort'"));
    // The same work, wherever it stands in its query, looks the same.
    assert_eq!(page.ask("transload.store.kind('7.0', 1)"), "sort");
    assert_eq!(page.ask("transload.store.kind('1.0', 1)"), "sum");
    is_content(page);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_query_is_shown_until_one_is_chosen_and_its_comment_stands_apart() {
    let Some(scene) = scene(2, "").await else {
        return;
    };
    let page = &scene.page;
    open(page, "queries");
    page.until(&format!("{SHOWN} === '1.0'"));
    submit(page, "7.0", "scan orders");
    page.until(&format!("{SHOWN} === '7.0'"));
    let button = "document.querySelector('#panel-queries .query-list button')";
    page.until(&format!("{button}.querySelector('.comment').textContent === 'What it is for.' && {button}.querySelector('.text').textContent === 'select 7.0'"));
    let title = r"transload.graphTitle({ id: '9.0', layers: [], name: '/* Two\n lines. */ -- And one.\nselect 1 /* not this */' })";
    assert_eq!(page.ask(title), "select 1 /* not this */");
    page.ask(&format!("{button}.click()"));
    submit(page, "8.0", "scan orders");
    page.until("document.querySelectorAll('#panel-queries .query-list button').length === 3");
    assert_eq!(page.ask(SHOWN), "7.0");
    page.ask("document.querySelector('#panel-queries .follow').click()");
    page.until(&format!("{SHOWN} === '8.0'"));
    is_content(page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_lost_stays_on_top_of_what_came_of_it() {
    let Some(scene) = scene(3, "").await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.loses(3);
    page.until("transload.probe().lost === 1");
    page.ask(
        "for (let task = 0; task < 30; task += 1) transload.store.history.notes.push({
           at_us: transload.store.nowUs, kind: 'task_recomputed', text: `task 1.0.${task} runs again`, worker: null, graph: '1.0', task: `1.0.${task}` })",
    );
    let kinds =
        "[...document.querySelectorAll('#panel-map .ticker li')].map((each) => each.dataset.kind)";
    page.until(&format!("{kinds}[0] === 'worker_lost' && {kinds}.filter((kind) => kind === 'task_recomputed').length === 1"));
    let again =
        "document.querySelector('#panel-map .ticker [data-kind=task_recomputed]').textContent";
    page.until(&format!("/3[01] tasks run again/.test({again})"));
    is_content(page);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_out_is_told_where_workers_report_nothing() {
    let Some(scene) = scene(2, "").await else {
        return;
    };
    let page = &scene.page;
    page.ask("document.getElementById('pause').click()");
    page.ask("transload.store.workers.forEach((worker) => { worker.running = []; })");
    submit(page, "7.0", "scan orders");
    page.ask("transload.views.find((view) => view.id === 'map').update(true)");
    let side = "document.querySelector('#panel-map .side').innerText";
    page.until(&format!(
        "{side}.includes('scan orders') && !{side}.includes('No task runs.')"
    ));
    is_content(page);
}
