//! What is made again, and what is not.

use transload_protocol::{
    Edges, Event, GraphOutcome, Layer, OutputSizes, TaskGraph, WorkerMessage,
};

use crate::testing::graphs::{chain, explicit, gather, independent, shuffle};
use crate::testing::{CLIENT, Cluster, partition, task};

/// One task read by two, both kept.
fn one_read_by_two() -> TaskGraph {
    let mut tasks = TaskGraph::new("fork");
    let a = tasks.push(Layer::new("a", "op", 1));
    let b = tasks.push(Layer::new("b", "op", 2).reading(a, Edges::Broadcast));
    tasks.keep(b);
    tasks
}

#[test]
fn a_lost_worker_reschedules_its_running_tasks() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(2));
    let victim = cluster.worker_of(task(graph, 0)).expect("assigned");
    cluster.start(task(graph, 0));
    cluster.kill(victim);
    assert_eq!(cluster.assigned(), [task(graph, 0), task(graph, 1)]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.recomputed(), [] as [u32; 0]);
}

#[test]
fn a_half_consumed_output_is_made_again_for_the_rest_of_its_readers_only() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(one_read_by_two());
    let holder = cluster.finish(task(graph, 0));
    let (near, far) = if cluster.worker_of(task(graph, 1)) == Some(holder) {
        (1, 2)
    } else {
        (2, 1)
    };
    // The far reader is done and safe elsewhere; the near one dies with the holder.
    cluster.finish(task(graph, far));
    cluster.kill(holder);
    assert_eq!(cluster.recomputed(), [0]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    let finished = |index| {
        cluster.count_events(
            |event| matches!(event, Event::TaskFinished { task, .. } if task.index == index),
        )
    };
    assert_eq!((finished(0), finished(near), finished(far)), (2, 1, 1));
}

#[test]
fn recomputing_goes_back_through_freed_ancestors() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(chain(1));
    cluster.finish(task(graph, 0));
    let only = cluster.finish(task(graph, 1));
    cluster.join(1);
    cluster.kill(only);
    assert_eq!(cluster.recomputed(), [1, 0]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn what_is_stored_elsewhere_is_not_made_again() {
    let mut cluster = Cluster::of(2, 2);
    let graph = cluster.submit(gather(4));
    let holders: Vec<_> = (0..4)
        .map(|index| cluster.finish(task(graph, index)))
        .collect();
    let victim = holders[0];
    let lost: Vec<u32> = (0..4)
        .filter(|index| holders[*index as usize] == victim)
        .collect();
    assert_eq!(lost.len(), 2, "two on each");
    cluster.kill(victim);
    let mut recomputed = cluster.recomputed();
    recomputed.sort_unstable();
    assert_eq!(recomputed, lost);
}

#[test]
fn a_reader_that_has_its_inputs_already_finishes_and_calls_the_recompute_off() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(one_read_by_two());
    let holder = cluster.finish(task(graph, 0));
    let far = (1..3)
        .map(|index| task(graph, index))
        .find(|id| cluster.worker_of(*id) != Some(holder))
        .expect("one on each");
    let near = task(graph, 3 - far.index);
    cluster.finish(near);
    cluster.release(vec![near]);
    cluster.kill(holder);
    assert_eq!(cluster.recomputed(), [0]);
    cluster.finish(far);
    // Whatever was running of the recompute is called off, and the graph is done.
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.assigned(), []);
    let survivor = *cluster.workers.keys().next().expect("one is left");
    if !cluster.workers[&survivor].cancelling.is_empty() {
        cluster.answer_cancel(survivor);
    }
    cluster.release(vec![far]);
    cluster.assert_clean();
}

