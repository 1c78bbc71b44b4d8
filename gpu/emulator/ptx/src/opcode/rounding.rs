//! Rounding other than to the nearest: towards zero, down and up.
//!
//! The result to the nearest is at most one step away. What was rounded off, of which the sign is computed exactly, tells
//! whether to take that step. Called by `float` and `convert`.

use std::cmp::Ordering;

use super::float::{finish, flush};
use super::lanes::lanes;
use crate::code::RowFn;
use crate::types::Type;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Rounding {
    /// From the number of an instruction, which holds it as its place in this enum.
    #[inline(always)]
    fn of(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Zero,
            2 => Self::Down,
            _ => Self::Up,
        }
    }
}

/// Where in the number of an instruction its rounding stands.
pub(super) const SHIFT: u32 = 8;

/// How the exact value compares with the rounded one, to the rounded one's neighbour or itself.
macro_rules! step {
    ($t:ty, $nearest:expr, $exact_is:expr, $rounding:expr) => {{
        let (nearest, exact): ($t, Ordering) = ($nearest, $exact_is);
        match (exact, $rounding) {
            (Ordering::Greater, Rounding::Up) => nearest.next_up(),
            (Ordering::Greater, Rounding::Zero) if nearest < 0.0 => nearest.next_up(),
            (Ordering::Less, Rounding::Down) => nearest.next_down(),
            (Ordering::Less, Rounding::Zero) if nearest > 0.0 => nearest.next_down(),
            _ => nearest,
        }
    }};
}

fn sign(x: f64) -> Ordering {
    x.partial_cmp(&0.0).unwrap_or(Ordering::Equal)
}

/// The sum to the nearest, and what was rounded off, exactly.
fn two_sum(x: f64, y: f64) -> (f64, f64) {
    let sum = x + y;
    let from_y = sum - x;
    let error = (x - (sum - from_y)) + (y - from_y);
    (sum, error)
}

/// Down, the sum of a number and its opposite is -0.
fn zero_of_sum(rounding: Rounding, all_plus: bool) -> f64 {
    if rounding == Rounding::Down && !all_plus {
        -0.0
    } else {
        0.0
    }
}

fn add(x: f64, y: f64, rounding: Rounding) -> f64 {
    let (sum, error) = two_sum(x, y);
    if sum == 0.0 && x != 0.0 {
        return zero_of_sum(rounding, false);
    }
    if sum == 0.0 {
        let minus = x.is_sign_negative() || y.is_sign_negative();
        let both = x.is_sign_negative() && y.is_sign_negative();
        return if both {
            -0.0
        } else {
            zero_of_sum(rounding, !minus)
        };
    }
    // An infinite sum of finite numbers is beyond all of them.
    if sum.is_infinite() && x.is_finite() && y.is_finite() {
        return step!(f64, sum, sign(sum).reverse(), rounding);
    }
    step!(f64, sum, sign(error), rounding)
}

/// Which of the numbers can be multiplied by 2^300 without loss, so that nothing of a tiny product is lost.
const SCALE: f64 = f64::from_bits((1023 + 300) << 52);
const TINY: f64 = f64::from_bits((1023 - 700) << 52);

fn multiply(x: f64, y: f64, rounding: Rounding) -> f64 {
    let product = x * y;
    let finite = x.is_finite() && y.is_finite();
    let exact = if finite && product.is_infinite() {
        sign(product).reverse()
    } else if finite && product.abs() < TINY {
        let (small, large) = if x.abs() < y.abs() { (x, y) } else { (y, x) };
        sign((small * SCALE).mul_add(large, -product * SCALE))
    } else {
        sign(x.mul_add(y, -product))
    };
    step!(f64, product, exact, rounding)
}

fn fused(x: f64, y: f64, z: f64, rounding: Rounding) -> f64 {
    let result = x.mul_add(y, z);
    let product = x * y;
    if result == 0.0 && product != 0.0 && product == -z {
        return zero_of_sum(rounding, false);
    }
    if result == 0.0 && product == 0.0 && z == 0.0 {
        return add(product, z, rounding);
    }
    if result.is_infinite() && [x, y, z].iter().all(|part| part.is_finite()) {
        return step!(f64, result, sign(result).reverse(), rounding);
    }
    let lost = x.mul_add(y, -product);
    let (sum, rest) = two_sum(product, z);
    let (small, smallest) = two_sum(rest, lost);
    let (difference, remainder) = two_sum(sum - result, small);
    let exact = sign(difference).then(sign(remainder + smallest));
    step!(f64, result, exact, rounding)
}

fn divide(x: f64, y: f64, rounding: Rounding) -> f64 {
    let quotient = x / y;
    let exact = if quotient.is_infinite() && x.is_finite() && y != 0.0 {
        sign(quotient).reverse()
    } else if !quotient.is_finite() || !y.is_finite() {
        Ordering::Equal
    } else {
        let (x, q) = if x.abs() < TINY {
            (x * SCALE, quotient * SCALE)
        } else {
            (x, quotient)
        };
        let rest = sign((-q).mul_add(y, x));
        if y < 0.0 { rest.reverse() } else { rest }
    };
    step!(f64, quotient, exact, rounding)
}

