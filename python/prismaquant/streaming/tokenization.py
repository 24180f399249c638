"""`Tokenizer`: documents -> one stream of token ids, by tokenizer and chat template in the model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoTokenizer

from prismaquant.errors import DataError, ModelError
from prismaquant.streaming.documents import Chat

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Tokenizer"]

#: One of these is in every folder that a tokenizer can be loaded from.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


class Tokenizer:
    """The tokenizer in ``folder``, loaded when it is first needed.

    Attributes
    ----------
    exists
        Whether there is one.
    bos
        The id that it puts before every text, or ``None``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def exists(self) -> bool:
        return any((self._folder / name).is_file() for name in _FILES)

    @cached_property
    def bos(self) -> int | None:
        token = self._tokenizer.bos_token_id
        return int(token) if token is not None and self._tokenizer("a")["input_ids"][0] == token else None

    def stream(self, documents: Sequence[str | Chat]) -> npt.NDArray[np.int64]:
        """The ids of all documents, joined; no special tokens are added but those of a chat template.

        Raises
        ------
        DataError
            There is a conversation, and no chat template, or one that refuses it.
        ModelError
            There is no tokenizer, or it cannot be loaded.
        """
        # verbose=False: a stream is longer than the model's context by intent.
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        tokenizer = self._tokenizer
        texts = [self._render(each) if isinstance(each, Chat) else each for each in documents]
        ids = tokenizer(texts, **options)["input_ids"] if texts else []
        return np.concatenate([np.asarray(part, np.int64) for part in ids] or [np.empty(0, np.int64)])

    def text(self, token: int) -> str | None:
        """What ``token`` stands for; ``None`` if no text was read: for ids alone no tokenizer is loaded."""
        if "_tokenizer" not in vars(self):
            return None
        return str(self._tokenizer.decode([token]))

    def _render(self, chat: Chat) -> str:
        """The text of a conversation, without the BOS token that every window starts with anyway."""
        if not self._tokenizer.chat_template:
            raise DataError(
                "holds chat messages, and the tokenizer of the model has no chat template",
                where=chat.where,
                hint='give the text of the conversation as {"text": "..."}',
            )
        try:
            text = str(self._tokenizer.apply_chat_template(chat.messages, tokenize=False))
        except Exception as cause:  # whatever a template raises
            raise DataError(f"the chat template refuses the messages ({cause})", where=chat.where) from cause
        return text if self.bos is None else text.removeprefix(self._tokenizer.bos_token)

    @cached_property
    def _tokenizer(self) -> Any:
        if not self.exists:
            raise ModelError(
                "has no tokenizer files",
                where=str(self._folder),
                hint="copy them from the model's source, or give token ids (.npy)",
            )
        try:
            return AutoTokenizer.from_pretrained(self._folder, local_files_only=True, trust_remote_code=False)
        except Exception as cause:  # the tokenizers library raises bare Exception
            raise ModelError(f"the tokenizer cannot be loaded ({cause})", where=str(self._folder)) from cause
