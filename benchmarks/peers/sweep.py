"""What somebody writes in a day who wants to try targets: an Optuna sweep over TRL fine-tunes with a loss of their own.

    python benchmarks/peers/sweep.py FOLDER --model MODEL --frozen MODEL --data DEMONSTRATIONS --problems PROBLEMS [...]

A new process for every trial, or with `--resident` one that loads everything once and puts the base weights back. It
knows nothing of qtarget. Target: γ = p^exponent for the label, the rest to a frozen model that is asked along the way.
Weights are trained in the precision that they are loaded in (`--bf16`: without float32 copies). Demonstrations and
problems go through the model's chat template; answers are generated greedily in batches, and the last number counts.
Prints a JSON object a trial: score, and seconds of its parts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer


class TargetTrainer(SFTTrainer):  # type: ignore[misc]
    """Cross-entropy to γ · label + (1 − γ) · frozen model, on the tokens that are learnt."""

    frozen: Any
    exponent: float

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")[:, 1:]
        learnt = labels != -100
        outputs = model(**inputs)
        logprobs = outputs.logits[:, :-1][learnt].float().log_softmax(-1)
        with torch.no_grad():
            rest = self.frozen(**inputs).logits[:, :-1][learnt].float().softmax(-1)
        chosen = logprobs.gather(1, labels[learnt][:, None])[:, 0]
        trust = chosen.detach().exp() ** self.exponent
        loss = -(trust * chosen + (1 - trust) * (rest * logprobs).sum(-1)).sum() / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


class Sweep:
    """Everything that trials share, loaded."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        dtype = torch.bfloat16 if given.bf16 else torch.float32
        self.tokenizer = AutoTokenizer.from_pretrained(given.model)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(given.model, dtype=dtype)
        self.frozen = AutoModelForCausalLM.from_pretrained(given.frozen, dtype=dtype).eval().requires_grad_(False)
        self.base = {name: tensor.clone() for name, tensor in self.model.state_dict().items()} if given.resident else {}
        rows = [json.loads(line) for line in Path(given.data).read_text("utf-8").splitlines()]
        roles = {"prompt": "user", "completion": "assistant"}
        self.data = Dataset.from_list(
            [{name: [{"role": role, "content": row[name]}] for name, role in roles.items()} for row in rows]
        )
        problems = [json.loads(line) for line in Path(given.problems).read_text("utf-8").splitlines()]
        self.problems = random.Random(0).sample(problems, min(given.count, len(problems)))

    def objective(self, trial: optuna.Trial) -> float:
        begun = time.process_time()
        exponent = trial.suggest_float("exponent", 0.0, 1.5)
        rate = trial.suggest_float("learning_rate", *self.given.rates, log=True)
        if self.base:
            self.model.load_state_dict(self.base)
        self.train(exponent, rate)
        trained = time.process_time()
        score = self.score()
        seconds = {"training": trained - begun, "scoring": time.process_time() - trained}
        print(json.dumps({"number": trial.number, "score": score, "seconds": seconds}), flush=True)
        return score

    def train(self, exponent: float, rate: float) -> None:
        given = self.given
        set_seed(0)
        arguments = SFTConfig(
            output_dir=str(given.folder / "trl"), max_steps=given.steps, per_device_train_batch_size=given.batch,
            learning_rate=rate, lr_scheduler_type="cosine", warmup_steps=max(1, given.steps // 10),
            max_length=given.length,
            bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none",
            logging_steps=given.steps, disable_tqdm=True, dataset_num_proc=None,
        )  # fmt: skip
        trainer = TargetTrainer(self.model, arguments, train_dataset=self.data, processing_class=self.tokenizer)
        trainer.frozen, trainer.exponent = self.frozen, exponent
        trainer.train()

    @torch.no_grad()
    def score(self) -> float:
        given, self.tokenizer.padding_side = self.given, "left"
        asked, right = self.problems, 0
        self.model.eval()
        for start in range(0, len(asked), given.answers):
            some = asked[start : start + given.answers]
            turns = [[{"role": "user", "content": each["question"]}] for each in some]
            asked_as = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            inputs = self.tokenizer(asked_as, return_tensors="pt", padding=True, add_special_tokens=False)
            made = self.model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False,
                max_new_tokens=given.new_tokens, pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
            texts = self.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            right += sum(last_number(text) == str(each["answer"]) for text, each in zip(texts, some, strict=True))
        return right / len(asked)


def last_number(text: str) -> str | None:
    found = re.findall(r"-?\d+", text.replace(",", ""))
    return found[-1] if found else None


def study_of(given: argparse.Namespace, number: int = 0) -> optuna.Study:
    return optuna.create_study(
        study_name="sweep", storage=f"sqlite:///{given.folder / 'sweep.db'}", direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=number),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name in ("--model", "--frozen", "--data", "--problems"):
        parser.add_argument(name, required=True)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs=2, default=(1e-5, 3e-4))
    parser.add_argument("--count", type=int, default=64, help="problems")
    parser.add_argument("--answers", type=int, default=32, help="answers generated at once")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--one", type=int, help="run this trial alone, and end")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if given.resident:
        study_of(given).optimize(Sweep(given).objective, n_trials=given.trials)
    elif given.one is not None:
        study_of(given, given.one).optimize(Sweep(given).objective, n_trials=1)
    else:
        for number in range(given.trials):
            subprocess.run([sys.executable, *sys.argv, "--one", str(number)], check=True)


if __name__ == "__main__":
    main()
