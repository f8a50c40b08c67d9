"""Attributes and codes: the lexicon, the tagger, training targets and the code trie."""
