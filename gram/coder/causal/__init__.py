"""A language model as coder: it writes codes as text, for queries and products alike."""
