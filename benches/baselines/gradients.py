"""Rows of the gradients of attention in float32 over a pattern's keys, to hold others to before they are timed."""

import math

import torch

# Of the largest element of a row: what 2-byte products and results lose is a few times less.
TOLERANCE = 5e-2
# Scores that are held at once.
MOST_SCORES = 1 << 27


def check_gradients(problem, mask, qkv, d_out, gradients):
    """Holds rows of dq, dk and dv, all as [batch, heads, seq, head_dim], in the last sequence, to the reference.

    They are those of the first and the last key/value head; a row of dk or dv is made of all queries of all heads of the group.
    """
    sequence = problem["batch"] - 1
    group = problem["heads"] // problem["kv_heads"]
    q, k, v, d_out = [x[sequence].detach() for x in (*qkv, d_out)]
    dq, dk, dv = [x[sequence].float() for x in gradients]
    seq, block = problem["seq"], problem["pattern"]["block_size"]
    # The first token attends itself alone: the gradient of its query is 0, and anything is far from it.
    rows = sorted({block - 1, seq // 2 + 3, seq - 1} - {0})
    columns = sorted({0, block // 2, seq // 2 + 3, seq - 1})
    for kv_head in {0, problem["kv_heads"] - 1}:
        expected_k = torch.zeros_like(dk[kv_head, columns])
        expected_v = torch.zeros_like(expected_k)
        for head in range(kv_head * group, (kv_head + 1) * group):
            tensors = [x.float() for x in (q[head], k[kv_head], v[kv_head], d_out[head])]
            of_rows, of_k, of_v = reference(problem, mask[head], tensors, rows, columns)
            hold(f"dq of head {head}", rows, of_rows, dq[head, rows])
            expected_k += of_k
            expected_v += of_v
        hold(f"dk of head {kv_head}", columns, expected_k, dk[kv_head, columns])
        hold(f"dv of head {kv_head}", columns, expected_v, dv[kv_head, columns])


def reference(problem, mask, tensors, rows, columns):
    """One head's rows of dq, and what it adds to rows of dk and dv: with P = softmax(q k / sqrt(d)) and D = sum(d_out out),
    dv = P d_out, dS = P (d_out v - D), dq = dS k / sqrt(d), dk = dS q / sqrt(d)."""
    q, k, v, d_out = tensors
    seq, block = problem["seq"], problem["pattern"]["block_size"]
    scale = 1 / math.sqrt(problem["head_dim"])
    keys = torch.arange(seq, device=q.device)
    dq = torch.zeros_like(q[rows])
    dk, dv = [torch.zeros_like(k[columns]) for _ in range(2)]
    step = max(1, MOST_SCORES // seq)
    for start in range(0, seq, step):
        at = keys[start : start + step]
        kept = mask[at // block][:, keys // block] & (keys <= at[:, None])
        scores = (q[at] @ k.T * scale).masked_fill(~kept, -math.inf)
        weights = torch.softmax(scores, -1)
        row_sums = (d_out[at] * (weights @ v)).sum(-1, keepdim=True)
        of_columns = weights[:, columns]
        dv += of_columns.T @ d_out[at]
        dk += (of_columns * (d_out[at] @ v[columns].T - row_sums)).T @ q[at] * scale
        for index, row in enumerate(rows):
            if start <= row < start + len(at):
                local = row - start
                of_row = weights[local] * (d_out[row] @ v.T - row_sums[local])
                dq[index] = of_row @ k * scale
    return dq, dk, dv


def hold(what, at, expected, seen):
    """Refuses rows that are further from the reference than 2-byte products are."""
    for index, row in enumerate(at):
        error = (expected[index] - seen[index]).abs().max().item()
        largest = expected[index].abs().max().item()
        if not error <= TOLERANCE * largest:
            raise ValueError(f"{what}, row {row} is {error:.3g} away from the reference, whose largest element is {largest:.3g}")
