//! Spilling to real directories: whole round trips, full disks, damaged files, dead and living owners.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use transload_gpu::{ALIGNMENT_BYTES, Budget, LoadError, Partition, SpillDirectory};
use transload_protocol::{ClientId, GraphId, PartitionId, TaskId};

fn id(index: u32) -> PartitionId {
    PartitionId {
        task: TaskId {
            graph: GraphId {
                client: ClientId(1),
                sequence: 2,
            },
            index,
        },
        output: 3,
    }
}

fn partition(buffer_bytes: &[usize]) -> Partition {
    let buffers = buffer_bytes
        .iter()
        .map(|bytes| (0..*bytes).map(|at| (at * 7 + bytes) as u8).collect())
        .collect();
    Partition::new(Bytes::from_static(b"how to read it"), buffers)
}

fn ample() -> Budget {
    Budget::new("test memory", u64::MAX)
}

fn entries(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn every_layout_comes_back_whole_and_aligned() {
    let parent = tempfile::tempdir().unwrap();
    let spill = SpillDirectory::create(parent.path()).unwrap();
    let many: Vec<usize> = (0..5_000).map(|index| index % 200).collect();
    let layouts: [&[usize]; 6] = [&[], &[0], &[0, 1, 0], &[63, 64, 65], &[5 << 20, 3], &many];
    let budget = ample();
    for layout in layouts {
        let before = partition(layout);
        let spilled = spill.spill(id(1), before.clone()).unwrap();
        assert_eq!(spilled.bytes(), before.bytes());
        assert!(spill.used_bytes() >= before.bytes());
        for _ in 0..2 {
            let after = spilled.load(&budget).unwrap();
            assert_eq!(after, before);
            assert!(budget.used_bytes() >= after.bytes());
            for buffer in after.buffers().iter().filter(|buffer| !buffer.is_empty()) {
                assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT_BYTES), 0);
            }
        }
        let path = spilled.path().to_owned();
        drop(spilled);
        assert!(!path.exists());
        assert_eq!((spill.used_bytes(), budget.used_bytes()), (0, 0));
    }
}

#[test]
fn partitions_of_one_name_do_not_meet() {
    let parent = tempfile::tempdir().unwrap();
    let spill = SpillDirectory::create(parent.path()).unwrap();
    let first = spill.spill(id(1), partition(&[10])).unwrap();
    let second = spill.spill(id(1), partition(&[20])).unwrap();
    drop(first);
    assert_eq!(second.load(&ample()).unwrap(), partition(&[20]));
}

#[test]
fn without_memory_the_file_stays_for_a_later_load() {
    let parent = tempfile::tempdir().unwrap();
    let spill = SpillDirectory::create(parent.path()).unwrap();
    let spilled = spill.spill(id(1), partition(&[10_000])).unwrap();
    let error = spilled.load(&Budget::new("tight", 9_000)).unwrap_err();
    assert!(matches!(error, LoadError::NoMemory(_)), "{error}");
    assert!(error.to_string().contains("tight"), "{error}");
    assert_eq!(spilled.load(&ample()).unwrap(), partition(&[10_000]));
}

#[test]
fn a_directory_that_is_gone_fails_the_spill_and_keeps_the_partition() {
    let parent = tempfile::tempdir().unwrap();
    let spill = SpillDirectory::create(parent.path()).unwrap();
    let earlier = spill.spill(id(1), partition(&[10])).unwrap();
    fs::remove_dir_all(spill.path()).unwrap();
    let decoded = partition(&[100]).with_decoded(Arc::new(7_u32));
    let error = spill.spill(id(2), decoded).unwrap_err();
    let text = error.to_string();
    let path = spill.path().display().to_string();
    assert!(text.contains(&path) && text.contains("114 B"), "{text}");
    assert_eq!(error.partition, partition(&[100]));
    assert_eq!(*error.partition.decoded::<u32>().unwrap(), 7);
    let error = earlier.load(&ample()).unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
}

