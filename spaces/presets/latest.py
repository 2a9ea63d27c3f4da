"""The table of objectives read last: peaks of trust, the surprise of whole sequences, anchors at the label alone."""

from __future__ import annotations

from ..contrast import Plateau
from ..gamma.batch import SequenceOutlier, TemperedLikelihood
from ..gamma.bump import Information, Margin, Shaping
from ..gamma.confidence import Threshold
from ..gamma.ratio import LabelPenalty, TemperedPenalty
from ..target import PreviousPolicy, TargetSpec
from .published import Knob, Preset, label_only, signed

READ = "2026-11-28"

LATEST: dict[str, Preset] = {
    "infosft": Preset(
        "InfoSFT",
        lambda P: label_only(Information(silent=P)),
        "p·max(0, 1 − logit(p)/logit(P))",
        "student",
        "1",
        "−sg(γ)·log p",
        "2605.14967",
        {"P": Knob(0.93, 0.51, 0.999999)},
        read=READ,
    ),
    "trimsft": Preset(
        "TrimSFT",
        lambda mu, tau: label_only(Margin(margin=mu, width=tau)),
        "exp(−(m − mu)²/(2·tau²)), m = z_y − max z_v of the others",
        "student",
        "1",
        "−sg(γ)·log p",
        "2609.09707",
        {"mu": Knob(1.5, -20, 20), "tau": Knob(0.8, 0.05, 50)},
        read=READ,
    ),
    "cadft": Preset(
        "Compatibility-aware DFT",
        lambda beta: label_only(SequenceOutlier(strength=beta)),
        "p·exp(−beta·max(0, z)), z = z-score of the sequence's mean NLL in the batch",
        "student",
        "1",
        "−sg(γ)·log p",
        "2606.11206",
        {"beta": Knob(1.0, 0, 100)},
        read=READ,
    ),
    "curiosft": Preset(
        "CurioSFT, as its code has it",
        lambda alpha: TargetSpec(
            gamma=TemperedPenalty(lam=alpha, source="previous"), previous=PreviousPolicy(every=5, decay=0.01)
        ),
        "1 + alpha·log(p_old/p), π_old at a temperature of its own for each token",
        "student",
        "1",
        "−log p + alpha/2·(log p − log p_old)²",
        "2602.02244",
        {"alpha": Knob(1.0, 0, 1e3)},
        read=READ,
    ),
    "lp_sft": Preset(
        "LP-SFT",
        lambda mu, tau: signed(Plateau(coefficient=mu, temperature=tau)),
        "1",
        "+mu·(q_S − π_S), S = top-10 of π_ref without y, q = π_ref^(1/tau)",
        "1",
        "−log p + mu·CE(q_S, π_S)",
        "Wakaka161/LP-SFT",
        {"mu": Knob(1.0, 0, 1e3), "tau": Knob(1.0, 0.05, 20)},
        read=READ,
    ),
    "asft_k3": Preset(
        "Anchored SFT at the label alone",
        lambda lam: label_only(LabelPenalty(lam=lam)),
        "p + lam·(p_ref/p − 1); p beyond ±10 nats",
        "student",
        "1",
        "−sg(p)·log p + lam·k3(p_ref/p)",
        "SkyRL",
        {"lam": Knob(0.03, 0, 1e3)},
        read=READ,
    ),
    "sft_k3": Preset(
        "SFT + KL to the reference at the label alone",
        lambda lam: label_only(LabelPenalty(lam=lam, exponent=0)),
        "1 + lam·(p_ref/p − 1); 1 beyond ±10 nats",
        "student",
        "1",
        "−log p + lam·k3(p_ref/p)",
        "SkyRL",
        {"lam": Knob(0.03, 0, 1e3)},
        read=READ,
    ),
    "flow": Preset(
        "FLOW, by sequence",
        lambda: label_only(TemperedLikelihood(source="reference")),
        "exp(−mean NLL_ref of the sequence/T), T its median",
        "student",
        "1",
        "−γ·log p",
        "2502.02797",
        read=READ,
    ),
    "flow_token": Preset(
        "FLOW, by token",
        lambda: label_only(TemperedLikelihood(source="reference", level="token")),
        "p_ref^(1/T), T = median NLL_ref",
        "student",
        "1",
        "−γ·log p",
        "2502.02797",
        read=READ,
    ),
    "luffy": Preset(
        "LUFFY's policy shaping",
        lambda lam: label_only(Shaping(lam=lam)),
        "lam·p/(p + lam)²",
        "student",
        "1",
        "−p/(p + lam)",
        "2504.14945",
        {"lam": Knob(0.1, 1e-4, 100)},
        read=READ,
    ),
    "stm": Preset(
        "Selective token masking, per kept token",
        lambda tau: TargetSpec(gamma=Threshold(low=tau, inclusive=True, source="reference"), denominator="kept"),
        "1[p_ref ≥ tau]",
        "student",
        "1",
        "−γ·log p",
        "2501.14315",
        {"tau": Knob(0.4, 0, 1)},
        read=READ,
    ),
}
