//! Every function that a driver exports: those that are emulated elsewhere, and here those that are not, which say so.

use crate::call::{guarded, say};
use crate::code::Code;

/// All names, one a line, in alphabetical order.
const ALL: &str = include_str!("symbols.txt");

/// Whether a driver has a function of this name.
pub(crate) fn exists(name: &str) -> bool {
    ALL.lines().any(|known| known == name)
}

fn not_emulated(name: &'static str) -> u32 {
    guarded(name, || {
        say!("{name} is not emulated: it answers CUDA_ERROR_NOT_SUPPORTED");
        Err(Code::NOT_SUPPORTED)
    })
}

#[allow(non_snake_case, reason = "the functions carry the driver's names")]
mod rest {
    use super::not_emulated;

    include!(concat!(env!("OUT_DIR"), "/not_emulated.rs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_has_what_matters() {
        let names: Vec<&str> = ALL.lines().collect();
        assert!(names.is_sorted());
        assert!(names.len() > 600);
        assert!(exists("cuMemAlloc_v2"));
        assert!(!exists("cuMemAllocate"));
    }
}
