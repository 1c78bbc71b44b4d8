"""The comparison must be able to fail: `python3 -m unittest discover benches/lib`."""

import datetime
import unittest
from decimal import Decimal

from compare import Answer, difference, order_columns


def differ(query, ours, theirs):
    columns = [f"c{number}" for number in range(len(theirs[0]))]
    return difference(query, Answer(columns, ours), Answer(columns, theirs))


class Compare(unittest.TestCase):
    def test_equal_answers_in_another_type_are_equal(self):
        ours = [(1, Decimal("2.50"), 1.0, datetime.datetime(1996, 1, 2), None)]
        theirs = [(1, Decimal("2.5"), 1.0 + 1e-12, datetime.date(1996, 1, 2), None)]
        self.assertIsNone(differ("select", ours, theirs))

    def test_a_decimal_agrees_with_a_float_to_its_last_place_and_no_further(self):
        self.assertIsNone(differ("select", [(Decimal("25.505793"),)], [(25.5057936,)]))
        self.assertIn("instead of", differ("select", [(Decimal("25.505793"),)], [(25.505796,)]))

    def test_each_kind_of_difference_is_found(self):
        for ours, theirs in [
            ([(1,)], [(2,)]),
            ([(1.0,)], [(1.00000001,)]),
            ([(Decimal("1.01"),)], [(Decimal("1.02"),)]),
            ([("a",)], [("b",)]),
            ([(None,)], [(0,)]),
            ([(1,)], [("1",)]),
            ([(1,), (1,)], [(1,), (2,)]),
        ]:
            self.assertIsNotNone(differ("select", ours, theirs), (ours, theirs))
        self.assertIn("rows", differ("select", [(1,), (1,)], [(1,)]))

    def test_rows_may_come_in_any_order_only_where_the_query_says_none(self):
        ours, theirs = [(2, "x"), (1, "y")], [(1, "y"), (2, "x")]
        self.assertIsNone(differ("select", ours, theirs))
        self.assertIn("out of order", differ("select c0, c1 from t order by c0", ours, theirs))

    def test_ties_may_come_in_any_order(self):
        ours, theirs = [(1, "y"), (1, "x")], [(1, "x"), (1, "y")]
        self.assertIsNone(differ("select c0, c1 from t order by c0 desc limit 2", ours, theirs))
        self.assertIn("out of order", differ("select c0, c1 from t order by c0, 2", ours, theirs))

    def test_the_order_of_a_window_is_not_the_order_of_the_rows(self):
        self.assertEqual(order_columns("select rank() over (order by a) from t", ["a"]), [])
        self.assertEqual(order_columns("select a, b from t order by t.b desc, a -- no\nlimit 3", ["a", "b"]), [1, 0])


if __name__ == "__main__":
    unittest.main()
