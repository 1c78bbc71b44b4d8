//! What each kernel takes, as types: a struct per kind of kernel, with its fields in the order of the kernel's parameters. Called by the
//! operators, which fill them in, and by [`check`](super::check), which compares them with the PTX.

/// Where something lies in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl Address {
    /// This many bytes on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

/// All parameters of a launch, as the driver lays them out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl Parameters {
    /// In one buffer, each at a multiple of its size.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each begins in [`bytes`](Self::bytes).
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    fn push(&mut self, value: &[u8]) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(value.len()), 0);
        // A kernel's parameters are 4 KiB at most.
        self.offsets.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(value);
    }
}

/// What a kernel can be given.
pub(super) trait Value {
    /// How long it is in memory.
    const BYTES: u32;
    /// Appends it.
    fn put(&self, to: &mut Parameters);
}

impl Value for u32 {
    const BYTES: u32 = 4;
    fn put(&self, to: &mut Parameters) {
        to.push(&self.to_le_bytes());
    }
}

impl Value for u64 {
    const BYTES: u32 = 8;
    fn put(&self, to: &mut Parameters) {
        to.push(&self.to_le_bytes());
    }
}

impl Value for Address {
    const BYTES: u32 = 8;
    fn put(&self, to: &mut Parameters) {
        to.push(&self.0.to_le_bytes());
    }
}

/// Absent buffers are null.
impl Value for Option<Address> {
    const BYTES: u32 = 8;
    fn put(&self, to: &mut Parameters) {
        to.push(&self.map_or(0, |address| address.0).to_le_bytes());
    }
}

/// All parameters of a kind of kernel.
pub(super) trait Arguments {
    /// The kernels that take them.
    const KERNELS: &'static [&'static str];
    /// Bytes of each parameter, in order.
    const BYTES: &'static [u32];
    /// As the driver wants them.
    fn parameters(&self) -> Parameters;
}

/// What the program gives a kernel, whatever the PTX says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) kernels: &'static [&'static str],
    pub(super) bytes: &'static [u32],
}

/// Structs of arguments, and the table of their signatures.
macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident for $kernels:tt { $($field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            pub(super) struct $name { $(pub(super) $field: $kind,)* }

            impl Arguments for $name {
                const KERNELS: &'static [&'static str] = &$kernels;
                const BYTES: &'static [u32] = &[$(<$kind as Value>::BYTES),*];
                fn parameters(&self) -> Parameters {
                    let mut parameters = Parameters::default();
                    $(self.$field.put(&mut parameters);)*
                    parameters
                }
            }
        )*

        /// Every kernel that the operators launch.
        pub(super) const SIGNATURES: &[Signature] =
            &[$(Signature { kernels: $name::KERNELS, bytes: $name::BYTES },)*];
    };
}

arguments! {
    /// gpu/kernels/scan.cu
    ScanSums for ["scan_sums_u32", "scan_sums_u64"] {
        input: Address,
        items: u64,
        sums: Address,
    }
    /// gpu/kernels/scan.cu
    ScanTiles for ["scan_tiles_u32", "scan_tiles_u64"] {
        input: Address,
        items: u64,
        carries: Option<Address>,
        output: Address,
    }
    /// gpu/kernels/bits.cu
    BitsSum for ["bits_sum"] {
        words: Address,
        bits: u64,
        total: Address,
    }
    /// gpu/kernels/bits.cu
    MaskCounts for ["mask_counts"] {
        mask: Address,
        validity: Option<Address>,
        rows: u64,
        counts: Address,
    }
    /// gpu/kernels/bits.cu
    MaskIndices for ["mask_indices"] {
        mask: Address,
        validity: Option<Address>,
        rows: u64,
        starts: Address,
        indices: Address,
    }
    /// gpu/kernels/bits.cu
    BitsAppend for ["bits_append"] {
        input: Option<Address>,
        bits: u64,
        at: u64,
        output: Address,
    }
    /// gpu/kernels/check.cu
    CheckStrings for ["check_offsets_32", "check_offsets_64"] {
        offsets: Address,
        rows: u64,
        bytes: u64,
        wrong: Address,
    }
    /// gpu/kernels/gather.cu
    Gather for ["gather_1", "gather_2", "gather_4", "gather_8", "gather_16"] {
        input: Address,
        indices: Address,
        validity: Option<Address>,
        rows: u64,
        output: Address,
    }
    /// gpu/kernels/gather.cu
    GatherOfBits for ["gather_bits"] {
        input: Option<Address>,
        indices: Address,
        validity: Option<Address>,
        rows: u64,
        output: Address,
    }
    /// gpu/kernels/gather.cu
    GatherLengths for ["gather_lengths_32", "gather_lengths_64"] {
        offsets: Address,
        indices: Address,
        validity: Option<Address>,
        rows: u64,
        lengths: Address,
    }
    /// gpu/kernels/gather.cu
    GatherBytes for ["gather_bytes_32", "gather_bytes_64"] {
        offsets: Address,
        bytes: Address,
        indices: Address,
        rows: u64,
        starts: Address,
        output: Address,
    }
    /// gpu/kernels/gather.cu
    Offsets for ["offsets_32", "offsets_64"] {
        starts: Address,
        items: u64,
        output: Address,
    }
    /// gpu/kernels/append.cu
    Append for ["append_1", "append_2", "append_4", "append_8"] {
        input: Address,
        items: u64,
        added: u64,
        at: u64,
        output: Address,
    }
    /// gpu/kernels/checksum.cu
    SumWords for ["checksum"] {
        words: Address,
        bytes: u64,
        total: Address,
    }
    /// gpu/kernels/hash.cu
    HashValues for [
        "hash_bits", "hash_1", "hash_2", "hash_4", "hash_8", "hash_16", "hash_f16", "hash_f32", "hash_f64"
    ] {
        input: Address,
        validity: Option<Address>,
        rows: u64,
        hashes: Address,
    }
    /// gpu/kernels/hash.cu
    HashBytes for ["hash_bytes_32", "hash_bytes_64"] {
        offsets: Address,
        bytes: Address,
        validity: Option<Address>,
        rows: u64,
        hashes: Address,
    }
    /// gpu/kernels/hash.cu
    HashEntries for ["hash_entries_1", "hash_entries_2", "hash_entries_4", "hash_entries_8"] {
        keys: Address,
        validity: Option<Address>,
        rows: u64,
        entries: Address,
        hashes: Address,
    }
    /// gpu/kernels/partition.cu
    PartitionCounts for ["partition_counts"] {
        hashes: Address,
        rows: u64,
        partitions: u32,
        tile_rows: u32,
        tiles: u64,
        counts: Address,
    }
    /// gpu/kernels/partition.cu
    PartitionIndices for ["partition_indices"] {
        hashes: Address,
        rows: u64,
        partitions: u32,
        tile_rows: u32,
        tiles: u64,
        starts: Address,
        indices: Address,
    }
    /// gpu/kernels/partition.cu
    PartitionStarts for ["partition_starts"] {
        starts: Address,
        tiles: u64,
        partitions: u32,
        firsts: Address,
    }
}
