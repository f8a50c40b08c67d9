"""GRAM: generative retrieval for shops, by codes that queries and products share."""
