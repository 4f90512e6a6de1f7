"""Tell the failure of a device, after which only a new process can use it, from errors of a recipe."""

from __future__ import annotations

from memdb.recipes.out_of_memory import is_out_of_memory

SIGNS = ("cuda error", "hip error", "device-side assert", "acceleratorerror")
SIGNS_OF_LIBRARIES = (
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cublas_status_execution_failed",
)


def device_failure(error: BaseException) -> str | None:
    """Return the first line of the failure of a device that caused an error; None if none did.

    After an illegal access or a failed assertion on a GPU, all that the process does there fails. Running out
    of memory is not a failure in this sense: see `is_out_of_memory`.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = f"{type(cause).__name__}: {cause}"
        if (
            isinstance(cause, RuntimeError)
            and any(sign in text.lower() for sign in (*SIGNS, *SIGNS_OF_LIBRARIES))
            and not is_out_of_memory(cause)
        ):
            return text.splitlines()[0]
        cause = cause.__cause__ or cause.__context__
    return None
