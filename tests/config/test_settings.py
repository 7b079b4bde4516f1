"""The settings: what is accepted, what comes back, and what a wrong one is told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tune_srs.config.presets import PRESETS
from tune_srs.config.settings import TrialConfig
from tune_srs.config.validation import dotted_keys
from tune_srs.config.yaml import read_yaml
from tune_srs.errors import ConfigError


def refusal(values: Any) -> str:
    """The one line that refuses `values`."""
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_dict(values, "here")
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message.startswith("here: ")
    return message


def refusal_of_file(path: Path) -> str:
    """The one line that refuses the file at `path`, which it names."""
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_yaml(path)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message.startswith(f"{path}: ")
    return message


def written(folder: Path, text: str) -> Path:
    path = folder / "trial.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# Defaults, YAML, overrides


def test_the_defaults_survive_yaml(tmp_path: Path) -> None:
    TrialConfig().to_yaml(tmp_path / "trial.yaml")
    assert TrialConfig.from_yaml(tmp_path / "trial.yaml") == TrialConfig()


def test_the_written_file_names_every_setting(tmp_path: Path) -> None:
    TrialConfig().to_yaml(tmp_path / "trial.yaml")
    values = read_yaml(tmp_path / "trial.yaml")
    for key in dotted_keys(TrialConfig):
        inner: Any = values
        for part in key.split("."):
            inner = inner[part]


def test_a_part_of_a_file_leaves_the_rest_at_its_defaults(tmp_path: Path) -> None:
    config = TrialConfig.from_yaml(written(tmp_path, "train: {lr: 0.01}\n"))
    assert config == TrialConfig().with_overrides({"train.lr": 0.01})
    assert config.train.lr == 0.01


def test_settings_cannot_be_changed_in_place() -> None:
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.train = config.train  # type: ignore[misc]
    assert config == TrialConfig()


def test_dotted_overrides_reach_every_depth_and_leave_the_original() -> None:
    config = TrialConfig()
    changed = config.with_overrides(
        {"train.lr": 0.5, "data.noise.shared": 0.25, "evaluation.cutoffs": [1, 3]}
    )
    assert (changed.train.lr, changed.data.noise.shared) == (0.5, 0.25)
    assert changed.evaluation.cutoffs == (1, 3)
    assert changed.model == config.model
    assert config == TrialConfig()


def test_overrides_are_validated_together() -> None:
    """Each of these alone would be refused."""
    changed = TrialConfig().with_overrides({"loss.rate": 2.5, "loss.relevance": "power"})
    assert changed.loss.rate == 2.5
    with pytest.raises(ConfigError, match=r"rate=2\.5 with relevance=fixed"):
        TrialConfig().with_overrides({"loss.rate": 2.5})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.lrr", "train.lr"),
        ("trian.lr", "train.lr"),
        ("lr", "train.lr"),
        ("model.lr", "train.lr"),
        ("train.lr.x", "train.lr"),
        ("noise.shared", "data.noise.shared"),
        ("data.synthetic.user", "data.synthetic.users"),
    ],
)
def test_a_misspelt_override_is_told_the_right_name(key: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig().with_overrides({key: 1}, "--set")
    assert str(caught.value) == f"--set: unknown key {key}, did you mean {meant}?"


def test_a_section_cannot_be_overridden_as_a_whole() -> None:
    with pytest.raises(ConfigError, match="unknown key train, did you mean train"):
        TrialConfig().with_overrides({"train": {"lr": 0.1}})


def test_an_override_like_no_setting_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig().with_overrides({"zzz\nzzz": 1})
    message = str(caught.value)
    assert message.startswith("overrides: unknown key zzz zzz; known: preset, data.name, ")
    assert message.endswith(", evaluation.seed")


# Unknown keys


@pytest.mark.parametrize(
    ("values", "wrong", "meant"),
    [
        ({"trian": {"lr": 1}}, "trian", "train"),
        ({"train": {"lrr": 1}}, "train.lrr", "train.lr"),
        ({"data": {"noise": {"acidental": 0.1}}}, "data.noise.acidental", "data.noise.accidental"),
        ({"data": {"nois": {"accidental": 0.1}}}, "data.nois", "data.noise"),
        ({"model": {"lr": 1}}, "model.lr", "train.lr"),
        ({"loss": {"dropout": 0.1}}, "loss.dropout", "model.dropout"),
        ({"data": {"shared": 0.1}}, "data.shared", "data.noise.shared"),
        ({"lr": 1}, "lr", "train.lr"),
    ],
)
def test_an_unknown_key_is_told_the_right_name(
    values: dict[str, Any], wrong: str, meant: str
) -> None:
    assert refusal(values) == f"here: unknown key {wrong}, did you mean {meant}?"


def test_a_key_like_no_other_lists_its_neighbours() -> None:
    message = refusal({"zzz": 1})
    assert message == "here: unknown key zzz; known: data, model, loss, train, evaluation"


def test_a_key_with_a_line_break_stays_on_one_line() -> None:
    assert "unknown key train.l r" in refusal({"train": {"l\nr": 1}})


def test_all_faults_are_listed_at_once() -> None:
    message = refusal(
        {
            "train": {"lr": 0, "lrr": 1, "device": "tpu"},
            "loss": {"num_positives": 0},
            "model": {"num_heads": 3},
            "modl": {},
        }
    )
    for part in (
        "train.lr: Input should be greater than 0, but got 0",
        "unknown key train.lrr, did you mean train.lr?",
        "train.device: ",
        "but got 'tpu'",
        "loss.num_positives: ",
        "hidden_units=128, num_heads=3",
        "unknown key modl, did you mean model?",
    ):
        assert part in message
    assert message.count("; ") == 5


# Bad and odd values


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("model.num_heads", 3, "hidden_units must be a multiple of num_heads"),
        ("model.dropout", 1, "less than 1"),
        ("model.dropout", -0.1, "greater than or equal to 0"),
        ("model.max_length", 0, "greater than or equal to 1"),
        ("loss.rate", 2.0, "rate has no effect on relevance fixed or linear"),
        ("loss.relevance", "quadratic", "'gaussian', 'time' or 'learned'"),
        ("loss.num_negatives", 0, "greater than or equal to 1"),
        ("train.lr", 0, "greater than 0"),
        ("train.lr", float("nan"), "finite"),
        ("train.lr", "inf", "finite"),
        ("train.lr", None, "valid number"),
        ("train.lr", "fast", "valid number"),
        ("train.max_epochs", 1.5, "valid integer"),
        ("data.name", 100, "valid string"),
        ("data.num_futures", 0, "greater than or equal to 1"),
        ("data.noise.accidental", 1.1, "less than or equal to 1"),
        ("evaluation.cutoffs", [], "at least 1 item"),
        ("evaluation.cutoffs", [5, 0], "distinct and >= 1"),
        ("evaluation.cutoffs", [5, 5], "distinct and >= 1"),
        ("evaluation.cutoffs", 5, "valid tuple"),
        ("evaluation.exclude_history", 2, "valid boolean"),
    ],
)
def test_a_bad_value_is_told_what_is_wanted(key: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig().with_overrides({key: value})
    message = str(caught.value)
    section, _, field = key.rpartition(".")
    assert section in message
    assert field in message
    assert reason in message
    assert "but got" in message
    assert message.splitlines() == [message]


def test_a_relevance_that_overflows_is_refused() -> None:
    overflowing = {"relevance": "exponential", "rate": 3.0, "num_positives": 234}
    assert "overflows" in refusal({"loss": overflowing})
    TrialConfig.from_dict({"loss": overflowing | {"num_positives": 233}})


@pytest.mark.parametrize(
    "key",
    [
        "train.lr",
        "train.seed",
        "train.batch_size",
        "data.min_rating",
        "data.name",
        "loss.rate",
        "loss.num_negatives",
        "model.dropout",
        "data.noise.shared",
    ],
)
@pytest.mark.parametrize("value", [True, False])
def test_refuse_booleans(key: str, value: bool) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected a number or text, not a boolean"):
        TrialConfig().with_overrides({key: value})


def test_a_boolean_is_no_cutoff_and_no_section() -> None:
    assert "evaluation.cutoffs.0" in refusal({"evaluation": {"cutoffs": [True, 5]}})
    assert "but got True" in refusal({"train": True})


def test_a_boolean_setting_takes_booleans() -> None:
    config = TrialConfig().with_overrides({"evaluation.exclude_history": False})
    assert config.evaluation.exclude_history is False


def test_numbers_written_as_text_are_numbers(tmp_path: Path) -> None:
    """YAML reads `1e-3` as text, and a command line gives nothing else."""
    config = TrialConfig.from_yaml(written(tmp_path, "train: {lr: 1e-3, batch_size: '64'}\n"))
    assert config.train.lr == 0.001
    assert config.train.batch_size == 64


def test_a_long_value_is_quoted_in_part() -> None:
    assert len(refusal({"train": {"batch_size": "x" * 100_000}})) < 300


@pytest.mark.parametrize("values", [[], "train", 5, None, {1: 2}, {None: {}}, {"train": {1: 2}}])
def test_what_is_no_mapping_of_names_is_refused(values: object) -> None:
    refusal(values)


# Files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected `key: value` lines, but found nothing"),
        ("# only a comment\n", "found nothing"),
        ("- train\n", "found list"),
        ("lr\n", "found str"),
        ("train: {}\ntrain: {}\n", "the key train occurs twice"),
        ("train: {lr: 1, seed: 2, lr: 1}\n", "the key lr occurs twice"),
        ("train: {lr: 1\n", "line 2, column 1"),
        ("train:\n\tlr: 1\n", "line 2, column 1"),
        ("train: {}\n---\nmodel: {}\n", "single document"),
        ("? [train]\n: {}\n", "unhashable key"),
        ("data: {name: 1998-13-01}\n", "month must be in 1..12"),
        ("train: {lr: !!bool maybe}\n", "not valid YAML: 'maybe'"),
        ("train: {lr: !!int many}\n", "'many'"),
        ("train: {lr: !!timestamp soon}\n", "not valid YAML"),
        ("train: !!set 5\n", "not valid YAML"),
        ("train: " + "[" * 3000, "recursion"),
        ("train: {seed: " + "9" * 5000 + "}\n", "5000 digits"),
        ("a: &a {lr: 1}\ntrain: *b\n", "undefined alias"),
        ("train: &a [*a]\n", "should be a mapping, but got"),
        ("\0", "special characters"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal_of_file(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in refusal_of_file(tmp_path / "none.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read as text" in refusal_of_file(tmp_path)


def test_a_binary_file_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x93\xff\x00\x01")
    assert "cannot be read as text" in refusal_of_file(path)


def test_a_path_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_yaml(Path("a\0b.yaml"))


@pytest.mark.parametrize(
    "call",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.mkdir ['{}']",
    ],
)
def test_nothing_in_a_file_is_ever_executed(tmp_path: Path, call: str) -> None:
    trace = tmp_path / "executed"
    message = refusal_of_file(written(tmp_path, f"train: {call.format(trace)}\n"))
    assert "could not determine a constructor for the tag" in message
    assert not trace.exists()


# Whatever comes


@st.composite
def trial_values(draw: st.DrawFn) -> dict[str, Any]:
    """Every setting, with a value that is valid together with the others."""
    count = st.integers(1, 10**6)
    seed = st.integers(0, 2**63 - 2)
    places = ["fixed", "linear", "power", "exponential", "reciprocal", "gaussian"]
    share = st.floats(0, 1)
    heads = draw(st.integers(1, 8))
    positives = draw(st.integers(1, 20))  # what no rate here makes overflow
    relevance = draw(st.sampled_from([*places, "time", "learned"]))
    bent = relevance not in ("fixed", "linear")
    normalizations = ["mean"] if relevance == "learned" else ["mean", "original"]
    loss = draw(st.sampled_from(["bce", "gbce", "bpr", "softmax", "sampled_softmax"]))
    sampled = loss == "sampled_softmax"
    chance = st.floats(0, 1, exclude_max=True)
    negatives = None if loss == "softmax" else draw(st.none() | count)
    origins = st.sampled_from([None, "unseen", "catalogue"])
    origin = None if loss == "softmax" else draw(origins)
    near = draw(chance) if sampled else 0.0
    epochs = draw(count)
    smoothing = 0.0 if loss in ("gbce", "bpr") else draw(chance)
    item_bias, cuda_graph = draw(st.booleans()), draw(st.booleans())
    smoothed = loss == "sampled_softmax" and smoothing > 0
    whole = loss == "softmax" or smoothed or item_bias or cuda_graph
    updates = ["auto", "all"] if whole else ["auto", "all", "touched"]
    kind = draw(st.sampled_from(["last", "users", "time"]))
    return {
        "data": {
            "name": draw(st.text()),
            "log": {
                "user_column": draw(st.none() | st.text()),
                "item_column": draw(st.none() | st.text()),
                "rating_column": draw(st.none() | st.text()),
                "time_column": draw(st.none() | st.text()),
                "time_format": draw(st.sampled_from(["auto", "ms", "iso", "lines", "%d/%m/%Y"])),
                "separator": draw(st.none() | st.sampled_from([",", "\t", ";"])),
                "header": draw(st.booleans()),
                "text_ids": draw(st.booleans()),
            },
            "num_futures": draw(st.none() | count),
            "num_validation_futures": draw(st.none() | count),
            "min_rating": draw(st.none() | st.floats(-10, 10)),
            "repeats": draw(st.sampled_from(["keep", "drop_consecutive", "keep_first"])),
            "min_users_per_item": draw(count),
            "min_items_per_user": draw(count),
            "k_core": draw(count),
            "split": {
                "kind": kind,
                "share": None if kind == "last" else draw(st.floats(0.01, 0.49)),
                "seed": draw(seed),
                "cold_items": draw(st.sampled_from(["keep", "drop"])) if kind == "time" else "keep",
            },
            "ties": {"order": draw(st.sampled_from(["file", "shuffle"])), "seed": draw(seed)},
            "noise": {"accidental": draw(share), "shared": draw(share), "seed": draw(seed)},
            "synthetic": {
                "users": draw(count),
                "items": draw(st.integers(2, 10**6)),
                "mean_length": draw(count),
                "seed": draw(seed),
            },
        },
        "model": {
            "max_length": draw(st.integers(1, 100_000)),
            "hidden_units": 2 * heads * draw(st.integers(1, 64)),
            "num_blocks": draw(st.integers(1, 1000)),
            "num_heads": heads,
            "norm": draw(st.sampled_from(["original", "pre", "post"])),
            "gates": draw(st.booleans()),
            "activation": draw(st.sampled_from(["relu", "gelu", "swiglu"])),
            "feed_forward_factor": draw(count),
            "positions": draw(st.sampled_from(["learned", "sinusoidal", "rotary", "none"])),
            "scale_embedding": draw(st.booleans()),
            "item_bias": item_bias,
            "dropout": draw(chance),
            "embedding_dropout": draw(st.none() | chance),
            "attention_dropout": draw(st.none() | chance),
        },
        "loss": {
            "type": loss,
            "num_positives": positives,
            "num_negatives": negatives,
            "negatives_from": origin,
            "negative_popularity": 0.0 if loss == "softmax" else draw(st.floats(0, 2)),
            "share_negatives": draw(st.booleans()) if loss != "softmax" else False,
            "in_batch_negatives": near if round(near * (negatives or 256)) else 0.0,
            "log_q": draw(st.booleans()) if sampled and origin != "unseen" else False,
            "calibration": draw(share) if loss == "gbce" else 0.75,
            "relevance": relevance,
            "rate": draw(st.none() | st.floats(0, 3.5, exclude_min=True)) if bent else None,
            "normalization": draw(st.sampled_from(normalizations)),
            "positive_weight": draw(st.floats(0, 1e300, exclude_min=True))
            if loss in ("bce", "gbce")
            else 1.0,
            "label_smoothing": smoothing,
        },
        "train": {
            "max_epochs": epochs,
            "last_epoch": draw(st.none() | st.integers(1, epochs)),
            "batch_size": draw(count),
            "lr": draw(st.floats(0, 1e300, exclude_min=True)),
            "warmup_epochs": draw(st.floats(0, epochs, exclude_max=True)),
            "schedule": draw(st.sampled_from(["constant", "cosine"])),
            "weight_decay": draw(st.floats(0, 1e3)),
            "clip_norm": draw(st.none() | st.floats(0, 1e3, exclude_min=True)),
            "embedding_update": draw(st.sampled_from(updates)),
            "precision": draw(st.sampled_from(["float32", "bfloat16"])),
            "fused_attention": draw(st.booleans()),
            "cuda_graph": cuda_graph,
            "seed": draw(seed),
            "num_threads": draw(count),
            "device": draw(st.sampled_from(["auto", "cpu", "cuda"])),
        },
        "evaluation": {
            "cutoffs": draw(st.lists(count, min_size=1, max_size=5, unique=True)),
            "relevance": draw(st.sampled_from(places)),
            "candidates": draw(st.sampled_from(["all", "sampled"])),
            "num_candidates": draw(count),
            "exclude_history": draw(st.booleans()),
            "seed": draw(seed),
        },
    }


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029", "Größe", "\ufeff", "a\nb"])
def test_any_text_survives_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trial.yaml"
    config = TrialConfig().with_overrides({"data.name": text})
    config.to_yaml(path)
    assert TrialConfig.from_yaml(path) == config


@given(values=trial_values())
@settings(max_examples=60)
def test_every_valid_configuration_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "trial.yaml"
    config = TrialConfig.from_dict(values)
    config.to_yaml(path)
    assert TrialConfig.from_yaml(path) == config
    assert config.to_dict() == values


SETTING_NAMES = sorted({part for key in dotted_keys(TrialConfig) for part in key.split(".")})
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(SETTING_NAMES) | st.text(), inner, max_size=5)
    ),
    max_leaves=15,
)


@given(values=JSON)
@settings(max_examples=200)
def test_whatever_is_given_is_accepted_or_refused_in_one_line(values: Any) -> None:
    try:
        config = TrialConfig.from_dict(values, "here")
    except ConfigError as error:
        message = str(error)
        assert message.splitlines() == [message]
        assert message.startswith("here: ")
    else:
        assert TrialConfig.from_dict(config.to_dict()) == config


@given(text=st.text(max_size=60) | JSON.map(str))
@settings(max_examples=200)
def test_whatever_is_written_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = written(tmp_path_factory.mktemp("yaml"), text)
    try:
        TrialConfig.from_yaml(path)
    except ConfigError as error:
        message = str(error)
        assert message.splitlines() == [message]


def test_a_preset_stands_below_what_is_given_beside_it() -> None:
    nested = TrialConfig.from_dict({"preset": "esasrec", "model": {"gates": False}})
    dotted = TrialConfig().with_overrides({"model.gates": False, "preset": "esasrec"})
    for config in (nested, dotted):
        assert config.model.norm == "pre"
        assert config.model.activation == "swiglu"
        assert not config.model.gates
        assert config.loss.type == "sampled_softmax"
    assert nested == dotted
    assert "preset" not in nested.to_dict()


@pytest.mark.parametrize("preset", [*PRESETS])
def test_every_preset_is_valid(preset: str) -> None:
    assert TrialConfig.from_dict({"preset": preset}) != TrialConfig.from_dict(
        {"preset": "esasrec" if preset == "original" else "original"}
    )


def test_an_unknown_preset_is_refused() -> None:
    for make in (TrialConfig.from_dict, TrialConfig().with_overrides):
        with pytest.raises(ConfigError, match="unknown preset esasrek, did you mean esasrec"):
            make({"preset": "esasrek"})
