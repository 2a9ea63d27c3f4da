"""What an export carries: a loss, a reader of data and other people's trainers without qtarget, and their check.

All but the check are source text for other people's machines; they import nothing of this package.

axolotl.py  trains an exported design with axolotl and without qtarget: a plugin, `target_axolotl.py` of an export
check.py    is an exported loss the trial's own? Value and gradient of both on the first batch of the real data
data.py     reads demonstrations of an exported design, as the search did: `target_data.py` beside `train_trl.py`
loss.py     loss of an exported design with torch alone: the frame into which `qtarget export` puts one design
model.py    loads, adapts and saves the model of an exported design, as the search did: `target_model.py`
plain.py    plain SFT as a design, in the place where an exported loss holds its own
trainer.py  the trainer of an exported design: transformers' `Trainer`, and what is built on it, with the loss of
            `target_loss.py`
trl.py      trains an exported design with TRL and without qtarget: `train_trl.py` of an export, beside `target_loss.py`
"""
