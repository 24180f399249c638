"""Conversations become text by the chat template of the model; BOS and special tokens stand where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from prismaquant.errors import DataError
from prismaquant.model import Model, open_model
from prismaquant.streaming import read_tokens
from support.texts import BUNDLED, write
from support.tiny_models import build

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ('user', 'assistant') %}{{ raise_exception('no such role') }}{% endif %}"
    "[{{ message.role }}] {{ message.content }}{{ eos_token }}{% endfor %}"
)
MESSAGES = [{"role": "user", "content": "What froze?"}, {"role": "assistant", "content": "The river."}]


def with_template(folder: Path) -> Path:
    build("llama", folder, tokenizer=True)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(with_template(tmp_path_factory.mktemp("chat") / "model"))


def chats(path: Path, *chats: list[dict[str, str]]) -> Path:
    return write(path, "\n".join(json.dumps({"messages": chat}) for chat in chats))


def test_the_template_is_applied_and_its_bos_is_not_doubled(model: Model, tmp_path: Path) -> None:
    tokens = read_tokens(chats(tmp_path / "a.jsonl", *[MESSAGES] * 4), model, samples=None, seq_len=8)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    text = "[user] What froze?</s>[assistant] The river.</s>"
    expected = tokenizer(text, add_special_tokens=False)["input_ids"] * 4
    assert expected.count(tokenizer.eos_token_id) == 8
    assert tokens.ids[:, 1:].ravel().tolist() == expected[: len(tokens.ids) * 7]
    assert (tokens.ids[:, 0] == tokenizer.bos_token_id).all()
    assert (tokens.ids[:, 1:] != tokenizer.bos_token_id).all()


def test_a_bos_that_only_the_template_adds_is_kept(tmp_path: Path) -> None:
    folder = with_template(tmp_path / "model")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    tokens = read_tokens(chats(tmp_path / "a.jsonl", *[MESSAGES] * 4), open_model(folder), samples=None, seq_len=8)
    assert (tokens.ids == 0).sum() in (3, 4)
    assert tokens.ids[0, 0] == 0


def test_text_and_conversations_can_be_mixed(model: Model, tmp_path: Path) -> None:
    lines = [json.dumps({"text": "Snow fell. " * 9}), json.dumps({"messages": MESSAGES, "id": 7})]
    assert len(read_tokens(write(tmp_path / "a.jsonl", "\n".join(lines)), model, samples=None, seq_len=8).ids) > 2


def test_a_model_without_a_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'a\.jsonl:1: holds chat messages, .* no chat template; .*"text"'):
        read_tokens(chats(tmp_path / "a.jsonl", MESSAGES), open_model(BUNDLED), samples=None, seq_len=8)


def test_what_the_template_refuses_is_named(model: Model, tmp_path: Path) -> None:
    path = chats(tmp_path / "a.jsonl", MESSAGES, [{"role": "narrator", "content": "Once."}])
    with pytest.raises(DataError, match=r"a\.jsonl:2: the chat template refuses the messages \(no such role\)"):
        read_tokens(path, model, samples=None, seq_len=8)
