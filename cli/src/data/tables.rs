//! The eight TPC-H tables: how many rows they have, and their rows in chunks. Knows no files.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

/// Batches of one chunk, in row order.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// One of the eight tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    LineItem,
    Orders,
    PartSupp,
    Part,
    Customer,
    Supplier,
    Nation,
    Region,
}

impl Table {
    /// Every table, largest first, which keeps all threads busy to the end.
    pub(crate) const ALL: [Self; 8] = [
        Self::LineItem,
        Self::Orders,
        Self::PartSupp,
        Self::Part,
        Self::Customer,
        Self::Supplier,
        Self::Nation,
        Self::Region,
    ];

    /// Its name in SQL and of its files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::LineItem => "lineitem",
            Self::Orders => "orders",
            Self::PartSupp => "partsupp",
            Self::Part => "part",
            Self::Customer => "customer",
            Self::Supplier => "supplier",
            Self::Nation => "nation",
            Self::Region => "region",
        }
    }

    /// About how many rows it has at `scale`; exact for all but `lineitem`.
    pub(crate) fn rows(self, scale: f64) -> u64 {
        let rows = match self {
            Self::LineItem => 4 * OrderGenerator::calculate_row_count(scale, 1, 1),
            Self::Orders => OrderGenerator::calculate_row_count(scale, 1, 1),
            Self::PartSupp => 4 * PartSuppGenerator::calculate_row_count(scale, 1, 1),
            Self::Part => PartGenerator::calculate_row_count(scale, 1, 1),
            Self::Customer => CustomerGenerator::calculate_row_count(scale, 1, 1),
            Self::Supplier => SupplierGenerator::calculate_row_count(scale, 1, 1),
            Self::Nation => 25,
            Self::Region => 5,
        };
        u64::try_from(rows).unwrap_or(0)
    }

    /// Whether it grows with the scale; the two that do not come as one chunk only.
    pub(crate) const fn is_scaled(self) -> bool {
        !matches!(self, Self::Nation | Self::Region)
    }

    /// Its columns.
    pub(crate) fn schema(self) -> SchemaRef {
        match self {
            Self::LineItem => LineItemArrow::schema_ref(),
            Self::Orders => OrderArrow::schema_ref(),
            Self::PartSupp => PartSuppArrow::schema_ref(),
            Self::Part => PartArrow::schema_ref(),
            Self::Customer => CustomerArrow::schema_ref(),
            Self::Supplier => SupplierArrow::schema_ref(),
            Self::Nation => NationArrow::schema_ref(),
            Self::Region => RegionArrow::schema_ref(),
        }
    }

    /// The rows of chunk `chunk` (from 0) of `chunks`; all chunks one after another are the table.
    pub(crate) fn batches(self, scale: f64, chunk: i32, chunks: i32) -> Batches {
        let part = chunk + 1;
        match self {
            Self::LineItem => Box::new(LineItemArrow::new(LineItemGenerator::new(
                scale, part, chunks,
            ))),
            Self::Orders => Box::new(OrderArrow::new(OrderGenerator::new(scale, part, chunks))),
            Self::PartSupp => Box::new(PartSuppArrow::new(PartSuppGenerator::new(
                scale, part, chunks,
            ))),
            Self::Part => Box::new(PartArrow::new(PartGenerator::new(scale, part, chunks))),
            Self::Customer => Box::new(CustomerArrow::new(CustomerGenerator::new(
                scale, part, chunks,
            ))),
            Self::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(
                scale, part, chunks,
            ))),
            Self::Nation => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
            Self::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        }
    }
}
