"""From files to texts and back: read what people upload, split documents, and write the vectors out.

`extract` reads files into rows or documents, `chunk` splits a document to a token limit, `export` writes vector files.
"""
