"""The released prompted Swin, number by number."""

import json

import numpy as np
import pytest
import torch
from timm.models.swin_transformer import PatchMerging
from torch import Tensor

from stpn_backbones import PromptedSwin, convert_swin, create_backbone, load_weights
from stpn_kernels.testing import (
    GOLDEN_ATOL,
    GOLDEN_RTOL,
    as_tensors,
    assert_golden,
    hash_fill_weight,
    load_golden,
)


def assert_maps(maps: list[Tensor], golden: dict[str, np.ndarray], prefix: str) -> None:
    assert len(maps) == 4
    for stage, actual in enumerate(maps):
        assert_golden(actual, golden[f"{prefix}out{stage}"])


def record_prompts(model: PromptedSwin, num_prompts: int) -> dict[str, Tensor]:
    """Collect the prompt tokens where the next module reads them, by the golden names."""
    seen = {}

    def record(name: str, channels: int):
        def hook(module, args):
            seen[name] = args[0][:, :num_prompts, :channels]

        return hook

    for s, stage in enumerate(model.swin.layers):
        if isinstance(stage.downsample, PatchMerging):
            # Its input holds the prompt four times; channel 0 comes first in either order.
            name = f"prompt_after_s{s - 1}b{len(model.swin.layers[s - 1].blocks) - 1}"
            stage.downsample.norm.register_forward_pre_hook(record(name, 1))
        for b, block in enumerate(stage.blocks):
            before = f"prompt_after_s{s}b{b - 1}" if b else f"prompt_after_merge{s - 1}"
            block.norm1.register_forward_pre_hook(record(before, block.attn.dim))
    return seen


def assert_prompts(seen: dict[str, Tensor], golden: dict[str, np.ndarray]) -> None:
    # The prompts after the last block are discarded, so they are not computed.
    names = sorted(name for name in golden if name.startswith("prompt_after"))[:-1]
    assert len(names) > 9
    for name in names:
        actual = seen[name]
        assert_golden(actual, golden[name][:, :, : actual.shape[2]])


@torch.no_grad()
@pytest.mark.parametrize("case", ["a_56x84", "b_100x132", "d_64x64"])
def test_maps_and_prompts_equal_the_released_code(released: PromptedSwin, case: str) -> None:
    golden = load_golden(f"swin/small_case_{case}.npz")
    images, prompt = torch.from_numpy(golden["img"]), torch.from_numpy(golden["prompt"])
    assert_maps(released(images), golden, "noprompt_")
    seen = record_prompts(released, len(prompt))
    assert_maps(released(images, [prompt[None]]), golden, "prompt_")
    assert_prompts(seen, golden)


@torch.no_grad()
def test_seven_prompts(released: PromptedSwin) -> None:
    golden = load_golden("swin/small_np7_100x132.npz")
    prompts = [torch.from_numpy(golden["prompt"])[None]]
    assert_maps(released(torch.from_numpy(golden["img"]), prompts), golden, "prompt_")


@torch.no_grad()
def test_a_batch_equals_the_released_code_image_by_image(released: PromptedSwin) -> None:
    golden = load_golden("swin/small_batch2_100x132.npz")
    images, prompt = torch.from_numpy(golden["img"]), torch.from_numpy(golden["prompt"])
    assert_maps(released(images), golden, "noprompt_")
    assert_maps(released(images, [prompt]), golden, "correct_")
    shared = prompt[:1].expand(2, -1, -1)
    assert_maps(released(images, [shared]), golden, "correct_sharedprompt_")


@torch.no_grad()
def test_deep_prompts_replace_the_tokens_before_every_layer(released: PromptedSwin) -> None:
    golden = load_golden("swin/unofficial_deep_a_56x84.npz")
    names = [f"prompt_s{s}b{b}" for s in range(4) for b in range(2)]
    prompts = [torch.from_numpy(golden[name])[None] for name in names]
    assert_maps(released(torch.from_numpy(golden["img"]), prompts), golden, "prompt_")


@torch.no_grad()
def test_embed_gives_the_support_tokens_of_the_pipeline(released: PromptedSwin) -> None:
    golden = load_golden("swin/pipeline_small_100x132.npz")
    tokens = released.embed(torch.from_numpy(golden["ref_img"]))
    assert tokens.shape == (6, 20, 256)
    assert_golden(
        tokens.transpose(1, 2).unflatten(2, released.grid_size(100, 132)), golden["ref_x"]
    )
    prompts = [torch.from_numpy(golden["prompt"])[None]]
    assert_maps(released(torch.from_numpy(golden["img"]), prompts), golden, "prompt_")


def assert_gradient(actual: Tensor, golden: np.ndarray | Tensor) -> None:
    # Gradients of means over thousands of cells are small: compare to their own scale.
    expected = torch.as_tensor(golden)
    atol = GOLDEN_ATOL * float(expected.abs().max())
    torch.testing.assert_close(actual, expected, atol=atol, rtol=GOLDEN_RTOL)


def released_names(weights: dict[str, Tensor]) -> dict[str, str]:
    """Map the model's keys to the released ones, by a tensor full of its position."""
    names = list(weights)
    marked = {name: torch.full(weights[name].shape, i) for i, name in enumerate(names)}
    return {key: names[value.flatten()[0]] for key, value in convert_swin(marked).items()}


def test_gradients_equal_the_released_code(released: PromptedSwin) -> None:
    golden = load_golden("swin/small_grad_68x100.npz")
    images = torch.from_numpy(golden["img"]).requires_grad_()
    prompt = torch.from_numpy(golden["prompt"]).requires_grad_()
    maps = released(images, [prompt[None]])
    loss = sum((m * torch.from_numpy(golden[f"cot{s}"])).mean() for s, m in enumerate(maps))
    assert_golden(loss, golden["loss"])
    loss.backward()
    assert_gradient(images.grad, golden["grad_img"])
    assert_gradient(prompt.grad, golden["grad_prompt"])

    weights = as_tensors(load_golden("swin/small_swin_weights.npz"))
    names = released_names(weights)
    full = as_tensors(golden, "grad:")
    converted = convert_swin({**weights, **full})
    norms = dict(zip(golden["param_names"].tolist(), golden["param_grad_l2"], strict=True))
    for key, parameter in released.named_parameters():
        norm = parameter.grad.double().norm().item()
        assert norm == pytest.approx(norms.pop(names[key]), rel=1e-4, abs=1e-8), key
        if names[key] in full:
            assert_gradient(parameter.grad, converted[key])
            del full[names[key]]
    assert not norms
    assert not full


@torch.no_grad()
def test_swin_tiny_equals_the_released_code() -> None:
    golden = load_golden("swin/swint_128x160.npz")
    weights = {}
    for key, shape, total in zip(golden["keys"], golden["shapes"], golden["sums"], strict=True):
        if not key.endswith("relative_position_index"):
            weights[str(key)] = hash_fill_weight("swint.", str(key), json.loads(str(shape)))
            assert weights[str(key)].double().sum().item() == pytest.approx(total, rel=1e-9)
    model = create_backbone("swin_tiny_patch4_window7_224", prompt_merging="released").eval()
    assert load_weights(model, weights).new == ()
    images, prompt = torch.from_numpy(golden["img"]), torch.from_numpy(golden["prompt"])
    assert_maps(model(images), golden, "noprompt_")
    seen = record_prompts(model, len(prompt))
    assert_maps(model(images, [prompt[None]]), golden, "prompt_")
    assert_prompts(seen, golden)
