"""MixFormer and STPN in it, on a tiny network with random weights."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    SupportMemory,
    TransformerPredictor,
)
from stpn_tasks.tracking.mixformer import create_mixformer
from stpn_tasks.tracking.score_head import ScoreHead

TINY = {"dims": (16, 24, 32), "depths": (1, 2, 1), "num_heads": (1, 2, 4), "head_channels": 16}
T, S, GRID = 32, 64, 4


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**options):
    torch.manual_seed(0)
    network = create_mixformer("small", **{**TINY, **options})
    with torch.no_grad():  # weights of 0.02 would hide what is compared
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)
                if module.bias.requires_grad:
                    module.bias.normal_(std=0.1)
    return network.eval()


def images(batch=2, online=2):
    return (
        randn(batch, 3, T, T),
        randn(batch, online, 3, T, T, seed=1),
        randn(batch, 3, S, S, seed=2),
    )


def prompts_for(network, *, deep, batch=2, number=9):
    dims = network.backbone.prompt_dims if deep else network.backbone.prompt_dims[:1]
    return [randn(batch, number, dim, seed=3 + i) for i, dim in enumerate(dims)]


def dense_mixed_attention(backbone, templates, search, prompts):
    """Return template and search tokens of one pass over one sequence, with a mask."""
    num_images = templates.shape[1]
    layer, carried = 0, None
    maps, search_maps = templates.flatten(0, 1), search
    for stage in backbone.stages:
        x, grid = stage.patch_embed(maps)
        t = x.unflatten(0, (-1, num_images)).flatten(1, 2)
        s, search_grid = stage.patch_embed(search_maps)
        p = s[:, :0] if carried is None else stage.patch_embed.embed_prompts(carried)
        for block in stage.blocks:
            if layer < len(prompts):
                p = prompts[layer]
            layer += 1
            parts = [
                block.attn.project(block.norm1(image), grid, num_prompts=0, num_cls=0)
                for image in t.unflatten(1, (num_images, -1)).unbind(1)
            ]
            seen = torch.cat([p, s], dim=1)
            parts.append(
                block.attn.project(
                    block.norm1(seen), search_grid, num_prompts=p.shape[1], num_cls=0
                )
            )
            q, k, v = (torch.cat(heads, dim=2) for heads in zip(*parts, strict=True))
            scores = q @ k.mT * q.shape[1] ** -0.5 * q.shape[3] ** -0.5  # by all heads' width
            template_keys = sum(part[1].shape[2] for part in parts[:-1])
            scores[:, :, : t.shape[1], template_keys:] = -torch.inf
            out = block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
            x = block.finish(torch.cat([t, seen], dim=1), out)
            t, p, s = x.split([t.shape[1], p.shape[1], s.shape[1]], dim=1)
        maps = t.unflatten(1, (num_images, -1)).flatten(0, 1).transpose(1, 2).unflatten(2, grid)
        search_maps = s.transpose(1, 2).unflatten(2, search_grid)
        carried = p if p.shape[1] else None
    return t.unflatten(1, (num_images, -1)), s


@torch.no_grad()
@pytest.mark.parametrize("prompt_conv", ["bypass", "image", "padded_image"])
@pytest.mark.parametrize("kind", ["plain", "shallow", "deep"])
def test_cached_templates_equal_one_masked_sequence(prompt_conv, kind):
    network = tiny(prompt_conv=prompt_conv)
    template, online, search = images()
    prompts = [] if kind == "plain" else prompts_for(network, deep=kind == "deep")
    encoded = network.encode_templates(template, online)
    tracked = network.track(search, encoded, prompts or None)
    together = torch.cat([template[:, None], online], dim=1)
    t, s = dense_mixed_attention(network.backbone, together, search, prompts)
    assert_close(encoded.tokens, t, atol=2e-5, rtol=1e-4)
    assert_close(tracked.search_tokens, s, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("template_size", "search_size"), [(56, 64), (48, 96), (28, 32)])
def test_odd_template_grids_and_small_crops(template_size, search_size):
    network = tiny()
    together = randn(1, 3, 3, template_size, template_size)
    search = randn(1, 3, search_size, search_size, seed=1)
    prompts = prompts_for(network, deep=False, batch=1)
    encoded = network.encode_templates(together[:, 0], together[:, 1:])
    found = network.track(search, encoded, prompts).search_tokens
    t, s = dense_mixed_attention(network.backbone, together, search, prompts)
    assert_close(encoded.tokens, t, atol=2e-5, rtol=1e-4)
    assert_close(found, s, atol=2e-5, rtol=1e-4)
    assert found.shape[1] == (search_size // 16) ** 2


@torch.no_grad()
def test_a_score_of_several_heads_scales_by_their_common_width():
    torch.manual_seed(0)
    head = ScoreHead(16, num_heads=2)
    for parameter in head.parameters():
        parameter.normal_(std=0.5)
    maps, template = randn(2, 16, 4, 4), randn(2, 5, 16, seed=1)
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.3, 0.0, 0.8, 0.7]])
    x = head.token_norm(head.token)[0].expand(2, -1)  # (B, C)
    for look, memory in zip(
        head.looks, (head.pool(maps, boxes).flatten(2).mT, template), strict=True
    ):
        halves = []
        for half in (slice(0, 8), slice(8, 16)):
            q, k, v = (
                look.query(x)[:, half],
                look.key(memory)[..., half],
                look.value(memory)[..., half],
            )
            weights = (torch.einsum("bc,bnc->bn", q, k) / 4).softmax(1)
            halves.append(torch.einsum("bn,bnc->bc", weights, v))
        x = look.norm(look.output(torch.cat(halves, dim=1)))
    assert_close(head(maps, boxes, template), head.mlp(x)[:, 0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
def test_templates_are_the_same_to_the_last_bit_whatever_the_prompts(deep, monkeypatch):
    network = tiny()
    template, online, search = images(online=1)
    seen = []
    encode = network.backbone.encode_templates
    monkeypatch.setattr(
        network.backbone, "encode_templates", lambda x: seen.append(encode(x)) or seen[-1]
    )
    prompts = prompts_for(network, deep=deep)
    plain = network(template, online[:, 0], search)
    prompted = network(template, online[:, 0], search, prompts)
    cached = network.track(search, network.encode_templates(template, online), prompts)
    assert not torch.allclose(plain.search_tokens, prompted.search_tokens, atol=1e-2)
    assert torch.equal(prompted.search_tokens, cached.search_tokens)
    assert torch.equal(prompted.boxes_cxcywh, cached.boxes_cxcywh)
    assert torch.equal(prompted.scores, cached.scores)
    first, *others = seen
    for other in others:
        assert torch.equal(first.tokens, other.tokens)
        assert all(map(torch.equal, first.keys + first.values, other.keys + other.values))


@torch.no_grad()
def test_without_prompts_a_network_with_predictor_is_plain_mixformer():
    plain, prompted = tiny(), tiny(predictor=TransformerPredictor)
    report = prompted.load_state_dict(plain.state_dict(), strict=False)
    assert all(key.startswith("predictor.") for key in report.missing_keys)
    assert report.missing_keys
    assert report.unexpected_keys == []
    template, online, search = images()
    expected = plain.track(search, plain.encode_templates(template, online))
    templates = prompted.encode_templates(template, online)
    none_at_all = prompts_for(plain, deep=False, number=0)
    for prompts in (None, none_at_all):
        found = prompted.track(search, templates, prompts)
        assert torch.equal(found.boxes_cxcywh, expected.boxes_cxcywh)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.search_tokens, expected.search_tokens)


@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("prompt_conv", ["bypass", "image", "padded_image"])
def test_a_gate_begins_near_mixformer_where_small_prompts_do_not(deep, prompt_conv):
    network = tiny(predictor=TransformerPredictor, deep=deep, prompt_conv=prompt_conv)
    template, online, search = images()
    templates = network.encode_templates(template, online)
    prompts = prompts_for(network, deep=deep)
    plain = network.track(search, templates).search_tokens

    def change(gate, scale=1.0):
        gated = tiny(
            predictor=TransformerPredictor, deep=deep, prompt_conv=prompt_conv, prompt_gate=gate
        )
        gated.load_state_dict(network.state_dict(), strict=False)
        tokens = gated.track(
            search, templates, [scale * prompt for prompt in prompts]
        ).search_tokens
        return float((tokens - plain).norm() / plain.norm())

    ungated = change(None)
    assert change(0.0) == pytest.approx(ungated, rel=1e-4)
    assert change(-3.0) < 0.2 * ungated
    assert change(-30.0) < 1e-5
    assert change(None, scale=0.0) > 0.3 * ungated


def test_gates_learn_and_go_with_the_predictor():
    network = tiny(predictor=TransformerPredictor, prompt_gate=-2.0)
    template, online, search = images(online=1)
    prompts = prompts_for(network, deep=False)
    network(template, online[:, 0], search, prompts).boxes_cxcywh[:, 0].sum().backward()
    assert (network.prompt_gates.grad != 0).all()
    with pytest.raises(ValueError, match="there is no predictor"):
        tiny(prompt_gate=-2.0)


@torch.no_grad()
@pytest.mark.parametrize("deep", [False, True])
def test_a_batch_equals_its_clips_one_by_one(deep):
    network = tiny(predictor=TransformerPredictor, deep=deep)
    template, online, search = images()
    support = randn(2, 3, 3, S, S, seed=9)
    templates = network.encode_templates(template, online)
    prompts = network.predict_prompts(network.embed_support_crops(support, templates))
    together = network.track(search, templates, prompts)
    for i in range(2):
        one = slice(i, i + 1)
        templates = network.encode_templates(template[one], online[one])
        prompts = network.predict_prompts(network.embed_support_crops(support[one], templates))
        alone = network.track(search[one], templates, prompts)
        assert_close(alone.boxes_cxcywh[0], together.boxes_cxcywh[i])
        assert_close(alone.scores[0], together.scores[i], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_memory_of_plain_passes_gives_the_prompts_of_training():
    network = tiny(predictor=TransformerPredictor)
    template, online, _ = images(batch=1)
    templates = network.encode_templates(template, online)
    crops = randn(1, 3, 3, S, S, seed=9)
    memory = None
    for frame in range(3):
        tokens = network.track(crops[:, frame], templates).search_tokens
        embedding = network.embed_support(tokens)
        memory = SupportMemory.like(embedding, 3) if memory is None else memory
        memory.push(frame, embedding)
    (streamed,) = network.predict_prompts(memory.gather((0, 1, 2)))
    (trained,) = network.predict_prompts(network.embed_support_crops(crops, templates))
    assert streamed.shape == (1, 9, 16)
    assert_close(streamed, trained)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TransformerPredictor, {}),
        (MixerPredictor, {"grid_size": (3, 3)}),
        (AttentionPredictor, {}),
        (AveragePredictor, {}),
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_every_predictor_fits_the_trackers_backbone(kind, options, deep):
    network = tiny()
    predictor = kind.for_backbone(network.backbone, 9, deep=deep, **options)
    grid = network.backbone.grid_size(S, S)
    assert grid == (GRID, GRID)
    tokens = randn(2, 3, GRID * GRID, network.backbone.embed_dim)
    prompts = predictor(tokens, grid)
    template, online, search = images()
    templates = network.encode_templates(template, online)
    plain = network.track(search, templates).search_tokens
    prompted = network.track(search, templates, prompts).search_tokens
    assert not torch.allclose(plain, prompted)


def test_gradients_reach_everything_but_pass_no_support_frame():
    network = tiny(predictor=TransformerPredictor).train()
    template, online, search = images(online=1)
    templates = network.encode_templates(template, online)
    support = randn(2, 2, 3, S, S, seed=9).requires_grad_()
    embeddings = network.embed_support_crops(support, templates)
    tracked = network.track(search, templates, network.predict_prompts(embeddings))
    (tracked.boxes_cxcywh.sum() + tracked.scores.sum()).backward()
    assert support.grad is None
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(
        p.requires_grad for n, p in network.named_parameters() if ".attention.key.bias" not in n
    )


def test_training_leaves_frozen_batch_norms_alone():
    network = tiny(frozen_head_batch_norm=True).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    template, online, search = images(online=1)
    network(template, online[:, 0], search).boxes_cxcywh.sum().backward()
    assert not any("bn" in name for name, _ in network.named_parameters())
    assert any("box_head" in name for name in before)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


@torch.no_grad()
def test_online_templates_are_a_set_and_only_the_initial_one_is_scored():
    network = tiny()
    template, online, search = images()
    found = network.track(search, network.encode_templates(template, online))
    swapped = network.track(search, network.encode_templates(template, online.flip(1)))
    assert_close(found.boxes_cxcywh, swapped.boxes_cxcywh, atol=1e-6, rtol=1e-5)
    assert_close(found.scores, swapped.scores, atol=1e-5, rtol=1e-4)
    exchanged = torch.stack([template, online[:, 1]], dim=1)
    other = network.track(search, network.encode_templates(online[:, 0], exchanged))
    assert_close(other.boxes_cxcywh, found.boxes_cxcywh, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(other.scores, found.scores, atol=1e-3)


@torch.no_grad()
def test_given_boxes_are_scored_in_place_of_those_found():
    network = tiny()
    template, online, search = images(online=1)
    found = network(template, online[:, 0], search)
    again = network(template, online[:, 0], search, score_boxes=found.boxes_cxcywh)
    assert_close(again.scores, found.scores)
    elsewhere = torch.tensor([[0.3, 0.3, 0.4, 0.5], [0.6, 0.5, 0.4, 0.4]])
    other = network(template, online[:, 0], search, score_boxes=elsewhere)
    assert torch.equal(other.boxes_cxcywh, found.boxes_cxcywh)
    assert not torch.allclose(other.scores, found.scores, atol=1e-3)
    assert (
        create_mixformer("small", **TINY, score=False).eval()(template, online[:, 0], search).scores
        is None
    )


def test_what_does_not_fit_is_refused_in_words():
    network = tiny()
    template, online, search = images()
    with pytest.raises(ValueError, match="no online template"):
        network.encode_templates(template, online[:, :0])
    templates = network.encode_templates(template[:1], online[:1])
    with pytest.raises(ValueError, match="templates are of 1 clips, search crops of 2"):
        network.track(search, templates)
    with pytest.raises(ValueError, match="this network has no predictor"):
        network.embed_support(randn(1, 16, 32))
    with pytest.raises(ValueError, match="must be a square, such as 9 for 3x3, got 7"):
        tiny(predictor=TransformerPredictor, num_prompts=7)
    assert tiny(predictor=TransformerPredictor, num_prompts=7, deep=True).predictor.num_prompts == 7
    with pytest.raises(ValueError, match="12 tokens are not those of a square crop"):
        tiny(predictor=TransformerPredictor).embed_support(randn(1, 12, 32))
    with pytest.raises(ValueError, match="no MixFormer 'large'; there are small, cvt_21"):
        create_mixformer("large")
    with pytest.raises(ValueError, match="hidden_channels must be at least 8, got 4"):
        tiny(head_channels=4)
