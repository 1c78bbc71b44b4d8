//! Prefix sums and sums of bits.

use transload_gpu::kernels::{CountOnes, PrefixSum, SumWidth};

use crate::chance::{Chance, LENGTHS};
use crate::machine::{Machine, Number};

pub(crate) fn cases(machine: &mut Machine) {
    for rows in LENGTHS.iter().copied().chain([100_000]) {
        case(machine, rows, rows as u64);
    }
    // Three levels of tiles.
    sums::<u32>(machine, &vec![3; (1 << 20) + 1], SumWidth::Bits32, |sum| {
        u128::from(sum)
    });
}

pub(crate) fn case(machine: &mut Machine, rows: usize, seed: u64) {
    let mut chance = Chance::new(seed);
    let values: Vec<u32> = chance.numbers(rows);
    sums(machine, &values, SumWidth::Bits32, u128::from);
    let values: Vec<u64> = chance.numbers(rows);
    sums(machine, &values, SumWidth::Bits64, u128::from);
    let share = chance.below(9);
    ones(machine, &chance.booleans(rows, share));
}

fn sums<T: Number>(machine: &mut Machine, values: &[T], width: SumWidth, widened: fn(T) -> u128) {
    let mut sum = 0u128;
    let mut expected = vec![T::default()];
    for value in values {
        sum += widened(*value);
        expected.push(T::from_bits(sum));
    }
    let items = values.len() as u64;
    let output = machine.arena.room((items + 1) * size_of::<T>() as u64);
    let apart = PrefixSum {
        width,
        input: machine.input(values),
        items,
        output,
    };
    machine.run(&apart);
    assert!(machine.read::<T>(output, expected.len()) == expected);
    // In place: the last item is behind the input.
    let both = machine.arena.room((items + 1) * size_of::<T>() as u64);
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le()).collect();
    machine.arena.put(both, &bytes);
    let in_place = PrefixSum {
        input: both,
        output: both,
        ..apart
    };
    machine.run(&in_place);
    assert!(machine.read::<T>(both, expected.len()) == expected);
    machine.arena.clear();
}

fn ones(machine: &mut Machine, bits: &[bool]) {
    let ones = machine.arena.room(8);
    machine.run(&CountOnes {
        input: machine.bits(bits),
        bits: bits.len() as u64,
        ones,
    });
    let expected = bits.iter().filter(|bit| **bit).count() as u64;
    assert_eq!(machine.read::<u64>(ones, 1), [expected]);
    machine.arena.clear();
}
