//! Which columns can go over devices, and as what: kernels have neither views nor dictionaries, which become plain strings on the way.
//! Called by the planner, by the stage before an exchange and by the one after it. Knows types, no device.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use transload_gpu::kernels::{FloatWidth, OffsetWidth, Width};

/// How kernels see the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bits,
    Fixed(Width),
    Floats(FloatWidth),
    Strings(OffsetWidth),
}

impl Kind {
    /// What kernels make of this type, if they know it.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Bits),
            DataType::Float16 => Some(Self::Floats(FloatWidth::Bits16)),
            DataType::Float32 => Some(Self::Floats(FloatWidth::Bits32)),
            DataType::Float64 => Some(Self::Floats(FloatWidth::Bits64)),
            DataType::Utf8 | DataType::Binary => Some(Self::Strings(OffsetWidth::Bits32)),
            DataType::LargeUtf8 | DataType::LargeBinary => Some(Self::Strings(OffsetWidth::Bits64)),
            DataType::FixedSizeBinary(width) => fixed(u64::try_from(*width).ok()?),
            other => fixed(other.primitive_width()? as u64),
        }
    }

    /// Buffers of such a column, without its validity.
    pub(super) fn buffers(self) -> u32 {
        match self {
            Self::Bits | Self::Fixed(_) | Self::Floats(_) => 1,
            Self::Strings(_) => 2,
        }
    }
}

fn fixed(bytes: u64) -> Option<Kind> {
    Width::of(bytes).map(Kind::Fixed)
}

/// The type as which columns of `data_type` go over devices.
fn carried_type(data_type: &DataType) -> Option<DataType> {
    use DataType::{Binary, Int32, Int64, LargeBinary, LargeUtf8, UInt32, UInt64, Utf8};
    match data_type {
        DataType::Utf8View => Some(Utf8),
        DataType::BinaryView => Some(Binary),
        DataType::Dictionary(keys, values) => {
            // Fewer bits may not reach all values that come together from many batches.
            let wide = matches!(**keys, Int32 | UInt32 | Int64 | UInt64);
            let plain = matches!(**values, Utf8 | LargeUtf8 | Binary | LargeBinary);
            (wide && plain).then(|| DataType::clone(values))
        }
        other => Kind::of(other).map(|_| other.clone()),
    }
}

/// The columns of `schema` as they go over devices.
///
/// # Errors
/// Names the first column that cannot.
pub(crate) fn carried_schema(schema: &Schema) -> Result<SchemaRef, String> {
    let field = |field: &Arc<Field>| match carried_type(field.data_type()) {
        Some(carried) if carried == *field.data_type() => Ok(Arc::clone(field)),
        Some(carried) => Ok(Arc::new(Field::clone(field).with_data_type(carried))),
        None => Err(format!(
            "column {} is of type {}, which kernels do not know",
            field.name(),
            field.data_type()
        )),
    };
    let fields: Fields = schema
        .fields()
        .iter()
        .map(field)
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(Schema::new_with_metadata(
        fields,
        schema.metadata().clone(),
    )))
}

/// The batch as `schema`, which is what [`carried_schema`] made of its own, has it.
///
/// # Errors
/// Arrow's, also where strings of one batch are more than 2 GiB.
pub(crate) fn carried(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    converted(batch, schema, |from, to| {
        carried_type(from).as_ref() == Some(to)
    })
}

/// The batch as `schema` has it, after it has been on a device. Others stay as they are, and are refused where they do not fit.
///
/// # Errors
/// Arrow's.
pub(crate) fn restored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    converted(batch, schema, |from, to| {
        carried_type(to).as_ref() == Some(from)
    })
}

fn converted(
    batch: &RecordBatch,
    schema: &SchemaRef,
    is_known: impl Fn(&DataType, &DataType) -> bool,
) -> Result<RecordBatch, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| {
        let (from, to) = (column.data_type(), field.data_type());
        if from != to && is_known(from, to) {
            cast_with_options(column, to, &strict)
        } else {
            Ok(Arc::clone(column))
        }
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(column);
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}
