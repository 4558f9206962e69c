"""Which families of transformers take which method, found by trying."""
