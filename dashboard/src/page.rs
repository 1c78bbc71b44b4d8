//! The page, as it is built into the program, and reports, which are the page with what it shows in one file. Knows no cluster.

use crate::keeper;
use crate::view::Message;

/// The page itself.
pub(crate) const INDEX: &str = include_str!("../page/index.html");
/// How it looks.
pub(crate) const STYLE: &str = include_str!("../page/style.css");
/// What it does: all scripts, in the order of their names.
pub(crate) const SCRIPT: &str = concat!(
    include_str!("../page/10-base.js"),
    include_str!("../page/12-colour.js"),
    include_str!("../page/20-history.js"),
    include_str!("../page/22-store.js"),
    include_str!("../page/24-unfold.js"),
    include_str!("../page/26-player.js"),
    include_str!("../page/28-live.js"),
    include_str!("../page/30-loop.js"),
    include_str!("../page/32-surface.js"),
    include_str!("../page/34-diagnose.js"),
    include_str!("../page/36-details.js"),
    include_str!("../page/40-map-layout.js"),
    include_str!("../page/42-map-flights.js"),
    include_str!("../page/44-map-nodes.js"),
    include_str!("../page/46-map.js"),
    include_str!("../page/48-map-side.js"),
    include_str!("../page/50-progress.js"),
    include_str!("../page/52-dag.js"),
    include_str!("../page/60-stream-lanes.js"),
    include_str!("../page/62-stream-draw.js"),
    include_str!("../page/64-stream.js"),
    include_str!("../page/66-stream-parts.js"),
    include_str!("../page/70-memory.js"),
    include_str!("../page/72-matrix.js"),
    include_str!("../page/74-workers.js"),
    include_str!("../page/76-flame.js"),
    include_str!("../page/78-queries.js"),
    include_str!("../page/80-notes.js"),
    include_str!("../page/84-replay-bar.js"),
    include_str!("../page/86-header.js"),
    include_str!("../page/90-app.js"),
);

/// What stands in the page where a report has what it shows.
const STYLE_LINK: &str = "<link rel=\"stylesheet\" href=\"style.css\">";
const SCRIPT_LINK: &str = "<script src=\"app.js\"></script>";

/// One file that shows these messages by itself, to be kept or sent: opened, it asks nobody for anything.
pub fn report(messages: &[Message]) -> String {
    let recorded: Vec<_> = messages
        .iter()
        .map(|it| keeper::text(it).to_string())
        .collect();
    // Within a script element nothing but this ends it.
    let recorded = recorded.join(",\n").replace('<', "\\u003c");
    let style = format!("<style>\n{STYLE}</style>");
    let script = format!(
        "<script type=\"application/json\" id=\"recording\">[\n{recorded}\n]</script>\n<script>\n{SCRIPT}</script>"
    );
    let page = INDEX.replacen(STYLE_LINK, &style, 1);
    page.replacen(SCRIPT_LINK, &script, 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::fakes;

    #[test]
    fn every_script_is_part_of_the_page_in_the_order_of_their_names() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut files: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|it| it.expect("a file").path())
            .collect();
        files.retain(|path| path.extension().is_some_and(|it| it == "js"));
        files.sort();
        let scripts = files
            .iter()
            .map(|path| fs::read_to_string(path).expect("text"));
        assert_eq!(SCRIPT, scripts.collect::<String>());
    }

    #[test]
    fn the_page_asks_for_its_two_files_and_nothing_else() {
        assert!(INDEX.contains(STYLE_LINK) && INDEX.contains(SCRIPT_LINK));
        for elsewhere in ["http://", "https://", "//cdn"] {
            assert!(
                !INDEX.replace("http://www.w3.org", "").contains(elsewhere),
                "{elsewhere}"
            );
        }
    }

    #[test]
    fn a_report_has_all_it_shows_and_nothing_that_ends_its_script() {
        let mut frame = fakes::frame();
        frame.notes[0].text = "</script><script>alert(1)</script><!--".to_owned();
        let report = report(&[fakes::about(), Message::Frame(Box::new(frame))]);
        assert!(!report.contains("alert(1)</script>"));
        assert!(!report.contains(STYLE_LINK) && !report.contains(SCRIPT_LINK));
        let start =
            report.find("id=\"recording\">").expect("a recording") + "id=\"recording\">".len();
        let end = start + report[start..].find("</script>").expect("an end");
        let messages: Vec<Message> = serde_json::from_str(&report[start..end]).expect("JSON");
        assert_eq!(messages.len(), 2);
        assert!(report.trim_end().ends_with("</html>"));
    }
}
