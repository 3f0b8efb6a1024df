"""MixFormer (Cui et al. 2022), and STPN in it: prompts beside the search crop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpn_core import PromptPredictor
from stpn_tasks.tracking.corner_head import CornerHead, expected_boxes
from stpn_tasks.tracking.mixed_attention import EncodedTemplates, MixedAttentionCvt
from stpn_tasks.tracking.score_head import ScoreHead

_SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "dims": (32, 64, 128),
        "depths": (1, 1, 2),
        "num_heads": (1, 2, 4),
        "head_channels": 64,
        "drop_path_rate": 0.0,
    },
    "cvt_21": {
        "dims": (64, 192, 384),
        "depths": (1, 4, 16),
        "num_heads": (1, 3, 6),
        "head_channels": 384,
        "drop_path_rate": 0.1,
    },
    # CvT-W24 without the last eight of its twenty blocks.
    "cvt_w24": {
        "dims": (192, 768, 1024),
        "depths": (2, 2, 12),
        "num_heads": (3, 12, 16),
        "head_channels": 384,
        "drop_path_rate": 0.3,
    },
}


@dataclass(frozen=True)
class Tracked:
    """What the network finds in the search crops of B clips.

    Attributes:
        boxes_cxcywh: centre, width and height in shares of the crop.
        scores: logits of the target being in its box; None without score module.
        search_tokens: last-stage tokens of the crop, row by row: what support is embedded from.
        corner_logits: over the cells of the crop, of the top left and of the bottom right corner.
    """

    boxes_cxcywh: Float[Tensor, "B 4"]
    scores: Float[Tensor, " B"] | None
    search_tokens: Float[Tensor, "B N C"]
    corner_logits: Float[Tensor, "B 2 h w"]


torch.export.register_dataclass(Tracked)


class MixFormer(nn.Module):
    """Find the target of templates in a search crop, helped by prompts from earlier crops.

    With prompts, a pass without them over earlier search crops, beside the same templates, gives
    the support tokens; the predictor makes prompts of them (`embed_support`, `predict_prompts`),
    which join the search crop: search and prompts see templates, prompts and search, templates see
    templates. After the last layer prompts are dropped, so that heads and checkpoints are
    MixFormer's. Where the paper leaves tracking open, docs/protocols.md says what was chosen.

    Args:
        backbone: encodes templates and search crops.
        box_head: predicts the box.
        score_head: predicts the score; None for a network of the first stage of training.
        predictor: predicts prompts; None is plain MixFormer.
        prompt_gate: begin near the network without prompts (ours): learn, for every layer, a
            number that is added to the scores of the prompts' keys, with this value at first. At
            -3 a prompt weighs ``exp(-3)``, a twentieth, of what it would. None, as in the paper,
            lets prompts weigh as any key. Prompts that are small at first would not do: norms scale
            them up, and a prompt of zeros draws as much attention.

    Raises:
        ValueError: if the predictor does not fit the backbone, or predicts a number of shallow
            prompts that is no square; or if there is a gate but no predictor.
    """

    def __init__(
        self,
        backbone: MixedAttentionCvt,
        box_head: CornerHead,
        score_head: ScoreHead | None = None,
        predictor: PromptPredictor | None = None,
        prompt_gate: float | None = None,
    ) -> None:
        super().__init__()
        if predictor is not None:
            _check_predictor(backbone, predictor)
        elif prompt_gate is not None:
            raise ValueError("prompt_gate is of prompts: there is no predictor")
        self.backbone = backbone
        self.box_head = box_head
        self.score_head = score_head
        self.predictor = predictor
        self.prompt_gates: nn.Parameter | None = None
        if prompt_gate is not None:
            num_layers = len(backbone.prompt_dims)
            self.prompt_gates = nn.Parameter(torch.full((num_layers,), float(prompt_gate)))

    def forward(
        self,
        template: Float[Tensor, "B 3 T T"],
        online: Float[Tensor, "B 3 T T"],
        search: Float[Tensor, "B 3 S S"],
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
        score_boxes: Float[Tensor, "B 4"] | None = None,
    ) -> Tracked:
        """Encode templates and search in one call, as training does.

        Args:
            template: initial templates, normalised by ImageNet's mean and standard deviation.
            online: an online template of each clip.
            search: search crops.
            prompts: see `track`.
            score_boxes: see `track`.
        """
        templates = self.encode_templates(template, online.unsqueeze(1))
        return self.track(search, templates, prompts, score_boxes)

    def encode_templates(
        self, template: Float[Tensor, "B 3 T T"], online: Float[Tensor, "B n 3 T T"]
    ) -> EncodedTemplates:
        """Encode templates for as many search crops as they are valid for.

        Args:
            template: initial templates.
            online: n online templates of each clip, at least one.

        Raises:
            ValueError: if there is no online template; the original always has one, at first the
                initial template once more.
        """
        if online.shape[1] == 0:
            raise ValueError("there is no online template: at first it is the initial template")
        return self.backbone.encode_templates(torch.cat([template.unsqueeze(1), online], dim=1))

    def track(
        self,
        search: Float[Tensor, "B 3 S S"],
        templates: EncodedTemplates,
        prompts: Sequence[Float[Tensor, "B P _"]] | None = None,
        score_boxes: Float[Tensor, "B 4"] | None = None,
    ) -> Tracked:
        """Find the target in search crops.

        Args:
            search: search crops; S a multiple of 32, as in the original.
            templates: of the same clips.
            prompts: of the same clips, from `predict_prompts`; None for plain MixFormer.
            score_boxes: boxes (cxcywh in shares of the crop) to score instead of those found, as
                the second stage of training does with the labels.

        Raises:
            TypeError: if the crops' dtype is not that of the weights (unless under autocast).
            ValueError: if a shape or number does not fit.
        """
        tokens, grid = self.backbone.search(
            search, templates, prompts, self.prompt_gates
        )  # (B, N, C)
        maps = tokens.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        corner_logits = self.box_head.corner_logits(maps)  # (B, 2, h, w)
        boxes_xyxy = expected_boxes(corner_logits)
        scores = None
        if self.score_head is not None:
            scored = boxes_xyxy if score_boxes is None else _to_xyxy(score_boxes)
            scores = self.score_head(maps, scored, templates.tokens[:, 0])
        return Tracked(_to_cxcywh(boxes_xyxy), scores, tokens, corner_logits)

    def embed_support(self, search_tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B n d"]:
        """Turn the search tokens of a pass without prompts into what prompts are predicted from.

        Raises:
            ValueError: if the network has no predictor, or the tokens are of no square crop.
        """
        side = math.isqrt(search_tokens.shape[1])
        if side * side != search_tokens.shape[1]:
            raise ValueError(f"{search_tokens.shape[1]} tokens are not those of a square crop")
        return self._predictor.embed(search_tokens, (side, side))

    def embed_support_crops(
        self, crops: Float[Tensor, "B K 3 C C"], templates: EncodedTemplates
    ) -> Float[Tensor, "B K n d"]:
        """Embed support crops of each clip, of K earlier frames, for training.

        No gradient flows through the pass over them, as in the authors' code.
        """
        num_clips, num_support = crops.shape[:2]
        with torch.no_grad():
            tokens, _ = self.backbone.search(
                crops.flatten(0, 1), templates.repeat_interleave(num_support)
            )  # (B*K, N, C)
        embeddings: Tensor = self.embed_support(tokens).unflatten(0, (num_clips, num_support))
        return embeddings

    def predict_prompts(self, embeddings: Float[Tensor, "B K n d"]) -> list[Tensor]:
        """Predict prompts from K support embeddings: one ``(B, P, D_i)`` per prompted layer.

        Raises:
            ValueError: if the network has no predictor.
        """
        return self._predictor.predict(embeddings)

    @property
    def _predictor(self) -> PromptPredictor:
        if self.predictor is None:
            raise ValueError("this network has no predictor: it takes no support")
        return self.predictor


def create_mixformer(
    name: str = "cvt_21",
    *,
    score: bool = True,
    predictor: type[PromptPredictor] | None = None,
    num_prompts: int = 9,
    deep: bool = False,
    predictor_options: Mapping[str, Any] | None = None,
    prompt_gate: float | None = None,
    frozen_head_batch_norm: bool = False,
    head_channels: int | None = None,
    score_heads: int | None = None,
    **options: Any,
) -> MixFormer:
    """Build a MixFormer by the name of its size.

    Args:
        name: ``cvt_21`` (MixFormer), ``cvt_w24`` (MixFormer-L) or ``small``, for the CPU.
        score: with the score module.
        predictor: class of the predictor, such as `TransformerPredictor`; None for plain MixFormer.
        num_prompts: prompts P; 9 in the paper, as 3x3.
        deep: prompts for every layer instead of the first only.
        predictor_options: further arguments of the predictor's class.
        prompt_gate: see `MixFormer`.
        frozen_head_batch_norm: keep the box head's batch norms constant, as the second stage does.
        head_channels: width of the box head's first convolution.
        score_heads: attention heads of the score module; one per 64 channels if not given.
        **options: arguments of `MixedAttentionCvt`, in place of those of the name: ``dims``,
            ``depths``, ``num_heads``, ``drop_path_rate``, ``prompt_conv``, ``frozen_batch_norm``.

    Raises:
        ValueError: if the name is unknown or widths do not fit.
    """
    if name not in _SIZES:
        raise ValueError(f"no MixFormer {name!r}; there are {', '.join(_SIZES)}")
    size = {**_SIZES[name], **options}
    default_channels = size.pop("head_channels")
    backbone = MixedAttentionCvt(**size)
    box_head = CornerHead(
        backbone.embed_dim,
        default_channels if head_channels is None else head_channels,
        frozen_batch_norm=frozen_head_batch_norm,
    )
    return MixFormer(
        backbone,
        box_head,
        ScoreHead(backbone.embed_dim, score_heads) if score else None,
        None
        if predictor is None
        else predictor.for_backbone(backbone, num_prompts, deep=deep, **(predictor_options or {})),
        prompt_gate,
    )


def _check_predictor(backbone: MixedAttentionCvt, predictor: PromptPredictor) -> None:
    widths = predictor.projection.prompt_dims
    if predictor.embed_dim != backbone.embed_dim:
        raise ValueError(
            f"the predictor reads tokens of width {predictor.embed_dim}, the backbone gives "
            f"{backbone.embed_dim}"
        )
    if widths not in (backbone.prompt_dims[:1], backbone.prompt_dims):
        raise ValueError(
            f"the prompts have the widths {widths}; the backbone takes {backbone.prompt_dims[:1]} "
            f"(shallow) or {backbone.prompt_dims} (deep)"
        )
    is_shallow = len(widths) == 1
    if is_shallow and math.isqrt(predictor.num_prompts) ** 2 != predictor.num_prompts:
        raise ValueError(
            "shallow prompts pass between stages as a square map: their number must be a square, "
            f"such as 9 for 3x3, got {predictor.num_prompts}"
        )


def _to_xyxy(boxes_cxcywh: Float[Tensor, "B 4"]) -> Float[Tensor, "B 4"]:
    centres, sizes = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)


def _to_cxcywh(boxes_xyxy: Float[Tensor, "B 4"]) -> Float[Tensor, "B 4"]:
    start, end = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    return torch.cat([(start + end) / 2, end - start], dim=1)
