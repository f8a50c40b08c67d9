"""`gram bench`: GRAM and its rivals, measured in one run."""
