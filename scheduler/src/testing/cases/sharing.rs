//! Results that clients share: held, named, imported; and whoever leaves, nothing that somebody needs is lost.

use transload_protocol::{
    ClientMessage, GraphOutcome, SharingAnswer, SharingCall, SharingRefusal, TaskErrorKind,
};

use crate::testing::graphs::{chain, independent, shuffle};
use crate::testing::sharing::OTHER;
use crate::testing::{CLIENT, Cluster, task};
use crate::{Config, Input};

/// Two clients that can come back.
fn cluster(workers: u32, slots: u32) -> Cluster {
    let mut cluster = Cluster::journaled(Config {
        max_queue_per_slot: 0,
        ..Config::default()
    });
    cluster.join_client(OTHER);
    cluster.open_session(OTHER);
    for _ in 0..workers {
        cluster.join(slots);
    }
    cluster
}

fn release_all(cluster: &mut Cluster, graph: transload_protocol::GraphId, count: u32) {
    let tasks: Vec<_> = (0..count).map(|index| task(graph, index)).collect();
    let fake = cluster.clients.get_mut(&graph.client).expect("connected");
    fake.released.extend(&tasks);
    fake.forget();
    cluster.tell_as(graph.client, ClientMessage::Release { tasks });
}

#[test]
fn what_another_client_holds_outlives_its_owner() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(chain(2));
    cluster.run();
    let hold = cluster.hold(OTHER, cluster.range(graph, 2));
    assert_eq!(cluster.clients[&OTHER].outputs.len(), 2);
    cluster.leave(graph);
    assert_eq!(cluster.clients[&OTHER].outputs.len(), 2);
    assert_eq!(cluster.stored().len(), 2);
    cluster.let_go(OTHER, hold);
    cluster.assert_clean();
}

#[test]
fn a_graph_whose_client_is_gone_goes_on_as_far_as_others_need_it() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(independent(6));
    let mut half = cluster.range(graph, 0);
    half.count = 3;
    let hold = cluster.hold(OTHER, half);
    cluster.tell(ClientMessage::Goodbye);
    cluster.run();
    let outputs: Vec<u32> = cluster.clients[&OTHER]
        .outputs
        .keys()
        .map(|task| task.index)
        .collect();
    assert_eq!(outputs, [0, 1, 2]);
    assert_eq!(cluster.stored().len(), 3);
    cluster.let_go(OTHER, hold);
    let worker = *cluster.workers.keys().next().expect("one");
    while !cluster.workers[&worker].cancelling.is_empty() {
        cluster.answer_cancel(worker);
    }
    cluster.assert_clean();
}

#[test]
fn a_hold_on_what_is_lost_is_told_so_and_served_again() {
    let mut cluster = cluster(2, 1);
    let graph = cluster.submit(independent(1));
    let first = cluster.finish(task(graph, 0));
    let hold = cluster.hold(OTHER, cluster.range(graph, 0));
    release_all(&mut cluster, graph, 1);
    cluster.kill(first);
    assert_eq!(cluster.clients[&OTHER].lost, [task(graph, 0)]);
    assert_eq!(cluster.client().lost, [], "the owner has let go");
    let second = cluster.finish(task(graph, 0));
    assert_eq!(cluster.clients[&OTHER].outputs[&task(graph, 0)], second);
    cluster.let_go(OTHER, hold);
    cluster.assert_clean();
}

#[test]
fn what_is_unknown_freed_or_not_kept_cannot_be_held() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(chain(2));
    cluster.run();
    let refusal = |cluster: &Cluster, request| match cluster.answer(OTHER, request) {
        Some(SharingAnswer::Refused(refusal)) => refusal.clone(),
        other => panic!("{other:?}"),
    };
    let inner = cluster.hold(OTHER, cluster.range(graph, 0));
    assert!(matches!(
        refusal(&cluster, inner),
        SharingRefusal::NotKept { .. }
    ));
    let mut beyond = cluster.range(graph, 2);
    beyond.count = 3;
    let beyond = cluster.hold(OTHER, beyond);
    assert!(matches!(
        refusal(&cluster, beyond),
        SharingRefusal::NotKept { .. }
    ));
    cluster.release(vec![task(graph, 4)]);
    let all = cluster.range(graph, 2);
    let freed = cluster.hold(OTHER, all);
    let released = SharingRefusal::Released {
        task: task(graph, 4),
    };
    assert_eq!(refusal(&cluster, freed), released);
    cluster.release(vec![task(graph, 5)]);
    let gone = cluster.hold(OTHER, all);
    assert_eq!(
        refusal(&cluster, gone),
        SharingRefusal::UnknownGraph { graph }
    );
    let graph = cluster.submit(independent(1));
    cluster.run();
    let import = cluster.importing(cluster.range(graph, 0), false);
    release_all(&mut cluster, graph, 1);
    let refused = cluster.submit_as(OTHER, import);
    let error = cluster.clients[&OTHER].rejected[&refused].to_string();
    assert!(error.contains("is unknown"), "{error}");
    cluster.assert_clean();
}

