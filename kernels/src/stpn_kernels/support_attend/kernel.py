"""Triton kernels of `support_attend`: few queries, many tokens, read where they lie.

The tokens of an image are shared out among *splits*, the queries cut into blocks of BLOCK_Q, the
width into CHUNKS of BLOCK_D. A program of the forward and of the query gradient takes one of each
and walks the tiles of its split; what it adds up for its chunk of the result is written once, as a
partial sum, and the splits are merged in a fixed order. Where there are several chunks each program
works out the scores over all of them anew: that takes products, of which there are plenty to spare,
not memory. With one chunk a tile of tokens is loaded once, as keys and as values.

The backward never stores weights either. From grad_out, queries and tokens a first pass finds for
each query the largest score, the sum of the weights and their mean gradient; with them the weights
of any tile and their gradients follow from its tokens alone.

Queries are rounded to the dtype of the tokens, which multiplies; sums and softmax are float32.
Constants of the loops are worked out anew in each pass (``disable_licm``), which saves registers.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)

# One compilation serves all sizes. Strides are specialised as Triton does by default, or rows of a
# multiple of 16 numbers could not be read 16 bytes at a time.
SIZES = ("num_queries", "num_frame_tokens", "num_tokens", "num_splits", "tiles_per_split")


@triton.jit
def _program(num_queries, num_splits, CHUNKS: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Return image, split, queries and chunk of this program; chunks of a split run together."""
    program = tl.program_id(0)
    blocks = tl.cdiv(num_queries, BLOCK_Q)
    query = program // CHUNKS % blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)
    split = program // CHUNKS // blocks % num_splits
    return (program // CHUNKS // blocks // num_splits).to(tl.int64), split, query, program % CHUNKS


@triton.jit
def _token_rows(
    tokens, tile, num_tokens, num_frame_tokens, stride_k, stride_n, BLOCK_T: tl.constexpr
):
    """Return where the tokens of a tile lie, and which of them there are."""
    token = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    frame, position = token // num_frame_tokens, token % num_frame_tokens
    rows = tokens + frame.to(tl.int64) * stride_k + position.to(tl.int64) * stride_n
    return rows, token < num_tokens


@triton.jit
def _load(rows, live, chunk, DTYPE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Load a chunk of some rows as DTYPE; zeros where there are none."""
    column = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = live[:, None] & (column < D)[None, :]
    return tl.load(rows[:, None] + column[None, :], mask=mask, other=0.0).to(DTYPE)


@triton.jit
def _products(
    a_rows,
    a_live,
    a,
    b_rows,
    b_live,
    b,
    D: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the products of all rows of two blocks; ``a`` and ``b`` are chunks at hand."""
    if CHUNKS == 1:
        total = tl.dot(a, tl.trans(b), input_precision=PRECISION)
    else:
        total = tl.zeros((a.shape[0], b.shape[0]), tl.float32)
        for chunk in tl.range(0, CHUNKS):
            a_chunk = _load(a_rows, a_live, chunk, a.dtype, D, BLOCK_D)
            b_chunk = _load(b_rows, b_live, chunk, b.dtype, D, BLOCK_D)
            total = tl.dot(a_chunk, tl.trans(b_chunk), total, input_precision=PRECISION)
    return total


@triton.jit
def _weights(scores, live, maximum):
    """Return the weights of a tile, the largest score so far, and what is left of older weights."""
    scores = tl.where(live[None, :], scores * LOG2E, float("-inf"))
    new_maximum = tl.maximum(maximum, tl.max(scores, 1))
    return tl.exp2(scores - new_maximum[:, None]), new_maximum, tl.exp2(maximum - new_maximum)


@triton.jit
def _merged_statistics(
    maxima,
    weight_sums,
    gradient_sums,
    image,
    query,
    num_queries,
    num_splits,
    MOST_STATISTICS: tl.constexpr,
):
    """Return of each query the largest score, the sum of weights relative to it, their gradient."""
    split = tl.arange(0, MOST_STATISTICS)[:, None]
    live = (split < num_splits) & (query < num_queries)[None, :]
    place = image * num_splits * num_queries + split * num_queries + query[None, :]
    split_maximum = tl.load(maxima + place, mask=live, other=float("-inf"))
    maximum = tl.max(split_maximum, 0)
    maximum = tl.where(query < num_queries, maximum, 0.0)
    share = tl.exp2(split_maximum - maximum[None, :])
    weight_sum = tl.sum(share * tl.load(weight_sums + place, mask=live, other=0.0), 0)
    gradient_sum = tl.sum(share * tl.load(gradient_sums + place, mask=live, other=0.0), 0)
    weight_sum = tl.where(query < num_queries, weight_sum, 1.0)
    return maximum, weight_sum, gradient_sum / weight_sum


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    queries,  # (P * h, D)
    tokens,  # (B, K, N, D)
    maxima,  # (B, splits, P * h) float32: the largest score, times log2(e)
    weight_sums,  # (B, splits, P * h) float32: of weights relative to it
    token_sums,  # (B, splits, P * h, D) float32: of tokens by those weights
    stride_b,
    stride_k,
    stride_n,
    num_queries,
    num_frame_tokens,
    num_tokens,
    num_splits,
    tiles_per_split,
    D: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend to the tokens of a split with an online softmax."""
    image, split, query, chunk = _program(num_queries, num_splits, CHUNKS, BLOCK_Q)
    dtype = tokens.dtype.element_ty
    tokens += image * stride_b
    q_rows, q_live = queries + query * D, query < num_queries
    q = _load(q_rows, q_live, chunk, dtype, D, BLOCK_D)
    maximum = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((BLOCK_Q,), tl.float32)
    token_sum = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    first = split * tiles_per_split
    end = min(first + tiles_per_split, tl.cdiv(num_tokens, BLOCK_T))
    for tile in tl.range(first, end, disable_licm=True):
        x_rows, x_live = _token_rows(
            tokens, tile, num_tokens, num_frame_tokens, stride_k, stride_n, BLOCK_T
        )
        x = _load(x_rows, x_live, chunk, dtype, D, BLOCK_D)
        scores = _products(q_rows, q_live, q, x_rows, x_live, x, D, CHUNKS, BLOCK_D, PRECISION)
        p, maximum, kept = _weights(scores, x_live, maximum)
        weight_sum = weight_sum * kept + tl.sum(p, 1)
        token_sum = tl.dot(p.to(dtype), x, token_sum * kept[:, None], input_precision=PRECISION)
    row = (image * num_splits + split) * num_queries + query
    column = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = q_live[:, None] & (column < D)[None, :]
    tl.store(token_sums + row[:, None] * D + column[None, :], token_sum, mask=mask)
    if chunk == 0:
        tl.store(maxima + row, maximum, mask=q_live)
        tl.store(weight_sums + row, weight_sum, mask=q_live)


@triton.jit(do_not_specialize=SIZES)
def merge_kernel(
    maxima,  # (B, splits, P * h) float32
    weight_sums,  # (B, splits, P * h) float32
    token_sums,  # (B, splits, P * h, D) float32
    out,  # (B, P * h, D)
    num_queries,
    num_splits,
    D: tl.constexpr,
    CHUNKS: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Merge the splits of one query and chunk."""
    chunk, row = tl.program_id(0) % CHUNKS, tl.program_id(0) // CHUNKS
    image, query = (row // num_queries).to(tl.int64), row % num_queries
    split = tl.arange(0, MOST_SPLITS)
    place = (image * num_splits + split) * num_queries + query
    live = split < num_splits
    maximum = tl.load(maxima + place, mask=live, other=float("-inf"))
    share = tl.exp2(maximum - tl.max(maximum, 0))
    weight_sum = tl.sum(share * tl.load(weight_sums + place, mask=live, other=0.0), 0)
    column = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    token_sum = tl.load(
        token_sums + place[:, None] * D + column[None, :],
        mask=live[:, None] & (column < D)[None, :],
        other=0.0,
    )
    merged = tl.sum(share[:, None] * token_sum, 0) / weight_sum
    target = out + (image * num_queries + query) * D + column
    tl.store(target, merged.to(out.dtype.element_ty), mask=column < D)


@triton.jit(do_not_specialize=SIZES)
def statistics_kernel(
    grad_out,  # (B, P * h, D)
    queries,  # (P * h, D)
    tokens,  # (B, K, N, D)
    maxima,  # (B, splits, P * h) float32: the largest score, times log2(e)
    weight_sums,  # (B, splits, P * h) float32: of weights relative to it
    gradient_sums,  # (B, splits, P * h) float32: of the weights' gradients by them
    stride_b,
    stride_k,
    stride_n,
    num_queries,
    num_frame_tokens,
    num_tokens,
    num_splits,
    tiles_per_split,
    D: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Find what the gradients need to know of all tokens of a split."""
    image, split, query, _ = _program(num_queries, num_splits, 1, BLOCK_Q)
    dtype = tokens.dtype.element_ty
    tokens += image * stride_b
    q_rows, q_live = queries + query * D, query < num_queries
    g_rows = grad_out + (image * num_queries + query) * D
    q = _load(q_rows, q_live, 0, dtype, D, BLOCK_D)
    g = _load(g_rows, q_live, 0, dtype, D, BLOCK_D)
    maximum = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((BLOCK_Q,), tl.float32)
    gradient_sum = tl.zeros((BLOCK_Q,), tl.float32)
    first = split * tiles_per_split
    end = min(first + tiles_per_split, tl.cdiv(num_tokens, BLOCK_T))
    for tile in tl.range(first, end, disable_licm=True):
        x_rows, x_live = _token_rows(
            tokens, tile, num_tokens, num_frame_tokens, stride_k, stride_n, BLOCK_T
        )
        x = _load(x_rows, x_live, 0, dtype, D, BLOCK_D)
        scores = _products(q_rows, q_live, q, x_rows, x_live, x, D, CHUNKS, BLOCK_D, PRECISION)
        dp = _products(g_rows, q_live, g, x_rows, x_live, x, D, CHUNKS, BLOCK_D, PRECISION)
        p, maximum, kept = _weights(scores, x_live, maximum)
        weight_sum = weight_sum * kept + tl.sum(p, 1)
        gradient_sum = gradient_sum * kept + tl.sum(p * dp, 1)
    row = (image * num_splits + split) * num_queries + query
    tl.store(maxima + row, maximum, mask=q_live)
    tl.store(weight_sums + row, weight_sum, mask=q_live)
    tl.store(gradient_sums + row, gradient_sum, mask=q_live)


@triton.jit(do_not_specialize=(*SIZES, "num_statistics"))
def query_gradient_kernel(
    grad_out,  # (B, P * h, D)
    queries,  # (P * h, D)
    tokens,  # (B, K, N, D)
    maxima,  # (B, statistics, P * h) float32
    weight_sums,  # (B, statistics, P * h) float32
    gradient_sums,  # (B, statistics, P * h) float32
    query_sums,  # (B, splits, P * h, D) float32: the gradients from each split
    stride_b,
    stride_k,
    stride_n,
    num_queries,
    num_frame_tokens,
    num_tokens,
    num_splits,
    tiles_per_split,
    num_statistics,
    D: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MOST_STATISTICS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sum the gradient of the queries over the tokens of a split."""
    image, split, query, chunk = _program(num_queries, num_splits, CHUNKS, BLOCK_Q)
    dtype = tokens.dtype.element_ty
    tokens += image * stride_b
    q_rows, q_live = queries + query * D, query < num_queries
    g_rows = grad_out + (image * num_queries + query) * D
    q = _load(q_rows, q_live, chunk, dtype, D, BLOCK_D)
    g = _load(g_rows, q_live, chunk, dtype, D, BLOCK_D)
    maximum, weight_sum, mean = _merged_statistics(
        maxima,
        weight_sums,
        gradient_sums,
        image,
        query,
        num_queries,
        num_statistics,
        MOST_STATISTICS,
    )
    query_sum = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    first = split * tiles_per_split
    end = min(first + tiles_per_split, tl.cdiv(num_tokens, BLOCK_T))
    for tile in tl.range(first, end, disable_licm=True):
        x_rows, x_live = _token_rows(
            tokens, tile, num_tokens, num_frame_tokens, stride_k, stride_n, BLOCK_T
        )
        x = _load(x_rows, x_live, chunk, dtype, D, BLOCK_D)
        scores = _products(q_rows, q_live, q, x_rows, x_live, x, D, CHUNKS, BLOCK_D, PRECISION)
        dp = _products(g_rows, q_live, g, x_rows, x_live, x, D, CHUNKS, BLOCK_D, PRECISION)
        # Divided by the sum of the weights only at the end: float16 knows no small numbers.
        p = tl.where(x_live[None, :], tl.exp2(scores * LOG2E - maximum[:, None]), 0.0)
        ds = (p * (dp - mean[:, None])).to(dtype)
        query_sum = tl.dot(ds, x, query_sum, input_precision=PRECISION)
    row = (image * num_splits + split) * num_queries + query
    column = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    tl.store(
        query_sums + row[:, None] * D + column[None, :],
        query_sum / weight_sum[:, None],
        mask=q_live[:, None] & (column < D)[None, :],
    )


@triton.jit(do_not_specialize=(*SIZES, "num_statistics"))
def token_gradient_kernel(
    grad_out,  # (B, P * h, D)
    queries,  # (P * h, D)
    tokens,  # (B, K, N, D)
    maxima,  # (B, statistics, P * h) float32
    weight_sums,  # (B, statistics, P * h) float32
    gradient_sums,  # (B, statistics, P * h) float32
    d_tokens,  # (B, K * N, D)
    stride_b,
    stride_k,
    stride_n,
    num_queries,
    num_frame_tokens,
    num_tokens,
    num_statistics,
    D: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MOST_STATISTICS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient of a tile of tokens, summed over all queries."""
    tiles = tl.cdiv(num_tokens, BLOCK_T)
    chunk, tile = tl.program_id(0) % CHUNKS, tl.program_id(0) // CHUNKS
    image = (tile // tiles).to(tl.int64)
    dtype = tokens.dtype.element_ty
    tile = tile % tiles
    x_rows, x_live = _token_rows(
        tokens + image * stride_b,
        tile,
        num_tokens,
        num_frame_tokens,
        stride_k,
        stride_n,
        BLOCK_T,
    )
    x = _load(x_rows, x_live, chunk, dtype, D, BLOCK_D)
    gradient = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for block in tl.range(0, tl.cdiv(num_queries, BLOCK_Q), num_stages=1, disable_licm=True):
        query = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        q_rows, q_live = queries + query * D, query < num_queries
        g_rows = grad_out + (image * num_queries + query) * D
        q = _load(q_rows, q_live, chunk, dtype, D, BLOCK_D)
        g = _load(g_rows, q_live, chunk, dtype, D, BLOCK_D)
        maximum, weight_sum, mean = _merged_statistics(
            maxima,
            weight_sums,
            gradient_sums,
            image,
            query,
            num_queries,
            num_statistics,
            MOST_STATISTICS,
        )
        # Transposed, tokens by queries: so the products below need no transposition of weights.
        scores = _products(x_rows, x_live, x, q_rows, q_live, q, D, CHUNKS, BLOCK_D, PRECISION)
        dp = _products(x_rows, x_live, x, g_rows, q_live, g, D, CHUNKS, BLOCK_D, PRECISION)
        p = tl.exp2(scores * LOG2E - (maximum + tl.log2(weight_sum))[None, :])
        ds = p * (dp - mean[None, :])
        gradient = tl.dot(p.to(dtype), g, gradient, input_precision=PRECISION)
        gradient = tl.dot(ds.to(dtype), q, gradient, input_precision=PRECISION)
    column = chunk * BLOCK_D + tl.arange(0, BLOCK_D)
    row = image * num_tokens + tile * BLOCK_T + tl.arange(0, BLOCK_T)
    tl.store(
        d_tokens + row[:, None] * D + column[None, :],
        gradient.to(dtype),
        mask=x_live[:, None] & (column < D)[None, :],
    )
