"""Times of a call on the GPU: CUDA events, other data in the L2 cache before each, the median of many."""

import statistics

import torch

# Reading and writing this much displaces what an L2 cache holds, and keeps the device busy while the host launches.
FLUSH_BYTES = 256 << 20
WARM_UP_MS = 50
MEASURED_MS = 100
MOST_RUNS = 1000


class TooSlow(Exception):
    """A point whose fewest runs would take longer than the limit."""


def measure(call, runs, limit):
    """Times `call`, at least `runs` times and within `limit` seconds, as the fields of a result row.

    It must have been called before: what is compiled is not timed.
    """
    other_data = torch.zeros(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
    peak_bytes = peak(call)
    first = times(call, 1, other_data)[0]
    if first * runs > limit * 1e3:
        raise TooSlow(f"{runs} runs of {first:.1f} ms would take longer than the limit of {limit:.0f} s")
    times(call, bounded(WARM_UP_MS / first, 1), other_data)
    measured = times(call, bounded(MEASURED_MS / first, runs), other_data)
    return {
        "median_us": 1e3 * statistics.median(measured),
        "min_us": 1e3 * min(measured),
        "runs": len(measured),
        "peak_bytes": peak_bytes,
    }


def bounded(wanted, least):
    return max(least, min(MOST_RUNS, int(wanted)))


def times(call, runs, other_data):
    """Milliseconds of each of `runs` calls, queued without waiting."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    for start, end in events:
        other_data.add_(1)
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def peak(call):
    """The most bytes that a call holds at once, with what it returns, beyond what was held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
