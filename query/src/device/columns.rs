//! Partitions to columns in device memory, and back. Part of `device`.

use datafusion::arrow::datatypes::DataType;
use transload_gpu::device::{
    Column, DevicePartition, Packed, Region, TieredBuffer, UncheckedStrings, Values,
};
use transload_gpu::{PartitionHeader, Stored};
use transload_protocol::Blob;
use transload_runtime::OperatorError;

use super::form::Kind;
use super::{Gpu, unreadable};
use crate::partition::{Metadata, Node, PartitionError};

/// The columns of one batch on the device. There is one at least.
pub(super) type Table = Vec<Column>;

/// What a partition says of itself, as far as that can be right without a look at its bytes.
#[derive(Debug)]
pub(super) struct Description {
    metadata: Metadata,
    /// Of each column.
    types: Vec<DataType>,
    kinds: Vec<Kind>,
    /// Rows of each batch.
    batches: Vec<u32>,
}

fn malformed(reason: impl Into<String>) -> PartitionError {
    PartitionError::Malformed(reason.into())
}

impl Description {
    /// # Errors
    /// [`PartitionError::Malformed`] where it contradicts itself or the number of its buffers, or has columns that kernels do not know.
    pub(super) fn of(header: &PartitionHeader) -> Result<Self, PartitionError> {
        let metadata = Metadata::decode(&header.metadata.0)?;
        let mut types = Vec::new();
        if !metadata.rows.is_empty() {
            let schema = metadata.schema()?;
            types.extend(schema.fields().iter().map(|it| it.data_type().clone()));
        }
        let kind = |data_type: &DataType| {
            Kind::of(data_type).ok_or_else(|| malformed(format!("{data_type} on a device")))
        };
        let kinds: Vec<Kind> = types.iter().map(kind).collect::<Result<_, _>>()?;
        let rows = |rows: &u64| {
            u32::try_from(*rows).map_err(|_| malformed(format!("{rows} rows on a device")))
        };
        let batches = metadata.rows.iter().map(rows).collect::<Result<_, _>>()?;
        let described = Self {
            metadata,
            types,
            kinds,
            batches,
        };
        described.check(header.buffer_bytes.len())?;
        Ok(described)
    }

    /// Whether arrays and buffers are those that the columns need.
    fn check(&self, buffers: usize) -> Result<(), PartitionError> {
        let nodes = &self.metadata.nodes;
        if nodes.len() != self.batches.len().saturating_mul(self.kinds.len()) {
            return Err(malformed("other arrays than columns"));
        }
        let mut rest = nodes.iter();
        for rows in &self.batches {
            for (node, kind) in rest.by_ref().take(self.kinds.len()).zip(&self.kinds) {
                if node.rows != u64::from(*rows) || node.buffers != kind.buffers() {
                    return Err(malformed("an array that is not as its column"));
                }
            }
        }
        if buffers_of(nodes) == buffers {
            Ok(())
        } else {
            Err(malformed("more or fewer buffers than arrays need"))
        }
    }

    pub(super) fn has_rows(&self) -> bool {
        self.batches.iter().any(|rows| *rows > 0)
    }

    /// Rows of all batches.
    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|rows| u64::from(*rows)).sum()
    }

    pub(super) fn columns(&self) -> usize {
        self.kinds.len()
    }

    /// # Errors
    /// Where these are other columns.
    pub(super) fn check_same(&self, other: &Self) -> Result<(), OperatorError> {
        if self.types == other.types {
            return Ok(());
        }
        let reason = format!("columns of {:?} and of {:?}", self.types, other.types);
        Err(unreadable(malformed(reason)))
    }

    /// The header of these rows as one batch.
    fn header(&self, packed: &Packed) -> Result<PartitionHeader, PartitionError> {
        let node = |(column, kind): (&Column, &Kind)| Node {
            rows: packed.rows,
            has_validity: column.validity().is_some(),
            buffers: kind.buffers(),
        };
        let metadata = Metadata {
            schema: self.metadata.schema.clone(),
            rows: vec![packed.rows],
            nodes: packed.columns.iter().zip(&self.kinds).map(node).collect(),
        };
        Ok(PartitionHeader {
            metadata: metadata.encode()?,
            buffer_bytes: packed.buffer_bytes.clone(),
        })
    }
}

