"""Clean documents to token ids: the tokenizer, trained or taken, and its work on every piece."""
