import json
import re
from pathlib import Path

import pytest

from wavernn import recipe
from wavernn.errors import ConfigError
from wavernn.kernels.bench import random_voice
from wavernn.train import sweep_cost
from wavernn.train.sweep_cost import estimate, operations, planned_nonzeros
from wavernn.train.sweep_grid import load

GRIDS = Path(__file__).resolve().parents[2] / "train" / "grids"


@pytest.fixture
def grid(tmp_path, recipe_path):
    """Makes the plan of a grid's text, beside the quick recipe."""
    (tmp_path / "quick.toml").write_bytes(recipe_path.read_bytes())

    def make(text):
        path = tmp_path / "grid.toml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return make


def names(plan):
    return [run.name for run in plan.runs]


def test_a_grid_is_the_product_of_its_axes_and_grids_are_added(grid):
    plan = grid("""
recipe = "quick.toml"
set = { train.steps = 5 }
[[grid]]
axes = { hidden = [32, 64], balanced = [true, false], seed = [0, 1] }
[[grid]]
name = "more"
set = { model.input = "scalar" }
named.size = { small = { hidden = 32, model.projection = 16 }, large = { hidden = 96 } }
axes = { block = ["16x1"] }
""")
    assert names(plan) == [
        *("hidden32-balanced-seed0", "hidden32-balanced-seed1"),
        *("hidden32-not-balanced-seed0", "hidden32-not-balanced-seed1"),
        *("hidden64-balanced-seed0", "hidden64-balanced-seed1"),
        *("hidden64-not-balanced-seed0", "hidden64-not-balanced-seed1"),
        *("more-small-16x1", "more-large-16x1"),
    ]
    assert [run.point for run in plan.runs][:3] == [
        *("hidden32-balanced", "hidden32-balanced", "hidden32-not-balanced")
    ]
    config = plan.runs[-2].config
    assert (config.model.hidden, config.model.projection, config.model.input) == (32, 16, "scalar")
    assert (config.prune.block_rows, config.prune.block_columns) == (16, 1)
    assert {run.config.train.steps for run in plan.runs} == {5}
    assert {run.kind for run in plan.runs} == {"run"}


def test_short_names_stand_for_keys_of_the_recipe(grid):
    (run,) = grid("""
recipe = "quick.toml"
[[grid]]
set = { density = 0.5, heads = 0.25, steps = 7, subscale = 1, block = "4x4" }
""").runs
    assert run.name == run.point == "grid"
    prune = run.config.prune
    assert {prune.density[name] for name in ("R_u", "R_r", "R_e")} == {0.5}
    assert {prune.density[name] for name in ("O1", "O2", "O3", "O4")} == {0.25}
    assert (prune.block_rows, prune.block_columns, run.config.train.steps) == (4, 4, 7)


def test_what_a_run_was_told_makes_its_configuration_again(grid, tmp_path):
    plan = grid("""
recipe = "quick.toml"
parent.set = { steps = 9 }
[[grid]]
axes = { density = [0.5, 1e-2], model.input = ["scalar"], train.learning_rate = [1e-5] }
""")
    for run in plan.runs:
        again = recipe.load(str(tmp_path / run.recipe), run.overrides)
        assert again == run.config


def test_branches_share_a_dense_parent_of_their_size_and_seed(grid):
    plan = grid("""
recipe = "quick.toml"
set = { steps = 5 }
parent.set = { steps = 11 }
[[grid]]
axes = { hidden = [32, 64], density = [1.0, 0.5, 0.25], block = ["16x1", "4x4"], seed = [0, 1] }
""")
    parents = [run for run in plan.runs if run.kind == "parent"]
    assert names(plan)[:4] == [run.name for run in parents]
    assert {run.name for run in parents} == {
        f"parent-h{hidden}-seed{seed}" for hidden in (32, 64) for seed in (0, 1)
    }
    for run in parents:
        assert set(run.config.prune.density.values()) == {1.0}
        assert (run.steps, run.parent_steps, run.parent) == (11, 0, None)
    branches = plan.runs[4:]
    assert len(branches) == 24
    for run in branches:
        assert (run.kind, run.steps, run.parent_steps) == ("branch", 5, 11)
        assert run.parent.name == f"parent-h{run.config.model.hidden}-seed{run.config.train.seed}"


def test_parents_that_differ_in_more_have_names_of_their_own(grid):
    plan = grid("""
recipe = "quick.toml"
parent.set = { steps = 11 }
[[grid]]
axes = { train.learning_rate = [1e-3, 2e-3], density = [0.5] }
""")
    first, second, *_ = plan.runs
    assert first.name == "parent-h64-seed0"
    assert re.fullmatch("parent-h64-seed0-[0-9a-f]{6}", second.name)
    assert [run.parent.name for run in plan.runs[2:]] == [first.name, second.name]


