#!/usr/bin/env python3
"""Runs the 22 queries derived from TPC-H on a cluster and in DuckDB over the same files, and compares row by row.

Exits with 1 where one answer differs or one query fails, and says which. Needs `duckdb` from PyPI.
"""

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import tpch
from cluster import Cluster, ClusterError
from compare import Answer, difference


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tpch.add_options(parser, scale=0.1)
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--slots", type=int, default=1, help="slots of each")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one query")
    parser.add_argument("--expect-spilling", action="store_true", help="fail where no worker wrote a partition to disk")
    options = parser.parse_args()

    failed = 0
    with tempfile.TemporaryDirectory(prefix="transload-check-") as scratch:
        data = tpch.data_folder(options, scratch)
        duckdb = tpch.duckdb_over(data)
        files = tpch.query_files(options.queries)
        with Cluster(options.binary, options.workers, options.slots, options.memory) as cluster:
            print(f"{'query':6} {'rows':>8} {'transload':>10} {'duckdb':>10}  verdict")
            for name, path in files:
                started = time.monotonic()
                expected = Answer.of_duckdb(duckdb, tpch.text_of(path))
                duckdb_seconds = time.monotonic() - started
                output = pathlib.Path(scratch) / f"{name}.parquet"
                seconds = float("nan")
                try:
                    seconds = cluster.query(path, data, output, timeout=options.timeout)
                    answer = Answer.of_duckdb(duckdb, f"select * from read_parquet('{output}')")
                    wrong = difference(tpch.text_of(path), answer, expected)
                except ClusterError as error:
                    wrong = str(error)
                failed += wrong is not None
                verdict = "equal" if wrong is None else f"DIFFERENT: {wrong}"
                print(f"{name:6} {len(expected.rows):8} {seconds:9.2f}s {duckdb_seconds:9.2f}s  {verdict}", flush=True)
            spilled = sum(worker["spilled_bytes"] for worker in cluster.info()["workers"])
    print(f"spilled by the workers: {spilled / 1e6:.1f} MB")
    if options.expect_spilling and not spilled:
        print("error: no worker spilled, so nothing was shown about spilling")
        failed += 1
    print(f"{len(files) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
