import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_core import (
    AttentionPredictor,
    AveragePredictor,
    MixerPredictor,
    TransformerPredictor,
    convert_released_predictor,
)
from stpn_kernels import support_attend
from stpn_kernels.testing import as_tensors, assert_golden, load_golden

PREDICTORS = [TransformerPredictor, MixerPredictor, AttentionPredictor, AveragePredictor]
SWIN_TINY = (96, 96, 192, 192, *[384] * 6, 768, 768)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("predictor", "num_prompts", "parameters"),
    [
        (TransformerPredictor, 7, 117_048),
        (MixerPredictor, 7, 61_328),
        (AttentionPredictor, 7, 111_744),
        (AttentionPredictor, 5, 111_552),
        (AveragePredictor, 7, 73_824),
    ],
)
def test_parameter_counts_on_swin_tiny(predictor, num_prompts, parameters):
    assert count(predictor(768, SWIN_TINY[:1], num_prompts)) == parameters


def test_wider_ffn_costs_what_the_fact_sheet_says():
    assert count(TransformerPredictor(768, (96,), 7, ffn_dim=32)) == 118_592


@pytest.mark.parametrize(
    ("dim", "embed_dim", "extra"), [(128, 1024, 197_888), (192, 1536, 444_288)]
)
def test_released_counts_on_larger_swins(dim, embed_dim, extra):
    assert count(AttentionPredictor(embed_dim, (dim,), 5)) == extra


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_deep_prompts_cost_one_linear_per_layer(predictor):
    shallow = count(predictor(768, SWIN_TINY[:1], 7))
    assert count(predictor(768, SWIN_TINY, 7)) - shallow == 428_352


@pytest.mark.parametrize("case", ["tiny_k14", "swint_k2"])
@pytest.mark.parametrize(
    ("kind", "predictor"), [("att", AttentionPredictor), ("avg", AveragePredictor)]
)
def test_released_predictors_give_the_golden_prompts(case, kind, predictor):
    golden = load_golden(f"swin/predictor_{case}.npz")
    support = torch.from_numpy(golden["ref_x"])  # (K, C, h, w)
    num_prompts, dim = golden[f"{kind}_out"].shape
    model = predictor(support.shape[1], (dim,), num_prompts)
    weights = as_tensors(golden, f"{kind}.")
    model.load_state_dict(convert_released_predictor(weights))
    tokens = support.flatten(2).transpose(1, 2).unsqueeze(0)  # (1, K, N, C)
    (prompts,) = model(tokens, tuple(support.shape[2:]))
    assert_golden(prompts[0], golden[f"{kind}_out"])


def test_released_attention_is_torchs_multi_head_attention():
    torch.manual_seed(0)
    model = AttentionPredictor(40, (32,), 3)
    reference = torch.nn.MultiheadAttention(32, 16, batch_first=True)
    parts = (model.attention.query, model.attention.key, model.attention.value)
    reference.in_proj_weight.data = torch.cat([part.weight for part in parts])
    reference.in_proj_bias.data = torch.cat([part.bias for part in parts])
    reference.out_proj.load_state_dict(model.attention.output.state_dict())
    support = torch.randn(2, 3, 6, 40)
    tokens = model.reduction(support).flatten(1, 2)
    expected, _ = reference(model.queries.expand(2, -1, -1), tokens, tokens)
    torch.testing.assert_close(model(support, (2, 3))[0], expected, atol=2e-6, rtol=1e-5)


def test_transformer_is_equations_2_to_4():
    torch.manual_seed(0)
    model = TransformerPredictor(24, (16,), 3, num_heads=2).double()
    for norm in (model.support_norm, model.query_norm, model.output_norm):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    support = torch.randn(2, 3, 4, 24, dtype=torch.double)
    tokens = model.support_norm(model.reduction(support.flatten(1, 2)))
    queries = model.query_norm(model.queries)
    attention = model.attention
    heads = []
    for head in range(2):
        rows = slice(8 * head, 8 * head + 8)
        query, key, value = (
            part(x)[..., rows]
            for part, x in zip(
                (attention.query, attention.key, attention.value),
                (queries, tokens, tokens),
                strict=True,
            )
        )
        heads.append(((query @ key.mT) / 8**0.5).softmax(-1) @ value)
    hidden = attention.output(torch.cat(heads, -1)) + queries
    torch.testing.assert_close(model(support, (2, 2))[0], model.ffn(model.output_norm(hidden)))


def one_head(attention, tokens, queries, head):
    """Return the attention of one head, written out: keys are made here."""
    rows = slice(head * 16 // attention.num_heads, (head + 1) * 16 // attention.num_heads)
    query = attention.query(queries)[:, rows]  # (P, d)
    key = attention.key(tokens)[..., rows]  # (B, T, d)
    return ((query @ key.mT) / query.shape[-1] ** 0.5).softmax(-1)  # (B, P, T)


@pytest.mark.parametrize("predictor", [TransformerPredictor, AttentionPredictor])
@pytest.mark.parametrize("num_heads", [1, 4])
def test_the_attention_map_is_what_the_prompts_are_made_of(predictor, num_heads):
    torch.manual_seed(0)
    model = predictor(24, (16,), 3, num_heads=num_heads).double()
    attention = model.attention
    torch.nn.init.normal_(attention.key.bias)  # drops out
    embeddings = model.embed(torch.randn(2 * 5, 6, 24, dtype=torch.double), (2, 3))
    embeddings = embeddings.unflatten(0, (2, 5))  # (B, K, N, D)
    weights = model.attention_map(embeddings)
    assert weights.shape == (2, 3, 5, 6)
    torch.testing.assert_close(weights.sum((2, 3)), torch.ones(2, 3, dtype=torch.double))

    queries = model.queries
    if isinstance(model, TransformerPredictor):
        queries = model.query_norm(queries)
    tokens = embeddings.flatten(1, 2)  # (B, K*N, D)
    heads = [one_head(attention, tokens, queries, head) for head in range(num_heads)]
    torch.testing.assert_close(weights.flatten(2), torch.stack(heads).mean(0))
    # The sum of weight times token is linear in the weights: means over heads agree.
    attended = support_attend(attention._absorbed(queries), embeddings)  # (B, P, h, D)
    torch.testing.assert_close(
        torch.einsum("bpkn,bknd->bpd", weights, embeddings), attended.mean(2)
    )


def test_the_attention_map_of_half_precision_still_adds_up_to_one():
    torch.manual_seed(0)
    model = TransformerPredictor(24, (16,), 3).bfloat16()
    weights = model.attention_map(torch.randn(2, 4, 49, 16, dtype=torch.bfloat16))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum((2, 3)), torch.ones(2, 3))


