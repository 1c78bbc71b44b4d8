"""Tasks on HyperQueue: a server and two workers with one core each, as `hyperqueue.LocalCluster` starts them. Prints one JSON object.

Called by run.py, in the environment where HyperQueue is. A task of HyperQueue is a program: the smallest is /bin/true. What PyPI has is
the Python package with server and workers in it; the `hq` program, and its build with workers that run nothing, are not there.

Its client looks once a second whether a job has ended. So the latency of one task is taken twice: until the client says so, and
until the task runs, which it tells through a pipe of its own.
"""

import argparse
import importlib.metadata
import json
import os
import tempfile
import time

# A progress bar would be drawn otherwise.
os.environ["TQDM_DISABLE"] = "1"

from hyperqueue import Job, LocalCluster  # noqa: E402
from hyperqueue.cluster import WorkerConfig  # noqa: E402


def job_of(*programs):
    job = Job()
    for program in programs:
        job.program(program, stdout=None, stderr=None)
    return job


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--singles", type=int, required=True)
    options = parser.parse_args()
    with LocalCluster() as cluster, tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            cluster.start_worker(WorkerConfig(cores=1))
        client = cluster.client()
        client.wait_for_jobs([client.submit(job_of(["/bin/true"]))])

        job = job_of(*[["/bin/true"]] * options.tasks)
        started = time.perf_counter()
        client.wait_for_jobs([client.submit(job)])
        seconds = time.perf_counter() - started

        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe)
        ran = []
        for _ in range(options.singles):
            job = job_of(["/bin/sh", "-c", f"echo > {pipe}"])
            started = time.perf_counter()
            submitted = client.submit(job)
            with open(pipe) as end:
                end.read()
            ran.append(time.perf_counter() - started)
            client.wait_for_jobs([submitted])
        told = []
        for _ in range(3):
            started = time.perf_counter()
            client.wait_for_jobs([client.submit(job_of(["/bin/true"]))])
            told.append(time.perf_counter() - started)
    ran.sort()
    told.sort()
    print(
        json.dumps(
            {
                "version": importlib.metadata.version("hyperqueue"),
                "tasks": options.tasks,
                "micros_per_task": seconds * 1e6 / options.tasks,
                "single_millis": ran[len(ran) // 2] * 1e3,
                "single_millis_told_by_client": told[len(told) // 2] * 1e3,
            }
        )
    )


if __name__ == "__main__":
    main()
