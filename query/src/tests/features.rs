//! What SQL has beyond TPC-H, on small tables with nulls and keys without partners.

use std::fs;

use super::data;
use super::oracle::{block_on, compare, planned, planner, run, shown, try_run};
use crate::session::FileOptions;

#[test]
fn everything_gives_datafusions_answer() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        for sql in QUERIES {
            compare(&planner, sql).await;
        }
        run(
            &planner,
            "SET datafusion.optimizer.hash_join_single_partition_threshold = 0",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.hash_join_single_partition_threshold_rows = 0",
        )
        .await;
        for sql in QUERIES {
            compare(&planner, sql).await;
        }
        run(
            &planner,
            "SET datafusion.optimizer.prefer_hash_join = false",
        )
        .await;
        run(
            &planner,
            "SET datafusion.optimizer.prefer_existing_sort = true",
        )
        .await;
        // DataFusion's full sort-merge join loses the columns of its filter (55.2.0), with us and alone.
        let sound = |sql: &&&str| !sql.contains("FULL JOIN b ON a.id = b.id");
        for sql in QUERIES.iter().filter(sound) {
            compare(&planner, sql).await;
        }
    });
}

pub(super) const QUERIES: &[&str] = &[
    // Nulls.
    "SELECT count(*), count(id), count(grp), sum(val), min(grp), max(val) FROM a",
    "SELECT grp, count(*), sum(val) FROM a GROUP BY grp",
    "SELECT * FROM a WHERE grp IS NULL AND id > 4000",
    "SELECT id IS NULL, count(*) FROM a GROUP BY 1",
    // Joins of every kind; keys are null, repeated or without partners.
    "SELECT count(*), sum(a.val) FROM a JOIN b ON a.id = b.id",
    "SELECT a.id, b.val FROM a LEFT JOIN b ON a.id = b.id AND b.val > 1000 WHERE a.val < 40",
    "SELECT a.id, b.val FROM a RIGHT JOIN b ON a.id = b.id AND a.val > 1000 WHERE b.val < 40",
    "SELECT count(*), count(a.id), count(b.id) FROM a FULL JOIN b ON a.id = b.id AND a.val < b.val",
    "SELECT count(*) FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.id = a.id AND b.val > 500)",
    "SELECT count(*) FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.id = a.id)",
    "SELECT count(*) FROM a WHERE id IN (SELECT id FROM b WHERE val < 300)",
    "SELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM b WHERE id IS NOT NULL AND val < 300)",
    "SELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM b WHERE val < 300)",
    "SELECT count(*) FROM a WHERE id IN (SELECT id FROM b WHERE val < 100) OR val > 2900",
    "SELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM b WHERE val < 100) OR val > 2900",
    "SELECT count(*) FROM a JOIN b ON a.val < b.val AND a.id < 20 AND b.id < 20",
    "SELECT a.id, b.id FROM a LEFT JOIN b ON a.val > b.val + 1000 AND b.id < 9 WHERE a.id < 12",
    "SELECT count(*), count(a.id), count(b.id) FROM (SELECT * FROM a WHERE id < 30) a FULL JOIN (SELECT * FROM b WHERE id < 40) b ON a.val < b.val",
    "SELECT count(*) FROM (SELECT * FROM a WHERE id < 30) a CROSS JOIN (SELECT * FROM b WHERE id < 40) b",
    "SELECT a.grp, count(*) FROM a JOIN b USING (grp) WHERE a.id < 50 AND b.id < 50 GROUP BY a.grp",
    "SELECT x.grp, y.grp, count(*) FROM a x JOIN a y ON x.id = y.id JOIN b z ON z.id = x.id GROUP BY 1, 2",
    // Aggregation in all its forms.
    "SELECT count(DISTINCT grp), count(DISTINCT id), avg(val), stddev(val), median(val) FROM a",
    "SELECT grp, count(DISTINCT id), approx_distinct(id) > 0 FROM a GROUP BY grp",
    "SELECT grp, id % 3, sum(val) FROM a GROUP BY GROUPING SETS ((grp), (id % 3), ())",
    "SELECT grp, id % 3, sum(val), grouping(grp) FROM a GROUP BY ROLLUP (grp, id % 3)",
    "SELECT grp, id % 2, count(*) FROM a GROUP BY CUBE (grp, id % 2)",
    "SELECT grp, array_agg(id ORDER BY id, val) FROM a WHERE id < 60 GROUP BY grp",
    "SELECT string_agg(grp, ',' ORDER BY grp, id) FROM a WHERE id < 9",
    "SELECT grp, sum(val) FILTER (WHERE id > 100) FROM a GROUP BY grp HAVING count(*) > 800",
    "SELECT DISTINCT grp, id % 5 FROM a",
    "SELECT DISTINCT grp FROM a ORDER BY grp NULLS FIRST",
    "SELECT first_value(id ORDER BY val, id), last_value(id ORDER BY val, id) FROM a WHERE id IS NOT NULL AND val IS NOT NULL",
    // Windows.
    "SELECT id, val, row_number() OVER (PARTITION BY grp ORDER BY val, id) AS n FROM a WHERE id < 300",
    "SELECT id, sum(val) OVER (PARTITION BY grp ORDER BY val, id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM a WHERE id < 300",
    "SELECT id, rank() OVER (ORDER BY val, id), lag(val) OVER (ORDER BY val, id) FROM a WHERE id < 300",
    "SELECT grp, max(n) FROM (SELECT grp, dense_rank() OVER (PARTITION BY grp ORDER BY id) AS n FROM a) GROUP BY grp",
    "SELECT id, val FROM (SELECT id, val, grp, row_number() OVER (PARTITION BY grp ORDER BY val DESC, id) AS n FROM a) WHERE n <= 2",
    "SELECT id, avg(val) OVER () FROM a WHERE id < 20",
    // Sorting and limits.
    "SELECT * FROM a ORDER BY val DESC NULLS LAST, id, grp LIMIT 17",
    "SELECT * FROM a ORDER BY id NULLS FIRST, val, grp LIMIT 10 OFFSET 2000",
    "SELECT grp, val FROM a ORDER BY grp, val, id",
    "SELECT id * 2 AS twice FROM a ORDER BY a.id, a.val LIMIT 5",
    "SELECT count(*) FROM (SELECT * FROM a LIMIT 100)",
    "SELECT count(*) FROM (SELECT * FROM a JOIN b ON a.id = b.id LIMIT 77)",
    "SELECT count(*) FROM (SELECT * FROM a LIMIT 100 OFFSET 11950)",
    "SELECT * FROM a LIMIT 0",
    // Unions and other set operations.
    "SELECT id FROM a WHERE id < 50 UNION ALL SELECT id FROM b WHERE id < 50",
    "SELECT id FROM a WHERE id < 500 UNION SELECT id FROM b WHERE id < 700",
    "SELECT grp, count(*) FROM (SELECT grp, id FROM a UNION ALL SELECT grp, id FROM b UNION ALL SELECT 'x', 1) GROUP BY grp",
    "SELECT id FROM a INTERSECT SELECT id FROM b",
    "SELECT id FROM a EXCEPT SELECT id FROM b WHERE val < 1000",
    "SELECT id FROM a WHERE id < 9 UNION ALL SELECT id FROM b WHERE id < 9 ORDER BY id",
    "SELECT * FROM (SELECT grp, sum(val) FROM a GROUP BY grp UNION ALL SELECT grp, sum(val) FROM b GROUP BY grp)",
    "SELECT count(*) FROM (SELECT id FROM a UNION ALL SELECT id FROM b) x JOIN (SELECT id FROM b UNION ALL SELECT id FROM a) y ON x.id = y.id WHERE x.id < 100",
    // Subqueries.
    "SELECT id, val FROM a WHERE val > (SELECT avg(val) FROM b) * 1.5 AND id < 200",
    "SELECT id, (SELECT max(val) FROM b) - val FROM a WHERE id < 20",
    "SELECT (SELECT sum(val) FROM a), (SELECT count(*) FROM b), (SELECT max(id) FROM nothing)",
    "SELECT grp, sum(val) FROM a GROUP BY grp HAVING sum(val) > (SELECT sum(val) / 20 FROM a)",
    "SELECT id FROM a WHERE val > (SELECT avg(val) FROM b WHERE b.grp = a.grp) + 1000",
    "SELECT count(*) FROM a WHERE val > (SELECT avg(val) FROM b WHERE id > (SELECT avg(id) FROM a))",
    "WITH t AS (SELECT grp, avg(val) v FROM a GROUP BY grp) SELECT x.grp FROM t x JOIN t y ON x.v < y.v GROUP BY x.grp HAVING count(*) > 5",
    // Recursion, values, unnesting.
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 20) SELECT count(*), sum(n) FROM t JOIN a ON a.id = t.n",
    "SELECT a.id, v.name FROM a JOIN (VALUES (1, 'one'), (2, 'two'), (3, 'three')) AS v(id, name) ON a.id = v.id",
    "SELECT grp, unnest(array_agg(id ORDER BY id)) AS id FROM a WHERE id < 30 GROUP BY grp",
    "SELECT count(*) FROM a JOIN generate_series(1, 100) AS s(n) ON a.id = s.n",
    // Nothing.
    "SELECT * FROM nothing",
    "SELECT count(*), sum(val) FROM nothing",
    "SELECT grp, count(*) FROM nothing GROUP BY grp",
    "SELECT count(*) FROM a LEFT JOIN nothing ON a.id = nothing.id",
    "SELECT count(*) FROM nothing LEFT JOIN a ON a.id = nothing.id",
    "SELECT count(*) FROM a WHERE id NOT IN (SELECT id FROM nothing)",
    "SELECT * FROM a WHERE 1 = 0",
    "SELECT count(*) FROM a",
    "SELECT 1 FROM a WHERE id < 10",
];

