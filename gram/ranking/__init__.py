"""Features of a candidate, and the scorer that weighs them."""
