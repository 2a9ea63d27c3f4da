"""The tiny language model that the tests of this folder generate with, and verifiers of a user's own."""

from collections.abc import Iterator

import pytest
from tiny_llama import character_tokenizer, tiny_llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from qtarget.evaluation.verification.pool import shared_pool


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return tiny_llama(0, len(tokenizer))


@pytest.fixture(scope="module")
def verifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("verifiers")
    (folder / "my_verifiers.py").write_text(
        "def ends(completion, gold):\n    print('noise on stdout', flush=True)\n    return completion.endswith(gold)\n"
        "def named(completion, gold):\n    return 'no_answer'\n"
        "def broken(completion, gold):\n    raise ZeroDivisionError('by design')\n"
        "def odd(completion, gold):\n    return 0.7\n"
        "def crash(completion, gold):\n    import os; os._exit(3)\n"
        "def loop(completion, gold):\n    while True: pass\n"
    )
    shared_pool().close()  # workers keep the path they were started with
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield "my_verifiers"
    shared_pool().close()