#[test]
fn a_reader_that_misses_its_inputs_waits_for_them_to_be_made_again() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gather(2));
    let first = cluster.finish(task(graph, 0));
    cluster.finish(task(graph, 1));
    let reader = cluster.worker_of(task(graph, 2)).expect("assigned");
    let (dead, lost) = if reader == first {
        let other = *cluster
            .workers
            .keys()
            .find(|worker| **worker != first)
            .expect("two");
        (other, 1)
    } else {
        (first, 0)
    };
    cluster.kill(dead);
    cluster.miss(task(graph, 2), vec![(partition(graph, lost), dead)]);
    assert_eq!(cluster.assigned(), [task(graph, lost)]);
    assert!(
        cluster
            .scheduler
            .explain(task(graph, 2))
            .summary
            .contains("waits for 1 of the 2")
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_partition_that_its_living_holder_does_not_serve_is_made_again_elsewhere() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gather(2));
    let holders = [
        cluster.finish(task(graph, 0)),
        cluster.finish(task(graph, 1)),
    ];
    let reader = cluster.worker_of(task(graph, 2)).expect("assigned");
    let far = u32::from(holders[0] == reader);
    let holder = holders[far as usize];
    cluster.miss(task(graph, 2), vec![(partition(graph, far), holder)]);
    assert!(!cluster.workers[&holder].stored.contains(&task(graph, far)));
    assert_eq!(cluster.recomputed(), [far]);
    assert_eq!(
        cluster.worker_of(task(graph, far)),
        Some(reader),
        "the other worker can be reached for sure"
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_report_about_a_place_that_has_changed_since_only_repeats_the_assignment() {
    let mut cluster = Cluster::of(3, 1);
    let mut tasks = one_read_by_two();
    tasks.layers[0].resources.slots = 1;
    let graph = cluster.submit(tasks);
    let holder = cluster.finish(task(graph, 0));
    let readers: Vec<_> = (1..3)
        .map(|index| task(graph, index))
        .filter(|id| cluster.worker_of(*id) != Some(holder))
        .collect();
    let reader = readers[0];
    // The first report makes the source run again; it finishes before the second report arrives.
    let other = task(graph, 3 - reader.index);
    cluster.miss(reader, vec![(partition(graph, 0), holder)]);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.recomputed(), [0]);
    cluster.miss(other, vec![(partition(graph, 0), holder)]);
    assert_eq!(
        cluster.recomputed(),
        [0],
        "the report is older than the partition"
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_late_finish_of_an_older_attempt_is_released() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    let id = task(graph, 0);
    let first = cluster.worker_of(id).expect("assigned");
    let attempt = cluster.workers[&first].assigned[&id].task.attempt;
    cluster.miss(id, vec![]);
    let second = cluster.worker_of(id).expect("assigned again");
    if first != second {
        let fake = cluster.workers.get_mut(&first).expect("alive");
        fake.stored.insert(id);
    }
    cluster.say(
        first,
        WorkerMessage::Finished {
            task: id,
            attempt,
            sizes: OutputSizes::of(&[1]),
            run_micros: 0,
        },
    );
    assert_eq!(
        cluster.outcome(graph),
        None,
        "the older attempt counts for nothing"
    );
    assert!(!cluster.workers[&first].stored.contains(&id));
    cluster.finish(id);
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_message_of_a_lost_worker_changes_nothing() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    let id = task(graph, 0);
    let victim = cluster.worker_of(id).expect("assigned");
    let attempt = cluster.workers[&victim].assigned[&id].task.attempt;
    cluster.kill(victim);
    cluster.say(
        victim,
        WorkerMessage::Finished {
            task: id,
            attempt,
            sizes: OutputSizes::of(&[1]),
            run_micros: 0,
        },
    );
    assert_eq!(cluster.outcome(graph), None);
}

#[test]
fn a_kept_output_that_is_lost_after_the_end_is_made_again() {
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(chain(1));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    let old = cluster.client().outputs[&task(graph, 2)];
    let new = cluster.join(1);
    cluster.kill(old);
    assert_eq!(cluster.client().lost, [task(graph, 2)]);
    assert_eq!(cluster.recomputed(), [2, 1, 0]);
    cluster.run();
    assert_eq!(cluster.client().outputs[&task(graph, 2)], new);
    cluster.release(vec![task(graph, 2)]);
    cluster.assert_clean();
}

#[test]
fn a_kept_output_that_the_client_cannot_reach_is_made_again_elsewhere() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    let old = cluster.finish(task(graph, 0));
    let complaint = |worker| transload_protocol::ClientMessage::Unreachable {
        task: task(graph, 0),
        worker,
        reason: "refused".to_owned(),
    };
    cluster.tell(complaint(old));
    let new = cluster.worker_of(task(graph, 0)).expect("assigned again");
    assert_ne!(new, old);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.client().outputs[&task(graph, 0)], new);
    // A complaint about the old place is answered with the new one.
    let client = cluster.clients.get_mut(&CLIENT).expect("connected");
    client.outputs.clear();
    cluster.tell(complaint(old));
    assert_eq!(cluster.client().outputs[&task(graph, 0)], new);
}

#[test]
fn an_output_that_nobody_can_ever_reach_fails_the_graph() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    for _ in 0..9 {
        let holder = cluster.finish(task(graph, 0));
        cluster.tell(transload_protocol::ClientMessage::Unreachable {
            task: task(graph, 0),
            worker: holder,
            reason: "refused".to_owned(),
        });
    }
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert!(error.message.contains("refused"), "{error}");
    cluster.assert_clean();
}

#[test]
fn outputs_that_a_worker_reports_lost_are_made_again() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(independent(1));
    let holder = cluster.finish(task(graph, 0));
    cluster.say(
        holder,
        WorkerMessage::Lost {
            tasks: vec![task(graph, 0)],
        },
    );
    assert_eq!(cluster.client().lost, [task(graph, 0)]);
    cluster.run();
    assert!(cluster.client().outputs.contains_key(&task(graph, 0)));
}

