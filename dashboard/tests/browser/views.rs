//! Opening the page and its views, what it asks for, and whom it serves.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::chromium::Page;
use crate::{is_content, open, scene, views};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_without_complaint_and_asks_nobody_but_its_own_server() {
    let Some(scene) = scene(4, "").await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.works(0, 40);
    page.until("transload.probe().transfersSeen >= 40");
    for view in views(page) {
        open(page, &view);
    }
    is_content(page);
    let own = scene.cluster.address().to_string();
    let requests = page.requests();
    assert!(requests.len() >= 4, "{requests:?}");
    for url in requests {
        let is_own = ["http://", "ws://"]
            .iter()
            .any(|it| url.starts_with(&format!("{it}{own}/")));
        assert!(is_own || url.starts_with("data:"), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_opens_by_keyboard_and_what_is_on_the_map_can_be_reached() {
    let Some(scene) = scene(4, "").await else {
        return;
    };
    let page = &scene.page;
    let views = views(page);
    assert!(views.len() >= 9, "{views:?}");
    let is_on_tab = "document.activeElement.getAttribute('role') === 'tab'";
    for _ in 0..10 {
        if page.ask(is_on_tab) == true {
            break;
        }
        page.press("Tab");
    }
    assert_eq!(page.ask(is_on_tab), true);
    for view in views.iter().skip(1).chain([&views[0]]) {
        page.press("ArrowRight");
        page.until(&format!(
            "transload.probe().view === '{view}' && !document.getElementById('panel-{view}').hidden
             && document.activeElement.id === 'tab-{view}'"
        ));
        assert_eq!(
            page.ask("document.querySelectorAll('[role=tabpanel]:not([hidden])').length"),
            1
        );
    }
    page.press("End");
    page.until(&format!(
        "transload.probe().view === '{}'",
        views[views.len() - 1]
    ));
    page.press("Home");
    page.until("transload.probe().view === 'map'");

    let canvas = "document.querySelector('#panel-map canvas[tabindex]')";
    page.ask(&format!("{canvas}.focus()"));
    page.press("ArrowRight");
    page.until("document.getElementById('live-region').textContent.includes('worker: w1')");
    page.press("Enter");
    page.until("document.querySelector('#details h2') === document.activeElement");
    assert_eq!(page.ask("document.activeElement.textContent"), "worker-1");
    page.press("Escape");
    page.until(&format!(
        "document.getElementById('details').hidden && document.activeElement === {canvas}"
    ));
    is_content(page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_lost_turns_dead_on_the_map() {
    let Some(scene) = scene(4, "").await else {
        return;
    };
    let page = &scene.page;
    page.ask("document.querySelector('#panel-map details').open = true");
    page.until("document.querySelectorAll('#panel-map tbody tr').length === 4");
    scene.cluster.loses(3);
    page.until("transload.probe().lost === 1 && transload.probe().workers === 3");
    page.until(
        "[...document.querySelectorAll('#panel-map tbody tr')].some((row) =>
           row.innerText.startsWith('w3') && row.innerText.includes('lost: it was hit by'))",
    );
    page.until("document.querySelector('#panel-map canvas').ariaLabel !== '' && document.body.innerText.includes('1 lost')");
    is_content(page);
}

/// Most pixels with something on them, of what moves on the map, in any frame of the next so many milliseconds.
fn most_drawn(page: &Page, milliseconds: u32) -> u64 {
    let most = page.ask(&format!(
        "new Promise((done) => {{
           const canvas = document.querySelector('#panel-map canvas[tabindex]');
           const began = performance.now();
           let most = 0;
           const look = () => {{
             const {{ data }} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
             let count = 0;
             for (let at = 3; at < data.length; at += 4) if (data[at]) count += 1;
             most = Math.max(most, count);
             if (performance.now() - began > {milliseconds}) done(most);
             else requestAnimationFrame(look);
           }};
           requestAnimationFrame(look);
         }})"
    ));
    most.as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_between_workers_flies_across_the_map() {
    let Some(scene) = scene(4, "").await else {
        return;
    };
    let page = &scene.page;
    most_drawn(page, 1_000);
    let still = most_drawn(page, 500);
    assert!(still > 0, "the scheduler is not drawn");
    scene.cluster.works(0, 8);
    let flying = most_drawn(page, 1_500);
    assert!(flying > still + 300, "{still} pixels, then {flying}");
    assert_eq!(page.ask("transload.probe().transfersSeen"), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_it_waits_is_told_of_the_layer_or_task_that_is_chosen() {
    let Some(scene) = scene(2, "").await else {
        return;
    };
    let page = &scene.page;
    let summary = "document.querySelector('#details .explain .summary')";
    open(page, "queries");
    page.until("document.querySelectorAll('#panel-queries tbody button.link').length === 2");
    page.ask("document.querySelectorAll('#panel-queries tbody button.link')[1].click()");
    page.until(&format!(
        "{summary}.textContent === 'layer 1 of 1.0 waits for '"
    ));
    scene.cluster.works(0, 8);
    page.until("transload.probe().spansSeen >= 8");
    open(page, "tasks");
    page.ask("document.querySelector('#panel-tasks canvas').focus()");
    // What has ended a moment ago is not drawn yet.
    let is_chosen = "document.getElementById('live-region').textContent.startsWith('Task 1.0.')";
    page.press_until("j", is_chosen);
    page.press("Enter");
    page.until(&format!(
        "/^task 1\\.0\\.\\d+ waits for $/.test({summary}.textContent)"
    ));
    // What says less of the same no longer covers it.
    assert_eq!(page.ask("document.getElementById('tooltip').hidden"), true);
    is_content(page);
}

/// Where axe lies, unpacked; `None`, and a reason printed, where it does not. In CI it has to.
fn axe() -> Option<String> {
    let Some(folder) = env::var_os("TRANSLOAD_AXE_DIR") else {
        let reason = "TRANSLOAD_AXE_DIR does not name a folder with axe.min.js (`npm pack axe-core`, unpacked)";
        assert!(env::var_os("CI").is_none_or(|it| it != "true"), "{reason}");
        println!("skipped: {reason}");
        return None;
    };
    let path = PathBuf::from(folder).join("axe.min.js");
    Some(fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// What axe has against the page as it is: what, and where.
fn violations(page: &Page) -> String {
    let found = page.ask(
        "axe.run(document, { resultTypes: ['violations'] }).then((result) => result.violations.map((each) =>
           `${each.id}: ${each.help}: ${each.nodes.map((node) => `${node.target} ${node.any.concat(node.all).map((why) => why.message)}`).join('; ')}`
         ).join('\\n'))",
    );
    found.as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_has_nothing_against_any_view_in_light_and_dark() {
    let Some(axe) = axe() else {
        return;
    };
    let Some(scene) = scene(4, "").await else {
        return;
    };
    let page = &scene.page;
    scene.cluster.works(0, 40);
    scene.cluster.loses(4);
    page.until("transload.probe().transfersSeen >= 40 && transload.probe().lost === 1");
    page.ask(&format!("{axe}; true"));
    let mut found = Vec::new();
    for theme in ["light", "dark"] {
        page.prefer(theme);
        for view in views(page) {
            open(page, &view);
            let against = violations(page);
            if !against.is_empty() {
                found.push(format!("{view} in {theme}: {against}"));
            }
        }
        page.ask("transload.details.graph('1.0')");
        let against = violations(page);
        if !against.is_empty() {
            found.push(format!("details in {theme}: {against}"));
        }
        page.press("Escape");
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}
