"""Checkpoints of exact keys and shapes, filled as the golden runs were; tests have a fixture.

The keys of the authors' video detectors, and of the single-frame detectors beside them.
"""

import math

import torch

from stpn_kernels.testing import hash_fill, hash_fill_weight

SMALL = {"embed_dim": 32, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
SMALL_HEAD = {"fpn_channels": 64, "fc_dim": 128, "num_classes": 5}
FULL = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
FULL_HEAD = {"fpn_channels": 256, "fc_dim": 1024, "num_classes": 30}
MULTIPLIERS = {"rpn_cls": 0.8, "rpn_reg": 0.4, "fc_cls": 3.0, "fc_reg": 1.5}


def _with_bias(layers):
    shapes = {}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def backbone_shapes(embed_dim, depths, num_heads):
    """Return mmdet's keys of a Swin, with the index buffers."""
    shapes = _with_bias(
        {"patch_embed.projection": (embed_dim, 3, 4, 4), "patch_embed.norm": (embed_dim,)}
    )
    for s, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        C = embed_dim * 2**s
        for b in range(depth):
            block = f"stages.{s}.blocks.{b}"
            layers = {
                "norm1": (C,),
                "attn.w_msa.qkv": (3 * C, C),
                "attn.w_msa.proj": (C, C),
                "norm2": (C,),
                "ffn.layers.0.0": (4 * C, C),
                "ffn.layers.1": (C, 4 * C),
            }
            shapes |= _with_bias({f"{block}.{name}": shape for name, shape in layers.items()})
            shapes[f"{block}.attn.w_msa.relative_position_bias_table"] = (169, heads)
            shapes[f"{block}.attn.w_msa.relative_position_index"] = (49, 49)
        if s < len(depths) - 1:
            shapes |= _with_bias({f"stages.{s}.downsample.norm": (4 * C,)})
            shapes[f"stages.{s}.downsample.reduction.weight"] = (2 * C, 4 * C)
        shapes |= _with_bias({f"norm{s}": (C,)})
    return shapes


def head_shapes(widths, fpn_channels, fc_dim, num_classes, selsa=False):
    """Return the keys of neck, RPN and box head."""
    C = fpn_channels
    layers = {f"neck.lateral_convs.{i}.conv": (C, width, 1, 1) for i, width in enumerate(widths)}
    layers |= {f"neck.fpn_convs.{i}.conv": (C, C, 3, 3) for i in range(len(widths))}
    layers |= {
        "rpn_head.rpn_conv": (C, C, 3, 3),
        "rpn_head.rpn_cls": (3, C, 1, 1),
        "rpn_head.rpn_reg": (12, C, 1, 1),
        "roi_head.bbox_head.shared_fcs.0": (fc_dim, 49 * C),
        "roi_head.bbox_head.shared_fcs.1": (fc_dim, fc_dim),
        "roi_head.bbox_head.fc_cls": (num_classes + 1, fc_dim),
        "roi_head.bbox_head.fc_reg": (4 * num_classes, fc_dim),
    }
    if selsa:
        parts = ("fc_embed", "ref_fc_embed", "ref_fc", "fc")
        layers |= {
            f"roi_head.bbox_head.aggregator.{i}.{part}": (fc_dim, fc_dim)
            for i in range(2)
            for part in parts
        }
    return _with_bias(layers)


def mask_shapes(fpn_channels, num_classes):
    """Return the keys that Mask R-CNN has beside Faster R-CNN."""
    C = fpn_channels
    layers = {f"roi_head.mask_head.convs.{i}.conv": (C, C, 3, 3) for i in range(4)}
    layers["roi_head.mask_head.upsample"] = (C, C, 2, 2)
    layers["roi_head.mask_head.conv_logits"] = (num_classes, C, 1, 1)
    return _with_bias(layers)


def predictor_shapes(kind, num_prompts, dim, embed_dim):
    """Return the keys of the authors' predictors."""
    layers = {"reduction": (dim, embed_dim)}
    if kind == "average":
        return _with_bias(layers)
    layers |= dict.fromkeys(("fc_embed", "ref_fc_embed", "fc", "ref_fc"), (dim, dim))
    return {"query": (num_prompts, dim), **_with_bias(layers)}


def widths(backbone):
    return [backbone["embed_dim"] * 2**s for s in range(len(backbone["depths"]))]


def fill_backbone(prefix, shapes):
    return {
        key: torch.zeros(shape, dtype=torch.int64)
        if key.endswith("relative_position_index")
        else hash_fill_weight(prefix, key, shape)
        for key, shape in shapes.items()
    }


def fill_head(prefix, shapes):
    filled = {}
    for key, shape in shapes.items():
        scale = 0.1
        if key.endswith("weight"):
            multiplier = MULTIPLIERS.get(key.split(".")[-2], 1.0)
            scale = multiplier * math.sqrt(3 / math.prod(shape[1:]))
        filled[key] = hash_fill(prefix + key, shape, scale)
    return filled


def released(
    backbone=SMALL,
    head=SMALL_HEAD,
    *,
    predictor="attention",
    num_prompts=5,
    selsa=False,
    prefixes=("small.", "det.S9.", "pipe.att."),
):
    """Return a state dict of the authors' layout."""
    swin = fill_backbone(prefixes[0], backbone_shapes(**backbone))
    rest = fill_head(prefixes[1], head_shapes(widths(backbone), **head, selsa=selsa))
    state_dict = {f"detector.backbone.{key}": value for key, value in swin.items()}
    state_dict |= {f"detector.{key}": value for key, value in rest.items()}
    if predictor != "none":
        shapes = predictor_shapes(
            predictor, num_prompts, backbone["embed_dim"], widths(backbone)[-1]
        )
        state_dict |= {
            f"prompt_predictor.{key}": hash_fill_weight(prefixes[2], key, shape)
            for key, shape in shapes.items()
        }
    return state_dict


def mask_rcnn(backbone=SMALL, head=SMALL_HEAD, *, microsoft=False):
    """Return a state dict of a single-frame Mask R-CNN, by mmdet's or Microsoft's names."""
    swin = fill_backbone("small.", backbone_shapes(**backbone))
    shapes = head_shapes(widths(backbone), **head)
    shapes |= mask_shapes(head["fpn_channels"], head["num_classes"])
    if microsoft:
        renamed = (
            ("patch_embed.projection", "patch_embed.proj"),
            ("stages.", "layers."),
            ("attn.w_msa", "attn"),
            ("ffn.layers.0.0", "mlp.fc1"),
            ("ffn.layers.1", "mlp.fc2"),
        )
        for old, new in renamed:
            swin = {key.replace(old, new): value for key, value in swin.items()}
    return {
        **{f"backbone.{key}": value for key, value in swin.items()},
        **fill_head("det.S9.", shapes),
    }


def mmcv_file(path, state_dict):
    """Write a checkpoint as mmcv does, with what stands beside the weights."""
    meta = {"epoch": 9, "iter": 123399, "mmcv_version": "1.3.17", "CLASSES": ("cat", "dog")}
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(1)}}, "param_groups": []}
    torch.save({"meta": meta, "state_dict": state_dict, "optimizer": optimizer}, path)
    return path