#[test]
fn a_partition_read_twice_by_one_task_is_freed_once_and_made_again_once() {
    let mut tasks = TaskGraph::new("twice");
    let a = tasks.push(Layer::new("a", "op", 1));
    let b = tasks.push(
        Layer::new("b", "op", 1)
            .reading(a, Edges::OneToOne)
            .reading(a, Edges::Broadcast)
            .reading(a, explicit(&[vec![(0, 0), (0, 0)]])),
    );
    tasks.keep(b);
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(tasks);
    let holder = cluster.finish(task(graph, 0));
    let reader = &cluster.workers[&holder].assigned[&task(graph, 1)];
    assert_eq!((reader.task.inputs.len(), reader.reads.len()), (3, 4));
    cluster.join(1);
    cluster.kill(holder);
    assert_eq!(cluster.recomputed(), [0]);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.release(vec![task(graph, 1)]);
    cluster.assert_clean();
}

#[test]
fn a_task_that_is_both_kept_and_read_stays_until_released() {
    let mut tasks = chain(1);
    tasks.keep(transload_protocol::LayerIndex(1));
    let mut cluster = Cluster::of(1, 1);
    let graph = cluster.submit(tasks);
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    let holder = cluster.client().outputs[&task(graph, 1)];
    let stored: Vec<_> = cluster.workers[&holder].stored.iter().copied().collect();
    assert_eq!(stored, [task(graph, 1), task(graph, 2)]);
    cluster.release(vec![task(graph, 1)]);
    assert!(!cluster.workers[&holder].stored.contains(&task(graph, 1)));
    cluster.release(vec![task(graph, 2)]);
    cluster.assert_clean();
}

#[test]
fn a_shuffle_survives_the_loss_of_each_worker_in_turn() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(shuffle(6, 4));
    for _ in 0..6 {
        for _ in 0..3 {
            if let Some(first) = cluster.assigned().first().copied() {
                cluster.finish(first);
            }
        }
        let victim = *cluster.workers.keys().next().expect("someone");
        cluster.join(1);
        cluster.kill(victim);
    }
    while let Some(id) = cluster.assigned().last().copied() {
        let worker = &cluster.workers[&cluster.worker_of(id).expect("assigned")];
        let mut gone = worker.assigned[&id].reads.clone();
        gone.retain(|(partition, holder)| !cluster.holds(*holder, *partition));
        if gone.is_empty() {
            cluster.finish(id);
        } else {
            cluster.miss(id, gone);
        }
    }
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.release((6..10).map(|index| task(graph, index)).collect());
    cluster.assert_clean();
}

/// Layers whose edges are listed one by one, then one task that reads all of the last, which is kept.
fn scattered(keep_all: bool) -> TaskGraph {
    let mut tasks = TaskGraph::new("scattered");
    let mut last = tasks.push(Layer::new("roots", "op", 40));
    for layer in 1..4_u32 {
        let lists: Vec<Vec<(u32, u32)>> = (0_u32..40)
            .map(|task| {
                let read = |factor| ((task * factor + layer) % 40, 0);
                vec![read(7), read(11), read(7)]
            })
            .collect();
        let next = Layer::new("scattered", "op", 40).reading(last, explicit(&lists));
        if keep_all {
            tasks.keep(last);
        }
        last = tasks.push(next);
    }
    let all = Layer::new("all", "op", 1).reading(last, Edges::Broadcast);
    let all = tasks.push(all);
    tasks.keep(all);
    tasks
}

#[test]
fn what_ends_together_in_a_scattered_graph_is_followed_as_if_one_by_one() {
    for keep_all in [false, true] {
        let mut cluster = Cluster::of(3, 16);
        let graph = cluster.submit(scattered(keep_all));
        while !cluster.assigned().is_empty() {
            let assigned = cluster.assigned();
            cluster.finish_together(&assigned);
        }
        assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
        assert_eq!(cluster.recomputed(), [] as [u32; 0]);
        let finished = |event: &Event| matches!(event, Event::TaskFinished { .. });
        assert_eq!(cluster.count_events(finished), 161);
    }
}

#[test]
fn what_ends_together_with_tasks_that_nobody_needs_any_more_or_with_other_graphs_is_followed_too() {
    let mut cluster = Cluster::of(3, 16);
    let graph = cluster.submit(scattered(false));
    let other = cluster.submit(scattered(true));
    let third = cluster.submit(shuffle(4, 4));
    for round in 0.. {
        let mut assigned = cluster.assigned();
        if assigned.is_empty() {
            break;
        }
        // In no order of theirs, and some of them later.
        assigned.sort_by_key(|task| (task.index * 13 % 7, task.graph));
        assigned.truncate(assigned.len().div_ceil(2) + 1);
        cluster.finish_together(&assigned);
        if round == 4 {
            let worker = cluster.workers.keys().next().copied().expect("three");
            cluster.kill(worker);
        }
    }
    for graph in [graph, other, third] {
        assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    }
}
