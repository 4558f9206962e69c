"""Shards to checkpoints to a Hugging Face directory: pretraining with late [MASK] insertion."""
