"""How a model comes about: a list of stages over products and a log."""