#[test]
fn a_null_marker_means_null_in_every_column() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flights.csv");
        let mut text = "origin,delay,hour,empty\n".to_owned();
        for row in 0..3_000 {
            let delay = if row % 10 == 0 {
                "NA".to_owned()
            } else {
                (row % 60).to_string()
            };
            let origin = if row % 100 == 7 { "NA" } else { "EWR" };
            text.push_str(&format!("{origin},{delay},{}.5,NA\n", row % 24));
        }
        fs::write(&path, text).expect("writes");
        let planner = planner().await;
        let options = FileOptions {
            null: Some("NA".to_owned()),
            ..FileOptions::default()
        };
        let path = path.to_str().expect("UTF-8").to_owned();
        planner
            .register_table("Flights", &path, &options)
            .await
            .expect("registers");
        let sql = "SELECT count(*), count(origin), count(delay), count(empty), sum(delay), max(hour) FROM flights";
        let rows = compare(&planner, sql).await;
        assert_eq!(rows, [["3000", "2970", "2700", "0", "81000", "23.5"]]);
        let types = shown(&run(&planner, "DESCRIBE flights").await);
        let types: Vec<_> = types.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(types, ["Utf8", "Int64", "Float64", "Utf8"]);
        let plan = planned(
            &planner,
            "SELECT origin, avg(delay) FROM flights GROUP BY origin",
        )
        .await;
        assert!(
            plan.graph().layers[0].tasks > 1,
            "a CSV file is read in ranges\n{plan}"
        );

        let create = format!(
            "CREATE EXTERNAL TABLE again STORED AS CSV LOCATION '{path}' \
             OPTIONS ('format.has_header' 'true', 'format.null_value' 'NA')"
        );
        run(&planner, &create).await;
        assert_eq!(
            shown(&run(&planner, &sql.replace("flights", "again")).await),
            rows
        );
        let declared = format!(
            "CREATE EXTERNAL TABLE typed (o VARCHAR, d DOUBLE, h DOUBLE, e INT) STORED AS CSV LOCATION '{path}' \
             OPTIONS ('has_header' 'true', 'null' 'NA')"
        );
        run(&planner, &declared).await;
        assert_eq!(
            shown(&run(&planner, "SELECT sum(d), count(e) FROM typed").await),
            [["81000.0", "0"]]
        );
        let error = try_run(&planner, &declared)
            .await
            .expect_err("it is there")
            .to_string();
        assert!(error.contains("CREATE OR REPLACE"), "{error}");
    });
}

