"""The four predictors of dynamic video prompts.

A predictor works in two halves, so that a stream can keep what the first one made:
``embed`` turns the last-stage tokens of one support frame into what prompts are predicted from,
``predict`` turns the embeddings of K support frames into prompts. ``forward`` does both.
No predictor depends on the order of the support frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stpn_core.prompts import BackboneWidths, PromptProjection
from stpn_kernels import support_attend, support_pool

Predictor = TypeVar("Predictor", bound="PromptPredictor")


class PromptPredictor(nn.Module, ABC):
    """Predict ``num_prompts`` prompts from the last-stage tokens of K support frames.

    Args:
        embed_dim: width C of the support tokens (``d_L``).
        prompt_dims: width of each layer that prompts enter; one entry for shallow prompts, one
            per transformer layer for deep ones. The first is ``d_0``.
        num_prompts: number of prompts P (``N_P``).

    Raises:
        ValueError: if ``num_prompts`` or a width is not positive.
    """

    def __init__(self, embed_dim: int, prompt_dims: Sequence[int], num_prompts: int) -> None:
        super().__init__()
        if num_prompts < 1:
            raise ValueError(f"num_prompts must be at least 1, got {num_prompts}")
        if embed_dim < 1:
            raise ValueError(f"embed_dim must be at least 1, got {embed_dim}")
        self.embed_dim = embed_dim
        self.num_prompts = num_prompts
        self.projection = PromptProjection(prompt_dims)

    @classmethod
    def for_backbone(
        cls: type[Predictor],
        backbone: BackboneWidths,
        num_prompts: int = 7,
        *,
        deep: bool = False,
        **options: Any,
    ) -> Predictor:
        """Build a predictor whose widths fit a backbone.

        Args:
            backbone: tells ``embed_dim`` and ``prompt_dims``.
            num_prompts: number of prompts; 7 is the paper's default for detection.
            deep: prompts for every transformer layer instead of the first only.
            options: further arguments of the class.
        """
        dims = backbone.prompt_dims if deep else backbone.prompt_dims[:1]
        return cls(backbone.embed_dim, dims, num_prompts, **options)

    def forward(
        self, support: Float[Tensor, "B K N {self.embed_dim}"], grid: tuple[int, int]
    ) -> list[Tensor]:
        """Predict the prompts of B clips.

        Args:
            support: last-stage tokens of the support frames, after the output norm.
            grid: rows and columns ``(h, w)`` of the N tokens of a frame.

        Returns:
            One tensor ``(B, P, D_i)`` per layer that prompts enter.

        Raises:
            ValueError: if there is no support frame, or N is not ``h * w``.
        """
        num_clips, num_support = support.shape[:2]
        embeddings = self.embed(support.flatten(0, 1), grid)  # (B*K, n, d)
        return self.predict(embeddings.unflatten(0, (num_clips, num_support)))

    def embed(
        self, tokens: Float[Tensor, "B N {self.embed_dim}"], grid: tuple[int, int]
    ) -> Float[Tensor, "B n d"]:
        """Turn the last-stage tokens of single frames into what ``predict`` reads."""
        if grid[0] * grid[1] != tokens.shape[1]:
            raise ValueError(f"grid {grid} does not hold the {tokens.shape[1]} tokens of a frame")
        return self._embed(tokens, grid)

    def predict(self, embeddings: Float[Tensor, "B K n d"]) -> list[Tensor]:
        """Turn the embeddings of K support frames into prompts, one ``(B, P, D_i)`` per layer."""
        if embeddings.shape[1] == 0:
            raise ValueError("there are no support frames: K is 0")
        return self.projection(self._predict(embeddings))  # type: ignore[no-any-return]

    @property
    def can_centre(self) -> bool:
        """Whether `centre` has something to set: a reduction of the support tokens."""
        return isinstance(getattr(self, "reduction", None), nn.Linear)

    def centre(self, mean: Float[Tensor, " {self.embed_dim}"]) -> None:
        """Begin with prompts of what differs between support tokens, not of what all share.

        Sets the bias of the reduction so that the mean token is reduced to zero. What tells the
        tokens of one clip from those of another is a small part of them; without this, short
        training hardly finds it.

        Args:
            mean: of the support tokens of many clips.

        Raises:
            ValueError: if this predictor has no reduction.
        """
        if not self.can_centre:
            raise ValueError(f"{type(self).__name__} has no reduction that could be centred")
        reduction = cast("nn.Linear", self.reduction)
        with torch.no_grad():
            reduction.bias.copy_(-(reduction.weight @ mean))

    @abstractmethod
    def _embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor: ...

    @abstractmethod
    def _predict(self, embeddings: Tensor) -> Tensor: ...


class SupportAttention(nn.Module):
    """Multi-head attention of learned queries over all tokens of the support frames.

    Keys and values are linear in the tokens, so the projections are absorbed: the key
    projection into the queries, the value projection into the attended mean. The tokens are
    read once, as they lie in memory. The key bias adds the same number to every score of a
    query and drops out of the softmax; it is there for the released weights and is not trained.

    Args:
        dim: width D of queries and tokens.
        num_heads: number of heads; must divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.key.bias.requires_grad_(False)

    def forward(
        self, queries: Float[Tensor, "P D"], tokens: Float[Tensor, "B K N D"]
    ) -> Float[Tensor, "B P D"]:
        """Attend from P queries to all ``K * N`` tokens of each clip."""
        attended = support_attend(self._absorbed(queries), tokens)  # (B, P, h, D)
        value_weight = self.value.weight.unflatten(0, (self.num_heads, -1))  # (h, D/h, D)
        values = torch.einsum("bphc,hdc->bphd", attended, value_weight)  # (B, P, h, D/h)
        return self.output(values.flatten(2) + self.value.bias)  # type: ignore[no-any-return]

    def weights(
        self, queries: Float[Tensor, "P D"], tokens: Float[Tensor, "B K N D"]
    ) -> Float[Tensor, "B P K N"]:
        """Return the weight of every token in the result of each query, mean over the heads.

        Those of a query add up to 1 over all ``K * N`` tokens; half precision becomes float32.
        For looking at, not for the forward pass, which never holds them.
        """
        dtype = torch.promote_types(tokens.dtype, torch.float32)  # as `support_attend` computes
        absorbed = self._absorbed(queries).to(dtype)
        scores = torch.einsum("phc,bknc->bphkn", absorbed, tokens.to(dtype))
        weights = scores.flatten(3).softmax(-1).mean(2)  # (B, P, K*N)
        return weights.unflatten(-1, tokens.shape[1:3])  # type: ignore[no-any-return]

    def _absorbed(self, queries: Tensor) -> Tensor:
        """Project and scale queries and take them through the key projection."""
        heads = (self.num_heads, -1)
        query = self.query(queries).unflatten(-1, heads)  # (P, h, D/h)
        key_weight = self.key.weight.unflatten(0, heads)  # (h, D/h, D)
        scale = query.shape[-1] ** -0.5
        absorbed: Tensor = torch.einsum("phd,hdc->phc", query * scale, key_weight)  # (P, h, D)
        return absorbed


