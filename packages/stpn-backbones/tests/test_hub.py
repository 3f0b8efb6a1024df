"""Weights of the hub without a network: from its cache, or an error that says so."""

import os
import subprocess
import sys
from pathlib import Path

import timm
from safetensors.torch import save_file

TINY = {"embed_dim": 16, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}
LOAD = f"""
from stpn_backbones import create_backbone
try:
    model = create_backbone("swin_tiny_patch4_window7_224", pretrained=True, **{TINY})
except OSError as error:
    print(type(error).__name__, error)
else:
    print(float(model.swin.norm.weight[0]))
"""


def load(cache: Path) -> str:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout


def test_weights_come_from_the_hubs_cache_and_are_missed_in_words(tmp_path: Path) -> None:
    assert "LocalEntryNotFoundError" in load(tmp_path)
    source = timm.create_model("swin_tiny_patch4_window7_224.ms_in1k", **TINY)
    source.norm.weight.data.fill_(7.0)
    folder = tmp_path / "models--timm--swin_tiny_patch4_window7_224.ms_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(source.state_dict(), snapshot / "model.safetensors")
    assert load(tmp_path).strip() == "7.0"
