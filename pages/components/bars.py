"""Horizontal bars as HTML: a budget's gauge, and one bar divided into parts.

Text in them is escaped. Every figure is also written beside its bar, so nothing depends on colour or length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pages.components.format import AMBER, RED, percent

NEUTRAL = "#5B7A8C"
TRACK = "rgba(128,128,128,0.22)"
_BAR = "display:flex;gap:2px;height:{height}px;border-radius:3px;overflow:hidden;background:{track};width:100%"


def gauge_hue(share: float) -> str:
    """Neutral under 80 %, amber up to 100 %, red where all is spent."""
    return RED if share >= 1 else AMBER if share >= 0.8 else NEUTRAL


def gauge(share: float, label: str, *, height: int = 6) -> str:
    """How much of a budget is used (0-1); `label` is for screen readers."""
    width = 100 * min(1.0, max(0.0, share))
    return (
        f'<div role="meter" aria-label="{escape(label)}" aria-valuemin="0" aria-valuemax="100"'
        f' aria-valuenow="{width:.0f}" style="{_BAR.format(height=height, track=TRACK)}">'
        f'<div style="width:{width:.2f}%;background:{gauge_hue(share)}"></div></div>'
    )


def parts(shares: Sequence[tuple[str, str, float]], *, height: int = 18) -> str:
    """One bar of several parts, (word, hue, share 0-1) each, with a legend under it."""
    bar = "".join(
        f'<div style="width:{100 * share:.3f}%;background:{hue}" title="{escape(word)} {percent(share)}"></div>'
        for word, hue, share in shares
        if share > 0
    )
    legend = "".join(
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:10px;height:10px;'
        f'border-radius:2px;background:{hue};margin-right:6px"></span>{escape(word)} {percent(share)}</span>'
        for word, hue, share in shares
    )
    label = ", ".join(f"{escape(word)} {percent(share)}" for word, _, share in shares)
    return (
        f'<div role="img" aria-label="{label}" style="{_BAR.format(height=height, track=TRACK)}">{bar}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:8px;font-size:0.875rem">{legend}</div>'
    )
