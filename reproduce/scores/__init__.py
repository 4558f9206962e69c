"""Scores of finetuning, masks and other adapters: a grid of learning rates, then several seeds."""
