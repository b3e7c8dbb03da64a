"""Route a text: the form, the quote's summary and button, and the answer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components import tables, widgets
from pages.components.background import Embedding, kept
from pages.components.columns import chooser
from pages.components.format import (
    EXPORTS,
    ROUTES,
    charged,
    estimate,
    exact_usd,
    listed,
    md,
    plural,
    seconds,
    tokens,
    unbroken,
    usd,
)
from router.domain.values import Plan
from router.engine import Router
from router.ingest.columns import Columns, Ids
from router.ingest.extract import ROWS, read_rows, safe_name
from router.pipeline.results import Quote, Result
from router.search.export import open_writer

EXAMPLE = "How do I cancel an invoice that was already sent?\nSteps for stopping a paid plan"
MOST_TEXTS = 50_000
NAMED = 5
"""Unreadable rows that are named; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The form's contents. `options` are arguments of `Router.quote` and `Router.embed`."""

    texts: list[str] = field(repr=False)
    ids: list[str] = field(repr=False)
    options: Mapping[str, Any]


def form(router: Router) -> Query:
    """Texts or a file, policy and role, and a fixed model or size."""
    source = st.segmented_control("From", ["Text", "File"], default="Text", required=True, key="source")
    if source == "File":
        texts, ids = _file()
    else:
        body = st.text_area("Texts, one a line", height=190, placeholder=EXAMPLE, key="texts") or ""
        lines = [(str(n), line) for n, line in enumerate(body.split("\n"), 1) if line.strip()]
        ids, texts = [n for n, _ in lines], [line for _, line in lines]
    one, other = st.columns(2)
    with one:
        policy = widgets.policy_box(router, key="policy")
    help = "Some models embed documents and queries differently."
    role = other.selectbox("Role", ["document", "query"], key="role", help=help)
    with st.expander("Model and dimensions"):
        model = widgets.model_box(router, key="model")
        help = "Fewer are cut from the full vector, if the model allows it. The cache serves every size."
        words = {"placeholder": "The model's own", "help": help}
        dimensions = st.number_input("Dimensions", min_value=1, value=None, step=1, key="dimensions", **words)
    options = {"policy": policy, "role": role, "model": model, "dimensions": dimensions}
    return Query(texts=texts, ids=ids, options=options)


def _file() -> tuple[list[str], list[str]]:
    """The texts and ids of an uploaded file; empty rows are counted, unreadable ones named."""
    upload = st.file_uploader("File", type=[kind.removeprefix(".") for kind in ROWS], key="file", help="A text a row.")
    if upload is None:
        return [], []
    columns = chooser(upload)
    source = (upload.name, blake2b(upload.getvalue(), digest_size=16).hexdigest(), columns)
    found = None
    with widgets.errors_shown():
        found = kept("file rows", source, lambda: _rows(upload.name, upload.getvalue(), columns))
    if found is None:
        return [], []
    texts, ids, skipped, broken = found
    if broken:
        some = "; ".join(listed([f"line {line} {problem}" for line, problem in broken], NAMED))
        widgets.show_refusal(
            f"{plural(len(broken), 'row')} cannot be read and will be left out: {some}.",
            "Fix the source file, or go on.",
        )
    if skipped:
        st.caption(f"{plural(skipped, 'empty row')} skipped.")
    return texts, ids


def _rows(name: str, body: bytes, columns: Columns) -> tuple[list[str], list[str], int, list[tuple[int, str]]]:
    texts, ids, broken, skipped, names = [], [], [], 0, Ids()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / safe_name(name)
        path.write_bytes(body)
        for row in read_rows(path, columns):
            if row.problem:
                broken.append((row.line, row.problem))
            elif not row.text:
                skipped += 1
            elif len(texts) == MOST_TEXTS:
                st.warning(f"Only the first {MOST_TEXTS:,} texts of the file are used here.", icon=":material/info:")
                break
            else:
                texts.append(row.text)
                ids.append(names.take(row.id, row.number, row.line))
    return texts, ids, skipped, broken


