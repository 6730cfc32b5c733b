"""Commands that are none, and all that is said of them.

They run in a folder in which ``run`` is a run of two steps, ``model.safetensors`` a model, ``text`` a
file that is neither, and ``bytes.toml`` is no text. A last … stands for what depends on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Command:
    """Words, and what is said of them after ``lgn-analysis: ``, in full."""

    words: str
    sentence: str


_COMMANDS: Final = "{train, diagnose, evaluate, probe, convert, reproduce, figures, datasets}"
_PATH: Final = "PATH is missing: a run directory (its best model is taken), or a .safetensors file"
_NO_DATA: Final = (
    "available: digits, mnist5k, monk1, monk2, monk3, mnist, fashion-mnist, cifar10, cifar100, adult, "
    "breast-cancer"
)
_RESUMED: Final = "--resume takes everything but --steps from run; leave the other flags out"
_NO_CSV: Final = "no experiment has left a CSV in {}; `lgn-analysis reproduce` makes them"
_HELP: Final = "see lgn-analysis --help"

PARSED: Final = [
    Command("", f"Missing subcommand: Expected one of {_COMMANDS}; {_HELP}"),
    Command("tran", f"Unrecognized options: tran; {_HELP}"),
    Command("--nope", f"Unrecognized options: --nope; {_HELP}"),
    Command("train extra", f"Unrecognized options: extra; {_HELP}"),
    Command(
        "train --widht 3", f"Unrecognized options: --widht, 3; did you mean --width INT? {_HELP}"
    ),
    Command("train --width", "Missing value for argument '--width'; see lgn-analysis train --help"),
    Command("train --width wide", f"--width must be a whole number, got 'wide'; {_HELP}"),
    Command("train --width None", f"--width must be a whole number, got 'None'; {_HELP}"),
    Command("train --steps 1e3", f"--steps must be a whole number, got '1e3'; {_HELP}"),
    Command("train --group-tau x", f"--group-tau must be a number, got 'x'; {_HELP}"),
    Command(
        "train --relaxation hard",
        "--relaxation must be one of soft, gumbel-soft, gumbel-st, hard-st, cage, got 'hard'; see "
        "lgn-analysis train --help",
    ),
    Command(
        "train --tau-schedule step",
        "--tau-schedule must be one of constant, linear, exponential, cosine, got 'step'; see "
        "lgn-analysis train --help",
    ),
    Command(
        "train --wiring dense",
        "--wiring must be one of random, unique, got 'dense'; see lgn-analysis train --help",
    ),
    Command(
        "train --dtype float16",
        "--dtype must be one of float32, float64, got 'float16'; see lgn-analysis train --help",
    ),
    Command("evaluate", f"{_PATH}; see lgn-analysis evaluate --help"),
    Command("evaluate run more", f"Unrecognized options: more; {_HELP}"),
    Command(
        "evaluate run --split valid",
        "--split must be one of train, val, test, got 'valid'; see lgn-analysis evaluate --help",
    ),
    Command(
        "evaluate run --noise-draws x", f"--noise-draws must be a whole number, got 'x'; {_HELP}"
    ),
    Command("probe", f"{_PATH}; see lgn-analysis probe --help"),
    Command(
        "probe run --what norm",
        "--what must be one of trace, eigs, density, got 'norm'; see lgn-analysis probe --help",
    ),
    Command("probe run --rtol small", f"--rtol must be a number, got 'small'; {_HELP}"),
    Command("convert", "PATH is missing: the file; see lgn-analysis convert --help"),
    Command(
        "convert text --relaxation cage",
        "--relaxation must be one of soft, hard-st, gumbel-soft, gumbel-st, got 'cage'; see "
        "lgn-analysis convert --help",
    ),
    Command("reproduce --workers x", f"--workers must be a whole number, got 'x'; {_HELP}"),
    Command(
        "reproduce --preset",
        "Missing value for argument '--preset'; see lgn-analysis reproduce --help",
    ),
    Command("datasets digits", f"Unrecognized options: digits; {_HELP}"),
]

RUN: Final = [
    Command("train --width 0", "width must be at least 1, got 0"),
    Command("train --width 1001", "width 1001 is not divisible by n_classes 10; use 1000 or 1010"),
    Command(
        "train --width 400",
        "400 gates read at most 800 of 960 inputs; use a width of at least 480, or fewer thresholds",
    ),
    Command("train --depth 0", "depth must be at least 1, got 0"),
    Command("train --group-tau nan", "group_tau must be finite and above zero, got nan"),
    Command("train --tau inf", "tau must be finite and above zero, got inf"),
    Command(
        "train --n-groups 9",
        "n_classes must be at least 1 and n_groups at least n_classes, got n_classes=10, n_groups=9",
    ),
    Command("train --steps 0", "steps must be at least 1, got 0"),
    Command("train --lr -1", "lr must be finite and above zero, got -1.0"),
    Command(
        "train --width 500 --batch-size 5000",
        "batch_size 5000 exceeds the 1257 training samples of 'digits'; use at most 1257",
    ),
    Command(
        "train --tau-end 0.1",
        "tau_end is given and tau stays constant; give tau_schedule linear or exponential or cosine too, "
        "or leave tau_end out",
    ),
    Command(
        "train --relaxation soft --cage-decay 0.9",
        "cage_decay is an option of relaxation 'cage', and this is 'soft'; leave it out",
    ),
    Command("train --thresholds -1", "the number of thresholds must be at least 1, got -1"),
    Command(
        "train --dataset monk1 --thresholds 3",
        "'monk1' comes as bits already; leave thresholds out",
    ),
    Command(
        "train --dataset cifar", f"unknown dataset 'cifar'; did you mean 'cifar10'? {_NO_DATA}"
    ),
    Command("train --device gpu", "unknown device 'gpu'; use cpu, cuda or cuda:N"),
    Command("train --device meta", "unknown device 'meta'; use cpu, cuda or cuda:N"),
    Command("train --device cuda:99", "there is no …"),
    Command(
        "train --out run",
        "run exists and is not empty; resume it (lgn-analysis train --resume run), or choose another "
        "directory",
    ),
    Command(
        "train --out text",
        "text exists and is not empty; resume it (lgn-analysis train --resume text), or choose another "
        "directory",
    ),
    Command(
        "train --config nothing",
        "cannot read the configuration nothing: there is none; give a TOML file, or a YAML file of the "
        "paper's code",
    ),
    Command(
        "train --config run",
        "cannot read the configuration run: it is a directory; give the file in it, for instance "
        "run/config.toml",
    ),
    Command(
        "train --config bytes.toml",
        "cannot read the configuration bytes.toml: byte 0 is no UTF-8; save it in that encoding",
    ),
    Command("train --resume nothing", "there is no run directory at nothing"),
    Command("train --resume text", "there is no run directory at text"),
    Command("train --resume .", "there is no checkpoint at last.safetensors"),
    Command("train --resume run --steps 1", "run holds 2 steps already; give steps=2 or more"),
    Command("train --resume run --lr 0.1", _RESUMED),
    Command("train --resume run --config run/config.toml", _RESUMED),
    Command("train --resume run --out other", _RESUMED),
    Command("evaluate nothing", "there is no checkpoint at nothing"),
    Command("evaluate .", "there is no checkpoint at best.safetensors"),
    Command(
        "evaluate model.safetensors",
        "model.safetensors does not say what it was trained on; give --dataset NAME",
    ),
    Command("evaluate run --dataset monk1", "expected inputs [batch, 960], got shape (432, 17)"),
    Command("evaluate run --noise-draws 0", "noise_draws must be at least 1, got 0"),
    Command("probe run --samples 0", "samples must be at least 1, got 0"),
    Command("probe run --samples -5", "samples must be at least 1, got -5"),
    Command("probe run --what", "there is nothing to probe; give --what trace, eigs or density"),
    Command("probe run --what eigs --k 0", "k must lie in 1..16000, got 0"),
    Command(
        "probe run --what trace --rtol 0.9",
        "rtol=0.9 would stop a run by chance where the trace is near zero; give at most 0.5, or atol or "
        "ftol",
    ),
    Command("probe run --seed -1", "seed must lie in 0..2**64-1, got -1"),
    Command("convert nothing", "there is no file at nothing"),
    Command(
        "convert text",
        "text holds no plain tensors that torch.load reads (UnpicklingError); where its project is "
        "installed, write torch.save(module.state_dict(), path)",
    ),
    Command(
        "convert text --out model.safetensors", "model.safetensors exists; choose another --out"
    ),
    Command(
        "convert text --n-features 8",
        "an architecture takes --n-features, --n-classes and --group-tau together; --dataset gives the "
        "first two",
    ),
    Command(
        "reproduce --preset huge",
        "unknown preset 'huge'; use one of quick, cpu, fashion, paper, smoke",
    ),
    Command("reproduce --claims ,", "--claims names none; leave it out for all claims"),
    Command("reproduce --workers 0", "workers must be at least 1, got 0"),
    Command("reproduce --out text", "--out text: text is a file; name a folder"),
    Command("reproduce --cache text/cache", "--cache text/cache: text is a file; name a folder"),
    Command("figures", _NO_CSV.format("figures")),
    Command("figures --folder text", "--folder text: text is a file; name a folder"),
    Command("figures --readme nothing", _NO_CSV.format("figures")),
]
