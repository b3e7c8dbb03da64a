"""The readers of the guarded process: each turns one document into blocks of text, and says what it left out."""
