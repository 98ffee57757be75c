"""TokenBucket: a burst goes at once, what follows is spread."""

import asyncio

from spokes.server.base.token_bucket import TokenBucket


async def test_pace_burst_at_once_then_the_rate():
    loop = asyncio.get_running_loop()
    pace = TokenBucket(50, 20)
    begun = loop.time()
    for _ in range(19):
        await pace.turn()
    burst_s = loop.time() - begun
    for _ in range(11):
        await pace.turn()
    assert burst_s < 0.15
    assert loop.time() - begun > 0.15
