"""The Llama decoder, its grown embedding table, its sharding and its Hugging Face twin."""
