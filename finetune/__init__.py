"""Finetune an encoder, or mask its frozen weights, on GLUE-like tasks; tables, answers."""
