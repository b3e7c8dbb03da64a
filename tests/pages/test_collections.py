"""Collections: files, their verdicts, the quote, the go-ahead, the job, search, and taking things away."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import collection_list
from router.domain.values import Budget, Policy
from router.host import host
from router.jobs.worker import Worker
from router.sandbox import Sandbox
from tests.pages.test_pages import button, save, say_yes, tick, words

Open = Callable[..., AppTest]
SMALL = "openai/text-embedding-3-small"
ROWS = "id,text\n1,How to cancel an invoice\n2,How to pay an invoice by card\n3,How to cancel an invoice\n4,\n"


@pytest.fixture(autouse=True)
def paid(data: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Keys for the sandbox, and no worker but the one that a test runs itself."""
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ROUTER_WORKER", "0")
    return sandbox


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Do it on the engine's loop."""
    return host().run(work)


def order(app: AppTest):  # type: ignore[no-untyped-def]  # AppTest's Button is not public
    """The button that pays."""
    return next(b for b in app.button if b.label.startswith("Embed ") and "texts with" in b.label)


def work_off() -> None:
    """Run every job to its end, or to where it stops."""

    async def go() -> None:
        worker = Worker(host().router, host().library.corpora, host().library.jobs)
        await worker.run_all()
        await worker.stop()

    run(go())


def fill(tmp_path: Path, name: str = "mine", policy: str = "default") -> None:
    """A collection with three texts that wait to be confirmed."""
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    run(host().library.create(name, policy=policy))
    run(host().library.add_files(name, [path]))


def test_the_first_page_offers_the_samples_and_a_new_collection(open_page: Open) -> None:
    """Nothing there yet: one click to a first collection, and what else can be done."""
    app = open_page("collections")
    assert not app.exception
    assert "No collection yet." in words(app)
    assert button(app, "Embed the sample help centre (free, local)")
    assert button(app, "Create").disabled


def test_one_click_embeds_the_samples_for_nothing(open_page: Open, paid: Sandbox) -> None:
    """The collection, its documents and its job are there; nothing is sent to a provider."""
    before = paid.bill().calls
    app = open_page("collections")
    button(app, "Embed the sample help centre (free, local)").click().run()
    assert not app.exception
    assert app.query_params["collection"] == "help-centre"
    job = host().library.info("help-centre").job
    assert job is not None
    assert (job.state, job.route, job.total >= 90) == ("queued", "local", True)
    assert f"0 of {job.total} texts · free" in words(app)
    assert button(app, "Pause")
    assert paid.bill().calls == before


def test_a_collection_is_made_and_opened(open_page: Open) -> None:
    """With a policy; a name that is taken is said in words."""
    app = open_page("collections")
    app.text_input(key="new name").set_value("handbook").run()
    button(app, "Create").click().run()
    assert not app.exception
    assert app.query_params["collection"] == "handbook"
    assert "No document yet." in words(app)
    app = open_page("collections")
    app.text_input(key="new name").set_value("handbook").run()
    button(app, "Create").click().run()
    assert "already" in app.error[0].value


def test_every_file_has_a_verdict_and_the_good_ones_go_on(open_page: Open, data: Path) -> None:
    """A good table, a zip, a broken PDF and an empty file: two say why not, and no upload stays on the disk."""
    run(host().library.create("mine"))
    app = open_page("collections", collection="mine")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("folder/a.md", "# Invoices\n\nHow an invoice is sent, and how it is cancelled.")
    app.file_uploader(key="files mine 0").set_value([
        ("rows.csv", ROWS.encode(), "text/csv"), ("all.zip", archive.getvalue(), "application/zip"),
        ("broken.pdf", b"%PDF-1.4 nothing", "application/pdf"), ("empty.md", b"", "text/markdown"),
    ]).run()  # fmt: skip
    assert not app.exception
    assert next(s for s in app.multiselect if s.label == "Texts of rows\\.csv").value == ["text"]
    assert next(s for s in app.selectbox if s.label == "Ids").value == "id"
    button(app, "Read 4 files").click().run()
    assert not app.exception
    assert "2 of 4 files could be read." in words(app)
    table = app.dataframe[0].value.set_index("file")
    assert table.loc["broken.pdf"]["verdict"] == ["not read"]
    assert table.loc["broken.pdf"]["why"]
    assert table.loc["empty.md"]["why"]
    assert table.loc["rows.csv"][["chunks", "rows skipped"]].tolist() == [3, 1]
    assert not app.file_uploader(key="files mine 1").value
    assert not [path for path in (data / "uploads").rglob("*") if path.is_file()]
    assert "less 1 exact duplicate" in words(app)


