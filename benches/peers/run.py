"""No-op tasks on transload, Dask and HyperQueue, side by side in one run, taking turns. Prints a Markdown table; --json writes all numbers.

Installs Dask and HyperQueue from PyPI into an environment of its own (--venv) unless they are there. Every engine has two workers with one
slot each, in processes of their own, and is started anew for each of its turns; starting is not counted. Needs `transload` in
--binaries:

    cargo build --release -p transload --bins
    python3 benches/peers/run.py
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def environment(folder):
    """The Python of an environment that has the requirements."""
    python = folder / "bin" / "python"
    probe = [python, "-c", "import distributed, hyperqueue, numpy"]
    if not python.exists() or subprocess.run(probe, capture_output=True).returncode != 0:
        print(f"installing Dask, HyperQueue and numpy into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
    return python


def answer(command):
    """The last line that a command prints, read as JSON."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        sys.exit(f"{command[0]} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return json.loads(lines[-1])


def transload(binaries, tasks, singles):
    command = [binaries / "transload", "bench", "tasks", "--workers", 2, "--slots", 1, "--json"]
    said = answer([*command, "--tasks", tasks, "--repeats", 3, "--singles", singles])
    return {
        "tasks": tasks + 1,
        "micros_per_task": said["merge"]["wall_us"],
        "cpu_micros_per_task": said["merge"]["workers_cpu_us"] + said["merge"]["own_cpu_us"],
        "chain_micros_per_task": said["chain"]["wall_us"],
        "single_millis": said["single"]["p50"],
        "single_millis_p99": said["single"]["p99"],
    }


def table(names, medians):
    ours = medians["transload"]
    rows = [
        "| | us per task | ratio to transload | one task, ms | ratio to transload |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        median = medians[name]
        per_task, single = median["micros_per_task"], median["single_millis"]
        rows.append(
            f"| {name} | {per_task:.1f} | {per_task / ours['micros_per_task']:.1f} "
            f"| {single:.2f} | {single / ours['single_millis']:.1f} |"
        )
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE / ".venv")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each engine; medians count")
    parser.add_argument("--tasks", type=int, default=100_000, help="no-op tasks on transload, and one that reads them all; three times a turn")
    parser.add_argument("--dask-tasks", type=int, default=10_000, help="the same on Dask")
    parser.add_argument("--hyperqueue-tasks", type=int, default=5_000, help="runs of /bin/true on HyperQueue")
    parser.add_argument("--singles", type=int, default=100, help="single tasks, one after another, on transload and Dask")
    parser.add_argument("--json", type=pathlib.Path, help="write every turn's numbers here")
    options = parser.parse_args()
    python = environment(options.venv)
    dask = [python, HERE / "dask_tasks.py", "--tasks", options.dask_tasks, "--singles", options.singles]
    hyperqueue = [python, HERE / "hyperqueue_tasks.py", "--tasks", options.hyperqueue_tasks, "--singles", 5]
    engines = {
        "transload": lambda: transload(options.binaries, options.tasks, options.singles),
        "Dask, worker-saturation inf": lambda: answer([*dask, "--saturation", "inf"]),
        "Dask, default settings": lambda: answer([*dask, "--saturation", "default"]),
        "HyperQueue, /bin/true": lambda: answer(hyperqueue),
    }
    turns = {name: [] for name in engines}
    for number in range(options.rounds):
        for name, run in engines.items():
            turns[name].append(run())
            print(f"round {number + 1}, {name}: {turns[name][-1]}", file=sys.stderr)
    medians = {
        name: {
            key: statistics.median(turn[key] for turn in of_engine)
            for key in of_engine[0]
            if isinstance(of_engine[0][key], (int, float))
        }
        for name, of_engine in turns.items()
    }
    if options.json:
        options.json.write_text(json.dumps({"medians": medians, "turns": turns}, indent=2) + "\n")
    print(table(list(engines), medians))


if __name__ == "__main__":
    main()
