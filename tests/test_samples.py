"""The sample collection is what its README says: whole, without doubles, and with every judgement resolving."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
ARTICLES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((SAMPLES / "help-centre").glob("*.md"))}
QUERIES = [json.loads(line) for line in (SAMPLES / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
HEADER, *JUDGEMENTS = [
    tuple(line.split("\t")) for line in (SAMPLES / "qrels.tsv").read_text(encoding="utf-8").splitlines()
]


def doubles(items: list[str]) -> list[str]:
    """What occurs more than once."""
    return [item for item, count in Counter(items).items() if count > 1]


def body(text: str) -> str:
    """An article without its title, lower case, white space evened out."""
    return " ".join(text.split("\n", 1)[1].lower().split())


def test_counts_are_those_of_the_readme() -> None:
    """The README's table states how many articles and questions there are."""
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"| {len(ARTICLES)} articles " in readme
    assert f"| {len(QUERIES)} questions," in readme
    assert len(ARTICLES) >= 100
    assert len(QUERIES) >= 40


def test_help_centre_holds_only_articles() -> None:
    """Nothing but Markdown files with ids of lower-case words and hyphens."""
    names = [path.name for path in (SAMPLES / "help-centre").iterdir()]
    assert [name for name in names if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.md", name)] == []


@pytest.mark.parametrize("doc_id", ARTICLES)
def test_article_has_a_title_and_80_to_220_words(doc_id: str) -> None:
    """Each article is one titled page of the stated length."""
    text = ARTICLES[doc_id]
    assert re.match(r"# \S.*\n\n\S", text)
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1
    assert 80 <= len(text.split()) <= 220


def test_no_article_is_there_twice() -> None:
    """Neither titles, nor bodies, nor paragraphs of any length repeat."""
    assert doubles([text.splitlines()[0].lower() for text in ARTICLES.values()]) == []
    assert doubles([body(text) for text in ARTICLES.values()]) == []
    paragraphs = [part.strip() for text in ARTICLES.values() for part in text.split("\n\n")[1:]]
    assert doubles([part for part in paragraphs if len(part.split()) >= 8]) == []


def test_queries_have_an_id_and_a_text_once() -> None:
    """Each line is {"id", "text"}; no id and no text occurs twice; no text is blank."""
    assert [query for query in QUERIES if set(query) != {"id", "text"} or not query["text"].strip()] == []
    assert doubles([query["id"] for query in QUERIES]) == []
    assert doubles([query["text"].lower() for query in QUERIES]) == []


def test_no_query_is_a_title() -> None:
    """Questions are worded differently from the titles of the articles."""
    titles = {text.splitlines()[0].removeprefix("# ").lower() for text in ARTICLES.values()}
    assert [query["text"] for query in QUERIES if query["text"].lower().rstrip("?") in titles] == []


def test_judgements_resolve() -> None:
    """Every judgement names a query and an article that exist, once, with grade 1 or 2."""
    assert HEADER == ("query_id", "doc_id", "grade")
    ids = {query["id"] for query in QUERIES}
    wrong = [row for row in JUDGEMENTS if len(row) != len(HEADER) or row[0] not in ids or row[1] not in ARTICLES]
    assert wrong == []
    assert {row[2] for row in JUDGEMENTS} == {"1", "2"}
    assert doubles([f"{row[0]} {row[1]}" for row in JUDGEMENTS]) == []


def test_every_query_has_an_answer() -> None:
    """Each query has one to four judged articles, at least one of them of grade 2."""
    judged = Counter(row[0] for row in JUDGEMENTS)
    answered = {row[0] for row in JUDGEMENTS if row[2] == "2"}
    assert [query["id"] for query in QUERIES if not 1 <= judged[query["id"]] <= 4] == []
    assert [query["id"] for query in QUERIES if query["id"] not in answered] == []
