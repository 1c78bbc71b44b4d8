//! How instructions are written here: a value type, and an expression of one lane that becomes a function of rows.

/// A value of one lane, as the 64 bits of a row and back. Bits above the value are zero in rows.
pub(crate) trait Lane: Copy {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! integer_lanes {
    ($($signed:ty, $unsigned:ty);*) => {$(
        impl Lane for $unsigned {
            #[inline(always)]
            fn of(bits: u64) -> Self { bits as Self }
            #[inline(always)]
            fn bits(self) -> u64 { u64::from(self) }
        }
        impl Lane for $signed {
            #[inline(always)]
            fn of(bits: u64) -> Self { bits as Self }
            #[inline(always)]
            fn bits(self) -> u64 { self as $unsigned as u64 }
        }
    )*};
}
integer_lanes!(i8, u8; i16, u16; i32, u32; i64, u64);

impl Lane for f32 {
    #[inline(always)]
    fn of(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
    /// Hardware gives one NaN for all, of this one's bits.
    #[inline(always)]
    fn bits(self) -> u64 {
        if self.is_nan() {
            0x7fff_ffff
        } else {
            u64::from(self.to_bits())
        }
    }
}

impl Lane for f64 {
    #[inline(always)]
    fn of(bits: u64) -> Self {
        Self::from_bits(bits)
    }
    #[inline(always)]
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// A function of rows from an expression of lanes: `lanes!(u32: |a, b| a.wrapping_add(b))`. With `imm`, the
/// instruction's number comes last.
macro_rules! lanes {
    ($t:ty: |$a:ident| $e:expr) => {
        lanes!($t, $t: |$a, _b: $t, _c: $t, _imm| $e)
    };
    ($t:ty: |$a:ident, $b:ident| $e:expr) => {
        lanes!($t, $t: |$a, $b: $t, _c: $t, _imm| $e)
    };
    ($t:ty: |$a:ident, $b:ident, $c:ident| $e:expr) => {
        lanes!($t, $t: |$a, $b: $t, $c: $t, _imm| $e)
    };
    ($d:ty, $t:ty: |$a:ident, $b:ident: $bt:ty, $c:ident: $ct:ty, $imm:ident| $e:expr) => {{
        let f: crate::code::RowFn = |s| {
            #[allow(unused_variables, reason = "not every instruction has three sources and a number")]
            let $imm = s.imm;
            std::array::from_fn(|lane| {
                #[allow(unused_imports, reason = "as above")]
                use $crate::opcode::lanes::Lane;
                let $a = <$t as Lane>::of(s.a[lane]);
                #[allow(unused_variables, reason = "as above")]
                let $b = <$bt as Lane>::of(s.b[lane]);
                #[allow(unused_variables, reason = "as above")]
                let $c = <$ct as Lane>::of(s.c[lane]);
                <$d as Lane>::bits($e)
            })
        };
        f
    }};
}

/// One of the above for each integer type but those of 8 bits; untyped bits are unsigned.
macro_rules! integers {
    ($ty:expr, $($rest:tt)*) => {
        match $ty {
            Type::U16 | Type::B16 => Some(lanes!(u16: $($rest)*)),
            Type::U32 | Type::B32 => Some(lanes!(u32: $($rest)*)),
            Type::U64 | Type::B64 => Some(lanes!(u64: $($rest)*)),
            Type::S16 => Some(lanes!(i16: $($rest)*)),
            Type::S32 => Some(lanes!(i32: $($rest)*)),
            Type::S64 => Some(lanes!(i64: $($rest)*)),
            _ => None,
        }
    };
}

/// One for each float type.
macro_rules! floats {
    ($ty:expr, $($rest:tt)*) => {
        match $ty {
            Type::F32 => Some(lanes!(f32: $($rest)*)),
            Type::F64 => Some(lanes!(f64: $($rest)*)),
            _ => None,
        }
    };
}

pub(crate) use {floats, integers, lanes};
