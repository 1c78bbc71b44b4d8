//! Gangs: all members start, or none; all run again, or none; and nobody starves.

use transload_protocol::{
    ClientMessage, Edges, Event, GraphId, GraphOutcome, Layer, Resources, TaskErrorKind, TaskGraph,
    TaskId, WorkerId, WorkerMessage,
};

use crate::testing::graphs::{explicit, gang, independent};
use crate::testing::{Cluster, partition, task};
use crate::{Config, Input};

impl Cluster {
    fn explain(&mut self, task: TaskId) -> String {
        self.tell(ClientMessage::Explain { task });
        let explained = self.clients[&crate::testing::CLIENT].explained.last();
        let explained = explained.expect("answered");
        format!("{}; {}", explained.summary, explained.details.join("; "))
    }

    fn members_at_work(&self, graph: GraphId) -> usize {
        let assigned = self.assigned();
        assigned.iter().filter(|task| task.graph == graph).count()
    }
}

fn tasks(graph: GraphId, members: std::ops::Range<u32>) -> Vec<TaskId> {
    members.map(|index| task(graph, index)).collect()
}

/// A gang of three whose outputs one task each reads; these are kept.
fn gang_with_readers() -> TaskGraph {
    let mut graph = TaskGraph::new("read");
    let members = graph.push(Layer::new("gang", "op", 3).as_gang());
    let readers = graph.push(Layer::new("readers", "op", 3).reading(members, Edges::OneToOne));
    graph.keep(readers);
    graph
}

#[test]
fn a_gang_starts_when_all_of_it_fits_and_not_before() {
    let mut cluster = Cluster::of(1, 2);
    cluster.join(1);
    let small = cluster.submit(independent(1));
    let graph = cluster.submit(gang(3));
    assert_eq!(cluster.assigned(), [task(small, 0)]);
    let explained = cluster.explain(task(graph, 0));
    assert!(explained.contains("2 of 3 members fit now"), "{explained}");
    assert!(explained.contains("room is kept for it"), "{explained}");
    cluster.finish(task(small, 0));
    assert_eq!(cluster.assigned(), tasks(graph, 0..3));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.release(tasks(small, 0..1));
    cluster.release(tasks(graph, 0..3));
    cluster.assert_clean();
}

#[test]
fn who_asks_for_a_gang_before_the_loss_of_a_worker_was_acted_upon_is_told_of_those_that_are_left() {
    let mut cluster = Cluster::of(3, 2);
    cluster.submit(independent(4));
    let graph = cluster.submit(gang(3));
    let explained = cluster.explain(task(graph, 0));
    let kept_on = |worker: u32| explained.contains(&format!("on worker w{worker}"));
    let worker = (0..3).find(|worker| kept_on(*worker)).map(WorkerId);
    let worker = worker.expect("room is kept");

    let mut actions = Vec::new();
    let reason = "killed".to_owned();
    let lost = Input::WorkerLost { worker, reason };
    cluster.scheduler.take_in(cluster.now, lost, &mut actions);
    let explanation = cluster.scheduler.explain(task(graph, 0));
    let said = explanation.details.join("; ");
    assert!(said.contains("room is kept for it"), "{said}");
    assert!(!said.contains(&format!("on worker {worker}")), "{said}");
}

#[test]
fn a_stream_of_small_tasks_does_not_starve_a_gang_and_uses_what_is_not_kept_for_it() {
    let mut cluster = Cluster::of(2, 2);
    let before = cluster.submit(independent(8));
    let graph = cluster.submit(gang(3));
    let stream = cluster.submit(independent(20));
    for index in 0..8 {
        cluster.finish(task(before, index));
        if index >= 4 {
            continue;
        }
        assert_eq!(cluster.members_at_work(graph), 0);
    }
    assert_eq!(cluster.members_at_work(graph), 3);
    assert!(
        cluster.members_at_work(stream) > 0,
        "the fourth slot was nobody's"
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.outcome(stream), Some(&GraphOutcome::Finished));
}