def _initialise(module: nn.Module) -> None:
    """Draw linear weights Xavier-uniform and zero the biases.

    With torch's default the support frames hardly reach the prompts at first (on a small Swin
    the prompts of different clips differed by 3 % of their size), and short training ignores them.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _feed_forward(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, out_dim))


class TransformerPredictor(PromptPredictor):
    """Predict prompts with a small transformer layer (Eq. 2-4).

    Learned queries Q attend to the reduced support tokens E of all support frames::

        E' = LN(W E + b)            reduction d_L -> d_0 (the paper's parameter count needs it)
        Q' = LN(Q)
        H  = MHA(Q', E', E') + Q'                                        (Eq. 2, 3)
        P  = FFN(LN(H))                                                  (Eq. 4)

    The paper leaves the widths open; a hidden width of ``d_0 / 4`` and 8 heads are our reading,
    which gives its 45.01 M parameters on Swin-T (117,048 of them here).

    Args:
        embed_dim: width C of the support tokens (``d_L``).
        prompt_dims: width of each layer that prompts enter; the first is ``d_0``.
        num_prompts: number of prompts P.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward network; ``d_0 // 4`` if not given.
    """

    def __init__(
        self,
        embed_dim: int,
        prompt_dims: Sequence[int],
        num_prompts: int,
        *,
        num_heads: int = 8,
        ffn_dim: int | None = None,
    ) -> None:
        super().__init__(embed_dim, prompt_dims, num_prompts)
        dim = self.projection.prompt_dims[0]
        self.reduction = nn.Linear(embed_dim, dim)
        self.support_norm = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.randn(num_prompts, dim))
        self.query_norm = nn.LayerNorm(dim)
        self.attention = SupportAttention(dim, num_heads)
        self.output_norm = nn.LayerNorm(dim)
        self.ffn = _feed_forward(dim, dim // 4 if ffn_dim is None else ffn_dim, dim)
        self.apply(_initialise)

    def _embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.support_norm(self.reduction(tokens))  # type: ignore[no-any-return]

    def attention_map(self, embeddings: Float[Tensor, "B K n d"]) -> Float[Tensor, "B P K n"]:
        """Return where each prompt's query looks: weights that add up to 1 over ``K * n``."""
        return self.attention.weights(self.query_norm(self.queries), embeddings)

    def _predict(self, embeddings: Tensor) -> Tensor:
        queries = self.query_norm(self.queries)  # (P, D)
        hidden = self.attention(queries, embeddings) + queries  # (B, P, D)
        return self.ffn(self.output_norm(hidden))  # type: ignore[no-any-return]


class MixerPredictor(PromptPredictor):
    """Predict prompts by mixing tokens, then channels (Eq. 5-7).

    ::

        M = mean over the K support frames of E                          (Eq. 5)
        h = FFN_token(LN(M)^T)      tokens -> prompts, per channel       (Eq. 6)
        P = FFN_channel(LN(h^T))    d_L -> d_0, per prompt               (Eq. 7)

    Eq. 6 ties the number of tokens to one resolution; we pool the tokens of a frame to a fixed
    grid first. Pooling and temporal mean commute, so a stream keeps only pooled tokens. Grid,
    hidden widths and the norm over ``d_L`` in Eq. 7 are our reading, which gives the paper's
    44.96 M parameters on Swin-T (61,328 of them here).

    Args:
        embed_dim: width C of the support tokens (``d_L``).
        prompt_dims: width of each layer that prompts enter; the first is ``d_0``.
        num_prompts: number of prompts P.
        grid_size: rows and columns of the token grid.
        token_dim: hidden width over tokens; the number of tokens of the grid if not given.
        channel_dim: hidden width over channels.
    """

    def __init__(
        self,
        embed_dim: int,
        prompt_dims: Sequence[int],
        num_prompts: int,
        *,
        grid_size: tuple[int, int] = (7, 7),
        token_dim: int | None = None,
        channel_dim: int = 64,
    ) -> None:
        super().__init__(embed_dim, prompt_dims, num_prompts)
        self.grid_size = grid_size
        num_tokens = grid_size[0] * grid_size[1]
        self.support_norm = nn.LayerNorm(embed_dim)
        self.token_ffn = _feed_forward(num_tokens, token_dim or num_tokens, num_prompts)
        self.mixed_norm = nn.LayerNorm(embed_dim)
        self.channel_ffn = _feed_forward(embed_dim, channel_dim, self.projection.prompt_dims[0])
        self.apply(_initialise)

    def _embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        maps = tokens.transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)
        return F.adaptive_avg_pool2d(maps, self.grid_size).flatten(2).transpose(1, 2)

    def _predict(self, embeddings: Tensor) -> Tensor:
        norm = self.support_norm
        mean = support_pool(embeddings, norm.weight, norm.bias, norm.eps)  # (B, n, C)
        mixed = self.token_ffn(mean.transpose(1, 2)).transpose(1, 2)  # (B, P, C)
        return self.channel_ffn(self.mixed_norm(mixed))  # type: ignore[no-any-return]


