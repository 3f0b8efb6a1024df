"""The Mask2Former head and its losses against transformers' implementation, weights copied."""

import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from stpn_tasks.segmentation.head import Mask2FormerHead
from stpn_tasks.segmentation.losses import MaskCriterion

theirs = pytest.importorskip(
    "transformers.models.mask2former.modeling_mask2former", reason="transformers is not installed"
)

CHANNELS, K, Q, DIM, POINTS = (24, 16, 40, 48), 5, 20, 64, 300
SIZES = ((24, 32), (12, 16), (6, 8), (3, 4))
# From transformers' names to ours; its queries, keys and values of self-attention come apart.
NAMES = (
    (r"^pixel\.input_projections\.", "pixel_decoder.input_projections."),
    (r"^pixel\.level_embed$", "pixel_decoder.level_embed"),
    (r"^pixel\.encoder\.layers\.", "pixel_decoder.layers."),
    (r"\.self_attn\.sampling_offsets\.", ".attention.offsets."),
    (r"\.self_attn\.attention_weights\.", ".attention.weights."),
    (r"\.self_attn\.value_proj\.", ".attention.values."),
    (r"\.self_attn\.output_proj\.", ".attention.output."),
    (r"^(pixel_decoder.*)\.self_attn_layer_norm\.", r"\1.attention_norm."),
    (r"^pixel\.adapter_1\.", "pixel_decoder.laterals.0."),
    (r"^pixel\.layer_1\.", "pixel_decoder.outputs.0."),
    (r"^pixel\.mask_projection\.", "pixel_decoder.mask_features."),
    (r"^decoder\.queries_features\.", "decoder.query_features."),
    (r"^decoder\.queries_embedder\.", "decoder.query_positions."),
    (r"^decoder\.decoder\.layers\.", "decoder.layers."),
    (r"\.cross_attn\.", ".cross_attention."),
    (r"\.cross_attn_layer_norm\.", ".cross_norm."),
    (r"\.self_attn\.out_proj\.", ".self_attention.out_proj."),
    (r"\.self_attn_layer_norm\.", ".self_norm."),
    (r"\.fc1\.", ".ffn.0."),
    (r"\.fc2\.", ".ffn.2."),
    (r"\.final_layer_norm\.", ".ffn_norm."),
    (r"^decoder\.decoder\.layernorm\.", "decoder.norm."),
    (r"^decoder\.decoder\.mask_predictor\.mask_embedder\.0\.0\.", "decoder.mask_head.0."),
    (r"^decoder\.decoder\.mask_predictor\.mask_embedder\.1\.0\.", "decoder.mask_head.2."),
    (r"^decoder\.decoder\.mask_predictor\.mask_embedder\.2\.0\.", "decoder.mask_head.4."),
    (r"^classes\.", "decoder.class_head."),
)


def settings(mask_dim):
    from transformers import Mask2FormerConfig, SwinConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    return Mask2FormerConfig(
        backbone_config=SwinConfig(out_features=stages),  # not built, only asked for
        feature_size=DIM,
        mask_feature_size=mask_dim,
        hidden_dim=DIM,
        encoder_feedforward_dim=96,
        dim_feedforward=80,
        encoder_layers=2,
        decoder_layers=5,  # four, and the prediction before them
        num_attention_heads=4,
        num_queries=Q,
        num_labels=K,
        train_num_points=POINTS,
        dropout=0.0,
    )


