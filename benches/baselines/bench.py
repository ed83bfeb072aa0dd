"""Times a public implementation of attention on the points that it is told, beside this library's in the same run.

`s2-bench bench --baselines`, or `decode` in place of `bench`, starts it for each provider. Points come in as lines of
JSON (`s2-bench problems --json` shows them), times go out as lines of JSON; everything else goes to stderr. Before a
point is timed, the mask is held to the attended pairs that the point names, and rows of the output, and of the
gradients where it has a backward pass, to a float32 reference.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import sys

import pattern

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
TOLERANCE = 2e-2
MODULES = {"dkernel": "dkernel", "flash-attn-4": "flash_attn.cute"}


def missing(provider):
    """Why the provider cannot run here at all, if so."""
    for module in ("torch", MODULES.get(provider, "torch")):
        try:
            found = importlib.util.find_spec(module)
        except ImportError:
            found = None
        if found is None:
            return f"not installed: there is no Python module {module}"
    import torch

    return None if torch.cuda.is_available() else "PyTorch finds no GPU"


def versions(packages):
    """Versions of packages; one that was only put beside the script has none."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def inputs(problem, heads_first, gradients):
    """Normally distributed q, k, v and the gradient of the output; standard deviation 1. In decode q is of one token."""
    import torch

    torch.manual_seed(7)
    dtype = getattr(torch, DTYPES[problem["dtype"]])
    batch, head_dim = problem["batch"], problem["head_dim"]
    queries = 1 if problem["pass"] == "decode" else problem["seq"]

    def random(heads, seq, tracked):
        sizes = (batch, heads, seq, head_dim) if heads_first else (batch, seq, heads, head_dim)
        return torch.randn(sizes, dtype=dtype, device="cuda", requires_grad=tracked)

    q = random(problem["heads"], queries, gradients)
    k, v = [random(problem["kv_heads"], problem["seq"], gradients) for _ in range(2)]
    return (q, k, v), random(problem["heads"], queries, False)


def check(problem, mask, tensors, heads_first):
    """Holds a few rows of the output to softmax(q k / sqrt(d)) v in float32 over the pattern's keys.

    The one row of decode is the last of the sequence. Averages over a long cache are small: its error is beside the largest
    element.
    """
    import torch

    q, k, v, out = [x.detach() if heads_first else x.detach().transpose(1, 2) for x in tensors]
    heads, seq, block = problem["heads"], problem["seq"], problem["pattern"]["block_size"]
    decode = problem["pass"] == "decode"
    keys = torch.arange(seq, device="cuda")
    sequence = problem["batch"] - 1
    for head in {0, heads // 2, heads - 1}:
        group = head * problem["kv_heads"] // heads
        rows = {seq - 1} if decode else {0, block - 1, seq // 2 + 3, seq - 1}
        for row in rows:
            # Tensors of one row have the last.
            at, block_at = (-1, -1) if decode else (row, row // block)
            kept = mask[head, block_at][keys // block] & (keys <= row)
            scores = k[sequence, group].float() @ q[sequence, head, at].float() / math.sqrt(problem["head_dim"])
            weights = torch.softmax(scores.masked_fill(~kept, -math.inf), -1)
            expected = weights @ v[sequence, group].float()
            error = (expected - out[sequence, head, at].float()).abs().max().item()
            largest = expected.abs().max().item() if decode else 1
            if not error <= TOLERANCE * largest:
                raise ValueError(f"head {head}, row {row} is {error:.3g} away from the reference")


def time_point(provider, point, runs, limit):
    """The time of a point, as the fields of a result row."""
    import torch

    from clock import measure
    from gradients import check_gradients

    if point["pass"] not in ("forward", "backward", "forward-backward", "decode"):
        raise ValueError("it is not a pass of attention alone")
    if point["pass"] == "decode" and not provider.decodes:
        raise ValueError("it is not timed at decode")
    gradients = point["pass"] in ("backward", "forward-backward")
    mask = pattern.block_mask(point, lambda end: torch.arange(end, device="cuda"))
    pairs = pattern.attended_pairs(point, int(mask.sum()))
    if pairs != point["pairs"]:
        raise ValueError(f"the mask has {pairs} pairs, {point['pairs']} were to be timed")
    qkv, d_out = inputs(point, provider.heads_first, gradients)
    attention = provider.prepare(point, mask, gradients)
    with torch.set_grad_enabled(gradients):
        out = attention(*qkv)
        check(point, mask, (*qkv, out), provider.heads_first)

        def backward(of):
            return torch.autograd.grad(of, qkv, d_out, retain_graph=True)

        passes = {
            "forward": lambda: attention(*qkv),
            "decode": lambda: attention(*qkv),
            "backward": lambda: backward(out),
            "forward-backward": lambda: backward(attention(*qkv)),
        }
        if gradients:
            seen = backward(out)
            first = [x if provider.heads_first else x.transpose(1, 2) for x in (*qkv, d_out, *seen)]
            check_gradients(point, mask, first[:3], first[3], first[4:])
            del seen, first
        call = passes[point["pass"]]
        if point["pass"] != "backward":
            out = None
        call()
        return measure(call, runs, limit)


def main():
    # Libraries print; what is read is the results alone.
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--provider", required=True, help="who is timed, by the name in the rows")
    arguments.add_argument("--runs", type=int, default=20, help="fewest timed runs of each point")
    arguments.add_argument("--limit", type=float, default=120, help="most seconds of a point's fewest runs")
    arguments = arguments.parse_args()

    def emit(kind, **fields):
        results.write(json.dumps({"kind": kind, **fields}) + "\n")

    def left_out(reason, point=None):
        problem = point and point["name"]
        emit("left-out", problem=problem, **{"pass": point and point["pass"]}, reason=reason)

    reason = missing(arguments.provider)
    if reason:
        left_out(reason)
        return
    import torch

    from providers import PROVIDERS

    if arguments.provider not in PROVIDERS:
        left_out(f"unknown: {', '.join(PROVIDERS)} are accepted")
        return
    provider = PROVIDERS[arguments.provider]
    emit("versions", versions=versions(provider.packages))
    for line in sys.stdin:
        point = json.loads(line)
        try:
            times = time_point(provider, point, arguments.runs, arguments.limit)
            emit("time", problem=point["name"], **{"pass": point["pass"]}, **times)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            left_out(f"{type(error).__name__}: {lines[0][:300]}", point)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
