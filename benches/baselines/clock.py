"""Times of a call on the GPU: CUDA events, other data in the L2 cache before each, the median of many.

The events are on the device, and what is between them is the call alone only if the device never waits for the host there:
a short call by autograd takes the host longer than the device. So the device first sleeps for longer than the host takes to
launch the call, and each run sees whether the host had launched all of it before the device came to its first event.
"""

import statistics
import time

import torch

# Reading and writing this much displaces what an L2 cache holds.
FLUSH_BYTES = 256 << 20
WARM_UP_MS = 50
MEASURED_MS = 100
MOST_RUNS = 1000
# The device sleeps for as many times what the host takes to launch a call.
HOST_AHEAD = 2
# Calls that wait for the device themselves are timed if the host's part is at most this share of their time.
HOST_SHARE = 0.05


class TooSlow(Exception):
    """A point whose fewest runs would take longer than the limit."""


class HostBound(Exception):
    """A call that the host cannot launch ahead of the device, and that is too short for that not to count."""


def measure(call, runs, limit):
    """Times `call`, at least `runs` times and within `limit` seconds, as the fields of a result row.

    It must have been called before: what is compiled is not timed.
    """
    peak_bytes = peak(call)
    clock = Clock(call)
    first = clock.times(call, 1)[0]
    if first * runs > limit * 1e3:
        raise TooSlow(f"{runs} runs of {first:.1f} ms would take longer than the limit of {limit:.0f} s")
    clock.times(call, bounded(WARM_UP_MS / first, 1))
    clock.behind = 0
    measured = clock.times(call, bounded(MEASURED_MS / first, runs))
    median = statistics.median(measured)
    if 2 * clock.behind > len(measured) and clock.host_ms > HOST_SHARE * median:
        raise HostBound(f"the host takes {clock.host_ms:.3f} ms of a call of {median:.3f} ms and cannot be ahead of the device")
    return {
        "median_us": 1e3 * median,
        "min_us": 1e3 * min(measured),
        "runs": len(measured),
        "peak_bytes": peak_bytes,
    }


def bounded(wanted, least):
    return max(least, min(MOST_RUNS, int(wanted)))


class Clock:
    """Device times of calls that take the host as long as this one."""

    def __init__(self, call):
        self.other_data = torch.zeros(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")
        self.host_ms = host_ms(call)
        self.cycles = int(HOST_AHEAD * self.host_ms * cycles_a_ms())
        # Runs in which the device may have waited for the host.
        self.behind = 0

    def times(self, call, runs):
        """Milliseconds of each of `runs` calls, queued without waiting."""
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
        for start, end in events:
            torch.cuda._sleep(self.cycles)
            self.other_data.add_(1)
            start.record()
            call()
            end.record()
            self.behind += start.query()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]


def host_ms(call):
    """How long the host takes to launch a call: the most of a few."""
    most = 0
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        most = max(most, time.perf_counter() - start)
    torch.cuda.synchronize()
    return 1e3 * most


def cycles_a_ms():
    """How many cycles of its clock the device sleeps in a millisecond."""
    cycles = 10_000_000
    start, end = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda._sleep(cycles)
    start.record()
    torch.cuda._sleep(cycles)
    end.record()
    torch.cuda.synchronize()
    return cycles / start.elapsed_time(end)


def peak(call):
    """The most bytes that a call holds at once, with what it returns, beyond what was held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