class AttentionPredictor(PromptPredictor):
    """Predict prompts as the released code does: reduction, then plain multi-head attention.

    No norm, no residual, no feed-forward network. Loads the released weights through
    ``convert_released_predictor``.

    Args:
        embed_dim: width C of the support tokens (``d_L``).
        prompt_dims: width of each layer that prompts enter; the first is ``d_0``.
        num_prompts: number of prompts P (5 in the released model).
        num_heads: attention heads.
    """

    def __init__(
        self,
        embed_dim: int,
        prompt_dims: Sequence[int],
        num_prompts: int,
        *,
        num_heads: int = 16,
    ) -> None:
        super().__init__(embed_dim, prompt_dims, num_prompts)
        dim = self.projection.prompt_dims[0]
        self.reduction = nn.Linear(embed_dim, dim)
        self.queries = nn.Parameter(torch.randn(num_prompts, dim))
        self.attention = SupportAttention(dim, num_heads)

    def _embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.reduction(tokens)  # type: ignore[no-any-return]

    def attention_map(self, embeddings: Float[Tensor, "B K n d"]) -> Float[Tensor, "B P K n"]:
        """Return where each prompt's query looks: weights that add up to 1 over ``K * n``."""
        return self.attention.weights(self.queries, embeddings)

    def _predict(self, embeddings: Tensor) -> Tensor:
        return self.attention(self.queries, embeddings)  # type: ignore[no-any-return]