fn buffers_of(nodes: &[Node]) -> usize {
    let each = |node: &Node| node.buffers as usize + usize::from(node.has_validity);
    nodes.iter().map(each).sum()
}

/// The batches of a partition, on the device.
pub(super) async fn tables(
    gpu: Gpu<'_>,
    described: &Description,
    stored: &Stored,
) -> Result<Vec<Table>, OperatorError> {
    let mut regions = regions(gpu, stored).await?.into_iter();
    let mut next = || {
        let missing = || unreadable(malformed("fewer buffers than arrays need"));
        regions.next().ok_or_else(missing)
    };
    let (mut parts, mut unchecked) = (Vec::new(), Vec::new());
    let nodes = described.metadata.nodes.iter();
    for (node, kind) in nodes.zip(described.kinds.iter().cycle()) {
        let rows = u32::try_from(node.rows).map_err(|_| unreadable(malformed("too many rows")))?;
        let validity = node.has_validity.then(&mut next).transpose()?;
        let first = next()?;
        let values = match kind {
            Kind::Bits => Some(Values::Bits(first)),
            Kind::Fixed(width) => Some(Values::Fixed(*width, first)),
            Kind::Floats(width) => Some(Values::Floats(*width, first)),
            Kind::Strings(width) => {
                unchecked.push(UncheckedStrings::new(rows, *width, first, next()?)?);
                None
            }
        };
        parts.push((rows, validity, values));
    }
    let mut checked = gpu.kernels.checked(unchecked).await?.into_iter();
    let column = |(rows, validity, values): (u32, Option<Region>, Option<Values>)| {
        let values = values.or_else(|| checked.next().map(Values::Strings));
        let missing = || unreadable(malformed("a column without values"));
        Ok(Column::new(rows, validity, values.ok_or_else(missing)?)?)
    };
    let columns = parts.into_iter().map(column);
    let columns = columns.collect::<Result<Vec<Column>, OperatorError>>()?;
    let batches = columns.chunks(described.columns().max(1));
    Ok(batches.map(<[Column]>::to_vec).collect())
}

/// Where the buffers of a partition are, after it has been brought to the device.
async fn regions(gpu: Gpu<'_>, stored: &Stored) -> Result<Vec<Region>, OperatorError> {
    let partition = match stored {
        Stored::Host(partition) => gpu.tiers.upload(partition).await?,
        Stored::Device(partition) => partition.clone(),
    };
    let place = gpu.tiers.to_device(partition.payload()).await?;
    let region = |(start, bytes)| Ok(Region::new(&place, start, bytes)?);
    partition.buffers().map(region).collect()
}

/// A partition of these rows, which have the columns of `like`.
pub(super) fn partition_of(
    gpu: Gpu<'_>,
    packed: Packed,
    like: &Description,
) -> Result<DevicePartition, OperatorError> {
    if packed.rows == 0 {
        return empty(gpu);
    }
    let header = like.header(&packed).map_err(unreadable)?;
    assembled(gpu, header, TieredBuffer::on_device(packed.buffer))
}

/// A partition without a batch, as the host makes it.
pub(super) fn empty(gpu: Gpu<'_>) -> Result<DevicePartition, OperatorError> {
    without_buffers(gpu, &Metadata::default())
}

/// A partition of one batch of so many rows without columns.
pub(super) fn bare(
    gpu: Gpu<'_>,
    rows: u64,
    like: &Description,
) -> Result<DevicePartition, OperatorError> {
    let metadata = Metadata {
        schema: like.metadata.schema.clone(),
        rows: vec![rows],
        nodes: Vec::new(),
    };
    without_buffers(gpu, &metadata)
}

fn without_buffers(gpu: Gpu<'_>, metadata: &Metadata) -> Result<DevicePartition, OperatorError> {
    let metadata: Blob = metadata.encode().map_err(unreadable)?;
    let header = PartitionHeader {
        metadata,
        buffer_bytes: Vec::new(),
    };
    let nothing = gpu.tiers.memory().try_allocate(0)?;
    assembled(gpu, header, TieredBuffer::on_device(nothing))
}

fn assembled(
    gpu: Gpu<'_>,
    header: PartitionHeader,
    payload: TieredBuffer,
) -> Result<DevicePartition, OperatorError> {
    DevicePartition::new(header, payload, gpu.tiers)
        .map_err(|error| OperatorError::new(error.to_string()))
}
