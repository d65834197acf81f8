from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavernn import recipe
from wavernn.config import MEL_PRESETS, Config, MelConfig, ModelConfig, PruneConfig, TrainConfig
from wavernn.errors import ConfigError
from wavernn.recipe import from_dict, load, overlay

# an acoustic model's are tested in test_acoustic_config.py
SHIPPED = sorted(
    path.stem for path in recipe.RECIPES.glob("*.toml") if not path.stem.startswith("acoustic-")
)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.toml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_recipes_of_the_design_are_shipped():
    named = {"tiny", "sparse-384", "sparse-512", "sparse-1024", "sparse-2048", "dense-896"}
    assert named <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads_and_can_be_stored(name):
    config = load(name)
    assert config.name == name
    assert from_dict(config.to_dict()) == config
    assert load(str(recipe.RECIPES / f"{name}.toml")) == config


def test_a_recipe_of_an_acoustic_model_is_named_as_such():
    with pytest.raises(ConfigError, match="acoustic-lj is a recipe of an acoustic model"):
        load("acoustic-lj")


def test_shipped_recipes_have_the_sizes_of_their_names():
    for name in SHIPPED:
        kind, _, hidden = name.partition("-")
        if kind in ("sparse", "dense"):
            config = load(name)
            assert config.model.hidden == int(hidden)
            assert bool(config.prune.density) == (kind == "sparse")


def test_an_empty_recipe_is_the_defaults(write):
    assert load(write("")) == Config(name="mine")


def test_a_recipe_lies_on_its_base(write):
    write("[model]\nhidden = 64\nlayers = 1\n[train]\nsteps = 7", "low.toml")
    write('base = "low.toml"\n[model]\nhidden = 32', "middle.toml")
    config = load(write('base = "middle.toml"\n[train]\nbatch = 3'))
    assert config == Config(
        name="mine",
        model=ModelConfig(hidden=32, layers=1),
        train=TrainConfig(steps=7, batch=3),
    )


def test_a_recipe_may_name_itself(write):
    write('name = "low"', "low.toml")
    assert load(write('base = "low.toml"')).name == "mine"
    assert load(write('base = "low.toml"\nname = "other"')).name == "other"


@pytest.mark.parametrize("base", ["mine.toml", "./mine.toml", "sub/../mine.toml", "other.toml"])
def test_a_recipe_that_is_its_own_base_is_refused(write, tmp_path, base):
    (tmp_path / "sub").mkdir()
    write('base = "mine.toml"', "other.toml")
    with pytest.raises(ConfigError, match="is its own base"):
        load(write(f'base = "{base}"'))


def test_a_preset_is_written_out(write):
    assert (
        load(write('mel = "16k"\nmodel.conditioning_hop_samples = 50\n' + SLICE)).mel
        == (MEL_PRESETS["16k"])
    )


# a multiple of the hops of 200 and 256 samples
SLICE = "train.slice_samples = 6400"


def test_keys_can_be_laid_on_a_preset_and_a_preset_on_keys(write):
    low = 'mel = "16k"\nmodel.conditioning_hop_samples = 50\n' + SLICE
    write(low, "low.toml")
    expected = MelConfig(
        rate_hz=16_000, fft_samples=1024, window_samples=800, hop_samples=200, bands=40
    )
    assert load(write('base = "low.toml"\n[mel]\nbands = 40')).mel == expected
    assert load(write(low), ["mel.bands=40"]).mel == expected
    over = load(write("[mel]\nbands = 40"), ["mel = '24k'"])
    assert over.mel == MEL_PRESETS["24k"]
    assert load(write(low), ["mel=hifigan-22k", "model.conditioning_hop_samples=64"]).mel == (
        MelConfig()
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hiden = 3", "unknown key hiden; known: name, mel, model, prune, train"),
        ("[model]\nhiden = 3", "unknown key model.hiden; known: hidden, projection, input"),
        ("model = 3", "model must be a table, got 3"),
        ("[train]\nsteps = 1.5", "train.steps must be int, got 1.5"),
        ("[train]\nsteps = true", "train.steps must be int, got True"),
        ('[train]\nclip = "1"', "train.clip must be float, got '1'"),
        ("[train]\ncarry_state = 1", "train.carry_state must be bool, got 1"),
        ("[train]\nclip = inf", "train.clip must be a finite number, got inf"),
        ("[train]\nclip = nan", "train.clip must be a finite number, got nan"),
        (f"[train]\nclip = 1{'0' * 400}", "train.clip must be float, got 10000"),
        (f"[train]\nclip = 1{'0' * 5000}", "mine.toml is not valid TOML"),
        ("name = 3", "name must be str, got 3"),
        ('[model]\ninput = "onehot"', "model.input must be embedding or scalar, got 'onehot'"),
        ("[model]\ninput = [1]", r"model.input must be embedding or scalar, got \[1\]"),
        ("[prune]\ndensity = 0.1", "prune.density must be a table, got 0.1"),
        ("[prune.density]\nO1 = '5%'", "prune.density.O1 must be float, got '5%'"),
        ("[prune.density]\nR = 0.1", "unknown matrix prune.density.R; known: R_u"),
        ('mel = "8k"', "unknown mel preset 8k; known: hifigan-22k, 16k"),
        ("mel = 8", "mel must be a table, got 8"),
        ("base = 3", "base in .*mine.toml must be the name of a TOML file, got 3"),
        ('base = "gone.toml"', "can't read recipe .*gone.toml: No such file"),
        ("[model", "mine.toml is not valid TOML: "),
        ("x = " + "[" * 9999, "mine.toml is not valid TOML: "),
        ("[model]\nhidden = 3", "model.hidden must be even, got 3"),
    ],
)
def test_a_faulty_recipe_is_named(write, text, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        load(write(text))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.toml is not valid TOML: "):
        load(str(tmp_path / "a.toml"))
    with pytest.raises(ConfigError, match=r"can't read recipe .*: Is a directory"):
        (tmp_path / "b.toml").mkdir()
        load(str(tmp_path / "b.toml"))


@pytest.mark.parametrize("name", ["sparse", "Tiny", "x" * 300, "tiny/"])
def test_only_exact_names_are_recipes(name):
    with pytest.raises(ConfigError, match=f"unknown recipe {name}; shipped: .*tiny; or give a"):
        load(name)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("train.steps=12", 12),
        (" train.steps = 12 ", 12),
        ("train.steps=1_000", 1000),
        ("train.steps=0x10", 16),
        ("train.steps=3 # few", 3),
        ('"train".steps=12', 12),
    ],
)
def test_overrides_are_toml(line, value):
    assert load("tiny", [line]).train.steps == value


