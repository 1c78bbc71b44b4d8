//! The kernels of the cases, as PTX text: a few lines each, for compute capability 8.0 and later.
//!
//! Called by `tools` and by the cases about modules. An emulator must run these opcodes and no others for this suite.

/// All kernels that obey the rules, in one module. Ends with a zero, as the driver wants it.
///
/// `gate` waits until the word at its parameter is not zero, but for five seconds at most: no case hangs a device.
pub(crate) const GOOD: &str = concat!(
    "
.version 7.0
.target sm_80
.address_size 64

.visible .global .align 4 .b8 numbers[16];

.visible .entry empty()
{
    ret;
}

.visible .entry gate(.param .u64 flag)
{
    .reg .pred %p<3>;
    .reg .b32 %r<2>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [flag];
    mov.u64 %rd2, %globaltimer;
    add.s64 %rd3, %rd2, 5000000000;
wait:
    ld.volatile.global.u32 %r1, [%rd1];
    setp.ne.s32 %p1, %r1, 0;
    @%p1 bra done;
    mov.u64 %rd4, %globaltimer;
    setp.lt.u64 %p2, %rd4, %rd3;
    @%p2 bra wait;
done:
    ret;
}

.visible .entry store(.param .u64 address, .param .u32 value)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [address];
    ld.param.u32 %r1, [value];
    st.global.u32 [%rd1], %r1;
    ret;
}

.visible .entry load(.param .u64 from, .param .u64 to)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [from];
    ld.param.u64 %rd2, [to];
    ld.global.u32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}

.extern .shared .align 4 .b8 room[];

.visible .entry shared(.param .u64 to)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [to];
    mov.u32 %r1, 7;
    st.shared.u32 [room], %r1;
    ld.shared.u32 %r1, [room];
    st.global.u32 [%rd1], %r1;
    ret;
}

.visible .entry shared_store(.param .u32 offset)
{
    .reg .b32 %r<4>;
    ld.param.u32 %r1, [offset];
    mov.u32 %r2, room;
    add.s32 %r3, %r2, %r1;
    st.shared.u32 [%r3], %r1;
    ret;
}

.visible .entry trap()
{
    trap;
    ret;
}

.visible .entry few() .maxntid 64, 1, 1
{
    ret;
}
",
    "\0"
);

/// A module of one kernel that does nothing, of PTX version `version` for `target`.
pub(crate) fn empty_of(version: &str, target: &str) -> String {
    format!(
        ".version {version}\n.target {target}\n.address_size 64\n.visible .entry empty()\n{{\n    ret;\n}}\n\0"
    )
}

/// A module of one kernel with `line` in it.
pub(crate) fn with_line(line: &str) -> String {
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry empty()\n{{\n    .reg .b32 %r<4>;\n    {line}\n    ret;\n}}\n\0"
    )
}