def test_a_folder_keeps_its_inner_paths_and_a_new_version_says_what_it_replaces(open_page: Open, data: Path) -> None:
    """Two notes of one name in two folders are two documents; read again, the changed one says so before the price."""
    run(host().library.create("mine"))
    app = open_page("collections", collection="mine")
    folder = [(f"docs/{name}/notes.md", f"The notes of {name}.".encode(), "text/markdown") for name in ("a", "b")]
    app.toggle(key="folder mine 0").set_value(True).run()
    app.file_uploader(key="files mine 0 folder").set_value(folder).run()
    button(app, "Read 2 files").click().run()
    assert sorted(row.name for row in host().library.documents("mine")) == ["a/notes.md", "b/notes.md"]
    run(host().library.confirm("mine", model="local/static-MiniLM"))
    app = open_page("collections", collection="mine")
    app.file_uploader(key="files mine 0").set_value([("b.csv", b"title,body\nOne,First\n", "text/csv")]).run()
    next(s for s in app.multiselect if s.label.startswith("Texts")).set_value(["title", "body"]).run()
    button(app, "Read 1 file").click().run()
    document = next(row for row in host().library.documents("mine") if row.name == "b.csv")
    assert host().library.chunks(document.id)[0].text == "title: One\nbody: First"
    app.toggle(key="folder mine 1").set_value(True).run()
    again = [("docs/a/notes.md", b"Other notes of a.", "text/markdown"), folder[1]]
    app.file_uploader(key="files mine 1 folder").set_value(again).run()
    button(app, "Read 2 files").click().run()
    assert not app.exception
    table = app.dataframe[0].value.set_index("file")
    assert re.fullmatch(
        r"Replaces the version of \d+ \w+ \d\d:\d\d; 1 of 1 text is new\.", table.loc["a/notes.md"]["why"]
    )
    assert table.loc["b/notes.md"]["verdict"] == ["unchanged"]


def test_a_quote_names_every_candidate_and_what_it_leaves(open_page: Open, tmp_path: Path) -> None:
    """Both prices, a year, the budgets before and after, the first chunks; and another model may be taken."""
    fill(tmp_path)
    app = open_page("collections", collection="mine")
    assert not app.exception
    assert "1 document (1 new), 3 chunks, less 1 exact duplicate: 2 texts" in words(app)
    table = app.dataframe[0].value.set_index("model")
    assert set(table.index) == {model.id for model in host().router.catalog.models}
    assert table.loc[SMALL][["likely", "batch"]].tolist() == ["< $0.000001", "< $0.000001"]
    assert table.loc[SMALL]["a year"].startswith("$")
    assert table.loc["local/all-MiniLM-L6-v2"][["likely", "batch"]].tolist() == ["free", "–"]
    assert "left of $10.00 a month" in words(app)
    assert "How to cancel an invoice" in words(app)
    app.selectbox(key="order model").set_value(SMALL).run()
    assert not app.exception
    assert order(app).label.replace("\\", "").startswith("Embed 2 texts with text-embedding-3-small: ")
    assert app.dataframe[0].value.iloc[0]["model"] == SMALL
    assert "too small" not in words(app)


