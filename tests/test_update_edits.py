"""Random edits survive `copier update`: nothing that a user wrote may be lost silently.

EDIT_SEED=7 python -m pytest tests/test_update_edits.py     # other edits than those of seed 0
"""

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from tests.aging import change
from tests.edits import KINDS, Edit, apply, files, losses
from tests.history import SYNTHETIC, commit_all, git, make_project, update
from tests.render import EXAMPLES

UPDATES, EDITS = 4, 51  # an update takes seconds, so each carries many edits
SEED = int(os.environ.get("EDIT_SEED", "0"))
edits_at_random = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 999), st.integers(0, 59), st.booleans()),
    min_size=EDITS,
    max_size=EDITS,
)


def test_nothing_is_lost_silently() -> None:
    done: list[Edit] = []

    @seed(SEED)
    @settings(
        max_examples=UPDATES,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a smaller failing example would cost many updates
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(EXAMPLES)), edits_at_random)
    def check(example: str, edits: list[Edit]) -> None:
        note(f"EDIT_SEED={SEED} repeats this.")
        with tempfile.TemporaryDirectory() as folder:
            project = make_project(Path(folder) / "project", SYNTHETIC, example)
            apply(project, example, edits)
            commit_all(project, "our work")
            edited = files(project)
            update(project)
            assert losses(project, example, edited) == []
        done.extend(edits)

    check()
    assert len(done) >= 200


def test_a_loss_would_be_seen(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", SYNTHETIC, "lightning")
    name = "src/configs/config.yaml"
    change(project / name, r"^seed: \d+", "seed: 5")
    (project / "LICENSE").unlink()
    edited = files(project)
    assert f"{name} did not get" in " ".join(losses(project, "lightning", edited)), "nothing was updated yet"
    git(project, "checkout", "--", ".")
    found = losses(project, "lightning", edited)
    assert f"{name} lost: seed: 5" in found
    assert f"{name} has again: seed: 42" in found
    assert "LICENSE was removed and came back" in found
    (project / name).unlink()
    assert f"{name} is not as it was" in losses(project, "lightning", edited)
