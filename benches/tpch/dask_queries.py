"""Five of the queries derived from TPC-H, written for Dask dataframe as its users would: columns chosen at the scan,
filters early, merges with the smaller side last. Each takes the folder with the tables and returns the answer as a pandas frame.

`speed.py` compares every answer with DuckDB's before it counts a time.
"""

import pathlib
from datetime import date

import dask.dataframe as dd


def table(data, name, columns):
    return dd.read_parquet(str(pathlib.Path(data) / f"{name}.parquet"), columns=columns)


def q01(data):
    names = ["quantity", "extendedprice", "discount", "tax", "returnflag", "linestatus", "shipdate"]
    items = table(data, "lineitem", [f"l_{name}" for name in names])
    items = items[items.l_shipdate <= date(1998, 9, 2)]
    items["disc_price"] = items.l_extendedprice * (1 - items.l_discount)
    items["charge"] = items.disc_price * (1 + items.l_tax)
    groups = items.groupby(["l_returnflag", "l_linestatus"])
    found = groups.agg(
        sum_qty=("l_quantity", "sum"),
        sum_base_price=("l_extendedprice", "sum"),
        sum_disc_price=("disc_price", "sum"),
        sum_charge=("charge", "sum"),
        avg_qty=("l_quantity", "mean"),
        avg_price=("l_extendedprice", "mean"),
        avg_disc=("l_discount", "mean"),
        count_order=("l_quantity", "count"),
    )
    return found.compute().reset_index().sort_values(["l_returnflag", "l_linestatus"])


def q03(data):
    customers = table(data, "customer", ["c_custkey", "c_mktsegment"])
    customers = customers[customers.c_mktsegment == "BUILDING"][["c_custkey"]]
    orders = table(data, "orders", ["o_orderkey", "o_custkey", "o_orderdate", "o_shippriority"])
    orders = orders[orders.o_orderdate < date(1995, 3, 15)]
    items = table(data, "lineitem", ["l_orderkey", "l_extendedprice", "l_discount", "l_shipdate"])
    items = items[items.l_shipdate > date(1995, 3, 15)]
    items["revenue"] = items.l_extendedprice * (1 - items.l_discount)
    joined = orders.merge(customers, left_on="o_custkey", right_on="c_custkey")
    joined = items[["l_orderkey", "revenue"]].merge(joined, left_on="l_orderkey", right_on="o_orderkey")
    found = joined.groupby(["l_orderkey", "o_orderdate", "o_shippriority"]).revenue.sum().compute().reset_index()
    found = found.sort_values(["revenue", "o_orderdate"], ascending=[False, True]).head(10)
    return found[["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]]


def q05(data):
    regions = table(data, "region", ["r_regionkey", "r_name"])
    regions = regions[regions.r_name == "ASIA"]
    nations = table(data, "nation", ["n_nationkey", "n_name", "n_regionkey"])
    nations = nations.merge(regions, left_on="n_regionkey", right_on="r_regionkey")[["n_nationkey", "n_name"]]
    suppliers = table(data, "supplier", ["s_suppkey", "s_nationkey"])
    suppliers = suppliers.merge(nations, left_on="s_nationkey", right_on="n_nationkey")
    customers = table(data, "customer", ["c_custkey", "c_nationkey"])
    orders = table(data, "orders", ["o_orderkey", "o_custkey", "o_orderdate"])
    orders = orders[(orders.o_orderdate >= date(1994, 1, 1)) & (orders.o_orderdate < date(1995, 1, 1))]
    orders = orders.merge(customers, left_on="o_custkey", right_on="c_custkey")[["o_orderkey", "c_nationkey"]]
    items = table(data, "lineitem", ["l_orderkey", "l_suppkey", "l_extendedprice", "l_discount"])
    items["revenue"] = items.l_extendedprice * (1 - items.l_discount)
    joined = items.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    joined = joined.merge(
        suppliers, left_on=["l_suppkey", "c_nationkey"], right_on=["s_suppkey", "s_nationkey"]
    )
    found = joined.groupby("n_name").revenue.sum().compute().reset_index()
    return found.sort_values("revenue", ascending=False)


def q09(data):
    parts = table(data, "part", ["p_partkey", "p_name"])
    parts = parts[parts.p_name.str.contains("green")][["p_partkey"]]
    suppliers = table(data, "supplier", ["s_suppkey", "s_nationkey"])
    nations = table(data, "nation", ["n_nationkey", "n_name"])
    suppliers = suppliers.merge(nations, left_on="s_nationkey", right_on="n_nationkey")[["s_suppkey", "n_name"]]
    supplies = table(data, "partsupp", ["ps_partkey", "ps_suppkey", "ps_supplycost"])
    orders = table(data, "orders", ["o_orderkey", "o_orderdate"])
    names = ["orderkey", "partkey", "suppkey", "quantity", "extendedprice", "discount"]
    items = table(data, "lineitem", [f"l_{name}" for name in names])
    joined = items.merge(parts, left_on="l_partkey", right_on="p_partkey")
    joined = joined.merge(supplies, left_on=["l_partkey", "l_suppkey"], right_on=["ps_partkey", "ps_suppkey"])
    joined = joined.merge(suppliers, left_on="l_suppkey", right_on="s_suppkey")
    joined = joined.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    joined["amount"] = joined.l_extendedprice * (1 - joined.l_discount) - joined.ps_supplycost * joined.l_quantity
    joined["o_year"] = joined.o_orderdate.dt.year
    found = joined.groupby(["n_name", "o_year"]).amount.sum().compute().reset_index()
    found.columns = ["nation", "o_year", "sum_profit"]
    return found.sort_values(["nation", "o_year"], ascending=[True, False])


def q18(data):
    items = table(data, "lineitem", ["l_orderkey", "l_quantity"])
    large = items.groupby("l_orderkey").l_quantity.sum(split_out=items.npartitions).reset_index()
    large = large[large.l_quantity > 300]
    orders = table(data, "orders", ["o_orderkey", "o_custkey", "o_orderdate", "o_totalprice"])
    customers = table(data, "customer", ["c_custkey", "c_name"])
    joined = orders.merge(large, left_on="o_orderkey", right_on="l_orderkey")
    joined = joined.merge(customers, left_on="o_custkey", right_on="c_custkey")
    found = joined.compute()
    found = found.sort_values(["o_totalprice", "o_orderdate"], ascending=[False, True]).head(100)
    return found[["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "l_quantity"]]


QUERIES = {"q01": q01, "q03": q03, "q05": q05, "q09": q09, "q18": q18}