class Theirs(nn.Module):
    """The parts of transformers' model without a backbone, with random weights of our own."""

    def __init__(self, mask_dim):
        super().__init__()
        config = settings(mask_dim)
        self.pixel = theirs.Mask2FormerPixelDecoder(config, CHANNELS)
        self.decoder = theirs.Mask2FormerTransformerModule(DIM, config)
        self.classes = nn.Linear(DIM, K + 1)
        weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
        self.criterion = theirs.Mask2FormerLoss(config, weights)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.named_parameters():
            # Queries far apart from each other: no two assignments cost the same.
            own = parameter.ndim == 1 or "quer" in name or "level_embed" in name
            std = 1.0 if own else parameter[0].numel() ** -0.5
            nn.init.normal_(parameter, std=std, generator=generator)
            if "sampling_offsets" in name:  # places between cells, some of them outside
                parameter.data.mul_(3.0)

    def forward(self, features):
        pixels = self.pixel(list(features), return_dict=True)
        found = self.decoder(list(pixels.multi_scale_features), pixels.mask_features)
        states = [state.transpose(0, 1) for state in found.intermediate_hidden_states]
        return [self.classes(state) for state in states], found.masks_queries_logits, states

    def weights(self):
        """Return the weights by our names."""
        named = dict(self.named_parameters())
        for key in [key for key in named if ".self_attn.q_proj." in key]:
            parts = [named.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            ours = key.replace("self_attn.q_proj.", "self_attention.in_proj_")
            named[ours] = torch.cat(parts)
        ours = {}
        for key, parameter in named.items():
            for pattern, replacement in NAMES:
                key = re.sub(pattern, replacement, key)
            ours[key] = parameter.detach()
        return ours


@pytest.fixture(scope="module", params=[DIM, 24], ids=["mask_dim=dim", "mask_dim=24"])
def both(request):
    reference = Theirs(request.param)
    head = Mask2FormerHead(
        CHANNELS,
        K,
        num_queries=Q,
        dim=DIM,
        mask_dim=request.param,
        num_heads=4,
        encoder_layers=2,
        encoder_ffn_dim=96,
        decoder_layers=4,
        decoder_ffn_dim=80,
    )
    head.load_state_dict(reference.weights())  # strict: no weight of either is left over
    return reference.train(), head.train()


def features(seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, *size, generator=generator)
        for width, size in zip(CHANNELS, SIZES, strict=True)
    ]


def objects(counts, seed=0):
    """Rectangles and their labels on images of four times the finest map."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 4 * SIZES[0][0], 4 * SIZES[0][1]
    labels, masks = [], []
    for count in counts:
        labels.append(torch.randint(K, (count,), generator=generator))
        mask = torch.zeros(count, height, width)
        for each in mask:
            top = int(torch.randint(height - 20, (1,), generator=generator))
            left = int(torch.randint(width - 30, (1,), generator=generator))
            each[top : top + 20, left : left + 30] = 1
        masks.append(mask)
    return labels, masks


def test_predictions_of_every_layer_equal_transformers(both):
    reference, head = both
    maps = features()
    with torch.no_grad():
        logits, masks, embeddings = reference(maps)
        ours = head(maps)
    layers = [*ours.auxiliary, ours]
    assert len(layers) == len(logits) == 5
    for layer, *expected in zip(layers, logits, masks, embeddings, strict=True):
        for mine, other in zip(
            (layer.logits, layer.masks, layer.embeddings), expected, strict=True
        ):
            assert_close(mine, other, atol=1e-4, rtol=1e-4)
    assert ours.masks.std() > 0.1
    assert ours.logits.std() > 0.1


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (0, 0), (Q + 3, 1)])
def test_losses_and_gradients_equal_transformers(both, counts):
    reference, head = both
    labels, masks = objects(counts)
    theirs_in, ours_in = ([m.requires_grad_() for m in features(1)] for _ in range(2))
    logits, mask_logits, _ = reference(theirs_in)
    torch.manual_seed(3)
    auxiliary = [
        {"class_queries_logits": c, "masks_queries_logits": m}
        for c, m in zip(logits[:-1], mask_logits[:-1], strict=True)
    ]
    terms = reference.criterion(mask_logits[-1], logits[-1], masks, labels, auxiliary)
    expected = {
        name: weight * sum(v for key, v in terms.items() if key.startswith(f"loss_{name}"))
        for name, weight in (("cross_entropy", 2), ("mask", 5), ("dice", 5))
    }
    torch.manual_seed(3)
    losses = MaskCriterion(num_points=POINTS)(head(ours_in), labels, masks)
    assert_close(losses.classification, expected["cross_entropy"], atol=1e-4, rtol=1e-4)
    assert_close(losses.mask, expected["mask"], atol=1e-4, rtol=1e-4)
    assert_close(losses.dice, expected["dice"], atol=1e-4, rtol=1e-4)
    sum(expected.values()).backward()
    losses.total.backward()
    for mine, other in zip(ours_in, theirs_in, strict=True):
        assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-3)


def test_the_sizes_of_the_paper_have_as_many_weights():
    from transformers import Mask2FormerConfig, SwinConfig

    stages = [f"stage{i}" for i in range(1, 5)]
    config = Mask2FormerConfig(backbone_config=SwinConfig(out_features=stages), num_labels=40)
    channels = (96, 192, 384, 768)
    with torch.device("meta"):
        reference = (
            theirs.Mask2FormerPixelDecoder(config, channels),
            theirs.Mask2FormerTransformerModule(256, config),
            nn.Linear(256, 41),
        )
        head = Mask2FormerHead(channels, 40)
    expected = sum(w.numel() for module in reference for w in module.parameters())
    assert sum(w.numel() for w in head.parameters()) == expected == 19_890_665
