//! One output file that several threads fill: chunks are encoded side by side and appended in order. The file appears
//! under its name when its last chunk is in. Knows no tables.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves,
};
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::writer::SerializedFileWriter;
use tempfile::NamedTempFile;

use super::tables::Batches;
use crate::output::csv;
use crate::output::{partial_file, persist};

/// The formats that data can be made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DataFormat {
    /// Apache Parquet, zstd-compressed, in several row groups.
    Parquet,
    /// Comma-separated with a header.
    Csv,
}

impl DataFormat {
    /// The ending of its files.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// An output file and its chunks.
pub(crate) struct OutputFile {
    target: PathBuf,
    chunks: u32,
    schema: SchemaRef,
    format: DataFormat,
    state: Mutex<State>,
    progressed: Condvar,
}

struct State {
    writer: Option<Writer>,
    /// The chunk that must be appended next.
    next: u32,
    /// Encoded chunks whose turn has not come.
    waiting: BTreeMap<u32, Encoded>,
    /// No more chunks will come: some thread failed or the person pressed Ctrl-C.
    abandoned: bool,
}

enum Writer {
    Parquet {
        file: SerializedFileWriter<BufWriter<NamedTempFile>>,
        factory: Arc<ArrowRowGroupWriterFactory>,
    },
    Csv(BufWriter<NamedTempFile>),
}

/// A chunk ready to be appended.
pub(crate) enum Encoded {
    Parquet(Vec<ArrowColumnChunk>),
    Csv(Vec<u8>),
}

impl OutputFile {
    /// A file that will be made of `chunks` chunks. Nothing is written yet.
    pub(crate) fn new(target: PathBuf, chunks: u32, schema: SchemaRef, format: DataFormat) -> Self {
        Self {
            target,
            chunks,
            schema,
            format,
            state: Mutex::new(State {
                writer: None,
                next: 0,
                waiting: BTreeMap::new(),
                abandoned: false,
            }),
            progressed: Condvar::new(),
        }
    }

    /// Waits until `chunk` is at most `ahead` chunks before its turn, which bounds the encoded chunks in memory.
    /// False when the file was abandoned.
    pub(crate) fn wait_for_turn(&self, chunk: u32, ahead: u32) -> bool {
        let state = self.lock();
        let state = self
            .progressed
            .wait_while(state, |state| {
                !state.abandoned && chunk > state.next.saturating_add(ahead)
            })
            .unwrap_or_else(PoisonError::into_inner);
        !state.abandoned
    }

    /// Gives up: the partial file is removed and waiting threads go on.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.writer = None;
        self.progressed.notify_all();
    }

    /// Encodes a chunk; runs on many threads at once. Returns it with its number of rows.
    pub(crate) fn encode(&self, batches: Batches) -> io::Result<(Encoded, u64)> {
        let mut rows = 0;
        let encoded = match self.parquet_factory()? {
            Some(factory) => {
                let mut columns = factory.create_column_writers(0)?;
                for batch in batches {
                    let batch = batch.map_err(io::Error::other)?;
                    rows += batch.num_rows() as u64;
                    let mut writers = columns.iter_mut();
                    for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
                        for leaf in compute_leaves(field, array)? {
                            if let Some(writer) = writers.next() {
                                writer.write(&leaf)?;
                            }
                        }
                    }
                }
                let chunks: Result<Vec<_>, ParquetError> =
                    columns.into_iter().map(|column| column.close()).collect();
                Encoded::Parquet(chunks?)
            }
            None => {
                let mut bytes = Vec::new();
                for batch in batches {
                    let batch = batch.map_err(io::Error::other)?;
                    rows += batch.num_rows() as u64;
                    csv::write_rows(&batch, &mut bytes).map_err(io::Error::other)?;
                }
                Encoded::Csv(bytes)
            }
        };
        Ok((encoded, rows))
    }

    /// Appends a chunk, and with it every later one that waited for it. The last one gives the file its name.
    pub(crate) fn append(&self, chunk: u32, encoded: Encoded, rows: u64) -> io::Result<()> {
        let mut state = self.lock();
        // An empty row group would only be in the way of readers.
        let encoded = if rows == 0 {
            Encoded::Csv(Vec::new())
        } else {
            encoded
        };
        state.waiting.insert(chunk, encoded);
        while let Some(encoded) = {
            let next = state.next;
            state.waiting.remove(&next)
        } {
            if let Some(writer) = &mut state.writer {
                writer.append(encoded)?;
            }
            state.next += 1;
        }
        if state.next == self.chunks
            && let Some(writer) = state.writer.take()
        {
            persist(writer.finish()?, &self.target)?;
        }
        self.progressed.notify_all();
        Ok(())
    }

    /// What makes column writers for a Parquet file; nothing for CSV. Opens the partial file when it is not open yet.
    fn parquet_factory(&self) -> io::Result<Option<Arc<ArrowRowGroupWriterFactory>>> {
        let mut state = self.lock();
        if state.writer.is_none() && !state.abandoned {
            state.writer = Some(Writer::open(&self.target, &self.schema, self.format)?);
        }
        match &state.writer {
            Some(Writer::Parquet { factory, .. }) => Ok(Some(factory.clone())),
            Some(Writer::Csv(_)) => Ok(None),
            None => Err(io::Error::from(io::ErrorKind::Interrupted)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn open(target: &std::path::Path, schema: &SchemaRef, format: DataFormat) -> io::Result<Self> {
        let mut partial = BufWriter::with_capacity(1 << 20, partial_file(target)?);
        match format {
            DataFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                let (file, factory) =
                    ArrowWriter::try_new(partial, schema.clone(), Some(properties))?
                        .into_serialized_writer()?;
                let factory = Arc::new(factory);
                Ok(Self::Parquet { file, factory })
            }
            DataFormat::Csv => {
                partial.write_all(csv::header(schema).as_bytes())?;
                Ok(Self::Csv(partial))
            }
        }
    }

    fn append(&mut self, encoded: Encoded) -> io::Result<()> {
        match (self, encoded) {
            (Self::Parquet { file, .. }, Encoded::Parquet(columns)) => {
                let mut row_group = file.next_row_group()?;
                for column in columns {
                    column.append_to_row_group(&mut row_group)?;
                }
                row_group.close()?;
                Ok(())
            }
            (Self::Csv(file), Encoded::Csv(bytes)) => file.write_all(&bytes),
            // An empty chunk.
            (Self::Parquet { .. }, Encoded::Csv(_)) | (Self::Csv(_), Encoded::Parquet(_)) => Ok(()),
        }
    }

    fn finish(self) -> io::Result<NamedTempFile> {
        let partial = match self {
            Self::Parquet { file, .. } => file.into_inner()?,
            Self::Csv(partial) => partial,
        };
        partial.into_inner().map_err(io::IntoInnerError::into_error)
    }
}
