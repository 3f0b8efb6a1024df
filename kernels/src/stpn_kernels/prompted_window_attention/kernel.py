"""Triton kernels of `prompted_window_attention`: one tile holds a whole window of one head.

A program walks some windows of one image and head. A window is a tile of BLOCK_N rows: its w * w
positions, then the P prompts, then dead rows. Padding, roll, partition and their undoing are
arithmetic on row numbers: no map is ever copied. Rows of 49 tokens fill a tile of 64 whether or not
prompts are there, so the matrix products cost the same with up to 15 of them.

Constants of the loop over windows are worked out anew for each: hoisting them (``disable_licm``
keeps the compiler from it) takes more registers than there are.

No atomics: what windows share (the prompts' mean, the gradients of prompts, padding and position
bias) is added up in registers, written once per program, and summed in a fixed order afterwards.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
MASKED = tl.constexpr(-100.0)  # of the reference, before the factor log2(e)


# One compilation serves all sizes: no argument is specialised on being 1 or a multiple of 16.
SIZES = ("height", "width", "num_heads", "num_windows", "num_groups", "windows_per_group")


@triton.jit
def _program(num_heads, num_groups):
    """Return image, group of windows and head of this program; heads of a window run together."""
    program = tl.program_id(0)
    head = program % num_heads
    group = program // num_heads % num_groups
    return (program // num_heads // num_groups).to(tl.int64), group, head


@triton.jit
def _rows(
    window,
    height,
    width,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    PROMPTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Return each tile row's row in the sequence, whether it is a token, a prompt, padding; edge.

    Only windows at the lower edge of the rolled map mix regions by their rows (bits 1 and 2 of
    ``edge``), and those at the right edge by their columns (bits 4 and 8).
    """
    r = tl.arange(0, BLOCK_N)
    TOKENS: tl.constexpr = WINDOW * WINDOW
    window_columns = tl.cdiv(width, WINDOW)
    padded_height, padded_width = tl.cdiv(height, WINDOW) * WINDOW, window_columns * WINDOW
    rolled_y = window // window_columns * WINDOW + r // WINDOW
    rolled_x = window % window_columns * WINDOW + r % WINDOW
    y, x = rolled_y + SHIFT, rolled_x + SHIFT
    y = tl.where(y >= padded_height, y - padded_height, y)
    x = tl.where(x >= padded_width, x - padded_width, x)
    is_position = r < TOKENS
    is_token = is_position & (y < height) & (x < width)
    is_padding = is_position & ((y >= height) | (x >= width))
    is_prompt = (r >= TOKENS) & (r < TOKENS + PROMPTS)
    row = tl.where(is_prompt, r - TOKENS, PROMPTS + y * width + x)
    last_row = window // window_columns == tl.cdiv(height, WINDOW) - 1
    last_column = window % window_columns == window_columns - 1
    edge = 3 * last_row.to(tl.int32) + 12 * last_column.to(tl.int32)
    return row, is_token, is_prompt, is_padding, edge


@triton.jit
def _load_rows(source, row, C, live, is_padding, padded_k, padded_v):
    """Return query, key and value of a tile; those of padding are the bias of the projection."""
    place, live, padding = source + row[:, None] * 3 * C, live[:, None], is_padding[:, None]
    q = tl.load(place, mask=live, other=0.0)
    k = tl.where(padding, padded_k, tl.load(place + C, mask=live, other=0.0))
    v = tl.where(padding, padded_v, tl.load(place + 2 * C, mask=live, other=0.0))
    return q, k, v


@triton.jit
def _store_rows(place, C, dq, dk, dv, mask):
    """Store the gradients of query, key and value of a tile."""
    tl.store(place, dq.to(place.dtype.element_ty), mask=mask)
    tl.store(place + C, dk.to(place.dtype.element_ty), mask=mask)
    tl.store(place + 2 * C, dv.to(place.dtype.element_ty), mask=mask)