#[test]
fn delimiters_headers_folders_and_patterns_are_heeded() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        for part in 0..3 {
            fs::write(
                folder.path().join(format!("p{part}.csv")),
                format!("1;x\n{part};y\n"),
            )
            .expect("writes");
        }
        let planner = planner().await;
        let options = FileOptions {
            delimiter: b';',
            header: false,
            ..FileOptions::default()
        };
        let place = folder.path().to_str().expect("UTF-8").to_owned();
        planner
            .register_table("whole", &place, &options)
            .await
            .expect("a folder");
        planner
            .register_table("some", &format!("{place}/p[12].csv"), &options)
            .await
            .expect("a pattern");
        assert_eq!(
            shown(&run(&planner, "SELECT count(*), sum(column_1) FROM whole").await),
            [["6", "6"]]
        );
        assert_eq!(
            shown(&run(&planner, "SELECT count(*), sum(column_1) FROM some").await),
            [["4", "5"]]
        );
        let error = planner
            .register_table("none", &format!("{place}/q*.csv"), &options)
            .await;
        let error = error.expect_err("no file").to_string();
        assert!(
            error.contains("q*.csv: no file matches this pattern"),
            "{error}"
        );
    });
}

#[test]
fn statements_without_files_run_in_this_process() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        assert_eq!(shown(&run(&planner, "SELECT 1 + 1").await), [["2"]]);
        let tables = shown(&run(&planner, "SHOW TABLES").await);
        assert!(tables.iter().any(|row| row[2] == "a"), "{tables:?}");
        run(
            &planner,
            "CREATE TABLE kept AS SELECT id, val FROM a WHERE id < 100",
        )
        .await;
        compare(
            &planner,
            "SELECT count(*), sum(b.val) FROM kept JOIN b ON kept.id = b.id",
        )
        .await;
        run(
            &planner,
            "CREATE VIEW seen AS SELECT grp, sum(val) AS s FROM a GROUP BY grp",
        )
        .await;
        compare(&planner, "SELECT count(*), sum(s) FROM seen").await;
        run(&planner, "DROP TABLE kept").await;
        assert!(try_run(&planner, "SELECT * FROM kept").await.is_err());
    });
}

