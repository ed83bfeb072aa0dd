"""Public implementations of attention, each as a function that prepares a problem and returns a call of q, k and v.

A call takes and returns [batch, heads, seq, head_dim] tensors, or [batch, seq, heads, head_dim] where `heads_first` is
false, in bf16, f16 or f32 as the implementation has it; k and v have `kv_heads` heads. In decode, q has one token, the last.
"""

import math
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F

import pattern
from clock import Clock

# Longer caches have block masks of gigabytes on the way to dkernel's tables.
DKERNEL_LONGEST_CACHE = 32768


@dataclass(frozen=True)
class Provider:
    """How to prepare an implementation, and the packages that it is made of."""

    prepare: Callable  # (problem, mask, gradients) -> call(q, k, v)
    packages: tuple
    heads_first: bool = True
    decodes: bool = False


def is_dense(problem):
    return "dense" in problem["pattern"]["rule"]


def sdpa(backend):
    """PyTorch's scaled_dot_product_attention, dense and causal, on one of its backends.

    In decode the query comes after all keys; what PyTorch calls causal would show it the first alone.
    """

    def prepare(problem, mask, gradients):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if not is_dense(problem):
            raise ValueError("it computes dense attention only")
        grouped = problem["heads"] != problem["kv_heads"]
        causal = problem["pass"] != "decode"

        def call(q, k, v):
            with sdpa_kernel(getattr(SDPBackend, backend)):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)

        return call

    return prepare


def listed(mask):
    """How many blocks each row attends, and their indices first: int32 [1, heads, rows] and [1, heads, rows, columns]."""
    order = torch.argsort(mask.to(torch.int8), dim=-1, descending=True, stable=True)
    return mask.sum(-1, dtype=torch.int32)[None], order.to(torch.int32)[None]


def full_and_partial(mask):
    """The blocks that are attended as a whole, and those on the diagonal, of which causality keeps a half."""
    diagonal = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)[None]
    return mask & ~diagonal, mask & diagonal


def flex_attention(problem, mask, gradients):
    """FlexAttention over the listed blocks: its masking function is called on the diagonal alone."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    def causal(batch, head, query, key):
        return query >= key

    # A compiled shape more than the cache holds would run uncompiled.
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, dynamic=False)
    seq, block = problem["seq"], problem["pattern"]["block_size"]
    full, partial = full_and_partial(mask)
    blocks = BlockMask.from_kv_blocks(
        *listed(partial), *listed(full), BLOCK_SIZE=(block, block), mask_mod=causal, seq_lengths=(seq, seq)
    )
    tiles = ("BLOCK_M", "BLOCK_N", "BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2")
    # The tiles that it chooses are for blocks of 128 and larger.
    options = {tile: block for tile in tiles} if block < 128 else None
    grouped = problem["heads"] != problem["kv_heads"]
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks, kernel_options=options, enable_gqa=grouped)


def dkernel(problem, mask, gradients):
    """The Triton kernels of the method's authors, given this mask."""
    from dkernel import SparseAttention

    if problem["pass"] == "decode":
        return dkernel_decode(problem, mask)
    attention = SparseAttention(problem["pattern"]["block_size"], mask, seq_dim=2).to(mask.device)
    scale = 1 / math.sqrt(problem["head_dim"])
    return lambda q, k, v: attention(q, k, v, scale)


def dkernel_decode(problem, mask):
    """Its call for one token; where query heads share keys, the fastest of two.

    That for grouped heads takes lengths and waits for the device on its way. The other has the query heads of a key/value head
    as queries of that head, which all see the whole row of the mask: fewer programs, and no waiting.
    """
    from dkernel import SparseAttention

    if problem["seq"] > DKERNEL_LONGEST_CACHE:
        raise ValueError(f"its mask tables are too large for caches of more than {DKERNEL_LONGEST_CACHE} tokens")
    block, scale = problem["pattern"]["block_size"], 1 / math.sqrt(problem["head_dim"])
    device = mask.device
    square = pattern.block_mask({**problem, "pass": "forward"}, lambda end: torch.arange(end, device=device))
    attention = SparseAttention(block, square, seq_dim=2).to(device)
    batch, heads, kv_heads = problem["batch"], problem["heads"], problem["kv_heads"]
    if heads == kv_heads:
        return lambda q, k, v: attention(q, k, v, scale)

    lengths = torch.full((batch,), problem["seq"], dtype=torch.int32, device=device)
    calls = [lambda q, k, v: attention(q, k, v, scale, seqlens=lengths)]
    if problem["pattern"].get("per_kv_head", False):
        group = heads // kv_heads
        rows = SparseAttention(block, mask[::group], causal=False, seq_dim=2).to(device)
        calls.append(lambda q, k, v: rows(q.view(batch, kv_heads, group, -1), k, v, scale).view(q.shape))
    return Fastest(calls)


class Fastest:
    """Calls that compute the same: the first use times each, and the fastest is it from then on."""

    RUNS = 20

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, *tensors):
        if len(self.calls) > 1:
            self.calls = [min(self.calls, key=lambda call: self.time(call, tensors))]
        return self.calls[0](*tensors)

    def time(self, call, tensors):
        def again():
            return call(*tensors)

        # What is compiled is not timed.
        again()
        return min(Clock(again).times(again, self.RUNS))


def flash_attention_4(problem, mask, gradients):
    """FlashAttention-4: dense and causal, or over the listed blocks with its masking function on the diagonal."""
    from flash_attn.cute.interface import flash_attn_func

    def output(result):
        return result[0] if isinstance(result, tuple) else result

    if is_dense(problem):
        return lambda q, k, v: output(flash_attn_func(q, k, v, causal=True))

    import cutlass.cute as cute
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    @cute.jit
    def causal(batch, head, query, key, *rest):
        return key <= query

    def sparse(blocks):
        full, partial = full_and_partial(blocks)
        lists = [
            x.expand(problem["batch"], *x.shape[1:]).contiguous() for x in (*listed(partial), *listed(full))
        ]
        block = problem["pattern"]["block_size"]
        return BlockSparseTensorsTorch(*lists, block_size=(block, block))

    forward = sparse(mask)
    backward = sparse(mask.transpose(1, 2)) if gradients else None
    return lambda q, k, v: output(
        flash_attn_func(q, k, v, mask_mod=causal, block_sparse_tensors=forward, block_sparse_tensors_bwd=backward)
    )


PROVIDERS = {
    "sdpa-flash": Provider(sdpa("FLASH_ATTENTION"), ("torch",), decodes=True),
    "sdpa-cudnn": Provider(sdpa("CUDNN_ATTENTION"), ("torch",), decodes=True),
    "flex-attention": Provider(flex_attention, ("torch", "triton")),
    "dkernel": Provider(dkernel, ("torch", "triton", "dkernel"), decodes=True),
    "flash-attn-4": Provider(
        flash_attention_4, ("torch", "flash-attn-4", "nvidia-cutlass-dsl"), heads_first=False
    ),
}
