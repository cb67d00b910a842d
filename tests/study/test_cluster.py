"""Workers of a cluster do what one process does, and the tasks of a lost one go to others."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cluster_tasks import write_once
from msseg import RECIPE, write_model, write_msseg

from planar3d.commands.scans import prepare
from planar3d.errors import RunError, ScanError
from planar3d.scans.case import Case
from planar3d.scans.folds import group_folds
from planar3d.scans.layouts import find_cases
from planar3d.study import preparing
from planar3d.study.cluster import check_cluster, run_tasks
from planar3d.study.cohort import segment_all
from planar3d.study.preparing import prepare_scans
from planar3d.study.reproduce import folds_for, reproduce
from planar3d.study.run_folder import Run, start_run
from planar3d.study.segmented import Request

distributed = pytest.importorskip("distributed")


@pytest.fixture
def here():
    """A scheduler and a worker in this process."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_msseg(tmp_path_factory.mktemp("msseg"), ids=("01A", "07A", "08A"))


@pytest.fixture
def two_workers(tmp_path):
    """The file of a scheduler with two workers, each a process that nobody starts again."""
    file, running = tmp_path / "scheduler.json", []
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    for words in (["scheduler", "--port", "0"], *[["worker", "--no-nanny", "--nthreads", "1"]] * 2):
        command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:], *common]
        running.append(subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}))
        while not file.exists() or not file.stat().st_size:  # dask writes it after creating it
            assert running[0].poll() is None
            time.sleep(0.05)
    yield str(file)
    for process in running:
        process.kill()
        process.communicate()


def test_a_killed_workers_task_goes_to_another_which_takes_over_its_claim(tmp_path, two_workers):
    (folder := tmp_path / "done").mkdir()
    tasks, lines = [(folder, number) for number in range(6)], []
    found = dict(run_tasks(two_workers, write_once, tasks, "line", lines.append))
    assert isinstance(found.pop((folder, 5)), ScanError)
    assert sorted(number for number, _ in found.values()) == [0, 1, 2, 3, 4]
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"done-{number}" for number in range(5)), "tried"]
    assert lines[0].startswith(f"6 lines on {two_workers}, ") and lines[-1] == "line 6/6"


def test_a_scheduler_that_is_lost_is_a_sentence(tmp_path, two_workers):
    (folder := tmp_path / "done").mkdir()
    with distributed.Client(scheduler_file=two_workers) as client:
        scheduler = client.run_on_scheduler(os.getpid)
    results = run_tasks(two_workers, write_once, [(folder, number) for number in range(6, 99)], "task", print)
    next(results)
    os.kill(scheduler, signal.SIGKILL)
    with pytest.raises(RunError, match=r"the scheduler was lost\. Start it and its workers again"):
        list(results)


def test_a_task_whose_result_was_taken_is_forgotten_and_not_run_again_when_its_worker_is_lost(here, tmp_path):
    tasks = [(tmp_path, number) for number in (0, 1, 2, 4)]
    with distributed.Client(here) as client:
        for _ in run_tasks(here, write_once, tasks, "line", str):
            last = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    assert last < len(tasks)


def test_workers_write_the_masks_that_one_process_writes(here, data, tmp_path):
    model = write_model(tmp_path)
    scans, request = sorted(data.rglob("3DFLAIR.nii.gz")), Request(method="windowed", engine="keras")
    (bad := tmp_path / "bad_FLAIR.nii.gz").write_bytes(b"no scan")
    alone = segment_all(scans, model, tmp_path / "alone", request=request, notify=str)
    lines: list[str] = []
    for _ in range(2):
        there = segment_all(
            [*scans, bad], model, tmp_path / "there", request=request, notify=lines.append, cluster=here
        )
        assert [record["result"] for record in there.records] == [record["result"] for record in alone.records]
        assert list(there.failed) == [bad] and "not a NIfTI file" in there.failed[bad]
    for mask in (tmp_path / "alone").glob("*_mask.nii.gz"):
        assert mask.read_bytes() == (tmp_path / "there" / mask.name).read_bytes()
    assert sum("already exists" in line for line in lines) == 3 and "scan 4/4" in lines
    assert (tmp_path / "there/scans.csv").read_text().count("done") == 3


def test_workers_prepare_the_scans_of_a_run(here, data, tmp_path):
    dataset = find_cases(data)
    folds = folds_for(dataset, "none")
    runs = {name: start_run(tmp_path / name, dataset, RECIPE, folds) for name in ("alone", "there")}
    prepare_scans(runs["alone"], str)
    prepare_scans(runs["there"], str, cluster=here)
    for case in dataset.cases:
        one, other = (np.load(run.prepared(case.id) / "voxels.npy") for run in runs.values())
        np.testing.assert_array_equal(one, other)