/// Needs the right to mount; where there is none, the case is covered by whoever has it (CI runs as root).
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_partition_and_serves_again_once_there_is_room() {
    struct Mounted(tempfile::TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount")
                .arg(self.0.path())
                .status();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(directory.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: no right to mount a tmpfs here");
        return;
    }
    let disk = Mounted(directory);
    let spill = SpillDirectory::create(disk.0.path()).unwrap();
    let first = spill.spill(id(1), partition(&[600_000])).unwrap();
    let used_bytes = spill.used_bytes();
    let error = spill.spill(id(2), partition(&[600_000])).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
    let text = error.to_string();
    assert!(
        text.contains("600014 B") && text.contains("free space") && text.contains("No space left"),
        "{text}"
    );
    assert_eq!(spill.used_bytes(), used_bytes);
    assert_eq!(
        entries(spill.path()).len(),
        2,
        "the lock and the first partition: nothing of the second is left"
    );
    assert_eq!(first.load(&ample()).unwrap(), partition(&[600_000]));
    drop(first);
    let again = spill.spill(id(2), error.partition).unwrap();
    assert_eq!(again.load(&ample()).unwrap(), partition(&[600_000]));
}

#[test]
fn a_directory_removes_itself_and_all_its_files() {
    let parent = tempfile::tempdir().unwrap();
    let below = parent.path().join("made/on/demand");
    let spill = SpillDirectory::create(&below).unwrap();
    let spilled = spill.spill(id(1), partition(&[10])).unwrap();
    drop(spill);
    assert_eq!(entries(&below), Vec::<PathBuf>::new());
    drop(spilled);
}

#[test]
fn directories_of_the_dead_are_swept_and_those_of_the_living_are_not() {
    let parent = tempfile::tempdir().unwrap();
    let living = SpillDirectory::create(parent.path()).unwrap();
    let spilled = living.spill(id(1), partition(&[10])).unwrap();
    // A directory whose lock nobody holds, one whose sweep was cut short, and what is none of our business.
    let dead = parent.path().join("transload-spill-1-2-3");
    fs::create_dir_all(dead.join("sub")).unwrap();
    File::create(dead.join("lock")).unwrap();
    fs::write(dead.join("some.partition"), b"left over").unwrap();
    let bare = parent.path().join("transload-spill-4-5-6");
    fs::create_dir(&bare).unwrap();
    let foreign = parent.path().join("other");
    fs::create_dir(&foreign).unwrap();
    let late = SpillDirectory::create(parent.path()).unwrap();
    assert!(!dead.exists() && !bare.exists() && foreign.exists());
    assert_ne!(late.path(), living.path());
    assert_eq!(spilled.load(&ample()).unwrap(), partition(&[10]));
}

#[test]
fn many_processes_starting_at_once_all_get_a_directory() {
    let parent = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for index in 0..25 {
                    let spill = SpillDirectory::create(parent.path()).unwrap();
                    let spilled = spill.spill(id(index), partition(&[100])).unwrap();
                    assert_eq!(spilled.load(&ample()).unwrap(), partition(&[100]));
                }
            });
        }
    });
    assert_eq!(entries(parent.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_parent_that_cannot_be_made_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("a-file");
    File::create(&file).unwrap();
    let error = SpillDirectory::create(&file.join("below")).unwrap_err();
    assert!(error.to_string().contains("a-file/below"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_file_is_an_error(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillDirectory::create(parent.path()).unwrap();
        let spilled = spill.spill(id(1), partition(&[100, 0, 70])).unwrap();
        let mut bytes = fs::read(spilled.path()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(spilled.path(), &bytes).unwrap();
        let error = spilled.load(&Budget::new("m", 1_000)).unwrap_err();
        prop_assert!(matches!(error, LoadError::Corrupt { .. }), "byte {at}: {error}");
        prop_assert!(error.to_string().contains(&spilled.path().display().to_string()));
    }

    #[test]
    fn a_file_of_another_length_is_an_error(length in 0_usize..600) {
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillDirectory::create(parent.path()).unwrap();
        let spilled = spill.spill(id(1), partition(&[100, 0, 70])).unwrap();
        let mut bytes = fs::read(spilled.path()).unwrap();
        prop_assume!(length != bytes.len());
        bytes.resize(length, 0);
        fs::write(spilled.path(), &bytes).unwrap();
        let error = spilled.load(&Budget::new("m", 1_000)).unwrap_err();
        prop_assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn arbitrary_bytes_are_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillDirectory::create(parent.path()).unwrap();
        let spilled = spill.spill(id(1), partition(&[1])).unwrap();
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"TLSPILL1");
        }
        fs::write(spilled.path(), &bytes).unwrap();
        prop_assert!(spilled.load(&Budget::new("m", 1_000)).is_err());
    }
}
