"""What app.py sees to before the first page."""

from __future__ import annotations

import sys

from streamlit.runtime.scriptrunner.exec_code import modified_sys_path


def test_a_run_of_a_page_leaves_the_import_path_alone() -> None:
    """Else an import in another thread, which walks along it, skips an entry: a job failed so, loading its model."""
    from app import app

    before = list(sys.path)
    with modified_sys_path(str(app._resolve_script_path())):
        assert sys.path == before
    assert sys.path == before