#[test]
fn a_graph_that_imports_waits_for_what_is_not_there_yet_and_moves_nothing() {
    let mut cluster = cluster(2, 2);
    let graph = cluster.submit(shuffle(2, 2));
    let import = cluster.submit_as(OTHER, cluster.importing(cluster.range(graph, 1), true));
    assert!(!cluster.assigned().contains(&task(import, 0)));
    let reason = cluster.scheduler.explain(task(import, 0));
    assert!(reason.details[0].contains("`reduce`"), "{reason:?}");
    for index in 0..3 {
        cluster.finish(task(graph, index));
    }
    let maker = cluster.finish(task(graph, 3));
    assert_eq!(
        cluster.worker_of(task(import, 1)),
        Some(maker),
        "it stays where it is"
    );
    cluster.run();
    assert_eq!(cluster.outcome(import), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.clients[&OTHER].outputs.len(), 3);
    release_all(&mut cluster, graph, 4);
    release_all(&mut cluster, import, 5);
    cluster.assert_clean();
}

#[test]
fn what_is_imported_is_freed_once_it_is_handed_on_and_made_again_should_that_be_lost() {
    let mut cluster = cluster(2, 1);
    let graph = cluster.submit(chain(1));
    let import = cluster.submit_as(OTHER, cluster.importing(cluster.range(graph, 2), false));
    cluster.leave(graph);
    cluster.run();
    assert_eq!(
        cluster.stored().len(),
        1,
        "only the output of the second graph"
    );
    let holder = cluster.clients[&OTHER].outputs[&task(import, 1)];
    cluster.kill(holder);
    cluster.run();
    assert_eq!(
        cluster.recomputed().len(),
        5,
        "back to the first task of the first graph"
    );
    assert_eq!(cluster.clients[&OTHER].outputs.len(), 1);
    release_all(&mut cluster, import, 2);
    cluster.assert_clean();
}

#[test]
fn a_row_of_graphs_that_import_from_each_other_is_made_again_and_forgotten_together() {
    let mut cluster = cluster(2, 1);
    let mut last = cluster.submit(independent(1));
    for _ in 0..5 {
        let layer = u32::from(last.sequence > 0);
        let next = cluster.submit(cluster.importing(cluster.range(last, layer), false));
        cluster.leave(last);
        last = next;
    }
    cluster.run();
    let holder = cluster.client().outputs[&task(last, 1)];
    cluster.kill(holder);
    cluster.run();
    assert_eq!(cluster.recomputed().len(), 11);
    assert_eq!(cluster.client().outputs.len(), 1);
    release_all(&mut cluster, last, 2);
    cluster.assert_clean();
}

#[test]
fn a_failure_reaches_all_who_hold_or_import() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(chain(1));
    let import = cluster.submit_as(OTHER, cluster.importing(cluster.range(graph, 2), false));
    let hold = cluster.hold(OTHER, cluster.range(graph, 2));
    cluster.publish(OTHER, "result", cluster.range(graph, 2));
    cluster.fail(task(graph, 0), TaskErrorKind::Operator);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(import) else {
        panic!("it should have failed");
    };
    assert_eq!(error.task, task(graph, 0));
    assert!(
        error.message.contains("boom") && error.message.contains("imported"),
        "{error}"
    );
    assert!(matches!(
        cluster.answer(OTHER, hold),
        Some(SharingAnswer::Over {
            outcome: GraphOutcome::Failed(_)
        })
    ));
    let name = "result".to_owned();
    let lookup = cluster.share(OTHER, SharingCall::Lookup { name });
    assert!(matches!(
        cluster.answer(OTHER, lookup),
        Some(SharingAnswer::Refused(SharingRefusal::UnknownName { .. }))
    ));
    cluster.assert_clean();
}