def test_a_budget_that_a_quote_does_not_fit_is_marked(open_page: Open, tmp_path: Path) -> None:
    """Of the policy's budget and the account's, the one that is too small."""
    save(Policy(name="tiny", allow=("openai/*",), when_exhausted="wait", budgets=(Budget(amount=1, window="month"),)))
    fill(tmp_path, policy="tiny")
    said = words(open_page("collections", collection="mine"))
    assert said.count("too small") == 1
    assert "**tiny** · < $0.000001 left of < $0.000001 a month" in said


def test_a_confirmed_quote_becomes_a_job_that_can_be_watched(
    open_page: Open, tmp_path: Path, paid: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Confirm, pause, resume, done; what was spent is the provider's bill, and then it can be searched."""
    fill(tmp_path)
    before = paid.bill()
    app = open_page("collections", collection="mine")
    app.selectbox(key="order model").set_value(SMALL)
    app.selectbox(key="order when").set_value("now").run()
    monkeypatch.setattr(collection_list, "DOUBLE_CLICK_S", 600.0)
    order(app).click().run()
    assert not app.exception
    assert "0 of 2 texts" in words(app)
    app.segmented_control(key="tab").set_value("Documents").run()  # as the second half of a double click has it
    assert button(app, "Pause")
    monkeypatch.setattr(collection_list, "DOUBLE_CLICK_S", 0.0)
    app.segmented_control(key="tab").set_value("Documents").run()
    assert not [b for b in app.button if b.label == "Pause"]
    app.segmented_control(key="tab").set_value("Jobs").run()
    button(app, "Pause").click().run()
    assert "paused by hand" in words(app)
    button(app, "Resume").click().run()
    assert paid.bill().calls == before.calls
    work_off()
    app.run()
    assert not app.exception
    assert "2 of 2 texts · < $0.000001 spent" in words(app)
    job = host().library.info("mine").job
    assert job is not None
    assert job.state == "done"
    assert job.spent == paid.bill().nanodollars - before.nanodollars
    assert [b.label for b in app.button if b.label in ("Pause", "Resume", "Cancel", "Retry failed")] == []
    app = open_page("collections", collection="mine", tab="Search")
    app.text_input(key="query mine").set_value("How to cancel an invoice")
    button(app, "Search").click().run()
    assert not app.exception
    assert "2 texts compared" in words(app)
    assert "rows.csv#1" in words(app)
    assert "2 places" in words(app)


def test_a_refused_quote_has_no_button(open_page: Open, tmp_path: Path) -> None:
    """Paid calls are off and only a paid model is asked for: the reason, in words."""
    fill(tmp_path)
    run(host().router.policies.set_paid(False))
    app = open_page("collections", collection="mine")
    app.selectbox(key="order model").set_value(SMALL).run()
    assert not app.exception
    assert app.error
    assert not any(b.label.startswith("Embed ") for b in app.button)


def test_what_was_read_can_be_discarded(open_page: Open, tmp_path: Path) -> None:
    """Nothing was spent, and nothing is left."""
    fill(tmp_path)
    app = open_page("collections", collection="mine")
    button(app, "Discard new files").click().run()
    assert not app.exception
    assert "1 file discarded" in words(app)
    assert host().library.info("mine").new_documents == 0


def embedded(tmp_path: Path) -> None:
    """A collection whose three chunks are embedded by the paid model."""
    fill(tmp_path)
    run(host().library.confirm("mine", model=SMALL, route="api"))
    work_off()


def test_settings_export_improve_and_delete(open_page: Open, tmp_path: Path) -> None:
    """The space is named, the export holds every chunk, another generation can be begun and dropped."""
    embedded(tmp_path)
    app = open_page("collections", collection="mine", tab="Settings")
    assert not app.exception
    assert "2 of 2 texts can be searched (100 %)." in words(app)
    assert [one.proto.label for one in app.get("link_button")] == ["Parquet", "NPZ", "JSON lines"]
    app.selectbox(key="improve mine").set_value("openai/text-embedding-3-large").run()
    assert not app.exception
    next(b for b in app.button if b.label.startswith("Re\\-embed 2 texts")).click().run()
    assert not app.exception
    assert [g.state for g in host().library.info("mine").generations] == ["active", "building"]
    app = open_page("collections", collection="mine", tab="Settings")
    button(app, "Drop").click().run()
    assert not app.exception
    assert [g.state for g in host().library.info("mine").generations] == ["active"]
    app.selectbox(key="policy of mine").set_value("economy").run()
    button(app, "Save the policy").click().run()
    assert host().library.info("mine").collection.policy == "economy"
    button(app, "Delete permanently").click().run()
    assert not app.exception
    assert "Deleted: mine." in words(app)
    assert host().library.collections() == []


def test_a_pinned_collection_is_offered_the_models_of_its_space(open_page: Open, tmp_path: Path) -> None:
    """The others cannot serve it, so they are not listed; what waits is told from what is confirmed."""
    embedded(tmp_path)
    more = tmp_path / "more.md"
    more.write_text("How an invoice is sent again, and what becomes of the one before it.")
    run(host().library.add_files("mine", [more]))
    app = open_page("collections", collection="mine")
    assert not app.exception
    assert app.dataframe[0].value["model"].tolist() == [SMALL]
    assert "The collection is pinned to the space openai/text-embedding-3-small" in words(app)
    documents = app.dataframe[1].value.set_index("document")
    assert documents["state"].to_dict() == {"more.md": ["to confirm"], "rows.csv": ["confirmed"]}


def test_a_document_is_looked_into_and_deleted(open_page: Open, tmp_path: Path) -> None:
    """Picked in the table: its chunks as text, and a button that takes it away."""
    embedded(tmp_path)
    app = open_page("collections", collection="mine")
    tick(app, "documents mine 1", 0)
    assert not app.exception
    assert "How to pay an invoice by card" in words(app)
    button(app, "Delete 1 document, 3 chunks").click().run()
    assert "1 document, 3 chunks of **mine**:" in words(app)
    assert len(host().library.documents("mine")) == 1
    say_yes(app, "Delete 1 document, 3 chunks")
    assert not app.exception
    assert host().library.documents("mine") == []


def test_a_text_is_erased_everywhere(open_page: Open, tmp_path: Path) -> None:
    """How much went, and where it was."""
    embedded(tmp_path)
    app = open_page("collections")
    app.text_area(key="erase text").set_value("How to cancel an invoice").run()
    button(app, "Erase").click().run()
    assert not app.exception
    assert "2 chunks and 1 vector erased." in words(app)


@pytest.mark.parametrize("name", ["<b>x</b>", "$a$ :material/bolt:", "=1+1", "a) [x](javascript:1)"])
def test_a_hostile_name_is_text_everywhere(name: str, open_page: Open, tmp_path: Path) -> None:
    """Of a collection and of a file; on the cards, in the head, in every part."""
    path = tmp_path / "x**b**_$a$.md"
    path.write_text("<script>alert(1)</script> **bold** :red[x] $a$ are words of this text")
    run(host().library.create(name))
    run(host().library.add_files(name, [path]))
    asked = [{}, *({"collection": name, "tab": tab} for tab in ("Documents", "Search", "Jobs", "Settings"))]
    for query in asked:
        app = open_page("collections", **query)
        assert not app.exception
        raw = [str(e.value) for kind in (app.markdown, app.caption, app.subheader, app.error) for e in kind]
        assert not [text for text in raw if "<script>" in text or "**b**" in text or "<b>" in text or "$a$" in text]


def test_an_unknown_collection_is_said(open_page: Open) -> None:
    """A link to one that was deleted."""
    app = open_page("collections", collection="gone")
    assert not app.exception
    assert "There is no collection “gone”." in words(app)
