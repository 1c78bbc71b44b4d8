//! Batches that hold no memory but their own: a slice of a large batch is copied, a batch that fills its buffers is shared.
//! Called before batches leave a task; knows memory, never schemas' meaning.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, FixedSizeListArray, GenericByteViewArray,
    GenericListArray, Int32Array, MapArray, MutableArrayData, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, StructArray, UnionArray, make_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{ByteViewType, DataType, UnionFields, UnionMode};
use datafusion::arrow::error::ArrowError;

/// Bytes that a buffer may hold beyond twice what is used before it is copied: below this, copying costs more than keeping.
const SLACK_BYTES: usize = 4096;

/// The same rows in memory that holds little else.
///
/// # Errors
/// Arrow's, for arrays that break its own rules.
pub(crate) fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .map(compact_array)
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn compact_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Utf8View => compact_view(array.as_string_view(), array),
        DataType::BinaryView => compact_view(array.as_binary_view(), array),
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let columns = array
                .columns()
                .iter()
                .map(compact_array)
                .collect::<Result<Vec<_>, _>>()?;
            let nulls = compact_nulls(array.nulls());
            Ok(Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                columns,
                nulls,
                array.len(),
            )?))
        }
        DataType::List(_) => compact_list(array.as_list::<i32>()),
        DataType::LargeList(_) => compact_list(array.as_list::<i64>()),
        DataType::Map(field, sorted) => {
            let map = array.as_map();
            let copied = tight_rows(array, map.offsets().inner(), map.entries().len())?;
            let map = copied.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let entries = compact_array(&entries)?.as_struct().clone();
            Ok(Arc::new(MapArray::try_new(
                Arc::clone(field),
                map.offsets().clone(),
                entries,
                compact_nulls(map.nulls()),
                *sorted,
            )?))
        }
        DataType::FixedSizeList(field, size) => {
            let copied = tight(array)?;
            let list = copied.as_fixed_size_list();
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(
                Arc::clone(field),
                *size,
                compact_array(list.values())?,
                compact_nulls(list.nulls()),
                list.len(),
            )?))
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let unused = dictionary.values().len() > dictionary.keys().len().saturating_mul(2);
            let smaller = if unused {
                cast(
                    &take(dictionary.values(), dictionary.keys(), None)?,
                    array.data_type(),
                )?
            } else {
                Arc::clone(array)
            };
            let dictionary = smaller.as_any_dictionary();
            let values = compact_array(dictionary.values())?;
            tight(&dictionary.with_values(values))
        }
        DataType::Union(fields, UnionMode::Dense) => {
            let data = array.to_data();
            let child_rows: usize = data.child_data().iter().map(ArrayData::len).sum();
            if child_rows <= array.len().saturating_mul(2) {
                return tight(array);
            }
            compact_dense_union(array.as_union(), fields)
        }
        _ => tight(array),
    }
}

/// The children of a dense union are wherever its offsets point: each is gathered anew.
fn compact_dense_union(union: &UnionArray, fields: &UnionFields) -> Result<ArrayRef, ArrowError> {
    let Some(offsets) = union.offsets() else {
        return Err(ArrowError::InvalidArgumentError(
            "a dense union without offsets".to_owned(),
        ));
    };
    let rows = || union.type_ids().iter().zip(offsets.iter());
    let mut children = Vec::with_capacity(fields.len());
    let mut new_offsets = vec![0_i32; union.len()];
    for (id, _) in fields.iter() {
        let own: Vec<i32> = rows()
            .filter(|(other, _)| **other == id)
            .map(|(_, offset)| *offset)
            .collect();
        children.push(compact_array(&take(
            union.child(id),
            &Int32Array::from(own),
            None,
        )?)?);
        let own = new_offsets
            .iter_mut()
            .zip(union.type_ids().iter())
            .filter(|(_, other)| **other == id);
        for (next, (new, _)) in (0..).zip(own) {
            *new = next;
        }
    }
    Ok(Arc::new(UnionArray::try_new(
        fields.clone(),
        union.type_ids().iter().copied().collect(),
        Some(new_offsets.into()),
        children,
    )?))
}