#[test]
fn gangs_that_want_everything_take_turns() {
    let mut cluster = Cluster::of(2, 2);
    let graphs: Vec<GraphId> = (0..4).map(|_| cluster.submit(gang(4))).collect();
    for graph in &graphs {
        assert_eq!(cluster.assigned(), tasks(*graph, 0..4));
        for member in tasks(*graph, 0..4) {
            cluster.finish(member);
        }
        assert_eq!(cluster.outcome(*graph), Some(&GraphOutcome::Finished));
    }
}

#[test]
fn a_smaller_gang_does_not_take_what_is_kept_for_a_larger_one() {
    let mut cluster = Cluster::of(1, 4);
    cluster.join(2);
    let small = cluster.submit(independent(3));
    let large = cluster.submit(gang(4));
    let little = cluster.submit(gang(2));
    assert_eq!(cluster.members_at_work(large), 0);
    assert_eq!(
        cluster.members_at_work(little),
        0,
        "the rest is kept: {:?}",
        cluster.assigned()
    );
    cluster.finish(task(small, 0));
    assert_eq!(cluster.members_at_work(large), 4);
    cluster.run();
    assert_eq!(cluster.outcome(little), Some(&GraphOutcome::Finished));
}

#[test]
fn members_go_where_their_inputs_are() {
    let mut cluster = Cluster::of(2, 2);
    let mut graph = TaskGraph::new("near");
    let made = graph.push(Layer::new("made", "op", 4));
    let members = graph.push(
        Layer::new("gang", "op", 4)
            .reading(made, Edges::OneToOne)
            .as_gang(),
    );
    graph.keep(members);
    let graph = cluster.submit(graph);
    let holders: Vec<_> = (0..4).map(|at| cluster.finish(task(graph, at))).collect();
    let places: Vec<_> = (4..8)
        .map(|at| cluster.worker_of(task(graph, at)).expect("assigned"))
        .collect();
    assert_eq!(places, holders);
}

#[test]
fn nobody_reads_of_a_gang_before_all_of_it_has_ended() {
    let mut cluster = Cluster::of(3, 2);
    let graph = cluster.submit(gang_with_readers());
    cluster.finish(task(graph, 0));
    cluster.finish(task(graph, 1));
    assert_eq!(cluster.assigned(), [task(graph, 2)]);
    let explained = cluster.explain(task(graph, 0));
    assert!(explained.contains("has ended well"), "{explained}");
    cluster.finish(task(graph, 2));
    assert_eq!(cluster.assigned(), tasks(graph, 3..6));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_member_that_fails_takes_all_back_and_they_start_again_together() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(gang(3));
    let first = cluster.finish(task(graph, 0));
    cluster.fail(task(graph, 1), TaskErrorKind::OutOfMemory);
    cluster.wait_for_retries();
    assert_eq!(cluster.assigned(), [], "one has not answered");
    assert!(!cluster.workers[&first].stored.contains(&task(graph, 0)));
    let explained = cluster.explain(task(graph, 0));
    assert!(
        explained.contains("2 of 3 members are ready"),
        "{explained}"
    );
    let other = cluster
        .workers
        .iter()
        .find(|(_, worker)| !worker.cancelling.is_empty());
    let other = *other.expect("told to stop").0;
    cluster.answer_cancel(other);
    assert_eq!(cluster.assigned(), tasks(graph, 0..3));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn retries_are_counted_for_the_gang() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gang(2));
    for member in [0, 1, 0] {
        cluster.fail(task(graph, member), TaskErrorKind::OutOfMemory);
        let workers: Vec<_> = cluster.workers.keys().copied().collect();
        for worker in workers {
            if !cluster.workers[&worker].cancelling.is_empty() {
                cluster.answer_cancel(worker);
            }
        }
        cluster.wait_for_retries();
    }
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("two retries are all it has");
    };
    assert!(error.attempts == 3, "{error}");
    cluster.assert_clean();
}

