"""Answering with finetuned models, and with many tasks on one backbone."""
