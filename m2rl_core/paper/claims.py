"""What the paper states about its own experiment (arXiv 2602.12566v3): data, not code.

A :class:`Claim` is a place in a resolved study and the value that the paper states there; see
:mod:`m2rl_core.paper.drift`. Components are named as a study names them.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

__all__ = ["CLAIMS", "GPU_HOURS", "SILENT", "TABLE_1", "Blended", "Claim", "Role"]

Role = Literal["study", "sft", "expert", "mixed", "distilled", "merge", "eval", "analyze", "domain"]
"""Whose place it is: the study itself, or its stages of one kind. Experts are ``rl`` stages of one domain, the mixed
run has several and no teacher, the distilled has teachers."""


class Blended(NamedTuple):
    """A row of Table 1."""

    samples: int
    percent: float
    data: str
    """Name of the data set under nvidia/."""
    method: str


TABLE_1 = {
    "math-proofs": Blended(335_122, 2.37, "Nemotron-Math-Proofs-v1", "random sampling"),
    "math": Blended(2_950_525, 20.89, "Nemotron-Math-v2", "random sampling"),
    "science": Blended(2_263_340, 16.04, "Nemotron-Science-v1", "repeat 10 times"),
    "code": Blended(3_927_984, 27.81, "Nemotron-Competitive-Programming-v1", "use all"),
    "chat": Blended(4_309_780, 30.52, "Nemotron-Instruction-Following-Chat-v1", "repeat 10 times"),
    "agent": Blended(335_122, 2.37, "Nemotron-Agentic-v1", "use all"),
}
"""Name of a source in ``stages.sft.blend`` → its row. They add up to 14,121,873."""

GPU_HOURS = {
    "math": 4782.3,
    "coding": 6404.4,
    "science": 1140.8,
    "if": 1180.0,
    "agent": 2271.0,
    "mixed": 10050.6,
    "distilled": 967.9,
}
"""Table 2: an expert's domain, or the role of a stage → GPU hours, of GPUs that the paper does not name."""


class Claim(NamedTuple):
    """One statement, and where a study says the same or something else."""

    text: str
    section: str
    role: Role
    path: str
    """Dotted, within the resolved place of that role; see :func:`m2rl_core.paper.drift.places`."""
    expected: Any
    """:data:`SILENT` where the study has to choose something of which the paper says nothing."""
    where: tuple[str, Any] | None = None
    """(path, value) that a place of the role must have to be meant."""


SILENT: Final = "paper silent"

DOMAINS = ["agent", "coding", "if", "math", "science"]
SUITES = ["aime24", "aime25", "bfcl-v3", "gpqa-diamond", "hle", "ifbench", "ifeval", "lcb-v5", "lcb-v6"]
MIXED = {"math": 25.1, "coding": 21.9, "science": 22.4, "if": 18.9, "agent": 11.7}
"""Percent: 22,056, 19,169, 19,670, 16,575 and 10,229 samples of section 3.2, "directly mixed"."""

_START = (
    Claim("starts from Qwen3-4B-Base", "3.2", "study", "model.base", "Qwen/Qwen3-4B-Base"),
    Claim("five domains", "3.2", "study", "experts", DOMAINS),
)

_FINE_TUNING = (
    *(
        Claim(f"{row.data}: {row.method}", "Table 1", "sft", f"blend.{name}.method", row.method)
        for name, row in TABLE_1.items()
    ),
    Claim("335,122 rows of Math-Proofs", "Table 1", "sft", "blend.math-proofs.sample", 335_122),
    Claim("2,950,525 rows of Math-v2", "Table 1", "sft", "blend.math.sample", 2_950_525),
    Claim("14,121,873 samples", "Table 1", "sft", "conversations", 14_121_873),
    Claim("one epoch", "3.2", "sft", "epochs", 1),
    Claim("batch size of 512", "A", "sft", "batch", 512),
    Claim("learning rate 5e-5", "A", "sft", "lr", 5e-5),
    Claim("weight decay 0.1", "A", "sft", "optim.weight_decay", 0.1),
    Claim("10% of the steps warm up", "A", "sft", "warmup", 0.1),
    Claim("longest conversation", "A", "sft", "max_length", SILENT),
    Claim("course of the learning rate", "A", "sft", "schedule", SILENT),
    Claim("final learning rate", "A", "sft", "floor", SILENT),
    Claim("Adam's second beta", "A", "sft", "optim.beta2", SILENT),
)