#[test]
fn who_has_imported_everything_minds_a_cancellation_only_when_that_is_lost() {
    let mut cluster = cluster(2, 1);
    let graph = cluster.submit(independent(5));
    let mut first = cluster.range(graph, 0);
    first.count = 1;
    let import = cluster.submit_as(OTHER, cluster.importing(first, false));
    cluster.finish(task(graph, 0));
    while cluster.worker_of(task(import, 0)).is_none() {
        let next = *cluster.assigned().first().expect("assigned");
        cluster.finish(next);
    }
    let holder = cluster.finish(task(import, 0));
    cluster.tell(ClientMessage::Cancel { graph });
    assert_eq!(cluster.outcome(graph), Some(&GraphOutcome::Cancelled));
    let workers: Vec<_> = cluster.workers.keys().copied().collect();
    for worker in workers {
        while !cluster.workers[&worker].cancelling.is_empty() {
            cluster.answer_cancel(worker);
        }
    }
    assert_eq!(cluster.outcome(import), None);
    cluster.kill(holder);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(import) else {
        panic!("it should have failed");
    };
    assert_eq!(error.kind, TaskErrorKind::SourceGone);
    cluster.assert_clean();
}

#[test]
fn a_name_holds_what_it_means_until_it_is_taken_away() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(independent(2));
    let tasks = cluster.range(graph, 0);
    cluster.publish(CLIENT, "squares", tasks);
    cluster.run();
    cluster.tell(ClientMessage::Goodbye);
    let name = "squares".to_owned();
    let hold = cluster.share(OTHER, SharingCall::Lookup { name });
    assert_eq!(cluster.clients[&OTHER].held[&hold], tasks);
    assert_eq!(cluster.clients[&OTHER].outputs.len(), 2);
    let list = cluster.share(OTHER, SharingCall::Published);
    let Some(SharingAnswer::Names(names)) = cluster.answer(OTHER, list) else {
        panic!("a list");
    };
    assert_eq!((names.len(), names[0].done, names[0].bytes), (1, 2, 200));
    let where_is = cluster.share(OTHER, SharingCall::WhoHas { tasks });
    let Some(SharingAnswer::Holders(holders)) = cluster.answer(OTHER, where_is) else {
        panic!("holders");
    };
    assert!(
        holders
            .iter()
            .flatten()
            .all(|holding| holding.name == "worker 0")
    );
    assert_eq!(holders.len(), 2);
    cluster.let_go(OTHER, hold);
    assert_eq!(cluster.stored().len(), 2);
    cluster.unpublish(OTHER, "squares");
    cluster.assert_clean();
}

#[test]
fn a_name_is_taken_from_others_only_when_that_is_asked_for() {
    let mut cluster = cluster(1, 2);
    let (a, b) = (
        cluster.submit(independent(1)),
        cluster.submit(independent(1)),
    );
    cluster.run();
    let (of_a, of_b) = (cluster.range(a, 0), cluster.range(b, 0));
    let first = cluster.publish(CLIENT, "x", of_a);
    let again = cluster.publish(OTHER, "x", of_a);
    for (client, request) in [(CLIENT, first), (OTHER, again)] {
        assert_eq!(cluster.answer(client, request), Some(&SharingAnswer::Done));
    }
    let taken = cluster.publish(OTHER, "x", of_b);
    let name = "x".to_owned();
    let refusal = SharingRefusal::NameTaken { name: name.clone() };
    assert_eq!(
        cluster.answer(OTHER, taken),
        Some(&SharingAnswer::Refused(refusal))
    );
    let replace = SharingCall::Publish {
        name,
        tasks: of_b,
        replace: true,
    };
    cluster.share(OTHER, replace);
    cluster.leave(a);
    cluster.leave(b);
    assert_eq!(
        cluster.stored().into_iter().collect::<Vec<_>>(),
        [task(b, 0)]
    );
    cluster.unpublish(OTHER, "x");
    cluster.unpublish(OTHER, "x");
    cluster.assert_clean();
}

