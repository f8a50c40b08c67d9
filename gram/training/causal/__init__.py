"""Training of a language model that writes codes as text: the paper's own setting."""
