"""What is in `deploy/`, checked as far as can be without the services."""

import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from ray.autoscaler._private.util import prepare_config, validate_config
from support.nodes import BIN, ENVIRONMENT, SPACE, Process, kill, only_cluster

from tune_srs.cli.app import app
from tune_srs.runs.journal import events

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
EPOCHS = 100  # of a trial; the others are still training when the first one has ended


class Fields(BaseModel):
    """Of KubeRay 1.6's own schema those that we use, and no others."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class Named(Fields):
    name: str


class EnvVar(Named):
    value: str


Amounts = dict[str, int | Annotated[str, Field(pattern=r"^\d+(m|[KMGT]i?)?$")]]


class Resources(Fields):
    limits: Amounts
    requests: Amounts


class Mount(Named):
    mount_path: str


class Container(Named):
    image: str
    env: list[EnvVar] = []
    resources: Resources
    volume_mounts: list[Mount]


class Claim(Fields):
    claim_name: str


class Volume(Named):
    persistent_volume_claim: Claim


class PodSpec(Fields):
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume]


class Pod(Fields):
    spec: PodSpec


class Group(Fields):
    ray_start_params: dict[str, str]
    template: Pod


class WorkerGroup(Group):
    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int


class AuthOptions(Fields):
    mode: Literal["token", "disabled"]


class ClusterSpec(Fields):
    ray_version: str
    auth_options: AuthOptions
    head_group_spec: Group
    worker_group_specs: list[WorkerGroup]


class JobSpec(Fields):
    entrypoint: str
    submission_mode: Literal["K8sJobMode", "HTTPMode"]
    backoff_limit: int
    shutdown_after_job_finishes: bool
    ray_cluster_spec: ClusterSpec


class RayJob(Fields):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Named
    spec: JobSpec


def test_the_ray_cluster_file_is_what_ray_up_accepts() -> None:
    cluster = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    validate_config(prepare_config(cluster))
    assert f"ray:{version('ray')}-py" in cluster["docker"]["image"]
    worker = cluster["available_node_types"]["worker"]
    assert worker["min_workers"] == worker["max_workers"] == cluster["max_workers"]


def test_the_ray_job_is_one() -> None:
    cluster = ray_job().spec.ray_cluster_spec
    assert cluster.ray_version == version("ray")
    for group in (cluster.head_group_spec, *cluster.worker_group_specs):
        pod = group.template.spec
        mounts = {mount.name for mount in pod.containers[0].volume_mounts}
        assert mounts == {volume.name for volume in pod.volumes}


def ray_job() -> RayJob:
    return RayJob.model_validate(yaml.safe_load((DEPLOY / "rayjob.yaml").read_text()))


def command(file: str) -> str:
    """The search that a file gives to its cluster."""
    if file == "rayjob.yaml":  # which goes on where there is something to go on from
        return re.sub(r"\$\(.*\|\| echo (--resume)\)$", r"\1", ray_job().spec.entrypoint)
    comments = re.sub(r"\\\n#", "", (DEPLOY / file).read_text())
    return str(re.findall("(tune-srs search .*)'", comments)[0])


@pytest.mark.parametrize("file", ["ray-cluster.yaml", "rayjob.yaml"])
def test_the_commands_are_ours(file: str) -> None:
    _, name, *arguments = shlex.split(command(file))
    group: Any = typer.main.get_command(app)
    given = group.commands[name].make_context(name, arguments).params
    assert (ROOT / "search_spaces" / given["space"].name).is_file()
    assert given["address"] == "auto"
    assert given["storage"]
    assert given["resume"] == (file == "rayjob.yaml")


def test_the_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)


@pytest.mark.slow
def test_the_slurm_job_goes_on_when_its_time_was_up(tmp_path: Path) -> None:
    rates = {"train.lr": {"type": "categorical", "choices": [0.01, 0.003, 0.001, 0.0003]}}
    fixed = SPACE["fixed"] | {"train.max_epochs": EPOCHS}  # type: ignore[operator]
    space = SPACE | {"fixed": fixed, "params": rates}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")

    with only_cluster(), slurm_job(tmp_path) as job:
        assert job.stdout is not None
        assert any(line.startswith("[1/4]") for line in job.stdout)
        job.send_signal(signal.SIGUSR1)
        told, _ = job.communicate()
    assert job.returncode == 130, told
    assert (tmp_path / "asked of Slurm").read_text() == "requeue 7\n"
    assert not (tmp_path / "results" / "run" / "best").exists()

    with only_cluster(), slurm_job(tmp_path) as job:
        told, _ = job.communicate()
    assert job.returncode == 0, told
    assert (tmp_path / "results" / "run" / "best").exists()
    happened = list(events(tmp_path / "results" / "run"))
    for trial in range(4):
        epochs = [
            event["epoch"] for event in happened if event["trial"] == trial and "epoch" in event
        ]
        assert epochs == list(range(1, EPOCHS + 1))
    assert [event["end"] for event in happened if "end" in event] == ["complete"] * 4


@contextmanager
def slurm_job(folder: Path) -> Iterator[Process]:
    """The script on two nodes, both of them this machine, with what it calls of Slurm replaced."""
    replaced = folder / "bin"
    replaced.mkdir(exist_ok=True)
    for name, does in {
        "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
        "scontrol": 'echo "$@" > "asked of Slurm"',
    }.items():
        (replaced / name).write_text(f"#!/usr/bin/env bash\n{does}\n")
        (replaced / name).chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="ray-") as short:
        job = subprocess.Popen(
            [DEPLOY / "slurm.sh", "space.yaml", "run"],
            cwd=folder,
            env=ENVIRONMENT
            | {
                "PATH": f"{replaced}:{BIN}:{ENVIRONMENT['PATH']}",
                "RAY_TMPDIR": short,
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NUM_NODES": "2",
                "SLURM_CPUS_ON_NODE": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        with job:
            try:
                yield job
            finally:
                kill(job)
