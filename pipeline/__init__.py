"""Corpora to tar shards and a manifest. Format: docs/formats.md, section A."""