#[test]
fn a_failure_that_a_death_explains_is_not_the_graphs() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(gang(2));
    cluster.start(task(graph, 0));
    cluster.start(task(graph, 1));
    let dead = cluster.worker_of(task(graph, 0)).expect("assigned");
    // Its connection to the other ended, which the scheduler hears first.
    cluster.fail(task(graph, 1), TaskErrorKind::Operator);
    assert_eq!(cluster.outcome(graph), None);
    let explained = cluster.explain(task(graph, 1));
    assert!(explained.contains("boom"), "{explained}");
    cluster.kill(dead);
    assert_eq!(cluster.assigned(), tasks(graph, 0..2));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_gang_that_lost_a_second_worker_waits_though_its_members_came_back_before() {
    let mut cluster = Cluster::of(4, 1);
    let graph = cluster.submit(gang(2));
    for is_second in [false, true] {
        cluster.start(task(graph, 0));
        cluster.start(task(graph, 1));
        let dead = cluster.worker_of(task(graph, 0)).expect("assigned");
        if is_second {
            // Its connection to the other ended, which the scheduler hears first.
            cluster.fail(task(graph, 1), TaskErrorKind::Operator);
            cluster.kill(dead);
        } else {
            let other = cluster.worker_of(task(graph, 1)).expect("assigned");
            cluster.kill(dead);
            cluster.answer_cancel(other);
            assert_eq!(cluster.assigned(), tasks(graph, 0..2));
        }
    }
    assert_eq!(cluster.assigned(), []);
    cluster.wait_for_retries();
    assert_eq!(cluster.assigned(), tasks(graph, 0..2));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_failure_for_good_ends_the_graph_when_all_others_have_answered() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gang(2));
    let other = cluster.worker_of(task(graph, 0)).expect("assigned");
    cluster.fail(task(graph, 1), TaskErrorKind::Operator);
    assert_eq!(cluster.outcome(graph), None);
    cluster.answer_cancel(other);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!(
        (error.task, error.kind),
        (task(graph, 1), TaskErrorKind::Operator)
    );
    cluster.assert_clean();
}

#[test]
fn a_failure_that_can_be_cured_comes_before_one_that_followed_from_it() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gang(2));
    let other = cluster.worker_of(task(graph, 0)).expect("assigned");
    cluster.workers.get_mut(&other).expect("alive").slow = true;
    cluster.fail(task(graph, 1), TaskErrorKind::Operator);
    cluster.fail(task(graph, 0), TaskErrorKind::OutOfMemory);
    cluster.workers.get_mut(&other).expect("alive").slow = false;
    cluster.deliver_all(other);
    assert_eq!(cluster.assigned(), tasks(graph, 0..2));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_gang_that_kills_its_workers_is_given_up() {
    let mut cluster = Cluster::of(4, 2);
    let graph = cluster.submit(gang(2));
    for _ in 0..3 {
        // Two members on one worker are one death.
        cluster.start(task(graph, 0));
        cluster.start(task(graph, 1));
        let worker = cluster.worker_of(task(graph, 1)).expect("assigned");
        cluster.kill(worker);
        let workers: Vec<_> = cluster.workers.keys().copied().collect();
        for worker in workers {
            while !cluster.workers[&worker].cancelling.is_empty() {
                cluster.answer_cancel(worker);
            }
        }
        cluster.wait_for_retries();
    }
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!(error.kind, TaskErrorKind::WorkersLost);
    assert!(error.message.contains("3 workers died"), "{error}");
    cluster.assert_clean();
}