def test_overrides_of_other_types():
    config = load(
        "tiny",
        [
            "train.clip=2",
            "train.carry_state=false",
            "train.precision=float32",
            'model.input="scalar"',
            "prune.density={ R_u = 0.5 }",
            "prune.density.O1=0.25",
            "name = a bare word",
        ],
    )
    assert (config.train.clip, config.train.carry_state) == (2.0, False)
    assert (config.train.precision, config.model.input) == ("float32", "scalar")
    assert type(config.train.clip) is float
    assert config.prune == PruneConfig(density={"R_u": 0.5, "O1": 0.25})
    assert config.name == "a bare word"


def test_the_last_override_wins_and_nothing_else_moves():
    before = load("sparse-384").to_dict()
    after = load("sparse-384", ["train.steps=1", "train.steps=2"]).to_dict()
    assert after == overlay(before, {"train": {"steps": 2}})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train.steps", "an override looks like model.hidden=512, got 'train.steps'"),
        ("=3", "an override looks like model.hidden=512, got '=3'"),
        ("", "an override looks like model.hidden=512, got ''"),
        ("train..steps=3", "override 'train..steps=3' is not valid TOML: "),
        ('name="a', """override 'name="a' is not valid TOML: """),
        ("train.step=3", "unknown key train.step; known: seed, steps"),
        ("train.steps=many", "train.steps must be int, got 'many'"),
        ("train=3", "train must be a table, got 3"),
        ("base=tiny.toml", "unknown key base; known: name"),
        ("mel=8k", "unknown mel preset 8k; known: hifigan-22k"),
        (f"train.steps={'9' * 5000}", "train.steps must be int, got '9999"),
        ("train.steps=" + "[" * 9999, r"train.steps must be int, got '\[\[\["),
    ],
)
def test_a_faulty_override_is_named(line, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        load("tiny", [line])
    assert "\n" not in str(raised.value)


def test_overlay_goes_table_by_table_and_leaves_its_arguments_alone():
    below = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    above = {"a": {"y": {"w": 4}}, "b": {"c": 5}, "d": 6}
    assert overlay(below, above) == {
        "a": {"x": 1, "y": {"z": 2, "w": 4}},
        "b": {"c": 5},
        "d": 6,
    }
    assert overlay({"a": {"x": 1}}, {"a": 2}) == {"a": 2}
    assert below == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}


@given(
    st.builds(
        Config,
        name=st.text(max_size=5),
        mel=st.sampled_from([MelConfig(), MelConfig(log="log10", scale="htk", floor=1e-3)]),
        model=st.builds(
            ModelConfig,
            hidden=st.integers(1, 64).map(lambda n: 32 * n),
            projection=st.integers(1, 64).map(lambda n: 16 * n),
            pre_emphasis=st.floats(0, 0.99),
            input=st.sampled_from(["embedding", "scalar"]),
        ),
        prune=st.builds(
            PruneConfig,
            density=st.dictionaries(st.sampled_from(["R_u", "O2"]), st.floats(1e-3, 1)),
            balanced=st.booleans(),
        ),
        train=st.builds(TrainConfig, learning_rate=st.floats(1e-9, 1), seed=st.integers(0, 99)),
    )
)
def test_a_stored_configuration_is_itself_again(config):
    assert from_dict(config.to_dict()) == config


def test_no_table_is_no_configuration():
    with pytest.raises(ConfigError, match=r"a configuration must be a table, got \[1\]"):
        from_dict([1])


def test_recipes_are_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load("tiny").model.hidden == 64
    Path("tiny").mkdir()
    assert load("tiny").model.hidden == 64
