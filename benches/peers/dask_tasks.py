"""No-op tasks on Dask: a scheduler process, two worker processes with one thread each. Prints one JSON object.

Called by run.py, in the environment where Dask is. The argument --saturation is Dask's `distributed.scheduler.worker-saturation`.
"""

import argparse
import json
import logging
import os
import time

import dask
import distributed
from distributed import Client
from distributed.deploy.subprocess import SubprocessCluster


def noop(_=None):
    return None


def merge(parts):
    return len(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--singles", type=int, required=True)
    parser.add_argument("--saturation", choices=["default", "inf"], required=True)
    options = parser.parse_args()
    if options.saturation == "inf":
        # In the environment, where the scheduler process finds it.
        os.environ["DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION"] = "inf"
        dask.config.refresh()
    # The scheduler is a process of its own: beside the client it would share one Python interpreter with it.
    with SubprocessCluster(
        n_workers=2,
        scheduler_kwargs={"dashboard": False},
        worker_kwargs={"nthreads": 1, "dashboard": False},
        silence_logs=logging.ERROR,
    ) as cluster, Client(cluster) as client:
        client.get({f"warm-{i}": (noop, i) for i in range(100)}, [f"warm-{i}" for i in range(100)])
        times = []
        for run in range(3):
            graph = {f"many-{run}-{i}": (noop, i) for i in range(options.tasks)}
            graph["merge"] = (merge, list(graph))
            started = time.perf_counter()
            got = client.get(graph, "merge")
            times.append(time.perf_counter() - started)
            assert got == options.tasks, got
        seconds = sorted(times)[1]
        singles = []
        for _ in range(options.singles):
            started = time.perf_counter()
            client.submit(noop, pure=False).result()
            singles.append(time.perf_counter() - started)
    singles.sort()
    print(
        json.dumps(
            {
                "version": distributed.__version__,
                "tasks": options.tasks + 1,
                "micros_per_task": seconds * 1e6 / (options.tasks + 1),
                "single_millis": singles[len(singles) // 2] * 1e3,
            }
        )
    )


if __name__ == "__main__":
    main()
