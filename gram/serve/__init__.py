"""The HTTP service of a shop and its page."""
