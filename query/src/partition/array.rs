//! One array to nodes and buffers, and back. Called for each column; knows Arrow's physical layouts through
//! [`layout`], never batches or schemas.

use bytes::Bytes;
use datafusion::arrow::array::{ArrayData, ArrayDataBuilder, BufferSpec, layout};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{DataType, UnionMode};
use datafusion::arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::compact::copy;

/// Most rows of one array: enough for any batch, small enough that no length computed from it overflows.
const MAX_ROWS: u64 = 1 << 40;

/// One array: its length and how many of the buffers that follow are its own. Its children, as its type says, are the
/// nodes that follow.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) rows: u64,
    pub(crate) has_validity: bool,
    pub(crate) buffers: u32,
}

/// Collects nodes and buffers, depth first.
#[derive(Default)]
pub(super) struct Encoder {
    pub(super) nodes: Vec<Node>,
    pub(super) buffers: Vec<Bytes>,
}

/// An Arrow buffer as the owner of `Bytes`.
struct Owner(Buffer);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

fn share(buffer: Buffer) -> Bytes {
    if buffer.is_empty() {
        Bytes::new()
    } else {
        Bytes::from_owner(Owner(buffer))
    }
}

fn first_bytes(buffer: &Buffer, bytes: usize) -> Result<Buffer, ArrowError> {
    if bytes > buffer.len() {
        return Err(malformed(&format!(
            "a buffer of {} B where {bytes} B are needed",
            buffer.len()
        )));
    }
    Ok(buffer.slice_with_length(0, bytes))
}

fn malformed(reason: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(reason.to_owned())
}

/// Width of an offset in bytes, for the types whose first buffer is offsets into their second.
fn offset_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(_, _) => Some(4),
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => Some(8),
        _ => None,
    }
}

fn offset_at(data: &ArrayData, width: usize, index: usize) -> Option<usize> {
    let bytes = data
        .buffers()
        .first()?
        .as_slice()
        .get(index * width..(index + 1) * width)?;
    match width {
        4 => usize::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok(),
        _ => usize::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok(),
    }
}

impl Encoder {
    /// Adds an array and its children. Shares its buffers, cut to what the array uses.
    pub(super) fn push(&mut self, data: &ArrayData) -> Result<(), ArrowError> {
        let starts_at_zero = data.offset() == 0
            && offset_width(data.data_type())
                .is_none_or(|width| data.is_empty() || offset_at(data, width, 0) == Some(0));
        if !starts_at_zero && !matches!(data.data_type(), DataType::Boolean) {
            let moved = copy(data)?;
            debug_assert_eq!(moved.offset(), 0, "a copy starts at zero");
            return self.push_from_zero(&moved);
        }
        self.push_from_zero(data)
    }

    fn push_from_zero(&mut self, data: &ArrayData) -> Result<(), ArrowError> {
        let validity = data.nulls().map(|nulls| nulls.inner().sliced());
        let before = self.buffers.len() + usize::from(validity.is_some());
        if let Some(validity) = &validity {
            self.buffers
                .push(share(first_bytes(validity, data.len().div_ceil(8))?));
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            rows: data.len() as u64,
            has_validity: validity.is_some(),
            buffers: 0,
        });
        self.push_values(data)?;
        let buffers = u32::try_from(self.buffers.len() - before)
            .map_err(|_| malformed("more buffers than fit in 32 bits"))?;
        if let Some(node) = self.nodes.get_mut(node) {
            node.buffers = buffers;
        }
        data.child_data()
            .iter()
            .try_for_each(|child| self.push(child))
    }

    fn push_values(&mut self, data: &ArrayData) -> Result<(), ArrowError> {
        let rows = data.len();
        let buffer = |index: usize| {
            data.buffers()
                .get(index)
                .ok_or_else(|| malformed("an array without its buffers"))
        };
        let mut values = Vec::new();
        if let Some(width) = offset_width(data.data_type()) {
            if rows == 0 {
                // An empty array may come without offsets; it leaves with one, as the format asks.
                values.push(Buffer::from(vec![0_u8; width]));
            } else {
                values.push(first_bytes(buffer(0)?, (rows + 1) * width)?);
            }
            if data.child_data().is_empty() {
                let end = if rows == 0 {
                    0
                } else {
                    offset_at(data, width, rows).ok_or_else(|| malformed("bad offsets"))?
                };
                values.push(first_bytes(buffer(1)?, end)?);
            }
        } else if let DataType::Boolean = data.data_type() {
            values.push(buffer(0)?.bit_slice(data.offset(), rows));
            values = vec![first_bytes(&values[0], rows.div_ceil(8))?];
        } else if let DataType::Utf8View | DataType::BinaryView = data.data_type() {
            values.push(first_bytes(buffer(0)?, rows * 16)?);
            values.extend(data.buffers().iter().skip(1).cloned());
        } else {
            for (index, spec) in layout(data.data_type()).buffers.iter().enumerate() {
                let bytes = match spec {
                    BufferSpec::FixedWidth { byte_width, .. } => rows * byte_width,
                    _ => buffer(index)?.len(),
                };
                values.push(first_bytes(buffer(index)?, bytes)?);
            }
        }
        self.buffers.extend(values.into_iter().map(share));
        Ok(())
    }
}

