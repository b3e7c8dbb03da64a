"""Ninety days of made-up requests for `make demo`, so that its pages have something to show.

The texts do not exist, but everything about them is the real thing: each request is decided by `decide()` on a cache
that fills up, its money is held, charged and counted by the ledger's own functions, and what it knew is kept for
replay. The same seed and moment write the same books.
"""

from router.demo.traffic import write

__all__ = ["write"]
