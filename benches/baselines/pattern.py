"""Which blocks a problem attends, by the rule of this project's pattern crate.

Query block i of head h attends key block j, j <= i, if i - j < local_blocks, or if (j + g * step) is a multiple of
vert_stride, where step = max(1, vert_stride // heads), and g is h, or its key/value head in a pattern of those. As a
script it reads problems as lines of JSON and prints how many (query, key) pairs this rule attends in each, for a
comparison with those that the problem names; that needs nothing beside Python.
"""

import json
import sys

KNOWN = {"block_size", "num_heads", "num_kv_heads", "per_kv_head", "rule"}


def rule(problem):
    """Whether a head attends key block j from query block i, as a function of the three: of numbers, or of arrays of them."""
    pattern, heads, block = problem["pattern"], problem["heads"], problem["pattern"]["block_size"]
    rule = pattern["rule"]
    if set(pattern) - KNOWN or set(rule) - {"dense", "local_stride"}:
        raise ValueError(f"pattern {pattern}: local_stride and dense without options are accepted")
    if problem["seq"] % block:
        raise ValueError(f"{problem['seq']} tokens: multiples of the block size {block} are accepted")
    if "dense" in rule:
        return lambda head, i, j: (j <= i) & (head >= 0)
    local, stride = rule["local_stride"]["local_blocks"], rule["local_stride"]["vert_stride"]
    step = max(1, stride // heads)
    group = heads // problem["kv_heads"] if pattern.get("per_kv_head", False) else 1
    return lambda head, i, j: (j <= i) & ((i - j < local) | ((j + head // group * step) % stride == 0))


def block_mask(problem, arange):
    """Attended blocks: bool [heads, rows, blocks], a row for each block of queries, in decode for the last alone.

    `arange` is torch's for a device, or numpy's.
    """
    attends = rule(problem)
    blocks = problem["seq"] // problem["pattern"]["block_size"]
    i = arange(blocks)[None, :, None]
    if problem["pass"] == "decode":
        i = i[:, -1:]
    return attends(arange(problem["heads"])[:, None, None], i, arange(blocks)[None, None, :])


def attended_blocks(problem):
    """How many of them there are, without a table."""
    attends = rule(problem)
    blocks = range(problem["seq"] // problem["pattern"]["block_size"])
    rows = blocks[-1:] if problem["pass"] == "decode" else blocks
    return sum(attends(head, i, j) for head in range(problem["heads"]) for i in rows for j in blocks)


def attended_pairs(problem, attended):
    """(query, key) pairs of all heads of one sequence in so many attended blocks; every diagonal block is attended, half of it.

    In decode the one query is the last token, which sees all of each attended block.
    """
    block, heads = problem["pattern"]["block_size"], problem["heads"]
    if problem["pass"] == "decode":
        return attended * block
    blocks = problem["seq"] // block
    return attended * block * block - heads * blocks * (block * (block - 1) // 2)


if __name__ == "__main__":
    for line in sys.stdin:
        problem = json.loads(line)
        print(attended_pairs(problem, attended_blocks(problem)))
