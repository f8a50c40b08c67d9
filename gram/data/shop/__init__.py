"""The generated shop: a catalogue, searchers, their log and their judgements."""
