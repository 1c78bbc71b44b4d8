//! What journals survive: ends of schedulers, torn ends of files, and what they refuse.

use transload_protocol::{ClientId, ClusterId, GraphId, SessionToken, TaskGraph};

use super::*;

fn begin() -> JournalEntry {
    JournalEntry::Begin {
        cluster: ClusterId(7),
        epoch: 3,
        next_client: 1,
        next_worker: 1,
    }
}

fn joined(client: u32) -> JournalEntry {
    JournalEntry::ClientJoined {
        client: ClientId(client),
        name: "me".to_owned(),
        token: SessionToken(1),
    }
}

fn accepted(sequence: u32) -> JournalEntry {
    JournalEntry::Accepted {
        graph: GraphId {
            client: ClientId(1),
            sequence,
        },
        tasks: TaskGraph::new("graph"),
    }
}

fn facts(entries: &[JournalEntry]) -> Facts {
    let mut facts = Facts::default();
    entries.iter().for_each(|entry| facts.add(entry.clone()));
    facts
}

fn open(folder: &Path) -> Result<(Journal, Facts), JournalError> {
    Journal::open(&JournalConfig::default(), folder)
}

/// A journal with a beginning and two frames, closed. Its one file.
fn written(folder: &Path) -> PathBuf {
    let (mut journal, _) = open(folder).expect("opens");
    journal.compact(&[begin()]).expect("written");
    for entry in [joined(1), accepted(0)] {
        journal.append(&entry).expect("fits");
        journal.commit().expect("written");
    }
    segment_path(folder, 1)
}

#[test]
fn what_was_committed_is_read_again_and_what_was_not_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, empty) = open(folder.path()).expect("opens");
    assert_eq!(empty, Facts::default());
    journal.compact(&[begin()]).expect("written");
    journal.append(&joined(1)).expect("fits");
    journal.append(&accepted(0)).expect("fits");
    journal.commit().expect("written");
    journal.append(&accepted(1)).expect("fits");
    drop(journal);
    let (_, read) = open(folder.path()).expect("opens");
    assert_eq!(read, facts(&[begin(), joined(1), accepted(0)]));
}

#[test]
fn a_second_scheduler_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = open(folder.path()).expect("opens");
    let error = open(folder.path()).expect_err("locked").to_string();
    assert!(error.contains("another scheduler"), "{error}");
}

#[test]
fn a_torn_end_costs_the_last_frame_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written(folder.path());
    let whole = fs::read(&path).expect("read");
    let without_last = {
        let mut body = Vec::new();
        encode(&accepted(0), &mut body).expect("fits");
        whole.len() - frame(&body).expect("fits").len()
    };
    for cut in without_last..whole.len() {
        fs::write(&path, &whole[..cut]).expect("written");
        let (journal, read) = open(folder.path()).expect("opens");
        assert_eq!(read, facts(&[begin(), joined(1)]), "cut at {cut}");
        drop(journal);
        // The length of the file may be there before its bytes are.
        let mut zeros = whole[..cut].to_vec();
        zeros.resize(whole.len(), 0);
        if zeros != whole {
            fs::write(&path, &zeros).expect("written");
            let (_journal, read) = open(folder.path()).expect("opens");
            assert_eq!(read, facts(&[begin(), joined(1)]), "zeros from {cut}");
        }
    }
}

#[test]
fn damage_in_the_middle_is_an_error_that_names_file_and_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written(folder.path());
    let whole = fs::read(&path).expect("read");
    let mut body = Vec::new();
    encode(&begin(), &mut body).expect("fits");
    let second = HEADER_BYTES + frame(&body).expect("fits").len();
    for at in [HEADER_BYTES + 5, HEADER_BYTES + FRAME_HEADER_BYTES + 3] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).expect("written");
        let error = open(folder.path()).expect_err("damaged").to_string();
        assert!(error.contains("damaged at byte 8:"), "{error}");
        assert!(error.contains("000000000001.journal"), "{error}");
    }
    let mut damaged = whole;
    damaged[second + FRAME_HEADER_BYTES] ^= 1;
    fs::write(&path, &damaged).expect("written");
    let error = open(folder.path()).expect_err("damaged").to_string();
    assert!(error.contains(&format!("at byte {second}:")), "{error}");
}

#[test]
fn a_journal_of_another_version_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written(folder.path());
    let mut bytes = fs::read(&path).expect("read");
    bytes[4] ^= 0x40;
    fs::write(&path, &bytes).expect("written");
    let error = open(folder.path()).expect_err("refused").to_string();
    assert!(error.contains("speaks version"), "{error}");
}

#[test]
fn a_journal_made_shorter_says_what_it_was_told_and_one_file_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path());
    fs::write(
        segment_path(folder.path(), 9).with_extension(UNFINISHED),
        b"half",
    )
    .expect("written");
    let (mut journal, _) = open(folder.path()).expect("opens");
    journal.compact(&[begin(), joined(5)]).expect("written");
    journal.append(&accepted(3)).expect("fits");
    journal.commit().expect("written");
    drop(journal);
    let (_journal, read) = open(folder.path()).expect("opens");
    assert_eq!(read, facts(&[begin(), joined(5), accepted(3)]));
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .expect("read")
        .map(|entry| {
            entry
                .expect("read")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(names, ["000000000002.journal", "lock"]);
}

#[test]
fn a_journal_is_long_when_most_of_it_is_out_of_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = JournalConfig {
        limit_bytes: 2_000,
        ..JournalConfig::default()
    };
    let (mut journal, _) = Journal::open(&config, folder.path()).expect("opens");
    journal.compact(&[begin()]).expect("written");
    for sequence in 0.. {
        journal.append(&accepted(sequence)).expect("fits");
        journal.commit().expect("written");
        if journal.is_long() {
            break;
        }
        assert!(sequence < 1_000);
    }
    let live: Vec<JournalEntry> = (0..100).map(accepted).collect();
    journal.compact(&live).expect("written");
    assert!(!journal.is_long(), "it cannot be shorter");
}

#[test]
fn a_full_disk_is_an_error_that_says_what_to_do() {
    let full = OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = open(folder.path()).expect("opens");
    journal.compact(&[begin()]).expect("written");
    journal.segment = Some(full);
    journal.append(&accepted(0)).expect("fits");
    let error = journal.commit().expect_err("full").to_string();
    assert!(error.contains("make room"), "{error}");
}
