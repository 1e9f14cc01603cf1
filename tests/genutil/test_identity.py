"""Roles of keys, and the identity of an experiment."""

from typing import get_args

import pytest

from genutil.config import load_config
from genutil.config.identity import deciding_settings, identity
from genutil.config.schema import GROUPS, Role, keys_of, schema

FIXED = {"model": "models.graphs.neuralgraph:StaticNeuralGraph", "data": "data.digits:Digits"}


def test_every_key_has_one_role():
    roles = [keys_of(role) for role in get_args(Role)]
    assert sorted(key for keys in roles for key in keys) == sorted(schema())
    for group in GROUPS:
        for key, field in group.model_fields.items():
            assert field.json_schema_extra["role"] in get_args(Role), f"{key} has no role"


@pytest.mark.parametrize("key", ["lr", "graph", "seed", "batch_size", "topk", "data_args"])
def test_what_decides_results_changes_the_identity(key):
    other = {"lr": 0.2, "graph": "random", "seed": 1, "batch_size": 64, "topk": [1], "data_args": {"n": 1}}
    assert identity({**FIXED, key: other[key]}) != identity(FIXED)


@pytest.mark.parametrize("role", ["files", "execution", "evaluation"])
def test_other_keys_do_not_change_the_identity(role):
    for key in keys_of(role):
        assert identity({**FIXED, key: "another value"}) == identity(FIXED), key


def test_defaults_do_not_count_in_the_identity():
    """A key that a later version adds must leave the hashes of earlier results as they are."""
    config = load_config("app:apps/small_scale/static_dnw.yml")
    settings = {key: getattr(config, key) for key in schema()}
    written = {key: settings[key] for key in settings if settings[key] != schema()[key].default}
    assert identity(settings) == identity(written) == identity(deciding_settings(settings))
    assert len(identity(settings)) == 16


def test_the_identity_is_the_same_in_every_version():
    assert identity(FIXED) == "05268e05a17b3835"
