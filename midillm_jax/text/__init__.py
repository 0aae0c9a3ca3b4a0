"""Text tokenizers and the one place that lays out a row of tokens."""