def _on_policy(role: Role, steps: int) -> tuple[Claim, ...]:
    """What holds of the single domains, and "basically" of the mixed run."""
    return (
        Claim("GRPO", "3.1", role, "algorithm.use", "grpo"),
        Claim("masked importance sampling", "A", role, "parts.importance.use", "mis"),
        Claim("batch size of 128", "Table 2", role, "prompts", 128),
        Claim("group size of 16", "Table 2", role, "group", 16),
        Claim(f"{steps} steps", "Table 2", role, "steps", steps),
        Claim("one update per 2048 rollouts", "A", role, "updates", 1),
        Claim("at most 32k tokens", "A", role, "max_tokens", 32768),
        Claim("temperature 1.0", "A", role, "temperature", 1.0),
        Claim("learning rate 2e-6", "A", role, "lr", 2e-6),
        Claim("constant learning rate", "A", role, "schedule", "constant"),
        Claim("weight decay 0.1", "A", role, "optim.weight_decay", 0.1),
    )


_REINFORCEMENT = (
    *_on_policy("expert", 400),
    *_on_policy("mixed", 1000),
    Claim("the data sets directly mixed [%]", "3.2", "mixed", "shares", MIXED),
    Claim("ratios that are masked: below", "A", "expert", "parts.importance.low", SILENT),
    Claim("ratios that are masked: above", "A", "expert", "parts.importance.high", SILENT),
    Claim("ratio per", "A", "expert", "parts.importance.level", SILENT),
    Claim("clip below", "A", "expert", "parts.loss.low", SILENT),
    Claim("clip above", "A", "expert", "parts.loss.high", SILENT),
    Claim("reduction of the loss", "A", "expert", "parts.reduction", SILENT),
    Claim("largest gradient norm", "A", "expert", "optim.clip", SILENT),
)

_DISTILLATION = (
    Claim("on-policy distillation", "3.2", "distilled", "algorithm.use", "opd"),
    Claim("a teacher for each of five domains", "3.2", "distilled", "taught", DOMAINS),
    Claim("the same data as the mixed run [%]", "3.2", "distilled", "shares", MIXED),
    Claim("batch size of 256", "Table 2", "distilled", "prompts", 256),
    Claim("group size of 4", "Table 2", "distilled", "group", 4),
    Claim("200 steps", "Table 2", "distilled", "steps", 200),
    Claim("one update per 1024 rollouts", "A", "distilled", "updates", 1),
    Claim("learning rate 1e-6", "A", "distilled", "lr", 1e-6),
    Claim("what of the teacher is learned", "A", "distilled", "algorithm.mode", SILENT),
    Claim("most tokens", "A", "distilled", "max_tokens", SILENT),
)

_REWARDS = (
    Claim("formatting reward", "3.1", "domain", "reasoning", "required"),
    Claim("QwQ evaluator", "A", "domain", "mode", "qwq-compat", ("use", "math")),
    Claim("SandboxFusion runs the unit tests", "A", "domain", "sandbox.use", "sandbox-fusion", ("use", "coding")),
    Claim("NeMo-Gym is the environment", "A", "domain", "environment.use", "nemo-gym", ("use", "agent")),
    Claim("binary reward", "3.1", "domain", "reward", "all", ("use", "if")),
    Claim("unit tests that decide", "A", "domain", "tests", SILENT, ("use", "coding")),
)

_MERGING = (
    Claim(
        "Average, SCE, Ties, TA, and the last two with DARE",
        "Table 4",
        "study",
        "mergers",
        ["average", "dare+task-arithmetic", "dare+ties", "sce", "task-arithmetic", "ties"],
    ),
    Claim("the fine-tuned model is the anchor", "3.2", "merge", "base", "sft"),
    Claim("mask ratio 0.8", "3.2", "merge", "merger.rate", 0.8, ("merger.use", "dare")),
    Claim("λ of task arithmetic", "3.2", "merge", "merger.scale", SILENT, ("merger.use", "task-arithmetic")),
    Claim("share that TIES keeps", "3.2", "merge", "merger.density", SILENT, ("merger.use", "ties")),
    Claim("λ of TIES", "3.2", "merge", "merger.scale", SILENT, ("merger.use", "ties")),
    Claim("share that SCE selects", "3.2", "merge", "merger.tau", SILENT, ("merger.use", "sce")),
)

_MEASURING = (
    Claim("nine benchmarks", "3.2", "study", "suites", SUITES),
    Claim("Avg@K: samples of each prompt", "3.2", "eval", "k", SILENT),
    Claim("most tokens of an answer", "3.2", "eval", "max_tokens", SILENT),
    Claim("changed by more than η = 1e-3", "3.3", "analyze", "analyzer.eta", 1e-3, ("analyzer.use", "weight-shift")),
    Claim("layer 17", "3.3", "analyze", "analyzer.layer", 17, ("analyzer.use", "weight-shift")),
    Claim("ε of Eq. 1, by τ", "3.4", "analyze", "analyzer.tau", SILENT, ("analyzer.use", "policy-neighborhood")),
    Claim("Avg@8 of verdicts", "3.6", "analyze", "analyzer.k", 8, ("analyzer.use", "self-verification")),
)

CLAIMS = (*_START, *_FINE_TUNING, *_REINFORCEMENT, *_DISTILLATION, *_REWARDS, *_MERGING, *_MEASURING)
