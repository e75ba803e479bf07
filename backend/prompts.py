"""What a text encoder does not read of a prompt.

Each pipeline asks its tokenizers in its own way: with a template, a length of its own, or not at all. So nothing is
counted beforehand; the tokenizers of a request's own pipeline look on while it encodes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase


class CutPrompts:
    """Which tokenizers of one request's pipeline have cut a text.

    Attributes:
        limits: tokens that are read, by the tokenizer's name in the pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        self.limits: dict[str, int] = {}
        self._names = {id(part): name for name, part in vars(pipeline).items()}

    def watch(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The same tokenizer, of which a cut is noted here."""
        kind: Any = type(tokenizer)
        watched: PreTrainedTokenizerBase = object.__new__(_watching(kind))
        name = self._names.get(id(tokenizer), type(tokenizer).__name__)
        vars(watched).update(vars(tokenizer), _tilecast_cut=(self.limits, name))
        return watched

    @property
    def note(self) -> str:
        """One line on it; empty when everything was read."""
        if not self.limits:
            return ""
        lengths = ", ".join(f"{name}: {limit} tokens" for name, limit in self.limits.items())
        return f"the prompt was longer than the text encoder reads and was cut ({lengths})"


@cache
def _watching(kind: Any) -> Any:
    def call(self: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        encoded = kind.__call__(self, text, *args, **kwargs)
        texts = list(text) if isinstance(text, list | tuple) else [text]
        if kwargs.get("truncation") in (True, "longest_first", "only_first") and all(isinstance(t, str) for t in texts):
            limits, name = vars(self)["_tilecast_cut"]
            limit = kwargs.get("max_length") or self.model_max_length
            special = kwargs.get("add_special_tokens", True)
            whole = kind.__call__(self, texts, add_special_tokens=special, truncation=False, verbose=False)
            if max(len(tokens) for tokens in whole["input_ids"]) > limit:
                limits[name] = limit
        return encoded

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
