"""Compares two answers to one query row by row. Knows values and their types, not where they came from.

Equal means: integers, texts, dates and decimals exactly; floats within 1e-9 of their size; and, where one engine answers
with a decimal and the other with a float, within 1e-9 or one unit in the decimal's last place, since that is all that the
decimal says.
"""

import datetime
import decimal
import math
import re

RELATIVE = 1e-9


class Answer:
    """Rows in the order in which an engine gave them, and the names of their columns."""

    def __init__(self, columns, rows):
        self.columns = list(columns)
        self.rows = [tuple(normal(value) for value in row) for row in rows]

    @classmethod
    def of_duckdb(cls, connection, query, parameters=None):
        cursor = connection.execute(query, parameters or [])
        return cls([column[0] for column in cursor.description], cursor.fetchall())


def normal(value):
    """One form for values that engines type differently: midnight timestamps are dates, whole decimals are integers."""
    if isinstance(value, datetime.datetime):
        plain = value.replace(tzinfo=None)
        return plain.date() if plain.time() == datetime.time() else plain
    if isinstance(value, bool):
        return value
    if isinstance(value, decimal.Decimal) and not value.is_finite():
        return float(value)
    return value


def same(ours, theirs):
    """Whether two values are equal in the sense of this module."""
    if ours is None or theirs is None:
        return ours is theirs
    numbers = (int, float, decimal.Decimal)
    if isinstance(ours, numbers) and isinstance(theirs, numbers):
        if not isinstance(ours, float) and not isinstance(theirs, float):
            return decimal.Decimal(ours) == decimal.Decimal(theirs)
        a, b = float(ours), float(theirs)
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        unit = max((last_place(value) for value in (ours, theirs)), default=0.0)
        return abs(a - b) <= max(RELATIVE * max(abs(a), abs(b)), unit)
    return type(ours) is type(theirs) and ours == theirs


def last_place(value):
    """One unit in the last place of a decimal; 0 for a number that has none."""
    if not isinstance(value, decimal.Decimal):
        return 0.0
    exponent = value.as_tuple().exponent
    return 10.0**exponent if exponent < 0 else 0.0


def sort_key(row):
    """Orders rows alike on both sides: exact values first, inexact ones rounded and last."""
    exact = tuple((value is None, str(value)) for value in row if not isinstance(value, (float, decimal.Decimal)))
    inexact = tuple(float(f"{float(value):.6e}") for value in row if isinstance(value, (float, decimal.Decimal)))
    return exact, inexact


def order_columns(query, columns):
    """Positions of the columns that the query orders its rows by; empty where it does not order them.

    A key that is no plain output column ends the list: beyond it, ties are all that this module can see."""
    plain = re.sub(r"--[^\n]*", " ", query).lower()
    found = list(re.finditer(r"\border\s+by\b", plain))
    if not found:
        return []
    tail = plain[found[-1].end() :]
    # An ORDER BY inside brackets orders something else than the rows.
    depth = 0
    for character in tail:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            return []
    tail = re.split(r"\blimit\b|;", tail)[0]
    names = [name.lower() for name in columns]
    positions = []
    for key in tail.split(","):
        key = re.sub(r"\b(asc|desc|nulls|first|last)\b", " ", key).strip().split(".")[-1]
        if key.isdigit():
            positions.append(int(key) - 1)
        elif key in names:
            positions.append(names.index(key))
        else:
            break
    return positions


def difference(query, ours, theirs):
    """None where both answers are equal, else one sentence that shows the first difference."""
    if len(ours.columns) != len(theirs.columns):
        return f"{len(ours.columns)} columns {ours.columns} instead of {len(theirs.columns)} {theirs.columns}"
    if len(ours.rows) != len(theirs.rows):
        return f"{len(ours.rows)} rows instead of {len(theirs.rows)}"
    keys = order_columns(query, theirs.columns)
    for number, (a, b) in enumerate(zip(ours.rows, theirs.rows), start=1):
        for column in keys:
            if not same(a[column], b[column]):
                return f"row {number} is out of order: {theirs.columns[column]} is {a[column]!r}, not {b[column]!r}"
    a_sorted, b_sorted = ours.rows, theirs.rows
    if first_difference(a_sorted, b_sorted, theirs.columns):
        # Rows with equal keys, and rows of a query without an order, may come in any order.
        a_sorted, b_sorted = sorted(ours.rows, key=sort_key), sorted(theirs.rows, key=sort_key)
    return first_difference(a_sorted, b_sorted, theirs.columns)


def first_difference(ours, theirs, columns):
    for number, (a, b) in enumerate(zip(ours, theirs), start=1):
        for name, x, y in zip(columns, a, b):
            if not same(x, y):
                return f"row {number}, column {name}: {x!r} instead of {y!r}"
    return None