def confirm(quote: Quote) -> bool:
    """The quote in words, and the button that embeds; True where it was pressed."""
    line = next((one for one in quote.lines if one.verdict.chosen), quote.lines[0])
    whole = f"{plural(quote.texts, 'text')}, {tokens(quote.tokens)}: {estimate(line.full_expected, line.full_cost)}"
    whole += " if each were sent."
    cached, repeats = line.verdict.cached, quote.texts - quote.distinct
    rest = [f"{repeats:,} repeated"] * bool(repeats) + [f"{cached:,} cached"] * bool(cached)
    if rest:
        sent = plural(quote.distinct - cached, "text")
        price = estimate(line.verdict.expected, line.verdict.cost)
        now = f"{sent}, {tokens(line.verdict.expected_tokens)}: {price}"
        whole += f" Without the {' and the '.join(rest)}: {now}."
    st.markdown(md(whole))
    if not isinstance(quote.outcome, Plan):
        widgets.show_refusal(quote.outcome.reason, quote.outcome.hint)
        return False
    st.text(unbroken(quote.decision))
    label = f"Embed {plural(quote.texts, 'text')}: {estimate(quote.outcome.expected, quote.outcome.cost)}"
    exact = md(f"{exact_usd(quote.outcome.cost)} at most.") if quote.outcome.cost else None
    return widgets.act(md(label), "play_arrow", type="primary", key="embed", help=exact)


def answer(work: Embedding, result: Result) -> None:
    """Routes, cost, decision, the vectors' first numbers, and how alike the texts are."""
    widgets.route_badges({name: result.routes.count(name) for name in ROUTES})
    st.markdown(
        f"Cost **{md(charged(result.cost, result.unconfirmed))}** · saved **{md(usd(result.saved.total))}** ·"
        f" {tokens(result.tokens)} · {result.dimensions:,} dimensions · took {md(seconds(work.seconds))}"
    )
    st.text(unbroken(result.decision))
    rows = tables.answers(work.texts[:1000], result)
    columns = ["text", "answered by", "vector", *(["note"] if any(row["note"] for row in rows) else [])]
    config = {
        "text": widgets.WIDE,
        "answered by": widgets.words_column(),
        "vector": {"help": "Its first four numbers.", "width": "medium"},
    }
    widgets.table(rows, "Each text with its route and the first numbers of its vector", config, column_order=columns)
    if 1 < result.texts <= 10 and not result.problems:
        _alike(work.texts, result)
    widgets.downloads({name: (f"vectors{ending}", partial(file_of, work, ending)) for name, ending in EXPORTS.items()})


def _alike(texts: Sequence[str], result: Result) -> None:
    st.markdown("**How alike** · cosine of each pair; 1 is the same direction")
    heads = [f"{n}" for n in range(1, result.texts + 1)]
    cosines = (result.vectors @ result.vectors.T).astype(float).round(3).tolist()
    rows = [
        {"": head, "text": text, **dict(zip(heads, row, strict=True))}
        for head, text, row in zip(heads, texts, cosines, strict=True)
    ]
    config: dict[str, Any] = {h: st.column_config.NumberColumn(format="%.2f", width=56) for h in heads}
    widgets.table(rows, "The cosine of each pair of texts", config | {"": {"width": 36}, "text": {"width": "medium"}})


def file_of(work: Embedding, ending: str) -> bytes:
    """The vectors with ids and texts, as a .parquet, .npz or .jsonl file; refused texts are left out."""
    result = work.result
    assert result is not None
    good = [i for i in range(result.texts) if i not in result.problems]
    about = {"space": result.space, "model": result.model, "dimensions": result.dimensions}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"vectors{ending}"
        with open_writer(path, **about, with_text=True) as writer:
            writer.write([work.ids[i] for i in good], [work.texts[i] for i in good], result.vectors[good])
        return path.read_bytes()