fn root(x: f64, rounding: Rounding) -> f64 {
    let root = x.sqrt();
    if !root.is_finite() || root == 0.0 {
        return root;
    }
    let exact = if x < TINY {
        let half = f64::from_bits((1023 + 150) << 52);
        sign((-root * half).mul_add(root * half, x * SCALE))
    } else {
        sign((-root).mul_add(root, x))
    };
    step!(f64, root, exact, rounding)
}

/// `value` with `lost`, which is less than what `value` can hold, as a single.
fn narrow(value: f64, lost: Ordering, rounding: Rounding) -> f32 {
    let nearest = value as f32;
    if !value.is_finite() {
        return nearest;
    }
    let exact = sign(value - f64::from(nearest)).then(lost);
    step!(f32, nearest, exact, rounding)
}

pub(super) fn f64_to_f32(value: f64, rounding: u64) -> f32 {
    narrow(value, Ordering::Equal, Rounding::of(rounding))
}

pub(super) fn integer_to_f32(value: i128, rounding: u64) -> f32 {
    let nearest = value as f32;
    step!(
        f32,
        nearest,
        value.cmp(&(nearest as i128)),
        Rounding::of(rounding)
    )
}

pub(super) fn integer_to_f64(value: i128, rounding: u64) -> f64 {
    let nearest = value as f64;
    step!(
        f64,
        nearest,
        value.cmp(&(nearest as i128)),
        Rounding::of(rounding)
    )
}

fn add_single(x: f32, y: f32, rounding: Rounding) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    let (sum, error) = two_sum(x, y);
    if sum == 0.0 {
        return add(x, y, rounding) as f32;
    }
    narrow(sum, sign(error), rounding)
}

fn fused_single(x: f32, y: f32, z: f32, rounding: Rounding) -> f32 {
    // The product of two singles is a double.
    let (product, z) = (f64::from(x) * f64::from(y), f64::from(z));
    let (sum, error) = two_sum(product, z);
    if sum == 0.0 {
        return add(product, z, rounding) as f32;
    }
    narrow(sum, sign(error), rounding)
}

fn divide_single(x: f32, y: f32, rounding: Rounding) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    let quotient = x / y;
    if !quotient.is_finite() || !y.is_finite() {
        return quotient as f32;
    }
    let rest = sign((-quotient).mul_add(y, x));
    narrow(
        quotient,
        if y < 0.0 { rest.reverse() } else { rest },
        rounding,
    )
}

fn root_single(x: f32, rounding: Rounding) -> f32 {
    let x = f64::from(x);
    let root = x.sqrt();
    if !root.is_finite() || root == 0.0 {
        return root as f32;
    }
    narrow(root, sign((-root).mul_add(root, x)), rounding)
}

