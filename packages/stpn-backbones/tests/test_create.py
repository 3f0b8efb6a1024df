import logging
from pathlib import Path

import pytest
import timm
import torch

from stpn_backbones import create_backbone, supported_backbones
from stpn_kernels.backend import INTERPRETED

NAME = "swin_tiny_patch4_window7_224"
TINY = {"embed_dim": 16, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}


def test_the_published_swins_are_supported() -> None:
    for size in ("tiny", "small", "base", "large"):
        assert f"swin_{size}_patch4_window7_224" in supported_backbones()


def test_an_unknown_name_lists_what_is_supported() -> None:
    with pytest.raises(ValueError, match=f"'resnet50'; supported: .*{NAME}"):
        create_backbone("resnet50")


def test_timm_options_shape_the_model() -> None:
    model = create_backbone(NAME + ".ms_in1k", **TINY, patch_size=2, window_size=5)
    assert model.strides == (2, 4, 8)
    assert model.out_channels == (16, 32, 64)
    assert len(model(torch.randn(2, 3, 30, 30), [torch.randn(2, 2, 16)])) == 3


@torch.no_grad()
def test_a_window_of_twelve_works() -> None:
    model = create_backbone("swin_base_patch4_window12_384", **TINY).eval()
    maps = model(torch.randn(2, 3, 64, 100), [torch.randn(2, 7, 16)])
    assert [m.shape[-2:] for m in maps] == [(16, 25), (8, 13), (4, 7)]


def test_windows_larger_than_the_maps_of_timms_image_size_are_kept() -> None:
    model = create_backbone(NAME, **TINY, window_size=16)
    for stage in model.swin.layers:
        for block in stage.blocks:
            assert block.attn.relative_position_bias_table.shape[0] == 31**2
    assert model(torch.randn(2, 3, 80, 80))[2].shape == (2, 64, 5, 5)


def test_pretrained_loads_timm_names_unchanged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = timm.create_model(NAME, **TINY)  # a classifier, as on the hub
    torch.save(source.state_dict(), tmp_path / "timm.pth")
    with caplog.at_level(logging.INFO, "stpn_backbones"):
        model = create_backbone(
            NAME, pretrained=True, pretrained_cfg_overlay={"file": tmp_path / "timm.pth"}, **TINY
        )
    loaded = model.swin.state_dict()
    assert loaded.keys() == {key for key in source.state_dict() if not key.startswith("head.")}
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in loaded.items())
    assert "output_norms.0.weight" in caplog.text


def test_weights_are_loaded_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = create_backbone(NAME, **TINY)
    torch.save(source.state_dict(), tmp_path / "own.pth")
    with caplog.at_level(logging.INFO, "stpn_backbones"):
        model = create_backbone(NAME, weights=tmp_path / "own.pth", **TINY)
    for key, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
    assert "new: none; not used: none" in caplog.text


def test_two_kinds_of_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pretrained=True or weights='a.pth'"):
        create_backbone(NAME, pretrained=True, weights="a.pth")


@pytest.mark.usefixtures("own_errors")
def test_the_attention_backend_is_chosen_by_name() -> None:
    with pytest.raises(ValueError, match=r"attention_backend must be one of .*, got 'cuda'"):
        create_backbone(NAME, **TINY, attention_backend="cuda")  # type: ignore[arg-type]


@pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter runs on the CPU")
def test_triton_on_the_cpu_is_refused_with_the_reason() -> None:
    model = create_backbone(NAME, **TINY, attention_backend="triton")
    with pytest.raises(ValueError, match="the tensors are on cpu, not on a CUDA device"):
        model(torch.randn(1, 3, 32, 32))
