//! Programs of witnesses: what each operator sees, what is accounted for, and where a program ends.

use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_protocol::{
    Arguments, Attempt, ClientId, GraphId, Memory, Resources, Step, TaskErrorKind, TaskId,
};

use super::*;
use crate::inside::{Inside, WorkerClient};
use crate::{CancellationToken, ClientOptions, Operator, WorkerEnvironment};

/// Writes down what it sees, and returns its position and its inputs' bytes.
#[derive(Default)]
struct Witness {
    seen: Mutex<Vec<String>>,
    /// The most that was reserved when it was called.
    most_reserved: Mutex<u64>,
    /// Stops the task when it is called as this layer.
    stops_at: Option<&'static str>,
}

impl Operator for Arc<Witness> {
    fn name(&self) -> &str {
        "witness"
    }

    fn run(&self, task: TaskContext) -> BoxFuture<'static, Result<Vec<Partition>, OperatorError>> {
        let inputs: Vec<Vec<String>> = task
            .inputs
            .iter()
            .map(|input| input.iter().map(text).collect())
            .collect();
        let own = task.own_argument().map_or("", |own| {
            std::str::from_utf8(own).expect("a test's argument")
        });
        let layer = &task.layer;
        self.seen.lock().unwrap().push(format!(
            "{}/{:?}[{}]{own} {}->{} {inputs:?}",
            layer.name,
            task.step,
            task.position,
            layer.inputs.len(),
            layer.outputs
        ));
        let reserved = task.environment.execution_memory.used_bytes();
        let mut most = self.most_reserved.lock().unwrap();
        *most = reserved.max(*most);
        if self.stops_at == Some(layer.name.as_str()) {
            task.cancelled.cancel();
        }
        let made = format!("{}{}", &layer.name[..1], task.position);
        let partition = Partition::new(Bytes::new(), vec![made.into()]);
        let outputs = vec![partition; layer.outputs as usize];
        futures::future::ready(Ok(outputs)).boxed()
    }
}

fn text(partition: &Partition) -> String {
    String::from_utf8(partition.buffers()[0].to_vec()).expect("a test's text")
}

fn step(name: &str, outputs: u32, reads: Vec<StepInput>) -> Step {
    Step {
        layer: name.to_owned(),
        operator: "witness".to_owned(),
        arguments: Arguments::default(),
        tasks: 5,
        outputs,
        times: 2,
        reads,
    }
}

/// Five tasks in groups of two: `read` a partition each, `map` it twice over, and `sum` the group with what all are given.
fn summed() -> LayerSpec {
    let read = |step, each| StepInput::Step { step, each };
    let given = |input, share| StepInput::Layer { input, share };
    let mut map = step("map", 2, vec![read(0, 1), read(0, 1)]);
    map.arguments.per_task = (0..5)
        .map(|task: u32| task.to_string().into_bytes().into())
        .collect();
    LayerSpec {
        name: "sum".to_owned(),
        operator: "witness".to_owned(),
        arguments: Arguments::default(),
        first_task: 10,
        outputs: 1,
        inputs: vec![InputSpec::Listed; 2],
        resources: Resources::default(),
        fused: Some(Box::new(Fused {
            steps: vec![step("read", 1, vec![given(0, Share::Each(1))]), map],
            reads: vec![read(1, 2), given(1, Share::All)],
        })),
        gang: false,
        memory: Memory::Host,
        input_memory: Vec::new(),
    }
}

/// A layer that works in device memory.
pub(in super::super) fn on_device(operator: &str) -> LayerSpec {
    LayerSpec {
        operator: operator.to_owned(),
        fused: None,
        memory: Memory::Device,
        ..summed()
    }
}

