"""Which endings are read as one document, and by what: the one list that readers, uploads and messages take."""

from __future__ import annotations

from typing import Literal

DocumentKind = Literal["text", "markdown", "pdf", "docx", "pptx", "xlsx", "epub", "html", "mail"]

_SOURCE = (
    *(".py", ".js", ".ts", ".jsx", ".tsx", ".java", ".kt", ".scala", ".c", ".h", ".cpp", ".hpp", ".cs", ".go", ".rs"),
    *(".rb", ".php", ".swift", ".lua", ".pl", ".r", ".jl", ".sql", ".sh", ".ps1", ".css", ".yaml", ".yml", ".toml"),
)
"""Source code is text: nothing is left out of it, and it is cut at blank lines."""
DOCUMENTS: dict[str, DocumentKind] = {
    ".md": "markdown",
    ".rst": "text",
    ".tex": "text",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".epub": "epub",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".eml": "mail",
    **dict.fromkeys(_SOURCE, "text"),
}
MODULES: dict[DocumentKind, str] = {
    kind: f"router.ingest.{kind}" for kind in ("pdf", "docx", "pptx", "xlsx", "epub", "html", "mail")
}
"""The readers of what needs a parser, which run in the guarded process."""