def test_mixer_is_equations_5_to_7():
    torch.manual_seed(0)
    model = MixerPredictor(24, (16,), 3, grid_size=(2, 2)).double()
    support = torch.randn(2, 5, 4 * 6, 24, dtype=torch.double)
    mean = support.mean(1).mT.unflatten(2, (2, 2, 2, 3)).mean((3, 5)).flatten(2).mT  # 4x6 to 2x2
    mixed = model.token_ffn(model.support_norm(mean).mT)
    expected = model.channel_ffn(model.mixed_norm(mixed.mT))
    torch.testing.assert_close(model(support, (4, 6))[0], expected)


@pytest.mark.parametrize("predictor", PREDICTORS)
@settings(max_examples=15, deadline=None)
@given(
    num_clips=st.integers(1, 3),
    num_support=st.integers(1, 5),
    grid=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    num_prompts=st.integers(1, 4),
    deep=st.booleans(),
    seed=st.integers(0, 99),
)
def test_prompts_do_not_depend_on_frame_order_or_on_the_batch(
    predictor, num_clips, num_support, grid, num_prompts, deep, seed
):
    torch.manual_seed(seed)
    dims = (16, 32, 64) if deep else (16,)
    model = predictor(48, dims, num_prompts).double()
    support = torch.randn(num_clips, num_support, grid[0] * grid[1], 48, dtype=torch.double)
    prompts = model(support, grid)
    assert [tuple(p.shape) for p in prompts] == [(num_clips, num_prompts, d) for d in dims]
    shuffled = model(support[:, torch.randperm(num_support)], grid)
    single = [model(support[i : i + 1], grid) for i in range(num_clips)]
    for layer, prompt in enumerate(prompts):
        torch.testing.assert_close(shuffled[layer], prompt)
        torch.testing.assert_close(torch.cat([s[layer] for s in single]), prompt)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_trained_parameter_gets_a_gradient(predictor):
    torch.manual_seed(0)
    model = predictor(48, (16, 32), 3)
    loss = sum(p.square().sum() for p in model(torch.randn(2, 3, 12, 48), (3, 4)))
    loss.backward()
    silent = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen <= {"attention.key.bias"}


def test_for_backbone_takes_the_widths(backbone):
    model = MixerPredictor.for_backbone(backbone, 2, deep=True, channel_dim=8)
    assert model.projection.prompt_dims == (16, 16)
    assert model.embed_dim == 16


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_bad_numbers_are_named(predictor):
    with pytest.raises(ValueError, match="num_prompts must be at least 1, got 0"):
        predictor(48, (16,), 0)
    with pytest.raises(ValueError, match="prompt_dims"):
        predictor(48, (), 3)
    model = predictor(48, (16,), 3)
    with pytest.raises(ValueError, match="no support frames"):
        model(torch.zeros(1, 0, 12, 48), (3, 4))
    with pytest.raises(ValueError, match=r"grid \(3, 5\) does not hold the 12 tokens"):
        model(torch.zeros(1, 2, 12, 48), (3, 5))


def test_bad_heads_and_too_few_tokens_are_named():
    with pytest.raises(ValueError, match="num_heads must divide the width 16, got 5"):
        TransformerPredictor(48, (16,), 3, num_heads=5)
    with pytest.raises(ValueError, match="2 tokens, too few for 3 prompts"):
        AveragePredictor(48, (16,), 3)(torch.zeros(1, 2, 2, 48), (1, 2))


def test_foreign_predictor_weights_are_named():
    with pytest.raises(KeyError, match="'head.weight' is not a weight"):
        convert_released_predictor({"head.weight": torch.from_numpy(np.zeros(1))})


@pytest.mark.parametrize("kind", [TransformerPredictor, AttentionPredictor, AveragePredictor])
def test_a_centred_predictor_reduces_the_mean_token_to_zero(kind):
    torch.manual_seed(0)
    predictor = kind(24, (16,), 3)
    tokens = torch.randn(64, 12, 24) + 5 * torch.randn(24)  # far from zero, as real ones are
    predictor.centre(tokens.mean((0, 1)))
    reduced = predictor.reduction(tokens)
    assert reduced.mean((0, 1)).abs().max() < 1e-4
    assert reduced.abs().mean() > 0.1


def test_the_mixer_has_nothing_to_centre():
    with pytest.raises(ValueError, match="MixerPredictor has no reduction"):
        MixerPredictor(24, (16,), 3).centre(torch.zeros(24))
