//! The dashboard of a real cluster in a real browser. Skips itself where there is no Chromium.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../../dashboard/tests/browser/chromium/mod.rs"]
mod chromium;
mod common;

use chromium::{Browser, Page};
use common::{cluster, kill};
use transload_protocol::{Edges, Layer, LayerIndex, TaskGraph};
use transload_runtime::LocalCluster;

#[test]
fn run_as_worker() {
    common::worker_entry();
}

/// A page that shows this cluster and its workers.
fn shown(browser: &Browser, cluster: &LocalCluster, workers: u32) -> Page {
    let address = cluster.dashboard().expect("a dashboard");
    let page = browser.page();
    page.go(&format!("http://{address}/"));
    page.until(&format!("transload.probe().workers === {workers}"));
    page
}

fn is_content(page: &Page) {
    assert_eq!(page.complaints(), Vec::<String>::new());
    assert_eq!(page.ask("transload.probe().errors.join()"), "");
}

/// Every worker reads what the others have made.
fn shuffle(tasks: u32) -> (TaskGraph, LayerIndex) {
    let mut graph = TaskGraph::new("SELECT shuffled FROM made");
    let made = graph.push(
        Layer::new("make", "bytes", tasks)
            .with_outputs(tasks)
            .with_common(b"20000".to_vec()),
    );
    let kept = graph.push(Layer::new("shuffle", "concat", tasks).reading(made, Edges::Shuffle));
    graph.keep(kept);
    (graph, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_and_transfers_appear_on_the_page_within_a_second_of_happening() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(4, spill.path(), |_| {}).await;
    let page = shown(&browser, &cluster, 4);
    // How old the youngest transfer of each frame is when the frame is made, on the scheduler's clock.
    page.ask(
        "window.ages = []; transload.store.onFrame((frame, how) => {
           if (how !== 'next' || !frame.transfers) return;
           ages.push(Math.min(...frame.transfers.map((each) => frame.now_us - each.end_us)));
         }); true",
    );
    let client = cluster.client().await.expect("connects");
    let (graph, kept) = shuffle(8);
    common::run(&client, graph, kept).await;
    page.until("transload.probe().transfersSeen >= 32 && transload.probe().spansSeen >= 16");
    // The quickest: a busy machine may hold up any single one, but not all for long.
    let quickest = page.ask("Math.min(...ages)").as_f64().expect("a time");
    assert!(quickest < 1e6, "{quickest} µs");
    page.until(
        "document.querySelector('#totals').innerText.includes('MiB') || document.querySelector('#totals').innerText.includes('KiB')",
    );
    page.ask("transload.showView('queries')");
    page.until(
        "document.querySelector('#panel-queries').innerText.includes('SELECT shuffled FROM made')",
    );
    is_content(&page);
    drop(page);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_turns_dead_and_its_work_goes_on_elsewhere() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(4, spill.path(), |_| {}).await;
    let page = shown(&browser, &cluster, 4);
    page.ask("document.querySelector('#panel-map details').open = true");
    let rows = "[...document.querySelectorAll('#panel-map tbody tr')].map((row) => row.innerText)";
    page.until(&format!("{rows}.length === 4"));
    let client = cluster.client().await.expect("connects");
    let (graph, top) = common::tree(40, 1_000, 100);
    let handle = client.submit(graph).await.expect("accepted");
    page.until("transload.probe().spansSeen > 0");

    kill(cluster.worker_processes()[2]);
    page.until("transload.probe().lost === 1 && transload.probe().workers === 3");
    page.until(&format!(
        "{rows}.filter((text) => text.includes('lost: ')).length === 1 && {rows}.length === 4"
    ));
    page.until(
        "document.querySelector('#panel-map canvas[tabindex]').ariaLabel.includes('3 workers')",
    );
    handle.wait().await.expect("it ends well");
    assert_eq!(handle.gather(top).await.expect("gathered").len(), 1);
    page.until("[...transload.store.graphs.values()].every((graph) => graph.state === 'finished')");
    page.ask("transload.showView('notes')");
    page.until("document.querySelector('#panel-notes [data-kind=worker_lost]') !== null");
    is_content(&page);
    drop(page);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_says_on_the_page_why_a_task_waits() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let spill = tempfile::tempdir().expect("a folder");
    let cluster = cluster(1, spill.path(), |_| {}).await;
    let page = shown(&browser, &cluster, 1);
    let client = cluster.client().await.expect("connects");
    // Longer than anyone waits for it.
    let (graph, _) = common::tree(40, 1_000, 600_000);
    let handle = client.submit(graph).await.expect("accepted");
    page.ask("transload.showView('queries')");
    let layers = "document.querySelectorAll('#panel-queries tbody button.link')";
    page.until(&format!("{layers}.length > 2"));
    page.ask(&format!("{layers}[2].click()"));
    let explained = "document.querySelector('#details .explain')";
    page.until(&format!(
        "{explained}.querySelector('.summary') && {explained}.innerText.includes('wait')"
    ));
    is_content(&page);
    handle.cancel();
    drop(page);
    cluster.shutdown().await;
}