#[test]
fn outputs_lost_later_are_made_again_by_the_whole_gang() {
    let mut cluster = Cluster::of(3, 1);
    let graph = cluster.submit(gang_with_readers());
    for member in tasks(graph, 0..3) {
        cluster.finish(member);
    }
    let reader = cluster.finish(task(graph, 3));
    assert_eq!(cluster.assigned(), tasks(graph, 4..6));
    let dead = cluster.worker_of(task(graph, 5)).expect("assigned");
    assert_ne!(reader, dead);
    cluster.join(1);
    cluster.kill(dead);
    // The fifth reader has what it reads; the sixth does not.
    cluster.finish(task(graph, 4));
    assert_eq!(
        cluster.assigned(),
        tasks(graph, 0..3),
        "members 0 and 1, too"
    );
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
    cluster.release(tasks(graph, 3..6));
    cluster.assert_clean();
}

#[test]
fn a_worker_that_loses_what_a_member_made_takes_all_back() {
    let mut cluster = Cluster::of(2, 1);
    let graph = cluster.submit(gang(2));
    let worker = cluster.finish(task(graph, 0));
    let lost = vec![task(graph, 0)];
    cluster
        .workers
        .get_mut(&worker)
        .expect("alive")
        .stored
        .clear();
    cluster.say(worker, WorkerMessage::Lost { tasks: lost });
    let other = *cluster
        .workers
        .keys()
        .find(|id| **id != worker)
        .expect("two");
    cluster.answer_cancel(other);
    assert_eq!(cluster.assigned(), tasks(graph, 0..2));
}

#[test]
fn a_member_whose_inputs_are_missing_takes_all_back_until_they_are_made_again() {
    let mut cluster = Cluster::of(3, 1);
    let mut graph = TaskGraph::new("missing");
    let made = graph.push(Layer::new("made", "op", 2));
    let members = graph.push(
        Layer::new("gang", "op", 2)
            .reading(made, Edges::OneToOne)
            .as_gang(),
    );
    graph.keep(members);
    let graph = cluster.submit(graph);
    let holder = cluster.finish(task(graph, 0));
    cluster.finish(task(graph, 1));
    let stopped = cluster.worker_of(task(graph, 3)).expect("assigned");
    cluster.miss(task(graph, 2), vec![(partition(graph, 0), holder)]);
    assert_eq!(cluster.assigned(), [task(graph, 0)]);
    cluster.answer_cancel(stopped);
    cluster.finish(task(graph, 0));
    assert_eq!(cluster.assigned(), tasks(graph, 2..4));
}

#[test]
fn members_that_nobody_reads_run_with_those_that_somebody_does() {
    let mut cluster = Cluster::of(2, 2);
    let mut graph = TaskGraph::new("one result");
    let members = graph.push(Layer::new("gang", "op", 3).as_gang());
    let result =
        graph.push(Layer::new("result", "op", 1).reading(members, explicit(&[vec![(1, 0)]])));
    graph.keep(result);
    let graph = cluster.submit(graph);
    assert_eq!(cluster.assigned(), tasks(graph, 0..3));
    for member in tasks(graph, 0..3) {
        cluster.finish(member);
    }
    let stored: usize = cluster
        .workers
        .values()
        .map(|worker| worker.stored.len())
        .sum();
    assert_eq!(stored, 1, "what nobody reads is freed");
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}

#[test]
fn a_gang_that_nobody_needs_any_more_is_stopped_as_a_whole() {
    let mut cluster = Cluster::of(3, 1);
    let mut tree = TaskGraph::new("two outputs");
    let members = tree.push(Layer::new("gang", "op", 2).as_gang());
    let other = tree.push(Layer::new("other", "op", 1));
    tree.keep(members);
    tree.keep(other);
    let graph = cluster.submit(tree);
    cluster.finish(task(graph, 0));
    cluster.release(vec![task(graph, 0)]);
    assert_eq!(cluster.members_at_work(graph), 2, "its sibling is wanted");
    let worker = cluster.worker_of(task(graph, 1)).expect("assigned");
    cluster.release(vec![task(graph, 1)]);
    cluster.answer_cancel(worker);
    assert_eq!(cluster.assigned(), [task(graph, 2)]);
    cluster.run();
    cluster.release(vec![task(graph, 2)]);
    cluster.assert_clean();
}

