"""midillm_jax: train, export and serve Llama models that write multitrack MIDI from text."""

__version__ = "0.1.0"
