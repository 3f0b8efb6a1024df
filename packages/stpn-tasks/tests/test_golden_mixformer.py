"""MixFormer against the authors' code: every array of their small networks."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from stpn_kernels.testing import as_tensors, load_golden
from stpn_tasks.tracking.mixformer import Tracked, create_mixformer
from stpn_tasks.tracking.weights import load_mixformer_weights

# The float32 noise between correct implementations (golden/mixformer/README).
FEATURES, BOXES = 1e-4, 1e-5


@pytest.fixture(
    scope="module",
    params=[
        "mixformer_small_a",
        "mixformer_small_b_bn",
        "mixformer_small_c_odd",
        "mixformer_small_d_2headspm",
    ],
)
def case(request):
    """A network with the golden weights, and the arrays of the same run."""
    arrays = load_golden(f"mixformer/{request.param}.npz")
    meta = json.loads(str(arrays.pop("meta_json")))
    network = create_mixformer(
        "small",
        dims=meta["dims"],
        depths=meta["depths"],
        num_heads=meta["heads"],
        head_channels=meta["head_dim"],
        score_heads=meta["score_heads"],
        frozen_batch_norm=meta["freeze_bn"],
        frozen_head_batch_norm=meta["head_freeze_bn"],
    ).eval()
    weights = as_tensors(arrays, "sd/")
    report = load_mixformer_weights(network, weights)
    assert set(report.unexpected) == {
        key for key in weights if key.startswith(("backbone.norm.", "backbone.head."))
    }
    assert report.new == ()
    assert set(report.loaded) == set(network.state_dict())
    golden = as_tensors({name: a for name, a in arrays.items() if not name.startswith("sd/")})
    return SimpleNamespace(network=network, golden=golden, compared=set())


def assert_map(actual, expected):
    """Compare tokens (B, N, C) with a map (B, C, h, w), or two of a kind."""
    if expected.ndim > actual.ndim:
        actual = actual.transpose(1, 2).unflatten(2, expected.shape[2:])
    assert_close(actual, expected, atol=FEATURES, rtol=FEATURES)


def boxes_cxcywh(xyxy):
    return torch.cat([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], dim=1)


def recorded(network, run):
    """Run, and return what passed the parts of the backbone: templates first, then search."""
    seen = {}

    def keep(name, value):
        seen.setdefault(name, []).append(value)

    handles = []
    for index, stage in enumerate(network.backbone.stages):
        block = stage.blocks[0]
        handles += [
            stage.patch_embed.register_forward_pre_hook(
                lambda _, args, i=index: keep(f"stage{i}.input", args[0])
            ),
            stage.patch_embed.register_forward_hook(
                lambda _, args, out, i=index: keep(f"stage{i}.patch_embed", out[0])
            ),
            block.norm1.register_forward_pre_hook(
                lambda _, args, i=index: keep(f"stage{i}.tokens_in", args[0])
            ),
            block.attn.proj.register_forward_hook(
                lambda _, args, out, i=index: keep(f"stage{i}.attn_out", out)
            ),
        ]
        if len(stage.blocks) > 1:
            handles.append(
                stage.blocks[1].norm1.register_forward_pre_hook(
                    lambda _, args, i=index: keep(f"stage{i}.out", args[0])
                )
            )
    result = run()
    for handle in handles:
        handle.remove()
    return result, seen


@torch.no_grad()
def test_every_array_of_the_authors_network(case):
    network, golden = case.network, dict(case.golden)
    template, online = golden.pop("template"), golden.pop("online_template")
    search, gt_boxes = golden.pop("search"), golden.pop("gt_bboxes_xyxy")
    templates = network.encode_templates(template, online.unsqueeze(1))
    tracked, seen = recorded(network, lambda: network(template, online, search))
    joint_backbone(case.network, templates, tracked, seen, golden)
    heads(case.network, tracked, golden, gt_boxes)

    assert_close(
        tracked.boxes_cxcywh, golden.pop("joint.pred_boxes_cxcywh")[:, 0], atol=BOXES, rtol=0
    )
    assert_close(tracked.scores, golden.pop("joint.pred_scores_logit"), atol=BOXES, rtol=0)
    at_labels = network(template, online, search, score_boxes=boxes_cxcywh(gt_boxes))
    assert_close(at_labels.scores, golden.pop("joint.pred_scores_logit_gtbox"), atol=BOXES, rtol=0)

    onlines = golden.pop("online_templates")
    for n in range(1, len(onlines) + 1):
        cached(network, template[:1], onlines[:n].unsqueeze(0), search[:1], n, golden)
    assert golden == {}


def joint_backbone(network, templates, tracked: Tracked, seen, golden):
    """Compare all stages; each array that was compared is taken out of the golden ones."""
    batch = len(tracked.search_tokens)
    for i in range(3):
        assert_map(seen[f"stage{i}.patch_embed"][1], golden.pop(f"stage{i}.patch_embed.search"))
        if i < 2:
            images, crops = seen[f"stage{i + 1}.input"]
        else:
            images, crops = templates.tokens.flatten(0, 1), tracked.search_tokens
        images = images.unflatten(0, (batch, 2))
        assert_map(images[:, 0], golden.pop(f"stage{i}.template"))
        assert_map(images[:, 1], golden.pop(f"stage{i}.online_template"))
        assert_map(crops, golden.pop(f"stage{i}.search"))
    for name, arrays in (
        ("tokens_in", seen["stage2.tokens_in"]),
        ("attn_out", seen["stage2.attn_out"]),
        ("out", seen.get("stage2.out", [templates.tokens.flatten(1, 2), tracked.search_tokens])),
    ):
        assert_map(torch.cat(arrays, dim=1), golden.pop(f"stage2.block0.{name}"))
    assert_map(templates.tokens[:, 0], golden.pop("backbone.template"))
    assert_map(tracked.search_tokens, golden.pop("backbone.search"))


def heads(network, tracked, golden, gt_boxes):
    grid = golden["corner.score_map_tl"].shape[2:]
    maps = tracked.search_tokens.transpose(1, 2).unflatten(2, grid)
    maps_of_corners = network.box_head.corner_logits(maps).split(1, dim=1)
    for logits, corner in zip(maps_of_corners, ("tl", "br"), strict=True):
        assert_close(logits, golden.pop(f"corner.score_map_{corner}"), atol=FEATURES, rtol=FEATURES)
    assert_close(network.box_head(maps), golden.pop("corner.boxes_xyxy"), atol=BOXES, rtol=0)
    pooled = network.score_head.pool(maps, gt_boxes)
    assert_close(pooled, golden.pop("spm.prroi_gtbox"), atol=FEATURES, rtol=FEATURES)


def cached(network, template, onlines, search, n, golden):
    """Compare a search with n online templates, where the golden run has that number."""
    if f"cached{n}.search_feat" not in golden:
        return
    templates = network.encode_templates(template, onlines)
    tracked = network.track(search, templates)
    assert_map(templates.tokens[:, 0], golden.pop(f"cached{n}.template_feat"))
    assert_map(tracked.search_tokens, golden.pop(f"cached{n}.search_feat"))
    boxes = golden.pop(f"cached{n}.pred_boxes_cxcywh")[:, 0]
    assert_close(tracked.boxes_cxcywh, boxes, atol=BOXES, rtol=0)
    assert_close(tracked.scores, golden.pop(f"cached{n}.pred_scores_logit"), atol=BOXES, rtol=0)
