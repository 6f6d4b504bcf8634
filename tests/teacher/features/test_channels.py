"""The 52 channels by hand, and choosing among them."""

import pytest
import torch
from pydantic import ValidationError

from settings.errors import InputError
from settings.losses import FeatureConfig
from teacher.features.channels import FEATURE_CHANNELS, FEATURE_GROUPS, gaussian_features, select_channels
from teacher.gaussians import Gaussians


def one_gaussian(coefficients):
    sh = torch.arange(1.0, 3 * coefficients + 1).reshape(1, coefficients, 3)
    return Gaussians(
        torch.zeros(1, 3), torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1), sh
    )


def test_a_config_may_name_these_and_no_others():
    assert FeatureConfig(channels=[*FEATURE_GROUPS, *FEATURE_CHANNELS]).channels
    for name in ("sh_16_r", "sh_01_r", "sh_0_a", "log_scale_3", "SH", ""):
        with pytest.raises(ValidationError):
            FeatureConfig(channels=[name])


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_all_channels_by_hand(coefficients):
    features = gaussian_features(one_gaussian(coefficients))
    sh = [(3 * k + c + 1) * 0.5 if k < coefficients else 0.0 for k in range(16) for c in range(3)]
    assert features.dtype == torch.float32 and features.shape == (1, 52) == (1, len(FEATURE_CHANNELS))
    assert features[0].tolist() == [*sh, 0.5, -1.0, -2.0, -3.0]


def test_subsets_by_group_and_by_name_are_in_one_order_and_have_no_doubles():
    assert select_channels(["log_scale_1", "opacity", "sh_dc", "sh_0_g"]) == (
        "sh_0_r", "sh_0_g", "sh_0_b", "opacity", "log_scale_1",
    )  # fmt: skip
    assert [len(FEATURE_GROUPS[name]) for name in ("all", "sh", "sh_dc", "log_scale")] == [52, 48, 3, 3]
    picked = gaussian_features(one_gaussian(4), ["log_scale_1", "sh_1_b"])
    assert picked[0].tolist() == [3.0, -2.0]


@pytest.mark.parametrize("chosen", [["sh_16_r"], ["colour"], [], "sh", ["sh", "SH"]])
def test_unknown_names_are_refused_with_the_valid_ones(chosen):
    with pytest.raises(
        InputError, match="loss.feature: channels: found .*sh_dc, log_scale, opacity, sh_0_r to sh_15_b"
    ):
        select_channels(chosen, "loss.feature")


def test_no_gaussians_have_no_features():
    assert gaussian_features(one_gaussian(4)[:0], ["sh"]).shape == (0, 48)
