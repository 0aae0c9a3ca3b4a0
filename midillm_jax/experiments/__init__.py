"""Experiments: what is compared, run through the public commands, recorded, and shown with intervals."""
