"""Experiment files: types, ranges, inheritance, and every message that a mistake gives."""

import logging

import pytest
import yaml
from pydantic import ValidationError

from genutil.config import ConfigError, load_config, to_yaml
from genutil.config.schema import schema


def refused(path, message, **overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert message in str(caught.value)
    return str(caught.value)


def test_types_come_from_the_schema(write_app):
    path = write_app(
        lr="5e-5", evaluate="False", topk=3, multistep_lr_milestones=[1, "2"], seed="7", rho=None
    )
    config = load_config(path)
    assert config.lr == 5e-5
    assert config.evaluate is False
    assert config.topk == [3]
    assert config.multistep_lr_milestones == [1, 2]
    assert config.seed == 7


def test_a_float_in_scientific_notation_without_point_is_a_number(tmp_path, write_app):
    path = write_app()
    path.write_text(path.read_text() + "\nweight_decay: 5e-5\n")
    assert load_config(path).weight_decay == 5e-5


def test_app_prefix_and_override_precedence(write_app):
    assert load_config(f"app:{write_app(lr=0.2)}", {"lr": "0.3"}).lr == 0.3


def test_dashes_and_aliases(write_app):
    config = load_config(write_app(), {"weight-decay": "0.1", "nesterov": "true", "random_seed": 5})
    assert (config.weight_decay, config.nestorov, config.seed) == (0.1, True, 5)


def test_the_command_line_wins_over_the_other_name_of_a_key(write_app):
    assert load_config(write_app(seed=1), {"random_seed": 2}).seed == 2
    assert load_config(write_app(random_seed=1), {"seed": 2}).seed == 2


def test_two_names_of_a_key_with_two_values(write_app):
    refused(write_app(seed=1, random_seed=2), "is another name of")
    assert load_config(write_app(seed=1, random_seed=1)).seed == 1


def test_config_is_frozen(write_app):
    config = load_config(write_app())
    with pytest.raises(ValidationError):
        config.lr = 1.0


def test_name_is_the_file_s(write_app):
    assert load_config(write_app("wave.yml")).name == "wave"
    assert load_config(write_app("wave.yml"), {"name": "other"}).name == "other"
    assert load_config(write_app("my wave é 实验.yml")).name == "my wave é 实验"
    assert load_config(write_app(), {"name": "e\u0301"}).name == "\u00e9"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../up", "name: must be printable text without / and"),
        ("a\\b", "name: must be printable text without / and"),
        ("two\nlines", "name: must be printable text"),
        ("\u202egnp", "name: must be printable text"),
        ("..", "name: must not be empty or only dots"),
        (" ", "name: must not be empty"),
        ("x" * 101, "name: has 101 characters, at most 100"),
    ],
)
def test_names_that_are_refused(write_app, name, message):
    refused(write_app(), message, name=name)


def test_data_dir_flag_file_environment_default(write_app, monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    assert load_config(write_app()).data_dir == "./datasets"
    monkeypatch.setenv("DATA_DIR", "/from/environment")
    assert load_config(write_app()).data_dir == "/from/environment"
    assert load_config(write_app(data_dir="/from/file")).data_dir == "/from/file"
    assert load_config(write_app(), {"data_dir": "/from/flag"}).data_dir == "/from/flag"


def test_resolved_yaml_loads_as_the_same_config(write_app, tmp_path):
    config = load_config(write_app(), {"lr": "1e-3", "gpus": []})
    again = tmp_path / "again.yml"
    again.write_text(to_yaml(config))
    assert load_config(again).model_dump() == config.model_dump()
    assert list(yaml.safe_load(to_yaml(config))) == list(schema())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", -1, "lr: must be greater than 0, got -1"),
        ("lr", "fast", "lr: must be a valid number, got 'fast'"),
        ("lr", ".nan", "lr: must be"),
        ("lr", True, "lr: must be a number, got True"),
        ("layers", 2.5, "layers: must be a valid integer"),
        ("evaluate", "perhaps", "evaluate: must be a valid boolean"),
        ("graph", "dnww", "did you mean dnw?"),
        ("setting", "statik", "did you mean static?"),
        ("lr_scheduler", "cosin", "did you mean cosine?"),
        ("rho", "gama", "rho: must be a valid number or must be 'gamma', got 'gama'"),
        ("prune_rate", 1.5, "prune_rate: must be less than or equal to 1"),
        ("topk", [], "topk: must"),
        ("topk", [0], "topk: must be greater than or equal to 1"),
        ("model", "StaticNeuralGraph", "model: must be module:Class"),
        ("gpus", [-1], "gpus: must be greater than or equal to 0"),
        ("momentum", 1.0, "momentum: must be less than 1"),
    ],
)
def test_wrong_values_name_key_value_and_line(write_app, key, value, message):
    text = refused(write_app(**{key: value}), message)
    assert "tiny.yml, line" in text


