"""Which blocks a problem attends, by the rule of this project's pattern crate.

Query block i of head h attends key block j, j <= i, if i - j < local_blocks, or if (j + g * step) is a multiple of
vert_stride, where step = max(1, vert_stride // heads), and g is h, or its key/value head in a pattern of those. As a
script it reads problems as lines of JSON and prints how many (query, key) pairs this rule attends in each, for a
comparison with those that the problem names.
"""

import json
import sys

KNOWN = {"block_size", "num_heads", "num_kv_heads", "per_kv_head", "rule"}


def block_mask(problem, arange):
    """Attended blocks: bool [heads, rows, blocks], a row for each block of queries, in decode for the last alone.

    `arange` is numpy's, or torch's for a device.
    """
    pattern, heads, block = problem["pattern"], problem["heads"], problem["pattern"]["block_size"]
    rule = pattern["rule"]
    if set(pattern) - KNOWN or set(rule) - {"dense", "local_stride"}:
        raise ValueError(f"pattern {pattern}: local_stride and dense without options are accepted")
    if problem["seq"] % block:
        raise ValueError(f"{problem['seq']} tokens: multiples of the block size {block} are accepted")
    blocks = problem["seq"] // block
    head = arange(heads)[:, None, None]
    i, j = arange(blocks)[None, :, None], arange(blocks)[None, None, :]
    if problem["pass"] == "decode":
        i = i[:, -1:]
    if "dense" in rule:
        return (j <= i) & (head >= 0)
    local, stride = rule["local_stride"]["local_blocks"], rule["local_stride"]["vert_stride"]
    step = max(1, stride // heads)
    if pattern.get("per_kv_head", False):
        head = head // (heads // problem["kv_heads"])
    return (j <= i) & ((i - j < local) | ((j + head * step) % stride == 0))


def attended_pairs(problem, mask):
    """Attended (query, key) pairs of all heads of one sequence; every diagonal block is attended, half of it.

    In decode the one query is the last token, which sees all of each attended block.
    """
    block, heads = problem["pattern"]["block_size"], problem["heads"]
    if problem["pass"] == "decode":
        return int(mask.sum()) * block
    blocks = problem["seq"] // block
    return int(mask.sum()) * block * block - heads * blocks * (block * (block - 1) // 2)


if __name__ == "__main__":
    import numpy

    for line in sys.stdin:
        problem = json.loads(line)
        print(attended_pairs(problem, block_mask(problem, numpy.arange)))