/// Takes nodes and buffers in the order in which [`Encoder`] wrote them.
pub(super) struct Decoder {
    nodes: std::vec::IntoIter<Node>,
    buffers: std::vec::IntoIter<Bytes>,
}

impl Decoder {
    pub(super) fn new(nodes: Vec<Node>, buffers: Vec<Bytes>) -> Self {
        Self {
            nodes: nodes.into_iter(),
            buffers: buffers.into_iter(),
        }
    }

    /// The next array, which must be of this type. Checked in full: lengths, offsets, UTF-8, dictionary keys.
    pub(super) fn array(&mut self, data_type: &DataType) -> Result<ArrayData, ArrowError> {
        let node = self
            .nodes
            .next()
            .ok_or_else(|| malformed("fewer arrays than columns"))?;
        let rows = length(node.rows)?;
        let mut builder = ArrayDataBuilder::new(data_type.clone())
            .len(rows)
            .align_buffers(true);
        if node.has_validity {
            let validity = self.buffer()?;
            // Checked here, as Arrow asserts it.
            if validity.len() < rows.div_ceil(8) {
                return Err(malformed("a validity buffer that is too short"));
            }
            builder = builder.null_bit_buffer(Some(validity));
        }
        for _ in 0..node.buffers {
            builder = builder.add_buffer(self.buffer()?);
        }
        for child in children(data_type) {
            builder = builder.add_child_data(self.array(child)?);
        }
        builder.build()
    }

    fn buffer(&mut self) -> Result<Buffer, ArrowError> {
        self.buffers
            .next()
            .map(Buffer::from)
            .ok_or_else(|| malformed("fewer buffers than arrays need"))
    }

    /// Nothing may be left over.
    pub(super) fn finish(mut self) -> Result<(), ArrowError> {
        match (self.nodes.next(), self.buffers.next()) {
            (None, None) => Ok(()),
            _ => Err(malformed("more arrays or buffers than columns")),
        }
    }
}

/// A length that came from outside.
pub(super) fn length(rows: u64) -> Result<usize, ArrowError> {
    if rows > MAX_ROWS {
        return Err(malformed(&format!("{rows} rows in one array")));
    }
    usize::try_from(rows).map_err(|_| malformed(&format!("{rows} rows in one array")))
}

fn children(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(_, values) => vec![values.as_ref()],
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        _ => Vec::new(),
    }
}

/// Refuses types that Arrow itself would not have made: it takes some of their rules for granted.
pub(super) fn check_type(data_type: &DataType) -> Result<(), ArrowError> {
    let sound = match data_type {
        DataType::FixedSizeBinary(width) | DataType::FixedSizeList(_, width) => *width >= 0,
        DataType::Map(entries, _) => {
            matches!(entries.data_type(), DataType::Struct(fields) if fields.len() == 2)
        }
        DataType::Dictionary(keys, _) => keys.is_dictionary_key_type(),
        DataType::RunEndEncoded(ends, _) => ends.data_type().is_run_ends_type(),
        DataType::Union(_, UnionMode::Dense | UnionMode::Sparse) => true,
        _ => true,
    };
    if !sound {
        return Err(malformed(&format!("no array is of type {data_type}")));
    }
    children(data_type).into_iter().try_for_each(check_type)
}