@triton.jit
def _position_bias(
    table, head, num_heads, WINDOW: tl.constexpr, PROMPTS: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Return the position bias of a head times log2(e); 0 with prompts, -inf in dead columns."""
    TOKENS: tl.constexpr = WINDOW * WINDOW
    i, j = tl.arange(0, BLOCK_N)[:, None], tl.arange(0, BLOCK_N)[None, :]
    dy, dx = i // WINDOW - j // WINDOW, i % WINDOW - j % WINDOW
    index = (dy + WINDOW - 1) * (2 * WINDOW - 1) + dx + WINDOW - 1
    both = (i < TOKENS) & (j < TOKENS)
    bias = tl.load(table + index * num_heads + head, mask=both, other=0.0).to(tl.float32) * LOG2E
    return tl.where(j < TOKENS + PROMPTS, bias, float("-inf"))


@triton.jit
def _weights(
    q,
    k,
    bias,
    edge,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the attention weights (BLOCK_N, BLOCK_N), not yet divided by their row sums."""
    SCALE: tl.constexpr = D**-0.5 * LOG2E
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * SCALE + bias
    if SHIFT > 0:
        r = tl.arange(0, BLOCK_N)
        is_position = r < WINDOW * WINDOW
        down = (r // WINDOW >= WINDOW - SHIFT).to(tl.int32)  # of the region that was rolled here
        right = (r % WINDOW >= WINDOW - SHIFT).to(tl.int32)
        query_side = tl.where(is_position, (1 + down) + 4 * (1 + right), 0) & edge
        other_side = tl.where(is_position, (2 - down) + 4 * (2 - right), 0)
        apart = (query_side[:, None] & other_side[None, :]) != 0
        scores = tl.where(apart, scores + MASKED * LOG2E, scores)
    p = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return p, tl.sum(p, 1)


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    qkv,  # (B, X, 3, h, D)
    qkv_bias,  # (3, h, D)
    table,  # ((2 * w - 1) ** 2, h)
    out,  # (B, X, h, D)
    prompt_sums,  # (B, groups, P, h, D) float32: prompt outputs, summed over a program's windows
    height,
    width,
    num_heads,
    num_windows,
    num_groups,
    windows_per_group,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    PROMPTS: tl.constexpr,
    NEED_PROMPTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend in the windows of a program; sum the prompts' outputs over them."""
    image, group, head = _program(num_heads, num_groups)
    X = PROMPTS + height * width
    C = num_heads * D
    column = head * D + tl.arange(0, D)[None, :]
    source = qkv + image * X * 3 * C + column
    target = out + image * X * C + column
    padded_k = tl.load(qkv_bias + C + column).to(qkv.dtype.element_ty)
    padded_v = tl.load(qkv_bias + 2 * C + column).to(qkv.dtype.element_ty)
    bias = _position_bias(table, head, num_heads, WINDOW, PROMPTS, BLOCK_N)
    prompt_sum = tl.zeros((BLOCK_N, D), tl.float32)
    first = group * windows_per_group
    end = min(first + windows_per_group, num_windows)
    for window in tl.range(first, end, disable_licm=True):
        row, is_token, is_prompt, is_padding, edge = _rows(
            window, height, width, WINDOW, SHIFT, PROMPTS, BLOCK_N
        )
        live = is_token | is_prompt
        q, k, v = _load_rows(source, row, C, live, is_padding, padded_k, padded_v)
        p, row_sum = _weights(q, k, bias, edge, D, WINDOW, SHIFT, BLOCK_N, PRECISION)
        attended = tl.dot(p.to(v.dtype), v, input_precision=PRECISION) / row_sum[:, None]
        tl.store(
            target + row[:, None] * C, attended.to(out.dtype.element_ty), mask=is_token[:, None]
        )
        if NEED_PROMPTS:
            prompt_sum += tl.where(is_prompt[:, None], attended, 0.0)
    r = tl.arange(0, BLOCK_N)[:, None] - WINDOW * WINDOW
    prompts = (r >= 0) & (r < PROMPTS)
    if NEED_PROMPTS:
        sums = prompt_sums + (image * num_groups + group) * PROMPTS * C + r * C + column
        tl.store(sums, prompt_sum, mask=prompts)
    elif PROMPTS > 0:
        zeros = tl.zeros((BLOCK_N, D), out.dtype.element_ty)
        tl.store(target + r * C, zeros, mask=prompts & (r < tl.where(group == 0, PROMPTS, 0)))


@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    grad_out,  # (B, X, h, D)
    qkv,  # (B, X, 3, h, D)
    qkv_bias,  # (3, h, D)
    table,  # ((2 * w - 1) ** 2, h)
    d_qkv,  # (B, X, 3, h, D)
    prompt_sums,  # (B, groups, P, 3, h, D) float32
    padding_sums,  # (B, groups, 2, h, D) float32: of key and value
    score_sums,  # (B, groups, h, BLOCK_N, BLOCK_N) float32
    height,
    width,
    num_heads,
    num_windows,
    num_groups,
    windows_per_group,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    SHIFT: tl.constexpr,
    PROMPTS: tl.constexpr,
    NEED_PROMPTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Recompute the weights of each window and take them back; sum what windows share."""
    image, group, head = _program(num_heads, num_groups)
    X = PROMPTS + height * width
    C = num_heads * D
    column = head * D + tl.arange(0, D)[None, :]
    source = qkv + image * X * 3 * C + column
    target = d_qkv + image * X * 3 * C + column
    gradient = grad_out + image * X * C + column
    padded_k = tl.load(qkv_bias + C + column).to(qkv.dtype.element_ty)
    padded_v = tl.load(qkv_bias + 2 * C + column).to(qkv.dtype.element_ty)
    bias = _position_bias(table, head, num_heads, WINDOW, PROMPTS, BLOCK_N)
    share = 1.0 / num_windows
    SCALE: tl.constexpr = D**-0.5
    score_sum = tl.zeros((BLOCK_N, BLOCK_N), tl.float32)
    q_sum = tl.zeros((BLOCK_N, D), tl.float32)
    k_sum = tl.zeros((BLOCK_N, D), tl.float32)
    v_sum = tl.zeros((BLOCK_N, D), tl.float32)
    first = group * windows_per_group
    end = min(first + windows_per_group, num_windows)
    for window in tl.range(first, end, disable_licm=True):
        row, is_token, is_prompt, is_padding, edge = _rows(
            window, height, width, WINDOW, SHIFT, PROMPTS, BLOCK_N
        )
        live, token, prompt = is_token | is_prompt, is_token[:, None], is_prompt[:, None]
        q, k, v = _load_rows(source, row, C, live, is_padding, padded_k, padded_v)
        if NEED_PROMPTS:
            d_out = tl.load(gradient + row[:, None] * C, mask=token | prompt, other=0.0)
            d_out = tl.where(prompt, (d_out.to(tl.float32) * share).to(d_out.dtype), d_out)
        else:
            d_out = tl.load(gradient + row[:, None] * C, mask=token, other=0.0)
        p, row_sum = _weights(q, k, bias, edge, D, WINDOW, SHIFT, BLOCK_N, PRECISION)
        p = p / row_sum[:, None]
        dp = tl.dot(d_out, tl.trans(v), input_precision=PRECISION)
        ds = p * (dp - tl.sum(p * dp, 1)[:, None])
        score_sum += ds
        ds = ds.to(q.dtype)
        dq = tl.dot(ds, k, input_precision=PRECISION) * SCALE
        dk = tl.dot(tl.trans(ds), q, input_precision=PRECISION) * SCALE
        dv = tl.dot(tl.trans(p.to(d_out.dtype)), d_out, input_precision=PRECISION)
        _store_rows(target + row[:, None] * 3 * C, C, dq, dk, dv, token)
        # Rows of tokens are stored, so that of the sums only prompts and padding are left over.
        if PROMPTS > 0:
            q_sum += tl.where(prompt, dq, 0.0)
        k_sum += tl.where(token, 0.0, dk)
        v_sum += tl.where(token, 0.0, dv)
    r = tl.arange(0, BLOCK_N)[:, None] - WINDOW * WINDOW
    here = image * num_groups + group
    if PROMPTS > 0:
        sums = prompt_sums + here * PROMPTS * 3 * C + r * 3 * C + column
        _store_rows(sums, C, q_sum, k_sum, v_sum, (r >= 0) & (r < PROMPTS))
    sums = padding_sums + here * 2 * C + head * D + tl.arange(0, D)
    tl.store(sums, tl.sum(tl.where(r < 0, k_sum, 0.0), 0))
    tl.store(sums + C, tl.sum(tl.where(r < 0, v_sum, 0.0), 0))
    i, j = tl.arange(0, BLOCK_N)[:, None], tl.arange(0, BLOCK_N)[None, :]
    sums = score_sums + (here * num_heads + head) * BLOCK_N * BLOCK_N + i * BLOCK_N + j
    tl.store(sums, score_sum)


@triton.jit(do_not_specialize=("size", "num_groups", "image_stride", "divisor"))
def sum_groups_kernel(
    sums,  # (B, groups, size) float32
    out,  # (B, X, ...): its first `size` numbers of each image are written
    size,
    num_groups,
    image_stride,
    divisor,
    BLOCK: tl.constexpr,
):
    """Add up the partial sums of the groups of an image, in their order, and divide."""
    image = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for group in range(num_groups):
        total += tl.load(sums + (image * num_groups + group) * size + column, mask=column < size)
    total /= divisor
    tl.store(out + image * image_stride + column, total.to(out.dtype.element_ty), column < size)
