"""Search for the best values of any keys: each trial is an ordinary run.

    python scripts/search.py optimizer.lr=1e-4..1e-1:log                                  # 20 trials, one after another
    python scripts/search.py optimizer.lr=1e-4..1e-1:log scheduler=cosine,one_cycle model.width=16..64:int \\
        --trials 50 --jobs 2 -- data=cifar10
    python scripts/search.py --sampler grid optimizer.lr=0.1,0.01 model.width=16,32       # each combination
    python scripts/search.py search=rate data=cifar10                                     # src/configs/search/rate.yaml
    python scripts/search.py model.width=16..64:int --objectives val/accuracy,parameters  # a Pareto front

Killed, interrupted or out of power: the same command goes on where it was. No trial is lost and no epoch repeated.

KEY=LOW..HIGH draws numbers, with :log on a logarithmic scale and with :int whole ones; KEY=A,B,C (or 'A|B|C', quoted)
chooses. All other words are as in scripts/train.py and the same for each trial, as is whatever follows --.

Options:
    --trials N       how many trials, those of earlier starts among them (20; a grid: all combinations)
    --jobs N         how many to train at once (1); GPUs and processor cores are shared out
    --sampler NAME   tpe (the default), gp (Gaussian process, needs torch), random or grid
    --pruner NAME    median ends a trial that is worse than half of the others after as many epochs; none ends none
    --on slurm       each trial is a step (srun) of the SLURM job that this command runs in, on any of its nodes
    --on ray         each trial is a task of the Ray cluster that this machine belongs to, on any of its nodes
    --objectives A,B more scores than the task's own, each with :min or :max behind it where that is not clear
    --help, --debug (tracebacks)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Search, and write `outputs/search-<keys>-<code>/search.html`."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(__doc__ or "")
        return
    from src.kit.search import read_plan, run_search

    run_search(read_plan(argv), argv)


if __name__ == "__main__":
    run_main(main)
