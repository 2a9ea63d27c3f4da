"""What a model is shown, and which tokens end its answer."""

from datetime import date

import pytest
from tiny_llama import TEMPLATE, character_tokenizer, tiny_llama

from qtarget.evaluation.generation.prompts import encode, end_tokens, render, require_chat_template
from qtarget.evaluation.problems.asking import Asking
from qtarget.evaluation.problems.load import Problem
from qtarget.spaces.errors import UserError


def asked(prompt, **changes):
    return Problem(id="1", task="sums", question_hash="1", prompt=prompt, gold="1", **changes)


BARE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def test_chat_prompts_go_through_the_template_and_plain_ones_do_not(tokenizer):
    assert render(tokenizer, asked("1+1")) == "u:1+1<turn>\na:"
    assert render(tokenizer, asked("1+1", chat=False)) == "1+1"


def test_what_comes_before_a_question_is_part_of_the_prompt():
    chosen = character_tokenizer("{{ mood }}{{ strftime_now('%d.%m.') }}" + TEMPLATE)
    turns = tuple({"role": role, "content": role[0]} for role in ("system", "user", "assistant"))
    asking = Asking(turns=turns, variables={"mood": "calm "}, day=date(2024, 2, 9))
    assert render(chosen, asked("1+1", asking=asking)) == "calm 09.02.s:s<turn>\nu:u<turn>\na:a<turn>\nu:1+1<turn>\na:"


def test_what_a_template_raises_for_a_problem_names_it():
    chosen = character_tokenizer(
        TEMPLATE + "{% if '+' in messages[-1].content %}{{ raise_exception('no sums') }}{% endif %}"
    )
    assert render(chosen, asked("1")) == "u:1<turn>\na:"
    with pytest.raises(UserError, match=r"refuses a problem of task sums, '1\+1' \(TemplateError: no sums\)"):
        render(chosen, asked("1+1"))


def test_special_tokens_of_a_template_are_not_doubled(tokenizer):
    text = render(tokenizer, asked("1"))
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
