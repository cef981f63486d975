from __future__ import annotations

import pytest

from rgsud_lib.tracking.curve_names import curve_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("validation/psnr_rgb", "validation/psnr_rgb_dB"),
        ("pairs/reinforced/psnr_y", "pairs/reinforced/psnr_y_dB"),
        ("gate/better/pairs/psnr_rgb/gain", "gate/better/pairs/psnr_rgb/gain_dB"),
        ("picked_psnr_rgb", "picked_psnr_rgb_dB"),
        ("pool/filled", "pool/filled_images"),
        ("pool/from_ema", "pool/from_ema_share"),
        ("time/step_seconds_per_step", "time/step_seconds_per_step"),
        ("loss/derain", "loss/derain"),
        ("pairs/critic+2*pyiqa:niqe", "pairs/critic_2_pyiqa:niqe"),
    ],
)
def test_units_are_in_the_names_and_a_shown_name_stays(name: str, shown: str) -> None:
    assert curve_name(name) == curve_name(shown) == shown