pub(in super::super) fn context(
    layer: &PreparedLayer,
    position: u32,
    inputs: &[&[&str]],
) -> TaskContext {
    let partition =
        |text: &&str| Partition::new(Bytes::new(), vec![Bytes::copy_from_slice(text.as_bytes())]);
    // Where a connection would live that no witness asks for.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    TaskContext {
        task: TaskId {
            graph: GraphId {
                client: ClientId(0),
                sequence: 0,
            },
            index: 10 + position,
        },
        attempt: Attempt(1),
        position,
        layer: Arc::clone(layer.own()),
        step: None,
        inputs: inputs
            .iter()
            .map(|input| input.iter().map(partition).collect())
            .collect(),
        cancelled: CancellationToken::new(),
        gang: None,
        inside: Inside::new(
            Arc::new(WorkerClient::new(
                "nowhere:1".to_owned(),
                ClientOptions::default(),
                Budget::new("memory for operators", 1),
            )),
            Box::new(drop),
        ),
        environment: Arc::new(WorkerEnvironment {
            name: "worker".to_owned(),
            slots: 1,
            execution_memory: Budget::new("memory for operators", 1),
            scratch_dir: std::env::temp_dir(),
        }),
        rows: Arc::default(),
    }
}

fn run(
    witness: &Arc<Witness>,
    layer: &PreparedLayer,
    task: TaskContext,
) -> Result<Vec<Partition>, Failure> {
    let mut operators = OperatorRegistry::new();
    operators.register(Arc::new(Arc::clone(witness)));
    futures::executor::block_on(layer.run(&operators, task))
}

#[test]
fn each_operator_sees_what_it_would_see_in_a_layer_of_its_own() {
    let (witness, layer) = (Arc::<Witness>::default(), PreparedLayer::new(summed()));
    let task = context(&layer, 1, &[&["x", "y"], &["all", "of it"]]);
    let outputs = run(&witness, &layer, task).expect("ends well");
    assert_eq!(text(&outputs[0]), "s1");
    assert_eq!(
        *witness.seen.lock().unwrap(),
        [
            r#"read/Some(0)[2] 1->1 [["x"]]"#,
            r#"map/Some(1)[2]2 2->2 [["r2"], ["r2"]]"#,
            r#"read/Some(0)[3] 1->1 [["y"]]"#,
            r#"map/Some(1)[3]3 2->2 [["r3"], ["r3"]]"#,
            r#"sum/None[1] 2->1 [["m2", "m3"], ["all", "of it"]]"#,
        ]
    );
    // The last group is shorter.
    witness.seen.lock().unwrap().clear();
    let task = context(&layer, 2, &[&["z"], &["all"]]);
    run(&witness, &layer, task).expect("ends well");
    let last = witness.seen.lock().unwrap().pop();
    assert_eq!(
        last.as_deref(),
        Some(r#"sum/None[2] 2->1 [["m4"], ["all"]]"#)
    );
}

#[test]
fn what_passes_between_steps_is_accounted_for_until_its_last_reader_has_ended() {
    let (witness, layer) = (Arc::<Witness>::default(), PreparedLayer::new(summed()));
    let task = context(&layer, 0, &[&["x", "y"], &[]]);
    let memory = task.environment.execution_memory.clone();
    run(&witness, &layer, task).expect("ends well");
    // `m0`, and `r1` while `map` reads it; or `m0` and `m1` while `sum` does.
    assert_eq!(*witness.most_reserved.lock().unwrap(), 4);
    assert_eq!(memory.used_bytes(), 0);
}

#[test]
fn a_task_that_is_stopped_makes_no_further_call() {
    let witness = Arc::new(Witness {
        stops_at: Some("map"),
        ..Witness::default()
    });
    let layer = PreparedLayer::new(summed());
    let task = context(&layer, 0, &[&["x", "y"], &[]]);
    let memory = task.environment.execution_memory.clone();
    let failure = run(&witness, &layer, task).expect_err("stopped");
    assert!(failure.error.message.contains("stopped"), "{failure:?}");
    assert_eq!(witness.seen.lock().unwrap().len(), 2);
    assert_eq!(memory.used_bytes(), 0);
}

#[test]
fn an_operator_that_is_missing_is_named_with_its_step() {
    let mut spec = summed();
    if let Some(fused) = &mut spec.fused {
        fused.steps[1].operator = "nonesuch".to_owned();
    }
    let layer = PreparedLayer::new(spec);
    let task = context(&layer, 1, &[&["x", "y"], &[]]);
    let Failure { error, step, .. } = run(&Arc::default(), &layer, task).expect_err("missing");
    assert_eq!(
        (error.kind, step),
        (TaskErrorKind::UnknownOperator, Some(1))
    );
    let wanted = "in step `map`, operator `nonesuch`, at position 2, which runs inside `sum`";
    assert!(error.message.contains(wanted), "{}", error.message);
}
