//! Tables and settings, without a cluster.

use std::fs;

use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;

use super::{FileOptions, SqlOptions, context, create_external_table, register_table};
use crate::QueryError;

fn session() -> SessionContext {
    context(&SqlOptions::default(), 3).expect("known settings")
}

async fn rows(context: &SessionContext, sql: &str) -> String {
    let batches = context.sql(sql).await.expect(sql).collect().await.expect(sql);
    pretty_format_batches(&batches).expect("prints").to_string()
}

async fn create(context: &SessionContext, sql: &str) -> Result<(), QueryError> {
    match context.state().create_logical_plan(sql).await.expect(sql) {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(statement)) => {
            create_external_table(context, &statement).await
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_null_marker_is_no_value_in_columns_of_every_type() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.csv");
    let text = "i,f,s,d\n1,NA,NA,2013-01-01\nNA,2.5,NATO,NA\n,,,\n3,1e3,x,2013-01-02\n";
    fs::write(&path, text).expect("writes");
    let context = session();
    let options = FileOptions { null: Some("NA".to_owned()), ..FileOptions::default() };
    register_table(&context, "t", &path.display().to_string(), &options).await.expect("registers");
    let schema = context.table("t").await.expect("exists").schema().as_arrow().clone();
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int64, DataType::Float64, DataType::Utf8, DataType::Date32]);
    let counts = rows(&context, "SELECT count(*) n, count(i) i, sum(i) si, count(f) f, count(s) s, count(d) d FROM t").await;
    assert!(counts.contains("| 4 | 2 | 4  | 2 | 2 | 2 |"), "{counts}");
}

#[tokio::test]
async fn a_marker_with_special_characters_is_taken_as_it_is_written() {
    let pattern = super::null_marker::pattern("\\N.");
    assert_eq!(pattern, "^(?:\\\\N\\.)?$");
}

#[tokio::test]
async fn create_external_table_takes_csv_options() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.txt");
    fs::write(&path, "1|a\n-|b\n").expect("writes");
    let context = session();
    let sql = format!(
        "CREATE EXTERNAL TABLE t (id INT, name TEXT) STORED AS CSV LOCATION '{}' \
         OPTIONS ('delimiter' '|', 'format.has_header' 'false', 'null_value' '-')",
        path.display()
    );
    create(&context, &sql).await.expect("creates");
    assert!(rows(&context, "SELECT count(id), count(*) FROM t").await.contains("| 1         | 2        |"));
    let again = create(&context, &sql).await.expect_err("it exists").to_string();
    assert!(again.contains("OR REPLACE"), "{again}");
    let unknown = sql.replace("'delimiter'", "'delimitre'").replace("TABLE t ", "TABLE u ");
    assert!(create(&context, &unknown).await.expect_err("unknown").to_string().contains("delimitre"));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("broken.parquet"), "this is no parquet").expect("writes");
    fs::write(at("ragged.csv"), "a,b\n1,2\n1,2,3\n").expect("writes");
    fs::write(at("empty.csv"), "").expect("writes");
    fs::write(at("notes.md"), "#").expect("writes");
    let context = session();
    for (location, expected) in [
        (at("missing.csv"), "no such file"),
        (at("*.orc"), "no Parquet or CSV files"),
        (at("broken.parquet"), "whole Parquet file"),
        (at("ragged.csv"), "as many fields"),
        (at("empty.csv"), "no files with columns"),
        (at("notes.md"), "neither .parquet nor .csv"),
        ("s3://bucket/x.parquet".to_owned(), "every worker sees"),
    ] {
        let result = register_table(&context, "t", &location, &FileOptions::default()).await;
        let text = result.expect_err(expected).to_string();
        assert!(text.contains(expected) && text.contains(&location), "{text}");
    }
}
