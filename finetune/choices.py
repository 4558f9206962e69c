"""The words that flags and configurations choose from, apart from what they do.

A command line is checked, and `--help` printed, without the seconds that torch takes to import.
"""

MATRICES = ("Q", "K", "V", "AO", "I", "O")
GRANULARITIES = ("weight", "head", "layer")
BINARIZERS = ("threshold", "hardtanh", "bernoulli", "topk", "hard_concrete")
INITS = ("uniform", "magnitude", "random", "ones")
ENCODINGS = ("gaps", "bits")
VOTES = ("label", "probability", "logit")
