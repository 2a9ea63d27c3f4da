"""What a model is shown, and which tokens end its answer."""

import pytest
from tiny_llama import character_tokenizer, tiny_llama

from qtarget.evaluation.generation.prompts import encode, end_tokens, render, require_chat_template
from qtarget.spaces.errors import UserError

BARE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def test_chat_prompts_go_through_the_template_and_plain_ones_do_not(tokenizer):
    assert render(tokenizer, "1+1", chat=True) == "u:1+1<turn>\na:"
    assert render(tokenizer, "1+1", chat=False) == "1+1"


def test_special_tokens_of_a_template_are_not_doubled(tokenizer):
    text = render(tokenizer, "1", chat=True)
    assert encode(tokenizer, text, chat=True).count(tokenizer.convert_tokens_to_ids("<turn>")) == 1
    assert tokenizer.decode(list(encode(tokenizer, text, chat=True))) == text


@pytest.mark.parametrize(
    ("template", "chat", "ends"),
    [
        ("default", False, {"<eos>"}),
        ("default", True, {"<eos>", "<turn>"}),
        (BARE, True, {"<eos>"}),  # what follows an answer is a line feed, which may be part of one
    ],
)
def test_the_end_of_a_turn_ends_a_chat_answer(tokenizer, template, chat, ends):
    chosen = tokenizer if template == "default" else character_tokenizer(template)
    model = tiny_llama(0, len(chosen))
    assert set(chosen.convert_ids_to_tokens(sorted(end_tokens(model, chosen, chat=chat)))) == ends


def test_all_ends_that_the_model_declares_count(tokenizer):
    model = tiny_llama(0, len(tokenizer))
    model.generation_config.eos_token_id = [7, 9]
    assert end_tokens(model, tokenizer) == {2, 7, 9}
    model.generation_config.eos_token_id = None
    assert end_tokens(model, tokenizer) == {2}


def test_missing_template_and_empty_prompt_are_the_users_errors(tokenizer):
    with pytest.raises(UserError, match="chat: false"):
        require_chat_template(character_tokenizer(template=None))
    with pytest.raises(UserError, match="at least one token"):
        encode(tokenizer, "", chat=False)
