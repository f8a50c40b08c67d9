"""The generator: network, training, beam and scorer."""