#[test]
fn a_gang_that_nobody_can_ever_hold_is_named_with_numbers() {
    let mut cluster = Cluster::with(Config {
        unschedulable_grace_ms: 5_000,
        ..Config::default()
    });
    cluster.join(3);
    cluster.join(3);
    let mut wide = gang(4);
    wide.layers[0].resources = Resources::slots(2);
    let graph = cluster.submit(wide.clone());
    let explained = cluster.explain(task(graph, 1));
    assert!(explained.contains("gang of 4 tasks"), "{explained}");
    assert!(explained.contains("room for 2 of them"), "{explained}");
    let told = cluster.count_events(|event| matches!(event, Event::TaskUnschedulable { .. }));
    assert_eq!(told, 1);
    assert_eq!(cluster.outcome(graph), None, "workers may still join");
    cluster.wait_ms(5_000);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(graph) else {
        panic!("{:?}", cluster.outcome(graph));
    };
    assert_eq!(error.kind, TaskErrorKind::Unschedulable);
    assert!(error.message.contains("room for 2 of them"), "{error}");
    cluster.assert_clean();
    let graph = cluster.submit(wide);
    cluster.join(4);
    assert_eq!(cluster.assigned(), tasks(graph, 0..4));
}

#[test]
fn a_task_that_waits_without_its_slot_makes_room_for_a_gang() {
    let mut cluster = Cluster::of(2, 1);
    let outer = cluster.submit(independent(1));
    let (worker, attempt) = {
        let worker = cluster.worker_of(task(outer, 0)).expect("assigned");
        (
            worker,
            cluster.workers[&worker].assigned[&task(outer, 0)]
                .task
                .attempt,
        )
    };
    let inner = cluster.submit(gang(2));
    assert_eq!(cluster.members_at_work(inner), 0);
    let task = task(outer, 0);
    cluster.say(worker, WorkerMessage::Seceded { task, attempt });
    assert_eq!(cluster.members_at_work(inner), 2);
    for member in tasks(inner, 0..2) {
        cluster.finish(member);
    }
    cluster.say(worker, WorkerMessage::Rejoined { task, attempt });
    cluster.run();
    assert_eq!(cluster.outcome(outer), Some(&GraphOutcome::Finished));
}

#[test]
fn after_a_restart_a_gang_that_is_done_is_found_and_one_that_ran_begins_anew() {
    let mut cluster = Cluster::journaled(Config::default());
    cluster.join(2);
    cluster.join(2);
    let done = cluster.submit(gang_with_readers());
    for member in tasks(done, 0..3) {
        cluster.finish(member);
    }
    cluster.finish(task(done, 3));
    let ran = cluster.submit(gang(2));
    for reader in tasks(done, 4..6) {
        cluster.finish(reader);
    }
    assert_eq!(cluster.members_at_work(ran), 2);
    let worker = cluster.worker_of(task(ran, 1)).expect("assigned");
    let fake = cluster.workers.get_mut(&worker).expect("alive");
    fake.assigned.get_mut(&task(ran, 1)).expect("there").fetched = true;
    cluster.finish(task(ran, 0));
    cluster.crash();
    cluster.all_return();
    assert_eq!(cluster.assigned(), tasks(ran, 0..2), "both anew");
    cluster.run();
    assert_eq!(cluster.outcome(ran), Some(&GraphOutcome::Finished));
    cluster.release(tasks(done, 3..6));
    cluster.release(tasks(ran, 0..2));
    cluster.assert_clean();
}

#[test]
fn after_a_restart_what_is_left_of_a_gang_is_found_though_the_rest_was_freed() {
    let mut cluster = Cluster::journaled(Config::default());
    cluster.join(3);
    let graph = cluster.submit(gang_with_readers());
    for member in tasks(graph, 0..3) {
        cluster.finish(member);
    }
    cluster.finish(task(graph, 3));
    cluster.crash();
    cluster.all_return();
    assert_eq!(cluster.assigned(), tasks(graph, 4..6));
    cluster.run();
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Finished));
}
