"""What the TPC-H-derived measurements share: the queries, the data, and DuckDB over the same files."""

import pathlib
import subprocess

BENCHES = pathlib.Path(__file__).resolve().parents[1]
REPOSITORY = BENCHES.parent
QUERIES = REPOSITORY / "query" / "tests" / "tpch"


def add_options(parser, scale):
    """The options that every script has."""
    parser.add_argument("--binary", type=pathlib.Path, default=REPOSITORY / "target" / "release" / "transload")
    parser.add_argument("--scale", type=float, default=scale, help="TPC-H scale factor of the data that is made")
    parser.add_argument("--data", type=pathlib.Path, help="folder with the eight tables as Parquet; made when it is empty")
    parser.add_argument("--memory", help="budget of each worker, as in 2GiB")
    parser.add_argument("--queries", type=numbers, help="as in 1,3,5-9; all 22 by default")


def numbers(text):
    """`1,3,5-9` as a list of numbers."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def query_files(wanted):
    """Paths of the wanted queries, in order, as pairs with their names."""
    names = [f"q{number:02}" for number in wanted or range(1, 23)]
    return [(name, QUERIES / f"{name}.sql") for name in names]


def data_folder(options, scratch):
    """The folder with the tables, made by the program where it does not exist yet."""
    folder = options.data or pathlib.Path(scratch) / f"tpch-{options.scale:g}"
    if not folder.is_dir() or not any(folder.iterdir()):
        command = [options.binary, "data", "tpch", "--quiet", "--scale", f"{options.scale:g}", "--out", folder]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder


def duckdb_over(data, threads=2):
    """A DuckDB connection with a view for each table in the folder."""
    import duckdb

    connection = duckdb.connect(config={"threads": threads})
    for path in sorted(pathlib.Path(data).iterdir()):
        if path.is_dir() or path.suffix == ".parquet":
            files = path / "*.parquet" if path.is_dir() else path
            connection.execute(f"create view {path.stem} as select * from read_parquet('{files}')")
    return connection


def text_of(path):
    """A query without its semicolon."""
    return path.read_text().strip().rstrip(";")
