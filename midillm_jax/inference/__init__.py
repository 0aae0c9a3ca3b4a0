"""A prompt becomes checked tokens and music; engines share one contract."""
