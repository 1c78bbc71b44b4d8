"""Starts scheduler and workers as processes of their own, as a person would by hand, and runs queries on them.

Knows the command line of `transload`, never what a query means.
"""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time


class ClusterError(Exception):
    """A process of the cluster did not do what it should; the text says which, and shows the end of its log."""


class Cluster:
    """A scheduler and some workers on this machine; a context manager that leaves nothing behind."""

    def __init__(self, binary, workers=3, slots=None, memory=None, environment=None):
        self.binary = str(binary)
        self.flags = []
        if slots:
            self.flags += ["--slots", str(slots)]
        if memory:
            self.flags += ["--memory", memory]
        self.count = workers
        self.environment = {**os.environ, **(environment or {})}
        self.workers = []
        self.started = 0

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="transload-bench-")
        self.root = pathlib.Path(self.folder.name)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        scheduler_file = self.root / "scheduler.json"
        self.scheduler = self._spawn("scheduler", ["scheduler", "--port", "0", "--scheduler-file", str(scheduler_file)])
        self._until(scheduler_file.exists, self.scheduler, "write its scheduler file")
        self.address = json.loads(scheduler_file.read_text())["address"]
        for _ in range(self.count):
            self.add_worker()
        self.wait_for_workers()

    def __exit__(self, *_):
        for process in [*self.workers, getattr(self, "scheduler", None)]:
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in [*self.workers, getattr(self, "scheduler", None)]:
            if process:
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.folder.cleanup()

    def add_worker(self):
        """Starts one more worker; `wait_for_workers` waits until it has joined."""
        name = f"worker-{self.started}"
        self.started += 1
        spill = ["--spill-dir", str(self.root / "spill")]
        self.workers.append(self._spawn(name, ["worker", self.address, "--name", name, *spill, *self.flags]))
        return self.workers[-1]

    def kill_worker(self, process):
        """`kill -9`, as a crash would."""
        process.kill()
        process.wait()
        self.workers.remove(process)

    def wait_for_workers(self):
        """Returns when every worker that runs has joined."""
        self._until(lambda: len(self.info()["workers"]) == len(self.workers), self.scheduler, "see all workers")

    def info(self):
        """The cluster as the scheduler sees it: what `transload cluster info --json` prints."""
        done = subprocess.run(
            [self.binary, "cluster", "info", self.address, "--json"],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
        )
        if done.returncode:
            raise ClusterError(f"cluster info: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def start_query(self, query_file, data, output, options=()):
        """A client process that runs one query over the tables in the folder `data` and writes its answer as Parquet."""
        command = [self.binary, "sql", str(query_file), "--connect", self.address, "--tables", str(data)]
        return subprocess.Popen(
            [*command, "--format", "parquet", "-o", str(output), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )

    def query(self, query_file, data, output, options=(), timeout=600):
        """Seconds that one query took, its client process included. Raises `ClusterError` where it failed."""
        started = time.monotonic()
        client = self.start_query(query_file, data, output, options)
        finish(client, timeout)
        return time.monotonic() - started

    def _spawn(self, name, arguments):
        log = open(self.root / f"{name}.log", "w")
        return subprocess.Popen(
            [self.binary, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )

    def _until(self, done, process, what):
        deadline = time.monotonic() + 60
        while not done():
            if process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(self.root.glob("*.log")))
                raise ClusterError(f"the scheduler did not {what}\n{logs}")
            time.sleep(0.05)


def finish(client, timeout=600):
    """Waits for a client process; raises `ClusterError` with what it said where it failed."""
    try:
        said, _ = client.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        raise ClusterError(f"no answer within {timeout} s") from None
    if client.returncode:
        raise ClusterError(f"exit code {client.returncode}: {said.strip()[-2000:]}")