fn compact_view<T: ByteViewType + ?Sized>(
    views: &GenericByteViewArray<T>,
    array: &ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let used = views.total_buffer_bytes_used();
    let held: usize = views
        .data_buffers()
        .iter()
        .map(|buffer| buffer.capacity())
        .sum();
    if wastes(used, held) {
        let copied: ArrayRef = Arc::new(views.gc());
        return tight(&copied);
    }
    tight(array)
}

fn compact_list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<ArrayRef, ArrowError> {
    let whole: ArrayRef = Arc::new(list.clone());
    let copied = tight_rows(&whole, list.offsets().inner(), list.values().len())?;
    let list = copied.as_list::<O>();
    let (DataType::List(field) | DataType::LargeList(field)) = list.data_type() else {
        return Ok(copied);
    };
    Ok(Arc::new(GenericListArray::<O>::try_new(
        Arc::clone(field),
        list.offsets().clone(),
        compact_array(list.values())?,
        compact_nulls(list.nulls()),
    )?))
}

fn compact_nulls(nulls: Option<&NullBuffer>) -> Option<NullBuffer> {
    nulls.map(|nulls| {
        let bits = nulls.inner().sliced();
        if wastes(bits.len(), bits.capacity()) {
            let bits = Buffer::from(bits.as_slice());
            NullBuffer::new(BooleanBuffer::new(bits, 0, nulls.len()))
        } else {
            nulls.clone()
        }
    })
}

/// A list or map whose offsets span most of its child, else a copy.
fn tight_rows<O: OffsetSizeTrait>(
    array: &ArrayRef,
    offsets: &[O],
    child_rows: usize,
) -> Result<ArrayRef, ArrowError> {
    let (first, last) = match offsets {
        [first, .., last] => (first.as_usize(), last.as_usize()),
        _ => (0, 0),
    };
    if first != 0 || child_rows > (last - first).saturating_mul(2) {
        return Ok(make_array(copy(&array.to_data())?));
    }
    tight(array)
}

/// The array itself when it uses most of what it holds, else a copy.
fn tight(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    if is_tight(&data)? {
        Ok(Arc::clone(array))
    } else {
        Ok(make_array(copy(&data)?))
    }
}

/// Whether every buffer is mostly used. What views point to and a dictionary's values are looked at by the callers.
fn is_tight(data: &ArrayData) -> Result<bool, ArrowError> {
    let bits = matches!(data.data_type(), DataType::Boolean);
    if data.offset() != 0 && !bits || matches!(data.data_type(), DataType::RunEndEncoded(_, _)) {
        return Ok(false);
    }
    let is_view = matches!(data.data_type(), DataType::Utf8View | DataType::BinaryView);
    let buffers = data
        .buffers()
        .iter()
        .take(if is_view { 1 } else { usize::MAX });
    let mut held: usize = buffers.map(|buffer| buffer.capacity()).sum();
    held += data.nulls().map_or(0, |nulls| nulls.buffer().capacity());
    let mut used = data.get_slice_memory_size()?;
    for child in data.child_data() {
        used = used.saturating_sub(child.get_slice_memory_size()?);
        if !matches!(data.data_type(), DataType::Dictionary(_, _)) && !is_tight(child)? {
            return Ok(false);
        }
    }
    Ok(!wastes(used, held))
}

fn wastes(used: usize, held: usize) -> bool {
    held > used.saturating_mul(2).saturating_add(SLACK_BYTES)
}

/// A copy of exactly the rows of `data`, at offset zero.
pub(super) fn copy(data: &ArrayData) -> Result<ArrayData, ArrowError> {
    let mut copied = MutableArrayData::new(vec![data], false, data.len());
    copied.try_extend(0, 0, data.len())?;
    Ok(copied.freeze())
}
