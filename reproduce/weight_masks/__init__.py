"""The masking paper's figures (Zhao et al. 2020), a module each.

Every one writes a picture, the numbers behind it and a finding (`finding.py`).
"""

FIGURES = {
    "sparsity": "dev score against the share of zeros that masks start with",
    "layers": "dev score against how many blocks are masked, from the bottom and from the top",
    "memory": "parameters and bytes against the number of tasks",
    "tsne": "first-token states of a pretrained, a finetuned and a masked encoder",
    "dissimilarity": "how much two tasks' masks differ, by block and matrix",
    "crossdata": "what an encoder adapted to one task is worth to another",
    "connectivity": "score and loss on the paths from the masked to the finetuned model",
    "ensemble": "votes of masked, of finetuned and of both kinds of models",
}
