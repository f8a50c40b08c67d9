"""Public datasets as their publishers ship them, one a file."""
