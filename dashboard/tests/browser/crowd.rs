//! A cluster of a thousand workers in which much happens.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{is_content, open, scene};

const WORKERS: u32 = 1_000;
/// Tasks in each tenth of a second; each is three events.
const TASKS: u32 = 67;
const SECONDS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_workers_and_two_thousand_events_a_second_are_shown_and_the_page_answers() {
    let Some(scene) = scene(WORKERS, "").await else {
        return;
    };
    let page = &scene.page;
    let mut first = 0;
    for view in ["map", "tasks"] {
        open(page, view);
        let mut tenth = interval(Duration::from_millis(100));
        tenth.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = Instant::now() + Duration::from_secs(SECONDS);
        while Instant::now() < end {
            tenth.tick().await;
            scene.cluster.works(first, TASKS);
            first += TASKS;
        }
        // Figures for people; what they are on a busy machine proves nothing.
        let times = page.ask("JSON.stringify({ between: transload.probe().frameTimesMs, drawing: transload.probe().drawTimesMs })");
        println!("{view} with {WORKERS} workers: milliseconds {times}");
    }
    page.until(&format!("transload.probe().spansSeen >= {first}"));
    assert_eq!(page.ask("transload.probe().workers"), WORKERS);
    page.ask("document.getElementById('tab-workers').click()");
    page.until("document.querySelectorAll('#panel-workers tbody tr').length === 100");
    is_content(page);
}
