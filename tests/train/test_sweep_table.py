import csv

import pytest

from wavernn.train.sweep_plots import bits_against_sparsity
from wavernn.train.sweep_table import budgets, front, points, write_csv


def row(point, nonzeros=100, kind="branch", format="float32", **more):
    return {
        "point": point,
        "kind": kind,
        "format": format,
        "nonzeros": nonzeros,
        "density": 1.0,
        "block": "16x1",
        "balanced": False,
        **more,
    }


def test_error_bars_are_over_seeds():
    rows = [row("a", bits=1.0, pesq=None), row("b", bits=5.0), row("a", bits=3.0, pesq=2.0)]
    a, b = points(rows)
    assert (a.name, a.mean("bits"), a.deviation("bits")) == ("a", 2.0, pytest.approx(2**0.5))
    assert (a.mean("pesq"), a.deviation("pesq")) == (2.0, 0.0)
    assert (b.mean("bits"), b.deviation("bits")) == (5.0, 0.0)


def test_formats_and_parents_are_points_of_their_own():
    rows = [row("a"), row("a", format="int8"), row("a", kind="parent")]
    assert [point.name for point in points(rows)] == ["a float32", "a int8", "a float32"]


def test_points_tell_their_shape():
    dense, sparse, balanced = points(
        [row("a"), row("b", density=0.049), row("c", density=0.1, balanced=True)]
    )
    assert (dense.shape, dense.sparsity) == ("dense", 0)
    assert (sparse.shape, sparse.sparsity) == ("16x1", 95)
    assert (balanced.shape, balanced.sparsity) == ("16x1 balanced", 90)


def test_a_budget_holds_points_of_equal_weights():
    some = points([row("a", 100), row("b", 200), row("c", 104), row("d", 106), row("e", 98)])
    assert [[point.name for point in group] for group in budgets(some)] == [
        ["e", "a"],
        ["c", "d"],
        ["b"],
    ]


def test_without_equal_weights_there_is_no_plot_of_sparsity():
    assert bits_against_sparsity(points([row("a", 100), row("b", 200, density=0.1)])) is None


@pytest.mark.parametrize(("higher", "names"), [(False, ["c", "b", "a"]), (True, ["c", "d"])])
def test_no_point_of_the_front_is_beaten_in_both(higher, names):
    rows = [row("a", speed=1.0, q=1.0), row("b", speed=2.0, q=2.0), row("c", speed=3.0, q=3.0)]
    rows += [row("d", speed=1.5, q=4.0), row("e", speed=1.0, q=2.5), row("f", speed=9.0, q=None)]
    assert [point.name for point in front(points(rows), "speed", "q", higher)] == names


def test_the_table_has_a_column_for_every_key(tmp_path):
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": None}, {"a": True, "c": "x,y"}])
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"a": "1", "b": "", "c": ""}, {"a": "True", "b": "", "c": "x,y"}]


def test_an_empty_table_can_be_written(tmp_path):
    write_csv(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_text() == "\n"
