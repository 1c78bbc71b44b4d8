//! Streams keep the order that events give them and no other: many operations in several streams end as they would one after the other.
//!
//! Each seed makes a program of copies and memsets on a few buffers. Whatever an operation touches, its stream first waits for the
//! events of all that touched it before; so the outcome is that of a single thread, under whatever chaos.

#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::expect_used,
    reason = "every call is one of the driver's, with pointers of locals and memory of its size; a test that cannot start fails"
)]

use cuda_emulator::Emulator;
use transload_cuda_driver::*;

const BUFFERS: usize = 6;
const BYTES: usize = 4096;
const OPERATIONS: u64 = 150;

/// Numbers of a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Half of the buffers are on the device, half page-locked on the host; each remembers the event of its last use.
struct Program {
    addresses: Vec<u64>,
    events: Vec<u64>,
    streams: Vec<u64>,
    expected: Vec<Vec<u8>>,
}

impl Program {
    fn new() -> Self {
        let make = |call: &dyn Fn(&mut u64) -> Code| {
            let mut made = 0;
            assert!(call(&mut made).is_ok());
            made
        };
        let buffer = |index: usize| {
            make(&|made| unsafe {
                if index.is_multiple_of(2) {
                    cuMemAlloc_v2(made, BYTES)
                } else {
                    cuMemHostAlloc(made, BYTES, 1)
                }
            })
        };
        let program = Self {
            addresses: (0..BUFFERS).map(buffer).collect(),
            events: (0..BUFFERS)
                .map(|_| make(&|made| unsafe { cuEventCreate(made, 2) }))
                .collect(),
            // Two that wait for the default stream and two that do not, and the default streams themselves.
            streams: (0..4_u32)
                .map(|index| make(&|made| unsafe { cuStreamCreate(made, index % 2) }))
                .chain([0, 2])
                .collect(),
            expected: vec![vec![0; BYTES]; BUFFERS],
        };
        for address in &program.addresses {
            assert!(unsafe { cuMemsetD8_v2(*address, 0, BYTES) }.is_ok());
        }
        assert!(unsafe { cuCtxSynchronize() }.is_ok());
        program
    }

    /// Does one operation on `stream` that reads `from` and writes `to`, behind all that touched either.
    fn step(&mut self, numbers: &mut Numbers) {
        let (to, from) = (numbers.below(BUFFERS), numbers.below(BUFFERS));
        let stream = self.streams[numbers.below(self.streams.len())];
        let (start, end) = (
            numbers.below(BYTES / 2),
            BYTES / 2 + numbers.below(BYTES / 2),
        );
        let value = numbers.below(256) as u8;
        unsafe {
            for touched in [to, from] {
                assert!(cuStreamWaitEvent(stream, self.events[touched], 0).is_ok());
            }
            let code = if to == from {
                self.expected[to][start..end].fill(value);
                cuMemsetD8Async(
                    self.addresses[to] + start as u64,
                    value,
                    end - start,
                    stream,
                )
            } else {
                let bytes = self.expected[from][start..end].to_vec();
                self.expected[to][start..end].copy_from_slice(&bytes);
                let (to, from) = (
                    self.addresses[to] + start as u64,
                    self.addresses[from] + start as u64,
                );
                cuMemcpyAsync(to, from, end - start, stream)
            };
            assert!(code.is_ok(), "{code}");
            for touched in [to, from] {
                assert!(cuEventRecord(self.events[touched], stream).is_ok());
            }
        }
    }

    fn check(&self, seed: u64) {
        assert!(unsafe { cuCtxSynchronize() }.is_ok());
        for (index, (address, expected)) in self.addresses.iter().zip(&self.expected).enumerate() {
            let mut found = vec![0_u8; BYTES];
            let host = found.as_mut_ptr().expose_provenance() as u64;
            assert!(unsafe { cuMemcpy(host, *address, BYTES) }.is_ok());
            assert!(
                found == *expected,
                "buffer {index} of the program of seed {seed} ended otherwise"
            );
        }
    }
}

#[test]
fn many_streams_end_as_one_thread_would() {
    let machine = Emulator::new()
        .expect("a machine")
        .memory_bytes(32 << 20)
        .chaos(11);
    machine.load().expect("loaded");
    let mut context = 0;
    unsafe {
        assert!(cuInit(0).is_ok());
        assert!(cuDevicePrimaryCtxRetain(&mut context, 0).is_ok());
        assert!(cuCtxSetCurrent(context).is_ok());
    }
    for seed in 1..=8 {
        let (mut program, mut numbers) = (Program::new(), Numbers(seed * 0x9e37_79b9));
        (0..OPERATIONS).for_each(|_| program.step(&mut numbers));
        program.check(seed);
    }
}
