//! A word in CSV files that stands for "no value", such as `NA`. Called by table registration.
//!
//! DataFusion's CSV reader knows empty fields alone (its `null_regex` is used for inferring types, not for reading). So the
//! file is read as text, and a view turns the marker into NULL and the rest into each column's type; the optimizer pushes
//! projections through it, so columns that nobody asks for are neither read nor cast.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, lit};
use datafusion::prelude::nullif;

/// The pattern of fields that are no value: the marker, or nothing. Used where types are inferred.
pub(super) fn pattern(marker: &str) -> String {
    let escaped: String = marker.chars().flat_map(escape).collect();
    format!("^(?:{escaped})?$")
}

fn escape(character: char) -> impl Iterator<Item = char> {
    let special = !character.is_alphanumeric() && !character.is_whitespace() && character.is_ascii();
    special.then_some('\\').into_iter().chain([character])
}

/// The same columns, all of them text.
pub(super) fn as_text(schema: &Schema) -> Schema {
    let field = |field: &Arc<Field>| Field::new(field.name(), DataType::Utf8, true);
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

/// A view of `text`, a table of text columns, with the types of `schema` and NULL where `marker` stands.
pub(super) fn view(
    name: &TableReference,
    text: Arc<dyn TableProvider>,
    schema: &Schema,
    marker: &str,
) -> Result<Arc<dyn TableProvider>> {
    let columns: Vec<Expr> = schema
        .fields()
        .iter()
        .map(|field| {
            let column = Expr::Column(Column::new(Some(name.clone()), field.name()));
            let value = nullif(column, lit(marker));
            let typed = match field.data_type() {
                DataType::Utf8 => value,
                // A column with no value at all in the rows that were looked at.
                DataType::Null => value,
                other => cast(value, other.clone()),
            };
            typed.alias(field.name())
        })
        .collect();
    let plan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(text), None)?
        .project(columns)?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