#[test]
fn results_are_written_by_one_task() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        let target = folder.path().join("out.parquet");
        let sql = format!(
            "COPY (SELECT id, val FROM a WHERE id < 100) TO '{}'",
            target.display()
        );
        let plan = planned(&planner, &sql).await;
        assert_eq!(
            plan.graph()
                .layers
                .last()
                .map(|layer| (layer.tasks, layer.retries)),
            Some((1, 0))
        );
        run(&planner, &sql).await;
        data::register(&planner, "out", &target).await;
        let want = shown(&run(&planner, "SELECT count(*), sum(val) FROM a WHERE id < 100").await);
        assert_eq!(
            shown(&run(&planner, "SELECT count(*), sum(val) FROM out").await),
            want
        );
    });
}

#[test]
fn mistakes_are_explained() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = planner().await;
        data::small(&planner, folder.path()).await;
        for (sql, want) in [
            ("SELEC 1", "cannot parse the statement"),
            ("SELECT 1; SELECT 2", "one statement at a time"),
            (
                "SELECT * FROM aa",
                "there is no table `aa`; did you mean `a`?",
            ),
            (
                "SELECT gpr FROM a",
                "there is no column `gpr`; did you mean `grp`?",
            ),
            ("SELECT id + grp FROM a WHERE nosuch(id)", "nosuch"),
            ("SELECT sum(CAST(grp AS INT)) FROM a", "Cannot cast"),
            (
                "SELECT count(*) / (count(*) - 12000) FROM a",
                "Divide by zero",
            ),
        ] {
            let error = try_run(&planner, sql).await.expect_err(sql).to_string();
            assert!(error.contains(want), "{sql}: {error}");
        }
        let broken = folder.path().join("broken.parquet");
        fs::write(&broken, "no parquet at all").expect("writes");
        let error = planner
            .register_table(
                "broken",
                broken.to_str().expect("UTF-8"),
                &FileOptions::default(),
            )
            .await
            .expect_err("it is broken")
            .to_string();
        assert!(
            error.contains("broken.parquet: cannot infer the columns"),
            "{error}"
        );
        fs::remove_file(folder.path().join("b.parquet")).expect("removes");
        let error = try_run(&planner, "SELECT sum(val) FROM b")
            .await
            .expect_err("it is gone")
            .to_string();
        assert!(error.contains("b.parquet"), "{error}");
    });
}
