"""What a search team would otherwise run, behind the same `search`."""
