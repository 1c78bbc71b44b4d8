#!/usr/bin/env python3
"""Kills one of three workers with `kill -9` at a random moment of a query, again and again: the answer must stay right.

Each round: pick a query and a worker, start the query, wait a random part of the time that the query takes undisturbed,
kill, wait for the answer, compare it with DuckDB's, and replace the worker. A round whose query ended before the kill does
not count and is repeated. Prints its seed; `--seed` repeats the same choices. Needs `duckdb` from PyPI.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import tpch
from cluster import Cluster, ClusterError, finish
from compare import Answer, difference


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tpch.add_options(parser, scale=1)
    parser.add_argument("--rounds", type=int, default=10, help="kills in the middle of a query")
    parser.add_argument("--workers", type=int, default=3, help="worker processes")
    parser.add_argument("--slots", type=int, default=1, help="slots of each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    files = tpch.query_files(options.queries or [3, 5, 9, 18])
    print(f"seed {options.seed}")

    failed = rounds = tries = 0
    with tempfile.TemporaryDirectory(prefix="transload-kill-") as scratch:
        data = tpch.data_folder(options, scratch)
        duckdb = tpch.duckdb_over(data)
        output = pathlib.Path(scratch) / "answer.parquet"
        expected = {name: Answer.of_duckdb(duckdb, tpch.text_of(path)) for name, path in files}
        with Cluster(options.binary, options.workers, options.slots, options.memory) as cluster:
            for name, path in files:
                cluster.query(path, data, output)
            usual = {name: cluster.query(path, data, output) for name, path in files}
            while rounds < options.rounds and tries < 5 * options.rounds:
                tries += 1
                name, path = chance.choice(files)
                victim = chance.choice(cluster.workers)
                wait = chance.uniform(0.0, usual[name])
                output.unlink(missing_ok=True)
                started = time.monotonic()
                client = cluster.start_query(path, data, output)
                time.sleep(wait)
                in_time = client.poll() is None
                cluster.kill_worker(victim)
                try:
                    finish(client)
                    seconds = time.monotonic() - started
                    answer = Answer.of_duckdb(duckdb, f"select * from read_parquet('{output}')")
                    wrong = difference(tpch.text_of(path), answer, expected[name])
                except ClusterError as error:
                    seconds, wrong = time.monotonic() - started, str(error)
                rounds += in_time
                failed += wrong is not None
                print(
                    f"round {rounds:2}: {name}, killed after {wait:5.2f} of about {usual[name]:5.2f} s"
                    f"{'' if in_time else ' (too late, does not count)'}, answered after {seconds:5.2f} s:"
                    f" {'equal' if wrong is None else 'DIFFERENT: ' + wrong}",
                    flush=True,
                )
                cluster.add_worker()
                cluster.wait_for_workers()
    if rounds < options.rounds:
        print(f"error: only {rounds} of {options.rounds} kills hit a running query; use a larger --scale")
        failed += 1
    print(f"{rounds} kills in the middle of a query; {rounds - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
