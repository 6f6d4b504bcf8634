"""The settings of what runs many jobs: on this machine, through Slurm, or through Ray."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from settings.sections import FromList, Section, text_of

SlurmTime = text_of(
    r"^([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}$", "minutes, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`"
)
SlurmMemory = text_of(r"^[0-9]+[KMGT]?$", "a number, MiB, or with `K`, `M`, `G` or `T`")
SlurmName = text_of(r"^[A-Za-z0-9_.,:-]+$", "a name, or several with commas")
OneLine = text_of(r"^[^\n\r]*$", "one line")


class SlurmConfig(Section):
    """Slurm: one array job, a task for each job."""

    partition: SlurmName | None = Field(None, description="partition; null: the cluster's default")
    time_limit: SlurmTime | None = Field(None, description="time limit of a task, after which it is queued again")
    memory: SlurmMemory | None = Field(None, description="memory of a task; null: the cluster's default")
    warning_seconds: int = Field(
        120, ge=1, description="how long before the limit a task is told to save and is queued again, s"
    )
    lines: Annotated[tuple[OneLine, ...], FromList] = Field(
        (), description="further lines of the file, e.g. `#SBATCH --account=NAME` or `module load cuda`"
    )
    wait: bool = Field(True, description="wait until all tasks have ended; false: submit them and return")


class RayConfig(Section):
    """Ray: one task for each job."""

    address: str | None = Field(
        None, description="address of the cluster; null: $RAY_ADDRESS, or else one started on this machine"
    )
    memory_gib: float | None = Field(None, gt=0, description="memory that a job asks for, GiB; null: none")
    memory_retries: int = Field(
        1, ge=0, description="how many times at most a job that Ray ended because memory ran out is run again"
    )


class ExecutorConfig(Section):
    """What runs the jobs, and how many at a time."""

    kind: Literal["local", "slurm", "ray"] = Field(
        "local",
        description="what runs the jobs (docs/clusters.md); local: processes on this machine, slurm: an array job, "
        "ray: tasks on a Ray cluster",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="jobs at a time; null: on this machine one for each GPU, or, without a GPU, one for every second"
        " core; elsewhere as many as there is room for",
    )
    cores: int | None = Field(
        None, ge=1, description="CPU cores of a job; null: on this machine an equal share, elsewhere 1"
    )
    gpus: int = Field(0, ge=0, description="GPUs that a job asks Slurm or Ray for")
    retries: int = Field(
        3, ge=0, description="how many times at most a job that died by a signal is run again, going on where it was"
    )
    slurm: SlurmConfig = Field(SlurmConfig(), description="Slurm")
    ray: RayConfig = Field(RayConfig(), description="Ray")
