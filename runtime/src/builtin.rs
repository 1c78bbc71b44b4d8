//! Small operators that every worker has: for tests, benchmarks, and trying a cluster out. Called by the executor like any other.
//!
//! Arguments are texts in the layer's common argument, or in the task's own one, which wins.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use transload_gpu::Partition;

use crate::{Operator, OperatorError, OperatorFactory, OperatorRegistry, TaskContext};

type Outcome = Result<Vec<Partition>, OperatorError>;
type Run = fn(TaskContext) -> BoxFuture<'static, Outcome>;

/// The built-in operators:
///
/// | name | argument | outputs |
/// |---|---|---|
/// | `noop` | none | empty partitions |
/// | `sleep` | milliseconds | empty partitions, after that time |
/// | `fail` | message | none: fails with the message |
/// | `panic` | message | none: panics with the message |
/// | `bytes` | size | partitions of that many bytes; the content follows from task and output ([`content_byte`]) |
/// | `concat` | none | output `i` of `n`: share `i` of all bytes of all inputs, in order |
/// | `sum` | none | one 8-byte number each: the sum of all input bytes, where 8-byte inputs count as such numbers |
/// | `check` | size | one empty partition each; fails unless the inputs are `bytes` of that size as their tasks made them |
pub fn builtin_operators() -> OperatorFactory {
    Arc::new(|_| {
        let mut registry = OperatorRegistry::new();
        register_builtin(&mut registry);
        registry
    })
}

/// Adds the built-in operators to a registry that has others.
pub fn register_builtin(registry: &mut OperatorRegistry) {
    let all: [(&'static str, Run); 8] = [
        ("noop", |task| ready(move || empty(&task))),
        ("sleep", |task| sleep(task).boxed()),
        ("fail", |task| {
            ready(move || Err(OperatorError::new(text(&task)?)))
        }),
        ("panic", |task| ready(move || panic_with(&text(&task)?))),
        ("bytes", |task| ready(move || make_bytes(&task))),
        ("concat", |task| ready(move || concat(&task))),
        ("sum", |task| ready(move || sum(&task))),
        ("check", |task| ready(move || check(&task))),
    ];
    for (name, run) in all {
        registry.register(Arc::new(Builtin { name, run }));
    }
}

/// Byte `at` of output `output` of the task at `position`, as the operator `bytes` makes it.
pub fn content_byte(position: u32, output: u32, at: usize) -> u8 {
    let mixed = (at as u64)
        .wrapping_add(u64::from(position) << 20)
        .wrapping_add(u64::from(output) << 40)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

struct Builtin {
    name: &'static str,
    run: Run,
}

impl Operator for Builtin {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, task: TaskContext) -> BoxFuture<'static, Outcome> {
        (self.run)(task)
    }
}

fn ready(run: impl FnOnce() -> Outcome + Send + 'static) -> BoxFuture<'static, Outcome> {
    async move { run() }.boxed()
}

fn text(task: &TaskContext) -> Result<String, OperatorError> {
    let bytes = task
        .own_argument()
        .unwrap_or_else(|| task.common_argument());
    String::from_utf8(bytes.to_vec()).map_err(|_| OperatorError::new("the argument is not a text"))
}

fn number(task: &TaskContext) -> Result<usize, OperatorError> {
    let text = text(task)?;
    text.trim()
        .parse()
        .map_err(|_| OperatorError::new(format!("the argument `{text}` is not a whole number")))
}

fn outputs(
    task: &TaskContext,
    make: impl FnMut(u32) -> Result<Partition, OperatorError>,
) -> Outcome {
    (0..task.layer.outputs).map(make).collect()
}

fn empty(task: &TaskContext) -> Outcome {
    outputs(task, |_| Ok(Partition::new(Bytes::new(), Vec::new())))
}

async fn sleep(task: TaskContext) -> Outcome {
    let millis = number(&task)? as u64;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    empty(&task)
}

#[expect(clippy::panic, reason = "panicking is what this operator is for")]
fn panic_with(message: &str) -> Outcome {
    panic!("{message}")
}

fn filled(
    task: &TaskContext,
    bytes: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Result<Partition, OperatorError> {
    // Held while the operator works on it, and not by the partition, which the store accounts for.
    let _working = task
        .environment
        .execution_memory
        .try_reserve(bytes as u64)?;
    let mut buffer = vec![0; bytes];
    fill(&mut buffer);
    Ok(Partition::new(Bytes::new(), vec![buffer.into()]))
}

fn make_bytes(task: &TaskContext) -> Outcome {
    let size = number(task)?;
    outputs(task, |output| {
        filled(task, size, |slice| {
            for (at, byte) in slice.iter_mut().enumerate() {
                *byte = content_byte(task.position, output, at);
            }
        })
    })
}

fn concat(task: &TaskContext) -> Outcome {
    let pieces: Vec<&Bytes> = task
        .inputs
        .iter()
        .flatten()
        .flat_map(|partition| partition.buffers())
        .collect();
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let shares = task.layer.outputs.max(1) as usize;
    outputs(task, |output| {
        let (from, to) = (
            total * output as usize / shares,
            total * (output as usize + 1) / shares,
        );
        filled(task, to - from, |slice| {
            let all = pieces.iter().flat_map(|piece| piece.iter());
            for (byte, source) in slice.iter_mut().zip(all.skip(from)) {
                *byte = *source;
            }
        })
    })
}

fn sum(task: &TaskContext) -> Outcome {
    let total = task
        .inputs
        .iter()
        .flatten()
        .flat_map(|partition| partition.buffers())
        .fold(0_u64, |sum, buffer| {
            sum.wrapping_add(match buffer.as_ref().try_into() {
                Ok(number) => u64::from_le_bytes(number),
                Err(_) => buffer.iter().map(|byte| u64::from(*byte)).sum(),
            })
        });
    outputs(task, |_| {
        filled(task, size_of::<u64>(), |slice| {
            slice.copy_from_slice(&total.to_le_bytes());
        })
    })
}

fn check(task: &TaskContext) -> Outcome {
    let size = number(task)?;
    for (input, partitions) in task.inputs.iter().enumerate() {
        for (source, partition) in partitions.iter().enumerate() {
            let wrong = |what: &str| {
                OperatorError::new(format!("partition {source} of input {input} {what}"))
            };
            let [buffer] = partition.buffers() else {
                return Err(wrong("has not exactly one buffer"));
            };
            if buffer.len() != size {
                return Err(wrong(&format!("has {} B, not {size}", buffer.len())));
            }
            // One partition comes from the task at the same position; of several, each from the task at its place. Output
            // numbers follow the shuffle rule where there are several.
            let (position, output) = if partitions.len() == 1 {
                (task.position, 0)
            } else {
                (u32::try_from(source).unwrap_or(u32::MAX), task.position)
            };
            let right = |output| {
                buffer
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == content_byte(position, output, at))
            };
            if !right(output) && !right(0) {
                return Err(wrong("has other content than its task made"));
            }
        }
    }
    empty(task)
}
