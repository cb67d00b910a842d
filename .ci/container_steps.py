"""Execute the Dockerfile step by step in clean roots, where no builder of images runs; needs root, on Linux.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm base
    python .ci/container_steps.py --base base --into image --volume scans:/data -- predict /data --out /data/masks

A stage begins with a copy of --base, whatever image its FROM names. What follows `--`, or else CMD, is then given to
the entry point, as the image's user, with the image's environment alone and without a network. Without --base nothing
is built, and the program runs in the root that an earlier call left in --into.
"""

import argparse
import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass
class Stage:
    """A root folder, and what the instructions so far say of what runs in it."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    folder: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def run(
        self,
        words: Sequence[str],
        volumes: Sequence[tuple[Path, str, bool]] = (),
        environment: dict[str, str] | None = None,
        network: bool = False,
    ) -> int:
        """Run a program in the root and give its exit status; host folders are bound to places inside.

        Args:
            words: the program and its arguments.
            volumes: (on the host, inside, read-only).
            environment: variables besides the image's own.
            network: whether there is one.
        """
        script = ['mount -t proc proc "$0/proc"', 'mount -t sysfs -o ro sysfs "$0/sys"', 'mount --rbind /dev "$0/dev"']
        for outside, inside, read_only in volumes:
            place = self.root / inside.lstrip("/")
            if outside.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            script.append(shlex.join(["mount", "--bind", str(outside.absolute()), str(place.absolute())]))
            if read_only:
                script.append(shlex.join(["mount", "-o", "remount,bind,ro", str(place.absolute())]))
        variables = [f"{name}={value}" for name, value in {**(environment or {}), **self.environment}.items()]
        program = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *words]
        chroot = ["chroot", f"--userspec={self.user}", "--groups=", str(self.root.absolute())]
        script.append('exec "$@"')
        namespaces = ["unshare", "--mount", "--pid", "--fork", *([] if network else ["--net"])]
        command = [*namespaces, "sh", "-ec", "\n".join(script), str(self.root.absolute())]
        return subprocess.run([*command, *chroot, "env", "-i", *variables, *program]).returncode


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The word and the argument of each instruction of a Dockerfile."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, argument = line.strip().partition(" ")
            yield word.upper(), argument.strip()


def is_sent(path: str, ignored: str) -> bool:
    """Whether a path is sent to the builder, by the lines of a `.dockerignore`: the last one decides."""
    sent = True
    for line in ignored.splitlines():
        pattern = line.lstrip("!").strip()
        if pattern and not line.startswith("#"):
            parts = Path(path).parts
            tails = [parts[start:] for start in range(len(parts))] if pattern.startswith("**/") else [parts]
            heads = ["/".join(tail[:end]) for tail in tails for end in range(1, len(tail) + 1)]
            if any(fnmatch.fnmatchcase(head, pattern.removeprefix("**/")) for head in heads):
                sent = line.startswith("!")
    return sent


def main() -> int:
    """Build if there is a base, then run the entry point."""
    asked = _arguments()
    if not asked.base and not (asked.into / "image").is_dir():
        sys.exit(f"{asked.into} has no image; build it with --base.")
    names: dict[str, Stage] = {}
    stage = Stage(asked.into)
    lent = [(path, str(path), True) for path in asked.lend]
    variables = {name: os.environ[name] for name in asked.variable}
    for number, (word, argument) in enumerate(instructions((ROOT / "Dockerfile").read_text()), start=1):
        if asked.base:
            print(f"{number:2} {word} {argument}", flush=True)
        elif word in {"COPY", "RUN"}:
            continue
        match word:
            case "FROM":
                name = argument.split(" AS ")[1] if " AS " in argument else ""
                stage = names[name] = Stage(asked.into / name if name else asked.into / "image")
                if asked.base:
                    _begin(stage.root, asked.base)
            case "COPY":
                _copy(argument.split(), stage, names)
            case "RUN":
                if code := stage.run(["sh", "-c", argument], lent, variables, network=True):
                    return code
            case "ENV":
                key, _, value = argument.partition("=")
                stage.environment[key] = value
            case "WORKDIR":
                stage.folder = argument
                (stage.root / argument.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "USER":
                stage.user = argument
            case "ENTRYPOINT":
                stage.entry = json.loads(argument)
            case "CMD":
                stage.command = json.loads(argument)
            case "LABEL":
                pass
            case _:
                sys.exit(f"{word} is not known here.")
    stage.user = asked.user or stage.user
    program = [asked.entrypoint] if asked.entrypoint else [*stage.entry, *([] if asked.words else stage.command)]
    return stage.run([*program, *asked.words], [volume(text) for text in asked.volume])


def volume(text: str) -> tuple[Path, str, bool]:
    """The place on the host, the place inside and whether it is read-only, of HOST:INSIDE or HOST:INSIDE:ro."""
    outside, inside, *options = text.split(":")
    return Path(outside), inside, options == ["ro"]


def _begin(root: Path, base: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", base, root], check=True)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")


def _copy(words: list[str], stage: Stage, names: dict[str, Stage]) -> None:
    *sources, target = [word for word in words if not word.startswith("--")]
    place = stage.root / str(Path(stage.folder, target)).lstrip("/")
    if words[0].startswith("--from="):
        place.mkdir(parents=True, exist_ok=True)
        source = names[words[0].removeprefix("--from=")].root / sources[0].lstrip("/")
        subprocess.run(["cp", "-a", f"{source}/.", place], check=True)
        return
    ignored = (ROOT / ".dockerignore").read_text()
    for source in sources:
        for path in [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*")):
            if path.is_file() and is_sent(str(path.relative_to(ROOT)), ignored):
                to = place / path.name if (ROOT / source).is_file() else place / path.relative_to(ROOT / source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="clean root with python3, venv and certificates; none: do not build")
    parser.add_argument("--into", type=Path, required=True, help="folder for the roots of the stages")
    parser.add_argument("--lend", type=Path, default=[], action="append", help="file of the host that RUN may see")
    parser.add_argument("--variable", default=[], action="append", help="environment variable that RUN may see")
    parser.add_argument("--volume", default=[], action="append", help="HOST:INSIDE[:ro], for the last run")
    parser.add_argument("--user", help="UID:GID of the last run instead of the image's")
    parser.add_argument("--entrypoint", help="program of the last run instead of the image's")
    parser.add_argument("words", nargs="*", help="arguments of the entry point instead of the image's CMD")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
