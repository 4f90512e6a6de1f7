"""The options of training on Ray."""

from __future__ import annotations

from dataclasses import dataclass

from memdb.errors import InvalidInputError

LOCAL = "local"
MOST_GPUS = 64  # of one machine


@dataclass(frozen=True)
class Request:
    """The Ray cluster, the number of tasks at once (None: as many as fit), and the resources of each."""

    address: str
    n_tasks: int | None = None
    task_cpus: int = 1
    task_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.n_tasks is not None and self.n_tasks < 1:
            raise InvalidInputError(
                f"workers {self.n_tasks} is not a number from 1",
                hint="use e.g. workers=2",
                parameter="workers",
            )
        if self.task_cpus < 1:
            raise InvalidInputError(
                f"task_cpus {self.task_cpus} is not a number from 1",
                hint="use e.g. task_cpus=2",
                parameter="task_cpus",
            )
        if self.task_gpus is not None and not 0 <= self.task_gpus <= MOST_GPUS:
            raise InvalidInputError(
                f"task_gpus {self.task_gpus:g} is not a number of GPUs",
                hint="use e.g. task_gpus=0.5",
                parameter="task_gpus",
            )

    def require_fitting(self, device: str) -> None:
        """Check that tasks ask for a GPU if they are to train on one, and for none if they are not.

        Raises:
            InvalidInputError: the two contradict each other.
        """
        if device.startswith("cuda") and self.task_gpus == 0:
            reason, other = "Ray hides every GPU from tasks that ask for none", "cpu"
        elif device == "cpu" and self.task_gpus:
            reason, other = "GPUs would be reserved and idle", "auto"
        else:
            return
        raise InvalidInputError(
            f"device {device!r} and task_gpus {self.task_gpus:g} contradict each other: {reason}",
            hint=f'omit task_gpus, or use device="{other}"',
            parameter=("device", "task_gpus"),
        )
