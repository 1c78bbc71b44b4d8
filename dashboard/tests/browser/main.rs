//! The page in a real browser, in front of made-up clusters. Skips itself where there is no Chromium, and accessibility where there is no axe.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod chromium;
mod crowd;
mod made;
mod names;
mod queries;
mod reports;
mod screenshots;
mod stream;
mod views;

use chromium::{Browser, Page};
use made::Cluster;

/// A made-up cluster and a page that shows it; the browser ends with the last of them.
pub(crate) struct Scene {
    pub(crate) page: Page,
    pub(crate) cluster: Cluster,
    _browser: Browser,
}

/// `None` where there is no browser.
pub(crate) async fn scene(workers: u32, word: &str) -> Option<Scene> {
    let browser = Browser::start()?;
    let cluster = Cluster::start(workers, word).await;
    let page = browser.page();
    page.go(&cluster.url());
    page.until(&format!("transload.probe().workers === {workers}"));
    Some(Scene {
        page,
        cluster,
        _browser: browser,
    })
}

/// Nothing went wrong unseen.
pub(crate) fn is_content(page: &Page) {
    assert_eq!(page.complaints(), Vec::<String>::new());
    assert_eq!(page.ask("transload.probe().errors.join()"), "");
}

/// The names by which the page knows its views, in the order of its tabs.
pub(crate) fn views(page: &Page) -> Vec<String> {
    let names = page.ask("transload.views.map((view) => view.id)");
    let names = names.as_array().expect("a list").iter();
    names
        .map(|it| it.as_str().expect("a name").to_owned())
        .collect()
}

/// Goes to a view and waits until it shows something.
pub(crate) fn open(page: &Page, view: &str) {
    page.ask(&format!("transload.showView('{view}')"));
    page.until(&format!(
        "transload.probe().view === '{view}' && document.querySelector('#panel-{view}').innerText.trim().length > 0"
    ));
}
