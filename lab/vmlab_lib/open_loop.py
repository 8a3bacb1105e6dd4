"""An open-loop load generator for a web server.

A request is sent when its time has come, never because another was answered; its response time is
counted from when it was due, so that a server that stalls is charged for everybody who waits.
"""

import asyncio
import random
from dataclasses import dataclass, field

TIMEOUT = 5.0       # then a request has failed
MOST_OPEN = 2000    # at once; further requests fail at once, as at a site that is over


@dataclass
class Outcome:
    latencies: list = field(default_factory=list)  # seconds, of requests that were answered
    errors: int = 0
    backlog: int = 0    # most requests that were under way at once
    waiting: int = 0

    def summary(self):
        ordered = sorted(self.latencies)
        answers = {f"p{share}_ms": percentile(ordered, share) * 1e3 if ordered else TIMEOUT * 1e3
                   for share in (50, 90, 95, 99)}
        return answers | {"requests": len(ordered) + self.errors, "errors": self.errors, "backlog": self.backlog}


def percentile(ordered, share):
    """Nearest rank."""
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 100) - 1))]


def schedule(rate, seconds, seed=1):
    """When requests are due: a Poisson process, the same each time, so that runs compare."""
    dice, due, times = random.Random(seed), 0.0, []
    while (due := due + dice.expovariate(rate)) < seconds:
        times.append(due)
    return times


async def request(port):
    """One GET on a connection of its own; raises if the answer is not a whole 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /index.html HTTP/1.0\r\nHost: guest\r\n\r\n")
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if b" 200 " not in head[:16] or not length or int(length[0].split(b":")[1]) != len(body):
            raise OSError("the server's answer is not whole")
    finally:
        writer.close()


async def timed_request(port, due, outcome):
    loop = asyncio.get_running_loop()
    outcome.waiting += 1
    outcome.backlog = max(outcome.backlog, outcome.waiting)
    try:
        async with asyncio.timeout(TIMEOUT):
            await request(port)
        outcome.latencies.append(loop.time() - due)
    except (OSError, ValueError, TimeoutError):
        outcome.errors += 1
    finally:
        outcome.waiting -= 1


async def send_all(port, times):
    loop, outcome = asyncio.get_running_loop(), Outcome()
    start, tasks = loop.time() + 0.01, []
    for due in times:
        await asyncio.sleep(max(0, start + due - loop.time()))
        if outcome.waiting >= MOST_OPEN:
            outcome.errors += 1
            continue
        tasks.append(asyncio.create_task(timed_request(port, start + due, outcome)))
    await asyncio.gather(*tasks)
    return outcome


def run(port, times):
    return asyncio.run(send_all(port, times))
