//! Executes operators' steps on the PTX interpreter, with all of its checks, and collects which branches ran.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use transload_gpu::kernels::{Address, Grid, Launch, Operator, Step, modules};
use transload_ptx::{Coverage, Module, Options, run};

use crate::arena::Arena;

pub(crate) struct Machine {
    pub(crate) arena: Arena,
    pub(crate) modules: Vec<(&'static str, &'static str, Module)>,
    /// By module.
    pub(crate) coverage: BTreeMap<&'static str, Coverage>,
    seed: Option<u64>,
    most_blocks: u32,
}

impl Machine {
    /// Blocks and warps in an order of chance, or in that of their numbers.
    pub(crate) fn new(seed: Option<u64>, most_blocks: u32) -> Self {
        let parsed = modules().expect("ours").into_iter().map(|module| {
            let text = Module::parse(module.ptx).expect("ours");
            (module.name, module.ptx, text)
        });
        Self {
            arena: Arena::default(),
            modules: parsed.collect(),
            coverage: BTreeMap::new(),
            seed,
            most_blocks,
        }
    }

    pub(crate) fn run(&mut self, operator: &dyn Operator) {
        let scratch = self.arena.room(operator.scratch_bytes());
        let grid = Grid {
            most_blocks: self.most_blocks,
        };
        for step in operator.steps(scratch, grid) {
            match step {
                Step::Launch(launch) => self.launch(&launch),
                Step::Zero { at, bytes } => self.arena.put(at, &vec![0; bytes as usize]),
                Step::Copy { from, to, bytes } => {
                    let copied = self.arena.bytes(from, bytes);
                    self.arena.put(to, &copied);
                }
            }
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let find = |(name, _, module): &'_ (&'static str, _, Module)| {
            module.kernel(launch.kernel).cloned().map(|k| (*name, k))
        };
        let (module, kernel) = self
            .modules
            .iter()
            .find_map(find)
            .expect("a kernel of ours");
        let offsets: Vec<u32> = kernel.parameters().iter().map(|p| p.offset).collect();
        assert_eq!(offsets, launch.parameters.offsets());
        // Another order for each launch.
        self.seed = self
            .seed
            .map(|seed| seed.wrapping_mul(6_364_136_223_846_793_005) + 1);
        let cancelled = AtomicBool::new(false);
        let options = Options {
            seed: self.seed,
            ..Options::new(&cancelled)
        };
        let shape = transload_ptx::Launch {
            grid: [launch.blocks, 1, 1],
            block: [launch.threads, 1, 1],
            dynamic_shared_bytes: 0,
            parameters: launch.parameters.bytes(),
            globals: &|_| None,
        };
        let counters =
            run(&kernel, &shape, &self.arena, &options).unwrap_or_else(|fault| panic!("{fault}"));
        let coverage = self.coverage.entry(module).or_default();
        coverage.merge(&counters.coverage);
    }

    /// A buffer of these numbers, as little as they are.
    pub(crate) fn input<T: Number>(&self, values: &[T]) -> Address {
        self.arena.input(&bytes_of(values))
    }

    /// A bitmap with rubbish behind its end.
    pub(crate) fn bits(&self, bits: &[bool]) -> Address {
        let mut words = vec![0u32; bits.len().div_ceil(32)];
        for at in 0..words.len() * 32 {
            let bit = bits.get(at).copied().unwrap_or(at % 3 != 0);
            words[at / 32] |= u32::from(bit) << (at % 32);
        }
        self.input(&words)
    }

    pub(crate) fn validity(&self, validity: Option<&[bool]>) -> Option<Address> {
        validity.map(|bits| self.bits(bits))
    }

    pub(crate) fn read<T: Number>(&self, at: Address, count: usize) -> Vec<T> {
        let bytes = self.arena.bytes(at, (count * size_of::<T>()) as u64);
        bytes.chunks_exact(size_of::<T>()).map(T::from_le).collect()
    }

    /// Fails where bits behind the last are not zero.
    pub(crate) fn read_bits(&self, at: Address, count: usize) -> Vec<bool> {
        let words: Vec<u32> = self.read(at, count.div_ceil(32));
        let bit = |at: usize| words[at / 32] >> (at % 32) & 1 == 1;
        assert!((count..words.len() * 32).all(|at| !bit(at)));
        (0..count).map(bit).collect()
    }

    pub(crate) fn bitmap_room(&self, bits: usize) -> Address {
        self.arena.room(bits.div_ceil(32) as u64 * 4)
    }
}

/// Values as they lie in memory.
pub(crate) trait Number: Copy + PartialEq + std::fmt::Debug + Default {
    fn to_le(self) -> Vec<u8>;
    fn from_le(bytes: &[u8]) -> Self;
    /// The lowest bits.
    fn from_bits(bits: u128) -> Self;
}

macro_rules! numbers {
    ($($kind:ty)*) => {
        $(impl Number for $kind {
            fn to_le(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn from_le(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("its length"))
            }
            fn from_bits(bits: u128) -> Self {
                bits as Self
            }
        })*
    };
}
numbers!(u8 u16 u32 u64 u128);

fn bytes_of<T: Number>(values: &[T]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le()).collect()
}
