"""Tasks on a dask cluster: the tasks of a lost worker go to others, and progress is for all tasks."""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from planar3d.errors import Planar3DError, RunError
from planar3d.extras import extra
from planar3d.files import parse_json
from planar3d.progress import Notify, duration
from planar3d.wording import counted

Item = TypeVar("Item")
Done = TypeVar("Done")

_QUEUES = ("slurm", "pbs", "sge", "lsf", "oar")  # sections of dask-jobqueue's configuration, by which classes are named
_YAML = (".yaml", ".yml")
_PATIENCE = 60  # seconds until a scheduler answers
_one_at_a_time = threading.Lock()  # for a worker's threads: Keras has one state per process


def run_tasks(
    where: str, call: Callable[[Item], Done], items: Sequence[Item], what: str, notify: Notify
) -> Iterator[tuple[Item, Done | Planar3DError]]:
    """Call a function with each item on the workers of a cluster, and yield each item with its result when done.

    A task may run more than once, because tasks of lost workers go to others; so its work must be claimed.

    Args:
        where: address of a scheduler, its JSON file, or a YAML file of dask-jobqueue, in which `jobs` is the number of
            jobs to start.
        call: a function that a worker can import, or a `partial` of one; paths must be the same there.
        items: objects that can be pickled.

    Raises:
        RunError: no scheduler answers, or it stopped answering; or the file is none of these.
    """
    with extra("cluster"):
        from distributed import CancelledError, as_completed
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker
    with ExitStack() as opened:
        client = opened.enter_context(_client(where, opened))
        workers = counted(client.scheduler_info()["workers"], "worker")
        notify(f"{counted(items, what)} on {where}, {workers}")
        futures = {client.submit(_alone, call, item, pure=False): item for item in items}
        began = time.monotonic()
        for number, future in enumerate(as_completed(futures), start=1):
            result: Any
            try:
                result = future.result()
            except Planar3DError as error:
                result = error
            except KilledWorker:
                result = RunError("every worker that tried it died; check the workers' logs, e.g. for lack of memory.")
            except (CancelledError, CommClosedError):
                raise RunError(
                    f"--cluster {where}: the scheduler was lost. Start it and its workers again, and run the same "
                    "command; finished parts are kept."
                ) from None
            left = (time.monotonic() - began) / number * (len(items) - number)
            notify(f"{what} {number}/{len(items)}{f', {duration(left)} left' if left else ''}")
            yield futures.pop(future), result  # a kept future's task runs again if its worker is lost later


def require_all(found: Iterable[tuple[Any, Any]]) -> None:
    """Wait for the tasks of `run_tasks`, and raise the first error."""
    for _, result in found:
        if isinstance(result, Planar3DError):
            raise result


def check_cluster(where: str) -> None:
    """Raise a `RunError` unless a scheduler answers, or a file of dask-jobqueue can be read; its jobs are not started.

    Args:
        where: as in `run_tasks`.
    """
    with extra("cluster"):
        import distributed  # noqa: F401
    if where.endswith(_YAML):
        _configuration(Path(where))
    else:
        with ExitStack() as opened:
            opened.enter_context(_client(where, opened))


def _client(where: str, opened: ExitStack) -> Any:
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # its tracebacks of a lost scheduler
    try:
        if where.endswith(_YAML):
            return Client(_started(Path(where), opened), timeout=_PATIENCE)
        known = {"address": where}
        if where.endswith(".json"):
            known = {"scheduler_file": where}
            # The client would wait forever for a missing file, and for the end of a pipe.
            content = parse_json(_regular(Path(where)))
            if not isinstance(content, dict) or not isinstance(content.get("address"), str):
                raise ValueError("the file does not have the address of a scheduler")
        return Client(**known, timeout=_PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        if where.endswith(_YAML):
            raise RunError(f"{where}: dask-jobqueue cannot start jobs with it ({error}).") from None
        raise RunError(
            f"--cluster {where}: no scheduler answers ({error}). Start dask scheduler and dask worker, and name its "
            "address or its file."
        ) from None


def _started(path: Path, opened: ExitStack) -> Any:
    kind, queue, section, jobs = _configuration(path)
    import dask

    # Key by key, so that others keep their defaults; and until the end, as they are read when a job is submitted.
    opened.enter_context(dask.config.set({f"jobqueue.{queue}.{key}": value for key, value in section.items()}))
    cluster = opened.enter_context(kind())
    cluster.scale(jobs=jobs)
    return cluster


def _configuration(path: Path) -> tuple[Any, str, Any, int]:
    """The class for the queue of a dask-jobqueue configuration, the queue, its section, and the number of jobs."""
    interrupt = signal.getsignal(signal.SIGINT)
    with extra("cluster"):
        import dask_jobqueue  # whose first import lets Ctrl+C end the process without a word, with exit code 0
        import yaml
    if signal.getsignal(signal.SIGINT) is not interrupt:
        signal.signal(signal.SIGINT, interrupt)
    try:
        content = yaml.safe_load(_regular(path).read_bytes())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RunError(f"{path} is not readable as YAML ({error}).") from None
    sections = (content.get("jobqueue") if isinstance(content, dict) else None) or {}
    queue = next((name for name in sections if name in _QUEUES), None) if isinstance(sections, dict) else None
    if queue is None or not isinstance(sections[queue], dict) or not isinstance(content.get("jobs"), int):
        raise RunError(f"{path}: “jobs” and “jobqueue” with one of {', '.join(_QUEUES)} are needed.")
    kind = getattr(dask_jobqueue, f"{queue.upper()}Cluster")
    submit = kind.job_cls.submit_command.split()[0]
    if shutil.which(submit) is None:  # the workers would be waited for without end
        raise RunError(f"{path}: {submit} was not found; start the command on a machine from which jobs are submitted.")
    return kind, queue, sections[queue], content["jobs"]


def _regular(path: Path) -> Path:
    path.stat()
    if not path.is_file():
        raise ValueError("it is a folder or device")
    return path


def _alone(call: Callable[[Item], Done], item: Item) -> Done:
    with _one_at_a_time:
        return call(item)