#[test]
fn names_have_limits() {
    let mut cluster = Cluster::with(Config {
        published_names: 1,
        ..Config::default()
    });
    cluster.join(1);
    let graph = cluster.submit(independent(1));
    let tasks = cluster.range(graph, 0);
    for bad in ["", &"x".repeat(600)] {
        let request = cluster.publish(CLIENT, bad, tasks);
        let answer = cluster.answer(CLIENT, request);
        assert!(matches!(
            answer,
            Some(SharingAnswer::Refused(SharingRefusal::BadName { .. }))
        ));
    }
    cluster.publish(CLIENT, "one", tasks);
    let request = cluster.publish(CLIENT, "two", tasks);
    let Some(SharingAnswer::Refused(refusal)) = cluster.answer(CLIENT, request) else {
        panic!("it should be refused");
    };
    assert!(refusal.to_string().contains("scheduler.published_names"));
}

#[test]
fn holds_names_and_imports_survive_the_scheduler() {
    let mut cluster = cluster(2, 2);
    let graph = cluster.submit(chain(2));
    let held = cluster.range(graph, 2);
    let hold = cluster.hold(OTHER, held);
    cluster.publish(OTHER, "held", held);
    let import = cluster.submit_as(OTHER, cluster.importing(held, true));
    cluster.leave(graph);
    for index in 0..4 {
        cluster.finish(task(graph, index));
    }
    cluster.crash();
    cluster.all_return();
    cluster.run();
    assert_eq!(cluster.recomputed(), []);
    assert_eq!(cluster.outcome(import), Some(&GraphOutcome::Finished));
    assert_eq!(cluster.clients[&OTHER].outputs.len(), 5);
    cluster.crash();
    cluster.all_return();
    assert_eq!(cluster.assigned(), []);
    release_all(&mut cluster, import, 5);
    cluster.let_go(OTHER, hold);
    assert_eq!(cluster.stored().len(), 2, "the name holds them");
    cluster.crash();
    cluster.all_return();
    cluster.unpublish(OTHER, "held");
    cluster.assert_clean();
}

#[test]
fn a_client_that_stays_away_lets_go_and_one_that_comes_back_hears_what_it_missed() {
    let mut cluster = cluster(1, 2);
    let graph = cluster.submit(chain(1));
    let other = cluster.submit(independent(1));
    let lost = cluster.hold(OTHER, cluster.range(graph, 2));
    let kept = cluster.hold(OTHER, cluster.range(other, 0));
    cluster.cut_off_client(OTHER);
    cluster.fail(task(graph, 0), TaskErrorKind::Operator);
    cluster.run();
    cluster.crash();
    cluster.all_return();
    assert!(matches!(
        cluster.answer(OTHER, lost),
        Some(SharingAnswer::Over { .. })
    ));
    assert!(
        cluster.clients[&OTHER]
            .outputs
            .contains_key(&task(other, 0))
    );
    cluster.leave(other);
    assert_eq!(cluster.stored().len(), 1);
    cluster.cut_off_client(OTHER);
    cluster.wait_ms(3_001);
    cluster.assert_clean();
    assert!(!cluster.clients[&OTHER].held.contains_key(&lost));
    assert!(
        cluster.clients[&OTHER].held.contains_key(&kept),
        "it does not know yet"
    );
}

#[test]
fn what_ended_with_the_old_scheduler_cannot_be_imported_from_the_new_one() {
    let mut cluster = cluster(1, 1);
    let graph = cluster.submit(independent(3));
    let mut first = cluster.range(graph, 0);
    first.count = 1;
    let import = cluster.submit_as(OTHER, cluster.importing(first, false));
    cluster.finish(task(graph, 0));
    while cluster.worker_of(task(import, 0)).is_none() {
        cluster.finish(task(graph, 1));
    }
    cluster.finish(task(import, 0));
    cluster.tell(ClientMessage::Cancel { graph });
    cluster.crash();
    // The worker that has what was imported does not come back.
    cluster.absent.clear();
    cluster.client_returns();
    cluster.feed(Input::Tick);
    cluster.wait_ms(5_001);
    let Some(GraphOutcome::Failed(error)) = cluster.outcome(import) else {
        panic!("it should have failed");
    };
    assert_eq!(error.kind, TaskErrorKind::SourceGone);
    cluster.join(1);
    cluster.assert_clean();
}