def test_what_a_worker_gets_to_prepare_a_scan_does_not_grow_with_the_cohort(tmp_path, monkeypatch):
    sizes = []
    for count in (10, 100):
        cases = {f"s{n:03d}": Case(f"s{n:03d}", {"flair": Path("f.nii.gz")}, Path("m.nii.gz")) for n in range(count)}
        run = Run(tmp_path, RECIPE, cases, group_folds(dict.fromkeys(cases, "a"), 5), {"folder": "/data"})
        tasks: list[Run] = []
        monkeypatch.setattr(preparing, "run_tasks", lambda *given, tasks=tasks: tasks.extend(given[2]) or ())
        prepare_scans(run, str, cluster="anywhere")
        assert len(tasks) == count and len(tasks[0].folds) == 5
        sizes.append(len(pickle.dumps(tasks[0])))
    assert sizes[0] == sizes[1]


def test_a_cluster_that_does_not_answer_is_named(tmp_path):
    with pytest.raises(RunError, match=r"--cluster .*absent.json: no scheduler answers"):
        list(run_tasks(str(tmp_path / "absent.json"), str, [1], "scan", str))
    (tmp_path / "queue.yaml").write_text("jobqueue: {slurm: {cores: 2}}\n")
    with pytest.raises(RunError, match="“jobs” and “jobqueue” with one of slurm"):
        list(run_tasks(str(tmp_path / "queue.yaml"), str, [1], "scan", str))


@pytest.mark.parametrize("name", ["absent.json", "queue.yaml"])
def test_nothing_is_written_for_a_cluster_that_cannot_be_used(data, tmp_path, name):
    (tmp_path / "queue.yaml").write_text("jobqueue: {slurm: {cores: 2}}\n")
    where, out = str(tmp_path / name), tmp_path / "out"
    calls = (
        lambda: segment_all([data], write_model(tmp_path), out, cluster=where, notify=str),
        lambda: reproduce(find_cases(data), out, RECIPE, cluster=where, notify=str),
        lambda: prepare(data, out, cluster=where),
    )
    for call in calls:
        with pytest.raises(RunError, match=name):
            call()
        assert not out.exists()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The two commands of SLURM that dask-jobqueue calls, which run a job on this machine."""
    # A copy, as dask-jobqueue deletes the job's script when it is submitted.
    sbatch = 'cp "$1" "$0.job"\nsh "$0.job" > /dev/null 2>&1 & echo "Submitted batch job $!"'
    lines = {"sbatch": sbatch, "scancel": 'kill "$@"'}
    for name, line in lines.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


def test_the_configuration_on_the_page_starts_jobs(tmp_path, slurm):
    page = (Path(__file__).parents[2] / "docs/how-to/cluster.md").read_text()
    content = page.partition("```yaml\n")[2].partition("```")[0]
    (path := tmp_path / "slurm.yaml").write_text(content.replace("jobs: 20", "jobs: 1"))
    assert list(run_tasks(str(path), len, ["abc"], "word", str)) == [("abc", 3)]


def test_ctrl_c_stays_an_interrupt_when_jobs_are_configured(tmp_path, slurm):
    (path := tmp_path / "slurm.yaml").write_text("jobs: 1\njobqueue: {slurm: {cores: 1}}")
    program = (
        "import signal, sys; from planar3d.study.cluster import check_cluster;"
        "signal.signal(signal.SIGINT, signal.default_int_handler); check_cluster(sys.argv[1]);"
        "sys.exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True)


def test_jobs_that_cannot_be_submitted_are_not_waited_for(tmp_path, slurm, monkeypatch):
    (path := tmp_path / "slurm.yaml").write_text("jobs: 1\njobqueue: {slurm: {cores: 1}}")
    with pytest.raises(RunError, match=r"slurm\.yaml: dask-jobqueue cannot start jobs with it \(You must specify"):
        list(run_tasks(str(path), len, ["abc"], "word", str))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match=r"slurm\.yaml: sbatch was not found"):
        check_cluster(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"jobs: [",
        b"jobs: 2\njobqueue:\n",
        b"jobqueue: {slurm: {}}",
        b"- 1",
        b"# \xe9",
        b"jobqueue: 1",
        b"jobqueue: slurm",
        b"[" * 5000,
    ],
)
def test_a_configuration_that_starts_no_jobs_is_a_sentence(tmp_path, content):
    (path := tmp_path / "jobs.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"jobs\.yaml"):
        next(run_tasks(str(path), write_once, [], "line", str))


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_a_pipe_and_a_file_without_an_address_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunError, match="it is a folder or device"):
        check_cluster(str(tmp_path / name))
    (tmp_path / "b.json").write_text('{"id": 1}')
    with pytest.raises(RunError, match="does not have the address of a scheduler"):
        check_cluster(str(tmp_path / "b.json"))
