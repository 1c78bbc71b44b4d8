//! Columns whose values are entries of a dictionary. Part of `columns`.

use std::sync::Arc;

use super::{Column, Region, Values, column};
use crate::device::compute::Kernels;
use crate::device::error::DeviceError;
use crate::kernels::KeyWidth;

/// Keys of a dictionary: each is the number of an entry. Entries may be equal to each other, and null.
#[derive(Debug, Clone)]
pub struct Dictionary {
    pub(super) width: KeyWidth,
    pub(super) keys: Region,
    pub(super) entries: Arc<Column>,
}

/// One dictionary for columns that are put behind each other.
pub(super) struct Unified {
    pub(super) entries: Arc<Column>,
    /// For each of the columns, how many entries are before its own.
    pub(super) firsts: Vec<u64>,
}

impl Dictionary {
    /// Keys of this width, and what they stand for.
    ///
    /// # Errors
    /// [`DeviceError::Column`] where the entries have a dictionary themselves.
    ///
    /// # Safety
    /// Keys of rows that are not null are below the rows of `entries`: a kernel reads where they say.
    pub unsafe fn new(
        width: KeyWidth,
        keys: Region,
        entries: Arc<Column>,
    ) -> Result<Self, DeviceError> {
        if matches!(entries.values, Values::Dictionary(_)) {
            return Err(column(
                "the entries of a dictionary have a dictionary themselves".to_owned(),
            ));
        }
        Ok(Self {
            width,
            keys,
            entries,
        })
    }

    /// What the keys stand for, shared by all columns that were made of one.
    pub fn entries(&self) -> &Arc<Column> {
        &self.entries
    }
}

impl Kernels {
    /// One dictionary for columns that all have one: the one that they share, or all of theirs behind each other. `None` where a column has
    /// none.
    pub(super) async fn unified(&self, parts: &[&Column]) -> Result<Option<Unified>, DeviceError> {
        let dictionaries: Option<Vec<&Dictionary>> =
            parts.iter().map(|it| it.dictionary()).collect();
        let Some(dictionaries) = dictionaries else {
            return Ok(None);
        };
        let mut different: Vec<(&Arc<Column>, u64)> = Vec::new();
        let (mut firsts, mut entries) = (Vec::new(), 0);
        for dictionary in &dictionaries {
            let own = &dictionary.entries;
            let known = different.iter().find(|(it, _)| Arc::ptr_eq(it, own));
            firsts.push(known.map_or(entries, |(_, first)| *first));
            if known.is_none() {
                different.push((own, entries));
                entries += own.rows;
            }
        }
        if let [(only, _)] = different[..] {
            let entries = Arc::clone(only);
            return Ok(Some(Unified { entries, firsts }));
        }
        let width = dictionaries.iter().map(|it| it.width);
        let most = width.map(KeyWidth::most_entries).min().unwrap_or(0);
        if entries > most {
            return Err(column(format!(
                "{entries} entries of dictionaries are more than the {most} that their keys reach; use wider keys, or one dictionary"
            )));
        }
        let tables: Vec<Vec<Column>> = different
            .iter()
            .map(|(it, _)| vec![Column::clone(it)])
            .collect();
        let behind_each_other = self.append(&tables, &[None]).await?;
        let entries = behind_each_other.columns.into_iter().next();
        let entries = Arc::new(entries.ok_or_else(|| column("no dictionary".to_owned()))?);
        Ok(Some(Unified { entries, firsts }))
    }
}

impl Column {
    pub(super) fn dictionary(&self) -> Option<&Dictionary> {
        match &self.values {
            Values::Dictionary(dictionary) => Some(dictionary),
            Values::Bits(_) | Values::Fixed(..) | Values::Floats(..) | Values::Strings(_) => None,
        }
    }
}