FAST = {"fast_eval": True, "evaluate": True, "resume": "x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate": True}, "evaluates a checkpoint; name it with --resume FILE"),
        ({"fast_eval": True}, "removes dead nodes for evaluation only; add --evaluate"),
        ({"use_dgl": True, "evaluate": True, "resume": "x"}, "add --evaluate --fast_eval"),
        ({"use_init": "a.pt"}, "name that file with use_graph"),
        ({"use_graph": "a.pt", "use_init": "b.pt", "graph": "dnw"}, "choose graph: fine_tune"),
        ({"bf16": True}, "works with the engines native and triton; give --fast_eval"),
        ({**FAST, "bf16": True, "engine": "csr"}, "works with the engines native and triton"),
        ({"engine": "csr"}, "selects the engine of fast_eval; add --evaluate --fast_eval"),
        (
            {**FAST, "use_dgl": True, "engine": "csr"},
            "means --engine dgl; choose one of them",
        ),
        ({"rho": 0.5}, "choose graph: reg_td or graph: td"),
        ({"td_magnitude": True}, "choose graph: reg_td or graph: td"),
        ({"ode_steps": 5}, "counts the steps of euler, midpoint and rk4"),
        ({"ode_solver": "rk4", "ode_rtol": 0.1}, "has no effect with a fixed-step solver"),
        ({"ode_solver": "rk4", "ode_atol": 0.1}, "has no effect with a fixed-step solver"),
        ({**FAST, "compile": True}, "compiles the original network"),
        ({**FAST, "amp": "bf16"}, "has no effect with the engines of fast_eval"),
        ({"topk": [1, 11]}, "must not exceed output_size"),
        ({"multistep_lr_milestones": [5, 3]}, "must be different epochs in ascending order"),
        ({"warmup": 2, "num_epochs": 2}, "warmup: must be less than num_epochs"),
        ({"start_epoch": 2, "num_epochs": 2}, "start_epoch: must be less than num_epochs"),
        ({"loss_scale": 8, "amp": "bf16"}, "loss_scale: works only with fp16"),
        ({"nesterov": True, "momentum": 0}, "needs a momentum greater than 0"),
        ({"skip_corrupt": True, "data_backend": "dali-cpu"}, "works only with the data backend pytorch"),
        ({"cuda_graph": True, "mixup": 0.2}, "mixup draws new pairs in each"),
        ({**FAST, "channels_last": True}, "has no effect with the engines of fast_eval; remove"),
        ({"seeds": [1, 2], "checkpoint_dir": "c"}, "put {seed} into checkpoint_dir"),
    ],
)
def test_contradictions_name_the_remedy(write_app, changes, message):
    refused(write_app(**changes), message)


