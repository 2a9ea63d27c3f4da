"""Causal language models as they come: from a hub, a folder or a GGUF file, with or without adapters.

Cut into decoder and head, so that logits are made chunk by chunk, and spread over ranks where one device is too small.

attention.py              attention of sequences that lie one after the other in a row: each by itself
block_attention.py        causal attention of sequences on a CPU, with a backward pass made of matrix products
head.py                   the two halves of a causal language model: decoder to hidden states, output head to logits
load.py                   causal language models and tokenizers from the hub, a local folder or a GGUF file
lora.py                   low-rank adapters on a base model: attached by a seed, refused with a reason, described
memory.py                 how a lack of memory shows, on a GPU and on a CPU, and what a process keeps of it
merging.py                adapters by peft, and the model without them that computes the same
ranks.py                  weights spread over the ranks that train one model together (FSDP)
rms_norm.py               root-mean-square norms of half-precision models on a CPU, some rows at a time
shared_prefix.py          sequences of a packed row that begin alike: their common prefix lies in it once
size.py                   how large a model is, by its configuration alone
tokens.py                 tokens beyond a vocabulary: those added on request, what a tokenizer writes by itself, and
                          which end an answer
transformers_versions.py  each difference between versions of transformers, with the version that ends it
weights.py                are the weights of a model all there, of the right shape, and finite?
"""
