"""Somebody else's tokenizer, with all that it says of itself, for `tokenizer.path`.

Its ids, added tokens, normaliser, splitting and post-processor stay, and so do the settings beside
it, so that `AutoTokenizer.from_pretrained` makes the same of the copy as of the source. Special
tokens that it lacks are added behind its own, with RoBERTa's names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from pipeline.errors import PipelineError
from pipeline.tokens.special import find_names

TOKENIZER, SETTINGS, SPECIAL_TOKENS_MAP = FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
ADDED_TOKENS = "added_tokens.json"
_ROBERTAS_NAMES = {
    "cls": "<s>",
    "pad": "<pad>",
    "sep": "</s>",
    "unk": "<unk>",
    "mask": AddedToken("<mask>", lstrip=True, normalized=False, special=True),
}
# What AutoTokenizer takes for a model whose tokenizer doesn't name its class.
_CLASSES = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "roberta-prelayernorm": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}


def copied_files(path: str) -> dict[str, bytes]:
    """The files of a tokenizer in a folder or on the Hub, by the names that the copies get.

    Raises:
        PipelineError: there is no tokenizer, or none that this library reads.
    """
    folder = _fetched(path)
    raw, tokenizer = _read(folder, path)
    settings = _settings(folder)
    if _add_stated(tokenizer, settings, folder):
        raw = tokenizer.to_str(pretty=True).encode()
    map_file = folder / SPECIAL_TOKENS_MAP
    special_tokens_map = _json(map_file)
    names = find_names(tokenizer, settings, special_tokens_map)
    if added := {part: token for part, token in _ROBERTAS_NAMES.items() if part not in names}:
        _add(tokenizer, names, added)
        raw = tokenizer.to_str(pretty=True).encode()
        # The class may make its own of the files; this one takes them as they are.
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings |= {f"{part}_token": str(token) for part, token in names.items()}
        settings.setdefault("bos_token", names["cls"])
        settings.setdefault("eos_token", names["sep"])
    elif "tokenizer_class" not in settings:
        # By the model that it belongs to, which the copy doesn't have.
        model = _json(folder / "config.json")
        known = model.get("tokenizer_class") or _CLASSES.get(model.get("model_type", ""))
        settings["tokenizer_class"] = known or "PreTrainedTokenizerFast"
        if not known:
            settings |= {f"{part}_token": token for part, token in names.items()}
    files = {SETTINGS: (json.dumps(settings, indent=1) + "\n").encode(), TOKENIZER: raw}
    if map_file.is_file() and not added:
        files = {SPECIAL_TOKENS_MAP: map_file.read_bytes(), **files}
    return files


def _fetched(path: str) -> Path:
    """`path` itself if it is a folder, else the copy of what the Hub has under this name."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise PipelineError(f"tokenizer.path: {path}: a file; give the folder that it lies in")
    # Imported here: no other run needs it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        read = [*FILES, ADDED_TOKENS, "config.json", "vocab.json", "merges.txt"]
        return Path(snapshot_download(path, allow_patterns=read))
    except HFValidationError as error:  # a path: no repository could have this name
        raise PipelineError(f"tokenizer.path: {path}: no such folder") from error
    except Exception as error:  # the Hub raises nothing narrower
        text = " ".join(str(error).split())
        raise PipelineError(
            f"tokenizer.path: {path} is no folder, and the Hub doesn't give it ({text})"
        ) from error


def _read(folder: Path, path: str) -> tuple[bytes, Tokenizer]:
    """tokenizer.json, and the tokenizer that it is."""
    file = folder / TOKENIZER
    try:
        if file.is_file():
            return file.read_bytes(), Tokenizer.from_file(str(file))
        if (folder / "merges.txt").is_file():  # GPT-2 and RoBERTa as they were first published
            files = str(folder / "vocab.json"), str(folder / "merges.txt")
            tokenizer = Tokenizer(models.BPE.from_file(*files))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            names = find_names(tokenizer)
            tokenizer.add_special_tokens(
                [_ROBERTAS_NAMES[part] for part in _ROBERTAS_NAMES if part in names]
            )
            if {"cls", "sep"} <= names.keys():
                _frame(tokenizer, names)
            return tokenizer.to_str(pretty=True).encode(), tokenizer
    except Exception as error:  # tokenizers raises nothing narrower
        raise PipelineError(f"tokenizer.path: {path} is not a tokenizer ({error})") from error
    raise PipelineError(
        f"tokenizer.path: {path} has neither tokenizer.json nor vocab.json and merges.txt; "
        "transformers may make one of what it has: "
        f"AutoTokenizer.from_pretrained({path!r}).save_pretrained(FOLDER)"
    )


def _add_stated(tokenizer: Tokenizer, settings: dict[str, Any], folder: Path) -> bool:
    """Add the tokens that only other files than tokenizer.json name, as transformers does.

    Returns whether there were any. Raises PipelineError when one can't have the id that it has.
    """
    special = set(find_names(tokenizer, settings, _json(folder / SPECIAL_TOKENS_MAP)).values())
    stated = {
        int(index): AddedToken(**token)
        for index, token in settings.get("added_tokens_decoder", {}).items()
    }
    for content, index in _json(folder / ADDED_TOKENS).items():  # older than the settings' key
        is_special = content in special
        token = AddedToken(content, normalized=not is_special, special=is_special)
        stated.setdefault(index, token)
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    missing = {i: token for i, token in sorted(stated.items()) if token.content not in known}
    for index, token in missing.items():
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([token])
        if (found := tokenizer.token_to_id(token.content)) != index:
            raise PipelineError(
                f"tokenizer.path: {folder}: the added token {token.content!r} has the id {index} "
                f"there, but would get {found}; let transformers write the tokenizer again: "
                "AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER)"
            )
    return bool(missing)


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json without what is true of the source's folder alone."""
    settings = _json(folder / SETTINGS)
    for key in ("tokenizer_file", "name_or_path"):
        settings.pop(key, None)
    return settings


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise PipelineError(f"tokenizer.path: {file} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise PipelineError(f"tokenizer.path: {file} holds {content!r:.50}, expected an object")
    return content


def _add(tokenizer: Tokenizer, names: dict[str, str], added: dict[str, Any]) -> None:
    """Add the tokens of these parts to the tokenizer and to `names`."""
    for part, token in added.items():
        content = str(getattr(token, "content", token))
        if content in names.values():
            raise PipelineError(
                f"tokenizer.path: {content} would be its {part} token, but plays another part; "
                "name the special tokens in tokenizer_config.json"
            )
        names[part] = content
    tokenizer.add_special_tokens(list(added.values()))
    if added.keys() & {"cls", "sep"}:
        _frame(tokenizer, names)


def _frame(tokenizer: Tokenizer, names: dict[str, str]) -> None:
    """Frame one sequence or two as RoBERTa does."""
    cls = (names["cls"], tokenizer.token_to_id(names["cls"]) or 0)
    sep = (names["sep"], tokenizer.token_to_id(names["sep"]) or 0)
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        prefix = tokenizer.pre_tokenizer.add_prefix_space
        tokenizer.post_processor = processors.RobertaProcessing(
            sep, cls, trim_offsets=True, add_prefix_space=prefix
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls[0]} $A {sep[0]}",
            pair=f"{cls[0]} $A {sep[0]} {sep[0]} $B {sep[0]}",
            special_tokens=[cls, sep],
        )