def test_all_problems_at_once(write_app):
    text = refused(write_app(lr=-1, lrr=3, fast_eval=True, setting="x"), "5 problems", prun_rate=0.1, lr=-2)
    for part in ("lr: must be", "(--lr)", "lrr: unknown key; did you mean lr?", "fast_eval:", "setting:"):
        assert part in text
    assert "prun_rate: unknown key; did you mean prune_rate?  (--prun_rate)" in text


def test_unknown_key_without_near_spelling(write_app):
    refused(write_app(), "zzzzzz: unknown key; `--help` lists all keys", zzzzzz=1)


def test_missing_model(write_app):
    refused(write_app(model=None), "model: is missing; the file must give it")


def test_missing_file_names_a_near_one(write_app):
    path = write_app("static_dnw.yml")
    text = refused(path.with_name("static_dnv.yml"), "there is no such file; did you mean")
    assert "is missing" not in text


def test_a_folder_is_no_file(tmp_path):
    refused(tmp_path, "cannot be read")


def test_base_files(write_app, tmp_path):
    write_app("base.yml", lr=0.2, seed=3)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mid.yml").write_text("_base_: ../base.yml\nlr: 0.3\n")
    leaf = tmp_path / "leaf.yml"
    leaf.write_text("_base_: [sub/mid.yml]\nseed: 4\n")
    config = load_config(leaf)
    assert (config.lr, config.seed, config.name) == (0.3, 4, "leaf")


def test_base_problems(tmp_path, write_app):
    (tmp_path / "a.yml").write_text("_base_: b.yml\n")
    (tmp_path / "b.yml").write_text("_base_: a.yml\n")
    refused(tmp_path / "a.yml", "the files include each other")
    path = write_app(_base_="gone.yml")
    text = refused(path, "gone.yml: there is no such file")
    assert "tiny.yml, line 1" in text
    refused(write_app(_base_=3.5), "_base_: must name files")


def test_never_read_keys_give_one_warning(write_app, caplog):
    with caplog.at_level(logging.WARNING):
        load_config(write_app(val_resize=256, prune=True))
    assert [r.getMessage() for r in caplog.records if "never had an effect" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert "val_resize and prune" in caplog.text


def test_duplicate_keys_warn_in_foreign_files_and_fail_in_ours(write_app, caplog, monkeypatch):
    path = write_app()
    path.write_text(path.read_text() + "lr: 0.5\nlr: 0.6\n")
    with caplog.at_level(logging.WARNING):
        assert load_config(path).lr == 0.6
    assert "duplicate key lr; the last value is used" in caplog.text
    monkeypatch.setattr("genutil.config.yaml_files._OUR_FILES", path.parent)
    refused(path, "lr: duplicate key; remove one")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: [1, 2\n", "is not plain YAML"),
        ("lr: !!python/object/apply:os.system ['true']\n", "is not plain YAML"),
        ("- a list\n", "must hold `key: value` lines"),
        ("a: &a [*a]\n", "is not plain YAML"),
        ("", "model: is missing"),
        ("lr: 2026-99-99\n", "is not plain YAML"),
    ],
)
def test_files_that_are_no_experiment(tmp_path, text, message):
    path = tmp_path / "odd.yml"
    path.write_text(text)
    refused(path, message)


def test_binary_file(tmp_path):
    path = tmp_path / "binary.yml"
    path.write_bytes(b"\xff\xfe\x00")
    refused(path, "cannot be read")


def test_explicit_keys_are_those_that_differ_from_the_default(write_app):
    config = load_config(write_app(lr=0.1, dim=80), {"seed": 3})
    assert "dim" in config.explicit()
    assert "seed" in config.explicit()
    assert "lr" not in config.explicit()
    assert config.overrides == {"seed": 3}


def test_inherited_keys_are_not_explicit(write_app, tmp_path):
    base = write_app("base.yml", width_mult=0.5)
    (tmp_path / "leaf.yml").write_text(f"_base_: {base.name}\nsmall: true\n")
    assert load_config(tmp_path / "leaf.yml").explicit() == {"small"}
