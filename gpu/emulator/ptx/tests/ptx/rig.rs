//! Memory and launches for tests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use transload_ptx::{
    AccessError, Counters, Fault, FaultKind, Kernel, Launch, Memory, Module, Options, PtxError, run,
};

/// Allocations at addresses of their own, with nothing between them.
#[derive(Default)]
pub(crate) struct Device {
    allocations: Mutex<BTreeMap<u64, Vec<u8>>>,
    next: Cell<u64>,
}

pub(crate) const BASE: u64 = 0x10_0000_0000;

// The counter is only touched by the test's own thread, but runs want memory that all may share.
pub(crate) struct Shareable<'a>(&'a Mutex<BTreeMap<u64, Vec<u8>>>);

impl Device {
    pub(crate) fn allocate(&self, bytes: &[u8]) -> u64 {
        let address = BASE + self.next.get();
        self.next
            .set(self.next.get() + (bytes.len() as u64 + 4096).next_multiple_of(512));
        self.allocations
            .lock()
            .expect("unpoisoned")
            .insert(address, bytes.to_vec());
        address
    }

    pub(crate) fn of<T: Word>(&self, values: &[T]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.le()).collect();
        self.allocate(&bytes)
    }

    pub(crate) fn read<T: Word>(&self, address: u64) -> Vec<T> {
        let all = self.allocations.lock().expect("unpoisoned");
        all[&address]
            .chunks_exact(size_of::<T>())
            .map(T::from_le)
            .collect()
    }

    pub(crate) fn memory(&self) -> Shareable<'_> {
        Shareable(&self.allocations)
    }
}

impl Shareable<'_> {
    fn at<R>(
        &self,
        address: u64,
        len: usize,
        go: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, AccessError> {
        let mut all = self.0.lock().expect("unpoisoned");
        let found = all.range_mut(..=address).next_back();
        let refused = AccessError {
            kind: FaultKind::IllegalAddress,
            detail: "nothing is allocated there".to_owned(),
        };
        let (start, bytes) = found.ok_or_else(|| refused.clone())?;
        let offset = (address - start) as usize;
        bytes.get_mut(offset..offset + len).map(go).ok_or(refused)
    }
}

impl Memory for Shareable<'_> {
    fn read(&self, address: u64, to: &mut [u8]) -> Result<(), AccessError> {
        let len = to.len();
        self.at(address, len, |bytes| to.copy_from_slice(bytes))
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), AccessError> {
        self.at(address, from.len(), |bytes| bytes.copy_from_slice(from))
    }

    fn update(
        &self,
        address: u64,
        len: u32,
        change: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, AccessError> {
        self.at(address, len as usize, |bytes| {
            let mut old = [0; 8];
            old[..bytes.len()].copy_from_slice(bytes);
            let old = u64::from_le_bytes(old);
            let new = change(old).to_le_bytes();
            let len = bytes.len();
            bytes.copy_from_slice(&new[..len]);
            old
        })
    }
}

/// Numbers that lie in memory.
pub(crate) trait Word: Copy {
    fn le(self) -> Vec<u8>;
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! words {
    ($($t:ty)*) => {$(
        impl Word for $t {
            fn le(self) -> Vec<u8> { self.to_le_bytes().to_vec() }
            fn from_le(bytes: &[u8]) -> Self { Self::from_le_bytes(bytes.try_into().expect("its size")) }
        }
    )*};
}
words!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

/// How a test launches.
pub(crate) struct Start {
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) shared: u32,
    pub(crate) seed: Option<u64>,
    pub(crate) globals: BTreeMap<String, u64>,
}

pub(crate) fn start(grid: u32, block: u32) -> Start {
    Start {
        grid,
        block,
        shared: 0,
        seed: None,
        globals: BTreeMap::new(),
    }
}

pub(crate) fn launch(
    kernel: &Kernel,
    start: &Start,
    device: &Device,
    parameters: &[u64],
) -> Result<Counters, Fault> {
    let mut bytes = vec![0; kernel.parameter_bytes() as usize];
    for (parameter, value) in kernel.parameters().iter().zip(parameters) {
        let (at, len) = (parameter.offset as usize, parameter.bytes as usize);
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }
    let globals = |name: &str| start.globals.get(name).copied();
    let launch = Launch {
        grid: [start.grid, 1, 1],
        block: [start.block, 1, 1],
        dynamic_shared_bytes: start.shared,
        parameters: &bytes,
        globals: &globals,
    };
    let cancelled = AtomicBool::new(false);
    let options = Options {
        seed: start.seed,
        ..Options::new(&cancelled)
    };
    run(kernel, &launch, &device.memory(), &options)
}

/// A module of one kernel `k` with one parameter `out`, whose address is in `%out`, and many registers.
pub(crate) fn text(body: &str) -> String {
    format!(
        ".version 7.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 out, .param .u64 in)
{{
    .reg .pred %p<10>;
    .reg .b16 %h<10>;
    .reg .b32 %r<40>;
    .reg .b64 %rd<40>;
    .reg .f32 %f<20>;
    .reg .f64 %d<20>;
    .reg .b64 %out, %in;
    ld.param.u64 %out, [out];
    ld.param.u64 %in, [in];
    {body}
    ret;
}}
"
    )
}

/// The line on which `body` begins in `text`.
pub(crate) const BODY_LINE: u32 = 15;

pub(crate) fn module(body: &str) -> Result<Module, PtxError> {
    Module::parse(&text(body))
}

/// Runs `body` as `start` says with `in` and returns what it wrote to `out`, which had as many zeros.
pub(crate) fn try_run<I: Word, O: Word + Default>(
    body: &str,
    start: &Start,
    input: &[I],
    outputs: usize,
) -> Result<Vec<O>, Fault> {
    let module = module(body).unwrap_or_else(|error| panic!("{error}"));
    let device = Device::default();
    let from = device.of(input);
    let to = device.of(&vec![O::default(); outputs]);
    launch(
        module.kernel("k").expect("it has one"),
        start,
        &device,
        &[to, from],
    )?;
    Ok(device.read(to))
}

pub(crate) fn fault_of(body: &str, start: &Start) -> Fault {
    match try_run::<u32, u32>(body, start, &[0; 64], 1024) {
        Ok(values) => panic!("no fault, but {:?}", &values[..8]),
        Err(fault) => fault,
    }
}