def test_a_run_that_two_grids_hold_is_run_once(grid):
    text = 'recipe = "quick.toml"\n' + 2 * "[[grid]]\naxes.seed = [0, 1]\n"
    assert names(grid(text)) == ["seed0", "seed1"]


def test_the_key_of_a_run_tells_all_that_its_rows_depend_on(grid):
    text = 'recipe = "quick.toml"\n{}\n[evaluate]\nclips = {}\n[[grid]]\naxes.seed = [0]\n'
    keys, weights = set(), set()
    for parent, clips in (("", 1), ("", 2), ("parent.set.steps = 3", 1)):
        plan = grid(text.format(parent, clips))
        keys |= {plan.key(plan.runs[-1], data) for data in ("a", "b")}
        weights |= {plan.training_key(plan.runs[-1], data) for data in ("a", "b")}
    # how it is judged says nothing of the weights
    assert (len(keys), len(weights)) == (6, 4)
    assert plan.key(plan.runs[-1], "a") in keys


QUICK = 'recipe = "quick.toml"\n'
GRID = QUICK + "[[grid]]\n"
BAD = [
    ("", "recipe must name a recipe or a .toml file, got None"),
    ("recipe = ", "is not valid TOML: "),
    ("recipe = 1", "recipe must name a recipe or a .toml file, got 1"),
    (QUICK, r"it must hold at least one \[\[grid\]\] table with axes"),
    (QUICK + "grid = 1", r"it must hold at least one \[\[grid\]\]"),
    (QUICK + "grids = 1", "unknown key grids; known: recipe, set, parent, evaluate, grid"),
    (QUICK + "grid = [1]", "grid must be a table, got 1"),
    (QUICK + "set = 1\n[[grid]]", "set must be a table, got 1"),
    (QUICK + "parent = 1\n[[grid]]", "parent must be a table, got 1"),
    (QUICK + "parent.steps = 1\n[[grid]]", "unknown key parent.steps; known: set"),
    ('recipe = "huge"\n[[grid]]', "unknown recipe huge; shipped: .*tiny"),
    ('recipe = "gone.toml"\n[[grid]]', "can't read recipe .*gone.toml: No such file"),
    (GRID + "seeds = [1]", "unknown key grid.seeds; known: name, set, axes, named"),
    (GRID + "name = 1", "grid.name must be a string, got 1"),
    (GRID + 'name = "a/b"', "a run's name must be letters, digits and .* only, got 'a/b'"),
    (GRID + 'name = ".."', "a run's name must be letters"),
    (GRID + "axes = 1", "grid.axes must be a table, got 1"),
    (GRID + "axes.seed = 1", "grid.axes.seed must be a list of values, got 1"),
    (GRID + "axes.seed = []", r"grid.axes.seed must be a list of values, got \[\]"),
    (GRID + "axes.seed = [[1]]", r"seed must be a number, a string or true or false, got \[1\]"),
    (GRID + "axes.seed = [1979-05-27]", "seed must be a number, a string or true or false"),
    (GRID + "axes.block = [16]", "block must be rows x columns, such as 16x1, got 16"),
    (GRID + 'axes.block = ["16"]', "block must be rows x columns, such as 16x1, got '16'"),
    (GRID + 'axes.block = ["3x1"]', "run 3x1: prune blocks of 3 x 1 don't divide R_u"),
    (GRID + "axes.subscale = [1, 7]", "run subscale7: model.subscale must divide"),
    (GRID + 'axes.format = ["int8"]', "no matter of training; list it in evaluate.formats"),
    (GRID + "axes.model.hiden = [8]", "run hiden8: unknown key model.hiden; known: hidden"),
    (GRID + "axes.hidden = [7]", "run hidden7: model.hidden must be even, got 7"),
    (GRID + 'axes.hidden = ["big"]', "run big: model.hidden must be int, got 'big'"),
    (GRID + "axes.density = [0]", "prune.density.R_u must lie in"),
    (GRID + "named.size = [1]", r"grid.named.size must be a table, got \[1\]"),
    (GRID + "named.size.a = 1", "grid.named.size.a must be a table, got 1"),
    (
        GRID + "axes.seed=[0]\n[[grid]]\nset.hidden=32\naxes.seed = [0]",
        r"two runs that differ are called seed0; give a \[\[grid\]\] a name",
    ),
    (
        QUICK + "parent.set.density = 0.5\n[[grid]]\naxes.density = [0.5]",
        "parent.set must leave the parent dense",
    ),
    (
        QUICK + "parent.set.hidden = 32\n[[grid]]\naxes.density = [0.5]",
        "run density0.5: parent.set must not change model",
    ),
    (QUICK + "evaluate = 1\n[[grid]]", "evaluate must be a table, got 1"),
    (QUICK + "evaluate.clip = 1\n[[grid]]", "unknown key evaluate.clip; known: formats, clips"),
    (QUICK + "evaluate.clips = 0\n[[grid]]", "evaluate.clips must be positive, got 0"),
    (QUICK + "evaluate.clips = 1.5\n[[grid]]", "evaluate.clips must be int, got 1.5"),
    (QUICK + "evaluate.seed = -1\n[[grid]]", "evaluate.seed must lie in 0..2.64-1, got -1"),
    (QUICK + "evaluate.formats = 1\n[[grid]]", "evaluate.formats must be a list of different"),
    (QUICK + 'evaluate.formats = ["a", "a"]\n[[grid]]', "must be a list of different names"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD, ids=[text for text, _ in BAD])
def test_a_bad_grid_is_a_sentence(grid, text, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        grid(text)
    assert "grid.toml" in str(raised.value)


def test_a_grid_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"can't read grid .*gone\.toml: No such file"):
        load(tmp_path / "gone.toml")


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_grids_of_the_repository_can_be_planned(path):
    plan = load(path)
    table = estimate(plan, 100.0, 2)
    assert table["runs"] == len(plan.runs) == len(table["plan"])
    assert json.loads(json.dumps(table)) == table


@pytest.mark.parametrize("name", ["paper", "paper-cpu"])
def test_the_grids_of_the_paper_compare_equal_numbers_of_weights(name):
    plan = load(GRIDS / f"{name}.toml")
    budgets = {}
    for run in plan.runs:
        if run.kind == "branch":
            budget = run.name.split("-")[run.name.startswith("dense")]
            budgets.setdefault(budget, {})[run.name] = planned_nonzeros(run.config)
    for nonzeros in budgets.values():
        (dense,) = {count for name, count in nonzeros.items() if name.startswith("dense")}
        assert all(abs(count - dense) < 0.02 * dense for count in nonzeros.values())
    assert len(budgets) == 2
    assert len({run.steps + run.parent_steps for run in plan.runs if run.parent}) == 1


@pytest.mark.parametrize(
    "overrides", [(), ("prune.balanced=true",), ("prune.block_rows=4",), ("model.hidden=32",)]
)
def test_planned_weights_are_those_that_a_pruned_voice_has(quick, overrides):
    config = quick(*overrides)
    kept = sum(int((w != 0).sum()) for w in random_voice(config).model().matrices().values())
    assert planned_nonzeros(config) == kept


def test_a_kept_diagonal_counts(quick):
    more = planned_nonzeros(quick("prune.keep_diagonal=true")) - planned_nonzeros(quick())
    # of the gates, and of O1, which happens to be square
    assert more == 3 * round(64 * 0.95) + round(32 * 0.95)


def test_the_plan_adds_up(grid, monkeypatch):
    plan = grid("""
recipe = "quick.toml"
set = { steps = 5 }
parent.set = { steps = 10 }
evaluate.formats = ["float32", "int8"]
[[grid]]
axes = { density = [0.5, 0.25], seed = [0, 1] }
""")
    table = estimate(plan, 1.0, 2)
    (parent, *_), *_ = [table["plan"]]
    total = sum(operations(run) for run in plan.runs) / 1e9
    assert table["train_seconds"] == pytest.approx(total)
    assert table["wall_seconds"] == pytest.approx(total / 2)
    # two parents of 10 and four branches of 5, instead of four runs of 15
    assert table["train_seconds_without_parents"] == pytest.approx(total * 60 / 40)
    assert (table["runs"], table["rows"]) == (6, 12)
    assert table["samples"] == 40 * 4 * 128
    assert parent == {
        "run": "parent-h64-seed0",
        "kind": "parent",
        "parent": None,
        "nonzeros": planned_nonzeros(plan.runs[0].config),
        "steps": 10,
        "parent_steps": 0,
        "samples": 10 * 4 * 128,
        "train_seconds": pytest.approx(operations(plan.runs[0]) / 1e9),
    }
    # without a rate it is measured, once a size
    measured = []

    def bench(config, steps):
        measured.append(config.model.hidden)
        return {"samples_per_s": 512.0}

    monkeypatch.setattr(sweep_cost, "bench_training", bench)
    assert estimate(plan, None, 1)["train_seconds"] == pytest.approx(40)
    assert measured == [64]
