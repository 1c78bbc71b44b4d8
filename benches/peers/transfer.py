"""Partitions that one worker holds, read by tasks of another, on transload and Dask, side by side in one run, taking turns. Prints a Markdown table.

Installs Dask and numpy from PyPI into an environment of its own (--venv) unless they are there. Needs `transload` in --binaries:

    cargo build --release -p transload --bins
    python3 benches/peers/transfer.py
"""

import argparse
import pathlib
import statistics
import sys

from run import HERE, ROOT, answer, environment


def transload(options, transport):
    command = [options.binaries / "transload", "bench", "transfer", "--transport", transport, "--json"]
    of = ["--partitions", options.partitions, "--size", options.size, "--runs", options.runs]
    return answer([*command, *of])["bytes_per_s"]


def fetches(options, transport):
    """The most that the transport gives: fetches without tasks."""
    command = [options.binaries / "transload", "bench", "transport", "--transport", transport, "--json"]
    of = ["--sizes", options.size, "--bytes", options.partitions * options.size]
    return answer([*command, *of])["bandwidth_bytes_per_s"]


def dask(options, python):
    of = ["--partitions", options.partitions, "--size", options.size, "--runs", options.runs]
    return answer([python, HERE / "dask_transfer.py", *of])["bytes_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--venv", type=pathlib.Path, default=HERE / ".venv")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; medians count")
    parser.add_argument("--partitions", type=int, default=256)
    parser.add_argument("--size", type=int, default=8 << 20, help="bytes of each")
    parser.add_argument("--runs", type=int, default=3, help="in each turn; its median counts")
    parser.add_argument("--transports", nargs="+", default=["tcp", "ucx"])
    options = parser.parse_args()
    python = environment(options.venv)
    engines = {"Dask, tcp": lambda: dask(options, python)}
    for transport in options.transports:
        engines[f"transload, {transport}"] = lambda transport=transport: transload(options, transport)
        engines[f"transload, {transport}, fetches alone"] = lambda transport=transport: fetches(options, transport)
    turns = {name: [] for name in engines}
    for number in range(options.rounds):
        for name, run in engines.items():
            turns[name].append(run())
            print(f"round {number + 1}, {name}: {turns[name][-1] / 2**30:.2f} GiB/s", file=sys.stderr)
    rates = {name: statistics.median(rates) for name, rates in turns.items()}
    print("| | GiB/s | ratio to Dask |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate / 2**30:.2f} | {rate / rates['Dask, tcp']:.1f} |")


if __name__ == "__main__":
    main()
