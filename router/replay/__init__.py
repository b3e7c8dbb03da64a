"""What the requests of the last weeks would have come to under another policy, by deciding each of them again.

Every request kept what its decision knew (request/trace.py). It is decided again with those facts, changed only where
the draft's own history differs from the real one: texts that it would have cached or not, money that it would have
spent or not. Where the same model answers the same missing texts, the request comes to what it really came to, so the
policy in force replays to the recorded cost exactly; anything else is reckoned from token counts.

Health of the providers, keys, the kill switch and other policies' spending are as they were. Texts are as they were
embedded: a change of `normalise` is not seen.
"""

from router.replay.run import Replay, Side, replay

__all__ = ["Replay", "Side", "replay"]