/// The operation with the rounding that its number holds from bit [`SHIFT`] on.
pub(super) fn directed(name: &str, ty: Type) -> Option<RowFn> {
    macro_rules! single {
        (|$x:ident, $y:ident, $z:ident, $rounding:ident| $e:expr) => {
            Some(lanes!(f32, f32: |x, y: f32, z: f32, imm| {
                #[allow(unused_variables, reason = "not every operation has three operands")]
                let ($x, $y, $z, $rounding) = (flush(x, imm), flush(y, imm), flush(z, imm), Rounding::of(imm >> SHIFT));
                finish($e, imm)
            }))
        };
    }
    macro_rules! double {
        (|$x:ident, $y:ident, $z:ident, $rounding:ident| $e:expr) => {
            Some(lanes!(f64, f64: |x, y: f64, z: f64, imm| {
                #[allow(unused_variables, reason = "as above")]
                let ($x, $y, $z, $rounding) = (x, y, z, Rounding::of(imm >> SHIFT));
                $e
            }))
        };
    }
    match (name, ty) {
        ("add", Type::F32) => single!(|x, y, z, r| add_single(x, y, r)),
        ("sub", Type::F32) => single!(|x, y, z, r| add_single(x, -y, r)),
        ("mul", Type::F32) => {
            single!(|x, y, z, r| narrow(f64::from(x) * f64::from(y), Ordering::Equal, r))
        }
        ("mad" | "fma", Type::F32) => single!(|x, y, z, r| fused_single(x, y, z, r)),
        ("div", Type::F32) => single!(|x, y, z, r| divide_single(x, y, r)),
        ("rcp", Type::F32) => single!(|x, y, z, r| divide_single(1.0, x, r)),
        ("sqrt", Type::F32) => single!(|x, y, z, r| root_single(x, r)),
        ("add", Type::F64) => double!(|x, y, z, r| add(x, y, r)),
        ("sub", Type::F64) => double!(|x, y, z, r| add(x, -y, r)),
        ("mul", Type::F64) => double!(|x, y, z, r| multiply(x, y, r)),
        ("mad" | "fma", Type::F64) => double!(|x, y, z, r| fused(x, y, z, r)),
        ("div", Type::F64) => double!(|x, y, z, r| divide(x, y, r)),
        ("rcp", Type::F64) => double!(|x, y, z, r| divide(1.0, x, r)),
        ("sqrt", Type::F64) => double!(|x, y, z, r| root(x, r)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A rounded result is right when it brackets the result to the nearest as its direction says, and both directions
    /// differ by one step unless the result is exact.
    fn brackets(down: f64, zero: f64, up: f64, nearest: f64) {
        assert!(
            down <= nearest && nearest <= up,
            "{down:e} {nearest:e} {up:e}"
        );
        assert!(down == up || down.next_up() == up, "{down:e} {up:e}");
        assert_eq!(zero, if nearest > 0.0 { down } else { up });
    }

    fn each(go: impl Fn(Rounding) -> f64) -> (f64, f64, f64) {
        (go(Rounding::Down), go(Rounding::Zero), go(Rounding::Up))
    }

    #[test]
    fn what_is_exact_is_the_same_in_all_directions() {
        for rounding in [
            Rounding::Nearest,
            Rounding::Zero,
            Rounding::Down,
            Rounding::Up,
        ] {
            assert_eq!(add(1.5, 2.25, rounding), 3.75);
            assert_eq!(multiply(1.5, 3.0, rounding), 4.5);
            assert_eq!(divide(9.0, -4.0, rounding), -2.25);
            assert_eq!(root(2.25, rounding), 1.5);
            assert_eq!(fused(2.0, 3.0, -1.0, rounding), 5.0);
            assert_eq!(integer_to_f32(1 << 24, rounding as u64), 16_777_216.0);
        }
    }

    #[test]
    fn known_results() {
        let tiny = f64::from_bits(1);
        assert_eq!(add(1.0, tiny, Rounding::Up), 1.0_f64.next_up());
        assert_eq!(add(1.0, -tiny, Rounding::Zero), 1.0_f64.next_down());
        assert_eq!(add(-1.0, -tiny, Rounding::Zero), -1.0);
        assert_eq!(multiply(tiny, 0.5, Rounding::Up), tiny);
        assert_eq!(multiply(tiny, -0.5, Rounding::Down), -tiny);
        assert_eq!(multiply(tiny, -0.5, Rounding::Zero), 0.0);
        assert_eq!(multiply(f64::MAX, 2.0, Rounding::Zero), f64::MAX);
        assert_eq!(add(f64::MAX, f64::MAX, Rounding::Down), f64::MAX);
        assert_eq!(divide(1.0, 3.0, Rounding::Up), (1.0_f64 / 3.0).next_up());
        assert_eq!(divide(1.0, 0.0, Rounding::Down), f64::INFINITY);
        assert!(add(1.0, -1.0, Rounding::Down).is_sign_negative());
        assert!(add(1.0, -1.0, Rounding::Zero).is_sign_positive());
        assert_eq!(integer_to_f32((1 << 24) + 1, 1), 16_777_216.0);
        assert_eq!(integer_to_f32((1 << 24) + 1, 3), 16_777_218.0);
        assert_eq!(f64_to_f32(0.1, 2), 0.099_999_994);
        assert_eq!(f64_to_f32(1e300, 1), f32::MAX);
    }

    proptest! {
        #[test]
        fn directed_results_bracket_the_nearest(x in -1e30..1e30_f64, y in -1e30..1e30_f64, z in -1e30..1e30_f64) {
            let bracket = |(down, zero, up), nearest| brackets(down, zero, up, nearest);
            bracket(each(|r| add(x, y, r)), x + y);
            bracket(each(|r| multiply(x, y, r)), x * y);
            bracket(each(|r| divide(x, y, r)), x / y);
            bracket(each(|r| root(x.abs(), r)), x.abs().sqrt());
            bracket(each(|r| fused(x, y, z, r)), x.mul_add(y, z));
        }

        #[test]
        fn singles_round_as_doubles_that_hold_the_exact_result(a: f32, b: f32) {
            let (x, y) = (f64::from(a), f64::from(b));
            prop_assume!(x.is_finite() && y.is_finite());
            for rounding in [Rounding::Zero, Rounding::Down, Rounding::Up] {
                let product = narrow(x * y, Ordering::Equal, rounding);
                match rounding {
                    Rounding::Down => prop_assert!(f64::from(product) <= x * y),
                    Rounding::Up => prop_assert!(f64::from(product) >= x * y),
                    _ => prop_assert!(f64::from(product).abs() <= (x * y).abs()),
                }
                let sum = add_single(a, b, rounding);
                prop_assert!(sum == a + b || sum.next_up() == a + b || sum.next_down() == a + b);
            }
        }
    }
}