class AveragePredictor(PromptPredictor):
    """Predict prompts as the released code's ``avg`` does: strongest tokens, mean, reduction.

    Of each support frame the P tokens of largest L1 norm, in descending order, are averaged
    rank by rank over the frames and reduced to ``d_0``. This is not the paper's mixer.
    """

    def __init__(self, embed_dim: int, prompt_dims: Sequence[int], num_prompts: int) -> None:
        super().__init__(embed_dim, prompt_dims, num_prompts)
        self.reduction = nn.Linear(embed_dim, self.projection.prompt_dims[0])

    def _embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if tokens.shape[1] < self.num_prompts:
            raise ValueError(
                f"a support frame has {tokens.shape[1]} tokens, too few for "
                f"{self.num_prompts} prompts"
            )
        strength = tokens.abs().sum(-1)  # (B, N)
        strongest = strength.topk(self.num_prompts, dim=1).indices  # (B, P)
        # Not take_along_dim: it ties a compiled graph to one number of tokens.
        return tokens.gather(1, strongest.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))

    def _predict(self, embeddings: Tensor) -> Tensor:
        return self.reduction(embeddings.mean(1))  # type: ignore[no-any-return]


_RELEASED_NAMES = {
    "query": "queries",
    "reduction": "reduction",
    "fc_embed": "attention.query",
    "ref_fc_embed": "attention.key",
    "ref_fc": "attention.value",
    "fc": "attention.output",
}


def convert_released_predictor(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' predictor weights for ``AttentionPredictor`` or ``AveragePredictor``.

    Args:
        state_dict: the entries below ``prompt_predictor.`` of a released checkpoint, without
            that prefix.

    Raises:
        KeyError: if a name is not one of the released predictor's.
    """
    converted = {}
    for name, weight in state_dict.items():
        module, _, parameter = name.partition(".")
        if module not in _RELEASED_NAMES:
            raise KeyError(f"{name!r} is not a weight of the released predictor")
        converted[".".join(filter(None, (_RELEASED_NAMES[module], parameter)))] = weight
    return converted
