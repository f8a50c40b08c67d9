"""Sources of products, interactions, queries and judgements."""
