#!/usr/bin/env python3
"""Times queries side by side: transload, DataFusion alone, DuckDB and Dask, each with two threads, on the same files.

Every engine is a process that stays up with its tables registered. For each query the engines take turns, run by run, so
that whatever else the machine does meets them all; the first turn of each is not counted. Times are from the query's text to
its last row in the client. The total is the sum of the medians of the queries that all engines answered.

Build first: `cargo build --release --bin transload -p transload -p transload-benches --bins`. Needs `requirements.txt`.
Dask has no decimals, so `--engines …,dask` needs `--floats`, which turns decimals into doubles for all engines.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import tpch
from cluster import Cluster
from compare import Answer, difference


class Server:
    """An engine in a process of ours that answers paths with JSON lines."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def run(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"], answer["rows"]

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended with exit code {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


class Transload(Server):
    """One worker process with two slots, its scheduler, and one client session."""

    def __init__(self, options, data):
        self.cluster = Cluster(options.binary, workers=1, slots=options.threads, memory=options.memory)
        self.cluster.__enter__()
        try:
            client = options.binary.with_name("transload-sql")
            super().__init__([client, "--data", data, "--connect", self.cluster.address])
        except BaseException:
            self.cluster.__exit__()
            raise

    def close(self):
        try:
            super().close()
        finally:
            self.cluster.__exit__()


class DuckDb:
    def __init__(self, options, data):
        self.connection = tpch.duckdb_over(data, options.threads)

    def run(self, path):
        started = time.perf_counter()
        rows = self.connection.execute(tpch.text_of(path)).fetchall()
        return time.perf_counter() - started, len(rows)

    def close(self):
        self.connection.close()


class Dask:
    """Two worker processes with one thread each; only the queries that `dask_queries.py` has."""

    def __init__(self, options, data):
        import dask_queries
        from dask.distributed import Client, LocalCluster

        self.queries, self.data = dask_queries.QUERIES, data
        self.cluster = LocalCluster(n_workers=options.threads, threads_per_worker=1, dashboard_address=None)
        self.client = Client(self.cluster)
        self.reference = tpch.duckdb_over(data, options.threads)

    def run(self, path):
        query = self.queries.get(path.stem)
        if query is None:
            raise RuntimeError("not written for Dask")
        started = time.perf_counter()
        frame = query(self.data)
        seconds = time.perf_counter() - started
        text = tpch.text_of(path)
        rows = [tuple(row) for row in frame.to_numpy(dtype=object)]
        wrong = difference(text, Answer(frame.columns, rows), Answer.of_duckdb(self.reference, text))
        if wrong:
            raise RuntimeError(f"wrong answer: {wrong}")
        return seconds, len(rows)

    def close(self):
        self.client.close()
        self.cluster.close()


ENGINES = {
    "transload": Transload,
    "datafusion": lambda options, data: Server(
        [options.binary.with_name("plain-datafusion"), "--data", data, "--partitions", options.threads]
    ),
    "duckdb": DuckDb,
    "dask": Dask,
}


def with_floats(data, scratch):
    """A copy of the tables with doubles for decimals, in row groups as in the original."""
    import duckdb

    folder = pathlib.Path(scratch) / "floats"
    folder.mkdir()
    connection = duckdb.connect()
    for path in sorted(data.iterdir()):
        files = path / "*.parquet" if path.is_dir() else path
        table = f"read_parquet('{files}')"
        columns = connection.execute(f"describe select * from {table}").fetchall()
        casts = [
            f"cast({name} as double) as {name}" if kind.startswith("DECIMAL") else name for name, kind, *_ in columns
        ]
        target = folder / f"{path.stem}.parquet"
        options = "(format parquet, compression snappy, row_group_size 250000)"
        connection.execute(f"copy (select {', '.join(casts)} from {table}) to '{target}' {options}")
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tpch.add_options(parser, scale=1)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each query on each engine")
    parser.add_argument("--threads", type=int, default=2, help="threads, slots or partitions of each engine")
    parser.add_argument("--engines", default="transload,datafusion,duckdb", help="the first two are compared")
    parser.add_argument("--floats", action="store_true", help="turn decimals into doubles first")
    parser.add_argument("--json", type=pathlib.Path, help="also write all times here")
    options = parser.parse_args()
    names = options.engines.split(",")
    if "dask" in names and not options.floats:
        parser.error("Dask has no decimals: add --floats")

    times, failures = {}, []
    with tempfile.TemporaryDirectory(prefix="transload-speed-") as scratch:
        data = tpch.data_folder(options, scratch)
        if options.floats:
            data = with_floats(data, scratch)
        engines = {}
        try:
            for name in names:
                engines[name] = ENGINES[name](options, data)
            for query, path in tpch.query_files(options.queries):
                times[query] = measure(engines, query, path, options.runs, failures)
                show(query, names, times[query])
        finally:
            for engine in engines.values():
                engine.close()
    complete = [each for each in times.values() if len(each) == len(names)]
    totals = {name: [sum(statistics.median(each[name]) for each in complete)] for name in names}
    show(f"total of {len(complete)}", names, totals if complete else {})
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "runs": options.runs, "seconds": times}, indent=1))
    for failure in failures:
        print(f"error: {failure}")
    return 1 if failures else 0


def measure(engines, query, path, runs, failures):
    """Seconds of each counted run, by engine; an engine that fails is left out."""
    seconds = {name: [] for name in engines}
    rows = {}
    for turn in range(runs + 1):
        for name, engine in engines.items():
            if name not in seconds:
                continue
            try:
                taken, rows[name] = engine.run(path)
            except RuntimeError as error:
                failures.append(f"{query} on {name}: {error}")
                del seconds[name]
                continue
            if turn:
                seconds[name].append(taken)
    if len({rows[name] for name in seconds}) > 1:
        failures.append(f"{query}: engines disagree on the number of rows: {rows}")
    return seconds


def show(query, names, times):
    """One line: medians in seconds, and the ratio of the first engine to each other one."""
    medians = [statistics.median(times[name]) if times.get(name) else None for name in names]
    cells = [f"{name} {'failed' if median is None else f'{median:7.3f} s'}" for name, median in zip(names, medians)]
    ratios = [
        f"{names[0]}/{name} {medians[0] / median:5.2f}" for name, median in zip(names[1:], medians[1:]) if median and medians[0]
    ]
    print(f"{query:12} {'  '.join(cells)}   {'  '.join(ratios)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
