"""configs.py: dataclasses to dictionaries and back; unknown options are refused with the nearest name."""

from __future__ import annotations

import json

import pytest

from export3d.configs import config_difference, config_from_dict, config_to_dict
from export3d.errors import UsageError
from export3d.model.config import PRESETS, TINY, ModelConfig, ablation
from export3d.portrait.config import PORTRAIT_PRESETS


@pytest.mark.parametrize("config", [*PRESETS.values(), *PORTRAIT_PRESETS.values()], ids=[*PRESETS, *PORTRAIT_PRESETS])
def test_every_preset_survives_json(config: ModelConfig) -> None:
    text = json.dumps(config_to_dict(config))
    assert config_from_dict(type(config), json.loads(text)) == config


def test_an_unknown_option_names_its_place_and_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'renderer\.num_corse'\. Did you mean 'num_coarse'\?"):
        config_from_dict(ModelConfig, {"renderer": {"num_corse": 8}})


def test_an_unknown_option_at_the_top_is_refused_too() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'generater'\. Did you mean 'generator'\?"):
        config_from_dict(ModelConfig, {"generater": {}})


def test_left_out_options_take_their_defaults() -> None:
    assert config_from_dict(ModelConfig, {}) == ModelConfig()


def test_values_are_still_checked() -> None:
    with pytest.raises(UsageError, match=r"generator\.conditioning: 'none' is not known"):
        config_from_dict(ModelConfig, {"generator": {"conditioning": "none"}})


def test_the_difference_lists_each_changed_option_once() -> None:
    changed = ablation(TINY, "e2e-lebs-n5")
    assert config_difference(TINY, changed) == [
        "expression.num_basis: 10 -> 5",
        "expression.pretrained: true -> false",
    ]
    assert config_difference(TINY, TINY) == []
