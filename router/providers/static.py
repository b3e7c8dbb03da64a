"""A static model, distilled once from the packaged transformer by model2vec: much faster, and clearly worse.

Every token of the vocabulary is embedded on its own by the transformer; a text is the mean of its tokens' vectors. Its
space in the catalog names this way of making it: another recipe makes other vectors, and needs another space.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from router.domain.errors import NotConfigured

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DIMENSIONS = 256
_DISTIL = """
import sys
from model2vec.distill import distill
model = distill(sys.argv[1], device="cpu", pca_dims=int(sys.argv[3]), quantize_to="float32")
model.save_pretrained(sys.argv[2])
"""


def load(teacher: Path, folder: Path) -> SentenceTransformer:
    """The static model in `folder`; distilled into it if it is not there yet.

    Raises:
        NotConfigured: it could not be distilled; the message has the last line of the reason.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    if not folder.is_dir():
        _distil(teacher, folder)
    module = StaticEmbedding.from_model2vec(str(folder))
    module.tokenizer.no_truncation()  # model2vec cuts at 512 tokens without saying so
    return SentenceTransformer(modules=[module], device="cpu")


def _distil(teacher: Path, folder: Path) -> None:
    """In a process of its own: it takes a gigabyte, and draws a progress bar over what the shell says."""
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as partial:
        command = [sys.executable, "-c", _DISTIL, str(teacher), partial, str(DIMENSIONS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]
            raise NotConfigured(
                f"The static model could not be distilled: {why}", "Run `pip install -r requirements.txt`."
            )
        with suppress(OSError):  # another process was quicker
            Path(partial).rename(folder)
