"""People and programs ask for music here; engines of inference/ write it."""
