"""Triton's dynamic batcher as a pure function of time, compiled.

The rules, from core/src/dynamic_batch_scheduler.cc, scheduler_utils.cc and rate_limiter.cc:

- Requests wait in one queue, in the order in which they came. A batch is the longest run of
  requests from its front that fits: at most max_batch_size rows together, none cut in two, and all
  of one shape.
- Without a delay an instance that is free takes what waits, at once. Triton fills batches ahead
  for instances that are busy, but they go on growing until they are taken, so it comes to the same.
- With a delay a batch that can still grow waits until its oldest request has waited so long, or
  until its rows are exactly a preferred size. A batch that cannot grow goes at once. The delay
  runs while all instances are busy too.
- Preferred sizes: the largest that was passed is what goes, unless the delay is over.
- A full queue refuses a request when it comes. One that has waited for longer than its timeout is
  refused, or put behind all others, when a batch is formed; until then it fills the queue.

Without dynamic batching each request is a run of its own.

The CPU: instances that run at once slow each other. `speed[k]` is how fast each runs while k do,
so the work that is left is done faster as soon as one of them ends.

Left out: priority levels, timeouts of single requests, the response cache, and that Triton also
looks for expired requests every 500 ms while no instance is free. Also left out is a mistake of
Triton 2.51: with max_queue_size a wake-up can be lost, and while the queue is full nothing makes up
for it, so that it rests for half a second beside idle instances.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

ANSWERED, QUEUE_FULL, TIMED_OUT = 0, 1, 2
"""How a request ended."""

NEVER = np.inf

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def run_batcher(
    enter: Floats,
    rows: Integers,
    shape: Integers,
    cost: Floats,
    batching: bool,
    max_rows: int,
    delay: float,
    preferred: Integers,
    instances: int,
    max_queue: int,
    timeout: float,
    rejects: bool,
    run: Floats,
    gap: Floats,
    speed: Floats,
    factor: Floats,
    begun: Floats,
    ended: Floats,
    place: Integers,
    company: Integers,
    outcome: NDArray[np.int8],
) -> int:
    """Send requests through the batcher. All times in seconds.

    enter: ascending, when each reaches the queue. rows, shape, cost: of each request;
    cost is a factor on the time of its run, and those of one shape have the same. batching: whether
    there is a dynamic batcher. preferred: sizes in rows, may be empty. max_queue, timeout: 0 is
    none. rejects: what becomes of those timed out; else they are put behind the others. run, gap:
    by rows of a run, its time and the time after it in which its instance takes no other; alone on
    the machine. speed: by instances at work, from 1 on. factor: of each run in turn, on its time.

    Fills, by request: begun and ended, the time of its run (both the time of the refusal for one
    refused), place, which it was in its run, from 0; company, the rows of its run, 0 for one that
    had none; outcome. Returns the number of runs.
    """
    n = enter.size
    queue = np.empty(n, np.int64)
    head = tail = 0
    put_off = np.empty(n if timeout > 0 and not rejects else 0, np.int64)
    off_head = off_tail = 0
    # Of each instance: what it still has to do alone on the machine, and whether that is the gap.
    left = np.zeros(instances)
    works = np.zeros(instances, np.bool_)
    in_gap = np.zeros(instances, np.bool_)
    first_of = np.zeros(instances, np.int64)  # of the requests of its run, in `taken`
    count_of = np.zeros(instances, np.int64)
    rows_of = np.zeros(instances, np.int64)
    taken = np.empty(n, np.int64)
    taken_end = 0
    most_preferred = max_rows
    if preferred.size:
        most_preferred = preferred.max()
    busy = 0
    runs = 0
    next_in = 0
    now = 0.0
    look_at = NEVER  # when a batch that waits for company is over its delay
    while True:
        # What happens next: a request comes, an instance is done, or a delay is over.
        then = NEVER
        if next_in < n:
            then = enter[next_in]
        comes = next_in < n
        done = -1
        if busy:
            pace = speed[busy]
            for i in range(instances):
                if works[i] and now + left[i] / pace < then:
                    then = now + left[i] / pace
                    done = i
                    comes = False
        if busy < instances and look_at < then:
            then = look_at
            done = -1
            comes = False
        if then == NEVER:
            break
        if busy:
            spent = (then - now) * speed[busy]
            for i in range(instances):
                if works[i]:
                    left[i] -= spent
        now = then
        if comes:
            waiting = tail - head + off_tail - off_head
            if max_queue and batching and waiting >= max_queue:
                begun[next_in] = ended[next_in] = now
                outcome[next_in] = QUEUE_FULL
            else:
                queue[tail] = next_in
                tail += 1
            next_in += 1
        elif done >= 0:
            is_free = in_gap[done]
            if not is_free:
                for j in range(first_of[done], first_of[done] + count_of[done]):
                    ended[taken[j]] = now
                left[done] = gap[rows_of[done]]
                in_gap[done] = True
                is_free = left[done] == 0.0
            if is_free:
                works[done] = False
                busy -= 1
        while busy < instances:
            look_at = NEVER
            if timeout > 0:
                while head < tail and now > enter[queue[head]] + timeout:
                    expired = queue[head]
                    head += 1
                    if rejects:
                        begun[expired] = ended[expired] = now
                        outcome[expired] = TIMED_OUT
                    else:
                        put_off[off_tail] = expired
                        off_tail += 1
            waiting = tail - head + off_tail - off_head
            if not waiting:
                break
            count = 0
            together = 0
            at_preferred = 0
            grows = True
            first = queue[head] if head < tail else put_off[off_head]
            oldest = enter[first]
            for j in range(waiting):
                in_queue = j < tail - head
                request = queue[head + j] if in_queue else put_off[off_head + j - (tail - head)]
                fits = together + rows[request] <= max_rows and shape[request] == shape[first]
                if count and (not batching or not fits):
                    grows = False
                    break
                count = j + 1
                together += rows[request]
                if enter[request] < oldest:
                    oldest = enter[request]
                for size in preferred:
                    if together == size:
                        at_preferred = count
                if together >= max_rows or not batching:
                    grows = False
                    break
            if batching:
                is_over = delay > 0.0 and now >= oldest + delay
                if at_preferred and not is_over:
                    count = at_preferred
                elif delay > 0.0 and grows and not is_over and together < most_preferred:
                    look_at = oldest + delay
                    break
            together = 0
            free = 0
            while works[free]:
                free += 1
            for j in range(count):
                if head < tail:
                    request = queue[head]
                    head += 1
                else:
                    request = put_off[off_head]
                    off_head += 1
                together += rows[request]
                taken[taken_end + j] = request
                begun[request] = now
                place[request] = j
            for j in range(count):
                company[taken[taken_end + j]] = together
            works[free] = True
            in_gap[free] = False
            left[free] = run[together] * factor[runs] * cost[first]
            first_of[free] = taken_end
            count_of[free] = count
            rows_of[free] = together
            taken_end += count
            runs += 1
            busy += 1
    return runs
