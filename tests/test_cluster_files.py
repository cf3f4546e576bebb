"""deploy/cluster/ as projects of every framework get it: Kubernetes' schemas, names, and the job script's shell."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import kubernetes_validate
import pytest
import yaml

from tests.render import ROOT

FOLDER = ROOT / "template/deploy/cluster"
BACKENDS = {"lightning": ["lightning"], "paddle": ["paddle"], "both": ["lightning", "paddle"]}
OLDEST, NEWEST = "1.27", "1.37"  # autoscaling/v2 and pod failure policies; the newest that the package knows
CORE = {"Service", "Job", "PersistentVolumeClaim", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
ANSWERS = [("none", "leaves"), ("12.6", "l" + 58 * "e" + "_")]  # GPU and the project's name
VARIANTS = [(framework, *answers) for framework in BACKENDS for answers in ANSWERS]


def rendered(name: str, framework: str, gpu: str, slug: str) -> str:
    """A file of deploy/cluster/ with these answers."""
    answers = {"project_slug": slug, "gpu": gpu, "backends": BACKENDS[framework], "start": ["small_cnn", "digits", ""]}
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(
        (FOLDER / f"{name}.jinja").read_text("utf-8")
    )
    return template.render(answers)


def documents(name: str, *variant: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered(f"kubernetes/{name}.yaml", *variant)))


def training(*variant: str) -> list[dict[str, Any]]:
    """The Jobs."""
    return [document for document in documents("training", *variant) if document["kind"] == "Job"]


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_kubernetes_knows_every_field(variant: tuple[str, ...]) -> None:
    """Strictly: a field that the schema lacks is an error."""
    found = [document for name in ("storage", "training", "serving") for document in documents(name, *variant)]
    assert {document["kind"] for document in found} == CORE
    for document in found:
        for version in (OLDEST, NEWEST) if variant[0] == "both" else (NEWEST,):
            kubernetes_validate.validate(document, version, strict=True)
        name = document["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) and len(f"{name}-99") <= 63, name


def test_a_misspelt_field_is_found() -> None:
    [job] = training("lightning", "12.6", "leaves")
    job["spec"]["template"]["spec"]["containers"][0]["resorces"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, NEWEST, strict=True)


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_pods_of_a_job_find_each_other_and_their_volumes(variant: tuple[str, ...]) -> None:
    services = {each["metadata"]["name"]: each for each in documents("training", *variant) if each["kind"] == "Service"}
    volumes = {each["metadata"]["name"] for each in documents("storage", *variant)}
    jobs = training(*variant)
    assert [job["metadata"]["labels"]["framework"] for job in jobs] == BACKENDS[variant[0]]
    for job in jobs:
        name, spec = job["metadata"]["name"], job["spec"]
        pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
        assert services[name]["spec"]["selector"].items() <= labels.items() and pod["subdomain"] == name
        [container] = pod["containers"]
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables["MASTER"] == f"{name}-0.{name}"
        assert spec["completions"] == spec["parallelism"] == int(variables["NODES"])
        limits = container["resources"]["limits"]
        assert limits.get("nvidia.com/gpu") == (variables["PROCESSES"] if variant[1] != "none" else None)
        claims = {each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "emptyDir" not in each}
        assert claims == volumes
        [words] = container["args"]
        assert "--auto-resume" in words and "\n" not in words
        other = {"lightning": "paddle", "paddle": "torch"}[labels["framework"]]
        assert other not in words
        done = subprocess.run(["bash", "-n", "-c", words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    paths = {
        mount["mountPath"] for job in jobs for mount in job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert {"/app/data", "/app/outputs", "/tmp", "/dev/shm"} == paths


def test_the_service_is_watched_scaled_and_kept_up() -> None:
    found = {each["kind"]: each for each in documents("serving", "lightning", "none", "leaves")}
    name, pod = "leaves-serve", found["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == name
    assert container["image"].endswith(":serving") and (ROOT / "template/deploy/serving/Dockerfile.jinja").is_file()
    assert "replicas" not in found["Deployment"]["spec"], "or applying the file would undo the autoscaler's"
    for selector in (
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= pod["metadata"]["labels"].items()
    source = "".join(path.read_text("utf-8") for path in (ROOT / "template/src/kit/serving").glob("*.py"))
    assert '"/health"' in source and '"/ready"' in source


@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_the_job_script_is_sound(variant: tuple[str, ...], tmp_path: Path) -> None:
    text = rendered("train.sbatch", *variant)
    (tmp_path / "train.sbatch").write_text(text, "utf-8")
    assert text.startswith("#!/bin/bash\n"), "or sbatch refuses it"
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", text, re.M))
    assert options.get("gpus-per-node") == (options["ntasks-per-node"] if variant[1] != "none" else None)
    assert subprocess.run(["bash", "-n", "train.sbatch"], cwd=tmp_path, check=False).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", "train.sbatch"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_project_holds_them_as_chosen(projects: dict[str, Path]) -> None:
    folder = projects["both"] / "deploy/cluster"
    assert "framework: paddle" in (folder / "kubernetes/training.yaml").read_text("utf-8")
    for name in ("ray_train.py", "kubernetes/storage.yaml", "kubernetes/serving.yaml", "train.sbatch"):
        assert (folder / name).is_file()
    assert not (projects["lightning"] / "deploy/cluster").exists()
    assert not (projects["lightning"] / "scripts/plan.py").exists()
