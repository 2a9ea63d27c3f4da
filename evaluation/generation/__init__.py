"""From a problem to a completion: prompts, sampling, batched decoding with the weights already in memory, vLLM.

Every backend answers as the model's own `generate()` does; `parity.py` asks before its first use.

answering.py         how each problem is answered: a text under its own stop strings, or log-likelihoods of options
backends.py          who generates: our batched loop, or the model's own generate()
batched.py           batched generation with the weights already in memory: one running batch that sequences leave and
                     join
cache.py             keys and values of a running batch: grown in blocks, and rebuilt when sequences leave or join
completions.py       what is asked of a model and what it answers: requests, sampling, completions, and where a text
                     ends
learnt_and_asked.py  two demonstrations as learnt beside one problem as asked, token by token, for people
likelihoods.py       log-likelihoods of given continuations, in batches
parity.py            does a backend answer as the model's own generate() does? Asked before its first use in a study
prefill.py           rows of tokens read in one forward pass, behind what is known of their beginnings
prompts.py           from a problem to prompt tokens, and which tokens end an answer
sampling.py          choosing the next token: greedy, or Gumbel-max with noise that is a pure function of its
                     coordinates
vllm_backend.py      generation by vLLM in this process (extra `vllm`): started once, weights handed over before every
                     evaluation
"""
