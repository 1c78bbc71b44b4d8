"""numpy arrays that one Dask worker holds, read by tasks of another. Prints one JSON object.

Called by transfer.py, in the environment where Dask is. Two worker processes with one thread each, over Dask's own TCP. The tasks that read
do nothing, and memory is not limited, so that nothing is spilled.
"""

import argparse
import json
import logging
import time

import numpy
from distributed import Client, wait
from distributed.deploy.subprocess import SubprocessCluster


def make(number, size):
    return numpy.full(size, number % 251, dtype=numpy.uint8)


def read(array):
    return len(array)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="bytes of each array")
    parser.add_argument("--runs", type=int, required=True)
    options = parser.parse_args()
    with SubprocessCluster(
        n_workers=2,
        scheduler_kwargs={"dashboard": False},
        worker_kwargs={"nthreads": 1, "dashboard": False, "memory_limit": 0},
        silence_logs=logging.ERROR,
    ) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        holder, reader = sorted(client.scheduler_info(n_workers=-1)["workers"])
        held = client.map(make, range(options.partitions), size=options.size, workers=[holder], pure=False)
        wait(held)
        walls = []
        # One more, in which connections and memory grow to their size.
        for run in range(options.runs + 1):
            started = time.perf_counter()
            lengths = client.map(read, held, workers=[reader], pure=False)
            assert sum(client.gather(lengths)) == options.partitions * options.size
            if run > 0:
                walls.append(time.perf_counter() - started)
            # The reader's copies, which it would read again.
            client.run(drop_copies, [future.key for future in held], workers=[reader])
            del lengths
    walls.sort()
    wall = walls[len(walls) // 2]
    print(json.dumps({"wall_s": wall, "bytes_per_s": options.partitions * options.size / wall}))


def drop_copies(keys, dask_worker):
    """Makes a worker forget arrays that it has fetched: the scheduler hears of it and asks for them again."""
    from distributed.worker_state_machine import RemoveReplicasEvent

    dask_worker.handle_stimulus(RemoveReplicasEvent(keys=keys, stimulus_id="measurement"))


if __name__ == "__main__":
    main()
