"""The encoder as a coder: one pass writes single codes, a small decoder compound ones."""
