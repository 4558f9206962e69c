"""A RoBERTa of a few weights, rows for it, and a few steps that train its masks."""

import torch
from transformers import PreTrainedModel, RobertaConfig, RobertaForSequenceClassification

from finetune.masks.layer import MaskedLinear

SIZE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
    "num_labels": 3,
}
IDS = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(0))


def roberta(seed: int = 0, head_seed: int = 0) -> PreTrainedModel:
    """Base weights from `seed`; the head, which no checkpoint has, from `head_seed`."""
    torch.manual_seed(seed)
    model = RobertaForSequenceClassification(RobertaConfig(**SIZE, initializer_range=0.2))
    torch.manual_seed(head_seed)
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def train(model: torch.nn.Module, steps: int = 10) -> None:
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=0.05)
    for _ in range(steps):
        model(input_ids=IDS, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def layers(model: torch.nn.Module) -> dict[str, MaskedLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, MaskedLinear)}
